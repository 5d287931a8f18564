//! What was tried on the way to a backend, for the access line.

/// What was tried, for the access line; filled also when the request fails.
#[derive(Debug, Default)]
pub struct Trail {
    /// The endpoint of the last try, by its place in the cluster.
    pub endpoint: Option<usize>,
    /// How many connections were tried.
    pub attempts: u32,
}
