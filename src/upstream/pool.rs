//! Idle connections to one endpoint, for one worker: last in, first out.
//!
//! The mutex is taken by its own worker only, so it is never contended. Connections at the bottom that sat longer
//! than the idle timeout are dropped when one is put back or when the worker sweeps.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use super::link::Link;

/// A connection that waits for its next request.
#[derive(Debug)]
pub struct Idle {
    /// The connection.
    pub link: Link,
    /// When it was put back.
    pub since: Instant,
}

/// The idle connections of one worker to one endpoint.
#[derive(Debug)]
pub struct Pool {
    idle: Mutex<Vec<Idle>>,
    limit: usize,
    timeout: Duration,
}

impl Pool {
    /// An empty pool that keeps at most `limit` connections, each for at most `timeout`.
    pub fn new(limit: usize, timeout: Duration) -> Self {
        Self {
            idle: Mutex::new(Vec::new()),
            limit,
            timeout,
        }
    }

    /// The freshest connection that is still open and in time.
    pub fn take(&self, now: Instant) -> Option<Idle> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        while let Some(candidate) = idle.pop() {
            if !candidate.link.sender.is_closed()
                && now.duration_since(candidate.since) < self.timeout
            {
                return Some(candidate);
            }
        }
        None
    }

    /// Puts a connection back; when the pool is full it is closed instead.
    pub fn put(&self, link: Link, now: Instant) {
        if link.sender.is_closed() {
            return;
        }
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < self.limit {
            idle.push(Idle { link, since: now });
        }
    }

    /// Drops what is closed or sat too long.
    pub fn sweep(&self, now: Instant) {
        self.idle
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .retain(|c| !c.link.sender.is_closed() && now.duration_since(c.since) < self.timeout);
    }

    /// How many connections wait.
    pub fn len(&self) -> usize {
        self.idle
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .len()
    }

    /// True when none waits.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}
