//! The main thread while the workers serve: signals, file changes, the admin listener, key sets, and the end.

use std::{
    future::{Future, pending},
    pin::Pin,
    sync::Arc,
    thread,
    time::Duration,
};

use tokio::{
    runtime::Runtime,
    signal::unix::{Signal, SignalKind, signal},
};

use super::{
    admin::{self, Admin},
    gate::GateError,
    handover::{self, HandoverError, Predecessor, Prepared, Program},
    inherited::InheritError,
    listener::{Opened, Role},
    reload::{InUse, Reloader, retire},
    shutdown::{Announcer, Opener, Shutdown},
    watch::FileWatch,
    worker::Entrance,
};
use crate::{identity::issuer::Issuer, observe::access::AccessLog, upstream::watch};

/// What the main thread has at hand.
pub(super) struct Desk {
    pub(super) reloader: Arc<Reloader>,
    pub(super) announcer: Announcer,
    pub(super) stopping: Shutdown,
    pub(super) opener: Opener,
    pub(super) access: AccessLog,
    pub(super) runtime: Runtime,
    /// What a hand-over starts.
    pub(super) program: Option<Program>,
}

/// The listeners with the threads that accept on them, and the process whose place this one takes.
pub(super) struct Staff {
    pub(super) opened: Vec<Opened>,
    pub(super) threads: Vec<thread::JoinHandle<()>>,
    pub(super) predecessor: Option<Predecessor>,
}

/// How serving ends.
enum End {
    Stop,
    HandOver(Prepared),
}

/// One socket of the admin listener, with what answers there.
type Attended = (Entrance, Arc<Admin>);

/// How often is looked whether the keys have come.
const LOOK: Duration = Duration::from_millis(10);

/// A new process on its way to be ready.
type Pending<'a> = Pin<Box<dyn Future<Output = Result<Prepared, HandoverError>> + 'a>>;

impl Desk {
    /// Serves until it is told to stop or has handed over, and until the last request has ended.
    ///
    /// # Errors
    /// The system refuses a signal, or the former process does not hand over.
    pub(super) fn attend(
        &self,
        in_use: InUse,
        staff: Staff,
        ready: impl FnOnce(),
    ) -> Result<(), GateError> {
        self.runtime.block_on(async {
            let mut signals = Signals::new()?;
            let mut files = FileWatch::new();
            files.follow(&in_use.files, in_use.read);
            // Begins to fetch keys: a process without them would refuse what the former one lets pass.
            look_after(&in_use);
            let admin = self.admin(&in_use, &staff.opened)?;
            if let Some(predecessor) = staff.predecessor {
                let relieved = predecessor.relieve(self.keys_are_there());
                relieved.await.map_err(InheritError::Handover)?;
            }
            self.opener.open();
            for (entrance, admin) in admin {
                tokio::spawn(admin::run(entrance, admin));
            }
            // The first snapshot is let go at the first reload like any other.
            drop(in_use);
            ready();
            let _ = sd_notify::notify(&[sd_notify::NotifyState::Ready]);
            self.serve(&mut signals, &mut files, &staff.opened).await;
            // Whoever waits in a socket that nobody holds any more is told so by the system.
            drop(staff.opened);
            // The admin listener answers probes until the last request has ended.
            let threads = staff.threads;
            let mut ended = tokio::task::spawn_blocking(move || join(threads));
            // Draining may outlast the day on which logs are rotated.
            while tokio::select! {
                _ = &mut ended => false,
                _ = signals.reopen.recv() => true,
            } {
                self.access.reopen();
            }
            Ok(())
        })
    }

    /// Attends until stopping has begun.
    async fn serve(&self, signals: &mut Signals, files: &mut FileWatch, opened: &[Opened]) {
        loop {
            match self.until_end(signals, files, opened).await {
                End::Stop => {
                    tracing::info!("draining");
                    let _ = sd_notify::notify(&[sd_notify::NotifyState::Stopping]);
                    return self.announcer.begin();
                }
                End::HandOver(prepared) => match prepared.go().await {
                    Ok(process) => {
                        tracing::info!(process, "handed over, draining");
                        let _ = sd_notify::notify(&[sd_notify::NotifyState::MainPid(process)]);
                        return self.announcer.hand_over();
                    }
                    Err(error) => not_handed_over(&error),
                },
            }
        }
    }

