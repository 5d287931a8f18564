//! Notices changes of files. Folders are watched, not files: editors and Kubernetes replace files and swap links.

use std::{
    collections::BTreeSet,
    ffi::OsString,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher, event::ModifyKind};
use tokio::sync::mpsc;

/// Changes that come together are one change.
const SETTLE: Duration = Duration::from_millis(150);
/// A folder in which something else writes all the time never settles; then this is waited for.
const SETTLE_MOST: Duration = Duration::from_secs(1);

/// Watches the folders of some files.
#[derive(Debug)]
pub struct FileWatch {
    watcher: Option<RecommendedWatcher>,
    folders: BTreeSet<PathBuf>,
    files: Vec<PathBuf>,
    marks: Vec<Mark>,
    /// Names of the files, whatever their folder.
    names: Names,
    changed: mpsc::Receiver<()>,
}

type Names = Arc<Mutex<BTreeSet<OsString>>>;

/// Whether a change may be one of ours. A write to another file of the folder is not: it may be our own log, written
/// many times a second. A file that comes, goes or is renamed may stand behind a link.
fn counts(event: &notify::Event, names: &Names) -> bool {
    match event.kind {
        EventKind::Access(_) => false,
        EventKind::Modify(ModifyKind::Data(_) | ModifyKind::Metadata(_)) => {
            let names = names.lock().unwrap_or_else(PoisonError::into_inner);
            event
                .paths
                .iter()
                .any(|path| path.file_name().is_some_and(|name| names.contains(name)))
        }
        _ => true,
    }
}

impl FileWatch {
    /// Watches nothing yet. Where the system offers no notice of changes, SIGHUP still works.
    pub fn new() -> Self {
        // One place is enough: the word is "something changed", and a second word says nothing more.
        let (sender, changed) = mpsc::channel(1);
        let names = Arc::new(Mutex::new(BTreeSet::new()));
        let wanted = Arc::clone(&names);
        let watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            if event.is_ok_and(|event| counts(&event, &wanted)) {
                let _ = sender.try_send(());
            }
        });
        let watcher = watcher
            .map_err(|error| tracing::warn!(%error, "files are not watched; reload by SIGHUP"))
            .ok();
        Self {
            watcher,
            folders: BTreeSet::new(),
            files: Vec::new(),
            marks: Vec::new(),
            names,
            changed,
        }
    }

    /// Watches the folders of these files from now on, and those behind links.
    pub fn follow(&mut self, files: &[PathBuf]) {
        files.clone_into(&mut self.files);
        self.marks = marks(files);
        *self.names.lock().unwrap_or_else(PoisonError::into_inner) = files
            .iter()
            .flat_map(|file| [Some(file.clone()), std::fs::canonicalize(file).ok()])
            .filter_map(|file| file?.file_name().map(OsString::from))
            .collect();
        let wanted: BTreeSet<PathBuf> = files.iter().flat_map(|file| folders(file)).collect();
        let Some(watcher) = &mut self.watcher else {
            return;
        };
        for gone in self.folders.difference(&wanted) {
            let _ = watcher.unwatch(gone);
        }
        for new in wanted.difference(&self.folders) {
            if let Err(error) = watcher.watch(new, RecursiveMode::NonRecursive) {
                tracing::warn!(folder = %new.display(), %error, "folder is not watched; reload by SIGHUP");
            }
        }
        self.folders = wanted;
    }

    /// Resolves when one of the files changed and has settled. Never, when nothing can be watched.
    pub async fn changed(&mut self) {
        loop {
            if self.changed.recv().await.is_none() {
                std::future::pending::<()>().await;
            }
            let settle = async {
                while tokio::time::timeout(SETTLE, self.changed.recv())
                    .await
                    .is_ok_and(|word| word.is_some())
                {}
            };
            let _ = tokio::time::timeout(SETTLE_MOST, settle).await;
            // A watched folder may hold a busy log: only the files themselves count.
            let marks = marks(&self.files);
            if marks != self.marks {
                self.marks = marks;
                return;
            }
        }
    }
}

/// What a file looked like: its identity, size and time of change, and what a folder holds.
#[derive(Debug, PartialEq, Eq)]
struct Mark(Option<(u64, u64, SystemTime)>, Vec<OsString>);

fn marks(files: &[PathBuf]) -> Vec<Mark> {
    files.iter().map(|file| mark(file)).collect()
}

fn mark(file: &Path) -> Mark {
    let Ok(meta) = std::fs::metadata(file) else {
        return Mark(None, Vec::new());
    };
    if meta.is_dir() {
        let names = std::fs::read_dir(file)
            .into_iter()
            .flatten()
            .flatten()
            .map(|entry| entry.file_name());
        let mut names: Vec<OsString> = names.collect();
        names.sort();
        return Mark(None, names);
    }
    let time = meta.modified().unwrap_or(SystemTime::UNIX_EPOCH);
    Mark(Some((meta.ino(), meta.len(), time)), Vec::new())
}

impl Default for FileWatch {
    fn default() -> Self {
        Self::new()
    }
}

fn folders(file: &Path) -> Vec<PathBuf> {
    let parent = |path: &Path| {
        let parent = if path.is_dir() {
            Some(path)
        } else {
            path.parent()
        };
        parent.map(|parent| {
            if parent.as_os_str().is_empty() {
                PathBuf::from(".")
            } else {
                parent.to_owned()
            }
        })
    };
    let behind = std::fs::canonicalize(file).ok();
    parent(file)
        .into_iter()
        .chain(behind.as_deref().and_then(parent))
        .collect()
}
