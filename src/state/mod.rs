//! What survives a reload: limiters, bans, key sets, verified tokens.

pub mod bans;
pub mod clock;
pub mod keys;
pub mod limiter;
pub mod load;
pub mod registry;
pub mod tokens;
