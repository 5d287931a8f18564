//! What bounds a WebSocket, and one on a stream of HTTP/2 (RFC 6455, RFC 8441).

use std::io;
use std::process::Stdio;
use std::time::{Duration, Instant};

use aws_lc_rs::digest;
use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::{Value, json};

use crate::harness::gate::{PUBLIC, Running, request};
use crate::harness::message::Head;
use crate::harness::origin::answer;
use crate::harness::process::Process;
use crate::harness::python::{python, run_json};
use crate::harness::{Client, Conn, Gate, Origin, eventually};

pub const HANDSHAKE: [(&str, &str); 4] = [
    ("Connection", "Upgrade"),
    ("Upgrade", "websocket"),
    ("Sec-WebSocket-Version", "13"),
    ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
];

/// The 101 that answers the key of this handshake (RFC 6455 §4.2.2).
pub fn switch(head: &Head) -> String {
    let key = head.get("sec-websocket-key").unwrap_or_default();
    let said = format!("{key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11");
    let proof = digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, said.as_bytes());
    format!(
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Accept: {}\r\n\r\n",
        STANDARD.encode(proof.as_ref())
    )
}

/// A backend that switches and does what the test says with the tunnel.
fn switching(then: impl Fn(&mut Conn) -> io::Result<()> + Send + Sync + 'static) -> Origin {
    Origin::script(move |conn: &mut Conn| {
        while let Some(received) = conn.request()? {
            conn.send(switch(&received.head))?;
            then(conn)?;
        }
        Ok(())
    })
}

/// A backend that sends back each byte that comes.
pub fn mirror() -> Origin {
    switching(|conn| {
        loop {
            let byte = conn.exactly(1)?;
            conn.send(byte)?;
        }
    })
}

fn open(gate: &Running) -> Client {
    let mut client = gate.https();
    client.send(request("GET", "/chat", &HANDSHAKE));
    let line = client.response_head().line;
    assert!(line.contains(" 101 "), "{line}");
    client
}

/// Has `tests/apps/websocket.py` do something with the gate.
pub fn websocket(gate: &Running, what: &str, instruction: &Value) -> Value {
    let mut instruction = instruction.clone();
    instruction["do"] = json!(what);
    instruction["address"] = json!(gate.proxy.https().to_string());
    instruction["ca"] = json!(gate.directory.path().join("ca.pem"));
    run_json(python("websocket.py").arg(instruction.to_string()))
}

fn stream(gate: &Running, instruction: &Value) -> Value {
    websocket(gate, "stream", instruction)
}

#[test]
fn real_parts_talk_over_http1_and_over_http2() {
    let mut server = Process::spawn(
        "websocket.py",
        python("websocket.py")
            .arg(json!({"do": "echo"}).to_string())
            .stdin(Stdio::null()),
    );
    let port = server.await_stdout("its port", |line| {
        serde_json::from_str::<Value>(line).ok()?["port"].as_u64()
    });
    let gate = Gate::before_url(&format!("http://127.0.0.1:{port}")).open();
    let long = "x".repeat(60_000);
    let said = json!({"path": "/one", "say": ["hello", long], "origin": "https://app.example"});
    let account = websocket(&gate, "talk", &said);
    assert_eq!(account["echoes"], json!(["hello", long]));
    assert_eq!(account["subprotocol"], "chat");
    let line = gate.proxy.await_access_of("/one");
    assert_eq!(line["http.response.status_code"], 101, "{line}");
    assert_eq!(line["decision"], "forwarded", "{line}");
    assert!(
        line["http.request.body.size"].as_u64() > Some(60_000),
        "{line}"
    );

    let fields = json!({"origin": "https://app.example", "sec-websocket-protocol": "chat"});
    let account = stream(
        &gate,
        &json!({"path": "/two", "say": ["hello", "again"], "fields": fields}),
    );
    assert_eq!(account["announced"], 1, "{account}");
    assert_eq!(account["statuses"], json!(["200"]), "{account}");
    assert_eq!(
        account["data"], "\u{81}\u{5}hello\u{81}\u{5}again",
        "{account}"
    );
    assert_eq!(account["headers"]["sec-websocket-protocol"], "chat");
    for name in [
        "sec-websocket-accept",
        "connection",
        "upgrade",
        "content-length",
    ] {
        assert_eq!(account["headers"][name], Value::Null, "{account}");
    }
    let line = gate.proxy.await_access_of("/two");
    assert_eq!(line["http.request.method"], "GET", "{line}");
    assert_eq!(line["http.response.status_code"], 200, "{line}");
    assert_eq!(line["network.protocol.version"], "2", "{line}");
    assert_eq!(line["http.response.body.size"], 14, "{line}");
    // The server closes: the stream ends, and what it said last has come.
    let account = stream(
        &gate,
        &json!({"say": ["close"], "fields": fields, "to_the_end": true}),
    );
    assert_eq!(account["ended"], "end", "{account}");
    let said = account["data"].as_str().unwrap_or_default();
    assert!(said.contains("going away"), "{account}");
}

