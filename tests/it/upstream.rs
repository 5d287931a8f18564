//! What becomes of a request when its backend fails (case b47) or misbehaves (attack a31).

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use crate::harness::eventually::eventually_pause;
use crate::harness::gate::{PUBLIC, Running, request};
use crate::harness::origin::{Received, answer};
use crate::harness::{Conn, Gate, Origin, Response, eventually};

/// Wants a problem with this status and type that says nothing of the backend.
#[track_caller]
fn expect_problem(response: &Response, status: u16, reason: &str, secret: &str) {
    response.expect(status);
    let problem = response.problem();
    assert_eq!(problem["type"], format!("urn:portcullis:problem:{reason}"));
    let all = String::from_utf8_lossy(&response.head.raw).into_owned() + &response.text();
    assert!(!all.contains(secret), "`{secret}` leaked:\n{all}");
}

/// A loopback address on which nothing listens.
fn dead_address() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a loopback port");
    listener.local_addr().expect("a bound listener").to_string()
}

/// The access line of a path carries the request id that the client was told.
#[track_caller]
fn expect_logged(gate: &Running, path: &str, response: &Response, reason: &str) {
    let line = gate.proxy.await_access_of(path);
    let instance = response.problem()["instance"].to_string();
    let id = line["request_id"].as_str().expect("a request id");
    assert!(instance.contains(id), "{instance} {id}");
    assert_eq!(line["reason"], reason, "{line}");
    assert_eq!(line["decision"], "failed", "{line}");
}

#[test]
fn b47_refused_is_502() {
    let address = dead_address();
    let gate = Gate::before_url(&format!("http://{address}")).open();
    let response = gate.get("/x");
    expect_problem(&response, 502, "upstream-unreachable", &address);
    expect_logged(&gate, "/x", &response, "upstream-unreachable");
}

#[test]
fn b47_an_unknown_name_is_502() {
    let gate = Gate::before_url("http://no-such-host.invalid:8000").open();
    let response = gate.get("/x");
    expect_problem(&response, 502, "upstream-unreachable", "no-such-host");
}

#[test]
fn b47_no_first_byte_in_time_is_504() {
    let origin = Origin::script(|conn| {
        conn.request()?;
        conn.until_close().map(drop)
    });
    let gate = Gate::before(&origin)
        .upstream("response_timeout = \"300ms\"")
        .open();
    let started = Instant::now();
    let response = gate.get("/x");
    expect_problem(
        &response,
        504,
        "upstream-timeout",
        &origin.address().to_string(),
    );
    assert!(started.elapsed() >= Duration::from_millis(300));
    expect_logged(&gate, "/x", &response, "upstream-timeout");
    origin.await_closed(1);
}

#[test]
fn b47_an_open_breaker_is_503_and_closes_again() {
    let address = dead_address();
    let gate = Gate::before_url(&format!("http://{address}"))
        .upstream("breaker = { failures = 3, open = \"1s\" }\nretries = { attempts = 0 }")
        .open();
    for _ in 0..3 {
        gate.get("/x").expect(502);
    }
    let response = gate.get("/open");
    expect_problem(&response, 503, "breaker-open", &address);
    let retry: u64 = response
        .header("retry-after")
        .and_then(|value| value.parse().ok())
        .expect("Retry-After in seconds");
    assert!((1..=2).contains(&retry), "{retry}");

    // The backend comes up on the same address: no restart is needed.
    let listener = TcpListener::bind(&address).expect("the same port again");
    let origin = Origin::script_on(listener, |conn: &mut Conn| {
        while conn.request()?.is_some() {
            conn.send(answer(200, &[], "up"))?;
        }
        Ok(())
    });
    eventually("the breaker lets pass again", || {
        (gate.get("/x").status == 200).then_some(())
    });
    assert!(!origin.requests().is_empty());
}

