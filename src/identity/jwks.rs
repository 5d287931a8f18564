//! Key sets of issuers: JSON Web Keys (RFC 7517) made ready for checking signatures. For `issuer` and `bearer`.
//!
//! A key is bound to its algorithms when it is read: a public key can never check an HMAC, an RSA key never an ECDSA
//! signature. Symmetric keys in a published set are ignored. Certificates (`x5c`) and pointers (`x5u`) are not read.

use aws_lc_rs::hmac;
use aws_lc_rs::signature::{
    self, ParsedPublicKey, RsaParameters, RsaPublicKeyComponents, VerificationAlgorithm,
};
use serde_json::Value;
use thiserror::Error;

use super::claims::{Claims, parse_object};
use super::jws::{Algorithm, KeyKind, decode};
use crate::crypto::digest::{Sha256, sha256};
use crate::crypto::secret::Secret;

/// The most keys that are taken from one set; published sets hold a handful.
const MAX_KEYS: usize = 100;

/// Why a document is no key set, or a secret no key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum KeySetError {
    /// Not a JSON object with an array `keys`.
    #[error("not a JSON Web Key Set: a JSON object with an array `keys` is expected")]
    Malformed,
    /// More keys than any honest set.
    #[error("more than {MAX_KEYS} keys in one set")]
    TooMany,
    /// RFC 7518 §3.2: a key at least as long as the hash.
    #[error("the secret is too short for {0}: at least as many bytes as its hash are needed")]
    ShortSecret(Algorithm),
}

/// Why no key of the set fits a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoKey {
    /// No key of that id; a newer set may have it.
    Unknown,
    /// Without an id, or with one used twice, several keys fit: none is tried.
    Ambiguous,
    /// The key of that id is for other algorithms.
    Algorithm,
}

/// The keys of an issuer. Equal when they were read from the same bytes.
#[derive(Debug)]
pub struct KeySet {
    keys: Vec<Key>,
    origin: Sha256,
}

impl PartialEq for KeySet {
    fn eq(&self, other: &Self) -> bool {
        self.origin == other.origin
    }
}

/// One key, bound to one algorithm.
#[derive(Debug)]
pub struct Key {
    id: Option<Box<str>>,
    algorithm: Algorithm,
    verifier: Verifier,
}

#[derive(Debug)]
enum Verifier {
    Public(ParsedPublicKey),
    Secret(Box<hmac::Key>),
}

impl KeySet {
    /// Reads a published set, for these algorithms. Keys of unknown or unfit kinds are left out (RFC 7517 §5), weak RSA
    /// keys too; a set may end up empty, which is how an issuer withdraws all of its keys.
    ///
    /// # Errors
    /// A document that is not a key set.
    pub fn parse(json: &[u8], algorithms: &[Algorithm]) -> Result<Self, KeySetError> {
        let document = parse_object(json).map_err(|_| KeySetError::Malformed)?;
        let listed = document
            .get("keys")
            .and_then(Value::as_array)
            .ok_or(KeySetError::Malformed)?;
        if listed.len() > MAX_KEYS {
            return Err(KeySetError::TooMany);
        }
        let mut keys = Vec::new();
        for jwk in listed {
            let jwk = jwk.as_object().ok_or(KeySetError::Malformed)?;
            let fits = |algorithm: &&Algorithm| is_for(jwk, **algorithm);
            for algorithm in algorithms.iter().filter(fits) {
                keys.extend(public_key(jwk, *algorithm).map(|key| Key {
                    id: string(jwk, "kid").map(Box::from),
                    algorithm: *algorithm,
                    verifier: Verifier::Public(key),
                }));
            }
        }
        Ok(Self {
            keys,
            origin: sha256(json),
        })
    }

    /// No key at all, for an issuer whose tokens are not signed for us.
    pub fn none() -> Self {
        Self {
            keys: Vec::new(),
            origin: sha256(b""),
        }
    }

