//! What a token says of itself where its signature cannot be checked, because the keys are not on disk.

use super::request::Asked;
use crate::{
    identity::{
        claims::{self, Claims},
        issuer::IssuerRules,
        jws,
    },
    policy::authn::Authn,
};

/// Lines about a token that nobody vouches for.
pub(super) fn unverified(authn: Option<&Authn>, asked: &Asked) -> Vec<String> {
    let token = asked.token.as_deref().or_else(|| asked.bearer());
    let Some(parts) = token.and_then(|token| jws::take_apart(token).ok()) else {
        return Vec::new();
    };
    let named = parts.claims.get("iss").and_then(|issuer| issuer.as_str());
    let issuers = authn.map(Authn::issuers).unwrap_or_default();
    let Some(issuer) = issuers
        .iter()
        .find(|issuer| Some(issuer.rules().issuer.as_str()) == named)
    else {
        return Vec::new();
    };
    let mut lines = vec![format!(
        "keys of issuer \"{}\" are not on disk: signature not checked",
        issuer.rules().name
    )];
    lines.extend(said(issuer.rules(), &parts.claims));
    lines
}

fn said(rules: &IssuerRules, claims: &Claims) -> Vec<String> {
    let list = |words: Vec<Box<str>>| {
        if words.is_empty() {
            "none".to_owned()
        } else {
            words.join(", ")
        }
    };
    let granted = rules
        .roles
        .iter()
        .flat_map(|path| claims::words(path.find(claims), "roles").unwrap_or_default());
    let scope = claims.get("scope").or_else(|| claims.get("scp"));
    let subject = claims.get("sub").and_then(|subject| subject.as_str());
    vec![
        format!("unverified subject: {}", subject.unwrap_or("none")),
        format!("unverified roles: {}", list(granted.collect())),
        format!(
            "unverified scopes: {}",
            list(claims::words(scope, "scope").unwrap_or_default())
        ),
    ]
}
