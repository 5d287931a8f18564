//! Who the client is: nothing ambiguous is believed, and what we write is read back as we meant it.
//!
//! An input is the peer's address, then a line a field as in a request. The strict reader below goes from left to right,
//! as RFC 7239 §4 tells it, and knows no way to go on behind an error.

use std::net::{IpAddr, SocketAddr};

use http::{HeaderMap, HeaderName, HeaderValue, header::FORWARDED};
use ipnet::IpNet;
use portcullis::wire::forwarded::{
    Client, Introduction, Scheme, X_FORWARDED_FOR, X_FORWARDED_PROTO, client_of, is_trusted,
};

/// Holds an input against the properties.
pub fn hold(data: &[u8]) {
    let mut lines = data.split(|&octet| octet == b'\n');
    let peer = lines
        .next()
        .and_then(|line| std::str::from_utf8(line).ok()?.parse().ok());
    let peer: IpAddr = peer.unwrap_or(IpAddr::from([10, 0, 0, 1]));
    let headers = fields(lines);
    let trusted: Vec<IpNet> = ["10.0.0.0/8", "2001:db8::/32"]
        .iter()
        .map(|network| network.parse().expect("a network"))
        .collect();
    let client = client_of(peer, &headers, &trusted);
    if is_trusted(peer, &trusted) {
        conflicts(&client, peer, &headers, &trusted);
        matches_strict_reader(&client, peer, &headers, &trusted);
        cannot_be_swallowed(peer, &headers, &trusted);
        says_nothing_twice(peer, &headers, &trusted);
    } else {
        assert_eq!(
            (client.address, client.https),
            (peer.to_canonical(), None),
            "an untrusted peer is believed"
        );
        assert!(!client.contradiction);
    }
    comes_back(&client, &trusted);
}

fn fields<'a>(lines: impl Iterator<Item = &'a [u8]>) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for line in lines {
        let mut halves = line.splitn(2, |&octet| octet == b':');
        let name = halves
            .next()
            .and_then(|name| HeaderName::from_bytes(name).ok());
        let value = halves
            .next()
            .and_then(|value| HeaderValue::from_bytes(value.trim_ascii()).ok());
        if let (Some(name), Some(value)) = (name, value) {
            headers.append(name, value);
        }
    }
    headers
}

fn without(headers: &HeaderMap, name: &HeaderName) -> HeaderMap {
    let mut headers = headers.clone();
    headers.remove(name);
    headers
}

/// Two fields that name different clients are believed neither; two that agree are no conflict.
fn conflicts(client: &Client, peer: IpAddr, headers: &HeaderMap, trusted: &[IpNet]) {
    let both = headers.contains_key(FORWARDED) && headers.contains_key(X_FORWARDED_FOR);
    let standard = client_of(peer, &without(headers, &X_FORWARDED_FOR), trusted);
    let custom = client_of(peer, &without(headers, &FORWARDED), trusted);
    assert_eq!(
        client.contradiction,
        both && standard.address != custom.address
    );
    if client.contradiction {
        assert_eq!((client.address, client.https), (peer.to_canonical(), None));
    }
}

/// Where a field follows its grammar throughout, the client is who it names.
fn matches_strict_reader(client: &Client, peer: IpAddr, headers: &HeaderMap, trusted: &[IpNet]) {
    if client.contradiction {
        return;
    }
    let lines = |name: &HeaderName| -> Option<Vec<&str>> {
        let lines = headers.get_all(name).iter().map(HeaderValue::to_str);
        lines.collect::<Result<_, _>>().ok()
    };
    // A quoted string that goes on in a further line is believed by nobody, so each line stands for itself.
    let named: Option<Vec<Vec<_>>> = if headers.contains_key(FORWARDED) {
        lines(&FORWARDED).and_then(|lines| lines.into_iter().map(strict_elements).collect())
    } else {
        lines(&X_FORWARDED_FOR).and_then(|lines| lines.into_iter().map(strict_members).collect())
    };
    let Some(chain) = named.map(|lines| lines.concat()) else {
        return;
    };
    let mut expected = peer.to_canonical();
    for member in chain.into_iter().rev() {
        let Some(address) = member.filter(|_| is_trusted(expected, trusted)) else {
            break;
        };
        expected = address;
    }
    assert_eq!(client.address, expected);
}

/// The nodes of a line of `X-Forwarded-For`, `None` inside where a member names no address.
fn strict_members(text: &str) -> Option<Vec<Option<IpAddr>>> {
    let members = text
        .split(',')
        .map(|member| node(member.trim_matches([' ', '\t'])));
    (!text.contains('"')).then(|| members.collect())
}

/// The nodes of a line of `Forwarded`, `None` inside where an element names no address; `None` if anything in the
/// field breaks the grammar.
fn strict_elements(text: &str) -> Option<Vec<Option<IpAddr>>> {
    let mut rest = text.trim_matches([' ', '\t']);
    let mut found = Vec::new();
    loop {
        let (element, behind) = strict_element(rest)?;
        found.push(element);
        match behind.trim_start_matches([' ', '\t']).strip_prefix(',') {
            Some(behind) => rest = behind.trim_start_matches([' ', '\t']),
            None if behind.is_empty() => return Some(found),
            None => return None,
        }
    }
}

