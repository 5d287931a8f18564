//! Tokens that the operator withdrew, and key sets that outlive the gate.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use crate::harness::eventually::eventually;
use crate::harness::gate::{Running, request};
use crate::harness::issuer::now;
use crate::harness::{Ca, Gate, Issuer, Mint, Origin};

const ANY_TOKEN: &str = r#"
[[blueprints]]
name = "api"
hosts = ["app.example"]
upstream = "legacy"
[blueprints.auth]
require = ["bearer"]
issuers = ["corp"]
"#;

/// Writes a file beside the one that is there and puts it in its place.
fn replace(path: &Path, text: &str) {
    let fresh = path.with_extension("new");
    std::fs::write(&fresh, text).expect("the test's directory takes files");
    std::fs::rename(&fresh, path).expect("the same directory");
}

fn status(gate: &Running, token: &str) -> u16 {
    let value = format!("Bearer {token}");
    gate.get_with("/api", &[("Authorization", &value)]).status
}

fn reloads(gate: &Running) -> f64 {
    gate.proxy.metric("portcullis_reloads_total", &[])
}

struct Listed {
    gate: Running,
    issuer: Issuer,
    file: PathBuf,
    /// Needed for as long as the gate is.
    _origin: Origin,
}

impl Listed {
    fn new(list: &str) -> Self {
        let origin = Origin::echo();
        let issuer = Issuer::http();
        let gate = Gate::before(&origin);
        let file = gate.directory().join("revoked.txt");
        replace(&file, list);
        let section = issuer.section_with("revoked = \"revoked.txt\"");
        let gate = gate.with(&section).with(ANY_TOKEN).start();
        Self {
            gate,
            issuer,
            file,
            _origin: origin,
        }
    }

    /// Changes the list and waits until the change is in force.
    fn say(&self, list: &str) {
        let before = reloads(&self.gate);
        replace(&self.file, list);
        eventually("the change is noticed", || {
            (reloads(&self.gate) > before).then_some(())
        });
    }

    fn token(&self, mint: &Mint) -> String {
        self.issuer.mint(mint)
    }
}

#[test]
fn a_revoked_token_is_refused_from_the_first_request_after_the_reload_on() {
    let listed = Listed::new("# nothing yet\n");
    let token = listed.token(&Mint::new().claim("jti", "t1"));
    let other = listed.token(&Mint::new().claim("jti", "t2"));
    let mut client = listed.gate.https();
    let mut on_this_connection = |token: &str| {
        let value = format!("Bearer {token}");
        let get = request("GET", "/api", &[("Authorization", &value)]);
        client.send(get).response().status
    };
    // Often enough for the connection to remember it by its bytes.
    for _ in 0..4 {
        assert_eq!(on_this_connection(&token), 200);
    }
    listed.say("jti:t1\n");
    assert_eq!(on_this_connection(&token), 401);
    assert_eq!(status(&listed.gate, &token), 401);
    assert_eq!(on_this_connection(&other), 200);
    let said = |line: &serde_json::Value| line.to_string().contains("\"revoked\"");
    let line = listed.gate.proxy.await_access("the refusal", said);
    assert_eq!(line["reason"], "token-invalid", "{line}");
    listed.gate.proxy.await_metric(
        "portcullis_tokens_verified_total",
        &["outcome=\"revoked\""],
        2.0,
    );
    listed.say("");
    assert_eq!(on_this_connection(&token), 200);
}

#[test]
fn a_subject_is_revoked_up_to_a_time_or_for_good() {
    let listed = Listed::new("");
    let now = now();
    let old = listed.token(&Mint::new().claim("iat", now - 100));
    let new = listed.token(&Mint::new().claim("iat", now));
    let bob = listed.token(&Mint::new().claim("sub", "bob"));
    for token in [&old, &new, &bob] {
        assert_eq!(status(&listed.gate, token), 200);
    }
    listed.say(&format!("sub:alice before:{}\nsub:bob\n", now - 50));
    let statuses = [&old, &new, &bob].map(|token| status(&listed.gate, token));
    assert_eq!(statuses, [401, 200, 401]);
}

