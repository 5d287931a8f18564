//! From host, path and method to a route, at a cost that does not grow with the number of routes.
//!
//! The most specific host that a blueprint names wins (exact, then one-label wildcard, then any host); within it the
//! most specific path for the method. A path that is known under other methods alone is a 405.

use std::collections::{BTreeMap, HashMap, HashSet};

use foldhash::fast::RandomState;
use http::Method;

use super::trie::{NotEntered, RouteId, Trie};
use crate::wire::host::HostPattern;

/// The route of a path that a blueprint keeps closed: nothing is served there, and no broader blueprint may.
pub const CLOSED: RouteId = RouteId::MAX;

/// The compiled table.
#[derive(Debug, Default)]
pub struct Router {
    exact: HashMap<Box<str>, HostTable, RandomState>,
    /// By the part after `*.`.
    wildcard: HashMap<Box<str>, HostTable, RandomState>,
    any: HostTable,
    /// Methods beyond the standard ones that some route names.
    extensions: Vec<Method>,
}

/// What the router says.
#[derive(Debug, PartialEq, Eq)]
pub enum Found {
    /// This route.
    Route(RouteId),
    /// The path is known, the method is not; these are.
    OtherMethods(Vec<Method>),
    /// The method is an extension that no route names.
    UnknownMethod,
    /// Nothing.
    Nothing,
}

#[derive(Debug, Default)]
struct HostTable {
    by_method: Vec<(Method, Trie)>,
    other: Trie,
    /// How many patterns were entered.
    entered: usize,
}

/// One pattern of a route, to be entered.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Route that it leads to.
    pub route: RouteId,
    /// Hosts; empty for any.
    pub hosts: Vec<HostPattern>,
    /// Path pattern in the syntax of the file.
    pub pattern: String,
    /// Methods; empty for all.
    pub methods: Vec<Method>,
}

/// A pattern that could not be entered.
#[derive(Debug)]
pub enum Rejected {
    /// An earlier route takes everything that it would match on one of its hosts.
    Shadowed {
        /// Index of the entry.
        entry: usize,
        /// The host; `None` for an entry without hosts.
        host: Option<HostPattern>,
        /// The route that takes it.
        by: RouteId,
    },
    /// The pattern is not well-formed.
    Malformed {
        /// Index of the entry.
        entry: usize,
        /// What is wrong.
        why: &'static str,
    },
}

impl Router {
    /// Enters all patterns, earlier ones first.
    pub fn build(entries: &[Entry]) -> (Self, Vec<Rejected>) {
        let mut router = Self::default();
        let mut rejected = Vec::new();
        for method in entries.iter().flat_map(|entry| &entry.methods) {
            if !is_standard(method) && !router.extensions.contains(method) {
                router.extensions.push(method.clone());
            }
        }
        let mut groups: HashMap<Option<&HostPattern>, Vec<usize>, RandomState> = HashMap::default();
        for (index, entry) in entries.iter().enumerate() {
            if entry.hosts.is_empty() {
                groups.entry(None).or_default().push(index);
            }
            for host in &entry.hosts {
                groups.entry(Some(host)).or_default().push(index);
            }
        }
        for (host, members) in groups {
            let mut tally = Tally::default();
            let table = HostTable::build(entries, &members, &mut tally);
            rejected.append(&mut tally.rejected);
            let shadowed = tally.shadow.iter();
            let shadowed = shadowed.filter(|(entry, _)| !tally.entered.contains(*entry));
            rejected.extend(shadowed.map(|(entry, by)| Rejected::Shadowed {
                entry: *entry,
                host: host.cloned(),
                by: *by,
            }));
            match host {
                None => router.any = table,
                Some(pattern) => {
                    match pattern.suffix() {
                        Some(suffix) => router.wildcard.insert(suffix.into(), table),
                        None => router.exact.insert(pattern.as_str().into(), table),
                    };
                }
            }
        }
        (router, rejected)
    }

    /// Finds the route for a canonical host and judged path.
    pub fn find(&self, host: &str, path: &str, method: &Method) -> Found {
        if !is_standard(method) && !self.extensions.contains(method) {
            return Found::UnknownMethod;
        }
        let mut allowed = Vec::new();
        for table in self.tables(host) {
            let found = table.find(path, method);
            if let Some(route) = found.filter(|route| *route != CLOSED) {
                return Found::Route(route);
            }
            table.collect_methods(path, &mut allowed);
            if found.is_some() && allowed.is_empty() {
                return Found::Nothing;
            }
            // A path known to this host under another method ends the search: a broader host must not serve it.
            if !allowed.is_empty() {
                return Found::OtherMethods(allowed);
            }
        }
        Found::Nothing
    }

