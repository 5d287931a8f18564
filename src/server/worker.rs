//! A worker thread: one runtime, its listeners, its connections, a tick for what must not wait.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream, UnixListener, UnixStream},
    runtime::Runtime,
    task::JoinSet,
};

use super::{
    caps::{Caps, Counted, Full},
    conn::{self, Guest},
    listener::{Door, Listener},
    proxy_protocol,
    readiness::Readiness,
    shutdown::{Opening, Shutdown},
};
use crate::{
    observe::metrics::Mode,
    pipeline::worker::Worker,
    state::load::Pressure,
    wire::{
        forwarded::is_trusted,
        halt::{Reason, Stage},
        socket::Socket,
    },
};

/// How often the access log is handed over.
const TICK: Duration = Duration::from_millis(100);
/// Ticks between two sweeps of idle upstream connections.
const SWEEP_TICKS: u32 = 50;
/// Ticks without overload after which it is said to have ended: a second.
const CALM_TICKS: u32 = 10;
/// Connections that are still taken from the system's queue when stopping has begun.
const LATE: usize = 4096;
/// Rest after an accept that failed for want of descriptors or memory, so that the thread does not spin.
pub(super) const ACCEPT_REST: Duration = Duration::from_millis(50);

/// What a worker thread is given.
#[derive(Debug)]
pub struct Shift {
    /// The worker's own things.
    pub worker: Arc<Worker>,
    /// Its listeners.
    pub doors: Vec<(Door, Entrance)>,
    /// Connections of all workers.
    pub caps: Arc<Caps>,
    /// Says when to begin.
    pub opening: Opening,
    /// Says when to stop.
    pub shutdown: Shutdown,
}

/// Serves until stopping has begun and the last connection has ended, at the latest after the drain time.
pub fn run(runtime: &Runtime, shift: Shift) {
    runtime.block_on(async move {
        let worker = Arc::clone(&shift.worker);
        let mut shutdown = shift.shutdown.clone();
        let ticker = tokio::spawn(tick(Arc::clone(&worker)));
        let mut accepting = JoinSet::new();
        for (door, entrance) in shift.doors {
            let desk = Desk {
                worker: Arc::clone(&worker),
                caps: Arc::clone(&shift.caps),
                shutdown: shutdown.clone(),
                door,
            };
            accepting.spawn(accept(desk, entrance, shift.opening.clone()));
        }
        shutdown.begun().await;
        let mut connections = JoinSet::new();
        while let Some(Ok(mut open)) = accepting.join_next().await {
            // The sets of all listeners become one.
            connections.spawn(async move { while open.join_next().await.is_some() {} });
        }
        let patience = worker.snapshot().server.drain;
        let _ = tokio::time::timeout(patience, async {
            while connections.join_next().await.is_some() {}
            // A tunnel goes on beside the connection that it began on, in the caps.
            shift.caps.emptied().await;
        })
        .await;
        ticker.abort();
        worker.with_sink(crate::observe::access::AccessSink::tick);
    });
}

struct Desk {
    worker: Arc<Worker>,
    caps: Arc<Caps>,
    shutdown: Shutdown,
    door: Door,
}

async fn tick(worker: Arc<Worker>) {
    let mut interval = tokio::time::interval(TICK);
    let mut ticks = 0_u32;
    let mut calm = None;
    loop {
        interval.tick().await;
        calm = say_what_is_shed(&worker, calm);
        worker.with_sink(crate::observe::access::AccessSink::tick);
        ticks = ticks.wrapping_add(1);
        if ticks.is_multiple_of(SWEEP_TICKS) {
            let now = Instant::now();
            for cluster in &worker.snapshot().clusters {
                cluster
                    .endpoints
                    .iter()
                    .for_each(|endpoint| endpoint.sweep(worker.index, now));
            }
        }
    }
}

/// One line when overload begins and one when it has ended, not one a request, nor two each time that the load swings about
/// the bound. Takes and gives the ticks since something was last shed, none while there is no overload.
fn say_what_is_shed(worker: &Worker, calm: Option<u32>) -> Option<u32> {
    let snapshot = worker.snapshot();
    let sheds = worker.pressure(&snapshot) >= Pressure::Connections;
    let (requests, limit) = (worker.load.requests(), snapshot.server.limits.requests);
    match calm {
        None if sheds => tracing::warn!(
            worker = worker.index,
            requests,
            limit,
            "overloaded: new connections are closed, then anonymous requests are refused"
        ),
        Some(CALM_TICKS) if !sheds => {
            tracing::info!(
                worker = worker.index,
                requests,
                limit,
                "no longer overloaded"
            );
            return None;
        }
        _ => {}
    }
    if sheds {
        Some(0)
    } else {
        calm.map(|ticks| ticks + 1)
    }
}

/// Accepts once it is let, until stopping begins; gives back the connections that are still open.
async fn accept(mut desk: Desk, entrance: Entrance, opening: Opening) -> JoinSet<()> {
    let mut connections = JoinSet::new();
    let mut stopping = desk.shutdown.clone();
    tokio::select! {
        opened = opening.opened() => if !opened { return connections },
        () = stopping.begun() => return connections,
    }
    let mut late = 0;
    while late < LATE && !stopping.is_handed_over() {
        late += usize::from(stopping.has_begun());
        let accepted = tokio::select! {
            biased;
            accepted = entrance.accept() => accepted,
            // Only when nobody waits: the system has said yes to those who do.
            () = stopping.begun() => break,
        };
        while connections.try_join_next().is_some() {}
        match accepted {
            Ok((stream, peer)) => desk.admit(&mut connections, stream, peer),
            Err(error) if is_passing(&error) => {}
            Err(error) => {
                tracing::warn!(%error, "accept failed");
                tokio::time::sleep(ACCEPT_REST).await;
            }
        }
    }
    desk.shutdown = stopping;
    connections
}

