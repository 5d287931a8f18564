//! Request smuggling and framing, on exact bytes (attacks a1 to a8).

use std::io;

use serde_json::json;

use crate::harness::gate::{Running, request};
use crate::harness::origin::answer;
use crate::harness::python::h2;
use crate::harness::{Conn, Gate, Origin};

/// Sends `head` for `app.example` with `rest` after it, and wants 400, a closed connection and a backend that saw nothing.
#[track_caller]
fn expect_refused(gate: &Running, origin: &Origin, bytes: &str) {
    let mut client = gate.https();
    let response = client.send(bytes).response();
    assert_eq!(response.status, 400, "{bytes:?}\n{}", response.text());
    assert_eq!(
        response
            .header("connection")
            .map(str::to_ascii_lowercase)
            .as_deref(),
        Some("close"),
        "{bytes:?}"
    );
    client.expect_close();
    let seen = origin.bytes().concat();
    assert!(
        seen.is_empty(),
        "{bytes:?} reached the backend as `{}`",
        String::from_utf8_lossy(&seen).escape_debug()
    );
}

fn post(fields: &str, body: &str) -> String {
    format!("POST / HTTP/1.1\r\nHost: app.example\r\n{fields}\r\n\r\n{body}")
}

#[test]
fn a00_well_formed_bodies_pass() {
    let origin = Origin::echo();
    let gate = Gate::guarding(&origin).start();
    let mut client = gate.https();
    for bytes in [
        post("Content-Length: 5", "hello"),
        post("Transfer-Encoding: chunked", "5\r\nhello\r\n0\r\n\r\n"),
        post(
            "Transfer-Encoding: Chunked",
            "1\r\nh\r\n4\r\nello\r\n0\r\n\r\n",
        ),
    ] {
        let response = client.send(&bytes).response();
        assert_eq!(response.expect(200).json()["body_bytes"], 5, "{bytes:?}");
    }
    for received in origin.requests() {
        assert_eq!(received.body, b"hello");
    }
}

#[test]
fn a01_content_length_with_transfer_encoding() {
    let origin = Origin::echo();
    let gate = Gate::guarding(&origin).start();
    expect_refused(
        &gate,
        &origin,
        &post(
            "Content-Length: 6\r\nTransfer-Encoding: chunked",
            "0\r\n\r\nG",
        ),
    );
    expect_refused(
        &gate,
        &origin,
        &post(
            "Transfer-Encoding: chunked\r\nContent-Length: 6",
            "0\r\n\r\nG",
        ),
    );
}

#[test]
fn a02_transfer_encodings_that_are_not_chunked_alone() {
    let origin = Origin::echo();
    let gate = Gate::guarding(&origin).start();
    for fields in [
        "Transfer-Encoding: chunked, identity",
        "Transfer-Encoding: xchunked",
        "Transfer-Encoding : chunked",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity",
        "Transfer-Encoding: gzip, chunked",
        "Transfer-Encoding: chunked, chunked",
        "Transfer-Encoding:\x0bchunked",
        "Transfer-Encoding: \"chunked\"",
        "Transfer-Encoding:",
        " Transfer-Encoding: chunked",
        "X: y\r\n Transfer-Encoding: chunked",
    ] {
        expect_refused(&gate, &origin, &post(fields, "0\r\n\r\n"));
    }
}

#[test]
fn a03_chunked_in_http_1_0() {
    let origin = Origin::echo();
    let gate = Gate::guarding(&origin).start();
    expect_refused(
        &gate,
        &origin,
        "POST / HTTP/1.0\r\nHost: app.example\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n\
         GET /admin HTTP/1.1\r\n\r\n",
    );
}

