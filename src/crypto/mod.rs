//! Random bytes, hashes, secrets and signing keys.

pub mod digest;
pub mod rng;
pub mod secret;
pub mod signing;
pub mod trust;
pub mod websocket;
