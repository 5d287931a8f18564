//! What a hand-over must not cost: the keys of issuers, the word of an operator, and the end of the old process.

use crate::handover::{Orphan, hand_over, newcomers};
use crate::harness::gate::Running;
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
