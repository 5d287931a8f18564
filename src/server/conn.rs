//! One client connection: handshake, HTTP by ALPN, deadlines, the end.

use std::{net::SocketAddr, pin::pin, sync::Arc, time::Duration};

use http::{Request, Response, StatusCode, Version};
use hyper::{
    body::Incoming,
    server::conn::{http1, http2},
    service::service_fn,
};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};

use super::{
    activity::{Activity, Deadlines, InFlight, Overdue, Seat, watch},
    caps::Counted,
    guarded_body::GuardedBody,
    guarded_io::{GuardedIo, write_refusal},
    refusal,
    screen::{Screen, ScreenLimits},
    shutdown::Shutdown,
};
use crate::{
    exchange::connection::{Connection, Tls},
    observe::metrics::{ConnectionGuard, ConnectionState},
    pipeline::{self, body::AnswerBody, rescue::rescue, worker::Worker},
    snapshot::server::Limits,
    wire::halt::Reason,
};

/// Ping an HTTP/2 client that has requests under way but says nothing.
const H2_PING: Duration = Duration::from_secs(20);
/// When stopping, an idle HTTP/1 client may have a request on its way already: its answer closes the connection.
const LAST_REQUEST: Duration = Duration::from_secs(1);
/// Streams that a client may open and reset before we answer them (CVE-2023-44487).
const H2_RESETS: usize = 20;
/// Streams that we may be made to reset (CVE-2025-8671).
const H2_LOCAL_RESETS: usize = 100;
const H2_WINDOW: u32 = 256 * 1024;
const H2_CONNECTION_WINDOW: u32 = 1024 * 1024;
const H2_SEND_BYTES: usize = 64 * 1024;
/// Fields of a head that hyper takes by itself.
const HYPER_FIELDS: usize = 100;
/// hyper takes no smaller buffer.
const LEAST_BUFFER: usize = 8192;

/// Who is at the other end, with its place in the caps.
#[derive(Debug)]
pub struct Guest {
    /// Its address.
    pub peer: SocketAddr,
    /// Its place, given up when it leaves.
    pub counted: Counted,
}

/// Serves a connection in clear.
pub async fn clear<S>(worker: Arc<Worker>, stream: S, guest: Guest, shutdown: Shutdown)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let gauge = worker.survivors.metrics.connection(ConnectionState::Open);
    let connection = Arc::new(Connection::new(guest.peer, None));
    let seat = Seat {
        counted: guest.counted,
        gauge,
    };
    one(Desk::new(worker, connection, seat, shutdown), stream).await;
}

/// Serves a connection that begins with a TLS handshake.
pub async fn tls<S>(worker: Arc<Worker>, stream: S, guest: Guest, shutdown: Shutdown)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let mut gauge = worker
        .survivors
        .metrics
        .connection(ConnectionState::Handshake);
    let snapshot = worker.snapshot();
    let Some(rules) = &snapshot.tls else { return };
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::clone(&rules.config));
    // Boxed, as what follows it: its room is given back when it is done, not kept for the life of the connection.
    let handshake = Box::pin(tokio::time::timeout(
        snapshot.server.limits.header_timeout,
        acceptor.accept(stream),
    ));
    let Ok(Ok(stream)) = handshake.await else {
        return;
    };
    let session = stream.get_ref().1;
    let version = match session.protocol_version() {
        Some(rustls::ProtocolVersion::TLSv1_3) => "1.3",
        _ => "1.2",
    };
    let names = Arc::clone(&rules.certificates.pick(session.server_name()).names);
    let h2 = session.alpn_protocol() == Some(b"h2");
    drop(snapshot);
    gauge.move_to(ConnectionState::Open);
    let tls = Tls { version, names };
    let connection = Arc::new(Connection::new(guest.peer, Some(tls)));
    let seat = Seat {
        counted: guest.counted,
        gauge,
    };
    let desk = Desk::new(worker, connection, seat, shutdown);
    // A session is large and is handed on several times.
    let stream = Box::new(stream);
    if h2 {
        Box::pin(two(desk, stream)).await;
    } else {
        Box::pin(one(desk, stream)).await;
    }
}

/// What serving a connection needs.
struct Desk {
    worker: Arc<Worker>,
    connection: Arc<Connection>,
    activity: Arc<Activity>,
    seat: Seat,
    shutdown: Shutdown,
    limits: Limits,
}

impl Desk {
    fn new(
        worker: Arc<Worker>,
        connection: Arc<Connection>,
        seat: Seat,
        shutdown: Shutdown,
    ) -> Self {
        let limits = worker.snapshot().server.limits;
        Self {
            worker,
            connection,
            activity: Activity::new(),
            seat,
            shutdown,
            limits,
        }
    }

    fn deadlines(&self) -> Deadlines {
        Deadlines {
            header: self.limits.header_timeout,
            keep_alive: self.limits.keep_alive,
            write: self.limits.body.idle,
        }
    }
}

