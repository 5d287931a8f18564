//! What `check` says of a file: every problem at once, each with its place, a caret and a hint, and exit code 2.
//!
//! The snapshots hold the diagnostics as a person reads them; what must be true of them is asserted beside them.

use std::path::Path;

use crate::harness::proxy::{portcullis, portcullis_verb, write_policy};
use crate::harness::{Ca, Gate, Origin};

/// What came of a `check`.
struct Checked {
    code: Option<i32>,
    talk: String,
}

/// Checks `text` as `gate.toml` in a directory of its own.
fn check(text: &str) -> Checked {
    let directory = tempfile::tempdir().expect("a temporary directory");
    check_in(directory.path(), text)
}

/// Checks `text` as `gate.toml` in `directory`, from within it, so that no path of this machine is printed.
fn check_in(directory: &Path, text: &str) -> Checked {
    write_policy(directory, text);
    let output = portcullis()
        .args(["check", "-c", "gate.toml"])
        .current_dir(directory)
        .output()
        .expect("the built program starts");
    let talk = String::from_utf8_lossy(&output.stderr).into_owned()
        + &String::from_utf8_lossy(&output.stdout);
    Checked {
        code: output.status.code(),
        talk,
    }
}

impl Checked {
    /// Wants exit code 2 and each of these texts.
    #[track_caller]
    fn expect_refused(&self, texts: &[&str]) -> &Self {
        assert_eq!(self.code, Some(2), "{}", self.talk);
        for text in texts {
            assert!(self.talk.contains(text), "no `{text}` in\n{}", self.talk);
        }
        self
    }

    /// Wants exit code 0.
    #[track_caller]
    fn expect_accepted(&self) -> &Self {
        assert_eq!(self.code, Some(0), "{}", self.talk);
        self
    }
}

/// A sound file; cases replace one line of it or add to it.
const SOUND: &str = r#"[server]
http = ["127.0.0.1:0"]
plaintext = true

[upstreams.legacy]
servers = ["http://127.0.0.1:8000"]

[[blueprints]]
name = "app"
hosts = ["app.example"]
upstream = "legacy"
auth = "public"
"#;

/// The sound file with one text replaced by another.
fn with(old: &str, new: &str) -> String {
    assert!(SOUND.contains(old), "`{old}` is not in the sound file");
    SOUND.replacen(old, new, 1)
}

/// The sound file with more after it.
fn and(more: &str) -> String {
    format!("{SOUND}{more}")
}

#[test]
fn a_sound_file_is_accepted() {
    check(SOUND).expect_accepted();
}

#[test]
fn all_problems_are_told_at_once() {
    let text = r#"[server]
http = ["127.0.0.1:0"]
drain = "soon"
wrokers = 2

[upstreams.legacy]
servers = ["http://127.0.0.1:8000"]
conect_timeout = "3s"

[defaults.headers]
preset = "strickt"

[[blueprints]]
name = "app"
upstream = "legcay"
"#;
    let checked = check(text);
    checked.expect_refused(&[
        "drain",
        "`soon`",
        "wrokers",
        "workers",
        "conect_timeout",
        "connect_timeout",
        "strickt",
        "legcay",
        "auth",
        "gate.toml",
    ]);
    insta::assert_snapshot!(checked.talk);
}

#[test]
fn an_unknown_key_has_a_nearest_name() {
    let checked = check(&with("plaintext = true", "plaintxt = true"));
    checked.expect_refused(&["plaintxt", "plaintext", "gate.toml:3", "^"]);
    insta::assert_snapshot!(checked.talk);
}

#[test]
fn an_unknown_section_has_a_nearest_name() {
    let checked = check(&and("\n[default.headers]\npreset = \"api\"\n"));
    checked.expect_refused(&["default", "defaults", "^"]);
}

#[test]
fn a_wrong_type_is_named() {
    let checked = check(&with("plaintext = true", "plaintext = \"yes\""));
    checked.expect_refused(&["plaintext", "gate.toml:3", "^"]);
    insta::assert_snapshot!(checked.talk);
}

