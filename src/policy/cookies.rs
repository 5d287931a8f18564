//! `[cookies]`: what the cookies of a backend gain on the way out, each `Set-Cookie` field by itself.
//!
//! The cookie of the gate itself is no backend's to see or to set, whatever the section says.
//!
//! The grammar is in [`crate::wire::cookie`] (RFC 6265bis §4.1). Fields are never joined: a comma may stand inside of
//! one. It seals nothing and leaves names and values alone.

use http::{
    HeaderMap,
    header::{Entry, HeaderValue, SET_COOKIE},
    response::Parts,
};

use super::mode::Mode;
use crate::{
    config::{Complaint, FromValue, Key, Kind, Reader, Section, Value},
    exchange::{Exchange, Scheme},
    wire::{
        cookie::{self, Attribute, CookieRules, Hardened, SameSite, harden, name_set},
        forwarded,
        halt::Stage,
    },
};

/// Cookies that scripts read to send them back in a header, against forged requests.
const READABLE: &[&str] = &["XSRF-TOKEN", "csrftoken", "_csrf"];

static HTTP_ONLY: Section = Section {
    name: "http_only",
    doc: "HttpOnly for all cookies but some",
    keys: &[Key::new(
        "except",
        Kind::List(&Kind::String),
        "exact names of cookies that scripts must read",
        "[\"XSRF-TOKEN\", \"csrftoken\", \"_csrf\"]",
    )],
};

/// The declaration of `[cookies]`.
pub static SECTION: Section = Section {
    name: "cookies",
    doc: "what the cookies that backends set gain on the way out",
    keys: &[
        Key::new(
            "mode",
            Kind::Choice(Mode::WORDS),
            "enforce, monitor or off",
            "\"enforce\"",
        ),
        Key::new(
            "secure",
            Kind::Bool,
            "add Secure on answers that leave over https",
            "true",
        ),
        Key::new(
            "http_only",
            Kind::Either(&[Kind::Bool, Kind::Table(&HTTP_ONLY)]),
            "add HttpOnly, to all cookies or to all but those that scripts must read",
            "{ except = [\"XSRF-TOKEN\", \"csrftoken\", \"_csrf\"] }",
        ),
        Key::new(
            "same_site",
            Kind::Choice(&["strict", "lax", "none", "unset"]),
            "SameSite where the backend says nothing; `unset` adds none",
            "\"lax\"",
        ),
    ],
};

/// The compiled section.
#[derive(Debug)]
pub struct Cookies {
    mode: Mode,
    /// Where the section stands, for `explain`.
    place: Box<str>,
    rules: CookieRules,
    /// The name of the gate's own cookie, where it has one.
    own: Option<Box<str>>,
}

/// `same_site` of the file.
struct AddedSameSite(Option<SameSite>);

impl FromValue for AddedSameSite {
    fn from_value(value: &Value) -> Result<Self, Complaint> {
        match value.as_str() {
            Some("strict") => Ok(Self(Some(SameSite::Strict))),
            Some("lax") => Ok(Self(Some(SameSite::Lax))),
            Some("none") => Ok(Self(Some(SameSite::None))),
            Some("unset") => Ok(Self(None)),
            _ => Err(value.expected("`strict`, `lax`, `none` or `unset`")),
        }
    }
}

/// Hardens the cookies of an answer; malformed ones are dropped, since browsers disagree on them.
pub fn finish(policy: &Cookies, exchange: &mut Exchange, answer: &mut Parts) {
    if let Some(own) = &policy.own {
        keep_out(&mut answer.headers, own);
    }
    harden_all(policy, exchange, answer);
    if let Some(field) = exchange.own_cookie.take() {
        answer.headers.append(SET_COOKIE, *field);
    }
}

/// Takes out what would set the gate's own cookie.
fn keep_out(headers: &mut HeaderMap, own: &str) {
    let sets_it = |value: &HeaderValue| name_set(value) == Some(own.as_bytes());
    if !headers.get_all(SET_COOKIE).iter().any(sets_it) {
        return;
    }
    let Entry::Occupied(fields) = headers.entry(SET_COOKIE) else {
        return;
    };
    let (_, values) = fields.remove_entry_mult();
    let others: Vec<HeaderValue> = values.filter(|value| !sets_it(value)).collect();
    for value in others {
        headers.append(SET_COOKIE, value);
    }
}

