//! Webhooks with a code over their body, as GitHub, Stripe, Slack and others send them.

use std::fmt::Write;
use std::net::TcpListener;

use crate::harness::gate::Running;
use crate::harness::issuer::now;
use crate::harness::message_signer::MessageSigner;
use crate::harness::{Client, Gate, Origin, Response, eventually};

/// GitHub's documented example.
const SECRET: &str = "It's a Secret to Everybody";
const BODY: &str = "Hello, World!";
const CODE: &str = "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17";

struct Scene {
    gate: Running,
    origin: Origin,
    signer: MessageSigner,
}

impl Scene {
    /// Every path for the sender `hook` of these lines.
    fn new(lines: &str) -> Self {
        Self::of(lines, "")
    }

    /// The same with more lines of `auth`.
    fn of(lines: &str, auth: &str) -> Self {
        Self::before(Origin::echo(), lines, auth)
    }

    fn before(origin: Origin, lines: &str, auth: &str) -> Self {
        let gate = Gate::before(&origin);
        let signer = MessageSigner::start(gate.directory());
        let gate = gate
            .environment("HOOK_SECRET", SECRET)
            .environment("NEXT_SECRET", "the secret of next year")
            .with(&sections(lines, auth))
            .start();
        Self {
            gate,
            origin,
            signer,
        }
    }

    fn deliver(&self, fields: &[(&str, &str)], body: &str) -> Response {
        self.gate.exchange(delivery(fields, body))
    }

    #[track_caller]
    fn expect_refused(&self, what: &str, response: &Response, detail: &str) {
        assert_eq!(response.status, 401, "{what}: {}", response.text());
        let problem = response.problem();
        assert_eq!(
            problem["type"], "urn:portcullis:problem:signature-invalid",
            "{what}"
        );
        assert_eq!(
            response.headers("www-authenticate"),
            ["Signature realm=\"app.example\""],
            "{what}"
        );
        let id = problem["instance"].as_str().expect("an id");
        let of = |line: &serde_json::Value| line["request_id"] == id;
        let line = self.gate.proxy.await_access("the refusal", of);
        assert_eq!(line["detail"], detail, "{what}: {line}");
        assert!(line["enduser.id"].is_null(), "{what}: {line}");
    }
}

fn sections(lines: &str, auth: &str) -> String {
    format!(
        "[signers.hook]\n{lines}\n\
         [[blueprints]]\nname = \"hooks\"\nhosts = [\"app.example\"]\nupstream = \"legacy\"\n\
         [blueprints.auth]\nrequire = [\"signature\"]\nsigners = [\"hook\"]\n{auth}"
    )
}

fn delivery(fields: &[(&str, &str)], body: &str) -> String {
    let mut text = "POST /hook HTTP/1.1\r\nHost: app.example\r\n".to_owned();
    for (name, value) in fields {
        let _ = write!(text, "{name}: {value}\r\n");
    }
    text + &format!("Content-Length: {}\r\n\r\n{body}", body.len())
}

const GITHUB: &str = "scheme = \"github\"\nsecret = [{ env = \"NEXT_SECRET\" }, { env = \"HOOK_SECRET\" }]\n\
                      subject = \"octo\"\nroles = [\"hook\"]";

#[test]
fn the_documented_example_of_github_passes() {
    let scene = Scene::new(GITHUB);
    let fields = [
        ("X-Hub-Signature-256", CODE),
        (
            "X-Hub-Signature",
            "sha1=01dc10d0c83e72ed246219cdd91669667fe2ca59",
        ),
        ("X-GitHub-Event", "ping"),
    ];
    scene.deliver(&fields, BODY).expect(200);
    let received = scene.origin.only_request();
    assert_eq!(received.body, BODY.as_bytes());
    assert_eq!(received.head.all("x-auth-subject"), ["octo"]);
    assert_eq!(received.head.all("x-auth-roles"), ["hook"]);
    assert_eq!(received.head.all("x-github-event"), ["ping"]);
    assert!(received.head.all("x-hub-signature-256").is_empty());
    assert!(received.head.all("x-hub-signature").is_empty());
    let chunked = delivery(&fields, "").replace("Content-Length: 0", "Transfer-Encoding: chunked");
    let chunked = chunked + "7\r\nHello, \r\n6\r\nWorld!\r\n0\r\n\r\n";
    scene.gate.exchange(chunked).expect(200);
}

