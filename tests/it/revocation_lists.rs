//! Lists of revoked client certificates: several of one authority, forged ones, those of tomorrow, those of two keys; made by
//! OpenSSL.

use std::path::Path;

use crate::harness::ca::Leaf;
use crate::harness::gate::{Running, request};
use crate::harness::openssl::{Authority, NextUpdate};
use crate::harness::proxy::portcullis;
use crate::harness::{Client, Gate, Origin, TlsOptions};

/// `/` for holders of a certificate of `clients`.
const POLICY: &str = r#"
[client_certificates.any]
issuer = "CN=clients,O=Example"
subject_from = "cn"
[[blueprints]]
name = "app"
hosts = ["app.example"]
upstream = "legacy"
auth = { require = ["mtls"], certificates = ["any"] }
"#;

struct Scene {
    gate: Gate,
    clients: Authority,
    good: Leaf,
    bad: Leaf,
    /// Needed for as long as the gate is.
    _origin: Origin,
}

impl Scene {
    /// A gate with these files of revocations, none of which is there yet.
    fn with(lists: &[&str]) -> Self {
        let origin = Origin::echo();
        let gate = Gate::before(&origin);
        let clients = Authority::new(gate.directory(), "clients");
        let gate = gate
            .tls_keys(&format!(
                "client_ca = \"clients.pem\"\nclient_auth = \"optional\"\nclient_crl = {lists:?}"
            ))
            .with(POLICY);
        Self {
            good: clients.client("good", "/CN=good", ""),
            bad: clients.client("bad", "/CN=bad", ""),
            gate,
            clients,
            _origin: origin,
        }
    }

    /// What `check` says of the file.
    fn check(&self, code: i32) -> String {
        let mut check = portcullis();
        let output = check.args(["check", "-v", "-c"]).arg(self.gate.write());
        let output = output.output().expect("the built program starts");
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8_lossy(&said).into_owned();
        assert_eq!(output.status.code(), Some(code), "{said}");
        said
    }

    /// Expects the good certificate to pass and the bad one not to.
    #[track_caller]
    fn expect_bad_alone_refused(self, what: &str) {
        let gate = self.gate.start();
        assert_eq!(status(&gate, &self.good), Some(200), "{what}");
        assert_eq!(status(&gate, &self.bad), None, "{what}");
    }
}

/// What a request gets on a connection of its own; `None` where the handshake fails, which TLS 1.3 tells with the first read.
fn status(gate: &Running, leaf: &Leaf) -> Option<u16> {
    attempt(gate, leaf).ok()
}

fn attempt(gate: &Running, leaf: &Leaf) -> Result<u16, String> {
    let options = TlsOptions::presenting(&gate.ca, "app.example", leaf);
    Client::try_tls(gate.proxy.https(), &options)
        .and_then(|mut client| client.send(request("GET", "/", &[])).try_response())
        .map(|response| response.status)
        .map_err(|error| format!("{error:?}"))
}

fn append(file: &Path, more: &Path) {
    let text = [file, more].map(|file| std::fs::read(file).expect("a file"));
    std::fs::write(file, text.concat()).expect("our directory");
}

#[test]
fn a_list_of_a_part_hides_nothing_that_another_list_names() {
    for (whole, part) in [
        ("20260101000000Z", "20260201000000Z"),
        ("20260201000000Z", "20260101000000Z"),
    ] {
        for order in [["whole.crl", "part.crl"], ["part.crl", "whole.crl"]] {
            let what = format!("{whole} {part} {order:?}");
            let scene = Scene::with(&order);
            scene.clients.partial_list_made_at("part.crl", part);
            scene.clients.revoke(&scene.bad);
            scene.clients.list_made_at("whole.crl", whole);
            scene.expect_bad_alone_refused(&what);

            let scene = Scene::with(&order);
            scene.clients.list_made_at("whole.crl", whole);
            scene.clients.revoke(&scene.bad);
            scene.clients.partial_list_made_at("part.crl", part);
            scene.expect_bad_alone_refused(&what);
        }
    }
}

