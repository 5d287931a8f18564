//! Where a request for one of these pages comes from, and whether it is a person who looks at it.
//!
//! The pages stand in the origin of the backend, whose own pages may run a script that is not theirs. So they are given to windows
//! alone, where the person sees them: what such a script fetches by itself, or puts in a frame, is refused. A client that says
//! nothing of it is no browser of today, and no script either.

use http::header::CONTENT_TYPE;

use super::answers::invalid;
use crate::{
    exchange::Exchange,
    wire::{
        fetch_metadata::{self, Source},
        halt::{Halt, Reason, Refusal, Stage},
    },
};

/// Where the page is, in the form in which browsers name an origin (RFC 6454 §6.2).
pub(super) fn origin_of(exchange: &Exchange) -> String {
    let authority = exchange.authority();
    match authority.port() {
        None | Some(443) => format!("https://{}", authority.host()),
        Some(port) => format!("https://{}:{port}", authority.host()),
    }
}

/// What a browser asks for must be a page in a window of its own.
///
/// # Errors
/// 403 `csrf`.
pub(super) fn is_for_window(exchange: &Exchange) -> Result<(), Halt> {
    let headers = exchange.headers();
    let is_said = headers
        .keys()
        .any(|name| name.as_str().starts_with("sec-fetch-"));
    if !is_said || fetch_metadata::opens_window(headers) {
        return Ok(());
    }
    let refusal = Refusal::new(Stage::Csrf, Reason::Csrf);
    Err(refusal.detail("no-window").into())
}

/// A form of another origin's page is not what a person here has sent. A client that is no browser says nothing of origins.
pub(super) fn is_of_this_origin(exchange: &Exchange) -> Result<(), Halt> {
    let (headers, scheme) = (exchange.headers(), exchange.scheme());
    let sign = match fetch_metadata::source(headers, scheme, exchange.authority()) {
        Source::Own | Source::Person | Source::Unsaid => return Ok(()),
        Source::Foreign(foreign) => foreign.sign.as_str(),
        Source::Ambiguous => "ambiguous",
    };
    let refusal = Refusal::new(Stage::Csrf, Reason::Csrf);
    Err(refusal.detail(sign).into())
}

/// What is sent must be a form.
pub(super) fn is_form(exchange: &Exchange) -> Result<(), Halt> {
    let kind = exchange.headers().get(CONTENT_TYPE);
    let essence = kind.and_then(|kind| kind.as_bytes().split(|byte| *byte == b';').next());
    let is = essence.is_some_and(|essence| {
        essence
            .trim_ascii()
            .eq_ignore_ascii_case(b"application/x-www-form-urlencoded")
    });
    if is {
        Ok(())
    } else {
        Err(invalid("content-type"))
    }
}
