//! What the gate signs for backends, as a backend checks it that shares no code with it: `tests/apps/signed_backend.py`.

use std::io::Write;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{ChildStdin, Command, Stdio};

use serde_json::{Value, json};

use crate::harness::eventually::eventually;
use crate::harness::gate::{PUBLIC, Running, request};
use crate::harness::process::Process;
use crate::harness::proxy::portcullis_verb;
use crate::harness::python::{python, run};
use crate::harness::{Client, Gate, Issuer, Mint, Origin, Response};

const IDENTITY: &str = "[identity]\nissuer = \"https://gate.example\"\n";

/// Callers of `corp` under `/api`, everybody elsewhere.
const ROUTES: &str = r#"
[[blueprints]]
name = "api"
hosts = ["app.example"]
prefix = "/api"
upstream = "legacy"
[blueprints.auth]
require = ["bearer"]
issuers = ["corp"]

[[blueprints]]
name = "app"
hosts = ["app.example"]
upstream = "legacy"
auth = "public"
"#;

struct Backend {
    process: Process,
    stdin: ChildStdin,
    url: String,
}

impl Backend {
    fn start(name: &str) -> Self {
        let mut command = python("signed_backend.py");
        command.arg(name).stdin(Stdio::piped());
        let mut process = Process::spawn("the backend", &mut command);
        let stdin = process.stdin();
        let url = process.await_stdout("its address", |line| {
            let ready: Value = serde_json::from_str(line).ok()?;
            Some(ready["ready"].as_str()?.to_owned())
        });
        Self {
            process,
            stdin,
            url,
        }
    }

    /// Tells it whose statements count.
    fn trust(&mut self, gate: &Running) {
        let keys = format!("http://{}/.well-known/jwks.json", gate.proxy.admin());
        let told = json!({"keys": keys, "issuer": "https://gate.example"});
        writeln!(self.stdin, "{told}").expect("the backend listens");
        self.process.await_stdout("its word", |line| {
            line.contains("trusts").then(|| line.to_owned())
        });
    }

    /// Asks it past the gate.
    fn ask(&self, headers: &[(&str, &str)]) -> Response {
        let (_, address) = self.url.split_once("://").expect("a URL");
        let address: SocketAddr = address.parse().expect("an address");
        let mut client = Client::plain(address);
        client.send(request("GET", "/api/users", headers));
        client.response()
    }
}

struct Scene {
    gate: Running,
    issuer: Issuer,
    backend: Backend,
}

impl Scene {
    fn new(identity: &str, upstream: &str) -> Self {
        let mut backend = Backend::start("legacy");
        let issuer = Issuer::http();
        let gate = Gate::before_url(&backend.url)
            .upstream(upstream)
            .with(&issuer.section())
            .with(identity)
            .with(ROUTES)
            .start();
        backend.trust(&gate);
        Self {
            gate,
            issuer,
            backend,
        }
    }

    fn ask(&self, path: &str) -> Response {
        let token = self.issuer.bearer(&["reader", "admin"]);
        self.gate.get_with(path, &[("Authorization", &token)])
    }

    fn keys(&self) -> Vec<Value> {
        let set = self.gate.proxy.ask_admin("/.well-known/jwks.json");
        set.expect(200);
        assert_eq!(set.header("content-type"), Some("application/jwk-set+json"));
        set.json()["keys"].as_array().expect("keys").clone()
    }
}

#[test]
fn a_backend_that_shares_no_code_with_the_gate_checks_who_asks() {
    let scene = Scene::new(IDENTITY, "identity = \"authenticated\"");
    let answer = scene.ask("/api/users/%37?page=2");
    answer.expect(200);
    let claims = answer.json()["claims"].clone();
    assert_eq!(claims["sub"], "alice");
    assert_eq!(claims["sub_issuer"], "corp");
    assert_eq!(claims["roles"], json!(["reader", "admin"]));
    assert_eq!(claims["scope"], "api.read");
    assert_eq!(claims["aud"], "legacy");
    assert_eq!(claims["client"], "127.0.0.1");
    assert_eq!(claims["htu"], "https://app.example/api/users/7");
    assert_eq!(
        claims["exp"].as_u64(),
        claims["iat"].as_u64().map(|at| at + 30)
    );
    // Each request has one of its own; the backend takes none twice.
    scene.ask("/api/users/7").expect(200);
    let posted = scene.gate.https().send(
        format!(
            "POST /api/users HTTP/1.1\r\nHost: app.example\r\nAuthorization: {}\r\nContent-Length: 2\r\n\r\n{{}}",
            scene.issuer.bearer(&[])
        ),
    ).response();
    posted.expect(200);
    assert_eq!(posted.json()["claims"]["htm"], "POST");
}

