//! Servers that do worse than their peers are left out for a while, without anybody asking them (passive checks).
//!
//! A server is ejected when its breaker opens, and when its share of 5xx answers lies far above that of all the others
//! together, so that a page that fails everywhere ejects nobody. It stays out longer each time, and comes back with a
//! share of requests that grows. At most half of an upstream is out at once, so the last one never is.

use std::{
    sync::{
        Arc, PoisonError, Weak,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
    time::Duration,
};

use super::{cluster::Cluster, endpoint::Endpoint};
use crate::{observe::metrics::EjectionCause, state::clock};

/// Errors of fewer clients than about this many eject nobody, and of each of them no more count than of the third: one
/// of them must not be able to.
const CLIENTS: usize = 3;
/// Parts of all clients that are told apart.
const PARTS: usize = 64;
/// The least share of requests that a server which has come back gets, of 65,536.
const LEAST_SHARE: u64 = 3_277;

/// `outliers = { … }`
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct OutlierRules {
    /// How often the servers are compared.
    pub every: Duration,
    /// By how much the share of 5xx answers must lie above that of the peers; 1 is never reached.
    pub margin: f64,
    /// Answers in that time without which nothing is said of a server or its peers.
    pub requests: u32,
    /// How long a server is left out the first time; zero never leaves one out.
    pub out: Duration,
    /// The longest time that one is left out.
    pub longest: Duration,
}

impl Default for OutlierRules {
    fn default() -> Self {
        Self {
            every: Duration::from_secs(10),
            margin: 0.3,
            requests: 20,
            out: Duration::from_secs(30),
            longest: Duration::from_mins(5),
        }
    }
}

/// How an endpoint stands beside its peers. Outlives a reload. Written with each request where there are peers, so it
/// stands apart from what each request reads.
#[derive(Debug, Default)]
#[repr(align(64))]
pub struct Standing {
    /// Answers since the last comparison that were no errors.
    answers: AtomicU32,
    /// 5xx answers and failures since then, by the part of all clients that met them.
    errors: Errors,
    /// Left out until this time; 0 = never.
    ejected_until_ms: AtomicU64,
    /// How often it was left out lately.
    ejections: AtomicU32,
    /// When it came back; 0 = it never was away, or that is long ago.
    back_since_ms: AtomicU64,
}

#[derive(Debug)]
struct Errors([AtomicU32; PARTS]);

impl Default for Errors {
    fn default() -> Self {
        Self([const { AtomicU32::new(0) }; PARTS])
    }
}

impl Errors {
    fn count(&self, client: u64) {
        let part = usize::try_from(client % 64).unwrap_or(0);
        if let Some(errors) = self.0.get(part) {
            errors.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// The errors since the last call, of no part more than the third of them met: what one client or two meet beyond
    /// that may be of their own making.
    fn take(&self) -> u32 {
        let mut parts = [0; PARTS];
        for (part, errors) in parts.iter_mut().zip(&self.0) {
            *part = errors.swap(0, Ordering::Relaxed);
        }
        parts.sort_unstable_by(|one, other| other.cmp(one));
        let most = parts.get(CLIENTS - 1).copied().unwrap_or(0);
        parts
            .iter()
            .fold(0, |sum, errors| sum.saturating_add(most.min(*errors)))
    }
}

impl Standing {
    /// Counts an answer that is no error.
    pub fn answered(&self) {
        self.answers.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts an error that this client met.
    pub fn failed(&self, client: u64) {
        self.errors.count(client);
    }

    /// True while it is left out.
    pub fn is_ejected(&self, now_ms: u64) -> bool {
        now_ms < self.ejected_until_ms.load(Ordering::Relaxed)
    }

    /// It is back from now on: its share of requests grows from here.
    pub fn come_back(&self, now_ms: u64) {
        self.back_since_ms.store(now_ms.max(1), Ordering::Relaxed);
    }

    /// Whether a request with these even bits may be given to it, which becomes likelier over `slow_start`.
    pub fn takes(&self, now_ms: u64, slow_start: Duration, draw: u64) -> bool {
        let since = self.back_since_ms.load(Ordering::Relaxed);
        if since == 0 {
            return true;
        }
        let whole = millis(slow_start);
        let age = now_ms.saturating_sub(since);
        if age >= whole {
            // Another one may have brought it back meanwhile.
            let _ =
                self.back_since_ms
                    .compare_exchange(since, 0, Ordering::Relaxed, Ordering::Relaxed);
            return true;
        }
        let share = (age.saturating_mul(65_536) / whole).max(LEAST_SHARE);
        draw % 65_536 < share
    }

    /// The counts since the last call.
    fn take(&self) -> Tally {
        let errors = self.errors.take();
        let answers = self.answers.swap(0, Ordering::Relaxed);
        Tally {
            answers: answers.saturating_add(errors),
            errors,
        }
    }
}

#[derive(Clone, Copy, Debug, Default)]
struct Tally {
    answers: u32,
    errors: u32,
}

impl Tally {
    fn share(self) -> f64 {
        f64::from(self.errors) / f64::from(self.answers.max(1))
    }

    /// All the others of a whole.
    fn without(self, one: Self) -> Self {
        Self {
            answers: self.answers.saturating_sub(one.answers),
            errors: self.errors.saturating_sub(one.errors),
        }
    }
}

/// Leaves a server out, unless too many are out already. Returns for how long.
pub fn eject(
    cluster: &Cluster,
    endpoint: &Endpoint,
    cause: EjectionCause,
    now_ms: u64,
) -> Option<Duration> {
    let rules = cluster.outliers;
    let _one_at_a_time = cluster
        .ejecting
        .lock()
        .unwrap_or_else(PoisonError::into_inner);
    let out = cluster
        .endpoints
        .iter()
        .filter(|e| e.standing.is_ejected(now_ms))
        .count();
    let standing = &endpoint.standing;
    let too_many = (out + 1).saturating_mul(2) > cluster.endpoints.len();
    if rules.out.is_zero() || too_many || standing.is_ejected(now_ms) {
        return None;
    }
    let times = standing.ejections.fetch_add(1, Ordering::Relaxed);
    let time = rules
        .out
        .saturating_mul(1 << times.min(20))
        .min(rules.longest.max(rules.out));
    let until = now_ms.saturating_add(millis(time));
    standing.ejected_until_ms.store(until, Ordering::Relaxed);
    standing.come_back(until);
    cluster.metrics.ejected(cause);
    tracing::warn!(
        upstream = &*cluster.name,
        server = &*endpoint.name,
        cause = cause.as_str(),
        seconds = time.as_secs_f64(),
        "server is left out"
    );
    Some(time)
}

/// Compares the servers once with what they did since the last time.
fn compare(cluster: &Cluster, now_ms: u64) {
    let rules = cluster.outliers;
    let tallies: Vec<(&Arc<Endpoint>, Tally)> = cluster
        .endpoints
        .iter()
        .map(|endpoint| (endpoint, endpoint.standing.take()))
        .collect();
    let whole = tallies
        .iter()
        .fold(Tally::default(), |sum, (_, tally)| Tally {
            answers: sum.answers.saturating_add(tally.answers),
            errors: sum.errors.saturating_add(tally.errors),
        });
    for (endpoint, tally) in tallies {
        let peers = whole.without(tally);
        let known = tally.answers >= rules.requests && peers.answers >= rules.requests;
        if known && tally.share() - peers.share() > rules.margin {
            eject(cluster, endpoint, EjectionCause::Errors, now_ms);
        } else if !endpoint.standing.is_ejected(now_ms) {
            let fewer = |times: u32| times.checked_sub(1);
            let ejections = &endpoint.standing.ejections;
            let _ = ejections.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fewer);
        }
    }
}

/// Compares the servers of a cluster for as long as it is in use.
pub async fn watch(cluster: Weak<Cluster>) {
    while let Some(every) = Cluster::in_use(&cluster)
        .filter(|held| held.endpoints.len() > 1)
        .map(|held| held.outliers.every)
    {
        tokio::time::sleep(every).await;
        if let Some(held) = Cluster::in_use(&cluster) {
            compare(&held, clock::now_ms());
        }
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upstream::trial::cluster;

    const CAUSE: EjectionCause = EjectionCause::Failures;

    fn serve(endpoint: &Endpoint, answers: u64, errors: u64) {
        (0..answers).for_each(|_| endpoint.standing.answered());
        (0..errors).for_each(|client| endpoint.standing.failed(client));
    }

    fn out(cluster: &Cluster, now_ms: u64) -> Vec<usize> {
        let standings = cluster.endpoints.iter().enumerate();
        standings
            .filter(|(_, e)| e.standing.is_ejected(now_ms))
            .map(|(at, _)| at)
            .collect()
    }

    #[test]
    fn at_most_half_is_out_and_the_last_one_never() {
        for (count, most) in [(1, 0), (2, 1), (3, 1), (4, 2), (5, 2)] {
            let cluster = cluster(count);
            for endpoint in &cluster.endpoints {
                eject(&cluster, endpoint, CAUSE, 1_000);
            }
            assert_eq!(out(&cluster, 1_001).len(), most, "of {count}");
            assert!(out(&cluster, 31_000).is_empty());
        }
    }

    #[test]
    fn it_stays_out_longer_each_time_up_to_a_bound_and_good_days_count() {
        let cluster = cluster(2);
        let bad = &cluster.endpoints[0];
        let mut now = 1_000;
        let mut times = Vec::new();
        for _ in 0..6 {
            let time = eject(&cluster, bad, CAUSE, now).unwrap();
            assert!(
                eject(&cluster, bad, CAUSE, now).is_none(),
                "it is out already"
            );
            times.push(time.as_secs());
            now += millis(time);
        }
        assert_eq!(times, [30, 60, 120, 240, 300, 300]);
        (0..6).for_each(|_| compare(&cluster, now));
        assert_eq!(eject(&cluster, bad, CAUSE, now).unwrap().as_secs(), 30);
    }

    #[test]
    fn errors_of_one_server_alone_eject_it() {
        let cluster = cluster(3);
        serve(&cluster.endpoints[0], 40, 1);
        serve(&cluster.endpoints[1], 20, 20);
        serve(&cluster.endpoints[2], 40, 0);
        compare(&cluster, 1_000);
        assert_eq!(out(&cluster, 1_001), [1]);
    }

    #[test]
    fn errors_of_all_or_of_few_requests_eject_nobody() {
        for (bad, peers) in [
            ((20, 20), (20, 20)),
            ((0, 19), (100, 0)),
            ((0, 40), (10, 0)),
        ] {
            let cluster = cluster(2);
            serve(&cluster.endpoints[0], bad.0, bad.1);
            serve(&cluster.endpoints[1], peers.0, peers.1);
            compare(&cluster, 1_000);
            assert!(out(&cluster, 1_001).is_empty(), "{bad:?} {peers:?}");
        }
    }

    #[test]
    fn one_client_ejects_nobody_however_often_it_asks() {
        let cluster = cluster(2);
        (0..1_000).for_each(|_| cluster.endpoints[0].standing.failed(7));
        serve(&cluster.endpoints[1], 1_000, 0);
        compare(&cluster, 1_000);
        assert!(out(&cluster, 1_001).is_empty());
    }

    #[test]
    fn one_client_ejects_nobody_with_the_help_of_an_error_that_others_meet() {
        let cluster = cluster(2);
        (0..1_000).for_each(|_| cluster.endpoints[0].standing.failed(7));
        serve(&cluster.endpoints[0], 100, 3);
        serve(&cluster.endpoints[1], 1_000, 0);
        compare(&cluster, 1_000);
        assert!(out(&cluster, 1_001).is_empty());
    }

    #[test]
    fn the_share_of_one_that_is_back_grows_in_a_line() {
        let standing = Standing::default();
        standing.come_back(1_000);
        let slow_start = Duration::from_secs(10);
        let share = |now_ms| {
            let taken = (0..65_536).filter(|draw| standing.takes(now_ms, slow_start, *draw));
            taken.count() * 100 / 65_536
        };
        assert_eq!([1_000, 3_500, 6_000, 8_500].map(share), [5, 25, 50, 75]);
        assert_eq!(share(11_000), 100);
        assert_eq!(share(6_000), 100, "it is over");
        assert!(Standing::default().takes(0, Duration::ZERO, 65_535));
    }
}
