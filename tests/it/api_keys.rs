//! API keys: made by the verb, named by their hash, shown in a header, and counted.

use std::io::Write;
use std::path::Path;
use std::process::{Output, Stdio};

use crate::harness::gate::{PUBLIC, Running, request};
use crate::harness::proxy::{portcullis, portcullis_verb, write_policy};
use crate::harness::{Gate, Issuer, Origin, Response};

/// Where keys open the door, with further lines of its `auth`.
fn guarded(auth: &str) -> String {
    format!(
        r#"
[[blueprints]]
name = "api"
hosts = ["app.example"]
prefix = "/api"
upstream = "legacy"
[blueprints.auth]
require = ["api_key"]
{auth}
"#
    )
}

/// A key and the line that names it.
struct Made {
    key: String,
    hash: String,
}

impl Made {
    /// What the verb makes.
    fn new() -> Self {
        let output = portcullis_verb(&["hash-key"]);
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        let text = String::from_utf8(output.stdout).expect("text");
        let (key, hash) = text.trim_end().split_once('\n').expect("two lines");
        Self {
            key: key.to_owned(),
            hash: hash.to_owned(),
        }
    }

    /// `[api_keys.NAME]` with further lines.
    fn section(&self, name: &str, lines: &str) -> String {
        format!("[api_keys.{name}]\n{}\n{lines}\n", self.hash)
    }
}

#[track_caller]
fn show(gate: &Running, key: &str) -> Response {
    gate.get_with("/api", &[("X-API-Key", key)])
}

const CHALLENGE: &str = "ApiKey realm=\"app.example\", header=\"X-API-Key\"";

#[track_caller]
fn expect_invalid(response: &Response) {
    response.expect(401);
    let problem = response.problem();
    assert_eq!(problem["type"], "urn:portcullis:problem:api-key-invalid");
    assert_eq!(response.headers("www-authenticate"), [CHALLENGE]);
    assert_eq!(response.header("cache-control"), Some("no-store"));
}

#[test]
fn a_key_opens_the_door_and_stays_here() {
    let origin = Origin::echo();
    let made = Made::new();
    let lines = "owner = \"Partner A\"\nroles = [\"reader\"]\nscopes = \"api.read\"";
    let gate = Gate::before(&origin)
        .with(&made.section("partner", lines))
        .with(&guarded("roles = { any = [\"reader\"] }"))
        .with(PUBLIC)
        .start();
    let missing = gate.get("/api");
    missing.expect(401);
    assert_eq!(
        missing.problem()["type"],
        "urn:portcullis:problem:credentials-missing"
    );
    assert_eq!(missing.headers("www-authenticate"), [CHALLENGE]);
    origin.expect_untouched();

    let response = gate.get_with(
        "/api/secret",
        &[
            ("x-api-KEY", &made.key),
            ("X_API_Key", "another"),
            ("X.Api.Key", "a third"),
        ],
    );
    response.expect(200);
    assert_eq!(response.header("cache-control"), Some("no-store"));
    let seen = origin.only_request();
    assert_eq!(seen.head.all("x-auth-subject"), ["Partner A"]);
    assert_eq!(seen.head.all("x-auth-roles"), ["reader"]);
    assert_eq!(seen.head.all("x-auth-scopes"), ["api.read"]);
    let raw = String::from_utf8_lossy(&seen.head.raw).to_ascii_lowercase();
    for name in ["x-api-key", "x_api_key", "x.api.key"] {
        assert!(!raw.contains(name), "{raw}");
    }
    let line = gate.proxy.await_access_of("/api/secret");
    assert_eq!(line["enduser.id"], "Partner A", "{line}");
    let said = gate.proxy.raw_access_lines().join("\n") + &gate.proxy.talk();
    assert!(!said.contains(&made.key), "a key in a log");
}

#[test]
fn whatever_is_wrong_with_a_key_the_answer_is_the_same() {
    let origin = Origin::echo();
    let (good, expired) = (Made::new(), Made::new());
    let gate = Gate::before(&origin)
        .with(&good.section("good", ""))
        .with(&expired.section("old", "expires = 2001-01-01T00:00:00Z"))
        .with(&guarded(""))
        .start();
    let cut = &good.key[..good.key.len() - 1];
    let longer = format!("{}0", good.key);
    let upper = good.key.to_uppercase();
    let two = format!("{}, {}", good.key, good.key);
    let hash = good.hash.replace("hash = ", "");
    let stranger = Made::new().key;
    let mut bodies = Vec::new();
    for key in [
        &*expired.key,
        &stranger,
        cut,
        &longer,
        &upper,
        &two,
        hash.trim_matches('"'),
        "guess",
        "",
        &"x".repeat(512),
    ] {
        let response = show(&gate, key);
        expect_invalid(&response);
        let mut body = response.json();
        body["instance"] = "the same".into();
        bodies.push(body);
    }
    bodies.dedup();
    assert_eq!(bodies.len(), 1, "{bodies:?}");
    origin.expect_untouched();
    let detail = |word: &str| gate.proxy.await_access(word, |line| line["detail"] == word);
    assert_eq!(detail("expired")["reason"], "api-key-invalid");
    assert_eq!(detail("unknown")["reason"], "api-key-invalid");
    show(&gate, &good.key).expect(200);
}

