//! Why a request did not come back from a backend: what kind, whose fault, may it be tried again.

use std::time::Duration;

use crate::wire::halt::Reason;

/// A failed exchange with a backend. The cause is for the log; the client sees [`UpstreamError::reason`] alone.
#[derive(Debug, thiserror::Error)]
pub enum UpstreamError {
    /// No connection could be made; nothing was sent.
    #[error("cannot connect: {0}")]
    Connect(#[source] std::io::Error),
    /// This process or machine has no descriptor, port or memory left for a connection; nothing was sent.
    #[error("no room for a connection: {0}")]
    NoRoom(#[source] std::io::Error),
    /// The connection took too long; nothing was sent.
    #[error("connect timed out")]
    ConnectTimeout,
    /// Earlier tries had left less time for a connection than one may need; nothing was sent.
    #[error("no time left for a connection")]
    OutOfTime,
    /// The backend did not begin to answer in time.
    #[error("response timed out")]
    ResponseTimeout,
    /// The connection broke, or the answer is not HTTP.
    #[error("broken exchange: {0}")]
    Broken(#[source] hyper::Error),
    /// The backend refused the request before it looked at it (RFC 9113 §8.7).
    #[error("refused stream: {0}")]
    Refused(#[source] hyper::Error),
    /// The answer is HTTP that must not be passed on.
    #[error("unacceptable answer: {0}")]
    Unacceptable(&'static str),
    /// Every connection that may be made carries all the requests that it can.
    #[error("no stream free")]
    Full,
    /// Every endpoint rests after failures.
    #[error("breaker open")]
    BreakerOpen {
        /// When to come again.
        retry_after: Duration,
    },
    /// The client's own body was cut: too large, too slow, broken.
    #[error("client body: {}", .0.code())]
    ClientBody(Reason),
}

/// Whose fault a failure is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The client's.
    Client,
    /// The backend's; counts against its breaker.
    Upstream,
    /// Nobody's now: the breaker refused, or there was no room or no time.
    Resting,
    /// Ours.
    Gate,
}

impl UpstreamError {
    /// The stable reason for body, log and metric.
    pub fn reason(&self) -> Reason {
        match self {
            Self::Connect(_) => Reason::UpstreamUnreachable,
            Self::ConnectTimeout | Self::OutOfTime | Self::ResponseTimeout => {
                Reason::UpstreamTimeout
            }
            Self::Broken(_) | Self::Refused(_) | Self::Unacceptable(_) => Reason::UpstreamBroken,
            Self::BreakerOpen { .. } => Reason::BreakerOpen,
            Self::Full | Self::NoRoom(_) => Reason::Overloaded,
            Self::ClientBody(reason) => *reason,
        }
    }

    /// Whose fault it is.
    pub fn fault(&self) -> Fault {
        match self {
            Self::ClientBody(_) => Fault::Client,
            Self::Full | Self::BreakerOpen { .. } | Self::OutOfTime => Fault::Resting,
            Self::NoRoom(_) => Fault::Gate,
            _ => Fault::Upstream,
        }
    }

    /// True when nothing was sent or nobody looked at it, so that another try cannot repeat an effect.
    pub fn had_no_effect(&self) -> bool {
        matches!(
            self,
            Self::Connect(_) | Self::ConnectTimeout | Self::Refused(_)
        )
    }

    /// True when the request may have reached the server, so that what it says may be the cause.
    pub fn was_sent(&self) -> bool {
        !matches!(
            self,
            Self::Connect(_) | Self::ConnectTimeout | Self::OutOfTime
        )
    }

    /// True when no server has looked at the request, as far as its last try shows: an earlier one on a kept connection may
    /// have been sent, where that may be done twice (RFC 9110 §9.2.2).
    pub fn reached_nobody(&self) -> bool {
        match self {
            Self::Connect(_)
            | Self::NoRoom(_)
            | Self::ConnectTimeout
            | Self::OutOfTime
            | Self::Refused(_)
            | Self::Full
            | Self::BreakerOpen { .. } => true,
            Self::ResponseTimeout
            | Self::Broken(_)
            | Self::Unacceptable(_)
            | Self::ClientBody(_) => false,
        }
    }

    /// A short word for the access line.
    pub fn detail(&self) -> &'static str {
        match self {
            Self::Connect(_) => "connect",
            Self::ConnectTimeout => "connect-timeout",
            Self::OutOfTime => "request-timeout",
            Self::ResponseTimeout => "response-timeout",
            Self::Broken(_) => "broken",
            Self::Refused(_) => "refused-stream",
            Self::Full => "no-stream",
            Self::Unacceptable(what) => what,
            Self::BreakerOpen { .. } => "breaker-open",
            Self::NoRoom(_) => "open-files",
            Self::ClientBody(_) => "client-body",
        }
    }
}
