//! The one request context: facts only, never the route or the snapshot.

pub mod principal;
