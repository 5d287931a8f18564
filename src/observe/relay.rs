//! Carries filled buffers from the workers to the writer of the access log, and empty ones back.
//!
//! For [`super::access_log`]. A bounded list behind a lock that nobody holds across a system call: a channel wakes its
//! reader with a lock of its own taken, and where both share a processor the reader runs at once, finds the lock taken
//! and sleeps a second time. The reader is woken only when it sleeps. Buffers come back, since memory that one thread
//! takes and another frees goes the long way through the allocator, and to the system and back.
//!
//! It does not look into the buffers, nor count what it refuses.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// What one relay has room for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Room {
    /// Buffers that may wait for the reader.
    pub(super) buffers: usize,
    /// Capacity of a buffer worth keeping; what is smaller or twice as large is freed.
    pub(super) capacity: usize,
}

/// What the reader has to do next.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Task {
    /// Write this, and give the buffer back with the next question.
    Write(Vec<u8>),
    /// Open the target again.
    Reopen,
}

/// One giving end; the reader ends when the last of them is gone.
#[derive(Debug)]
pub(super) struct Giver(Arc<Relay>);

/// The end of the one reader; when it is gone, nothing is taken any more.
#[derive(Debug)]
pub(super) struct Reader(Arc<Relay>);

#[derive(Debug)]
struct Relay {
    room: Room,
    state: Mutex<State>,
    news: Condvar,
    end: Condvar,
}

#[derive(Debug, Default)]
struct State {
    filled: VecDeque<Vec<u8>>,
    spare: Vec<Vec<u8>>,
    givers: usize,
    is_asleep: bool,
    must_reopen: bool,
    reading: Reading,
}

/// How far the reader's life has gone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Reading {
    #[default]
    Goes,
    /// It ends after what waits.
    Stops,
    Ended,
}

/// Makes both ends.
pub(super) fn relay(room: Room) -> (Giver, Reader) {
    let state = State {
        givers: 1,
        ..State::default()
    };
    let both = Arc::new(Relay {
        room,
        state: Mutex::new(state),
        news: Condvar::new(),
        end: Condvar::new(),
    });
    (Giver(Arc::clone(&both)), Reader(both))
}

impl Relay {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets go of the lock first, for the reader's sake.
    fn wake(&self, mut state: MutexGuard<'_, State>) {
        let is_asleep = std::mem::take(&mut state.is_asleep);
        drop(state);
        if is_asleep {
            self.news.notify_one();
        }
    }
}

impl Giver {
    /// Hands `lines` over if there is room, and returns an empty buffer in exchange; else gives them back.
    pub(super) fn give(&self, lines: Vec<u8>) -> Result<Vec<u8>, Vec<u8>> {
        let mut state = self.0.state();
        if state.reading == Reading::Ended || state.filled.len() >= self.0.room.buffers {
            return Err(lines);
        }
        state.filled.push_back(lines);
        let spare = state.spare.pop();
        self.0.wake(state);
        Ok(spare.unwrap_or_default())
    }

    /// Asks the reader to open its target again, before anything else.
    pub(super) fn reopen(&self) {
        let mut state = self.0.state();
        state.must_reopen = true;
        self.0.wake(state);
    }

    /// Has the reader end after what waits, and waits for that at most for `patience`.
    pub(super) fn stop(&self, patience: Duration) {
        let mut state = self.0.state();
        if state.reading == Reading::Goes {
            state.reading = Reading::Stops;
        }
        self.0.wake(state);
        let waiting = |state: &mut State| state.reading != Reading::Ended;
        drop(
            self.0
                .end
                .wait_timeout_while(self.0.state(), patience, waiting),
        );
    }
}

impl Clone for Giver {
    fn clone(&self) -> Self {
        self.0.state().givers += 1;
        Self(Arc::clone(&self.0))
    }
}

impl Drop for Giver {
    fn drop(&mut self) {
        let mut state = self.0.state();
        state.givers -= 1;
        self.0.wake(state);
    }
}