#[test]
fn a28_no_page_of_another_site_opens_a_stream() {
    let origin = Origin::echo();
    let gate = Gate::before(&origin).open();
    for fields in [
        json!({"origin": "https://evil.example"}),
        json!({"sec-fetch-site": "cross-site"}),
        json!({"sec-fetch-site": "cross-site", "origin": "https://app.example"}),
        json!({"sec-fetch-site": "same-origin", "origin": "https://evil.example"}),
        json!({"cookie": "s=1"}),
    ] {
        let account = stream(&gate, &json!({"path": "/chat", "fields": fields}));
        assert_eq!(account["statuses"][0], "403", "{fields}");
    }
    origin.expect_untouched();
}

#[test]
fn an_extended_connect_is_judged_as_the_get_that_it_stands_for() {
    let origin = Origin::echo();
    let gate = Gate::guarding(&origin)
        .with(
            "[[blueprints]]\nname = \"form\"\nhosts = [\"app.example\"]\nprefix = \"/form\"\nupstream = \"legacy\"\nauth = \"public\"\n\
             unmatched = \"refuse\"\n[[blueprints.routes]]\npath = \"/post\"\nmethods = [\"POST\"]\n",
        )
        .start();
    let status = |path: &str, fields: &Value| {
        let account = stream(&gate, &json!({"path": path, "fields": fields}));
        match account["statuses"][0].as_str() {
            Some(status) => status.to_owned(),
            None => account["ended"].as_str().unwrap_or("closed").to_owned(),
        }
    };
    for (path, fields, outcomes) in [
        ("/admin", json!({}), &["401"][..]),
        ("/%61dmin/x", json!({}), &["401"]),
        ("/form/post", json!({}), &["405"]),
        ("/a%00", json!({}), &["400"]),
        ("/", json!({"origin": "https://evil.example"}), &["403"]),
        ("/", json!({"origin": "null"}), &["403"]),
        ("/", json!({"origin": "http://app.example"}), &["403"]),
        ("/", json!({":authority": "b.example"}), &["421"]),
        ("/", json!({"host": "b.example"}), &["400"]),
        ("/", json!({":protocol": "connect-udp"}), &["501"]),
        ("/", json!({":protocol": "WebSocket"}), &["501"]),
        ("/", json!({":protocol": ""}), &["501", "reset 1", "closed"]),
        ("/", json!({"content-length": "0"}), &["400"]),
        (
            "/",
            json!({"content-length": "5"}),
            &["400", "reset 2", "closed"],
        ),
        (
            "/",
            json!({"transfer-encoding": "chunked"}),
            &["reset 1", "closed"],
        ),
        ("/", json!({"upgrade": "websocket"}), &["reset 1", "closed"]),
        ("/", json!({":method": "GET"}), &["reset 1", "closed"]),
        ("/", json!({":method": "POST"}), &["reset 1", "closed"]),
        ("/", json!({":path": null}), &["reset 1", "closed"]),
        ("/", json!({":scheme": null}), &["reset 1", "closed"]),
        // A plain CONNECT, which names no path and no protocol.
        (
            "/",
            json!({":protocol": null, ":path": null, ":scheme": null}),
            &["405"],
        ),
        ("/", json!({":protocol": null}), &["reset 1", "closed"]),
    ] {
        let outcome = status(path, &fields);
        assert!(
            outcomes.contains(&outcome.as_str()),
            "{path} {fields}: {outcome}"
        );
    }
    origin.expect_untouched();
    gate.proxy.await_access("the protocol", |line| {
        line["reason"] == "protocol-unknown" && line["http.response.status_code"] == 501
    });
}

