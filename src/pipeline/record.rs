//! One access line and the counters for each request, written when its answer has ended or was dropped.
//!
//! A [`Recording`] is made with the exchange and travels into the answer's body; whatever happens to the request,
//! dropping the recording writes its line. So a client that leaves, a backend that breaks and a panic all show.

use std::{
    ops::{Deref, DerefMut},
    sync::Arc,
    time::Duration,
};

use http::{Method, StatusCode, header::HeaderValue};

use super::worker::{Held, Worker};
use crate::{
    exchange::Exchange,
    observe::{
        access::{AccessRecord, Decision, UpstreamRecord},
        metrics::Mode,
    },
    snapshot::{Route, RouteFacts, trie::RouteId},
    state::clock,
    upstream::{endpoint::Endpoint, trail::Trail},
    wire::{
        body::BodyProgress,
        halt::{Reason, Stage},
    },
};

/// How an answer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// It went out whole.
    Whole,
    /// The backend's body broke in the middle; the client sees an abort.
    UpstreamBroke,
    /// The backend fell silent in the middle; the client sees an abort.
    UpstreamStalled,
}

/// The record of one request: a handle, since it is moved with the answer at every step.
#[derive(Debug)]
pub struct Recording(Box<Record>);

impl Deref for Recording {
    type Target = Record;

    fn deref(&self) -> &Record {
        &self.0
    }
}

impl DerefMut for Recording {
    fn deref_mut(&mut self) -> &mut Record {
        &mut self.0
    }
}

/// What is known of a request and its answer.
#[derive(Debug)]
pub struct Record {
    /// The facts of the request.
    pub exchange: Box<Exchange>,
    /// The route, once found, by its number in the snapshot.
    pub met: Option<RouteId>,
    /// What was tried upstream.
    pub trail: Trail,
    /// Time from sending to the head of the backend's answer.
    pub upstream_duration: Duration,
    /// The request body, when there was one.
    pub progress: Option<Arc<BodyProgress>>,
    worker: Arc<Worker>,
    /// What stands for the client in the load.
    client: u64,
    /// Until a tunnel is granted, which may outlive many of them.
    snapshot: Option<Arc<Held>>,
    status: Option<StatusCode>,
    decision: Decision,
    cause: Option<Cause>,
    sent: u64,
    /// What a tunnel passed to the backend.
    received: u64,
    granted: Option<Box<Granted>>,
    ended: bool,
}

/// What is kept of a request whose answer is a tunnel.
#[derive(Debug)]
struct Granted {
    /// When: the histogram is of answers, and a tunnel may live for a day.
    after: Duration,
    route: Option<RouteFacts>,
    /// The name of the endpoint, which goes with the snapshot.
    server: Option<Box<str>>,
}

/// Where and why a request did not go its way.
#[derive(Clone, Copy, Debug)]
pub struct Cause {
    /// The stage.
    pub stage: Stage,
    /// The reason; a ready answer such as a preflight has none.
    pub reason: Option<Reason>,
    /// The finer word for the log.
    pub detail: Option<&'static str>,
}

impl Recording {
    /// Begins the record of a request; `client` is what stands for its client in the load.
    pub fn new(
        exchange: Box<Exchange>,
        worker: &Arc<Worker>,
        snapshot: Arc<Held>,
        client: u64,
    ) -> Self {
        worker.load.begin(client);
        Self(Box::new(Record {
            exchange,
            snapshot: Some(snapshot),
            met: None,
            trail: Trail::default(),
            upstream_duration: Duration::ZERO,
            progress: None,
            worker: Arc::clone(worker),
            client,
            status: None,
            decision: Decision::Aborted,
            cause: None,
            sent: 0,
            received: 0,
            granted: None,
            ended: false,
        }))
    }
}

impl Record {
    /// The worker that serves the request.
    pub fn worker(&self) -> &Arc<Worker> {
        &self.worker
    }

