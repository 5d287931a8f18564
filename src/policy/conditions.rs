//! Conditions on claims and on the request: `claims = { … }` and `condition = "…"`. Part of the section `auth`.
//!
//! For what roles and scopes cannot say, such as "the owner alone". They are judged last, of callers who have all else.
//! `claims` compares claims with what is stated; `condition` is an expression ([`expression`], CEL). Both see the principal
//! and the request as it was judged, never its raw bytes. What cannot be evaluated is refused. A principal that no
//! issuer vouches for has no claims; one of whom token and answer of the issuer say different things must meet the
//! conditions by either.

mod expression;

use std::{borrow::Cow, collections::BTreeSet, net::IpAddr};

use percent_encoding::percent_decode_str;
use serde_json::Value as Json;

pub use self::expression::{Expression, MOST_BYTES};
use self::expression::{Facts, Outcome};
use super::mode::Mode;
use crate::{
    config::{Entry, Kind, Node, Reader, Value},
    exchange::{
        Exchange,
        principal::{Principal, Withheld},
    },
    identity::claims::ClaimPath,
    wire::halt::{Halt, Reason, Refusal, Stage},
};

/// What the key `claims` takes.
pub const CLAIMS: Kind = Kind::Map(&Kind::OneOrMany(&Kind::Either(&[
    Kind::Bool,
    Kind::String,
    Kind::Integer {
        min: i64::MIN,
        max: i64::MAX,
    },
])));

/// The compiled conditions of a route.
#[derive(Debug)]
pub struct Conditions {
    claims: Vec<Wanted>,
    expression: Option<Expression>,
    mode: Mode,
    /// Where the expression stands, for `explain`.
    place: Box<str>,
}

/// A claim, and the values of which it must have one.
#[derive(Debug)]
struct Wanted {
    /// As it is written.
    name: Box<str>,
    path: ClaimPath,
    values: Vec<Json>,
    place: Box<str>,
}

/// Compiles `claims` and `condition` out of the section `auth`; `None` where neither is stated.
pub fn compile(levels: &Reader<'_>) -> Option<Conditions> {
    let auth = levels.section("auth");
    let mode: Mode = auth.get("mode").unwrap_or_default();
    let claims: Vec<Wanted> = wanted(&auth)
        .into_iter()
        .map(|(wanted, _)| wanted)
        .collect();
    let expression = read_expression(&auth);
    if mode == Mode::Off || (claims.is_empty() && expression.is_none()) {
        return None;
    }
    Some(Conditions {
        claims,
        expression,
        mode,
        place: auth.whence("condition"),
    })
}

fn read_expression(auth: &Reader<'_>) -> Option<Expression> {
    let text = auth.get::<String>("condition")?;
    match Expression::compile(&text) {
        Ok(expression) => Some(expression),
        Err(flaw) => {
            let whole = auth.value("condition");
            let at = whole.map(|value| value.inside(flaw.range.clone()));
            match at {
                Some(at) => auth.error_at(at, flaw.message, flaw.hint),
                None => auth.error("condition", flaw.message, flaw.hint),
            }
            None
        }
    }
}

/// The claims that the section wants, each with its first name.
fn wanted(auth: &Reader<'_>) -> Vec<(Wanted, String)> {
    let entries = auth.entries("claims");
    entries
        .into_iter()
        .filter_map(|entry| want(auth, entry))
        .collect()
}

fn want(auth: &Reader<'_>, entry: &Entry) -> Option<(Wanted, String)> {
    let path = match ClaimPath::parse(&entry.key) {
        Ok(path) => path,
        Err(error) => {
            auth.error_at(entry.key_at, format!("`{}`: {error}", entry.key), None);
            return None;
        }
    };
    let one = std::slice::from_ref(&entry.value);
    let values = entry.value.as_array().unwrap_or(one);
    if values.is_empty() {
        auth.error_at(
            entry.value.at,
            "an empty list lets nobody pass",
            Some("name the values of which one is enough".into()),
        );
    }
    let first = path.first().to_owned();
    let wanted = Wanted {
        name: entry.key.as_str().into(),
        path,
        values: values.iter().filter_map(plain).collect(),
        place: auth.sources().line_of(entry.key_at).to_string().into(),
    };
    Some((wanted, first))
}

