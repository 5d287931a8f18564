//! Reload and drain: a swap is whole or does not happen, and neither loses a request.

use std::fmt::Write;
use std::process::Stdio;
use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::eventually::{eventually_pause, eventually_within};
use crate::harness::gate::{PUBLIC, Running, request};
use crate::harness::origin::answer;
use crate::harness::process::Process;
use crate::harness::python::python;
use crate::harness::{Client, Conn, Gate, Issuer, Origin, TlsOptions, eventually};

/// The policy with one header that says which edition it is.
fn edition(number: usize) -> String {
    format!("[defaults.headers.set]\nX-Edition = \"{number}\"\n{PUBLIC}")
}

#[test]
fn sighup_swaps_the_policy_for_open_connections_too() {
    let origin = Origin::echo();
    let mut gate = Gate::before(&origin).with(&edition(1)).start();
    let mut kept = gate.https();
    let response = kept.send(request("GET", "/", &[])).response();
    assert_eq!(response.headers("x-edition"), ["1"]);
    gate.reload_with(&edition(2));
    let response = kept.send(request("GET", "/", &[])).response();
    assert_eq!(response.headers("x-edition"), ["2"]);
    assert_eq!(gate.get("/").headers("x-edition"), ["2"]);
    assert!(
        gate.proxy
            .metric("portcullis_reloads_total", &["outcome=\"ok\""])
            >= 1.0
            || gate
                .proxy
                .metric("portcullis_reloads_total", &["outcome=\"success\""])
                >= 1.0
            || gate
                .proxy
                .metric("portcullis_reloads_total", &["outcome=\"applied\""])
                >= 1.0
    );
}

#[test]
fn a_bad_reload_keeps_the_old_policy_and_says_why() {
    let origin = Origin::echo();
    let mut gate = Gate::before(&origin).with(&edition(1)).start();
    gate.reload_with(&format!(
        "{}\nunknown_key = 1\nupstreem = \"x\"\n",
        edition(2)
    ));
    assert_eq!(gate.get("/").expect(200).headers("x-edition"), ["1"]);
    gate.proxy.await_talk("unknown_key");
    gate.reload_with(&edition(3));
    assert_eq!(gate.get("/").headers("x-edition"), ["3"]);
}

#[test]
fn a_change_of_the_file_is_enough() {
    let origin = Origin::echo();
    let gate = Gate::before(&origin).with(&edition(1)).start();
    let file = gate.directory.path().join("gate.toml");
    let text = std::fs::read_to_string(&file).expect("the policy file");
    crate::harness::proxy::write_policy(
        gate.directory.path(),
        &text.replace("X-Edition = \"1\"", "X-Edition = \"2\""),
    );
    eventually("the change is taken up", || {
        (gate.get("/").headers("x-edition") == ["2"]).then_some(())
    });
}

#[test]
fn a_limit_remembers_its_clients_across_a_reload() {
    let origin = Origin::echo();
    let gate = Gate::before(&origin)
        .defaults(
            "rate_limits = [{ name = \"tight\", key = \"client\", quota = 1, window = \"1h\" }]",
        )
        .open();
    gate.get("/").expect(200);
    gate.get("/").expect(429);
    gate.reload();
    gate.get("/").expect(429);
}

/// Constant load by a real client on HTTP/1.1 and HTTP/2.
struct Load {
    process: Process,
}

impl Load {
    fn start(gate: &Running) -> Self {
        Self::with(gate, &json!({}))
    }

    /// Load until the gate refuses connections, which is then not a failure.
    fn until_refused(gate: &Running) -> Self {
        Self::with(
            gate,
            &json!({"may_refuse_connections": true, "http2": false}),
        )
    }

    fn with(gate: &Running, further: &Value) -> Self {
        let mut instruction = json!({
            "do": "load",
            "address": gate.proxy.https().to_string(),
            "ca": gate.directory.path().join("ca.pem"),
            "path": "/load",
            "workers": 4,
        });
        for (name, value) in further.as_object().into_iter().flatten() {
            instruction[name] = value.clone();
        }
        let mut command = python("h2client.py");
        command.arg(instruction.to_string()).stdin(Stdio::piped());
        let mut process = Process::spawn("the load", &mut command);
        process.await_stdout("its first answers", |line| {
            line.contains("warm").then_some(())
        });
        Self { process }
    }

    fn stop(mut self) -> Value {
        drop(self.process.stdin());
        self.process.await_stdout("its account", |line| {
            let account: Value = serde_json::from_str(line).ok()?;
            account["requests"].is_number().then_some(account)
        })
    }
}

