//! The backend's body on its way to the client, with the lease on its connection.
//!
//! When the body has ended and the request body went out whole, the connection goes back to its pool; in every
//! other case it is closed. A body that breaks is an error, so that the client sees an abort and never a clean end.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Instant,
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

use super::{endpoint::InFlight, link::Link, pool::Pool};
use crate::wire::body::BodyProgress;

/// A connection that is lent to one exchange.
#[derive(Debug)]
pub struct Lease {
    /// The connection itself.
    pub link: Link,
    /// Counts the exchange on its endpoint, where that matters to the next choice.
    pub in_flight: Option<InFlight>,
    /// The pool that it goes back to.
    pub pool: Arc<Pool>,
    /// The request body, when there was one.
    pub progress: Option<Arc<BodyProgress>>,
    /// What becomes of the connection.
    pub after: After,
}

/// What becomes of a connection after its exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum After {
    /// It waits for the next request.
    Keep,
    /// It is closed: the two sides may not agree on where the exchange ended.
    Close,
}

impl Lease {
    /// Gives the connection back for the next request.
    fn release(self) {
        if self.after == After::Close {
            return;
        }
        // A request body that is still under way would run into the next exchange.
        if self.progress.as_ref().is_some_and(|p| !p.is_complete()) {
            return;
        }
        self.pool.put(self.link, Instant::now());
    }
}

/// A backend's response body.
#[derive(Debug)]
pub struct UpstreamBody {
    incoming: Incoming,
    lease: Option<Lease>,
}

impl UpstreamBody {
    /// A body whose connection is given back at its end.
    pub fn new(incoming: Incoming, lease: Lease) -> Self {
        let mut body = Self {
            incoming,
            lease: Some(lease),
        };
        body.release_at_end();
        body
    }

    fn release_at_end(&mut self) {
        if self.incoming.is_end_stream() {
            self.release();
        }
    }

    fn release(&mut self) {
        if let Some(lease) = self.lease.take() {
            lease.release();
        }
    }
}

impl Body for UpstreamBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        loop {
            match ready!(Pin::new(&mut self.incoming).poll_frame(cx)) {
                Some(Ok(frame)) => {
                    self.release_at_end();
                    // Trailers were not judged, and HTTP/1.1 clients rarely expect them.
                    if frame.is_data() {
                        return Poll::Ready(Some(Ok(frame)));
                    }
                }
                Some(Err(error)) => {
                    self.lease = None;
                    return Poll::Ready(Some(Err(error)));
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
