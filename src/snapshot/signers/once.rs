//! `max_age`, `once` and `once_entries`: how long a signature counts, and what of it counts once.

use std::time::Duration;

use http::HeaderName;

use super::{Making, arrives};
use crate::{
    config::Reader,
    identity::{
        http_signature::SKEW,
        once::{Once, OnceRules, Used, What},
        webhook::X_GITHUB_DELIVERY,
    },
    policy::body_limit::LONGEST_HOLD,
};

/// How long a signature counts that says when it was made.
const USUAL: Duration = Duration::from_mins(5);
/// Longer than that is told.
const LONG: Duration = Duration::from_mins(15);
/// How long the others are remembered.
const REMEMBERED: Duration = Duration::from_hours(24);
/// Seconds for which all are remembered beyond their end: other requests, which come later, have things forgotten by a later
/// clock, and the end of a held body takes the time that it takes.
const GRACE: u64 = 60;

/// The age in seconds, and what counts once. `counted`: what the scheme has of that.
pub(super) fn compile(
    making: &mut Making<'_>,
    reader: &Reader<'_>,
    counted: &[&str],
) -> (u64, Option<Once>) {
    let timed = !counted.contains(&"delivery");
    let max_age = reader.get::<Duration>("max_age");
    let max_age = max_age.unwrap_or(if timed { USUAL } else { REMEMBERED });
    if timed && max_age > LONG {
        reader.relax(
            "max_age",
            "this weakens the gate: old signed requests count for long",
        );
    }
    let seconds = max_age.as_secs();
    (seconds, once(making, reader, (counted, seconds)))
}

fn once(
    making: &mut Making<'_>,
    reader: &Reader<'_>,
    (counted, seconds): (&[&str], u64),
) -> Option<Once> {
    let word = reader.get::<String>("once")?;
    if !counted.contains(&word.as_str()) {
        let words: Vec<String> = counted.iter().map(|word| format!("`{word}`")).collect();
        reader.error(
            "once",
            format!("such signatures have no {word}"),
            Some(format!("expected {}", words.join(" or "))),
        );
        return None;
    }
    let what = match word.as_str() {
        "nonce" => What::Nonce,
        "signature" => What::Signature,
        _ => What::Delivery(delivery(reader)?),
    };
    let entries: u32 = reader.get("once_entries").unwrap_or(100_000);
    let rules = OnceRules {
        entries: usize::try_from(entries).unwrap_or(usize::MAX),
        // As long as a signature from the furthest future that is accepted, and a body that is held meanwhile: a request
        // is judged by the clock of its arrival.
        seconds: seconds
            .saturating_add(SKEW)
            .saturating_add(LONGEST_HOLD.as_secs())
            .saturating_add(GRACE),
    };
    // One store for a name, whatever its rules: another one would have forgotten what could be sent again.
    let replays = &making.survivors.replays;
    let store = replays.prepare(making.name, (), |()| Used::default());
    making.replays.push(store.clone());
    Some(Once {
        what,
        rules,
        used: store.thing,
    })
}

fn delivery(reader: &Reader<'_>) -> Option<HeaderName> {
    if reader.get::<String>("scheme").as_deref() == Some("github") {
        return Some(X_GITHUB_DELIVERY);
    }
    if !reader.has("delivery") {
        reader.error(
            "once",
            "nothing says which field names a delivery",
            Some("add `delivery = \"X-…\"`".into()),
        );
    }
    let field = reader.get::<HeaderName>("delivery");
    field.filter(|field| arrives(reader, ("delivery", field)))
}
