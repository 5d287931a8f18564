//! Nonces that cost no memory: a code over the time at which each was given out, under a key that only this process has.
//!
//! For proofs that must not have been made long ago, whatever clock their maker has (RFC 9449 §8). One nonce is given to
//! everybody for [`PERIOD`] seconds and accepted until the end of the next such period. It does not tell whether a nonce
//! was used: names of proofs do that.

use aws_lc_rs::hmac;
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use subtle::ConstantTimeEq;

use crate::crypto::rng;

/// How long the same nonce is given out, in seconds.
pub const PERIOD: u64 = 120;

/// Bytes of the code that are shown: more than can be guessed.
const SHOWN: usize = 18;

/// Gives out nonces and knows its own.
#[derive(Debug)]
pub struct Nonces {
    key: hmac::Key,
}

impl Nonces {
    /// A source whose nonces no other one accepts.
    pub fn new() -> Self {
        let mut key = zeroize::Zeroizing::new([0; 32]);
        rng::fill(&mut *key);
        Self {
            key: hmac::Key::new(hmac::HMAC_SHA256, &*key),
        }
    }

    /// The nonce to be used at `now` (Unix seconds): 24 characters of base64url.
    pub fn current(&self, now: u64) -> String {
        self.of(now / PERIOD)
    }

    /// Whether this nonce was given out lately.
    pub fn accepts(&self, nonce: &str, now: u64) -> bool {
        let is = |period: u64| self.of(period).as_bytes().ct_eq(nonce.as_bytes());
        let period = now / PERIOD;
        (is(period) | is(period.saturating_sub(1))).into()
    }

    fn of(&self, period: u64) -> String {
        let tag = hmac::sign(&self.key, &period.to_be_bytes());
        URL_SAFE_NO_PAD.encode(tag.as_ref().get(..SHOWN).unwrap_or_default())
    }
}

impl Default for Nonces {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_nonce_lasts_until_the_end_of_the_next_period() {
        let nonces = Nonces::new();
        let nonce = nonces.current(PERIOD * 10 + 7);
        assert_eq!(nonce.len(), 24);
        assert_eq!(nonce, nonces.current(PERIOD * 11 - 1));
        assert_ne!(nonce, nonces.current(PERIOD * 11));
        assert!(nonces.accepts(&nonce, PERIOD * 10));
        assert!(nonces.accepts(&nonce, PERIOD * 12 - 1));
        assert!(!nonces.accepts(&nonce, PERIOD * 12));
        assert!(!nonces.accepts(&nonce, PERIOD * 10 - 1), "from the future");
    }

    #[test]
    fn no_other_text_is_one() {
        let (ours, theirs) = (Nonces::new(), Nonces::new());
        let nonce = ours.current(5000);
        assert!(!theirs.accepts(&nonce, 5000));
        for bad in [
            "",
            "x",
            &nonce[1..],
            &format!("{nonce}A"),
            &nonce.to_uppercase(),
        ] {
            assert!(!ours.accepts(bad, 5000), "{bad}");
        }
    }
}
