//! The gate's own second factor: sessions, its page, one-time codes (cases b31 to b33, b35 to b37).

use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use serde_json::json;

use crate::harness::eventually::eventually_within;
use crate::harness::gate::request;
use crate::harness::openssl::Authority;
use crate::harness::origin::answer;
use crate::harness::second_factor::{App, Browser, KEY, OPENS, SENDS, Scene, Words};
use crate::harness::{Client, Gate, Issuer, Mint, Origin, Response, TlsOptions};

/// What a script of the page says.
const FETCHES: [(&str, &str); 4] = [
    ("Accept", "*/*"),
    ("Sec-Fetch-Mode", "cors"),
    ("Sec-Fetch-Dest", "empty"),
    ("Sec-Fetch-Site", "same-origin"),
];

#[track_caller]
fn expect_reason(response: &Response, status: u16, reason: &str) {
    response.expect(status);
    let text = response.text();
    assert!(text.contains(reason), "{reason}: {text}");
}

/// The head and body of an answer but for what differs from request to request.
fn lasting(response: &Response) -> (Vec<String>, serde_json::Value) {
    let mut body = response.problem();
    body["instance"] = json!(null);
    let fields = response.head.fields.iter();
    let fields = fields.filter(|(name, _)| !name.eq_ignore_ascii_case("date"));
    let fields = fields.map(|(name, value)| format!("{name}: {value}"));
    (fields.collect(), body)
}

#[test]
fn b31_whoever_is_no_browser_is_answered_as_if_there_were_no_factor() {
    let scene = Scene::new();
    let without = {
        let policy = "[[blueprints]]\nname = \"bank\"\nhosts = [\"app.example\"]\nupstream = \"legacy\"\n\
             [blueprints.auth]\nrequire = [\"bearer\"]\nissuers = [\"corp\"]\n\
             step_up = { acr = [\"mfa\"], max_age = \"5m\" }\n";
        Gate::before(&scene.origin)
            .with(&scene.issuer.section())
            .with(policy)
            .start()
    };
    let token = scene.issuer.bearer_of(&Mint::new());
    for fields in [&[][..], &FETCHES, &[("Accept", "text/html")]] {
        for method in ["GET", "POST", "DELETE"] {
            let mut all = vec![
                ("Authorization", token.as_str()),
                ("Accept", "application/json"),
            ];
            all.extend(fields.iter().filter(|(name, _)| *name != "Accept"));
            let with = scene.gate.request(method, "/pay", &all);
            with.expect(401);
            assert_eq!(
                with.headers("www-authenticate"),
                [
                    "Bearer realm=\"app.example\", error=\"insufficient_user_authentication\", \
                  acr_values=\"mfa\", max_age=\"300\""
                ]
            );
            assert_eq!(
                lasting(&with),
                lasting(&without.request(method, "/pay", &all)),
                "{method} {fields:?}"
            );
        }
    }
    scene.origin.expect_untouched();
    assert_eq!(scene.count("portcullis_sessions", "pending"), 0);
}

#[test]
fn b32_a_browser_is_sent_to_the_page_and_everybody_else_is_told() {
    let scene = Scene::new();
    let mut browser = scene.browser("alice");
    for method in ["GET", "HEAD"] {
        let answer = browser
            .clone()
            .asks(&scene.gate, (method, "/pay?to=bob"), &OPENS);
        answer.expect(302);
        let place = answer.header("location").expect("a place");
        let sealed = place
            .strip_prefix("/.portcullis/mfa?rt=")
            .expect("the page");
        let is_sealed = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
        assert!(
            sealed.bytes().all(is_sealed) && !sealed.is_empty(),
            "{place}"
        );
        assert_eq!(answer.header("cache-control"), Some("no-store"));
        assert_eq!(answer.header("x-frame-options"), Some("DENY"));
        // b35
        let [cookie] = answer.headers("set-cookie")[..] else {
            panic!("one cookie: {:#?}", answer.head);
        };
        assert!(cookie.starts_with("__Host-portcullis="), "{cookie}");
        assert!(
            cookie.ends_with("; Path=/; Secure; HttpOnly; SameSite=Lax"),
            "{cookie}"
        );
    }
    let posted = browser.asks(&scene.gate, ("POST", "/pay"), &OPENS);
    expect_reason(&posted, 403, "second-factor-needed");
    assert_eq!(browser.cookie, None);
    assert!(posted.header("location").is_none());
    let fetched = browser.asks(&scene.gate, ("GET", "/pay"), &FETCHES);
    expect_reason(&fetched, 401, "step-up-needed");
    assert_eq!(browser.cookie, None);
    scene.origin.expect_untouched();
    let line = scene.gate.proxy.await_access("the redirect", |line| {
        line["http.response.status_code"] == 302
    });
    assert_eq!(line["stage"], "mfa", "{line}");
    let line = scene
        .gate
        .proxy
        .await_access("the form", |line| line["reason"] == "second-factor-needed");
    assert_eq!(line["decision"], "refused", "{line}");
}

