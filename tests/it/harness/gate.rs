//! A policy file in the making, and the proxy on it with what a test wants at hand: certificates, clients, reloads.

use std::fmt::Write;
use std::path::Path;

use tempfile::TempDir;

use super::ca::Ca;
use super::client::{Client, TlsOptions};
use super::eventually::eventually;
use super::message::Response;
use super::origin::Origin;
use super::proxy::{Proxy, write_policy};

/// Every path of `app.example` to the upstream `legacy`, for everybody.
pub const PUBLIC: &str = r#"
[[blueprints]]
name = "app"
hosts = ["app.example"]
upstream = "legacy"
auth = "public"
"#;

/// `/admin` of `app.example`, for holders of a token of the issuer `corp` with the role `admin`.
pub const ADMIN: &str = r#"
[[blueprints]]
name = "admin"
hosts = ["app.example"]
prefix = "/admin"
upstream = "legacy"

[blueprints.auth]
require = ["bearer"]
issuers = ["corp"]
roles = { any = ["admin"] }
"#;

/// A key set whose private half nobody has (RFC 7515 appendix A.3): for cases in which no token ever passes.
const LOST_KEYS: &str = r#"{"keys": [{"kty": "EC", "crv": "P-256", "alg": "ES256", "use": "sig", "kid": "lost",
"x": "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU", "y": "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"}]}"#;

/// What the file will say.
#[derive(Clone, Default)]
struct Policy {
    workers: usize,
    server: String,
    defaults: String,
    tls: String,
    log: String,
    upstream: String,
    rest: String,
}

impl Policy {
    fn text(&self) -> String {
        let defaults = if self.defaults.is_empty() {
            "rate_limits = []\nban = { failures = 1000000 }"
        } else {
            &self.defaults
        };
        format!(
            "[server]\nhttps = [\"127.0.0.1:0\"]\nhttp = [\"127.0.0.1:0\"]\nworkers = {}\n{}\n\
             [admin]\nlisten = \"127.0.0.1:0\"\n\n[log]\n{}\n\n[tls]\n{}\n\n\
             [upstreams.legacy]\n{}\n\n[defaults]\n{defaults}\n\n{}",
            self.workers, self.server, self.log, self.tls, self.upstream, self.rest
        )
    }
}

/// A gate to be started; a started one is a `Running`.
pub struct Gate {
    directory: TempDir,
    ca: Ca,
    policy: Policy,
    environment: Vec<(String, String)>,
}

impl Gate {
    /// A gate before `origin`, with a certificate for `app.example` and no rate limit.
    pub fn before(origin: &Origin) -> Self {
        Self::before_url(&origin.url())
    }

