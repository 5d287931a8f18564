//! Bearer tokens: from the `Authorization` header to a verified principal (RFC 6750, RFC 7519, RFC 7662, RFC 8725, RFC 9068).
//!
//! A token is first looked for among the verified ones by the hash of the whole of it; only a new token is taken apart. Its
//! unverified `iss` picks the one issuer that may have signed it, never "try them all"; a token that is not signed goes to the
//! one issuer of the route that answers questions. What a token is bound to (`cnf`) is read here; whether the caller holds
//! it is asked by policy, with every request, as is what a route demands.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use thiserror::Error;

use super::agreement::{Grants, agreed};
use super::claims::{self, BadClaim, Claims};
use super::confirmation;
pub use super::credential::{
    CredentialError, Presented, Scheme, presented, presented_by_either, well_formed,
};
use super::introspection::{Introspector, Question, Signed, ask};
use super::issuer::{Issuer, IssuerRules, MAX_TOKEN_BYTES, TokenType};
use super::jwks::NoKey;
use super::jws::{self, FormError, Header, Unverified};
use crate::crypto::digest::{Sha256, sha256};
use crate::exchange::last_token::{LastToken, Proof};
use crate::exchange::principal::{IdentityHeaders, Principal};
use crate::state::keys::Refresh;

/// Why a token is not accepted. For the log only: the client learns `invalid_token`, the same for all but the last two.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum TokenError {
    /// Not a signed token in compact form.
    #[error("the token is malformed")]
    Malformed,
    /// Longer than the issuer's limit.
    #[error("the token is too long")]
    TooLong,
    /// An algorithm that is absent, `none`, not allowed, or not that of the key.
    #[error("the algorithm is not accepted")]
    Algorithm,
    /// Not an access token of the kind that is asked for.
    #[error("the type of token is not accepted")]
    Type,
    /// No key of the issuer fits.
    #[error("no key of the issuer fits")]
    UnknownKey,
    /// The signature is not that of the key.
    #[error("the signature is wrong")]
    Signature,
    /// `exp` has passed.
    #[error("the token has expired")]
    Expired,
    /// `nbf` or `iat` lies ahead.
    #[error("the token is not valid yet")]
    NotYetValid,
    /// `iss` is none of the accepted issuers.
    #[error("the issuer is not accepted")]
    Issuer,
    /// `aud` does not name us.
    #[error("the audience is another")]
    Audience,
    /// A mandatory claim is absent.
    #[error("the claim `{0}` is missing")]
    MissingClaim(&'static str),
    /// A claim has the wrong type or an unacceptable value.
    #[error("the claim `{0}` is not acceptable")]
    BadClaim(&'static str),
    /// A name stands twice in the header or the claims.
    #[error("a name stands twice in the token")]
    DuplicateClaim,
    /// The header asks for processing that is not done here.
    #[error("the header has critical extensions")]
    Critical,
    /// `iat` is longer ago than the issuer's tokens may be old.
    #[error("the token is too old")]
    TooOld,
    /// The issuer says that it is not active: unknown, expired or withdrawn.
    #[error("the issuer says that the token is not active")]
    Inactive,
    /// Named in the operator's list.
    #[error("the token is revoked")]
    Revoked,
    /// No answer from the issuer: 503, since the fault is not the client's.
    #[error("the issuer cannot be asked about the token")]
    IntrospectionUnavailable,
    /// No usable keys: 503, since the fault is not the client's.
    #[error("the keys of the issuer are not available")]
    KeysUnavailable {
        /// How long to wait before asking again.
        retry_after: Duration,
    },
}

impl TokenError {
    /// The stable code for logs and metrics; one of [`super::issuer::TOKEN_OUTCOMES`].
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::TooLong => "too-long",
            Self::Algorithm => "algorithm",
            Self::Type => "type",
            Self::UnknownKey => "unknown-key",
            Self::Signature => "signature",
            Self::Expired => "expired",
            Self::NotYetValid => "not-yet-valid",
            Self::Issuer => "issuer",
            Self::Audience => "audience",
            Self::MissingClaim(_) => "missing-claim",
            Self::BadClaim(_) => "bad-claim",
            Self::DuplicateClaim => "duplicate-claim",
            Self::Critical => "critical",
            Self::TooOld => "too-old",
            Self::Inactive => "inactive",
            Self::Revoked => "revoked",
            Self::IntrospectionUnavailable => "introspection-unavailable",
            Self::KeysUnavailable { .. } => "keys-unavailable",
        }
    }
}

