//! The client's body on its way to the backend: counted, bounded, timed, never truncated in silence.
//!
//! [`ClientBody`] passes frames through without copying. It ends with an error, which makes the sender abort the
//! upstream request, when the body grows over its limit, stalls, or is broken. Trailers are dropped, since a name
//! in them was never judged, but for those of a gRPC call, which are purged (RFC 9110 §6.5.1). It does not buffer; what
//! was held elsewhere goes on as it is.

use std::{
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering},
    },
    task::{Context, Poll, Waker, ready},
    time::Duration,
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::{Instant, Sleep};

use super::{
    halt::Reason,
    held::Held,
    trailers::{self, Overlong},
};

/// Bounds on one request body.
#[derive(Clone, Copy, Debug)]
pub struct BodyBounds {
    /// Largest body in bytes.
    pub bytes: u64,
    /// Size over which a body is only noted, by a limit that watches.
    pub watched_bytes: u64,
    /// Longest pause between two pieces.
    pub idle: Duration,
    /// Slowest average rate in bytes a second, judged after [`BodyBounds::grace`].
    pub rate: u64,
    /// Time before the rate is judged.
    pub grace: Duration,
    /// For a gRPC call, whose trailers are passed on: the longest pause between two pieces once the backend answers.
    /// The two sides talk then, so the rate is not judged any more.
    pub call: Option<Duration>,
}

/// What became of a client body, shared between the body on its way out and the request's record.
#[derive(Debug, Default)]
pub struct BodyProgress {
    bytes: AtomicU64,
    outcome: AtomicU8,
    over: AtomicBool,
    /// The next piece has been asked for, and the client has not sent it.
    awaited: AtomicBool,
    /// The head of the answer has come.
    answered: AtomicBool,
    /// Whoever waits for the client's next piece.
    waits: Mutex<Option<Waker>>,
}

// 0 is a body still under way.
const COMPLETE: u8 = 1;
const TOO_LARGE: u8 = 2;
const TOO_SLOW: u8 = 3;
const BROKEN: u8 = 4;
const LEFT: u8 = 5;
const ABANDONED: u8 = 6;
const LONG_TRAILERS: u8 = 7;

impl BodyProgress {
    /// Bytes passed on so far.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// True when the body grew over a limit that only watches.
    pub fn went_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }

    /// True once the whole body went by.
    pub fn is_complete(&self) -> bool {
        self.outcome.load(Ordering::Acquire) == COMPLETE
    }

    /// True while it is the client that keeps the body waiting, and not a backend that takes nothing.
    pub fn is_awaited(&self) -> bool {
        self.awaited.load(Ordering::Relaxed) && !self.is_complete()
    }

    /// States that the backend has begun to answer.
    pub fn answer_began(&self) {
        self.answered.store(true, Ordering::Relaxed);
    }

    /// Why the body was cut, if it was: the client's fault, never the backend's.
    pub fn fault(&self) -> Option<Reason> {
        match self.outcome.load(Ordering::Acquire) {
            TOO_LARGE => Some(Reason::BodyTooLarge),
            TOO_SLOW => Some(Reason::BodyTimeout),
            BROKEN | LEFT => Some(Reason::BodyBroken),
            LONG_TRAILERS => Some(Reason::HeadTooLarge),
            _ => None,
        }
    }

    /// True when the client went away in the middle of its body.
    pub fn client_left(&self) -> bool {
        self.outcome.load(Ordering::Acquire) == LEFT
    }

    /// States that nobody waits for the rest: the body ends with an error where it is waited for.
    pub fn abandon(&self) {
        let mut waits = self.waits();
        // Whatever ended it before is what became of it.
        let _ = self
            .outcome
            .compare_exchange(0, ABANDONED, Ordering::AcqRel, Ordering::Acquire);
        let waker = waits.take();
        drop(waits);
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// The whole body went out in one piece.
    pub(super) fn pass_whole(&self, bytes: &Bytes) {
        let length = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        self.bytes.store(length, Ordering::Relaxed);
        self.end(COMPLETE);
    }

    fn is_abandoned(&self) -> bool {
        self.outcome.load(Ordering::Acquire) == ABANDONED
    }

    fn waits(&self) -> MutexGuard<'_, Option<Waker>> {
        self.waits.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn end(&self, outcome: u8) {
        self.outcome.store(outcome, Ordering::Release);
    }
}

