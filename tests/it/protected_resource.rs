//! The metadata of a protected resource (RFC 9728), and the challenges that name it.

use serde_json::json;

use crate::harness::gate::Running;
use crate::harness::proxy::portcullis_verb;
use crate::harness::{Gate, Issuer, Mint, Origin};

const POLICY: &str = r#"
[[blueprints]]
name = "api"
hosts = ["app.example"]
prefix = "/api"
upstream = "legacy"
[blueprints.auth]
require = ["bearer"]
issuers = ["corp"]
resource = "https://app.example/api"
scopes = { all = ["api.read"] }
[[blueprints.routes]]
name = "pay"
path = "/pay"
auth = { scopes = { all = ["pay", "api.read"] }, step_up = { acr = ["mfa"] } }

[[blueprints]]
name = "pages"
hosts = ["app.example"]
upstream = "legacy"
auth = "public"
"#;

const METADATA: &str = "/.well-known/oauth-protected-resource/api";
const HINT: &str =
    "resource_metadata=\"https://app.example/.well-known/oauth-protected-resource/api\"";

fn gate(origin: &Origin, issuer: &Issuer) -> Running {
    Gate::before(origin)
        .with(&issuer.section())
        .with(POLICY)
        .start()
}

#[test]
fn the_gate_tells_whose_tokens_count_before_any_route() {
    let (origin, issuer) = (Origin::echo(), Issuer::http());
    let gate = gate(&origin, &issuer);
    let response = gate.get_with(METADATA, &[("Origin", "https://spa.example")]);
    response.expect(200);
    assert_eq!(response.headers("content-type"), ["application/json"]);
    assert_eq!(response.headers("cache-control"), ["public, max-age=3600"]);
    assert_eq!(response.headers("access-control-allow-origin"), ["*"]);
    assert_eq!(response.headers("x-content-type-options"), ["nosniff"]);
    assert_eq!(
        response.json(),
        json!({
            "resource": "https://app.example/api",
            "authorization_servers": ["https://idp.example/realms/main"],
            "scopes_supported": ["api.read", "pay"],
            "bearer_methods_supported": ["header"],
        })
    );
    let head = gate.request("HEAD", METADATA, &[]);
    head.expect(200);
    assert!(head.body.is_empty());
    let refused = gate.request("POST", METADATA, &[("Content-Length", "0")]);
    refused.expect(405);
    assert_eq!(refused.headers("allow"), ["GET, HEAD"]);
    origin.expect_untouched();
    let line = gate.proxy.await_access_of(METADATA);
    assert_eq!(line["decision"], "answered", "{line}");
}

#[test]
fn other_addresses_below_well_known_are_the_backends() {
    let (origin, issuer) = (Origin::echo(), Issuer::http());
    let gate = gate(&origin, &issuer);
    for path in [
        "/.well-known/oauth-protected-resource",
        "/.well-known/oauth-protected-resource/api/pay",
        "/.well-known/oauth-protected-resource/apix",
        "/.well-known/security.txt",
    ] {
        gate.get(path).expect(200);
        assert!(origin.last_request().head.line.contains(path));
    }
    // Spelt otherwise, it is the same address.
    let seen = origin.requests().len();
    let other = gate.get("/.well-known//oauth%2Dprotected-resource/x/../api/");
    assert_eq!(other.json()["resource"], "https://app.example/api");
    assert_eq!(origin.requests().len(), seen);
}

#[test]
fn every_challenge_of_the_resource_names_the_metadata() {
    let (origin, issuer) = (Origin::echo(), Issuer::http());
    let gate = gate(&origin, &issuer);
    let good = |mint: Mint| issuer.bearer_of(&mint);
    let realm = "Bearer realm=\"app.example\"";
    for (path, token, status, challenge) in [
        ("/api/x", None, 401, format!("{realm}, {HINT}")),
        (
            "/api/x",
            Some("Bearer x.y.z".to_owned()),
            401,
            format!("{realm}, error=\"invalid_token\", {HINT}"),
        ),
        (
            "/api/x",
            Some(good(Mint::new().claim("scope", "other"))),
            403,
            format!("{realm}, error=\"insufficient_scope\", scope=\"api.read\", {HINT}"),
        ),
        (
            "/api/pay",
            Some(good(Mint::new())),
            401,
            format!(
                "{realm}, error=\"insufficient_user_authentication\", acr_values=\"mfa\", \
                 scope=\"api.read pay\", {HINT}"
            ),
        ),
    ] {
        let fields: Vec<(&str, &str)> = token
            .iter()
            .map(|token| ("Authorization", token.as_str()))
            .collect();
        let response = gate.get_with(path, &fields);
        response.expect(status);
        assert_eq!(response.headers("www-authenticate"), [challenge]);
    }
    origin.expect_untouched();
}