#[test]
fn a_key_comes_once_in_its_header_and_nowhere_else() {
    let origin = Origin::echo();
    let made = Made::new();
    let key = &*made.key;
    let gate = Gate::before(&origin)
        .with(&made.section("partner", ""))
        .with(&guarded(""))
        .start();
    let long = "x".repeat(513);
    for fields in [
        &[("X-API-Key", key), ("X-API-Key", key)][..],
        &[("X-API-Key", key), ("x-api-key", "other")],
        &[("X-API-Key", &*long)],
    ] {
        let response = gate.get_with("/api", fields);
        response.expect(400);
        assert_eq!(
            response.problem()["type"],
            "urn:portcullis:problem:invalid-request"
        );
    }
    let (bearer, scheme) = (format!("Bearer {key}"), format!("ApiKey {key}"));
    let cookie = format!("X-API-Key={key}");
    for fields in [
        &[("Authorization", &*bearer)][..],
        &[("Authorization", &*scheme)],
        &[("X_API_Key", key)],
        &[("Api-Key", key)],
        &[("Cookie", &*cookie)],
    ] {
        gate.get_with("/api", fields).expect(401);
    }
    for name in ["X-API-Key", "x-api-key", "api_key", "key"] {
        gate.get(&format!("/api?{name}={key}")).expect(401);
    }
    origin.expect_untouched();
    for name in ["credential-repeated", "credential-too-long"] {
        gate.proxy.await_access(name, |line| line["detail"] == name);
    }
}

#[test]
fn roles_and_scopes_are_those_of_the_key() {
    let origin = Origin::echo();
    let (reader, admin) = (Made::new(), Made::new());
    let gate = Gate::before(&origin)
        .with(&reader.section(
            "reader",
            "roles = \"reader\"\nscopes = [\"api.read\", \"api.write\"]",
        ))
        .with(&admin.section("admin", "roles = [\"admin\"]"))
        .with(&guarded(
            "roles = { any = [\"reader\"] }\nscopes = { all = [\"api.write\"] }",
        ))
        .start();
    show(&gate, &reader.key).expect(200);
    let refused = show(&gate, &admin.key);
    refused.expect(403);
    assert_eq!(
        refused.problem()["type"],
        "urn:portcullis:problem:role-missing"
    );
}

#[test]
fn a_route_may_name_the_keys_that_count() {
    let origin = Origin::echo();
    let (one, two) = (Made::new(), Made::new());
    let gate = Gate::before(&origin)
        .with(&one.section("one", ""))
        .with(&two.section("two", ""))
        .with(&guarded("api_keys = [\"two\"]"))
        .defaults("ban = { failures = 1 }")
        .start();
    expect_invalid(&show(&gate, &one.key));
    // It was given to somebody, so nobody guessed it, and nobody is banned for it.
    show(&gate, &two.key).expect(200);
    expect_invalid(&show(&gate, "a key that nobody was ever given"));
    show(&gate, &two.key).expect(429);
}

