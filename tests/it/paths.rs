//! Paths and hosts: what was judged is what is forwarded, and nothing ambiguous is guessed (attacks a9 to a13, b29).

use crate::harness::gate::{ADMIN, PUBLIC, Running, request};
use crate::harness::{Gate, Issuer, Origin};

/// Sends the target as it stands and wants this status; a refused one must leave the backend untouched.
#[track_caller]
fn expect_status(gate: &Running, origin: &Origin, target: &str, status: u16) {
    let before = origin.bytes().concat().len();
    let response = gate.exchange(request("GET", target, &[]));
    assert_eq!(response.status, status, "{target}\n{}", response.text());
    if status != 200 {
        assert_eq!(
            origin.bytes().concat().len(),
            before,
            "{target} reached the backend"
        );
    }
}

#[test]
fn a09_encoded_separators_are_refused() {
    let origin = Origin::echo();
    let gate = Gate::guarding(&origin).start();
    for target in [
        "/public/..%2fadmin",
        "/public/..%2Fadmin",
        "/public/..%5cadmin",
        "/public/..\\admin",
        "/public\\..\\admin",
        "/public%2fadmin",
    ] {
        expect_status(&gate, &origin, target, 400);
    }
}

#[test]
fn a09_dot_segments_are_resolved_before_they_are_judged() {
    let origin = Origin::echo();
    let gate = Gate::guarding(&origin).start();
    for target in [
        "/public/../admin",
        "/public/%2e%2e/admin",
        "/public/.%2E/admin",
        "/admin/x/..",
        "/admin/x/../y",
        "/public/../admin?x=/public/",
    ] {
        expect_status(&gate, &origin, target, 401);
    }
}

#[test]
fn a09_a_path_that_climbs_above_the_root_is_never_public() {
    let origin = Origin::echo();
    let gate = Gate::guarding(&origin).start();
    for target in ["/public/../../admin", "/../admin", "/%2e%2e/admin", "/.."] {
        let response = gate.get(target);
        assert!(
            matches!(response.status, 400 | 401),
            "{target}: {}",
            response.status
        );
    }
    origin.expect_untouched();
}

#[test]
fn a09_the_forwarded_path_is_the_judged_one() {
    let origin = Origin::echo();
    let gate = Gate::guarding(&origin).start();
    let cases = [
        ("/admin/../public", "/public"),
        ("/a/./b/../c", "/a/c"),
        ("/a/%2e/b", "/a/b"),
        ("/%61%62c", "/abc"),
        ("/a/b/..?q=/../x", "/a/?q=/../x"),
        ("/caf%c3%a9", "/caf%C3%A9"),
        ("/a%20b", "/a%20b"),
        ("/?", "/?"),
        ("/a?x=%2f..%2f&y=%00", "/a?x=%2f..%2f&y=%00"),
    ];
    for (sent, forwarded) in cases {
        let response = gate.get(sent);
        assert_eq!(response.status, 200, "{sent}: {}", response.text());
        assert_eq!(response.json()["target"], forwarded, "{sent}");
        let seen = origin.last_request().head.raw;
        assert!(
            seen.starts_with(format!("GET {forwarded} HTTP/1.1\r\n").as_bytes()),
            "{sent}: {}",
            String::from_utf8_lossy(&seen)
        );
    }
}

#[test]
fn a10_path_parameters_are_refused_in_the_strict_profile() {
    let origin = Origin::echo();
    let gate = Gate::guarding(&origin).start();
    for target in [
        "/public/..;/admin",
        "/admin;x=y/users",
        "/;/admin",
        "/admin;",
        "/admin%3bx",
    ] {
        expect_status(&gate, &origin, target, 400);
    }
}

#[test]
fn a10_path_parameters_are_judged_away_in_the_servlet_profile() {
    let origin = Origin::echo();
    let gate = Gate::guarding(&origin)
        .upstream("profile = \"servlet\"")
        .start();
    for target in [
        "/public/..;/admin",
        "/admin;x=y/users",
        "/;/admin",
        "/admin;jsessionid=1",
    ] {
        let response = gate.get(target);
        assert!(
            matches!(response.status, 400 | 401),
            "{target}: {}",
            response.status
        );
    }
    gate.get("/admin;x=y/users").expect(401);
    origin.expect_untouched();
    gate.get("/public;x=y").expect(200);
}

