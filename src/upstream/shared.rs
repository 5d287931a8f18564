//! HTTP/2 connections of one worker to one endpoint, which its requests share.
//!
//! There is one, and another one only while each that there is carries as many requests as its server takes; the number
//! is bounded, and beyond it a request waits, for as long as a connection may take. One is opened at a time, so that a
//! burst of requests finds the connection that the first of them opens.
//!
//! A server that has answered before a request body had ended, and neither takes the rest nor resets the stream, keeps
//! that stream counted. For as long as an unused connection is kept this is borne; then the connection gets no further
//! requests, and is closed once no others are under way on it.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use hyper::client::conn::http2::SendRequest;
use tokio::sync::Notify;

use super::{
    endpoint::Endpoint,
    error::UpstreamError,
    two::{self, Two},
};
use crate::{state::clock, wire::body::ClientBody};

/// The shared connections.
#[derive(Debug)]
pub struct Shared {
    held: Mutex<Held>,
    turn: tokio::sync::Mutex<()>,
    freed: Arc<Notify>,
    limit: usize,
    timeout: Duration,
}

#[derive(Debug, Default)]
struct Held {
    /// For further requests.
    open: Vec<Arc<Shareable>>,
    /// For the requests under way alone: with streams that do not end, or to an address that is the server's no more.
    leaving: Vec<Arc<Shareable>>,
}

#[derive(Debug)]
struct Shareable {
    two: Two,
    requests: AtomicUsize,
    /// When the last request left it, in milliseconds of the monotonic clock.
    since_ms: AtomicU64,
    /// When each of the bodies was abandoned that still have a stream; no more than there are streams.
    abandoned: Mutex<Vec<u64>>,
    /// The first of them.
    clogs_since_ms: AtomicU64,
}

/// No body that was abandoned has a stream.
const NEVER: u64 = u64::MAX;

impl Shareable {
    fn new(two: Two) -> Self {
        Self {
            two,
            requests: AtomicUsize::new(0),
            since_ms: AtomicU64::new(clock::now_ms()),
            abandoned: Mutex::default(),
            clogs_since_ms: AtomicU64::new(NEVER),
        }
    }

    /// Changes what is known of abandoned bodies, and gives their number.
    fn abandoned(&self, change: impl FnOnce(&mut Vec<u64>)) -> usize {
        let mut all = self
            .abandoned
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        change(&mut all);
        let first = all.iter().min().copied().unwrap_or(NEVER);
        self.clogs_since_ms.store(first, Ordering::Relaxed);
        all.len()
    }

    fn is_clogged(&self, now: u64, timeout: u64) -> bool {
        let since = self.clogs_since_ms.load(Ordering::Relaxed);
        since != NEVER && now.saturating_sub(since) >= timeout
    }

    /// Whether nothing but abandoned bodies is under way.
    fn is_deserted(&self) -> bool {
        self.requests.load(Ordering::Acquire) <= self.abandoned(|_| ())
    }
}

/// Room for one request on a connection, given up on drop: once its stream is over, to be true to the server's count.
#[derive(Debug)]
pub struct Slot {
    on: Arc<Shareable>,
    freed: Arc<Notify>,
}

impl Slot {
    /// The connection's handle.
    pub fn sender(&self) -> SendRequest<ClientBody> {
        self.on.two.sender.clone()
    }
}

/// The room of a request body that nobody waits for any more, given up once nobody sends it either.
#[derive(Debug)]
pub struct Abandoned {
    slot: Slot,
    since_ms: u64,
}

impl Slot {
    /// Says that the body of the request is abandoned.
    pub fn abandon(self) -> Abandoned {
        let since_ms = clock::now_ms();
        self.on.abandoned(|all| all.push(since_ms));
        Abandoned {
            slot: self,
            since_ms,
        }
    }
}

impl Drop for Abandoned {
    fn drop(&mut self) {
        self.slot.on.abandoned(|all| {
            if let Some(place) = all.iter().position(|since| *since == self.since_ms) {
                all.swap_remove(place);
            }
        });
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.on.since_ms.store(clock::now_ms(), Ordering::Relaxed);
        self.on.requests.fetch_sub(1, Ordering::AcqRel);
        self.freed.notify_one();
    }
}

impl Shared {
    /// No connection yet; at most `limit`, each kept for `timeout` without a request.
    pub fn new(limit: usize, timeout: Duration) -> Self {
        Self {
            held: Mutex::default(),
            turn: tokio::sync::Mutex::new(()),
            freed: Arc::new(Notify::new()),
            limit,
            timeout,
        }
    }

    /// Room on a connection that is there, or on a new one, or on the first that has some.
    ///
    /// # Errors
    /// Those of [`two::connect`]; [`UpstreamError::Full`] when nothing became free in the time for a connection.
    pub async fn slot(&self, endpoint: &Endpoint) -> Result<Slot, UpstreamError> {
        if let Some(slot) = self.free(endpoint) {
            return Ok(slot);
        }
        let limit = endpoint.rules.connect_timeout;
        // Rare beside shared connections, and its future is large: it holds a TLS handshake.
        match tokio::time::timeout(limit, Box::pin(self.further(endpoint))).await {
            Ok(found) => found,
            Err(_) if self.len() >= self.limit => Err(UpstreamError::Full),
            Err(_) => Err(UpstreamError::ConnectTimeout),
        }
    }

    async fn further(&self, endpoint: &Endpoint) -> Result<Slot, UpstreamError> {
        let _turn = self.turn.lock().await;
        loop {
            if let Some(slot) = self.free(endpoint) {
                return Ok(slot);
            }
            if self.len() < self.limit {
                let fresh = Shareable::new(two::connect(endpoint).await?);
                self.lock().open.push(Arc::new(fresh));
            } else {
                self.freed.notified().await;
            }
        }
    }

    /// Room on the first connection that has some, so that others come to rest.
    fn free(&self, endpoint: &Endpoint) -> Option<Slot> {
        let mut held = self.lock();
        self.tidy(&mut held);
        let Held { open, leaving } = &mut *held;
        leaving.extend(open.extract_if(.., |one| !endpoint.is_led_to(one.two.way)));
        let found = open.iter().find(|one| {
            let requests = one.requests.load(Ordering::Acquire);
            requests < one.two.streams()
        })?;
        found.requests.fetch_add(1, Ordering::AcqRel);
        Some(Slot {
            on: Arc::clone(found),
            freed: Arc::clone(&self.freed),
        })
    }

    /// Drops what is closed or was not used for too long; the requests under way on it go on.
    pub fn sweep(&self) {
        self.tidy(&mut self.lock());
    }

    fn tidy(&self, held: &mut Held) {
        let Held { open, leaving } = held;
        if open.is_empty() && leaving.is_empty() {
            return;
        }
        let now = clock::now_ms();
        let timeout = u64::try_from(self.timeout.as_millis()).unwrap_or(u64::MAX);
        open.retain(|one| {
            let idle = one.requests.load(Ordering::Acquire) == 0
                && now.saturating_sub(one.since_ms.load(Ordering::Relaxed)) >= timeout;
            !idle && !one.two.is_closed()
        });
        let before = open.len();
        leaving.extend(open.extract_if(.., |one| one.is_clogged(now, timeout)));
        if open.len() < before {
            // Whoever waits for room may open another connection.
            self.freed.notify_one();
        }
        leaving.retain(|one| {
            let ends = one.is_deserted();
            if ends {
                one.two.close();
            }
            !ends && !one.two.is_closed()
        });
    }

    /// How many connections there are for further requests.
    pub fn len(&self) -> usize {
        self.lock().open.len()
    }

    /// True when there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