impl Reader {
    /// Waits for the next task; none when all is done. `used` is the buffer of the last one, to be filled again.
    pub(super) fn next(&self, used: Option<Vec<u8>>) -> Option<Task> {
        let mut state = self.0.state();
        self.keep(&mut state, used);
        loop {
            if std::mem::take(&mut state.must_reopen) {
                return Some(Task::Reopen);
            }
            if let Some(lines) = state.filled.pop_front() {
                return Some(Task::Write(lines));
            }
            if state.reading == Reading::Stops || state.givers == 0 {
                return None;
            }
            state.is_asleep = true;
            state = self
                .0
                .news
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
            state.is_asleep = false;
        }
    }

    /// One spare buffer for each giver is enough; the rest of a burst is freed.
    fn keep(&self, state: &mut State, used: Option<Vec<u8>>) {
        let capacity = self.0.room.capacity;
        let Some(mut used) = used else { return };
        if state.spare.len() < state.givers && (capacity..2 * capacity).contains(&used.capacity()) {
            used.clear();
            state.spare.push(used);
        }
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.0.state().reading = Reading::Ended;
        self.0.end.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROOM: Room = Room {
        buffers: 2,
        capacity: 64,
    };

    #[test]
    fn what_does_not_fit_comes_back() {
        let (giver, reader) = relay(ROOM);
        assert!(giver.give(b"a".to_vec()).is_ok());
        assert!(giver.give(b"b".to_vec()).is_ok());
        assert_eq!(giver.give(b"c".to_vec()), Err(b"c".to_vec()));
        assert_eq!(reader.next(None), Some(Task::Write(b"a".to_vec())));
        assert!(giver.give(b"d".to_vec()).is_ok());
        drop(reader);
        assert_eq!(giver.give(b"e".to_vec()), Err(b"e".to_vec()));
    }

    #[test]
    fn a_used_buffer_comes_back_empty_and_only_if_of_use() {
        let (giver, reader) = relay(ROOM);
        let hand = |bytes: Vec<u8>| giver.give(bytes).unwrap().capacity();
        for (capacity, comes_back) in [(63, false), (64, true), (127, true), (128, false)] {
            let mut lines = Vec::with_capacity(capacity);
            lines.push(b'a');
            hand(lines);
            let Some(Task::Write(used)) = reader.next(None) else {
                panic!("nothing to write");
            };
            assert!(giver.give(b"b".to_vec()).is_ok());
            assert!(reader.next(Some(used)).is_some());
            let again = hand(b"c".to_vec());
            assert_eq!(again, if comes_back { capacity } else { 0 });
            assert!(reader.next(None).is_some());
        }
    }

    #[test]
    fn no_more_than_one_buffer_a_giver_is_kept() {
        let (giver, reader) = relay(ROOM);
        giver.reopen();
        assert_eq!(
            reader.next(Some(Vec::with_capacity(64))),
            Some(Task::Reopen)
        );
        giver.reopen();
        assert_eq!(
            reader.next(Some(Vec::with_capacity(64))),
            Some(Task::Reopen)
        );
        assert_eq!(giver.give(Vec::new()).unwrap().capacity(), 64);
        assert_eq!(giver.give(Vec::new()).unwrap().capacity(), 0);
    }

    #[test]
    fn the_reader_ends_after_what_waits() {
        let (giver, reader) = relay(ROOM);
        let other = giver.clone();
        assert!(giver.give(b"a".to_vec()).is_ok());
        drop(giver);
        assert!(other.give(b"b".to_vec()).is_ok());
        drop(other);
        assert_eq!(reader.next(None), Some(Task::Write(b"a".to_vec())));
        assert_eq!(reader.next(None), Some(Task::Write(b"b".to_vec())));
        assert_eq!(reader.next(None), None);
    }

    #[test]
    fn a_sleeping_reader_is_woken_for_all_there_is() {
        let (giver, reader) = relay(ROOM);
        let patience = Duration::from_secs(10);
        std::thread::scope(|scope| {
            let tasks = scope.spawn(move || {
                let mut tasks = Vec::new();
                while let Some(task) = reader.next(None) {
                    tasks.push(task);
                }
                tasks
            });
            let asleep = || {
                while !giver.0.state().is_asleep {
                    std::thread::yield_now();
                }
            };
            asleep();
            assert!(giver.give(b"a".to_vec()).is_ok());
            asleep();
            giver.reopen();
            asleep();
            giver.stop(patience);
            assert_eq!(
                tasks.join().unwrap(),
                [Task::Write(b"a".to_vec()), Task::Reopen]
            );
        });
    }
}
