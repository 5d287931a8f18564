//! The token in the `Authorization` header (RFC 6750 §2.1, RFC 9449 §7.1), and the refusal of requests that carry two. For
//! `bearer`.
//!
//! Nothing is known here of what a token says.

use http::{HeaderMap, header};
use percent_encoding::percent_decode;
use thiserror::Error;

use super::rules::MAX_TOKEN_BYTES;

/// What stands behind `Bearer` in a request, if it has that, its form not looked at yet: a token that was verified before
/// needs no second look. Other schemes and tokens in the query alone count as none: a URL is written to logs and
/// histories (RFC 9700 §4.3.2).
///
/// # Errors
/// Whatever would have to be guessed: see [`CredentialError`].
pub fn presented<'a>(
    headers: &'a HeaderMap,
    query: Option<&str>,
) -> Result<Option<&'a [u8]>, CredentialError> {
    let found = find(headers, query, &[Scheme::Bearer])?;
    Ok(found.map(|found| found.token))
}

/// The same where proofs of possession are taken: what stands behind `Bearer` or `DPoP`.
///
/// # Errors
/// Those of [`presented`].
pub fn presented_by_either<'a>(
    headers: &'a HeaderMap,
    query: Option<&str>,
) -> Result<Option<Presented<'a>>, CredentialError> {
    find(headers, query, &[Scheme::Bearer, Scheme::Dpop])
}

/// A token and the scheme that it came under.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Presented<'a> {
    /// The token, its form not looked at yet.
    pub token: &'a [u8],
    /// What stood before it.
    pub scheme: Scheme,
}

/// How a token is presented.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    /// By itself (RFC 6750 §2.1).
    Bearer,
    /// With a proof beside it (RFC 9449 §7.1).
    Dpop,
}

fn find<'a>(
    headers: &'a HeaderMap,
    query: Option<&str>,
    schemes: &[Scheme],
) -> Result<Option<Presented<'a>>, CredentialError> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let Some(value) = values.next() else {
        return Ok(None);
    };
    if values.next().is_some() {
        return Err(CredentialError::Repeated);
    }
    let read = |scheme: &Scheme| {
        let token = scheme.token_of(value.as_bytes())?;
        Some(Presented {
            token,
            scheme: *scheme,
        })
    };
    let Some(found) = schemes.iter().find_map(read) else {
        return Ok(None);
    };
    if query.is_some_and(has_token) {
        return Err(CredentialError::TwoPlaces);
    }
    if found.token.len() > MAX_TOKEN_BYTES {
        return Err(CredentialError::TooLong);
    }
    Ok(Some(found))
}

/// The token as text, when it is one well-formed `b64token`.
///
/// # Errors
/// [`CredentialError::Malformed`].
pub fn well_formed(token: &[u8]) -> Result<&str, CredentialError> {
    std::str::from_utf8(token)
        .ok()
        .filter(|token| is_b64token(token))
        .ok_or(CredentialError::Malformed)
}

impl Scheme {
    /// What follows the scheme and its spaces; `None` for another scheme.
    fn token_of(self, value: &[u8]) -> Option<&[u8]> {
        let wanted: &[u8] = match self {
            Self::Bearer => b"bearer",
            Self::Dpop => b"dpop",
        };
        let (scheme, rest) = value.split_at_checked(wanted.len())?;
        if !scheme.eq_ignore_ascii_case(wanted) {
            return None;
        }
        match rest.first() {
            None => Some(rest),
            Some(b' ' | b'\t' | b',') => Some(rest.trim_ascii_start()),
            Some(_) => None,
        }
    }
}

/// `1*( ALPHA / DIGIT / "-" / "." / "_" / "~" / "+" / "/" ) *"="`.
fn is_b64token(token: &str) -> bool {
    let body = token.trim_end_matches('=');
    !body.is_empty()
        && body
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-._~+/".contains(&byte))
}

fn has_token(query: &str) -> bool {
    let is_token = |pair: &[u8]| {
        // Nearly every name begins otherwise.
        matches!(pair.first(), Some(b'a' | b'%')) && {
            let name = pair.split(|byte| *byte == b'=').next();
            percent_decode(name.unwrap_or_default()).eq(*b"access_token")
        }
    };
    let mut pairs = query.as_bytes().split(|byte| *byte == b'&');
    pairs.any(is_token)
}

/// Why the credentials of a request cannot be read without guessing: 400 `invalid_request` (RFC 6750 §3.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum CredentialError {
    /// More than one `Authorization` header.
    #[error("more than one Authorization header")]
    Repeated,
    /// A token in the header and another in the query.
    #[error("a token in the header and in the query")]
    TwoPlaces,
    /// Not one `b64token` after `Bearer` (RFC 6750 §2.1).
    #[error("not one well-formed bearer token")]
    Malformed,
    /// Longer than [`MAX_TOKEN_BYTES`].
    #[error("a token that is too long")]
    TooLong,
}

impl CredentialError {
    /// The stable code for logs.
    pub const fn code(self) -> &'static str {
        match self {
            Self::Repeated => "credential-repeated",
            Self::TwoPlaces => "credential-in-two-places",
            Self::Malformed => "credential-malformed",
            Self::TooLong => "credential-too-long",
        }
    }
}
