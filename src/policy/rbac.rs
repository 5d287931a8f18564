//! Roles, permissions and scopes: the last word on who may pass. Part of the section `auth`.
//!
//! `any`, `all` and `none` must hold together. The principal alone counts; no header is read. What a role brings with it
//! stands in [`roles`](super::roles); the rules are turned into plain sets of roles here, when the file is read.

use std::collections::BTreeSet;

use super::{challenge::challenge, mode::Mode, protected_resource, roles::RoleBook};
use crate::{
    config::{Key, Kind, OneOrMany, Reader, Section},
    exchange::{
        Exchange,
        principal::{Principal, Withheld},
    },
    wire::halt::{Halt, Reason, Refusal, Stage},
};

/// `roles = { … }`, `permissions = { … }` and `scopes = { … }`
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
    roles: Demand,
    permissions: Demand,
    scopes: Demand,
    /// Pre-written `scope="…"` for the challenge; empty without scope rules.
    challenge: String,
    mode: Mode,
}

/// The rules of one kind of name, and the sets that meet them.
#[derive(Debug, Default)]
struct Demand {
    /// Whoever has one of these meets `any`; `None` without such a rule.
    any: Option<Names>,
    /// One of each of these is needed.
    all: Vec<Names>,
    /// Whoever has one of these is refused.
    none: Names,
    /// As the file has it, for people.
    stated: Rules,
    /// Where it stands, for `explain`.
    place: Box<str>,
}

/// Names in order.
#[derive(Debug, Default)]
struct Names(Box<[Box<str>]>);

#[derive(Debug, Default, PartialEq, Eq)]
struct Rules {
    any: Vec<Box<str>>,
    all: Vec<Box<str>>,
    none: Vec<Box<str>>,
}

/// Compiles the rules out of the section `auth`.
pub fn compile(levels: &Reader<'_>, book: &RoleBook) -> Rbac {
    if levels.nearest_scalar("auth").is_some() {
        return Rbac::default();
    }
    let auth = levels.section("auth");
    let scopes = rules(&auth.section("scopes"));
    if scopes.wanted().any(|scope| !is_scope(scope)) {
        auth.error(
            "scopes",
            "a scope has characters that no scope may have",
            Some("visible ASCII without quote, backslash and space (RFC 6749 §3.3)".into()),
        );
    }
    let demand = |key: &str, rules: Rules, meets: &dyn Fn(&str) -> Vec<Box<str>>| Demand {
        place: auth.whence(key),
        ..Demand::new(rules, meets)
    };
    Rbac {
        challenge: challenge_words(&auth),
        roles: demand("roles", role_rules(&auth, book), &|role| book.holders(role)),
        permissions: demand(
            "permissions",
            permission_rules(&auth, book),
            &|permission| book.granting(permission),
        ),
        scopes: demand("scopes", scopes, &|scope| vec![scope.into()]),
        mode: auth.get("mode").unwrap_or_default(),
    }
}

fn role_rules(auth: &Reader<'_>, book: &RoleBook) -> Rules {
    let reader = auth.section("roles");
    let rules = rules(&reader);
    for (key, role) in rules.each() {
        book.check_role(&reader, key, role);
    }
    rules
}

