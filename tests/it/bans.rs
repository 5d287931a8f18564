//! Guessing: a client that brings forged credentials again and again is refused for a while.

use serde_json::Value;

use crate::harness::gate::{PUBLIC, Running};
use crate::harness::{Gate, Issuer, Mint, Origin, Response, eventually};

/// The API of `corp`, beside what is for everybody.
const GUARDED: &str = r#"
[[blueprints]]
name = "api"
hosts = ["app.example"]
prefix = "/api"
upstream = "legacy"
auth = { require = ["bearer"], issuers = ["corp"] }

[[blueprints]]
name = "other"
hosts = ["app.example"]
prefix = "/other"
upstream = "legacy"
auth = { require = ["bearer"], issuers = ["corp"] }
"#;

const THREE: &str =
    "rate_limits = []\nban = { failures = 3, window = \"1h\", first = \"1h\", longest = \"3h\" }";

/// Signed by nobody, and by its own word.
const FORGED: &str = "Bearer eyJhbGciOiJub25lIiwidHlwIjoiSldUIn0.eyJpc3MiOiJodHRwczovL2lkcC5leGFtcGxlL3JlYWxtcy9tYWluIn0.c2lnbmF0dXJlc2lnbmF0dXJlc2lnbmF0dXJlc2lnbmF0dXJlc2lnbmF0dXJlc2lnbmF0dXJlc2lnbmF0dXI";

fn gate(origin: &Origin, defaults: &str) -> Gate {
    Gate::before(origin)
        .workers(2)
        .defaults(defaults)
        .issuer_without_keys()
        .with(PUBLIC)
        .with(GUARDED)
}

#[track_caller]
fn guess(gate: &Running, path: &str) -> Response {
    gate.get_with(path, &[("Authorization", FORGED)])
}

/// A metric without labels.
fn count(gate: &Running, name: &str) -> String {
    gate.proxy.metric(name, &[]).to_string()
}

/// The seconds that a refused client is told to wait.
#[track_caller]
fn expect_banned(response: &Response) -> u64 {
    response.expect(429);
    assert_eq!(response.problem()["type"], "urn:portcullis:problem:banned");
    assert_eq!(response.header("cache-control"), Some("no-store"));
    assert!(response.header("x-content-type-options").is_some());
    assert!(response.header("www-authenticate").is_none());
    let wait = response.header("retry-after").expect("Retry-After");
    wait.parse().expect("whole seconds")
}

#[test]
fn guesses_end_in_a_ban_that_public_routes_do_not_know() {
    let origin = Origin::echo();
    let gate = gate(&origin, THREE).start();
    for path in ["/api/a", "/other/b", "/api/c"] {
        guess(&gate, path).expect(401);
    }
    let wait = expect_banned(&guess(&gate, "/api/late"));
    assert!((3590..=3600).contains(&wait), "{wait}");
    expect_banned(&gate.get("/api/without-credentials"));
    expect_banned(&gate.get("/other/elsewhere"));
    origin.expect_untouched();
    gate.get("/public").expect(200);
    gate.get_with("/public", &[("Authorization", FORGED)])
        .expect(200);

    let line = gate.proxy.await_access_of("/api/late");
    assert_eq!(line["stage"], "ban", "{line}");
    assert_eq!(line["reason"], "banned", "{line}");
    assert_eq!(line["decision"], "refused", "{line}");
    gate.proxy
        .await_metric("portcullis_refusals_total", &["reason=\"banned\""], 3.0);
    assert_eq!(count(&gate, "portcullis_bans_total"), "1");
    assert_eq!(count(&gate, "portcullis_banned_clients"), "1");
    assert_eq!(count(&gate, "portcullis_ban_entries"), "1");
    gate.proxy
        .await_talk("client banned after failing to authenticate");
    let talk = gate.proxy.talk();
    assert!(talk.contains("127.0.0.1"), "{talk}");
    assert!(!talk.contains("c2lnbmF0dXJl"), "no token in the log");
}

