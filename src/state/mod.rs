//! What survives a reload: limiters, key sets, verified tokens.

pub mod keys;
pub mod limiter;
pub mod tokens;
