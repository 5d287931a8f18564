//! The fact "who is asking", after authentication. Plain data: verified in `identity`, judged in `policy`.
//!
//! The header values for the backend are built here once, when the principal is made, so that a cached principal costs
//! a request no formatting.

use std::fmt;
use std::sync::Arc;

use http::HeaderValue;
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use serde_json::{Map, Value};

use crate::crypto::digest::Sha256;

/// What an alien value could break in a header: line ends, non-ASCII, and the escape character itself.
const VALUE: &AsciiSet = &CONTROLS.add(b'%');
/// The same for a member of a comma-joined list: a role named `x,admin` must not become two roles.
const MEMBER: &AsciiSet = &VALUE.add(b',');

/// An authenticated caller.
#[derive(Clone, PartialEq)]
pub struct Principal {
    /// The `sub` claim; empty when the token has none.
    pub subject: Box<str>,
    /// The configured name of the issuer (`[issuers.NAME]`), not its URL.
    pub issuer: Arc<str>,
    /// Roles from the configured claim paths, in order, without repeats.
    pub roles: Vec<Box<str>>,
    /// Scopes from `scope` or `scp`.
    pub scopes: Vec<Box<str>>,
    /// What a token and its issuer's answer about it do not both grant; `None` where nothing is.
    pub withheld: Option<Box<Withheld>>,
    /// Unix second at which the credential stops being accepted, leeway included.
    pub expires: u64,
    /// Authentication context class (`acr`), for step-up.
    pub acr: Option<Box<str>>,
    /// Unix second at which the person authenticated (`auth_time`).
    pub auth_time: Option<u64>,
    /// Authentication methods (`amr`, RFC 8176).
    pub amr: Vec<Box<str>>,
    /// What the caller must hold beside the credential; asked for with every request.
    pub binding: Option<Binding>,
    /// Of the claims that the credential has those that conditions of the file read, or the list of revoked tokens; `None`
    /// where neither reads any.
    pub claims: Option<Box<Map<String, Value>>>,
    /// The same claims as the issuer's answer about the credential has them, where it says otherwise: conditions must hold
    /// of both.
    pub answered: Option<Box<Map<String, Value>>>,
    /// What the backend is told.
    pub headers: IdentityHeaders,
}

/// Roles and scopes that let nobody in, and shut out as held ones do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Withheld {
    /// Roles.
    pub roles: Vec<Box<str>>,
    /// Scopes.
    pub scopes: Vec<Box<str>>,
}

/// What a token is bound to (RFC 7800): its bytes alone prove nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Binding {
    /// The client certificate with this SHA-256 of its DER form (`x5t#S256`, RFC 8705 §3.1).
    Certificate(Sha256),
    /// The key with this SHA-256 of its JWK (`jkt`, RFC 7638, RFC 9449 §6.1).
    Key(Sha256),
}

impl Principal {
    /// A caller of whom nothing is known but the name, for as long as the process runs: what a means adds is set on it.
    pub fn named(subject: &str, issuer: Arc<str>) -> Self {
        Self {
            subject: subject.into(),
            issuer,
            roles: Vec::new(),
            scopes: Vec::new(),
            withheld: None,
            expires: u64::MAX,
            acr: None,
            auth_time: None,
            amr: Vec::new(),
            binding: None,
            claims: None,
            answered: None,
            headers: IdentityHeaders::default(),
        }
    }
}

/// The identity headers for the backend; `None` where there is nothing to say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IdentityHeaders {
    /// `X-Auth-Subject`.
    pub subject: Option<HeaderValue>,
    /// `X-Auth-Roles`, joined by commas without spaces.
    pub roles: Option<HeaderValue>,
    /// `X-Auth-Scopes`, joined by commas without spaces.
    pub scopes: Option<HeaderValue>,
}

impl IdentityHeaders {
    /// The values for these facts. Control bytes, non-ASCII and `%` are percent-encoded, commas too within a list, and
    /// spaces at the ends of a value, which a reader would trim.
    pub fn new(subject: &str, roles: &[Box<str>], scopes: &[Box<str>]) -> Self {
        let mut name = String::new();
        push(&mut name, subject, VALUE);
        Self {
            subject: header(&name),
            roles: list(roles),
            scopes: list(scopes),
        }
    }
}

fn list(members: &[Box<str>]) -> Option<HeaderValue> {
    let mut joined = String::new();
    for member in members {
        if !joined.is_empty() {
            joined.push(',');
        }
        push(&mut joined, member, MEMBER);
    }
    header(&joined)
}

fn push(out: &mut String, value: &str, set: &'static AsciiSet) {
    let inner = value.trim_matches(' ');
    let leading = value.len() - value.trim_start_matches(' ').len();
    // A value of nothing but spaces is all "leading".
    let trailing = value.len() - leading - inner.len();
    out.extend(std::iter::repeat_n("%20", leading));
    out.extend(utf8_percent_encode(inner, set));
    out.extend(std::iter::repeat_n("%20", trailing));
}

fn header(value: &str) -> Option<HeaderValue> {
    if value.is_empty() {
        return None;
    }
    HeaderValue::from_str(value).ok()
}

impl fmt::Debug for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Principal")
            .field("subject", &self.subject)
            .field("issuer", &self.issuer)
            .field("roles", &self.roles)
            .field("scopes", &self.scopes)
            .field("expires", &self.expires)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::IdentityHeaders;

    fn boxed(values: &[&str]) -> Vec<Box<str>> {
        values.iter().map(|value| Box::from(*value)).collect()
    }

    #[test]
    fn lists_are_joined_by_commas_without_spaces() {
        let headers = IdentityHeaders::new(
            "auth0|7",
            &boxed(&["reader", "Domain Admins"]),
            &boxed(&["api.read"]),
        );
        assert_eq!(headers.subject.unwrap(), "auth0|7");
        assert_eq!(headers.roles.unwrap(), "reader,Domain Admins");
        assert_eq!(headers.scopes.unwrap(), "api.read");
    }

    #[test]
    fn no_value_can_add_a_line_a_member_or_an_escape() {
        let headers = IdentityHeaders::new(
            "a\r\nX-Admin: 1 é",
            &boxed(&["x,admin", " admin", "admin ", "  ", "a%2Cb"]),
            &[],
        );
        assert_eq!(headers.subject.unwrap(), "a%0D%0AX-Admin: 1 %C3%A9");
        assert_eq!(
            headers.roles.unwrap(),
            "x%2Cadmin,%20admin,admin%20,%20%20,a%252Cb"
        );
        assert_eq!(headers.scopes, None);
    }
}