#[test]
fn a11_other_spellings_of_a_path_are_that_path() {
    let origin = Origin::echo();
    let gate = Gate::guarding(&origin).start();
    for target in [
        "/admin",
        "//admin",
        "/./admin",
        "/admin/",
        "/%61dmin",
        "/%61%64min",
        "/admin//",
        "///admin//x",
        "/admin?",
        "/admin/.",
        "/x/..//admin",
    ] {
        expect_status(&gate, &origin, target, 401);
    }
}

#[test]
fn a11_letter_case_counts_unless_the_backend_ignores_it() {
    let origin = Origin::echo();
    let gate = Gate::guarding(&origin).start();
    let response = gate.get("/ADMIN");
    assert_eq!(response.expect(200).json()["target"], "/ADMIN");

    let blind = Origin::echo();
    let gate = Gate::guarding(&blind).upstream("profile = \"iis\"").start();
    for target in ["/ADMIN", "/Admin/x", "/%41dmin"] {
        expect_status(&gate, &blind, target, 401);
    }
}

#[test]
fn a11_a_longer_word_is_another_path() {
    let origin = Origin::echo();
    let gate = Gate::guarding(&origin).start();
    for target in ["/administrator", "/admin.html", "/adm", "/x/admin"] {
        expect_status(&gate, &origin, target, 200);
    }
}

#[test]
fn a12_bytes_that_do_not_belong_in_a_path() {
    let origin = Origin::echo();
    let gate = Gate::guarding(&origin).start();
    for target in [
        "/admin%00.png",
        "/adm%zz",
        "/adm%",
        "/adm%2",
        "/a#/admin",
        "/a%0a",
        "/a%0D%0Ab",
        "/a%7f",
        "/a\tb",
        "/a%u0061",
        "admin",
        "*",
        "",
        "?x",
        "//",
        "/a\u{7f}",
    ] {
        let response = gate.exchange(request("GET", target, &[]));
        if target == "//" {
            // Only slashes: one root.
            response.expect(200);
            assert_eq!(origin.only_request().head.target(), "/");
            continue;
        }
        assert_eq!(response.status, 400, "{target:?}\n{}", response.text());
    }
    let response = gate.exchange(b"GET /\x80 HTTP/1.1\r\nHost: app.example\r\n\r\n");
    response.expect(400);
    let response = gate.exchange(b"GET /?\x80 HTTP/1.1\r\nHost: app.example\r\n\r\n");
    response.expect(400);
    assert_eq!(origin.requests().len(), 1);
}

#[test]
fn a12_bytes_that_a_path_should_have_encoded() {
    let origin = Origin::echo();
    let gate = Gate::guarding(&origin).start();
    for (target, encoded) in [
        ("/a\"b", "/a%22b"),
        ("/a<b", "/a%3Cb"),
        ("/a|b", "/a%7Cb"),
        ("/a^b`", "/a%5Eb%60"),
        ("/a{b}", "/a%7Bb%7D"),
    ] {
        let response = gate.exchange(request("GET", target, &[]));
        match response.status {
            400 => {}
            200 => assert_eq!(response.json()["target"], encoded),
            other => panic!("{target}: {other}"),
        }
    }
}

#[test]
fn a12_double_encoding_is_never_decoded_twice() {
    let origin = Origin::echo();
    let gate = Gate::guarding(&origin).start();
    for target in [
        "/%252e%252e/admin",
        "/%2561dmin",
        "/public/..%252fadmin",
        "/admin%2500",
    ] {
        let response = gate.get(target);
        match response.status {
            400 => {}
            200 => {
                let seen = response.json()["target"].as_str().map(str::to_owned);
                assert!(seen.is_some_and(|seen| seen.contains("%25")), "{target}");
            }
            other => panic!("{target}: {other}"),
        }
    }
}

