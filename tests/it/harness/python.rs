//! The tests' own Python and Node.js: the legacy app under gunicorn, the HTTP/2 clients, and any program in tests/apps.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;

use super::process::{Process, missing};

/// `tests/apps/NAME`.
pub fn app(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/apps")
        .join(name)
}

/// A program of the tests' virtual environment.
pub fn venv(program: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/.venv/bin")
        .join(program);
    assert!(
        path.exists(),
        "the tests need `{program}` in tests/.venv, which is not there: run ./tests/run, which installs it"
    );
    path
}

/// Node.js: that of the tests' virtual environment, or else the machine's.
pub fn node() -> PathBuf {
    let own = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/.venv/bin/node");
    let parts = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/node_modules");
    assert!(
        parts.exists(),
        "the tests need tests/node_modules, which is not there: run ./tests/run, which installs it"
    );
    if own.exists() { own } else { "node".into() }
}

/// A command that runs `tests/apps/NAME`.
pub fn python(name: &str) -> Command {
    let mut command = Command::new(venv("python"));
    command.arg(app(name)).env("PYTHONUNBUFFERED", "1");
    command
}

/// Runs `tests/apps/h2client.py` with one JSON instruction and gives its JSON account.
pub fn h2(instruction: &Value) -> Value {
    run_json(python("h2client.py").arg(instruction.to_string()))
}

/// Runs a command to its end and gives the JSON it printed.
pub fn run_json(command: &mut Command) -> Value {
    let output = run(command);
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| {
        panic!(
            "not JSON ({error}): {}\n{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        )
    })
}

/// Runs a command to its end.
pub fn run(command: &mut Command) -> Output {
    command
        .stdin(Stdio::null())
        .output()
        .unwrap_or_else(|error| panic!("{}", missing(command, &error)))
}

/// The legacy Flask app under gunicorn.
pub struct Gunicorn {
    pub process: Process,
    address: SocketAddr,
}

impl Gunicorn {
    /// Starts it on a port that the system gives.
    pub fn start() -> Self {
        let mut command = Command::new(venv("gunicorn"));
        command
            .args(["--bind", "127.0.0.1:0", "--workers", "1", "--threads", "8"])
            .args(["--keep-alive", "60", "--graceful-timeout", "1"])
            .args(["--no-control-socket", "legacy:app"])
            .current_dir(app(""))
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .stdin(Stdio::null());
        let mut process = Process::spawn("gunicorn", &mut command);
        let address = process.await_stderr("its address", |line| {
            let (_, rest) = line.split_once("Listening at: http://")?;
            rest.split(' ').next()?.parse().ok()
        });
        Self { process, address }
    }

    /// The address as an upstream URL.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }
}
