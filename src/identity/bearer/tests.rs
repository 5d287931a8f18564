//! Tokens from header to principal. Names begin with the number of the case in the project's list of behaviours (`b`) or
//! attacks (`a`).

use std::sync::Arc;
use std::time::Duration;

use http::HeaderMap;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::{CredentialError, TokenError, presented, verify, well_formed};
use crate::crypto::secret::Secret;
use crate::exchange::last_token::LastToken;
use crate::exchange::principal::Principal;
use crate::identity::claims::ClaimPath;
use crate::identity::issuer::{Fetching, Issuer, IssuerConfig, IssuerRules, Issuers};
use crate::identity::issuer::{KeySource, TokenType};
use crate::identity::jws::Algorithm;
use crate::identity::minting::{KeyServer, Minter, encode, ok};

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

#[test]
fn b17_other_schemes_and_query_tokens_are_no_credential() {
    assert_eq!(credential(&HeaderMap::new(), None), Ok(None));
    assert_eq!(
        credential(&HeaderMap::new(), Some("access_token=abc")),
        Ok(None)
    );
    for other in [
        "Basic YTpi",
        "DPoP abc",
        "Bearerabc",
        "Bearers abc",
        "x",
        "",
    ] {
        assert_eq!(credential(&header_map(&[other]), None), Ok(None), "{other}");
    }
    assert_eq!(
        credential(&header_map(&["Bearer a.b.c"]), Some("q=access_token")),
        Ok(Some("a.b.c"))
    );
    assert_eq!(
        credential(&header_map(&["bEARER   a.b-_~+/c=="]), None),
        Ok(Some("a.b-_~+/c=="))
    );
}

#[test]
fn b22_a26_ambiguous_credentials_are_refused() {
    let one = |value: &str, query| credential(&header_map(&[value]), query).unwrap_err();
    assert_eq!(
        credential(&header_map(&["Bearer a", "Bearer a"]), None),
        Err(CredentialError::Repeated)
    );
    assert_eq!(
        credential(&header_map(&["Bearer a", "Basic a"]), None),
        Err(CredentialError::Repeated)
    );
    for query in [
        "access_token=b",
        "x=1&access_token=",
        "access_token",
        "acce%73s%5ftoken=b",
    ] {
        assert_eq!(
            one("Bearer a", Some(query)),
            CredentialError::TwoPlaces,
            "{query}"
        );
    }
    for value in [
        "Bearer a, Bearer b",
        "Bearer",
        "Bearer ",
        "Bearer a b",
        "Bearer a=b",
        "Bearer ==",
        "Bearer,a",
    ] {
        assert_eq!(one(value, None), CredentialError::Malformed, "{value}");
    }
    let long = |length: usize| format!("Bearer {}", "a".repeat(length));
    assert!(credential(&header_map(&[&long(8192)]), None).is_ok());
    assert_eq!(one(&long(8193), None), CredentialError::TooLong);
    assert_eq!(one(&long(65_536), None), CredentialError::TooLong);
    let bytes = http::HeaderValue::from_bytes(b"Bearer \xff").unwrap();
    let headers = HeaderMap::from_iter([(http::header::AUTHORIZATION, bytes)]);
    assert_eq!(credential(&headers, None), Err(CredentialError::Malformed));
}

#[tokio::test]
async fn every_public_algorithm_works_with_its_key() {
    for algorithm in rules().algorithms {
        let minter = Minter::new(algorithm);
        let issuer = issuer_with(rules(), &[minter.jwk("k1")]);
        let token = minter.mint("k1", &claims());
        assert_eq!(outcome(&issuer, &token).await, "verified", "{algorithm}");
        let (message, _) = token.rsplit_once('.').unwrap();
        let other = encode(Minter::new(Algorithm::Es256).sign(message.as_bytes()));
        assert_eq!(
            outcome(&issuer, &format!("{message}.{other}")).await,
            "signature",
            "{algorithm}"
        );
    }
}

#[tokio::test]
async fn shared_secrets_work_by_explicit_choice() {
    for algorithm in [Algorithm::Hs256, Algorithm::Hs384, Algorithm::Hs512] {
        let minter = Minter::new(algorithm);
        let Minter::Secret(secret, _) = &minter else {
            unreachable!()
        };
        let rules = IssuerRules {
            algorithms: vec![algorithm],
            ..rules()
        };
        let keys = KeySource::Secret(Secret::new(secret.clone()));
        let issuer = Issuer::new(IssuerConfig::new(rules, keys)).unwrap();
        assert_eq!(
            outcome(&issuer, &minter.mint("any", &claims())).await,
            "verified"
        );
        let forger = Minter::new(algorithm);
        assert_eq!(
            outcome(&issuer, &forger.mint("any", &claims())).await,
            "signature"
        );
    }
}