#[test]
fn a04_content_lengths_that_are_not_one_number() {
    let origin = Origin::echo();
    let gate = Gate::guarding(&origin).start();
    for fields in [
        "Content-Length: 5\r\nContent-Length: 6",
        "Content-Length: 5\r\nContent-Length: 5",
        "Content-Length:",
        "Content-Length: +5",
        "Content-Length: -5",
        "Content-Length: 5,5",
        "Content-Length: 5, 6",
        "Content-Length: 0x5",
        "Content-Length: 5 5",
        "Content-Length: 5.0",
        "Content-Length: 99999999999999999999",
        "Content-Length : 5",
        "Content\x00-Length: 5",
    ] {
        expect_refused(&gate, &origin, &post(fields, "hello"));
    }
}

/// Wants 400 and a close; the backend may have seen the head and the sound part of the body, but never a whole request.
#[track_caller]
fn expect_chunk_refused(body: &str) {
    let origin = Origin::echo();
    let gate = Gate::guarding(&origin).start();
    let mut client = gate.https();
    let response = client
        .send(post("Transfer-Encoding: chunked", body))
        .response();
    assert_eq!(response.status, 400, "{body:?}\n{}", response.text());
    client.expect_close();
    let whole = origin.requests();
    assert!(
        whole.is_empty(),
        "{body:?} reached the backend as {whole:#?}"
    );
    let seen = origin.bytes().concat();
    assert!(!seen.windows(6).any(|window| window == b"/admin"));
}

#[test]
fn a05_malformed_chunks() {
    for body in [
        "5;a=\nhello\r\n0\r\n\r\n",
        "5\nhello\r\n0\r\n\r\n",
        "5 \r\nhello\r\n0\r\n\r\n",
        " 5\r\nhello\r\n0\r\n\r\n",
        "-5\r\nhello\r\n0\r\n\r\n",
        "00000000000000005\r\nhello\r\n0\r\n\r\n",
        "FFFFFFFFFFFFFFFFF\r\nhello\r\n0\r\n\r\n",
        "0x5\r\nhello\r\n0\r\n\r\n",
        "5\r\nhelloXX0\r\n\r\n",
        "5\r\nhello\n0\r\n\r\n",
        "\r\nhello\r\n0\r\n\r\n",
    ] {
        expect_chunk_refused(body);
    }
}

#[test]
fn a05_chunk_extensions_are_not_forwarded() {
    let origin = Origin::echo();
    let gate = Gate::guarding(&origin).start();
    let response = gate.exchange(post(
        "Transfer-Encoding: chunked",
        "5;name=\"GET /admin\"\r\nhello\r\n0\r\n\r\n",
    ));
    if response.status == 200 {
        assert_eq!(origin.only_request().body, b"hello");
    } else {
        response.expect(400);
    }
    let seen = origin.bytes().concat();
    assert!(
        !seen.windows(6).any(|window| window == b"/admin"),
        "{seen:?}"
    );
}

#[test]
fn a06_an_unlisted_upgrade_is_stripped_and_the_next_request_judged_alone() {
    let origin = Origin::echo();
    let gate = Gate::guarding(&origin).start();
    let mut client = gate.https();
    client.send(
        "GET / HTTP/1.1\r\nHost: app.example\r\nConnection: Upgrade\r\nUpgrade: foo\r\n\r\n\
         GET /admin HTTP/1.1\r\nHost: app.example\r\n\r\n",
    );
    client.response().expect(200);
    client.response().expect(401);
    let received = origin.only_request();
    assert!(
        received.head.all("upgrade").is_empty(),
        "{:#?}",
        received.head
    );
    let connection = received
        .head
        .all("connection")
        .join(",")
        .to_ascii_lowercase();
    assert!(!connection.contains("upgrade"), "{connection}");
}

const WEBSOCKET: [(&str, &str); 4] = [
    ("Connection", "Upgrade"),
    ("Upgrade", "websocket"),
    ("Sec-WebSocket-Version", "13"),
    ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
];

