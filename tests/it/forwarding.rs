//! The way to the backend and back: streams, tunnels, HTTP/2, sockets, what the backend is told about the client.

use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::harness::eventually::{eventually_pause, eventually_within};
use crate::harness::gate::{PUBLIC, Running, request};
use crate::harness::origin::{Received, answer};
use crate::harness::python::h2;
use crate::harness::{Ca, Client, Conn, Gate, Origin, TlsOptions, eventually};

/// One instruction to the HTTP/2 client, with where to go.
fn h2_do(gate: &Running, mut instruction: Value) -> Value {
    instruction["address"] = gate.proxy.https().to_string().into();
    instruction["ca"] = gate
        .directory
        .path()
        .join("ca.pem")
        .display()
        .to_string()
        .into();
    h2(&instruction)
}

#[test]
fn an_answer_streams_part_by_part() {
    let origin = Origin::script(|conn: &mut Conn| {
        conn.request()?;
        conn.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n")?;
        // The second part is sent only when the client says, on a later request, that it has the first.
        conn.until_close().map(drop)
    });
    let gate = Gate::before(&origin).open();
    let mut client = gate.https();
    client.send(request("GET", "/", &[]));
    assert!(client.response_head().line.contains("200"));
    assert_eq!(client.chunk().expect("the first part"), b"first");
    drop(client);
    origin.await_closed(1);
}

#[test]
fn a_request_streams_part_by_part() {
    let origin = Origin::script(|conn: &mut Conn| {
        let head = conn.head()?.expect("a request");
        conn.note(Received {
            head,
            body: Vec::new(),
            connection: conn.index,
        });
        let first = conn.chunk()?;
        // Answers what it has got while the rest is still to come.
        conn.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")?;
        conn.send(format!(
            "{:x}\r\n{}\r\n",
            first.len(),
            String::from_utf8_lossy(&first)
        ))?;
        let second = conn.chunk()?;
        conn.send(format!(
            "{:x}\r\n{}\r\n",
            second.len(),
            String::from_utf8_lossy(&second)
        ))?;
        conn.chunk()?;
        conn.send("0\r\n\r\n")
    });
    let gate = Gate::before(&origin).open();
    let mut client = gate.https();
    client.send(
        "POST / HTTP/1.1\r\nHost: app.example\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n",
    );
    assert!(client.response_head().line.contains("200"));
    assert_eq!(client.chunk().expect("the first part back"), b"first");
    client.send("6\r\nsecond\r\n");
    assert_eq!(client.chunk().expect("the second part back"), b"second");
    client.send("0\r\n\r\n");
    assert_eq!(client.chunk().expect("the end"), b"");
}

#[test]
fn large_bodies_pass_whole_both_ways_and_stay_out_of_memory() {
    const SIZE: usize = 64 * 1024 * 1024;
    let origin = Origin::script(|conn: &mut Conn| {
        while conn.head()?.is_some() {
            let mut left = SIZE;
            while left > 0 {
                let block = left.min(1 << 20);
                conn.exactly(block)?;
                left -= block;
            }
            conn.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {SIZE}\r\n\r\n"))?;
            for _ in 0..SIZE >> 20 {
                conn.send(vec![b'y'; 1 << 20])?;
            }
        }
        Ok(())
    });
    let gate = Gate::before(&origin)
        .with("[server.limits]\nbody_bytes = \"128MiB\"\n")
        .open();
    let before = gate.proxy.resident_kib();
    let mut client = gate.https();
    client.send(format!(
        "POST / HTTP/1.1\r\nHost: app.example\r\nContent-Length: {SIZE}\r\n\r\n"
    ));
    for _ in 0..SIZE >> 20 {
        client.send(vec![b'x'; 1 << 20]);
    }
    let head = client.response_head();
    assert!(head.line.contains("200"), "{head:#?}");
    for _ in 0..SIZE >> 20 {
        let block = client.exactly(1 << 20);
        assert!(block.iter().all(|&byte| byte == b'y'));
    }
    let grown = gate.proxy.resident_kib().saturating_sub(before);
    assert!(grown < 16 * 1024, "grew by {grown} KiB");
}

