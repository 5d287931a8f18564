//! Backends over HTTP/2: what reaches them, what is shared, what is tried again, what is not passed on (attack a31).

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::harness::gate::{PUBLIC, Running, request};
use crate::harness::python::{python, run_json};
use crate::harness::{Client, Gate, H2Origin, Origin, Response, eventually};

/// A gate before an HTTP/2 origin, everything public.
fn open(origin: &H2Origin, lines: &str) -> Running {
    Gate::before_url(&origin.url()).upstream(lines).open()
}

/// What `readers.py` came to read over HTTP/2.
fn read(gate: &Running, paths: &[&str]) -> Vec<Value> {
    let instruction = json!({
        "do": "whole",
        "address": gate.proxy.https().to_string(),
        "ca": gate.directory.path().join("ca.pem"),
        "paths": paths,
    });
    let account = run_json(python("readers.py").arg(instruction.to_string()));
    account["answers"].as_array().expect("answers").clone()
}

#[track_caller]
fn expect_problem(response: &Response, status: u16, reason: &str) {
    let problem = response.expect(status).problem();
    assert_eq!(problem["type"], format!("urn:portcullis:problem:{reason}"));
}

/// The fields of a request at the backend with this name.
fn fields<'a>(request: &'a Value, name: &str) -> Vec<&'a str> {
    let fields = request["headers"].as_array().expect("fields");
    let named = fields.iter().filter(|field| field[0] == name);
    named.filter_map(|field| field[1].as_str()).collect()
}

/// Sends requests for `path` that nobody answers for now, each on a connection of its own.
fn held(gate: &Running, origin: &H2Origin, count: usize) -> Vec<Client> {
    let clients = (0..count).map(|_| {
        let mut client = gate.https();
        client.send(request("GET", "/hold", &[]));
        client
    });
    let clients = clients.collect();
    origin.await_requests("/hold", count);
    clients
}

#[test]
fn a_request_goes_over_http_2_in_its_own_form() {
    let origin = H2Origin::clear();
    let gate = open(&origin, "");
    let mut client = gate.https();
    let head = [
        ("TE", "trailers"),
        ("X-User", "root"),
        ("Cookie", "a=1; b=2"),
    ];
    let answer = client.send(request("GET", "/x?y=1", &head)).response();
    assert_eq!(answer.expect(200).json()["connection"], 0);
    let body = "POST /x HTTP/1.1\r\nHost: app.example\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n";
    assert_eq!(client.send(body).response().expect(200).json()["body"], 5);

    let first = &origin.await_events("request", 1)[0];
    for (name, value) in [
        (":method", "GET"),
        (":scheme", "http"),
        (":authority", "app.example"),
        (":path", "/x?y=1"),
        ("cookie", "a=1; b=2"),
        ("x-forwarded-proto", "https"),
    ] {
        assert_eq!(fields(first, name), [value], "{name} in {first}");
    }
    for name in ["host", "te", "connection", "x-user", "transfer-encoding"] {
        assert!(fields(first, name).is_empty(), "{name} in {first}");
    }
    origin.expect_connections(1);
    let line = gate.proxy.await_access_of("/x");
    assert_eq!(line["upstream.address"], origin.url());
    assert_eq!(line["decision"], "forwarded");
}

#[test]
fn requests_of_many_clients_share_one_connection() {
    let origin = H2Origin::clear();
    let gate = open(&origin, "");
    let mut clients = held(&gate, &origin, 12);
    gate.get("/release").expect(200);
    for client in &mut clients {
        client.response().expect(200);
    }
    origin.expect_connections(1);
}

