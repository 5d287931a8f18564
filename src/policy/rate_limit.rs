//! Rate limits: `[[…rate_limits]]`, several at once, each a named bucket shared by all routes that name it.
//!
//! Answers carry `RateLimit-Policy` and `RateLimit` (draft-ietf-httpapi-ratelimit-headers). A limit keyed by
//! `subject` waits until the principal is known. A key that is absent falls back to the client address, so leaving a
//! header out is no way around a limit. Preflights that are answered here are not counted.

mod answer;

use std::{collections::BTreeMap, fmt::Write, sync::Arc, time::Duration};

use http::{HeaderName, header, header::HeaderValue};

pub use answer::{ceil_seconds, finish};

use super::mode::Mode;
use crate::{
    config::{At, Complaint, FromValue, Key, Kind, OneOrMany, Reader, Section, Value},
    exchange::{Exchange, Tightest},
    state::{
        clock,
        limiter::{DEFAULT_CAPACITY, KeyHasher, KeyKind, Limit, Limiter},
        registry::{Named, Registry},
    },
    wire::{
        cookie,
        halt::{Halt, Reason, Refusal, Stage},
        sfv,
    },
};

/// `[[…rate_limits]]`
pub static SECTION: Section = Section {
    name: "rate_limits",
    doc: "a named limit; routes that name the same limit share one bucket for each key",
    keys: &[
        Key::new(
            "name",
            Kind::String,
            "name in headers, logs and metrics",
            "\"default\"",
        ),
        Key::new(
            "key",
            Kind::OneOrMany(&Kind::Checked(check_key)),
            "whose bucket: client, subject, header:NAME, cookie:NAME, route, global; of a list the first that is present",
            "\"client\"",
        ),
        Key::new(
            "quota",
            Kind::Integer {
                min: 1,
                max: 1_000_000_000,
            },
            "requests a window",
            "20",
        ),
        Key::new(
            "window",
            Kind::Duration,
            "time in which the quota comes back",
            "\"1s\"",
        ),
        Key::new(
            "burst",
            Kind::Integer {
                min: 1,
                max: 1_000_000_000,
            },
            "most requests at once; the quota where nothing is said",
            "",
        ),
        Key::new(
            "clients",
            Kind::Integer {
                min: 8,
                max: 100_000_000,
            },
            "keys remembered; when full, a new key starts with the debt of the least indebted one",
            "100000",
        ),
        Key::new(
            "cost",
            Kind::Map(&Kind::Integer {
                min: 1,
                max: 1_000_000,
            }),
            "what it costs beside the request itself, by status of the answer, or `forged` for such credentials: `{ status_401 = 10, forged = 5 }`",
            "{}",
        ),
        Key::new(
            "mode",
            Kind::Choice(Mode::WORDS),
            "enforce, monitor or off",
            "\"enforce\"",
        ),
    ],
};

/// The limiters that a file names, while it is compiled and afterwards.
#[derive(Debug, Default)]
pub struct LimiterBook {
    entries: BTreeMap<String, (Named<Description, Limiter>, Option<At>)>,
}

/// What makes two limits the same.
pub type Description = (Limit, usize);
/// The limiters that outlive a reload.
pub type Limiters = Registry<Description, Limiter>;

impl LimiterBook {
    /// Every limiter that the file names.
    pub fn list(&self) -> Vec<Named<Description, Limiter>> {
        self.entries
            .values()
            .map(|(named, _)| named.clone())
            .collect()
    }
}

/// What compiling a limit needs from outside its section.
#[derive(Debug)]
pub struct Desk<'a> {
    /// Limiters of the running proxy.
    pub limiters: &'a Limiters,
    /// Limiters of this file.
    pub book: &'a mut LimiterBook,
    /// Makes bucket keys; one a process.
    pub hasher: &'a KeyHasher,
}

/// The compiled limits of a route.
#[derive(Debug)]
pub struct RateLimits {
    limits: Vec<RateLimit>,
    hasher: KeyHasher,
    policy: Option<HeaderValue>,
}

#[derive(Debug)]
struct RateLimit {
    name: Arc<str>,
    quoted: sfv::Quoted,
    keys: Vec<BucketKey>,
    /// What is charged beside the request itself.
    cost: Vec<(Occasion, u32)>,
    mode: Mode,
    rules: Limit,
    limiter: Arc<Limiter>,
    /// Where it stands, for `explain`.
    place: Box<str>,
}

