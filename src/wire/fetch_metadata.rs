//! What a browser says of a request on its own account: which page it comes from, and whether it opens one.
//!
//! For the guards against forged requests, for hints and for whoever shows pages (Fetch Metadata; RFC 6454 §7). Pages can
//! set none of these fields, and browsers write each once and in one form, so anything else is foreign. Whether a foreign
//! page may ask is for others to say, and so is what becomes of clients that are no browsers: they may send what they like.

use http::{
    HeaderMap, HeaderName,
    header::{self, HeaderValue},
};

use super::{forwarded::Scheme, host::Authority};

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
const SEC_FETCH_MODE: HeaderName = HeaderName::from_static("sec-fetch-mode");
const SEC_FETCH_DEST: HeaderName = HeaderName::from_static("sec-fetch-dest");
const SEC_FETCH_USER: HeaderName = HeaderName::from_static("sec-fetch-user");

/// Where a request comes from, relative to the origin that it is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source<'a> {
    /// Neither field is there: no browser asks, or an old one for something harmless.
    Unsaid,
    /// The person at the browser, with no page behind it: the address bar, a bookmark.
    Person,
    /// A page of the very origin.
    Own,
    /// A page of another origin, or one that may be.
    Foreign(Foreign<'a>),
    /// A field stands twice: two readers could believe two things.
    Ambiguous,
}

/// A source that is not known to be the origin itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Foreign<'a> {
    /// The one `Origin` as sent, to be held against lists byte for byte.
    pub origin: Option<&'a [u8]>,
    /// What gives it away.
    pub sign: Sign,
}

/// What shows that a request is not of the origin itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sign {
    /// `Sec-Fetch-Site: same-site`
    SameSite,
    /// `Sec-Fetch-Site: cross-site`
    CrossSite,
    /// `Sec-Fetch-Site` with a word that no browser writes.
    UnknownSite,
    /// `Origin: null`, and nothing else is said: a sandboxed frame, a local file, a page that conceals itself.
    NullOrigin,
    /// `Origin` with another scheme, host or port, or in another form than browsers write, and nothing else is said.
    OtherOrigin,
    /// `Sec-Fetch-Site` names the origin itself, and `Origin` another one.
    Contradiction,
}

impl Sign {
    /// The word for logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::SameSite => "same-site",
            Self::CrossSite => "cross-site",
            Self::UnknownSite => "unknown-site",
            Self::NullOrigin => "null-origin",
            Self::OtherOrigin => "other-origin",
            Self::Contradiction => "contradiction",
        }
    }
}

/// Where a request for this scheme and host comes from, by `Sec-Fetch-Site` and `Origin`.
///
/// The two must agree. `Origin: null` beside a word for the origin itself is no contradiction: browsers write it for pages
/// with `Referrer-Policy: no-referrer` (Fetch standard, "append a request `Origin` header").
pub fn source<'a>(headers: &'a HeaderMap, scheme: Scheme, authority: &Authority) -> Source<'a> {
    let (Ok(site), Ok(origin)) = (
        once(headers, &SEC_FETCH_SITE),
        once(headers, &header::ORIGIN),
    ) else {
        return Source::Ambiguous;
    };
    let origin = origin.map(HeaderValue::as_bytes);
    let foreign = |sign| Source::Foreign(Foreign { origin, sign });
    let Some(site) = site else {
        return match origin {
            None => Source::Unsaid,
            Some(origin) if is_own(origin, scheme, authority) => Source::Own,
            Some(b"null") => foreign(Sign::NullOrigin),
            Some(_) => foreign(Sign::OtherOrigin),
        };
    };
    let named = match site.as_bytes() {
        b"same-origin" => Source::Own,
        b"none" => Source::Person,
        b"same-site" => return foreign(Sign::SameSite),
        b"cross-site" => return foreign(Sign::CrossSite),
        _ => return foreign(Sign::UnknownSite),
    };
    match origin {
        Some(origin) if origin != b"null" && !is_seen_as(origin, scheme, authority) => {
            foreign(Sign::Contradiction)
        }
        _ => named,
    }
}

/// Whether an origin is this one, byte for byte as browsers write it: without the scheme's own port (RFC 6454 §6.2). The
/// dot that may end a name is no part of an authority here, and browsers write it.
pub fn is_own(origin: &[u8], scheme: Scheme, authority: &Authority) -> bool {
    let (prefix, own_port) = match scheme {
        Scheme::Https => (b"https://".as_slice(), 443),
        Scheme::Http => (b"http://".as_slice(), 80),
    };
    let Some(host_and_port) = origin.strip_prefix(prefix) else {
        return false;
    };
    let Some(rest) = host_and_port.strip_prefix(authority.host().as_bytes()) else {
        return false;
    };
    let port = rest.strip_prefix(b".").unwrap_or(rest);
    match authority.port().filter(|named| *named != own_port) {
        None => port.is_empty(),
        Some(named) => {
            let mut digits = itoa::Buffer::new();
            port.strip_prefix(b":") == Some(digits.format(named).as_bytes())
        }
    }
}