#[test]
fn values_that_do_not_parse_are_shown_with_what_is_accepted() {
    let cases = [
        (
            "duration",
            with("plaintext = true", "drain = \"30 parsecs\""),
        ),
        (
            "size",
            and("\n[server.limits]\nbody_bytes = \"10 potatoes\"\n"),
        ),
        (
            "network",
            with("plaintext = true", "trusted_proxies = [\"10.0.0.0/40\"]"),
        ),
        ("listener", with("127.0.0.1:0", "127.0.0.1:99999")),
        (
            "server",
            with("http://127.0.0.1:8000", "ftp://127.0.0.1:8000"),
        ),
        (
            "header_value",
            and("\n[defaults.headers.set]\nX-A = \"a\\nb\"\n"),
        ),
        (
            "header_name",
            and("\n[defaults.headers.set]\n\"X A\" = \"b\"\n"),
        ),
        (
            "method",
            and("\n[[blueprints.routes]]\nname = \"r\"\npath = \"/x\"\nmethods = [\"GE T\"]\n"),
        ),
        (
            "pattern",
            and("\n[[blueprints.routes]]\nname = \"r\"\npath = \"/x/{id\"\n"),
        ),
        ("host", with("\"app.example\"", "\"app.*.example\"")),
        (
            "quota",
            and(
                "\n[[blueprints.rate_limits]]\nname = \"l\"\nkey = \"client\"\nquota = -1\nwindow = \"1m\"\n",
            ),
        ),
        (
            "limit_key",
            and(
                "\n[[blueprints.rate_limits]]\nname = \"l\"\nkey = \"colour\"\nquota = 1\nwindow = \"1m\"\n",
            ),
        ),
    ];
    for (name, text) in cases {
        let checked = check(&text);
        checked.expect_refused(&["gate.toml:", "^"]);
        // The message of these two says what is accepted.
        assert!(
            ["pattern", "quota"].contains(&name) || checked.talk.contains("hint: "),
            "{}",
            checked.talk
        );
        insta::assert_snapshot!(name, checked.talk);
    }
}

#[test]
fn origins_that_are_none_are_refused() {
    for origin in [
        "app.example",
        "https://app.example/",
        "https://app.example/x",
        "https://*",
        "null",
    ] {
        let checked = check(&and(&format!(
            "\n[blueprints.cors]\norigins = [\"{origin}\"]\n"
        )));
        checked.expect_refused(&[origin, "gate.toml:15", "^"]);
    }
    insta::assert_snapshot!(check(&and("\n[blueprints.cors]\norigins = [\"app.example\"]\n")).talk);
}

#[test]
fn b07_an_unquoted_csp_keyword_is_a_load_error() {
    let checked = check(&and(
        "\n[defaults.headers.set]\nContent-Security-Policy = \"default-src 'self'; script-src self\"\n",
    ));
    checked.expect_refused(&["gate.toml:15", "'self'", "hint", "^"]);
    let mut lines = checked.talk.lines();
    let caret = loop {
        let line = lines.next().expect("the quoted line");
        if line.contains("script-src self") && line.contains("Content-Security-Policy") {
            let column = line.rfind("self").expect("the word");
            break lines
                .next()
                .expect("the carets")
                .find('^')
                .map(|caret| (caret, column));
        }
    };
    let (caret, column) = caret.expect("a caret");
    assert_eq!(
        caret, column,
        "the caret stands under `self`:\n{}",
        checked.talk
    );
    insta::assert_snapshot!(checked.talk);
}

#[test]
fn b14_credentials_with_a_star() {
    let checked = check(&and(
        "\n[blueprints.cors]\norigins = [\"*\"]\ncredentials = true\n",
    ));
    checked.expect_refused(&["credentials", "gate.toml:1", "^", "hint"]);
    insta::assert_snapshot!(checked.talk);
}

#[test]
fn names_that_lead_nowhere() {
    let upstream = check(&with("upstream = \"legacy\"", "upstream = \"legcay\""));
    upstream.expect_refused(&["`legcay`", "legacy", "gate.toml:11", "^"]);
    insta::assert_snapshot!("missing_upstream", upstream.talk);
    let issuer = check(&with(
        "auth = \"public\"",
        "auth = { require = [\"bearer\"], issuers = [\"corp\"] }",
    ));
    issuer.expect_refused(&["`corp`", "gate.toml:12", "^"]);
    insta::assert_snapshot!("missing_issuer", issuer.talk);
}

