//! A new process takes the place of a running gate (SIGUSR2), or is given its listeners by systemd: nobody notices.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::eventually::eventually_pause;
use crate::harness::gate::{PUBLIC, Running, request};
use crate::harness::origin::answer;
use crate::harness::process::Process;
use crate::harness::proxy::{Proxy, portcullis, write_policy};
use crate::harness::python::python;
use crate::harness::{Client, Gate, Origin, eventually};
use crate::reload::{open_tunnel, shout, shouting};

/// The processes that the gate has started and that still run.
pub fn newcomers(proxy: &Proxy) -> Vec<u32> {
    let children = format!("/proc/{0}/task/{0}/children", proxy.id());
    let children = std::fs::read_to_string(children).unwrap_or_default();
    let children = children.split_whitespace();
    children.filter_map(|id| id.parse().ok()).collect()
}

/// Ends a process that took over when the test is done with it.
pub struct Orphan(pub u32);

impl Orphan {
    fn signal(&self, name: &str) {
        let script = format!("kill -{name} {}", self.0);
        let sent = Command::new("sh").args(["-c", &script]).status();
        assert!(sent.is_ok_and(|status| status.success()), "it runs");
    }

    pub fn await_end(&self) {
        let stat = format!("/proc/{}/stat", self.0);
        eventually("the process ends", || {
            // It may have been left to somebody who does not look after it: then it stays as a zombie.
            let stat = std::fs::read_to_string(&stat).unwrap_or_default();
            (stat.is_empty() || stat.contains(") Z ")).then_some(())
        });
    }
}

impl Drop for Orphan {
    fn drop(&mut self) {
        let script = format!("kill -KILL {}", self.0);
        let _ = Command::new("sh")
            .args(["-c", &script])
            .stderr(Stdio::null())
            .status();
    }
}

/// Has the place of a gate taken, and gives the new process once it has said that it is ready, as the `time`-th.
pub fn hand_over(talk: impl Fn() -> String, signal: impl Fn(&str), time: usize) -> Orphan {
    signal("USR2");
    eventually("the new process is ready", || {
        let talk = talk();
        let said = |text: &str| talk.matches(text).count();
        (said("portcullis ready") > time && said("handed over, draining") >= time).then_some(())
    });
    let talk = talk();
    let process = talk
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .filter(|line| line["message"] == "handed over, draining")
        .nth(time - 1)
        .and_then(|line| u32::try_from(line["process"].as_u64()?).ok());
    Orphan(process.unwrap_or_else(|| panic!("no new process in\n{talk}")))
}

/// New and kept connections in clear, over TLS and on HTTP/2, until told to stop.
struct Load(Process);

impl Load {
    fn start(gate: &Running) -> Self {
        let instruction = json!({
            "do": "crowd",
            "https": gate.proxy.https().to_string(),
            "http": gate.proxy.http().to_string(),
            "ca": gate.directory.path().join("ca.pem"),
        });
        let mut command = python("h2client.py");
        command.arg(instruction.to_string()).stdin(Stdio::piped());
        let mut process = Process::spawn("the load", &mut command);
        process.await_stdout("its first answers", |line| {
            line.contains("warm").then_some(())
        });
        Self(process)
    }

    fn stop(mut self) -> Value {
        drop(self.0.stdin());
        self.0.await_stdout("its account", |line| {
            let account: Value = serde_json::from_str(line).ok()?;
            account["requests"].is_object().then_some(account)
        })
    }
}

