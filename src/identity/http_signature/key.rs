//! Keys that check message signatures, each bound to the one algorithm that it is for (RFC 9421 §3.3).
//!
//! An Ed25519 key checks `ed25519`, one on P-256 `ecdsa-p256-sha256`, an RSA key `rsa-pss-sha512`, a secret
//! `hmac-sha256`: what the message says of its algorithm chooses nothing. RSA PKCS #1 v1.5 is not spoken.

use aws_lc_rs::signature::{self, ParsedPublicKey, VerificationAlgorithm};
use rustls::pki_types::{SubjectPublicKeyInfoDer, pem::PemObject};
use x509_parser::{prelude::FromDer, public_key::PublicKey, x509::SubjectPublicKeyInfo};

use crate::crypto::{mac::MacKey, secret::Secret};

/// The smallest secret, in bytes: that of the hash (RFC 2104 §3).
const SHORTEST_SECRET: usize = 32;
/// The smallest RSA modulus, in bits.
const SHORTEST_RSA: usize = 2048;

/// Why a file or a secret is no key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// No `PUBLIC KEY` block, or a broken one.
    #[error("not a public key in PEM: `-----BEGIN PUBLIC KEY-----` is expected")]
    NoPem,
    /// A kind of key that checks no signature here.
    #[error("a key of a kind that is not spoken: Ed25519, EC on P-256 or RSA is expected")]
    Kind,
    /// An RSA key that can be broken.
    #[error("an RSA key of fewer than {SHORTEST_RSA} bits")]
    ShortRsa,
    /// A secret that can be guessed.
    #[error("a secret of fewer than {SHORTEST_SECRET} bytes")]
    ShortSecret,
}

/// A key and its algorithm.
#[derive(Debug)]
pub struct Key {
    algorithm: &'static str,
    verifier: Verifier,
}

#[derive(Debug)]
enum Verifier {
    Public(Box<ParsedPublicKey>),
    Secret(Box<MacKey>),
}

impl Key {
    /// The public keys of a PEM file.
    ///
    /// # Errors
    /// [`KeyError`] of the first that cannot be used.
    pub fn public(pem: &[u8]) -> Result<Vec<Self>, KeyError> {
        let mut keys = Vec::new();
        for key in SubjectPublicKeyInfoDer::pem_slice_iter(pem) {
            keys.push(public(&key.map_err(|_| KeyError::NoPem)?)?);
        }
        if keys.is_empty() {
            return Err(KeyError::NoPem);
        }
        Ok(keys)
    }

    /// A shared secret.
    ///
    /// # Errors
    /// [`KeyError::ShortSecret`].
    pub fn secret(secret: &Secret) -> Result<Self, KeyError> {
        if secret.expose().len() < SHORTEST_SECRET {
            return Err(KeyError::ShortSecret);
        }
        Ok(Self {
            algorithm: "hmac-sha256",
            verifier: Verifier::Secret(Box::new(MacKey::new(secret.expose()))),
        })
    }

    /// The registered name of its algorithm.
    pub fn algorithm(&self) -> &'static str {
        self.algorithm
    }

    /// Whether a signature is this key's over a message; HMAC in constant time.
    pub fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        match &self.verifier {
            Verifier::Public(key) => key.verify_sig(message, signature).is_ok(),
            Verifier::Secret(key) => key.verifies(message, signature),
        }
    }
}

fn public(der: &[u8]) -> Result<Key, KeyError> {
    let (_, read) = SubjectPublicKeyInfo::from_der(der).map_err(|_| KeyError::NoPem)?;
    let rsa: &'static dyn VerificationAlgorithm = &signature::RSA_PSS_2048_8192_SHA512;
    let p256: &'static dyn VerificationAlgorithm = &signature::ECDSA_P256_SHA256_FIXED;
    let (algorithm, checked_by) = match read.parsed() {
        Ok(PublicKey::RSA(key)) if key.key_size() < SHORTEST_RSA => return Err(KeyError::ShortRsa),
        Ok(PublicKey::RSA(_)) => ("rsa-pss-sha512", rsa),
        Ok(PublicKey::EC(_)) => ("ecdsa-p256-sha256", p256),
        // Ed25519 has no form of its own in that library; a key of another kind does not parse as one.
        _ => (
            "ed25519",
            &signature::ED25519 as &'static dyn VerificationAlgorithm,
        ),
    };
    let key = ParsedPublicKey::new(checked_by, der).map_err(|_| KeyError::Kind)?;
    Ok(Key {
        algorithm,
        verifier: Verifier::Public(Box::new(key)),
    })
}

#[cfg(test)]
mod tests {
    use super::{Key, KeyError};
    use crate::crypto::secret::Secret;

    const RSA: &str = include_str!("../../../tests/vectors/rfc9421/test-key-rsa-pss.pem");
    const P256: &str = include_str!("../../../tests/vectors/rfc9421/test-key-ecc-p256.pem");
    const ED25519: &str = include_str!("../../../tests/vectors/rfc9421/test-key-ed25519.pem");

    #[test]
    fn keys_that_check_nothing_are_refused() {
        assert_eq!(Key::public(b"").err(), Some(KeyError::NoPem));
        assert_eq!(Key::public(b"c2VjcmV0").err(), Some(KeyError::NoPem));
        let broken = ED25519.replace("MCow", "MCox");
        assert!(Key::public(broken.as_bytes()).is_err());
        assert_eq!(Key::public(P384.as_bytes()).err(), Some(KeyError::Kind));
        assert_eq!(
            Key::public(RSA_1024.as_bytes()).err(),
            Some(KeyError::ShortRsa)
        );
        let both = [ED25519, P256].concat();
        let algorithms: Vec<_> = Key::public(both.as_bytes())
            .unwrap()
            .iter()
            .map(Key::algorithm)
            .collect();
        assert_eq!(algorithms, ["ed25519", "ecdsa-p256-sha256"]);
        assert_eq!(
            Key::public(RSA.as_bytes()).unwrap()[0].algorithm(),
            "rsa-pss-sha512"
        );
        let secret = |length| Key::secret(&Secret::new(vec![7; length]));
        assert_eq!(secret(31).err(), Some(KeyError::ShortSecret));
        assert!(secret(32).is_ok());
    }

    const P384: &str = "\
-----BEGIN PUBLIC KEY-----\n\
MHYwEAYHKoZIzj0CAQYFK4EEACIDYgAEPeGKa2penyRIIThgqa71Fl5+3npyic1f\n\
LiqNODkM2NyOjoMZkiFd+M6CLf1hkwyJQdpUEJnmffQwoCSRENa+m0H1c7jMSepI\n\
eJjNgcW5NkHPBj7Ns/rRrcc4bEOHhMKC\n\
-----END PUBLIC KEY-----\n\
";

    const RSA_1024: &str = "\
-----BEGIN PUBLIC KEY-----\n\
MIGfMA0GCSqGSIb3DQEBAQUAA4GNADCBiQKBgQDGnE7rYgN74CQZp0u07krhFN9o\n\
R78nYX4Q8N1rnPiSmktRqfLHaTFxkoCGgKLQQl86j8TFxxAFpJaaQQWL3kw/v8Xv\n\
lVkvNcW+DLdhA6HLAp95NxyFiPZLvJZyhvVY8G7y3pAAw9Mrt4Z56jCyUv9W2nZz\n\
9Vw8M0j1CxeBDhteXQIDAQAB\n\
-----END PUBLIC KEY-----\n\
";
}
