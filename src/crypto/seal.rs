//! Sealed values: what is given to others to keep and must come back as it was, unread (AES-256-GCM, NIST SP 800-38D).
//!
//! For cookies, links and files. A value is sealed for a purpose, which is authenticated with it: pasted in elsewhere it
//! does not open. It says inside how long it counts. Keys rotate: the newest seals, older ones still open. Nonces are
//! random, so one key should seal fewer than 2^32 values. It keeps no memory: that a value counts once is for others to see.

use std::fmt;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use thiserror::Error;
use zeroize::Zeroizing;

use super::{digest::sha256_of, hex, rng, secret::Secret};

/// Bytes of a key.
pub const KEY_BYTES: usize = 32;

/// Form of the envelope: version, key, nonce, then what is sealed with its code.
const VERSION: u8 = 1;

/// Seals for ever.
pub const FOREVER: u64 = u64::MAX;

/// Why a value does not open. For the log and metrics, never for whoever sent it.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum Unopened {
    /// Not the form of a sealed value.
    #[error("it is no sealed value")]
    Malformed,
    /// No key that is known here.
    #[error("it is sealed with another key")]
    UnknownKey,
    /// Changed, or sealed for another purpose.
    #[error("it was changed, or sealed for something else")]
    Forged,
    /// Its time is over.
    #[error("its time is over")]
    Expired,
}

impl Unopened {
    /// The word for logs and metrics.
    pub const fn code(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::UnknownKey => "unknown-key",
            Self::Forged => "forged",
            Self::Expired => "expired",
        }
    }
}

/// The keys, newest first; never printed.
pub struct Seal {
    keys: Vec<Numbered>,
}

struct Numbered {
    /// Tells keys apart; it may be that of two.
    number: u8,
    key: LessSafeKey,
}

/// A key out of a secret: 32 bytes as 64 hexadecimal digits or in base64url, with or without its padding.
pub fn key_of(secret: &Secret) -> Option<Zeroizing<[u8; KEY_BYTES]>> {
    let text = secret.expose();
    let lower = Zeroizing::new(text.to_ascii_lowercase());
    if let Some(key) = hex::decode::<KEY_BYTES>(&lower) {
        return Some(Zeroizing::new(key));
    }
    let text = text.strip_suffix(b"=").unwrap_or(text);
    let bytes = Zeroizing::new(URL_SAFE_NO_PAD.decode(text).ok()?);
    let key: [u8; KEY_BYTES] = bytes.as_slice().try_into().ok()?;
    Some(Zeroizing::new(key))
}

impl Seal {
    /// Seals with the first of these keys and opens with all.
    pub fn new<'a>(keys: impl IntoIterator<Item = &'a [u8; KEY_BYTES]>) -> Self {
        Self {
            keys: keys.into_iter().map(Numbered::new).collect(),
        }
    }

    /// Seals `content` for `purpose` until the Unix second `until`: base64url, a third longer than what it holds and 50 bytes.
    ///
    /// # Panics
    /// Without a key, which the file does not allow.
    pub fn seal(&self, purpose: &[u8], until: u64, content: &[u8]) -> String {
        let newest = self.keys.first().expect("a seal has a key");
        let mut nonce = [0; NONCE_LEN];
        rng::fill(&mut nonce);
        let mut sealed = Zeroizing::new(Vec::with_capacity(content.len().saturating_add(24)));
        sealed.extend_from_slice(&until.to_be_bytes());
        sealed.extend_from_slice(content);
        let nonce_used = Nonce::assume_unique_for_key(nonce);
        newest
            .key
            .seal_in_place_append_tag(nonce_used, Aad::from(purpose), &mut *sealed)
            .expect("what is sealed is far shorter than the cipher's limit");
        let head = [VERSION, newest.number];
        URL_SAFE_NO_PAD.encode([&head[..], &nonce, &sealed].concat())
    }

    /// What was sealed for this purpose, at `now` (Unix seconds). Only the one form that [`Seal::seal`] writes is read.
    ///
    /// # Errors
    /// See [`Unopened`].
    pub fn open(
        &self,
        purpose: &[u8],
        sealed: &str,
        now: u64,
    ) -> Result<Zeroizing<Vec<u8>>, Unopened> {
        let bytes = URL_SAFE_NO_PAD
            .decode(sealed)
            .map_err(|_| Unopened::Malformed)?;
        let ([VERSION, number], rest) =
            bytes.split_first_chunk::<2>().ok_or(Unopened::Malformed)?
        else {
            return Err(Unopened::Malformed);
        };
        let (nonce, sealed) = rest
            .split_first_chunk::<NONCE_LEN>()
            .ok_or(Unopened::Malformed)?;
        let mut why = Unopened::UnknownKey;
        for key in self.keys.iter().filter(|key| key.number == *number) {
            match key.open(purpose, nonce, sealed) {
                Some(opened) => return in_time(&opened, now),
                None => why = Unopened::Forged,
            }
        }
        Err(why)
    }
}

fn in_time(opened: &[u8], now: u64) -> Result<Zeroizing<Vec<u8>>, Unopened> {
    let (until, content) = opened.split_first_chunk::<8>().ok_or(Unopened::Malformed)?;
    if now >= u64::from_be_bytes(*until) {
        return Err(Unopened::Expired);
    }
    Ok(Zeroizing::new(content.to_vec()))
}

