//! Hardened cookies say what they said before and a little more; crumbs are joined and nothing is lost; a cookie that is
//! taken out is gone, and the others stay.
//!
//! An input's first octet picks the rules; the rest is a `Set-Cookie` value and, line by line, the `Cookie` fields of a
//! request. The reader below is the one of browsers (RFC 6265bis §5.6), told anew.

use http::{HeaderMap, HeaderValue, header::COOKIE};
use portcullis::wire::{
    cookie::{Attribute, CookieRules, Hardened, SameSite, harden, join_crumbs, pairs, remove},
    forwarded::Scheme,
};

/// Holds an input against the properties.
pub fn hold(data: &[u8]) {
    let Some((&choice, text)) = data.split_first() else {
        return;
    };
    if let Ok(value) = HeaderValue::from_bytes(text) {
        only_adds(&value, &rules(choice), scheme(choice));
    }
    joins(text);
}

fn rules(choice: u8) -> CookieRules {
    let attribute = |bit: u8| {
        if choice & bit == 0 {
            Attribute::Add
        } else {
            Attribute::Leave
        }
    };
    CookieRules {
        secure: attribute(1),
        http_only: attribute(2),
        except: vec!["_csrf".to_owned()],
        same_site: match choice >> 2 & 3 {
            0 => Some(SameSite::Lax),
            1 => Some(SameSite::Strict),
            2 => Some(SameSite::None),
            _ => None,
        },
    }
}

fn scheme(choice: u8) -> Scheme {
    if choice & 16 == 0 {
        Scheme::Https
    } else {
        Scheme::Http
    }
}

/// A cookie as a browser reads it: names of attributes in lower case.
#[derive(Debug, PartialEq)]
struct Cookie {
    name: Vec<u8>,
    value: Vec<u8>,
    attributes: Vec<(Vec<u8>, Vec<u8>)>,
}

impl Cookie {
    fn has(&self, name: &[u8]) -> bool {
        self.attributes.iter().any(|attribute| attribute.0 == name)
    }
}

/// `None` where browsers ignore it, or where it has no name.
fn read(line: &[u8]) -> Option<Cookie> {
    if line
        .iter()
        .any(|&octet| octet != b'\t' && octet.is_ascii_control())
    {
        return None;
    }
    let mut parts = line.split(|&octet| octet == b';');
    let pair = parts.next()?;
    let at = pair.iter().position(|&octet| octet == b'=')?;
    let name = trimmed(&pair[..at]);
    let halves = |part: &[u8]| {
        let at = part.iter().position(|&octet| octet == b'=');
        let (name, value) = at.map_or((part, &[][..]), |at| (&part[..at], &part[at + 1..]));
        (trimmed(name).to_ascii_lowercase(), trimmed(value).to_vec())
    };
    (!name.is_empty()).then(|| Cookie {
        name: name.to_vec(),
        value: trimmed(&pair[at + 1..]).to_vec(),
        attributes: parts
            .map(halves)
            .filter(|(name, value)| !(name.is_empty() && value.is_empty()))
            .collect(),
    })
}

fn trimmed(text: &[u8]) -> &[u8] {
    let is_text = |octet: &u8| !matches!(octet, b' ' | b'\t');
    let Some(from) = text.iter().position(is_text) else {
        return &[];
    };
    let to = text.iter().rposition(is_text).expect("there is text");
    &text[from..=to]
}

/// Attributes are added behind the others, each of them once, and never one that stands there.
fn only_adds(line: &HeaderValue, rules: &CookieRules, scheme: Scheme) {
    let before = read(line.as_bytes());
    let after = match harden(line, rules, scheme) {
        Hardened::Malformed => {
            assert_eq!(before, None, "a good cookie is dropped");
            return;
        }
        Hardened::Unchanged => line.clone(),
        Hardened::Changed(changed) => changed,
    };
    assert_eq!(
        harden(&after, rules, scheme),
        Hardened::Unchanged,
        "hardened is hard"
    );
    let before = before.expect("what browsers ignore is dropped");
    let after = read(after.as_bytes()).expect("a cookie stays one");
    assert_eq!((&after.name, &after.value), (&before.name, &before.value));
    let (kept, added) = after.attributes.split_at(before.attributes.len());
    assert_eq!(kept, before.attributes);
    for (at, (name, value)) in added.iter().enumerate() {
        let known = match name.as_slice() {
            b"secure" | b"httponly" => value.is_empty(),
            b"samesite" => matches!(value.as_slice(), b"Lax" | b"Strict" | b"None"),
            _ => false,
        };
        assert!(known, "an attribute that nobody asked for");
        assert!(!before.has(name), "an attribute for the second time");
        assert!(
            !added[..at].iter().any(|(other, _)| other == name),
            "an attribute added twice"
        );
    }
    is_hard(&after, rules, scheme);
}

fn is_hard(cookie: &Cookie, rules: &CookieRules, scheme: Scheme) {
    let starts = |prefix: &[u8]| cookie.name.to_ascii_lowercase().starts_with(prefix);
    let same_site = cookie
        .attributes
        .iter()
        .rfind(|attribute| attribute.0 == b"samesite");
    let insists = starts(b"__secure-")
        || starts(b"__host-")
        || starts(b"__http-")
        || cookie.has(b"partitioned")
        || same_site.is_some_and(|attribute| attribute.1.eq_ignore_ascii_case(b"none"));
    if insists || (rules.secure == Attribute::Add && scheme == Scheme::Https) {
        assert!(cookie.has(b"secure"), "it may travel in clear");
    }
    if rules.http_only == Attribute::Add && cookie.name != b"_csrf" {
        assert!(cookie.has(b"httponly"), "scripts may read it");
    }
    assert!(
        rules.same_site.is_none() || same_site.is_some(),
        "other sites may send it"
    );
}

/// One `Cookie` field is left, with the same cookies in the same order.
fn joins(text: &[u8]) {
    let mut headers = HeaderMap::new();
    for crumb in text.split(|&octet| octet == b'\n') {
        if let Ok(crumb) = HeaderValue::from_bytes(crumb) {
            headers.append(COOKIE, crumb);
        }
    }
    let count = headers.get_all(COOKIE).iter().count();
    let read = |headers: &HeaderMap| -> Vec<(String, String)> {
        pairs(headers)
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect()
    };
    let before = read(&headers);
    // A few of them: all would be a look at each for each.
    let named = before.iter().filter(|(name, _)| !name.is_empty());
    for (name, _) in named.take(3) {
        let mut others = headers.clone();
        remove(&mut others, name);
        let kept = before.iter().filter(|(other, _)| other != name).cloned();
        assert_eq!(read(&others), kept.collect::<Vec<_>>(), "without `{name}`");
    }
    join_crumbs(&mut headers);
    assert_eq!(
        headers.get_all(COOKIE).iter().count(),
        count.min(1),
        "one field"
    );
    assert_eq!(read(&headers), before);
}
