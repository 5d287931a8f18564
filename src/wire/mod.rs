//! HTTP words: bodies, paths, hosts, forwarding headers, refusals. No policy, no configuration.

pub mod body;
pub mod halt;
pub mod hop;
pub mod host;
pub mod names;
pub mod path;
