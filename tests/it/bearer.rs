//! Bearer tokens (cases b17 to b25, attacks a22 to a26), against an issuer that shares no code with the proxy.

use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::eventually::eventually_within;
use crate::harness::gate::{Running, request};
use crate::harness::issuer::now;
use crate::harness::proxy::portcullis_verb;
use crate::harness::{Alg, Gate, Issuer, Mint, Origin, Response};

/// Every path for holders of any token of `corp`.
const ANY_TOKEN: &str = r#"
[[blueprints]]
name = "api"
hosts = ["app.example"]
upstream = "legacy"
[blueprints.auth]
require = ["bearer"]
issuers = ["corp"]
"#;

struct Scene {
    gate: Running,
    issuer: Issuer,
    origin: Origin,
}

impl Scene {
    fn new() -> Self {
        Self::with_issuer_lines("")
    }

    fn with_issuer_lines(lines: &str) -> Self {
        let origin = Origin::echo();
        let issuer = Issuer::http();
        let gate = Gate::before(&origin)
            .with(&issuer.section_with(lines))
            .with(ANY_TOKEN)
            .start();
        Self {
            gate,
            issuer,
            origin,
        }
    }

    fn present(&self, mint: &Mint) -> Response {
        self.present_token(&self.issuer.mint(mint))
    }

    fn present_token(&self, token: &str) -> Response {
        self.gate
            .get_with("/api", &[("Authorization", &format!("Bearer {token}"))])
    }

    /// Wants `invalid_token` and nothing at the backend; gives the body less its request id.
    #[track_caller]
    fn expect_invalid(&self, what: &str, mint: &Mint) -> Value {
        let before = self.origin.requests().len();
        let response = self.present(mint);
        expect_invalid_token(what, &response);
        assert_eq!(
            self.origin.requests().len(),
            before,
            "{what} reached the backend"
        );
        let mut body = response.json();
        body["instance"] = Value::Null;
        body
    }

    #[track_caller]
    fn expect_pass(&self, what: &str, mint: &Mint) {
        let response = self.present(mint);
        assert_eq!(response.status, 200, "{what}: {}", response.text());
    }
}

#[track_caller]
fn expect_invalid_token(what: &str, response: &Response) {
    assert_eq!(response.status, 401, "{what}: {}", response.text());
    let challenge = response.header("www-authenticate").expect("a challenge");
    assert!(
        challenge.starts_with("Bearer realm=\"app.example\""),
        "{what}: {challenge}"
    );
    assert!(
        challenge.contains("error=\"invalid_token\""),
        "{what}: {challenge}"
    );
    assert_eq!(
        response.problem()["type"],
        "urn:portcullis:problem:token-invalid",
        "{what}"
    );
}

#[test]
fn b17_no_credentials_get_a_bare_challenge() {
    let origin = Origin::echo();
    let gate = Gate::before(&origin)
        .issuer_without_keys()
        .with(ANY_TOKEN)
        .start();
    let response = gate.get("/api");
    response.expect(401);
    assert_eq!(
        response.headers("www-authenticate"),
        ["Bearer realm=\"app.example\""]
    );
    assert_eq!(
        response.problem()["type"],
        "urn:portcullis:problem:credentials-missing"
    );
    let other = gate.get_with("/api", &[("Authorization", "Basic dXNlcjpwYXNz")]);
    other.expect(401);
    assert_eq!(
        other.headers("www-authenticate"),
        ["Bearer realm=\"app.example\""]
    );
    origin.expect_untouched();
}

#[test]
fn b17_every_kind_of_key_signs_tokens_that_pass() {
    let scene = Scene::new();
    for alg in [Alg::Rs256, Alg::Es256, Alg::EdDsa] {
        scene.expect_pass(&format!("{alg:?}"), &Mint::new().alg(alg));
    }
    let head = scene.origin.last_request().head;
    assert_eq!(head.all("x-auth-subject"), ["alice"]);
    assert_eq!(head.all("x-auth-roles"), ["reader"]);
    assert!(head.all("authorization").is_empty(), "{head:#?}");
    let token = scene.issuer.mint(&Mint::new());
    let lower = scene
        .gate
        .get_with("/api", &[("Authorization", &format!("bearer {token}"))]);
    lower.expect(200);
}

