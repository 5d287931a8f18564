//! The built proxy: started on a policy file with ports the system gives, watched, signalled, ended with its guard.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Output};

use serde_json::Value;

use super::client::Client;
use super::eventually::eventually;
use super::message::Response;
use super::process::Process;

/// A running proxy.
pub struct Proxy {
    process: Process,
    listeners: BTreeMap<String, Vec<SocketAddr>>,
}

impl Proxy {
    /// Starts `portcullis run -c FILE` and waits for its ready line.
    pub fn start(file: &Path, environment: &[(String, String)]) -> Self {
        let mut command = portcullis();
        command.arg("run").arg("-c").arg(file);
        Self::spawn(command.envs(environment.iter().cloned()))
    }

    /// Starts the given command line and waits for its ready line.
    pub fn spawn(command: &mut Command) -> Self {
        let mut process = Process::spawn("portcullis", command);
        let listeners = process.await_stderr("the ready line", |line| {
            let (_, rest) = line.split_once("portcullis ready ")?;
            Some(parse_listeners(rest))
        });
        Self { process, listeners }
    }

    /// The first TLS listener.
    pub fn https(&self) -> SocketAddr {
        self.listener("https")
    }

    /// The first plain listener.
    pub fn http(&self) -> SocketAddr {
        self.listener("http")
    }

    /// The admin listener.
    pub fn admin(&self) -> SocketAddr {
        self.listener("admin")
    }

    /// What `GET path` on the admin listener answers.
    pub fn ask_admin(&self, path: &str) -> Response {
        Client::plain(self.admin())
            .send(format!(
                "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
            ))
            .response()
    }

    /// The sum of a metric's samples whose label text holds all of `labels`.
    pub fn metric(&self, name: &str, labels: &[&str]) -> f64 {
        let text = self.ask_admin("/metrics").expect(200).text();
        text.lines()
            .filter(|line| !line.starts_with('#'))
            .filter_map(|line| line.rsplit_once(' '))
            .filter(|(series, _)| {
                let (bare, rest) = series.split_once('{').unwrap_or((series, ""));
                bare == name && labels.iter().all(|label| rest.contains(label))
            })
            .map(|(_, value)| value.parse::<f64>().unwrap_or(0.0))
            .sum()
    }

    /// Waits until a metric has reached `least`.
    pub fn await_metric(&self, name: &str, labels: &[&str], least: f64) -> f64 {
        eventually(&format!("{name} {labels:?} reaches {least}"), || {
            let value = self.metric(name, labels);
            (value >= least).then_some(value)
        })
    }

    /// The access lines so far, parsed; panics on a line that is not JSON.
    pub fn access_lines(&self) -> Vec<Value> {
        self.raw_access_lines()
            .iter()
            .map(|line| {
                serde_json::from_str(line)
                    .unwrap_or_else(|error| panic!("access line is not JSON ({error}): {line}"))
            })
            .collect()
    }

    /// The access lines so far, as printed.
    pub fn raw_access_lines(&self) -> Vec<String> {
        self.process.stdout.all()
    }

    /// Waits for an access line that `wanted` accepts.
    pub fn await_access(&self, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        eventually(&format!("an access line: {what}"), || {
            self.access_lines().into_iter().find(|line| wanted(line))
        })
    }

    /// Waits for the first access line of a path.
    pub fn await_access_of(&self, path: &str) -> Value {
        self.await_access(path, |line| line["url.path"] == path)
    }

    /// What it has said on standard error.
    pub fn talk(&self) -> String {
        self.process.stderr.all().join("\n")
    }

    /// Waits until it has said `text` on standard error.
    pub fn await_talk(&self, text: &str) {
        eventually(&format!("the proxy says `{text}`"), || {
            self.talk().contains(text).then_some(())
        });
    }

    /// Sends a signal by its name.
    pub fn signal(&self, name: &str) {
        self.process.signal(name);
    }

    /// Waits for it to end by itself.
    pub fn await_exit(&mut self) -> ExitStatus {
        self.process.await_exit()
    }

    /// Whether it still runs.
    pub fn is_running(&mut self) -> bool {
        self.process.is_running()
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// Its resident memory in KiB.
    pub fn resident_kib(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.id()))
            .expect("the proxy still runs");
        status
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:"))
            .and_then(|rest| rest.split_whitespace().next()?.parse().ok())
            .expect("Linux tells VmRSS")
    }

    fn listener(&self, kind: &str) -> SocketAddr {
        *self
            .listeners
            .get(kind)
            .and_then(|list| list.first())
            .unwrap_or_else(|| panic!("no {kind} listener in {:?}", self.listeners))
    }
}

/// The built program, deaf to what the caller's environment says about colour and proxies.
pub fn portcullis() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_portcullis"));
    command
        .env("NO_COLOR", "1")
        .env_remove("NOTIFY_SOCKET")
        .env_remove("RUST_LOG")
        .stdin(std::process::Stdio::null());
    command
}

/// Runs a verb to its end.
pub fn portcullis_verb(arguments: &[&str]) -> Output {
    portcullis()
        .args(arguments)
        .output()
        .expect("the built program starts")
}

/// Writes `text` to `directory/gate.toml`.
pub fn write_policy(directory: &Path, text: &str) -> PathBuf {
    let file = directory.join("gate.toml");
    let fresh = directory.join("gate.toml.fresh");
    std::fs::write(&fresh, text).expect("the test's directory takes files");
    std::fs::rename(&fresh, &file).expect("a rename in one directory");
    file
}

fn parse_listeners(rest: &str) -> BTreeMap<String, Vec<SocketAddr>> {
    rest.split_whitespace()
        .filter_map(|word| word.split_once('='))
        .map(|(kind, list)| {
            let addresses = list.split(',').filter_map(|item| item.parse().ok());
            (kind.to_owned(), addresses.collect())
        })
        .collect()
}
