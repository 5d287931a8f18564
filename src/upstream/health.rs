//! Active health checks: a GET now and then to each server, on a connection of its own.
//!
//! Two failures in a row take a server out of the choice, one success brings it back. When all are out, all are
//! asked: a check that is wrong must not take the whole upstream down.

use std::sync::{Arc, Weak};

use http::{Request, Response, Uri, header};
use hyper::body::Incoming;

use super::{
    cluster::Cluster,
    connect,
    endpoint::{Address, Endpoint, Protocol},
    error::UpstreamError,
    two,
    upload::Upload,
};
use crate::{state::clock, wire::body::ClientBody};

/// Failures in a row that take a server out.
const FAILURES: u32 = 2;

/// Checks the servers of a cluster for as long as it is in use.
pub async fn watch(cluster: Weak<Cluster>) {
    let mut failures: Vec<u32> = Vec::new();
    while let Some(held) = Cluster::in_use(&cluster) {
        let Some(rules) = held.health.clone() else {
            // Servers outlive a reload; what the checks of an earlier file found must not.
            for endpoint in &held.endpoints {
                endpoint.mark_healthy(true);
            }
            return;
        };
        failures.resize(held.endpoints.len(), 0);
        for (endpoint, failed) in held.endpoints.iter().zip(&mut failures) {
            let well = tokio::time::timeout(rules.timeout, is_well(endpoint, &rules.path))
                .await
                .unwrap_or(false);
            if held.is_replaced() {
                return;
            }
            *failed = if well { 0 } else { failed.saturating_add(1) };
            if *failed == 0 || *failed >= FAILURES {
                note(&held, endpoint, well);
            }
        }
        drop(held);
        tokio::time::sleep(rules.every).await;
    }
}

fn note(cluster: &Cluster, endpoint: &Arc<Endpoint>, well: bool) {
    if endpoint.mark_healthy(well) {
        let (upstream, server) = (&*cluster.name, &*endpoint.name);
        if well {
            endpoint.standing.come_back(clock::now_ms());
            tracing::info!(upstream, server, "server is well again");
        } else {
            tracing::warn!(upstream, server, "server fails its health check");
        }
    }
}

/// A server is well when it answers with 2xx or 3xx.
async fn is_well(endpoint: &Endpoint, path: &Uri) -> bool {
    let mut request = Request::new(ClientBody::Empty);
    *request.uri_mut() = path.clone();
    let host = match &endpoint.address {
        Address::Tcp { host, .. } | Address::Tls { host, .. } => host.as_str(),
        Address::Unix(_) => "localhost",
    };
    let Ok(host) = host.parse() else { return false };
    request.headers_mut().insert(header::HOST, host);
    match ask(endpoint, request).await {
        Ok(response) => response.status().is_success() || response.status().is_redirection(),
        Err(_) => false,
    }
}

async fn ask(
    endpoint: &Endpoint,
    mut request: Request<ClientBody>,
) -> Result<Response<Incoming>, UpstreamError> {
    let answer = match endpoint.rules.protocol {
        Protocol::Http1 => {
            let limit = endpoint.rules.connect_timeout;
            let mut link = connect::connect(endpoint, limit).await?;
            link.prelude.begin();
            link.sender.send_request(request).await
        }
        Protocol::Http2 => {
            two::address(&mut request, endpoint)?;
            let mut two = two::connect(endpoint).await?;
            two.sender.send_request(request.map(Upload::alone)).await
        }
    };
    answer.map_err(UpstreamError::Broken)
}
