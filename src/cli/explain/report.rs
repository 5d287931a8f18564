//! What `explain` prints: the request in its normal form, each stage's verdict, what goes to the backend, the answer.

use std::{fmt, sync::Arc};

use http::{HeaderMap, Request, header, response::Parts};

use super::request::Asked;
use crate::{
    exchange::{Exchange, Note},
    snapshot::Route,
    wire::halt::{Reason, Stage},
};

/// How the walk ended.
pub(super) enum Verdict {
    /// The backend gets the request.
    Forwarded,
    /// A stage refused, for a reason, with a word for the log.
    Refused(Stage, Reason, Option<&'static str>),
    /// A stage had the answer ready.
    Answered(Stage),
    /// It depends on this, which is not on disk.
    Unknown(&'static str),
}

impl Verdict {
    /// The stage that ended the walk before the backend.
    fn stage(&self) -> Option<Stage> {
        match self {
            Self::Forwarded => None,
            Self::Refused(stage, ..) | Self::Answered(stage) => Some(*stage),
            Self::Unknown(_) => Some(Stage::Authn),
        }
    }
}

/// The request that the backend gets.
pub(super) struct Sent {
    servers: String,
    request: Request<()>,
}

impl Sent {
    /// What goes to the route's upstream.
    pub(super) fn new(route: &Route, request: Request<()>) -> Self {
        let servers: Vec<&str> = route.cluster.endpoints.iter().map(|e| &*e.name).collect();
        Self {
            servers: format!("upstream `{}` ({})", route.cluster.name, servers.join(", ")),
            request,
        }
    }
}

/// Everything there is to say.
pub(super) struct Report<'a> {
    asked: &'a Asked,
    pub(super) certificate: Option<String>,
    normal: Option<String>,
    client: Option<String>,
    pub(super) route: Option<Arc<Route>>,
    pub(super) journal: Vec<Note>,
    pub(super) verdict: Verdict,
    pub(super) unverified: Vec<String>,
    pub(super) sent: Option<Sent>,
    pub(super) answer: Option<Parts>,
}

impl<'a> Report<'a> {
    /// Nothing to say yet.
    pub(super) fn new(asked: &'a Asked) -> Self {
        Self {
            asked,
            certificate: None,
            normal: None,
            client: None,
            route: None,
            journal: Vec::new(),
            verdict: Verdict::Forwarded,
            unverified: Vec::new(),
            sent: None,
            answer: None,
        }
    }

    /// Notes the normal form and the client, before the head is taken apart.
    pub(super) fn normal_form(&mut self, exchange: &Exchange) {
        if exchange.client != self.asked.from {
            self.client = Some(exchange.client.to_string());
        }
        self.normal = Some(format!(
            "{}://{}{}",
            exchange.scheme().as_str(),
            exchange.authority().as_str(),
            exchange.target().path_and_query()
        ));
    }

    fn stage(&self, f: &mut fmt::Formatter<'_>, stage: Stage) -> fmt::Result {
        let ended = self.verdict.stage();
        let mut lines: Vec<String> = self
            .journal
            .iter()
            .filter(|note| note.stage == stage)
            .map(|note| note.verdict.clone())
            .collect();
        if ended == Some(stage) {
            lines.extend(self.end());
        } else if lines.is_empty() {
            lines.push(self.silence(stage, ended).to_owned());
        }
        let mut name = stage.as_str();
        for line in lines {
            // A token may say anything, also to a terminal.
            let line = line.replace(char::is_control, "\u{fffd}");
            writeln!(f, "  {name:<11} {line}")?;
            name = "";
        }
        Ok(())
    }

    /// The words of the stage that ended the walk.
    fn end(&self) -> Vec<String> {
        match &self.verdict {
            Verdict::Forwarded => Vec::new(),
            Verdict::Refused(_, reason, detail) => {
                let detail = detail
                    .map(|detail| format!(" ({detail})"))
                    .unwrap_or_default();
                vec![format!(
                    "refused: {} {}{detail}",
                    reason.status().as_u16(),
                    reason.code()
                )]
            }
            Verdict::Answered(_) => {
                let status = self
                    .answer
                    .as_ref()
                    .map_or(0, |answer| answer.status.as_u16());
                vec![format!("answered: {status}")]
            }
            Verdict::Unknown(_) => {
                let mut lines = self.unverified.clone();
                lines.push("verdict unknown".to_owned());
                lines
            }
        }
    }

