//! Counts what each client has spent: GCRA buckets in a table of fixed size that workers share without locks.
//!
//! For the flood limit, the rate limits and the quotas, and for debts charged after the fact (a failed sign-in).
//! GCRA is the virtual scheduling form of the leaky bucket (ITU-T I.371 annex A): a bucket is one instant, the
//! *theoretical arrival time* (TAT), so a client costs 16 bytes.
//!
//! The table is set-associative: a key belongs to one set of eight ways. A full set gives the newcomer the way with the
//! lowest TAT **and the debt that stands in it**: with a full set a newcomer inherits the debt of the least indebted
//! client, so flooding the table with invented clients never turns an offender's empty bucket into a fresh one. The
//! lowest TAT of a full set never falls. A client whose bucket is full again has a TAT in the past, so taking its way
//! costs a newcomer nothing: this is how old clients are forgotten.
//!
//! It does not read clocks (`now_ns` comes from the caller, from any monotonic start), choose keys, or write headers.

use std::hash::{BuildHasher, Hash, Hasher, RandomState};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

/// How many clients a limiter remembers where the file says nothing.
pub const DEFAULT_CAPACITY: usize = 100_000;

const WAYS: usize = 8;
const SETS_PER_SEGMENT: usize = 32;
/// The key of a way that nobody has taken yet.
const EMPTY: u64 = 0;
/// Turns a surplus entry into one that no client looks up; its debt stays in the set.
const DISOWN: u64 = 0x9e37_79b9_7f4a_7c15;

/// What a client may spend: `quota` requests a `window`, at most `burst` at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    /// Requests a window; zero is read as one.
    pub quota: u32,
    /// The time in which an empty bucket regains `quota`.
    pub window: Duration,
    /// Depth of the bucket; zero is read as `quota`.
    pub burst: u32,
}

/// The answer to one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decision {
    /// Whether the request may pass.
    pub verdict: Verdict,
    /// Whole requests left right now.
    pub remaining: u32,
    /// Allowed: time until the bucket is full again. Refused: time until this request would pass.
    pub reset: Duration,
}

/// Whether a request is within its limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Within the limit; the cost was booked.
    Allowed,
    /// Over the limit; nothing was booked.
    Refused,
}

impl Decision {
    /// Whether the request may pass.
    pub fn is_allowed(&self) -> bool {
        self.verdict == Verdict::Allowed
    }
}

/// The buckets of one limit, shared by all workers.
///
/// Checks are exact: however many workers ask for one key at once, no more than the bucket holds is let through. One
/// exception is bounded: when two workers meet the same new key in a full set in the same nanoseconds, both may claim a
/// way for it, and each worker can pass one request too many before the two entries are merged.
#[derive(Debug)]
pub struct Limiter {
    rate: Rate,
    /// Allocated when first written, so that a limit nobody meets costs its directory only.
    segments: Box<[OnceLock<Box<Segment>>]>,
    set_mask: u64,
    entries: AtomicUsize,
    evictions: AtomicU64,
}

type Segment = [Set; SETS_PER_SEGMENT];

/// Two cache lines: a lookup reads the keys, a hit one more word.
#[derive(Debug, Default)]
#[repr(align(64))]
struct Set {
    keys: [AtomicU64; WAYS],
    tats: [AtomicU64; WAYS],
}

/// A limit in nanoseconds.
#[derive(Clone, Copy, Debug)]
struct Rate {
    interval: u64,
    depth: u64,
    burst: u32,
}

enum Lookup<'a> {
    /// The TAT of the key.
    Found(&'a AtomicU64),
    /// The way that the key would take.
    Missing(Victim<'a>),
}

struct Victim<'a> {
    slot: &'a AtomicU64,
    key: u64,
    tat: u64,
}

impl Limiter {
    /// Makes an empty table for `limit` that holds `capacity` clients when at most half full, in 16 to 64 bytes a client.
    pub fn new(limit: Limit, capacity: usize) -> Self {
        let sets = capacity.max(1).saturating_mul(2).div_ceil(WAYS);
        let sets = sets.clamp(SETS_PER_SEGMENT, 1 << 28).next_power_of_two();
        Self {
            rate: Rate::new(limit),
            segments: (0..sets / SETS_PER_SEGMENT)
                .map(|_| OnceLock::new())
                .collect(),
            set_mask: u64::try_from(sets - 1).unwrap_or(u64::MAX),
            entries: AtomicUsize::new(0),
            evictions: AtomicU64::new(0),
        }
    }

