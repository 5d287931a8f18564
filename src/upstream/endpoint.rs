//! One server of an upstream: its address, breaker, load and pools. Outlives a reload.

use std::{
    path::PathBuf,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use rustls::pki_types::ServerName;

use super::{
    balance::salt,
    breaker::{Breaker, BreakerRules},
    link::Way,
    outlier::Standing,
    pool::{Idle, Pool},
    resolve::Names,
    shared::Shared,
};

/// Where a server listens.
#[derive(Clone, Debug)]
pub enum Address {
    /// A TCP server.
    Tcp {
        /// Host name or address.
        host: String,
        /// Port.
        port: u16,
    },
    /// A TCP server that speaks TLS.
    Tls {
        /// Host name or address.
        host: String,
        /// Port.
        port: u16,
        /// Name that the certificate must carry.
        name: ServerName<'static>,
        /// Trust anchors and protocol settings.
        config: Arc<rustls::ClientConfig>,
    },
    /// A Unix socket.
    Unix(PathBuf),
}

/// What is spoken to a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/1.1: a connection carries one request at a time.
    Http1,
    /// HTTP/2: in clear by prior knowledge, over TLS by agreement (RFC 9113 §3).
    Http2,
}

/// What a connection to a server needs besides its address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LinkRules {
    /// What is spoken.
    pub protocol: Protocol,
    /// Bound on TCP connect and TLS handshake together.
    pub connect_timeout: Duration,
    /// How long an idle connection is kept.
    pub idle_timeout: Duration,
    /// Idle connections kept by each worker.
    pub idle_limit: usize,
    /// HTTP/2 connections opened by each worker.
    pub shared_limit: usize,
    /// When the breaker opens.
    pub breaker: BreakerRules,
}

/// One server.
#[derive(Debug)]
pub struct Endpoint {
    /// The server as written in the file, for logs.
    pub name: Box<str>,
    /// Where it listens.
    pub address: Address,
    /// Its rules.
    pub rules: LinkRules,
    /// What its name stands for; a Unix socket has none.
    pub names: Option<Names>,
    /// Its breaker.
    pub breaker: Breaker,
    /// How it does beside its peers.
    pub standing: Standing,
    /// Its name as a number, for choices that depend on it.
    pub salt: u64,
    healthy: AtomicBool,
    in_flight: Load,
    /// One a worker, made by that worker when it first sends: so it stands among what no other worker writes.
    pools: Box<[OnceLock<Arc<Pool>>]>,
    /// The same of shared connections.
    shared: Box<[OnceLock<Shared>]>,
}

/// Written with each request, so it stands apart from what each request reads.
#[derive(Debug, Default)]
#[repr(align(64))]
struct Load(AtomicU32);

impl Endpoint {
    /// An endpoint with one pool a worker.
    pub fn new(name: &str, address: Address, rules: LinkRules, workers: usize) -> Self {
        let names = match &address {
            Address::Tcp { host, port } | Address::Tls { host, port, .. } => {
                Some(Names::new(host, *port))
            }
            Address::Unix(_) => None,
        };
        Self {
            name: name.into(),
            address,
            rules,
            names,
            breaker: Breaker::new(rules.breaker),
            standing: Standing::default(),
            salt: salt(name),
            healthy: AtomicBool::new(true),
            in_flight: Load::default(),
            pools: (0..workers.max(1)).map(|_| OnceLock::new()).collect(),
            shared: (0..workers.max(1)).map(|_| OnceLock::new()).collect(),
        }
    }

    /// The pool of one worker; a worker beyond the list shares the first.
    pub fn pool(&self, worker: usize) -> &Arc<Pool> {
        let LinkRules {
            idle_limit,
            idle_timeout,
            ..
        } = self.rules;
        self.pools
            .get(worker)
            .unwrap_or(&self.pools[0])
            .get_or_init(|| Arc::new(Pool::new(idle_limit, idle_timeout)))
    }

    /// The shared connections of one worker; a worker beyond the list shares the first's.
    pub fn shared(&self, worker: usize) -> &Shared {
        let LinkRules {
            shared_limit,
            idle_timeout,
            ..
        } = self.rules;
        self.shared
            .get(worker)
            .unwrap_or(&self.shared[0])
            .get_or_init(|| Shared::new(shared_limit, idle_timeout))
    }

    /// A kept connection out of one of its pools that still leads to it.
    pub fn take_idle(&self, pool: &Pool, now: Instant) -> Option<Idle> {
        loop {
            let mut idle = pool.take(now)?;
            let way = &mut idle.link.way;
            // Read before the check: an address that goes away after it is met at the next use.
            let generation = self.generation();
            if self.is_led_to(*way) {
                way.generation = generation;
                return Some(idle);
            }
        }
    }

    /// Whether a connection leads to an address which the name still stands for.
    pub fn is_led_to(&self, way: Way) -> bool {
        let Some(names) = &self.names else {
            return true;
        };
        way.generation == names.generation() || way.peer.is_some_and(|peer| names.holds(peer))
    }

    fn generation(&self) -> u32 {
        self.names.as_ref().map_or(0, Names::generation)
    }

    /// Drops idle connections of one worker that sat too long.
    pub fn sweep(&self, worker: usize, now: Instant) {
        if let Some(pool) = self.pools.get(worker).and_then(OnceLock::get) {
            pool.sweep(now);
        }
        if let Some(shared) = self.shared.get(worker).and_then(OnceLock::get) {
            shared.sweep();
        }
    }

    /// How gladly it is asked: 0 is best, beyond 1 it is asked only where all the others are no better.
    pub fn rank(&self, now_ms: u64, slow_start: Duration, draw: u64) -> u8 {
        if self.breaker.is_open(now_ms) {
            4
        } else if !self.is_healthy() {
            3
        } else if self.standing.is_ejected(now_ms) {
            2
        } else {
            u8::from(!self.standing.takes(now_ms, slow_start, draw))
        }
    }

    /// Requests under way, as far as they are counted, see [`Balance::compares`](super::balance::Balance::compares).
    pub fn load(&self) -> u32 {
        self.in_flight.0.load(Ordering::Relaxed)
    }

    /// What the last health check said; true when there is none.
    pub fn is_healthy(&self) -> bool {
        self.healthy.load(Ordering::Relaxed)
    }

    /// Records a health check. Returns true when the state changed.
    pub fn mark_healthy(&self, healthy: bool) -> bool {
        self.healthy.swap(healthy, Ordering::Relaxed) != healthy
    }
}

/// Counts one request as under way until dropped.
#[derive(Debug)]
pub struct InFlight(Arc<Endpoint>);

impl InFlight {
    /// Counts a request on this endpoint.
    pub fn on(endpoint: &Arc<Endpoint>) -> Self {
        endpoint.in_flight.0.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(endpoint))
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.in_flight.0.fetch_sub(1, Ordering::Relaxed);
    }
}
