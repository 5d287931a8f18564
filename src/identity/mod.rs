//! Who is asking: claims, key sets, bearer tokens, API keys, client certificates, signatures of requests.
//!
//! `bearer` makes a principal of the token that `credential` found; `issuer` holds `rules`, keys, verified tokens and
//! `counts`, `issuers` all of them; `jws` and `claims` read the token, `jwks` the keys, `fetch` brings them and `kept` has
//! those of before; `introspection` asks the issuer about a token, each client by its `shares`, and `agreement` is what the
//! answer leaves of a signed one; `revocations` is the operator's list. `dpop` checks the `proof`
//! that a token is its caller's own, by the `thumbprint` of the key that it is bound to. `certificate` reads that of a connection. `statement` is what backends are told.
//! `signer` is whoever signs requests, `message` what is signed; `sigv4`, `http_signature` and `webhook` are ways of
//! signing, `once` what of them may be used once. `second_factor` is what the gate asks for itself: `totp` codes of an
//! `account`, remembered in a `session`; `webauthn` reads passkeys; `whole_file` is how the gate keeps files.

pub mod account;
mod agreement;
pub mod api_key;
pub mod bearer;
pub mod certificate;
pub mod claims;
mod confirmation;
mod counts;
mod credential;
pub mod dpop;
pub mod fetch;
pub mod http_signature;
mod introspection;
pub mod issuer;
mod issuers;
pub mod jwks;
pub mod jws;
mod kept;
pub mod message;
pub mod once;
pub mod proof;
pub mod revocations;
mod rules;
pub mod second_factor;
pub mod session;
mod shares;
pub mod signer;
pub mod sigv4;
pub mod statement;
mod thumbprint;
pub mod totp;
pub mod webauthn;
pub mod webhook;
mod whole_file;

#[cfg(test)]
mod minting;
