//! Carries access lines from the workers to a file or to stdout, and never makes a request wait.
//!
//! Each worker owns an [`AccessSink`], a buffer that only it writes. Full buffers go through a bounded
//! [`super::relay`] to one writer thread, and come back when they are written. A target that is full, closed or
//! blocked costs lines, not requests: what cannot be handed over or written is counted, and said in the program's log
//! at most once in ten seconds.
//!
//! It does not rotate files; it opens the path again when asked ([`AccessLog::reopen`], for SIGUSR1).

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::access::{AccessRecord, write_line};
use super::relay::{Giver, Reader, Room, Task, relay};

/// A worker hands its buffer over when this much stands in it: with the line that filled it, it still fits a pipe.
const FLUSH_BYTES: usize = 60 * 1024;
/// What a buffer is made with.
const BUFFER_BYTES: usize = 64 * 1024;
/// Buffers that may wait for the writer, about 4 MiB.
const QUEUE: usize = 64;
const COMPLAIN_EVERY: Duration = Duration::from_secs(10);
const RETRY: Duration = Duration::from_millis(5);

/// Where access lines go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// Standard output.
    Stdout,
    /// The end of a file, made with mode 0640 if it is not there.
    File(PathBuf),
    /// Nowhere; nothing is formatted either.
    Off,
}

/// The log as a whole: hands out sinks, reopens, ends.
#[derive(Debug)]
pub struct AccessLog {
    giver: Option<Giver>,
    shared: Arc<Shared>,
}

/// One worker's end of the log.
#[derive(Debug)]
pub struct AccessSink {
    giver: Option<Giver>,
    shared: Arc<Shared>,
    bytes: Vec<u8>,
    lines: u64,
}

#[derive(Debug, Default)]
struct Shared {
    dropped: AtomicU64,
}

impl AccessLog {
    /// Opens the target and starts the writer thread; none for [`Target::Off`].
    ///
    /// # Errors
    /// When the file cannot be opened, stdout is closed, or the thread cannot be started.
    pub fn open(target: Target) -> io::Result<Self> {
        match target {
            Target::Off => Ok(Self {
                giver: None,
                shared: Arc::default(),
            }),
            Target::Stdout => {
                Self::start(File::from(io::stdout().as_fd().try_clone_to_owned()?), None)
            }
            Target::File(path) => Self::start(open_file(&path)?, Some(path)),
        }
    }

    fn start(output: impl Write + Send + 'static, path: Option<PathBuf>) -> io::Result<Self> {
        let (giver, reader) = relay(Room {
            buffers: QUEUE,
            capacity: BUFFER_BYTES,
        });
        let shared = Arc::new(Shared::default());
        let writer = Writer {
            output: Box::new(output),
            path,
            shared: Arc::clone(&shared),
            torn: false,
            complained: None,
        };
        thread::Builder::new()
            .name("access-log".to_owned())
            .spawn(move || writer.run(&reader))?;
        Ok(Self {
            giver: Some(giver),
            shared,
        })
    }

    /// A sink for one worker.
    pub fn sink(&self) -> AccessSink {
        AccessSink {
            giver: self.giver.clone(),
            shared: Arc::clone(&self.shared),
            bytes: Vec::new(),
            lines: 0,
        }
    }

    /// Lines lost so far, to a full queue or to a target that would not take them.
    pub fn dropped(&self) -> u64 {
        self.shared.dropped.load(Ordering::Relaxed)
    }

    /// The same count for whoever outlives this value, such as the metrics.
    pub fn dropped_probe(&self) -> impl Fn() -> u64 + Send + Sync + 'static {
        let shared = Arc::clone(&self.shared);
        move || shared.dropped.load(Ordering::Relaxed)
    }

    /// Opens the file at its path again, after whoever rotates logs has moved the old one; the old one is kept if that fails.
    pub fn reopen(&self) {
        if let Some(giver) = &self.giver {
            giver.reopen();
        }
    }

    /// Waits until what the sinks have handed over is written, at most for `patience`; drop the sinks first.
    pub fn shutdown(&self, patience: Duration) {
        if let Some(giver) = &self.giver {
            giver.stop(patience);
        }
    }
}

impl AccessSink {
    /// Whether lines go anywhere; if not, a caller may spare itself the record.
    pub fn is_on(&self) -> bool {
        self.giver.is_some()
    }

    /// Writes one line into the buffer, and hands the buffer over when it is full.
    pub fn append(&mut self, record: &AccessRecord<'_>) {
        if self.giver.is_none() {
            return;
        }
        write_line(record, &mut self.bytes);
        self.lines += 1;
        if self.bytes.len() >= FLUSH_BYTES {
            self.flush();
        }
    }

    /// Hands over what has gathered; called by the worker about ten times a second.
    pub fn tick(&mut self) {
        self.flush();
    }

