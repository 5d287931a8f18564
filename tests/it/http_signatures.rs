//! HTTP message signatures (RFC 9421) and digests (RFC 9530), case b41, made by a library that shares no code with the
//! proxy.

use std::fmt::Write;

use serde_json::json;

use crate::harness::gate::Running;
use crate::harness::issuer::now;
use crate::harness::message_signer::{BODY, MessageSigner, Signing};
use crate::harness::python::h2;
use crate::harness::{Client, Gate, Issuer, Mint, Origin, Response};

/// Every path for whoever signs with one of these keys.
const SIGNED: &str = r#"
[[blueprints]]
name = "app"
hosts = ["app.example"]
upstream = "legacy"
[blueprints.auth]
require = ["signature"]
signers = ["ed25519", "ecdsa-p256-sha256", "rsa-pss-sha512", "hmac-sha256"]
"#;

const ALGORITHMS: [&str; 4] = [
    "ed25519",
    "ecdsa-p256-sha256",
    "rsa-pss-sha512",
    "hmac-sha256",
];

struct Scene {
    gate: Running,
    signer: MessageSigner,
    origin: Origin,
}

/// `[signers.…]` for each key, with further lines for all.
fn signers(lines: &str) -> String {
    let section = |algorithm: &&str| {
        let key = match *algorithm {
            "hmac-sha256" => "secret = { file = \"hmac-sha256.secret\" }".to_owned(),
            other => format!("public_key = \"{other}.pem\""),
        };
        format!(
            "[signers.{algorithm}]\nscheme = \"http\"\nkey_id = \"{algorithm}\"\n{key}\n\
             subject = \"by {algorithm}\"\nroles = [\"payer\"]\n{lines}\n"
        )
    };
    ALGORITHMS.iter().map(section).collect()
}

impl Scene {
    fn new() -> Self {
        Self::with("", SIGNED)
    }

    fn with(lines: &str, sections: &str) -> Self {
        let origin = Origin::echo();
        let gate = Gate::before(&origin);
        let signer = MessageSigner::start(gate.directory());
        let gate = gate.with(&signers(lines)).with(sections).start();
        Self {
            gate,
            signer,
            origin,
        }
    }

    fn send(&self, signing: &Signing, body: &str) -> Response {
        self.send_fields(&self.signer.sign(signing), body)
    }

    fn send_fields(&self, fields: &[(String, String)], body: &str) -> Response {
        self.gate.exchange(post("/pay?n=1", fields, body))
    }

    #[track_caller]
    fn expect_invalid(&self, what: &str, response: &Response, detail: &str) {
        expect_invalid(what, response);
        self.origin.expect_untouched();
        let id = response.problem()["instance"]
            .as_str()
            .expect("an id")
            .to_owned();
        let line = self
            .gate
            .proxy
            .await_access("the refusal", |line| line["request_id"] == id.as_str());
        assert_eq!(line["reason"], "signature-invalid", "{what}: {line}");
        assert_eq!(line["detail"], detail, "{what}: {line}");
        assert!(line["enduser.id"].is_null(), "{what}: {line}");
    }
}

fn post(path: &str, fields: &[(String, String)], body: &str) -> String {
    let mut text = format!("POST {path} HTTP/1.1\r\nHost: app.example\r\n");
    for (name, value) in fields {
        let _ = write!(text, "{name}: {value}\r\n");
    }
    text + &format!("Content-Length: {}\r\n\r\n{body}", body.len())
}

#[track_caller]
fn expect_invalid(what: &str, response: &Response) {
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
    let wishes = response
        .header("accept-signature")
        .expect("what would pass");
    assert!(
        wishes.starts_with("sig1=(\"@method\" \"@target-uri\""),
        "{what}: {wishes}"
    );
}

#[test]
fn b41_each_kind_of_key_signs_requests_that_pass() {
    let scene = Scene::new();
    for algorithm in ALGORITHMS {
        for digest in ["sha-256", "sha-512"] {
            let signing = Signing::with(algorithm).set("digest", digest);
            let response = scene.send(&signing, BODY);
            assert_eq!(response.status, 200, "{algorithm}: {}", response.text());
            let received = scene.origin.last_request();
            let head = received.head;
            assert_eq!(received.body, BODY.as_bytes());
            assert_eq!(head.all("x-auth-subject"), [format!("by {algorithm}")]);
            assert_eq!(head.all("x-auth-roles"), ["payer"]);
            assert_eq!(head.all("content-digest").len(), 1);
            assert!(head.all("signature").is_empty(), "{head:#?}");
            assert!(head.all("signature-input").is_empty(), "{head:#?}");
        }
        let fields = scene.signer.sign(&Signing::get(algorithm, "/pay?n=2"));
        let fields: Vec<(&str, &str)> = fields.iter().map(|(n, v)| (&**n, &**v)).collect();
        scene.gate.get_with("/pay?n=2", &fields).expect(200);
    }
}

