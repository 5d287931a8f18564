//! The outer form of a signed token: JWS compact serialisation (RFC 7515), its header, its algorithms. For `bearer`.
//!
//! The header chooses nothing but a look-up key: `alg` is compared with what the issuer and the key allow, `jku`, `x5u`,
//! `jwk` and `x5c` are never read. Encrypted tokens (JWE) and unencoded payloads (RFC 7797) are not accepted.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::Value;

use super::claims::{Claims, JsonError, parse_object};

/// A signature algorithm that an issuer may be allowed to use (RFC 7518 §3, RFC 8037). `none` does not exist here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Algorithm {
    /// HMAC with SHA-256; only with a configured secret.
    Hs256,
    /// HMAC with SHA-384; only with a configured secret.
    Hs384,
    /// HMAC with SHA-512; only with a configured secret.
    Hs512,
    /// RSA PKCS #1 v1.5 with SHA-256.
    Rs256,
    /// RSA PKCS #1 v1.5 with SHA-384.
    Rs384,
    /// RSA PKCS #1 v1.5 with SHA-512.
    Rs512,
    /// RSA PSS with SHA-256.
    Ps256,
    /// RSA PSS with SHA-384.
    Ps384,
    /// RSA PSS with SHA-512.
    Ps512,
    /// ECDSA on P-256 with SHA-256.
    Es256,
    /// ECDSA on P-384 with SHA-384.
    Es384,
    /// Ed25519, under either of its names (`EdDSA`, or `Ed25519` of RFC 9864).
    EdDsa,
}

/// The kind of key an algorithm is bound to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyKind {
    /// A shared secret.
    Secret,
    /// An RSA public key.
    Rsa,
    /// A point on a NIST curve.
    Ec,
    /// An Ed25519 public key.
    Ed25519,
}

impl Algorithm {
    /// All of them, in the order in which they are listed to the operator.
    pub const ALL: [Self; 12] = [
        Self::Rs256,
        Self::Rs384,
        Self::Rs512,
        Self::Ps256,
        Self::Ps384,
        Self::Ps512,
        Self::Es256,
        Self::Es384,
        Self::EdDsa,
        Self::Hs256,
        Self::Hs384,
        Self::Hs512,
    ];

    /// The registered name, as it stands in `alg`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Hs256 => "HS256",
            Self::Hs384 => "HS384",
            Self::Hs512 => "HS512",
            Self::Rs256 => "RS256",
            Self::Rs384 => "RS384",
            Self::Rs512 => "RS512",
            Self::Ps256 => "PS256",
            Self::Ps384 => "PS384",
            Self::Ps512 => "PS512",
            Self::Es256 => "ES256",
            Self::Es384 => "ES384",
            Self::EdDsa => "EdDSA",
        }
    }

    /// The algorithm of this exact name; case counts.
    pub fn from_name(name: &str) -> Option<Self> {
        if name == "Ed25519" {
            return Some(Self::EdDsa);
        }
        Self::ALL
            .into_iter()
            .find(|algorithm| algorithm.name() == name)
    }

    /// The kind of key it works with.
    pub const fn key_kind(self) -> KeyKind {
        match self {
            Self::Hs256 | Self::Hs384 | Self::Hs512 => KeyKind::Secret,
            Self::Rs256 | Self::Rs384 | Self::Rs512 | Self::Ps256 | Self::Ps384 | Self::Ps512 => {
                KeyKind::Rsa
            }
            Self::Es256 | Self::Es384 => KeyKind::Ec,
            Self::EdDsa => KeyKind::Ed25519,
        }
    }
}

impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What is wrong with the outer form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FormError {
    /// Not three parts of canonical unpadded base64url, or no JSON objects in them.
    Malformed,
    /// A name stands twice in the header or the claims.
    Duplicate,
    /// `alg` is absent, `none`, or one that is not spoken here.
    Algorithm,
    /// `crit` or `b64` asks for processing that is not done here (RFC 7515 §4.1.11: refuse).
    Critical,
}

impl From<JsonError> for FormError {
    fn from(error: JsonError) -> Self {
        match error {
            JsonError::Malformed => Self::Malformed,
            JsonError::Duplicate => Self::Duplicate,
        }
    }
}

