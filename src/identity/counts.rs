//! Counters of an issuer, for the metrics: what came of its tokens, of the fetches of its keys and of questions to it.

use crate::observe::cells::Counters;

/// What came of the tokens and the fetches of an issuer since it was set up.
#[derive(Debug)]
pub struct Counts {
    /// One counter an outcome of tokens, then the fetches that went well, then those that did not, then one an outcome of
    /// questions. Every request with a token counts here, so each worker has counters of its own.
    cells: Counters,
}

const FETCHED: usize = TOKEN_OUTCOMES.len();
const FAILED: usize = FETCHED + 1;
const ASKED: usize = FAILED + 1;
const ALL: usize = ASKED + QUESTION_OUTCOMES.len();

impl Default for Counts {
    fn default() -> Self {
        Self {
            cells: Counters::new(ALL),
        }
    }
}

/// The outcomes a token may have: the label values of `portcullis_tokens_verified_total`.
pub const TOKEN_OUTCOMES: [&str; 22] = [
    "cached",
    "verified",
    "introspected",
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
    "inactive",
    "revoked",
    "keys-unavailable",
    "introspection-unavailable",
];

/// What may come of a question to an issuer: the label values of `portcullis_introspections_total`.
const QUESTION_OUTCOMES: [&str; 3] = ["ok", "failed", "held-back"];

impl Counts {
    /// Each outcome of tokens with its count.
    pub fn tokens(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let outcomes = TOKEN_OUTCOMES.into_iter().enumerate();
        outcomes.map(|(at, name)| (name, self.cells.sum(at)))
    }

    /// Each outcome of key-set fetches with its count.
    pub fn fetches(&self) -> [(&'static str, u64); 2] {
        [
            ("ok", self.cells.sum(FETCHED)),
            ("failed", self.cells.sum(FAILED)),
        ]
    }

    /// Each outcome of questions with its count.
    pub fn questions(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let outcomes = QUESTION_OUTCOMES.into_iter().enumerate();
        outcomes.map(|(at, name)| (name, self.cells.sum(ASKED + at)))
    }

    pub(super) fn token(&self, outcome: &str) {
        let at = TOKEN_OUTCOMES.iter().position(|name| *name == outcome);
        if let Some(at) = at {
            self.cells.add(at, 1);
        }
    }

    pub(super) fn asked(&self, outcome: &str) {
        let at = QUESTION_OUTCOMES.iter().position(|name| *name == outcome);
        if let Some(at) = at {
            self.cells.add(ASKED + at, 1);
        }
    }

    pub(super) fn fetched(&self, well: bool) {
        self.cells.add(if well { FETCHED } else { FAILED }, 1);
    }
}
