//! The canonical request of AWS Signature Version 4: the one text that a request and its signature agree on.
//!
//! Made of the judged form of a request and of nothing else, so what is verified is what is forwarded. What this form
//! would make equal although backends may read it in two ways is refused: `+` and `;` in a query, empty parameters, and in a
//! path whose escapes are kept a raw `;`, `\` or `+`.

use http::HeaderName;

use super::SigV4Error;
use crate::identity::message::Message;

/// How the text is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Style {
    /// Escapes of the path are escaped once more, as all services but S3 want it.
    pub double_encode: bool,
    /// The signature stands in the query: it is left out of the text.
    pub presigned: bool,
}

/// The names of signed fields, in lower case, in order and without repeats.
#[derive(Debug, PartialEq, Eq)]
pub struct SignedHeaders<'a> {
    text: &'a str,
    names: Vec<&'a str>,
}

impl<'a> SignedHeaders<'a> {
    /// Reads `host;x-amz-date`.
    ///
    /// # Errors
    /// [`SigV4Error::SignedHeaders`] for another order, repeats, capital letters and whatever is no field name.
    pub fn parse(text: &'a str) -> Result<Self, SigV4Error> {
        let names: Vec<&str> = text.split(';').collect();
        let ordered = names.is_sorted_by(|one, next| one < next);
        let well_formed = |name: &&str| {
            !name.bytes().any(|byte| byte.is_ascii_uppercase())
                && HeaderName::from_bytes(name.as_bytes()).is_ok()
        };
        if ordered && names.iter().all(well_formed) {
            Ok(Self { text, names })
        } else {
            Err(SigV4Error::SignedHeaders)
        }
    }

    fn has(&self, name: &str) -> bool {
        self.names.binary_search(&name).is_ok()
    }

    /// Whether everything is signed that has to be: the host, the type of the body, every `x-amz-*`; of a WebSocket
    /// handshake a field that only such requests have.
    ///
    /// # Errors
    /// [`SigV4Error::Unsigned`].
    pub fn cover(&self, message: &Message<'_>) -> Result<(), SigV4Error> {
        let demanded = |name: &HeaderName| name == "content-type" || is_of_amz(name.as_str());
        let has = |name: &HeaderName| self.has(name.as_str());
        let mut all = message.headers.keys().filter(|name| demanded(name));
        if all.all(has) && self.has("host") && message.tunnel_is_signed(has) {
            Ok(())
        } else {
            Err(SigV4Error::Unsigned)
        }
    }
}

/// `x-amz-…`, whatever the signs are: gateways that turn signs into `_` make one name of them.
fn is_of_amz(name: &str) -> bool {
    let sign = |byte: &u8| !byte.is_ascii_alphanumeric();
    match name.as_bytes() {
        [b'x', first, b'a', b'm', b'z', second, ..] => sign(first) && sign(second),
        _ => false,
    }
}

/// The canonical request up to the hash of the body, which is its last line.
///
/// # Errors
/// A signed field that is not there; a path or a query that is ambiguous.
pub fn canonical(
    message: &Message<'_>,
    signed: &SignedHeaders<'_>,
    style: Style,
) -> Result<Vec<u8>, SigV4Error> {
    let query = query(message.query.unwrap_or_default(), style.presigned)?;
    let mut out = Vec::with_capacity(512);
    for line in [
        message.method.as_str(),
        &path(message.path, style.double_encode)?,
        &query,
    ] {
        out.extend_from_slice(line.as_bytes());
        out.push(b'\n');
    }
    for name in &signed.names {
        out.extend_from_slice(name.as_bytes());
        out.push(b':');
        push_values(name, message, &mut out)?;
        out.push(b'\n');
    }
    out.push(b'\n');
    out.extend_from_slice(signed.text.as_bytes());
    out.push(b'\n');
    Ok(out)
}

/// The values of a field, joined by commas.
fn push_values(name: &str, message: &Message<'_>, out: &mut Vec<u8>) -> Result<(), SigV4Error> {
    // The field itself is missing in HTTP/2, and forwarded in this form.
    if name == "host" {
        out.extend_from_slice(message.host.as_bytes());
        return Ok(());
    }
    let mut values = message.headers.get_all(name).iter();
    let first = values.next().ok_or(SigV4Error::Absent)?;
    push_trimmed(first.as_bytes(), out);
    for value in values {
        out.push(b',');
        push_trimmed(value.as_bytes(), out);
    }
    Ok(())
}

/// A value without spaces at its ends, and one space where there are several.
fn push_trimmed(value: &[u8], out: &mut Vec<u8>) {
    let words = value.split(|byte| matches!(byte, b' ' | b'\t'));
    for (place, word) in words.filter(|word| !word.is_empty()).enumerate() {
        if place > 0 {
            out.push(b' ');
        }
        out.extend_from_slice(word);
    }
}

