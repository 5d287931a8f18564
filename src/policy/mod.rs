//! The policies, one file each, and **the list**: the order in which they run.
//!
//! A policy file holds its section of the TOML file, its compiled form, its request half (`admit`), its response
//! half (`finish`) and its unit tests. [`admit`] and [`finish`] are written out by hand: the list *is* the
//! documentation of the request path. Any section may stand under `[defaults]`, in a blueprint or in a route;
//! nearest wins, key by key.

pub mod authn;
pub mod ban;
pub mod body_limit;
mod challenge;
pub mod conditions;
pub mod cookies;
pub mod cors;
pub mod csp;
pub mod csrf;
pub mod mask_errors;
pub mod mode;
pub mod network;
pub mod outlook;
pub mod protected_resource;
pub mod quota;
pub mod rate_limit;
pub mod rbac;
pub mod roles;
pub mod security_headers;
pub mod step_up;
#[cfg(test)]
mod trial;

use std::sync::Arc;

use http::response::Parts;

use crate::{
    exchange::Exchange,
    wire::halt::{Halt, Stage},
};

/// The compiled policies of one route; what several routes have from one table of the file they share.
#[derive(Debug)]
pub struct Policies {
    /// Allowed and denied networks.
    pub network: Arc<network::Network>,
    /// How often a client may fail to authenticate.
    pub ban: Arc<ban::Ban>,
    /// Limits by address, route, header or principal.
    pub rate_limits: Arc<rate_limit::RateLimits>,
    /// Largest request body.
    pub body_limit: Arc<body_limit::BodyLimit>,
    /// Cross-origin rules.
    pub cors: Arc<cors::Cors>,
    /// Who may ask.
    pub authn: Arc<authn::Authn>,
    /// Whose pages may change something.
    pub csrf: Arc<csrf::Csrf>,
    /// How and how lately the caller must have signed in, where the route asks for it.
    pub step_up: Option<Arc<step_up::StepUp>>,
    /// Roles and scopes.
    pub rbac: Arc<rbac::Rbac>,
    /// Conditions on claims and on the request, where there are any.
    pub conditions: Option<Arc<conditions::Conditions>>,
    /// What clients see of the backend's 5xx answers.
    pub mask_errors: Arc<mask_errors::MaskErrors>,
    /// What the backend's cookies gain.
    pub cookies: Arc<cookies::Cookies>,
    /// Security headers.
    pub headers: Arc<security_headers::SecurityHeaders>,
}

/// The request halves up to who asks, in order. The first halt ends the walk; [`admit_known`] is the rest of it. Between the
/// two a body is looked at, where nothing else shows who asks.
///
/// # Errors
/// The refusal or ready reply of the first policy that halts.
pub async fn admit(policies: &Policies, exchange: &mut Exchange) -> Result<(), Halt> {
    network::admit(&policies.network, exchange)?;
    // What is for everybody stays open to those who are banned, too.
    if policies.authn.asks() {
        ban::admit(&policies.ban, exchange)?;
    }
    // What only looks like a preflight goes on to the backend, so it costs what any request does.
    if cors::answers(&policies.cors, exchange) {
        exchange.note(Stage::RateLimit, || "preflights are not counted".to_owned());
    } else {
        rate_limit::admit(&policies.rate_limits, exchange)?;
    }
    body_limit::admit(&policies.body_limit, exchange)?;
    cors::admit(&policies.cors, exchange)?;
    authn::admit(&policies.authn, exchange).await
}

/// The request halves from where it is known who asks, in order. The first halt ends the walk.
///
/// # Errors
/// The refusal of the first policy that halts.
pub fn admit_known(policies: &Policies, exchange: &mut Exchange) -> Result<(), Halt> {
    quota::admit(&policies.authn, exchange)?;
    rate_limit::admit_principal(&policies.rate_limits, exchange)?;
    csrf::admit(&policies.csrf, (&policies.cors, &policies.authn), exchange)?;
    if let Some(step_up) = &policies.step_up {
        step_up::admit(step_up, exchange)?;
    }
    rbac::admit(&policies.rbac, exchange)?;
    if let Some(conditions) = &policies.conditions {
        conditions::admit(conditions, exchange)?;
    }
    Ok(())
}

/// What a request that meets no route is still judged by: scans must cost something.
///
/// # Errors
/// The refusal of the network or rate-limit policy.
pub fn admit_unrouted(policies: &Policies, exchange: &mut Exchange) -> Result<(), Halt> {
    network::admit(&policies.network, exchange)?;
    rate_limit::admit(&policies.rate_limits, exchange)?;
    Ok(())
}

/// The response halves, in reverse order, for **every** answer: the first policy of the list has the last word.
pub fn finish(policies: &Policies, exchange: &mut Exchange, answer: &mut Parts) {
    cookies::finish(&policies.cookies, exchange, answer);
    authn::finish(&policies.authn, answer);
    cors::finish(&policies.cors, exchange, answer);
    rate_limit::finish(&policies.rate_limits, exchange, answer);
    ban::finish(&policies.ban, exchange);
    security_headers::finish(&policies.headers, exchange, answer);
}
