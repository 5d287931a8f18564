//! Conditions on claims and on the request, from the file to the decision.

use serde_json::json;

use crate::harness::gate::Running;
use crate::harness::proxy::portcullis_verb;
use crate::harness::{Gate, Issuer, Mint, Origin, Response};

/// One route below `/users/{user_id}` with this `auth`, and nothing beside it.
fn policy(auth: &str) -> String {
    policy_for("/users/{user_id}", auth)
}

fn policy_for(path: &str, auth: &str) -> String {
    format!(
        r#"
[[blueprints]]
name = "api"
hosts = ["app.example"]
upstream = "legacy"
unmatched = "refuse"
[blueprints.auth]
require = ["bearer"]
issuers = ["corp"]
[[blueprints.routes]]
name = "user"
path = "{path}"
[blueprints.routes.auth]
{auth}
"#
    )
}

struct Scene {
    gate: Running,
    issuer: Issuer,
    origin: Origin,
}

impl Scene {
    fn new(policy: &str) -> Self {
        let origin = Origin::echo();
        let issuer = Issuer::http();
        let gate = Gate::before(&origin)
            .with(&issuer.section())
            .with(policy)
            .start();
        Self {
            gate,
            issuer,
            origin,
        }
    }

    fn ask(&self, method: &str, path: &str, mint: &Mint) -> Response {
        let token = self.issuer.bearer_of(mint);
        self.gate.request(
            method,
            path,
            &[("Authorization", &token), ("Content-Length", "0")],
        )
    }

    #[track_caller]
    fn expect(&self, (method, path): (&str, &str), mint: &Mint, status: u16) {
        let response = self.ask(method, path, mint);
        assert_eq!(
            response.status,
            status,
            "{method} {path}: {}",
            response.text()
        );
    }

    /// Wants the refusal, with this finer code in the log.
    #[track_caller]
    fn expect_failed(&self, path: &str, mint: &Mint, detail: &str) {
        let response = self.ask("GET", path, mint);
        response.expect(403);
        assert_eq!(
            response.problem()["type"],
            "urn:portcullis:problem:condition-failed"
        );
        assert!(!response.text().contains(detail));
        self.gate.proxy.await_access("the refusal", |line| {
            line["reason"] == "condition-failed" && line["detail"] == detail
        });
    }
}

#[test]
fn the_owner_alone_by_subject_path_and_method() {
    let scene = Scene::new(&policy(
        "condition = 'subject == path.user_id && method == \"GET\"'",
    ));
    let alice = Mint::new();
    scene.expect_failed("/users/bob", &alice, "condition-false");
    scene.expect(("PUT", "/users/alice"), &alice, 403);
    scene.expect(("GET", "/users/Alice"), &alice, 403);
    scene.expect(("GET", "/users/alice%00"), &alice, 400);
    scene.expect(("GET", "/users/alice%2Fx"), &alice, 400);
    scene.expect(("GET", "/users/alice/x"), &alice, 404);
    scene.origin.expect_untouched();
    scene.expect(("GET", "/users/alice"), &alice, 200);
    scene.expect(("HEAD", "/users/alice"), &alice, 403);
}

#[test]
fn what_is_compared_is_the_judged_segment_decoded_once() {
    let scene = Scene::new(&policy("condition = 'subject == path.user_id'"));
    for (path, subject, status) in [
        ("/users/%61lice", "alice", 200),
        ("/users//x/../alice/", "alice", 200),
        ("/users/bob/../alice", "alice", 200),
        ("/users/alice/../bob", "alice", 403),
        ("/users/a%20b", "a b", 200),
        ("/users/a+b", "a b", 403),
        ("/users/a+b", "a+b", 200),
        ("/users/a%40b.example", "a@b.example", 200),
        ("/users/%C3%A9", "é", 200),
        ("/users/a%25b", "a%b", 200),
        ("/users/a%2520b", "a b", 400),
        ("/users/alice?user_id=bob", "bob", 403),
    ] {
        let mint = Mint::new().claim("sub", subject);
        let response = scene.ask("GET", path, &mint);
        assert_eq!(
            response.status,
            status,
            "{path} {subject}: {}",
            response.text()
        );
        if status == 200 {
            let line = scene.origin.last_request().head.line;
            assert!(line.starts_with("GET /users/"), "{line}");
        }
    }
}

#[test]
fn a_claim_that_is_absent_or_of_another_type_refuses() {
    let scene = Scene::new(&policy(
        "condition = 'claims.level >= 3 && claims.org.unit in [\"a\", \"b\"]'",
    ));
    let good = || {
        Mint::new()
            .claim("level", 3)
            .claim("org", json!({"unit": "b", "x": [1]}))
    };
    scene.expect(("GET", "/users/1"), &good(), 200);
    scene.expect_failed("/users/1", &good().without("level"), "condition-error");
    for (claim, value) in [
        ("level", json!("3")),
        ("level", json!(null)),
        ("level", json!(2)),
        ("level", json!([3])),
        ("org", json!("a")),
        ("org", json!({})),
        ("org", json!({"unit": ["a"]})),
    ] {
        let mint = good().claim(claim, value.clone());
        let response = scene.ask("GET", "/users/1", &mint);
        assert_eq!(response.status, 403, "{claim} {value}");
    }
    scene.expect(("GET", "/users/1"), &good().claim("level", 3.5), 200);
}