#[test]
fn b18_forged_algorithms_get_identical_answers() {
    let scene = Scene::new();
    let bodies = [
        scene.expect_invalid("alg none", &Mint::new().alg(Alg::None)),
        scene.expect_invalid(
            "alg None",
            &Mint::new().alg(Alg::None).header("alg", "None"),
        ),
        scene.expect_invalid(
            "HS256 with the public key",
            &Mint::new().alg(Alg::Hs256WithRsaPublicKey),
        ),
        scene.expect_invalid(
            "a signature of another key",
            &Mint::new().with_a_foreign_key(),
        ),
        scene.expect_invalid("RS512 by an RS256 key", &Mint::new().header("alg", "RS512")),
        scene.expect_invalid("ES256 by an RSA key", &Mint::new().header("alg", "ES256")),
        scene.expect_invalid("no alg", &Mint::new().header("alg", Value::Null)),
    ];
    for body in &bodies[1..] {
        assert_eq!(body, &bodies[0]);
    }
    // The reason of each is in the log alone.
    let fine = scene.gate.proxy.await_access("the refusals", |line| {
        line["reason"] == "token-invalid" && line["stage"] == "authn"
    });
    assert_eq!(fine["decision"], "refused", "{fine}");
    assert_eq!(fine["http.response.status_code"], 401, "{fine}");
}

#[test]
fn b18_an_algorithm_that_the_issuer_is_not_allowed() {
    let origin = Origin::echo();
    let issuer = Issuer::http();
    let section = issuer
        .section()
        .replace("[\"RS256\", \"ES256\", \"EdDSA\"]", "[\"RS256\"]");
    let gate = Gate::before(&origin).with(&section).with(ANY_TOKEN).start();
    let es256 = issuer.bearer_of(&Mint::new().alg(Alg::Es256));
    expect_invalid_token(
        "ES256",
        &gate.get_with("/api", &[("Authorization", &es256)]),
    );
    let rs256 = issuer.bearer_of(&Mint::new());
    gate.get_with("/api", &[("Authorization", &rs256)])
        .expect(200);
}

#[test]
fn b19_times_with_a_leeway_of_60_s() {
    let scene = Scene::new();
    let now = now();
    scene.expect_invalid("exp 61 s ago", &Mint::new().claim("exp", now - 61));
    scene.expect_pass("exp 50 s ago", &Mint::new().claim("exp", now - 50));
    scene.expect_invalid("nbf 80 s ahead", &Mint::new().claim("nbf", now + 80));
    scene.expect_pass("nbf 59 s ahead", &Mint::new().claim("nbf", now + 59));
    scene.expect_invalid("iat 80 s ahead", &Mint::new().claim("iat", now + 80));
    scene.expect_invalid(
        "exp as text",
        &Mint::new().claim("exp", (now + 300).to_string()),
    );
    scene.expect_invalid("exp negative", &Mint::new().claim("exp", -1));
    scene.expect_invalid("exp null", &Mint::new().claim("exp", Value::Null));
    scene.expect_invalid("nbf as text", &Mint::new().claim("nbf", "0"));
    scene.expect_invalid(
        "iat two days ago",
        &Mint::new().claim("iat", now - 2 * 86_400),
    );
}

#[test]
fn b20_missing_claims_are_not_skipped() {
    let scene = Scene::new();
    scene.expect_invalid("no aud", &Mint::new().without("aud"));
    scene.expect_invalid("no iss", &Mint::new().without("iss"));
    scene.expect_invalid("another aud", &Mint::new().claim("aud", "other"));
    scene.expect_invalid(
        "aud without ours",
        &Mint::new().claim("aud", json!(["other", "third"])),
    );
    scene.expect_invalid("aud empty", &Mint::new().claim("aud", json!([])));
    scene.expect_invalid(
        "another iss",
        &Mint::new().claim("iss", "https://idp.example/realms/other"),
    );
    scene.expect_invalid(
        "iss with a slash",
        &Mint::new().claim("iss", "https://idp.example/realms/main/"),
    );
    scene.expect_pass(
        "aud among others",
        &Mint::new().claim("aud", json!(["other", "portcullis"])),
    );
}

