//! A client that proves possession of its keys and shares no code with the proxy: `tests/apps/dpop.py`.

use std::io::Write;
use std::process::{ChildStdin, Stdio};
use std::sync::{Mutex, PoisonError};

use serde_json::{Map, Value, json};

use super::eventually::eventually;
use super::process::Process;
use super::python::python;

/// A proof to be made: a sound one unless told otherwise.
#[derive(Clone)]
pub struct Proof {
    method: String,
    url: String,
    token: String,
    key: String,
    signer: String,
    alg: String,
    header: Map<String, Value>,
    claims: Map<String, Value>,
    private: bool,
}

impl Proof {
    /// For this request, with this token, by the key `mine`.
    pub fn new(method: &str, url: &str, token: &str) -> Self {
        Self {
            method: method.to_owned(),
            url: url.to_owned(),
            token: token.to_owned(),
            key: "mine".to_owned(),
            signer: "mine".to_owned(),
            alg: "ES256".to_owned(),
            header: Map::new(),
            claims: Map::new(),
            private: false,
        }
    }

    /// Sets a header parameter; `null` leaves it out.
    pub fn header(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.header.insert(name.to_owned(), value.into());
        self
    }

    /// Sets a claim; `null` leaves it out.
    pub fn claim(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.claims.insert(name.to_owned(), value.into());
        self
    }

    /// Of another kind of key.
    pub fn alg(mut self, alg: &str) -> Self {
        alg.clone_into(&mut self.alg);
        self
    }

    /// By another key.
    pub fn by(mut self, key: &str) -> Self {
        key.clone_into(&mut self.key);
        self.signed_by(key)
    }

    /// Signs with another key than the one that the header shows.
    pub fn signed_by(mut self, key: &str) -> Self {
        key.clone_into(&mut self.signer);
        self
    }

    /// Tells the private key in the header.
    pub fn with_the_private_key(mut self) -> Self {
        self.private = true;
        self
    }
}

/// The running client.
pub struct Prover {
    process: Process,
    // One instruction at a time: its answer is the next line.
    stdin: Mutex<(ChildStdin, usize)>,
}

impl Prover {
    /// One that has no keys yet; each is made when it is first named.
    pub fn start() -> Self {
        let mut command = python("dpop.py");
        command.stdin(Stdio::piped());
        let mut process = Process::spawn("the prover", &mut command);
        let stdin = process.stdin();
        process.await_stdout("its word", |line| {
            line.contains("ready").then(|| line.to_owned())
        });
        Self {
            process,
            stdin: Mutex::new((stdin, 1)),
        }
    }

    /// The thumbprint of a key, for the claim `cnf.jkt`.
    pub fn thumbprint(&self, key: &str, alg: &str) -> String {
        let answer = self.ask(&json!({"do": "thumbprint", "name": key, "alg": alg}));
        let found = answer["thumbprint"].as_str();
        found.expect("a thumbprint").to_owned()
    }

    /// Makes a proof.
    pub fn prove(&self, proof: &Proof) -> String {
        let answer = self.ask(&json!({
            "do": "prove",
            "name": proof.key,
            "signer": proof.signer,
            "alg": proof.alg,
            "method": proof.method,
            "url": proof.url,
            "token": proof.token,
            "header": proof.header,
            "claims": proof.claims,
            "private": proof.private,
        }));
        answer["proof"].as_str().expect("a proof").to_owned()
    }

    fn ask(&self, instruction: &Value) -> Value {
        let mut guard = self.stdin.lock().unwrap_or_else(PoisonError::into_inner);
        let (stdin, answered) = &mut *guard;
        writeln!(stdin, "{instruction}").expect("the prover listens");
        let answer = eventually("the prover answers", || {
            self.process.stdout.all().get(*answered).cloned()
        });
        *answered += 1;
        let answer: Value = serde_json::from_str(&answer).expect("the prover speaks JSON");
        assert!(answer["error"].is_null(), "the prover: {answer}");
        answer
    }
}
