//! The canonical request of AWS is its own canonical form and says what the request says.
//!
//! An input is a request line without its version, then a line a field. What is read here of a query is read by the plain
//! rule of forms: split at `&` and the first `=`, then take the escapes away.

use http::{HeaderMap, HeaderName, HeaderValue, Method, uri::PathAndQuery};
use percent_encoding::percent_decode_str;
use portcullis::{
    identity::{
        message::Message,
        sigv4::{
            canonical::{SignedHeaders, Style, canonical, path, query},
            credential::{is_brought, presented},
        },
    },
    wire::{forwarded::Scheme, path::Target},
};

/// Holds an input against the properties.
pub fn hold(data: &[u8]) {
    let Some((method, target, headers)) = read(data) else {
        return;
    };
    let message = Message {
        method: &method,
        scheme: Scheme::Https,
        host: "app.example",
        path: target.path(),
        query: target.query(),
        headers: &headers,
        upgrade: None,
        now: 0,
    };
    let claim = presented(&message);
    if let Ok(claim) = &claim {
        assert_eq!(claim.is_some(), is_brought(&message), "seen or not");
    }
    let claimed = claim.ok().flatten().map(|claim| claim.signed_headers);
    let signed = claimed.unwrap_or_else(|| all_names(&headers));
    let Ok(signed) = SignedHeaders::parse(&signed) else {
        return;
    };
    for (double_encode, presigned) in [(false, false), (true, false), (false, true)] {
        let style = Style {
            double_encode,
            presigned,
        };
        if let Ok(text) = canonical(&message, &signed, style) {
            says_the_same(&message, style);
            if !double_encode {
                is_its_own_form(&message, (&signed, style), &text);
            }
        }
    }
}

pub(super) fn read(data: &[u8]) -> Option<(Method, Target, HeaderMap)> {
    let text = std::str::from_utf8(data).ok()?;
    let (first, fields) = text.split_once('\n').unwrap_or((text, ""));
    let (method, target) = first.split_once(' ')?;
    let target = target.parse::<PathAndQuery>().ok()?;
    let target = Target::parse(&target).ok()?;
    let mut headers = HeaderMap::new();
    for field in fields.split('\n') {
        let Some((name, value)) = field.split_once(':') else {
            continue;
        };
        let name = HeaderName::from_bytes(name.as_bytes());
        let value = HeaderValue::from_str(value.trim());
        if let (Ok(name), Ok(value)) = (name, value) {
            headers.append(name, value);
        }
    }
    Some((method.parse().ok()?, target, headers))
}

fn all_names(headers: &HeaderMap) -> String {
    let mut names: Vec<&str> = headers.keys().map(HeaderName::as_str).collect();
    names.push("host");
    names.sort_unstable();
    names.dedup();
    names.join(";")
}

/// The parameters of a query, sorted.
fn parameters(query: &str, but: Option<&str>) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut parameters: Vec<_> = query
        .split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
        .map(|(name, value)| {
            let plain = |text: &str| percent_decode_str(text).collect::<Vec<u8>>();
            (plain(name), plain(value))
        })
        .filter(|(name, _)| but.is_none_or(|but| name != but.as_bytes()))
        .collect();
    parameters.sort();
    parameters
}

fn says_the_same(message: &Message<'_>, style: Style) {
    let presigned = style.presigned;
    let sent = message.query.unwrap_or_default();
    let made = query(sent, presigned).expect("it was made before");
    let but = presigned.then_some("X-Amz-Signature");
    assert_eq!(parameters(&made, None), parameters(sent, but), "parameters");
    let plain = |text: &str| percent_decode_str(text).collect::<Vec<u8>>();
    let made = path(message.path, style.double_encode).expect("it was made before");
    if style.double_encode {
        assert_eq!(plain(&made), message.path.as_bytes(), "escaped once more");
    } else {
        assert_eq!(plain(&made), plain(message.path));
        let sent_raw = |sign| message.path.contains(sign);
        assert!(!sent_raw([';', '\\', '+']), "read as its escape");
    }
}

/// The text read as a request makes the same text.
fn is_its_own_form(
    message: &Message<'_>,
    (signed, style): (&SignedHeaders<'_>, Style),
    text: &[u8],
) {
    let lines: Vec<&[u8]> = text.split(|octet| *octet == b'\n').collect();
    let [method, path, query, fields @ .., blank, _names, end] = lines.as_slice() else {
        panic!("too few lines");
    };
    assert!(blank.is_empty() && end.is_empty(), "the lines of the end");
    let utf8 = |line: &[u8]| String::from_utf8(line.to_vec()).expect("ASCII");
    let mut headers = HeaderMap::new();
    for field in fields {
        let at = field.iter().position(|octet| *octet == b':');
        let (name, value) = field.split_at(at.expect("a field"));
        headers.append(
            HeaderName::from_bytes(name).expect("a name"),
            HeaderValue::from_bytes(&value[1..]).expect("a value"),
        );
    }
    let method: Method = utf8(method).parse().expect("a method");
    let (path, query) = (utf8(path), utf8(query));
    let again = Message {
        method: &method,
        path: &path,
        query: Some(&query),
        headers: &headers,
        ..*message
    };
    assert_eq!(
        canonical(&again, signed, style).as_deref(),
        Ok(text),
        "the canonical form of a canonical form"
    );
}
