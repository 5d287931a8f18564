//! One `[upstreams.NAME]`: its endpoints and how requests are sent to them.

use std::{sync::Arc, time::Duration};

use http::Uri;

use super::{
    balance::Balance,
    budget::Budget,
    endpoint::{Endpoint, Protocol},
};
use crate::{observe::metrics::UpstreamMetrics, wire::path::Profile};

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
    /// Further tries after a connect failure.
    pub retries: u32,
    /// What bounds them over all requests.
    pub budget: Budget,
    /// Active checks of its servers.
    pub health: Option<HealthRules>,
    /// How long a tunnel may be silent.
    pub tunnel_idle: Duration,
    /// How this backend reads paths.
    pub profile: Profile,
    /// Counters that outlive a reload.
    pub metrics: Arc<UpstreamMetrics>,
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
