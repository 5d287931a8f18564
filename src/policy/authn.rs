//! Who is asking: `auth = "public"`, or `[….auth] require = [ … ]` with the means that identify a caller, any of which is enough.
//!
//! Each means has a file below. Their order is that of [`Means`]: what a request brings itself is looked at before what
//! its connection has, and a request that brings two of them is refused, since either could be meant. Credentials are
//! never passed on unless `forward_token` says so.
//!
//! A means that refuses what was forged or guessed says so with [`Refusal::forged`]: it is counted against the client by
//! [`super::ban`] and costs more in its limit. What is missing, expired or good elsewhere is no forgery.

mod api_key;
mod bearer;
mod by_hand;
mod mtls;
mod possession;
mod section;
mod signature;

use std::{collections::BTreeMap, sync::Arc};

use http::{HeaderMap, HeaderName, header, response::Parts, uri::PathAndQuery};

use self::{
    api_key::{ApiKeys, KeyHeader},
    bearer::Bearer,
    mtls::Mtls,
    possession::Possession,
    signature::Signature,
};
pub use self::{
    api_key::{KeyBook, why_no_credential},
    mtls::CertificateBook,
    section::{KIND, SECTION},
    signature::{SignerBook, no_room},
};
use super::{
    mode::Mode,
    protected_resource::{self, Resource},
    roles::RoleBook,
};
use crate::{
    config::Reader,
    exchange::{Exchange, principal::Principal},
    identity::{api_key::Quota, dpop::Proofs, issuer::Issuer},
    wire::{
        halt::{Halt, Reason, Refusal, Stage},
        names,
        path::Target,
    },
};

/// The certificate of the client (RFC 9440 §2.2).
const CLIENT_CERT: HeaderName = HeaderName::from_static("client-cert");

/// The issuers of the file; `None` marks one whose own section has errors.
pub type IssuerBook = BTreeMap<String, Option<Arc<Issuer>>>;

/// Everything that the file names outside of routes and that tells who asks.
#[derive(Debug, Default)]
pub struct Books {
    /// `[issuers.NAME]`
    pub issuers: IssuerBook,
    /// `[api_keys.NAME]`
    pub api_keys: KeyBook,
    /// `[roles.NAME]`
    pub roles: RoleBook,
    /// Proofs of possession that were accepted lately.
    pub proofs: Arc<Proofs>,
    /// `[signers.NAME]`
    pub signers: SignerBook,
    /// `[client_certificates.NAME]`
    pub certificates: CertificateBook,
    /// Whether the file has `tls.client_ca`.
    pub asks_for_certificates: bool,
}

/// The compiled policy.
#[derive(Debug)]
pub enum Authn {
    /// Anybody; with the place that says so, for `explain`.
    Public(Box<str>),
    /// Callers who identify themselves.
    Required(Required),
}

/// The means of which a caller needs one.
#[derive(Debug)]
pub struct Required {
    /// Empty when nobody is asked.
    means: Box<[Means]>,
    /// Fields that carry credentials, which the backend does not see.
    concealed: Vec<HeaderName>,
    /// Whether the query may hold credentials, which the backend does not see either.
    conceals_query: bool,
    /// The one that carries API keys; backends read others of nearly that name as it.
    key_header: Option<HeaderName>,
    /// What gives callers the nonce for their next proof, where an issuer asks for nonces.
    nonces: Option<Arc<Proofs>>,
    /// Whether the backend is told the certificate of the client.
    forward_certificate: bool,
    mode: Mode,
    /// The protected resource that refusals point to.
    resource: Option<Arc<Resource>>,
    /// Where the section stands, for `explain`.
    place: Box<str>,
}

/// A means of identification.
#[derive(Debug)]
pub enum Means {
    /// A signature of the request.
    Signature(Signature),
    /// A token in `Authorization`.
    Bearer(Bearer),
    /// A key in a header of its own.
    ApiKey(ApiKeys),
    /// The certificate of the connection.
    Mtls(Mtls),
}

/// Who asks; `None` where the request brings nothing of that kind.
type Identified = Result<Option<Arc<Principal>>, Halt>;

impl Authn {
    /// Who may ask, for `check -v`.
    pub fn describe(&self) -> Vec<(String, String)> {
        let who = match self {
            Self::Public(place) => format!("public ({place})"),
            Self::Required(required) => {
                let forwarded = if self.forwards_authorization() {
                    ", the token is passed on"
                } else {
                    ""
                };
                format!(
                    "{} ({}){forwarded}",
                    required.explain(),
                    required.mode.as_str()
                )
            }
        };
        vec![("require".to_owned(), who)]
    }