#[test]
fn past_the_gate_there_is_no_way_in() {
    let scene = Scene::new(IDENTITY, "identity = \"authenticated\"");
    scene.backend.ask(&[]).expect(403);
    scene
        .backend
        .ask(&[("X-Auth-Subject", "alice")])
        .expect(403);
    let seen = scene.ask("/api/users");
    let statement = seen.json()["statement"]
        .as_str()
        .expect("a statement")
        .to_owned();
    // A statement that was used, one for another method or path, and ones that were made up.
    let shown = |statement: &str| {
        scene.backend.ask(&[
            ("X-Portcullis-Identity", statement),
            ("X-Forwarded-Proto", "https"),
        ])
    };
    let used = shown(&statement);
    assert_eq!(used.expect(403).json()["refused"], "used before");
    let unsigned = "eyJhbGciOiJub25lIiwidHlwIjoiZ2F0ZS1pZGVudGl0eStqd3QifQ.e30.";
    shown(unsigned).expect(403);
    let (message, _) = statement.rsplit_once('.').expect("a token");
    shown(&format!("{message}.{}", "A".repeat(86))).expect(403);
}

#[test]
fn b28_client_copies_of_the_statement_never_reach_the_backend() {
    let origin = Origin::echo();
    let gate = Gate::before(&origin)
        .upstream("identity = \"authenticated\"")
        .with(IDENTITY)
        .open();
    for name in [
        "X-Portcullis-Identity",
        "x_portcullis_identity",
        "X.Portcullis.Identity",
    ] {
        gate.get_with("/", &[(name, "forged")]).expect(200);
        let head = origin.last_request().head;
        assert!(
            !String::from_utf8_lossy(&head.raw).contains("forged"),
            "{head:#?}"
        );
    }
    // Also where nothing is signed at all.
    let gate = Gate::before(&origin).open();
    gate.get_with("/", &[("X-Portcullis-Identity", "forged")])
        .expect(200);
    assert!(
        origin
            .last_request()
            .head
            .all("x-portcullis-identity")
            .is_empty()
    );
    gate.proxy.ask_admin("/.well-known/jwks.json").expect(404);
}

#[test]
fn requests_of_nobody_are_vouched_for_where_the_file_says_so() {
    let scene = Scene::new(IDENTITY, "identity = \"always\"");
    let answer = scene.gate.get("/");
    answer.expect(200);
    let claims = answer.json()["claims"].clone();
    for name in ["sub", "sub_issuer", "roles", "scope"] {
        assert!(claims[name].is_null(), "{claims}");
    }
    scene.ask("/api").expect(200);
    let without_name = scene.issuer.bearer_of(&Mint::new().without("sub"));
    let answer = scene
        .gate
        .get_with("/api", &[("Authorization", &without_name)]);
    let claims = answer.expect(200).json()["claims"].clone();
    assert!(claims["sub"].is_null(), "{claims}");
    assert_eq!(claims["sub_issuer"], "corp");
    let scene = Scene::new(IDENTITY, "identity = \"authenticated\"");
    assert_eq!(
        scene.gate.get("/").expect(403).json()["refused"],
        "0 statements"
    );
}

#[test]
fn a_statement_for_one_upstream_is_none_for_another() {
    let mut backend = Backend::start("other");
    let gate = Gate::before_url(&backend.url)
        .upstream("identity = \"always\"")
        .with(IDENTITY)
        .open();
    backend.trust(&gate);
    let answer = gate.get("/");
    let refused = answer.expect(403).json()["refused"].to_string();
    assert!(refused.contains("InvalidAudienceError"), "{refused}");
}

/// Makes a private key as `check` says how.
fn make_key(path: &Path) {
    let mut command = Command::new("openssl");
    command
        .args([
            "ecparam",
            "-name",
            "prime256v1",
            "-genkey",
            "-noout",
            "-out",
        ])
        .arg(path);
    let made = run(&mut command);
    assert!(made.status.success(), "{made:?}");
    let owner_alone = std::fs::Permissions::from_mode(0o600);
    std::fs::set_permissions(path, owner_alone).expect("a key file");
}

