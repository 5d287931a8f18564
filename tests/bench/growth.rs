//! What a request costs as the configuration grows: 10,000 routes, 1,000 certificates, 1,000,000 clients.
//!
//! Two rows are counted like the others, beside the rows of the same names with one route and one client.
//! [`report`] measures what instructions do not show: time, in which cache misses count, and memory.

use std::{
    fs,
    hint::black_box,
    io::Write,
    mem,
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
    time::{Duration, Instant},
};

use portcullis::{
    config, policy,
    snapshot::{Snapshot, compile, survivors::Survivors, tls::TlsRules},
    state::{clock, limiter::Limiter},
};
use rustls::{
    ClientConfig, ClientConnection, RootCertStore, ServerConnection,
    pki_types::{CertificateDer, ServerName},
};

use super::{Asked, GATE, Rig, answer, made_elsewhere, serve};

const BLUEPRINTS: usize = 100;
const ROUTES: usize = 10_000;
/// Routes of one blueprint.
const EACH: usize = ROUTES / BLUEPRINTS;
const CERTIFICATES: usize = 1_000;
const CLIENTS: u32 = 1_000_000;

/// Beside `whole list`.
pub(crate) const ROUTES_ROW: &str = "whole list, 10,000 routes";
/// Beside `rate_limit`.
pub(crate) const CLIENTS_ROW: &str = "rate_limit, 1,000,000 clients";

/// What a row of this module runs on.
pub(crate) fn rig(row: &str) -> Option<Rig> {
    match row {
        ROUTES_ROW => Some(many_routes()),
        CLIENTS_ROW => Some(many_clients()),
        _ => None,
    }
}

/// The routes of [`GATE`] many times over: a hundred hosts; of each four routes one is a parameter, one a literal, one
/// takes all below it, one has a policy of its own.
fn many_routes() -> Rig {
    let (head, blueprint) = GATE
        .split_once("[[blueprints]]")
        .expect("a blueprint in the gate");
    let (blueprint, _) = blueprint
        .split_once("[[blueprints.routes]]")
        .expect("a route in the gate");
    let mut text = head.to_owned();
    for number in 0..BLUEPRINTS {
        let named = blueprint
            .replace("\"all\"", &format!("\"b{number:02}\""))
            .replace("hosts = [\"app", &format!("hosts = [\"a{number:02}"));
        text.push_str("[[blueprints]]");
        text.push_str(&named);
        for route in 0..EACH {
            let (path, more) = match route % 4 {
                0 => (format!("/i{route:04}/{{id}}"), ""),
                1 => (format!("/p{route:04}/42"), ""),
                2 => (format!("/f{route:04}/{{*rest}}"), ""),
                _ => (
                    format!("/o{route:04}/{{id}}"),
                    "[blueprints.routes.body]\nbytes = \"1MiB\"\n",
                ),
            };
            let route = format!(
                "[[blueprints.routes]]\nname = \"r{route:04}\"\npath = \"{path}\"\nmethods = [\"GET\"]\n{more}"
            );
            text.push_str(&route);
        }
    }
    let connections: Vec<_> = (0..BLUEPRINTS)
        .map(|number| Asked::new(format!("a{number:02}.example"), String::new()))
        .collect();
    // Neighbours in turn are far apart in the file.
    let turns = (0..ROUTES).map(|turn| turn * 7_919 % ROUTES);
    let asked = turns.map(|number| {
        let (blueprint, route) = (number / EACH, number % EACH);
        let kind = ["i", "p", "f", "o"][route % 4];
        connections[blueprint].beside(format!("/{kind}{route:04}/42?view=full"))
    });
    let rig = Rig::of(&text, asked.collect());
    assert!(rig.snapshot.routes.len() >= ROUTES);
    rig
}

/// A limit that has met every client once.
fn many_clients() -> Rig {
    let rig = Rig::of(
        &GATE.replace("window =", "clients = 1000000\nwindow ="),
        vec![Asked::new(
            "app.example".into(),
            "/items/42?view=full".into(),
        )],
    );
    for number in 0..CLIENTS {
        let decision = rig.limiter.check(
            rig.survivors.hasher.client(address(number)),
            1,
            clock::now_ns(),
        );
        assert!(decision.is_allowed());
    }
    rig
}