/// The path: each byte but unreserved ones and `/` escaped. Escapes in it are escaped once more, or kept as they are.
///
/// # Errors
/// [`SigV4Error::Path`] where escapes are kept, for a sign of which backends make something else than of its escape.
pub fn path(path: &str, double_encode: bool) -> Result<String, SigV4Error> {
    let mut out = String::with_capacity(path.len() + 16);
    for byte in path.bytes() {
        match byte {
            b'/' => out.push('/'),
            // The judged form has well-formed escapes only, in upper case, and none of unreserved characters.
            b'%' if !double_encode => out.push('%'),
            // The start of parameters to some, a slash or a space to others; clients that sign so send the escape.
            b';' | b'\\' | b'+' if !double_encode => return Err(SigV4Error::Path),
            _ => push_encoded(byte, &mut out),
        }
    }
    Ok(out)
}

/// The query: each name and value decoded, escaped anew, and all of them in order.
///
/// # Errors
/// [`SigV4Error::Query`] for what could be read in two ways; [`SigV4Error::QueryOrder`] for a presigned query in which a
/// name stands several times in another order than that of the text, since anybody could have turned them round.
pub fn query(query: &str, presigned: bool) -> Result<String, SigV4Error> {
    if query.is_empty() {
        return Ok(String::new());
    }
    let mut pairs = Vec::new();
    for pair in query.split('&') {
        if pair.is_empty() {
            return Err(SigV4Error::Query);
        }
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let pair = (recode(name)?, recode(value)?);
        if !presigned || pair.0 != super::credential::SIGNATURE {
            pairs.push(pair);
        }
    }
    pairs.sort_by(|one, other| one.0.cmp(&other.0));
    let ordered = pairs.is_sorted();
    if presigned && !ordered {
        return Err(SigV4Error::QueryOrder);
    }
    pairs.sort();
    let mut out = String::with_capacity(query.len() + 16);
    for (place, (name, value)) in pairs.iter().enumerate() {
        if place > 0 {
            out.push('&');
        }
        out.push_str(name);
        out.push('=');
        out.push_str(value);
    }
    Ok(out)
}

/// A name or value of a query, its escapes decoded and everything but unreserved characters escaped.
fn recode(text: &str) -> Result<String, SigV4Error> {
    let mut out = String::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        match byte {
            b'%' => {
                let pair = bytes.next().zip(bytes.next());
                let value = pair.and_then(|(high, low)| hex_pair(high, low));
                push_encoded(value.ok_or(SigV4Error::Query)?, &mut out);
            }
            // A space to some and itself to others; the end of a parameter to some.
            b'+' | b';' => return Err(SigV4Error::Query),
            _ => push_encoded(byte, &mut out),
        }
    }
    Ok(out)
}

pub(super) fn hex_pair(high: u8, low: u8) -> Option<u8> {
    let digit = |byte: u8| char::from(byte).to_digit(16);
    u8::try_from(digit(high)? << 4 | digit(low)?).ok()
}

