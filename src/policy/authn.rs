//! Who is asking: `auth = "public"`, or `[….auth] require = ["bearer"]` with the issuers that count.
//!
//! Challenges follow RFC 6750 §3: no `error` when no credential came, and the same `invalid_token` whatever check
//! failed; the access line has the finer code. A token is never passed on unless `forward_token` says so.

use std::{collections::BTreeMap, sync::Arc};

use http::header;

use super::{challenge::challenge, mode::Mode, rbac};
use crate::{
    config::{Key, Kind, OneOrMany, Reader, Section},
    exchange::Exchange,
    identity::{
        bearer::{self, CredentialError, TokenError},
        issuer::Issuer,
    },
    state::clock,
    wire::halt::{Halt, Reason, Refusal, Stage},
};

/// `[….auth]`
pub static SECTION: Section = Section {
    name: "auth",
    doc: "who may ask; must be stated for every route, as a table or as \"public\"",
    keys: &[
        Key::new(
            "require",
            Kind::List(&Kind::Choice(&["bearer"])),
            "any of these identifies the caller",
            "",
        ),
        Key::new(
            "issuers",
            Kind::OneOrMany(&Kind::String),
            "names of [issuers.NAME] whose tokens count",
            "",
        ),
        Key::new(
            "forward_token",
            Kind::Bool,
            "pass the Authorization header on to the backend",
            "false",
        ),
        Key::new(
            "roles",
            Kind::Table(&rbac::RULES),
            "roles that the caller needs",
            "",
        ),
        Key::new(
            "scopes",
            Kind::Table(&rbac::RULES),
            "scopes that the token needs",
            "",
        ),
        Key::new(
            "mode",
            Kind::Choice(Mode::WORDS),
            "enforce, monitor or off",
            "\"enforce\"",
        ),
    ],
};

/// What the key `auth` takes.
pub const KIND: Kind = Kind::Either(&[Kind::Choice(&["public"]), Kind::Table(&SECTION)]);

/// The issuers of the file; `None` marks one whose own section has errors.
pub type IssuerBook = BTreeMap<String, Option<Arc<Issuer>>>;

/// The compiled policy.
#[derive(Debug)]
pub enum Authn {
    /// Anybody; with the place that says so, for `explain`.
    Public(Box<str>),
    /// Callers with a bearer token.
    Bearer(Bearer),
}

/// Bearer tokens (RFC 6750).
#[derive(Debug)]
pub struct Bearer {
    issuers: Vec<Arc<Issuer>>,
    /// Pass `Authorization` on.
    pub forward_token: bool,
    mode: Mode,
    /// Where the section stands, for `explain`.
    place: Box<str>,
}

impl Authn {
    /// Who may ask, for `check -v`.
    pub fn describe(&self) -> Vec<(String, String)> {
        let who = match self {
            Self::Public(place) => format!("public ({place})"),
            Self::Bearer(bearer) => {
                let forwarded = if bearer.forward_token {
                    ", the token is passed on"
                } else {
                    ""
                };
                format!("{} ({}){forwarded}", bearer.explain(), bearer.mode.as_str())
            }
        };
        vec![("require".to_owned(), who)]
    }

    /// The issuers whose tokens count here.
    pub fn issuers(&self) -> &[Arc<Issuer>] {
        match self {
            Self::Public(_) => &[],
            Self::Bearer(bearer) => &bearer.issuers,
        }
    }

    /// Whether the backend may see the client's `Authorization`.
    pub fn forwards_authorization(&self) -> bool {
        match self {
            Self::Public(_) => true,
            Self::Bearer(bearer) => bearer.forward_token,
        }
    }
}

/// Compiles `auth`. `levels` are the tables in which the section may stand.
pub fn compile(levels: &Reader<'_>, issuers: &IssuerBook) -> Authn {
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
    let forward_token = reader.get("forward_token").unwrap_or(false);
    if forward_token {
        reader.relax(
            "forward_token",
            "this weakens the gate: the backend sees the caller's token",
        );
    }
    if mode == Mode::Off {
        // Nobody is asked, and the token of whoever brings one is still not the backend's to see.
        return Authn::Bearer(Bearer {
            issuers: Vec::new(),
            forward_token,
            mode,
            place: reader.whence("mode"),
        });
    }
    Authn::Bearer(Bearer {
        issuers: named_issuers(&reader, issuers),
        forward_token,
        mode,
        place: reader.stated_at(),
    })
}

