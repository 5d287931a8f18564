//! The circuit breaker of one endpoint: a pure state machine that takes `now`.
//!
//! Closed until `failures` come in a row, then open for a while; after that one probe at a time may pass
//! (half-open). A success closes it, a failed probe opens it again. Time is milliseconds of one monotonic clock.

use std::{
    sync::atomic::{AtomicU32, AtomicU64, Ordering},
    time::Duration,
};

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
}

impl Breaker {
    /// A closed breaker.
    pub fn new(rules: BreakerRules) -> Self {
        Self {
            rules,
            failures: AtomicU32::new(0),
            open_until_ms: AtomicU64::new(0),
        }
    }

    /// Lets a request pass, or says how long to wait.
    ///
    /// # Errors
    /// The time until the next probe may pass, at least one second.
    pub fn admit(&self, now_ms: impl FnOnce() -> u64) -> Result<(), Duration> {
        let until = self.open_until_ms.load(Ordering::Acquire);
        if until == 0 {
            return Ok(());
        }
        let now_ms = now_ms();
        if now_ms < until {
            return Err(Duration::from_millis(until - now_ms).max(Duration::from_secs(1)));
        }
        // Half-open: whoever moves the mark is the probe; the others wait another round.
        let next = now_ms.saturating_add(self.open_ms());
        match self
            .open_until_ms
            .compare_exchange(until, next, Ordering::AcqRel, Ordering::Acquire)
        {
            Ok(_) => Ok(()),
            Err(_) => Err(Duration::from_secs(1)),
        }
    }

    /// The endpoint answered.
    pub fn success(&self) {
        if self.failures.load(Ordering::Relaxed) != 0 {
            self.failures.store(0, Ordering::Relaxed);
        }
        if self.open_until_ms.load(Ordering::Relaxed) != 0 {
            self.open_until_ms.store(0, Ordering::Release);
        }
    }

    /// The endpoint failed.
    pub fn failure(&self, now_ms: u64) {
        let failures = self
            .failures
            .fetch_add(1, Ordering::AcqRel)
            .saturating_add(1);
        if self.rules.failures != 0 && failures >= self.rules.failures {
            let until = now_ms.saturating_add(self.open_ms()).max(1);
            self.open_until_ms.store(until, Ordering::Release);
        }
    }

    /// True while requests are refused.
    pub fn is_open(&self, now_ms: impl FnOnce() -> u64) -> bool {
        let until = self.open_until_ms.load(Ordering::Acquire);
        until != 0 && now_ms() < until
    }

    fn open_ms(&self) -> u64 {
        u64::try_from(self.rules.open.as_millis()).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn breaker() -> Breaker {
        Breaker::new(BreakerRules {
            failures: 3,
            open: Duration::from_secs(10),
        })
    }

    #[test]
    fn opens_after_failures_in_a_row_only() {
        let breaker = breaker();
        breaker.failure(0);
        breaker.failure(0);
        breaker.success();
        breaker.failure(0);
        breaker.failure(0);
        assert!(breaker.admit(|| 1).is_ok());
        breaker.failure(5);
        assert_eq!(breaker.admit(|| 5), Err(Duration::from_secs(10)));
        assert!(breaker.is_open(|| 5));
    }

    #[test]
    fn half_open_lets_one_probe_pass_and_a_success_closes_it() {
        let breaker = breaker();
        (0..3).for_each(|_| breaker.failure(0));
        assert!(breaker.admit(|| 10_000).is_ok());
        assert!(breaker.admit(|| 10_001).is_err());
        breaker.success();
        assert!(breaker.admit(|| 10_002).is_ok());
    }

    #[test]
    fn a_failed_probe_opens_it_again() {
        let breaker = breaker();
        (0..3).for_each(|_| breaker.failure(0));
        assert!(breaker.admit(|| 10_000).is_ok());
        breaker.failure(10_500);
        assert!(breaker.admit(|| 20_000).is_err());
        assert!(breaker.admit(|| 20_500).is_ok());
    }

    #[test]
    fn zero_failures_never_opens() {
        let breaker = Breaker::new(BreakerRules {
            failures: 0,
            open: Duration::from_secs(10),
        });
        (0..100).for_each(|_| breaker.failure(0));
        assert!(breaker.admit(|| 0).is_ok());
    }
}