#[test]
fn b32_who_is_not_known_is_sent_nowhere() {
    let scene = Scene::new();
    let answer = scene.gate.get_with("/pay", &OPENS);
    answer.expect(401);
    assert!(answer.header("set-cookie").is_none());
    let nameless = scene.issuer.bearer_of(&Mint::new().without("sub"));
    let mut browser = scene.browser("alice");
    browser.token = nameless;
    browser.opens(&scene.gate, "/pay").expect(401);
}

#[test]
fn b33_a_right_code_leads_back_in_a_session_of_a_new_name() {
    let scene = Scene::new();
    let app = scene.enrol("alice");
    let mut browser = scene.browser("alice");
    let page = browser.sent_to_page(&scene.gate, "/pay?to=bob&x=%2F1");
    let pending = browser.clone();
    let shown = browser.opens(&scene.gate, &page);
    shown.expect(200);
    expect_guarded(&shown);
    let html = shown.text();
    assert!(html.contains("autocomplete=\"one-time-code\""), "{html}");
    assert!(html.contains("action=\"/.portcullis/mfa?rt="), "{html}");
    assert!(html.contains("alice"), "{html}");
    let code = app.code(0);
    let answer = browser.types(&scene.gate, &page, &code);
    answer.expect(303);
    assert_eq!(answer.header("location"), Some("/pay?to=bob&x=%2F1"));
    expect_guarded(&answer);
    assert_ne!(browser.cookie, pending.cookie, "a new name");
    scene.origin.expect_untouched();
    let paid = browser.opens(&scene.gate, "/pay?to=bob&x=%2F1");
    paid.expect(200);
    let received = scene.origin.last_request();
    assert_eq!(received.head.get("cookie"), None, "not the backend's");
    // The script of that page, too.
    let fetched = browser.asks(&scene.gate, ("POST", "/pay"), &FETCHES);
    fetched.expect(200);
    // The old name is dead, and so is the way back that was sealed for it.
    pending.clone().opens(&scene.gate, "/pay").expect(403);
    assert!(scene.refused("renamed") >= 1);
    let late = pending.clone().types(&scene.gate, &page, &app.code(1));
    expect_reason(&late, 403, "session-missing");
    // The same code within its step, in another session.
    let mut again = scene.browser("alice");
    let page = again.sent_to_page(&scene.gate, "/pay");
    let answer = again.types(&scene.gate, &page, &code);
    expect_reason(&answer, 403, "That code is not right");
    again.opens(&scene.gate, "/pay").expect(302);
    let line = scene
        .gate
        .proxy
        .await_access("the used code", |line| line["detail"] == "again");
    assert_eq!(line["stage"], "mfa", "{line}");
    assert_eq!(line["reason"], "second-factor-wrong", "{line}");
    assert_eq!(line["enduser.id"], "alice", "{line}");
    let answer = again.types(&scene.gate, &page, &app.wrong_code());
    expect_reason(&answer, 403, "That code is not right");
}

/// The headers of the gate's own pages, each once.
#[track_caller]
fn expect_guarded(response: &Response) {
    for (name, value) in [
        (
            "content-security-policy",
            "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; base-uri 'none'; \
             form-action 'self' https:; frame-ancestors 'none'",
        ),
        ("cache-control", "no-store"),
        ("x-content-type-options", "nosniff"),
        ("x-frame-options", "DENY"),
        ("referrer-policy", "same-origin"),
        ("cross-origin-opener-policy", "same-origin"),
        ("cross-origin-resource-policy", "same-origin"),
        (
            "strict-transport-security",
            "max-age=31536000; includeSubDomains",
        ),
    ] {
        assert_eq!(
            response.headers(name),
            [value],
            "{name}: {:#?}",
            response.head
        );
    }
    assert!(response.header("permissions-policy").is_some());
}

#[test]
fn b33_a_code_is_used_up_across_a_restart() {
    let words = Words::default();
    let scene = Scene::with(&words);
    let app = scene.enrol("alice");
    let code = app.code(0);
    let mut browser = scene.browser("alice");
    let page = browser.sent_to_page(&scene.gate, "/pay");
    browser.types(&scene.gate, &page, &code).expect(303);
    let Scene { accounts, gate, .. } = scene;
    drop(gate);
    let scene = Scene::in_folder(&words, accounts);
    let mut browser = scene.browser("alice");
    let page = browser.sent_to_page(&scene.gate, "/pay");
    let answer = browser.types(&scene.gate, &page, &code);
    expect_reason(&answer, 403, "That code is not right");
    browser.types(&scene.gate, &page, &app.code(1)).expect(303);
}

