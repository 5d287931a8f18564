//! Cookies: what backends set, hardened on the way out; what clients send, read on the way in.
//!
//! For the cookie policy and for whoever looks for a cookie by name (RFC 6265bis §4.1, §5). Attributes are only ever
//! added, never taken away or reordered. It seals nothing, keeps no jar and decodes no value.

use bytes::{BufMut, BytesMut};
use http::header::{COOKIE, Entry};
use http::{HeaderMap, HeaderValue};

use super::forwarded::Scheme;

/// A value of the `SameSite` attribute.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SameSite {
    /// Sent with requests of the same site only.
    Strict,
    /// Besides, with top-level navigations.
    Lax,
    /// Sent always; browsers take it with `Secure` only.
    None,
}

/// Whether an attribute is added where a backend left it out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Attribute {
    /// It is added where it is missing.
    Add,
    /// The backend's word stands.
    Leave,
}

/// How the cookies of a backend are hardened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CookieRules {
    /// `Secure`, on answers that leave over https.
    pub secure: Attribute,
    /// `HttpOnly`, but for the names in `except`.
    pub http_only: Attribute,
    /// Cookies that scripts must read, by their exact names.
    pub except: Vec<String>,
    /// What is added to a cookie without `SameSite`; `None` adds nothing.
    pub same_site: Option<SameSite>,
}

/// What became of a `Set-Cookie` field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Hardened {
    /// It was good as it stood.
    Unchanged,
    /// To be set in its place.
    Changed(HeaderValue),
    /// No name, no `=` or control bytes: browsers disagree on it, so it is to be dropped.
    Malformed,
}

/// What a `Set-Cookie` field says already.
struct Seen {
    secure: bool,
    http_only: bool,
    partitioned: bool,
    /// The last one counts, as in browsers.
    same_site: Option<SameSiteSeen>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum SameSiteSeen {
    None,
    Other,
}

/// Adds to one `Set-Cookie` field what the rules ask for and it lacks. `scheme` is how the client is reached.
///
/// Whatever browsers take with `Secure` only gains it on any scheme: `SameSite=None`, `Partitioned` and the names
/// that start with `__Secure-` or `__Host-`.
pub fn harden(value: &HeaderValue, rules: &CookieRules, scheme: Scheme) -> Hardened {
    let bytes = value.as_bytes();
    let mut parts = bytes.split(|&byte| byte == b';');
    let pair = parts.next().unwrap_or_default();
    let Some(name) = name_of(pair) else {
        return Hardened::Malformed;
    };
    // Without an early end, many bytes are looked at together.
    let control = |&byte: &u8| byte != b'\t' && byte.is_ascii_control();
    if bytes.iter().fold(false, |any, byte| any | control(byte)) {
        return Hardened::Malformed;
    }
    let seen = attributes(parts);
    let same_site = match (seen.same_site, rules.same_site) {
        (None, wanted) => wanted,
        (Some(_), _) => None,
    };
    let secure = !seen.secure && needs_secure(name, &seen, same_site, (rules.secure, scheme));
    let http_only = !seen.http_only
        && (prefixed(name, b"__http-")
            || prefixed(name, b"__host-http-")
            || (rules.http_only == Attribute::Add && !excepted(name, &rules.except)));
    append(bytes, secure, http_only, same_site)
}

fn needs_secure(
    name: &[u8],
    seen: &Seen,
    added: Option<SameSite>,
    (rule, scheme): (Attribute, Scheme),
) -> bool {
    (rule == Attribute::Add && scheme == Scheme::Https)
        || seen.partitioned
        || seen.same_site == Some(SameSiteSeen::None)
        || added == Some(SameSite::None)
        || [b"__secure-".as_slice(), b"__host-", b"__http-"]
            .iter()
            .any(|prefix| prefixed(name, prefix))
}

fn append(bytes: &[u8], secure: bool, http_only: bool, same_site: Option<SameSite>) -> Hardened {
    if !secure && !http_only && same_site.is_none() {
        return Hardened::Unchanged;
    }
    let mut out = BytesMut::with_capacity(bytes.len() + 34);
    let bytes = bytes.trim_ascii_end();
    out.put_slice(bytes.strip_suffix(b";").unwrap_or(bytes));
    if secure {
        out.put_slice(b"; Secure");
    }
    if http_only {
        out.put_slice(b"; HttpOnly");
    }
    out.put_slice(match same_site {
        Some(SameSite::Strict) => b"; SameSite=Strict".as_slice(),
        Some(SameSite::Lax) => b"; SameSite=Lax",
        Some(SameSite::None) => b"; SameSite=None",
        None => b"",
    });
    HeaderValue::from_maybe_shared(out.freeze()).map_or(Hardened::Malformed, Hardened::Changed)
}

fn name_of(pair: &[u8]) -> Option<&[u8]> {
    let at = pair.iter().position(|&byte| byte == b'=')?;
    let name = pair.get(..at)?.trim_ascii();
    (!name.is_empty()).then_some(name)
}

/// Browsers compare prefixes without regard to case, so that `__HOST-x` cannot slip by.
fn prefixed(name: &[u8], prefix: &[u8]) -> bool {
    name.get(..prefix.len())
        .is_some_and(|start| start.eq_ignore_ascii_case(prefix))
}

fn excepted(name: &[u8], except: &[String]) -> bool {
    except.iter().any(|exempt| exempt.as_bytes() == name)
}

fn attributes<'a>(parts: impl Iterator<Item = &'a [u8]>) -> Seen {
    let mut seen = Seen {
        secure: false,
        http_only: false,
        partitioned: false,
        same_site: None,
    };
    for part in parts {
        let mut halves = part.splitn(2, |&byte| byte == b'=');
        let name = halves.next().unwrap_or_default().trim_ascii();
        let value = halves.next().unwrap_or_default().trim_ascii();
        if name.eq_ignore_ascii_case(b"secure") {
            seen.secure = true;
        } else if name.eq_ignore_ascii_case(b"httponly") {
            seen.http_only = true;
        } else if name.eq_ignore_ascii_case(b"partitioned") {
            seen.partitioned = true;
        } else if name.eq_ignore_ascii_case(b"samesite") {
            seen.same_site = Some(if value.eq_ignore_ascii_case(b"none") {
                SameSiteSeen::None
            } else {
                SameSiteSeen::Other
            });
        }
    }
    seen
}

