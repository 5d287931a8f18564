//! Steps of a request, each run a stated number of times, for `tests/bench/instructions` to count under callgrind.
//!
//! `pipeline ROW TIMES` runs one row; without arguments it lists the rows. Whatever a step consumes is made before it
//! for [`ROOM`] runs, however many are asked for, and what it leaves behind is never freed: so two runs of one row differ by
//! the step alone, times the difference of their counts. No socket, no TLS, no signature: the token is known already.
//!
//! `pipeline --clock ROW` prints the nanoseconds of one run, the best of many, on the machine at hand.
//!
//! `pipeline --signatures` prints what it costs to verify signed requests, see [`signatures`], and what a proof of
//! possession and a condition cost, see [`possession`].
//!
//! `pipeline --growth` prints what [`growth`] measures, for `tests/bench/growth`.

use std::{
    fs,
    hint::black_box,
    mem,
    process::ExitCode,
    sync::Arc,
    thread,
    time::{Duration, Instant, SystemTime},
};

use aws_lc_rs::hmac;
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use http::{HeaderName, HeaderValue, Method, Request, Response, request, response};
use portcullis::{
    config,
    crypto::rng::RequestIds,
    exchange::{
        Exchange,
        connection::{Connection, Tls},
    },
    observe::access::{AccessRecord, Decision, UpstreamRecord, write_line},
    pipeline::{admit, forward, normalise},
    policy::{authn, body_limit, cookies, cors, network, rate_limit, rbac, security_headers},
    server::screen::{Screen, ScreenLimits},
    snapshot::{Route, Snapshot, compile, router::Found, survivors::Survivors},
    state::{clock, limiter::Limiter},
    wire::hop,
};

mod growth;
mod possession;
mod signatures;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Most runs of a step in one go.
const ROOM: usize = 2_000;
/// How often `--clock` runs a row.
const BATCHES: u32 = 50;

/// Every policy on, as `tests/bench/load` has them; the token's secret stands in a file of its own.
const GATE: &str = r#"
[server]
http = ["127.0.0.1:0"]
plaintext = true
workers = 1

[issuers.bench]
issuer = "https://issuer.example"
audience = ["bench"]
algorithms = ["HS256"]
secret = { file = "SECRET" }
roles = ["role"]

[upstreams.origin]
servers = ["http://127.0.0.1:9"]

[[blueprints]]
name = "all"
hosts = ["app.example"]
upstream = "origin"

[blueprints.network]
deny = ["203.0.113.0/24"]

[blueprints.auth]
require = ["bearer"]
issuers = ["bench"]
roles = { any = ["reader"] }

[blueprints.cors]
origins = ["https://app.example"]
expose = ["x-request-id"]
credentials = true

[[blueprints.rate_limits]]
name = "client"
key = "client"
quota = 1000000000
window = "1s"

[[blueprints.routes]]
name = "items"
path = "/items/{id}"
methods = ["GET"]
"#;

type Step = fn(&Rig, usize);

const ROWS: &[(&str, Step)] = &[
    ("screen", screen),
    ("normalise", normalise_head),
    ("route", route),
    ("network", network_admit),
    ("rate_limit", rate_limit_admit),
    ("body_limit", body_limit_admit),
    ("cors", cors_admit),
    ("authn", authn_admit),
    ("authn, by digest", authn_by_digest),
    ("rbac", rbac_admit),
    ("outgoing", outgoing),
    ("hop by hop", strip_answer),
    ("cookies, answer", cookies_finish),
    ("cors, answer", cors_finish),
    ("rate_limit, answer", rate_limit_finish),
    ("security_headers, answer", headers_finish),
    ("counters", counters),
    ("access line", access_line),
    ("whole list", whole),
    (growth::ROUTES_ROW, whole),
    (growth::CLIENTS_ROW, growth::rate_limit_admit),
];