    /// The mode in which callers are asked who they are; `None` where nobody is.
    pub fn asking_mode(&self) -> Option<Mode> {
        match self {
            Self::Public(_) => None,
            Self::Required(required) => Some(required.mode),
        }
    }

    /// The protected resource that this is part of, if clients are told of it.
    pub fn resource(&self) -> Option<&Arc<Resource>> {
        match self {
            Self::Public(_) => None,
            Self::Required(required) => required.resource.as_ref(),
        }
    }

    /// The issuers whose tokens count here.
    pub fn issuers(&self) -> &[Arc<Issuer>] {
        let Self::Required(required) = self else {
            return &[];
        };
        required
            .means
            .iter()
            .find_map(|means| match means {
                Means::Bearer(bearer) => Some(bearer.issuers.as_slice()),
                Means::Signature(_) | Means::ApiKey(_) | Means::Mtls(_) => None,
            })
            .unwrap_or_default()
    }

    /// What the credential of the request may spend, if it has a quota of its own, and the mode in which that counts.
    pub fn quota(&self, exchange: &Exchange) -> Option<(&Quota, Mode)> {
        let place = exchange.quota_place?;
        let Self::Required(required) = self else {
            return None;
        };
        let quota = required.means.iter().find_map(|means| match means {
            Means::ApiKey(keys) => keys.quota(place),
            Means::Signature(_) | Means::Bearer(_) | Means::Mtls(_) => None,
        });
        quota.map(|quota| (quota, required.mode))
    }

    /// Whether callers must say who they are.
    pub fn asks(&self) -> bool {
        matches!(self, Self::Required(required) if required.mode != Mode::Off)
    }

    /// What proofs of possession may be signed with here, and whether no token counts without one; `None` where none is
    /// taken.
    pub fn proofs(&self) -> Option<(impl Iterator<Item = &str>, bool)> {
        let Self::Required(required) = self else {
            return None;
        };
        let possession = required.means.iter().find_map(Means::possession)?;
        Some((possession.algorithms(), possession.alone))
    }

    /// Whether the backend may see the client's `Authorization`.
    fn forwards_authorization(&self) -> bool {
        match self {
            Self::Public(_) => true,
            Self::Required(required) => !required.concealed.contains(&header::AUTHORIZATION),
        }
    }

    /// Whether a field of this name carries an API key here, and is to be shown to nobody.
    pub fn has_key_in(&self, name: &HeaderName) -> bool {
        let Self::Required(required) = self else {
            return false;
        };
        let mut means = required.means.iter();
        means.any(|means| matches!(means, Means::ApiKey(keys) if keys.header() == name))
    }

    /// Takes out what the backend is not to see.
    pub fn conceal(&self, headers: &mut HeaderMap) {
        if let Self::Required(required) = self {
            for name in &required.concealed {
                headers.remove(name);
            }
            if let Some(name) = &required.key_header {
                if required.concealed.is_empty() {
                    names::strip_twins(headers, name);
                } else {
                    names::strip_alike(headers, name);
                }
            }
        }
    }

    /// The target as the backend sees it: what was judged, but for credentials in the query, by which nothing was decided
    /// but who asks.
    pub fn forwarded(&self, target: &Target) -> PathAndQuery {
        let concealed = match self {
            Self::Required(required) if required.conceals_query => signature::concealed(target),
            Self::Required(_) | Self::Public(_) => None,
        };
        concealed.unwrap_or_else(|| target.path_and_query().clone())
    }

    /// Tells the backend the certificate of the client where the file says so. What a client sends under that name is gone
    /// before.
    pub fn introduce(&self, exchange: &Exchange, headers: &mut HeaderMap) {
        if let Self::Required(required) = self
            && required.forward_certificate
            && let Some(certificate) = exchange.connection.client_certificate()
            && let Some(value) = certificate.header()
        {
            headers.insert(CLIENT_CERT, value);
        }
    }
}

