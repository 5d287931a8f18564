//! End to end with parts that others made: a Flask app under gunicorn behind the gate, curl before it.

use std::path::PathBuf;

use crate::harness::curl::{Curled, curl};
use crate::harness::gate::Running;
use crate::harness::python::Gunicorn;
use crate::harness::{Gate, Issuer};

const SECTIONS: &str = r#"
[[blueprints]]
name = "pages"
hosts = ["app.example"]
upstream = "legacy"
auth = "public"

[[blueprints]]
name = "api"
hosts = ["app.example"]
prefix = "/api"
upstream = "legacy"
[blueprints.headers]
preset = "api"
[blueprints.auth]
require = ["bearer"]
issuers = ["corp"]
roles = { any = ["reader", "admin"] }
[blueprints.cors]
origins = ["https://shop.example"]
methods = ["GET", "PUT"]
headers = ["authorization"]
[[blueprints.routes]]
name = "remove"
path = "/{*rest}"
methods = ["DELETE"]
auth = { roles = { any = ["admin"] } }
[[blueprints.routes]]
name = "use"
path = "/{*rest}"
methods = ["GET", "PUT"]
"#;

struct Scene {
    gate: Running,
    issuer: Issuer,
    app: Gunicorn,
}

impl Scene {
    fn new() -> Self {
        let app = Gunicorn::start();
        let issuer = Issuer::http();
        let gate = Gate::before_url(&app.url())
            .with(&issuer.section())
            .with(SECTIONS)
            .start();
        Self { gate, issuer, app }
    }

    fn ca(&self) -> PathBuf {
        self.gate.directory.path().join("ca.pem")
    }

    fn curl(&self, path: &str, arguments: &[&str]) -> Curled {
        curl(self.gate.proxy.https(), &self.ca(), path, arguments)
    }
}

#[test]
fn a_page_that_had_nothing_is_hardened() {
    let scene = Scene::new();
    for (version, flag) in [("2", "--http2"), ("1.1", "--http1.1")] {
        let page = scene.curl("/", &[flag]);
        assert_eq!((page.exit, page.status), (0, 200));
        assert_eq!(page.version, version);
        assert!(String::from_utf8_lossy(&page.body).contains("<h1>Hello</h1>"));
        for name in ["server", "x-powered-by"] {
            assert!(page.head.all(name).is_empty(), "{name}: {:#?}", page.head);
        }
        for name in [
            "content-security-policy",
            "strict-transport-security",
            "x-frame-options",
            "x-content-type-options",
            "referrer-policy",
        ] {
            assert_eq!(page.head.all(name).len(), 1, "{name}: {:#?}", page.head);
        }
        let cookies = page.head.all("set-cookie").join("\n").to_ascii_lowercase();
        assert_eq!(cookies.matches("secure").count(), 2, "{cookies}");
        assert_eq!(cookies.matches("samesite=lax").count(), 2, "{cookies}");
        assert_eq!(cookies.matches("httponly").count(), 1, "{cookies}");
    }
}

#[test]
fn the_api_wants_a_token_and_the_right_role() {
    let scene = Scene::new();
    let reader = format!("Authorization: {}", scene.issuer.bearer(&["reader"]));
    let admin = format!("Authorization: {}", scene.issuer.bearer(&["admin"]));
    assert_eq!(scene.curl("/api/users/7", &[]).status, 401);
    let read = scene.curl("/api/users/7", &["-H", &reader]);
    assert_eq!(read.status, 200);
    let body: serde_json::Value = serde_json::from_slice(&read.body).expect("JSON");
    assert_eq!(body["subject"], "alice", "{body}");
    assert_eq!(body["roles"], "reader", "{body}");
    assert_eq!(
        scene
            .curl("/api/users/7", &["-X", "DELETE", "-H", &reader])
            .status,
        403
    );
    assert_eq!(
        scene
            .curl("/api/users/7", &["-X", "DELETE", "-H", &admin])
            .status,
        200
    );
    assert_eq!(
        scene
            .curl("/api/users/7", &["-X", "PATCH", "-H", &admin])
            .status,
        405
    );
    let preflight = scene.curl(
        "/api/users/7",
        &[
            "-X",
            "OPTIONS",
            "-H",
            "Origin: https://shop.example",
            "-H",
            "Access-Control-Request-Method: PUT",
        ],
    );
    assert_eq!(preflight.status, 204);
    assert_eq!(
        preflight.head.all("access-control-allow-origin"),
        ["https://shop.example"]
    );
}

#[test]
fn uploads_and_downloads_come_through_whole() {
    let scene = Scene::new();
    let file = scene.gate.directory.path().join("upload");
    let content: Vec<u8> = (0..3_000_000_u32)
        .map(|number| (number % 251) as u8)
        .collect();
    std::fs::write(&file, &content).expect("the directory takes files");
    let at = format!("@{}", file.display());
    for arguments in [
        vec!["--http1.1", "--data-binary", &at],
        vec!["--http2", "--data-binary", &at],
        vec![
            "--http1.1",
            "-H",
            "Transfer-Encoding: chunked",
            "--data-binary",
            &at,
        ],
    ] {
        let sent = scene.curl("/upload", &arguments);
        assert_eq!((sent.exit, sent.status), (0, 200), "{arguments:?}");
        let body: serde_json::Value = serde_json::from_slice(&sent.body).expect("JSON");
        assert_eq!(body["size"], content.len(), "{arguments:?}");
        assert_eq!(body["sha256"], sha256(&content), "{arguments:?}");
    }
    for flag in ["--http1.1", "--http2"] {
        let got = scene.curl("/large", &[flag]);
        assert_eq!(
            (got.exit, got.status, got.body.len()),
            (0, 200, 4 << 20),
            "{flag}"
        );
        assert!(got.body.chunks(256).all(|block| {
            block
                .iter()
                .enumerate()
                .all(|(place, &byte)| usize::from(byte) == place)
        }));
    }
    let streamed = scene.curl("/stream", &["--no-buffer"]);
    assert_eq!(String::from_utf8_lossy(&streamed.body).lines().count(), 5);
}

#[test]
fn an_app_behind_sees_the_client_as_it_is() {
    let scene = Scene::new();
    let seen = scene.curl(
        "/headers",
        &["-H", "X-Forwarded-For: 10.0.0.1", "-H", "X_User: root"],
    );
    let headers: Vec<(String, String)> = serde_json::from_slice(&seen.body).expect("JSON");
    let value = |name: &str| {
        headers
            .iter()
            .find(|(field, _)| field.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
    };
    assert_eq!(value("host"), Some("app.example"));
    assert_eq!(value("x-forwarded-for"), Some("127.0.0.1"));
    assert_eq!(value("x-forwarded-proto"), Some("https"));
    assert_eq!(value("x-user"), None);
}

#[test]
fn an_app_that_ends_is_a_502_and_comes_back() {
    let mut scene = Scene::new();
    assert_eq!(scene.curl("/", &[]).status, 200);
    scene.app.process.signal("TERM");
    scene.app.process.await_exit();
    let gone = scene.curl("/", &["-H", "Accept: application/json"]);
    assert_eq!(gone.status, 502);
    assert_eq!(gone.head.all("content-type"), ["application/problem+json"]);
}

fn sha256(bytes: &[u8]) -> String {
    use std::fmt::Write;
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, bytes);
    digest
        .as_ref()
        .iter()
        .fold(String::new(), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        })
}
