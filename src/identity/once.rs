//! What of a signed request may be used once, and what was.
//!
//! For `http_signature` and `webhook`. What is noted was verified before, so a stranger cannot fill the memory, and it is
//! forgotten when the signature would no longer count; see [`crate::state::replay`]. Verifying only makes a [`Ticket`],
//! which is used when the request goes on: what the gate turns away is no less good for that. Names that nothing signs are
//! noted as those of what they came with, of which each has few: whoever has seen one delivery could make up any number.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering::Relaxed},
};

use http::HeaderName;

use crate::{
    crypto::digest::{Sha256, sha256},
    exchange::body_check::{BodyError, Single},
    state::replay::{Replays, Seen},
};

/// The most names of one thing that are remembered, the last ones, room for them given.
const MOST_NAMES: usize = 100;

/// What is used up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// The `nonce` that a message signature must have.
    Nonce,
    /// What was signed: the same thing signed again is no new one.
    Signature,
    /// The value of this field, which the sender says is another for each delivery. Nothing signs it.
    Delivery(HeaderName),
}

/// A rule that something is used once, and what was used.
#[derive(Clone, Debug)]
pub struct Once {
    /// What is used up.
    pub what: What,
    /// How much of that is remembered.
    pub rules: OnceRules,
    /// What was.
    pub used: Arc<Used>,
}

/// How much is remembered from now on, and for how long. Other rules forget nothing of what was used under those before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OnceRules {
    /// The most things.
    pub entries: usize,
    /// Seconds for which a thing is remembered.
    pub seconds: u64,
}

/// What the signatures of one signer have used up.
#[derive(Debug, Default)]
pub struct Used {
    replays: Replays,
    again: AtomicU64,
    full: AtomicU64,
}

/// Something that a request uses up when it goes on.
#[derive(Clone, Debug)]
pub struct Ticket {
    used: Arc<Used>,
    rules: OnceRules,
    name: Sha256,
    /// What the name is one of, if nothing signs it.
    of: Option<Sha256>,
    /// When the request came, in Unix seconds.
    now: u64,
}

impl Once {
    /// For a thing that was signed, at `now` (Unix seconds). Only its hash is kept.
    pub fn ticket(&self, thing: &[u8], now: u64) -> Ticket {
        Ticket {
            used: Arc::clone(&self.used),
            rules: self.rules,
            name: sha256(thing),
            of: None,
            now,
        }
    }

    /// For a name that nothing signs, of the thing with this hash. Of one thing the last names are remembered, a sixteenth
    /// of the memory at most.
    pub fn ticket_of_name(&self, name: &[u8], of: &Sha256, now: u64) -> Ticket {
        Ticket {
            of: Some(*of),
            ..self.ticket(name, now)
        }
    }
}

impl Ticket {
    /// The same, if it was not used before. It is not used by that.
    pub fn if_unused(self) -> Option<Self> {
        if self.used.replays.has(&self.name, self.now) {
            self.used.again.fetch_add(1, Relaxed);
            return None;
        }
        Some(self)
    }

    fn until(&self) -> u64 {
        self.now.saturating_add(self.rules.seconds)
    }
}

impl Single for Ticket {
    fn spend(&self) -> Result<(), BodyError> {
        let (replays, until) = (&self.used.replays, self.until());
        let room = (self.now, self.rules.entries);
        let share = (self.rules.entries / 16).clamp(1, MOST_NAMES);
        let seen = match &self.of {
            Some(of) => replays.see_latest_of((of, share), &self.name, until, room),
            None => replays.see(&self.name, until, room),
        };
        match seen {
            Seen::Fresh => Ok(()),
            Seen::Again => {
                self.used.again.fetch_add(1, Relaxed);
                Err(BodyError::Invalid("replayed"))
            }
            Seen::Full => {
                self.used.full.fetch_add(1, Relaxed);
                Err(BodyError::NoRoom)
            }
        }
    }

    fn give_back(&self) {
        let holder = self.of.unwrap_or_default();
        let replays = &self.used.replays;
        replays.unsee(&holder, &self.name, self.until());
    }
}

