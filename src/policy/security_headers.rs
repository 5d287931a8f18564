//! `[headers]`: the security headers of every answer, and the leaks that no answer keeps.
//!
//! A preset states for each header its value and its merge [`Rule`]; the file moves single headers from one rule to
//! another. HSTS follows RFC 6797 §7.2: never in clear. Policy strings are checked in [`super::csp`]; cross-origin
//! fields belong to [`super::cors`], cookies to [`super::cookies`]. Nothing is formatted per request.

use http::{
    HeaderMap, HeaderName,
    header::{
        CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_SECURITY_POLICY_REPORT_ONLY, Entry,
        HeaderValue, SERVER, SET_COOKIE, STRICT_TRANSPORT_SECURITY,
    },
    response::Parts,
};

use super::mode::Mode;
use crate::{
    exchange::{Exchange, Kind, Scheme},
    wire::halt::Stage,
};

mod plan;
mod presets;

pub use plan::{SECTION, compile};
pub use presets::{API_CSP, COMPATIBLE_CSP, Rule, STRICT, STRICT_CSP, STRICT_HSTS};

use presets::words_of;

/// What happens to an answer that is meant for one person and says nothing on caching.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Private {
    /// It gains `no-store`.
    NoStore,
    /// It stays as it is.
    AsSent,
}

/// Who is given the early hints of a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum EarlyHints {
    /// A browser that opens a page, on a connection of its own.
    Navigation,
    /// Everybody.
    Always,
    /// Nobody.
    Never,
}

/// One header that answers gain.
#[derive(Clone, Debug)]
struct Stated {
    name: HeaderName,
    rule: Rule,
    value: HeaderValue,
}

/// The compiled section.
#[derive(Debug)]
pub struct SecurityHeaders {
    mode: Mode,
    entries: Box<[Stated]>,
    remove: Box<[HeaderName]>,
    hsts: Option<HeaderValue>,
    early_hints: EarlyHints,
    private: Private,
    /// Where the section stands, for `explain`.
    place: Box<str>,
}

/// Edits an answer in place; each security header stands once afterwards.
pub fn finish(policy: &SecurityHeaders, exchange: &mut Exchange, answer: &mut Parts) {
    policy.note(exchange);
    let headers = &mut answer.headers;
    match policy.mode {
        Mode::Off => return,
        Mode::Monitor => return policy.report_only(headers),
        Mode::Enforce => {}
    }
    headers.reserve(policy.entries.len() + 2);
    remove_leaks(headers);
    for name in &policy.remove {
        headers.remove(name);
    }
    if policy.private == Private::NoStore && is_private(exchange, headers) {
        add_default(
            headers,
            &CACHE_CONTROL,
            &HeaderValue::from_static("no-store"),
        );
    }
    for entry in &policy.entries {
        match entry.rule {
            Rule::Set => drop(headers.insert(&entry.name, entry.value.clone())),
            Rule::Default => add_default(headers, &entry.name, &entry.value),
            Rule::Append => append(headers, &entry.name, &entry.value),
        }
    }
    match (&policy.hsts, exchange.scheme()) {
        (Some(value), Scheme::Https) => {
            headers.insert(STRICT_TRANSPORT_SECURITY, value.clone());
        }
        (None, Scheme::Https) => {}
        // RFC 6797 §7.2: not in clear, not even the backend's.
        (_, Scheme::Http) => drop(headers.remove(STRICT_TRANSPORT_SECURITY)),
    }
}

fn is_private(exchange: &Exchange, headers: &HeaderMap) -> bool {
    exchange.had_authorization
        || exchange.principal.is_some()
        || headers.keys().any(|name| name == SET_COOKIE)
}

fn add_default(headers: &mut HeaderMap, name: &HeaderName, value: &HeaderValue) {
    match headers.entry(name) {
        Entry::Vacant(place) => drop(place.insert(value.clone())),
        Entry::Occupied(mut theirs) => {
            // Two values of such a header contradict one another; browsers take the first.
            let several = theirs.iter().nth(1).is_some();
            if several && words_of(name.as_str()).is_some() {
                let first = theirs.get().clone();
                theirs.insert(first);
            }
        }
    }
}

fn append(headers: &mut HeaderMap, name: &HeaderName, value: &HeaderValue) {
    match headers.entry(name) {
        Entry::Vacant(place) => drop(place.insert(value.clone())),
        Entry::Occupied(mut theirs) => {
            if !theirs.iter().any(|theirs| theirs == value) {
                theirs.append(value.clone());
            }
        }
    }
}

