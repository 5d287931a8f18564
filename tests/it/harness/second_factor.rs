//! A gate with a second factor of its own, accounts on disk, authenticator apps, and a browser as far as headers go.

use std::path::PathBuf;
use std::process::Output;

use serde_json::{Value, json};
use tempfile::TempDir;

use super::gate::{Gate, Running, request};
use super::issuer::{Issuer, Mint};
use super::message::Response;
use super::origin::Origin;
use super::proxy::portcullis;
use super::python::{python, run, run_json};

/// What a browser says when it opens a page from its address bar.
pub const OPENS: [(&str, &str); 4] = [
    ("Accept", "text/html,application/xhtml+xml,*/*;q=0.8"),
    ("Sec-Fetch-Mode", "navigate"),
    ("Sec-Fetch-Dest", "document"),
    ("Sec-Fetch-Site", "none"),
];

/// What it says when it sends a form of the page that it shows.
pub const SENDS: [(&str, &str); 5] = [
    ("Accept", "text/html,application/xhtml+xml,*/*;q=0.8"),
    ("Sec-Fetch-Mode", "navigate"),
    ("Sec-Fetch-Dest", "document"),
    ("Sec-Fetch-Site", "same-origin"),
    ("Origin", "https://app.example"),
];

pub const KEY: &str = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";
pub const OTHER_KEY: &str = "f0f1f2f3f4f5f6f7f8f9fafbfcfdfeffe0e1e2e3e4e5e6e7e8e9eaebecedeeef";

/// What the tests change of the file.
#[derive(Clone)]
pub struct Words {
    /// `session.keys`, of `KEY` and `OTHER_KEY` in the environment.
    pub keys: &'static str,
    /// Further lines of `[session]`.
    pub session: &'static str,
    /// Further lines of `[mfa]`.
    pub mfa: &'static str,
    /// What `/pay` asks.
    pub demand: &'static str,
}

impl Default for Words {
    fn default() -> Self {
        Self {
            keys: "[{ env = \"KEY\" }]",
            session: "",
            mfa: "",
            demand: "step_up = { acr = [\"mfa\"], max_age = \"5m\" }",
        }
    }
}

/// The parts of a case.
pub struct Scene {
    pub gate: Running,
    pub issuer: Issuer,
    pub origin: Origin,
    pub accounts: TempDir,
}

impl Scene {
    /// A gate whose `/pay` wants a second factor that the gate can ask for.
    pub fn new() -> Self {
        Self::with(&Words::default())
    }

    pub fn with(words: &Words) -> Self {
        let accounts = tempfile::tempdir().expect("a temporary directory");
        Self::in_folder(words, accounts)
    }

    /// The same with accounts that are there already.
    pub fn in_folder(words: &Words, accounts: TempDir) -> Self {
        Self::before(Origin::echo(), words, accounts)
    }

    pub fn before(origin: Origin, words: &Words, accounts: TempDir) -> Self {
        let issuer = Issuer::http();
        let gate = Gate::before(&origin)
            .server("trusted_proxies = [\"127.0.0.0/8\"]")
            .environment("KEY", KEY)
            .environment("OTHER_KEY", OTHER_KEY)
            .with(&sections(words, &issuer, &accounts))
            .start();
        Self {
            gate,
            issuer,
            origin,
            accounts,
        }
    }

    /// Has the gate take up other words.
    pub fn reload(&mut self, words: &Words) {
        let sections = sections(words, &self.issuer, &self.accounts);
        self.gate.reload_with(&sections);
    }

    /// Runs `portcullis enrol` for a subject of the issuer `corp`.
    pub fn try_enrol(&self, arguments: &[&str]) -> Output {
        portcullis()
            .args(["enrol", "-c"])
            .arg(self.gate.directory.path().join("gate.toml"))
            .args(arguments)
            .env("KEY", KEY)
            .env("OTHER_KEY", OTHER_KEY)
            .output()
            .expect("the built program starts")
    }

    /// Gives a subject an authenticator app.
    #[track_caller]
    pub fn enrol(&self, subject: &str) -> App {
        let output = self.try_enrol(&["--issuer", "corp", subject]);
        let talk = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{talk}");
        App::of(&String::from_utf8_lossy(&output.stdout))
    }

    /// A browser of somebody who is known by a token that says nothing of how they signed in.
    pub fn browser(&self, subject: &str) -> Browser {
        let token = self.issuer.bearer_of(&Mint::new().claim("sub", subject));
        Browser {
            token,
            cookie: None,
            address: "192.0.2.1".to_owned(),
        }
    }

    /// A browser that has shown the factor, with the code of this step.
    #[track_caller]
    pub fn proven(&self, subject: &str, (app, steps): (&App, i32)) -> Browser {
        let mut browser = self.browser(subject);
        let code = app.code(steps);
        let page = browser.sent_to_page(&self.gate, "/pay");
        let answer = browser.types(&self.gate, &page, &code);
        answer.expect(303);
        browser
    }

    /// What a person with Chromium sees who opens this, types a wrong code of alice's app and then the right one.
    pub fn walk(&self, target: &str) -> Value {
        let app = self.enrol("alice");
        let port = self.gate.proxy.https().port();
        let given = json!({
            "url": format!("https://app.example:{port}{target}"),
            "token": self.issuer.bearer_of(&Mint::new()),
            "wrong": app.wrong_code(),
            // The next one: the walk may take longer than what is left of this step.
            "right": app.code(1),
        });
        run_json(python("mfa_browser.py").arg(given.to_string()))
    }

