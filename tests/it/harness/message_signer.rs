//! A client that signs messages and webhooks, in Python: it shares no code with the proxy.

use std::io::Write;
use std::path::Path;
use std::process::{ChildStdin, Stdio};
use std::sync::{Mutex, PoisonError};

use serde_json::{Value, json};

use super::eventually::eventually;
use super::issuer::now;
use super::process::Process;
use super::python::python;

/// Fields of a request.
pub type Fields = Vec<(String, String)>;

/// The running signer.
pub struct MessageSigner {
    process: Process,
    // One instruction at a time: its answer is the next line.
    stdin: Mutex<(ChildStdin, usize)>,
}

/// A message to be signed: `POST https://app.example/pay` with a body, unless something else is said.
pub struct Signing(Value);

impl Signing {
    /// Signed by the key of this algorithm, whose id is the algorithm's name: method, target and digest.
    pub fn with(algorithm: &str) -> Self {
        Self(json!({
            "do": "sign",
            "algorithm": algorithm,
            "method": "POST",
            "url": "https://app.example/pay?n=1",
            "headers": {"Content-Type": "application/json"},
            "body": BODY,
            "digest": "sha-256",
            "created": now(),
            "components": ["@method", "@target-uri", "content-digest"],
        }))
    }

    /// The same for `GET` of a path, without a body.
    pub fn get(algorithm: &str, path: &str) -> Self {
        Self::with(algorithm)
            .set("method", "GET")
            .set("url", format!("https://app.example{path}"))
            .set("components", json!(["@method", "@target-uri"]))
            .without("digest")
            .without("headers")
            .without("body")
    }

    /// Says something else.
    pub fn set(mut self, key: &str, value: impl Into<Value>) -> Self {
        self.0[key] = value.into();
        self
    }

    /// Leaves something out.
    pub fn without(mut self, key: &str) -> Self {
        let members = self.0.as_object_mut().expect("an instruction is an object");
        members.remove(key);
        self
    }
}

/// The body that is signed.
pub const BODY: &str = "{\"amount\": 10}";

impl MessageSigner {
    /// Makes keys and starts. The public keys, and the secret, are files of the directory: `ALGORITHM.pem` and
    /// `hmac-sha256.secret`.
    pub fn start(directory: &Path) -> Self {
        let mut command = python("message_signer.py");
        command.arg(directory).stdin(Stdio::piped());
        let mut process = Process::spawn("the message signer", &mut command);
        let stdin = process.stdin();
        process.await_stdout("its keys", |line| line.contains("ready").then_some(()));
        Self {
            process,
            stdin: Mutex::new((stdin, 1)),
        }
    }

    /// All fields of the signed message.
    pub fn sign(&self, signing: &Signing) -> Fields {
        let answer = self.ask(&signing.0);
        let fields = answer["headers"].as_object().expect("fields");
        let text = |value: &Value| value.as_str().expect("a text").to_owned();
        fields
            .iter()
            .map(|(name, value)| (name.clone(), text(value)))
            .collect()
    }

    /// An HMAC-SHA-256 in hexadecimal.
    pub fn code(&self, secret: &str, text: &str) -> String {
        let answer = self.ask(&json!({"do": "code", "secret": secret, "text": text}));
        answer["hex"].as_str().expect("a code").to_owned()
    }

    /// An HMAC-SHA-256 in base64.
    pub fn code_in_base64(&self, secret: &str, text: &str) -> String {
        let answer = self.ask(&json!({"do": "code", "secret": secret, "text": text}));
        answer["base64"].as_str().expect("a code").to_owned()
    }

    fn ask(&self, instruction: &Value) -> Value {
        let mut guard = self.stdin.lock().unwrap_or_else(PoisonError::into_inner);
        let (stdin, answered) = &mut *guard;
        writeln!(stdin, "{instruction}").expect("the signer listens");
        let answer = eventually("the signer answers", || {
            self.process.stdout.all().get(*answered).cloned()
        });
        *answered += 1;
        serde_json::from_str(&answer).expect("the signer speaks JSON")
    }
}
