//! A client's body that was held until it was whole, on its way to the backend: the very bytes that were judged.

use std::{
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use http_body::{Frame, SizeHint};

use super::body::{BodyCut, BodyProgress, Metered};

/// What was held, and what is still to come if it was let go before its end.
#[derive(Debug)]
pub struct Held {
    bytes: Option<Bytes>,
    rest: Option<Box<Metered>>,
    progress: Arc<BodyProgress>,
}

impl Held {
    /// A whole body.
    pub fn whole(bytes: Bytes) -> Self {
        Self {
            bytes: Some(bytes),
            rest: None,
            progress: Arc::new(BodyProgress::default()),
        }
    }

    /// The beginning of a body of which the rest is passed on as it comes.
    pub fn begun(bytes: Bytes, rest: Box<Metered>) -> Self {
        Self {
            bytes: Some(bytes).filter(|bytes| !bytes.is_empty()),
            progress: Arc::clone(rest.progress()),
            rest: Some(rest),
        }
    }

    /// What became of it on its way to the backend.
    pub fn progress(&self) -> &Arc<BodyProgress> {
        &self.progress
    }

    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyCut>>> {
        if let Some(bytes) = self.bytes.take() {
            if self.rest.is_none() {
                self.progress.pass_whole(&bytes);
            }
            return Poll::Ready(Some(Ok(Frame::data(bytes))));
        }
        match &mut self.rest {
            Some(rest) => rest.poll(cx),
            None => Poll::Ready(None),
        }
    }

    pub(super) fn is_end_stream(&self) -> bool {
        self.bytes.is_none() && self.rest.as_ref().is_none_or(|rest| rest.is_end_stream())
    }

    pub(super) fn size_hint(&self) -> SizeHint {
        let held = self.bytes.as_ref().map_or(0, Bytes::len);
        let held = u64::try_from(held).unwrap_or(u64::MAX);
        let Some(rest) = &self.rest else {
            return SizeHint::with_exact(held);
        };
        let rest = rest.size_hint();
        let mut hint = SizeHint::new();
        hint.set_lower(rest.lower().saturating_add(held));
        if let Some(upper) = rest.upper() {
            hint.set_upper(upper.saturating_add(held));
        }
        hint
    }
}