#[test]
fn another_body_or_code_stays_here() {
    let scene = Scene::new(GITHUB);
    let field = [("X-Hub-Signature-256", CODE)];
    for body in ["Hello, World", "hello, World!", ""] {
        let response = scene.deliver(&field, body);
        scene.expect_refused("another body", &response, "signature");
    }
    let other = scene.signer.code("the secret of last year", BODY);
    let other = format!("sha256={other}");
    let response = scene.deliver(&[("X-Hub-Signature-256", &other)], BODY);
    scene.expect_refused("another secret", &response, "signature");
    for fields in [
        &[("X-Hub-Signature-256", "sha256=00")][..],
        &[(
            "X-Hub-Signature-256",
            "sha1=01dc10d0c83e72ed246219cdd91669667fe2ca59",
        )],
        &[("X-Hub-Signature-256", CODE), ("X-Hub-Signature-256", CODE)],
    ] {
        let response = scene.deliver(fields, BODY);
        assert_eq!(response.status, 400, "{fields:?}: {}", response.text());
        assert_eq!(
            response.problem()["type"],
            "urn:portcullis:problem:invalid-request"
        );
    }
    for fields in [
        &[][..],
        &[(
            "X-Hub-Signature",
            "sha1=01dc10d0c83e72ed246219cdd91669667fe2ca59",
        )],
    ] {
        let response = scene.deliver(fields, BODY);
        response.expect(401);
        assert_eq!(
            response.problem()["type"],
            "urn:portcullis:problem:credentials-missing"
        );
    }
    scene.origin.expect_untouched();
    let next = scene.signer.code("the secret of next year", BODY);
    let next = format!("sha256={next}");
    scene
        .deliver(&[("X-Hub-Signature-256", &next)], BODY)
        .expect(200);
}

#[test]
fn a_delivery_counts_once_where_that_is_asked_for() {
    let scene = Scene::new(&format!("{GITHUB}\nonce = \"signature\""));
    let named = |id| [("X-Hub-Signature-256", CODE), ("X-GitHub-Delivery", id)];
    scene.deliver(&named("a"), BODY).expect(200);
    let response = scene.deliver(&named("b"), BODY);
    scene.expect_refused("the same again", &response, "replayed");
    assert_eq!(scene.origin.requests().len(), 1);
    let scene = Scene::new(&format!("{GITHUB}\nonce = \"delivery\""));
    scene.deliver(&named("a"), BODY).expect(200);
    let response = scene.deliver(&named("a"), BODY);
    scene.expect_refused("the same name again", &response, "replayed");
    let response = scene.deliver(&[("X-Hub-Signature-256", CODE)], BODY);
    scene.expect_refused("no name", &response, "delivery-missing");
    scene.deliver(&named("b"), BODY).expect(200);
    assert_eq!(scene.origin.requests().len(), 2);
}

#[test]
fn stripe_signs_a_time_and_the_body() {
    let scene = Scene::new("scheme = \"stripe\"\nsecret = { env = \"HOOK_SECRET\" }");
    let value = |time: i64, body: &str| {
        let code = scene.signer.code(SECRET, &format!("{time}.{body}"));
        let other = "0".repeat(64);
        format!("t={time},v1={other},v1={code},v0={other}")
    };
    let deliver = |value: &str, body: &str| scene.deliver(&[("Stripe-Signature", value)], body);
    let right = value(now(), BODY);
    deliver(&right, BODY).expect(200);
    assert_eq!(scene.origin.only_request().body, BODY.as_bytes());
    scene.expect_refused("another body", &deliver(&right, "Hello"), "signature");
    let moved = right.replacen(&format!("t={}", now()), &format!("t={}", now() + 1), 1);
    if moved != right {
        scene.expect_refused("another time", &deliver(&moved, BODY), "signature");
    }
    let old = value(now() - 301, BODY);
    scene.expect_refused("five minutes ago", &deliver(&old, BODY), "too-old");
    let ahead = value(now() + 90, BODY);
    scene.expect_refused("ahead", &deliver(&ahead, BODY), "time-in-future");
    assert_eq!(scene.origin.requests().len(), 1);
}

