//! Hands typed values to whoever compiles a section, nearest layer first and key by key: route, blueprint, defaults.
//!
//! `validate` has told what is wrong with single values, so a reader is silent about those and adds only what nobody
//! told yet.

use std::path::PathBuf;
use std::rc::Rc;

use super::place::{At, Sources};
use super::problem::{Problem, Problems, Severity};
use super::secret::{FilePath, SecretRef, readable_by_others};
use super::validate::join;
use super::value::{Complaint, Entry, FromValue, Node, Table, Value, quoted};
use crate::crypto::secret::Secret;

/// One table that a reader looks into, and its key path for messages.
#[derive(Clone, Debug)]
pub struct Layer<'a> {
    /// The table.
    pub table: &'a Table,
    /// Such as `defaults` or `blueprints[0].routes[2]`.
    pub path: Rc<str>,
}

impl<'a> Layer<'a> {
    /// A layer with its key path.
    pub fn new(table: &'a Table, path: &str) -> Self {
        Self {
            table,
            path: path.into(),
        }
    }
}

/// Reads one section through its layers.
#[derive(Clone, Debug)]
pub struct Reader<'a> {
    /// Nearest first.
    layers: Vec<Layer<'a>>,
    problems: &'a Problems,
    sources: &'a Sources,
    /// Where the section would stand, for problems with what is absent.
    path: Rc<str>,
    home: Option<At>,
}

impl<'a> Reader<'a> {
    /// A reader of one table.
    pub fn new(table: &'a Table, problems: &'a Problems, sources: &'a Sources, path: &str) -> Self {
        Self::layered(vec![Layer::new(table, path)], problems, sources)
    }

    /// A reader of several tables, nearest first.
    pub fn layered(layers: Vec<Layer<'a>>, problems: &'a Problems, sources: &'a Sources) -> Self {
        let nearest = layers.first();
        let path = nearest.map_or_else(|| Rc::from(""), |layer| Rc::clone(&layer.path));
        Self {
            home: nearest.map(|layer| layer.table.at),
            path,
            layers,
            problems,
            sources,
        }
    }

    /// The same reader with the layers of another one behind its own.
    #[must_use]
    pub fn over(&self, farther: &Self) -> Self {
        let mut reader = self.clone();
        reader.layers.extend(farther.layers.iter().cloned());
        reader
    }

    /// Whether any layer states the section.
    pub fn present(&self) -> bool {
        !self.layers.is_empty()
    }

    /// The layers, nearest first.
    pub fn layers(&self) -> &[Layer<'a>] {
        &self.layers
    }

    /// The place of the nearest table, or of what would hold it.
    pub fn place(&self) -> Option<At> {
        self.home
    }