#[test]
fn a_client_that_goes_away_frees_its_backend() {
    let origin = Origin::script(|conn: &mut Conn| {
        conn.request()?;
        conn.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")?;
        loop {
            conn.send("5\r\nhello\r\n")?;
            eventually_pause(Duration::from_millis(5));
        }
    });
    let gate = Gate::before(&origin).open();
    let mut client = gate.https();
    client.send(request("GET", "/gone", &[]));
    client.response_head();
    drop(client);
    origin.await_closed(1);
    let line = gate.proxy.await_access_of("/gone");
    assert_eq!(line["decision"], "aborted", "{line}");
}

#[test]
fn connections_to_the_backend_are_kept() {
    let origin = Origin::echo();
    let gate = Gate::before(&origin).open();
    let mut client = gate.https();
    for _ in 0..10 {
        client.send(request("GET", "/", &[])).response().expect(200);
    }
    assert_eq!(origin.connections(), 1);
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let origin = Origin::echo();
    let gate = Gate::before(&origin).open();
    let mut client = gate.https();
    client.send(
        (0..5)
            .map(|number| request("GET", &format!("/{number}"), &[]))
            .collect::<String>(),
    );
    for number in 0..5 {
        let response = client.response();
        assert_eq!(response.json()["target"], format!("/{number}"));
    }
}

#[test]
fn http_1_0_clients_are_served_and_closed() {
    let origin = Origin::script(|conn: &mut Conn| {
        while conn.request()?.is_some() {
            conn.send(
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
            )?;
        }
        Ok(())
    });
    let gate = Gate::before(&origin).open();
    let mut client = gate.https();
    client.send("GET / HTTP/1.0\r\nHost: app.example\r\n\r\n");
    let response = client.response();
    assert_eq!(response.expect(200).text(), "hello");
    assert!(response.headers("transfer-encoding").is_empty());
    client.expect_close();
    assert_eq!(origin.only_request().head.line, "GET / HTTP/1.1");
}

const WEBSOCKET: [(&str, &str); 5] = [
    ("Connection", "Upgrade"),
    ("Upgrade", "websocket"),
    ("Sec-WebSocket-Version", "13"),
    ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ("X-User", "root"),
];

#[test]
fn a_websocket_is_a_tunnel_both_ways() {
    let origin = Origin::script(|conn: &mut Conn| {
        conn.request()?;
        conn.send(
            "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\nhello",
        )?;
        loop {
            let byte = conn.exactly(1)?;
            conn.send(byte.to_ascii_uppercase())?;
        }
    });
    let gate = Gate::before(&origin).open();
    let mut client = gate.https();
    client.send(request("GET", "/chat", &WEBSOCKET));
    let response = client.response();
    response.expect(101);
    assert_eq!(
        response.header("sec-websocket-accept"),
        Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo=")
    );
    assert_eq!(
        response
            .header("upgrade")
            .map(str::to_ascii_lowercase)
            .as_deref(),
        Some("websocket")
    );
    assert_eq!(client.exactly(5), b"hello");
    client.send("abc");
    assert_eq!(client.exactly(3), b"ABC");
    let head = origin.only_request().head;
    assert_eq!(
        head.get("upgrade").map(str::to_ascii_lowercase).as_deref(),
        Some("websocket")
    );
    assert!(head.all("x-user").is_empty());
    drop(client);
    origin.await_closed(1);
    let line = gate.proxy.await_access_of("/chat");
    assert_eq!(line["http.response.status_code"], 101, "{line}");
}

