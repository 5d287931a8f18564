//! Tokens that the issuer is asked about (RFC 7662).

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::harness::eventually::eventually;
use crate::harness::gate::{Running, request};
use crate::harness::issuer::now;
use crate::harness::proxy::portcullis;
use crate::harness::{Client, Gate, Issuer, Mint, Origin, Response};

const SECRET: &str = "s3cret of the gate";

const ANY_TOKEN: &str = r#"
[[blueprints]]
name = "api"
hosts = ["app.example"]
upstream = "legacy"
[blueprints.auth]
require = ["bearer"]
issuers = ["corp"]
"#;

struct Scene {
    gate: Running,
    issuer: Issuer,
    origin: Origin,
}

impl Scene {
    /// Signed tokens of `corp` are verified, and others asked about.
    fn new() -> Self {
        Self::with("")
    }

    fn with(lines: &str) -> Self {
        let origin = Origin::echo();
        let issuer = Issuer::http();
        let section = format!("{}{}{lines}\n", issuer.section(), issuer.introspection());
        let gate = Gate::before(&origin)
            .environment("GATE_SECRET", SECRET)
            .with(&section)
            .with(ANY_TOKEN)
            .start();
        Self {
            gate,
            issuer,
            origin,
        }
    }

    fn show(&self, token: &str) -> Response {
        let value = format!("Bearer {token}");
        self.gate.get_with("/api", &[("Authorization", &value)])
    }

    fn asked(&self) -> u64 {
        self.issuer.fetches("/introspect")
    }
}

/// What an issuer says of a good token.
fn active() -> Value {
    json!({
        "active": true, "iss": "https://idp.example/realms/main", "aud": "portcullis", "sub": "alice",
        "client_id": "app", "scope": "api.read", "exp": now() + 300,
        "realm_access": {"roles": ["reader"]}, "token_type": "Bearer",
    })
}

#[track_caller]
fn expect_problem(response: &Response, status: u16, reason: &str) {
    assert_eq!(response.status, status, "{}", response.text());
    let kind = format!("urn:portcullis:problem:{reason}");
    assert_eq!(response.problem()["type"], kind.as_str());
}

#[test]
fn an_opaque_token_passes_by_the_word_of_its_issuer() {
    let scene = Scene::new();
    scene.issuer.know("opaque+4f/9a==", &active());
    for _ in 0..5 {
        scene.show("opaque+4f/9a==").expect(200);
    }
    let head = scene.origin.last_request().head;
    assert_eq!(head.all("x-auth-subject"), ["alice"]);
    assert_eq!(head.all("x-auth-roles"), ["reader"]);
    assert_eq!(head.all("x-auth-scopes"), ["api.read"]);
    assert!(head.all("authorization").is_empty(), "{head:#?}");
    assert_eq!(scene.asked(), 1, "the answer is held");
    let question = scene.issuer.questions();
    assert_eq!(
        question["form"],
        "token=opaque%2B4f%2F9a%3D%3D&token_type_hint=access_token"
    );
    // `gate` and the secret, each encoded as in a form (RFC 6749 §2.3.1).
    assert_eq!(
        question["authorization"],
        "Basic Z2F0ZTpzM2NyZXQlMjBvZiUyMHRoZSUyMGdhdGU="
    );
    scene.gate.proxy.await_metric(
        "portcullis_introspections_total",
        &["issuer=\"corp\"", "outcome=\"ok\""],
        1.0,
    );
    let signed = scene.issuer.mint(&Mint::new());
    scene.show(&signed).expect(200);
    assert_eq!(scene.asked(), 1, "a signed token is not asked about");
}

