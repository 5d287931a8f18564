//! Answers that the proxy makes itself: refusals, ready replies, errors of its own.

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, Version, header, response::Parts};

use super::{
    body::AnswerBody,
    normalise::Arrival,
    problem,
    record::{Cause, Recording},
};
use crate::{
    exchange::{Exchange, Kind},
    observe::access::Decision,
    policy, portal,
    snapshot::Snapshot,
    wire::{
        grpc,
        halt::{Halt, Reason, Refusal, Stage},
    },
};
use http_body::Body;

/// Answers a request that was halted before the backend.
pub fn halt(
    snapshot: &Snapshot,
    halt: Halt,
    arrival: &Arrival,
    mut recording: Recording,
) -> Response<AnswerBody> {
    let unread = arrival
        .body
        .as_ref()
        .is_some_and(|body| !body.is_end_stream());
    let refused = match &halt {
        Halt::Refuse(refusal) => Some(refusal.reason),
        Halt::Reply(_) => None,
    };
    let (decision, cause) = match &halt {
        // Nothing is wrong with the request: the gate could not do its part.
        Halt::Refuse(refusal)
            if matches!(
                refusal.reason,
                Reason::KeysUnavailable
                    | Reason::IntrospectionUnavailable
                    | Reason::SecondFactorUnavailable
                    | Reason::Overloaded
            ) =>
        {
            (Decision::Failed, cause_of(refusal))
        }
        Halt::Refuse(refusal) if client_left(&recording) => (Decision::Aborted, cause_of(refusal)),
        Halt::Refuse(refusal) => (Decision::Refused, cause_of(refusal)),
        Halt::Reply(reply) => {
            let cause = Cause {
                stage: reply.stage,
                reason: None,
                detail: None,
            };
            (Decision::Answered, cause)
        }
    };
    recording.exchange.forged |= halt.is_forgery();
    let response = plain(halt, &recording.exchange);
    recording.decide(decision, response.status(), Some(cause));
    let unread = Unread::of(unread, arrival.version);
    finish(snapshot, response, (refused, unread), recording)
}

/// Whether the client went away in the middle of its body.
fn client_left(recording: &Recording) -> bool {
    let progress = recording.progress.as_ref();
    progress.is_some_and(|progress| progress.client_left())
}

fn cause_of(refusal: &Refusal) -> Cause {
    Cause {
        stage: refusal.stage,
        reason: Some(refusal.reason),
        detail: refusal.detail,
    }
}

/// The answer to a halted request before its response halves; also for `explain`.
pub fn plain(halt: Halt, exchange: &Exchange) -> Response<Bytes> {
    match halt {
        Halt::Refuse(refusal) => problem::render(&refusal, exchange),
        Halt::Reply(reply) => {
            let mut response = Response::new(reply.body);
            *response.status_mut() = reply.status;
            *response.headers_mut() = reply.headers;
            response
        }
    }
}

/// Answers a request that failed on its way to the backend.
pub fn failure(
    snapshot: &Snapshot,
    refusal: &Refusal,
    unread: Unread,
    mut recording: Recording,
) -> Response<AnswerBody> {
    let cause = cause_of(refusal);
    recording.exchange.forged |= refusal.forged;
    let response = problem::render(refusal, &recording.exchange);
    let decision = if client_left(&recording) {
        Decision::Aborted
    } else if response.status().is_server_error() {
        Decision::Failed
    } else {
        Decision::Refused
    };
    recording.decide(decision, response.status(), Some(cause));
    finish(
        snapshot,
        response,
        (Some(refusal.reason), unread),
        recording,
    )
}

/// Whether the connection must end because bytes of this request are still to come on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unread {
    /// Nothing is left, or the stream can end alone.
    Nothing,
    /// The rest of the body would be read as the next request.
    Rest,
}

impl Unread {
    /// Only HTTP/1 has the trouble.
    pub fn of(unread: bool, version: Version) -> Self {
        if unread && version <= Version::HTTP_11 {
            Self::Rest
        } else {
            Self::Nothing
        }
    }
}

fn finish(
    snapshot: &Snapshot,
    response: Response<Bytes>,
    (refused, unread): (Option<Reason>, Unread),
    mut recording: Recording,
) -> Response<AnswerBody> {
    let (mut head, mut words) = response.into_parts();
    let route = recording.met.and_then(|id| snapshot.route(id));
    let policies = route.map_or(&snapshot.unrouted, |route| &route.policies);
    policy::finish(policies, &mut recording.exchange, &mut head);
    if recording.exchange.own_page {
        portal::guard(&mut head.headers);
    }
    if let Some(reason) = refused
        && recording.exchange.kind == Kind::Call
    {
        // Behind the response halves, which go by the status of the refusal.
        end_call(&mut head, reason, &mut recording);
        words = Bytes::new();
    }
    if unread == Unread::Rest {
        head.headers
            .insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    Response::from_parts(head, AnswerBody::own(words, recording))
}

/// A refusal as gRPC tells it: an answer that is well but for its `grpc-status`.
fn end_call(head: &mut Parts, reason: Reason, recording: &mut Recording) {
    let id = recording.exchange.request_id.to_str().unwrap_or_default();
    let message = [reason.code(), ": ", reason.title(), " (request ", id, ")"].concat();
    grpc::end_call(&mut head.headers, head.status, &message);
    head.status = StatusCode::OK;
    recording.restate(head.status);
}

/// The refusal for a request that met an error of our own.
pub fn internal() -> Refusal {
    Refusal::new(Stage::Forward, Reason::Internal)
}
