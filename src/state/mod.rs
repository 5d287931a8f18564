//! What survives a reload: limiters, key sets, verified tokens.

pub mod limiter;