fn permission_rules(auth: &Reader<'_>, book: &RoleBook) -> Rules {
    let reader = auth.section("permissions");
    let rules = rules(&reader);
    for (key, permission) in rules.each() {
        book.check_permission(&reader, key, permission);
    }
    rules
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
pub(super) fn is_scope(scope: &str) -> bool {
    !scope.is_empty()
        && scope
            .bytes()
            .all(|b| b.is_ascii_graphic() && b != b'"' && b != b'\\')
}

/// The scopes that the section `auth` asks for, joined by spaces; `None` without such rules.
pub(super) fn wanted_scopes(auth: &Reader<'_>) -> Option<String> {
    let scopes = rules(&auth.section("scopes"));
    let wanted: BTreeSet<&str> = scopes.wanted().collect();
    let list: Vec<&str> = wanted.into_iter().collect();
    (!list.is_empty()).then(|| list.join(" "))
}

fn challenge_words(auth: &Reader<'_>) -> String {
    wanted_scopes(auth).map_or_else(String::new, |scopes| {
        let hint = protected_resource::hint(auth);
        format!(", error=\"insufficient_scope\", scope=\"{scopes}\"{hint}")
    })
}

impl Rules {
    /// Every name with the key that it stands under.
    fn each(&self) -> impl Iterator<Item = (&'static str, &str)> {
        let rules = [("any", &self.any), ("all", &self.all), ("none", &self.none)];
        let names = rules.into_iter();
        names.flat_map(|(key, names)| names.iter().map(move |name| (key, &**name)))
    }

    /// The names that a caller may need.
    fn wanted(&self) -> impl Iterator<Item = &str> {
        self.all.iter().chain(&self.any).map(AsRef::as_ref)
    }
}

impl Demand {
    /// The rules, each name turned into the set of those that meet it.
    fn new(stated: Rules, meets: &dyn Fn(&str) -> Vec<Box<str>>) -> Self {
        let union = |names: &[Box<str>]| Names::new(names.iter().flat_map(|name| meets(name)));
        Self {
            any: (!stated.any.is_empty()).then(|| union(&stated.any)),
            all: stated
                .all
                .iter()
                .map(|name| Names::new(meets(name)))
                .collect(),
            none: union(&stated.none),
            stated,
            place: Box::default(),
        }
    }

    fn is_empty(&self) -> bool {
        self.stated == Rules::default()
    }

    fn holds(&self, held: &[Box<str>]) -> bool {
        self.any.as_ref().is_none_or(|any| any.meet(held))
            && self.all.iter().all(|names| names.meet(held))
            && !self.none.meet(held)
    }
}

impl Names {
    fn new(names: impl IntoIterator<Item = Box<str>>) -> Self {
        let names: BTreeSet<Box<str>> = names.into_iter().collect();
        Self(names.into_iter().collect())
    }

    /// Whether one of these is among those that are held.
    fn meet(&self, held: &[Box<str>]) -> bool {
        /// Up to here a look at each is the shorter way.
        const FEW: usize = 8;
        if self.0.len() <= FEW {
            return self.0.iter().any(|name| held.contains(name));
        }
        held.iter().any(|name| self.0.binary_search(name).is_ok())
    }
}

impl Rbac {
    /// What the principal lacks, or has and should not.
    fn missing(&self, principal: &Principal) -> Option<Reason> {
        if !self.roles.holds(&principal.roles) {
            Some(Reason::RoleMissing)
        } else if !self.permissions.holds(&principal.roles) {
            Some(Reason::PermissionMissing)
        } else if !self.scopes.holds(&principal.scopes) {
            Some(Reason::ScopeMissing)
        } else {
            self.shut_out_by(principal.withheld.as_deref()?)
        }
    }

    /// Which `none` names something that is withheld.
    #[cold]
    fn shut_out_by(&self, withheld: &Withheld) -> Option<Reason> {
        let kinds = [
            (&self.roles, &withheld.roles, Reason::RoleMissing),
            (
                &self.permissions,
                &withheld.roles,
                Reason::PermissionMissing,
            ),
            (&self.scopes, &withheld.scopes, Reason::ScopeMissing),
        ];
        let mut kinds = kinds.into_iter();
        kinds.find_map(|(demand, names, reason)| demand.none.meet(names).then_some(reason))
    }

    /// Each kind of rule that is stated: its name, what it asks for, what the caller has to meet it with.
    fn stated(&self) -> impl Iterator<Item = (&'static str, &Demand, Held)> {
        let demands = [
            ("roles", &self.roles, Held::Roles),
            ("permissions", &self.permissions, Held::Roles),
            ("scopes", &self.scopes, Held::Scopes),
        ];
        demands
            .into_iter()
            .filter(|(_, demand, _)| !demand.is_empty())
    }

    /// Whether a caller with this role alone has the roles and permissions that are needed.
    pub fn lets_in(&self, role: &str) -> bool {
        let held = [role.into()];
        self.roles.holds(&held) && self.permissions.holds(&held)
    }

    /// The scopes that a caller may need.
    pub fn wanted_scopes(&self) -> impl Iterator<Item = &str> {
        self.scopes.stated.wanted()
    }

    /// Whether it depends on scopes too.
    pub fn asks_for_scopes(&self) -> bool {
        !self.scopes.is_empty()
    }

    /// The roles that the rules name.
    pub fn named_roles(&self) -> impl Iterator<Item = &str> {
        self.roles.stated.each().map(|(_, role)| role)
    }

    /// What the caller needs, for `check -v`.
    pub fn describe(&self) -> Vec<(String, String)> {
        self.stated()
            .map(|(name, demand, _)| (name.to_owned(), demand.to_string()))
            .collect()
    }

    fn note(&self, exchange: &mut Exchange) {
        let Some(principal) = exchange.principal.clone() else {
            return exchange.note(Stage::Rbac, || "nobody to judge".to_owned());
        };
        for (name, demand, kind) in self.stated() {
            let held = match kind {
                Held::Roles => &principal.roles,
                Held::Scopes => &principal.scopes,
            };
            let outcome = if demand.holds(held) {
                "holds"
            } else {
                "does not hold"
            };
            let held = if held.is_empty() {
                "none".to_owned()
            } else {
                held.join(", ")
            };
            exchange.note(Stage::Rbac, || {
                format!("{name}: {demand} {outcome}; the caller has {held}")
            });
        }
    }
}

/// What of a principal meets a rule.
#[derive(Clone, Copy)]
enum Held {
    Roles,
    Scopes,
}

impl std::fmt::Display for Demand {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Rules { any, all, none } = &self.stated;
        let rules = [("any", any), ("all", all), ("none", none)];
        let rules: Vec<String> = rules
            .into_iter()
            .filter(|(_, names)| !names.is_empty())
            .map(|(word, names)| format!("{word} of {}", names.join(", ")))
            .collect();
        write!(f, "{} ({})", rules.join(", "), self.place)
    }
}

