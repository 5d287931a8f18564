//! The addresses behind the name of a server: looked up anew now and then, all of them used, a bad one passed over.
//!
//! The system's resolver says nothing of how long an answer holds, so the time is one of the file's. Requests never
//! wait for a lookup but the first one: a task of the upstream repeats it. While lookups fail, the last addresses that
//! were found stay in use. It does not resolve SRV records.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    sync::{
        Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicU32, AtomicUsize, Ordering},
    },
    time::Duration,
};

use super::cluster::Cluster;
use crate::state::clock;

/// Addresses kept of one name.
const ADDRESSES: usize = 16;
/// Bound on one lookup.
const LOOKUP_TIME: Duration = Duration::from_secs(5);
/// A lookup that failed is not repeated sooner by requests that wait for one.
const FAILED_REST_MS: u64 = 1_000;
/// How long an address that failed is tried after the others.
const ADDRESS_REST_MS: u64 = 10_000;

/// The name of one server and what it stands for.
#[derive(Debug)]
pub struct Names {
    host: Box<str>,
    port: u16,
    is_literal: bool,
    known: Mutex<Known>,
    /// Held by the one that looks up while there is no address.
    looking: tokio::sync::Mutex<()>,
    /// Counts the times that an address went away.
    generation: AtomicU32,
    /// Which address comes first the next time.
    turn: AtomicUsize,
}

#[derive(Debug, Default)]
struct Known {
    addresses: Vec<(SocketAddr, u64)>,
    /// When a lookup last failed, where none has succeeded since; 0 = it did not.
    failed_ms: u64,
}

impl Names {
    /// A host name, or an address, which stands for itself.
    pub fn new(host: &str, port: u16) -> Self {
        let literal = host.parse::<IpAddr>().ok();
        Self {
            host: host.into(),
            port,
            is_literal: literal.is_some(),
            known: Mutex::new(Known {
                addresses: literal
                    .map(|ip| (SocketAddr::new(ip, port), 0))
                    .into_iter()
                    .collect(),
                failed_ms: 0,
            }),
            looking: tokio::sync::Mutex::new(()),
            generation: AtomicU32::new(0),
            turn: AtomicUsize::new(0),
        }
    }

    /// The addresses in the order to try them: each one is first in its turn, those that failed lately are last.
    ///
    /// # Errors
    /// The name was never resolved, and is not now.
    pub async fn addresses(&self) -> io::Result<Vec<SocketAddr>> {
        let known = self.in_turn(clock::now_ms());
        if !known.is_empty() {
            return Ok(known);
        }
        let _single = self.looking.lock().await;
        let known = self.in_turn(clock::now_ms());
        if !known.is_empty() {
            return Ok(known);
        }
        let failed = self.known().failed_ms;
        if failed != 0 && clock::now_ms().saturating_sub(failed) < FAILED_REST_MS {
            return Err(io::Error::new(io::ErrorKind::NotFound, "name not resolved"));
        }
        self.refresh().await?;
        Ok(self.in_turn(clock::now_ms()))
    }

    /// Notes that an address could not be connected to.
    pub fn failed(&self, address: SocketAddr, now_ms: u64) {
        if let Some(entry) = self.known().addresses.iter_mut().find(|a| a.0 == address) {
            entry.1 = now_ms;
        }
    }

    /// Changes whenever connections that are kept may lead to an address that is no longer the name's.
    pub fn generation(&self) -> u32 {
        self.generation.load(Ordering::Acquire)
    }

    /// Whether the name still stands for this address.
    pub fn holds(&self, address: SocketAddr) -> bool {
        self.known().addresses.iter().any(|a| a.0 == address)
    }

    async fn refresh(&self) -> io::Result<()> {
        let lookup = tokio::net::lookup_host((&*self.host, self.port));
        let found = match tokio::time::timeout(LOOKUP_TIME, lookup).await {
            Ok(found) => found.map(Iterator::collect),
            Err(_) => Err(io::ErrorKind::TimedOut.into()),
        };
        self.take_over(found, clock::now_ms())
    }

