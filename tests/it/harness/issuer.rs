//! An issuer of tokens that shares no code with the proxy: `tests/apps/jwks.py`, told what to do over its input.

use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Map, Value, json};

use super::ca::Ca;
use super::instructed::Instructed;
use super::python::python;

/// How a token is signed.
#[derive(Clone, Copy, Debug)]
pub enum Alg {
    Rs256,
    Es256,
    EdDsa,
    /// No signature at all.
    None,
    /// An HMAC whose key is the text of the RSA public key.
    Hs256WithRsaPublicKey,
}

/// A token to be made: the usual claims unless told otherwise.
#[derive(Clone)]
pub struct Mint {
    alg: Alg,
    header: Map<String, Value>,
    claims: Map<String, Value>,
    /// The payload's exact text, in place of `claims`.
    payload: Option<String>,
    foreign_key: bool,
}

impl Mint {
    /// A token that every case's policy lets in: subject `alice`, role `reader`, five minutes to live.
    pub fn new() -> Self {
        let now = now();
        let claims = json!({
            "iss": "https://idp.example/realms/main",
            "aud": "portcullis",
            "sub": "alice",
            "iat": now,
            "exp": now + 300,
            "realm_access": {"roles": ["reader"]},
            "scope": "api.read",
        });
        let Value::Object(claims) = claims else {
            unreachable!("written as an object just above")
        };
        Self {
            alg: Alg::Rs256,
            header: Map::new(),
            claims,
            payload: None,
            foreign_key: false,
        }
    }

    /// Signs in another way.
    pub fn alg(mut self, alg: Alg) -> Self {
        self.alg = alg;
        self
    }

    /// Sets a header parameter; `null` leaves it out.
    pub fn header(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.header.insert(name.to_owned(), value.into());
        self
    }

    /// Sets a claim.
    pub fn claim(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.claims.insert(name.to_owned(), value.into());
        self
    }

    /// Leaves a claim out.
    pub fn without(mut self, name: &str) -> Self {
        self.claims.remove(name);
        self
    }

    /// Gives the roles, in the realm's place.
    pub fn roles(self, roles: &[&str]) -> Self {
        self.claim("realm_access", json!({ "roles": roles }))
    }

    /// Rewrites the text of the payload, for what no JSON writer makes.
    pub fn payload(mut self, edit: impl FnOnce(String) -> String) -> Self {
        self.payload = Some(edit(Value::Object(self.claims.clone()).to_string()));
        self
    }

    /// Signs with a key that the issuer never published, under the name of one that it did.
    pub fn with_a_foreign_key(mut self) -> Self {
        self.foreign_key = true;
        self
    }

    fn instruction(&self) -> Value {
        let alg = match self.alg {
            Alg::Rs256 => "RS256",
            Alg::Es256 => "ES256",
            Alg::EdDsa => "EdDSA",
            Alg::None => "none",
            Alg::Hs256WithRsaPublicKey => "HS256-with-RSA-public-key",
        };
        let payload = self
            .payload
            .clone()
            .unwrap_or_else(|| Value::Object(self.claims.clone()).to_string());
        json!({
            "do": "mint",
            "alg": alg,
            "header": self.header,
            "payload": payload,
            "foreign_key": self.foreign_key,
        })
    }
}

/// The running issuer.
pub struct Issuer(Instructed);

impl Issuer {
    /// Serves its key set over plain HTTP on loopback.
    pub fn http() -> Self {
        Self::start(&[])
    }

    /// Serves its key set over HTTPS at `localhost`, with a certificate of `ca`.
    pub fn https(ca: &Ca) -> Self {
        let leaf = ca.server("idp", &["localhost"]);
        let (cert, key) = (
            leaf.cert.display().to_string(),
            leaf.key.display().to_string(),
        );
        Self::start(&["--cert", &cert, "--key", &key])
    }

    /// The URL of the key set.
    pub fn jwks_url(&self) -> String {
        format!("{}/jwks", self.0.url)
    }

