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
    /// Chooses for a request. `seed` is random; `client` is the hashed client key.
    /// Endpoints that are unhealthy or whose breaker is open are passed over while another is left.
    pub fn choose<'a>(
        &self,
        endpoints: &'a [Arc<Endpoint>],
        pick: Pick,
        usable: impl Fn(&Endpoint) -> bool,
    ) -> Option<&'a Arc<Endpoint>> {
        let count = endpoints.len();
        if count <= 1 {
            return endpoints.first();
        }
        let start = match self {
            Self::PowerOfTwo => return power_of_two(endpoints, pick, usable),
            Self::RoundRobin(next) => next.fetch_add(1, Ordering::Relaxed) % count,
            Self::HashClient => bounded(pick.client, count),
        };
        let order = (0..count).map(|step| &endpoints[(start + step) % count]);
        order
            .clone()
            .find(|e| usable(e))
            .or_else(|| order.clone().next())
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
) -> Option<&Arc<Endpoint>> {
    let usable: Vec<&Arc<Endpoint>> = endpoints.iter().filter(|e| usable(e)).collect();
    if usable.is_empty() {
        return endpoints.get(bounded(pick.seed, endpoints.len()));
    }
    let first = usable[bounded(pick.seed >> 32, usable.len())];
    let second = usable[bounded(pick.seed & 0xffff_ffff, usable.len())];
    Some(if second.load() < first.load() {
        second
    } else {
        first
    })
}

/// `value` folded into `0..count`.
fn bounded(value: u64, count: usize) -> usize {
    let count = u64::try_from(count.max(1)).unwrap_or(1);
    usize::try_from(value % count).unwrap_or(0)
}