#[test]
fn a06_a_websocket_that_the_backend_declines_is_no_tunnel() {
    let origin = Origin::echo();
    let gate = Gate::guarding(&origin).start();
    let mut client = gate.https();
    client.send(request("GET", "/chat", &WEBSOCKET));
    client.response().expect(200);
    client.send(request("GET", "/admin", &[]));
    let second = client.try_response();
    if let Ok(response) = second {
        response.expect(401);
    }
    assert_eq!(origin.requests().len(), 1);
    let seen = origin.bytes().concat();
    assert!(!seen.windows(6).any(|window| window == b"/admin"));
    gate.get("/after").expect(200);
    assert_eq!(origin.last_request().connection, 1, "a fresh connection");
}

#[test]
fn a06_no_client_byte_reaches_the_backend_before_its_101() {
    let origin = Origin::script(|conn: &mut Conn| -> io::Result<()> {
        while let Some(received) = conn.request()? {
            if received.head.all("upgrade").is_empty() {
                conn.send(answer(200, &[], "plain"))?;
                continue;
            }
            conn.send(answer(403, &[], "no"))?;
        }
        Ok(())
    });
    let gate = Gate::guarding(&origin).start();
    let mut client = gate.https();
    client.send(
        request("GET", "/chat", &WEBSOCKET) + "GET /admin HTTP/1.1\r\nHost: app.example\r\n\r\n",
    );
    let first = client.response();
    assert!(matches!(first.status, 400 | 403), "{first:#?}");
    if let Ok(second) = client.try_response() {
        second.expect(401);
    }
    let seen = origin.bytes().concat();
    assert!(!seen.windows(6).any(|window| window == b"/admin"));
}

/// What became of stream 1: its status, or "reset" or "goaway" with the error code.
fn h2_outcome(gate: &Running, fields: &[(&str, &str)], data: &[&str]) -> String {
    let account = h2(&json!({
        "do": "raw",
        "address": gate.proxy.https().to_string(),
        "ca": gate.directory.path().join("ca.pem"),
        "fields": fields,
        "data": data,
    }));
    let stream = &account["streams"]["1"];
    if let Some(status) = stream["status"].as_str() {
        return status.to_owned();
    }
    if let Some(code) = stream["reset"].as_u64() {
        return format!("reset {code}");
    }
    if let Some(code) = account["goaway"].as_u64() {
        return format!("goaway {code}");
    }
    account.to_string()
}

const PROTOCOL_ERRORS: [&str; 2] = ["reset 1", "goaway 1"];

const H2_GET: [(&str, &str); 4] = [
    (":method", "GET"),
    (":scheme", "https"),
    (":path", "/"),
    (":authority", "app.example"),
];

fn with_path(path: &'static str) -> Vec<(&'static str, &'static str)> {
    named(2, (":path", path))
}

fn with(name: &'static str, value: &'static str) -> Vec<(&'static str, &'static str)> {
    [&H2_GET[..], &[(name, value)]].concat()
}

/// The sound form with another field in this place.
fn named(place: usize, field: (&'static str, &'static str)) -> Vec<(&'static str, &'static str)> {
    let mut fields = H2_GET.to_vec();
    fields[place] = field;
    fields
}

/// The sound form without the fields in these places, and with others behind it.
fn without(
    places: &[usize],
    others: &[(&'static str, &'static str)],
) -> Vec<(&'static str, &'static str)> {
    let kept = H2_GET.iter().enumerate();
    let kept = kept.filter(|(place, _)| !places.contains(place));
    kept.map(|(_, field)| *field)
        .chain(others.iter().copied())
        .collect()
}

/// Each of these is refused, and nothing of it reaches the backend.
#[track_caller]
fn expect_malformed(cases: &[Vec<(&'static str, &'static str)>]) {
    let origin = Origin::echo();
    let gate = Gate::guarding(&origin).start();
    let by_host = without(&[3], &[("host", "app.example"), ("te", "trailers")]);
    for sound in [H2_GET.to_vec(), by_host] {
        assert_eq!(h2_outcome(&gate, &sound, &[]), "200", "{sound:?}");
    }
    let seen = origin.bytes().concat().len();
    for fields in cases {
        let outcome = h2_outcome(&gate, fields, &[]);
        assert!(
            outcome == "400" || PROTOCOL_ERRORS.contains(&outcome.as_str()),
            "{fields:?}: {outcome}"
        );
    }
    assert_eq!(
        origin.bytes().concat().len(),
        seen,
        "nothing more reached the backend"
    );
}

