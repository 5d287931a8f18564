//! The fault test: two minutes of steady load over three backends while a scripted hand kills, stalls, slows and
//! restarts them. At the end every request is accounted for: answered with its own body, or failed with a reason.
//!
//! `PORTCULLIS_FAULT_SECONDS` makes it shorter on a desk; CI runs it whole.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::io::ErrorKind;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::harness::eventually::{eventually_pause, eventually_within};
use crate::harness::gate::{PUBLIC, Running};
use crate::harness::process::{Lines, Process};
use crate::harness::python::python;
use crate::harness::{Client, Gate};

/// Clients at once.
const CLIENTS: u64 = 6;
/// Pause of a client between two requests.
const PACE: Duration = Duration::from_millis(25);
/// Requests on one connection.
const A_CONNECTION: u64 = 20;
/// How soon all is well again once all backends are.
const RECOVERY: Duration = Duration::from_secs(30);

/// A backend process that comes back at the same address.
struct Backend {
    address: String,
    port: u16,
    process: Option<Process>,
    said: Vec<Lines>,
}

impl Backend {
    fn start(address: &str) -> Self {
        let mut backend = Self {
            address: address.to_owned(),
            port: 0,
            process: None,
            said: Vec::new(),
        };
        backend.restart();
        backend
    }

    fn restart(&mut self) {
        let mut command = python("frail.py");
        command.args([&self.address, &self.port.to_string()]);
        let mut process = Process::spawn("frail.py", &mut command);
        self.port =
            process.await_stdout("its port", |line| line.strip_prefix("ready ")?.parse().ok());
        self.said.push(process.stdout.clone());
        self.process = Some(process);
    }

    fn signal(&self, name: &str) {
        self.process.as_ref().expect("it runs").signal(name);
    }

    /// SIGKILL, also to a process that is stopped.
    fn kill(&mut self) {
        self.process = None;
    }

    fn url(&self) -> String {
        format!("http://{}:{}", self.address, self.port)
    }
}

/// What a client saw of one request.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Seen {
    /// 200 with the right body.
    Whole,
    /// A problem of the gate: status and reason.
    Problem(u16, String),
    /// An answer that visibly did not end.
    Cut,
}

/// All requests so far, by path.
#[derive(Default)]
struct Ledger {
    next: AtomicU64,
    seen: Mutex<HashMap<String, Seen>>,
}

impl Ledger {
    fn write(&self, path: String, seen: Seen) {
        let mut all = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        assert!(all.insert(path, seen).is_none(), "a path is asked for once");
    }
}

/// One client: a connection that is made anew when it ends, and after so many requests.
struct Caller<'a> {
    gate: &'a Running,
    ledger: &'a Ledger,
    client: Option<Client>,
}

impl Caller<'_> {
    fn call(&mut self) -> Seen {
        let number = self.ledger.next.fetch_add(1, Ordering::SeqCst);
        let word = format!("{number:08}");
        let (path, request, body) = match number % 8 {
            0 | 4 => {
                let path = format!("/large/{word}");
                (path.clone(), get(&path), word.repeat(32_768))
            }
            1 | 2 => {
                let (path, body) = (format!("/echo/{word}"), word.repeat(512));
                (path.clone(), post(&path, &body), format!("echo:{body}"))
            }
            _ => {
                let path = format!("/small/{word}");
                (path.clone(), get(&path), word.repeat(128))
            }
        };
        if number.is_multiple_of(A_CONNECTION) {
            self.client = None;
        }
        let gate = self.gate;
        let connect = || match number % 2 {
            0 => gate.https(),
            _ => gate.http(),
        };
        let client = self.client.get_or_insert_with(connect);
        let (seen, keeps) = match client.send(request).try_response() {
            Ok(response) if response.status == 200 => {
                assert!(response.text() == body, "{path}: another body than its own");
                (Seen::Whole, response.header("connection") != Some("close"))
            }
            Ok(response) => {
                let problem = response.problem();
                let reason = problem["type"].as_str().and_then(|t| t.rsplit(':').next());
                let seen = Seen::Problem(response.status, reason.expect("a reason").to_owned());
                (seen, response.header("connection") != Some("close"))
            }
            Err(error) => {
                let hangs = matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut);
                assert!(!hangs, "{path}: neither an answer nor an end of it");
                (Seen::Cut, false)
            }
        };
        if !keeps {
            self.client = None;
        }
        self.ledger.write(path, seen.clone());
        seen
    }
}

fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: app.example\r\n\r\n")
}

fn post(path: &str, body: &str) -> String {
    let length = body.len();
    format!("POST {path} HTTP/1.1\r\nHost: app.example\r\nContent-Length: {length}\r\n\r\n{body}")
}

fn gate_before(backends: &[Backend]) -> Running {
    let servers: Vec<String> = backends.iter().map(Backend::url).collect();
    Gate::before_url("http://127.0.0.1:1")
        .workers(2)
        .server("plaintext = true")
        .with(&format!(
            "[upstreams.frail]\nservers = {servers:?}\nconnect_timeout = \"1s\"\n\
             response_timeout = \"1s\"\nretries = {{ attempts = 2, budget = 0.5 }}\n\
             breaker = {{ failures = 5, open = \"500ms\" }}\nslow_start = \"1s\"\n\
             outliers = {{ every = \"500ms\", requests = 10, out = \"1s\", longest = \"4s\" }}\n\
             health = {{ path = \"/small/health\", every = \"500ms\", timeout = \"500ms\" }}\n{}",
            PUBLIC.replace("legacy", "frail")
        ))
        .start()
}

/// The hand: one fault after the other, each at another backend in its turn, all well again at the end of each.
fn disturb(backends: &mut [Backend], time: Duration) {
    let began = Instant::now();
    let mut turn = 0;
    while began.elapsed() < time {
        let count = backends.len();
        backends.rotate_left(turn % count);
        let [one, two, ..] = backends else {
            panic!("two backends at least")
        };
        match turn % 5 {
            0 => {
                one.kill();
                eventually_pause(Duration::from_millis(1_500));
                one.restart();
            }
            1 => {
                one.signal("STOP");
                eventually_pause(Duration::from_secs(3));
                one.signal("CONT");
            }
            2 => {
                one.signal("USR1");
                eventually_pause(Duration::from_secs(2));
                one.signal("USR1");
            }
            3 => {
                one.signal("STOP");
                two.kill();
                eventually_pause(Duration::from_millis(1_500));
                two.restart();
                one.kill();
                one.restart();
            }
            _ => {
                one.kill();
                one.restart();
                two.kill();
                two.restart();
            }
        }
        turn += 1;
        eventually_pause(Duration::from_secs(1));
    }
}

#[test]
fn every_request_is_accounted_for_while_backends_fail() {
    let seconds = std::env::var("PORTCULLIS_FAULT_SECONDS").map_or(120, |text| {
        text.parse().expect("PORTCULLIS_FAULT_SECONDS is a number")
    });
    let mut backends: Vec<Backend> = ["127.0.0.11", "127.0.0.12", "127.0.0.13"]
        .map(Backend::start)
        .into();
    let gate = gate_before(&backends);
    let ledger = Ledger::default();
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..CLIENTS {
            scope.spawn(|| {
                let mut caller = caller(&gate, &ledger);
                while !over.load(Ordering::SeqCst) {
                    caller.call();
                    eventually_pause(PACE);
                }
            });
        }
        let _ends = End(&over);
        disturb(&mut backends, Duration::from_secs(seconds));
    });
    expect_recovery(&gate, &ledger);
    expect_accounts(&gate, &ledger, seconds);
    expect_once(&backends);
}

/// Ends the load also when the hand fails, whose panic would wait for it for ever.
struct End<'a>(&'a AtomicBool);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

fn caller<'a>(gate: &'a Running, ledger: &'a Ledger) -> Caller<'a> {
    Caller {
        gate,
        ledger,
        client: None,
    }
}

/// Once all backends are well, all servers are asked again and nothing fails any more.
fn expect_recovery(gate: &Running, ledger: &Ledger) {
    let began = Instant::now();
    let mut caller = caller(gate, ledger);
    let mut in_a_row = 0;
    eventually_within(RECOVERY, "a hundred whole answers in a row", || {
        in_a_row = if caller.call() == Seen::Whole {
            in_a_row + 1
        } else {
            0
        };
        let ready = gate
            .proxy
            .metric("portcullis_upstream_servers", &["state=\"ready\""]);
        (in_a_row >= 100 && ready > 2.5).then_some(())
    });
    eprintln!("all is well again after {:?}", began.elapsed());
}

