//! A loaded file to a snapshot, all problems at once.

use std::{path::PathBuf, sync::Arc};

use super::{
    Snapshot, api_keys, client_certificates, document, identity, issuers, passkeys, routes,
    routes::Parts,
    second_factor,
    server::{self, Limits},
    signers,
    survivors::{EndpointRules, Survivors},
    tls, upstreams,
};
use crate::{
    config::{Loaded, OneOrMany, Problems, Reader, validate},
    identity::{issuer::Issuer, once::Used, second_factor::SecondFactor, statement::Statements},
    policy::{
        authn::{Books, KeyBook, SignerBook},
        body_limit::Listener,
        conditions,
        protected_resource::MetadataBook,
        rate_limit::{Description, LimiterBook},
        roles::{self, RoleBook},
    },
    portal::Portal,
    state::{limiter::Limiter, registry::Named},
    upstream::endpoint::Endpoint,
};

/// A compiled file: nothing of it is in use before [`Compiled::keep`].
#[derive(Debug)]
pub struct Compiled {
    /// What requests run on.
    pub snapshot: Snapshot,
    /// Files and folders whose change makes a reload.
    pub files: Vec<PathBuf>,
    limiters: Vec<Named<Description, Limiter>>,
    endpoints: Vec<Named<EndpointRules, Endpoint>>,
    issuers: Vec<std::sync::Arc<Issuer>>,
    roles: Vec<String>,
    statements: Option<Arc<Statements>>,
    replays: Vec<Named<(), Used>>,
    factor: Option<Arc<SecondFactor>>,
}

impl Compiled {
    /// The issuers that the file names.
    pub fn issuers(&self) -> &[std::sync::Arc<Issuer>] {
        &self.issuers
    }

    /// The roles that the file declares, in order.
    pub fn roles(&self) -> impl Iterator<Item = &str> {
        self.roles.iter().map(String::as_str)
    }

    /// The limiters that the file names.
    pub fn limiters(&self) -> &[Named<Description, Limiter>] {
        &self.limiters
    }

    /// What is remembered of signatures, by signer.
    pub fn replays(&self) -> &[Named<(), Used>] {
        &self.replays
    }

    /// The gate's own second factor, where the file has it.
    pub fn factor(&self) -> Option<&Arc<SecondFactor>> {
        self.factor.as_ref()
    }

    /// Puts what outlives a reload to use. Returns issuers that are new, whose keys are to be kept fresh.
    pub fn keep(&self, survivors: &Survivors) -> Vec<std::sync::Arc<Issuer>> {
        survivors.limiters.keep(&self.limiters);
        survivors.endpoints.keep(&self.endpoints);
        if let Some(statements) = &self.statements {
            survivors.statement_keys.keep(&statements.keys);
        }
        survivors.replays.keep(&self.replays);
        // Nobody renews, ends or even sees them any more; they do not come back with a later file.
        if self.factor.is_none() {
            survivors.sessions.clear();
        }
        let tls = self.snapshot.tls.as_ref();
        survivors
            .certificates
            .keep(tls.map_or(&[], |tls| &tls.kept));
        let trust = tls.and_then(|tls| tls.clients.as_ref());
        survivors
            .client_trust
            .keep(trust.map_or(&[], std::slice::from_ref));
        survivors.issuers.keep(self.issuers.clone())
    }
}

