//! The verbs as a person types them: exit codes, what goes to which stream, and that `explain` says what the gate does.

use std::fmt::Write;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use portcullis::wire::halt::Stage;

use crate::harness::gate::Running;
use crate::harness::proxy::{portcullis, portcullis_verb, write_policy};
use crate::harness::{Gate, Issuer, Mint, Origin, eventually};

const API: &str = r#"
[[blueprints]]
name = "api"
hosts = ["app.example"]
prefix = "/api"
upstream = "legacy"
unmatched = "refuse"

[blueprints.auth]
require = ["bearer"]
issuers = ["corp"]
roles = { any = ["admin"] }

[blueprints.cors]
origins = ["https://spa.example"]
methods = ["GET", "PUT"]

[blueprints.network]
deny = ["198.51.100.0/24"]

[[blueprints.routes]]
name = "user"
path = "/users/{id}"
methods = ["GET", "PUT"]

[[blueprints.routes]]
name = "open"
path = "/open"
auth = "public"
"#;

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).expect("text")
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).expect("text")
}

/// What `explain` says of a request.
struct Explained(String);

impl Explained {
    #[track_caller]
    fn of(file: &Path, arguments: &[&str]) -> Self {
        let output = explain(file, arguments);
        assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
        Self(stdout(&output))
    }

    #[track_caller]
    fn says(&self, texts: &[&str]) -> &Self {
        for text in texts {
            assert!(self.0.contains(text), "no `{text}` in\n{}", self.0);
        }
        self
    }

    /// The verdict of a stage, its lines joined.
    #[track_caller]
    fn stage(&self, stage: Stage) -> String {
        let all = self.block("stages");
        let mut of: Vec<&str> = Vec::new();
        let mut inside = false;
        for line in all {
            let (name, verdict) = line.split_at(13.min(line.len()));
            if !name.trim().is_empty() {
                inside = name.trim() == stage.as_str();
            }
            if inside {
                of.push(verdict.trim());
            }
        }
        assert!(!of.is_empty(), "no stage {stage:?} in\n{}", self.0);
        of.join("; ")
    }

    /// The lines under a heading that begins like this.
    #[track_caller]
    fn block(&self, heading: &str) -> Vec<&str> {
        self.0
            .lines()
            .skip_while(|line| !line.starts_with(heading) || line.contains("   "))
            .skip(1)
            .take_while(|line| !line.is_empty())
            .collect()
    }
}

fn explain(file: &Path, arguments: &[&str]) -> Output {
    portcullis()
        .arg("explain")
        .arg("-c")
        .arg(file)
        .args(arguments)
        .output()
        .expect("the built program starts")
}

/// A gate that would accept tokens of the issuer from a key set on disk; nothing is started but the issuer.
fn with_keys_on_disk(origin: &Origin, issuer: &Issuer) -> Gate {
    let gate = Gate::before(origin);
    let file = gate.directory().join("jwks.json");
    issuer.write_jwks(&file);
    gate.with(&format!(
        "[issuers.corp]\nissuer = \"https://idp.example/realms/main\"\naudience = [\"portcullis\"]\n\
         jwks_file = '{}'\nalgorithms = [\"RS256\"]\nroles = [\"realm_access.roles\"]\n",
        file.display()
    ))
    .with(API)
}

fn write_token(gate: &Path, token: &str) -> String {
    let file = gate.join("token");
    std::fs::write(&file, format!("{token}\n")).expect("the test's directory takes files");
    file.display().to_string()
}