    /// Asks whether `key` may spend `cost` now, and books it if so.
    ///
    /// A cost above the burst is read as the burst: it passes on a full bucket only. A cost of zero books nothing.
    /// A refused newcomer takes no way: what it would start with is what the set will give it next time.
    pub fn check(&self, key: u64, cost: u32, now_ns: u64) -> Decision {
        let key = named(key);
        let set = self.set(key);
        loop {
            match set.find(key) {
                Lookup::Found(tat) => return self.book(tat, cost, now_ns),
                Lookup::Missing(victim) => {
                    let (decision, _) = self.rate.decide(victim.tat, cost, now_ns);
                    if cost == 0 || !decision.is_allowed() {
                        return decision;
                    }
                    self.claim(&victim, key, now_ns);
                }
            }
        }
    }

    /// Books `cost` without asking, for what is known only after the answer; the debt may go past the bucket, up to twice its depth.
    pub fn charge(&self, key: u64, cost: u32, now_ns: u64) {
        let key = named(key);
        let set = self.set(key);
        loop {
            match set.find(key) {
                Lookup::Found(slot) => return self.owe(slot, cost, now_ns),
                Lookup::Missing(victim) => self.claim(&victim, key, now_ns),
            }
        }
    }

    /// How many ways are taken, those of clients whose bucket is full again included.
    pub fn entries(&self) -> usize {
        self.entries.load(Ordering::Relaxed)
    }

    /// How often a newcomer took the way of a client that was still in debt: above zero the table is too small for its traffic.
    pub fn evictions(&self) -> u64 {
        self.evictions.load(Ordering::Relaxed)
    }

    /// Bytes taken so far; see [`Limiter::memory_bound`] for what it can grow to.
    pub fn memory(&self) -> usize {
        let touched = self
            .segments
            .iter()
            .filter(|segment| segment.get().is_some())
            .count();
        size_of_val(&*self.segments) + touched * size_of::<Segment>()
    }

    /// Bytes the table takes once every part of it has been written.
    pub fn memory_bound(&self) -> usize {
        size_of_val(&*self.segments) + self.segments.len() * size_of::<Segment>()
    }

    fn set(&self, key: u64) -> &Set {
        // The upper half picks the set: what is left to tell keys of one set apart stays the whole key.
        let index = usize::try_from((key >> 32) & self.set_mask).unwrap_or(0);
        let segment = self.segments[index / SETS_PER_SEGMENT].get_or_init(Box::default);
        &segment[index % SETS_PER_SEGMENT]
    }

    fn owe(&self, slot: &AtomicU64, cost: u32, now_ns: u64) {
        let mut tat = slot.load(Ordering::Acquire);
        while let Err(seen) = slot.compare_exchange_weak(
            tat,
            self.rate.indebted(tat, cost, now_ns),
            Ordering::AcqRel,
            Ordering::Acquire,
        ) {
            tat = seen;
        }
    }

    fn book(&self, slot: &AtomicU64, cost: u32, now_ns: u64) -> Decision {
        let mut tat = slot.load(Ordering::Acquire);
        loop {
            let (decision, next) = self.rate.decide(tat, cost, now_ns);
            if next == tat || !decision.is_allowed() {
                return decision;
            }
            match slot.compare_exchange_weak(tat, next, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => return decision,
                Err(seen) => tat = seen,
            }
        }
    }