impl TokenError {
    /// Whether nobody who holds a key of the issuer made the token, as far as it was looked at. Not when the key is merely
    /// not known here, as after a rotation that could not be fetched, nor when another issuer made it: such a token may
    /// be good.
    pub const fn is_forgery(&self) -> bool {
        matches!(
            self,
            Self::Malformed
                | Self::TooLong
                | Self::Algorithm
                | Self::Signature
                | Self::DuplicateClaim
                | Self::Critical
        )
    }
}

impl From<FormError> for TokenError {
    fn from(error: FormError) -> Self {
        match error {
            FormError::Malformed => Self::Malformed,
            FormError::Duplicate => Self::DuplicateClaim,
            FormError::Algorithm => Self::Algorithm,
            FormError::Critical => Self::Critical,
        }
    }
}

impl From<BadClaim> for TokenError {
    fn from(BadClaim(name): BadClaim) -> Self {
        Self::BadClaim(name)
    }
}

/// The principal of a token that was verified before and still holds, without waiting for anything: by its bytes when
/// it came before on the connection that `last` is of, else by its digest.
///
/// `now` in Unix seconds.
pub fn recall(
    token: &[u8],
    last: &LastToken,
    issuers: &[Arc<Issuer>],
    now: u64,
) -> Option<Arc<Principal>> {
    if token.len() > MAX_TOKEN_BYTES {
        return None;
    }
    let proof = last.proof_of(token);
    if let Some(principal) = proof.and_then(|proof| still_counts(proof, issuers, now)) {
        return Some(principal);
    }
    let digest = sha256(token);
    let proof = recall_digest(&digest, issuers, now)?;
    let principal = Arc::clone(&proof.principal);
    last.note(token, &digest, proof);
    Some(principal)
}

/// The principal, if the table of verified tokens would give it too: the same issuer, the same keys, not expired.
fn still_counts(proof: Proof, issuers: &[Arc<Issuer>], now: u64) -> Option<Arc<Principal>> {
    let issuer = issuers.iter().find(|held| held.serial == proof.issuer)?;
    let counts = has_the_word(issuer, issuers)
        && issuer.version(now) == Some(proof.version)
        && now < proof.principal.expires;
    counts.then(|| {
        issuer.counts().token("cached");
        proof.principal
    })
}

/// Whether `pick` would give this issuer: of several that vouch for one `iss`, the first has the word, for tokens that
/// another route verified under the next one too.
fn has_the_word(issuer: &Arc<Issuer>, issuers: &[Arc<Issuer>]) -> bool {
    let first = issuers
        .iter()
        .find(|held| held.rules().issuer == issuer.rules().issuer);
    first.is_some_and(|first| Arc::ptr_eq(first, issuer))
}

fn recall_digest(digest: &Sha256, issuers: &[Arc<Issuer>], now: u64) -> Option<Proof> {
    issuers.iter().find_map(|issuer| {
        let version = issuer.version(now)?;
        let principal = issuer.tokens.get(digest, version, now)?;
        if !has_the_word(issuer, issuers) {
            return None;
        }
        issuer.counts().token("cached");
        Some(Proof {
            issuer: issuer.serial,
            version,
            principal,
        })
    })
}

/// Verifies a token that `client` shows against the issuers that a route accepts. `now` in Unix seconds.
///
/// Waits only when a key set must be fetched (none is there yet, or none of its keys fits) or the issuer is asked.
///
/// # Errors
/// See [`TokenError`].
pub async fn verify(
    token: &str,
    issuers: &[Arc<Issuer>],
    client: IpAddr,
    now: u64,
) -> Result<Arc<Principal>, TokenError> {
    if token.len() > MAX_TOKEN_BYTES {
        return refuse_early(TokenError::TooLong, issuers);
    }
    let digest = sha256(token.as_bytes());
    if let Some(proof) = recall_digest(&digest, issuers, now) {
        return Ok(proof.principal);
    }
    let question = Question {
        token,
        digest: &digest,
        client,
        now,
        signed: None,
    };
    if let Some(issuer) = oracle(token, issuers) {
        return counted(issuer, "introspected", ask_alone(issuer, question).await);
    }
    let parts = match jws::take_apart(token) {
        Ok(parts) => parts,
        Err(error) => return refuse_early(error.into(), issuers),
    };
    let issuer = match pick(&parts.claims, issuers) {
        Ok(issuer) => issuer,
        Err(error) => return refuse_early(error, issuers),
    };
    if issuer.is_unsigned() {
        return counted(issuer, "introspected", ask_alone(issuer, question).await);
    }
    let verified = verify_with(issuer, question, &parts).await;
    counted(issuer, "verified", verified)
}

/// Whom to ask about a token that does not look signed: the issuer of the route that answers questions. The file names
/// one at most for a route: an opaque token says nothing of who issued it, and is nobody else's to see.
fn oracle<'a>(token: &str, issuers: &'a [Arc<Issuer>]) -> Option<&'a Arc<Issuer>> {
    let issuer = issuers.iter().find(|issuer| issuer.answers_questions())?;
    (!jws::has_signed_form(token)).then_some(issuer)
}

