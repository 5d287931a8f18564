//! What outlives a reload, in one place: limiters, bans, issuers, proofs, endpoints, certificates, sessions, the keys of TLS
//! session tickets, counters.

use std::{
    path::PathBuf,
    sync::{Arc, OnceLock},
};

use rustls::server::ProducesTickets;
use tokio::sync::watch;

use super::{certificates::Certificate, client_trust::ClientTrust};
use crate::{
    config::ServerUrl,
    crypto::digest::Sha256,
    identity::{dpop::Proofs, issuer::Issuers, once::Used, statement::StatementKeys},
    observe::metrics::Metrics,
    policy::{ban, rate_limit::Limiters},
    state::{
        limiter::KeyHasher, registry::Registry, sessions::Sessions, spool::Spool, tries::Tries,
    },
    upstream::endpoint::{Endpoint, LinkRules},
};

/// Everything that a new snapshot takes over from the one before.
#[derive(Debug)]
pub struct Survivors {
    /// Buckets by name of the limit.
    pub limiters: Limiters,
    /// Who failed to authenticate too often.
    pub bans: ban::Tables,
    /// Key sets and verified tokens.
    pub issuers: Issuers,
    /// Proofs of possession that were accepted lately.
    pub proofs: Arc<Proofs>,
    /// What signs statements for backends.
    pub statement_keys: StatementKeys,
    /// Servers by upstream and address.
    pub endpoints: Registry<EndpointRules, Endpoint>,
    /// Certificates by their file and the digest of what it and the key's file held.
    pub certificates: Registry<Sha256, Certificate>,
    /// The room for request bodies that are held until they are whole.
    pub spool: Arc<Spool>,
    /// What of signatures was used up, by signer.
    pub replays: Registry<(), Used>,
    /// Who judges client certificates, by the digest of what its files held.
    pub client_trust: Registry<Sha256, ClientTrust>,
    /// Sessions of people at browsers.
    pub sessions: Arc<Sessions>,
    /// Tries at the gate's own second factor.
    pub tries: Arc<Tries>,
    /// Makes bucket keys.
    pub hasher: KeyHasher,
    /// Counters.
    pub metrics: Arc<Metrics>,
    /// Threads that serve: the number of pools of an endpoint.
    pub workers: usize,
    /// Told of each reload, once what it brings is in force.
    pub reloads: watch::Sender<()>,
    tickets: OnceLock<Arc<dyn ProducesTickets>>,
}

/// What makes an endpoint the same after a reload: with any other of these it starts anew.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointRules {
    /// Where it is.
    pub server: ServerUrl,
    /// File of trusted authorities and what it held.
    pub ca: Option<(PathBuf, Vec<u8>)>,
    /// Name that its certificate must carry.
    pub server_name: Option<String>,
    /// How connections to it are made and kept.
    pub link: LinkRules,
}

impl Survivors {
    /// Nothing yet, for a proxy with this many workers.
    pub fn new(workers: usize) -> Self {
        let (metrics, proofs) = (Metrics::new(), Arc::new(Proofs::default()));
        let watched = Arc::clone(&proofs);
        metrics.watch_proofs(move || u64::try_from(watched.remembered()).unwrap_or(u64::MAX));
        Self {
            limiters: Limiters::default(),
            bans: ban::Tables::default(),
            issuers: Issuers::new(),
            proofs,
            statement_keys: StatementKeys::default(),
            endpoints: Registry::default(),
            certificates: Registry::default(),
            spool: Arc::default(),
            replays: Registry::default(),
            client_trust: Registry::default(),
            sessions: Arc::default(),
            tries: Arc::default(),
            hasher: KeyHasher::new(),
            metrics: Arc::new(metrics),
            workers,
            reloads: watch::Sender::new(()),
            tickets: OnceLock::new(),
        }
    }

    /// The same for a look at a file: no issuer of it ever fetches a key set.
    pub fn offline() -> Self {
        Self {
            issuers: Issuers::offline(),
            ..Self::new(1)
        }
    }

    /// The keys of TLS session tickets, made at the first call and rotated by themselves.
    ///
    /// # Errors
    /// The system gives no random bytes.
    pub fn tickets(&self) -> Result<Arc<dyn ProducesTickets>, rustls::Error> {
        if let Some(tickets) = self.tickets.get() {
            return Ok(Arc::clone(tickets));
        }
        let fresh = rustls::crypto::aws_lc_rs::Ticketer::new()?;
        Ok(Arc::clone(self.tickets.get_or_init(|| fresh)))
    }
}
