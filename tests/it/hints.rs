//! Interim answers: what a client gets of a backend's 103 (RFC 8297), who gets it, and what a hostile backend can do.

use std::io;
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;

use serde_json::json;

use crate::harness::eventually::eventually_pause;
use crate::harness::gate::request;
use crate::harness::origin::answer;
use crate::harness::python::{python, run_json};
use crate::harness::{Client, Conn, Gate, Origin};

const PAGE: [(&str, &str); 2] = [
    ("Accept", "text/html,application/xhtml+xml;q=0.9,*/*;q=0.8"),
    ("Sec-Fetch-Mode", "navigate"),
];

fn hint(path: &str) -> String {
    format!("HTTP/1.1 103 Early Hints\r\nLink: <{path}.css>; rel=preload; as=style\r\n\r\n")
}

/// A backend that sends a hint that names the path some time before each answer, which names it too.
fn hinting() -> Origin {
    Origin::script(|conn: &mut Conn| {
        while let Some(received) = conn.request()? {
            let path = received.head.target();
            conn.send(hint(path))?;
            // A hint that comes together with its answer is dropped; these have time to go out.
            eventually_pause(Duration::from_millis(100));
            conn.send(answer(200, &[], path))?;
        }
        Ok(())
    })
}

/// A backend that sends a hint, and its answer only once it is told to.
fn waiting() -> (Origin, SyncSender<()>) {
    let (go, told): (_, Receiver<()>) = sync_channel(1);
    let told = Mutex::new(told);
    let origin = Origin::script(move |conn: &mut Conn| {
        while conn.request()?.is_some() {
            conn.send(
                "HTTP/1.1 103 Early Hints\r\nServer: Apache/2.2\r\nSet-Cookie: a=b\r\nX-User: root\r\n\
                 Link: </style.css>; rel=preload; as=style\r\nContent-Length: 5\r\n\
                 Transfer-Encoding: chunked\r\nLink: </b.js>; rel=preload\r\n\r\n",
            )?;
            let told = told.lock().expect("one connection at a time");
            told.recv().map_err(io::Error::other)?;
            conn.send(answer(200, &[("X-Frame-Options", "ALLOWALL")], "final"))?;
        }
        Ok(())
    });
    (origin, go)
}

#[test]
fn links_reach_a_browser_before_the_answer_and_nothing_else_does() {
    let (origin, go) = waiting();
    let gate = Gate::before(&origin).open();
    let mut client = gate.https();
    for _ in 0..2 {
        client.send(request("GET", "/page", &PAGE));
        let early = client.response_head();
        assert_eq!(early.line, "HTTP/1.1 103 Early Hints");
        let fields: Vec<_> = early
            .fields
            .iter()
            .map(|(name, value)| (name.to_ascii_lowercase(), value.clone()))
            .collect();
        let links = [
            "</style.css>; rel=preload; as=style",
            "</b.js>; rel=preload",
        ];
        assert_eq!(
            fields,
            links.map(|link| ("link".to_owned(), link.to_owned()))
        );
        go.send(()).expect("the backend waits");
        let response = client.response();
        assert_eq!(response.expect(200).text(), "final");
        assert_eq!(response.interim, [0_u16; 0]);
        assert_eq!(response.headers("x-frame-options"), ["DENY"]);
        assert_eq!(response.header("link"), None);
    }
    let line = gate.proxy.await_access_of("/page");
    assert_eq!(line["http.response.status_code"], 200, "{line}");
}

#[test]
fn a_hint_comes_while_the_client_still_sends() {
    let origin = Origin::script(|conn: &mut Conn| {
        while let Some(head) = conn.head()? {
            conn.send(hint(head.target()))?;
            let body = conn.exactly(5)?;
            conn.send(answer(200, &[], body))?;
        }
        Ok(())
    });
    let gate = Gate::before(&origin).open();
    let mut client = gate.https();
    let fields = [PAGE[0], PAGE[1], ("Content-Length", "5")];
    client.send(request("POST", "/form", &fields)).send("he");
    let early = client.response_head();
    assert_eq!(early.line, "HTTP/1.1 103 Early Hints");
    client.send("llo");
    assert_eq!(client.response().expect(200).text(), "hello");
}

