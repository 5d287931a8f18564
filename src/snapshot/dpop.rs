//! `[issuers.NAME.dpop]`: the proofs of possession that an issuer's tokens come with (RFC 9449).

use std::time::Duration;

use super::server::positive;
use crate::{
    config::{Key, Kind, Reader, Section},
    identity::{issuer::DpopRules, jws::Algorithm},
};

/// `[issuers.NAME.dpop]`
pub(super) static DPOP: Section = Section {
    name: "dpop",
    doc: "proofs that a token is its caller's own (RFC 9449); off unless stated",
    keys: &[
        Key::new(
            "required",
            Kind::Bool,
            "refuse tokens that are bound to no key; otherwise they are taken as plain bearer tokens",
            "false",
        ),
        Key::new(
            "algorithms",
            Kind::List(&Kind::Choice(&[
                "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "EdDSA",
            ])),
            "what proofs may be signed with",
            "[\"ES256\", \"ES384\", \"EdDSA\", \"PS256\", \"RS256\"]",
        ),
        Key::new(
            "max_age",
            Kind::Duration,
            "longest time since iat of a proof",
            "\"60s\"",
        ),
        Key::new(
            "leeway",
            Kind::Duration,
            "how far the clocks of callers may differ",
            "\"5s\"",
        ),
        Key::new(
            "nonce",
            Kind::Bool,
            "a proof must hold a nonce that the gate gave out less than four minutes ago",
            "false",
        ),
        Key::new(
            "entries",
            Kind::Integer {
                min: 1,
                max: 100_000_000,
            },
            "most proofs that the gate remembers, of all issuers, and of one key a sixteenth (at least 1000); one more is answered 503",
            "500000",
        ),
    ],
};

/// A proof that is good for longer than this is worth a word.
const LONG: Duration = Duration::from_mins(5);

/// Compiles the section; `None` where the issuer says nothing of proofs.
pub(super) fn compile(issuer: &Reader<'_>) -> Option<DpopRules> {
    let reader = issuer.section("dpop");
    if !reader.present() {
        return None;
    }
    let usual = DpopRules::default();
    let rules = DpopRules {
        required: reader.get("required").unwrap_or(usual.required),
        algorithms: algorithms(&reader).unwrap_or(usual.algorithms),
        max_age: positive(&reader, "max_age", usual.max_age),
        leeway: reader.get("leeway").unwrap_or(usual.leeway),
        nonce: reader.get("nonce").unwrap_or(usual.nonce),
        entries: reader.get("entries").unwrap_or(usual.entries),
    };
    for (key, time) in [("max_age", rules.max_age), ("leeway", rules.leeway)] {
        if time > LONG {
            reader.relax(
                key,
                "this weakens the gate: a proof that was stolen before its use counts for long",
            );
        }
    }
    Some(rules)
}

fn algorithms(reader: &Reader<'_>) -> Option<Vec<Algorithm>> {
    let words = reader.get::<Vec<String>>("algorithms")?;
    if words.is_empty() {
        reader.error(
            "algorithms",
            "no algorithm is allowed, so no proof could pass",
            Some("such as `[\"ES256\"]`".into()),
        );
    }
    let known = words.iter().map(|word| Algorithm::from_name(word));
    Some(known.flatten().collect())
}
