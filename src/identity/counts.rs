//! Counters of an issuer, for the metrics: what came of its tokens and of the fetches of its keys.

use std::sync::atomic::{AtomicU64, Ordering};

/// What came of the tokens and the fetches of an issuer since it was set up.
#[derive(Debug, Default)]
pub struct Counts {
    tokens: [AtomicU64; TOKEN_OUTCOMES.len()],
    fetched: AtomicU64,
    failed: AtomicU64,
}

/// The outcomes a token may have: the label values of `portcullis_tokens_verified_total`.
pub const TOKEN_OUTCOMES: [&str; 18] = [
    "cached",
    "verified",
    "malformed",
    "too-long",
    "algorithm",
    "type",
    "unknown-key",
    "signature",
    "expired",
    "not-yet-valid",
    "issuer",
    "audience",
    "missing-claim",
    "bad-claim",
    "duplicate-claim",
    "critical",
    "too-old",
    "keys-unavailable",
];

impl Counts {
    /// Each outcome of tokens with its count.
    pub fn tokens(&self) -> impl Iterator<Item = (&'static str, u64)> {
        TOKEN_OUTCOMES.into_iter().zip(
            self.tokens
                .iter()
                .map(|count| count.load(Ordering::Relaxed)),
        )
    }

    /// Each outcome of key-set fetches with its count.
    pub fn fetches(&self) -> [(&'static str, u64); 2] {
        [
            ("ok", self.fetched.load(Ordering::Relaxed)),
            ("failed", self.failed.load(Ordering::Relaxed)),
        ]
    }

    pub(super) fn token(&self, outcome: &str) {
        let at = TOKEN_OUTCOMES.iter().position(|name| *name == outcome);
        if let Some(count) = at.and_then(|at| self.tokens.get(at)) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(super) fn fetched(&self, well: bool) {
        let count = if well { &self.fetched } else { &self.failed };
        count.fetch_add(1, Ordering::Relaxed);
    }
}
