//! Cross-origin rules (cases b9 to b16, attack a27; b14 is a load error and stands in `config`).

use crate::harness::gate::Running;
use crate::harness::{Gate, Issuer, Origin, Response};

const APP: &str = "https://app.example";

/// `/api` with cross-origin rules and a token, before a backend that would let everybody read.
fn api(issuer: &str) -> String {
    issuer.to_owned()
        + r#"
[[blueprints]]
name = "api"
hosts = ["app.example"]
prefix = "/api"
upstream = "legacy"
[blueprints.auth]
require = ["bearer"]
issuers = ["corp"]
[blueprints.cors]
origins = ["https://app.example", "https://*.partner.example"]
methods = ["GET", "PUT"]
headers = ["authorization", "x-a"]
expose = ["etag"]
credentials = true
max_age = "10m"
"#
}

fn gate(origin: &Origin) -> Running {
    Gate::before(origin)
        .issuer_without_keys()
        .with(&api(""))
        .start()
}

fn preflight(gate: &Running, origin: &str, method: &str, headers: &str) -> Response {
    gate.request(
        "OPTIONS",
        "/api/users",
        &[
            ("Origin", origin),
            ("Access-Control-Request-Method", method),
            ("Access-Control-Request-Headers", headers),
        ],
    )
}

/// The members of a comma-separated header, in lower case and sorted.
fn members(response: &Response, name: &str) -> Vec<String> {
    let mut members: Vec<_> = response
        .headers(name)
        .iter()
        .flat_map(|value| value.split(','))
        .map(|member| member.trim().to_ascii_lowercase())
        .collect();
    members.sort_unstable();
    members
}

#[track_caller]
fn expect_no_grant(response: &Response) {
    let granted: Vec<_> = response
        .head
        .fields
        .iter()
        .filter(|(name, _)| name.to_ascii_lowercase().starts_with("access-control-"))
        .collect();
    assert!(granted.is_empty(), "{granted:?}");
}

#[track_caller]
fn expect_preflight_vary(response: &Response) {
    let vary = members(response, "vary");
    for name in [
        "origin",
        "access-control-request-method",
        "access-control-request-headers",
    ] {
        assert!(vary.iter().any(|member| member == name), "{vary:?}");
    }
}

#[test]
fn b09_an_allowed_preflight_is_answered_here() {
    let origin = Origin::echo();
    let gate = gate(&origin);
    let response = preflight(&gate, APP, "PUT", "authorization, x-a");
    response.expect(204);
    assert!(response.body.is_empty());
    assert_eq!(response.headers("access-control-allow-origin"), [APP]);
    assert_eq!(
        response.headers("access-control-allow-credentials"),
        ["true"]
    );
    assert_eq!(
        members(&response, "access-control-allow-methods"),
        ["get", "put"]
    );
    assert_eq!(
        members(&response, "access-control-allow-headers"),
        ["authorization", "x-a"]
    );
    assert_eq!(response.headers("access-control-max-age"), ["600"]);
    expect_preflight_vary(&response);
    assert_eq!(response.headers("x-content-type-options"), ["nosniff"]);
    origin.expect_untouched();
    let line = gate.proxy.await_access_of("/api/users");
    assert_eq!(line["decision"], "answered", "{line}");
    assert_eq!(line["stage"], "cors", "{line}");
}

#[test]
fn b09_header_names_are_compared_without_case_and_may_be_absent() {
    let origin = Origin::echo();
    let gate = gate(&origin);
    preflight(&gate, APP, "PUT", "Authorization,X-A").expect(204);
    gate.request(
        "OPTIONS",
        "/api/users",
        &[("Origin", APP), ("Access-Control-Request-Method", "GET")],
    )
    .expect(204);
    origin.expect_untouched();
}

#[test]
fn b10_an_origin_not_listed_gets_nothing() {
    let origin = Origin::echo();
    let gate = gate(&origin);
    let response = preflight(&gate, "https://evil.example", "PUT", "authorization");
    assert_eq!(
        response.expect(403).problem()["type"],
        "urn:portcullis:problem:origin-denied"
    );
    expect_no_grant(&response);
    expect_preflight_vary(&response);
    for (method, headers) in [("DELETE", "authorization"), ("put", "x-a"), ("PUT", "x-b")] {
        let response = preflight(&gate, APP, method, headers);
        response.expect(403);
        expect_preflight_vary(&response);
    }
    origin.expect_untouched();
}

#[test]
fn b11_options_without_a_requested_method_is_a_request_like_any_other() {
    let origin = Origin::echo();
    let gate = gate(&origin);
    gate.request("OPTIONS", "/api/users", &[("Origin", APP)])
        .expect(401);
    gate.request(
        "OPTIONS",
        "/api/users",
        &[("Access-Control-Request-Method", "PUT")],
    )
    .expect(401);
    origin.expect_untouched();
}

#[test]
fn b12_without_an_origin_there_is_only_vary() {
    let origin = Origin::with_headers(&[("Vary", "Accept-Encoding")]);
    let issuer = Issuer::http();
    let gate = Gate::before(&origin).with(&api(&issuer.section())).start();
    let token = issuer.bearer(&["reader"]);
    let response = gate.get_with("/api/users", &[("Authorization", &token)]);
    response.expect(200);
    expect_no_grant(&response);
    assert_eq!(members(&response, "vary"), ["accept-encoding", "origin"]);
}

