//! Step-up: how, and how lately, the person behind a request signed in (RFC 9470). Part of the section `auth`.
//!
//! For routes that want more than a valid credential. It reads `acr`, `amr` and `auth_time` of the principal at each
//! request, since a remembered token ages; a caller of whom they are not known is refused. Classes have no order here:
//! the list names each one that is enough. The challenge tells a client what to ask its authorization server for.
//!
//! Where the gate has a second factor of its own (`[mfa]`) and that would be enough, a browser that opens a page is sent to
//! show it, and what was shown in a session of the same principal counts like the credential's own word: one or the other
//! as a whole. Every other client is answered as if there were no such factor, and what is not a page is never sent again.

use std::{fmt::Write, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};

use super::{challenge::challenge, mode::Mode, protected_resource, rbac};
use crate::{
    config::{Key, Kind, OneOrMany, Reader, Section},
    exchange::{Exchange, Scheme, principal::Principal},
    identity::{
        second_factor::{METHODS, PASSKEY_METHODS, SecondFactor},
        session::{LONGEST_TARGET, Shown},
    },
    state::{
        clock,
        sessions::{Factor, Id, Owner},
    },
    wire::{
        fetch_metadata,
        halt::{Halt, Reason, Refusal, Reply, Stage},
        own_space,
    },
};

/// `step_up = { … }`
pub static SECTION: Section = Section {
    name: "step_up",
    doc: "how and how lately the caller must have signed in (RFC 9470); all stated must hold",
    keys: &[
        Key::new(
            "acr",
            Kind::OneOrMany(&Kind::String),
            "the claim acr must be one of these",
            "",
        ),
        Key::new(
            "amr",
            Kind::OneOrMany(&Kind::String),
            "one of these must stand in the claim amr",
            "",
        ),
        Key::new(
            "max_age",
            Kind::Duration,
            "longest time since the sign-in, by the claim auth_time",
            "",
        ),
    ],
};

/// How far ahead of ours the issuer's clock may be, in seconds. A sign-in farther in the future would stay fresh at will.
const AHEAD: u64 = 60;

/// The compiled demand.
#[derive(Debug)]
pub struct StepUp {
    acr: Vec<Box<str>>,
    amr: Vec<Box<str>>,
    /// In seconds.
    max_age: Option<u64>,
    /// What follows the realm in the challenge.
    challenge: Box<str>,
    /// The gate's own factor, where it would be enough.
    factor: Option<Arc<SecondFactor>>,
    mode: Mode,
    /// Where the section stands, for `explain`.
    place: Box<str>,
}

/// How somebody signed in.
struct SignIn<'a, M> {
    acr: Option<&'a str>,
    amr: &'a [M],
    auth_time: Option<u64>,
}

impl<'a> SignIn<'a, Box<str>> {
    /// As the credential says.
    fn by_credential(principal: &'a Principal) -> Self {
        Self {
            acr: principal.acr.as_deref(),
            amr: &principal.amr,
            auth_time: principal.auth_time,
        }
    }
}

impl<'a> SignIn<'a, &'static str> {
    /// As the gate has seen it.
    fn by_factor(factor: &'a Factor) -> Self {
        Self {
            acr: Some(&factor.class),
            amr: factor.methods,
            auth_time: Some(factor.at),
        }
    }
}

/// Compiles `step_up` out of the section `auth`; `None` where nothing is asked. `factor` is the gate's own.
pub fn compile(levels: &Reader<'_>, factor: Option<&Arc<SecondFactor>>) -> Option<StepUp> {
    let auth = levels.section("auth");
    let reader = auth.section("step_up");
    if !reader.present() {
        return None;
    }
    let mode: Mode = auth.get("mode").unwrap_or_default();
    let step_up = StepUp {
        acr: words(&reader, "acr"),
        amr: words(&reader, "amr"),
        max_age: max_age(&reader),
        challenge: Box::default(),
        factor: None,
        mode,
        place: reader.stated_at(),
    };
    let says_nothing = ["acr", "amr", "max_age"].iter().all(|key| !reader.has(key));
    if says_nothing {
        auth.error(
            "step_up",
            "`step_up` asks for nothing",
            Some("add `acr = [\"mfa\"]` or `max_age = \"5m\"`".into()),
        );
    }
    (mode != Mode::Off).then(|| StepUp {
        challenge: step_up.words_of_challenge(&auth),
        factor: factor.filter(|factor| step_up.is_met_by(factor)).cloned(),
        ..step_up
    })
}