fn harden_all(policy: &Cookies, exchange: &mut Exchange, answer: &mut Parts) {
    // Most answers set none: a look at each name is less than a search by hash.
    let sets_cookies = answer.headers.keys().any(|name| name == SET_COOKIE);
    exchange.note(Stage::Cookies, || {
        let found = if sets_cookies {
            "cookies of the backend are hardened"
        } else {
            "the answer sets no cookie"
        };
        format!("{}: {found} ({})", policy.mode.as_str(), policy.place)
    });
    if policy.mode == Mode::Off || !sets_cookies {
        return;
    }
    let scheme = match exchange.scheme() {
        Scheme::Http => forwarded::Scheme::Http,
        Scheme::Https => forwarded::Scheme::Https,
    };
    match policy.mode {
        Mode::Monitor => {
            let weak =
                |value: &&HeaderValue| harden(value, &policy.rules, scheme) != Hardened::Unchanged;
            let count = answer
                .headers
                .get_all(SET_COOKIE)
                .iter()
                .filter(weak)
                .count();
            exchange.note(Stage::Cookies, || format!("would harden {count} cookies"));
        }
        Mode::Enforce | Mode::Off => rewrite(&mut answer.headers, &policy.rules, scheme),
    }
}

fn rewrite(headers: &mut HeaderMap, rules: &CookieRules, scheme: forwarded::Scheme) {
    let Entry::Occupied(mut fields) = headers.entry(SET_COOKIE) else {
        return;
    };
    let mut malformed = false;
    for value in fields.iter_mut() {
        match harden(value, rules, scheme) {
            Hardened::Unchanged => {}
            Hardened::Changed(hardened) => *value = hardened,
            Hardened::Malformed => malformed = true,
        }
    }
    if malformed {
        let (_, values) = fields.remove_entry_mult();
        let good: Vec<HeaderValue> = values
            .filter(|value| harden(value, rules, scheme) != Hardened::Malformed)
            .collect();
        for value in good {
            headers.append(SET_COOKIE, value);
        }
    }
}

/// Compiles the section through its layers.
pub fn compile(reader: &Reader<'_>) -> Cookies {
    let mode: Mode = reader.get("mode").unwrap_or_default();
    if mode != Mode::Enforce {
        reader.relax(
            "mode",
            format!("this weakens cookies: they are in mode `{}`", mode.as_str()),
        );
    }
    let secure = attribute(
        reader,
        "secure",
        "this weakens cookies: those of the backend may travel in clear",
    );
    let same_site: Option<AddedSameSite> = reader.get("same_site");
    if let Some(AddedSameSite(None | Some(SameSite::None))) = same_site {
        reader.relax(
            "same_site",
            "this weakens cookies: other sites may send them along",
        );
    }
    let (http_only, except) = http_only(reader);
    let same_site = same_site.map_or(Some(SameSite::Lax), |added| added.0);
    Cookies {
        mode,
        place: reader.stated_at(),
        rules: CookieRules {
            secure,
            http_only,
            except,
            same_site,
        },
        own: None,
    }
}

fn attribute(reader: &Reader<'_>, key: &str, weakness: &str) -> Attribute {
    if reader.get(key).unwrap_or(true) {
        return Attribute::Add;
    }
    reader.relax(key, weakness);
    Attribute::Leave
}

fn http_only(reader: &Reader<'_>) -> (Attribute, Vec<String>) {
    const WEAKNESS: &str = "this weakens cookies: scripts may read those of the backend";
    if reader.nearest_scalar("http_only").is_some() {
        return (attribute(reader, "http_only", WEAKNESS), Vec::new());
    }
    let except = reader.section("http_only").get("except");
    let readable = || READABLE.iter().map(|name| (*name).to_owned()).collect();
    (Attribute::Add, except.unwrap_or_else(readable))
}

impl Cookies {
    /// Keeps the gate's own cookie of this name from backends.
    #[must_use]
    pub fn reserving(mut self, own: Option<&str>) -> Self {
        self.own = own.map(Into::into);
        self
    }

    /// Takes out of a request what its backend is not to see.
    pub fn conceal(&self, headers: &mut HeaderMap) {
        if let Some(own) = &self.own {
            cookie::remove(headers, own);
        }
    }