/// The parts of the header that are read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// `alg`.
    pub algorithm: Algorithm,
    /// `kid`: a look-up key, never a path or a query.
    pub key_id: Option<Box<str>>,
    /// `typ`, lower-cased and without the `application/` it may begin with (RFC 7515 §4.1.9).
    pub media_type: Option<Box<str>>,
}

/// A token taken apart; nothing in it is verified.
#[derive(Debug)]
pub struct Unverified<'a> {
    /// The header.
    pub header: Header,
    /// The claims.
    pub claims: Claims,
    /// What was signed: header and claims as they came.
    pub message: &'a [u8],
    /// The signature.
    pub signature: Vec<u8>,
}

/// Takes a token apart.
///
/// # Errors
/// See [`FormError`]; the header is judged first, so that `alg: none` with its empty signature is named as what it is.
pub fn take_apart(token: &str) -> Result<Unverified<'_>, FormError> {
    let parts = split(token)?;
    let header = read_header(&parse_object(&decode(parts.header)?)?)?;
    let claims = parse_object(&decode(parts.claims)?)?;
    let signature = decode(parts.signature)?;
    if signature.is_empty() {
        return Err(FormError::Malformed);
    }
    Ok(Unverified {
        header,
        claims,
        message: parts.message.as_bytes(),
        signature,
    })
}

/// The parts of a text in compact form, still encoded.
pub(super) struct Parts<'a> {
    pub(super) header: &'a str,
    pub(super) claims: &'a str,
    pub(super) signature: &'a str,
    /// Header and claims with the dot between them.
    pub(super) message: &'a str,
}

/// Three parts with dots between them, whatever they hold.
pub(super) fn split(token: &str) -> Result<Parts<'_>, FormError> {
    let (message, signature) = token.rsplit_once('.').ok_or(FormError::Malformed)?;
    let (header, claims) = message.split_once('.').ok_or(FormError::Malformed)?;
    if claims.contains('.') {
        return Err(FormError::Malformed);
    }
    Ok(Parts {
        header,
        claims,
        signature,
        message,
    })
}

/// Whether a text has the outer form of a signed token (RFC 7515 §3.1): three parts, the first of them a JSON object. Such
/// a text is judged as what it looks like, never taken for an opaque token.
pub(super) fn has_signed_form(token: &str) -> bool {
    let mut parts = token.split('.');
    let header = parts.next().unwrap_or_default();
    let is_object =
        || decode(header).is_ok_and(|header| parse_object(&header) != Err(JsonError::Malformed));
    parts.count() == 2 && is_object()
}

/// Canonical only: no padding, no stray bits, so that one token has one spelling.
pub(super) fn decode(text: &str) -> Result<Vec<u8>, FormError> {
    URL_SAFE_NO_PAD
        .decode(text)
        .map_err(|_| FormError::Malformed)
}

/// Reads what is looked at of a header.
pub(super) fn read_header(header: &Claims) -> Result<Header, FormError> {
    if header.contains_key("crit") || header.contains_key("b64") {
        return Err(FormError::Critical);
    }
    let algorithm = header
        .get("alg")
        .and_then(Value::as_str)
        .and_then(Algorithm::from_name);
    Ok(Header {
        algorithm: algorithm.ok_or(FormError::Algorithm)?,
        key_id: text(header, "kid")?.map(Box::from),
        media_type: text(header, "typ")?.map(|typ| {
            let typ = typ.to_ascii_lowercase();
            Box::from(typ.strip_prefix("application/").unwrap_or(&typ))
        }),
    })
}

fn text<'a>(header: &'a Claims, name: &str) -> Result<Option<&'a str>, FormError> {
    header
        .get(name)
        .map(|value| value.as_str().ok_or(FormError::Malformed))
        .transpose()
}

#[cfg(test)]
mod tests {
    use base64::Engine;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;

    use super::{Algorithm, FormError, has_signed_form, take_apart};

    fn token(header: &str, claims: &str) -> String {
        format!(
            "{}.{}.c2ln",
            URL_SAFE_NO_PAD.encode(header),
            URL_SAFE_NO_PAD.encode(claims)
        )
    }