#[test]
fn who_may_not_know_hints_is_given_none() {
    let origin = hinting();
    let gate = Gate::before(&origin).open();
    for fields in [
        vec![],
        vec![PAGE[0]],
        vec![PAGE[1]],
        vec![PAGE[1], ("Accept", "*/*")],
    ] {
        let response = gate.get_with("/x", &fields);
        assert_eq!(response.expect(200).interim, [0_u16; 0], "{fields:?}");
    }
    let old = "GET /x HTTP/1.0\r\nHost: app.example\r\nAccept: text/html\r\nSec-Fetch-Mode: navigate\r\n\r\n";
    assert_eq!(gate.exchange(old).expect(200).interim, [0_u16; 0]);

    // A proxy between the browser and the gate may not know them: one that says what it is,
    for relayed in [
        ("Via", "1.1 cache"),
        ("Forwarded", "for=203.0.113.7"),
        ("X-Forwarded-For", "203.0.113.7"),
        ("X-Real-IP", "203.0.113.7"),
    ] {
        let response = gate.get_with("/x", &[PAGE[0], PAGE[1], relayed]);
        assert_eq!(response.expect(200).interim, [0_u16; 0], "{relayed:?}");
    }
    // and one that is known, whatever it says.
    let behind = Gate::before(&origin)
        .server("trusted_proxies = [\"127.0.0.0/8\"]")
        .open();
    for fields in [
        vec![PAGE[0], PAGE[1]],
        vec![PAGE[0], PAGE[1], ("X-Forwarded-For", "203.0.113.7")],
    ] {
        let response = behind.get_with("/x", &fields);
        assert_eq!(response.expect(200).interim, [0_u16; 0], "{fields:?}");
    }

    for lines in [
        "early_hints = \"never\"",
        "remove = [\"Link\"]",
        "set = { Link = \"</ours.css>; rel=preload\" }",
    ] {
        let gate = Gate::before(&origin)
            .with(&format!("[defaults.headers]\n{lines}\n"))
            .open();
        let response = gate.get_with("/x", &PAGE);
        assert_eq!(response.expect(200).interim, [0_u16; 0], "{lines}");
    }
    // The file may add links of its own, to answers alone.
    let gate = Gate::before(&origin)
        .with("[defaults.headers]\ndefault = { Link = \"</ours.css>; rel=preload\" }\n")
        .open();
    let mut client = gate.https();
    let early = client.send(request("GET", "/x", &PAGE)).response_head();
    assert_eq!(early.get("link"), Some("</x.css>; rel=preload; as=style"));
}

#[test]
fn everybody_is_given_hints_where_the_file_says_so() {
    let (origin, go) = waiting();
    let gate = Gate::before(&origin)
        .with("[defaults.headers]\nearly_hints = \"always\"\n")
        .open();
    let mut client = gate.https();
    client.send(request("GET", "/x", &[]));
    assert_eq!(client.response_head().line, "HTTP/1.1 103 Early Hints");
    go.send(()).expect("the backend waits");
    assert_eq!(client.response().expect(200).text(), "final");
}

#[test]
fn over_http_2_hints_are_dropped() {
    let origin = hinting();
    let gate = Gate::before(&origin)
        .with("[defaults.headers]\nearly_hints = \"always\"\n")
        .open();
    let instruction = json!({
        "do": "whole",
        "address": gate.proxy.https().to_string(),
        "ca": gate.directory.path().join("ca.pem"),
        "paths": ["/x"],
    });
    let account = run_json(python("readers.py").arg(instruction.to_string()));
    assert_eq!(account["answers"][0]["status"], 200, "{account}");
}