#[test]
fn a_stream_opens_only_when_the_backend_has_read_our_key() {
    let origin = Origin::script(|conn: &mut Conn| {
        while let Some(received) = conn.request()? {
            let right = switch(&received.head);
            conn.send(match received.head.target() {
                "/page" => answer(200, &[], "a page"),
                "/denied" => answer(403, &[], "not you"),
                "/stale" => "HTTP/1.1 101 S\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                    Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"
                    .into(),
                "/none" => {
                    "HTTP/1.1 101 S\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n".into()
                }
                "/other" => right.replace("websocket", "h2c").into_bytes(),
                _ => right.into_bytes(),
            })?;
            conn.until_close()?;
        }
        Ok(())
    });
    let gate = Gate::before(&origin).open();
    for (path, status) in [
        ("/page", "502"),
        ("/stale", "502"),
        ("/none", "502"),
        ("/other", "502"),
        ("/denied", "403"),
        ("/right", "200"),
    ] {
        let theirs = json!({"sec-websocket-key": "dGhlIHNhbXBsZSBub25jZQ=="});
        let account = stream(&gate, &json!({"path": path, "fields": theirs}));
        assert_eq!(account["statuses"], json!([status]), "{path}: {account}");
        let head = origin.last_request().head;
        assert_eq!(head.line, format!("GET {path} HTTP/1.1"));
        assert_eq!(head.get("upgrade"), Some("websocket"), "{head:#?}");
        assert_eq!(head.get("sec-websocket-version"), Some("13"), "{head:#?}");
        let key = head.get("sec-websocket-key").expect("a key of our own");
        assert_ne!(key, "dGhlIHNhbXBsZSBub25jZQ==");
        assert_eq!(STANDARD.decode(key).expect("base64").len(), 16);
        for name in [
            "content-length",
            "transfer-encoding",
            ":protocol",
            "protocol",
        ] {
            assert!(head.all(name).is_empty(), "{head:#?}");
        }
    }
    let line = gate.proxy.await_access_of("/page");
    assert_eq!(line["reason"], "upstream-broken", "{line}");
    assert_eq!(line["detail"], "no-switch", "{line}");
    // A declined handshake leaves no connection behind that a later request would meet.
    assert_eq!(origin.connections(), 6);
}

/// What the line of the tunnel that a bound has cut says, and the metric.
fn expect_cut(gate: &Running, reason: &str, status: u16) -> Value {
    let line = gate.proxy.await_access_of("/chat");
    assert_eq!(line["reason"], reason, "{line}");
    assert_eq!(line["stage"], "forward", "{line}");
    assert_eq!(line["decision"], "refused", "{line}");
    assert_eq!(line["http.response.status_code"], status, "{line}");
    let label = format!("reason=\"{reason}\"");
    gate.proxy
        .await_metric("portcullis_refusals_total", &[&label], 1.0);
    line
}