fn main() -> ExitCode {
    // `cargo bench` adds a word of its own.
    let arguments = std::env::args().skip(1).filter(|word| word != "--bench");
    let arguments: Vec<String> = arguments.collect();
    let found = |name: &str| ROWS.iter().find(|(row, _)| *row == name);
    match arguments.as_slice() {
        [word] if word == "--growth" => growth::report(),
        [word] if word == "--signatures" => {
            signatures::report();
            possession::report();
        }
        [word, row] if word == "--clock" && found(row).is_some() => {
            if let Some((row, step)) = found(row) {
                clock_row(row, *step);
            }
        }
        [row, times] if found(row).is_some() => {
            let Some(times) = times.parse().ok().filter(|times| *times <= ROOM) else {
                eprintln!("error: `{times}` is no number up to {ROOM}");
                return ExitCode::from(2);
            };
            let row = row.as_str();
            let rig = made_elsewhere(|| growth::rig(row).unwrap_or_else(Rig::new));
            if let Some((_, step)) = found(row) {
                run_step(*step, &rig, times);
            }
        }
        _ => ROWS.iter().for_each(|(row, _)| println!("{row}")),
    }
    ExitCode::SUCCESS
}

/// Makes a rig on another thread, as the gate compiles on another thread than it serves on: what a snapshot leaves of
/// memory is not where requests take theirs from.
fn made_elsewhere(make: impl FnOnce() -> Rig + Send) -> Rig {
    let rig = thread::scope(|scope| scope.spawn(make).join()).expect("a rig");
    // What a route needs once on every thread, at its first request.
    for route in &rig.snapshot.routes {
        let spent = Duration::ZERO;
        let metrics = &route.facts.metrics;
        metrics.record(&Method::GET, Some(200), Decision::Forwarded, spent);
    }
    rig
}

/// Prints how long one run takes; what a step makes for its runs, as many as ever are, is taken off.
fn clock_row(row: &str, step: Step) {
    let rig = made_elsewhere(|| growth::rig(row).unwrap_or_else(Rig::new));
    let best = |times| {
        let spent = (0..BATCHES).map(|_| {
            let start = Instant::now();
            run_step(step, &rig, times);
            start.elapsed()
        });
        spent.min().unwrap_or_default()
    };
    let spent = best(ROOM).saturating_sub(best(0));
    let runs = u32::try_from(ROOM).expect("a few thousand");
    println!("{row}: {} ns", (spent / runs).as_nanos());
}

/// Known to the script by this name: what runs outside of it is not counted, such as the first random number of the
/// process, whose price depends on the clock.
#[inline(never)]
fn run_step(step: Step, rig: &Rig, times: usize) {
    step(black_box(rig), black_box(times));
}

/// What the steps run on.
struct Rig {
    snapshot: Snapshot,
    /// Held because the limiters and issuers of the snapshot are theirs.
    survivors: Survivors,
    /// The first one.
    route: Arc<Route>,
    /// What is asked for, in turn.
    asked: Vec<Asked>,
    limiter: Arc<Limiter>,
    token: String,
    runtime: tokio::runtime::Runtime,
}

/// One thing that a client may ask for.
struct Asked {
    connection: Arc<Connection>,
    host: String,
    target: String,
}

impl Asked {
    fn new(host: String, target: String) -> Self {
        let names = Arc::new([host.parse().expect("a host")]);
        let facts = Tls {
            version: "1.3",
            names,
            client: None,
        };
        Self {
            connection: connection(facts),
            host,
            target,
        }
    }

    /// Another thing asked for on the same connection.
    fn beside(&self, target: String) -> Self {
        Self {
            connection: Arc::clone(&self.connection),
            host: self.host.clone(),
            target,
        }
    }
}

impl Rig {
    fn new() -> Self {
        let asked = Asked::new("app.example".into(), "/items/42?view=full".into());
        Self::of(GATE, vec![asked])
    }