    /// Takes over what a lookup found; nothing found changes nothing.
    fn take_over(&self, found: io::Result<Vec<SocketAddr>>, now_ms: u64) -> io::Result<()> {
        let host = &*self.host;
        let mut known = self.known();
        let mut found = match found {
            Ok(found) if !found.is_empty() => found,
            other => {
                let error = match other {
                    Err(error) => error,
                    Ok(_) => io::Error::new(io::ErrorKind::NotFound, "name without addresses"),
                };
                if known.failed_ms == 0 {
                    let kept = known.addresses.len();
                    tracing::warn!(host, kept, %error, "name is not resolved");
                }
                known.failed_ms = now_ms.max(1);
                return Err(error);
            }
        };
        found.sort_unstable();
        found.dedup();
        found.truncate(ADDRESSES);
        let gone = known
            .addresses
            .iter()
            .any(|(address, _)| !found.contains(address));
        if gone || found.len() != known.addresses.len() {
            tracing::info!(host, addresses = ?found, "name is resolved");
        }
        let rest = |address: &SocketAddr| {
            let same = known.addresses.iter().find(|a| a.0 == *address);
            (*address, same.map_or(0, |a| a.1))
        };
        *known = Known {
            addresses: found.iter().map(rest).collect(),
            failed_ms: 0,
        };
        if gone {
            self.generation.fetch_add(1, Ordering::AcqRel);
        }
        Ok(())
    }

    fn in_turn(&self, now_ms: u64) -> Vec<SocketAddr> {
        let known = self.known();
        let mut order = known.addresses.clone();
        if order.len() > 1 {
            let turn = self.turn.fetch_add(1, Ordering::Relaxed);
            let first = turn % order.len();
            order.rotate_left(first);
            order.sort_by_key(|(_, failed)| {
                *failed != 0 && now_ms.saturating_sub(*failed) < ADDRESS_REST_MS
            });
        }
        order.into_iter().map(|(address, _)| address).collect()
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Looks the names of a cluster up again for as long as it is in use.
pub async fn watch(cluster: Weak<Cluster>) {
    let mut pause = Duration::ZERO;
    loop {
        tokio::time::sleep(pause).await;
        let Some(held) = Cluster::in_use(&cluster) else {
            return;
        };
        pause = held.dns_refresh;
        let mut named = false;
        for endpoint in &held.endpoints {
            if let Some(names) = endpoint.names.as_ref().filter(|names| !names.is_literal) {
                named = true;
                // Told in the log; the addresses found before stay.
                let _ = names.refresh().await;
            }
        }
        if !named {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(last: u8) -> SocketAddr {
        SocketAddr::from(([192, 0, 2, last], 80))
    }

    fn found(last: &[u8]) -> Vec<SocketAddr> {
        last.iter().map(|last| address(*last)).collect()
    }

    fn names(last: &[u8]) -> Names {
        let names = Names::new("app.internal", 80);
        names.take_over(Ok(found(last)), 1).unwrap();
        names
    }

    #[test]
    fn every_address_is_first_in_its_turn_and_one_that_failed_is_last() {
        let names = names(&[1, 2, 3]);
        let mut firsts: Vec<_> = (0..3).map(|_| names.in_turn(5)[0]).collect();
        firsts.sort_unstable();
        assert_eq!(firsts, [1, 2, 3].map(address));
        names.failed(address(2), 5);
        for _ in 0..6 {
            let order = names.in_turn(6);
            assert_eq!((order.len(), order[2]), (3, address(2)));
        }
        assert!((0..3).any(|_| names.in_turn(5 + ADDRESS_REST_MS)[0] == address(2)));
    }

    #[test]
    fn an_address_that_goes_away_is_no_longer_held() {
        let names = names(&[1, 2]);
        let before = names.generation();
        names.take_over(Ok(found(&[1, 2, 3])), 2).unwrap();
        assert_eq!(names.generation(), before, "nothing went away");
        names.take_over(Ok(found(&[2, 3])), 3).unwrap();
        assert_ne!(names.generation(), before);
        assert!(!names.holds(address(1)) && names.holds(address(3)));
    }

    #[test]
    fn what_was_found_stays_while_lookups_fail() {
        let names = names(&[1]);
        assert!(
            names
                .take_over(Err(io::ErrorKind::TimedOut.into()), 2)
                .is_err()
        );
        assert!(names.take_over(Ok(Vec::new()), 3).is_err());
        assert_eq!(names.in_turn(4), [address(1)]);
    }

    #[test]
    fn what_is_kept_of_a_name_is_bounded() {
        let many: Vec<u8> = (0..=255).collect();
        assert_eq!(names(&many).in_turn(1).len(), ADDRESSES);
        assert_eq!(names(&[7, 7, 7]).in_turn(1).len(), 1);
    }

    #[tokio::test]
    async fn an_address_needs_no_lookup_and_a_failed_one_is_not_repeated_at_once() {
        let literal = Names::new("::1", 80);
        assert_eq!(
            literal.addresses().await.unwrap(),
            ["[::1]:80".parse().unwrap()]
        );
        let names = Names::new("app.internal", 80);
        let _ = names.take_over(Ok(Vec::new()), clock::now_ms());
        let error = names.addresses().await.unwrap_err();
        assert_eq!(error.to_string(), "name not resolved");
    }
}
