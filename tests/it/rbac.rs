//! Roles and scopes (case b27), from nested claims to the decision.

use serde_json::json;

use crate::harness::{Gate, Issuer, Mint, Origin};

/// One blueprint below `/x` with this `auth` table.
fn guarded(auth: &str) -> String {
    format!(
        r#"
[[blueprints]]
name = "guarded"
hosts = ["app.example"]
prefix = "/x"
upstream = "legacy"
[blueprints.auth]
require = ["bearer"]
issuers = ["corp"]
{auth}
"#
    )
}

/// The status that a token with these roles and scopes gets.
struct Scene {
    gate: crate::harness::gate::Running,
    issuer: Issuer,
    origin: Origin,
}

impl Scene {
    fn new(auth: &str) -> Self {
        let origin = Origin::echo();
        let issuer = Issuer::http();
        let gate = Gate::before(&origin)
            .with(&issuer.section())
            .with(&guarded(auth))
            .start();
        Self {
            gate,
            issuer,
            origin,
        }
    }

    #[track_caller]
    fn expect(&self, roles: &[&str], scope: &str, status: u16) {
        let token = self
            .issuer
            .bearer_of(&Mint::new().roles(roles).claim("scope", scope));
        let response = self.gate.get_with("/x", &[("Authorization", &token)]);
        assert_eq!(
            response.status,
            status,
            "{roles:?} {scope:?}: {}",
            response.text()
        );
    }
}

#[test]
fn b27_a_missing_role_is_403_and_stays_here() {
    let scene = Scene::new("roles = { any = [\"admin\"] }");
    let token = scene.issuer.bearer(&["reader"]);
    let response = scene.gate.get_with("/x", &[("Authorization", &token)]);
    response.expect(403);
    assert_eq!(
        response.problem()["type"],
        "urn:portcullis:problem:role-missing"
    );
    if let Some(challenge) = response.header("www-authenticate") {
        assert!(!challenge.contains("insufficient_scope"), "{challenge}");
    }
    scene.origin.expect_untouched();
    let line = scene.gate.proxy.await_access_of("/x");
    assert_eq!(line["stage"], "rbac", "{line}");
    assert_eq!(line["enduser.id"], "alice", "{line}");
    scene.expect(&["admin"], "", 200);
}

#[test]
fn b27_a_missing_scope_is_named() {
    let scene = Scene::new("scopes = { all = [\"api.read\", \"api.write\"] }");
    let token = scene.issuer.bearer(&[]);
    let response = scene.gate.get_with("/x", &[("Authorization", &token)]);
    response.expect(403);
    assert_eq!(
        response.problem()["type"],
        "urn:portcullis:problem:scope-missing"
    );
    let challenge = response.header("www-authenticate").expect("a challenge");
    assert!(challenge.starts_with("Bearer "), "{challenge}");
    assert!(
        challenge.contains("error=\"insufficient_scope\""),
        "{challenge}"
    );
    assert!(
        challenge.contains("scope=\"api.read api.write\""),
        "{challenge}"
    );
    scene.origin.expect_untouched();
    scene.expect(&[], "api.read api.write other", 200);
    scene.expect(&[], "api.readapi.write", 403);
    scene.expect(&[], "API.READ api.write", 403);
}

#[test]
fn b27_any_all_and_none() {
    let scene = Scene::new("roles = { any = [\"a\", \"b\"], all = [\"c\"], none = [\"banned\"] }");
    scene.expect(&["a", "c"], "", 200);
    scene.expect(&["b", "c", "d"], "", 200);
    scene.expect(&["a"], "", 403);
    scene.expect(&["c"], "", 403);
    scene.expect(&["a", "c", "banned"], "", 403);
    scene.expect(&[], "", 403);
    scene.expect(&["A", "c"], "", 403);
    scene.expect(&["a,c"], "", 403);
}