impl Used {
    /// How many things are remembered.
    pub fn entries(&self) -> usize {
        self.replays.len()
    }

    /// How often something was used again, and how often there was no room for something new.
    pub fn refused(&self) -> [(&'static str, u64); 2] {
        [
            ("again", self.again.load(Relaxed)),
            ("no-room", self.full.load(Relaxed)),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::{BodyError, MOST_NAMES, Once, OnceRules, Single, Ticket, What, sha256};

    const FULL: Result<(), BodyError> = Err(BodyError::NoRoom);
    const AGAIN: Result<(), BodyError> = Err(BodyError::Invalid("replayed"));

    fn once(entries: usize) -> Once {
        Once {
            what: What::Signature,
            rules: OnceRules {
                entries,
                seconds: 360,
            },
            used: std::sync::Arc::default(),
        }
    }

    #[test]
    fn b41_what_was_used_is_used_up_for_as_long_as_it_could_be_sent_again() {
        let once = once(2);
        let spend = |thing: &[u8], now| once.ticket(thing, now).spend();
        assert_eq!(spend(b"n", 1000), Ok(()));
        assert_eq!(spend(b"n", 1000), AGAIN);
        assert_eq!(spend(b"m", 1001), Ok(()));
        assert_eq!(spend(b"o", 1002), FULL);
        assert_eq!(spend(b"n", 1359), AGAIN);
        assert_eq!(spend(b"n", 1360), Ok(()));
        assert_eq!(spend(b"m", 1360), AGAIN);
        assert_eq!(once.used.refused(), [("again", 3), ("no-room", 1)]);
        assert_eq!(once.used.entries(), 2);
    }

    #[test]
    fn a_look_uses_nothing_and_what_was_given_back_is_good_again() {
        let once = once(100);
        let named = |name: &[u8]| once.ticket_of_name(name, &sha256(b"body"), 1000);
        for ticket in [once.ticket(b"n", 1000), named(b"a")] {
            let unused = ticket.clone().if_unused().and_then(Ticket::if_unused);
            let unused = unused.expect("it was only looked at");
            assert_eq!(unused.spend(), Ok(()));
            assert!(ticket.clone().if_unused().is_none());
            ticket.give_back();
            assert!(ticket.clone().if_unused().is_some());
            assert_eq!(ticket.spend(), Ok(()));
            assert_eq!(unused.spend(), AGAIN);
        }
        assert_eq!(once.used.entries(), 2);
    }

    #[test]
    fn other_rules_forget_nothing() {
        let mut once = once(2);
        assert_eq!(once.ticket(b"n", 1000).spend(), Ok(()));
        once.rules = OnceRules {
            entries: 1,
            seconds: 10,
        };
        assert_eq!(once.ticket(b"n", 1300).spend(), AGAIN);
        assert_eq!(once.ticket(b"m", 1300).spend(), FULL);
    }

    #[test]
    fn of_one_thing_few_names_are_remembered_and_none_is_turned_away() {
        let remembered = |entries| {
            let once = once(entries);
            let of = |thing: &[u8], name: usize| {
                let ticket = once.ticket_of_name(&name.to_be_bytes(), &sha256(thing), 1000);
                ticket.spend()
            };
            for name in 0..200 {
                assert_eq!(of(b"one", name), Ok(()), "{entries} {name}");
            }
            let remembered = once.used.entries();
            assert_eq!(of(b"one", 199), AGAIN, "{entries}");
            assert_eq!(of(b"one", 200 - remembered), AGAIN, "{entries}");
            assert_eq!(of(b"one", 199 - remembered), Ok(()), "{entries}");
            let expected = if entries > remembered { Ok(()) } else { FULL };
            assert_eq!(of(b"two", 201), expected, "{entries}");
            remembered
        };
        assert_eq!(remembered(1), 1);
        assert_eq!(remembered(31), 1);
        assert_eq!(remembered(48), 3);
        assert_eq!(remembered(100_000), MOST_NAMES);
    }
}
