//! `[api_keys.NAME]` to keys that count.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use bytes::BytesMut;
use http::HeaderValue;

use super::survivors::Survivors;
use crate::{
    config::{At, Complaint, Key, Kind, Moment, OneOrMany, Reader, Section},
    exchange::principal::{IdentityHeaders, Principal},
    identity::api_key::{ApiKey, Fingerprint, Quota},
    policy::{
        authn::KeyBook,
        quota,
        rate_limit::{Description, ceil_seconds},
    },
    state::{
        clock,
        limiter::{Limit, Limiter},
        registry::Named,
    },
    wire::sfv,
};

/// The issuer of principals that show a key; no `[issuers.NAME]` can have this name.
const ISSUER: &str = "[api_keys]";
/// Keys that end within this many days are worth a word.
const EXPIRY_DAYS: u64 = 14;

/// `[api_keys.NAME]`
pub static API_KEY: Section = Section {
    name: "api_keys",
    doc: "one key that a caller may show; the file holds its hash alone",
    keys: &[
        Key::new(
            "hash",
            Kind::Hash,
            "what `portcullis hash-key` prints for the key",
            "",
        ),
        Key::new(
            "owner",
            Kind::String,
            "subject of who shows it; the name of the key where nothing is said",
            "",
        ),
        Key::new(
            "roles",
            Kind::OneOrMany(&Kind::String),
            "roles of who shows it",
            "[]",
        ),
        Key::new(
            "scopes",
            Kind::OneOrMany(&Kind::String),
            "scopes of who shows it",
            "[]",
        ),
        Key::new(
            "expires",
            Kind::Checked(Moment::check),
            "moment from which on it is refused; never where nothing is said",
            "",
        ),
        Key::new(
            "quota",
            Kind::Integer {
                min: 1,
                max: 1_000_000_000,
            },
            "requests with it in each window; any number where nothing is said",
            "",
        ),
        Key::new(
            "window",
            Kind::Duration,
            "time in which the quota comes back",
            "\"1m\"",
        ),
    ],
};

/// The keys of a file.
#[derive(Debug, Default)]
pub struct Keys {
    /// By name.
    pub book: KeyBook,
    /// The buckets of their quotas, to be kept.
    pub limiters: Vec<Named<Description, Limiter>>,
}

/// Compiles every key.
pub fn compile(root: &Reader<'_>, survivors: &Survivors) -> Keys {
    let mut keys = Keys::default();
    let mut hashes: BTreeMap<String, &str> = BTreeMap::new();
    for (name, at, reader) in root.named("api_keys") {
        let key = keys.compile_one(name, at, (&reader, survivors));
        if let Some(key) = &key
            && let Some(other) = hashes.insert(key.fingerprint.to_string(), name)
        {
            let hint = "each caller has a key of its own: make one with `portcullis hash-key`";
            reader.error(
                "hash",
                format!("`{other}` has the same key"),
                Some(hint.into()),
            );
        }
        keys.book.insert(name.to_owned(), key.map(Arc::new));
    }
    keys
}

impl Keys {
    fn compile_one(
        &mut self,
        name: &str,
        at: At,
        (reader, survivors): (&Reader<'_>, &Survivors),
    ) -> Option<ApiKey> {
        let fingerprint = fingerprint(name, at, reader);
        let expires = expires(name, reader);
        let quota = self.quota(name, reader, survivors);
        let owner: String = reader.get("owner").unwrap_or_else(|| name.to_owned());
        if owner.is_empty() {
            let hint = "leave it out for the name of the key";
            reader.error("owner", "a key of nobody", Some(hint.into()));
        }
        let (roles, scopes) = (words(reader, "roles"), words(reader, "scopes"));
        Some(ApiKey {
            name: name.into(),
            fingerprint: fingerprint?,
            principal: Arc::new(Principal {
                headers: IdentityHeaders::new(&owner, &roles, &scopes),
                roles,
                scopes,
                expires,
                ..Principal::named(&owner, ISSUER.into())
            }),
            quota,
        })
    }

    fn quota(&mut self, name: &str, reader: &Reader<'_>, survivors: &Survivors) -> Option<Quota> {
        if !reader.has("quota") {
            if reader.has("window") {
                let hint = Some("add `quota`".to_owned());
                reader.error("window", "a window without a quota limits nothing", hint);
            }
            return None;
        }
        let limit = Limit {
            quota: reader.get("quota")?,
            window: reader.get("window").unwrap_or(Duration::from_mins(1)),
            burst: 0,
        };
        if limit.window.is_zero() {
            let hint = Some("such as `\"1m\"`".to_owned());
            reader.error("window", "a window of no time limits nothing", hint);
            return None;
        }
        let named = survivors.limiters.prepare(
            &format!("[api_keys.{name}]"),
            (limit, 1),
            |(limit, capacity)| Limiter::new(*limit, *capacity),
        );
        let limiter = Arc::clone(&named.thing);
        self.limiters.push(named);
        Some(Quota {
            limiter,
            policy: policy(limit)?,
            place: reader.stated_at(),
        })
    }
}

fn fingerprint(name: &str, at: At, reader: &Reader<'_>) -> Option<Fingerprint> {
    if !reader.has("hash") {
        reader.error_at(
            at,
            format!("API key `{name}` needs `hash`"),
            Some("`portcullis hash-key` makes a key and prints its hash".into()),
        );
    }
    let text: String = reader.get("hash")?;
    match Fingerprint::parse(&text) {
        Ok(fingerprint) => Some(fingerprint),
        Err(error) => {
            // It may be the key itself, which is to be shown to nobody.
            let hint = "`sha256:` and 64 hexadecimal digits: `portcullis hash-key -` hashes a key from standard input";
            let complaint = Complaint::new(error.to_string());
            reader.complain("hash", complaint.hint(hint).concealed());
            None
        }
    }
}

/// Unix second from which on the key is refused.
fn expires(name: &str, reader: &Reader<'_>) -> u64 {
    let Some(Moment(expires)) = reader.get("expires") else {
        return u64::MAX;
    };
    let now = clock::unix_seconds();
    let left = expires.saturating_sub(now) / 86_400;
    if expires <= now {
        reader.warn(
            "expires",
            format!("the API key `{name}` has expired"),
            Some("it is refused; take it out, or give its owner another one".into()),
        );
    } else if left < EXPIRY_DAYS {
        reader.warn(
            "expires",
            format!("the API key `{name}` expires in {left} days"),
            Some("give its owner another one in time; both may stand in the file".into()),
        );
    }
    expires
}

fn words(reader: &Reader<'_>, key: &str) -> Vec<Box<str>> {
    let words = reader.get::<OneOrMany<String>>(key).unwrap_or_default();
    words.0.into_iter().map(String::into_boxed_str).collect()
}

/// `"api-key";q=100;w=60`
fn policy(limit: Limit) -> Option<HeaderValue> {
    let mut field = BytesMut::new();
    sfv::push_member(&mut field, &sfv::Quoted::new(quota::NAME).ok()?);
    sfv::push_parameter(&mut field, "q", u64::from(limit.quota));
    sfv::push_parameter(&mut field, "w", ceil_seconds(limit.window));
    HeaderValue::from_maybe_shared(field.freeze()).ok()
}