#[test]
fn two_hand_overs_under_load_lose_no_request() {
    let origin = Origin::serve(|_| {
        eventually_pause(Duration::from_millis(3));
        answer(200, &[], "ok")
    });
    // The second one has fewer workers: each queue of the first three is still looked after.
    let mut gate = Gate::before(&origin)
        .workers(3)
        .server("plaintext = true")
        .open();
    let load = Load::start(&gate);
    eventually_pause(Duration::from_millis(500));
    let first = hand_over(|| gate.proxy.talk(), |name| gate.proxy.signal(name), 1);
    eventually_pause(Duration::from_millis(500));
    assert_eq!(gate.proxy.await_exit().code(), Some(0));
    let text = std::fs::read_to_string(gate.directory.path().join("gate.toml")).expect("a file");
    write_policy(
        gate.directory.path(),
        &text.replace("workers = 3", "workers = 2"),
    );
    let second = hand_over(|| gate.proxy.talk(), |name| first.signal(name), 2);
    first.await_end();
    eventually_pause(Duration::from_millis(500));
    let account = load.stop();
    assert_eq!(account["failed"], 0, "{account}");
    for kind in ["new http", "kept http", "new https", "kept https", "h2"] {
        let count = account["requests"][kind].as_u64();
        assert!(count.is_some_and(|count| count > 50), "{kind}: {account}");
    }
    // Each was answered by one of the three, and told by that one.
    let lines = gate.proxy.access_lines();
    let ids: BTreeSet<&str> = lines
        .iter()
        .filter_map(|line| line["request_id"].as_str())
        .collect();
    assert_eq!(ids.len(), lines.len(), "one line a request");
    let answered: u64 = account["requests"]
        .as_object()
        .into_iter()
        .flatten()
        .filter_map(|(_, count)| count.as_u64())
        .sum();
    eventually("every request has its line", || {
        (u64::try_from(gate.proxy.raw_access_lines().len()).ok()? >= answered).then_some(())
    });
    drop(second);
}

#[test]
fn a_tunnel_survives_a_reload_and_goes_on_in_the_old_process_until_the_drain_is_over() {
    let origin = shouting();
    let mut gate = Gate::before(&origin)
        .server("plaintext = true\ndrain = \"2s\"")
        .open();
    let (mut clear, mut tls) = (open_tunnel(gate.http()), open_tunnel(gate.https()));
    gate.reload();
    shout(&mut clear, "a");
    shout(&mut tls, "b");
    let new = hand_over(|| gate.proxy.talk(), |name| gate.proxy.signal(name), 1);
    shout(&mut clear, "c");
    shout(&mut tls, "d");
    assert!(gate.proxy.is_running());
    let mut later = open_tunnel(gate.http());
    assert!(clear.until_close().is_empty());
    assert!(tls.until_close().is_empty());
    assert_eq!(gate.proxy.await_exit().code(), Some(0));
    shout(&mut later, "e");
    let lines = gate.proxy.access_lines();
    let told = lines.iter().filter(|line| line["url.path"] == "/chat");
    assert!(told.count() >= 2, "a line for each that ended");
    drop(new);
}

#[test]
fn systemd_is_told_which_process_it_is_now() {
    let origin = Origin::echo();
    let gate = Gate::before(&origin);
    let path = gate.directory().join("notify.sock");
    let systemd = UnixDatagram::bind(&path).expect("a socket");
    systemd
        .set_read_timeout(Some(Duration::from_secs(10)))
        .expect("a deadline");
    let mut gate = gate
        .environment("NOTIFY_SOCKET", &path.display().to_string())
        .open();
    let hear = || {
        let mut word = [0; 256];
        let length = systemd.recv(&mut word).expect("a word in time");
        String::from_utf8_lossy(&word[..length]).trim().to_owned()
    };
    assert_eq!(hear(), "READY=1");
    let new = hand_over(|| gate.proxy.talk(), |name| gate.proxy.signal(name), 1);
    assert_eq!(gate.proxy.await_exit().code(), Some(0));
    let mut words = [hear(), hear()];
    words.sort();
    assert_eq!(words, [format!("MAINPID={}", new.0), "READY=1".to_owned()]);
    new.signal("TERM");
    assert_eq!(hear(), "STOPPING=1");
}

/// A gate that was started through a link, behind which another program can be put.
pub struct Linked {
    pub gate: Gate,
    program: PathBuf,
}

impl Linked {
    pub fn before(origin: &Origin, lines: &str) -> Self {
        let gate = Gate::before(origin)
            .server("plaintext = true")
            .server(lines)
            .with(PUBLIC);
        let program = gate.directory().join("portcullis");
        symlink(env!("CARGO_BIN_EXE_portcullis"), &program).expect("a link");
        Self { gate, program }
    }