#[test]
fn another_connection_is_made_where_the_streams_of_one_are_used_up_and_they_are_bounded() {
    // Settings that come late must not be guessed: the peer takes two streams, not the usual hundred.
    let origin = H2Origin::with(&["--streams=2", "--slow-settings=0.2"]);
    let gate = open(&origin, "h2_connections = 3\nconnect_timeout = \"1s\"");
    let mut clients = held(&gate, &origin, 6);
    origin.expect_connections(3);
    let started = Instant::now();
    let refused = gate.get("/seventh");
    expect_problem(&refused, 503, "overloaded");
    assert_eq!(refused.header("retry-after"), Some("1"));
    assert!(started.elapsed() >= Duration::from_secs(1));
    let line = gate.proxy.await_access_of("/seventh");
    assert_eq!(line["detail"], "no-stream", "{line}");
    gate.proxy.await_metric(
        "portcullis_upstream_requests_total",
        &["outcome=\"full\""],
        1.0,
    );
    assert!(origin.requests("/seventh").is_empty());

    // A request that waits gets the place of one that ended.
    let mut waiting = gate.https();
    waiting.send(request("GET", "/eighth", &[]));
    drop(clients.pop());
    waiting.response().expect(200);
    gate.get("/release").expect(200);
    for client in &mut clients {
        client.response().expect(200);
    }
    origin.expect_connections(3);
}

#[test]
fn tls_backends_speak_http_2_only_by_agreement() {
    let gate = |alpn: &str| {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let ca = crate::harness::Ca::new(directory.path());
        let origin = H2Origin::tls(&ca.server("backend", &["localhost"]), alpn);
        let trust = directory.path().join("ca.pem").display().to_string();
        let lines = format!("protocol = \"http2\"\nca = '{trust}'");
        (open(&origin, &lines), origin, directory)
    };
    let (agreed, origin, _directory) = gate("h2,http/1.1");
    agreed.get("/x").expect(200);
    let first = &origin.await_events("request", 1)[0];
    assert_eq!(fields(first, ":scheme"), ["https"]);
    for alpn in ["http/1.1", ""] {
        let (other, origin, _directory) = gate(alpn);
        expect_problem(&other.get("/x"), 502, "upstream-unreachable");
        assert!(origin.events("request").is_empty(), "{alpn}");
    }
}

#[test]
fn a_server_that_speaks_http_1_is_unreachable_and_no_request_is_at_stake() {
    let origin = Origin::fixed("HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n");
    let gate = Gate::before_url(&format!("h2c://{}", origin.address())).open();
    expect_problem(&gate.get("/secret-path"), 502, "upstream-unreachable");
    let mute = Origin::script(|conn| conn.until_close().map(drop));
    let gate = Gate::before_url(&format!("h2c://{}", mute.address()))
        .upstream("connect_timeout = \"300ms\"\nretries = { attempts = 0 }")
        .open();
    expect_problem(&gate.get("/secret-path"), 504, "upstream-timeout");
    for bytes in [origin.bytes(), mute.bytes()] {
        let seen = String::from_utf8_lossy(&bytes.concat()).into_owned();
        assert!(
            seen.starts_with("PRI * HTTP/2.0") && !seen.contains("secret"),
            "{seen}"
        );
    }
}

#[test]
fn what_the_backend_did_not_look_at_is_tried_again_and_nothing_else() {
    let origin = H2Origin::clear();
    let gate = open(&origin, "breaker = { failures = 0 }");
    gate.get("/first").expect(200);
    for path in ["/refuse-once", "/goaway-below"] {
        gate.get(path).expect(200);
        origin.await_requests(path, 2);
        let line = gate.proxy.await_access_of(path);
        assert_eq!(line["upstream.attempts"], 2, "{line}");
    }
    // Refused again, a body that cannot be sent twice, a last stream that is this one, a connection that just ended.
    expect_problem(&gate.get("/refuse"), 502, "upstream-broken");
    origin.await_requests("/refuse", 2);
    let line = gate.proxy.await_access_of("/refuse");
    assert_eq!(line["detail"], "refused-stream", "{line}");
    let posted =
        gate.exchange("POST /refuse HTTP/1.1\r\nHost: app.example\r\nContent-Length: 2\r\n\r\nok");
    expect_problem(&posted, 502, "upstream-broken");
    origin.await_requests("/refuse", 3);
    for path in ["/goaway-at", "/close"] {
        expect_problem(&gate.get(path), 502, "upstream-broken");
        origin.await_requests(path, 1);
        gate.get("/after").expect(200);
    }
}

