//! gRPC through the gate, between a real client and a real server (grpcio): calls of every kind, their outcome in the
//! trailers, and what trailers may not carry (attack a34).

use serde_json::{Value, json};

use crate::harness::gate::{ADMIN, PUBLIC, Running};
use crate::harness::process::Process;
use crate::harness::python::{python, run_json};
use crate::harness::{Ca, Gate, H2Origin, Origin};

/// A gRPC server.
struct Server {
    _process: Process,
    port: u16,
}

impl Server {
    fn start(arguments: &[String]) -> Self {
        let mut command = python("grpc_peer.py");
        let mut process = Process::spawn("grpc_peer.py", command.arg("serve").args(arguments));
        let port = process.await_stdout("its address", |line| {
            let said: Value = serde_json::from_str(line).ok()?;
            said["address"].as_str()?.rsplit(':').next()?.parse().ok()
        });
        Self {
            _process: process,
            port,
        }
    }

    fn gate(&self) -> Gate {
        Gate::before_url(&format!("h2c://127.0.0.1:{}", self.port))
    }
}

/// Makes calls on one channel.
fn calls(gate: &Running, wanted: &Value) -> Vec<Value> {
    let instruction = json!({
        "address": gate.proxy.https().to_string(),
        "ca": gate.directory.path().join("ca.pem"),
        "calls": wanted,
    });
    let mut command = python("grpc_peer.py");
    let account = run_json(command.arg("call").arg(instruction.to_string()));
    account["answers"].as_array().expect("answers").clone()
}

#[test]
fn calls_of_every_kind_end_as_the_server_says() {
    let server = Server::start(&[]);
    let gate = server.gate().open();
    let answers = calls(
        &gate,
        &json!([
            { "method": "Unary", "message": "hello", "metadata": { "x-mine": "1", "x-user": "root" } },
            { "method": "Stream", "message": "100" },
            { "method": "Collect", "messages": ["a", "b", "c"] },
            { "method": "Talk", "count": 5 },
            { "method": "Failing" },
            { "method": "Halfway" },
            { "method": "Missing" },
        ]),
    );
    let codes: Vec<&str> = answers.iter().filter_map(|a| a["code"].as_str()).collect();
    let expected = [
        "OK",
        "OK",
        "OK",
        "OK",
        "FAILED_PRECONDITION",
        "DATA_LOSS",
        "UNIMPLEMENTED",
    ];
    assert_eq!(codes, expected, "{answers:#?}");

    let unary: Value = serde_json::from_str(answers[0]["messages"][0].as_str().expect("text"))
        .expect("the server's account");
    assert_eq!(unary["request"], "hello");
    assert_eq!(unary["metadata"]["x-mine"], "1");
    assert_eq!(unary["metadata"]["x-forwarded-host"], "app.example");
    assert!(unary["metadata"]["x-user"].is_null(), "{unary}");
    assert_eq!(answers[0]["initial"]["x-initial"], "1");

    assert_eq!(answers[1]["messages"].as_array().map(Vec::len), Some(100));
    assert_eq!(answers[2]["messages"], json!(["a,b,c"]));
    assert_eq!(answers[3]["messages"][4], "re: 4");
    assert_eq!(answers[4]["details"], "not now: \u{e4} 100 %");
    assert_eq!(answers[4]["trailing"]["x-why"], "because");
    assert_eq!(answers[5]["messages"], json!(["one", "two"]));
    let line = gate.proxy.await_access_of("/test.Echo/Talk");
    assert_eq!(line["decision"], "forwarded", "{line}");
}

#[test]
fn a34_trailers_of_a_call_carry_nothing_that_decides() {
    let server = Server::start(&[]);
    let gate = server.gate().open();
    let answer = &calls(&gate, &json!([{ "method": "Unary" }]))[0];
    let trailing = answer["trailing"].as_object().expect("trailers");
    assert_eq!(trailing["x-trailing"], "2");
    assert_eq!(trailing["data-bin"], "\u{0}\u{ff}");
    for name in ["x-user", "set-cookie"] {
        assert!(!trailing.contains_key(name), "{answer}");
    }
}

