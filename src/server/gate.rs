//! The gate as a whole: start, reload, stop.

use std::{
    io::Write,
    sync::{Arc, Mutex, Weak},
    thread,
    time::Duration,
};

use tokio::{
    runtime::{Builder, Runtime},
    signal::unix::{Signal, SignalKind, signal},
};

use super::{
    admin::{self, Admin},
    caps::Caps,
    listener::{self, Door, Opened},
    open_files,
    reload::{InUse, Reloader, Source, bring_up, retire},
    shutdown::{self, Announcer, Shutdown},
    watch::FileWatch,
    worker::{self, Shift},
};
use crate::{
    config::Color,
    identity::issuer::Issuer,
    observe::{
        access::{AccessLog, Target},
        log,
    },
    pipeline::worker::Worker,
    snapshot::{Snapshot, server::AccessTarget, survivors::Survivors},
    upstream::watch,
};

/// How long the last access lines may take to be written.
const LAST_LINES: Duration = Duration::from_secs(5);

/// Why the gate did not start or ended badly.
#[derive(Debug, thiserror::Error)]
pub enum GateError {
    /// The file has errors; rendered for people.
    #[error("{0}")]
    Configuration(String),
    /// A listener could not be opened.
    #[error("cannot listen on {address}: {cause}")]
    Listen {
        /// The address as written.
        address: String,
        /// Why.
        cause: std::io::Error,
    },
    /// The access log could not be opened.
    #[error("cannot open the access log: {0}")]
    Log(std::io::Error),
    /// The system refused a thread, a runtime or a signal.
    #[error("cannot start: {0}")]
    System(#[from] std::io::Error),
}

/// Runs the gate until it is told to stop. `ready` is called once, with the addresses that are open.
///
/// # Errors
/// See [`GateError`].
pub fn run(source: Source, color: Color, ready: impl FnOnce(&Ready)) -> Result<(), GateError> {
    let workers = worker_count(&source);
    let survivors = Arc::new(Survivors::new(workers));
    let in_use = bring_up(&source, &survivors, color).map_err(GateError::Configuration)?;
    if let Ok(level) = in_use.snapshot.server.log.level.parse() {
        log::init(level);
    }
    let (announcer, stopping) = shutdown::channel();
    let access = AccessLog::open(target(&in_use.snapshot)).map_err(GateError::Log)?;
    survivors.metrics.watch_access_log(access.dropped_probe());
    expect_free(&in_use.snapshot)?;
    let mut opened = open_all(&in_use.snapshot, workers)?;
    let admin = open_admin(&in_use.snapshot)?;
    let addresses = Ready::of(&opened, admin.as_ref());
    let staff: Vec<Arc<Worker>> = (0..workers)
        .map(|index| {
            let snapshot = Arc::clone(&in_use.snapshot);
            Arc::new(Worker::new(
                index,
                Arc::clone(&survivors),
                snapshot,
                access.sink(),
            ))
        })
        .collect();
    survivors.metrics.watch_requests(under_way(&staff));
    let room = open_files::room(in_use.snapshot.server.limits.connections);
    let threads = start_workers(&staff, &mut opened, &stopping, room)?;
    let desk = Desk {
        reloader: Arc::new(Reloader {
            source,
            fixed: in_use.snapshot.server.fixed(),
            survivors,
            workers: staff,
            turn: Mutex::new(()),
        }),
        announcer,
        stopping,
        access,
        runtime: Builder::new_current_thread().enable_all().build()?,
    };
    desk.attend(in_use, (admin, threads), || ready(&addresses))?;
    let Desk {
        reloader, access, ..
    } = desk;
    drop(reloader);
    access.shutdown(LAST_LINES);
    Ok(())
}

/// The number of workers is part of the file, but endpoints and limiters are made for it, so it is read first.
fn worker_count(source: &Source) -> usize {
    let loaded = source.load();
    let stated = loaded
        .root
        .get("server")
        .and_then(|value| value.as_table()?.get("workers"))
        .and_then(|value| <usize as crate::config::FromValue>::from_value(value).ok())
        .unwrap_or(0);
    if stated > 0 {
        stated.min(1024)
    } else {
        thread::available_parallelism().map_or(1, usize::from)
    }
}

fn target(snapshot: &Snapshot) -> Target {
    match &snapshot.server.log.access {
        AccessTarget::Stdout => Target::Stdout,
        AccessTarget::File(path) => Target::File(path.clone()),
        AccessTarget::Off => Target::Off,
    }
}

fn expect_free(snapshot: &Snapshot) -> Result<(), GateError> {
    let server = &snapshot.server;
    let admin = server.admin.iter().map(|admin| &admin.listen);
    for address in server.https.iter().chain(&server.http).chain(admin) {
        listener::expect_free(address).map_err(|cause| GateError::Listen {
            address: address.to_string(),
            cause,
        })?;
    }
    Ok(())
}

/// Asks all workers how many requests they have under way.
fn under_way(staff: &[Arc<Worker>]) -> impl Fn() -> u64 + Send + Sync + use<> {
    // Workers know the metrics, which must not hold them in turn.
    let staff: Vec<_> = staff.iter().map(Arc::downgrade).collect();
    move || {
        let workers = staff.iter().filter_map(Weak::upgrade);
        workers
            .map(|worker| worker.load.requests())
            .fold(0, |sum, requests| {
                sum + u64::try_from(requests).unwrap_or(u64::MAX)
            })
    }
}

fn open_all(snapshot: &Snapshot, workers: usize) -> Result<Vec<Opened>, GateError> {
    let server = &snapshot.server;
    let doors = server.https.iter().map(|address| (address, Door::Tls));
    let doors = doors.chain(server.http.iter().map(|address| (address, Door::Clear)));
    doors
        .map(|(address, door)| {
            listener::open(address, door, workers).map_err(|cause| GateError::Listen {
                address: address.to_string(),
                cause,
            })
        })
        .collect()
}

fn open_admin(snapshot: &Snapshot) -> Result<Option<Opened>, GateError> {
    let Some(admin) = &snapshot.server.admin else {
        return Ok(None);
    };
    listener::open(&admin.listen, Door::Clear, 1)
        .map(Some)
        .map_err(|cause| GateError::Listen {
            address: admin.listen.to_string(),
            cause,
        })
}

fn start_workers(
    staff: &[Arc<Worker>],
    opened: &mut [Opened],
    stopping: &Shutdown,
    room: usize,
) -> Result<Vec<thread::JoinHandle<()>>, GateError> {
    let caps = Arc::new(Caps::new(room));
    let mut threads = Vec::new();
    for worker in staff {
        let doors = opened
            .iter_mut()
            .filter_map(|opened| Some((opened.door, opened.listeners.pop()?)))
            .collect();
        let shift = Shift {
            worker: Arc::clone(worker),
            doors,
            caps: Arc::clone(&caps),
            shutdown: stopping.clone(),
        };
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let thread = thread::Builder::new()
            .name(format!("worker-{}", worker.index))
            .spawn(move || worker::run(&runtime, shift))?;
        threads.push(thread);
    }
    Ok(threads)
}

/// The addresses that are open.
#[derive(Clone, Debug, Default)]
pub struct Ready {
    /// TLS listeners.
    pub https: Vec<String>,
    /// Listeners in clear.
    pub http: Vec<String>,
    /// The admin listener.
    pub admin: Vec<String>,
}

impl Ready {
    fn of(opened: &[Opened], admin: Option<&Opened>) -> Self {
        let list = |door| {
            opened
                .iter()
                .filter(|o| o.door == door)
                .map(|o| o.address.clone())
                .collect()
        };
        Self {
            https: list(Door::Tls),
            http: list(Door::Clear),
            admin: admin
                .map(|admin| admin.address.clone())
                .into_iter()
                .collect(),
        }
    }