fn strict_element(text: &str) -> Option<(Option<IpAddr>, &str)> {
    let (mut rest, mut names, mut address) = (text, Vec::new(), None);
    loop {
        let (name, behind) = token(rest)?;
        let (value, behind) = value(behind.strip_prefix('=')?)?;
        let name = name.to_ascii_lowercase();
        if names.contains(&name) {
            return None;
        }
        if name == "for" {
            address = node(value);
        }
        names.push(name);
        match behind.strip_prefix(';') {
            Some(behind) => rest = behind,
            None => return Some((address, behind)),
        }
    }
}

fn token(text: &str) -> Option<(&str, &str)> {
    let is_token = |octet: u8| octet.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&octet);
    let end = text
        .bytes()
        .position(|octet| !is_token(octet))
        .unwrap_or(text.len());
    (end > 0).then(|| text.split_at(end))
}

/// A token or a quoted string; one with escapes counts as broken, since no address needs them.
fn value(text: &str) -> Option<(&str, &str)> {
    let Some(inside) = text.strip_prefix('"') else {
        return token(text);
    };
    let (value, behind) = inside.split_once('"')?;
    (!value.contains('\\')).then_some((value, behind))
}

fn node(text: &str) -> Option<IpAddr> {
    let bare = text
        .strip_prefix('[')
        .and_then(|text| text.strip_suffix(']'));
    let address = text.parse::<IpAddr>().ok();
    let address = address.or_else(|| bare?.parse::<std::net::Ipv6Addr>().ok().map(IpAddr::V6));
    let address = address.or_else(|| Some(text.parse::<SocketAddr>().ok()?.ip()));
    address.map(|address| address.to_canonical())
}

/// Whatever a client puts in front, the entry that a trusted proxy appends is the one that counts.
fn cannot_be_swallowed(peer: IpAddr, headers: &HeaderMap, trusted: &[IpNet]) {
    let wanted = IpAddr::from([192, 0, 2, 7]);
    for (name, other, entry) in [
        (FORWARDED, X_FORWARDED_FOR, "for=192.0.2.7"),
        (X_FORWARDED_FOR, FORWARDED, "192.0.2.7"),
    ] {
        let alone = without(headers, &other);
        let mut in_a_line_of_its_own = alone.clone();
        in_a_line_of_its_own.append(&name, HeaderValue::from_static(entry));
        let last = alone
            .get_all(&name)
            .iter()
            .next_back()
            .map_or(&b""[..], HeaderValue::as_bytes);
        let appended =
            HeaderValue::from_bytes(&[last, b", ", entry.as_bytes()].concat()).expect("a value");
        let mut in_the_last_line = alone.clone();
        in_the_last_line.remove(&name);
        let count = alone.get_all(&name).iter().count();
        for value in alone.get_all(&name).iter().take(count.saturating_sub(1)) {
            in_the_last_line.append(&name, value.clone());
        }
        in_the_last_line.append(&name, appended);
        for headers in [in_a_line_of_its_own, in_the_last_line] {
            assert_eq!(client_of(peer, &headers, trusted).address, wanted, "{name}");
        }
    }
}

/// An element that says something twice, or half, says nothing.
fn says_nothing_twice(peer: IpAddr, headers: &HeaderMap, trusted: &[IpNet]) {
    for spoilt in [
        "for=192.0.2.7;for=6.6.6.6",
        "for=192.0.2.7;proto=http;Proto=https",
        "for=192.0.2.7;proto",
    ] {
        let mut headers = without(headers, &X_FORWARDED_FOR);
        headers.append(FORWARDED, HeaderValue::from_static(spoilt));
        let found = client_of(peer, &headers, trusted).address;
        assert_eq!(found, peer.to_canonical(), "{spoilt}");
    }
}

/// A gate behind this one that trusts it finds the same client, and hands the same chain on with one hop more.
fn comes_back(client: &Client, trusted: &[IpNet]) {
    let us = IpAddr::from([10, 255, 255, 254]);
    let mut trusted = trusted.to_vec();
    let told = tell(client);
    let next = client_of(us, &told, &trusted);
    assert!(!next.contradiction, "our two fields disagree");
    assert_eq!(next.address, client.address);
    let https = told.get(&X_FORWARDED_PROTO).map(|value| value == "https");
    assert_eq!(next.https, https);
    let chain = |headers: &HeaderMap| -> String {
        headers[&X_FORWARDED_FOR]
            .to_str()
            .expect("addresses are ASCII")
            .to_owned()
    };
    assert_eq!(chain(&tell(&next)), format!("{}, {us}", chain(&told)));
    trusted.clear();
    assert_eq!(client_of(us, &told, &trusted).address, us);
}

fn tell(client: &Client) -> HeaderMap {
    let mut headers = HeaderMap::new();
    let introduction = Introduction::new(client, "app.example:8443", Scheme::Https);
    introduction.expect("a good host").write(&mut headers);
    headers
}