#[test]
fn what_is_missing_expired_or_for_another_role_is_no_guess() {
    let origin = Origin::echo();
    let issuer = Issuer::http();
    let gate = Gate::before(&origin)
        .defaults(THREE)
        .with(&issuer.section())
        .with(&GUARDED.replacen(
            "issuers = [\"corp\"] }",
            "issuers = [\"corp\"], roles = { any = [\"admin\"] } }",
            1,
        ))
        .start();
    let past = crate::harness::issuer::now() - 3600;
    let expired = issuer.bearer_of(&Mint::new().claim("exp", past));
    let foreign = issuer.bearer_of(&Mint::new().claim("aud", "another"));
    let reader = issuer.bearer(&["reader"]);
    for _ in 0..4 {
        gate.get("/api").expect(401);
        for (token, status) in [(&expired, 401), (&foreign, 401), (&reader, 403)] {
            gate.get_with("/api", &[("Authorization", token)])
                .expect(status);
        }
    }
    let admin = issuer.bearer(&["admin"]);
    gate.get_with("/api", &[("Authorization", &admin)])
        .expect(200);
    assert_eq!(count(&gate, "portcullis_ban_entries"), "0");
}

#[test]
fn every_kind_of_forgery_counts() {
    let origin = Origin::echo();
    let issuer = Issuer::http();
    let kinds = [
        issuer.bearer_of(&Mint::new().with_a_foreign_key()),
        issuer.bearer_of(&Mint::new().alg(crate::harness::Alg::None)),
        issuer.bearer_of(&Mint::new().alg(crate::harness::Alg::Hs256WithRsaPublicKey)),
        "Bearer guess".to_owned(),
        "Bearer two words".to_owned(),
        format!("Bearer {}", "a".repeat(9000)),
    ];
    for token in &kinds {
        let gate = Gate::before(&origin)
            .defaults("rate_limits = []\nban = { failures = 1 }")
            .with(&issuer.section())
            .with(GUARDED)
            .start();
        let status = gate.get_with("/api", &[("Authorization", token)]).status;
        assert!(matches!(status, 400 | 401), "{token}: {status}");
        expect_banned(&gate.get("/api"));
    }
    origin.expect_untouched();
}

/// A gate that believes this machine about client addresses.
fn believing(origin: &Origin) -> Running {
    gate(origin, THREE)
        .server("trusted_proxies = [\"127.0.0.0/8\"]")
        .start()
}

#[track_caller]
fn status_from(gate: &Running, address: &str) -> u16 {
    let fields = [("X-Forwarded-For", address), ("Authorization", FORGED)];
    gate.get_with("/api", &fields).status
}

#[test]
fn a_guesser_behind_a_proxy_is_banned_alone() {
    let origin = Origin::echo();
    let gate = believing(&origin);
    for status in [401, 401, 401, 429] {
        assert_eq!(status_from(&gate, "198.51.100.1"), status);
    }
    assert_eq!(status_from(&gate, "198.51.100.2"), 401, "its neighbour");
    assert_eq!(
        status_from(&gate, "198.51.100.2, 198.51.100.1"),
        429,
        "whatever it says of itself"
    );
    assert_eq!(
        status_from(&gate, "198.51.100.1, 198.51.100.2"),
        401,
        "a name that the neighbour gives says nothing of it"
    );
    gate.get("/api").expect(401);
}

#[test]
fn nobody_can_have_another_banned_by_naming_its_address() {
    let origin = Origin::echo();
    let gate = gate(&origin, THREE).start();
    for status in [401, 401, 401, 429] {
        assert_eq!(status_from(&gate, "198.51.100.1"), status);
    }
    let line = gate
        .proxy
        .await_access("the refusal", |line| line["reason"] == "banned");
    assert_eq!(line["client.address"], "127.0.0.1", "{line}");
}

