//! `[[blueprints]]` and their routes to compiled routes and router entries.
//!
//! Every policy section is read through three levels: route, blueprint, defaults; nearest wins, key by key.

use std::{
    collections::{BTreeMap, btree_map},
    sync::Arc,
};

use http::Method;

use super::{
    Route, RouteFacts, Told,
    policies::Level,
    router::{CLOSED, Entry, Rejected, Router},
    survivors::Survivors,
    trie::RouteId,
    upstreams::ClusterBook,
};
use crate::{
    config::{At, OneOrMany, Reader},
    identity::second_factor::SecondFactor,
    policy::{Policies, authn::Books, body_limit::Listener, rate_limit::LimiterBook},
    state::limiter::KeyKind,
    upstream::cluster::Cluster,
    wire::{host::HostPattern, own_space},
};

/// What compiling routes needs from the rest of the file.
#[derive(Debug)]
pub struct Parts<'a> {
    /// Upstreams by name.
    pub clusters: &'a ClusterBook,
    /// Issuers by name.
    pub books: &'a Books,
    /// The running proxy.
    pub survivors: &'a Survivors,
    /// Bounds on bodies of the listener.
    pub listener: Listener,
    /// The gate's own second factor, where the file has it.
    pub factor: Option<&'a Arc<SecondFactor>>,
    /// The name of the gate's own cookie, which no backend sees, wherever the file has `[session]`.
    pub cookie: Option<&'a str>,
}

/// The outcome.
#[derive(Debug)]
pub struct Routes {
    /// The table.
    pub router: Router,
    /// By number.
    pub routes: Vec<Arc<Route>>,
    /// What a request that meets no route is judged by.
    pub unrouted: Arc<Policies>,
    /// Limiters to be kept.
    pub limiters: LimiterBook,
    /// Every host that a blueprint names, with its place.
    pub hosts: Vec<(HostPattern, At)>,
    /// Whether a blueprint names no host, and so serves any.
    pub any_host: bool,
}

struct Compiler<'a> {
    parts: &'a Parts<'a>,
    limiters: LimiterBook,
    entries: Vec<Entry>,
    /// Place and name of what made each entry; implicit entries may be shadowed in silence.
    origins: Vec<Origin>,
    routes: Vec<Arc<Route>>,
    hosts: Vec<(HostPattern, At)>,
    any_host: bool,
    /// Blueprints that keep closed what they do not state; entered last, so that any stated route goes before.
    closed: Vec<Group>,
}

#[derive(Clone)]
struct Origin {
    at: Option<At>,
    name: String,
    /// The first route of the blueprint that made it by itself; a route of its own may take all of it.
    implicit: Option<RouteId>,
}

/// Compiles every blueprint.
pub fn compile(root: &Reader<'_>, parts: &Parts<'_>) -> Routes {
    let mut compiler = Compiler {
        parts,
        limiters: LimiterBook::default(),
        entries: Vec::new(),
        origins: Vec::new(),
        routes: Vec::new(),
        hosts: Vec::new(),
        any_host: false,
        closed: Vec::new(),
    };
    let defaults = Level::new(&root.section("defaults"), None);
    let blueprints = root.tables("blueprints");
    if blueprints.is_empty() && !root.has("blueprints") {
        root.error(
            "blueprints",
            "nothing is served",
            Some("add a `[[blueprints]]` with `name`, `upstream` and `auth`".into()),
        );
    }
    unlike(&blueprints);
    for blueprint in &blueprints {
        compiler.blueprint(blueprint, &defaults);
    }
    for group in std::mem::take(&mut compiler.closed) {
        compiler.below(&group, CLOSED, None);
    }
    let unrouted = defaults.unrouted(parts, &mut compiler.limiters);
    let (router, rejected) = Router::build(&compiler.entries);
    compiler.report(root, &rejected);
    Routes {
        router,
        routes: compiler.routes,
        unrouted,
        limiters: compiler.limiters,
        hosts: compiler.hosts,
        any_host: compiler.any_host,
    }
}

