//! The rooms that the targets look at, compiled alone, and the properties that must hold of them.
//!
//! The sources are those of the program, taken by their paths: a target then has nothing in it but parsers, builds in a
//! minute and runs fast, since the engine walks over the counters of all that is linked. `tests/it/corpus.rs` runs the
//! same properties over the kept inputs, against the program's own crate.

// The properties name the crate under test as the program's tests do.
extern crate self as portcullis;

#[path = "../../../src/wire/mod.rs"]
pub mod wire;

#[path = "../../../src/server/screen/mod.rs"]
pub mod screen;

#[path = "../../../src/crypto/hex.rs"]
pub mod hex;

/// The part of the ciphers that has no keys.
pub mod crypto {
    pub use super::hex;
}

pub mod identity;

/// The part of the server that reads bytes.
pub mod server {
    pub use super::screen;
}

pub mod properties;
