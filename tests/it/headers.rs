//! Response headers on every answer, and the cookies that backends set (cases b1 to b7, b38).

use crate::harness::gate::{ADMIN, PUBLIC, request};
use crate::harness::origin::answer;
use crate::harness::{Gate, Issuer, Origin, Response};

const STRICT_CSP: &str = "default-src 'self'; script-src 'self'; style-src 'self' 'unsafe-inline'; \
    img-src 'self' data:; object-src 'none'; base-uri 'self'; form-action 'self'; \
    frame-ancestors 'none'; upgrade-insecure-requests";
const HSTS: &str = "max-age=31536000; includeSubDomains";

/// Panics unless every default of the strict preset stands exactly once.
#[track_caller]
fn expect_strict(response: &Response) {
    let fixed = [
        ("x-content-type-options", "nosniff"),
        ("x-frame-options", "DENY"),
        ("referrer-policy", "strict-origin-when-cross-origin"),
        ("cross-origin-opener-policy", "same-origin"),
        ("cross-origin-resource-policy", "same-origin"),
        ("content-security-policy", STRICT_CSP),
    ];
    for (name, value) in fixed {
        assert_eq!(
            response.headers(name),
            [value],
            "{name}: {:#?}",
            response.head
        );
    }
    let permissions = response.header("permissions-policy").expect("a policy");
    for feature in ["camera", "microphone", "geolocation", "payment", "usb"] {
        assert!(
            permissions.contains(&format!("{feature}=()")),
            "{permissions}"
        );
    }
    for name in ["server", "x-powered-by", "x-xss-protection"] {
        assert!(
            response.header(name).is_none(),
            "{name}: {:#?}",
            response.head
        );
    }
}

#[track_caller]
fn expect_hsts(response: &Response) {
    assert_eq!(response.headers("strict-transport-security"), [HSTS]);
}

#[test]
fn b01_defaults_present_once() {
    let origin = Origin::with_headers(&[]);
    let gate = Gate::before(&origin).open();
    let response = gate.get("/");
    response.expect(200);
    assert_eq!(response.text(), "ok");
    expect_strict(&response);
    expect_hsts(&response);
    assert!(
        response.header("cache-control").is_none(),
        "nothing private in it"
    );
}

#[test]
fn b01_a_head_answer_and_a_304_carry_them_too() {
    let origin = Origin::serve(|received| match received.head.method() {
        "HEAD" => b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n".to_vec(),
        _ => b"HTTP/1.1 304 Not Modified\r\nETag: \"1\"\r\n\r\n".to_vec(),
    });
    let gate = Gate::before(&origin).open();
    let mut client = gate.https();
    for (method, status) in [("HEAD", 200), ("GET", 304)] {
        let response = client.send(request(method, "/", &[])).response_to(method);
        response.expect(status);
        expect_strict(&response);
        expect_hsts(&response);
    }
}

#[test]
fn b02_plain_http_answers_308_without_hsts() {
    let origin = Origin::echo();
    let gate = Gate::before(&origin).open();
    for method in ["GET", "POST"] {
        let response = gate
            .http()
            .send(request(method, "/a/b?c=d", &[("Content-Length", "0")]))
            .response();
        response.expect(308);
        let location = response.header("location").expect("a location");
        let port = gate.proxy.https().port();
        assert!(
            location == "https://app.example/a/b?c=d"
                || location == format!("https://app.example:{port}/a/b?c=d"),
            "{location}"
        );
        assert!(response.header("strict-transport-security").is_none());
        expect_strict(&response);
    }
    origin.expect_untouched();
}