#[test]
fn http2_is_spoken_to_real_clients() {
    let origin = Origin::echo();
    let gate = Gate::guarding(&origin).start();
    let account = h2_do(
        &gate,
        json!({"do": "fetch", "requests": [
            {"path": "/a?b=c", "headers": {"Cookie": "a=1; b=2", "X-User": "root"}},
            {"path": "/upload", "method": "POST", "body": "hello"},
            {"path": "/admin"},
        ]}),
    );
    let answers = account["answers"].as_array().expect("answers");
    for (answer, status) in answers.iter().zip([200, 200, 401]) {
        assert_eq!(answer["status"], status, "{answer}");
        assert_eq!(answer["version"], "HTTP/2", "{answer}");
        let nosniff = json!(["x-content-type-options", "nosniff"]);
        let headers = answer["headers"].as_array().expect("headers");
        assert_eq!(
            headers.iter().filter(|header| **header == nosniff).count(),
            1
        );
        assert!(
            !headers.iter().any(|header| header[0] == "connection"),
            "{answer}"
        );
    }
    let requests = origin.requests();
    assert_eq!(requests.len(), 2);
    assert_eq!(requests[0].head.line, "GET /a?b=c HTTP/1.1");
    assert_eq!(requests[0].head.all("host"), ["app.example"]);
    assert_eq!(requests[0].head.all("cookie"), ["a=1; b=2"]);
    assert!(requests[0].head.all("x-user").is_empty());
    assert_eq!(requests[1].body, b"hello");
    let line = gate.proxy.await_access_of("/upload");
    assert_eq!(line["network.protocol.version"], "2", "{line}");
}

#[test]
fn http2_cookie_crumbs_are_joined_for_the_backend() {
    let origin = Origin::echo();
    let gate = Gate::before(&origin).open();
    h2_do(
        &gate,
        json!({"do": "raw", "fields": [
            [":method", "GET"], [":scheme", "https"], [":path", "/"], [":authority", "app.example"],
            ["cookie", "a=1"], ["cookie", "b=2"], ["cookie", "c=3"],
        ]}),
    );
    assert_eq!(origin.only_request().head.all("cookie"), ["a=1; b=2; c=3"]);
}

#[test]
fn many_http2_streams_share_a_connection() {
    let origin = Origin::echo();
    let gate = Gate::before(&origin).workers(2).open();
    let account = h2_do(
        &gate,
        json!({"do": "concurrent", "path": "/many", "count": 40}),
    );
    let statuses = account["statuses"].as_array().expect("statuses");
    assert_eq!(statuses.len(), 40);
    assert!(
        statuses
            .iter()
            .all(|status| *status == json!([200, "HTTP/2"])),
        "{account}"
    );
}

#[test]
fn http2_answers_stream_part_by_part() {
    let origin = Origin::script(|conn: &mut Conn| {
        conn.request()?;
        conn.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")?;
        for _ in 0..3 {
            conn.send("5\r\nhello\r\n")?;
            eventually_pause(Duration::from_millis(400));
        }
        conn.send("0\r\n\r\n")
    });
    let gate = Gate::before(&origin).open();
    let account = h2_do(&gate, json!({"do": "stream", "path": "/"}));
    let times: Vec<f64> = account["times"]
        .as_array()
        .expect("times")
        .iter()
        .filter_map(Value::as_f64)
        .collect();
    assert!(times.len() >= 3, "{times:?}");
    assert!(
        times[times.len() - 1] - times[0] > 0.6,
        "held back: {times:?}"
    );
}

#[test]
fn a19_continuation_flood_is_cut() {
    let origin = Origin::echo();
    let gate = Gate::before(&origin).open();
    let account = h2_do(&gate, json!({"do": "continuation_flood", "frames": 2000}));
    let ended = account["closed"] == true
        || account["goaway"].is_number()
        || account["streams"]["1"].is_object();
    assert!(ended, "{account}");
    assert_ne!(account["streams"]["1"]["status"], "200", "{account}");
    assert!(gate.proxy.resident_kib() < 200 * 1024);
    origin.expect_untouched();
    gate.get("/").expect(200);
}

#[test]
fn a18_reset_floods_are_cut_whoever_resets() {
    let origin = Origin::echo();
    let gate = Gate::before(&origin).open();
    for made_by in ["us", "the peer"] {
        let account = h2_do(
            &gate,
            json!({"do": "rapid_reset", "made_by": made_by, "count": 5000}),
        );
        assert!(
            account["goaway"].is_number() || account["closed"] == true,
            "resets made by {made_by}: {account}"
        );
        gate.get("/after").expect(200);
    }
    assert!(gate.proxy.resident_kib() < 200 * 1024);
}

