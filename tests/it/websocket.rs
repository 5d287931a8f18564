//! Whose pages may open a WebSocket, and what may come before it is open (RFC 6455 §10.2).

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::Value;

use crate::harness::gate::{PUBLIC, Running, request};
use crate::harness::proxy::portcullis_verb;
use crate::harness::{Conn, Gate, Origin, eventually};

/// A handshake of the sample key of RFC 6455 §1.3, and the answer to it.
const HANDSHAKE: [(&str, &str); 4] = [
    ("Connection", "Upgrade"),
    ("Upgrade", "websocket"),
    ("Sec-WebSocket-Version", "13"),
    ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
];
const SWITCH: &str = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
    Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";

/// A backend that switches and sends back what comes.
fn mirror() -> Origin {
    Origin::script(|conn: &mut Conn| -> io::Result<()> {
        conn.request()?;
        conn.send(SWITCH)?;
        loop {
            let byte = conn.exactly(1)?;
            conn.send(byte)?;
        }
    })
}

fn handshake(path: &str, origins: &[&str]) -> String {
    let mut fields = HANDSHAKE.to_vec();
    fields.extend(origins.iter().map(|origin| ("Origin", *origin)));
    request("GET", path, &fields)
}

/// The status of the answer to a handshake from pages of these origins.
fn status(gate: &Running, path: &str, origins: &[&str]) -> u16 {
    let mut client = gate.https();
    client.send(handshake(path, origins));
    let line = client.response_head().line;
    line.split(' ')
        .nth(1)
        .and_then(|status| status.parse().ok())
        .unwrap_or_else(|| panic!("a status in `{line}`"))
}

#[test]
fn a_foreign_page_opens_no_websocket() {
    let origin = mirror();
    let gate = Gate::before(&origin).open();
    for foreign in [
        &["https://evil.example"][..],
        &["http://app.example"],
        &["https://app.example.evil.com"],
        &["https://app.example:8443"],
        &["null"],
        &["https://app.example", "https://evil.example"],
    ] {
        let mut client = gate.https();
        client.send(handshake("/chat", foreign));
        let problem = client.response().expect(403).problem();
        assert_eq!(problem["type"], "urn:portcullis:problem:origin-denied");
    }
    origin.expect_untouched();
    let line = gate.proxy.await_access_of("/chat");
    assert_eq!(line["decision"], "refused", "{line}");
    assert_eq!(line["reason"], "origin-denied", "{line}");
    assert_eq!(line["detail"], "websocket", "{line}");
    for own in [&[][..], &["https://app.example"]] {
        assert_eq!(status(&gate, "/own", own), 101, "{own:?}");
    }
}

#[test]
fn a_route_lets_in_the_pages_that_it_names() {
    let origin = mirror();
    let gate = Gate::before(&origin)
        .with(PUBLIC)
        .with(
            "[blueprints.cors]\norigins = [\"https://shop.example\"]\n\
             [[blueprints.routes]]\npath = \"/star\"\ncors = { origins = [\"*\"] }\n\
             [[blueprints.routes]]\npath = \"/any\"\ncors = { websocket = \"any\" }\n\
             [[blueprints.routes]]\npath = \"/watched\"\ncors = { mode = \"monitor\" }\n",
        )
        .start();
    assert_eq!(status(&gate, "/chat", &["https://shop.example"]), 101);
    assert_eq!(status(&gate, "/chat", &["https://evil.example"]), 403);
    assert_eq!(status(&gate, "/star", &["https://evil.example"]), 403);
    assert_eq!(status(&gate, "/any", &["https://evil.example"]), 101);
    assert_eq!(status(&gate, "/any", &["null"]), 403);
    assert_eq!(status(&gate, "/watched", &["https://evil.example"]), 101);
    gate.proxy.await_access("the watched one", |line: &Value| {
        line["url.path"] == "/watched" && line["would_refuse"][0] == "origin-denied"
    });
}

