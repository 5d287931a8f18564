//! What of a signed request may be used once, and what was.
//!
//! For `http_signature` and `webhook`. What is noted was verified before, so a stranger cannot fill the memory, and it is
//! forgotten when the signature would no longer count; see [`crate::state::replay`]. Names that nothing signs are noted as
//! those of what they came with, of which each has few: whoever has seen one delivery could make up any number.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering::Relaxed},
};

use http::HeaderName;

use crate::{
    crypto::digest::{Sha256, sha256},
    state::replay::{Replays, Seen},
};

/// The most names under which one thing is taken, room for them given.
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
    /// What was.
    pub used: Arc<Used>,
}

/// How much is remembered and for how long: what makes a memory the same after a reload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OnceRules {
    /// The most things.
    pub entries: usize,
    /// Seconds for which a thing is remembered.
    pub seconds: u64,
}

/// What the signatures of one signer have used up.
#[derive(Debug)]
pub struct Used {
    rules: OnceRules,
    replays: Replays,
    again: AtomicU64,
    full: AtomicU64,
}

impl Once {
    /// Uses a thing that was signed, at `now` (Unix seconds). Only its hash is kept.
    pub fn spend(&self, thing: &[u8], now: u64) -> Seen {
        self.used.note(&sha256(thing), now)
    }

    /// Uses a name that nothing signs, of the thing with this hash. One thing has a sixteenth of the memory at most.
    pub fn spend_name(&self, name: &[u8], of: &Sha256, now: u64) -> Seen {
        let share = (self.used.rules.entries / 16).clamp(1, MOST_NAMES);
        self.used.note_of((of, share), &sha256(name), now)
    }
}

impl Used {
    /// Nothing yet.
    pub fn new(rules: OnceRules) -> Self {
        Self {
            rules,
            replays: Replays::default(),
            again: AtomicU64::new(0),
            full: AtomicU64::new(0),
        }
    }

    fn note(&self, thing: &Sha256, now: u64) -> Seen {
        self.note_of((&[0; 32], usize::MAX), thing, now)
    }

    fn note_of(&self, holder: (&Sha256, usize), thing: &Sha256, now: u64) -> Seen {
        let until = now.saturating_add(self.rules.seconds);
        let room = (now, self.rules.entries);
        let seen = self.replays.see_of(holder, thing, until, room);
        match seen {
            Seen::Fresh => {}
            Seen::Again => {
                self.again.fetch_add(1, Relaxed);
            }
            Seen::Full => {
                self.full.fetch_add(1, Relaxed);
            }
        }
        seen
    }

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
    use std::sync::Arc;

    use super::{MOST_NAMES, Once, OnceRules, Seen, Used, What, sha256};

    #[test]
    fn b41_what_was_used_is_used_up_for_as_long_as_it_could_be_sent_again() {
        let used = Used::new(OnceRules {
            entries: 2,
            seconds: 360,
        });
        let note = |thing: &[u8], now| used.note(&sha256(thing), now);
        assert_eq!(note(b"n", 1000), Seen::Fresh);
        assert_eq!(note(b"n", 1000), Seen::Again);
        assert_eq!(note(b"m", 1001), Seen::Fresh);
        assert_eq!(note(b"o", 1002), Seen::Full);
        assert_eq!(note(b"n", 1359), Seen::Again);
        assert_eq!(note(b"n", 1360), Seen::Fresh);
        assert_eq!(note(b"m", 1360), Seen::Again);
        assert_eq!(used.refused(), [("again", 3), ("no-room", 1)]);
        assert_eq!(used.entries(), 2);
    }

    #[test]
    fn one_thing_has_few_names() {
        let names = |entries| {
            let used = Arc::new(Used::new(OnceRules {
                entries,
                seconds: 360,
            }));
            let what = What::Signature;
            let once = Once { what, used };
            let of = |thing: &[u8], name: usize| {
                once.spend_name(&name.to_be_bytes(), &sha256(thing), 1000)
            };
            let fresh = (0..200).filter(|name| of(b"one", *name) == Seen::Fresh);
            let fresh = fresh.count();
            assert_eq!(of(b"one", 0), Seen::Again, "{entries}");
            assert_eq!(of(b"one", 200), Seen::Full, "{entries}");
            let expected = if entries > fresh {
                Seen::Fresh
            } else {
                Seen::Full
            };
            assert_eq!(of(b"two", 201), expected, "{entries}");
            fresh
        };
        assert_eq!(names(1), 1);
        assert_eq!(names(31), 1);
        assert_eq!(names(48), 3);
        assert_eq!(names(100_000), MOST_NAMES);
    }
}
