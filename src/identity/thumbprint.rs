//! The thumbprint of a public key: what a token names the key by that it is bound to (RFC 7638, RFC 8037 §2). For `dpop`,
//! and for the names of our own keys.
//!
//! It is taken over the members as they are written; whether they make a usable key is not its question.

use super::claims::Claims;
use crate::crypto::digest::{Sha256, sha256};

/// The SHA-256 thumbprint of a JWK; `None` for kinds that are not spoken here, and for members that are not base64url.
pub(super) fn thumbprint(jwk: &Claims) -> Option<Sha256> {
    // In the order of their names, and nothing else (RFC 7638 §3.2).
    let names: &[&str] = match jwk.get("kty")?.as_str()? {
        "EC" => &["crv", "kty", "x", "y"],
        "OKP" => &["crv", "kty", "x"],
        "RSA" => &["e", "kty", "n"],
        _ => return None,
    };
    let mut text = String::with_capacity(512);
    for name in names {
        let value = jwk.get(*name)?.as_str().filter(|value| is_plain(value))?;
        text.push(if text.is_empty() { '{' } else { ',' });
        for part in ["\"", name, "\":\"", value, "\""] {
            text.push_str(part);
        }
    }
    text.push('}');
    Some(sha256(text.as_bytes()))
}

/// Letters that stand in a JSON string as they are.
fn is_plain(value: &str) -> bool {
    value
        .bytes()
        .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::identity::minting::encode;

    fn print_of(jwk: &Value) -> Option<String> {
        thumbprint(jwk.as_object().unwrap()).map(encode)
    }

    #[test]
    fn rfc_7638_3_1_an_rsa_key() {
        let vector = include_str!("../../tests/vectors/rfc7638/rsa.json");
        let vector: Value = serde_json::from_str(vector).unwrap();
        assert_eq!(
            print_of(&vector["jwk"]).as_deref(),
            vector["thumbprint"].as_str()
        );
    }

    #[test]
    fn rfc_8037_a_3_an_ed25519_key() {
        let jwk = json!({"kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"});
        let expected = "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k";
        assert_eq!(print_of(&jwk).as_deref(), Some(expected));
    }

    #[test]
    fn only_what_makes_the_key_counts() {
        let jwk = json!({"kty": "EC", "crv": "P-256", "x": "AA", "y": "BB"});
        let print = print_of(&jwk);
        assert!(print.is_some());
        let mut more = jwk.clone();
        more["kid"] = "k".into();
        more["alg"] = "ES256".into();
        assert_eq!(print_of(&more), print);
        for (name, value) in [
            ("x", json!("AB")),
            ("y", json!("A\",\"z\":\"")),
            ("y", json!(7)),
            ("y", Value::Null),
            ("kty", json!("oct")),
        ] {
            let mut other = jwk.clone();
            other[name] = value;
            assert_ne!(print_of(&other), print, "{other}");
        }
    }
}