    pub fn start(&self) -> Proxy {
        let mut command = Command::new(&self.program);
        let trust = self.gate.directory().join("ca.pem");
        command
            .args(["run", "-c"])
            .arg(self.gate.write())
            .env("SSL_CERT_FILE", trust)
            .env_remove("NOTIFY_SOCKET")
            .stdin(Stdio::null());
        Proxy::spawn(&mut command)
    }

    /// Puts a shell script in the program's place.
    pub fn replace_by(&self, script: &str) {
        let fresh = self.gate.directory().join("fresh");
        std::fs::write(&fresh, format!("#!/bin/sh\n{script}\n")).expect("a script");
        std::fs::set_permissions(&fresh, std::fs::Permissions::from_mode(0o755)).expect("a mode");
        std::fs::rename(&fresh, &self.program).expect("a rename");
    }
}

#[track_caller]
fn serves(proxy: &Proxy) {
    let mut client = Client::plain(proxy.http());
    client.send(request("GET", "/", &[])).response().expect(200);
}

#[track_caller]
fn serves_over(path: &Path) {
    let mut stream = UnixStream::connect(path).expect("somebody listens");
    stream
        .set_read_timeout(Some(Duration::from_secs(10)))
        .expect("a deadline");
    let asked = request("GET", "/", &[("Connection", "close")]);
    stream.write_all(asked.as_bytes()).expect("it is taken");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
}

#[test]
fn a_new_program_that_cannot_take_over_changes_nothing() {
    let origin = Origin::echo();
    let linked = Linked::before(&origin, "handover = \"1s\"");
    let mut proxy = linked.start();
    let mut kept = Client::plain(proxy.http());
    let cases = [
        ("exit 3", "ended before it was ready"),
        // It takes what is sent and says nothing.
        ("exec sleep 60", "not ready within 1s"),
        // It lets go of what it is to listen to.
        ("exec sleep 60 </dev/null", "ended before it was ready"),
        ("exit 0", "ended before it was ready"),
    ];
    let refusals = |proxy: &Proxy| proxy.talk().matches("this process goes on serving").count();
    for (number, (script, why)) in cases.into_iter().enumerate() {
        linked.replace_by(script);
        proxy.signal("USR2");
        eventually("it is told", || (refusals(&proxy) > number).then_some(()));
        proxy.await_talk(why);
        eventually("nothing is left of it", || {
            newcomers(&proxy).is_empty().then_some(())
        });
        kept.send(request("GET", "/", &[])).response().expect(200);
        serves(&proxy);
    }
    std::fs::remove_file(&linked.program).expect("the program is gone");
    proxy.signal("USR2");
    proxy.await_talk("cannot start `");
    serves(&proxy);
    assert!(proxy.is_running());
    symlink(env!("CARGO_BIN_EXE_portcullis"), &linked.program).expect("a link");
    let new = hand_over(|| proxy.talk(), |name| proxy.signal(name), 1);
    assert_eq!(proxy.await_exit().code(), Some(0));
    serves(&proxy);
    drop(new);
}

#[test]
fn a_broken_file_changes_nothing() {
    let origin = Origin::echo();
    let mut gate = Gate::before(&origin).open();
    let file = gate.directory.path().join("gate.toml");
    let good = std::fs::read_to_string(&file).expect("a file");
    write_policy(gate.directory.path(), &format!("{good}\nunknown_key = 1\n"));
    gate.proxy.signal("USR2");
    gate.proxy.await_talk("this process goes on serving");
    gate.proxy.await_talk("unknown_key");
    gate.get("/").expect(200);
    // An address that another program has.
    let holder = TcpListener::bind("127.0.0.1:0").expect("a port");
    let taken = holder.local_addr().expect("an address");
    let elsewhere = good.replace(
        "http = [\"127.0.0.1:0\"]",
        &format!("http = [\"127.0.0.1:0\", \"{taken}\"]"),
    );
    write_policy(gate.directory.path(), &elsewhere);
    gate.proxy.signal("USR2");
    gate.proxy
        .await_talk(&format!("error: cannot listen on {taken}"));
    gate.get("/").expect(200);
    drop(holder);
    assert!(gate.proxy.is_running());
}

