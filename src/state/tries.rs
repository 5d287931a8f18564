//! Tries at a second factor: one at a time for each account and each client, five wrong ones and both rest for a while.
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

/// Five in five minutes; the rest doubles with each further five, up to an hour.
pub const RULES: Rules = Rules {
    failures: 5,
    window: Duration::from_mins(5),
    first: Duration::from_mins(5),
    longest: Duration::from_hours(1),
    quiet: Duration::from_hours(24),
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
    /// It was not.
    Wrong,
    /// It was, with what was used before.
    Again,
    /// It was not looked at: too many were wrong.
    Limited,
    /// It could not be looked at.
    Unavailable,
}

impl Outcome {
    /// All of them, in order.
    pub const ALL: [Self; 5] = [
        Self::Right,
        Self::Wrong,
        Self::Again,
        Self::Limited,
        Self::Unavailable,
    ];

    /// The word for metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Right => "right",
            Self::Wrong => "wrong",
            Self::Again => "again",
            Self::Limited => "limited",
            Self::Unavailable => "unavailable",
        }
    }
}

/// All tries of the process.
#[derive(Debug)]
pub struct Tries {
    wrong: Bans,
    used: Replays,
    clients: [Mutex<()>; TURNS],
    accounts: [Mutex<()>; TURNS],
    outcomes: [AtomicU64; Outcome::ALL.len()],
}

impl Default for Tries {
    fn default() -> Self {
        Self {
            wrong: Bans::new(CAPACITY),
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
        let left = |key| self.wrong.left(key, now_ns);
        match left(client).max(left(account)) {
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
    /// Counts a wrong try against both.
    pub fn fail(&self, now_ns: u64) {
        for key in [self.client, self.account] {
            self.tries.wrong.fail(key, &RULES, now_ns);
        }
    }

    /// Uses something up until the Unix second `until`; what is not fresh must not count.
    pub fn spend(&self, name: &Sha256, until: u64, now: u64) -> Seen {
        self.tries.used.see(name, until, (now, CODES))
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
        assert_eq!(tries.outcomes()[2], ("again", 1));
    }
}
