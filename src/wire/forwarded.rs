//! Who the client is, behind proxies that are trusted, and what we tell the backend about it.
//!
//! For the client stage and for the forwarding (RFC 7239; `X-Forwarded-*` by custom). Only a trusted peer is believed,
//! and only as far back as the entries stand for trusted peers too: what lies beyond may be anybody's invention, so it
//! is neither used nor handed on. It reads no `X-Real-IP` and no vendor's header, and it never believes
//! `X-Forwarded-Host`: proxies commonly pass on what a client sent there.

use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};

use bytes::{BufMut, Bytes, BytesMut};
use http::header::{FORWARDED, HeaderName};
use http::{HeaderMap, HeaderValue};
use ipnet::IpNet;

/// `X-Forwarded-For`.
pub const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
/// `X-Forwarded-Proto`.
pub const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
/// `X-Forwarded-Host`.
pub const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");

/// How a message travelled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Scheme {
    /// In the clear.
    Http,
    /// Over TLS.
    Https,
}

impl Scheme {
    /// The name as it stands in a URL.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }
}

/// The client as the trusted proxies report it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Client {
    /// Its address; an IPv4 address that came mapped into IPv6 is plain IPv4 here.
    pub address: IpAddr,
    /// Whether it spoke https to the outermost trusted proxy; `None` if no trusted proxy says.
    pub https: Option<bool>,
    /// `Forwarded` and `X-Forwarded-For` named different clients, so neither was believed and the peer is the client.
    pub contradiction: bool,
    /// The trusted hops from the client's side to ours, the peer last; empty if the peer is the client.
    hops: Vec<IpAddr>,
}

/// Finds the client of a request that came from `peer`.
///
/// An untrusted peer is the client, whatever it sends. Behind a trusted peer the entries of `Forwarded` or
/// `X-Forwarded-For` are walked from right to left; trusted ones are skipped and the first untrusted one is the
/// client. A malformed or obfuscated entry ends the walk at the last good one. If both fields stand there and
/// disagree, one of them was passed on unread by a proxy and nobody can say which: the nearest trusted hop, the
/// peer, is the client then, and [`Client::contradiction`] says so.
pub fn client_of(peer: IpAddr, headers: &HeaderMap, trusted: &[IpNet]) -> Client {
    let peer = peer.to_canonical();
    let direct = Client {
        address: peer,
        https: None,
        contradiction: false,
        hops: Vec::new(),
    };
    if !is_trusted(peer, trusted) {
        return direct;
    }
    let standard = headers.contains_key(FORWARDED);
    let custom = headers.contains_key(&X_FORWARDED_FOR);
    if !standard {
        return walk(direct, custom_entries(headers), trusted).with_custom_proto(headers);
    }
    let client = walk(direct.clone(), standard_entries(headers), trusted);
    if custom {
        let other = walk(direct.clone(), custom_entries(headers), trusted);
        if other.address != client.address {
            return Client {
                contradiction: true,
                ..direct
            };
        }
    }
    if client.https.is_some() {
        client
    } else {
        client.with_custom_proto(headers)
    }
}

/// Whether an address lies in one of the trusted networks.
pub fn is_trusted(address: IpAddr, trusted: &[IpNet]) -> bool {
    let address = address.to_canonical();
    trusted.iter().any(|network| network.contains(&address))
}

/// One entry of the chain: an address, if it is one, and the scheme that this hop was reached by.
struct Entry {
    address: Option<IpAddr>,
    https: Option<bool>,
}

fn walk(mut client: Client, entries: impl Iterator<Item = Entry>, trusted: &[IpNet]) -> Client {
    for entry in entries {
        let Some(address) = entry.address else {
            // The hop that wrote this entry is known, so what it says about the scheme still counts.
            client.https = entry.https.or(client.https);
            break;
        };
        client.hops.push(client.address);
        client.address = address;
        client.https = entry.https.or(client.https);
        if !is_trusted(address, trusted) {
            break;
        }
    }
    // Collected from our side outwards; written from the client's side inwards.
    client.hops.reverse();
    client
}

impl Client {
    /// Reads `X-Forwarded-Proto`: one value, or the one at the client's place if every hop appended one.
    fn with_custom_proto(mut self, headers: &HeaderMap) -> Self {
        let place = self.hops.len().saturating_sub(1);
        let mut found = None;
        for (at, value) in list_from_right(headers, X_FORWARDED_PROTO).enumerate() {
            found = Some(value);
            if at == place {
                break;
            }
        }
        self.https = found.and_then(scheme_word);
        self
    }
}

