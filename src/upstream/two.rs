//! Opens an HTTP/2 connection to an endpoint and shapes requests for it (RFC 9113).
//!
//! For [`super::shared`] and the health checks. Every limit of the client is stated here. A connection counts as open
//! once the server's own SETTINGS have come: what does not speak HTTP/2 is found out before a request is at stake, and
//! nobody opens more streams than the server takes.

use std::{
    future::poll_fn,
    io,
    pin::Pin,
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    task::Poll,
    time::Duration,
};

use http::{Request, Uri, Version, header, uri};
use hyper::{
    client::conn::http2::{Builder, Connection, SendRequest},
    rt::Executor,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{sync::Notify, task::AbortHandle};

use super::{
    connect::RESPONSE_HEAD_BYTES,
    endpoint::{Address, Endpoint},
    error::UpstreamError,
    heard::{Heard, Listener},
    link::Way,
    stream,
    upload::Upload,
};
use crate::wire::first_settings;

/// Requests on one connection at once, however many more the server would take.
pub const STREAMS: u32 = 100;
/// What a server may send of one answer before the client takes it, in bytes.
const STREAM_WINDOW: u32 = 128 * 1024;
/// The same of all answers together: clients that take nothing must not keep the answers of others from coming.
const CONNECTION_WINDOW: u32 = STREAM_WINDOW * STREAMS;
/// What is held of one request body until the server takes it, in bytes.
const SEND_BYTES: usize = 64 * 1024;
/// The smallest frame size that there is.
const FRAME_BYTES: u32 = 16 * 1024;
/// What is kept of a server's first bytes: one frame of that size and its head.
const GREETING_BYTES: usize = 9 + 16 * 1024;
/// The table of header compression that the server may use, in bytes.
const TABLE_BYTES: u32 = 4096;
/// Ask a server that has requests under way but says nothing.
const PING: Duration = Duration::from_secs(20);
/// How long it may take to answer that.
const PONG: Duration = Duration::from_secs(10);
/// Streams that we reset and still know, so that what the server had on its way is no error, and for how long.
const KNOWN_RESETS: usize = 1024;
const KNOWN_FOR: Duration = Duration::from_secs(10);
/// Broken streams of the server that end the connection.
const LOCAL_RESETS: usize = 1024;
/// Streams of the server's own that it may open and reset; it may open none.
const PUSHED_RESETS: usize = 1;

type Driver = Connection<TokioIo<Heard<Greeting>>, Upload, Spawner>;

/// An open connection.
#[derive(Debug)]
pub struct Two {
    /// Takes requests; may be cloned.
    pub sender: SendRequest<Upload>,
    /// Where it leads.
    pub way: Way,
    driver: Arc<Mutex<Option<Driver>>>,
    greeting: Arc<Greeting>,
    spawner: Spawner,
}

/// Runs what hyper has to run beside the requests, and knows the first of it: that is the connection itself.
#[derive(Clone, Debug, Default)]
struct Spawner {
    connection: Arc<OnceLock<AbortHandle>>,
}

impl<F> Executor<F> for Spawner
where
    F: Future + Send + 'static,
    F::Output: Send,
{
    fn execute(&self, task: F) {
        let spawned = tokio::spawn(task);
        if self.connection.get().is_none() {
            let _ = self.connection.set(spawned.abort_handle());
        }
    }
}

impl Two {
    /// Requests that the connection takes at once: what the server allows now, at most [`STREAMS`].
    pub fn streams(&self) -> usize {
        let most = usize::try_from(STREAMS).unwrap_or(usize::MAX);
        let driver = self.driver.lock().unwrap_or_else(PoisonError::into_inner);
        let allowed = driver.as_ref().map(Driver::current_max_send_streams);
        allowed.unwrap_or(0).min(most)
    }

    /// What the server takes of a body before it says more, in bytes, as its first SETTINGS say.
    pub fn window(&self) -> usize {
        self.greeting.window.load(Ordering::Relaxed)
    }

    /// Closes the connection, whatever is under way on it.
    pub fn close(&self) {
        if let Some(connection) = self.spawner.connection.get() {
            connection.abort();
        }
    }

    /// True when no further request can be sent.
    pub fn is_closed(&self) -> bool {
        self.sender.is_closed()
    }
}

/// Connects within the endpoint's timeout and waits for the server's SETTINGS, for as long again.
///
/// # Errors
/// [`UpstreamError::Connect`] or [`UpstreamError::ConnectTimeout`]; nothing was sent in either case.
pub async fn connect(endpoint: &Endpoint) -> Result<Two, UpstreamError> {
    let limit = endpoint.rules.connect_timeout;
    let (stream, way) = stream::open(endpoint, limit).await?;
    let greeting = Arc::new(Greeting::default());
    let stream = Heard::new(stream, &greeting);
    let spawner = Spawner::default();
    let (sender, driver) = builder(spawner.clone())
        .handshake(TokioIo::new(stream))
        .await
        .map_err(UpstreamError::Broken)?;
    let driver = Arc::new(Mutex::new(Some(driver)));
    tokio::spawn(drive(Arc::clone(&driver), Arc::clone(&greeting)));
    let two = Two {
        sender,
        way,
        driver,
        greeting,
        spawner,
    };
    match tokio::time::timeout(limit, two.greeting.came(&two)).await {
        Ok(true) => Ok(two),
        Ok(false) => Err(UpstreamError::Connect(io::Error::other(
            "the server does not speak HTTP/2",
        ))),
        Err(_) => Err(UpstreamError::ConnectTimeout),
    }
}

/// The client, with every limit stated.
fn builder(spawner: Spawner) -> Builder<Spawner> {
    let mut builder = Builder::new(spawner);
    builder
        .timer(TokioTimer::new())
        .adaptive_window(false)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        // None before its SETTINGS: they are told by this number.
        .initial_max_send_streams(0)
        .max_frame_size(FRAME_BYTES)
        .max_header_list_size(RESPONSE_HEAD_BYTES)
        .header_table_size(TABLE_BYTES)
        .max_concurrent_streams(0)
        .keep_alive_interval(PING)
        .keep_alive_timeout(PONG)
        .keep_alive_while_idle(false)
        .max_concurrent_reset_streams(KNOWN_RESETS)
        .reset_stream_duration(KNOWN_FOR)
        .max_send_buf_size(SEND_BYTES)
        .max_pending_accept_reset_streams(PUSHED_RESETS)
        .max_local_error_reset_streams(LOCAL_RESETS);
    builder
}

/// Runs the connection until its last handle is gone or it breaks.
async fn drive(driver: Arc<Mutex<Option<Driver>>>, greeting: Arc<Greeting>) {
    poll_fn(|cx| {
        let mut held = driver.lock().unwrap_or_else(PoisonError::into_inner);
        match held.as_mut() {
            // Errors reach the requests that wait.
            Some(driver) => Pin::new(driver).poll(cx).map(drop),
            None => Poll::Ready(()),
        }
    })
    .await;
    let ended = driver.lock().unwrap_or_else(PoisonError::into_inner).take();
    drop(ended);
    greeting.read.notify_one();
}

/// Whether the server's first bytes have come.
#[derive(Debug, Default)]
struct Greeting {
    read: Notify,
    over: AtomicBool,
    /// The first frame until it is whole, at most [`GREETING_BYTES`]: a server may send anything for as long as a connection
    /// may take.
    first: Mutex<Vec<u8>>,
    /// Whether the first frame was read.
    told: AtomicBool,
    window: AtomicUsize,
}

impl Listener for Greeting {
    fn hear(&self, came: &[u8]) -> io::Result<()> {
        if !self.over.load(Ordering::Relaxed) {
            self.note(came);
        }
        Ok(())
    }
}

impl Greeting {
    /// Takes note of what came before it was over.
    fn note(&self, bytes: &[u8]) {
        if !self.told.load(Ordering::Relaxed) {
            let mut first = self.first.lock().unwrap_or_else(PoisonError::into_inner);
            let room = GREETING_BYTES.saturating_sub(first.len());
            first.extend_from_slice(bytes.get(..room).unwrap_or(bytes));
            if let Some(window) = first_settings::initial_window(&first) {
                self.window.store(window, Ordering::Relaxed);
                self.told.store(true, Ordering::Relaxed);
                *first = Vec::new();
            }
        }
        self.read.notify_one();
    }

    /// Waits for the SETTINGS; false when the connection ends before.
    async fn came(&self, two: &Two) -> bool {
        // The connection reads in a task of its own, so after each read it is asked what it made of it.
        while two.streams() == 0 {
            if two.is_closed() {
                return false;
            }
            self.read.notified().await;
        }
        self.over.store(true, Ordering::Relaxed);
        true
    }
}

/// Gives a request the form of HTTP/2: `:scheme` of this hop, `:authority` in place of `Host` (RFC 9113 §8.3.1).
///
/// # Errors
/// [`UpstreamError::Unacceptable`] for a host that no URI can hold; what the pipeline judged has none.
pub fn address<B>(request: &mut Request<B>, endpoint: &Endpoint) -> Result<(), UpstreamError> {
    let impossible = || UpstreamError::Unacceptable("authority");
    let host = request.headers_mut().remove(header::HOST);
    let mut parts = std::mem::take(request.uri_mut()).into_parts();
    if let Some(host) = host {
        let host = uri::Authority::try_from(host.as_bytes()).map_err(|_| impossible())?;
        parts.authority = Some(host);
    }
    parts.scheme = Some(match endpoint.address {
        Address::Tls { .. } => uri::Scheme::HTTPS,
        Address::Tcp { .. } | Address::Unix(_) => uri::Scheme::HTTP,
    });
    *request.uri_mut() = Uri::from_parts(parts).map_err(|_| impossible())?;
    *request.version_mut() = Version::HTTP_2;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_what_a_server_sends_first_one_frame_is_kept() {
        let greeting = Greeting::default();
        // A frame that never ends.
        greeting.note(&[0xff, 0xff, 0xff, 4, 0, 0, 0, 0, 0]);
        for _ in 0..100 {
            greeting.note(&[0; 1024]);
        }
        assert_eq!(greeting.first.lock().unwrap().len(), GREETING_BYTES);
        assert!(!greeting.told.load(Ordering::Relaxed));
        let greeting = Greeting::default();
        greeting.note(&[0, 0, 6, 4, 0, 0, 0, 0, 0, 0, 4]);
        greeting.note(&[0, 0, 1, 0]);
        assert_eq!(greeting.window.load(Ordering::Relaxed), 256);
        greeting.note(&[7; 5000]);
        assert!(greeting.first.lock().unwrap().is_empty());
        assert_eq!(greeting.window.load(Ordering::Relaxed), 256);
    }
}
