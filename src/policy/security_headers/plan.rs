//! `[headers]` compiled: the layers of the file laid over a preset.
//!
//! For [`super`]. The farthest layer comes first, so that the nearest has the last word on each header.

use std::time::Duration;

use http::{
    HeaderName,
    header::{
        CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_SECURITY_POLICY_REPORT_ONLY, HeaderValue,
        LINK, SET_COOKIE, STRICT_TRANSPORT_SECURITY,
    },
};

use super::{
    EarlyHints, Private, SecurityHeaders, Stated,
    presets::{Preset, Rows, Rule, STRICT_HSTS, content, foreign},
};
use crate::{
    config::{FromValue, Key, Kind, Problem, Reader, Section, Severity, Table, Value, quoted},
    policy::{csp, mode::Mode},
};

const YEAR: Duration = Duration::from_hours(365 * 24);
const HALF_YEAR: Duration = Duration::from_hours(180 * 24);

static HSTS: Section = Section {
    name: "hsts",
    doc: "Strict-Transport-Security, sent over https alone",
    keys: &[
        Key::new(
            "max_age",
            Kind::Duration,
            "how long browsers refuse plain http for this host; `0s` makes them forget",
            "\"365d\"",
        ),
        Key::new(
            "subdomains",
            Kind::Bool,
            "whether it holds for all subdomains",
            "true",
        ),
        Key::new(
            "preload",
            Kind::Bool,
            "ask for a place on the browsers' built-in list, which is hard to leave; needs subdomains and a year",
            "false",
        ),
    ],
};

/// The declaration of `[headers]`.
pub static SECTION: Section = Section {
    name: "headers",
    doc: "security headers of every answer, the proxy's own included",
    keys: &[
        Key::new(
            "mode",
            Kind::Choice(Mode::WORDS),
            "enforce, monitor or off; monitor sends the Content-Security-Policy as report-only and nothing else",
            "\"enforce\"",
        ),
        Key::new(
            "preset",
            Kind::Choice(&["strict", "api", "compatible", "none"]),
            "the starting set: strict, api, compatible or none; none removes leaks and adds nothing",
            "\"strict\"",
        ),
        Key::new(
            "csp",
            Kind::Checked(csp::check),
            "the Content-Security-Policy in place of the preset's; it stands beside the backend's own",
            "",
        ),
        Key::new(
            "csp_report_only",
            Kind::Checked(csp::check),
            "a Content-Security-Policy that browsers report on and do not enforce",
            "",
        ),
        Key::new(
            "hsts",
            Kind::Table(&HSTS),
            "Strict-Transport-Security, sent over https alone",
            "",
        ),
        Key::new(
            "set",
            Kind::Map(&Kind::HeaderValue),
            "headers that are ours, whatever the backend says",
            "{}",
        ),
        Key::new(
            "default",
            Kind::Map(&Kind::HeaderValue),
            "headers for answers on which the backend says nothing",
            "{}",
        ),
        Key::new(
            "remove",
            Kind::List(&Kind::HeaderName),
            "headers that no answer carries, beside the leaks that every preset removes",
            "[]",
        ),
        Key::new(
            "early_hints",
            Kind::Choice(&["navigation", "always", "never"]),
            "whose requests over HTTP/1.1 are given the `Link` fields of a backend's 103: those of a browser that opens a page, with no proxy between that is trusted or names itself (navigation), of everybody (always), of nobody (never)",
            "\"navigation\"",
        ),
    ],
};

/// Compiles the section through its layers.
pub fn compile(reader: &Reader<'_>) -> SecurityHeaders {
    let mode: Mode = reader.get("mode").unwrap_or_default();
    let preset: Preset = reader.get("preset").unwrap_or_default();
    relaxations(reader, mode, preset);
    let mut plan = Plan::new(preset);
    plan.policy(reader, "csp", &CONTENT_SECURITY_POLICY);
    plan.policy(
        reader,
        "csp_report_only",
        &CONTENT_SECURITY_POLICY_REPORT_ONLY,
    );
    plan.stated(reader);
    let early_hints = early_hints(reader, &plan);
    let keeps_hsts = !plan.remove.contains(&STRICT_TRANSPORT_SECURITY);
    let hsts = (preset != Preset::None || reader.has("hsts")).then(|| hsts(reader));
    SecurityHeaders {
        mode,
        place: reader.stated_at(),
        entries: plan.entries.into(),
        remove: plan.remove.into(),
        hsts: hsts.filter(|_| keeps_hsts),
        early_hints,
        private: if preset == Preset::None {
            Private::AsSent
        } else {
            Private::NoStore
        },
    }
}