#[test]
fn explain_and_check_say_whose_pages_may() {
    let origin = mirror();
    let gate = Gate::before(&origin)
        .with(PUBLIC)
        .with("[[blueprints.routes]]\npath = \"/any\"\ncors = { websocket = \"any\" }\n");
    let file = gate.write().display().to_string();
    let explain = |path: &str, page: &str| {
        let url = format!("https://app.example{path}");
        let page = format!("Origin: {page}");
        let mut arguments = vec!["explain", "-c", &file, "GET", &url, "-H", &page];
        let fields: Vec<String> = HANDSHAKE
            .iter()
            .map(|(name, value)| format!("{name}: {value}"))
            .collect();
        arguments.extend(fields.iter().flat_map(|field| ["-H", field.as_str()]));
        let output = portcullis_verb(&arguments);
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    for (path, page, words) in [
        (
            "/",
            "https://app.example",
            "websocket: the handshake comes from a page of the host itself",
        ),
        (
            "/",
            "https://evil.example",
            "refused: 403 origin-denied (websocket)",
        ),
        (
            "/any",
            "https://evil.example",
            "websocket: any site may open it",
        ),
    ] {
        let said = explain(path, page);
        assert!(said.contains(words), "`{words}`: {said}");
    }
    let check = portcullis_verb(&["check", "-c", &file]);
    let said = String::from_utf8_lossy(&check.stderr).into_owned()
        + &String::from_utf8_lossy(&check.stdout);
    assert!(
        said.contains("every site may open a WebSocket with the cookies of its visitors"),
        "{said}"
    );
}

/// Bytes that have come in on the connections of a listener and that nobody has read yet.
fn unread(port: u16) -> u64 {
    let table = std::fs::read_to_string("/proc/net/tcp").expect("Linux lists its sockets");
    let local = format!(":{port:04X}");
    let of = |line: &str| {
        let mut words = line.split_whitespace().skip(1);
        let (address, _, _, queues) = (words.next()?, words.next()?, words.next()?, words.next()?);
        let (_, waiting) = queues.split_once(':')?;
        let waiting = u64::from_str_radix(waiting, 16).ok()?;
        address.ends_with(&local).then_some(waiting)
    };
    table.lines().filter_map(of).sum()
}

#[test]
fn a06_bytes_that_follow_a_handshake_in_later_segments_keep_the_tunnel_shut() {
    let read = Arc::new(AtomicBool::new(false));
    let may_switch = Arc::clone(&read);
    let origin = Origin::script(move |conn: &mut Conn| -> io::Result<()> {
        conn.request()?;
        eventually("the gate has read what came early", || {
            may_switch.load(Ordering::SeqCst).then_some(())
        });
        conn.send([SWITCH, "hello"].concat())?;
        conn.until_close().map(drop)
    });
    let gate = Gate::guarding(&origin).start();
    let mut client = gate.https();
    client.send(handshake("/chat", &[]));
    eventually("the handshake is at the backend", || {
        (!origin.requests().is_empty()).then_some(())
    });
    for piece in ["GET /admin HTTP/1.1\r\n", "Host: app.example\r\n\r\n"] {
        client.send(piece);
    }
    let port = gate.proxy.https().port();
    eventually("nothing is left to read", || {
        (unread(port) == 0).then_some(())
    });
    read.store(true, Ordering::SeqCst);
    let problem = client.response().expect(400).problem();
    assert_eq!(problem["type"], "urn:portcullis:problem:early-tunnel-bytes");
    client.expect_close();
    origin.await_closed(1);
    let seen = origin.bytes().concat();
    assert!(!seen.windows(6).any(|window| window == b"/admin"));
    let line = gate.proxy.await_access_of("/chat");
    assert_eq!(line["reason"], "early-tunnel-bytes", "{line}");
    assert_eq!(line["decision"], "refused", "{line}");
}
