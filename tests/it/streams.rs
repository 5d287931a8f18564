//! Answers that come piece by piece, and what may come before an answer: Server-Sent Events, 1xx, `Expect`.

use std::collections::BTreeSet;
use std::io;
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::gate::{ADMIN, PUBLIC, Running, request};
use crate::harness::origin::answer;
use crate::harness::python::{python, run_json};
use crate::harness::{Gate, H2Origin, Origin};

/// How long the backend waits to hear that an event was seen.
const PATIENCE: Duration = Duration::from_secs(15);

/// What clients said they have seen.
type Seen = Arc<(Mutex<BTreeSet<String>>, Condvar)>;

fn say(seen: &Seen, number: &str) {
    let mut set = seen.0.lock().expect("no test panics with it");
    set.insert(number.to_owned());
    seen.1.notify_all();
}

/// Waits until a client has seen an event; an error ends the stream early.
fn hear(seen: &Seen, number: &str) -> io::Result<()> {
    let set = seen.0.lock().expect("no test panics with it");
    let waited = seen
        .1
        .wait_timeout_while(set, PATIENCE, |set| !set.contains(number));
    if waited.expect("no test panics with it").1.timed_out() {
        return Err(io::ErrorKind::TimedOut.into());
    }
    Ok(())
}

/// Sends four events over HTTP/1.1, each only after the client has said that it saw the one before.
fn eventful(seen: &Seen) -> Origin {
    let seen = Arc::clone(seen);
    Origin::script(move |conn| {
        while let Some(received) = conn.request()? {
            let target = received.head.target().to_owned();
            if let Some(number) = target.strip_prefix("/ack/") {
                say(&seen, number);
                conn.send(answer(200, &[], "ok"))?;
                continue;
            }
            conn.send("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")?;
            for number in ["0", "1", "2", "3"] {
                conn.send(format!("9\r\ndata: {number}\n\n\r\n"))?;
                hear(&seen, number)?;
            }
            conn.send("0\r\n\r\n")?;
        }
        Ok(())
    })
}

/// Reads the events of a gate and acknowledges each.
fn read_events(gate: &Running, client: &str) -> Value {
    let mut instruction = json!({
        "do": "events",
        "address": gate.proxy.https().to_string(),
        "ca": gate.directory.path().join("ca.pem"),
        "http2": client == "h2",
    });
    if client == "clear" {
        instruction["address"] = json!(gate.proxy.http().to_string());
        instruction.as_object_mut().expect("an object").remove("ca");
    }
    run_json(python("readers.py").arg(instruction.to_string()))
}

#[test]
fn each_event_reaches_the_client_before_the_next_is_written() {
    for (client, version) in [("h2", "HTTP/2"), ("h1", "HTTP/1.1"), ("clear", "HTTP/1.1")] {
        let seen = Seen::default();
        let one = eventful(&seen);
        let two = H2Origin::clear();
        for url in [one.url(), two.url()] {
            let gate = Gate::before_url(&url).server("plaintext = true").open();
            let account = read_events(&gate, client);
            let expected = json!({ "version": version, "seen": ["0", "1", "2", "3"], "rest": "" });
            assert_eq!(account, expected, "{client} before {url}");
            let line = gate.proxy.await_access_of("/events");
            assert_eq!(line["decision"], "forwarded", "{line}");
            assert_eq!(line["http.response.body.size"], 4 * 9, "{line}");
        }
    }
}

#[test]
fn the_line_of_a_stream_is_written_at_its_end() {
    let seen = Seen::default();
    let origin = eventful(&seen);
    let gate = Gate::before(&origin).open();
    let mut client = gate.https();
    client.send(request("GET", "/events", &[]));
    client.response_head();
    for number in ["0", "1", "2"] {
        assert_eq!(
            client.chunk().expect("an event"),
            format!("data: {number}\n\n").as_bytes()
        );
        gate.get(&format!("/ack/{number}")).expect(200);
        // Lines of one worker are written in order, so a line of the stream would stand before this one.
        gate.proxy.await_access_of(&format!("/ack/{number}"));
        let lines = gate.proxy.access_lines();
        assert!(
            lines.iter().all(|line| line["url.path"] != "/events"),
            "{lines:#?}"
        );
    }
    client.chunk().expect("the last event");
    gate.get("/ack/3").expect(200);
    assert!(client.chunk().expect("the end").is_empty());
    let line = gate.proxy.await_access_of("/events");
    assert_eq!(line["http.response.body.size"], 4 * 9, "{line}");
}

#[test]
fn an_interim_answer_is_dropped_and_the_final_one_is_whole() {
    let hints = "HTTP/1.1 103 Early Hints\r\nLink: </style.css>; rel=preload\r\nSet-Cookie: early=1\r\n\r\n";
    let bytes = [hints.repeat(3).as_bytes(), &answer(200, &[], "final")].concat();
    let one = Origin::fixed(bytes);
    let two = H2Origin::clear();
    for url in [one.url(), two.url()] {
        let gate = Gate::before_url(&url).open();
        let mut client = gate.https();
        for _ in 0..2 {
            let response = client.send(request("GET", "/hints", &[])).response();
            assert_eq!(response.expect(200).text(), "final");
            assert!(response.interim.is_empty(), "{:?}", response.interim);
            assert!(
                response.headers("link").is_empty() && response.headers("set-cookie").is_empty()
            );
        }
        let instruction = json!({
            "do": "whole",
            "address": gate.proxy.https().to_string(),
            "ca": gate.directory.path().join("ca.pem"),
            "paths": ["/hints"],
        });
        let account = run_json(python("readers.py").arg(instruction.to_string()));
        let expected = json!([{ "status": 200, "version": "HTTP/2", "body": "final" }]);
        assert_eq!(account["answers"], expected, "before {url}");
    }
    assert_eq!(one.connections(), 1, "the connection is not spoiled");
}

#[test]
fn a33_over_http_2_nothing_invites_a_body_and_a_refusal_needs_none() {
    let one = Origin::echo();
    let two = H2Origin::clear();
    for url in [one.url(), two.url()] {
        let gate = Gate::before_url(&url)
            .issuer_without_keys()
            .with(PUBLIC)
            .with(ADMIN)
            .start();
        let ask = |path: &str, patience: f64| {
            let instruction = json!({
                "do": "expecting",
                "address": gate.proxy.https().to_string(),
                "ca": gate.directory.path().join("ca.pem"),
                "path": path,
                "patience": patience,
            });
            run_json(python("readers.py").arg(instruction.to_string()))
        };
        let refused = ask("/admin", 15.0);
        assert_eq!(refused["statuses"], json!(["401"]), "{refused}");
        assert_eq!(refused["sent"], false, "{refused}");
        let passed = ask("/open", 0.5);
        assert_eq!(passed["statuses"], json!(["200"]), "{passed}");
        assert_eq!(passed["sent"], true, "{passed}");
    }
    let received = one.only_request();
    assert_eq!(received.body, b"hello");
    assert!(received.head.all("expect").is_empty());
    two.await_requests("/open", 1);
    assert!(two.requests("/admin").is_empty());
}