#[test]
fn a13_hosts_that_are_not_one_host() {
    let origin = Origin::echo();
    let gate = Gate::guarding(&origin).start();
    for head in [
        "GET http://internal/admin HTTP/1.1\r\nHost: app.example",
        "GET https://internal/admin HTTP/1.1\r\nHost: app.example",
        "GET / HTTP/1.1\r\nHost: app.example\r\nHost: app.example",
        "GET / HTTP/1.1\r\nHost: app.example\r\nHost: internal",
        "GET / HTTP/1.1\r\nHost: app.example@internal",
        "GET / HTTP/1.1\r\nHost: internal@app.example",
        "GET / HTTP/1.1",
        "GET / HTTP/1.1\r\nHost:",
        "GET / HTTP/1.1\r\nHost: app.example, internal",
        "GET / HTTP/1.1\r\nHost: app.example/x",
        "GET / HTTP/1.1\r\nHost: app.example:99999",
        "GET / HTTP/1.1\r\nHost: app.example:x",
        "GET / HTTP/1.1\r\nHost: app.example\\internal",
        "GET / HTTP/1.1\r\nHost: app .example",
        "GET / HTTP/1.1\r\n Host: app.example",
        "GET / HTTP/1.1\r\nHost : app.example",
    ] {
        let response = gate.exchange(format!("{head}\r\n\r\n"));
        assert_eq!(response.status, 400, "{head:?}\n{}", response.text());
    }
    origin.expect_untouched();
}

#[test]
fn a13_one_host_in_its_other_spellings() {
    let origin = Origin::echo();
    let gate = Gate::guarding(&origin).start();
    for (line, host) in [
        ("GET /x", "APP.example"),
        ("GET /x", "app.example:443"),
        ("GET /x", "app.example."),
        ("GET https://app.example/x", "app.example"),
    ] {
        let response = gate.exchange(format!("{line} HTTP/1.1\r\nHost: {host}\r\n\r\n"));
        assert_eq!(response.status, 200, "{line} {host}\n{}", response.text());
        assert_eq!(origin.last_request().head.target(), "/x");
    }
    let guarded =
        gate.exchange("GET https://app.example/admin HTTP/1.1\r\nHost: app.example\r\n\r\n");
    guarded.expect(401);
}