#[test]
fn a_route_that_an_earlier_one_shadows() {
    let routes = |second: &str| {
        and(&format!(
            "\n[[blueprints.routes]]\nname = \"first\"\npath = \"/a/{{x}}\"\n\
             \n[[blueprints.routes]]\nname = \"second\"\n{second}\n"
        ))
    };
    let checked = check(&routes("path = \"/a/{y}\"\nmethods = [\"GET\"]"));
    checked.expect_refused(&["second", "gate.toml:14", "gate.toml:20", "^"]);
    insta::assert_snapshot!(checked.talk);
    check(&routes("path = \"/b/{y}\"")).expect_accepted();
}

#[test]
fn a_route_with_no_word_on_auth() {
    let checked = check(&with("auth = \"public\"\n", ""));
    checked.expect_refused(&["auth", "gate.toml:", "hint", "^"]);
    insta::assert_snapshot!(checked.talk);
}

#[test]
fn a_key_file_that_others_can_read_is_told() {
    use std::os::unix::fs::PermissionsExt;

    let directory = tempfile::tempdir().expect("a temporary directory");
    let leaf = Ca::new(directory.path()).server("app", &["app.example"]);
    let text = with_certificate("app");
    check_in(directory.path(), &text).expect_accepted();
    std::fs::set_permissions(&leaf.key, std::fs::Permissions::from_mode(0o644)).expect("our file");
    let checked = check_in(directory.path(), &text);
    assert!(checked.talk.contains("app.key"), "{}", checked.talk);
    insta::assert_snapshot!(checked.talk);
}

#[test]
fn a_certificate_that_does_not_cover_a_host_is_told() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    Ca::new(directory.path()).server("app", &["other.example"]);
    let checked = check_in(directory.path(), &with_certificate("app"));
    assert!(checked.talk.contains("app.example"), "{}", checked.talk);
    insta::assert_snapshot!(checked.talk);
}

#[test]
fn a_certificate_that_expires_soon_is_told() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let ca = Ca::new(directory.path());
    ca.server_for_days("app", &["app.example"], 20);
    let soon = check_in(directory.path(), &with_certificate("app"));
    assert!(soon.talk.contains("expire"), "{}", soon.talk);
    ca.server_for_days("app", &["app.example"], 40);
    let later = check_in(directory.path(), &with_certificate("app"));
    assert!(!later.talk.contains("expire"), "{}", later.talk);
}

#[test]
fn a_certificate_and_a_key_that_do_not_fit() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let ca = Ca::new(directory.path());
    ca.server("app", &["app.example"]);
    let other = ca.server("other", &["app.example"]);
    std::fs::copy(&other.key, directory.path().join("app.key")).expect("our files");
    check_in(directory.path(), &with_certificate("app"))
        .expect_refused(&["do not fit", "gate.toml:5"]);
    std::fs::remove_file(directory.path().join("app.crt")).expect("our file");
    check_in(directory.path(), &with_certificate("app")).expect_refused(&["app.crt"]);
}

fn with_certificate(name: &str) -> String {
    with(
        "http = [\"127.0.0.1:0\"]\nplaintext = true\n",
        &format!(
            "https = [\"127.0.0.1:0\"]\n\n[[tls.certificates]]\ncert = \"{name}.crt\"\nkey = \"{name}.key\"\n"
        ),
    )
}

#[test]
fn plain_http_to_an_issuer_elsewhere_is_refused() {
    let issuer = |url: &str| {
        and(&format!(
            "\n[issuers.corp]\nissuer = \"https://idp.example\"\naudience = [\"a\"]\njwks_url = \"{url}\"\n\
             algorithms = [\"RS256\"]\n"
        ))
    };
    check(&issuer("http://idp.example/jwks")).expect_refused(&["https", "gate.toml:", "^"]);
    check(&issuer("https://idp.example/jwks")).expect_accepted();
    check(&issuer("http://127.0.0.1:9/jwks")).expect_accepted();
}