#[test]
fn scans_of_the_metadata_are_limited_like_any_unknown_path() {
    let (origin, issuer) = (Origin::echo(), Issuer::http());
    let gate = Gate::before(&origin)
        .defaults("rate_limits = [{ name = \"few\", quota = 2, window = \"1h\", burst = 2 }]")
        .with(&issuer.section())
        .with(POLICY)
        .start();
    let statuses: Vec<u16> = (0..4).map(|_| gate.get(METADATA).status).collect();
    assert_eq!(statuses, [200, 200, 429, 429]);
}

#[test]
fn two_resources_of_one_address_are_an_error_of_the_file() {
    let origin = Origin::echo();
    let check = |second: &str| {
        let other = format!(
            "[[blueprints.routes]]\nname = \"other\"\npath = \"/other\"\nauth = {{ resource = \"{second}\" }}\n\
             [[blueprints.routes]]\nname = \"third\"\npath = \"/third\"\nauth = {{ resource = \"{second}\" }}\n\n\
             [[blueprints]]\nname = \"pages\""
        );
        let policy = POLICY.replacen("[[blueprints]]\nname = \"pages\"", &other, 1);
        assert_ne!(policy, POLICY);
        let gate = Gate::before(&origin).issuer_without_keys().with(&policy);
        let file = gate.write().display().to_string();
        let output = portcullis_verb(&["check", "-c", &file]);
        let told = String::from_utf8(output.stderr).expect("text");
        (output.status.success(), told)
    };
    for second in [
        "https://app.example/api/",
        "https://app.example:443/api",
        "https://app.example:8443/api",
        "https://APP.example/api",
    ] {
        let (sound, told) = check(second);
        assert!(!sound, "{second}: {told}");
        let wanted = format!(
            "the metadata of `{second}` has the address of that of `https://app.example/api`"
        );
        assert!(told.contains(&wanted), "{told}");
    }
    for second in ["https://app.example/api", "https://app.example/api/v2"] {
        let (sound, told) = check(second);
        assert!(sound, "{second}: {told}");
    }
}

#[test]
fn explain_says_that_the_gate_answers_for_the_metadata() {
    let origin = Origin::echo();
    let gate = Gate::before(&origin).issuer_without_keys().with(POLICY);
    let file = gate.write().display().to_string();
    let text = std::fs::read_to_string(&file).expect("the file");
    let explain = |method: &str, path: &str| {
        let url = format!("https://app.example{path}");
        let output = portcullis_verb(&["explain", "-c", &file, method, &url]);
        let told = String::from_utf8(output.stdout).expect("text");
        assert!(output.status.success(), "{told}");
        told
    };
    let told = explain("GET", METADATA);
    let resource = text
        .lines()
        .position(|line| line.starts_with("resource = "));
    let place = format!(
        "metadata of the protected resource `https://app.example/api` ({file}:{})",
        resource.expect("a resource") + 1
    );
    for wanted in [
        "verdict      answered by the gate at stage route",
        &place,
        "answered: 200",
        "authn       not reached",
        "HTTP/1.1 200 OK",
        "content-type: application/json",
        "cache-control: public, max-age=3600",
    ] {
        assert!(told.contains(wanted), "{wanted}: {told}");
    }
    let told = explain("POST", METADATA);
    for wanted in ["refused: 405 method-not-allowed", "allow: GET, HEAD"] {
        assert!(told.contains(wanted), "{wanted}: {told}");
    }
    let told = explain("GET", &format!("{METADATA}/pay"));
    assert!(told.contains("blueprint `pages`"), "{told}");
    assert!(!told.contains("metadata of"), "{told}");
    origin.expect_untouched();
}
