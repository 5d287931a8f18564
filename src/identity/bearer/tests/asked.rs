//! Tokens that the issuer is asked about.

use super::*;
use crate::exchange::principal::Binding;
use crate::identity::issuer::{Asked, ClientAuth, Introspection};

const OPAQUE: &str = "opaque-4f9a";

fn introspection(server: &KeyServer) -> Introspection {
    Introspection {
        url: server.url.clone(),
        ca: None,
        client_id: "gate 1".to_owned(),
        client_secret: Secret::new(b"p:ss%".to_vec()),
        auth: ClientAuth::Basic,
        when: Asked::Opaque,
        cache: Duration::from_secs(30),
        negative_cache: Duration::from_secs(5),
        timeout: Duration::from_secs(5),
        concurrency: 8,
        require_audience: true,
    }
}

fn unsigned(introspection: Introspection) -> Arc<Issuer> {
    let mut config = IssuerConfig::new(rules(), KeySource::Unsigned);
    config.introspection = Some(introspection);
    Issuer::new(config).unwrap()
}

pub(super) fn active(changes: &Value) -> Value {
    let mut answer = claims_with(changes);
    answer["active"] = true.into();
    answer
}

/// An issuer that answers with these members.
async fn answering(changes: &Value) -> (KeyServer, Arc<Issuer>) {
    let server = KeyServer::start(ok(&active(changes))).await;
    let issuer = unsigned(introspection(&server));
    (server, issuer)
}

#[tokio::test]
async fn the_question_is_a_form_with_credentials_and_the_answer_a_principal() {
    let said = json!({"scope": "api.read", "groups": ["reader"], "token_type": "Bearer"});
    let (server, issuer) = answering(&said).await;
    let principal = check(&issuer, OPAQUE).await.unwrap();
    assert_eq!(&*principal.subject, "alice");
    assert_eq!(principal.roles, ["reader".into()]);
    assert_eq!(principal.scopes, ["api.read".into()]);
    assert_eq!(principal.expires, NOW + 30, "believed for the cache's time");
    let request = server.seen().concat();
    assert!(
        request.starts_with("POST /keys?x=1 HTTP/1.1\r\n"),
        "{request}"
    );
    // RFC 6749 §2.3.1: `gate 1` and `p:ss%`, each encoded as in a form.
    let credentials = format!(
        "authorization: Basic {}\r\n",
        base64::Engine::encode(
            &base64::engine::general_purpose::STANDARD,
            "gate%201:p%3Ass%25"
        )
    );
    assert!(request.contains(&credentials), "{request}");
    assert!(
        request.ends_with("\r\n\r\ntoken=opaque-4f9a&token_type_hint=access_token"),
        "{request}"
    );
}

#[tokio::test]
async fn credentials_may_stand_in_the_form() {
    let server = KeyServer::start(ok(&active(&json!({})))).await;
    let issuer = unsigned(Introspection {
        auth: ClientAuth::Post,
        ..introspection(&server)
    });
    check(&issuer, "a/b+c==").await.unwrap();
    let request = server.seen().concat();
    assert!(!request.contains("authorization"), "{request}");
    let form = "token=a%2Fb%2Bc%3D%3D&token_type_hint=access_token&client_id=gate%201&client_secret=p%3Ass%25";
    assert!(request.ends_with(form), "{request}");
}

#[tokio::test]
async fn members_of_the_answer_are_judged_when_present() {
    for (changes, expected) in [
        (json!({}), "verified"),
        (
            json!({"iss": null, "exp": null, "iat": null, "sub": null}),
            "verified",
        ),
        (
            json!({"aud": ["other", "portcullis"], "client_id": "app"}),
            "verified",
        ),
        (json!({"active": false}), "inactive"),
        (json!({"iss": "https://other.example"}), "issuer"),
        (json!({"iss": 7}), "bad-claim"),
        (json!({"aud": "other"}), "audience"),
        (json!({"aud": null}), "missing-claim"),
        (json!({"exp": NOW - 61}), "expired"),
        (json!({"exp": "soon"}), "bad-claim"),
        (json!({"nbf": NOW + 61}), "not-yet-valid"),
        (json!({"iat": NOW + 61}), "not-yet-valid"),
        (json!({"sub": ["alice"]}), "bad-claim"),
        (json!({"client_id": 1}), "bad-claim"),
        (json!({"cnf": {"jkt": "x"}}), "bad-claim"),
        (json!({"token_type": "refresh_token"}), "type"),
        (json!({"token_use": "refresh"}), "type"),
        (json!({"token_use": "access_token"}), "verified"),
        (json!({"typ": "Refresh"}), "type"),
        (json!({"nonce": "n"}), "type"),
    ] {
        let mut answer = active(&changes);
        if changes["active"] == false {
            answer["active"] = false.into();
        }
        let server = KeyServer::start(ok(&answer)).await;
        let issuer = unsigned(introspection(&server));
        assert_eq!(outcome(&issuer, OPAQUE).await, expected, "{changes}");
    }
}

