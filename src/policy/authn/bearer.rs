//! Bearer tokens as a means of identification (RFC 6750), with the issuers that count on a route, and tokens that come with
//! a proof (RFC 9449).
//!
//! The challenge has no `error` when no token came, and the same `invalid_token` whatever check failed; the access line
//! has the finer code.

use std::sync::Arc;

use http::header;

use super::{
    Books, Identified, IssuerBook,
    possession::{self, Possession},
    refusal,
};
use crate::{
    config::{OneOrMany, Reader},
    crypto::digest::Sha256,
    exchange::{
        Exchange,
        principal::{Binding, Principal},
    },
    identity::{
        bearer::{self, CredentialError, Presented, Scheme, TokenError},
        issuer::Issuer,
    },
    policy::challenge::challenge,
    state::clock,
    wire::halt::{Halt, Reason, Refusal},
};

/// Tokens of these issuers.
#[derive(Debug)]
pub struct Bearer {
    /// In the order of the file.
    pub issuers: Vec<Arc<Issuer>>,
    /// How callers prove that a token is their own, where an issuer takes proofs.
    pub(super) possession: Option<Box<Possession>>,
}

/// Compiles `issuers`.
pub(super) fn compile(reader: &Reader<'_>, books: &Books) -> Bearer {
    let issuers = named_issuers(reader, &books.issuers);
    Bearer {
        possession: possession::compile(&issuers, &books.proofs).map(Box::new),
        issuers,
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
    let mut found: Vec<Arc<Issuer>> = Vec::new();
    for name in &names {
        match issuers.get(name) {
            Some(Some(issuer)) => {
                unlike(reader, &found, issuer);
                found.push(Arc::clone(issuer));
            }
            // What is wrong with it is known.
            Some(None) => {}
            None => reader.error(
                "issuers",
                format!("there is no issuer `{name}`"),
                Some(known(issuers)),
            ),
        }
    }
    refuse_two_oracles(reader, &found);
    found
}

/// Refuses an issuer that no token could be of: its `iss` is that of one before it, which judges all tokens of that `iss`.
fn unlike(reader: &Reader<'_>, before: &[Arc<Issuer>], issuer: &Issuer) {
    let (name, iss) = (&issuer.rules().name, &issuer.rules().issuer);
    if let Some(first) = before.iter().find(|held| held.rules().issuer == *iss) {
        reader.error(
            "issuers",
            format!("no token could be of `{name}`"),
            Some(format!(
                "`{}` before it has the same `issuer` and judges its tokens; keep one of them",
                first.rules().name
            )),
        );
    }
}

/// An opaque token says nothing of who issued it, and to show it to another issuer would give it away.
fn refuse_two_oracles(reader: &Reader<'_>, issuers: &[Arc<Issuer>]) {
    let mut asked = issuers.iter().filter(|issuer| issuer.answers_questions());
    if let (Some(one), Some(other)) = (asked.next(), asked.next()) {
        reader.error(
            "issuers",
            format!(
                "an opaque token could be of `{}` or of `{}`",
                one.rules().name,
                other.rules().name
            ),
            Some(
                "name one issuer with `introspection`, or put the others on routes of their own"
                    .into(),
            ),
        );
    }
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
            .map(|issuer| {
                let proof = match &issuer.rules().dpop {
                    None => "",
                    Some(rules) if rules.required => " with a proof",
                    Some(_) => " with or without a proof",
                };
                format!("`{}`{proof}", issuer.rules().name)
            })
            .collect();
        format!("bearer token of {}", names.join(" or "))
    }

    /// Whether the request brings a token, well-formed or not.
    pub(super) fn is_brought(&self, exchange: &Exchange) -> bool {
        !matches!(self.presented(exchange), Ok(None))
    }

    fn presented<'a>(
        &self,
        exchange: &'a Exchange,
    ) -> Result<Option<Presented<'a>>, CredentialError> {
        let (headers, query) = (exchange.headers(), exchange.target().query());
        if self.possession.is_some() {
            return bearer::presented_by_either(headers, query);
        }
        let alone = |token| Presented {
            token,
            scheme: Scheme::Bearer,
        };
        Ok(bearer::presented(headers, query)?.map(alone))
    }

    /// Verifies the token, if one came, and that it is the caller's own.
    ///
    /// # Errors
    /// 400 `invalid-request`, 401 `token-invalid`, `proof-invalid` and `proof-nonce-missing`, 503 `keys-unavailable`,
    /// `introspection-unavailable` and `overloaded`.
    pub(super) async fn identify(&self, exchange: &Exchange) -> Identified {
        let now = clock::unix_seconds_at(exchange.started);
        let shown = match self.presented(exchange) {
            Ok(Some(shown)) => shown,
            Ok(None) => return Ok(None),
            Err(error) => return Err(unclear(exchange, error)),
        };
        let last = &exchange.connection.last_token;
        if let Some(principal) = bearer::recall(shown.token, last, &self.issuers, now) {
            return self.held(exchange, shown, principal);
        }
        match bearer::well_formed(shown.token) {
            // Rare, and its future is large: it may wait for the issuer.
            Ok(token) => Box::pin(bearer::verify(token, &self.issuers, exchange.client, now))
                .await
                .map_err(|error| self.refused(exchange, shown.scheme, &error))
                .and_then(|principal| self.held(exchange, shown, principal)),
            Err(error) => Err(unclear(exchange, error)),
        }
    }

    /// A bound token counts only together with what it is bound to, remembered or not (RFC 8705 §3, RFC 9449 §7.1).
    fn held(
        &self,
        exchange: &Exchange,
        shown: Presented<'_>,
        principal: Arc<Principal>,
    ) -> Identified {
        match (&principal.binding, shown.scheme, &self.possession) {
            (None, Scheme::Bearer, None) => Ok(Some(principal)),
            (None, Scheme::Bearer, Some(possession)) if !possession.is_required_of(&principal) => {
                Ok(Some(principal))
            }
            (Some(Binding::Certificate(thumbprint)), Scheme::Bearer, possession)
                if shows(exchange, thumbprint)
                    && possession
                        .as_ref()
                        .is_none_or(|possession| !possession.is_required_of(&principal)) =>
            {
                Ok(Some(principal))
            }
            (Some(Binding::Key(key)), Scheme::Dpop, Some(possession)) => possession
                .check(exchange, (&principal, key), shown.token)
                .map(|()| Some(principal)),
            // A token for proofs without one, or the other way round: it would lose its protection.
            (_, _, Some(possession)) => Err(possession.invalid_token(exchange, "binding").into()),
            (_, _, None) => Err(invalid(exchange, "binding").into()),
        }
    }

    fn refused(&self, exchange: &Exchange, scheme: Scheme, error: &TokenError) -> Halt {
        let unavailable = |reason, seconds: u64| {
            let refusal = refusal(reason).with(header::RETRY_AFTER, seconds.max(1).into());
            refusal.into()
        };
        match error {
            TokenError::KeysUnavailable { retry_after } => {
                return unavailable(Reason::KeysUnavailable, retry_after.as_secs());
            }
            TokenError::IntrospectionUnavailable => {
                return unavailable(Reason::IntrospectionUnavailable, 1);
            }
            _ => {}
        }
        let mut refusal = match &self.possession {
            Some(possession) if scheme == Scheme::Dpop => {
                possession.invalid_token(exchange, error.code())
            }
            _ => invalid(exchange, error.code()),
        };
        refusal.forged = error.is_forgery();
        refusal.into()
    }

    /// What a caller who brought no token is told to bring.
    pub(super) fn challenge(&self, refusal: Refusal, exchange: &Exchange) -> Refusal {
        let Some(possession) = &self.possession else {
            return challenge(refusal, exchange, "");
        };
        let refusal = if possession.alone {
            refusal
        } else {
            challenge(refusal, exchange, "")
        };
        possession.challenge(refusal, exchange, None)
    }
}

/// Whether the client proved in the handshake that it holds the certificate with this thumbprint (RFC 8705 §3).
fn shows(exchange: &Exchange, thumbprint: &Sha256) -> bool {
    exchange
        .connection
        .client_certificate()
        .is_some_and(|shown| shown.facts.fingerprint == *thumbprint)
}

/// 400: the credentials cannot be read without guessing.
fn unclear(exchange: &Exchange, error: CredentialError) -> Halt {
    let mut refusal = refusal(Reason::InvalidRequest).detail(error.code());
    refusal.forged = matches!(error, CredentialError::Malformed | CredentialError::TooLong);
    challenge(refusal, exchange, ", error=\"invalid_request\"").into()
}

fn invalid(exchange: &Exchange, detail: &'static str) -> Refusal {
    let refusal = refusal(Reason::TokenInvalid).detail(detail);
    challenge(refusal, exchange, ", error=\"invalid_token\"")
}
