//! Step-up by claims of the token (case b31; RFC 9470).

use std::time::Duration;

use serde_json::json;

use crate::harness::eventually::eventually_within;
use crate::harness::gate::Running;
use crate::harness::issuer::now;
use crate::harness::{Gate, Issuer, Mint, Origin, Response};

/// `/pay` wants more than the rest of the blueprint.
fn policy(demand: &str) -> String {
    format!(
        r#"
[[blueprints]]
name = "bank"
hosts = ["app.example"]
upstream = "legacy"
[blueprints.auth]
require = ["bearer"]
issuers = ["corp"]
[[blueprints.routes]]
name = "pay"
path = "/pay"
auth = {{ {demand} }}
"#
    )
}

struct Scene {
    gate: Running,
    issuer: Issuer,
    origin: Origin,
}

impl Scene {
    fn new(demand: &str) -> Self {
        let origin = Origin::echo();
        let issuer = Issuer::http();
        let gate = Gate::before(&origin)
            .with(&issuer.section())
            .with(&policy(demand))
            .start();
        Self {
            gate,
            issuer,
            origin,
        }
    }

    fn pay(&self, mint: &Mint) -> Response {
        let token = self.issuer.bearer_of(mint);
        self.gate.get_with("/pay", &[("Authorization", &token)])
    }

    #[track_caller]
    fn expect(&self, what: &str, mint: &Mint, status: u16) {
        let response = self.pay(mint);
        assert_eq!(response.status, status, "{what}: {}", response.text());
    }
}

#[test]
fn b31_a_weak_and_old_sign_in_is_told_what_is_enough() {
    let scene = Scene::new("step_up = { acr = [\"mfa\"], max_age = \"5m\" }");
    let weak = Mint::new().claim("acr", "pwd").claim("auth_time", now());
    let response = scene.pay(&weak);
    response.expect(401);
    assert_eq!(
        response.headers("www-authenticate"),
        [
            "Bearer realm=\"app.example\", error=\"insufficient_user_authentication\", \
          acr_values=\"mfa\", max_age=\"300\""
        ]
    );
    assert_eq!(
        response.problem()["type"],
        "urn:portcullis:problem:step-up-needed"
    );
    let old = Mint::new()
        .claim("acr", "mfa")
        .claim("auth_time", now() - 330);
    let refused_for_age = scene.pay(&old);
    refused_for_age.expect(401);
    let body = |response: &Response| {
        let mut body = response.problem();
        body["instance"] = json!(null);
        body
    };
    assert_eq!(
        body(&refused_for_age),
        body(&response),
        "what fell short is not told"
    );
    scene.origin.expect_untouched();
    let line = scene
        .gate
        .proxy
        .await_access("the old sign-in", |line| line["detail"] == "auth-time-past");
    assert_eq!(line["stage"], "mfa", "{line}");
    assert_eq!(line["reason"], "step-up-needed", "{line}");
    assert_eq!(line["enduser.id"], "alice", "{line}");
    let fresh = Mint::new()
        .claim("acr", "mfa")
        .claim("auth_time", now() - 200);
    scene.expect("a fresh one", &fresh, 200);
}

#[test]
fn b31_what_a_token_does_not_say_is_not_assumed() {
    let scene =
        Scene::new("step_up = { acr = [\"mfa\", \"hwk\"], amr = [\"otp\"], max_age = \"5m\" }");
    let full = || {
        Mint::new()
            .claim("acr", "hwk")
            .claim("amr", json!(["pwd", "otp"]))
            .claim("auth_time", now())
    };
    scene.expect("all three", &full(), 200);
    for absent in ["acr", "amr", "auth_time"] {
        scene.expect(absent, &full().without(absent), 401);
    }
    for (claim, value) in [
        ("acr", json!("mfa hwk")),
        ("acr", json!("HWK")),
        ("acr", json!(["hwk"])),
        ("amr", json!(["pwd"])),
        ("auth_time", json!(now() + 3600)),
        ("auth_time", json!(now().to_string())),
        ("auth_time", json!(0)),
    ] {
        let mint = full().claim(claim, value.clone());
        scene.expect(&format!("{claim} {value}"), &mint, 401);
    }
    let other = scene.issuer.bearer_of(&Mint::new());
    scene
        .gate
        .get_with("/other", &[("Authorization", &other)])
        .expect(200);
}

#[test]
fn b31_a_remembered_token_ages_too() {
    let scene = Scene::new("step_up = { max_age = \"3s\" }");
    let token = scene
        .issuer
        .bearer_of(&Mint::new().claim("auth_time", now()));
    let mut client = scene.gate.https();
    let mut ask = || {
        let fields = [("Authorization", token.as_str())];
        let request = crate::harness::gate::request("GET", "/pay", &fields);
        client.send(request).response().status
    };
    assert_eq!(ask(), 200);
    eventually_within(
        Duration::from_secs(20),
        "the sign-in is too old on the same connection",
        || (ask() == 401).then_some(()),
    );
}

#[test]
fn b31_the_scopes_of_the_route_stand_in_the_challenge() {
    let scene = Scene::new(
        "step_up = { acr = [\"urn:example:silver\", \"phrh\"] }, scopes = { all = [\"pay\"] }",
    );
    let response = scene.pay(&Mint::new());
    response.expect(401);
    assert_eq!(
        response.headers("www-authenticate"),
        [
            "Bearer realm=\"app.example\", error=\"insufficient_user_authentication\", \
          acr_values=\"urn:example:silver phrh\", scope=\"pay\""
        ]
    );
    let signed_in = Mint::new().claim("acr", "phrh");
    scene.expect("without the scope", &signed_in, 403);
    scene.expect("with it", &signed_in.claim("scope", "pay"), 200);
}

#[test]
fn monitored_step_up_passes_and_is_noted() {
    let scene = Scene::new("step_up = { acr = [\"mfa\"] }, mode = \"monitor\"");
    scene.expect("monitored", &Mint::new(), 200);
    let line = scene.gate.proxy.await_access_of("/pay");
    assert!(
        line["would_refuse"].to_string().contains("step-up-needed"),
        "{line}"
    );
}

#[test]
fn without_a_credential_the_challenge_stays_bare() {
    let scene = Scene::new("step_up = { acr = [\"mfa\"] }");
    let response = scene.gate.get("/pay");
    response.expect(401);
    assert_eq!(
        response.headers("www-authenticate"),
        ["Bearer realm=\"app.example\""]
    );
}
