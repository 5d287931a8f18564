//! `portcullis healthcheck`: asks `/livez` of a running gate, for containers that have neither a shell nor curl.

use std::{
    io::{Read, Write},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use clap::Args;

use super::{BAD_FILE, misused, named_file, run::color};
use crate::{
    config::{ListenAddr, Reader, Secret, Severity, load, render},
    snapshot::server::{self, Admin},
};

/// How long each step may take.
const PATIENCE: Duration = Duration::from_secs(2);
/// Where the admin listener stands when nothing says otherwise.
const USUAL: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9900);

/// `healthcheck`
#[derive(Clone, Debug, Args)]
pub struct HealthcheckArgs {
    /// Take the admin listener from this file [default: `$PORTCULLIS_CONFIG`, if set]
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Ask here: `http://127.0.0.1:9900` or `unix:/path` [default: `http://127.0.0.1:9900`]
    #[arg(long, value_name = "URL", conflicts_with = "config")]
    url: Option<String>,
}

/// Asks. 0: it lives; 1: it does not, or not there; 2: bad usage or bad file.
pub fn run(args: &HealthcheckArgs) -> ExitCode {
    let desk = match (&args.url, named_file(args.config.as_deref())) {
        (Some(url), _) => match address_of(url) {
            Some(listen) => Desk {
                listen,
                token: None,
            },
            None => {
                return misused(&format!(
                    "`{url}` is no address of an admin listener\nhint: `http://127.0.0.1:9900` or `unix:/path`"
                ));
            }
        },
        (None, Some(file)) => match of_file(&file) {
            Ok(desk) => desk,
            Err(code) => return code,
        },
        (None, None) => Desk {
            listen: ListenAddr::Tcp(USUAL),
            token: None,
        },
    };
    match ask(&desk) {
        Ok(200) => ExitCode::SUCCESS,
        Ok(status) => {
            eprintln!(
                "error: the admin listener at {} answers {status}",
                desk.listen
            );
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!(
                "error: no answer from the admin listener at {}: {error}",
                desk.listen
            );
            ExitCode::FAILURE
        }
    }
}

/// Where to ask, and what opens the door.
struct Desk {
    listen: ListenAddr,
    token: Option<Secret>,
}

fn address_of(url: &str) -> Option<ListenAddr> {
    if let Some(path) = url.strip_prefix("unix:") {
        return (!path.is_empty()).then(|| ListenAddr::Unix(path.into()));
    }
    let address = url.strip_prefix("http://")?.trim_end_matches('/');
    let address = address.replace("localhost", "127.0.0.1");
    address.parse().ok().map(ListenAddr::Tcp)
}

/// Only `[admin]` is read: a file whose other parts are being edited says nothing against the gate that runs.
fn of_file(file: &Path) -> Result<Desk, ExitCode> {
    let loaded = load(file, &[]);
    let root = Reader::new(&loaded.root, &loaded.problems, &loaded.sources, "");
    if let Some(Admin { listen, token }) = server::compile(&root).admin {
        return Ok(Desk {
            listen: reachable(listen),
            token,
        });
    }
    if loaded.root.get("admin").is_some() || loaded.root.entries.is_empty() {
        let mut errors = loaded.problems.sorted();
        errors.retain(|problem| problem.severity == Severity::Error);
        eprint!("{}", render(&errors, &loaded.sources, color()));
        return Err(ExitCode::from(BAD_FILE));
    }
    Err(misused(&format!(
        "`{}` has no admin listener\nhint: add `[admin]` with `listen = \"127.0.0.1:9900\"`",
        file.display()
    )))
}

/// An address to listen on everywhere is asked on this machine.
fn reachable(listen: ListenAddr) -> ListenAddr {
    match listen {
        ListenAddr::Tcp(mut address) if address.ip().is_unspecified() => {
            address.set_ip(match address.ip() {
                IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
                IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
            });
            ListenAddr::Tcp(address)
        }
        other => other,
    }
}

/// The status of `/livez`.
fn ask(desk: &Desk) -> std::io::Result<u16> {
    match &desk.listen {
        ListenAddr::Tcp(address) => {
            let stream = TcpStream::connect_timeout(address, PATIENCE)?;
            stream.set_read_timeout(Some(PATIENCE))?;
            stream.set_write_timeout(Some(PATIENCE))?;
            talk(stream, desk)
        }
        ListenAddr::Unix(path) => {
            let stream = UnixStream::connect(path)?;
            stream.set_read_timeout(Some(PATIENCE))?;
            stream.set_write_timeout(Some(PATIENCE))?;
            talk(stream, desk)
        }
    }
}

fn talk(mut stream: impl Read + Write, desk: &Desk) -> std::io::Result<u16> {
    let mut request = b"GET /livez HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n".to_vec();
    if let Some(token) = &desk.token {
        request.extend_from_slice(b"Authorization: Bearer ");
        request.extend_from_slice(token.expose());
        request.extend_from_slice(b"\r\n");
    }
    request.extend_from_slice(b"\r\n");
    stream.write_all(&request)?;
    // `HTTP/1.1 200`
    let mut line = [0; 12];
    stream.read_exact(&mut line)?;
    let status = line
        .strip_prefix(b"HTTP/1.1 ")
        .and_then(|digits| std::str::from_utf8(digits).ok());
    status
        .and_then(|digits| digits.parse().ok())
        .ok_or_else(|| {
            std::io::Error::new(
                std::io::ErrorKind::InvalidData,
                "what answers is no admin listener",
            )
        })
}
