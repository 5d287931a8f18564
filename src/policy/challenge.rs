//! `WWW-Authenticate: Bearer …` (RFC 6750 §3) and `DPoP …` (RFC 9449 §7.1): what a refusal says about the token that would
//! pass.

use http::{header, header::HeaderValue};

use crate::{
    exchange::{Exchange, principal::Binding},
    wire::halt::Refusal,
};

/// The refusal with its challenge: the realm is the host that was asked, `more` is what follows it. A caller who has proved
/// its key is spoken to in that scheme.
pub(super) fn challenge(refusal: Refusal, exchange: &Exchange, more: &str) -> Refusal {
    let binding = exchange
        .principal
        .as_ref()
        .and_then(|principal| principal.binding.as_ref());
    let scheme = match binding {
        Some(Binding::Key(_)) => "DPoP",
        Some(Binding::Certificate(_)) | None => "Bearer",
    };
    challenge_as(refusal, exchange, (scheme, more))
}

/// The same in this scheme.
pub(super) fn challenge_as(
    refusal: Refusal,
    exchange: &Exchange,
    (scheme, more): (&str, &str),
) -> Refusal {
    let realm = exchange.authority().host();
    let value = [scheme, " realm=\"", realm, "\"", more].concat();
    match HeaderValue::from_maybe_shared(bytes::Bytes::from(value)) {
        Ok(value) => refusal.with(header::WWW_AUTHENTICATE, value),
        Err(_) => refusal,
    }
}