/// The leaks that many backends have.
static USUAL_LEAKS: [HeaderName; 2] = [SERVER, HeaderName::from_static("x-powered-by")];

fn remove_leaks(headers: &mut HeaderMap) {
    let mut usual = [false; USUAL_LEAKS.len()];
    // An empty list allocates nothing; with the copy of a name that came in it allocates twice.
    let mut others: Vec<HeaderName> = Vec::new();
    for name in headers.keys() {
        if !is_leak(name.as_str()) {
            continue;
        }
        let mut marks = USUAL_LEAKS.iter().zip(&mut usual);
        match marks.find(|(known, _)| *known == name) {
            Some((_, found)) => *found = true,
            None => others.push(name.clone()),
        }
    }
    let usual = USUAL_LEAKS.iter().zip(usual);
    for (name, _) in usual.filter(|(_, found)| *found) {
        headers.remove(name);
    }
    for name in others {
        headers.remove(name);
    }
}

/// Names that tell an attacker what runs behind, or switch on the filter that browsers dropped for its holes.
/// Names are lower-case here.
fn is_leak(name: &str) -> bool {
    let Some(rest) = name.strip_prefix("x-") else {
        // Few of the others begin with one of these letters.
        return matches!(name.as_bytes().first(), Some(b's' | b'p' | b'l'))
            && matches!(
                name,
                "server" | "powered-by" | "liferay-portal" | "public-key-pins"
            );
    };
    matches!(
        rest,
        "backend-server"
            | "beserver"
            | "cms"
            | "debug-token"
            | "debug-token-link"
            | "feserver"
            | "framework"
            | "generated-by"
            | "generator"
            | "mod-pagespeed"
            | "owa-version"
            | "page-speed"
            | "php-version"
            | "redirect-by"
            | "runtime"
            | "server"
            | "server-name"
            | "sourcefiles"
            | "turbo-charged-by"
            | "umbraco-version"
            | "version"
            | "xss-protection"
    ) || [
        "aspnet",
        "powered",
        "drupal-",
        "litespeed-",
        "magento-",
        "varnish-",
        "jenkins",
    ]
    .iter()
    .any(|prefix| rest.starts_with(prefix))
}

impl SecurityHeaders {
    /// Whether this request is given the early hints of its backend (RFC 8297). Of browsers it is known that they can
    /// tell a hint from an answer; of a proxy between them and the gate it is not.
    pub fn passes_hints(&self, exchange: &Exchange) -> bool {
        match self.early_hints {
            EarlyHints::Never => false,
            EarlyHints::Always => true,
            EarlyHints::Navigation => exchange.kind == Kind::Page,
        }
    }

    /// Monitor mode: the policies as report-only and nothing else.
    fn report_only(&self, headers: &mut HeaderMap) {
        let policies = self.entries.iter().filter(|entry| {
            entry.name == CONTENT_SECURITY_POLICY
                || entry.name == CONTENT_SECURITY_POLICY_REPORT_ONLY
        });
        for entry in policies {
            append(headers, &CONTENT_SECURITY_POLICY_REPORT_ONLY, &entry.value);
        }
    }

    /// Name, and rule with value, of every header that the policy touches, for `check -v`.
    pub fn describe(&self) -> Vec<(String, String)> {
        if self.mode == Mode::Off {
            return Vec::new();
        }
        let mut lines = Vec::new();
        if let Some(value) = &self.hsts {
            lines.push((
                STRICT_TRANSPORT_SECURITY.to_string(),
                format!("set (https): {}", shown(value)),
            ));
        }
        for entry in &self.entries {
            lines.push((
                entry.name.to_string(),
                format!("{}: {}", entry.rule.as_str(), shown(&entry.value)),
            ));
        }
        if self.private == Private::NoStore {
            lines.push((
                CACHE_CONTROL.to_string(),
                "default (private answers): no-store".to_owned(),
            ));
        }
        for name in &self.remove {
            lines.push((name.to_string(), "remove".to_owned()));
        }
        for name in [
            "server",
            "x-powered-by",
            "x-aspnet*",
            "x-generator",
            "x-xss-protection",
        ] {
            lines.push((name.to_owned(), "remove (leak)".to_owned()));
        }
        lines
    }

    fn note(&self, exchange: &mut Exchange) {
        exchange.note(Stage::Headers, || {
            format!(
                "{}: {} headers stated, {} taken out beside the leaks ({})",
                self.mode.as_str(),
                self.entries.len() + usize::from(self.hsts.is_some()),
                self.remove.len(),
                self.place
            )
        });
    }
}

