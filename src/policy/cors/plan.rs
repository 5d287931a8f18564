//! `[cors]` compiled: lists sorted and joined once, and the pairs of keys that must not stand together.
//!
//! For [`super`]. Single values are checked by the declaration.

use std::time::Duration;

use http::{HeaderName, Method, header::HeaderValue};

use super::{AnyOrigin, Cors, Credentials, Monitor, OnDenied, Pages, Rules, State};
use crate::{
    config::{Key, Kind, OriginPattern, Reader, Section, Value},
    policy::mode::Mode,
};

/// The declaration of `[cors]`.
pub static SECTION: Section = Section {
    name: "cors",
    doc: "which other origins may read answers; none without this section",
    keys: &[
        Key::new(
            "mode",
            Kind::Choice(Mode::WORDS),
            "enforce, monitor or off; in monitor mode what would be denied is left to the backend, off leaves it everything but what `csrf` judges",
            "\"enforce\"",
        ),
        Key::new(
            "origins",
            Kind::List(&Kind::Origin),
            "origins, `https://*.partner.example` for one label, or `*` where no credentials are involved",
            "[]",
        ),
        Key::new(
            "methods",
            Kind::List(&Kind::Method),
            "methods that other origins may use",
            "[\"GET\", \"HEAD\", \"POST\"]",
        ),
        Key::new(
            "headers",
            Kind::List(&Kind::HeaderName),
            "request headers that other origins may send beside the simple ones",
            "[]",
        ),
        Key::new(
            "expose",
            Kind::List(&Kind::HeaderName),
            "response headers that other origins may read beside the simple ones",
            "[]",
        ),
        Key::new(
            "credentials",
            Kind::Bool,
            "whether cookies and other credentials of the browser may be used",
            "false",
        ),
        Key::new(
            "max_age",
            Kind::Duration,
            "how long browsers keep the answer to a preflight",
            "\"10m\"",
        ),
        Key::new(
            "on_denied",
            Kind::Choice(&["refuse", "bare"]),
            "answer to a preflight that is denied: a 403, or a 204 that grants nothing",
            "\"refuse\"",
        ),
        Key::new(
            "websocket",
            Kind::Choice(&["listed", "any"]),
            "whose pages may open a WebSocket beside the host's own: those that `origins` names (`*` names nobody), or any",
            "\"listed\"",
        ),
    ],
};

/// Compiles the section through its layers.
pub fn compile(reader: &Reader<'_>) -> Cors {
    let cors = |state| Cors {
        state,
        place: reader.whence("origins"),
    };
    if !reader.present() {
        return cors(State::Absent);
    }
    let mode: Mode = reader.get("mode").unwrap_or_default();
    if mode != Mode::Enforce {
        reader.relax(
            "mode",
            "this weakens the gate: the backend itself says which origins may read its answers and open WebSockets",
        );
    }
    if mode == Mode::Off {
        return cors(State::Backend);
    }
    cors(State::Rules(Box::new(rules(reader, mode))))
}

