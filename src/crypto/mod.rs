//! Random bytes, hashes and secrets.

pub mod secret;
