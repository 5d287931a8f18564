//! The proof of possession that comes beside a token: its form, and what it says of the request (RFC 9449 §4.2, §4.3).
//!
//! For `dpop`, which checks the signature, the nonce and that no proof counts twice. Here is everything that can be told
//! without cryptography, so that most forgeries cost no signature check.

use std::str::FromStr;

use http::{Method, uri::PathAndQuery};
use thiserror::Error;

use super::claims::{self, BadClaim, Claims, JsonError, parse_object};
use super::jws::{self, Algorithm, FormError, Header};
use crate::wire::{forwarded::Scheme, host::Authority, path::Target};

/// The longest proof that is looked at: one by an RSA key of 4096 bits takes about 2 KiB.
pub const MAX_PROOF_BYTES: usize = 4 * 1024;

/// Members of a JWK that only its owner may know (RFC 7518 §6.2.2, §6.3.2, §6.4).
const PRIVATE: [&str; 8] = ["d", "p", "q", "dp", "dq", "qi", "oth", "k"];

/// Why a proof is not accepted. For the log only: the client learns `invalid_dpop_proof`, or `use_dpop_nonce`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum ProofError {
    /// None came beside the token.
    #[error("there is no proof")]
    Missing,
    /// Longer than [`MAX_PROOF_BYTES`].
    #[error("the proof is too long")]
    TooLong,
    /// Not a signed token in compact form with the claims of a proof.
    #[error("the proof is malformed")]
    Malformed,
    /// Another type than `dpop+jwt`.
    #[error("the token beside the token is no proof")]
    Type,
    /// An algorithm that is not allowed, or not that of the key.
    #[error("the algorithm of the proof is not accepted")]
    Algorithm,
    /// The header has no public key, or one that cannot be used.
    #[error("the key of the proof cannot be used")]
    Key,
    /// The header tells the private key.
    #[error("the proof tells its private key")]
    PrivateKey,
    /// The token is bound to another key.
    #[error("the token is bound to another key")]
    OtherKey,
    /// `htm` is another method.
    #[error("the proof is for another method")]
    Method,
    /// `htu` is another address.
    #[error("the proof is for another address")]
    Target,
    /// `ath` is that of another token, or absent.
    #[error("the proof is for another token")]
    Token,
    /// `iat` lies ahead, or too long ago.
    #[error("the proof was not made just now")]
    Age,
    /// `nonce` is absent, or none that was given out lately.
    #[error("the proof needs a fresh nonce")]
    Nonce,
    /// The signature is not that of the key.
    #[error("the signature of the proof is wrong")]
    Signature,
    /// It came before.
    #[error("the proof was used before")]
    Replayed,
    /// There is no room to remember it: 503, since the fault is not the client's.
    #[error("no more proofs can be remembered")]
    NoRoom,
}

impl ProofError {
    /// The stable code for logs.
    pub const fn code(self) -> &'static str {
        match self {
            Self::Missing => "proof-missing",
            Self::TooLong => "proof-too-long",
            Self::Malformed => "proof-malformed",
            Self::Type => "proof-type",
            Self::Algorithm => "proof-algorithm",
            Self::Key => "proof-key",
            Self::PrivateKey => "proof-private-key",
            Self::OtherKey => "proof-other-key",
            Self::Method => "proof-method",
            Self::Target => "proof-target",
            Self::Token => "proof-other-token",
            Self::Age => "proof-age",
            Self::Nonce => "proof-nonce",
            Self::Signature => "proof-signature",
            Self::Replayed => "proof-replayed",
            Self::NoRoom => "proofs-remembered",
        }
    }

    /// Whether whoever made it does not hold the key that the token is bound to.
    pub const fn is_forgery(self) -> bool {
        matches!(self, Self::OtherKey | Self::Signature)
    }
}

impl From<FormError> for ProofError {
    fn from(error: FormError) -> Self {
        match error {
            FormError::Algorithm => Self::Algorithm,
            FormError::Malformed | FormError::Duplicate | FormError::Critical => Self::Malformed,
        }
    }
}

