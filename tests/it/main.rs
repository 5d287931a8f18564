//! The proxy as its users meet it: the built binary over real sockets, before real and scripted backends.
//!
//! A module is a capability; a test that carries the number of a case (`b17_…`, `a09_…`) is that case. Cases assert on
//! the bytes at the client and at the backend.

#![expect(
    unreachable_pub,
    reason = "one binary: `pub` says what a module offers to the others"
)]

mod harness;

mod agreement;
mod api_keys;
mod architecture;
mod bans;
mod bearer;
mod browser;
mod cli;
mod client_certificates;
mod conditions;
mod config;
mod corpus;
mod cors;
mod crowd;
mod csrf;
mod demo;
mod dpop;
mod deploy;
mod faults;
mod floods;
mod forwarding;
mod grpc;
mod h2_backends;
mod handover;
mod headers;
mod http_signatures;
mod held_bodies;
mod hints;
mod idle;
mod introspection;
mod jose;
mod legacy;
mod limits;
mod logs;
mod masking;
mod matrix;
mod mfa;
mod mfa_abuse;
mod names;
mod network;
mod observatory;
mod oidc;
mod overload;
mod passkeys;
mod paths;
#[path = "../fuzz/src/properties/mod.rs"]
mod properties;
mod protected_resource;
mod rbac;
mod reload;
mod resilience;
mod revocation;
mod revocation_lists;
mod signed_identity;
mod sigv4;
mod smuggling;
mod soak;
mod step_up;
mod streams;
mod successor;
mod tls;
mod tunnels;
mod upstream;
mod webhooks;
mod websocket;
mod withdrawn;
