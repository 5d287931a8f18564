//! What is remembered of a verified token, by all and by a connection, and what ends it.

use super::*;
use crate::identity::bearer;

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
    assert!(!issuer.reload_files().unwrap());
    assert!(recall(token.as_bytes(), std::slice::from_ref(&issuer), NOW).is_some());
    std::fs::write(file.path(), "{").unwrap();
    assert!(issuer.reload_files().is_err());
    assert_eq!(outcome(&issuer, &token).await, "verified");
    write(&[new.jwk("k2")]);
    assert!(issuer.reload_files().unwrap());
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
        assert!(bearer::recall(token.as_bytes(), &last, issuers, NOW).is_some());
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
    let again = |token: &str, now| bearer::recall(token.as_bytes(), &last, &issuers, now);
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
    assert!(issuer.reload_files().unwrap());
    assert!(bearer::recall(token.as_bytes(), &last, &issuers, NOW).is_none());
    // The very keys of before are another version, too.
    write(&[old.jwk("k1"), new.jwk("k2")]);
    assert!(issuer.reload_files().unwrap());
    assert!(bearer::recall(token.as_bytes(), &last, &issuers, NOW).is_none());
    check(&issuer, &token).await.unwrap();
    assert!(bearer::recall(token.as_bytes(), &last, &issuers, NOW).is_some());
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
        bearer::recall(token.as_bytes(), &last, &issuers, NOW).is_some()
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
        bearer::still_counts(
            last.proof_of(token.as_bytes()).unwrap(),
            &[Arc::clone(&strict), Arc::clone(&issuer)],
            NOW
        )
        .is_none()
    );
    assert_eq!(asked(&issuer), before);
}

#[tokio::test]
async fn a25_what_the_second_issuer_of_one_iss_verified_elsewhere_is_the_first_one_s_to_judge() {
    let minter = Minter::new(Algorithm::Es256);
    let keys = [minter.jwk("k1")];
    let mut elsewhere = rules();
    elsewhere.audience = vec!["elsewhere".into()];
    let (strict, lax) = (issuer_with(elsewhere, &keys), issuer_with(rules(), &keys));
    let token = minter.mint("k1", &claims());
    // A route that names the one alone.
    check(&lax, &token).await.unwrap();
    assert!(recall(token.as_bytes(), std::slice::from_ref(&lax), NOW).is_some());
    // A route that names both: a token is judged there as one that nobody saw before.
    let both = [strict, Arc::clone(&lax)];
    assert!(recall(token.as_bytes(), &both, NOW).is_none());
    assert_eq!(
        verify(&token, &both, NOW).await.unwrap_err(),
        TokenError::Audience
    );
    let [strict, lax] = both;
    assert!(recall(token.as_bytes(), &[lax, strict], NOW).is_some());
}
