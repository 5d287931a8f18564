//! What must hold of each parser, whatever the input. A property that does not hold panics.
//!
//! The one source for the fuzz targets and for the test that runs every kept input. Each has a plain reader of its own
//! to compare with, written for clarity alone.

pub mod chunked;
pub mod cookie;
pub mod dpop;
pub mod form;
pub mod forwarded;
pub mod head;
pub mod http_signature;
pub mod jws;
mod messages;
mod parser;
pub mod sigv4;
pub mod target;
pub mod webauthn;