/// What the clients counted, the access lines and the metrics are one and the same.
fn expect_accounts(gate: &Running, ledger: &Ledger, seconds: u64) {
    let seen = ledger.seen.lock().unwrap_or_else(PoisonError::into_inner);
    let count = |name: &str, labels: &[&str]| gate.proxy.metric(name, labels);
    let all = seen.len();
    eventually_within(Duration::from_secs(20), "every line is written", || {
        eventually_pause(Duration::from_millis(200));
        (gate.proxy.raw_access_lines().len() >= all).then_some(())
    });
    let lines = gate.proxy.access_lines();
    assert_eq!(lines.len(), all, "a line a request");
    let mut tally: BTreeMap<String, u32> = BTreeMap::new();
    let mut met: HashSet<&str> = HashSet::new();
    for line in &lines {
        let path = line["url.path"].as_str().expect("a path");
        assert!(met.insert(path), "{path} has two lines");
        let seen = seen
            .get(path)
            .unwrap_or_else(|| panic!("{line}: nobody asked"));
        expect_same(seen, line);
        let word = match seen {
            Seen::Problem(status, reason) => format!("{status} {reason}"),
            other => format!("{other:?}"),
        };
        *tally.entry(word).or_default() += 1;
    }
    eprintln!("{all} requests in {seconds} s: {tally:?}");
    let whole = f64::from(tally["Whole"]);
    let all = f64::from(u32::try_from(all).expect("a number of requests"));
    for (name, wanted) in [
        ("portcullis_requests_total", all),
        ("portcullis_upstream_requests_total", all),
        ("portcullis_refusals_total", all - whole),
        ("portcullis_log_lines_dropped_total", 0.0),
        ("portcullis_panics_total", 0.0),
    ] {
        let got = count(name, &[]);
        assert!((got - wanted).abs() < 0.5, "{name} is {got}, not {wanted}");
    }
    expect_reasons(gate, &tally);
    // Kills meet large answers in the middle, about every other time.
    assert!(
        seconds < 60 || tally.contains_key("Cut"),
        "no answer was cut"
    );
    // A load of which nothing failed would show nothing, nor would one of which most did.
    assert!(whole < all && whole > all * 0.6, "{whole} of {all}");
    assert!(
        gate.proxy.resident_kib() < 256 * 1024,
        "{}",
        gate.proxy.resident_kib()
    );
}

/// Each reason that clients were told, as often as they were, and cut answers with those that were broken.
fn expect_reasons(gate: &Running, tally: &BTreeMap<String, u32>) {
    for (word, wanted) in tally {
        let Some((_, reason)) = word.split_once(' ') else {
            continue;
        };
        let label = format!("reason=\"{reason}\"");
        let got = gate.proxy.metric("portcullis_refusals_total", &[&label]);
        // An answer that was cut counts as broken, too.
        let cut = if reason == "upstream-broken" {
            tally.get("Cut")
        } else {
            None
        };
        let wanted = f64::from(wanted + cut.copied().unwrap_or(0));
        assert!((got - wanted).abs() < 0.5, "{reason} {got} {wanted}");
    }
}

fn expect_same(seen: &Seen, line: &Value) {
    let status = line["http.response.status_code"].as_u64();
    match seen {
        Seen::Whole => {
            assert_eq!(
                (status, &line["decision"]),
                (Some(200), &Value::from("forwarded")),
                "{line}"
            );
        }
        Seen::Problem(code, reason) => {
            assert_eq!(status, Some(u64::from(*code)), "{line}");
            assert_eq!(line["reason"], **reason, "{line}");
            assert_eq!(line["decision"], "failed", "{line}");
        }
        Seen::Cut => {
            assert_eq!(line["decision"], "failed", "{line}");
            assert_eq!(line["reason"], "upstream-broken", "{line}");
        }
    }
}

/// No POST was done twice, whatever became of its answer.
fn expect_once(backends: &[Backend]) {
    let mut done = HashSet::new();
    let said = backends.iter().flat_map(|b| &b.said).flat_map(Lines::all);
    for line in said.filter(|line| line.starts_with("did ")) {
        assert!(done.insert(line.clone()), "twice: {line}");
    }
    assert!(!done.is_empty(), "no POST was done");
}
