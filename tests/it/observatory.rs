//! The grade of an outside judge: the MDN HTTP Observatory, its own scanner and rules, against the `strict` preset.

use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::harness::gate::Running;
use crate::harness::python::{Gunicorn, app, node, run_json};
use crate::harness::{Gate, Origin};

fn scan(http: u16, https: u16, ca: &Path) -> Value {
    run_json(
        Command::new(node())
            .arg(app("observatory.mjs"))
            .args(["app.example", &http.to_string(), &https.to_string()])
            .env("NODE_EXTRA_CA_CERTS", ca),
    )
}

fn scan_gate(gate: &Running) -> Value {
    scan(
        gate.proxy.http().port(),
        gate.proxy.https().port(),
        &gate.directory.path().join("ca.pem"),
    )
}

#[track_caller]
fn expect_best_grade(result: &Value) {
    let scan = &result["scan"];
    assert_eq!(scan["grade"], "A+", "{result:#}");
    assert!(
        scan["score"].as_i64().is_some_and(|score| score >= 100),
        "{result:#}"
    );
    assert_eq!(scan["testsFailed"], 0, "{result:#}");
}

#[test]
fn a_page_with_a_plain_session_cookie_gets_the_best_grade() {
    let origin = Origin::with_headers(&[
        ("Content-Type", "text/html"),
        ("Set-Cookie", "session=c2VjcmV0; Path=/"),
        ("Access-Control-Allow-Origin", "*"),
        ("Server", "old/1"),
    ]);
    let result = scan_gate(&Gate::before(&origin).open());
    expect_best_grade(&result);
    let tests = &result["tests"];
    let verdict = |name: &str| {
        tests[name]["result"]
            .as_str()
            .unwrap_or_default()
            .to_owned()
    };
    assert_eq!(
        verdict("cookies"),
        "cookies-secure-with-httponly-sessions-and-samesite",
        "{result:#}"
    );
    assert_eq!(verdict("redirection"), "redirection-to-https");
}

#[test]
fn the_legacy_application_gets_the_best_grade_behind_the_gate() {
    let application = Gunicorn::start();
    expect_best_grade(&scan_gate(&Gate::before_url(&application.url()).open()));
}
