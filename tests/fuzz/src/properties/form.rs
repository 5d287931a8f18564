//! A form has one reading: a field that is there once, decoded, or a refusal; and what is encoded comes back.
//!
//! An input is the text of a form. The reader below decodes octet by octet (URL Standard §5.1).

use std::fmt::Write;

use portcullis::wire::form::{FormError, field};

/// Holds an input against the properties.
pub fn hold(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    for name in ["code", "rt", ""] {
        assert_eq!(field(text, name), read(text, name), "{name}");
    }
    let mut encoded = "code=".to_owned();
    for octet in text.bytes() {
        let _ = write!(encoded, "%{octet:02x}");
    }
    assert_eq!(field(&encoded, "code"), Ok(Some(text.to_owned())));
    assert_eq!(
        field(&format!("{encoded}&code"), "code"),
        Err(FormError::Repeated)
    );
}

fn read(text: &str, name: &str) -> Result<Option<String>, FormError> {
    let mut found = None;
    for pair in text.as_bytes().split(|&octet| octet == b'&') {
        let at = pair.iter().position(|&octet| octet == b'=');
        let (key, value) = at.map_or((pair, &[][..]), |at| (&pair[..at], &pair[at + 1..]));
        if decoded(key)? != name {
            continue;
        }
        let value = decoded(value)?;
        if found.is_some() {
            return Err(FormError::Repeated);
        }
        found = Some(value);
    }
    Ok(found)
}

fn decoded(text: &[u8]) -> Result<String, FormError> {
    let mut out = Vec::new();
    let mut rest = text;
    while let Some((&first, after)) = rest.split_first() {
        let digits = after.get(..2).and_then(|two| std::str::from_utf8(two).ok());
        let is_hex = |two: &&str| two.bytes().all(|digit| digit.is_ascii_hexdigit());
        rest = after;
        match (first, digits.filter(is_hex)) {
            (b'%', Some(two)) => {
                out.push(u8::from_str_radix(two, 16).expect("two hexadecimal digits"));
                rest = &after[2..];
            }
            (b'+', _) => out.push(b' '),
            (octet, _) => out.push(octet),
        }
    }
    String::from_utf8(out).map_err(|_| FormError::Malformed)
}
