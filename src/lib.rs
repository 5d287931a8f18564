//! Portcullis: a security-hardening reverse proxy.
//!
//! The rooms, in the order in which they may use one another (left of the arrow first):
//!
//! `wire`, `crypto` → `config` → `observe` → `exchange` → `state` → `identity` → `policy` | `upstream`
//! → `snapshot` → `pipeline` → `server` → `cli`

pub mod wire;
pub mod crypto;
pub mod config;
pub mod observe;
pub mod exchange;
pub mod state;
pub mod identity;
pub mod policy;
pub mod upstream;
pub mod snapshot;
pub mod pipeline;
pub mod server;
pub mod cli;