/// Whether a scheme is one of TLS. Some proxies write that of the WebSocket on a handshake (RFC 6455 §3).
fn scheme_word(word: &[u8]) -> Option<bool> {
    let is = |scheme: &[u8]| word.eq_ignore_ascii_case(scheme);
    if is(b"https") || is(b"wss") {
        Some(true)
    } else if is(b"http") || is(b"ws") {
        Some(false)
    } else {
        None
    }
}

fn custom_entries(headers: &HeaderMap) -> impl Iterator<Item = Entry> {
    list_from_right(headers, X_FORWARDED_FOR).map(|text| Entry {
        address: address_of(text),
        https: None,
    })
}

fn standard_entries(headers: &HeaderMap) -> impl Iterator<Item = Entry> {
    list_from_right(headers, FORWARDED).map(element_of)
}

/// The members of a list field from right to left, across all its lines. Commas in quotes do not count.
///
/// Reading from the right matters: whatever a client put at the left, even an open quote, cannot swallow the entry
/// that a trusted proxy appended.
fn list_from_right(headers: &HeaderMap, name: HeaderName) -> impl Iterator<Item = &[u8]> {
    headers
        .get_all(name)
        .iter()
        .rev()
        .flat_map(|value| split_from_right(value.as_bytes(), b','))
}

fn split_from_right(text: &[u8], separator: u8) -> impl Iterator<Item = &[u8]> {
    let mut quoted = false;
    text.rsplit(move |&byte| {
        quoted ^= byte == b'"';
        byte == separator && !quoted
    })
    .map(<[u8]>::trim_ascii)
}

/// One element of `Forwarded` (RFC 7239 §4). A parameter that stands twice or is malformed spoils the whole element.
fn element_of(text: &[u8]) -> Entry {
    const SPOILT: Entry = Entry {
        address: None,
        https: None,
    };
    let mut entry = SPOILT;
    let (mut has_for, mut has_proto) = (false, false);
    for pair in split_from_right(text, b';') {
        if pair.is_empty() {
            continue;
        }
        let Some(at) = pair.iter().position(|&byte| byte == b'=') else {
            return SPOILT;
        };
        let (name, value) = pair.split_at(at);
        let Some(value) = unquoted(value.get(1..).unwrap_or_default()) else {
            return SPOILT;
        };
        let seen = if name.eq_ignore_ascii_case(b"for") {
            entry.address = address_of(value);
            &mut has_for
        } else if name.eq_ignore_ascii_case(b"proto") {
            entry.https = scheme_word(value);
            &mut has_proto
        } else {
            continue;
        };
        if std::mem::replace(seen, true) {
            return SPOILT;
        }
    }
    entry
}

/// A token or the inside of a quoted string; escapes are not taken, since no address and no scheme needs one.
fn unquoted(value: &[u8]) -> Option<&[u8]> {
    let inside = match value.strip_prefix(b"\"") {
        Some(rest) => rest.strip_suffix(b"\"")?,
        None => value,
    };
    (!inside.iter().any(|byte| matches!(byte, b'"' | b'\\'))).then_some(inside)
}

/// An address with or without a port, IPv6 with or without brackets.
fn address_of(text: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(text).ok()?;
    let address = match text.parse::<IpAddr>() {
        Ok(address) => address,
        Err(_) => match text
            .strip_prefix('[')
            .and_then(|rest| rest.strip_suffix(']'))
        {
            Some(inside) => IpAddr::V6(inside.parse().ok()?),
            None => text.parse::<SocketAddr>().ok()?.ip(),
        },
    };
    Some(address.to_canonical())
}

/// The fields that tell a backend who asked; they depend on nothing but client, host and scheme, so the caller may
/// keep them for the next request of the same connection.
#[derive(Debug, Clone)]
pub struct Introduction {
    chain: HeaderValue,
    scheme: Scheme,
    host: HeaderValue,
    forwarded: HeaderValue,
}

impl Introduction {
    /// Writes them: the client first, then every trusted hop, the peer last. `host` is the authority that was judged,
    /// `scheme` what our own listener was reached by, for a client of which no trusted proxy says more.
    ///
    /// `None` if `host` cannot stand in a header, which [`super::host::Authority`] rules out.
    pub fn new(client: &Client, host: &str, scheme: Scheme) -> Option<Self> {
        let scheme = match client.https {
            Some(true) => Scheme::Https,
            Some(false) => Scheme::Http,
            None => scheme,
        };
        Some(Self {
            chain: chain_value(client)?,
            scheme,
            host: HeaderValue::from_str(host).ok()?,
            forwarded: forwarded_value(client, host, scheme)?,
        })
    }

    /// Sets the fields, in place of whatever stands there.
    pub fn write(&self, headers: &mut HeaderMap) {
        headers.insert(X_FORWARDED_FOR, self.chain.clone());
        headers.insert(
            X_FORWARDED_PROTO,
            HeaderValue::from_static(self.scheme.as_str()),
        );
        headers.insert(X_FORWARDED_HOST, self.host.clone());
        headers.insert(FORWARDED, self.forwarded.clone());
    }

