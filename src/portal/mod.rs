//! The gate's own pages, below `/.portcullis` of every https host that it serves, where the file has `[mfa]`.
//!
//! A browser comes here because a route wanted more of it, with the cookie of its session and a sealed way back (`rt`).
//! [`Portal::visit`] is the part that needs no file: which page, from where, in which session. [`Portal::show`] and
//! [`Portal::judge`] read the account and answer, `enrol` where something is enrolled. Networks, limits, and reading the body
//! are the pipeline's. A page has no script and no style in itself; what a browser may load for it, [`guard`] says.

mod answers;
mod enrol;
mod fields;
mod page;
mod source;

use std::sync::Arc;

use http::{HeaderMap, HeaderName, HeaderValue, Method, header};

use self::{
    answers::{asset, back, ended, invalid, only, shown, unavailable, wrong_with},
    source::{is_for_window, is_form, is_of_this_origin, origin_of},
};
use crate::{
    exchange::{Exchange, principal::Principal},
    identity::{
        account::{self, AccountError},
        second_factor::{Caller, Enrolled, SecondFactor, Verdict, adds},
        session::Shown,
        totp::Code,
        webauthn::Assertion,
    },
    state::{
        clock,
        sessions::{Factor, Id, Owner},
    },
    wire::{
        form,
        halt::{Halt, Reason, Refusal, Stage},
        own_space,
    },
};

/// The largest form that is read, in bytes.
const FORM_BYTES: u64 = 4096;
/// The same where passkeys count: an authenticator may send an id and a statement of its own length.
const PASSKEY_FORM_BYTES: u64 = 64 * 1024;

