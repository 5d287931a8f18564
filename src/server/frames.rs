//! HTTP/2 frames that ask for nothing and carry nothing, counted before the codec sees them (RFC 9113 §10.5).
//!
//! `PING`, `SETTINGS`, `PRIORITY`, `WINDOW_UPDATE`, empty `DATA` and their like are each harmless, and each costs the gate
//! more than the client that sends it. So they are paid for: every connection starts with some credit, time gives more,
//! and so do the answers that the gate sends, since a client gives back the window that a piece of one takes, and may
//! measure the way with a `PING` each time. A connection without credit is closed. Requests and bodies are free here, they
//! have limits of their own, but only where there is one to begin or to go on with: what comes on a stream that is over is
//! paid for. Floods of resets and of `CONTINUATION` are the codec's to see. This only reads; nothing is changed or held
//! back.

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
/// Credit that a frame of an answer gives: for two windows and a `PING`. What answers the client's own idle frames gives
/// none.
const A_PIECE: u32 = 3;
/// Bytes of a large piece that give credit for one frame more.
const BYTES: u32 = 512;
/// A piece of a body that is smaller than this is hardly one: of a gRPC message five bytes are the prefix.
const LEAST_PIECE: u32 = 8;
/// What the client says first; the codec checks it.
const PREFACE: usize = 24;
const FRAME_HEAD: usize = 9;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;

/// Finds the heads of frames in bytes that come cut anywhere.
#[derive(Debug, Default)]
struct Cutter {
    /// Bytes to pass over: the preface, then payloads.
    skip: usize,
    head: [u8; FRAME_HEAD],
    /// Bytes of the head that have come.
    filled: usize,
}

/// The head of a frame (RFC 9113 §4.1).
#[derive(Clone, Copy, Debug)]
struct Head {
    length: u32,
    kind: u8,
    flags: u8,
    stream: u32,
}

impl Head {
    const fn ends_stream(self) -> bool {
        self.flags & END_STREAM != 0
    }
}

impl Cutter {
    /// The next head that is whole in these bytes, and takes off what was looked at.
    fn next(&mut self, bytes: &mut &[u8]) -> Option<Head> {
        let passed = self.skip.min(bytes.len());
        self.skip -= passed;
        let rest = bytes.get(passed..).unwrap_or_default();
        let taken = (FRAME_HEAD - self.filled).min(rest.len());
        let (piece, rest) = rest.split_at(taken);
        if let Some(room) = self.head.get_mut(self.filled..self.filled + taken) {
            room.copy_from_slice(piece);
        }
        self.filled += taken;
        *bytes = rest;
        if self.filled < FRAME_HEAD {
            return None;
        }
        self.filled = 0;
        let [high, middle, low, kind, flags, a, b, c, d] = self.head;
        let length = u32::from_be_bytes([0, high, middle, low]);
        self.skip = usize::try_from(length).unwrap_or(usize::MAX);
        Some(Head {
            length,
            kind,
            flags,
            // The highest bit is reserved.
            stream: u32::from_be_bytes([a & 0x7f, b, c, d]),
        })
    }
}

/// What a connection has sent and what it may still send.
#[derive(Debug)]
struct Ledger {
    read: Cutter,
    written: Cutter,
    credit: u32,
    renewed: Instant,
    /// The highest stream that was begun.
    highest: u32,
    /// Requests whose end has not come.
    open: u32,
}

/// A connection that has sent too many frames to no purpose.
#[derive(Debug, PartialEq, Eq)]
struct Flood;

impl Ledger {
    fn new(now: Instant) -> Self {
        Self {
            read: Cutter {
                skip: PREFACE,
                ..Cutter::default()
            },
            written: Cutter::default(),
            credit: CREDIT,
            renewed: now,
            highest: 0,
            open: 0,
        }
    }

    /// Takes bytes of the client as they came.
    fn read(&mut self, mut bytes: &[u8], now: impl Fn() -> Instant) -> Result<(), Flood> {
        while let Some(head) = self.read.next(&mut bytes) {
            if self.is_free(head) {
                continue;
            }
            if self.credit == 0 {
                self.renew(now());
            }
            self.credit = self.credit.checked_sub(1).ok_or(Flood)?;
        }
        Ok(())
    }

    fn is_free(&mut self, head: Head) -> bool {
        match head.kind {
            HEADERS if head.stream > self.highest => {
                self.highest = head.stream;
                self.open = self.open.saturating_add(u32::from(!head.ends_stream()));
                true
            }
            // Trailers, or the end of a body, each once a request.
            HEADERS => self.ends_one(head),
            DATA if head.ends_stream() => self.ends_one(head) || head.length >= LEAST_PIECE,
            DATA => head.length >= LEAST_PIECE,
            kind => kind == CONTINUATION,
        }
    }

