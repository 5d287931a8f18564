//! Early hints (RFC 8297) on their way from a backend's connection to that of the client.
//!
//! They come while a request waits for its answer, on another task, and go out on the client's connection before the
//! head of the answer. So a connection has a place for them, which is open from the time at which a request is sent on
//! until its answer is there, to that request alone: what comes early or late is dropped. Counted, since a backend may
//! send interim answers without end.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    task::Waker,
};

use bytes::Bytes;

use super::connection::Connection;

/// Hints that are passed on of one answer; further ones are dropped.
const PASSED: usize = 8;
/// Interim answers of all kinds that a backend may send before an answer.
const MET: usize = 64;

/// The place for hints of one connection.
#[derive(Debug, Default)]
pub struct Hints {
    /// Most requests have none: this is what they pay.
    is_open: AtomicBool,
    slot: Mutex<Slot>,
}

#[derive(Debug, Default)]
struct Slot {
    turns: u64,
    open: Option<Box<Open>>,
}

#[derive(Debug, Default)]
struct Open {
    met: usize,
    passed: usize,
    waiting: VecDeque<Bytes>,
    /// The task of the client's connection, which both writes the hints and waits for the answer.
    task: Option<Waker>,
}

/// The time in which one request may be given hints; over when dropped.
#[derive(Debug)]
pub struct Turn {
    connection: Arc<Connection>,
    number: u64,
}

impl Hints {
    /// The next hint to write. Without one the task is woken when it comes.
    pub fn next(&self, task: &Waker) -> Option<Bytes> {
        if !self.is_open.load(Ordering::Acquire) {
            return None;
        }
        let mut slot = self.slot();
        let open = slot.open.as_mut()?;
        open.is_awaited_by(task);
        open.waiting.pop_front()
    }

    /// Takes note of an interim answer to the request of this turn; `hint` is what is to be passed on of it.
    pub fn put(&self, turn: u64, hint: Option<Bytes>) {
        let mut slot = self.slot();
        if slot.turns != turn {
            return;
        }
        let Some(open) = slot.open.as_mut() else {
            return;
        };
        open.met += 1;
        if let Some(hint) = hint.filter(|_| open.passed < PASSED) {
            open.passed += 1;
            open.waiting.push_back(hint);
        } else if open.met <= MET {
            return;
        }
        let task = open.task.take();
        drop(slot);
        if let Some(task) = task {
            task.wake();
        }
    }

    fn slot(&self) -> MutexGuard<'_, Slot> {
        self.slot.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Open {
    fn is_awaited_by(&mut self, task: &Waker) {
        match &mut self.task {
            Some(held) => held.clone_from(task),
            none => *none = Some(task.clone()),
        }
    }
}

impl Turn {
    /// Opens the place to the request that is being answered on this connection.
    pub fn begin(connection: &Arc<Connection>) -> Self {
        let hints = &connection.hints;
        let mut slot = hints.slot();
        slot.turns += 1;
        slot.open = Some(Box::default());
        hints.is_open.store(true, Ordering::Release);
        Self {
            connection: Arc::clone(connection),
            number: slot.turns,
        }
    }

    /// What interim answers are put under, see [`Hints::put`].
    pub fn number(&self) -> u64 {
        self.number
    }

    /// Whether there were more interim answers than a backend may send. Until then the task is woken when there are.
    pub fn is_flooded(&self, task: &Waker) -> bool {
        let mut slot = self.connection.hints.slot();
        slot.open.as_mut().is_some_and(|open| {
            open.is_awaited_by(task);
            open.met > MET
        })
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let hints = &self.connection.hints;
        let mut slot = hints.slot();
        if slot.turns == self.number {
            slot.open = None;
            hints.is_open.store(false, Ordering::Release);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        net::{Ipv4Addr, SocketAddr},
        sync::atomic::AtomicUsize,
        task::Wake,
    };

    use super::*;

    #[derive(Default)]
    struct Woken(AtomicUsize);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    fn connection() -> Arc<Connection> {
        Arc::new(Connection::new(
            SocketAddr::from((Ipv4Addr::LOCALHOST, 1)),
            None,
        ))
    }

    fn put(connection: &Connection, turn: u64, text: &'static str) {
        let hint = Bytes::from_static(text.as_bytes());
        connection.hints.put(turn, Some(hint));
    }

    /// The next hint as text.
    fn next(connection: &Connection, task: &Waker) -> String {
        let hint = connection.hints.next(task);
        String::from_utf8(hint.unwrap_or_default().to_vec()).expect("text")
    }

    #[test]
    fn hints_go_out_in_order_within_their_turn_and_wake_who_writes() {
        let connection = connection();
        let woken = Arc::new(Woken::default());
        let task = Waker::from(Arc::clone(&woken));
        let turn = Turn::begin(&connection);
        assert_eq!(next(&connection, &task), "");
        put(&connection, turn.number(), "a");
        put(&connection, turn.number(), "b");
        assert_eq!(woken.0.load(Ordering::SeqCst), 1);
        for expected in ["a", "b", ""] {
            assert_eq!(next(&connection, &task), expected);
        }
    }

    #[test]
    fn nothing_goes_from_one_turn_to_another() {
        let connection = connection();
        let task = Waker::noop();
        put(&connection, 0, "before any");
        let first = Turn::begin(&connection);
        let late = first.number();
        put(&connection, late, "a");
        drop(first);
        assert_eq!(next(&connection, task), "", "the answer is there");
        put(&connection, late, "late");
        let second = Turn::begin(&connection);
        put(&connection, late, "late");
        put(&connection, second.number() + 1, "early");
        assert_eq!(next(&connection, task), "");
        put(&connection, second.number(), "b");
        assert_eq!(next(&connection, task), "b");
    }

    #[test]
    fn what_is_passed_on_and_what_may_come_is_bounded() {
        let connection = connection();
        let woken = Arc::new(Woken::default());
        let task = Waker::from(Arc::clone(&woken));
        let turn = Turn::begin(&connection);
        for _ in 0..=PASSED {
            put(&connection, turn.number(), "a");
        }
        let passed = std::iter::from_fn(|| connection.hints.next(&task)).count();
        assert_eq!(passed, PASSED);
        for _ in PASSED + 1..MET {
            connection.hints.put(turn.number(), None);
        }
        assert!(!turn.is_flooded(&task));
        assert_eq!(woken.0.load(Ordering::SeqCst), 0);
        connection.hints.put(turn.number(), None);
        assert_eq!(woken.0.load(Ordering::SeqCst), 1);
        assert!(turn.is_flooded(&task));
    }
}