#[test]
fn b41_an_altered_body_stays_here() {
    let scene = Scene::new();
    let signing = Signing::with("ed25519");
    let fields = scene.signer.sign(&signing);
    for body in ["{\"amount\": 11}", "{\"amount\": 10", ""] {
        let response = scene.send_fields(&fields, body);
        scene.expect_invalid("another body", &response, "digest");
    }
    let mut chunked =
        post("/pay?n=1", &fields, "").replace("Content-Length: 0", "Transfer-Encoding: chunked");
    chunked += "5\r\n{\"amo\r\n9\r\nunt\": 11}\r\n0\r\n\r\n";
    let response = scene.gate.exchange(&chunked);
    scene.expect_invalid("another body in chunks", &response, "digest");
    let right = chunked.replace("unt\": 11}", "unt\": 10}");
    scene.gate.exchange(right).expect(200);
    assert_eq!(scene.origin.only_request().body, BODY.as_bytes());
}

#[test]
fn b41_what_is_not_covered_or_not_there_is_named_and_stays_here() {
    let scene = Scene::new();
    let uncovered =
        Signing::with("ed25519").set("components", json!(["@method", "content-digest"]));
    let response = scene.send(&uncovered, BODY);
    scene.expect_invalid(
        "the target is not covered",
        &response,
        "component-not-covered",
    );
    let wishes = response
        .header("accept-signature")
        .expect("what would pass");
    assert!(
        wishes.starts_with(
            "sig1=(\"@method\" \"@target-uri\" \"content-digest\");created;alg=\"ed25519\", sig2="
        ),
        "{wishes}"
    );
    let undigested = Signing::with("ed25519").set("components", json!(["@method", "@target-uri"]));
    let response = scene.send(&undigested, BODY);
    scene.expect_invalid("the digest is not covered", &response, "body-not-covered");
    let mut fields = scene.signer.sign(&Signing::with("ed25519"));
    fields.retain(|(name, _)| !name.eq_ignore_ascii_case("content-digest"));
    let response = scene.send_fields(&fields, BODY);
    scene.expect_invalid("the covered digest is gone", &response, "component-absent");
    let old = Signing::with("ed25519")
        .set("headers", json!({"Content-Digest": "md5=:AAAA:"}))
        .without("digest");
    let response = scene.send(&old, BODY);
    scene.expect_invalid("a digest that binds nothing", &response, "digest-unknown");
}

#[test]
fn b41_a_signature_counts_for_five_minutes() {
    let scene = Scene::new();
    for (created, detail) in [(now() - 301, "too-old"), (now() + 90, "created-in-future")] {
        let response = scene.send(&Signing::with("ed25519").set("created", created), BODY);
        scene.expect_invalid(detail, &response, detail);
    }
    let ended = Signing::with("ed25519")
        .set("created", now() - 20)
        .set("expires", now() - 10);
    let response = scene.send(&ended, BODY);
    scene.expect_invalid("expired", &response, "expired");
    for created in [now() - 280, now() + 30] {
        scene
            .send(&Signing::with("ed25519").set("created", created), BODY)
            .expect(200);
    }
}

#[test]
fn b41_all_failures_are_one_answer() {
    let scene = Scene::new();
    let mut answers = Vec::new();
    let signed = |signing: Signing| scene.signer.sign(&signing);
    let mut forged = signed(Signing::with("ed25519"));
    for (name, value) in &mut forged {
        if name.eq_ignore_ascii_case("signature") {
            "sig=:AAAA:".clone_into(value);
        }
    }
    for fields in [
        forged,
        signed(Signing::with("ed25519").set("keyid", "nobody")),
        signed(Signing::with("ed25519").set("keyid", "hmac-sha256")),
        signed(Signing::with("ed25519").set("created", now() - 1000)),
        signed(Signing::with("ed25519").set("url", "https://app.example/pay?n=2")),
        signed(Signing::with("ed25519").set("url", "https://evil.example/pay?n=1")),
        signed(Signing::with("ed25519").set("url", "http://app.example/pay?n=1")),
        signed(Signing::with("ed25519").set("method", "PUT")),
        signed(
            Signing::with("hmac-sha256")
                .set("keyid", "ed25519")
                .set("include_alg", false),
        ),
    ] {
        let response = scene.send_fields(&fields, BODY);
        expect_invalid("a bad signature", &response);
        let mut problem = response.problem();
        problem["instance"] = json!(null);
        answers.push((
            problem,
            response.header("accept-signature").map(str::to_owned),
        ));
    }
    answers.dedup();
    assert_eq!(answers.len(), 1, "{answers:#?}");
    scene.origin.expect_untouched();
}

