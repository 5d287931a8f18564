//! What the tests stand on: the built proxy as a child process, scripted origins, exact-byte clients, an issuer.
//!
//! Each part listens on a port that the system gave it, carries a deadline on all it waits for, and takes its child
//! process or thread with it when its guard drops. Nothing here shares code with the proxy.

pub mod authenticator;
pub mod ca;
pub mod client;
pub mod curl;
pub mod eventually;
pub mod gate;
pub mod h2origin;
pub mod instructed;
pub mod issuer;
pub mod message;
pub mod message_signer;
pub mod oidc;
pub mod openssl;
pub mod origin;
pub mod process;
pub mod prover;
pub mod proxy;
pub mod python;
pub mod second_factor;

pub use ca::Ca;
pub use client::{Client, TlsOptions};
pub use eventually::eventually;
pub use gate::Gate;
pub use h2origin::H2Origin;
pub use issuer::{Alg, Issuer, Mint};
pub use message::Response;
pub use oidc::Oidc;
pub use origin::{Conn, Origin};
pub use prover::{Proof, Prover};
