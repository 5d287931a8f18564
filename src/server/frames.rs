//! HTTP/2 frames that ask for nothing and carry nothing, counted before the codec sees them (RFC 9113 §10.5).
//!
//! `PING`, `SETTINGS`, `PRIORITY`, `WINDOW_UPDATE`, empty `DATA` and their like are each harmless, and each costs the gate
//! more than the client that sends it. So they are paid for: every connection starts with some credit, time gives more,
//! and so do bytes that the gate sends, since a client has to give back the window that a download takes. A connection
//! without credit is closed. Requests and bodies are free here, they have limits of their own, and floods of resets and
//! of `CONTINUATION` are the codec's to see. This only reads; nothing is changed or held back.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Instant,
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::{
    observe::metrics::Mode,
    pipeline::worker::Worker,
    wire::halt::{Reason, Stage},
};

/// Frames that a connection may send on credit.
const CREDIT: u32 = 2000;
/// Credit that a second gives.
const A_SECOND: u32 = 200;
/// Bytes sent to the client that give credit for one frame; the answer to a PING has 17.
const BYTES: usize = 64;
/// What the client says first; the codec checks it.
const PREFACE: usize = 24;
const FRAME_HEAD: usize = 9;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;

/// The frames of one connection, by their heads.
#[derive(Debug)]
struct Ledger {
    /// Bytes to pass over: the preface, then payloads.
    skip: usize,
    head: [u8; FRAME_HEAD],
    /// Bytes of the head that have come.
    filled: usize,
    credit: u32,
    /// Bytes sent that have not given credit yet.
    sent: usize,
    renewed: Instant,
}

/// A connection that has sent too many frames to no purpose.
#[derive(Debug, PartialEq, Eq)]
struct Flood;

impl Ledger {
    fn new(now: Instant) -> Self {
        Self {
            skip: PREFACE,
            head: [0; FRAME_HEAD],
            filled: 0,
            credit: CREDIT,
            sent: 0,
            renewed: now,
        }
    }

    /// Takes bytes as they came, cut anywhere.
    fn read(&mut self, mut bytes: &[u8], now: impl Fn() -> Instant) -> Result<(), Flood> {
        while !bytes.is_empty() {
            let passed = self.skip.min(bytes.len());
            self.skip -= passed;
            bytes = bytes.get(passed..).unwrap_or_default();
            let taken = (FRAME_HEAD - self.filled).min(bytes.len());
            let (piece, rest) = bytes.split_at(taken);
            if let Some(room) = self.head.get_mut(self.filled..self.filled + taken) {
                room.copy_from_slice(piece);
            }
            self.filled += taken;
            bytes = rest;
            if self.filled == FRAME_HEAD {
                self.filled = 0;
                self.frame(&now)?;
            }
        }
        Ok(())
    }

    fn frame(&mut self, now: impl Fn() -> Instant) -> Result<(), Flood> {
        let [high, middle, low, kind, flags, ..] = self.head;
        let length = u32::from_be_bytes([0, high, middle, low]);
        self.skip = usize::try_from(length).unwrap_or(usize::MAX);
        let free = match kind {
            DATA => length > 0 || flags & END_STREAM != 0,
            HEADERS | CONTINUATION => true,
            _ => false,
        };
        if free {
            return Ok(());
        }
        if self.credit == 0 {
            self.renew(now());
        }
        self.credit = self.credit.checked_sub(1).ok_or(Flood)?;
        Ok(())
    }

    /// Gives the credit of the time that has passed.
    fn renew(&mut self, now: Instant) {
        let passed = now.saturating_duration_since(self.renewed).as_millis();
        let earned = passed.saturating_mul(u128::from(A_SECOND)) / 1000;
        if earned > 0 {
            self.renewed = now;
            self.add(u32::try_from(earned).unwrap_or(CREDIT));
        }
    }

    fn wrote(&mut self, bytes: usize) {
        self.sent = self.sent.saturating_add(bytes);
        self.add(u32::try_from(self.sent / BYTES).unwrap_or(CREDIT));
        self.sent %= BYTES;
    }

    fn add(&mut self, credit: u32) {
        self.credit = self.credit.saturating_add(credit).min(CREDIT);
    }
}

/// A stream whose HTTP/2 frames are counted.
#[derive(Debug)]
pub(super) struct Counted<S> {
    stream: S,
    ledger: Ledger,
    worker: Arc<Worker>,
}

