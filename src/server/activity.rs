//! What a client connection is doing, kept in a few atomics: for its watchdog, its service and its log line.
//!
//! The guarded stream writes here, the service says which requests are in flight, and [`watch`] finds out when the
//! connection has overstayed. Times are whole milliseconds since the connection was accepted, read only where a deadline
//! begins: one clock reading a request in the usual case. It closes nothing itself.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::{Poll, Waker, ready};
use std::time::{Duration, Instant};

use tokio::task::unconstrained;

use super::{
    caps::{Counted, Ticket},
    screen::{Phase, Refusal, Violation},
};
use crate::{observe::metrics::ConnectionGuard, pipeline::tunnel::Tunnel};

/// A blocked write counts as stalled until this many bytes went out, so that a byte now and then does not reset it.
const WRITE_PROGRESS_BYTES: u64 = 16 * 1024;

const FRESH: u8 = 0;
const IDLE: u8 = 1;
const HEAD: u8 = 2;
const BODY: u8 = 3;
const TUNNEL: u8 = 4;
const REFUSED: u8 = 5;

const NO_TUNNEL: u8 = 0;
const TUNNEL_AWAITED: u8 = 1;
const TUNNEL_OPEN: u8 = 2;
const TUNNEL_DENIED: u8 = 3;

/// How long a connection may take over what.
#[derive(Debug, Clone, Copy)]
pub struct Deadlines {
    /// A request head, from its first byte; the first one from the accept.
    pub header: Duration,
    /// The pause between two requests.
    pub keep_alive: Duration,
    /// A blocked write without real progress.
    pub write: Duration,
    /// The pause between two requests after which the buffers for them are given back, if they are to be.
    pub rest: Option<Duration>,
}

impl Deadlines {
    fn shortest(&self) -> u64 {
        millis(self.header.min(self.keep_alive).min(self.write)).max(1)
    }
}

/// Which deadline has passed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Overdue {
    /// A request head does not come to its end.
    Header,
    /// No further request came.
    KeepAlive,
    /// The client does not read.
    Write,
    /// Nothing wrong: no request for a while, and no byte of the next one.
    Rest,
}

/// What the tunnel that a request asked for has come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TunnelVerdict {
    Undecided,
    Open,
    Denied,
}

/// The shared record of one connection.
#[derive(Debug)]
pub struct Activity {
    accepted: Instant,
    stage: AtomicU8,
    since_ms: AtomicU64,
    /// The parser has been given all there was, up to the end of a message, and all it wrote has gone out.
    still: AtomicBool,
    in_flight: AtomicU32,
    bytes_in: AtomicU64,
    bytes_out: AtomicU64,
    /// When the present write began to block, never 0; 0 while none does.
    blocked_since: AtomicU64,
    blocked_from_bytes: AtomicU64,
    /// Answers whose next piece waits for the parser to ask, which it does not while the client takes nothing.
    untaken: AtomicU32,
    taken_ms: AtomicU64,
    /// When the watchdog looks next, and how long a piece may wait; both known once it watches.
    armed_ms: AtomicU64,
    write_ms: AtomicU64,
    watchdog: Mutex<Option<Waker>>,
    tunnel: AtomicU8,
    refused: AtomicBool,
    draining: AtomicBool,
    /// Streams have tasks of their own, so the watchdog must be woken for them: HTTP/2.
    streams: AtomicBool,
    /// Touched only behind a violation and by a tunnel.
    slot: Mutex<Slot>,
    /// What lets streams become tunnels: HTTP/2.
    ticket: OnceLock<Ticket>,
}

/// The place of a connection in the caps and the gauges, until dropped.
#[derive(Debug)]
pub struct Seat {
    /// In the caps.
    pub counted: Counted,
    /// In the gauges.
    pub gauge: ConnectionGuard,
}

#[derive(Debug, Default)]
struct Slot {
    refusal: Option<Refusal>,
    due: bool,
    reader: Option<Waker>,
    tunnel: Option<Tunnel>,
}

/// A request in flight, until it is dropped; belongs into the response body, so that it lives as long as that.
#[derive(Debug)]
pub struct InFlight(Arc<Activity>);

impl InFlight {
    /// The record of its connection.
    pub fn activity(&self) -> &Activity {
        &self.0
    }

    /// Another guard of the same connection, for what outlives the answer.
    #[must_use = "it counts until it is dropped"]
    pub fn another(&self) -> Self {
        self.0.begin_request()
    }

