//! Many connections that do next to nothing: they cost the others little, and each is given up in its time.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{JoinHandle, spawn};
use std::time::{Duration, Instant};

use crate::harness::eventually::{eventually_pause, eventually_within};
use crate::harness::gate::{Running, request};
use crate::harness::{Client, Gate, Origin};

const IDLE: usize = 10_000;
const SLOW: usize = 2_000;
/// Requests of the good client in each of the phases that are compared.
const REQUESTS: usize = 3_000;
/// What a shared machine may add to a wait of less than that.
const MACHINE: Duration = Duration::from_millis(5);

/// The wait that one answer in a hundred takes longer than.
fn p99(client: &mut Client) -> Duration {
    let mut waits: Vec<_> = (0..REQUESTS)
        .map(|_| {
            let begun = Instant::now();
            client.send(request("GET", "/", &[])).response().expect(200);
            begun.elapsed()
        })
        .collect();
    waits.sort();
    waits[REQUESTS * 99 / 100]
}

/// Connections that had an answer and ask for nothing more.
fn idle(address: SocketAddr, count: usize) -> Vec<TcpStream> {
    let open = || {
        let mut stream = TcpStream::connect(address).expect("a place");
        stream
            .set_read_timeout(Some(Duration::from_secs(20)))
            .expect("a deadline");
        let asked = request("HEAD", "/", &[]);
        stream
            .write_all(asked.as_bytes())
            .expect("the request goes out");
        let mut answer = [0; 1024];
        let read = stream.read(&mut answer).expect("an answer");
        assert!(answer[..read].starts_with(b"HTTP/1.1 200"));
        stream
    };
    (0..count).map(|_| open()).collect()
}

/// Connections that send a byte of their head, or of their body, every second, until stopped or closed.
struct Slow {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl Slow {
    fn start(address: SocketAddr, count: usize) -> Self {
        let begun = [
            "GET / HTTP/1.1\r\nHost: app.example\r\nX-Slow: ",
            "POST / HTTP/1.1\r\nHost: app.example\r\nContent-Length: 100000\r\n\r\n",
        ];
        let mut streams: Vec<_> = (0..count)
            .map(|number| {
                let mut stream = TcpStream::connect(address).expect("a place");
                stream
                    .write_all(begun[number % 2].as_bytes())
                    .expect("the beginning goes out");
                stream
            })
            .collect();
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                // One that was closed is no longer of interest.
                streams.retain_mut(|stream| stream.write_all(b"x").is_ok());
                eventually_pause(Duration::from_secs(1));
            }
        });
        Self { stop, thread }
    }

    fn end(self) {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("it only writes");
    }
}

fn open_connections(gate: &Running) -> f64 {
    gate.proxy
        .metric("portcullis_connections", &["state=\"open\""])
}

#[test]
fn a_crowd_under_load_delays_nobody_and_leaves_in_its_time() {
    let origin = Origin::echo();
    let gate = Gate::before(&origin)
        .server("plaintext = true")
        .log("access = \"off\"")
        .with("[server.limits]\nconnections_per_client = 20000\nrequests_per_client = 20000\nkeep_alive = \"30s\"\n")
        .open();
    let address = gate.proxy.http();
    let mut good = gate.https();
    p99(&mut good);
    let quiet = p99(&mut good);
    let before = gate.proxy.resident_kib();

    let crowd = idle(address, IDLE);
    let slow = Slow::start(address, SLOW);
    let crowded = p99(&mut good);
    #[expect(clippy::cast_precision_loss, reason = "small numbers")]
    let most = (IDLE + SLOW) as f64;
    let open = open_connections(&gate);
    assert!(open > most * 0.9, "{open} of {most} were there to be borne");
    assert!(
        crowded <= quiet * 2 + MACHINE,
        "p99 {crowded:?}, {quiet:?} when alone"
    );
    let each = gate.proxy.resident_kib().saturating_sub(before)
        / u64::try_from(IDLE + SLOW).expect("small");
    assert!(each < 24, "{each} KiB for each of the crowd");

    // The slow ones are answered 408 ten seconds in, the idle ones closed after their thirty.
    eventually_within(Duration::from_mins(1), "the crowd is gone", || {
        (open_connections(&gate) < 10.0).then_some(())
    });
    slow.end();
    drop(crowd);
    gate.get("/").expect(200);
}
