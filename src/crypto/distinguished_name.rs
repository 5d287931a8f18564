//! Distinguished names as text (RFC 4514). For certificates and for the rules that name them.
//!
//! A name has one spelling here, so that two are the same name exactly when their texts are equal: most specific part
//! first, short names of the types in capitals as RFC 4514 §3 has them, the members of a part in order, as few escapes
//! as there can be. Values are compared sign by sign: to fold case, as directories may, would let in more than was
//! stated.

use std::{fmt, str::FromStr};

use thiserror::Error;
use x509_parser::x509::{AttributeTypeAndValue, X509Name};

/// Types with a short name: those of RFC 4514 §3, and others that stand in certificates.
const TYPES: [(&str, &str); 14] = [
    ("2.5.4.3", "CN"),
    ("2.5.4.7", "L"),
    ("2.5.4.8", "ST"),
    ("2.5.4.10", "O"),
    ("2.5.4.11", "OU"),
    ("2.5.4.6", "C"),
    ("2.5.4.9", "STREET"),
    ("0.9.2342.19200300.100.1.25", "DC"),
    ("0.9.2342.19200300.100.1.1", "UID"),
    ("1.2.840.113549.1.9.1", "emailAddress"),
    ("2.5.4.5", "serialNumber"),
    ("2.5.4.4", "SN"),
    ("2.5.4.42", "GN"),
    ("2.5.4.12", "title"),
];

/// A name in its one spelling; empty when it has no parts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DistinguishedName(Box<str>);

impl DistinguishedName {
    /// Reads the name of a certificate.
    pub fn of(name: &X509Name<'_>) -> Self {
        let mut parts: Vec<String> = name
            .iter_rdn()
            .map(|part| joined(part.iter().map(attribute).collect()))
            .collect();
        parts.reverse();
        Self(parts.join(",").into())
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for DistinguishedName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// `CN=billing+UID=7`, whatever the order was.
fn joined(mut members: Vec<String>) -> String {
    members.sort_unstable();
    members.join("+")
}

fn attribute(attribute: &AttributeTypeAndValue<'_>) -> String {
    let oid = attribute.attr_type().to_id_string();
    let kind = TYPES
        .iter()
        .find(|(known, _)| *known == oid)
        .map_or(oid.as_str(), |(_, short)| short);
    match attribute.as_str() {
        Ok(text) => format!("{kind}={}", escaped(text)),
        // No rule can state such a value, since a `#` of a text is escaped.
        Err(_) => format!("{kind}=#{}", hex(attribute.as_slice())),
    }
}

/// Lower-case hexadecimal.
pub(super) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;

    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// RFC 4514 §2.4, with control characters in hexadecimal so that no name breaks a line of a log.
fn escaped(value: &str) -> String {
    let last = value.chars().count().saturating_sub(1);
    let mut text = String::with_capacity(value.len());
    for (at, sign) in value.chars().enumerate() {
        let at_end = at == 0 || at == last;
        match sign {
            '"' | '+' | ',' | ';' | '<' | '>' | '\\' => text.extend(['\\', sign]),
            ' ' if at_end => text.push_str("\\ "),
            '#' if at == 0 => text.push_str("\\#"),
            _ if sign.is_ascii_control() => {
                text.push('\\');
                text.push_str(&hex(sign.encode_utf8(&mut [0; 4]).as_bytes()));
            }
            _ => text.push(sign),
        }
    }
    text
}

/// Why a text is not a distinguished name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum NameError {
    /// A part is not `TYPE=value`.
    #[error("a part is not `TYPE=value`")]
    Part,
    /// The type has no known short name and is no number such as `2.5.4.3`.
    #[error("a type is not known")]
    Type,
    /// A value is empty, or has a sign that must be escaped.
    #[error("a value is empty or has a sign that needs a `\\` before it")]
    Value,
}

impl FromStr for DistinguishedName {
    type Err = NameError;

