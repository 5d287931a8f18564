//! AWS Signature Version 4 (case b42): requests signed by botocore, and whatever comes of them when something is off.

use std::fmt::Write;

use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::{Value, json};

use crate::harness::{
    Client, Gate, Origin, Response,
    gate::Running,
    python::{h2, python, run_json},
};

/// A secret of nobody, in the environment of the gate.
const SECRET: &str = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY";

const SIGNERS: &str = r#"
[signers.robot]
scheme = "sigv4"
key_id = "AKIDEXAMPLE"
secret = { env = "ROBOT" }
region = "eu-central-1"
service = "execute-api"
subject = "robot-7"
roles = ["writer"]

[signers.store]
scheme = "sigv4"
key_id = "AKIDSTORE"
secret = { env = "ROBOT" }
region = "eu-central-1"
service = "s3"
"#;

/// Everything of `app.example` for those two, with more lines in `auth` and behind it.
pub fn signed_for(auth: &str, more: &str) -> String {
    format!(
        "[[blueprints]]\nname = \"signed\"\nhosts = [\"app.example\"]\nupstream = \"legacy\"\n\
         [blueprints.auth]\nrequire = [\"signature\"]\nsigners = [\"robot\", \"store\"]\n{auth}\n{more}"
    )
}

/// The gate before `origin` with the two signers, the first of which has further keys.
fn gate_with(origin: &Origin, (robot, auth, more): (&str, &str, &str)) -> Running {
    let signers = SIGNERS.replace(
        "roles = [\"writer\"]",
        &format!("roles = [\"writer\"]\n{robot}"),
    );
    Gate::before(origin)
        .environment("ROBOT", SECRET)
        .with(&signers)
        .with(&signed_for(auth, more))
        .start()
}

pub fn gate(origin: &Origin) -> Running {
    gate_with(origin, ("", "", ""))
}

/// A request to be signed; whatever is not said is that of the first signer.
#[derive(Clone)]
pub struct Draft(Value);

pub fn draft(method: &str, target: &str, body: &[u8]) -> Draft {
    Draft(json!({
        "way": "header",
        "method": method,
        "url": format!("https://app.example{target}"),
        "body": STANDARD.encode(body),
        "key_id": "AKIDEXAMPLE",
        "secret": SECRET,
        "region": "eu-central-1",
        "service": "execute-api",
        "expires": 3600,
    }))
}

impl Draft {
    pub fn with(mut self, key: &str, value: impl Into<Value>) -> Self {
        self.0[key] = value.into();
        self
    }

    /// As the clients of S3 sign.
    pub fn of_store(self) -> Self {
        self.with("way", "s3")
            .with("key_id", "AKIDSTORE")
            .with("service", "s3")
    }

    pub fn sign(self) -> Signed {
        sign([self]).remove(0)
    }
}