#[test]
fn an_ipv6_client_is_banned_by_its_64() {
    let origin = Origin::echo();
    let gate = believing(&origin);
    for last in 1..=3 {
        let address = format!("2001:db8:1:2::{last}");
        assert_eq!(status_from(&gate, &address), 401);
    }
    assert_eq!(status_from(&gate, "2001:db8:1:2:ffff::9"), 429);
    assert_eq!(status_from(&gate, "2001:db8:1:3::1"), 401, "another /64");
}

#[test]
fn a_ban_ends_and_the_next_is_twice_as_long() {
    let origin = Origin::echo();
    let rules = "rate_limits = []\nban = { failures = 2, first = \"2s\", longest = \"1h\" }";
    let gate = gate(&origin, rules).start();
    guess(&gate, "/api").expect(401);
    guess(&gate, "/api").expect(401);
    assert!(expect_banned(&gate.get("/api")) <= 2);
    eventually("the ban ends", || {
        (gate.get("/api").status == 401).then_some(())
    });
    guess(&gate, "/api").expect(401);
    guess(&gate, "/api").expect(401);
    let wait = expect_banned(&gate.get("/api"));
    assert!((3..=4).contains(&wait), "{wait}");
    assert_eq!(count(&gate, "portcullis_bans_total"), "2");
}

#[test]
fn a_ban_outlives_a_reload_and_a_change_of_its_rules() {
    let origin = Origin::echo();
    let gate = gate(&origin, THREE).start();
    for _ in 0..3 {
        guess(&gate, "/api").expect(401);
    }
    gate.reload();
    expect_banned(&gate.get("/api"));
    let file = gate.directory.path().join("gate.toml");
    let text = std::fs::read_to_string(&file).expect("the policy file");
    let milder = text.replace("failures = 3", "failures = 300");
    assert_ne!(milder, text);
    let before = gate.proxy.metric("portcullis_reloads_total", &[]);
    crate::harness::proxy::write_policy(gate.directory.path(), &milder);
    eventually("the change is taken up", || {
        (gate.proxy.metric("portcullis_reloads_total", &[]) > before).then_some(())
    });
    expect_banned(&gate.get("/api"));
}

#[test]
fn monitor_lets_the_banned_pass_and_off_counts_nothing() {
    let origin = Origin::echo();
    let watched = gate(
        &origin,
        &THREE.replace("{ failures", "{ mode = \"monitor\", failures"),
    )
    .start();
    for _ in 0..5 {
        guess(&watched, "/api/x").expect(401);
    }
    let would = |line: &Value| line["would_refuse"].to_string().contains("banned");
    watched.proxy.await_access("what would be refused", would);
    watched.proxy.await_metric(
        "portcullis_refusals_total",
        &["reason=\"banned\"", "mode=\"monitor\""],
        2.0,
    );
    let off = gate(
        &origin,
        &THREE.replace("{ failures", "{ mode = \"off\", failures"),
    )
    .start();
    for _ in 0..5 {
        guess(&off, "/api/x").expect(401);
    }
    assert_eq!(count(&off, "portcullis_ban_entries"), "0");
}

#[test]
fn auth_that_only_watches_bans_nobody() {
    let origin = Origin::echo();
    let gate = Gate::before(&origin)
        .defaults(THREE)
        .issuer_without_keys()
        .with(&GUARDED.replace("auth = {", "auth = { mode = \"monitor\","))
        .start();
    for _ in 0..6 {
        guess(&gate, "/api").expect(200);
    }
    assert_eq!(count(&gate, "portcullis_ban_entries"), "0");
}