    /// Spaces around `,`, `+` and `=` count for nothing; values in hexadecimal (`#…`) and in quotes are not taken.
    fn from_str(text: &str) -> Result<Self, NameError> {
        let mut parts = Vec::new();
        for part in split(text, ',') {
            let members = split(part, '+').into_iter().map(member);
            parts.push(joined(members.collect::<Result<_, _>>()?));
        }
        Ok(Self(parts.join(",").into()))
    }
}

/// The pieces between separators that no `\` stands before.
fn split(text: &str, separator: char) -> Vec<&str> {
    let mut pieces = Vec::new();
    let (mut start, mut escape) = (0, false);
    for (at, sign) in text.char_indices() {
        if sign == separator && !escape {
            pieces.push(text.get(start..at).unwrap_or_default());
            start = at.saturating_add(sign.len_utf8());
        }
        escape = sign == '\\' && !escape;
    }
    pieces.push(text.get(start..).unwrap_or_default());
    pieces
}

fn member(text: &str) -> Result<String, NameError> {
    let (kind, value) = text.split_once('=').ok_or(NameError::Part)?;
    Ok(format!(
        "{}={}",
        type_of(kind.trim())?,
        escaped(&unescaped(value.trim_start_matches(' '))?)
    ))
}

fn type_of(name: &str) -> Result<&str, NameError> {
    let short = TYPES
        .iter()
        .find(|(oid, short)| *oid == name || short.eq_ignore_ascii_case(name));
    let is_oid = name.contains('.')
        && name
            .split('.')
            .all(|arc| !arc.is_empty() && arc.bytes().all(|byte| byte.is_ascii_digit()));
    match short {
        Some((_, short)) => Ok(short),
        None if is_oid => Ok(name),
        None => Err(NameError::Type),
    }
}

/// The value itself, without spaces behind it that no `\` stands before.
fn unescaped(text: &str) -> Result<String, NameError> {
    let mut bytes = Vec::new();
    let mut kept = 0;
    let mut signs = text.chars();
    if text.starts_with('#') {
        return Err(NameError::Value);
    }
    while let Some(sign) = signs.next() {
        match sign {
            '\\' => {
                bytes.extend(escape(&mut signs)?);
                kept = bytes.len();
            }
            '"' | ';' | '<' | '>' | '\0' => return Err(NameError::Value),
            _ => {
                bytes.extend_from_slice(sign.encode_utf8(&mut [0; 4]).as_bytes());
                if sign != ' ' {
                    kept = bytes.len();
                }
            }
        }
    }
    bytes.truncate(kept);
    let value = String::from_utf8(bytes).map_err(|_| NameError::Value)?;
    if value.is_empty() {
        return Err(NameError::Value);
    }
    Ok(value)
}

/// What follows a `\`: one special sign, or two hexadecimal digits of a byte.
fn escape(signs: &mut std::str::Chars<'_>) -> Result<Vec<u8>, NameError> {
    let first = signs.next().ok_or(NameError::Value)?;
    if " \"#+,;<=>\\".contains(first) {
        return Ok(first.to_string().into_bytes());
    }
    let high = first.to_digit(16).ok_or(NameError::Value)?;
    let low = signs.next().and_then(|sign| sign.to_digit(16));
    let byte = high * 16 + low.ok_or(NameError::Value)?;
    Ok(vec![u8::try_from(byte).map_err(|_| NameError::Value)?])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{DistinguishedName, NameError, escaped, unescaped};

    fn normal(text: &str) -> Result<String, NameError> {
        text.parse::<DistinguishedName>()
            .map(|name| name.as_str().to_owned())
    }

    #[test]
    fn spellings_of_one_name_become_one() {
        // The first four are examples of RFC 4514 §4.
        for (text, expected) in [
            (
                "UID=jsmith,DC=example,DC=net",
                "UID=jsmith,DC=example,DC=net",
            ),
            (
                "OU=Sales+CN=J.  Smith,DC=example,DC=net",
                "CN=J.  Smith+OU=Sales,DC=example,DC=net",
            ),
            (
                r#"CN=James \"Jim\" Smith\, III,DC=example"#,
                r#"CN=James \"Jim\" Smith\, III,DC=example"#,
            ),
            (
                r"CN=Before\0dAfter,DC=example",
                r"CN=Before\0dAfter,DC=example",
            ),
            (r"CN=Lu\C4\8Di\C4\87", "CN=Lučić"),
            ("cn = billing , o = Example", "CN=billing,O=Example"),
            ("2.5.4.3=billing,1.2.3.4=x", "CN=billing,1.2.3.4=x"),
            (r"CN=\ a\ ", r"CN=\ a\ "),
            (r"CN=a\20", r"CN=a\ "),
            (r"CN=\#a=b", r"CN=\#a=b"),
        ] {
            assert_eq!(normal(text).as_deref(), Ok(expected), "{text}");
        }
        assert_ne!(normal("CN=a,O=b"), normal("O=b,CN=a"), "order counts");
        assert_ne!(normal("CN=a"), normal("CN=A"), "case counts");
    }

    #[test]
    fn what_is_no_name_is_refused() {
        for (text, expected) in [
            ("", NameError::Part),
            ("billing", NameError::Part),
            ("CN=a,", NameError::Part),
            ("CN=a,,O=b", NameError::Part),
            ("CN=a/O=b,x", NameError::Part),
            ("NAME=a", NameError::Type),
            ("=a", NameError::Type),
            ("1..2=a", NameError::Type),
            ("CN=", NameError::Value),
            ("CN=  ,O=b", NameError::Value),
            ("CN=\"a\"", NameError::Value),
            ("CN=a;O=b", NameError::Value),
            ("CN=#0403666f6f", NameError::Value),
            (r"CN=a\", NameError::Value),
            (r"CN=\ff", NameError::Value),
            (r"CN=\x", NameError::Value),
        ] {
            assert_eq!(normal(text), Err(expected), "{text}");
        }
    }

    #[test]
    fn no_blank_but_the_space_is_taken_off() {
        for name in ["CN=\u{a0}a\u{a0}", "CN=\u{3000}"] {
            assert_eq!(normal(name), Ok(name.to_owned()));
        }
        assert_eq!(normal("CN=  a  "), Ok("CN=a".to_owned()));
    }

    proptest! {
        #[test]
        fn escaping_loses_nothing(value in "\\PC{1,20}|[ #+,;<>\\\\\"=\\x00-\\x1f]{1,8}") {
            prop_assert_eq!(unescaped(&escaped(&value)), Ok(value.clone()));
            let name = format!("CN={},O=x", escaped(&value));
            prop_assert_eq!(normal(&name), Ok(name.clone()));
        }

        #[test]
        fn a_normal_name_stays_as_it_is(text in "[ -~]{0,40}") {
            if let Ok(name) = normal(&text) {
                prop_assert_eq!(normal(&name), Ok(name.clone()));
            }
        }
    }
}