fn plain(value: &Value) -> Option<Json> {
    match &value.node {
        Node::Bool(flag) => Some(Json::Bool(*flag)),
        Node::String(text) => Some(Json::String(text.clone())),
        Node::Integer(number) => Some(Json::from(*number)),
        _ => None,
    }
}

/// The first names of all claims that some condition of the file reads: what principals must keep. What is wrong with a
/// condition is told when its route is compiled.
pub fn claims_read(root: &Reader<'_>) -> Vec<Box<str>> {
    let mut names = BTreeSet::new();
    let mut read = |level: &Reader<'_>| {
        let auth = level.section("auth");
        if auth.has("claims") {
            names.extend(wanted(&auth).into_iter().map(|(_, first)| first));
        }
        let text = auth.get::<String>("condition");
        if let Some(expression) = text.and_then(|text| Expression::compile(&text).ok()) {
            names.extend(expression.claims().map(ToOwned::to_owned));
        }
    };
    read(&root.section("defaults"));
    for blueprint in root.tables("blueprints") {
        read(&blueprint);
        blueprint.tables("routes").iter().for_each(&mut read);
    }
    names.into_iter().map(String::into_boxed_str).collect()
}

impl Conditions {
    /// Whether the expression reads parameters of the path.
    pub fn reads_path(&self) -> bool {
        self.parameters().next().is_some()
    }

    fn parameters(&self) -> impl Iterator<Item = &str> {
        self.expression.iter().flat_map(Expression::parameters)
    }

    /// Reports parameters that the pattern of a route does not have.
    pub fn check_path(&self, levels: &Reader<'_>, pattern: &str) {
        let known: Vec<&str> = parameter_names(pattern).collect();
        for name in self.parameters() {
            let message = match known.iter().filter(|known| **known == name).count() {
                1 => continue,
                0 => format!("`path.{name}` is no parameter of `{pattern}`"),
                _ => format!("`path.{name}` stands twice in `{pattern}`"),
            };
            let hint = "state the condition on routes whose pattern has it once; `unmatched = \"refuse\"` closes what no route of a blueprint matches";
            levels
                .section("auth")
                .error("condition", message, Some(hint.into()));
        }
    }

    /// What is asked, for `check -v`.
    pub fn describe(&self) -> Vec<(String, String)> {
        let claims = self.claims.iter().map(|wanted| {
            let values: Vec<String> = wanted.values.iter().map(ToString::to_string).collect();
            (
                format!("claim {}", wanted.name),
                format!("one of {} ({})", values.join(", "), wanted.place),
            )
        });
        let expression = self.expression.iter().map(|expression| {
            let text = format!("{} ({})", expression.text(), self.place);
            ("condition".to_owned(), text)
        });
        claims.chain(expression).collect()
    }
}

/// The names between braces of a pattern.
fn parameter_names(pattern: &str) -> impl Iterator<Item = &str> {
    pattern.split('/').filter_map(parameter_name)
}

fn parameter_name(segment: &str) -> Option<&str> {
    let name = segment.strip_prefix('{')?.strip_suffix('}')?;
    Some(name.strip_prefix('*').unwrap_or(name))
}

