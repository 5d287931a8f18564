//! The access line, the metrics and the admin listener (attack a32; the line's fields are those of the contract).

use std::time::Duration;

use serde_json::Value;

use crate::harness::eventually::eventually_pause;
use crate::harness::gate::request;
use crate::harness::origin::answer;
use crate::harness::{Client, Gate, Origin, eventually};

#[test]
fn a_forwarded_request_is_one_line_with_the_names_of_the_contract() {
    let origin = Origin::fixed(crate::harness::origin::answer(200, &[], "twelve bytes"));
    let gate = Gate::before(&origin).open();
    let response = gate.exchange(
        "POST /a/b?q=1&token=secret1&code=secret2 HTTP/1.1\r\nHost: app.example\r\nUser-Agent: tester/1\r\n\
         Origin: https://app.example\r\nCookie: session=secret3\r\nAuthorization: Basic secret4\r\nContent-Length: 5\r\n\r\nhello",
    );
    response.expect(200);
    let line = gate.proxy.await_access_of("/a/b");
    let wanted: [(&str, Value); 14] = [
        ("http.request.method", "POST".into()),
        ("url.scheme", "https".into()),
        ("server.address", "app.example".into()),
        ("url.path", "/a/b".into()),
        ("http.response.status_code", 200.into()),
        ("http.request.body.size", 5.into()),
        ("http.response.body.size", 12.into()),
        ("network.protocol.version", "1.1".into()),
        ("client.address", "127.0.0.1".into()),
        ("network.peer.address", "127.0.0.1".into()),
        ("user_agent.original", "tester/1".into()),
        ("blueprint", "app".into()),
        ("decision", "forwarded".into()),
        ("upstream.attempts", 1.into()),
    ];
    for (name, value) in wanted {
        assert_eq!(line[name], value, "{name}: {line}");
    }
    assert!(
        line["tls.protocol.version"].to_string().contains("1.3"),
        "{line}"
    );
    for name in [
        "timestamp",
        "trace_id",
        "span_id",
        "request_id",
        "http.route",
    ] {
        assert!(
            line[name].as_str().is_some_and(|text| !text.is_empty()),
            "{name}: {line}"
        );
    }
    for name in ["duration_ms", "upstream.duration_ms"] {
        assert!(line[name].is_number(), "{name}: {line}");
    }
    let upstream = line["upstream.address"].as_str().expect("an address");
    assert!(upstream.ends_with(&origin.address().to_string()), "{line}");
    let query = line["url.query"].as_str().expect("a query");
    assert!(query.contains("q=1") && query.contains("token="), "{query}");
    let raw = gate.proxy.raw_access_lines().join("\n");
    assert!(!raw.contains("secret"), "{raw}");
    assert!(!raw.contains("Basic"), "{raw}");
    let head = origin.only_request().head;
    assert_eq!(head.get("x-request-id"), line["request_id"].as_str());
}

#[test]
fn each_request_is_one_line_whatever_became_of_it() {
    let origin = Origin::echo();
    let gate = Gate::guarding(&origin).start();
    gate.get("/one").expect(200);
    gate.get("/admin").expect(401);
    gate.get("/bad%00").expect(400);
    gate.exchange("NONSENSE\r\n\r\n").expect(400);
    gate.http()
        .send(request("GET", "/plain", &[]))
        .response()
        .expect(308);
    let mut aborted = gate.https();
    aborted.send("POST /aborted HTTP/1.1\r\nHost: app.example\r\nContent-Length: 100\r\n\r\nhello");
    eventually("the backend has the head", || {
        let seen = origin.bytes().concat();
        crate::harness::message::find(&seen, b"/aborted")
    });
    drop(aborted);
    gate.get("/last").expect(200);
    let lines = eventually("seven lines", || {
        let lines = gate.proxy.access_lines();
        (lines.len() >= 7).then_some(lines)
    });
    eventually_pause(Duration::from_millis(200));
    assert_eq!(gate.proxy.access_lines().len(), 7, "{lines:#?}");
    let decision = |path: &str| {
        let mut found = lines.iter().filter(|line| line["url.path"] == path);
        let line = found.next().unwrap_or_else(|| panic!("no line for {path}"));
        assert!(found.next().is_none(), "two lines for {path}");
        line["decision"].as_str().map(str::to_owned)
    };
    assert_eq!(decision("/one").as_deref(), Some("forwarded"));
    assert_eq!(decision("/admin").as_deref(), Some("refused"));
    assert_eq!(decision("/plain").as_deref(), Some("answered"));
    assert_eq!(decision("/aborted").as_deref(), Some("aborted"));
    let refused = lines
        .iter()
        .find(|line| line["url.path"] == "/admin")
        .expect("checked");
    assert_eq!(refused["reason"], "credentials-missing");
    assert_eq!(refused["stage"], "authn");
}

