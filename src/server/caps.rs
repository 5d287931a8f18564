//! How many connections there may be: in all, and of one client (IPv6 by /64).
//!
//! The map holds an entry only for clients that have a connection open, so the cap on all connections bounds it.

use std::{
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use dashmap::{DashMap, mapref::entry::Entry};
use tokio::sync::Notify;

use crate::state::limiter::client_key;

/// The counts, shared by all workers.
#[derive(Debug)]
pub struct Caps {
    /// Beyond this the system would refuse, whatever the file says.
    of_system: usize,
    all: AtomicUsize,
    clients: DashMap<IpAddr, usize>,
    emptied: Notify,
}

/// Which cap a connection ran into.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Full {
    /// The cap on all connections.
    All,
    /// The cap on connections of one client.
    Client,
}

/// A counted connection, until dropped.
#[derive(Debug)]
pub struct Counted {
    caps: Arc<Caps>,
    client: IpAddr,
}

/// What lets a connection take further places for its client: a tunnel on a stream counts as a connection.
#[derive(Clone, Debug)]
pub struct Ticket {
    caps: Arc<Caps>,
    client: IpAddr,
}

impl Ticket {
    /// Takes one more place.
    ///
    /// # Errors
    /// The cap that it would break.
    pub fn enter(&self, most: usize, most_of_client: usize) -> Result<Counted, Full> {
        self.caps.enter(self.client, most, most_of_client)
    }
}

impl Caps {
    /// No connections yet, on a system that has room for this many.
    pub fn new(of_system: usize) -> Self {
        Self {
            of_system,
            all: AtomicUsize::new(0),
            clients: DashMap::new(),
            emptied: Notify::new(),
        }
    }

    /// Counts a connection.
    ///
    /// # Errors
    /// The cap that it would break; it is not counted then.
    pub fn enter(
        self: &Arc<Self>,
        client: IpAddr,
        most: usize,
        most_of_client: usize,
    ) -> Result<Counted, Full> {
        if self.all.fetch_add(1, Ordering::AcqRel) >= most.min(self.of_system) {
            self.leave();
            return Err(Full::All);
        }
        self.counted_for(client, most_of_client)
    }

    /// Counts a connection that is in the count of all on its client as well.
    fn counted_for(
        self: &Arc<Self>,
        client: IpAddr,
        most_of_client: usize,
    ) -> Result<Counted, Full> {
        let client = client_key(client);
        let mut held = self.clients.entry(client).or_insert(0);
        if *held >= most_of_client {
            drop(held);
            self.leave();
            return Err(Full::Client);
        }
        *held += 1;
        drop(held);
        Ok(Counted {
            caps: Arc::clone(self),
            client,
        })
    }

    /// Open connections.
    pub fn open(&self) -> usize {
        self.all.load(Ordering::Acquire)
    }

    /// Resolves once no connection is open, tunnels included.
    pub async fn emptied(&self) {
        loop {
            // Before the look: who leaves behind it is heard.
            let emptied = self.emptied.notified();
            if self.open() == 0 {
                return;
            }
            emptied.await;
        }
    }

    fn leave(&self) {
        if self.all.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.emptied.notify_waiters();
        }
    }
}

impl Counted {
    /// What takes further places for the same client.
    pub fn ticket(&self) -> Ticket {
        Ticket {
            caps: Arc::clone(&self.caps),
            client: self.client,
        }
    }

    /// Counts the connection on another client, once it is known who that is.
    ///
    /// # Errors
    /// The cap that it would break.
    pub fn hand_to(self, client: IpAddr, most_of_client: usize) -> Result<Self, Full> {
        // It leaves its first place behind this one, so for a moment it is counted twice.
        self.caps.all.fetch_add(1, Ordering::AcqRel);
        self.caps.counted_for(client, most_of_client)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        if let Entry::Occupied(mut held) = self.caps.clients.entry(self.client) {
            *held.get_mut() = held.get().saturating_sub(1);
            if *held.get() == 0 {
                held.remove();
            }
        }
        self.caps.leave();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holds_both_caps_and_forgets_clients_that_left() {
        let caps = Arc::new(Caps::new(usize::MAX));
        let one: IpAddr = "192.0.2.1".parse().expect("an address");
        let two: IpAddr = "192.0.2.2".parse().expect("an address");
        let first = caps.enter(one, 2, 1).expect("room");
        assert_eq!(caps.enter(one, 2, 1).err(), Some(Full::Client));
        let second = caps.enter(two, 2, 1).expect("room");
        assert_eq!(
            caps.enter("192.0.2.3".parse().expect("an address"), 2, 1)
                .err(),
            Some(Full::All)
        );
        drop((first, second));
        assert_eq!(caps.open(), 0);
        assert!(caps.clients.is_empty());
    }

    #[tokio::test]
    async fn says_when_the_last_has_left() {
        let caps = Arc::new(Caps::new(usize::MAX));
        caps.emptied().await;
        let client: IpAddr = "192.0.2.1".parse().expect("an address");
        let (one, two) = (caps.enter(client, 9, 9), caps.enter(client, 9, 9));
        let waiting = Arc::clone(&caps);
        let mut emptied = tokio::spawn(async move { waiting.emptied().await });
        drop(one);
        let early = tokio::time::timeout(std::time::Duration::from_millis(20), &mut emptied);
        assert!(early.await.is_err(), "one is still there");
        drop(two);
        emptied.await.expect("it ends");
    }

    #[test]
    fn the_system_may_have_less_room_than_the_file_says() {
        let caps = Arc::new(Caps::new(1));
        let one: IpAddr = "192.0.2.1".parse().expect("an address");
        let held = caps.enter(one, 20_000, 512).expect("room");
        assert_eq!(caps.enter(one, 20_000, 512).err(), Some(Full::All));
        // Behind a load balancer the place of the one that came changes hands; that needs no further room.
        let held = held.hand_to("192.0.2.2".parse().expect("an address"), 512);
        assert!(held.is_ok());
    }

    #[test]
    fn addresses_of_one_v6_subscriber_are_one_client() {
        let caps = Arc::new(Caps::new(usize::MAX));
        let _held = caps
            .enter("2001:db8::1".parse().expect("an address"), 9, 1)
            .expect("room");
        assert_eq!(
            caps.enter("2001:db8::2".parse().expect("an address"), 9, 1)
                .err(),
            Some(Full::Client)
        );
    }
}
