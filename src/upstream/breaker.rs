//! The circuit breaker of one endpoint: a pure state machine that takes `now`.
//!
//! Closed until `failures` come in a row, then open for a while; after that exactly one probe at a time may pass
//! (half-open). A success closes it, a failed probe opens it again. Time is milliseconds of one monotonic clock.
//!
//! A failure before anything was sent says that the server is gone. One after that may be the work of the request
//! itself, such as a page that takes too long or ends the process: it counts once a client, and that client is not
//! the next probe, so that nobody can take a server away from all others by requests of his own.

use std::{
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
    time::Duration,
};

/// Clients remembered in a row of failures; beyond them every failure counts.
const SUSPECTS: usize = 64;
/// What a request is told that comes beside a probe.
const BESIDE_A_PROBE: Duration = Duration::from_secs(1);

/// When to open and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BreakerRules {
    /// Failures in a row that open the breaker; 0 never opens it.
    pub failures: u32,
    /// How long it stays open before one probe may pass.
    pub open: Duration,
}

/// The state shared by all workers.
#[derive(Debug)]
pub struct Breaker {
    rules: BreakerRules,
    failures: AtomicU32,
    /// 0 = closed; else no request passes before this time.
    open_until_ms: AtomicU64,
    /// 0 = nobody probes; else another probe may pass at this time.
    claimed_until_ms: AtomicU64,
    /// Whose requests failed after they were sent, in the row of failures that counts now.
    suspects: Mutex<Vec<u64>>,
}

/// The claim of the one probe: given up when it drops.
#[derive(Debug)]
pub struct Probe<'a> {
    breaker: &'a Breaker,
    claim: u64,
}

impl Drop for Probe<'_> {
    fn drop(&mut self) {
        // A claim that has lapsed may be another's by now.
        let _ = self.breaker.claimed_until_ms.compare_exchange(
            self.claim,
            0,
            Ordering::AcqRel,
            Ordering::Relaxed,
        );
    }
}

impl Breaker {
    /// A closed breaker.
    pub fn new(rules: BreakerRules) -> Self {
        Self {
            rules,
            failures: AtomicU32::new(0),
            open_until_ms: AtomicU64::new(0),
            claimed_until_ms: AtomicU64::new(0),
            suspects: Mutex::new(Vec::new()),
        }
    }

