//! What was shown once and must not count again: names of proofs, each until the proof would be too old anyhow.
//!
//! Exact and bounded. A full memory takes nothing in and says so: what it forgot early could be shown again. Survives a
//! reload, not a restart. It does not know what a proof is. Whoever could fill it alone has a share of it: beyond that
//! nothing more is taken in, or the oldest of the share is forgotten where that harms nobody else.

use std::{
    collections::{BTreeMap, HashMap, HashSet, VecDeque, btree_map, hash_map::Entry},
    sync::{Mutex, MutexGuard, PoisonError},
};

use crate::crypto::digest::Sha256;

/// Half of a SHA-256: to find two proofs of one name takes 2^64 tries, and gains the one who finds them nothing.
type Name = [u8; 16];

/// A quarter of a SHA-256: two holders of one share it, and to find a holder that has another's takes 2^64 tries.
type Holder = [u8; 8];

/// The fewest names for which room is given back: below that it is not worth the copying.
const LEAST_ROOM: usize = 4096;

/// What the memory says of a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen {
    /// It is new, and remembered from now on.
    Fresh,
    /// It was seen before.
    Again,
    /// It is new, and there is no room to remember it, or none for its holder: it must not count.
    Full,
}

/// The names that were seen.
#[derive(Debug, Default)]
pub struct Replays(Mutex<Memory>);

#[derive(Debug, Default)]
struct Memory {
    names: HashSet<Name>,
    /// The same names by the second at which each may be forgotten.
    ends: BTreeMap<u64, Vec<(Name, Holder)>>,
    /// How many of them each holder has.
    held: HashMap<Holder, usize>,
    /// Those of holders whose oldest names give way, in the order in which they came.
    latest: HashMap<Holder, VecDeque<(Name, u64)>>,
}

impl Replays {
    /// Takes note of a name until the Unix second `until`, where fewer than `limit` are remembered at `now`.
    pub fn see(&self, name: &Sha256, until: u64, room: (u64, usize)) -> Seen {
        self.see_of((&[0; 32], usize::MAX), name, until, room)
    }

    /// The same for a name of somebody of whom fewer than `share` are remembered.
    pub fn see_of(
        &self,
        (holder, share): (&Sha256, usize),
        name: &Sha256,
        until: u64,
        (now, limit): (u64, usize),
    ) -> Seen {
        let (holder, name) = short(holder, name);
        let Some(mut memory) = self.without(&name, now) else {
            return Seen::Again;
        };
        if memory.names.len() >= limit || memory.held_by(holder) >= share {
            return Seen::Full;
        }
        memory.take_in((holder, name), until);
        Seen::Fresh
    }

    /// The same, but of somebody who has his share already the oldest name is forgotten.
    pub fn see_latest_of(
        &self,
        (holder, share): (&Sha256, usize),
        name: &Sha256,
        until: u64,
        (now, limit): (u64, usize),
    ) -> Seen {
        let (holder, name) = short(holder, name);
        let Some(mut memory) = self.without(&name, now) else {
            return Seen::Again;
        };
        let gives_way = memory.held_by(holder) >= share;
        if memory.names.len() >= limit.saturating_add(usize::from(gives_way)) {
            return Seen::Full;
        }
        if gives_way && let Some(oldest) = memory.oldest_of(holder) {
            memory.take_out((holder, oldest.0), oldest.1);
        }
        let latest = memory.latest.entry(holder).or_default();
        latest.push_back((name, until));
        memory.take_in((holder, name), until);
        Seen::Fresh
    }

    /// Whether a name is remembered at `now`. It is not taken in.
    pub fn has(&self, name: &Sha256, now: u64) -> bool {
        let (_, name) = short(&[0; 32], name);
        self.without(&name, now).is_none()
    }

    /// Forgets a name of this holder that was taken in until the Unix second `until`, as if it had not been seen.
    pub fn unsee(&self, holder: &Sha256, name: &Sha256, until: u64) {
        let (holder, name) = short(holder, name);
        self.memory().take_out((holder, name), until);
    }