#[test]
fn b21_the_type_of_token_that_is_required() {
    let scene = Scene::with_issuer_lines("token_type = \"at+jwt\"");
    let access = Mint::new()
        .claim("client_id", "app")
        .claim("jti", "1")
        .header("typ", "at+jwt");
    scene.expect_pass("at+jwt", &access);
    scene.expect_pass(
        "application/at+jwt",
        &access.clone().header("typ", "application/at+jwt"),
    );
    scene.expect_invalid("JWT", &access.clone().header("typ", "JWT"));
    scene.expect_invalid("no typ", &access.clone().header("typ", Value::Null));
    let id_token = Mint::new().claim("nonce", "n").claim("azp", "app");
    scene.expect_invalid("an ID token", &id_token);
}

#[test]
fn b22_credentials_in_more_than_one_way() {
    let scene = Scene::new();
    let token = scene.issuer.mint(&Mint::new());
    let bearer = format!("Bearer {token}");
    let twice = scene.gate.get_with(
        "/api",
        &[("Authorization", &bearer), ("Authorization", &bearer)],
    );
    let with_query = scene.gate.get_with(
        &format!("/api?access_token={token}"),
        &[("Authorization", &bearer)],
    );
    let long = scene.present_token(&format!("{token}{}", "A".repeat(8 * 1024)));
    for (what, response) in [
        ("two headers", twice),
        ("query too", with_query),
        ("9 KiB", long),
    ] {
        assert_eq!(response.status, 400, "{what}: {}", response.text());
        assert_eq!(
            response.problem()["type"],
            "urn:portcullis:problem:invalid-request",
            "{what}"
        );
        if let Some(challenge) = response.header("www-authenticate") {
            assert!(challenge.contains("invalid_request"), "{what}: {challenge}");
        }
    }
    scene.origin.expect_untouched();
}

#[test]
fn b23_unknown_key_names_cost_one_fetch() {
    let scene = Scene::new();
    scene.expect_pass("a sound token", &Mint::new());
    let before = scene.issuer.fetches("/jwks");
    let tokens: Vec<_> = (0..40)
        .map(|number| {
            let kid = format!("unknown-{number}");
            scene.issuer.bearer_of(&Mint::new().header("kid", kid))
        })
        .collect();
    std::thread::scope(|scope| {
        let gate = &scene.gate;
        for chunk in tokens.chunks(10) {
            scope.spawn(move || {
                for token in chunk {
                    let response = gate.get_with("/api", &[("Authorization", token)]);
                    expect_invalid_token("an unknown kid", &response);
                }
            });
        }
    });
    let fetches = scene.issuer.fetches("/jwks") - before;
    assert!(fetches <= 1, "{fetches} fetches");
    scene.expect_pass("sound tokens are unaffected", &Mint::new());
}

#[test]
fn b23_a_rotated_key_is_fetched_and_the_old_one_forgotten() {
    let scene = Scene::new();
    let old = scene.issuer.mint(&Mint::new());
    scene.present_token(&old).expect(200);
    scene.issuer.rotate();
    let new = scene.issuer.mint(&Mint::new());
    // The floor between two fetches is 30 s.
    eventually_within(Duration::from_secs(50), "the new key is taken up", || {
        (scene.present_token(&new).status == 200).then_some(())
    });
    // a25: a token that was verified before does not outlive its key.
    expect_invalid_token("the old key", &scene.present_token(&old));
    assert!(scene.issuer.fetches("/jwks") <= 3);
}