#[test]
fn b47_a_body_cut_in_the_middle_is_no_clean_end() {
    let cuts: [&[u8]; 2] = [
        b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n",
    ];
    for cut in cuts {
        let origin = Origin::script(move |conn| {
            conn.request()?;
            conn.send(cut)
        });
        let gate = Gate::before(&origin).open();
        let mut client = gate.https();
        client.send(request("GET", "/cut", &[]));
        let error = client.try_response().expect_err("no whole answer");
        assert_ne!(error.kind(), io::ErrorKind::WouldBlock, "it hangs");
        let line = gate.proxy.await_access_of("/cut");
        assert_eq!(line["http.response.status_code"], 200, "{line}");
        assert!(
            line["decision"] == "failed" || line["decision"] == "aborted",
            "{line}"
        );
        gate.proxy.await_metric(
            "portcullis_upstream_requests_total",
            &["upstream=\"legacy\""],
            1.0,
        );
    }
}

#[test]
fn a_backend_that_falls_silent_in_its_answer_is_no_clean_end() {
    let origin = Origin::script(|conn| {
        conn.request()?;
        conn.send("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")?;
        conn.until_close().map(drop)
    });
    let gate = Gate::before(&origin)
        .upstream("answer_idle = \"300ms\"")
        .open();
    let mut client = gate.https();
    client.send(request("GET", "/silent", &[]));
    let error = client.try_response().expect_err("no whole answer");
    assert_ne!(error.kind(), io::ErrorKind::WouldBlock, "it hangs");
    let line = gate.proxy.await_access_of("/silent");
    assert_eq!(line["decision"], "failed", "{line}");
    assert_eq!(line["reason"], "upstream-timeout", "{line}");
    assert_eq!(line["detail"], "body-stalled", "{line}");
    origin.await_closed(1);
}

#[test]
fn pauses_in_an_answer_that_goes_on_are_borne() {
    let origin = Origin::script(|conn| {
        conn.request()?;
        conn.send("HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\n")?;
        for _ in 0..8 {
            eventually_pause(Duration::from_millis(150));
            conn.send("x")?;
        }
        Ok(())
    });
    // Together they are longer than any one may be.
    let gate = Gate::before(&origin)
        .upstream("answer_idle = \"800ms\"")
        .open();
    assert_eq!(gate.get("/").expect(200).text(), "xxxxxxxx");
}

#[test]
fn b47_the_backend_may_go_and_come_back() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a loopback port");
    let address = listener.local_addr().expect("a bound listener");
    let serve = |conn: &mut Conn| {
        conn.request()?;
        conn.send(answer(200, &[("Connection", "close")], "up"))
    };
    let origin = Origin::script_on(listener, serve);
    let gate = Gate::before_url(&format!("http://{address}")).open();
    gate.get("/").expect(200);
    drop(origin);
    gate.get("/").expect(502);
    let listener = TcpListener::bind(address).expect("the same port again");
    let _origin = Origin::script_on(listener, serve);
    eventually("the backend is used again", || {
        (gate.get("/").status == 200).then_some(())
    });
}

#[test]
fn b47_a_failed_connect_is_retried_elsewhere_and_nothing_else_is() {
    let live = Origin::echo();
    let gate = Gate::before_url("http://127.0.0.1:1")
        .with(&format!(
            "[upstreams.pair]\nservers = [\"http://{}\", \"{}\"]\nbalance = \"round_robin\"\n\
             retries = {{ attempts = 1, budget = 1.0 }}\n\
             [[blueprints]]\nname = \"app\"\nhosts = [\"app.example\"]\nupstream = \"pair\"\nauth = \"public\"\n",
            dead_address(),
            live.url()
        ))
        .start();
    for _ in 0..4 {
        gate.get("/").expect(200);
    }

    let dropping = Origin::script(|conn| conn.request().map(drop));
    let gate = Gate::before(&dropping)
        .upstream("retries = { attempts = 3, budget = 1.0 }")
        .open();
    for method in ["POST", "GET"] {
        let before = dropping.requests().len();
        let response = gate.request(method, "/once", &[("Content-Length", "0")]);
        response.expect(502);
        assert_eq!(
            dropping.requests().len() - before,
            1,
            "{method} was sent again"
        );
    }
}

