//! `WWW-Authenticate: Bearer …` (RFC 6750 §3): what a refusal says about the token that would pass.

use http::{header, header::HeaderValue};

use crate::{exchange::Exchange, wire::halt::Refusal};

/// The refusal with its challenge: the realm is the host that was asked, `more` is what follows it.
pub(super) fn challenge(refusal: Refusal, exchange: &Exchange, more: &str) -> Refusal {
    let value = ["Bearer realm=\"", exchange.authority().host(), "\"", more].concat();
    match HeaderValue::from_maybe_shared(bytes::Bytes::from(value)) {
        Ok(value) => refusal.with(header::WWW_AUTHENTICATE, value),
        Err(_) => refusal,
    }
}
