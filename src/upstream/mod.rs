//! The way to the backend: endpoints, connections, breakers, sending.
//!
//! [`send`](send::send) is the only door to the network for requests, and `pipeline::forward` its only caller.
//! A [`Cluster`](cluster::Cluster) is one `[upstreams.NAME]`; an [`Endpoint`](endpoint::Endpoint) one server of it,
//! with its breaker and, for each worker, one pool of idle connections or one set of shared ones. Endpoints outlive a
//! reload.

pub mod balance;
pub mod body;
pub mod breaker;
pub mod budget;
pub mod cluster;
pub mod connect;
pub mod endpoint;
pub mod error;
pub mod health;
pub mod heard;
pub mod link;
pub mod outlier;
pub mod pool;
pub mod prelude;
pub mod resolve;
pub mod send;
pub mod shared;
pub mod stream;
pub mod trail;
#[cfg(test)]
mod trial;
pub mod tunnel;
pub mod two;
pub mod upload;
pub mod watch;
