//! The policies of a route, shared with every other route for which the same tables speak.
//!
//! A policy is compiled at the nearest level that states it (route, blueprint, defaults) and once there, so ten thousand
//! routes that add nothing of their own cost one set of policies: less to compile, and what requests read stays in the
//! processor's cache whichever routes they take.

use std::{cell::OnceCell, sync::Arc};

use super::{document::DEFAULTS, routes::Parts};
use crate::{
    config::Reader,
    policy::{
        Policies,
        authn::{self, Authn},
        ban::{self, Ban},
        body_limit::{self, BodyLimit},
        conditions::{self, Conditions},
        cookies::{self, Cookies},
        cors::{self, Cors},
        csrf::{self, Csrf},
        mask_errors::{self, MaskErrors},
        network::{self, Network},
        rate_limit::{self, Desk, LimiterBook, RateLimits},
        rbac::{self, Rbac},
        security_headers::{self, SecurityHeaders},
        step_up::{self, StepUp},
    },
};

/// A level of the file at which policies may be stated, and what was compiled there so far.
#[derive(Debug)]
pub(super) struct Level<'a> {
    own: Reader<'a>,
    /// Through this level and those behind it.
    through: Reader<'a>,
    farther: Option<&'a Level<'a>>,
    network: OnceCell<Arc<Network>>,
    ban: OnceCell<Arc<Ban>>,
    rate_limits: OnceCell<Arc<RateLimits>>,
    body_limit: OnceCell<Arc<BodyLimit>>,
    cors: OnceCell<Arc<Cors>>,
    csrf: OnceCell<Arc<Csrf>>,
    access: OnceCell<Access>,
    mask_errors: OnceCell<Arc<MaskErrors>>,
    cookies: OnceCell<Arc<Cookies>>,
    headers: OnceCell<Arc<SecurityHeaders>>,
    /// All of them together.
    whole: OnceCell<Arc<Policies>>,
}

/// What the key `auth` says.
#[derive(Clone, Debug)]
struct Access {
    authn: Arc<Authn>,
    step_up: Option<Arc<StepUp>>,
    rbac: Arc<Rbac>,
    conditions: Option<Arc<Conditions>>,
}

/// Where the compiled forms of one policy are kept.
type Cell<T> = for<'l> fn(&'l Level<'_>) -> &'l OnceCell<T>;

impl<'a> Level<'a> {
    /// A level in front of another one; the farthest has none behind it.
    pub(super) fn new(own: &Reader<'a>, farther: Option<&'a Level<'a>>) -> Self {
        Self {
            own: own.clone(),
            through: farther.map_or_else(|| own.clone(), |farther| own.over(&farther.through)),
            farther,
            network: OnceCell::new(),
            ban: OnceCell::new(),
            rate_limits: OnceCell::new(),
            body_limit: OnceCell::new(),
            cors: OnceCell::new(),
            csrf: OnceCell::new(),
            access: OnceCell::new(),
            mask_errors: OnceCell::new(),
            cookies: OnceCell::new(),
            headers: OnceCell::new(),
            whole: OnceCell::new(),
        }
    }

