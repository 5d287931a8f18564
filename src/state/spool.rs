//! The memory in which request bodies are held until they are whole: bounded over all requests of the process.
//!
//! Bytes are counted as they are taken, so that a length that is only announced takes nothing. No client may have more
//! than half of it: those who send slowly cannot keep the others out. Nor may all those together of whom nothing is known
//! before their bodies are whole: from many addresses they could take all of it. Of their half one client has a quarter, or
//! one body if that is more.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering::Relaxed},
};

/// Parts of all clients that are told apart; those who share one share its room. Drawn anew at each start.
const PARTS: usize = 1024;

/// What is held now.
#[derive(Debug)]
pub struct Spool {
    held: AtomicU64,
    clients: Box<[AtomicU64]>,
    strangers: AtomicU64,
    /// What each client has as a stranger.
    alone: Box<[AtomicU64]>,
}

/// A counter for each part.
fn parts() -> Box<[AtomicU64]> {
    (0..PARTS).map(|_| AtomicU64::new(0)).collect()
}

impl Default for Spool {
    fn default() -> Self {
        Self {
            held: AtomicU64::new(0),
            clients: parts(),
            strangers: AtomicU64::new(0),
            alone: parts(),
        }
    }
}

/// Who sends a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sender {
    /// Somebody whose head shows who it is.
    Known,
    /// Somebody whom nothing but the whole body could show.
    Stranger,
}

/// Bounds in bytes.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// On the bodies of all.
    pub all: u64,
    /// On one body.
    pub body: u64,
}

/// There is no room for more at present: whose bound is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Full {
    /// That of all.
    #[error("no room to hold more of request bodies")]
    All,
    /// That of one client.
    #[error("no room to hold more request bodies of this client")]
    Client,
    /// That of all strangers.
    #[error("no room to hold more request bodies of strangers")]
    Strangers,
}

impl Spool {
    /// Bytes held by all requests.
    pub fn bytes(&self) -> u64 {
        self.held.load(Relaxed)
    }

    /// Room for one body of this client, empty at first.
    pub fn room(self: &Arc<Self>, (client, sender): (u64, Sender), bounds: Bounds) -> Room {
        let part = client % u64::try_from(PARTS).unwrap_or(1);
        Room {
            spool: Arc::clone(self),
            part: usize::try_from(part).unwrap_or(0),
            sender,
            bounds,
            bytes: 0,
        }
    }
}

/// Takes `bytes` of a counter unless it would go over its bound.
fn takes(counter: &AtomicU64, bytes: u64, most: u64) -> bool {
    let more = |held: u64| held.checked_add(bytes).filter(|held| *held <= most);
    counter.fetch_update(Relaxed, Relaxed, more).is_ok()
}

/// The room of one body, given back when it is dropped.
#[derive(Debug)]
pub struct Room {
    spool: Arc<Spool>,
    part: usize,
    sender: Sender,
    bounds: Bounds,
    bytes: u64,
}

impl Room {
    /// Takes so many bytes more.
    ///
    /// # Errors
    /// [`Full`]; nothing was taken then.
    pub fn grow(&mut self, bytes: u64) -> Result<(), Full> {
        for (place, (counter, most, full)) in self.counters().enumerate() {
            if !takes(counter, bytes, most) {
                self.give_back(bytes, place);
                return Err(full);
            }
        }
        self.bytes = self.bytes.saturating_add(bytes);
        Ok(())
    }

    /// All that its bytes are counted in, with the bound that each has.
    fn counters(&self) -> impl Iterator<Item = (&AtomicU64, u64, Full)> {
        let half = self.bounds.all.div_ceil(2);
        let alone = half.div_ceil(4).max(self.bounds.body);
        let counters = [
            (Some(&self.spool.held), self.bounds.all, Full::All),
            (self.spool.clients.get(self.part), half, Full::Client),
            (self.spool.alone.get(self.part), alone, Full::Client),
            (Some(&self.spool.strangers), half, Full::Strangers),
        ];
        let counted = match self.sender {
            Sender::Known => 2,
            Sender::Stranger => 4,
        };
        let counters = counters.into_iter().take(counted);
        counters.filter_map(|(counter, most, full)| Some((counter?, most, full)))
    }