fn relaxations(reader: &Reader<'_>, mode: Mode, preset: Preset) {
    match mode {
        Mode::Enforce => {}
        Mode::Monitor => reader.relax(
            "mode",
            "this weakens every page: the security headers are only tried out",
        ),
        Mode::Off => reader.relax(
            "mode",
            "this weakens every page: no security header is sent and leaks stay",
        ),
    }
    match preset {
        Preset::Strict | Preset::Api => {}
        Preset::Compatible => {
            reader.relax("preset", "this weakens every page: inline script may run");
        }
        Preset::None => reader.relax(
            "preset",
            "this weakens every page: no security header is added",
        ),
    }
}

/// Answers that carry no `Link`, or none but the file's own, have no hints of the backend's either.
fn early_hints(reader: &Reader<'_>, plan: &Plan) -> EarlyHints {
    match reader.get::<String>("early_hints").as_deref() {
        Some("never") => EarlyHints::Never,
        _ if plan.withholds(&LINK) => EarlyHints::Never,
        Some("always") => {
            reader.relax(
                "early_hints",
                "this weakens clients that do not know interim answers: they take a hint for the answer",
            );
            EarlyHints::Always
        }
        _ => EarlyHints::Navigation,
    }
}

fn hsts(reader: &Reader<'_>) -> HeaderValue {
    let hsts = reader.section("hsts");
    let max_age: Duration = hsts.get("max_age").unwrap_or(YEAR);
    let subdomains: bool = hsts.get("subdomains").unwrap_or(true);
    let preload: bool = hsts.get("preload").unwrap_or(false);
    if preload && (!subdomains || max_age < YEAR) {
        let hint = "`max_age = \"365d\", subdomains = true, preload = true`".to_owned();
        hsts.error(
            "preload",
            "`preload` needs `subdomains` and a `max_age` of a year",
            Some(hint),
        );
    }
    if max_age < HALF_YEAR {
        hsts.relax(
            "max_age",
            "this weakens https: browsers forget to insist on it in less than 180 days",
        );
    }
    if !subdomains {
        hsts.relax(
            "subdomains",
            "this weakens https: subdomains may still be reached in clear",
        );
    }
    if (max_age, subdomains, preload) == (YEAR, true, false) {
        return HeaderValue::from_static(STRICT_HSTS);
    }
    let mut text = format!("max-age={}", max_age.as_secs());
    if subdomains {
        text.push_str("; includeSubDomains");
    }
    if preload {
        text.push_str("; preload");
    }
    HeaderValue::try_from(text).unwrap_or_else(|_| HeaderValue::from_static(STRICT_HSTS))
}

/// The headers while the layers of the file are laid over the preset.
struct Plan {
    protective: Rows,
    entries: Vec<Stated>,
    remove: Vec<HeaderName>,
}

impl Plan {
    fn new(preset: Preset) -> Self {
        let row = |(name, rule, value): &(&'static str, Rule, &'static str)| Stated {
            name: HeaderName::from_static(name),
            rule: *rule,
            value: HeaderValue::from_static(value),
        };
        let protective = preset.rows();
        Self {
            protective,
            entries: protective.iter().map(row).collect(),
            remove: Vec::new(),
        }
    }

    fn put(&mut self, name: &HeaderName, rule: Rule, value: HeaderValue) {
        self.entries.retain(|entry| entry.name != name);
        self.remove.retain(|removed| removed != name);
        self.entries.push(Stated {
            name: name.clone(),
            rule,
            value,
        });
    }

    /// Whether no answer carries what the backend says under this name.
    fn withholds(&self, name: &HeaderName) -> bool {
        let mut set = self.entries.iter().filter(|entry| entry.rule == Rule::Set);
        set.any(|entry| entry.name == name) || self.remove.contains(name)
    }

    fn policy(&mut self, reader: &Reader<'_>, key: &str, name: &HeaderName) {
        let Some(value) = reader.value(key) else {
            return;
        };
        if csp::check(value).is_err() {
            return;
        }
        let Some(policy) = reader.get::<HeaderValue>(key) else {
            return;
        };
        if *name == CONTENT_SECURITY_POLICY {
            weak_policy(reader, value);
        }
        self.put(name, Rule::Append, policy);
    }