#[test]
fn a_token_that_is_not_active_gets_the_answer_of_any_bad_token() {
    let scene = Scene::new();
    let mut bodies = Vec::new();
    let foreign = scene.issuer.mint(&Mint::new().with_a_foreign_key());
    let mut elsewhere = active();
    elsewhere["aud"] = "other".into();
    scene.issuer.know("for-somebody-else", &elsewhere);
    for token in ["made-up", "for-somebody-else", &foreign] {
        let response = scene.show(token);
        expect_problem(&response, 401, "token-invalid");
        let challenge = response.header("www-authenticate").expect("a challenge");
        assert!(
            challenge.ends_with("error=\"invalid_token\""),
            "{challenge}"
        );
        let mut body = response.json();
        body["instance"] = Value::Null;
        bodies.push(body);
    }
    assert!(bodies.iter().all(|body| *body == bodies[0]), "{bodies:#?}");
    scene.origin.expect_untouched();
    for detail in ["inactive", "audience", "signature"] {
        let said = |line: &Value| line.to_string().contains(&format!("\"{detail}\""));
        scene.gate.proxy.await_access(detail, said);
    }
    expect_problem(&scene.show("made-up"), 401, "token-invalid");
    assert_eq!(scene.asked(), 2, "a refusal is held too");
}

#[test]
fn without_an_answer_nothing_passes_that_is_not_known() {
    let scene = Scene::new();
    scene.issuer.know("known", &active());
    scene.issuer.know("later", &active());
    scene.show("known").expect(200);
    scene.issuer.go_down();
    let response = scene.show("later");
    expect_problem(&response, 503, "introspection-unavailable");
    let wait: u64 = response
        .header("retry-after")
        .and_then(|value| value.parse().ok())
        .expect("Retry-After in seconds");
    assert!((1..=60).contains(&wait), "{wait}");
    assert!(response.header("www-authenticate").is_none());
    scene.show("known").expect(200);
    scene.issuer.come_up();
    scene.show("later").expect(200);
}

#[test]
fn neither_token_nor_secret_is_written_anywhere() {
    let scene = Scene::new();
    scene.issuer.know("opaque-known-1", &active());
    scene.show("opaque-known-1").expect(200);
    scene.show("opaque-unknown-2").expect(401);
    scene.issuer.go_down();
    scene.show("opaque-unanswered-3").expect(503);
    scene.gate.proxy.await_talk("could not be asked");
    eventually("the lines are there", || {
        (scene.gate.proxy.access_lines().len() >= 3).then_some(())
    });
    let lines = scene.gate.proxy.raw_access_lines().concat();
    let metrics = scene.gate.proxy.ask_admin("/metrics").text();
    let written = [lines, scene.gate.proxy.talk(), metrics].concat();
    for word in ["opaque-known", "opaque-un", SECRET, "s3cret"] {
        assert!(!written.contains(word), "`{word}` was written");
    }
}

#[test]
fn a_flood_of_made_up_tokens_is_no_flood_at_the_issuer() {
    let scene = Scene::new();
    scene.issuer.know("known", &active());
    scene.show("known").expect(200);
    scene.issuer.answer_after(20);
    let statuses = std::thread::scope(|scope| {
        let gate = &scene.gate;
        let threads: Vec<_> = (0..20)
            .map(|thread| {
                scope.spawn(move || {
                    let mut client = gate.https();
                    let mut ask = |number: u32| {
                        let value = format!("Bearer made-up-{thread}-{number}");
                        let get = request("GET", "/api", &[("Authorization", &value)]);
                        client.send(get).response().status
                    };
                    (0..100).map(&mut ask).collect::<Vec<_>>()
                })
            })
            .collect();
        let statuses = threads
            .into_iter()
            .flat_map(|t| t.join().expect("no panic"));
        statuses.fold(BTreeMap::<u16, u32>::new(), |mut all, status| {
            *all.entry(status).or_default() += 1;
            all
        })
    });
    assert!(
        statuses.keys().all(|status| [401, 503].contains(status)),
        "{statuses:?}"
    );
    // A quarter of 32 for one client, and 120 refused tokens a minute; those under way when it is full count as well.
    let most = scene.issuer.questions()["most"].as_u64().expect("a count");
    assert!(most <= 8, "{most} questions at once");
    let asked = scene.asked();
    assert!(
        (100..=140).contains(&asked),
        "{asked} questions, {statuses:?}"
    );
    scene.show("known").expect(200);
    let signed = scene.issuer.mint(&Mint::new());
    scene.show(&signed).expect(200);
    scene.gate.proxy.await_metric(
        "portcullis_introspections_total",
        &["outcome=\"held-back\""],
        500.0,
    );
}