#[test]
fn b02_a_redirect_never_leads_to_a_host_that_is_no_host() {
    let origin = Origin::echo();
    let gate = Gate::before(&origin).open();
    for host in ["app.example@evil.example", "a b", "evil.example/path", ""] {
        let response = gate
            .http()
            .send(format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n"))
            .response();
        response.expect(400);
    }
}

#[test]
fn b02_plaintext_serves_without_hsts() {
    let origin = Origin::with_headers(&[]);
    let gate = Gate::before(&origin).server("plaintext = true").open();
    let response = gate.http().send(request("GET", "/", &[])).response();
    response.expect(200);
    expect_strict(&response);
    assert!(response.header("strict-transport-security").is_none());
}

#[test]
fn b02_a_trusted_proxy_may_say_that_tls_ended_before() {
    let origin = Origin::with_headers(&[("Set-Cookie", "s=1")]);
    let gate = Gate::before(&origin)
        .server("plaintext = true\ntrusted_proxies = [\"127.0.0.0/8\"]")
        .open();
    let ended = [
        ("X-Forwarded-Proto", "https"),
        ("X-Forwarded-For", "203.0.113.7"),
    ];
    let response = gate.http().send(request("GET", "/", &ended)).response();
    expect_hsts(&response);
    expect_cookie(
        response.headers("set-cookie")[0],
        "s=1",
        &["httponly", "samesite=lax", "secure"],
    );
    let head = origin.last_request().head;
    assert_eq!(head.all("x-forwarded-proto"), ["https"]);

    let stranger = Gate::before(&origin).server("plaintext = true").open();
    let response = stranger.http().send(request("GET", "/", &ended)).response();
    assert!(response.header("strict-transport-security").is_none());
    assert_eq!(
        origin.last_request().head.all("x-forwarded-proto"),
        ["http"]
    );
}

#[test]
fn b03_set_replaces_what_upstream_says() {
    let origin = Origin::with_headers(&[
        ("X-Frame-Options", "ALLOWALL"),
        ("X-Frame-Options", "SAMEORIGIN"),
        ("X-Own", "theirs"),
    ]);
    let gate = Gate::before(&origin)
        .with("[defaults.headers]\nset = { X-Own = \"ours\" }")
        .open();
    let response = gate.get("/");
    assert_eq!(response.headers("x-frame-options"), ["DENY"]);
    assert_eq!(response.headers("x-own"), ["ours"]);
}

#[test]
fn b03_default_leaves_what_upstream_says() {
    let origin = Origin::with_headers(&[("X-Frame-Options", "ALLOWALL"), ("X-Own", "theirs")]);
    let gate = Gate::before(&origin)
        .with("[defaults.headers.default]\nX-Frame-Options = \"DENY\"\nX-Own = \"ours\"\nX-New = \"ours\"")
        .open();
    let response = gate.get("/");
    assert_eq!(response.headers("x-frame-options"), ["ALLOWALL"]);
    assert_eq!(response.headers("x-own"), ["theirs"]);
    assert_eq!(response.headers("x-new"), ["ours"]);
}

#[test]
fn b03_a_backend_csp_stands_beside_ours() {
    let origin = Origin::with_headers(&[("Content-Security-Policy", "default-src 'none'")]);
    let gate = Gate::before(&origin).open();
    let response = gate.get("/");
    let mut policies = response.headers("content-security-policy");
    policies.sort_unstable();
    assert_eq!(policies, ["default-src 'none'", STRICT_CSP]);
}

#[test]
fn b03_a_set_csp_replaces_the_backends() {
    let origin = Origin::with_headers(&[("Content-Security-Policy", "default-src *")]);
    let gate = Gate::before(&origin)
        .with("[defaults.headers.set]\nContent-Security-Policy = \"default-src 'none'\"")
        .open();
    assert_eq!(
        gate.get("/").headers("content-security-policy"),
        ["default-src 'none'"]
    );
}

#[test]
fn b04_leaks_are_removed() {
    let leaks = [
        ("Server", "Apache/2.2"),
        ("X-Powered-By", "PHP/5.2"),
        ("X-AspNet-Version", "4.0"),
        ("X-AspNetMvc-Version", "5"),
        ("X-Generator", "Drupal 7"),
        ("X-XSS-Protection", "1; mode=block"),
        ("X-Backend-Host", "db-7"),
    ];
    let origin = Origin::with_headers(&leaks);
    let gate = Gate::before(&origin)
        .with("[defaults.headers]\nremove = [\"X-Backend-Host\"]")
        .open();
    let response = gate.get("/");
    response.expect(200);
    for (name, _) in leaks {
        assert!(
            response.headers(name).is_empty(),
            "{name}: {:#?}",
            response.head
        );
    }
}

#[test]
fn b05_refusals_carry_the_same_headers_and_no_store() {
    let origin = Origin::echo();
    let gate = Gate::guarding(&origin)
        .with(
            r#"
[[blueprints]]
name = "limited"
hosts = ["app.example"]
prefix = "/limited"
upstream = "legacy"
auth = "public"
[[blueprints.rate_limits]]
name = "tight"
key = "global"
quota = 1
window = "1h"

[upstreams.gone]
servers = ["http://127.0.0.1:1"]
[[blueprints]]
name = "gone"
hosts = ["app.example"]
prefix = "/gone"
upstream = "gone"
auth = "public"

[[blueprints]]
name = "methods"
hosts = ["app.example"]
prefix = "/methods"
upstream = "legacy"
auth = "public"
unmatched = "refuse"
[[blueprints.routes]]
name = "only-get"
path = "/one"
methods = ["GET"]
"#,
        )
        .start();
    gate.get("/limited").expect(200);
    let cases = [
        ("GET", "/admin", 401),
        ("GET", "/methods/other", 404),
        ("POST", "/methods/one", 405),
        ("GET", "/limited", 429),
        ("GET", "/gone", 502),
        ("GET", "/%zz", 400),
    ];
    for (method, path, status) in cases {
        let response = gate.request(method, path, &[("Content-Length", "0")]);
        response.expect(status).problem();
        expect_strict(&response);
        expect_hsts(&response);
        assert_eq!(response.headers("cache-control"), ["no-store"], "{path}");
    }
    assert_eq!(
        gate.request("POST", "/methods/one", &[("Content-Length", "0")])
            .header("allow")
            .map(|allow| allow.split(", ").any(|method| method == "GET")),
        Some(true)
    );
}

#[test]
fn b05_a_403_carries_them_too() {
    let origin = Origin::echo();
    let issuer = Issuer::http();
    let gate = Gate::before(&origin)
        .with(&issuer.section())
        .with(PUBLIC)
        .with(ADMIN)
        .start();
    let response = gate.get_with("/admin", &[("Authorization", &issuer.bearer(&["reader"]))]);
    response.expect(403).problem();
    expect_strict(&response);
    expect_hsts(&response);
    assert_eq!(response.headers("cache-control"), ["no-store"]);
}

#[test]
fn b05_a_request_that_is_no_http_gets_them_too() {
    let origin = Origin::echo();
    let gate = Gate::before(&origin).open();
    let response = gate.exchange("NONSENSE\r\n\r\n");
    response.expect(400);
    expect_strict(&response);
    expect_hsts(&response);
    assert_eq!(response.headers("cache-control"), ["no-store"]);
}

#[test]
fn b05_a_person_gets_a_page_and_a_program_a_problem() {
    let origin = Origin::echo();
    let gate = Gate::guarding(&origin).start();
    let page = gate.get_with("/admin", &[("Accept", "text/html,*/*;q=0.8")]);
    page.expect(401);
    let media = page.header("content-type").expect("a media type");
    assert!(media.starts_with("text/html"), "{media}");
    expect_strict(&page);
    let problem = gate
        .get_with("/admin", &[("Accept", "application/json")])
        .problem();
    assert_eq!(
        problem["type"],
        "urn:portcullis:problem:credentials-missing"
    );
}

#[test]
fn b06_no_store_where_an_answer_is_private() {
    let origin = Origin::serve(|received| match received.head.target() {
        "/cookie" => answer(200, &[("Set-Cookie", "a=1")], "ok"),
        "/cookie-public" => answer(
            200,
            &[
                ("Set-Cookie", "a=1"),
                ("Cache-Control", "private, max-age=5"),
            ],
            "ok",
        ),
        "/static" => answer(200, &[("Cache-Control", "public, max-age=600")], "ok"),
        _ => answer(200, &[], "ok"),
    });
    let gate = Gate::before(&origin).open();
    let cache = |path: &str, headers: &[(&str, &str)]| {
        gate.get_with(path, headers)
            .header("cache-control")
            .map(str::to_owned)
    };
    let credentials = [("Authorization", "Basic Og==")];
    assert_eq!(cache("/cookie", &[]).as_deref(), Some("no-store"));
    assert_eq!(cache("/", &credentials).as_deref(), Some("no-store"));
    assert_eq!(cache("/", &[]), None);
    for credentials in [&[][..], &credentials[..]] {
        assert_eq!(
            cache("/static", credentials).as_deref(),
            Some("public, max-age=600")
        );
    }
    assert_eq!(
        cache("/cookie-public", &[]).as_deref(),
        Some("private, max-age=5")
    );
}

#[test]
fn b06_an_authenticated_answer_is_not_stored() {
    let origin = Origin::with_headers(&[]);
    let issuer = Issuer::http();
    let gate = Gate::before(&origin)
        .with(&issuer.section())
        .with(ADMIN)
        .start();
    let response = gate.get_with("/admin", &[("Authorization", &issuer.bearer(&["admin"]))]);
    response.expect(200);
    assert_eq!(response.headers("cache-control"), ["no-store"]);
}

#[test]
fn presets_say_what_the_contract_says() {
    let origin = Origin::with_headers(&[("Server", "Apache/2.2")]);
    let with_preset = |preset: &str| {
        let gate = Gate::before(&origin)
            .with(&format!("[defaults.headers]\npreset = \"{preset}\""))
            .open();
        gate.get("/")
    };

    let api = with_preset("api");
    assert_eq!(
        api.headers("content-security-policy"),
        ["default-src 'none'; frame-ancestors 'none'"]
    );
    assert_eq!(api.headers("cache-control"), ["no-store"]);
    expect_hsts(&api);

    let compatible = with_preset("compatible");
    assert_eq!(compatible.headers("x-frame-options"), ["SAMEORIGIN"]);
    assert_eq!(
        compatible.headers("content-security-policy"),
        ["object-src 'none'; base-uri 'self'; frame-ancestors 'self'"]
    );
    let reported = compatible
        .header("content-security-policy-report-only")
        .expect("the strict policy, reported");
    assert!(
        reported.starts_with("default-src 'self'; script-src 'self'"),
        "{reported}"
    );

    let none = with_preset("none");
    assert!(none.header("server").is_none(), "leaks are removed");
    for name in [
        "strict-transport-security",
        "x-frame-options",
        "content-security-policy",
        "x-content-type-options",
    ] {
        assert!(none.header(name).is_none(), "{name} was added");
    }
}

#[test]
fn hsts_says_what_the_file_says() {
    let origin = Origin::with_headers(&[("Strict-Transport-Security", "max-age=0")]);
    let gate = Gate::before(&origin)
        .with(
            "[defaults.headers]\nhsts = { max_age = \"730d\", subdomains = true, preload = true }",
        )
        .open();
    assert_eq!(
        gate.get("/").headers("strict-transport-security"),
        ["max-age=63072000; includeSubDomains; preload"]
    );
}

#[test]
fn the_nearest_word_wins_key_by_key() {
    let origin = Origin::with_headers(&[]);
    let gate = Gate::before(&origin)
        .with(
            r#"
[defaults.headers.set]
X-Level = "defaults"

[[blueprints]]
name = "app"
hosts = ["app.example"]
upstream = "legacy"
auth = "public"
[blueprints.headers]
preset = "api"

[[blueprints]]
name = "deep"
hosts = ["app.example"]
prefix = "/deep"
upstream = "legacy"
auth = "public"
[blueprints.headers.set]
X-Level = "blueprint"
[[blueprints.routes]]
name = "deepest"
path = "/er"
[blueprints.routes.headers.set]
X-Level = "route"
"#,
        )
        .start();
    let shallow = gate.get("/");
    assert_eq!(
        shallow.headers("x-level"),
        ["defaults"],
        "another key stays"
    );
    assert_eq!(
        shallow.headers("content-security-policy"),
        ["default-src 'none'; frame-ancestors 'none'"]
    );
    let deep = gate.get("/deep/x");
    assert_eq!(deep.headers("x-level"), ["blueprint"]);
    assert_eq!(deep.headers("content-security-policy"), [STRICT_CSP]);
    assert_eq!(gate.get("/deep/er").headers("x-level"), ["route"]);
}

#[test]
fn monitor_and_off_leave_the_answer_as_it_was() {
    let origin = Origin::with_headers(&[("X-Frame-Options", "ALLOWALL"), ("Set-Cookie", "s=1")]);
    for mode in ["monitor", "off"] {
        let gate = Gate::before(&origin)
            .with(&format!(
                "[defaults.headers]\nmode = \"{mode}\"\n[defaults.cookies]\nmode = \"{mode}\""
            ))
            .open();
        let response = gate.get("/");
        response.expect(200);
        assert_eq!(response.headers("x-frame-options"), ["ALLOWALL"], "{mode}");
        assert!(
            response.header("content-security-policy").is_none(),
            "{mode}"
        );
        assert_eq!(response.headers("set-cookie"), ["s=1"], "{mode}");
    }
}

/// A `Set-Cookie` value as its pair and its attributes in lower case, sorted.
fn cookie(value: &str) -> (String, Vec<String>) {
    let mut parts = value.split(';').map(str::trim);
    let pair = parts.next().unwrap_or_default().to_owned();
    let mut attributes: Vec<_> = parts.map(str::to_ascii_lowercase).collect();
    attributes.sort_unstable();
    (pair, attributes)
}

#[track_caller]
fn expect_cookie(value: &str, pair: &str, attributes: &[&str]) {
    let (got, have) = cookie(value);
    assert_eq!(got, pair);
    assert_eq!(have, attributes, "{value}");
}

#[test]
fn b38_backend_cookies_are_hardened() {
    let origin = Origin::with_headers(&[
        ("Set-Cookie", "JSESSIONID=1; Path=/"),
        ("Set-Cookie", "JSESSIONID=1; Path=/"),
        ("Set-Cookie", "XSRF-TOKEN=t; Path=/"),
        ("Set-Cookie", "embed=1; SameSite=None"),
        (
            "Set-Cookie",
            "strict=1; SameSite=Strict; Secure; HttpOnly; Max-Age=60",
        ),
        (
            "Set-Cookie",
            "odd=a=b; Expires=Wed, 21 Oct 2037 07:28:00 GMT",
        ),
    ]);
    let gate = Gate::before(&origin).open();
    let response = gate.get("/");
    let cookies = response.headers("set-cookie");
    assert_eq!(cookies.len(), 6, "{cookies:?}");
    let hardened = ["httponly", "path=/", "samesite=lax", "secure"];
    expect_cookie(cookies[0], "JSESSIONID=1", &hardened);
    expect_cookie(cookies[1], "JSESSIONID=1", &hardened);
    expect_cookie(
        cookies[2],
        "XSRF-TOKEN=t",
        &["path=/", "samesite=lax", "secure"],
    );
    expect_cookie(
        cookies[3],
        "embed=1",
        &["httponly", "samesite=none", "secure"],
    );
    expect_cookie(
        cookies[4],
        "strict=1",
        &["httponly", "max-age=60", "samesite=strict", "secure"],
    );
    expect_cookie(
        cookies[5],
        "odd=a=b",
        &[
            "expires=wed, 21 oct 2037 07:28:00 gmt",
            "httponly",
            "samesite=lax",
            "secure",
        ],
    );
}

#[test]
fn b38_secure_is_not_added_on_plain_http_and_names_may_be_excepted() {
    let origin =
        Origin::with_headers(&[("Set-Cookie", "theme=dark"), ("Set-Cookie", "csrftoken=t")]);
    let gate = Gate::before(&origin)
        .server("plaintext = true")
        .with("[defaults.cookies]\nhttp_only = { except = [\"theme\"] }\nsame_site = \"strict\"")
        .open();
    let response = gate.http().send(request("GET", "/", &[])).response();
    let cookies = response.headers("set-cookie");
    expect_cookie(cookies[0], "theme=dark", &["samesite=strict"]);
    expect_cookie(cookies[1], "csrftoken=t", &["httponly", "samesite=strict"]);
}