#[test]
fn twenty_reloads_under_load_lose_no_request() {
    let origin = Origin::fixed(answer(200, &[], "ok"));
    let mut gate = Gate::before(&origin).workers(2).with(&edition(0)).start();
    let load = Load::start(&gate);
    for number in 1..=20 {
        gate.reload_with(&edition(number));
        eventually("the edition is served", || {
            (gate.get("/").headers("x-edition") == [number.to_string()]).then_some(())
        });
    }
    let account = load.stop();
    assert_eq!(account["failed"], 0, "{account}");
    assert!(
        account["requests"]
            .as_u64()
            .is_some_and(|count| count > 100),
        "{account}"
    );
}

/// Three thousand routes beside the one that is open, a quarter of them with a policy of their own: as many as a build for
/// tests compiles in a moment. `tests/bench/growth` has ten thousand.
fn many_routes(number: usize) -> String {
    let mut text = edition(number);
    for blueprint in 0..30 {
        let _ = write!(
            text,
            "[[blueprints]]\nname = \"b{blueprint}\"\nhosts = [\"h{blueprint}.example\"]\nupstream = \"legacy\"\n\
             auth = \"public\"\n[blueprints.cors]\norigins = [\"https://h{blueprint}.example\"]\n"
        );
        for route in 0..100 {
            let own = if route % 4 == 0 {
                "body = { bytes = \"1MiB\" }\n"
            } else {
                ""
            };
            let _ = write!(
                text,
                "[[blueprints.routes]]\npath = \"/r{route}/{{id}}\"\nmethods = [\"GET\"]\n{own}"
            );
        }
    }
    text
}

#[test]
fn reloads_of_many_routes_lose_no_request_and_leave_nothing_behind() {
    let origin = Origin::fixed(answer(200, &[], "ok"));
    let mut gate = Gate::before(&origin)
        .workers(2)
        .with(&many_routes(0))
        .start();
    let load = Load::with(&gate, &json!({"workers": 1}));
    let mut resident = Vec::new();
    for number in 1..=6 {
        gate.reload_with(&many_routes(number));
        assert_eq!(
            gate.get("/").headers("x-edition"),
            [number.to_string()],
            "what is counted as applied answers"
        );
        resident.push(gate.proxy.resident_kib());
    }
    let account = load.stop();
    assert_eq!(account["failed"], 0, "{account}");
    // A snapshot that stayed would be many megabytes each time.
    let (first, last) = resident.split_at(3);
    assert!(
        last.iter().max() < first.iter().max().map(|most| most + most / 4).as_ref(),
        "{resident:?} KiB"
    );
}

#[test]
fn sigterm_lets_requests_end_and_takes_no_more() {
    let origin = Origin::serve(|received| {
        if received.head.target() == "/slow" {
            eventually_pause(Duration::from_millis(800));
        }
        answer(200, &[], "whole")
    });
    let mut gate = Gate::before(&origin).open();
    let mut slow = gate.https();
    let mut idle = gate.https();
    idle.send(request("GET", "/", &[])).response().expect(200);
    slow.send(request("GET", "/slow", &[]));
    eventually("the slow request is under way", || {
        origin
            .requests()
            .iter()
            .any(|received| received.head.target() == "/slow")
            .then_some(())
    });
    gate.proxy.signal("TERM");
    assert_eq!(slow.response().expect(200).text(), "whole");
    idle.expect_close();
    let status = gate.proxy.await_exit();
    assert_eq!(status.code(), Some(0));
}

#[test]
fn sigterm_under_load_loses_no_request() {
    let origin = Origin::serve(|_| {
        eventually_pause(Duration::from_millis(5));
        answer(200, &[], "ok")
    });
    let mut gate = Gate::before(&origin).workers(2).open();
    let load = Load::until_refused(&gate);
    eventually_pause(Duration::from_millis(300));
    gate.proxy.signal("TERM");
    assert_eq!(gate.proxy.await_exit().code(), Some(0));
    let account = load.stop();
    assert_eq!(account["failed"], 0, "{account}");
}

#[test]
fn sigterm_lets_http2_streams_end() {
    let origin = Origin::serve(|_| {
        eventually_pause(Duration::from_millis(800));
        answer(200, &[], "whole")
    });
    let mut gate = Gate::before(&origin).open();
    let instruction = json!({
        "do": "patient",
        "address": gate.proxy.https().to_string(),
        "ca": gate.directory.path().join("ca.pem"),
    });
    let mut client = Process::spawn(
        "the client",
        python("h2client.py").arg(instruction.to_string()),
    );
    client.await_stdout("its request", |line| line.contains("sent").then_some(()));
    eventually("it is under way", || {
        (!origin.requests().is_empty()).then_some(())
    });
    gate.proxy.signal("TERM");
    let account = client.await_stdout("its account", |line| {
        let account: Value = serde_json::from_str(line).ok()?;
        account["body"].is_string().then_some(account)
    });
    assert_eq!(account["body"], "whole", "{account}");
    assert_eq!(account["ended"], true, "{account}");
    assert_eq!(account["goaway"], 0, "{account}");
    assert_eq!(gate.proxy.await_exit().code(), Some(0));
}

