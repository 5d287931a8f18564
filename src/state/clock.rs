//! The process clock: monotonic time since the first look, and wall time in whole seconds.

use std::{
    sync::OnceLock,
    time::{Instant, SystemTime, UNIX_EPOCH},
};

/// Time since the process first asked.
pub fn since_start() -> std::time::Duration {
    static START: OnceLock<Instant> = OnceLock::new();
    START.get_or_init(Instant::now).elapsed()
}

/// Monotonic milliseconds, starting at 1 so that 0 can mean "never".
pub fn now_ms() -> u64 {
    u64::try_from(since_start().as_millis())
        .unwrap_or(u64::MAX)
        .saturating_add(1)
}

/// Monotonic nanoseconds, starting at 1 so that 0 can mean "never". Lasts 584 years.
pub fn now_ns() -> u64 {
    u64::try_from(since_start().as_nanos())
        .unwrap_or(u64::MAX)
        .saturating_add(1)
}

/// Seconds since 1970, as tokens count them. 0 on a clock set before that.
pub fn unix_seconds() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}
