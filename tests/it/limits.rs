//! Rate limits (cases b45 and b46, attack a30) and the limits on bodies and heads.

use std::fmt::Write;

use crate::harness::gate::{PUBLIC, Running, request};
use crate::harness::{Gate, Issuer, Mint, Origin, Response, eventually};

/// The number after `name=` in a structured field.
fn parameter(value: &str, name: &str) -> u64 {
    value
        .split(';')
        .find_map(|part| part.trim().strip_prefix(name)?.strip_prefix('='))
        .and_then(|number| number.parse().ok())
        .unwrap_or_else(|| panic!("no `{name}` in `{value}`"))
}

fn limited(origin: &Origin, limits: &str) -> Running {
    Gate::before(origin)
        .workers(2)
        .defaults(&format!("rate_limits = [{limits}]"))
        .open()
}

#[track_caller]
fn expect_exceeded(response: &Response, policy: &str) {
    response.expect(429);
    let problem = response.problem();
    assert_eq!(
        problem["type"],
        "https://iana.org/assignments/http-problem-types#quota-exceeded"
    );
    let violated = problem["violated-policies"].as_array().expect("a list");
    assert!(violated.iter().any(|name| name == policy), "{problem}");
    let retry: u64 = response
        .header("retry-after")
        .and_then(|value| value.parse().ok())
        .expect("Retry-After in seconds");
    let limit = response.header("ratelimit").expect("RateLimit");
    assert!(retry >= parameter(limit, "t"), "{retry} {limit}");
    assert!(retry >= 1);
}

#[test]
fn b45_fields_on_a_request_within_the_quota() {
    let origin = Origin::with_headers(&[
        ("RateLimit", "\"theirs\";r=1;t=1"),
        ("RateLimit-Policy", "\"theirs\";q=1;w=1"),
    ]);
    let gate = limited(
        &origin,
        r#"{ name = "default", key = "client", quota = 100, window = "1m" }"#,
    );
    let response = gate.get("/");
    response.expect(200);
    assert_eq!(
        response.headers("ratelimit-policy"),
        ["\"default\";q=100;w=60"]
    );
    let limit = response.header("ratelimit").expect("RateLimit");
    assert!(limit.starts_with("\"default\";"), "{limit}");
    assert_eq!(parameter(limit, "r"), 99, "{limit}");
    assert!(parameter(limit, "t") <= 60, "{limit}");
    for name in ["x-ratelimit-limit", "x-ratelimit-remaining", "retry-after"] {
        assert!(response.header(name).is_none(), "{name}");
    }
}

#[test]
fn b45_a_request_too_many() {
    let origin = Origin::echo();
    let gate = limited(
        &origin,
        r#"{ name = "default", key = "client", quota = 2, window = "1h" }"#,
    );
    for remaining in [1, 0] {
        let response = gate.get("/");
        let limit = response.expect(200).header("ratelimit").expect("RateLimit");
        assert_eq!(parameter(limit, "r"), remaining, "{limit}");
    }
    let response = gate.get("/");
    expect_exceeded(&response, "default");
    assert_eq!(
        parameter(response.header("ratelimit").expect("RateLimit"), "r"),
        0
    );
    assert_eq!(response.headers("ratelimit-policy").len(), 1);
    assert_eq!(origin.requests().len(), 2, "the third stays here");
    let line = gate
        .proxy
        .await_access("the refusal", |line| line["reason"] == "rate-limited");
    assert_eq!(line["stage"], "rate-limit", "{line}");
    gate.proxy.await_metric(
        "portcullis_refusals_total",
        &["reason=\"rate-limited\""],
        1.0,
    );
}

#[test]
fn b45_two_policies_are_both_named_and_the_tightest_leads() {
    let origin = Origin::echo();
    let gate = limited(
        &origin,
        r#"{ name = "wide", key = "client", quota = 1000, window = "1h" },
           { name = "tight", key = "client", quota = 3, window = "1h" }"#,
    );
    let response = gate.get("/");
    let policies = response.headers("ratelimit-policy").join(", ");
    assert!(policies.contains("\"wide\";q=1000;w=3600"), "{policies}");
    assert!(policies.contains("\"tight\";q=3;w=3600"), "{policies}");
    let limit = response.header("ratelimit").expect("RateLimit");
    assert!(limit.starts_with("\"tight\";"), "{limit}");
    gate.get("/").expect(200);
    gate.get("/").expect(200);
    let response = gate.get("/");
    expect_exceeded(&response, "tight");
    assert_eq!(
        response.problem()["violated-policies"]
            .as_array()
            .map(Vec::len),
        Some(1)
    );
}