#[test]
fn tls_servers_are_called_too() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let ca = Ca::new(directory.path());
    let leaf = ca.server("backend", &["localhost"]);
    let files = [&leaf.cert, &leaf.key].map(|file| file.display().to_string());
    let server = Server::start(&files);
    let gate = Gate::before_url(&format!("https://localhost:{}", server.port))
        .upstream(&format!(
            "protocol = \"http2\"\nca = '{}'",
            directory.path().join("ca.pem").display()
        ))
        .open();
    let answers = calls(
        &gate,
        &json!([{ "method": "Talk", "count": 3 }, { "method": "Failing" }]),
    );
    assert_eq!(answers[0]["messages"], json!(["re: 0", "re: 1", "re: 2"]));
    assert_eq!(answers[1]["code"], "FAILED_PRECONDITION");
}

/// A gate before a server of gRPC that lets in nobody.
fn closed(server: &Server, lines: &str) -> Running {
    server
        .gate()
        .defaults(lines)
        .issuer_without_keys()
        .with(PUBLIC)
        .with(&ADMIN.replace("/admin", "/test.Echo"))
        .start()
}

#[test]
fn a_refusal_ends_the_call_with_its_reason() {
    let server = Server::start(&[]);
    let gate = closed(&server, "rate_limits = []");
    let answer = &calls(&gate, &json!([{ "method": "Unary" }]))[0];
    assert_eq!(answer["code"], "UNAUTHENTICATED", "{answer}");
    let details = answer["details"].as_str().expect("a message");
    let line = gate.proxy.await_access_of("/test.Echo/Unary");
    let id = line["request_id"].as_str().expect("an identity");
    let expected = "credentials-missing: This resource needs credentials (request ";
    assert_eq!(details, format!("{expected}{id})"));
    assert_eq!(line["reason"], "credentials-missing", "{line}");
    assert_eq!(line["decision"], "refused", "{line}");
    assert_eq!(line["http.response.status_code"], 200, "{line}");
    gate.proxy.await_metric(
        "portcullis_refusals_total",
        &["reason=\"credentials-missing\""],
        1.0,
    );
    // What is no call of gRPC is told by its status: gRPC is spoken over HTTP/2 alone.
    let fields = [("Content-Type", "application/grpc")];
    let response = gate.request("POST", "/test.Echo/Unary", &fields);
    assert_eq!(response.expect(401).problem()["status"], 401);
    assert_eq!(response.header("grpc-status"), None);
}

/// The status of the answer and of gRPC to one request over HTTP/2.
fn statuses(gate: &Running, method: &str, kind: &str) -> (Value, Value) {
    let instruction = json!({
        "do": "one",
        "address": gate.proxy.https().to_string(),
        "ca": gate.directory.path().join("ca.pem"),
        "path": "/test.Echo/Unary",
        "method": method,
        "kind": kind,
    });
    let account = run_json(python("readers.py").arg(instruction.to_string()));
    assert_eq!(account["ended"], true, "{account}");
    let fields = &account["fields"];
    (fields[":status"].clone(), fields["grpc-status"].clone())
}

#[test]
fn a_call_is_a_post_of_its_media_type_whenever_it_fails() {
    let origin = Origin::script(|conn| conn.head().map(drop));
    let guarded = Gate::before(&origin)
        .issuer_without_keys()
        .with(PUBLIC)
        .with(&ADMIN.replace("/admin", "/test.Echo"))
        .start();
    let unbroken = "breaker = { failures = 0 }";
    let open = Gate::before(&origin).upstream(unbroken).open();
    let gone = Server::start(&[]);
    let over_two = gone.gate().upstream(unbroken).open();
    drop(gone);
    // Refused before anything is sent to the backend, and failed there, over either protocol.
    for (gate, status, code) in [
        (&guarded, "401", "16"),
        (&open, "502", "14"),
        (&over_two, "502", "14"),
    ] {
        for kind in ["application/grpc", "application/grpc+proto"] {
            let expected = (json!("200"), json!(code));
            assert_eq!(statuses(gate, "POST", kind), expected, "{kind}");
        }
        for (method, kind) in [
            ("GET", "application/grpc"),
            ("PUT", "application/grpc"),
            ("POST", "application/grpc-web"),
            ("POST", "text/plain"),
        ] {
            let expected = (json!(status), Value::Null);
            assert_eq!(statuses(gate, method, kind), expected, "{method} {kind}");
        }
    }
}

#[test]
fn a_limit_by_status_counts_refused_calls_by_what_was_refused() {
    let server = Server::start(&[]);
    let limit = "rate_limits = [{ name = \"tight\", key = \"client\", quota = 10, window = \"1h\", \
                 cost = { status_401 = 5 } }]";
    let gate = closed(&server, limit);
    let unary = json!({ "method": "Unary" });
    let answers = calls(&gate, &json!([unary, unary, unary]));
    let codes: Vec<&str> = answers.iter().filter_map(|a| a["code"].as_str()).collect();
    let expected = ["UNAUTHENTICATED", "UNAUTHENTICATED", "RESOURCE_EXHAUSTED"];
    assert_eq!(codes, expected, "{answers:#?}");
    let exhausted = &answers[2]["trailing"];
    assert!(exhausted["retry-after"].is_string(), "{answers:#?}");
}

