//! The only door to the network: an admitted request to its backend, and the backend's answer to the client.

use std::sync::Arc;

use http::{
    HeaderMap, HeaderName, Request, Response, StatusCode, Uri, Version, header,
    header::HeaderValue, response::Parts,
};

use super::{
    admit::Admitted,
    body::AnswerBody,
    hints, mask,
    normalise::Arrival,
    proof::{self, Looked},
    record::Recording,
    respond::{self, Unread},
    tunnel::Switch,
};
use crate::{
    crypto::websocket::Key,
    exchange::{Exchange, Kind},
    observe::{access::Decision, metrics::UpstreamOutcome},
    policy::{self, mask_errors},
    snapshot::Route,
    upstream::{
        body::{After, UpstreamBody},
        endpoint::Protocol,
        error::UpstreamError,
        send::{Outbound, Sent, send},
    },
    wire::{
        body::{BodyBounds, ClientBody},
        halt::{Refusal, Stage},
        hop::{self, Upgrade},
        trailers::Trailers,
    },
};

const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const X_AUTH_SUBJECT: HeaderName = HeaderName::from_static("x-auth-subject");
const X_AUTH_ROLES: HeaderName = HeaderName::from_static("x-auth-roles");
const X_AUTH_SCOPES: HeaderName = HeaderName::from_static("x-auth-scopes");
const X_PORTCULLIS_IDENTITY: HeaderName = HeaderName::from_static("x-portcullis-identity");
const WEBSOCKET: HeaderValue = HeaderValue::from_static("websocket");
const UPGRADE: HeaderValue = HeaderValue::from_static("upgrade");

/// Sends an admitted request and turns the backend's answer into the client's.
pub async fn forward(
    admitted: Admitted<'_>,
    mut arrival: Arrival,
    mut recording: Recording,
) -> Response<AnswerBody> {
    let route = admitted.route();
    arrival.trailers = trailers_of(route, &recording.exchange);
    let Some((body, progress)) = body_of(route, &mut arrival, &mut recording) else {
        let snapshot = Arc::clone(recording.snapshot());
        return respond::failure(&snapshot, &respond::internal(), Unread::Nothing, recording);
    };
    let hinted = hints::are_wanted(route, &recording.exchange);
    let mut request = outgoing(route, &mut recording.exchange, body);
    let turn = hinted.then(|| hints::pass(&recording.exchange, &mut request));
    let key = own_key(&recording.exchange, request.headers_mut());
    let sending = std::time::Instant::now();
    let mut trail = std::mem::take(&mut recording.trail);
    let outbound = Outbound {
        sending,
        cluster: &route.cluster,
        worker: recording.worker().index,
        seed: recording.worker().random(),
        client: recording.exchange.client,
        hasher: &recording.worker().survivors.hasher,
        progress: progress.clone(),
        hints: turn.as_ref(),
    };
    let sent = send(&outbound, request, &mut trail).await;
    drop(turn);
    recording.trail = trail;
    recording.upstream_duration = sending.elapsed();
    let sent = sent.and_then(|sent| expected(sent, &arrival, (&recording.exchange, key.as_ref())));
    let outcome = sent
        .as_ref()
        .map_or_else(outcome_of, |_| UpstreamOutcome::Answered);
    route
        .cluster
        .metrics
        .record(outcome, recording.upstream_duration);
    match sent {
        Ok(sent) => {
            let head = (sent.response.status(), sent.response.headers());
            let masking = &route.policies.mask_errors;
            match mask_errors::replacement(masking, &mut recording.exchange, head) {
                Some(refusal) => masked(&refusal, sent, &arrival, recording),
                None => answer(route, sent, arrival, recording),
            }
        }
        Err(error) => {
            let unread = unread_of(&recording, arrival.version);
            if let Some(body) = &progress {
                body.abandon();
            }
            if recording.exchange.unspent.is_some() {
                proof::give_back(&recording.exchange, &error);
            }
            log_failure(&error, &recording);
            let snapshot = Arc::clone(recording.snapshot());
            respond::failure(&snapshot, &blame(&error), unread, recording)
        }
    }
}

/// The body as it goes on: what was held and judged, else what the client sends.
fn body_of(route: &Route, arrival: &mut Arrival, recording: &mut Recording) -> Option<Looked> {
    if let Some(looked_at) = arrival.looked_at.take() {
        return Some(looked_at);
    }
    let listener = recording.snapshot().server.limits.body;
    let (body, progress) = ClientBody::new(
        arrival.body.take()?,
        bounds(route, listener, arrival.trailers),
    );
    recording.progress.clone_from(&progress);
    Some((body, progress))
}

/// Trailers go through the gate where gRPC needs them, and only from HTTP/2 to HTTP/2.
fn trailers_of(route: &Route, exchange: &Exchange) -> Trailers {
    if exchange.kind == Kind::Call && route.cluster.protocol == Protocol::Http2 {
        Trailers::Pass
    } else {
        Trailers::Drop
    }
}

