//! `[issuers.NAME]` to issuers at work.

use std::{collections::HashMap, path::PathBuf, sync::Arc, time::Duration};

use super::{dpop, survivors::Survivors};
use crate::{
    config::{At, HttpsUrl, Key, Kind, OneOrMany, Reader, Section},
    identity::{
        claims::ClaimPath,
        fetch::Authorities,
        issuer::{
            Asked, ClientAuth, Fetching, Introspection, IssuerConfig, IssuerRules, KeySource,
            LOOKED_UP, TokenType,
        },
        jws::Algorithm,
    },
    policy::authn::IssuerBook,
};

/// `[issuers.NAME.introspection]`
pub static INTROSPECTION: Section = Section {
    name: "introspection",
    doc: "how the issuer is asked about tokens (RFC 7662)",
    keys: &[
        Key::new(
            "url",
            Kind::Url,
            "introspection endpoint; https, or http to a loopback address",
            "",
        ),
        Key::new(
            "client_id",
            Kind::String,
            "name under which this gate asks",
            "",
        ),
        Key::new("client_secret", Kind::Secret, "its password", ""),
        Key::new(
            "auth",
            Kind::Choice(&["basic", "post"]),
            "name and password in Authorization, or in the form",
            "\"basic\"",
        ),
        Key::new(
            "when",
            Kind::Choice(&["opaque", "always"]),
            "ask about tokens that are not signed, or about signed ones too",
            "\"opaque\"",
        ),
        Key::new(
            "cache",
            Kind::Duration,
            "how long an active token is believed without asking again",
            "\"30s\"",
        ),
        Key::new(
            "negative_cache",
            Kind::Duration,
            "how long a refused token is not asked about again",
            "\"5s\"",
        ),
        Key::new(
            "timeout",
            Kind::Duration,
            "longest wait for an answer",
            "\"3s\"",
        ),
        Key::new(
            "concurrency",
            Kind::Integer {
                min: 1,
                max: 10_000,
            },
            "most questions at once, of one client a quarter of them",
            "32",
        ),
        Key::new(
            "require_audience",
            Kind::Bool,
            "refuse a token whose answer has no aud",
            "true",
        ),
    ],
};

/// Compiles every issuer.
///
/// `kept` are the claims that their principals keep.
pub fn compile(root: &Reader<'_>, survivors: &Survivors, kept: &[Box<str>]) -> IssuerBook {
    let mut book = IssuerBook::new();
    for (name, at, reader) in root.named("issuers") {
        let issuer = compile_one(name, at, &reader).and_then(|mut config| {
            config.rules.kept = kept.to_vec();
            if config.revoked.is_some() {
                let missing = LOOKED_UP.into_iter().map(Box::from);
                let missing = missing.filter(|name| !kept.contains(name));
                config.rules.kept.extend(missing);
            }
            survivors
                .issuers
                .prepare(config)
                .map_err(|error| reader.error_at(at, format!("issuer `{name}`: {error}"), None))
                .ok()
        });
        book.insert(name.to_owned(), issuer);
    }
    refuse_shared_files(root);
    book
}

/// Two issuers that keep their keys in one file would take turns in it.
fn refuse_shared_files(root: &Reader<'_>) {
    let mut kept: HashMap<PathBuf, &str> = HashMap::new();
    for (name, _, reader) in root.named("issuers") {
        let Some(path) = reader.path("keep") else {
            continue;
        };
        if let Some(other) = kept.get(&path) {
            let message = format!("issuer `{other}` keeps its keys in this file");
            reader.error("keep", message, Some("name one for each".into()));
        }
        kept.entry(path).or_insert(name);
    }
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
    let ca = authorities(reader);
    let keys = key_source((name, at), reader, ca.as_ref());
    let asked = introspection(name, reader, ca.as_ref());
    let keys = keys?;
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
    let mut config = IssuerConfig::new(rules, keys);
    config.introspection = asked;
    config.revoked = reader.path("revoked");
    Some(config)
}

/// The file of `ca`, read once for all that is fetched from the issuer.
fn authorities(reader: &Reader<'_>) -> Option<Authorities> {
    let read = Authorities::read(&reader.path("ca")?);
    read.map_err(|error| reader.error("ca", error.to_string(), None))
        .ok()
}

