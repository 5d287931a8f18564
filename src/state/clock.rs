//! The process clock: monotonic time since the first look, and wall time.
//!
//! Asking the system costs as much as a policy does, so whoever holds a reading of the same moment, such as the arrival
//! of its request, has it converted here.

use std::{
    cell::Cell,
    sync::OnceLock,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

/// How long the wall clock is believed to run as the monotonic one does.
const IN_STEP: Duration = Duration::from_millis(100);

static START: OnceLock<Instant> = OnceLock::new();

/// Time since the process first asked.
pub fn since_start() -> Duration {
    START.get_or_init(Instant::now).elapsed()
}

/// [`now_ns`] as it was at this moment.
pub fn ns_at(moment: Instant) -> u64 {
    let since = moment.saturating_duration_since(*START.get_or_init(Instant::now));
    u64::try_from(since.as_nanos())
        .unwrap_or(u64::MAX)
        .saturating_add(1)
}

/// The wall time of a moment near now. The wall clock itself is asked ten times a second, so that a clock that was set
/// shows within that time.
pub fn wall_at(moment: Instant) -> SystemTime {
    thread_local! {
        static PAIR: Cell<Option<(Instant, SystemTime)>> = const { Cell::new(None) };
    }
    let known = PAIR.get().and_then(|pair| wall_by(pair, moment));
    known.unwrap_or_else(|| {
        let pair = (Instant::now(), SystemTime::now());
        PAIR.set(Some(pair));
        let ago = pair.0.saturating_duration_since(moment);
        pair.1.checked_sub(ago).unwrap_or(UNIX_EPOCH)
    })
}

/// The wall time of a moment that is not far from one at which both clocks were read.
fn wall_by((monotonic, wall): (Instant, SystemTime), moment: Instant) -> Option<SystemTime> {
    match moment.checked_duration_since(monotonic) {
        Some(after) if after < IN_STEP => wall.checked_add(after),
        Some(_) => None,
        None => {
            let before = monotonic.duration_since(moment);
            (before < IN_STEP).then(|| wall.checked_sub(before))?
        }
    }
}

/// Seconds since 1970 at a moment near now; see [`unix_seconds`].
pub fn unix_seconds_at(moment: Instant) -> u64 {
    seconds(wall_at(moment))
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
    seconds(SystemTime::now())
}

fn seconds(wall: SystemTime) -> u64 {
    wall.duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wall_time_of_a_moment_is_that_moment_s() {
        let (moment, wall) = (Instant::now(), SystemTime::now());
        let slack = Duration::from_millis(500);
        for away in [0, 1, 99, 100, 101, 5_000].map(Duration::from_millis) {
            let earlier = wall_at(moment.checked_sub(away).unwrap());
            let expected = wall - away;
            assert!(earlier > expected - slack && earlier < expected + slack);
        }
        assert!(unix_seconds_at(moment).abs_diff(unix_seconds()) <= 1);
    }

    #[test]
    fn two_readings_far_from_a_moment_say_nothing_of_it() {
        let pair = (
            Instant::now() + Duration::from_mins(1),
            UNIX_EPOCH + Duration::from_hours(1),
        );
        for (away, ms) in [(0, 0), (99, 99)] {
            let away = Duration::from_millis(away);
            let off = Duration::from_millis(ms);
            assert_eq!(wall_by(pair, pair.0 + away), Some(pair.1 + off));
            assert_eq!(
                wall_by(pair, pair.0.checked_sub(away).unwrap()),
                Some(pair.1 - off)
            );
        }
        let far = Duration::from_millis(100);
        assert_eq!(wall_by(pair, pair.0 + far), None);
        assert_eq!(wall_by(pair, pair.0.checked_sub(far).unwrap()), None);
    }

    #[test]
    fn nanoseconds_of_a_moment_are_those_read_then() {
        let (before, moment, after) = (now_ns(), Instant::now(), now_ns());
        assert!((before..=after).contains(&ns_at(moment)));
    }
}