    /// `set`, `default` and `remove`, the farthest layer first so that the nearest has the last word.
    fn stated(&mut self, reader: &Reader<'_>) {
        // A list replaces the lists of farther layers; the maps merge key by key.
        let removing = reader
            .layers()
            .iter()
            .position(|layer| layer.table.get("remove").is_some());
        for (index, layer) in reader.layers().iter().enumerate().rev() {
            let mut here: Vec<HeaderName> = Vec::new();
            for (key, rule) in [("set", Rule::Set), ("default", Rule::Default)] {
                if let Some(table) = layer.table.get(key).and_then(Value::as_table) {
                    self.map(reader, table, rule, &mut here);
                }
            }
            if removing == Some(index) {
                let names = layer
                    .table
                    .get("remove")
                    .and_then(Value::as_array)
                    .unwrap_or_default();
                for value in names {
                    self.take_out(reader, value, &here);
                }
            }
        }
    }

    fn map(&mut self, reader: &Reader<'_>, table: &Table, rule: Rule, here: &mut Vec<HeaderName>) {
        for line in &table.entries {
            let Ok(name) = HeaderName::from_bytes(line.key.as_bytes()) else {
                let hint = Some("letters, digits and `-`, without a colon".to_owned());
                reader.error_at(
                    line.key_at,
                    format!("{} is not a header name", quoted(&line.key)),
                    hint,
                );
                continue;
            };
            if let Some(complaint) = foreign(&name) {
                reader.error_at(line.key_at, complaint.message, complaint.hint);
                continue;
            }
            if here.contains(&name) {
                reader.error_at(
                    line.key_at,
                    format!("{} stands twice", quoted(&line.key)),
                    None,
                );
                continue;
            }
            here.push(name.clone());
            // A bad value is told by the declaration already.
            let Ok(value) = HeaderValue::from_value(&line.value) else {
                continue;
            };
            if let Err(complaint) = content(&name, &line.value) {
                reader
                    .problems()
                    .push(complaint.into_problem(line.value.at, name.as_str()));
                continue;
            }
            if rule == Rule::Default && self.protects(&name) {
                relax(
                    reader,
                    &line.value,
                    format!("this weakens `{name}`: the backend may say otherwise"),
                );
            }
            if name == CONTENT_SECURITY_POLICY {
                weak_policy(reader, &line.value);
            }
            self.put(&name, rule, value);
        }
    }

    fn take_out(&mut self, reader: &Reader<'_>, value: &Value, here: &[HeaderName]) {
        let Ok(name) = HeaderName::from_value(value) else {
            return;
        };
        if here.contains(&name) {
            reader.error_at(value.at, format!("`{name}` is both set and removed"), None);
            return;
        }
        let removable = name == STRICT_TRANSPORT_SECURITY || name == SET_COOKIE;
        if let Some(complaint) = foreign(&name).filter(|_| !removable) {
            reader.error_at(value.at, complaint.message, complaint.hint);
            return;
        }
        if self.protects(&name) || name == STRICT_TRANSPORT_SECURITY {
            relax(
                reader,
                value,
                format!("this weakens every page: `{name}` is not sent"),
            );
        }
        self.entries.retain(|entry| entry.name != name);
        if !self.remove.contains(&name) {
            self.remove.push(name);
        }
    }

    fn protects(&self, name: &HeaderName) -> bool {
        self.protective.iter().any(|(known, ..)| name == known) && name != CACHE_CONTROL
    }
}

fn weak_policy(reader: &Reader<'_>, value: &Value) {
    for weakness in csp::weaknesses(value.as_str().unwrap_or_default()) {
        relax(
            reader,
            value,
            format!("this weakens every page: {weakness}"),
        );
    }
}

fn relax(reader: &Reader<'_>, value: &Value, message: String) {
    reader
        .problems()
        .push(Problem::new(Severity::Relaxation, message).at(value.at));
}

#[cfg(test)]
mod tests {
    use super::compile;
    use crate::policy::trial::{errors, layered, relaxations};

    fn error(text: &str) -> (String, String) {
        let mut found = errors(text, compile);
        assert_eq!(found.len(), 1, "{text}: {found:?}");
        found.remove(0)
    }

