//! HTTP/2 connections of one worker to one endpoint, which its requests share.
//!
//! There is one, and another one only while each that there is carries as many requests as its server takes; the number
//! is bounded, and beyond it a request waits, for as long as a connection may take. One is opened at a time, so that a
//! burst of requests finds the connection that the first of them opens.

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
    open: Mutex<Vec<Arc<Shareable>>>,
    turn: tokio::sync::Mutex<()>,
    freed: Arc<Notify>,
    limit: usize,
    timeout: Duration,
}

#[derive(Debug)]
struct Shareable {
    two: Two,
    requests: AtomicUsize,
    /// When the last request left it, in milliseconds of the monotonic clock.
    since_ms: AtomicU64,
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
            open: Mutex::new(Vec::new()),
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
                let fresh = Shareable {
                    two: two::connect(endpoint).await?,
                    requests: AtomicUsize::new(0),
                    since_ms: AtomicU64::new(clock::now_ms()),
                };
                self.lock().push(Arc::new(fresh));
            } else {
                self.freed.notified().await;
            }
        }
    }

    /// Room on the first connection that has some, so that others come to rest.
    fn free(&self, endpoint: &Endpoint) -> Option<Slot> {
        let mut open = self.lock();
        self.tidy(&mut open);
        open.retain(|one| endpoint.is_led_to(one.two.way));
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

    fn tidy(&self, open: &mut Vec<Arc<Shareable>>) {
        if open.is_empty() {
            return;
        }
        let now = clock::now_ms();
        let timeout = u64::try_from(self.timeout.as_millis()).unwrap_or(u64::MAX);
        open.retain(|one| {
            let idle = one.requests.load(Ordering::Acquire) == 0
                && now.saturating_sub(one.since_ms.load(Ordering::Relaxed)) >= timeout;
            !idle && !one.two.is_closed()
        });
    }

    /// How many connections there are.
    pub fn len(&self) -> usize {
        self.lock().len()
    }

    /// True when there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Arc<Shareable>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