    /// The keys of this level and of those behind it.
    pub(super) fn reader(&self) -> &Reader<'a> {
        &self.through
    }

    /// The nearest level that states the key, else the farthest.
    fn speaker(&self, key: &str) -> &Level<'a> {
        let mut level = self;
        while let Some(farther) = level.farther.filter(|_| !level.own.has(key)) {
            level = farther;
        }
        level
    }

    fn share<T: Clone>(
        &self,
        key: &str,
        cell: Cell<T>,
        compile: impl FnOnce(&Reader<'_>) -> T,
    ) -> T {
        let level = self.speaker(key);
        cell(level).get_or_init(|| compile(&level.through)).clone()
    }

    fn section<T>(
        &self,
        key: &str,
        cell: Cell<Arc<T>>,
        compile: impl FnOnce(&Reader<'_>) -> T,
    ) -> Arc<T> {
        self.share(key, cell, |reader| Arc::new(compile(&reader.section(key))))
    }

    /// The policies of a route at this level, for which `auth` must be stated somewhere.
    pub(super) fn policies(&self, parts: &Parts<'_>, limiters: &mut LimiterBook) -> Arc<Policies> {
        if !self.through.has("auth") {
            // Told of each route.
            return self.with_access(access(&self.through, parts), parts, limiters);
        }
        let mut level = self;
        while let Some(farther) = level.farther
            && !DEFAULTS.keys.iter().any(|key| level.own.has(key.name))
        {
            level = farther;
        }
        let compile = || {
            let said = |reader: &Reader<'_>| access(reader, parts);
            let access = level.share("auth", |level| &level.access, said);
            level.with_access(access, parts, limiters)
        };
        Arc::clone(level.whole.get_or_init(compile))
    }

    /// The policies of this level for requests that meet no route: nobody is asked who they are.
    pub(super) fn unrouted(&self, parts: &Parts<'_>, limiters: &mut LimiterBook) -> Arc<Policies> {
        let anybody = Access {
            authn: Arc::new(Authn::Public("default".into())),
            step_up: None,
            rbac: Arc::new(Rbac::default()),
            conditions: None,
        };
        self.with_access(anybody, parts, limiters)
    }

    fn with_access(
        &self,
        access: Access,
        parts: &Parts<'_>,
        limiters: &mut LimiterBook,
    ) -> Arc<Policies> {
        let mut desk = Desk {
            limiters: &parts.survivors.limiters,
            book: limiters,
            hasher: &parts.survivors.hasher,
        };
        let survivors = parts.survivors;
        let ban = |reader: &Reader<'_>| ban::compile(reader, &survivors.bans, &survivors.hasher);
        let cookies = |reader: &Reader<'_>| cookies::compile(reader).reserving(parts.cookie);
        let body = |reader: &Reader<'_>| body_limit::compile(reader, parts.listener);
        Arc::new(Policies {
            network: self.section("network", |level| &level.network, network::compile),
            ban: self.section("ban", |level| &level.ban, ban),
            rate_limits: self.share(
                "rate_limits",
                |level| &level.rate_limits,
                |reader| Arc::new(rate_limit::compile(reader, &mut desk)),
            ),
            body_limit: self.section("body", |level| &level.body_limit, body),
            cors: self.section("cors", |level| &level.cors, cors::compile),
            authn: access.authn,
            csrf: self.section("csrf", |level| &level.csrf, csrf::compile),
            step_up: access.step_up,
            rbac: access.rbac,
            conditions: access.conditions,
            mask_errors: self.section(
                "mask_errors",
                |level| &level.mask_errors,
                mask_errors::compile,
            ),
            cookies: self.section("cookies", |level| &level.cookies, cookies),
            headers: self.section("headers", |level| &level.headers, security_headers::compile),
        })
    }
}

fn access(levels: &Reader<'_>, parts: &Parts<'_>) -> Access {
    let authn = authn::compile(levels, parts.books);
    let rbac = match &authn {
        Authn::Required(_) => rbac::compile(levels, &parts.books.roles),
        Authn::Public(_) => Rbac::default(),
    };
    Access {
        authn: Arc::new(authn),
        step_up: step_up::compile(levels, parts.factor).map(Arc::new),
        rbac: Arc::new(rbac),
        conditions: conditions::compile(levels).map(Arc::new),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use crate::{
        config::load_str,
        snapshot::{Route, compile::compile, survivors::Survivors},
    };

    const GATE: &str = r#"
[server]
http = ["127.0.0.1:0"]
plaintext = true

[upstreams.a]
servers = ["http://127.0.0.1:9"]

[defaults]
auth = "public"
[defaults.cookies]
same_site = "strict"

[[blueprints]]
name = "one"
upstream = "a"
[blueprints.body]
bytes = "1KiB"
[[blueprints.routes]]
path = "/plain"
[[blueprints.routes]]
path = "/own"
body = { bytes = "1MiB" }

[[blueprints]]
name = "two"
prefix = "/two"
upstream = "a"
"#;

    fn routes() -> Vec<Arc<Route>> {
        let loaded = load_str("t.toml", GATE, &[]);
        let compiled = compile(&loaded, &loaded.problems, &Survivors::new(1));
        compiled.expect("a good file").snapshot.routes
    }

    #[test]
    fn what_the_same_table_states_is_the_same_thing() {
        let routes = routes();
        let [plain, own, one, two] = routes.as_slice() else {
            panic!("{routes:?}")
        };
        for route in [own, one, two] {
            assert!(Arc::ptr_eq(
                &plain.policies.cookies,
                &route.policies.cookies
            ));
            assert!(Arc::ptr_eq(&plain.policies.authn, &route.policies.authn));
            assert!(Arc::ptr_eq(
                &plain.policies.headers,
                &route.policies.headers
            ));
            assert!(Arc::ptr_eq(
                &plain.policies.rate_limits,
                &route.policies.rate_limits
            ));
        }
        assert!(
            Arc::ptr_eq(&plain.policies, &one.policies),
            "a route that states nothing has what its blueprint has"
        );
    }

    #[test]
    fn what_a_route_states_is_its_own() {
        let bytes = |route: &Arc<Route>| route.policies.body_limit.streaming_bytes().0;
        let routes = routes();
        let found: Vec<_> = routes.iter().map(bytes).collect();
        assert_eq!(found, [1 << 10, 1 << 20, 1 << 10, 10 << 20]);
    }
}