    /// What is remembered at `now`; `None` where this name is.
    fn without(&self, name: &Name, now: u64) -> Option<MutexGuard<'_, Memory>> {
        let mut memory = self.memory();
        memory.forget(now);
        (!memory.names.contains(name)).then_some(memory)
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many names are remembered; some of them may have ended since the last look.
    pub fn len(&self) -> usize {
        self.memory().names.len()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// What is kept of a holder and of a name.
fn short(holder: &Sha256, name: &Sha256) -> (Holder, Name) {
    let (holder, _) = holder.split_first_chunk().expect("8 bytes of 32");
    let (name, _) = name.split_first_chunk().expect("16 bytes of 32");
    (*holder, *name)
}

impl Memory {
    fn held_by(&self, holder: Holder) -> usize {
        self.held.get(&holder).copied().unwrap_or_default()
    }

    fn oldest_of(&self, holder: Holder) -> Option<(Name, u64)> {
        self.latest.get(&holder)?.front().copied()
    }

    fn take_in(&mut self, (holder, name): (Holder, Name), until: u64) {
        self.names.insert(name);
        let held = self.held.entry(holder).or_default();
        *held = held.saturating_add(1);
        self.ends.entry(until).or_default().push((name, holder));
    }

    /// Nothing happens where the name is not there with that end.
    fn take_out(&mut self, (holder, name): (Holder, Name), until: u64) {
        let btree_map::Entry::Occupied(mut ending) = self.ends.entry(until) else {
            return;
        };
        let mut names = ending.get().iter();
        let Some(place) = names.position(|held| *held == (name, holder)) else {
            return;
        };
        ending.get_mut().swap_remove(place);
        if ending.get().is_empty() {
            ending.remove();
        }
        self.drop_name(holder, name);
    }

    fn drop_name(&mut self, holder: Holder, name: Name) {
        self.names.remove(&name);
        if let Entry::Occupied(mut held) = self.held.entry(holder) {
            *held.get_mut() = held.get().saturating_sub(1);
            if *held.get() == 0 {
                held.remove();
            }
        }
        if let Some(latest) = self.latest.get_mut(&holder) {
            latest.retain(|(held, _)| *held != name);
            if latest.is_empty() {
                self.latest.remove(&holder);
            }
        }
    }

    fn forget(&mut self, now: u64) {
        while let Some(ended) = self.ends.first_entry().filter(|first| *first.key() <= now) {
            for (name, holder) in ended.remove() {
                self.drop_name(holder, name);
            }
        }
        // After a rush, the room that it took is given back.
        if self.names.capacity() > LEAST_ROOM.max(self.names.len().saturating_mul(8)) {
            self.names.shrink_to(self.names.len().saturating_mul(2));
            self.held.shrink_to(self.held.len().saturating_mul(2));
            self.latest.shrink_to(self.latest.len().saturating_mul(2));
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::crypto::digest::sha256;

    #[test]
    fn to_ask_for_a_name_takes_no_note_of_it() {
        let (replays, one) = (Replays::default(), sha256(b"one"));
        assert!(!replays.has(&one, 1));
        assert_eq!(replays.see(&one, 10, (1, 9)), Seen::Fresh);
        assert!(replays.has(&one, 9));
        assert!(!replays.has(&one, 10));
    }

    #[test]
    fn a_name_counts_once_until_its_end_and_not_a_second_less() {
        let replays = Replays::default();
        let (one, two) = (sha256(b"one"), sha256(b"two"));
        assert_eq!(replays.see(&one, 160, (100, 10)), Seen::Fresh);
        assert_eq!(replays.see(&one, 160, (100, 10)), Seen::Again);
        assert_eq!(replays.see(&one, 999, (159, 10)), Seen::Again);
        assert_eq!(replays.see(&two, 200, (159, 10)), Seen::Fresh);
        assert_eq!(replays.see(&one, 220, (160, 10)), Seen::Fresh);
        assert_eq!(replays.see(&two, 200, (199, 10)), Seen::Again);
    }

    #[test]
    fn a_full_memory_takes_nothing_in_and_forgets_nothing_early() {
        let replays = Replays::default();
        for n in 0..3_u8 {
            assert_eq!(replays.see(&sha256(&[n]), 160, (100, 3)), Seen::Fresh);
        }
        assert_eq!(replays.see(&sha256(b"more"), 160, (100, 3)), Seen::Full);
        assert_eq!(replays.see(&sha256(&[0]), 160, (159, 3)), Seen::Again);
        assert_eq!(replays.len(), 3);
        assert_eq!(replays.see(&sha256(b"more"), 220, (160, 3)), Seen::Fresh);
        assert_eq!(replays.len(), 1);
    }

    #[test]
    fn a_holder_takes_no_more_than_its_share_and_gets_it_back() {
        let replays = Replays::default();
        let (one, two) = (sha256(b"one"), sha256(b"two"));
        let see = |holder: &Sha256, name: u8, now: u64| {
            replays.see_of((holder, 2), &sha256(&[name]), now + 60, (now, 5))
        };
        assert_eq!(see(&one, 0, 100), Seen::Fresh);
        assert_eq!(see(&one, 1, 110), Seen::Fresh);
        assert_eq!(see(&one, 2, 110), Seen::Full);
        assert_eq!(see(&one, 1, 110), Seen::Again);
        assert_eq!(see(&two, 3, 110), Seen::Fresh);
        assert_eq!(see(&one, 2, 159), Seen::Full);
        assert_eq!(see(&one, 2, 160), Seen::Fresh);
        assert_eq!(see(&one, 4, 160), Seen::Full);
        assert_eq!(replays.len(), 3);
        assert_eq!(see(&two, 5, 999), Seen::Fresh);
        assert_eq!(replays.0.lock().unwrap().held.len(), 1);
    }

    #[test]
    fn of_a_share_that_is_full_the_oldest_name_gives_way() {
        let replays = Replays::default();
        let (one, two) = (sha256(b"one"), sha256(b"two"));
        let see = |holder: &Sha256, name: u8, now: u64| {
            replays.see_latest_of((holder, 2), &sha256(&[name]), now + 60, (now, 3))
        };
        for (name, seen) in [(0, Seen::Fresh), (1, Seen::Fresh), (2, Seen::Fresh)] {
            assert_eq!(see(&one, name, 100 + u64::from(name)), seen);
        }
        assert_eq!(see(&one, 1, 103), Seen::Again);
        assert_eq!(see(&one, 2, 103), Seen::Again);
        assert_eq!(replays.len(), 2);
        assert_eq!(see(&two, 3, 103), Seen::Fresh);
        assert_eq!(see(&two, 4, 103), Seen::Full);
        // In a full memory each still has what it has.
        assert_eq!(see(&one, 5, 103), Seen::Fresh);
        assert_eq!(see(&one, 1, 104), Seen::Fresh);
        assert_eq!(see(&two, 3, 104), Seen::Again);
        assert_eq!(replays.len(), 3);
        assert_eq!(see(&two, 6, 999), Seen::Fresh);
        let memory = replays.0.lock().unwrap();
        assert_eq!((memory.held.len(), memory.latest.len()), (1, 1));
        assert_eq!((memory.names.len(), memory.ends.len()), (1, 1));
    }

    #[test]
    fn what_was_given_back_may_come_again_and_a_look_takes_nothing() {
        let replays = Replays::default();
        let (one, other) = (sha256(b"one"), sha256(b"other"));
        assert!(!replays.has(&one, 100));
        assert_eq!(replays.see(&one, 160, (100, 1)), Seen::Fresh);
        assert!(replays.has(&one, 159));
        assert_eq!(replays.see(&other, 160, (100, 1)), Seen::Full);
        // Not what was taken in later, or by somebody else.
        replays.unsee(&[0; 32], &one, 161);
        replays.unsee(&other, &one, 160);
        replays.unsee(&[0; 32], &other, 160);
        assert!(replays.has(&one, 100));
        replays.unsee(&[0; 32], &one, 160);
        assert_eq!(replays.len(), 0);
        assert_eq!(replays.see(&one, 160, (100, 1)), Seen::Fresh);
        let memory = replays.0.lock().unwrap();
        assert_eq!((memory.held.len(), memory.ends.len()), (1, 1));
    }

    #[test]
    fn the_room_of_a_rush_is_given_back() {
        let replays = Replays::default();
        for n in 0..100_000_u32 {
            let seen = replays.see(&sha256(&n.to_be_bytes()), 160, (100, 1_000_000));
            assert_eq!(seen, Seen::Fresh);
        }
        let room = || replays.0.lock().unwrap().names.capacity();
        assert!(room() >= 100_000);
        assert_eq!(replays.see(&sha256(b"x"), 220, (160, 1)), Seen::Fresh);
        assert!(room() <= LEAST_ROOM, "{}", room());
    }

    proptest! {
        /// Against a plain list that forgets nothing.
        #[test]
        fn agrees_with_a_list(steps in prop::collection::vec((0_u8..20, 0_u64..5, 1_u64..20), 1..200)) {
            let replays = Replays::default();
            let mut list: Vec<(u8, u64)> = Vec::new();
            let mut now = 100;
            for (name, wait, life) in steps {
                now += wait;
                list.retain(|(_, until)| *until > now);
                let expected = if list.iter().any(|(seen, _)| *seen == name) {
                    Seen::Again
                } else if list.len() >= 8 {
                    Seen::Full
                } else {
                    list.push((name, now + life));
                    Seen::Fresh
                };
                prop_assert_eq!(replays.see(&sha256(&[name]), now + life, (now, 8)), expected);
                prop_assert_eq!(replays.len(), list.len());
            }
        }
    }
}