#[test]
fn a_kept_connection_that_the_backend_closed_costs_no_request() {
    let origin = Origin::script(|conn| {
        conn.request()?;
        conn.send(answer(200, &[], "once"))?;
        eventually_pause(Duration::from_millis(30));
        Ok(())
    });
    let gate = Gate::before(&origin).open();
    for _ in 0..5 {
        gate.get("/").expect(200);
        eventually_pause(Duration::from_millis(60));
    }
}

#[test]
fn health_checks_take_a_sick_server_out() {
    let sick = Origin::serve(|received| match received.head.target() {
        "/healthz" => answer(500, &[], "sick"),
        _ => answer(200, &[], "sick"),
    });
    let well = Origin::serve(|_| answer(200, &[], "well"));
    let gate = Gate::before_url("http://127.0.0.1:1")
        .with(&format!(
            "[upstreams.pair]\nservers = [\"{}\", \"{}\"]\nbalance = \"round_robin\"\n\
             health = {{ path = \"/healthz\", every = \"100ms\" }}\n\
             [[blueprints]]\nname = \"app\"\nhosts = [\"app.example\"]\nupstream = \"pair\"\nauth = \"public\"\n",
            sick.url(),
            well.url()
        ))
        .start();
    eventually("only the well one answers", || {
        (0..6).all(|_| gate.get("/").text() == "well").then_some(())
    });
}

/// Answers the first request with these bytes and says in the body of every other one that it is another.
fn once(bytes: &'static [u8]) -> Origin {
    Origin::script(move |conn: &mut Conn| {
        while let Some(received) = conn.request()? {
            if received.head.target() == "/first" {
                conn.send(bytes)?;
            } else {
                conn.send(answer(200, &[], "second"))?;
            }
        }
        Ok(())
    })
}

/// Sends `/first`, then `/second` on the same client connection (or a new one), which must get its own answer.
#[track_caller]
fn expect_second_is_safe(origin: &Origin, gate: &Running) {
    let second = gate.get("/second");
    assert_eq!(second.expect(200).text(), "second");
    let requests = origin.requests();
    let (first, last): (&Received, &Received) = (&requests[0], &requests[requests.len() - 1]);
    assert_ne!(
        first.connection, last.connection,
        "the upstream connection was used again"
    );
}

#[test]
fn a31_answers_that_are_framed_in_two_ways() {
    let answers: [&[u8]; 4] = [
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello!",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5, 6\r\n\r\nhello!",
        b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ];
    for bytes in answers {
        let origin = once(bytes);
        let gate = Gate::before(&origin)
            .upstream("retries = { attempts = 0 }")
            .open();
        let first = gate.get("/first");
        assert_eq!(
            first.status,
            502,
            "{:?}\n{}",
            String::from_utf8_lossy(bytes),
            String::from_utf8_lossy(&first.head.raw)
        );
        assert_eq!(first.headers("x-content-type-options"), ["nosniff"]);
        expect_second_is_safe(&origin, &gate);
    }
}

#[test]
fn a31_transfer_codings_that_nobody_knows() {
    for coding in ["xchunked", "chunked, identity", "gzip"] {
        let origin = Origin::script(move |conn: &mut Conn| {
            conn.request()?;
            conn.send(format!(
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: {coding}\r\n\r\n0\r\n\r\n"
            ))
        });
        let gate = Gate::before(&origin)
            .upstream("retries = { attempts = 0 }")
            .open();
        let first = gate.get("/first");
        // RFC 9112 §6.3: such a body ends with the connection.
        assert!(
            matches!(first.status, 200 | 502),
            "{coding}: {}",
            first.status
        );
        if first.status == 200 {
            assert_eq!(first.body, b"0\r\n\r\n", "{coding}");
        }
        gate.get("/second");
        assert_eq!(
            origin.connections(),
            2,
            "{coding}: the connection was used again"
        );
    }
}