#[test]
fn b33_one_code_at_four_places_at_once_counts_once() {
    let scene = Scene::new();
    let app = scene.enrol("alice");
    let code = app.code(0);
    let mut places: Vec<(Browser, String)> = (0..4)
        .map(|place: u8| {
            let mut browser = scene.browser("alice");
            browser.address = format!("192.0.2.{place}");
            let page = browser.sent_to_page(&scene.gate, "/pay");
            (browser, page)
        })
        .collect();
    let gate = &scene.gate;
    let statuses: Vec<u16> = std::thread::scope(|scope| {
        let tries = places.iter_mut().map(|(browser, page)| {
            let code = &code;
            scope.spawn(move || browser.types(gate, page, code).status)
        });
        let tries: Vec<_> = tries.collect();
        tries
            .into_iter()
            .map(|one| one.join().expect("an answer"))
            .collect()
    });
    let right = statuses.iter().filter(|status| **status == 303).count();
    assert_eq!(right, 1, "{statuses:?}");
    let wrong = statuses.iter().filter(|status| **status == 403).count();
    assert_eq!(wrong, 3, "{statuses:?}");
}

/// Sends so many wrong codes, each from another address, and gives the status of a right one after them.
fn after_wrong(scene: &Scene, subjects: &[&str], address: impl Fn(usize) -> String) -> Response {
    let apps: Vec<_> = subjects
        .iter()
        .map(|subject| scene.enrol(subject))
        .collect();
    for n in 0..5 {
        let place = n % subjects.len();
        let mut browser = scene.browser(subjects[place]);
        browser.address = address(n);
        let page = browser.sent_to_page(&scene.gate, "/pay");
        let answer = browser.types(&scene.gate, &page, &apps[place].wrong_code());
        expect_reason(&answer, 403, "That code is not right");
    }
    let last = subjects.len() - 1;
    let mut browser = scene.browser(subjects[last]);
    browser.address = address(5);
    let page = browser.sent_to_page(&scene.gate, "/pay");
    browser.types(&scene.gate, &page, &apps[last].code(0))
}

#[test]
fn b33_five_wrong_codes_of_an_account_from_two_addresses() {
    let scene = Scene::new();
    let answer = after_wrong(&scene, &["alice"], |n| format!("192.0.2.{}", 1 + n % 2));
    expect_reason(&answer, 429, "second-factor-limited");
    let seconds: u64 = answer
        .header("retry-after")
        .expect("a time")
        .parse()
        .expect("seconds");
    assert!((200..=301).contains(&seconds), "{seconds}");
    // A stranger to both is not.
    let app = scene.enrol("bob");
    let mut bob = scene.browser("bob");
    bob.address = "192.0.2.9".to_owned();
    let page = bob.sent_to_page(&scene.gate, "/pay");
    bob.types(&scene.gate, &page, &app.code(0)).expect(303);
    let name = "portcullis_second_factor_tries_total";
    let tries = |outcome: &str| scene.count(name, outcome);
    assert_eq!(
        (tries("wrong"), tries("limited"), tries("right")),
        (5, 1, 1)
    );
}

#[test]
fn b33_five_wrong_codes_of_an_address_at_several_accounts() {
    let scene = Scene::new();
    let subjects = ["alice", "bob", "carol"];
    let answer = after_wrong(&scene, &subjects, |_| "192.0.2.1".to_owned());
    expect_reason(&answer, 429, "second-factor-limited");
    let mut elsewhere = scene.browser("dave");
    elsewhere.address = "192.0.2.2".to_owned();
    let app = scene.enrol("dave");
    let page = elsewhere.sent_to_page(&scene.gate, "/pay");
    elsewhere
        .types(&scene.gate, &page, &app.code(0))
        .expect(303);
}

#[test]
fn b35_a_cookie_that_the_client_brings_is_never_kept() {
    let scene = Scene::new();
    scene.enrol("alice");
    let mut browser = scene.browser("alice");
    let brought = "__Host-portcullis=chosen-by-somebody-else";
    browser.cookie = Some(brought.to_owned());
    browser.sent_to_page(&scene.gate, "/pay");
    assert_ne!(browser.cookie.as_deref(), Some(brought));
    // One that is good but another's: the attacker's own pending session.
    let mut attacker = scene.browser("mallory");
    attacker.sent_to_page(&scene.gate, "/pay");
    let mut victim = scene.browser("alice");
    victim.cookie.clone_from(&attacker.cookie);
    victim.sent_to_page(&scene.gate, "/pay");
    assert_ne!(victim.cookie, attacker.cookie);
    assert_eq!(scene.refused("other-owner"), 1);
}

