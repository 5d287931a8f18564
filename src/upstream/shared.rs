//! HTTP/2 connections of one worker to one endpoint, which its requests share.
//!
//! There is one, and another one only while each that there is carries as many requests as its server takes; the number
//! is bounded, and beyond it a request waits, for as long as a connection may take. One is opened at a time, so that a
//! burst of requests finds the connection that the first of them opens. [`ENDING`] times as many may end: a server that
//! closes each to further requests while one is under way must not have connections without end, and whoever holds one
//! under way must not keep others from the server, so the one that began to end first makes room.
//!
//! A server that has answered before a request body had ended, and neither takes the rest nor resets the stream, keeps
//! that stream counted. For as long as an unused connection is kept this is borne; then the connection gets no further
//! requests, and is closed once no others are under way on it. So is one that the server takes no further requests on,
//! and one whose endpoint is given up.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use hyper::client::conn::http2::SendRequest;
use tokio::sync::Notify;

use super::{
    endpoint::Endpoint,
    error::UpstreamError,
    two::{self, Two},
    upload::Upload,
};
use crate::state::clock;

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
    /// For the requests under way alone: with streams that do not end, to an address that is the server's no more, or
    /// closed to others by the server.
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
    /// Nobody but the requests under way knows of it any more.
    is_given_up: AtomicBool,
}

/// How many connections may end for each that may be open.
const ENDING: usize = 8;
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
            is_given_up: AtomicBool::new(false),
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

    /// Closes it where nobody would see later that nothing but abandoned bodies is under way. Without these it ends by
    /// itself.
    fn close_if_given_up(&self) {
        if self.is_given_up.load(Ordering::Acquire)
            && self.requests.load(Ordering::Acquire) > 0
            && self.is_deserted()
        {
            self.two.close();
        }
    }

    /// Whether nothing but abandoned bodies is under way.
    fn is_deserted(&self) -> bool {
        self.requests.load(Ordering::Acquire) <= self.abandoned(|_| ())
    }
}

/// Room for one request on a connection, in the hands of whoever waits for the answer.
#[derive(Debug)]
pub struct Slot(Arc<Room>);

/// The room itself: given up once the answer is done with and the body of the request is sent or dropped, to be true to
/// the server's count of streams.
#[derive(Debug)]
pub struct Room {
    on: Arc<Shareable>,
    freed: Arc<Notify>,
    /// Since when the body is all that keeps it, in milliseconds of the monotonic clock.
    abandoned_ms: AtomicU64,
}

impl Room {
    /// What the server takes of a body before it says more, in bytes.
    pub fn window(&self) -> usize {
        self.on.two.window()
    }
}

impl Slot {
    fn on(connection: &Arc<Shareable>, freed: &Arc<Notify>) -> Self {
        connection.requests.fetch_add(1, Ordering::AcqRel);
        Self(Arc::new(Room {
            on: Arc::clone(connection),
            freed: Arc::clone(freed),
            abandoned_ms: AtomicU64::new(NEVER),
        }))
    }

    /// The connection's handle.
    pub fn sender(&self) -> SendRequest<Upload> {
        self.0.on.two.sender.clone()
    }

    /// What the body of the request is to keep.
    pub fn room(&self) -> &Arc<Room> {
        &self.0
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        // The body may go at this very moment; then this is taken back at once.
        if Arc::strong_count(&self.0) > 1 {
            let now_ms = clock::now_ms();
            self.0.abandoned_ms.store(now_ms, Ordering::Release);
            self.0.on.abandoned(|all| all.push(now_ms));
            self.0.on.close_if_given_up();
            // What nobody but bodies keep is closed by whoever waits.
            self.0.freed.notify_one();
        }
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        let abandoned_ms = *self.abandoned_ms.get_mut();
        if abandoned_ms != NEVER {
            self.on.abandoned(|all| {
                if let Some(place) = all.iter().position(|since| *since == abandoned_ms) {
                    all.swap_remove(place);
                }
            });
        }
        self.on.since_ms.store(clock::now_ms(), Ordering::Relaxed);
        self.on.requests.fetch_sub(1, Ordering::AcqRel);
        self.on.close_if_given_up();
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
            Err(_) if self.is_full() => Err(UpstreamError::Full),
            Err(_) => Err(UpstreamError::ConnectTimeout),
        }
    }

    async fn further(&self, endpoint: &Endpoint) -> Result<Slot, UpstreamError> {
        let _turn = self.turn.lock().await;
        loop {
            if let Some(slot) = self.free(endpoint) {
                return Ok(slot);
            }
            if self.is_full() {
                self.freed.notified().await;
            } else {
                let fresh = Shareable::new(two::connect(endpoint).await?);
                self.lock().open.push(Arc::new(fresh));
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
        Some(Slot::on(found, &self.freed))
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
            let idle = now.saturating_sub(one.since_ms.load(Ordering::Relaxed)) >= timeout;
            one.requests.load(Ordering::Acquire) > 0 || !idle && !one.two.is_closed()
        });
        let before = open.len();
        leaving.extend(open.extract_if(.., |one| {
            one.two.is_closed() || one.is_clogged(now, timeout)
        }));
        if open.len() < before {
            // Whoever waits for room may open another connection.
            self.freed.notify_one();
        }
        // Streams that are abandoned would keep one that nobody knows of any more.
        leaving.retain(|one| {
            let ends = one.is_deserted();
            if ends {
                one.two.close();
            }
            !ends
        });
        let most = self.limit.saturating_mul(ENDING);
        let beyond = leaving.len().saturating_sub(most);
        for first in leaving.drain(..beyond) {
            first.two.close();
        }
    }

    /// Whether no further connection may be made for further requests.
    pub fn is_full(&self) -> bool {
        self.lock().open.len() >= self.limit
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        let held = self.held.get_mut().unwrap_or_else(PoisonError::into_inner);
        for one in held.open.iter().chain(&held.leaving) {
            one.is_given_up.store(true, Ordering::Release);
            one.close_if_given_up();
        }
    }
}
