//! `[….ban]`: a client that fails to authenticate again and again is refused for a while before anything is checked.
//!
//! Only what was forged or guessed counts (see [`Refusal::forged`]): a wrong signature, an unknown key, no token at all;
//! not credentials that are missing or have expired. The client is the one after the trusted-proxy walk, an IPv6 client by
//! its /64. All routes share one table, so who guesses at one is refused at all that ask who it is; public routes stay
//! open. It knows nothing of accounts.

use std::{sync::Arc, time::Duration};

use http::header;

use super::{mode::Mode, rate_limit::ceil_seconds};
use crate::{
    config::{Key, Kind, Reader, Section},
    exchange::Exchange,
    state::{
        bans::{Bans, Rules},
        clock,
        limiter::{KeyHasher, client_key},
    },
    wire::halt::{Halt, Reason, Refusal, Stage},
};

/// `[….ban]`
pub static SECTION: Section = Section {
    name: "ban",
    doc: "how often a client may fail to authenticate before it is refused for a while",
    keys: &[
        Key::new(
            "mode",
            Kind::Choice(Mode::WORDS),
            "enforce, monitor or off",
            "\"enforce\"",
        ),
        Key::new(
            "failures",
            Kind::Integer {
                min: 1,
                max: 1_000_000,
            },
            "forged or guessed credentials that a ban begins with",
            "20",
        ),
        Key::new(
            "window",
            Kind::Duration,
            "time in which so many must come",
            "\"10m\"",
        ),
        Key::new(
            "first",
            Kind::Duration,
            "length of the first ban; each further one is twice as long",
            "\"1m\"",
        ),
        Key::new("longest", Kind::Duration, "length of the longest", "\"1h\""),
        Key::new(
            "quiet",
            Kind::Duration,
            "time without a failure after which the next ban is a first one again",
            "\"24h\"",
        ),
    ],
};

/// The compiled section.
#[derive(Debug)]
pub struct Ban {
    rules: Rules,
    mode: Mode,
    bans: Arc<Bans>,
    hasher: KeyHasher,
    /// Where the section stands, for `explain`.
    place: Box<str>,
}

/// The bans of the running gate. What routes in monitor mode count is nothing to those that enforce.
#[derive(Debug, Default)]
pub struct Tables {
    /// Who is refused.
    pub enforced: Arc<Bans>,
    /// Who would be.
    pub watched: Arc<Bans>,
}

/// Compiles the section; `tables` and `hasher` are those of the running gate.
pub fn compile(reader: &Reader<'_>, tables: &Tables, hasher: &KeyHasher) -> Ban {
    let mode: Mode = reader.get("mode").unwrap_or_default();
    if mode != Mode::Enforce {
        let message = format!(
            "this weakens the gate: bans are in mode `{}`",
            mode.as_str()
        );
        reader.relax("mode", message);
    }
    let span = |key: &str, default: Duration| {
        let span = reader.get(key).unwrap_or(default);
        if span.is_zero() {
            let hint = Some("`mode = \"off\"` bans nobody".to_owned());
            reader.error(key, "a time of nothing bans nobody", hint);
        }
        span
    };
    let rules = Rules {
        failures: reader.get("failures").unwrap_or(20),
        window: span("window", Duration::from_mins(10)),
        first: span("first", Duration::from_mins(1)),
        longest: span("longest", Duration::from_hours(1)),
        quiet: reader.get("quiet").unwrap_or(Duration::from_hours(24)),
    };
    if rules.longest < rules.first {
        reader.error(
            "longest",
            "the longest ban is shorter than the first",
            Some("make `longest` at least as long as `first`".into()),
        );
    }
    Ban {
        rules,
        mode,
        bans: Arc::clone(match mode {
            Mode::Monitor => &tables.watched,
            Mode::Enforce | Mode::Off => &tables.enforced,
        }),
        hasher: hasher.clone(),
        place: reader.stated_at(),
    }
}