    /// Tries to write `key` into the victim's way; its TAT stays, so the newcomer inherits the debt. The caller looks again.
    #[cold]
    fn claim(&self, victim: &Victim<'_>, key: u64, now_ns: u64) {
        let claimed =
            victim
                .slot
                .compare_exchange(victim.key, key, Ordering::AcqRel, Ordering::Acquire);
        if claimed.is_err() {
            return;
        }
        if victim.key == EMPTY {
            self.entries.fetch_add(1, Ordering::Relaxed);
        } else if victim.tat > now_ns {
            self.evictions.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Set {
    fn find(&self, key: u64) -> Lookup<'_> {
        let mut found: Option<&AtomicU64> = None;
        for (slot, tat) in self.keys.iter().zip(&self.tats) {
            if slot.load(Ordering::Acquire) == key {
                match found {
                    None => found = Some(tat),
                    Some(first) => merge(first, tat, slot, key),
                }
            }
        }
        found.map_or_else(|| self.victim(key), Lookup::Found)
    }

    /// The way a newcomer takes: the first empty one, else the one with the lowest TAT.
    ///
    /// The TAT is read before the key, so a way seen as empty or as another client's had at most that debt. Two
    /// workers that bring the same key to a set with an empty way therefore pick the same way, and one of them loses.
    fn victim(&self, key: u64) -> Lookup<'_> {
        let [slot, ..] = &self.keys;
        let mut best = Victim {
            slot,
            key: EMPTY,
            tat: u64::MAX,
        };
        for (slot, held_tat) in self.keys.iter().zip(&self.tats) {
            let tat = held_tat.load(Ordering::Acquire);
            let held = slot.load(Ordering::Acquire);
            if held == key {
                return Lookup::Found(held_tat);
            }
            if held == EMPTY {
                return Lookup::Missing(Victim {
                    slot,
                    key: EMPTY,
                    tat: 0,
                });
            }
            if tat < best.tat || best.key == EMPTY {
                best = Victim {
                    slot,
                    key: held,
                    tat,
                };
            }
        }
        Lookup::Missing(best)
    }
}

/// Folds the second entry of one key into the first; see [`Limiter`] for how there can be two.
#[cold]
fn merge(first: &AtomicU64, second: &AtomicU64, slot: &AtomicU64, key: u64) {
    first.fetch_max(second.load(Ordering::Acquire), Ordering::AcqRel);
    // Losing this race means that another worker did the same, or that a newcomer has the way already.
    let _ = slot.compare_exchange(
        key,
        named(key ^ DISOWN),
        Ordering::AcqRel,
        Ordering::Acquire,
    );
}

impl Rate {
    fn new(limit: Limit) -> Self {
        let window = u64::try_from(limit.window.as_nanos()).unwrap_or(u64::MAX);
        let interval = (window / u64::from(limit.quota.max(1))).max(1);
        let burst = if limit.burst == 0 {
            limit.quota.max(1)
        } else {
            limit.burst
        };
        Self {
            interval,
            depth: interval.saturating_mul(u64::from(burst)),
            burst,
        }
    }

    /// The decision on `cost` for a bucket, and the TAT to store if it is allowed.
    fn decide(&self, tat: u64, cost: u32, now: u64) -> (Decision, u64) {
        let start = tat.max(now);
        let next = start.saturating_add(self.price(cost.min(self.burst)));
        let full_at = now.saturating_add(self.depth);
        if next > full_at {
            let reset = Duration::from_nanos(next - full_at);
            let remaining = self.whole(full_at.saturating_sub(start));
            return (
                Decision {
                    verdict: Verdict::Refused,
                    remaining,
                    reset,
                },
                tat,
            );
        }
        let remaining = self.whole(full_at - next);
        let reset = Duration::from_nanos(next - now);
        let stored = if cost == 0 { tat } else { next };
        (
            Decision {
                verdict: Verdict::Allowed,
                remaining,
                reset,
            },
            stored,
        )
    }

    /// The TAT after a charge that asks nobody; it never falls, and stops at twice the depth.
    fn indebted(&self, tat: u64, cost: u32, now: u64) -> u64 {
        let most = now.saturating_add(self.depth.saturating_mul(2));
        let next = tat.max(now).saturating_add(self.price(cost));
        next.min(most).max(tat)
    }

    fn price(&self, cost: u32) -> u64 {
        self.interval.saturating_mul(u64::from(cost))
    }

