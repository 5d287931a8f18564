//! Which endpoint gets the next request: two random choices, round robin, or by client. Pure: takes its randomness.
//!
//! Only the best of the endpoints are chosen among, by a rank that the caller gives. By client it is the endpoint with
//! the highest hash of client and name (rendezvous hashing): when one is lost, its clients spread over the others and
//! nobody else moves.

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
    /// The same client always meets the same endpoint while that is well.
    HashClient,
}

/// The numbers that a choice depends on.
#[derive(Clone, Copy, Debug)]
pub struct Pick {
    /// Random bits.
    pub seed: u64,
    /// Hash of the client's key; counts only where the choice is by client.
    pub client: u64,
}

impl Pick {
    /// Bits that are even over the requests of an endpoint, and where the choice is by client always the same for one.
    pub fn draw(self, balance: &Balance, endpoint: &Endpoint) -> u64 {
        match balance {
            Balance::HashClient => mix(self.client.rotate_left(17) ^ endpoint.salt),
            Balance::PowerOfTwo | Balance::RoundRobin(_) => mix(self.seed ^ endpoint.salt),
        }
    }
}

impl Balance {
    /// Chooses for a request among the endpoints of the lowest rank; gives the place in the list.
    pub fn choose(
        &self,
        endpoints: &[Arc<Endpoint>],
        pick: Pick,
        rank: impl Fn(usize, &Endpoint) -> u8,
    ) -> Option<usize> {
        if endpoints.len() <= 1 {
            return endpoints.len().checked_sub(1);
        }
        let ranks: Vec<u8> = {
            let all = endpoints.iter().enumerate();
            all.map(|(place, endpoint)| rank(place, endpoint)).collect()
        };
        let best = ranks.iter().min().copied()?;
        let fit: Vec<Placed<'_>> = endpoints
            .iter()
            .enumerate()
            .zip(ranks)
            .filter_map(|(endpoint, rank)| (rank == best).then_some(endpoint))
            .collect();
        let chosen = match self {
            Self::PowerOfTwo => power_of_two(&fit, pick.seed),
            Self::RoundRobin(next) => {
                let turn = next.fetch_add(1, Ordering::Relaxed);
                fit.get(turn % fit.len()).copied()
            }
            Self::HashClient => fit
                .into_iter()
                .max_by_key(|(_, endpoint)| mix(pick.client ^ endpoint.salt)),
        };
        chosen.map(|(place, _)| place)
    }

    /// Whether a choice among these looks at how much each has to do; where it does not, nobody need count.
    pub fn compares(&self, endpoints: &[Arc<Endpoint>]) -> bool {
        matches!(self, Self::PowerOfTwo) && endpoints.len() > 1
    }
}

/// An endpoint with its place in the list.
type Placed<'a> = (usize, &'a Arc<Endpoint>);

fn power_of_two<'a>(fit: &[Placed<'a>], seed: u64) -> Option<Placed<'a>> {
    let first = fit.get(bounded(seed >> 32, fit.len()))?;
    let second = fit.get(bounded(seed & 0xffff_ffff, fit.len()))?;
    Some(if second.1.load() < first.1.load() {
        *second
    } else {
        *first
    })
}

/// `value` folded into `0..count`.
fn bounded(value: u64, count: usize) -> usize {
    let count = u64::try_from(count.max(1)).unwrap_or(1);
    usize::try_from(value % count).unwrap_or(0)
}

/// Spreads the bits of a number over all of its bits (the finalizer of `SplitMix64`).
pub(super) fn mix(value: u64) -> u64 {
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

/// A number for a name, the same in every process (FNV-1a).
pub(super) fn salt(name: &str) -> u64 {
    let hash = name.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    mix(hash)
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;
    use crate::upstream::trial::endpoints;

    fn pick(number: u64) -> Pick {
        Pick {
            seed: mix(number),
            client: mix(number.wrapping_mul(31)),
        }
    }

    #[test]
    fn only_the_clients_of_a_lost_server_move_and_they_spread() {
        let all = endpoints(5);
        let by_client = Balance::HashClient;
        let lost = Arc::clone(&all[2]);
        let mut moved: HashMap<String, u32> = HashMap::new();
        for client in 0..10_000 {
            let met = |list: &[Arc<Endpoint>], rank: &dyn Fn(usize, &Endpoint) -> u8| {
                let place = by_client.choose(list, pick(client), rank).unwrap();
                Arc::clone(&list[place])
            };
            let before = met(&all, &|_, _| 0);
            let sick = |_: usize, e: &Endpoint| u8::from(e.name == lost.name);
            let after = met(&all, &sick);
            let fewer: Vec<_> = all
                .iter()
                .filter(|e| e.name != lost.name)
                .cloned()
                .collect();
            let gone = met(&fewer, &|_, _| 0);
            assert_eq!(after.name, gone.name, "out of the list or only ill");
            if before.name == lost.name {
                *moved.entry(after.name.to_string()).or_default() += 1;
            } else {
                assert_eq!(before.name, after.name);
            }
        }
        assert_eq!(moved.len(), 4);
        for (name, count) in moved {
            assert!(
                (400..600).contains(&count),
                "{name} took {count} of about 2,000"
            );
        }
    }

    #[test]
    fn every_way_asks_only_those_of_the_best_rank_and_all_of_them() {
        let all = endpoints(6);
        let rank =
            |_: usize, e: &Endpoint| u8::from(e.name.ends_with('0') || e.name.ends_with('3'));
        for balance in [
            Balance::PowerOfTwo,
            Balance::RoundRobin(AtomicUsize::new(0)),
            Balance::HashClient,
        ] {
            let mut met: HashMap<&str, u32> = HashMap::new();
            for number in 0..4_000 {
                let chosen = balance.choose(&all, pick(number), rank).unwrap();
                *met.entry(&all[chosen].name).or_default() += 1;
            }
            assert_eq!(met.len(), 4, "{balance:?} {met:?}");
            assert!(
                met.values().all(|count| (800..1_200).contains(count)),
                "{balance:?} {met:?}"
            );
        }
    }

    #[test]
    fn where_none_is_well_all_are_asked() {
        let all = endpoints(2);
        let balance = Balance::RoundRobin(AtomicUsize::new(0));
        let places = [0, 1].map(|n| balance.choose(&all, pick(n), |_, _| 4).unwrap());
        assert_ne!(places[0], places[1]);
        assert!(balance.choose(&[], pick(0), |_, _| 0).is_none());
    }
}