#[test]
fn bad_usage_is_exit_2_on_standard_error() {
    for arguments in [
        &[][..],
        &["nonsense"],
        &["check", "--nonsense"],
        &["explain", "GET"],
        &["completions", "no-such-shell"],
        &["init"],
        &["run", "-c", "gate.toml", "--upstream", "http://127.0.0.1:1"],
        &["healthcheck", "--url", "ftp://127.0.0.1:1"],
    ] {
        let output = portcullis_verb(arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(output.stdout.is_empty(), "{arguments:?}");
        assert!(!output.stderr.is_empty(), "{arguments:?}");
    }
}

#[test]
fn help_and_version_are_data() {
    for verb in ["check", "explain", "run", "healthcheck", "init"] {
        let output = portcullis_verb(&[verb, "--help"]);
        assert_eq!(output.status.code(), Some(0), "{verb}");
        assert!(stdout(&output).contains("Usage"), "{verb}");
        assert!(output.stderr.is_empty(), "{verb}");
    }
    assert!(stdout(&portcullis_verb(&["--version"])).starts_with("portcullis "));
}

#[test]
fn check_says_what_it_found_in_one_line_of_data() {
    let origin = Origin::echo();
    let gate = Gate::before(&origin).issuer_without_keys().with(API);
    let file = gate.write();
    let output = portcullis()
        .args(["check", "-c", "gate.toml"])
        .current_dir(gate.directory())
        .output()
        .expect("the built program starts");
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    // The tests' own `rate_limits = []` stands in the defaults.
    assert!(
        stdout(&output).starts_with("gate.toml is good: 1 blueprint, 2 routes, 1 upstream; "),
        "{}",
        stdout(&output)
    );
    assert_eq!(stdout(&output).lines().count(), 1);
    assert!(stderr(&output).contains("this weakens"));
    let named_by_the_environment = portcullis()
        .arg("check")
        .env("PORTCULLIS_CONFIG", &file)
        .output()
        .expect("the built program starts");
    assert_eq!(named_by_the_environment.status.code(), Some(0));
    origin.expect_untouched();
}

#[test]
fn check_of_a_bad_file_has_no_data() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let file = write_policy(directory.path(), "[server]\nhtpps = []\n");
    let output = portcullis_verb(&["check", "-v", "-c", &file.display().to_string()]);
    assert_eq!(output.status.code(), Some(2));
    assert!(output.stdout.is_empty());
    assert!(stderr(&output).contains("htpps"));
    assert!(!stderr(&output).contains('\x1b'), "NO_COLOR is honoured");
}