impl Numbered {
    fn new(bytes: &[u8; KEY_BYTES]) -> Self {
        let [number, ..] = sha256_of(&[b"number of a portcullis seal key", bytes]);
        let key = UnboundKey::new(&AES_256_GCM, bytes).expect("32 bytes are a key of AES-256");
        Self {
            number,
            key: LessSafeKey::new(key),
        }
    }

    fn open(
        &self,
        purpose: &[u8],
        nonce: &[u8; NONCE_LEN],
        sealed: &[u8],
    ) -> Option<Zeroizing<Vec<u8>>> {
        let mut bytes = Zeroizing::new(sealed.to_vec());
        let nonce = Nonce::assume_unique_for_key(*nonce);
        let length = self
            .key
            .open_in_place(nonce, Aad::from(purpose), &mut bytes)
            .ok()?
            .len();
        bytes.truncate(length);
        Some(bytes)
    }
}

impl fmt::Debug for Seal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Seal(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_800_000_000;

    fn opened(seal: &Seal, purpose: &[u8], sealed: &str) -> Result<Vec<u8>, Unopened> {
        seal.open(purpose, sealed, NOW)
            .map(|opened| opened.to_vec())
    }

    #[test]
    fn what_is_sealed_opens_for_its_purpose_and_in_its_time_alone() {
        let seal = Seal::new([&[7; 32]]);
        let sealed = seal.seal(b"cookie a", NOW + 1, b"content");
        assert_ne!(sealed, seal.seal(b"cookie a", NOW + 1, b"content"));
        assert!(!sealed.contains(['+', '/', '=']));
        assert_eq!(opened(&seal, b"cookie a", &sealed).unwrap(), b"content");
        assert_eq!(opened(&seal, b"cookie b", &sealed), Err(Unopened::Forged));
        let late = seal.open(b"cookie a", &sealed, NOW + 1);
        assert_eq!(late.unwrap_err(), Unopened::Expired);
        let ever = seal.seal(b"x", FOREVER, b"");
        assert_eq!(seal.open(b"x", &ever, u64::MAX - 1).unwrap().len(), 0);
    }

    #[test]
    fn b37_every_bit_counts() {
        let seal = Seal::new([&[7; 32]]);
        let sealed = seal.seal(b"p", NOW + 9, b"content");
        let bytes = URL_SAFE_NO_PAD.decode(&sealed).unwrap();
        for bit in 0..bytes.len() * 8 {
            let mut other = bytes.clone();
            other[bit / 8] ^= 1 << (bit % 8);
            let other = URL_SAFE_NO_PAD.encode(other);
            assert!(opened(&seal, b"p", &other).is_err(), "bit {bit}");
        }
        for length in 0..sealed.len() {
            assert!(opened(&seal, b"p", &sealed[..length]).is_err(), "{length}");
        }
        for longer in [
            format!("{sealed}A"),
            format!("{sealed}="),
            format!(" {sealed}"),
        ] {
            assert!(opened(&seal, b"p", &longer).is_err(), "{longer}");
        }
    }

    #[test]
    fn b37_older_keys_open_and_the_newest_seals() {
        let (old, new) = ([1; 32], [2; 32]);
        let before = Seal::new([&old]);
        let sealed = before.seal(b"p", NOW + 9, b"x");
        let between = Seal::new([&new, &old]);
        assert!(opened(&between, b"p", &sealed).is_ok());
        let after = Seal::new([&new]);
        assert!(opened(&after, b"p", &sealed).is_err());
        let fresh = between.seal(b"p", NOW + 9, b"x");
        assert!(opened(&after, b"p", &fresh).is_ok());
        assert!(opened(&before, b"p", &fresh).is_err());
    }

    #[test]
    fn keys_of_one_number_are_all_tried() {
        // Of 300 keys two have the same number.
        let keys: Vec<[u8; 32]> = (0..300_u16)
            .map(|n| {
                let mut key = [0; 32];
                key[..2].copy_from_slice(&n.to_be_bytes());
                key
            })
            .collect();
        let all = Seal::new(&keys);
        for key in &keys {
            let sealed = Seal::new([key]).seal(b"p", NOW + 9, b"x");
            assert!(opened(&all, b"p", &sealed).is_ok());
        }
    }

    #[test]
    fn a_key_is_32_bytes_in_hex_or_base64url() {
        let read = |text: &str| key_of(&Secret::new(text.as_bytes().to_vec())).map(|key| *key);
        let hex = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";
        let key = read(hex).unwrap();
        assert_eq!(key[31], 31);
        assert_eq!(read(&hex.to_ascii_uppercase()), Some(key));
        let base64 = URL_SAFE_NO_PAD.encode(key);
        assert_eq!(read(&base64), Some(key));
        assert_eq!(read(&format!("{base64}=")), Some(key));
        for bad in ["", "hunter2", &hex[1..], &format!("{hex}00"), &base64[1..]] {
            assert_eq!(read(bad), None, "{bad}");
        }
    }

    #[test]
    fn debug_shows_nothing() {
        assert_eq!(format!("{:?}", Seal::new([&[7; 32]])), "Seal(…)");
    }
}
