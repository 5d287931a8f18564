//! Roles and scopes: the last word on who may pass. Part of the section `auth`.
//!
//! `any`, `all` and `none` must hold together. The principal alone counts; no header is read.

use std::collections::BTreeSet;

use super::{authn, mode::Mode};
use crate::{
    config::{Key, Kind, OneOrMany, Reader, Section},
    exchange::Exchange,
    wire::halt::{Halt, Reason, Refusal, Stage},
};

/// `roles = { … }` and `scopes = { … }`
pub static RULES: Section = Section {
    name: "roles",
    doc: "names that the caller needs; all stated rules must hold",
    keys: &[
        Key::new(
            "any",
            Kind::OneOrMany(&Kind::String),
            "at least one of these",
            "",
        ),
        Key::new(
            "all",
            Kind::OneOrMany(&Kind::String),
            "every one of these",
            "",
        ),
        Key::new(
            "none",
            Kind::OneOrMany(&Kind::String),
            "not one of these",
            "",
        ),
    ],
};

/// The compiled rules.
#[derive(Debug, Default)]
pub struct Rbac {
    roles: Rules,
    scopes: Rules,
    /// Pre-written `scope="…"` for the challenge; empty without scope rules.
    challenge: String,
    mode: Mode,
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Rules {
    any: Vec<Box<str>>,
    all: Vec<Box<str>>,
    none: Vec<Box<str>>,
}

/// Compiles the rules out of the section `auth`.
pub fn compile(levels: &Reader<'_>) -> Rbac {
    if levels.nearest_scalar("auth").is_some() {
        return Rbac::default();
    }
    let reader = levels.section("auth");
    let roles = rules(&reader.section("roles"));
    let scopes = rules(&reader.section("scopes"));
    let mode = reader.get("mode").unwrap_or_default();
    let challenge = challenge_words(&scopes);
    if scopes
        .any
        .iter()
        .chain(&scopes.all)
        .any(|scope| !is_scope(scope))
    {
        reader.error(
            "scopes",
            "a scope has characters that no scope may have",
            Some("visible ASCII without quote, backslash and space (RFC 6749 §3.3)".into()),
        );
    }
    Rbac {
        roles,
        scopes,
        challenge,
        mode,
    }
}

fn rules(reader: &Reader<'_>) -> Rules {
    let names = |key: &str| -> Vec<Box<str>> {
        let names = reader.get::<OneOrMany<String>>(key).map(|names| names.0);
        if names.as_ref().is_some_and(Vec::is_empty) && key == "any" {
            reader.error(
                key,
                "an empty `any` lets nobody pass",
                Some("leave the key out, or name a role".into()),
            );
        }
        names
            .unwrap_or_default()
            .into_iter()
            .map(String::into_boxed_str)
            .collect()
    };
    Rules {
        any: names("any"),
        all: names("all"),
        none: names("none"),
    }
}

/// RFC 6749 §3.3: scope-token.
fn is_scope(scope: &str) -> bool {
    !scope.is_empty()
        && scope
            .bytes()
            .all(|b| b.is_ascii_graphic() && b != b'"' && b != b'\\')
}

fn challenge_words(scopes: &Rules) -> String {
    let wanted: BTreeSet<&str> = scopes
        .all
        .iter()
        .chain(&scopes.any)
        .map(AsRef::as_ref)
        .collect();
    if wanted.is_empty() {
        return String::new();
    }
    let list: Vec<&str> = wanted.into_iter().collect();
    format!(
        ", error=\"insufficient_scope\", scope=\"{}\"",
        list.join(" ")
    )
}

impl Rules {
    fn hold(&self, held: &[Box<str>]) -> bool {
        (self.any.is_empty() || self.any.iter().any(|name| held.contains(name)))
            && self.all.iter().all(|name| held.contains(name))
            && !self.none.iter().any(|name| held.contains(name))
    }
}

/// Asks whether the principal has what the route needs.
///
/// # Errors
/// 403 `role-missing` or `scope-missing`; with scope rules the challenge of RFC 6750 §3.1.
pub fn admit(policy: &Rbac, exchange: &mut Exchange) -> Result<(), Halt> {
    if policy.mode == Mode::Off {
        return Ok(());
    }
    let verdict = match &exchange.principal {
        // Public routes have no rules, and a monitored `auth` has noted the missing principal already.
        None => return Ok(()),
        Some(principal) if !policy.roles.hold(&principal.roles) => {
            Err(refuse(policy, exchange, Reason::RoleMissing))
        }
        Some(principal) if !policy.scopes.hold(&principal.scopes) => {
            Err(refuse(policy, exchange, Reason::ScopeMissing))
        }
        Some(_) => Ok(()),
    };
    if verdict.is_ok() {
        exchange.note(Stage::Rbac, || "roles and scopes hold".to_owned());
    }
    policy.mode.apply(verdict, exchange)
}

fn refuse(policy: &Rbac, exchange: &Exchange, reason: Reason) -> Halt {
    if policy.challenge.is_empty() {
        return Refusal::new(Stage::Rbac, reason).into();
    }
    let mut refusal = authn::challenge(exchange, Reason::ScopeMissing, &policy.challenge);
    refusal.reason = reason;
    refusal.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(list: &[&str]) -> Vec<Box<str>> {
        list.iter().map(|name| (*name).into()).collect()
    }

    #[test]
    fn any_all_and_none_hold_together() {
        let rules = Rules {
            any: names(&["a", "b"]),
            all: names(&["c"]),
            none: names(&["x"]),
        };
        assert!(rules.hold(&names(&["b", "c"])));
        assert!(!rules.hold(&names(&["c"])));
        assert!(!rules.hold(&names(&["a"])));
        assert!(!rules.hold(&names(&["a", "c", "x"])));
        assert!(Rules::default().hold(&[]));
    }

    #[test]
    fn a_scope_that_could_break_the_challenge_is_no_scope() {
        assert!(is_scope("api.read"));
        assert!(!is_scope("a b"));
        assert!(!is_scope("a\"b"));
    }
}