    fn whole(&self, span: u64) -> u32 {
        u32::try_from(span / self.interval).unwrap_or(u32::MAX)
    }
}

/// Where a key comes from; two kinds never share a bucket, whatever their bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum KeyKind {
    /// An address, see [`client_key`].
    Client,
    /// An authenticated principal.
    Subject,
    /// The value of a request header.
    Header,
    /// The value of a cookie.
    Cookie,
    /// The route itself.
    Route,
    /// Everybody together.
    Global,
}

/// Makes the 64-bit keys of a limiter.
///
/// SipHash-1-3 with a random 128-bit key a process: a client that can choose its key bytes cannot aim them at the set
/// of somebody else, or pile its own into one set, without knowing the key; and `SipHash` is made so that answers and
/// timing do not give it away. foldhash would be faster and says itself that it does not withstand an interactive
/// attacker.
#[derive(Clone, Debug, Default)]
pub struct KeyHasher {
    state: RandomState,
}

impl KeyHasher {
    /// Makes a hasher with a fresh random key; keys of two hashers have nothing to do with one another.
    pub fn new() -> Self {
        Self::default()
    }

    /// The key of a client address, IPv6 by its /64.
    pub fn client(&self, address: IpAddr) -> u64 {
        let mut hasher = self.state.build_hasher();
        KeyKind::Client.hash(&mut hasher);
        match client_key(address) {
            IpAddr::V4(v4) => hasher.write_u32(v4.to_bits()),
            IpAddr::V6(v6) => hasher.write_u128(v6.to_bits()),
        }
        hasher.finish()
    }

    /// The key of any other value.
    pub fn value(&self, kind: KeyKind, bytes: &[u8]) -> u64 {
        let mut hasher = self.state.build_hasher();
        kind.hash(&mut hasher);
        bytes.hash(&mut hasher);
        hasher.finish()
    }
}

/// What stands for a client in a limit: an IPv4 address, or the /64 of an IPv6 address, since one subscriber is given at least that.
///
/// An IPv4-mapped IPv6 address (`::ffff:192.0.2.1`) is the IPv4 client it stands for.
pub fn client_key(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(v4) => IpAddr::V4(v4),
        IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & !u128::from(u64::MAX))),
    }
}