    /// What stands for the client in tables.
    pub fn client(&self) -> u64 {
        self.client
    }

    /// The snapshot that the request is judged by, from its first stage to its last.
    ///
    /// # Panics
    /// Once a tunnel is granted: nothing is judged after that.
    pub fn snapshot(&self) -> &Arc<Held> {
        let held = self.snapshot.as_ref();
        held.expect("a request is judged before its tunnel is granted")
    }

    /// The route, once found.
    pub fn route(&self) -> Option<&Route> {
        self.met
            .and_then(|id| self.snapshot.as_ref()?.route(id))
            .map(|route| &**route)
    }

    /// The endpoint of the last try.
    pub fn endpoint(&self) -> Option<&Endpoint> {
        let place = self.trail.endpoint?;
        let endpoint = self.route()?.cluster.endpoints.get(place)?;
        Some(endpoint)
    }

    /// States what became of the request; the line says `aborted` where nobody does.
    pub fn decide(&mut self, decision: Decision, status: StatusCode, cause: Option<Cause>) {
        self.decision = decision;
        self.status = Some(status);
        self.cause = cause;
        // Answers to these have no body on the wire, so nobody will ask for one.
        if *self.exchange.method() == Method::HEAD || status == StatusCode::NOT_MODIFIED {
            self.ended = true;
        }
    }

    /// States another status of the answer than was decided: what goes out.
    pub fn restate(&mut self, status: StatusCode) {
        self.status = Some(status);
    }

    /// Counts bytes of the answer's body.
    pub fn sent(&mut self, bytes: usize) {
        self.sent = self
            .sent
            .saturating_add(u64::try_from(bytes).unwrap_or(u64::MAX));
    }

    /// States how the answer ended. The first word counts.
    pub fn end(&mut self, ending: Ending) {
        if self.ended {
            return;
        }
        self.ended = true;
        let (reason, detail) = match ending {
            Ending::Whole => return,
            Ending::UpstreamBroke => (Reason::UpstreamBroken, "body-cut"),
            Ending::UpstreamStalled => (Reason::UpstreamTimeout, "body-stalled"),
        };
        self.decision = Decision::Failed;
        self.cause = Some(Cause {
            stage: Stage::Forward,
            reason: Some(reason),
            detail: Some(detail),
        });
    }

    /// States that the answer is a tunnel, whose end is still to come. It counts as a connection from here on and no more
    /// as a request, and lets go of the snapshot with all its upstreams.
    pub fn grant(&mut self) {
        if self.granted.is_some() {
            return;
        }
        self.granted = Some(Box::new(Granted {
            after: self.exchange.started.elapsed(),
            route: self.route().map(|route| (*route.facts).clone()),
            server: self.endpoint().map(|endpoint| (*endpoint.name).into()),
        }));
        self.snapshot = None;
        self.worker.load.end(self.client);
    }

    /// The names of the route, and its counters.
    fn facts(&self) -> Option<&RouteFacts> {
        match &self.granted {
            Some(granted) => granted.route.as_ref(),
            None => self.route().map(|route| &*route.facts),
        }
    }

    /// The name of the endpoint of the last try.
    fn server(&self) -> Option<&str> {
        match &self.granted {
            Some(granted) => granted.server.as_deref(),
            None => self.endpoint().map(|endpoint| &*endpoint.name),
        }
    }

    /// States what a tunnel passed, in bytes: to the backend and to the client.
    pub fn passed(&mut self, up: u64, down: u64) {
        (self.received, self.sent) = (up, down);
    }

    /// States that a tunnel was cut, by whom and why.
    pub fn cut(&mut self, decision: Decision, cause: Cause) {
        self.ended = true;
        self.decision = decision;
        self.cause = Some(cause);
    }