#[test]
fn a31_answers_with_malformed_heads() {
    let answers: [&[u8]; 6] = [
        b"HTTP/1.1 200 OK\r\nX: a\nSet-Cookie: admin=1\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nX: a\0b\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nContent-Length : 2\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\n folded: x\r\nContent-Length: 2\r\n\r\nok",
        b"NONSENSE\r\n\r\n",
        b"HTTP/1.1 999999 Odd\r\nContent-Length: 0\r\n\r\n",
    ];
    for bytes in answers {
        let origin = once(bytes);
        let gate = Gate::before(&origin)
            .upstream("retries = { attempts = 0 }")
            .open();
        let first = gate.get("/first");
        let shown = String::from_utf8_lossy(bytes).into_owned();
        assert!(
            matches!(first.status, 200 | 502),
            "{shown:?}: {}",
            first.status
        );
        if first.status == 200 {
            // A tolerated head may pass only as one of its own: nothing that the line feed smuggled in counts raw.
            assert!(
                !first
                    .head
                    .raw
                    .windows(2)
                    .any(|pair| pair[1] == b'\n' && pair[0] != b'\r')
            );
            for cookie in first.headers("set-cookie") {
                assert!(
                    cookie.to_ascii_lowercase().contains("httponly"),
                    "{shown:?}"
                );
            }
        }
        assert_eq!(first.headers("x-content-type-options"), ["nosniff"]);
        let second = gate.get("/second");
        assert_eq!(second.expect(200).text(), "second");
    }
}

#[test]
fn a31_a_switch_nobody_asked_for() {
    let origin = once(
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
    );
    let gate = Gate::before(&origin).open();
    let first = gate.get("/first");
    first.expect(502);
    assert_eq!(first.headers("x-content-type-options"), ["nosniff"]);
    expect_second_is_safe(&origin, &gate);
}

#[test]
fn a31_more_bytes_than_announced_are_nobodys_answer() {
    let origin = once(
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\npoisoned",
    );
    let gate = Gate::before(&origin).open();
    let mut client = gate.https();
    let first = client.send(request("GET", "/first", &[])).response();
    if first.status == 200 {
        assert_eq!(first.text(), "ok");
    } else {
        first.expect(502);
    }
    for _ in 0..3 {
        expect_second_is_safe(&origin, &gate);
    }
}

#[test]
fn a31_connection_options_of_a_backend_remove_none_of_ours() {
    let origin = Origin::with_headers(&[
        (
            "Connection",
            "Strict-Transport-Security, X-Frame-Options, X-Hop",
        ),
        ("X-Hop", "1"),
        ("Keep-Alive", "timeout=5"),
        ("Proxy-Authenticate", "Basic"),
        ("Trailer", "X"),
        ("Upgrade", "h2c"),
    ]);
    let gate = Gate::before(&origin).open();
    let response = gate.get("/");
    if response.status == 200 {
        for name in ["x-hop", "keep-alive", "upgrade"] {
            assert!(response.headers(name).is_empty(), "{name}");
        }
        let connection = response
            .headers("connection")
            .join(",")
            .to_ascii_lowercase();
        assert!(!connection.contains("strict"), "{connection}");
    } else {
        response.expect(502);
    }
    assert_eq!(response.headers("strict-transport-security").len(), 1);
    assert_eq!(response.headers("x-frame-options"), ["DENY"]);
}

#[test]
fn a31_an_endless_head_is_cut() {
    let origin = Origin::script(|conn: &mut Conn| {
        conn.request()?;
        conn.send("HTTP/1.1 200 OK\r\n")?;
        for number in 0..20_000 {
            conn.send(format!("X-{number}: {}\r\n", "v".repeat(100)))?;
        }
        Ok(())
    });
    let gate = Gate::before(&origin).open();
    gate.get("/").expect(502);
    assert!(gate.proxy.resident_kib() < 200 * 1024);
}

#[test]
fn interim_answers_do_not_end_the_exchange() {
    let origin = Origin::fixed(
        [
            b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\n\r\n".as_slice(),
            &answer(200, &[], "final"),
        ]
        .concat(),
    );
    let gate = Gate::before(&origin).with(PUBLIC).start();
    let response = gate.get("/");
    assert_eq!(response.expect(200).text(), "final");
    assert_eq!(response.headers("x-content-type-options"), ["nosniff"]);
}

