//! Addresses of sockets and servers: what to listen on, where a backend is (RFC 3986 §3.2).
//!
//! Nothing here resolves names.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};

use super::value::{Complaint, FromValue, Node, Value, quoted, text_of};

/// A host as it stands in a URL: lower-case name or address.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Host {
    /// A DNS name in ASCII, lower-case, without a trailing dot.
    Name(String),
    /// An address.
    Ip(IpAddr),
}

impl Host {
    /// Reads a name, an IPv4 address or a bracketed IPv6 address.
    ///
    /// A name whose last label is a number is refused unless it is an address in four plain decimal parts: others
    /// (`127.1`, `0x7f.1`) mean different things to different programs.
    pub fn parse(text: &str) -> Option<Self> {
        if let Some(inner) = text.strip_prefix('[') {
            return inner
                .strip_suffix(']')?
                .parse::<Ipv6Addr>()
                .ok()
                .map(|address| Self::Ip(address.into()));
        }
        let label_ok = |label: &str| {
            (1..=63).contains(&label.len())
                && label
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
                && !label.starts_with('-')
                && !label.ends_with('-')
        };
        if text.len() > 253 || !text.split('.').all(label_ok) {
            return None;
        }
        let last = text.rsplit('.').next().unwrap_or(text);
        let number = last.bytes().all(|byte| byte.is_ascii_digit())
            || last
                .strip_prefix("0x")
                .or(last.strip_prefix("0X"))
                .is_some_and(is_hex);
        if number {
            return text.parse().ok().map(Self::Ip);
        }
        Some(Self::Name(text.to_ascii_lowercase()))
    }

    /// Whether a connection to it stays on this machine.
    pub fn is_loopback(&self) -> bool {
        match self {
            Self::Ip(address) => address.to_canonical().is_loopback(),
            Self::Name(name) => name == "localhost" || name.ends_with(".localhost"),
        }
    }
}

fn is_hex(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => f.write_str(name),
            Self::Ip(IpAddr::V4(address)) => write!(f, "{address}"),
            Self::Ip(IpAddr::V6(address)) => write!(f, "[{address}]"),
        }
    }
}

/// `host` or `host:port`, nothing else; the port without leading zeros and not 0.
pub(crate) fn host_and_port(text: &str) -> Option<(Host, Option<u16>)> {
    let end = if text.starts_with('[') {
        text.find(']')? + 1
    } else {
        text.find(':').unwrap_or(text.len())
    };
    let (host, rest) = text.split_at_checked(end)?;
    let port = match rest.strip_prefix(':') {
        None if rest.is_empty() => None,
        None => return None,
        Some(port) if port.starts_with('0') || !port.bytes().all(|byte| byte.is_ascii_digit()) => {
            return None;
        }
        Some(port) => Some(port.parse().ok()?),
    };
    Some((Host::parse(host)?, port))
}

/// How a backend is spoken to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scheme {
    /// HTTP/1.1 in clear.
    Http,
    /// HTTP over TLS.
    Https,
    /// HTTP/2 in clear, by prior knowledge (RFC 9113 §3.3).
    H2c,
}

impl Scheme {
    /// As written before `://`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
            Self::H2c => "h2c",
        }
    }

    /// The port when none is written.
    pub fn default_port(self) -> u16 {
        match self {
            Self::Http | Self::H2c => 80,
            Self::Https => 443,
        }
    }
}

/// Where one server of an upstream is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ServerUrl {
    /// `http://`, `https://` or `h2c://` with a host and a port.
    Tcp {
        /// How it is spoken to.
        scheme: Scheme,
        /// Its name or address.
        host: Host,
        /// Its port, the default one filled in.
        port: u16,
    },
    /// HTTP/1.1 over the socket at an absolute path.
    Unix(PathBuf),
}

impl ServerUrl {
    /// How it is spoken to; a socket is spoken to in clear HTTP/1.1.
    pub fn scheme(&self) -> Scheme {
        match self {
            Self::Tcp { scheme, .. } => *scheme,
            Self::Unix(_) => Scheme::Http,
        }
    }
}

impl fmt::Display for ServerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { scheme, host, port } => write!(f, "{}://{host}:{port}", scheme.as_str()),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

const SERVER: &str = "a server address such as `http://127.0.0.1:8000`";

