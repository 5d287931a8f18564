//! Listeners that this process was given: by systemd (socket activation, `sd_listen_fds(3)`), or by the gate whose place
//! it takes ([`super::handover`]).
//!
//! A listener is found by the address it is bound to. What systemd gives and the file does not state is refused: a port
//! would be open that nobody answers on, or a request judged under a listener that was not meant. What a former gate
//! listened on and the new file does not state is closed. Nothing is opened here.

use std::{env, io};

use listenfd::ListenFd;
use socket2::{Domain, Socket, Type};

use super::{
    handover::{self, Predecessor},
    listener::{Listener, Role},
};
use crate::config::ListenAddr;

/// The first descriptor that a starter passes (`SD_LISTEN_FDS_START`).
const FIRST: usize = 3;
/// More listeners than anybody means.
const MOST: usize = 1024;

/// Why the listeners cannot be taken.
#[derive(Debug, thiserror::Error)]
pub enum InheritError {
    /// `LISTEN_FDS` is no number of listeners.
    #[error("LISTEN_FDS is `{0}`, a number up to {MOST} is accepted")]
    Count(String),
    /// A descriptor is something else.
    #[error(
        "descriptor {descriptor} ({name}) is no listening TCP or Unix stream socket; \
         hint: `ListenStream=` and `Accept=no` in the socket unit"
    )]
    NoListener {
        /// Its number.
        descriptor: usize,
        /// Its name in `LISTEN_FDNAMES`.
        name: String,
    },
    /// The file does not state a listener.
    #[error(
        "descriptor {descriptor} ({name}) listens on `{address}`, which the file does not state: it has {stated}; \
         hint: the same addresses in the socket unit and in `server.https`, `server.http`, `admin.listen`"
    )]
    NotStated {
        /// Its number.
        descriptor: usize,
        /// Its name in `LISTEN_FDNAMES`.
        name: String,
        /// Where it listens.
        address: String,
        /// What the file states.
        stated: String,
    },
    /// The former gate did not hand over.
    #[error("the former process does not hand over its listeners: {0}")]
    Handover(io::Error),
}

/// One of them.
#[derive(Debug)]
struct Given {
    listener: Listener,
    /// Where it is bound.
    address: String,
    /// What the former gate's file said; port 0 is found by it.
    stated: Option<String>,
    /// Its place and name, from systemd.
    from_starter: Option<(usize, String)>,
}

/// The listeners that this process was given and has not taken yet.
#[derive(Debug, Default)]
pub struct Inherited(Vec<Given>);

impl Inherited {
    /// Takes what the starter of this process has left for it, and who hands over, if somebody does. To be called once,
    /// before there are other threads: `LISTEN_FDS` is removed.
    ///
    /// # Errors
    /// See [`InheritError`].
    pub fn receive() -> Result<(Self, Option<Predecessor>), InheritError> {
        match handover::receive().map_err(InheritError::Handover)? {
            Some((listeners, predecessor)) => {
                let given = listeners.into_iter().map(|(stated, socket)| {
                    let listener = listener(socket)?;
                    Ok(Given {
                        address: listener.address()?,
                        listener,
                        stated: Some(stated),
                        from_starter: None,
                    })
                });
                let given: io::Result<_> = given.collect();
                let given = given.map_err(InheritError::Handover)?;
                Ok((Self(given), Some(predecessor)))
            }
            None => Ok((Self(from_starter()?), None)),
        }
    }

    /// The sockets of an address of the file; none when it is still to be opened.
    pub fn take(&mut self, role: Role, stated: &ListenAddr) -> Vec<Listener> {
        let place = stated.to_string();
        let meant = format!("{role} {place}");
        let unbound = matches!(stated, ListenAddr::Tcp(address) if address.port() == 0);
        let found = self.0.iter().find(|given| {
            given.address == place || (unbound && given.stated.as_ref() == Some(&meant))
        });
        let Some(address) = found.map(|given| given.address.clone()) else {
            return Vec::new();
        };
        let (taken, left) = std::mem::take(&mut self.0)
            .into_iter()
            .partition(|given| given.address == address);
        self.0 = left;
        taken.into_iter().map(|given| given.listener).collect()
    }

