//! What the operator sees: access lines, metrics, the program's own log.

pub mod access;
pub mod access_log;
pub mod cells;
mod json;
mod labels;
pub mod log;
pub mod metrics;
mod relay;
mod scrape;
mod upstreams;
