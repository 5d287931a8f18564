//! Requests that a page of another site has its visitor's browser make (attack 28, behaviour 39).

use crate::harness::curl::curl;
use crate::harness::gate::{PUBLIC, Running, request};
use crate::harness::openssl::Authority;
use crate::harness::proxy::portcullis_verb;
use crate::harness::{Client, Gate, Issuer, Origin, Response, TlsOptions};

const SESSION: (&str, &str) = ("Cookie", "s=1");
const OWN: (&str, &str) = ("Origin", "https://app.example");
const EVIL: (&str, &str) = ("Origin", "https://evil.example");
const CROSS: (&str, &str) = ("Sec-Fetch-Site", "cross-site");
const SAME: (&str, &str) = ("Sec-Fetch-Site", "same-origin");

/// A request with a body of two bytes, which is what a form sends.
fn form(method: &str, path: &str, fields: &[(&str, &str)]) -> String {
    let mut all = vec![
        ("Content-Type", "application/x-www-form-urlencoded"),
        ("Content-Length", "2"),
    ];
    all.extend(fields);
    request(method, path, &all) + "a="
}

#[track_caller]
fn post(gate: &Running, path: &str, fields: &[(&str, &str)]) -> Response {
    gate.exchange(form("POST", path, fields))
}

#[track_caller]
fn expect_refused(response: &Response) {
    let problem = response.expect(403).problem();
    assert_eq!(problem["type"], "urn:portcullis:problem:csrf");
    let text = response.text();
    for word in ["evil", "cross-site", "Origin", "cookie"] {
        assert!(!text.contains(word), "which check failed is told: {text}");
    }
}

type Fields = &'static [(&'static str, &'static str)];

/// What no page of the host itself and no other client sends, and the word for the log.
const FORGED: [(Fields, &str); 21] = [
    (&[CROSS, SESSION], "cross-site"),
    (&[CROSS], "cross-site"),
    (&[("Sec-Fetch-Site", "same-site"), SESSION], "same-site"),
    (
        &[("Sec-Fetch-Site", "Same-Origin"), SESSION],
        "unknown-site",
    ),
    (
        &[("Sec-Fetch-Site", "same-origin, none"), SESSION],
        "unknown-site",
    ),
    (&[SAME, SAME, SESSION], "two-values"),
    (&[SAME, CROSS, SESSION], "two-values"),
    (&[SAME, EVIL, SESSION], "contradiction"),
    (&[CROSS, OWN, SESSION], "cross-site"),
    (&[EVIL, SESSION], "other-origin"),
    (&[("Origin", "http://app.example"), SESSION], "other-origin"),
    (&[("Origin", "null"), SESSION], "null-origin"),
    (&[("Origin", ""), SESSION], "other-origin"),
    (
        &[("Origin", "https://app.example/"), SESSION],
        "other-origin",
    ),
    (
        &[("Origin", "https://APP.example"), SESSION],
        "other-origin",
    ),
    (
        &[("Origin", "https://app.example:443"), SESSION],
        "other-origin",
    ),
    (
        &[("Origin", "https://app.example:8443"), SESSION],
        "other-origin",
    ),
    (
        &[
            ("Origin", "https://app.example, https://evil.example"),
            SESSION,
        ],
        "other-origin",
    ),
    (&[OWN, OWN, SESSION], "two-values"),
    (&[OWN, EVIL, SESSION], "two-values"),
    (&[SESSION], "cookie-without-page"),
];

