//! The gate's own pages, below `/.portcullis` of every https host that it serves, where the file has `[mfa]`.
//!
//! A browser comes here because a route wanted more of it, with the cookie of its session and a sealed way back (`rt`).
//! [`Portal::visit`] is the part that needs no file: which page, from where, in which session. [`Portal::show`] and
//! [`Portal::judge`] read the account and answer. Networks, limits, and reading the body are the pipeline's. A page has no
//! script and no style of its own; what a browser may load for it, [`guard`] says.

mod page;

use std::sync::Arc;

use bytes::Bytes;
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, StatusCode,
    header::{self, CACHE_CONTROL, CONTENT_TYPE},
};

use crate::{
    exchange::{Exchange, principal::Principal},
    identity::{
        second_factor::{Caller, SecondFactor, Verdict},
        session::Shown,
        totp::Code,
    },
    state::{
        clock,
        sessions::{Id, Owner},
    },
    wire::{
        fetch_metadata::{self, Source},
        form,
        halt::{Halt, Reason, Refusal, Reply, Stage},
        own_space,
    },
};

/// The largest form that is read, in bytes.
pub const FORM_BYTES: u64 = 4096;

/// What guards the gate's own pages, in place of whatever the file says for other answers.
const GUARD: &[(&str, &str)] = &[
    (
        "content-security-policy",
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; base-uri 'none'; \
         form-action 'self'; frame-ancestors 'none'",
    ),
    ("x-content-type-options", "nosniff"),
    ("x-frame-options", "DENY"),
    // A form must say where it comes from, and no other host learns the way back.
    ("referrer-policy", "same-origin"),
    (
        "permissions-policy",
        "camera=(), microphone=(), geolocation=(), payment=(), usb=()",
    ),
    ("cross-origin-opener-policy", "same-origin"),
    ("cross-origin-resource-policy", "same-origin"),
    ("cache-control", "no-store"),
];

/// The compiled pages.
#[derive(Debug)]
pub struct Portal {
    factor: Arc<SecondFactor>,
    /// Where `[mfa]` stands, for `explain`.
    place: Box<str>,
}

/// Who has come to the page of the second factor, in a session that lives and with a way back that is its own.
#[derive(Debug)]
pub struct Visitor {
    id: Id,
    caller: Caller,
    /// The way back as it came.
    sealed: String,
    /// Where it leads.
    target: String,
}

/// What is left to do of a visit.
#[derive(Debug)]
pub enum Visit {
    /// Show the page.
    Show(Box<Visitor>),
    /// Read the form, of at most [`FORM_BYTES`], and judge it.
    Judge(Box<Visitor>),
}

/// Sets the headers of the gate's own pages; each stands once afterwards.
pub fn guard(headers: &mut HeaderMap) {
    for (name, value) in GUARD {
        let name = HeaderName::from_static(name);
        headers.insert(name, HeaderValue::from_static(value));
    }
}

impl Portal {
    /// The pages for this factor; `place` is where the file has it.
    pub fn new(factor: Arc<SecondFactor>, place: Box<str>) -> Self {
        Self { factor, place }
    }

    /// What a visit is for, as far as its head tells.
    ///
    /// # Errors
    /// The asset, or the refusal: 404, 405, 400 `form-invalid`, 403 `session-missing` or `csrf`.
    pub fn visit(&self, exchange: &mut Exchange) -> Result<Visit, Halt> {
        exchange.own_page = true;
        exchange.note(Stage::Route, || {
            format!("a page of the gate's own ({})", self.place)
        });
        let reads = matches!(*exchange.method(), Method::GET | Method::HEAD);
        match exchange.target().judged() {
            own_space::STYLE if reads => Err(asset(page::STYLE)),
            own_space::STYLE => Err(only("GET, HEAD")),
            own_space::MFA if reads => Ok(Visit::Show(Box::new(self.visitor(exchange)?))),
            own_space::MFA if *exchange.method() == Method::POST => {
                is_of_this_origin(exchange)?;
                is_form(exchange)?;
                Ok(Visit::Judge(Box::new(self.visitor(exchange)?)))
            }
            own_space::MFA => Err(only("GET, HEAD, POST")),
            _ => Err(Halt::refuse(Stage::Route, Reason::RouteUnknown)),
        }
    }

