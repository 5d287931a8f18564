//! Bodies that are held until they are whole: bounds for one and for all, pauses, and clients that go away.

use std::time::Duration;

use crate::harness::{
    Client, Gate, Origin, eventually, eventually::eventually_pause, gate::Running,
    proxy::portcullis_verb,
};
use crate::sigv4::{Signed, draft, signed_for};

const KIB: usize = 1024;

/// A gate that verifies signatures, with these bounds on what it holds.
fn gate(origin: &Origin, (limits, body): (&str, &str)) -> Running {
    let signers = "[signers.robot]\nscheme = \"sigv4\"\nkey_id = \"AKIDEXAMPLE\"\nsecret = { env = \"ROBOT\" }\n\
                   region = \"eu-central-1\"\nservice = \"execute-api\"\n";
    let auth = signed_for("", &format!("[blueprints.body]\n{body}"));
    Gate::before(origin)
        .environment("ROBOT", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY")
        .server(&format!("[server.limits]\n{limits}"))
        .with(signers)
        .with(&auth.replace("\"robot\", \"store\"", "\"robot\""))
        .start()
}

fn signed(length: usize) -> Signed {
    draft("POST", "/upload", b"").with("length", length).sign()
}

/// Sends the head and so much of the body, and nothing more.
fn begin(gate: &Running, request: &Signed, sent: usize) -> Client {
    let mut client = gate.https();
    client.send(request.head(&format!("Content-Length: {}\r\n", request.body.len())));
    client.send(&request.body[..sent]);
    client
}

fn held(gate: &Running) -> f64 {
    gate.proxy.metric("portcullis_spool_bytes", &[])
}

#[test]
fn a_body_of_a_mebibyte_is_held_and_no_larger_one() {
    let origin = Origin::echo();
    let gate = gate(&origin, ("", ""));
    let largest = signed(KIB * KIB);
    largest.to(&gate).expect(200);
    assert_eq!(origin.only_request().body, largest.body);
    // Announced, it is refused before a byte of it came.
    let mut client = gate.https();
    client.send(largest.head(&format!("Content-Length: {}\r\n", KIB * KIB + 1)));
    let problem = client.response().expect(413).problem();
    assert_eq!(problem["type"], "urn:portcullis:problem:body-too-large");
    client.expect_close();
    // Otherwise where it grows over the bound.
    let mut client = gate.https();
    client.send(largest.head("Transfer-Encoding: chunked\r\n"));
    let block = [format!("{KIB:x}\r\n").as_bytes(), &[b'x'; KIB], b"\r\n"].concat();
    for _ in 0..KIB {
        client.send(&block);
    }
    client.send(&block);
    client.response().expect(413);
    client.expect_close();
    assert_eq!(origin.requests().len(), 1);
    eventually("all is given back", || (held(&gate) == 0.0).then_some(()));
}

#[test]
fn one_client_has_no_more_than_half_of_the_room() {
    let origin = Origin::echo();
    let gate = gate(&origin, ("spool_bytes = \"80KiB\"", "spool = \"32KiB\""));
    let request = signed(30 * KIB);
    let mut first = begin(&gate, &request, 20 * KIB);
    gate.proxy
        .await_metric("portcullis_spool_bytes", &[], 20.0 * 1024.0);
    let refused = request.to(&gate);
    assert_eq!(
        refused.expect(503).problem()["type"],
        "urn:portcullis:problem:overloaded"
    );
    assert!(refused.header("retry-after").is_some());
    let line = gate
        .proxy
        .await_access("the refusal", |line| line["reason"] == "overloaded");
    assert_eq!(line["detail"], "spool", "{line}");
    // A small one still finds room, and the one that waits goes on.
    signed(100).to(&gate).expect(200);
    first.send(&request.body[20 * KIB..]).response().expect(200);
    assert_eq!(origin.last_request().body.len(), 30 * KIB);
    request.to(&gate).expect(200);
}

#[test]
fn what_is_only_announced_takes_no_room() {
    let origin = Origin::echo();
    let gate = gate(&origin, ("spool_bytes = \"64KiB\"", "spool = \"32KiB\""));
    let request = signed(30 * KIB);
    let waiting: Vec<Client> = (0..20).map(|_| begin(&gate, &request, 0)).collect();
    request.to(&gate).expect(200);
    drop(waiting);
}

#[test]
fn a_bound_that_one_client_cannot_use_is_an_error() {
    let origin = Origin::echo();
    let gate = Gate::before(&origin)
        .server("[server.limits]\nspool_bytes = \"1MiB\"")
        .defaults("auth = \"public\"\nbody = { spool = \"1MiB\" }")
        .with("[[blueprints]]\nname = \"a\"\nupstream = \"legacy\"");
    let file = gate.write();
    let file = file.to_str().expect("a path");
    let output = portcullis_verb(&["check", "-c", file]);
    assert_eq!(output.status.code(), Some(2));
    let told = [output.stdout, output.stderr].concat();
    let told = String::from_utf8_lossy(&told).into_owned();
    assert!(told.contains("server.limits.spool_bytes"), "{told}");
}

#[test]
fn a_held_body_must_be_whole_in_time() {
    let origin = Origin::echo();
    let gate = gate(&origin, ("", "spool_time = \"1s\""));
    let request = signed(10 * KIB);
    let mut client = begin(&gate, &request, 5 * KIB);
    let problem = client.response().expect(408).problem();
    assert_eq!(problem["type"], "urn:portcullis:problem:body-timeout");
    client.expect_close();
    origin.expect_untouched();
}

#[test]
fn a_held_body_may_not_pause_for_long() {
    let origin = Origin::echo();
    let gate = gate(&origin, ("body_idle = \"1s\"", ""));
    let mut client = begin(&gate, &signed(10 * KIB), 5 * KIB);
    client.response().expect(408);
    origin.expect_untouched();
}

#[test]
fn a_client_that_leaves_is_written_down_and_its_room_given_back() {
    let origin = Origin::echo();
    let gate = gate(&origin, ("", ""));
    let client = begin(&gate, &signed(10 * KIB), 5 * KIB);
    gate.proxy.await_metric("portcullis_spool_bytes", &[], 1.0);
    drop(client);
    let line = gate.proxy.await_access_of("/upload");
    assert_eq!(line["decision"], "aborted", "{line}");
    assert!(line["enduser.id"].is_null(), "{line}");
    eventually("its room is given back", || {
        (held(&gate) == 0.0).then_some(())
    });
    origin.expect_untouched();
}

#[test]
fn a33_a_held_body_is_asked_for_only_after_the_head_was_judged() {
    let origin = Origin::echo();
    let gate = gate(&origin, ("", ""));
    let request = signed(5);
    let expecting =
        |request: &Signed| request.head("Expect: 100-continue\r\nContent-Length: 5\r\n");
    let mut client = gate.https();
    client.send(expecting(&request.clone().add("X-Amz-Meta-A", "1")));
    let refused = client.response();
    refused.expect(403);
    assert!(refused.interim.is_empty(), "{:?}", refused.interim);
    let mut client = gate.https();
    client.send(expecting(&request));
    assert!(
        client.response_head().line.contains(" 100"),
        "asked to go on"
    );
    client.send("xxxxx").response().expect(200);
    assert_eq!(origin.only_request().body, b"xxxxx");
}

#[test]
fn a_backend_that_answers_early_is_not_sent_the_next_request_into_the_body() {
    // The answer comes with the head alone, and the body is large enough that it is not out by then.
    let origin = Origin::script(|conn| {
        while let Some(head) = conn.head()? {
            let length: usize = head
                .get("content-length")
                .map_or(0, |n| n.parse().unwrap_or(0));
            conn.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")?;
            eventually_pause(Duration::from_millis(50));
            conn.exactly(length)?;
        }
        Ok(())
    });
    let gate = gate(&origin, ("", ""));
    let request = signed(KIB * KIB);
    let mut client = gate.https();
    for _ in 0..4 {
        request.over(&mut client).expect(200);
    }
}
