//! `[roles.NAME]`: what a role brings with it, other roles and permissions. For the rules of [`rbac`](super::rbac).
//!
//! The table is turned round when the file is read: a rule that names a role is met by each role that inherits it, and one
//! that names a permission by each role that grants it. So a request costs a look-up of the roles it has, remembered
//! tokens hold nothing of this table, and a reload changes what they may do at once. What the backend is told are the
//! credential's own roles.

use std::collections::{BTreeMap, BTreeSet};

use crate::config::{At, Key, Kind, OneOrMany, Reader, Section, nearest};

/// `[roles.NAME]`
pub static SECTION: Section = Section {
    name: "role",
    doc: "what a role brings with it",
    keys: &[
        Key::new(
            "inherits",
            Kind::OneOrMany(&Kind::String),
            "roles of this table that it brings with it",
            "",
        ),
        Key::new(
            "permissions",
            Kind::OneOrMany(&Kind::String),
            "permissions that it grants, such as `orders.read`",
            "",
        ),
    ],
};

/// Most roles of a file: each is followed through all that it inherits.
const MOST: usize = 2000;

/// The roles of the file.
#[derive(Debug, Default)]
pub struct RoleBook {
    roles: BTreeMap<Box<str>, Role>,
    /// Whether the file has a table of roles at all. Without one, any name may stand in a rule.
    stated: bool,
}

#[derive(Debug, Default)]
struct Role {
    /// Itself and all that it inherits, at any depth.
    held: BTreeSet<Box<str>>,
    permissions: BTreeSet<Box<str>>,
}

/// A role as it is written.
struct Written {
    at: At,
    inherits: Vec<String>,
    permissions: Vec<String>,
}

/// Compiles `[roles]`. Unknown roles and circles are errors.
pub fn compile(root: &Reader<'_>) -> RoleBook {
    let mut written = BTreeMap::new();
    for (name, at, reader) in root.named("roles") {
        let list = |key: &str| {
            let names = reader.get::<OneOrMany<String>>(key);
            names.map(|names| names.0).unwrap_or_default()
        };
        let role = Written {
            at,
            inherits: list("inherits"),
            permissions: list("permissions"),
        };
        if name.is_empty() {
            reader.error_at(at, "a role needs a name", None);
        }
        written.insert(name, role);
    }
    if written.len() > MOST {
        root.error("roles", format!("more than {MOST} roles"), None);
        written.clear();
    }
    let names: BTreeSet<&str> = written.keys().copied().collect();
    for (name, _, reader) in root.named("roles") {
        let inherits = written.get(name).map(|role| role.inherits.as_slice());
        for parent in inherits.unwrap_or_default() {
            if !names.contains(parent.as_str()) {
                reader.error("inherits", unknown(parent), Some(meant(parent, &names)));
            }
        }
    }
    let roles = written
        .iter()
        .map(|(name, role)| ((*name).into(), follow(root, (*name, role.at), &written)))
        .collect();
    RoleBook {
        roles,
        stated: root.has("roles"),
    }
}

/// Everything that a role brings with it.
fn follow(root: &Reader<'_>, (name, at): (&str, At), written: &BTreeMap<&str, Written>) -> Role {
    let mut role = Role::default();
    let mut left = vec![name];
    while let Some(next) = left.pop() {
        let Some(written) = written.get(next) else {
            continue;
        };
        if !role.held.insert(next.into()) {
            continue;
        }
        let granted = written.permissions.iter();
        role.permissions
            .extend(granted.map(|name| name.as_str().into()));
        if written.inherits.iter().any(|parent| parent == name) {
            root.error_at(
                at,
                format!("the role `{name}` inherits itself"),
                Some(if next == name {
                    "leave it out of its own `inherits`".to_owned()
                } else {
                    format!("`{next}`, which it inherits, inherits it")
                }),
            );
        }
        left.extend(written.inherits.iter().map(String::as_str));
    }
    role
}

fn unknown(role: &str) -> String {
    format!("there is no role `{role}`")
}

/// The name that was probably meant, or those that there are.
fn meant(word: &str, known: &BTreeSet<&str>) -> String {
    if let Some(name) = nearest(word, known.iter().copied()) {
        return format!("did you mean `{name}`?");
    }
    let shown: Vec<String> = known
        .iter()
        .take(12)
        .map(|name| format!("`{name}`"))
        .collect();
    match shown.len() {
        0 => format!("add a section `[roles.{word}]`"),
        few if few == known.len() => format!("the file has {}", shown.join(", ")),
        _ => format!("the file has {} and more", shown.join(", ")),
    }
}

