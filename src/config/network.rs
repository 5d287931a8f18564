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
        let network = network(text).ok_or_else(|| {
            complaint("is not a network")
                .hint("such as `10.0.0.0/8`, `2001:db8::/32` or one address")
        })?;
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

/// The standard library reads the address: `010.0.0.0` is octal to some programs and decimal to others, so not here.
fn network(text: &str) -> Option<IpNet> {
    let Some((address, bits)) = text.split_once('/') else {
        return text.parse::<IpAddr>().ok().map(IpNet::from);
    };
    let plain = bits == "0" || !bits.starts_with(['0', '+']);
    let bits = bits.parse().ok().filter(|_| plain)?;
    IpNet::new(address.parse().ok()?, bits).ok()
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

#[cfg(test)]
mod tests {
    use super::{Cidr, Origin, OriginPattern};
    use crate::config::value::read;

    fn hint<T: super::FromValue>(text: &str) -> Option<String> {
        read::<T>(&format!("{text:?}"))
            .err()
            .map(|complaint| complaint.hint.unwrap_or_default())
    }

    #[test]
    fn networks() {
        let network = |text: &str| read::<Cidr>(&format!("{text:?}")).expect(text);
        assert_eq!(network("10.0.0.0/8").to_string(), "10.0.0.0/8");
        assert_eq!(network("192.0.2.7").to_string(), "192.0.2.7/32");
        assert_eq!(network("2001:db8::1").to_string(), "2001:db8::1/128");
        assert!(network("10.0.0.0/8").contains("::ffff:10.1.2.3".parse().expect("valid")));
        assert!(!network("10.0.0.0/8").contains("11.0.0.0".parse().expect("valid")));
        assert_eq!(hint::<Cidr>("10.1.2.3/8").as_deref(), Some("`10.0.0.0/8`"));
        assert_eq!(
            hint::<Cidr>("2001:db8::1/32").as_deref(),
            Some("`2001:db8::/32`")
        );
        assert_eq!(
            hint::<Cidr>("::ffff:10.0.0.0/104").as_deref(),
            Some("`10.0.0.0/8`")
        );
        for bad in [
            "",
            "10.0.0.0/33",
            "10.0.0/8",
            "010.0.0.0/8",
            "10.0.0.0/08",
            "10.0.0.0/+8",
            "10.0.0.0/8/8",
            "10.0.0.0/",
            "10.0.0.0/-1",
            "::/129",
            "any",
            "fe80::1%eth0",
        ] {
            assert!(hint::<Cidr>(bad).is_some(), "{bad:?}");
        }
    }

    #[test]
    fn origins_come_out_as_browsers_send_them() {
        let origin = |text: &str| {
            read::<Origin>(&format!("{text:?}"))
                .expect(text)
                .to_string()
        };
        assert_eq!(origin("HTTPS://App.Example:443"), "https://app.example");
        assert_eq!(origin("http://app.example:8080"), "http://app.example:8080");
        assert_eq!(origin("https://[2001:DB8::1]"), "https://[2001:db8::1]");
        assert_eq!(origin("capacitor://localhost"), "capacitor://localhost");
        assert_eq!(
            hint::<Origin>("https://app.example/").as_deref(),
            Some("`https://app.example`")
        );
        assert_eq!(
            hint::<Origin>("app.example").as_deref(),
            Some("with its scheme: `https://app.example`")
        );
        for bad in [
            "",
            "null",
            "*",
            "https://",
            "https://*.a.example",
            "file:///x",
            "https://a b",
            "https://ü.example",
            "https://a.example.",
            "https://a:b@c",
            "https://a:0",
            "data:text/html,x",
            "://a",
            "https://a\n",
        ] {
            assert!(hint::<Origin>(bad).is_some(), "{bad:?}");
        }
    }

    #[test]
    fn one_label_stands_for_the_star() {
        let pattern = read::<OriginPattern>("\"https://*.partner.example\"").expect("valid");
        assert!(pattern.matches(b"https://a.partner.example"));
        for other in [
            "https://partner.example",
            "https://.partner.example",
            "https://a.b.partner.example",
            "http://a.partner.example",
            "https://a.partner.example:8443",
            "https://a.partner.example.evil.example",
            "https://evil.example/.partner.example",
            "https://apartner.example",
            "https://A.partner.example",
            "https://a\0.partner.example",
            "null",
            "",
        ] {
            assert!(!pattern.matches(other.as_bytes()), "{other:?}");
        }
        let with_port = read::<OriginPattern>("\"https://*.a.example:8443\"").expect("valid");
        assert!(with_port.matches(b"https://x.a.example:8443"));
        assert_eq!(with_port.to_string(), "https://*.a.example:8443");
    }

    #[test]
    fn patterns_too_wide_or_misplaced_are_refused() {
        for bad in [
            "https://*",
            "https://*.com",
            "https://*.",
            "https://a.*.example",
            "https://*a.example",
            "https://*.*.example",
            "https://*.127.0.0.1",
            "https://*.[::1]",
            "*.a.example",
            "https://*.a.example/x",
            "**",
        ] {
            assert!(hint::<OriginPattern>(bad).is_some(), "{bad:?}");
        }
        assert_eq!(read::<OriginPattern>("\"*\""), Ok(OriginPattern::Any));
        assert!(read::<OriginPattern>("\"http://*.localhost\"").is_ok());
    }
}
