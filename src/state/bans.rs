//! Who failed to prove who they are, how often, and who is banned for it: a table of fixed size that all workers share.
//!
//! For the policy `ban`. Failures are counted in a window that starts with the first; as many as the rules allow, and a
//! ban begins, each twice as long as the one before. A client that was quiet long enough starts anew.
//!
//! The table is set-associative: a key belongs to one set of eight ways. In a full set a newcomer takes the way of the
//! client that is not banned and has the fewest bans and failures behind it. **A ban is never given up for a newcomer**:
//! where all eight ways of a set are banned, the newcomer's failures go uncounted until one of these bans ends. Keys are
//! hashed with a secret, so nobody can aim at a set. Both cases are counted.
//!
//! The rules come with each call, so a reload that changes them ends no ban. It reads no clock and makes no keys.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

/// How many clients with failures are remembered, when the table is at most half full.
pub const CAPACITY: usize = 100_000;

const WAYS: usize = 8;
const SETS_PER_SEGMENT: usize = 32;
/// The key of a way that nobody has taken.
const EMPTY: u64 = 0;
/// The least time between two lines of the log.
const TELL_NS: u64 = 1_000_000_000;

/// When a ban begins, and how long it lasts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules {
    /// Failures that a ban begins with; zero is read as one.
    pub failures: u32,
    /// The time in which they must come.
    pub window: Duration,
    /// Length of the first ban; each further one is twice as long.
    pub first: Duration,
    /// Length of the longest.
    pub longest: Duration,
    /// How long after a ban a client must not fail to be as good as new.
    pub quiet: Duration,
}

/// What there is to say of the table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reading {
    /// Clients whose failures are remembered, the banned ones among them.
    pub remembered: u64,
    /// Clients that are banned now.
    pub banned: u64,
    /// Bans that have begun.
    pub begun: u64,
    /// Clients that a full set forgot, or whose failure it did not count.
    pub evictions: u64,
}

/// The failures and bans of all clients. Times are monotonic nanoseconds.
#[derive(Debug)]
pub struct Bans {
    /// Allocated when first written: a gate that nobody attacks has its directory only.
    segments: Box<[OnceLock<Box<Segment>>]>,
    set_mask: u64,
    /// When the last of all bans ends. Requests that come later need not look for theirs.
    last_end: AtomicU64,
    begun: AtomicU64,
    evictions: AtomicU64,
    told: AtomicU64,
    untold: AtomicU64,
}

type Segment = [Mutex<Set>; SETS_PER_SEGMENT];
type Set = [Entry; WAYS];

#[derive(Clone, Copy, Debug)]
struct Entry {
    key: u64,
    window_end: u64,
    /// When the ban ends, or ended.
    ban_end: u64,
    /// From when on the entry says nothing any more.
    stale_at: u64,
    failures: u32,
    /// Bans so far.
    bans: u32,
}

const NOBODY: Entry = Entry {
    key: EMPTY,
    window_end: 0,
    ban_end: 0,
    stale_at: 0,
    failures: 0,
    bans: 0,
};

impl Default for Bans {
    /// An empty table for [`CAPACITY`] clients.
    fn default() -> Self {
        Self::new(CAPACITY)
    }
}

impl Bans {
    /// An empty table that holds `capacity` clients when at most half full, in up to 110 bytes a client.
    pub fn new(capacity: usize) -> Self {
        let sets = capacity.max(1).saturating_mul(2).div_ceil(WAYS);
        let sets = sets.clamp(SETS_PER_SEGMENT, 1 << 28).next_power_of_two();
        Self {
            segments: (0..sets / SETS_PER_SEGMENT)
                .map(|_| OnceLock::new())
                .collect(),
            set_mask: u64::try_from(sets - 1).unwrap_or(u64::MAX),
            last_end: AtomicU64::new(0),
            begun: AtomicU64::new(0),
            evictions: AtomicU64::new(0),
            told: AtomicU64::new(0),
            untold: AtomicU64::new(0),
        }
    }