#[test]
fn a_silent_tunnel_is_closed() {
    let origin = mirror();
    // Over HTTP/2 the connection is in use for as long as the tunnel is: `keep_alive` does not count.
    let gate = Gate::before(&origin)
        .server("[server.limits]\nkeep_alive = \"500ms\"\nheader_timeout = \"500ms\"\n")
        .upstream("tunnel_idle = \"2s\"")
        .open();
    let mut client = open(&gate);
    client.send("a");
    assert_eq!(client.exactly(1), b"a");
    let since = Instant::now();
    client.expect_close();
    assert!(
        since.elapsed() > Duration::from_millis(1900),
        "{:?}",
        since.elapsed()
    );
    let line = expect_cut(&gate, "tunnel-idle", 101);
    assert_eq!(line["http.request.body.size"], 1, "{line}");
    assert_eq!(line["http.response.body.size"], 1, "{line}");
    origin.await_closed(1);

    let gate = Gate::before(&origin)
        .server("[server.limits]\nkeep_alive = \"500ms\"\nheader_timeout = \"500ms\"\n")
        .upstream("tunnel_idle = \"2s\"")
        .open();
    let account = stream(&gate, &json!({"bytes": "a", "to_the_end": true}));
    assert_eq!(account["ended"], "end", "{account}");
    assert_eq!(account["data"], "a", "{account}");
    assert!(account["seconds"].as_f64() > Some(1.5), "{account}");
    expect_cut(&gate, "tunnel-idle", 200);
}

#[test]
fn an_old_tunnel_is_closed() {
    let origin = mirror();
    let gate = Gate::before(&origin).upstream("tunnel_age = \"1s\"").open();
    let opened = Instant::now();
    let mut client = open(&gate);
    client.send("abc");
    assert_eq!(client.until_close(), b"abc");
    assert!(
        opened.elapsed() > Duration::from_millis(900),
        "{:?}",
        opened.elapsed()
    );
    expect_cut(&gate, "tunnel-age", 101);

    let gate = Gate::before(&origin).upstream("tunnel_age = \"1s\"").open();
    let account = stream(&gate, &json!({"bytes": "abc", "to_the_end": true}));
    assert_eq!(account["ended"], "end", "{account}");
    expect_cut(&gate, "tunnel-age", 200);
}

#[test]
fn a_tunnel_that_has_carried_enough_is_closed() {
    let origin = mirror();
    let gate = || {
        Gate::before(&origin)
            .upstream("tunnel_bytes = \"1KiB\"")
            .open()
    };
    let first = gate();
    let mut client = open(&first);
    client.send([b'a'; 1024]);
    assert_eq!(
        client.exactly(1024),
        [b'a'; 1024],
        "the limit itself passes"
    );
    client.send("EXCESS");
    client.expect_close();
    let line = expect_cut(&first, "tunnel-bytes", 101);
    assert_eq!(line["http.request.body.size"], 1024, "{line}");
    let second = gate();
    let bytes = "a".repeat(1024) + "EXCESS";
    let account = stream(&second, &json!({"bytes": bytes, "to_the_end": true}));
    assert!(account["ended"].is_string(), "{account}");
    expect_cut(&second, "tunnel-bytes", 200);
    origin.await_closed(2);
    for bytes in origin.bytes() {
        let text = String::from_utf8_lossy(&bytes);
        let (_, passed) = text.split_once("\r\n\r\n").expect("a whole head");
        assert_eq!(passed, "a".repeat(1024), "not one byte more");
    }
}

#[test]
fn who_has_said_all_may_still_be_answered() {
    let origin = switching(|conn| {
        let all = conn.until_close()?;
        conn.send(format!("{} bytes", all.len()))?;
        Err(io::ErrorKind::Other.into())
    });
    let gate = Gate::before(&origin).open();
    let mut client = open(&gate);
    client.send("hello");
    client.finish_sending();
    assert_eq!(client.until_close(), b"5 bytes");
    let line = gate.proxy.await_access_of("/chat");
    assert_eq!(line["decision"], "forwarded", "{line}");
    assert_eq!(line["reason"], Value::Null, "{line}");

    let account = stream(
        &gate,
        &json!({"path": "/two", "bytes": "hello", "finish": true, "to_the_end": true}),
    );
    assert_eq!(account["data"], "5 bytes", "{account}");
    assert_eq!(account["ended"], "end", "{account}");
    assert_eq!(gate.proxy.await_access_of("/two")["decision"], "forwarded");
}

