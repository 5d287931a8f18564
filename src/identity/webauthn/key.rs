//! The check of a signature by the key of a credential (Web Authentication Level 3 §6.5.5).

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1, ED25519, ParsedPublicKey, RSA_PKCS1_2048_8192_SHA256,
    RsaPublicKeyComponents,
};

use super::cose::PublicKey;

/// A key made ready, bound to its algorithm.
pub(super) struct Verifier(ParsedPublicKey);

impl Verifier {
    /// `None` for a point that is not on its curve, and for RSA numbers that make no key.
    pub(super) fn of(key: &PublicKey<'_>) -> Option<Self> {
        let parsed = match key {
            PublicKey::Es256 { x, y } => {
                // SEC 1 §2.3.3: an uncompressed point.
                let point = [&[4][..], &x[..], &y[..]].concat();
                ParsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, point)
            }
            PublicKey::Ed25519 { x } => ParsedPublicKey::new(&ED25519, x),
            PublicKey::Rs256 { n, e } => {
                RsaPublicKeyComponents { n, e }.to_parsed_public_key(&RSA_PKCS1_2048_8192_SHA256)
            }
        };
        parsed.ok().map(Self)
    }

    /// Whether a signature is this key's over a message; ECDSA in the form of ASN.1.
    pub(super) fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        self.0.verify_sig(message, signature).is_ok()
    }
}
