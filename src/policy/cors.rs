//! `[cors]`: which other origins may read answers (Fetch standard §3.2).
//!
//! The list is compared byte for byte with what browsers send; preflights are answered here and never reach the
//! backend, and what the backend says on the matter is dropped. Without a section no other origin may read anything.
//! It is no guard against forged requests: browsers send simple ones, and WebSocket handshakes, without asking. Those are
//! judged by [`super::csrf`], which asks here for what the section lets other origins do.

use bytes::Bytes;
use http::{
    HeaderMap, HeaderName, Method, StatusCode,
    header::{
        ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS,
        ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS,
        ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_HEADERS, ACCESS_CONTROL_REQUEST_METHOD,
        Entry, HeaderValue, ORIGIN, VARY,
    },
    response::Parts,
};

use super::mode::Mode;
use crate::{
    config::OriginPattern,
    exchange::{CorsFact, Exchange},
    wire::halt::{Halt, Reason, Refusal, Reply, Stage},
};

mod plan;

pub use plan::{SECTION, compile};

/// Names of one `Access-Control-Request-Headers`; browsers send a handful.
const MOST_NAMES: usize = 100;

/// The compiled section.
#[derive(Debug)]
pub struct Cors {
    state: State,
    /// Where the section stands, for `explain`.
    place: Box<str>,
}

#[derive(Debug)]
enum State {
    /// No section: no preflight is answered, and the backend's own fields are dropped.
    Absent,
    /// `mode = "off"`: the backend speaks for itself.
    Backend,
    /// The rules of the section.
    Rules(Box<Rules>),
}