#[test]
fn many_requests_with_one_new_token_ask_once() {
    let scene = Scene::new();
    scene.issuer.know("shared", &active());
    scene.issuer.answer_after(200);
    std::thread::scope(|scope| {
        for _ in 0..20 {
            scope.spawn(|| {
                scene.show("shared").expect(200);
            });
        }
    });
    assert_eq!(scene.asked(), 1);
}

#[test]
fn signed_tokens_are_asked_about_by_choice() {
    let scene = Scene::with("when = \"always\"");
    let token = scene.issuer.mint(&Mint::new());
    expect_problem(&scene.show(&token), 401, "token-invalid");
    let other = scene.issuer.mint(&Mint::new().claim("jti", "2"));
    scene.issuer.know(&other, &active());
    scene.show(&other).expect(200);
    scene.show(&other).expect(200);
    assert_eq!(scene.asked(), 2);
    let forged = scene.issuer.mint(&Mint::new().with_a_foreign_key());
    expect_problem(&scene.show(&forged), 401, "token-invalid");
    assert_eq!(scene.asked(), 2, "a forged token is not asked about");
}

#[test]
fn what_the_answer_alone_binds_a_signed_token_to_is_asked_for() {
    let scene = Scene::with("when = \"always\"");
    let token = scene.issuer.mint(&Mint::new());
    let mut bound = active();
    bound["cnf"] = json!({"jkt": "bwcK0esc3ACC3DB2Y5_lESsXE8o9ltc05O89jdN-dg0"});
    scene.issuer.know(&token, &bound);
    // Asked about, and remembered.
    for _ in 0..3 {
        expect_problem(&scene.show(&token), 401, "token-invalid");
    }
    let said = |line: &Value| line["detail"] == "binding";
    scene.gate.proxy.await_access("the reason", said);
    scene.origin.expect_untouched();
}

#[test]
fn the_answer_narrows_what_a_signed_token_grants() {
    let scene = Scene::with("when = \"always\"");
    let token = Mint::new()
        .roles(&["reader", "admin"])
        .claim("scope", "api.read api.write");
    let token = scene.issuer.mint(&token);
    let mut narrower = active();
    narrower["scope"] = "api.read api.delete".into();
    scene.issuer.know(&token, &narrower);
    for _ in 0..2 {
        scene.show(&token).expect(200);
        let head = scene.origin.last_request().head;
        assert_eq!(head.all("x-auth-roles"), ["reader"]);
        assert_eq!(head.all("x-auth-scopes"), ["api.read"]);
    }
}

#[test]
fn what_one_side_alone_says_still_shuts_out() {
    let origin = Origin::echo();
    let issuer = Issuer::http();
    let section = format!(
        "{}{}when = \"always\"\n",
        issuer.section(),
        issuer.introspection()
    );
    let gate = Gate::before(&origin)
        .environment("GATE_SECRET", SECRET)
        .with(&section)
        .with(&format!("{ANY_TOKEN}roles = {{ none = [\"blocked\"] }}\n"))
        .start();
    let get = |roles: &[&str], said: &[&str]| {
        let id = format!("{roles:?} {said:?}");
        let token = issuer.mint(&Mint::new().roles(roles).claim("jti", id));
        let mut members = active();
        members["realm_access"] = json!({ "roles": said });
        issuer.know(&token, &members);
        let value = format!("Bearer {token}");
        gate.get_with("/api", &[("Authorization", &value)])
    };
    get(&["reader"], &["reader"]).expect(200);
    for (roles, said) in [
        (&["reader", "blocked"][..], &["reader"][..]),
        (&["reader"], &["reader", "blocked"]),
        (&["reader", "blocked"], &["reader", "blocked"]),
    ] {
        expect_problem(&get(roles, said), 403, "role-missing");
    }
    assert_eq!(origin.requests().len(), 1);
}