    /// Whether any route of any path is for this host.
    pub fn serves(&self, host: &str) -> bool {
        self.tables(host).any(|table| !table.is_empty())
    }

    /// The tables that apply to a host, most specific first.
    fn tables(&self, host: &str) -> impl Iterator<Item = &HostTable> {
        let exact = if self.exact.is_empty() {
            None
        } else {
            self.exact.get(host)
        };
        let wildcard = if self.wildcard.is_empty() {
            None
        } else {
            host.split_once('.')
                .and_then(|(_, rest)| self.wildcard.get(rest))
        };
        exact
            .into_iter()
            .chain(wildcard)
            .chain(std::iter::once(&self.any))
    }
}

/// The methods of RFC 9110 §9 and RFC 5789 that a route takes without naming them.
fn is_standard(method: &Method) -> bool {
    matches!(
        *method,
        Method::GET
            | Method::HEAD
            | Method::POST
            | Method::PUT
            | Method::DELETE
            | Method::PATCH
            | Method::OPTIONS
    )
}

/// What became of the entries of one host.
#[derive(Default)]
struct Tally {
    entered: HashSet<usize, RandomState>,
    shadow: BTreeMap<usize, RouteId>,
    rejected: Vec<Rejected>,
}

impl HostTable {
    fn build(entries: &[Entry], members: &[usize], tally: &mut Tally) -> Self {
        let mut methods: Vec<Method> = Vec::new();
        for method in members.iter().flat_map(|index| &entries[*index].methods) {
            if !methods.contains(method) {
                methods.push(method.clone());
            }
        }
        if methods.contains(&Method::GET) && !methods.contains(&Method::HEAD) {
            methods.push(Method::HEAD);
        }
        let mut table = Self {
            by_method: methods
                .into_iter()
                .map(|method| (method, Trie::default()))
                .collect(),
            other: Trie::default(),
            entered: members.len(),
        };
        for index in members {
            let entry = &entries[*index];
            for (method, router) in &mut table.by_method {
                if entry.methods.is_empty() || entry.methods.contains(method) {
                    insert(router, entry, *index, tally);
                } else if *method == Method::HEAD && entry.methods.contains(&Method::GET) {
                    // A backend answers HEAD as it does GET (RFC 9110 §9.3.2), so what guards one guards the other. An
                    // earlier route that names HEAD comes first.
                    let _ = router.insert(&entry.pattern, entry.route);
                }
            }
            if entry.methods.is_empty() {
                insert(&mut table.other, entry, *index, tally);
            }
        }
        table
    }

    fn is_empty(&self) -> bool {
        self.entered == 0
    }

    fn find(&self, path: &str, method: &Method) -> Option<RouteId> {
        let router = self
            .by_method
            .iter()
            .find(|(known, _)| known == method)
            .map_or(&self.other, |(_, router)| router);
        router.find(path)
    }

    fn collect_methods(&self, path: &str, allowed: &mut Vec<Method>) {
        for (method, router) in &self.by_method {
            if router.find(path).is_some_and(|route| route != CLOSED) && !allowed.contains(method) {
                allowed.push(method.clone());
            }
        }
    }
}

