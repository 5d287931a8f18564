//! The public key of a credential: a `COSE_Key` (RFC 9052 §7, RFC 9053 §7; Web Authentication Level 3 §5.8.5, §6.5.1.1).
//!
//! It names its one algorithm: ES256, Ed25519 or RS256 (RFC 8812 §2). A member more than the algorithm needs
//! is refused. Whether a point lies on its curve is the question of `key`.

use super::{
    WebauthnError,
    cbor::{NotThat, Reader},
};

/// The algorithms that are offered to an authenticator, the one liked best first (IANA COSE Algorithms).
pub const ALGORITHMS: [i64; 3] = [EDDSA, ES256, RS256];

const ES256: i64 = -7;
const EDDSA: i64 = -8;
const RS256: i64 = -257;

/// The smallest and the largest RSA modulus, in bytes.
const RSA_BYTES: std::ops::RangeInclusive<usize> = 256..=1024;

/// A public key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PublicKey<'a> {
    /// ECDSA on P-256 with SHA-256: the coordinates of the point.
    Es256 {
        /// The first one.
        x: &'a [u8; 32],
        /// The other one.
        y: &'a [u8; 32],
    },
    /// Ed25519.
    Ed25519 {
        /// The key as it is (RFC 8032 §5.1.5).
        x: &'a [u8; 32],
    },
    /// RSA PKCS #1 v1.5 with SHA-256.
    Rs256 {
        /// The modulus, without zeros in front.
        n: &'a [u8],
        /// The exponent, likewise.
        e: &'a [u8],
    },
}

#[derive(Clone, Copy)]
enum Member<'a> {
    Integer(i64),
    Bytes(&'a [u8]),
}

impl<'a> PublicKey<'a> {
    /// Reads exactly one key.
    ///
    /// # Errors
    /// [`WebauthnError::Key`], [`WebauthnError::Algorithm`] for one that is not offered.
    pub fn read(bytes: &'a [u8]) -> Result<Self, WebauthnError> {
        let members = Members::read(bytes).map_err(|_| WebauthnError::Key)?;
        let algorithm = members.integer(3).ok_or(WebauthnError::Key)?;
        if !ALGORITHMS.contains(&algorithm) {
            return Err(WebauthnError::Algorithm);
        }
        members.key(algorithm).ok_or(WebauthnError::Key)
    }
}

/// The members, by their labels, none twice.
struct Members<'a>(Vec<(i64, Member<'a>)>);

impl<'a> Members<'a> {
    fn read(bytes: &'a [u8]) -> Result<Self, NotThat> {
        let mut reader = Reader::new(bytes);
        let count = reader.map()?;
        // No kind of key has more.
        if count > 5 {
            return Err(NotThat);
        }
        let mut members = Self(Vec::with_capacity(5));
        for _ in 0..count {
            let label = reader.integer()?;
            let member = if reader.is_at_bytes() {
                Member::Bytes(reader.bytes()?)
            } else {
                Member::Integer(reader.integer()?)
            };
            if members.get(label).is_some() {
                return Err(NotThat);
            }
            members.0.push((label, member));
        }
        if !reader.rest().is_empty() {
            return Err(NotThat);
        }
        Ok(members)
    }

    fn key(&self, algorithm: i64) -> Option<PublicKey<'a>> {
        // Key type, curve and number of members go with the algorithm.
        match (algorithm, self.integer(1)?, self.0.len()) {
            (ES256, 2, 5) if self.integer(-1) == Some(1) => Some(PublicKey::Es256 {
                x: self.bytes(-2)?.try_into().ok()?,
                y: self.bytes(-3)?.try_into().ok()?,
            }),
            (EDDSA, 1, 4) if self.integer(-1) == Some(6) => Some(PublicKey::Ed25519 {
                x: self.bytes(-2)?.try_into().ok()?,
            }),
            (RS256, 3, 4) => {
                let (n, e) = (self.bytes(-1)?, self.bytes(-2)?);
                is_sound(n, e).then_some(PublicKey::Rs256 { n, e })
            }
            _ => None,
        }
    }

    fn get(&self, label: i64) -> Option<Member<'a>> {
        let mut all = self.0.iter();
        all.find(|(own, _)| *own == label)
            .map(|(_, member)| *member)
    }

    fn integer(&self, label: i64) -> Option<i64> {
        match self.get(label)? {
            Member::Integer(integer) => Some(integer),
            Member::Bytes(_) => None,
        }
    }

    fn bytes(&self, label: i64) -> Option<&'a [u8]> {
        match self.get(label)? {
            Member::Bytes(bytes) => Some(bytes),
            Member::Integer(_) => None,
        }
    }
}