    /// The files of all accounts.
    pub fn account_files(&self) -> Vec<PathBuf> {
        let files = std::fs::read_dir(self.accounts.path()).expect("the folder");
        let paths = files.map(|file| file.expect("a file").path());
        paths
            .filter(|path| path.extension().is_some_and(|end| end == "json"))
            .collect()
    }

    /// A metric that counts, of the samples with this label.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a small count"
    )]
    pub fn count(&self, name: &str, label: &str) -> u64 {
        let label = format!("\"{label}\"");
        self.gate.proxy.metric(name, &[&label]).round() as u64
    }

    /// A count of session cookies that were taken for none.
    pub fn refused(&self, why: &str) -> u64 {
        self.count("portcullis_session_cookies_refused_total", why)
    }
}

fn sections(words: &Words, issuer: &Issuer, accounts: &TempDir) -> String {
    let Words {
        keys,
        session,
        mfa,
        demand,
    } = words;
    format!(
        r#"
{}
[session]
keys = {keys}
{session}
[mfa]
accounts = '{}'
{mfa}
[[blueprints]]
name = "bank"
hosts = ["app.example"]
upstream = "legacy"
[blueprints.auth]
require = ["bearer"]
issuers = ["corp"]
[[blueprints.routes]]
name = "pay"
path = "/pay"
auth = {{ {demand} }}
"#,
        issuer.section(),
        accounts.path().display(),
    )
}

/// An authenticator app.
pub struct App {
    /// The secret in base32.
    pub secret: String,
}

impl App {
    /// The app that was told this address.
    #[track_caller]
    pub fn of(address: &str) -> Self {
        let (_, rest) = address.split_once("secret=").expect("a secret");
        let secret = rest.split(['&', '\n']).next().expect("its end");
        Self {
            secret: secret.to_owned(),
        }
    }

    /// The code of so many steps from now.
    pub fn code(&self, steps: i32) -> String {
        let steps = steps.to_string();
        let output = run(python("totp.py").args([&self.secret, &steps]));
        let code = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        assert_eq!(code.len(), 6, "{}", String::from_utf8_lossy(&output.stderr));
        code
    }

    /// A code that is none of those of now.
    pub fn wrong_code(&self) -> String {
        let right: Vec<String> = (-2..=2).map(|steps| self.code(steps)).collect();
        let any = (0..10).map(|digit| digit.to_string().repeat(6));
        let mut wrong = any.filter(|code| !right.contains(code));
        wrong.next().expect("ten codes are not all right")
    }
}

/// A browser that brings a token with all it asks, as behind a proxy that adds it.
#[derive(Clone)]
pub struct Browser {
    pub token: String,
    /// `name=value`.
    pub cookie: Option<String>,
    /// Where it asks from.
    pub address: String,
}

impl Browser {
    /// A request with these fields and what the browser has of its own.
    #[track_caller]
    pub fn asks(
        &mut self,
        gate: &Running,
        (method, path): (&str, &str),
        fields: &[(&str, &str)],
    ) -> Response {
        let mut all = vec![
            ("Authorization", self.token.as_str()),
            ("X-Forwarded-For", self.address.as_str()),
        ];
        all.extend(self.cookie.as_deref().map(|cookie| ("Cookie", cookie)));
        all.extend(fields);
        let text = request(method, path, &all);
        let answer = gate.https().send(text).response_to(method);
        self.keep(&answer);
        answer
    }

    /// Opens a page.
    #[track_caller]
    pub fn opens(&mut self, gate: &Running, path: &str) -> Response {
        self.asks(gate, ("GET", path), &OPENS)
    }

    /// Opens a page that wants a second factor: where it is sent.
    #[track_caller]
    pub fn sent_to_page(&mut self, gate: &Running, path: &str) -> String {
        let answer = self.opens(gate, path);
        answer.expect(302);
        let location = answer.header("location").expect("a place");
        assert!(location.starts_with("/.portcullis/mfa?rt="), "{location}");
        location.to_owned()
    }

    /// Sends the form of the page with a code.
    #[track_caller]
    pub fn types(&mut self, gate: &Running, page: &str, code: &str) -> Response {
        self.sends(gate, (page, &format!("code={code}")), &SENDS)
    }

    /// Sends a form.
    #[track_caller]
    pub fn sends(
        &mut self,
        gate: &Running,
        (page, form): (&str, &str),
        fields: &[(&str, &str)],
    ) -> Response {
        let length = form.len().to_string();
        let mut all = vec![
            ("X-Forwarded-For", self.address.as_str()),
            ("Content-Length", length.as_str()),
        ];
        if !fields.iter().any(|(name, _)| *name == "Content-Type") {
            all.push(("Content-Type", "application/x-www-form-urlencoded"));
        }
        all.extend(self.cookie.as_deref().map(|cookie| ("Cookie", cookie)));
        all.extend(fields);
        let text = request("POST", page, &all) + form;
        let answer = gate.https().send(text).response_to("POST");
        self.keep(&answer);
        answer
    }

    /// Keeps the cookie of an answer, as browsers do.
    fn keep(&mut self, answer: &Response) {
        for field in answer.headers("set-cookie") {
            if field.starts_with("__Host-portcullis=") {
                let pair = field.split(';').next().unwrap_or_default();
                let cleared = field.contains("Max-Age=0");
                self.cookie = (!cleared).then(|| pair.to_owned());
            }
        }
    }
}
