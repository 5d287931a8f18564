//! A TLS stream that is given long writes in short slices.
//!
//! rustls copies what it encrypts into a record of its own. glibc makes a copy of 16 KiB with one `rep movsb`, and on AMD's
//! Zen 3 and 4 that runs at a twentieth of its speed when the target lies a few bytes further into its page than the source
//! (glibc bug 30994, mended in later releases). Here it does: a piece of a body begins with a page, and a record's text five
//! bytes into one. Copies up to [`SLICE`] go through vector registers and do not suffer from it. Slices do not show outside:
//! rustls fills each record from as many as it takes.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Longest slice in bytes. glibc leaves no copy below 2112 bytes to a `rep movsb` that is announced as fast.
const SLICE: usize = 2048;
/// Slices of one write: as much as rustls holds back, 64 KiB, with some for heads and chunk sizes.
const SLICES: usize = 40;

/// A TLS stream that gets short slices.
#[derive(Debug)]
pub struct Sliced<S>(S);

impl<S> Sliced<S> {
    /// Wraps a TLS stream.
    pub fn new(stream: S) -> Self {
        Self(stream)
    }

    /// The stream itself.
    pub fn get_ref(&self) -> &S {
        &self.0
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Sliced<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().0).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Sliced<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        if buf.len() <= SLICE {
            return Pin::new(&mut self.get_mut().0).poll_write(cx, buf);
        }
        self.poll_write_vectored(cx, &[IoSlice::new(buf)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let stream = Pin::new(&mut self.get_mut().0);
        if bufs.iter().all(|buf| buf.len() <= SLICE) {
            return stream.poll_write_vectored(cx, bufs);
        }
        let mut slices = [IoSlice::new(&[]); SLICES];
        let count = cut(bufs, &mut slices);
        stream.poll_write_vectored(cx, slices.get(..count).unwrap_or_default())
    }

    fn is_write_vectored(&self) -> bool {
        self.0.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().0).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().0).poll_shutdown(cx)
    }
}

/// Cuts as much as there are slices for, and says how many were used.
fn cut<'a>(bufs: &'a [IoSlice<'_>], slices: &mut [IoSlice<'a>]) -> usize {
    let cuts = bufs.iter().flat_map(|buf| buf.chunks(SLICE));
    cuts.zip(slices)
        .map(|(cut, slice)| *slice = IoSlice::new(cut))
        .count()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slices(bufs: &[&[u8]]) -> Vec<Vec<u8>> {
        let bufs: Vec<IoSlice<'_>> = bufs.iter().map(|buf| IoSlice::new(buf)).collect();
        let mut slices = [IoSlice::new(&[]); SLICES];
        let count = cut(&bufs, &mut slices);
        slices[..count].iter().map(|slice| slice.to_vec()).collect()
    }

    /// Bytes that are not the same a slice further on.
    fn body(length: usize) -> Vec<u8> {
        (0..251).cycle().take(length).collect()
    }

    #[test]
    fn nothing_is_lost_or_moved() {
        let body = body(3 * SLICE + 1);
        let cut = slices(&[b"head", b"", &body, b"tail"]);
        assert!(cut.iter().all(|slice| slice.len() <= SLICE));
        assert_eq!(cut.concat(), [b"head", &body[..], b"tail"].concat());
    }

    #[test]
    fn what_is_too_much_for_one_write_is_left_for_the_next() {
        let body = body(2 * SLICES * SLICE);
        let cut = slices(&[b"head", &body]).concat();
        assert_eq!(cut.len(), 4 + (SLICES - 1) * SLICE);
        assert!([b"head", &body[..]].concat().starts_with(&cut));
    }
}
