//! `Content-Digest` (RFC 9530 §2): the hash of the body that a signature covers instead of the body itself.
//!
//! SHA-256 and SHA-512; whichever of the two the field names must fit, and one must be there. The old algorithms that
//! the registry calls insecure, and those that nobody knows here, count as absent (RFC 9530 §5).

use aws_lc_rs::digest;
use http::{HeaderMap, HeaderName};

use crate::wire::sfv::read::{Bare, Member, dictionary};

/// The field.
pub const CONTENT_DIGEST: HeaderName = HeaderName::from_static("content-digest");

/// The hashes that a body must have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContentDigest {
    sha256: Option<[u8; 32]>,
    sha512: Option<[u8; 64]>,
}

/// Why a field binds no body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DigestError {
    /// Not a dictionary of byte sequences, or a hash of another length than its algorithm makes.
    Malformed,
    /// Neither of the two algorithms.
    Unknown,
}

/// Reads the field.
///
/// # Errors
/// [`DigestError`]; an absent field is one without an algorithm.
pub fn content_digest(headers: &HeaderMap) -> Result<ContentDigest, DigestError> {
    let lines: Vec<&[u8]> = headers
        .get_all(CONTENT_DIGEST)
        .iter()
        .map(AsRef::as_ref)
        .collect();
    let said = dictionary(&lines.join(&b", "[..])).map_err(|_| DigestError::Malformed)?;
    let found = ContentDigest {
        sha256: hash(said.get("sha-256"))?,
        sha512: hash(said.get("sha-512"))?,
    };
    if found.sha256.is_none() && found.sha512.is_none() {
        return Err(DigestError::Unknown);
    }
    Ok(found)
}

fn hash<const N: usize>(member: Option<&Member>) -> Result<Option<[u8; N]>, DigestError> {
    match member {
        None => Ok(None),
        Some(Member::Item(item)) => match &item.bare {
            Bare::Bytes(bytes) => {
                let hash = <[u8; N]>::try_from(&**bytes);
                hash.map(Some).map_err(|_| DigestError::Malformed)
            }
            _ => Err(DigestError::Malformed),
        },
        Some(Member::Inner(_)) => Err(DigestError::Malformed),
    }
}

impl ContentDigest {
    /// Whether a body has all of the hashes. No secret is in them, so the time that this takes tells nothing.
    pub fn fits(&self, body: &[u8]) -> bool {
        let is = |algorithm, hash: &[u8]| digest::digest(algorithm, body).as_ref() == hash;
        self.sha256.is_none_or(|hash| is(&digest::SHA256, &hash))
            && self.sha512.is_none_or(|hash| is(&digest::SHA512, &hash))
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, HeaderValue};

    use super::{CONTENT_DIGEST, ContentDigest, DigestError, content_digest};
    use crate::exchange::body_check::{BodyCheck, BodyError};

    /// The content of the examples of RFC 9530, with its line end.
    const CONTENT: &[u8] = b"{\"hello\": \"world\"}\n";
    const SHA256: &str = "sha-256=:RK/0qy18MlBSVnWgjwz6lZEWjP/lF5HF9bvEF8FabDg=:";
    const SHA512: &str = "sha-512=:YMAam51Jz/jOATT6/zvHrLVgOYTGFy1d6GJiOHTohq4yP+pgk4vf2aCsyRZOtw8MjkM7iw7yZ/WkppmM44T3qg==:";

    fn read(lines: &[&str]) -> Result<ContentDigest, DigestError> {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(CONTENT_DIGEST, HeaderValue::from_str(line).unwrap());
        }
        content_digest(&headers)
    }

    fn fits(lines: &[&str], body: &[u8]) -> bool {
        read(lines).unwrap().fits(body)
    }

    #[test]
    fn rfc_9530_the_examples_fit_their_content() {
        assert!(fits(&[SHA256], CONTENT));
        assert!(fits(&[SHA512], CONTENT));
        assert!(fits(&[SHA256, SHA512], CONTENT));
        assert!(fits(&[&format!("md5=:AAAA:, {SHA256}")], CONTENT));
    }

    #[test]
    fn b41_another_body_does_not_fit() {
        let shorter = &CONTENT[..CONTENT.len() - 1];
        for digest in [SHA256, SHA512] {
            assert!(!fits(&[digest], shorter));
            assert!(!fits(&[digest], b""));
        }
        let other = "sha-256=:X48E9qOokqqrvdts8nOJRJN3OWDUoyWxBf7kbu9DBPE=:";
        assert!(fits(&[other], shorter));
        assert!(
            !fits(&[other, SHA512], shorter),
            "all that is named must fit"
        );
        assert!(
            !fits(&[other, SHA512], CONTENT),
            "all that is named must fit"
        );
    }

    #[test]
    fn b41_what_may_only_be_empty_is_known_by_the_digest_of_nothing() {
        let of_nothing = "sha-256=:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=:";
        let could = |line, bytes| read(&[line]).unwrap().could_have(bytes);
        assert_eq!(could(of_nothing, 0), Ok(()));
        assert_eq!(could(of_nothing, 1), Err(BodyError::Invalid("digest")));
        assert_eq!(could(SHA256, 0), Ok(()));
        assert_eq!(could(SHA256, 1), Ok(()));
    }

    #[test]
    fn b41_a_field_that_binds_nothing_is_refused() {
        for lines in [&[][..], &["md5=:AAAA:"], &["sha=:AAAA:, unixsum=:AAAA:"]] {
            assert_eq!(read(lines), Err(DigestError::Unknown), "{lines:?}");
        }
        for lines in [
            &["sha-256=AAAA"][..],
            &["sha-256=:AAAA:"],
            &["sha-256=(:AAAA:)"],
            &["sha-256"],
            &["SHA-256=:AAAA:"],
            &["sha-256=abc="],
            &[SHA256, SHA256],
        ] {
            assert_eq!(read(lines), Err(DigestError::Malformed), "{lines:?}");
        }
    }
}
