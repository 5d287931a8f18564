//! What the gate tells a backend of who asks, signed: a token (RFC 7519) for one request to one upstream, which a request
//! that came past the gate cannot have. For the forwarding stage.
//!
//! It is ES256 and nothing else: with a shared secret every backend that can check a statement could also make one for the
//! others. The keys that check it are published as a JSON Web Key Set (RFC 7517 §5). It is no access token, and its type says so.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use bytes::Bytes;
use http::HeaderValue;
use serde::Serialize;
use serde_json::{Value, json};

use super::{claims::Claims, thumbprint::thumbprint};
use crate::{
    crypto::{
        rng,
        signing::{SigningKey, SigningKeyError},
    },
    exchange::{Exchange, principal::Principal},
    state::clock,
};

/// The type of a statement (RFC 8725 §3.11): nobody takes it for an access token.
const TYPE: &str = "gate-identity+jwt";

/// A key that signs statements, with the name and the public half that it is published under.
#[derive(Debug)]
pub struct StatementKey {
    key: SigningKey,
    /// Its thumbprint (RFC 7638).
    name: String,
    jwk: Claims,
    /// The header of every statement, encoded, with the dot after it.
    header: String,
}

impl StatementKey {
    /// A key of this process alone.
    pub fn generate() -> Self {
        Self::of(SigningKey::generate())
    }

    /// The key of a PEM file.
    ///
    /// # Errors
    /// See [`SigningKey::from_pem`].
    pub fn from_pem(pem: &[u8]) -> Result<Self, SigningKeyError> {
        SigningKey::from_pem(pem).map(Self::of)
    }

    fn of(key: SigningKey) -> Self {
        let (x, y) = key.public();
        let (x, y) = (URL_SAFE_NO_PAD.encode(x), URL_SAFE_NO_PAD.encode(y));
        let mut jwk = Claims::new();
        for (name, value) in [("kty", "EC"), ("crv", "P-256"), ("x", &x), ("y", &y)] {
            jwk.insert(name.to_owned(), value.into());
        }
        let name = thumbprint(&jwk).expect("all that a thumbprint is taken over stands there");
        let name = URL_SAFE_NO_PAD.encode(name);
        for (member, value) in [("kid", &*name), ("use", "sig"), ("alg", "ES256")] {
            jwk.insert(member.to_owned(), value.into());
        }
        let header = json!({"alg": "ES256", "typ": TYPE, "kid": name}).to_string();
        Self {
            header: URL_SAFE_NO_PAD.encode(header) + ".",
            key,
            name,
            jwk,
        }
    }

    /// The claims as a signed token in compact form.
    fn sign(&self, claims: &[u8]) -> String {
        let mut token = String::with_capacity(self.header.len() + claims.len() * 4 / 3 + 100);
        token.push_str(&self.header);
        URL_SAFE_NO_PAD.encode_string(claims, &mut token);
        let signature = self.key.sign(token.as_bytes());
        token.push('.');
        URL_SAFE_NO_PAD.encode_string(signature, &mut token);
        token
    }
}

/// The keys that sign, signed lately or will sign; outlives a reload.
#[derive(Debug, Default)]
pub struct StatementKeys {
    made: OnceLock<Arc<StatementKey>>,
    listed: Mutex<Listed>,
}

#[derive(Debug, Default)]
struct Listed {
    /// The one that signs first, then those that the file lists beside it.
    stated: Vec<Arc<StatementKey>>,
    /// The one that signed before.
    former: Option<Arc<StatementKey>>,
}

impl StatementKeys {
    /// The key of this process, made when it is first needed.
    pub fn made(&self) -> Arc<StatementKey> {
        let make = || Arc::new(StatementKey::generate());
        Arc::clone(self.made.get_or_init(make))
    }

    /// Puts keys to use, of which the first signs. The one that signed before stays published, for statements that are
    /// under way.
    pub fn keep(&self, keys: &[Arc<StatementKey>]) {
        let mut listed = self.listed.lock().unwrap_or_else(PoisonError::into_inner);
        let name = |keys: &[Arc<StatementKey>]| keys.first().map(|key| key.name.clone());
        if name(&listed.stated) != name(keys) {
            listed.former = listed.stated.first().cloned();
        }
        listed.stated = keys.to_vec();
    }

    /// The public halves as a JSON Web Key Set; `None` where no key was ever put to use.
    pub fn published(&self) -> Option<String> {
        let listed = self.listed.lock().unwrap_or_else(PoisonError::into_inner);
        let mut keys: Vec<&StatementKey> = Vec::new();
        for key in listed.stated.iter().chain(&listed.former) {
            if !keys.iter().any(|other| other.name == key.name) {
                keys.push(key);
            }
        }
        let jwks: Vec<Value> = keys.iter().map(|key| key.jwk.clone().into()).collect();
        (!jwks.is_empty()).then(|| json!({ "keys": jwks }).to_string())
    }
}

/// What all statements have in common.
#[derive(Debug)]
pub struct Statements {
    /// The claim `iss`.
    pub issuer: Box<str>,
    /// Seconds from `iat` to `exp`.
    pub lifetime: u64,
    /// What signs them, and after it what is only published. Never empty.
    pub keys: Vec<Arc<StatementKey>>,
}

