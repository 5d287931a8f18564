//! A proof of possession that is read says what a plain reader finds in it, and is about the request that it names.
//!
//! An input is the JSON of a proof's header and, in a further line, that of its claims; it is tried as the text of a proof
//! too. The address is compared with one fixed request.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use http::Method;
use percent_encoding::percent_decode_str;
use portcullis::{
    identity::proof::{Request, Unproved, read},
    wire::{forwarded::Scheme, host::Authority, path::Target},
};
use serde_json::Value;

/// Holds an input against the properties.
pub fn hold(data: &[u8]) {
    let _ = read(data);
    let Some(end) = data.iter().position(|&octet| octet == b'\n') else {
        return;
    };
    let (header, claims) = (&data[..end], &data[end + 1..]);
    let message = format!(
        "{}.{}",
        URL_SAFE_NO_PAD.encode(header),
        URL_SAFE_NO_PAD.encode(claims)
    );
    let text = format!("{message}.c2ln");
    let Ok(proof) = read(text.as_bytes()) else {
        return;
    };
    assert_eq!(
        (proof.message, &*proof.signature),
        (message.as_bytes(), &b"sig"[..])
    );
    says_so(&proof, &json(header), &json(claims));
    is_about(&proof);
}

fn json(text: &[u8]) -> Value {
    serde_json::from_slice(text).expect("what is read is JSON")
}

fn says_so(proof: &Unproved<'_>, header: &Value, claims: &Value) {
    let kind = header["typ"].as_str().expect("a type").to_ascii_lowercase();
    assert!(matches!(&*kind, "dpop+jwt" | "application/dpop+jwt"));
    let alg = header["alg"].as_str().expect("an algorithm");
    assert!(alg == proof.algorithm.name() || alg == "Ed25519");
    assert_eq!(header["jwk"], Value::Object(proof.key.clone()));
    for private in ["d", "p", "q", "dp", "dq", "qi", "oth", "k"] {
        assert!(header["jwk"][private].is_null(), "a private key is told");
    }
    assert!(header["crit"].is_null() && header["b64"].is_null());
    for (name, said) in [
        ("jti", &proof.id),
        ("htm", &proof.method),
        ("htu", &proof.address),
    ] {
        assert_eq!(claims[name], **said);
        assert!(!said.is_empty(), "{name}");
    }
    for (name, said) in [("ath", &proof.token), ("nonce", &proof.nonce)] {
        assert_eq!(claims[name].as_str(), said.as_deref());
    }
    let issued = claims["iat"].as_f64().expect("a number");
    #[expect(clippy::cast_precision_loss, reason = "below 2^53")]
    let read = proof.issued as f64;
    assert!((issued - read).abs() < 1.0, "{issued} {read}");
}

/// A proof for the request has its address, by the letter or by another spelling of the same path.
fn is_about(proof: &Unproved<'_>) {
    let request = Request {
        method: &Method::GET,
        scheme: Scheme::Https,
        authority: &Authority::parse(b"app.example").expect("a host"),
        target: &Target::parse(&"/a/b?c".parse().expect("a target")).expect("a path"),
    };
    if request.is_meant_by(proof).is_err() {
        return;
    }
    assert_eq!(&*proof.method, "GET");
    let address = proof.address.split(['?', '#']).next().expect("a part");
    let lower = address.to_ascii_lowercase();
    let origins = ["https://app.example", "https://app.example."];
    let rest = origins
        .iter()
        .flat_map(|origin| [format!("{origin}:443"), (*origin).to_owned()])
        .find_map(|origin| {
            let at = lower.strip_prefix(&origin)?.starts_with('/');
            at.then(|| address[origin.len()..].to_owned())
        })
        .expect("the address of this host");
    let path = percent_decode_str(&rest).decode_utf8().expect("text");
    let mut segments: Vec<&str> = Vec::new();
    for segment in path.split('/') {
        match segment {
            "" | "." => {}
            ".." => {
                segments.pop().expect("not above the root");
            }
            name => segments.push(name),
        }
    }
    assert_eq!(segments, ["a", "b"], "{address}");
}
