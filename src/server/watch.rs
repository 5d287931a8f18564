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
use rustix::time::{ClockId, clock_gettime};
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
    /// What is in use may be older than what the files hold.
    outdated: bool,
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
            outdated: false,
            names,
            changed,
        }
    }

    /// Watches the folders of these files from now on, and those behind links. They began to be read at `read`, by
    /// [`time_of_changes`]: what changed between that and the watch is told by [`FileWatch::changed`] at once.
    pub fn follow(&mut self, files: &[PathBuf], read: SystemTime) {
        self.watch(files);
        let now = marks(files);
        self.outdated |= files.iter().zip(&now).any(|(file, mark)| {
            let known = self.files.iter().position(|known| known == file);
            let before = known.and_then(|place| self.marks.get(place));
            before != Some(mark) && is_younger(file, read)
        });
        files.clone_into(&mut self.files);
        self.marks = now;
    }

    /// Takes note of how the files look, before they are read anew: what looks the same afterwards was read as it is.
    pub fn look(&mut self) {
        self.marks = marks(&self.files);
    }

    fn watch(&mut self, files: &[PathBuf]) {
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
        if std::mem::take(&mut self.outdated) {
            return;
        }
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
            let mut pairs = self.files.iter().zip(self.marks.iter().zip(&marks));
            if let Some((file, _)) = pairs.find(|(_, (before, now))| before != now) {
                tracing::info!(file = %file.display(), "a file changed, reloading");
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

/// The time by the clock that changes of files are stated by. It is coarse: behind every other clock, by up to a tick.
pub fn time_of_changes() -> SystemTime {
    let now = clock_gettime(ClockId::RealtimeCoarse);
    let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
    let nanos = u32::try_from(now.tv_nsec).unwrap_or(0);
    SystemTime::UNIX_EPOCH + Duration::new(seconds, nanos)
}

/// Whether a file, or the folder behind a link that leads to it, was changed since. By the time that the system keeps of
/// changes: that of the contents can be set to anything.
fn is_younger(file: &Path, than: SystemTime) -> bool {
    // A name without a folder has an empty parent, and differs from what it leads to although it is no link.
    let Ok(file) = std::path::absolute(file) else {
        return false;
    };
    let since = than
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    let changed = |path: &Path| {
        std::fs::metadata(path).is_ok_and(|meta| {
            let seconds = u64::try_from(meta.ctime()).unwrap_or(0);
            let nanos = u32::try_from(meta.ctime_nsec()).unwrap_or(0);
            Duration::new(seconds, nanos) >= since
        })
    };
    let linked = std::fs::canonicalize(&file).is_ok_and(|behind| behind != file);
    changed(&file) || linked && file.parent().is_some_and(changed)
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

#[cfg(test)]
mod tests {
    use super::*;

    const SOON: Duration = Duration::from_millis(500);

    fn run(test: impl Future<Output = ()>) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build();
        runtime.expect("a runtime").block_on(test);
    }

    fn far_ahead() -> SystemTime {
        SystemTime::now() + Duration::from_hours(1)
    }

    async fn is_told(watch: &mut FileWatch) -> bool {
        tokio::time::timeout(SOON, watch.changed()).await.is_ok()
    }

    #[test]
    fn what_changed_between_the_reading_and_the_watch_is_told_once() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("gate.toml");
        std::fs::write(&file, "a").expect("written");
        let changed = std::fs::metadata(&file).expect("a file");
        let changed = Duration::new(
            u64::try_from(changed.ctime()).expect("after 1970"),
            u32::try_from(changed.ctime_nsec()).expect("a part of a second"),
        );
        let changed = SystemTime::UNIX_EPOCH + changed;
        run(async {
            let mut watch = FileWatch::new();
            let files = [file.clone()];
            watch.follow(&files, changed + Duration::from_nanos(1));
            assert!(!is_told(&mut watch).await, "read after its last change");
            let mut watch = FileWatch::new();
            watch.follow(&files, changed);
            assert!(is_told(&mut watch).await, "read before its last change");
            // A reload that reads it anew finds it as it was marked.
            watch.follow(&files, changed);
            assert!(!is_told(&mut watch).await, "told already");
            // Changed while that reload read it.
            std::fs::write(&file, "other").expect("written");
            watch.follow(&files, changed);
            assert!(watch.outdated, "changed after it was read");
            // One that was changed and then read, by the order of an operator.
            std::fs::write(&file, "another").expect("written");
            let mut watch = FileWatch::new();
            watch.follow(&files, far_ahead());
            std::fs::write(&file, "and another").expect("written");
            watch.follow(&files, far_ahead());
            assert!(!watch.outdated, "read after its last change");
        });
    }

    #[test]
    fn a_change_counts_that_comes_at_once_after_the_reading_began() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("gate.toml");
        for turn in 0..200 {
            let read = time_of_changes();
            std::fs::write(&file, turn.to_string()).expect("written");
            assert!(is_younger(&file, read), "turn {turn}");
        }
    }

    #[test]
    fn a_name_without_a_folder_is_looked_up_where_the_program_runs() {
        // Tests run in the folder of the package, where this stands.
        let file = Path::new("Cargo.toml");
        assert!(is_younger(file, SystemTime::UNIX_EPOCH));
        let behind = std::fs::metadata(file).expect("a file");
        let changed = u64::try_from(behind.ctime()).expect("after 1970") + 1;
        let after = SystemTime::UNIX_EPOCH + Duration::from_secs(changed);
        // The folder has changed since, by the build; that counts only where a link leads to the file.
        assert!(!is_younger(file, after));
    }

    #[test]
    fn a_folder_that_a_link_leads_into_counts_by_its_own_change() {
        let folder = tempfile::tempdir().expect("a folder");
        let (one, other) = (folder.path().join("one"), folder.path().join("other"));
        for place in [&one, &other] {
            std::fs::create_dir(place).expect("a folder");
            std::fs::write(place.join("gate.toml"), "a").expect("written");
        }
        let (file, data) = (folder.path().join("gate.toml"), folder.path().join("data"));
        std::os::unix::fs::symlink(&one, &data).expect("a link");
        std::os::unix::fs::symlink(data.join("gate.toml"), &file).expect("a link");
        // The clock of a file system is coarse: the change must fall behind all this.
        let began = SystemTime::now();
        assert!(!is_younger(&file, began + Duration::from_millis(50)));
        let fresh = folder.path().join("fresh");
        while began.elapsed().expect("time goes on") < Duration::from_secs(10) {
            std::os::unix::fs::symlink(&other, &fresh).expect("a link");
            std::fs::rename(&fresh, &data).expect("swapped");
            if is_younger(&file, began + Duration::from_millis(50)) {
                return;
            }
            std::thread::yield_now();
        }
        panic!("the file behind is older than the swap, which counts");
    }
}