/// The bounds on a request body of this route.
pub(super) fn bounds(route: &Route, listener: BodyBounds, trailers: Trailers) -> BodyBounds {
    let (bytes, watched_bytes) = route.policies.body_limit.streaming_bytes();
    BodyBounds {
        bytes,
        watched_bytes,
        call: (trailers == Trailers::Pass).then_some(route.cluster.tunnels.idle),
        ..listener
    }
}

/// The request as the backend gets it: what was judged, and what we vouch for.
pub fn outgoing<B>(route: &Route, exchange: &mut Exchange, body: B) -> Request<B> {
    let trailers = trailers_of(route, exchange);
    let mut headers = exchange.take_headers();
    vouch(route, exchange, &mut headers);
    if trailers == Trailers::Pass {
        headers.insert(header::TE, HeaderValue::from_static("trailers"));
    }
    let protocol = route.cluster.protocol;
    // Over HTTP/2 there is no such upgrade; without it the request is answered as it stands (RFC 9110 §7.8).
    if exchange.upgrade().is_some() && protocol == Protocol::Http1 {
        headers.insert(header::CONNECTION, UPGRADE);
        headers.insert(header::UPGRADE, WEBSOCKET);
    }
    let mut request = Request::new(body);
    *request.method_mut() = exchange.method().clone();
    *request.uri_mut() = Uri::from(route.policies.authn.forwarded(exchange.target()));
    *request.version_mut() = match protocol {
        Protocol::Http1 => Version::HTTP_11,
        Protocol::Http2 => Version::HTTP_2,
    };
    *request.headers_mut() = headers;
    request
}

/// Sets the headers that only the gate may set. They come last, so that nothing of the client's can stand in for them.
fn vouch(route: &Route, exchange: &Exchange, headers: &mut HeaderMap) {
    route.policies.authn.conceal(headers);
    route.policies.cookies.conceal(headers);
    // Room for what follows, so that the map grows once.
    headers.reserve(12);
    headers.remove(header::EXPECT);
    let host = exchange.authority().as_str();
    if headers.get(header::HOST).is_none_or(|sent| sent != host)
        && let Ok(host) = HeaderValue::from_str(host)
    {
        headers.insert(header::HOST, host);
    }
    exchange
        .connection
        .introduce(&exchange.chain, (host, exchange.scheme()), headers);
    headers.insert(X_REQUEST_ID, exchange.request_id.clone());
    headers.insert(TRACEPARENT, exchange.trace.traceparent());
    if let Some(voucher) = &route.cluster.voucher
        && let Some(statement) = voucher.statement(exchange)
    {
        headers.insert(X_PORTCULLIS_IDENTITY, statement);
    }
    route.policies.authn.introduce(exchange, headers);
    if let Some(principal) = &exchange.principal {
        let identity = &principal.headers;
        for (name, value) in [
            (X_AUTH_SUBJECT, &identity.subject),
            (X_AUTH_ROLES, &identity.roles),
            (X_AUTH_SCOPES, &identity.scopes),
        ] {
            if let Some(value) = value {
                headers.insert(name, value.clone());
            }
        }
    }
}

/// The key of a handshake that is ours because the client's, over HTTP/2, has none (RFC 8441 §5).
fn own_key(exchange: &Exchange, headers: &mut HeaderMap) -> Option<Key> {
    if exchange.upgrade() != Some(Upgrade::WebSocketStream) {
        return None;
    }
    let key = Key::new();
    headers.insert(header::SEC_WEBSOCKET_KEY, key.value());
    Some(key)
}

/// A 101 is an answer only to a request that asked for a tunnel, and only if it has read our key. On a stream any 2xx
/// would open a tunnel, so a backend that answers with a page instead has not answered.
fn expected(
    sent: Sent,
    arrival: &Arrival,
    (exchange, key): (&Exchange, Option<&Key>),
) -> Result<Sent, UpstreamError> {
    let (status, headers) = (sent.response.status(), sent.response.headers());
    if status != StatusCode::SWITCHING_PROTOCOLS {
        return if key.is_some() && status.is_success() {
            Err(UpstreamError::Unacceptable("no-switch"))
        } else {
            Ok(sent)
        };
    }
    let accept = headers.get(header::SEC_WEBSOCKET_ACCEPT);
    let answered = |key: &Key| accept.is_some_and(|accept| key.is_answered_by(accept.as_bytes()));
    if !key.is_none_or(answered) {
        return Err(UpstreamError::Unacceptable("wrong-accept"));
    }
    let websocket = headers
        .get(header::UPGRADE)
        .is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"websocket"));
    if exchange.upgrade().is_some() && arrival.on_upgrade.is_some() && websocket {
        Ok(sent)
    } else {
        Err(UpstreamError::Unacceptable("unasked-switch"))
    }
}