#[test]
fn b45_without_a_word_the_built_in_limit_holds() {
    let origin = Origin::echo();
    let gate = Gate::before(&origin).defaults("# nothing said").open();
    let mut client = gate.https();
    let mut passed = 0;
    for _ in 0..120 {
        match client.send(request("GET", "/", &[])).response().status {
            200 => passed += 1,
            429 => break,
            other => panic!("{other}"),
        }
    }
    assert!(
        (40..=110).contains(&passed),
        "burst 40 and 20 a second, {passed} passed"
    );
}

#[test]
fn b45_a_route_may_have_its_own_and_keys_are_apart() {
    let origin = Origin::echo();
    let gate = Gate::before(&origin)
        .with(
            r#"
[[blueprints]]
name = "app"
hosts = ["app.example"]
upstream = "legacy"
auth = "public"

[[blueprints]]
name = "keyed"
hosts = ["app.example"]
prefix = "/keyed"
upstream = "legacy"
auth = "public"
[[blueprints.rate_limits]]
name = "tenant"
key = ["header:X-Tenant", "client"]
quota = 1
window = "1h"
"#,
        )
        .start();
    gate.get_with("/keyed", &[("X-Tenant", "a")]).expect(200);
    gate.get_with("/keyed", &[("X-Tenant", "a")]).expect(429);
    gate.get_with("/keyed", &[("X-Tenant", "b")]).expect(200);
    gate.get("/keyed").expect(200);
    gate.get("/keyed").expect(429);
    for _ in 0..3 {
        gate.get("/other").expect(200);
    }
}

#[test]
fn b45_monitor_counts_and_lets_pass() {
    let origin = Origin::echo();
    let gate = limited(
        &origin,
        r#"{ name = "watched", key = "client", quota = 1, window = "1h", mode = "monitor" }"#,
    );
    gate.get("/first").expect(200);
    gate.get("/second").expect(200);
    let line = gate.proxy.await_access_of("/second");
    assert!(
        line["would_refuse"].to_string().contains("rate-limited"),
        "{line}"
    );
}

#[test]
fn b45_scans_of_what_is_not_there_cost_something() {
    let origin = Origin::echo();
    let gate = Gate::before(&origin)
        .defaults(
            "rate_limits = [{ name = \"tight\", key = \"client\", quota = 2, window = \"1h\" }]",
        )
        .with(
            "[[blueprints]]\nname = \"app\"\nhosts = [\"app.example\"]\nprefix = \"/only\"\n\
             upstream = \"legacy\"\nauth = \"public\"\n",
        )
        .start();
    for status in [404, 404, 429] {
        gate.get("/elsewhere").expect(status);
    }
    origin.expect_untouched();
}

#[test]
fn b45_a_limit_by_subject_counts_the_principal() {
    let origin = Origin::echo();
    let issuer = Issuer::http();
    let gate = Gate::before(&origin)
        .with(&issuer.section())
        .with(
            r#"
[[blueprints]]
name = "api"
hosts = ["app.example"]
upstream = "legacy"
[blueprints.auth]
require = ["bearer"]
issuers = ["corp"]
[[blueprints.rate_limits]]
name = "each"
key = "subject"
quota = 2
window = "1h"
"#,
        )
        .start();
    let bearer = |subject: &str| issuer.bearer_of(&Mint::new().claim("sub", subject));
    let (alice, bob) = (bearer("alice"), bearer("bob"));
    let status = |token: &str| gate.get_with("/", &[("Authorization", token)]).status;
    assert_eq!(
        [status(&alice), status(&alice), status(&alice)],
        [200, 200, 429]
    );
    assert_eq!(status(&bob), 200, "another principal at the same address");
    assert_eq!(
        status(&bearer("alice")),
        429,
        "another token of the same principal"
    );
}

