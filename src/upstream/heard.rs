//! A stream to a backend, with somebody who listens to what is read. For [`super::prelude`] and [`super::two`].

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::stream::Stream;

/// Who listens.
pub trait Listener {
    /// Takes note of what came; of nothing where the stream has ended.
    ///
    /// # Errors
    /// What the reader is told in place of it, which breaks the connection.
    fn hear(&self, came: &[u8]) -> io::Result<()>;
}

/// The stream.
#[derive(Debug)]
pub struct Heard<L> {
    stream: Stream,
    listener: Arc<L>,
}

impl<L> Heard<L> {
    /// What is read of the stream goes to the listener first.
    pub fn new(stream: Stream, listener: &Arc<L>) -> Self {
        Self {
            stream,
            listener: Arc::clone(listener),
        }
    }
}

impl<L: Listener> AsyncRead for Heard<L> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buf))?;
        let came = buf.filled().get(before..).unwrap_or_default();
        Poll::Ready(self.listener.hear(came))
    }
}

impl<L> AsyncWrite for Heard<L> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
