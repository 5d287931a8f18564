//! Who is asking: claims, key sets, bearer tokens.
//!
//! `bearer` takes the token from a request and gives a principal; `issuer` holds rules, keys and verified tokens; `jws`
//! and `claims` read the token, `jwks` the keys, `fetch` brings them.

pub mod bearer;
pub mod claims;
pub mod fetch;
pub mod issuer;
pub mod jwks;
pub mod jws;