/// HTTP/1: the bytes are looked at before the parser sees them.
async fn one<S>(mut desk: Desk, stream: S)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let limits = desk.limits;
    let io = GuardedIo::new(stream, Some(screen(&limits)), Arc::clone(&desk.activity));
    let (worker, connection, activity) = (
        Arc::clone(&desk.worker),
        Arc::clone(&desk.connection),
        Arc::clone(&desk.activity),
    );
    let service = service_fn(move |request| {
        respond(
            Arc::clone(&worker),
            Arc::clone(&connection),
            Arc::clone(&activity),
            request,
        )
    });
    let mut builder = http1::Builder::new();
    // The screen refuses more; stating a bound that hyper has anyway costs an allocation a request.
    if limits.header_count > HYPER_FIELDS {
        builder.max_headers(limits.header_count);
    }
    let mut http = builder
        .max_buf_size(limits.header_bytes.saturating_mul(2).max(LEAST_BUFFER))
        .serve_connection(TokioIo::new(io), service)
        .with_upgrades();
    let deadlines = desk.deadlines();
    let overdue = {
        let mut watchdog = pin!(watch(&desk.activity, &deadlines));
        let mut draining = pin!(last_request(
            &mut desk.shutdown,
            (&desk.activity, &mut desk.seat.gauge)
        ));
        let mut told = false;
        loop {
            tokio::select! {
                biased;
                _ = &mut http => break None,
                overdue = &mut watchdog => break Some(overdue),
                () = &mut draining, if !told => {
                    told = true;
                    std::pin::Pin::new(&mut http).graceful_shutdown();
                }
            }
        }
    };
    if desk.activity.is_tunnel() {
        // The stream goes on in the hands of the tunnel, and it still is a connection of this client.
        desk.seat.gauge.move_to(ConnectionState::Tunnel);
        desk.activity.keep_seat(desk.seat);
        return;
    }
    let refused = match overdue {
        None => refusal::of_violation(desk.activity.take_refusal()),
        Some(overdue) => refusal::of_overdue(overdue, desk.activity.phase()),
    };
    if let (Some(refused), Some(parts)) = (refused, http.into_parts()) {
        let answer = refusal::answer(&desk.worker, &desk.connection, &refused);
        // The client may be gone already; the line is written either way.
        let _ = write_refusal(&mut parts.io.into_inner().into_inner(), &answer).await;
    }
}

fn screen(limits: &Limits) -> Screen {
    Screen::new(ScreenLimits {
        head_bytes: limits.header_bytes,
        header_count: limits.header_count,
        uri_bytes: limits.uri_bytes,
    })
}

/// Resolves when an idle connection may be closed: a while after stopping has begun.
async fn last_request(
    shutdown: &mut Shutdown,
    (activity, gauge): (&Activity, &mut ConnectionGuard),
) {
    shutdown.begun().await;
    gauge.move_to(ConnectionState::Draining);
    activity.drain();
    tokio::time::sleep(LAST_REQUEST).await;
}

/// HTTP/2, with every limit stated.
async fn two<S>(mut desk: Desk, stream: S)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let limits = desk.limits;
    let io = GuardedIo::new(stream, None, Arc::clone(&desk.activity));
    let (worker, connection, activity) = (
        Arc::clone(&desk.worker),
        Arc::clone(&desk.connection),
        Arc::clone(&desk.activity),
    );
    let service = service_fn(move |request| {
        respond(
            Arc::clone(&worker),
            Arc::clone(&connection),
            Arc::clone(&activity),
            request,
        )
    });
    let list = u32::try_from(limits.header_bytes).unwrap_or(u32::MAX);
    let mut http = pin!(
        http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .max_concurrent_streams(limits.h2_streams)
            .max_header_list_size(list)
            .max_pending_accept_reset_streams(H2_RESETS)
            .max_local_error_reset_streams(H2_LOCAL_RESETS)
            .initial_stream_window_size(H2_WINDOW)
            .initial_connection_window_size(H2_CONNECTION_WINDOW)
            .max_send_buf_size(H2_SEND_BYTES)
            .keep_alive_interval(H2_PING)
            .keep_alive_timeout(limits.header_timeout)
            .serve_connection(TokioIo::new(io), service)
    );
    let deadlines = desk.deadlines();
    let mut watchdog = pin!(watch(&desk.activity, &deadlines));
    let mut draining = pin!(desk.shutdown.begun());
    let mut told = false;
    loop {
        tokio::select! {
            biased;
            _ = &mut http => break,
            // An HTTP/2 client is told by GOAWAY; what it has under way may still end.
            overdue = &mut watchdog => {
                if overdue != Overdue::Write {
                    http.as_mut().graceful_shutdown();
                    let _ = tokio::time::timeout(limits.header_timeout, &mut http).await;
                }
                break;
            }
            () = &mut draining, if !told => {
                told = true;
                desk.seat.gauge.move_to(ConnectionState::Draining);
                http.as_mut().graceful_shutdown();
            }
        }
    }
}

/// One request. A panic in it becomes a 500 and a count.
async fn respond(
    worker: Arc<Worker>,
    connection: Arc<Connection>,
    activity: Arc<Activity>,
    request: Request<Incoming>,
) -> Result<Response<GuardedBody>, std::convert::Infallible> {
    let in_flight = activity.begin_request();
    let version = request.version();
    if let Some(response) = rescue(pin!(pipeline::serve(&worker, &connection, request))).await {
        Ok(settle(
            (&worker, &connection, &activity),
            response,
            (in_flight, version),
        ))
    } else {
        activity.deny_tunnel();
        Ok(refusal::internal(&worker, &connection, in_flight))
    }
}

/// Tells the screen what became of a tunnel: a 101 leaves here only when no byte came too early. When stopping, the
/// answer is the connection's last.
fn settle(
    (worker, connection, activity): (&Worker, &Connection, &Activity),
    mut response: Response<AnswerBody>,
    (in_flight, version): (InFlight, Version),
) -> Response<GuardedBody> {
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        activity.deny_tunnel();
        if activity.is_draining() && version <= Version::HTTP_11 {
            response.headers_mut().insert(
                http::header::CONNECTION,
                http::HeaderValue::from_static("close"),
            );
        }
    } else if !activity.open_tunnel() {
        response.body_mut().refused(Reason::EarlyTunnelBytes);
        return refusal::early_bytes(worker, connection, in_flight);
    }
    response.map(|body| GuardedBody::new(body, in_flight, version))
}
