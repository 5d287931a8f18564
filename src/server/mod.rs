//! Listeners, TLS, connections, workers, reload and drain.

pub mod screen;
pub mod activity;
pub mod guarded_io;