    fn of(gate: &str, asked: Vec<Asked>) -> Self {
        let (folder, secret) = (tempfile::tempdir().expect("a folder"), [7_u8; 32]);
        let path = folder.path().join("secret");
        fs::write(&path, URL_SAFE_NO_PAD.encode(secret)).expect("a file");
        let text = gate.replace("SECRET", path.to_str().expect("a path in UTF-8"));
        let loaded = config::load_str("bench.toml", &text, &[]);
        let survivors = Survivors::new(1);
        let compiled = compile::compile(&loaded, &loaded.problems, &survivors);
        let Some(compiled) = compiled else {
            let problems = loaded.problems.sorted();
            let told = config::render(&problems, &loaded.sources, config::Color::Never);
            panic!("the bench's own file is bad\n{told}");
        };
        compiled.keep(&survivors);
        let limiter = compiled.limiters().iter();
        let limiter = limiter.map(|named| Arc::clone(&named.thing)).next();
        let snapshot = compiled.snapshot;
        let route = Arc::clone(snapshot.routes.first().expect("a route"));
        let rig = Self {
            snapshot,
            survivors,
            route,
            asked,
            limiter: limiter.expect("a limit"),
            token: token(URL_SAFE_NO_PAD.encode(secret).as_bytes()),
            runtime: tokio::runtime::Builder::new_current_thread()
                .build()
                .expect("a runtime"),
        };
        rig.check();
        rig
    }

    /// A bench of refusals would look fast; this also puts the token among those that are known, here and to the
    /// connection, which keeps one that comes again.
    fn check(&self) {
        for _ in 0..3 {
            let mut exchange = self.exchange();
            let mut met = None;
            self.runtime
                .block_on(admit::judge(&self.snapshot, &mut exchange, &mut met))
                .expect("the request is let in");
            let route = met.and_then(|id| self.snapshot.route(id));
            assert_eq!(
                route.expect("a route").facts.pattern,
                self.route.facts.pattern
            );
        }
    }

    /// About 600 bytes without the token, as a browser's script would send it.
    fn fields(&self, host: &str) -> Vec<(&'static str, String)> {
        vec![
            ("host", host.into()),
            (
                "user-agent",
                "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0".into(),
            ),
            ("accept", "application/json, text/plain, */*".into()),
            ("accept-language", "en-GB,en;q=0.7,de;q=0.3".into()),
            ("accept-encoding", "gzip, deflate, br, zstd".into()),
            ("referer", "https://app.example/items?page=2".into()),
            ("origin", "https://app.example".into()),
            ("connection", "keep-alive".into()),
            (
                "cookie",
                "session=0123456789abcdef0123456789abcdef; theme=dark".into(),
            ),
            ("sec-fetch-dest", "empty".into()),
            ("sec-fetch-mode", "cors".into()),
            ("sec-fetch-site", "same-origin".into()),
            ("authorization", format!("Bearer {}", self.token)),
        ]
    }

    fn head_bytes(&self) -> Vec<u8> {
        let mut bytes = b"GET /items/42?view=full HTTP/1.1\r\n".to_vec();
        for (name, value) in self.fields("app.example") {
            bytes.extend_from_slice(format!("{name}: {value}\r\n").as_bytes());
        }
        bytes.extend_from_slice(b"\r\n");
        bytes
    }

    fn head(&self) -> request::Parts {
        self.head_for(&self.asked[0])
    }

    fn head_for(&self, asked: &Asked) -> request::Parts {
        let mut request = Request::new(());
        *request.uri_mut() = asked.target.parse().expect("a target");
        for (name, value) in self.fields(&asked.host) {
            let value = HeaderValue::try_from(value).expect("a value");
            request
                .headers_mut()
                .append(HeaderName::from_static(name), value);
        }
        request.into_parts().0
    }

    fn exchange(&self) -> Box<Exchange> {
        self.shape(self.head(), &self.asked[0], &mut RequestIds::new())
    }

