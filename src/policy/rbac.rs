//! Roles and scopes: the last word on who may pass. Part of the section `auth`.
//!
//! `any`, `all` and `none` must hold together. The principal alone counts; no header is read.

use std::collections::BTreeSet;

use super::{challenge::challenge, mode::Mode};
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
    /// Where `roles` and `scopes` stand, for `explain`.
    places: Places,
}

#[derive(Debug, Default)]
struct Places {
    roles: Box<str>,
    scopes: Box<str>,
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
        places: Places {
            roles: reader.whence("roles"),
            scopes: reader.whence("scopes"),
        },
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

impl Rbac {
    /// What the caller needs, for `check -v`.
    pub fn describe(&self) -> Vec<(String, String)> {
        let rules = [
            ("roles", &self.roles, &self.places.roles),
            ("scopes", &self.scopes, &self.places.scopes),
        ];
        rules
            .into_iter()
            .filter(|(_, rules, _)| **rules != Rules::default())
            .map(|(name, rules, place)| (name.to_owned(), format!("{rules} ({place})")))
            .collect()
    }

    fn note(&self, exchange: &mut Exchange) {
        if exchange.journal.is_none() {
            return;
        }
        let Some(principal) = exchange.principal.clone() else {
            return exchange.note(Stage::Rbac, || "nobody to judge".to_owned());
        };
        for (name, rules, held, place) in [
            ("roles", &self.roles, &principal.roles, &self.places.roles),
            (
                "scopes",
                &self.scopes,
                &principal.scopes,
                &self.places.scopes,
            ),
        ] {
            if *rules != Rules::default() {
                exchange.note(Stage::Rbac, || {
                    let outcome = if rules.hold(held) {
                        "holds"
                    } else {
                        "does not hold"
                    };
                    let held = if held.is_empty() {
                        "none".to_owned()
                    } else {
                        held.join(", ")
                    };
                    format!("{name}: {rules} ({place}) {outcome}; the caller has {held}")
                });
            }
        }
    }
}

impl std::fmt::Display for Rules {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let rules = [("any", &self.any), ("all", &self.all), ("none", &self.none)];
        let mut first = true;
        for (word, names) in rules.into_iter().filter(|(_, names)| !names.is_empty()) {
            let comma = if first { "" } else { ", " };
            write!(f, "{comma}{word} of {}", names.join(", "))?;
            first = false;
        }
        Ok(())
    }
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
        exchange.note(Stage::Rbac, || "off".to_owned());
        return Ok(());
    }
    if exchange.journal.is_some() {
        policy.note(exchange);
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
    policy.mode.apply(verdict, exchange)
}

fn refuse(policy: &Rbac, exchange: &Exchange, reason: Reason) -> Halt {
    let refusal = Refusal::new(Stage::Rbac, reason);
    if policy.challenge.is_empty() {
        refusal.into()
    } else {
        challenge(refusal, exchange, &policy.challenge).into()
    }
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