#[test]
fn a_host_that_no_blueprint_has_is_unknown() {
    let origin = Origin::echo();
    let gate = Gate::guarding(&origin).start();
    let response = gate
        .https_to("localhost")
        .send("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        .response();
    assert_eq!(
        response.expect(404).problem()["type"],
        "urn:portcullis:problem:route-unknown"
    );
    origin.expect_untouched();
}

/// `/api` for readers, `/api/admin` for admins, the rest for everybody.
const API: &str = r#"
[[blueprints]]
name = "app"
hosts = ["app.example"]
upstream = "legacy"
auth = "public"

[[blueprints]]
name = "api"
hosts = ["app.example"]
prefix = "/api"
upstream = "legacy"
[blueprints.auth]
require = ["bearer"]
issuers = ["corp"]
roles = { any = ["reader", "admin"] }

[[blueprints.routes]]
name = "admin"
path = "/admin"
auth = { roles = { any = ["admin"] } }

[[blueprints.routes]]
name = "admin-below"
path = "/admin/{*rest}"
auth = { roles = { any = ["admin"] } }
"#;

#[test]
fn b29_no_spelling_of_a_guarded_path_is_another_route() {
    let origin = Origin::echo();
    let issuer = Issuer::http();
    let gate = Gate::before(&origin)
        .with(&issuer.section())
        .with(API)
        .start();
    let reader = issuer.bearer(&["reader"]);
    let authorization = [("Authorization", reader.as_str())];
    gate.get_with("/api/other", &authorization).expect(200);
    let before = origin.requests().len();
    for target in [
        "/api/admin",
        "/api/%61dmin",
        "/api//admin",
        "/api/./admin",
        "/api/x/../admin",
        "/api/admin;x",
        "/api/admin%23",
        "/api/admin/",
        "/api/admin%2f",
        "/api/admin%00",
        "/api/admin\\",
        "/api/x%2f..%2fadmin",
        "/api/admin/.",
        "//api/admin",
        "/x/../api/admin",
        "/%61pi/admin",
    ] {
        let response = gate.get_with(target, &authorization);
        if target == "/api/admin%23" && response.status == 200 {
            // A name that holds an encoded `#` may be a name of its own, if it is forwarded as it was judged.
            assert_eq!(origin.last_request().head.target(), target);
            continue;
        }
        assert!(
            matches!(response.status, 400 | 403),
            "{target}: {}",
            response.status
        );
    }
    let reached: Vec<_> = origin.requests()[before..]
        .iter()
        .map(|received| received.head.target().to_owned())
        .filter(|target| target != "/api/admin%23")
        .collect();
    assert!(reached.is_empty(), "{reached:?}");
}

#[test]
fn b29_a_trailing_slash_is_no_way_around_a_route() {
    let origin = Origin::echo();
    let issuer = Issuer::http();
    let only_admin = API.replace(
        "[[blueprints.routes]]\nname = \"admin-below\"\npath = \"/admin/{*rest}\"\nauth = { roles = { any = [\"admin\"] } }\n",
        "",
    );
    assert_ne!(only_admin, API);
    let gate = Gate::before(&origin)
        .with(&issuer.section())
        .with(&only_admin)
        .start();
    let reader = issuer.bearer(&["reader"]);
    for target in [
        "/api/admin",
        "/api/admin/",
        "/api//admin//",
        "/api/admin/.",
        "/api/admin?",
        "/api/admin/x/..",
    ] {
        let response = gate.get_with(target, &[("Authorization", &reader)]);
        assert!(
            matches!(response.status, 400 | 403),
            "{target}: {}",
            response.status
        );
    }
    origin.expect_untouched();
}

/// The guard on `/admin/{*rest}`, the rest public.
const BELOW: &str = r#"
[[blueprints]]
name = "app"
upstream = "legacy"
auth = "public"

[[blueprints.routes]]
path = "/admin/{*rest}"
auth = { require = ["bearer"], issuers = ["corp"] }
"#;

#[test]
fn a_pattern_for_all_below_a_path_takes_the_path_itself() {
    let origin = Origin::echo();
    let gate = Gate::before(&origin)
        .issuer_without_keys()
        .with(BELOW)
        .start();
    // Backends serve what is below `/admin/` for the second, and many for the first.
    for path in [
        "/admin",
        "/admin/",
        "/admin//",
        "/admin/.",
        "/admin/x",
        "/admin/x/..",
    ] {
        gate.get(path).expect(401);
    }
    origin.expect_untouched();
    gate.get("/administrators").expect(200);
}

#[test]
fn a_backend_that_folds_case_is_guarded_however_the_file_writes_a_path() {
    let origin = Origin::echo();
    for guard in [
        ADMIN.replace("\"/admin\"", "\"/Admin\""),
        format!(
            "{ADMIN}\n[[blueprints.routes]]\npath = \"/Users/{{Id}}\"\n\
             auth = {{ roles = {{ any = [\"root\"] }} }}\n"
        ),
        "[[blueprints]]\nname = \"shut\"\nhosts = [\"app.example\"]\nprefix = \"/Admin\"\n\
         unmatched = \"refuse\"\nupstream = \"legacy\"\nauth = \"public\"\n"
            .to_owned(),
    ] {
        let gate = Gate::before(&origin)
            .upstream("profile = \"iis\"")
            .issuer_without_keys()
            .with(PUBLIC)
            .with(&guard)
            .start();
        for path in ["/Admin", "/admin", "/ADMIN/users/7", "/Admin/Users/7"] {
            let status = gate.get(path).status;
            assert!(matches!(status, 401 | 404), "{path}: {status}\n{guard}");
        }
    }
    origin.expect_untouched();
}