/// Refuses a name that stands twice: logs, metrics and limits would take two blueprints for one.
fn unlike(blueprints: &[Reader<'_>]) {
    let mut seen: BTreeMap<String, Option<At>> = BTreeMap::new();
    for blueprint in blueprints {
        let Some(name) = blueprint.get::<String>("name") else {
            continue;
        };
        match seen.entry(name) {
            btree_map::Entry::Vacant(free) => drop(free.insert(blueprint.place())),
            btree_map::Entry::Occupied(taken) => {
                let first = taken.get().map(|at| blueprint.sources().line_of(at));
                let first =
                    first.map_or_else(String::new, |line| format!("; the first is at {line}"));
                blueprint.error(
                    "name",
                    format!("two blueprints are named `{}`", taken.key()),
                    Some(format!(
                        "logs, metrics and limits tell them apart by the name{first}"
                    )),
                );
            }
        }
    }
}

/// What the routes of a blueprint have in common.
struct Group {
    name: Arc<str>,
    hosts: Vec<HostPattern>,
    prefix: String,
    cluster: Option<Arc<Cluster>>,
    /// The number of its first route.
    first: RouteId,
}

impl Compiler<'_> {
    fn blueprint(&mut self, blueprint: &Reader<'_>, defaults: &Level<'_>) {
        let name = blueprint.get::<String>("name");
        if name.is_none() && !blueprint.has("name") {
            blueprint.error(
                "name",
                "a blueprint needs a name",
                Some("it stands in logs and metrics".into()),
            );
        }
        let group = Group {
            name: name.unwrap_or_default().into(),
            hosts: self.blueprint_hosts(blueprint),
            prefix: prefix(blueprint),
            cluster: self.cluster(blueprint),
            first: self.next(),
        };
        self.keep_out(blueprint, "prefix", &group.prefix);
        let level = Level::new(blueprint, Some(defaults));
        let routes = blueprint.tables("routes");
        for route in &routes {
            self.route(&group, route, &Level::new(route, Some(&level)));
        }
        if blueprint.get::<String>("unmatched").as_deref() == Some("refuse") {
            self.closed.push(group);
            return;
        }
        if !blueprint.has("upstream") {
            if routes.is_empty() {
                blueprint.error(
                    "upstream",
                    "this blueprint leads nowhere",
                    Some("add `upstream = \"NAME\"`".into()),
                );
            }
            // What its routes leave open has nowhere to go, and must not go where another policy rules.
            self.closed.push(group);
            return;
        }
        self.implicit(&group, blueprint, &level);
    }

    /// Refuses what would stand where the gate's own pages are, and would never be asked.
    fn keep_out(&self, reader: &Reader<'_>, key: &str, path: &str) {
        if self.parts.factor.is_some() && own_space::holds(path) {
            let hint = format!("everything below `{}` is the gate's own", own_space::SPACE);
            reader.error(key, format!("`{path}` can never be reached"), Some(hint));
        }
    }

    /// Everything below the prefix that no route matches.
    fn implicit(&mut self, group: &Group, blueprint: &Reader<'_>, level: &Level<'_>) {
        let policies = level.policies(self.parts, &mut self.limiters);
        let rest = format!("{}/{{*rest}}", group.prefix);
        check_path(&policies, level, &rest);
        let Some(cluster) = group.cluster.clone() else {
            return;
        };
        let matches = shown(group, &rest, &[]);
        let id = self.add(
            group,
            (&rest, &rest, matches),
            blueprint,
            (policies, cluster),
        );
        self.below(group, id, blueprint.place());
    }

    /// Enters the prefix and everything below it.
    fn below(&mut self, group: &Group, route: RouteId, at: Option<At>) {
        let rest = format!("{}/{{*rest}}", group.prefix);
        let own = if group.prefix.is_empty() {
            "/"
        } else {
            &group.prefix
        };
        for pattern in [own, rest.as_str()] {
            let entry = Entry {
                route,
                hosts: group.hosts.clone(),
                pattern: pattern.to_owned(),
                methods: Vec::new(),
            };
            let origin = Origin {
                // The prefix itself may well be a route of its own.
                at: at.filter(|_| pattern == rest),
                name: format!("blueprint `{}`", group.name),
                implicit: Some(group.first),
            };
            self.enter(entry, origin);
        }
    }

    /// Enters a pattern, and for a backend that folds the case of paths the folded one, by which it will be judged.
    /// What is closed has no backend of its own; it is closed to such backends too.
    fn enter(&mut self, entry: Entry, origin: Origin) {
        let folds = |cluster: &Cluster| cluster.profile.case_insensitive();
        let folded = match self.numbered(entry.route) {
            Some(route) => folds(&route.cluster),
            None => self.parts.clusters.values().flatten().any(|c| folds(c)),
        };
        let lower = entry.pattern.to_ascii_lowercase();
        if folded && lower != entry.pattern {
            self.entries.push(Entry {
                pattern: lower,
                ..entry.clone()
            });
            self.origins.push(origin.clone());
        }
        self.entries.push(entry);
        self.origins.push(origin);
    }

    fn route(&mut self, group: &Group, route: &Reader<'_>, level: &Level<'_>) {
        let Some(path) = route.get::<String>("path") else {
            if !route.has("path") {
                route.error(
                    "path",
                    "a route needs a path",
                    Some("such as `path = \"/users/{id}\"`".into()),
                );
            }
            return;
        };
        let pattern = pattern(route, &group.prefix, &path);
        self.keep_out(route, "path", &pattern);
        let name = route
            .get::<String>("name")
            .unwrap_or_else(|| pattern.clone());
        let policies = level.policies(self.parts, &mut self.limiters);
        check_path(&policies, level, &pattern);
        let cluster = if route.has("upstream") {
            self.cluster(route)
        } else {
            group.cluster.clone()
        };
        let Some(cluster) = cluster else {
            if !level.reader().has("upstream") {
                route.error(
                    "upstream",
                    "this route leads nowhere",
                    Some("add `upstream = \"NAME\"` here or in its blueprint".into()),
                );
            }
            return;
        };
        let methods = route.get::<Vec<Method>>("methods").unwrap_or_default();
        let matches = shown(group, &pattern, &methods);
        let id = self.add(
            group,
            (&name, &pattern, matches),
            route,
            (policies, cluster),
        );
        let entry = Entry {
            route: id,
            hosts: group.hosts.clone(),
            pattern,
            methods,
        };
        let origin = Origin {
            at: route.at("path").or(route.place()),
            name: format!("route `{name}`"),
            implicit: None,
        };
        self.enter(entry, origin);
    }

    fn add(
        &mut self,
        group: &Group,
        (name, pattern, told): (&str, &str, Told),
        reader: &Reader<'_>,
        (policies, cluster): (Arc<Policies>, Arc<Cluster>),
    ) -> RouteId {
        let id = self.next();
        let place = reader
            .place()
            .map(|at| reader.sources().line_of(at).to_string());
        let Survivors {
            hasher, metrics, ..
        } = self.parts.survivors;
        self.routes.push(Arc::new(Route {
            facts: Box::new(RouteFacts {
                blueprint: Arc::clone(&group.name),
                route: Box::new(name.into()),
                pattern: pattern.into(),
                // Both names: another blueprint may well have a route of the same one.
                bucket: hasher.value(KeyKind::Route, [&*group.name, name].join("\0").as_bytes()),
                metrics: metrics.route(&group.name, name),
            }),
            policies,
            cluster,
            told: Box::new(Told {
                place: place.unwrap_or_default().into(),
                ..told
            }),
        }));
        id
    }

    /// The number of the next route. A file of the largest size has far fewer than there are numbers.
    fn next(&self) -> RouteId {
        RouteId::try_from(self.routes.len()).unwrap_or(CLOSED)
    }

    fn numbered(&self, id: RouteId) -> Option<&Arc<Route>> {
        self.routes.get(usize::try_from(id).ok()?)
    }

    fn cluster(&self, reader: &Reader<'_>) -> Option<Arc<Cluster>> {
        let name = reader.get::<String>("upstream")?;
        if let Some(cluster) = self.parts.clusters.get(&name) {
            return cluster.clone();
        }
        let known: Vec<String> = self
            .parts
            .clusters
            .keys()
            .map(|known| format!("`{known}`"))
            .collect();
        let hint = if known.is_empty() {
            format!("add a section `[upstreams.{name}]`")
        } else {
            format!("the file has {}", known.join(", "))
        };
        reader.error(
            "upstream",
            format!("there is no upstream `{name}`"),
            Some(hint),
        );
        None
    }

    fn blueprint_hosts(&mut self, blueprint: &Reader<'_>) -> Vec<HostPattern> {
        let Some((texts, at)) = blueprint.get_at::<OneOrMany<String>>("hosts") else {
            self.any_host = true;
            return Vec::new();
        };
        let mut hosts = Vec::new();
        for text in texts.0 {
            match text.parse::<HostPattern>() {
                Ok(pattern) => hosts.push(pattern),
                Err(_) => blueprint.error(
                    "hosts",
                    format!("`{text}` is no host"),
                    Some(
                        "such as `app.example`, or `*.example` for one label; no scheme, no port"
                            .into(),
                    ),
                ),
            }
        }
        self.hosts
            .extend(hosts.iter().map(|host| (host.clone(), at)));
        hosts
    }

    fn report(&self, root: &Reader<'_>, rejected: &[Rejected]) {
        for rejection in rejected {
            match rejection {
                Rejected::Malformed { entry, why } => {
                    if let Some(at) = self.origins[*entry].at {
                        let pattern = &self.entries[*entry].pattern;
                        root.error_at(at, format!("`{pattern}` is no path pattern: {why}"), None);
                    }
                }
                Rejected::Shadowed { entry, host, by } => {
                    let origin = &self.origins[*entry];
                    let Some(at) = origin.at else { continue };
                    let shadow = self.numbered(*by);
                    if origin.implicit.is_some_and(|first| *by >= first) {
                        continue;
                    }
                    let place = shadow.map_or("", |route| &route.told.place);
                    let on = match host {
                        Some(host) if self.entries[*entry].hosts.len() > 1 => {
                            format!(" on `{host}`")
                        }
                        _ => String::new(),
                    };
                    root.error_at(
                        at,
                        format!("{} can never be reached{on}", origin.name),
                        Some(format!(
                            "everything it would match goes to the one at {place}"
                        )),
                    );
                }
            }
        }
    }
}