#[test]
fn b35_a_proven_session_is_worth_nothing_with_another_credential() {
    let scene = Scene::new();
    let app = scene.enrol("alice");
    let alice = scene.proven("alice", (&app, 0));
    let mut thief = scene.browser("mallory");
    thief.cookie.clone_from(&alice.cookie);
    thief
        .asks(&scene.gate, ("GET", "/pay"), &FETCHES)
        .expect(401);
    thief.opens(&scene.gate, "/pay").expect(302);
    let cookie = alice.cookie.clone().expect("a cookie");
    let alone = scene.gate.get_with("/pay", &[("Cookie", &cookie)]);
    alone.expect(401);
    scene.origin.expect_untouched();
    alice.clone().opens(&scene.gate, "/pay").expect(200);
}

#[test]
fn b37_a_cookie_that_was_changed_is_as_good_as_none_cleared_and_counted() {
    let scene = Scene::new();
    let app = scene.enrol("alice");
    let alice = scene.proven("alice", (&app, 0));
    let good = alice.cookie.clone().expect("a cookie");
    let (_, value) = good.split_once('=').expect("a value");
    let mut changed = value.to_owned();
    let last = changed.pop().expect("a sign");
    changed.push(if last == 'A' { 'Q' } else { 'A' });
    let bad = [
        format!("__Host-portcullis={changed}"),
        "__Host-portcullis=".to_owned(),
        format!("{good}; {good}"),
        format!("__Host-portcullis={}", "A".repeat(5000)),
    ];
    for cookie in bad {
        let mut browser = alice.clone();
        browser.cookie = Some(cookie.clone());
        let answer = browser.asks(&scene.gate, ("GET", "/pay"), &FETCHES);
        answer.expect(401);
        assert_eq!(
            answer.headers("set-cookie"),
            ["__Host-portcullis=; Path=/; Secure; HttpOnly; SameSite=Lax; Max-Age=0"],
            "{cookie}"
        );
        assert_eq!(browser.cookie, None);
        browser.opens(&scene.gate, "/pay").expect(302);
    }
    assert_eq!((scene.refused("forged"), scene.refused("repeated")), (3, 1));
    scene.origin.expect_untouched();
}

#[test]
fn b37_sessions_outlive_a_reload_and_a_rotation_of_keys() {
    let mut words = Words::default();
    let mut scene = Scene::with(&words);
    let app = scene.enrol("alice");
    let mut alice = scene.proven("alice", (&app, -1));
    words.keys = "[{ env = \"OTHER_KEY\" }, { env = \"KEY\" }]";
    scene.reload(&words);
    alice.opens(&scene.gate, "/pay").expect(200);
    // Whoever shows the factor now is sealed with the new key, and so is what is enrolled.
    let mut fresh = scene.proven("alice", (&app, 0));
    words.keys = "{ env = \"OTHER_KEY\" }";
    scene.reload(&words);
    fresh.opens(&scene.gate, "/pay").expect(200);
    alice.opens(&scene.gate, "/pay").expect(302);
    assert_eq!(scene.refused("forged"), 1);
    scene
        .proven("alice", (&app, 1))
        .opens(&scene.gate, "/pay")
        .expect(200);
    // Without any key that it was sealed with, an account is closed and not forgotten.
    words.keys = "{ env = \"KEY\" }";
    scene.reload(&words);
    let mut late = scene.browser("alice");
    let page = late.sent_to_page(&scene.gate, "/pay");
    let answer = late.types(&scene.gate, &page, &app.code(1));
    expect_reason(&answer, 503, "second-factor-unavailable");
}

#[test]
fn b33_a_factor_ages_and_is_shown_again_in_the_same_session() {
    let words = Words {
        demand: "step_up = { max_age = \"3s\" }",
        ..Words::default()
    };
    let scene = Scene::with(&words);
    let app = scene.enrol("alice");
    let mut alice = scene.proven("alice", (&app, -1));
    alice.opens(&scene.gate, "/pay").expect(200);
    let before = alice.cookie.clone();
    eventually_within(Duration::from_secs(20), "the factor is too old", || {
        (alice.opens(&scene.gate, "/pay").status == 302).then_some(())
    });
    assert_eq!(alice.cookie, before, "the session lives");
    let page = alice.sent_to_page(&scene.gate, "/pay");
    alice.types(&scene.gate, &page, &app.code(1)).expect(303);
    assert_ne!(alice.cookie, before);
    alice.opens(&scene.gate, "/pay").expect(200);
}

#[test]
fn a_factor_that_would_not_be_enough_is_not_asked_for() {
    for demand in [
        "step_up = { acr = [\"gold\"] }",
        "step_up = { amr = [\"hwk\", \"fpt\"] }",
        "step_up = { acr = [\"mfa\"], amr = [\"sc\"] }",
    ] {
        let scene = Scene::with(&Words {
            demand,
            ..Words::default()
        });
        scene
            .browser("alice")
            .opens(&scene.gate, "/pay")
            .expect(401);
    }
    let words = Words {
        demand: "step_up = { acr = [\"gold\"], amr = [\"otp\"] }",
        mfa: "acr = \"gold\"",
        ..Words::default()
    };
    let scene = Scene::with(&words);
    let app = scene.enrol("alice");
    scene
        .proven("alice", (&app, 0))
        .opens(&scene.gate, "/pay")
        .expect(200);
}

