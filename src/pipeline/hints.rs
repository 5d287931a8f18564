//! Early hints (RFC 8297): the interim answers of an HTTP/1.1 backend, for the client that is being answered.
//!
//! For [`super::forward`]. The request was let in by then, so nothing is told to those who were not. Only clients of
//! HTTP/1.1 can be given hints, and not every one of these knows them: who does not takes the hint for the answer, and
//! what follows for the next one. So it is a browser that opens a page, or who the file names. Over HTTP/2 hyper's
//! server has no means for them, and its client does not show them.

use http::{Request, StatusCode, Version};

use crate::{
    exchange::{Exchange, hints::Turn},
    snapshot::Route,
    upstream::endpoint::Protocol,
    wire::{body::ClientBody, interim},
};

/// Whether the client is to be given the hints of this route's backend.
pub(super) fn are_wanted(route: &Route, exchange: &Exchange) -> bool {
    exchange.version() == Version::HTTP_11
        && route.cluster.protocol == Protocol::Http1
        && exchange.upgrade().is_none()
        && route.policies.headers.passes_hints(exchange)
}

/// Has the interim answers to this request passed on until the turn is over.
pub(super) fn pass(exchange: &Exchange, request: &mut Request<ClientBody>) -> Turn {
    let turn = Turn::begin(&exchange.connection);
    let (connection, number) = (std::sync::Arc::clone(&exchange.connection), turn.number());
    hyper::ext::on_informational(request, move |answer| {
        let is_hint = answer.status() == StatusCode::EARLY_HINTS;
        let hint = is_hint.then(|| interim::early_hints(answer.headers()));
        connection.hints.put(number, hint.flatten());
    });
    turn
}
