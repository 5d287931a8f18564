//! The issuers in use, outside the snapshot, so that a reload keeps keys and verified tokens. For `snapshot` and `server`.

use std::sync::{Arc, Mutex, PoisonError};

use super::issuer::{Issuer, IssuerConfig, IssuerError};
use crate::state::clock::unix_seconds;

/// The issuers in use, by name.
#[derive(Debug, Default)]
pub struct Issuers {
    held: Mutex<Vec<Arc<Issuer>>>,
    reach: Reach,
}

/// Whether key sets may be fetched.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Reach {
    #[default]
    Network,
    Disk,
}

impl Issuers {
    /// No issuer yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// No issuer yet, and none that fetches: for verbs that work without a network.
    pub fn offline() -> Self {
        Self {
            reach: Reach::Disk,
            ..Self::default()
        }
    }

    /// The issuer for this part of the file: the one in use where nothing about it changed, else a fresh one, which has
    /// the keys of one in use if they would be fetched in the same way. Nothing is put to use before [`Issuers::keep`],
    /// so a reload that fails later leaves no trace.
    ///
    /// # Errors
    /// See [`Issuer::new`].
    pub fn prepare(&self, config: IssuerConfig) -> Result<Arc<Issuer>, IssuerError> {
        let held = self.list();
        if let Some(same) = held.iter().find(|issuer| *issuer.config() == config) {
            return Ok(Arc::clone(same));
        }
        if self.reach == Reach::Disk {
            return Issuer::offline(config);
        }
        let like = held
            .iter()
            .find(|issuer| issuer.config().fetches_as(&config));
        Issuer::with_keys(config, like.map(|issuer| Arc::clone(&issuer.keys)))
    }

    /// Puts exactly these issuers to use and gives back those that are new, for which [`Issuer::keep_fresh`] is to be
    /// spawned.
    pub fn keep(&self, issuers: Vec<Arc<Issuer>>) -> Vec<Arc<Issuer>> {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let fresh = issuers
            .iter()
            .filter(|new| !held.iter().any(|old| Arc::ptr_eq(old, new)))
            .cloned()
            .collect();
        *held = issuers;
        fresh
    }

    /// The issuers in use.
    pub fn list(&self) -> Vec<Arc<Issuer>> {
        self.held
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Whether each of them has keys to work with now.
    pub fn are_ready(&self) -> bool {
        let now = unix_seconds();
        self.list().iter().all(|issuer| issuer.has_keys(now))
    }
}