#[test]
fn a20_crumbs_by_the_thousand_are_refused() {
    let origin = Origin::echo();
    let gate = Gate::before(&origin).open();
    gate.get("/").expect(200);
    let before = gate.proxy.resident_kib();
    let account = h2_do(
        &gate,
        json!({"do": "crumbs", "streams": 50, "fields": 4000}),
    );
    let streams = account["streams"].as_object().expect("streams");
    for (stream, outcome) in streams {
        assert!(
            outcome["reset"].is_number() || outcome["status"] == "431",
            "stream {stream}: {outcome}"
        );
    }
    assert!(
        !streams.is_empty() || account["goaway"].is_number() || account["closed"] == true,
        "{account}"
    );
    let grown = gate.proxy.resident_kib().saturating_sub(before);
    assert!(grown < 20 * 1024, "grew by {grown} KiB");
    assert_eq!(origin.requests().len(), 1);
}

/// Answers for ever, as fast as it is read.
fn endless() -> Origin {
    Origin::script(|conn: &mut Conn| {
        conn.request()?;
        conn.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")?;
        let chunk = [b"4000\r\n".as_slice(), &[b'x'; 0x4000], b"\r\n"].concat();
        loop {
            conn.send(&chunk)?;
        }
    })
}

#[test]
fn a20_an_http2_window_that_never_opens_is_given_up() {
    let origin = endless();
    let gate = Gate::before(&origin)
        .with("[server.limits]\nbody_idle = \"1s\"\n")
        .open();
    let account = h2_do(&gate, json!({"do": "closed_window"}));
    assert!(account["ended"].is_string(), "{account}");
    assert!(
        account["seconds"]
            .as_f64()
            .is_some_and(|seconds| seconds < 10.0),
        "{account}"
    );
    origin.await_closed(1);
}

#[test]
fn a21_a_reader_that_never_reads_is_given_up() {
    let origin = endless();
    let gate = Gate::before(&origin)
        .with("[server.limits]\nbody_idle = \"1s\"\n")
        .open();
    let mut client = gate.https();
    client.send(request("GET", "/stalled", &[]));
    origin.await_closed(1);
    let line = gate.proxy.await_access_of("/stalled");
    assert_ne!(line["decision"], "forwarded", "{line}");
}

#[test]
fn a21_readers_that_never_read_hold_two_mib_at_most() {
    const CLIENTS: u64 = 24;
    let sent = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&sent);
    let origin = Origin::script(move |conn: &mut Conn| {
        while conn.head()?.is_some() {
            conn.send("HTTP/1.1 200 OK\r\nContent-Length: 104857600\r\n\r\n")?;
            for _ in 0..1600 {
                conn.send(vec![b'x'; 1 << 16])?;
                counted.fetch_add(1, Ordering::Relaxed);
            }
        }
        Ok(())
    });
    let gate = Gate::before(&origin).open();
    let mut clients: Vec<_> = (0..CLIENTS).map(|_| gate.https()).collect();
    let before = gate.proxy.resident_kib();
    for client in &mut clients {
        client.send(request("GET", "/", &[]));
        assert!(client.response_head().line.contains("200"));
    }
    // Every buffer on the way is full once the backend gets nothing more out of its hands.
    let mut last = 0;
    eventually_within(Duration::from_mins(1), "the backend is held up", || {
        eventually_pause(Duration::from_millis(500));
        let now = sent.load(Ordering::Relaxed);
        (now == std::mem::replace(&mut last, now)).then_some(())
    });
    let grown = gate.proxy.resident_kib().saturating_sub(before);
    assert!(grown < CLIENTS * 2048, "grew by {grown} KiB");
    // Nothing was lost or given up: it goes on where a client reads on.
    let mut reader = clients.swap_remove(0);
    assert_eq!(reader.exactly(8 << 20).len(), 8 << 20);
}

#[test]
fn idle_connections_are_closed() {
    let origin = Origin::echo();
    let gate = Gate::before(&origin)
        .with("[server.limits]\nkeep_alive = \"300ms\"\n")
        .open();
    let mut client = gate.https();
    client.send(request("GET", "/", &[])).response().expect(200);
    client.expect_close();
}

