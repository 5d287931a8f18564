//! Tokens that are bound to a key, and the proofs that come with them (case b26, RFC 9449), by a client that shares no code
//! with the proxy.

use serde_json::{Value, json};

use crate::harness::gate::{Running, request};
use crate::harness::issuer::now;
use crate::harness::proxy::portcullis_verb;
use crate::harness::python::h2;
use crate::harness::{Gate, Issuer, Mint, Origin, Proof, Prover, Response};

/// Every path for holders of any token of `corp`; `/reports` for those with a scope that nobody has.
const ANY_TOKEN: &str = r#"
[[blueprints]]
name = "api"
hosts = ["app.example"]
upstream = "legacy"
[blueprints.auth]
require = ["bearer"]
issuers = ["corp"]

[[blueprints.routes]]
path = "/reports"
auth = { scopes = { all = ["reports.read"] } }

[[blueprints.routes]]
path = "/seen"
auth = { forward_token = true }
"#;

const API: &str = "https://app.example/api";

struct Scene {
    gate: Running,
    issuer: Issuer,
    origin: Origin,
    prover: Prover,
}

impl Scene {
    /// A gate whose issuer says this of proofs.
    fn new(dpop: &str) -> Self {
        let origin = Origin::echo();
        let issuer = Issuer::http();
        let gate = Gate::before(&origin)
            .with(&issuer.section_with(dpop))
            .with(ANY_TOKEN)
            .start();
        Self {
            gate,
            issuer,
            origin,
            prover: Prover::start(),
        }
    }

    /// A token that is bound to the key `mine`.
    fn bound(&self) -> String {
        self.bound_to("ES256")
    }

    fn bound_to(&self, alg: &str) -> String {
        let jkt = self.prover.thumbprint("mine", alg);
        let cnf = json!({ "jkt": jkt });
        self.issuer.mint(&Mint::new().claim("cnf", cnf))
    }

    /// `GET /api` with a token and a proof.
    fn present(&self, token: &str, proof: &Proof) -> Response {
        self.present_text(token, &self.prover.prove(proof))
    }

    fn present_text(&self, token: &str, proof: &str) -> Response {
        let authorization = format!("DPoP {token}");
        let headers = [("Authorization", authorization.as_str()), ("DPoP", proof)];
        self.gate.get_with("/api", &headers)
    }
}

/// Wants this refusal; gives the body less its request id.
#[track_caller]
fn expect_refused(what: &str, response: &Response, (reason, error): (&str, &str)) -> Value {
    assert_eq!(response.status, 401, "{what}: {}", response.text());
    let challenges = response.headers("www-authenticate");
    let [challenge] = challenges.as_slice() else {
        panic!("{what}: {challenges:?}")
    };
    assert!(
        challenge.starts_with("DPoP realm=\"app.example\", algs=\"ES256 "),
        "{what}: {challenge}"
    );
    assert!(
        challenge.ends_with(&format!("error=\"{error}\"")),
        "{what}: {challenge}"
    );
    let mut problem = response.problem();
    assert_eq!(
        problem["type"],
        format!("urn:portcullis:problem:{reason}"),
        "{what}"
    );
    problem["instance"] = Value::Null;
    problem
}

const BAD_TOKEN: (&str, &str) = ("token-invalid", "invalid_token");
const BAD_PROOF: (&str, &str) = ("proof-invalid", "invalid_dpop_proof");
const NO_NONCE: (&str, &str) = ("proof-nonce-missing", "use_dpop_nonce");

#[test]
fn b26_a_bound_token_passes_with_a_proof_and_is_no_bearer_token() {
    let scene = Scene::new("dpop = {}");
    let token = scene.bound();
    let bearer = format!("Bearer {token}");
    let alone = scene.gate.get_with("/api", &[("Authorization", &bearer)]);
    expect_refused("as a bearer token", &alone, BAD_TOKEN);
    let proof = scene.prover.prove(&Proof::new("GET", API, &token));
    let headers = [("Authorization", bearer.as_str()), ("DPoP", &proof)];
    let beside = scene.gate.get_with("/api", &headers);
    expect_refused("as a bearer token with a proof", &beside, BAD_TOKEN);
    scene.origin.expect_untouched();
    scene.present_text(&token, &proof).expect(200);
    let head = scene.origin.last_request().head;
    assert_eq!(head.all("x-auth-subject"), ["alice"]);
    for name in ["authorization", "dpop"] {
        assert!(head.all(name).is_empty(), "{head:#?}");
    }
    // Known by now, and no more a bearer token than before.
    let again = scene.gate.get_with("/api", &[("Authorization", &bearer)]);
    expect_refused("as a bearer token, once known", &again, BAD_TOKEN);
    let line = scene
        .gate
        .proxy
        .await_access("the refusal", |line| line["reason"] == "token-invalid");
    assert_eq!(line["detail"], "binding", "{line}");
}