#[test]
fn slack_sends_its_time_beside_the_code() {
    let scene = Scene::new("scheme = \"slack\"\nsecret = { env = \"HOOK_SECRET\" }");
    let deliver = |time: i64, signed: i64| {
        let code = scene.signer.code(SECRET, &format!("v0:{signed}:{BODY}"));
        let (code, time) = (format!("v0={code}"), time.to_string());
        let fields = [
            ("X-Slack-Signature", code.as_str()),
            ("X-Slack-Request-Timestamp", time.as_str()),
        ];
        scene.deliver(&fields, BODY)
    };
    deliver(now(), now()).expect(200);
    let old = now() - 301;
    scene.expect_refused("five minutes ago", &deliver(old, old), "too-old");
    let response = deliver(now(), old);
    scene.expect_refused("an old one with a new time", &response, "signature");
    assert_eq!(scene.origin.requests().len(), 1);
}

#[test]
fn a_field_of_ones_own() {
    let scene = Scene::new(
        "scheme = \"hmac\"\nsecret = { env = \"HOOK_SECRET\" }\nheader = \"X-Shop-Hmac\"\nencoding = \"base64\"",
    );
    let code = scene.signer.code_in_base64(SECRET, BODY);
    scene.deliver(&[("X-Shop-Hmac", &code)], BODY).expect(200);
    let head = scene.origin.only_request().head;
    assert_eq!(head.all("x-auth-subject"), ["hook"]);
    assert!(head.all("x-shop-hmac").is_empty());
    let response = scene.deliver(&[("X-Shop-Hmac", &code)], "Hello");
    scene.expect_refused("another body", &response, "signature");
}

#[test]
fn a_body_is_held_within_bounds_and_rights_count_after_it() {
    let scene = Scene::new(GITHUB);
    let long = "x".repeat((1 << 20) + 1);
    let code = format!("sha256={}", scene.signer.code(SECRET, &long));
    let response = scene.deliver(&[("X-Hub-Signature-256", &code)], &long);
    response.expect(413);
    scene.origin.expect_untouched();
    let whole = &long[1..];
    let code = format!("sha256={}", scene.signer.code(SECRET, whole));
    scene
        .deliver(&[("X-Hub-Signature-256", &code)], whole)
        .expect(200);
    assert_eq!(scene.origin.only_request().body.len(), 1 << 20);
}

#[test]
fn a_code_that_is_only_watched_bans_nobody() {
    let scene = Scene::of(
        GITHUB,
        "mode = \"monitor\"\n[blueprints.ban]\nfailures = 1\n",
    );
    let field = [("X-Hub-Signature-256", CODE)];
    for _ in 0..3 {
        scene.deliver(&field, "another body").expect(200);
    }
    let entries = scene.gate.proxy.metric("portcullis_ban_entries", &[]);
    assert_eq!(entries.to_string(), "0");
}

#[test]
fn a_decoy_before_the_code_makes_no_new_delivery_of_an_old_one() {
    let scene =
        Scene::new("scheme = \"stripe\"\nsecret = { env = \"HOOK_SECRET\" }\nonce = \"signature\"");
    let time = now();
    let code = scene.signer.code(SECRET, &format!("{time}.{BODY}"));
    let deliver = |value: &str| scene.deliver(&[("Stripe-Signature", value)], BODY);
    let decoyed = |n: usize| format!("t={time},v1={n:064x},v1={code}");
    deliver(&decoyed(0)).expect(200);
    for n in 1..5 {
        scene.expect_refused("a decoy", &deliver(&decoyed(n)), "replayed");
    }
    for value in [
        format!("t={time},v1={code}"),
        format!("v1={code},v1={code},t={time}"),
        format!("v0={code},v1={},t={time}", code.to_uppercase()),
    ] {
        scene.expect_refused("without one", &deliver(&value), "replayed");
    }
    assert_eq!(scene.origin.requests().len(), 1);
    assert_eq!(remembered(&scene).to_string(), "1");
}

fn remembered(scene: &Scene) -> f64 {
    let proxy = &scene.gate.proxy;
    proxy.metric("portcullis_replay_entries", &["signer=\"hook\""])
}

