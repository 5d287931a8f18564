//! What a signature of AWS claims, and the text that it is of.

#[path = "../../../../src/identity/sigv4/canonical.rs"]
pub mod canonical;
#[path = "../../../../src/identity/sigv4/credential.rs"]
pub mod credential;
#[path = "../../../../src/identity/sigv4/error.rs"]
mod error;

pub use error::{SigV4Error, Unclear};
