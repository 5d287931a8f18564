//! A key that signs: ECDSA on P-256 with SHA-256 and signatures of fixed length (FIPS 186-5 §6, RFC 7518 §3.4).
//!
//! For what the gate itself states. Verifying is not its work, nor are other kinds of key.

use std::fmt;

use aws_lc_rs::{
    error::KeyRejected,
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair, Signature},
};
use rustls::pki_types::{PrivateKeyDer, pem::PemObject};
use thiserror::Error;

/// Why a file holds no key that can sign.
#[derive(Debug, Error)]
pub enum SigningKeyError {
    /// No private key in PEM.
    #[error("it holds no private key in PEM")]
    NoKey,
    /// A key of another kind.
    #[error("it holds no key on P-256")]
    OtherKind(#[source] KeyRejected),
}

/// A private key on P-256; its owner alone holds it.
pub struct SigningKey(EcdsaKeyPair);

impl SigningKey {
    /// A key that nobody else has.
    pub fn generate() -> Self {
        let key = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING);
        Self(key.expect(
            "the system gives random bytes; without them no key can be made and going on is unsafe",
        ))
    }

    /// The first private key of a PEM file: PKCS #8 (RFC 5958) or SEC 1 (RFC 5915), not encrypted.
    ///
    /// # Errors
    /// See [`SigningKeyError`].
    pub fn from_pem(pem: &[u8]) -> Result<Self, SigningKeyError> {
        let der = PrivateKeyDer::from_pem_slice(pem).map_err(|_| SigningKeyError::NoKey)?;
        EcdsaKeyPair::from_private_key_der(&ECDSA_P256_SHA256_FIXED_SIGNING, der.secret_der())
            .map(Self)
            .map_err(SigningKeyError::OtherKind)
    }

    /// The two coordinates of the public key, 32 bytes each.
    pub fn public(&self) -> (&[u8], &[u8]) {
        // SEC 1 §2.3.3: a four, then the coordinates.
        let point = self.0.public_key().as_ref().get(1..).unwrap_or_default();
        point.split_at(point.len() / 2)
    }

    /// The signature over a message: 64 bytes.
    pub fn sign(&self, message: &[u8]) -> Signature {
        let signature = self.0.sign(&SystemRandom::new(), message);
        signature.expect("a key that was made or read signs whatever it is given")
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SigningKey(…)")
    }
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED, UnparsedPublicKey};
    use rcgen::{KeyPair as Made, PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384};

    use super::*;

    fn verifies(key: &SigningKey) -> bool {
        let (x, y) = key.public();
        let point = [&[4][..], x, y].concat();
        let public = UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point);
        let signature = key.sign(b"message");
        assert_eq!(signature.as_ref().len(), 64);
        assert!(public.verify(b"other", signature.as_ref()).is_err());
        public.verify(b"message", signature.as_ref()).is_ok()
    }

    #[test]
    fn keys_that_are_made_and_keys_that_are_read_sign() {
        let (one, two) = (SigningKey::generate(), SigningKey::generate());
        assert!(verifies(&one) && verifies(&two));
        assert_ne!(one.public(), two.public());
        let pem = Made::generate_for(&PKCS_ECDSA_P256_SHA256)
            .unwrap()
            .serialize_pem();
        let read = SigningKey::from_pem(pem.as_bytes()).unwrap();
        assert!(verifies(&read));
        let again = SigningKey::from_pem(pem.as_bytes()).unwrap();
        assert_eq!(read.public(), again.public());
    }

    #[test]
    fn what_is_no_such_key_is_refused() {
        let other = Made::generate_for(&PKCS_ECDSA_P384_SHA384)
            .unwrap()
            .serialize_pem();
        let error = SigningKey::from_pem(other.as_bytes()).unwrap_err();
        assert!(matches!(error, SigningKeyError::OtherKind(_)));
        for bad in [
            "",
            "x",
            "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
        ] {
            let error = SigningKey::from_pem(bad.as_bytes()).unwrap_err();
            assert!(matches!(error, SigningKeyError::NoKey), "{bad}");
        }
    }

    #[test]
    fn debug_shows_nothing_of_it() {
        assert_eq!(format!("{:?}", SigningKey::generate()), "SigningKey(…)");
    }
}
