//! What keeps an upstream of several servers going: breakers, outliers, slow start, names, deadlines, backpressure.

use std::collections::HashMap;
use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::harness::eventually::{eventually_pause, eventually_within};
use crate::harness::gate::{PUBLIC, Running};
use crate::harness::origin::answer;
use crate::harness::proxy::portcullis_verb;
use crate::harness::python::{app, run};
use crate::harness::{Conn, Gate, Origin, eventually};

/// A gate before several servers, whose clients say who they are.
fn before_all(servers: &[String], keys: &str) -> Running {
    Gate::before_url("http://127.0.0.1:1")
        .server("trusted_proxies = [\"127.0.0.0/8\"]")
        .with(&format!(
            "[upstreams.several]\nservers = {servers:?}\n{keys}\n{}",
            PUBLIC.replace("legacy", "several")
        ))
        .start()
}

/// What a client at this address gets.
fn ask(gate: &Running, client: u8, path: &str) -> (u16, String) {
    let client = format!("203.0.113.{client}");
    let response = gate.get_with(path, &[("X-Forwarded-For", &client)]);
    (response.status, response.text())
}

/// Answers with its name, a connection a request.
fn named(name: &'static str) -> Origin {
    Origin::script(says(name))
}

fn says(name: &'static str) -> impl Fn(&mut Conn) -> std::io::Result<()> + Send + Sync {
    move |conn| {
        conn.request()?;
        conn.send(answer(200, &[("Connection", "close")], name))
    }
}

/// A loopback address on which nothing listens.
fn dead_address() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a loopback port");
    listener.local_addr().expect("a bound listener")
}

#[test]
fn a_half_open_breaker_lets_exactly_one_probe_pass() {
    let address = dead_address();
    let gate = Gate::before_url(&format!("http://{address}"))
        .workers(2)
        .upstream(
            "breaker = { failures = 3, open = \"200ms\" }\nretries = { attempts = 0 }\n\
             response_timeout = \"15s\"",
        )
        .open();
    for _ in 0..3 {
        gate.get("/x").expect(502);
    }
    let released = Arc::new(AtomicBool::new(false));
    let listener = TcpListener::bind(address).expect("the same port again");
    let origin = Origin::script_on(listener, {
        let released = Arc::clone(&released);
        move |conn: &mut Conn| {
            while conn.request()?.is_some() {
                while !released.load(Ordering::SeqCst) {
                    eventually_pause(Duration::from_millis(5));
                }
                conn.send(answer(200, &[], "up"))?;
            }
            Ok(())
        }
    });
    let began = Instant::now();
    let statuses: Vec<u16> = std::thread::scope(|scope| {
        let asking = || {
            let mut statuses = Vec::new();
            while began.elapsed() < Duration::from_millis(1_500) {
                statuses.push(gate.get("/x").status);
            }
            statuses
        };
        let askers: Vec<_> = (0..8).map(|_| scope.spawn(asking)).collect();
        // Several times as long as the breaker stays open, with a probe that has no answer.
        eventually_pause(Duration::from_millis(1_500));
        let probes = origin.requests().len();
        released.store(true, Ordering::SeqCst);
        assert_eq!(probes, 1, "one probe at a time");
        let answers = askers
            .into_iter()
            .flat_map(|asker| asker.join().expect("an asker"));
        answers.collect()
    });
    let count = |status| statuses.iter().filter(|got| **got == status).count();
    assert!(count(503) > 8, "{statuses:?}");
    assert_eq!(count(200) + count(503), statuses.len(), "{statuses:?}");
    gate.get("/x").expect(200);
}

#[test]
fn one_client_cannot_take_a_server_away_from_the_others() {
    let origin = Origin::script(|conn: &mut Conn| {
        while let Some(received) = conn.request()? {
            match received.head.target() {
                "/slow" => conn.until_close().map(drop)?,
                "/crash" => return Ok(()),
                _ => conn.send(answer(200, &[], "fine"))?,
            }
        }
        Ok(())
    });
    for (path, status) in [("/slow", 504), ("/crash", 502)] {
        let gate = before_all(
            &[origin.url()],
            "response_timeout = \"200ms\"\nbreaker = { failures = 3, open = \"1m\" }",
        );
        for _ in 0..5 {
            assert_eq!(ask(&gate, 1, path).0, status);
        }
        assert_eq!(ask(&gate, 2, "/").0, 200, "after {path}");
        for client in 1..=3 {
            assert_eq!(ask(&gate, client, path).0, status);
        }
        assert_eq!(ask(&gate, 4, "/").0, 503, "three clients met {path}");
        gate.proxy.await_talk("breaker is open");
    }
}

