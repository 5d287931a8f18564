//! `mask_errors`: a backend's 5xx answer and all that it tells stay behind the gate.

use crate::harness::gate::{PUBLIC, request};
use crate::harness::origin::answer;
use crate::harness::proxy::portcullis_verb;
use crate::harness::{Gate, Origin};

const TRACE: &str = "Traceback: db=10.0.0.7 user=root\x1b[31m\n";
const MASKED: &str = "rate_limits = []\nmask_errors = { mode = \"enforce\" }";

/// Answers 503 with a long stack trace, in a cookie and in a header too.
fn talkative() -> Origin {
    Origin::serve(|_| {
        let headers = [
            ("Content-Type", "text/html"),
            ("Set-Cookie", "debug=10.0.0.7"),
            ("X-Debug-Token", "10.0.0.7"),
            ("Server", "Werkzeug"),
            ("Retry-After", "7"),
        ];
        answer(503, &headers, TRACE.repeat(200) + "the end of it")
    })
}

#[test]
fn nothing_of_a_backends_error_but_its_status_reaches_the_client() {
    let origin = talkative();
    let gate = Gate::before(&origin).defaults(MASKED).open();
    let mut client = gate.https();
    for accept in ["*/*", "text/html"] {
        let response = client
            .send(request("GET", "/x", &[("Accept", accept)]))
            .response();
        response.expect(503);
        let all = String::from_utf8_lossy(&response.head.raw).into_owned() + &response.text();
        for leak in ["10.0.0.7", "Traceback", "Werkzeug", "x-debug-token"] {
            assert!(!all.contains(leak), "`{leak}` in {all}");
        }
        assert!(all.contains("upstream-error"), "{all}");
        assert_eq!(response.headers("retry-after"), ["7"]);
        assert_eq!(response.headers("x-content-type-options"), ["nosniff"]);
        assert_eq!(response.headers("cache-control"), ["no-store"]);
        match accept {
            "text/html" => assert_eq!(
                response.header("content-type"),
                Some("text/html; charset=utf-8")
            ),
            _ => assert_eq!(
                response.problem()["type"],
                "urn:portcullis:problem:upstream-error"
            ),
        }
    }
    client
        .send(request("HEAD", "/x", &[]))
        .response_to("HEAD")
        .expect(503);
    assert_eq!(
        origin.connections(),
        1,
        "the connection to the backend is used again"
    );
    let line = gate.proxy.await_access_of("/x");
    assert_eq!(line["reason"], "upstream-error", "{line}");
    assert_eq!(line["decision"], "failed", "{line}");
    assert_eq!(line["http.response.status_code"], 503, "{line}");
    let labels = [
        "stage=\"forward\"",
        "reason=\"upstream-error\"",
        "mode=\"enforce\"",
    ];
    gate.proxy
        .await_metric("portcullis_refusals_total", &labels, 3.0);
    assert!(
        !gate.proxy.talk().contains("Traceback"),
        "shown at level info"
    );
}

#[test]
fn the_original_is_in_the_debug_log_cut_and_escaped() {
    let origin = talkative();
    let gate = Gate::before(&origin)
        .log("level = \"debug\"")
        .defaults(MASKED)
        .open();
    let response = gate.get("/x");
    gate.proxy.await_talk("answer of a backend that was masked");
    let talk = gate.proxy.talk();
    let shown: Vec<&str> = talk
        .lines()
        .filter(|line| line.contains("Traceback"))
        .collect();
    let [line] = shown.as_slice() else {
        panic!("{shown:?}")
    };
    assert!(
        line.len() < 3 * 4096 && !line.contains("the end of it"),
        "{line}"
    );
    assert!(!line.contains('\x1b'), "{line}");
    let id = response.problem()["instance"].to_string();
    assert!(
        line.contains(id.trim_matches('"').rsplit(':').next().expect("an id")),
        "{line}"
    );
}

#[test]
fn only_server_errors_are_masked_and_the_nearest_word_counts() {
    let origin = Origin::serve(|received| {
        let status = received.head.target()[1..4].parse().expect("a status");
        answer(status, &[], "words of the backend")
    });
    let gate = Gate::before(&origin)
        .defaults(MASKED)
        .with(PUBLIC)
        .with("[[blueprints.routes]]\npath = \"/502/plain\"\nmask_errors = { mode = \"off\" }")
        .with(
            "[[blueprints.routes]]\npath = \"/500/watched\"\nmask_errors = { mode = \"monitor\" }",
        )
        .start();
    for (path, status, masked) in [
        ("/200", 200, false),
        ("/404", 404, false),
        ("/500", 500, true),
        ("/599", 599, true),
        ("/502/plain", 502, false),
        ("/500/watched", 500, false),
    ] {
        let response = gate.get(path);
        response.expect(status);
        assert_eq!(response.text() != "words of the backend", masked, "{path}");
    }
    let line = gate.proxy.await_access_of("/500/watched");
    assert!(
        line["would_refuse"].to_string().contains("upstream-error"),
        "{line}"
    );
    assert_eq!(line["decision"], "forwarded", "{line}");
}

#[test]
fn without_a_word_errors_pass_and_explain_tells_where_they_do_not() {
    let origin = talkative();
    let gate = Gate::before(&origin).open();
    assert!(gate.get("/x").expect(503).text().starts_with("Traceback"));

    let told = |gate: Gate| {
        let gate = gate.with(PUBLIC);
        let file = gate.write().display().to_string();
        let output = portcullis_verb(&["explain", "-c", &file, "GET", "https://app.example/x"]);
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    assert!(!told(Gate::before(&origin)).contains("upstream-error"));
    let text = told(Gate::before(&origin).defaults(MASKED));
    assert!(
        text.contains("a 5xx answer becomes the problem `upstream-error`"),
        "{text}"
    );
}