impl<S> Counted<S> {
    pub(super) fn new(stream: S, worker: Arc<Worker>) -> Self {
        Self {
            stream,
            ledger: Ledger::new(Instant::now()),
            worker,
        }
    }

    fn refuse(&self) -> io::Error {
        tracing::debug!("connection closed: too many HTTP/2 frames to no purpose");
        self.worker
            .survivors
            .metrics
            .refusal(Stage::Wire, Reason::FrameFlood, Mode::Enforce);
        io::Error::new(io::ErrorKind::InvalidData, "too many frames to no purpose")
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Counted<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buf))?;
        let fresh = buf.filled().get(before..).unwrap_or_default();
        Poll::Ready(match self.ledger.read(fresh, Instant::now) {
            Ok(()) => Ok(()),
            Err(Flood) => Err(self.refuse()),
        })
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Counted<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let wrote = ready!(Pin::new(&mut self.stream).poll_write(cx, buf))?;
        self.ledger.wrote(wrote);
        Poll::Ready(Ok(wrote))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let wrote = ready!(Pin::new(&mut self.stream).poll_write_vectored(cx, bufs))?;
        self.ledger.wrote(wrote);
        Poll::Ready(Ok(wrote))
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn frame(kind: u8, flags: u8, length: usize) -> Vec<u8> {
        let size = u32::try_from(length).expect("short").to_be_bytes();
        let mut bytes = vec![size[1], size[2], size[3], kind, flags, 0, 0, 0, 1];
        bytes.resize(FRAME_HEAD + length, 0);
        bytes
    }

    /// Frames that are taken before the connection is closed, out of `most`.
    fn taken(ledger: &mut Ledger, frame: &[u8], most: u32, now: Instant) -> u32 {
        (0..most)
            .take_while(|_| ledger.read(frame, || now).is_ok())
            .map(|_| 1)
            .sum()
    }

    fn ready(now: Instant) -> Ledger {
        let mut ledger = Ledger::new(now);
        assert_eq!(ledger.read(&[b'p'; PREFACE], || now), Ok(()));
        ledger
    }

    #[test]
    fn idle_frames_are_paid_for_and_others_free() {
        let now = Instant::now();
        for kind in [2, 3, 4, 6, 7, 8, 0xbb] {
            let mut ledger = ready(now);
            assert_eq!(
                taken(&mut ledger, &frame(kind, 0, 8), 9000, now),
                CREDIT,
                "{kind}"
            );
        }
        let mut ledger = ready(now);
        assert_eq!(taken(&mut ledger, &frame(DATA, 0, 0), 9000, now), CREDIT);
        for free in [
            frame(DATA, 0, 1),
            frame(DATA, END_STREAM, 0),
            frame(HEADERS, 4, 20),
            frame(CONTINUATION, 4, 20),
        ] {
            assert_eq!(taken(&mut ready(now), &free, 9000, now), 9000);
        }
    }

    #[test]
    fn time_and_bytes_sent_give_credit_up_to_the_first_measure() {
        let now = Instant::now();
        let mut ledger = ready(now);
        // Without a payload, so that the frame after a refused one is whole again.
        let ping = frame(6, 0, 0);
        taken(&mut ledger, &ping, CREDIT, now);
        let later = now + Duration::from_secs(1);
        assert_eq!(taken(&mut ledger, &ping, 9000, later), A_SECOND);
        ledger.wrote(BYTES - 1);
        assert_eq!(taken(&mut ledger, &ping, 9000, later), 0);
        ledger.wrote(1);
        assert_eq!(taken(&mut ledger, &ping, 9000, later), 1);
        ledger.wrote(usize::MAX);
        assert_eq!(taken(&mut ledger, &ping, 9000, later), CREDIT);
    }

    #[test]
    fn cuts_between_reads_change_nothing() {
        let now = Instant::now();
        let mut bytes = vec![b'p'; PREFACE];
        for _ in 0..CREDIT {
            bytes.extend(frame(DATA, 0, 3));
            bytes.extend(frame(6, 0, 8));
        }
        for size in [1, 2, 8, 9, 10, 4096] {
            let mut ledger = Ledger::new(now);
            for piece in bytes.chunks(size) {
                assert_eq!(ledger.read(piece, || now), Ok(()));
            }
            assert_eq!(ledger.read(&frame(6, 0, 0), || now), Err(Flood), "{size}");
        }
    }
}
