//! Opening listeners. Each worker has its own on the shared port (`SO_REUSEPORT`), so that the kernel spreads
//! connections; a Unix socket, and a socket that this process was given, is one listener, shared by all.

use std::{fmt, io, net::SocketAddr, os::unix::fs::FileTypeExt, path::Path};

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

/// The key of the file that states a listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// `server.https`
    Https,
    /// `server.http`
    Http,
    /// `admin.listen`
    Admin,
}

impl Role {
    /// What is spoken there.
    pub const fn door(self) -> Door {
        match self {
            Self::Https => Door::Tls,
            Self::Http | Self::Admin => Door::Clear,
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Https => "https",
            Self::Http => "http",
            Self::Admin => "admin",
        })
    }
}

/// An open listener.
#[derive(Debug)]
pub enum Listener {
    /// TCP.
    Tcp(std::net::TcpListener),
    /// A Unix socket.
    Unix(std::os::unix::net::UnixListener),
}

impl Listener {
    /// Where it is, in the spelling of the file, with the port that the system chose for port 0.
    ///
    /// # Errors
    /// The socket has no address that the file could state.
    pub fn address(&self) -> io::Result<String> {
        match self {
            Self::Tcp(listener) => listener.local_addr().map(|address| address.to_string()),
            Self::Unix(listener) => {
                let address = listener.local_addr()?;
                let path = address.as_pathname().ok_or_else(|| {
                    io::Error::new(io::ErrorKind::InvalidInput, "a socket without a path")
                })?;
                Ok(format!("unix:{}", path.display()))
            }
        }
    }

    fn try_clone(&self) -> io::Result<Self> {
        match self {
            Self::Tcp(listener) => listener.try_clone().map(Self::Tcp),
            Self::Unix(listener) => listener.try_clone().map(Self::Unix),
        }
    }
}

/// One address, open. What stands here holds the address until it is dropped; workers accept on shares of it.
#[derive(Debug)]
pub struct Opened {
    /// The key that states it.
    pub role: Role,
    /// The address as stated.
    pub stated: String,
    /// Where it is, with the port that the system chose for port 0.
    pub address: String,
    /// Its sockets, each with a queue of its own.
    pub sockets: Vec<Listener>,
}

impl Opened {
    /// An address with its open sockets.
    ///
    /// # Errors
    /// There is no socket, or it has no address.
    pub fn new(role: Role, stated: &ListenAddr, sockets: Vec<Listener>) -> io::Result<Self> {
        let first = sockets.first().ok_or(io::ErrorKind::NotConnected)?;
        Ok(Self {
            role,
            stated: stated.to_string(),
            address: first.address()?,
            sockets,
        })
    }

    /// What each worker is to accept on. No queue is without a worker, and no worker without a queue: with fewer sockets
    /// than workers some share one, with more some have several.
    ///
    /// # Errors
    /// The system gives no further descriptor.
    pub fn shares(&self, workers: usize) -> io::Result<Vec<Vec<Listener>>> {
        let mut shares: Vec<Vec<Listener>> = (0..workers).map(|_| Vec::new()).collect();
        let turns = self.sockets.len().max(workers);
        for (turn, socket) in self.sockets.iter().cycle().take(turns).enumerate() {
            if let Some(share) = shares.get_mut(turn % workers.max(1)) {
                share.push(socket.try_clone()?);
            }
        }
        Ok(shares)
    }
}

/// Opens an address: for each worker a socket on the port, or the one of a path.
///
/// # Errors
/// The address is in use or not permitted.
pub fn open(address: &ListenAddr, workers: usize) -> io::Result<Vec<Listener>> {
    match address {
        ListenAddr::Tcp(address) => {
            let first = tcp(*address)?;
            let bound = first.local_addr()?;
            let mut listeners = vec![Listener::Tcp(first)];
            for _ in 1..workers {
                listeners.push(Listener::Tcp(tcp(bound)?));
            }
            Ok(listeners)
        }
        ListenAddr::Unix(path) => unix(path).map(|listener| vec![Listener::Unix(listener)]),
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

#[cfg(test)]
mod tests {
    use super::*;

    fn opened(sockets: usize) -> Opened {
        let stated = ListenAddr::Tcp(SocketAddr::from(([127, 0, 0, 1], 0)));
        let sockets = open(&stated, sockets).expect("a free port");
        Opened::new(Role::Http, &stated, sockets).expect("an address")
    }

    #[test]
    fn every_worker_has_a_queue_and_every_queue_a_worker() {
        for (sockets, workers) in [(1, 1), (1, 4), (4, 1), (2, 3), (3, 2), (8, 3)] {
            let opened = opened(sockets);
            let shares = opened.shares(workers).expect("descriptors");
            assert_eq!(shares.len(), workers);
            assert!(shares.iter().all(|share| !share.is_empty()));
            let handed_out: usize = shares.iter().map(Vec::len).sum();
            assert_eq!(handed_out, sockets.max(workers));
        }
    }
}
