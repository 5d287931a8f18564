//! Too much at once: what is shed, in which order, and that it is said.

use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit};

use crate::harness::eventually::eventually_pause;
use crate::harness::gate::{PUBLIC, Running, request};
use crate::harness::origin::answer;
use crate::harness::proxy::{Proxy, portcullis};
use crate::harness::{Client, Conn, Gate, Issuer, Origin, Response, eventually};

/// Keeps requests for `/held…` until it is opened.
#[derive(Clone, Default)]
struct Sluice(Arc<(Mutex<bool>, Condvar)>);

impl Sluice {
    fn origin(&self) -> Origin {
        let sluice = self.clone();
        Origin::script(move |conn: &mut Conn| {
            while let Some(received) = conn.request()? {
                if received.head.target().contains("/held") {
                    sluice.pass();
                }
                conn.note(received);
                conn.send(answer(200, &[], "ok"))?;
            }
            Ok(())
        })
    }

    fn pass(&self) {
        let (open, told) = &*self.0;
        let held = open.lock().expect("no panic behind it");
        let (_open, waited) = told
            .wait_timeout_while(held, Duration::from_mins(1), |open| !*open)
            .expect("no panic behind it");
        assert!(!waited.timed_out(), "nobody opened the sluice");
    }

    fn open(&self) {
        *self.0.0.lock().expect("no panic behind it") = true;
        self.0.1.notify_all();
    }
}

const TENANTS: &str = r#"
[[blueprints]]
name = "known"
hosts = ["app.example"]
prefix = "/known"
upstream = "legacy"
auth = { require = ["bearer"], issuers = ["corp"] }
"#;

/// A gate for ten requests at once, and clients that are in already.
struct Scene {
    gate: Running,
    clients: Vec<Client>,
    token: String,
    sluice: Sluice,
    _parts: (Origin, Issuer),
}

impl Scene {
    fn new() -> Self {
        let sluice = Sluice::default();
        let (origin, issuer) = (sluice.origin(), Issuer::http());
        let gate = Gate::before(&origin)
            .server("trusted_proxies = [\"127.0.0.0/8\"]")
            .with("[server.limits]\nrequests = 10\n")
            .with(&issuer.section())
            .with(TENANTS)
            .with(PUBLIC)
            .start();
        let token = issuer.bearer(&["reader"]);
        let mut scene = Self {
            clients: (0..12).map(|_| gate.https()).collect(),
            gate,
            token,
            sluice,
            _parts: (origin, issuer),
        };
        for number in 0..scene.clients.len() {
            scene.anonymous(number, "/hello").expect(200);
        }
        // The first use of a token fetches the keys.
        scene.known(0, "/known/hello").expect(200);
        scene
    }

    /// The head of a request from an address of this client's own, as a trusted proxy says.
    fn head(&self, client: usize, path: &str, token: bool) -> String {
        let address = format!("192.0.2.{client}");
        let fields = [
            ("X-Forwarded-For", address.as_str()),
            ("Authorization", &self.token),
        ];
        request("GET", path, &fields[..=usize::from(token)])
    }

    fn anonymous(&mut self, client: usize, path: &str) -> Response {
        let head = self.head(client, path, false);
        self.clients[client].send(head).response()
    }

    fn known(&mut self, client: usize, path: &str) -> Response {
        let head = self.head(client, path, true);
        self.clients[client].send(head).response()
    }

    /// Requests of these clients that the backend keeps.
    fn hold(&mut self, clients: std::ops::Range<usize>, path: &str) {
        let count = clients.end;
        for client in clients {
            let head = self.head(client, path, true);
            self.clients[client].send(head);
        }
        self.await_under_way(count);
    }

    fn await_under_way(&self, count: usize) {
        eventually(&format!("{count} are under way"), || {
            let metric = self.gate.proxy.metric("portcullis_requests_in_flight", &[]);
            (metric.to_string() == count.to_string()).then_some(())
        });
    }
}

