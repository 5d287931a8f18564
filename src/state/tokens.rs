//! Verified tokens: what a signature check was already spent on.
//!
//! Keyed by the SHA-256 of the whole token, signature included, so the token itself is never held and no part of it can be
//! swapped. An entry counts only with the key-set version it was verified under and before its expiry. Failures are not
//! held: an attacker must not be able to fill the table with them. Bounded by entries.

use std::fmt;
use std::sync::Arc;

use quick_cache::sync::Cache;

use crate::crypto::digest::Sha256;
use crate::exchange::principal::Principal;

/// How many tokens an issuer remembers unless told otherwise.
pub const DEFAULT_ENTRIES: usize = 20_000;

#[derive(Clone)]
struct Entry {
    principal: Arc<Principal>,
    version: u64,
}

/// The verified tokens of one issuer.
pub struct VerifiedTokens {
    entries: Cache<Sha256, Entry>,
}

impl VerifiedTokens {
    /// An empty table for at most `entries` tokens.
    pub fn new(entries: usize) -> Self {
        Self {
            entries: Cache::new(entries),
        }
    }

    /// The principal of the token with this digest, if it was verified under key-set `version` and has not expired at `now`.
    pub fn get(&self, token: &Sha256, version: u64, now: u64) -> Option<Arc<Principal>> {
        let entry = self.entries.get(token)?;
        (entry.version == version && now < entry.principal.expires).then_some(entry.principal)
    }

    /// Remembers a token that was verified under key-set `version`.
    pub fn put(&self, token: Sha256, version: u64, principal: Arc<Principal>) {
        self.entries.insert(token, Entry { principal, version });
    }

    /// How many are held.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether none is held.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl fmt::Debug for VerifiedTokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VerifiedTokens")
            .field("len", &self.len())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::VerifiedTokens;
    use crate::crypto::digest::sha256;
    use crate::exchange::principal::Principal;

    fn principal(expires: u64) -> Arc<Principal> {
        Arc::new(Principal {
            expires,
            ..Principal::named("s", "i".into())
        })
    }

    #[test]
    fn a25_an_entry_ends_with_its_expiry_and_with_its_key_set() {
        let tokens = VerifiedTokens::new(100);
        tokens.put(sha256(b"t"), 1, principal(1000));
        assert!(tokens.get(&sha256(b"t"), 1, 999).is_some());
        assert!(tokens.get(&sha256(b"t"), 1, 1000).is_none());
        assert!(tokens.get(&sha256(b"t"), 2, 999).is_none());
        assert!(tokens.get(&sha256(b"u"), 1, 999).is_none());
    }

    #[test]
    fn the_table_is_bounded() {
        let tokens = VerifiedTokens::new(100);
        for n in 0..10_000_u32 {
            tokens.put(sha256(&n.to_be_bytes()), 1, principal(1000));
        }
        assert!(tokens.len() <= 100);
    }
}
