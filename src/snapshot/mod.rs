//! From the document to the compiled, immutable snapshot that requests run on.
//!
//! [`document`] declares the file; [`compile`](compile::compile) turns a loaded file into a [`Snapshot`], reporting
//! every problem at once; what outlives a reload stands in [`Survivors`](survivors::Survivors).

pub mod api_keys;
pub mod certificates;
pub mod client_certificates;
pub mod client_trust;
mod client_verifier;
pub mod compile;
pub mod document;
mod dpop;
pub mod identity;
pub mod issuers;
mod policies;
mod revocation_lists;
pub mod router;
pub mod routes;
mod passkeys;
pub mod second_factor;
pub mod sections;
pub mod server;
mod signer_section;
pub mod signers;
pub mod survivors;
pub mod tls;
pub mod trie;
pub mod upstream_section;
pub mod upstreams;

use std::sync::Arc;

use crate::{
    observe::metrics::RouteMetrics,
    policy::{Policies, protected_resource::MetadataBook},
    portal::Portal,
    upstream::cluster::Cluster,
};

/// Everything that requests are judged by. Never changed: a reload puts another one in its place.
#[derive(Debug)]
pub struct Snapshot {
    /// Listeners, limits, trusted networks.
    pub server: server::ServerRules,
    /// Certificates and client authentication; `None` without TLS.
    pub tls: Option<Arc<tls::TlsRules>>,
    /// From host, path and method to a route.
    pub router: router::Router,
    /// The routes, by number.
    pub routes: Vec<Arc<Route>>,
    /// What a request that meets no route is judged by.
    pub unrouted: Arc<Policies>,
    /// What is told of protected resources; `None` when the file names none.
    pub metadata: Option<Box<MetadataBook>>,
    /// The gate's own pages; `None` when the file has no second factor.
    pub portal: Option<Box<Portal>>,
    /// Every upstream, for health checks and metrics.
    pub clusters: Vec<Arc<Cluster>>,
    /// True when a backend folds the case of paths, so that routing must look twice.
    pub folds_case: bool,
}

impl Snapshot {
    /// A route by its number.
    pub fn route(&self, id: trie::RouteId) -> Option<&Arc<Route>> {
        self.routes.get(usize::try_from(id).ok()?)
    }
}

/// One route: what it is called, what it demands, where it leads.
#[derive(Debug)]
pub struct Route {
    /// Names and counters.
    pub facts: Box<RouteFacts>,
    /// Its policies.
    pub policies: Arc<Policies>,
    /// Its upstream.
    pub cluster: Arc<Cluster>,
    /// What people are told of it. Apart, so that what a request reads of a route is one line of the processor's cache.
    pub told: Box<Told>,
}

/// The names of a route, with its counters.
#[derive(Clone, Debug)]
pub struct RouteFacts {
    /// Name of the blueprint, shared by its routes.
    pub blueprint: Arc<str>,
    /// Name of the route, or its pattern. Boxed twice: what a request reads of these facts is one line of the
    /// processor's cache, and the name is seldom among it.
    pub route: Box<Box<str>>,
    /// Path pattern with the prefix of the blueprint, `http.route` of the access line.
    pub pattern: Box<str>,
    /// What limits by route count it under: it stays while its name and that of its blueprint do.
    pub bucket: u64,
    /// Counters that outlive a reload.
    pub metrics: Arc<RouteMetrics>,
}

/// What people are told of a route.
#[derive(Debug)]
pub struct Told {
    /// What it matches: methods, hosts, pattern.
    pub matches: Box<str>,
    /// Its methods with spaces between; `*` for any.
    pub methods: Box<str>,
    /// Where the file declares it, as `file:line`.
    pub place: Box<str>,
}