fn insert(router: &mut Trie, entry: &Entry, index: usize, tally: &mut Tally) {
    match router.insert(&entry.pattern, entry.route) {
        Ok(()) => {
            tally.entered.insert(index);
        }
        Err(NotEntered::Taken(by)) => {
            tally.shadow.insert(index, by);
        }
        Err(NotEntered::Malformed(why)) => {
            tally
                .rejected
                .push(Rejected::Malformed { entry: index, why });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(route: RouteId, hosts: &[&str], pattern: &str, methods: &[Method]) -> Entry {
        Entry {
            route,
            hosts: hosts
                .iter()
                .map(|host| host.parse().expect("a host"))
                .collect(),
            pattern: pattern.to_owned(),
            methods: methods.to_vec(),
        }
    }

    #[test]
    fn most_specific_host_then_path_then_method() {
        let (router, rejected) = Router::build(&[
            entry(0, &[], "/{*rest}", &[]),
            entry(1, &["app.example"], "/{*rest}", &[]),
            entry(2, &["app.example"], "/users/{id}", &[Method::DELETE]),
            entry(3, &["*.example"], "/{*rest}", &[]),
        ]);
        assert!(rejected.is_empty(), "{rejected:?}");
        assert_eq!(
            router.find("other.test", "/x", &Method::GET),
            Found::Route(0)
        );
        assert_eq!(
            router.find("app.example", "/x", &Method::GET),
            Found::Route(1)
        );
        assert_eq!(
            router.find("app.example", "/users/7", &Method::DELETE),
            Found::Route(2)
        );
        assert_eq!(
            router.find("app.example", "/users/7", &Method::GET),
            Found::Route(1)
        );
        assert_eq!(
            router.find("b.example", "/users/7", &Method::GET),
            Found::Route(3)
        );
        assert_eq!(
            router.find("a.b.example", "/users/7", &Method::GET),
            Found::Route(0)
        );
    }

    #[test]
    fn a_path_known_under_other_methods_is_not_unknown() {
        let (router, _) = Router::build(&[entry(0, &[], "/a", &[Method::PUT])]);
        assert_eq!(
            router.find("h", "/a", &Method::GET),
            Found::OtherMethods(vec![Method::PUT])
        );
        assert_eq!(router.find("h", "/b", &Method::GET), Found::Nothing);
    }

    #[test]
    fn a_route_for_get_takes_head_too() {
        let (router, rejected) = Router::build(&[
            entry(0, &[], "/b", &[Method::HEAD]),
            entry(1, &[], "/a", &[Method::GET]),
            entry(2, &[], "/b", &[Method::GET]),
            entry(3, &[], "/{*rest}", &[]),
        ]);
        assert!(rejected.is_empty(), "{rejected:?}");
        for (path, method, route) in [
            ("/a", Method::HEAD, 1),
            ("/b", Method::HEAD, 0),
            ("/b", Method::GET, 2),
            ("/c", Method::HEAD, 3),
            ("/a", Method::POST, 3),
        ] {
            assert_eq!(router.find("h", path, &method), Found::Route(route));
        }
    }

    #[test]
    fn a_closed_path_is_not_served_by_a_broader_pattern() {
        let (router, _) = Router::build(&[
            entry(0, &[], "/{*rest}", &[]),
            entry(1, &["h"], "/users/{id}", &[Method::GET]),
            entry(2, &["h"], "/users/{id}/files/{*rest}", &[]),
            entry(3, &["h"], "/{*rest}", &[]),
            entry(CLOSED, &["h"], "/users/{*rest}", &[]),
        ]);
        assert_eq!(router.find("h", "/users/7", &Method::GET), Found::Route(1));
        assert_eq!(
            router.find("h", "/users/7", &Method::POST),
            Found::OtherMethods(vec![Method::GET, Method::HEAD])
        );
        assert_eq!(router.find("h", "/users/7/x", &Method::GET), Found::Nothing);
        assert_eq!(
            router.find("h", "/users/7/files/x", &Method::GET),
            Found::Route(2)
        );
        assert_eq!(router.find("h", "/x", &Method::GET), Found::Route(3));
    }

    #[test]
    fn a_later_route_with_the_same_pattern_is_shadowed() {
        let (_, rejected) = Router::build(&[
            entry(0, &[], "/a/{x}", &[]),
            entry(1, &[], "/a/{y}", &[Method::GET]),
            entry(2, &[], "/a/{x}/b", &[]),
        ]);
        assert!(
            matches!(rejected.as_slice(), [Rejected::Shadowed { entry: 1, .. }]),
            "{rejected:?}"
        );
    }

    #[test]
    fn a_route_is_shadowed_host_by_host() {
        let (_, rejected) = Router::build(&[
            entry(0, &["a", "b"], "/x", &[]),
            entry(1, &["b", "c"], "/x", &[]),
        ]);
        assert!(
            matches!(
                rejected.as_slice(),
                [Rejected::Shadowed { entry: 1, host: Some(host), by: 0 }] if host.as_str() == "b"
            ),
            "{rejected:?}"
        );
    }

    #[test]
    fn ten_thousand_routes_are_found_like_one() {
        let entries: Vec<Entry> = (0..10_000)
            .map(|n| entry(n, &[], &format!("/r{n}/{{id}}"), &[]))
            .collect();
        let (router, rejected) = Router::build(&entries);
        assert!(rejected.is_empty());
        assert_eq!(
            router.find("h", "/r9999/7", &Method::GET),
            Found::Route(9999)
        );
    }
}