#[test]
fn a_list_that_is_not_understood_changes_nothing() {
    let listed = Listed::new("jti:t1\n");
    let token = listed.token(&Mint::new().claim("jti", "t1"));
    let other = listed.token(&Mint::new().claim("jti", "t2"));
    assert_eq!(status(&listed.gate, &token), 401);
    listed.say("jti:t2\nwhat is this\n");
    listed.gate.proxy.await_talk("line 2 of");
    assert_eq!(status(&listed.gate, &token), 401);
    assert_eq!(status(&listed.gate, &other), 200);
    std::fs::remove_file(&listed.file).expect("it is there");
    listed.gate.reload();
    assert_eq!(status(&listed.gate, &token), 401);
    replace(&listed.file, "jti:t2\n");
    listed.gate.reload();
    assert_eq!(status(&listed.gate, &token), 200);
    assert_eq!(status(&listed.gate, &other), 401);
}

#[test]
fn a_line_with_a_slip_is_no_name_of_somebody_else() {
    let listed = Listed::new("sub:bob\n");
    let alice = listed.token(&Mint::new());
    let bob = listed.token(&Mint::new().claim("sub", "bob"));
    for slip in [
        "sub:alice # left on Monday",
        "sub:alice Before:5",
        "sub:alice\tbefore:5",
        "jti:t1 before:5",
    ] {
        listed.say(&format!("# all of them\n{slip}\n"));
        listed.gate.proxy.await_talk("line 2 of");
        // The list of before is in force.
        let statuses = [&alice, &bob].map(|token| status(&listed.gate, token));
        assert_eq!(statuses, [200, 401], "{slip}");
    }
    listed.say("sub:\"alice\"\n");
    assert_eq!(status(&listed.gate, &alice), 401);
}

#[test]
fn a_token_whose_name_is_no_text_cannot_be_looked_up_and_is_refused() {
    let listed = Listed::new("jti:7\n");
    let token = listed.token(&Mint::new().claim("jti", 7));
    assert_eq!(status(&listed.gate, &token), 401);
}

/// A gate whose issuer answers over https, under the authority in `idp.pem`, with the key set kept in `kept.json`.
struct Trusted {
    gate: Gate,
    issuer: Issuer,
    ca: PathBuf,
    other: PathBuf,
    origin: Origin,
}

impl Trusted {
    fn new() -> Self {
        let origin = Origin::echo();
        let gate = Gate::before(&origin);
        let own = Ca::named(gate.directory(), "own");
        let issuer = Issuer::https(&own);
        Ca::named(gate.directory(), "other");
        let file = |name: &str| gate.directory().join(name);
        let (ca, other) = (file("idp.pem"), file("other.pem"));
        std::fs::copy(file("own.pem"), &ca).expect("our directory");
        let lines = "ca = \"idp.pem\"\nkeep = \"kept.json\"\ncooldown = \"1s\"";
        let section = issuer.section_with(lines);
        Self {
            gate: gate.with(&section).with(ANY_TOKEN),
            issuer,
            ca,
            other,
            origin,
        }
    }
}

#[test]
fn an_authority_that_left_the_file_of_an_issuer_vouches_for_no_key() {
    let Trusted {
        gate,
        issuer,
        ca,
        other,
        origin,
    } = Trusted::new();
    let token = issuer.mint(&Mint::new());
    let gate = gate.start();
    eventually("the token passes", || {
        (status(&gate, &token) == 200).then_some(())
    });
    let kept = gate.directory.path().join("kept.json");
    eventually("the key set is kept", || kept.exists().then_some(()));
    // The content alone changes, and nobody sends a signal.
    let before = reloads(&gate);
    replace(&ca, &std::fs::read_to_string(&other).expect("an authority"));
    eventually("the change is noticed", || {
        (reloads(&gate) > before).then_some(())
    });
    let reached = origin.requests().len();
    assert_eq!(status(&gate, &token), 503);
    gate.proxy
        .await_talk("the kept key set is that of another issuer");
    assert_eq!(origin.requests().len(), reached);
    // What was once trusted is trusted again when the file says so.
    let own = std::fs::read_to_string(gate.directory.path().join("own.pem"));
    replace(&ca, &own.expect("an authority"));
    eventually("the token passes again", || {
        (status(&gate, &token) == 200).then_some(())
    });
}

#[test]
fn a_key_set_on_disk_is_read_again_when_it_changes() {
    let origin = Origin::echo();
    let issuer = Issuer::http();
    let gate = Gate::before(&origin);
    let file = gate.directory().join("keys.json");
    issuer.write_jwks(&file);
    let section = issuer.section().replace(
        &format!("jwks_url = \"{}\"", issuer.jwks_url()),
        "jwks_file = \"keys.json\"",
    );
    let gate = gate.with(&section).with(ANY_TOKEN).start();
    let old = issuer.mint(&Mint::new());
    assert_eq!(status(&gate, &old), 200);
    issuer.rotate();
    let new = issuer.mint(&Mint::new());
    assert_eq!(status(&gate, &new), 401);
    let before = reloads(&gate);
    let fresh = file.with_extension("new");
    issuer.write_jwks(&fresh);
    std::fs::rename(&fresh, &file).expect("the same directory");
    eventually("the change is noticed", || {
        (reloads(&gate) > before).then_some(())
    });
    assert_eq!((status(&gate, &new), status(&gate, &old)), (200, 401));
}