/// Of which requests a backend is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    /// Of those whose caller is known.
    Authenticated,
    /// Of all: without a caller the statement says that the request came through the gate.
    Always,
}

/// The statements for one upstream.
#[derive(Debug)]
pub struct Voucher {
    /// What they have in common with others.
    pub statements: Arc<Statements>,
    /// The claim `aud`: the name of the upstream.
    pub audience: Arc<str>,
    /// Of which requests.
    pub told: Told,
}

#[derive(Serialize)]
struct Statement<'a> {
    iss: &'a str,
    aud: &'a str,
    iat: u64,
    exp: u64,
    jti: &'a str,
    htm: &'a str,
    htu: &'a str,
    request_id: &'a str,
    client: std::net::IpAddr,
    #[serde(flatten)]
    caller: Option<Caller<'a>>,
}

/// What is said of the caller: its name counts only together with who gave it.
#[derive(Serialize)]
struct Caller<'a> {
    #[serde(skip_serializing_if = "str::is_empty")]
    sub: &'a str,
    sub_issuer: &'a str,
    roles: &'a [Box<str>],
    scope: String,
}

impl<'a> From<&'a Principal> for Caller<'a> {
    fn from(principal: &'a Principal) -> Self {
        Self {
            sub: &principal.subject,
            sub_issuer: &principal.issuer,
            roles: &principal.roles,
            scope: principal.scopes.join(" "),
        }
    }
}

impl Voucher {
    /// The statement about a request; `None` where nothing is to be said of it.
    pub fn statement(&self, exchange: &Exchange) -> Option<HeaderValue> {
        let principal = exchange.principal.as_deref();
        if principal.is_none() && self.told == Told::Authenticated {
            return None;
        }
        let mut random = [0; 16];
        rng::fill(&mut random);
        let (scheme, host) = (exchange.scheme().as_str(), exchange.authority().as_str());
        let now = clock::unix_seconds();
        let claims = serde_json::to_vec(&Statement {
            iss: &self.statements.issuer,
            aud: &self.audience,
            iat: now,
            exp: now.saturating_add(self.statements.lifetime),
            jti: &URL_SAFE_NO_PAD.encode(random),
            htm: exchange.method().as_str(),
            htu: &[scheme, "://", host, exchange.target().path()].concat(),
            request_id: exchange.request_id.to_str().unwrap_or_default(),
            client: exchange.client,
            caller: principal.map(Caller::from),
        });
        let token = self.statements.keys.first()?.sign(&claims.ok()?);
        let mut value = HeaderValue::from_maybe_shared(Bytes::from(token)).ok()?;
        // Kept out of the tables of HTTP/2 and out of what is printed.
        value.set_sensitive(true);
        Some(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::{
        jwks::KeySet,
        jws::{Algorithm, take_apart},
    };

    fn set(json: &str) -> KeySet {
        KeySet::parse(json.as_bytes(), &Algorithm::ALL).unwrap()
    }

    #[test]
    fn what_is_signed_is_checked_by_what_is_published() {
        let keys = StatementKeys::default();
        assert_eq!(keys.published(), None);
        keys.keep(&[keys.made()]);
        let token = keys.made().sign(br#"{"sub":"alice"}"#);
        let parts = take_apart(&token).unwrap();
        assert_eq!(parts.header.media_type.as_deref(), Some(TYPE));
        assert_eq!(parts.claims["sub"], "alice");
        let set = set(&keys.published().unwrap());
        let key = set.find(parts.header.key_id.as_deref(), Algorithm::Es256);
        assert!(key.unwrap().verify(parts.message, &parts.signature));
        assert_eq!(set.len(), 1);
    }

    #[test]
    fn the_key_before_stays_listed_and_no_other() {
        let keys = StatementKeys::default();
        let all: Vec<Arc<StatementKey>> =
            (0..3).map(|_| Arc::new(StatementKey::generate())).collect();
        let listed = || {
            let set: Value = serde_json::from_str(&keys.published().unwrap()).unwrap();
            let place = |kid: &Value| all.iter().position(|key| *kid == *key.name).unwrap();
            let listed = set["keys"].as_array().unwrap().iter();
            listed.map(|key| place(&key["kid"])).collect::<Vec<_>>()
        };
        let of = |places: &[usize]| -> Vec<Arc<StatementKey>> {
            places.iter().map(|at| Arc::clone(&all[*at])).collect()
        };
        for (put, expected) in [
            (&[0][..], &[0][..]),
            (&[0], &[0]),
            (&[1], &[1, 0]),
            (&[1], &[1, 0]),
            (&[2], &[2, 1]),
            (&[2, 0], &[2, 0, 1]),
            (&[0, 2], &[0, 2]),
            (&[0], &[0, 2]),
        ] {
            keys.keep(&of(put));
            assert_eq!(listed(), expected, "{put:?}");
        }
    }

    #[test]
    fn nothing_private_is_published() {
        let keys = StatementKeys::default();
        keys.keep(&[keys.made()]);
        let set: Value = serde_json::from_str(&keys.published().unwrap()).unwrap();
        let key = set["keys"][0].as_object().unwrap();
        let names: Vec<&str> = key.keys().map(String::as_str).collect();
        assert_eq!(names, ["kty", "crv", "x", "y", "kid", "use", "alg"]);
    }
}
