//! Fields that concern one connection only, taken off before a message goes on.
//!
//! For the forwarding, both ways (RFC 9110 §7.6.1, §7.8; RFC 9113 §8.2.2). A client's `Connection` may name fields of
//! its own that are to be dropped, but not those that a guard or a backend trusts: naming one is an attempt to hide it
//! from the next hop and is refused. Our own fields are set after this, so no `Connection` can remove them. It does not
//! look at message framing.

use http::header::{
    AUTHORIZATION, CONNECTION, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, COOKIE, HOST,
    HeaderName, ORIGIN, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, TE, TRAILER, TRANSFER_ENCODING,
    UPGRADE, VIA,
};
use http::{HeaderMap, HeaderValue, Method, Version};

use super::names::reserved;

/// Why a client's `Connection` is refused. Both are answered with 400.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HopError {
    /// It names a field that decides over identity, framing or forwarding.
    #[error("Connection names a field that is not the client's to remove")]
    Protected,
    /// It holds something that is no field name.
    #[error("a malformed Connection field")]
    Malformed,
}

/// A change of protocol that a request asks for and that we pass on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Upgrade {
    /// RFC 6455: the client's handshake is the backend's.
    WebSocket,
    /// RFC 8441: a stream of HTTP/2; the handshake with the backend is ours.
    WebSocketStream,
}

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");
const HTTP2_SETTINGS: HeaderName = HeaderName::from_static("http2-settings");

/// Every field of one hop, whether `Connection` names it or not.
static OF_ONE_HOP: [HeaderName; 10] = [
    CONNECTION,
    KEEP_ALIVE,
    PROXY_CONNECTION,
    HTTP2_SETTINGS,
    TE,
    TRAILER,
    TRANSFER_ENCODING,
    UPGRADE,
    PROXY_AUTHORIZATION,
    PROXY_AUTHENTICATE,
];

/// Which fields of one hop a message has: a bit at each place of [`OF_ONE_HOP`].
#[derive(Clone, Copy, PartialEq, Eq)]
struct Found(u16);

impl Found {
    const NONE: Self = Self(0);

    /// One look at each name: its length tells most of the others.
    fn in_these(headers: &HeaderMap) -> Self {
        let mut bits = 0;
        for name in headers.keys() {
            bits |= Self::bit(name.as_str());
        }
        Self(bits)
    }

    /// The bit of a name, none for the fields that go on.
    fn bit(name: &str) -> u16 {
        let place = match name {
            "connection" => 0,
            "keep-alive" => 1,
            "proxy-connection" => 2,
            "http2-settings" => 3,
            "te" => 4,
            "trailer" => 5,
            "transfer-encoding" => 6,
            "upgrade" => 7,
            "proxy-authorization" => 8,
            "proxy-authenticate" => 9,
            _ => return 0,
        };
        1 << place
    }

    fn names(self) -> impl Iterator<Item = &'static HeaderName> {
        let places = OF_ONE_HOP.iter().enumerate();
        places.filter_map(move |(place, name)| (self.0 & 1 << place != 0).then_some(name))
    }
}

/// Whether a field concerns one hop, by its name alone.
pub fn is_of_one_hop(name: &HeaderName) -> bool {
    OF_ONE_HOP.contains(name)
}

/// Takes the fields of one hop off a client's request. `TE` is among them: who passes trailers on says so himself.
///
/// Ask [`upgrade_of`] first: the fields it reads are gone afterwards.
///
/// # Errors
/// [`HopError`] if `Connection` names a field that is not the client's to remove; the headers may be half done then.
pub fn strip_request(headers: &mut HeaderMap) -> Result<(), HopError> {
    let found = Found::in_these(headers);
    if found == Found::NONE {
        return Ok(());
    }
    let listed = listed_by_client(headers)?;
    strip(headers, found, &listed);
    Ok(())
}

/// Takes the fields of one hop off a backend's response, and whatever else its `Connection` names.
pub fn strip_response(headers: &mut HeaderMap) {
    let found = Found::in_these(headers);
    if found == Found::NONE {
        return;
    }
    let listed: Vec<HeaderName> = tokens(headers, &CONNECTION)
        .filter(|token| !is_signal(token))
        .filter_map(|token| HeaderName::from_bytes(token).ok())
        .collect();
    strip(headers, found, &listed);
}

