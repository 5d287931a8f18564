//! The one place that sleeps: polling until something holds, with a deadline.

use std::time::{Duration, Instant};

/// How long the tests wait for something that should happen at once; generous, since machines are shared.
pub const SOON: Duration = Duration::from_secs(10);

/// Polls `probe` until it gives a value, and panics with `what` when `SOON` has passed without one.
pub fn eventually<T>(what: &str, probe: impl FnMut() -> Option<T>) -> T {
    eventually_within(SOON, what, probe)
}

/// Polls `probe` until it gives a value, and panics with `what` when `deadline` has passed without one.
pub fn eventually_within<T>(
    deadline: Duration,
    what: &str,
    mut probe: impl FnMut() -> Option<T>,
) -> T {
    let start = Instant::now();
    loop {
        if let Some(value) = probe() {
            return value;
        }
        assert!(
            start.elapsed() < deadline,
            "{what}: not within {deadline:?}"
        );
        eventually_pause(Duration::from_millis(10));
    }
}

/// Lets `time` pass where the case is about time itself (an expiry, a window, a slow peer).
#[expect(
    clippy::disallowed_methods,
    reason = "a test thread waits here, no worker does"
)]
pub fn eventually_pause(time: Duration) {
    std::thread::sleep(time); // the only sleep, within eventually
}
