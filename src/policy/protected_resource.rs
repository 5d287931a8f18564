//! What clients are told of a protected resource: its metadata, and where to find it (RFC 9728). Part of the section `auth`.
//!
//! `resource = "https://app.example/api"` has the gate answer for the well-known address of that resource, before any
//! route of that address, and name it in the challenges of the routes that the key rules. The document says which issuers
//! and scopes count there, from the rules themselves, so that the two cannot differ. It is public, as everything in it is
//! told to whoever asks without a token. It is not signed (§2.2), and the key alone decides whether there is one.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use serde_json::{Map, Value, json};

use super::Policies;
use crate::{
    config::{At, HttpsUrl, Problem, Problems, Reader, Scheme},
    exchange::{CorsFact, Exchange},
    wire::{
        halt::{Halt, Reason, Refusal, Reply, Stage},
        path::Target,
    },
};

/// RFC 9728 §3: what is put between the host of a resource and its path.
const WELL_KNOWN: &str = "/.well-known/oauth-protected-resource";

/// How long the document may be kept; it changes with the file alone.
const CACHE: HeaderValue = HeaderValue::from_static("public, max-age=3600");

/// A resource that a section `auth` names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resource {
    /// The identifier, as it is written.
    text: Box<str>,
    host: Box<str>,
    /// What follows the host; empty for the root.
    path: Box<str>,
    /// Host and port, as they are written.
    authority: Box<str>,
    /// Where the file names it.
    place: Box<str>,
    at: Option<At>,
}

/// Reads `resource` out of the section `auth`; `None` where there is none, or none of use.
pub(super) fn read(auth: &Reader<'_>) -> Option<Arc<Resource>> {
    let url = auth.get::<HttpsUrl>("resource")?;
    let path = url.target().trim_end_matches('/');
    let parsed = format!("{path}/").parse().ok();
    let target = parsed.and_then(|target| Target::parse(&target).ok());
    let is_plain =
        target.is_some_and(|target| target.judged() == if path.is_empty() { "/" } else { path });
    if url.scheme() != Scheme::Https || path.contains('?') || !is_plain {
        auth.error(
            "resource",
            format!("`{url}` is no identifier of a protected resource"),
            Some("an https address without query, its path in normal form, such as `https://app.example/api`".into()),
        );
        return None;
    }
    let after_scheme = url.as_str().trim_start_matches("https://");
    let authority = after_scheme.split('/').next().unwrap_or_default();
    Some(Arc::new(Resource {
        text: url.as_str().into(),
        host: url.host().to_string().into(),
        path: path.into(),
        authority: authority.into(),
        place: auth.whence("resource"),
        at: auth.at("resource"),
    }))
}

/// What a challenge says of the resource, to be put behind its other parameters (RFC 9728 §5.1); empty without one.
pub(super) fn hint(auth: &Reader<'_>) -> String {
    read(auth).map_or_else(String::new, |resource| resource.hint())
}

impl Resource {
    fn hint(&self) -> String {
        let Self {
            authority, path, ..
        } = self;
        format!(", resource_metadata=\"https://{authority}{WELL_KNOWN}{path}\"")
    }

    /// A client must find in the metadata the very identifier that it asked for (RFC 9728 §3.3), so one address can serve
    /// one resource.
    fn clash(&self, first: &Self) -> Problem {
        let message = format!(
            "the metadata of `{}` has the address of that of `{}`",
            self.text, first.text
        );
        let problem = Problem::error(message).key("auth.resource").hint(format!(
            "write it as at {}: neither the port nor a slash at the end makes another resource here",
            first.place
        ));
        match self.at {
            Some(at) => problem.at(at),
            None => problem,
        }
    }

    /// The refusal, its challenges for tokens naming the metadata.
    pub(super) fn announce(&self, mut refusal: Refusal) -> Refusal {
        let hint = self.hint();
        for value in refusal
            .headers
            .iter_mut()
            .filter(|(name, _)| *name == header::WWW_AUTHENTICATE)
        {
            let value = value.1;
            let is_for_tokens = |value: &HeaderValue| {
                let text = value.as_bytes();
                text.starts_with(b"Bearer ") || text.starts_with(b"DPoP ")
            };
            if is_for_tokens(value)
                && let Ok(longer) =
                    HeaderValue::from_bytes(&[value.as_bytes(), hint.as_bytes()].concat())
            {
                *value = longer;
            }
        }
        refusal
    }
}

/// The documents of all resources that the file names.
#[derive(Debug)]
pub struct MetadataBook(Box<[Document]>);

#[derive(Debug)]
struct Document {
    resource: Arc<Resource>,
    json: Bytes,
}

/// What the routes of one resource have in common.
#[derive(Default)]
struct Terms {
    issuers: BTreeSet<String>,
    scopes: BTreeSet<String>,
    /// What proofs of possession may be signed with.
    algorithms: BTreeSet<String>,
    /// Routes where a token counts without a proof.
    proofless: usize,
}

