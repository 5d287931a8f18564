//! Tokens from header to principal. Names begin with the number of the case in the project's list of behaviours (`b`) or
//! attacks (`a`).

use std::sync::Arc;
use std::time::Duration;

use http::HeaderMap;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::{CredentialError, TokenError, presented, well_formed};
use crate::crypto::secret::Secret;
use crate::exchange::last_token::LastToken;
use crate::exchange::principal::{Binding, Principal};
use crate::identity::claims::ClaimPath;
use crate::identity::issuer::{Fetching, Issuer, IssuerConfig, IssuerRules, Issuers};
use crate::identity::issuer::{KeySource, TokenType};
use crate::identity::jws::Algorithm;
use crate::identity::minting::{KeyServer, Minter, encode, ok};

mod agreed;
mod asked;
mod claims;
mod keys;
mod memory;
mod proof;
mod revoked;

/// The token of a request as `authn` takes it: presented, then looked at.
fn credential<'a>(
    headers: &'a HeaderMap,
    query: Option<&str>,
) -> Result<Option<&'a str>, CredentialError> {
    presented(headers, query)?.map(well_formed).transpose()
}

/// The principal as the first request of a connection finds it.
fn recall(token: &[u8], issuers: &[Arc<Issuer>], now: u64) -> Option<Arc<Principal>> {
    super::recall(token, &LastToken::default(), issuers, now)
}

const NOW: u64 = 1_800_000_000;
const ISS: &str = "https://idp.example/realms/main";

fn rules() -> IssuerRules {
    let mut rules = IssuerRules::new("corp", ISS, &["portcullis"]);
    rules.algorithms = Algorithm::ALL
        .into_iter()
        .filter(|a| !a.name().starts_with("HS"))
        .collect();
    rules.leeway = Duration::from_mins(1);
    rules.roles = ["realm_access.roles", "groups", "\"https://ns/roles\""]
        .map(|path| ClaimPath::parse(path).unwrap())
        .to_vec();
    rules
}

fn claims() -> Value {
    json!({"iss": ISS, "aud": "portcullis", "sub": "alice", "exp": NOW + 600, "iat": NOW - 10})
}

/// The usual claims, with some changed; `null` removes one.
fn claims_with(changes: &Value) -> Value {
    let mut claims = claims();
    for (name, value) in changes.as_object().unwrap().clone() {
        if value.is_null() {
            claims.as_object_mut().unwrap().remove(&name);
        } else {
            claims[name] = value;
        }
    }
    claims
}

/// An issuer whose key file holds these keys.
fn issuer_with(rules: IssuerRules, keys: &[Value]) -> Arc<Issuer> {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), json!({ "keys": keys }).to_string()).unwrap();
    Issuer::new(IssuerConfig::new(
        rules,
        KeySource::File(file.path().to_owned()),
    ))
    .unwrap()
}

/// A minter on P-256 (quick to make) and an issuer that knows its key as `k1`.
fn pair() -> (Minter, Arc<Issuer>) {
    let minter = Minter::new(Algorithm::Es256);
    let issuer = issuer_with(rules(), &[minter.jwk("k1")]);
    (minter, issuer)
}

/// Verifies for some client.
async fn verify(
    token: &str,
    issuers: &[Arc<Issuer>],
    now: u64,
) -> Result<Arc<Principal>, TokenError> {
    super::verify(token, issuers, [192, 0, 2, 7].into(), now).await
}

async fn check(issuer: &Arc<Issuer>, token: &str) -> Result<Arc<Principal>, TokenError> {
    verify(token, std::slice::from_ref(issuer), NOW).await
}

async fn outcome(issuer: &Arc<Issuer>, token: &str) -> &'static str {
    match check(issuer, token).await {
        Ok(_) => "verified",
        Err(error) => error.code(),
    }
}

fn fetching(floor: Duration) -> Fetching {
    Fetching {
        floor,
        ..Fetching::default()
    }
}

fn remote_rules() -> IssuerRules {
    // Real time passes in these tests, so the tokens are made to hold for it.
    IssuerRules {
        max_age: Duration::from_hours(1_000_000),
        ..rules()
    }
}

fn remote(server: &KeyServer, floor: Duration) -> Arc<Issuer> {
    let keys = KeySource::Url {
        url: server.url.clone(),
        fetching: fetching(floor),
    };
    Issuer::new(IssuerConfig::new(remote_rules(), keys)).unwrap()
}

fn far_claims() -> Value {
    claims_with(&json!({"exp": 5_000_000_000_u64, "iat": null}))
}

fn now() -> u64 {
    crate::state::clock::unix_seconds()
}

fn header_map(values: &[&str]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for value in values {
        headers.append("authorization", value.parse().unwrap());
    }
    headers
}

#[tokio::test]
async fn outcomes_are_counted() {
    let (minter, issuer) = pair();
    let token = minter.mint("k1", &claims());
    for _ in 0..3 {
        check(&issuer, &token).await.unwrap();
    }
    outcome(&issuer, "x").await;
    outcome(
        &issuer,
        &minter.mint("k1", &claims_with(&json!({"exp": 1}))),
    )
    .await;
    let counts: Vec<_> = issuer
        .counts()
        .tokens()
        .filter(|(_, count)| *count > 0)
        .collect();
    assert_eq!(
        counts,
        [
            ("cached", 2),
            ("verified", 1),
            ("malformed", 1),
            ("expired", 1)
        ]
    );
}

#[test]
fn errors_never_show_the_token() {
    let errors = [
        TokenError::Malformed,
        TokenError::MissingClaim("exp"),
        TokenError::BadClaim("cnf"),
    ];
    for error in errors {
        assert!(!error.to_string().contains("ey"));
        assert!(crate::identity::issuer::TOKEN_OUTCOMES.contains(&error.code()));
    }
}

proptest! {
    #[test]
    fn no_text_makes_the_reader_panic(token in "[A-Za-z0-9_.=-]{0,200}", raw in any::<Vec<u8>>()) {
        let _ = crate::identity::jws::take_apart(&token);
        let wrapped = format!("{}.{}.{}", encode(&raw), encode(&raw), encode(&raw));
        let _ = crate::identity::jws::take_apart(&wrapped);
        if let Ok(value) = http::HeaderValue::from_bytes(&raw) {
            let _ = credential(&HeaderMap::from_iter([(http::header::AUTHORIZATION, value)]), None);
        }
    }

    #[test]
    fn a_changed_letter_never_verifies(at in any::<prop::sample::Index>(), letter in "[A-Za-z0-9_.-]") {
        static PAIR: std::sync::OnceLock<(String, Arc<Issuer>)> = std::sync::OnceLock::new();
        let (token, issuer) = PAIR.get_or_init(|| {
            let (minter, issuer) = pair();
            (minter.mint("k1", &claims()), issuer)
        });
        let at = at.index(token.len());
        let mut changed = token.clone();
        changed.replace_range(at..=at, &letter);
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let verified = runtime.block_on(check(issuer, &changed)).is_ok();
        prop_assert_eq!(verified, changed == *token);
    }
}
