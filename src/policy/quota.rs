//! What a credential itself may spend: the `quota` of an API key, whoever shows it and from wherever.
//!
//! It stands beside the limits of the route and is answered in the same fields, `RateLimit-Policy` and `RateLimit`, under
//! the name `api-key`. Its mode is that of `auth`.

use http::header;

use super::{authn::Authn, rate_limit::ceil_seconds};
use crate::{
    exchange::{Allowance, Exchange},
    state::clock,
    wire::halt::{Halt, Reason, Refusal, Stage},
};

/// The name of the limit, as clients read it.
pub const NAME: &str = "api-key";
/// Each quota has a table of its own, with one bucket in it.
const BUCKET: u64 = 1;

/// Counts the request against the quota of its credential, where it has one.
///
/// # Errors
/// 429 `rate-limited` with `Retry-After`.
pub fn admit(policy: &Authn, exchange: &mut Exchange) -> Result<(), Halt> {
    let Some((quota, mode)) = policy.quota(exchange) else {
        return Ok(());
    };
    let decision = quota.limiter.check(BUCKET, 1, clock::now_ns());
    let reset = ceil_seconds(decision.reset);
    exchange.allowance = Some(Box::new(Allowance {
        policy: quota.policy.clone(),
        remaining: decision.remaining,
        reset,
    }));
    exchange.note(Stage::Quota, || {
        format!(
            "limit `{NAME}` ({}): {} left",
            quota.place, decision.remaining
        )
    });
    if decision.is_allowed() {
        return Ok(());
    }
    let refusal = Refusal::new(Stage::Quota, Reason::RateLimited);
    let mut refusal = refusal.with(header::RETRY_AFTER, reset.max(1).into());
    refusal.violated.push(NAME.into());
    mode.apply(Err(refusal.into()), exchange)
}
