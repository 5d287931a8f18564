//! What goes on beside the requests of an upstream: active checks, comparison of its servers, lookups of their names.
//!
//! Each task ends when the snapshot that names the upstream is no longer in use.

use std::sync::Arc;

use super::{cluster::Cluster, health, outlier, resolve};
use crate::state::clock;

/// Starts the tasks, and has the state of the servers read at each scrape.
pub fn look_after(cluster: &Arc<Cluster>) {
    let held = Arc::downgrade(cluster);
    tokio::spawn(health::watch(held.clone()));
    tokio::spawn(outlier::watch(held.clone()));
    tokio::spawn(resolve::watch(held.clone()));
    cluster.metrics.watch_servers(move || {
        held.upgrade()
            .map(|cluster| cluster.reading(clock::now_ms()))
            .unwrap_or_default()
    });
}