#[test]
fn b41_a_nonce_is_used_once_even_across_a_reload() {
    let scene = Scene::with("once = \"nonce\"\n", SIGNED);
    let response = scene.send(&Signing::with("ed25519"), BODY);
    scene.expect_invalid("no nonce", &response, "nonce-missing");
    let fields = scene
        .signer
        .sign(&Signing::with("ed25519").set("nonce", "n-1"));
    scene.send_fields(&fields, BODY).expect(200);
    let again = scene.send_fields(&fields, BODY);
    expect_invalid("the same again", &again);
    let anew = Signing::with("ed25519")
        .set("nonce", "n-1")
        .set("created", now() - 1);
    expect_invalid("the same nonce, signed anew", &scene.send(&anew, BODY));
    scene.gate.reload();
    expect_invalid("after a reload", &scene.send_fields(&fields, BODY));
    scene
        .send(&Signing::with("ed25519").set("nonce", "n-2"), BODY)
        .expect(200);
    let other = Signing::with("hmac-sha256").set("nonce", "n-1");
    scene.send(&other, BODY).expect(200);
    assert_eq!(scene.origin.requests().len(), 3);
    let metric = |name, labels: &[&str]| scene.gate.proxy.metric(name, labels);
    let remembered = metric("portcullis_replay_entries", &["signer=\"ed25519\""]);
    let refused = metric(
        "portcullis_replays_refused_total",
        &["signer=\"ed25519\"", "outcome=\"again\""],
    );
    assert!(
        (remembered - 2.0).abs() < 0.5 && (refused - 3.0).abs() < 0.5,
        "{remembered} {refused}"
    );
}

#[test]
fn a_full_memory_of_nonces_refuses_what_is_new() {
    let scene = Scene::with("once = \"nonce\"\nonce_entries = 2\n", SIGNED);
    let send = |nonce: &str| scene.send(&Signing::with("ed25519").set("nonce", nonce), BODY);
    send("a").expect(200);
    send("b").expect(200);
    let full = send("c");
    full.expect(503);
    assert_eq!(full.problem()["type"], "urn:portcullis:problem:overloaded");
    assert_eq!(full.header("retry-after"), Some("60"));
    assert_eq!(scene.origin.requests().len(), 2);
    expect_invalid("what is remembered stays so", &send("a"));
}

#[test]
fn a_request_that_is_not_signed_is_told_how() {
    let scene = Scene::new();
    let response = scene.gate.get("/pay");
    response.expect(401);
    assert_eq!(
        response.problem()["type"],
        "urn:portcullis:problem:credentials-missing"
    );
    assert_eq!(
        response.headers("www-authenticate"),
        ["Signature realm=\"app.example\""]
    );
    assert_eq!(
        response.header("accept-signature"),
        Some(
            "sig1=(\"@method\" \"@target-uri\");created;alg=\"ed25519\", \
             sig2=(\"@method\" \"@target-uri\");created;alg=\"ecdsa-p256-sha256\", \
             sig3=(\"@method\" \"@target-uri\");created;alg=\"rsa-pss-sha512\", \
             sig4=(\"@method\" \"@target-uri\");created;alg=\"hmac-sha256\""
        )
    );
    scene.origin.expect_untouched();
}