#[test]
fn a_quota_is_the_keys_own_whoever_shows_it() {
    let origin = Origin::echo();
    let (few, any) = (Made::new(), Made::new());
    let gate = Gate::before(&origin)
        .workers(2)
        .server("trusted_proxies = [\"127.0.0.0/8\"]")
        .with(&few.section("few", "owner = \"both\"\nquota = 2\nwindow = \"1h\""))
        .with(&any.section("any", "owner = \"both\""))
        .with(&guarded(""))
        .start();
    let from = |address: &str| {
        let fields = [("X-Forwarded-For", address), ("X-API-Key", &*few.key)];
        gate.get_with("/api", &fields)
    };
    let response = from("192.0.2.1");
    response.expect(200);
    assert_eq!(
        response.headers("ratelimit-policy"),
        ["\"api-key\";q=2;w=3600"]
    );
    let left = response.header("ratelimit").expect("RateLimit");
    assert!(left.starts_with("\"api-key\";r=1;t="), "{left}");
    from("192.0.2.2").expect(200);
    let refused = from("192.0.2.3");
    refused.expect(429);
    let problem = refused.problem();
    assert_eq!(
        problem["type"],
        "https://iana.org/assignments/http-problem-types#quota-exceeded"
    );
    assert_eq!(problem["violated-policies"], serde_json::json!(["api-key"]));
    assert!(refused.header("retry-after").is_some());
    let left = refused.header("ratelimit").expect("RateLimit");
    assert!(left.starts_with("\"api-key\";r=0;t="), "{left}");
    let line = gate
        .proxy
        .await_access("the refusal", |line| line["reason"] == "rate-limited");
    assert_eq!(line["stage"], "quota", "{line}");
    assert_eq!(line["enduser.id"], "both", "{line}");

    let other = show(&gate, &any.key);
    other.expect(200);
    assert_eq!(other.header("ratelimit"), None, "it has no quota");
    gate.reload();
    from("192.0.2.4").expect(429);
}

#[test]
fn a_quota_stands_beside_the_limits_of_the_route() {
    let origin = Origin::echo();
    let made = Made::new();
    let limit =
        "rate_limits = [{ name = \"client\", key = \"client\", quota = 5, window = \"1h\" }]";
    let gate = Gate::before(&origin)
        .defaults(limit)
        .with(&made.section("few", "quota = 3\nwindow = \"1h\""))
        .with(&guarded(""))
        .start();
    let response = show(&gate, &made.key);
    assert_eq!(
        response.expect(200).headers("ratelimit-policy"),
        ["\"client\";q=5;w=3600, \"api-key\";q=3;w=3600"]
    );
    let left = response.header("ratelimit").expect("RateLimit");
    assert!(left.starts_with("\"api-key\";r=2;"), "the tightest: {left}");
    let anonymous = gate.get("/api");
    assert_eq!(
        anonymous.headers("ratelimit-policy"),
        ["\"client\";q=5;w=3600"]
    );
    gate.get("/api").expect(401);
    let response = show(&gate, &made.key);
    let left = response.header("ratelimit").expect("RateLimit");
    assert!(left.starts_with("\"client\";r=1;"), "the tightest: {left}");
}

#[test]
fn keys_come_and_go_with_a_reload_on_open_connections_too() {
    let origin = Origin::echo();
    let (old, new) = (Made::new(), Made::new());
    let mut gate = Gate::before(&origin)
        .with(&old.section("partner", ""))
        .with(&guarded(""))
        .start();
    let mut kept = gate.https();
    let mut status = |made: &Made| {
        kept.send(request("GET", "/api", &[("X-API-Key", &made.key)]))
            .response()
            .status
    };
    assert_eq!([status(&old), status(&new)], [200, 401]);
    gate.reload_with(&format!("{}{}", new.section("partner", ""), guarded("")));
    assert_eq!([status(&old), status(&new)], [401, 200]);
}

#[test]
fn a_key_beside_a_token_is_one_too_many() {
    let origin = Origin::echo();
    let issuer = Issuer::http();
    let made = Made::new();
    let either =
        guarded("issuers = [\"corp\"]").replace("[\"api_key\"]", "[\"api_key\", \"bearer\"]");
    let gate = Gate::before(&origin)
        .with(&issuer.section())
        .with(&made.section("partner", ""))
        .with(&either)
        .start();
    let token = issuer.bearer(&["reader"]);
    show(&gate, &made.key).expect(200);
    gate.get_with("/api", &[("Authorization", &token)])
        .expect(200);
    for key in [&*made.key, "guess"] {
        let fields = [("Authorization", &*token), ("X-API-Key", key)];
        let response = gate.get_with("/api", &fields);
        response.expect(400);
        assert_eq!(
            response.problem()["type"],
            "urn:portcullis:problem:invalid-request"
        );
    }
    let missing = gate.get("/api");
    assert_eq!(
        missing.expect(401).headers("www-authenticate"),
        ["Bearer realm=\"app.example\"", CHALLENGE]
    );
}

#[test]
fn the_header_may_have_another_name_and_may_be_passed_on_by_choice() {
    let origin = Origin::echo();
    let made = Made::new();
    let gate = Gate::before(&origin)
        .with(&made.section("partner", ""))
        .with(&guarded(
            "api_key_header = \"X-Gate-Key\"\nforward_token = true",
        ))
        .start();
    let missing = show(&gate, &made.key);
    assert_eq!(
        missing.expect(401).headers("www-authenticate"),
        ["ApiKey realm=\"app.example\", header=\"X-Gate-Key\""]
    );
    // A backend that reads both as one name must not find a key that nobody judged.
    let fields = [("X-Gate-Key", &*made.key), ("X_Gate_Key", "another")];
    gate.get_with("/api", &fields).expect(200);
    let seen = origin.only_request();
    assert_eq!(seen.head.all("x-gate-key"), [made.key.as_str()]);
    assert!(seen.head.all("x_gate_key").is_empty());
}

