//! What a hand-over must not cost: the keys of issuers, the word of an operator, and the end of the old process.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::Path;
use std::process::Command;

use crate::handover::{Linked, Orphan, hand_over, newcomers};
use crate::harness::gate::Running;
use crate::harness::python::venv;
use crate::harness::{Gate, Issuer, Origin, eventually};

/// Every path for holders of any token of `corp`.
const ANY_TOKEN: &str = r#"
[[blueprints]]
name = "api"
hosts = ["app.example"]
upstream = "legacy"
[blueprints.auth]
require = ["bearer"]
issuers = ["corp"]
"#;

/// Says that it is ready once it is let, and never serves.
const PUPPET: &str = r#"
import os, socket, sys, time
folder = sys.argv[1]
channel = socket.socket(fileno=0)
while channel.recv(256) != b"end":
    pass
open(folder + "/listens", "w").close()
while not os.path.exists(folder + "/let"):
    time.sleep(0.01)
channel.send(b"ready")
open(folder + "/said", "w").close()
time.sleep(60)
"#;

fn status(gate: &Running, token: &str) -> u16 {
    gate.get_with("/api", &[("Authorization", token)]).status
}

#[test]
fn a_new_process_without_keys_does_not_take_the_place_of_one_that_has_them() {
    let origin = Origin::echo();
    let issuer = Issuer::http();
    let mut gate = Gate::before(&origin)
        .server("handover = \"3s\"")
        .with(&issuer.section())
        .with(ANY_TOKEN)
        .start();
    let token = issuer.bearer(&["reader"]);
    eventually("the keys have come", || {
        (gate.proxy.ask_admin("/readyz").status == 200).then_some(())
    });
    assert_eq!(status(&gate, &token), 200);
    issuer.go_down();
    gate.proxy.signal("USR2");
    gate.proxy.await_talk("not ready within 3s");
    assert!(!gate.proxy.talk().contains("handed over, draining"));
    eventually("nothing is left of it", || {
        newcomers(&gate.proxy).is_empty().then_some(())
    });
    assert_eq!(status(&gate, &token), 200);
    assert!(gate.proxy.is_running());
    issuer.come_up();
    let new = hand_over(|| gate.proxy.talk(), |name| gate.proxy.signal(name), 1);
    // It has them already.
    issuer.go_down();
    assert_eq!(status(&gate, &token), 200);
    assert_eq!(gate.proxy.await_exit().code(), Some(0));
    drop(new);
}

#[test]
fn a_new_process_that_waits_for_keys_goes_when_the_old_one_has_gone() {
    let origin = Origin::echo();
    let issuer = Issuer::http();
    let gate = Gate::before(&origin)
        .with(&issuer.section())
        .with(ANY_TOKEN)
        .start();
    eventually("the keys have come", || {
        (gate.proxy.ask_admin("/readyz").status == 200).then_some(())
    });
    let before = issuer.fetches("/jwks");
    issuer.go_down();
    gate.proxy.signal("USR2");
    eventually("it asks for keys", || {
        (issuer.fetches("/jwks") > before).then_some(())
    });
    let new = newcomers(&gate.proxy);
    assert_eq!(new.len(), 1);
    gate.proxy.signal("KILL");
    for id in new {
        Orphan(id).await_end();
    }
}

#[test]
fn sigterm_comes_before_a_new_process_that_is_ready_at_the_same_time() {
    let origin = Origin::echo();
    let linked = Linked::before(&origin, "");
    let mut proxy = linked.start();
    let folder = linked.gate.directory().to_owned();
    let puppet = folder.join("puppet.py");
    std::fs::write(&puppet, PUPPET).expect("a program");
    linked.replace_by(&format!(
        "exec '{}' '{}' '{}'",
        venv("python").display(),
        puppet.display(),
        folder.display()
    ));
    proxy.signal("USR2");
    let exists = |name: &str| folder.join(name).exists().then_some(());
    eventually("it has the listeners", || exists("listens"));
    // A reload that has to wait for its file: meanwhile both come in.
    let file = folder.join("gate.toml");
    let text = std::fs::read_to_string(&file).expect("a file");
    let mut pipe = stalled(&file);
    std::fs::write(folder.join("let"), "").expect("a file");
    eventually("it says that it is ready", || exists("said"));
    proxy.signal("TERM");
    eventually("the signal has been taken", || {
        (!has_pending_signals(proxy.id())).then_some(())
    });
    // The thread that is to learn of it has turned since.
    proxy.ask_admin("/livez").expect(200);
    pipe.write_all(text.as_bytes()).expect("it reads");
    drop(pipe);
    assert_eq!(proxy.await_exit().code(), Some(0));
    assert!(!proxy.talk().contains("handed over"), "{}", proxy.talk());
}

/// Puts a pipe in the place of the file, and gives its other end once somebody reads.
fn stalled(file: &Path) -> std::fs::File {
    let fresh = file.with_extension("pipe");
    let made = Command::new("mkfifo").arg(&fresh).status();
    assert!(made.is_ok_and(|status| status.success()), "a pipe");
    std::fs::rename(&fresh, file).expect("a rename in one directory");
    OpenOptions::new().write(true).open(file).expect("a reader")
}

fn has_pending_signals(process: u32) -> bool {
    let text = std::fs::read_to_string(format!("/proc/{process}/status")).expect("it runs");
    text.lines()
        .filter_map(|line| line.strip_prefix("ShdPnd:"))
        .any(|pending| !pending.trim().trim_matches('0').is_empty())
}