/// Refuses a client that is banned.
///
/// # Errors
/// 429 `banned` with `Retry-After`.
pub fn admit(policy: &Ban, exchange: &mut Exchange) -> Result<(), Halt> {
    exchange.note(Stage::Ban, || policy.explain());
    let now = clock::ns_at(exchange.started);
    if policy.mode == Mode::Off || !policy.bans.any(now) {
        return Ok(());
    }
    let Some(left) = policy.bans.left(policy.key(exchange), now) else {
        return Ok(());
    };
    let refusal = Refusal::new(Stage::Ban, Reason::Banned);
    let refusal = refusal.with(header::RETRY_AFTER, ceil_seconds(left).max(1).into());
    policy.mode.apply(Err(refusal.into()), exchange)
}

/// Counts what was forged.
pub fn finish(policy: &Ban, exchange: &Exchange) {
    if !exchange.forged || policy.mode == Mode::Off {
        return;
    }
    let now = clock::now_ns();
    let key = policy.key(exchange);
    let Some(length) = policy.bans.fail(key, &policy.rules, now) else {
        return;
    };
    if let Some(untold) = policy.bans.may_tell(now) {
        let client = client_key(exchange.client);
        let seconds = length.as_secs();
        tracing::warn!(
            %client,
            seconds,
            untold,
            "client banned after failing to authenticate"
        );
    }
}

impl Ban {
    fn key(&self, exchange: &Exchange) -> u64 {
        self.hasher.client(exchange.client)
    }

    fn explain(&self) -> String {
        if self.mode == Mode::Off {
            return format!("off ({})", self.place);
        }
        let Rules {
            failures,
            window,
            first,
            longest,
            ..
        } = self.rules;
        format!(
            "{failures} forged credentials in {window:?} ban for {first:?}, {longest:?} at most ({}, {})",
            self.mode.as_str(),
            self.place
        )
    }

    /// The rules, for `check -v`; none where nobody is asked who they are.
    pub fn describe(&self, asks: bool) -> Vec<(String, String)> {
        let line = ("failures".to_owned(), self.explain());
        asks.then_some(line).into_iter().collect()
    }
}

#[cfg(test)]
mod tests {
    use http::header;

    use super::{Ban, Tables, admit, compile, finish};
    use crate::{
        policy::trial::{compiled, errors, exchange, relaxations},
        state::limiter::KeyHasher,
        wire::halt::{Halt, Reason},
    };

    fn ban(text: &str) -> Ban {
        compiled(text, |reader| {
            compile(reader, &Tables::default(), &KeyHasher::new())
        })
    }

    #[test]
    fn forged_credentials_ban_and_others_do_not() {
        let policy = ban("failures = 2\nfirst = '90s'");
        let mut asked = exchange("GET", "https", &[]);
        for _ in 0..5 {
            finish(&policy, &asked);
        }
        assert!(admit(&policy, &mut asked).is_ok());
        asked.forged = true;
        finish(&policy, &asked);
        assert!(admit(&policy, &mut asked).is_ok());
        finish(&policy, &asked);
        // The clock of a request is that of its arrival.
        asked.started = std::time::Instant::now();
        let Err(Halt::Refuse(refusal)) = admit(&policy, &mut asked) else {
            panic!("it is banned");
        };
        assert_eq!(refusal.reason, Reason::Banned);
        assert_eq!(refusal.headers[header::RETRY_AFTER], "90");
    }

    #[test]
    fn monitor_notes_and_off_does_not_count() {
        for (mode, noted) in [("monitor", 1), ("off", 0)] {
            let policy = ban(&format!("mode = '{mode}'\nfailures = 1"));
            let mut asked = exchange("GET", "https", &[]);
            asked.forged = true;
            finish(&policy, &asked);
            asked.started = std::time::Instant::now();
            assert!(admit(&policy, &mut asked).is_ok());
            assert_eq!(asked.would_refuse.len(), noted, "{mode}");
        }
    }

    #[test]
    fn what_would_ban_nobody_is_an_error_or_is_told() {
        let judge = |text: &str| {
            errors(text, |reader| {
                compile(reader, &Tables::default(), &KeyHasher::new())
            })
        };
        assert_eq!(judge("window = '0s'").len(), 1);
        assert_eq!(
            judge("first = '2h'")[0].1,
            "the longest ban is shorter than the first"
        );
        assert!(judge("first = '2h'\nlongest = '2h'").is_empty());
        let told = relaxations("mode = 'off'", |reader| {
            compile(reader, &Tables::default(), &KeyHasher::new())
        });
        assert_eq!(told, ["this weakens the gate: bans are in mode `off`"]);
    }
}