#[derive(Debug)]
struct Rules {
    monitor: Monitor,
    on_denied: OnDenied,
    /// Sorted.
    exact: Box<[Box<str>]>,
    patterns: Box<[OriginPattern]>,
    any: AnyOrigin,
    pages: Pages,
    methods: Box<[Method]>,
    headers: Box<[HeaderName]>,
    credentials: Credentials,
    allow_methods: HeaderValue,
    allow_headers: Option<HeaderValue>,
    expose: Option<HeaderValue>,
    max_age: HeaderValue,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Monitor {
    Enforced,
    Watched,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum OnDenied {
    Refuse,
    Bare,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum AnyOrigin {
    Allowed,
    Listed,
}

/// Whose pages may open a WebSocket, beside the host's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pages {
    Listed,
    Any,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Credentials {
    Allowed,
    Withheld,
}

/// Whether a browser asks for leave before the request itself; such requests carry no credentials.
pub fn is_preflight(exchange: &Exchange) -> bool {
    exchange.method() == Method::OPTIONS
        && exchange.headers().contains_key(ORIGIN)
        && exchange
            .headers()
            .contains_key(ACCESS_CONTROL_REQUEST_METHOD)
}

/// Whether [`admit`] will answer this request itself, whatever the answer: it is a preflight, and the rules are enforced.
pub fn answers(policy: &Cors, exchange: &Exchange) -> bool {
    matches!(&policy.state, State::Rules(rules) if rules.monitor == Monitor::Enforced)
        && is_preflight(exchange)
}

/// Answers preflights; lets everything else pass, since it is the browser that keeps answers from readers.
///
/// # Errors
/// The reply to a preflight, or 403 `origin-denied`, `cors-method-denied`, `cors-header-denied`.
pub fn admit(policy: &Cors, exchange: &mut Exchange) -> Result<(), Halt> {
    let State::Rules(rules) = &policy.state else {
        exchange.note(Stage::Cors, || policy.silence().to_owned());
        return Ok(());
    };
    exchange.cors = rules.judge(exchange.headers());
    let preflight = is_preflight(exchange);
    let finding = found(&exchange.cors);
    exchange.note(Stage::Cors, || format!("{finding} ({})", policy.place));
    if !preflight {
        return Ok(());
    }
    let Err(reason) = rules.preflight(exchange) else {
        exchange.note(Stage::Cors, || "preflight granted".to_owned());
        return Err(rules.grant());
    };
    // Nothing is granted by half, whichever part was denied.
    exchange.cors = CorsFact::NotAllowed;
    let refusal = Halt::from(Refusal::new(Stage::Cors, reason));
    match (rules.monitor, rules.on_denied) {
        (Monitor::Watched, _) => Mode::Monitor.apply(Err(refusal), exchange),
        (Monitor::Enforced, OnDenied::Refuse) => Err(refusal),
        (Monitor::Enforced, OnDenied::Bare) => {
            exchange.note(Stage::Cors, || {
                format!("preflight denied, bare answer: {}", reason.code())
            });
            Err(no_content(HeaderMap::new()))
        }
    }
}

/// What was found of the origin, for `explain`.
fn found(fact: &CorsFact) -> &'static str {
    match fact {
        CorsFact::NoOrigin => "the request names no origin",
        CorsFact::Allowed(_) => "the origin is on the list",
        CorsFact::NotAllowed => "the origin is not on the list: browsers keep the answer from it",
        CorsFact::Anybody => "the answer is for everybody",
    }
}

/// Writes the fields of the policy in place of the backend's own, on every answer.
pub fn finish(policy: &Cors, exchange: &mut Exchange, answer: &mut Parts) {
    let headers = &mut answer.headers;
    if matches!(exchange.cors, CorsFact::Anybody) {
        headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
        return;
    }
    let rules = match &policy.state {
        State::Backend => return,
        State::Absent => return strip(headers),
        State::Rules(rules) => rules,
    };
    // A refusal before this stage left the question open.
    if matches!(exchange.cors, CorsFact::NoOrigin) {
        exchange.cors = rules.judge(exchange.headers());
    }
    let preflight = is_preflight(exchange);
    let vary = if preflight {
        VARY_PREFLIGHT
    } else {
        VARY_SIMPLE
    };
    add_vary(headers, vary);
    match &exchange.cors {
        CorsFact::Allowed(origin) => {
            // The answer to a preflight is our own: it has what was granted.
            if !preflight {
                strip(headers);
            }
            rules.name_origin(headers, origin);
        }
        CorsFact::NotAllowed if rules.monitor == Monitor::Watched => {}
        CorsFact::NotAllowed | CorsFact::NoOrigin | CorsFact::Anybody => strip(headers),
    }
}

impl Rules {
    fn judge(&self, headers: &HeaderMap) -> CorsFact {
        let mut origins = headers.get_all(ORIGIN).iter();
        match (origins.next(), origins.next()) {
            (None, _) => CorsFact::NoOrigin,
            (Some(origin), None) if self.allows(origin.as_bytes()) => match self.any {
                AnyOrigin::Allowed => CorsFact::Allowed(HeaderValue::from_static("*")),
                AnyOrigin::Listed => CorsFact::Allowed(origin.clone()),
            },
            _ => CorsFact::NotAllowed,
        }
    }

    fn allows(&self, origin: &[u8]) -> bool {
        // Every sandboxed frame and local file has the origin `null`.
        origin != b"null" && (self.any == AnyOrigin::Allowed || self.names(origin))
    }

    /// Whether the origin is on the list by name or by pattern; `*` is neither.
    fn names(&self, origin: &[u8]) -> bool {
        self.exact
            .binary_search_by(|listed| listed.as_bytes().cmp(origin))
            .is_ok()
            || self.patterns.iter().any(|pattern| pattern.matches(origin))
    }

    /// Whether pages of every site may open a WebSocket.
    fn opens_to_all(&self, origin: &[u8]) -> bool {
        self.pages == Pages::Any && origin != b"null"
    }

    /// The origins that are on the list by name or by pattern.
    fn named(&self) -> impl Iterator<Item = String> {
        let exact = self.exact.iter().map(ToString::to_string);
        exact.chain(self.patterns.iter().map(ToString::to_string))
    }

    fn preflight(&self, exchange: &Exchange) -> Result<(), Reason> {
        if !matches!(exchange.cors, CorsFact::Allowed(_)) {
            return Err(Reason::OriginDenied);
        }
        let mut asked = exchange
            .headers()
            .get_all(ACCESS_CONTROL_REQUEST_METHOD)
            .iter();
        let known = |asked: &HeaderValue| {
            self.methods
                .iter()
                .any(|method| method.as_str().as_bytes() == asked.as_bytes())
        };
        if !(asked.next().is_some_and(known) && asked.next().is_none()) {
            return Err(Reason::MethodDeniedForOrigin);
        }
        let names = exchange
            .headers()
            .get_all(ACCESS_CONTROL_REQUEST_HEADERS)
            .iter();
        let mut names = names
            .flat_map(|field| field.as_bytes().split(|byte| *byte == b','))
            .map(<[u8]>::trim_ascii);
        let allowed = |name: &[u8]| {
            name.is_empty()
                || self
                    .headers
                    .iter()
                    .any(|header| header.as_str().as_bytes().eq_ignore_ascii_case(name))
        };
        if names.by_ref().take(MOST_NAMES).all(allowed) && names.next().is_none() {
            return Ok(());
        }
        Err(Reason::HeaderDeniedForOrigin)
    }

    fn grant(&self) -> Halt {
        let mut headers = HeaderMap::with_capacity(8);
        headers.insert(ACCESS_CONTROL_ALLOW_METHODS, self.allow_methods.clone());
        if let Some(names) = &self.allow_headers {
            headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, names.clone());
        }
        headers.insert(ACCESS_CONTROL_MAX_AGE, self.max_age.clone());
        no_content(headers)
    }

    fn name_origin(&self, headers: &mut HeaderMap, origin: &HeaderValue) {
        headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
        if self.credentials == Credentials::Allowed {
            headers.insert(
                ACCESS_CONTROL_ALLOW_CREDENTIALS,
                HeaderValue::from_static("true"),
            );
        }
        if let Some(names) = &self.expose {
            headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, names.clone());
        }
    }
}