#[test]
fn a_backend_that_stops_reading_is_504() {
    let origin = Origin::script(|conn| {
        conn.head()?;
        eventually_pause(Duration::from_secs(8));
        Ok(())
    });
    let gate = Gate::before(&origin)
        .server("plaintext = true")
        .upstream("response_timeout = \"500ms\"")
        .open();
    let mut client = TcpStream::connect(gate.proxy.http()).expect("a connection");
    let patience = Some(Duration::from_secs(6));
    client.set_read_timeout(patience).expect("a time");
    let mut sender = client.try_clone().expect("a second handle");
    // More than fits into all buffers on the way; the rest never gets out.
    let sending = std::thread::spawn(move || {
        let head = b"POST /x HTTP/1.1\r\nHost: app.example\r\nContent-Length: 9000000\r\n\r\n";
        let _ = sender.write_all(&[head.as_slice(), &vec![b'x'; 9_000_000]].concat());
    });
    let mut head = [0; 12];
    client
        .read_exact(&mut head)
        .expect("an answer while the backend sleeps");
    assert_eq!(&head, b"HTTP/1.1 504");
    client.shutdown(Shutdown::Both).expect("an open connection");
    sending.join().expect("the sender ends with its connection");
}

#[test]
fn a_client_that_pauses_in_its_body_is_not_the_backends_fault() {
    let origin = Origin::echo();
    let gate = Gate::before(&origin)
        .upstream("response_timeout = \"300ms\"")
        .open();
    let mut client = gate.https();
    client.send("POST /x HTTP/1.1\r\nHost: app.example\r\nContent-Length: 6\r\n\r\nabc");
    eventually_pause(Duration::from_millis(1200));
    client.send("def").response().expect(200);
}

#[test]
fn a_client_that_spoils_its_body_does_not_vouch_for_the_backend() {
    let origin = Origin::script(|conn| {
        conn.head()?;
        conn.until_close().map(drop)
    });
    let gate = Gate::before(&origin)
        .server("trusted_proxies = [\"127.0.0.0/8\"]")
        .upstream(
            "response_timeout = \"200ms\"\nretries = { attempts = 0 }\n\
             breaker = { failures = 2, open = \"1m\" }",
        )
        .defaults("rate_limits = []\nbody = { bytes = \"1KiB\" }")
        .open();
    let other = [("X-Forwarded-For", "203.0.113.2")];
    gate.get("/x").expect(504);
    let chunk = format!("400\r\n{}\r\n", "a".repeat(0x400));
    gate.exchange(format!(
        "POST /x HTTP/1.1\r\nHost: app.example\r\nTransfer-Encoding: chunked\r\n\r\n{chunk}{chunk}0\r\n\r\n"
    ))
    .expect(413);
    gate.get_with("/x", &other).expect(504);
    gate.get("/x").expect(503);
}

#[test]
fn a_server_is_used_again_once_nobody_checks_it() {
    let well = Origin::serve(|_| answer(200, &[], "well"));
    let ill = Origin::serve(|request| {
        if request.head.line.contains("/healthz") {
            answer(500, &[], "")
        } else {
            answer(200, &[], "ill")
        }
    });
    let upstream = |health: &str| {
        format!(
            "[upstreams.pair]\nservers = [\"{}\", \"{}\"]\nbalance = \"round_robin\"\n{health}\n{}",
            well.url(),
            ill.url(),
            PUBLIC.replace("legacy", "pair")
        )
    };
    let mut gate = Gate::before(&well)
        .with(&upstream(
            "health = { path = \"/healthz\", every = \"1s\" }",
        ))
        .start();
    let meets = |gate: &Running, word: &str| (0..2).any(|_| gate.get("/").text() == word);
    eventually("the ill server is left out", || {
        (!meets(&gate, "ill")).then_some(())
    });
    gate.reload_with(&upstream(""));
    eventually("it is asked again", || meets(&gate, "ill").then_some(()));
}
