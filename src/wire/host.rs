//! Host names: the one authority of a request, and the patterns that routes and certificates compare it with.
//!
//! For routing, for the 421 rule and for the `Host` that is forwarded (RFC 9110 §7.2, RFC 3986 §3.2). Anything two
//! readers could read differently is refused: user information, lists, escapes, empty labels, odd ports. It resolves
//! nothing and knows no international names but in their ASCII form.

use std::fmt;
use std::io::Write as _;
use std::net::{IpAddr, Ipv6Addr};
use std::str::FromStr;
use std::sync::Arc;

/// The longest authority that is accepted, in bytes.
const LONGEST: usize = 255;
/// The longest label of a name (RFC 1035 §2.3.4).
const LONGEST_LABEL: usize = 63;

/// Why an authority is refused. All of them are answered with 400.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HostError {
    /// No host at all.
    #[error("an empty host")]
    Empty,
    /// More than 255 bytes, or a label of more than 63.
    #[error("a host that is too long")]
    TooLong,
    /// A byte that stands in no host name: space, comma, `@`, an escape, anything outside ASCII.
    #[error("a byte that may not stand in a host")]
    BadByte,
    /// Two dots in a row, or one at the start.
    #[error("an empty label in a host")]
    EmptyLabel,
    /// Brackets that hold no IPv6 address.
    #[error("not an IPv6 address in brackets")]
    BadAddress,
    /// A port that is not a plain number from 1 to 65535.
    #[error("a malformed port")]
    BadPort,
}

/// A host and maybe a port, in lower case and without a trailing dot; only [`Authority::parse`] makes one.
///
/// A clone is cheap and reading it costs nothing: most requests of a connection are for the same one, and all of them
/// look at it often.
#[derive(Clone)]
pub struct Authority {
    text: Arc<str>,
    host_length: usize,
    port: Option<u16>,
}

impl Authority {
    /// Reads the value of a `Host` field or an `:authority`.
    ///
    /// # Errors
    /// [`HostError`] for whatever is not exactly one host.
    pub fn parse(source: &[u8]) -> Result<Self, HostError> {
        if source.is_empty() {
            return Err(HostError::Empty);
        }
        if source.len() > LONGEST {
            return Err(HostError::TooLong);
        }
        if source.first() == Some(&b'[') {
            return parse_literal(source);
        }
        let (host, port) = match source.iter().position(|&byte| byte == b':') {
            Some(at) => {
                let (host, rest) = source.split_at(at);
                (host, Some(parse_port(rest)?))
            }
            None => (source, None),
        };
        let host = host.strip_suffix(b".").unwrap_or(host);
        check_name(host)?;
        Ok(Self::assemble(host, port))
    }

    /// Host and port, as they are written into `Host`.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The host alone; an IPv6 address keeps its brackets.
    pub fn host(&self) -> &str {
        self.as_str().get(..self.host_length).unwrap_or_default()
    }

    /// The port, if one was written.
    pub fn port(&self) -> Option<u16> {
        self.port
    }

    /// The address, if the host is one.
    pub fn address(&self) -> Option<IpAddr> {
        let host = self.host();
        let bare = host
            .strip_prefix('[')
            .and_then(|rest| rest.strip_suffix(']'));
        bare.unwrap_or(host).parse().ok()
    }

    /// Lower-cases a checked host and puts the port after it.
    fn assemble(host: &[u8], port: Option<u16>) -> Self {
        // A checked host is ASCII, so each byte is a character.
        let mut text = String::with_capacity(host.len() + 6);
        text.extend(
            host.iter()
                .map(|byte| char::from(byte.to_ascii_lowercase())),
        );
        if let Some(port) = port {
            text.push(':');
            text.push_str(itoa::Buffer::new().format(port));
        }
        Self {
            text: text.into(),
            host_length: host.len(),
            port,
        }
    }
}