/// A gate that keeps the key set of its issuer in this file.
fn keeping(origin: &Origin, issuer: &Issuer, file: &Path) -> Gate {
    let line = format!("keep = '{}'", file.display());
    Gate::before(origin)
        .with(&issuer.section_with(&line))
        .with(ANY_TOKEN)
}

#[test]
fn a_start_while_the_issuer_is_down_uses_the_key_set_that_was_kept() {
    let origin = Origin::echo();
    let issuer = Issuer::http();
    let state = tempfile::tempdir().expect("a directory");
    let file = state.path().join("corp.json");
    let token = issuer.mint(&Mint::new());

    let first = keeping(&origin, &issuer, &file).start();
    eventually("the key set is kept", || file.exists().then_some(()));
    drop(first);
    let mode = std::fs::metadata(&file)
        .expect("a file")
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
    let kept = std::fs::read_to_string(&file).expect("a file");
    assert!(!kept.contains("\\\"d\\\""), "public keys only");

    issuer.go_down();
    let second = keeping(&origin, &issuer, &file).start();
    eventually("it is ready without its issuer", || {
        (second.proxy.ask_admin("/readyz").status == 200).then_some(())
    });
    assert_eq!(status(&second, &token), 200);
    let forged = issuer.mint(&Mint::new().with_a_foreign_key());
    assert_eq!(status(&second, &forged), 401);
    second.proxy.await_talk("the key set kept on disk is used");
    drop(second);

    // What others may write, or what was fetched from elsewhere, is not believed.
    let open = std::fs::Permissions::from_mode(0o666);
    std::fs::set_permissions(&file, open).expect("our own file");
    let third = keeping(&origin, &issuer, &file).start();
    third.proxy.await_talk("others may write the kept key set");
    assert_eq!(status(&third, &token), 503);
    assert_eq!(third.proxy.ask_admin("/readyz").status, 503);
    drop(third);
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).expect("our own file");
    let line = format!("keep = '{}'", file.display());
    let elsewhere = issuer.section_with(&line).replace("/jwks\"", "/other\"");
    let moved = Gate::before(&origin)
        .with(&elsewhere)
        .with(ANY_TOKEN)
        .start();
    moved
        .proxy
        .await_talk("the kept key set is that of another issuer");
    assert_eq!(status(&moved, &token), 503);
}

#[test]
fn a_kept_key_set_is_used_no_longer_than_stale() {
    let origin = Origin::echo();
    let issuer = Issuer::http();
    let state = tempfile::tempdir().expect("a directory");
    let file = state.path().join("corp.json");
    let gate = keeping(&origin, &issuer, &file).start();
    eventually("the key set is kept", || file.exists().then_some(()));
    drop(gate);
    let text = std::fs::read_to_string(&file).expect("a file");
    let mut kept: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    kept["fetched"] = (now() - 86_401).into();
    std::fs::write(&file, kept.to_string()).expect("our own file");
    issuer.go_down();
    let gate = keeping(&origin, &issuer, &file).start();
    gate.proxy.await_talk("the kept key set is too old");
    assert_eq!(status(&gate, &issuer.mint(&Mint::new())), 503);
}

#[test]
fn two_files_of_an_issuer_that_are_both_broken_are_both_told() {
    let origin = Origin::echo();
    let issuer = Issuer::http();
    let gate = Gate::before(&origin);
    let (keys, list) = (
        gate.directory().join("keys.json"),
        gate.directory().join("revoked.txt"),
    );
    issuer.write_jwks(&keys);
    replace(&list, "");
    let section = issuer
        .section_with("revoked = \"revoked.txt\"")
        .replace(&issuer.jwks_url(), "keys.json")
        .replace("jwks_url", "jwks_file");
    let gate = gate.with(&section).with(ANY_TOKEN).start();
    replace(&keys, "{");
    replace(&list, "no such word");
    gate.reload();
    gate.proxy.await_talk("not a JSON Web Key Set");
    gate.proxy.await_talk("line 1 of");
}