/// The cookies a client sent, name and value, across all its `Cookie` fields; those that are not UTF-8 are left out.
///
/// A name may come twice: which of them counts is for the caller to say.
pub fn pairs(headers: &HeaderMap) -> impl Iterator<Item = (&str, &str)> {
    headers
        .get_all(COOKIE)
        .iter()
        .flat_map(|value| value.as_bytes().split(|&byte| byte == b';'))
        .filter_map(|pair| {
            let (name, value) = std::str::from_utf8(pair).ok()?.split_once('=')?;
            Some((name.trim_ascii(), value.trim_ascii()))
        })
}

/// Takes every cookie of this name out of a request; the others stay as they are.
pub fn remove(headers: &mut HeaderMap, name: &str) {
    let Entry::Occupied(fields) = headers.entry(COOKIE) else {
        return;
    };
    let is_it = |pair: &&[u8]| name_of(pair).is_some_and(|found| found == name.as_bytes());
    let has_it = |value: &HeaderValue| {
        value
            .as_bytes()
            .split(|&byte| byte == b';')
            .any(|pair| is_it(&pair))
    };
    if !fields.iter().any(has_it) {
        return;
    }
    let (_, values) = fields.remove_entry_mult();
    let kept: Vec<HeaderValue> = values.filter_map(|value| without(&value, is_it)).collect();
    for value in kept {
        headers.append(COOKIE, value);
    }
}

/// The cookies of one field but for some; `None` where nothing is left.
fn without(value: &HeaderValue, is_it: impl Fn(&&[u8]) -> bool) -> Option<HeaderValue> {
    let pairs = value.as_bytes().split(|&byte| byte == b';');
    let left: Vec<&[u8]> = pairs
        .filter(|pair| !is_it(pair))
        .map(<[u8]>::trim_ascii)
        .collect();
    let left = left.join(b"; ".as_slice());
    // Parts of a header value joined by two plain bytes are a header value.
    HeaderValue::from_bytes(&left)
        .ok()
        .filter(|left| !left.is_empty())
}