#[test]
fn a_server_that_does_worse_than_its_peers_is_left_out_and_asked_again() {
    let sick = Origin::fixed(answer(500, &[("Connection", "close")], "sick"));
    let well = named("well");
    let gate = before_all(
        &[sick.url(), well.url()],
        "balance = \"round_robin\"\nslow_start = \"0s\"\n\
         outliers = { every = \"300ms\", requests = 5, out = \"2s\" }",
    );
    let mut client = 0;
    let ejected = "portcullis_upstream_ejections_total";
    eventually("the sick one is left out", || {
        (0..12).for_each(|_| {
            client += 1;
            ask(&gate, client % 50, "/");
        });
        (gate.proxy.metric(ejected, &["cause=\"errors\""]) > 0.0).then_some(())
    });
    gate.proxy.await_talk("server is left out");
    let before = sick.requests().len();
    for client in 0..8 {
        assert_eq!(ask(&gate, client, "/").1, "well");
    }
    assert_eq!(sick.requests().len(), before);
    let out = gate
        .proxy
        .metric("portcullis_upstream_servers", &["state=\"ejected\""]);
    assert!((out - 1.0).abs() < 0.1, "{out} servers are out");
    eventually("it is asked again", || {
        ask(&gate, 1, "/");
        (sick.requests().len() > before).then_some(())
    });
}

#[test]
fn a_server_that_is_gone_costs_no_request_and_is_left_out() {
    let well = named("well");
    let gate = before_all(
        &[format!("http://{}", dead_address()), well.url()],
        "balance = \"round_robin\"\nbreaker = { failures = 2, open = \"100ms\" }",
    );
    eventually("it is left out", || {
        assert_eq!(ask(&gate, 1, "/"), (200, "well".to_owned()));
        let cause = ["cause=\"failures\""];
        let ejections = gate
            .proxy
            .metric("portcullis_upstream_ejections_total", &cause);
        (ejections > 0.0).then_some(())
    });
}

#[test]
fn only_the_clients_of_a_lost_server_move() {
    let mut servers = HashMap::from(["one", "two", "three"].map(|name| (name, named(name))));
    let urls: Vec<String> = servers.values().map(Origin::url).collect();
    let gate = before_all(&urls, "balance = \"hash:client\"");
    let meet = || -> HashMap<u8, String> { (0..60).map(|c| (c, ask(&gate, c, "/").1)).collect() };
    let before = meet();
    assert_eq!(before, meet(), "a client stays where it is");
    servers.remove("two");
    let after = meet();
    let mut heirs: Vec<&String> = Vec::new();
    for (client, server) in &before {
        if server == "two" {
            heirs.push(&after[client]);
        } else {
            assert_eq!(server, &after[client], "client {client} moved");
        }
    }
    heirs.sort_unstable();
    heirs.dedup();
    assert_eq!(heirs, ["one", "three"], "its clients spread");
}

#[test]
fn a_server_that_came_back_gets_its_share_slowly() {
    let ill = Arc::new(AtomicBool::new(true));
    let back = Origin::serve({
        let ill = Arc::clone(&ill);
        move |received| match received.head.target() {
            "/healthz" if ill.load(Ordering::SeqCst) => answer(500, &[], ""),
            _ => answer(200, &[], "back"),
        }
    });
    let well = Origin::serve(|_| answer(200, &[], "well"));
    let gate = before_all(
        &[back.url(), well.url()],
        "balance = \"round_robin\"\nslow_start = \"2m\"\n\
         health = { path = \"/healthz\", every = \"100ms\" }",
    );
    let of_a_hundred = || (0..100).filter(|_| ask(&gate, 1, "/").1 == "back").count();
    gate.proxy.await_talk("server fails its health check");
    assert_eq!(of_a_hundred(), 0);
    ill.store(false, Ordering::SeqCst);
    gate.proxy.await_talk("server is well again");
    let first = of_a_hundred();
    assert!(first < 25, "{first} of 100 at once");
    eventually("it is asked now and then", || {
        (ask(&gate, 1, "/").1 == "back").then_some(())
    });
}

