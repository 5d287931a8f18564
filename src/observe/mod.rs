//! What the operator sees: access lines, metrics, the program's own log.

pub mod access;
pub mod access_log;
pub mod cells;
mod handover;
mod json;
mod labels;
pub mod log;
pub mod metrics;
mod scrape;
mod upstreams;
