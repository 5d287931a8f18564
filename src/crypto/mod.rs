//! Random bytes, hashes, authentication codes, sealed values, secrets and signing keys, and what certificates say.

pub mod certificate;
pub mod digest;
pub mod hex;
pub mod mac;
pub mod distinguished_name;
pub mod revocation_list;
pub mod rng;
pub mod seal;
pub mod secret;
pub mod signing;
pub mod trust;
pub mod websocket;