#[test]
fn a_name_stands_for_all_its_addresses_and_follows_them() {
    let (gate, file, [one, two, three]) = before_a_name();
    let meets = |wanted: &str| {
        eventually(&format!("`{wanted}` answers"), || {
            (gate.get("/").expect(200).text() == wanted).then_some(())
        });
    };
    meets("one");
    meets("two");
    drop(one);
    for _ in 0..6 {
        assert_eq!(
            gate.get("/").expect(200).text(),
            "two",
            "one is passed over"
        );
    }
    assert!(three.requests().is_empty());
    std::fs::write(&file, "127.0.0.4\n").expect("the test's directory takes files");
    meets("three");
    let before = two.requests().len();
    for _ in 0..6 {
        assert_eq!(gate.get("/").text(), "three");
    }
    assert_eq!(
        two.requests().len(),
        before,
        "its connection is kept and leads elsewhere"
    );
    // The name is lost: what was known of it stays in use.
    std::fs::write(&file, "").expect("the test's directory takes files");
    gate.proxy.await_talk("name is not resolved");
    assert_eq!(gate.get("/").expect(200).text(), "three");
}

/// A gate before `pool.test`, the file that says what this stands for, and servers at 127.0.0.2, .3 and .4.
fn before_a_name() -> (Running, std::path::PathBuf, [Origin; 3]) {
    let listen = |last, port| TcpListener::bind((Ipv4Addr::new(127, 0, 0, last), port));
    let listeners = eventually("one port at three addresses", || {
        let first = listen(2, 0).ok()?;
        let port = first.local_addr().ok()?.port();
        Some([first, listen(3, port).ok()?, listen(4, port).ok()?])
    });
    let port = listeners[0].local_addr().expect("a bound listener").port();
    let [first, second, third] = listeners;
    let keeps = |conn: &mut Conn| {
        while conn.request()?.is_some() {
            let close = conn
                .index
                .is_multiple_of(2)
                .then_some(("Connection", "close"));
            conn.send(answer(200, close.as_slice(), "two"))?;
        }
        Ok(())
    };
    let origins = [
        Origin::script_on(first, says("one")),
        Origin::script_on(second, keeps),
        Origin::script_on(third, says("three")),
    ];
    let gate = Gate::before_url(&format!("http://pool.test:{port}"))
        .upstream("dns_refresh = \"100ms\"\nretries = { attempts = 0 }");
    let file = gate.directory().join("addresses");
    std::fs::write(&file, "127.0.0.2\n127.0.0.3\n").expect("the test's directory takes files");
    let library = gate.directory().join("names.so");
    let mut compile = Command::new("cc");
    compile
        .args(["-shared", "-fPIC", "-o"])
        .arg(&library)
        .arg(app("names.c"));
    let compiled = run(compile.arg("-ldl"));
    assert!(
        compiled.status.success(),
        "{}",
        String::from_utf8_lossy(&compiled.stderr)
    );
    let gate = gate
        .environment("LD_PRELOAD", &library.display().to_string())
        .environment("NAMES_FILE", &file.display().to_string())
        .open();
    (gate, file, origins)
}

#[test]
fn all_tries_together_end_within_the_deadline() {
    let origin = Origin::script(|conn: &mut Conn| conn.until_close().map(drop));
    let gate = Gate::before(&origin)
        .upstream("request_timeout = \"300ms\"\nretries = { attempts = 5, budget = 1.0 }")
        .open();
    let began = Instant::now();
    gate.get("/x").expect(504);
    let took = began.elapsed();
    assert!(
        took >= Duration::from_millis(300) && took < Duration::from_secs(15),
        "{took:?}"
    );
}

/// A listener whose queue is full, so that a connection to it neither comes about nor fails; with what fills it.
fn deaf() -> (TcpListener, Vec<TcpStream>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a loopback port");
    let address = listener.local_addr().expect("a bound listener");
    let mut waiting = Vec::new();
    while let Ok(stream) = TcpStream::connect_timeout(&address, Duration::from_millis(200)) {
        waiting.push(stream);
        assert!(waiting.len() < 10_000, "the queue has an end");
    }
    (listener, waiting)
}

#[test]
fn a_server_is_not_blamed_for_the_time_that_another_took() {
    let silent = [deaf(), deaf()];
    let servers: Vec<_> = silent
        .iter()
        .map(|(listener, _)| format!("http://{}", listener.local_addr().expect("bound")))
        .collect();
    let gate = before_all(
        &servers,
        "connect_timeout = \"400ms\"\nrequest_timeout = \"500ms\"\nbreaker = { failures = 1 }\n\
         retries = { attempts = 1, budget = 1.0 }\nbalance = \"round_robin\"",
    );
    assert_eq!(ask(&gate, 1, "/late").0, 504);
    let line = gate.proxy.await_access_of("/late");
    assert_eq!(line["detail"], "request-timeout", "{line}");
    assert_eq!(line["upstream.attempts"], 2, "{line}");
    let resting = |state: &str| {
        gate.proxy.metric(
            "portcullis_upstream_servers",
            &["upstream=\"several\"", state],
        )
    };
    let states = ["state=\"resting\"", "state=\"ejected\"", "state=\"ready\""];
    let counts = states.map(|state| resting(state).to_string());
    assert_eq!(
        counts.last().map(String::as_str),
        Some("1"),
        "one is ready: {counts:?}"
    );
}