/// Compiles `auth`. `levels` are the tables in which the section may stand.
pub fn compile(levels: &Reader<'_>, books: &Books) -> Authn {
    if !levels.has("auth") {
        levels.error(
            "auth",
            "this route has no word on auth",
            Some("say who may ask: `auth = \"public\"`, or an `auth` table with `require` and `issuers`".into()),
        );
        return Authn::Public("default".into());
    }
    if levels.nearest_scalar("auth").is_some() {
        return Authn::Public(levels.whence("auth"));
    }
    let reader = levels.section("auth");
    let mode: Mode = reader.get("mode").unwrap_or_default();
    if mode != Mode::Enforce {
        reader.relax(
            "mode",
            format!("this weakens the gate: auth is in mode `{}`", mode.as_str()),
        );
    }
    let require: Vec<String> = reader.get("require").unwrap_or_default();
    if require.is_empty() {
        reader.error(
            "require",
            "`auth` says nothing about what identifies the caller",
            Some("add `require = [\"bearer\"]`".into()),
        );
    }
    let place = match mode {
        Mode::Off => reader.whence("mode"),
        Mode::Enforce | Mode::Monitor => reader.stated_at(),
    };
    let key_header = require
        .iter()
        .any(|word| word == "api_key")
        .then(|| api_key::key_header(&reader));
    let means = match mode {
        // Nobody is asked, and the credentials of whoever brings some are still not the backend's to see.
        Mode::Off => Box::default(),
        Mode::Enforce | Mode::Monitor => means(&require, (&reader, key_header.as_ref()), books),
    };
    let possession = means.iter().find_map(Means::possession);
    let concealed = concealed(&require, &reader, (books, possession));
    let signed = require.iter().any(|word| word == "signature") && !concealed.is_empty();
    Authn::Required(Required {
        key_header: key_header.as_ref().map(|header| header.name.clone()),
        concealed,
        conceals_query: signed && signature::may_be_in_query(&reader, books),
        nonces: possession.and_then(Possession::nonces).cloned(),
        forward_certificate: forward_certificate(&reader, books),
        means,
        mode,
        resource: protected_resource::read(&reader),
        place,
    })
}

fn concealed(
    require: &[String],
    reader: &Reader<'_>,
    (books, possession): (&Books, Option<&Possession>),
) -> Vec<HeaderName> {
    if reader.get("forward_token").unwrap_or(false) {
        reader.relax(
            "forward_token",
            "this weakens the gate: the backend sees the caller's credentials",
        );
        return Vec::new();
    }
    let mut fields = vec![header::AUTHORIZATION];
    fields.extend(possession.map(|_| possession::DPOP));
    if require.iter().any(|word| word == "signature") {
        fields.extend(signature::credentials(reader, books));
    }
    fields
}

fn forward_certificate(reader: &Reader<'_>, books: &Books) -> bool {
    let forward = reader.get("forward_certificate").unwrap_or(false);
    if forward && !books.asks_for_certificates {
        reader.error(
            "forward_certificate",
            "the file asks no client for a certificate",
            Some("add `client_ca` to `[tls]`".into()),
        );
    }
    forward
}