#[test]
fn b26_a_proof_counts_once_also_after_a_reload() {
    let scene = Scene::new("dpop = {}");
    let token = scene.bound();
    let proof = scene.prover.prove(&Proof::new("GET", API, &token));
    scene.present_text(&token, &proof).expect(200);
    let again = scene.present_text(&token, &proof);
    expect_refused("a second time", &again, BAD_PROOF);
    scene.gate.reload();
    let again = scene.present_text(&token, &proof);
    expect_refused("after a reload", &again, BAD_PROOF);
    assert_eq!(scene.origin.requests().len(), 1);
    let line = scene
        .gate
        .proxy
        .await_access("the refusal", |line| line["reason"] == "proof-invalid");
    assert_eq!(line["detail"], "proof-replayed", "{line}");
    // A remembered token needs a proof of its own for each request, on one connection too.
    let mut client = scene.gate.https();
    let authorization = format!("DPoP {token}");
    for _ in 0..3 {
        let proof = scene.prover.prove(&Proof::new("GET", API, &token));
        let headers = [("Authorization", authorization.as_str()), ("DPoP", &proof)];
        client.send(request("GET", "/api", &headers));
        client.response().expect(200);
        client.send(request("GET", "/api", &headers));
        expect_refused("on its connection", &client.response(), BAD_PROOF);
    }
}

#[test]
fn b26_proofs_that_are_none_get_identical_answers() {
    let scene = Scene::new("dpop = {}");
    let token = scene.bound();
    let good = || Proof::new("GET", API, &token);
    let now = now();
    let mut bodies = Vec::new();
    for (what, proof) in [
        ("another method", Proof::new("POST", API, &token)),
        (
            "another path",
            Proof::new("GET", "https://app.example/", &token),
        ),
        (
            "another host",
            Proof::new("GET", "https://evil.example/api", &token),
        ),
        (
            "in clear",
            Proof::new("GET", "http://app.example/api", &token),
        ),
        ("another token", Proof::new("GET", API, "another")),
        ("no ath", good().claim("ath", Value::Null)),
        ("no jti", good().claim("jti", Value::Null)),
        ("no iat", good().claim("iat", Value::Null)),
        ("made 66 s ago", good().claim("iat", now - 66)),
        ("made 20 s from now", good().claim("iat", now + 20)),
        ("no type", good().header("typ", Value::Null)),
        ("another type", good().header("typ", "JWT")),
        ("no algorithm", good().header("alg", "none")),
        ("a shared secret", good().header("alg", "HS256")),
        ("no key", good().header("jwk", Value::Null)),
        ("another client's key", good().by("theirs")),
        ("another's signature", good().signed_by("theirs")),
        ("the private key", good().with_the_private_key()),
        (
            "a critical extension",
            good().header("crit", json!(["x"])).header("x", 1),
        ),
    ] {
        let response = scene.present(&token, &proof);
        bodies.push(expect_refused(what, &response, BAD_PROOF));
    }
    for (what, text) in [
        ("none", ""),
        ("no token", "x"),
        ("the token itself", token.as_str()),
        ("a long one", &"A".repeat(5000)),
    ] {
        let response = scene.present_text(&token, text);
        bodies.push(expect_refused(what, &response, BAD_PROOF));
    }
    let authorization = format!("DPoP {token}");
    let missing = scene
        .gate
        .get_with("/api", &[("Authorization", &authorization)]);
    bodies.push(expect_refused("no proof", &missing, BAD_PROOF));
    assert!(bodies.iter().all(|body| body == &bodies[0]), "{bodies:#?}");
    scene.origin.expect_untouched();
    assert!(scene.gate.proxy.metric("portcullis_proofs_remembered", &[]) < 0.5);
    scene.present(&token, &good()).expect(200);
    assert!(scene.gate.proxy.metric("portcullis_proofs_remembered", &[]) > 0.5);
}

