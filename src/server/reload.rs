//! From a configuration file to the running snapshot, at start and again at each reload.
//!
//! A reload swaps everything or nothing: a file with errors leaves the old policy in place, says why, and is counted.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError, Weak},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use super::watch;
use crate::{
    config::{self, Color, Loaded, Problem, Severity, render},
    identity::{issuer::Issuer, once::Used},
    observe::{
        log,
        metrics::{
            BanReading, IssuerReading, LimiterReading, ReloadOutcome, ReplayReading, SessionReading,
        },
    },
    pipeline::worker::Worker,
    snapshot::{Snapshot, compile, server::Fixed, survivors::Survivors},
    state::clock,
};

/// Where the configuration comes from.
#[derive(Clone, Debug)]
pub enum Source {
    /// A file, with overrides of the command line.
    File(PathBuf, Vec<String>),
    /// A text made by the program itself, under a name for messages.
    Text(String, String, Vec<String>),
}

impl Source {
    /// Reads it.
    pub fn load(&self) -> Loaded {
        match self {
            Self::File(path, overrides) => config::load(path, overrides),
            Self::Text(name, text, overrides) => config::load_str(name, text, overrides),
        }
    }

    /// The file, when there is one.
    pub fn path(&self) -> Option<&Path> {
        match self {
            Self::File(path, _) => Some(path),
            Self::Text(..) => None,
        }
    }
}

/// A configuration that is in use.
#[derive(Debug)]
pub struct InUse {
    /// What requests run on.
    pub snapshot: Arc<Snapshot>,
    /// Files and folders to watch.
    pub files: Vec<PathBuf>,
    /// When they began to be read.
    pub read: SystemTime,
    /// Issuers whose keys are to be kept fresh.
    pub fresh_issuers: Vec<Arc<Issuer>>,
    /// What requests ran on before, to be handed to [`retire`].
    pub replaced: Option<Arc<Snapshot>>,
}

/// Loads and compiles, and puts what outlives a reload to use.
///
/// # Errors
/// The problems, rendered for people; nothing was changed.
pub fn bring_up(source: &Source, survivors: &Survivors, color: Color) -> Result<InUse, String> {
    let read = watch::time_of_changes();
    let loaded = source.load();
    let problems = &loaded.problems;
    let compiled = compile::compile(&loaded, problems, survivors);
    let Some(compiled) = compiled else {
        survivors.metrics.forget_unused();
        return Err(rendered(&loaded, color, |problem| {
            problem.severity == Severity::Error
        }));
    };
    let fresh_issuers = compiled.keep(survivors);
    observe(&compiled, survivors);
    Ok(InUse {
        files: compiled.files.clone(),
        read,
        snapshot: Arc::new(compiled.snapshot),
        fresh_issuers,
        replaced: None,
    })
}

/// The problems of a loaded file that a caller wants to see.
fn rendered(loaded: &Loaded, color: Color, wanted: impl Fn(&Problem) -> bool) -> String {
    let list: Vec<Problem> = loaded
        .problems
        .sorted()
        .into_iter()
        .filter(|problem| wanted(problem))
        .collect();
    render(&list, &loaded.sources, color)
}

fn remembered(name: &str, store: &Used) -> ReplayReading {
    ReplayReading {
        name: name.to_owned(),
        entries: u64::try_from(store.entries()).unwrap_or(u64::MAX),
        refused: store.refused().to_vec(),
    }
}

fn observe_sessions(survivors: &Survivors) {
    let (sessions, tries) = (
        Arc::clone(&survivors.sessions),
        Arc::clone(&survivors.tries),
    );
    survivors.metrics.watch_sessions(move || {
        let (pending, proven) = sessions.count();
        SessionReading {
            pending,
            proven,
            refused: sessions.refused(),
            tries: tries.outcomes(),
        }
    });
}

/// Points the metrics at what is in use now.
fn observe(compiled: &compile::Compiled, survivors: &Survivors) {
    for limiter in compiled.limiters() {
        let watched = Arc::downgrade(&limiter.thing);
        survivors.metrics.watch_limiter(&limiter.name, move || {
            watched
                .upgrade()
                .map_or_else(LimiterReading::default, |limiter| LimiterReading {
                    entries: u64::try_from(limiter.entries()).unwrap_or(u64::MAX),
                    evictions: limiter.evictions(),
                })
        });
    }
    let bans = Arc::clone(&survivors.bans.enforced);
    survivors.metrics.watch_bans(move || {
        let reading = bans.reading(clock::now_ns());
        BanReading {
            remembered: reading.remembered,
            banned: reading.banned,
            begun: reading.begun,
            evictions: reading.evictions,
        }
    });
    if compiled.factor().is_some() {
        observe_sessions(survivors);
    }
    let issuers: Vec<_> = compiled.issuers().iter().map(Arc::downgrade).collect();
    survivors.metrics.watch_issuers(move || {
        issuers
            .iter()
            .filter_map(Weak::upgrade)
            .map(|issuer| reading(&issuer))
            .collect()
    });
    let replays: Vec<_> = compiled
        .replays()
        .iter()
        .map(|store| (store.name.to_string(), Arc::downgrade(&store.thing)))
        .collect();
    survivors.metrics.watch_replays(move || {
        let held = replays.iter();
        held.filter_map(|(name, store)| store.upgrade().map(|store| remembered(name, &store)))
            .collect()
    });
    let certificates = compiled
        .snapshot
        .tls
        .iter()
        .flat_map(|tls| tls.certificates.all());
    let certificates = certificates.map(|certificate| {
        let end = u64::try_from(certificate.not_after).unwrap_or(0);
        (certificate.label.clone(), end)
    });
    let clients = compiled.snapshot.tls.as_ref();
    let clients = clients.and_then(|tls| tls.clients.as_ref());
    let lists = clients.map_or(&[][..], |clients| clients.thing.lists());
    let ends = certificates.chain(lists.iter().cloned());
    survivors
        .metrics
        .set_certificates(ends.map(|(name, end)| (name, UNIX_EPOCH + Duration::from_secs(end))));
}

