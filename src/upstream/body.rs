//! The backend's body on its way to the client, with the lease on its connection.
//!
//! When the body has ended and the request body went out whole, an HTTP/1.1 connection goes back to its pool; in every
//! other case it is closed. Of an HTTP/2 connection, room for one request is given back; a request body that the client
//! still sends then is cut, since its stream counts until both sides have ended (RFC 9113 §5.1.2). A body that breaks,
//! or of which nothing comes for too long, is an error, so that the client sees an abort and never a clean end.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

use super::{
    endpoint::InFlight,
    link::{Link, Patience},
    pool::Pool,
    shared::Slot,
};
use crate::wire::{
    body::BodyProgress,
    trailers::{self, Trailers},
};

/// What an exchange goes over.
#[derive(Debug)]
pub enum Carrier {
    /// An HTTP/1.1 connection, for this exchange alone, and the pool that it goes back to.
    Alone(Link, Arc<Pool>),
    /// A place on an HTTP/2 connection.
    Shared(Slot),
}

/// A connection that is lent to one exchange.
#[derive(Debug)]
pub struct Lease {
    /// The connection itself.
    pub carrier: Carrier,
    /// Counts the exchange on its endpoint, where that matters to the next choice.
    pub in_flight: Option<InFlight>,
    /// The request body, when there was one.
    pub progress: Option<Arc<BodyProgress>>,
    /// What becomes of the connection.
    pub after: After,
    /// The longest silence in the answer.
    pub answer_idle: Duration,
}

/// What becomes of a connection after its exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum After {
    /// It waits for the next request.
    Keep,
    /// It is closed, unless it is shared: the two sides may not agree on where the exchange ended.
    Close,
}

impl Lease {
    /// Gives the connection back for the next request. A request body that is still under way would run into the next
    /// exchange.
    fn release(self) {
        let unsent = self.progress.filter(|body| !body.is_complete());
        match (self.carrier, unsent) {
            (Carrier::Shared(slot), unsent) => {
                // Before the body is told: that it is abandoned is known by then.
                drop(slot);
                if let Some(body) = unsent {
                    body.abandon();
                }
            }
            (Carrier::Alone(link, pool), None) if self.after == After::Keep => {
                pool.put(link, Instant::now());
            }
            _ => {}
        }
    }
}

/// A backend's body broke. What HTTP said of it is for the log: the client is told of a failure of ours.
#[derive(Debug, thiserror::Error)]
pub enum BodyBroken {
    /// The connection or the stream broke.
    #[error("response body broken: {0}")]
    Exchange(hyper::Error),
    /// The stream was reset as if all were well, before the body had ended (RFC 9113 §8.1).
    #[error("response body ended early")]
    Early,
    /// Nothing came for too long.
    #[error("response body stalled")]
    Stalled,
}

/// A backend's response body.
#[derive(Debug)]
pub struct UpstreamBody {
    incoming: Incoming,
    lease: Option<Lease>,
    trailers: Trailers,
    silence: Silence,
}

/// The time in which nothing came although it was asked for. The client's own pauses are none of the backend's.
#[derive(Debug)]
struct Silence {
    /// In milliseconds, which keeps bodies small; 49 days at most.
    longest_ms: u32,
    lasts: bool,
    /// Made at the first silence: most answers come at once.
    patience: Option<Box<Patience>>,
}

impl Silence {
    /// Ready when it has lasted too long.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let patience = self
            .patience
            .get_or_insert_with(|| Box::new(Patience::new()));
        if !self.lasts {
            self.lasts = true;
            let longest = Duration::from_millis(u64::from(self.longest_ms));
            patience.begin(tokio::time::Instant::now(), longest);
        }
        patience.poll(cx)
    }
}

impl UpstreamBody {
    /// A body whose connection is given back at its end.
    pub fn new(incoming: Incoming, lease: Lease, trailers: Trailers) -> Self {
        let silence = Silence {
            longest_ms: u32::try_from(lease.answer_idle.as_millis()).unwrap_or(u32::MAX),
            lasts: false,
            patience: None,
        };
        let mut body = Self {
            incoming,
            lease: Some(lease),
            trailers,
            silence,
        };
        body.release_at_end();
        body
    }

    fn release_at_end(&mut self) {
        if self.incoming.is_end_stream() {
            self.release();
        }
    }

    fn is_shared(&self) -> bool {
        let carrier = self.lease.as_ref().map(|lease| &lease.carrier);
        matches!(carrier, Some(Carrier::Shared(_)))
    }

    fn release(&mut self) {
        if let Some(lease) = self.lease.take() {
            lease.release();
        }
    }

    /// Leaves the exchange before its end.
    fn leave(&mut self) {
        if let Some(mut lease) = self.lease.take() {
            lease.after = After::Close;
            lease.release();
        }
    }
}

impl Drop for UpstreamBody {
    fn drop(&mut self) {
        self.leave();
    }
}

impl Body for UpstreamBody {
    type Data = Bytes;
    type Error = BodyBroken;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyBroken>>> {
        loop {
            let Poll::Ready(next) = Pin::new(&mut self.incoming).poll_frame(cx) else {
                ready!(self.silence.poll(cx));
                self.leave();
                return Poll::Ready(Some(Err(BodyBroken::Stalled)));
            };
            self.silence.lasts = false;
            match next {
                Some(Ok(frame)) => {
                    self.release_at_end();
                    if frame.is_data() {
                        return Poll::Ready(Some(Ok(frame)));
                    }
                    if let (Ok(mut trailers), Trailers::Pass) =
                        (frame.into_trailers(), self.trailers)
                    {
                        trailers::purge(&mut trailers);
                        return Poll::Ready(Some(Ok(Frame::trailers(trailers))));
                    }
                }
                Some(Err(error)) => {
                    self.leave();
                    return Poll::Ready(Some(Err(BodyBroken::Exchange(error))));
                }
                // hyper takes such a reset for the end, which it is only where the end was told.
                None if !self.incoming.is_end_stream() && self.is_shared() => {
                    self.leave();
                    return Poll::Ready(Some(Err(BodyBroken::Early)));
                }
                None => {
                    self.release();
                    return Poll::Ready(None);
                }
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}