    #[test]
    fn the_nearest_layer_has_the_last_word_on_a_header() {
        let of = |texts: &[&str], name: &str| {
            let (policy, _) = layered(texts, compile);
            let lines = policy
                .describe()
                .into_iter()
                .filter(|(known, _)| known == name);
            lines.map(|(_, rule)| rule).collect::<Vec<_>>()
        };
        let far = "set = { X-A = '1', X-B = '2' }\nremove = ['X-Frame-Options']";
        assert_eq!(of(&[far], "x-frame-options"), ["remove"]);
        assert_eq!(
            of(
                &["set = { X-Frame-Options = 'DENY' }", far],
                "x-frame-options"
            ),
            ["set: DENY"]
        );
        assert_eq!(of(&["default = { X-A = '3' }", far], "x-a"), ["default: 3"]);
        assert_eq!(of(&["default = { X-A = '3' }", far], "x-b"), ["set: 2"]);
        assert_eq!(
            of(&["remove = ['X-A']", far], "x-frame-options"),
            ["set: DENY"],
            "lists replace one another"
        );
        assert_eq!(
            of(&["preset = 'none'"], "strict-transport-security"),
            [""; 0]
        );
        assert_eq!(
            of(
                &["preset = 'none'\nhsts = { max_age = '400d' }"],
                "strict-transport-security"
            )
            .len(),
            1
        );
        assert_eq!(
            of(
                &["remove = ['Strict-Transport-Security']"],
                "strict-transport-security"
            ),
            ["remove"]
        );
    }

    #[test]
    fn hsts_is_built_from_its_keys() {
        let value = |text: &str| {
            let (policy, _) = layered(&[text], compile);
            policy
                .hsts
                .map(|value| value.to_str().unwrap().to_owned())
                .unwrap_or_default()
        };
        assert_eq!(
            value("hsts = { preload = true }"),
            "max-age=31536000; includeSubDomains; preload"
        );
        assert_eq!(
            value("hsts = { subdomains = false, max_age = '730d' }"),
            "max-age=63072000"
        );
        assert_eq!(
            error("hsts = { preload = true, subdomains = false }").0,
            "true"
        );
        assert_eq!(
            error("hsts = { preload = true, max_age = '364d' }").0,
            "true"
        );
    }

    #[test]
    fn bad_headers_are_refused_at_their_place() {
        for (text, under) in [
            ("set = { 'x y' = '1' }", "'x y'"),
            (
                "set = { Access-Control-Allow-Origin = '*' }",
                "Access-Control-Allow-Origin",
            ),
            (
                "set = { Strict-Transport-Security = 'max-age=1' }",
                "Strict-Transport-Security",
            ),
            ("default = { Set-Cookie = 'a=1' }", "Set-Cookie"),
            ("set = { X-Frame-Options = 'ALLOWALL' }", "'ALLOWALL'"),
            ("set = { X-A = '1', x-a = '2' }", "x-a"),
            ("set = { X-A = '1' }\nremove = ['x-a']", "'x-a'"),
            ("remove = ['Content-Length']", "'Content-Length'"),
            (
                "set = { Content-Security-Policy = \"script-src self\" }",
                "self",
            ),
        ] {
            assert_eq!(error(text).0, under, "{text}");
        }
        assert!(
            errors(
                "set = { Referrer-Policy = 'no-referrer, same-origin' }",
                compile
            )
            .is_empty()
        );
        assert!(
            errors(
                "set = { Content-Type = 'text/plain' }\nremove = ['Set-Cookie']",
                compile
            )
            .is_empty()
        );
    }

    #[test]
    fn what_weakens_is_reported() {
        for text in [
            "mode = 'off'",
            "mode = 'monitor'",
            "preset = 'none'",
            "preset = 'compatible'",
            "hsts = { max_age = '30d' }",
            "hsts = { subdomains = false }",
            "remove = ['X-Frame-Options']",
            "remove = ['Strict-Transport-Security']",
            "default = { X-Frame-Options = 'DENY' }",
            "csp = \"script-src 'self' 'unsafe-inline'\"",
            "set = { Content-Security-Policy = \"script-src *\" }",
        ] {
            assert_eq!(relaxations(text, compile).len(), 1, "{text}");
        }
        assert!(
            relaxations(
                "set = { X-A = '1' }\nremove = ['X-B']\nhsts = { preload = true }",
                compile
            )
            .is_empty()
        );
    }
}
