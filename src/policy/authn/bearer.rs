//! Bearer tokens as a means of identification (RFC 6750), with the issuers that count on a route.
//!
//! The challenge has no `error` when no token came, and the same `invalid_token` whatever check failed; the access line
//! has the finer code.

use std::sync::Arc;

use http::header;

use super::{Books, Identified, IssuerBook, refusal};
use crate::{
    config::{OneOrMany, Reader},
    exchange::Exchange,
    identity::{
        bearer::{self, CredentialError, TokenError},
        issuer::Issuer,
    },
    policy::challenge::challenge,
    state::clock,
    wire::halt::{Halt, Reason},
};

/// Tokens of these issuers.
#[derive(Debug)]
pub struct Bearer {
    /// In the order of the file.
    pub issuers: Vec<Arc<Issuer>>,
}

/// Compiles `issuers`.
pub(super) fn compile(reader: &Reader<'_>, books: &Books) -> Bearer {
    Bearer {
        issuers: named_issuers(reader, &books.issuers),
    }
}

fn named_issuers(reader: &Reader<'_>, issuers: &IssuerBook) -> Vec<Arc<Issuer>> {
    let names = reader
        .get::<OneOrMany<String>>("issuers")
        .map(|names| names.0)
        .unwrap_or_default();
    if names.is_empty() {
        reader.error(
            "issuers",
            "no issuer is named, so no token could pass",
            Some("add `issuers = [\"NAME\"]`".into()),
        );
    }
    let mut found = Vec::new();
    for name in &names {
        match issuers.get(name) {
            Some(issuer) => found.extend(issuer.clone()),
            None => reader.error(
                "issuers",
                format!("there is no issuer `{name}`"),
                Some(known(issuers)),
            ),
        }
    }
    found
}

fn known(issuers: &IssuerBook) -> String {
    let names: Vec<String> = issuers.keys().map(|name| format!("`{name}`")).collect();
    if names.is_empty() {
        "add a section `[issuers.NAME]`".to_owned()
    } else {
        format!("the file has {}", names.join(", "))
    }
}

impl Bearer {
    /// Whose tokens count, for `check -v` and `explain`.
    pub(super) fn explain(&self) -> String {
        let names: Vec<String> = self
            .issuers
            .iter()
            .map(|issuer| format!("`{}`", issuer.rules().name))
            .collect();
        format!("bearer token of {}", names.join(" or "))
    }

    /// Whether the request brings a token, well-formed or not.
    pub(super) fn is_brought(exchange: &Exchange) -> bool {
        !matches!(
            bearer::presented(exchange.headers(), exchange.target().query()),
            Ok(None)
        )
    }

    /// Verifies the token, if one came.
    ///
    /// # Errors
    /// 400 `invalid-request`, 401 `token-invalid`, 503 `keys-unavailable`.
    pub(super) async fn identify(&self, exchange: &Exchange) -> Identified {
        let now = clock::unix_seconds_at(exchange.started);
        let token = match bearer::presented(exchange.headers(), exchange.target().query()) {
            Ok(Some(token)) => token,
            Ok(None) => return Ok(None),
            Err(error) => return Err(unclear(exchange, error)),
        };
        let known = bearer::recall(token, &exchange.connection.last_token, &self.issuers, now);
        if let Some(principal) = known {
            return Ok(Some(principal));
        }
        match bearer::well_formed(token) {
            // Rare, and its future is large: it may wait for a key set.
            Ok(token) => Box::pin(bearer::verify(token, &self.issuers, now))
                .await
                .map(Some)
                .map_err(|error| refused(exchange, &error)),
            Err(error) => Err(unclear(exchange, error)),
        }
    }
}

/// 400: the credentials cannot be read without guessing.
fn unclear(exchange: &Exchange, error: CredentialError) -> Halt {
    let mut refusal = refusal(Reason::InvalidRequest).detail(error.code());
    refusal.forged = matches!(error, CredentialError::Malformed | CredentialError::TooLong);
    challenge(refusal, exchange, ", error=\"invalid_request\"").into()
}

fn refused(exchange: &Exchange, error: &TokenError) -> Halt {
    if let TokenError::KeysUnavailable { retry_after } = error {
        return refusal(Reason::KeysUnavailable)
            .with(header::RETRY_AFTER, retry_after.as_secs().max(1).into())
            .into();
    }
    let mut refusal = refusal(Reason::TokenInvalid).detail(error.code());
    refusal.forged = error.is_forgery();
    challenge(refusal, exchange, ", error=\"invalid_token\"").into()
}
