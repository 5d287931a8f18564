//! Networks that may and may not ask, by the address of the client and not of the proxy before it.

use crate::harness::gate::Running;
use crate::harness::{Gate, Origin};

/// A gate that believes this machine about client addresses, with this `[network]` for everything.
fn gate(origin: &Origin, network: &str) -> Running {
    Gate::before(origin)
        .server("trusted_proxies = [\"127.0.0.0/8\"]")
        .with(&format!("[defaults.network]\n{network}\n"))
        .open()
}

#[test]
fn denied_networks_stay_outside() {
    let origin = Origin::echo();
    let gate = gate(
        &origin,
        "allow = [\"203.0.113.0/24\", \"2001:db8::/32\"]\ndeny = [\"203.0.113.66\"]",
    );
    let ask = |address: &str| gate.get_with("/x", &[("X-Forwarded-For", address)]);
    for address in ["203.0.113.7", "2001:db8::1", "::ffff:203.0.113.7"] {
        ask(address).expect(200);
    }
    let served = origin.requests().len();
    for address in [
        "203.0.113.66",
        "203.0.114.1",
        "2001:db9::1",
        "::ffff:203.0.113.66",
    ] {
        let response = ask(address);
        assert_eq!(
            response.expect(403).problem()["type"],
            "urn:portcullis:problem:network-denied",
            "{address}"
        );
    }
    gate.get("/x").expect(403);
    assert_eq!(origin.requests().len(), served);
    let line = gate
        .proxy
        .await_access("the refusal", |line| line["reason"] == "network-denied");
    assert_eq!(line["stage"], "network", "{line}");
}

#[test]
fn the_address_of_a_stranger_is_its_own() {
    let origin = Origin::echo();
    let gate = Gate::before(&origin)
        .with("[defaults.network]\nallow = [\"203.0.113.0/24\"]\n")
        .open();
    gate.get_with("/x", &[("X-Forwarded-For", "203.0.113.7")])
        .expect(403);
    origin.expect_untouched();
}

#[test]
fn monitor_lets_a_denied_network_pass_and_says_so() {
    let origin = Origin::echo();
    let gate = gate(&origin, "deny = [\"127.0.0.0/8\"]\nmode = \"monitor\"");
    gate.get("/watched").expect(200);
    let line = gate.proxy.await_access_of("/watched");
    assert!(
        line["would_refuse"].to_string().contains("network-denied"),
        "{line}"
    );
}