#[test]
fn b27_roles_from_claims_with_dots_in_their_names() {
    let origin = Origin::echo();
    let issuer = Issuer::http();
    let section = issuer.section().replace(
        "roles = [\"realm_access.roles\"]",
        "roles = ['\"https://ns.example/roles\"', \"resource_access.app.roles\", \"groups\"]",
    );
    let gate = Gate::before(&origin)
        .with(&section)
        .with(&guarded("roles = { any = [\"admin\"] }"))
        .start();
    let status = |mint: Mint| {
        let token = issuer.bearer_of(&mint);
        gate.get_with("/x", &[("Authorization", &token)]).status
    };
    let none = || Mint::new().without("realm_access");
    assert_eq!(
        status(none().claim("https://ns.example/roles", json!(["admin"]))),
        200
    );
    assert_eq!(
        status(none().claim("resource_access", json!({"app": {"roles": ["admin"]}}))),
        200
    );
    assert_eq!(
        status(none().claim("groups", "admin")),
        200,
        "one role as text"
    );
    assert_eq!(
        status(none().claim("groups", json!(["other", "admin"]))),
        200
    );
    assert_eq!(
        status(Mint::new().roles(&["admin"])),
        403,
        "not a configured path"
    );
    for odd in [
        json!({"admin": true}),
        json!([["admin"]]),
        json!([{"name": "admin"}]),
    ] {
        let status = status(none().claim("groups", odd.clone()));
        assert!(matches!(status, 401 | 403), "{odd}: {status}");
    }
}

#[test]
fn b27_a_route_asks_for_more_than_its_blueprint() {
    let origin = Origin::echo();
    let issuer = Issuer::http();
    let gate = Gate::before(&origin)
        .with(&issuer.section())
        .with(&guarded("roles = { any = [\"reader\", \"admin\"] }"))
        .with(
            r#"
[[blueprints.routes]]
name = "remove-user"
path = "/users/{id}"
methods = ["DELETE"]
auth = { roles = { any = ["admin"] } }
"#,
        )
        .start();
    let reader = issuer.bearer(&["reader"]);
    let admin = issuer.bearer(&["admin"]);
    for (method, token, status) in [
        ("GET", &reader, 200),
        ("DELETE", &reader, 403),
        ("DELETE", &admin, 200),
        ("PUT", &reader, 200),
    ] {
        let response = gate.request(
            method,
            "/x/users/7",
            &[("Authorization", token), ("Content-Length", "0")],
        );
        assert_eq!(response.status, status, "{method}: {}", response.text());
    }
    let line = gate.proxy.await_access("the removal", |line| {
        line["http.request.method"] == "DELETE"
    });
    assert_eq!(line["blueprint"], "guarded", "{line}");
}

#[test]
fn monitor_lets_a_missing_role_pass_and_says_so() {
    let origin = Origin::echo();
    let issuer = Issuer::http();
    let gate = Gate::before(&origin)
        .with(&issuer.section())
        .with(&guarded(
            "mode = \"monitor\"\nroles = { any = [\"admin\"] }",
        ))
        .start();
    let token = issuer.bearer(&["reader"]);
    gate.get_with("/x", &[("Authorization", &token)])
        .expect(200);
    let line = gate.proxy.await_access_of("/x");
    assert!(
        line["would_refuse"].to_string().contains("role-missing"),
        "{line}"
    );
    gate.proxy.await_metric(
        "portcullis_refusals_total",
        &["reason=\"role-missing\"", "mode=\"monitor\""],
        1.0,
    );
}

#[test]
fn what_the_routes_of_a_guarded_blueprint_leave_open_is_not_served_by_a_public_one() {
    let origin = Origin::echo();
    let routes_alone = r#"
[[blueprints]]
name = "api"
hosts = ["app.example"]
prefix = "/api"
auth = { require = ["bearer"], issuers = ["corp"] }
[[blueprints.routes]]
path = "/users/{id}"
methods = ["GET"]
upstream = "legacy"
"#;
    let gate = Gate::before(&origin)
        .issuer_without_keys()
        .with(routes_alone)
        .open();
    for (method, path, status) in [
        ("GET", "/api/users/7", 401),
        ("DELETE", "/api/users/7", 405),
        ("GET", "/api/other", 404),
        ("GET", "/api", 404),
    ] {
        assert_eq!(
            gate.request(method, path, &[]).status,
            status,
            "{method} {path}"
        );
    }
    origin.expect_untouched();
    assert_eq!(gate.get("/apis").status, 200);
}

#[test]
fn a_stated_blueprint_goes_before_what_another_of_its_prefix_leaves_open() {
    let origin = Origin::echo();
    let one_route = r#"
[[blueprints]]
name = "one"
hosts = ["app.example"]
auth = { require = ["bearer"], issuers = ["corp"] }
[[blueprints.routes]]
path = "/admin"
upstream = "legacy"
"#;
    let gate = Gate::before(&origin)
        .issuer_without_keys()
        .with(one_route)
        .open();
    assert_eq!(gate.get("/admin").status, 401);
    assert_eq!(gate.get("/other").status, 200);
}

