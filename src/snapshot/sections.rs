//! The sections of the file that are no policy: server, tls, admin, log, issuers.

use super::{dpop::DPOP, issuers};
use crate::config::{Key, Kind, Section};

/// `[server]`
pub static SERVER: Section = Section {
    name: "server",
    doc: "listeners, workers, trusted proxies",
    keys: &[
        Key::new(
            "https",
            Kind::OneOrMany(&Kind::Listen),
            "addresses that speak TLS",
            "",
        ),
        Key::new(
            "http",
            Kind::OneOrMany(&Kind::Listen),
            "addresses in clear: they answer 308 to https, or serve with `plaintext`",
            "",
        ),
        Key::new(
            "plaintext",
            Kind::Bool,
            "serve in clear on `http`, because TLS ended elsewhere",
            "false",
        ),
        Key::new(
            "redirect_status",
            Kind::Choice(&["301", "308"]),
            "status of the redirect to https; 301 for GET and HEAD alone",
            "\"308\"",
        ),
        Key::new(
            "redirect_port",
            Kind::Integer { min: 1, max: 65535 },
            "port that the redirect names; none for 443",
            "443",
        ),
        Key::new(
            "workers",
            Kind::Integer { min: 0, max: 1024 },
            "threads that serve; 0 is one a core",
            "0",
        ),
        Key::new(
            "trusted_proxies",
            Kind::List(&Kind::Network),
            "networks whose Forwarded and X-Forwarded-* count",
            "[]",
        ),
        Key::new(
            "proxy_protocol",
            Kind::Bool,
            "trusted proxies begin each connection with a PROXY header, and nobody else may connect",
            "false",
        ),
        Key::new(
            "drain",
            Kind::Duration,
            "longest wait for requests under way when stopping",
            "\"30s\"",
        ),
        Key::new(
            "handover",
            Kind::Duration,
            "longest wait for a new process to be ready, after SIGUSR2",
            "\"30s\"",
        ),
        Key::new(
            "limits",
            Kind::Table(&LIMITS),
            "bounds on what clients may do",
            "",
        ),
    ],
};

static LIMITS: Section = Section {
    name: "limits",
    doc: "bounds on what clients may do",
    keys: &[
        Key::new(
            "header_bytes",
            Kind::Size,
            "largest request head",
            "\"16KiB\"",
        ),
        Key::new(
            "header_count",
            Kind::Integer { min: 1, max: 1000 },
            "most header fields",
            "100",
        ),
        Key::new(
            "uri_bytes",
            Kind::Size,
            "longest request target",
            "\"8KiB\"",
        ),
        Key::new(
            "header_timeout",
            Kind::Duration,
            "time for a request head, and for the TLS handshake",
            "\"10s\"",
        ),
        Key::new(
            "body_bytes",
            Kind::Size,
            "largest request body",
            "\"10MiB\"",
        ),
        Key::new(
            "body_idle",
            Kind::Duration,
            "longest pause in a request body, and in writing an answer",
            "\"15s\"",
        ),
        Key::new(
            "body_rate",
            Kind::Size,
            "slowest request body a second, after 10 seconds",
            "\"1KiB\"",
        ),
        Key::new(
            "spool_bytes",
            Kind::Size,
            "most memory for request bodies that are held until they are whole; one client may have half of it, and all whose heads prove nothing",
            "\"64MiB\"",
        ),
        Key::new(
            "keep_alive",
            Kind::Duration,
            "how long an idle connection is kept",
            "\"60s\"",
        ),
        Key::new(
            "connections",
            Kind::Integer {
                min: 1,
                max: 10_000_000,
            },
            "most connections in all",
            "20000",
        ),
        Key::new(
            "connections_per_client",
            Kind::Integer {
                min: 1,
                max: 10_000_000,
            },
            "most connections of one client address, IPv6 by /64",
            "512",
        ),
        Key::new(
            "h2_streams",
            Kind::Integer {
                min: 1,
                max: 100_000,
            },
            "most HTTP/2 streams at once on a connection",
            "100",
        ),
        Key::new(
            "requests",
            Kind::Integer {
                min: 1,
                max: 10_000_000,
            },
            "most requests under way at once; new connections and anonymous requests are shed before that",
            "20000",
        ),
        Key::new(
            "requests_per_client",
            Kind::Integer {
                min: 1,
                max: 10_000_000,
            },
            "most requests of one client under way in each worker, and never more than half of its share of `requests`",
            "512",
        ),
    ],
};