#[test]
fn auth_that_is_off_hands_no_key_on() {
    let origin = Origin::echo();
    let made = Made::new();
    let gate = Gate::before(&origin)
        .with(&made.section("partner", ""))
        .with(&guarded("mode = \"off\""))
        .start();
    show(&gate, &made.key).expect(200);
    let seen = origin.only_request();
    assert!(seen.head.all("x-api-key").is_empty());
    assert!(seen.head.all("x-auth-subject").is_empty());
}

#[test]
fn guessed_keys_ban_and_expired_ones_do_not() {
    let origin = Origin::echo();
    let old = Made::new();
    let gate = Gate::before(&origin)
        .defaults("rate_limits = []\nban = { failures = 3 }")
        .with(&old.section("old", "expires = \"2001-01-01T00:00:00Z\""))
        .with(&guarded(""))
        .start();
    for _ in 0..5 {
        expect_invalid(&show(&gate, &old.key));
        gate.get("/api").expect(401);
    }
    for _ in 0..3 {
        expect_invalid(&show(&gate, "guess"));
    }
    show(&gate, &old.key).expect(429);
}

/// `hash-key -` with this on its standard input.
fn hash_of(input: &[u8]) -> Output {
    let mut child = portcullis()
        .args(["hash-key", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the built program starts");
    let mut stdin = child.stdin.take().expect("a pipe");
    stdin.write_all(input).expect("it reads");
    drop(stdin);
    child.wait_with_output().expect("it ends")
}

#[test]
fn hash_key_hashes_what_it_made_and_what_others_made() {
    let made = Made::new();
    assert!(made.key.starts_with("portcullis_"));
    assert_ne!(made.key, Made::new().key);
    for end in ["", "\n", "\r\n"] {
        let output = hash_of(format!("{}{end}", made.key).as_bytes());
        assert_eq!(output.status.code(), Some(0));
        assert_eq!(
            String::from_utf8_lossy(&output.stdout),
            format!("{}\n", made.hash)
        );
    }
    let cases: [(&[u8], &str); 5] = [
        (b"short-key-of-23-letters", "shorter"),
        (b"", "shorter"),
        (&[b'a'; 513], "longer"),
        (&[b'a'; 600], "longer"),
        (b"two lines of one key\nand another one", "characters"),
    ];
    for (bad, word) in cases {
        let output = hash_of(bad);
        assert_eq!(output.status.code(), Some(2), "{output:?}");
        assert!(output.stdout.is_empty());
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(said.contains(word) && said.contains("hint:"), "{said}");
        assert!(bad.is_empty() || !said.contains(&*String::from_utf8_lossy(bad)));
    }
    let argument = portcullis_verb(&["hash-key", &made.key]);
    assert_eq!(argument.status.code(), Some(2));
    let said = String::from_utf8_lossy(&argument.stderr).into_owned();
    assert!(
        said.contains("standard input") && !said.contains(&made.key),
        "{said}"
    );
}

/// What `check` says of these sections, with its exit code.
fn check(directory: &Path, sections: &str) -> (Option<i32>, String) {
    let text = format!(
        "[server]\nhttp = [\"127.0.0.1:0\"]\nplaintext = true\n[upstreams.legacy]\nservers = [\"http://127.0.0.1:9\"]\n{sections}"
    );
    let file = write_policy(directory, &text).display().to_string();
    let output = portcullis_verb(&["check", "-c", &file]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    (output.status.code(), said)
}

#[test]
fn check_tells_what_is_wrong_with_keys_and_shows_none() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let made = Made::new();
    let section = |lines: &str| made.section("partner", lines);
    let key_itself = format!("[api_keys.partner]\nhash = \"{}\"\n", made.key);
    let cases: [(String, &[&str]); 13] = [
        (key_itself, &["not the hash of a key", "hash-key -"]),
        (
            "[api_keys.partner]\nowner = \"x\"\n".to_owned(),
            &["needs `hash`"],
        ),
        (
            section("") + &made.section("second", ""),
            &["`partner` has the same key"],
        ),
        (
            format!("[api_keys.partner]\nkey = \"{}\"\n", made.key),
            &["unknown key `key`"],
        ),
        (
            format!("[api_keys.partner]\nhsah = \"{}\"\n", made.key),
            &["did you mean `hash`?"],
        ),
        (
            format!("[api_keys]\npartner = \"{}\"\n", made.key),
            &["expected a table, found a string"],
        ),
        (
            section("roles = [\"admn\"]") + "[roles.admin]\n",
            &["did you mean `admin`?"],
        ),
        (section("owner = \"\""), &["a key of nobody"]),
        (section("window = \"1m\""), &["a window without a quota"]),
        (section("quota = 1\nwindow = \"0s\""), &["no time"]),
        (
            section("expires = 2030-01-01"),
            &["`2030-01-01` is not a moment"],
        ),
        (section("expire = 1"), &["expires"]),
        (String::new(), &["the file has no API key"]),
    ];
    for (sections, words) in cases {
        let (code, said) = check(directory.path(), &(sections + &guarded("")));
        assert_eq!(code, Some(2), "{said}");
        for word in words {
            assert!(said.contains(word), "no `{word}` in\n{said}");
        }
        assert!(!said.contains(&made.key), "{said}");
    }
}

#[test]
fn check_tells_what_is_wrong_with_the_keys_of_a_route() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let made = Made::new();
    for (auth, word) in [
        ("api_keys = [\"partnr\"]", "there is no API key `partnr`"),
        ("api_keys = []", "no key is named"),
        ("api_key_header = \"Authorization\"", "means something else"),
        (
            "api_key_header = \"X-Auth-Key\"",
            "taken out of every request",
        ),
        ("api_key_header = \"X Key\"", "not a header name"),
        ("api_key_header = \"DPoP\"", "means something else"),
        ("api_key_header = \"Keep-Alive\"", "means something else"),
        ("api_key_header = \"Range\"", "means something else"),
    ] {
        let (code, said) = check(
            directory.path(),
            &(made.section("partner", "") + &guarded(auth)),
        );
        assert_eq!(code, Some(2), "{said}");
        assert!(said.contains(word), "no `{word}` in\n{said}");
    }
}

#[test]
fn check_tells_of_keys_that_have_ended_or_soon_will() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let made = Made::new();
    let in_days = |days: i64| {
        let moment = crate::harness::issuer::now() + days * 86_400 + 3600;
        let moment = time::OffsetDateTime::from_unix_timestamp(moment).expect("a date");
        let format = time::format_description::well_known::Rfc3339;
        format!("expires = {}", moment.format(&format).expect("a date"))
    };
    for (expires, word) in [
        (in_days(-30), Some("`partner` has expired")),
        (in_days(5), Some("`partner` expires in 5 days")),
        (in_days(60), None),
    ] {
        let sections = made.section("partner", &expires) + &guarded("");
        let (code, said) = check(directory.path(), &sections);
        assert_eq!(code, Some(0), "{said}");
        match word {
            Some(word) => assert!(said.contains(word), "no `{word}` in\n{said}"),
            None => assert!(!said.contains("expire"), "{said}"),
        }
    }
}

