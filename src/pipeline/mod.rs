//! The life of a request.
//!
//! 1. [`normalise`]: the one valid form of host, path and headers, or a refusal;
//! 2. [`admit`]: the route, then the policies in the order of [`policy::admit`](crate::policy::admit);
//!    [`proof`], where only the body shows who asks, or that it is what was signed;
//!    [`own_pages`], where the gate itself is asked;
//! 3. [`forward`]: the only door to the network, open to an [`Admitted`](admit::Admitted) request alone;
//! 4. [`respond`]: the answer, with the response halves of the policies, whatever it is;
//! 5. [`record`]: one access line and the counters, when the body has ended or was dropped.
//!
//! Data flows one way; the only way back is a [`Halt`](crate::wire::halt::Halt).

pub mod admit;
pub mod body;
pub mod forward;
mod hints;
pub mod linger;
pub mod mask;
pub mod normalise;
pub mod own_pages;
pub mod problem;
pub mod proof;
pub mod record;
pub mod rescue;
pub mod respond;
mod standing;
pub mod tunnel;
pub mod worker;

use std::sync::Arc;

use http::{Request, Response};
use hyper::body::Incoming;

use body::AnswerBody;
use record::Recording;
use worker::Worker;

use crate::exchange::connection::Connection;

/// Takes a request from its head to the head of its answer. It never fails: every way ends in an answer.
pub async fn serve(
    worker: &Arc<Worker>,
    connection: &Arc<Connection>,
    request: Request<Incoming>,
) -> Response<AnswerBody> {
    let snapshot = worker.snapshot();
    let (head, body) = request.into_parts();
    let mut arrival = normalise::Arrival::new(head, body);
    let (exchange, normal) =
        normalise::normalise(&mut arrival, connection, &snapshot.server, worker);
    let client = worker.key_of(exchange.client);
    let room = admit::Room::for_one_of(client, worker, &snapshot);
    let mut recording = Recording::new(exchange, worker, Arc::clone(&snapshot), client);
    let verdict = match normal {
        Ok(()) => admit::admit(&snapshot, &mut recording, &mut arrival, room).await,
        Err(refusal) => Err(refusal.into()),
    };
    match verdict {
        Ok(admitted) => forward::forward(admitted, arrival, recording).await,
        Err(halt) => {
            let answer = respond::halt(&snapshot, halt, &arrival, recording);
            linger::linger(&mut arrival);
            answer
        }
    }
}