/// Reports what the conditions of a route read of its path and its pattern does not have.
fn check_path(policies: &Policies, level: &Level<'_>, pattern: &str) {
    if let Some(conditions) = &policies.conditions {
        conditions.check_path(level.reader(), pattern);
    }
}

/// `GET, HEAD on app.example: /users/{id}`, its place left open.
fn shown(group: &Group, pattern: &str, methods: &[Method]) -> Told {
    let methods: Vec<&str> = methods.iter().map(Method::as_str).collect();
    let hosts: Vec<&str> = group.hosts.iter().map(HostPattern::as_str).collect();
    let or_any = |words: &[&str], any: &str| {
        if words.is_empty() {
            any.to_owned()
        } else {
            words.join(", ")
        }
    };
    let matches = format!(
        "{} on {}: {pattern}",
        or_any(&methods, "any method"),
        or_any(&hosts, "any host")
    );
    let methods = if methods.is_empty() {
        "*".to_owned()
    } else {
        methods.join(" ")
    };
    Told {
        matches: matches.into(),
        methods: methods.into(),
        place: Box::default(),
    }
}

/// The prefix without its last slash; empty for `/`.
fn prefix(blueprint: &Reader<'_>) -> String {
    let text = blueprint.get::<String>("prefix").unwrap_or_default();
    if !text.is_empty() && !is_plain_path(&text) || text.contains(['{', '}']) {
        blueprint.error(
            "prefix",
            format!("`{text}` is no path"),
            Some("such as `/api`, in normal form".into()),
        );
    }
    text.trim_end_matches('/').to_owned()
}

/// The pattern below its prefix, without a last slash, as paths are judged.
fn pattern(route: &Reader<'_>, prefix: &str, path: &str) -> String {
    if !is_plain_path(path) {
        route.error(
            "path",
            format!("`{path}` is no path"),
            Some("such as `/users/{id}`, in normal form".into()),
        );
    }
    let whole = format!("{prefix}{}", path.trim_end_matches('/'));
    if whole.is_empty() {
        "/".to_owned()
    } else {
        whole
    }
}

/// A path as requests are judged: absolute, no dot segments, no empty ones, no query. Every other sign is judged in its
/// escaped form, so that a pattern with such a sign would never match and what it guards would be open.
fn is_plain_path(text: &str) -> bool {
    text.starts_with('/')
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"/{}-._~!$&'()*+,=:@".contains(&b))
        && !text.contains("//")
        && !text
            .split('/')
            .any(|segment| segment == "." || segment == "..")
}
