//! The gate as a whole: everything is set up here, in an order in which what can fail does so before anything is served.

use std::{
    io::Write,
    sync::{Arc, Mutex, Weak},
    thread,
    time::Duration,
};

use tokio::runtime::{Builder, Runtime};

use super::{
    caps::Caps,
    desk::{Desk, Staff},
    handover::Program,
    inherited::{InheritError, Inherited},
    listener::{self, Door, Listener, Opened, Role},
    open_files,
    reload::{Reloader, Source, bring_up},
    shutdown::{self, Opening, Shutdown},
    worker::{self, Entrance, Shift},
};
use crate::{
    config::{Color, ListenAddr},
    observe::{
        access::{AccessLog, Target},
        log,
    },
    pipeline::worker::Worker,
    snapshot::{Snapshot, server::AccessTarget, survivors::Survivors},
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
    /// What this process was given does not fit.
    #[error("cannot take over listeners: {0}")]
    Inherited(#[from] InheritError),
    /// The access log could not be opened.
    #[error("cannot open the access log: {0}")]
    Log(std::io::Error),
    /// The system refused a thread, a runtime or a signal.
    #[error("cannot start: {0}")]
    System(#[from] std::io::Error),
}

/// Runs the gate until it is told to stop, or until another process has taken its place. `program` is what a hand-over
/// starts, `ready` is called once, with the addresses that are open.
///
/// # Errors
/// See [`GateError`].
pub fn run(
    source: Source,
    program: Option<Program>,
    color: Color,
    ready: impl FnOnce(&Ready),
) -> Result<(), GateError> {
    // First, while there are no other threads.
    let (inherited, predecessor) = Inherited::receive()?;
    let workers = worker_count(&source);
    let survivors = Arc::new(Survivors::new(workers));
    let in_use = bring_up(&source, &survivors, color).map_err(GateError::Configuration)?;
    if let Ok(level) = in_use.snapshot.server.log.level.parse() {
        log::init(level);
    }
    if let Some(portal) = &in_use.snapshot.portal {
        portal.tell_of_trouble();
    }
    let (announcer, stopping) = shutdown::channel();
    let (opener, opening) = shutdown::opening();
    let access = AccessLog::open(target(&in_use.snapshot)).map_err(GateError::Log)?;
    survivors.metrics.watch_access_log(access.dropped_probe());
    let listeners = open_all(&in_use.snapshot, workers, inherited)?;
    let addresses = Ready::of(&listeners);
    let crew: Vec<Arc<Worker>> = (0..workers)
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
    survivors.metrics.watch_requests(under_way(&crew));
    let spool = Arc::clone(&survivors.spool);
    survivors.metrics.watch_spool(move || spool.bytes());
    let room = open_files::room(in_use.snapshot.server.limits.connections);
    let staff = Staff {
        threads: start_workers(&crew, &listeners, (&opening, &stopping), room)?,
        opened: listeners,
        predecessor,
    };
    let desk = Desk {
        reloader: Arc::new(Reloader {
            source,
            fixed: in_use.snapshot.server.fixed(),
            survivors,
            workers: crew,
            turn: Mutex::new(()),
        }),
        announcer,
        stopping,
        opener,
        access,
        runtime: Builder::new_current_thread().enable_all().build()?,
        program,
    };
    desk.attend(in_use, staff, || ready(&addresses))?;
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

/// Opens what the file states, where this process was not given it.
fn open_all(
    snapshot: &Snapshot,
    workers: usize,
    mut inherited: Inherited,
) -> Result<Vec<Opened>, GateError> {
    let server = &snapshot.server;
    let https = server.https.iter().map(|address| (Role::Https, address));
    let http = server.http.iter().map(|address| (Role::Http, address));
    let admin = server.admin.iter();
    let admin = admin.map(|admin| (Role::Admin, &admin.listen));
    let stated: Vec<_> = https.chain(http).chain(admin).collect();
    let mut sockets = Vec::new();
    for (role, address) in &stated {
        let given = inherited.take(*role, address);
        if given.is_empty() {
            listener::expect_free(address).map_err(|cause| listen(address, cause))?;
        }
        sockets.push(given);
    }
    let words = stated
        .iter()
        .map(|(role, address)| format!("{role} `{address}`"));
    inherited.close(&words.collect::<Vec<_>>())?;
    let each = stated.into_iter().zip(sockets);
    each.map(|((role, address), mut sockets)| {
        let opened = if sockets.is_empty() {
            let workers = if role == Role::Admin { 1 } else { workers };
            listener::open(address, workers)
        } else {
            Ok(std::mem::take(&mut sockets))
        };
        opened
            .and_then(|sockets| Opened::new(role, address, sockets))
            .map_err(|cause| listen(address, cause))
    })
    .collect()
}

/// Asks all workers how many requests they have under way.
fn under_way(crew: &[Arc<Worker>]) -> impl Fn() -> u64 + Send + Sync + use<> {
    // Workers know the metrics, which must not hold them in turn.
    let crew: Vec<_> = crew.iter().map(Arc::downgrade).collect();
    move || {
        let workers = crew.iter().filter_map(Weak::upgrade);
        workers
            .map(|worker| worker.load.requests())
            .fold(0, |sum, requests| {
                sum + u64::try_from(requests).unwrap_or(u64::MAX)
            })
    }
}

fn listen(address: &ListenAddr, cause: std::io::Error) -> GateError {
    GateError::Listen {
        address: address.to_string(),
        cause,
    }
}

/// Starts the threads, which accept nothing until they are let. What can fail has failed behind this.
fn start_workers(
    crew: &[Arc<Worker>],
    opened: &[Opened],
    (opening, stopping): (&Opening, &Shutdown),
    room: usize,
) -> Result<Vec<thread::JoinHandle<()>>, GateError> {
    let caps = Arc::new(Caps::new(room));
    let mut doors: Vec<Vec<(Door, Listener)>> = crew.iter().map(|_| Vec::new()).collect();
    for opened in opened.iter().filter(|opened| opened.role != Role::Admin) {
        for (doors, share) in doors.iter_mut().zip(opened.shares(crew.len())?) {
            let door = opened.role.door();
            doors.extend(share.into_iter().map(|listener| (door, listener)));
        }
    }
    let mut threads = Vec::new();
    for (worker, doors) in crew.iter().zip(doors) {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let shift = Shift {
            worker: Arc::clone(worker),
            doors: watched(&runtime, doors)?,
            caps: Arc::clone(&caps),
            opening: opening.clone(),
            shutdown: stopping.clone(),
        };
        let thread = thread::Builder::new()
            .name(format!("worker-{}", worker.index))
            .spawn(move || worker::run(&runtime, shift))?;
        threads.push(thread);
    }
    Ok(threads)
}

fn watched(
    runtime: &Runtime,
    doors: Vec<(Door, Listener)>,
) -> std::io::Result<Vec<(Door, Entrance)>> {
    let _entered = runtime.enter();
    let doors = doors.into_iter();
    doors
        .map(|(door, listener)| Ok((door, Entrance::new(listener)?)))
        .collect()
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
    fn of(opened: &[Opened]) -> Self {
        let list = |role| {
            opened
                .iter()
                .filter(|opened| opened.role == role)
                .map(|opened| opened.address.clone())
                .collect()
        };
        Self {
            https: list(Role::Https),
            http: list(Role::Http),
            admin: list(Role::Admin),
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
        line.push('\n');
        // In one piece: during a hand-over two processes write here. It may be closed; the gate serves all the same.
        let _ = std::io::stderr().write_all(line.as_bytes());
    }
}