#[test]
fn a_connection_that_goes_away_ends_its_requests_and_takes_no_more() {
    let origin = H2Origin::clear();
    let gate = open(&origin, "");
    let mut clients = held(&gate, &origin, 2);
    // GOAWAY names the last request that the backend took: those before it are still answered.
    gate.get("/goaway-below").expect(200);
    origin.expect_connections(2);
    gate.get("/release").expect(200);
    for client in &mut clients {
        client.response().expect(200);
    }
    origin.await_events("closed", 1);
    origin.expect_connections(2);
}

#[test]
fn a31_a_truncated_answer_is_never_passed_off_as_whole() {
    let origin = H2Origin::clear();
    let gate = open(&origin, "breaker = { failures = 0 }");
    let broken = ["/truncate", "/reset", "/short", "/long"];
    for path in broken {
        let mut client = gate.https();
        client.send(request("GET", path, &[]));
        let came = client.try_response();
        assert!(came.is_err(), "{path}: {came:?}");
        client.expect_close();
        let line = gate.proxy.await_access_of(path);
        assert_eq!(line["decision"], "failed", "{line}");
        assert_eq!(line["reason"], "upstream-broken", "{line}");
    }
    for (path, answer) in broken.iter().zip(read(&gate, &broken)) {
        assert_eq!(answer["error"], "RemoteProtocolError", "{path}: {answer}");
    }
    gate.get("/fine").expect(200);
    origin.await_requests("/fine", 1);
    origin.expect_connections(1);
}

#[test]
fn an_answer_whose_end_comes_in_a_frame_of_its_own_is_whole() {
    let origin = H2Origin::clear();
    let gate = open(&origin, "");
    assert_eq!(gate.get("/end-apart").expect(200).text(), "hello");
    let line = gate.proxy.await_access_of("/end-apart");
    assert_eq!(line["decision"], "forwarded", "{line}");
    assert_eq!(line["http.response.body.size"], 5, "{line}");
    gate.get("/x").expect(200);
    origin.expect_connections(1);
}

#[test]
fn a31_answers_that_break_the_rules_of_http_2_are_refused() {
    let origin = H2Origin::clear();
    let gate = open(&origin, "breaker = { failures = 0 }");
    for path in [
        "/field/connection/close",
        "/field/transfer-encoding/chunked",
        "/field/upgrade/h2c",
        "/field/keep-alive/5",
        "/field/proxy-connection/close",
        "/field/X-Upper/1",
        "/two-lengths",
        "/many-fields",
    ] {
        expect_problem(&gate.get(path), 502, "upstream-broken");
    }
    // What concerns one hop and what leaks is dropped; an unasked 101 is not even possible here.
    for (path, name) in [
        ("/field/proxy-authenticate/Basic", "proxy-authenticate"),
        ("/field/trailer/x", "trailer"),
        ("/field/server/secret", "server"),
    ] {
        assert_eq!(gate.get(path).expect(200).header(name), None);
    }
    let switched = gate.get("/switch");
    assert!(matches!(switched.status, 200 | 502), "{switched:?}");
    let trailed = gate.get("/trailers");
    assert_eq!(trailed.expect(200).text(), "ok");
    assert!(trailed.header("set-cookie").is_none());
}

#[test]
fn a_backend_that_does_not_answer_in_time_loses_the_request_alone() {
    let origin = H2Origin::clear();
    let gate = open(&origin, "response_timeout = \"300ms\"");
    expect_problem(&gate.get("/hang"), 504, "upstream-timeout");
    let reset = &origin.await_events("reset", 1)[0];
    assert_eq!(reset["code"], 8, "CANCEL");
    gate.get("/x").expect(200);
    origin.expect_connections(1);
}

#[test]
fn a_client_that_leaves_takes_its_stream_along() {
    let origin = H2Origin::clear();
    let gate = open(&origin, "");
    let clients = held(&gate, &origin, 1);
    drop(clients);
    origin.await_events("reset", 1);
    gate.get("/x").expect(200);
    origin.expect_connections(1);
}