#[test]
fn secrets_are_not_written_in_the_file() {
    let checked = check(&and(
        "\n[issuers.corp]\nissuer = \"https://idp.example\"\naudience = [\"a\"]\nalgorithms = [\"HS256\"]\n\
         secret = \"correct horse battery staple\"\n",
    ));
    checked.expect_refused(&["secret", "env", "file"]);
}

#[test]
fn the_admin_listener_is_for_this_machine_unless_it_has_a_token() {
    check(&and("\n[admin]\nlisten = \"0.0.0.0:9900\"\n")).expect_refused(&["admin", "token", "^"]);
    check(&and("\n[admin]\nlisten = \"127.0.0.1:9900\"\n")).expect_accepted();
    check(&and("\n[admin]\nlisten = \"unix:/run/gate.sock\"\n")).expect_accepted();
}

#[test]
fn relaxations_are_listed() {
    let checked = check(&and(
        "\n[defaults.headers]\nmode = \"monitor\"\npreset = \"none\"\n",
    ));
    checked.expect_accepted();
    assert!(checked.talk.contains("weakens"), "{}", checked.talk);
}

#[test]
fn what_is_no_toml_is_shown_where_it_breaks() {
    let checked = check(&with("plaintext = true", "plaintext = = true"));
    checked.expect_refused(&["gate.toml:3", "^"]);
    insta::assert_snapshot!(checked.talk);
}

#[test]
fn a_file_that_is_not_there_is_exit_2() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let output = portcullis()
        .args(["check", "-c", "absent.toml"])
        .current_dir(directory.path())
        .output()
        .expect("the built program starts");
    assert_eq!(output.status.code(), Some(2));
    insta::assert_snapshot!(String::from_utf8_lossy(&output.stderr));
}

#[test]
fn included_files_are_named_in_their_problems() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    std::fs::create_dir(directory.path().join("blueprints")).expect("our directory");
    std::fs::write(
        directory.path().join("blueprints/api.toml"),
        "[[blueprints]]\nname = \"api\"\nprefix = \"/api\"\nupstream = \"legacy\"\nauht = \"public\"\n",
    )
    .expect("our file");
    let text = format!("include = [\"blueprints/*.toml\"]\n{SOUND}");
    let checked = check_in(directory.path(), &text);
    checked.expect_refused(&["api.toml:5", "auht", "auth"]);
}

#[test]
fn run_refuses_a_bad_file_with_all_its_problems() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    write_policy(
        directory.path(),
        &with("plaintext = true", "plaintxt = true\ndrain = \"soon\""),
    );
    let output = portcullis()
        .args(["run", "-c", "gate.toml"])
        .current_dir(directory.path())
        .output()
        .expect("the built program starts");
    assert_eq!(output.status.code(), Some(2));
    let talk = String::from_utf8_lossy(&output.stderr);
    assert!(talk.contains("plaintxt") && talk.contains("soon"), "{talk}");
}

#[test]
fn a_key_can_be_overridden_on_the_command_line() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    write_policy(directory.path(), SOUND);
    let output = portcullis()
        .args(["run", "-c", "gate.toml", "--set", "server.drain=soon"])
        .current_dir(directory.path())
        .output()
        .expect("the built program starts");
    assert_eq!(output.status.code(), Some(2));
    let talk = String::from_utf8_lossy(&output.stderr);
    assert!(talk.contains("soon"), "{talk}");
}