#[test]
fn only_true_is_true() {
    let scene = Scene::new(&policy("condition = 'claims.staff'"));
    scene.expect(("GET", "/users/1"), &Mint::new().claim("staff", true), 200);
    for value in [json!("true"), json!(1), json!("x"), json!([true])] {
        let mint = Mint::new().claim("staff", value);
        scene.expect_failed("/users/1", &mint, "condition-not-boolean");
    }
    let mint = Mint::new().claim("staff", false);
    scene.expect_failed("/users/1", &mint, "condition-false");
}

#[test]
fn roles_scopes_host_client_and_issuer_can_be_asked() {
    let scene = Scene::new(&policy(
        "condition = '''\"reader\" in roles && scopes.exists(s, s.startsWith(\"api.\")) && host == \"app.example\" \
         && client.startsWith(\"127.\") && issuer == \"corp\" && !has(claims.blocked)'''",
    ));
    scene.expect(("GET", "/users/1"), &Mint::new(), 200);
    scene.expect(("GET", "/users/1"), &Mint::new().roles(&["other"]), 403);
    scene.expect(("GET", "/users/1"), &Mint::new().claim("scope", "web"), 403);
    scene.expect(
        ("GET", "/users/1"),
        &Mint::new().claim("blocked", false),
        403,
    );
}

#[test]
fn the_rest_of_a_path_is_one_parameter() {
    let scene = Scene::new(&policy_for(
        "/files/{owner}/{*rest}",
        "condition = 'path.owner == subject && !path.rest.startsWith(\"private/\")'",
    ));
    for (path, status) in [
        ("/files/alice/a/b", 200),
        ("/files/alice", 200),
        ("/files/alice/private/x", 403),
        ("/files/alice/x/../private/x", 403),
        ("/files/alice/%70rivate/x", 403),
        ("/files/bob/a", 403),
    ] {
        scene.expect(("GET", path), &Mint::new(), status);
    }
}

#[test]
fn plain_claims_want_one_of_their_values() {
    let scene = Scene::new(&policy(
        "claims = { email_verified = true, dept = [\"a\", \"b\"], \"realm_access.roles\" = \"reader\" }",
    ));
    let good = || Mint::new().claim("email_verified", true).claim("dept", "b");
    scene.expect(("GET", "/users/1"), &good(), 200);
    scene.expect(
        ("GET", "/users/1"),
        &good().claim("dept", json!(["x", "a"])),
        200,
    );
    scene.expect_failed("/users/1", &good().without("email_verified"), "claim");
    for (claim, value) in [
        ("email_verified", json!("true")),
        ("email_verified", json!(1)),
        ("dept", json!("c")),
        ("dept", json!("a b")),
        ("dept", json!([])),
        ("dept", json!({"a": "a"})),
        ("realm_access", json!({"roles": ["other"]})),
    ] {
        let response = scene.ask("GET", "/users/1", &good().claim(claim, value.clone()));
        assert_eq!(response.status, 403, "{claim} {value}");
    }
}

#[test]
fn a_monitored_condition_passes_and_is_noted() {
    let scene = Scene::new(&policy("condition = 'false'\nmode = \"monitor\""));
    scene.expect(("GET", "/users/1"), &Mint::new(), 200);
    let line = scene.gate.proxy.await_access_of("/users/1");
    assert!(
        line["would_refuse"]
            .to_string()
            .contains("condition-failed"),
        "{line}"
    );
}

#[test]
fn a_reload_that_reads_another_claim_knows_it_of_remembered_tokens() {
    let (origin, issuer) = (Origin::echo(), Issuer::http());
    let sections = |condition: &str| {
        format!(
            "{}{}",
            issuer.section(),
            policy(&format!("condition = '{condition}'"))
        )
    };
    let mut gate = Gate::before(&origin).with(&sections("true")).start();
    let token = issuer.bearer_of(&Mint::new().claim("dept", "a"));
    let ask = |gate: &Running| {
        gate.get_with("/users/1", &[("Authorization", &token)])
            .status
    };
    assert_eq!(ask(&gate), 200);
    gate.reload_with(&sections("claims.dept == \"a\""));
    assert_eq!(ask(&gate), 200);
    gate.reload_with(&sections("claims.dept == \"b\""));
    assert_eq!(ask(&gate), 403);
}

#[test]
fn what_is_wrong_with_a_condition_is_told_where_it_stands() {
    let origin = Origin::echo();
    for (auth, wanted) in [
        ("condition = 'subject ='", "not an expression"),
        ("condition = 'subjekt == \"a\"'", "did you mean `subject`?"),
        (
            "condition = 'subject.matches(\"a+\")'",
            "unknown function `matches`",
        ),
        (
            "condition = 'size(claims) > 0'",
            "`claims` is read by names alone",
        ),
        (
            "condition = 'path.id == subject'",
            "`path.id` is no parameter of `/users/{user_id}`",
        ),
        (
            "condition = 'roles.all(a, roles.all(b, a == b))'",
            "a macro stands within a macro",
        ),
        ("claims = { dept = [] }", "an empty list lets nobody pass"),
        ("claims = { \"a..b\" = 1 }", "a name is empty"),
        ("claims = { dept = 1.5 }", "expected"),
    ] {
        let gate = Gate::before(&origin)
            .issuer_without_keys()
            .with(&policy(auth));
        let file = gate.write();
        let output = portcullis_verb(&["check", "-c", &file.display().to_string()]);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{auth}: {said}");
        assert!(said.contains(wanted), "{auth}: {said}");
        let line = std::fs::read_to_string(&file).expect("our file");
        let at = line
            .lines()
            .position(|line| line == auth)
            .expect("the line")
            + 1;
        assert!(said.contains(&format!("gate.toml:{at}:")), "{auth}: {said}");
    }
}