fn words(reader: &Reader<'_>, key: &str) -> Vec<Box<str>> {
    let Some(OneOrMany(words)) = reader.get::<OneOrMany<String>>(key) else {
        return Vec::new();
    };
    if words.is_empty() {
        reader.error(
            key,
            format!("an empty `{key}` lets nobody pass"),
            Some("leave the key out, or name a value".into()),
        );
    }
    if words.iter().any(|word| !rbac::is_scope(word)) {
        reader.error(
            key,
            format!("a value of `{key}` has characters that no challenge can carry"),
            Some("visible ASCII without quote, backslash and space".into()),
        );
    }
    words.into_iter().map(String::into_boxed_str).collect()
}

fn max_age(reader: &Reader<'_>) -> Option<u64> {
    let seconds = reader.get::<Duration>("max_age")?.as_secs();
    if seconds == 0 {
        reader.error(
            "max_age",
            "no sign-in is ever that fresh",
            Some("one second at least, such as `max_age = \"5m\"`".into()),
        );
    }
    Some(seconds)
}

impl StepUp {
    /// RFC 9470 §3. There is no parameter for methods: a client that lacks one learns only that more is asked.
    fn words_of_challenge(&self, auth: &Reader<'_>) -> Box<str> {
        let mut words = ", error=\"insufficient_user_authentication\"".to_owned();
        if !self.acr.is_empty() {
            let _ = write!(words, ", acr_values=\"{}\"", self.acr.join(" "));
        }
        if let Some(seconds) = self.max_age {
            let _ = write!(words, ", max_age=\"{seconds}\"");
        }
        if let Some(scopes) = rbac::wanted_scopes(auth) {
            let _ = write!(words, ", scope=\"{scopes}\"");
        }
        words.push_str(&protected_resource::hint(auth));
        words.into()
    }

    /// Whether the gate's own factor, proven this moment, would be enough.
    fn is_met_by(&self, factor: &SecondFactor) -> bool {
        let passkeys = factor.party().map(|_| PASSKEY_METHODS);
        [Some(METHODS), passkeys].into_iter().flatten().any(|amr| {
            let at_best = SignIn {
                acr: Some(factor.class()),
                amr,
                auth_time: Some(0),
            };
            self.shortfall(&at_best, 0).is_none()
        })
    }

    /// Whether a code would not do, whatever it counts as.
    fn wants_passkey(&self) -> bool {
        let mut amr = self.amr.iter();
        !self.amr.is_empty() && !amr.any(|word| METHODS.contains(&&**word))
    }

    /// What the caller needs, for `check -v`.
    pub fn describe(&self) -> Vec<(String, String)> {
        let mut lines = vec![("step_up".to_owned(), format!("{self} ({})", self.place))];
        if self.factor.is_some() {
            let said = "enough; browsers are sent to its page".to_owned();
            lines.push(("the gate's own factor".to_owned(), said));
        }
        lines
    }