fn no_content(headers: HeaderMap) -> Halt {
    Halt::Reply(Box::new(Reply {
        stage: Stage::Cors,
        status: StatusCode::NO_CONTENT,
        headers,
        body: Bytes::new(),
    }))
}

/// Drops every field by which an answer grants something to other origins.
fn strip(headers: &mut HeaderMap) {
    let granting = |name: &&HeaderName| name.as_str().starts_with("access-control-");
    // An empty list allocates nothing.
    let names: Vec<HeaderName> = headers.keys().filter(granting).cloned().collect();
    for name in names {
        headers.remove(name);
    }
}

const VARY_SIMPLE: &[&str] = &["Origin"];
const VARY_PREFLIGHT: &[&str] = &[
    "Origin",
    "Access-Control-Request-Method",
    "Access-Control-Request-Headers",
];
const VARY_PREFLIGHT_WHOLE: &str =
    "Origin, Access-Control-Request-Method, Access-Control-Request-Headers";

/// Joins the names into the one `Vary` field, without repeats; a `*` there says it all already.
fn add_vary(headers: &mut HeaderMap, names: &[&str]) {
    match headers.entry(VARY) {
        Entry::Vacant(place) => {
            let whole = if names.len() == 1 {
                "Origin"
            } else {
                VARY_PREFLIGHT_WHOLE
            };
            place.insert(HeaderValue::from_static(whole));
            return;
        }
        // What most backends say needs no joining.
        Entry::Occupied(mut theirs)
            if names.len() == 1
                && theirs
                    .get()
                    .as_bytes()
                    .eq_ignore_ascii_case(b"accept-encoding")
                && theirs.iter().nth(1).is_none() =>
        {
            theirs.insert(HeaderValue::from_static("Accept-Encoding, Origin"));
            return;
        }
        Entry::Occupied(_) => {}
    }
    let says = |wanted: &str| {
        let fields = headers.get_all(VARY).iter();
        fields
            .flat_map(|field| field.as_bytes().split(|byte| *byte == b','))
            .any(|name| {
                let name = name.trim_ascii();
                name == b"*" || name.eq_ignore_ascii_case(wanted.as_bytes())
            })
    };
    let missing: Vec<&str> = names.iter().copied().filter(|name| !says(name)).collect();
    if missing.is_empty() {
        return;
    }
    let mut joined = Vec::with_capacity(128);
    let theirs = headers.get_all(VARY).iter().map(HeaderValue::as_bytes);
    for part in theirs
        .chain(missing.iter().map(|name| name.as_bytes()))
        .filter(|part| !part.is_empty())
    {
        if !joined.is_empty() {
            joined.extend_from_slice(b", ");
        }
        joined.extend_from_slice(part);
    }
    if let Ok(value) = HeaderValue::from_maybe_shared(bytes::Bytes::from(joined)) {
        headers.insert(VARY, value);
    }
}

impl Cors {
    /// Whether preflights of this route are answered here, so that they must find it whatever its methods are.
    pub fn answers_preflights(&self) -> bool {
        matches!(self.state, State::Rules(_))
    }

    /// Whether a page of this origin may use the method, with no credential of its visitor's browser.
    pub(super) fn lets_change(&self, origin: &[u8], method: &Method) -> bool {
        self.rules()
            .is_some_and(|rules| rules.methods.contains(method) && rules.allows(origin))
    }

    /// Whether it may use the method in the name of its visitor.
    pub(super) fn lets_change_as_visitor(&self, origin: &[u8], method: &Method) -> bool {
        let rules = self.rules();
        let rules = rules.filter(|rules| rules.credentials == Credentials::Allowed);
        rules.is_some_and(|rules| rules.methods.contains(method) && rules.names(origin))
    }