#[test]
fn b26_two_proofs_are_refused_over_both_versions_of_http() {
    let scene = Scene::new("dpop = {}");
    let token = scene.bound();
    let prove = || scene.prover.prove(&Proof::new("GET", API, &token));
    let authorization = format!("DPoP {token}");
    let (one, two) = (prove(), prove());
    let headers = [
        ("Authorization", authorization.as_str()),
        ("DPoP", &one),
        ("DPoP", &two),
    ];
    let response = scene.gate.get_with("/api", &headers);
    response.expect(400);
    assert_eq!(
        response.problem()["type"],
        "urn:portcullis:problem:invalid-request"
    );
    let line = scene
        .gate
        .proxy
        .await_access("the refusal", |line| line["reason"] == "invalid-request");
    assert_eq!(line["detail"], "proof-repeated", "{line}");
    scene.origin.expect_untouched();
    let joined = scene.present_text(&token, &format!("{one}, {two}"));
    expect_refused("two in one line", &joined, BAD_PROOF);
    let ask = |headers: Value| {
        let account = h2(&json!({
            "do": "fetch",
            "ca": scene.gate.directory.path().join("ca.pem"),
            "address": scene.gate.proxy.https().to_string(),
            "requests": [{"path": "/api", "headers": headers}],
        }));
        account["answers"][0]["status"].clone()
    };
    let twice = json!([
        ["authorization", authorization],
        ["dpop", prove()],
        ["dpop", prove()]
    ]);
    assert_eq!(ask(twice), 400);
    scene.origin.expect_untouched();
    let sound = json!([["authorization", authorization], ["dpop", prove()]]);
    assert_eq!(ask(sound), 200);
}

#[test]
fn b26_every_kind_of_key_proves_itself() {
    let scene = Scene::new("dpop = {}");
    for alg in ["ES256", "ES384", "EdDSA", "PS256"] {
        let token = scene.bound_to(alg);
        let proof = Proof::new("GET", API, &token).alg(alg);
        scene.present(&token, &proof).expect(200);
    }
    let scene = Scene::new("dpop = { algorithms = [\"ES256\"] }");
    let token = scene.bound_to("EdDSA");
    let response = scene.present(&token, &Proof::new("GET", API, &token).alg("EdDSA"));
    response.expect(401);
    assert_eq!(
        response.headers("www-authenticate"),
        ["DPoP realm=\"app.example\", algs=\"ES256\", error=\"invalid_dpop_proof\""]
    );
}

#[test]
fn b26_the_address_is_compared_in_its_normal_form() {
    let scene = Scene::new("dpop = {}");
    let token = scene.bound();
    let authorization = format!("DPoP {token}");
    for (path, url) in [
        ("/a/b?x=1", "https://app.example/a/b"),
        ("/a/b?x=1", "https://app.example/a/b?y=2#z"),
        ("/a/%62", "HTTPS://APP.EXAMPLE:443/a/b"),
        ("/a/./c/../b", "https://app.example/a/b"),
        ("/a/b", "https://app.example/a/c/../%62"),
        ("/a%20b", "https://app.example/a%20b"),
    ] {
        let proof = scene.prover.prove(&Proof::new("GET", url, &token));
        let headers = [("Authorization", authorization.as_str()), ("DPoP", &proof)];
        let response = scene.gate.get_with(path, &headers);
        assert_eq!(response.status, 200, "{path} {url}: {}", response.text());
    }
}

#[test]
fn b26_unbound_tokens_by_what_the_issuer_says() {
    let scene = Scene::new("dpop = {}");
    let plain = scene.issuer.mint(&Mint::new());
    let bearer = format!("Bearer {plain}");
    scene
        .gate
        .get_with("/api", &[("Authorization", &bearer)])
        .expect(200);
    let before = scene.origin.requests().len();
    let response = scene.present(&plain, &Proof::new("GET", API, &plain));
    expect_refused("a proof for nothing", &response, BAD_TOKEN);
    assert_eq!(scene.origin.requests().len(), before);

    let scene = Scene::new("dpop = { required = true }");
    let plain = scene.issuer.bearer_of(&Mint::new());
    for _ in 0..2 {
        let response = scene.gate.get_with("/api", &[("Authorization", &plain)]);
        expect_refused("an unbound token", &response, BAD_TOKEN);
    }
    scene.origin.expect_untouched();
    let token = scene.bound();
    scene
        .present(&token, &Proof::new("GET", API, &token))
        .expect(200);
}

