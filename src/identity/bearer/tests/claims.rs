//! What a signed token must say, and what it may not.

use super::*;

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
        let whole = claims_with(&json!({"client_id": "app", "jti": "1"}));
        let token = minter.raw(&header.to_string(), &whole.to_string());
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
async fn b26_a_token_remembers_what_it_is_bound_to() {
    let (minter, issuer) = pair();
    let digest = encode([7; 32]);
    for (cnf, expected) in [
        (json!({"x5t#S256": digest}), Binding::Certificate([7; 32])),
        (json!({"jkt": digest}), Binding::Key([7; 32])),
    ] {
        let token = minter.mint("k1", &claims_with(&json!({ "cnf": cnf })));
        let first = check(&issuer, &token).await.unwrap();
        assert_eq!(first.binding, Some(expected.clone()));
        let again = recall(token.as_bytes(), std::slice::from_ref(&issuer), NOW).unwrap();
        assert_eq!(again.binding, Some(expected));
    }
}

#[tokio::test]
async fn b26_a_binding_that_is_not_understood_is_refused() {
    let (minter, issuer) = pair();
    let digest = encode([7; 32]);
    for cnf in [
        json!({"jkt": "x"}),
        json!({"x5t#S256": "x"}),
        json!({"x5t#S256": [digest]}),
        json!({"x5t#S256": format!("{digest}=")}),
        json!({"x5t#S256": encode([7; 31])}),
        json!({"x5t#S256": encode([7; 33])}),
        json!({"x5t#s256": digest}),
        json!({"x5t#S256": digest, "jkt": digest}),
        json!({"x5t#S256": digest, "kid": "k"}),
        json!({"jwk": minter.jwk("k1")}),
        json!({"kid": "k"}),
        json!({}),
        json!([]),
        json!(digest),
        json!(false),
    ] {
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
