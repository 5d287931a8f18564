//! The response half of the limits: the fields `RateLimit-Policy` and `RateLimit`, in place of the backend's own, and what
//! an answer costs beside the request itself.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{HeaderName, header::HeaderValue, response::Parts};

use super::{Occasion, RateLimit, RateLimits, bucket};
use crate::{exchange::Exchange, policy::quota, state::clock, wire::sfv};

const POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
const STATE: HeaderName = HeaderName::from_static("ratelimit");

/// Writes the fields, in place of the backend's own, and charges what the answer costs.
pub fn finish(policy: &RateLimits, exchange: &mut Exchange, answer: &mut Parts) {
    let Some(field) = fields(policy, exchange) else {
        return;
    };
    let status = answer.status.as_u16();
    for limit in &policy.limits {
        for (occasion, cost) in &limit.cost {
            let due = match occasion {
                Occasion::Status(at) => *at == status,
                Occasion::Forged => exchange.forged,
            };
            if due {
                let key = charged(policy, limit, exchange);
                limit.limiter.charge(key, *cost, clock::now_ns());
            }
        }
    }
    answer.headers.insert(POLICY, field);
    match state_field(policy, exchange) {
        Some(state) => drop(answer.headers.insert(STATE, state)),
        None => drop(answer.headers.remove(STATE)),
    }
}

/// `RateLimit-Policy` of the route's limits and of the credential's own quota.
fn fields(policy: &RateLimits, exchange: &Exchange) -> Option<HeaderValue> {
    let own = exchange.allowance.as_ref().map(|own| &own.policy);
    let (field, own) = match (&policy.policy, own) {
        (Some(field), Some(own)) => (field, own),
        (one, other) => return one.as_ref().or(other).cloned(),
    };
    let joined = [field.as_bytes(), b", ", own.as_bytes()].concat();
    HeaderValue::from_maybe_shared(Bytes::from(joined)).ok()
}

/// The bucket that the request was counted in.
fn charged(policy: &RateLimits, limit: &RateLimit, exchange: &Exchange) -> u64 {
    let mut held = exchange.to_charge.iter();
    held.find(|(name, _)| *name == limit.name)
        .map_or_else(|| bucket(policy, limit, exchange), |(_, key)| *key)
}

/// `RateLimit` of whatever is nearest to refusing.
fn state_field(policy: &RateLimits, exchange: &Exchange) -> Option<HeaderValue> {
    let own = exchange.allowance.as_ref();
    let tightest = exchange
        .tightest
        .as_ref()
        .filter(|held| own.is_none_or(|own| held.remaining <= own.remaining))
        .and_then(|held| Some((held, policy.limits.get(held.place)?)));
    let mut state = BytesMut::with_capacity(48);
    let (remaining, reset) = match (tightest, own) {
        (Some((held, limit)), _) => {
            sfv::push_member(&mut state, &limit.quoted);
            (held.remaining, held.reset)
        }
        (None, Some(own)) => {
            sfv::push_member(&mut state, &sfv::Quoted::new(quota::NAME).ok()?);
            (own.remaining, own.reset)
        }
        (None, None) => return None,
    };
    sfv::push_parameter(&mut state, "r", u64::from(remaining));
    sfv::push_parameter(&mut state, "t", reset);
    HeaderValue::from_maybe_shared(state.freeze()).ok()
}

/// `RateLimit-Policy` of these limits, in their order; `None` without any.
pub(super) fn policy_field(limits: &[RateLimit]) -> Option<HeaderValue> {
    if limits.is_empty() {
        return None;
    }
    let mut field = BytesMut::new();
    for limit in limits {
        let rules = limit.rules;
        sfv::push_member(&mut field, &limit.quoted);
        sfv::push_parameter(&mut field, "q", u64::from(rules.quota));
        sfv::push_parameter(&mut field, "w", ceil_seconds(rules.window));
    }
    HeaderValue::from_maybe_shared(field.freeze()).ok()
}

/// Whole seconds, begun ones included.
pub fn ceil_seconds(span: Duration) -> u64 {
    span.as_secs()
        .saturating_add(u64::from(span.subsec_nanos() > 0))
}