impl MetadataBook {
    /// The documents for the policies of all routes; `None` when no route names a resource. Two resources of one address
    /// are an error.
    pub fn of<'a>(
        routes: impl Iterator<Item = &'a Policies>,
        problems: &Problems,
    ) -> Option<Box<Self>> {
        let mut resources: BTreeMap<(&str, &str), (Arc<Resource>, Terms)> = BTreeMap::new();
        let mut told: BTreeSet<&str> = BTreeSet::new();
        for policies in routes {
            let Some(resource) = policies.authn.resource() else {
                continue;
            };
            let known = resources.entry((&resource.host, &resource.path));
            let (first, terms) = known.or_insert_with(|| (Arc::clone(resource), Terms::default()));
            if first.text != resource.text && told.insert(&resource.text) {
                problems.push(resource.clash(first));
            }
            let issuers = policies.authn.issuers().iter();
            terms
                .issuers
                .extend(issuers.map(|issuer| issuer.rules().issuer.clone()));
            let proofs = policies.authn.proofs();
            let alone = proofs.as_ref().is_some_and(|(_, alone)| *alone);
            terms.proofless += usize::from(!alone);
            let algorithms = proofs.into_iter().flat_map(|(algorithms, _)| algorithms);
            terms.algorithms.extend(algorithms.map(ToOwned::to_owned));
            let scopes = policies.rbac.wanted_scopes();
            terms.scopes.extend(scopes.map(ToOwned::to_owned));
        }
        let documents: Box<[Document]> = resources
            .into_values()
            .map(|(resource, terms)| Document {
                json: terms.document(&resource),
                resource,
            })
            .collect();
        (!documents.is_empty()).then(|| Box::new(Self(documents)))
    }

    /// The answer to a request for one of these documents; `None` for any other request.
    pub fn answer(&self, exchange: &mut Exchange) -> Option<Halt> {
        let path = exchange.target().judged().strip_prefix(WELL_KNOWN)?;
        let host = exchange.authority().host();
        let document = self.0.iter().find(|document| {
            *document.resource.host == *host && *document.resource.path == *path
        })?;
        let Resource { text, place, .. } = &*document.resource;
        exchange.note(Stage::Route, || {
            format!("metadata of the protected resource `{text}` ({place})")
        });
        if !matches!(*exchange.method(), Method::GET | Method::HEAD) {
            let refusal = Refusal::new(Stage::Route, Reason::MethodNotAllowed);
            let allow = HeaderValue::from_static("GET, HEAD");
            return Some(refusal.with(header::ALLOW, allow).into());
        }
        exchange.cors = CorsFact::Anybody;
        let mut headers = HeaderMap::new();
        let kind = HeaderValue::from_static("application/json");
        headers.insert(header::CONTENT_TYPE, kind);
        headers.insert(header::CACHE_CONTROL, CACHE);
        Some(Halt::Reply(Box::new(Reply {
            stage: Stage::Route,
            status: StatusCode::OK,
            headers,
            body: document.json.clone(),
        })))
    }
}

impl Terms {
    /// RFC 9728 §2. An issuer that is no https address is nothing that a client could find.
    fn document(&self, resource: &Resource) -> Bytes {
        let mut members = Map::new();
        members.insert("resource".to_owned(), json!(*resource.text));
        let servers: Vec<&String> = self
            .issuers
            .iter()
            .filter(|issuer| issuer.starts_with("https://"))
            .collect();
        if !servers.is_empty() {
            members.insert("authorization_servers".to_owned(), json!(servers));
        }
        if !self.scopes.is_empty() {
            members.insert("scopes_supported".to_owned(), json!(self.scopes));
        }
        members.insert("bearer_methods_supported".to_owned(), json!(["header"]));
        if !self.algorithms.is_empty() {
            members.insert(
                "dpop_signing_alg_values_supported".to_owned(),
                json!(self.algorithms),
            );
            members.insert(
                "dpop_bound_access_tokens_required".to_owned(),
                json!(self.proofless == 0),
            );
        }
        Bytes::from(Value::Object(members).to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::trial;

    fn resource(url: &str) -> Arc<Resource> {
        trial::compiled(&format!("resource = '{url}'"), read).expect("a resource")
    }

    #[test]
    fn the_well_known_part_stands_between_host_and_path() {
        // The examples of RFC 9728 §3.1 and §5.1.
        for (url, metadata) in [
            (
                "https://resource.example.com",
                "https://resource.example.com/.well-known/oauth-protected-resource",
            ),
            (
                "https://resource.example.com/",
                "https://resource.example.com/.well-known/oauth-protected-resource",
            ),
            (
                "https://resource.example.com/resource1",
                "https://resource.example.com/.well-known/oauth-protected-resource/resource1",
            ),
            (
                "https://resource.example.com:8443/a/b",
                "https://resource.example.com:8443/.well-known/oauth-protected-resource/a/b",
            ),
        ] {
            let hint = format!(", resource_metadata=\"{metadata}\"");
            assert_eq!(resource(url).hint(), hint);
        }
    }

    #[test]
    fn what_no_request_could_be_judged_as_is_refused() {
        for url in [
            "http://app.example/api",
            "http://127.0.0.1/api",
            "https://app.example/api?x=1",
            "https://app.example/a/../b",
            "https://app.example/a%2fb",
            "https://app.example//a",
        ] {
            let errors = trial::errors(&format!("resource = '{url}'"), read);
            assert_eq!(errors.len(), 1, "{url}");
        }
    }

    #[test]
    fn challenges_for_tokens_name_the_metadata_and_others_do_not() {
        let bare = HeaderValue::from_static;
        let refusal = Refusal::new(Stage::Authn, Reason::CredentialsMissing)
            .with(header::WWW_AUTHENTICATE, bare("Bearer realm=\"a\""))
            .with(header::WWW_AUTHENTICATE, bare("ApiKey realm=\"a\""));
        let announced = resource("https://app.example").announce(refusal);
        let challenges: Vec<_> = announced
            .headers
            .get_all(header::WWW_AUTHENTICATE)
            .iter()
            .collect();
        assert_eq!(
            challenges,
            [
                "Bearer realm=\"a\", resource_metadata=\"https://app.example/.well-known/oauth-protected-resource\"",
                "ApiKey realm=\"a\""
            ]
        );
    }
}