    fn flush(&mut self) {
        let Some(giver) = &self.giver else { return };
        if self.lines == 0 {
            return;
        }
        // A full buffer is handed over as it is. A quiet worker's few lines are copied, so that its queue stays small, and
        // what comes back for them is freed: it has no use for a second buffer.
        let is_taken = if self.bytes.len() < FLUSH_BYTES / 2 {
            giver.give(self.bytes.as_slice().to_vec()).map(drop).is_ok()
        } else {
            exchange(giver, &mut self.bytes)
        };
        if !is_taken {
            self.shared.dropped.fetch_add(self.lines, Ordering::Relaxed);
        }
        self.bytes.clear();
        self.lines = 0;
    }
}

impl Drop for AccessSink {
    fn drop(&mut self) {
        self.flush();
    }
}

/// Puts an empty buffer of full size in place of the one that is handed over; whether there was room for it.
fn exchange(giver: &Giver, bytes: &mut Vec<u8>) -> bool {
    let answer = giver.give(std::mem::take(bytes));
    let is_taken = answer.is_ok();
    *bytes = answer.unwrap_or_else(|refused| refused);
    if bytes.capacity() == 0 {
        *bytes = Vec::with_capacity(BUFFER_BYTES);
    }
    is_taken
}

/// The thread at the other end.
struct Writer {
    output: Box<dyn Write + Send>,
    /// Set when the output is a file that can be opened again.
    path: Option<PathBuf>,
    shared: Arc<Shared>,
    /// The last write stopped in the middle of a line.
    torn: bool,
    complained: Option<Instant>,
}

impl Writer {
    fn run(mut self, reader: &Reader) {
        let mut used = None;
        while let Some(task) = reader.next(used.take()) {
            match task {
                Task::Write(lines) => {
                    self.write(&lines);
                    used = Some(lines);
                }
                Task::Reopen => self.reopen(),
            }
        }
    }

    fn write(&mut self, bytes: &[u8]) {
        // The rest of a torn line is lost; a newline keeps it from spoiling the next one.
        if self.torn && write_all(&mut self.output, b"\n").is_ok() {
            self.torn = false;
        }
        let Err((error, rest)) = write_all(&mut self.output, bytes) else {
            return;
        };
        let written = bytes.len() - rest.len();
        self.torn |= written > 0 && bytes.get(written - 1) != Some(&b'\n');
        self.shared
            .dropped
            .fetch_add(count_lines(rest), Ordering::Relaxed);
        self.complain(&error);
    }

    fn reopen(&mut self) {
        let Some(path) = &self.path else { return };
        match open_file(path) {
            Ok(file) => {
                self.output = Box::new(file);
                self.torn = false;
                tracing::info!(path = %path.display(), "access log reopened");
            }
            Err(error) => {
                tracing::error!(path = %path.display(), %error, "cannot reopen the access log, the old file goes on");
            }
        }
    }

    fn complain(&mut self, error: &io::Error) {
        if self
            .complained
            .is_some_and(|at| at.elapsed() < COMPLAIN_EVERY)
        {
            return;
        }
        self.complained = Some(Instant::now());
        let dropped = self.shared.dropped.load(Ordering::Relaxed);
        tracing::error!(%error, dropped, "cannot write access lines, requests go on without them");
    }
}

fn write_all<'a>(output: &mut impl Write, bytes: &'a [u8]) -> Result<(), (io::Error, &'a [u8])> {
    let mut rest = bytes;
    while !rest.is_empty() {
        match output.write(rest) {
            Ok(0) => return Err((io::ErrorKind::WriteZero.into(), rest)),
            Ok(written) => rest = rest.get(written..).unwrap_or_default(),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            // Someone made our stdout non-blocking: as good as a slow one.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => thread::park_timeout(RETRY),
            Err(error) => return Err((error, rest)),
        }
    }
    Ok(())
}

fn count_lines(bytes: &[u8]) -> u64 {
    memchr::memchr_iter(b'\n', bytes).map(|_| 1).sum()
}

