//! Signed tokens that others made: the examples of RFC 7515, RFC 7520 and RFC 8037, read by the program's own parts.

use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use portcullis::crypto::secret::Secret;
use portcullis::identity::jwks::KeySet;
use portcullis::identity::jws::{Algorithm, FormError, take_apart};
use serde_json::{Value, json};

fn vector(name: &str) -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/vectors")
        .join(name);
    let text = std::fs::read_to_string(&path).expect("a vector");
    serde_json::from_str(&text).expect("JSON")
}

fn decoded(part: &str) -> Vec<u8> {
    URL_SAFE_NO_PAD.decode(part).expect("base64url")
}

fn text<'a>(vector: &'a Value, name: &str) -> &'a str {
    vector[name].as_str().expect("a text")
}

/// The key of a vector, for its algorithm or any other that is spoken.
fn key_set(vector: &Value, algorithms: &[Algorithm]) -> KeySet {
    if let Some(secret) = vector["key"]["k"].as_str() {
        let secret = Secret::new(decoded(secret));
        KeySet::from_secret(&secret, &[Algorithm::Hs256]).expect("long enough")
    } else {
        let set = json!({"keys": [vector["key"]]}).to_string();
        KeySet::parse(set.as_bytes(), algorithms).expect("a key set")
    }
}

/// The signature holds under the named key and algorithm, and no changed octet of message or signature does.
#[track_caller]
fn expect_signed(name: &str) {
    let vector = vector(name);
    let algorithm = Algorithm::from_name(text(&vector, "alg")).expect("one that is spoken");
    let (message, signature) = text(&vector, "compact")
        .rsplit_once('.')
        .expect("three parts");
    let signature = decoded(signature);
    let keys = key_set(&vector, &Algorithm::ALL);
    let key = keys
        .find(vector["key"]["kid"].as_str(), algorithm)
        .expect("its key");
    assert!(key.verify(message.as_bytes(), &signature), "{name}");
    for at in [0, message.len() / 2, message.len() - 1] {
        let mut changed = message.as_bytes().to_vec();
        changed[at] ^= 1;
        assert!(!key.verify(&changed, &signature), "{name}: octet {at}");
    }
    for at in [0, signature.len() / 2, signature.len() - 1] {
        let mut changed = signature.clone();
        changed[at] ^= 1;
        assert!(
            !key.verify(message.as_bytes(), &changed),
            "{name}: octet {at}"
        );
    }
    for cut in [0, 1, signature.len() - 1] {
        assert!(!key.verify(message.as_bytes(), &signature[..cut]), "{name}");
    }
    let others = Algorithm::ALL
        .into_iter()
        .filter(|other| *other != algorithm);
    for other in others {
        if let Ok(key) = keys.find(None, other) {
            assert!(
                !key.verify(message.as_bytes(), &signature),
                "{name}: {other}"
            );
        }
    }
}

#[test]
fn rfc_7515_appendix_a() {
    expect_signed("rfc7515/a_1_hs256.json");
    expect_signed("rfc7515/a_2_rs256.json");
    expect_signed("rfc7515/a_3_es256.json");
}

#[test]
fn rfc_7520_section_4() {
    expect_signed("rfc7520/4_1_rs256.json");
    expect_signed("rfc7520/4_2_ps384.json");
    expect_signed("rfc7520/4_4_hs256.json");
}

#[test]
fn rfc_8037_appendix_a_4() {
    expect_signed("rfc8037/a_4_eddsa.json");
}

#[test]
fn rfc_7515_claims_are_read_as_they_are_written() {
    for (name, typ) in [
        ("rfc7515/a_1_hs256.json", Some("jwt")),
        ("rfc7515/a_2_rs256.json", None),
        ("rfc7515/a_3_es256.json", None),
    ] {
        let vector = vector(name);
        let token = take_apart(text(&vector, "compact")).expect("a token");
        assert_eq!(token.header.algorithm.name(), text(&vector, "alg"));
        assert_eq!(token.header.media_type.as_deref(), typ);
        let claims =
            json!({"iss": "joe", "exp": 1_300_819_380, "http://example.com/is_root": true});
        assert_eq!(Value::Object(token.claims), claims);
    }
}

#[test]
fn a22_what_is_unsecured_or_not_spoken_is_refused() {
    let unsecured = vector("rfc7515/a_5_unsecured.json");
    let error = take_apart(text(&unsecured, "compact")).err();
    assert_eq!(error, Some(FormError::Algorithm));
    let es512 = vector("rfc7520/4_3_es512.json");
    let error = take_apart(text(&es512, "compact")).err();
    assert_eq!(error, Some(FormError::Algorithm));
    assert!(key_set(&es512, &Algorithm::ALL).is_empty());
    // Signed, and yet no token: what is signed are no claims.
    let prose = vector("rfc7520/4_1_rs256.json");
    let error = take_apart(text(&prose, "compact")).err();
    assert_eq!(error, Some(FormError::Malformed));
}