#[tokio::test]
async fn what_an_answer_binds_a_token_to_is_read() {
    let key = encode([7; 32]);
    let bound = json!({"cnf": {"jkt": key}, "token_type": "DPoP"});
    let (_server, issuer) = answering(&bound).await;
    let principal = check(&issuer, OPAQUE).await.unwrap();
    assert_eq!(principal.binding, Some(Binding::Key([7; 32])));
}

#[tokio::test]
async fn an_answer_without_audience_passes_by_choice_alone() {
    let server = KeyServer::start(ok(&active(&json!({"aud": null})))).await;
    let issuer = unsigned(Introspection {
        require_audience: false,
        ..introspection(&server)
    });
    assert_eq!(outcome(&issuer, OPAQUE).await, "verified");
    server.answer_with(ok(&active(&json!({"aud": "other"}))));
    assert_eq!(outcome(&issuer, "another").await, "audience");
}

#[tokio::test]
async fn what_is_no_answer_is_never_taken_for_one() {
    let answer = |status: &str, body: &str| {
        let length = body.len();
        format!("HTTP/1.1 {status}\r\ncontent-length: {length}\r\n\r\n{body}")
    };
    for bad in [
        answer("500 Oh", "{\"active\":true}"),
        answer("401 Who", "{}"),
        answer("302 Found", ""),
        answer("200 OK", ""),
        answer("200 OK", "[]"),
        answer("200 OK", "{}"),
        answer("200 OK", "{\"active\":\"true\"}"),
        answer("200 OK", "{\"active\":1}"),
        answer("200 OK", "{\"active\":false,\"active\":true}"),
        "nonsense\r\n\r\n".to_owned(),
    ] {
        let server = KeyServer::start(bad.clone()).await;
        let issuer = unsigned(introspection(&server));
        for _ in 0..2 {
            let outcome = outcome(&issuer, OPAQUE).await;
            assert_eq!(outcome, "introspection-unavailable", "{bad}");
        }
        assert_eq!(server.requests(), 2, "no answer is held: {bad}");
    }
}

#[tokio::test]
async fn answers_are_held_for_their_time_and_no_longer_than_the_token() {
    let (server, issuer) = answering(&json!({"exp": NOW + 10 - 60})).await;
    let issuers = [Arc::clone(&issuer)];
    for (now, requests) in [(NOW, 1), (NOW + 9, 1)] {
        verify(OPAQUE, &issuers, now).await.unwrap();
        assert_eq!(server.requests(), requests);
    }
    // A leeway of 60 s is part of the token's time.
    let late = verify(OPAQUE, &issuers, NOW + 10).await.unwrap_err();
    assert_eq!((late, server.requests()), (TokenError::Expired, 2));
    server.answer_with(ok(&json!({"active": false})));
    for (now, requests) in [(NOW + 20, 3), (NOW + 24, 3), (NOW + 25, 4)] {
        let refused = verify(OPAQUE, &issuers, now).await.unwrap_err();
        assert_eq!(
            (refused, server.requests()),
            (TokenError::Inactive, requests),
            "{now}"
        );
    }
    server.answer_with(ok(&active(&json!({}))));
    verify(OPAQUE, &issuers, NOW + 30).await.unwrap();
    assert!(recall(OPAQUE.as_bytes(), &issuers, NOW + 59).is_some());
    assert!(recall(OPAQUE.as_bytes(), &issuers, NOW + 60).is_none());
    let questions: Vec<_> = issuer.counts().questions().collect();
    assert_eq!(questions, [("ok", 5), ("failed", 0), ("held-back", 0)]);
}

