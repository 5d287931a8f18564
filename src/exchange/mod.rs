//! The one request context: facts only, never the route or the snapshot; those travel beside it.
//!
//! An [`Exchange`] is made from a request in its one normal form. The head is private and has no raw form:
//! policies judge, and the backend gets, these very values. Each stage adds its facts, written once.

use std::{net::IpAddr, sync::Arc, time::Instant};

use http::{HeaderMap, Method, Version, header::HeaderValue};

use crate::wire::{
    forwarded::Client,
    halt::{Reason, Stage},
    hop::Upgrade,
    host::Authority,
    path::Target,
    trailers,
};

pub mod body_check;
pub mod client_certificate;
pub mod connection;
pub mod hints;
pub mod last_token;
pub mod principal;
pub mod trace;

pub use crate::wire::forwarded::Scheme;

use body_check::{Unproven, Unspent};
use connection::Connection;
use principal::Principal;
use trace::TraceContext;

/// The head of a request in its one normal form.
#[derive(Debug)]
pub struct Head {
    /// Method, upper-case.
    pub method: Method,
    /// Host and port that the request is for.
    pub authority: Authority,
    /// Path and query.
    pub target: Target,
    /// Fields, without what a client may not send.
    pub headers: HeaderMap,
    /// Version that the client spoke.
    pub version: Version,
    /// `https` or `http`, as the client sees it.
    pub scheme: Scheme,
    /// The protocol that the request asks to switch to.
    pub upgrade: Option<Upgrade>,
}

/// What the cross-origin stage found.
#[derive(Clone, Debug, Default)]
pub enum CorsFact {
    /// The request names no origin.
    #[default]
    NoOrigin,
    /// The origin is allowed; answers name it.
    Allowed(HeaderValue),
    /// The origin is not on the list.
    NotAllowed,
    /// The answer is the gate's own and for everybody, from whatever origin.
    Anybody,
}

/// The limit that is nearest to refusing, for the `RateLimit` field.
#[derive(Clone, Copy, Debug)]
pub struct Tightest {
    /// Its place among the limits that the request is judged by.
    pub place: usize,
    /// Requests left.
    pub remaining: u32,
    /// Seconds until it is full again.
    pub reset: u64,
}

/// What is left of the quota that came with the credential.
#[derive(Clone, Debug)]
pub struct Allowance {
    /// The member for `RateLimit-Policy`.
    pub policy: HeaderValue,
    /// Requests left.
    pub remaining: u32,
    /// Seconds until it is full again.
    pub reset: u64,
}

/// What the client takes for an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A call of gRPC, which is a POST over HTTP/2; it is answered as such, by the backend and by us.
    Call,
    /// A page that a browser opens, see [`Origin::opens_page`].
    Page,
    /// Anything else.
    Other,
}

impl Kind {
    fn of(head: &Head, opens_page: bool) -> Self {
        let is_call = head.version == Version::HTTP_2
            && head.method == Method::POST
            && trailers::is_grpc(&head.headers);
        match (is_call, opens_page) {
            (true, _) => Self::Call,
            (false, true) => Self::Page,
            (false, false) => Self::Other,
        }
    }
}

/// One request, from its head to the end of its answer.
#[derive(Debug)]
pub struct Exchange {
    head: Head,
    /// The connection that it came on.
    pub connection: Arc<Connection>,
    /// When its head was complete.
    pub started: Instant,
    /// Address of the client, after the trusted-proxy walk.
    pub client: IpAddr,
    /// The way that the client's address came, for the backend.
    pub chain: Client,
    /// Identity of the request, for body, log and backend.
    pub request_id: HeaderValue,
    /// Trace that it belongs to.
    pub trace: TraceContext,
    /// `User-Agent` as sent, for the log.
    pub user_agent: Option<HeaderValue>,
    /// `Accept` as sent, for the form of an answer of our own.
    pub accept: Option<HeaderValue>,
    /// True when the client sent an `Authorization` field.
    pub had_authorization: bool,
    /// What the client takes for an answer.
    pub kind: Kind,
    /// The bucket of the route, once found, for limits that all requests of a route share.
    pub route_bucket: Option<u64>,
    /// The parameters of the path by name, decoded, where a condition of the route reads them.
    pub parameters: Vec<(Box<str>, Box<str>)>,
    /// Who asks, once verified.
    pub principal: Option<Arc<Principal>>,
    /// True when the credentials were forged or guessed, not merely missing or out of date.
    pub forged: bool,
    /// Where the credential stands among those of the route, for those that have a quota.
    pub quota_place: Option<usize>,
    /// What is left of that quota.
    pub allowance: Option<Box<Allowance>>,
    /// It is for a page of the gate's own, which has headers of its own.
    pub own_page: bool,
    /// The field that sets or clears the gate's own cookie with the answer.
    pub own_cookie: Option<Box<HeaderValue>>,
    /// What the body still has to prove, if it has to; no byte of the request goes on before that.
    pub unproven: Option<Box<Unproven>>,
    /// What the request uses up when it goes on.
    pub unspent: Option<Box<Unspent>>,
    /// What the cross-origin stage found.
    pub cors: CorsFact,
    /// The limit nearest to refusing.
    pub tightest: Option<Tightest>,
    /// Buckets of the limits that charge by the status of the answer, by the name of the limit.
    pub to_charge: Vec<(Arc<str>, u64)>,
    /// Policies in monitor mode that would have refused.
    pub would_refuse: Vec<(Stage, Reason)>,
    /// The target as it was sent, of a request that has no normal form: for the access line alone.
    pub refused_target: Option<Box<[u8]>>,
    /// Notes of each stage, kept for `explain` alone.
    pub journal: Option<Vec<Note>>,
}