#[test]
fn sigterm_makes_it_unready_before_it_ends() {
    let origin = Origin::serve(|_| {
        eventually_pause(Duration::from_millis(1500));
        answer(200, &[], "whole")
    });
    let mut gate = Gate::before(&origin).open();
    let mut slow = gate.https();
    slow.send(request("GET", "/", &[]));
    eventually("it is under way", || {
        (!origin.requests().is_empty()).then_some(())
    });
    gate.proxy.signal("TERM");
    eventually_within(Duration::from_secs(2), "not ready", || {
        (gate.proxy.ask_admin("/readyz").status == 503).then_some(())
    });
    gate.proxy.ask_admin("/livez").expect(200);
    slow.response().expect(200);
    assert_eq!(gate.proxy.await_exit().code(), Some(0));
}

#[test]
fn a_drain_has_an_end() {
    let origin = Origin::script(|conn| {
        conn.request()?;
        conn.until_close().map(drop)
    });
    let mut gate = Gate::before(&origin).server("drain = \"1s\"").open();
    let mut stuck = gate.https();
    stuck.send(request("GET", "/", &[]));
    eventually("it is under way", || {
        (!origin.requests().is_empty()).then_some(())
    });
    gate.proxy.signal("TERM");
    gate.proxy.await_exit();
    let _ = stuck.until_close();
}

const WEBSOCKET: [(&str, &str); 4] = [
    ("Connection", "Upgrade"),
    ("Upgrade", "websocket"),
    ("Sec-WebSocket-Version", "13"),
    ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
];

/// A backend that opens a tunnel and says everything again in capitals.
pub fn shouting() -> Origin {
    Origin::script(|conn: &mut Conn| {
        conn.request()?;
        conn.send(
            "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n",
        )?;
        loop {
            let byte = conn.exactly(1)?;
            conn.send(byte.to_ascii_uppercase())?;
        }
    })
}

/// Opens a tunnel to it.
#[track_caller]
pub fn open_tunnel(mut client: Client) -> Client {
    client.send(request("GET", "/chat", &WEBSOCKET));
    let line = client.response_head().line;
    assert!(line.contains(" 101 "), "{line}");
    client
}

/// Says a word and hears it again.
#[track_caller]
pub fn shout(tunnel: &mut Client, word: &str) {
    tunnel.send(word);
    let heard = tunnel.exactly(word.len());
    assert_eq!(heard, word.to_ascii_uppercase().as_bytes());
}

#[test]
fn sigterm_waits_for_tunnels_and_ends_with_the_last() {
    let origin = shouting();
    let mut gate = Gate::before(&origin)
        .workers(2)
        .server("drain = \"30s\"")
        .open();
    let (mut one, mut other) = (open_tunnel(gate.https()), open_tunnel(gate.https()));
    gate.proxy.signal("TERM");
    gate.proxy.await_talk("draining");
    // Longer than a connection that idles is given.
    eventually_pause(Duration::from_millis(1500));
    shout(&mut one, "a");
    shout(&mut other, "b");
    drop(one);
    eventually_pause(Duration::from_millis(100));
    shout(&mut other, "c");
    drop(other);
    assert_eq!(gate.proxy.await_exit().code(), Some(0));
}

#[test]
fn sigterm_ends_a_tunnel_with_the_drain() {
    let origin = shouting();
    let mut gate = Gate::before(&origin).server("drain = \"1s\"").open();
    let mut tunnel = open_tunnel(gate.https());
    gate.proxy.signal("TERM");
    gate.proxy.await_talk("draining");
    shout(&mut tunnel, "a");
    assert_eq!(gate.proxy.await_exit().code(), Some(0));
    assert!(tunnel.until_close().is_empty());
    gate.proxy.await_access_of("/chat");
}

#[test]
fn sigint_ends_it_too() {
    let origin = Origin::echo();
    let mut gate = Gate::before(&origin).open();
    gate.proxy.signal("INT");
    assert_eq!(gate.proxy.await_exit().code(), Some(0));
}

#[test]
fn new_certificates_are_taken_up_and_broken_ones_are_not() {
    let origin = Origin::echo();
    let gate = Gate::before(&origin).open();
    let shown = || {
        let options = TlsOptions::new(&gate.ca, "app.example");
        Client::tls(gate.proxy.https(), &options)
            .peer_certificate()
            .expect("a certificate")
    };
    let first = shown();
    let renewed = gate.ca.server("app", &["app.example", "localhost"]);
    gate.reload();
    assert_eq!(shown(), renewed.cert_der.to_vec());
    assert_ne!(shown(), first);

    std::fs::write(&renewed.cert, "not a certificate").expect("the directory takes files");
    gate.reload();
    assert_eq!(
        shown(),
        renewed.cert_der.to_vec(),
        "the last good one is kept"
    );
    gate.get("/").expect(200);

    let third = gate.ca.server("app", &["app.example", "localhost"]);
    eventually("a change of the files is enough", || {
        (shown() == third.cert_der.to_vec()).then_some(())
    });
}