/// The protocol that a request asks to change to, if it is one that we pass on and the request is in order.
///
/// Anything else is no error: without the upgrade the request is answered as it stands (RFC 9110 §7.8).
pub fn upgrade_of(headers: &HeaderMap, method: &Method, version: Version) -> Option<Upgrade> {
    let mut values = headers.get_all(UPGRADE).iter();
    let protocol = values.next()?;
    let single = values.next().is_none();
    let asked = tokens(headers, &CONNECTION).any(|token| token.eq_ignore_ascii_case(b"upgrade"));
    let wanted = single
        && asked
        && *method == Method::GET
        && version == Version::HTTP_11
        && protocol.as_bytes().eq_ignore_ascii_case(b"websocket");
    wanted.then_some(Upgrade::WebSocket)
}

fn strip(headers: &mut HeaderMap, found: Found, listed: &[HeaderName]) {
    for name in found.names() {
        headers.remove(name);
    }
    for name in listed {
        headers.remove(name);
    }
}

/// Field names in a client's `Connection` that [`OF_ONE_HOP`] does not cover. Empty, without allocation, nearly always.
fn listed_by_client(headers: &HeaderMap) -> Result<Vec<HeaderName>, HopError> {
    let mut listed = Vec::new();
    for token in tokens(headers, &CONNECTION) {
        if is_signal(token) {
            continue;
        }
        let name = HeaderName::from_bytes(token).map_err(|_| HopError::Malformed)?;
        if protected(&name) {
            return Err(HopError::Protected);
        }
        listed.push(name);
    }
    Ok(listed)
}

/// The tokens that nearly every `Connection` is made of.
fn is_signal(token: &[u8]) -> bool {
    [
        b"keep-alive".as_slice(),
        b"close",
        b"upgrade",
        b"te",
        b"http2-settings",
    ]
    .iter()
    .any(|signal| token.eq_ignore_ascii_case(signal))
}

/// Fields whose removal by the client would change what a guard or a backend decides.
fn protected(name: &HeaderName) -> bool {
    static NAMES: [HeaderName; 9] = [
        AUTHORIZATION,
        COOKIE,
        HOST,
        CONTENT_LENGTH,
        CONTENT_TYPE,
        CONTENT_ENCODING,
        TRANSFER_ENCODING,
        ORIGIN,
        VIA,
    ];
    NAMES.contains(name)
        || reserved(name)
        || name.as_str().starts_with("sec-")
        || matches!(
            name.as_str(),
            "traceparent"
                | "tracestate"
                | "signature"
                | "signature-input"
                | "content-digest"
                | "dpop"
        )
}

fn tokens<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a [u8]> {
    headers.get_all(name).iter().flat_map(split_list)
}

fn split_list(value: &HeaderValue) -> impl Iterator<Item = &[u8]> {
    value
        .as_bytes()
        .split(|&byte| byte == b',')
        .map(<[u8]>::trim_ascii)
        .filter(|token| !token.is_empty())
}

#[cfg(test)]
mod tests {
    use http::header::{HeaderName, HeaderValue};
    use http::{HeaderMap, Method, Version};

    use super::{Found, HopError, OF_ONE_HOP, Upgrade, strip_request, strip_response, upgrade_of};