#[test]
fn sigterm_while_a_new_process_gets_ready_ends_both() {
    let origin = Origin::echo();
    let linked = Linked::before(&origin, "");
    let mut proxy = linked.start();
    linked.replace_by("exec sleep 60");
    proxy.signal("USR2");
    eventually("it is there", || {
        (!newcomers(&proxy).is_empty()).then_some(())
    });
    let new = newcomers(&proxy);
    proxy.signal("USR2");
    proxy.await_talk("a new process is being waited for already");
    proxy.signal("TERM");
    assert_eq!(proxy.await_exit().code(), Some(0));
    for id in new {
        Orphan(id).await_end();
    }
}

#[test]
fn the_admin_and_unix_listeners_go_over_and_an_address_may_come_and_go() {
    let origin = Origin::echo();
    let linked = Linked::before(&origin, "drain = \"1s\"");
    let socket = linked.gate.directory().join("gate.sock");
    let text = std::fs::read_to_string(linked.gate.write()).expect("a file");
    let unix = format!("http = [\"127.0.0.1:0\", \"unix:{}\"]", socket.display());
    let file = write_policy(
        linked.gate.directory(),
        &text.replace("http = [\"127.0.0.1:0\"]", &unix),
    );
    let mut command = portcullis();
    command.args(["run", "-c"]).arg(&file);
    let mut proxy = Proxy::spawn(&mut command);
    serves_over(&socket);
    let inode = |path: &Path| std::fs::metadata(path).expect("the socket").ino();
    let (before, http) = (inode(&socket), proxy.http());
    let first = hand_over(|| proxy.talk(), |name| proxy.signal(name), 1);
    serves_over(&socket);
    assert_eq!(inode(&socket), before, "the same socket");
    proxy.ask_admin("/readyz").expect(200);
    assert_eq!(proxy.await_exit().code(), Some(0));
    proxy.ask_admin("/readyz").expect(200);
    // The clear port is given up, another one is opened.
    let other = TcpListener::bind("127.0.0.1:0").and_then(|port| port.local_addr());
    let other = other.expect("a free port");
    write_policy(
        linked.gate.directory(),
        &text.replace("http = [\"127.0.0.1:0\"]", &format!("http = [\"{other}\"]")),
    );
    let second = hand_over(|| proxy.talk(), |name| first.signal(name), 2);
    first.await_end();
    Client::plain(other)
        .send(request("GET", "/", &[]))
        .response()
        .expect(200);
    eventually("nobody listens where the file has no address", || {
        std::net::TcpStream::connect(http).is_err().then_some(())
    });
    drop(second);
}

/// A gate that is given its sockets as systemd gives them, and has not been started yet.
struct Activated {
    starter: Process,
    addresses: Value,
    _gate: Gate,
}

impl Activated {
    fn bind(origin: &Origin, sockets: &Value, environment: &Value) -> Self {
        let gate = Gate::before(origin)
            .workers(3)
            .server("plaintext = true")
            .with(PUBLIC);
        let text = std::fs::read_to_string(gate.write()).expect("a file");
        let text = text
            .replace("https = [\"127.0.0.1:0\"]", "https = [\"@tls@\"]")
            .replace(
                "http = [\"127.0.0.1:0\"]",
                "http = [\"@clear@\", \"@path@\"]",
            );
        let file = write_policy(gate.directory(), &text);
        let instruction = json!({
            "sockets": sockets,
            "file": file,
            "command": [env!("CARGO_BIN_EXE_portcullis"), "run", "-c", file],
            "environment": environment,
        });
        let mut command = python("activate.py");
        command
            .arg(instruction.to_string())
            .env("NO_COLOR", "1")
            .env_remove("NOTIFY_SOCKET")
            .stdin(Stdio::piped());
        let mut starter = Process::spawn("the activated gate", &mut command);
        let addresses = starter.await_stdout("its addresses", |line| {
            let addresses: Value = serde_json::from_str(line).ok()?;
            addresses["clear"].is_string().then_some(addresses)
        });
        Self {
            starter,
            addresses,
            _gate: gate,
        }
    }

