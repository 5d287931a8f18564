//! Header names that steer backends: identity, forwarding, overrides, and methods that are none (a14 to a17, a35, b28, b30).

use crate::harness::gate::{ADMIN, PUBLIC, request};
use crate::harness::{Gate, Issuer, Origin};

/// The values of every field at the backend whose name is `name` once `_` and `.` are read as `-`.
fn twins(origin: &Origin, name: &str) -> Vec<String> {
    origin
        .last_request()
        .head
        .fields
        .iter()
        .filter(|(field, _)| field.replace(['_', '.'], "-").eq_ignore_ascii_case(name))
        .map(|(_, value)| value.clone())
        .collect()
}

#[test]
fn a14_identity_headers_and_their_twins_never_reach_the_backend() {
    let origin = Origin::echo();
    let gate = Gate::guarding(&origin).start();
    for base in [
        "User",
        "Auth-User",
        "Auth-Subject",
        "Auth-Roles",
        "Auth-Scopes",
        "Remote-User",
    ] {
        let dashed = format!("X-{base}");
        let bytes = format!(
            "GET / HTTP/1.1\r\nHost: app.example\r\n{}: root\r\n{}: root\r\n{}: root\r\nX-Kept: yes\r\n\r\n",
            dashed.replace('-', "_"),
            dashed.replace('-', "."),
            dashed.to_ascii_lowercase(),
        );
        gate.exchange(&bytes).expect(200);
        assert!(
            twins(&origin, &dashed).is_empty(),
            "{dashed}: {:#?}",
            origin.last_request().head
        );
        assert_eq!(twins(&origin, "X-Kept"), ["yes"]);
    }
}

#[test]
fn a15_policy_reads_roles_from_the_token_alone() {
    let origin = Origin::echo();
    let issuer = Issuer::http();
    let gate = Gate::before(&origin)
        .with(&issuer.section())
        .with(PUBLIC)
        .with(ADMIN)
        .start();
    let reader = issuer.bearer(&["reader"]);
    gate.get_with(
        "/admin",
        &[
            ("Authorization", &reader),
            ("X-Role", "user"),
            ("X-Role", "admin"),
            ("X-Auth-Roles", "admin"),
            ("X-Roles", "admin"),
        ],
    )
    .expect(403);
    origin.expect_untouched();
}

#[test]
fn a15_client_copies_of_roles_are_removed() {
    let origin = Origin::echo();
    let gate = Gate::guarding(&origin).start();
    gate.get_with(
        "/",
        &[
            ("X-Role", "user"),
            ("X-Role", "admin"),
            ("X-Roles", "admin"),
        ],
    )
    .expect(200);
    assert!(twins(&origin, "X-Role").is_empty());
    assert!(twins(&origin, "X-Roles").is_empty());
}

#[test]
fn a16_connection_may_not_name_what_must_stay() {
    let origin = Origin::echo();
    let gate = Gate::guarding(&origin).start();
    for option in [
        "close, X-Forwarded-For, Authorization, X-User",
        "X-Forwarded-For",
        "authorization",
        "X-Auth-Subject",
        "Host",
        "Content-Length",
        "X-Request-Id",
        "Cookie",
    ] {
        let response = gate.get_with("/", &[("Connection", option)]);
        assert_eq!(response.status, 400, "{option}\n{}", response.text());
    }
    origin.expect_untouched();
}

#[test]
fn a16_other_connection_options_are_dropped_and_ours_stand() {
    let origin = Origin::echo();
    let gate = Gate::guarding(&origin).start();
    gate.get_with(
        "/",
        &[
            ("Connection", "keep-alive, X-Hop"),
            ("X-Hop", "1"),
            ("Keep-Alive", "timeout=5"),
            ("Proxy-Connection", "keep-alive"),
            ("TE", "gzip, deflate"),
            ("Proxy-Authorization", "Basic Og=="),
        ],
    )
    .expect(200);
    let head = origin.only_request().head;
    for name in [
        "x-hop",
        "keep-alive",
        "proxy-connection",
        "proxy-authorization",
    ] {
        assert!(head.all(name).is_empty(), "{name}: {head:#?}");
    }
    assert_eq!(head.all("x-forwarded-for"), ["127.0.0.1"]);
}

#[test]
fn a17_forwarding_and_override_headers_of_a_stranger() {
    let origin = Origin::echo();
    let gate = Gate::guarding(&origin).start();
    let sent = [
        ("X-Forwarded-For", "10.9.8.7"),
        ("X-Forwarded-Proto", "gopher"),
        ("X-Forwarded-Host", "evil.example"),
        ("X-Forwarded-Port", "666"),
        ("X-Forwarded-Prefix", "/evil"),
        ("X-Forwarded-Server", "evil.example"),
        ("X-Forwarded-Uri", "/evil"),
        ("X-Real-IP", "10.9.8.7"),
        ("Forwarded", "for=10.9.8.7;host=evil.example"),
        ("True-Client-IP", "10.9.8.7"),
        ("CF-Connecting-IP", "10.9.8.7"),
        ("X-Client-IP", "10.9.8.7"),
        ("X-Original-URL", "/evil"),
        ("X-Rewrite-URL", "/evil"),
        ("X-HTTP-Method-Override", "DELETE"),
        ("X-HTTP-Method", "DELETE"),
        ("X-Method-Override", "DELETE"),
        ("X_Forwarded_For", "10.9.8.7"),
        ("X.Original.URL", "/evil"),
    ];
    gate.get_with("/a", &sent).expect(200);
    let received = origin.only_request();
    let text = String::from_utf8_lossy(&received.head.raw).into_owned();
    for word in ["10.9.8.7", "evil", "gopher", "666", "DELETE"] {
        assert!(!text.contains(word), "`{word}` came through:\n{text}");
    }
    assert_eq!(received.head.all("x-forwarded-for"), ["127.0.0.1"]);
    assert_eq!(received.head.all("x-forwarded-proto"), ["https"]);
    assert_eq!(received.head.all("x-forwarded-host"), ["app.example"]);
    let forwarded = received.head.get("forwarded").expect("a Forwarded field");
    for part in ["for=127.0.0.1", "proto=https", "host=app.example"] {
        assert!(forwarded.replace('"', "").contains(part), "{forwarded}");
    }
    let line = gate.proxy.await_access_of("/a");
    assert_eq!(line["client.address"], "127.0.0.1");
}

