//! Structured fields: the few that every answer may need, written without a detour (RFC 9651 §4.1).
//!
//! For `RateLimit` and `RateLimit-Policy` (draft-ietf-httpapi-ratelimit-headers): a list of strings with integer
//! parameters, `"default";q=100;w=60`. [`read`] has the whole of the format, for fields that clients send.

pub mod read;
mod value;

use bytes::{BufMut, BytesMut};

/// The largest integer of a structured field (RFC 9651 §3.3.1).
const LARGEST: u64 = 999_999_999_999_999;

/// A text that a structured field cannot hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected printable ASCII only")]
pub struct NotPrintable;

/// A string item, checked and quoted once so that writing it is a copy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Quoted(Box<str>);

impl Quoted {
    /// Quotes and escapes a text.
    ///
    /// # Errors
    /// [`NotPrintable`] for anything outside of 0x20–0x7e.
    pub fn new(text: &str) -> Result<Self, NotPrintable> {
        let mut quoted = String::with_capacity(text.len() + 2);
        quoted.push('"');
        for character in text.chars() {
            match character {
                '"' | '\\' => quoted.push('\\'),
                ' '..='~' => {}
                _ => return Err(NotPrintable),
            }
            quoted.push(character);
        }
        quoted.push('"');
        Ok(Self(quoted.into_boxed_str()))
    }

    /// The item as it is written, quotes included.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Appends a member to a list: a comma where one is due, then the item.
pub fn push_member(out: &mut BytesMut, item: &Quoted) {
    if !out.is_empty() {
        out.put_slice(b", ");
    }
    out.put_slice(item.0.as_bytes());
}

/// Appends an integer parameter to the last member; what exceeds fifteen digits is capped there.
///
/// `key` is ours, never from outside: lower case, digits, `_`, `-`, `.`, `*`, led by a letter or `*` (see [`is_key`]).
pub fn push_parameter(out: &mut BytesMut, key: &'static str, value: u64) {
    debug_assert!(is_key(key), "a key of ours is well-formed");
    out.put_u8(b';');
    out.put_slice(key.as_bytes());
    out.put_u8(b'=');
    let mut digits = itoa::Buffer::new();
    out.put_slice(digits.format(value.min(LARGEST)).as_bytes());
}

/// Whether a text may be the key of a parameter or dictionary member (RFC 9651 §3.1.2).
pub fn is_key(text: &str) -> bool {
    let mut bytes = text.bytes();
    bytes
        .next()
        .is_some_and(|first| matches!(first, b'a'..=b'z' | b'*'))
        && bytes.all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-' | b'.' | b'*'))
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;

    use super::{NotPrintable, Quoted, is_key, push_member, push_parameter};

    #[test]
    fn b45_the_fields_of_a_rate_limit() {
        let mut out = BytesMut::new();
        push_member(&mut out, &Quoted::new("default").expect("printable"));
        push_parameter(&mut out, "q", 100);
        push_parameter(&mut out, "w", 60);
        assert_eq!(out, r#""default";q=100;w=60"#);
        push_member(&mut out, &Quoted::new("daily").expect("printable"));
        push_parameter(&mut out, "q", u64::MAX);
        assert_eq!(out, r#""default";q=100;w=60, "daily";q=999999999999999"#);
    }

    #[test]
    fn strings_are_escaped_or_refused() {
        let quoted = Quoted::new(r#"a "b" \c"#).expect("printable");
        assert_eq!(quoted.as_str(), r#""a \"b\" \\c""#);
        for text in ["ä", "a\n", "\u{7f}", "a\0"] {
            assert_eq!(Quoted::new(text), Err(NotPrintable));
        }
    }

    #[test]
    fn keys_are_checked() {
        for key in ["q", "*a", "a-b_c.d*1"] {
            assert!(is_key(key), "{key}");
        }
        for key in ["", "A", "1a", "a b", "-a", "ä"] {
            assert!(!is_key(key), "{key}");
        }
    }
}