    fn start(&mut self) {
        self.starter.stdin().write_all(b"\n").expect("it waits");
    }

    fn clear(&self) -> SocketAddr {
        let address = self.addresses["clear"].as_str();
        address.and_then(|text| text.parse().ok()).expect("TCP")
    }

    fn talk(&self) -> String {
        self.starter.stderr.all().join("\n")
    }
}

#[test]
fn sockets_of_systemd_are_taken_and_who_came_before_the_gate_is_answered() {
    let origin = Origin::echo();
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("gate.sock");
    let sockets = json!({
        "tls": "tcp", "clear": "tcp", "path": format!("unix:{}", path.display()),
    });
    let mut gate = Activated::bind(&origin, &sockets, &json!({}));
    let mut early: Vec<Client> = (0..5).map(|_| Client::plain(gate.clear())).collect();
    for client in &mut early {
        client.send(request("GET", "/early", &[]));
    }
    gate.start();
    for client in &mut early {
        client.response().expect(200);
    }
    let ready = gate.starter.await_stderr("the ready line", |line| {
        line.contains("portcullis ready").then(|| line.to_owned())
    });
    for (name, key) in [("tls", "https="), ("clear", "http=")] {
        let address = gate.addresses[name].as_str().expect("an address");
        assert!(ready.contains(&format!("{key}{address}")), "{ready}");
    }
    serves_over(&path);
    // What systemd gave goes on to the next process.
    let new = hand_over(|| gate.talk(), |name| gate.starter.signal(name), 1);
    assert_eq!(gate.starter.await_exit().code(), Some(0));
    serves_over(&path);
    let mut late = Client::plain(gate.clear());
    late.send(request("GET", "/", &[])).response().expect(200);
    drop(new);
}

#[test]
fn sockets_that_do_not_fit_are_refused() {
    let origin = Origin::echo();
    let directory = tempfile::tempdir().expect("a directory");
    let path = format!("unix:{}", directory.path().join("gate.sock").display());
    let cases = [
        (
            json!({"tls": "tcp", "clear": "tcp", "path": path, "extra": "tcp"}),
            json!({}),
            "descriptor 6 (extra) listens on `127.0.0.1:",
        ),
        (
            json!({"clear": "tcp", "datagrams": "udp"}),
            json!({}),
            "descriptor 4 (datagrams) is no listening TCP or Unix stream socket",
        ),
        (
            json!({"clear": "tcp"}),
            json!({"LISTEN_FDS": "2"}),
            "descriptor 4 (unknown) is no listening TCP or Unix stream socket",
        ),
        (
            json!({"clear": "tcp"}),
            json!({"LISTEN_FDS": "99999999999"}),
            "LISTEN_FDS is `99999999999`, a number up to 1024 is accepted",
        ),
    ];
    for (sockets, environment, why) in cases {
        let mut gate = Activated::bind(&origin, &sockets, &environment);
        gate.start();
        assert_eq!(gate.starter.await_exit().code(), Some(1), "{}", gate.talk());
        eventually("it says why", || gate.talk().contains(why).then_some(()));
        let _ = std::fs::remove_file(path.trim_start_matches("unix:"));
    }
}

#[test]
fn sockets_for_another_process_are_left_alone() {
    let origin = Origin::echo();
    let mut command = portcullis();
    let gate = Gate::before(&origin).with(PUBLIC);
    command
        .args(["run", "-c"])
        .arg(gate.write())
        .envs([("LISTEN_FDS", "2"), ("LISTEN_PID", "1")]);
    let proxy = Proxy::spawn(&mut command);
    proxy.ask_admin("/livez").expect(200);
}
