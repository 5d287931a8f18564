//! Beside a real `OpenID` provider: discovery, signed and opaque tokens, keys that change under load, an outage.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::harness::eventually::eventually;
use crate::harness::gate::{Running, request};
use crate::harness::oidc::Kind;
use crate::harness::{Gate, Oidc, Origin};

const WITH_ROLE: &str = r#"
[[blueprints]]
name = "api"
hosts = ["app.example"]
upstream = "legacy"
[blueprints.auth]
require = ["bearer"]
issuers = ["corp"]
roles = { any = ["reader"] }
scopes = { all = ["api.read"] }
"#;

fn gate(origin: &Origin, provider: &Oidc) -> Running {
    Gate::before(origin)
        .environment("GATE_SECRET", Oidc::SECRET)
        .with(&provider.section("cooldown = \"1s\""))
        .with(WITH_ROLE)
        .start()
}

fn status(gate: &Running, token: &str) -> u16 {
    let value = format!("Bearer {token}");
    gate.get_with("/api", &[("Authorization", &value)]).status
}

#[test]
fn signed_and_opaque_tokens_of_one_provider_pass_side_by_side() {
    let (origin, provider) = (Origin::echo(), Oidc::start());
    let gate = gate(&origin, &provider);
    let signed = provider.token(Kind::Jwt);
    let opaque = provider.token(Kind::Opaque);
    for token in [&signed, &opaque] {
        for _ in 0..3 {
            assert_eq!(status(&gate, token), 200);
        }
        let head = origin.last_request().head;
        assert_eq!(head.all("x-auth-roles"), ["reader"]);
        assert_eq!(head.all("x-auth-scopes"), ["api.read"]);
    }
    assert_eq!(provider.fetches("/token/introspection"), 1);
    assert_eq!(status(&gate, "nobody-issued-this"), 401);
    let withdrawn = provider.token(Kind::Opaque);
    provider.revoke(&withdrawn);
    assert_eq!(status(&gate, &withdrawn), 401);
}

/// Requests without pause, each with one of the tokens in turn, until told to stop.
struct Load {
    tokens: Mutex<Vec<String>>,
    stop: AtomicBool,
}

impl Load {
    /// The statuses that were no 200, and how many requests there were.
    fn run(&self, gate: &Running) -> (Vec<u16>, usize) {
        let (mut wrong, mut count) = (Vec::new(), 0);
        let mut client = gate.https();
        while !self.stop.load(Ordering::Relaxed) {
            for token in self.tokens.lock().expect("no panic").clone() {
                let value = format!("Bearer {token}");
                let get = request("GET", "/api", &[("Authorization", &value)]);
                let status = client.send(get).response().status;
                count += 1;
                if status != 200 {
                    wrong.push(status);
                }
            }
        }
        (wrong, count)
    }
}

#[test]
fn keys_change_under_load_without_one_wrong_answer() {
    let (origin, provider) = (Origin::echo(), Oidc::start());
    let gate = gate(&origin, &provider);
    let first = provider.token(Kind::Jwt);
    assert_eq!(status(&gate, &first), 200);
    let load = Load {
        tokens: Mutex::new(vec![first.clone(), provider.token(Kind::Opaque)]),
        stop: AtomicBool::new(false),
    };
    let fetches = || {
        gate.proxy
            .metric("portcullis_jwks_fetches_total", &["outcome=\"ok\""])
    };
    let results: Vec<_> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..4).map(|_| scope.spawn(|| load.run(&gate))).collect();
        for _ in 0..3 {
            // A key that nobody has seen signs a token at once; the gate may fetch again after its cooldown.
            crate::harness::eventually::eventually_pause(std::time::Duration::from_millis(1100));
            let before = fetches();
            provider.rotate();
            let token = provider.token(Kind::Jwt);
            load.tokens.lock().expect("no panic").push(token);
            eventually("the new key is fetched", || {
                (fetches() > before).then_some(())
            });
        }
        load.stop.store(true, Ordering::Relaxed);
        let joined = workers
            .into_iter()
            .map(|worker| worker.join().expect("no panic"));
        joined.collect()
    });
    let wrong: Vec<u16> = results
        .iter()
        .flat_map(|(wrong, _)| wrong.clone())
        .collect();
    let count: usize = results.iter().map(|(_, count)| count).sum();
    assert!(wrong.is_empty(), "{wrong:?} of {count}");
    assert!(count > 100, "{count} requests");
    assert!(fetches() <= 6.0, "{} fetches", fetches());

    // A key that is withdrawn takes its tokens with it, once the gate has looked.
    provider.retire();
    crate::harness::eventually::eventually_pause(std::time::Duration::from_millis(1100));
    provider.rotate();
    assert_eq!(status(&gate, &provider.token(Kind::Jwt)), 200);
    assert_eq!(status(&gate, &first), 401);
}

#[test]
fn an_outage_ends_what_must_be_asked_and_nothing_else() {
    let (origin, provider) = (Origin::echo(), Oidc::start());
    let gate = gate(&origin, &provider);
    let (known, late) = (provider.token(Kind::Jwt), provider.token(Kind::Jwt));
    let opaque = provider.token(Kind::Opaque);
    assert_eq!(status(&gate, &known), 200);
    provider.go_down();
    assert_eq!(status(&gate, &known), 200);
    assert_eq!(status(&gate, &late), 200, "its key is known");
    assert_eq!(status(&gate, &opaque), 503);
    provider.come_up();
    eventually("questions are answered again", || {
        (status(&gate, &opaque) == 200).then_some(())
    });
}