#[test]
fn b24_cached_keys_carry_on_when_the_issuer_is_down() {
    let scene = Scene::new();
    scene.expect_pass("before", &Mint::new());
    scene.issuer.go_down();
    scene.expect_pass("after, a token never seen", &Mint::new().claim("jti", "2"));
    scene.expect_invalid("an unknown key", &Mint::new().header("kid", "other"));
}

#[test]
fn b24_an_edited_issuer_keeps_the_keys_that_it_has() {
    let mut scene = Scene::new();
    scene.expect_pass("before", &Mint::new());
    scene.issuer.go_down();
    let section = scene.issuer.section();
    let mut edit = |from: &str, to: &str| {
        let edited = section.replace(from, to);
        assert_ne!(edited, section);
        scene.gate.reload_with(&format!("{edited}\n{ANY_TOKEN}"));
        let old = now() - 100;
        let mint = Mint::new().claim("exp", old).claim("jti", to);
        let late = scene.issuer.bearer_of(&mint);
        let fresh = scene.issuer.bearer_of(&Mint::new().claim("jti", to));
        [late, fresh].map(|token| {
            let headers = [("Authorization", token.as_str())];
            scene.gate.get_with("/api", &headers).status
        })
    };
    // The rules are the new ones, the keys those of before.
    assert_eq!(edit("leeway = \"60s\"", "leeway = \"2m\""), [200, 200]);
    assert_eq!(
        edit("leeway = \"60s\"", "leeway = \"50s\"\ndpop = {}"),
        [401, 200]
    );
    // Keys for other algorithms are other keys.
    assert_eq!(edit("\"RS256\", \"ES256\"", "\"RS256\""), [503, 503]);
}

#[test]
fn a_second_issuer_of_one_iss_is_an_error_of_the_route() {
    let (origin, issuer) = (Origin::echo(), Issuer::http());
    let check = |iss: &str| {
        let second = issuer
            .section()
            .replace("[issuers.corp]", "[issuers.second]")
            .replace("https://idp.example/realms/main", iss);
        let gate = Gate::before(&origin)
            .with(&issuer.section())
            .with(&second)
            .with(&ANY_TOKEN.replace("[\"corp\"]", "[\"corp\", \"second\"]"));
        let file = gate.write().display().to_string();
        let output = portcullis_verb(&["check", "-c", &file]);
        let told = String::from_utf8(output.stderr).expect("text");
        (output.status.success(), told)
    };
    let (sound, told) = check("https://idp.example/realms/other");
    assert!(sound, "{told}");
    let (sound, told) = check("https://idp.example/realms/main");
    assert!(!sound, "{told}");
    assert!(told.contains("no token could be of `second`"), "{told}");
}

#[test]
fn b24_without_any_keys_nothing_passes_until_they_come() {
    let origin = Origin::echo();
    let issuer = Issuer::http();
    issuer.go_down();
    let gate = Gate::before(&origin)
        .with(&issuer.section())
        .with(ANY_TOKEN)
        .start();
    let token = issuer.bearer(&["reader"]);
    let response = gate.get_with("/api", &[("Authorization", &token)]);
    response.expect(503);
    assert_eq!(
        response.problem()["type"],
        "urn:portcullis:problem:keys-unavailable"
    );
    let retry: u64 = response
        .header("retry-after")
        .and_then(|value| value.parse().ok())
        .expect("Retry-After in seconds");
    assert!((1..=60).contains(&retry), "{retry}");
    gate.get("/api").expect(401);
    origin.expect_untouched();
    issuer.come_up();
    eventually_within(Duration::from_secs(40), "the keys come", || {
        let status = gate.get_with("/api", &[("Authorization", &token)]).status;
        (status == 200).then_some(())
    });
}

#[test]
fn b25_key_locations_in_a_token_are_ignored() {
    let scene = Scene::new();
    let evil = scene.issuer.url("/evil");
    for name in ["jku", "x5u"] {
        scene.expect_pass(name, &Mint::new().header(name, evil.as_str()));
        scene.expect_invalid(
            name,
            &Mint::new().header(name, evil.as_str()).with_a_foreign_key(),
        );
    }
    scene.expect_invalid(
        "crit",
        &Mint::new().header("crit", json!(["x"])).header("x", 1),
    );
    assert_eq!(scene.issuer.fetches("/evil"), 0);
}

