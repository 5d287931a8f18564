//! `[upstreams.NAME]` to clusters and endpoints.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{Arc, Mutex, atomic::AtomicBool, atomic::AtomicUsize},
    time::Duration,
};

use http::Uri;
use rustls::{ClientConfig, RootCertStore, pki_types::ServerName};

use super::{
    identity::Identity,
    server::positive,
    survivors::{EndpointRules, Survivors},
};
use crate::{
    config::{At, Bytes, Host, OneOrMany, Reader, Scheme, ServerUrl},
    crypto::trust,
    state::registry::Named,
    upstream::{
        balance::Balance,
        breaker::BreakerRules,
        budget::Budget,
        cluster::{Cluster, HealthRules},
        endpoint::{Address, Endpoint, LinkRules, Protocol},
        outlier::OutlierRules,
        tunnel::Bounds,
    },
    wire::path::Profile,
};

/// The upstreams of a file; `None` marks one whose own section has errors.
pub type ClusterBook = BTreeMap<String, Option<Arc<Cluster>>>;

/// Upstreams and the endpoints behind them.
#[derive(Debug, Default)]
pub struct Upstreams {
    /// By name.
    pub clusters: ClusterBook,
    /// To be kept when the whole file is good.
    pub endpoints: Vec<Named<EndpointRules, Endpoint>>,
}

/// Compiles every upstream.
pub fn compile(root: &Reader<'_>, survivors: &Survivors, identity: &Identity) -> Upstreams {
    let mut upstreams = Upstreams::default();
    for (name, at, reader) in root.named("upstreams") {
        let mut cluster = compile_one((name, at), &reader, survivors, &mut upstreams.endpoints);
        let voucher = identity.voucher(name, &reader);
        if let Some(cluster) = &mut cluster {
            cluster.voucher = voucher;
        }
        upstreams
            .clusters
            .insert(name.to_owned(), cluster.map(Arc::new));
    }
    upstreams
}

fn compile_one(
    (name, at): (&str, At),
    reader: &Reader<'_>,
    survivors: &Survivors,
    kept: &mut Vec<Named<EndpointRules, Endpoint>>,
) -> Option<Cluster> {
    let servers = reader
        .get::<OneOrMany<ServerUrl>>("servers")
        .map(|list| list.0);
    if servers.as_ref().is_none_or(Vec::is_empty) && !reader.has("servers") {
        reader.error_at(
            at,
            format!("upstream `{name}` has no server"),
            Some("add `servers = [\"http://127.0.0.1:8000\"]`".into()),
        );
    }
    let protocol = protocol(reader, servers.as_deref().unwrap_or_default());
    let link = link_rules(reader, protocol);
    let ca = authorities(reader, protocol);
    let server_name = reader.get::<String>("server_name");
    let mut endpoints = Vec::new();
    for server in servers? {
        let rules = EndpointRules {
            ca: ca
                .as_ref()
                .map(|(path, bytes, _)| (path.clone(), bytes.clone())),
            server_name: server_name.clone(),
            server,
            link,
        };
        let address = address(reader, &rules, ca.as_ref().map(|(_, _, config)| config))?;
        let id = format!("{name} {}", rules.server);
        let label = rules.server.to_string();
        let named = survivors.endpoints.prepare(&id, rules, |rules| {
            Endpoint::new(&label, address, rules.link, survivors.workers)
        });
        endpoints.push(Arc::clone(&named.thing));
        kept.push(named);
    }
    let connect_timeout = endpoints.first()?.rules.connect_timeout;
    let mut cluster = cluster((name, endpoints), protocol, reader, survivors);
    let both = connect_timeout.saturating_add(cluster.response_timeout);
    cluster.request_timeout = positive(reader, "request_timeout", both);
    Some(cluster)
}