#[test]
fn an_authority_between_that_another_list_names_is_revoked_too() {
    let scene = Scene::with(&["whole.crl", "part.crl", "office.crl"]);
    let office = scene.clients.below("office", "/O=Example/CN=office");
    let desk = office
        .client("desk", "/CN=desk", "")
        .followed_by(&office.pem());
    office.list(NextUpdate::Tomorrow);
    scene.clients.list_made_at("whole.crl", "20260201000000Z");
    scene.clients.list_made_at("part.crl", "20260101000000Z");
    let gate = scene.gate.start();
    // No rule takes it, but it holds.
    assert_eq!(status(&gate, &desk), Some(403));
    scene
        .clients
        .revoke(&Leaf::read(office.pem(), desk.key.clone()));
    scene
        .clients
        .partial_list_made_at("part.crl", "20260101000000Z");
    gate.reload();
    assert_eq!(status(&gate, &desk), None);
    assert_eq!(status(&gate, &scene.good), Some(200));
}

#[test]
fn a_list_that_is_not_yet_made_displaces_none() {
    for order in [["now.crl", "later.crl"], ["later.crl", "now.crl"]] {
        let scene = Scene::with(&order);
        scene.clients.list_made_at("later.crl", "20400101000000Z");
        scene.clients.revoke(&scene.bad);
        scene.clients.list_made_at("now.crl", "20260101000000Z");
        let said = scene.check(0);
        assert!(said.contains("lies in the future"), "{said}");
        scene.expect_bad_alone_refused(&format!("{order:?}"));
    }
}

#[test]
fn where_no_list_counts_the_file_is_refused() {
    let scene = Scene::with(&["later.crl"]);
    scene.clients.list_made_at("later.crl", "20400101000000Z");
    let said = scene.check(2);
    assert!(said.contains("no list of revocations counts"), "{said}");
}

#[test]
fn a_list_that_somebody_else_signed_displaces_none() {
    for order in [["own.crl", "forged.crl"], ["forged.crl", "own.crl"]] {
        let scene = Scene::with(&order);
        let elsewhere = tempfile::tempdir().expect("a temporary directory");
        let forger = Authority::new(elsewhere.path(), "clients");
        let list = forger.list_made_at("forged.crl", "20260201000000Z");
        let there = scene.gate.directory().join("forged.crl");
        std::fs::copy(list, there).expect("our directory");
        scene.clients.revoke(&scene.bad);
        scene.clients.list_made_at("own.crl", "20260101000000Z");
        let said = scene.check(0);
        assert!(said.contains("did not sign it"), "{said}");
        scene.expect_bad_alone_refused(&format!("{order:?}"));
    }
}

#[test]
fn lists_of_two_keys_of_one_name_are_told_since_one_could_not_be_asked() {
    let scene = Scene::with(&["first.crl", "second.crl"]);
    let elsewhere = tempfile::tempdir().expect("a temporary directory");
    let renewed = Authority::new(elsewhere.path(), "clients");
    append(&scene.clients.pem(), &renewed.pem());
    scene.clients.list_made_at("first.crl", "20260101000000Z");
    let list = renewed.list_made_at("second.crl", "20260201000000Z");
    let there = scene.gate.directory().join("second.crl");
    std::fs::copy(list, there).expect("our directory");
    let said = scene.check(2);
    assert!(
        said.contains("two keys of the authority `CN=clients,O=Example`"),
        "{said}"
    );
}

#[test]
fn what_strangers_send_along_is_read_only_after_their_chain_holds() {
    let scene = Scene::with(&["clients.crl"]);
    scene.clients.list(NextUpdate::Tomorrow);
    let stranger = Authority::new(scene.gate.directory(), "strangers");
    let mut leaf = stranger.client("x", "/CN=x", "");
    // A certificate of which only who reads the whole of it sees that its date is none.
    let mut odd = scene.good.cert_der.to_vec();
    let validity = [0x30, 30, 0x17, 13];
    let place = odd.windows(4).position(|bytes| bytes == validity);
    let month = place.expect("two dates of this century") + 6;
    odd[month..month + 2].copy_from_slice(b"99");
    leaf.chain.push(odd.into());
    let gate = scene.gate.start();
    let error = attempt(&gate, &leaf).expect_err("nobody knows that authority");
    assert!(error.contains("UnknownCA"), "{error}");
}
