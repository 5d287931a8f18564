//! The parser as the gate uses it, behind a screen, fed from memory: hyper's own server connection, no socket, no timer.

use std::{
    cell::RefCell,
    convert::Infallible,
    future::Future,
    io,
    pin::{Pin, pin},
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
};

use bytes::Bytes;
use http::{HeaderMap, Request, Response, request::Parts};
use http_body_util::{BodyExt, Empty};
use hyper::{
    body::Incoming,
    rt::{Read, ReadBufCursor, Write},
    server::conn::http1,
    service::service_fn,
};
use portcullis::server::screen::{Phase, Screen};

use super::messages::LIMITS;

/// A request that the parser gave to its service.
pub(super) struct Seen {
    pub(super) head: Parts,
    pub(super) data: Vec<u8>,
    pub(super) trailers: Option<HeaderMap>,
    /// The body ended as a whole one does.
    pub(super) ended: bool,
}

/// What came of a stream.
pub(super) struct Reading {
    /// What the screen let through.
    pub(super) passed: Vec<u8>,
    pub(super) seen: Vec<Seen>,
    pub(super) error: Option<hyper::Error>,
    phase: Phase,
}

impl Reading {
    /// Whether the stream ended within a message, or in front of what was refused.
    pub(super) fn cut_short(&self) -> bool {
        self.phase != Phase::Idle
    }
}

type Seens = Rc<RefCell<Vec<Seen>>>;

/// Gives the pieces to a screen, and what it lets through to the parser. Requests for a tunnel are denied.
pub(super) fn read<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> Reading {
    let seens = Seens::default();
    let pipe = Pipe::default();
    let service = service_fn(|request| serve(request, Rc::clone(&seens)));
    let mut connection = pin!(
        http1::Builder::new()
            .max_buf_size(8192)
            .serve_connection(pipe.clone(), service)
    );
    let mut screen = Screen::new(LIMITS);
    let mut passed = Vec::new();
    let mut outcome = None;
    for piece in pieces {
        let fed = screen.feed(piece);
        passed.extend_from_slice(&piece[..fed.pass]);
        pipe.0
            .borrow_mut()
            .unread
            .extend_from_slice(&piece[..fed.pass]);
        if outcome.is_none() {
            outcome = run(connection.as_mut());
        }
        if fed.violation.is_some() {
            break;
        }
        screen.resume();
    }
    pipe.0.borrow_mut().ended = true;
    let outcome = outcome.or_else(|| run(connection.as_mut()));
    let error = outcome
        .expect("the parser waits for more behind the end")
        .err();
    let seen = std::mem::take(&mut *seens.borrow_mut());
    Reading {
        passed,
        seen,
        error,
        phase: screen.phase(),
    }
}

/// Reads a request to its end and answers it.
async fn serve(
    request: Request<Incoming>,
    seens: Seens,
) -> Result<Response<Empty<Bytes>>, Infallible> {
    let (head, mut body) = request.into_parts();
    let place = seens.borrow().len();
    seens.borrow_mut().push(Seen {
        head,
        data: Vec::new(),
        trailers: None,
        ended: false,
    });
    let ended = loop {
        match body.frame().await {
            None => break true,
            Some(Err(_)) => break false,
            Some(Ok(frame)) => {
                let seen = &mut seens.borrow_mut()[place];
                match frame.into_data() {
                    Ok(data) => seen.data.extend_from_slice(&data),
                    Err(frame) => seen.trailers = frame.into_trailers().ok(),
                }
            }
        }
    };
    seens.borrow_mut()[place].ended = ended;
    Ok(Response::new(Empty::new()))
}

/// Polls until nothing moves any more.
fn run<F: Future>(mut future: Pin<&mut F>) -> Option<F::Output> {
    let woken = Arc::new(Woken(AtomicBool::new(true)));
    let waker = Waker::from(Arc::clone(&woken));
    let mut turns = 0;
    while woken.0.swap(false, Ordering::Relaxed) {
        turns += 1;
        assert!(turns < 100_000, "the parser spins");
        if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
            return Some(output);
        }
    }
    None
}

struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// The server's end of a connection; what is written to it is forgotten.
#[derive(Clone, Default)]
struct Pipe(Rc<RefCell<Unread>>);

#[derive(Default)]
struct Unread {
    unread: Vec<u8>,
    ended: bool,
}

impl Read for Pipe {
    fn poll_read(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        mut buf: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        let mut pipe = self.0.borrow_mut();
        if pipe.unread.is_empty() && !pipe.ended {
            return Poll::Pending;
        }
        let count = pipe.unread.len().min(buf.remaining());
        buf.put_slice(&pipe.unread[..count]);
        pipe.unread.drain(..count);
        Poll::Ready(Ok(()))
    }
}

impl Write for Pipe {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