#[test]
fn check_v_tells_every_value_and_every_header_in_force() {
    let origin = Origin::echo();
    let gate = Gate::before(&origin)
        .issuer_without_keys()
        .server("drain = \"7s\"")
        .defaults("")
        .with(API);
    let output = portcullis_verb(&["check", "-v", "-c", &gate.write().display().to_string()]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let said = stdout(&output);
    for text in [
        "server.drain = \"7s\"  (",
        "server.limits.header_bytes = \"16KiB\"  (default)",
        "upstreams.legacy.connect_timeout = \"3s\"  (default)",
        "issuers.corp.leeway = \"30s\"  (default)",
        "route `user` of blueprint `api` (",
        "GET, PUT on app.example: /api/users/{id} -> upstream `legacy`",
        "any of admin",
        "append: default-src 'self'",
        "set: nosniff",
        "x-powered-by                   remove (leak)",
        "https://spa.example",
        "1 ranges",
    ] {
        assert!(said.contains(text), "no `{text}` in\n{said}");
    }
}

#[test]
fn check_asks_nobody() {
    let issuer = Issuer::http();
    let origin = Origin::echo();
    let gate = Gate::before(&origin).with(&issuer.section()).with(API);
    let output = portcullis_verb(&["check", "-c", &gate.write().display().to_string()]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert_eq!(issuer.fetches("/jwks"), 0);
    origin.expect_untouched();
}

#[test]
fn init_prints_a_file_that_passes_check() {
    for upstream in ["http://127.0.0.1:8000", "unix:/run/app.sock"] {
        let output = portcullis_verb(&["init", "--upstream", upstream]);
        assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
        assert!(output.stderr.is_empty());
        let directory = tempfile::tempdir().expect("a temporary directory");
        let file = write_policy(directory.path(), &stdout(&output));
        assert!(stdout(&output).contains(upstream));
        let checked = portcullis_verb(&["check", "-c", &file.display().to_string()]);
        assert_eq!(checked.status.code(), Some(0), "{}", stderr(&checked));
    }
    let refused = portcullis_verb(&["init", "--upstream", "ftp://x\"\n[server]"]);
    assert_eq!(refused.status.code(), Some(2));
    assert!(refused.stdout.is_empty());
    assert!(stderr(&refused).contains("ftp"));
}

#[test]
fn what_init_suggests_in_comments_is_sound_too() {
    let output = portcullis_verb(&["init", "--upstream", "http://127.0.0.1:8000"]);
    let text = stdout(&output);
    let (head, suggestions) = text
        .split_once("# Pages that inline scripts")
        .expect("the suggestions");
    let mut all = head.to_owned();
    for line in suggestions.lines() {
        let line = line.strip_prefix("# ").unwrap_or(line);
        // What is TOML was meant to be taken in; the rest are sentences.
        if line.starts_with('[') || line.parse::<toml::Table>().is_ok() {
            let _ = writeln!(all, "{line}");
        }
    }
    assert!(all.contains("[issuers.corp]") && all.contains("name = \"sign-in\""));
    let directory = tempfile::tempdir().expect("a temporary directory");
    let file = write_policy(directory.path(), &all);
    let checked = portcullis_verb(&["check", "-c", &file.display().to_string()]);
    assert_eq!(checked.status.code(), Some(0), "{}", stderr(&checked));
}

#[test]
fn completions_and_man_know_every_verb() {
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        let output = portcullis_verb(&["completions", shell]);
        assert_eq!(output.status.code(), Some(0), "{shell}");
        assert!(stdout(&output).contains("healthcheck"), "{shell}");
    }
    let man = stdout(&portcullis_verb(&["man"]));
    assert!(man.contains(".TH portcullis 1"));
    for verb in [
        "RUN",
        "CHECK",
        "EXPLAIN",
        "INIT",
        "HASH-KEY",
        "SCHEMA",
        "HEALTHCHECK",
    ] {
        assert!(man.contains(&format!(".SH \"{verb}\"")), "{verb}");
    }
}

#[test]
fn healthcheck_asks_the_admin_listener() {
    let origin = Origin::echo();
    let mut gate = Gate::before(&origin).open();
    let url = format!("http://{}", gate.proxy.admin());
    let ask = || portcullis_verb(&["healthcheck", "--url", &url]);
    let output = ask();
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert!(output.stdout.is_empty() && output.stderr.is_empty());
    gate.proxy.signal("TERM");
    gate.proxy.await_exit();
    let output = ask();
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains(&gate.proxy.admin().to_string()));
}

#[test]
fn healthcheck_takes_listener_and_token_from_the_file() {
    let origin = Origin::echo();
    let directory = tempfile::tempdir().expect("a temporary directory");
    let file = write_policy(
        directory.path(),
        &format!(
            "[server]\nhttp = [\"127.0.0.1:0\"]\nplaintext = true\n\
             [admin]\nlisten = \"unix:{}/admin.sock\"\ntoken = {{ env = \"ADMIN_TOKEN\" }}\n\
             [upstreams.legacy]\nservers = [\"{}\"]\n\
             [[blueprints]]\nname = \"app\"\nupstream = \"legacy\"\nauth = \"public\"\n",
            directory.path().display(),
            origin.url()
        ),
    );
    let variables = [("ADMIN_TOKEN".to_owned(), "open sesame".to_owned())];
    let _gate = crate::harness::proxy::Proxy::start(&file, &variables);
    let ask = |token: &str| {
        portcullis()
            .arg("healthcheck")
            .env("PORTCULLIS_CONFIG", &file)
            .env("ADMIN_TOKEN", token)
            .output()
            .expect("the built program starts")
    };
    assert_eq!(ask("open sesame").status.code(), Some(0));
    let refused = ask("open barley");
    assert_eq!(refused.status.code(), Some(1));
    assert!(stderr(&refused).contains("401"), "{}", stderr(&refused));
    assert!(!stderr(&refused).contains("barley"));
    let text = std::fs::read_to_string(&file).expect("our file");
    write_policy(
        directory.path(),
        &text.replace("upstream = \"legacy\"", "upstream = \"no\""),
    );
    let output = ask("open sesame");
    assert_eq!(
        output.status.code(),
        Some(0),
        "a bad edit elsewhere is not the gate's illness"
    );
    write_policy(
        directory.path(),
        &text.replace("[admin]\nlisten", "[admin]\nlisen"),
    );
    let output = ask("open sesame");
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("listen"), "{}", stderr(&output));
}

