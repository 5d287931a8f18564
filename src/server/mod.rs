//! Listeners, TLS, connections, workers, reload and drain.
//!
//! [`gate`] starts everything, its desk waits for the end; a worker is a thread with a runtime of its own, its own
//! listeners on the shared ports, its own upstream connections and its own end of the access log.

pub mod screen;
pub mod activity;
pub mod guarded_io;
pub mod guarded_body;
pub mod caps;
pub mod shutdown;
pub mod refusal;
pub mod proxy_protocol;
pub mod readiness;
pub mod frames;
mod tunnels;
pub mod conn;
pub mod http1;
pub mod listener;
pub mod handover;
pub mod inherited;
pub mod worker;
pub mod admin;
pub mod watch;
pub mod reload;
pub mod open_files;
mod desk;
pub mod gate;