fn open_file(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o640)
        .open(path)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;
    use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
    use std::time::SystemTime;

    use http::{Method, Version};

    use super::super::access::Decision;
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(10);

    fn append(sink: &mut AccessSink, path: &str) {
        sink.append(&AccessRecord {
            timestamp: SystemTime::now(),
            method: &Method::GET,
            scheme: "https",
            server_address: None,
            path: path.as_bytes(),
            query: None,
            redact_query: &[],
            route: None,
            status: Some(200),
            request_size: 0,
            response_size: 0,
            version: Version::HTTP_11,
            tls_version: None,
            client: None,
            peer: None,
            user_agent: None,
            enduser: None,
            trace_id: None,
            span_id: None,
            request_id: None,
            duration: Duration::ZERO,
            upstream: None,
            blueprint: None,
            decision: Decision::Forwarded,
            stage: None,
            reason: None,
            detail: None,
            would_refuse: &[],
        });
    }

    fn paths(file: &Path) -> Vec<String> {
        let text = fs::read_to_string(file).unwrap();
        let read = |line: &str| serde_json::from_str::<serde_json::Value>(line).unwrap();
        text.lines()
            .map(|line| read(line)["url.path"].as_str().unwrap().to_owned())
            .collect()
    }

    fn eventually(mut holds: impl FnMut() -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !holds() {
            assert!(Instant::now() < deadline, "not in time");
            thread::park_timeout(RETRY);
        }
    }

    /// Takes bytes only while it is let; says when it is asked.
    struct Gate {
        asked: SyncSender<()>,
        open: Receiver<()>,
    }

    impl Write for Gate {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let _ = self.asked.send(());
            let _ = self.open.recv();
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn lines_reach_the_file_in_order_and_the_rest_at_the_end() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("access.log");
        let log = AccessLog::open(Target::File(file.clone())).unwrap();
        let mut sink = log.sink();
        for n in 0..1000 {
            append(&mut sink, &format!("/{n}"));
        }
        drop(sink);
        log.shutdown(PATIENCE);
        assert_eq!(
            paths(&file),
            (0..1000).map(|n| format!("/{n}")).collect::<Vec<_>>()
        );
        assert_eq!(log.dropped(), 0);
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o137, 0);
    }

    #[test]
    fn a_rotated_file_is_opened_again() {
        let dir = tempfile::tempdir().unwrap();
        let [file, old] = ["access.log", "access.log.1"].map(|name| dir.path().join(name));
        let log = AccessLog::open(Target::File(file.clone())).unwrap();
        let mut sink = log.sink();
        append(&mut sink, "/before");
        sink.tick();
        eventually(|| fs::metadata(&file).unwrap().len() > 0);
        fs::rename(&file, &old).unwrap();
        log.reopen();
        eventually(|| file.exists());
        append(&mut sink, "/after");
        drop(sink);
        log.shutdown(PATIENCE);
        assert_eq!(paths(&old), ["/before"]);
        assert_eq!(paths(&file), ["/after"]);
    }

    #[test]
    fn a_full_disk_costs_lines_and_is_counted() {
        let log = AccessLog::open(Target::File("/dev/full".into())).unwrap();
        let mut sink = log.sink();
        for _ in 0..3 {
            append(&mut sink, "/");
            sink.tick();
        }
        eventually(|| log.dropped() == 3);
    }

    #[test]
    fn a_blocked_target_never_blocks_a_worker() {
        let (asked, was_asked) = sync_channel(2 * QUEUE);
        let (open, gate) = sync_channel(2 * QUEUE);
        let log = AccessLog::start(Gate { asked, open: gate }, None).unwrap();
        let mut sink = log.sink();
        let mut send = |count| {
            for _ in 0..count {
                append(&mut sink, "/");
                sink.tick();
            }
        };
        send(1);
        was_asked.recv_timeout(PATIENCE).unwrap();
        send(QUEUE + 10);
        assert_eq!(log.dropped(), 10);
        log.shutdown(Duration::from_millis(20));
        drop(open);
        drop(sink);
        log.shutdown(PATIENCE);
        assert_eq!(log.dropped(), 10);
    }

    #[test]
    fn a_torn_line_does_not_spoil_the_next() {
        let (sender, receiver) = sync_channel(2 * QUEUE);
        let (giver, reader) = relay(Room {
            buffers: QUEUE,
            capacity: BUFFER_BYTES,
        });
        let output = Half {
            taken: sender,
            room: 12,
        };
        let shared = Arc::new(Shared::default());
        let writer = Writer {
            output: Box::new(output),
            path: None,
            shared: Arc::clone(&shared),
            torn: false,
            complained: None,
        };
        for lines in ["{\"a\":1}\n{\"b\":2}\n", "{\"c\":3}\n"] {
            assert!(giver.give(lines.as_bytes().to_vec()).is_ok());
        }
        drop(giver);
        writer.run(&reader);
        let text: Vec<u8> = receiver.iter().flatten().collect();
        assert_eq!(text, b"{\"a\":1}\n{\"b\"\n{\"c\":3}\n");
        assert_eq!(shared.dropped.load(Ordering::Relaxed), 1);
    }

    /// Fails once when its room is used up, then has room again.
    struct Half {
        taken: SyncSender<Vec<u8>>,
        room: usize,
    }

    impl Write for Half {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            if self.room == 0 {
                self.room = 100;
                return Err(io::ErrorKind::StorageFull.into());
            }
            let count = bytes.len().min(self.room);
            self.room -= count;
            self.taken.send(bytes[..count].to_vec()).unwrap();
            Ok(count)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn off_costs_nothing() {
        let log = AccessLog::open(Target::Off).unwrap();
        let mut sink = log.sink();
        assert!(!sink.is_on());
        append(&mut sink, "/");
        assert_eq!((sink.bytes.capacity(), log.dropped()), (0, 0));
        log.shutdown(PATIENCE);
    }
}