#[test]
fn keys_of_files_are_published_before_and_after_they_sign() {
    let keys = tempfile::tempdir().expect("a directory");
    let [old, new] = ["old.key", "new.key"].map(|name| keys.path().join(name));
    make_key(&old);
    make_key(&new);
    let section = |files: &[&PathBuf]| {
        let files: Vec<String> = files
            .iter()
            .map(|file| format!("'{}'", file.display()))
            .collect();
        format!("{IDENTITY}key = [{}]\n", files.join(", "))
    };
    let mut scene = Scene::new(&section(&[&old, &new]), "identity = \"always\"");
    let issuer = scene.issuer.section();
    let [first, second] = <[Value; 2]>::try_from(scene.keys()).expect("two keys");
    assert!(first["d"].is_null(), "{first}");
    scene.gate.get("/").expect(200);
    scene.gate.reload();
    assert_eq!(
        scene.keys(),
        [first.clone(), second.clone()],
        "the same keys are no new ones"
    );
    // The backend has looked both up by now, so not one request is refused when the other one signs.
    scene
        .gate
        .reload_with(&[&issuer, &section(&[&new, &old]), ROUTES].concat());
    assert_eq!(scene.keys(), [second.clone(), first.clone()]);
    scene.gate.get("/").expect(200);
    scene
        .gate
        .reload_with(&[&issuer, &section(&[&new]), ROUTES].concat());
    assert_eq!(
        scene.keys(),
        [second.clone(), first.clone()],
        "the former one stays"
    );
    scene.gate.get("/").expect(200);
    std::fs::write(&new, "no key").expect("a key file");
    scene.gate.reload();
    assert_eq!(scene.keys(), [second, first], "a bad file changes nothing");
    scene.gate.get("/").expect(200);
}

#[test]
fn a_key_file_that_changes_is_taken_up() {
    let keys = tempfile::tempdir().expect("a directory");
    let file = keys.path().join("identity.key");
    make_key(&file);
    let section = format!("{IDENTITY}key = '{}'\n", file.display());
    let scene = Scene::new(&section, "identity = \"always\"");
    let before = scene.keys();
    make_key(&file);
    let after = eventually("both keys are published", || {
        Some(scene.keys()).filter(|keys| keys.len() == 2)
    });
    assert_eq!(after[1], before[0]);
    scene.gate.get("/").expect(200);
}

#[test]
fn a_key_that_was_made_at_the_start_outlives_reloads() {
    let scene = Scene::new(IDENTITY, "identity = \"always\"");
    let before = scene.keys();
    scene.gate.get("/").expect(200);
    scene.gate.reload();
    assert_eq!(scene.keys(), before);
    scene.gate.get("/").expect(200);
}

#[test]
fn what_cannot_be_signed_is_an_error_of_the_file() {
    let origin = Origin::echo();
    let check = |sections: &str, upstream: &str| {
        let gate = Gate::before(&origin)
            .upstream(upstream)
            .with(sections)
            .with(PUBLIC);
        let file = gate.write();
        let output = portcullis_verb(&["check", "-c", &file.display().to_string()]);
        let said = String::from_utf8_lossy(&output.stderr).into_owned()
            + &String::from_utf8_lossy(&output.stdout);
        (output.status.code(), said)
    };
    for (sections, upstream, message) in [
        ("", "identity = \"always\"", "there is nothing to sign with"),
        ("[identity]\n", "", "a statement needs to say whose it is"),
        (
            "[identity]\nissuer = \"g\"\nlifetime = \"61s\"\n",
            "",
            "a statement is good for one minute at most",
        ),
        (
            "[identity]\nissuer = \"g\"\nkey = \"none.key\"\n",
            "",
            "cannot use the key",
        ),
        ("", "identity = \"yes\"", "`authenticated`"),
    ] {
        let (code, said) = check(sections, upstream);
        assert_eq!(code, Some(2), "{said}");
        assert!(said.contains(message), "{said}");
    }
    let (code, said) = check(IDENTITY, "identity = \"always\"");
    assert_eq!(code, Some(0), "{said}");
}

#[test]
fn explain_says_that_there_is_a_statement_and_not_what_it_is() {
    let origin = Origin::echo();
    let gate = Gate::before(&origin)
        .upstream("identity = \"always\"")
        .with(IDENTITY)
        .with(PUBLIC);
    let file = gate.write().display().to_string();
    let output = portcullis_verb(&["explain", "-c", &file, "GET", "https://app.example/"]);
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(said.contains("x-portcullis-identity: [redacted]"), "{said}");
    assert!(!said.contains("eyJ"), "{said}");
}
