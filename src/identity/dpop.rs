//! Proof of possession of the key that a token is bound to (RFC 9449): every request with such a token brings a new one.
//!
//! The checks of §4.3 run from the cheap to the dear: form and claims in `proof`, then the key, the nonce, the signature,
//! and last whether the proof came before. What must outlive a reload stands in [`Proofs`]. Which tokens need a proof is
//! policy; so is the answer to a bad one.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};

pub use super::proof::{MAX_PROOF_BYTES, ProofError, Request};
use super::{
    jwks::Key,
    proof::{self, Unproved},
    rules::DpopRules,
    thumbprint::thumbprint,
};
use crate::{
    crypto::digest::{Sha256, sha256},
    state::{
        nonces::Nonces,
        replay::{Replays, Seen},
    },
};

/// How many seconds a proof is remembered longer than it is accepted. Requests are checked side by side, each by its own
/// reading of the clock: one that reads later, or a clock that is set back, must not let a proof be forgotten for one that
/// still takes it.
const GRACE: u64 = 60;

/// The fewest proofs that may be remembered of one key, room for them given.
const LEAST_SHARE: usize = 1000;

/// What a request and its token demand of the proof.
#[derive(Clone, Copy, Debug)]
pub struct Demand<'a> {
    /// What it must be about.
    pub request: Request<'a>,
    /// The token beside it.
    pub token: &'a [u8],
    /// The thumbprint of the key that the token is bound to.
    pub key: &'a Sha256,
    /// Unix seconds at the check itself.
    pub now: u64,
}

/// The proofs that were accepted lately, of all issuers, and the nonces for those to come.
#[derive(Debug, Default)]
pub struct Proofs {
    seen: Replays,
    nonces: Nonces,
}

impl Proofs {
    /// Checks a proof, and remembers it: it is accepted once.
    ///
    /// # Errors
    /// See [`ProofError`].
    pub fn check(
        &self,
        proof: &[u8],
        demand: &Demand<'_>,
        rules: &DpopRules,
    ) -> Result<(), ProofError> {
        let proof = proof::read(proof)?;
        if !rules.algorithms.contains(&proof.algorithm) {
            return Err(ProofError::Algorithm);
        }
        if thumbprint(&proof.key).ok_or(ProofError::Key)? != *demand.key {
            return Err(ProofError::OtherKey);
        }
        demand.request.is_meant_by(&proof)?;
        check_token(&proof, demand.token)?;
        let until = check_age(proof.issued, demand.now, rules)?;
        if rules.nonce {
            let nonce = proof.nonce.as_deref().unwrap_or_default();
            if !self.nonces.accepts(nonce, demand.now) {
                return Err(ProofError::Nonce);
            }
        }
        let key = Key::of(&proof.key, proof.algorithm).ok_or(ProofError::Key)?;
        if !key.verify(proof.message, &proof.signature) {
            return Err(ProofError::Signature);
        }
        let name = sha256(&[demand.key, proof.id.as_bytes()].concat());
        let holder = (demand.key, share(rules.entries));
        let room = (demand.now, rules.entries);
        let seen = self
            .seen
            .see_of(holder, &name, until.saturating_add(GRACE), room);
        match seen {
            Seen::Fresh => Ok(()),
            Seen::Again => Err(ProofError::Replayed),
            Seen::Full => Err(ProofError::NoRoom),
        }
    }

    /// The nonce for proofs to be made at `now` (Unix seconds).
    pub fn nonce(&self, now: u64) -> String {
        self.nonces.current(now)
    }

    /// How many proofs are remembered.
    pub fn remembered(&self) -> usize {
        self.seen.len()
    }
}

/// How many proofs of one key are remembered: the holder of one token must not keep all others out.
fn share(entries: usize) -> usize {
    (entries / 16).max(LEAST_SHARE)
}

/// `ath`: without it a proof made for one token would do for the next (RFC 9449 §4.3, check 11a).
fn check_token(proof: &Unproved<'_>, token: &[u8]) -> Result<(), ProofError> {
    let hash = URL_SAFE_NO_PAD.encode(sha256(token));
    if proof.token.as_deref() == Some(hash.as_str()) {
        Ok(())
    } else {
        Err(ProofError::Token)
    }
}

/// Gives the second from which on the proof is too old, leeway included.
fn check_age(issued: u64, now: u64, rules: &DpopRules) -> Result<u64, ProofError> {
    let leeway = rules.leeway.as_secs();
    let until = issued
        .saturating_add(rules.max_age.as_secs())
        .saturating_add(leeway);
    if issued > now.saturating_add(leeway) || now >= until {
        return Err(ProofError::Age);
    }
    Ok(until)
}

#[cfg(test)]
mod tests;