    /// The scheme that the client used, as far as known.
    pub fn scheme(&self) -> Scheme {
        self.scheme
    }
}

fn chain_value(client: &Client) -> Option<HeaderValue> {
    let mut out = BytesMut::with_capacity(16 + 16 * client.hops.len());
    write!(out, "{}", client.address).ok()?;
    for hop in &client.hops {
        write!(out, ", {hop}").ok()?;
    }
    HeaderValue::from_maybe_shared(out.freeze()).ok()
}

fn forwarded_value(client: &Client, host: &str, scheme: Scheme) -> Option<HeaderValue> {
    let mut out = BytesMut::with_capacity(48 + host.len() + 24 * client.hops.len());
    push_node(&mut out, client.address)?;
    // A colon or bracket may stand in a quoted string only (RFC 7239 §4).
    out.put_slice(b";host=\"");
    out.put_slice(host.as_bytes());
    out.put_slice(b"\";proto=");
    out.put_slice(scheme.as_str().as_bytes());
    for &hop in &client.hops {
        out.put_slice(b", ");
        push_node(&mut out, hop)?;
    }
    let out: Bytes = out.freeze();
    HeaderValue::from_maybe_shared(out).ok()
}

fn push_node(out: &mut BytesMut, address: IpAddr) -> Option<()> {
    match address {
        IpAddr::V4(address) => write!(out, "for={address}").ok(),
        IpAddr::V6(address) => write!(out, "for=\"[{address}]\"").ok(),
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use http::header::HeaderName;
    use http::{HeaderMap, HeaderValue};
    use ipnet::IpNet;

    use super::{Client, Introduction, Scheme, client_of};

    fn headers(fields: &[(&str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            let name = HeaderName::from_bytes(name.as_bytes()).expect("a header name");
            headers.append(name, HeaderValue::from_static(value));
        }
        headers
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    fn client(peer: &str, fields: &[(&str, &'static str)]) -> Client {
        let trusted: Vec<IpNet> = ["10.0.0.0/8", "2001:db8::/32"]
            .iter()
            .map(|network| network.parse().expect("a network"))
            .collect();
        client_of(ip(peer), &headers(fields), &trusted)
    }

    fn address(fields: &[(&str, &'static str)]) -> String {
        client("10.0.0.1", fields).address.to_string()
    }

    #[test]
    fn a17_an_untrusted_peer_is_the_client_whatever_it_sends() {
        let found = client(
            "192.0.2.7",
            &[
                ("x-forwarded-for", "127.0.0.1"),
                ("forwarded", "for=127.0.0.1;proto=https"),
                ("x-forwarded-proto", "https"),
                ("x-real-ip", "127.0.0.1"),
            ],
        );
        assert_eq!((found.address, found.https), (ip("192.0.2.7"), None));
        assert!(!found.contradiction);
        assert_eq!(client("::ffff:192.0.2.7", &[]).address, ip("192.0.2.7"));
    }

    #[test]
    fn b30_the_walk_ends_at_the_first_untrusted_entry() {
        for (value, wanted) in [
            ("192.0.2.7", "192.0.2.7"),
            ("6.6.6.6, 192.0.2.7", "192.0.2.7"),
            ("6.6.6.6,192.0.2.7 , 10.0.0.2", "192.0.2.7"),
            ("10.0.0.3, 10.0.0.2", "10.0.0.3"),
            ("192.0.2.7:4711", "192.0.2.7"),
            ("[2001:db9::1]:4711", "2001:db9::1"),
            ("[2001:db9::1]", "2001:db9::1"),
            ("2001:db9::1", "2001:db9::1"),
            ("::ffff:10.0.0.9, ::ffff:10.0.0.2", "10.0.0.9"),
            ("6.6.6.6, nonsense, 10.0.0.2", "10.0.0.2"),
            ("6.6.6.6, unknown", "10.0.0.1"),
            ("6.6.6.6,", "10.0.0.1"),
            ("", "10.0.0.1"),
        ] {
            assert_eq!(address(&[("x-forwarded-for", value)]), wanted, "{value}");
        }
        let lines = [
            ("x-forwarded-for", "6.6.6.6"),
            ("x-forwarded-for", "192.0.2.7"),
        ];
        assert_eq!(address(&lines), "192.0.2.7");
        let mapped = client("::ffff:10.0.0.1", &[("x-forwarded-for", "192.0.2.7")]);
        assert_eq!(mapped.address, ip("192.0.2.7"));
    }

    #[test]
    fn forwarded_is_walked_alike() {
        for (value, wanted, https) in [
            ("for=192.0.2.7;proto=https", "192.0.2.7", Some(true)),
            (
                "For=\"[2001:DB9::1]:47\";Proto=HTTP",
                "2001:db9::1",
                Some(false),
            ),
            (
                "for=6.6.6.6, for=192.0.2.7;proto=https, for=10.0.0.2;proto=http",
                "192.0.2.7",
                Some(true),
            ),
            ("for=\"x, for=192.0.2.7;host=\"a,b;c\"", "192.0.2.7", None),
            ("for=\"6.6.6.6, for=192.0.2.7", "192.0.2.7", None),
            ("for=\"6.6.6.6, for=10.0.0.2", "10.0.0.2", None),
            ("for=_hidden;proto=https", "10.0.0.1", Some(true)),
            ("for=192.0.2.7;for=6.6.6.6", "10.0.0.1", None),
            ("for=192.0.2.7;proto", "10.0.0.1", None),
            ("for=\"192.0.2.7\\\"\"", "10.0.0.1", None),
            ("proto=https", "10.0.0.1", Some(true)),
        ] {
            let found = client("10.0.0.1", &[("forwarded", value)]);
            assert_eq!(found.address.to_string(), wanted, "{value}");
            assert_eq!(found.https, https, "{value}");
        }
    }

    #[test]
    fn a_contradiction_leaves_the_peer() {
        let found = client(
            "10.0.0.1",
            &[
                ("forwarded", "for=127.0.0.1;proto=https"),
                ("x-forwarded-for", "192.0.2.7"),
            ],
        );
        assert_eq!((found.address, found.https), (ip("10.0.0.1"), None));
        assert!(found.contradiction);
        let agreed = client(
            "10.0.0.1",
            &[
                ("forwarded", "for=192.0.2.7"),
                ("x-forwarded-for", "192.0.2.7"),
                ("x-forwarded-proto", "https"),
            ],
        );
        assert_eq!(
            (agreed.address, agreed.https),
            (ip("192.0.2.7"), Some(true))
        );
        assert!(!agreed.contradiction);
    }

    #[test]
    fn the_scheme_comes_from_the_outermost_trusted_hop() {
        let of = |proto: &'static str| {
            let fields = [
                ("x-forwarded-for", "192.0.2.7, 10.0.0.2"),
                ("x-forwarded-proto", proto),
            ];
            client("10.0.0.1", &fields).https
        };
        assert_eq!(of("https"), Some(true));
        assert_eq!(of("https, http"), Some(true));
        assert_eq!(
            of("http, https, http"),
            Some(true),
            "the first was the client's"
        );
        assert_eq!(of("gopher"), None);
        assert_eq!(of("wss"), Some(true));
        assert_eq!(of("WS, https"), Some(false));
        let standard = client("10.0.0.1", &[("forwarded", "for=192.0.2.7;proto=wss")]);
        assert_eq!(standard.https, Some(true));
        assert_eq!(
            client("10.0.0.1", &[("x-forwarded-proto", "https")]).https,
            Some(true)
        );
    }

    fn told(client: &Client, host: &str, scheme: Scheme) -> [String; 4] {
        let mut headers = headers(&[
            ("x-forwarded-for", "6.6.6.6"),
            ("x-forwarded-for", "6.6.6.7"),
            ("forwarded", "for=6.6.6.6"),
        ]);
        Introduction::new(client, host, scheme)
            .expect("a good host")
            .write(&mut headers);
        [
            "x-forwarded-for",
            "x-forwarded-proto",
            "x-forwarded-host",
            "forwarded",
        ]
        .map(|name| {
            assert_eq!(headers.get_all(name).iter().count(), 1, "{name}");
            let value = headers.get(name).and_then(|value| value.to_str().ok());
            value.unwrap_or_default().to_owned()
        })
    }

    #[test]
    fn a17_the_backend_is_told_the_chain_that_was_checked() {
        assert_eq!(
            told(&client("192.0.2.7", &[]), "app.example:8443", Scheme::Https),
            [
                "192.0.2.7",
                "https",
                "app.example:8443",
                "for=192.0.2.7;host=\"app.example:8443\";proto=https"
            ]
        );
        let behind = client(
            "10.0.0.1",
            &[
                ("x-forwarded-for", "6.6.6.6, 2001:db9::1, 10.0.0.2"),
                ("x-forwarded-proto", "https"),
            ],
        );
        assert_eq!(
            told(&behind, "a", Scheme::Http),
            [
                "2001:db9::1, 10.0.0.2, 10.0.0.1",
                "https",
                "a",
                "for=\"[2001:db9::1]\";host=\"a\";proto=https, for=10.0.0.2, for=10.0.0.1"
            ]
        );
    }
}