/// The body was cut; the reason stands in [`BodyProgress::fault`].
#[derive(Debug, thiserror::Error)]
#[error("request body cut: {}", .0.code())]
pub struct BodyCut(pub Reason);

/// A request body on its way to the backend.
#[derive(Debug)]
pub enum ClientBody {
    /// The request has no body.
    Empty,
    /// The client's body, passed on piece by piece.
    Stream(Box<Metered>),
    /// A body that was held until it was judged.
    Held(Box<Held>),
}

/// A client body with its bounds.
#[derive(Debug)]
pub struct Metered {
    incoming: Incoming,
    bounds: BodyBounds,
    progress: Arc<BodyProgress>,
    started: Instant,
    /// When the client was first waited for since its last piece.
    waiting: Instant,
    timer: Pin<Box<Sleep>>,
}

impl ClientBody {
    /// Wraps what the client sends. An empty body costs nothing.
    pub fn new(incoming: Incoming, bounds: BodyBounds) -> (Self, Option<Arc<BodyProgress>>) {
        if incoming.is_end_stream() {
            return (Self::Empty, None);
        }
        let progress = Arc::new(BodyProgress::default());
        let now = Instant::now();
        let metered = Metered {
            incoming,
            bounds,
            progress: Arc::clone(&progress),
            started: now,
            waiting: now,
            timer: Box::pin(tokio::time::sleep_until(now + bounds.idle)),
        };
        (Self::Stream(Box::new(metered)), Some(progress))
    }
}

/// What became of a body whose reading failed, and why. Framing that breaks the grammar, as opposed to a client that went
/// away, comes as invalid data from the look at the bytes before the parser, or as a protocol error of the stream.
fn failed(error: &hyper::Error) -> (u8, Reason) {
    let mut cause = std::error::Error::source(error);
    while let Some(inner) = cause {
        if let Some(io) = inner.downcast_ref::<std::io::Error>() {
            return match (io.kind(), io.get_ref()) {
                (_, Some(why)) if why.is::<Overlong>() => (LONG_TRAILERS, Reason::HeadTooLarge),
                (std::io::ErrorKind::InvalidData, _) => (BROKEN, Reason::BodyBroken),
                _ => (LEFT, Reason::BodyBroken),
            };
        }
        cause = inner.source();
    }
    let outcome = if error.is_parse() { BROKEN } else { LEFT };
    (outcome, Reason::BodyBroken)
}

impl Body for ClientBody {
    type Data = Bytes;
    type Error = BodyCut;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyCut>>> {
        match self.get_mut() {
            Self::Empty => Poll::Ready(None),
            Self::Stream(metered) => metered.poll(cx),
            Self::Held(held) => held.poll(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Stream(metered) => metered.is_end_stream(),
            Self::Held(held) => held.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Stream(metered) => metered.size_hint(),
            Self::Held(held) => held.size_hint(),
        }
    }
}

impl Metered {
    /// What became of it.
    pub fn progress(&self) -> &Arc<BodyProgress> {
        &self.progress
    }

    /// What the client still sends, its bounds taken off.
    pub fn into_inner(self) -> Incoming {
        self.incoming
    }

    /// The next piece of the body; `None` at its end. Trailers are left out.
    ///
    /// # Errors
    /// [`BodyCut`]
    pub async fn piece(&mut self) -> Option<Result<Bytes, BodyCut>> {
        loop {
            let frame = match std::future::poll_fn(|cx| self.poll(cx)).await? {
                Ok(frame) => frame,
                Err(cut) => return Some(Err(cut)),
            };
            if let Ok(data) = frame.into_data() {
                return Some(Ok(data));
            }
        }
    }