/// What the file says of an upstream beside its servers.
fn cluster(
    (name, endpoints): (&str, Vec<Arc<Endpoint>>),
    protocol: Protocol,
    reader: &Reader<'_>,
    survivors: &Survivors,
) -> Cluster {
    let response_timeout = positive(reader, "response_timeout", Duration::from_secs(30));
    Cluster {
        name: name.into(),
        endpoints,
        protocol,
        balance: balance(reader),
        response_timeout,
        answer_idle: positive(reader, "answer_idle", Duration::from_mins(5)),
        request_timeout: response_timeout,
        retries: reader.section("retries").get("attempts").unwrap_or(1),
        budget: Budget::new(reader.section("retries").get("budget").unwrap_or(0.1)),
        health: health(reader),
        outliers: outliers(reader),
        slow_start: reader.get("slow_start").unwrap_or(Duration::from_secs(10)),
        dns_refresh: reader
            .get("dns_refresh")
            .unwrap_or(Duration::from_secs(30))
            .max(Duration::from_millis(100)),
        tunnels: tunnels(reader),
        voucher: None,
        profile: reader
            .get::<String>("profile")
            .and_then(|word| word.parse::<Profile>().ok())
            .unwrap_or_default(),
        metrics: survivors.metrics.upstream(name),
        ejecting: Mutex::new(()),
        replaced: AtomicBool::new(false),
    }
}

/// A WebSocket that nobody ends must not stay for ever, nor carry without end what no body limit counts.
fn tunnels(reader: &Reader<'_>) -> Bounds {
    Bounds {
        idle: reader.get("tunnel_idle").unwrap_or(Duration::from_mins(10)),
        age: reader.get("tunnel_age").unwrap_or(Duration::from_hours(24)),
        bytes: reader
            .get("tunnel_bytes")
            .map_or(16 << 30, |Bytes(bytes)| bytes),
    }
}

fn outliers(reader: &Reader<'_>) -> OutlierRules {
    let section = reader.section("outliers");
    let usual = OutlierRules::default();
    let margin = section.get("margin").unwrap_or(usual.margin);
    if !(0.0..=1.0).contains(&margin) {
        section.error(
            "margin",
            format!("`{margin}` is no difference of two shares"),
            Some("use a number from 0.0 to 1.0".into()),
        );
    }
    OutlierRules {
        every: section
            .get("every")
            .unwrap_or(usual.every)
            .max(Duration::from_millis(50)),
        margin,
        requests: section.get("requests").unwrap_or(usual.requests),
        out: section.get("out").unwrap_or(usual.out),
        longest: section.get("longest").unwrap_or(usual.longest),
    }
}

/// What is spoken to the servers of an upstream: one thing to all of them, since a request is made for it.
fn protocol(reader: &Reader<'_>, servers: &[ServerUrl]) -> Protocol {
    let stated = reader.get::<String>("protocol");
    let of = |server: &ServerUrl| match (server.scheme(), stated.as_deref()) {
        (Scheme::H2c, _) | (Scheme::Https, Some("http2")) => Protocol::Http2,
        _ => Protocol::Http1,
    };
    let first = servers.first().map_or(Protocol::Http1, of);
    if servers.iter().any(|server| of(server) != first) {
        reader.error(
            "servers",
            "the servers of one upstream are spoken to in one version of HTTP",
            Some("make two upstreams of them".into()),
        );
    }
    let contradicted =
        servers
            .iter()
            .find_map(|server| match (server.scheme(), stated.as_deref()) {
                (Scheme::H2c, Some("http1")) => Some("use `http://` for HTTP/1.1 in clear"),
                (Scheme::Http, Some("http2")) => Some("use `h2c://` for HTTP/2 in clear"),
                _ => None,
            });
    if let Some(hint) = contradicted {
        let message = "`protocol` is for https servers; in clear the address says it";
        reader.error("protocol", message, Some(hint.into()));
    }
    first
}