    /// Whether anybody at all may be banned.
    pub fn any(&self, now_ns: u64) -> bool {
        now_ns < self.last_end.load(Ordering::Acquire)
    }

    /// How long the client is still banned; `None` when it is not.
    pub fn left(&self, key: u64, now_ns: u64) -> Option<Duration> {
        if !self.any(now_ns) {
            return None;
        }
        let key = named(key);
        let set = lock(self.segment(key)?.get(way_of_set(self.index(key)))?);
        let entry = set.iter().find(|entry| entry.key == key)?;
        let left = entry.ban_end.checked_sub(now_ns).filter(|left| *left > 0)?;
        Some(Duration::from_nanos(left))
    }

    /// Counts a failure. Gives the length of the ban that begins with it, if one does.
    pub fn fail(&self, key: u64, rules: &Rules, now_ns: u64) -> Option<Duration> {
        let key = named(key);
        let index = self.index(key);
        let segment = self.segments.get(index / SETS_PER_SEGMENT)?;
        let segment = segment
            .get_or_init(|| Box::new([const { Mutex::new([NOBODY; WAYS]) }; SETS_PER_SEGMENT]));
        let mut set = lock(segment.get(way_of_set(index))?);
        let entry = self.way(&mut set, key, now_ns)?;
        let length = entry.fail(rules, now_ns)?;
        self.last_end.fetch_max(entry.ban_end, Ordering::AcqRel);
        self.begun.fetch_add(1, Ordering::Relaxed);
        Some(length)
    }

    /// Whether a ban may be told of in the log now, at most one in a second, with the number of those that were not.
    pub fn may_tell(&self, now_ns: u64) -> Option<u64> {
        let told = self.told.load(Ordering::Relaxed);
        let due = told == 0 || now_ns.saturating_sub(told) >= TELL_NS;
        let (order, lost) = (Ordering::Relaxed, Ordering::Relaxed);
        if due
            && self
                .told
                .compare_exchange(told, now_ns, order, lost)
                .is_ok()
        {
            return Some(self.untold.swap(0, Ordering::Relaxed));
        }
        self.untold.fetch_add(1, Ordering::Relaxed);
        None
    }

    /// Counts what the table holds: a walk over all of it, for a scrape.
    pub fn reading(&self, now_ns: u64) -> Reading {
        let mut reading = Reading {
            begun: self.begun.load(Ordering::Relaxed),
            evictions: self.evictions.load(Ordering::Relaxed),
            ..Reading::default()
        };
        let segments = self.segments.iter().filter_map(OnceLock::get);
        for set in segments.flat_map(|segment| segment.iter()) {
            for entry in lock(set).iter().filter(|entry| !entry.is_free(now_ns)) {
                reading.remembered += 1;
                reading.banned += u64::from(entry.is_banned(now_ns));
            }
        }
        reading
    }

    /// Bytes that the table takes once every part of it has been written.
    pub fn memory_bound(&self) -> usize {
        size_of_val(&*self.segments) + self.segments.len() * size_of::<Segment>()
    }

    /// The way of the key, its own or one that it may have.
    fn way<'a>(&self, set: &'a mut Set, key: u64, now_ns: u64) -> Option<&'a mut Entry> {
        if let Some(own) = set.iter().position(|entry| entry.key == key) {
            return set.get_mut(own);
        }
        let open = set.iter_mut().filter(|entry| !entry.is_banned(now_ns));
        let Some(victim) = open.min_by_key(|entry| entry.worth(now_ns)) else {
            self.evictions.fetch_add(1, Ordering::Relaxed);
            return None;
        };
        if !victim.is_free(now_ns) {
            self.evictions.fetch_add(1, Ordering::Relaxed);
        }
        *victim = Entry { key, ..NOBODY };
        Some(victim)
    }

    fn segment(&self, key: u64) -> Option<&Segment> {
        let segment = self.segments.get(self.index(key) / SETS_PER_SEGMENT)?;
        segment.get().map(|segment| &**segment)
    }

    fn index(&self, key: u64) -> usize {
        // The upper half picks the set, see the limiter.
        usize::try_from((key >> 32) & self.set_mask).unwrap_or(0)
    }
}