    /// A set of one shared secret, which fits any key id.
    ///
    /// # Errors
    /// A secret shorter than the hash of one of the algorithms.
    pub fn from_secret(secret: &Secret, algorithms: &[Algorithm]) -> Result<Self, KeySetError> {
        let mut keys = Vec::new();
        for algorithm in algorithms {
            let Some(hmac) = hmac_of(*algorithm) else {
                continue;
            };
            if secret.expose().len() < hmac.tag_len() {
                return Err(KeySetError::ShortSecret(*algorithm));
            }
            let verifier = Verifier::Secret(Box::new(hmac::Key::new(hmac, secret.expose())));
            keys.push(Key {
                id: None,
                algorithm: *algorithm,
                verifier,
            });
        }
        Ok(Self {
            keys,
            origin: sha256(secret.expose()),
        })
    }

    /// The one key for this id and algorithm. Without an id, the only key that fits the algorithm.
    ///
    /// # Errors
    /// See [`NoKey`].
    pub fn find(&self, id: Option<&str>, algorithm: Algorithm) -> Result<&Key, NoKey> {
        let named = |key: &&Key| match (&key.verifier, id) {
            (Verifier::Public(_), Some(id)) => key.id.as_deref() == Some(id),
            // The id that an issuer gives its shared secret says nothing here: there is but one.
            (Verifier::Public(_), None) | (Verifier::Secret(_), _) => true,
        };
        let mut fitting = self
            .keys
            .iter()
            .filter(named)
            .filter(|key| key.algorithm == algorithm);
        match (fitting.next(), fitting.next()) {
            (Some(key), None) => Ok(key),
            (Some(_), Some(_)) => Err(NoKey::Ambiguous),
            (None, _) if id.is_some() && self.keys.iter().any(|key| named(&key)) => {
                Err(NoKey::Algorithm)
            }
            (None, _) => Err(NoKey::Unknown),
        }
    }

    /// How many distinct pairs of key and algorithm there are.
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// Whether no key can be used.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }
}

impl Key {
    /// The key that a single JWK holds, for this algorithm; `None` where it is no usable one.
    pub(super) fn of(jwk: &Claims, algorithm: Algorithm) -> Option<Self> {
        let key = is_for(jwk, algorithm).then(|| public_key(jwk, algorithm))??;
        Some(Self {
            id: None,
            algorithm,
            verifier: Verifier::Public(key),
        })
    }

    /// Whether `signature` is this key's over `message`; HMAC in constant time.
    pub fn verify(&self, message: &[u8], signature: &[u8]) -> bool {
        match &self.verifier {
            Verifier::Public(key) => key.verify_sig(message, signature).is_ok(),
            Verifier::Secret(key) => hmac::verify(key, message, signature).is_ok(),
        }
    }
}

fn hmac_of(algorithm: Algorithm) -> Option<hmac::Algorithm> {
    match algorithm {
        Algorithm::Hs256 => Some(hmac::HMAC_SHA256),
        Algorithm::Hs384 => Some(hmac::HMAC_SHA384),
        Algorithm::Hs512 => Some(hmac::HMAC_SHA512),
        _ => None,
    }
}

/// The RSA parameters, for the RSA algorithms; keys under 2048 bits are refused by them.
fn rsa_of(algorithm: Algorithm) -> Option<&'static RsaParameters> {
    Some(match algorithm {
        Algorithm::Rs256 => &signature::RSA_PKCS1_2048_8192_SHA256,
        Algorithm::Rs384 => &signature::RSA_PKCS1_2048_8192_SHA384,
        Algorithm::Rs512 => &signature::RSA_PKCS1_2048_8192_SHA512,
        Algorithm::Ps256 => &signature::RSA_PSS_2048_8192_SHA256,
        Algorithm::Ps384 => &signature::RSA_PSS_2048_8192_SHA384,
        Algorithm::Ps512 => &signature::RSA_PSS_2048_8192_SHA512,
        _ => return None,
    })
}

