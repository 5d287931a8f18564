//! Who is asking: claims, key sets, bearer tokens, API keys.
//!
//! `bearer` makes a principal of the token that `credential` found; `issuer` holds `rules`, keys, verified tokens and
//! `counts`; `jws` and `claims` read the token, `jwks` the keys, `fetch` brings them.

pub mod api_key;
pub mod bearer;
pub mod claims;
mod counts;
mod credential;
pub mod fetch;
pub mod issuer;
pub mod jwks;
pub mod jws;
mod rules;

#[cfg(test)]
mod minting;