#[tokio::test]
async fn the_principal_carries_what_the_token_says() {
    let (minter, issuer) = pair();
    let token = minter.mint(
        "k1",
        &claims_with(&json!({
            "realm_access": {"roles": ["reader", "admin"]}, "groups": "staff admin", "https://ns/roles": ["x,y"],
            "scope": "api.read api.write", "scp": "ignored", "acr": "mfa", "auth_time": NOW - 5, "amr": ["pwd", "otp"],
        })),
    );
    let principal = check(&issuer, &token).await.unwrap();
    assert_eq!(&*principal.subject, "alice");
    assert_eq!(&*principal.issuer, "corp");
    assert_eq!(
        principal.roles,
        ["reader", "admin", "staff", "x,y"].map(Box::from)
    );
    assert_eq!(principal.scopes, ["api.read", "api.write"].map(Box::from));
    assert_eq!(
        (principal.acr.as_deref(), principal.auth_time),
        (Some("mfa"), Some(NOW - 5))
    );
    assert_eq!(principal.amr, ["pwd", "otp"].map(Box::from));
    assert_eq!(principal.expires, NOW + 660);
    assert_eq!(
        principal.headers.roles.as_ref().unwrap(),
        "reader,admin,staff,x%2Cy"
    );
    assert_eq!(
        principal.headers.scopes.as_ref().unwrap(),
        "api.read,api.write"
    );
    assert!(!format!("{principal:?}").contains("auth_time"));

    let scp = check(
        &issuer,
        &minter.mint("k1", &claims_with(&json!({"scp": ["a", "b"], "sub": null}))),
    )
    .await
    .unwrap();
    assert_eq!(scp.scopes, ["a", "b"].map(Box::from));
    assert_eq!(scp.headers.subject, None);
}