/// A refusal for want of memory: nothing passes that could not be remembered.
#[track_caller]
fn expect_no_room(scene: &Scene, response: &Response) {
    let problem = response.expect(503).problem();
    assert_eq!(problem["type"], "urn:portcullis:problem:overloaded");
    assert_eq!(response.header("retry-after"), Some("60"));
    let id = problem["instance"].as_str().expect("an id");
    let of = |line: &serde_json::Value| line["request_id"] == id;
    let line = scene.gate.proxy.await_access("the refusal", of);
    assert_eq!(line["detail"], "replay-store-full", "{line}");
    assert_eq!(line["stage"], "authn", "{line}");
    assert!(line["enduser.id"].is_null(), "{line}");
}

#[test]
fn a_full_memory_of_deliveries_lets_nothing_pass() {
    let scene = Scene::new(&format!("{GITHUB}\nonce = \"signature\"\nonce_entries = 1"));
    let code = |body: &str| format!("sha256={}", scene.signer.code(SECRET, body));
    let deliver = |body: &str| scene.deliver(&[("X-Hub-Signature-256", code(body).as_str())], body);
    deliver("one").expect(200);
    expect_no_room(&scene, &deliver("two"));
    scene.expect_refused("again", &deliver("one"), "replayed");
    assert_eq!(scene.origin.requests().len(), 1);
}

#[test]
fn one_delivery_under_many_names_does_not_fill_the_memory_and_is_not_locked_out() {
    let scene = Scene::new(&format!("{GITHUB}\nonce = \"delivery\"\nonce_entries = 48"));
    let named = |name: &str| {
        let fields = [("X-Hub-Signature-256", CODE), ("X-GitHub-Delivery", name)];
        scene.deliver(&fields, BODY)
    };
    // Of the names of one body a sixteenth of the memory is remembered, the last ones: a sender whose body is always the
    // same goes on.
    for name in ["a", "b", "c", "d", "e"] {
        named(name).expect(200);
    }
    for name in ["c", "d", "e"] {
        scene.expect_refused("a late name", &named(name), "replayed");
    }
    assert_eq!(remembered(&scene).to_string(), "3");
    // Whatever else is delivered finds room.
    let code = format!("sha256={}", scene.signer.code(SECRET, "another"));
    let fields = [
        ("X-Hub-Signature-256", code.as_str()),
        ("X-GitHub-Delivery", "f"),
    ];
    scene.deliver(&fields, "another").expect(200);
    assert_eq!(scene.origin.requests().len(), 6);
}

#[test]
fn a_webhook_opens_no_tunnel() {
    let scene = Scene::new(GITHUB);
    let code = format!("sha256={}", scene.signer.code(SECRET, ""));
    let plain = [("X-Hub-Signature-256", code.as_str())];
    let tunnel = [
        ("Connection", "Upgrade"),
        ("Upgrade", "websocket"),
        ("Sec-WebSocket-Version", "13"),
        ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
        plain[0],
    ];
    let response = scene.gate.get_with("/hook", &tunnel);
    scene.expect_refused("a tunnel", &response, "upgrade");
    scene.origin.expect_untouched();
    scene.gate.get_with("/hook", &plain).expect(200);
}

#[test]
fn a_word_of_aws_in_the_query_saves_no_forger_of_codes_from_a_ban() {
    let scene = Scene::of(GITHUB, "[blueprints.ban]\nfailures = 3\n");
    let forged = format!("sha256={}", "0".repeat(64));
    let text = delivery(&[("X-Hub-Signature-256", &forged)], BODY);
    let text = text.replacen("/hook", "/hook?X-Amz-Signature=x", 1);
    for _ in 0..3 {
        let response = scene.gate.exchange(&text);
        scene.expect_refused("forged", &response, "signature");
    }
    let problem = scene.gate.exchange(&text).expect(429).problem();
    assert_eq!(problem["type"], "urn:portcullis:problem:banned");
    scene.origin.expect_untouched();
}

const ONCE: &str = "scheme = \"github\"\nsecret = { env = \"HOOK_SECRET\" }\nonce = \"signature\"";

