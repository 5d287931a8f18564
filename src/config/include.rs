//! `include = ["blueprints/*.toml"]`: other files become part of this one.
//!
//! Tables add up, arrays of tables append; one key with two values is an error that names both places, since neither
//! order of files should decide. Includes do not nest.

use std::path::{Path, PathBuf};

use super::load::Loading;
use super::place::{At, FileId};
use super::problem::{Problem, Problems};
use super::scalars::OneOrMany;
use super::validate::join;
use super::value::{Complaint, FromValue, Node, Table, Value, quoted};

const KEY: &str = "include";

/// Reads what `root` includes and merges it into `root`.
pub(crate) fn merge_includes(loading: &mut Loading, root: &mut Table, file: FileId) {
    let Some(value) = root.get(KEY) else { return };
    let patterns = match OneOrMany::<Pattern>::from_value(value) {
        Ok(patterns) => patterns.0,
        Err(complaint) => {
            loading.problems.push(complaint.into_problem(value.at, KEY));
            return;
        }
    };
    let mut seen: Vec<PathBuf> = loading.files.iter().map(|path| real(path)).collect();
    for pattern in patterns {
        let folder = loading.sources.folder(file).to_owned();
        for path in pattern.expand(&folder, loading) {
            if !seen.contains(&real(&path)) {
                seen.push(real(&path));
                if let (_, Some(table)) = loading.read(&path, Some(pattern.at)) {
                    merge_file(root, table, loading);
                }
            }
        }
    }
}

/// One file under two names is one file.
fn real(path: &Path) -> PathBuf {
    path.canonicalize().unwrap_or_else(|_| path.to_owned())
}

fn merge_file(root: &mut Table, mut table: Table, loading: &Loading) {
    if let Some(entry) = table.entry(KEY) {
        let problem = Problem::error("an included file cannot include others")
            .at(entry.key_at)
            .key(KEY);
        loading
            .problems
            .push(problem.hint("name all files in the main file"));
    }
    table.entries.retain(|entry| entry.key != KEY);
    Merge {
        loading,
        problems: &loading.problems,
    }
    .tables(root, table, "");
}

struct Merge<'a> {
    loading: &'a Loading,
    problems: &'a Problems,
}

impl Merge<'_> {
    fn tables(&self, into: &mut Table, from: Table, path: &str) {
        for entry in from.entries {
            let path = join(path, &entry.key);
            match into.entry_mut(&entry.key) {
                None => into.entries.push(entry),
                Some(existing) => self.values(&mut existing.value, entry.value, &path),
            }
        }
    }

    fn values(&self, into: &mut Value, from: Value, path: &str) {
        match (&mut into.node, from.node) {
            (Node::Table(into), Node::Table(from)) => self.tables(into, from, path),
            (Node::Array(into), Node::Array(from)) if all_tables(into) && all_tables(&from) => {
                into.extend(from);
            }
            _ => self.conflict(path, into.at, from.at),
        }
    }

    fn conflict(&self, path: &str, first: At, second: At) {
        let place = self.loading.sources.line_of(first);
        let message = format!("`{path}` is set in two files, here and in {place}");
        self.problems.push(
            Problem::error(message)
                .at(second)
                .key(path)
                .hint("keep one of them"),
        );
    }
}

fn all_tables(values: &[Value]) -> bool {
    values.iter().all(|value| value.as_table().is_some())
}

/// A path whose last component may hold `*`.
struct Pattern {
    text: String,
    at: At,
}

impl FromValue for Pattern {
    fn from_value(value: &Value) -> Result<Self, Complaint> {
        let text = String::from_value(value)?;
        if text.is_empty() || text.contains('\0') {
            return Err(Complaint::new(format!("{} is not a path", quoted(&text))));
        }
        Ok(Self { text, at: value.at })
    }
}

impl Pattern {
    /// The files meant, sorted by name.
    fn expand(&self, folder: &Path, loading: &mut Loading) -> Vec<PathBuf> {
        let (parent, name) = self
            .text
            .rsplit_once('/')
            .map_or(("", self.text.as_str()), |(parent, name)| {
                (if parent.is_empty() { "/" } else { parent }, name)
            });
        if parent.contains('*') {
            let problem =
                Problem::error(format!("{} has `*` in a folder name", quoted(&self.text)));
            loading.problems.push(
                problem
                    .at(self.at)
                    .key(KEY)
                    .hint("only the file name may hold `*`"),
            );
            return Vec::new();
        }
        let parent = folder.join(parent);
        if !name.contains('*') {
            return self.single(parent.join(name), loading);
        }
        let listed = if parent.as_os_str().is_empty() {
            Path::new(".")
        } else {
            &parent
        };
        let mut paths: Vec<PathBuf> = names_in(listed)
            .into_iter()
            .filter(|candidate| matches(name, candidate))
            .map(|candidate| parent.join(candidate))
            .filter(|path| path.is_file())
            .collect();
        paths.sort();
        if paths.is_empty() {
            let problem = Problem::warning(format!("{} matches no file", quoted(&self.text)));
            loading.problems.push(problem.at(self.at).key(KEY));
        }
        loading.folders.push(listed.to_owned());
        paths
    }

    fn single(&self, path: PathBuf, loading: &Loading) -> Vec<PathBuf> {
        if path.is_file() {
            return vec![path];
        }
        let problem = Problem::error(format!("there is no file {}", quoted(&self.text)));
        loading.problems.push(problem.at(self.at).key(KEY));
        Vec::new()
    }
}

fn names_in(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .filter_map(|entry| entry.file_name().into_string().ok())
        .collect()
}

/// `*` stands for any run of characters; hidden files are meant only by a pattern that begins with a dot.
fn matches(pattern: &str, name: &str) -> bool {
    if name.starts_with('.') && !pattern.starts_with('.') {
        return false;
    }
    let mut parts = pattern.split('*');
    let first = parts.next().unwrap_or("");
    let Some(mut rest) = name.strip_prefix(first) else {
        return false;
    };
    let Some(last) = parts.next_back() else {
        return rest.is_empty();
    };
    for part in parts {
        match rest.find(part).and_then(|at| rest.get(at + part.len()..)) {
            Some(after) => rest = after,
            None => return false,
        }
    }
    rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::matches;

    #[test]
    fn stars() {
        assert!(
            matches("*.toml", "api.toml")
                && matches("a*b*c", "abc")
                && matches("a*", "a")
                && matches("x", "x")
        );
        assert!(matches("*", "anything") && matches(".*", ".hidden"));
        assert!(
            !matches("*.toml", ".hidden.toml"),
            "hidden files stay hidden"
        );
        assert!(!matches("a*a", "a") && !matches("x", "xy") && !matches("*.toml", "api.toml~"));
    }
}