const STRANGERS: [&str; 12] = [
    "null",
    "https://app.example.evil.com",
    "https://APP.example",
    "HTTPS://app.example",
    "http://app.example",
    "https://app.example:8443",
    "https://app.example/",
    "https://evil.example/https://app.example",
    "https://partner.example",
    "https://a.b.partner.example",
    "https://evilpartner.example",
    "https://x.partner.example.evil.com",
];

#[test]
fn b13_near_misses_do_not_match() {
    let origin = Origin::with_headers(&[("Access-Control-Allow-Origin", "*")]);
    let issuer = Issuer::http();
    let gate = Gate::before(&origin).with(&api(&issuer.section())).start();
    let token = issuer.bearer(&["reader"]);
    for stranger in STRANGERS {
        let response = preflight(&gate, stranger, "PUT", "authorization");
        assert_eq!(response.status, 403, "{stranger}");
        expect_no_grant(&response);
        let response = gate.get_with(
            "/api/users",
            &[("Authorization", &token), ("Origin", stranger)],
        );
        expect_no_grant(&response);
        assert!(
            members(&response, "vary").contains(&"origin".to_owned()),
            "{stranger}"
        );
    }
    let response = preflight(&gate, "https://x.partner.example", "PUT", "authorization");
    response.expect(204);
    assert_eq!(
        response.headers("access-control-allow-origin"),
        ["https://x.partner.example"]
    );
}

#[test]
fn b15_the_grant_is_ours_alone() {
    let origin = Origin::with_headers(&[
        ("Access-Control-Allow-Origin", "*"),
        ("Access-Control-Allow-Credentials", "true"),
        ("Access-Control-Allow-Methods", "DELETE"),
        ("Access-Control-Expose-Headers", "x-secret"),
        ("ETag", "\"1\""),
    ]);
    let issuer = Issuer::http();
    let gate = Gate::before(&origin).with(&api(&issuer.section())).start();
    let token = issuer.bearer(&["reader"]);
    let response = gate.get_with("/api/users", &[("Authorization", &token), ("Origin", APP)]);
    response.expect(200);
    assert_eq!(response.headers("access-control-allow-origin"), [APP]);
    assert_eq!(
        response.headers("access-control-allow-credentials"),
        ["true"]
    );
    assert_eq!(
        members(&response, "access-control-expose-headers"),
        ["etag"]
    );
    assert!(response.headers("access-control-allow-methods").is_empty());
    assert!(members(&response, "vary").contains(&"origin".to_owned()));
}

#[test]
fn b15_refusals_can_be_read_by_an_allowed_origin() {
    let origin = Origin::echo();
    let gate = Gate::before(&origin)
        .issuer_without_keys()
        .defaults(
            "rate_limits = [{ name = \"tight\", key = \"client\", quota = 1, window = \"1h\" }]",
        )
        .with(&api(""))
        .start();
    for status in [401, 429] {
        let response = gate.get_with("/api/users", &[("Origin", APP)]);
        response.expect(status).problem();
        assert_eq!(response.headers("access-control-allow-origin"), [APP]);
        assert_eq!(
            response.headers("access-control-allow-credentials"),
            ["true"]
        );
        assert!(members(&response, "vary").contains(&"origin".to_owned()));
    }
    let response = gate.get_with("/api/users", &[("Origin", "https://evil.example")]);
    expect_no_grant(&response);
}

#[test]
fn b16_private_network_access_is_not_granted() {
    let origin = Origin::echo();
    let gate = gate(&origin);
    let response = gate.request(
        "OPTIONS",
        "/api/users",
        &[
            ("Origin", APP),
            ("Access-Control-Request-Method", "GET"),
            ("Access-Control-Request-Private-Network", "true"),
        ],
    );
    response.expect(204);
    assert!(
        response
            .headers("access-control-allow-private-network")
            .is_empty()
    );
}

#[test]
fn a27_preflights_of_strangers_never_reach_the_backend() {
    let origin = Origin::echo();
    let gate = gate(&origin);
    for stranger in [
        "https://evil.example",
        "null",
        "https://app.example.evil.com",
        "HTTPS://APP.example",
    ] {
        let response = preflight(&gate, stranger, "PUT", "authorization");
        response.expect(403);
        expect_no_grant(&response);
        expect_preflight_vary(&response);
    }
    origin.expect_untouched();
}

#[test]
fn monitor_lets_a_stranger_pass_and_says_so() {
    let origin = Origin::echo();
    let gate = Gate::before(&origin)
        .with(
            r#"
[[blueprints]]
name = "api"
hosts = ["app.example"]
upstream = "legacy"
auth = "public"
[blueprints.cors]
mode = "monitor"
origins = ["https://app.example"]
methods = ["GET"]
"#,
        )
        .start();
    gate.request(
        "OPTIONS",
        "/watched",
        &[
            ("Origin", "https://evil.example"),
            ("Access-Control-Request-Method", "PUT"),
        ],
    )
    .expect(200);
    assert_eq!(origin.only_request().head.method(), "OPTIONS");
    let line = gate.proxy.await_access_of("/watched");
    assert!(
        line["would_refuse"].to_string().contains("origin-denied"),
        "{line}"
    );
}
