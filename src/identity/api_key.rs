//! API keys: their text form, the hash by which the file names them, and the ring in which a presented key is looked up.
//!
//! Only the SHA-256 of a key is ever held. That is enough, and a slow hash for passwords would be a waste, because keys are
//! random: those made here have 256 bits, and those of others must not be short. The look-up is by digest; digests are
//! compared in constant time, so that how long a guess takes says nothing of the digests in the ring. No header is read
//! here, and nothing is known of routes.

use std::collections::HashMap;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use http::HeaderValue;
use subtle::ConstantTimeEq;
use thiserror::Error;
use zeroize::Zeroizing;

use crate::crypto::digest::{Sha256, sha256_of};
use crate::crypto::rng::{self, HexId};
use crate::exchange::principal::Principal;
use crate::state::limiter::Limiter;

/// The longest key, in bytes.
pub const MAX_KEY_BYTES: usize = 512;
/// The shortest key that may be hashed, in bytes. Whoever knows the hash of a shorter one might find the key.
pub const MIN_KEY_BYTES: usize = 24;

/// By this, people and scanners of leaked secrets know a key when they see one.
const PREFIX: &str = "portcullis_";
/// Keeps the hashes apart from those that other programs make of the same key.
const DOMAIN: &[u8] = b"portcullis api key 1\0";
const SCHEME: &str = "sha256:";

/// The hash of a key.
#[derive(Clone, Copy)]
pub struct Fingerprint(Sha256);

/// Why a text is no hash of a key. It says nothing of the text, which may be the key itself by mistake.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("this is not the hash of a key")]
pub struct NoFingerprint;

impl Fingerprint {
    /// The hash of a key: SHA-256 over a word of ours and the key.
    pub fn of(key: &[u8]) -> Self {
        Self(sha256_of(&[DOMAIN, key]))
    }

    /// Reads `sha256:` and 64 hexadecimal digits.
    ///
    /// # Errors
    /// [`NoFingerprint`].
    pub fn parse(text: &str) -> Result<Self, NoFingerprint> {
        let digits = text.strip_prefix(SCHEME).ok_or(NoFingerprint)?.as_bytes();
        let (pairs, rest) = digits.as_chunks::<2>();
        let mut digest = [0; 32];
        if !rest.is_empty() || pairs.len() != digest.len() {
            return Err(NoFingerprint);
        }
        for (byte, [high, low]) in digest.iter_mut().zip(pairs) {
            *byte = (nibble(*high)? << 4) | nibble(*low)?;
        }
        Ok(Self(digest))
    }
}

fn nibble(digit: u8) -> Result<u8, NoFingerprint> {
    match digit {
        b'0'..=b'9' => Ok(digit - b'0'),
        b'a'..=b'f' => Ok(digit - b'a' + 10),
        b'A'..=b'F' => Ok(digit - b'A' + 10),
        _ => Err(NoFingerprint),
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(SCHEME)?;
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Fingerprint(…)")
    }
}

impl PartialEq for Fingerprint {
    /// In constant time.
    fn eq(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl Eq for Fingerprint {}

impl Hash for Fingerprint {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.hash(state);
    }
}

/// One key of the file.
#[derive(Debug)]
pub struct ApiKey {
    /// Its name in the file.
    pub name: Arc<str>,
    /// Its hash.
    pub fingerprint: Fingerprint,
    /// Who shows it; its `expires` is the key's.
    pub principal: Arc<Principal>,
    /// How often it may be used.
    pub quota: Option<Quota>,
}

/// How often a key may be used, by whomever.
#[derive(Debug)]
pub struct Quota {
    /// Its bucket, the only one in there.
    pub limiter: Arc<Limiter>,
    /// The member for `RateLimit-Policy`.
    pub policy: HeaderValue,
    /// Where the key stands, for `explain`.
    pub place: Box<str>,
}

/// Why a key is not accepted. For the log only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum KeyError {
    /// Nobody was given it.
    #[error("the key is unknown")]
    Unknown,
    /// It was good until its `expires`.
    #[error("the key has expired")]
    Expired,
}

impl KeyError {
    /// The stable code for logs.
    pub const fn code(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Expired => "expired",
        }
    }
}

/// Keys that count together, for look-up.
#[derive(Debug, Default)]
pub struct KeyRing {
    keys: Vec<Arc<ApiKey>>,
    /// The hasher has a random key of its own, so that the order of buckets says nothing either.
    places: HashMap<Fingerprint, usize>,
}

impl KeyRing {
    /// A ring of these keys. Of two with one hash the first counts; the file has none.
    pub fn new(keys: impl IntoIterator<Item = Arc<ApiKey>>) -> Self {
        let mut ring = Self::default();
        for key in keys {
            ring.places
                .entry(key.fingerprint)
                .or_insert(ring.keys.len());
            ring.keys.push(key);
        }
        ring
    }

    /// The key that was presented, with its place in the ring. `now` in Unix seconds.
    ///
    /// # Errors
    /// See [`KeyError`].
    pub fn find(&self, presented: &[u8], now: u64) -> Result<(usize, &Arc<ApiKey>), KeyError> {
        let place = self.places.get(&Fingerprint::of(presented));
        let (place, key) = place
            .and_then(|place| Some((*place, self.keys.get(*place)?)))
            .ok_or(KeyError::Unknown)?;
        if now >= key.principal.expires {
            return Err(KeyError::Expired);
        }
        Ok((place, key))
    }

    /// The key at a place.
    pub fn at(&self, place: usize) -> Option<&ApiKey> {
        self.keys.get(place).map(|key| &**key)
    }