#[test]
fn a28_a_page_of_another_site_changes_nothing() {
    let origin = Origin::echo();
    let gate = Gate::before(&origin).open();
    for (fields, detail) in FORGED {
        let path = format!("/transfer/{detail}");
        for method in ["POST", "PUT", "PATCH", "DELETE"] {
            let response = gate.exchange(form(method, &path, fields));
            expect_refused(&response);
            assert!(response.header("strict-transport-security").is_some());
        }
        let line = gate.proxy.await_access_of(&path);
        assert_eq!(line["decision"], "refused", "{line}");
        assert_eq!(line["stage"], "csrf", "{line}");
        assert_eq!(line["reason"], "csrf", "{line}");
        assert_eq!(line["detail"], detail, "{line}");
        assert!(!line.to_string().contains("s=1"), "{line}");
    }
    origin.expect_untouched();
    let labels = ["stage=\"csrf\"", "reason=\"csrf\"", "mode=\"enforce\""];
    gate.proxy
        .await_metric("portcullis_refusals_total", &labels, 84.0);
}

#[test]
fn b39_own_pages_and_who_is_no_browser_pass() {
    let origin = Origin::echo();
    let gate = Gate::before(&origin).open();
    for fields in [
        &[SAME, SESSION][..],
        &[SAME, OWN, SESSION],
        // A form of a page with `Referrer-Policy: no-referrer`.
        &[SAME, ("Origin", "null"), SESSION],
        &[("Sec-Fetch-Site", "none"), SESSION],
        &[OWN, SESSION],
        &[],
    ] {
        let before = origin.requests().len();
        post(&gate, "/transfer", fields).expect(200);
        let reached = origin.requests().split_off(before);
        assert_eq!(reached.len(), 1, "{fields:?}");
        assert_eq!(reached[0].body, b"a=");
        for (name, value) in fields {
            assert_eq!(
                reached[0].head.get(name),
                Some(*value),
                "what was judged goes on"
            );
        }
    }
    for method in ["GET", "HEAD", "OPTIONS"] {
        let fields = [CROSS, SESSION, ("Sec-Fetch-Mode", "navigate")];
        gate.request(method, "/page", &fields).expect(200);
    }
}

#[test]
fn a28_over_http_2_the_same_holds() {
    let origin = Origin::echo();
    let gate = Gate::before(&origin).open();
    let ca = gate.directory.path().join("ca.pem");
    let send = |fields: &[&str]| {
        let mut arguments = vec!["--http2", "--data", "a="];
        arguments.extend(fields.iter().flat_map(|field| ["-H", field]));
        let answer = curl(gate.proxy.https(), &ca, "/transfer", &arguments);
        assert_eq!(answer.version, "2");
        answer
    };
    for foreign in [
        &["Cookie: s=1", "Sec-Fetch-Site: cross-site"][..],
        &["Cookie: s=1", "Origin: https://evil.example"],
        &["Cookie: s=1", "Origin: http://app.example"],
        &["Cookie: s=1", "Origin: null"],
        &["Cookie: s=1"],
        &["Sec-Fetch-Site: same-origin", "Sec-Fetch-Site: same-origin"],
        &[
            "Sec-Fetch-Site: same-origin",
            "Origin: https://evil.example",
        ],
    ] {
        let answer = send(foreign);
        assert_eq!(answer.status, 403, "{foreign:?}");
        let text = String::from_utf8_lossy(&answer.body).into_owned();
        assert!(text.contains("urn:portcullis:problem:csrf"), "{text}");
    }
    origin.expect_untouched();
    for own in [
        &[
            "Cookie: s=1",
            "Sec-Fetch-Site: same-origin",
            "Origin: https://app.example",
        ][..],
        &["Cookie: s=1", "Origin: https://app.example"],
        &[],
    ] {
        assert_eq!(send(own).status, 200, "{own:?}");
    }
}

