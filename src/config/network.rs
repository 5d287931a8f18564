//! Networks and origins, as lists of what is let in name them (RFC 4632, RFC 6454).

use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;

use super::address::host_and_port;
use super::value::{Complaint, FromValue, Value, quoted, text_of};

/// A network of addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Cidr(pub IpNet);

impl Cidr {
    /// Whether the address belongs to it; an IPv4 address inside IPv6 counts as IPv4.
    pub fn contains(&self, address: IpAddr) -> bool {
        self.0.contains(&address.to_canonical())
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromValue for Cidr {
    fn from_value(value: &Value) -> Result<Self, Complaint> {
        let text = text_of(value, "a network such as `10.0.0.0/8`")?;
        let complaint = |why: &str| Complaint::new(format!("{} {why}", quoted(text)));
        let network = match text.parse::<IpAddr>() {
            Ok(address) => IpNet::from(address),
            Err(_) => text.parse().map_err(|_| {
                complaint("is not a network")
                    .hint("such as `10.0.0.0/8`, `2001:db8::/32` or one address")
            })?,
        };
        if network.addr() != network.network() {
            return Err(
                complaint("has bits set behind its mask").hint(format!("`{}`", network.trunc()))
            );
        }
        if let IpAddr::V6(address) = network.addr()
            && let Some(inner) = address.to_ipv4_mapped()
        {
            let bits = network.prefix_len().saturating_sub(96);
            return Err(complaint("is IPv4 in IPv6 clothes").hint(format!("`{inner}/{bits}`")));
        }
        Ok(Self(network))
    }
}

/// An origin in the form in which browsers send it: lower-case, without the default port.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Origin(String);

impl Origin {
    /// `scheme://host` or `scheme://host:port`.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromValue for Origin {
    fn from_value(value: &Value) -> Result<Self, Complaint> {
        let text = text_of(value, ORIGIN)?;
        let (scheme, rest) = split(text)?;
        canonical(text, &scheme, rest).map(Self)
    }
}

const ORIGIN: &str = "an origin such as `https://app.example`";

fn refused(text: &str, why: &str) -> Complaint {
    Complaint::new(format!("{} {why}", quoted(text)))
}

/// The scheme in lower-case and what follows `://`.
fn split(text: &str) -> Result<(String, &str), Complaint> {
    if text == "null" {
        return Err(refused(
            text,
            "is the origin of every sandboxed page, not of one site",
        ));
    }
    let Some((scheme, rest)) = text.split_once("://") else {
        let complaint = refused(text, "is not an origin");
        return Err(match host_and_port(text) {
            Some(_) => complaint.hint(format!("with its scheme: `https://{text}`")),
            None => complaint.hint(format!("expected {ORIGIN}")),
        });
    };
    let well_formed = scheme.starts_with(|first: char| first.is_ascii_alphabetic())
        && scheme
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.'));
    if !well_formed || scheme.eq_ignore_ascii_case("file") {
        return Err(refused(text, "is not an origin").hint(format!("expected {ORIGIN}")));
    }
    super::address::refuse_userinfo(rest)?;
    Ok((scheme.to_ascii_lowercase(), rest))
}

fn canonical(text: &str, scheme: &str, rest: &str) -> Result<String, Complaint> {
    if let Some((authority, _)) = rest.split_once(['/', '?', '#']) {
        return Err(
            refused(text, "has a path: an origin ends after host and port")
                .hint(format!("`{scheme}://{authority}`")),
        );
    }
    if rest.contains('*') {
        return Err(refused(
            text,
            "holds `*` where one exact origin is expected",
        ));
    }
    let (host, port) = host_and_port(rest).ok_or_else(|| {
        refused(text, "has no valid host and port")
            .hint("names in ASCII (`xn--…`), IPv6 addresses in brackets")
    })?;
    let default = match scheme {
        "http" | "ws" => Some(80),
        "https" | "wss" => Some(443),
        _ => None,
    };
    Ok(match port.filter(|port| Some(*port) != default) {
        Some(port) => format!("{scheme}://{host}:{port}"),
        None => format!("{scheme}://{host}"),
    })
}

/// Which origins are meant: all, one, or each direct subdomain of one.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum OriginPattern {
    /// `*`
    Any,
    /// One origin.
    Exact(Origin),
    /// `https://*.partner.example`: exactly one label stands for the star.
    OneLabel {
        /// Scheme and `://`.
        before: String,
        /// From the dot on, with the port if it is not the default one.
        after: String,
    },
}

impl OriginPattern {
    /// Whether the value of an `Origin` header is meant; byte for byte, as browsers send the canonical form.
    pub fn matches(&self, origin: &[u8]) -> bool {
        match self {
            Self::Any => true,
            Self::Exact(exact) => exact.as_str().as_bytes() == origin,
            Self::OneLabel { before, after } => origin
                .strip_prefix(before.as_bytes())
                .and_then(|rest| rest.strip_suffix(after.as_bytes()))
                .is_some_and(is_label),
        }
    }
}

fn is_label(label: &[u8]) -> bool {
    (1..=63).contains(&label.len())
        && label
            .iter()
            .all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_'))
}

impl fmt::Display for OriginPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.write_str("*"),
            Self::Exact(origin) => origin.fmt(f),
            Self::OneLabel { before, after } => write!(f, "{before}*{after}"),
        }
    }
}

impl FromValue for OriginPattern {
    fn from_value(value: &Value) -> Result<Self, Complaint> {
        let text = text_of(value, ORIGIN)?;
        if text == "*" {
            return Ok(Self::Any);
        }
        let (scheme, rest) = split(text)?;
        let Some(parent) = rest.strip_prefix("*.") else {
            if rest.contains('*') {
                return Err(
                    refused(text, "has `*` elsewhere than as the whole first label")
                        .hint("such as `https://*.partner.example`"),
                );
            }
            return canonical(text, &scheme, rest).map(Origin).map(Self::Exact);
        };
        let parent = canonical(text, &scheme, parent)?;
        let before = format!("{scheme}://");
        let after = parent.strip_prefix(&before).unwrap_or(&parent);
        let host = after.split(':').next().unwrap_or(after);
        if host.starts_with('[') || host.parse::<IpAddr>().is_ok() {
            return Err(refused(text, "has `*` before an address"));
        }
        if !host.contains('.') && host != "localhost" {
            return Err(refused(
                text,
                "would let in every site under a top-level domain",
            ));
        }
        Ok(Self::OneLabel {
            after: format!(".{after}"),
            before,
        })
    }
}
