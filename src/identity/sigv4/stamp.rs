//! Dates of requests: `20150830T123600Z`, or that of HTTP (RFC 9110 §5.6.7) in a `Date` field.

use time::{Date, Month, PrimitiveDateTime, Time, format_description::well_known::Rfc2822};

/// A moment, as seconds since 1970 and as it is signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Stamp {
    /// Seconds since 1970.
    pub(super) seconds: u64,
    /// `20150830T123600Z`
    pub(super) text: String,
}

impl Stamp {
    /// Reads the form of AWS.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (date, time) = text.strip_suffix('Z')?.split_once('T')?;
        if date.len() != 8 || time.len() != 6 {
            return None;
        }
        let month = Month::try_from(number(date.get(4..6)?)?).ok()?;
        let year = date
            .get(..4)
            .filter(|year| is_digits(year))?
            .parse::<i32>()
            .ok()?;
        let date = Date::from_calendar_date(year, month, number(date.get(6..)?)?).ok()?;
        let (hour, minute) = (number(time.get(..2)?)?, number(time.get(2..4)?)?);
        let time = Time::from_hms(hour, minute, number(time.get(4..)?)?).ok()?;
        let moment = PrimitiveDateTime::new(date, time).assume_utc();
        Some(Self {
            seconds: u64::try_from(moment.unix_timestamp()).ok()?,
            text: text.to_owned(),
        })
    }

    /// Reads a `Date` field, in either form.
    pub(super) fn of_http(text: &str) -> Option<Self> {
        if let Some(stamp) = Self::parse(text) {
            return Some(stamp);
        }
        let moment = time::OffsetDateTime::parse(text, &Rfc2822).ok()?;
        let moment = moment.to_offset(time::UtcOffset::UTC);
        let (date, time) = (moment.date(), moment.time());
        Self::parse(&format!(
            "{:04}{:02}{:02}T{:02}{:02}{:02}Z",
            date.year(),
            u8::from(date.month()),
            date.day(),
            time.hour(),
            time.minute(),
            time.second()
        ))
    }

    /// `20150830`
    pub(super) fn day(&self) -> &str {
        self.text.get(..8).unwrap_or_default()
    }
}

fn number(digits: &str) -> Option<u8> {
    is_digits(digits).then(|| digits.parse().ok())?
}

fn is_digits(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::Stamp;

    #[test]
    fn both_forms_are_the_same_moment() {
        let stamp = Stamp::parse("20150830T123600Z").unwrap();
        assert_eq!((stamp.seconds, stamp.day()), (1_440_938_160, "20150830"));
        let http = Stamp::of_http("Sun, 30 Aug 2015 12:36:00 GMT").unwrap();
        assert_eq!(http, stamp);
        assert_eq!(Stamp::of_http("20150830T123600Z"), Some(stamp));
    }

    #[test]
    fn nothing_else_is_a_date() {
        for bad in [
            "",
            "20150830T123600",
            "20150830T123600z",
            "20150830T1236Z",
            "20151330T123600Z",
            "20150230T123600Z",
            "20150830T253600Z",
            "+0150830T123600Z",
            "2015083éT12360Z",
            "19690830T123600Z",
            "20150830T123600ZZ",
        ] {
            assert_eq!(Stamp::parse(bad), None, "{bad}");
        }
        assert_eq!(Stamp::of_http("yesterday"), None);
    }
}