#[test]
fn b39_a_route_that_takes_tokens_alone_is_exempt() {
    let issuer = Issuer::http();
    let origin = Origin::echo();
    let gate = Gate::before(&origin)
        .with(&issuer.section())
        .with(
            "[[blueprints]]\nname = \"api\"\nhosts = [\"app.example\"]\nupstream = \"legacy\"\n\
             auth = { require = [\"bearer\"], issuers = [\"corp\"] }\n\
             [[blueprints.routes]]\npath = \"/watched\"\nauth = { mode = \"monitor\" }\n\
             [[blueprints.routes]]\npath = \"/open\"\nauth = \"public\"\n",
        )
        .start();
    let token = issuer.bearer(&["reader"]);
    let token = ("Authorization", token.as_str());
    for fields in [&[token, CROSS, EVIL, SESSION][..], &[token, SESSION]] {
        post(&gate, "/api", fields).expect(200);
    }
    let before = origin.requests().len();
    post(&gate, "/api", &[CROSS, SESSION]).expect(401);
    // Where a token is no condition, a cookie may be what the backend goes by.
    expect_refused(&post(&gate, "/watched", &[CROSS, SESSION]));
    expect_refused(&post(&gate, "/open", &[token, CROSS, SESSION]));
    assert_eq!(origin.requests().len(), before);
}

#[test]
fn a28_a_certificate_is_what_a_browser_shows_for_any_page() {
    let origin = Origin::echo();
    let gate = Gate::before(&origin);
    let clients = Authority::new(gate.directory(), "clients");
    let gate = gate
        .tls_keys("client_ca = \"clients.pem\"")
        .with(
            "[client_certificates.any]\nissuer = \"CN=clients,O=Example\"\nsubject_from = \"cn\"\n\
             [[blueprints]]\nname = \"app\"\nhosts = [\"app.example\"]\nupstream = \"legacy\"\n\
             auth = { require = [\"mtls\"], certificates = [\"any\"] }\n\
             [[blueprints.routes]]\npath = \"/shared\"\ncors = { origins = [\"https://shop.example\"] }\n",
        )
        .start();
    let leaf = clients.client("web", "/O=Example/CN=web", "DNS:web.example");
    let ask = |path: &str, fields: &[(&str, &str)]| {
        let options = TlsOptions::presenting(&gate.ca, "app.example", &leaf);
        let mut client = Client::tls(gate.proxy.https(), &options);
        client.send(form("POST", path, fields)).response()
    };
    for foreign in [&[CROSS][..], &[EVIL], &[("Origin", "null")]] {
        expect_refused(&ask("/", foreign));
    }
    // `cors` without credentials lets nobody act in the name of the certificate.
    let shop = ("Origin", "https://shop.example");
    expect_refused(&ask("/shared", &[CROSS, shop]));
    origin.expect_untouched();
    ask("/", &[]).expect(200);
    ask("/", &[SAME, OWN]).expect(200);
}

#[test]
fn an_origin_that_the_file_names_may_act_and_its_neighbours_may_not() {
    let origin = Origin::echo();
    let gate = Gate::before(&origin)
        .with(PUBLIC)
        .with(
            "[blueprints.csrf]\norigins = [\"https://login.example\", \"https://*.partner.example\"]\n\
             [[blueprints.routes]]\npath = \"/shop\"\n\
             cors = { origins = [\"https://shop.example\"], credentials = true, methods = [\"POST\"] }\n\
             [[blueprints.routes]]\npath = \"/read\"\n\
             cors = { origins = [\"https://shop.example\"], credentials = true, methods = [\"GET\"] }\n\
             [[blueprints.routes]]\npath = \"/anybody\"\ncors = { origins = [\"*\"] }\n",
        )
        .start();
    let from = |path: &str, page: &str, more: &[(&str, &str)]| {
        let mut fields = vec![CROSS, ("Origin", page)];
        fields.extend(more);
        post(&gate, path, &fields)
    };
    for page in ["https://login.example", "https://a.partner.example"] {
        from("/callback", page, &[SESSION]).expect(200);
    }
    from("/shop", "https://shop.example", &[SESSION]).expect(200);
    from("/anybody", "https://evil.example", &[]).expect(200);
    let before = origin.requests().len();
    for page in [
        "https://login.example:8443",
        "http://login.example",
        "https://login.example/",
        "https://LOGIN.example",
        "https://a.b.partner.example",
        "https://login.example.evil.example",
        "null",
    ] {
        expect_refused(&from("/callback", page, &[SESSION]));
    }
    expect_refused(&from("/callback", "https://shop.example", &[SESSION]));
    expect_refused(&from("/read", "https://shop.example", &[SESSION]));
    expect_refused(&from("/anybody", "https://evil.example", &[SESSION]));
    expect_refused(&from("/anybody", "null", &[]));
    assert_eq!(origin.requests().len(), before);
}