#[test]
fn explain_knows_keys() {
    let origin = Origin::echo();
    let made = Made::new();
    let gate = Gate::before(&origin)
        .with(&made.section("partner", "quota = 5"))
        .with(&guarded(""));
    let file = gate.write().display().to_string();
    let explain = |key: &str| {
        let field = format!("X-API-Key: {key}");
        let arguments = [
            "explain",
            "-c",
            &file,
            "GET",
            "https://app.example/api",
            "-H",
            &field,
        ];
        String::from_utf8(portcullis_verb(&arguments).stdout).expect("text")
    };
    let said = explain(&made.key);
    for text in [
        "verdict      forwarded",
        "API key of `partner` in `X-API-Key`",
        "`partner` by issuer `[api_keys]`",
        "limit `api-key`",
        "x-auth-subject: partner",
    ] {
        assert!(said.contains(text), "no `{text}` in\n{said}");
    }
    assert!(!said.contains(&made.key), "{said}");
    assert!(explain("guess").contains("refused: 401 api-key-invalid (unknown)"));

    let passing_on = Gate::before(&origin)
        .with(&made.section("partner", ""))
        .with(&guarded("forward_token = true"));
    let file = passing_on.write().display().to_string();
    let field = format!("X-API-Key: {}", made.key);
    let arguments = [
        "explain",
        "-c",
        &file,
        "GET",
        "https://app.example/api",
        "-H",
        &field,
    ];
    let said = String::from_utf8(portcullis_verb(&arguments).stdout).expect("text");
    assert!(said.contains("x-api-key: [redacted]"), "{said}");
    assert!(!said.contains(&made.key), "{said}");
    origin.expect_untouched();
}