    fn headers(fields: &[(&str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            let name = HeaderName::from_bytes(name.as_bytes()).expect("a header name");
            headers.append(name, HeaderValue::from_static(value));
        }
        headers
    }

    fn names(headers: &HeaderMap) -> Vec<&str> {
        let mut names: Vec<_> = headers.keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        names
    }

    #[test]
    fn fields_of_one_hop_go() {
        let mut request = headers(&[
            ("host", "a"),
            ("connection", "keep-alive, X-Hop"),
            ("connection", "close"),
            ("x-hop", "1"),
            ("keep-alive", "5"),
            ("proxy-connection", "keep-alive"),
            ("transfer-encoding", "chunked"),
            ("upgrade", "foo"),
            ("trailer", "x"),
            ("proxy-authorization", "Basic eA=="),
            ("te", "gzip"),
            ("accept", "*/*"),
        ]);
        assert_eq!(strip_request(&mut request), Ok(()));
        assert_eq!(names(&request), ["accept", "host"]);
    }

    #[test]
    fn fields_of_one_hop_go_without_being_named() {
        let mut request = headers(&[("upgrade", "h2c"), ("http2-settings", "x"), ("accept", "a")]);
        assert_eq!(strip_request(&mut request), Ok(()));
        assert_eq!(names(&request), ["accept"]);
    }

    #[test]
    fn each_field_of_one_hop_goes_by_itself() {
        for (place, name) in OF_ONE_HOP.iter().enumerate() {
            assert_eq!(Found::bit(name.as_str()), 1 << place, "{name}");
            let mut response = headers(&[("content-type", "text/html")]);
            response.insert(name, HeaderValue::from_static("x"));
            let mut request = response.clone();
            strip_response(&mut response);
            assert_eq!(strip_request(&mut request), Ok(()));
            assert_eq!(names(&response), ["content-type"], "{name}");
            assert_eq!(names(&request), ["content-type"], "{name}");
        }
    }

    #[test]
    fn te_is_for_one_hop_whatever_it_says() {
        let mut request = headers(&[("te", "gzip, Trailers"), ("connection", "TE")]);
        assert_eq!(strip_request(&mut request), Ok(()));
        assert!(request.is_empty(), "{request:?}");
    }

    #[test]
    fn a16_protected_fields_cannot_be_named() {
        for name in [
            "X-Forwarded-For",
            "Authorization",
            "X-User",
            "x_user",
            "Cookie",
            "Host",
            "Content-Length",
            "Transfer-Encoding",
            "Forwarded",
            "X-Auth-Subject",
            "Via",
            "Origin",
            "Sec-Fetch-Site",
            "X-Request-Id",
        ] {
            let mut request = headers(&[("host", "a")]);
            let value = format!("close, {name}");
            let value = HeaderValue::from_str(&value).expect("a header value");
            request.insert("connection", value);
            assert_eq!(
                strip_request(&mut request),
                Err(HopError::Protected),
                "{name}"
            );
        }
        let mut request = headers(&[("connection", "close, a b")]);
        assert_eq!(strip_request(&mut request), Err(HopError::Malformed));
    }

    #[test]
    fn a31_a_backend_cannot_remove_what_is_set_later() {
        let mut response = headers(&[
            ("connection", "Strict-Transport-Security, close, \"x\""),
            ("strict-transport-security", "max-age=0"),
            ("keep-alive", "5"),
            ("content-type", "text/html"),
        ]);
        strip_response(&mut response);
        assert_eq!(names(&response), ["content-type"]);
    }

    #[test]
    fn a06_only_websocket_is_an_upgrade() {
        let asked = headers(&[
            ("connection", "keep-alive, Upgrade"),
            ("upgrade", "WebSocket"),
        ]);
        let of = |headers: &HeaderMap| upgrade_of(headers, &Method::GET, Version::HTTP_11);
        assert_eq!(of(&asked), Some(Upgrade::WebSocket));
        assert_eq!(upgrade_of(&asked, &Method::POST, Version::HTTP_11), None);
        assert_eq!(upgrade_of(&asked, &Method::GET, Version::HTTP_10), None);
        assert_eq!(upgrade_of(&asked, &Method::GET, Version::HTTP_2), None);
        for fields in [
            &[("connection", "upgrade"), ("upgrade", "foo")][..],
            &[("connection", "upgrade"), ("upgrade", "websocket, h2c")],
            &[
                ("connection", "upgrade"),
                ("upgrade", "websocket"),
                ("upgrade", "h2c"),
            ],
            &[("connection", "close"), ("upgrade", "websocket")],
            &[("upgrade", "websocket")],
            &[("connection", "upgrade")],
        ] {
            assert_eq!(of(&headers(fields)), None);
        }
    }
}
