//! `explain --matrix`: what it prints, what it compares, and that the gate does what it says.

use std::path::Path;
use std::process::Output;

use crate::harness::proxy::portcullis_verb;
use crate::harness::{Gate, Issuer, Mint, Origin};

const POLICY: &str = r#"
[roles.admin]
inherits = ["reader"]
permissions = ["users.remove"]
[roles.reader]
[roles."Domain, Admins"]
inherits = ["admin"]

[[blueprints]]
name = "api"
hosts = ["app.example"]
prefix = "/api"
upstream = "legacy"
[blueprints.auth]
require = ["bearer"]
issuers = ["corp"]
roles = { any = ["reader"] }
[[blueprints.routes]]
name = "remove"
path = "/users/{id}"
methods = ["DELETE", "PUT"]
auth = { permissions = { all = ["users.remove"] } }
[[blueprints.routes]]
name = "pay"
path = "/pay"
auth = { step_up = { acr = ["mfa"] }, scopes = { all = ["pay"] } }
[[blueprints.routes]]
name = "watched"
path = "/watched"
auth = { mode = "monitor" }

[[blueprints]]
name = "pages"
hosts = ["app.example"]
upstream = "legacy"
auth = "public"
"#;

const MATRIX: &str = "\
blueprint,route,methods,path,anonymous,\"Domain, Admins\",admin,reader
api,remove,DELETE PUT,/api/users/{id},deny,allow,allow,deny
api,pay,*,/api/pay,deny,step-up+scope,step-up+scope,step-up+scope
api,watched,*,/api/watched,monitor,allow,allow,allow
api,/api/{*rest},*,/api/{*rest},deny,allow,allow,allow
pages,/{*rest},*,/{*rest},allow,allow,allow,allow
";

fn matrix(file: &Path, more: &[&str]) -> Output {
    let file = file.display().to_string();
    let mut arguments = vec!["explain", "-c", &file, "--matrix"];
    arguments.extend(more);
    portcullis_verb(&arguments)
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("text")
}

#[test]
fn the_matrix_says_what_each_role_may_do_and_names_what_it_cannot_know() {
    let origin = Origin::echo();
    let gate = Gate::before(&origin).issuer_without_keys().with(POLICY);
    let output = matrix(&gate.write(), &[]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert_eq!(text(&output.stdout), MATRIX);
    assert!(output.stderr.is_empty());
    origin.expect_untouched();
}

#[test]
fn an_expected_matrix_fails_when_anything_differs() {
    let origin = Origin::echo();
    let gate = Gate::before(&origin).issuer_without_keys().with(POLICY);
    let file = gate.write();
    let expected = gate.directory().join("matrix.csv");
    let compare = |text: &str| {
        std::fs::write(&expected, text).expect("the test's directory takes files");
        matrix(&file, &["--expect", &expected.display().to_string()])
    };
    let same = compare(MATRIX);
    assert_eq!(same.status.code(), Some(0), "{}", text(&same.stdout));
    assert!(same.stdout.is_empty() && same.stderr.is_empty());
    let other = compare(&MATRIX.replace(
        "/api/users/{id},deny,allow,allow,deny",
        "/api/users/{id},deny,allow,deny,deny",
    ));
    assert_eq!(other.status.code(), Some(1));
    assert_eq!(
        text(&other.stdout),
        "api/remove (DELETE PUT /api/users/{id}): admin is `allow`, expected `deny`\n"
    );
    assert!(text(&other.stderr).contains("1 difference"));
    for bad in ["", "nonsense\n", &format!("{MATRIX}a,b\n")] {
        let output = compare(bad);
        assert_eq!(output.status.code(), Some(2), "{bad:?}");
        assert!(output.stdout.is_empty());
    }
    let absent = gate.directory().join("absent.csv").display().to_string();
    assert_eq!(matrix(&file, &["--expect", &absent]).status.code(), Some(2));
    let misused = matrix(&file, &["GET", "https://app.example/"]);
    assert_eq!(misused.status.code(), Some(2));
}

#[test]
fn the_gate_does_what_the_matrix_says() {
    let (origin, issuer) = (Origin::echo(), Issuer::http());
    let gate = Gate::before(&origin)
        .with(&issuer.section())
        .with(POLICY)
        .start();
    let mut lines = MATRIX
        .lines()
        .skip(1)
        .map(|line| line.split(',').collect::<Vec<_>>());
    let mut judged = 0;
    for cells in lines.by_ref() {
        let [_, _, methods, pattern, cells @ ..] = cells.as_slice() else {
            panic!("{cells:?}")
        };
        let method = methods.replace('*', "GET");
        let method = method.split(' ').next().expect("a method");
        let path = pattern.replace("{id}", "7").replace("{*rest}", "other");
        for (role, cell) in [None, Some("Domain, Admins"), Some("admin"), Some("reader")]
            .into_iter()
            .zip(cells)
        {
            let token = role.map(|role| issuer.bearer_of(&Mint::new().roles(&[role])));
            let mut fields = vec![("Content-Length", "0")];
            fields.extend(token.iter().map(|token| ("Authorization", token.as_str())));
            let status = gate.request(method, &path, &fields).status;
            let expected: &[u16] = match *cell {
                "allow" | "monitor" => &[200],
                "deny" => &[401, 403],
                "step-up+scope" => &[401],
                other => panic!("{other}"),
            };
            assert!(
                expected.contains(&status),
                "{role:?} {method} {path}: {status}, {cell}"
            );
            judged += 1;
        }
    }
    assert_eq!(judged, 20);
}