    /// A piece of the answer is ready and waits to be asked for. For HTTP/2, where a stalled stream blocks no write.
    pub fn offers(&self) {
        let now_ms = self.0.now_ms();
        self.0.taken_ms.store(now_ms, Relaxed);
        self.0.untaken.fetch_add(1, SeqCst);
        // This runs in the stream's task: the connection's own would look only when its old deadline comes.
        let due_ms = now_ms.saturating_add(self.0.write_ms.load(Relaxed));
        if due_ms < self.0.armed_ms.load(SeqCst) {
            let watchdog = self
                .0
                .watchdog
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .take();
            if let Some(watchdog) = watchdog {
                watchdog.wake();
            }
        }
    }

    /// It was asked for, or nobody will ask any more.
    pub fn offers_no_more(&self) {
        self.0.untaken.fetch_sub(1, Relaxed);
        self.0.taken_ms.store(self.0.now_ms(), Relaxed);
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.request_ended();
    }
}

impl Activity {
    /// The record of a connection accepted now.
    pub fn new() -> Arc<Self> {
        Arc::new(Self {
            accepted: Instant::now(),
            stage: AtomicU8::new(FRESH),
            since_ms: AtomicU64::new(0),
            still: AtomicBool::new(false),
            in_flight: AtomicU32::new(0),
            bytes_in: AtomicU64::new(0),
            bytes_out: AtomicU64::new(0),
            blocked_since: AtomicU64::new(0),
            blocked_from_bytes: AtomicU64::new(0),
            untaken: AtomicU32::new(0),
            taken_ms: AtomicU64::new(0),
            armed_ms: AtomicU64::new(u64::MAX),
            write_ms: AtomicU64::new(u64::MAX),
            watchdog: Mutex::default(),
            tunnel: AtomicU8::new(NO_TUNNEL),
            refused: AtomicBool::new(false),
            draining: AtomicBool::new(false),
            streams: AtomicBool::new(false),
            slot: Mutex::default(),
            ticket: OnceLock::new(),
        })
    }

    /// Counts a request as in flight until the guard is dropped.
    ///
    /// To be called when the service gets the request, before anything waits. The guard must live until the response body
    /// is *dropped*, not only until its last frame was given: before that, the end of a refused connection would cut the
    /// answer.
    pub fn begin_request(self: &Arc<Self>) -> InFlight {
        self.in_flight.fetch_add(1, Relaxed);
        InFlight(Arc::clone(self))
    }

    /// Says that the connection is to end after the answers under way.
    pub fn drain(&self) {
        self.draining.store(true, Relaxed);
    }

    /// True once the connection is to end.
    pub fn is_draining(&self) -> bool {
        self.draining.load(Relaxed)
    }

    /// Requests in flight.
    pub fn in_flight(&self) -> u32 {
        self.in_flight.load(Relaxed)
    }

    /// Bytes read from the client, behind TLS.
    pub fn bytes_in(&self) -> u64 {
        self.bytes_in.load(Relaxed)
    }

    /// Bytes written to the client, before TLS.
    pub fn bytes_out(&self) -> u64 {
        self.bytes_out.load(Relaxed)
    }

    /// Where the connection stands.
    pub fn phase(&self) -> Phase {
        match self.stage.load(Relaxed) {
            HEAD => Phase::Head,
            BODY => Phase::Body,
            TUNNEL => Phase::Tunnel,
            REFUSED => Phase::Refused,
            _ => Phase::Idle,
        }
    }

    /// Opens the tunnel that the request in flight asked for: to be called before its 101 is written.
    ///
    /// `false` when no tunnel was asked for in the screen's eyes or bytes came too early; then no 101 may be written.
    #[must_use = "a 101 may be written only if the tunnel is open"]
    pub fn open_tunnel(&self) -> bool {
        self.tunnel
            .compare_exchange(TUNNEL_AWAITED, TUNNEL_OPEN, SeqCst, SeqCst)
            .is_ok()
    }

    /// Denies the tunnel, if one was asked for: to be called as soon as the answer is known not to be a 101.
    pub fn deny_tunnel(&self) {
        let _ = self
            .tunnel
            .compare_exchange(TUNNEL_AWAITED, TUNNEL_DENIED, SeqCst, SeqCst);
    }

    /// Whether a 101 went out, so that the stream goes on without the HTTP connection.
    pub fn is_tunnel(&self) -> bool {
        self.tunnel.load(SeqCst) == TUNNEL_OPEN
    }

    /// Leaves the open tunnel for the task of its connection.
    pub fn leave_tunnel(&self, tunnel: Tunnel) {
        self.slot().tunnel = Some(tunnel);
    }

    /// The tunnel that was left, if any.
    pub fn take_tunnel(&self) -> Option<Tunnel> {
        self.slot().tunnel.take()
    }