impl FromValue for ServerUrl {
    fn from_value(value: &Value) -> Result<Self, Complaint> {
        let text = text_of(value, SERVER)?;
        if let Some(path) = text.strip_prefix("unix:") {
            return socket(path).map(Self::Unix);
        }
        let (scheme, rest) = match text.split_once("://") {
            Some(("http", rest)) => (Scheme::Http, rest),
            Some(("https", rest)) => (Scheme::Https, rest),
            Some(("h2c", rest)) => (Scheme::H2c, rest),
            Some((scheme, _)) => {
                return Err(Complaint::new(format!(
                    "{} is not a scheme for servers",
                    quoted(scheme)
                ))
                .hint("`http://`, `https://`, `h2c://` or `unix:/path`"));
            }
            None => {
                let complaint = Complaint::new(format!("{} is not a server address", quoted(text)));
                return Err(match host_and_port(text) {
                    Some(_) => complaint.hint(format!("with its scheme: `http://{text}`")),
                    None => {
                        complaint.hint("such as `http://127.0.0.1:8000` or `unix:/run/app.sock`")
                    }
                });
            }
        };
        let (host, port) = authority(rest, scheme.as_str())?;
        Ok(Self::Tcp {
            scheme,
            host,
            port: port.unwrap_or(scheme.default_port()),
        })
    }
}

/// The part after `://` where no path may follow.
fn authority(rest: &str, scheme: &str) -> Result<(Host, Option<u16>), Complaint> {
    refuse_userinfo(rest)?;
    if let Some((authority, _)) = rest.split_once(['/', '?', '#']) {
        return Err(
            Complaint::new("a server address has no path, query or fragment").hint(format!(
                "`{scheme}://{authority}`; paths belong to blueprints and routes"
            )),
        );
    }
    host_and_port(rest).ok_or_else(|| {
        Complaint::new(format!(
            "{} is not a host with an optional port",
            quoted(rest)
        ))
        .hint("names in ASCII, IPv6 addresses in brackets, ports from 1 to 65535")
    })
}

/// A password in a URL is refused without being shown.
pub(crate) fn refuse_userinfo(rest: &str) -> Result<(), Complaint> {
    let authority = rest.split(['/', '?', '#']).next().unwrap_or(rest);
    if authority.contains('@') {
        return Err(
            Complaint::new("a user name or password in an address is not allowed").concealed(),
        );
    }
    Ok(())
}

fn socket(path: &str) -> Result<PathBuf, Complaint> {
    let complaint = |why| Complaint::new(format!("{} {why}", quoted(path)));
    if !Path::new(path).is_absolute() || path.starts_with("//") {
        return Err(
            complaint("is not an absolute path of a socket").hint("such as `unix:/run/app.sock`")
        );
    }
    // The kernel's `sun_path` has 108 bytes with the closing zero.
    if path.len() > 107 || path.contains('\0') {
        return Err(complaint("is too long for a socket path"));
    }
    Ok(PathBuf::from(path))
}

/// What a listener binds to.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ListenAddr {
    /// An address and port; port 0 lets the system choose.
    Tcp(SocketAddr),
    /// A socket at an absolute path.
    Unix(PathBuf),
}

impl ListenAddr {
    /// Whether only this machine can reach it.
    pub fn is_local(&self) -> bool {
        match self {
            Self::Tcp(address) => address.ip().to_canonical().is_loopback(),
            Self::Unix(_) => true,
        }
    }
}

impl fmt::Display for ListenAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => write!(f, "{address}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl FromValue for ListenAddr {
    fn from_value(value: &Value) -> Result<Self, Complaint> {
        if let Node::Integer(port) = value.node {
            return Err(value
                .expected("an address to listen on")
                .hint(format!("with its address: `\"[::]:{port}\"`")));
        }
        let text = text_of(value, "an address to listen on")?;
        if let Some(path) = text.strip_prefix("unix:") {
            return socket(path).map(Self::Unix);
        }
        text.parse().map(Self::Tcp).map_err(|_| {
            Complaint::new(format!("{} is not an address with a port", quoted(text)))
                .hint(listen_hint(text))
        })
    }
}

