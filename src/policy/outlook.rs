//! What the rules of a route say of a caller of whom nothing is known but a role. For `explain --matrix`.
//!
//! A pure function of the compiled rules. What depends on more than the role is named, never guessed; limits, networks
//! and origins are not asked.

use std::{collections::BTreeSet, fmt};

use super::{Policies, mode::Mode};

/// What such a caller may expect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outlook {
    /// Is let in.
    Allow,
    /// Is refused.
    Deny,
    /// Would be refused, or might be, and passes since `auth` is in monitor mode.
    Monitor,
    /// It depends on these, in the order in which they are asked.
    Depends(Vec<&'static str>),
}

impl fmt::Display for Outlook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Allow => f.write_str("allow"),
            Self::Deny => f.write_str("deny"),
            Self::Monitor => f.write_str("monitor"),
            Self::Depends(on) => f.write_str(&on.join("+")),
        }
    }
}

impl Policies {
    /// What a caller with this role alone may expect, and whatever that role inherits; `None` is one without credentials.
    pub fn outlook(&self, role: Option<&str>) -> Outlook {
        let mode = match self.authn.asking_mode() {
            None | Some(Mode::Off) => return Outlook::Allow,
            Some(mode) => mode,
        };
        let outlook = role.map_or(Outlook::Deny, |role| self.known_by(role));
        if mode == Mode::Monitor && outlook != Outlook::Allow {
            return Outlook::Monitor;
        }
        outlook
    }

    fn known_by(&self, role: &str) -> Outlook {
        if !self.rbac.lets_in(role) {
            return Outlook::Deny;
        }
        let questions = [
            ("step-up", self.step_up.is_some()),
            ("scope", self.rbac.asks_for_scopes()),
            ("condition", self.conditions.is_some()),
        ];
        let asked = questions.into_iter().filter(|(_, asked)| *asked);
        let open: Vec<_> = asked.map(|(question, _)| question).collect();
        if open.is_empty() {
            Outlook::Allow
        } else {
            Outlook::Depends(open)
        }
    }

    /// Adds every role that the rules of this route name.
    pub fn name_roles(&self, names: &mut BTreeSet<String>) {
        names.extend(self.rbac.named_roles().map(ToOwned::to_owned));
    }
}