    /// The names of the keys, in their order.
    pub fn names(&self) -> impl ExactSizeIterator<Item = &str> {
        self.keys.iter().map(|key| &*key.name)
    }
}

/// A fresh key: the prefix and 256 random bits in hexadecimal digits.
pub fn fresh_key() -> Zeroizing<String> {
    let mut key = Zeroizing::new(String::with_capacity(PREFIX.len() + 64));
    key.push_str(PREFIX);
    for _ in 0..2 {
        let mut half = Zeroizing::new([0; 16]);
        rng::fill(&mut *half);
        key.push_str(HexId::of(u128::from_be_bytes(*half)).as_str());
    }
    key
}

/// Why a key of somebody else is not good enough to be hashed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum UnfitKey {
    /// Fewer bytes than [`MIN_KEY_BYTES`].
    #[error("the key is shorter than {MIN_KEY_BYTES} characters, so its hash might give it away")]
    Short,
    /// More bytes than [`MAX_KEY_BYTES`].
    #[error("the key is longer than {MAX_KEY_BYTES} characters")]
    Long,
    /// Something else than visible ASCII.
    #[error("the key has characters that a header does not carry")]
    Characters,
}

/// Whether a key of somebody else may be used.
///
/// # Errors
/// See [`UnfitKey`].
pub fn check_key(key: &[u8]) -> Result<(), UnfitKey> {
    if key.len() < MIN_KEY_BYTES {
        return Err(UnfitKey::Short);
    }
    if key.len() > MAX_KEY_BYTES {
        return Err(UnfitKey::Long);
    }
    if !key.iter().all(u8::is_ascii_graphic) {
        return Err(UnfitKey::Characters);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str, secret: &str, expires: u64) -> Arc<ApiKey> {
        Arc::new(ApiKey {
            name: name.into(),
            fingerprint: Fingerprint::of(secret.as_bytes()),
            principal: Arc::new(Principal {
                expires,
                ..Principal::named(name, "[api_keys]".into())
            }),
            quota: None,
        })
    }

    #[test]
    fn a_key_is_found_by_all_of_itself() {
        let ring = KeyRing::new([key("a", "first", u64::MAX), key("b", "second", 100)]);
        let name = |presented: &str, now| {
            ring.find(presented.as_bytes(), now)
                .map(|(place, key)| (place, key.name.to_string()))
        };
        assert_eq!(name("first", 0), Ok((0, "a".to_owned())));
        assert_eq!(name("second", 99), Ok((1, "b".to_owned())));
        assert_eq!(name("second", 100), Err(KeyError::Expired));
        for wrong in ["", "firs", "first ", "First", "firstsecond", "second\0"] {
            assert_eq!(name(wrong, 0), Err(KeyError::Unknown), "{wrong}");
        }
        assert_eq!(ring.names().collect::<Vec<_>>(), ["a", "b"]);
    }

    #[test]
    fn every_bit_of_a_hash_counts() {
        let held = Fingerprint::of(b"key");
        for bit in 0..256 {
            let mut other = held;
            other.0[bit / 8] ^= 1 << (bit % 8);
            assert_ne!(held, other, "{bit}");
        }
    }

    #[test]
    fn the_text_of_a_hash_is_read_back_and_nothing_else_is() {
        let hash = Fingerprint::of(b"key");
        let text = hash.to_string();
        assert_eq!(text.len(), "sha256:".len() + 64);
        assert_eq!(Fingerprint::parse(&text), Ok(hash));
        assert_eq!(
            Fingerprint::parse(&text.replace("sha256", "sha1")),
            Err(NoFingerprint)
        );
        assert_eq!(
            Fingerprint::parse(&format!("sha256:{}", text[7..].to_uppercase())),
            Ok(hash)
        );
        for bad in [
            "",
            "sha256:",
            &text[..text.len() - 1],
            &format!("{text}0"),
            &text.replace("sha256:", ""),
            &text.replacen(['a', 'b', 'c', 'd', 'e', 'f'], "g", 1),
            &text.replacen(['a', 'b', 'c', 'd', 'e', 'f'], "é", 1),
        ] {
            assert_eq!(Fingerprint::parse(bad), Err(NoFingerprint), "{bad}");
        }
    }

    #[test]
    fn the_hash_is_not_the_plain_one_of_the_key() {
        let plain = Fingerprint(sha256_of(&[b"key"]));
        assert_ne!(Fingerprint::of(b"key"), plain);
        assert_eq!(format!("{:?}", Fingerprint::of(b"key")), "Fingerprint(…)");
    }

    #[test]
    fn fresh_keys_are_long_different_and_fit() {
        let (one, two) = (fresh_key(), fresh_key());
        assert_ne!(*one, *two);
        for key in [one, two] {
            assert_eq!(key.len(), "portcullis_".len() + 64);
            assert!(key.starts_with("portcullis_"));
            assert_eq!(check_key(key.as_bytes()), Ok(()));
        }
    }

    #[test]
    fn short_keys_and_odd_characters_are_refused() {
        assert_eq!(check_key(&[b'a'; 23]), Err(UnfitKey::Short));
        assert_eq!(check_key(&[b'a'; 24]), Ok(()));
        assert_eq!(check_key(&[b'a'; 512]), Ok(()));
        assert_eq!(check_key(&[b'a'; 513]), Err(UnfitKey::Long));
        assert_eq!(
            check_key(b"twenty-four bytes and a space"),
            Err(UnfitKey::Characters)
        );
        assert_eq!(
            check_key("schlüsselschlüsselschlüssel".as_bytes()),
            Err(UnfitKey::Characters)
        );
    }
}