/// One stage's verdict, as `explain` prints it.
#[derive(Clone, Debug)]
pub struct Note {
    /// The stage.
    pub stage: Stage,
    /// What it found, in words.
    pub verdict: String,
}

impl Exchange {
    /// A request whose head is in normal form.
    pub fn new(head: Head, connection: Arc<Connection>, origin: Origin) -> Box<Self> {
        let user_agent = head.headers.get(http::header::USER_AGENT).cloned();
        let accept = head.headers.get(http::header::ACCEPT).cloned();
        let had_authorization = head.headers.contains_key(http::header::AUTHORIZATION);
        let kind = Kind::of(&head, origin.opens_page);
        Box::new(Self {
            head,
            connection,
            started: origin.started,
            client: origin.client.address,
            chain: origin.client,
            request_id: origin.request_id,
            trace: origin.trace,
            user_agent,
            accept,
            had_authorization,
            kind,
            route_bucket: None,
            parameters: Vec::new(),
            principal: None,
            forged: false,
            quota_place: None,
            allowance: None,
            own_page: false,
            own_cookie: None,
            unproven: None,
            unspent: None,
            cors: CorsFact::NoOrigin,
            tightest: None,
            to_charge: Vec::new(),
            would_refuse: Vec::new(),
            refused_target: None,
            journal: None,
        })
    }

    /// The method.
    pub fn method(&self) -> &Method {
        &self.head.method
    }

    /// The host and port asked for.
    pub fn authority(&self) -> &Authority {
        &self.head.authority
    }

    /// The path and query.
    pub fn target(&self) -> &Target {
        &self.head.target
    }

    /// Case-insensitive backends are judged by the folded path.
    pub fn fold_case(&mut self) {
        self.head.target = self.head.target.fold_case();
    }

    /// The fields that may be judged and forwarded.
    pub fn headers(&self) -> &HeaderMap {
        &self.head.headers
    }

    /// The version that the client spoke.
    pub fn version(&self) -> Version {
        self.head.version
    }

    /// The scheme that the client used.
    pub fn scheme(&self) -> Scheme {
        self.head.scheme
    }

    /// The protocol that it asks to switch to.
    pub fn upgrade(&self) -> Option<Upgrade> {
        self.head.upgrade
    }

    /// Takes the fields out to be forwarded.
    pub fn take_headers(&mut self) -> HeaderMap {
        std::mem::take(&mut self.head.headers)
    }

    /// Writes a line of the journal when `explain` asked for one.
    pub fn note(&mut self, stage: Stage, verdict: impl FnOnce() -> String) {
        if let Some(journal) = &mut self.journal {
            let verdict = verdict();
            journal.push(Note { stage, verdict });
        }
    }
}

/// Where a request comes from and what it is called.
#[derive(Debug)]
pub struct Origin {
    /// When its head was complete.
    pub started: Instant,
    /// The client, as trusted proxies report it.
    pub client: Client,
    /// A browser asks for a page to open, with no proxy between it and us that is known or says so.
    pub opens_page: bool,
    /// Identity of the request.
    pub request_id: HeaderValue,
    /// Trace that it belongs to.
    pub trace: TraceContext,
}