/// `[tls]`
pub static TLS: Section = Section {
    name: "tls",
    doc: "certificates and client authentication",
    keys: &[
        Key::new(
            "profile",
            Kind::Choice(&["intermediate", "modern"]),
            "intermediate is TLS 1.2 and 1.3, modern is TLS 1.3 only",
            "\"intermediate\"",
        ),
        Key::new(
            "certificates",
            Kind::Tables(&CERTIFICATE),
            "picked by the name that the client asks for",
            "",
        ),
        Key::new(
            "self_signed",
            Kind::List(&Kind::String),
            "names for a certificate made at start, for trials",
            "",
        ),
        Key::new(
            "client_ca",
            Kind::Path,
            "authorities whose client certificates are accepted, PEM",
            "",
        ),
        Key::new(
            "client_auth",
            Kind::Choice(&["optional", "required"]),
            "whether a client must show a certificate",
            "\"required\"",
        ),
        Key::new(
            "client_crl",
            Kind::OneOrMany(&Kind::Path),
            "revocations, PEM: a list of every authority in a chain, else its certificates are refused",
            "",
        ),
        Key::new(
            "client_crl_expired",
            Kind::Choice(&["refuse", "accept"]),
            "what becomes of certificates whose list of revocations is out of date",
            "\"refuse\"",
        ),
    ],
};

static CERTIFICATE: Section = Section {
    name: "certificates",
    doc: "one certificate; reloaded when its files change, the last good one is kept",
    keys: &[
        Key::new("cert", Kind::Path, "certificate chain, PEM, leaf first", ""),
        Key::new(
            "key",
            Kind::Path,
            "private key, PEM, readable by its owner alone",
            "",
        ),
    ],
};

/// `[admin]`
pub static ADMIN: Section = Section {
    name: "admin",
    doc: "/livez, /readyz and /metrics, off unless set",
    keys: &[
        Key::new(
            "listen",
            Kind::Listen,
            "loopback or unix: only, unless a token is set",
            "",
        ),
        Key::new(
            "token",
            Kind::Secret,
            "bearer token that opens the admin listener to other addresses",
            "",
        ),
    ],
};

/// `[log]`
pub static LOG: Section = Section {
    name: "log",
    doc: "access line and own log",
    keys: &[
        Key::new(
            "access",
            Kind::String,
            "stdout, file:PATH or off",
            "\"stdout\"",
        ),
        Key::new(
            "level",
            Kind::Choice(&["error", "warn", "info", "debug", "trace"]),
            "least level of the own log on stderr",
            "\"info\"",
        ),
        Key::new(
            "redact_query",
            Kind::List(&Kind::String),
            "query parameters whose values never reach the log, beside the signatures of presigned requests",
            "[\"token\", \"code\", \"password\", \"access_token\", \"id_token\", \"secret\", \"api_key\"]",
        ),
    ],
};

/// `[issuers.NAME]`
pub static ISSUER: Section = Section {
    name: "issuers",
    doc: "one signer of tokens",
    keys: &[
        Key::new("issuer", Kind::String, "exact value of the claim iss", ""),
        Key::new(
            "audience",
            Kind::OneOrMany(&Kind::String),
            "one of these must stand in the claim aud",
            "",
        ),
        Key::new(
            "jwks_url",
            Kind::Url,
            "where the key set is; https, or http to a loopback address",
            "",
        ),
        Key::new("jwks_file", Kind::Path, "key set on disk", ""),
        Key::new(
            "secret",
            Kind::Secret,
            "shared secret for HS256, HS384, HS512",
            "",
        ),
        Key::new(
            "discovery",
            Kind::Bool,
            "find the key set through the issuer's OpenID configuration",
            "false",
        ),
        Key::new(
            "ca",
            Kind::Path,
            "authorities to trust for the issuer's addresses beside those of the system, PEM",
            "",
        ),
        Key::new(
            "refresh",
            Kind::Duration,
            "how often the key set is fetched without need",
            "\"10m\"",
        ),
        Key::new(
            "stale",
            Kind::Duration,
            "how long keys are used while fetches fail",
            "\"24h\"",
        ),
        Key::new(
            "cooldown",
            Kind::Duration,
            "least time between two fetches of the key set, whatever tokens name",
            "\"30s\"",
        ),
        Key::new(
            "keep",
            Kind::Path,
            "file that keeps the last good key set for a start while the issuer is down",
            "",
        ),
        Key::new(
            "introspection",
            Kind::Table(&issuers::INTROSPECTION),
            "how the issuer is asked about tokens (RFC 7662)",
            "",
        ),
        Key::new(
            "revoked",
            Kind::Path,
            "list of tokens and subjects that no longer count: lines jti:VALUE, sub:VALUE, sub:VALUE before:SECONDS",
            "",
        ),
        Key::new(
            "algorithms",
            Kind::List(&Kind::Choice(&[
                "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "EdDSA",
                "HS256", "HS384", "HS512",
            ])),
            "accepted algorithms",
            "[\"RS256\", \"PS256\", \"ES256\", \"EdDSA\"]",
        ),
        Key::new(
            "token_type",
            Kind::Choice(&["any", "at+jwt"]),
            "accepted typ of the header",
            "\"any\"",
        ),
        Key::new(
            "roles",
            Kind::OneOrMany(&Kind::String),
            "claims that hold roles; dots descend, quotes keep a name whole",
            "[]",
        ),
        Key::new(
            "leeway",
            Kind::Duration,
            "how far clocks may differ",
            "\"30s\"",
        ),
        Key::new(
            "max_age",
            Kind::Duration,
            "longest time since iat",
            "\"24h\"",
        ),
        Key::new("dpop", Kind::Table(&DPOP), DPOP.doc, ""),
    ],
};