/// Judges a token by the word of its issuer alone, and remembers it for as long as that word is believed.
async fn ask_alone(
    issuer: &Arc<Issuer>,
    question: Question<'_>,
) -> Result<Arc<Principal>, TokenError> {
    if question.token.len() > issuer.rules().max_token_bytes {
        return Err(TokenError::TooLong);
    }
    // Read before the question: what changes meanwhile must not be taken for known.
    let keys = issuer.keys.version(question.now);
    let answer = ask(issuer, question).await;
    let principal = answer.verdict?.principal;
    if let Some(keys) = keys {
        let version = keys.wrapping_add(answer.list);
        issuer
            .tokens
            .put(*question.digest, version, Arc::clone(&principal));
    }
    Ok(principal)
}

fn counted(
    issuer: &Issuer,
    well: &'static str,
    verdict: Result<Arc<Principal>, TokenError>,
) -> Result<Arc<Principal>, TokenError> {
    let outcome = verdict.as_ref().map_or_else(TokenError::code, |_| well);
    issuer.counts().token(outcome);
    verdict
}

/// A refusal before the issuer is known counts for the only one that could have been meant.
fn refuse_early<T>(error: TokenError, issuers: &[Arc<Issuer>]) -> Result<T, TokenError> {
    if let [only] = issuers {
        only.counts().token(error.code());
    }
    Err(error)
}

fn pick<'a>(claims: &Claims, issuers: &'a [Arc<Issuer>]) -> Result<&'a Arc<Issuer>, TokenError> {
    let named = claims::string(claims, "iss")?.ok_or(TokenError::MissingClaim("iss"))?;
    issuers
        .iter()
        .find(|issuer| issuer.rules().issuer == named)
        .ok_or(TokenError::Issuer)
}

async fn verify_with(
    issuer: &Arc<Issuer>,
    question: Question<'_>,
    parts: &Unverified<'_>,
) -> Result<Arc<Principal>, TokenError> {
    let (rules, now) = (issuer.rules(), question.now);
    if question.token.len() > rules.max_token_bytes {
        return Err(TokenError::TooLong);
    }
    if !rules.algorithms.contains(&parts.header.algorithm) {
        return Err(TokenError::Algorithm);
    }
    check_type(&parts.header, rules.token_type)?;
    // Before the list is asked; see `Revocations::version`.
    let mut list = issuer.list_version();
    let keys = verify_signature(issuer, parts, now).await?;
    check_use(parts.header.media_type.as_deref(), &parts.claims)?;
    check_profile(rules.token_type, &parts.claims)?;
    let mut principal = judge(rules, &parts.claims, now)?;
    issuer.check_revoked(&parts.claims)?;
    if issuer.introspector().is_some_and(Introspector::asks_always) {
        let signed = Some(Signed {
            issued: claims::seconds(&parts.claims, "iat")?,
        });
        let answer = ask(issuer, Question { signed, ..question }).await;
        let own = Grants::of(rules, &parts.claims)?;
        principal = agreed((principal, &own), &answer.verdict?)?;
        list = list.min(answer.list);
    }
    let principal = Arc::new(principal);
    let version = keys.wrapping_add(list);
    issuer
        .tokens
        .put(*question.digest, version, Arc::clone(&principal));
    Ok(principal)
}

/// The signature under the one key that fits; gives the version of the key set it stands in.
async fn verify_signature(
    issuer: &Arc<Issuer>,
    parts: &Unverified<'_>,
    now: u64,
) -> Result<u64, TokenError> {
    let unavailable = |retry_after| TokenError::KeysUnavailable { retry_after };
    let (id, algorithm) = (parts.header.key_id.as_deref(), parts.header.algorithm);
    let mut keys = issuer.usable_keys(now).await.map_err(unavailable)?;
    if keys.value.find(id, algorithm).err() == Some(NoKey::Unknown)
        && issuer.refresh(Some(keys.version)).await == Refresh::Newer
    {
        keys = issuer.usable_keys(now).await.map_err(unavailable)?;
    }
    let key = keys
        .value
        .find(id, algorithm)
        .map_err(|error| match error {
            NoKey::Algorithm => TokenError::Algorithm,
            NoKey::Unknown | NoKey::Ambiguous => TokenError::UnknownKey,
        })?;
    if key.verify(parts.message, &parts.signature) {
        Ok(keys.version)
    } else {
        Err(TokenError::Signature)
    }
}