#[test]
fn made_up_tokens_that_the_issuer_answers_400_cost_their_client() {
    let scene = Scene::new();
    scene.issuer.answer_unknown_with(400);
    let mut client = scene.gate.https();
    for number in 0..200 {
        let value = format!("Bearer made-up-{number}");
        let get = request("GET", "/api", &[("Authorization", &value)]);
        expect_problem(
            &client.send(get).response(),
            503,
            "introspection-unavailable",
        );
    }
    let asked = scene.asked();
    assert!((100..=140).contains(&asked), "{asked} questions");
    let signed = scene.issuer.mint(&Mint::new());
    scene.show(&signed).expect(200);
}

/// A neighbour who sends made-up tokens from the same address.
struct Neighbour {
    client: Client,
    sent: u32,
}

impl Neighbour {
    fn new(gate: &Running) -> Self {
        Self {
            client: gate.https(),
            sent: 0,
        }
    }

    /// Sends until what is refused at this address is used up; half a second later there is a little again.
    fn use_up(&mut self) {
        for _ in 0..300 {
            self.sent += 1;
            let value = format!("Bearer made-up-{}", self.sent);
            let get = request("GET", "/api", &[("Authorization", &value)]);
            if self.client.send(get).response().status == 503 {
                return;
            }
        }
        panic!("{} made-up tokens were asked about", self.sent);
    }
}

#[test]
fn a_neighbour_with_made_up_tokens_shuts_out_nobody_whose_token_is_known() {
    let scene = Scene::with("cache = \"1s\"\nnegative_cache = \"0s\"");
    let mut neighbour = Neighbour::new(&scene.gate);
    for token in ["known", "withdrawn"] {
        scene.issuer.know(token, &active());
        scene.show(token).expect(200);
    }
    let mut ask_again = |token| {
        eventually("the answer is out of date", || {
            neighbour.use_up();
            let before = scene.asked();
            let response = scene.show(token);
            (response.status != 200 || scene.asked() > before).then_some(response)
        })
    };
    for _ in 0..2 {
        ask_again("known").expect(200);
    }
    // One that was refused is no longer a known one.
    scene.issuer.know("withdrawn", &json!({"active": false}));
    expect_problem(&ask_again("withdrawn"), 401, "token-invalid");
    for token in ["withdrawn", "new"] {
        eventually("it is not asked about", || {
            neighbour.use_up();
            (scene.show(token).status == 503).then_some(())
        });
    }
}

#[test]
fn a_neighbour_with_made_up_tokens_shuts_out_no_signed_token() {
    let scene = Scene::with("when = \"always\"");
    let mut neighbour = Neighbour::new(&scene.gate);
    let forged = Mint::new().with_a_foreign_key();
    for number in 0..3 {
        let token = scene
            .issuer
            .mint(&Mint::new().claim("jti", number.to_string()));
        scene.issuer.know(&token, &active());
        let forged = scene.issuer.mint(&forged);
        neighbour.use_up();
        scene.show(&token).expect(200);
        expect_problem(&scene.show(&forged), 401, "token-invalid");
    }
}

#[test]
fn an_answer_that_does_not_say_when_a_signed_token_was_issued_revokes_no_new_one() {
    let origin = Origin::echo();
    let issuer = Issuer::http();
    let section = issuer.section_with("revoked = \"revoked.txt\"");
    let gate = Gate::before(&origin)
        .environment("GATE_SECRET", SECRET)
        .with(&section)
        .with(&issuer.introspection())
        .with("when = \"always\"\n")
        .with(ANY_TOKEN);
    let list = format!("sub:alice before:{}\n", now() - 50);
    std::fs::write(gate.directory().join("revoked.txt"), list).expect("our directory");
    let gate = gate.start();
    for (issued, said, status) in [
        (now(), None, 200),
        (now() - 100, None, 401),
        (now(), Some(now() - 100), 401),
    ] {
        let token = issuer.mint(
            &Mint::new()
                .claim("iat", issued)
                .claim("jti", format!("{issued} {said:?}")),
        );
        let mut members = active();
        if let Some(said) = said {
            members["iat"] = said.into();
        }
        issuer.know(&token, &members);
        let value = format!("Bearer {token}");
        let response = gate.get_with("/api", &[("Authorization", &value)]);
        response.expect(status);
    }
}

