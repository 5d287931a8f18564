//! What the unit tests of policies share: sections compiled from text, made-up requests and answers.

use std::{net::IpAddr, sync::Arc, time::Instant};

use http::{
    HeaderMap, HeaderName, Method, Response, Version, header::HeaderValue, response::Parts,
};

use crate::{
    config::{Problem, Problems, Reader, Severity, Sources, parse},
    crypto::rng::HexId,
    exchange::{Exchange, Head, Origin, Scheme, connection::Connection, trace::TraceContext},
    wire::{forwarded::client_of, hop::Upgrade, host::Authority, path::Target},
};

/// Compiles the text of a section, with what was found wrong.
pub(crate) fn judged<T>(text: &str, compile: impl FnOnce(&Reader<'_>) -> T) -> (T, Vec<Problem>) {
    layered(&[text], compile)
}

/// Compiles a section that stands in several layers, nearest first.
pub(crate) fn layered<T>(
    texts: &[&str],
    compile: impl FnOnce(&Reader<'_>) -> T,
) -> (T, Vec<Problem>) {
    let (mut sources, problems) = (Sources::new(), Problems::new());
    let tables: Vec<_> = texts
        .iter()
        .map(|text| {
            let file = sources.add("gate.toml", *text, "");
            parse(file, &sources, &problems)
        })
        .collect();
    let layers = tables
        .iter()
        .map(|table| crate::config::Layer::new(table, "section"))
        .collect();
    let compiled = compile(&Reader::layered(layers, &problems, &sources));
    (compiled, problems.into_sorted())
}

/// Compiles the text of a section that has no errors.
pub(crate) fn compiled<T>(text: &str, compile: impl FnOnce(&Reader<'_>) -> T) -> T {
    let (compiled, problems) = judged(text, compile);
    let errors: Vec<_> = problems
        .iter()
        .filter(|p| p.severity == Severity::Error)
        .collect();
    assert!(errors.is_empty(), "{errors:?}");
    compiled
}

/// The text under the caret of each problem of this severity, and its message.
pub(crate) fn found<T>(
    text: &str,
    severity: Severity,
    compile: impl FnOnce(&Reader<'_>) -> T,
) -> Vec<(String, String)> {
    let (_, problems) = judged(text, compile);
    let under = |problem: &Problem| {
        let range = problem.at.map(|at| at.start as usize..at.end as usize)?;
        text.get(range).map(ToOwned::to_owned)
    };
    problems
        .iter()
        .filter(|problem| problem.severity == severity)
        .map(|problem| (under(problem).unwrap_or_default(), problem.message.clone()))
        .collect()
}

/// The relaxations that a section states.
pub(crate) fn relaxations<T>(text: &str, compile: impl FnOnce(&Reader<'_>) -> T) -> Vec<String> {
    let found = found(text, Severity::Relaxation, compile);
    found.into_iter().map(|(_, message)| message).collect()
}

/// The errors of a section, with the text under each caret.
pub(crate) fn errors<T>(
    text: &str,
    compile: impl FnOnce(&Reader<'_>) -> T,
) -> Vec<(String, String)> {
    found(text, Severity::Error, compile)
}

/// A request for `app.example/` from a loopback address.
pub(crate) fn exchange(
    method: &str,
    scheme: &str,
    fields: &[(&'static str, &str)],
) -> Box<Exchange> {
    made(method, scheme, fields, None)
}

/// The handshake of a WebSocket with `app.example/`.
pub(crate) fn handshake(scheme: &str, fields: &[(&'static str, &str)]) -> Box<Exchange> {
    made("GET", scheme, fields, Some(Upgrade::WebSocket))
}

fn made(
    method: &str,
    scheme: &str,
    fields: &[(&'static str, &str)],
    upgrade: Option<Upgrade>,
) -> Box<Exchange> {
    let connection = Connection::new("127.0.0.1:40000".parse().unwrap(), None);
    let head = Head {
        method: Method::from_bytes(method.as_bytes()).unwrap(),
        authority: Authority::parse(b"app.example").unwrap(),
        target: Target::parse(&"/".parse().unwrap()).unwrap(),
        headers: headers(fields),
        version: Version::HTTP_11,
        scheme: if scheme == "https" {
            Scheme::Https
        } else {
            Scheme::Http
        },
        upgrade,
    };
    let origin = Origin {
        started: Instant::now(),
        client: client_of(IpAddr::from([127, 0, 0, 1]), &HeaderMap::new(), &[]),
        opens_page: false,
        request_id: HeaderValue::from_static("0123456789abcdef"),
        trace: TraceContext::new(None, &HexId::of(1), 2),
    };
    Exchange::new(head, Arc::new(connection), origin)
}

/// An answer of 200 with these fields.
pub(crate) fn answer(fields: &[(&'static str, &str)]) -> Parts {
    let mut parts = Response::new(()).into_parts().0;
    parts.headers = headers(fields);
    parts
}

fn headers(fields: &[(&'static str, &str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in fields {
        headers.append(
            HeaderName::from_static(name),
            HeaderValue::from_str(value).unwrap(),
        );
    }
    headers
}

/// All values of a field, in order.
pub(crate) fn values(parts: &Parts, name: &str) -> Vec<String> {
    let values = parts.headers.get_all(name).iter();
    values
        .map(|value| value.to_str().unwrap().to_owned())
        .collect()
}