/// Whether RSA numbers are those of a key that can be trusted: long enough, and an odd exponent of 3 or more, since one
/// of 1 signs whatever it is shown (RFC 8017 §3.1).
fn is_sound(n: &[u8], e: &[u8]) -> bool {
    let odd = |number: &[u8]| number.last().is_some_and(|last| last % 2 == 1);
    let plain = |number: &[u8]| number.first().is_some_and(|first| *first != 0);
    let exponent = plain(e) && odd(e) && e.len() <= 8 && *e != [1];
    RSA_BYTES.contains(&n.len()) && plain(n) && odd(n) && exponent
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &[u8] = b"\x01\x02\x03\x26\x20\x01";

    fn map(pairs: u8, members: &[&[u8]]) -> Vec<u8> {
        [&[0xa0 | pairs], &members.concat()[..]].concat()
    }

    fn coordinate(label: u8, length: u8) -> Vec<u8> {
        [&[label, 0x58, length], &vec![7; usize::from(length)][..]].concat()
    }

    fn rsa(n: &[u8], e: &[u8]) -> Vec<u8> {
        let length = u16::try_from(n.len()).unwrap().to_be_bytes();
        let short = u8::try_from(e.len()).unwrap();
        let members = [b"\x20\x59", &length[..], n, &[0x21, 0x40 | short], e];
        map(4, &[b"\x01\x03\x03\x39\x01\x00", &members.concat()])
    }

    #[test]
    fn the_three_kinds_are_read() {
        let (x, y) = (coordinate(0x21, 32), coordinate(0x22, 32));
        let es256 = map(5, &[HEAD, &x, &y]);
        let read = PublicKey::read(&es256);
        assert_eq!(
            read,
            Ok(PublicKey::Es256 {
                x: &[7; 32],
                y: &[7; 32]
            })
        );
        let turned = map(5, &[&y, &x, HEAD]);
        assert_eq!(PublicKey::read(&turned), read);
        let ed25519 = map(4, &[b"\x01\x01\x03\x27\x20\x06", &x]);
        let read = PublicKey::read(&ed25519);
        assert_eq!(read, Ok(PublicKey::Ed25519 { x: &[7; 32] }));
        let rs256 = rsa(&[0xff; 256], &[1, 0, 1]);
        let expected = PublicKey::Rs256 {
            n: &[0xff; 256],
            e: &[1, 0, 1],
        };
        assert_eq!(PublicKey::read(&rs256), Ok(expected));
    }

    #[test]
    fn keys_that_are_not_what_they_say_are_refused() {
        let (x, y) = (coordinate(0x21, 32), coordinate(0x22, 32));
        let good = map(5, &[HEAD, &x, &y]);
        for end in 0..good.len() {
            assert_eq!(PublicKey::read(&good[..end]), Err(WebauthnError::Key));
        }
        for (what, bad) in [
            ("a byte more", [&good[..], b"\x00"].concat()),
            ("no x", map(4, &[HEAD, &y])),
            ("no algorithm", map(4, &[b"\x01\x02\x20\x01", &x, &y])),
            ("x twice", map(5, &[HEAD, &x, &x])),
            (
                "the algorithm twice",
                map(5, &[b"\x01\x02\x03\x26\x03\x27", &x, &y]),
            ),
            (
                "a label in two spellings",
                map(5, &[b"\x18\x01\x02\x01\x02\x03\x26", &x, &y]),
            ),
            ("a member more", map(6, &[HEAD, &x, &y, b"\x04\x81\x02"])),
            (
                "another curve",
                map(5, &[b"\x01\x02\x03\x26\x20\x02", &x, &y]),
            ),
            (
                "another type",
                map(5, &[b"\x01\x01\x03\x26\x20\x01", &x, &y]),
            ),
            ("a short x", map(5, &[HEAD, &coordinate(0x21, 31), &y])),
            ("the sign of y", map(5, &[HEAD, &x, b"\x22\xf5"])),
            (
                "a text for a label",
                map(5, &[b"\x61a\x02\x03\x26\x20\x01", &x, &y]),
            ),
            (
                "Ed25519 on another curve",
                map(4, &[b"\x01\x01\x03\x27\x20\x04", &x]),
            ),
            ("no map", b"\x80".to_vec()),
        ] {
            assert_eq!(PublicKey::read(&bad), Err(WebauthnError::Key), "{what}");
        }
        let es384 = map(5, &[b"\x01\x02\x03\x38\x22\x20\x02", &x, &y]);
        assert_eq!(PublicKey::read(&es384), Err(WebauthnError::Algorithm));
    }

    #[test]
    fn weak_rsa_keys_are_refused() {
        let modulus = [0xff; 256];
        for (n, e) in [
            (&modulus[1..], &[1, 0, 1][..]),
            (&[0xff; 1025], &[1, 0, 1]),
            (&[&[0][..], &modulus].concat(), &[1, 0, 1]),
            (&[&modulus[1..], &[0xfe]].concat(), &[1, 0, 1]),
            (&modulus, &[]),
            (&modulus, &[1]),
            (&modulus, &[2]),
            (&modulus, &[0, 3]),
            (&modulus, &[1; 9]),
        ] {
            let key = rsa(n, e);
            assert_eq!(PublicKey::read(&key), Err(WebauthnError::Key), "{e:?}");
        }
    }
}