fn listen_hint(text: &str) -> String {
    let port = text
        .rsplit(':')
        .next()
        .filter(|port| port.parse::<u16>().is_ok());
    match (port, text.split_once(':')) {
        (Some(port), None | Some(("" | "*", _))) => {
            format!("all addresses: `[::]:{port}`, this machine: `127.0.0.1:{port}`")
        }
        (Some(port), Some(("localhost", _))) => {
            format!("names are not looked up: `127.0.0.1:{port}` or `[::1]:{port}`")
        }
        _ => "such as `127.0.0.1:8443`, `[::]:8443` or `unix:/run/portcullis.sock`".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::{Host, ListenAddr, ServerUrl, host_and_port};
    use crate::config::Show;
    use crate::config::value::read;

    fn server(text: &str) -> Result<String, String> {
        read::<ServerUrl>(&format!("{text:?}"))
            .map(|url| url.to_string())
            .map_err(|complaint| complaint.hint.unwrap_or(complaint.message))
    }

    #[test]
    fn servers() {
        assert_eq!(
            server("http://127.0.0.1:8000").as_deref(),
            Ok("http://127.0.0.1:8000")
        );
        assert_eq!(
            server("https://App.Example").as_deref(),
            Ok("https://app.example:443")
        );
        assert_eq!(server("h2c://[::1]").as_deref(), Ok("h2c://[::1]:80"));
        assert_eq!(
            server("unix:/run/app.sock").as_deref(),
            Ok("unix:/run/app.sock")
        );
        assert_eq!(
            server("app:8000"),
            Err("with its scheme: `http://app:8000`".into())
        );
        assert_eq!(
            server("http://app/"),
            Err("`http://app`; paths belong to blueprints and routes".into())
        );
    }

    #[test]
    fn hostile_servers() {
        for bad in [
            "",
            "http://",
            "http://:80",
            "http://a:0",
            "http://a:080",
            "http://a:65536",
            "http://a:",
            "http://a:+8",
            "http://a b",
            "http://a\\b",
            "http://a..b",
            "http://.a",
            "http://a.",
            "http://ä.example",
            "http://[::1",
            "http://::1",
            "http://[::1]x",
            "http://[fe80::1%25eth0]",
            "http://127.1",
            "http://0x7f.0.0.1",
            "http://0177.0.0.1",
            "http://2130706433",
            "http://1.2.3.0x4",
            "ftp://a",
            "HTTP://a",
            "http://a?x",
            "http://a#x",
            "unix:",
            "unix:app.sock",
            "unix://app.sock",
            "http://a\r\nHost: b",
        ] {
            assert!(server(bad).is_err(), "{bad:?}");
        }
        assert!(server(&format!("unix:/{}", "x".repeat(107))).is_err());
    }

    #[test]
    fn a_password_in_an_address_is_not_shown() {
        let complaint = read::<ServerUrl>("\"http://me:hunter2@app\"").unwrap_err();
        assert_eq!(complaint.show, Show::PlaceOnly);
        assert!(!format!("{complaint:?}").contains("hunter2"));
    }

    #[test]
    fn loopback_by_name_and_address() {
        let loopback = |text: &str| host_and_port(text).is_some_and(|(host, _)| host.is_loopback());
        assert!(loopback("localhost") && loopback("app.localhost") && loopback("127.9.9.9"));
        assert!(loopback("[::1]") && loopback("[::ffff:127.0.0.1]"));
        assert!(
            !loopback("localhost.example") && !loopback("128.0.0.1") && !loopback("notlocalhost")
        );
        assert_eq!(
            Host::parse("A.Example"),
            Some(Host::Name("a.example".into()))
        );
    }

    #[test]
    fn listeners() {
        let listen = |text: &str| read::<ListenAddr>(text);
        assert_eq!(
            listen("\"[::]:8443\"").map(|address| address.is_local()),
            Ok(false)
        );
        assert_eq!(
            listen("\"127.0.0.1:0\"").map(|address| address.is_local()),
            Ok(true)
        );
        assert_eq!(
            listen("\"unix:/run/p.sock\"").map(|address| address.is_local()),
            Ok(true)
        );
        for (bad, hint) in [
            (
                "\":8443\"",
                "all addresses: `[::]:8443`, this machine: `127.0.0.1:8443`",
            ),
            (
                "\"8443\"",
                "all addresses: `[::]:8443`, this machine: `127.0.0.1:8443`",
            ),
            (
                "\"localhost:80\"",
                "names are not looked up: `127.0.0.1:80` or `[::1]:80`",
            ),
            ("8443", "with its address: `\"[::]:8443\"`"),
            (
                "\"127.0.0.1\"",
                "such as `127.0.0.1:8443`, `[::]:8443` or `unix:/run/portcullis.sock`",
            ),
        ] {
            assert_eq!(
                listen(bad).unwrap_err().hint.as_deref(),
                Some(hint),
                "{bad}"
            );
        }
    }
}
