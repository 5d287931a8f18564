//! Opening listeners. Each worker has its own on the shared port (`SO_REUSEPORT`), so that the kernel spreads
//! connections; a Unix socket is one listener, shared by all.

use std::{io, net::SocketAddr, os::unix::fs::FileTypeExt, path::Path};

use socket2::{Domain, Protocol, Socket, Type};

use crate::config::ListenAddr;

const BACKLOG: i32 = 4096;

/// What a listener speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Door {
    /// TLS.
    Tls,
    /// HTTP in clear.
    Clear,
}

/// An open listener.
#[derive(Debug)]
pub enum Listener {
    /// TCP.
    Tcp(std::net::TcpListener),
    /// A Unix socket.
    Unix(std::os::unix::net::UnixListener),
}

/// One address, open for every worker.
#[derive(Debug)]
pub struct Opened {
    /// What it speaks.
    pub door: Door,
    /// Where it is, with the port that the system chose for port 0.
    pub address: String,
    /// One listener a worker.
    pub listeners: Vec<Listener>,
}

/// Opens an address for a number of workers.
///
/// # Errors
/// The address is in use or not permitted.
pub fn open(address: &ListenAddr, door: Door, workers: usize) -> io::Result<Opened> {
    match address {
        ListenAddr::Tcp(address) => {
            let first = tcp(*address)?;
            let bound = first.local_addr()?;
            let mut listeners = vec![Listener::Tcp(first)];
            for _ in 1..workers {
                listeners.push(Listener::Tcp(tcp(bound)?));
            }
            Ok(Opened {
                door,
                address: bound.to_string(),
                listeners,
            })
        }
        ListenAddr::Unix(path) => {
            let first = unix(path)?;
            let mut listeners = Vec::new();
            for _ in 1..workers {
                listeners.push(Listener::Unix(first.try_clone()?));
            }
            listeners.push(Listener::Unix(first));
            Ok(Opened {
                door,
                address: format!("unix:{}", path.display()),
                listeners,
            })
        }
    }
}

/// Holds that no other program listens at an address. Workers share a port, so without this look a gate that was
/// forgotten would go on serving a part of the requests under its old policy, and nobody would be told.
///
/// # Errors
/// The address is in use or not permitted.
pub fn expect_free(address: &ListenAddr) -> io::Result<()> {
    match address {
        ListenAddr::Tcp(address) => std::net::TcpListener::bind(address).map(drop),
        // A socket file is never shared.
        ListenAddr::Unix(_) => Ok(()),
    }
}

fn tcp(address: SocketAddr) -> io::Result<std::net::TcpListener> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    socket.set_nonblocking(true)?;
    // `[::]` means every address of this machine, IPv4 included.
    if address.is_ipv6() && address.ip().is_unspecified() {
        socket.set_only_v6(false)?;
    }
    socket.set_tcp_nodelay(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// A socket file that nobody listens on any more is removed; one that is in use, or another file, is left alone.
fn unix(path: &Path) -> io::Result<std::os::unix::net::UnixListener> {
    let stale = std::fs::symlink_metadata(path).is_ok_and(|meta| meta.file_type().is_socket())
        && std::os::unix::net::UnixStream::connect(path).is_err();
    if stale {
        std::fs::remove_file(path)?;
    }
    let listener = std::os::unix::net::UnixListener::bind(path)?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}