#[test]
fn the_file_says_what_becomes_of_who_says_nothing_of_a_page() {
    let origin = Origin::echo();
    let gate = Gate::before(&origin)
        .with(PUBLIC)
        .with(
            "[[blueprints.routes]]\npath = \"/strict\"\ncsrf = { non_browser = \"refuse\" }\n\
             [[blueprints.routes]]\npath = \"/lax\"\ncsrf = { non_browser = \"allow\" }\n\
             [[blueprints.routes]]\npath = \"/watched\"\ncsrf = { mode = \"monitor\" }\n\
             [[blueprints.routes]]\npath = \"/off\"\ncsrf = { mode = \"off\" }\n",
        )
        .start();
    expect_refused(&post(&gate, "/strict", &[]));
    expect_refused(&post(&gate, "/lax", &[CROSS, SESSION]));
    origin.expect_untouched();
    for (path, fields) in [
        ("/strict", &[SAME, SESSION][..]),
        ("/lax", &[SESSION]),
        ("/watched", &[CROSS, SESSION]),
        ("/off", &[CROSS, SESSION]),
    ] {
        post(&gate, path, fields).expect(200);
    }
    let line = gate.proxy.await_access_of("/watched");
    assert_eq!(line["would_refuse"][0], "csrf", "{line}");
    let line = gate.proxy.await_access_of("/off");
    assert!(line.get("would_refuse").is_none(), "{line}");
    let labels = ["reason=\"csrf\"", "mode=\"monitor\""];
    gate.proxy
        .await_metric("portcullis_refusals_total", &labels, 1.0);
}

#[test]
fn a_proxy_that_ends_tls_says_what_the_browser_saw() {
    let origin = Origin::echo();
    let gate = Gate::before(&origin)
        .server("plaintext = true\ntrusted_proxies = [\"127.0.0.1\"]")
        .open();
    let ask = |fields: &[(&str, &str)]| {
        let mut client = gate.http();
        client.send(form("POST", "/", fields)).response()
    };
    let seen = ("X-Forwarded-Proto", "https");
    ask(&[seen, OWN, SESSION]).expect(200);
    ask(&[SAME, OWN, SESSION]).expect(200);
    let before = origin.requests().len();
    expect_refused(&ask(&[seen, ("Origin", "http://app.example"), SESSION]));
    expect_refused(&ask(&[OWN, SESSION]));
    expect_refused(&ask(&[
        seen,
        SAME,
        ("Origin", "http://app.example"),
        SESSION,
    ]));
    assert_eq!(origin.requests().len(), before);
}

#[test]
fn a_proxy_that_calls_a_handshake_wss_is_understood() {
    let origin = Origin::echo();
    let gate = Gate::before(&origin)
        .server("plaintext = true\ntrusted_proxies = [\"127.0.0.1\"]")
        .open();
    let open = |proto: (&str, &str), page: (&str, &str)| {
        let fields = [
            ("Connection", "Upgrade"),
            ("Upgrade", "websocket"),
            ("Sec-WebSocket-Version", "13"),
            ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
            proto,
            page,
            SESSION,
        ];
        let mut client = gate.http();
        client.send(request("GET", "/ws", &fields)).response()
    };
    let clear = ("Origin", "http://app.example");
    let foreign = "urn:portcullis:problem:origin-denied";
    for secure in [
        ("X-Forwarded-Proto", "wss"),
        ("Forwarded", "for=192.0.2.9;proto=wss"),
    ] {
        let denied = open(secure, clear);
        assert_eq!(denied.expect(403).problem()["type"], foreign);
        origin.expect_untouched();
    }
    // The backend speaks no WebSocket, and has to be asked to say so.
    open(("X-Forwarded-Proto", "wss"), OWN).expect(200);
    open(("X-Forwarded-Proto", "ws"), clear).expect(200);
    let denied = open(("X-Forwarded-Proto", "ws"), OWN);
    assert_eq!(denied.expect(403).problem()["type"], foreign);
}