#[test]
fn signatures_that_cannot_be_read_without_guessing_are_400() {
    let scene = Scene::new();
    let good = scene.signer.sign(&Signing::get("ed25519", "/pay"));
    let field = |wanted: &str| {
        let found = good
            .iter()
            .find(|(name, _)| name.eq_ignore_ascii_case(wanted));
        found.expect(wanted).1.clone()
    };
    let (input, signature) = (field("signature-input"), field("signature"));
    let twice = |value: &str, label: &str| {
        let other = value.replacen("sig=", &format!("{label}="), 1);
        format!("{value}, {other}")
    };
    for (what, input, signature) in [
        ("no signature", input.clone(), String::new()),
        ("no input", String::new(), signature.clone()),
        ("a broken input", format!("{input},"), signature.clone()),
        ("one label twice", twice(&input, "sig"), signature.clone()),
        ("two signatures", twice(&input, "b"), twice(&signature, "b")),
        (
            "another label",
            input.clone(),
            signature.replacen("sig=", "b=", 1),
        ),
    ] {
        let fields = [
            ("Signature-Input", input.as_str()),
            ("Signature", signature.as_str()),
        ];
        let fields: Vec<_> = fields
            .into_iter()
            .filter(|(_, value)| !value.is_empty())
            .collect();
        let response = scene.gate.get_with("/pay", &fields);
        assert_eq!(response.status, 400, "{what}: {}", response.text());
        assert_eq!(
            response.problem()["type"],
            "urn:portcullis:problem:invalid-request",
            "{what}"
        );
    }
    scene.origin.expect_untouched();
}

#[test]
fn a_signature_beside_a_token_is_400() {
    let origin = Origin::echo();
    let issuer = Issuer::http();
    let gate = Gate::before(&origin);
    let signer = MessageSigner::start(gate.directory());
    let both = SIGNED.replace(
        "[\"signature\"]",
        "[\"signature\", \"bearer\"]\nissuers = [\"corp\"]",
    );
    let gate = gate
        .with(&issuer.section())
        .with(&signers(""))
        .with(&both)
        .start();
    let token = issuer.bearer_of(&Mint::new());
    let mut fields = signer.sign(&Signing::get("ed25519", "/pay"));
    let send = |fields: &[(String, String)]| {
        let fields: Vec<(&str, &str)> = fields.iter().map(|(n, v)| (&**n, &**v)).collect();
        gate.get_with("/pay", &fields)
    };
    send(&fields).expect(200);
    send(&[("Authorization".into(), token.clone())]).expect(200);
    fields.push(("Authorization".into(), token));
    send(&fields).expect(400);
    assert_eq!(origin.requests().len(), 2);
}

#[test]
fn the_fields_of_a_signature_go_on_where_that_is_asked_for() {
    let scene = Scene::with(
        "",
        &SIGNED.replace(
            "[blueprints.auth]",
            "[blueprints.auth]\nforward_token = true",
        ),
    );
    scene.send(&Signing::with("ed25519"), BODY).expect(200);
    let head = scene.origin.last_request().head;
    assert_eq!(head.all("signature").len(), 1);
    assert_eq!(head.all("signature-input").len(), 1);
}

#[test]
fn the_normal_form_is_what_was_signed() {
    let scene = Scene::new();
    let fields = scene
        .signer
        .sign(&Signing::with("ed25519").set("url", "https://app.example/pay"));
    for path in ["/pay", "/./pay", "/x/../pay", "/%70ay"] {
        let response = scene.gate.exchange(post(path, &fields, BODY));
        assert_eq!(response.status, 200, "{path}: {}", response.text());
        assert_eq!(scene.origin.last_request().head.target(), "/pay");
    }
    for path in ["/pay/", "/pay?", "/Pay"] {
        let response = scene.gate.exchange(post(path, &fields, BODY));
        expect_invalid(path, &response);
    }
    assert_eq!(scene.origin.requests().len(), 4);
}

#[test]
fn b41_over_http_2() {
    let scene = Scene::new();
    let fields = scene.signer.sign(&Signing::with("ed25519"));
    let send = |body: &str| {
        let account = h2(&json!({
            "do": "fetch",
            "ca": scene.gate.directory.path().join("ca.pem"),
            "address": scene.gate.proxy.https().to_string(),
            "requests": [{"method": "POST", "path": "/pay?n=1", "headers": fields, "body": body}],
        }));
        account["answers"][0]["status"].clone()
    };
    assert_eq!(send("{\"amount\": 11}"), 401);
    scene.origin.expect_untouched();
    assert_eq!(send(BODY), 200);
    assert_eq!(scene.origin.only_request().body, BODY.as_bytes());
}

