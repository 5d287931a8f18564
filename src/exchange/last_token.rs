//! The token that came last on a connection, with what it proved: most clients show the same one with every request.
//!
//! For `identity::bearer`, which knows whether the proof still counts. It saves the digest by which the table of verified
//! tokens is asked, and nothing else: whatever ends an entry there ends the proof too. A token is kept from its second
//! coming on, so that a client of one request, or a gateway that shows another one each time, costs no copy.

use std::sync::{Arc, Mutex, PoisonError};

use super::principal::Principal;
use crate::crypto::{digest::Sha256, secret::Secret};

/// A longer token is not kept: its connection may be one of very many.
const MOST_BYTES: usize = 4096;

/// What a token proved.
#[derive(Clone, Debug)]
pub struct Proof {
    /// Serial number of the issuer that verified it.
    pub issuer: u64,
    /// Version of the key set that it was verified under.
    pub version: u64,
    /// Who showed it.
    pub principal: Arc<Principal>,
}

/// The last token of a connection.
#[derive(Debug, Default)]
pub struct LastToken(Mutex<Memory>);

#[derive(Debug, Default)]
struct Memory {
    /// The digest of the token that came last.
    seen: Option<Sha256>,
    kept: Option<Box<(Secret, Proof)>>,
}

impl LastToken {
    /// What these very bytes proved when they came before. Whether it still counts is not known here.
    pub fn proof_of(&self, token: &[u8]) -> Option<Proof> {
        let memory = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (kept, proof) = memory.kept.as_deref()?;
        kept.is(token).then(|| proof.clone())
    }

    /// Takes note of a token that was found by its digest.
    pub fn note(&self, token: &[u8], digest: &Sha256, proof: Proof) {
        let mut memory = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if memory.seen.as_ref() != Some(digest) {
            memory.seen = Some(*digest);
        } else if token.len() <= MOST_BYTES {
            memory.kept = Some(Box::new((Secret::new(token.to_vec()), proof)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::digest::sha256;

    fn proof(subject: &str) -> Proof {
        let principal = Principal {
            expires: 1000,
            ..Principal::named(subject, "i".into())
        };
        Proof {
            issuer: 1,
            version: 1,
            principal: Arc::new(principal),
        }
    }

    fn note(last: &LastToken, token: &[u8]) {
        let subject = String::from_utf8_lossy(token);
        last.note(token, &sha256(token), proof(&subject));
    }

    fn subject(last: &LastToken, token: &[u8]) -> Option<String> {
        last.proof_of(token)
            .map(|proof| proof.principal.subject.to_string())
    }

    #[test]
    fn a_token_is_kept_from_its_second_coming_on() {
        let last = LastToken::default();
        note(&last, b"a.b.c");
        assert_eq!(subject(&last, b"a.b.c"), None);
        note(&last, b"a.b.c");
        assert_eq!(subject(&last, b"a.b.c").as_deref(), Some("a.b.c"));
        for n in 0..100 {
            note(&last, format!("t{n}").as_bytes());
        }
        assert_eq!(subject(&last, b"t99"), None);
        assert_eq!(subject(&last, b"a.b.c").as_deref(), Some("a.b.c"));
        note(&last, b"t99");
        assert_eq!(subject(&last, b"t99").as_deref(), Some("t99"));
        assert_eq!(subject(&last, b"a.b.c"), None, "one token a connection");
    }

    #[test]
    fn a25_no_other_bytes_are_that_token() {
        let last = LastToken::default();
        let token = [b'x'; 40];
        note(&last, &token);
        note(&last, &token);
        for at in 0..token.len() {
            let mut other = token;
            other[at] ^= 1;
            assert_eq!(subject(&last, &other), None);
            assert_eq!(subject(&last, &token[..at]), None);
        }
        assert_eq!(subject(&last, &[b'x'; 41]), None);
        assert_eq!(subject(&last, b""), None);
        assert!(subject(&last, &token).is_some());
    }

    #[test]
    fn a_very_long_token_is_not_kept() {
        let last = LastToken::default();
        let token = vec![b'x'; MOST_BYTES + 1];
        note(&last, &token);
        note(&last, &token);
        assert_eq!(subject(&last, &token), None);
    }
}