/// Reads an answer with the hints before it.
fn hinted(client: &mut Client) -> (Vec<String>, String) {
    let mut links = Vec::new();
    loop {
        let head = client.response_head();
        if head.line.starts_with("HTTP/1.1 103 ") {
            links.push(head.get("link").expect("a link").to_owned());
            continue;
        }
        assert!(head.line.starts_with("HTTP/1.1 200 "), "{}", head.line);
        let length = head.get("content-length").expect("a length").parse();
        let body = client.exactly(length.expect("a number"));
        return (links, String::from_utf8(body).expect("text"));
    }
}

#[test]
fn hints_of_pipelined_requests_stay_with_their_own() {
    let origin = hinting();
    let gate = Gate::before(&origin).open();
    let mut client = gate.https();
    let all: String = (0..10)
        .map(|number| match number % 2 {
            0 => request("GET", &format!("/{number}"), &PAGE),
            _ => request("GET", &format!("/{number}"), &[]),
        })
        .collect();
    client.send(all);
    let mut came = 0;
    for number in 0..10 {
        let (links, body) = hinted(&mut client);
        assert_eq!(body, format!("/{number}"));
        let own = format!("</{number}.css>; rel=preload; as=style");
        // On a busy machine one may come together with its answer.
        let expected = number % 2 == 0 && links == [own];
        assert!(expected || links.is_empty(), "{number}: {links:?}");
        came += links.len();
    }
    assert!(came > 0);
}

#[test]
fn a31_a_hint_behind_an_answer_is_nobodys() {
    let late = [answer(200, &[], "ok"), hint("/late").into_bytes()].concat();
    let origin = Origin::fixed(late);
    let gate = Gate::before(&origin).open();
    let mut client = gate.https();
    for _ in 0..5 {
        let response = client.send(request("GET", "/x", &PAGE)).response();
        assert_eq!(response.expect(200).text(), "ok");
        assert_eq!(response.interim, [0_u16; 0]);
    }
}

/// A backend that sends these interim answers before each answer: the first part, and the second once it is told to, with
/// the answer behind it where there is one.
fn in_two_parts(first: String, then: String, answered: bool) -> (Origin, SyncSender<()>) {
    let (go, told): (_, Receiver<()>) = sync_channel(1);
    let told = Mutex::new(told);
    let origin = Origin::script(move |conn: &mut Conn| {
        while conn.request()?.is_some() {
            conn.send(&first)?;
            let told = told.lock().expect("one connection at a time");
            told.recv().map_err(io::Error::other)?;
            conn.send(&then)?;
            if answered {
                conn.send(answer(200, &[], "final"))?;
            }
        }
        Ok(())
    });
    (origin, go)
}

#[test]
fn a31_interim_answers_without_end_are_a_broken_answer_to_whoever_asks() {
    let origin = Origin::script(|conn: &mut Conn| {
        let many = "HTTP/1.1 102 Processing\r\n\r\n".repeat(1000);
        while conn.request()?.is_some() {
            while conn.send(&many).is_ok() {}
        }
        Ok(())
    });
    let gate = Gate::before(&origin)
        .upstream("response_timeout = \"10s\"\nbreaker = { failures = 100 }")
        .open();
    for method in ["GET", "POST"] {
        let response = gate.request(method, "/flood", &[]);
        assert!(response.expect(502).text().contains("upstream-broken"));
        let line = gate.proxy.await_access_of("/flood");
        assert_eq!(line["detail"], "interim-flood", "{line}");
    }
    origin.await_closed(2);
    // Not few of them are borne.
    let patient = Origin::script(|conn: &mut Conn| {
        while conn.request()?.is_some() {
            conn.send("HTTP/1.1 102 Processing\r\n\r\n".repeat(1000))?;
            conn.send(answer(200, &[], vec![b'x'; 4 << 20]))?;
        }
        Ok(())
    });
    let gate = Gate::before(&patient).open();
    for _ in 0..3 {
        assert_eq!(gate.get("/").expect(200).body.len(), 4 << 20);
    }
}