#[test]
fn a22_headers_of_an_attacker() {
    let scene = Scene::new();
    let jwk = json!({"kty": "oct", "k": "AAAA", "alg": "HS256"});
    scene.expect_invalid("jwk", &Mint::new().header("jwk", jwk).with_a_foreign_key());
    scene.expect_invalid("crit", &Mint::new().header("crit", json!(["x"])));
    scene.expect_invalid("crit empty", &Mint::new().header("crit", json!([])));
    scene.expect_invalid(
        "b64 false",
        &Mint::new()
            .header("b64", false)
            .header("crit", json!(["b64"])),
    );
    scene.expect_invalid("kid as path", &Mint::new().header("kid", "../../dev/null"));
    scene.expect_invalid("kid as number", &Mint::new().header("kid", 1));
    scene.expect_invalid(
        "no kid, other key",
        &Mint::new().header("kid", Value::Null).with_a_foreign_key(),
    );
}

#[test]
fn a22_what_is_no_token_at_all() {
    let scene = Scene::new();
    for token in [
        "x",
        "a.b",
        "a.b.c",
        "a.b.c.d.e",
        "..",
        "e30.e30.",
        "e30.e30.e30",
    ] {
        let response = scene.present_token(token);
        assert!(
            matches!(response.status, 400 | 401),
            "{token}: {}",
            response.status
        );
    }
    for value in [
        "Bearer",
        "Bearer ",
        "Bearer  ",
        "Bearer a b",
        "Bearer \u{e9}",
    ] {
        let response = scene.gate.get_with("/api", &[("Authorization", value)]);
        assert!(
            matches!(response.status, 400 | 401),
            "{value:?}: {}",
            response.status
        );
    }
    scene.origin.expect_untouched();
}

#[test]
fn a23_signed_claims_that_are_not_acceptable() {
    let scene = Scene::new();
    scene.expect_invalid("no exp", &Mint::new().without("exp"));
    scene.expect_invalid(
        "sub as a list",
        &Mint::new().claim("sub", json!(["alice", "root"])),
    );
    scene.expect_invalid("sub as a number", &Mint::new().claim("sub", 7));
    let twice = |name: &str, value: &str| {
        let member = format!(",\"{name}\":{value}}}");
        Mint::new().payload(move |text| {
            let end = text.rfind('}').unwrap_or(text.len());
            format!("{}{member}", &text[..end])
        })
    };
    scene.expect_invalid("sub twice", &twice("sub", "\"root\""));
    scene.expect_invalid("exp twice", &twice("exp", "99999999999"));
    scene.expect_invalid(
        "a private claim twice",
        &twice("realm_access", "{\"roles\":[\"admin\"]}"),
    );
    scene.expect_invalid("no object", &Mint::new().payload(|_| "[]".to_owned()));
    scene.expect_invalid("no JSON", &Mint::new().payload(|_| "{".to_owned()));
    scene.expect_invalid("an ID token", &Mint::new().claim("typ", "ID"));
}

#[test]
fn a24_many_unknown_key_names_leave_memory_flat() {
    let scene = Scene::new();
    scene.expect_pass("a sound token", &Mint::new());
    let token = scene.issuer.mint(&Mint::new());
    let (_, signed) = token.split_once('.').expect("a compact token");
    let mut client = scene.gate.https();
    let mut burst = |from: u32, to: u32| {
        for number in from..to {
            let header = format!("{{\"alg\":\"RS256\",\"kid\":\"random-{number}\"}}");
            let forged = format!("Bearer {}.{signed}", base64url(header.as_bytes()));
            let response = client
                .send(request("GET", "/api", &[("Authorization", &forged)]))
                .response();
            response.expect(401);
        }
    };
    let fetched = scene.issuer.fetches("/jwks");
    burst(0, 300);
    let before = scene.gate.proxy.resident_kib();
    burst(300, 1500);
    let grown = scene.gate.proxy.resident_kib().saturating_sub(before);
    assert!(grown < 4096, "grew by {grown} KiB");
    assert!(scene.issuer.fetches("/jwks") - fetched <= 1);
    scene.expect_pass("sound tokens are unaffected", &Mint::new());
}