#[tokio::test]
async fn any_number_of_requests_with_one_token_ask_once() {
    let (server, issuer) = answering(&json!({})).await;
    server.pause(Duration::from_millis(50));
    let requests: Vec<_> = (0..200)
        .map(|_| {
            let issuer = Arc::clone(&issuer);
            tokio::spawn(async move { verify(OPAQUE, &[issuer], NOW).await })
        })
        .collect();
    for request in requests {
        request.await.unwrap().unwrap();
    }
    assert_eq!(server.requests(), 1);
}

#[tokio::test]
async fn questions_at_once_are_bounded_for_all_and_for_each_client() {
    let (server, issuer) = answering(&json!({})).await;
    server.pause(Duration::from_millis(30));
    let ask = |token: String, client: [u8; 4]| {
        let issuers = [Arc::clone(&issuer)];
        tokio::spawn(
            async move { super::super::verify(&token, &issuers, client.into(), NOW).await },
        )
    };
    // One client has a quarter of eight.
    let greedy: Vec<_> = (0..20)
        .map(|n| ask(format!("g{n}"), [192, 0, 2, 1]))
        .collect();
    let mut passed = 0;
    for request in greedy {
        match request.await.unwrap() {
            Ok(_) => passed += 1,
            Err(error) => assert_eq!(error, TokenError::IntrospectionUnavailable),
        }
    }
    assert_eq!((passed, server.most_at_once()), (2, 2));
    // Many clients wait for one another.
    let many: Vec<_> = (0..40)
        .map(|n| ask(format!("m{n}"), [198, 51, 100, n]))
        .collect();
    for request in many {
        request.await.unwrap().unwrap();
    }
    assert_eq!(server.most_at_once(), 8);
    let held_back = issuer.counts().questions().last();
    assert_eq!(held_back, Some(("held-back", 18)));
}

#[tokio::test]
async fn no_more_than_eight_questions_wait_for_each_under_way() {
    let (server, issuer) = answering(&json!({})).await;
    server.pause(Duration::from_millis(5));
    let requests: Vec<_> = (0..200_u8)
        .map(|n| {
            let issuers = [Arc::clone(&issuer)];
            let client = [198, 51, 100, n].into();
            tokio::spawn(async move {
                let verdict = super::super::verify(&format!("t{n}"), &issuers, client, NOW).await;
                verdict.is_ok()
            })
        })
        .collect();
    let mut passed = 0;
    for request in requests {
        passed += u32::from(request.await.unwrap());
    }
    assert_eq!(passed, 64);
    assert_eq!(server.requests(), 64);
}

#[tokio::test]
async fn a_client_of_many_refused_tokens_is_not_asked_about_and_others_are() {
    let server = KeyServer::start(ok(&json!({"active": false}))).await;
    let issuer = unsigned(introspection(&server));
    for n in 0..400 {
        let refused = check(&issuer, &format!("made-up-{n}")).await.unwrap_err();
        let known = [TokenError::Inactive, TokenError::IntrospectionUnavailable];
        assert!(known.contains(&refused), "{refused}");
    }
    let asked = server.requests();
    assert!((100..200).contains(&asked), "{asked} questions");
    server.answer_with(ok(&active(&json!({}))));
    let issuers = [Arc::clone(&issuer)];
    let other = super::super::verify(OPAQUE, &issuers, [203, 0, 113, 9].into(), NOW).await;
    assert!(other.is_ok());
}

#[tokio::test]
async fn tokens_that_the_issuer_calls_bad_requests_cost_their_client_and_our_own_faults_do_not() {
    for (status, charged) in [
        ("400 Bad", true),
        ("404 No", true),
        ("401 Who", false),
        ("429 Slow", false),
        ("500 Oh", false),
        ("302 Found", false),
    ] {
        let answer = format!("HTTP/1.1 {status}\r\ncontent-length: 2\r\n\r\n{{}}");
        let server = KeyServer::start(answer).await;
        let issuer = unsigned(introspection(&server));
        for n in 0..200 {
            let outcome = outcome(&issuer, &format!("made-up-{n}")).await;
            assert_eq!(outcome, "introspection-unavailable");
        }
        let asked = server.requests();
        assert_eq!(asked < 150, charged, "{status}: {asked} questions");
        server.answer_with(ok(&active(&json!({}))));
        let issuers = [Arc::clone(&issuer)];
        let other = super::super::verify(OPAQUE, &issuers, [203, 0, 113, 9].into(), NOW).await;
        assert!(other.is_ok(), "{status}");
    }
}

