//! A secret value: wiped when dropped, compared in constant time, never printed.
//!
//! For shared keys of issuers, cookie sealing keys and whatever else the file names by `{ env = … }` or `{ file = … }`.
//! It does not read files or the environment: that is the work of the configuration.

use std::fmt;

use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

/// Bytes that must not leak: wiped on drop, redacted in `Debug`, without `Display` or serialisation.
#[derive(Clone)]
pub struct Secret(Zeroizing<Vec<u8>>);

impl Secret {
    /// Takes ownership of the bytes; the caller must not keep another copy.
    pub fn new(bytes: Vec<u8>) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// Whether these bytes are the secret. Constant time in the content; the length is not hidden.
    pub fn is(&self, other: &[u8]) -> bool {
        let (words, rest) = self.0.as_chunks::<8>();
        let (other_words, other_rest) = other.as_chunks::<8>();
        if self.0.len() != other.len() {
            return false;
        }
        // Differences are gathered and looked at once, at the end; single bytes would take ten times as long.
        let words = words.iter().zip(other_words);
        let rest = rest.iter().zip(other_rest);
        let word = |bytes: &[u8; 8]| u64::from_ne_bytes(*bytes);
        let differing = words.fold(0, |all, (a, b)| all | (word(a) ^ word(b)));
        let differing = rest.fold(differing, |all, (a, b)| all | u64::from(a ^ b));
        differing.ct_eq(&0).into()
    }

    /// The bytes themselves. Every caller of this is a place to review.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }
}

impl PartialEq for Secret {
    /// See [`Secret::is`].
    fn eq(&self, other: &Self) -> bool {
        self.is(other.expose())
    }
}

impl Eq for Secret {}

impl From<Vec<u8>> for Secret {
    fn from(bytes: Vec<u8>) -> Self {
        Self::new(bytes)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::Secret;

    #[test]
    fn debug_shows_neither_content_nor_length() {
        assert_eq!(
            format!("{:?}", Secret::new(b"hunter2".to_vec())),
            "Secret(…)"
        );
    }

    #[test]
    fn equality_is_by_content() {
        assert_eq!(Secret::new(b"a".to_vec()), Secret::new(b"a".to_vec()));
        assert_ne!(Secret::new(b"a".to_vec()), Secret::new(b"b".to_vec()));
        assert_ne!(Secret::new(b"a".to_vec()), Secret::new(b"ab".to_vec()));
    }

    #[test]
    fn every_bit_of_every_byte_counts() {
        for length in 0..40 {
            let secret = Secret::new(vec![0x5a; length]);
            assert!(secret.is(&vec![0x5a; length]));
            assert!(!secret.is(&vec![0x5a; length + 1]));
            for bit in 0..length * 8 {
                let mut other = vec![0x5a; length];
                other[bit / 8] ^= 1 << (bit % 8);
                assert!(!secret.is(&other), "{length} {bit}");
            }
        }
    }
}