#[test]
fn b26_an_issuer_without_a_word_on_proofs_takes_no_bound_token() {
    let scene = Scene::new("");
    let token = scene.bound();
    let bearer = format!("Bearer {token}");
    let response = scene.gate.get_with("/api", &[("Authorization", &bearer)]);
    response.expect(401);
    assert_eq!(
        response.headers("www-authenticate"),
        ["Bearer realm=\"app.example\", error=\"invalid_token\""]
    );
    let response = scene.present(&token, &Proof::new("GET", API, &token));
    response.expect(401);
    assert_eq!(
        response.headers("www-authenticate"),
        ["Bearer realm=\"app.example\""]
    );
    scene.origin.expect_untouched();
}

#[test]
fn b17_the_challenge_names_the_ways_that_there_are() {
    let dpop = "DPoP realm=\"app.example\", algs=\"ES256 ES384 EdDSA PS256 RS256\"";
    let scene = Scene::new("dpop = {}");
    let response = scene.gate.get("/api");
    response.expect(401);
    assert_eq!(
        response.headers("www-authenticate"),
        ["Bearer realm=\"app.example\"", dpop]
    );
    assert!(response.headers("dpop-nonce").is_empty());
    let scene = Scene::new("dpop = { required = true }");
    assert_eq!(scene.gate.get("/api").headers("www-authenticate"), [dpop]);
}

#[test]
fn b26_a_nonce_of_ours_is_asked_for_and_given_with_every_answer() {
    let scene = Scene::new("dpop = { nonce = true }");
    let token = scene.bound();
    let good = || Proof::new("GET", API, &token);
    let first = scene.present(&token, &good());
    expect_refused("no nonce", &first, NO_NONCE);
    let nonce = first.header("dpop-nonce").expect("a nonce").to_owned();
    let guessed = scene.present(&token, &good().claim("nonce", "guessed"));
    expect_refused("a guess", &guessed, NO_NONCE);
    scene.origin.expect_untouched();
    let proof = scene.prover.prove(&good().claim("nonce", nonce.as_str()));
    let passed = scene.present_text(&token, &proof);
    passed.expect(200);
    assert!(
        passed.header("dpop-nonce").is_some(),
        "the next one comes with the answer"
    );
    expect_refused("again", &scene.present_text(&token, &proof), BAD_PROOF);
    scene.gate.reload();
    let after = scene.present(&token, &good().claim("nonce", nonce.as_str()));
    after.expect(200);
    assert!(
        scene.gate.get("/api").header("dpop-nonce").is_some(),
        "also with a bare challenge"
    );
}

#[test]
fn b26_a_full_memory_refuses_with_503() {
    let scene = Scene::new("dpop = { entries = 2 }");
    let token = scene.bound();
    let good = || Proof::new("GET", API, &token);
    for _ in 0..2 {
        scene.present(&token, &good()).expect(200);
    }
    let full = scene.present(&token, &good());
    full.expect(503);
    assert_eq!(full.problem()["type"], "urn:portcullis:problem:overloaded");
    assert!(full.header("retry-after").is_some());
    assert_eq!(scene.origin.requests().len(), 2);
    let line = scene
        .gate
        .proxy
        .await_access("the refusal", |line| line["reason"] == "overloaded");
    assert_eq!(line["detail"], "proofs-remembered", "{line}");
    let plain = scene.issuer.bearer_of(&Mint::new());
    scene
        .gate
        .get_with("/api", &[("Authorization", &plain)])
        .expect(200);
}

#[test]
fn b26_a_missing_scope_is_told_in_the_scheme_of_the_token() {
    let scene = Scene::new("dpop = {}");
    let token = scene.bound();
    let url = "https://app.example/reports";
    let proof = scene.prover.prove(&Proof::new("GET", url, &token));
    let authorization = format!("DPoP {token}");
    let headers = [("Authorization", authorization.as_str()), ("DPoP", &proof)];
    let response = scene.gate.get_with("/reports", &headers);
    response.expect(403);
    let challenge = response.header("www-authenticate").expect("a challenge");
    assert!(
        challenge.starts_with("DPoP realm=\"app.example\", error=\"insufficient_scope\""),
        "{challenge}"
    );
}