fn rules(reader: &Reader<'_>, mode: Mode) -> Rules {
    let credentials: bool = reader.get("credentials").unwrap_or(false);
    let origins: Vec<OriginPattern> = reader.get("origins").unwrap_or_default();
    let any = any_origin(reader, &origins, credentials);
    let pages = pages(reader);
    if !reader.has("origins") && pages == Pages::Listed {
        reader.warn(
            "origins",
            "`cors` without `origins` lets no other origin in",
            None,
        );
    }
    let (exact, patterns) = sorted(origins);
    refuse_star(reader, "methods", "such as `\"GET\"`: name each one");
    refuse_star(
        reader,
        "headers",
        "such as `\"content-type\"`: name each one",
    );
    refuse_star(reader, "expose", "such as `\"etag\"`: name each one");
    let methods: Vec<Method> = reader
        .get("methods")
        .unwrap_or_else(|| vec![Method::GET, Method::HEAD, Method::POST]);
    let headers: Vec<HeaderName> = reader.get("headers").unwrap_or_default();
    let expose: Vec<HeaderName> = reader.get("expose").unwrap_or_default();
    let max_age: Duration = reader.get("max_age").unwrap_or(Duration::from_mins(10));
    Rules {
        monitor: if mode == Mode::Monitor {
            Monitor::Watched
        } else {
            Monitor::Enforced
        },
        on_denied: match reader.value("on_denied").and_then(Value::as_str) {
            Some("bare") => OnDenied::Bare,
            _ => OnDenied::Refuse,
        },
        exact: exact.into(),
        patterns: patterns.into(),
        any,
        pages,
        allow_methods: joined(methods.iter().map(Method::as_str))
            .unwrap_or(HeaderValue::from_static("")),
        allow_headers: joined(headers.iter().map(HeaderName::as_str)),
        expose: joined(expose.iter().map(HeaderName::as_str)),
        methods: methods.into(),
        headers: headers.into(),
        credentials: if credentials {
            Credentials::Allowed
        } else {
            Credentials::Withheld
        },
        max_age: max_age.as_secs().into(),
    }
}

/// The origins that are named whole, sorted, and the patterns.
fn sorted(origins: Vec<OriginPattern>) -> (Vec<Box<str>>, Vec<OriginPattern>) {
    let mut exact = Vec::new();
    let mut patterns = Vec::new();
    for origin in origins {
        match origin {
            OriginPattern::Exact(origin) => exact.push(origin.as_str().into()),
            OriginPattern::Any => {}
            OriginPattern::OneLabel { .. } => patterns.push(origin),
        }
    }
    exact.sort_unstable();
    (exact, patterns)
}

/// Fetch §3.2.5: browsers refuse `*` with credentials; echoing the origin instead would open every account.
fn any_origin(reader: &Reader<'_>, origins: &[OriginPattern], credentials: bool) -> AnyOrigin {
    if !origins.contains(&OriginPattern::Any) {
        return AnyOrigin::Listed;
    }
    if credentials {
        let values = reader
            .value("origins")
            .and_then(Value::as_array)
            .unwrap_or_default();
        let star = values.iter().find(|value| value.as_str() == Some("*"));
        if let Some(at) = star
            .map(|value| value.inside(0..1))
            .or(reader.at("origins"))
        {
            let hint = "list the origins, or leave `credentials` out".to_owned();
            reader.error_at(
                at,
                "`*` lets every site act with the credentials of its visitors",
                Some(hint),
            );
        }
        return AnyOrigin::Listed;
    }
    reader.relax(
        "origins",
        "this weakens the gate: every site may read the answers",
    );
    AnyOrigin::Allowed
}

/// A WebSocket needs no preflight and carries cookies, so without a check any page acts as its visitor (RFC 6455 §10.2).
fn pages(reader: &Reader<'_>) -> Pages {
    match reader.value("websocket").and_then(Value::as_str) {
        Some("any") => {
            reader.relax(
                "websocket",
                "this weakens the gate: every site may open a WebSocket with the cookies of its visitors",
            );
            Pages::Any
        }
        _ => Pages::Listed,
    }
}

/// In methods and header names `*` is a name like any other to browsers once credentials are in play.
fn refuse_star(reader: &Reader<'_>, key: &str, hint: &str) {
    let values = reader
        .value(key)
        .and_then(Value::as_array)
        .unwrap_or_default();
    for value in values.iter().filter(|value| value.as_str() == Some("*")) {
        reader.error_at(
            value.inside(0..1),
            format!("`*` is no entry of `{key}`"),
            Some(hint.to_owned()),
        );
    }
}

fn joined<'a>(names: impl Iterator<Item = &'a str>) -> Option<HeaderValue> {
    let text = names.collect::<Vec<_>>().join(", ");
    (!text.is_empty())
        .then(|| HeaderValue::try_from(text).ok())
        .flatten()
}