    /// Takes bytes out of the first so many of the counters.
    fn give_back(&self, bytes: u64, counters: usize) {
        for (counter, ..) in self.counters().take(counters) {
            counter.fetch_sub(bytes, Relaxed);
        }
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        self.give_back(self.bytes, usize::MAX);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// So many bytes over all, and one body may have none of them for itself.
    fn of(all: u64) -> Bounds {
        Bounds { all, body: 0 }
    }

    #[test]
    fn no_client_has_more_than_half_and_all_no_more_than_all() {
        let spool = Arc::new(Spool::default());
        let mut one = spool.room((1, Sender::Known), of(100));
        assert_eq!(one.grow(50), Ok(()));
        assert_eq!(one.grow(1), Err(Full::Client));
        let mut other_of_one = spool.room((1, Sender::Known), of(100));
        assert_eq!(
            other_of_one.grow(1),
            Err(Full::Client),
            "the client's, not the body's"
        );
        let mut two = spool.room((2, Sender::Known), of(100));
        assert_eq!(two.grow(50), Ok(()));
        assert_eq!(
            spool.room((3, Sender::Known), of(100)).grow(1),
            Err(Full::All)
        );
        assert_eq!(spool.bytes(), 100, "what was refused took nothing");
        drop(one);
        assert_eq!(spool.bytes(), 50);
        assert_eq!(other_of_one.grow(50), Ok(()));
        drop((other_of_one, two));
        assert_eq!(spool.bytes(), 0);
    }

    #[test]
    fn all_strangers_have_no_more_than_half_and_leave_the_rest_to_the_known() {
        let spool = Arc::new(Spool::default());
        let body = Bounds { all: 100, body: 30 };
        let stranger = |client| spool.room((client, Sender::Stranger), body);
        let (mut one, mut two) = (stranger(1), stranger(2));
        assert_eq!(one.grow(30), Ok(()));
        assert_eq!(two.grow(20), Ok(()));
        assert_eq!(two.grow(1), Err(Full::Strangers));
        assert_eq!(stranger(3).grow(1), Err(Full::Strangers));
        assert_eq!(spool.bytes(), 50, "what was refused took nothing");
        let mut known = spool.room((2, Sender::Known), body);
        assert_eq!(known.grow(31), Err(Full::Client), "strangers are clients");
        assert_eq!(known.grow(30), Ok(()));
        assert_eq!(spool.room((3, Sender::Known), body).grow(20), Ok(()));
        drop(one);
        assert_eq!(stranger(3).grow(30), Ok(()));
        drop((two, known));
        assert_eq!(spool.bytes(), 0);
        assert_eq!(stranger(4).grow(30), Ok(()));
    }

    #[test]
    fn one_stranger_has_a_quarter_of_their_half_or_one_body() {
        let spool = Arc::new(Spool::default());
        let bounds = |body| Bounds { all: 800, body };
        let room = |client, body| spool.room((client, Sender::Stranger), bounds(body));
        let (mut one, mut more) = (room(1, 10), room(1, 10));
        assert_eq!(one.grow(60), Ok(()));
        assert_eq!(more.grow(40), Ok(()));
        assert_eq!(more.grow(1), Err(Full::Client));
        assert_eq!(room(2, 10).grow(101), Err(Full::Client));
        assert_eq!(spool.bytes(), 100, "what was refused took nothing");
        // What it holds as one who is known is not in the way of that.
        let mut known = spool.room((1, Sender::Known), bounds(10));
        assert_eq!(known.grow(200), Ok(()));
        drop(one);
        assert_eq!(more.grow(60), Ok(()));
        drop((more, known));
        assert_eq!(room(1, 250).grow(250), Ok(()), "one whole body always may");
        assert_eq!(room(1, 250).grow(251), Err(Full::Client));
    }

    #[test]
    fn sums_do_not_wrap() {
        let spool = Arc::new(Spool::default());
        let mut room = spool.room((u64::MAX, Sender::Known), of(u64::MAX));
        assert_eq!(room.grow(10), Ok(()));
        assert_eq!(room.grow(u64::MAX), Err(Full::All));
        assert_eq!(spool.bytes(), 10);
    }
}
