//! `[tls]` to a rustls server configuration.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use rustls::{
    ServerConfig, SupportedProtocolVersion,
    server::danger::ClientCertVerifier,
    version::{TLS12, TLS13},
};

use super::{
    certificates::{self, Certificate, Certificates, Files},
    client_trust::{self, NamedTrust},
    survivors::Survivors,
};
use crate::{
    config::{At, Reader, readable_by_others},
    crypto::{digest::Sha256, trust},
    state::{clock, registry::Named},
    wire::host::HostPattern,
};

/// Certificates that end within this many days are worth a word.
const EXPIRY_DAYS: i64 = 21;

/// The compiled `[tls]`.
#[derive(Debug)]
pub struct TlsRules {
    /// What rustls works by.
    pub config: Arc<ServerConfig>,
    /// The certificates, to know which one was served.
    pub certificates: Arc<Certificates>,
    /// Who judges client certificates; `None` where no client is asked for one.
    pub clients: Option<NamedTrust>,
    /// Files to watch.
    pub files: Vec<PathBuf>,
    /// The certificates by their file, to be taken over by the next snapshot where the files stay as they are.
    pub kept: Vec<Named<Sha256, Certificate>>,
}

/// What was read of `[[tls.certificates]]` and `self_signed`.
#[derive(Default)]
struct Found {
    all: Vec<Arc<Certificate>>,
    kept: Vec<Named<Sha256, Certificate>>,
    files: Vec<PathBuf>,
}

/// Compiles the section; `None` where there is no TLS, or where it has errors.
pub fn compile(
    root: &Reader<'_>,
    hosts: &[(HostPattern, At)],
    survivors: &Survivors,
) -> Option<TlsRules> {
    let reader = root.section("tls");
    let Found {
        all,
        kept,
        mut files,
    } = certificates(&reader, survivors);
    let needed = root.section("server").has("https");
    let Some(certificates) = Certificates::new(all) else {
        if needed && !reader.has("certificates") && !reader.has("self_signed") {
            root.error(
                "tls",
                "`server.https` needs a certificate",
                Some("add `[[tls.certificates]]` with `cert` and `key`".into()),
            );
        }
        return None;
    };
    warn_of_gaps(&reader, &certificates, hosts);
    let certificates = Arc::new(certificates);
    let clients = client_trust::compile(&reader, &mut files, survivors)?;
    let verifier = clients.as_ref().map(|clients| clients.thing.verifier());
    let config = assemble(&reader, Arc::clone(&certificates), verifier, survivors)?;
    Some(TlsRules {
        config: Arc::new(config),
        certificates,
        clients,
        files,
        kept,
    })
}

fn certificates(reader: &Reader<'_>, survivors: &Survivors) -> Found {
    let mut found = Found::default();
    for table in reader.tables("certificates") {
        let (cert, key) = (table.path("cert"), table.path("key"));
        for (name, path) in [("cert", &cert), ("key", &key)] {
            if path.is_none() && !table.has(name) {
                table.error(
                    name,
                    format!("a certificate needs `{name}`"),
                    Some("a PEM file".into()),
                );
            }
        }
        let (Some(cert), Some(key)) = (cert, key) else {
            continue;
        };
        if readable_by_others(&key) {
            table.warn(
                "key",
                format!("the key file `{}` is readable by others", key.display()),
                Some("chmod 600".into()),
            );
        }
        match read(&cert, &key, survivors) {
            Ok(named) => {
                warn_of_expiry(&table, &named.thing);
                found.all.push(Arc::clone(&named.thing));
                found.kept.push(named);
            }
            Err(why) => table.error("cert", why, None),
        }
        found.files.extend([cert, key]);
    }
    if let Some(names) = reader.get::<Vec<String>>("self_signed") {
        reader.relax(
            "self_signed",
            "this weakens the gate: no client can tell this certificate from a forged one",
        );
        match certificates::self_signed(&names) {
            Ok(certificate) => found.all.push(Arc::new(certificate)),
            Err(why) => reader.error("self_signed", why, None),
        }
    }
    found
}

/// Takes over the certificate in use where its files hold what they held: a thousand keys are not checked at a reload
/// for the sake of one route.
fn read(
    cert: &Path,
    key: &Path,
    survivors: &Survivors,
) -> Result<Named<Sha256, Certificate>, String> {
    let files = Files::read(cert, key)?;
    let name = cert.display().to_string();
    survivors
        .certificates
        .try_prepare(&name, files.digest(), |_| files.parse())
}

fn warn_of_expiry(table: &Reader<'_>, certificate: &Certificate) {
    let now = i64::try_from(clock::unix_seconds()).unwrap_or(i64::MAX);
    let left = certificate.not_after.saturating_sub(now) / 86_400;
    if certificate.not_after <= now {
        table.warn(
            "cert",
            "this certificate has expired",
            Some("renew it; clients refuse it".into()),
        );
    } else if left < EXPIRY_DAYS {
        table.warn(
            "cert",
            format!("this certificate expires in {left} days"),
            Some("renew it".into()),
        );
    }
}

fn warn_of_gaps(reader: &Reader<'_>, certificates: &Certificates, hosts: &[(HostPattern, At)]) {
    for (host, at) in hosts {
        if !certificates.cover(host) {
            reader.warn_at(
                *at,
                format!("no certificate covers `{host}`"),
                Some("requests for it are answered with 421".into()),
            );
        }
    }
}

fn assemble(
    reader: &Reader<'_>,
    certificates: Arc<Certificates>,
    verifier: Option<Arc<dyn ClientCertVerifier>>,
    survivors: &Survivors,
) -> Option<ServerConfig> {
    let modern = reader.get::<String>("profile").as_deref() == Some("modern");
    let versions: &[&'static SupportedProtocolVersion] =
        if modern { &[&TLS13] } else { &[&TLS13, &TLS12] };
    let builder = ServerConfig::builder_with_provider(trust::provider())
        .with_protocol_versions(versions)
        .expect("the provider has suites for both versions");
    let asks_clients = verifier.is_some();
    let builder = match verifier {
        Some(verifier) => builder.with_client_cert_verifier(verifier),
        None => builder.with_no_client_auth(),
    };
    let mut config = builder.with_cert_resolver(certificates);
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    // A ticket carries the client's identity: one given under other authorities must not open this door, so each
    // configuration that asks for client certificates has keys of its own.
    let tickets = if asks_clients {
        rustls::crypto::aws_lc_rs::Ticketer::new()
    } else {
        survivors.tickets()
    };
    match tickets {
        Ok(tickets) => config.ticketer = tickets,
        Err(error) => {
            reader.error(
                "profile",
                format!("no keys for session tickets: {error}"),
                None,
            );
            return None;
        }
    }
    Some(config)
}