#[test]
fn servers_take_turns_or_keep_their_clients() {
    let servers: Vec<_> = (0..3)
        .map(|number| Origin::fixed(answer(200, &[], number.to_string())))
        .collect();
    let list: Vec<_> = servers
        .iter()
        .map(|server| format!("{:?}", server.url()))
        .collect();
    let ask = |balance: &str, times: usize| {
        let gate = Gate::before(&servers[0])
            .server("trusted_proxies = [\"127.0.0.0/8\"]")
            .with(&format!(
                "[upstreams.many]\nservers = [{}]\nbalance = \"{balance}\"\n\
                 [[blueprints]]\nname = \"app\"\nhosts = [\"app.example\"]\nupstream = \"many\"\nauth = \"public\"\n",
                list.join(", ")
            ))
            .start();
        (0..times)
            .map(|number| {
                let client = format!("203.0.113.{}", number % 8);
                gate.get_with("/", &[("X-Forwarded-For", &client)]).text()
            })
            .collect::<Vec<_>>()
    };
    let shares = |answers: &[String]| -> Vec<usize> {
        let share = |number: usize| {
            let name = number.to_string();
            answers.iter().filter(|answer| **answer == name).count()
        };
        (0..3).map(share).collect()
    };
    assert_eq!(shares(&ask("round_robin", 24)), [8, 8, 8]);
    // A third of 240 is 80, give or take 7.3: more than five of those away is no chance.
    let drawn = shares(&ask("p2c", 240));
    assert!(
        drawn.iter().all(|share| (40..=120).contains(share)),
        "{drawn:?}"
    );
    let answers = ask("hash:client", 24);
    for client in 0..8 {
        assert_eq!(answers[client], answers[client + 8], "{answers:?}");
        assert_eq!(answers[client], answers[client + 16], "{answers:?}");
    }
    assert!(
        answers.iter().any(|answer| *answer != answers[0]),
        "{answers:?}"
    );
}

#[test]
fn a_unix_socket_is_a_backend() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path().join("app.sock");
    let origin = Origin::unix(&path, |received| {
        answer(200, &[], received.head.target().as_bytes())
    });
    let gate = Gate::before_url(&format!("unix:{}", path.display())).open();
    assert_eq!(gate.get("/x?y=z").expect(200).text(), "/x?y=z");
    assert_eq!(origin.only_request().head.all("host"), ["app.example"]);
}

#[test]
fn an_https_backend_is_checked() {
    let gate_ca_directory = tempfile::tempdir().expect("a temporary directory");
    let ca = Ca::new(gate_ca_directory.path());
    let leaf = ca.server("backend", &["localhost"]);
    let origin = Origin::tls(&leaf, |_| answer(200, &[], "secret"));
    let url = format!("https://localhost:{}", origin.address().port());
    let trust = gate_ca_directory
        .path()
        .join("ca.pem")
        .display()
        .to_string();
    let trusting = Gate::before_url(&url)
        .environment("SSL_CERT_FILE", &trust)
        .open();
    assert_eq!(trusting.get("/").expect(200).text(), "secret");
    let wary = Gate::before_url(&url).open();
    wary.get("/").expect(502);
    assert_eq!(origin.requests().len(), 1);
}

#[test]
fn trusted_proxies_are_believed_and_no_further() {
    let origin = Origin::echo();
    let gate = Gate::before(&origin)
        .server("trusted_proxies = [\"127.0.0.0/8\", \"10.0.0.0/8\"]")
        .open();
    let cases = [
        ("203.0.113.7", "203.0.113.7"),
        ("203.0.113.7, 10.1.1.1", "203.0.113.7"),
        ("198.51.100.1, 203.0.113.7, 10.1.1.1", "203.0.113.7"),
        ("127.0.0.1, 203.0.113.7", "203.0.113.7"),
    ];
    for (number, (sent, client)) in cases.iter().enumerate() {
        let path = format!("/{number}");
        gate.get_with(&path, &[("X-Forwarded-For", sent)])
            .expect(200);
        let line = gate.proxy.await_access_of(&path);
        assert_eq!(line["client.address"], *client, "{sent}: {line}");
        assert_eq!(line["network.peer.address"], "127.0.0.1", "{line}");
        let told = origin.last_request().head;
        let list = told.get("x-forwarded-for").expect("a list").to_owned();
        assert!(list.contains(client), "{sent}: {list}");
        if sent.starts_with("198.51.100.1") {
            assert!(
                !list.starts_with("198.51.100.1") || list.contains("203.0.113.7"),
                "{list}"
            );
        }
    }
    gate.get_with("/forwarded", &[("Forwarded", "for=203.0.113.9;proto=http")])
        .expect(200);
    let line = gate.proxy.await_access_of("/forwarded");
    assert_eq!(line["client.address"], "203.0.113.9", "{line}");
}