    /// Who comes, by the cookie; and where to, by the query.
    fn visitor(&self, exchange: &mut Exchange) -> Result<Visitor, Halt> {
        let now = clock::unix_seconds_at(exchange.started);
        let missing = |detail| Refusal::new(Stage::Mfa, Reason::SessionMissing).detail(detail);
        let (id, session) = match self.factor.session.read(exchange.headers(), now) {
            Shown::Live(id, session) => (id, session),
            Shown::Bad => {
                let clearing = self.factor.session.clearing();
                exchange.own_cookie = Some(Box::new(clearing));
                return Err(missing("cookie").into());
            }
            Shown::Nothing => return Err(missing("no-cookie").into()),
        };
        self.factor.session.touch(&id, now);
        let Owner { issuer, subject } = &session.owner;
        // For the access line: nothing of this request is forwarded.
        exchange.principal = Some(Arc::new(Principal::named(subject, Arc::clone(issuer))));
        let query = exchange.target().query().unwrap_or_default();
        let sealed = form::field(query, "rt").map_err(|_| invalid("query"))?;
        let sealed = sealed.ok_or_else(|| missing("no-way-back"))?;
        let target = self.factor.session.open_target(&id, &sealed, now);
        let target = target.ok_or_else(|| missing("way-back"))?;
        let client = exchange.client;
        Ok(Visitor {
            id,
            caller: Caller {
                owner: session.owner,
                client,
            },
            sealed,
            target,
        })
    }

    /// The page, for whoever has something enrolled.
    pub async fn show(&self, visitor: Box<Visitor>) -> Halt {
        let factor = Arc::clone(&self.factor);
        let owner = visitor.caller.owner.clone();
        let enrolled = tokio::task::spawn_blocking(move || factor.is_enrolled(&owner)).await;
        match enrolled {
            Ok(Ok(true)) => shown(page::code_form(&visitor.asked(), None)),
            Ok(Ok(false)) => Halt::refuse(Stage::Mfa, Reason::SecondFactorUnknown),
            Ok(Err(error)) => {
                tracing::error!(%error, "an account of the second factor cannot be used");
                unavailable()
            }
            Err(error) => {
                tracing::error!(%error, "a look at an account was broken off");
                unavailable()
            }
        }
    }

    /// What a form brings: the way back in a session of a new name, or the page once more.
    pub async fn judge(&self, visitor: Box<Visitor>, body: &[u8], exchange: &mut Exchange) -> Halt {
        let code = std::str::from_utf8(body)
            .ok()
            .and_then(|form| form::field(form, "code").ok().flatten());
        let Some(code) = code else {
            return invalid("code");
        };
        let code = Code::parse(&code);
        let (factor, caller) = (Arc::clone(&self.factor), visitor.caller.clone());
        let judged = tokio::task::spawn_blocking(move || factor.check_code(&caller, code)).await;
        let verdict = judged.unwrap_or_else(|error| {
            tracing::error!(%error, "a look at a code was broken off");
            Verdict::Unavailable
        });
        self.answer(verdict, &visitor, exchange)
    }