    /// What is true of a stage that wrote nothing.
    fn silence(&self, stage: Stage, ended: Option<Stage>) -> &'static str {
        let finishing = matches!(stage, Stage::Headers | Stage::Cookies);
        if ended.is_some_and(|ended| ended < stage) && !finishing {
            return match self.verdict {
                Verdict::Unknown(_) => "unknown: depends on the token",
                _ => "not reached",
            };
        }
        match stage {
            Stage::Wire | Stage::Normalise => "passes",
            Stage::Ban => "nobody is asked, so nobody is banned",
            Stage::RateLimit => "no limit is stated",
            Stage::Quota => "no limit is by principal",
            Stage::Mfa => "no fresh sign-in is asked for",
            Stage::Rbac => "no role or scope is asked for",
            Stage::Forward => "forwarded",
            Stage::Headers | Stage::Cookies => "not applied: refused before there was a request",
            _ => "nothing to say",
        }
    }

    /// Fields without what they carry of credentials.
    fn fields(&self, f: &mut fmt::Formatter<'_>, headers: &HeaderMap) -> fmt::Result {
        let authn = self.route.as_ref().map(|route| &route.policies.authn);
        for (name, value) in headers {
            let text = String::from_utf8_lossy(value.as_bytes());
            let is_key = || authn.is_some_and(|authn| authn.has_key_in(name));
            if name == header::AUTHORIZATION {
                let scheme = text.split(' ').next().unwrap_or_default();
                writeln!(f, "  {name}: {scheme} [redacted]")?;
            } else if value.is_sensitive() || is_key() {
                writeln!(f, "  {name}: [redacted]")?;
            } else {
                writeln!(f, "  {name}: {text}")?;
            }
        }
        Ok(())
    }

    fn outcome(&self) -> String {
        match &self.verdict {
            Verdict::Forwarded => "forwarded".to_owned(),
            Verdict::Refused(_, reason, _) => {
                format!("refused: {} {}", reason.status().as_u16(), reason.code())
            }
            Verdict::Answered(stage) => format!("answered by the gate at stage {}", stage.as_str()),
            Verdict::Unknown(what) => format!("unknown: it depends on {what}"),
        }
    }
}

impl fmt::Display for Report<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let asked = self.asked;
        writeln!(
            f,
            "request      {} {} from {}",
            asked.method, asked.url, asked.from
        )?;
        if let Some(certificate) = &self.certificate {
            writeln!(f, "certificate  {certificate}")?;
        }
        let normal = self.normal.as_deref().unwrap_or("none");
        writeln!(f, "normalised   {normal}")?;
        if let Some(client) = &self.client {
            writeln!(f, "client       {client}, as the trusted proxy says")?;
        }
        if let Some(route) = &self.route {
            writeln!(f, "blueprint    {}", route.facts.blueprint)?;
            writeln!(
                f,
                "route        {} ({})",
                route.facts.route, route.told.place
            )?;
            writeln!(f, "matches      {}", route.told.matches)?;
        }
        writeln!(f, "verdict      {}\n\nstages", self.outcome())?;
        for stage in Stage::ALL {
            self.stage(f, stage)?;
        }
        if let Some(Sent { servers, request }) = &self.sent {
            writeln!(f, "\nrequest to {servers}")?;
            let target = request
                .uri()
                .path_and_query()
                .map_or("/", |target| target.as_str());
            let version = match request.version() {
                http::Version::HTTP_2 => "HTTP/2",
                _ => "HTTP/1.1",
            };
            writeln!(f, "  {} {target} {version}", request.method())?;
            self.fields(f, request.headers())?;
        }
        let Some(answer) = &self.answer else {
            return Ok(());
        };
        f.write_str(match self.verdict {
            Verdict::Forwarded => "\nanswer, if the backend says 200 and nothing else\n",
            Verdict::Unknown(_) => {
                "\nanswer, if the token holds and the backend says 200 and nothing else\n"
            }
            _ => "\nanswer\n",
        })?;
        writeln!(f, "  HTTP/1.1 {}", answer.status)?;
        self.fields(f, &answer.headers)
    }
}
