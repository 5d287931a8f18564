//! An HTTP/1 connection that waits long for its next request: it costs little, and everything holds for it as before.

use std::time::Duration;

use crate::harness::eventually::eventually_pause;
use crate::harness::gate::{PUBLIC, Running, request};
use crate::harness::{Client, Gate, Origin, TlsOptions, eventually};

/// Longer than the rest after which a connection gives its buffers back.
const LONG: Duration = Duration::from_millis(900);

/// Resident memory that a connection of an unoptimised build may cost beside the kernel's share.
const KIB_A_CONNECTION: u64 = 20;

/// A connection of each kind that has had an answer and has slept since.
fn slept(gate: &Running) -> Vec<Client> {
    let old = TlsOptions::versions(&gate.ca, "app.example", &[&rustls::version::TLS12]);
    let mut clients = vec![
        gate.https(),
        Client::tls(gate.proxy.https(), &old),
        gate.http(),
    ];
    for client in &mut clients {
        client
            .send(request("GET", "/first", &[]))
            .response()
            .expect(200);
    }
    eventually_pause(LONG);
    clients
}

fn open(origin: &Origin) -> Running {
    Gate::before(origin).server("plaintext = true").open()
}

#[test]
fn a_connection_that_slept_is_served_again_and_again() {
    let origin = Origin::echo();
    let gate = open(&origin);
    for mut client in slept(&gate) {
        for path in ["/second", "/third"] {
            client
                .send(request("GET", path, &[]))
                .response()
                .expect(200);
            assert_eq!(origin.last_request().head.target(), path);
            eventually_pause(LONG);
        }
        let upload = "POST /up HTTP/1.1\r\nHost: app.example\r\nContent-Length: 5\r\n\r\nhello";
        client.send(upload).response_to("POST").expect(200);
        assert_eq!(origin.last_request().body, b"hello");
    }
}

#[test]
fn a_connection_that_never_asked_is_served_late() {
    let origin = Origin::echo();
    let gate = open(&origin);
    let mut clients = [gate.https(), gate.http()];
    eventually_pause(LONG);
    for client in &mut clients {
        client.send(request("GET", "/", &[])).response().expect(200);
    }
}

#[test]
fn the_next_request_may_come_in_pieces() {
    let origin = Origin::echo();
    let gate = open(&origin);
    for mut client in slept(&gate) {
        for piece in [
            "P",
            "OST /pieces HTTP/1.1\r",
            "\nHost: app.example\r\nContent-Length: 10\r\n\r",
            "\nhello",
            "world",
        ] {
            client.send(piece);
            // Within a message nothing may be given back, however long the client takes.
            eventually_pause(LONG);
        }
        client.response_to("POST").expect(200);
        assert_eq!(origin.last_request().body, b"helloworld");
        client.send("\r\n");
        eventually_pause(LONG);
        client
            .send(request("GET", "/behind-a-blank-line", &[]))
            .response()
            .expect(200);
    }
}

#[test]
fn the_next_requests_may_come_at_once() {
    let origin = Origin::echo();
    let gate = open(&origin);
    for mut client in slept(&gate) {
        let upload = "POST /b HTTP/1.1\r\nHost: app.example\r\nContent-Length: 2\r\n\r\nhi";
        client.send(format!(
            "{}{upload}{}",
            request("GET", "/a", &[]),
            request("GET", "/c", &[])
        ));
        client.response().expect(200);
        client.response_to("POST").expect(200);
        client.response().expect(200);
        let asked = origin.requests();
        let asked: Vec<_> = asked.iter().map(|request| request.head.target()).collect();
        assert_eq!(asked[asked.len() - 3..], ["/a", "/b", "/c"]);
    }
}

#[test]
fn an_answer_that_takes_long_is_waited_for() {
    let origin = Origin::script(|conn| {
        conn.request()?;
        eventually_pause(LONG);
        conn.send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello")?;
        eventually_pause(LONG);
        conn.send("world")
    });
    let gate = open(&origin);
    let mut client = gate.https();
    let response = client.send(request("GET", "/", &[])).response();
    assert_eq!(response.expect(200).text(), "helloworld");
}

#[test]
fn a_connection_that_slept_meets_the_policy_of_today() {
    let origin = Origin::echo();
    let mut gate = open(&origin);
    let clients = slept(&gate);
    gate.reload_with(&format!(
        "{PUBLIC}\n[blueprints.headers]\nset = {{ \"X-Policy\" = \"new\" }}\n"
    ));
    for mut client in clients {
        let response = client.send(request("GET", "/", &[])).response();
        assert_eq!(response.expect(200).header("x-policy"), Some("new"));
    }
}

#[test]
fn broken_bytes_behind_a_sleep_are_refused() {
    let origin = Origin::echo();
    let gate = open(&origin);
    for mut client in slept(&gate) {
        client
            .send("GET / HTTP/1.1\r\nHost : app.example\r\n\r\n")
            .response()
            .expect(400);
        client.expect_close();
    }
}

#[test]
fn a_slow_head_behind_a_sleep_meets_its_408() {
    let origin = Origin::echo();
    let gate = Gate::before(&origin)
        .server("plaintext = true")
        .with("[server.limits]\nheader_timeout = \"500ms\"\n")
        .open();
    for mut client in slept(&gate) {
        client.send("GET / HTTP/1.1\r\nHost: app.ex");
        client.response().expect(408);
        client.expect_close();
    }
}

#[test]
fn a_sleeping_connection_is_closed_in_the_end() {
    let origin = Origin::echo();
    let gate = Gate::before(&origin)
        .server("plaintext = true")
        .with("[server.limits]\nkeep_alive = \"2s\"\nconnections_per_client = 3\n")
        .open();
    let held = slept(&gate);
    // It counts as long as it is open, asleep or not.
    let options = TlsOptions::new(&gate.ca, "app.example");
    assert!(Client::try_tls(gate.proxy.https(), &options).is_err());
    for mut client in held {
        client.expect_close();
    }
    gate.get("/").expect(200);
}

#[test]
fn a_sleeping_connection_ends_with_the_drain() {
    let origin = Origin::echo();
    let mut gate = open(&origin);
    let mut clients = slept(&gate);
    gate.proxy.signal("TERM");
    gate.proxy.await_talk("draining");
    // A request on its way when stopping began is answered still, as the last one.
    let late = clients[0].send(request("GET", "/late", &[])).response();
    assert_eq!(late.expect(200).header("connection"), Some("close"));
    for client in &mut clients {
        client.expect_close();
    }
    assert_eq!(gate.proxy.await_exit().code(), Some(0));
}

#[test]
fn a_sleeping_connection_costs_little() {
    const CONNECTIONS: u64 = 400;
    let origin = Origin::echo();
    let gate = Gate::before(&origin)
        .with("[server.limits]\nconnections_per_client = 500\n")
        .open();
    let connect = || {
        let mut client = gate.https();
        client.send(request("GET", "/", &[])).response().expect(200);
        client
    };
    // What is needed once is needed before the count begins.
    let warm: Vec<_> = (0..20).map(|_| connect()).collect();
    eventually_pause(LONG);
    let before = gate.proxy.resident_kib();
    let held: Vec<_> = (0..CONNECTIONS).map(|_| connect()).collect();
    eventually("their buffers are given back", || {
        let cost = gate.proxy.resident_kib().saturating_sub(before);
        (cost < KIB_A_CONNECTION * CONNECTIONS).then_some(())
    });
    drop((warm, held));
}