/// The curve algorithm, for ECDSA (fixed-length signatures, RFC 7518 §3.4) and Ed25519.
fn curve_of(algorithm: Algorithm) -> Option<&'static dyn VerificationAlgorithm> {
    Some(match algorithm {
        Algorithm::Es256 => &signature::ECDSA_P256_SHA256_FIXED,
        Algorithm::Es384 => &signature::ECDSA_P384_SHA384_FIXED,
        Algorithm::EdDsa => &signature::ED25519,
        _ => return None,
    })
}

/// Whether the key says of itself nothing against checking signatures of this algorithm (RFC 7517 §4.2–4.4).
fn is_for(jwk: &Claims, algorithm: Algorithm) -> bool {
    let usage = jwk.get("use").is_none_or(|usage| usage == "sig");
    let operations = jwk.get("key_ops").is_none_or(|ops| {
        ops.as_array()
            .is_some_and(|ops| ops.iter().any(|op| op == "verify"))
    });
    let named = jwk
        .get("alg")
        .is_none_or(|alg| alg.as_str().and_then(Algorithm::from_name) == Some(algorithm));
    usage && operations && named
}

fn public_key(jwk: &Claims, algorithm: Algorithm) -> Option<ParsedPublicKey> {
    match (algorithm.key_kind(), string(jwk, "kty")?) {
        (KeyKind::Rsa, "RSA") => rsa(jwk, algorithm),
        (KeyKind::Ec, "EC") => {
            let (curve, size) = if algorithm == Algorithm::Es256 {
                ("P-256", 32)
            } else {
                ("P-384", 48)
            };
            let (x, y) = (member(jwk, "x")?, member(jwk, "y")?);
            if string(jwk, "crv") != Some(curve) || x.len() != size || y.len() != size {
                return None;
            }
            // SEC 1 §2.3.3: an uncompressed point. Parsing checks that it lies on the curve.
            let point = [&[4][..], &x, &y].concat();
            ParsedPublicKey::new(curve_of(algorithm)?, point).ok()
        }
        (KeyKind::Ed25519, "OKP") if string(jwk, "crv") == Some("Ed25519") => {
            let x = member(jwk, "x").filter(|x| x.len() == 32)?;
            ParsedPublicKey::new(curve_of(algorithm)?, x).ok()
        }
        _ => None,
    }
}

fn rsa(jwk: &Claims, algorithm: Algorithm) -> Option<ParsedPublicKey> {
    let (n, e) = (member(jwk, "n")?, member(jwk, "e")?);
    let (n, e) = (significant(&n), significant(&e));
    // Stricter than the verification itself only in when it says so: a weak key is left out of the set.
    if n.len() < 256 || n.len() > 1024 {
        return None;
    }
    // An exponent of one signs whatever it is shown (RFC 8017 §3.1: odd, and at least 3).
    if matches!(e, [] | [1]) || e.last().is_some_and(|last| last % 2 == 0) {
        return None;
    }
    RsaPublicKeyComponents { n, e }
        .to_parsed_public_key(rsa_of(algorithm)?)
        .ok()
}

/// Some issuers write the sign byte of ASN.1 in front of the number (against RFC 7518 §6.3.1.1).
fn significant(mut number: &[u8]) -> &[u8] {
    while let [0, rest @ ..] = number {
        number = rest;
    }
    number
}

fn string<'a>(jwk: &'a Claims, name: &str) -> Option<&'a str> {
    jwk.get(name)?.as_str()
}

fn member(jwk: &Claims, name: &str) -> Option<Vec<u8>> {
    decode(string(jwk, name)?).ok()
}

#[cfg(test)]
mod tests {
    use base64::Engine;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    use serde_json::{Value, json};

    use super::{KeySet, KeySetError, NoKey};
    use crate::crypto::secret::Secret;
    use crate::identity::jws::Algorithm;
    use crate::identity::minting::Minter;

    fn set(keys: &[Value]) -> KeySet {
        KeySet::parse(
            json!({ "keys": keys }).to_string().as_bytes(),
            &Algorithm::ALL,
        )
        .unwrap()
    }