fn reading(issuer: &Issuer) -> IssuerReading {
    IssuerReading {
        name: issuer.rules().name.to_string(),
        tokens: issuer.counts().tokens().collect(),
        fetches: issuer.counts().fetches().to_vec(),
        questions: issuer.counts().questions().collect(),
        entries: issuer.entries().to_vec(),
    }
}

/// How often is looked whether a snapshot is still used by a request.
const RETIRE_TICK: Duration = Duration::from_millis(250);

/// Holds a snapshot until no request uses it any more and frees it on a thread that serves nobody.
pub async fn retire(snapshot: Arc<Snapshot>) {
    while Arc::strong_count(&snapshot) > 1 {
        tokio::time::sleep(RETIRE_TICK).await;
    }
    let _ = tokio::task::spawn_blocking(move || drop(snapshot)).await;
}

/// Reloads while the proxy runs.
#[derive(Debug)]
pub struct Reloader {
    /// Where the configuration comes from.
    pub source: Source,
    /// What outlives a reload.
    pub survivors: Arc<Survivors>,
    /// Who is to be given the new snapshot.
    pub workers: Vec<Arc<Worker>>,
    /// What was set up at the start.
    pub fixed: Fixed,
    /// One reload at a time.
    pub turn: Mutex<()>,
}

impl Reloader {
    /// How long a new process may take to get ready, as the file says now.
    pub fn handover(&self) -> Duration {
        let worker = self.workers.first();
        worker.map_or(Duration::ZERO, |worker| worker.snapshot().server.handover)
    }

    /// Reloads once. `None` when the new file is not usable: the old policy goes on.
    pub fn reload(&self) -> Option<InUse> {
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        match bring_up(&self.source, &self.survivors, Color::Never) {
            Ok(mut in_use) => {
                self.read_issuers();
                for worker in &self.workers {
                    in_use.replaced = Some(worker.replace(Arc::clone(&in_use.snapshot)));
                }
                if let Ok(level) = in_use.snapshot.server.log.level.parse() {
                    log::set_level(level);
                }
                self.survivors.reloads.send_replace(());
                self.survivors.metrics.reload(ReloadOutcome::Applied);
                tracing::info!("configuration reloaded");
                if let Some(portal) = &in_use.snapshot.portal {
                    portal.tell_of_trouble();
                }
                self.tell_of_restart(&in_use.snapshot);
                Some(in_use)
            }
            Err(problems) => {
                self.survivors.metrics.reload(ReloadOutcome::Rejected);
                tracing::error!(%problems, "configuration not reloaded, the old one stays");
                None
            }
        }
    }

    /// Reads the key files and the lists of revoked tokens of the issuers that stay as they are. Only behind a good file: a
    /// reload that is rejected changes nothing.
    fn read_issuers(&self) {
        for issuer in self.survivors.issuers.list() {
            for error in issuer.reload_files().err().into_iter().flatten() {
                tracing::error!(%error, "a file of an issuer is not reloaded, its last good content stays");
            }
        }
    }

    /// A change that a reload cannot bring about must not look as if it were in force.
    fn tell_of_restart(&self, snapshot: &Snapshot) {
        let keys = self.fixed.changed_in(&snapshot.server.fixed());
        if !keys.is_empty() {
            tracing::warn!(keys = %keys.join(", "), "a change takes effect after a restart only");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GATE: &str = r#"
[server]
http = ["127.0.0.1:0"]
plaintext = true

[upstreams.a]
servers = ["http://127.0.0.1:9"]

[[blueprints]]
name = "one"
upstream = "a"
auth = "public"
"#;

    #[test]
    fn a_snapshot_is_freed_by_who_retires_it_and_not_before_the_last_request() {
        let source = Source::Text("t.toml".to_owned(), GATE.to_owned(), Vec::new());
        let survivors = Survivors::new(1);
        let in_use = bring_up(&source, &survivors, Color::Never).expect("a good file");
        let request = Arc::clone(&in_use.snapshot);
        let watched = Arc::downgrade(&request);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .expect("a runtime");
        runtime.block_on(async {
            let mut retired = tokio::spawn(retire(in_use.snapshot));
            let early = tokio::time::timeout(RETIRE_TICK * 2, &mut retired).await;
            assert!(early.is_err(), "a request runs on it");
            drop(request);
            assert!(watched.upgrade().is_some(), "the request did not free it");
            retired.await.expect("it ends");
        });
        assert!(watched.upgrade().is_none());
    }
}