/// Far apart in turn.
fn address(number: u32) -> IpAddr {
    Ipv4Addr::from(0x0a00_0000 | (number.wrapping_mul(7_919) % CLIENTS)).into()
}

/// The step `rate_limit` for a client of its own each time.
pub(crate) fn rate_limit_admit(rig: &Rig, times: usize) {
    let mut exchange = rig.admitted();
    let limits = &rig.route.policies.rate_limits;
    for number in (0..CLIENTS).take(times) {
        exchange.tightest = None;
        exchange.client = address(number);
        let verdict = policy::rate_limit::admit(limits, black_box(&mut exchange))
            .and_then(|()| policy::rate_limit::admit_principal(limits, &mut exchange));
        assert!(verdict.is_ok());
    }
}

/// Prints every figure, one a line: name, tab, number, tab, unit.
pub(crate) fn report() {
    let say = |name: &str, number: f64, unit: &str| {
        println!("{name}\t{number:.3}\t{unit}");
        let _ = std::io::stdout().flush();
    };
    limiter(&say);
    routes(&say);
    certificates(&say);
}

type Say<'a> = dyn Fn(&str, f64, &str) + 'a;

/// Resident memory of this process, in bytes.
fn resident() -> f64 {
    let text = fs::read_to_string("/proc/self/statm").expect("the proc file system");
    let pages: u32 = text
        .split(' ')
        .nth(1)
        .and_then(|word| word.parse().ok())
        .expect("a number");
    f64::from(pages) * 4096.0
}

/// The least of several runs, in nanoseconds each: whatever else the machine does only adds.
fn least(runs: usize, each: u32, mut run: impl FnMut() -> Duration) -> f64 {
    let best = (0..runs).map(|_| run()).min().unwrap_or_default();
    best.as_secs_f64() * 1e9 / f64::from(each)
}

fn routes(say: &Say<'_>) {
    let many = made_elsewhere(many_routes);
    let one = made_elsewhere(Rig::new);
    let best = |rig: &Rig| {
        let mut next = 0;
        least(60, 500, || {
            let turns = rig
                .asked
                .iter()
                .cycle()
                .skip(next % rig.asked.len())
                .take(500);
            next += 500;
            let mut run: Vec<_> = turns
                .map(|asked| (Some((rig.head_for(asked), answer())), asked))
                .collect();
            let start = Instant::now();
            serve(rig, &mut run);
            start.elapsed()
        })
    };
    // Twice each, in turn, so that a slow minute of the machine meets both.
    let figures = [best(&one), best(&many), best(&one), best(&many)];
    say("whole list, 1 route", figures[0].min(figures[2]), "ns");
    say(ROUTES_ROW, figures[1].min(figures[3]), "ns");
}

fn limiter(say: &Say<'_>) {
    let one = made_elsewhere(Rig::new);
    let before = resident();
    let many = made_elsewhere(many_clients);
    say(
        "limiter, resident a client",
        (resident() - before) / f64::from(CLIENTS),
        "bytes",
    );
    let bound = u32::try_from(many.limiter.memory_bound()).map_or(f64::MAX, f64::from);
    say(
        "limiter, bound a client",
        bound / f64::from(CLIENTS),
        "bytes",
    );
    let decide = |limiter: &Arc<Limiter>, rig: &Rig, next: &mut u32, clients: u32| {
        let start = Instant::now();
        for _ in 0..10_000 {
            *next = (*next + 1) % clients;
            let key = rig.survivors.hasher.client(address(*next));
            black_box(limiter.check(black_box(key), 1, clock::now_ns()));
        }
        start.elapsed()
    };
    let mut next = 0;
    say(
        "limiter, 1 client",
        least(60, 10_000, || decide(&one.limiter, &one, &mut next, 1)),
        "ns",
    );
    say(
        "limiter, 1,000,000 clients",
        least(60, 10_000, || {
            decide(&many.limiter, &many, &mut next, CLIENTS)
        }),
        "ns",
    );
    // Ten times what it was made for: nothing grows.
    let before = resident();
    for number in 0..10 * CLIENTS {
        let client = IpAddr::from(Ipv4Addr::from(0x1000_0000 + number));
        black_box(
            many.limiter
                .check(many.survivors.hasher.client(client), 1, clock::now_ns()),
        );
    }
    say(
        "limiter, more after 10,000,000 clients",
        resident() - before,
        "bytes",
    );
}