    fn error(header: &str, claims: &str) -> Option<FormError> {
        take_apart(&token(header, claims)).err()
    }

    #[test]
    fn names_round_trip_and_none_is_not_one() {
        for algorithm in Algorithm::ALL {
            assert_eq!(Algorithm::from_name(algorithm.name()), Some(algorithm));
        }
        for bad in [
            "none", "None", "NONE", "nOnE", "", "rs256", "RS1", "ES512", "dir", "A128KW",
        ] {
            assert_eq!(Algorithm::from_name(bad), None);
        }
    }

    #[test]
    fn a22_headers_that_are_refused() {
        assert_eq!(error(r#"{"alg":"none"}"#, "{}"), Some(FormError::Algorithm));
        assert_eq!(
            error(r#"{"alg":["RS256"]}"#, "{}"),
            Some(FormError::Algorithm)
        );
        assert_eq!(error(r#"{"typ":"JWT"}"#, "{}"), Some(FormError::Algorithm));
        assert_eq!(
            error(r#"{"alg":"RS256","crit":["x"],"x":1}"#, "{}"),
            Some(FormError::Critical)
        );
        assert_eq!(
            error(r#"{"alg":"RS256","crit":[]}"#, "{}"),
            Some(FormError::Critical)
        );
        assert_eq!(
            error(r#"{"alg":"RS256","b64":false}"#, "{}"),
            Some(FormError::Critical)
        );
        assert_eq!(
            error(r#"{"alg":"RS256","alg":"HS256"}"#, "{}"),
            Some(FormError::Duplicate)
        );
        assert_eq!(
            error(r#"{"alg":"RS256","kid":7}"#, "{}"),
            Some(FormError::Malformed)
        );
        assert_eq!(
            error(r#"{"alg":"RS256"}"#, r#"{"a":1,"a":1}"#),
            Some(FormError::Duplicate)
        );
    }

    #[test]
    fn what_looks_signed_is_not_opaque() {
        for signed in [
            token(r#"{"alg":"none"}"#, "{}"),
            token(r#"{"alg":"x","alg":"y"}"#, "[]"),
            format!("{}.?.", URL_SAFE_NO_PAD.encode("{}")),
        ] {
            assert!(has_signed_form(&signed), "{signed}");
        }
        for opaque in [
            "",
            "abc",
            "a.b.c",
            "..",
            "e30.e30",
            "e30.e30.e30.e30",
            "e30.a.b.c.d",
        ] {
            assert!(!has_signed_form(opaque), "{opaque}");
        }
    }

    #[test]
    fn b25_key_pointers_in_the_header_are_not_read() {
        let header = r#"{"alg":"RS256","jku":"http://evil.example/","x5u":"http://evil.example/","jwk":{"kty":"RSA"},"x5c":["x"]}"#;
        assert!(take_apart(&token(header, "{}")).is_ok());
    }

    #[test]
    fn the_media_type_is_compared_without_case_and_prefix() {
        for typ in [
            "at+jwt",
            "AT+JWT",
            "application/at+jwt",
            "Application/At+Jwt",
        ] {
            let token = token(&format!(r#"{{"alg":"RS256","typ":"{typ}"}}"#), "{}");
            assert_eq!(
                take_apart(&token).unwrap().header.media_type.as_deref(),
                Some("at+jwt")
            );
        }
    }

    #[test]
    fn the_form_is_three_canonical_parts() {
        let good = token(r#"{"alg":"RS256"}"#, "{}");
        assert!(take_apart(&good).is_ok());
        let (message, _) = good.rsplit_once('.').unwrap();
        for bad in [
            String::new(),
            "a".to_owned(),
            message.to_owned(),
            format!("{message}."),
            format!("{good}.x"),
            format!("{good}=="),
            format!("{message}.c2lnZ"),
            format!("{message}.c2 ln"),
            format!("{message}.c2+n"),
            format!(".{good}"),
            // `c2k` with stray bits in its last letter.
            format!("{message}.c2l"),
        ] {
            assert_eq!(take_apart(&bad).err(), Some(FormError::Malformed), "{bad}");
        }
        assert!(take_apart(&format!("{message}.c2k")).is_ok());
    }
}
