//! Ten minutes of mixed traffic: memory stays where it is, and nothing is left behind.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{JoinHandle, spawn};
use std::time::{Duration, Instant};

use serde_json::json;

use crate::harness::eventually::eventually_pause;
use crate::harness::gate::{PUBLIC, Running, request};
use crate::harness::issuer::now;
use crate::harness::python::h2;
use crate::harness::{Client, Gate, Issuer, Mint, Origin, TlsOptions, eventually};

/// How long; `PORTCULLIS_SOAK_SECONDS` makes it another time for a look by hand.
const MINUTES: u64 = 10;
/// What memory may grow by once every table, buffer and pool has been in use.
const KIB: u64 = 4 * 1024;

const KNOWN: &str = r#"
[[blueprints]]
name = "known"
hosts = ["app.example"]
prefix = "/known"
upstream = "legacy"
auth = { require = ["bearer"], issuers = ["corp"] }
rate_limits = [{ name = "known", key = "header:x-client", quota = 5, window = "1s", clients = 1000 }]
"#;

/// Traffic of one kind, again and again until stopped; counts its rounds.
struct Traffic {
    rounds: Arc<AtomicU64>,
    thread: JoinHandle<()>,
}

impl Traffic {
    fn start(stop: &Arc<AtomicBool>, mut round: impl FnMut(u64) + Send + 'static) -> Self {
        let rounds = Arc::new(AtomicU64::new(0));
        let (stop, counted) = (Arc::clone(stop), Arc::clone(&rounds));
        let thread = spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                round(counted.fetch_add(1, Ordering::Relaxed));
                eventually_pause(Duration::from_millis(20));
            }
        });
        Self { rounds, thread }
    }
}

/// What one client of each kind does in a round.
fn traffic(gate: &Running, issuer: &Issuer, stop: &Arc<AtomicBool>) -> Vec<Traffic> {
    let (https, http) = (gate.proxy.https(), gate.proxy.http());
    let options = TlsOptions::new(&gate.ca, "app.example");
    let tokens: Vec<_> = (0..50)
        .map(|number| {
            let role = format!("role-{number}");
            let lasting = Mint::new().claim("exp", now() + 3600);
            issuer.bearer_of(&lasting.roles(&["reader", &role]))
        })
        .collect();
    let mut kept = Client::tls(https, &options);
    let fresh = options.clone();
    vec![
        // Uploads and downloads on one connection.
        Traffic::start(stop, move |round| {
            let size = usize::try_from(round % 50).expect("small") * 1000;
            let head =
                format!("POST /up HTTP/1.1\r\nHost: app.example\r\nContent-Length: {size}\r\n\r\n");
            kept.send(head).send(vec![b'x'; size]);
            kept.response_to("POST").expect(200);
        }),
        // A connection for each request: paths nobody knows, tokens good and bad, more clients than are remembered.
        Traffic::start(stop, move |round| {
            let mut client = Client::tls(https, &fresh);
            let token = &tokens[usize::try_from(round).expect("small") % tokens.len()];
            let named = format!("{}", round * 7);
            let fields = [("Authorization", token.as_str()), ("X-Client", &named)];
            client
                .send(request("GET", "/known", &fields))
                .response()
                .expect(200);
            let spoilt = format!("{token}{round}");
            let fields = [("Authorization", spoilt.as_str()), ("X-Client", &named)];
            client
                .send(request("GET", "/known", &fields))
                .response()
                .expect(401);
        }),
        // Clients that break off, in the head, in the body, before the answer.
        Traffic::start(stop, move |round| {
            let parts = [
                "GET / HT",
                "POST / HTTP/1.1\r\nHost: app.example\r\nContent-Length: 9\r\n\r\nabc",
                "GET / HTTP/1.1\r\nHost: app.example\r\n\r\n",
                "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
            ];
            let part = parts[usize::try_from(round % 4).expect("small")];
            Client::plain(http).send(part);
        }),
    ]
}

fn seconds() -> u64 {
    std::env::var("PORTCULLIS_SOAK_SECONDS")
        .ok()
        .map_or(MINUTES * 60, |text| text.parse().expect("seconds"))
}

#[test]
fn memory_is_flat_after_ten_minutes_of_everything() {
    let (origin, issuer) = (Origin::echo(), Issuer::http());
    let gate = Gate::before(&origin)
        .server("plaintext = true")
        .log("access = \"off\"")
        .with(&issuer.section())
        .with(KNOWN)
        .with(PUBLIC)
        .start();
    let stop = Arc::new(AtomicBool::new(false));
    let running = traffic(&gate, &issuer, &stop);
    let (begun, whole) = (Instant::now(), Duration::from_secs(seconds()));
    let mut readings = Vec::new();
    while begun.elapsed() < whole {
        // HTTP/2 with streams that are reset, and a reload, every few seconds.
        let account = h2(&json!({
            "do": "rapid_reset", "made_by": "us", "count": 10,
            "address": gate.proxy.https().to_string(), "ca": gate.directory.path().join("ca.pem"),
        }));
        assert!(account.is_object(), "{account}");
        gate.reload();
        eventually_pause(Duration::from_secs(2));
        readings.push(gate.proxy.resident_kib());
    }
    stop.store(true, Ordering::Relaxed);
    for one in running {
        one.thread
            .join()
            .expect("every answer was the one that was due");
        assert!(
            one.rounds.load(Ordering::Relaxed) > seconds(),
            "it went on all the time"
        );
    }
    // The first fifth fills tables and pools.
    let settled = &readings[readings.len() / 5..];
    let half = settled.len() / 2;
    let highest = |readings: &[u64]| readings.iter().max().copied().expect("readings");
    let (first, last) = (highest(&settled[..half]), highest(&settled[half..]));
    assert!(last < first + KIB, "{first} KiB, then {last}: {readings:?}");
    eventually("nothing is under way or open", || {
        let open = gate
            .proxy
            .metric("portcullis_connections", &["state=\"open\""]);
        let requests = gate.proxy.metric("portcullis_requests_in_flight", &[]);
        (open + requests < 0.5).then_some(())
    });
}
