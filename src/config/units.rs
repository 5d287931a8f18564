//! Durations such as `30s` and sizes such as `64KiB`.
//!
//! Bare numbers are refused: whether `30` means seconds or milliseconds must not be guessed.

use std::fmt;
use std::time::Duration;

use super::value::{Complaint, FromValue, Node, Value, quoted, text_of};

const DURATION: &str = "a duration such as `30s`";
const DURATION_HINT: &str = "units are ms, s, m, h and d, as in `500ms`, `1h30m` or `365d`";
const SIZE: &str = "a size such as `64KiB`";
const SIZE_HINT: &str = "units are B, KB, MB, GB, KiB, MiB and GiB, as in `512B` or `10MiB`";
/// Longer ones are typing errors, and would overflow clocks.
const LONGEST: Duration = Duration::from_hours(100 * 365 * 24);

impl FromValue for Duration {
    fn from_value(value: &Value) -> Result<Self, Complaint> {
        if let Node::Integer(number) = value.node {
            return Err(value
                .expected(DURATION)
                .hint(format!("with its unit: `\"{}s\"`", number.max(0))));
        }
        let text = text_of(value, DURATION)?;
        let complaint =
            || Complaint::new(format!("{} is not a duration", quoted(text))).hint(DURATION_HINT);
        let duration = duration(text).ok_or_else(complaint)?;
        if duration > LONGEST {
            return Err(Complaint::new(format!(
                "{} is longer than 100 years",
                quoted(text)
            )));
        }
        Ok(duration)
    }
}

/// Parts from the larger unit to the smaller, each at most once.
fn duration(text: &str) -> Option<Duration> {
    let mut rest = text;
    let mut total = Duration::ZERO;
    let mut last_ms = u64::MAX;
    while !rest.is_empty() {
        let (number, unit, after) = number_and_unit(rest)?;
        let unit_ms = match unit {
            "ms" => 1,
            "s" => 1000,
            "m" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            _ => return None,
        };
        if unit_ms >= last_ms {
            return None;
        }
        last_ms = unit_ms;
        total = total.checked_add(Duration::from_millis(number.checked_mul(unit_ms)?))?;
        rest = after;
    }
    (!text.is_empty()).then_some(total)
}

fn number_and_unit(text: &str) -> Option<(u64, &str, &str)> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, rest) = text.split_at_checked(digits)?;
    let letters = rest.bytes().take_while(u8::is_ascii_alphabetic).count();
    let (unit, after) = rest.split_at_checked(letters)?;
    Some((number.parse().ok()?, unit, after))
}

/// A number of bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Bytes(pub u64);

impl Bytes {
    /// The number for memory and buffers; saturates where the machine's words are too short.
    pub fn as_usize(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }
}

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unit = [(1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
        match unit
            .into_iter()
            .find(|(size, _)| self.0 >= *size && self.0.is_multiple_of(*size))
        {
            Some((size, name)) => write!(f, "{}{name}", self.0 / size),
            None => write!(f, "{}B", self.0),
        }
    }
}

impl FromValue for Bytes {
    fn from_value(value: &Value) -> Result<Self, Complaint> {
        if let Node::Integer(number) = value.node {
            return Err(value
                .expected(SIZE)
                .hint(format!("with its unit: `\"{}B\"`", number.max(0))));
        }
        let text = text_of(value, SIZE)?;
        size(text).map(Self).ok_or_else(|| {
            Complaint::new(format!("{} is not a size", quoted(text))).hint(SIZE_HINT)
        })
    }
}

fn size(text: &str) -> Option<u64> {
    let (number, unit, after) = number_and_unit(text)?;
    let factor: u64 = match unit {
        "B" => 1,
        "KB" => 1000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        _ => return None,
    };
    if after.is_empty() {
        number.checked_mul(factor)
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::{Bytes, duration, size};
    use crate::config::value::read;
    use std::time::Duration;

    #[test]
    fn durations() {
        assert_eq!(duration("500ms"), Some(Duration::from_millis(500)));
        assert_eq!(duration("1h30m"), Some(Duration::from_mins(90)));
        assert_eq!(duration("365d"), Some(Duration::from_hours(365 * 24)));
        assert_eq!(duration("0s"), Some(Duration::ZERO));
        for bad in [
            "",
            "s",
            "30",
            "30 s",
            " 30s",
            "-1s",
            "+1s",
            "1.5s",
            "30S",
            "1s1s",
            "1m1h",
            "1w",
            "99999999999999999d",
            "18446744073709551616ms",
            "３０s",
            "1s\n",
            "1e3s",
        ] {
            assert_eq!(duration(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn sizes() {
        assert_eq!(
            (size("64KiB"), size("10MB"), size("0B")),
            (Some(65536), Some(10_000_000), Some(0))
        );
        for bad in [
            "",
            "64",
            "64K",
            "64kib",
            "1.5MiB",
            "-1B",
            "1B1B",
            "1 B",
            "18446744073709551615KiB",
        ] {
            assert_eq!(size(bad), None, "{bad:?}");
        }
        assert_eq!(
            (
                Bytes(65536).to_string(),
                Bytes(1000).to_string(),
                Bytes(0).to_string()
            ),
            ("64KiB".into(), "1000B".into(), "0B".into())
        );
    }

    #[test]
    fn numbers_without_unit_are_refused_with_the_way_to_write_them() {
        let complaint = read::<Duration>("30").unwrap_err();
        assert_eq!(
            complaint.message,
            "expected a duration such as `30s`, found the integer `30`"
        );
        assert_eq!(complaint.hint.as_deref(), Some("with its unit: `\"30s\"`"));
        assert_eq!(
            read::<Bytes>("64").unwrap_err().hint.as_deref(),
            Some("with its unit: `\"64B\"`")
        );
        assert!(
            read::<Duration>("\"36501d\"").is_err(),
            "longer than 100 years"
        );
        assert!(
            read::<Duration>("[]").is_err() && read::<Duration>("-9223372036854775808").is_err()
        );
    }
}
