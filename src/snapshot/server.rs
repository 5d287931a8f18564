//! `[server]`, `[admin]` and `[log]`: listeners, limits, trusted networks, where lines go.

use std::{path::PathBuf, time::Duration};

use ipnet::IpNet;

use crate::{
    config::{Bytes, Cidr, FromValue, ListenAddr, OneOrMany, Reader, Secret},
    wire::body::BodyBounds,
};

/// The compiled `[server]`, `[admin]` and `[log]`.
#[derive(Debug)]
pub struct ServerRules {
    /// Where TLS is spoken.
    pub https: Vec<ListenAddr>,
    /// Where HTTP is spoken in clear.
    pub http: Vec<ListenAddr>,
    /// What the clear listeners do.
    pub clear: Clear,
    /// Threads that serve; 0 is one a core.
    pub workers: usize,
    /// Whose forwarding headers count.
    pub trusted_proxies: Vec<IpNet>,
    /// Whether trusted proxies begin each connection with a PROXY header.
    pub proxy_protocol: bool,
    /// Longest wait for requests when stopping.
    pub drain: Duration,
    /// Longest wait for a new process that is to take the place of this one.
    pub handover: Duration,
    /// Bounds on clients.
    pub limits: Limits,
    /// The admin listener.
    pub admin: Option<Admin>,
    /// The logs.
    pub log: Log,
}

/// What is set up once, at the start: a reload cannot change it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fixed {
    https: Vec<ListenAddr>,
    http: Vec<ListenAddr>,
    workers: usize,
    admin: Option<Admin>,
    access: AccessTarget,
}

impl ServerRules {
    /// The part that a reload cannot change.
    pub fn fixed(&self) -> Fixed {
        Fixed {
            https: self.https.clone(),
            http: self.http.clone(),
            workers: self.workers,
            admin: self.admin.clone(),
            access: self.log.access.clone(),
        }
    }
}

impl Fixed {
    /// The keys of the file that say something else than this.
    pub fn changed_in(&self, other: &Self) -> Vec<&'static str> {
        let keys = [
            ("server.https", self.https == other.https),
            ("server.http", self.http == other.http),
            ("server.workers", self.workers == other.workers),
            ("admin", self.admin == other.admin),
            ("log.access", self.access == other.access),
        ];
        keys.into_iter()
            .filter(|(_, same)| !same)
            .map(|(key, _)| key)
            .collect()
    }
}

/// What a listener in clear does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Clear {
    /// Answers with a redirect to https.
    Redirect {
        /// 301 or 308.
        status: u16,
        /// Port that the redirect names.
        port: u16,
    },
    /// Serves, since TLS ended elsewhere.
    Serve,
}

/// `[server.limits]`
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Largest request head in bytes.
    pub header_bytes: usize,
    /// Most header fields.
    pub header_count: usize,
    /// Longest request target in bytes.
    pub uri_bytes: usize,
    /// Time for a head, and for the handshake.
    pub header_timeout: Duration,
    /// Bounds on request bodies.
    pub body: BodyBounds,
    /// Most memory in bytes for bodies that are held until they are whole.
    pub spool_bytes: u64,
    /// How long an idle connection is kept.
    pub keep_alive: Duration,
    /// Most connections in all.
    pub connections: usize,
    /// Most connections of one client.
    pub connections_per_client: usize,
    /// Most HTTP/2 streams at once.
    pub h2_streams: u32,
    /// Most requests under way in all.
    pub requests: usize,
    /// Most requests of one client under way in each worker.
    pub requests_per_client: usize,
}

/// `[admin]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Admin {
    /// Where it listens.
    pub listen: ListenAddr,
    /// What opens it to others than this machine.
    pub token: Option<Secret>,
}

/// `[log]`
#[derive(Clone, Debug)]
pub struct Log {
    /// Where access lines go.
    pub access: AccessTarget,
    /// Least level of the own log.
    pub level: String,
    /// Query parameters that are redacted.
    pub redact_query: Vec<String>,
}

/// Where access lines go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AccessTarget {
    /// Standard output.
    Stdout,
    /// A file, appended to.
    File(PathBuf),
    /// Nowhere.
    Off,
}

/// Compiles the three sections.
pub fn compile(root: &Reader<'_>) -> ServerRules {
    let server = root.section("server");
    let list = |key: &str| {
        server
            .get::<OneOrMany<ListenAddr>>(key)
            .map(|l| l.0)
            .unwrap_or_default()
    };
    let (https, http) = (list("https"), list("http"));
    if https.is_empty() && http.is_empty() {
        root.error(
            "server",
            "no address to listen on",
            Some("add `https = [\"[::]:8443\"]` under `[server]`".into()),
        );
    }
    ServerRules {
        https,
        http,
        clear: clear(&server),
        workers: server.get("workers").unwrap_or(0),
        trusted_proxies: server
            .get::<Vec<Cidr>>("trusted_proxies")
            .map(|list| list.into_iter().map(|cidr| cidr.0).collect())
            .unwrap_or_default(),
        proxy_protocol: proxy_protocol(&server),
        drain: server.get("drain").unwrap_or(Duration::from_secs(30)),
        handover: positive(&server, "handover", Duration::from_secs(30)),
        limits: limits(&server.section("limits")),
        admin: admin(&root.section("admin")),
        log: log(&root.section("log")),
    }
}