fn shown(value: &HeaderValue) -> String {
    String::from_utf8_lossy(value.as_bytes()).into_owned()
}

#[cfg(test)]
mod tests {
    use super::{API_CSP, COMPATIBLE_CSP, STRICT_CSP, SecurityHeaders, compile, finish, is_leak};
    use crate::policy::trial::{answer, compiled, exchange, values};

    const ALWAYS: [(&str, &str); 6] = [
        ("x-content-type-options", "nosniff"),
        ("x-frame-options", "DENY"),
        ("referrer-policy", "strict-origin-when-cross-origin"),
        (
            "permissions-policy",
            "camera=(), microphone=(), geolocation=(), payment=(), usb=()",
        ),
        ("cross-origin-opener-policy", "same-origin"),
        ("cross-origin-resource-policy", "same-origin"),
    ];

    fn finished(
        section: &str,
        scheme: &str,
        backend: &[(&'static str, &str)],
    ) -> http::response::Parts {
        finished_for(section, &mut exchange("GET", scheme, &[]), backend)
    }

    fn finished_for(
        section: &str,
        asked: &mut crate::exchange::Exchange,
        backend: &[(&'static str, &str)],
    ) -> http::response::Parts {
        let policy: SecurityHeaders = compiled(section, compile);
        let mut answer = answer(backend);
        finish(&policy, asked, &mut answer);
        answer
    }

    #[test]
    fn b1_a_bare_answer_gains_every_default_once() {
        let answer = finished("", "https", &[]);
        for (name, value) in ALWAYS {
            assert_eq!(values(&answer, name), [value], "{name}");
        }
        assert_eq!(values(&answer, "content-security-policy"), [STRICT_CSP]);
        assert_eq!(
            values(&answer, "strict-transport-security"),
            ["max-age=31536000; includeSubDomains"]
        );
        assert_eq!(
            answer.headers.len(),
            8,
            "and nothing else: {:?}",
            answer.headers
        );
    }

    #[test]
    fn b2_no_hsts_in_clear_not_even_the_backends() {
        let answer = finished("", "http", &[("strict-transport-security", "max-age=1")]);
        assert!(values(&answer, "strict-transport-security").is_empty());
        assert_eq!(answer.headers.len(), 7);
    }

    #[test]
    fn b3_set_is_ours_and_default_is_the_backends_and_never_two() {
        let backend = [
            ("x-frame-options", "ALLOWALL"),
            ("x-frame-options", "SAMEORIGIN"),
        ];
        assert_eq!(
            values(&finished("", "https", &backend), "x-frame-options"),
            ["DENY"]
        );
        let lenient = "default = { X-Frame-Options = 'DENY' }";
        assert_eq!(
            values(&finished(lenient, "https", &backend), "x-frame-options"),
            ["ALLOWALL"]
        );
        assert_eq!(
            values(&finished(lenient, "https", &[]), "x-frame-options"),
            ["DENY"]
        );
        let ours = "set = { X-Frame-Options = 'SAMEORIGIN', X-Own = 'a' }";
        let answer = finished(ours, "https", &backend);
        assert_eq!(values(&answer, "x-frame-options"), ["SAMEORIGIN"]);
        assert_eq!(values(&answer, "x-own"), ["a"]);
    }

    #[test]
    fn b4_leaks_go_in_every_preset() {
        let backend = [
            ("server", "Apache/2.2"),
            ("x-powered-by", "PHP/5"),
            ("x-aspnet-version", "4"),
            ("x-aspnetmvc-version", "5"),
            ("x-generator", "Drupal 7"),
            ("x-drupal-cache", "HIT"),
            ("x-xss-protection", "1"),
            ("x-runtime", "0.1"),
            ("x-powered-by", "Express"),
            ("x-kept", "1"),
        ];
        for preset in ["strict", "api", "compatible", "none"] {
            let answer = finished(&format!("preset = '{preset}'"), "https", &backend);
            for (name, _) in backend.iter().filter(|(name, _)| *name != "x-kept") {
                assert!(values(&answer, name).is_empty(), "{preset}: {name}");
            }
            assert_eq!(values(&answer, "x-kept"), ["1"]);
        }
        assert_eq!(
            finished("preset = 'none'", "https", &backend).headers.len(),
            1
        );
        let named = finished(
            "remove = ['X-Kept']\nset = { Server = 'gate' }",
            "https",
            &backend,
        );
        assert_eq!(
            (values(&named, "x-kept").len(), values(&named, "server")),
            (0, vec!["gate".to_owned()])
        );
        for name in [
            "x-frame-options",
            "x-request-id",
            "content-type",
            "serverless",
            "x-custom",
        ] {
            assert!(!is_leak(name), "{name}");
        }
    }

    #[test]
    fn b6_private_answers_are_not_stored_unless_the_backend_says_otherwise() {
        let cache = |backend: &[(&'static str, &str)]| {
            values(&finished("", "https", backend), "cache-control")
        };
        assert!(cache(&[]).is_empty());
        assert_eq!(cache(&[("set-cookie", "a=1")]), ["no-store"]);
        assert_eq!(
            cache(&[
                ("set-cookie", "a=1"),
                ("cache-control", "public, max-age=60")
            ]),
            ["public, max-age=60"]
        );
        let mut asked = exchange("GET", "https", &[("authorization", "Bearer x")]);
        // The fields have gone to the backend by then.
        asked.take_headers();
        assert_eq!(
            values(&finished_for("", &mut asked, &[]), "cache-control"),
            ["no-store"]
        );
        assert_eq!(
            values(&finished("preset = 'api'", "https", &[]), "cache-control"),
            ["no-store"]
        );
        let stated = finished(
            "preset = 'api'",
            "https",
            &[("cache-control", "max-age=60")],
        );
        assert_eq!(values(&stated, "cache-control"), ["max-age=60"]);
    }

    #[test]
    fn policies_stand_beside_the_backends_unless_set() {
        let backend = [("content-security-policy", "default-src 'none'")];
        let csp = |section: &str| {
            values(
                &finished(section, "https", &backend),
                "content-security-policy",
            )
        };
        assert_eq!(csp(""), ["default-src 'none'", STRICT_CSP]);
        assert_eq!(csp("preset = 'api'"), ["default-src 'none'", API_CSP]);
        assert_eq!(
            csp("csp = \"img-src 'self'\""),
            ["default-src 'none'", "img-src 'self'"]
        );
        assert_eq!(csp("csp = \"default-src 'none'\""), ["default-src 'none'"]);
        assert_eq!(
            csp("set = { Content-Security-Policy = \"img-src 'self'\" }"),
            ["img-src 'self'"]
        );
        assert_eq!(
            csp("default = { Content-Security-Policy = \"img-src 'self'\" }"),
            ["default-src 'none'"]
        );
        assert!(csp("remove = ['Content-Security-Policy']").is_empty());
    }

    #[test]
    fn compatible_lets_the_backend_speak_and_reports_the_strict_policy() {
        let answer = finished(
            "preset = 'compatible'",
            "https",
            &[("cross-origin-opener-policy", "unsafe-none")],
        );
        assert_eq!(values(&answer, "content-security-policy"), [COMPATIBLE_CSP]);
        assert_eq!(
            values(&answer, "content-security-policy-report-only"),
            [STRICT_CSP]
        );
        assert_eq!(values(&answer, "x-frame-options"), ["SAMEORIGIN"]);
        assert_eq!(
            values(&answer, "cross-origin-opener-policy"),
            ["unsafe-none"]
        );
        assert_eq!(
            values(&answer, "cross-origin-resource-policy"),
            ["same-origin"]
        );
    }

    #[test]
    fn monitor_only_reports_and_off_changes_nothing() {
        let backend = [("server", "x"), ("set-cookie", "a=1")];
        let answer = finished("mode = 'monitor'", "https", &backend);
        assert_eq!(
            values(&answer, "content-security-policy-report-only"),
            [STRICT_CSP]
        );
        assert_eq!(answer.headers.len(), 3);
        assert_eq!(finished("mode = 'off'", "https", &backend).headers.len(), 2);
    }

    #[test]
    fn every_header_and_its_rule_is_described() {
        let lines = compiled("remove = ['X-Backend-Host']", compile).describe();
        let has = |name: &str, start: &str| {
            lines
                .iter()
                .any(|(n, rule)| n == name && rule.starts_with(start))
        };
        assert!(has(
            "strict-transport-security",
            "set (https): max-age=31536000"
        ));
        assert!(has("content-security-policy", "append: default-src"));
        assert!(
            has("x-frame-options", "set: DENY")
                && has("x-backend-host", "remove")
                && has("server", "remove (leak)")
        );
    }
}
