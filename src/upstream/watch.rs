//! What goes on beside the requests of an upstream: active checks, comparison of its servers, lookups of their names.
//!
//! Each task ends when the snapshot that names the upstream is replaced, whatever requests still hold it.

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
        Cluster::in_use(&held)
            .map(|cluster| cluster.reading(clock::now_ms()))
            .unwrap_or_default()
    });
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::upstream::{cluster::HealthRules, trial};

    #[test]
    fn what_was_replaced_is_not_looked_after_however_long_a_request_holds_it() {
        let mut cluster = trial::cluster(2);
        cluster.health = Some(HealthRules {
            path: "/".parse().expect("a path"),
            every: Duration::from_hours(1),
            timeout: Duration::from_secs(1),
        });
        cluster.outliers.every = Duration::from_millis(10);
        let cluster = Arc::new(cluster);
        let held = Arc::downgrade(&cluster);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime");
        runtime.block_on(async {
            let compared = tokio::spawn(outlier::watch(held.clone()));
            tokio::task::yield_now().await;
            cluster.replace();
            let all = async {
                health::watch(held.clone()).await;
                resolve::watch(held).await;
                compared.await.expect("no panic");
            };
            let ended = tokio::time::timeout(Duration::from_secs(5), all).await;
            assert!(ended.is_ok(), "they go on");
        });
        assert!(cluster.endpoints.iter().all(|one| one.is_healthy()));
    }
}
