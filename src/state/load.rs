//! How much a worker has under way, and what is shed when that is too much.
//!
//! For the listener, which lets nobody new in first, and for the pipeline, which then refuses whoever is nobody in
//! particular, and everybody in the end: those who are known and already connected are served longest. Each worker
//! counts for itself and has an equal share of `server.limits.requests`, so a request touches no line of memory that
//! another worker writes. Tunnels are not counted: they are connections, and those have caps of their own.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

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
#[derive(Debug, Default)]
pub struct Load(AtomicUsize);

impl Load {
    /// Counts a request in.
    pub fn begin(&self) {
        self.0.fetch_add(1, Relaxed);
    }

    /// Counts it out again; once for each begun.
    pub fn end(&self) {
        self.0.fetch_sub(1, Relaxed);
    }

    /// Requests under way.
    pub fn requests(&self) -> usize {
        self.0.load(Relaxed)
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
            load.begin();
        }
        let mut wanted = vec![Pressure::None; 8];
        wanted.extend([Pressure::Connections, Pressure::Anonymous, Pressure::All]);
        assert_eq!(seen, wanted);
        (0..=10).for_each(|_| load.end());
        assert_eq!((load.requests(), load.pressure(10)), (0, Pressure::None));
    }

    #[test]
    fn a_share_of_one_serves_one() {
        let load = Load::default();
        assert_eq!(load.pressure(1), Pressure::None);
        load.begin();
        assert_eq!(load.pressure(1), Pressure::All);
    }
}
