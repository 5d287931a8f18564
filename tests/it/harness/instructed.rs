//! A child that does as it is told: JSON instructions on its standard input, an answer to each on its standard output.

use std::io::Write;
use std::process::{ChildStdin, Command, Stdio};
use std::sync::{Mutex, PoisonError};

use serde_json::Value;

use super::eventually::eventually;
use super::process::Process;

/// The running child. Its first line is `{"ready": URL}`.
pub struct Instructed {
    process: Process,
    name: String,
    // One instruction at a time: its answer is the next line.
    stdin: Mutex<(ChildStdin, usize)>,
    pub url: String,
}

impl Instructed {
    /// Starts it and waits until it is ready.
    pub fn start(name: &str, command: &mut Command) -> Self {
        let mut process = Process::spawn(name, command.stdin(Stdio::piped()));
        let stdin = process.stdin();
        let url = process.await_stdout("its address", |line| {
            let ready: Value = serde_json::from_str(line).ok()?;
            Some(ready["ready"].as_str()?.to_owned())
        });
        Self {
            process,
            name: name.to_owned(),
            stdin: Mutex::new((stdin, 1)),
            url,
        }
    }

    /// Gives an instruction and waits for its answer; panics when it cannot be carried out.
    pub fn ask(&self, instruction: &Value) -> Value {
        let mut guard = self.stdin.lock().unwrap_or_else(PoisonError::into_inner);
        let (stdin, answered) = &mut *guard;
        writeln!(stdin, "{instruction}").expect("it listens");
        let answer = eventually(&format!("{} answers", self.name), || {
            self.process.stdout.all().get(*answered).cloned()
        });
        *answered += 1;
        let answer: Value = serde_json::from_str(&answer).expect("it speaks JSON");
        assert!(answer["error"].is_null(), "{}: {answer}", self.name);
        answer
    }
}