/// The name of the cookie that a `Set-Cookie` field sets, if it has one.
pub fn name_set(value: &HeaderValue) -> Option<&[u8]> {
    let pair = value.as_bytes().split(|&byte| byte == b';').next();
    name_of(pair.unwrap_or_default())
}

/// Joins several `Cookie` fields, as HTTP/2 sends them, into the one that HTTP/1.1 allows (RFC 9113 §8.2.3).
pub fn join_crumbs(headers: &mut HeaderMap) {
    let crumbs = headers.get_all(COOKIE);
    if crumbs.iter().nth(1).is_none() {
        return;
    }
    let length = crumbs.iter().map(|crumb| crumb.len() + 2).sum();
    let mut joined = BytesMut::with_capacity(length);
    for crumb in crumbs {
        if !joined.is_empty() {
            joined.put_slice(b"; ");
        }
        joined.put_slice(crumb.as_bytes());
    }
    // Header values joined by two plain bytes are a header value.
    if let Ok(value) = HeaderValue::from_maybe_shared(joined.freeze()) {
        headers.insert(COOKIE, value);
    }
}

#[cfg(test)]
mod tests {
    use http::header::COOKIE;
    use http::{HeaderMap, HeaderValue};
    use proptest::prelude::*;

    use super::{
        Attribute, CookieRules, Hardened, SameSite, Scheme, harden, join_crumbs, name_set, pairs,
        remove,
    };

    fn rules() -> CookieRules {
        CookieRules {
            secure: Attribute::Add,
            http_only: Attribute::Add,
            except: vec!["XSRF-TOKEN".to_owned()],
            same_site: Some(SameSite::Lax),
        }
    }

    fn hardened(text: &str, rules: &CookieRules, scheme: Scheme) -> String {
        let value = HeaderValue::from_bytes(text.as_bytes()).expect("a header value");
        match harden(&value, rules, scheme) {
            Hardened::Unchanged => text.to_owned(),
            Hardened::Changed(value) => value.to_str().expect("ASCII").to_owned(),
            Hardened::Malformed => "malformed".to_owned(),
        }
    }

    #[test]
    fn a_cookie_is_taken_out_and_the_others_stay() {
        for (sent, left) in [
            (&["a=1; g=x; b=2"][..], &["a=1; b=2"][..]),
            (&["g=x"], &[]),
            (&["g=x", "a=1", "g=y; g=z;b=2"], &["a=1", "b=2"]),
            (&["a=1;b=2;  c"], &["a=1;b=2;  c"]),
            (&[" g =x; a=\"g=1\""], &["a=\"g=1\""]),
            (&["G=x; gg=1; g"], &["G=x; gg=1; g"]),
        ] {
            let mut headers = HeaderMap::new();
            for value in sent {
                headers.append(COOKIE, HeaderValue::from_str(value).unwrap());
            }
            remove(&mut headers, "g");
            let found: Vec<_> = headers.get_all(COOKIE).iter().collect();
            assert_eq!(found, left, "{sent:?}");
        }
        let set =
            |text: &'static str| name_set(&HeaderValue::from_static(text)).map(<[u8]>::to_vec);
        assert_eq!(set(" g = x; Path=/"), Some(b"g".to_vec()));
        assert_eq!(set("nothing"), None);
    }

    #[test]
    fn b38_cookies_of_a_backend_are_hardened() {
        for (text, wanted) in [
            (
                "JSESSIONID=1; Path=/",
                "JSESSIONID=1; Path=/; Secure; HttpOnly; SameSite=Lax",
            ),
            ("a=1;", "a=1; Secure; HttpOnly; SameSite=Lax"),
            ("XSRF-TOKEN=x", "XSRF-TOKEN=x; Secure; SameSite=Lax"),
            (
                "xsrf-token=x",
                "xsrf-token=x; Secure; HttpOnly; SameSite=Lax",
            ),
            ("a=1; samesite=NONE", "a=1; samesite=NONE; Secure; HttpOnly"),
            (
                "a=1; HTTPONLY; SameSite=Strict; secure",
                "a=1; HTTPONLY; SameSite=Strict; secure",
            ),
            (
                "a=Secure; Expires=Wed, 21 Oct 2026 07:28:00 GMT",
                "a=Secure; Expires=Wed, 21 Oct 2026 07:28:00 GMT; Secure; HttpOnly; SameSite=Lax",
            ),
        ] {
            assert_eq!(hardened(text, &rules(), Scheme::Https), wanted);
        }
    }