    /// The one line that says so: `portcullis ready https=… http=… admin=…`.
    pub fn announce(&self) {
        let mut line = String::from("portcullis ready");
        for (name, list) in [
            ("https", &self.https),
            ("http", &self.http),
            ("admin", &self.admin),
        ] {
            if !list.is_empty() {
                line.extend([" ", name, "=", &list.join(",")]);
            }
        }
        // Standard error may be closed; the gate serves all the same.
        let _ = writeln!(std::io::stderr(), "{line}");
    }
}

/// The main thread while the workers serve: signals, file changes, the admin listener, key sets.
struct Desk {
    reloader: Arc<Reloader>,
    announcer: Announcer,
    stopping: Shutdown,
    access: AccessLog,
    runtime: Runtime,
}

impl Desk {
    fn attend(
        &self,
        in_use: InUse,
        (admin, threads): (Option<Opened>, Vec<thread::JoinHandle<()>>),
        ready: impl FnOnce(),
    ) -> Result<(), GateError> {
        self.runtime.block_on(async {
            let mut signals = Signals::new()?;
            look_after(&in_use);
            self.serve_admin(&in_use.snapshot, admin);
            let mut files = FileWatch::new();
            files.follow(&in_use.files);
            // The first snapshot is let go at the first reload like any other.
            drop(in_use);
            ready();
            let _ = sd_notify::notify(&[sd_notify::NotifyState::Ready]);
            loop {
                tokio::select! {
                    _ = signals.terminate.recv() => break,
                    _ = signals.interrupt.recv() => break,
                    _ = signals.reopen.recv() => self.access.reopen(),
                    _ = signals.hang_up.recv() => self.reload(&mut files).await,
                    () = files.changed() => self.reload(&mut files).await,
                }
            }
            tracing::info!("draining");
            let _ = sd_notify::notify(&[sd_notify::NotifyState::Stopping]);
            self.announcer.begin();
            // The admin listener answers probes until the last request has ended.
            let _ = tokio::task::spawn_blocking(move || join(threads)).await;
            Ok(())
        })
    }