#[test]
fn b46_failed_logins_cost_more() {
    let origin = Origin::fixed(crate::harness::origin::answer(401, &[], "no"));
    let gate = limited(
        &origin,
        r#"{ name = "logins", key = "client", quota = 20, window = "1h", cost = { status_401 = 10 } }"#,
    );
    let mut statuses = Vec::new();
    for _ in 0..4 {
        statuses.push(gate.get("/login").status);
    }
    assert_eq!(
        statuses,
        [401, 401, 429, 429],
        "the second failure used up the quota"
    );
}

/// A gate that believes this machine about client addresses.
fn believing(origin: &Origin, limits: &str) -> Running {
    Gate::before(origin)
        .workers(2)
        .server("trusted_proxies = [\"127.0.0.0/8\"]")
        .defaults(&format!("rate_limits = [{limits}]"))
        .open()
}

#[test]
fn b46_ipv6_is_counted_by_its_64() {
    let origin = Origin::echo();
    let gate = believing(
        &origin,
        r#"{ name = "tight", key = "client", quota = 2, window = "1h" }"#,
    );
    let status = |address: &str| gate.get_with("/", &[("X-Forwarded-For", address)]).status;
    assert_eq!(status("2001:db8:1:2::1"), 200);
    assert_eq!(status("2001:db8:1:2:ffff::2"), 200);
    assert_eq!(status("2001:db8:1:2:aaaa:bbbb:cccc:dddd"), 429);
    assert_eq!(status("2001:db8:1:3::1"), 200, "another /64");
    assert_eq!(status("192.0.2.1"), 200);
    assert_eq!(status("192.0.2.2"), 200, "IPv4 counts each address");
    assert_eq!(
        status("::ffff:192.0.2.1"),
        200,
        "a mapped address is the IPv4 one"
    );
    assert_eq!(status("192.0.2.1"), 429);
}

#[test]
fn b46_preflights_are_not_counted() {
    let origin = Origin::echo();
    let gate = Gate::before(&origin)
        .defaults("rate_limits = [{ name = \"tight\", key = \"client\", quota = 1, window = \"1h\" }]")
        .with(&format!(
            "{PUBLIC}\n[blueprints.cors]\norigins = [\"https://app.example\"]\nmethods = [\"GET\", \"PUT\"]\n"
        ))
        .start();
    let preflight = [
        ("Origin", "https://app.example"),
        ("Access-Control-Request-Method", "PUT"),
    ];
    for _ in 0..3 {
        gate.request("OPTIONS", "/", &preflight).expect(204);
    }
    gate.get("/").expect(200);
    gate.get("/").expect(429);
    gate.request("OPTIONS", "/", &preflight).expect(204);
}

#[test]
fn a30_a_flood_of_addresses_stays_in_bounded_memory_and_frees_no_offender() {
    let origin = Origin::fixed(crate::harness::origin::answer(200, &[], "ok"));
    let gate = believing(
        &origin,
        r#"{ name = "tight", key = "client", quota = 2, window = "1h" }"#,
    );
    let offender = [("X-Forwarded-For", "198.51.100.1")];
    for status in [200, 200, 429] {
        gate.get_with("/", &offender).expect(status);
    }
    let mut client = gate.https();
    let mut flood = |addresses: std::ops::Range<u32>| {
        for start in addresses.step_by(50) {
            let mut batch = String::new();
            for number in start..start + 50 {
                let address = format!("2001:db8:{:x}:{:x}::1", number >> 16, number & 0xffff);
                let _ = write!(
                    batch,
                    "{}",
                    request("GET", "/", &[("X-Forwarded-For", &address)])
                );
            }
            client.send(batch);
            for _ in 0..50 {
                client.response().expect(200);
            }
        }
    };
    flood(0..2_000);
    let before = gate.proxy.resident_kib();
    flood(2_000..20_000);
    let grown = gate.proxy.resident_kib().saturating_sub(before);
    assert!(grown < 16 * 1024, "grew by {grown} KiB");
    gate.get_with("/", &offender).expect(429);
    let entries = gate.proxy.metric("portcullis_limiter_entries", &[]);
    assert!((1.0..=100_000.0).contains(&entries), "{entries}");
}

