//! The plain types that a value can be read as: numbers, texts, lists, and the words of HTTP (RFC 9110 §5, §9).
//!
//! Types with a grammar of their own have their own files: `units`, `moment`, `network`, `address`, `url`, `secret`.

use super::place::At;
use super::value::{Complaint, FromValue, Node, Value, quoted, text_of};

/// One value or a list of them, always a list here.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OneOrMany<T>(pub Vec<T>);

impl<T: FromValue> FromValue for OneOrMany<T> {
    fn from_value(value: &Value) -> Result<Self, Complaint> {
        match &value.node {
            Node::Array(_) => Vec::from_value(value).map(Self),
            _ => Ok(Self(vec![T::from_value(value)?])),
        }
    }
}

impl<T: FromValue> FromValue for Vec<T> {
    fn from_value(value: &Value) -> Result<Self, Complaint> {
        let values = value
            .as_array()
            .ok_or_else(|| value.expected("a list").hint("write it in brackets, `[…]`"))?;
        values
            .iter()
            .map(|value| T::from_value(value).map_err(|complaint| within(value.at, complaint)))
            .collect()
    }
}

fn within(at: At, complaint: Complaint) -> Complaint {
    Complaint {
        at: complaint.at.or(Some(at)),
        ..complaint
    }
}

impl FromValue for bool {
    fn from_value(value: &Value) -> Result<Self, Complaint> {
        match &value.node {
            Node::Bool(flag) => Ok(*flag),
            Node::String(text) if text == "true" || text == "false" => Err(value
                .expected("`true` or `false`")
                .hint("write it without quotes")),
            _ => Err(value.expected("`true` or `false`")),
        }
    }
}

impl FromValue for i64 {
    fn from_value(value: &Value) -> Result<Self, Complaint> {
        match value.node {
            Node::Integer(number) => Ok(number),
            _ => Err(value.expected("an integer")),
        }
    }
}

macro_rules! unsigned {
    ($($kind:ty),*) => {$(
        impl FromValue for $kind {
            fn from_value(value: &Value) -> Result<Self, Complaint> {
                let number = i64::from_value(value)?;
                Self::try_from(number).map_err(|_| {
                    let most = Self::try_from(i64::MAX).unwrap_or(Self::MAX);
                    Complaint::new(format!("`{number}` is not between 0 and {most}"))
                })
            }
        }
    )*};
}
unsigned!(u16, u32, u64, usize);

impl FromValue for f64 {
    fn from_value(value: &Value) -> Result<Self, Complaint> {
        let number = match value.node {
            Node::Float(number) => number,
            // Through the text: `as` is banned, and whole numbers of this size come out exact.
            Node::Integer(number) => number.to_string().parse().unwrap_or(Self::NAN),
            _ => return Err(value.expected("a number")),
        };
        if number.is_finite() {
            Ok(number)
        } else {
            Err(Complaint::new(format!("`{number}` is not a finite number")))
        }
    }
}

impl FromValue for String {
    fn from_value(value: &Value) -> Result<Self, Complaint> {
        value
            .as_str()
            .map(ToOwned::to_owned)
            .ok_or_else(|| value.expected("a string"))
    }
}

impl FromValue for http::HeaderName {
    fn from_value(value: &Value) -> Result<Self, Complaint> {
        let text = text_of(value, "a header name")?;
        Self::from_bytes(text.as_bytes()).map_err(|_| {
            Complaint::new(format!("{} is not a header name", quoted(text)))
                .hint("letters, digits and `-`, without a colon")
        })
    }
}

impl FromValue for http::HeaderValue {
    fn from_value(value: &Value) -> Result<Self, Complaint> {
        let text = text_of(value, "a header value")?;
        if text.trim() != text {
            return Err(Complaint::new(
                "a header value must not begin or end with white space",
            ));
        }
        let refused = |(start, character): (usize, char)| {
            let shown = quoted(&character.to_string());
            Complaint::new(format!("a header value cannot hold {shown}"))
                .hint("printable ASCII only, on one line")
                .at(value.inside(start..start + character.len_utf8()))
        };
        // Narrower than the type, which lets bytes above ASCII pass that no two programs read alike.
        let mut characters = text.char_indices();
        match characters.find(|(_, character)| !matches!(character, ' '..='~' | '\t')) {
            Some(bad) => Err(refused(bad)),
            None => Self::from_str(text).map_err(|_| refused((0, '?'))),
        }
    }
}

impl FromValue for http::Method {
    fn from_value(value: &Value) -> Result<Self, Complaint> {
        let text = text_of(value, "an HTTP method")?;
        let complaint = || Complaint::new(format!("{} is not an HTTP method", quoted(text)));
        let upper = text.to_ascii_uppercase();
        let method =
            Self::from_bytes(upper.as_bytes()).map_err(|_| complaint().hint("such as `GET`"))?;
        if upper == text {
            Ok(method)
        } else {
            Err(complaint().hint(format!("methods are upper-case: `{upper}`")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::OneOrMany;
    use crate::config::value::read;

    #[test]
    fn plain_types() {
        assert_eq!(read::<bool>("true"), Ok(true));
        assert_eq!(
            read::<bool>("\"true\"").unwrap_err().hint.as_deref(),
            Some("write it without quotes")
        );
        assert_eq!(read::<u16>("65535"), Ok(65535));
        assert_eq!(
            read::<u16>("65536").unwrap_err().message,
            "`65536` is not between 0 and 65535"
        );
        assert!(read::<u64>("-1").is_err() && read::<u32>("1.0").is_err());
        assert_eq!(read::<f64>("1"), Ok(1.0));
        assert!(read::<f64>("inf").is_err() && read::<f64>("nan").is_err());
        assert_eq!(
            read::<String>("1").unwrap_err().message,
            "expected a string, found the integer `1`"
        );
    }

    #[test]
    fn lists_point_at_the_bad_element() {
        assert_eq!(read::<Vec<u16>>("[1, 2]"), Ok(vec![1, 2]));
        let complaint = read::<Vec<u16>>("[1, \"2\"]").unwrap_err();
        assert_eq!(complaint.at.map(|at| (at.start, at.end)), Some((8, 11)));
        assert!(read::<Vec<u16>>("1").is_err(), "one value is no list");
        assert_eq!(read::<OneOrMany<u16>>("1"), Ok(OneOrMany(vec![1])));
        assert_eq!(read::<OneOrMany<u16>>("[]"), Ok(OneOrMany(vec![])));
    }

    #[test]
    fn words_of_http() {
        assert_eq!(
            read::<http::HeaderName>("\"X-Backend\"").map(|name| name.to_string()),
            Ok("x-backend".into())
        );
        for bad in ["\"\"", "\"X Y\"", "\"X:\"", "\"X\\r\\n\"", "\"ü\""] {
            assert!(read::<http::HeaderName>(bad).is_err(), "{bad}");
        }
        assert!(read::<http::HeaderValue>("\"max-age=1; x\"").is_ok());
        for bad in [
            "\"a\\r\\nSet-Cookie: x\"",
            "\"a\\u0000\"",
            "\"ü\"",
            "\" a\"",
            "\"a\\u007f\"",
        ] {
            assert!(read::<http::HeaderValue>(bad).is_err(), "{bad}");
        }
        assert_eq!(read::<http::Method>("\"GET\""), Ok(http::Method::GET));
        assert_eq!(
            read::<http::Method>("\"get\"").unwrap_err().hint.as_deref(),
            Some("methods are upper-case: `GET`")
        );
        assert!(read::<http::Method>("\"GET \"").is_err() && read::<http::Method>("\"\"").is_err());
    }
}