    fn ends_one(&mut self, head: Head) -> bool {
        let ends = head.ends_stream() && self.open > 0;
        self.open -= u32::from(ends);
        ends
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

    /// Takes bytes of the gate as they went out.
    fn wrote(&mut self, mut bytes: &[u8]) {
        while let Some(head) = self.written.next(&mut bytes) {
            if matches!(head.kind, DATA | HEADERS) {
                self.add(A_PIECE + head.length / BYTES);
            }
        }
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
        self.ledger.wrote(buf.get(..wrote).unwrap_or_default());
        Poll::Ready(Ok(wrote))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let wrote = ready!(Pin::new(&mut self.stream).poll_write_vectored(cx, bufs))?;
        let mut left = wrote;
        for buf in bufs {
            let taken = left.min(buf.len());
            self.ledger.wrote(buf.get(..taken).unwrap_or_default());
            left -= taken;
        }
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

    fn frame_on(stream: u32, kind: u8, flags: u8, length: usize) -> Vec<u8> {
        let size = u32::try_from(length).expect("short").to_be_bytes();
        let mut bytes = vec![size[1], size[2], size[3], kind, flags];
        bytes.extend(stream.to_be_bytes());
        bytes.resize(FRAME_HEAD + length, 0);
        bytes
    }

    fn frame(kind: u8, flags: u8, length: usize) -> Vec<u8> {
        frame_on(1, kind, flags, length)
    }

    /// Frames that are taken before the connection is closed, out of `most`.
    fn taken(ledger: &mut Ledger, frame: &[u8], most: u32, now: Instant) -> u32 {
        (0..most)
            .take_while(|_| ledger.read(frame, || now).is_ok())
            .map(|_| 1)
            .sum()
    }

    /// A connection with one request whose body is still to come.
    fn asking(now: Instant) -> Ledger {
        let mut ledger = Ledger::new(now);
        assert_eq!(ledger.read(&[b'p'; PREFACE], || now), Ok(()));
        assert_eq!(ledger.read(&frame(HEADERS, 4, 20), || now), Ok(()));
        ledger
    }

    #[test]
    fn idle_frames_are_paid_for() {
        let now = Instant::now();
        for kind in [2, 3, 4, 6, 7, 8, 0xbb] {
            let mut ledger = asking(now);
            let frame = frame(kind, 0, 8);
            assert_eq!(taken(&mut ledger, &frame, 9000, now), CREDIT, "{kind}");
        }
        for length in [0, 7] {
            let mut ledger = asking(now);
            assert_eq!(
                taken(&mut ledger, &frame(DATA, 0, length), 9000, now),
                CREDIT
            );
        }
    }

    #[test]
    fn requests_and_bodies_are_free() {
        let now = Instant::now();
        for free in [frame(DATA, 0, 8), frame(CONTINUATION, 4, 20)] {
            assert_eq!(taken(&mut asking(now), &free, 9000, now), 9000);
        }
        let mut ledger = asking(now);
        for stream in (3..20_000).step_by(2) {
            for frame in [
                frame_on(stream, HEADERS, 4, 20),
                frame_on(stream, DATA, END_STREAM, 0),
            ] {
                assert_eq!(ledger.read(&frame, || now), Ok(()), "{stream}");
            }
        }
        assert_eq!(ledger.credit, CREDIT);
    }

    #[test]
    fn a_request_ends_once() {
        let now = Instant::now();
        let ends = [
            frame(DATA, END_STREAM, 0),
            frame(HEADERS, END_STREAM | 4, 9),
        ];
        for end in ends {
            assert_eq!(taken(&mut asking(now), &end, 9000, now), CREDIT + 1);
        }
        assert_eq!(
            taken(&mut asking(now), &frame(HEADERS, 4, 9), 9000, now),
            CREDIT
        );
    }

    #[test]
    fn time_and_answers_give_credit_up_to_the_first_measure() {
        let now = Instant::now();
        let mut ledger = asking(now);
        // Without a payload, so that the frame after a refused one is whole again.
        let ping = frame(6, 0, 0);
        taken(&mut ledger, &ping, CREDIT, now);
        let later = now + Duration::from_secs(1);
        assert_eq!(taken(&mut ledger, &ping, 9000, later), A_SECOND);
        // What answers a PING is nothing that was asked for.
        ledger.wrote(&frame(6, 1, 8));
        assert_eq!(taken(&mut ledger, &ping, 9000, later), 0);
        ledger.wrote(&frame(DATA, 0, 20));
        assert_eq!(taken(&mut ledger, &ping, 9000, later), A_PIECE);
        for piece in frame(DATA, 0, 1024).chunks(5) {
            ledger.wrote(piece);
        }
        assert_eq!(taken(&mut ledger, &ping, 9000, later), A_PIECE + 2);
        for _ in 0..9000 {
            ledger.wrote(&frame(DATA, 0, 1));
        }
        assert_eq!(taken(&mut ledger, &ping, 9000, later), CREDIT);
    }

    #[test]
    fn cuts_between_reads_change_nothing() {
        let now = Instant::now();
        let mut bytes = vec![b'p'; PREFACE];
        for _ in 0..CREDIT {
            bytes.extend(frame(DATA, 0, 8));
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