fn proxy_protocol(server: &Reader<'_>) -> bool {
    let on = server.get("proxy_protocol").unwrap_or(false);
    if on
        && server
            .get::<Vec<Cidr>>("trusted_proxies")
            .is_none_or(|list| list.is_empty())
    {
        server.error(
            "proxy_protocol",
            "nobody is trusted to send a PROXY header, so no connection would be served",
            Some("name the load balancers in `trusted_proxies`".into()),
        );
    }
    on
}

fn clear(server: &Reader<'_>) -> Clear {
    if server.get("plaintext").unwrap_or(false) {
        server.relax(
            "plaintext",
            "this weakens the gate: it serves in clear, so TLS must end in front of it",
        );
        return Clear::Serve;
    }
    let status = match server.get::<String>("redirect_status").as_deref() {
        Some("301") => 301,
        _ => 308,
    };
    Clear::Redirect {
        status,
        port: server.get("redirect_port").unwrap_or(443),
    }
}

fn limits(reader: &Reader<'_>) -> Limits {
    let size = |key: &str, default: u64| reader.get::<Bytes>(key).unwrap_or(Bytes(default));
    let time = |key: &str, seconds: u64| positive(reader, key, Duration::from_secs(seconds));
    Limits {
        header_bytes: size("header_bytes", 16 * 1024).as_usize(),
        header_count: reader.get("header_count").unwrap_or(100),
        uri_bytes: size("uri_bytes", 8 * 1024).as_usize(),
        header_timeout: time("header_timeout", 10),
        body: BodyBounds {
            bytes: size("body_bytes", 10 * 1024 * 1024).0,
            watched_bytes: u64::MAX,
            idle: time("body_idle", 15),
            rate: size("body_rate", 1024).0,
            grace: Duration::from_secs(10),
            call: None,
        },
        spool_bytes: size("spool_bytes", 64 * 1024 * 1024).0,
        keep_alive: time("keep_alive", 60),
        connections: reader.get("connections").unwrap_or(20_000),
        connections_per_client: reader.get("connections_per_client").unwrap_or(512),
        h2_streams: reader.get("h2_streams").unwrap_or(100),
        requests: reader.get("requests").unwrap_or(20_000),
        requests_per_client: reader.get("requests_per_client").unwrap_or(512),
    }
}

/// A duration that must not be zero: zero would refuse everything.
pub(super) fn positive(reader: &Reader<'_>, key: &str, default: Duration) -> Duration {
    let value = reader.get(key).unwrap_or(default);
    if value.is_zero() {
        reader.error(
            key,
            "a limit of no time refuses everything",
            Some("such as `\"10s\"`".into()),
        );
    }
    value
}

fn admin(reader: &Reader<'_>) -> Option<Admin> {
    if !reader.present() {
        return None;
    }
    let token = if reader.has("token") {
        Some(reader.secret("token")?)
    } else {
        None
    };
    let Some(listen) = reader.get::<ListenAddr>("listen") else {
        if !reader.has("listen") {
            reader.error(
                "listen",
                "the admin section needs an address",
                Some("add `listen = \"127.0.0.1:9900\"`".into()),
            );
        }
        return None;
    };
    if !listen.is_local() && token.is_none() {
        reader.error(
            "listen",
            "an admin listener that others can reach needs a token",
            Some("listen on loopback or `unix:`, or set `token`".into()),
        );
    }
    Some(Admin { listen, token })
}

fn log(reader: &Reader<'_>) -> Log {
    let default = [
        "token",
        "code",
        "password",
        "access_token",
        "id_token",
        "secret",
        "api_key",
    ];
    let redact = reader.get::<Vec<String>>("redact_query");
    if redact.as_ref().is_some_and(Vec::is_empty) {
        reader.relax(
            "redact_query",
            "this weakens the gate: no query parameter is redacted in the log",
        );
    }
    let mut redact_query = redact.unwrap_or_else(|| default.map(str::to_owned).to_vec());
    if !redact_query.is_empty() {
        // A presigned address is as good as a password until it expires.
        let presigned = ["X-Amz-Signature", "X-Amz-Security-Token"];
        redact_query.extend(presigned.map(str::to_owned));
    }
    Log {
        access: access(reader),
        level: reader.get("level").unwrap_or_else(|| "info".to_owned()),
        redact_query,
    }
}

fn access(reader: &Reader<'_>) -> AccessTarget {
    let Some(value) = reader.value("access") else {
        return AccessTarget::Stdout;
    };
    match String::from_value(value).unwrap_or_default().as_str() {
        "stdout" => AccessTarget::Stdout,
        "off" => {
            reader.relax("access", "this weakens the gate: no access line is written");
            AccessTarget::Off
        }
        text => {
            if let Some(path) = text.strip_prefix("file:").filter(|path| !path.is_empty()) {
                return AccessTarget::File(reader.sources().folder(value.at.file).join(path));
            }
            reader.error(
                "access",
                format!("`{text}` is no target for access lines"),
                Some("use `stdout`, `file:PATH` or `off`".into()),
            );
            AccessTarget::Stdout
        }
    }
}