    /// Ends the taking: what a former gate listened on and nobody took is closed.
    ///
    /// # Errors
    /// Something of systemd's was not taken; `stated` is what the file has.
    pub fn close(self, stated: &[String]) -> Result<(), InheritError> {
        for given in self.0 {
            if let Some((descriptor, name)) = given.from_starter {
                return Err(InheritError::NotStated {
                    descriptor,
                    name,
                    address: given.address,
                    stated: stated.join(", "),
                });
            }
            tracing::info!(address = given.address, "no longer stated, closed");
        }
        Ok(())
    }
}

/// What systemd passes to this very process.
fn from_starter() -> Result<Vec<Given>, InheritError> {
    let own = std::process::id().to_string();
    let Some(count) = env::var_os("LISTEN_FDS") else {
        return Ok(Vec::new());
    };
    // For another process of the same environment.
    if env::var("LISTEN_PID").ok() != Some(own) {
        return Ok(Vec::new());
    }
    let count = count.to_string_lossy().into_owned();
    let expected = count.parse().ok().filter(|count| *count <= MOST);
    let Some(expected) = expected else {
        return Err(InheritError::Count(count));
    };
    let names = env::var("LISTEN_FDNAMES").unwrap_or_default();
    let mut names = names.split(':');
    let mut descriptors = ListenFd::from_env();
    let mut given = Vec::new();
    for index in 0..expected {
        let descriptor = FIRST + index;
        let name = names.next().filter(|name| !name.is_empty());
        let name = name.unwrap_or("unknown").to_owned();
        let taken = match descriptors.take_tcp_listener(index) {
            Ok(tcp) => tcp.map(Socket::from),
            Err(_) => descriptors
                .take_unix_listener(index)
                .ok()
                .flatten()
                .map(Socket::from),
        };
        let listening = taken.and_then(|socket| {
            let listener = listener(socket).ok()?;
            Some((listener.address().ok()?, listener))
        });
        let Some((address, listener)) = listening else {
            return Err(InheritError::NoListener { descriptor, name });
        };
        given.push(Given {
            listener,
            address,
            stated: None,
            from_starter: Some((descriptor, name)),
        });
    }
    Ok(given)
}

/// A socket that was given, if it is what workers can accept on.
fn listener(socket: Socket) -> io::Result<Listener> {
    if socket.r#type()? != Type::STREAM || !socket.is_listener()? {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "a socket that does not listen",
        ));
    }
    socket.set_nonblocking(true)?;
    match socket.domain()? {
        Domain::UNIX => Ok(Listener::Unix(socket.into())),
        _ => Ok(Listener::Tcp(socket.into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::listener::open;

    fn loopback(port: u16) -> ListenAddr {
        ListenAddr::Tcp(([127, 0, 0, 1], port).into())
    }

    fn given(stated: Option<&str>) -> Given {
        let listener = open(&loopback(0), 1).expect("a free port").remove(0);
        Given {
            address: listener.address().expect("an address"),
            listener,
            stated: stated.map(str::to_owned),
            from_starter: stated.is_none().then(|| (3, "web".to_owned())),
        }
    }

    fn port(given: &Given) -> u16 {
        let (_, port) = given.address.rsplit_once(':').expect("a port");
        port.parse().expect("a number")
    }

    #[test]
    fn an_address_is_found_where_it_is_bound_whatever_it_was_for() {
        let one = given(Some("http 127.0.0.1:0"));
        let stated = loopback(port(&one));
        let mut inherited = Inherited(vec![one]);
        assert_eq!(inherited.take(Role::Https, &stated).len(), 1);
        assert!(inherited.take(Role::Https, &stated).is_empty());
    }

    #[test]
    fn port_0_is_what_the_same_key_had() {
        let (one, two) = (
            given(Some("http 127.0.0.1:0")),
            given(Some("https 127.0.0.1:0")),
        );
        let expected = two.address.clone();
        let mut inherited = Inherited(vec![one, two]);
        let taken = inherited.take(Role::Https, &loopback(0));
        assert_eq!(taken[0].address().expect("an address"), expected);
        assert!(inherited.take(Role::Admin, &loopback(0)).is_empty());
        inherited.close(&[]).expect("the other is closed");
    }

    #[test]
    fn what_systemd_gives_is_no_port_0_and_must_be_taken() {
        let mut inherited = Inherited(vec![given(None)]);
        assert!(inherited.take(Role::Http, &loopback(0)).is_empty());
        let error = inherited.close(&["http 127.0.0.1:0".to_owned()]);
        let text = error.expect_err("not stated").to_string();
        assert!(text.starts_with("descriptor 3 (web) listens on"), "{text}");
    }
}