#[test]
fn a_guard_that_would_never_be_asked_is_an_error() {
    let origin = Origin::echo();
    let guard = "auth = { require = [\"bearer\"], issuers = [\"corp\"] }";
    let blueprint = |hosts: &str, auth: &str| {
        format!(
            "[[blueprints]]\nname = \"app\"\nhosts = [{hosts}]\nupstream = \"legacy\"\n{auth}\n"
        )
    };
    let route = |path: &str| {
        blueprint("\"app.example\"", "auth = \"public\"")
            + &format!("[[blueprints.routes]]\npath = \"{path}\"\n{guard}\n")
    };
    let open = blueprint("\"app.example\", \"b.example\"", "auth = \"public\"");
    for (sections, word) in [
        // A copy whose name was not changed, and one that shares a host only.
        (
            open.clone() + &blueprint("\"b.example\"", guard),
            "can never be reached",
        ),
        (
            open + &blueprint("\"b.example\", \"c.example\"", guard),
            "can never be reached on `b.example`",
        ),
        // Requests have these signs in their escaped form alone.
        (route("/items[0]"), "`/items[0]` is no path"),
        (route("/a|b"), "`/a|b` is no path"),
    ] {
        let gate = Gate::before(&origin).issuer_without_keys().with(&sections);
        let file = gate.write();
        let checked = portcullis_verb(&["check", "-c", &file.display().to_string()]);
        let said = String::from_utf8_lossy(&checked.stderr).into_owned()
            + &String::from_utf8_lossy(&checked.stdout);
        assert_eq!(checked.status.code(), Some(2), "{said}");
        assert!(said.contains(word), "{said}");
    }
}

#[test]
fn one_upstream_is_spoken_to_in_one_version_of_http() {
    let servers = "servers = [\"http://127.0.0.1:8000\"]";
    check(&with(servers, "servers = [\"h2c://127.0.0.1:8000\"]")).expect_accepted();
    let https = "servers = [\"https://127.0.0.1:8000\"]\nprotocol = \"http2\"";
    check(&with(servers, https)).expect_accepted();
    for (lines, message) in [
        (
            "servers = [\"http://127.0.0.1:1\", \"h2c://127.0.0.1:2\"]",
            "the servers of one upstream are spoken to in one version of HTTP",
        ),
        (
            "servers = [\"http://127.0.0.1:1\"]\nprotocol = \"http2\"",
            "use `h2c://` for HTTP/2 in clear",
        ),
        (
            "servers = [\"h2c://127.0.0.1:1\"]\nprotocol = \"http1\"",
            "use `http://` for HTTP/1.1 in clear",
        ),
    ] {
        check(&with(servers, lines)).expect_refused(&[message]);
    }
}

#[test]
fn a_blueprint_name_stands_once() {
    let more = SOUND[SOUND.find("[[blueprints]]").expect("a blueprint")..]
        .replace("app.example", "other.example");
    check(&and(&more)).expect_refused(&[
        "two blueprints are named `app`",
        "the first is at gate.toml:8",
    ]);
}

#[test]
fn an_empty_list_of_networks_is_refused() {
    check(&and("[defaults.network]\nallow = []\n")).expect_refused(&[
        "an empty list may mean nobody or everybody",
        "`[\"0.0.0.0/0\", \"::/0\"]` is everybody",
    ]);
    check(&and(
        "[defaults.network]\nallow = [\"0.0.0.0/0\", \"::/0\"]\n",
    ))
    .expect_accepted();
    check(&and("[defaults.network]\ndeny = []\n")).expect_accepted();
}

#[test]
fn what_would_charge_or_hold_in_vain_is_an_error() {
    for (text, message) in [
        (
            "[[defaults.rate_limits]]\nname = \"s\"\nkey = \"subject\"\nquota = 9\nwindow = \"1m\"\ncost = { forged = 5 }\n",
            "never sees who fails to authenticate",
        ),
        (
            "[[defaults.rate_limits]]\nname = \"s\"\nkey = [\"subject\", \"client\"]\nquota = 9\nwindow = \"1m\"\ncost = { status_401 = 5 }\n",
            "never sees who fails to authenticate",
        ),
        (
            "[defaults.body]\nspool_time = \"301s\"\n",
            "held for five minutes at most",
        ),
        (
            "[defaults.body]\nspool_time = \"0s\"\n",
            "no body is whole in no time",
        ),
    ] {
        check(&format!("{SOUND}{text}")).expect_refused(&[message]);
    }
    let sound = "[[defaults.rate_limits]]\nname = \"s\"\nkey = \"subject\"\nquota = 9\nwindow = \"1m\"\ncost = { status_404 = 5 }\n\
                 [defaults.body]\nspool_time = \"300s\"\n";
    check(&format!("{SOUND}{sound}")).expect_accepted();
}