    fn shape(&self, head: request::Parts, asked: &Asked, ids: &mut RequestIds) -> Box<Exchange> {
        let fresh = (ids.next_id(), ids.next_u64());
        let (exchange, verdict) =
            normalise::shape(head, &asked.connection, &self.snapshot.server, fresh);
        verdict.expect("the request has a normal form");
        exchange
    }

    /// An exchange behind every request half.
    fn admitted(&self) -> Box<Exchange> {
        let mut exchange = self.exchange();
        let mut met = None;
        let judged = admit::judge(&self.snapshot, &mut exchange, &mut met);
        self.runtime
            .block_on(judged)
            .expect("the request is let in");
        exchange
    }
}

fn connection(facts: Tls) -> Arc<Connection> {
    let peer = "192.0.2.7:40000".parse().expect("an address");
    Arc::new(Connection::new(peer, Some(facts)))
}

/// A token for the issuer of [`GATE`], good for an hour.
fn token(secret: &[u8]) -> String {
    let now = clock::unix_seconds();
    let claims = format!(
        r#"{{"iss":"https://issuer.example","aud":"bench","sub":"user-1","iat":{now},"exp":{},"role":"reader"}}"#,
        now + 3600
    );
    let signed = [
        URL_SAFE_NO_PAD.encode(r#"{"alg":"HS256","typ":"JWT"}"#),
        URL_SAFE_NO_PAD.encode(claims),
    ]
    .join(".");
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret);
    let signature = hmac::sign(&key, signed.as_bytes());
    [signed, URL_SAFE_NO_PAD.encode(signature)].join(".")
}

/// An answer as a simple backend gives it, with a cookie to harden and leaks to remove.
fn answer() -> response::Parts {
    let mut answer = Response::new(()).into_parts().0;
    for (name, value) in [
        ("date", "Tue, 24 Nov 2026 10:00:00 GMT"),
        ("server", "gunicorn"),
        ("connection", "keep-alive"),
        ("content-type", "application/json"),
        ("content-length", "1024"),
        ("x-powered-by", "PHP/5.6"),
        ("set-cookie", "theme=dark; Path=/"),
    ] {
        answer.headers.append(
            HeaderName::from_static(name),
            HeaderValue::from_static(value),
        );
    }
    answer
}

/// Makes something for every possible run.
fn supply<T>(make: impl FnMut() -> T) -> Vec<T> {
    let mut make = make;
    (0..ROOM).map(|_| make()).collect()
}

/// Runs a step on the first of what was made, and leaves all of it in place.
fn spend<T>(mut things: Vec<T>, times: usize, mut step: impl FnMut(&mut T)) {
    for thing in things.iter_mut().take(times) {
        step(black_box(thing));
    }
    mem::forget(black_box(things));
}

fn screen(rig: &Rig, times: usize) {
    let limits = rig.snapshot.server.limits;
    let mut screen = Screen::new(ScreenLimits {
        head_bytes: limits.header_bytes,
        header_count: limits.header_count,
        uri_bytes: limits.uri_bytes,
    });
    let head = rig.head_bytes();
    for _ in 0..times {
        assert!(screen.feed(black_box(&head)).violation.is_none());
    }
}

/// The exchange is freed, too, as at the end of a request.
fn normalise_head(rig: &Rig, times: usize) {
    let mut ids = RequestIds::new();
    spend(supply(|| Some(rig.head())), times, |head| {
        let head = head.take().expect("a head");
        drop(black_box(rig.shape(head, &rig.asked[0], &mut ids)));
    });
}

fn route(rig: &Rig, times: usize) {
    let exchange = rig.exchange();
    for _ in 0..times {
        let found = rig.snapshot.router.find(
            black_box(exchange.authority().host()),
            exchange.target().judged(),
            exchange.method(),
        );
        assert!(matches!(black_box(found), Found::Route(_)));
    }
}

/// Runs a request half on one exchange over and over.
fn admit_half(rig: &Rig, times: usize, half: impl Fn(&Route, &mut Exchange) -> bool) {
    let mut exchange = rig.admitted();
    for _ in 0..times {
        assert!(half(&rig.route, black_box(&mut exchange)));
    }
}