/// Asks whether the principal has what the route needs.
///
/// # Errors
/// 403 `role-missing`, `permission-missing` or `scope-missing`; with scope rules the challenge of RFC 6750 §3.1.
pub fn admit(policy: &Rbac, exchange: &mut Exchange) -> Result<(), Halt> {
    if policy.mode == Mode::Off {
        exchange.note(Stage::Rbac, || "off".to_owned());
        return Ok(());
    }
    if exchange.journal.is_some() {
        policy.note(exchange);
    }
    // Public routes have no rules, and a monitored `auth` has noted the missing principal already.
    let Some(principal) = &exchange.principal else {
        return Ok(());
    };
    let Some(reason) = policy.missing(principal) else {
        return Ok(());
    };
    let refusal = refuse(policy, exchange, reason);
    policy.mode.apply(Err(refusal), exchange)
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
    use crate::policy::{roles, trial};

    fn names(list: &[&str]) -> Vec<Box<str>> {
        list.iter().map(|name| (*name).into()).collect()
    }

    /// The rules of the section `auth` in a file with these roles.
    fn rbac(text: &str) -> Rbac {
        trial::compiled(text, |reader| compile(reader, &roles::compile(reader)))
    }

    fn errors(text: &str) -> Vec<(String, String)> {
        trial::errors(text, |reader| compile(reader, &roles::compile(reader)))
    }

    #[test]
    fn any_all_and_none_hold_together() {
        let rules = Rules {
            any: names(&["a", "b"]),
            all: names(&["c"]),
            none: names(&["x"]),
        };
        let demand = Demand::new(rules, &|name| vec![name.into()]);
        assert!(demand.holds(&names(&["b", "c"])));
        assert!(!demand.holds(&names(&["c"])));
        assert!(!demand.holds(&names(&["a"])));
        assert!(!demand.holds(&names(&["a", "c", "x"])));
        assert!(Demand::default().holds(&[]));
    }

    #[test]
    fn what_is_withheld_lets_nobody_in_and_still_shuts_out() {
        let principal = Principal {
            roles: names(&["reader"]),
            withheld: Some(Box::new(Withheld {
                roles: names(&["admin", "fraud"]),
                scopes: names(&["y"]),
            })),
            ..Principal::named("alice", "corp".into())
        };
        for (rules, missing) in [
            ("roles = { any = ['reader'] }", None),
            ("roles = { any = ['admin'] }", Some(Reason::RoleMissing)),
            (
                "roles = { none = ['suspended'] }",
                Some(Reason::RoleMissing),
            ),
            (
                "permissions = { none = ['users.remove'] }",
                Some(Reason::PermissionMissing),
            ),
            ("scopes = { any = ['y'] }", Some(Reason::ScopeMissing)),
            ("scopes = { none = ['y'] }", Some(Reason::ScopeMissing)),
            ("scopes = { none = ['z'] }", None),
        ] {
            let rbac = rbac(&format!("{SHOP}{rules}"));
            assert_eq!(rbac.missing(&principal), missing, "{rules}");
        }
    }

    const SHOP: &str = "\
[roles.admin]
inherits = ['editor']
permissions = ['users.remove']
[roles.editor]
inherits = ['reader']
permissions = ['orders.write']
[roles.reader]
permissions = ['orders.read']
[roles.suspended]
[roles.fraud]
inherits = ['suspended']
[auth]
";

    #[test]
    fn whoever_inherits_a_role_has_it_for_better_and_for_worse() {
        let rbac = rbac(&format!(
            "{SHOP}roles = {{ any = ['reader'], none = ['suspended'] }}"
        ));
        for (held, passes) in [
            (&["reader"][..], true),
            (&["admin"], true),
            (&["admin", "stranger"], true),
            (&["stranger"], false),
            (&["admin", "suspended"], false),
            (&["admin", "fraud"], false),
        ] {
            assert_eq!(rbac.roles.holds(&names(held)), passes, "{held:?}");
        }
    }

    #[test]
    fn all_wants_each_of_them_from_whichever_role() {
        let rbac = rbac(&format!(
            "{SHOP}permissions = {{ all = ['orders.read', 'users.remove'] }}"
        ));
        for (held, passes) in [
            (&["admin"][..], true),
            (&["editor"], false),
            (&["orders.read", "users.remove"], false),
            (&[], false),
        ] {
            assert_eq!(rbac.permissions.holds(&names(held)), passes, "{held:?}");
        }
    }

    #[test]
    fn many_names_are_found_like_few() {
        let many: Vec<String> = (0..100).map(|n| format!("r{n}")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        let all = Names::new(names(&many));
        assert!(many.iter().all(|name| all.meet(&names(&["x", name]))));
        assert!(!all.meet(&names(&["x", "r100", ""])));
    }

    #[test]
    fn names_that_the_table_does_not_have_are_refused() {
        let found = errors(&format!(
            "{SHOP}roles = {{ any = ['reeder'], none = ['suspendet'] }}\npermissions = {{ all = ['orders.reed'] }}"
        ));
        let messages: Vec<_> = found.iter().map(|(_, message)| message.as_str()).collect();
        assert_eq!(
            messages,
            [
                "there is no role `reeder`",
                "there is no role `suspendet`",
                "no role grants `orders.reed`"
            ]
        );
        assert!(errors("[auth]\nroles = { any = ['anything'] }").is_empty());
        assert_eq!(errors("[auth]\npermissions = { any = ['x'] }").len(), 1);
    }

    #[test]
    fn a_scope_that_could_break_the_challenge_is_no_scope() {
        assert!(is_scope("api.read"));
        assert!(!is_scope("a b"));
        assert!(!is_scope("a\"b"));
    }
}