/// What makes a request cost more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Occasion {
    /// An answer of this status.
    Status(u16),
    /// Credentials that were forged or guessed.
    Forged,
}

impl Occasion {
    /// `status_401` or `forged`.
    fn named(text: &str) -> Option<Self> {
        if text == "forged" {
            return Some(Self::Forged);
        }
        let status = text.strip_prefix("status_")?.parse().ok()?;
        (100..600).contains(&status).then_some(Self::Status(status))
    }
}

impl std::fmt::Display for Occasion {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Status(status) => write!(f, "a {status}"),
            Self::Forged => f.write_str("a forged credential"),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum BucketKey {
    Client,
    Subject,
    Header(HeaderName),
    Cookie(String),
    Route,
    Global,
}

impl std::fmt::Display for BucketKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Client => f.write_str("client"),
            Self::Subject => f.write_str("subject"),
            Self::Header(name) => write!(f, "header:{name}"),
            Self::Cookie(name) => write!(f, "cookie:{name}"),
            Self::Route => f.write_str("route"),
            Self::Global => f.write_str("global"),
        }
    }
}

fn check_key(value: &Value) -> Result<(), Complaint> {
    BucketKey::from_value(value).map(|_| ())
}

impl FromValue for BucketKey {
    fn from_value(value: &Value) -> Result<Self, Complaint> {
        let text = String::from_value(value)?;
        let unknown = || {
            Complaint::new(format!("`{text}` is no key of a limit"))
                .hint("use `client`, `subject`, `header:NAME`, `cookie:NAME`, `route` or `global`")
        };
        match text.split_once(':') {
            None => match text.as_str() {
                "client" => Ok(Self::Client),
                "subject" => Ok(Self::Subject),
                "route" => Ok(Self::Route),
                "global" => Ok(Self::Global),
                _ => Err(unknown()),
            },
            Some(("header", name)) => HeaderName::from_bytes(name.as_bytes())
                .map(Self::Header)
                .map_err(|_| unknown()),
            Some(("cookie", name)) if !name.is_empty() => Ok(Self::Cookie(name.to_owned())),
            Some(_) => Err(unknown()),
        }
    }
}

/// Compiles `rate_limits` of the nearest level that states it; the built-in per-client limit when none does.
pub fn compile(levels: &Reader<'_>, desk: &mut Desk<'_>) -> RateLimits {
    let mut limits = Vec::new();
    if levels.has("rate_limits") {
        for table in levels.tables("rate_limits") {
            limits.extend(compile_one(&table, desk));
        }
        if limits.is_empty() {
            levels.relax(
                "rate_limits",
                "this weakens the gate: no client is limited here",
            );
        }
    } else {
        limits.extend(compile_built_in(desk));
    }
    RateLimits {
        policy: answer::policy_field(&limits),
        limits,
        hasher: desk.hasher.clone(),
    }
}

/// What credentials that were forged or guessed cost beside their request, where nothing is said.
const FORGED_COST: u32 = 5;

/// 20 requests a second, 40 at once, by client.
const BUILT_IN: Limit = Limit {
    quota: 20,
    window: Duration::from_secs(1),
    burst: 40,
};

fn compile_built_in(desk: &mut Desk<'_>) -> Option<RateLimit> {
    let limiter = enter(desk, "default", (BUILT_IN, DEFAULT_CAPACITY), None).ok()?;
    Some(RateLimit {
        name: "default".into(),
        quoted: sfv::Quoted::new("default").ok()?,
        keys: vec![BucketKey::Client],
        cost: vec![(Occasion::Forged, FORGED_COST)],
        mode: Mode::Enforce,
        rules: BUILT_IN,
        limiter,
        place: "default".into(),
    })
}