    #[test]
    fn unfit_keys_are_left_out() {
        let good = Minter::new(Algorithm::Es256).jwk("k");
        let changed = |name: &str, value: Value| {
            let mut jwk = good.clone();
            jwk[name] = value;
            jwk
        };
        let weak = json!({"kty": "RSA", "n": URL_SAFE_NO_PAD.encode([0xff; 128]), "e": "AQAB"});
        for unfit in [
            changed("use", "enc".into()),
            changed("key_ops", json!(["sign"])),
            changed("alg", "ES384".into()),
            changed("alg", "unheard".into()),
            changed("crv", "P-384".into()),
            changed("kty", "OKP".into()),
            changed("x", good["y"].clone()),
            changed("x", "AA".into()),
            changed("y", Value::Null),
            json!({"kty": "oct", "k": "AAAA"}),
            json!({"kty": "new"}),
            json!({}),
            weak,
            json!({"kty": "RSA", "n": URL_SAFE_NO_PAD.encode([0xff; 256]), "e": "AQ"}),
        ] {
            assert!(set(std::slice::from_ref(&unfit)).is_empty(), "{unfit}");
        }
        for fit in [
            good.clone(),
            changed("use", "sig".into()),
            changed("key_ops", json!(["verify"])),
            changed("alg", "ES256".into()),
        ] {
            assert_eq!(set(&[fit]).len(), 1);
        }
    }

    #[test]
    fn a_sign_byte_in_front_of_the_modulus_is_borne() {
        let mut jwk = Minter::new(Algorithm::Rs256).jwk("k");
        let n = URL_SAFE_NO_PAD.decode(jwk["n"].as_str().unwrap()).unwrap();
        jwk["n"] = URL_SAFE_NO_PAD.encode([&[0][..], &n].concat()).into();
        assert_eq!(set(&[jwk]).len(), 6);
    }

    #[test]
    fn only_key_sets_are_read() {
        for bad in [
            "",
            "[]",
            "{}",
            r#"{"keys":{}}"#,
            r#"{"keys":[1]}"#,
            r#"{"keys":[],"keys":[]}"#,
        ] {
            assert_eq!(
                KeySet::parse(bad.as_bytes(), &Algorithm::ALL).err(),
                Some(KeySetError::Malformed),
                "{bad}"
            );
        }
        let many = json!({"keys": vec![json!({}); 101]}).to_string();
        assert_eq!(
            KeySet::parse(many.as_bytes(), &Algorithm::ALL).err(),
            Some(KeySetError::TooMany)
        );
    }

    #[test]
    fn a_secret_is_as_long_as_its_hash() {
        let secret = Secret::new(vec![7; 32]);
        assert!(KeySet::from_secret(&secret, &[Algorithm::Hs256]).is_ok());
        let long = KeySet::from_secret(&secret, &[Algorithm::Hs256, Algorithm::Hs512]);
        assert_eq!(long.err(), Some(KeySetError::ShortSecret(Algorithm::Hs512)));
    }

    #[test]
    fn keys_are_found_by_id_and_algorithm_together() {
        let keys = set(&[
            Minter::new(Algorithm::Es256).jwk("a"),
            Minter::new(Algorithm::EdDsa).jwk("a"),
            Minter::new(Algorithm::Es256).jwk("b"),
        ]);
        assert!(keys.find(Some("a"), Algorithm::Es256).is_ok());
        assert!(keys.find(Some("a"), Algorithm::EdDsa).is_ok());
        assert!(keys.find(None, Algorithm::EdDsa).is_ok());
        assert_eq!(
            keys.find(None, Algorithm::Es256).err(),
            Some(NoKey::Ambiguous)
        );
        assert_eq!(
            keys.find(Some("b"), Algorithm::EdDsa).err(),
            Some(NoKey::Algorithm)
        );
        assert_eq!(
            keys.find(Some("c"), Algorithm::Es256).err(),
            Some(NoKey::Unknown)
        );
    }
}