/// A request whose body is announced or chunked.
fn upload(fields: &str, body: &[u8]) -> Vec<u8> {
    let head = format!("POST /upload HTTP/1.1\r\nHost: app.example\r\n{fields}\r\n\r\n");
    [head.as_bytes(), body].concat()
}

const SMALL_BODIES: &str = "[server.limits]\nbody_bytes = \"1KiB\"\n";

#[test]
fn a33_an_announced_body_that_is_too_large_stays_here() {
    let origin = Origin::echo();
    let gate = Gate::before(&origin).with(SMALL_BODIES).open();
    // Not one byte of the body is sent: only the announcement can be what is refused.
    let response = gate.exchange(upload("Content-Length: 1025", b""));
    assert_eq!(
        response.expect(413).problem()["type"],
        "urn:portcullis:problem:body-too-large"
    );
    origin.expect_untouched();
    let fits = gate.exchange(upload("Content-Length: 1024", &[b'x'; 1024]));
    assert_eq!(fits.expect(200).json()["body_bytes"], 1024);
}

#[test]
fn a33_a_route_may_have_a_smaller_bound_and_may_only_watch_it() {
    let origin = Origin::echo();
    let blueprint = |name: &str, mode: &str| {
        format!(
            "[[blueprints]]\nname = \"{name}\"\nhosts = [\"app.example\"]\nprefix = \"/{name}\"\n\
             upstream = \"legacy\"\nauth = \"public\"\n[blueprints.body]\nbytes = \"1KiB\"\nmode = \"{mode}\"\n"
        )
    };
    let gate = Gate::before(&origin)
        .with(&blueprint("small", "enforce"))
        .with(&blueprint("watched", "monitor"))
        .with(PUBLIC)
        .start();
    let status = |path: &str, framing: &str, body: &[u8]| {
        let head = format!("POST {path} HTTP/1.1\r\nHost: app.example\r\n{framing}\r\n\r\n");
        gate.exchange([head.as_bytes(), body].concat()).status
    };
    let body = vec![b'x'; 2048];
    let chunked = [b"800\r\n".as_slice(), &body, b"\r\n0\r\n\r\n"].concat();
    for (path, expected) in [("/small", 413), ("/watched", 200), ("/other", 200)] {
        assert_eq!(
            status(path, "Content-Length: 2048", &body),
            expected,
            "{path}"
        );
        assert_eq!(
            status(path, "Transfer-Encoding: chunked", &chunked),
            expected,
            "{path} chunked"
        );
    }
    gate.proxy.await_metric(
        "portcullis_refusals_total",
        &["reason=\"body-too-large\"", "mode=\"monitor\""],
        2.0,
    );
    let watched = eventually("both lines", || {
        let mut lines = gate.proxy.access_lines();
        lines.retain(|line| line["url.path"] == "/watched");
        (lines.len() == 2).then_some(lines)
    });
    for line in watched {
        let would = line["would_refuse"].to_string();
        assert!(would.contains("body-too-large"), "{line}");
    }
}

#[test]
fn a33_a_chunked_body_is_cut_at_the_limit_and_never_ends_well_upstream() {
    let origin = Origin::echo();
    let gate = Gate::before(&origin).with(SMALL_BODIES).open();
    let mut client = gate.https();
    let block = [b"200\r\n".as_slice(), &[b'x'; 512], b"\r\n"].concat();
    client.send(upload("Transfer-Encoding: chunked", &block));
    for _ in 0..3 {
        client.send(&block);
    }
    client.send(b"0\r\n\r\n");
    client.response().expect(413);
    client.expect_close();
    origin.await_closed(origin.connections());
    assert!(origin.requests().is_empty(), "no whole request came of it");
}