#[test]
fn a17_the_limit_counts_the_peer() {
    let origin = Origin::echo();
    let gate = Gate::before(&origin)
        .defaults(
            "rate_limits = [{ name = \"tight\", key = \"client\", quota = 2, window = \"1h\" }]",
        )
        .open();
    let mut statuses = Vec::new();
    for number in 0..4 {
        let address = format!("10.0.0.{number}");
        let response = gate.get_with(
            "/",
            &[("X-Forwarded-For", &address), ("X-Real-IP", &address)],
        );
        statuses.push(response.status);
    }
    assert_eq!(statuses, [200, 200, 429, 429]);
}

#[test]
fn a35_methods_that_no_backend_should_see() {
    let origin = Origin::echo();
    let gate = Gate::guarding(&origin).start();
    for line in [
        "TRACE / HTTP/1.1",
        "TRACK / HTTP/1.1",
        "CONNECT app.example:443 HTTP/1.1",
        "get / HTTP/1.1",
        "Get / HTTP/1.1",
    ] {
        let response = gate.exchange(format!("{line}\r\nHost: app.example\r\n\r\n"));
        assert!(
            matches!(response.status, 405 | 501),
            "{line}: {}",
            response.status
        );
    }
    for line in [
        "PRI * HTTP/1.1",
        "PRI * HTTP/2.0",
        "GET / HTTP/3.0",
        "GET / HTTP/1.1 x",
        "G\u{1}T / HTTP/1.1",
    ] {
        let response = gate.exchange(format!("{line}\r\nHost: app.example\r\n\r\n"));
        assert!(
            matches!(response.status, 400 | 405 | 501 | 505),
            "{line}: {}",
            response.status
        );
    }
    origin.expect_untouched();
}

#[test]
fn a35_the_proxy_header_is_stripped() {
    let origin = Origin::echo();
    let gate = Gate::guarding(&origin).start();
    gate.get_with("/", &[("Proxy", "http://evil.example")])
        .expect(200);
    assert!(origin.only_request().head.all("proxy").is_empty());
}

#[test]
fn b28_identity_headers_are_ours_alone() {
    let origin = Origin::echo();
    let issuer = Issuer::http();
    let gate = Gate::before(&origin)
        .with(&issuer.section())
        .with(PUBLIC)
        .with(ADMIN)
        .start();
    let forged = [
        ("X-Auth-User", "root"),
        ("x_auth_user", "root"),
        ("X-AUTH-ROLES", "root"),
        ("X-Auth-Subject", "root"),
    ];
    gate.get_with("/", &forged).expect(200);
    let text = String::from_utf8_lossy(&origin.last_request().head.raw).into_owned();
    assert!(!text.contains("root"), "public route:\n{text}");

    let admin = issuer.bearer(&["admin", "reader"]);
    let mut headers = forged.to_vec();
    headers.push(("Authorization", &admin));
    gate.get_with("/admin", &headers).expect(200);
    let head = origin.last_request().head;
    let text = String::from_utf8_lossy(&head.raw).into_owned();
    assert!(!text.contains("root"), "guarded route:\n{text}");
    assert_eq!(head.all("x-auth-subject"), ["alice"]);
    let roles = head.get("x-auth-roles").expect("roles");
    assert!(
        roles.contains("admin") && roles.contains("reader"),
        "{roles}"
    );
    assert_eq!(head.all("x-auth-scopes"), ["api.read"]);
    assert!(head.all("authorization").is_empty(), "the token stays here");
}

#[test]
fn b30_nothing_a_client_says_about_its_request_changes_the_decision() {
    let origin = Origin::echo();
    let gate = Gate::guarding(&origin).start();
    let claims = [
        ("X-Forwarded-Uri", "/public"),
        ("X-Original-URL", "/public"),
        ("X-Original-URI", "/public"),
        ("X-Rewrite-URL", "/public"),
        ("X-HTTP-Method-Override", "OPTIONS"),
        ("X-Forwarded-For", "127.0.0.1"),
        ("X-Forwarded-Host", "other.example"),
        ("X-Forwarded-Prefix", "/public"),
        ("User-Agent", "internal-health-check/1.0"),
        ("Referer", "https://app.example/admin"),
    ];
    for claim in claims {
        let response = gate.get_with("/admin", &[claim]);
        assert_eq!(response.status, 401, "{claim:?}");
    }
    origin.expect_untouched();
    let mut client = gate.https();
    for claim in claims {
        client
            .send(request("GET", "/public", &[claim]))
            .response()
            .expect(200);
        let line = origin.last_request().head.line;
        assert_eq!(line, "GET /public HTTP/1.1", "{claim:?}");
    }
}