/// A gate with that many certificates, and the certificates.
fn with_certificates(count: usize) -> (Snapshot, Vec<CertificateDer<'static>>, Duration) {
    let folder = tempfile::tempdir().expect("a folder");
    let mut tables = String::new();
    let mut made = Vec::new();
    for number in 0..count {
        let pair = rcgen::generate_simple_self_signed(vec![host(number)]).expect("a certificate");
        fs::write(folder.path().join(format!("{number}.pem")), pair.cert.pem()).expect("a file");
        fs::write(
            folder.path().join(format!("{number}.key")),
            pair.signing_key.serialize_pem(),
        )
        .expect("a file");
        made.push(pair.cert.der().clone());
        let names = [("cert", "pem"), ("key", "key")];
        tables.push_str("[[tls.certificates]]\n");
        tables.extend(names.map(|(key, end)| format!("{key} = \"{number}.{end}\"\n")));
    }
    fs::write(folder.path().join("secret"), [b'k'; 43]).expect("a file");
    let text = GATE
        .replace("plaintext = true", "https = [\"127.0.0.1:0\"]")
        .replace("SECRET", "secret")
        .replace("[upstreams", &(tables + "[upstreams"));
    let path = folder.path().join("gate.toml");
    fs::write(&path, text).expect("a file");
    let start = Instant::now();
    let loaded = config::load(&path, &[]);
    let compiled = compile::compile(&loaded, &loaded.problems, &Survivors::new(1));
    let took = start.elapsed();
    let compiled = compiled.unwrap_or_else(|| {
        panic!(
            "{}",
            config::render(
                &loaded.problems.sorted(),
                &loaded.sources,
                config::Color::Never
            )
        )
    });
    (compiled.snapshot, made, took)
}

fn host(number: usize) -> String {
    format!("h{number:04}.example")
}

/// The server's part of full handshakes, each with the next certificate.
fn certificates(say: &Say<'_>) {
    let sides = [1, CERTIFICATES].map(|count| {
        let (snapshot, made, took) = with_certificates(count);
        if count > 1 {
            say(
                "certificates, load and compile",
                took.as_secs_f64() * 1e3,
                "ms",
            );
        }
        let clients: Vec<_> = made.into_iter().map(client).collect();
        (snapshot, clients)
    });
    let mut best = [f64::MAX; 2];
    let mut next = 0;
    for _ in 0..40 {
        for ((snapshot, clients), best) in sides.iter().zip(&mut best) {
            let tls = snapshot.tls.as_ref().expect("a section on TLS");
            let mut spent = Duration::ZERO;
            for _ in 0..50 {
                next += 7_919;
                let number = next % clients.len();
                spent += handshake(tls, &clients[number], host(number));
            }
            *best = best.min(spent.as_secs_f64() * 1e9 / 50.0);
        }
    }
    say("handshake, 1 certificate", best[0] / 1e3, "us");
    say("handshake, 1,000 certificates", best[1] / 1e3, "us");
}

fn client(trusted: CertificateDer<'static>) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(trusted).expect("a certificate");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder =
        ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let mut config = builder
        .expect("versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.resumption = rustls::client::Resumption::disabled();
    Arc::new(config)
}

/// Time that the server needs for its part.
fn handshake(tls: &TlsRules, client: &Arc<ClientConfig>, host: String) -> Duration {
    let name = ServerName::try_from(host).expect("a name");
    let mut client = ClientConnection::new(Arc::clone(client), name).expect("a client");
    let start = Instant::now();
    let mut server = ServerConnection::new(Arc::clone(&tls.config)).expect("a server");
    let mut spent = start.elapsed();
    let (mut forth, mut back) = (Vec::new(), Vec::new());
    while client.is_handshaking() || server.is_handshaking() {
        forth.clear();
        client.write_tls(&mut forth).expect("memory");
        let start = Instant::now();
        server.read_tls(&mut forth.as_slice()).expect("memory");
        server.process_new_packets().expect("a handshake");
        back.clear();
        while server.wants_write() {
            server.write_tls(&mut back).expect("memory");
        }
        spent += start.elapsed();
        let mut left = back.as_slice();
        while !left.is_empty() {
            client.read_tls(&mut left).expect("memory");
            client.process_new_packets().expect("a handshake");
        }
    }
    mem::drop((client, server));
    spent
}