    /// Lets streams of this connection become tunnels, each of them counted.
    pub fn allow_tunnels(&self, ticket: Ticket) {
        let _ = self.ticket.set(ticket);
    }

    /// What a stream needs to become a tunnel.
    pub fn ticket(&self) -> Option<&Ticket> {
        self.ticket.get()
    }

    /// The violation seen on this connection, for the log line of a request that failed over its own body.
    pub fn violation(&self) -> Option<Violation> {
        self.refused
            .load(SeqCst)
            .then(|| {
                self.slot()
                    .refusal
                    .as_ref()
                    .map(|refusal| refusal.violation)
            })
            .flatten()
    }

    /// The refusal that is still to be answered, once the connection's future has ended.
    ///
    /// Nothing when there was no violation, when it lay in the body of a request (which has failed and was answered), or
    /// when the connection ended for another reason before the refused bytes were due.
    pub fn take_refusal(&self) -> Option<Refusal> {
        if !self.refused.load(SeqCst) {
            return None;
        }
        let mut slot = self.slot();
        if slot.due { slot.refusal.take() } else { None }
    }

    /// Which deadline has passed, if any.
    pub fn overdue(&self, now: Instant, deadlines: &Deadlines) -> Option<Overdue> {
        let now_ms = millis(now.saturating_duration_since(self.accepted));
        self.due(deadlines)
            .filter(|(due_ms, _)| *due_ms <= now_ms)
            .map(|(_, overdue)| overdue)
    }

    /// The next deadline as things stand.
    fn due(&self, deadlines: &Deadlines) -> Option<(u64, Overdue)> {
        let since = |limit: Duration| self.since_ms.load(Relaxed).saturating_add(millis(limit));
        let blocked_since = self.blocked_since.load(Relaxed);
        let answering = self.in_flight() > 0 || blocked_since > 0;
        let silence = match self.stage.load(Relaxed) {
            // A client that is still being answered owes nothing.
            _ if answering => None,
            FRESH | HEAD | BODY => Some((since(deadlines.header), Overdue::Header)),
            IDLE => Some((since(deadlines.keep_alive), Overdue::KeepAlive)),
            _ => None,
        };
        let rest = deadlines
            .rest
            .filter(|_| !answering && self.still.load(Relaxed) && !self.is_draining())
            .map(|rest| (since(rest), Overdue::Rest));
        let stall = (
            blocked_since.saturating_add(millis(deadlines.write)),
            Overdue::Write,
        );
        let stall = (blocked_since > 0).then_some(stall);
        let untaken = (self.untaken.load(Relaxed) > 0).then(|| {
            let taken = self.taken_ms.load(Relaxed);
            (
                taken.saturating_add(millis(deadlines.write)),
                Overdue::Write,
            )
        });
        [silence, stall, untaken, rest]
            .into_iter()
            .flatten()
            .min_by_key(|(due_ms, _)| *due_ms)
    }

    pub(super) fn count_read(&self, bytes: usize) {
        add(&self.bytes_in, bytes);
    }

    pub(super) fn count_written(&self, bytes: usize) {
        add(&self.bytes_out, bytes);
    }

    /// Takes note of whether all that came was taken, up to the end of a message, and all that was written went out.
    pub(super) fn note_still(&self, still: bool) {
        self.still.store(still, Relaxed);
    }

    /// Takes note of the phase behind a read; `new_head` when a head that began before it is not the present one.
    pub(super) fn moved_to(&self, phase: Phase, new_head: bool) {
        let stage = match phase {
            Phase::Idle => IDLE,
            Phase::Head => HEAD,
            Phase::Body => BODY,
            Phase::Tunnel => TUNNEL,
            Phase::Refused => REFUSED,
        };
        let before = self.stage.load(Relaxed);
        if stage == HEAD && (new_head || !matches!(before, HEAD | FRESH)) {
            self.since_ms.store(self.now_ms(), Relaxed);
        }
        if before != stage {
            self.stage.store(stage, Relaxed);
        }
    }

    /// Takes note of a connection whose bytes are not screened being in use.
    pub(super) fn unscreened(&self) {
        self.streams.store(true, Relaxed);
        if self.stage.load(Relaxed) == FRESH {
            self.since_ms.store(self.now_ms(), Relaxed);
            self.stage.store(IDLE, Relaxed);
        }
    }

    pub(super) fn await_tunnel(&self) {
        self.tunnel.store(TUNNEL_AWAITED, SeqCst);
    }

