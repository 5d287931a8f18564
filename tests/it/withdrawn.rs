//! Tunnels of a client whose certificate or token was withdrawn after it had opened them.

use std::path::Path;

use serde_json::{Value, json};

use crate::harness::ca::Leaf;
use crate::harness::gate::{Running, request};
use crate::harness::openssl::{Authority, NextUpdate};
use crate::harness::{Client, Gate, Issuer, Mint, TlsOptions, eventually};
use crate::tunnels::{HANDSHAKE, mirror, websocket};

const BY_CERTIFICATE: &str = r#"
[client_certificates.any]
issuer = "CN=clients,O=Example"
subject_from = "cn"

[[blueprints]]
name = "app"
hosts = ["app.example"]
upstream = "legacy"
[blueprints.auth]
require = ["mtls"]
certificates = ["any"]

[[blueprints.routes]]
path = "/open"
auth = "public"
"#;

const BY_TOKEN: &str = r#"
[[blueprints]]
name = "app"
hosts = ["app.example"]
upstream = "legacy"
[blueprints.auth]
require = ["bearer"]
issuers = ["corp"]
"#;

/// Opens a tunnel and sees that it passes bytes.
fn open(mut client: Client, path: &str, fields: &[(&str, &str)]) -> Client {
    let fields = [&HANDSHAKE, fields].concat();
    client.send(request("GET", path, &fields));
    let line = client.response_head().line;
    assert!(line.contains(" 101 "), "{line}");
    passes(&mut client);
    client
}

#[track_caller]
fn passes(client: &mut Client) {
    client.send("a");
    assert_eq!(client.exactly(1), b"a");
}

fn tunnels(gate: &Running) -> f64 {
    let labels = ["state=\"tunnel\""];
    gate.proxy.metric("portcullis_connections", &labels)
}

/// Expects the access line of a tunnel that was cut for this reason.
fn expect_line(gate: &Running, path: &str, reason: &str, detail: &str) {
    let line = gate.proxy.await_access_of(path);
    assert_eq!(line["decision"], "refused", "{line}");
    assert_eq!(line["reason"], reason, "{line}");
    assert_eq!(line["detail"], detail, "{line}");
    assert_eq!(line["stage"], "authn", "{line}");
    let reason = format!("reason=\"{reason}\"");
    let labels = ["stage=\"authn\"", reason.as_str()];
    gate.proxy
        .await_metric("portcullis_refusals_total", &labels, 1.0);
}

fn connect(gate: &Running, leaf: &Leaf) -> Client {
    let options = TlsOptions::presenting(&gate.ca, "app.example", leaf);
    Client::tls(gate.proxy.https(), &options)
}

#[test]
fn a_tunnel_ends_with_the_reload_that_revokes_its_certificate() {
    let origin = mirror();
    let gate = Gate::before(&origin);
    let clients = Authority::new(gate.directory(), "clients");
    clients.list(NextUpdate::Tomorrow);
    let keys =
        "client_ca = \"clients.pem\"\nclient_auth = \"optional\"\nclient_crl = \"clients.crl\"";
    let (good, bad) = (
        clients.client("good", "/CN=good", ""),
        clients.client("bad", "/CN=bad", ""),
    );
    let gate = gate.tls_keys(keys).with(BY_CERTIFICATE).start();
    let mut of_bad = open(connect(&gate, &bad), "/bad", &[]);
    let mut public_of_bad = open(connect(&gate, &bad), "/open", &[]);
    let mut of_good = open(connect(&gate, &good), "/good", &[]);
    let mut of_nobody = open(gate.https(), "/open", &[]);
    gate.reload();
    for client in [&mut of_bad, &mut public_of_bad, &mut of_good] {
        passes(client);
    }
    clients.revoke(&bad);
    clients.list(NextUpdate::Tomorrow);
    // The file is watched: nobody sends a signal.
    of_bad.expect_close();
    public_of_bad.expect_close();
    expect_line(&gate, "/bad", "certificate-revoked", "revoked");
    passes(&mut of_good);
    passes(&mut of_nobody);
    // Nor does one go on whose authority is accepted no more.
    let others = Authority::new(gate.directory.path(), "others");
    std::fs::copy(others.pem(), clients.pem()).expect("our directory");
    others.list(NextUpdate::Tomorrow);
    std::fs::copy(file(&gate, "others.crl"), file(&gate, "clients.crl")).expect("our directory");
    gate.reload();
    of_good.expect_close();
    expect_line(&gate, "/good", "certificate-unknown", "authority");
    passes(&mut of_nobody);
    eventually("the others are gone", || {
        (tunnels(&gate) <= 1.0).then_some(())
    });
}

fn file(gate: &Running, name: &str) -> std::path::PathBuf {
    gate.directory.path().join(name)
}

fn replace(path: &Path, text: &str) {
    let fresh = path.with_extension("new");
    std::fs::write(&fresh, text).expect("the test's directory takes files");
    std::fs::rename(&fresh, path).expect("the same directory");
}

#[test]
fn a_tunnel_ends_with_the_reload_that_revokes_its_token() {
    let origin = mirror();
    let issuer = Issuer::http();
    let gate = Gate::before(&origin);
    let list = gate.directory().join("revoked.txt");
    replace(&list, "jti:nobody\n");
    let section = issuer.section_with("revoked = \"revoked.txt\"");
    let gate = gate.with(&section).with(BY_TOKEN).start();
    let token = |mint: Mint| issuer.bearer_of(&mint);
    let with = |path: &str, token: &str| open(gate.https(), path, &[("Authorization", token)]);
    let mut by_id = with("/id", &token(Mint::new().claim("jti", "t1")));
    let mut by_name = with("/name", &token(Mint::new().claim("sub", "bob")));
    let mut other = with("/other", &token(Mint::new().claim("jti", "t2")));
    replace(&list, "# nobody yet\n");
    gate.reload();
    for client in [&mut by_id, &mut by_name, &mut other] {
        passes(client);
    }
    replace(&list, "jti:t1\nsub:bob\n");
    by_id.expect_close();
    by_name.expect_close();
    expect_line(&gate, "/id", "token-invalid", "revoked");
    expect_line(&gate, "/name", "token-invalid", "revoked");
    passes(&mut other);
}

#[test]
fn a_tunnel_on_a_stream_of_http2_ends_as_well() {
    let origin = mirror();
    let issuer = Issuer::http();
    let gate = Gate::before(&origin);
    let list = gate.directory().join("revoked.txt");
    replace(&list, "");
    let section = issuer.section_with("revoked = \"revoked.txt\"");
    let gate = gate.with(&section).with(BY_TOKEN).start();
    let token = issuer.bearer_of(&Mint::new().claim("jti", "t1"));
    let account = std::thread::scope(|scope| {
        let stream = scope.spawn(|| {
            let fields = json!({"authorization": token});
            let told = json!({"path": "/two", "bytes": "a", "to_the_end": true, "fields": fields});
            websocket(&gate, "stream", &told)
        });
        eventually("it is open", || (tunnels(&gate) >= 1.0).then_some(()));
        replace(&list, "jti:t1\n");
        stream.join().expect("an account")
    });
    assert_eq!(account["statuses"], json!(["200"]), "{account}");
    assert!(account["ended"].is_string(), "{account}");
    assert_ne!(account["data"], Value::Null, "{account}");
    expect_line(&gate, "/two", "token-invalid", "revoked");
}
