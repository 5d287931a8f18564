//! One client connection: handshake, HTTP by ALPN, each request to the pipeline. HTTP/1 itself is in [`super::http1`].

use std::{convert::Infallible, net::SocketAddr, pin::pin, sync::Arc, time::Duration};

use http::{Request, Response, Version};
use hyper::{
    body::Incoming,
    server::conn::http2,
    service::{Service, service_fn},
};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

use super::{
    activity::{Activity, Deadlines, InFlight, Overdue, Seat, watch},
    caps,
    frames::Counted,
    guarded_body::GuardedBody,
    guarded_io::GuardedIo,
    http1,
    readiness::Readiness,
    refusal,
    shutdown::Shutdown,
    tunnels,
};
use crate::{
    crypto::certificate::Unreadable,
    exchange::{
        client_certificate::ClientCertificate,
        connection::{Connection, Tls},
    },
    observe::metrics::ConnectionState,
    pipeline::{self, body::AnswerBody, rescue::rescue, worker::Worker},
    snapshot::server::Limits,
    wire::slices::Sliced,
};

/// Ping an HTTP/2 client that has requests under way but says nothing.
const H2_PING: Duration = Duration::from_secs(20);
/// Streams that a client may open and reset before we answer them (CVE-2023-44487).
const H2_RESETS: usize = 20;
/// Streams that we may be made to reset (CVE-2025-8671).
const H2_LOCAL_RESETS: usize = 100;
const H2_WINDOW: u32 = 256 * 1024;
const H2_CONNECTION_WINDOW: u32 = 1024 * 1024;
const H2_SEND_BYTES: usize = 64 * 1024;

/// Who is at the other end, with its place in the caps.
#[derive(Debug)]
pub struct Guest {
    /// Its address.
    pub peer: SocketAddr,
    /// Its place, given up when it leaves.
    pub counted: caps::Counted,
}

/// Serves a connection in clear.
pub async fn clear<S>(worker: Arc<Worker>, stream: S, guest: Guest, shutdown: Shutdown)
where
    S: AsyncRead + AsyncWrite + Readiness + Unpin + Send + 'static,
{
    let gauge = worker.survivors.metrics.connection(ConnectionState::Open);
    let connection = Arc::new(Connection::new(guest.peer, None));
    let seat = Seat {
        counted: guest.counted,
        gauge,
    };
    http1::serve(Desk::new(worker, connection, seat, shutdown), stream).await;
}

/// Serves a connection that begins with a TLS handshake.
pub async fn tls<S>(worker: Arc<Worker>, stream: S, guest: Guest, shutdown: Shutdown)
where
    S: AsyncRead + AsyncWrite + Readiness + Unpin + Send + 'static,
{
    let mut gauge = worker
        .survivors
        .metrics
        .connection(ConnectionState::Handshake);
    let snapshot = worker.snapshot();
    let Some(rules) = &snapshot.tls else { return };
    // A session is large and is handed on several times.
    let shaken = Box::pin(shake_hands(
        TlsAcceptor::from(Arc::clone(&rules.config)),
        stream,
        snapshot.server.limits.header_timeout,
    ));
    let Some(stream) = shaken.await else { return };
    let session = stream.get_ref().1;
    let version = match session.protocol_version() {
        Some(rustls::ProtocolVersion::TLSv1_3) => "1.3",
        _ => "1.2",
    };
    let names = Arc::clone(&rules.certificates.pick(session.server_name()).names);
    let h2 = session.alpn_protocol() == Some(b"h2");
    // What cannot be read must not pass for no certificate.
    let Ok(client) = client_certificate(session) else {
        return;
    };
    if let (Some(trust), Some(client)) = (&rules.clients, &client) {
        trust.thing.let_in(client);
    }
    drop(snapshot);
    gauge.move_to(ConnectionState::Open);
    let tls = Tls {
        version,
        names,
        client,
    };
    let connection = Arc::new(Connection::new(guest.peer, Some(tls)));
    let seat = Seat {
        counted: guest.counted,
        gauge,
    };
    let desk = Desk::new(worker, connection, seat, shutdown);
    let stream = Sliced::new(stream);
    if h2 {
        Box::pin(two(desk, stream)).await;
    } else {
        http1::serve(desk, stream).await;
    }
}

