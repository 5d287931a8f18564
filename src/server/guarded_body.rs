//! An answer's body with the count of requests in flight: the connection knows when its last answer is out.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use super::activity::InFlight;
use crate::pipeline::body::AnswerBody;

/// A body that counts as in flight until it is dropped.
#[derive(Debug)]
pub struct GuardedBody {
    body: Option<AnswerBody>,
    _in_flight: InFlight,
}

impl GuardedBody {
    /// Guards an answer.
    pub fn new(body: AnswerBody, in_flight: InFlight) -> Self {
        Self {
            body: Some(body),
            _in_flight: in_flight,
        }
    }

    /// An answer without a body.
    pub fn empty(in_flight: InFlight) -> Self {
        Self {
            body: None,
            _in_flight: in_flight,
        }
    }
}

impl Body for GuardedBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        match &mut self.get_mut().body {
            Some(body) => Pin::new(body).poll_frame(cx),
            None => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body
            .as_ref()
            .map_or_else(|| SizeHint::with_exact(0), Body::size_hint)
    }
}