#[test]
fn a33_expect_100_is_answered_only_after_the_guards() {
    let origin = Origin::echo();
    let gate = Gate::guarding(&origin).start();
    let mut client = gate.https();
    client.send("POST /admin HTTP/1.1\r\nHost: app.example\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n");
    let response = client.response();
    response.expect(401);
    assert!(response.interim.is_empty(), "{:?}", response.interim);
    client.expect_close();
    origin.expect_untouched();

    let mut client = gate.https();
    client.send("POST /open HTTP/1.1\r\nHost: app.example\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n");
    assert!(
        client.response_head().line.contains(" 100"),
        "asked to go on"
    );
    client.send("hello").response().expect(200);
    assert_eq!(origin.only_request().body, b"hello");
}

#[test]
fn heads_and_targets_have_a_size() {
    let origin = Origin::echo();
    let gate = Gate::before(&origin).open();
    let large = "x".repeat(17 * 1024);
    gate.get_with("/", &[("X-Large", &large)]).expect(431);
    let many: Vec<_> = (0..101).map(|number| format!("X-{number}")).collect();
    let many: Vec<_> = many.iter().map(|name| (name.as_str(), "1")).collect();
    gate.get_with("/", &many).expect(431);
    gate.get(&format!("/{}", "x".repeat(8 * 1024))).expect(414);
    gate.get(&format!("/?{}", "x".repeat(8 * 1024))).expect(414);
    origin.expect_untouched();
}

#[test]
fn a21_slow_heads_and_bodies_are_given_up() {
    let origin = Origin::echo();
    let gate = Gate::before(&origin)
        .with("[server.limits]\nheader_timeout = \"500ms\"\nbody_idle = \"500ms\"\n")
        .open();
    let mut slow_head = gate.https();
    slow_head.send("GET / HTTP/1.1\r\nHost: app.ex");
    let rest = String::from_utf8_lossy(&slow_head.until_close()).into_owned();
    assert!(
        rest.is_empty() || rest.starts_with("HTTP/1.1 408 "),
        "{rest}"
    );

    let mut slow_body = gate.https();
    slow_body.send(upload("Content-Length: 10", b"hello"));
    slow_body.response().expect(408);
    slow_body.expect_close();
    assert!(origin.requests().is_empty(), "no whole request came of it");
}

#[test]
fn connections_of_one_client_are_counted() {
    let origin = Origin::echo();
    let gate = Gate::before(&origin)
        .with("[server.limits]\nconnections_per_client = 3\n")
        .open();
    let mut held: Vec<_> = (0..3).map(|_| gate.https()).collect();
    for client in &mut held {
        client.send(request("GET", "/", &[])).response().expect(200);
    }
    let options = crate::harness::TlsOptions::new(&gate.ca, "app.example");
    let fourth = crate::harness::Client::try_tls(gate.proxy.https(), &options);
    assert!(fourth.is_err(), "a fourth connection was served");
    drop(held);
    eventually("a slot is free again", || {
        let mut client = crate::harness::Client::try_tls(gate.proxy.https(), &options).ok()?;
        client.send(request("GET", "/", &[])).try_response().ok()
    });
}

#[test]
fn what_only_looks_like_a_preflight_is_counted() {
    let origin = Origin::echo();
    let marks = [
        ("Origin", "https://any.example"),
        ("Access-Control-Request-Method", "GET"),
    ];
    // Without rules on origins the backend gets it; in monitor mode it gets what would be refused.
    for cors in ["", "cors = { mode = \"monitor\", origins = [] }\n"] {
        let gate = Gate::before(&origin)
            .defaults(&format!(
                "{cors}rate_limits = [{{ name = \"few\", quota = 2, window = \"1h\" }}]"
            ))
            .open();
        let statuses: Vec<_> = (0..4)
            .map(|_| gate.request("OPTIONS", "/", &marks).status)
            .collect();
        assert_eq!(statuses[2..], [429, 429], "{cors}");
    }
    let gate = Gate::before(&origin)
        .defaults(
            "cors = { origins = [] }\nrate_limits = [{ name = \"few\", quota = 2, window = \"1h\" }]",
        )
        .open();
    for _ in 0..4 {
        gate.request("OPTIONS", "/", &marks).expect(403);
    }
    let nowhere = Gate::before(&origin)
        .defaults("rate_limits = [{ name = \"few\", quota = 2, window = \"1h\" }]")
        .with(&PUBLIC.replace("app.example", "other.example"))
        .start();
    let statuses: Vec<_> = (0..3)
        .map(|_| nowhere.request("OPTIONS", "/", &marks).status)
        .collect();
    assert_eq!(statuses, [404, 404, 429]);
}

