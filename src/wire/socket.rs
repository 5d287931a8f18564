//! A stream socket that writes short pieces with one plain `send`.
//!
//! A head and a short body come as two pieces. Joining them costs a copy of a kilobyte and saves the kernel the list of
//! pieces, which is dearer; a list of one is dearer than none, too. Long pieces are passed on as they are.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Pieces that together are no longer than this are joined. In bytes.
const SHORT: usize = 2048;

/// A socket with cheap short writes.
#[derive(Debug)]
pub struct Socket<S>(S);

impl<S> Socket<S> {
    /// Wraps a stream.
    pub fn new(stream: S) -> Self {
        Self(stream)
    }

    /// The stream itself.
    pub fn get_ref(&self) -> &S {
        &self.0
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Socket<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().0).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Socket<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().0).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let stream = Pin::new(&mut self.get_mut().0);
        if let [piece] = pieces {
            return stream.poll_write(cx, piece);
        }
        let mut room = [0; SHORT];
        match join(pieces, &mut room) {
            Some(joined) => stream.poll_write(cx, joined),
            None => stream.poll_write_vectored(cx, pieces),
        }
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

/// The pieces in one, when there is room for them.
fn join<'a>(pieces: &[IoSlice<'_>], room: &'a mut [u8; SHORT]) -> Option<&'a [u8]> {
    let mut end = 0;
    for piece in pieces {
        let next = end + piece.len();
        room.get_mut(end..next)?.copy_from_slice(piece);
        end = next;
    }
    room.get(..end)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn joined(pieces: &[&[u8]]) -> Option<Vec<u8>> {
        let pieces: Vec<IoSlice<'_>> = pieces.iter().map(|piece| IoSlice::new(piece)).collect();
        join(&pieces, &mut [0; SHORT]).map(<[u8]>::to_vec)
    }

    #[test]
    fn short_pieces_are_joined_in_their_order() {
        assert_eq!(joined(&[b"head", b"", b"body"]).unwrap(), b"headbody");
        assert_eq!(joined(&[]).unwrap(), b"");
    }

    #[test]
    fn pieces_are_joined_up_to_the_bound_and_no_further() {
        let half = [b'a'; SHORT / 2];
        assert_eq!(joined(&[&half, &half]).unwrap().len(), SHORT);
        assert!(joined(&[&half, &half, b"b"]).is_none());
        assert!(joined(&[&[b'a'; SHORT + 1], b"b"]).is_none());
    }
}
