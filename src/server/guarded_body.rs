//! An answer's body with the count of requests in flight: the connection knows when its last answer is out.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::Version;
use http_body::{Body, Frame, SizeHint};

use super::activity::InFlight;
use crate::{pipeline::body::AnswerBody, upstream::body::BodyBroken};

/// A body that counts as in flight until it is dropped.
#[derive(Debug)]
pub struct GuardedBody {
    body: Source,
    in_flight: InFlight,
    offer: Offer,
}

#[derive(Debug)]
enum Source {
    /// The pipeline's answer.
    Answer(AnswerBody),
    /// Words of the connection itself; `None` once they are out.
    Own(Option<Bytes>),
}

/// Whether a piece of the answer waits for the client to take it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Offer {
    /// Not watched: HTTP/1, where a client that takes nothing blocks the write itself.
    Unwatched,
    /// Nothing waits.
    None,
    /// A piece waits.
    Waiting,
}

impl GuardedBody {
    /// Guards an answer.
    pub fn new(body: AnswerBody, in_flight: InFlight, version: Version) -> Self {
        let mut guarded = Self {
            offer: if version == Version::HTTP_2 {
                Offer::None
            } else {
                Offer::Unwatched
            },
            body: Source::Answer(body),
            in_flight,
        };
        if !guarded.is_end_stream() {
            guarded.offer();
        }
        guarded
    }

    /// An answer of the connection itself.
    pub fn own(words: Bytes, in_flight: InFlight) -> Self {
        Self {
            body: Source::Own(Some(words).filter(|words| !words.is_empty())),
            in_flight,
            offer: Offer::Unwatched,
        }
    }

    fn offer(&mut self) {
        if self.offer == Offer::None {
            self.offer = Offer::Waiting;
            self.in_flight.offers();
        }
    }

    fn withdraw(&mut self) {
        if self.offer == Offer::Waiting {
            self.offer = Offer::None;
            self.in_flight.offers_no_more();
        }
    }
}

impl Drop for GuardedBody {
    fn drop(&mut self) {
        self.withdraw();
    }
}

impl Body for GuardedBody {
    type Data = Bytes;
    type Error = BodyBroken;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyBroken>>> {
        let this = self.get_mut();
        this.withdraw();
        let polled = match &mut this.body {
            Source::Answer(body) => Pin::new(body).poll_frame(cx),
            Source::Own(words) => Poll::Ready(words.take().map(|words| Ok(Frame::data(words)))),
        };
        // What was given now must be taken before more is asked for.
        if matches!(polled, Poll::Ready(Some(Ok(_)))) {
            this.offer();
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        match &self.body {
            Source::Answer(body) => body.is_end_stream(),
            Source::Own(words) => words.is_none(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.body {
            Source::Answer(body) => body.size_hint(),
            Source::Own(words) => {
                let length = words.as_ref().map_or(0, Bytes::len);
                SizeHint::with_exact(u64::try_from(length).unwrap_or(u64::MAX))
            }
        }
    }
}
