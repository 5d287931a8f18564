//! What counts as a credential, and what a signature must be made with.

use super::*;

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
