//! Proof that a token is its caller's own, on the routes whose issuers bind tokens to keys (RFC 9449 §7). For `bearer`.
//!
//! The answer to a bad proof is the same `invalid_dpop_proof` whatever is wrong with it; the access line has the finer code.

use std::sync::Arc;

use http::{HeaderName, HeaderValue, header};

use super::refusal;
use crate::{
    crypto::digest::Sha256,
    exchange::{Exchange, principal::Principal},
    identity::{
        dpop::{Demand, ProofError, Proofs, Request},
        issuer::{DpopRules, Issuer},
    },
    policy::challenge::challenge_as,
    state::clock,
    wire::halt::{Halt, Reason, Refusal},
};

/// Carries the proof of a request.
pub(super) const DPOP: HeaderName = HeaderName::from_static("dpop");
/// Carries the nonce for the next proof.
const DPOP_NONCE: HeaderName = HeaderName::from_static("dpop-nonce");

/// How callers of a route prove that a token is their own.
#[derive(Debug)]
pub(super) struct Possession {
    /// Those that take proofs.
    issuers: Vec<Arc<Issuer>>,
    proofs: Arc<Proofs>,
    /// Algorithms for proofs, as a challenge names them.
    algorithms: Box<str>,
    /// Whether no token counts here without a proof.
    pub(super) alone: bool,
}

/// What the issuers of a route say of proofs; `None` where none of them takes any.
pub(super) fn compile(issuers: &[Arc<Issuer>], proofs: &Arc<Proofs>) -> Option<Possession> {
    let rules_of = |issuer: &Arc<Issuer>| issuer.rules().dpop.clone();
    let all: Vec<DpopRules> = issuers.iter().filter_map(rules_of).collect();
    if all.is_empty() {
        return None;
    }
    let mut algorithms: Vec<&str> = Vec::new();
    for algorithm in all.iter().flat_map(|rules| &rules.algorithms) {
        if !algorithms.contains(&algorithm.name()) {
            algorithms.push(algorithm.name());
        }
    }
    Some(Possession {
        issuers: issuers
            .iter()
            .filter(|issuer| issuer.rules().dpop.is_some())
            .cloned()
            .collect(),
        proofs: Arc::clone(proofs),
        algorithms: algorithms.join(" ").into(),
        alone: all.len() == issuers.len() && all.iter().all(|rules| rules.required),
    })
}

impl Possession {
    fn rules_of(&self, principal: &Principal) -> Option<&DpopRules> {
        let issuer = self
            .issuers
            .iter()
            .find(|issuer| issuer.rules().name == principal.issuer)?;
        issuer.rules().dpop.as_ref()
    }

    /// What proofs may be signed with.
    pub(super) fn algorithms(&self) -> impl Iterator<Item = &str> {
        self.algorithms.split(' ')
    }

    /// Whether a token of this caller's issuer must be bound to a key.
    pub(super) fn is_required_of(&self, principal: &Principal) -> bool {
        self.rules_of(principal).is_some_and(|rules| rules.required)
    }

    /// What gives out nonces, where they are asked for.
    pub(super) fn nonces(&self) -> Option<&Arc<Proofs>> {
        let asks = |issuer: &Arc<Issuer>| issuer.rules().dpop.as_ref().is_some_and(|r| r.nonce);
        self.issuers.iter().any(asks).then_some(&self.proofs)
    }

    /// Checks the proof that came beside a token which is bound to `key`.
    ///
    /// # Errors
    /// 400 `invalid-request`, 401 `proof-invalid` and `proof-nonce-missing`, 503 `overloaded`.
    pub(super) fn check(
        &self,
        exchange: &Exchange,
        (principal, key): (&Principal, &Sha256),
        token: &[u8],
    ) -> Result<(), Halt> {
        let mut proofs = exchange.headers().get_all(DPOP).iter();
        let proof = match (proofs.next(), proofs.next()) {
            (Some(proof), None) => proof.as_bytes(),
            (None, _) => return Err(self.refused(exchange, ProofError::Missing)),
            (Some(_), Some(_)) => {
                let refusal = refusal(Reason::InvalidRequest).detail("proof-repeated");
                return Err(self
                    .challenge(refusal, exchange, Some("invalid_request"))
                    .into());
            }
        };
        let Some(rules) = self.rules_of(principal) else {
            return Err(self.invalid_token(exchange, "binding").into());
        };
        let demand = Demand {
            request: Request {
                method: exchange.method(),
                scheme: exchange.scheme(),
                authority: exchange.authority(),
                target: exchange.target(),
            },
            token,
            key,
            // Not the arrival: the token may have waited for keys, and the proof grew older with it.
            now: clock::unix_seconds(),
        };
        let checked = self.proofs.check(proof, &demand, rules);
        checked.map_err(|error| self.refused(exchange, error))
    }

    fn refused(&self, exchange: &Exchange, error: ProofError) -> Halt {
        let (reason, word) = match error {
            ProofError::NoRoom => {
                return refusal(Reason::Overloaded)
                    .detail(error.code())
                    .with(header::RETRY_AFTER, HeaderValue::from_static("1"))
                    .into();
            }
            ProofError::Nonce => (Reason::ProofNonceMissing, "use_dpop_nonce"),
            _ => (Reason::ProofInvalid, "invalid_dpop_proof"),
        };
        let mut refusal = refusal(reason).detail(error.code());
        refusal.forged = error.is_forgery();
        self.challenge(refusal, exchange, Some(word)).into()
    }

    /// 401: the token is bad, or not presented in the way in which it counts.
    pub(super) fn invalid_token(&self, exchange: &Exchange, detail: &'static str) -> Refusal {
        let refusal = refusal(Reason::TokenInvalid).detail(detail);
        self.challenge(refusal, exchange, Some("invalid_token"))
    }

    /// The refusal with its challenge (RFC 9449 §7.1).
    pub(super) fn challenge(
        &self,
        refusal: Refusal,
        exchange: &Exchange,
        error: Option<&str>,
    ) -> Refusal {
        let mut more = [", algs=\"", &self.algorithms, "\""].concat();
        if let Some(error) = error {
            more.push_str(&[", error=\"", error, "\""].concat());
        }
        challenge_as(refusal, exchange, ("DPoP", &more))
    }
}

/// The header with the nonce that the next proof must hold (RFC 9449 §8.2).
pub(super) fn nonce(proofs: &Proofs) -> Option<(HeaderName, HeaderValue)> {
    let nonce = proofs.nonce(clock::unix_seconds());
    Some((DPOP_NONCE, HeaderValue::try_from(nonce).ok()?))
}