    /// What the sign-in falls short of, as a code for the log. `now` in Unix seconds.
    fn shortfall<M: AsRef<str>>(&self, sign_in: &SignIn<'_, M>, now: u64) -> Option<&'static str> {
        let is_one = |words: &[Box<str>], word: &str| words.iter().any(|known| **known == *word);
        if !self.acr.is_empty() && !sign_in.acr.is_some_and(|acr| is_one(&self.acr, acr)) {
            return Some("acr");
        }
        let mut methods = sign_in.amr.iter();
        if !self.amr.is_empty() && !methods.any(|method| is_one(&self.amr, method.as_ref())) {
            return Some("amr");
        }
        match (self.max_age, sign_in.auth_time) {
            (None, _) => None,
            (Some(_), None) => Some("auth-time-missing"),
            (Some(_), Some(at)) if at > now.saturating_add(AHEAD) => Some("auth-time-ahead"),
            (Some(most), Some(at)) => (now.saturating_sub(at) > most).then_some("auth-time-past"),
        }
    }
}

impl std::fmt::Display for StepUp {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut demands = Vec::new();
        for (claim, words) in [("acr", &self.acr), ("amr", &self.amr)] {
            if !words.is_empty() {
                demands.push(format!("{claim} any of {}", words.join(", ")));
            }
        }
        if let Some(seconds) = self.max_age {
            demands.push(format!("signed in within {seconds} s"));
        }
        f.write_str(&demands.join(", "))
    }
}

/// Asks whether the sign-in behind the credential is strong and fresh enough.
///
/// # Errors
/// 401 `step-up-needed` with the challenge of RFC 9470 §3. Where the gate's own factor would do: the redirect of a browser to
/// its page, 403 `second-factor-needed` for what a browser must not send again and for frames, 503 `overloaded`.
pub fn admit(policy: &StepUp, exchange: &mut Exchange) -> Result<(), Halt> {
    exchange.note(Stage::Mfa, || format!("{policy} ({})", policy.place));
    // A monitored `auth` has noted the missing principal already.
    let Some(principal) = exchange.principal.clone() else {
        return Ok(());
    };
    let now = clock::unix_seconds_at(exchange.started);
    let Some(shortfall) = policy.shortfall(&SignIn::by_credential(&principal), now) else {
        return Ok(());
    };
    let verdict = match &policy.factor {
        Some(factor) if exchange.scheme() == Scheme::Https => {
            by_factor(policy, (factor, &principal), (exchange, now))
        }
        _ => Err(None),
    };
    let halt = match verdict {
        Ok(()) => return Ok(()),
        Err(Some(halt)) => halt,
        Err(None) => {
            let refusal = Refusal::new(Stage::Mfa, Reason::StepUpNeeded).detail(shortfall);
            challenge(refusal, exchange, &policy.challenge).into()
        }
    };
    policy.mode.apply(Err(halt), exchange)
}

/// A session in use whose factor may be enrolled no more.
#[derive(Debug)]
pub struct Due {
    factor: Arc<SecondFactor>,
    id: Id,
    owner: Owner,
    proven: Factor,
}

/// The session of a request whose account is to be looked at before the request is judged: at its first use, and once a minute.
pub fn due(policy: &StepUp, exchange: &Exchange) -> Option<Due> {
    let factor = policy.factor.as_ref()?;
    let principal = exchange.principal.as_ref()?;
    let now = clock::unix_seconds_at(exchange.started);
    let (id, session) = factor.session.live(exchange.headers(), now)?;
    let proven = session.factor?;
    let is_own = session.owner.is(principal);
    (is_own && factor.session.is_due(&id, now)).then(|| Due {
        factor: Arc::clone(factor),
        id,
        owner: session.owner,
        proven,
    })
}

impl Due {
    /// Looks, and ends the session of an account that is no more or whose factor was replaced.
    pub async fn settle(self) {
        let look = move || {
            if !self.factor.still_stands(&self.owner, &self.proven) {
                self.factor.session.end(&self.id);
            }
        };
        if let Err(error) = tokio::task::spawn_blocking(look).await {
            tracing::error!(%error, "a look at an account was broken off");
        }
    }
}