#[test]
fn a_delivery_that_the_gate_itself_turns_away_is_not_used_up() {
    let limit = "[[blueprints.rate_limits]]\nname = \"each\"\nkey = \"subject\"\nquota = 1\nwindow = \"2s\"\n";
    let scene = Scene::of(ONCE, limit);
    let code = format!("sha256={}", scene.signer.code(SECRET, "two"));
    let second = || scene.deliver(&[("X-Hub-Signature-256", code.as_str())], "two");
    scene
        .deliver(&[("X-Hub-Signature-256", CODE)], BODY)
        .expect(200);
    second().expect(429);
    eventually("it is let in as it was told", || {
        let answer = second();
        assert!([200, 429].contains(&answer.status), "{}", answer.text());
        (answer.status == 200).then_some(())
    });
    // What was let in is refused before it uses up the rights of the sender.
    for _ in 0..3 {
        scene.expect_refused("again", &second(), "replayed");
    }
    assert_eq!(scene.origin.requests().len(), 2);
}

#[test]
fn a_delivery_that_reached_no_backend_is_not_used_up() {
    let mut scene = Scene::of(ONCE, "");
    let nobody = TcpListener::bind("127.0.0.1:0").and_then(|socket| socket.local_addr());
    let nobody = nobody.expect("an address that nobody listens on any more");
    let gone = format!(
        "[upstreams.gone]\nservers = [\"http://{nobody}\"]\nbreaker = {{ failures = 2, open = \"1m\" }}\n"
    );
    let sections = sections(ONCE, "");
    scene
        .gate
        .reload_with(&(gone + &sections.replace("\"legacy\"", "\"gone\"")));
    let deliver = |scene: &Scene| scene.deliver(&[("X-Hub-Signature-256", CODE)], BODY);
    let reasons: Vec<String> = (0..4)
        .map(|_| {
            let problem = deliver(&scene).problem();
            problem["type"].as_str().expect("a type").to_owned()
        })
        .collect();
    assert_eq!(reasons[0], "urn:portcullis:problem:upstream-unreachable");
    assert_eq!(reasons[3], "urn:portcullis:problem:breaker-open");
    scene.gate.reload_with(&sections);
    deliver(&scene).expect(200);
    scene.expect_refused("again", &deliver(&scene), "replayed");
}

#[test]
fn a_delivery_that_a_backend_may_have_read_is_used_up() {
    let origin = Origin::script(|conn| {
        conn.request()?;
        Ok(())
    });
    let scene = Scene::before(origin, ONCE, "");
    let deliver = || scene.deliver(&[("X-Hub-Signature-256", CODE)], BODY);
    deliver().expect(502);
    scene.expect_refused("again", &deliver(), "replayed");
}

#[test]
fn of_copies_that_come_at_once_one_passes() {
    let scene = Scene::new(ONCE);
    let whole = delivery(&[("X-Hub-Signature-256", CODE)], BODY);
    let (most, last) = whole.split_at(whole.len() - 1);
    let mut clients: Vec<Client> = (0..8).map(|_| scene.gate.https()).collect();
    for client in &mut clients {
        client.send(most);
    }
    for client in &mut clients {
        client.send(last);
    }
    let statuses = clients.iter_mut().map(|client| client.response().status);
    let statuses: Vec<u16> = statuses.collect();
    let passed = statuses.iter().filter(|status| **status == 200).count();
    assert_eq!(passed, 1, "{statuses:?}");
    assert!(statuses.iter().all(|status| [200, 401].contains(status)));
    assert_eq!(scene.origin.requests().len(), 1);
}

#[test]
fn other_bounds_on_what_counts_once_forget_nothing() {
    let mut scene = Scene::new(ONCE);
    let deliver = |scene: &Scene| scene.deliver(&[("X-Hub-Signature-256", CODE)], BODY);
    deliver(&scene).expect(200);
    for lines in ["once_entries = 7", "max_age = \"2h\"", "subject = \"b\""] {
        scene
            .gate
            .reload_with(&sections(&format!("{ONCE}\n{lines}"), ""));
        scene.expect_refused(lines, &deliver(&scene), "replayed");
    }
    assert_eq!(scene.origin.requests().len(), 1);
}