    /// Whether a page of this origin may open a WebSocket; `*` names nobody, and `null` is everybody's.
    pub(super) fn lets_open(&self, origin: &[u8]) -> bool {
        self.rules()
            .is_some_and(|rules| rules.names(origin) || rules.opens_to_all(origin))
    }

    /// Whether it may open one in the name of its visitor.
    pub(super) fn lets_open_as_visitor(&self, origin: &[u8]) -> bool {
        self.rules().is_some_and(|rules| {
            let named = rules.credentials == Credentials::Allowed && rules.names(origin);
            named || rules.opens_to_all(origin)
        })
    }

    /// Whose pages may open a WebSocket beside the host's own, for `check -v`.
    pub(super) fn opened(&self) -> Vec<String> {
        let Some(rules) = self.rules() else {
            return Vec::new();
        };
        if rules.pages == Pages::Any {
            return vec!["every site".to_owned()];
        }
        let without = match rules.credentials {
            Credentials::Allowed => "",
            Credentials::Withheld => " without the credentials of its visitors",
        };
        let named = rules.named();
        named.map(|origin| format!("{origin}{without}")).collect()
    }

    /// The mode of the section; without one nothing of it is left to the backend.
    pub(super) fn mode(&self) -> Mode {
        match &self.state {
            State::Backend => Mode::Off,
            State::Rules(rules) if rules.monitor == Monitor::Watched => Mode::Monitor,
            State::Absent | State::Rules(_) => Mode::Enforce,
        }
    }

    fn rules(&self) -> Option<&Rules> {
        match &self.state {
            State::Rules(rules) => Some(rules),
            State::Absent | State::Backend => None,
        }
    }

    /// What is true without rules, for `explain`.
    fn silence(&self) -> &'static str {
        if matches!(self.state, State::Backend) {
            "off: the backend says which origins may read its answers"
        } else {
            "no section: no other origin may read answers (default)"
        }
    }

    /// What other origins may do, for `check -v`.
    pub fn describe(&self) -> Vec<(String, String)> {
        let rules = match &self.state {
            State::Absent => return vec![("access-control-*".to_owned(), "remove".to_owned())],
            State::Backend => {
                return vec![(
                    "access-control-*".to_owned(),
                    "left to the backend".to_owned(),
                )];
            }
            State::Rules(rules) => rules,
        };
        let mut origins: Vec<String> = rules.named().collect();
        if rules.any == AnyOrigin::Allowed {
            origins.push("*".to_owned());
        }
        let shown = |value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
        let mut lines = vec![
            ("origins".to_owned(), origins.join(", ")),
            (
                ACCESS_CONTROL_ALLOW_METHODS.to_string(),
                shown(&rules.allow_methods),
            ),
            (ACCESS_CONTROL_MAX_AGE.to_string(), shown(&rules.max_age)),
        ];
        for (name, value) in [
            (ACCESS_CONTROL_ALLOW_HEADERS, &rules.allow_headers),
            (ACCESS_CONTROL_EXPOSE_HEADERS, &rules.expose),
        ] {
            lines.extend(value.as_ref().map(|value| (name.to_string(), shown(value))));
        }
        if rules.credentials == Credentials::Allowed {
            lines.push((
                ACCESS_CONTROL_ALLOW_CREDENTIALS.to_string(),
                "true".to_owned(),
            ));
        }
        if rules.pages == Pages::Any {
            lines.push(("websocket".to_owned(), "any origin".to_owned()));
        }
        lines
    }
}

#[cfg(test)]
mod tests {
    use super::{Cors, admit, compile, finish, is_preflight};
    use crate::{
        exchange::Exchange,
        policy::trial::{answer, compiled, errors, exchange, judged, relaxations, values},
        wire::halt::{Halt, Reason},
    };

    const SECTION: &str = "origins = ['https://app.example', 'https://*.partner.example']\n\
        methods = ['GET', 'PUT']\nheaders = ['authorization', 'X-A']\nexpose = ['etag']\ncredentials = true";
    const PREFLIGHT: [(&str, &str); 3] = [
        ("origin", "https://app.example"),
        ("access-control-request-method", "PUT"),
        ("access-control-request-headers", "authorization, x-a"),
    ];

    fn cors(text: &str) -> Cors {
        compiled(text, compile)
    }