#[test]
fn a_full_memory_of_sessions_begins_none_and_loses_none() {
    let words = Words {
        session: "entries = 2",
        ..Words::default()
    };
    let scene = Scene::with(&words);
    let app = scene.enrol("alice");
    let mut alice = scene.proven("alice", (&app, 0));
    scene.browser("bob").opens(&scene.gate, "/pay").expect(302);
    let answer = scene.browser("carol").opens(&scene.gate, "/pay");
    expect_reason(&answer, 503, "overloaded");
    assert!(answer.header("retry-after").is_some());
    alice.opens(&scene.gate, "/pay").expect(200);
    let sessions = |state: &str| scene.count("portcullis_sessions", state);
    assert_eq!((sessions("pending"), sessions("proven")), (1, 1));
}

#[test]
fn b32_a_way_back_is_that_of_its_session_and_of_this_origin() {
    let scene = Scene::new();
    let app = scene.enrol("alice");
    let mut alice = scene.browser("alice");
    let page = alice.sent_to_page(&scene.gate, "/pay");
    let mut other = scene.browser("alice");
    let others = other.sent_to_page(&scene.gate, "/pay?to=mallory");
    let refused = |browser: &Browser, page: &str| {
        let answer = browser.clone().opens(&scene.gate, page);
        (
            answer.status,
            browser.clone().types(&scene.gate, page, "000000").status,
        )
    };
    assert_eq!(refused(&alice, &others), (403, 403), "of another session");
    assert_eq!(refused(&alice, "/.portcullis/mfa"), (403, 403), "none");
    assert_eq!(refused(&alice, "/.portcullis/mfa?rt="), (403, 403));
    assert_eq!(
        refused(&alice, "/.portcullis/mfa?rt=%2F%2Fevil.example"),
        (403, 403)
    );
    assert_eq!(refused(&alice, &format!("{page}A")), (403, 403));
    let twice = page.replace("?rt=", "?rt=x&rt=");
    assert_eq!(refused(&alice, &twice), (400, 400));
    let mut without = alice.clone();
    without.cookie = None;
    assert_eq!(refused(&without, &page), (403, 403), "no session");
    // What would be another host to a browser is refused, or leads back to the path that was judged.
    let code = app.code(0);
    let answer = alice.opens(&scene.gate, "/\\evil.example/pay");
    answer.expect(400);
    let page = alice.sent_to_page(&scene.gate, "//pay");
    let back = alice.types(&scene.gate, &page, &code);
    assert_eq!(back.expect(303).header("location"), Some("/pay"));
    let line = scene
        .gate
        .proxy
        .await_access("no session", |line| line["detail"] == "no-cookie");
    assert_eq!(line["reason"], "session-missing", "{line}");
    assert!(!line.to_string().contains("__Host-"), "{line}");
}

#[test]
fn a_form_of_another_origin_or_of_another_kind_is_not_read() {
    let scene = Scene::new();
    let app = scene.enrol("alice");
    let mut alice = scene.browser("alice");
    let page = alice.sent_to_page(&scene.gate, "/pay");
    let code = format!("code={}", app.code(0));
    let html = ("Accept", "application/json");
    for foreign in [
        ("Origin", "https://evil.example"),
        ("Origin", "null"),
        ("Origin", "http://app.example"),
        ("Sec-Fetch-Site", "cross-site"),
        ("Sec-Fetch-Site", "same-site"),
    ] {
        let answer = alice.sends(&scene.gate, (&page, &code), &[html, foreign]);
        expect_reason(&answer, 403, "csrf");
    }
    let sent = |form: &str, fields: &[(&str, &str)]| {
        let all = [&[html], fields].concat();
        alice.clone().sends(&scene.gate, (&page, form), &all)
    };
    let kind = [("Content-Type", "application/json")];
    expect_reason(&sent(&code, &kind), 400, "form-invalid");
    expect_reason(
        &sent(&code, &[("Content-Type", "text/plain")]),
        400,
        "form-invalid",
    );
    expect_reason(&sent("", &[]), 400, "form-invalid");
    expect_reason(&sent("other=1", &[]), 400, "form-invalid");
    expect_reason(&sent(&format!("{code}&{code}"), &[]), 400, "form-invalid");
    let long = format!("code={}", "1".repeat(4092));
    expect_reason(&sent(&long, &[]), 413, "body-too-large");
    let chunked = request(
        "POST",
        &page,
        &[
            ("Transfer-Encoding", "chunked"),
            ("Content-Type", "application/x-www-form-urlencoded"),
            ("Cookie", alice.cookie.as_deref().expect("a cookie")),
        ],
    ) + &format!("1388\r\n{}\r\n0\r\n\r\n", "c".repeat(5000));
    expect_reason(&scene.gate.exchange(chunked), 413, "body-too-large");
    let put = alice.clone().asks(&scene.gate, ("PUT", &page), &[html]);
    put.expect(405);
    assert_eq!(put.header("allow"), Some("GET, HEAD, POST"));
    // None of them has used the code.
    sent(&code, &[]).expect(303);
}