#[tokio::test]
async fn a_client_whose_tokens_get_no_answer_holds_one_question_and_others_have_theirs() {
    let server = KeyServer::start(ok(&active(&json!({})))).await;
    server.pause(Duration::from_mins(1));
    let issuer = unsigned(Introspection {
        timeout: Duration::from_millis(200),
        concurrency: 32,
        ..introspection(&server)
    });
    let ask = |token: String, client: u8| {
        let issuers = [Arc::clone(&issuer)];
        let client = [192, 0, 2, client].into();
        tokio::spawn(async move {
            super::super::verify(&token, &issuers, client, NOW)
                .await
                .is_ok()
        })
    };
    let flood = async |turn: u32| {
        let asked = server.requests();
        let flood: Vec<_> = (0..20).map(|n| ask(format!("{turn}-{n}"), 1)).collect();
        for request in flood {
            assert!(!request.await.unwrap());
        }
        server.requests() - asked
    };
    assert_eq!(flood(1).await, 8, "a quarter of 32");
    for turn in 2..5 {
        assert_eq!(flood(turn).await, 1, "turn {turn}");
    }
    // Not for ever: and nobody else is held back by it.
    let others: Vec<_> = (0..8).map(|n| ask(format!("good-{n}"), 2)).collect();
    for request in others {
        assert!(!request.await.unwrap());
    }
    assert_eq!(server.requests(), 8 + 3 + 8);
}

#[tokio::test]
async fn an_issuer_that_is_silent_is_waited_for_as_long_as_stated() {
    let (server, issuer) = {
        let server = KeyServer::start(ok(&active(&json!({})))).await;
        server.pause(Duration::from_mins(1));
        let issuer = unsigned(Introspection {
            timeout: Duration::from_millis(50),
            ..introspection(&server)
        });
        (server, issuer)
    };
    let waited = tokio::time::timeout(Duration::from_secs(5), outcome(&issuer, OPAQUE));
    assert_eq!(waited.await, Ok("introspection-unavailable"));
    assert_eq!(server.requests(), 1);
}

#[tokio::test]
async fn a_client_that_goes_away_leaves_no_question_behind() {
    let (server, issuer) = answering(&json!({})).await;
    server.pause(Duration::from_millis(30));
    for n in 0..30 {
        let issuers = [Arc::clone(&issuer)];
        let asking =
            tokio::spawn(async move { verify(&format!("t{n}"), &issuers, NOW).await.is_ok() });
        tokio::task::yield_now().await;
        asking.abort();
    }
    let turn = async {
        while check(&issuer, OPAQUE).await.is_err() {
            tokio::task::yield_now().await;
        }
    };
    let turn = tokio::time::timeout(Duration::from_secs(10), turn);
    turn.await.unwrap();
    assert!(server.most_at_once() <= 2);
}

/// An issuer with a key, that answers questions too.
pub(super) async fn signing(when: Asked) -> (KeyServer, Minter, Arc<Issuer>) {
    let server = KeyServer::start(ok(&active(&json!({"aud": null})))).await;
    let (minter, bare) = pair();
    let mut config = bare.config().clone();
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), json!({"keys": [minter.jwk("k1")]}).to_string()).unwrap();
    config.keys = KeySource::File(file.path().to_owned());
    config.introspection = Some(Introspection {
        when,
        ..introspection(&server)
    });
    (server, minter, Issuer::new(config).unwrap())
}

#[tokio::test]
async fn signed_tokens_are_asked_about_when_stated() {
    let (server, minter, issuer) = signing(Asked::Opaque).await;
    let token = minter.mint("k1", &claims());
    assert_eq!(outcome(&issuer, &token).await, "verified");
    assert_eq!(server.requests(), 0);

    let (server, minter, issuer) = signing(Asked::Always).await;
    let token = minter.mint("k1", &claims());
    let principal = check(&issuer, &token).await.unwrap();
    assert_eq!((principal.expires, server.requests()), (NOW + 30, 1));
    let forged = Minter::new(Algorithm::Es256).mint("k1", &claims());
    assert_eq!(outcome(&issuer, &forged).await, "signature");
    assert_eq!(server.requests(), 1, "a forged token is not asked about");
    server.answer_with(ok(&active(&json!({"aud": null, "sub": "bob"}))));
    let other = minter.mint("k1", &claims_with(&json!({"jti": "2"})));
    assert_eq!(outcome(&issuer, &other).await, "bad-claim");
    server.answer_with(ok(&json!({"active": false})));
    let other = minter.mint("k1", &claims_with(&json!({"jti": "3"})));
    assert_eq!(outcome(&issuer, &other).await, "inactive");
}

