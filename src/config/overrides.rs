//! `--set a.b.c=VALUE`: one key of the file, set on the command line.
//!
//! Elements of lists are reached by their number from 0: `blueprints.0.prefix=/v2`.

use super::document::{parse, parse_value};
use super::load::Loading;
use super::place::{At, FileId, Sources};
use super::problem::{Problem, Problems};
use super::value::{Entry, Node, Table, Value, quoted};

const NAME: &str = "--set";

/// Sets one key; what cannot be set is a problem.
pub(crate) fn apply(loading: &mut Loading, root: &mut Table, text: &str) {
    let file = loading.sources.add(NAME, text, "");
    let whole = At::new(file, &(0..text.len()));
    let Some((key, start)) = split(text) else {
        let problem = Problem::error("an override has the form `KEY=VALUE`").at(whole);
        loading
            .problems
            .push(problem.hint("such as `--set server.https=127.0.0.1:9443`"));
        return;
    };
    let Some(path) = key_path(key, file) else {
        loading
            .problems
            .push(Problem::error(format!("{} is not a key path", quoted(key))).at(whole));
        return;
    };
    let value = value(text, start, file);
    if let Err(problem) = set(root, &path, value) {
        loading.problems.push(problem.key(key.trim()));
    }
}

/// The key and the first byte of the value: at the first `=` outside quotes.
fn split(text: &str) -> Option<(&str, usize)> {
    let mut quote = None;
    for (at, character) in text.char_indices() {
        match (quote, character) {
            (None, '=') => return Some((text.get(..at)?, at + 1)),
            (None, '"' | '\'') => quote = Some(character),
            (Some(open), _) if open == character => quote = None,
            _ => {}
        }
    }
    None
}

/// TOML's own parser reads the key, so that quoting works as in the file.
fn key_path(key: &str, file: FileId) -> Option<Vec<(String, At)>> {
    if key.contains('\n') {
        return None;
    }
    let mut sources = Sources::new();
    let scratch = sources.add(NAME, format!("{key}=0"), "");
    let problems = Problems::new();
    let mut table = parse(scratch, &sources, &problems);
    let mut path = Vec::new();
    loop {
        let entry = table
            .entries
            .pop()
            .filter(|_| table.entries.is_empty() && problems.is_empty())?;
        path.push((
            entry.key,
            At {
                file,
                ..entry.key_at
            },
        ));
        match entry.value.node {
            Node::Table(inner) => table = inner,
            Node::Integer(0) => return Some(path),
            _ => return None,
        }
    }
}

/// A TOML value, or else the text itself, as shells eat quotes.
fn value(text: &str, start: usize, file: FileId) -> Value {
    let written = text.get(start..).unwrap_or("");
    let start = start + written.len() - written.trim_start().len();
    let written = written.trim();
    parse_value(written, file, start).unwrap_or_else(|_| Value {
        node: Node::String(written.to_owned()),
        at: At::new(file, &(start..start + written.len())),
    })
}

fn set(table: &mut Table, path: &[(String, At)], value: Value) -> Result<(), Problem> {
    let Some(((key, key_at), rest)) = path.split_first() else {
        return Ok(());
    };
    if table.entry(key).is_none() {
        let node = Node::Table(Table::empty(*key_at));
        table.entries.push(Entry {
            key: key.clone(),
            key_at: *key_at,
            value: Value { node, at: *key_at },
        });
    }
    let Some(entry) = table.entry_mut(key) else {
        return Ok(());
    };
    if rest.is_empty() {
        entry.key_at = *key_at;
    }
    set_value(&mut entry.value, rest, value)
}

fn set_value(target: &mut Value, rest: &[(String, At)], value: Value) -> Result<(), Problem> {
    let Some(((key, key_at), after)) = rest.split_first() else {
        *target = value;
        return Ok(());
    };
    match &mut target.node {
        Node::Table(table) => set(table, rest, value),
        Node::Array(values) => {
            let count = values.len();
            let element = key
                .parse::<usize>()
                .ok()
                .and_then(|index| values.get_mut(index));
            let element = element.ok_or_else(|| {
                let message = format!(
                    "{} is not the number of an element of this list",
                    quoted(key)
                );
                Problem::error(message)
                    .at(*key_at)
                    .hint(format!("it has {count}, counted from 0"))
            })?;
            set_value(element, after, value)
        }
        // What stood there was no table: the override makes it one.
        _ => {
            target.node = Node::Table(Table::empty(*key_at));
            target.at = *key_at;
            set_value(target, rest, value)
        }
    }
}