/// The same, but what came in clear may have come to whoever ended its TLS as https.
fn is_seen_as(origin: &[u8], scheme: Scheme, authority: &Authority) -> bool {
    is_own(origin, scheme, authority)
        || (scheme == Scheme::Http && is_own(origin, Scheme::Https, authority))
}

/// Whether a browser says that it opens a page, in a window or in a frame.
pub fn opens_page(headers: &HeaderMap) -> bool {
    let accept = headers.get(header::ACCEPT);
    // Few requests but these begin so; the rest need not be looked at further.
    accept.is_some_and(|accept| accept.as_bytes().starts_with(b"text/html"))
        && says(headers, &SEC_FETCH_MODE, "navigate")
}

/// Whether a browser says that it opens a page in a window of its own, so that what it shows has an address bar.
pub fn opens_window(headers: &HeaderMap) -> bool {
    opens_page(headers) && says(headers, &SEC_FETCH_DEST, "document")
}

/// Whether a browser says that a person made it open a page, by a click or a key, and no script by itself.
pub fn is_by_hand(headers: &HeaderMap) -> bool {
    opens_page(headers) && says(headers, &SEC_FETCH_USER, "?1")
}

/// Whether a browser says that it goes to a page, which no script reads the answer of: a link, a form, a frame.
pub fn navigates(headers: &HeaderMap) -> bool {
    let modes = headers.get_all(SEC_FETCH_MODE);
    modes.iter().any(|mode| mode == "navigate")
}

/// Whether a field stands once and is this word.
fn says(headers: &HeaderMap, name: &HeaderName, word: &str) -> bool {
    matches!(once(headers, name), Ok(Some(value)) if value == word)
}

struct Twice;