    /// The answer to a try, however the factor was shown.
    fn answer(&self, verdict: Verdict, visitor: &Visitor, exchange: &mut Exchange) -> Halt {
        match verdict {
            Verdict::Right(proven) => {
                // Not the time at which the request came: other tries may have been before it.
                let now = clock::unix_seconds();
                let Some(field) = self.factor.session.prove(&visitor.id, proven, now) else {
                    let refusal = Refusal::new(Stage::Mfa, Reason::SessionMissing);
                    return refusal.detail("ended-meanwhile").into();
                };
                exchange.own_cookie = Some(Box::new(field));
                back(&visitor.target)
            }
            Verdict::Wrong(detail) => {
                let page = page::code_form(&visitor.asked(), Some(page::WRONG));
                let refusal = Refusal::new(Stage::Mfa, Reason::SecondFactorWrong);
                refusal.detail(detail).page(page).into()
            }
            Verdict::Unenrolled => Halt::refuse(Stage::Mfa, Reason::SecondFactorUnknown),
            Verdict::Limited(left) => {
                let seconds = left.as_secs().saturating_add(1);
                let refusal = Refusal::new(Stage::Mfa, Reason::SecondFactorLimited);
                refusal.with(header::RETRY_AFTER, seconds.into()).into()
            }
            Verdict::Unavailable => unavailable(),
        }
    }
}

impl Visitor {
    fn asked(&self) -> page::Asked<'_> {
        page::Asked {
            subject: &self.caller.owner.subject,
            sealed: &self.sealed,
        }
    }
}

/// A form of another origin's page is not what a person here has sent. A client that is no browser says nothing of origins.
fn is_of_this_origin(exchange: &Exchange) -> Result<(), Halt> {
    let (headers, scheme) = (exchange.headers(), exchange.scheme());
    let sign = match fetch_metadata::source(headers, scheme, exchange.authority()) {
        Source::Own | Source::Person | Source::Unsaid => return Ok(()),
        Source::Foreign(foreign) => foreign.sign.as_str(),
        Source::Ambiguous => "ambiguous",
    };
    let refusal = Refusal::new(Stage::Csrf, Reason::Csrf);
    Err(refusal.detail(sign).into())
}

fn is_form(exchange: &Exchange) -> Result<(), Halt> {
    let kind = exchange.headers().get(CONTENT_TYPE);
    let essence = kind.and_then(|kind| kind.as_bytes().split(|byte| *byte == b';').next());
    let is = essence.is_some_and(|essence| {
        essence
            .trim_ascii()
            .eq_ignore_ascii_case(b"application/x-www-form-urlencoded")
    });
    if is {
        Ok(())
    } else {
        Err(invalid("content-type"))
    }
}

fn invalid(detail: &'static str) -> Halt {
    let refusal = Refusal::new(Stage::Mfa, Reason::FormInvalid);
    refusal.detail(detail).into()
}

fn unavailable() -> Halt {
    let soon = HeaderValue::from_static("30");
    Refusal::new(Stage::Mfa, Reason::SecondFactorUnavailable)
        .with(header::RETRY_AFTER, soon)
        .into()
}

fn only(methods: &'static str) -> Halt {
    let allow = HeaderValue::from_static(methods);
    Refusal::new(Stage::Route, Reason::MethodNotAllowed)
        .with(header::ALLOW, allow)
        .into()
}

fn back(target: &str) -> Halt {
    let Ok(location) = HeaderValue::from_str(target) else {
        return invalid("way-back");
    };
    let headers = HeaderMap::from_iter([(header::LOCATION, location)]);
    reply(StatusCode::SEE_OTHER, headers, Bytes::new())
}

fn shown(page: Bytes) -> Halt {
    let html = HeaderValue::from_static("text/html; charset=utf-8");
    let headers = HeaderMap::from_iter([(CONTENT_TYPE, html)]);
    reply(StatusCode::OK, headers, page)
}

fn asset(text: &'static str) -> Halt {
    let css = HeaderValue::from_static("text/css; charset=utf-8");
    let headers = HeaderMap::from_iter([(CONTENT_TYPE, css)]);
    reply(StatusCode::OK, headers, Bytes::from_static(text.as_bytes()))
}

fn reply(status: StatusCode, mut headers: HeaderMap, body: Bytes) -> Halt {
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Halt::Reply(Box::new(Reply {
        stage: Stage::Mfa,
        status,
        headers,
        body,
    }))
}