#[test]
fn explain_says_what_the_backend_gets_and_the_client_too() {
    let issuer = Issuer::http();
    let origin = Origin::with_headers(&[("Content-Type", "text/html; charset=utf-8")]);
    let gate: Running = with_keys_on_disk(&origin, &issuer).start();
    let token = issuer.mint(&Mint::new().roles(&["admin"]));
    let token_file = write_token(gate.directory.path(), &token);
    let file = gate.directory.path().join("gate.toml");
    let said = Explained::of(
        &file,
        &[
            "GET",
            "https://app.example/api/./users/7?q=1",
            "-H",
            "Origin: https://spa.example",
            "-H",
            "X-Auth-Roles: root",
            "--token",
            &token_file,
            "--from",
            "127.0.0.1",
        ],
    );
    let real = gate.get_with(
        "/api/./users/7?q=1",
        &[
            ("Origin", "https://spa.example"),
            ("X-Auth-Roles", "root"),
            ("Authorization", &format!("Bearer {token}")),
        ],
    );
    real.expect(200);
    said.says(&[
        "verdict      forwarded",
        "normalised   https://app.example/api/users/7?q=1",
    ]);
    let mine = |(name, _): &(String, String)| {
        ["x-request-id", "traceparent", "date", "content-length"].contains(&name.as_str())
    };
    let real_fields = |fields: &[(String, String)]| {
        let lower = fields
            .iter()
            .map(|(name, value)| (name.to_lowercase(), value.clone()));
        lower.filter(|field| !mine(field)).collect::<Vec<_>>()
    };
    let said_fields = |heading: &str| {
        let lines = said.block(heading).into_iter().skip(1);
        let pairs = lines.filter_map(|line| line.trim().split_once(": "));
        let pairs = pairs.map(|(name, value)| (name.to_owned(), value.to_owned()));
        pairs.filter(|field| !mine(field)).collect::<Vec<_>>()
    };
    let received = origin.only_request();
    assert_eq!(received.head.line, said.block("request to")[0].trim());
    assert_eq!(
        real_fields(&received.head.fields),
        said_fields("request to")
    );
    assert_eq!(real_fields(&real.head.fields), said_fields("answer, if"));
}

#[test]
fn explain_names_the_line_that_decides() {
    let issuer = Issuer::http();
    let origin = Origin::echo();
    let gate = with_keys_on_disk(&origin, &issuer);
    let file = gate.write();
    let text = std::fs::read_to_string(&file).expect("our file");
    let line = |wanted: &str| {
        let at = text.lines().position(|line| line.starts_with(wanted));
        format!("{}:{}", file.display(), at.expect("the line") + 1)
    };
    let token = issuer.mint(&Mint::new().roles(&["reader"]));
    let token_file = write_token(gate.directory(), &token);
    let arguments = [
        "GET",
        "https://app.example/api/users/7",
        "--token",
        &token_file,
    ];
    let refused = Explained::of(&file, &arguments);
    refused.says(&["verdict      refused: 403 role-missing", "HTTP/1.1 403"]);
    let rbac = refused.stage(Stage::Rbac);
    assert!(rbac.contains(&line("roles = { any")), "{rbac}");
    assert!(rbac.contains("the caller has reader"), "{rbac}");
    assert!(
        refused
            .stage(Stage::Authn)
            .contains(&line("[blueprints.auth]"))
    );
    assert!(refused.stage(Stage::Cors).contains(&line("origins =")));
    assert!(
        refused
            .stage(Stage::Route)
            .contains(&line("[[blueprints.routes]]"))
    );
    assert_eq!(refused.stage(Stage::Forward), "not reached");
    assert!(!refused.0.contains(&token), "the token is not repeated");
    let denied = Explained::of(&file, &["GET", arguments[1], "--from", "198.51.100.7"]);
    denied.says(&["refused: 403 network-denied"]);
    assert!(denied.stage(Stage::Network).contains(&line("deny =")));
    assert_eq!(denied.stage(Stage::RateLimit), "not reached");
    let open = Explained::of(&file, &["GET", "https://app.example/api/open"]);
    assert!(
        open.stage(Stage::Authn)
            .contains(&line("auth = \"public\""))
    );
    origin.expect_untouched();
}

