//! HMAC-SHA-256 (RFC 2104, FIPS 198-1): codes that only holders of a shared secret can make.
//!
//! For signatures of requests. A comparison takes the same time wherever the codes differ.

use aws_lc_rs::hmac;

/// A code.
pub type Tag = [u8; 32];

/// A key, ready for use; it is never printed.
#[derive(Clone)]
pub struct MacKey(hmac::Key);

impl MacKey {
    /// The key of these bytes, of any length.
    pub fn new(bytes: &[u8]) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, bytes))
    }

    /// The code of `message`.
    pub fn sign(&self, message: &[u8]) -> Tag {
        let mut out = [0; 32];
        out.copy_from_slice(hmac::sign(&self.0, message).as_ref());
        out
    }

    /// The code of a message in parts.
    pub fn sign_all(&self, parts: &[&[u8]]) -> Tag {
        let mut context = hmac::Context::with_key(&self.0);
        for part in parts {
            context.update(part);
        }
        let mut out = [0; 32];
        out.copy_from_slice(context.sign().as_ref());
        out
    }

    /// Whether `tag` is the whole code of `message`, told in constant time.
    pub fn verifies(&self, message: &[u8], tag: &[u8]) -> bool {
        hmac::verify(&self.0, message, tag).is_ok()
    }
}

impl std::fmt::Debug for MacKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("MacKey(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::MacKey;
    use crate::crypto::hex;

    #[test]
    fn the_second_case_of_rfc_4231_holds() {
        let key = MacKey::new(b"Jefe");
        let tag = key.sign(b"what do ya want for nothing?");
        assert_eq!(
            hex::encode(&tag),
            "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
        );
        assert_eq!(
            key.sign_all(&[b"what do ya ", b"", b"want for nothing?"]),
            tag
        );
        assert!(key.verifies(b"what do ya want for nothing?", &tag));
        assert!(!key.verifies(b"what do ya want for nothing", &tag));
        assert!(!key.verifies(b"what do ya want for nothing?", &tag[..31]));
        assert!(!key.verifies(b"what do ya want for nothing?", b""));
    }

    #[test]
    fn debug_shows_nothing() {
        assert_eq!(format!("{:?}", MacKey::new(b"hunter2")), "MacKey(…)");
    }
}