#[test]
fn a25_a_cached_token_ends_with_its_time() {
    let scene = Scene::new();
    let token = scene.issuer.mint(&Mint::new().claim("exp", now() - 52));
    scene.present_token(&token).expect(200);
    eventually_within(Duration::from_secs(15), "the token expires", || {
        (scene.present_token(&token).status == 401).then_some(())
    });
}

#[test]
fn a_token_is_remembered_in_little_whatever_it_says() {
    const TOKENS: u64 = 400;
    const KIB_A_TOKEN: u64 = 2;
    let scene = Scene::new();
    let mut client = scene.gate.https();
    let mut ask = |subject: &str| {
        // A claim that no policy asks for.
        let mint = Mint::new()
            .alg(Alg::EdDsa)
            .claim("sub", subject)
            .claim("photo", "x".repeat(5 * 1024));
        let token = scene.issuer.bearer_of(&mint);
        let get = request("GET", "/api", &[("Authorization", &token)]);
        client.send(get).response().expect(200);
    };
    // What is needed once is needed before the count begins.
    (0..50).for_each(|number| ask(&format!("early-{number}")));
    let before = scene.gate.proxy.resident_kib();
    (0..TOKENS).for_each(|number| ask(&format!("user-{number}")));
    let cost = scene.gate.proxy.resident_kib().saturating_sub(before);
    assert!(
        cost < KIB_A_TOKEN * TOKENS,
        "{cost} KiB for {TOKENS} tokens"
    );
}

#[test]
fn a25_the_cache_knows_the_whole_token() {
    let scene = Scene::new();
    let token = scene.issuer.mint(&Mint::new());
    scene.present_token(&token).expect(200);
    let (signed, signature) = token.rsplit_once('.').expect("a compact token");
    let flipped = if signature.starts_with('A') { "B" } else { "A" };
    let response = scene.present_token(&format!("{signed}.{flipped}{}", &signature[1..]));
    expect_invalid_token("another signature", &response);
    let response = scene.present_token(&format!("{signed}."));
    assert!(matches!(response.status, 400 | 401), "{}", response.status);
}

#[test]
fn a26_tokens_in_the_wrong_places() {
    let scene = Scene::new();
    let token = scene.issuer.mint(&Mint::new());
    let alone_in_query = scene.gate.get(&format!("/api?access_token={token}"));
    alone_in_query.expect(401);
    let joined = format!("Bearer {token}, Bearer {token}");
    let listed = scene.gate.get_with("/api", &[("Authorization", &joined)]);
    assert!(matches!(listed.status, 400 | 401), "{}", listed.status);
    let huge = format!("Bearer {}", "A".repeat(64 * 1024));
    let response = scene.gate.get_with("/api", &[("Authorization", &huge)]);
    assert!(
        matches!(response.status, 400 | 401 | 431),
        "{}",
        response.status
    );
    scene.origin.expect_untouched();
    let line = scene.gate.proxy.await_access_of("/api");
    assert!(!line.to_string().contains(&token), "{line}");
}

#[test]
fn keys_come_over_https_from_an_authority_that_the_machine_trusts() {
    let origin = Origin::echo();
    let gate = Gate::before(&origin);
    let issuer = Issuer::https(gate.ca());
    let gate = gate.with(&issuer.section()).with(ANY_TOKEN).start();
    let token = issuer.bearer(&["reader"]);
    eventually_within(Duration::from_secs(20), "the token passes", || {
        let status = gate.get_with("/api", &[("Authorization", &token)]).status;
        (status == 200).then_some(())
    });
    assert!(issuer.fetches("/jwks") >= 1);
}

