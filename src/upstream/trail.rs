//! What was tried on the way to a backend, for the access line.

use std::sync::Arc;

use super::endpoint::Endpoint;

/// What was tried, for the access line; filled also when the request fails.
#[derive(Debug, Default)]
pub struct Trail {
    /// The endpoint of the last try.
    pub endpoint: Option<Arc<Endpoint>>,
    /// How many connections were tried.
    pub attempts: u32,
}