#[test]
fn a07_http2_fields_that_would_smuggle() {
    expect_malformed(&[
        with_path("/ HTTP/1.1\r\nX: 1"),
        with_path("/ HTTP/1.1"),
        with_path(""),
        with_path("*"),
        with_path("admin"),
        with("x-a", "1\r\nX-B: 2"),
        with("x-a", "1\nX-B: 2"),
        with("x-a", "1\0"),
        with("x-a\r\nx-b", "1"),
        with("x-a:", "1"),
        with("X-Upper", "1"),
        with("transfer-encoding", "chunked"),
        with("connection", "x"),
        with("keep-alive", "1"),
        with("proxy-connection", "x"),
        with("upgrade", "websocket"),
        with("te", "gzip"),
        with("host", "b.example"),
        with(":path", "/admin"),
        with(":unknown", "1"),
    ]);
}

/// RFC 9113 §8.2 and §8.3, rule by rule.
#[test]
fn a07_what_http2_calls_malformed() {
    expect_malformed(&[
        with("", "1"),
        with("x a", "1"),
        with("x-a", "1\u{7f}"),
        with("x-a", " 1"),
        with("x-a", "1 "),
        with("x-a", "\t1"),
        with("x-a", "1\t"),
        with("te", "trailers, gzip"),
        with("content-length", "+0"),
        with("content-length", "0, 0"),
        without(&[], &[("content-length", "0"), ("content-length", "0")]),
        without(&[], &[("host", "app.example"), ("host", "app.example")]),
        with(":status", "200"),
        with(":method", "POST"),
        [&[("x-a", "1")], &H2_GET[..]].concat(),
        with_path("https://app.example/admin"),
        with_path("?a"),
        named(1, (":scheme", "http")),
        named(1, (":scheme", "ftp")),
        named(1, (":scheme", "")),
        named(3, (":authority", "")),
        named(3, (":authority", "user@app.example")),
        named(3, (":authority", "app.example, b.example")),
        named(3, (":authority", "app.example/a")),
        without(&[0], &[]),
        without(&[1], &[]),
        without(&[2], &[]),
        without(&[3], &[]),
        without(&[2, 3], &[("host", "app.example")]),
    ]);
}

#[test]
fn a08_http2_content_length_that_data_does_not_keep() {
    let origin = Origin::echo();
    let gate = Gate::guarding(&origin).start();
    let post = |length: &'static str| {
        let mut fields = H2_GET.to_vec();
        fields[0] = (":method", "POST");
        fields.push(("content-length", length));
        fields
    };
    assert_eq!(h2_outcome(&gate, &post("5"), &["hello"]), "200");
    let before = origin.requests().len();
    for (length, data) in [
        ("10", &[][..]),
        ("10", &["hello"][..]),
        ("3", &["hello"][..]),
    ] {
        let outcome = h2_outcome(&gate, &post(length), data);
        assert!(
            outcome == "400" || PROTOCOL_ERRORS.contains(&outcome.as_str()),
            "{length} {data:?}: {outcome}"
        );
    }
    assert_eq!(
        origin.requests().len(),
        before,
        "no whole request came of it"
    );
    // The length is met before the excess comes: the answer may be under way, the excess goes nowhere.
    let outcome = h2_outcome(&gate, &post("5"), &["hello", "excess"]);
    assert!(
        ["200", "400", "reset 1", "goaway 1"].contains(&outcome.as_str()),
        "{outcome}"
    );
    let seen = origin.bytes().concat();
    assert!(!seen.windows(6).any(|window| window == b"excess"));
    gate.get("/after").expect(200);
    let after = origin.last_request();
    assert_eq!(after.head.target(), "/after");
    assert!(after.body.is_empty());
}