#[tokio::test]
async fn b18_a22_the_algorithm_is_that_of_the_list_and_of_the_key() {
    let rsa = Minter::new(Algorithm::Rs256);
    let issuer = issuer_with(rules(), &[rsa.jwk("k1")]);
    let none = format!(
        "{}.{}.",
        encode(r#"{"alg":"none"}"#),
        encode(claims().to_string())
    );
    assert_eq!(outcome(&issuer, &none).await, "algorithm");
    let signed_none = rsa.raw(r#"{"alg":"none","kid":"k1"}"#, &claims().to_string());
    assert_eq!(outcome(&issuer, &signed_none).await, "algorithm");

    // HMAC keyed with what is public: the modulus, the whole JWK, PEM-like text.
    let jwk = rsa.jwk("k1");
    let pem = format!(
        "-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n",
        jwk["n"].as_str().unwrap()
    );
    for secret in [
        pem.into_bytes(),
        jwk.to_string().into_bytes(),
        jwk["n"].to_string().into_bytes(),
    ] {
        let forger = Minter::Secret(secret, Algorithm::Hs256);
        assert_eq!(
            outcome(&issuer, &forger.mint("k1", &claims())).await,
            "algorithm"
        );
    }
    // The key is RSA, the token says ES256 with the key's id.
    let ec = Minter::new(Algorithm::Es256);
    assert_eq!(
        outcome(&issuer, &ec.mint("k1", &claims())).await,
        "algorithm"
    );
    // A key that names its algorithm is for no other.
    let mut bound = rsa.jwk("k1");
    bound["alg"] = "PS256".into();
    let issuer = issuer_with(rules(), &[bound]);
    assert_eq!(
        outcome(&issuer, &rsa.mint("k1", &claims())).await,
        "algorithm"
    );
    // Not on the issuer's list.
    let narrow = IssuerRules {
        algorithms: vec![Algorithm::Ps256],
        ..rules()
    };
    let issuer = issuer_with(narrow, &[rsa.jwk("k1")]);
    assert_eq!(
        outcome(&issuer, &rsa.mint("k1", &claims())).await,
        "algorithm"
    );
}

#[tokio::test]
async fn a22_a_published_symmetric_key_is_never_used() {
    let secret = Minter::new(Algorithm::Hs256);
    let ec = Minter::new(Algorithm::Es256);
    let issuer = issuer_with(rules(), &[secret.jwk("k1"), ec.jwk("k2")]);
    assert_eq!(
        outcome(&issuer, &secret.mint("k1", &claims())).await,
        "algorithm"
    );
}

#[tokio::test]
async fn b19_times() {
    let (minter, issuer) = pair();
    for (changes, expected) in [
        (json!({"exp": NOW - 61}), "expired"),
        (json!({"exp": NOW - 60}), "expired"),
        (json!({"exp": NOW - 59}), "verified"),
        (json!({"exp": NOW + 1, "nbf": NOW + 61}), "not-yet-valid"),
        (json!({"nbf": NOW + 60}), "verified"),
        (json!({"iat": NOW + 61}), "not-yet-valid"),
        (json!({"iat": NOW - 86_400 - 60}), "too-old"),
        (json!({"iat": NOW - 86_400 - 59}), "verified"),
        (json!({"exp": format!("{}", NOW + 600)}), "bad-claim"),
        (json!({"nbf": format!("{}", NOW - 600)}), "bad-claim"),
        (json!({"iat": [NOW]}), "bad-claim"),
        (json!({"exp": -1}), "bad-claim"),
        (json!({"exp": 1e300}), "bad-claim"),
        (json!({"exp": null}), "missing-claim"),
    ] {
        assert_eq!(
            outcome(&issuer, &minter.mint("k1", &claims_with(&changes))).await,
            expected,
            "{changes}"
        );
    }
    let huge = minter.raw(
        r#"{"alg":"ES256","kid":"k1"}"#,
        &format!(r#"{{"iss":"{ISS}","aud":"portcullis","exp":1e999}}"#),
    );
    assert_eq!(outcome(&issuer, &huge).await, "malformed");
    let null = minter.raw(
        r#"{"alg":"ES256","kid":"k1"}"#,
        &format!(r#"{{"iss":"{ISS}","aud":"portcullis","exp":null}}"#),
    );
    assert_eq!(outcome(&issuer, &null).await, "bad-claim");
}

#[tokio::test]
async fn b20_a23_issuer_and_audience_are_mandatory() {
    let (minter, issuer) = pair();
    for (changes, expected) in [
        (json!({"aud": null}), "missing-claim"),
        (json!({"iss": null}), "missing-claim"),
        (json!({"aud": ["other", "portcullis"]}), "verified"),
        (json!({"aud": ["other"]}), "audience"),
        (json!({"aud": []}), "audience"),
        (json!({"aud": "Portcullis"}), "audience"),
        (json!({"aud": "portcullis "}), "audience"),
        (json!({"aud": ["portcullis", 1]}), "bad-claim"),
        (json!({"aud": {"portcullis": 1}}), "bad-claim"),
        (json!({"iss": format!("{ISS}/")}), "issuer"),
        (json!({"iss": [ISS]}), "bad-claim"),
        (json!({"sub": ["alice"]}), "bad-claim"),
        (json!({"sub": 7}), "bad-claim"),
        (
            json!({"realm_access": {"roles": {"admin": true}}}),
            "bad-claim",
        ),
        (json!({"groups": ["a", 1]}), "bad-claim"),
        (json!({"scope": 1}), "bad-claim"),
    ] {
        assert_eq!(
            outcome(&issuer, &minter.mint("k1", &claims_with(&changes))).await,
            expected,
            "{changes}"
        );
    }
}

#[tokio::test]
async fn a23_duplicate_names_are_refused_although_the_signature_holds() {
    let (minter, issuer) = pair();
    let header = r#"{"alg":"ES256","kid":"k1"}"#;
    let doubled = |more: &str| {
        format!(
            r#"{{"iss":"{ISS}","aud":"portcullis","exp":{},{more}}}"#,
            NOW + 600
        )
    };
    assert_eq!(
        outcome(
            &issuer,
            &minter.raw(header, &doubled(r#""role":"user","role":"admin""#))
        )
        .await,
        "duplicate-claim"
    );
    assert_eq!(
        outcome(
            &issuer,
            &minter.raw(header, &doubled(r#""a":{"r":1,"r":2}"#))
        )
        .await,
        "duplicate-claim"
    );
    let twice = r#"{"alg":"ES256","kid":"k1","kid":"k1"}"#;
    assert_eq!(
        outcome(&issuer, &minter.raw(twice, &claims().to_string())).await,
        "duplicate-claim"
    );
}

#[tokio::test]
async fn b21_types_of_token() {
    let minter = Minter::new(Algorithm::Es256);
    let any = issuer_with(rules(), &[minter.jwk("k1")]);
    let strict = issuer_with(
        IssuerRules {
            token_type: TokenType::AtJwt,
            ..rules()
        },
        &[minter.jwk("k1")],
    );
    for (typ, with_any, with_strict) in [
        (json!("JWT"), "verified", "type"),
        (json!("at+jwt"), "verified", "verified"),
        (json!("AT+JWT"), "verified", "verified"),
        (json!("application/at+jwt"), "verified", "verified"),
        (json!("logout+jwt"), "type", "type"),
        (json!("dpop+jwt"), "type", "type"),
        (json!("id_token+jwt"), "type", "type"),
        (json!("secevent+jwt"), "type", "type"),
        (json!(1), "malformed", "malformed"),
    ] {
        let header = json!({"alg": "ES256", "kid": "k1", "typ": typ});
        let token = minter.raw(&header.to_string(), &claims().to_string());
        assert_eq!(outcome(&any, &token).await, with_any, "{typ}");
        assert_eq!(outcome(&strict, &token).await, with_strict, "{typ}");
    }
    let untyped = minter.raw(r#"{"alg":"ES256","kid":"k1"}"#, &claims().to_string());
    assert_eq!(outcome(&any, &untyped).await, "verified");
    assert_eq!(outcome(&strict, &untyped).await, "type");
    for (marks, expected) in [
        (json!({"nonce": "n"}), "type"),
        (json!({"at_hash": "h"}), "type"),
        (json!({"c_hash": "h"}), "type"),
        (json!({"typ": "ID"}), "type"),
        (json!({"typ": "Refresh"}), "type"),
        (json!({"events": {}}), "type"),
        (json!({"typ": "Bearer", "nonce": "n"}), "verified"),
    ] {
        assert_eq!(
            outcome(&any, &minter.mint("k1", &claims_with(&marks))).await,
            expected,
            "{marks}"
        );
    }
}

#[tokio::test]
async fn b25_a22_the_header_points_nowhere() {
    let server = KeyServer::with_keys(&[]).await;
    let (minter, issuer) = pair();
    let evil = Minter::new(Algorithm::Es256);
    let header = json!({"alg": "ES256", "kid": "k1", "jku": server.url, "x5u": server.url, "jwk": evil.jwk("k1")}).to_string();
    assert_eq!(
        outcome(&issuer, &minter.raw(&header, &claims().to_string())).await,
        "verified"
    );
    assert_eq!(
        outcome(&issuer, &evil.raw(&header, &claims().to_string())).await,
        "signature"
    );
    assert_eq!(server.requests(), 0);
    for critical in [
        json!({"crit": ["x"], "x": 1}),
        json!({"b64": false}),
        json!({"crit": ["b64"], "b64": false}),
    ] {
        let mut header = json!({"alg": "ES256", "kid": "k1"});
        header
            .as_object_mut()
            .unwrap()
            .extend(critical.as_object().unwrap().clone());
        assert_eq!(
            outcome(
                &issuer,
                &minter.raw(&header.to_string(), &claims().to_string())
            )
            .await,
            "critical"
        );
    }
    assert_eq!(
        outcome(&issuer, &minter.mint("../../dev/null", &claims())).await,
        "unknown-key"
    );
}

#[tokio::test]
async fn a_token_without_key_id_needs_one_fitting_key() {
    let (first, second) = (Minter::new(Algorithm::Es256), Minter::new(Algorithm::Es256));
    let rsa = Minter::new(Algorithm::Rs256);
    let token = first.raw(r#"{"alg":"ES256"}"#, &claims().to_string());
    let one = issuer_with(rules(), &[rsa.jwk("r"), first.jwk("k1")]);
    assert_eq!(outcome(&one, &token).await, "verified");
    let two = issuer_with(rules(), &[first.jwk("k1"), second.jwk("k2")]);
    assert_eq!(outcome(&two, &token).await, "unknown-key");
    let twins = issuer_with(rules(), &[second.jwk("k1"), first.jwk("k1")]);
    assert_eq!(
        outcome(&twins, &first.mint("k1", &claims())).await,
        "unknown-key"
    );
}

#[tokio::test]
async fn b26_a_sender_constrained_token_is_not_a_plain_bearer_token() {
    let (minter, issuer) = pair();
    for cnf in [json!({"jkt": "x"}), json!({"x5t#S256": "x"}), json!({})] {
        let token = minter.mint("k1", &claims_with(&json!({ "cnf": cnf })));
        assert_eq!(
            check(&issuer, &token).await.unwrap_err(),
            TokenError::BadClaim("cnf")
        );
    }
}

#[tokio::test]
async fn the_issuer_is_picked_by_name_and_never_tried() {
    let (ours, theirs) = (Minter::new(Algorithm::Es256), Minter::new(Algorithm::Es256));
    let a = issuer_with(rules(), &[ours.jwk("k1")]);
    let b = issuer_with(
        IssuerRules::new("partner", "https://partner.example", &["portcullis"]),
        &[theirs.jwk("k1")],
    );
    let both = [a, b];
    let partner = claims_with(&json!({"iss": "https://partner.example"}));
    assert_eq!(
        &*verify(&ours.mint("k1", &claims()), &both, NOW)
            .await
            .unwrap()
            .issuer,
        "corp"
    );
    assert_eq!(
        &*verify(&theirs.mint("k1", &partner), &both, NOW)
            .await
            .unwrap()
            .issuer,
        "partner"
    );
    assert_eq!(
        verify(&theirs.mint("k1", &claims()), &both, NOW)
            .await
            .unwrap_err(),
        TokenError::Signature
    );
    assert_eq!(
        verify(&ours.mint("k1", &partner), &both, NOW)
            .await
            .unwrap_err(),
        TokenError::Signature
    );
    // A verified token is no pass for a route that does not accept its issuer.
    let token = ours.mint("k1", &claims());
    verify(&token, &both, NOW).await.unwrap();
    assert_eq!(
        verify(&token, &both[1..], NOW).await.unwrap_err(),
        TokenError::Issuer
    );
    assert_eq!(
        verify(&token, &[], NOW).await.unwrap_err(),
        TokenError::Issuer
    );
}

#[tokio::test]
async fn b22_a_token_over_the_limit_costs_nothing() {
    let (minter, _) = pair();
    let small = IssuerRules {
        max_token_bytes: 200,
        ..rules()
    };
    let issuer = issuer_with(small, &[minter.jwk("k1")]);
    assert_eq!(
        outcome(&issuer, &minter.mint("k1", &claims())).await,
        "too-long"
    );
    assert_eq!(outcome(&issuer, &"a".repeat(8193)).await, "too-long");
    assert!(recall("a".repeat(65_536).as_bytes(), &[issuer], NOW).is_none());
}

#[tokio::test]
async fn a25_a_verified_token_is_remembered_whole_and_until_it_expires() {
    let (minter, issuer) = pair();
    let token = minter.mint("k1", &claims());
    let issuers = [Arc::clone(&issuer)];
    assert!(recall(token.as_bytes(), &issuers, NOW).is_none());
    let first = check(&issuer, &token).await.unwrap();
    assert!(Arc::ptr_eq(
        &first,
        &recall(token.as_bytes(), &issuers, NOW).unwrap()
    ));
    assert!(Arc::ptr_eq(&first, &check(&issuer, &token).await.unwrap()));
    // Another signature over the same claims, or the same signature over others, is another token.
    let (message, _) = token.rsplit_once('.').unwrap();
    assert_eq!(
        outcome(&issuer, &format!("{message}.{}", encode([1; 64]))).await,
        "signature"
    );
    assert!(recall(token.as_bytes(), &issuers, NOW + 659).is_some());
    assert!(recall(token.as_bytes(), &issuers, NOW + 660).is_none());
    assert_eq!(
        verify(&token, &issuers, NOW + 660).await.unwrap_err(),
        TokenError::Expired
    );
    assert_eq!(issuer.tokens.len(), 1);
}

#[tokio::test]
async fn a25_the_greatest_age_ends_a_remembered_token_too() {
    let (minter, issuer) = pair();
    let token = minter.mint(
        "k1",
        &claims_with(&json!({"iat": NOW - 86_400, "exp": NOW + 999})),
    );
    assert_eq!(check(&issuer, &token).await.unwrap().expires, NOW + 60);
    assert_eq!(
        verify(&token, &[issuer], NOW + 60).await.unwrap_err(),
        TokenError::TooOld
    );
}

#[tokio::test]
async fn a25_a_key_that_left_the_file_takes_its_tokens_with_it() {
    let (old, new) = (Minter::new(Algorithm::Es256), Minter::new(Algorithm::Es256));
    let file = tempfile::NamedTempFile::new().unwrap();
    let write =
        |keys: &[Value]| std::fs::write(file.path(), json!({ "keys": keys }).to_string()).unwrap();
    write(&[old.jwk("k1"), new.jwk("k2")]);
    let issuer = Issuer::new(IssuerConfig::new(
        rules(),
        KeySource::File(file.path().to_owned()),
    ))
    .unwrap();
    let token = old.mint("k1", &claims());
    check(&issuer, &token).await.unwrap();
    assert!(!issuer.reload_file().unwrap());
    assert!(recall(token.as_bytes(), std::slice::from_ref(&issuer), NOW).is_some());
    std::fs::write(file.path(), "{").unwrap();
    assert!(issuer.reload_file().is_err());
    assert_eq!(outcome(&issuer, &token).await, "verified");
    write(&[new.jwk("k2")]);
    assert!(issuer.reload_file().unwrap());
    assert_eq!(outcome(&issuer, &token).await, "unknown-key");
    assert_eq!(
        outcome(&issuer, &new.mint("k2", &claims())).await,
        "verified"
    );
}

/// A connection on which the token came often enough to be known by its bytes.
fn connection_that_knows(token: &str, issuers: &[Arc<Issuer>]) -> LastToken {
    let last = LastToken::default();
    for _ in 0..2 {
        assert!(super::recall(token.as_bytes(), &last, issuers, NOW).is_some());
    }
    assert!(last.proof_of(token.as_bytes()).is_some());
    last
}

#[tokio::test]
async fn a25_what_a_connection_remembers_is_the_whole_token_until_it_expires() {
    let (minter, issuer) = pair();
    let token = minter.mint("k1", &claims());
    let issuers = [Arc::clone(&issuer)];
    let first = check(&issuer, &token).await.unwrap();
    let last = connection_that_knows(&token, &issuers);
    let again = |token: &str, now| super::recall(token.as_bytes(), &last, &issuers, now);
    assert!(Arc::ptr_eq(&first, &again(&token, NOW).unwrap()));
    assert!(again(&token, NOW + 659).is_some());
    assert!(again(&token, NOW + 660).is_none());
    let (message, _) = token.rsplit_once('.').unwrap();
    for other in [
        format!("{message}.{}", encode([1; 64])),
        format!("{token}="),
        token[..token.len() - 1].to_owned(),
        message.to_owned(),
    ] {
        assert!(again(&other, NOW).is_none(), "{other}");
    }
}

#[tokio::test]
async fn a25_what_a_connection_remembers_ends_with_the_keys() {
    let (old, new) = (Minter::new(Algorithm::Es256), Minter::new(Algorithm::Es256));
    let file = tempfile::NamedTempFile::new().unwrap();
    let write =
        |keys: &[Value]| std::fs::write(file.path(), json!({ "keys": keys }).to_string()).unwrap();
    write(&[old.jwk("k1"), new.jwk("k2")]);
    let config = IssuerConfig::new(rules(), KeySource::File(file.path().to_owned()));
    let issuer = Issuer::new(config).unwrap();
    let issuers = [Arc::clone(&issuer)];
    let token = old.mint("k1", &claims());
    check(&issuer, &token).await.unwrap();
    let last = connection_that_knows(&token, &issuers);
    write(&[new.jwk("k2")]);
    assert!(issuer.reload_file().unwrap());
    assert!(super::recall(token.as_bytes(), &last, &issuers, NOW).is_none());
    // The very keys of before are another version, too.
    write(&[old.jwk("k1"), new.jwk("k2")]);
    assert!(issuer.reload_file().unwrap());
    assert!(super::recall(token.as_bytes(), &last, &issuers, NOW).is_none());
    check(&issuer, &token).await.unwrap();
    assert!(super::recall(token.as_bytes(), &last, &issuers, NOW).is_some());
}

#[tokio::test]
async fn a25_what_a_connection_remembers_counts_on_routes_of_that_issuer_alone() {
    let minter = Minter::new(Algorithm::Es256);
    let keys = [minter.jwk("k1")];
    let issuer = issuer_with(rules(), &keys);
    let token = minter.mint("k1", &claims());
    check(&issuer, &token).await.unwrap();
    let last = connection_that_knows(&token, std::slice::from_ref(&issuer));
    let recalled = |issuers: &[&Arc<Issuer>]| {
        let issuers: Vec<_> = issuers.iter().map(|issuer| Arc::clone(issuer)).collect();
        super::recall(token.as_bytes(), &last, &issuers, NOW).is_some()
    };
    // Another realm; one made anew from the same part of the file; one of the same `iss` with rules of its own.
    let mut realm = rules();
    realm.issuer = "https://idp.example/realms/other".into();
    let other = issuer_with(realm, &keys);
    let anew = issuer_with(rules(), &keys);
    let mut elsewhere = rules();
    elsewhere.audience = vec!["elsewhere".into()];
    let strict = issuer_with(elsewhere, &keys);
    for stranger in [&other, &anew, &strict] {
        assert!(!recalled(&[stranger]));
    }
    assert!(!recalled(&[]));
    assert!(recalled(&[&issuer]));
    assert!(recalled(&[&other, &issuer]));
    let asked = |issuer: &Issuer| {
        let mut tokens = issuer.counts().tokens();
        tokens.find(|(outcome, _)| *outcome == "cached").unwrap().1
    };
    let before = asked(&issuer);
    // The first of one `iss` has the word: it is asked for its own table, not passed by.
    assert!(
        super::still_counts(
            last.proof_of(token.as_bytes()).unwrap(),
            &[Arc::clone(&strict), Arc::clone(&issuer)],
            NOW
        )
        .is_none()
    );
    assert_eq!(asked(&issuer), before);
}

#[tokio::test]
async fn b23_any_number_of_unknown_keys_at_once_cause_one_fetch() {
    let minter = Arc::new(Minter::new(Algorithm::Es256));
    let server = KeyServer::with_keys(&[minter.jwk("k1")]).await;
    let issuer = remote(&server, Duration::from_secs(30));
    let requests: Vec<_> = (0..1000)
        .map(|n| {
            let (minter, issuer) = (Arc::clone(&minter), Arc::clone(&issuer));
            tokio::spawn(async move {
                verify(
                    &minter.mint(&format!("r{n}"), &far_claims()),
                    &[issuer],
                    now(),
                )
                .await
            })
        })
        .collect();
    for request in requests {
        assert_eq!(request.await.unwrap().unwrap_err(), TokenError::UnknownKey);
    }
    assert_eq!(server.requests(), 1);
    assert_eq!(issuer.counts().fetches(), [("ok", 1), ("failed", 0)]);
}

#[tokio::test]
async fn b23_a_rotated_key_is_fetched_once_for_all_who_bring_it() {
    let (old, new) = (
        Minter::new(Algorithm::Es256),
        Arc::new(Minter::new(Algorithm::Es256)),
    );
    let server = KeyServer::with_keys(&[old.jwk("k1")]).await;
    let issuer = remote(&server, Duration::ZERO);
    verify(
        &old.mint("k1", &far_claims()),
        std::slice::from_ref(&issuer),
        now(),
    )
    .await
    .unwrap();
    server.answer_with(ok(&json!({"keys": [old.jwk("k1"), new.jwk("k2")]})));
    let requests: Vec<_> = (0..200)
        .map(|n| {
            let (new, issuer) = (Arc::clone(&new), Arc::clone(&issuer));
            let mut claims = far_claims();
            claims["jti"] = n.into();
            tokio::spawn(async move { verify(&new.mint("k2", &claims), &[issuer], now()).await })
        })
        .collect();
    for request in requests {
        request.await.unwrap().unwrap();
    }
    assert_eq!(server.requests(), 2);
}

#[tokio::test]
async fn a24_ten_thousand_random_key_ids_change_nothing() {
    let minter = Minter::new(Algorithm::Es256);
    let server = KeyServer::with_keys(&[minter.jwk("k1")]).await;
    let issuer = remote(&server, Duration::from_secs(30));
    let good = minter.mint("k1", &far_claims());
    verify(&good, std::slice::from_ref(&issuer), now())
        .await
        .unwrap();
    let (body, signature) = (encode(far_claims().to_string()), encode([7; 64]));
    for n in 0..10_000 {
        let header = encode(format!(r#"{{"alg":"ES256","kid":"{n}"}}"#));
        let token = format!("{header}.{body}.{signature}");
        let error = verify(&token, std::slice::from_ref(&issuer), now())
            .await
            .unwrap_err();
        assert_eq!(error, TokenError::UnknownKey);
    }
    assert_eq!(server.requests(), 1);
    assert_eq!(issuer.tokens.len(), 1);
    assert!(recall(good.as_bytes(), &[issuer], now()).is_some());
}

#[tokio::test]
async fn b24_keys_outlive_their_server_until_the_stale_limit() {
    let minter = Minter::new(Algorithm::Es256);
    let server = KeyServer::with_keys(&[minter.jwk("k1")]).await;
    let issuer = remote(&server, Duration::ZERO);
    let token = minter.mint("k1", &far_claims());
    let issuers = std::slice::from_ref(&issuer);
    verify(&token, issuers, now()).await.unwrap();
    server.answer_with("HTTP/1.1 500 Oh\r\ncontent-length: 0\r\n\r\n".to_owned());
    assert_eq!(
        verify(&minter.mint("k9", &far_claims()), issuers, now())
            .await
            .unwrap_err(),
        TokenError::UnknownKey
    );
    assert!(verify(&token, issuers, now() + 86_390).await.is_ok());
    let late = now() + 86_401;
    assert!(matches!(
        verify(&token, issuers, late).await,
        Err(TokenError::KeysUnavailable { .. })
    ));
    assert!(issuer.counts().fetches()[1].1 >= 2);
}

#[tokio::test]
async fn b24_without_any_keys_nothing_passes_and_the_wait_is_told() {
    let minter = Minter::new(Algorithm::Es256);
    let server = KeyServer::start(
        "HTTP/1.1 302 Found\r\nlocation: /x\r\ncontent-length: 0\r\n\r\n".to_owned(),
    )
    .await;
    let issuer = remote(&server, Duration::from_secs(30));
    let token = minter.mint("k1", &far_claims());
    for _ in 0..50 {
        let error = verify(&token, std::slice::from_ref(&issuer), now())
            .await
            .unwrap_err();
        let TokenError::KeysUnavailable { retry_after } = error else {
            panic!("{error}")
        };
        assert!(retry_after > Duration::ZERO && retry_after <= Duration::from_secs(5));
    }
    assert_eq!(server.requests(), 1);
}

#[tokio::test]
async fn discovery_takes_the_keys_of_the_very_issuer_only() {
    let minter = Minter::new(Algorithm::Es256);
    let keys = KeyServer::with_keys(&[minter.jwk("k1")]).await;
    for (named, works) in [(None, true), (Some("https://other.example"), false)] {
        let server = KeyServer::start(String::new()).await;
        let iss = server.url.split("/keys").next().unwrap().to_owned();
        let named = named.unwrap_or(iss.as_str());
        server.answer_with(ok(&json!({"issuer": named, "jwks_uri": keys.url})));
        let rules = IssuerRules {
            issuer: iss.clone(),
            ..remote_rules()
        };
        let source = KeySource::Discovery(fetching(Duration::from_secs(30)));
        let issuer = Issuer::new(IssuerConfig::new(rules, source)).unwrap();
        let mut claims = far_claims();
        claims["iss"] = iss.into();
        assert_eq!(
            verify(&minter.mint("k1", &claims), &[issuer], now())
                .await
                .is_ok(),
            works
        );
    }
}

#[tokio::test]
async fn a_reload_keeps_an_unchanged_issuer_and_replaces_a_changed_one() {
    let minter = Minter::new(Algorithm::Es256);
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), json!({"keys": [minter.jwk("k1")]}).to_string()).unwrap();
    let config = IssuerConfig::new(rules(), KeySource::File(file.path().to_owned()));
    let issuers = Issuers::new();
    let first = issuers.prepare(config.clone()).unwrap();
    assert_eq!(issuers.keep(vec![Arc::clone(&first)]).len(), 1);
    let token = minter.mint("k1", &claims());
    check(&first, &token).await.unwrap();

    let again = issuers.prepare(config.clone()).unwrap();
    assert!(Arc::ptr_eq(&first, &again));
    assert!(issuers.keep(vec![again]).is_empty());

    let mut changed = config;
    changed.rules.audience = vec!["other".to_owned()];
    let fresh = issuers.prepare(changed).unwrap();
    assert!(!Arc::ptr_eq(&first, &fresh));
    assert_eq!(outcome(&fresh, &token).await, "audience");
    assert!(
        Arc::ptr_eq(&issuers.list()[0], &first),
        "nothing is put to use before `keep`"
    );
    assert!(issuers.are_ready());
}

#[tokio::test]
async fn keys_are_fetched_in_the_background_until_the_issuer_is_dropped() {
    let server = KeyServer::with_keys(&[Minter::new(Algorithm::Es256).jwk("k1")]).await;
    let keys = KeySource::Url {
        url: server.url.clone(),
        fetching: Fetching {
            refresh: Duration::from_millis(5),
            floor: Duration::ZERO,
            ..Fetching::default()
        },
    };
    let issuer = Issuer::new(IssuerConfig::new(remote_rules(), keys)).unwrap();
    let task = tokio::spawn(Issuer::keep_fresh(Arc::downgrade(&issuer)));
    let waiting = async {
        while server.requests() < 3 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), waiting)
        .await
        .unwrap();
    assert!(issuer.has_keys(now()));
    drop(issuer);
    tokio::time::timeout(Duration::from_secs(10), task)
        .await
        .unwrap()
        .unwrap();
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
