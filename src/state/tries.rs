//! Tries at a second factor: one at a time for each account and each client, five wrong ones and both rest for a while.
//!
//! An account rests longer each time, and for hours after twenty wrong ones in a day, however slowly they came (NIST SP
//! 800-63B §5.2.2). A client never does: its address may be that of a whole office.
//!
//! Who tries holds a turn of the client and one of the account, so that many tries at once are counted one after the other
//! and none slips through between the look and the count. What was used once is remembered here as well, for as long as it
//! could be shown again. Bounded: [`Bans`] and [`Replays`] are, and the turns are a fixed number of locks, taken for the
//! client first, so that no two wait for one another.

use std::{
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use super::{
    bans::{Bans, Rules},
    replay::{Replays, Seen},
};
use crate::crypto::digest::Sha256;

/// For an account: five in five minutes; the rest doubles with each further five, up to an hour.
const ACCOUNT: Rules = Rules {
    failures: 5,
    window: Duration::from_mins(5),
    first: Duration::from_mins(5),
    longest: Duration::from_hours(1),
    quiet: Duration::from_hours(24),
};

/// For a client: the same five, and the same rest each time.
const CLIENT: Rules = Rules {
    longest: ACCOUNT.first,
    ..ACCOUNT
};

/// For an account that somebody guesses at patiently.
const PATIENT: Rules = Rules {
    failures: 20,
    window: Duration::from_hours(24),
    first: Duration::from_hours(1),
    longest: Duration::from_hours(24),
    quiet: Duration::from_hours(7 * 24),
};

/// Clients and accounts whose wrong tries are remembered.
const CAPACITY: usize = 50_000;
/// Codes that are remembered.
const CODES: usize = 100_000;
/// Locks for each kind of turn.
const TURNS: usize = 64;

/// How a try ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The factor was proven.
    Right,
    /// A factor was enrolled.
    Enrolled,
    /// It was not.
    Wrong,
    /// It was, with what was used before.
    Again,
    /// There is nothing to try.
    Unenrolled,
    /// It was not looked at: too many were wrong.
    Limited,
    /// It could not be looked at.
    Unavailable,
}

impl Outcome {
    /// All of them, in order.
    pub const ALL: [Self; 7] = [
        Self::Right,
        Self::Enrolled,
        Self::Wrong,
        Self::Again,
        Self::Unenrolled,
        Self::Limited,
        Self::Unavailable,
    ];

    /// The word for metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Right => "right",
            Self::Enrolled => "enrolled",
            Self::Wrong => "wrong",
            Self::Again => "again",
            Self::Unenrolled => "unenrolled",
            Self::Limited => "limited",
            Self::Unavailable => "unavailable",
        }
    }
}

/// All tries of the process.
#[derive(Debug)]
pub struct Tries {
    wrong: Bans,
    /// The same wrong ones of accounts, over a day.
    patient: Bans,
    used: Replays,
    clients: [Mutex<()>; TURNS],
    accounts: [Mutex<()>; TURNS],
    outcomes: [AtomicU64; Outcome::ALL.len()],
}

impl Default for Tries {
    fn default() -> Self {
        Self {
            wrong: Bans::new(CAPACITY),
            patient: Bans::new(CAPACITY),
            used: Replays::default(),
            clients: [const { Mutex::new(()) }; TURNS],
            accounts: [const { Mutex::new(()) }; TURNS],
            outcomes: [const { AtomicU64::new(0) }; Outcome::ALL.len()],
        }
    }
}

/// The turn of one who tries; it ends when it is dropped.
#[derive(Debug)]
pub struct Turn<'a> {
    tries: &'a Tries,
    client: u64,
    account: u64,
    _held: (MutexGuard<'a, ()>, MutexGuard<'a, ()>),
}

impl Tries {
    /// Waits for the turn of a client at an account, each by its key. It blocks: not for a thread that serves.
    ///
    /// # Errors
    /// How long either still rests at `now_ns`.
    pub fn turn(&self, client: u64, account: u64, now_ns: u64) -> Result<Turn<'_>, Duration> {
        let held = (lock(&self.clients, client), lock(&self.accounts, account));
        let left = |bans: &Bans, key| bans.left(key, now_ns);
        let rests = [
            left(&self.wrong, client),
            left(&self.wrong, account),
            left(&self.patient, account),
        ];
        match rests.into_iter().flatten().max() {
            Some(left) => Err(left),
            None => Ok(Turn {
                tries: self,
                client,
                account,
                _held: held,
            }),
        }
    }

    /// Counts how a try ended.
    pub fn count(&self, outcome: Outcome) {
        let counts = Outcome::ALL.iter().zip(&self.outcomes);
        for (_, count) in counts.filter(|(known, _)| **known == outcome) {
            count.fetch_add(1, Relaxed);
        }
    }

    /// Tries by outcome.
    pub fn outcomes(&self) -> Vec<(&'static str, u64)> {
        let counts = Outcome::ALL.iter().zip(&self.outcomes);
        counts
            .map(|(outcome, count)| (outcome.as_str(), count.load(Relaxed)))
            .collect()
    }
}

