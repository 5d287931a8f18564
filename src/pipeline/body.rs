//! The body of an answer, with the record that is written when it has ended or was dropped.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use super::{
    record::{Ending, Recording},
    tunnel::{Switch, Tunnel},
};
use crate::upstream::body::{BodyBroken, UpstreamBody};

/// What the client gets.
#[derive(Debug)]
pub struct AnswerBody {
    source: Source,
    /// Until a tunnel takes it along.
    recording: Option<Recording>,
}

#[derive(Debug)]
enum Source {
    /// Our own words; `None` once they are out.
    Own(Option<Bytes>),
    /// The backend's body, passed through.
    Upstream(UpstreamBody),
    /// Nothing: what follows is no HTTP.
    Tunnel(Box<Switch>),
}

impl AnswerBody {
    /// An answer in our own words.
    pub fn own(words: Bytes, mut recording: Recording) -> Self {
        let words = Some(words).filter(|words| !words.is_empty());
        if words.is_none() {
            recording.end(Ending::Whole);
        }
        Self {
            source: Source::Own(words),
            recording: Some(recording),
        }
    }

    /// The answer that grants a tunnel; it has no body, and its record goes with the tunnel.
    pub fn tunnel(switch: Box<Switch>, mut recording: Recording) -> Self {
        recording.grant();
        Self {
            source: Source::Tunnel(switch),
            recording: Some(recording),
        }
    }

    /// Whether the answer grants a tunnel.
    pub fn is_tunnel(&self) -> bool {
        matches!(self.source, Source::Tunnel(_))
    }

    /// The tunnel that the answer grants.
    pub fn into_tunnel(mut self) -> Option<Tunnel> {
        match std::mem::replace(&mut self.source, Source::Own(None)) {
            Source::Tunnel(switch) => Some(Tunnel::new(switch, self.recording.take()?)),
            Source::Own(_) | Source::Upstream(_) => None,
        }
    }

    fn end(&mut self, ending: Ending) {
        if let Some(recording) = &mut self.recording {
            recording.end(ending);
        }
    }

    /// The backend's answer.
    pub fn upstream(body: UpstreamBody, mut recording: Recording) -> Self {
        if body.is_end_stream() {
            recording.end(Ending::Whole);
        }
        Self {
            source: Source::Upstream(body),
            recording: Some(recording),
        }
    }
}

impl Drop for AnswerBody {
    /// An answer of a stated length is over with its last byte, and nobody asks for more: an HTTP/2 backend may yet have
    /// to say that its stream has ended, where HTTP/1.1 has nothing to wait for.
    fn drop(&mut self) {
        if let Source::Upstream(body) = &self.source
            && body.size_hint().exact() == Some(0)
        {
            self.end(Ending::Whole);
        }
    }
}

impl Body for AnswerBody {
    type Data = Bytes;
    type Error = BodyBroken;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyBroken>>> {
        let this = self.get_mut();
        let next = match &mut this.source {
            Source::Own(words) => words.take().map(|words| Ok(Frame::data(words))),
            Source::Upstream(body) => ready!(Pin::new(body).poll_frame(cx)),
            Source::Tunnel(_) => None,
        };
        match &next {
            Some(Ok(frame)) => {
                if let Some(recording) = &mut this.recording {
                    recording.sent(frame.data_ref().map_or(0, Bytes::len));
                }
            }
            Some(Err(BodyBroken::Stalled)) => this.end(Ending::UpstreamStalled),
            Some(Err(_)) => this.end(Ending::UpstreamBroke),
            None => {}
        }
        if this.is_end_stream() || next.is_none() {
            this.end(Ending::Whole);
        }
        Poll::Ready(next)
    }

    fn is_end_stream(&self) -> bool {
        match &self.source {
            Source::Own(words) => words.is_none(),
            Source::Upstream(body) => body.is_end_stream(),
            Source::Tunnel(_) => true,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.source {
            Source::Own(words) => SizeHint::with_exact(
                words
                    .as_ref()
                    .map_or(0, |words| u64::try_from(words.len()).unwrap_or(0)),
            ),
            Source::Upstream(body) => body.size_hint(),
            Source::Tunnel(_) => SizeHint::with_exact(0),
        }
    }
}