fn answer(
    route: &Route,
    sent: Sent,
    arrival: Arrival,
    mut recording: Recording,
) -> Response<AnswerBody> {
    let Sent {
        mut response,
        mut lease,
    } = sent;
    let (status, version) = (response.status(), arrival.version);
    let tunnel =
        (status == StatusCode::SWITCHING_PROTOCOLS).then(|| hyper::upgrade::on(&mut response));
    let (mut head, incoming) = response.into_parts();
    head.extensions.clear();
    head.version = Version::HTTP_11;
    hop::strip_response(&mut head.headers);
    head.headers.reserve(16);
    policy::finish(&route.policies, &mut recording.exchange, &mut head);
    if let (Some(backend), Some(client)) = (tunnel, arrival.on_upgrade) {
        lease.after = After::Close;
        let switch = Switch {
            client,
            backend,
            bounds: route.cluster.tunnels,
            lease,
        };
        return grant(head, Box::new(switch), recording);
    }
    recording.decide(Decision::Forwarded, status, None);
    if let Some(upgrade) = recording.exchange.upgrade() {
        // Both sides were ready for a tunnel that will not come: whatever they send next need not be HTTP.
        lease.after = After::Close;
        if upgrade == Upgrade::WebSocket {
            head.headers
                .insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
    }
    if unread_of(&recording, version) == Unread::Rest && head.status.is_client_error() {
        head.headers
            .insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    if let Some(progress) = &recording.progress {
        progress.answer_began();
    }
    let body = UpstreamBody::new(incoming, lease, arrival.trailers);
    Response::from_parts(head, AnswerBody::upstream(body, recording))
}

/// The answer that opens the tunnel: the 101 itself, or on a stream the 200 that stands for it.
fn grant(mut head: Parts, switch: Box<Switch>, mut recording: Recording) -> Response<AnswerBody> {
    head.headers.remove(header::CONTENT_LENGTH);
    if recording.exchange.upgrade() == Some(Upgrade::WebSocketStream) {
        head.status = StatusCode::OK;
        head.headers.remove(header::SEC_WEBSOCKET_ACCEPT);
    } else {
        head.headers.insert(header::CONNECTION, UPGRADE);
        head.headers.insert(header::UPGRADE, WEBSOCKET);
    }
    recording.decide(Decision::Forwarded, head.status, None);
    Response::from_parts(head, AnswerBody::tunnel(switch, recording))
}

/// A problem in place of the backend's error; what the backend said goes no farther than the log.
fn masked(
    refusal: &Refusal,
    sent: Sent,
    arrival: &Arrival,
    recording: Recording,
) -> Response<AnswerBody> {
    let Sent {
        response,
        mut lease,
    } = sent;
    let upgrade = recording.exchange.upgrade();
    if upgrade.is_some() {
        lease.after = After::Close;
    }
    let (status, request_id) = (response.status(), recording.exchange.request_id.clone());
    mask::read_off(
        UpstreamBody::new(response.into_body(), lease, Trailers::Drop),
        status,
        request_id,
    );
    // Whoever asked for a tunnel may send what is no HTTP.
    let unread = match upgrade {
        Some(_) => Unread::of(true, arrival.version),
        None => unread_of(&recording, arrival.version),
    };
    let snapshot = Arc::clone(recording.snapshot());
    respond::failure(&snapshot, refusal, unread, recording)
}

fn unread_of(recording: &Recording, version: Version) -> Unread {
    let unread = recording
        .progress
        .as_ref()
        .is_some_and(|progress| !progress.is_complete());
    Unread::of(unread, version)
}

/// The refusal that a failed exchange becomes: a stable reason, nothing of the backend's address.
fn blame(error: &UpstreamError) -> Refusal {
    let refusal = Refusal::new(Stage::Forward, error.reason()).detail(error.detail());
    match error {
        UpstreamError::BreakerOpen { retry_after } => {
            refusal.with(header::RETRY_AFTER, retry_after.as_secs().max(1).into())
        }
        UpstreamError::Full | UpstreamError::NoRoom(_) => {
            refusal.with(header::RETRY_AFTER, HeaderValue::from_static("1"))
        }
        _ => refusal,
    }
}

fn outcome_of(error: &UpstreamError) -> UpstreamOutcome {
    match error {
        UpstreamError::Connect(_) | UpstreamError::NoRoom(_) => UpstreamOutcome::Unreachable,
        UpstreamError::ConnectTimeout
        | UpstreamError::OutOfTime
        | UpstreamError::ResponseTimeout => UpstreamOutcome::TimedOut,
        UpstreamError::Broken(_) | UpstreamError::Refused(_) | UpstreamError::Unacceptable(_) => {
            UpstreamOutcome::Broken
        }
        UpstreamError::Full => UpstreamOutcome::Full,
        UpstreamError::BreakerOpen { .. } => UpstreamOutcome::BreakerOpen,
        UpstreamError::ClientBody(_) => UpstreamOutcome::Aborted,
    }
}

fn log_failure(error: &UpstreamError, recording: &Recording) {
    if matches!(
        error,
        UpstreamError::ClientBody(_) | UpstreamError::BreakerOpen { .. }
    ) {
        return;
    }
    let endpoint = recording
        .endpoint()
        .map_or("none", |endpoint| &endpoint.name);
    let request_id = recording.exchange.request_id.to_str().unwrap_or_default();
    tracing::warn!(endpoint, request_id, %error, "backend failed");
}