#[test]
fn an_issuer_without_keys_judges_all_of_its_tokens() {
    let origin = Origin::echo();
    let issuer = Issuer::http();
    let section = format!(
        "[issuers.corp]\nissuer = \"https://idp.example/realms/main\"\naudience = \"portcullis\"\n{}",
        issuer.introspection()
    );
    let gate = Gate::before(&origin)
        .environment("GATE_SECRET", SECRET)
        .with(&section)
        .with(ANY_TOKEN)
        .start();
    let ready = gate.proxy.ask_admin("/readyz");
    ready.expect(200);
    issuer.know("opaque", &active());
    let get = |token: &str| {
        let value = format!("Bearer {token}");
        gate.get_with("/api", &[("Authorization", &value)])
    };
    get("opaque").expect(200);
    let signed = issuer.mint(&Mint::new());
    get(&signed).expect(401);
    issuer.know(&signed, &active());
    let other = issuer.mint(&Mint::new().claim("jti", "1"));
    issuer.know(&other, &active());
    get(&other).expect(200);
}

#[test]
fn what_cannot_work_is_refused_when_the_file_is_read() {
    let origin = Origin::echo();
    let issuer = Issuer::http();
    let both = format!(
        "{}{}{}{}",
        issuer.section(),
        issuer.introspection(),
        issuer.section().replace("corp", "other"),
        issuer.introspection().replace("corp", "other")
    );
    let two = ANY_TOKEN.replace("[\"corp\"]", "[\"corp\", \"other\"]");
    let bare = |lines: &str| {
        format!(
            "{}[issuers.corp.introspection]\n{lines}\n",
            issuer.section()
        )
    };
    for (sections, complaint) in [
        (
            both + &two,
            "an opaque token could be of `corp` or of `other`",
        ),
        (
            bare("client_id = \"gate\"") + ANY_TOKEN,
            "the introspection of issuer `corp` needs `url`",
        ),
        (
            bare(
                "url = \"http://idp.example/\"\nclient_id = \"g\"\nclient_secret = { env = \"GATE_SECRET\" }",
            ) + ANY_TOKEN,
            "must be https",
        ),
        (
            issuer
                .section_with("keep = \"keys.json\"")
                .replace("jwks_url", "# jwks_url")
                + "secret = { env = \"GATE_SECRET\" }\n"
                + ANY_TOKEN,
            "only keys that are fetched can be kept",
        ),
        (
            issuer.section_with("cooldown = \"10ms\"") + ANY_TOKEN,
            "would be a flood at the issuer",
        ),
        (
            issuer.section_with("revoked = \"none.txt\"") + ANY_TOKEN,
            "none.txt",
        ),
    ] {
        let said = check(&Gate::before(&origin).with(&sections), 2);
        assert!(said.contains(complaint), "{complaint}\n{said}");
    }
}

#[test]
fn what_weakens_the_gate_is_told() {
    let origin = Origin::echo();
    let issuer = Issuer::http();
    let weak = "cache = \"1h\"\nrequire_audience = false\n";
    let sections = issuer.section() + &issuer.introspection() + weak + ANY_TOKEN;
    let said = check(&Gate::before(&origin).with(&sections), 0);
    for relaxation in [
        "a withdrawn token counts for long",
        "a token made for somebody else",
    ] {
        assert!(said.contains(relaxation), "{said}");
    }
    assert_eq!(issuer.fetches("/introspect"), 0);
}

/// What `check` says of a file.
fn check(gate: &Gate, code: i32) -> String {
    let output = portcullis()
        .args(["check", "-v", "-c"])
        .arg(gate.write())
        .env("GATE_SECRET", SECRET)
        .output()
        .expect("the built program starts");
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said).into_owned();
    assert_eq!(output.status.code(), Some(code), "{said}");
    said
}