#[test]
fn a32_hostile_text_stays_one_valid_line() {
    let origin = Origin::echo();
    let gate = Gate::before(&origin).open();
    let first = gate.exchange(
        b"GET /%0a{\"level\":\"info\"} HTTP/1.1\r\nHost: app.example\r\nUser-Agent: evil\r\n\r\n",
    );
    first.expect(400);
    let second = gate
        .exchange(b"GET /ua HTTP/1.1\r\nHost: app.example\r\nUser-Agent: \x1b[2J\"}\x9b\r\n\r\n");
    let third = gate.exchange(
        b"GET /ua2?x=\"}%0a{\"level\":\"info\"} HTTP/1.1\r\nHost: app.example\r\nUser-Agent: \"}{\\\xe2\x80\xa8\r\n\r\n",
    );
    gate.get("/last").expect(200);
    gate.proxy.await_access_of("/last");
    let lines = gate.proxy.access_lines();
    assert_eq!(
        lines.len(),
        4,
        "{lines:#?} {} {}",
        second.status,
        third.status
    );
    for line in gate.proxy.raw_access_lines() {
        assert!(
            line.bytes().all(|byte| byte >= 0x20 && byte != 0x7f),
            "a control byte in {line:?}"
        );
        assert!(
            !line.contains('\u{9b}') && !line.contains('\u{2028}'),
            "{line:?}"
        );
        let parsed: Value = serde_json::from_str(&line).expect("one object");
        assert_ne!(parsed["level"], "info", "an injected member: {line}");
    }
}

#[test]
fn a32_long_texts_are_cut() {
    let origin = Origin::echo();
    let gate = Gate::before(&origin).open();
    let long = "x".repeat(7000);
    gate.get_with(&format!("/{long}"), &[("User-Agent", &long)])
        .expect(200);
    gate.get("/last").expect(200);
    gate.proxy.await_access_of("/last");
    for line in gate.proxy.raw_access_lines() {
        assert!(line.len() < 16 * 1024, "{} bytes", line.len());
    }
}

#[test]
fn a_log_file_is_written_and_reopened() {
    let origin = Origin::echo();
    let gate = Gate::before(&origin);
    let file = gate.directory().join("access.log");
    let gate = gate
        .log(&format!("access = \"file:{}\"", file.display()))
        .open();
    let lines_of = |path: &std::path::Path| std::fs::read_to_string(path).unwrap_or_default();
    gate.get("/one").expect(200);
    eventually("the first line", || {
        lines_of(&file).contains("/one").then_some(())
    });
    let rotated = file.with_extension("1");
    std::fs::rename(&file, &rotated).expect("a rename in one directory");
    gate.proxy.signal("USR1");
    eventually("the file is there again", || {
        gate.get("/two").expect(200);
        lines_of(&file).contains("/two").then_some(())
    });
    assert!(
        gate.proxy.raw_access_lines().is_empty(),
        "nothing on stdout"
    );
    for line in lines_of(&file).lines() {
        let _: Value = serde_json::from_str(line).expect("one object a line");
    }
}