impl From<JsonError> for ProofError {
    fn from(_: JsonError) -> Self {
        Self::Malformed
    }
}

impl From<BadClaim> for ProofError {
    fn from(_: BadClaim) -> Self {
        Self::Malformed
    }
}

/// A proof taken apart; its signature is not checked.
#[derive(Debug)]
pub struct Unproved<'a> {
    /// `alg`.
    pub algorithm: Algorithm,
    /// `jwk`: a JSON Web Key without private members.
    pub key: Claims,
    /// `jti`, never empty.
    pub id: Box<str>,
    /// `htm`.
    pub method: Box<str>,
    /// `htu`.
    pub address: Box<str>,
    /// `iat`, in Unix seconds.
    pub issued: u64,
    /// `ath`.
    pub token: Option<Box<str>>,
    /// `nonce`.
    pub nonce: Option<Box<str>>,
    /// What was signed.
    pub message: &'a [u8],
    /// The signature.
    pub signature: Vec<u8>,
}

/// Takes a proof apart (RFC 9449 §4.3, checks 2 to 7 but for the signature).
///
/// # Errors
/// Those of [`ProofError`] that are about the form.
pub fn read(proof: &[u8]) -> Result<Unproved<'_>, ProofError> {
    if proof.len() > MAX_PROOF_BYTES {
        return Err(ProofError::TooLong);
    }
    let text = std::str::from_utf8(proof).map_err(|_| ProofError::Malformed)?;
    let parts = jws::split(text)?;
    let fields = parse_object(&jws::decode(parts.header)?)?;
    let header = jws::read_header(&fields)?;
    if header.media_type.as_deref() != Some("dpop+jwt") {
        return Err(ProofError::Type);
    }
    let key = public_key(fields)?;
    let claims = parse_object(&jws::decode(parts.claims)?)?;
    let signature = jws::decode(parts.signature)?;
    if signature.is_empty() {
        return Err(ProofError::Malformed);
    }
    proof_of(&header, key, &claims).map(|mut proof| {
        proof.message = parts.message.as_bytes();
        proof.signature = signature;
        proof
    })
}

fn public_key(mut fields: Claims) -> Result<Claims, ProofError> {
    let Some(serde_json::Value::Object(key)) = fields.remove("jwk") else {
        return Err(ProofError::Key);
    };
    if PRIVATE.iter().any(|name| key.contains_key(*name)) {
        return Err(ProofError::PrivateKey);
    }
    Ok(key)
}

fn proof_of<'a>(header: &Header, key: Claims, claims: &Claims) -> Result<Unproved<'a>, ProofError> {
    let text = |name| claims::string(claims, name);
    let needed = |name| {
        text(name)?
            .filter(|text| !text.is_empty())
            .ok_or(ProofError::Malformed)
    };
    Ok(Unproved {
        algorithm: header.algorithm,
        key,
        id: needed("jti")?.into(),
        method: needed("htm")?.into(),
        address: needed("htu")?.into(),
        issued: claims::seconds(claims, "iat")?.ok_or(ProofError::Malformed)?,
        token: text("ath")?.map(Box::from),
        nonce: text("nonce")?.map(Box::from),
        message: &[],
        signature: Vec::new(),
    })
}

/// The request that a proof must be about.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// Its method.
    pub method: &'a Method,
    /// How the client came.
    pub scheme: Scheme,
    /// The host that it asked.
    pub authority: &'a Authority,
    /// Its path, as it was judged.
    pub target: &'a Target,
}

