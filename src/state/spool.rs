//! The memory in which request bodies are held until they are whole: bounded over all requests of the process.
//!
//! Bytes are counted as they are taken, so that a length that is only announced takes nothing. No client may have more
//! than half of it: those who send slowly cannot keep the others out.

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
}

impl Default for Spool {
    fn default() -> Self {
        Self {
            held: AtomicU64::new(0),
            clients: (0..PARTS).map(|_| AtomicU64::new(0)).collect(),
        }
    }
}

/// There is no room for more at present.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no room to hold more of request bodies")]
pub struct Full;

impl Spool {
    /// Bytes held by all requests.
    pub fn bytes(&self) -> u64 {
        self.held.load(Relaxed)
    }

    /// Room for one body of this client, empty at first; `most` is the bound over all.
    pub fn room(self: &Arc<Self>, client: u64, most: u64) -> Room {
        let part = client % u64::try_from(PARTS).unwrap_or(1);
        Room {
            spool: Arc::clone(self),
            part: usize::try_from(part).unwrap_or(0),
            most,
            bytes: 0,
        }
    }
}

/// Takes `bytes` of a counter unless it would go over its bound.
fn take(counter: &AtomicU64, bytes: u64, most: u64) -> Result<(), Full> {
    let more = |held: u64| held.checked_add(bytes).filter(|held| *held <= most);
    counter
        .fetch_update(Relaxed, Relaxed, more)
        .map(drop)
        .map_err(|_| Full)
}

/// The room of one body, given back when it is dropped.
#[derive(Debug)]
pub struct Room {
    spool: Arc<Spool>,
    part: usize,
    most: u64,
    bytes: u64,
}

impl Room {
    /// Takes so many bytes more.
    ///
    /// # Errors
    /// [`Full`]; nothing was taken then.
    pub fn grow(&mut self, bytes: u64) -> Result<(), Full> {
        take(&self.spool.held, bytes, self.most)?;
        let client = self.spool.clients.get(self.part);
        if let Some(Err(full)) = client.map(|held| take(held, bytes, self.most.div_ceil(2))) {
            self.spool.held.fetch_sub(bytes, Relaxed);
            return Err(full);
        }
        self.bytes = self.bytes.saturating_add(bytes);
        Ok(())
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        self.spool.held.fetch_sub(self.bytes, Relaxed);
        if let Some(held) = self.spool.clients.get(self.part) {
            held.fetch_sub(self.bytes, Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_client_has_more_than_half_and_all_no_more_than_all() {
        let spool = Arc::new(Spool::default());
        let mut one = spool.room(1, 100);
        assert_eq!(one.grow(50), Ok(()));
        assert_eq!(one.grow(1), Err(Full));
        let mut other_of_one = spool.room(1, 100);
        assert_eq!(
            other_of_one.grow(1),
            Err(Full),
            "the client's, not the body's"
        );
        let mut two = spool.room(2, 100);
        assert_eq!(two.grow(50), Ok(()));
        assert_eq!(spool.room(3, 100).grow(1), Err(Full));
        assert_eq!(spool.bytes(), 100, "what was refused took nothing");
        drop(one);
        assert_eq!(spool.bytes(), 50);
        assert_eq!(other_of_one.grow(50), Ok(()));
        drop((other_of_one, two));
        assert_eq!(spool.bytes(), 0);
    }

    #[test]
    fn sums_do_not_wrap() {
        let spool = Arc::new(Spool::default());
        let mut room = spool.room(u64::MAX, u64::MAX);
        assert_eq!(room.grow(10), Ok(()));
        assert_eq!(room.grow(u64::MAX), Err(Full));
        assert_eq!(spool.bytes(), 10);
    }
}