#[test]
fn a_route_for_get_guards_head_too() {
    let origin = Origin::echo();
    let gate = Gate::before(&origin)
        .issuer_without_keys()
        .with(
            "[[blueprints]]\nname = \"app\"\nupstream = \"legacy\"\nauth = \"public\"\n\
             [[blueprints.routes]]\npath = \"/report\"\nmethods = [\"GET\"]\n\
             auth = { require = [\"bearer\"], issuers = [\"corp\"] }\n",
        )
        .start();
    for method in ["GET", "HEAD"] {
        gate.request(method, "/report", &[]).expect(401);
    }
    origin.expect_untouched();
    gate.request("HEAD", "/other", &[]).expect(200);
}

/// Roles that bring others with them.
const SHOP: &str = r#"
[roles.admin]
inherits = ["editor"]
permissions = ["users.remove"]
[roles.editor]
inherits = ["reader"]
permissions = ["orders.write"]
[roles.reader]
permissions = ["orders.read"]
[roles.suspended]
[roles.fraud]
inherits = ["suspended"]
"#;

impl Scene {
    fn with_roles(roles: &str, auth: &str) -> Self {
        let origin = Origin::echo();
        let issuer = Issuer::http();
        let gate = Gate::before(&origin)
            .with(roles)
            .with(&issuer.section())
            .with(&guarded(auth))
            .start();
        Self {
            gate,
            issuer,
            origin,
        }
    }
}

#[test]
fn b27_an_inherited_role_counts_in_every_rule_and_is_not_told_to_the_backend() {
    let scene = Scene::with_roles(
        SHOP,
        "roles = { any = [\"reader\"], none = [\"suspended\"] }",
    );
    scene.expect(&["admin"], "", 200);
    let head = scene.origin.last_request().head;
    assert_eq!(head.all("x-auth-roles"), ["admin"]);
    scene.expect(&["editor"], "", 200);
    scene.expect(&["reader"], "", 200);
    scene.expect(&["admin", "suspended"], "", 403);
    scene.expect(&["admin", "fraud"], "", 403);
    scene.expect(&["Admin"], "", 403);
    scene.expect(&["reader "], "", 403);
    scene.expect(&[], "", 403);
}

#[test]
fn b27_permissions_come_from_roles_alone() {
    let scene = Scene::with_roles(
        SHOP,
        "permissions = { all = [\"orders.read\", \"orders.write\"], none = [\"users.remove\"] }",
    );
    scene.expect(&["editor"], "", 200);
    scene.expect(&["reader"], "", 403);
    scene.expect(&["admin"], "", 403);
    scene.expect(
        &["orders.read", "orders.write"],
        "orders.read orders.write",
        403,
    );
    let token = scene.issuer.bearer(&["reader"]);
    let response = scene.gate.get_with("/x", &[("Authorization", &token)]);
    assert_eq!(
        response.problem()["type"],
        "urn:portcullis:problem:permission-missing"
    );
    let claimed = Mint::new()
        .roles(&["reader"])
        .claim("permissions", json!(["orders.write"]));
    let token = scene.issuer.bearer_of(&claimed);
    scene
        .gate
        .get_with("/x", &[("Authorization", &token)])
        .expect(403);
}

#[test]
fn a_reload_changes_what_a_remembered_token_may_do() {
    let origin = Origin::echo();
    let issuer = Issuer::http();
    let sections = |inherits: &str| {
        format!(
            "[roles.admin]\ninherits = [{inherits}]\n[roles.reader]\n{}{}",
            issuer.section(),
            guarded("roles = { any = [\"reader\"] }")
        )
    };
    let mut gate = Gate::before(&origin).with(&sections("\"reader\"")).start();
    let token = issuer.bearer(&["admin"]);
    let ask = |gate: &crate::harness::gate::Running| {
        gate.get_with("/x", &[("Authorization", &token)]).status
    };
    assert_eq!(ask(&gate), 200);
    gate.reload_with(&sections(""));
    assert_eq!(ask(&gate), 403);
    gate.reload_with(&sections("\"reader\""));
    assert_eq!(ask(&gate), 200);
}
