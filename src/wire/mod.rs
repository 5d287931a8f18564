//! HTTP words: bodies, paths, hosts, forwarding headers, refusals. No policy, no configuration.

pub mod body;
pub mod cookie;
pub mod fetch_metadata;
pub mod first_settings;
pub mod form;
pub mod forwarded;
pub mod grpc;
pub mod halt;
pub mod held;
pub mod hop;
pub mod host;
pub mod http2;
pub mod interim;
pub mod names;
pub mod own_space;
pub mod path;
pub mod profile;
pub mod sfv;
pub mod slices;
pub mod socket;
pub mod trailers;
