//! One `[upstreams.NAME]`: its endpoints and how requests are sent to them.

use std::{
    sync::{
        Arc, Mutex, Weak,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use http::Uri;

use super::{
    balance::Balance,
    budget::Budget,
    endpoint::{Endpoint, Protocol},
    outlier::OutlierRules,
    tunnel::Bounds,
};
use crate::{
    identity::statement::Voucher,
    observe::metrics::{ServerReading, ServerState, UpstreamMetrics},
    wire::path::Profile,
};

/// The compiled upstream. Endpoints are shared with the snapshots before and after it.
#[derive(Debug)]
pub struct Cluster {
    /// Name in the file.
    pub name: Arc<str>,
    /// Its servers, never empty.
    pub endpoints: Vec<Arc<Endpoint>>,
    /// What is spoken to each of them.
    pub protocol: Protocol,
    /// How one is chosen.
    pub balance: Balance,
    /// How long the backend may take to begin its answer, from the end of the request body.
    pub response_timeout: Duration,
    /// The longest silence in the middle of an answer.
    pub answer_idle: Duration,
    /// How long all tries together may take until the answer begins, the client's own pauses aside.
    pub request_timeout: Duration,
    /// Further tries after a connect failure.
    pub retries: u32,
    /// What bounds them over all requests.
    pub budget: Budget,
    /// Active checks of its servers.
    pub health: Option<HealthRules>,
    /// When a server that does worse than the others is left out.
    pub outliers: OutlierRules,
    /// How long the share of a server that came back grows.
    pub slow_start: Duration,
    /// How often names are looked up again.
    pub dns_refresh: Duration,
    /// What bounds each WebSocket.
    pub tunnels: Bounds,
    /// How this backend reads paths.
    pub profile: Profile,
    /// What its servers are told of who asks, signed.
    pub voucher: Option<Box<Voucher>>,
    /// Counters that outlive a reload.
    pub metrics: Arc<UpstreamMetrics>,
    /// Held by the one that leaves a server out, so that never too many are.
    pub ejecting: Mutex<()>,
    /// Another snapshot took the place of its own; requests under way may go on for long.
    pub replaced: AtomicBool,
}

impl Cluster {
    /// The cluster while it is looked after: until the snapshot that names it is replaced or freed. Its servers are then
    /// another's to judge.
    pub fn in_use(held: &Weak<Self>) -> Option<Arc<Self>> {
        held.upgrade().filter(|cluster| !cluster.is_replaced())
    }

    /// Whether another snapshot took the place of its own.
    pub fn is_replaced(&self) -> bool {
        self.replaced.load(Ordering::Acquire)
    }

    /// States that another snapshot took the place of its own.
    pub fn replace(&self) {
        self.replaced.store(true, Ordering::Release);
    }

    /// How its servers are now.
    pub fn reading(&self, now_ms: u64) -> ServerReading {
        let mut reading = ServerReading::default();
        for endpoint in &self.endpoints {
            let state = match endpoint.rank(now_ms, self.slow_start, 0) {
                4 => ServerState::Resting,
                3 => ServerState::Unhealthy,
                2 => ServerState::Ejected,
                _ => ServerState::Ready,
            };
            reading.count(state);
        }
        reading
    }
}

/// `health = { … }`
#[derive(Clone, Debug)]
pub struct HealthRules {
    /// Path and query to ask for.
    pub path: Uri,
    /// Pause between two checks.
    pub every: Duration,
    /// Bound on one check.
    pub timeout: Duration,
}
