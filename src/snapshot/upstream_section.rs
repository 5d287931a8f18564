//! The section `[upstreams.NAME]` of the file: the keys of one backend.

use crate::config::{Key, Kind, Section};

/// `[upstreams.NAME]`
pub static UPSTREAM: Section = Section {
    name: "upstreams",
    doc: "one backend, with one server or several",
    keys: &[
        Key::new(
            "servers",
            Kind::OneOrMany(&Kind::Server),
            "http://, https://, h2c:// (HTTP/2 in clear) or unix:/path",
            "",
        ),
        Key::new(
            "protocol",
            Kind::Choice(&["http1", "http2"]),
            "what https servers are spoken to in",
            "\"http1\"",
        ),
        Key::new(
            "balance",
            Kind::Choice(&["p2c", "round_robin", "hash:client"]),
            "how a server is chosen",
            "\"p2c\"",
        ),
        Key::new(
            "connect_timeout",
            Kind::Duration,
            "time for a connection, TLS included",
            "\"3s\"",
        ),
        Key::new(
            "response_timeout",
            Kind::Duration,
            "time for the first byte of an answer",
            "\"30s\"",
        ),
        Key::new(
            "request_timeout",
            Kind::Duration,
            "time for all tries together until an answer begins; connect_timeout and response_timeout together where nothing is said",
            "",
        ),
        Key::new(
            "answer_idle",
            Kind::Duration,
            "longest silence in the middle of an answer",
            "\"5m\"",
        ),
        Key::new(
            "idle_timeout",
            Kind::Duration,
            "how long an idle connection is kept",
            "\"60s\"",
        ),
        Key::new(
            "idle_connections",
            Kind::Integer {
                min: 0,
                max: 100_000,
            },
            "idle connections kept to each server by each worker",
            "256",
        ),
        Key::new(
            "h2_connections",
            Kind::Integer { min: 1, max: 1024 },
            "most HTTP/2 connections to each server by each worker, each for at most 100 requests at once",
            "8",
        ),
        Key::new(
            "tunnel_idle",
            Kind::Duration,
            "longest silence in a WebSocket, and of the client of a gRPC call that is being answered",
            "\"10m\"",
        ),
        Key::new(
            "tunnel_age",
            Kind::Duration,
            "longest life of a WebSocket",
            "\"24h\"",
        ),
        Key::new(
            "tunnel_bytes",
            Kind::Size,
            "most bytes of a WebSocket, each way by itself",
            "\"16GiB\"",
        ),
        Key::new(
            "retries",
            Kind::Table(&RETRIES),
            "further tries when no connection could be made",
            "",
        ),
        Key::new(
            "breaker",
            Kind::Table(&BREAKER),
            "when to stop asking a server that fails",
            "",
        ),
        Key::new(
            "health",
            Kind::Table(&HEALTH),
            "active checks of each server, off unless stated",
            "",
        ),
        Key::new(
            "outliers",
            Kind::Table(&OUTLIERS),
            "when to leave out a server that does worse than the others",
            "",
        ),
        Key::new(
            "slow_start",
            Kind::Duration,
            "how long the share of a server that came back grows; zero gives it all at once",
            "\"10s\"",
        ),
        Key::new(
            "dns_refresh",
            Kind::Duration,
            "how often the names of servers are looked up again, at least every 100ms",
            "\"30s\"",
        ),
        Key::new(
            "profile",
            Kind::Choice(&["strict", "php", "wsgi", "servlet", "iis", "node"]),
            "how this backend reads paths",
            "\"strict\"",
        ),
        Key::new(
            "ca",
            Kind::Path,
            "authorities to trust for https servers, PEM; those of the system where nothing is said",
            "",
        ),
        Key::new(
            "server_name",
            Kind::String,
            "name that an https server's certificate must carry; its host where nothing is said",
            "",
        ),
        Key::new(
            "identity",
            Kind::Choice(&["off", "authenticated", "always"]),
            "which requests carry X-Portcullis-Identity, signed by [identity]: those of known callers, or all",
            "\"off\"",
        ),
    ],
};

static RETRIES: Section = Section {
    name: "retries",
    doc: "further tries when no connection could be made",
    keys: &[
        Key::new(
            "attempts",
            Kind::Integer { min: 0, max: 10 },
            "further tries",
            "1",
        ),
        Key::new(
            "budget",
            Kind::Number,
            "most retries as a share of requests",
            "0.1",
        ),
    ],
};

static HEALTH: Section = Section {
    name: "health",
    doc: "active checks of each server",
    keys: &[
        Key::new(
            "path",
            Kind::String,
            "asked for with GET; 2xx and 3xx are well",
            "",
        ),
        Key::new(
            "every",
            Kind::Duration,
            "pause between two checks",
            "\"5s\"",
        ),
        Key::new("timeout", Kind::Duration, "bound on one check", "\"2s\""),
    ],
};

static BREAKER: Section = Section {
    name: "breaker",
    doc: "when to stop asking a server that fails",
    keys: &[
        Key::new(
            "failures",
            Kind::Integer {
                min: 0,
                max: 1_000_000,
            },
            "failures in a row that open it; 0 never",
            "5",
        ),
        Key::new(
            "open",
            Kind::Duration,
            "how long it stays open before a probe may pass",
            "\"10s\"",
        ),
    ],
};

static OUTLIERS: Section = Section {
    name: "outliers",
    doc: "when to leave out a server that does worse than the others",
    keys: &[
        Key::new(
            "every",
            Kind::Duration,
            "how often the servers are compared",
            "\"10s\"",
        ),
        Key::new(
            "margin",
            Kind::Number,
            "by how much its share of 5xx answers must lie above that of the others together; 1 never",
            "0.3",
        ),
        Key::new(
            "requests",
            Kind::Integer {
                min: 1,
                max: 1_000_000,
            },
            "answers between two comparisons without which nothing is said of a server",
            "20",
        ),
        Key::new(
            "out",
            Kind::Duration,
            "how long it is left out; doubles each time, zero never",
            "\"30s\"",
        ),
        Key::new(
            "longest",
            Kind::Duration,
            "longest time that it is left out",
            "\"5m\"",
        ),
    ],
};