#[test]
fn behind_a_proxy_that_changes_the_host_the_origin_that_browsers_see_is_named() {
    let origin = Origin::echo();
    let gate = Gate::before(&origin)
        .server("plaintext = true\ntrusted_proxies = [\"127.0.0.1\"]")
        .with("[[blueprints]]\nname = \"inner\"\nupstream = \"legacy\"\nauth = \"public\"\n\
               [[blueprints.routes]]\npath = \"/named\"\ncsrf = { origins = [\"https://app.example\"] }\n\
               [[blueprints.routes]]\npath = \"/silent\"\n")
        .start();
    let ask = |path: &str, page: (&str, &str)| {
        let seen = [
            ("X-Forwarded-Host", "app.example"),
            ("X-Forwarded-Proto", "https"),
            SAME,
            page,
            SESSION,
        ];
        let asked =
            form("POST", path, &seen).replace("app.example\r\nContent", "legacy\r\nContent");
        assert!(asked.contains("Host: legacy\r\n"), "{asked}");
        let mut client = gate.http();
        client.send(asked).response()
    };
    expect_refused(&ask("/silent", OWN));
    expect_refused(&ask("/named", EVIL));
    origin.expect_untouched();
    ask("/named", OWN).expect(200);
}

#[test]
fn explain_and_check_say_whose_pages_may_act() {
    let origin = Origin::echo();
    let gate = Gate::before(&origin).issuer_without_keys().with(
        "[[blueprints]]\nname = \"app\"\nhosts = [\"app.example\"]\nupstream = \"legacy\"\nauth = \"public\"\n\
         [blueprints.csrf]\norigins = [\"https://login.example\"]\nnon_browser = \"allow\"\n\
         [[blueprints.routes]]\npath = \"/api\"\nauth = { require = [\"bearer\"], issuers = [\"corp\"] }\n\
         [[blueprints.routes]]\npath = \"/off\"\ncsrf = { mode = \"off\" }\n",
    );
    let file = gate.write().display().to_string();
    let explain = |method: &str, page: &str| {
        let page = format!("Origin: {page}");
        let output = portcullis_verb(&[
            "explain",
            "-c",
            &file,
            method,
            "https://app.example/",
            "-H",
            &page,
        ]);
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    for (method, page, words) in [
        (
            "POST",
            "https://evil.example",
            "refused: 403 csrf (other-origin)",
        ),
        (
            "POST",
            "https://app.example",
            "a page of the host itself asks (/",
        ),
        (
            "POST",
            "https://login.example",
            "a page of an origin that the file names asks (/",
        ),
        (
            "GET",
            "https://evil.example",
            "a method that changes nothing",
        ),
    ] {
        let said = explain(method, page);
        assert!(said.contains(words), "`{words}`: {said}");
    }
    let check = portcullis_verb(&["check", "-v", "-c", &file]);
    let said = String::from_utf8_lossy(&check.stderr).into_owned()
        + &String::from_utf8_lossy(&check.stdout);
    for words in [
        "defaults.csrf.mode = \"enforce\"  (default)",
        "a request with cookies passes if it does not say which page it comes from",
        "csrf is in mode `off`",
        "the host itself, https://login.example",
        "exempt: no credential here is one that browsers add by themselves",
    ] {
        assert!(said.contains(words), "`{words}`: {said}");
    }
}