fn network_admit(rig: &Rig, times: usize) {
    admit_half(rig, times, |route, exchange| {
        network::admit(&route.policies.network, exchange).is_ok()
    });
}

fn rate_limit_admit(rig: &Rig, times: usize) {
    admit_half(rig, times, |route, exchange| {
        let limits = &route.policies.rate_limits;
        exchange.tightest = None;
        rate_limit::admit(limits, exchange).is_ok()
            && rate_limit::admit_principal(limits, exchange).is_ok()
    });
}

fn body_limit_admit(rig: &Rig, times: usize) {
    admit_half(rig, times, |route, exchange| {
        body_limit::admit(&route.policies.body_limit, exchange).is_ok()
    });
}

fn cors_admit(rig: &Rig, times: usize) {
    admit_half(rig, times, |route, exchange| {
        exchange.cors = portcullis::exchange::CorsFact::NoOrigin;
        cors::admit(&route.policies.cors, exchange).is_ok()
    });
}

fn authn_admit(rig: &Rig, times: usize) {
    let mut exchange = rig.admitted();
    rig.runtime.block_on(async {
        for _ in 0..times {
            exchange.principal = None;
            let verdict = authn::admit(&rig.route.policies.authn, black_box(&mut exchange)).await;
            assert!(verdict.is_ok());
        }
    });
}

/// The first request of a connection, with a token that came on others before.
fn authn_by_digest(rig: &Rig, times: usize) {
    let mut exchange = rig.admitted();
    let names = &rig.asked[0]
        .connection
        .tls
        .as_ref()
        .expect("facts of TLS")
        .names;
    let facts = || Tls {
        version: "1.3",
        names: Arc::clone(names),
        client: None,
    };
    let fresh = supply(|| connection(facts()));
    rig.runtime.block_on(async {
        for connection in fresh.iter().take(times) {
            exchange.connection = Arc::clone(connection);
            exchange.principal = None;
            let verdict = authn::admit(&rig.route.policies.authn, black_box(&mut exchange)).await;
            assert!(verdict.is_ok());
        }
    });
    mem::forget(black_box(fresh));
}

fn rbac_admit(rig: &Rig, times: usize) {
    admit_half(rig, times, |route, exchange| {
        rbac::admit(&route.policies.rbac, exchange).is_ok()
    });
}

/// The request for the backend, from the fields that were judged; freed afterwards.
fn outgoing(rig: &Rig, times: usize) {
    spend(supply(|| rig.admitted()), times, |exchange| {
        drop(black_box(forward::outgoing(&rig.route, exchange, ())));
    });
}

fn strip_answer(_: &Rig, times: usize) {
    spend(supply(answer), times, |answer| {
        hop::strip_response(&mut answer.headers);
    });
}

/// Runs a response half on an answer of its own each time.
fn finish_half(
    rig: &Rig,
    times: usize,
    half: impl Fn(&Route, &mut Exchange, &mut response::Parts),
) {
    let mut exchange = rig.admitted();
    spend(supply(answer), times, |answer| {
        half(&rig.route, &mut exchange, answer);
    });
}

fn cookies_finish(rig: &Rig, times: usize) {
    finish_half(rig, times, |route, exchange, answer| {
        cookies::finish(&route.policies.cookies, exchange, answer);
    });
}

fn cors_finish(rig: &Rig, times: usize) {
    finish_half(rig, times, |route, exchange, answer| {
        cors::finish(&route.policies.cors, exchange, answer);
    });
}

fn rate_limit_finish(rig: &Rig, times: usize) {
    finish_half(rig, times, |route, exchange, answer| {
        rate_limit::finish(&route.policies.rate_limits, exchange, answer);
    });
}

fn headers_finish(rig: &Rig, times: usize) {
    finish_half(rig, times, |route, exchange, answer| {
        security_headers::finish(&route.policies.headers, exchange, answer);
    });
}