/// Checks and compiles. Problems are reported into `problems`; with an error among them there is no snapshot.
pub fn compile(loaded: &Loaded, problems: &Problems, survivors: &Survivors) -> Option<Compiled> {
    if !loaded.readable {
        return None;
    }
    validate(&loaded.root, &document::ROOT, problems);
    let root = Reader::new(&loaded.root, problems, &loaded.sources, "");
    let server = server::compile(&root);
    let identity = identity::compile(&root, survivors);
    let upstreams = upstreams::compile(&root, survivors, &identity);
    let keys = api_keys::compile(&root, survivors);
    let signers = signers::compile(&root, survivors);
    let books = books(&root, survivors, (keys.book, signers.book));
    let factor = second_factor::compile(&root, survivors);
    let cookie = second_factor::cookie_name(&root);
    let parts = Parts {
        factor: factor.as_ref(),
        cookie: cookie.as_deref(),
        clusters: &upstreams.clusters,
        books: &books,
        survivors,
        listener: listener(&server.limits),
    };
    let routes = routes::compile(&root, &parts);
    passkeys::warn_of_strangers(&root, factor.as_deref(), &routes);
    let tls = tls::compile(&root, &routes.hosts, survivors);
    let metadata = MetadataBook::of(routes.routes.iter().map(|route| &*route.policies), problems);
    if problems.has_errors() {
        return None;
    }
    let mut limiters = LimiterBook::list(&routes.limiters);
    limiters.extend(keys.limiters);
    let issuers = issuers::whole(&books.issuers);
    let mut files = watched(loaded, tls.as_ref(), &issuers);
    files.extend(identity.files);
    let clusters: Vec<_> = upstreams.clusters.into_values().flatten().collect();
    Some(Compiled {
        snapshot: Snapshot {
            server,
            tls: tls.map(std::sync::Arc::new),
            metadata,
            portal: factor
                .as_ref()
                .map(|factor| Box::new(portal(&root, factor))),
            router: routes.router,
            routes: routes.routes,
            unrouted: routes.unrouted,
            folds_case: clusters
                .iter()
                .any(|cluster| cluster.profile.case_insensitive()),
            clusters,
        },
        files,
        limiters,
        endpoints: upstreams.endpoints,
        roles: books.roles.names().map(ToOwned::to_owned).collect(),
        statements: identity.statements,
        replays: signers.replays,
        factor,
        issuers,
    })
}

fn portal(root: &Reader<'_>, factor: &Arc<SecondFactor>) -> Portal {
    let place = root.section("mfa").stated_at();
    Portal::new(Arc::clone(factor), place)
}

/// What of the file, its certificates and its issuers is read again when it changes.
fn watched(loaded: &Loaded, tls: Option<&tls::TlsRules>, issuers: &[Arc<Issuer>]) -> Vec<PathBuf> {
    let mut files = [loaded.files.as_slice(), &loaded.folders].concat();
    files.extend(tls.iter().flat_map(|tls| tls.files.iter().cloned()));
    files.extend(issuers.iter().flat_map(|issuer| issuer.files()));
    files
}

/// What routes name to tell who asks.
fn books(
    root: &Reader<'_>,
    survivors: &Survivors,
    (api_keys, signers): (KeyBook, SignerBook),
) -> Books {
    Books {
        issuers: issuers::compile(root, survivors, &conditions::claims_read(root)),
        api_keys,
        roles: roles(root),
        proofs: Arc::clone(&survivors.proofs),
        signers,
        certificates: client_certificates::compile(root),
        asks_for_certificates: root.section("tls").has("client_ca"),
    }
}

/// The table of roles. Those that the file gives to callers are held against it, as those of rules are.
fn roles(root: &Reader<'_>) -> RoleBook {
    let book = roles::compile(root);
    for section in ["api_keys", "client_certificates", "signers"] {
        for (_, _, caller) in root.named(section) {
            let granted = caller.get::<OneOrMany<String>>("roles");
            for role in granted.iter().flat_map(|granted| &granted.0) {
                book.check_role(&caller, "roles", role);
            }
        }
    }
    book
}

/// What routes may not go beyond.
fn listener(limits: &Limits) -> Listener {
    Listener {
        body_bytes: limits.body.bytes,
        spool_bytes: limits.spool_bytes,
    }
}

#[cfg(test)]
mod tests {
    use super::{Survivors, compile};
    use crate::config::load_str;

    #[test]
    fn a_role_that_the_table_lacks_is_given_to_nobody() {
        let text = r#"
[roles.admin]
[api_keys.a]
roles = "admn"
[signers.b]
roles = ["admin", "admn"]
[client_certificates.c]
roles = ["admn"]
"#;
        let loaded = load_str("t.toml", text, &[]);
        assert!(compile(&loaded, &loaded.problems, &Survivors::offline()).is_none());
        let problems = loaded.problems.sorted();
        let told = problems
            .iter()
            .filter(|problem| problem.message.contains("admn"));
        let keys: Vec<_> = told.map(|problem| problem.key.as_str()).collect();
        assert_eq!(
            keys,
            [
                "api_keys.a.roles",
                "signers.b.roles",
                "client_certificates.c.roles"
            ]
        );
    }
}