#[test]
fn explain_has_a_line_for_every_stage_whatever_happens() {
    let origin = Origin::echo();
    let gate = Gate::before(&origin).issuer_without_keys().with(API);
    let file = gate.write();
    let cases: [(&[&str], &str); 9] = [
        (&["GET", "https://app.example/api/open"], "forwarded"),
        (
            &["GET", "https://app.example/api/users/7"],
            "refused: 401 credentials-missing",
        ),
        (
            &["GET", "https://app.example/nothing"],
            "refused: 404 route-unknown",
        ),
        (
            &["DELETE", "https://app.example/api/users/7"],
            "refused: 405 method-not-allowed",
        ),
        (
            &["GET", "https://other.example/api/open"],
            "refused: 421 misdirected",
        ),
        (
            &["GET", "https://app.example/api/%2e%2e/%2e%2e/open"],
            "refused: 400 bad-target",
        ),
        (
            &["GET", "http://app.example/api/open"],
            "answered by the gate at stage route",
        ),
        (
            &[
                "POST",
                "https://app.example/api/open",
                "-H",
                "Content-Length: 1",
                "-H",
                "Transfer-Encoding: chunked",
            ],
            "refused: 400 framing-conflict",
        ),
        (
            &[
                "POST",
                "https://app.example/api/open",
                "-H",
                "Content-Length: 99999999999",
            ],
            "refused: 413 body-too-large",
        ),
    ];
    for (arguments, verdict) in cases {
        let said = Explained::of(&file, arguments);
        said.says(&[&format!("verdict      {verdict}")]);
        for stage in Stage::ALL {
            assert!(!said.stage(stage).is_empty(), "{stage:?} of {arguments:?}");
        }
    }
    origin.expect_untouched();
}

#[test]
fn explain_answers_preflights() {
    let origin = Origin::echo();
    let gate = Gate::before(&origin).issuer_without_keys().with(API);
    let file = gate.write();
    let ask = |origin: &str| {
        Explained::of(
            &file,
            &[
                "OPTIONS",
                "https://app.example/api/users/7",
                "-H",
                &format!("Origin: {origin}"),
                "-H",
                "Access-Control-Request-Method: PUT",
            ],
        )
    };
    let granted = ask("https://spa.example");
    granted.says(&["answered by the gate at stage cors", "HTTP/1.1 204"]);
    granted.says(&["access-control-allow-methods: GET, PUT"]);
    assert_eq!(granted.stage(Stage::Authn), "not reached");
    ask("https://evil.example").says(&["refused: 403 origin-denied"]);
}