fn introspection(
    name: &str,
    reader: &Reader<'_>,
    ca: Option<&Authorities>,
) -> Option<Introspection> {
    if !reader.has("introspection") {
        return None;
    }
    let asked = reader.section("introspection");
    for key in ["url", "client_id", "client_secret"] {
        if !asked.has(key) {
            let message = format!("the introspection of issuer `{name}` needs `{key}`");
            let hint = "the issuer tells who may ask about tokens, and where";
            asked.error(key, message, Some(hint.into()));
        }
    }
    let url = asked.get::<HttpsUrl>("url")?.as_str().to_owned();
    let client_id = asked.get("client_id")?;
    let client_secret = asked.secret("client_secret")?;
    let cache = asked.get("cache").unwrap_or(Duration::from_secs(30));
    if cache > Duration::from_mins(5) {
        let message = "this weakens the gate: a withdrawn token counts for long";
        asked.relax("cache", message);
    }
    let require_audience = asked.get("require_audience").unwrap_or(true);
    if !require_audience {
        let message = "this weakens the gate: a token made for somebody else may count here";
        asked.relax("require_audience", message);
    }
    let said = |key: &str, word: &str| asked.get::<String>(key).as_deref() == Some(word);
    Some(Introspection {
        url,
        ca: ca.cloned(),
        client_id,
        client_secret,
        auth: if said("auth", "post") {
            ClientAuth::Post
        } else {
            ClientAuth::Basic
        },
        when: if said("when", "always") {
            Asked::Always
        } else {
            Asked::Opaque
        },
        cache,
        negative_cache: asked
            .get("negative_cache")
            .unwrap_or(Duration::from_secs(5)),
        timeout: asked.get("timeout").unwrap_or(Duration::from_secs(3)),
        concurrency: asked.get("concurrency").unwrap_or(32),
        require_audience,
    })
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

fn key_source(
    (name, at): (&str, At),
    reader: &Reader<'_>,
    ca: Option<&Authorities>,
) -> Option<KeySource> {
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
    let fetched = matches!(stated.first(), Some(&("jwks_url" | "discovery")));
    if reader.has("keep") && !fetched {
        let message = "only keys that are fetched can be kept";
        let hint = "leave it out, or name `jwks_url` or `discovery = true`";
        reader.error("keep", message, Some(hint.into()));
    }
    match stated.first().copied() {
        Some("jwks_url") => {
            let url = reader.get::<HttpsUrl>("jwks_url")?;
            Some(KeySource::Url {
                url: url.as_str().to_owned(),
                fetching: fetching(reader, ca),
            })
        }
        Some("jwks_file") => reader.path("jwks_file").map(KeySource::File),
        Some("secret") => reader.secret("secret").map(KeySource::Secret),
        Some("discovery") if reader.get("discovery") == Some(true) => {
            Some(KeySource::Discovery(fetching(reader, ca)))
        }
        None if reader.has("introspection") => Some(KeySource::Unsigned),
        _ => {
            reader.error_at(
                at,
                format!("issuer `{name}` has no keys"),
                Some(
                    "add `jwks_url`, `jwks_file`, `secret` or `discovery = true`, or `introspection` for tokens without signature"
                        .into(),
                ),
            );
            None
        }
    }
}

fn fetching(reader: &Reader<'_>, ca: Option<&Authorities>) -> Fetching {
    let floor = reader.get("cooldown").unwrap_or(Duration::from_secs(30));
    if floor < Duration::from_secs(1) {
        let message = "a flood of made-up key names would be a flood at the issuer";
        reader.error("cooldown", message, Some("at least `1s`".into()));
    }
    Fetching {
        ca: ca.cloned(),
        refresh: reader.get("refresh").unwrap_or(Duration::from_mins(10)),
        floor,
        stale: reader.get("stale").unwrap_or(Duration::from_hours(24)),
        keep: kept(reader),
    }
}

/// The file for keys; its folder must be there when keys come, which is told now.
fn kept(reader: &Reader<'_>) -> Option<PathBuf> {
    let path = reader.path("keep")?;
    let folder = path
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty());
    if folder.is_some_and(|folder| !folder.is_dir()) {
        let message = "the folder of this file is not there, so no keys are kept";
        reader.warn(
            "keep",
            message,
            Some("make it, writable by the gate alone".into()),
        );
    }
    Some(path)
}

/// The issuers that are whole, to be kept.
pub fn whole(book: &IssuerBook) -> Vec<Arc<crate::identity::issuer::Issuer>> {
    book.values().flatten().cloned().collect()
}