/// An error of the one connection that was to be accepted, not of the listener.
fn is_passing(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::Interrupted
    )
}

impl Desk {
    fn admit(&self, connections: &mut JoinSet<()>, stream: Stream, peer: SocketAddr) {
        let snapshot = self.worker.snapshot();
        let rules = &snapshot.server;
        if self.worker.pressure(&snapshot) >= Pressure::Connections {
            return shed(&self.worker, Full::All);
        }
        // Behind a load balancer the client is not known yet.
        let introduced = rules.proxy_protocol && matches!(stream, Stream::Tcp(_));
        let of_client = if introduced {
            usize::MAX
        } else {
            rules.limits.connections_per_client
        };
        let counted = match self
            .caps
            .enter(peer.ip(), rules.limits.connections, of_client)
        {
            Ok(counted) => counted,
            Err(full) => return shed(&self.worker, full),
        };
        let (worker, shutdown, door) = (Arc::clone(&self.worker), self.shutdown.clone(), self.door);
        let entry = Entry {
            peer,
            door,
            counted,
            introduced,
        };
        match stream {
            Stream::Tcp(stream) => {
                let _ = stream.set_nodelay(true);
                connections.spawn(serve(worker, Socket::new(stream), entry, shutdown));
            }
            Stream::Unix(stream) => {
                connections.spawn(serve(worker, stream, entry, shutdown));
            }
        }
    }
}

fn shed(worker: &Worker, full: Full) {
    tracing::debug!(?full, "connection shed");
    worker
        .survivors
        .metrics
        .refusal(Stage::Wire, Reason::Overloaded, Mode::Enforce);
}

/// A connection that was let in.
struct Entry {
    peer: SocketAddr,
    door: Door,
    counted: Counted,
    /// A PROXY header comes first.
    introduced: bool,
}

async fn serve<S>(worker: Arc<Worker>, mut stream: S, entry: Entry, shutdown: Shutdown)
where
    S: AsyncRead + AsyncWrite + Readiness + Unpin + Send + 'static,
{
    let Entry {
        mut peer,
        door,
        mut counted,
        introduced,
    } = entry;
    if introduced {
        let Some(client) = introduction(&worker, &mut stream, peer).await else {
            return;
        };
        let most = worker.snapshot().server.limits.connections_per_client;
        counted = match counted.hand_to(client.ip(), most) {
            Ok(counted) => counted,
            Err(full) => return shed(&worker, full),
        };
        peer = client;
    }
    let guest = Guest { peer, counted };
    match door {
        Door::Tls => conn::tls(worker, stream, guest, shutdown).await,
        Door::Clear => conn::clear(worker, stream, guest, shutdown).await,
    }
}

/// The client by the PROXY header of a trusted load balancer; nothing when the connection is to be dropped.
async fn introduction<S: AsyncRead + Unpin>(
    worker: &Worker,
    stream: &mut S,
    peer: SocketAddr,
) -> Option<SocketAddr> {
    let snapshot = worker.snapshot();
    if !is_trusted(peer.ip(), &snapshot.server.trusted_proxies) {
        tracing::debug!(%peer, "connection past the load balancer refused");
        return None;
    }
    let limit = snapshot.server.limits.header_timeout;
    match tokio::time::timeout(limit, proxy_protocol::read(stream)).await {
        Ok(Ok(client)) => Some(client.unwrap_or(peer)),
        Ok(Err(error)) => {
            tracing::warn!(%peer, %error, "connection without a PROXY header dropped");
            None
        }
        Err(_) => None,
    }
}

/// A listener that a runtime watches.
#[derive(Debug)]
pub enum Entrance {
    /// TCP.
    Tcp(TcpListener),
    /// A Unix socket.
    Unix(UnixListener),
}

/// A connection that was accepted.
#[derive(Debug)]
pub enum Stream {
    /// TCP.
    Tcp(TcpStream),
    /// Over a Unix socket.
    Unix(UnixStream),
}

impl Entrance {
    /// Has the runtime that was entered watch a listener.
    ///
    /// # Errors
    /// The system does not let it.
    pub fn new(listener: Listener) -> io::Result<Self> {
        match listener {
            Listener::Tcp(listener) => TcpListener::from_std(listener).map(Self::Tcp),
            Listener::Unix(listener) => UnixListener::from_std(listener).map(Self::Unix),
        }
    }

    /// The next connection, with its peer.
    ///
    /// # Errors
    /// The system gives no descriptor, or the connection has gone already.
    pub async fn accept(&self) -> io::Result<(Stream, SocketAddr)> {
        match self {
            Self::Tcp(listener) => listener
                .accept()
                .await
                .map(|(stream, peer)| (Stream::Tcp(stream), peer)),
            // A Unix peer has no address: it is this machine.
            Self::Unix(listener) => {
                let (stream, _) = listener.accept().await?;
                Ok((
                    Stream::Unix(stream),
                    SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
                ))
            }
        }
    }
}