/// A signed request, of which a test may change what it likes.
#[derive(Clone, Debug)]
pub struct Signed {
    pub method: String,
    pub target: String,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

/// Signs all of them at once.
pub fn sign(drafts: impl IntoIterator<Item = Draft>) -> Vec<Signed> {
    let drafts: Vec<Value> = drafts.into_iter().map(|draft| draft.0).collect();
    let signed = run_json(python("sigv4.py").arg(json!(drafts).to_string()));
    let text = |value: &Value| value.as_str().expect("a text").to_owned();
    let requests = signed.as_array().expect("a list").iter();
    requests
        .map(|request| Signed {
            method: text(&request["method"]),
            target: text(&request["target"]),
            headers: request["headers"]
                .as_array()
                .expect("fields")
                .iter()
                .map(|field| (text(&field[0]), text(&field[1])))
                .collect(),
            body: STANDARD.decode(text(&request["body"])).expect("base64"),
        })
        .collect()
}

impl Signed {
    pub fn add(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    pub fn body(mut self, body: &[u8]) -> Self {
        self.body = body.to_vec();
        self
    }

    /// The head, with this framing of the body.
    pub fn head(&self, framing: &str) -> String {
        let mut head = format!(
            "{} {} HTTP/1.1\r\nHost: app.example\r\n",
            self.method, self.target
        );
        for (name, value) in &self.headers {
            let _ = write!(head, "{name}: {value}\r\n");
        }
        head + framing + "\r\n"
    }

    /// The whole request, of announced length.
    pub fn bytes(&self) -> Vec<u8> {
        let framing = if self.body.is_empty() {
            String::new()
        } else {
            format!("Content-Length: {}\r\n", self.body.len())
        };
        [self.head(&framing).as_bytes(), &self.body].concat()
    }

    pub fn over(&self, client: &mut Client) -> Response {
        client.send(self.bytes()).response_to(&self.method)
    }

    pub fn to(&self, gate: &Running) -> Response {
        self.over(&mut gate.https())
    }
}

/// A refusal that says nothing but that the signature is not valid, and one line that says which check failed.
#[track_caller]
fn expect_invalid(gate: &Running, response: &Response, detail: &str) {
    let problem = response.expect(403).problem();
    assert_eq!(problem["type"], "urn:portcullis:problem:signature-invalid");
    let told = response.text();
    assert!(!told.contains(detail) || detail == "signature", "{told}");
    let id = problem["instance"].as_str().expect("an id").to_owned();
    let line = gate
        .proxy
        .await_access("the refusal", |line| line["request_id"] == id.as_str());
    assert_eq!(line["reason"], "signature-invalid", "{line}");
    assert_eq!(line["detail"], detail, "{line}");
    assert_eq!(line["stage"], "authn", "{line}");
    assert!(line["enduser.id"].is_null(), "{line}");
}

#[test]
fn b42_requests_signed_by_botocore_pass() {
    let origin = Origin::echo();
    let gate = gate(&origin);
    let json_of = |draft: Draft| draft.with("headers", json!({"Content-Type": "application/json"}));
    let signed = sign([
        draft("GET", "/", b""),
        draft("GET", "/a%20b/c?x=1&q=b%2Fc%20d&x=0", b""),
        json_of(draft("POST", "/orders", b"{\"n\": 1}")),
        draft("DELETE", "/orders/7", b""),
        draft("GET", "/things", b"").of_store(),
        draft("PUT", "/bucket/a%20b%2Bc%3Dd~.txt", &[0, 1, 255]).of_store(),
    ]);
    for (place, request) in signed.iter().enumerate() {
        request.to(&gate).expect(200);
        let received = origin.last_request();
        assert_eq!(received.head.method(), request.method);
        assert_eq!(received.head.target(), request.target);
        assert_eq!(received.body, request.body, "the very bytes");
        assert!(received.head.get("authorization").is_none());
        let subject = if place < 4 { "robot-7" } else { "store" };
        assert_eq!(received.head.get("x-auth-subject"), Some(subject));
    }
    let line = gate.proxy.await_access_of("/orders");
    assert_eq!(line["enduser.id"], "robot-7", "{line}");
    assert_eq!(line["http.request.body.size"], 8, "{line}");
    assert_eq!(line["decision"], "forwarded", "{line}");
}

#[test]
fn b42_the_backend_sees_the_signature_where_the_file_says_so() {
    let origin = Origin::echo();
    let gate = gate_with(&origin, ("", "forward_token = true", ""));
    draft("GET", "/", b"").sign().to(&gate).expect(200);
    let received = origin.only_request();
    let sent = received.head.get("authorization").expect("passed on");
    assert!(sent.starts_with("AWS4-HMAC-SHA256 "), "{sent}");
}

#[test]
fn b42_dates_and_scopes_that_differ_are_403() {
    let origin = Origin::echo();
    let gate = gate(&origin);
    let get = || draft("GET", "/", b"");
    let signed = sign([
        get().with("later", 14 * 60),
        get().with("later", -14 * 60),
        get().with("later", 16 * 60),
        get().with("later", -16 * 60),
        get().with("region", "us-east-1"),
        get().with("service", "s3"),
        get().with("key_id", "AKIDNOBODY"),
        get().with("secret", "another"),
    ]);
    signed[0].to(&gate).expect(200);
    signed[1].to(&gate).expect(200);
    let details = ["date", "date", "scope", "scope", "unknown-key", "signature"];
    let mut bodies = Vec::new();
    for (request, detail) in signed[2..].iter().zip(details) {
        let response = request.to(&gate);
        expect_invalid(&gate, &response, detail);
        let mut problem = response.problem();
        problem["instance"] = Value::Null;
        bodies.push(problem);
    }
    bodies.dedup();
    assert_eq!(bodies.len(), 1, "one body for all: {bodies:?}");
    assert_eq!(origin.requests().len(), 2);
}

#[test]
fn b42_fields_of_amz_must_be_signed() {
    let origin = Origin::echo();
    let gate = gate(&origin);
    let request = draft("GET", "/", b"").sign();
    for name in ["X-Amz-Meta-Tenant", "x_amz_meta-tenant", "Content-Type"] {
        let response = request.clone().add(name, "1").to(&gate);
        expect_invalid(&gate, &response, "unsigned-header");
    }
    let token = request.clone().add("X-Amz-Security-Token", "1").to(&gate);
    expect_invalid(&gate, &token, "unsigned-header");
    origin.expect_untouched();
    let signed = draft("GET", "/", b"")
        .with("headers", json!({"X-Amz-Meta-Tenant": "7"}))
        .sign();
    signed.to(&gate).expect(200);
}

/// A signed body of eight bytes, of which nothing else may take the place.
fn no_other_body_passes(request: &Signed, detail: &str) {
    let origin = Origin::echo();
    let gate = gate(&origin);
    let mut client = gate.https();
    for body in [&b"amount=9"[..], b"", b"amount=1 "] {
        let response = request.clone().body(body).over(&mut client);
        expect_invalid(&gate, &response, detail);
    }
    let chunked = |last: &str| {
        let head = request.head("Transfer-Encoding: chunked\r\n");
        format!("{head}4\r\namou\r\n4\r\n{last}\r\n0\r\n\r\n")
    };
    expect_invalid(&gate, &client.send(chunked("nt=2")).response(), detail);
    origin.expect_untouched();
    // All of them were read to their end, so the connection goes on.
    request.over(&mut client).expect(200);
    client.send(chunked("nt=1")).response().expect(200);
    let bodies: Vec<_> = origin
        .requests()
        .into_iter()
        .map(|request| request.body)
        .collect();
    assert_eq!(bodies, [b"amount=1", b"amount=1"]);
}

#[test]
fn b42_another_body_is_403_and_stays_here() {
    let signed = sign([
        draft("POST", "/orders", b"amount=1"),
        draft("PUT", "/bucket/key", b"amount=1").of_store(),
    ]);
    no_other_body_passes(&signed[0], "signature");
    no_other_body_passes(&signed[1], "body");
}

#[test]
fn b42_unsigned_bodies_need_a_word() {
    let origin = Origin::echo();
    let upload = draft("PUT", "/bucket/key", b"hello")
        .with("sign_payload", false)
        .sign();
    assert!(
        upload
            .headers
            .iter()
            .any(|(_, value)| value == "UNSIGNED-PAYLOAD")
    );
    let strict = gate(&origin);
    expect_invalid(&strict, &upload.to(&strict), "unsigned-payload");
    let streamed = sign([draft("PUT", "/bucket/key", b"hello").with(
        "headers",
        json!({"X-Amz-Content-SHA256": "STREAMING-AWS4-HMAC-SHA256-PAYLOAD"}),
    )]);
    expect_invalid(&strict, &streamed[0].to(&strict), "streaming-payload");
    origin.expect_untouched();
    let open = gate_with(&origin, ("unsigned_payload = true", "", ""));
    upload.to(&open).expect(200);
    upload.clone().body(b"other").to(&open).expect(200);
}

#[test]
fn b42_presigned_requests_pass_until_they_expire() {
    let origin = Origin::echo();
    let get = || draft("GET", "/report?year=2026", b"").with("way", "query");
    let signed = sign([
        get(),
        get().with("expires", 60).with("later", -120),
        get().with("expires", 7200),
        get().with("later", 960),
    ]);
    let strict = gate(&origin);
    expect_invalid(&strict, &signed[0].to(&strict), "presigned");
    origin.expect_untouched();
    let gate = gate_with(&origin, ("presigned = true", "", ""));
    signed[0].to(&gate).expect(200);
    let target = origin.only_request().head.target().to_owned();
    assert_eq!(target, "/report?year=2026");
    expect_invalid(&gate, &signed[1].to(&gate), "expired");
    expect_invalid(&gate, &signed[2].to(&gate), "presigned");
    expect_invalid(&gate, &signed[3].to(&gate), "date");
    let mut other = signed[0].clone();
    other.target = other.target.replace("year=2026", "year=2027");
    expect_invalid(&gate, &other.to(&gate), "signature");
    let line = gate.proxy.await_access_of("/report").to_string();
    let (_, signature) = signed[0]
        .target
        .split_once("X-Amz-Signature=")
        .expect("one");
    assert!(!line.contains(signature), "{line}");
}

#[test]
fn b42_a_presigned_upload_to_a_store_needs_a_word_too() {
    let origin = Origin::echo();
    let presigned = |method: &str| {
        draft(method, "/bucket/key", b"")
            .of_store()
            .with("way", "s3-query")
            .sign()
    };
    let signers = SIGNERS.replace("service = \"s3\"", "service = \"s3\"\npresigned = true");
    let open = signers.replace(
        "presigned = true",
        "presigned = true\nunsigned_payload = true",
    );
    let start = |signers: &str| {
        Gate::before(&origin)
            .environment("ROBOT", SECRET)
            .with(signers)
            .with(&signed_for("", ""))
            .start()
    };
    let gate = start(&signers);
    presigned("GET").to(&gate).expect(200);
    let upload = presigned("PUT").body(b"hello");
    expect_invalid(&gate, &upload.to(&gate), "body");
    upload.to(&start(&open)).expect(200);
}

#[test]
fn b42_credentials_in_two_places_are_400() {
    let origin = Origin::echo();
    let gate = gate_with(&origin, ("presigned = true", "", ""));
    let request = draft("GET", "/", b"").sign();
    let twice = request
        .clone()
        .add("Authorization", "Bearer a.b.c")
        .to(&gate);
    let problem = twice.expect(400).problem();
    assert_eq!(problem["type"], "urn:portcullis:problem:invalid-request");
    let presigned = draft("GET", "/", b"").with("way", "query").sign();
    let both = presigned.add("Authorization", "Bearer a.b.c").to(&gate);
    both.expect(400);
    let mut malformed = request;
    malformed
        .headers
        .retain(|(name, _)| name != "Authorization");
    let malformed = malformed
        .add("Authorization", "AWS4-HMAC-SHA256 Credential=x")
        .to(&gate);
    malformed.expect(400);
    origin.expect_untouched();
}

#[test]
fn b42_without_a_signature_the_scheme_is_named() {
    let origin = Origin::echo();
    let gate = gate(&origin);
    for headers in [&[][..], &[("Authorization", "Bearer a.b.c")]] {
        let response = gate.get_with("/", headers);
        let problem = response.expect(401).problem();
        assert_eq!(
            problem["type"],
            "urn:portcullis:problem:credentials-missing"
        );
        assert_eq!(
            response.headers("www-authenticate"),
            ["AWS4-HMAC-SHA256 realm=\"app.example\""]
        );
        assert_eq!(response.headers("cache-control"), ["no-store"]);
    }
    origin.expect_untouched();
}

#[test]
fn b42_roles_are_those_of_the_signer() {
    let origin = Origin::echo();
    let gate = gate_with(&origin, ("", "roles = { any = [\"writer\"] }", ""));
    let signed = sign([
        draft("POST", "/", b"hello"),
        draft("PUT", "/bucket/key", b"hello").of_store(),
    ]);
    signed[0].to(&gate).expect(200);
    assert_eq!(
        origin.only_request().head.get("x-auth-roles"),
        Some("writer")
    );
    let lacking = signed[1].to(&gate);
    let problem = lacking.expect(403).problem();
    assert_eq!(problem["type"], "urn:portcullis:problem:role-missing");
    // Whose body is another one is nobody, whatever his roles would be.
    let forged = signed[0].clone().body(b"other").to(&gate);
    expect_invalid(&gate, &forged, "signature");
}

#[test]
fn b42_monitor_mode_lets_pass_and_says_so() {
    let origin = Origin::echo();
    let gate = gate_with(
        &origin,
        (
            "",
            "mode = \"monitor\"",
            "[blueprints.body]\nspool = \"1KiB\"",
        ),
    );
    let request = draft("POST", "/orders", b"amount=1").sign();
    request.clone().body(b"amount=9").to(&gate).expect(200);
    let received = origin.last_request();
    assert_eq!(received.body, b"amount=9");
    assert!(received.head.get("x-auth-subject").is_none());
    let line = gate.proxy.await_access_of("/orders");
    let would = line["would_refuse"].to_string();
    assert!(would.contains("signature-invalid"), "{line}");
    // What cannot be held goes on all the same, whole.
    let long: Vec<u8> = (0..200_000_u32).map(|n| n.to_le_bytes()[0]).collect();
    request.clone().body(&long).to(&gate).expect(200);
    assert_eq!(origin.last_request().body, long);
    let chunks = long
        .chunks(1000)
        .flat_map(|chunk| [format!("{:x}\r\n", chunk.len()).as_bytes(), chunk, b"\r\n"].concat());
    let mut chunked = request.head("Transfer-Encoding: chunked\r\n").into_bytes();
    chunked.extend(chunks);
    chunked.extend_from_slice(b"0\r\n\r\n");
    gate.exchange(chunked).expect(200);
    assert_eq!(origin.last_request().body, long);
}

#[test]
fn b42_http_2_is_verified_alike() {
    let origin = Origin::echo();
    let gate = gate(&origin);
    let request = draft("POST", "/orders?x=1", b"amount=1").sign();
    let headers: serde_json::Map<String, Value> = request
        .headers
        .iter()
        .map(|(name, value)| (name.clone(), json!(value)))
        .collect();
    let ask = |body: &str| json!({"method": "POST", "path": request.target, "headers": headers, "body": body});
    let account = h2(&json!({
        "do": "fetch",
        "ca": gate.directory.path().join("ca.pem"),
        "address": gate.proxy.https().to_string(),
        "requests": [ask("amount=1"), ask("amount=9"), ask("amount=1")],
    }));
    let answers = account["answers"].as_array().expect("answers");
    let statuses: Vec<_> = answers
        .iter()
        .map(|answer| answer["status"].clone())
        .collect();
    assert_eq!(statuses, [200, 403, 200], "{account}");
    let requests = origin.requests();
    assert_eq!(requests.len(), 2);
    assert!(requests.iter().all(|request| request.body == b"amount=1"));
}

#[test]
fn b42_explain_takes_the_body_for_the_right_one() {
    let origin = Origin::echo();
    let gate = gate(&origin);
    let request = draft("POST", "/orders", b"amount=1").sign();
    let file = gate.directory.path().join("gate.toml");
    let mut command = crate::harness::proxy::portcullis();
    command
        .args(["explain", "-c"])
        .arg(file)
        .args(["POST", "https://app.example/orders"])
        .env("ROBOT", SECRET);
    for (name, value) in &request.headers {
        command.arg("-H").arg(format!("{name}: {value}"));
    }
    let output = command.output().expect("the program runs");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        said.contains("if the body is the one that was signed"),
        "{said}"
    );
    assert!(
        said.to_lowercase().contains("x-auth-subject: robot-7"),
        "{said}"
    );
}

#[test]
fn b42_forged_signatures_have_the_client_banned_and_links_do_not() {
    let origin = Origin::echo();
    let ban = "[blueprints.ban]\nfailures = 3\n";
    let gate = gate_with(&origin, ("presigned = true", "", ban));
    let link = draft("GET", "/", b"")
        .with("way", "query")
        .with("secret", "another");
    let signed = sign([
        draft("GET", "/", b""),
        draft("POST", "/", b"amount=1"),
        link,
        draft("GET", "/", b"").with("later", 960),
    ]);
    for _ in 0..4 {
        signed[2].to(&gate).expect(403);
        signed[3].to(&gate).expect(403);
    }
    signed[0].to(&gate).expect(200);
    for _ in 0..3 {
        signed[1].clone().body(b"amount=9").to(&gate).expect(403);
    }
    let problem = signed[0].to(&gate).expect(429).problem();
    assert_eq!(problem["type"], "urn:portcullis:problem:banned");
}

#[test]
fn b42_a_signature_in_the_query_is_nothing_where_none_counts_there() {
    let origin = Origin::echo();
    let sections = "[blueprints.body]\nspool_time = \"1s\"\n[blueprints.ban]\nfailures = 3\n";
    let gate = gate_with(&origin, ("", "", sections));
    let signed = sign([
        draft("GET", "/", b"").with("way", "query"),
        draft("GET", "/", b"")
            .with("way", "query")
            .with("key_id", "AKIDUNKNOWN"),
        draft("GET", "/", b""),
    ]);
    // Whoever follows a link is no guesser, and nothing can be guessed by one.
    for _ in 0..4 {
        expect_invalid(&gate, &signed[0].to(&gate), "presigned");
        expect_invalid(&gate, &signed[1].to(&gate), "presigned");
    }
    let mut garbled = signed[2].clone();
    garbled.headers.clear();
    garbled.target = "/?X-Amz-Signature=x".to_owned();
    for _ in 0..4 {
        expect_invalid(&gate, &garbled.to(&gate), "presigned");
    }
    signed[2].to(&gate).expect(200);
    // One in the field beside it is refused unread.
    let mut both = signed[2].clone();
    both.target = "/?X-Amz-Signature=x".to_owned();
    both.to(&gate).expect(400);
}

#[test]
fn b42_a_signed_get_is_no_handshake_of_a_websocket() {
    let origin = Origin::echo();
    let gate = gate_with(&origin, ("presigned = true", "", ""));
    let get = || draft("GET", "/socket", b"");
    let version = json!({"Sec-WebSocket-Version": "13"});
    let signed = sign([
        get(),
        get().with("way", "query"),
        get().with("headers", version.clone()),
        get().with("way", "query").with("headers", version),
    ]);
    let tunnel = |request: &Signed| {
        let request = request
            .clone()
            .add("Connection", "Upgrade")
            .add("Upgrade", "websocket")
            .add("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==");
        let version = |(name, _): &(String, String)| name == "Sec-WebSocket-Version";
        if request.headers.iter().any(version) {
            request
        } else {
            request.add("Sec-WebSocket-Version", "13")
        }
    };
    for request in &signed[..2] {
        expect_invalid(&gate, &tunnel(request).to(&gate), "unsigned-header");
        origin.expect_untouched();
    }
    for (place, request) in signed[2..].iter().enumerate() {
        tunnel(request).to(&gate).expect(200);
        let head = origin.requests().remove(place).head;
        assert_eq!(head.all("upgrade"), ["websocket"]);
    }
}

#[test]
fn b42_a_sign_in_a_path_of_a_store_is_not_its_escape() {
    let origin = Origin::echo();
    let start = |profile: &str| {
        Gate::before(&origin)
            .environment("ROBOT", SECRET)
            .upstream(&format!("profile = \"{profile}\""))
            .with(SIGNERS)
            .with(&signed_for("", ""))
            .start()
    };
    for (profile, escaped, raw) in [
        ("servlet", "/bucket/a%3Badmin", "/bucket/a;admin"),
        ("iis", "/bucket/a%5Cadmin", "/bucket/a\\admin"),
        ("php", "/bucket/a%2Badmin", "/bucket/a+admin"),
    ] {
        let gate = start(profile);
        let mut request = draft("GET", escaped, b"").of_store().sign();
        raw.clone_into(&mut request.target);
        expect_invalid(&gate, &request.to(&gate), "path");
        origin.expect_untouched();
    }
    // Where escapes are escaped once more, the two are signed apart.
    let gate = start("php");
    let request = draft("GET", "/a%2Bb", b"").sign();
    let mut raw = request.clone();
    "/a+b".clone_into(&mut raw.target);
    expect_invalid(&gate, &raw.to(&gate), "signature");
    request.to(&gate).expect(200);
}

#[test]
fn b42_a_presigned_signature_stays_here() {
    let origin = Origin::echo();
    let presigned = |target: &str| draft("GET", target, b"").with("way", "query").sign();
    let others = "/report?z=%7e&year=2026&q=a%2fb&empty=&x-amz-date=lower";
    let request = {
        let mut request = presigned(others);
        // The signer writes the query in a form of its own, which says the same.
        let (_, credentials) = request.target.split_once("&X-Amz-").expect("behind it");
        request.target = format!("{others}&X-Amz-{credentials}");
        request
    };
    let bare = presigned("/bare");
    let signed = draft("GET", "/dated?X-Amz-Date=of-its-own&n=1", b"").sign();
    let gate = gate_with(&origin, ("presigned = true", "", ""));
    request.to(&gate).expect(200);
    assert_eq!(origin.last_request().head.target(), others);
    let shuffled = {
        let mut shuffled = request.clone();
        let (path, query) = request.target.split_once('?').expect("a query");
        let mut pairs: Vec<&str> = query.split('&').collect();
        pairs.rotate_left(3);
        shuffled.target = format!("{path}?{}", pairs.join("&")).replace("X-Amz-Sig", "X%2DAmz-Sig");
        shuffled
    };
    shuffled.to(&gate).expect(200);
    let target = origin.last_request().head.target().to_owned();
    assert_eq!(
        target,
        "/report?empty=&x-amz-date=lower&z=%7e&year=2026&q=a%2fb"
    );
    bare.to(&gate).expect(200);
    assert_eq!(origin.last_request().head.target(), "/bare");
    // Without a signature in the query a parameter of that name is one of any.
    signed.to(&gate).expect(200);
    assert_eq!(origin.last_request().head.target(), signed.target);
    let forwarding = gate_with(&origin, ("presigned = true", "forward_token = true", ""));
    request.to(&forwarding).expect(200);
    assert_eq!(origin.last_request().head.target(), request.target);
    let watching = gate_with(&origin, ("presigned = true", "mode = \"monitor\"", ""));
    request.to(&watching).expect(200);
    assert_eq!(origin.last_request().head.target(), others);
}

#[test]
fn a28_a_form_may_have_a_presigned_address_and_a_header_it_has_not() {
    let origin = Origin::echo();
    let gate = gate_with(&origin, ("presigned = true", "", ""));
    let foreign = |signed: &Signed| {
        let page = [
            ("Origin", "https://evil.example"),
            ("Sec-Fetch-Site", "cross-site"),
            ("Cookie", "s=1"),
        ];
        let signed = page
            .into_iter()
            .fold(signed.clone(), |signed, (name, value)| {
                signed.add(name, value)
            });
        signed.to(&gate)
    };
    let presigned = draft("POST", "/transfer", b"").with("way", "query").sign();
    let refused = foreign(&presigned);
    assert_eq!(
        refused.expect(403).problem()["type"],
        "urn:portcullis:problem:csrf"
    );
    origin.expect_untouched();
    presigned.to(&gate).expect(200);
    let by_hand = draft("POST", "/transfer", b"").sign();
    foreign(&by_hand).expect(200);
}

#[test]
fn b42_two_signers_of_one_key_are_an_error_of_the_file() {
    let origin = Origin::echo();
    let check = |region: &str| {
        let twin = SIGNERS.replace("[signers.robot]", "[signers.twin]");
        let twin = twin.split("[signers.store]").next().expect("the first");
        let twin = twin.replace("eu-central-1", region);
        let both = signed_for("", "").replace("\"store\"", "\"twin\"");
        let gate = Gate::before(&origin);
        let gate = gate.with(SIGNERS).with(&twin).with(&both);
        let file = gate.write();
        let text = std::fs::read_to_string(&file).expect("the file");
        let mut command = crate::harness::proxy::portcullis();
        command
            .args(["check", "-c"])
            .arg(&file)
            .env("ROBOT", SECRET);
        let output = command.output().expect("the program runs");
        let told = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        (output.status.code(), told, text)
    };
    let (code, told, text) = check("eu-central-1");
    assert_eq!(code, Some(2), "{told}");
    for name in ["robot", "twin"] {
        let section = format!("[signers.{name}]");
        let line = text.lines().position(|line| line == section);
        let line = line.expect("a section") + 1;
        let beside = format!("gate.toml:{line})");
        let named = told.split(&format!("`{name}` (")).nth(1).expect("its name");
        let place = named.split_inclusive(')').next().unwrap_or_default();
        assert!(place.ends_with(&beside), "{place} for {beside}: {told}");
    }
    let (code, told, _) = check("eu-central-2");
    assert_eq!(code, Some(0), "{told}");
}