#[test]
fn a31_hints_without_end_are_a_broken_answer() {
    let processing = "HTTP/1.1 102 Processing\r\n\r\n".to_owned();
    for (interim, passed) in [(hint("/x"), 8), (processing, 0)] {
        // As many as may come, and one more.
        for (further, status) in [(56, 200), (57, 502)] {
            let (origin, go) =
                in_two_parts(interim.repeat(8), interim.repeat(further), status == 200);
            let gate = Gate::before(&origin).open();
            let mut client = gate.https();
            client.send(request("GET", "/flood", &PAGE));
            for _ in 0..passed {
                assert_eq!(client.response_head().line, "HTTP/1.1 103 Early Hints");
            }
            go.send(()).expect("the backend waits");
            let response = client.response();
            assert_eq!(response.expect(status).interim, [0_u16; 0]);
            let line = gate.proxy.await_access_of("/flood");
            if status == 502 {
                assert!(response.text().contains("upstream-broken"));
                assert_eq!(line["detail"], "interim-flood", "{line}");
                origin.await_closed(1);
            }
        }
    }
}

#[test]
fn a31_a_switch_behind_a_hint_is_refused() {
    for hints in [0, 1, 3] {
        let mut bytes = hint("/x").repeat(hints);
        bytes.push_str(
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n",
        );
        let origin = Origin::fixed(bytes);
        let gate = Gate::before(&origin).open();
        let response = gate.get_with("/switch", &PAGE);
        response.expect(502);
        let line = gate.proxy.await_access_of("/switch");
        assert_eq!(line["detail"], "unasked-switch", "{line}");
        origin.await_closed(1);
    }
}

#[test]
fn a31_a_hint_cannot_carry_another_message() {
    let long = "x".repeat(9000);
    let early = |fields: &str| format!("HTTP/1.1 103 Early Hints\r\n{fields}\r\n");
    for (fields, passed) in [
        // Framing of an interim answer means nothing, and what follows is the answer.
        ("Content-Length: 40\r\nLink: </a>\r\n", true),
        ("Transfer-Encoding: chunked\r\nLink: </a>\r\n", true),
        ("Link: </a>\u{e4}\r\n", false),
        (&format!("Link: </{long}>\r\n"), false),
        ("Connection: link\r\nLink: </a>\r\n", false),
        ("Set-Cookie: a=b\r\n", false),
    ] {
        // Hints go out in order: once the second is there, the first has gone out or will not.
        let first = early(fields) + &early("Link: </marker>\r\n");
        let (origin, go) = in_two_parts(first, String::new(), true);
        let gate = Gate::before(&origin).open();
        let mut client = gate.https();
        client.send(request("GET", "/x", &PAGE));
        let links: &[&str] = if passed {
            &["</a>", "</marker>"]
        } else {
            &["</marker>"]
        };
        for link in links {
            let head = client.response_head();
            assert_eq!(head.line, "HTTP/1.1 103 Early Hints", "{fields:.60}");
            assert_eq!(head.fields.len(), 1, "{fields:.60}");
            assert_eq!(head.get("link"), Some(*link), "{fields:.60}");
        }
        for page in [true, false] {
            go.send(()).expect("the backend waits");
            let response = client.response();
            assert_eq!(response.expect(200).text(), "final", "{fields:.60}");
            assert_eq!(response.interim, [0_u16; 0], "{fields:.60}");
            if page {
                client.send(request("GET", "/y", &[]));
            }
        }
    }
    for fields in [
        "Link: </a>\r\n b\r\n",
        "Link : </a>\r\n",
        "Link: </a>\0\r\n",
    ] {
        // The answer never comes, so that this cannot be what is refused.
        let (origin, go) = in_two_parts(early(fields), String::new(), false);
        let gate = Gate::before(&origin).open();
        let mut client = gate.https();
        let head = client.send(request("GET", "/x", &PAGE)).response_head();
        assert!(head.line.starts_with("HTTP/1.1 502 "), "{fields:?}");
        drop(go);
    }
}