fn counters(rig: &Rig, times: usize) {
    let (metrics, exchange) = (&rig.route.facts.metrics, rig.exchange());
    for _ in 0..times {
        metrics.record(
            black_box(exchange.method()),
            Some(200),
            Decision::Forwarded,
            Duration::from_micros(1_800),
        );
    }
}

fn access_line(rig: &Rig, times: usize) {
    let exchange = rig.admitted();
    let mut lines = Vec::with_capacity(4096);
    for _ in 0..times {
        lines.clear();
        write_line(&record(rig, black_box(&exchange)), &mut lines);
    }
    black_box(lines);
}

/// The record as the pipeline fills it.
fn record<'a>(rig: &'a Rig, exchange: &'a Exchange) -> AccessRecord<'a> {
    AccessRecord {
        timestamp: SystemTime::now(),
        method: exchange.method(),
        scheme: exchange.scheme().as_str(),
        server_address: Some(exchange.authority().host()),
        path: exchange.target().path().as_bytes(),
        query: exchange.target().query().map(str::as_bytes),
        redact_query: &rig.snapshot.server.log.redact_query,
        route: Some(&*rig.route.facts.pattern),
        status: Some(200),
        request_size: 0,
        response_size: 1024,
        version: exchange.version(),
        tls_version: exchange.connection.tls.as_ref().map(|tls| tls.version),
        client: Some(exchange.client),
        peer: Some(exchange.connection.peer.ip()),
        user_agent: exchange.user_agent.as_ref().map(HeaderValue::as_bytes),
        enduser: exchange.principal.as_ref().map(|found| &*found.subject),
        trace_id: Some(exchange.trace.trace_id()),
        span_id: Some(exchange.trace.span_id()),
        request_id: exchange.request_id.to_str().ok(),
        duration: Duration::from_micros(1_834),
        upstream: Some(UpstreamRecord {
            address: "http://127.0.0.1:9",
            duration: Duration::from_micros(1_707),
            attempts: 1,
        }),
        blueprint: Some(&*rig.route.facts.blueprint),
        decision: Decision::Forwarded,
        stage: None,
        reason: None,
        detail: None,
        would_refuse: &exchange.would_refuse,
    }
}

/// What one request and its answer consist of, until they are used up.
type Supplied = Option<(request::Parts, response::Parts)>;

/// From the parsed head to the freed exchange: all of the above but the screen.
fn whole(rig: &Rig, times: usize) {
    let supplied = rig.asked.iter().cycle();
    let mut supplied = supplied.map(|asked| Some((rig.head_for(asked), answer())));
    let supplied = supply(|| supplied.next().expect("something to ask for"));
    let first = supplied.into_iter().zip(rig.asked.iter().cycle());
    let mut run: Vec<_> = first.collect();
    serve(rig, &mut run[..times]);
    mem::forget(run);
}

fn serve(rig: &Rig, run: &mut [(Supplied, &Asked)]) {
    let mut ids = RequestIds::new();
    let mut lines = Vec::with_capacity(4096);
    rig.runtime.block_on(async {
        for (pair, asked) in run {
            let (head, mut answer) = black_box(pair.take()).expect("a head and an answer");
            let mut exchange = rig.shape(head, asked, &mut ids);
            let mut met = None;
            let judged = admit::judge(&rig.snapshot, &mut exchange, &mut met).await;
            let admitted = judged.expect("the request is let in");
            let route = admitted.route();
            drop(black_box(forward::outgoing(route, &mut exchange, ())));
            hop::strip_response(&mut answer.headers);
            portcullis::policy::finish(&route.policies, &mut exchange, &mut answer);
            route.facts.metrics.record(
                exchange.method(),
                Some(200),
                Decision::Forwarded,
                Duration::from_micros(1_800),
            );
            lines.clear();
            write_line(&record(rig, &exchange), &mut lines);
            drop(black_box(answer));
        }
    });
}