fn link_rules(reader: &Reader<'_>, protocol: Protocol) -> LinkRules {
    let breaker = reader.section("breaker");
    LinkRules {
        protocol,
        shared_limit: reader.get("h2_connections").unwrap_or(8),
        connect_timeout: positive(reader, "connect_timeout", Duration::from_secs(3)),
        idle_timeout: reader.get("idle_timeout").unwrap_or(Duration::from_mins(1)),
        idle_limit: reader.get("idle_connections").unwrap_or(256),
        breaker: BreakerRules {
            failures: breaker.get("failures").unwrap_or(5),
            open: breaker.get("open").unwrap_or(Duration::from_secs(10)),
        },
    }
}

fn health(reader: &Reader<'_>) -> Option<HealthRules> {
    let section = reader.section("health");
    if !section.present() {
        return None;
    }
    let Some(text) = section.get::<String>("path") else {
        if !section.has("path") {
            section.error(
                "path",
                "a health check needs a path",
                Some("such as `path = \"/healthz\"`".into()),
            );
        }
        return None;
    };
    let path = text
        .parse::<Uri>()
        .ok()
        .filter(|uri| text.starts_with('/') && uri.authority().is_none());
    let Some(path) = path else {
        section.error(
            "path",
            format!("`{text}` is no path"),
            Some("such as `/healthz`".into()),
        );
        return None;
    };
    Some(HealthRules {
        path,
        every: section
            .get("every")
            .unwrap_or(Duration::from_secs(5))
            .max(Duration::from_millis(50)),
        timeout: section.get("timeout").unwrap_or(Duration::from_secs(2)),
    })
}

fn balance(reader: &Reader<'_>) -> Balance {
    match reader.get::<String>("balance").as_deref() {
        Some("round_robin") => Balance::RoundRobin(AtomicUsize::new(0)),
        Some("hash:client") => Balance::HashClient,
        _ => Balance::PowerOfTwo,
    }
}

/// The authorities of `ca`, with the file's bytes so that a changed file makes another endpoint.
fn authorities(
    reader: &Reader<'_>,
    protocol: Protocol,
) -> Option<(PathBuf, Vec<u8>, Arc<ClientConfig>)> {
    let path = reader.path("ca")?;
    let mut roots = RootCertStore::empty();
    let read = trust::add(&mut roots, &path)
        .and_then(|()| std::fs::read(&path).map_err(|e| e.to_string()));
    match read {
        Ok(bytes) => Some((path, bytes, trust::client_config(roots, alpn(protocol)))),
        Err(cause) => {
            reader.error(
                "ca",
                format!(
                    "cannot read certificates from `{}`: {cause}",
                    path.display()
                ),
                None,
            );
            None
        }
    }
}

fn address(
    reader: &Reader<'_>,
    rules: &EndpointRules,
    ca: Option<&Arc<ClientConfig>>,
) -> Option<Address> {
    let (scheme, host, port) = match &rules.server {
        ServerUrl::Unix(path) => return Some(Address::Unix(path.clone())),
        ServerUrl::Tcp { scheme, host, port } => (*scheme, plain(host), *port),
    };
    match scheme {
        Scheme::Http | Scheme::H2c => Some(Address::Tcp { host, port }),
        Scheme::Https => {
            let wanted = rules.server_name.clone().unwrap_or_else(|| host.clone());
            let Ok(name) = ServerName::try_from(wanted.clone()) else {
                reader.error(
                    "server_name",
                    format!("`{wanted}` cannot stand in a certificate"),
                    None,
                );
                return None;
            };
            let config = ca.map_or_else(
                || trust::client_config(trust::system_roots().clone(), alpn(rules.link.protocol)),
                Arc::clone,
            );
            Some(Address::Tls {
                host,
                port,
                name,
                config,
            })
        }
    }
}

/// What is offered in a TLS handshake (RFC 7301 §6).
fn alpn(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Http1 => "http/1.1",
        Protocol::Http2 => "h2",
    }
}

/// The host without the brackets of an IPv6 literal.
fn plain(host: &Host) -> String {
    host.to_string().trim_matches(['[', ']']).to_owned()
}