#[test]
fn a_body_that_goes_on_after_its_answer_takes_no_room_from_others() {
    let origin = H2Origin::with(&["--streams=2"]);
    let gate = open(&origin, "h2_connections = 1\nresponse_timeout = \"2s\"");
    let dripping: Vec<Client> = (0..4)
        .map(|_| {
            let mut client = gate.https();
            client.send("POST /early HTTP/1.1\r\nHost: app.example\r\nContent-Length: 9\r\n\r\n1");
            client.response().expect(200);
            client
        })
        .collect();
    gate.get("/x").expect(200);
    origin.await_events("reset", 4);
    assert!(
        origin
            .events("whole")
            .iter()
            .all(|event| event["path"] == "/x")
    );
    origin.expect_connections(1);
    drop(dripping);
}

#[test]
fn a_body_that_is_neither_taken_nor_reset_takes_room_for_a_bounded_time() {
    let origin = H2Origin::with(&["--streams=2"]);
    let keys = "h2_connections = 1\nidle_timeout = \"400ms\"\nconnect_timeout = \"200ms\"";
    let gate = open(&origin, keys);
    let deaf: Vec<Client> = (0..2).map(|_| unheard(&gate)).collect();
    eventually("there is room again", || {
        (gate.get("/x").status == 200).then_some(())
    });
    // The streams have ended with their connection.
    origin.await_events("closed", 1);
    origin.expect_connections(2);
    gate.get("/x").expect(200);
    origin.expect_connections(2);
    drop(deaf);
}

#[test]
fn a_whole_body_that_is_not_taken_whole_keeps_its_room() {
    let piece = |length: usize, chunked: bool| {
        let bytes = "x".repeat(length);
        if chunked {
            format!("{length:x}\r\n{bytes}\r\n")
        } else {
            bytes
        }
    };
    for (framing, chunked, end) in [
        ("Content-Length: 66000", false, ""),
        ("Transfer-Encoding: chunked", true, "0\r\n\r\n"),
    ] {
        let origin = H2Origin::with(&["--streams=1"]);
        let gate = open(&origin, "h2_connections = 2\nrequest_timeout = \"3s\"");
        let mut client = gate.https();
        client.send(format!(
            "POST /full HTTP/1.1\r\nHost: app.example\r\n{framing}\r\n\r\n"
        ));
        client.send(piece(65_000, chunked));
        eventually("all but the end is taken", || {
            let taken = origin.events("taken");
            taken
                .iter()
                .any(|event| event["body"] == 65_000)
                .then_some(())
        });
        // Of this piece, with which the body is whole, the server takes 535 bytes, and answers.
        client.send(piece(1000, chunked) + end);
        client.response().expect(200);
        gate.get("/x").expect(200);
        origin.expect_connections(2);
        assert!(origin.events("reset").is_empty(), "{framing}");
    }
}

#[test]
fn a_small_body_for_which_the_window_is_too_small_keeps_its_room() {
    let origin = H2Origin::with(&["--streams=1", "--window=1000"]);
    let gate = open(&origin, "h2_connections = 2\nrequest_timeout = \"3s\"");
    // Of these the server takes 1,000 bytes, and answers.
    let body = "x".repeat(5000);
    let head = "POST /full HTTP/1.1\r\nHost: app.example\r\nContent-Length: 5000\r\n\r\n";
    let mut client = gate.https();
    client.send([head, &body].concat()).response().expect(200);
    gate.get("/x").expect(200);
    origin.expect_connections(2);
    // One that fits goes its way.
    let head = "POST /x HTTP/1.1\r\nHost: app.example\r\nContent-Length: 1000\r\n\r\n";
    let fits = gate.exchange([head, &body[..1000]].concat());
    assert_eq!(fits.expect(200).json()["body"], 1000);
    origin.expect_connections(2);
}

/// A client whose body the server does not take, behind a whole answer.
fn unheard(gate: &Running) -> Client {
    let mut client = gate.https();
    client.send("POST /deaf HTTP/1.1\r\nHost: app.example\r\nContent-Length: 200000\r\n\r\n");
    client.send(vec![b'x'; 100_000]);
    client.response().expect(200);
    client
}

