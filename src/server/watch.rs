//! Notices changes of files. Folders are watched, not files: editors and Kubernetes replace files and swap links.

use std::{
    collections::BTreeSet,
    ffi::OsString,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use notify::{RecommendedWatcher, RecursiveMode, Watcher};
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
    changed: mpsc::Receiver<()>,
}

impl FileWatch {
    /// Watches nothing yet. Where the system offers no notice of changes, SIGHUP still works.
    pub fn new() -> Self {
        // One place is enough: the word is "something changed", and a second word says nothing more.
        let (sender, changed) = mpsc::channel(1);
        let watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            if event.is_ok_and(|event| !event.kind.is_access()) {
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
            changed,
        }
    }

    /// Watches the folders of these files from now on, and those behind links.
    pub fn follow(&mut self, files: &[PathBuf]) {
        files.clone_into(&mut self.files);
        self.marks = marks(files);
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
