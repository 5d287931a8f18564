//! Portcullis: a security-hardening reverse proxy. This page is the map.
//!
//! # The rooms
//!
//! In the order in which they may use one another, lowest first; `tests/it/architecture.rs` holds it.
//!
//! | room | holds |
//! | --- | --- |
//! | [`wire`] | HTTP words: host, path, bodies, cookies, forwarding headers, [refusals](wire::halt) |
//! | [`crypto`] | random bytes, hashes, secrets, certificates, trust anchors |
//! | [`config`] | the file: values with places, problems, declared sections; knows no policy |
//! | [`observe`] | access lines, metrics, the program's own log |
//! | [`exchange`] | the one context of a request: facts as plain data |
//! | [`state`] | what survives a reload: buckets, key sets, verified tokens, room for bodies |
//! | [`identity`] | who is asking: claims, key sets, bearer tokens, signatures |
//! | [`policy`] | the guards, a file each, and **the list** of their order |
//! | [`upstream`] | the way to the backend: endpoints, connections, breakers |
//! | [`portal`] | the gate's own pages: the second factor |
//! | [`snapshot`] | the checked file, compiled: router, routes with their policies, certificates |
//! | [`pipeline`] | the life of a request, from its head to its access line |
//! | [`server`] | listeners, TLS, connections, workers, reload and drain |
//! | [`cli`] | the verbs |
//!
//! # The life of a request
//!
//! 1. A worker accepts the connection if the caps allow it, reads a PROXY header where one is due, and shakes hands
//!    by the certificate of the name ([`server::worker`], [`server::conn`]).
//! 2. [`server::screen`] reads the raw HTTP/1 bytes before the codec: what two parsers could frame differently is 400.
//! 3. [`pipeline::serve`] takes the head and today's [`snapshot::Snapshot`], which stays this request's until its end.
//! 4. [`pipeline::normalise`] finds the client, and the one normal form of host, path and headers, or refuses. Client
//!    copies of identity and forwarding headers are gone from here on. The result is an [`exchange::Exchange`].
//! 5. [`pipeline::admit`] sends clear text to https, finds the route, and walks the list, [`policy::admit`]: network,
//!    rate limit by address, body limit, cors, authn, rate limit by principal, csrf, step-up, rbac. A body that is signed is
//!    held and judged by [`pipeline::proof`]. A request without a route still meets network and rate limit. The first
//!    [`wire::halt::Halt`] ends the walk; in monitor mode it becomes a note.
//! 6. Only that walk makes an [`Admitted`](pipeline::admit::Admitted), and [`pipeline::forward`], the one door to the
//!    network, takes nothing else. It drops hop-by-hop fields, adds who the client and the principal are, and hands
//!    the judged bytes to [`upstream::send`]: endpoint, breaker, connection, deadline, retry if none came about.
//! 7. The answer, the backend's or one of ours ([`pipeline::respond`], [`pipeline::problem`]), meets the response
//!    halves in [`policy::finish`]: cookies, cors, rate-limit fields and, with the last word, security headers.
//! 8. The body streams; its last byte, or its drop, writes the access line and the counters ([`pipeline::record`]).
//!
//! A panic on the way is answered by [`pipeline::rescue`]; the proxy lives. A reload ([`server::reload`]) swaps the
//! snapshot between requests, or changes nothing and says why.

pub mod wire;
pub mod crypto;
pub mod config;
pub mod observe;
pub mod exchange;
pub mod state;
pub mod identity;
pub mod policy;
pub mod upstream;
pub mod portal;
pub mod snapshot;
pub mod pipeline;
pub mod server;
pub mod cli;
