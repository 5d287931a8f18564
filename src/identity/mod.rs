//! Who is asking: claims, key sets, bearer tokens, API keys, signatures of requests.
//!
//! `bearer` makes a principal of the token that `credential` found; `issuer` holds `rules`, keys, verified tokens and
//! `counts`; `jws` and `claims` read the token, `jwks` the keys, `fetch` brings them. `dpop` checks the `proof`
//! that a token is its caller's own, by the `thumbprint` of the key that it is bound to. `statement` is what backends are told.
//! `signer` is whoever signs requests, `sigv4` one way of signing, `message` what is signed.

pub mod api_key;
pub mod bearer;
pub mod claims;
mod confirmation;
mod counts;
mod credential;
pub mod dpop;
pub mod fetch;
pub mod issuer;
pub mod jwks;
pub mod jws;
pub mod message;
pub mod proof;
mod rules;
pub mod signer;
pub mod sigv4;
pub mod statement;
mod thumbprint;

#[cfg(test)]
mod minting;
