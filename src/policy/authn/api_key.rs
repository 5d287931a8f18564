//! API keys as a means of identification: one header of its own, never the query and never `Authorization`.
//!
//! There is no standard scheme for them, so the challenge is one of ours, `ApiKey`, with the name of the header. The
//! answer to every key that is not accepted is the same; the access line has the finer code.

use std::{collections::BTreeMap, sync::Arc};

use bytes::Bytes;
use http::{HeaderName, header, header::HeaderValue};

use super::{Books, Identified, refusal};
use crate::{
    config::{OneOrMany, Reader},
    exchange::Exchange,
    identity::api_key::{ApiKey, KeyError, KeyRing, MAX_KEY_BYTES, Quota},
    state::clock,
    wire::{
        halt::{Halt, Reason, Refusal},
        names,
    },
};

/// The keys of the file by name; `None` marks one whose own section has errors.
pub type KeyBook = BTreeMap<String, Option<Arc<ApiKey>>>;

const USUAL_HEADER: &str = "X-API-Key";

/// Fields that mean something else to the gate, to backends or to the connection.
const TAKEN: &[&str] = &[
    "accept",
    "authorization",
    "connection",
    "content-length",
    "content-type",
    "cookie",
    "dpop",
    "expect",
    "host",
    "http2-settings",
    "keep-alive",
    "origin",
    "proxy-authorization",
    "proxy-connection",
    "range",
    "referer",
    "te",
    "traceparent",
    "tracestate",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "user-agent",
];

/// Keys in a header.
#[derive(Debug)]
pub struct ApiKeys {
    ring: KeyRing,
    /// Every key of the file, where some of them do not count: who shows one of those has guessed nothing.
    elsewhere: Option<KeyRing>,
    header: KeyHeader,
}

/// The header that carries the key.
#[derive(Clone, Debug)]
pub(super) struct KeyHeader {
    pub(super) name: HeaderName,
    /// As the file writes it, for people.
    shown: Box<str>,
}

/// Why no credential can stand in a field of this name; `None` where one can.
pub fn why_no_credential(name: &HeaderName) -> Option<&'static str> {
    if TAKEN.contains(&name.as_str()) {
        return Some("means something else already");
    }
    names::reserved(name).then_some("is taken out of every request before anything is judged")
}

/// Reads `api_key_header`.
pub(super) fn key_header(reader: &Reader<'_>) -> KeyHeader {
    let shown: String = reader
        .get("api_key_header")
        .unwrap_or_else(|| USUAL_HEADER.to_owned());
    let name = reader
        .get("api_key_header")
        .unwrap_or(HeaderName::from_static("x-api-key"));
    if let Some(why) = why_no_credential(&name) {
        reader.error(
            "api_key_header",
            format!("`{shown}` {why}"),
            Some(format!("such as `{USUAL_HEADER}`")),
        );
    }
    KeyHeader {
        name,
        shown: shown.into(),
    }
}

/// Compiles `api_keys`.
pub(super) fn compile(reader: &Reader<'_>, books: &Books, header: &KeyHeader) -> ApiKeys {
    let book = &books.api_keys;
    if book.is_empty() {
        reader.error(
            "require",
            "the file has no API key, so none could pass",
            Some("add a section `[api_keys.NAME]`; `portcullis hash-key` makes a key".into()),
        );
    }
    let every = || KeyRing::new(book.values().flatten().cloned());
    let named = reader.get::<OneOrMany<String>>("api_keys");
    ApiKeys {
        elsewhere: named.is_some().then(every),
        ring: named.map_or_else(every, |named| {
            KeyRing::new(named_keys(reader, book, &named.0))
        }),
        header: header.clone(),
    }
}

fn named_keys(reader: &Reader<'_>, book: &KeyBook, names: &[String]) -> Vec<Arc<ApiKey>> {
    if names.is_empty() {
        reader.error(
            "api_keys",
            "no key is named, so none could pass",
            Some("leave it out for every key of the file".into()),
        );
    }
    let mut found = Vec::new();
    for name in names {
        match book.get(name) {
            Some(key) => found.extend(key.clone()),
            None => reader.error(
                "api_keys",
                format!("there is no API key `{name}`"),
                Some(format!("add a section `[api_keys.{name}]`")),
            ),
        }
    }
    found
}

impl ApiKeys {
    /// Whose keys count, for `check -v` and `explain`.
    pub(super) fn explain(&self) -> String {
        let names: Vec<String> = self
            .ring
            .names()
            .take(3)
            .map(|name| format!("`{name}`"))
            .collect();
        let more = self.ring.names().len().saturating_sub(names.len());
        let more = match more {
            0 => String::new(),
            more => format!(" or {more} more"),
        };
        let names = names.join(", ");
        format!("API key of {names}{more} in `{}`", self.header.shown)
    }

    /// Whether the request brings a key, good or bad.
    pub(super) fn is_brought(&self, exchange: &Exchange) -> bool {
        exchange.headers().contains_key(&self.header.name)
    }

    /// Looks the key up, if one came.
    ///
    /// # Errors
    /// 400 `invalid-request`, 401 `api-key-invalid`.
    pub(super) fn identify(&self, exchange: &mut Exchange) -> Identified {
        let mut values = exchange.headers().get_all(&self.header.name).iter();
        let Some(presented) = values.next() else {
            return Ok(None);
        };
        if values.next().is_some() {
            return Err(self.unclear(exchange, "credential-repeated"));
        }
        if presented.len() > MAX_KEY_BYTES {
            return Err(self.unclear(exchange, "credential-too-long"));
        }
        let now = clock::unix_seconds_at(exchange.started);
        let (place, principal) = match self.ring.find(presented.as_bytes(), now) {
            Ok((place, key)) => (place, Arc::clone(&key.principal)),
            Err(error) => {
                return Err(self.refused(exchange, error, presented.as_bytes()));
            }
        };
        exchange.quota_place = Some(place);
        Ok(Some(principal))
    }

    /// The header that carries the key.
    pub(super) fn header(&self) -> &HeaderName {
        &self.header.name
    }

    /// What the key that was shown may spend.
    pub(super) fn quota(&self, place: usize) -> Option<&Quota> {
        self.ring.at(place)?.quota.as_ref()
    }

    /// What a caller who brought nothing is told to bring.
    pub(super) fn challenge(&self, refusal: Refusal, exchange: &Exchange) -> Refusal {
        let host = exchange.authority().host();
        let shown = &*self.header.shown;
        let value = ["ApiKey realm=\"", host, "\", header=\"", shown, "\""].concat();
        match HeaderValue::from_maybe_shared(Bytes::from(value)) {
            Ok(value) => refusal.with(header::WWW_AUTHENTICATE, value),
            Err(_) => refusal,
        }
    }

    fn unclear(&self, exchange: &Exchange, detail: &'static str) -> Halt {
        let refusal = refusal(Reason::InvalidRequest).detail(detail);
        self.challenge(refusal, exchange).into()
    }

    fn refused(&self, exchange: &Exchange, error: KeyError, presented: &[u8]) -> Halt {
        let known = |ring: &KeyRing| ring.find(presented, 0).is_ok();
        let not_here = error == KeyError::Unknown && self.elsewhere.as_ref().is_some_and(known);
        let detail = if not_here { "not-here" } else { error.code() };
        let mut refusal = refusal(Reason::ApiKeyInvalid).detail(detail);
        refusal.forged = error == KeyError::Unknown && !not_here && !presented.is_empty();
        self.challenge(refusal, exchange).into()
    }
}