/// What guards the gate's own pages, in place of whatever the file says for other answers.
const GUARD: &[(&str, &str)] = &[
    // The form leads back to the backend, which may send the browser on to another origin: to browsers that is a part of the
    // form's way. No form but the gate's own can stand in a page whose every value is escaped.
    (
        "content-security-policy",
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; base-uri 'none'; \
         form-action 'self' https:; frame-ancestors 'none'",
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

/// What speaks with authenticators.
const SCRIPT: &str = include_str!("mfa.js");

/// The compiled pages.
#[derive(Debug)]
pub struct Portal {
    factor: Arc<SecondFactor>,
    /// Where `[mfa]` stands, for `explain`.
    place: Box<str>,
}

/// Which page is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Page {
    /// That of the second factor.
    Factor,
    /// That on which one is enrolled.
    Enrol,
}

/// Who has come to a page, in a session that lives and with a way back that is its own.
#[derive(Debug)]
pub struct Visitor {
    page: Page,
    id: Id,
    caller: Caller,
    /// The origin of the page, as browsers write it.
    origin: String,
    /// The passkey that was shown lately in the session, in order to enrol one more.
    fresh: Option<Factor>,
    /// The way back, sealed just now.
    sealed: String,
    /// Whether a code would not do where it leads.
    wants_passkey: bool,
    /// Where it leads.
    target: String,
}

/// What is left to do of a visit.
#[derive(Debug)]
pub enum Visit {
    /// Show the page.
    Show(Box<Visitor>),
    /// Read the form, of at most [`Portal::form_bytes`], and judge it.
    Judge(Box<Visitor>),
}

/// Sets the headers of the gate's own pages; each stands once afterwards. No other origin reads them, whatever the file says.
pub fn guard(headers: &mut HeaderMap) {
    let is_opening = |name: &&HeaderName| name.as_str().starts_with("access-control-");
    let opening: Vec<HeaderName> = headers.keys().filter(is_opening).cloned().collect();
    for name in opening {
        headers.remove(name);
    }
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

    /// Tells the log why nobody can show a factor, where that is so.
    pub fn tell_of_trouble(&self) {
        let folder = self.factor.accounts.folder();
        if let Some((why, hint)) = account::trouble_with(folder) {
            let folder = folder.display();
            tracing::warn!(%folder, why, hint, "the second factor does not work");
        }
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
        let page = match exchange.target().judged() {
            own_space::STYLE if reads => return Err(asset("text/css; charset=utf-8", page::STYLE)),
            own_space::SCRIPT if reads => {
                return Err(asset("text/javascript; charset=utf-8", SCRIPT));
            }
            own_space::STYLE | own_space::SCRIPT => return Err(only("GET, HEAD")),
            own_space::MFA => Page::Factor,
            own_space::ENROL => Page::Enrol,
            _ => return Err(Halt::refuse(Stage::Route, Reason::RouteUnknown)),
        };
        is_for_window(exchange)?;
        if reads {
            return Ok(Visit::Show(Box::new(self.visitor(page, exchange)?)));
        }
        if *exchange.method() != Method::POST {
            return Err(only("GET, HEAD, POST"));
        }
        is_of_this_origin(exchange)?;
        is_form(exchange)?;
        Ok(Visit::Judge(Box::new(self.visitor(page, exchange)?)))
    }

    /// The largest form that is read, in bytes.
    pub fn form_bytes(&self) -> u64 {
        if self.factor.party().is_some() {
            PASSKEY_FORM_BYTES
        } else {
            FORM_BYTES
        }
    }

    /// Who comes, by the cookie; and where to, by the query.
    fn visitor(&self, page: Page, exchange: &mut Exchange) -> Result<Visitor, Halt> {
        let now = clock::unix_seconds_at(exchange.started);
        let missing = |detail| Refusal::new(Stage::Mfa, Reason::SessionMissing).detail(detail);
        let (id, session) = match self.factor.session.read(exchange.headers(), now) {
            Shown::Live(id, session) => (id, session),
            Shown::Bad => {
                let clearing = self.factor.session.clearing();
                exchange.own_cookie = Some(Box::new(clearing));
                return Err(missing("cookie").into());
            }
            Shown::Renamed => return Err(missing("renamed").into()),
            Shown::Nothing => return Err(missing("no-cookie").into()),
        };
        let Owner { issuer, subject } = &session.owner;
        // For the access line: nothing of this request is forwarded.
        exchange.principal = Some(Arc::new(Principal::named(subject, Arc::clone(issuer))));
        let query = exchange.target().query().unwrap_or_default();
        let sealed = form::field(query, "rt").map_err(|_| invalid("query"))?;
        let brought = sealed.is_some();
        let sealed = match sealed {
            Some(sealed) => sealed,
            // Whoever enrols one factor more has not come from anywhere.
            None if page == Page::Enrol => {
                self.factor.session.seal_target(&id, own_space::ENROL, now)
            }
            None => return Err(missing("no-way-back").into()),
        };
        let target = self.factor.session.open_target(&id, &sealed, now);
        let target = target.ok_or_else(|| missing("way-back"))?;
        let want = form::field(query, "want").map_err(|_| invalid("query"))?;
        // So that whoever reads the page for long, or has an app to install, does not come too late.
        let sealed = self.factor.session.seal_target(&id, &target, now);
        // The cookie alone keeps nothing alive: only whoever was sent here just now has a way back.
        if brought && session.factor.is_none() {
            self.factor.session.touch(&id, now);
        }
        let shown = session.factor;
        let client = exchange.client;
        Ok(Visitor {
            page,
            id,
            origin: origin_of(exchange),
            fresh: shown.filter(|shown| adds(shown, now)),
            caller: Caller {
                owner: session.owner,
                client,
                session: id,
            },
            sealed,
            wants_passkey: want.as_deref() == Some(own_space::PASSKEY),
            target,
        })
    }

    /// The page.
    pub async fn show(&self, visitor: Box<Visitor>) -> Halt {
        let page = match visitor.page {
            Page::Factor => self.factor_page(&visitor, None).await,
            Page::Enrol => self.enrol_page(&visitor).await,
        };
        page.unwrap_or_else(|halt| halt)
    }

    /// The page that asks for what the account has; an account that has nothing is asked for an invitation.
    async fn factor_page(
        &self,
        visitor: &Visitor,
        wrong: Option<(&'static str, &'static str)>,
    ) -> Result<Halt, Halt> {
        let enrolled = self.enrolled(visitor).await?;
        let asked = visitor.asked();
        let ceremony = if enrolled.passkeys.is_empty() {
            None
        } else {
            self.ceremony(visitor, &enrolled)?
        };
        let app = enrolled.app && !visitor.wants_passkey;
        if !app && ceremony.is_none() {
            return Err(nothing_fits(&enrolled, &asked));
        }
        let message = wrong.map(|(_, message)| message);
        let page = page::factor(&asked, message, (app, ceremony.as_ref()));
        Ok(match wrong {
            None => shown(page),
            Some((detail, _)) => wrong_with(detail, page),
        })
    }

    /// What the account has.
    async fn enrolled(&self, visitor: &Visitor) -> Result<Enrolled, Halt> {
        let (factor, owner) = (Arc::clone(&self.factor), visitor.caller.owner.clone());
        let enrolled = blocking(move || factor.enrolled(&owner)).await?;
        enrolled.map_err(|error: AccountError| {
            tracing::error!(%error, "an account of the second factor cannot be used");
            unavailable()
        })
    }

    /// What an authenticator is asked next, where passkeys count for the origin of the page.
    fn ceremony<'a>(
        &'a self,
        visitor: &Visitor,
        enrolled: &'a Enrolled,
    ) -> Result<Option<page::Ceremony<'a>>, Halt> {
        let party = self.factor.party();
        let Some(party) = party.filter(|party| party.has_origin(&visitor.origin)) else {
            return Ok(None);
        };
        let asked = self.factor.session.ask(&visitor.id, clock::unix_seconds());
        Ok(Some(page::Ceremony {
            party,
            challenge: asked.ok_or_else(ended)?,
            passkeys: &enrolled.passkeys,
            new: None,
        }))
    }

    /// What a form brings: the way back in a session of a new name, or the page once more.
    pub async fn judge(&self, visitor: Box<Visitor>, body: &[u8], exchange: &mut Exchange) -> Halt {
        let answer = match (visitor.page, std::str::from_utf8(body)) {
            (_, Err(_)) => Err(invalid("form")),
            (Page::Enrol, Ok(form)) => self.judge_enrolment(&visitor, form, exchange).await,
            (Page::Factor, Ok(form)) => self.judge_factor(&visitor, form, exchange).await,
        };
        answer.unwrap_or_else(|halt| halt)
    }

    async fn judge_factor(
        &self,
        visitor: &Visitor,
        form: &str,
        exchange: &mut Exchange,
    ) -> Result<Halt, Halt> {
        let (factor, caller) = (Arc::clone(&self.factor), visitor.caller.clone());
        let (verdict, message) = if let Some(shown) = fields::Shown::read(form)? {
            // Whatever comes of it: a challenge counts once.
            let now = clock::unix_seconds();
            let session = &self.factor.session;
            let challenge = session.take_asked(&visitor.id, &shown.client, now);
            let look = move || {
                let answer = Assertion {
                    credential: &shown.credential,
                    client_data: &shown.client,
                    authenticator_data: &shown.data,
                    signature: &shown.signature,
                };
                factor.check_passkey(&caller, challenge, &answer)
            };
            (blocking(look).await?, page::WRONG_PASSKEY)
        } else {
            let code = Code::parse(&fields::needed(form, "code")?);
            let look = move || factor.check_code(&caller, code);
            (blocking(look).await?, page::WRONG)
        };
        match verdict {
            Verdict::Wrong(detail) => self.factor_page(visitor, Some((detail, message))).await,
            verdict => Ok(self.answer(verdict, visitor, exchange)),
        }
    }

    /// The answer to a try, however the factor was shown.
    fn answer(&self, verdict: Verdict, visitor: &Visitor, exchange: &mut Exchange) -> Halt {
        match verdict {
            Verdict::Right(proven) => {
                // Not the time at which the request came: other tries may have been before it.
                let now = clock::unix_seconds();
                let proven = Factor {
                    enrols: visitor.target == own_space::ENROL,
                    ..proven
                };
                let Some(field) = self.factor.session.prove(&visitor.id, proven, now) else {
                    return ended();
                };
                exchange.own_cookie = Some(Box::new(field));
                back(&visitor.target)
            }
            Verdict::Enrolled => back(&visitor.target),
            Verdict::Wrong(detail) => {
                let refusal = Refusal::new(Stage::Mfa, Reason::SecondFactorWrong);
                refusal.detail(detail).into()
            }
            Verdict::Repeated => {
                let refusal = Refusal::new(Stage::Mfa, Reason::SessionMissing);
                refusal.detail("repeated").into()
            }
            Verdict::Unenrolled | Verdict::Invited => {
                Halt::refuse(Stage::Mfa, Reason::SecondFactorUnknown)
            }
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
            wants_passkey: self.wants_passkey,
        }
    }
}

/// The account has nothing that could be shown on this page.
fn nothing_fits(enrolled: &Enrolled, asked: &page::Asked<'_>) -> Halt {
    let refusal = Refusal::new(Stage::Mfa, Reason::SecondFactorUnknown);
    let invite = |why| page::invitation(asked, (why, None));
    match (enrolled.passkeys.is_empty(), enrolled.app) {
        (true, false) => refusal.page(invite(page::NONE_YET)).into(),
        (true, true) => {
            let page = invite(page::APP_ALONE);
            refusal.detail("passkey-wanted").page(page).into()
        }
        // Enrolled for other origins than this one.
        (false, _) => refusal.detail("other-origin").into(),
    }
}

/// Runs what reads and writes files away from the threads that serve.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Halt> {
    tokio::task::spawn_blocking(work).await.map_err(|error| {
        tracing::error!(%error, "a look at an account was broken off");
        unavailable()
    })
}
