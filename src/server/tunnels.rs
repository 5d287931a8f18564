//! Where a tunnel leaves HTTP: on HTTP/1 it takes the connection over, on HTTP/2 one stream of it (RFC 8441 §5).
//!
//! Either way it counts as a connection of its client until it ends, in the caps and in the gauges: a stream that stays
//! for a day and holds a connection to a backend is not as cheap as a request.

use http::{HeaderValue, Response, Version, header};
use tokio::io::AsyncWriteExt;

use super::{
    activity::{InFlight, Seat},
    guarded_body::GuardedBody,
    refusal,
};
use crate::{
    exchange::connection::Connection,
    observe::metrics::ConnectionState,
    pipeline::{
        body::AnswerBody,
        tunnel::{ClientSide, Tunnel},
        worker::Worker,
    },
    upstream::tunnel,
    wire::halt::Reason,
};

/// When a client with too many connections may come again: as soon as one of them has ended.
const RETRY_AFTER_SECONDS: u16 = 1;

/// Opens the tunnel that this answer grants, or refuses it after all.
pub(super) fn open(
    (worker, connection): (&Worker, &Connection),
    response: Response<AnswerBody>,
    (in_flight, version): (InFlight, Version),
) -> Response<GuardedBody> {
    let (head, body) = response.into_parts();
    let opened = match (body.into_tunnel(), version) {
        (None, _) => Ok(()),
        (Some(tunnel), Version::HTTP_2) => on_stream(worker, tunnel, in_flight.another()),
        (Some(tunnel), _) => on_connection(tunnel, &in_flight),
    };
    match opened {
        Ok(()) => Response::from_parts(head, GuardedBody::own(bytes::Bytes::new(), in_flight)),
        Err((tunnel, reason)) => {
            tunnel.refused(reason);
            let mut answer = refusal::lost(reason, (worker, connection), in_flight);
            let (name, value) = match version {
                Version::HTTP_2 => (header::RETRY_AFTER, HeaderValue::from(RETRY_AFTER_SECONDS)),
                _ => (header::CONNECTION, HeaderValue::from_static("close")),
            };
            answer.headers_mut().insert(name, value);
            answer
        }
    }
}

type Refused = (Tunnel, Reason);

/// A 101 leaves only when no byte came too early. The tunnel is run by the connection's own task.
fn on_connection(tunnel: Tunnel, in_flight: &InFlight) -> Result<(), Refused> {
    let activity = in_flight.activity();
    if !activity.open_tunnel() {
        return Err((tunnel, Reason::EarlyTunnelBytes));
    }
    activity.leave_tunnel(tunnel);
    Ok(())
}

/// Runs a tunnel that has taken its connection over.
pub(super) async fn run(granted: Tunnel) {
    if let Some(mut client) = granted.run().await {
        let _ = tokio::time::timeout(tunnel::CLOSE_TIME, client.shutdown()).await;
    }
}

/// A stream is taken over at once, if its client may have one more connection.
fn on_stream(worker: &Worker, tunnel: Tunnel, in_flight: InFlight) -> Result<(), Refused> {
    let limits = worker.snapshot().server.limits;
    let counted = in_flight
        .activity()
        .ticket()
        .map(|ticket| ticket.enter(limits.connections, limits.connections_per_client));
    let Some(Ok(counted)) = counted else {
        return Err((tunnel, Reason::Overloaded));
    };
    let gauge = worker.survivors.metrics.connection(ConnectionState::Tunnel);
    let seat = Seat { counted, gauge };
    tokio::spawn(async move {
        if let Some(client) = tunnel.run().await {
            close(client, &in_flight).await;
        }
        drop((in_flight, seat));
    });
    Ok(())
}

/// Ends the stream. What the client has not taken yet holds memory and cannot be taken back, so whoever does not take
/// it in time is treated as with any other answer: the connection is closed.
async fn close(mut client: ClientSide, in_flight: &InFlight) {
    in_flight.offers();
    let _ = client.shutdown().await;
    in_flight.offers_no_more();
}