/// `[address]` or `[address]:port`; the address is written in its one short form (RFC 5952).
fn parse_literal(source: &[u8]) -> Result<Authority, HostError> {
    let end = source
        .iter()
        .position(|&byte| byte == b']')
        .ok_or(HostError::BadAddress)?;
    let inside = source
        .get(1..end)
        .and_then(|inside| std::str::from_utf8(inside).ok());
    let address = inside
        .and_then(|inside| inside.parse::<Ipv6Addr>().ok())
        .ok_or(HostError::BadAddress)?;
    let port = match source.get(end + 1..) {
        None | Some([]) => None,
        Some(rest) => Some(parse_port(rest)?),
    };
    let mut buffer = [0u8; 50];
    let room = buffer.len();
    let mut rest = buffer.as_mut_slice();
    write!(rest, "[{address}]").map_err(|_| HostError::BadAddress)?;
    let used = room - rest.len();
    let host = buffer.get(..used).ok_or(HostError::BadAddress)?;
    Ok(Authority::assemble(host, port))
}

/// `:` and one to five digits, without leading zeros.
fn parse_port(text: &[u8]) -> Result<u16, HostError> {
    let digits = text.strip_prefix(b":").ok_or(HostError::BadPort)?;
    if digits.is_empty() || digits.len() > 5 || digits.first() == Some(&b'0') {
        return Err(HostError::BadPort);
    }
    let mut value = 0u32;
    for &digit in digits {
        if !digit.is_ascii_digit() {
            return Err(HostError::BadPort);
        }
        value = value * 10 + u32::from(digit - b'0');
    }
    u16::try_from(value).map_err(|_| HostError::BadPort)
}

fn check_name(host: &[u8]) -> Result<(), HostError> {
    if host.is_empty() {
        return Err(HostError::Empty);
    }
    let mut label = 0usize;
    for &byte in host {
        match byte {
            b'.' if label == 0 => return Err(HostError::EmptyLabel),
            b'.' => label = 0,
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' => {
                label += 1;
                if label > LONGEST_LABEL {
                    return Err(HostError::TooLong);
                }
            }
            _ => return Err(HostError::BadByte),
        }
    }
    // One trailing dot is gone already; a second one leaves an empty label.
    if label == 0 {
        return Err(HostError::EmptyLabel);
    }
    Ok(())
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Authority({})", self.as_str())
    }
}

impl fmt::Display for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl PartialEq for Authority {
    fn eq(&self, other: &Self) -> bool {
        self.as_str() == other.as_str()
    }
}

impl Eq for Authority {}

/// A host name or a wildcard for exactly one label (`*.example.com`), in lower case.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HostPattern(Box<str>);

impl HostPattern {
    /// Whether a host in lower case, as [`Authority::host`] gives it, is meant.
    pub fn matches(&self, host: &str) -> bool {
        match self.suffix() {
            None => *self.0 == *host,
            Some(suffix) => host
                .split_once('.')
                .is_some_and(|(label, rest)| !label.is_empty() && rest == suffix),
        }
    }

    /// The pattern as it was written, in lower case.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// What follows `*.`, for a wildcard: the key to look it up by the parent of a host.
    pub fn suffix(&self) -> Option<&str> {
        self.0.strip_prefix("*.")
    }
}

impl FromStr for HostPattern {
    type Err = HostError;

    /// Reads a name, an address or `*.` with a name; a port is refused.
    fn from_str(text: &str) -> Result<Self, HostError> {
        let (wildcard, name) = match text.strip_prefix("*.") {
            Some(name) => (true, name),
            None => (false, text),
        };
        // Certificates name IPv6 addresses without brackets.
        if let (false, Ok(address)) = (wildcard, name.parse::<Ipv6Addr>()) {
            return Ok(Self(format!("[{address}]").into_boxed_str()));
        }
        let authority = Authority::parse(name.as_bytes())?;
        if authority.port().is_some() {
            return Err(HostError::BadPort);
        }
        if wildcard && authority.address().is_some() {
            return Err(HostError::BadAddress);
        }
        let pattern = if wildcard {
            format!("*.{}", authority.host())
        } else {
            authority.host().to_owned()
        };
        Ok(Self(pattern.into_boxed_str()))
    }
}

impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{Authority, HostError, HostPattern};

    fn parse(text: &str) -> Result<Authority, HostError> {
        Authority::parse(text.as_bytes())
    }

    #[test]
    fn one_form_for_each_host() {
        for (text, host, port) in [
            ("app.example", "app.example", None),
            ("APP.Example.", "app.example", None),
            ("app.example.:8443", "app.example", Some(8443)),
            ("my_app-1", "my_app-1", None),
            ("127.0.0.1:80", "127.0.0.1", Some(80)),
            ("[::1]", "[::1]", None),
            ("[2001:DB8:0::1]:443", "[2001:db8::1]", Some(443)),
        ] {
            let authority = parse(text).expect("a good host");
            assert_eq!(authority.host(), host);
            assert_eq!(authority.port(), port);
            let whole = port.map_or(host.to_owned(), |port| format!("{host}:{port}"));
            assert_eq!(authority.as_str(), whole);
        }
        let address = parse("[::1]:1").expect("a good host").address();
        assert_eq!(address, Some("::1".parse().expect("an address")));
        assert_eq!(parse("app.example").expect("a good host").address(), None);
    }

    #[test]
    fn long_hosts_are_kept_too() {
        let label = "a".repeat(63);
        let host = format!("{label}.{label}.{label}.example");
        let authority = parse(&format!("{host}:8443")).expect("a good host");
        assert_eq!(authority.host(), host);
        assert_eq!(authority.as_str(), format!("{host}:8443"));
        assert_eq!(parse(&"a".repeat(64)), Err(HostError::TooLong));
        assert_eq!(parse(&"a.".repeat(128)), Err(HostError::TooLong));
    }

    #[test]
    fn a13_what_is_not_exactly_one_host_is_refused() {
        for (text, wanted) in [
            ("", HostError::Empty),
            (".", HostError::Empty),
            (":80", HostError::Empty),
            ("a@b", HostError::BadByte),
            ("a, b", HostError::BadByte),
            ("a b", HostError::BadByte),
            (" a", HostError::BadByte),
            ("a/b", HostError::BadByte),
            ("a%2eb", HostError::BadByte),
            ("ä", HostError::BadByte),
            ("a..b", HostError::EmptyLabel),
            (".a", HostError::EmptyLabel),
            ("a..", HostError::EmptyLabel),
            ("a:", HostError::BadPort),
            ("a:0", HostError::BadPort),
            ("a:080", HostError::BadPort),
            ("a:+80", HostError::BadPort),
            ("a:65536", HostError::BadPort),
            ("a:80:80", HostError::BadPort),
            ("::1", HostError::BadPort),
            ("[::1", HostError::BadAddress),
            ("[::1%25eth0]", HostError::BadAddress),
            ("[127.0.0.1]", HostError::BadAddress),
            ("[::1]80", HostError::BadPort),
            ("[::1].", HostError::BadPort),
        ] {
            assert_eq!(parse(text), Err(wanted), "{text}");
        }
        assert_eq!(Authority::parse(b"a\0b"), Err(HostError::BadByte));
        assert_eq!(Authority::parse(b"a\tb"), Err(HostError::BadByte));
    }

    #[test]
    fn a_wildcard_stands_for_one_label() {
        let wildcard: HostPattern = "*.Example.com".parse().expect("a good pattern");
        assert_eq!(wildcard.as_str(), "*.example.com");
        assert_eq!(wildcard.suffix(), Some("example.com"));
        assert!(wildcard.matches("a.example.com"));
        for host in [
            "example.com",
            ".example.com",
            "a.b.example.com",
            "a.example.com.evil.com",
            "aexample.com",
        ] {
            assert!(!wildcard.matches(host), "{host}");
        }
        let exact: HostPattern = "App.example".parse().expect("a good pattern");
        assert!(exact.matches("app.example") && !exact.matches("b.app.example"));
        let address: HostPattern = "2001:db8::0:1".parse().expect("a good pattern");
        assert!(address.matches("[2001:db8::1]"));
        for text in ["*", "*.", "a.*.b", "a*.b", "*.*.b", "app:80", "*.[::1]", ""] {
            assert!(text.parse::<HostPattern>().is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn parsing_is_idempotent(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
            if let Ok(authority) = Authority::parse(&bytes) {
                let again = parse(authority.as_str());
                prop_assert_eq!(again.as_ref(), Ok(&authority));
            }
        }

        #[test]
        fn names_parse_to_themselves(name in "[a-z0-9_-]{1,20}(\\.[a-z0-9_-]{1,20}){0,4}") {
            let authority = parse(&name).expect("a good host");
            prop_assert_eq!(authority.as_str(), name);
        }
    }
}
