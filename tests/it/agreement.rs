//! Signed tokens that the issuer is asked about too: what the answer takes away counts for nothing (RFC 7662 §2.2).

use serde_json::{Value, json};

use crate::harness::gate::Running;
use crate::harness::issuer::now;
use crate::harness::{Gate, Issuer, Mint, Origin, Response};

struct Scene {
    gate: Running,
    issuer: Issuer,
    origin: Origin,
}

impl Scene {
    /// One blueprint whose `auth` has these lines too.
    fn new(auth: &str) -> Self {
        let origin = Origin::echo();
        let issuer = Issuer::http();
        let gate = Gate::before(&origin)
            .environment("GATE_SECRET", "s3cret")
            .with(&issuer.section())
            .with(&issuer.introspection())
            .with("when = \"always\"\n")
            .with(&format!(
                "[[blueprints]]\nname = \"api\"\nhosts = [\"app.example\"]\nupstream = \"legacy\"\n\
                 [blueprints.auth]\nrequire = [\"bearer\"]\nissuers = [\"corp\"]\n{auth}\n"
            ))
            .start();
        Self {
            gate,
            issuer,
            origin,
        }
    }

    /// Shows a token with these claims, of which the issuer says this, twice: asked about, and remembered.
    fn show(&self, claims: &Value, said: &Value) -> Response {
        let mut mint = Mint::new().claim("jti", format!("{claims} {said}"));
        for (name, value) in claims.as_object().expect("claims") {
            mint = mint.claim(name, value.clone());
        }
        let token = self.issuer.mint(&mint);
        let mut members = json!({"active": true, "exp": now() + 300});
        for (name, value) in said.as_object().expect("members") {
            members[name] = value.clone();
        }
        self.issuer.know(&token, &members);
        let value = format!("Bearer {token}");
        let fields = [("Authorization", value.as_str())];
        let first = self.gate.get_with("/api", &fields);
        let again = self.gate.get_with("/api", &fields);
        assert_eq!(first.status, again.status, "{claims} {said}");
        again
    }

    #[track_caller]
    fn expect(&self, cases: &[(Value, Value, u16, &str)]) {
        for (claims, said, status, reason) in cases {
            let response = self.show(claims, said);
            assert_eq!(
                response.status,
                *status,
                "{claims} {said}: {}",
                response.text()
            );
            if *status != 200 {
                let kind = format!("urn:portcullis:problem:{reason}");
                assert_eq!(response.problem()["type"], kind.as_str());
            }
        }
    }
}

fn roles(names: &[&str]) -> Value {
    json!({ "realm_access": { "roles": names } })
}

#[test]
fn a_claim_that_the_answer_takes_away_lets_nobody_in() {
    let scene = Scene::new("claims = { \"realm_access.roles\" = \"admin\" }");
    let failed = "condition-failed";
    scene.expect(&[
        (roles(&["admin"]), json!({}), 200, ""),
        (roles(&["admin"]), roles(&["admin"]), 200, ""),
        (roles(&["admin"]), roles(&[]), 403, failed),
        (
            roles(&["admin"]),
            json!({"realm_access": {"roles": null}}),
            403,
            failed,
        ),
        (
            roles(&["admin"]),
            json!({"realm_access": null}),
            403,
            failed,
        ),
        // Nothing is said of the roles.
        (
            roles(&["admin"]),
            json!({"realm_access": {"other": 1}}),
            200,
            "",
        ),
        // Nor does an answer give what the token does not.
        (roles(&["reader"]), roles(&["admin"]), 403, failed),
    ]);
    assert_eq!(scene.origin.requests().len(), 6);
}

#[test]
fn a_role_that_one_side_alone_names_still_shuts_out_by_a_condition() {
    let scene = Scene::new("condition = \"!('blocked' in roles)\"");
    let failed = "condition-failed";
    scene.expect(&[
        (roles(&["reader"]), roles(&["reader"]), 200, ""),
        (
            roles(&["reader", "blocked"]),
            roles(&["reader"]),
            403,
            failed,
        ),
        (
            roles(&["reader"]),
            roles(&["reader", "blocked"]),
            403,
            failed,
        ),
    ]);
    assert_eq!(scene.origin.requests().len(), 2);
}

#[test]
fn a_condition_must_hold_of_the_token_and_of_the_answer() {
    let scene =
        Scene::new("condition = \"('admin' in roles || claims.owner) && !has(claims.suspended)\"");
    let failed = "condition-failed";
    let admin = || json!({"realm_access": {"roles": ["admin"]}, "owner": false});
    let owner = || json!({"realm_access": {"roles": ["admin"]}, "owner": true});
    scene.expect(&[
        (admin(), json!({}), 200, ""),
        (admin(), json!({"suspended": 1}), 403, failed),
        (admin(), roles(&[]), 403, failed),
        // One of the two is left.
        (owner(), roles(&[]), 200, ""),
        (owner(), json!({"owner": false}), 200, ""),
        // Neither is, by the answer alone.
        (
            owner(),
            json!({"realm_access": {"roles": []}, "owner": false}),
            403,
            failed,
        ),
        (json!({"owner": false}), json!({"owner": true}), 403, failed),
    ]);
}

#[test]
fn a_sign_in_that_the_answer_calls_weaker_or_older_is_that() {
    let scene = Scene::new("step_up = { acr = [\"mfa\"], amr = [\"otp\"], max_age = \"5m\" }");
    let signed_in = || json!({"acr": "mfa", "amr": ["pwd", "otp"], "auth_time": now() - 10});
    let needed = "step-up-needed";
    scene.expect(&[
        (signed_in(), json!({}), 200, ""),
        (signed_in(), signed_in(), 200, ""),
        (signed_in(), json!({"acr": "pwd"}), 401, needed),
        (signed_in(), json!({"amr": ["pwd"]}), 401, needed),
        (signed_in(), json!({"amr": null}), 401, needed),
        (signed_in(), json!({"auth_time": now() - 400}), 401, needed),
        (json!({"acr": "pwd"}), signed_in(), 401, needed),
    ]);
}

#[test]
fn a_list_that_the_answer_states_as_null_is_empty() {
    let scene = Scene::new("scopes = { all = [\"api.read\"] }");
    let token = || json!({"scope": "api.read"});
    let missing = "scope-missing";
    scene.expect(&[
        (token(), json!({}), 200, ""),
        (token(), json!({"scope": null}), 403, missing),
        (token(), json!({"scp": null}), 403, missing),
    ]);
    let said = json!({"realm_access": null});
    let claims = json!({"scope": "api.read", "realm_access": {"roles": ["admin"]}});
    assert_eq!(scene.show(&claims, &said).status, 200);
    let head = scene.origin.last_request().head;
    assert!(head.all("x-auth-roles").is_empty(), "{head:#?}");
}