fn compile_one(table: &Reader<'_>, desk: &mut Desk<'_>) -> Option<RateLimit> {
    let mode: Mode = table.get("mode").unwrap_or_default();
    if mode != Mode::Enforce {
        table.relax(
            "mode",
            format!(
                "this weakens the gate: the limit is in mode `{}`",
                mode.as_str()
            ),
        );
    }
    let name: String = table.get("name").unwrap_or_else(|| "default".to_owned());
    let Ok(quoted) = sfv::Quoted::new(&name) else {
        table.error(
            "name",
            format!("`{name}` cannot stand in a header"),
            Some("use letters, digits and dashes".into()),
        );
        return None;
    };
    let quota = table.get("quota").unwrap_or(BUILT_IN.quota);
    let limit = Limit {
        quota,
        window: table.get("window").unwrap_or(BUILT_IN.window),
        burst: table.get("burst").unwrap_or(quota),
    };
    if limit.window.is_zero() {
        table.error(
            "window",
            "a window of no time limits nothing",
            Some("such as `\"1s\"`".into()),
        );
        return None;
    }
    let capacity = table.get("clients").unwrap_or(DEFAULT_CAPACITY);
    let limiter = match enter(desk, &name, (limit, capacity), table.place()) {
        Ok(limiter) => limiter,
        Err(complaint) => {
            table.complain("name", complaint);
            return None;
        }
    };
    let keys = table
        .get::<OneOrMany<BucketKey>>("key")
        .map_or_else(|| vec![BucketKey::Client], |keys| keys.0);
    (mode != Mode::Off).then(|| RateLimit {
        name: name.into(),
        quoted,
        cost: costs(table, &keys),
        keys,
        mode,
        rules: limit,
        limiter,
        place: table.stated_at(),
    })
}

fn costs(table: &Reader<'_>, keys: &[BucketKey]) -> Vec<(Occasion, u32)> {
    let mut costs = Vec::new();
    for entry in table.entries("cost") {
        let cost = u32::from_value(&entry.value);
        match (Occasion::named(&entry.key), cost) {
            (Some(occasion), Ok(cost)) => costs.push((occasion, cost)),
            _ => table.error_at(
                entry.key_at,
                format!("`{}` is no cost", entry.key),
                Some("such as `status_401 = 10` or `forged = 5`".into()),
            ),
        }
    }
    let of_refused = |(occasion, _): &(Occasion, u32)| {
        matches!(occasion, Occasion::Forged | Occasion::Status(401))
    };
    if keys.contains(&BucketKey::Subject) && costs.iter().any(of_refused) {
        table.error(
            "cost",
            "a limit by `subject` never sees who fails to authenticate, so this costs nothing",
            Some("put it on a limit by `client`".into()),
        );
    }
    costs
}

/// The limiter of this name; two limits of one name must be the same limit.
fn enter(
    desk: &mut Desk<'_>,
    name: &str,
    wanted: Description,
    at: Option<At>,
) -> Result<Arc<Limiter>, Complaint> {
    if let Some((held, _)) = desk.book.entries.get(name) {
        if held.config == wanted {
            return Ok(Arc::clone(&held.thing));
        }
        return Err(Complaint::new(format!("two limits named `{name}` differ"))
            .hint("a name stands for one shared limit: give this one another name"));
    }
    let named = desk.limiters.prepare(name, wanted, |(limit, capacity)| {
        Limiter::new(*limit, *capacity)
    });
    let limiter = Arc::clone(&named.thing);
    desk.book.entries.insert(name.to_owned(), (named, at));
    Ok(limiter)
}

/// Checks every limit that needs no principal.
///
/// # Errors
/// 429 `rate-limited` with `Retry-After`.
pub fn admit(policy: &RateLimits, exchange: &mut Exchange) -> Result<(), Halt> {
    check(policy, Stage::RateLimit, exchange)
}

/// Checks the limits that are keyed by the principal.
///
/// # Errors
/// 429 `rate-limited` with `Retry-After`.
pub fn admit_principal(policy: &RateLimits, exchange: &mut Exchange) -> Result<(), Halt> {
    check(policy, Stage::Quota, exchange)
}

