//! A client connection's stream with the screen in front of the HTTP parser and the byte-level clock beside it.
//!
//! Reads go straight into the parser's own buffer and are looked at there. Behind a violation only what came before it
//! stays in the buffer; then the stream plays possum: while a request is in flight reads stay pending, so that it is
//! answered undisturbed; once none is, the parser sees the end of the stream and gives it back, and the connection's
//! task writes the refusal. A violation within a body in flight is a read error at once instead.
//!
//! What hyper's server cannot say, an early hint (RFC 8297), is written here between its own messages.
//!
//! HTTP/2 connections use it without a screen, for the clock alone.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::time::Sleep;

use super::activity::{Activity, TunnelVerdict};
use super::screen::{Phase, Screen, Violation};
use crate::{exchange::connection::Connection, wire::trailers::Overlong};

const REFUSAL_TIME: Duration = Duration::from_secs(5);
const LINGER_TIME: Duration = Duration::from_secs(1);
const LINGER_BYTES: usize = 64 * 1024;
/// What may still come of a body that nobody wants: about what the buffers on the way can hold.
const BODY_LINGER_BYTES: usize = 4 * 1024 * 1024;

/// A stream whose bytes are looked at and counted.
#[derive(Debug)]
pub struct GuardedIo<S> {
    inner: S,
    screen: Option<Screen>,
    activity: Arc<Activity>,
    refused: Option<Refused>,
    writing: bool,
    /// The last read found nothing, and what came before ends with a message.
    sated: bool,
    /// Something was written and not yet flushed.
    unflushed: bool,
    lingering: Option<Lingering>,
    /// Where early hints for the client come, over HTTP/1.1.
    hints: Option<Arc<Connection>>,
    /// What is left to write of one; nothing else may go out before.
    hint: Bytes,
}

#[derive(Debug, Clone, Copy)]
enum Refused {
    /// Between requests: answered by the connection's task, once it is its turn.
    Waiting,
    /// The same, and the parser was told that the stream has ended.
    Due,
    /// Within the body of a request in flight, which fails.
    Body(Violation),
}

/// A body that is read to nobody behind the end of its answer.
#[derive(Debug)]
struct Lingering {
    timer: Pin<Box<Sleep>>,
    left: usize,
}

impl<S> GuardedIo<S> {
    /// Guards a stream; without a screen for HTTP/2.
    pub fn new(inner: S, screen: Option<Screen>, activity: Arc<Activity>) -> Self {
        Self {
            inner,
            screen,
            activity,
            refused: None,
            writing: false,
            sated: false,
            unflushed: false,
            lingering: None,
            hints: None,
            hint: Bytes::new(),
        }
    }

    /// The same with the hints of this connection written into it.
    #[must_use]
    pub fn with_hints(mut self, connection: Arc<Connection>) -> Self {
        self.hints = Some(connection);
        self
    }

    /// The stream itself, with nothing looked at any more.
    pub fn into_inner(self) -> S {
        self.inner
    }

    /// The stream behind the guard.
    pub fn get_ref(&self) -> &S {
        &self.inner
    }

    /// Looks at fresh bytes and says how many may stay.
    fn look(&mut self, fresh: &[u8]) -> usize {
        self.activity.count_read(fresh.len());
        let Some(screen) = &mut self.screen else {
            self.activity.unscreened();
            return fresh.len();
        };
        if screen.awaits_tunnel() {
            match self.activity.tunnel_verdict() {
                TunnelVerdict::Undecided => {}
                TunnelVerdict::Open => screen.open_tunnel(),
                TunnelVerdict::Denied => screen.resume(),
            }
        }
        let heads = screen.heads();
        let fed = screen.feed(fresh);
        if let Some(violation) = fed.violation {
            let refusal = screen.refusal();
            let in_body = refusal
                .as_ref()
                .is_some_and(|refusal| refusal.during == Phase::Body);
            self.refused = Some(if in_body {
                Refused::Body(violation)
            } else {
                Refused::Waiting
            });
            self.activity.refuse(refusal);
            return fed.pass;
        }
        if screen.awaits_tunnel() {
            self.activity.await_tunnel();
        }
        self.activity
            .moved_to(screen.phase(), screen.heads() != heads);
        fed.pass
    }

    /// What a read gives behind a violation.
    fn read_refused(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.refused {
            Some(Refused::Body(violation)) => Poll::Ready(Err(broken(violation))),
            Some(Refused::Waiting) if !self.activity.refusal_due(cx.waker(), self.writing) => {
                Poll::Pending
            }
            Some(Refused::Waiting | Refused::Due) | None => {
                self.refused = Some(Refused::Due);
                Poll::Ready(Ok(()))
            }
        }
    }

    fn note_still(&self) {
        self.activity.note_still(self.sated && !self.unflushed);
    }

    fn note_unread(&mut self) {
        self.sated = self.screen.as_ref().is_some_and(Screen::is_between);
        self.note_still();
    }

    fn note_written(&mut self, outcome: &Poll<io::Result<usize>>) {
        self.unflushed = true;
        self.note_still();
        match outcome {
            Poll::Ready(Ok(bytes)) => {
                self.activity.count_written(*bytes);
                if self.writing {
                    self.activity.write_moves();
                }
            }
            Poll::Ready(Err(_)) => {}
            Poll::Pending => self.note_blocked(),
        }
    }

    fn note_blocked(&mut self) {
        self.writing = true;
        self.activity.write_blocks();
    }

    /// Whether the client is still sending a body.
    fn is_within_body(&self) -> bool {
        match self.refused {
            None => matches!(&self.screen, Some(screen) if screen.phase() == Phase::Body),
            Some(refused) => matches!(refused, Refused::Body(_)),
        }
    }

