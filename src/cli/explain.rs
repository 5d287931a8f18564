//! `portcullis explain`: what the gate would do with a request, stage by stage, without a network and without a gate.
//!
//! It runs the very functions that requests run through; the policies write what decided into the exchange's journal.
//! Limits start full here: those of a running gate are neither asked nor counted down.

mod claims;
mod matrix;
mod report;
mod request;

use std::{net::IpAddr, path::PathBuf, process::ExitCode, sync::Arc};

use clap::Args;
use http::{Response, StatusCode, header, header::HeaderValue, response::Parts};

use super::{BAD_FILE, FileArgs, misused, print, run::color};
use crate::{
    config::{Problem, Severity, load, render},
    crypto::rng::RequestIds,
    exchange::Exchange,
    pipeline::{admit, forward, normalise, respond},
    policy, portal,
    snapshot::{Route, Snapshot, compile::compile, survivors::Survivors},
    wire::halt::{Halt, Reason, Stage},
};
use report::{Report, Sent, Verdict};
use request::Asked;

/// `explain`
#[derive(Clone, Debug, Args)]
pub struct ExplainArgs {
    #[command(flatten)]
    file: FileArgs,
    /// Method of the request
    #[arg(required_unless_present = "matrix", conflicts_with = "matrix")]
    method: Option<String>,
    /// Its URL, such as `https://app.example/api/users/7`
    #[arg(required_unless_present = "matrix")]
    url: Option<String>,
    /// Instead: print as CSV which role may do what on which route
    #[arg(long)]
    matrix: bool,
    /// Compare the matrix with this file, and fail with 1 when anything differs
    #[arg(long, value_name = "FILE", requires = "matrix")]
    expect: Option<PathBuf>,
    /// A header field; may be repeated
    #[arg(short = 'H', long = "header", value_name = "NAME: VALUE")]
    headers: Vec<String>,
    /// Send the token in this file as a bearer token; `-` reads standard input
    #[arg(long, value_name = "FILE")]
    token: Option<PathBuf>,
    /// Show the client certificate in this PEM file, followed by those that belong to its chain
    #[arg(long, value_name = "FILE")]
    certificate: Option<PathBuf>,
    /// Address that the request comes from
    #[arg(long, value_name = "ADDRESS", default_value = "192.0.2.1")]
    from: IpAddr,
}

/// Explains. 0 whatever the gate would answer; 1 for a matrix that is not as expected; 2 for a bad file or a request
/// that cannot be made.
pub fn run(args: &ExplainArgs) -> ExitCode {
    let loaded = load(&args.file.path(), &args.file.set);
    let Some(compiled) = compile(&loaded, &loaded.problems, &Survivors::offline()) else {
        let mut errors = loaded.problems.sorted();
        errors.retain(|problem: &Problem| problem.severity == Severity::Error);
        eprint!("{}", render(&errors, &loaded.sources, color()));
        return ExitCode::from(BAD_FILE);
    };
    if args.matrix {
        return matrix::run(&compiled, args.expect.as_deref());
    }
    let asked = match Asked::new(args) {
        Ok(asked) => asked,
        Err(message) => return misused(&message),
    };
    let runtime = match tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("error: cannot start: {error}");
            return ExitCode::FAILURE;
        }
    };
    let report = runtime.block_on(explain(&compiled.snapshot, &asked));
    eprintln!(
        "note: limits start full here; those of a running gate are neither asked nor counted"
    );
    print(report.to_string().as_bytes())
}

/// Walks the request through the stages.
async fn explain<'a>(snapshot: &'a Snapshot, asked: &'a Asked) -> Report<'a> {
    let mut report = Report::new(asked);
    if let Err(refused) = asked.screen(&snapshot.server.limits) {
        report.verdict = Verdict::Refused(Stage::Wire, refused.reason(), Some(refused.detail()));
        return report;
    }
    let head = match asked.head() {
        Ok(head) => head,
        Err(reason) => {
            report.verdict = Verdict::Refused(Stage::Wire, reason, None);
            return report;
        }
    };
    let (connection, certificate) = asked.connection(snapshot);
    report.certificate = certificate;
    let mut ids = RequestIds::new();
    let ids = (ids.next_id(), ids.next_u64());
    let (mut exchange, normal) = normalise::shape(head, &connection, &snapshot.server, ids);
    exchange.journal = Some(Vec::new());
    let mut met = None;
    let verdict = match normal {
        Ok(()) => {
            report.normal_form(&exchange);
            admit::judge(snapshot, &mut exchange, &mut met).await
        }
        Err(refusal) => Err(refusal.into()),
    };
    let route = met.and_then(|id| snapshot.route(id));
    let answer = match verdict {
        Ok(admitted) => {
            report.verdict = Verdict::Forwarded;
            let masking = &admitted.route().policies.mask_errors;
            masking.explain(&mut exchange);
            let sent = forward::outgoing(admitted.route(), &mut exchange, ());
            report.sent = Some(Sent::new(admitted.route(), sent));
            plain_answer()
        }
        Err(halt) => halted(&mut report, halt, (&exchange, route), asked),
    };
    report.answer = Some(finish(snapshot, route, &mut exchange, answer));
    report.route = route.cloned();
    report.journal = exchange.journal.take().unwrap_or_default();
    report
}

/// What a halt means; a token whose keys are elsewhere leaves the question open.
fn halted(
    report: &mut Report<'_>,
    halt: Halt,
    (exchange, route): (&Exchange, Option<&Arc<Route>>),
    asked: &Asked,
) -> Parts {
    match &halt {
        Halt::Refuse(refusal) if refusal.reason == Reason::KeysUnavailable => {
            report.verdict = Verdict::Unknown("keys that are not on disk");
            report.unverified =
                claims::unverified(route.map(|route| &*route.policies.authn), asked);
            return plain_answer();
        }
        Halt::Refuse(refusal) if refusal.reason == Reason::IntrospectionUnavailable => {
            report.verdict =
                Verdict::Unknown("what the issuer says of the token, who is not asked here");
            return plain_answer();
        }
        Halt::Refuse(refusal) => {
            report.verdict = Verdict::Refused(refusal.stage, refusal.reason, refusal.detail);
        }
        Halt::Reply(reply) => report.verdict = Verdict::Answered(reply.stage),
    }
    respond::plain(halt, exchange).into_parts().0
}

/// The plainest answer that a backend can give.
fn plain_answer() -> Parts {
    let mut answer = Response::new(());
    *answer.status_mut() = StatusCode::OK;
    let kind = HeaderValue::from_static("text/html; charset=utf-8");
    answer.headers_mut().insert(header::CONTENT_TYPE, kind);
    answer.into_parts().0
}

fn finish(
    snapshot: &Snapshot,
    route: Option<&Arc<Route>>,
    exchange: &mut Exchange,
    mut answer: Parts,
) -> Parts {
    let policies = route.map_or(&snapshot.unrouted, |route| &route.policies);
    policy::finish(policies, exchange, &mut answer);
    if exchange.own_page {
        portal::guard(&mut answer.headers);
    }
    answer
}