#[test]
fn the_trace_of_a_trusted_proxy_goes_on() {
    let origin = Origin::echo();
    let gate = Gate::before(&origin)
        .server("trusted_proxies = [\"127.0.0.0/8\"]")
        .open();
    let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
    let sent = format!("00-{trace}-00f067aa0ba902b7-01");
    gate.get_with("/sound", &[("traceparent", &sent)])
        .expect(200);
    let told = traceparent(&origin);
    assert!(told.starts_with(&format!("00-{trace}-")), "{told}");
    assert_ne!(told, sent, "a span of our own");
    let line = gate.proxy.await_access_of("/sound");
    assert_eq!(line["trace_id"], trace, "{line}");
    let span = line["span_id"].as_str().expect("a span");
    assert!(told.contains(span), "{told} {line}");

    for broken in [
        "00-0-0-01",
        "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
        "nonsense",
        "",
    ] {
        gate.get_with("/broken", &[("traceparent", broken)])
            .expect(200);
        expect_own_trace(&traceparent(&origin), broken);
    }
}

#[test]
fn the_trace_of_a_stranger_is_not_taken_over() {
    let origin = Origin::echo();
    let gate = Gate::before(&origin).open();
    let sent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    gate.get_with("/", &[("traceparent", sent)]).expect(200);
    expect_own_trace(&traceparent(&origin), "4bf92f3577b34da6a3ce929d0e0e4736");
}

fn traceparent(origin: &Origin) -> String {
    let head = origin.last_request().head;
    head.get("traceparent").expect("a traceparent").to_owned()
}

#[track_caller]
fn expect_own_trace(told: &str, not: &str) {
    let parts: Vec<_> = told.split('-').collect();
    assert_eq!(parts.len(), 4, "{told}");
    assert_eq!((parts[1].len(), parts[2].len()), (32, 16), "{told}");
    assert_ne!(parts[1], "0".repeat(32));
    assert_ne!(parts[1], not);
}

#[test]
fn a_request_id_is_ours_unless_it_comes_from_a_trusted_proxy() {
    let origin = Origin::echo();
    let gate = Gate::before(&origin).open();
    gate.get_with("/", &[("X-Request-Id", "theirs")])
        .expect(200);
    let first = origin
        .last_request()
        .head
        .get("x-request-id")
        .expect("an id")
        .to_owned();
    gate.get("/").expect(200);
    let second = origin
        .last_request()
        .head
        .get("x-request-id")
        .expect("an id")
        .to_owned();
    assert_ne!(first, "theirs");
    assert_ne!(first, second);
}

#[test]
fn a34_trailers_are_dropped() {
    let origin = Origin::echo();
    let gate = Gate::before(&origin).open();
    let response = gate.exchange(
        "POST / HTTP/1.1\r\nHost: app.example\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\
         X-User: root\r\nAuthorization: Basic cm9vdDo=\r\nContent-Length: 3\r\n\r\n",
    );
    assert!(matches!(response.status, 200 | 400), "{}", response.status);
    let seen = String::from_utf8_lossy(&origin.bytes().concat()).into_owned();
    assert!(
        !seen.contains("root") && !seen.contains("cm9vdDo"),
        "{seen}"
    );
}