fn expect_shed(response: &Response) {
    response.expect(503);
    assert_eq!(
        response.problem()["type"],
        "urn:portcullis:problem:overloaded"
    );
    assert_eq!(response.header("retry-after"), Some("1"));
}

#[test]
fn strangers_are_shed_before_guests_and_guests_before_the_known() {
    let mut scene = Scene::new();
    scene.hold(0..8, "/held");
    // Whoever is not in yet stays outside; whoever is in goes on.
    scene.gate.http().expect_close();
    scene.anonymous(10, "/hello").expect(200);

    scene.hold(8..9, "/held");
    expect_shed(&scene.anonymous(10, "/hello"));
    // A credential for a route that asks for none makes nobody known.
    expect_shed(&scene.known(10, "/hello"));
    scene.known(10, "/known/hello").expect(200);

    scene.hold(9..10, "/known/held");
    expect_shed(&scene.known(11, "/known/hello"));

    scene.sluice.open();
    for client in &mut scene.clients[..10] {
        client.response().expect(200);
    }
    scene.await_under_way(0);
    scene.gate.get("/hello").expect(200);
}

#[test]
fn one_client_holds_no_more_than_its_part() {
    let mut scene = Scene::new();
    let mine = |scene: &Scene| scene.head(1, "/known/held", true);
    for connection in 0..5 {
        let head = mine(&scene);
        scene.clients[connection].send(head);
    }
    scene.await_under_way(5);
    let head = mine(&scene);
    expect_shed(&scene.clients[5].send(head).response());
    let line = scene
        .gate
        .proxy
        .await_access("the sixth", |line| line["reason"] == "overloaded");
    assert_eq!(line["detail"], "requests-of-client", "{line}");
    // Nobody else notices.
    scene.anonymous(6, "/hello").expect(200);
    scene.gate.get("/hello").expect(200);
    scene.sluice.open();
    for client in &mut scene.clients[..5] {
        client.response().expect(200);
    }
    scene.await_under_way(0);
    let head = mine(&scene);
    scene.clients[0].send(head).response().expect(200);
}

#[test]
fn overload_is_said_in_the_line_the_metric_and_the_log() {
    let mut scene = Scene::new();
    scene.hold(0..9, "/held");
    expect_shed(&scene.anonymous(10, "/shed"));
    scene.gate.http().expect_close();
    let proxy = &scene.gate.proxy;
    let line = proxy.await_access_of("/shed");
    assert_eq!(line["decision"], "failed", "{line}");
    assert_eq!(line["stage"], "forward", "{line}");
    assert_eq!(line["reason"], "overloaded", "{line}");
    assert_eq!(line["http.response.status_code"], 503, "{line}");
    for stage in ["stage=\"forward\"", "stage=\"wire\""] {
        proxy.await_metric(
            "portcullis_refusals_total",
            &[stage, "reason=\"overloaded\""],
            1.0,
        );
    }
    proxy.await_talk("overloaded: new connections are closed");
    scene.sluice.open();
    proxy.await_talk("no longer overloaded");
}

/// The gate, started where only so many files may be open.
fn within(open_files: usize, gate: Gate) -> Started {
    let mut command = std::process::Command::new("sh");
    let script = format!("ulimit -n {open_files} && exec \"$0\" run -c \"$1\"");
    command
        .args(["-c", &script])
        .arg(portcullis().get_program())
        .arg(gate.write())
        .env("NO_COLOR", "1");
    Started {
        proxy: Proxy::spawn(&mut command),
        _files: gate,
    }
}

/// A proxy beside the files that it was started on.
struct Started {
    proxy: Proxy,
    _files: Gate,
}

impl std::ops::Deref for Started {
    type Target = Proxy;

    fn deref(&self) -> &Proxy {
        &self.proxy
    }
}

