//! Which endpoint gets the next request: two random choices, round robin, or by client. Pure: takes its randomness.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use super::endpoint::Endpoint;

/// How an endpoint is chosen among several.
#[derive(Debug)]
pub enum Balance {
    /// The less loaded of two chosen at random.
    PowerOfTwo,
    /// One after the other.
    RoundRobin(AtomicUsize),
    /// The same client always meets the same endpoint while the list is unchanged.
    HashClient,
}

impl Balance {
    /// Chooses for a request; gives the index. `seed` is random; `client` is the hashed client key.
    /// Endpoints that are unhealthy or whose breaker is open are passed over while another is left.
    pub fn choose(
        &self,
        endpoints: &[Arc<Endpoint>],
        pick: Pick,
        usable: impl Fn(&Endpoint) -> bool,
    ) -> Option<usize> {
        let count = endpoints.len();
        if count <= 1 {
            return count.checked_sub(1);
        }
        let start = match self {
            Self::PowerOfTwo => return Some(power_of_two(endpoints, pick, usable)),
            Self::RoundRobin(next) => next.fetch_add(1, Ordering::Relaxed) % count,
            Self::HashClient => bounded(pick.client, count),
        };
        let mut order = (0..count).map(|step| (start + step) % count);
        order
            .find(|at| endpoints.get(*at).is_some_and(|e| usable(e)))
            .or(Some(start))
    }

    /// Whether a choice among these looks at how much each has to do; where it does not, nobody need count.
    pub fn compares(&self, endpoints: &[Arc<Endpoint>]) -> bool {
        matches!(self, Self::PowerOfTwo) && endpoints.len() > 1
    }
}

/// The numbers that a choice depends on.
#[derive(Clone, Copy, Debug)]
pub struct Pick {
    /// Random bits.
    pub seed: u64,
    /// Hash of the client's key.
    pub client: u64,
}

fn power_of_two(
    endpoints: &[Arc<Endpoint>],
    pick: Pick,
    usable: impl Fn(&Endpoint) -> bool,
) -> usize {
    let all = endpoints.iter().enumerate();
    let usable: Vec<(usize, &Arc<Endpoint>)> = all.filter(|(_, e)| usable(e)).collect();
    if usable.is_empty() {
        return bounded(pick.seed, endpoints.len());
    }
    let (first, one) = usable[bounded(pick.seed >> 32, usable.len())];
    let (second, other) = usable[bounded(pick.seed & 0xffff_ffff, usable.len())];
    if other.load() < one.load() {
        second
    } else {
        first
    }
}

/// `value` folded into `0..count`.
fn bounded(value: u64, count: usize) -> usize {
    let count = u64::try_from(count.max(1)).unwrap_or(1);
    usize::try_from(value % count).unwrap_or(0)
}