/// RFC 8725 §3.11: explicit types. ID tokens carry plain `JWT`, so their claims are looked at in [`check_use`].
fn check_type(header: &Header, wanted: TokenType) -> Result<(), TokenError> {
    match (wanted, header.media_type.as_deref()) {
        (_, Some("at+jwt")) | (TokenType::Any, None | Some("jwt")) => Ok(()),
        _ => Err(TokenError::Type),
    }
}

/// RFC 9068 §2.2: what an access token of that type always says; `iss`, `exp` and `aud` every token must say.
fn check_profile(wanted: TokenType, claims: &Claims) -> Result<(), TokenError> {
    if wanted != TokenType::AtJwt {
        return Ok(());
    }
    for name in ["sub", "client_id", "jti"] {
        let said = claims::string(claims, name)?;
        said.filter(|said| !said.is_empty())
            .ok_or(TokenError::MissingClaim(name))?;
    }
    claims::seconds(claims, "iat")?.ok_or(TokenError::MissingClaim("iat"))?;
    Ok(())
}

/// Judges the claims of a token whose signature holds, or whose issuer vouches for them.
pub(super) fn judge(
    rules: &IssuerRules,
    claims: &Claims,
    now: u64,
) -> Result<Principal, TokenError> {
    let expires = check_times(rules, claims, now)?;
    check_audience(rules, claims)?;
    let subject = claims::string(claims, "sub")?.unwrap_or_default();
    let grants = Grants::of(rules, claims)?;
    let (granted, scopes) = (grants.roles(), grants.scopes());
    Ok(Principal {
        headers: IdentityHeaders::new(subject, &granted, &scopes),
        roles: granted,
        scopes,
        expires,
        acr: claims::string(claims, "acr")?.map(Box::from),
        auth_time: claims::seconds(claims, "auth_time")?,
        amr: claims::words(claims.get("amr"), "amr")?,
        binding: confirmation::binding(claims)?,
        claims: claims::kept(claims, &rules.kept),
        ..Principal::named(subject, Arc::clone(&rules.name))
    })
}

/// Gives the second from which on the token is no longer accepted, leeway included.
fn check_times(rules: &IssuerRules, claims: &Claims, now: u64) -> Result<u64, TokenError> {
    let leeway = rules.leeway.as_secs();
    let mut expires = claims::seconds(claims, "exp")?
        .ok_or(TokenError::MissingClaim("exp"))?
        .saturating_add(leeway);
    if now >= expires {
        return Err(TokenError::Expired);
    }
    let latest_start = now.saturating_add(leeway);
    if claims::seconds(claims, "nbf")?.is_some_and(|not_before| not_before > latest_start) {
        return Err(TokenError::NotYetValid);
    }
    if let Some(issued) = claims::seconds(claims, "iat")? {
        // A date of issue ahead of us would stretch the greatest age at will.
        if issued > latest_start {
            return Err(TokenError::NotYetValid);
        }
        let too_old = issued
            .saturating_add(rules.max_age.as_secs())
            .saturating_add(leeway);
        if now >= too_old {
            return Err(TokenError::TooOld);
        }
        expires = expires.min(too_old);
    }
    Ok(expires)
}

fn check_audience(rules: &IssuerRules, claims: &Claims) -> Result<(), TokenError> {
    let ours = |audience: &str| rules.audience.iter().any(|own| own == audience);
    let named = match claims.get("aud").ok_or(TokenError::MissingClaim("aud"))? {
        Value::String(one) => ours(one),
        Value::Array(many) => {
            let mut named = false;
            for one in many {
                named |= ours(one.as_str().ok_or(TokenError::BadClaim("aud"))?);
            }
            named
        }
        _ => return Err(TokenError::BadClaim("aud")),
    };
    if named {
        Ok(())
    } else {
        Err(TokenError::Audience)
    }
}

/// Refuses tokens that were made for something else than to be shown to an API as they are.
pub(super) fn check_use(media_type: Option<&str>, claims: &Claims) -> Result<(), TokenError> {
    // Keycloak names the use of a token in a claim of its own; older versions copy the nonce into access tokens.
    let declared = claims.get("typ").and_then(Value::as_str);
    let is_access = media_type == Some("at+jwt")
        || declared.is_some_and(|typ| typ.eq_ignore_ascii_case("bearer"));
    let is_other = declared.is_some_and(|typ| {
        ["id", "refresh", "offline", "logout"]
            .iter()
            .any(|other| typ.eq_ignore_ascii_case(other))
    });
    // `OpenID` Connect Core §2 and §3.3.2.11 (ID tokens); RFC 8417 and Back-Channel Logout §2.4 (event tokens).
    let marks_of_id = claims.contains_key("at_hash") || claims.contains_key("c_hash");
    let of_id = marks_of_id || (claims.contains_key("nonce") && !is_access);
    if is_other || of_id || claims.contains_key("events") {
        Err(TokenError::Type)
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests;
