//! The one normal form of a request: one host that the certificate covers, one path, no header that a client may
//! not send. Ambiguity is refused here, so that no later stage has to guess (RFC 9110 §4.2.4, RFC 9112 §3.2).

use std::{sync::Arc, time::Instant};

use http::{
    HeaderMap, HeaderName, Method, Uri, Version, header, header::HeaderValue, request,
    uri::PathAndQuery,
};
use hyper::{body::Incoming, ext::Protocol, upgrade::OnUpgrade};

use super::{proof::Looked, worker::Worker};
use crate::{
    crypto::rng::HexId,
    exchange::{Exchange, Head, Origin, Scheme, connection::Connection, trace::TraceContext},
    snapshot::server::ServerRules,
    wire::{
        cookie, fetch_metadata, forwarded,
        halt::{Reason, Refusal, Stage},
        hop::{self, Upgrade},
        host::Authority,
        http2::{self, Http2Error},
        names,
        path::Target,
        trailers::Trailers,
    },
};

const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
/// What a proxy adds to a request that it passes on; it need not be one that is trusted.
static RELAYED: [HeaderName; 4] = [
    header::VIA,
    header::FORWARDED,
    forwarded::X_FORWARDED_FOR,
    HeaderName::from_static("x-real-ip"),
];
/// Longest request id that is taken over from a trusted proxy.
const REQUEST_ID_BYTES: usize = 128;

/// A request as hyper gives it, taken apart.
#[derive(Debug)]
pub struct Arrival {
    head: Option<request::Parts>,
    /// The body, until the request is forwarded.
    pub body: Option<Incoming>,
    /// In its place, once it was held and judged.
    pub looked_at: Option<Looked>,
    /// hyper's promise of the raw connection after a 101.
    pub on_upgrade: Option<OnUpgrade>,
    /// The version that the client spoke.
    pub version: Version,
    /// What becomes of the trailers of both bodies.
    pub trailers: Trailers,
}

impl Arrival {
    /// Takes a request apart.
    pub fn new(mut head: request::Parts, body: Incoming) -> Self {
        Self {
            on_upgrade: head.extensions.remove::<OnUpgrade>(),
            version: head.version,
            trailers: Trailers::Drop,
            head: Some(head),
            body: Some(body),
            looked_at: None,
        }
    }
}

/// Brings a request into its normal form. The exchange exists in any case, so that a refusal has its line.
pub fn normalise(
    arrival: &mut Arrival,
    connection: &Arc<Connection>,
    rules: &ServerRules,
    worker: &Worker,
) -> (Box<Exchange>, Result<(), Box<Refusal>>) {
    let head = arrival
        .head
        .take()
        .unwrap_or_else(|| http::Request::new(()).into_parts().0);
    shape(head, connection, rules, worker.ids())
}

/// The same for a head alone, without a connection behind it: for `explain`.
pub fn shape(
    mut head: request::Parts,
    connection: &Arc<Connection>,
    rules: &ServerRules,
    ids: (HexId, u64),
) -> (Box<Exchange>, Result<(), Box<Refusal>>) {
    let origin = origin(&head.headers, connection, rules, ids);
    let scheme = match (&connection.tls, origin.client.https) {
        (_, Some(true)) | (Some(_), None) => Scheme::Https,
        (_, Some(false)) | (None, None) => Scheme::Http,
    };
    // The fields that say so are gone once the head is in normal form.
    let asked = upgrade_of(&mut head);
    let upgrade = asked.as_ref().ok().copied().flatten();
    let mut headers = head.headers;
    let judged = if origin.client.contradiction {
        Err(refusal(
            Reason::ForwardingConflict,
            "forwarded-and-x-forwarded-for",
        ))
    } else if let Err(refusal) = asked {
        Err(refusal)
    } else {
        let line = (&head.method, &head.uri, head.version);
        judge(line, &mut headers, connection)
    };
    let (authority, target, verdict) = match judged {
        Ok((authority, target)) => {
            let verdict = if connection.covers(authority.host()) {
                Ok(())
            } else {
                Err(refusal(Reason::Misdirected, "not-covered"))
            };
            (authority, target, verdict)
        }
        Err(refusal) => (nobody(), root(), Err(refusal)),
    };
    let refused_target = verdict.as_ref().err().map(|_| sent_target(&head.uri));
    let head = Head {
        method: head.method,
        authority,
        target,
        headers,
        version: head.version,
        scheme,
        upgrade,
    };
    let mut exchange = Exchange::new(head, Arc::clone(connection), origin);
    exchange.refused_target = refused_target;
    (exchange, verdict)
}

/// The protocol that a request asks to switch to. An extended CONNECT (RFC 8441 §4) for a WebSocket becomes the GET that
/// it stands for, so that nothing behind here judges it by other rules.
fn upgrade_of(head: &mut request::Parts) -> Result<Option<Upgrade>, Box<Refusal>> {
    if head.method != Method::CONNECT {
        return Ok(hop::upgrade_of(&head.headers, &head.method, head.version));
    }
    let Some(protocol) = head.extensions.get::<Protocol>() else {
        return Ok(None);
    };
    if protocol.as_str() != "websocket" {
        return Err(refusal(Reason::ProtocolUnknown, "connect-protocol"));
    }
    // What follows is no content, so it has no length (RFC 9110 §9.3.6).
    if head.headers.contains_key(header::CONTENT_LENGTH) {
        return Err(refusal(Reason::FramingConflict, "length-of-a-tunnel"));
    }
    head.method = Method::GET;
    head.headers.remove(header::SEC_WEBSOCKET_KEY);
    Ok(Some(Upgrade::WebSocketStream))
}

