//! The scripted HTTP/2 backend of `tests/apps/h2origin.py`, with what it tells.

use std::net::SocketAddr;

use serde_json::Value;

use super::ca::Leaf;
use super::eventually::eventually;
use super::process::Process;
use super::python::python;

/// A running backend.
pub struct H2Origin {
    process: Process,
    address: SocketAddr,
    scheme: &'static str,
}

impl H2Origin {
    /// In clear.
    pub fn clear() -> Self {
        Self::start(&[], "h2c")
    }

    /// In clear, with further arguments.
    pub fn with(arguments: &[&str]) -> Self {
        Self::start(arguments, "h2c")
    }

    /// Within TLS, agreeing to the protocols of `alpn` (none where it is empty).
    pub fn tls(leaf: &Leaf, alpn: &str) -> Self {
        let (cert, key) = (leaf.cert.display(), leaf.key.display());
        let (cert, key) = (format!("--cert={cert}"), format!("--key={key}"));
        Self::start(&[&cert, &key, &format!("--alpn={alpn}")], "https")
    }

    fn start(arguments: &[&str], scheme: &'static str) -> Self {
        let mut command = python("h2origin.py");
        let mut process = Process::spawn("h2origin.py", command.args(arguments));
        let address = process.await_stdout("its address", |line| {
            let said: Value = serde_json::from_str(line).ok()?;
            said["address"].as_str()?.parse().ok()
        });
        Self {
            process,
            address,
            scheme,
        }
    }

    /// The address as an upstream URL.
    pub fn url(&self) -> String {
        let host = match self.scheme {
            "https" => "localhost".to_owned(),
            _ => self.address.ip().to_string(),
        };
        format!("{}://{host}:{}", self.scheme, self.address.port())
    }

    /// All that it told of one kind.
    pub fn events(&self, kind: &str) -> Vec<Value> {
        let lines = self.process.stdout.all();
        let events = lines
            .iter()
            .filter_map(|line| serde_json::from_str(line).ok());
        events
            .filter(|event: &Value| event["event"] == kind)
            .collect()
    }

    /// The requests for a path.
    pub fn requests(&self, path: &str) -> Vec<Value> {
        let mut requests = self.events("request");
        requests.retain(|request| request["path"] == path);
        requests
    }

    /// Waits until so many requests for a path have been told; panics when there are more.
    #[track_caller]
    pub fn await_requests(&self, path: &str, count: usize) -> Vec<Value> {
        let requests = eventually(&format!("{count} requests for {path}"), || {
            let requests = self.requests(path);
            (requests.len() >= count).then_some(requests)
        });
        assert_eq!(requests.len(), count, "requests for {path}: {requests:#?}");
        requests
    }

    /// Waits until it told so many of one kind, and gives them.
    pub fn await_events(&self, kind: &str, count: usize) -> Vec<Value> {
        eventually(&format!("{count} times `{kind}` at the backend"), || {
            let events = self.events(kind);
            (events.len() >= count).then_some(events)
        })
    }

    /// Panics unless it has had so many connections.
    #[track_caller]
    pub fn expect_connections(&self, count: usize) {
        let connections = self.await_events("connection", count);
        assert_eq!(connections.len(), count, "{connections:#?}");
    }
}