#[test]
fn a_server_that_is_not_there_or_too_slow_is_told_by_its_code() {
    let server = Server::start(&[]);
    let gate = server
        .gate()
        .upstream("response_timeout = \"300ms\"")
        .open();
    let answer = &calls(&gate, &json!([{ "method": "Slow" }]))[0];
    assert_eq!(answer["code"], "DEADLINE_EXCEEDED", "{answer}");
    let details = answer["details"].as_str().expect("a message");
    assert!(details.starts_with("upstream-timeout: "), "{answer}");
    drop(server);
    let answer = &calls(&gate, &json!([{ "method": "Unary" }]))[0];
    assert_eq!(answer["code"], "UNAVAILABLE", "{answer}");
    let details = answer["details"].as_str().expect("a message");
    assert!(details.starts_with("upstream-"), "{answer}");
}

#[test]
fn a_conversation_may_pause_but_a_call_that_nobody_answers_may_not() {
    let server = Server::start(&[]);
    let gate = server
        .gate()
        .with("[server.limits]\nbody_idle = \"300ms\"\nbody_rate = \"1MiB\"\n")
        .open();
    // Answered: pauses are up to `tunnel_idle`.
    let answer = &calls(
        &gate,
        &json!([{ "method": "Talk", "count": 3, "pause": 1.0 }]),
    )[0];
    assert_eq!(answer["code"], "OK", "{answer}");
    assert_eq!(answer["messages"].as_array().map(Vec::len), Some(3));
    // Not answered: the server waits for the end of the messages, which does not come.
    let held = json!([{ "method": "Collect", "messages": ["a"], "hold": 3.0 }]);
    let answer = &calls(&gate, &held)[0];
    assert_ne!(answer["code"], "OK", "{answer}");
    let line = gate.proxy.await_access_of("/test.Echo/Collect");
    assert_eq!(line["reason"], "body-timeout", "{line}");

    let gate = server.gate().upstream("tunnel_idle = \"300ms\"").open();
    let silent = json!([{ "method": "Talk", "count": 3, "pause": 3.0 }]);
    let answer = &calls(&gate, &silent)[0];
    assert_ne!(answer["code"], "OK", "{answer}");
}

#[test]
fn a_deadline_of_the_client_ends_the_call_at_the_server() {
    let server = Server::start(&[]);
    let gate = server.gate().open();
    let answer = &calls(&gate, &json!([{ "method": "Slow", "timeout": 0.5 }]))[0];
    assert_eq!(answer["code"], "DEADLINE_EXCEEDED", "{answer}");
    let line = gate.proxy.await_access_of("/test.Echo/Slow");
    assert_eq!(line["decision"], "aborted", "{line}");
}

#[test]
fn a34_trailers_go_through_for_grpc_over_http_2_alone() {
    let origin = H2Origin::clear();
    let gate = Gate::before_url(&origin.url()).open();
    let send = |kind: &str| {
        let instruction = json!({
            "do": "trailing",
            "address": gate.proxy.https().to_string(),
            "ca": gate.directory.path().join("ca.pem"),
            "path": "/trailers",
            "kind": kind,
            "trailers": [["x-checksum", "1"], ["x-user", "root"], ["authorization", "Basic eA=="], ["content-length", "3"]],
        });
        run_json(python("readers.py").arg(instruction.to_string()))
    };
    for (kind, expected, te) in [
        (
            "application/grpc",
            json!([["x-checksum", "1"]]),
            json!([["te", "trailers"]]),
        ),
        ("text/plain", json!(null), json!([])),
    ] {
        let before = origin.events("whole").len();
        let account = send(kind);
        let whole = &origin.await_events("whole", before + 1)[before];
        assert_eq!(whole["trailers"], expected, "{kind}: {whole}");
        assert_eq!(account["trailers"], expected, "{kind}: {account}");
        let requests = origin.events("request");
        let request = requests.last().expect("a request");
        let fields = request["headers"].as_array().expect("fields");
        let told: Vec<&Value> = fields.iter().filter(|field| field[0] == "te").collect();
        assert_eq!(json!(told), te, "{kind}");
    }
}