/// What `require` names, in the order in which it is looked for.
fn means(
    require: &[String],
    (reader, key_header): (&Reader<'_>, Option<&KeyHeader>),
    books: &Books,
) -> Box<[Means]> {
    let named = |word: &str| require.iter().any(|named| named == word);
    let mut means = Vec::new();
    if named("signature") {
        means.push(Means::Signature(signature::compile(reader, books)));
    }
    if named("bearer") {
        means.push(Means::Bearer(bearer::compile(reader, books)));
    }
    if let Some(header) = key_header {
        means.push(Means::ApiKey(api_key::compile(reader, books, header)));
    }
    if named("mtls") {
        let alone = means.is_empty();
        means.push(Means::Mtls(mtls::compile(reader, books, alone)));
    }
    means.into()
}

/// Finds out who asks.
///
/// # Errors
/// 400 `invalid-request`, 401 `credentials-missing`, and what each means refuses with.
pub async fn admit(policy: &Authn, exchange: &mut Exchange) -> Result<(), Halt> {
    let required = match policy {
        Authn::Required(required) => required,
        Authn::Public(place) => {
            exchange.note(Stage::Authn, || format!("public ({place})"));
            return Ok(());
        }
    };
    exchange.note(Stage::Authn, || required.explain());
    if required.mode == Mode::Off {
        return Ok(());
    }
    let verdict = match required.identify(exchange).await {
        Ok(principal) => {
            exchange.note(Stage::Authn, || {
                format!("`{}` by issuer `{}`", principal.subject, principal.issuer)
            });
            let watched = required.mode == Mode::Monitor;
            if let Some(unspent) = &mut exchange.unspent {
                unspent.watched = watched;
            }
            match &mut exchange.unproven {
                Some(unproven) => {
                    unproven.watched = watched;
                    // Where nothing but the body shows who asks, nobody is known yet.
                    exchange.principal = unproven.caller.is_none().then_some(principal);
                }
                None => exchange.principal = Some(principal),
            }
            Ok(())
        }
        Err(halt) => {
            (exchange.unproven, exchange.unspent) = (None, None);
            // What only watches refuses nobody, and bans nobody either.
            exchange.forged |= required.mode == Mode::Enforce && halt.is_forgery();
            Err(required.announce(halt))
        }
    };
    required.mode.apply(verdict, exchange)
}

/// The response half: callers who need a nonce for their next proof find it in every answer (RFC 9449 §8.2).
pub fn finish(policy: &Authn, answer: &mut Parts) {
    if let Authn::Required(required) = policy
        && let Some(proofs) = &required.nonces
        && let Some((name, value)) = possession::nonce(proofs)
    {
        answer.headers.insert(name, value);
    }
}

impl Required {
    fn explain(&self) -> String {
        if self.mode == Mode::Off {
            return format!("nobody is asked: off ({})", self.place);
        }
        let means: Vec<String> = self.means.iter().map(Means::explain).collect();
        format!("{} ({})", means.join(", or "), self.place)
    }

    /// The refusal with the resource that it guards.
    fn announce(&self, halt: Halt) -> Halt {
        match (halt, &self.resource) {
            (Halt::Refuse(refusal), Some(resource)) => resource.announce(*refusal).into(),
            (halt, _) => halt,
        }
    }

    async fn identify(&self, exchange: &mut Exchange) -> Result<Arc<Principal>, Halt> {
        for (place, means) in self.means.iter().enumerate() {
            let Some(principal) = means.identify(exchange).await? else {
                continue;
            };
            let mut others = self.means.iter().skip(place.saturating_add(1));
            if others.any(|means| means.is_brought(exchange)) {
                return Err(refusal(Reason::InvalidRequest)
                    .detail("credential-in-two-places")
                    .into());
            }
            return Ok(principal);
        }
        let missing = refusal(Reason::CredentialsMissing);
        let challenged = self
            .means
            .iter()
            .fold(missing, |refusal, means| means.challenge(refusal, exchange));
        Err(challenged.into())
    }
}

impl Means {
    fn explain(&self) -> String {
        match self {
            Self::Signature(signature) => signature.explain(),
            Self::Bearer(bearer) => bearer.explain(),
            Self::ApiKey(keys) => keys.explain(),
            Self::Mtls(mtls) => mtls.explain(),
        }
    }

    /// Whether the request itself brings credentials of this kind, good or bad.
    fn is_brought(&self, exchange: &Exchange) -> bool {
        match self {
            Self::Signature(signature) => signature.is_brought(exchange),
            Self::Bearer(bearer) => bearer.is_brought(exchange),
            Self::ApiKey(keys) => keys.is_brought(exchange),
            // The connection has it, whatever is asked on it.
            Self::Mtls(_) => false,
        }
    }

    async fn identify(&self, exchange: &mut Exchange) -> Identified {
        match self {
            Self::Signature(signature) => signature.identify(exchange),
            Self::Bearer(bearer) => bearer.identify(exchange).await,
            Self::ApiKey(keys) => keys.identify(exchange),
            Self::Mtls(mtls) => mtls.identify(exchange),
        }
    }

    /// What a caller who brought nothing is told to bring.
    fn challenge(&self, refusal: Refusal, exchange: &Exchange) -> Refusal {
        match self {
            Self::Signature(signature) => signature.challenge(refusal, exchange),
            Self::Bearer(bearer) => bearer.challenge(refusal, exchange),
            Self::ApiKey(keys) => keys.challenge(refusal, exchange),
            Self::Mtls(_) => refusal,
        }
    }

    /// How callers prove that a credential is their own.
    fn possession(&self) -> Option<&Possession> {
        match self {
            Self::Bearer(bearer) => bearer.possession.as_deref(),
            Self::Signature(_) | Self::ApiKey(_) | Self::Mtls(_) => None,
        }
    }
}

fn refusal(reason: Reason) -> Refusal {
    Refusal::new(Stage::Authn, reason)
}
