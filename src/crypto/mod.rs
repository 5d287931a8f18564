//! Random bytes, hashes and secrets.
