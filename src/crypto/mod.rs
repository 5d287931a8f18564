//! Random bytes, hashes, authentication codes, secrets and signing keys.

pub mod digest;
pub mod hex;
pub mod mac;
pub mod rng;
pub mod secret;
pub mod signing;
pub mod trust;
pub mod websocket;
