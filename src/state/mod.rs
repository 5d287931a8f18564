//! What survives a reload: limiters, bans, key sets, verified tokens, sessions, room for bodies, and what must not be shown
//! twice.

pub mod bans;
pub mod clock;
pub mod keys;
pub mod limiter;
pub mod load;
pub mod nonces;
pub mod registry;
pub mod replay;
pub mod sessions;
pub mod spool;
pub mod tokens;
pub mod tries;