/// Stands in for the host of a request that names none.
fn nobody() -> Authority {
    Authority::parse(b"invalid").expect("a plain name is a host")
}

fn root() -> Target {
    Target::parse(&PathAndQuery::from_static("/")).expect("the root is a target")
}

fn sent_target(uri: &Uri) -> Box<[u8]> {
    uri.path_and_query()
        .map_or("", PathAndQuery::as_str)
        .as_bytes()
        .into()
}

fn judge(
    (method, uri, version): (&Method, &Uri, Version),
    headers: &mut HeaderMap,
    connection: &Connection,
) -> Result<(Authority, Target), Box<Refusal>> {
    if *method == Method::TRACE || *method == Method::CONNECT {
        let mut refusal = refusal(Reason::MethodNotAllowed, "trace-or-connect");
        let allow = HeaderValue::from_static("GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS");
        refusal.headers.insert(header::ALLOW, allow);
        return Err(refusal);
    }
    if version == Version::HTTP_2 {
        http2::check(uri, headers).map_err(malformed)?;
    }
    if !uri.scheme_str().is_none_or(|named| fits(named, connection)) {
        return Err(refusal(Reason::BadTarget, "scheme"));
    }
    let authority = authority(uri, headers, connection)?;
    let target = uri
        .path_and_query()
        .ok_or_else(|| refusal(Reason::BadTarget, "no-path"))?;
    let target = Target::parse(target).map_err(|error| refusal(Reason::BadTarget, error.code()))?;
    hop::strip_request(headers)
        .map_err(|_| refusal(Reason::ProtectedConnectionOption, "connection-option"))?;
    if version == Version::HTTP_2 {
        cookie::join_crumbs(headers);
    }
    names::strip_reserved(headers);
    Ok((authority, target))
}

fn malformed(error: Http2Error) -> Box<Refusal> {
    match error {
        Http2Error::PaddedValue => refusal(Reason::MalformedHead, "padded-value"),
        Http2Error::TwoLengths => refusal(Reason::FramingConflict, "two-lengths"),
        Http2Error::NoPath => refusal(Reason::BadTarget, "no-path"),
    }
}

/// Whether a scheme that the target names is that of the connection. In clear either is: TLS may have ended before us.
fn fits(named: &str, connection: &Connection) -> bool {
    named.eq_ignore_ascii_case("https")
        || (connection.tls.is_none() && named.eq_ignore_ascii_case("http"))
}

/// The one host of a request: the `Host` field, or `:authority`; where both stand they must agree.
fn authority(
    uri: &Uri,
    headers: &HeaderMap,
    connection: &Connection,
) -> Result<Authority, Box<Refusal>> {
    let bad = |detail| refusal(Reason::BadHost, detail);
    let mut fields = headers.get_all(header::HOST).iter();
    let field = fields.next();
    if fields.next().is_some() {
        return Err(bad("two-hosts"));
    }
    let field = field
        .map(|value| connection.authority(value.as_bytes()))
        .transpose()
        .map_err(|_| bad("malformed-host"))?;
    let named = uri
        .authority()
        .map(|authority| connection.authority(authority.as_str().as_bytes()))
        .transpose()
        .map_err(|_| bad("malformed-authority"))?;
    match (field, named) {
        (Some(field), Some(named)) if field.as_str() != named.as_str() => Err(bad("host-mismatch")),
        (Some(host), _) | (None, Some(host)) => Ok(host),
        (None, None) => Err(bad("no-host")),
    }
}

/// Who asks, from where, under which ids. Only trusted proxies may say.
fn origin(
    headers: &HeaderMap,
    connection: &Connection,
    rules: &ServerRules,
    (id, span): (HexId, u64),
) -> Origin {
    let peer = connection.peer.ip();
    let trusted =
        !rules.trusted_proxies.is_empty() && forwarded::is_trusted(peer, &rules.trusted_proxies);
    let theirs = |name: &HeaderName| if trusted { headers.get(name) } else { None };
    let request_id = theirs(&X_REQUEST_ID)
        .filter(|value| is_request_id(value))
        .cloned();
    Origin {
        started: Instant::now(),
        client: forwarded::client_of(peer, headers, &rules.trusted_proxies),
        opens_page: !trusted && opens_page(headers),
        request_id: request_id.unwrap_or_else(|| {
            HeaderValue::from_bytes(id.as_bytes()).expect("hexadecimal digits are a valid value")
        }),
        trace: TraceContext::new(theirs(&TRACEPARENT), &id, span),
    }
}

/// Whether a browser says that it opens a page, and no proxy says that it passed this on.
fn opens_page(headers: &HeaderMap) -> bool {
    fetch_metadata::opens_page(headers) && !RELAYED.iter().any(|name| headers.contains_key(name))
}

fn is_request_id(value: &HeaderValue) -> bool {
    let bytes = value.as_bytes();
    !bytes.is_empty() && bytes.len() <= REQUEST_ID_BYTES && bytes.iter().all(u8::is_ascii_graphic)
}

fn refusal(reason: Reason, detail: &'static str) -> Box<Refusal> {
    Box::new(Refusal::new(Stage::Normalise, reason).detail(detail))
}