#[test]
fn keys_over_https_from_a_stranger_are_not_trusted() {
    let origin = Origin::echo();
    let elsewhere = tempfile::tempdir().expect("a temporary directory");
    let issuer = Issuer::https(&crate::harness::Ca::new(elsewhere.path()));
    let gate = Gate::before(&origin)
        .with(&issuer.section())
        .with(ANY_TOKEN)
        .start();
    let token = issuer.bearer(&["reader"]);
    gate.get_with("/api", &[("Authorization", &token)])
        .expect(503);
    assert_eq!(issuer.fetches("/jwks"), 0);
    origin.expect_untouched();
}

#[test]
fn keys_may_come_from_a_file() {
    let origin = Origin::echo();
    let issuer = Issuer::http();
    let gate = Gate::before(&origin);
    let file = gate.directory().join("keys.json");
    issuer.write_jwks(&file);
    let section = issuer.section().replace(
        &format!("jwks_url = \"{}\"", issuer.jwks_url()),
        &format!("jwks_file = '{}'", file.display()),
    );
    let gate = gate.with(&section).with(ANY_TOKEN).start();
    let token = issuer.bearer(&["reader"]);
    gate.get_with("/api", &[("Authorization", &token)])
        .expect(200);
    assert_eq!(issuer.fetches("/jwks"), 0);
}

#[test]
fn the_token_may_be_forwarded_by_choice() {
    let origin = Origin::echo();
    let issuer = Issuer::http();
    let gate = Gate::before(&origin)
        .with(&issuer.section())
        .with(&format!("{ANY_TOKEN}forward_token = true\n"))
        .start();
    let token = issuer.bearer(&["reader"]);
    gate.get_with("/api", &[("Authorization", &token)])
        .expect(200);
    assert_eq!(origin.only_request().head.all("authorization"), [token]);
}

#[test]
fn tokens_and_fetches_are_counted_by_issuer() {
    let scene = Scene::new();
    let token = scene.issuer.mint(&Mint::new());
    scene.present_token(&token).expect(200);
    scene.present_token(&token).expect(200);
    let expired = Mint::new().claim("exp", now() - 3600);
    scene.present(&expired).expect(401);
    for (name, outcome) in [
        ("portcullis_jwks_fetches_total", "ok"),
        ("portcullis_tokens_verified_total", "verified"),
        ("portcullis_tokens_verified_total", "expired"),
    ] {
        let outcome = format!("outcome=\"{outcome}\"");
        scene
            .gate
            .proxy
            .await_metric(name, &["issuer=\"corp\"", &outcome], 1.0);
    }
}

#[test]
fn monitor_lets_a_bad_token_pass_and_says_so() {
    let origin = Origin::echo();
    let issuer = Issuer::http();
    let gate = Gate::before(&origin)
        .with(&issuer.section())
        .with(&format!("{ANY_TOKEN}mode = \"monitor\"\n"))
        .start();
    let forged = issuer.bearer_of(&Mint::new().with_a_foreign_key());
    gate.get("/none").expect(200);
    gate.get_with("/forged", &[("Authorization", &forged)])
        .expect(200);
    assert!(origin.last_request().head.all("x-auth-subject").is_empty());
    for (path, reason) in [
        ("/none", "credentials-missing"),
        ("/forged", "token-invalid"),
    ] {
        let line = gate.proxy.await_access_of(path);
        assert!(line["would_refuse"].to_string().contains(reason), "{line}");
        assert_eq!(line["decision"], "forwarded", "{line}");
    }
}

fn base64url(bytes: &[u8]) -> String {
    use base64::Engine;
    base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(bytes)
}

#[test]
fn auth_that_is_off_hands_no_token_on() {
    let origin = Origin::echo();
    let issuer = Issuer::http();
    let gate = Gate::before(&origin)
        .with(&issuer.section())
        .with(&format!("{ANY_TOKEN}mode = \"off\"\n"))
        .start();
    let token = issuer.bearer(&["reader"]);
    for headers in [vec![], vec![("Authorization", token.as_str())]] {
        gate.get_with("/api", &headers).expect(200);
        assert!(origin.last_request().head.all("authorization").is_empty());
    }
}
