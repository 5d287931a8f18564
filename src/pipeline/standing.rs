//! Whether whoever opened a tunnel may still have it, asked again with every reload. For `tunnel`.
//!
//! A request is judged when it comes; a tunnel goes on after that, and the operator may have withdrawn what it was opened
//! with: the client's certificate by a list or by its authority, the token by the list of its issuer. What ends by time is
//! not looked at here, since `tunnel_age` is for that.

use std::{future::pending, time::Instant};

use super::{
    admit::{reason_of, still_holds},
    record::{Cause, Record},
};
use crate::{
    exchange::client_certificate::Distrust,
    wire::halt::{Reason, Stage},
};

/// Resolves when what the request of this record came with was withdrawn.
pub(super) async fn withdrawn(record: &Record) -> Cause {
    let exchange = &record.exchange;
    if exchange.principal.is_none() && exchange.connection.client_certificate().is_none() {
        return pending().await;
    }
    // Before the first look: what is reloaded after it is told.
    let mut reloads = record.worker().survivors.reloads.subscribe();
    loop {
        if let Some(cause) = withdrawn_now(record) {
            return cause;
        }
        if reloads.changed().await.is_err() {
            return pending().await;
        }
    }
}

fn withdrawn_now(record: &Record) -> Option<Cause> {
    let cause = |reason, detail| Cause {
        stage: Stage::Authn,
        reason: Some(reason),
        detail: Some(detail),
    };
    let (exchange, worker) = (&record.exchange, record.worker());
    if let Some(certificate) = exchange.connection.client_certificate() {
        let held = still_holds(&worker.snapshot(), certificate, Instant::now());
        if let Err(why @ (Distrust::Revoked | Distrust::Untrusted)) = held {
            let (reason, detail) = reason_of(why);
            return Some(cause(reason, detail));
        }
    }
    let principal = exchange.principal.as_deref()?;
    let issuers = worker.survivors.issuers.list();
    let mut issuers = issuers.iter();
    let issuer = issuers.find(|issuer| issuer.rules().name == principal.issuer)?;
    issuer
        .has_revoked(principal)
        .then(|| cause(Reason::TokenInvalid, "revoked"))
}