#[test]
fn the_space_of_the_gate_is_no_backend_s() {
    let scene = Scene::new();
    for path in [
        "/.portcullis",
        "/.portcullis/",
        "/.portcullis/other",
        "/.PORTCULLIS/mfa",
        "/%2eportcullis/other",
        "/.portcullis/mfa/",
    ] {
        let answer = scene.browser("alice").opens(&scene.gate, path);
        assert!(
            matches!(answer.status, 403 | 404),
            "{path}: {}",
            answer.status
        );
    }
    let style = scene.gate.get("/.portcullis/style.css");
    style.expect(200);
    assert_eq!(
        style.header("content-type"),
        Some("text/css; charset=utf-8")
    );
    expect_guarded(&style);
    // In clear there is only the way to https, and a host that no route serves has no pages.
    let clear = scene
        .gate
        .http()
        .send(request("GET", "/.portcullis/style.css", &[]))
        .response();
    clear.expect(308);
    let unserved = "GET /.portcullis/style.css HTTP/1.1\r\nHost: localhost\r\n\r\n";
    scene.gate.exchange(unserved).expect(404);
    scene.origin.expect_untouched();
    let line = scene.gate.proxy.await_access_of("/.portcullis/style.css");
    assert_eq!(
        (&line["stage"], &line["decision"]),
        (&json!("mfa"), &json!("answered"))
    );
}

#[test]
fn without_the_section_the_space_is_like_any_other() {
    let gate_of = |policy: &str, origin: &Origin| Gate::before(origin).with(policy).start();
    let origin = Origin::echo();
    let gate = gate_of(crate::harness::gate::PUBLIC, &origin);
    gate.get("/.portcullis/style.css").expect(200);
    assert_eq!(
        origin.last_request().head.target(),
        "/.portcullis/style.css"
    );
}

#[test]
fn b37_a_backend_can_neither_see_nor_set_the_cookie() {
    let origin = Origin::with_headers(&[
        ("Set-Cookie", "__Host-portcullis=mine; Path=/; Secure"),
        ("Set-Cookie", "own=1"),
    ]);
    let accounts = tempfile::tempdir().expect("a temporary directory");
    let scene = Scene::before(origin, &Words::default(), accounts);
    let token = scene.issuer.bearer_of(&Mint::new());
    let cookie = "a=1; __Host-portcullis=whatever; b=2";
    let fields = [("Authorization", token.as_str()), ("Cookie", cookie)];
    // A route that asks for no factor.
    let answer = scene.gate.get_with("/other", &fields);
    answer.expect(200);
    assert_eq!(
        answer.headers("set-cookie"),
        ["own=1; Secure; HttpOnly; SameSite=Lax"]
    );
    assert_eq!(
        scene.origin.last_request().head.get("cookie"),
        Some("a=1; b=2")
    );
}

#[test]
fn nobody_shows_what_was_not_enrolled_or_cannot_be_read() {
    let scene = Scene::new();
    let mut bob = scene.browser("bob");
    let page = bob.sent_to_page(&scene.gate, "/pay");
    let shown = bob.opens(&scene.gate, &page);
    expect_reason(&shown, 403, "No second factor is enrolled for the account");
    expect_reason(
        &bob.types(&scene.gate, &page, "123456"),
        403,
        "second-factor-unknown",
    );
    let app = scene.enrol("alice");
    let [file] = &scene.account_files()[..] else {
        panic!("one account");
    };
    let mode = |mode| std::fs::set_permissions(file, PermissionsExt::from_mode(mode));
    let mut alice = scene.browser("alice");
    let page = alice.sent_to_page(&scene.gate, "/pay");
    mode(0o644).expect("our file");
    let code = app.code(0);
    for answer in [
        alice.opens(&scene.gate, &page),
        alice.types(&scene.gate, &page, &code),
    ] {
        expect_reason(&answer, 503, "second-factor-unavailable");
        assert!(answer.header("retry-after").is_some());
    }
    scene.gate.proxy.await_talk("others have rights to it");
    mode(0o600).expect("our file");
    alice.types(&scene.gate, &page, &code).expect(303);
}