#[test]
fn a_limit_of_open_files_sheds_connections_and_serves_those_that_are_in() {
    let origin = Origin::echo();
    let gate = Gate::before(&origin)
        .server("plaintext = true")
        .with(PUBLIC);
    let proxy = within(160, gate);
    proxy.await_talk("fewer connections than `server.limits.connections` fit");
    let mut first = Client::plain(proxy.http());
    first.send(request("GET", "/", &[])).response().expect(200);
    let crowd: Vec<_> = (0..300).map(|_| Client::plain(proxy.http())).collect();
    let shed = || proxy.metric("portcullis_refusals_total", &["reason=\"overloaded\""]);
    eventually("the rest is shed", || (shed() >= 180.0).then_some(()));
    // With the backend's connections and files still within reach, and the processor at rest.
    let before = cpu_ms(proxy.id());
    for _ in 0..10 {
        first
            .send(request("GET", "/", &[("Connection", "keep-alive")]))
            .response()
            .expect(200);
        eventually_pause(Duration::from_millis(100));
    }
    let spent = cpu_ms(proxy.id()) - before;
    assert!(
        spent < 500,
        "{spent} ms of processor in a second of next to nothing"
    );
    drop(crowd);
    eventually("there is room again", || {
        let open = proxy.metric("portcullis_connections", &["state=\"open\""]);
        (open <= 2.0).then_some(())
    });
    Client::plain(proxy.http())
        .send(request("GET", "/", &[]))
        .response()
        .expect(200);
}

#[test]
fn a_backend_is_not_blamed_for_want_of_descriptors() {
    const CLIENTS: usize = 70;
    let sluice = Sluice::default();
    let origin = sluice.origin();
    let gate = Gate::before(&origin)
        .server("plaintext = true")
        .with(PUBLIC);
    // Three quarters are for clients: those find room, and not all of them a second one for the backend.
    let proxy = within(100, gate);
    let mut clients: Vec<_> = (0..CLIENTS).map(|_| Client::plain(proxy.http())).collect();
    for client in &mut clients {
        client.send(request("GET", "/held", &[]));
    }
    let refused = || {
        let lines = proxy.access_lines();
        let without = |line: &&serde_json::Value| line["detail"] == "open-files";
        lines.iter().filter(without).count()
    };
    eventually("more than open a breaker are refused", || {
        (refused() > 10).then_some(())
    });
    sluice.open();
    let answers: Vec<_> = clients.iter_mut().map(Client::response).collect();
    for answer in &answers {
        if answer.status != 200 {
            expect_shed(answer);
        }
    }
    assert!(answers.iter().any(|answer| answer.status == 200));
    drop(clients);
    Client::plain(proxy.http())
        .send(request("GET", "/", &[]))
        .response()
        .expect(200);
}

/// Processor time of a process so far, in milliseconds.
fn cpu_ms(id: u32) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).expect("it still runs");
    let (_, fields) = stat.rsplit_once(')').expect("a name in parentheses");
    let ticks: u64 = fields
        .split_whitespace()
        .skip(11)
        .take(2)
        .filter_map(|field| field.parse::<u64>().ok())
        .sum();
    // A tick is 10 ms on every Linux.
    ticks * 10
}

#[test]
fn the_admin_listener_rests_when_there_are_no_descriptors_left() {
    let origin = Origin::echo();
    let gate = Gate::before(&origin).open();
    gate.proxy.ask_admin("/livez").expect(200);
    let id = i32::try_from(gate.proxy.id()).ok().and_then(Pid::from_raw);
    let none = Rlimit {
        current: Some(3),
        maximum: getrlimit(Resource::Nofile).maximum,
    };
    let before = prlimit(id, Resource::Nofile, none).expect("our own child");
    let mut client = Client::plain(gate.proxy.admin());
    client.send("GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n");
    let said = || {
        let talk = gate.proxy.talk();
        talk.matches("accept failed on the admin listener").count()
    };
    eventually("it has tried", || (said() > 0).then_some(()));
    eventually_pause(Duration::from_secs(1));
    let tries = said();
    prlimit(id, Resource::Nofile, before).expect("our own child");
    client.response().expect(200);
    // Twenty a second, and some for a machine that is busy with others.
    assert!(tries < 100, "{tries} tries");
}