    /// A gate before the server at `url`.
    pub fn before_url(url: &str) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let ca = Ca::new(directory.path());
        let leaf = ca.server("app", &["app.example", "localhost"]);
        let mut policy = Policy {
            workers: 1,
            ..Policy::default()
        };
        let _ = write!(policy.upstream, "servers = [\"{url}\"]");
        policy.tls = leaf.section();
        let trust = directory.path().join("ca.pem").display().to_string();
        Self {
            directory,
            ca,
            policy,
            environment: vec![("SSL_CERT_FILE".to_owned(), trust)],
        }
    }

    /// A gate before `origin` where `/admin` is guarded and everything else is public, and no token passes.
    pub fn guarding(origin: &Origin) -> Self {
        Self::before(origin)
            .issuer_without_keys()
            .with(PUBLIC)
            .with(ADMIN)
    }

    /// Adds an issuer `corp` whose tokens nobody can make.
    pub fn issuer_without_keys(self) -> Self {
        let file = self.directory.path().join("lost.json");
        std::fs::write(&file, LOST_KEYS).expect("the test's directory takes files");
        self.with(&format!(
            "[issuers.corp]\nissuer = \"https://idp.example/realms/main\"\naudience = [\"portcullis\"]\n\
             jwks_file = '{}'\nalgorithms = [\"ES256\"]\nroles = [\"realm_access.roles\"]\n",
            file.display()
        ))
    }

    /// Serves with several workers. With one, which it is otherwise, a connection to the backend that may be used again
    /// would be.
    pub fn workers(mut self, count: usize) -> Self {
        self.policy.workers = count;
        self
    }

    /// Adds lines to `[server]`.
    pub fn server(mut self, lines: &str) -> Self {
        let _ = writeln!(self.policy.server, "{lines}");
        self
    }

    /// Adds lines to `[log]`.
    pub fn log(mut self, lines: &str) -> Self {
        let _ = writeln!(self.policy.log, "{lines}");
        self
    }

    /// Adds lines to `[upstreams.legacy]`.
    pub fn upstream(mut self, lines: &str) -> Self {
        let _ = write!(self.policy.upstream, "\n{lines}");
        self
    }

    /// Says what stands in `[defaults]`, in place of the tests' `rate_limits = []` and a ban that nobody meets.
    pub fn defaults(mut self, lines: &str) -> Self {
        lines.clone_into(&mut self.policy.defaults);
        self
    }

    /// Says what stands in `[tls]`, in place of the one certificate.
    pub fn tls(mut self, lines: &str) -> Self {
        lines.clone_into(&mut self.policy.tls);
        self
    }

    /// Puts lines before the one certificate in `[tls]`.
    pub fn tls_keys(mut self, lines: &str) -> Self {
        self.policy.tls = format!("{lines}\n{}", self.policy.tls);
        self
    }

    /// Appends whole sections.
    pub fn with(mut self, sections: &str) -> Self {
        let _ = writeln!(self.policy.rest, "{sections}");
        self
    }

    /// Sets a variable for the proxy.
    pub fn environment(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// The authority that issued the gate's certificate.
    pub fn ca(&self) -> &Ca {
        &self.ca
    }

    /// The directory of the policy file.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// Starts the proxy with everything public.
    pub fn open(self) -> Running {
        self.with(PUBLIC).start()
    }

    /// Starts the proxy.
    pub fn start(self) -> Running {
        let file = write_policy(self.directory.path(), &self.policy.text());
        let proxy = Proxy::start(&file, &self.environment);
        Running {
            proxy,
            ca: self.ca,
            directory: self.directory,
            policy: self.policy,
        }
    }

    /// Writes the file without starting anything, for the offline verbs.
    pub fn write(&self) -> std::path::PathBuf {
        write_policy(self.directory.path(), &self.policy.text())
    }
}

/// A started gate. The proxy goes first when it drops, then its directory.
pub struct Running {
    pub proxy: Proxy,
    pub ca: Ca,
    pub directory: TempDir,
    policy: Policy,
}

impl Running {
    /// A TLS connection for `app.example`.
    pub fn https(&self) -> Client {
        self.https_to("app.example")
    }

    /// A TLS connection that asks for another server name.
    pub fn https_to(&self, sni: &str) -> Client {
        Client::tls(self.proxy.https(), &TlsOptions::new(&self.ca, sni))
    }

    /// A connection to the plain listener.
    pub fn http(&self) -> Client {
        Client::plain(self.proxy.http())
    }

    /// `GET path` for `app.example` on a TLS connection of its own.
    #[track_caller]
    pub fn get(&self, path: &str) -> Response {
        self.request("GET", path, &[])
    }

    /// `GET path` with further headers.
    #[track_caller]
    pub fn get_with(&self, path: &str, headers: &[(&str, &str)]) -> Response {
        self.request("GET", path, headers)
    }

    /// A request without a body on a TLS connection of its own.
    #[track_caller]
    pub fn request(&self, method: &str, path: &str, headers: &[(&str, &str)]) -> Response {
        self.https()
            .send(request(method, path, headers))
            .response_to(method)
    }

    /// Exact bytes on a TLS connection of its own, and one answer.
    #[track_caller]
    pub fn exchange(&self, bytes: impl AsRef<[u8]>) -> Response {
        self.https().send(bytes).response()
    }

    /// Changes the sections that `with` and `open` had given, and has the proxy take them up.
    pub fn reload_with(&mut self, sections: &str) {
        sections.clone_into(&mut self.policy.rest);
        self.reload();
    }

    /// Writes the policy file anew, sends SIGHUP and waits until the reload is counted, whatever its outcome.
    pub fn reload(&self) {
        let before = self.proxy.metric("portcullis_reloads_total", &[]);
        write_policy(self.directory.path(), &self.policy.text());
        self.proxy.signal("HUP");
        eventually("the reload is counted", || {
            (self.proxy.metric("portcullis_reloads_total", &[]) > before).then_some(())
        });
    }
}

/// The bytes of a request for `app.example` without a body.
pub fn request(method: &str, path: &str, headers: &[(&str, &str)]) -> String {
    let mut text = format!("{method} {path} HTTP/1.1\r\nHost: app.example\r\n");
    for (name, value) in headers {
        let _ = write!(text, "{name}: {value}\r\n");
    }
    text + "\r\n"
}
