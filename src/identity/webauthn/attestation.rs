//! The wrapping in which the data of a new credential comes: the attestation object (Web Authentication Level 3 §6.5).
//!
//! The statement in it is stepped over, whatever its format: no attestation is asked for.

use super::{WebauthnError, cbor::NotThat, cbor::Reader};

/// The authenticator data in an attestation object.
///
/// # Errors
/// [`WebauthnError::Attestation`] for anything but one map of the three members.
pub fn authenticator_data_of(object: &[u8]) -> Result<&[u8], WebauthnError> {
    read(object).map_err(|_| WebauthnError::Attestation)
}

fn read(object: &[u8]) -> Result<&[u8], NotThat> {
    let mut reader = Reader::new(object);
    if reader.map()? != 3 {
        return Err(NotThat);
    }
    let (mut format, mut statement, mut data) = (None, None, None);
    for _ in 0..3 {
        let again = match reader.text()? {
            "fmt" => format.replace(reader.text()?).is_some(),
            "attStmt" => statement.replace(reader.skip_map()?).is_some(),
            "authData" => data.replace(reader.bytes()?).is_some(),
            _ => true,
        };
        if again {
            return Err(NotThat);
        }
    }
    if !reader.rest().is_empty() {
        return Err(NotThat);
    }
    data.ok_or(NotThat)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &[u8] = b"\xa3\x63fmt\x64none\x67attStmt\xa0\x68authData\x42ab";

    #[test]
    fn the_data_is_taken_out_in_any_order() {
        assert_eq!(authenticator_data_of(GOOD), Ok(&b"ab"[..]));
        let other = b"\xa3\x63fmt\x66packed\x68authData\x42ab\x67attStmt\xa1\x63sig\x41x";
        assert_eq!(authenticator_data_of(other), Ok(&b"ab"[..]));
    }

    #[test]
    fn every_cut_and_every_addition_is_refused() {
        for end in 0..GOOD.len() {
            assert!(authenticator_data_of(&GOOD[..end]).is_err(), "{end}");
        }
        assert!(authenticator_data_of(&[GOOD, b"\x00"].concat()).is_err());
        for bad in [
            &b"\xa0"[..],
            b"\xa2\x63fmt\x64none\x68authData\x42ab",
            b"\xa3\x63fmt\x64none\x68authData\x42ab\x68authData\x42cd",
            b"\xa3\x63fmt\x64none\x63fmt\x64none\x68authData\x42ab",
            b"\xa3\x63fmt\x64none\x67attStmt\x80\x68authData\x42ab",
            b"\xa3\x63fmt\x64none\x67attStmt\xa0\x68authData\x62ab",
            b"\xa3\x63fmt\x44none\x67attStmt\xa0\x68authData\x42ab",
            b"\xa3\x63fmt\x64none\x67attStmt\xa0\x68authdata\x42ab",
            b"\xa4\x63fmt\x64none\x67attStmt\xa0\x68authData\x42ab\x61x\x00",
            b"\xbf\x63fmt\x64none\x67attStmt\xa0\x68authData\x42ab\xff",
        ] {
            assert_eq!(
                authenticator_data_of(bad),
                Err(WebauthnError::Attestation),
                "{bad:x?}"
            );
        }
    }
}
