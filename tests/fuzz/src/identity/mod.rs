//! The parts of the program's room of this name that read requests and tokens, and know nothing of keys.

#[path = "../../../../src/identity/claims.rs"]
pub mod claims;
pub mod http_signature;
#[expect(dead_code, reason = "the program asks it more than the targets do")]
#[path = "../../../../src/identity/jws.rs"]
pub mod jws;
#[path = "../../../../src/identity/message.rs"]
pub mod message;
#[path = "../../../../src/identity/proof.rs"]
pub mod proof;
pub mod sigv4;
pub mod webauthn;