#[test]
fn a_change_that_needs_a_restart_is_told() {
    let origin = Origin::echo();
    let gate = Gate::before(&origin).with(&edition(1)).start();
    let file = gate.directory.path().join("gate.toml");
    let text = std::fs::read_to_string(&file).expect("the policy file");
    crate::harness::proxy::write_policy(
        gate.directory.path(),
        &text
            .replace("X-Edition = \"1\"", "X-Edition = \"2\"")
            .replace(
                "http = [\"127.0.0.1:0\"]",
                "http = [\"127.0.0.1:0\", \"[::1]:0\"]",
            )
            .replace("workers = 1", "workers = 2"),
    );
    eventually("the rest is taken up", || {
        (gate.get("/").headers("x-edition") == ["2"]).then_some(())
    });
    gate.proxy.await_talk("server.http, server.workers");
    gate.proxy.await_talk("after a restart only");
}

#[test]
fn a_rejected_reload_leaves_no_series_behind() {
    let origin = Origin::echo();
    let mut gate = Gate::before(&origin).with(PUBLIC).start();
    gate.get("/").expect(200);
    let file = |number: usize, more: &str| {
        format!(
            "[upstreams.ghost-{number}]\nservers = [\"http://127.0.0.1:9\"]\n{PUBLIC}\n\
             [[blueprints]]\nname = \"ghost-{number}\"\nprefix = \"/ghost\"\nupstream = \"ghost-{number}\"\n\
             auth = \"public\"\n{more}"
        )
    };
    let listed = |gate: &Running| {
        let text = gate.proxy.ask_admin("/metrics").expect(200).text();
        let ghosts = text.lines().filter(|line| line.contains("ghost-"));
        ghosts.map(ToOwned::to_owned).collect::<Vec<_>>()
    };
    for number in 0..3 {
        gate.reload_with(&file(number, "unknown_key = 1\n"));
        assert_eq!(listed(&gate), Vec::<String>::new());
    }
    // What is in force goes on to count, and a good file has its series.
    gate.get("/").expect(200);
    let counted = gate
        .proxy
        .await_metric("portcullis_requests_total", &["blueprint=\"app\""], 2.0);
    assert!(counted < 3.0, "{counted}");
    gate.reload_with(&file(7, ""));
    let ghosts = listed(&gate);
    assert!(!ghosts.is_empty());
    assert!(
        ghosts.iter().all(|line| line.contains("ghost-7")),
        "{ghosts:#?}"
    );
}

#[test]
fn a_rejected_reload_takes_up_no_new_keys() {
    let origin = Origin::echo();
    let issuer = Issuer::http();
    let gate = Gate::before(&origin);
    let file = gate.directory().join("keys.json");
    issuer.write_jwks(&file);
    let section = issuer.section().replace(
        &format!("jwks_url = \"{}\"", issuer.jwks_url()),
        &format!("jwks_file = '{}'", file.display()),
    );
    let guarded = PUBLIC.replace(
        "auth = \"public\"",
        "auth = { require = [\"bearer\"], issuers = [\"corp\"] }",
    );
    let gate = gate.with(&section).with(&guarded).start();
    let (first, ask) = (issuer.bearer(&["reader"]), |gate: &Running, token: &str| {
        gate.get_with("/", &[("Authorization", token)]).status
    });
    assert_eq!(ask(&gate, &first), 200);

    issuer.rotate();
    let second = issuer.bearer(&["reader"]);
    let policy = gate.directory.path().join("gate.toml");
    let sound = std::fs::read_to_string(&policy).expect("the policy file");
    crate::harness::proxy::write_policy(gate.directory.path(), &format!("{sound}\nupstreem = 1\n"));
    gate.proxy.await_talk("configuration not reloaded");
    issuer.write_jwks(&file);
    // One change of the policy file may be told twice, so it must be the key file that was met.
    eventually("a change of the key file makes a reload", || {
        let talk = gate.proxy.talk();
        let (_, behind) = talk.split_once("keys.json")?;
        behind.contains("configuration not reloaded").then_some(())
    });
    assert_eq!(ask(&gate, &second), 401);
    assert_eq!(ask(&gate, &first), 200);

    gate.reload();
    assert_eq!(ask(&gate, &second), 200);
    assert_eq!(ask(&gate, &first), 401);
}