    /// Lets a request pass, as a probe where the breaker is half-open, or says how long to wait. A probe that has no
    /// verdict within `claim` makes room for another one.
    ///
    /// # Errors
    /// The time until the next probe may pass, at least one second.
    pub fn admit(
        &self,
        now_ms: impl FnOnce() -> u64,
        client: impl FnOnce() -> u64,
        claim: Duration,
    ) -> Result<Option<Probe<'_>>, Duration> {
        let until = self.open_until_ms.load(Ordering::Acquire);
        if until == 0 {
            return Ok(None);
        }
        let now_ms = now_ms();
        if now_ms < until {
            return Err(Duration::from_millis(until - now_ms).max(BESIDE_A_PROBE));
        }
        // The others go first; where there are none, a suspect is better than nobody.
        if now_ms < until.saturating_add(self.open_ms()) && self.suspects().contains(&client()) {
            return Err(BESIDE_A_PROBE);
        }
        let claimed = self.claimed_until_ms.load(Ordering::Acquire);
        if now_ms < claimed {
            return Err(BESIDE_A_PROBE);
        }
        let claim = now_ms.saturating_add(millis(claim)).max(1);
        self.claimed_until_ms
            .compare_exchange(claimed, claim, Ordering::AcqRel, Ordering::Acquire)
            .map_err(|_| BESIDE_A_PROBE)?;
        let probe = Probe {
            breaker: self,
            claim,
        };
        match self.open_until_ms.load(Ordering::Acquire) {
            0 => Ok(None),
            now if now == until => Ok(Some(probe)),
            // The verdict of the probe before came in between.
            _ => Err(BESIDE_A_PROBE),
        }
    }

    /// The endpoint answered. Returns true when that closed the breaker.
    pub fn success(&self) -> bool {
        if self.failures.load(Ordering::Relaxed) != 0 {
            self.failures.store(0, Ordering::Relaxed);
            self.suspects().clear();
        }
        self.open_until_ms.load(Ordering::Relaxed) != 0
            && self.open_until_ms.swap(0, Ordering::AcqRel) != 0
    }

    /// The endpoint failed: before anything was sent, or after a request of this client. Returns true when that opened
    /// the breaker.
    pub fn failure(&self, now_ms: u64, client: Option<u64>) -> bool {
        if self.rules.failures == 0 || client.is_some_and(|client| !self.suspect(client)) {
            return false;
        }
        let failures = self
            .failures
            .fetch_add(1, Ordering::AcqRel)
            .saturating_add(1);
        if failures < self.rules.failures {
            return false;
        }
        let until = now_ms.saturating_add(self.open_ms()).max(1);
        self.open_until_ms.swap(until, Ordering::AcqRel) <= now_ms
    }

    /// True while requests are refused, also because another one probes.
    pub fn is_open(&self, now_ms: u64) -> bool {
        let until = self.open_until_ms.load(Ordering::Acquire);
        until != 0 && (now_ms < until || now_ms < self.claimed_until_ms.load(Ordering::Acquire))
    }

    /// Notes a client; false when it was known.
    fn suspect(&self, client: u64) -> bool {
        let mut suspects = self.suspects();
        if suspects.contains(&client) {
            return false;
        }
        if suspects.len() < SUSPECTS {
            suspects.push(client);
        }
        true
    }

    fn suspects(&self) -> std::sync::MutexGuard<'_, Vec<u64>> {
        self.suspects.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn open_ms(&self) -> u64 {
        millis(self.rules.open)
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLAIM: Duration = Duration::from_secs(30);

    fn breaker() -> Breaker {
        Breaker::new(BreakerRules {
            failures: 3,
            open: Duration::from_secs(10),
        })
    }

    fn opened() -> Breaker {
        let breaker = breaker();
        (0..3).for_each(|_| {
            breaker.failure(0, None);
        });
        breaker
    }

    fn passes(breaker: &Breaker, now_ms: u64) -> bool {
        breaker.admit(|| now_ms, || 99, CLAIM).is_ok()
    }

    #[test]
    fn opens_after_failures_in_a_row_only() {
        let breaker = breaker();
        assert!(!breaker.failure(0, None) && !breaker.failure(0, None));
        assert!(!breaker.success());
        assert!(!breaker.failure(0, None) && !breaker.failure(0, None));
        assert!(passes(&breaker, 1));
        assert!(breaker.failure(5, None));
        assert!(!breaker.failure(5, None), "it is open already");
        let wait = breaker.admit(|| 5, || 0, CLAIM).err();
        assert_eq!(wait, Some(Duration::from_secs(10)));
        assert!(breaker.is_open(5));
    }

    #[test]
    fn one_probe_at_a_time_passes_however_long_it_takes() {
        let breaker = opened();
        let probe = breaker.admit(|| 10_000, || 0, CLAIM).unwrap();
        assert!(probe.is_some());
        for now in [10_000, 10_001, 21_000, 39_999] {
            assert!(!passes(&breaker, now), "beside the probe at {now}");
            assert!(breaker.is_open(now));
        }
        assert!(breaker.success());
        drop(probe);
        assert!(passes(&breaker, 10_002) && passes(&breaker, 10_002));
    }

    #[test]
    fn a_probe_without_a_verdict_makes_room() {
        let breaker = opened();
        let left = breaker.admit(|| 10_000, || 0, CLAIM).unwrap();
        drop(left);
        let slow = breaker.admit(|| 10_001, || 0, CLAIM).unwrap();
        assert!(slow.is_some());
        let next = breaker.admit(|| 40_001, || 0, CLAIM).unwrap();
        assert!(next.is_some(), "the claim has lapsed");
        drop(slow);
        assert!(!passes(&breaker, 40_002), "a lapsed claim frees no other's");
    }

    #[test]
    fn a_failed_probe_opens_it_again() {
        let breaker = opened();
        let probe = breaker.admit(|| 10_000, || 0, CLAIM).unwrap();
        assert!(breaker.failure(10_500, None));
        drop(probe);
        assert!(!passes(&breaker, 20_000));
        assert!(passes(&breaker, 20_500));
    }

    #[test]
    fn one_client_cannot_open_it_by_requests_of_its_own() {
        let breaker = breaker();
        for now in 0..100 {
            assert!(!breaker.failure(now, Some(7)));
        }
        assert!(passes(&breaker, 100));
        assert!(!breaker.failure(100, Some(8)));
        assert!(breaker.failure(100, Some(9)), "three clients can");
        // After a success, the row begins anew.
        assert!(breaker.success());
        assert!(!breaker.failure(100, Some(7)) && !breaker.failure(100, Some(8)));
        assert!(breaker.failure(100, Some(9)));
    }

    #[test]
    fn a_suspect_is_the_probe_only_where_nobody_else_is() {
        let breaker = breaker();
        for client in [7, 8, 9] {
            breaker.failure(0, Some(client));
        }
        assert!(breaker.admit(|| 10_000, || 7, CLAIM).is_err());
        let other = breaker.admit(|| 10_000, || 1, CLAIM).unwrap();
        assert!(other.is_some());
        drop(other);
        let suspect = breaker.admit(|| 20_000, || 7, CLAIM).unwrap();
        assert!(suspect.is_some());
        assert!(!breaker.failure(20_001, Some(7)), "counted before");
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let breaker = Breaker::new(BreakerRules {
            failures: 1_000_000,
            open: Duration::from_secs(10),
        });
        (0..10_000).for_each(|client| {
            breaker.failure(0, Some(client));
        });
        assert_eq!(breaker.suspects().len(), SUSPECTS);
        assert_eq!(breaker.failures.load(Ordering::Relaxed), 10_000);
    }

    #[test]
    fn zero_failures_never_opens() {
        let breaker = Breaker::new(BreakerRules {
            failures: 0,
            open: Duration::from_secs(10),
        });
        for _ in 0..100 {
            assert!(!breaker.failure(0, None));
        }
        assert!(passes(&breaker, 0));
    }
}