impl Request<'_> {
    /// Whether the proof was made for this method and address (RFC 9449 §4.3, checks 8 and 9).
    ///
    /// # Errors
    /// [`ProofError::Method`] and [`ProofError::Target`].
    pub fn is_meant_by(&self, proof: &Unproved<'_>) -> Result<(), ProofError> {
        if *proof.method != *self.method.as_str() {
            return Err(ProofError::Method);
        }
        if self.is_at(&proof.address) {
            Ok(())
        } else {
            Err(ProofError::Target)
        }
    }

    /// Compared in normal form (RFC 3986 §6.2.2, §6.2.3), without query and fragment. Both sides go through the reader
    /// that judged the request, so nothing is equal here that would be two resources there.
    fn is_at(&self, address: &str) -> bool {
        let Some((scheme, rest)) = address.split_once("://") else {
            return false;
        };
        let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        let (authority, rest) = rest.split_at(end);
        scheme.eq_ignore_ascii_case(self.scheme.as_str())
            && self.is_host(authority)
            && self.is_path(rest.split(['?', '#']).next().unwrap_or_default())
    }

    fn is_host(&self, authority: &str) -> bool {
        let usual = match self.scheme {
            Scheme::Http => 80,
            Scheme::Https => 443,
        };
        Authority::parse(authority.as_bytes()).is_ok_and(|authority| {
            authority.host() == self.authority.host()
                && authority.port().unwrap_or(usual) == self.authority.port().unwrap_or(usual)
        })
    }

    fn is_path(&self, path: &str) -> bool {
        let path = if path.is_empty() { "/" } else { path };
        path == self.target.path()
            || PathAndQuery::from_str(path)
                .ok()
                .and_then(|path| Target::parse(&path).ok())
                .is_some_and(|target| target.path() == self.target.path())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::identity::minting::encode;

    fn header() -> Value {
        json!({"typ": "dpop+jwt", "alg": "ES256", "jwk": {"kty": "EC", "crv": "P-256", "x": "x", "y": "y"}})
    }

    fn claims() -> Value {
        json!({"jti": "1", "htm": "GET", "htu": "https://app.example/api", "iat": 1000, "ath": "t", "nonce": "n"})
    }

    fn text(header: &Value, claims: &Value) -> String {
        let part = |value: &Value| encode(value.to_string());
        format!("{}.{}.c2ln", part(header), part(claims))
    }

    fn changed(mut value: Value, name: &str, member: Value) -> Value {
        if member.is_null() {
            value.as_object_mut().unwrap().remove(name);
        } else {
            value[name] = member;
        }
        value
    }

    #[test]
    fn a_proof_is_read() {
        let text = text(&header(), &claims());
        let proof = read(text.as_bytes()).unwrap();
        assert_eq!(proof.algorithm, Algorithm::Es256);
        assert_eq!((&*proof.id, &*proof.method), ("1", "GET"));
        assert_eq!(&*proof.address, "https://app.example/api");
        assert_eq!(proof.issued, 1000);
        assert_eq!(proof.token.as_deref(), Some("t"));
        assert_eq!(proof.nonce.as_deref(), Some("n"));
        assert_eq!(proof.key["kty"], "EC");
        assert_eq!(proof.message, text.rsplit_once('.').unwrap().0.as_bytes());
        assert_eq!(proof.signature, b"sig");
    }

    #[test]
    fn headers_that_are_refused() {
        use ProofError::{Algorithm, Key, Malformed, PrivateKey, Type};
        let private = |name: &str| {
            let mut header = header();
            header["jwk"][name] = "AA".into();
            header
        };
        for (header, error) in [
            (changed(header(), "typ", Value::Null), Type),
            (changed(header(), "typ", "JWT".into()), Type),
            (changed(header(), "typ", "at+jwt".into()), Type),
            (changed(header(), "alg", "none".into()), Algorithm),
            (changed(header(), "alg", Value::Null), Algorithm),
            (changed(header(), "jwk", Value::Null), Key),
            (changed(header(), "jwk", "x".into()), Key),
            (changed(header(), "crit", json!(["x"])), Malformed),
            (private("d"), PrivateKey),
            (private("p"), PrivateKey),
            (private("oth"), PrivateKey),
            (private("k"), PrivateKey),
        ] {
            let text = text(&header, &claims());
            assert_eq!(read(text.as_bytes()).unwrap_err(), error, "{header}");
        }
    }

    #[test]
    fn claims_that_are_refused() {
        for (name, member) in [
            ("jti", Value::Null),
            ("jti", "".into()),
            ("jti", 7.into()),
            ("htm", Value::Null),
            ("htm", json!(["GET"])),
            ("htu", Value::Null),
            ("htu", 7.into()),
            ("iat", Value::Null),
            ("iat", "1000".into()),
            ("iat", (-1).into()),
            ("ath", 7.into()),
            ("nonce", 7.into()),
        ] {
            let claims = changed(claims(), name, member);
            let text = text(&header(), &claims);
            let error = read(text.as_bytes()).unwrap_err();
            assert_eq!(error, ProofError::Malformed, "{claims}");
        }
    }

    #[test]
    fn forms_that_are_refused() {
        let good = text(&header(), &claims());
        let (message, _) = good.rsplit_once('.').unwrap();
        for bad in [
            String::new(),
            message.to_owned(),
            format!("{message}."),
            format!("{good}.x"),
            format!("{good}, {good}"),
            format!("{good} "),
        ] {
            let error = read(bad.as_bytes()).unwrap_err();
            assert_eq!(error, ProofError::Malformed, "{bad}");
        }
        assert_eq!(read(b"\xff.\xff.\xff").unwrap_err(), ProofError::Malformed);
        let long = vec![b'a'; MAX_PROOF_BYTES + 1];
        assert_eq!(read(&long).unwrap_err(), ProofError::TooLong);
        assert_eq!(read(&long[1..]).unwrap_err(), ProofError::Malformed);
        let twice = r#"{"jti":"1","jti":"2","htm":"GET","htu":"x","iat":1}"#;
        let (head, _) = good.split_once('.').unwrap();
        let twice = format!("{head}.{}.c2ln", encode(twice));
        assert_eq!(read(twice.as_bytes()).unwrap_err(), ProofError::Malformed);
    }

    fn is_at(scheme: Scheme, host: &str, path: &str, address: &str) -> bool {
        let authority = Authority::parse(host.as_bytes()).unwrap();
        let target = Target::parse(&path.parse().unwrap()).unwrap();
        let request = Request {
            method: &Method::GET,
            scheme,
            authority: &authority,
            target: &target,
        };
        request.is_at(address)
    }

    #[test]
    fn addresses_are_compared_in_normal_form() {
        for same in [
            "https://app.example/a/b",
            "HTTPS://APP.example:443/a/b",
            "https://app.example./a/b",
            "https://app.example/a/b?query=1#fragment",
            "https://app.example/a/%62",
            "https://app.example/x/../a/./b",
        ] {
            assert!(
                is_at(Scheme::Https, "app.example", "/a/b?c=d", same),
                "{same}"
            );
        }
        for other in [
            "http://app.example/a/b",
            "https://app.example:8443/a/b",
            "https://app.example/a/B",
            "https://app.example/a/b/",
            "https://app.example/a",
            "https://app.example",
            "https://other.example/a/b",
            "https://app.example@other.example/a/b",
            "https://user@app.example/a/b",
            "https://app.example\\/a/b",
            "https:/app.example/a/b",
            "https://app.example/a/b%2f",
            "https://app.example/a/b%00",
            "//app.example/a/b",
            "/a/b",
            "",
        ] {
            assert!(
                !is_at(Scheme::Https, "app.example", "/a/b", other),
                "{other}"
            );
        }
    }

    #[test]
    fn ports_and_empty_paths() {
        let http = |host, address| is_at(Scheme::Http, host, "/", address);
        assert!(http("app.example:80", "http://app.example"));
        assert!(http("app.example", "http://app.example:80/?x"));
        assert!(http("app.example:8080", "http://app.example:8080#x"));
        assert!(http("[2001:db8::1]:8080", "http://[2001:DB8:0::1]:8080/"));
        assert!(!http("app.example:8080", "http://app.example"));
        assert!(!http("app.example", "http://app.example:443"));
    }
}
