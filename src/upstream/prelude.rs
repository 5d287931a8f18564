//! What a backend sends on an HTTP/1.1 connection before the head of its answer has come: interim answers (RFC 9110 §15.2).
//!
//! hyper reads and drops them one by one, for as long as they come. So the bytes are counted while a request waits, and
//! beyond a bound the connection breaks. What is read ahead of the body behind the head counts too; the bound leaves room
//! for that. Where interim answers are passed on, [`crate::exchange::hints`] bounds their number.

use std::{
    io,
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
};

use super::heard::Listener;

/// The most that may come before a head is taken, in bytes: more than twice what hyper reads ahead.
const MOST: usize = 1 << 20;

/// The count of one connection, begun anew with each request.
#[derive(Debug, Default)]
pub struct Prelude {
    counts: AtomicBool,
    bytes: AtomicUsize,
}

impl Prelude {
    /// A request waits for its head from now on.
    pub fn begin(&self) {
        self.bytes.store(0, Ordering::Relaxed);
        self.counts.store(true, Ordering::Relaxed);
    }

    /// The head has come, or is waited for no longer.
    pub fn end(&self) {
        self.counts.store(false, Ordering::Relaxed);
    }

    /// Whether more came than may.
    pub fn is_over(&self) -> bool {
        self.bytes.load(Ordering::Relaxed) > MOST
    }

    /// Counts what was read; false when that is too much.
    fn takes(&self, bytes: usize) -> bool {
        if !self.counts.load(Ordering::Relaxed) {
            return true;
        }
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        !self.is_over()
    }
}

impl Listener for Prelude {
    fn hear(&self, came: &[u8]) -> io::Result<()> {
        if self.takes(came.len()) {
            Ok(())
        } else {
            Err(io::Error::other("interim answers without end"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_request_may_be_kept_waiting_by_as_much() {
        let prelude = Prelude::default();
        assert!(prelude.takes(MOST + 1), "nobody waits");
        for _ in 0..2 {
            prelude.begin();
            assert!(prelude.takes(MOST) && !prelude.is_over());
            assert!(!prelude.takes(1) && prelude.is_over());
        }
        prelude.begin();
        prelude.end();
        assert!(
            prelude.takes(MOST + 1) && !prelude.is_over(),
            "it is a body"
        );
    }
}