#[test]
fn a_connection_that_takes_no_more_requests_is_closed_with_the_bodies_that_it_does_not_take() {
    let origin = H2Origin::clear();
    let gate = open(&origin, "");
    let deaf = unheard(&gate);
    // The server goes away below this one, which is tried again on another connection.
    gate.get("/goaway-below").expect(200);
    gate.get("/x").expect(200);
    origin.await_events("closed", 1);
    origin.expect_connections(2);
    drop(deaf);
}

#[test]
fn connections_that_end_are_bounded_and_the_first_of_them_makes_room() {
    let origin = H2Origin::clear();
    let gate = open(&origin, "h2_connections = 1");
    // Each is the last one on its connection, and keeps it open.
    let mut last: Vec<Client> = Vec::new();
    for count in 1..=9 {
        let mut client = gate.https();
        client.send(request("GET", "/last", &[]));
        last.push(client);
        origin.await_requests("/last", count);
    }
    origin.expect_connections(9);
    // Nobody is refused for it.
    gate.get("/more").expect(200);
    origin.expect_connections(10);
    expect_problem(&last.remove(0).response(), 502, "upstream-broken");
    gate.get("/release").expect(200);
    for client in &mut last {
        client.response().expect(200);
    }
    origin.expect_connections(10);
}

/// Everything to the upstream `two`, which has this besides its server.
fn by_way_of_two(origin: &H2Origin, lines: &str) -> String {
    format!(
        "[upstreams.two]\nservers = [\"{}\"]\n{lines}\n\
         [[blueprints]]\nname = \"app\"\nhosts = [\"app.example\"]\nupstream = \"two\"\nauth = \"public\"\n",
        origin.url()
    )
}

#[test]
fn the_connections_of_a_server_that_a_reload_replaces_end_with_their_requests() {
    let origin = H2Origin::clear();
    let policy = |lines: &str| by_way_of_two(&origin, lines);
    let mut gate = Gate::before_url(&origin.url()).with(&policy("")).start();
    // A body that the server never takes, which would keep the connection for ever, and a request under way.
    let deaf = unheard(&gate);
    let mut holding = held(&gate, &origin, 1);
    origin.expect_connections(1);
    gate.reload_with(&policy("connect_timeout = \"2s\""));
    gate.get("/x").expect(200);
    origin.expect_connections(2);
    assert!(
        origin.events("closed").is_empty(),
        "a request is under way on it"
    );
    gate.get("/release").expect(200);
    for client in &mut holding {
        client.response().expect(200);
    }
    let closed = origin.await_events("closed", 1);
    assert_eq!(closed[0]["connection"], 0, "{closed:?}");
    // One on which nothing is under way ends with the reload.
    gate.reload_with(&policy("connect_timeout = \"3s\""));
    gate.get("/x").expect(200);
    let closed = origin.await_events("closed", 2);
    assert_eq!(closed[1]["connection"], 1, "{closed:?}");
    origin.expect_connections(3);
    drop(deaf);
}

#[test]
fn no_room_within_the_time_for_a_request_is_no_fault_of_the_server() {
    let origin = H2Origin::with(&["--streams=1"]);
    let keys = "h2_connections = 1\nrequest_timeout = \"400ms\"\nbreaker = { failures = 1 }";
    let gate = open(&origin, keys);
    // An answer that has begun is bound by no such time, and keeps its stream.
    let mut holding = gate.https();
    holding.send(request("GET", "/events", &[]));
    assert!(holding.response_head().line.contains(" 200 "));
    let mut client = gate.https();
    for number in 0..2 {
        let path = format!("/no-room-{number}");
        let answer = client.send(request("GET", &path, &[])).response();
        expect_problem(&answer, 503, "overloaded");
        let line = gate.proxy.await_access_of(&path);
        assert_eq!(line["detail"], "no-stream", "{line}");
    }
    drop(holding);
}

#[test]
fn a_body_that_is_cut_never_ends_well_at_the_backend() {
    let origin = H2Origin::clear();
    let gate = Gate::before_url(&origin.url())
        .with("[server.limits]\nbody_bytes = \"1KiB\"\n")
        .open();
    let mut client = gate.https();
    let block = [b"200\r\n".as_slice(), &[b'x'; 512], b"\r\n"].concat();
    client.send("POST /upload HTTP/1.1\r\nHost: app.example\r\nTransfer-Encoding: chunked\r\n\r\n");
    for _ in 0..4 {
        client.send(&block);
    }
    client.response().expect(413);
    origin.await_events("reset", 1);
    assert!(origin.events("whole").is_empty());
}