    /// Status, reason and final fields of the answer to a preflight.
    fn preflight(
        section: &str,
        fields: &[(&'static str, &str)],
    ) -> (u16, Option<Reason>, http::response::Parts) {
        let policy = cors(section);
        let mut asked = exchange("OPTIONS", "https", fields);
        assert!(is_preflight(&asked));
        let mut answer = answer(&[]);
        let (status, reason) =
            match admit(&policy, &mut asked).expect_err("a preflight goes no further") {
                Halt::Reply(reply) => {
                    answer.headers = reply.headers;
                    (reply.status.as_u16(), None)
                }
                Halt::Refuse(refusal) => (refusal.reason.status().as_u16(), Some(refusal.reason)),
            };
        finish(&policy, &mut asked, &mut answer);
        (status, reason, answer)
    }

    fn granted(answer: &http::response::Parts) -> usize {
        answer
            .headers
            .keys()
            .filter(|name| name.as_str().starts_with("access-control-"))
            .count()
    }

    #[test]
    fn b9_an_allowed_preflight_is_answered() {
        let (status, _, answer) = preflight(SECTION, &PREFLIGHT);
        assert_eq!(status, 204);
        assert_eq!(
            values(&answer, "access-control-allow-origin"),
            ["https://app.example"]
        );
        assert_eq!(
            values(&answer, "access-control-allow-credentials"),
            ["true"]
        );
        assert_eq!(
            values(&answer, "access-control-allow-methods"),
            ["GET, PUT"]
        );
        assert_eq!(
            values(&answer, "access-control-allow-headers"),
            ["authorization, x-a"]
        );
        assert_eq!(values(&answer, "access-control-max-age"), ["600"]);
        assert_eq!(
            values(&answer, "vary"),
            ["Origin, Access-Control-Request-Method, Access-Control-Request-Headers"]
        );
    }

    #[test]
    fn b10_a27_a_denied_preflight_grants_nothing_and_still_varies() {
        let with = |at: usize, value: &'static str| {
            let mut fields = PREFLIGHT;
            fields[at].1 = value;
            fields
        };
        for (fields, reason) in [
            (with(0, "https://evil.example"), Reason::OriginDenied),
            (with(1, "DELETE"), Reason::MethodDeniedForOrigin),
            (with(1, "put"), Reason::MethodDeniedForOrigin),
            (with(2, "authorization, x-b"), Reason::HeaderDeniedForOrigin),
        ] {
            let (status, found, answer) = preflight(SECTION, &fields);
            assert_eq!((status, found, granted(&answer)), (403, Some(reason), 0));
            assert_eq!(values(&answer, "vary").len(), 1);
            let (status, found, answer) =
                preflight(&format!("{SECTION}\non_denied = 'bare'"), &fields);
            assert_eq!((status, found, granted(&answer)), (204, None, 0));
            assert!(values(&answer, "vary")[0].starts_with("Origin, "));
        }
    }

    #[test]
    fn b11_only_all_three_marks_make_a_preflight() {
        let [origin, method, _] = PREFLIGHT;
        for (verb, fields) in [
            ("OPTIONS", vec![origin]),
            ("OPTIONS", vec![method]),
            ("GET", vec![origin, method]),
        ] {
            let mut asked = exchange(verb, "https", &fields);
            assert!(!is_preflight(&asked) && admit(&cors(SECTION), &mut asked).is_ok());
        }
    }

    fn passed(
        section: &str,
        fields: &[(&'static str, &str)],
        backend: &[(&'static str, &str)],
    ) -> http::response::Parts {
        let policy = cors(section);
        let mut asked = exchange("GET", "https", fields);
        assert!(admit(&policy, &mut asked).is_ok());
        asked.take_headers();
        finished(&policy, &mut asked, backend)
    }

    fn finished(
        policy: &Cors,
        asked: &mut Exchange,
        backend: &[(&'static str, &str)],
    ) -> http::response::Parts {
        let mut answer = answer(backend);
        finish(policy, asked, &mut answer);
        answer
    }

    #[test]
    fn b12_an_answer_without_origin_varies_and_grants_nothing() {
        let answer = passed(SECTION, &[], &[]);
        assert_eq!(
            (values(&answer, "vary"), granted(&answer)),
            (vec!["Origin".to_owned()], 0)
        );
    }

    #[test]
    fn b13_origins_are_compared_byte_for_byte() {
        for (origin, allowed) in [
            ("https://app.example", true),
            ("https://a.partner.example", true),
            ("null", false),
            ("https://app.example.evil.com", false),
            ("https://APP.example", false),
            ("HTTPS://app.example", false),
            ("http://app.example", false),
            ("https://app.example:8443", false),
            ("https://app.example, https://evil.example", false),
            ("https://partner.example", false),
            ("https://a.b.partner.example", false),
            ("https://evil.example#.partner.example", false),
            ("", false),
        ] {
            let answer = passed(SECTION, &[("origin", origin)], &[]);
            assert_eq!(granted(&answer) > 0, allowed, "{origin}");
        }
        let twice = [
            ("origin", "https://app.example"),
            ("origin", "https://app.example"),
        ];
        assert_eq!(granted(&passed(SECTION, &twice, &[])), 0);
        assert_eq!(
            granted(&passed("origins = ['*']", &[("origin", "null")], &[])),
            0
        );
    }

    #[test]
    fn b14_credentials_with_a_star_are_refused_at_the_star() {
        let found = errors("origins = ['*']\ncredentials = true", compile);
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].0, "*");
        let answer = passed("origins = ['*']", &[("origin", "https://any.example")], &[]);
        assert_eq!(values(&answer, "access-control-allow-origin"), ["*"]);
        assert_eq!(relaxations("origins = ['*']", compile).len(), 1);
        for key in ["methods", "headers", "expose"] {
            assert_eq!(
                errors(&format!("origins = []\n{key} = ['*']"), compile)[0].0,
                "*"
            );
        }
    }

    #[test]
    fn b15_the_backends_own_fields_are_dropped_and_refusals_name_the_origin() {
        let backend = [
            ("access-control-allow-origin", "*"),
            ("access-control-allow-credentials", "true"),
            ("access-control-allow-private-network", "true"),
        ];
        let origin = [("origin", "https://app.example")];
        let answer = passed(SECTION, &origin, &backend);
        assert_eq!(
            values(&answer, "access-control-allow-origin"),
            ["https://app.example"]
        );
        assert_eq!(values(&answer, "access-control-expose-headers"), ["etag"]);
        assert_eq!(granted(&answer), 3);
        let (absent, _) = judged("", |_| Cors {
            state: super::State::Absent,
            place: Box::default(),
        });
        let mut asked = exchange("GET", "https", &origin);
        assert_eq!(granted(&finished(&absent, &mut asked, &backend)), 0);
        // A 429 is made before this policy was asked.
        let mut asked = exchange("GET", "https", &origin);
        let answer = finished(&cors(SECTION), &mut asked, &[]);
        assert_eq!(
            values(&answer, "access-control-allow-origin"),
            ["https://app.example"]
        );
    }

    #[test]
    fn modes_leave_the_rest_to_the_backend() {
        let backend = [("access-control-allow-origin", "*")];
        let evil = [("origin", "https://evil.example")];
        assert_eq!(
            values(
                &passed(&format!("{SECTION}\nmode = 'off'"), &evil, &backend),
                "access-control-allow-origin"
            ),
            ["*"]
        );
        let monitor = format!("{SECTION}\nmode = 'monitor'");
        assert_eq!(
            values(
                &passed(&monitor, &evil, &backend),
                "access-control-allow-origin"
            ),
            ["*"]
        );
        let allowed = passed(&monitor, &[("origin", "https://app.example")], &backend);
        assert_eq!(
            values(&allowed, "access-control-allow-origin"),
            ["https://app.example"]
        );
        let policy = cors(&monitor);
        let mut asked = exchange("OPTIONS", "https", &[evil[0], PREFLIGHT[1]]);
        assert!(admit(&policy, &mut asked).is_ok());
        assert_eq!(asked.would_refuse.len(), 1);
        asked.take_headers();
        assert_eq!(
            values(
                &finished(&policy, &mut asked, &backend),
                "access-control-allow-origin"
            ),
            ["*"]
        );
    }

    #[test]
    fn vary_is_merged_without_repeats() {
        let vary = |theirs: &[&str]| {
            let fields: Vec<_> = theirs.iter().map(|value| ("vary", *value)).collect();
            values(&passed(SECTION, &[], &fields), "vary")
        };
        assert_eq!(vary(&["accept-encoding"]), ["Accept-Encoding, Origin"]);
        assert_eq!(vary(&["Cookie"]), ["Cookie, Origin"]);
        assert_eq!(vary(&["Cookie", "Accept"]), ["Cookie, Accept, Origin"]);
        assert_eq!(vary(&["Cookie, origin"]), ["Cookie, origin"]);
        assert_eq!(vary(&["*"]), ["*"]);
    }
}