    /// The word on the tunnel, taken by the reader; a request that ended without one has denied it.
    pub(super) fn tunnel_verdict(&self) -> TunnelVerdict {
        match self.tunnel.load(SeqCst) {
            TUNNEL_OPEN => TunnelVerdict::Open,
            TUNNEL_AWAITED if self.in_flight.load(SeqCst) > 0 => TunnelVerdict::Undecided,
            _ => {
                self.tunnel.store(NO_TUNNEL, SeqCst);
                TunnelVerdict::Denied
            }
        }
    }

    pub(super) fn refuse(&self, refusal: Option<Refusal>) {
        self.stage.store(REFUSED, Relaxed);
        self.tunnel.store(NO_TUNNEL, SeqCst);
        self.slot().refusal = refusal;
        self.refused.store(true, SeqCst);
    }

    /// Whether the refusal is due, that is no request is in flight any more; else the reader is woken when it is.
    pub(super) fn refusal_due(&self, reader: &Waker, writing: bool) -> bool {
        let mut slot = self.slot();
        slot.reader = Some(reader.clone());
        if !writing && self.in_flight.load(SeqCst) == 0 {
            slot.due = true;
        }
        slot.due
    }

    pub(super) fn wake_reader(&self) {
        let reader = self.slot().reader.take();
        if let Some(reader) = reader {
            reader.wake();
        }
    }

    pub(super) fn write_blocks(&self) {
        if self.blocked_since.load(Relaxed) == 0 {
            self.blocked_from_bytes.store(self.bytes_out(), Relaxed);
            self.blocked_since.store(self.now_ms().max(1), Relaxed);
        }
    }

    pub(super) fn write_moves(&self) {
        if self
            .bytes_out()
            .saturating_sub(self.blocked_from_bytes.load(Relaxed))
            >= WRITE_PROGRESS_BYTES
        {
            self.blocked_since.store(0, Relaxed);
        }
    }

    pub(super) fn write_done(&self) {
        // From here on it is the client's turn.
        self.since_ms.store(self.now_ms(), Relaxed);
        self.blocked_since.store(0, Relaxed);
    }

    fn request_ended(&self) {
        if self.in_flight.fetch_sub(1, SeqCst) != 1 {
            return;
        }
        self.since_ms.store(self.now_ms(), Relaxed);
        if self.refused.load(SeqCst) {
            self.wake_reader();
        }
    }

    fn leave_waker(&self, waker: &Waker) {
        let mut watchdog = self.watchdog.lock().unwrap_or_else(PoisonError::into_inner);
        if !watchdog.as_ref().is_some_and(|held| held.will_wake(waker)) {
            *watchdog = Some(waker.clone());
        }
    }

    fn now_ms(&self) -> u64 {
        millis(self.accepted.elapsed())
    }

    fn slot(&self) -> MutexGuard<'_, Slot> {
        self.slot.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Resolves when the connection has overstayed a deadline.
///
/// One timer a connection, set again only when it has fired or when a nearer deadline has come up; so it must be polled
/// in the connection's own task, behind the connection itself (`biased`).
pub async fn watch(activity: &Activity, deadlines: &Deadlines) -> Overdue {
    let at =
        |ms: u64| tokio::time::Instant::from_std(activity.accepted + Duration::from_millis(ms));
    let next = |now_ms: u64| {
        activity
            .due(deadlines)
            .map_or(now_ms + deadlines.shortest(), |(due_ms, _)| due_ms)
    };
    activity.write_ms.store(millis(deadlines.write), Relaxed);
    let mut armed_ms = next(activity.now_ms());
    let mut timer = pin!(tokio::time::sleep_until(at(armed_ms)));
    // A timer that is set and polled keeps the waker of this task; polling it again would only cost.
    let mut set = false;
    poll_fn(|cx| {
        if activity.streams.load(Relaxed) {
            activity.leave_waker(cx.waker());
        }
        loop {
            if let Some((due_ms, _)) = activity.due(deadlines)
                && due_ms < armed_ms
            {
                armed_ms = due_ms;
                timer.as_mut().reset(at(armed_ms));
                set = false;
            }
            if set && !timer.is_elapsed() {
                return Poll::Pending;
            }
            set = true;
            activity.armed_ms.store(armed_ms, SeqCst);
            // Unconstrained, for a turn without budget would leave it unregistered.
            ready!(pin!(unconstrained(timer.as_mut())).poll(cx));
            if let Some(overdue) = activity.overdue(Instant::now(), deadlines) {
                return Poll::Ready(overdue);
            }
            armed_ms = next(activity.now_ms());
            timer.as_mut().reset(at(armed_ms));
            set = false;
        }
    })
    .await
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Adds to a counter that only one task writes.
fn add(counter: &AtomicU64, bytes: usize) {
    let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
    counter.store(counter.load(Relaxed).wrapping_add(bytes), Relaxed);
}