#[test]
fn enrol_writes_a_sealed_account_once() {
    let scene = Scene::new();
    let app = scene.enrol("alice");
    let [file] = &scene.account_files()[..] else {
        panic!("one account");
    };
    let about = std::fs::metadata(file).expect("the account");
    assert_eq!(about.permissions().mode() & 0o777, 0o600);
    let text = std::fs::read_to_string(file).expect("the account");
    assert!(!text.contains(&app.secret), "{text}");
    let said = |arguments: &[&str]| {
        let output = scene.try_enrol(arguments);
        let talk = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.stdout.is_empty(), "{talk}");
        (output.status.code(), talk)
    };
    let (code, talk) = said(&["--issuer", "corp", "alice"]);
    assert!(code == Some(1) && talk.contains("--replace"), "{talk}");
    let (code, talk) = said(&["--issuer", "corpo", "alice"]);
    assert!(
        code == Some(2) && talk.contains("did you mean `corp`?"),
        "{talk}"
    );
    let (code, talk) = said(&["--issuer", "corp", ""]);
    assert_eq!(code, Some(2), "{talk}");
    let replaced = scene.try_enrol(&["--issuer", "corp", "--replace", "alice"]);
    assert!(replaced.status.success());
    let fresh = App::of(&String::from_utf8_lossy(&replaced.stdout));
    assert_ne!(fresh.secret, app.secret);
    let mut alice = scene.browser("alice");
    let page = alice.sent_to_page(&scene.gate, "/pay");
    alice.types(&scene.gate, &page, &app.code(0)).expect(403);
    alice.types(&scene.gate, &page, &fresh.code(0)).expect(303);
    assert!(!scene.gate.proxy.talk().contains(KEY));
}

#[test]
fn monitored_step_up_sends_no_browser_anywhere() {
    let scene = Scene::with(&Words {
        demand: "step_up = { acr = [\"mfa\"] }, mode = \"monitor\"",
        ..Words::default()
    });
    let mut alice = scene.browser("alice");
    alice.opens(&scene.gate, "/pay").expect(200);
    assert_eq!(alice.cookie, None);
    let line = scene.gate.proxy.await_access_of("/pay");
    assert!(
        line["would_refuse"].to_string().contains("step-up-needed"),
        "{line}"
    );
}

#[test]
fn check_refuses_what_could_not_work() {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let issuer = Issuer::http();
    let good = "[session]\nkeys = { env = \"KEY\" }\n[mfa]\naccounts = 'mfa'\n";
    let route = |path: &str| {
        format!(
            "[[blueprints]]\nname = \"a\"\nupstream = \"legacy\"\nauth = \"public\"\n\
             [[blueprints.routes]]\npath = \"{path}\"\n"
        )
    };
    let check = |sections: &str| {
        let origin = Origin::echo();
        let gate = Gate::before(&origin).with(&issuer.section()).with(sections);
        let output = crate::harness::proxy::portcullis()
            .args(["check", "-c"])
            .arg(gate.write())
            .env("KEY", KEY)
            .current_dir(folder.path())
            .output()
            .expect("the built program starts");
        (
            output.status.code(),
            String::from_utf8_lossy(&output.stderr).into_owned(),
        )
    };
    let (code, talk) = check(&format!("{good}{}", route("/x")));
    assert_eq!(code, Some(0), "{talk}");
    for path in ["/.portcullis", "/.portcullis/mfa", "/.Portcullis/{*rest}"] {
        let (code, talk) = check(&format!("{good}{}", route(path)));
        assert!(
            code == Some(2) && talk.contains("can never be reached"),
            "{talk}"
        );
        let (code, talk) = check(&route(path));
        assert_eq!(code, Some(0), "{talk}");
    }
    let (code, talk) = check(&format!("[mfa]\naccounts = 'mfa'\n{}", route("/x")));
    assert!(code == Some(2) && talk.contains("needs keys"), "{talk}");
}

