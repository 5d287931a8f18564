//! Fields of a form or a query (`application/x-www-form-urlencoded`, URL Standard §5.1): for the gate's own pages.
//!
//! A field that stands twice could mean either, and what is not UTF-8 behind its escapes means nothing: both are refused.

use percent_encoding::percent_decode;
use thiserror::Error;

/// Why a field has no value.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum FormError {
    /// It stands twice.
    #[error("a field stands twice")]
    Repeated,
    /// Not UTF-8.
    #[error("a field is not UTF-8")]
    Malformed,
}

/// The value of a field; `None` where it does not stand.
///
/// # Errors
/// See [`FormError`].
pub fn field(form: &str, name: &str) -> Result<Option<String>, FormError> {
    let mut found = None;
    for pair in form.split('&') {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        if decoded(key)? != name {
            continue;
        }
        if found.replace(decoded(value)?).is_some() {
            return Err(FormError::Repeated);
        }
    }
    Ok(found)
}

fn decoded(text: &str) -> Result<String, FormError> {
    let spaced = text.replace('+', " ");
    let decoded = percent_decode(spaced.as_bytes()).decode_utf8();
    decoded
        .map(std::borrow::Cow::into_owned)
        .map_err(|_| FormError::Malformed)
}

#[cfg(test)]
mod tests {
    use super::{FormError, field};

    #[test]
    fn fields_are_read_once_and_decoded() {
        let read = |form| field(form, "code");
        assert_eq!(read("code=123456&rt=x"), Ok(Some("123456".to_owned())));
        assert_eq!(read("a=b&code=123+456%21"), Ok(Some("123 456!".to_owned())));
        assert_eq!(read("c%6fde=1"), Ok(Some("1".to_owned())));
        assert_eq!(read("code"), Ok(Some(String::new())));
        assert_eq!(read(""), Ok(None));
        assert_eq!(read("CODE=1"), Ok(None));
        assert_eq!(read("code=1&code=1"), Err(FormError::Repeated));
        assert_eq!(read("code=1&c%6Fde=2"), Err(FormError::Repeated));
        assert_eq!(read("code=%ff"), Err(FormError::Malformed));
        assert_eq!(read("%ff=1"), Err(FormError::Malformed));
    }
}