/// What the client proved to hold: in this handshake, or in the one of the session that it resumes.
fn client_certificate(
    session: &rustls::ServerConnection,
) -> Result<Option<Box<ClientCertificate>>, Unreadable> {
    let Some(chain) = session.peer_certificates() else {
        return Ok(None);
    };
    ClientCertificate::new(chain.to_vec())
        .map(Box::new)
        .map(Some)
}

/// The handshake. A session is large and is handed on several times, so it is boxed here; so should be this future,
/// whose room is needed no more when it is done.
async fn shake_hands<S>(
    acceptor: TlsAcceptor,
    stream: S,
    limit: Duration,
) -> Option<Box<TlsStream<S>>>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let accepted = tokio::time::timeout(limit, acceptor.accept(stream)).await;
    accepted.ok()?.ok().map(Box::new)
}

/// What serving a connection needs.
pub(super) struct Desk {
    pub(super) worker: Arc<Worker>,
    pub(super) connection: Arc<Connection>,
    pub(super) activity: Arc<Activity>,
    pub(super) seat: Seat,
    pub(super) shutdown: Shutdown,
    pub(super) limits: Limits,
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

    pub(super) fn deadlines(&self, rest: Option<Duration>) -> Deadlines {
        Deadlines {
            header: self.limits.header_timeout,
            keep_alive: self.limits.keep_alive,
            write: self.limits.body.idle,
            rest,
        }
    }

    /// Takes the requests of the connection.
    pub(super) fn service(
        &self,
    ) -> impl Service<
        Request<Incoming>,
        Response = Response<GuardedBody>,
        Error = Infallible,
        Future: Send,
    > + Send
    + use<> {
        let (worker, connection, activity) = (
            Arc::clone(&self.worker),
            Arc::clone(&self.connection),
            Arc::clone(&self.activity),
        );
        service_fn(move |request| {
            let (worker, connection) = (Arc::clone(&worker), Arc::clone(&connection));
            respond(worker, connection, activity.begin_request(), request)
        })
    }
}

/// HTTP/2, with every limit stated.
async fn two<S>(mut desk: Desk, stream: S)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let limits = desk.limits;
    let stream = Counted::new(stream, Arc::clone(&desk.worker));
    desk.activity.allow_tunnels(desk.seat.counted.ticket());
    let io = GuardedIo::new(stream, None, Arc::clone(&desk.activity));
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
            .enable_connect_protocol()
            .keep_alive_interval(H2_PING)
            .keep_alive_timeout(limits.header_timeout)
            .serve_connection(TokioIo::new(io), desk.service())
    );
    let deadlines = desk.deadlines(None);
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
    in_flight: InFlight,
    request: Request<Incoming>,
) -> Result<Response<GuardedBody>, Infallible> {
    let version = request.version();
    if let Some(response) = rescue(pin!(pipeline::serve(&worker, &connection, request))).await {
        Ok(settle(
            (&worker, &connection),
            response,
            (in_flight, version),
        ))
    } else {
        in_flight.activity().deny_tunnel();
        Ok(refusal::internal(&worker, &connection, in_flight))
    }
}

/// Opens the tunnel that an answer grants, and tells the screen of any other answer that it grants none. When stopping,
/// the answer is the connection's last.
fn settle(
    (worker, connection): (&Worker, &Connection),
    mut response: Response<AnswerBody>,
    (in_flight, version): (InFlight, Version),
) -> Response<GuardedBody> {
    if response.body().is_tunnel() {
        return tunnels::open((worker, connection), response, (in_flight, version));
    }
    let activity = in_flight.activity();
    activity.deny_tunnel();
    if activity.is_draining() && version <= Version::HTTP_11 {
        response.headers_mut().insert(
            http::header::CONNECTION,
            http::HeaderValue::from_static("close"),
        );
    }
    response.map(|body| GuardedBody::new(body, in_flight, version))
}
