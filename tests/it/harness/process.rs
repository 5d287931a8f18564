//! Child processes: started with piped output that threads collect, ended by their id when the guard drops.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};

use super::eventually::{eventually, eventually_pause};

/// Lines that a thread collects from a pipe.
#[derive(Clone, Default)]
pub struct Lines(Arc<Mutex<Vec<String>>>);

impl Lines {
    /// The lines so far.
    pub fn all(&self) -> Vec<String> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    fn collect(pipe: impl Read + Send + 'static) -> Self {
        let lines = Self::default();
        let into = lines.clone();
        std::thread::spawn(move || {
            for line in BufReader::new(pipe).split(b'\n') {
                let Ok(line) = line else { break };
                into.0
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .push(String::from_utf8_lossy(&line).into_owned());
            }
        });
        lines
    }
}

/// A running child with what it has printed.
pub struct Process {
    child: Child,
    name: String,
    pub stdout: Lines,
    pub stderr: Lines,
}

impl Process {
    /// Starts `command`; panics with a sentence that names the program when it is not there.
    pub fn spawn(name: &str, command: &mut Command) -> Self {
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command
            .spawn()
            .unwrap_or_else(|error| panic!("{}", missing(command, &error)));
        let stdout = Lines::collect(child.stdout.take().expect("a piped stdout"));
        let stderr = Lines::collect(child.stderr.take().expect("a piped stderr"));
        Self {
            child,
            name: name.to_owned(),
            stdout,
            stderr,
        }
    }

    /// The standard input, once, when the command asked for a pipe.
    pub fn stdin(&mut self) -> std::process::ChildStdin {
        self.child.stdin.take().expect("a piped stdin")
    }

    /// Waits for a line on standard error for which `find` gives a value; panics early when the child ends first.
    pub fn await_stderr<T>(&mut self, what: &str, find: impl Fn(&str) -> Option<T>) -> T {
        let lines = self.stderr.clone();
        self.await_line(what, &lines, find)
    }

    /// Waits for a line on standard output for which `find` gives a value; panics early when the child ends first.
    pub fn await_stdout<T>(&mut self, what: &str, find: impl Fn(&str) -> Option<T>) -> T {
        let lines = self.stdout.clone();
        self.await_line(what, &lines, find)
    }

    /// The process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal by the name that `kill` knows.
    pub fn signal(&self, name: &str) {
        let script = format!("kill -{name} {}", self.id());
        let sent = Command::new("sh").args(["-c", &script]).status();
        assert!(
            sent.is_ok_and(|status| status.success()),
            "{} was there to be signalled",
            self.name
        );
    }

    /// Whether the child still runs.
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Waits for the child to end by itself.
    pub fn await_exit(&mut self) -> ExitStatus {
        let name = self.name.clone();
        eventually(&format!("{name} ends"), || {
            self.child.try_wait().expect("our own child")
        })
    }

    fn await_line<T>(&mut self, what: &str, lines: &Lines, find: impl Fn(&str) -> Option<T>) -> T {
        let name = self.name.clone();
        eventually(&format!("{name}: {what}"), || {
            if let Some(found) = lines.all().iter().find_map(|line| find(line)) {
                return Some(found);
            }
            if let Ok(Some(status)) = self.child.try_wait() {
                eventually_pause(std::time::Duration::from_millis(50));
                let found = lines.all().iter().find_map(|line| find(line));
                assert!(
                    found.is_some(),
                    "{name} ended ({status}) before `{what}`:\n{}\n{}",
                    self.stdout.all().join("\n"),
                    self.stderr.all().join("\n")
                );
                return found;
            }
            None
        })
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- {} stderr\n{}", self.name, self.stderr.all().join("\n"));
            let stdout = self.stdout.all();
            let tail = stdout.len().saturating_sub(20);
            eprintln!("--- {} stdout\n{}", self.name, stdout[tail..].join("\n"));
        }
    }
}

/// The sentence for a program that cannot be started.
pub fn missing(command: &Command, error: &std::io::Error) -> String {
    format!(
        "the tests need `{}`, which cannot be started ({error}): run ./tests/run, which installs it",
        command.get_program().to_string_lossy()
    )
}
