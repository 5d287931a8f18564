//! A request for one of the gate's own pages: its body within bounds, and the answer of [`crate::portal`].

use bytes::Bytes;
use http::{HeaderMap, StatusCode, header};

use super::{normalise::Arrival, record::Record};
use crate::{
    exchange::Exchange,
    portal::{Portal, Visit},
    wire::{
        body::{BodyBounds, ClientBody, Metered},
        halt::{Halt, Reason, Refusal, Reply, Stage},
    },
};

/// The answer of the page. The stages before the route have passed.
pub async fn answer(portal: &Portal, record: &mut Record, arrival: &mut Arrival) -> Halt {
    let visit = match portal.visit(&mut record.exchange) {
        Ok(visit) => visit,
        Err(halt) => return halt,
    };
    match visit {
        Visit::Show(visitor) => portal.show(visitor).await,
        Visit::Judge(visitor) => match form(record, arrival, portal.form_bytes()).await {
            Ok(form) => portal.judge(visitor, &form, &mut record.exchange).await,
            Err(halt) => halt,
        },
    }
}

/// The same for `explain`, where no account is looked at.
pub fn foretell(portal: &Portal, exchange: &mut Exchange) -> Halt {
    match portal.visit(exchange) {
        Err(halt) => halt,
        Ok(_) => Halt::Reply(Box::new(Reply {
            stage: Stage::Mfa,
            status: StatusCode::OK,
            headers: HeaderMap::new(),
            body: Bytes::new(),
        })),
    }
}

/// The whole form, of at most so many bytes.
async fn form(record: &mut Record, arrival: &mut Arrival, most: u64) -> Result<Vec<u8>, Halt> {
    let headers = record.exchange.headers();
    let length = headers.get(header::CONTENT_LENGTH);
    let length = length.and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    if length.is_some_and(|length| length > most) {
        return Err(too_large());
    }
    let Some(incoming) = arrival.body.take() else {
        return Ok(Vec::new());
    };
    let bounds = BodyBounds {
        bytes: most,
        watched_bytes: u64::MAX,
        call: None,
        ..record.snapshot().server.limits.body
    };
    let (body, progress) = ClientBody::new(incoming, bounds);
    record.progress = progress;
    let ClientBody::Stream(mut metered) = body else {
        return Ok(Vec::new());
    };
    match read(&mut metered, most).await {
        Ok(form) => Ok(form),
        Err(halt) => {
            // What is still to come is read off, so that the client gets the answer.
            arrival.body = Some(metered.into_inner());
            Err(halt)
        }
    }
}

async fn read(metered: &mut Metered, most: u64) -> Result<Vec<u8>, Halt> {
    let mut form = Vec::new();
    while let Some(piece) = metered.piece().await {
        let piece = piece.map_err(|cut| Halt::refuse(Stage::BodyLimit, cut.0))?;
        form.extend_from_slice(&piece);
        if u64::try_from(form.len()).unwrap_or(u64::MAX) > most {
            return Err(too_large());
        }
    }
    Ok(form)
}

fn too_large() -> Halt {
    let refusal = Refusal::new(Stage::BodyLimit, Reason::BodyTooLarge);
    refusal.detail("form").into()
}
