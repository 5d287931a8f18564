//! What a signed token and its issuer's answer about it say together (RFC 7662 §2.2, RFC 7800). For `bearer`.
//!
//! The answer may narrow what the token grants, and bind it to something that the caller must hold; it widens nothing. What
//! it says nothing of stands as the token has it. A role or a scope that only one of the two names lets nobody in, and
//! still shuts its bearer out where a rule wants him to have none of some.

use serde_json::Value;

use super::bearer::TokenError;
use super::claims::{self, BadClaim, Claims};
use super::introspection::Told;
use super::rules::IssuerRules;
use crate::exchange::principal::{Binding, IdentityHeaders, Principal, Withheld};

type Words = Vec<Box<str>>;

/// The roles and scopes that one side states; `None` where it says nothing.
#[derive(Clone, Debug, Default)]
pub(super) struct Grants {
    /// One for each claim path of the rules.
    roles: Vec<Option<Words>>,
    scopes: Option<Words>,
}

impl Grants {
    /// Reads them.
    ///
    /// # Errors
    /// A list that cannot be read.
    pub(super) fn of(rules: &IssuerRules, claims: &Claims) -> Result<Self, BadClaim> {
        let paths = rules.roles.iter();
        let listed = paths.map(|path| stated(path.find(claims), "roles"));
        let scopes = match claims.get("scope") {
            Some(scope) => stated(Some(scope), "scope"),
            None => stated(claims.get("scp"), "scp"),
        };
        Ok(Self {
            roles: listed.collect::<Result<_, _>>()?,
            scopes: scopes?,
        })
    }

    /// All roles in order, without repeats.
    pub(super) fn roles(&self) -> Words {
        let mut all = Words::new();
        for role in self.roles.iter().flatten().flatten() {
            if !all.contains(role) {
                all.push(role.clone());
            }
        }
        all
    }

    /// All scopes in order.
    pub(super) fn scopes(&self) -> Words {
        self.scopes.clone().unwrap_or_default()
    }

    /// What both grant: of a list that both state the common part.
    fn common(&self, answer: &Self) -> Self {
        let roles = self.roles.iter().enumerate();
        Self {
            roles: roles
                .map(|(at, own)| common(own.as_ref(), answer.roles.get(at)?.as_ref()))
                .collect(),
            scopes: common(self.scopes.as_ref(), answer.scopes.as_ref()),
        }
    }
}

fn stated(value: Option<&Value>, name: &'static str) -> Result<Option<Words>, BadClaim> {
    let value = value.filter(|value| !value.is_null());
    value
        .map(|value| claims::words(Some(value), name))
        .transpose()
}

fn common(own: Option<&Words>, answer: Option<&Words>) -> Option<Words> {
    let mut own = own?.clone();
    if let Some(answer) = answer {
        own.retain(|word| answer.contains(word));
    }
    Some(own)
}

/// The principal of a signed token that grants this, as the answer about it leaves him.
///
/// # Errors
/// The two speak of different subjects, or bind the token to different things.
pub(super) fn agreed(
    (principal, own): (Principal, &Grants),
    answer: &Told,
) -> Result<Principal, TokenError> {
    let said = &*answer.principal;
    if !said.subject.is_empty() && said.subject != principal.subject {
        return Err(TokenError::BadClaim("sub"));
    }
    let binding = one_binding(principal.binding.clone(), said.binding.clone())?;
    let both = own.common(&answer.grants);
    let (roles, scopes) = (both.roles(), both.scopes());
    let withheld = Withheld {
        roles: beside(&roles, own.roles(), answer.grants.roles()),
        scopes: beside(&scopes, own.scopes(), answer.grants.scopes()),
    };
    Ok(Principal {
        headers: IdentityHeaders::new(&principal.subject, &roles, &scopes),
        roles,
        scopes,
        withheld: (withheld != Withheld::default()).then(|| Box::new(withheld)),
        expires: principal.expires.min(said.expires),
        binding,
        ..principal
    })
}

/// The binding that at least one side states.
fn one_binding(
    token: Option<Binding>,
    answer: Option<Binding>,
) -> Result<Option<Binding>, TokenError> {
    match (token, answer) {
        (Some(token), Some(answer)) if token != answer => Err(TokenError::BadClaim("cnf")),
        (token, answer) => Ok(token.or(answer)),
    }
}

/// What one of the two names and is not granted.
fn beside(granted: &[Box<str>], token: Words, answer: Words) -> Words {
    let named = token.into_iter().chain(answer);
    named.filter(|word| !granted.contains(word)).collect()
}
