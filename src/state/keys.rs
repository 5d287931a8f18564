//! A value fetched from elsewhere and kept fresh: key sets of issuers outlive a reload here.
//!
//! Generic on purpose: it knows neither keys nor HTTP. It promises that any number of callers cause one fetch at a time,
//! that two fetches stand at least `floor` apart, that a failed fetch keeps the last good value until it is too old, and
//! that the version number changes exactly when the value does.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::clock::unix_seconds;

use arc_swap::ArcSwapOption;
use tokio::sync::Mutex;

/// A value and the number of its version, 1 for the first.
#[derive(Debug)]
pub struct Versioned<T> {
    /// The value.
    pub value: T,
    /// Rises by one whenever a different value arrives.
    pub version: u64,
}

/// How often to fetch and how long to trust what was fetched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    /// The least time between the starts of two fetches.
    pub floor: Duration,
    /// The same while there is no value yet: a start before the other side is up should heal soon.
    pub first_floor: Duration,
    /// How long a value may be used after the last fetch that confirmed it.
    pub stale: Duration,
}

/// What came of asking for a newer value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refresh {
    /// A value with a version other than the one seen is there now.
    Newer,
    /// Fetched; nothing new in it.
    Unchanged,
    /// The fetch failed; the last good value stays.
    Failed,
    /// Not asked, since the last fetch began less than the floor ago; ask again after this long.
    TooSoon(Duration),
}

/// A value kept fresh, shared by all workers.
#[derive(Debug)]
pub struct Refreshed<T> {
    held: ArcSwapOption<Versioned<T>>,
    version: AtomicU64,
    /// Unix second from which on the value is too old to be used.
    stale_at: AtomicU64,
    pace: Pace,
    /// Held during a fetch. Its content: when the last fetch began. An async lock of tokio works across runtimes.
    flight: Arc<Mutex<Option<Instant>>>,
}

