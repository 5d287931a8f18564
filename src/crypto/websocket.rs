//! The key of a WebSocket handshake that the gate itself opens, and the proof that the backend has read it.
//!
//! RFC 6455 §4.1 and §4.2.2; for clients over HTTP/2, whose handshake has no key (RFC 8441 §5). SHA-1 is the protocol's
//! choice and guards nothing: the proof only shows that no cache and no other protocol has answered.

use aws_lc_rs::digest;
use base64::{Engine, engine::general_purpose::STANDARD};
use http::header::HeaderValue;

use super::rng;

/// What the standard appends to each key.
const GUID: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// The `Sec-WebSocket-Key` of one handshake.
#[derive(Debug)]
pub struct Key(String);

impl Key {
    /// A fresh key: 16 random bytes.
    pub fn new() -> Self {
        let mut bytes = [0; 16];
        rng::fill(&mut bytes);
        Self(STANDARD.encode(bytes))
    }

    /// The value of the field.
    ///
    /// # Panics
    /// Never: base64 is ASCII.
    pub fn value(&self) -> HeaderValue {
        HeaderValue::from_str(&self.0).expect("base64 is a valid value")
    }

    /// Whether a `Sec-WebSocket-Accept` answers this key.
    pub fn is_answered_by(&self, accept: &[u8]) -> bool {
        let said = [self.0.as_str(), GUID].concat();
        let digest = digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, said.as_bytes());
        STANDARD.encode(digest.as_ref()).as_bytes() == accept
    }
}

impl Default for Key {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::Key;

    #[test]
    fn the_sample_of_the_standard_holds() {
        let sample = Key("dGhlIHNhbXBsZSBub25jZQ==".to_owned());
        assert!(sample.is_answered_by(b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
        assert!(!sample.is_answered_by(b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo"));
        assert!(!sample.is_answered_by(b""));
    }

    #[test]
    fn keys_are_fresh_and_of_the_length_asked_for() {
        let (one, two) = (Key::new(), Key::new());
        assert_eq!(one.value().len(), 24);
        assert_ne!(one.value(), two.value());
        assert!(!one.is_answered_by(b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
    }
}
