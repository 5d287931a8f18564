//! Random bytes, hashes and secrets.

pub mod digest;
pub mod rng;
pub mod secret;
pub mod trust;
pub mod websocket;