#[test]
fn explain_shows_what_a_browser_without_the_factor_gets() {
    let scene = Scene::new();
    let token = scene.gate.directory.path().join("token");
    let keys = scene.gate.directory.path().join("jwks.json");
    scene.issuer.write_jwks(&keys);
    std::fs::write(&token, scene.issuer.mint(&Mint::new())).expect("our directory");
    let file = scene.gate.directory.path().join("gate.toml");
    let text = std::fs::read_to_string(&file).expect("the file");
    let url = format!("jwks_url = \"{}\"", scene.issuer.jwks_url());
    let text = text.replace(&url, &format!("jwks_file = '{}'", keys.display()));
    let offline = scene.gate.directory.path().join("offline.toml");
    std::fs::write(&offline, text).expect("our directory");
    let explain = |headers: &[(&str, &str)]| {
        let mut command = crate::harness::proxy::portcullis();
        command.args(["explain", "-c"]).arg(&offline);
        command
            .args(["GET", "https://app.example/pay", "--token"])
            .arg(&token);
        for (name, value) in headers {
            command.args(["-H", &format!("{name}: {value}")]);
        }
        let output = command
            .env("KEY", KEY)
            .output()
            .expect("the built program starts");
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let browser = explain(&OPENS);
    assert!(browser.contains("/.portcullis/mfa?rt="), "{browser}");
    assert!(
        browser.contains("the gate's own factor would be enough"),
        "{browser}"
    );
    let api = explain(&[]);
    assert!(
        api.contains("step-up-needed") && !api.contains("rt="),
        "{api}"
    );
}

#[test]
fn b33_a_person_with_a_browser_shows_the_factor() {
    let origin = Origin::serve(|_| {
        let html = [("Content-Type", "text/html")];
        answer(200, &html, "<!doctype html><p>paid</p>")
    });
    let accounts = tempfile::tempdir().expect("a temporary directory");
    let scene = Scene::before(origin, &Words::default(), accounts);
    let walk = scene.walk("/pay?to=bob");
    for (page, path) in [
        ("asked", "/.portcullis/mfa"),
        ("refused", "/.portcullis/mfa"),
        ("paid", "/pay"),
    ] {
        assert_eq!(walk[page]["path"], path, "{walk:#}");
    }
    let asked = &walk["asked"];
    assert!(asked["text"].to_string().contains("alice"), "{walk:#}");
    assert_eq!(asked["focus"], "code", "ready to type: {walk:#}");
    assert_ne!(asked["font"], "none", "the looks have come: {walk:#}");
    assert_eq!(walk["cookie"], "", "no script reads it");
    assert_eq!(walk["sent"], 1, "a form that is sent twice goes once");
    let complaints = walk["complaints"].to_string();
    assert!(
        !complaints.contains("Content Security Policy"),
        "{complaints}"
    );
    let all = scene.origin.requests().into_iter();
    let opened: Vec<String> = all
        .map(|request| request.head.target().to_owned())
        .filter(|target| target != "/favicon.ico")
        .collect();
    assert_eq!(opened, ["/pay?to=bob"], "one page and nothing else");
}

/// Everything for holders of a certificate of the authority `clients` who have shown a second factor.
const BY_CERTIFICATE: &str = r#"
[session]
keys = { env = "KEY" }
[mfa]
accounts = 'FOLDER'
[client_certificates.any]
issuer = "CN=clients,O=Example"
subject_from = "cn"
[[blueprints]]
name = "app"
hosts = ["app.example"]
upstream = "legacy"
[blueprints.auth]
require = ["mtls"]
certificates = ["any"]
step_up = { acr = "mfa" }
"#;

#[test]
fn b33_a_client_certificate_is_the_first_factor() {
    let origin = Origin::echo();
    let gate = Gate::before(&origin).environment("KEY", KEY);
    let clients = Authority::new(gate.directory(), "clients");
    let folder = gate.directory().join("mfa");
    let policy = BY_CERTIFICATE.replace("FOLDER", &folder.display().to_string());
    let leaf = clients.client("alice", "/O=Example/CN=alice", "DNS:alice.example");
    let gate = gate
        .tls_keys("client_ca = \"clients.pem\"\nclient_auth = \"optional\"")
        .with(&policy)
        .start();
    let enrolled = crate::harness::proxy::portcullis()
        .args(["enrol", "--issuer", "client_certificates", "alice", "-c"])
        .arg(gate.directory.path().join("gate.toml"))
        .env("KEY", KEY)
        .output()
        .expect("the built program starts");
    let talk = String::from_utf8_lossy(&enrolled.stderr);
    assert!(enrolled.status.success(), "{talk}");
    let mode = std::fs::metadata(&folder).expect("made").permissions();
    assert_eq!(mode.mode() & 0o777, 0o700);
    let app = App::of(&String::from_utf8_lossy(&enrolled.stdout));
    let ask = |method: &str, path: &str, fields: &[(&str, &str)], body: &str| {
        let options = TlsOptions::presenting(&gate.ca, "app.example", &leaf);
        let text = request(method, path, fields) + body;
        Client::tls(gate.proxy.https(), &options)
            .send(text)
            .response_to(method)
    };
    let cookie_of = |response: &Response| {
        let field = response.header("set-cookie").expect("a cookie").to_owned();
        field.split(';').next().expect("a pair").to_owned()
    };
    let sent = ask("GET", "/", &OPENS, "");
    let page = sent
        .expect(302)
        .header("location")
        .expect("a place")
        .to_owned();
    let cookie = cookie_of(&sent);
    let form = format!("code={}", app.code(0));
    let fields = [
        ("Cookie", cookie.as_str()),
        ("Content-Type", "application/x-www-form-urlencoded"),
        ("Content-Length", "11"),
    ];
    let fields = [&SENDS[..], &fields].concat();
    let back = ask("POST", &page, &fields, &form);
    back.expect(303);
    let cookie = cookie_of(&back);
    ask("GET", "/", &[("Cookie", &cookie)], "").expect(200);
    // Who has the cookie and no certificate has nothing.
    gate.get_with("/", &[("Cookie", &cookie)]).expect(403);
}
