//! An HTTP/1 client connection: awake while requests come, asleep between them.
//!
//! A parser keeps its buffers for the life of its connection, about 23 KiB that a connection which waits for its next
//! request has no use for. So after a short rest, with nothing half read and nothing unwritten, the parser is taken apart
//! and a new one is made when bytes come: what a connection keeps meanwhile is its stream, what the screen knows and its
//! record. Deadlines, limits and the order to drain hold in both states. One that is busy never sleeps.

use std::{future::poll_fn, pin::pin, sync::Arc, time::Duration};

use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};

use super::{
    activity::{Activity, Overdue, watch},
    conn::Desk,
    guarded_io::{GuardedIo, write_refusal},
    readiness::Readiness,
    refusal,
    screen::{Screen, ScreenLimits},
    shutdown::Shutdown,
    tunnels,
};
use crate::{
    observe::metrics::{ConnectionGuard, ConnectionState},
    snapshot::server::Limits,
};

/// When stopping, an idle client may have a request on its way already: its answer closes the connection.
const LAST_REQUEST: Duration = Duration::from_secs(1);
/// The pause after which the parser is taken apart. A client that asks more often pays one timer for each such span.
const REST: Duration = Duration::from_millis(500);
/// Fields of a head that hyper takes by itself.
const HYPER_FIELDS: usize = 100;
/// hyper takes no smaller buffer.
const LEAST_BUFFER: usize = 8192;

/// Serves a connection to its end. The bytes are looked at before the parser sees them.
pub(super) async fn serve<S>(mut desk: Desk, stream: S)
where
    S: AsyncRead + AsyncWrite + Readiness + Unpin + Send + 'static,
{
    let screen = Some(screen(&desk.limits));
    let mut io = GuardedIo::new(stream, screen, Arc::clone(&desk.activity))
        .with_hints(Arc::clone(&desk.connection));
    loop {
        if sleep(&mut desk, io.get_ref()).await == Sleep::Overdue {
            return;
        }
        // Boxed: what a parser needs is given back with it.
        match Box::pin(wake(&mut desk, io)).await {
            Some(resting) => io = resting,
            None => break,
        }
    }
    if desk.activity.is_tunnel() {
        // What it has become still is a connection of this client, and one to wait for when stopping.
        desk.seat.gauge.move_to(ConnectionState::Tunnel);
        if let Some(tunnel) = desk.activity.take_tunnel() {
            Box::pin(tunnels::run(tunnel)).await;
        }
    }
}

fn screen(limits: &Limits) -> Screen {
    Screen::new(ScreenLimits {
        head_bytes: limits.header_bytes,
        header_count: limits.header_count,
        uri_bytes: limits.uri_bytes,
    })
}

/// How a sleep ended.
#[derive(Debug, PartialEq, Eq)]
enum Sleep {
    /// Bytes came, or the client left, or stopping has begun.
    Woken,
    /// Nothing came in time: such a connection is closed without a word.
    Overdue,
}

/// Waits for the first byte of a request, holding nothing.
async fn sleep(desk: &mut Desk, stream: &impl Readiness) -> Sleep {
    let deadlines = desk.deadlines(None);
    let watchdog = pin!(watch(&desk.activity, &deadlines));
    let stopping = pin!(desk.shutdown.begun());
    tokio::select! {
        biased;
        () = poll_fn(|cx| stream.poll_readable(cx)) => Sleep::Woken,
        () = stopping => Sleep::Woken,
        _ = watchdog => Sleep::Overdue,
    }
}

/// Answers requests until the connection ends; gives it back when it may sleep.
async fn wake<S>(desk: &mut Desk, io: GuardedIo<S>) -> Option<GuardedIo<S>>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let mut http = builder(&desk.limits)
        .serve_connection(TokioIo::new(io), desk.service())
        .with_upgrades();
    let deadlines = desk.deadlines(Some(REST));
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
                // Before the watchdog: once stopping has begun, there is no rest.
                () = &mut draining, if !told => {
                    told = true;
                    Pin::new(&mut http).graceful_shutdown();
                }
                overdue = &mut watchdog => break Some(overdue),
            }
        }
    };
    if desk.activity.is_tunnel() {
        return None;
    }
    let refused = match overdue {
        None => refusal::of_violation(desk.activity.take_refusal()),
        Some(overdue) => refusal::of_overdue(overdue, desk.activity.phase()),
    };
    let parts = http.into_parts()?;
    let io = parts.io.into_inner();
    if overdue == Some(Overdue::Rest) {
        // Bytes that the parser holds back would be lost; the screen knows of none.
        return parts.read_buf.is_empty().then_some(io);
    }
    let answer = refusal::answer(&desk.worker, &desk.connection, &refused?);
    // The client may be gone already; the line is written either way.
    let _ = write_refusal(&mut io.into_inner(), &answer).await;
    None
}

fn builder(limits: &Limits) -> http1::Builder {
    let mut builder = http1::Builder::new();
    // The screen refuses more; stating a bound that hyper has anyway costs an allocation a request.
    if limits.header_count > HYPER_FIELDS {
        builder.max_headers(limits.header_count);
    }
    builder.max_buf_size(limits.header_bytes.saturating_mul(2).max(LEAST_BUFFER));
    builder
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
