//! Keys that are fetched, rotated, published wrongly or out of reach.

use super::*;

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