/// A backend that never stops talking once it has switched.
fn flood() -> Origin {
    switching(|conn| {
        let block = vec![b'x'; 64 * 1024];
        // 256 MiB: more than any buffer on the way may hold.
        for _ in 0..4096 {
            conn.send(&block)?;
        }
        Ok(())
    })
}

#[test]
fn a_client_that_does_not_read_holds_little_memory_and_is_let_go() {
    let origin = flood();
    let gate = Gate::before(&origin)
        .server("[server.limits]\nbody_idle = \"1s\"\n")
        .upstream("tunnel_idle = \"1s\"")
        .open();
    gate.get("/warm-up");
    let before = gate.proxy.resident_kib();
    let tunnels: Vec<Client> = (0..4).map(|_| open(&gate)).collect();
    gate.proxy.await_metric(
        "portcullis_refusals_total",
        &["reason=\"tunnel-idle\""],
        4.0,
    );
    drop(tunnels);
    // On streams with a window of nothing: what waits in the tunnel cannot be taken back, so the connection goes.
    let account = stream(
        &gate,
        &json!({"window": 0, "streams": 8, "to_the_close": true}),
    );
    assert_eq!(account["statuses"], json!(vec!["200"; 8]), "{account}");
    assert_eq!(account["closed"], true, "{account}");
    assert_eq!(account["data"], "", "{account}");
    let grown = gate.proxy.resident_kib().saturating_sub(before);
    assert!(grown < 16 * 1024, "{grown} KiB for twelve tunnels");
    gate.proxy.await_metric(
        "portcullis_refusals_total",
        &["reason=\"tunnel-idle\""],
        12.0,
    );
}

#[test]
fn a_tunnel_on_a_stream_is_a_connection_of_its_client() {
    let origin = mirror();
    let gate = Gate::before(&origin)
        .server("[server.limits]\nconnections_per_client = 3\n")
        .open();
    let account = stream(&gate, &json!({"streams": 4}));
    assert_eq!(
        account["statuses"],
        json!(["200", "200", "503", "503"]),
        "{account}"
    );
    let line = gate
        .proxy
        .await_access("one too many", |line| line["reason"] == "overloaded");
    assert_eq!(line["http.response.status_code"], 503, "{line}");
    // They leave with their connection, and make room.
    eventually("there is room again", || {
        let count = gate
            .proxy
            .metric("portcullis_connections", &["state=\"tunnel\""]);
        (count == 0.0).then_some(())
    });
    let account = stream(&gate, &json!({"streams": 2}));
    assert_eq!(account["statuses"], json!(["200", "200"]), "{account}");
}

#[test]
fn a_tunnel_outlives_a_reload_and_has_until_the_end_of_the_drain() {
    let origin = mirror();
    let mut gate = Gate::before(&origin).server("drain = \"2s\"").open();
    let mut client = open(&gate);
    gate.reload_with(&PUBLIC.replace("\"app\"", "\"renamed\""));
    client.send("a");
    assert_eq!(client.exactly(1), b"a");
    let stopping = Instant::now();
    gate.proxy.signal("TERM");
    gate.proxy.await_talk("draining");
    client.send("b");
    assert_eq!(client.exactly(1), b"b");
    client.expect_close();
    assert!(stopping.elapsed() > Duration::from_millis(1500));
    gate.proxy.await_exit();
    let line = gate.proxy.await_access_of("/chat");
    assert_eq!(line["decision"], "aborted", "{line}");
}