/// Whether the gate's own factor was shown in a session of this principal, and lately enough.
///
/// # Errors
/// What a browser is told to do about it; `None` for clients that are no browsers.
fn by_factor(
    policy: &StepUp,
    (factor, principal): (&SecondFactor, &Principal),
    (exchange, now): (&mut Exchange, u64),
) -> Result<(), Option<Halt>> {
    let shown = factor.session.read(exchange.headers(), now);
    let own = match &shown {
        Shown::Live(id, session) if session.owner.is(principal) => {
            factor.session.touch(id, now);
            let proven = session.factor.as_ref().map(SignIn::by_factor);
            if proven.is_some_and(|proven| policy.shortfall(&proven, now).is_none()) {
                let said =
                    || "the gate's own factor was shown under the caller's cookie".to_owned();
                exchange.note(Stage::Mfa, said);
                return Ok(());
            }
            Some(*id)
        }
        Shown::Live(..) => {
            factor.session.note_foreign();
            None
        }
        Shown::Bad => {
            exchange.own_cookie = Some(Box::new(factor.session.clearing()));
            None
        }
        Shown::Renamed | Shown::Nothing => None,
    };
    exchange.note(Stage::Mfa, || {
        "the gate's own factor would be enough: a browser that opens a page is sent to show it"
            .to_owned()
    });
    // Who is only watched is sent nowhere.
    if policy.mode != Mode::Enforce || !fetch_metadata::opens_page(exchange.headers()) {
        return Err(None);
    }
    let Some(owner) = Owner::of(principal) else {
        return Err(None);
    };
    if !may_be_sent(exchange) || matches!(shown, Shown::Renamed) {
        return Err(Some(Halt::refuse(Stage::Mfa, Reason::SecondFactorNeeded)));
    }
    Err(Some(send((policy, factor), (own, &owner), (exchange, now))))
}

/// Whether the browser may go to the page and come back: what it opens, it opens in a window, without a body. A frame never may:
/// any page can open many of them, and each would begin a session that pushes out one in which somebody types.
fn may_be_sent(exchange: &Exchange) -> bool {
    let target = exchange.target().path_and_query().as_str();
    matches!(*exchange.method(), Method::GET | Method::HEAD)
        && fetch_metadata::opens_window(exchange.headers())
        && target.len() <= LONGEST_TARGET
        && own_space::stays_here(target)
}

