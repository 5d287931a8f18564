//! curl as a client: a real HTTP/1.1 and HTTP/2 user agent that knows nothing of the harness.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use super::message::Head;
use super::process::missing;

/// What curl printed for one exchange.
#[derive(Debug)]
pub struct Curled {
    pub status: u16,
    /// `1.1` or `2`.
    pub version: String,
    pub head: Head,
    pub body: Vec<u8>,
    pub exit: i32,
}

/// Fetches `https://app.example{path}` from the listener at `https`, trusting `ca`.
pub fn curl(https: SocketAddr, ca: &Path, path: &str, arguments: &[&str]) -> Curled {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let (head, body) = (directory.path().join("head"), directory.path().join("body"));
    let mut command = Command::new("curl");
    command
        .args([
            "--silent",
            "--show-error",
            "--max-time",
            "30",
            "--noproxy",
            "*",
        ])
        .arg("--connect-to")
        .arg(format!("app.example:443:{https}"))
        .arg("--cacert")
        .arg(ca)
        .arg("--dump-header")
        .arg(&head)
        .arg("--output")
        .arg(&body)
        .args(["--write-out", "%{http_code} %{http_version}"])
        .args(arguments)
        .arg(format!("https://app.example{path}"));
    let output = command
        .output()
        .unwrap_or_else(|error| panic!("{}", missing(&command, &error)));
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    let (status, version) = printed.split_once(' ').unwrap_or(("0", ""));
    Curled {
        status: status.parse().unwrap_or(0),
        version: version.to_owned(),
        head: Head::parse(&std::fs::read(head).unwrap_or_default()),
        body: std::fs::read(body).unwrap_or_default(),
        exit: output.status.code().unwrap_or(-1),
    }
}
