//! What RFC 9113 §8 calls malformed and the HTTP/2 library lets pass.
//!
//! For the normal form. The library itself refuses names that are not in lower case or hold what no name may, values with
//! NUL, CR or LF, fields of one connection, pseudo-header fields that are unknown, doubled, missing, out of place or not
//! for requests, and lengths that are no numbers or not kept. It cannot be asked for a `:path` as it came: a fragment has
//! been cut off by then, so `/a#b` is judged, and forwarded, as `/a`.

use http::{HeaderMap, Uri, header, header::HeaderValue};

/// Why a request over HTTP/2 is refused. All of them are answered with 400.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Http2Error {
    /// A value that begins or ends with a space or a tab: the next hop, in HTTP/1.1, would read it without (§8.2.1).
    #[error("a field value between spaces")]
    PaddedValue,
    /// More than one `content-length`, even of the same number (§8.1.1; RFC 9110 §8.6).
    #[error("more than one length")]
    TwoLengths,
    /// No `:path` (§8.3.1); beside a `host` and without `:authority` the library takes it for `/`.
    #[error("no path")]
    NoPath,
}

/// Refuses what the library let pass.
///
/// # Errors
/// The first [`Http2Error`] that is met.
pub fn check(uri: &Uri, headers: &HeaderMap) -> Result<(), Http2Error> {
    if headers.values().any(is_padded) {
        return Err(Http2Error::PaddedValue);
    }
    if headers
        .get_all(header::CONTENT_LENGTH)
        .iter()
        .nth(1)
        .is_some()
    {
        return Err(Http2Error::TwoLengths);
    }
    if uri.authority().is_none() && uri.clone().into_parts().path_and_query.is_none() {
        return Err(Http2Error::NoPath);
    }
    Ok(())
}

fn is_padded(value: &HeaderValue) -> bool {
    let is_space = |byte: &u8| matches!(byte, b' ' | b'\t');
    let bytes = value.as_bytes();
    bytes.first().is_some_and(is_space) || bytes.last().is_some_and(is_space)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(uri: &str, fields: &[(&'static str, &'static str)]) -> Result<(), Http2Error> {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, HeaderValue::from_static(value));
        }
        let uri = if uri.is_empty() {
            Uri::from_parts(http::uri::Parts::default()).unwrap()
        } else {
            uri.parse().unwrap()
        };
        check(&uri, &headers)
    }

    #[test]
    fn sound_requests_pass() {
        let whole = "https://app.example/a";
        assert_eq!(judged(whole, &[]), Ok(()));
        assert_eq!(judged("/a", &[("host", "app.example")]), Ok(()));
        for value in ["", "a", "a b", "\"a\tb\""] {
            assert_eq!(judged(whole, &[("x", value)]), Ok(()), "{value:?}");
        }
        assert_eq!(judged(whole, &[("content-length", "5")]), Ok(()));
    }

    #[test]
    fn padded_values_two_lengths_and_no_path_do_not() {
        let whole = "https://app.example/a";
        for value in [" a", "a ", "\ta", "a\t", " "] {
            let fields = [("x-first", "1"), ("x", value)];
            assert_eq!(
                judged(whole, &fields),
                Err(Http2Error::PaddedValue),
                "{value:?}"
            );
        }
        let twice = [("content-length", "5"), ("content-length", "5")];
        assert_eq!(judged(whole, &twice), Err(Http2Error::TwoLengths));
        let host = [("host", "app.example")];
        assert_eq!(judged("", &host), Err(Http2Error::NoPath));
    }
}
