//! How many questions one client may have put to an issuer. For `introspection`.
//!
//! Made-up tokens cost whoever sends them nothing: what the issuer refuses, and what it leaves without an answer, is taken
//! from what their client may have asked. Tokens of which something is known go on to be asked about: others may come from
//! the same address. Clients are counted apart in bounded memory, IPv6 by /64.

use std::net::IpAddr;
use std::time::Duration;

use crate::state::clock;
use crate::state::limiter::{KeyHasher, Limit, Limiter};

/// Tokens of one client that the issuer may refuse before that client's next ones are not asked about.
const REFUSALS: Limit = Limit {
    quota: 120,
    window: Duration::from_mins(1),
    burst: 120,
};
/// Questions of one client that may stay without an answer before it has one at a time.
const SILENCES: Limit = Limit {
    quota: 4,
    window: Duration::from_mins(1),
    burst: 4,
};
/// The most clients that are counted apart.
const MOST_CLIENTS: usize = 10_000;

/// What clients have used up.
pub(super) struct Shares {
    refusals: Limiter,
    silences: Limiter,
    hasher: KeyHasher,
}

impl Shares {
    /// Nothing yet.
    pub(super) fn new() -> Self {
        Self {
            refusals: Limiter::new(REFUSALS, MOST_CLIENTS),
            silences: Limiter::new(SILENCES, MOST_CLIENTS),
            hasher: KeyHasher::new(),
        }
    }

    /// Whether the issuer refused too many tokens of a client for one more to be asked about of which nothing is known.
    pub(super) fn are_refused(&self, client: IpAddr) -> bool {
        let (key, now) = (self.hasher.client(client), clock::now_ns());
        !self.refusals.check(key, 0, now).is_allowed()
    }

    /// How many questions a client may have under way when `all` may be: a quarter of them, one while its questions hold
    /// their turns to no end.
    pub(super) fn of(&self, client: IpAddr, all: usize) -> usize {
        let (key, now) = (self.hasher.client(client), clock::now_ns());
        if !self.silences.check(key, 0, now).is_allowed() {
            return 1;
        }
        (all / 4).max(1)
    }

    /// The issuer refused a token of the client.
    pub(super) fn refused(&self, client: IpAddr) {
        let key = self.hasher.client(client);
        self.refusals.charge(key, 1, clock::now_ns());
    }

    /// The issuer did not answer a question about a token of the client.
    pub(super) fn unanswered(&self, client: IpAddr) {
        let key = self.hasher.client(client);
        self.silences.charge(key, 1, clock::now_ns());
    }
}