#[test]
fn a33_expect_100_is_answered_only_after_the_guards() {
    let origin = H2Origin::clear();
    let gate = Gate::before_url(&origin.url())
        .issuer_without_keys()
        .with(PUBLIC)
        .with(crate::harness::gate::ADMIN)
        .start();
    let post = |path: &str| {
        format!(
            "POST {path} HTTP/1.1\r\nHost: app.example\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n"
        )
    };
    let refused = gate.https().send(post("/admin")).response();
    refused.expect(401);
    assert!(refused.interim.is_empty(), "{:?}", refused.interim);
    let mut client = gate.https();
    client.send(post("/open"));
    assert!(client.response_head().line.contains(" 100"));
    assert_eq!(
        client.send("hello").response().expect(200).json()["body"],
        5
    );
    assert!(origin.requests("/admin").is_empty());
    assert!(fields(&origin.await_requests("/open", 1)[0], "expect").is_empty());
}

#[test]
fn clients_that_take_nothing_do_not_keep_others_from_their_answers() {
    let origin = H2Origin::clear();
    let gate = open(&origin, "");
    let stalled: Vec<Client> = (0..24)
        .map(|_| {
            let mut client = gate.https();
            client.send(request("GET", "/big/50000000", &[]));
            client.response_head();
            client
        })
        .collect();
    origin.await_requests("/big/50000000", stalled.len());
    assert_eq!(gate.get("/big/2000000").expect(200).body.len(), 2_000_000);
    origin.expect_connections(1);
}

#[test]
fn an_unused_connection_is_closed_after_its_time() {
    let origin = H2Origin::clear();
    let gate = open(&origin, "idle_timeout = \"200ms\"");
    gate.get("/x").expect(200);
    origin.await_events("closed", 1);
    gate.get("/x").expect(200);
    origin.expect_connections(2);
}

#[test]
fn breaker_health_and_balance_hold_for_http_2() {
    let (one, two) = (H2Origin::clear(), H2Origin::clear());
    let servers = format!("\", \"{}", two.url());
    let gate = Gate::before_url(&format!("{}{servers}", one.url()))
        .upstream("balance = \"round_robin\"\nhealth = { path = \"/healthz\", every = \"50ms\" }")
        .open();
    for _ in 0..8 {
        gate.get("/x").expect(200);
    }
    one.await_requests("/x", 4);
    two.await_requests("/x", 4);
    let direct = open(&one, "");
    direct.get("/fail").expect(200);
    gate.proxy.await_talk("server fails its health check");
    for _ in 0..4 {
        gate.get("/x").expect(200);
    }
    two.await_requests("/x", 8);
    one.await_requests("/x", 4);

    let gate = Gate::before_url(&two.url())
        .server("trusted_proxies = [\"127.0.0.0/8\"]")
        .upstream("breaker = { failures = 2, open = \"30s\" }")
        .open();
    for client in ["203.0.113.1", "203.0.113.2"] {
        let response = gate.get_with("/close", &[("X-Forwarded-For", client)]);
        expect_problem(&response, 502, "upstream-broken");
    }
    expect_problem(&gate.get("/x"), 503, "breaker-open");
}

#[test]
fn an_upgrade_is_not_asked_of_http_2() {
    let origin = H2Origin::clear();
    let gate = open(&origin, "");
    let head = [
        ("Connection", "Upgrade"),
        ("Upgrade", "websocket"),
        ("Sec-WebSocket-Version", "13"),
    ];
    gate.get_with("/x", &head).expect(200);
    let seen = &origin.await_requests("/x", 1)[0];
    for name in ["upgrade", "connection"] {
        assert!(fields(seen, name).is_empty(), "{seen}");
    }
    gate.get("/y").expect(200);
    origin.expect_connections(1);
}