#[test]
fn a_cost_is_charged_to_the_key_that_was_counted() {
    let origin = Origin::fixed("HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n");
    for key in ["cookie:sid", "header:cookie"] {
        let gate = limited(
            &origin,
            &format!(
                "{{ name = \"guesses\", key = \"{key}\", quota = 20, window = \"1h\", cost = {{ status_401 = 10 }} }}"
            ),
        );
        let statuses: Vec<_> = (0..3)
            .map(|_| gate.get_with("/", &[("Cookie", "sid=1")]).status)
            .collect();
        assert_eq!(statuses, [401, 401, 429], "{key}");
        // Another holder, and the client as such, owe nothing.
        gate.get_with("/", &[("Cookie", "sid=2")]).expect(401);
        gate.get("/").expect(401);
    }
}

#[test]
fn a_tunnel_is_a_connection_of_its_client() {
    let origin = Origin::script(|conn| {
        conn.request()?;
        conn.send(
            "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
        )?;
        conn.until_close().map(drop)
    });
    let gate = Gate::before(&origin)
        .server("plaintext = true")
        .with("[server.limits]\nconnections_per_client = 3\n")
        .open();
    let asked = request(
        "GET",
        "/chat",
        &[
            ("Connection", "Upgrade"),
            ("Upgrade", "websocket"),
            ("Sec-WebSocket-Version", "13"),
            ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ],
    );
    let mut tunnels: Vec<_> = (0..3).map(|_| gate.http()).collect();
    for tunnel in &mut tunnels {
        tunnel.send(&asked);
        let line = tunnel.response_head().line;
        assert!(line.contains(" 101 "), "{line}");
    }
    gate.proxy
        .await_metric("portcullis_connections", &["state=\"tunnel\""], 3.0);
    gate.http().expect_close();
    drop(tunnels);
    eventually("the places are free again", || {
        let mut client = gate.http();
        client.send(&asked);
        client.try_response().ok()
    });
}

#[test]
fn routes_of_one_name_in_two_blueprints_are_counted_apart() {
    let origin = Origin::echo();
    let blueprint = |name: &str| {
        format!(
            "[[blueprints]]\nname = \"{name}\"\nprefix = \"/{name}\"\nupstream = \"legacy\"\nauth = \"public\"\n\
             [[blueprints.routes]]\nname = \"show\"\npath = \"/show\"\n"
        )
    };
    let gate = Gate::before(&origin)
        .defaults(
            "rate_limits = [{ name = \"each\", key = \"route\", quota = 1, window = \"1h\" }]",
        )
        .with(&blueprint("one"))
        .with(&blueprint("other"))
        .start();
    for path in ["/one/show", "/other/show"] {
        gate.get(path).expect(200);
        expect_exceeded(&gate.get(path), "each");
    }
}

#[test]
fn trailers_are_refused_by_their_size_and_not_as_a_broken_body() {
    let origin = Origin::echo();
    let wide = Gate::before(&origin)
        .with("[server.limits]\nheader_bytes = \"64KiB\"\n")
        .open();
    let gate = Gate::before(&origin).open();
    let with_trailers = |bytes: usize| {
        // Of `T: `, two line ends and the value.
        let value = "x".repeat(bytes - 7);
        format!(
            "POST /t HTTP/1.1\r\nHost: app.example\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\nT: {value}\r\n\r\n"
        )
    };
    for gate in [&gate, &wide] {
        for bytes in [100, 16_382, 16_383] {
            gate.exchange(with_trailers(bytes)).expect(200);
        }
        for bytes in [16_384, 16_385, 40_000] {
            let response = gate.exchange(with_trailers(bytes));
            assert_eq!(
                response.expect(431).problem()["type"],
                "urn:portcullis:problem:head-too-large",
                "{bytes}"
            );
        }
    }
    for received in origin.requests() {
        assert_eq!(received.body, b"a");
    }
}