fn named_issuers(reader: &Reader<'_>, issuers: &IssuerBook) -> Vec<Arc<Issuer>> {
    let names = reader
        .get::<OneOrMany<String>>("issuers")
        .map(|names| names.0)
        .unwrap_or_default();
    if names.is_empty() {
        reader.error(
            "issuers",
            "no issuer is named, so no token could pass",
            Some("add `issuers = [\"NAME\"]`".into()),
        );
    }
    let mut found = Vec::new();
    for name in &names {
        match issuers.get(name) {
            Some(issuer) => found.extend(issuer.clone()),
            None => reader.error(
                "issuers",
                format!("there is no issuer `{name}`"),
                Some(known(issuers)),
            ),
        }
    }
    found
}

fn known(issuers: &IssuerBook) -> String {
    let names: Vec<String> = issuers.keys().map(|name| format!("`{name}`")).collect();
    if names.is_empty() {
        "add a section `[issuers.NAME]`".to_owned()
    } else {
        format!("the file has {}", names.join(", "))
    }
}

/// Finds out who asks.
///
/// # Errors
/// 400 `invalid-request`, 401 `credentials-missing` or `token-invalid`, 503 `keys-unavailable`.
pub async fn admit(policy: &Authn, exchange: &mut Exchange) -> Result<(), Halt> {
    let bearer = match policy {
        Authn::Bearer(bearer) => bearer,
        Authn::Public(place) => {
            exchange.note(Stage::Authn, || format!("public ({place})"));
            return Ok(());
        }
    };
    exchange.note(Stage::Authn, || bearer.explain());
    if bearer.mode == Mode::Off {
        return Ok(());
    }
    let verdict = identify(bearer, exchange).await;
    bearer.mode.apply(verdict, exchange)
}

impl Bearer {
    fn explain(&self) -> String {
        if self.mode == Mode::Off {
            return format!("nobody is asked: off ({})", self.place);
        }
        let names: Vec<String> = self
            .issuers
            .iter()
            .map(|issuer| format!("`{}`", issuer.rules().name))
            .collect();
        format!("bearer token of {} ({})", names.join(" or "), self.place)
    }
}

/// 400: the credentials cannot be read without guessing.
fn unclear(exchange: &Exchange, error: CredentialError) -> Halt {
    let refusal = refusal(Reason::InvalidRequest).detail(error.code());
    challenge(refusal, exchange, ", error=\"invalid_request\"").into()
}

async fn identify(bearer: &Bearer, exchange: &mut Exchange) -> Result<(), Halt> {
    let now = clock::unix_seconds_at(exchange.started);
    let token = match bearer::presented(exchange.headers(), exchange.target().query()) {
        Ok(Some(token)) => token,
        Ok(None) => return Err(challenge(refusal(Reason::CredentialsMissing), exchange, "").into()),
        Err(error) => return Err(unclear(exchange, error)),
    };
    let verdict = match bearer::recall(token, &exchange.connection.last_token, &bearer.issuers, now)
    {
        Some(principal) => Ok(principal),
        None => match bearer::well_formed(token) {
            // Rare, and its future is large: it may wait for a key set.
            Ok(token) => Box::pin(bearer::verify(token, &bearer.issuers, now)).await,
            Err(error) => return Err(unclear(exchange, error)),
        },
    };
    match verdict {
        Ok(principal) => {
            exchange.note(Stage::Authn, || {
                format!("`{}` by issuer `{}`", principal.subject, principal.issuer)
            });
            exchange.principal = Some(principal);
            Ok(())
        }
        Err(TokenError::KeysUnavailable { retry_after }) => Err(refusal(Reason::KeysUnavailable)
            .with(header::RETRY_AFTER, retry_after.as_secs().max(1).into())
            .into()),
        Err(error) => {
            let refusal = refusal(Reason::TokenInvalid).detail(error.code());
            Err(challenge(refusal, exchange, ", error=\"invalid_token\"").into())
        }
    }
}

fn refusal(reason: Reason) -> Refusal {
    Refusal::new(Stage::Authn, reason)
}