impl<T: PartialEq + Send + Sync + 'static> Refreshed<T> {
    /// Nothing held yet.
    pub fn new(pace: Pace) -> Arc<Self> {
        Arc::new(Self {
            held: ArcSwapOption::empty(),
            version: AtomicU64::new(0),
            stale_at: AtomicU64::new(0),
            pace,
            flight: Arc::new(Mutex::new(None)),
        })
    }

    /// The version that may be used at `now` (Unix seconds), if any. Two atomic loads: for the hot path.
    pub fn version(&self, now: u64) -> Option<u64> {
        let version = self.version.load(Ordering::Acquire);
        (version != 0 && now < self.stale_at.load(Ordering::Acquire)).then_some(version)
    }

    /// The version held, however old.
    pub fn latest(&self) -> Option<u64> {
        Some(self.version.load(Ordering::Acquire)).filter(|version| *version != 0)
    }

    /// The value that may be used at `now`, if any.
    pub fn current(&self, now: u64) -> Option<Arc<Versioned<T>>> {
        self.version(now)?;
        self.held.load_full()
    }

    /// The least time between two fetches, as things stand.
    pub fn floor(&self) -> Duration {
        if self.latest().is_some() {
            self.pace.floor
        } else {
            self.pace.first_floor.min(self.pace.floor)
        }
    }

    /// Holds `value` as confirmed at `now`; true when it differs from the one before.
    ///
    /// Meant for one writer at a time: the fetch in flight, or the owner of a value that is never fetched.
    pub fn put(&self, value: T, now: u64) -> bool {
        let unchanged = self
            .held
            .load()
            .as_ref()
            .is_some_and(|held| held.value == value);
        if !unchanged {
            let version = self.version.load(Ordering::Acquire) + 1;
            self.held
                .store(Some(Arc::new(Versioned { value, version })));
            self.version.store(version, Ordering::Release);
        }
        self.stale_at.store(
            now.saturating_add(self.pace.stale.as_secs()),
            Ordering::Release,
        );
        !unchanged
    }

    /// Brings a newer value than version `seen` (`None`: than nothing), by one `fetch` for all who wait.
    ///
    /// The fetch runs as a task of the caller's runtime, so a caller that goes away does not waste it. It gives `None` when
    /// it failed; its cause is for the fetcher to report.
    pub async fn refresh<F, Fut>(self: &Arc<Self>, seen: Option<u64>, fetch: F) -> Refresh
    where
        F: FnOnce() -> Fut,
        Fut: Future<Output = Option<T>> + Send + 'static,
    {
        let mut flight = Arc::clone(&self.flight).lock_owned().await;
        if self.latest() != seen {
            return Refresh::Newer;
        }
        if let Some(wait) = flight.and_then(|last| self.floor().checked_sub(last.elapsed())) {
            return Refresh::TooSoon(wait);
        }
        *flight = Some(Instant::now());
        let (this, fetching) = (Arc::clone(self), fetch());
        let task = tokio::spawn(async move {
            let outcome = match fetching.await.map(|value| this.put(value, unix_seconds())) {
                Some(true) => Refresh::Newer,
                Some(false) => Refresh::Unchanged,
                None => Refresh::Failed,
            };
            drop(flight);
            outcome
        });
        // A join error means that the fetch panicked or its runtime ended: either way nothing was fetched.
        task.await.unwrap_or(Refresh::Failed)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::time::Duration;

    use super::{Pace, Refresh, Refreshed};
    use crate::state::clock::unix_seconds;

    const PACE: Pace = Pace {
        floor: Duration::from_secs(30),
        first_floor: Duration::from_secs(5),
        stale: Duration::from_hours(24),
    };

    #[test]
    fn the_version_changes_with_the_value_only() {
        let kept = Refreshed::new(PACE);
        assert_eq!(kept.version(0), None);
        assert!(kept.put("a", 1000));
        assert_eq!(kept.version(1000), Some(1));
        assert!(!kept.put("a", 2000));
        assert_eq!(kept.version(2000), Some(1));
        assert!(kept.put("b", 2000));
        assert_eq!(kept.version(2000), Some(2));
    }

    #[test]
    fn a_value_is_good_until_the_stale_limit_and_not_a_second_longer() {
        let kept = Refreshed::new(PACE);
        kept.put("a", 1000);
        assert!(kept.current(1000 + 86_399).is_some());
        assert!(kept.current(1000 + 86_400).is_none());
    }

    #[tokio::test]
    async fn many_waiters_cause_one_fetch() {
        let kept = Refreshed::new(PACE);
        let fetches = Arc::new(AtomicU32::new(0));
        let waiters: Vec<_> = (0..1000)
            .map(|_| {
                let (kept, fetches) = (Arc::clone(&kept), Arc::clone(&fetches));
                tokio::spawn(async move {
                    kept.refresh(None, || async move {
                        fetches.fetch_add(1, Ordering::Relaxed);
                        tokio::task::yield_now().await;
                        Some("a")
                    })
                    .await
                })
            })
            .collect();
        for waiter in waiters {
            assert_eq!(waiter.await.unwrap(), Refresh::Newer);
        }
        assert_eq!(fetches.load(Ordering::Relaxed), 1);
        assert!(matches!(
            kept.refresh(Some(1), || async { Some("b") }).await,
            Refresh::TooSoon(_)
        ));
    }

    #[tokio::test]
    async fn a_failed_fetch_keeps_the_value_and_the_floor_holds() {
        let kept = Refreshed::new(PACE);
        kept.put("a", unix_seconds());
        assert_eq!(
            kept.refresh(Some(1), || async { None }).await,
            Refresh::Failed
        );
        assert!(
            kept.current(unix_seconds())
                .is_some_and(|held| held.value == "a")
        );
        assert!(matches!(
            kept.refresh(Some(1), || async { Some("b") }).await,
            Refresh::TooSoon(_)
        ));
    }

    #[tokio::test]
    async fn a_caller_that_goes_away_does_not_waste_the_fetch() {
        let kept = Refreshed::new(PACE);
        let (open, gate) = tokio::sync::oneshot::channel::<()>();
        let caller = {
            let kept = Arc::clone(&kept);
            tokio::spawn(async move {
                kept.refresh(None, || async move { gate.await.ok().map(|()| "a") })
                    .await
            })
        };
        tokio::task::yield_now().await;
        caller.abort();
        open.send(()).unwrap();
        assert_eq!(kept.refresh(None, || async { None }).await, Refresh::Newer);
    }

    #[test]
    fn waiters_on_several_runtimes_share_one_fetch() {
        let kept = Refreshed::new(PACE);
        let fetches = Arc::new(AtomicU32::new(0));
        let workers: Vec<_> = (0..4)
            .map(|_| {
                let (kept, fetches) = (Arc::clone(&kept), Arc::clone(&fetches));
                std::thread::spawn(move || {
                    let runtime = tokio::runtime::Builder::new_current_thread()
                        .enable_all()
                        .build()
                        .unwrap();
                    runtime.block_on(kept.refresh(None, || async move {
                        fetches.fetch_add(1, Ordering::Relaxed);
                        tokio::time::sleep(Duration::from_millis(50)).await;
                        Some("a")
                    }))
                })
            })
            .collect();
        for worker in workers {
            assert_eq!(worker.join().unwrap(), Refresh::Newer);
        }
        assert_eq!(fetches.load(Ordering::Relaxed), 1);
    }
}
