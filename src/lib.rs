//! Portcullis: a security-hardening reverse proxy.
//!
//! The rooms, in the order in which they may use one another (left of the arrow first):
//!
//! `wire`, `crypto` → `config` → `observe` → `exchange` → `state` → `identity` → `policy` | `upstream`
//! → `snapshot` → `pipeline` → `server` → `cli`

pub mod cli;
pub mod config;
pub mod crypto;
pub mod exchange;
pub mod identity;
pub mod observe;
pub mod pipeline;
pub mod policy;
pub mod server;
pub mod snapshot;
pub mod state;
pub mod upstream;
pub mod wire;
