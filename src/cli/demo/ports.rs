//! Ports for the demo, known before the gate opens them: the redirect to https has to name the port of https.
//!
//! A held port is bound and never listened on, so that nobody answers there.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use anyhow::Context;
use socket2::{Domain, Socket, Type};

/// A port that is ours.
pub(super) struct Held {
    /// Where it is.
    pub(super) address: SocketAddr,
    _socket: Socket,
}

impl Held {
    /// What stands in a URL for this machine.
    pub(super) fn host(&self) -> String {
        match self.address.ip() {
            ip if ip.is_loopback() || ip.is_unspecified() => "localhost".to_owned(),
            IpAddr::V4(ip) => ip.to_string(),
            IpAddr::V6(ip) => format!("[{ip}]"),
        }
    }

    /// The port.
    pub(super) fn port(&self) -> u16 {
        self.address.port()
    }
}

/// The address that the user stated, or else the usual port, or else a free one, which is said.
pub(super) fn hold(stated: Option<SocketAddr>, usual: u16) -> anyhow::Result<Held> {
    if let Some(address) = stated {
        return take(address);
    }
    take(local(usual)).or_else(|_| {
        let held = free()?;
        eprintln!("port {usual} is taken, {} is used instead", held.port());
        Ok(held)
    })
}

/// A free port of this machine.
pub(super) fn free() -> anyhow::Result<Held> {
    take(local(0))
}

fn local(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}

fn take(address: SocketAddr) -> anyhow::Result<Held> {
    bind(address).with_context(|| format!("cannot listen on `{address}`"))
}

fn bind(address: SocketAddr) -> std::io::Result<Held> {
    // Listened on for a moment, since only that shows another listener; then bound alone.
    let address = std::net::TcpListener::bind(address)?.local_addr()?;
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    Ok(Held {
        address,
        _socket: socket,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_taken_usual_port_gives_way_to_a_free_one() {
        let other = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let usual = other.local_addr().unwrap().port();
        assert_ne!(hold(None, usual).unwrap().port(), usual);
    }

    #[test]
    fn a_stated_port_that_is_taken_is_an_error_that_names_it() {
        let other = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = other.local_addr().unwrap();
        let error = hold(Some(address), 1).err().unwrap();
        assert!(error.to_string().contains(&address.to_string()), "{error}");
    }

    #[test]
    fn a_held_port_answers_nobody_until_it_is_let_go() {
        let held = free().unwrap();
        let address = held.address;
        assert!(std::net::TcpStream::connect(address).is_err());
        assert_ne!(free().unwrap().address, address);
        drop(held);
        assert!(std::net::TcpListener::bind(address).is_ok());
    }
}
