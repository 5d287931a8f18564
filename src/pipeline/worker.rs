//! What one worker thread owns: its view of the snapshot, its end of the access log, its source of ids.
//!
//! The locks here are taken by one thread only, so they are never contended.

use std::{
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
};

use arc_swap::ArcSwap;

use crate::{
    crypto::rng::{HexId, RequestIds},
    observe::access_log::AccessSink,
    snapshot::{Snapshot, survivors::Survivors},
    state::load::{Load, Pressure},
};

/// A snapshot behind a count that only one worker touches. The holds of all workers are made one after the other, so
/// without room of their own their counts would share a line of the processor's cache.
#[derive(Debug)]
#[repr(align(64))]
pub struct Held(Arc<Snapshot>);

impl std::ops::Deref for Held {
    type Target = Snapshot;

    fn deref(&self) -> &Snapshot {
        &self.0
    }
}

/// One worker, in lines of the cache that no other worker writes.
#[derive(Debug)]
#[repr(align(64))]
pub struct Worker {
    /// Its number, from 0.
    pub index: usize,
    /// What outlives a reload.
    pub survivors: Arc<Survivors>,
    /// Requests under way here.
    pub load: Load,
    held: ArcSwap<Held>,
    sink: Mutex<AccessSink>,
    ids: Mutex<RequestIds>,
}

impl Worker {
    /// A worker that starts on this snapshot.
    pub fn new(
        index: usize,
        survivors: Arc<Survivors>,
        snapshot: Arc<Snapshot>,
        sink: AccessSink,
    ) -> Self {
        Self {
            index,
            survivors,
            load: Load::default(),
            held: ArcSwap::from_pointee(Held(snapshot)),
            sink: Mutex::new(sink),
            ids: Mutex::new(RequestIds::new()),
        }
    }

    /// The snapshot to judge the next request by; a request keeps the one it started with.
    pub fn snapshot(&self) -> Arc<Held> {
        self.held.load_full()
    }

    /// What is to be shed now, by this worker's equal share of the requests that may be under way in all.
    pub fn pressure(&self, snapshot: &Snapshot) -> Pressure {
        self.load.pressure(self.share(snapshot))
    }

    /// What stands for a client in the load.
    pub fn key_of(&self, client: IpAddr) -> u64 {
        self.survivors.hasher.client(client)
    }

    /// Whether this client has as many requests under way here as one may: never more than half of the worker's share.
    pub fn is_full_of(&self, client: u64, snapshot: &Snapshot) -> bool {
        let limits = &snapshot.server.limits;
        let half = self.share(snapshot).div_ceil(2);
        self.load.of_client(client) >= limits.requests_per_client.min(half)
    }

    fn share(&self, snapshot: &Snapshot) -> usize {
        let workers = self.survivors.workers.max(1);
        snapshot.server.limits.requests.div_ceil(workers)
    }

    /// Puts another snapshot in place for requests to come. Whoever drops the one that is returned last frees all of
    /// it, which takes milliseconds where there are many routes: that must not be the worker.
    pub fn replace(&self, snapshot: Arc<Snapshot>) -> Arc<Snapshot> {
        Arc::clone(&self.held.swap(Arc::new(Held(snapshot))).0)
    }

    /// A fresh id of 32 digits and one of 64 bits.
    pub fn ids(&self) -> (HexId, u64) {
        let mut ids = self.ids.lock().unwrap_or_else(PoisonError::into_inner);
        (ids.next_id(), ids.next_u64())
    }

    /// Random bits, not secret: for balancing.
    pub fn random(&self) -> u64 {
        let mut ids = self.ids.lock().unwrap_or_else(PoisonError::into_inner);
        ids.next_u64()
    }

    /// The worker's end of the access log.
    pub fn with_sink<T>(&self, act: impl FnOnce(&mut AccessSink) -> T) -> T {
        act(&mut self.sink.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