    pub(super) fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    pub(super) fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }

    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyCut>>> {
        if self.progress.is_abandoned() {
            return self.cut(ABANDONED, Reason::BodyBroken);
        }
        loop {
            let Poll::Ready(next) = Pin::new(&mut self.incoming).poll_frame(cx) else {
                return self.stalled(cx);
            };
            self.progress.awaited.store(false, Ordering::Relaxed);
            match next {
                None => {
                    self.progress.end(COMPLETE);
                    return Poll::Ready(None);
                }
                Some(Err(error)) => {
                    let (outcome, reason) = failed(&error);
                    return self.cut(outcome, reason);
                }
                Some(Ok(frame)) => {
                    let trailers = match frame.into_data() {
                        Ok(data) => return self.pass(data),
                        Err(frame) => frame.into_trailers(),
                    };
                    if let (Ok(mut trailers), Some(_)) = (trailers, self.bounds.call) {
                        trailers::purge(&mut trailers);
                        self.progress.end(COMPLETE);
                        return Poll::Ready(Some(Ok(Frame::trailers(trailers))));
                    }
                }
            }
        }
    }

    fn pass(&mut self, data: Bytes) -> Poll<Option<Result<Frame<Bytes>, BodyCut>>> {
        let length = u64::try_from(data.len()).unwrap_or(u64::MAX);
        let total = self.progress.bytes().saturating_add(length);
        if total > self.bounds.bytes {
            return self.cut(TOO_LARGE, Reason::BodyTooLarge);
        }
        self.progress.bytes.store(total, Ordering::Relaxed);
        if total > self.bounds.watched_bytes {
            self.progress.over.store(true, Ordering::Relaxed);
        }
        if self.incoming.is_end_stream() {
            self.progress.end(COMPLETE);
        } else if self.too_slow(total) {
            return self.cut(TOO_SLOW, Reason::BodyTimeout);
        }
        Poll::Ready(Some(Ok(Frame::data(data))))
    }

    /// Nothing came: the idle clock runs from the first time we had to wait.
    fn stalled(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyCut>>> {
        if !self.progress.awaited.swap(true, Ordering::Relaxed) {
            self.waiting = Instant::now();
            let until = self.waiting + self.idle();
            self.timer.as_mut().reset(until);
        }
        let mut waits = self.progress.waits();
        if self.progress.is_abandoned() {
            drop(waits);
            return self.cut(ABANDONED, Reason::BodyBroken);
        }
        match &mut *waits {
            Some(waker) => waker.clone_from(cx.waker()),
            none => *none = Some(cx.waker().clone()),
        }
        drop(waits);
        loop {
            ready!(self.timer.as_mut().poll(cx));
            // The answer may have begun meanwhile, and with it the longer pause.
            let until = self.waiting + self.idle();
            if until <= self.timer.deadline() {
                return self.cut(TOO_SLOW, Reason::BodyTimeout);
            }
            self.timer.as_mut().reset(until);
        }
    }

    fn talks(&self) -> Option<Duration> {
        let answered = self.progress.answered.load(Ordering::Relaxed);
        self.bounds.call.filter(|_| answered)
    }

    fn idle(&self) -> Duration {
        self.talks().unwrap_or(self.bounds.idle)
    }

    fn too_slow(&self, total: u64) -> bool {
        if self.talks().is_some() {
            return false;
        }
        let elapsed = self.started.elapsed();
        elapsed > self.bounds.grace && total < self.bounds.rate.saturating_mul(elapsed.as_secs())
    }

    fn cut(&mut self, outcome: u8, reason: Reason) -> Poll<Option<Result<Frame<Bytes>, BodyCut>>> {
        self.progress.end(outcome);
        Poll::Ready(Some(Err(BodyCut(reason))))
    }
}
