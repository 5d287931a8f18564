//! The answers that these pages are made of: refusals, redirects, pages and assets.

use bytes::Bytes;
use http::{
    HeaderMap, HeaderValue, StatusCode,
    header::{self, CACHE_CONTROL, CONTENT_TYPE},
};

use crate::wire::halt::{Halt, Reason, Refusal, Reply, Stage};

/// 403 with a page that says what was wrong; `detail` is for the log.
pub(super) fn wrong_with(detail: &'static str, page: Bytes) -> Halt {
    let refusal = Refusal::new(Stage::Mfa, Reason::SecondFactorWrong);
    refusal.detail(detail).page(page).into()
}

/// The session was over when the answer was due.
pub(super) fn ended() -> Halt {
    let refusal = Refusal::new(Stage::Mfa, Reason::SessionMissing);
    refusal.detail("ended-meanwhile").into()
}

/// A form that these pages do not send; `detail` is for the log.
pub(super) fn invalid(detail: &'static str) -> Halt {
    let refusal = Refusal::new(Stage::Mfa, Reason::FormInvalid);
    refusal.detail(detail).into()
}

/// The account cannot be read or written.
pub(super) fn unavailable() -> Halt {
    let soon = HeaderValue::from_static("30");
    Refusal::new(Stage::Mfa, Reason::SecondFactorUnavailable)
        .with(header::RETRY_AFTER, soon)
        .into()
}

/// Another method than these.
pub(super) fn only(methods: &'static str) -> Halt {
    let allow = HeaderValue::from_static(methods);
    Refusal::new(Stage::Route, Reason::MethodNotAllowed)
        .with(header::ALLOW, allow)
        .into()
}

/// The redirect to where a browser came from.
pub(super) fn back(target: &str) -> Halt {
    let Ok(location) = HeaderValue::from_str(target) else {
        return invalid("way-back");
    };
    let headers = HeaderMap::from_iter([(header::LOCATION, location)]);
    reply(StatusCode::SEE_OTHER, headers, Bytes::new())
}

/// A page.
pub(super) fn shown(page: Bytes) -> Halt {
    let html = HeaderValue::from_static("text/html; charset=utf-8");
    let headers = HeaderMap::from_iter([(CONTENT_TYPE, html)]);
    reply(StatusCode::OK, headers, page)
}

/// A file of the gate's own.
pub(super) fn asset(kind: &'static str, text: &'static str) -> Halt {
    let headers = HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static(kind))]);
    reply(StatusCode::OK, headers, Bytes::from_static(text.as_bytes()))
}

fn reply(status: StatusCode, mut headers: HeaderMap, body: Bytes) -> Halt {
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Halt::Reply(Box::new(Reply {
        stage: Stage::Mfa,
        status,
        headers,
        body,
    }))
}