    #[test]
    fn secure_follows_the_connection_unless_browsers_insist() {
        let rules = CookieRules {
            http_only: Attribute::Leave,
            same_site: None,
            ..rules()
        };
        for (text, wanted) in [
            ("a=1", "a=1"),
            ("a=1; SameSite=None", "a=1; SameSite=None; Secure"),
            (
                "a=1; SameSite=None; SameSite=Lax",
                "a=1; SameSite=None; SameSite=Lax",
            ),
            ("a=1; Partitioned", "a=1; Partitioned; Secure"),
            ("__Host-a=1; Path=/", "__Host-a=1; Path=/; Secure"),
            ("__SECURE-a=1", "__SECURE-a=1; Secure"),
            ("__Http-a=1", "__Http-a=1; Secure; HttpOnly"),
        ] {
            assert_eq!(hardened(text, &rules, Scheme::Http), wanted);
        }
        let off = CookieRules {
            secure: Attribute::Leave,
            ..rules.clone()
        };
        assert_eq!(hardened("a=1", &off, Scheme::Https), "a=1");
        assert_eq!(
            hardened("a=1; SameSite=None", &off, Scheme::Https),
            "a=1; SameSite=None; Secure"
        );
        let none = CookieRules {
            same_site: Some(SameSite::None),
            ..off
        };
        assert_eq!(
            hardened("a=1", &none, Scheme::Http),
            "a=1; Secure; SameSite=None"
        );
    }

    #[test]
    fn malformed_cookies_are_dropped() {
        for text in ["a", "=1", " =1", "", "a; b=1", "; a=1"] {
            assert_eq!(
                hardened(text, &rules(), Scheme::Https),
                "malformed",
                "{text}"
            );
        }
        let bytes = HeaderValue::from_bytes(b"a=\xff").expect("a header value");
        assert!(matches!(
            harden(&bytes, &rules(), Scheme::Https),
            Hardened::Changed(_)
        ));
    }

    #[test]
    fn cookies_are_read_across_fields() {
        let mut headers = HeaderMap::new();
        headers.append(COOKIE, HeaderValue::from_static("a=1; b=x=y"));
        headers.append(COOKIE, HeaderValue::from_static("a=2;nonsense; c="));
        headers.append(COOKIE, HeaderValue::from_bytes(b"d=\xff").expect("a value"));
        let read: Vec<_> = pairs(&headers).collect();
        assert_eq!(read, [("a", "1"), ("b", "x=y"), ("a", "2"), ("c", "")]);
    }

    #[test]
    fn a20_crumbs_are_joined() {
        let mut headers = HeaderMap::new();
        join_crumbs(&mut headers);
        assert!(headers.is_empty());
        for crumb in ["a=1", "b=2", "c=3"] {
            headers.append(COOKIE, HeaderValue::from_static(crumb));
        }
        join_crumbs(&mut headers);
        let joined: Vec<_> = headers.get_all(COOKIE).iter().collect();
        assert_eq!(joined, ["a=1; b=2; c=3"]);
    }

    proptest! {
        #[test]
        fn hardening_is_idempotent_and_only_appends(text in "[!-~ ]{0,60}") {
            let value = HeaderValue::from_str(&text).expect("printable");
            if let Hardened::Changed(changed) = harden(&value, &rules(), Scheme::Https) {
                let kept = text.trim_end().trim_end_matches(';');
                prop_assert!(changed.to_str().expect("ASCII").starts_with(kept));
                prop_assert_eq!(harden(&changed, &rules(), Scheme::Https), Hardened::Unchanged);
            }
        }
    }
}