    async fn until_end(
        &self,
        signals: &mut Signals,
        files: &mut FileWatch,
        opened: &[Opened],
    ) -> End {
        let mut newcomer: Option<Pending<'_>> = None;
        loop {
            tokio::select! {
                // The word of an operator comes before that of a new process.
                biased;
                _ = signals.terminate.recv() => return End::Stop,
                _ = signals.interrupt.recv() => return End::Stop,
                _ = signals.reopen.recv() => self.access.reopen(),
                _ = signals.hang_up.recv() => self.reload(files).await,
                () = files.changed() => self.reload(files).await,
                _ = signals.upgrade.recv() => {
                    if newcomer.is_some() {
                        tracing::warn!("a new process is being waited for already");
                    } else {
                        newcomer = Some(Box::pin(self.prepare(opened)));
                    }
                }
                outcome = settled(&mut newcomer) => {
                    newcomer = None;
                    match outcome {
                        Ok(prepared) => return End::HandOver(prepared),
                        Err(error) => not_handed_over(&error),
                    }
                }
            }
        }
    }

    /// Starts a new process over the same listeners.
    async fn prepare(&self, opened: &[Opened]) -> Result<Prepared, HandoverError> {
        tracing::info!("starting a new process");
        let limit = self.reloader.handover();
        handover::prepare(self.program.as_ref(), opened, limit).await
    }

    /// Compiles away from this thread, which must go on answering probes.
    async fn reload(&self, files: &mut FileWatch) {
        let reloader = Arc::clone(&self.reloader);
        files.look();
        let outcome = tokio::task::spawn_blocking(move || reloader.reload()).await;
        if let Ok(Some(in_use)) = outcome {
            // Before the new ones begin: what these find of a server must not undo what those do.
            if let Some(old) = &in_use.replaced {
                old.clusters.iter().for_each(|cluster| cluster.replace());
            }
            look_after(&in_use);
            files.follow(&in_use.files, in_use.read);
            in_use.replaced.map(|old| tokio::spawn(retire(old)));
        }
    }

    /// Resolves once `/readyz` would answer 200.
    async fn keys_are_there(&self) {
        let issuers = &self.reloader.survivors.issuers;
        if !issuers.are_ready() {
            tracing::info!("waiting for the keys of issuers before taking over");
        }
        while !issuers.are_ready() {
            tokio::time::sleep(LOOK).await;
        }
    }

    /// What is to serve on the admin listener.
    fn admin(&self, in_use: &InUse, opened: &[Opened]) -> std::io::Result<Vec<Attended>> {
        let Some(opened) = opened.iter().find(|opened| opened.role == Role::Admin) else {
            return Ok(Vec::new());
        };
        let rules = &in_use.snapshot.server;
        let admin = Arc::new(Admin {
            survivors: Arc::clone(&self.reloader.survivors),
            token: rules.admin.as_ref().and_then(|admin| admin.token.clone()),
            shutdown: self.stopping.clone(),
        });
        let listeners = opened.shares(1)?.into_iter().flatten();
        listeners
            .map(|listener| Ok((Entrance::new(listener)?, Arc::clone(&admin))))
            .collect()
    }
}

/// What became of the new process, once there is one.
async fn settled(newcomer: &mut Option<Pending<'_>>) -> Result<Prepared, HandoverError> {
    match newcomer {
        Some(newcomer) => newcomer.await,
        None => pending().await,
    }
}

fn not_handed_over(error: &HandoverError) {
    tracing::error!(%error, "not handed over, this process goes on serving");
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hang_up: Signal,
    reopen: Signal,
    upgrade: Signal,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hang_up: signal(SignalKind::hangup())?,
            reopen: signal(SignalKind::user_defined1())?,
            upgrade: signal(SignalKind::user_defined2())?,
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
