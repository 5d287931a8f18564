//! What message signatures say of themselves, and the text that they are of.

#[path = "../../../../src/identity/http_signature/base.rs"]
pub mod base;
#[path = "../../../../src/identity/http_signature/input.rs"]
pub mod input;