    fn note_flushed(&mut self, outcome: &Poll<io::Result<()>>) {
        self.unflushed = !matches!(outcome, Poll::Ready(Ok(())));
        self.note_still();
        match outcome {
            Poll::Ready(_) if self.writing => {
                self.writing = false;
                self.activity.write_done();
                if self.refused.is_some() {
                    self.activity.wake_reader();
                }
            }
            Poll::Ready(_) => {}
            Poll::Pending => self.note_blocked(),
        }
    }
}

/// Within a body the only lines are trailers.
fn broken(violation: Violation) -> io::Error {
    let kind = io::ErrorKind::InvalidData;
    match violation {
        Violation::HeadTooLarge => io::Error::new(kind, Overlong),
        _ => io::Error::new(kind, violation),
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for GuardedIo<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.refused.is_some() {
            return this.read_refused(cx);
        }
        let before = buf.filled().len();
        let Poll::Ready(read) = Pin::new(&mut this.inner).poll_read(cx, buf) else {
            this.note_unread();
            return Poll::Pending;
        };
        this.sated = false;
        this.note_still();
        read?;
        let fresh = buf.filled().get(before..).unwrap_or_default();
        if fresh.is_empty() {
            return Poll::Ready(Ok(()));
        }
        let given = fresh.len();
        let pass = this.look(fresh);
        if pass < given {
            buf.set_filled(before + pass);
        }
        if pass == 0 {
            this.read_refused(cx)
        } else {
            Poll::Ready(Ok(()))
        }
    }
}

impl<S: AsyncWrite + Unpin> GuardedIo<S> {
    /// Writes the hints that have come. To be called from a flush alone, which the parser asks for when all that it has
    /// to say is written: the last message is whole then, and since the place for hints is closed as soon as there is an
    /// answer, the next one has not begun.
    fn poll_hints(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            ready!(self.poll_hint(cx))?;
            let hints = self.hints.as_ref().map(|connection| &connection.hints);
            match hints.and_then(|hints| hints.next(cx.waker())) {
                Some(hint) => self.hint = hint,
                None => return Poll::Ready(Ok(())),
            }
        }
    }

    /// Writes the rest of a hint.
    fn poll_hint(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.hint.is_empty() {
            let outcome = Pin::new(&mut self.inner).poll_write(cx, &self.hint);
            self.note_written(&outcome);
            let written = ready!(outcome)?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.hint.advance(written);
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for GuardedIo<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        ready!(this.poll_hint(cx))?;
        let outcome = Pin::new(&mut this.inner).poll_write(cx, buf);
        this.note_written(&outcome);
        outcome
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        ready!(this.poll_hint(cx))?;
        let outcome = Pin::new(&mut this.inner).poll_write_vectored(cx, bufs);
        this.note_written(&outcome);
        outcome
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_hints(cx))?;
        let outcome = Pin::new(&mut this.inner).poll_flush(cx);
        this.note_flushed(&outcome);
        outcome
    }

    /// Leaves the stream open when a refusal is still to be written on it, and lingers over a body cut short: closing
    /// with its bytes unread would make the kernel throw away the answer on its way.
    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if matches!(this.refused, Some(Refused::Due)) {
            return Pin::new(this).poll_flush(cx);
        }
        if this.lingering.is_none() {
            ready!(this.poll_hint(cx))?;
            let outcome = Pin::new(&mut this.inner).poll_shutdown(cx);
            this.note_flushed(&outcome);
            ready!(outcome)?;
            if !this.is_within_body() {
                return Poll::Ready(Ok(()));
            }
        }
        let lingering = this.lingering.get_or_insert_with(Lingering::new);
        lingering.poll_drain(&mut this.inner, cx).map(Ok)
    }
}

impl Lingering {
    fn new() -> Self {
        Self {
            timer: Box::pin(tokio::time::sleep(LINGER_TIME)),
            left: BODY_LINGER_BYTES,
        }
    }

    fn poll_drain<S: AsyncRead + Unpin>(&mut self, io: &mut S, cx: &mut Context<'_>) -> Poll<()> {
        let mut spill = [0; 8192];
        while self.left > 0 && self.timer.as_mut().poll(cx).is_pending() {
            let mut buf = ReadBuf::new(&mut spill);
            match ready!(Pin::new(&mut *io).poll_read(cx, &mut buf)) {
                Ok(()) if !buf.filled().is_empty() => {
                    self.left = self.left.saturating_sub(buf.filled().len());
                }
                _ => break,
            }
        }
        Poll::Ready(())
    }
}

/// Writes a last answer and closes, so that the client gets it even while it is still sending.
///
/// # Errors
///
/// Whatever the stream reports, and `TimedOut` when the client does not take the answer within five seconds.
pub async fn write_refusal<S>(io: &mut S, answer: &[u8]) -> io::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let write = async {
        io.write_all(answer).await?;
        io.flush().await?;
        io.shutdown().await
    };
    tokio::time::timeout(REFUSAL_TIME, write)
        .await
        .map_err(io::Error::from)??;
    linger(io).await;
    Ok(())
}

/// Reads what a client still sends, within tight bounds: closing over unread bytes would make the kernel throw away the
/// answer on its way. To be called with the write side shut down.
pub async fn linger<S: AsyncRead + Unpin>(io: &mut S) {
    let drain = async {
        let mut spill = vec![0; 4096];
        let mut left = LINGER_BYTES;
        while left > 0 {
            match io.read(&mut spill).await {
                Ok(count) if count > 0 => left = left.saturating_sub(count),
                _ => return,
            }
        }
    };
    // Running out of time is as good an end as any other.
    let _ = tokio::time::timeout(LINGER_TIME, drain).await;
}

#[cfg(test)]
mod tests;