    /// Compiles away from this thread, which must go on answering probes.
    async fn reload(&self, files: &mut FileWatch) {
        let reloader = Arc::clone(&self.reloader);
        let outcome = tokio::task::spawn_blocking(move || reloader.reload()).await;
        if let Ok(Some(in_use)) = outcome {
            look_after(&in_use);
            files.follow(&in_use.files);
            in_use.replaced.map(|old| tokio::spawn(retire(old)));
        }
    }

    fn serve_admin(&self, snapshot: &Snapshot, opened: Option<Opened>) {
        let Some(listener) = opened.and_then(|mut opened| opened.listeners.pop()) else {
            return;
        };
        let admin = Admin {
            survivors: Arc::clone(&self.reloader.survivors),
            token: snapshot
                .server
                .admin
                .as_ref()
                .and_then(|admin| admin.token.clone()),
            shutdown: self.stopping.clone(),
        };
        tokio::spawn(admin::run(listener, Arc::new(admin)));
    }
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hang_up: Signal,
    reopen: Signal,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hang_up: signal(SignalKind::hangup())?,
            reopen: signal(SignalKind::user_defined1())?,
        })
    }
}

fn join(threads: Vec<thread::JoinHandle<()>>) {
    for thread in threads {
        if thread.join().is_err() {
            tracing::error!("a worker thread ended in a panic");
        }
    }
}

/// Starts what goes on beside the requests; each task ends when what it looks after is no longer in use.
fn look_after(in_use: &InUse) {
    for issuer in &in_use.fresh_issuers {
        tokio::spawn(Issuer::keep_fresh(Arc::downgrade(issuer)));
    }
    for cluster in &in_use.snapshot.clusters {
        watch::look_after(cluster);
    }
}