#[test]
fn explain_does_not_fetch_keys_and_says_so() {
    let issuer = Issuer::http();
    let origin = Origin::echo();
    let gate = Gate::before(&origin).with(&issuer.section()).with(API);
    let file = gate.write();
    let token = issuer.mint(&Mint::new().roles(&["admin", "\u{1b}[31mred"]));
    let token_file = write_token(gate.directory(), &token);
    let said = Explained::of(
        &file,
        &[
            "GET",
            "https://app.example/api/users/7",
            "--token",
            &token_file,
        ],
    );
    said.says(&["verdict      unknown"]);
    assert!(
        !said.0.contains('\u{1b}'),
        "a token cannot paint the terminal"
    );
    let authn = said.stage(Stage::Authn);
    for text in [
        "keys of issuer \"corp\" are not on disk: signature not checked",
        "unverified subject: alice",
        "unverified roles: admin",
        "verdict unknown",
    ] {
        assert!(authn.contains(text), "no `{text}` in {authn}");
    }
    assert_eq!(said.stage(Stage::Rbac), "unknown: depends on the token");
    assert_eq!(issuer.fetches("/jwks"), 0);
}

#[test]
fn explain_reads_a_token_from_standard_input() {
    let issuer = Issuer::http();
    let origin = Origin::echo();
    let gate = with_keys_on_disk(&origin, &issuer);
    let mut child = Command::new(env!("CARGO_BIN_EXE_portcullis"))
        .arg("explain")
        .arg("-c")
        .arg(gate.write())
        .args(["GET", "https://app.example/api/users/7", "--token", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the built program starts");
    let token = issuer.mint(&Mint::new().roles(&["admin"]));
    let mut stdin = child.stdin.take().expect("a piped stdin");
    writeln!(stdin, "{token}").expect("the program reads");
    drop(stdin);
    let output = child.wait_with_output().expect("our own child");
    assert!(stdout(&output).contains("verdict      forwarded"));
    assert!(stdout(&output).contains("x-auth-roles: admin"));
}

#[test]
fn explain_refuses_what_is_no_request_and_no_file() {
    let origin = Origin::echo();
    let gate = Gate::before(&origin).issuer_without_keys().with(API);
    let file = gate.write();
    for arguments in [
        &["GET", "app.example"][..],
        &["GET", "ftp://app.example/"],
        &["GE T", "https://app.example/"],
        &["GET", "https://app.example/", "-H", "no colon"],
        &["GET", "https://app.example/", "--token", "/no/such/file"],
        &["GET", "https://app.example/", "--from", "nowhere"],
    ] {
        let output = explain(&file, arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(output.stdout.is_empty(), "{arguments:?}");
    }
    let bad = write_policy(gate.directory(), "[server]\nhtpps = []\n");
    let output = explain(&bad, &["GET", "https://app.example/"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(output.stdout.is_empty() && stderr(&output).contains("htpps"));
}

#[test]
fn a_second_gate_does_not_share_the_port_of_a_forgotten_one() {
    let origin = Origin::echo();
    let gate = Gate::before(&origin).open();
    let address = gate.proxy.https().to_string();
    let https = format!("server.https={address}");
    let output = portcullis_verb(&["run", "--upstream", "http://127.0.0.1:9", "--set", &https]);
    assert_eq!(output.status.code(), Some(1));
    let talk = String::from_utf8_lossy(&output.stderr);
    let wanted = format!("error: cannot listen on {address}: Address already in use");
    assert!(talk.contains(&wanted), "{talk}");
    gate.get("/").expect(200);
}

#[test]
fn explain_and_check_leave_a_running_gate_alone() {
    let origin = Origin::echo();
    let gate = Gate::before(&origin)
        .defaults("[[defaults.rate_limits]]\nname = \"few\"\nquota = 2\nwindow = \"1h\"\n")
        .open();
    let file = gate.directory.path().join("gate.toml");
    let reloads = gate.proxy.metric("portcullis_reloads_total", &[]);
    for _ in 0..3 {
        Explained::of(
            &file,
            &["GET", "https://app.example/", "--from", "127.0.0.1"],
        )
        .says(&["verdict      forwarded", "limit `few`"]);
        portcullis_verb(&["check", "-c", &file.display().to_string()]);
    }
    gate.get("/").expect(200);
    gate.get("/").expect(200);
    gate.get("/").expect(429);
    let now = eventually("the metrics", || {
        Some(gate.proxy.metric("portcullis_reloads_total", &[]))
    });
    assert!((now - reloads).abs() < f64::EPSILON);
}