    fn write(&mut self) {
        if !self.ended {
            self.decision = Decision::Aborted;
        }
        let duration = self.exchange.started.elapsed();
        self.note_body();
        let granted = self.granted.as_ref();
        self.count(granted.map_or(duration, |granted| granted.after));
        let newest = granted.map(|_| self.worker.snapshot());
        let Some(snapshot) = newest.as_ref().or(self.snapshot.as_ref()) else {
            return;
        };
        self.worker.with_sink(|sink| {
            if sink.is_on() {
                sink.append(&self.line(duration, &snapshot.server.log.redact_query));
            }
        });
    }

    /// A body that a watching limit would have cut.
    fn note_body(&mut self) {
        let over = self
            .progress
            .as_ref()
            .is_some_and(|progress| progress.went_over());
        let note = (Stage::BodyLimit, Reason::BodyTooLarge);
        if over && !self.exchange.would_refuse.contains(&note) {
            self.exchange.would_refuse.push(note);
        }
    }

    fn count(&self, duration: Duration) {
        let metrics = &self.worker.survivors.metrics;
        let status = self.status.map(|status| status.as_u16());
        let method = self.exchange.method();
        let route = self.facts().map(|facts| &*facts.metrics);
        route.unwrap_or_else(|| metrics.unmatched()).record(
            method,
            status,
            self.decision,
            duration,
        );
        if let Some(Cause {
            stage,
            reason: Some(reason),
            ..
        }) = self.cause
        {
            metrics.refusal(stage, reason, Mode::Enforce);
        }
        for (stage, reason) in &self.exchange.would_refuse {
            metrics.refusal(*stage, *reason, Mode::Monitor);
        }
    }

    fn line<'a>(&'a self, duration: Duration, redact_query: &'a [String]) -> AccessRecord<'a> {
        let exchange = &*self.exchange;
        let facts = self.facts();
        let (path, query) = match &exchange.refused_target {
            Some(target) => split_target(target),
            None => (
                exchange.target().path().as_bytes(),
                exchange.target().query().map(str::as_bytes),
            ),
        };
        let text = |value: &'a HeaderValue| value.to_str().ok();
        AccessRecord {
            timestamp: clock::wall_at(exchange.started),
            method: exchange.method(),
            scheme: exchange.scheme().as_str(),
            server_address: exchange
                .refused_target
                .is_none()
                .then(|| exchange.authority().host()),
            path,
            query,
            redact_query,
            route: facts.map(|facts| &*facts.pattern),
            status: self.status.map(|status| status.as_u16()),
            request_size: self
                .progress
                .as_ref()
                .map_or(self.received, |progress| progress.bytes()),
            response_size: self.sent,
            version: exchange.version(),
            tls_version: exchange.connection.tls.as_ref().map(|tls| tls.version),
            client: Some(exchange.client),
            peer: Some(exchange.connection.peer.ip()),
            user_agent: exchange.user_agent.as_ref().map(HeaderValue::as_bytes),
            enduser: exchange
                .principal
                .as_ref()
                .map(|principal| &*principal.subject),
            trace_id: Some(exchange.trace.trace_id()),
            span_id: Some(exchange.trace.span_id()),
            request_id: text(&exchange.request_id),
            duration,
            upstream: self.server().map(|address| UpstreamRecord {
                address,
                duration: self.upstream_duration,
                attempts: self.trail.attempts,
            }),
            blueprint: facts.map(|facts| &*facts.blueprint),
            decision: self.decision,
            stage: self.cause.map(|cause| cause.stage),
            reason: self.cause.and_then(|cause| cause.reason),
            detail: self.cause.and_then(|cause| cause.detail),
            would_refuse: &exchange.would_refuse,
        }
    }
}

fn split_target(target: &[u8]) -> (&[u8], Option<&[u8]>) {
    match memchr::memchr(b'?', target) {
        Some(at) => (&target[..at], target.get(at + 1..)),
        None => (target, None),
    }
}

impl Drop for Recording {
    fn drop(&mut self) {
        if self.granted.is_none() {
            self.worker.load.end(self.client);
        }
        self.write();
    }
}