    /// The URL of any other path; each fetch of it is counted.
    pub fn url(&self, path: &str) -> String {
        format!("{}{path}", self.0.url)
    }

    /// The `[issuers.corp]` section that trusts this issuer, with the cases' 60 s of leeway.
    pub fn section(&self) -> String {
        self.section_with("")
    }

    /// The same, with further lines.
    pub fn section_with(&self, lines: &str) -> String {
        format!(
            "[issuers.corp]\nissuer = \"https://idp.example/realms/main\"\naudience = [\"portcullis\"]\n\
             jwks_url = \"{}\"\nalgorithms = [\"RS256\", \"ES256\", \"EdDSA\"]\n\
             roles = [\"realm_access.roles\"]\nleeway = \"60s\"\n{lines}\n",
            self.jwks_url()
        )
    }

    /// Makes a token.
    pub fn mint(&self, mint: &Mint) -> String {
        let answer = self.ask(&mint.instruction());
        answer["token"].as_str().expect("a token").to_owned()
    }

    /// A token with these roles, as an `Authorization` value.
    pub fn bearer(&self, roles: &[&str]) -> String {
        self.bearer_of(&Mint::new().roles(roles))
    }

    /// A minted token, as an `Authorization` value.
    pub fn bearer_of(&self, mint: &Mint) -> String {
        format!("Bearer {}", self.mint(mint))
    }

    /// Replaces all keys by new ones with new names.
    pub fn rotate(&self) {
        self.ask(&json!({"do": "rotate"}));
    }

    /// From now on the key set answers 503.
    pub fn go_down(&self) {
        self.ask(&json!({"do": "down"}));
    }

    /// From now on the key set answers again.
    pub fn come_up(&self) {
        self.ask(&json!({"do": "up"}));
    }

    /// The lines of `[issuers.corp.introspection]` that ask this issuer, as client `gate`.
    pub fn introspection(&self) -> String {
        format!(
            "[issuers.corp.introspection]\nurl = \"{}\"\nclient_id = \"gate\"\n\
             client_secret = {{ env = \"GATE_SECRET\" }}\n",
            self.url("/introspect")
        )
    }

    /// What is answered about a token from now on; any other is not active.
    pub fn know(&self, token: &str, members: &Value) {
        self.ask(&json!({"do": "know", "token": token, "members": members}));
    }

    /// Answers questions about tokens that are not known with this status from now on.
    pub fn answer_unknown_with(&self, status: u16) {
        self.ask(&json!({"do": "unknown", "status": status}));
    }

    /// Lets this time pass before each answer from now on.
    pub fn answer_after(&self, milliseconds: u64) {
        self.ask(&json!({"do": "delay", "milliseconds": milliseconds}));
    }

    /// The most questions that were under way at once, and the head and form of the last one.
    pub fn questions(&self) -> Value {
        self.ask(&json!({"do": "questions"}))
    }

    /// How often `path` was fetched.
    pub fn fetches(&self, path: &str) -> u64 {
        let answer = self.ask(&json!({"do": "fetches", "path": path}));
        answer["fetches"].as_u64().expect("a count")
    }

    /// Writes the key set into a file, for `jwks_file`.
    pub fn write_jwks(&self, file: &Path) {
        let answer = self.ask(&json!({"do": "jwks"}));
        std::fs::write(file, answer["jwks"].to_string()).expect("the test's directory takes files");
    }

    fn start(arguments: &[&str]) -> Self {
        let mut command = python("jwks.py");
        Self(Instructed::start("the issuer", command.args(arguments)))
    }

    fn ask(&self, instruction: &Value) -> Value {
        self.0.ask(instruction)
    }
}

/// Seconds since 1970.
pub fn now() -> i64 {
    let elapsed = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .expect("a clock past 1970");
    i64::try_from(elapsed.as_secs()).expect("a clock before the year 292e9")
}
