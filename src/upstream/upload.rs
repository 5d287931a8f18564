//! A request body on its way into an HTTP/2 connection, with the room of its request.
//!
//! For [`super::two`]. A stream counts until both sides have ended (RFC 9113 §5.1.2), so the room of a request is given
//! back when its answer has ended and the connection has let go of its body, whichever comes last. The connection takes
//! a piece as soon as the server takes a byte of it, and would hold the rest of a last piece unseen; so of each piece the
//! last byte goes apart: who takes that has room for all before it. Small bodies for which the server's window is large
//! enough are spared this.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use super::shared::Room;
use crate::wire::body::{BodyCut, ClientBody};

/// The most bytes of a body that go on in the pieces in which they came.
const SPARED: usize = 16 * 1024;

/// The body.
#[derive(Debug)]
pub struct Upload {
    body: ClientBody,
    passed: usize,
    /// Bytes that go on in the pieces in which they came.
    spared: usize,
    /// The last byte of the piece that was given last.
    last: Option<Bytes>,
    _room: Option<Arc<Room>>,
}

impl Upload {
    /// A body that takes no room, on a connection that is not shared.
    pub fn alone(body: ClientBody) -> Self {
        Self {
            body,
            passed: 0,
            spared: SPARED,
            last: None,
            _room: None,
        }
    }

    /// A body that keeps this room until it is dropped; none is needed where there is nothing to send.
    pub fn keeping(room: &Arc<Room>, body: ClientBody) -> Self {
        let kept = (!body.is_end_stream()).then(|| Arc::clone(room));
        Self {
            _room: kept,
            spared: room.window().min(SPARED),
            ..Self::alone(body)
        }
    }

    fn split(&mut self, mut piece: Bytes) -> Bytes {
        self.passed = self.passed.saturating_add(piece.len());
        if self.passed > self.spared && piece.len() > 1 {
            self.last = Some(piece.split_off(piece.len() - 1));
        }
        piece
    }
}

/// The client's body again, of a request that was not sent.
impl From<Upload> for ClientBody {
    fn from(upload: Upload) -> Self {
        upload.body
    }
}

impl Body for Upload {
    type Data = Bytes;
    type Error = BodyCut;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyCut>>> {
        if let Some(last) = self.last.take() {
            return Poll::Ready(Some(Ok(Frame::data(last))));
        }
        let next = ready!(Pin::new(&mut self.body).poll_frame(cx));
        Poll::Ready(next.map(|frame| {
            frame.map(|frame| match frame.into_data() {
                Ok(piece) => Frame::data(self.split(piece)),
                Err(frame) => frame,
            })
        }))
    }

    fn is_end_stream(&self) -> bool {
        self.last.is_none() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        match self.last {
            None => self.body.size_hint(),
            // Only asked for before the first piece.
            Some(_) => SizeHint::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use super::*;
    use crate::wire::held::Held;

    /// The lengths of the pieces that a body of one piece goes on in.
    fn pieces(length: usize, spared: usize) -> Vec<usize> {
        let held = Held::whole(Bytes::from(vec![b'x'; length]));
        let mut body = Upload {
            spared,
            ..Upload::alone(ClientBody::Held(Box::new(held)))
        };
        let mut lengths = Vec::new();
        while !body.is_end_stream() {
            let next = Pin::new(&mut body).poll_frame(&mut Context::from_waker(Waker::noop()));
            let Poll::Ready(Some(Ok(frame))) = next else {
                panic!("a piece: {next:?}");
            };
            lengths.push(frame.into_data().expect("data").len());
        }
        lengths
    }

    #[test]
    fn the_last_byte_of_a_body_that_is_not_small_goes_apart() {
        assert_eq!(pieces(1, SPARED), [1]);
        assert_eq!(pieces(SPARED, SPARED), [SPARED]);
        assert_eq!(pieces(SPARED + 1, SPARED), [SPARED, 1]);
        assert_eq!(pieces(100_000, SPARED), [99_999, 1]);
        assert_eq!(pieces(1000, 1000), [1000]);
        assert_eq!(pieces(1001, 1000), [1000, 1]);
        assert_eq!(pieces(1, 0), [1]);
    }
}
