//! Moments such as `2030-01-31T00:00:00Z` (RFC 3339), as TOML dates or as strings.
//!
//! One without its offset is refused: whose midnight it means must not be guessed.

use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use super::value::{Complaint, FromValue, Node, Value, quoted};

/// Seconds since 1970, 0 for what is before that.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment(pub u64);

impl Moment {
    /// For keys that take a moment.
    ///
    /// # Errors
    /// What is no moment.
    pub fn check(value: &Value) -> Result<(), Complaint> {
        Self::from_value(value).map(|_| ())
    }
}

impl FromValue for Moment {
    fn from_value(value: &Value) -> Result<Self, Complaint> {
        let (Node::Datetime(text) | Node::String(text)) = &value.node else {
            return Err(value.expected("a moment such as `2030-01-31T00:00:00Z`"));
        };
        let moment = OffsetDateTime::parse(text, &Rfc3339).map_err(|_| {
            Complaint::new(format!("{} is not a moment", quoted(text)))
                .hint("date, time and offset, as in `2030-01-31T00:00:00Z`")
        })?;
        Ok(Self(u64::try_from(moment.unix_timestamp()).unwrap_or(0)))
    }
}

#[cfg(test)]
mod tests {
    use super::Moment;
    use crate::config::value::read;

    #[test]
    fn dates_and_strings_with_their_offset() {
        for text in [
            "2001-09-09T01:46:40Z",
            "\"2001-09-09T01:46:40Z\"",
            "2001-09-09 03:46:40.5+02:00",
        ] {
            assert_eq!(read::<Moment>(text), Ok(Moment(1_000_000_000)), "{text}");
        }
        assert_eq!(read::<Moment>("1960-01-01T00:00:00Z"), Ok(Moment(0)));
        for text in [
            "2001-09-09T01:46:40",
            "2001-09-09",
            "\"tomorrow\"",
            "1000000000",
            "\"2001-02-30T00:00:00Z\"",
        ] {
            assert!(read::<Moment>(text).is_err(), "{text}");
        }
    }
}