    /// The files.
    pub fn sources(&self) -> &'a Sources {
        self.sources
    }

    /// The collection of problems.
    pub fn problems(&self) -> &'a Problems {
        self.problems
    }

    fn nearest(&self, key: &str) -> Option<(&'a Entry, &Layer<'a>)> {
        self.layers
            .iter()
            .find_map(|layer| Some((layer.table.entry(key)?, layer)))
    }

    /// Whether any layer has the key.
    pub fn has(&self, key: &str) -> bool {
        self.nearest(key).is_some()
    }

    /// The nearest value of the key.
    pub fn value(&self, key: &str) -> Option<&'a Value> {
        self.nearest(key).map(|(entry, _)| &entry.value)
    }

    /// The place of the nearest value of the key.
    pub fn at(&self, key: &str) -> Option<At> {
        self.value(key).map(|value| value.at)
    }

    /// Where the nearest value of the key stands, as `gate.toml:12`; `default` where nothing is said.
    pub fn whence(&self, key: &str) -> Box<str> {
        self.named_place(self.at(key))
    }

    /// Where the nearest table of the section stands, as `gate.toml:12`; `default` where there is none.
    pub fn stated_at(&self) -> Box<str> {
        self.named_place(self.layers.first().map(|layer| layer.table.at))
    }

    fn named_place(&self, at: Option<At>) -> Box<str> {
        at.map_or_else(
            || "default".to_owned(),
            |at| self.sources.line_of(at).to_string(),
        )
        .into()
    }

    /// The full path of the key in the layer that has it.
    pub fn key_path(&self, key: &str) -> String {
        self.nearest(key).map_or_else(
            || join(&self.path, key),
            |(_, layer)| join(&layer.path, key),
        )
    }

    /// The nearest value, typed; `None` when absent or refused. A refusal is a known problem afterwards.
    pub fn get<T: FromValue>(&self, key: &str) -> Option<T> {
        self.get_at(key).map(|(value, _)| value)
    }

    /// The nearest value, typed, with its place.
    pub fn get_at<T: FromValue>(&self, key: &str) -> Option<(T, At)> {
        let (entry, layer) = self.nearest(key)?;
        self.read(&entry.value, &layer.path, key)
    }

    fn read<T: FromValue>(&self, value: &Value, path: &str, key: &str) -> Option<(T, At)> {
        match T::from_value(value) {
            Ok(typed) => Some((typed, value.at)),
            Err(complaint) => {
                self.refuse(complaint, value.at, &join(path, key));
                None
            }
        }
    }

    fn refuse(&self, complaint: Complaint, at: At, key: &str) {
        // The tables' own places are headers, which hold nothing: their inner complaints have places of their own.
        if !self.problems.has_error_within(at)
            && !complaint
                .at
                .is_some_and(|at| self.problems.has_error_within(at))
        {
            self.problems.push(complaint.into_problem(at, key));
        }
    }

    /// The nearest value when it is not a table, such as `auth = "public"`; it hides farther tables.
    pub fn nearest_scalar(&self, key: &str) -> Option<&'a Value> {
        self.value(key).filter(|value| value.as_table().is_none())
    }

    /// The sub-section of all layers, up to the first layer that holds something else under the key.
    #[must_use]
    pub fn section(&self, key: &str) -> Reader<'a> {
        let mut layers = Vec::new();
        for layer in &self.layers {
            match layer.table.get(key).map(|value| &value.node) {
                None => {}
                Some(Node::Table(table)) => layers.push(Layer::new(table, &join(&layer.path, key))),
                Some(_) => break,
            }
        }
        let path: Rc<str> = self.key_path(key).into();
        let home = layers
            .first()
            .map(|layer| layer.table.at)
            .or(self.at(key))
            .or(self.home);
        Self {
            layers,
            problems: self.problems,
            sources: self.sources,
            path,
            home,
        }
    }

    fn inner(&self, table: &'a Table, path: &str) -> Reader<'a> {
        Self::new(table, self.problems, self.sources, path)
    }

    /// The tables of the nearest layer that has the key; lists replace one another, they do not merge.
    pub fn tables(&self, key: &str) -> Vec<Reader<'a>> {
        let Some((entry, layer)) = self.nearest(key) else {
            return Vec::new();
        };
        let path = join(&layer.path, key);
        let values = entry
            .value
            .as_array()
            .unwrap_or_default()
            .iter()
            .enumerate();
        values
            .filter_map(|(index, value)| {
                Some(self.inner(value.as_table()?, &format!("{path}[{index}]")))
            })
            .collect()
    }

    /// Named tables, `[upstreams.NAME]`, of all layers, each with the place of its name.
    pub fn named(&self, key: &str) -> Vec<(&'a str, At, Reader<'a>)> {
        let section = self.section(key);
        let entries = section.own_entries();
        entries
            .into_iter()
            .filter(|entry| entry.value.as_table().is_some())
            .map(|entry| {
                (
                    entry.key.as_str(),
                    entry.key_at,
                    section.section(&entry.key),
                )
            })
            .collect()
    }

    /// The free keys of a table, such as `headers.set`, merged key by key: name, place of the name, value.
    pub fn entries(&self, key: &str) -> Vec<&'a Entry> {
        self.section(key).own_entries()
    }

    /// What this section itself holds, merged key by key: nearest layer first, each key once.
    pub fn own_entries(&self) -> Vec<&'a Entry> {
        let mut seen = std::collections::HashSet::new();
        let entries = self.layers.iter().flat_map(|layer| &layer.table.entries);
        entries
            .filter(|entry| seen.insert(entry.key.as_str()))
            .collect()
    }

    /// A path, resolved against the folder of the file that names it.
    pub fn path(&self, key: &str) -> Option<PathBuf> {
        self.get::<FilePath>(key)
            .map(|path| path.resolve(self.sources))
    }

    /// A secret, resolved; failure is a problem that never shows content.
    pub fn secret(&self, key: &str) -> Option<Secret> {
        let (reference, at) = self.get_at::<SecretRef>(key)?;
        self.resolve(&reference, at, &self.key_path(key))
    }

    /// One secret or several, resolved; for keys that are being rotated.
    pub fn secrets(&self, key: &str) -> Vec<Secret> {
        let Some(value) = self.value(key) else {
            return Vec::new();
        };
        let path = self.key_path(key);
        let values = value.as_array().unwrap_or(std::slice::from_ref(value));
        values
            .iter()
            .filter_map(|value| match SecretRef::from_value(value) {
                Ok(reference) => self.resolve(&reference, value.at, &path),
                Err(complaint) => {
                    self.refuse(complaint, value.at, &path);
                    None
                }
            })
            .collect()
    }

    fn resolve(&self, reference: &SecretRef, at: At, key: &str) -> Option<Secret> {
        if let Some(path) = reference
            .file(self.sources)
            .filter(|path| readable_by_others(path))
        {
            let message = format!(
                "the secret file {} is readable by others",
                quoted(&path.to_string_lossy())
            );
            self.problems
                .push(Problem::warning(message).at(at).key(key).hint("chmod o-r"));
        }
        match reference.resolve(self.sources) {
            Ok(secret) => Some(secret),
            Err(complaint) => {
                self.problems.push(complaint.into_problem(at, key));
                None
            }
        }
    }

    /// Reports an error at the key's value, or at the section when the key is absent.
    pub fn error(&self, key: &str, message: impl Into<String>, hint: Option<String>) {
        self.report(Severity::Error, key, message.into(), hint);
    }

    /// Reports a warning at the key's value, or at the section when the key is absent.
    pub fn warn(&self, key: &str, message: impl Into<String>, hint: Option<String>) {
        self.report(Severity::Warning, key, message.into(), hint);
    }

    /// Reports that the key weakens the protection: "this weakens …".
    pub fn relax(&self, key: &str, message: impl Into<String>) {
        self.report(Severity::Relaxation, key, message.into(), None);
    }

    /// Reports an error at an exact place.
    pub fn error_at(&self, at: At, message: impl Into<String>, hint: Option<String>) {
        self.problems.push(Problem {
            hint,
            ..Problem::error(message).at(at).key(&*self.path)
        });
    }

    /// Reports a warning at an exact place.
    pub fn warn_at(&self, at: At, message: impl Into<String>, hint: Option<String>) {
        self.problems.push(Problem {
            hint,
            ..Problem::warning(message).at(at).key(&*self.path)
        });
    }

    /// Reports why the key's value was refused, for grammars that the policy reads itself.
    pub fn complain(&self, key: &str, complaint: Complaint) {
        match self.nearest(key) {
            Some((entry, layer)) => self.refuse(complaint, entry.value.at, &join(&layer.path, key)),
            None => self.error(key, complaint.message, complaint.hint),
        }
    }

    fn report(&self, severity: Severity, key: &str, message: String, hint: Option<String>) {
        let at = self.at(key).or(self.home);
        self.problems.push(Problem {
            hint,
            ..Problem::new(severity, message)
                .at(at)
                .key(self.key_path(key))
        });
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Layer, Reader};
    use crate::config::{Loaded, Node, Table, load_str};

    const TEXT: &str = "\
[defaults.cors]
origins = [\"a\", \"b\"]
max_age = \"10m\"
[defaults.headers]
set = { X-A = \"far\", X-B = \"far\" }
[defaults.auth]
roles = [\"reader\"]
[route.cors]
origins = []
[route.headers.set]
X-A = \"near\"
[blueprint]
auth = \"public\"
[route.auth]
step = true
[upstreams.a]
w = 1
[upstreams.b]
w = \"x\"
[[lists]]
n = 1
[[lists]]
n = 2
";

    fn table<'a>(loaded: &'a Loaded, key: &str) -> &'a Table {
        loaded
            .root
            .get(key)
            .and_then(|value| value.as_table())
            .expect("a table of the test file")
    }

    fn route(loaded: &Loaded) -> Reader<'_> {
        let layer = |key: &str| Layer::new(table(loaded, key), key);
        Reader::layered(
            vec![layer("route"), layer("blueprint"), layer("defaults")],
            &loaded.problems,
            &loaded.sources,
        )
    }

    #[test]
    fn the_nearest_layer_wins_key_by_key() {
        let loaded = load_str("t.toml", TEXT, &[]);
        let route = route(&loaded);
        let cors = route.section("cors");
        assert_eq!(
            cors.get::<Vec<String>>("origins"),
            Some(vec![]),
            "even an empty list replaces"
        );
        assert_eq!(
            cors.get::<Duration>("max_age"),
            Some(Duration::from_mins(10))
        );
        assert_eq!(
            (cors.key_path("origins"), cors.key_path("max_age")),
            ("route.cors.origins".into(), "defaults.cors.max_age".into())
        );
        assert!(cors.present() && !cors.has("methods") && cors.get::<String>("methods").is_none());
        let absent = route.section("nothing").section("deeper");
        assert!(!absent.present() && absent.place() == route.place());
        assert_eq!(absent.key_path("k"), "route.nothing.deeper.k");
        let set: Vec<_> = route
            .section("headers")
            .entries("set")
            .iter()
            .map(|e| (e.key.as_str(), e.value.as_str()))
            .collect();
        assert_eq!(set, [("X-A", Some("near")), ("X-B", Some("far"))]);
    }

    #[test]
    fn a_scalar_hides_the_tables_behind_it() {
        let loaded = load_str("t.toml", TEXT, &[]);
        let auth = route(&loaded).section("auth");
        assert!(
            auth.has("step") && !auth.has("roles"),
            "`public` of the blueprint stands between"
        );
        assert!(
            route(&loaded).nearest_scalar("auth").is_none(),
            "the route has a table"
        );
        let blueprint = Layer::new(table(&loaded, "blueprint"), "blueprint");
        let defaults = Layer::new(table(&loaded, "defaults"), "defaults");
        let reader = Reader::layered(vec![blueprint, defaults], &loaded.problems, &loaded.sources);
        assert_eq!(
            reader
                .nearest_scalar("auth")
                .and_then(|value| value.as_str()),
            Some("public")
        );
        assert!(!reader.section("auth").present());
    }

    #[test]
    fn what_is_refused_is_told_exactly_once() {
        let loaded = load_str("t.toml", TEXT, &[]);
        let root = Reader::new(&loaded.root, &loaded.problems, &loaded.sources, "");
        for _ in 0..3 {
            for (_, _, upstream) in root.named("upstreams") {
                upstream.get::<u32>("w");
            }
        }
        let names: Vec<_> = root
            .named("upstreams")
            .into_iter()
            .map(|(name, ..)| name)
            .collect();
        assert_eq!(names, ["a", "b"]);
        let problems = loaded.problems.into_sorted();
        let [problem] = problems.as_slice() else {
            panic!("{problems:?}")
        };
        assert_eq!(problem.key, "upstreams.b.w");
    }

    #[test]
    fn tables_have_numbered_paths_and_problems_have_places() {
        let loaded = load_str("t.toml", TEXT, &[]);
        let root = Reader::new(&loaded.root, &loaded.problems, &loaded.sources, "");
        let lists = root.tables("lists");
        assert_eq!(
            lists
                .iter()
                .filter_map(|list| list.get::<u16>("n"))
                .collect::<Vec<_>>(),
            [1, 2]
        );
        let last = lists.last().expect("two");
        last.error("n", "n must be odd", None);
        last.warn("absent", "should be set", None);
        let problems = loaded.problems.into_sorted();
        let told: Vec<_> = problems
            .iter()
            .map(|problem| {
                (
                    problem.key.as_str(),
                    problem.at.map(|at| loaded.sources.line_of(at).line),
                )
            })
            .collect();
        assert_eq!(
            told,
            [("lists[1].absent", Some(22)), ("lists[1].n", Some(23))]
        );
    }

    #[test]
    fn secrets_and_paths_through_the_reader() {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::write(folder.path().join("key"), "s3cret\n").expect("written");
        let file = folder.path().join("gate.toml");
        std::fs::write(&file, "key = { file = \"key\" }\nkeys = [{ file = \"key\" }, { file = \"no\" }]\npath = \"tls/a\"\n").expect("written");
        let loaded = crate::config::load(&file, &[]);
        let root = Reader::new(&loaded.root, &loaded.problems, &loaded.sources, "");
        assert_eq!(
            root.secret("key").map(|secret| secret.expose().to_vec()),
            Some(b"s3cret".to_vec())
        );
        assert_eq!(root.secrets("keys").len(), 1);
        assert_eq!(root.path("path"), Some(folder.path().join("tls/a")));
        assert!(loaded.problems.has_errors(), "the missing file");
        assert!(matches!(
            root.value("key").map(|value| &value.node),
            Some(Node::Table(_))
        ));
    }
}