#[tokio::test]
async fn a_token_that_looks_signed_is_never_taken_for_an_opaque_one() {
    let (server, _, issuer) = signing(Asked::Opaque).await;
    for token in [
        format!(
            "{}.{}.",
            encode(r#"{"alg":"none"}"#),
            encode(claims().to_string())
        ),
        format!("{}.{}.AA", encode(r#"{"alg":"ES256"}"#), encode("[]")),
        format!(
            "{}.{}.AA",
            encode(r#"{"alg":"ES256","crit":["x"]}"#),
            encode("{}")
        ),
        format!("{}.?.AA", encode("{}")),
    ] {
        assert!(check(&issuer, &token).await.is_err(), "{token}");
    }
    assert_eq!(server.requests(), 0);
}

#[tokio::test]
async fn an_issuer_without_keys_is_asked_about_its_signed_tokens_too() {
    let (server, issuer) = answering(&json!({})).await;
    let token = Minter::new(Algorithm::Es256).mint("any", &claims());
    assert_eq!(outcome(&issuer, &token).await, "verified");
    assert_eq!(server.requests(), 1);
    let foreign = claims_with(&json!({"iss": "https://other.example"}));
    let token = Minter::new(Algorithm::Es256).mint("any", &foreign);
    assert_eq!(outcome(&issuer, &token).await, "issuer");
    assert_eq!(
        server.requests(),
        1,
        "another issuer's token is not shown to this one"
    );
}

#[tokio::test]
async fn the_operator_s_list_holds_for_answers_too() {
    let server = KeyServer::start(ok(&active(&json!({"jti": "t1"})))).await;
    let list = tempfile::NamedTempFile::new().unwrap();
    let mut config = IssuerConfig::new(rules(), KeySource::Unsigned);
    config.introspection = Some(introspection(&server));
    config.revoked = Some(list.path().to_owned());
    let issuer = Issuer::new(config).unwrap();
    assert_eq!(outcome(&issuer, OPAQUE).await, "verified");
    std::fs::write(list.path(), "jti:t1\n").unwrap();
    assert!(issuer.reload_files().unwrap());
    assert_eq!(outcome(&issuer, OPAQUE).await, "revoked");
}

#[tokio::test]
async fn the_key_set_that_was_kept_carries_a_start_while_the_issuer_is_down() {
    let minter = Minter::new(Algorithm::Es256);
    let server = KeyServer::with_keys(&[minter.jwk("k1")]).await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("keys.json");
    let config = |url: &str, stale: Duration| {
        let fetching = Fetching {
            keep: Some(path.clone()),
            stale,
            ..fetching(Duration::ZERO)
        };
        let url = url.to_owned();
        IssuerConfig::new(remote_rules(), KeySource::Url { url, fetching })
    };
    let day = Duration::from_hours(24);
    let token = minter.mint("k1", &far_claims());
    let first = Issuer::new(config(&server.url, day)).unwrap();
    verify(&token, &[first], now()).await.unwrap();
    assert!(path.exists());

    server.answer_with("HTTP/1.1 500 Oh\r\ncontent-length: 0\r\n\r\n".to_owned());
    let second = Issuer::new(config(&server.url, day)).unwrap();
    assert!(!second.has_keys(now()), "a fetch is tried first");
    verify(&token, std::slice::from_ref(&second), now())
        .await
        .unwrap();
    assert!(second.has_keys(now()));
    assert_eq!(second.counts().fetches()[1].1, 1);

    let unavailable = |error| matches!(error, TokenError::KeysUnavailable { .. });
    let stale = Issuer::new(config(&server.url, Duration::ZERO)).unwrap();
    assert!(unavailable(
        verify(&token, &[stale], now()).await.unwrap_err()
    ));
    let moved = server.url.replace("x=1", "x=2");
    let other = Issuer::new(config(&moved, day)).unwrap();
    assert!(unavailable(
        verify(&token, &[other], now()).await.unwrap_err()
    ));
}
