//! Tokens on the operator's list, and the claims that RFC 9068 wants.

use super::*;

struct Listed {
    file: tempfile::NamedTempFile,
    minter: Minter,
    issuer: Arc<Issuer>,
}

impl Listed {
    fn new(list: &str) -> Self {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), list).unwrap();
        let minter = Minter::new(Algorithm::Es256);
        let keys = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(keys.path(), json!({"keys": [minter.jwk("k1")]}).to_string()).unwrap();
        let mut config = IssuerConfig::new(rules(), KeySource::File(keys.path().to_owned()));
        config.revoked = Some(file.path().to_owned());
        let issuer = Issuer::new(config).unwrap();
        // Kept so that a reload finds it.
        std::mem::forget(keys);
        Self {
            file,
            minter,
            issuer,
        }
    }

    fn say(&self, list: &str) -> bool {
        std::fs::write(self.file.path(), list).unwrap();
        self.issuer.reload_files().unwrap()
    }

    fn token(&self, changes: &Value) -> String {
        self.minter.mint("k1", &claims_with(changes))
    }
}

#[tokio::test]
async fn a_revoked_token_is_refused_from_the_first_request_after_the_reload_on() {
    let listed = Listed::new("");
    let token = listed.token(&json!({"jti": "t1"}));
    let issuers = [Arc::clone(&listed.issuer)];
    let last = LastToken::default();
    check(&listed.issuer, &token).await.unwrap();
    for _ in 0..3 {
        assert!(crate::identity::bearer::recall(token.as_bytes(), &last, &issuers, NOW).is_some());
    }
    assert!(listed.say("jti:t1"));
    assert!(crate::identity::bearer::recall(token.as_bytes(), &last, &issuers, NOW).is_none());
    assert!(recall(token.as_bytes(), &issuers, NOW).is_none());
    assert_eq!(outcome(&listed.issuer, &token).await, "revoked");
    assert_eq!(outcome(&listed.issuer, &token).await, "revoked");
    let other = listed.token(&json!({"jti": "t2"}));
    assert_eq!(outcome(&listed.issuer, &other).await, "verified");
    assert!(listed.say("# nobody"));
    assert_eq!(outcome(&listed.issuer, &token).await, "verified");
}

#[tokio::test]
async fn a_subject_is_revoked_whole_or_up_to_a_time() {
    let listed = Listed::new("sub:alice before:1800000000\nsub:bob");
    for (changes, expected) in [
        (json!({}), "revoked"),
        (json!({"iat": NOW}), "verified"),
        (json!({"iat": null}), "revoked"),
        (json!({"sub": "bob", "iat": NOW}), "revoked"),
        (json!({"sub": "carol"}), "verified"),
    ] {
        let token = listed.token(&changes);
        assert_eq!(outcome(&listed.issuer, &token).await, expected, "{changes}");
    }
}

#[tokio::test]
async fn a_token_that_cannot_be_looked_up_is_refused_where_there_is_a_list() {
    let listed = Listed::new("");
    for id in [json!(7), json!(["7"]), json!({"7": 7})] {
        let token = listed.token(&json!({"jti": id}));
        assert_eq!(outcome(&listed.issuer, &token).await, "bad-claim", "{id}");
    }
    let token = listed.token(&json!({"jti": "7"}));
    assert_eq!(outcome(&listed.issuer, &token).await, "verified");
    let (minter, free) = pair();
    let token = minter.mint("k1", &claims_with(&json!({"jti": 7})));
    assert_eq!(
        outcome(&free, &token).await,
        "verified",
        "nothing to look up"
    );
}

#[tokio::test]
async fn a_list_that_is_broken_leaves_the_last_good_one() {
    let listed = Listed::new("jti:t1");
    std::fs::write(listed.file.path(), "t1 and others").unwrap();
    assert!(listed.issuer.reload_files().is_err());
    let token = listed.token(&json!({"jti": "t1"}));
    assert_eq!(outcome(&listed.issuer, &token).await, "revoked");
    let mut config = listed.issuer.config().clone();
    config.token_entries += 1;
    assert!(Issuer::new(config).is_err(), "no start without a list");
}

#[tokio::test]
async fn rfc_9068_names_claims_that_an_access_token_has() {
    let minter = Minter::new(Algorithm::Es256);
    let strict = IssuerRules {
        token_type: TokenType::AtJwt,
        ..rules()
    };
    let issuer = issuer_with(strict, &[minter.jwk("k1")]);
    let whole = claims_with(&json!({"client_id": "app", "jti": "t1"}));
    let mint = |claims: &Value| {
        let header = r#"{"alg":"ES256","typ":"at+jwt","kid":"k1"}"#;
        minter.raw(header, &claims.to_string())
    };
    assert_eq!(outcome(&issuer, &mint(&whole)).await, "verified");
    for name in ["iss", "exp", "aud", "sub", "client_id", "iat", "jti"] {
        let mut claims = whole.clone();
        claims.as_object_mut().unwrap().remove(name);
        assert_eq!(
            outcome(&issuer, &mint(&claims)).await,
            "missing-claim",
            "{name}"
        );
        claims[name] = json!([1]);
        assert_eq!(
            outcome(&issuer, &mint(&claims)).await,
            "bad-claim",
            "{name}"
        );
    }
    for name in ["sub", "client_id", "jti"] {
        let mut claims = whole.clone();
        claims[name] = "".into();
        assert_eq!(
            outcome(&issuer, &mint(&claims)).await,
            "missing-claim",
            "{name}"
        );
    }
}

#[tokio::test]
async fn rfc_8725_a_signature_of_zeros_and_a_nested_token_are_refused() {
    let (minter, issuer) = pair();
    let token = minter.mint("k1", &claims());
    let (message, _) = token.rsplit_once('.').unwrap();
    for signature in [vec![0; 64], vec![0xff; 64], vec![0; 63], vec![0; 65]] {
        let forged = format!("{message}.{}", encode(signature));
        assert_eq!(outcome(&issuer, &forged).await, "signature");
    }
    let header = r#"{"alg":"ES256","kid":"k1","cty":"JWT"}"#;
    let nested = minter.raw(header, &token);
    assert_eq!(outcome(&issuer, &nested).await, "malformed");
}
