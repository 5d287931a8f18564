//! How much a worker has under way, and what is shed when that is too much.
//!
//! For the listener, which lets nobody new in first, and for the pipeline, which then refuses whoever is nobody in
//! particular, and everybody in the end: those who are known and already connected are served longest. No client may hold
//! so many that it brings the others to that. Each worker counts for itself and has an equal share of
//! `server.limits.requests`, so a request touches no line of memory that another worker writes. Tunnels are not counted:
//! they are connections, and those have caps of their own.

use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering::Relaxed};

/// Parts of all clients that are told apart: the memory is bounded however many there are. Those who share a part share
/// its room; which ones do is drawn anew at each start.
const PARTS: usize = 1024;

/// What is shed, least first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Pressure {
    /// Nothing.
    None,
    /// New connections: from four fifths of the share on.
    Connections,
    /// Also requests of nobody in particular: from nine tenths on.
    Anonymous,
    /// Every further request.
    All,
}

/// The requests that one worker has under way.
#[derive(Debug)]
pub struct Load {
    all: AtomicUsize,
    clients: Box<[AtomicU32]>,
}

impl Default for Load {
    fn default() -> Self {
        Self {
            all: AtomicUsize::new(0),
            clients: (0..PARTS).map(|_| AtomicU32::new(0)).collect(),
        }
    }
}

impl Load {
    /// Counts a request of this client in; the key is a hash.
    pub fn begin(&self, client: u64) {
        self.all.fetch_add(1, Relaxed);
        if let Some(requests) = self.part(client) {
            requests.fetch_add(1, Relaxed);
        }
    }

    /// Counts it out again; once for each begun.
    pub fn end(&self, client: u64) {
        self.all.fetch_sub(1, Relaxed);
        if let Some(requests) = self.part(client) {
            requests.fetch_sub(1, Relaxed);
        }
    }

    /// Requests under way.
    pub fn requests(&self) -> usize {
        self.all.load(Relaxed)
    }

    /// Requests of this client under way, with those of whoever shares its part.
    pub fn of_client(&self, client: u64) -> usize {
        let requests = self.part(client).map_or(0, |part| part.load(Relaxed));
        usize::try_from(requests).unwrap_or(usize::MAX)
    }

    fn part(&self, client: u64) -> Option<&AtomicU32> {
        let part = client % u64::try_from(PARTS).unwrap_or(1);
        self.clients.get(usize::try_from(part).unwrap_or(0))
    }

    /// What to shed now, where `share` is the most requests that this worker may have under way.
    pub fn pressure(&self, share: usize) -> Pressure {
        let requests = self.requests();
        if requests >= share {
            Pressure::All
        } else if requests >= part(share, 9) {
            Pressure::Anonymous
        } else if requests >= part(share, 8) {
            Pressure::Connections
        } else {
            Pressure::None
        }
    }
}

/// So many tenths, rounded up: a share of one is shed at one request, not at none.
const fn part(share: usize, tenths: usize) -> usize {
    share.saturating_mul(tenths).div_ceil(10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sheds_more_the_more_is_under_way() {
        let load = Load::default();
        let mut seen = Vec::new();
        for _ in 0..=10 {
            seen.push(load.pressure(10));
            load.begin(7);
        }
        let mut wanted = vec![Pressure::None; 8];
        wanted.extend([Pressure::Connections, Pressure::Anonymous, Pressure::All]);
        assert_eq!(seen, wanted);
        (0..=10).for_each(|_| load.end(7));
        assert_eq!((load.requests(), load.pressure(10)), (0, Pressure::None));
    }

    #[test]
    fn a_share_of_one_serves_one() {
        let load = Load::default();
        assert_eq!(load.pressure(1), Pressure::None);
        load.begin(7);
        assert_eq!(load.pressure(1), Pressure::All);
    }

    #[test]
    fn clients_are_counted_apart() {
        let load = Load::default();
        load.begin(1);
        load.begin(1);
        load.begin(2);
        load.end(1);
        assert_eq!([1, 2, 3].map(|client| load.of_client(client)), [1, 1, 0]);
        let parts = u64::try_from(PARTS).unwrap();
        assert_eq!(load.of_client(parts + 1), 1, "the table does not grow");
    }
}