#[test]
fn ten_thousand_routes_cost_no_more_than_ten() {
    let origin = Origin::fixed(answer(200, &[], "ok"));
    let gate_with = |routes: usize| {
        let mut text = String::from(
            "[[blueprints]]\nname = \"many\"\nhosts = [\"app.example\"]\nupstream = \"legacy\"\nauth = \"public\"\nunmatched = \"refuse\"\n",
        );
        for number in 0..routes {
            let _ = write!(
                text,
                "[[blueprints.routes]]\nname = \"r{number}\"\npath = \"/r{number}/{{id}}/x\"\nmethods = [\"GET\"]\n"
            );
        }
        Gate::before(&origin).with(&text).start()
    };
    let time = |gate: &Running, routes: usize| {
        let mut client = gate.https();
        let path = format!("/r{}/7/x", routes - 1);
        client
            .send(request("GET", &path, &[]))
            .response()
            .expect(200);
        let started = Instant::now();
        for _ in 0..300 {
            client
                .send(request("GET", &path, &[]))
                .response()
                .expect(200);
        }
        started.elapsed()
    };
    let (few, many) = (gate_with(10), gate_with(10_000));
    let (short, long) = (time(&few, 10), time(&many, 10_000));
    assert!(
        long < short * 3 + Duration::from_millis(200),
        "10 routes: {short:?}, 10,000 routes: {long:?}"
    );
    many.get("/r9999/7").expect(404);
    assert_eq!(
        many.request("PUT", "/r9999/7/x", &[("Content-Length", "0")])
            .status,
        405
    );
}

#[test]
fn hosts_and_patterns_pick_the_route() {
    let origin = Origin::echo();
    let other = Origin::fixed(answer(200, &[], "other"));
    let gate = Gate::before(&origin);
    let leaf = gate.ca().server("wild", &["*.shop.example", "app.example"]);
    let gate = gate
        .tls(&leaf.section())
        .with(&format!(
            r#"
[upstreams.other]
servers = ["{}"]

[[blueprints]]
name = "exact"
hosts = ["app.example"]
upstream = "legacy"
auth = "public"

[[blueprints]]
name = "wild"
hosts = ["*.shop.example"]
upstream = "other"
auth = "public"

[[blueprints]]
name = "users"
hosts = ["app.example"]
prefix = "/users"
upstream = "other"
auth = "public"
unmatched = "refuse"
[[blueprints.routes]]
name = "one"
path = "/{{id}}"
methods = ["GET"]
[[blueprints.routes]]
name = "files"
path = "/{{id}}/files/{{*rest}}"
"#,
            other.url()
        ))
        .start();
    let options = TlsOptions::new(&gate.ca, "app.example");
    let ask = |host: &str, path: &str| {
        Client::tls(gate.proxy.https(), &options)
            .send(format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n"))
            .response()
    };
    assert_eq!(ask("app.example", "/x").json()["target"], "/x");
    assert_eq!(ask("one.shop.example", "/x").text(), "other");
    assert_eq!(ask("app.example", "/users/7").text(), "other");
    assert_eq!(other.last_request().head.target(), "/users/7");
    assert_eq!(ask("app.example", "/users/7/files/a/b").text(), "other");
    ask("app.example", "/users/7/other").expect(404);
    assert_eq!(ask("app.example", "/usersx").json()["target"], "/usersx");
    let line = gate.proxy.await_access_of("/users/7");
    assert_eq!(line["blueprint"], "users", "{line}");
    assert!(line["http.route"].to_string().contains("{id}"), "{line}");
}

#[test]
fn a_panic_free_proxy_outlives_nonsense() {
    let origin = Origin::echo();
    let mut gate = Gate::before(&origin).with(PUBLIC).start();
    for seed in 0_u8..40 {
        let noise: Vec<u8> = (0..200_u8)
            .map(|place| place.wrapping_mul(31).wrapping_add(seed.wrapping_mul(57)))
            .collect();
        let mut client = gate.https();
        client.send(&noise).finish_sending();
        client.until_close();
        let mut plain = gate.http();
        plain.send(&noise).finish_sending();
        plain.until_close();
    }
    assert!(gate.proxy.is_running());
    gate.get("/").expect(200);
    eventually("no panic was reported", || {
        (!gate.proxy.talk().contains("panicked")).then_some(())
    });
}