/// The redirect to the page that asks for the factor, in the caller's own session or a new one.
fn send(
    (policy, factor): (&StepUp, &SecondFactor),
    (own, owner): (Option<Id>, &Owner),
    (exchange, now): (&mut Exchange, u64),
) -> Halt {
    let id = if let Some(id) = own {
        id
    } else if let Ok((id, field)) = factor.session.begin(owner, now) {
        exchange.own_cookie = Some(Box::new(field));
        id
    } else {
        let refusal = Refusal::new(Stage::Mfa, Reason::Overloaded).detail("sessions");
        let soon = HeaderValue::from_static("60");
        return refusal.with(header::RETRY_AFTER, soon).into();
    };
    let target = exchange.target().path_and_query().as_str();
    let back = factor.session.seal_target(&id, target, now);
    let want = if policy.wants_passkey() {
        own_space::WANTS_PASSKEY
    } else {
        ""
    };
    let location = [own_space::MFA, "?rt=", &back, want].concat();
    let mut headers = HeaderMap::new();
    let location = HeaderValue::try_from(location).expect("base64url is a header value");
    headers.insert(header::LOCATION, location);
    let no_store = HeaderValue::from_static("no-store");
    headers.insert(header::CACHE_CONTROL, no_store);
    Halt::Reply(Box::new(Reply {
        stage: Stage::Mfa,
        status: StatusCode::FOUND,
        headers,
        body: Bytes::new(),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::trial;

    const NOW: u64 = 1_800_000_000;

    /// Without a factor of the gate's own.
    fn alone(levels: &Reader<'_>) -> Option<StepUp> {
        compile(levels, None)
    }

    fn found(demand: &StepUp, principal: &Principal) -> Option<&'static str> {
        demand.shortfall(&SignIn::by_credential(principal), NOW)
    }

    fn demand(text: &str) -> StepUp {
        trial::compiled(&format!("[auth]\nstep_up = {text}"), alone).expect("a demand")
    }

    fn signed_in(acr: Option<&str>, amr: &[&str], auth_time: Option<u64>) -> Principal {
        Principal {
            acr: acr.map(Into::into),
            amr: amr.iter().map(|method| (*method).into()).collect(),
            auth_time,
            ..Principal::named("alice", Arc::from("corp"))
        }
    }

    #[test]
    fn what_is_not_known_is_not_enough() {
        let nothing = signed_in(None, &[], None);
        for (text, shortfall) in [
            ("{ acr = 'mfa' }", "acr"),
            ("{ amr = 'otp' }", "amr"),
            ("{ max_age = '5m' }", "auth-time-missing"),
        ] {
            assert_eq!(found(&demand(text), &nothing), Some(shortfall));
        }
    }

    #[test]
    fn one_class_and_one_method_of_those_listed_is_enough() {
        let demand = demand("{ acr = ['mfa', 'hwk'], amr = ['otp', 'fpt'] }");
        let shortfall = |acr, amr: &[&str]| found(&demand, &signed_in(acr, amr, None));
        assert_eq!(shortfall(Some("hwk"), &["pwd", "otp"]), None);
        assert_eq!(shortfall(Some("pwd"), &["otp"]), Some("acr"));
        assert_eq!(shortfall(Some("MFA"), &["otp"]), Some("acr"));
        assert_eq!(shortfall(Some("mfa"), &["pwd"]), Some("amr"));
    }

    #[test]
    fn a_sign_in_ages_and_none_may_lie_ahead() {
        let demand = demand("{ max_age = '5m' }");
        let shortfall = |at| found(&demand, &signed_in(None, &[], Some(at)));
        assert_eq!(shortfall(NOW - 300), None);
        assert_eq!(shortfall(NOW - 301), Some("auth-time-past"));
        assert_eq!(shortfall(0), Some("auth-time-past"));
        assert_eq!(shortfall(NOW + AHEAD), None);
        assert_eq!(shortfall(NOW + AHEAD + 1), Some("auth-time-ahead"));
        assert_eq!(shortfall(u64::MAX), Some("auth-time-ahead"));
    }

    #[test]
    fn the_challenge_says_what_would_be_enough() {
        let text =
            "[auth]\nscopes = { all = 'pay' }\nstep_up = { acr = ['mfa', 'hwk'], max_age = '5m' }";
        let demand = trial::compiled(text, alone).expect("a demand");
        assert_eq!(
            &*demand.challenge,
            ", error=\"insufficient_user_authentication\", acr_values=\"mfa hwk\", max_age=\"300\", scope=\"pay\""
        );
    }

    #[test]
    fn demands_that_nobody_could_meet_are_refused() {
        for (text, under) in [
            ("{ }", "{ }"),
            ("{ acr = [] }", "[]"),
            ("{ acr = 'a b' }", "'a b'"),
            ("{ amr = [\"a\\\"\"] }", "[\"a\\\"\"]"),
            ("{ max_age = '0s' }", "'0s'"),
        ] {
            let errors = trial::errors(&format!("[auth]\nstep_up = {text}"), alone);
            let found: Vec<_> = errors.iter().map(|(under, _)| under.as_str()).collect();
            assert_eq!(found, [under], "{errors:?}");
        }
    }

    #[test]
    fn nothing_is_asked_unless_it_is_stated() {
        assert!(trial::compiled("[auth]\nrequire = ['bearer']", alone).is_none());
        assert!(trial::compiled("auth = 'public'", alone).is_none());
        let off = "[auth]\nmode = 'off'\nstep_up = { acr = 'mfa' }";
        assert!(trial::compiled(off, alone).is_none());
    }
}
