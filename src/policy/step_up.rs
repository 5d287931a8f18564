//! Step-up: how, and how lately, the person behind a request signed in (RFC 9470). Part of the section `auth`.
//!
//! For routes that want more than a valid credential. It reads `acr`, `amr` and `auth_time` of the principal at each
//! request, since a remembered token ages; a caller of whom they are not known is refused. Classes have no order here:
//! the list names each one that is enough. The challenge tells a client what to ask its authorization server for; no
//! second factor is asked for here.

use std::{fmt::Write, time::Duration};

use super::{challenge::challenge, mode::Mode, protected_resource, rbac};
use crate::{
    config::{Key, Kind, OneOrMany, Reader, Section},
    exchange::{Exchange, principal::Principal},
    state::clock,
    wire::halt::{Halt, Reason, Refusal, Stage},
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
    mode: Mode,
    /// Where the section stands, for `explain`.
    place: Box<str>,
}

/// Compiles `step_up` out of the section `auth`; `None` where nothing is asked.
pub fn compile(levels: &Reader<'_>) -> Option<StepUp> {
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

    /// What the caller needs, for `check -v`.
    pub fn describe(&self) -> Vec<(String, String)> {
        vec![("step_up".to_owned(), format!("{self} ({})", self.place))]
    }

    /// What the sign-in falls short of, as a code for the log. `now` in Unix seconds.
    fn shortfall(&self, principal: &Principal, now: u64) -> Option<&'static str> {
        let acr = principal.acr.as_ref();
        if !self.acr.is_empty() && !acr.is_some_and(|acr| self.acr.contains(acr)) {
            return Some("acr");
        }
        if !self.amr.is_empty() && !self.amr.iter().any(|method| principal.amr.contains(method)) {
            return Some("amr");
        }
        match (self.max_age, principal.auth_time) {
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
/// 401 `step-up-needed` with the challenge of RFC 9470 §3.
pub fn admit(policy: &StepUp, exchange: &mut Exchange) -> Result<(), Halt> {
    exchange.note(Stage::Mfa, || format!("{policy} ({})", policy.place));
    // A monitored `auth` has noted the missing principal already.
    let Some(principal) = &exchange.principal else {
        return Ok(());
    };
    let now = clock::unix_seconds_at(exchange.started);
    let Some(shortfall) = policy.shortfall(principal, now) else {
        return Ok(());
    };
    let refusal = Refusal::new(Stage::Mfa, Reason::StepUpNeeded).detail(shortfall);
    let refusal = challenge(refusal, exchange, &policy.challenge);
    policy.mode.apply(Err(refusal.into()), exchange)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::policy::trial;

    const NOW: u64 = 1_800_000_000;

    fn demand(text: &str) -> StepUp {
        trial::compiled(&format!("[auth]\nstep_up = {text}"), compile).expect("a demand")
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
            assert_eq!(demand(text).shortfall(&nothing, NOW), Some(shortfall));
        }
    }

    #[test]
    fn one_class_and_one_method_of_those_listed_is_enough() {
        let demand = demand("{ acr = ['mfa', 'hwk'], amr = ['otp', 'fpt'] }");
        let shortfall = |acr, amr: &[&str]| demand.shortfall(&signed_in(acr, amr, None), NOW);
        assert_eq!(shortfall(Some("hwk"), &["pwd", "otp"]), None);
        assert_eq!(shortfall(Some("pwd"), &["otp"]), Some("acr"));
        assert_eq!(shortfall(Some("MFA"), &["otp"]), Some("acr"));
        assert_eq!(shortfall(Some("mfa"), &["pwd"]), Some("amr"));
    }

    #[test]
    fn a_sign_in_ages_and_none_may_lie_ahead() {
        let demand = demand("{ max_age = '5m' }");
        let shortfall = |at| demand.shortfall(&signed_in(None, &[], Some(at)), NOW);
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
        let demand = trial::compiled(text, compile).expect("a demand");
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
            let errors = trial::errors(&format!("[auth]\nstep_up = {text}"), compile);
            let found: Vec<_> = errors.iter().map(|(under, _)| under.as_str()).collect();
            assert_eq!(found, [under], "{errors:?}");
        }
    }

    #[test]
    fn nothing_is_asked_unless_it_is_stated() {
        assert!(trial::compiled("[auth]\nrequire = ['bearer']", compile).is_none());
        assert!(trial::compiled("auth = 'public'", compile).is_none());
        let off = "[auth]\nmode = 'off'\nstep_up = { acr = 'mfa' }";
        assert!(trial::compiled(off, compile).is_none());
    }
}
