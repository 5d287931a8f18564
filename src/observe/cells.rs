//! Counters that workers write without meeting one another.
//!
//! For [`super::metrics`], and for whoever keeps counts of its own that a scrape reads. Every counter stands in a few shards; a thread writes one of them and a scrape adds them up,
//! so that a count on the request path is one uncontended addition. A shard is allocated when it is first written:
//! ten thousand routes that nobody calls cost a few hundred bytes each.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

const SHARDS: usize = 8;

/// Upper bounds of the duration buckets in seconds; one more bucket without a bound follows.
pub(super) const BOUNDS: [f64; 13] = [
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
];

const BOUNDS_NS: [u64; 13] = [
    1_000_000,
    2_500_000,
    5_000_000,
    10_000_000,
    25_000_000,
    50_000_000,
    100_000_000,
    250_000_000,
    500_000_000,
    1_000_000_000,
    2_500_000_000,
    5_000_000_000,
    10_000_000_000,
];

/// A row of counters of fixed length.
#[derive(Debug)]
pub struct Counters {
    len: usize,
    shards: [OnceLock<Box<[AtomicU64]>>; SHARDS],
}

impl Counters {
    /// So many counters, all at 0.
    pub const fn new(len: usize) -> Self {
        Self {
            len,
            shards: [const { OnceLock::new() }; SHARDS],
        }
    }

    /// Adds to one counter; an index beyond the row is nothing.
    pub fn add(&self, index: usize, count: u64) {
        if let Some(counter) = self.own_shard().get(index) {
            counter.fetch_add(count, Ordering::Relaxed);
        }
    }

    /// The sum of one counter over all shards.
    pub fn sum(&self, index: usize) -> u64 {
        let shards = self.shards.iter().filter_map(OnceLock::get);
        shards
            .filter_map(|shard| shard.get(index))
            .map(|counter| counter.load(Ordering::Relaxed))
            .fold(0, u64::wrapping_add)
    }

    /// Whether anything was ever counted.
    pub(super) fn is_touched(&self) -> bool {
        self.shards.iter().any(|shard| shard.get().is_some())
    }

    fn own_shard(&self) -> &[AtomicU64] {
        let shard = SHARD.with(|shard| *shard);
        let row = || (0..self.len).map(|_| AtomicU64::new(0)).collect();
        self.shards
            .get(shard)
            .map_or(&[], |cell| cell.get_or_init(row))
    }
}

thread_local! {
    static SHARD: usize = {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        NEXT.fetch_add(1, Ordering::Relaxed) % SHARDS
    };
}

/// A histogram of durations over [`BOUNDS`], and as many further counters beside it: what is counted together is found
/// together, which counts where each of many routes is asked for now and then.
#[derive(Debug)]
pub(super) struct Durations {
    /// One counter a bucket, the unbounded one, the sum in nanoseconds, the further ones.
    cells: Counters,
}

const SUM: usize = BOUNDS.len() + 1;

impl Durations {
    pub(super) const fn new() -> Self {
        Self::beside(0)
    }

    /// A histogram beside that many further counters.
    pub(super) const fn beside(further: usize) -> Self {
        Self {
            cells: Counters::new(SUM + 1 + further),
        }
    }

    pub(super) fn observe(&self, duration: Duration) {
        self.count(duration, None);
    }

    /// The same, and one more in a counter beside it; an index beyond them is nothing.
    pub(super) fn observe_with(&self, duration: Duration, further: usize) {
        self.count(duration, Some(further));
    }

    /// The sum of a counter beside it over all shards.
    pub(super) fn further(&self, index: usize) -> u64 {
        self.cells.sum(SUM + 1 + index)
    }

    fn count(&self, duration: Duration, further: Option<usize>) {
        let ns = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        let bucket = BOUNDS_NS
            .iter()
            .position(|bound| ns <= *bound)
            .unwrap_or(BOUNDS.len());
        let cells = self.cells.own_shard();
        if let (Some(bucket), Some(sum)) = (cells.get(bucket), cells.get(SUM)) {
            bucket.fetch_add(1, Ordering::Relaxed);
            sum.fetch_add(ns, Ordering::Relaxed);
        }
        if let Some(counter) = further.and_then(|index| cells.get(SUM + 1 + index)) {
            counter.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Sum in seconds, count, and the buckets with their bounds, not cumulated.
    pub(super) fn read(&self) -> (f64, u64, Vec<(f64, u64)>) {
        let bounds = BOUNDS.into_iter().chain([f64::INFINITY]);
        let buckets: Vec<_> = bounds
            .enumerate()
            .map(|(index, bound)| (bound, self.cells.sum(index)))
            .collect();
        let count = buckets.iter().map(|(_, count)| count).sum();
        let sum = Duration::from_nanos(self.cells.sum(SUM)).as_secs_f64();
        (sum, count, buckets)
    }

    pub(super) fn is_touched(&self) -> bool {
        self.cells.is_touched()
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    #[test]
    fn counts_of_all_threads_add_up() {
        let counters = Counters::new(3);
        assert!(!counters.is_touched());
        thread::scope(|scope| {
            for _ in 0..12 {
                scope.spawn(|| {
                    for _ in 0..1000 {
                        counters.add(1, 1);
                        counters.add(9, 1);
                    }
                });
            }
        });
        assert_eq!(
            [0, 1, 2, 9].map(|index| counters.sum(index)),
            [0, 12_000, 0, 0]
        );
    }

    #[test]
    fn a_duration_falls_into_the_bucket_whose_bound_it_does_not_pass() {
        let durations = Durations::new();
        for ms in [1, 2, 2, 10_000, 10_001] {
            durations.observe(Duration::from_millis(ms));
        }
        let (sum, count, buckets) = durations.read();
        assert!((sum - 20.006).abs() < 1e-9);
        assert_eq!(count, 5);
        let filled: Vec<_> = buckets
            .into_iter()
            .filter(|(_, count)| *count > 0)
            .collect();
        assert_eq!(
            filled,
            [(0.001, 1), (0.0025, 2), (10.0, 1), (f64::INFINITY, 1)]
        );
    }

    #[test]
    fn counters_beside_a_histogram_are_no_part_of_it() {
        let durations = Durations::beside(2);
        durations.observe_with(Duration::from_millis(3), 1);
        durations.observe_with(Duration::from_millis(3), 2);
        durations.observe(Duration::from_millis(3));
        let (_, count, _) = durations.read();
        assert_eq!(
            [count, durations.further(0), durations.further(1)],
            [3, 0, 1]
        );
    }

    #[test]
    fn both_forms_of_the_bounds_agree() {
        for (seconds, ns) in BOUNDS.into_iter().zip(BOUNDS_NS) {
            assert_eq!(Duration::from_secs_f64(seconds), Duration::from_nanos(ns));
        }
    }
}