fn named(key: u64) -> u64 {
    if key == EMPTY { DISOWN } else { key }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::sync::Barrier;
    use std::sync::atomic::AtomicU32;
    use std::thread;

    use proptest::prelude::*;

    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn per_second(quota: u32, burst: u32) -> Limit {
        Limit {
            quota,
            window: Duration::from_secs(1),
            burst,
        }
    }

    /// Key number `n` of set zero.
    fn in_first_set(n: u32) -> u64 {
        u64::from(n)
    }

    fn spent(limiter: &Limiter, key: u64, now: u64) -> u32 {
        let mut passed = 0;
        while limiter.check(key, 1, now).is_allowed() {
            passed += 1;
        }
        passed
    }

    #[test]
    fn a_burst_passes_and_then_the_rate() {
        let limiter = Limiter::new(per_second(20, 40), DEFAULT_CAPACITY);
        assert_eq!(spent(&limiter, 7, 0), 40);
        let refused = limiter.check(7, 1, 0);
        assert_eq!(refused.reset, Duration::from_millis(50));
        assert_eq!(refused.remaining, 0);
        assert!(!limiter.check(7, 1, SECOND / 20 - 1).is_allowed());
        assert!(limiter.check(7, 1, SECOND / 20).is_allowed());
        assert_eq!(spent(&limiter, 7, 2 * SECOND), 39);
    }

    #[test]
    fn the_burst_is_the_quota_when_not_stated() {
        let limit = Limit {
            quota: 100,
            window: Duration::from_mins(1),
            burst: 0,
        };
        let limiter = Limiter::new(limit, DEFAULT_CAPACITY);
        let first = limiter.check(1, 1, 5);
        assert_eq!(first.remaining, 99);
        assert_eq!(first.reset, Duration::from_millis(600));
        assert_eq!(spent(&limiter, 1, 5), 99);
    }

    #[test]
    fn a_cost_counts_as_many_requests() {
        let limiter = Limiter::new(per_second(10, 10), 100);
        assert_eq!(limiter.check(1, 7, 0).remaining, 3);
        let refused = limiter.check(1, 4, 0);
        assert_eq!((refused.verdict, refused.remaining), (Verdict::Refused, 3));
        assert_eq!(refused.reset, Duration::from_millis(100));
        assert!(limiter.check(1, 3, 0).is_allowed());
        assert!(
            limiter.check(2, 1000, 0).is_allowed(),
            "read as the burst on a full bucket"
        );
        assert_eq!(limiter.check(3, 0, 0).remaining, 10);
        assert_eq!(limiter.entries(), 2, "a look books nothing");
    }

    #[test]
    fn a_debt_after_the_fact_is_bounded() {
        let limiter = Limiter::new(per_second(10, 10), 100);
        assert!(limiter.check(1, 1, 0).is_allowed());
        limiter.charge(1, 10, 0);
        assert_eq!(limiter.check(1, 1, 0).reset, Duration::from_millis(200));
        for _ in 0..100 {
            limiter.charge(1, 10, 0);
        }
        assert_eq!(limiter.check(1, 1, 0).reset, Duration::from_millis(1100));
        assert!(limiter.check(1, 1, 1_100_000_000).is_allowed());
    }

    #[test]
    fn an_offender_cannot_launder_its_debt_through_a_full_set() {
        let limiter = Limiter::new(per_second(10, 10), 1);
        let offender = in_first_set(1);
        assert_eq!(spent(&limiter, offender, 0), 10);
        let mut passed = 0;
        for invented in 2..10_000 {
            passed += u32::from(limiter.check(in_first_set(invented), 1, 0).is_allowed());
            assert!(!limiter.check(offender, 1, 0).is_allowed());
        }
        assert_eq!(
            passed,
            7 * 10,
            "the other seven ways are spent and nothing more passes"
        );
        assert!(limiter.evictions() > 0);
        assert_eq!(spent(&limiter, offender, SECOND / 10), 1);
    }

    #[test]
    fn a_client_whose_bucket_is_full_again_makes_room() {
        let limiter = Limiter::new(per_second(10, 10), 1);
        for n in 1..=8 {
            assert_eq!(spent(&limiter, in_first_set(n), 0), 10);
        }
        assert_eq!(spent(&limiter, in_first_set(9), 0), 0);
        assert_eq!(spent(&limiter, in_first_set(9), 2 * SECOND), 10);
        assert_eq!(limiter.evictions(), 0);
    }

    #[test]
    fn a_client_costs_a_little_over_64_bytes_at_most_whatever_the_capacity() {
        for capacity in [1_000, 10_000, 65_536, 65_537, 100_000, 1_000_000, 3_000_000] {
            let limiter = Limiter::new(per_second(20, 40), capacity);
            // Beside the segments the directory, 16 bytes for 256 ways.
            assert!(limiter.memory_bound() <= capacity * 66, "{capacity}");
        }
    }

    #[test]
    fn a_million_clients_stay_within_the_memory() {
        let limiter = Limiter::new(per_second(20, 40), DEFAULT_CAPACITY);
        assert!(
            limiter.memory() < 64 * 1024,
            "an unused table is its directory"
        );
        let hasher = KeyHasher::new();
        for n in 0..1_000_000_u32 {
            limiter.check(hasher.value(KeyKind::Header, &n.to_be_bytes()), 1, 1);
        }
        assert!(limiter.memory() <= limiter.memory_bound());
        assert!(limiter.memory_bound() <= DEFAULT_CAPACITY * 128);
        assert!(limiter.entries() <= limiter.segments.len() * SETS_PER_SEGMENT * WAYS);
    }

    #[test]
    fn the_promised_capacity_is_remembered() {
        let limiter = Limiter::new(per_second(20, 40), DEFAULT_CAPACITY);
        let hasher = KeyHasher::new();
        for n in 0..100_000_u32 {
            limiter.check(hasher.value(KeyKind::Header, &n.to_be_bytes()), 1, 1);
        }
        assert!(
            limiter.entries() > 99_000,
            "{} of 100000 remembered",
            limiter.entries()
        );
    }

    #[test]
    fn workers_together_never_pass_more_than_the_bucket_holds() {
        for round in 0..50_u64 {
            let limiter = Limiter::new(per_second(1, 500), 100);
            let passed = AtomicU32::new(0);
            let start = Barrier::new(4);
            thread::scope(|scope| {
                for _ in 0..4 {
                    scope.spawn(|| {
                        start.wait();
                        for _ in 0..400 {
                            let allowed = limiter.check(round, 1, 0).is_allowed();
                            passed.fetch_add(u32::from(allowed), Ordering::Relaxed);
                        }
                    });
                }
            });
            assert_eq!(passed.into_inner(), 500);
        }
    }

    #[test]
    fn two_entries_of_one_key_are_merged() {
        let limiter = Limiter::new(per_second(10, 10), 1);
        let set = limiter.set(5);
        for (way, key) in [1, 2, 5, 3, 5, 4, 6, 7].into_iter().enumerate() {
            set.keys[way].store(key, Ordering::Relaxed);
        }
        set.tats[4].store(SECOND / 2, Ordering::Relaxed);
        assert_eq!(limiter.check(5, 1, 0).remaining, 4);
        let left = set
            .keys
            .iter()
            .filter(|key| key.load(Ordering::Relaxed) == 5)
            .count();
        assert_eq!(left, 1);
    }

    #[test]
    fn ipv6_counts_by_its_64_and_a_mapped_address_is_its_ipv4() {
        let hasher = KeyHasher::new();
        let key = |text: &str| hasher.client(text.parse().unwrap());
        assert_eq!(
            key("2001:db8:1:2::1"),
            key("2001:db8:1:2:ffff:ffff:ffff:ffff")
        );
        assert_ne!(key("2001:db8:1:2::1"), key("2001:db8:1:3::1"));
        assert_eq!(key("::ffff:192.0.2.1"), key("192.0.2.1"));
        assert_ne!(key("192.0.2.1"), key("192.0.2.2"));
        assert_ne!(
            KeyHasher::new().client([192, 0, 2, 1].into()),
            key("192.0.2.1")
        );
        assert_ne!(
            hasher.value(KeyKind::Header, b"a"),
            hasher.value(KeyKind::Cookie, b"a")
        );
    }

    #[test]
    fn odd_limits_do_not_break_the_arithmetic() {
        for limit in [
            Limit {
                quota: 0,
                window: Duration::ZERO,
                burst: 0,
            },
            Limit {
                quota: u32::MAX,
                window: Duration::from_nanos(1),
                burst: u32::MAX,
            },
            Limit {
                quota: 1,
                window: Duration::MAX,
                burst: u32::MAX,
            },
        ] {
            let limiter = Limiter::new(limit, usize::MAX >> 40);
            assert!(limiter.check(0, 1, u64::MAX / 2).is_allowed());
            limiter.charge(0, u32::MAX, u64::MAX);
            limiter.check(0, u32::MAX, u64::MAX);
        }
    }

    proptest! {
        /// Against a bucket that counts in plain units of time, one a key, with no table.
        #[test]
        fn agrees_with_a_leaky_bucket(
            quota in 1_u32..50, burst in 1_u32..50,
            steps in prop::collection::vec((0_u64..6, 1_u32..4, 0_u64..2_000_000_000), 1..200),
        ) {
            let limiter = Limiter::new(per_second(quota, burst), 100);
            let interval = SECOND / u64::from(quota);
            let depth = interval * u64::from(burst);
            let mut levels: HashMap<u64, (u64, u64)> = HashMap::new();
            let mut now = 0;
            for (key, cost, wait) in steps {
                now += wait;
                let (level, at) = levels.get(&key).copied().unwrap_or((0, now));
                let level = level.saturating_sub(now - at);
                let filled = level + interval * u64::from(cost.min(burst));
                let decision = limiter.check(key, cost, now);
                prop_assert_eq!(decision.is_allowed(), filled <= depth);
                let kept = if filled <= depth { filled } else { level };
                levels.insert(key, (kept, now));
                if decision.is_allowed() {
                    prop_assert_eq!(u64::from(decision.remaining), (depth - filled) / interval);
                } else {
                    prop_assert!(limiter.rate.decide(now + level, cost, now + u64::try_from(decision.reset.as_nanos()).unwrap()).0.is_allowed());
                }
            }
        }
    }
}