impl RoleBook {
    /// The roles that the file declares, in order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.roles.keys().map(AsRef::as_ref)
    }

    /// The roles whose holders have this one too, itself among them.
    pub fn holders(&self, role: &str) -> Vec<Box<str>> {
        let mut holders = self.with(|known| known.held.contains(role));
        if !holders.iter().any(|holder| **holder == *role) {
            holders.push(role.into());
        }
        holders.sort_unstable();
        holders
    }

    /// The roles that grant this permission, themselves or by what they inherit.
    pub fn granting(&self, permission: &str) -> Vec<Box<str>> {
        self.with(|role| role.permissions.contains(permission))
    }

    fn with(&self, has: impl Fn(&Role) -> bool) -> Vec<Box<str>> {
        let roles = self.roles.iter().filter(|(_, role)| has(role));
        roles.map(|(name, _)| name.clone()).collect()
    }

    /// Reports a role that a rule names and the table does not have; without a table any name may stand there.
    pub fn check_role(&self, reader: &Reader<'_>, key: &str, role: &str) {
        if self.stated && !self.roles.contains_key(role) {
            let known = self.names().collect();
            reader.error(key, unknown(role), Some(meant(role, &known)));
        }
    }

    /// Reports a permission that no role grants.
    pub fn check_permission(&self, reader: &Reader<'_>, key: &str, permission: &str) {
        let granted = self.roles.values().flat_map(|role| &role.permissions);
        let known: BTreeSet<&str> = granted.map(AsRef::as_ref).collect();
        if known.contains(permission) {
            return;
        }
        let hint = match nearest(permission, known.iter().copied()) {
            Some(name) => format!("did you mean `{name}`?"),
            None => format!("add `permissions = [\"{permission}\"]` to a `[roles.NAME]`"),
        };
        reader.error(key, format!("no role grants `{permission}`"), Some(hint));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::trial;

    const SHOP: &str = "\
[roles.admin]
inherits = [\"editor\", \"auditor\"]
permissions = [\"users.remove\"]
[roles.editor]
inherits = \"reader\"
permissions = [\"orders.write\"]
[roles.auditor]
permissions = [\"log.read\"]
[roles.reader]
permissions = [\"orders.read\"]
[roles.\"Domain Admins\"]
inherits = [\"admin\"]
";

    fn book() -> RoleBook {
        trial::compiled(SHOP, compile)
    }

    #[test]
    fn a_role_is_held_through_any_number_of_others() {
        let holders = |role: &str| book().holders(role).join(", ");
        assert_eq!(holders("reader"), "Domain Admins, admin, editor, reader");
        assert_eq!(holders("auditor"), "Domain Admins, admin, auditor");
        assert_eq!(holders("Domain Admins"), "Domain Admins");
        assert_eq!(holders("stranger"), "stranger");
    }

    #[test]
    fn a_permission_is_granted_by_whoever_inherits_it() {
        let granting = |permission: &str| book().granting(permission).join(", ");
        assert_eq!(
            granting("orders.read"),
            "Domain Admins, admin, editor, reader"
        );
        assert_eq!(granting("orders.write"), "Domain Admins, admin, editor");
        assert_eq!(granting("orders"), "");
    }

    #[test]
    fn circles_are_refused_wherever_they_are_entered() {
        let text = "[roles.a]\ninherits = ['b']\n[roles.b]\ninherits = ['c']\n[roles.c]\ninherits = ['b']\n[roles.d]\ninherits = ['d']\n";
        let messages: Vec<_> = trial::errors(text, compile)
            .into_iter()
            .map(|(_, message)| message)
            .collect();
        assert_eq!(
            messages,
            [
                "the role `b` inherits itself",
                "the role `c` inherits itself",
                "the role `d` inherits itself"
            ]
        );
    }

    #[test]
    fn unknown_names_are_refused_with_what_was_meant() {
        let (_, problems) = trial::judged(
            "[roles.admin]\ninherits = [\"reder\"]\n[roles.reader]\n",
            compile,
        );
        let [problem] = problems.as_slice() else {
            panic!("{problems:?}")
        };
        assert_eq!(problem.message, "there is no role `reder`");
        assert_eq!(problem.hint.as_deref(), Some("did you mean `reader`?"));
    }

    #[test]
    fn two_ways_to_the_same_role_are_no_circle() {
        let text = "[roles.a]\ninherits = ['b', 'c']\n[roles.b]\ninherits = 'd'\n[roles.c]\ninherits = 'd'\n[roles.d]\n";
        assert_eq!(trial::compiled(text, compile).holders("d").join(""), "abcd");
    }

    #[test]
    fn there_is_a_most_of_roles() {
        let text = |count: usize| {
            (0..count).fold(String::new(), |text, n| text + &format!("[roles.r{n}]\n"))
        };
        assert!(trial::errors(&text(MOST), compile).is_empty());
        assert_eq!(trial::errors(&text(MOST + 1), compile).len(), 1);
    }
}