fn check(policy: &RateLimits, stage: Stage, exchange: &mut Exchange) -> Result<(), Halt> {
    let mut limits = (0..)
        .zip(&policy.limits)
        .filter(|(_, limit)| limit.stage() == stage)
        .peekable();
    if limits.peek().is_none() {
        return Ok(());
    }
    let now = match stage {
        // Authentication may have waited for keys meanwhile.
        Stage::Quota => clock::now_ns(),
        _ => clock::ns_at(exchange.started),
    };
    let mut refused: Option<(Refusal, Mode)> = None;
    for (place, limit) in limits {
        let key = bucket(policy, limit, exchange);
        if limit.charges_by_status() {
            // Once the request is on its way its fields are gone, and with them what the bucket is found by.
            exchange.to_charge.push((Arc::clone(&limit.name), key));
        }
        let decision = limit.limiter.check(key, 1, now);
        let reset = ceil_seconds(decision.reset);
        tighten(exchange, place, decision.remaining, reset);
        exchange.note(stage, || {
            format!(
                "limit `{}` ({}): {} left",
                limit.name, limit.place, decision.remaining
            )
        });
        if decision.is_allowed() {
            continue;
        }
        let (refusal, mode) =
            refused.get_or_insert_with(|| (Refusal::new(stage, Reason::RateLimited), limit.mode));
        // One limit that enforces is enough, whatever the others do.
        if limit.mode == Mode::Enforce {
            *mode = Mode::Enforce;
        }
        refusal.violated.push(Arc::clone(&limit.name));
        let wait = refusal
            .headers
            .get(header::RETRY_AFTER)
            .and_then(|v| v.to_str().ok()?.parse::<u64>().ok());
        let wait = wait.unwrap_or(0).max(reset).max(1);
        refusal.headers.insert(header::RETRY_AFTER, wait.into());
    }
    match refused {
        Some((refusal, mode)) => mode.apply(Err(refusal.into()), exchange),
        None => Ok(()),
    }
}

impl RateLimits {
    /// Name and rule of each limit, for `check -v`.
    pub fn describe(&self) -> Vec<(String, String)> {
        let line = |limit: &RateLimit| (limit.name.to_string(), limit.describe());
        self.limits.iter().map(line).collect()
    }
}

impl RateLimit {
    fn describe(&self) -> String {
        let keys: Vec<String> = self.keys.iter().map(ToString::to_string).collect();
        let mut text = format!(
            "{} in {:?}, {} at once, by {} ({}, {})",
            self.rules.quota,
            self.rules.window,
            self.rules.burst,
            keys.join(" or "),
            self.mode.as_str(),
            self.place
        );
        for (occasion, cost) in &self.cost {
            let _ = write!(text, ", {occasion} costs {cost} more");
        }
        text
    }

    /// Whether an answer of the backend may cost something.
    fn charges_by_status(&self) -> bool {
        let by_status = |(occasion, _): &(Occasion, u32)| *occasion != Occasion::Forged;
        self.cost.iter().any(by_status)
    }

    fn stage(&self) -> Stage {
        if self.keys.contains(&BucketKey::Subject) {
            Stage::Quota
        } else {
            Stage::RateLimit
        }
    }
}

/// The bucket of this request: the first key that is present, else the client's.
fn bucket(policy: &RateLimits, limit: &RateLimit, exchange: &Exchange) -> u64 {
    let hasher = &policy.hasher;
    let found = limit.keys.iter().find_map(|key| match key {
        BucketKey::Client => Some(hasher.client(exchange.client)),
        BucketKey::Subject => exchange.principal.as_ref().map(|principal| {
            let mut value = Vec::with_capacity(128);
            value.extend_from_slice(principal.issuer.as_bytes());
            value.push(0);
            value.extend_from_slice(principal.subject.as_bytes());
            hasher.value(KeyKind::Subject, &value)
        }),
        BucketKey::Header(name) => exchange
            .headers()
            .get(name)
            .map(|value| hasher.value(KeyKind::Header, value.as_bytes())),
        BucketKey::Cookie(name) => cookie::pairs(exchange.headers())
            .find(|(cookie, _)| cookie == name)
            .map(|(_, value)| hasher.value(KeyKind::Cookie, value.as_bytes())),
        BucketKey::Route => exchange.route_bucket,
        BucketKey::Global => Some(hasher.value(KeyKind::Global, b"")),
    });
    found.unwrap_or_else(|| hasher.client(exchange.client))
}

/// Keeps the limit with the fewest requests left.
fn tighten(exchange: &mut Exchange, place: usize, remaining: u32, reset: u64) {
    if exchange
        .tightest
        .as_ref()
        .is_none_or(|held| remaining < held.remaining)
    {
        exchange.tightest = Some(Tightest {
            place,
            remaining,
            reset,
        });
    }
}