#[test]
fn a_time_of_nothing_is_an_error_of_the_file() {
    let keys = [
        "connect_timeout",
        "response_timeout",
        "request_timeout",
        "answer_idle",
    ];
    for key in keys {
        let gate = Gate::before_url("http://127.0.0.1:1")
            .upstream(&format!("{key} = \"0s\""))
            .with(PUBLIC);
        let file = gate.write().display().to_string();
        let checked = portcullis_verb(&["check", "-c", &file]);
        let said = String::from_utf8_lossy(&checked.stderr).into_owned()
            + &String::from_utf8_lossy(&checked.stdout);
        assert_eq!(checked.status.code(), Some(2), "{key}: {said}");
        assert!(said.contains("a limit of no time"), "{key}: {said}");
    }
}

#[test]
fn tries_on_the_same_server_are_apart_and_within_the_budget() {
    let gate = Gate::before_url(&format!("http://{}", dead_address()))
        .upstream("retries = { attempts = 3, budget = 0.001 }\nbreaker = { failures = 0 }")
        .open();
    let began = Instant::now();
    gate.get("/apart").expect(502);
    // Half of 25, 50 and 100 ms at least.
    assert!(
        began.elapsed() >= Duration::from_millis(87),
        "{:?}",
        began.elapsed()
    );
    assert_eq!(gate.proxy.await_access_of("/apart")["upstream.attempts"], 4);
    for _ in 0..3 {
        gate.get("/more").expect(502);
    }
    gate.get("/last").expect(502);
    assert_eq!(gate.proxy.await_access_of("/last")["upstream.attempts"], 1);
}

#[test]
fn a_backend_that_does_not_read_pauses_the_client() {
    const WHOLE: usize = 64 << 20;
    let released = Arc::new(AtomicBool::new(false));
    let origin = Origin::script({
        let released = Arc::clone(&released);
        move |conn: &mut Conn| {
            conn.head()?;
            while !released.load(Ordering::SeqCst) {
                eventually_pause(Duration::from_millis(5));
            }
            let body = conn.exactly(WHOLE)?;
            conn.send(answer(200, &[], body.len().to_string()))
        }
    });
    let gate = Gate::before(&origin)
        .server("plaintext = true")
        .defaults("rate_limits = []\nbody = { bytes = \"128MiB\" }")
        .open();
    let mut client = TcpStream::connect(gate.proxy.http()).expect("a connection");
    client.set_nonblocking(true).expect("a mode");
    let head = format!("POST /x HTTP/1.1\r\nHost: app.example\r\nContent-Length: {WHOLE}\r\n\r\n");
    client.write_all(head.as_bytes()).expect("room for a head");
    let piece = vec![b'x'; 64 << 10];
    let (mut sent, mut moved) = (0, Instant::now());
    let mut push = |sent: &mut usize| {
        let taken = client.write(&piece[..piece.len().min(WHOLE - *sent)]);
        if taken.is_err() {
            eventually_pause(Duration::from_millis(5));
        }
        *sent += taken.as_ref().unwrap_or(&0);
        taken.is_ok()
    };
    while moved.elapsed() < Duration::from_millis(700) {
        if sent < WHOLE && push(&mut sent) {
            moved = Instant::now();
        }
    }
    // What fits into the buffers of three sockets, at most.
    assert!(
        sent < WHOLE / 2,
        "{sent} bytes went out to a backend that reads nothing"
    );
    assert!(
        gate.proxy.resident_kib() < 128 * 1024,
        "{}",
        gate.proxy.resident_kib()
    );
    released.store(true, Ordering::SeqCst);
    eventually_within(Duration::from_secs(30), "the rest goes out", || {
        (sent == WHOLE || {
            push(&mut sent);
            false
        })
        .then_some(())
    });
    let line = gate.proxy.await_access_of("/x");
    assert_eq!(line["http.response.status_code"], 200, "{line}");
    assert_eq!(line["http.request.body.size"], WHOLE, "{line}");
}
