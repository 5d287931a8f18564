//! `[issuers.NAME]` to issuers at work.

use std::{sync::Arc, time::Duration};

use super::{dpop, survivors::Survivors};
use crate::{
    config::{At, HttpsUrl, OneOrMany, Reader},
    identity::{
        claims::ClaimPath,
        issuer::{Fetching, IssuerConfig, IssuerRules, KeySource, TokenType},
        jws::Algorithm,
    },
    policy::authn::IssuerBook,
};

/// Compiles every issuer.
///
/// `kept` are the claims that their principals keep.
pub fn compile(root: &Reader<'_>, survivors: &Survivors, kept: &[Box<str>]) -> IssuerBook {
    let mut book = IssuerBook::new();
    for (name, at, reader) in root.named("issuers") {
        let issuer = compile_one(name, at, &reader).and_then(|mut config| {
            config.rules.kept = kept.to_vec();
            survivors
                .issuers
                .prepare(config)
                .map_err(|error| reader.error_at(at, format!("issuer `{name}`: {error}"), None))
                .ok()
        });
        book.insert(name.to_owned(), issuer);
    }
    book
}

fn compile_one(name: &str, at: At, reader: &Reader<'_>) -> Option<IssuerConfig> {
    let required = |key: &str, hint: &str| {
        if !reader.has(key) {
            reader.error_at(
                at,
                format!("issuer `{name}` needs `{key}`"),
                Some(hint.to_owned()),
            );
        }
    };
    required("issuer", "the exact value of the claim `iss`");
    required(
        "audience",
        "the value of the claim `aud` that means this gate",
    );
    let issuer = reader.get::<String>("issuer")?;
    let audience = reader.get::<OneOrMany<String>>("audience")?.0;
    let audience: Vec<&str> = audience.iter().map(String::as_str).collect();
    let keys = key_source(name, at, reader)?;
    let mut rules = IssuerRules::new(name, &issuer, &audience);
    if let Some(words) = reader.get::<Vec<String>>("algorithms") {
        rules.algorithms = words
            .iter()
            .filter_map(|word| Algorithm::from_name(word))
            .collect();
    } else if matches!(keys, KeySource::Secret(_)) {
        rules.algorithms = vec![Algorithm::Hs256];
    }
    if reader.get::<String>("token_type").as_deref() == Some("at+jwt") {
        rules.token_type = TokenType::AtJwt;
    }
    rules.roles = role_paths(reader);
    rules.leeway = reader.get("leeway").unwrap_or(Duration::from_secs(30));
    if rules.leeway > Duration::from_mins(5) {
        reader.relax(
            "leeway",
            "this weakens the gate: expired tokens count for long",
        );
    }
    rules.max_age = reader.get("max_age").unwrap_or(Duration::from_hours(24));
    rules.dpop = dpop::compile(reader);
    Some(IssuerConfig::new(rules, keys))
}

fn role_paths(reader: &Reader<'_>) -> Vec<ClaimPath> {
    let texts = reader
        .get::<OneOrMany<String>>("roles")
        .map(|texts| texts.0)
        .unwrap_or_default();
    let mut paths = Vec::new();
    for text in texts {
        match ClaimPath::parse(&text) {
            Ok(path) => paths.push(path),
            Err(error) => reader.error("roles", format!("`{text}`: {error}"), None),
        }
    }
    paths
}

fn key_source(name: &str, at: At, reader: &Reader<'_>) -> Option<KeySource> {
    let stated: Vec<&str> = ["jwks_url", "jwks_file", "secret", "discovery"]
        .into_iter()
        .filter(|key| reader.has(key))
        .filter(|key| *key != "discovery" || reader.get(key) != Some(false))
        .collect();
    if let [_, second, ..] = stated.as_slice() {
        reader.error(
            second,
            "keys come from one place",
            Some(format!("keep one of `{}`", stated.join("`, `"))),
        );
        return None;
    }
    let fetching = Fetching {
        ca: reader.path("ca"),
        refresh: reader.get("refresh").unwrap_or(Duration::from_mins(10)),
        stale: reader.get("stale").unwrap_or(Duration::from_hours(24)),
        ..Fetching::default()
    };
    match stated.first().copied() {
        Some("jwks_url") => {
            let url = reader.get::<HttpsUrl>("jwks_url")?;
            Some(KeySource::Url {
                url: url.as_str().to_owned(),
                fetching,
            })
        }
        Some("jwks_file") => reader.path("jwks_file").map(KeySource::File),
        Some("secret") => reader.secret("secret").map(KeySource::Secret),
        Some("discovery") if reader.get("discovery") == Some(true) => {
            Some(KeySource::Discovery(fetching))
        }
        _ => {
            reader.error_at(
                at,
                format!("issuer `{name}` has no keys"),
                Some("add `jwks_url`, `jwks_file`, `secret` or `discovery = true`".into()),
            );
            None
        }
    }
}

/// The issuers that are whole, to be kept.
pub fn whole(book: &IssuerBook) -> Vec<Arc<crate::identity::issuer::Issuer>> {
    book.values().flatten().cloned().collect()
}
