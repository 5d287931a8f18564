//! What a signed token and its issuer's answer about it say together (RFC 7662 §2.2, RFC 7800). For `bearer`.
//!
//! The answer may narrow what the token grants, and bind it to something that the caller must hold; it widens nothing. What
//! it says nothing of stands as the token has it; a list that it states as `null` is empty. A role or a scope that only one
//! of the two names lets nobody in, and still shuts its bearer out where a rule wants him to have none of some. Claims of
//! both are kept, for conditions that must hold of either; of the sign-in what both say.

use serde_json::Value;

use super::bearer::TokenError;
use super::claims::{self, BadClaim, Claims};
use super::introspection::Told;
use super::rules::IssuerRules;
use crate::exchange::principal::{Binding, IdentityHeaders, Principal, Withheld};

type Words = Vec<Box<str>>;

/// What an answer says that narrows a signed token.
#[derive(Debug, Default)]
pub(super) struct Said {
    grants: Grants,
    /// `None` where it says nothing.
    methods: Option<Words>,
    /// Of the claims that conditions read those that it states.
    claims: Claims,
}

impl Said {
    /// Reads the members as the issuer sent them.
    ///
    /// # Errors
    /// A list that cannot be read.
    pub(super) fn of(rules: &IssuerRules, members: &Claims) -> Result<Self, BadClaim> {
        let paths = rules.roles.iter();
        let listed = paths.map(|path| words(path.stated(members), "roles"));
        let scopes = match members.get("scope") {
            Some(scope) => words(Some(scope), "scope"),
            None => words(members.get("scp"), "scp"),
        };
        Ok(Self {
            grants: Grants {
                roles: listed.collect::<Result<_, _>>()?,
                scopes: scopes?,
            },
            methods: words(members.get("amr"), "amr")?,
            claims: claims::kept(members, &rules.kept).map_or_else(Claims::new, |kept| *kept),
        })
    }
}

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
    words(value.filter(|value| !value.is_null()), name)
}

/// `null` is an empty list.
fn words(value: Option<&Value>, name: &'static str) -> Result<Option<Words>, BadClaim> {
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
    let granted = &answer.said.grants;
    let both = own.common(granted);
    let (roles, scopes) = (both.roles(), both.scopes());
    let withheld = Withheld {
        roles: beside(&roles, own.roles(), granted.roles()),
        scopes: beside(&scopes, own.scopes(), granted.scopes()),
    };
    let answered = answered(principal.claims.as_deref(), &answer.said.claims);
    let amr = common(Some(&principal.amr), answer.said.methods.as_ref());
    Ok(Principal {
        acr: same(principal.acr, said.acr.as_deref()),
        amr: amr.unwrap_or_default(),
        auth_time: earlier(principal.auth_time, said.auth_time),
        answered,
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

/// The claims of the token with what the answer says laid over them; `None` where that changes nothing.
fn answered(own: Option<&Claims>, said: &Claims) -> Option<Box<Claims>> {
    let own = own?;
    let mut both = own.clone();
    claims::overlay(&mut both, said);
    (both != *own).then(|| Box::new(both))
}

/// The class of the sign-in, unless the answer names another.
fn same(own: Option<Box<str>>, said: Option<&str>) -> Option<Box<str>> {
    own.filter(|own| said.is_none_or(|said| said == &**own))
}

/// The time of the sign-in, or the earlier one that the answer says.
fn earlier(own: Option<u64>, said: Option<u64>) -> Option<u64> {
    own.map(|own| said.map_or(own, |said| said.min(own)))
}

/// What one of the two names and is not granted.
fn beside(granted: &[Box<str>], token: Words, answer: Words) -> Words {
    let named = token.into_iter().chain(answer);
    named.filter(|word| !granted.contains(word)).collect()
}