fn push_encoded(byte: u8, out: &mut String) {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
        out.push(char::from(byte));
        return;
    }
    out.push('%');
    for nibble in [byte >> 4, byte & 0x0f] {
        let digit = DIGITS.get(usize::from(nibble)).copied();
        out.push(char::from(digit.unwrap_or(b'0')));
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, HeaderValue, Method};
    use proptest::prelude::*;

    use super::{Message, SigV4Error, SignedHeaders, path, push_trimmed, query};
    use crate::wire::{forwarded::Scheme, hop::Upgrade};

    fn message(headers: &HeaderMap, upgrade: Option<Upgrade>) -> Message<'_> {
        Message {
            method: &Method::GET,
            scheme: Scheme::Https,
            host: "app.example",
            path: "/",
            query: None,
            headers,
            upgrade,
            now: 0,
        }
    }

    #[test]
    fn b42_what_backends_may_read_in_two_ways_is_no_query() {
        for bad in [
            "a=1+1", "a=1;b=2", "a&&b", "&a", "a&", "a=%", "a=%2", "a=%zz", "a=%+1",
        ] {
            assert_eq!(query(bad, false), Err(SigV4Error::Query), "{bad}");
        }
        assert_eq!(query("b=2&a=%41&c", false).as_deref(), Ok("a=A&b=2&c="));
        assert_eq!(query("a=b=c/d", false).as_deref(), Ok("a=b%3Dc%2Fd"));
        assert_eq!(query("", false).as_deref(), Ok(""));
    }

    #[test]
    fn b42_repeats_of_a_presigned_query_cannot_be_turned_round() {
        assert_eq!(query("a=2&b=0&a=1", false).as_deref(), Ok("a=1&a=2&b=0"));
        assert_eq!(query("a=1&b=0&a=2", true).as_deref(), Ok("a=1&a=2&b=0"));
        assert_eq!(query("a=2&b=0&a=1", true), Err(SigV4Error::QueryOrder));
        assert_eq!(
            query("X-Amz-Signature=00&a=1", true).as_deref(),
            Ok("a=1"),
            "the signature does not sign itself"
        );
    }

    #[test]
    fn paths_are_escaped_once_or_twice() {
        let path = |text, double_encode| path(text, double_encode).expect("a path");
        assert_eq!(path("/a%20b/c=d~", true), "/a%2520b/c%3Dd~");
        assert_eq!(path("/a%20b/c=d~", false), "/a%20b/c%3Dd~");
        assert_eq!(path("/a%2Fb", false), "/a%2Fb", "not the path /a/b");
        // The cases `double-encode-path` and `double-url-encode` that AWS adds to its suite.
        assert_eq!(
            path("/test/@connections/JBDvjfGEIAMCERw%3D", true),
            "/test/%40connections/JBDvjfGEIAMCERw%253D"
        );
        assert_eq!(
            path("/functions/arn%3Aaws%3Alambda", true),
            "/functions/arn%253Aaws%253Alambda"
        );
    }

    #[test]
    fn b42_a_sign_that_is_signed_like_its_escape_is_no_path() {
        for (raw, escaped) in [(";", "%3B"), ("\\", "%5C"), ("+", "%2B")] {
            let (raw, escaped) = (format!("/a{raw}b"), format!("/a{escaped}b"));
            assert_eq!(path(&raw, false), Err(SigV4Error::Path), "{raw}");
            assert_eq!(path(&escaped, false).as_deref(), Ok(&*escaped));
            assert_eq!(path(&raw, true).as_deref(), Ok(&*escaped));
            assert_ne!(path(&escaped, true), path(&raw, true), "{raw}");
        }
    }

    #[test]
    fn names_of_signed_fields_have_one_form() {
        assert!(SignedHeaders::parse("content-type;host;x-amz-date").is_ok());
        for bad in [
            "",
            "host;",
            ";host",
            "Host",
            "x;host",
            "host;host",
            "a b;host",
            "a:b;host",
        ] {
            assert_eq!(
                SignedHeaders::parse(bad),
                Err(SigV4Error::SignedHeaders),
                "{bad}"
            );
        }
    }

    #[test]
    fn b42_every_amz_field_and_the_type_must_be_signed() {
        let signed = SignedHeaders::parse("host;x-amz-date").unwrap();
        let covers = |name: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert("x-amz-date", HeaderValue::from_static("1"));
            headers.insert(name, HeaderValue::from_static("1"));
            signed.cover(&message(&headers, None))
        };
        assert_eq!(covers("accept"), Ok(()));
        assert_eq!(covers("x-amzn-trace-id"), Ok(()));
        for name in ["x-amz-meta-a", "x_amz_meta-a", "x.amz-date", "content-type"] {
            assert_eq!(covers(name), Err(SigV4Error::Unsigned), "{name}");
        }
        let (none, hostless) = (HeaderMap::new(), SignedHeaders::parse("x-amz-date"));
        let covered = hostless.unwrap().cover(&message(&none, None));
        assert_eq!(covered, Err(SigV4Error::Unsigned));
    }

    #[test]
    fn b42_a_handshake_must_be_signed_as_one() {
        let none = HeaderMap::new();
        for upgrade in [Upgrade::WebSocket, Upgrade::WebSocketStream] {
            let tunnel = message(&none, Some(upgrade));
            for (signed, verdict) in [
                ("host", Err(SigV4Error::Unsigned)),
                ("host;sec-websocket-protocol", Err(SigV4Error::Unsigned)),
                ("host;sec-websocket-version", Ok(())),
                ("host;sec-websocket-key", Ok(())),
            ] {
                let signed = SignedHeaders::parse(signed).unwrap();
                assert_eq!(signed.cover(&tunnel), verdict, "{signed:?}");
            }
        }
    }

    #[test]
    fn values_lose_spaces_at_their_ends_and_in_rows() {
        let trimmed = |value: &str| {
            let mut out = Vec::new();
            push_trimmed(value.as_bytes(), &mut out);
            String::from_utf8(out).unwrap()
        };
        assert_eq!(trimmed("  a   b \t c  "), "a b c");
        assert_eq!(trimmed("\"a   b\""), "\"a b\"");
        assert_eq!(trimmed(" "), "");
    }

    proptest! {
        #[test]
        fn a_canonical_query_is_its_own_canonical_form(text in "[a-c=&%0-4;+ /é]{0,24}") {
            if let Ok(once) = query(&text, false) {
                prop_assert_eq!(query(&once, false), Ok(once));
            }
        }
    }
}