impl Turn<'_> {
    /// Counts a wrong try against both. Gives for how long the account rests, where that is for hours from now on.
    pub fn fail(&self, now_ns: u64) -> Option<Duration> {
        let Tries { wrong, patient, .. } = self.tries;
        wrong.fail(self.client, &CLIENT, now_ns);
        wrong.fail(self.account, &ACCOUNT, now_ns);
        patient.fail(self.account, &PATIENT, now_ns)
    }

    /// Uses something up until the Unix second `until`; what is not fresh must not count.
    pub fn spend(&self, name: &Sha256, until: u64, now: u64) -> Seen {
        self.tries.used.see(name, until, (now, CODES))
    }

    /// Whether something is used up already; nothing is by asking.
    pub fn is_spent(&self, name: &Sha256, now: u64) -> bool {
        self.tries.used.has(name, now)
    }
}

fn lock(turns: &[Mutex<()>; TURNS], key: u64) -> MutexGuard<'_, ()> {
    let place = usize::try_from(key).unwrap_or(usize::MAX) % TURNS;
    let turn = turns
        .get(place)
        .expect("a remainder is less than its divisor");
    turn.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn fail(tries: &Tries, client: u64, account: u64) -> bool {
        match tries.turn(client, account, SECOND) {
            Ok(turn) => {
                turn.fail(SECOND);
                true
            }
            Err(_) => false,
        }
    }

    #[test]
    fn b33_five_wrong_of_an_account_end_its_tries_from_anywhere() {
        let tries = Tries::default();
        assert!((1..=5).all(|client| fail(&tries, client, 100)));
        let left = tries.turn(6, 100, SECOND).unwrap_err();
        assert_eq!(left, Duration::from_mins(5));
        assert!(tries.turn(6, 101, SECOND).is_ok());
        assert!(tries.turn(6, 100, 302 * SECOND).is_ok());
    }

    #[test]
    fn b33_five_wrong_of_a_client_end_its_tries_at_any_account() {
        let tries = Tries::default();
        assert!((101..=105).all(|account| fail(&tries, 1, account)));
        assert!(tries.turn(1, 106, SECOND).is_err());
        assert!(tries.turn(2, 106, SECOND).is_ok());
    }

    /// Four in each window of five minutes, for a day: how many are looked at, and when the last of them is.
    fn patient(tries: &Tries, day: u64) -> usize {
        let windows = (0..288).map(|window| (day * 288 + window) * 301 + 1);
        let times = windows.flat_map(|at| (0..4).map(move |n| (at + n) * SECOND));
        times
            .filter(|now| match tries.turn(now % 997, 7, *now) {
                Ok(turn) => {
                    turn.fail(*now);
                    true
                }
                Err(_) => false,
            })
            .count()
    }

    #[test]
    fn b33_whoever_stays_below_five_is_counted_up_for_the_account_all_the_same() {
        let tries = Tries::default();
        let first = patient(&tries, 0);
        assert!(
            (20..=100).contains(&first),
            "NIST SP 800-63B §5.2.2: {first}"
        );
        // From then on the rests are as long as they may be.
        patient(&tries, 1);
        let third = patient(&tries, 2);
        assert!(third <= 20, "{third}");
    }

    #[test]
    fn b33_twenty_wrong_of_an_account_in_a_day_end_its_tries_for_hours() {
        let tries = Tries::default();
        let mut now = SECOND;
        for n in 0..20 {
            tries.turn(n, 7, now).unwrap().fail(now);
            now += 1000 * SECOND;
        }
        now -= 999 * SECOND;
        assert!(tries.turn(99, 7, now).unwrap_err() > Duration::from_mins(59));
        assert!(tries.turn(99, 8, now).is_ok());
    }

    #[test]
    fn b33_a_client_rests_for_as_long_the_tenth_time_as_the_first() {
        let tries = Tries::default();
        let mut now = SECOND;
        for time in 0..10_u64 {
            for n in 0..5 {
                tries.turn(1, 100 + time * 5 + n, now).unwrap().fail(now);
            }
            let left = tries.turn(1, 7, now).unwrap_err();
            assert_eq!(left, Duration::from_mins(5), "{time}");
            now += 301 * SECOND;
        }
    }

    #[test]
    fn many_tries_at_once_are_counted_one_after_the_other() {
        let tries = Tries::default();
        let counted = AtomicU64::new(0);
        std::thread::scope(|scope| {
            for client in 0..32 {
                let (all, counted) = (&tries, &counted);
                scope.spawn(move || {
                    counted.fetch_add(u64::from(fail(all, 1000 + client, 7)), Relaxed);
                });
            }
        });
        assert_eq!(counted.into_inner(), 5);
    }

    #[test]
    fn outcomes_are_counted() {
        let tries = Tries::default();
        tries.count(Outcome::Again);
        assert_eq!(tries.outcomes()[3], ("again", 1));
    }
}