#[test]
fn b26_a_token_that_is_passed_on_goes_with_its_proof() {
    let scene = Scene::new("dpop = {}");
    let token = scene.bound();
    let url = "https://app.example/seen";
    let proof = scene.prover.prove(&Proof::new("GET", url, &token));
    let authorization = format!("DPoP {token}");
    let headers = [("Authorization", authorization.as_str()), ("DPoP", &proof)];
    scene.gate.get_with("/seen", &headers).expect(200);
    let head = scene.origin.last_request().head;
    assert_eq!(head.all("authorization"), [authorization.as_str()]);
    assert_eq!(head.all("dpop"), [proof.as_str()]);
}

#[test]
fn the_metadata_of_the_resource_says_what_proofs_are_taken() {
    let origin = Origin::echo();
    for (dpop, required) in [("", false), ("required = true", true)] {
        let gate = Gate::before(&origin)
            .issuer_without_keys()
            .with(&format!(
                "[issuers.corp.dpop]\nalgorithms = [\"ES256\"]\n{dpop}\n{}",
                ANY_TOKEN.replace(
                    "issuers = [\"corp\"]",
                    "issuers = [\"corp\"]\nresource = \"https://app.example\""
                )
            ))
            .start();
        let metadata = gate.get("/.well-known/oauth-protected-resource");
        let metadata = metadata.expect(200).json();
        let algorithms = &metadata["dpop_signing_alg_values_supported"];
        assert_eq!(*algorithms, json!(["ES256"]), "{metadata}");
        assert_eq!(metadata["dpop_bound_access_tokens_required"], required);
    }
}

#[test]
fn the_file_is_checked_and_explained() {
    let origin = Origin::echo();
    let said = |dpop: &str, verb: &[&str]| {
        let gate = Gate::before(&origin)
            .issuer_without_keys()
            .with(&format!("[issuers.corp.dpop]\n{dpop}\n{ANY_TOKEN}"));
        let file = gate.write().display().to_string();
        let output = portcullis_verb(&[&verb[..1], &["-c", &file], &verb[1..]].concat());
        let said = [output.stdout, output.stderr].concat();
        (
            output.status.code(),
            String::from_utf8_lossy(&said).into_owned(),
        )
    };
    let (_, explained) = said("required = true", &["explain", "GET", API]);
    assert!(
        explained.contains("bearer token of `corp` with a proof"),
        "{explained}"
    );
    for (dpop, message) in [
        (
            "algorithms = []",
            "no algorithm is allowed, so no proof could pass",
        ),
        ("algorithms = [\"HS256\"]", "`HS256`"),
        ("max_age = \"0s\"", "a limit of no time refuses everything"),
        ("nonces = true", "`nonce`"),
    ] {
        let (code, checked) = said(dpop, &["check"]);
        assert_eq!(code, Some(2), "{checked}");
        assert!(checked.contains(message), "{checked}");
    }
    let (code, checked) = said("max_age = \"6m\"", &["check"]);
    assert_eq!(code, Some(0), "{checked}");
    assert!(
        checked.contains("this weakens the gate: a proof that was stolen"),
        "{checked}"
    );
}

#[test]
fn b24_bad_tokens_with_good_proofs() {
    let scene = Scene::new("dpop = {}");
    let jkt = scene.prover.thumbprint("mine", "ES256");
    let cnf = json!({ "jkt": jkt });
    let expired = Mint::new()
        .claim("cnf", cnf.clone())
        .claim("exp", now() - 120);
    let foreign = Mint::new().claim("cnf", cnf.clone()).with_a_foreign_key();
    let both = json!({"jkt": jkt, "x5t#S256": jkt});
    for (what, mint) in [
        ("expired", expired),
        ("forged", foreign),
        ("bound twice", Mint::new().claim("cnf", both)),
        ("bound to nothing", Mint::new().claim("cnf", json!({}))),
    ] {
        let token = scene.issuer.mint(&mint);
        let response = scene.present(&token, &Proof::new("GET", API, &token));
        expect_refused(what, &response, BAD_TOKEN);
    }
    scene.origin.expect_untouched();
}