impl Entry {
    fn is_banned(&self, now_ns: u64) -> bool {
        now_ns < self.ban_end
    }

    fn is_free(&self, now_ns: u64) -> bool {
        self.key == EMPTY || now_ns >= self.stale_at
    }

    /// The least is given up first.
    fn worth(&self, now_ns: u64) -> (bool, u32, u32, u64) {
        let counts = !self.is_free(now_ns);
        (counts, self.bans, self.failures, self.window_end)
    }

    fn fail(&mut self, rules: &Rules, now_ns: u64) -> Option<Duration> {
        // What was under way when the ban began.
        if self.is_banned(now_ns) {
            return None;
        }
        if now_ns >= self.stale_at {
            self.bans = 0;
        }
        if now_ns >= self.window_end {
            self.failures = 0;
            self.window_end = now_ns.saturating_add(nanoseconds(rules.window));
        }
        self.failures = self.failures.saturating_add(1);
        let quiet = nanoseconds(rules.quiet);
        if self.failures < rules.failures {
            let remembered = if self.bans > 0 { quiet } else { 0 };
            self.stale_at = self.window_end.max(now_ns.saturating_add(remembered));
            return None;
        }
        let doubled = 2_u32.checked_pow(self.bans).unwrap_or(u32::MAX);
        let length = rules.first.saturating_mul(doubled).min(rules.longest);
        self.bans = self.bans.saturating_add(1);
        self.failures = 0;
        self.window_end = 0;
        self.ban_end = now_ns.saturating_add(nanoseconds(length));
        self.stale_at = self.ban_end.saturating_add(quiet);
        Some(length)
    }
}

fn way_of_set(index: usize) -> usize {
    index % SETS_PER_SEGMENT
}

fn named(key: u64) -> u64 {
    if key == EMPTY { u64::MAX } else { key }
}

fn nanoseconds(span: Duration) -> u64 {
    u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)
}