/// The parameters of a judged path that this pattern matched, their escapes decoded once, as every backend does.
///
/// A judged path is in normal form: no empty and no dot segments, path parameters cut, lower case for backends that
/// fold it. `{*rest}` gives what is left without its leading slash.
pub fn parameters(pattern: &str, judged: &str) -> Vec<(Box<str>, Box<str>)> {
    let mut left = judged.trim_start_matches('/');
    let mut found = Vec::new();
    for segment in pattern.split('/').filter(|segment| !segment.is_empty()) {
        let (this, below) = left.split_once('/').unwrap_or((left, ""));
        if let Some(name) = parameter_name(segment) {
            let is_rest = segment.starts_with("{*");
            let value = if is_rest { left } else { this };
            let decoded: Cow<'_, str> = percent_decode_str(value).decode_utf8_lossy();
            found.push((name.into(), decoded.into()));
        }
        left = below;
    }
    found
}

impl Wanted {
    fn holds(&self, claims: Option<&serde_json::Map<String, Json>>) -> bool {
        match claims.and_then(|claims| self.path.find(claims)) {
            None => false,
            Some(Json::Array(members)) => members.iter().any(|member| self.values.contains(member)),
            Some(value) => self.values.contains(value),
        }
    }
}

/// Asks whether the conditions hold.
///
/// # Errors
/// 403 `condition-failed`.
pub fn admit(policy: &Conditions, exchange: &mut Exchange) -> Result<(), Halt> {
    // A monitored `auth` has noted the missing principal already.
    if exchange.principal.is_none() {
        return Ok(());
    }
    let failed = policy.failure(exchange);
    let Some(detail) = failed else {
        exchange.note(Stage::Rbac, || "conditions: hold".to_owned());
        return Ok(());
    };
    exchange.note(Stage::Rbac, || {
        let stated: Vec<String> = policy
            .describe()
            .into_iter()
            .map(|(name, rule)| format!("{name}: {rule}"))
            .collect();
        format!("conditions: do not hold: {}", stated.join("; "))
    });
    let refusal = Refusal::new(Stage::Rbac, Reason::ConditionFailed).detail(detail);
    policy.mode.apply(Err(refusal.into()), exchange)
}

impl Conditions {
    /// Why they do not hold, as a code for the log.
    fn failure(&self, exchange: &Exchange) -> Option<&'static str> {
        let principal = exchange.principal.as_deref()?;
        views(principal).find_map(|view| self.failure_of(exchange, principal, view))
    }

    fn failure_of(
        &self,
        exchange: &Exchange,
        principal: &Principal,
        (claims, withheld): View<'_>,
    ) -> Option<&'static str> {
        if !self.claims.iter().all(|wanted| wanted.holds(claims)) {
            return Some("claim");
        }
        let expression = self.expression.as_ref()?;
        let facts = Facts {
            method: exchange.method().as_str(),
            host: exchange.authority().host(),
            client: canonical(exchange.client),
            path: &exchange.parameters,
            principal,
            claims,
            withheld,
        };
        match expression.evaluate(&facts) {
            Outcome::True => None,
            Outcome::False => Some("condition-false"),
            Outcome::NotBoolean => Some("condition-not-boolean"),
            Outcome::Failed => Some("condition-error"),
        }
    }
}

/// Claims, and what counts as held beside what is granted.
type View<'a> = (
    Option<&'a serde_json::Map<String, Json>>,
    Option<&'a Withheld>,
);

/// The ways to see a principal, one for nearly all: claims as token and answer have them, roles and scopes that both name and
/// that either does. A condition may ask for what is absent, so it has to hold in each.
fn views(principal: &Principal) -> impl Iterator<Item = View<'_>> {
    let answered = principal.answered.as_deref().map(Some);
    let claims = std::iter::once(principal.claims.as_deref()).chain(answered);
    claims.flat_map(|claims| {
        let withheld = principal.withheld.as_deref().map(Some);
        let withheld = std::iter::once(None).chain(withheld);
        withheld.map(move |withheld| (claims, withheld))
    })
}

/// An IPv4 address that came over an IPv6 socket is written as what it is.
fn canonical(address: IpAddr) -> IpAddr {
    address.to_canonical()
}
