//! What is counted of an upstream: attempts, how long answers take, how its servers are, how often one is left out.
//!
//! For [`super::metrics`], which hands these out by name.

use std::sync::{
    Mutex,
    atomic::{AtomicU64, Ordering},
};
use std::time::Duration;

use super::cells::{Counters, Durations};
use super::labels::{EjectionCause, ServerState, UpstreamOutcome};
use super::metrics::{Probe, lock};

/// The counts of one upstream.
#[derive(Debug)]
pub struct UpstreamMetrics {
    outcomes: Counters,
    pub(super) durations: Durations,
    ejections: [AtomicU64; EjectionCause::ALL.len()],
    servers: Mutex<Option<Probe<ServerReading>>>,
}

/// How many servers of an upstream are in which state.
#[derive(Clone, Copy, Debug, Default)]
pub struct ServerReading([u32; ServerState::ALL.len()]);

impl ServerReading {
    /// One more server is in this state.
    pub fn count(&mut self, state: ServerState) {
        if let Some(count) = self.0.get_mut(state as usize) {
            *count += 1;
        }
    }

    pub(super) fn read(self) -> impl Iterator<Item = (&'static str, u32)> {
        ServerState::ALL
            .into_iter()
            .map(ServerState::as_str)
            .zip(self.0)
    }
}

impl Default for UpstreamMetrics {
    fn default() -> Self {
        Self {
            outcomes: Counters::new(UpstreamOutcome::ALL.len()),
            durations: Durations::new(),
            ejections: Default::default(),
            servers: Mutex::default(),
        }
    }
}

impl UpstreamMetrics {
    /// Counts an attempt; the time until the response head goes into the histogram when there was one.
    pub fn record(&self, outcome: UpstreamOutcome, duration: Duration) {
        self.outcomes.add(outcome as usize, 1);
        if outcome == UpstreamOutcome::Answered {
            self.durations.observe(duration);
        }
    }

    /// Counts a server that is left out for a while.
    pub fn ejected(&self, cause: EjectionCause) {
        if let Some(count) = self.ejections.get(cause as usize) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Reads the state of the servers at each scrape; a later call takes the place of an earlier one. Hold a `Weak` in
    /// the closure.
    pub fn watch_servers(&self, read: impl Fn() -> ServerReading + Send + Sync + 'static) {
        *lock(&self.servers) = Some(Probe(Box::new(read)));
    }

    pub(super) fn read(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let read = |outcome| {
            (
                UpstreamOutcome::as_str(outcome),
                self.outcomes.sum(outcome as usize),
            )
        };
        UpstreamOutcome::ALL.into_iter().map(read)
    }

    /// Whether anything was ever counted.
    pub(super) fn is_touched(&self) -> bool {
        self.outcomes.is_touched() || self.ejections().any(|(_, count)| count > 0)
    }

    pub(super) fn ejections(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let counts = self
            .ejections
            .iter()
            .map(|count| count.load(Ordering::Relaxed));
        EjectionCause::ALL
            .into_iter()
            .map(EjectionCause::as_str)
            .zip(counts)
    }

    pub(super) fn servers(&self) -> Option<ServerReading> {
        lock(&self.servers).as_ref().map(|probe| (probe.0)())
    }
}