    /// What cookies gain, for `check -v`.
    pub fn describe(&self) -> Vec<(String, String)> {
        if self.mode == Mode::Off {
            return Vec::new();
        }
        let rules = &self.rules;
        let said = |attribute| {
            if attribute == Attribute::Add {
                "added where missing"
            } else {
                "left to the backend"
            }
        };
        let http_only = if rules.except.is_empty() {
            said(rules.http_only).to_owned()
        } else {
            format!(
                "{}, but for {}",
                said(rules.http_only),
                rules.except.join(", ")
            )
        };
        let same_site = match rules.same_site {
            Some(SameSite::Strict) => "default: Strict",
            Some(SameSite::Lax) => "default: Lax",
            Some(SameSite::None) => "default: None",
            None => "left to the backend",
        };
        vec![
            (
                "Secure".to_owned(),
                format!("{} (https)", said(rules.secure)),
            ),
            ("HttpOnly".to_owned(), http_only),
            ("SameSite".to_owned(), same_site.to_owned()),
        ]
    }
}

#[cfg(test)]
mod tests {
    use http::header::SET_COOKIE;

    use super::{compile, finish};
    use crate::policy::trial::{answer, compiled, exchange, relaxations};

    fn hardened(section: &str, scheme: &str, cookies: &[&str]) -> Vec<String> {
        let policy = compiled(section, compile);
        let fields: Vec<(&str, &str)> = cookies
            .iter()
            .map(|cookie| ("set-cookie", *cookie))
            .collect();
        let mut answer = answer(&fields);
        finish(&policy, &mut exchange("GET", scheme, &[]), &mut answer);
        answer
            .headers
            .get_all(SET_COOKIE)
            .iter()
            .map(|value| value.to_str().unwrap().to_owned())
            .collect()
    }

    #[test]
    fn b38_each_field_is_hardened_by_itself() {
        let out = hardened(
            "",
            "https",
            &["JSESSIONID=1; Path=/", "XSRF-TOKEN=2", "c=3; SameSite=None"],
        );
        assert_eq!(
            out,
            [
                "JSESSIONID=1; Path=/; Secure; HttpOnly; SameSite=Lax",
                "XSRF-TOKEN=2; Secure; SameSite=Lax",
                "c=3; SameSite=None; Secure; HttpOnly"
            ]
        );
    }

    #[test]
    fn b37_the_gate_s_own_cookie_is_no_backend_s_to_set_or_to_see() {
        for section in ["", "mode = 'off'"] {
            let policy = compiled(section, compile).reserving(Some("__Host-portcullis"));
            let fields = [
                ("set-cookie", "a=1; Secure; HttpOnly; SameSite=Lax"),
                ("set-cookie", " __Host-portcullis =x; Path=/"),
                ("set-cookie", "__Host-portcullis=; Max-Age=0"),
            ];
            let mut answer = answer(&fields);
            let mut asked = exchange("GET", "https", &[("cookie", "__Host-portcullis=x; b=2")]);
            asked.own_cookie = Some(Box::new("__Host-portcullis=ours".parse().unwrap()));
            finish(&policy, &mut asked, &mut answer);
            let left = crate::policy::trial::values(&answer, "set-cookie");
            let ours = "__Host-portcullis=ours";
            assert_eq!(left, ["a=1; Secure; HttpOnly; SameSite=Lax", ours]);
            let mut headers = asked.take_headers();
            policy.conceal(&mut headers);
            assert_eq!(headers["cookie"], "b=2");
        }
    }

    #[test]
    fn malformed_fields_are_dropped_and_the_others_keep_their_order() {
        let out = hardened(
            "same_site = 'unset'\nhttp_only = false",
            "http",
            &["a=1", "nonsense", "=x", "b=2"],
        );
        assert_eq!(out, ["a=1", "b=2"]);
        assert!(hardened("", "https", &["nonsense"]).is_empty());
    }

    #[test]
    fn modes_and_keys_say_what_is_added() {
        assert_eq!(hardened("mode = 'off'", "https", &["a=1"]), ["a=1"]);
        assert_eq!(
            hardened("mode = 'monitor'", "https", &["a=1", "bad"]),
            ["a=1", "bad"]
        );
        assert_eq!(
            hardened("http_only = true", "http", &["_csrf=1"]),
            ["_csrf=1; HttpOnly; SameSite=Lax"]
        );
        assert_eq!(
            hardened(
                "http_only = { except = ['a'] }\nsame_site = 'strict'\nsecure = false",
                "https",
                &["a=1"]
            ),
            ["a=1; SameSite=Strict"]
        );
    }

    #[test]
    fn weaker_cookies_are_reported() {
        assert!(relaxations("", compile).is_empty());
        let all = "secure = false\nhttp_only = false\nsame_site = 'none'\nmode = 'off'";
        assert_eq!(relaxations(all, compile).len(), 4);
    }
}