/// A panic elsewhere must not end the counting: entries are whole at every moment.
fn lock(set: &Mutex<Set>) -> MutexGuard<'_, Set> {
    set.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;
    use crate::state::limiter::{KeyHasher, KeyKind};

    const SECOND: u64 = 1_000_000_000;

    fn rules() -> Rules {
        Rules {
            failures: 3,
            window: Duration::from_secs(10),
            first: Duration::from_mins(1),
            longest: Duration::from_secs(200),
            quiet: Duration::from_hours(1),
        }
    }

    /// Fails until a ban begins; gives the number of failures and its length in seconds.
    fn offend(bans: &Bans, key: u64, now: u64) -> (u32, u64) {
        (1..100)
            .find_map(|count| Some((count, bans.fail(key, &rules(), now)?.as_secs())))
            .expect("a ban within a hundred failures")
    }

    #[test]
    fn the_third_failure_bans_that_client_for_a_minute() {
        let bans = Bans::new(100);
        assert_eq!(bans.left(1, SECOND), None);
        assert_eq!(offend(&bans, 1, SECOND), (3, 60));
        assert_eq!(bans.left(1, SECOND), Some(Duration::from_mins(1)));
        assert_eq!(bans.left(1, 31 * SECOND), Some(Duration::from_secs(30)));
        assert_eq!(bans.left(2, 31 * SECOND), None);
        assert_eq!(bans.fail(1, &rules(), 31 * SECOND), None, "it is banned");
        assert!(bans.left(1, 61 * SECOND - 1).is_some());
        assert_eq!(bans.left(1, 61 * SECOND), None);
    }

    #[test]
    fn failures_far_apart_are_no_offence() {
        let bans = Bans::new(100);
        for n in 0..100 {
            assert_eq!(bans.fail(1, &rules(), 1 + n * 6 * SECOND), None);
        }
        assert_eq!(bans.reading(1).begun, 0);
    }

    #[test]
    fn each_ban_is_twice_as_long_until_the_longest_and_quiet_is_rewarded() {
        let bans = Bans::new(100);
        let mut now = SECOND;
        for length in [60, 120, 200, 200] {
            assert_eq!(offend(&bans, 1, now), (3, length));
            now += length * SECOND;
        }
        now += 3600 * SECOND - 1;
        assert_eq!(bans.fail(1, &rules(), now), None);
        now += 3600 * SECOND - 1;
        assert_eq!(offend(&bans, 1, now), (3, 200), "a failure is no quiet");
        now += (200 + 3600) * SECOND;
        assert_eq!(offend(&bans, 1, now), (3, 60), "as good as new");
    }

    #[test]
    fn a_flood_of_newcomers_frees_no_offender() {
        let bans = Bans::new(1);
        // All keys fall into the set zero.
        let offenders = 1..=3_u64;
        for key in offenders.clone() {
            offend(&bans, key, SECOND);
        }
        bans.fail(4, &rules(), SECOND);
        bans.fail(4, &rules(), SECOND);
        for key in 10..10_000 {
            assert_eq!(bans.fail(key, &rules(), SECOND), None);
        }
        for key in offenders {
            assert!(bans.left(key, SECOND).is_some(), "{key}");
        }
        assert!(
            bans.fail(4, &rules(), SECOND).is_some(),
            "who has failed most is the last to be forgotten"
        );
        assert!(bans.reading(SECOND).evictions > 9_000);
    }

    #[test]
    fn where_all_are_banned_a_newcomer_goes_uncounted_until_a_ban_ends() {
        let bans = Bans::new(1);
        for key in 1..=8 {
            offend(&bans, key, SECOND);
        }
        for _ in 0..10 {
            assert_eq!(bans.fail(9, &rules(), SECOND), None);
        }
        assert_eq!(bans.reading(SECOND).banned, 8);
        assert_eq!(bans.reading(SECOND).evictions, 10);
        assert_eq!(offend(&bans, 9, 61 * SECOND), (3, 60));
        assert_eq!(bans.reading(61 * SECOND).banned, 1);
    }

    #[test]
    fn the_table_is_bounded_and_forgets() {
        let bans = Bans::default();
        assert!(bans.memory_bound() <= CAPACITY * 110);
        let hasher = KeyHasher::new();
        for n in 0..1_000_000_u32 {
            let key = hasher.value(KeyKind::Header, &n.to_be_bytes());
            bans.fail(key, &rules(), SECOND);
        }
        let held = bans.reading(SECOND).remembered;
        assert!((100_000..=300_000).contains(&held), "{held}");
        assert_eq!(
            bans.reading(11 * SECOND),
            Reading {
                evictions: bans.reading(0).evictions,
                ..Reading::default()
            }
        );
    }

    #[test]
    fn workers_together_count_every_failure() {
        let bans = Bans::new(100);
        let many = Rules {
            failures: 400,
            ..rules()
        };
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..100 {
                        bans.fail(1, &many, SECOND);
                    }
                });
            }
        });
        assert!(bans.left(1, SECOND).is_some());
        assert_eq!(bans.reading(SECOND).begun, 1);
    }

    #[test]
    fn one_line_a_second_says_how_many_it_stands_for() {
        let bans = Bans::new(1);
        assert_eq!(bans.may_tell(SECOND), Some(0));
        assert_eq!(bans.may_tell(SECOND + 1), None);
        assert_eq!(bans.may_tell(2 * SECOND - 1), None);
        assert_eq!(bans.may_tell(2 * SECOND), Some(2));
        assert_eq!(bans.may_tell(2 * SECOND), None);
    }

    #[test]
    fn odd_rules_do_not_break_the_arithmetic() {
        let bans = Bans::new(1);
        let odd = Rules {
            failures: 0,
            window: Duration::MAX,
            first: Duration::MAX,
            longest: Duration::MAX,
            quiet: Duration::MAX,
        };
        assert!(bans.fail(0, &odd, u64::MAX - 1).is_some());
        assert!(bans.left(0, u64::MAX - 1).is_some());
    }
}
