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
    assert_eq!(line["stage"], "csrf", "{line}");
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
            "websocket: a page of the host itself asks",
        ),
        (
            "/",
            "https://evil.example",
            "refused: 403 origin-denied (websocket)",
        ),
        (
            "/any",
            "https://evil.example",
            "websocket: a page of an origin that the file names asks",
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

/// Bytes on their way to a listener, or come there, that nobody has read yet.
fn unread(port: u16) -> u64 {
    let table = std::fs::read_to_string("/proc/net/tcp").expect("Linux lists its sockets");
    let port = format!(":{port:04X}");
    let of = |line: &str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let (here, there) = (words.get(1)?, words.get(2)?);
        let (leaving, waiting) = words.get(4)?.split_once(':')?;
        let bytes = |queue: &str| u64::from_str_radix(queue, 16).ok();
        let (to, at) = (there.ends_with(&port), here.ends_with(&port));
        let to = if to { bytes(leaving)? } else { 0 };
        Some(to + if at { bytes(waiting)? } else { 0 })
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
    client.send("GET /admin HTTP/1.1\r\n");
    // Behind the first of them the gate reads no more.
    let port = gate.proxy.https().port();
    eventually("the first piece is read", || {
        (unread(port) == 0).then_some(())
    });
    client.send("Host: app.example\r\n\r\n");
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

#[test]
fn an_open_tunnel_is_no_request_under_way_and_keeps_no_old_policy() {
    let checked = |origin: &Origin| {
        let checks = origin.requests();
        checks
            .iter()
            .filter(|request| request.head.target() == "/healthz")
            .count()
    };
    let backend = || {
        Origin::script(|conn: &mut Conn| -> io::Result<()> {
            while let Some(received) = conn.request()? {
                if received.head.target() == "/healthz" {
                    conn.send("HTTP/1.1 204 Well\r\n\r\n")?;
                    continue;
                }
                conn.send(SWITCH)?;
                loop {
                    let byte = conn.exactly(1)?;
                    conn.send(byte)?;
                }
            }
            Ok(())
        })
    };
    let (old, new) = (backend(), backend());
    let policy = |origin: &Origin| {
        format!(
            "[upstreams.chat]\nservers = [\"{}\"]\nhealth = {{ path = \"/healthz\", every = \"50ms\" }}\n{}",
            origin.url(),
            PUBLIC.replace("legacy", "chat")
        )
    };
    let mut gate = Gate::before(&old).with(&policy(&old)).start();
    let mut client = gate.https();
    client.send(handshake("/chat", &[]));
    assert!(client.response_head().line.contains(" 101 "));
    eventually("the tunnel is no request", || {
        let requests = gate.proxy.metric("portcullis_requests_in_flight", &[]);
        (requests == 0.0).then_some(())
    });
    gate.reload_with(&policy(&new));
    // A check of the old upstream may be under way; more of them would mean that it lives on.
    eventually("the new upstream is checked", || {
        (checked(&new) > 2).then_some(())
    });
    let before = (checked(&old), checked(&new));
    eventually("and again", || {
        (checked(&new) > before.1 + 10).then_some(())
    });
    assert!(
        checked(&old) <= before.0 + 1,
        "{} {}",
        checked(&old),
        before.0
    );
    client.send("a");
    assert_eq!(client.exactly(1), b"a");
    drop(client);
    let line = gate.proxy.await_access_of("/chat");
    assert_eq!(line["blueprint"], "app", "{line}");
    assert_eq!(line["upstream.address"], old.url(), "{line}");
    assert_eq!(line["upstream.attempts"], 1, "{line}");
}
