//! Whether bytes have come on a stream, asked without taking them and without room for them.

use std::task::{Context, Poll};

use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::server::TlsStream;

use crate::wire::{slices::Sliced, socket::Socket};

/// A stream that says when a read is worth while.
pub trait Readiness {
    /// Ready when a read may give bytes, the end or an error; it may also give nothing yet. Else the task is woken when it
    /// is.
    fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<()>;
}

impl Readiness for TcpStream {
    fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<()> {
        // What is wrong with the stream, the read will say.
        self.poll_read_ready(cx).map(drop)
    }
}

impl Readiness for UnixStream {
    fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.poll_read_ready(cx).map(drop)
    }
}

impl<S: Readiness> Readiness for Socket<S> {
    fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.get_ref().poll_readable(cx)
    }
}

impl<S: Readiness> Readiness for TlsStream<S> {
    /// What was decrypted already waits in the session, with nothing more to come on the stream below.
    fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<()> {
        let (stream, session) = self.get_ref();
        if session.wants_read() {
            stream.poll_readable(cx)
        } else {
            Poll::Ready(())
        }
    }
}

impl<S: Readiness> Readiness for Sliced<S> {
    fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.get_ref().poll_readable(cx)
    }
}

impl<S: Readiness> Readiness for Box<S> {
    fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<()> {
        S::poll_readable(self, cx)
    }
}
