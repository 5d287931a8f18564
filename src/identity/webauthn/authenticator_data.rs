//! What the authenticator says of a ceremony, and signs: the authenticator data (Web Authentication Level 3 §6.1).
//!
//! Extensions are stepped over: none is asked for. Not a byte may be left.

use super::{WebauthnError, cbor::Reader};

/// The longest id of a credential, in bytes (§4, Credential ID).
pub const MAX_ID: usize = 1023;

/// The authenticator data, read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AuthenticatorData<'a> {
    /// The SHA-256 of the name that the credential is bound to.
    pub rp_id_hash: &'a [u8; 32],
    /// What is so.
    pub flags: Flags,
    /// The signature counter; 0 with authenticators that have none.
    pub counter: u32,
    /// The credential, where a new one is told.
    pub attested: Option<Attested<'a>>,
}

/// A new credential.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attested<'a> {
    /// Its id, 1 to [`MAX_ID`] bytes.
    pub id: &'a [u8],
    /// Its public key: one map in CBOR, which [`PublicKey`](super::cose::PublicKey) reads.
    pub key: &'a [u8],
}

/// The flags; those that the standard keeps for later are passed over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flags(u8);

impl Flags {
    /// UP: somebody was there.
    pub const fn user_present(self) -> bool {
        self.has(0)
    }

    /// UV: the authenticator made sure who it was.
    pub const fn user_verified(self) -> bool {
        self.has(2)
    }

    /// BE: the credential may be copied to other devices of its owner.
    pub const fn backup_eligible(self) -> bool {
        self.has(3)
    }

    /// BS: it has been.
    pub const fn backed_up(self) -> bool {
        self.has(4)
    }

    const fn has(self, bit: u8) -> bool {
        self.0 >> bit & 1 == 1
    }
}

impl<'a> AuthenticatorData<'a> {
    /// Reads the bytes.
    ///
    /// # Errors
    /// [`WebauthnError::AuthenticatorData`], [`WebauthnError::TooLong`] for a longer id.
    pub fn read(bytes: &'a [u8]) -> Result<Self, WebauthnError> {
        let bad = WebauthnError::AuthenticatorData;
        let (rp_id_hash, rest) = bytes.split_first_chunk().ok_or(bad)?;
        let ([flags], rest) = rest.split_first_chunk().ok_or(bad)?;
        let (counter, rest) = rest.split_first_chunk().ok_or(bad)?;
        let flags = Flags(*flags);
        let (attested, rest) = if flags.has(6) {
            attested(rest).map(|(attested, rest)| (Some(attested), rest))?
        } else {
            (None, rest)
        };
        let rest = if flags.has(7) { map(rest)?.1 } else { rest };
        if !rest.is_empty() {
            return Err(bad);
        }
        Ok(Self {
            rp_id_hash,
            flags,
            counter: u32::from_be_bytes(*counter),
            attested,
        })
    }
}

/// The credential that stands first, and what follows it.
fn attested(bytes: &[u8]) -> Result<(Attested<'_>, &[u8]), WebauthnError> {
    let bad = WebauthnError::AuthenticatorData;
    // The model of the authenticator says nothing that was asked for.
    let (_aaguid, rest) = bytes.split_first_chunk::<16>().ok_or(bad)?;
    let (length, rest) = rest.split_first_chunk().ok_or(bad)?;
    let length = usize::from(u16::from_be_bytes(*length));
    if length > MAX_ID {
        return Err(WebauthnError::TooLong);
    }
    let (id, rest) = rest.split_at_checked(length).ok_or(bad)?;
    if id.is_empty() {
        return Err(bad);
    }
    let (key, rest) = map(rest)?;
    Ok((Attested { id, key }, rest))
}

/// The map that stands first, and what follows it.
fn map(bytes: &[u8]) -> Result<(&[u8], &[u8]), WebauthnError> {
    let mut reader = Reader::new(bytes);
    let map = reader
        .skip_map()
        .map_err(|_| WebauthnError::AuthenticatorData)?;
    Ok((map, reader.rest()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn data(flags: u8, rest: &[u8]) -> Vec<u8> {
        [&[7; 32][..], &[flags], &[0, 0, 1, 2], rest].concat()
    }

    fn credential(id: usize) -> Vec<u8> {
        let length = u16::try_from(id).unwrap().to_be_bytes();
        [&[9; 16][..], &length, &vec![5; id], b"\xa1\x01\x02"].concat()
    }

    #[test]
    fn flags_and_counter_are_read() {
        let bytes = data(0, b"");
        let read = AuthenticatorData::read(&bytes).unwrap();
        assert_eq!((read.rp_id_hash, read.counter), (&[7; 32], 258));
        assert_eq!(read.attested, None);
        let named = |bits: u8| {
            let flags = Flags(bits);
            [
                flags.user_present(),
                flags.user_verified(),
                flags.backup_eligible(),
                flags.backed_up(),
            ]
        };
        assert_eq!(named(0x01), [true, false, false, false]);
        assert_eq!(named(0x04), [false, true, false, false]);
        assert_eq!(named(0x08), [false, false, true, false]);
        assert_eq!(named(0x10), [false, false, false, true]);
        assert_eq!(named(0xe2), [false; 4]);
    }

    #[test]
    fn a_credential_and_extensions_are_found() {
        let bytes = data(0xc1, &[&credential(3)[..], b"\xa1\x61x\xf5"].concat());
        let read = AuthenticatorData::read(&bytes).unwrap();
        let expected = Attested {
            id: &[5; 3],
            key: b"\xa1\x01\x02",
        };
        assert_eq!(read.attested, Some(expected));
        assert!(AuthenticatorData::read(&data(0x81, b"\xa0")).is_ok());
    }

    #[test]
    fn every_cut_and_every_addition_is_refused() {
        let whole = data(0xc1, &[&credential(3)[..], b"\xa1\x61x\xf5"].concat());
        for end in 0..whole.len() {
            assert!(AuthenticatorData::read(&whole[..end]).is_err(), "{end}");
        }
        for (flags, rest) in [
            (0x01, &b"\x00"[..]),
            (0x01, b"\xa0"),
            (0x81, b""),
            (0x81, b"\xa0\xa0"),
            (0x81, b"\x80"),
            (0x41, b""),
        ] {
            assert_eq!(
                AuthenticatorData::read(&data(flags, rest)),
                Err(WebauthnError::AuthenticatorData),
                "{flags:x} {rest:x?}"
            );
        }
        assert!(AuthenticatorData::read(&[&whole[..], b"\x00"].concat()).is_err());
    }

    #[test]
    fn an_id_has_1_to_1023_bytes() {
        let read = |id| AuthenticatorData::read(&data(0x41, &credential(id))).map(|_| ());
        assert_eq!(read(0), Err(WebauthnError::AuthenticatorData));
        assert_eq!(read(1), Ok(()));
        assert_eq!(read(MAX_ID), Ok(()));
        assert_eq!(read(MAX_ID + 1), Err(WebauthnError::TooLong));
    }
}
