//! Answers to what never became a request: broken framing, heads that do not end, panics. Each has its access line.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use http::{HeaderValue, Method, Response, Version};

use super::{
    activity::{InFlight, Overdue},
    guarded_body::GuardedBody,
    screen::{Phase, Refusal, Violation},
};
use crate::{
    exchange::{Scheme, connection::Connection},
    observe::{
        access::{AccessRecord, Decision},
        metrics::Mode,
    },
    pipeline::{problem, worker::Worker},
    wire::halt::{Reason, Stage},
};

/// A connection that is refused before there is a request.
#[derive(Debug)]
pub struct Refused {
    reason: Reason,
    detail: &'static str,
    method: Vec<u8>,
    target: Vec<u8>,
}

impl Refused {
    /// The stable reason.
    pub fn reason(&self) -> Reason {
        self.reason
    }

    /// The exact rule.
    pub fn detail(&self) -> &'static str {
        self.detail
    }
}

/// The refusal for what the screen found; nothing when it has been answered or is not due.
pub fn of_violation(refusal: Option<Refusal>) -> Option<Refused> {
    let refusal = refusal?;
    Some(Refused {
        reason: reason_of(refusal.violation),
        detail: refusal.detail,
        method: refusal.method,
        target: refusal.target,
    })
}

/// The refusal for a head that did not come to its end; other deadlines end a connection without a word.
pub fn of_overdue(overdue: Overdue, phase: Phase) -> Option<Refused> {
    (overdue == Overdue::Header && phase == Phase::Head).then(|| Refused {
        reason: Reason::HeadTimeout,
        detail: "head-timeout",
        method: Vec::new(),
        target: Vec::new(),
    })
}

fn reason_of(violation: Violation) -> Reason {
    match violation {
        Violation::FramingConflict => Reason::FramingConflict,
        Violation::MalformedHead => Reason::MalformedHead,
        Violation::HeadTooLarge => Reason::HeadTooLarge,
        Violation::UriTooLong => Reason::TargetTooLong,
        Violation::UnsupportedVersion => Reason::VersionUnsupported,
        Violation::UnsupportedMethod => Reason::MethodUnknown,
        Violation::BadChunk => Reason::BadChunk,
        Violation::EarlyTunnelBytes => Reason::EarlyTunnelBytes,
    }
}

/// Writes the access line and gives the bytes of the answer.
pub fn answer(worker: &Arc<Worker>, connection: &Connection, refused: &Refused) -> Vec<u8> {
    let (id, _) = worker.ids();
    let scheme = if connection.tls.is_some() {
        Scheme::Https
    } else {
        Scheme::Http
    };
    let method = Method::from_bytes(&refused.method).unwrap_or(Method::GET);
    let status = refused.reason.status().as_u16();
    let (path, query) = split(&refused.target);
    let snapshot = worker.snapshot();
    let record = AccessRecord {
        timestamp: SystemTime::now(),
        method: &method,
        scheme: scheme.as_str(),
        server_address: None,
        path,
        query,
        redact_query: &snapshot.server.log.redact_query,
        route: None,
        status: Some(status),
        request_size: 0,
        response_size: 0,
        version: Version::HTTP_11,
        tls_version: connection.tls.as_ref().map(|tls| tls.version),
        client: Some(connection.peer.ip()),
        peer: Some(connection.peer.ip()),
        user_agent: None,
        enduser: None,
        trace_id: None,
        span_id: None,
        request_id: Some(id.as_str()),
        duration: Duration::ZERO,
        upstream: None,
        blueprint: None,
        decision: Decision::Refused,
        stage: Some(Stage::Wire),
        reason: Some(refused.reason),
        detail: Some(refused.detail),
        would_refuse: &[],
    };
    worker.with_sink(|sink| sink.append(&record));
    let metrics = &worker.survivors.metrics;
    metrics.refusal(Stage::Wire, refused.reason, Mode::Enforce);
    metrics
        .unmatched()
        .record(&method, Some(status), Decision::Refused, Duration::ZERO);
    problem::raw(refused.reason, id.as_str(), scheme)
}

fn split(target: &[u8]) -> (&[u8], Option<&[u8]>) {
    match memchr::memchr(b'?', target) {
        Some(at) => (
            target.get(..at).unwrap_or_default(),
            target.get(at.saturating_add(1)..),
        ),
        None => (target, None),
    }
}

/// The answer to a request whose handling panicked. Its own record was dropped on the way and says `aborted`; this
/// gives the client its 500, with the reason and the headers of any other answer.
pub fn internal(
    worker: &Worker,
    connection: &Connection,
    in_flight: InFlight,
) -> Response<GuardedBody> {
    let metrics = &worker.survivors.metrics;
    metrics.panicked();
    metrics.refusal(Stage::Forward, Reason::Internal, Mode::Enforce);
    lost(Reason::Internal, (worker, connection), in_flight)
}

/// An answer in place of one whose record has been written.
pub fn lost(
    reason: Reason,
    (worker, connection): (&Worker, &Connection),
    in_flight: InFlight,
) -> Response<GuardedBody> {
    let scheme = if connection.tls.is_some() {
        Scheme::Https
    } else {
        Scheme::Http
    };
    let (id, _) = worker.ids();
    let id = HeaderValue::from_bytes(id.as_bytes()).expect("hexadecimal digits are a valid value");
    problem::lost(reason, &id, scheme).map(|words| GuardedBody::own(words, in_flight))
}
