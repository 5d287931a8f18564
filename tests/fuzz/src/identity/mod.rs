//! The parts of the program's room of this name that read requests, and know nothing of keys.

pub mod http_signature;
#[path = "../../../../src/identity/message.rs"]
pub mod message;
pub mod sigv4;
