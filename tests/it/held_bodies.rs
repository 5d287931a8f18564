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
fn one_stranger_has_no_more_than_an_eighth_of_the_room() {
    let origin = Origin::echo();
    let gate = gate(&origin, ("spool_bytes = \"320KiB\"", "spool = \"32KiB\""));
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

/// Two signers behind a proxy that names the clients: what `robot` signs shows who it is with its body alone, what `store`
/// signs has the hash of the body in its head.
fn gate_for_many(origin: &Origin, (limits, sections): (&str, &str)) -> Running {
    let signer = |name: &str, id: &str, service: &str| {
        format!(
            "[signers.{name}]\nscheme = \"sigv4\"\nkey_id = \"{id}\"\nsecret = {{ env = \"ROBOT\" }}\n\
             region = \"eu-central-1\"\nservice = \"{service}\"\npresigned = true\n"
        )
    };
    Gate::before(origin)
        .environment("ROBOT", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY")
        .server(&format!(
            "trusted_proxies = [\"127.0.0.0/8\"]\n[server.limits]\n{limits}"
        ))
        .with(&signer("robot", "AKIDEXAMPLE", "execute-api"))
        .with(&signer("store", "AKIDSTORE", "s3"))
        .with(&signed_for("", sections))
        .start()
}

fn from(client: &str, request: &Signed) -> Signed {
    request.clone().add("X-Forwarded-For", client)
}

#[test]
fn strangers_take_no_more_than_half_of_the_room() {
    let origin = Origin::echo();
    let limits = (
        "spool_bytes = \"128KiB\"",
        "[blueprints.body]\nspool = \"32KiB\"",
    );
    let gate = gate_for_many(&origin, limits);
    let stranger = signed(32 * KIB);
    let proven = draft("POST", "/upload", b"")
        .of_store()
        .with("length", 32 * KIB)
        .sign();
    let all_but_one = 32 * KIB - 1;
    // Two clients whose heads prove nothing, each within the half that one client may have.
    let mut waiting = Vec::new();
    for (client, taken) in [("10.0.0.1", 32_767.0), ("10.0.0.2", 65_534.0)] {
        waiting.push(begin(&gate, &from(client, &stranger), all_but_one));
        gate.proxy
            .await_metric("portcullis_spool_bytes", &[], taken);
    }
    let refused = from("10.0.0.3", &stranger).to(&gate);
    let problem = refused.expect(503).problem();
    assert_eq!(problem["type"], "urn:portcullis:problem:overloaded");
    assert!(refused.header("retry-after").is_some());
    let line = gate
        .proxy
        .await_access("the refusal", |line| line["reason"] == "overloaded");
    assert_eq!(line["detail"], "spool-strangers", "{line}");
    origin.expect_untouched();
    // Who has shown who he is still finds room; few addresses share a part of it.
    let finds_room = |client: &&str| from(client, &proven).to(&gate).status == 200;
    assert!(["10.0.1.1", "10.0.1.2", "10.0.1.3"].iter().any(finds_room));
    waiting[0]
        .send(&stranger.body[all_but_one..])
        .response()
        .expect(200);
    // What they gave back is theirs again.
    eventually("room for strangers", || {
        (from("10.0.0.3", &stranger).to(&gate).status == 200).then_some(())
    });
}

#[test]
fn strangers_who_let_the_gate_wait_are_banned() {
    for (limits, body) in [
        ("", "spool_time = \"1s\""),
        ("body_idle = \"1s\"", "spool_time = \"30s\""),
    ] {
        let origin = Origin::echo();
        let sections = format!("[blueprints.body]\n{body}\n[blueprints.ban]\nfailures = 2\n");
        let gate = gate_for_many(&origin, (limits, &sections));
        let stranger = signed(10 * KIB);
        let proven = draft("POST", "/upload", b"")
            .of_store()
            .with("length", 10 * KIB)
            .sign();
        let slow = |client: &str, request: &Signed| begin(&gate, &from(client, request), 5 * KIB);
        let slow: Vec<Client> = (0..2)
            .flat_map(|_| [slow("10.0.0.1", &stranger), slow("10.0.0.2", &proven)])
            .collect();
        for mut client in slow {
            client.response().expect(408);
        }
        let banned = from("10.0.0.1", &stranger).to(&gate).expect(429).problem();
        assert_eq!(banned["type"], "urn:portcullis:problem:banned", "{body}");
        from("10.0.0.2", &proven).to(&gate).expect(200);
        from("10.0.0.3", &stranger).to(&gate).expect(200);
    }
}

#[test]
fn one_stranger_leaves_room_for_the_others() {
    let origin = Origin::echo();
    let limits = (
        "spool_bytes = \"256KiB\"",
        "[blueprints.body]\nspool = \"16KiB\"",
    );
    let gate = gate_for_many(&origin, limits);
    let stranger = signed(16 * KIB);
    let one = from("10.0.0.1", &stranger);
    // As much as all strangers may have, if one could have it.
    let waiting: Vec<Client> = (0..8).map(|_| begin(&gate, &one, 16 * KIB - 1)).collect();
    let refused = eventually("the bound of one", || {
        let answer = one.to(&gate);
        (answer.status == 503).then_some(answer)
    });
    let id = refused.problem()["instance"].clone();
    let line = gate
        .proxy
        .await_access("the refusal", |line| line["request_id"] == id);
    assert_eq!(line["detail"], "spool", "{line}");
    // Few addresses share a part of it.
    let finds_room = |client: &&str| from(client, &stranger).to(&gate).status == 200;
    assert!(["10.0.1.1", "10.0.1.2", "10.0.1.3"].iter().any(finds_room));
    drop(waiting);
}

#[test]
fn strangers_who_hold_room_and_leave_before_time_is_up_are_banned() {
    let origin = Origin::echo();
    let sections = "[blueprints.body]\nspool_time = \"3s\"\n[blueprints.ban]\nfailures = 2\n";
    let gate = gate_for_many(&origin, ("", sections));
    let stranger = signed(10 * KIB);
    let proven = draft("POST", "/upload", b"")
        .of_store()
        .with("length", 10 * KIB)
        .sign();
    let slow = |client: &str, request: &Signed| begin(&gate, &from(client, request), 5 * KIB);
    let stay: Vec<Client> = (0..2)
        .flat_map(|_| [slow("10.0.0.1", &stranger), slow("10.0.0.2", &proven)])
        .collect();
    // Who leaves at once has held nothing worth a word.
    for _ in 0..2 {
        drop(slow("10.0.0.3", &stranger));
    }
    eventually_pause(Duration::from_millis(1500));
    drop(stay);
    let banned = eventually("a ban", || {
        let answer = from("10.0.0.1", &stranger).to(&gate);
        (answer.status == 429).then_some(answer)
    });
    assert_eq!(banned.problem()["type"], "urn:portcullis:problem:banned");
    from("10.0.0.2", &proven).to(&gate).expect(200);
    from("10.0.0.3", &stranger).to(&gate).expect(200);
}

#[test]
fn a_signature_in_the_query_excuses_no_stranger_who_lets_the_gate_wait() {
    let origin = Origin::echo();
    let sections = "[blueprints.body]\nspool_time = \"1s\"\n[blueprints.ban]\nfailures = 2\n";
    let gate = gate_for_many(&origin, ("", sections));
    let linked = draft("POST", "/upload", b"").with("way", "query").sign();
    linked.to(&gate).expect(200);
    let longer = linked.clone().body(&[b'x'; 10 * KIB]);
    let slow: Vec<Client> = (0..2).map(|_| begin(&gate, &longer, 5 * KIB)).collect();
    for mut client in slow {
        client.response().expect(408);
    }
    let banned = linked.to(&gate).expect(429).problem();
    assert_eq!(banned["type"], "urn:portcullis:problem:banned");
}

#[test]
fn a_body_that_may_only_be_empty_is_refused_at_its_first_byte() {
    let origin = Origin::echo();
    let gate = gate_for_many(&origin, ("", ""));
    let signed = [
        draft("POST", "/upload", b"").of_store().sign(),
        draft("GET", "/upload", b"")
            .with("way", "s3-query")
            .with("key_id", "AKIDSTORE")
            .with("service", "s3")
            .sign(),
    ];
    for request in &signed {
        for (framing, begun) in [
            ("Content-Length: 1000\r\n", ""),
            ("Transfer-Encoding: chunked\r\n", "1\r\nx\r\n"),
        ] {
            let mut client = gate.https();
            client.send(request.head(framing)).send(begun);
            let problem = client.response().expect(403).problem();
            assert_eq!(problem["type"], "urn:portcullis:problem:signature-invalid");
            client.expect_close();
        }
        request.to(&gate).expect(200);
    }
}