#[test]
fn b41_the_host_that_was_asked_for_is_the_one_that_was_signed() {
    let scene = Scene::new();
    let covered = json!(["@method", "@authority", "@path", "@query", "content-digest"]);
    let fields = scene
        .signer
        .sign(&Signing::with("ed25519").set("components", covered));
    for host in [
        "app.example",
        "APP.Example",
        "app.example.",
        "app.example:443",
    ] {
        let sent =
            post("/pay?n=1", &fields, BODY).replace("Host: app.example", &format!("Host: {host}"));
        let response = scene.gate.exchange(sent);
        assert_eq!(response.status, 200, "{host}: {}", response.text());
    }
    let sent = post("/pay?n=1", &fields, BODY).replace("Host: app.example", "Host: localhost");
    assert_ne!(scene.gate.exchange(sent).status, 200);
    assert_eq!(scene.origin.requests().len(), 4);
}

/// A GET of a WebSocket with these fields of a signature.
fn handshake(fields: &[(String, String)]) -> String {
    let mut text = "GET /socket HTTP/1.1\r\nHost: app.example\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
        .to_owned();
    let version = |(name, _): &(String, String)| name.eq_ignore_ascii_case("sec-websocket-version");
    if !fields.iter().any(version) {
        text.push_str("Sec-WebSocket-Version: 13\r\n");
    }
    for (name, value) in fields {
        let _ = write!(text, "{name}: {value}\r\n");
    }
    text + "\r\n"
}

#[test]
fn a_signed_get_is_no_handshake_of_a_websocket() {
    let scene = Scene::new();
    let get = || Signing::get("ed25519", "/socket");
    let plain = scene.signer.sign(&get());
    let response = scene.gate.exchange(handshake(&plain));
    scene.expect_invalid("a plain GET", &response, "component-not-covered");
    // Signed as a handshake it is one, which this backend happens not to take.
    let meant = get()
        .set("headers", json!({"Sec-WebSocket-Version": "13"}))
        .set(
            "components",
            json!(["@method", "@target-uri", "sec-websocket-version"]),
        );
    let fields = scene.signer.sign(&meant);
    scene.gate.exchange(handshake(&fields)).expect(200);
    let head = scene.origin.only_request().head;
    assert_eq!(head.all("upgrade"), ["websocket"]);
    assert_eq!(head.all("x-auth-subject"), ["by ed25519"]);
}

#[test]
fn another_body_uses_up_no_nonce() {
    let scene = Scene::with("once = \"nonce\"\n", SIGNED);
    let signing = Signing::with("ed25519").set("nonce", "n-1");
    let fields = scene.signer.sign(&signing);
    let other = scene.send_fields(&fields, &BODY.replace("10", "99"));
    scene.expect_invalid("another body", &other, "digest");
    scene.send_fields(&fields, BODY).expect(200);
    expect_invalid("the same again", &scene.send_fields(&fields, BODY));
    assert_eq!(scene.origin.requests().len(), 1);
}

#[test]
fn a_body_that_nothing_covers_is_refused_at_its_first_byte() {
    let scene = Scene::new();
    let fields = scene.signer.sign(&Signing::get("ed25519", "/pay"));
    let head = post("/pay", &fields, "").replacen("POST", "GET", 1);
    for (framing, begun) in [
        ("Content-Length: 1000", ""),
        ("Transfer-Encoding: chunked", "1\r\nx\r\n"),
    ] {
        let head = head.replace("Content-Length: 0", framing);
        let response = scene.gate.exchange(head + begun);
        scene.expect_invalid(framing, &response, "body-not-covered");
    }
    scene.gate.exchange(head).expect(200);
}

#[test]
fn of_copies_whose_heads_came_at_once_one_passes() {
    let scene = Scene::with("once = \"nonce\"\n", SIGNED);
    let signing = Signing::with("ed25519").set("nonce", "n-1");
    let whole = post("/pay?n=1", &scene.signer.sign(&signing), BODY);
    let (most, last) = whole.split_at(whole.len() - 1);
    let mut clients: Vec<Client> = (0..8).map(|_| scene.gate.https()).collect();
    for client in &mut clients {
        client.send(most);
    }
    // Each takes a first piece of memory; all were found unused by then.
    let all = 8.0 * 4096.0;
    let proxy = &scene.gate.proxy;
    proxy.await_metric("portcullis_spool_bytes", &[], all);
    for client in &mut clients {
        client.send(last);
    }
    let statuses = clients.iter_mut().map(|client| client.response().status);
    let mut statuses: Vec<u16> = statuses.collect();
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 401, 401, 401, 401, 401, 401, 401]);
    assert_eq!(scene.origin.requests().len(), 1);
}