#[test]
fn a_process_that_drains_opens_its_log_again_when_asked() {
    let origin = Origin::script(|conn| {
        while let Some(received) = conn.request()? {
            eventually_pause(Duration::from_millis(500));
            conn.note(received);
            conn.send(answer(200, &[], "late"))?;
        }
        Ok(())
    });
    let gate = Gate::before(&origin).server("plaintext = true");
    let file = gate.directory().join("access.log");
    let mut gate = gate
        .log(&format!("access = \"file:{}\"", file.display()))
        .open();
    let mut client = gate.http();
    client.send(request("GET", "/late", &[]));
    gate.proxy
        .await_metric("portcullis_requests_in_flight", &[], 1.0);
    gate.proxy.signal("TERM");
    gate.proxy.await_talk("draining");
    std::fs::rename(&file, file.with_extension("1")).expect("a rename in one directory");
    gate.proxy.signal("USR1");
    gate.proxy.await_talk("access log reopened");
    client.response().expect(200);
    assert_eq!(gate.proxy.await_exit().code(), Some(0));
    let text = std::fs::read_to_string(&file).expect("the new file");
    assert!(text.contains("/late"), "{text}");
}

#[test]
fn a_full_disk_stops_no_request_and_is_counted() {
    let origin = Origin::echo();
    let gate = Gate::before(&origin)
        .log("access = \"file:/dev/full\"")
        .open();
    for _ in 0..20 {
        gate.get("/").expect(200);
    }
    gate.proxy
        .await_metric("portcullis_log_lines_dropped_total", &[], 1.0);
    gate.get("/").expect(200);
}

#[test]
fn the_log_may_be_off() {
    let origin = Origin::echo();
    let gate = Gate::before(&origin).log("access = \"off\"").open();
    gate.get("/").expect(200);
    gate.proxy
        .await_metric("portcullis_requests_total", &[], 1.0);
    assert!(gate.proxy.raw_access_lines().is_empty());
}

#[test]
fn metrics_have_the_names_of_the_contract_and_bounded_labels() {
    let origin = Origin::echo();
    let gate = Gate::guarding(&origin).start();
    gate.get("/some/private/path?user=7").expect(200);
    gate.get("/admin").expect(401);
    gate.request("WEIRD", "/x", &[]);
    gate.proxy.await_metric(
        "portcullis_requests_total",
        &["decision=\"forwarded\""],
        1.0,
    );
    gate.proxy.await_metric(
        "portcullis_requests_total",
        &[
            "blueprint=\"admin\"",
            "status_class=\"4xx\"",
            "decision=\"refused\"",
        ],
        1.0,
    );
    gate.proxy.await_metric(
        "portcullis_refusals_total",
        &[
            "stage=\"authn\"",
            "reason=\"credentials-missing\"",
            "mode=\"enforce\"",
        ],
        1.0,
    );
    gate.proxy.await_metric(
        "portcullis_upstream_requests_total",
        &["upstream=\"legacy\""],
        1.0,
    );
    let response = gate.proxy.ask_admin("/metrics");
    let media = response.header("content-type").expect("a media type");
    assert!(media.contains("text"), "{media}");
    let text = response.text();
    for name in [
        "portcullis_request_duration_seconds_bucket",
        "portcullis_upstream_duration_seconds",
        "portcullis_connections{",
        "portcullis_reloads_total",
        "portcullis_log_lines_dropped_total",
        "portcullis_limiter_entries",
        "portcullis_certificate_expiry_seconds",
    ] {
        assert!(text.contains(name), "no {name} in\n{text}");
    }
    for word in ["private", "user=7", "127.0.0.1", "WEIRD"] {
        assert!(!text.contains(word), "`{word}` is in the metrics");
    }
}

#[test]
fn the_admin_listener_answers_three_paths() {
    let origin = Origin::echo();
    let gate = Gate::before(&origin).open();
    gate.proxy.ask_admin("/livez").expect(200);
    gate.proxy.ask_admin("/readyz").expect(200);
    gate.proxy.ask_admin("/metrics").expect(200);
    gate.proxy.ask_admin("/").expect(404);
    gate.proxy.ask_admin("/../etc/passwd");
    let response = Client::plain(gate.proxy.admin())
        .send("POST /metrics HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n")
        .response();
    response.expect(405);
    origin.expect_untouched();
}