#[test]
fn what_a_watching_route_counts_bans_nobody_elsewhere() {
    let origin = Origin::echo();
    let watching = r#"
[[blueprints]]
name = "watching"
hosts = ["app.example"]
prefix = "/watched"
upstream = "legacy"
ban = { mode = "monitor", failures = 1 }
auth = { require = ["bearer"], issuers = ["corp"] }
"#;
    let gate = Gate::before(&origin)
        .defaults("rate_limits = []\nban = { failures = 3 }")
        .issuer_without_keys()
        .with(GUARDED)
        .with(watching)
        .start();
    for _ in 0..5 {
        guess(&gate, "/watched").expect(401);
    }
    guess(&gate, "/api").expect(401);
}

#[test]
fn a_token_of_an_unknown_key_or_issuer_may_be_good() {
    let origin = Origin::echo();
    let issuer = Issuer::http();
    let gate = Gate::before(&origin)
        .defaults("rate_limits = []\nban = { failures = 1 }")
        .with(&issuer.section())
        .with(GUARDED)
        .start();
    for token in [
        issuer.bearer_of(&Mint::new().header("kid", "of-tomorrow")),
        issuer.bearer_of(&Mint::new().claim("iss", "https://elsewhere.example")),
    ] {
        gate.get_with("/api", &[("Authorization", &token)])
            .expect(401);
    }
    assert_eq!(count(&gate, "portcullis_ban_entries"), "0");
}

#[test]
fn without_a_word_twenty_guesses_ban_for_a_minute() {
    let origin = Origin::echo();
    let gate = gate(&origin, "rate_limits = []").start();
    for _ in 0..20 {
        guess(&gate, "/api").expect(401);
    }
    let wait = expect_banned(&gate.get("/api"));
    assert!((50..=60).contains(&wait), "{wait}");
}

#[test]
fn b46_a_forged_credential_costs_six_requests_of_the_built_in_limit() {
    let origin = Origin::echo();
    let gate = gate(&origin, "ban = { failures = 1000 }").start();
    let mut client = gate.https();
    let mut failed = 0_u32;
    loop {
        let request = crate::harness::gate::request("GET", "/api", &[("Authorization", FORGED)]);
        match client.send(request).response().status {
            401 => failed += 1,
            429 => break,
            other => panic!("{other}"),
        }
        assert!(
            failed < 35,
            "a burst of 40 at six each, and 20 a second come back"
        );
    }
    assert!(failed >= 6, "{failed}");
}

#[test]
fn b46_what_forged_credentials_cost_may_be_stated() {
    let origin = Origin::echo();
    let limit = r#"rate_limits = [{ name = "tight", key = "client", quota = 20, window = "1h", cost = { forged = 9 } }]"#;
    let gate = gate(&origin, limit).start();
    gate.get("/api").expect(401);
    for status in [401, 401, 429] {
        guess(&gate, "/api").expect(status);
    }
    gate.get("/public").expect(429);
}

#[test]
fn a_flood_of_guessers_stays_in_bounded_memory_and_frees_nobody() {
    let origin = Origin::echo();
    let gate = believing(&origin);
    for status in [401, 401, 401, 429] {
        assert_eq!(status_from(&gate, "198.51.100.1"), status);
    }
    let mut client = gate.https();
    let mut flood = |numbers: std::ops::Range<u32>| {
        for start in numbers.step_by(50) {
            let mut batch = String::new();
            for number in start..start + 50 {
                let address = format!("2001:db8:{:x}:{:x}::1", number >> 16, number & 0xffff);
                batch += &crate::harness::gate::request(
                    "GET",
                    "/api",
                    &[
                        ("X-Forwarded-For", &address),
                        ("Authorization", "Bearer guess"),
                    ],
                );
            }
            client.send(batch);
            for _ in 0..50 {
                client.response().expect(401);
            }
        }
    };
    flood(0..1_000);
    let before = gate.proxy.resident_kib();
    flood(1_000..6_000);
    let grown = gate.proxy.resident_kib().saturating_sub(before);
    assert!(grown < 16 * 1024, "grew by {grown} KiB");
    assert_eq!(status_from(&gate, "198.51.100.1"), 429);
    assert_eq!(count(&gate, "portcullis_ban_entries"), "6001");
}
