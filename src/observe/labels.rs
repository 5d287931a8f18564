//! The words that stand in labels: closed lists, so that the number of series is bounded.
//!
//! For [`super::metrics`] and its callers.

use http::Method;

/// Methods as a label: the usual ones, and one word for whatever else a client may invent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum MethodClass {
    Get,
    Head,
    Post,
    Put,
    Delete,
    Patch,
    Options,
    Other,
}

impl MethodClass {
    pub(super) const ALL: [Self; 8] = [
        Self::Get,
        Self::Head,
        Self::Post,
        Self::Put,
        Self::Delete,
        Self::Patch,
        Self::Options,
        Self::Other,
    ];

    pub(super) fn of(method: &Method) -> Self {
        match *method {
            Method::GET => Self::Get,
            Method::HEAD => Self::Head,
            Method::POST => Self::Post,
            Method::PUT => Self::Put,
            Method::DELETE => Self::Delete,
            Method::PATCH => Self::Patch,
            Method::OPTIONS => Self::Options,
            _ => Self::Other,
        }
    }

    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Head => "HEAD",
            Self::Post => "POST",
            Self::Put => "PUT",
            Self::Delete => "DELETE",
            Self::Patch => "PATCH",
            Self::Options => "OPTIONS",
            Self::Other => "other",
        }
    }
}

/// What became of an attempt to forward.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UpstreamOutcome {
    /// A response head came.
    Answered,
    /// No connection.
    Unreachable,
    /// No connection or no response head in time.
    TimedOut,
    /// The connection broke, or what came was not HTTP.
    Broken,
    /// The client went away first.
    Aborted,
    /// Not tried: the breaker is open.
    BreakerOpen,
    /// Not tried: no stream was free on any connection that may be made.
    Full,
}

impl UpstreamOutcome {
    pub(super) const ALL: [Self; 7] = [
        Self::Answered,
        Self::Unreachable,
        Self::TimedOut,
        Self::Broken,
        Self::Aborted,
        Self::BreakerOpen,
        Self::Full,
    ];

    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Answered => "answered",
            Self::Unreachable => "unreachable",
            Self::TimedOut => "timed_out",
            Self::Broken => "broken",
            Self::Aborted => "aborted",
            Self::BreakerOpen => "breaker_open",
            Self::Full => "full",
        }
    }
}

/// Why a server is left out for a while.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EjectionCause {
    /// It failed several times in a row.
    Failures,
    /// Its share of 5xx answers lies far above that of its peers.
    Errors,
}

impl EjectionCause {
    pub(super) const ALL: [Self; 2] = [Self::Failures, Self::Errors];

    /// The word of the label.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Failures => "failures",
            Self::Errors => "errors",
        }
    }
}

/// How a server of an upstream is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServerState {
    /// It is asked.
    Ready,
    /// It fails its health check.
    Unhealthy,
    /// It does worse than its peers.
    Ejected,
    /// Its breaker is open.
    Resting,
}

impl ServerState {
    pub(super) const ALL: [Self; 4] = [Self::Ready, Self::Unhealthy, Self::Ejected, Self::Resting];

    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::Unhealthy => "unhealthy",
            Self::Ejected => "ejected",
            Self::Resting => "resting",
        }
    }
}

/// Whether a refusal took effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// The request was refused.
    Enforce,
    /// The policy only watches; the request went on.
    Monitor,
}

impl Mode {
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Enforce => "enforce",
            Self::Monitor => "monitor",
        }
    }
}

/// Where a client connection is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConnectionState {
    /// Accepted, TLS not done yet.
    Handshake,
    /// Speaks HTTP.
    Open,
    /// Upgraded: bytes pass both ways.
    Tunnel,
    /// Ends after what it still has under way.
    Draining,
}

impl ConnectionState {
    pub(super) const ALL: [Self; 4] = [Self::Handshake, Self::Open, Self::Tunnel, Self::Draining];

    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Handshake => "handshake",
            Self::Open => "open",
            Self::Tunnel => "tunnel",
            Self::Draining => "draining",
        }
    }
}

/// What became of a reload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReloadOutcome {
    /// The new file is in force.
    Applied,
    /// The new file has problems; the old one goes on.
    Rejected,
}

impl ReloadOutcome {
    pub(super) const ALL: [Self; 2] = [Self::Applied, Self::Rejected];

    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Applied => "applied",
            Self::Rejected => "rejected",
        }
    }
}