/// The one value of a field.
fn once<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<Option<&'a HeaderValue>, Twice> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (value, None) => Ok(value),
        (_, Some(_)) => Err(Twice),
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, HeaderName, header::HeaderValue};

    use super::{Scheme, Sign, Source, is_by_hand, opens_page, opens_window, source};
    use crate::wire::host::Authority;

    fn headers(fields: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            let name = HeaderName::from_static(name);
            headers.append(name, HeaderValue::from_static(value));
        }
        headers
    }

    /// What is found, in a word.
    fn found(scheme: Scheme, host: &str, headers: &HeaderMap) -> &'static str {
        let authority = Authority::parse(host.as_bytes()).expect("a host");
        match source(headers, scheme, &authority) {
            Source::Unsaid => "unsaid",
            Source::Person => "person",
            Source::Own => "own",
            Source::Foreign(foreign) => foreign.sign.as_str(),
            Source::Ambiguous => "ambiguous",
        }
    }

    fn of(site: &[&'static str], origin: &[&'static str]) -> &'static str {
        let sites = site.iter().map(|value| ("sec-fetch-site", *value));
        let origins = origin.iter().map(|value| ("origin", *value));
        let fields: Vec<_> = sites.chain(origins).collect();
        found(Scheme::Https, "app.example", &headers(&fields))
    }

    const OWN: &str = "https://app.example";
    const EVIL: &str = "https://evil.example";

    #[test]
    fn an_origin_alone_is_the_own_one_byte_for_byte_or_foreign() {
        assert_eq!(of(&[], &[]), "unsaid");
        assert_eq!(of(&[], &[OWN]), "own");
        assert_eq!(of(&[], &["null"]), "null-origin");
        for other in [
            EVIL,
            "http://app.example",
            "https://app.example:443",
            "https://app.example:8443",
            "https://app.example/",
            "https://app.example/path",
            "https://app.example..",
            "https://app.example.:8443",
            "https://app.example.evil.example",
            "https://evil.example/https://app.example",
            "https://user@app.example",
            "https://APP.example",
            "HTTPS://app.example",
            "https://app.example, https://evil.example",
            "https://app.example https://evil.example",
            "app.example",
            "NULL",
            "",
        ] {
            assert_eq!(of(&[], &[other]), "other-origin", "{other:?}");
        }
    }

    #[test]
    fn the_word_of_the_browser_and_the_origin_must_agree() {
        for (site, origin, word) in [
            ("same-origin", &[][..], "own"),
            ("same-origin", &[OWN], "own"),
            // A form of a page with `Referrer-Policy: no-referrer`.
            ("same-origin", &["null"], "own"),
            ("none", &[], "person"),
            ("none", &["null"], "person"),
            ("same-origin", &[EVIL], "contradiction"),
            ("same-origin", &["http://app.example"], "contradiction"),
            ("same-origin", &[""], "contradiction"),
            ("none", &[EVIL], "contradiction"),
            ("same-site", &[], "same-site"),
            ("cross-site", &[], "cross-site"),
            // What the browser calls foreign is not made good by an origin.
            ("cross-site", &[OWN], "cross-site"),
            ("same-site", &[OWN], "same-site"),
        ] {
            assert_eq!(of(&[site], origin), word, "{site} {origin:?}");
        }
        for odd in [
            "",
            "Same-Origin",
            "SAME-ORIGIN",
            "same-origin;x",
            "same-origin, cross-site",
            "\"same-origin\"",
            "same-origin\t;",
            "user",
        ] {
            assert_eq!(of(&[odd], &[OWN]), "unknown-site", "{odd:?}");
        }
    }

    #[test]
    fn what_stands_twice_says_nothing_that_can_be_believed() {
        for (sites, origins) in [
            (&["same-origin", "same-origin"][..], &[][..]),
            (&["same-origin", "cross-site"], &[OWN]),
            (&[], &[OWN, OWN]),
            (&["same-origin"], &[OWN, EVIL]),
            (&["none", "none"], &[EVIL]),
        ] {
            assert_eq!(of(sites, origins), "ambiguous", "{sites:?} {origins:?}");
        }
    }

    #[test]
    fn a_foreign_origin_is_handed_on_as_it_was_sent() {
        let fields = headers(&[("sec-fetch-site", "cross-site"), ("origin", EVIL)]);
        let authority = Authority::parse(b"app.example").expect("a host");
        let Source::Foreign(foreign) = source(&fields, Scheme::Https, &authority) else {
            panic!("a foreign one");
        };
        assert_eq!(foreign.origin, Some(EVIL.as_bytes()));
        assert_eq!(foreign.sign, Sign::CrossSite);
    }

    #[test]
    fn the_dot_that_ends_a_name_is_the_same_host() {
        for (host, origin) in [
            ("app.example.", "https://app.example."),
            ("app.example", "https://app.example."),
            ("app.example.", OWN),
            ("app.example.:8443", "https://app.example.:8443"),
        ] {
            let fields = headers(&[("origin", origin)]);
            assert_eq!(found(Scheme::Https, host, &fields), "own", "{host}");
        }
    }

    #[test]
    fn the_port_belongs_to_the_origin_but_for_that_of_the_scheme() {
        let origin = |scheme, host, origin| found(scheme, host, &headers(&[("origin", origin)]));
        for (scheme, host, sent, word) in [
            (Scheme::Https, "app.example:443", OWN, "own"),
            (Scheme::Https, "app.example:8443", OWN, "other-origin"),
            (
                Scheme::Https,
                "app.example:8443",
                "https://app.example:8443",
                "own",
            ),
            (Scheme::Http, "app.example:80", "http://app.example", "own"),
            (
                Scheme::Http,
                "app.example:443",
                "http://app.example:443",
                "own",
            ),
            (
                Scheme::Https,
                "[2001:DB8::1]",
                "https://[2001:db8::1]",
                "own",
            ),
            (Scheme::Http, "app.example", OWN, "other-origin"),
        ] {
            assert_eq!(origin(scheme, host, sent), word, "{host} {sent}");
        }
    }

    #[test]
    fn who_ended_tls_before_us_saw_the_browser_speak_of_https() {
        let named = |scheme, origin| {
            let fields = [("sec-fetch-site", "same-origin"), ("origin", origin)];
            found(scheme, "app.example", &headers(&fields))
        };
        assert_eq!(named(Scheme::Http, OWN), "own");
        assert_eq!(
            named(Scheme::Http, "https://app.example:8443"),
            "contradiction"
        );
        assert_eq!(named(Scheme::Https, "http://app.example"), "contradiction");
    }

    #[test]
    fn a_page_is_opened_by_who_says_so_once() {
        let html = ("accept", "text/html,application/xhtml+xml,*/*;q=0.8");
        let navigate = ("sec-fetch-mode", "navigate");
        let document = ("sec-fetch-dest", "document");
        let hand = ("sec-fetch-user", "?1");
        let opened = |fields: &[(&'static str, &'static str)]| {
            let headers = headers(fields);
            (
                opens_page(&headers),
                opens_window(&headers),
                is_by_hand(&headers),
            )
        };
        assert_eq!(
            opened(&[html, navigate, document, hand]),
            (true, true, true)
        );
        assert_eq!(opened(&[html, navigate]), (true, false, false));
        let frame = ("sec-fetch-dest", "iframe");
        assert_eq!(opened(&[html, navigate, frame, hand]), (true, false, true));
        assert_eq!(
            opened(&[html, navigate, document, ("sec-fetch-user", "?0")]),
            (true, true, false)
        );
        for nothing in [
            &[][..],
            &[html],
            &[navigate, document, hand],
            &[("accept", "*/*"), navigate, document],
            &[html, ("sec-fetch-mode", "cors"), document],
            &[html, navigate, navigate, document],
            &[html, ("sec-fetch-mode", "Navigate")],
        ] {
            assert_eq!(opened(nothing), (false, false, false), "{nothing:?}");
        }
        assert_eq!(
            opened(&[html, navigate, document, document]),
            (true, false, false)
        );
    }
}
