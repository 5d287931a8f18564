//! Holds a file against its declaration: unknown keys, wrong types and bad values, all at once.
//!
//! It looks at one value at a time; what needs two (credentials with `*`, a missing upstream) is found by whoever
//! compiles the section.

use std::time::Duration;

use super::address::{ListenAddr, ServerUrl};
use super::network::{Cidr, OriginPattern};
use super::place::At;
use super::problem::{Problem, Problems, Show};
use super::secret::{FilePath, SecretRef};
use super::section::{Kind, Section};
use super::units::Bytes;
use super::url::HttpsUrl;
use super::value::{Complaint, FromValue, Node, Table, Value, quoted, text_of};

/// Reports everything in `root` that `spec` does not declare or accept.
pub fn validate(root: &Table, spec: &'static Section, problems: &Problems) {
    section(root, spec, "", problems);
}

/// `a.b`, with quotes where TOML needs them.
pub(crate) fn join(path: &str, key: &str) -> String {
    let bare = !key.is_empty()
        && key
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'));
    let dot = if path.is_empty() { "" } else { "." };
    if bare {
        format!("{path}{dot}{key}")
    } else {
        format!("{path}{dot}{key:?}")
    }
}

fn section(table: &Table, spec: &'static Section, path: &str, problems: &Problems) {
    for entry in &table.entries {
        let inner = join(path, &entry.key);
        match spec.key(&entry.key) {
            Some(key) => check(&entry.value, &key.kind, &inner, problems),
            None => problems.push(unknown_key(&entry.key, entry.key_at, spec, path)),
        }
    }
}

fn unknown_key(key: &str, at: At, spec: &'static Section, path: &str) -> Problem {
    let names = || spec.keys.iter().map(|key| key.name);
    let inside = if path.is_empty() {
        "not a key of the file".to_owned()
    } else {
        format!("not a key of `{path}`")
    };
    let problem = Problem::error(format!("unknown key {}", quoted(key)))
        .at(at)
        .label(inside)
        .key(join(path, key));
    let meant = nearest(key, names());
    let secret = meant
        .and_then(|name| spec.key(name))
        .is_some_and(|key| holds_secret(&key.kind, 0));
    let show = if secret || sounds_secret(key) {
        Show::PlaceOnly
    } else {
        Show::Source
    };
    let hint = match meant {
        Some(name) => format!("did you mean `{name}`?"),
        None => format!("known here: {}", names().collect::<Vec<_>>().join(", ")),
    };
    Problem {
        show,
        ..problem.hint(hint)
    }
}

/// A mistyped or misplaced key may be followed by what must not be shown.
fn sounds_secret(key: &str) -> bool {
    let key = key.to_ascii_lowercase();
    ["secret", "password", "passwd", "token", "private"]
        .iter()
        .any(|word| key.contains(word))
}

/// Whether the value of such a key may be a secret that was typed into the file.
fn holds_secret(kind: &Kind, depth: usize) -> bool {
    match kind {
        Kind::Secret => true,
        Kind::List(kind) | Kind::OneOrMany(kind) | Kind::Map(kind) => {
            depth < 8 && holds_secret(kind, depth + 1)
        }
        Kind::Either(kinds) => depth < 8 && kinds.iter().any(|kind| holds_secret(kind, depth + 1)),
        _ => false,
    }
}

/// "expected …, found …" that shows nothing where a secret may stand.
fn unexpected(value: &Value, kind: &Kind, what: &str) -> Complaint {
    if holds_secret(kind, 0) {
        return Complaint::new(format!("expected {what}, found {}", value.type_name())).concealed();
    }
    value.expected(what)
}

/// The known word that was probably meant.
pub(crate) fn nearest<'a>(word: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    // The distance is quadratic in the length, and nobody means a short word by a very long one.
    if word.len() > 64 {
        return None;
    }
    let folded = word.to_ascii_lowercase().replace('-', "_");
    known
        .map(|name| {
            (
                strsim::damerau_levenshtein(&folded, &name.to_ascii_lowercase().replace('-', "_")),
                name,
            )
        })
        .filter(|(distance, name)| {
            *distance <= (name.len().max(word.len()) / 3).max(1) && *distance < name.len()
        })
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, name)| name)
}

fn check(value: &Value, kind: &'static Kind, path: &str, problems: &Problems) {
    match kind {
        Kind::Table(_) | Kind::Map(_) | Kind::NamedTables(_) => match &value.node {
            Node::Table(inner) => table(inner, kind, path, problems),
            _ => problems.push(unexpected(value, kind, "a table").into_problem(value.at, path)),
        },
        Kind::Tables(_) | Kind::List(_) => match &value.node {
            Node::Array(values) => elements(values, kind, path, problems),
            _ => problems.push(not_a_list(value, kind).into_problem(value.at, path)),
        },
        Kind::OneOrMany(one) => match &value.node {
            Node::Array(values) => elements(values, kind, path, problems),
            _ => check(value, one, path, problems),
        },
        Kind::Either(kinds) => either(value, kinds, path, problems),
        _ => {
            if let Err(complaint) = scalar(value, kind) {
                problems.push(complaint.into_problem(value.at, path));
            }
        }
    }
}

fn table(table: &Table, kind: &'static Kind, path: &str, problems: &Problems) {
    match kind {
        Kind::Table(spec) => section(table, spec, path, problems),
        Kind::NamedTables(spec) => named(table, spec, path, problems),
        Kind::Map(kind) => {
            for entry in &table.entries {
                check(&entry.value, kind, &join(path, &entry.key), problems);
            }
        }
        _ => {}
    }
}

fn elements(values: &[Value], kind: &'static Kind, path: &str, problems: &Problems) {
    for (index, value) in values.iter().enumerate() {
        let path = format!("{path}[{index}]");
        match (kind, &value.node) {
            (Kind::Tables(spec), Node::Table(table)) => section(table, spec, &path, problems),
            (Kind::Tables(_), _) => {
                problems.push(value.expected("a table").into_problem(value.at, &path))
            }
            (Kind::List(kind) | Kind::OneOrMany(kind), _) => check(value, kind, &path, problems),
            _ => {}
        }
    }
}

fn not_a_list(value: &Value, kind: &Kind) -> Complaint {
    let complaint = unexpected(value, kind, "a list");
    match value.node {
        Node::Table(_) => complaint.hint("a table of a list is written with two brackets: `[[…]]`"),
        _ => complaint.hint("write it in brackets, `[…]`"),
    }
}

/// Names end up in metric labels, log lines and file names of state, so they are kept plain.
fn named(table: &Table, spec: &'static Section, path: &str, problems: &Problems) {
    for entry in &table.entries {
        let inner = join(path, &entry.key);
        let plain = (1..=64).contains(&entry.key.len())
            && entry
                .key
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'));
        if !plain {
            let complaint = Complaint::new(format!("{} cannot be a name", quoted(&entry.key)))
                .hint("1 to 64 letters, digits, `-`, `_` or `.`");
            problems.push(complaint.into_problem(entry.key_at, &inner));
        }
        match &entry.value.node {
            Node::Table(table) => section(table, spec, &inner, problems),
            _ => problems.push(
                entry
                    .value
                    .expected("a table")
                    .into_problem(entry.value.at, &inner),
            ),
        }
    }
}

/// The first kind that takes the value; otherwise the words of the only kind of that shape, or what all would take.
fn either(value: &Value, kinds: &'static [Kind], path: &str, problems: &Problems) {
    let mut fitting = Vec::new();
    for kind in kinds.iter().filter(|kind| fits(value, kind)) {
        let attempt = Problems::new();
        check(value, kind, path, &attempt);
        if !attempt.has_errors() {
            return;
        }
        fitting.push(attempt);
    }
    if fitting.len() == 1 {
        fitting.into_iter().for_each(|only| problems.append(only));
        return;
    }
    let kind = Kind::Either(kinds);
    problems.push(unexpected(value, &kind, &kind.describe()).into_problem(value.at, path));
}

fn fits(value: &Value, kind: &'static Kind) -> bool {
    match kind {
        Kind::Either(kinds) => kinds.iter().any(|kind| fits(value, kind)),
        Kind::OneOrMany(kind) => matches!(value.node, Node::Array(_)) || fits(value, kind),
        Kind::Checked(_) => true,
        // A bare string is what people write for a secret first; the refusal explains the form.
        Kind::Secret => matches!(value.node, Node::Table(_) | Node::String(_)),
        Kind::Table(_) | Kind::Map(_) | Kind::NamedTables(_) => {
            matches!(value.node, Node::Table(_))
        }
        Kind::List(_) | Kind::Tables(_) => matches!(value.node, Node::Array(_)),
        Kind::Bool => matches!(value.node, Node::Bool(_)),
        Kind::Integer { .. } => matches!(value.node, Node::Integer(_)),
        Kind::Number => matches!(value.node, Node::Integer(_) | Node::Float(_)),
        _ => matches!(value.node, Node::String(_)),
    }
}

fn scalar(value: &Value, kind: &'static Kind) -> Result<(), Complaint> {
    match kind {
        Kind::Bool => accept::<bool>(value),
        Kind::Integer { min, max } => bounded(value, *min, *max),
        Kind::Number => accept::<f64>(value),
        Kind::String => accept::<String>(value),
        Kind::Duration => accept::<Duration>(value),
        Kind::Size => accept::<Bytes>(value),
        Kind::Network => accept::<Cidr>(value),
        Kind::Listen => accept::<ListenAddr>(value),
        Kind::Server => accept::<ServerUrl>(value),
        Kind::Url => accept::<HttpsUrl>(value),
        Kind::Origin => accept::<OriginPattern>(value),
        Kind::HeaderName => accept::<http::HeaderName>(value),
        Kind::HeaderValue => accept::<http::HeaderValue>(value),
        Kind::Method => accept::<http::Method>(value),
        Kind::Path => accept::<FilePath>(value),
        Kind::Secret => accept::<SecretRef>(value),
        Kind::Choice(words) => choice(value, words, kind),
        Kind::Checked(check) => check(value),
        Kind::List(_)
        | Kind::OneOrMany(_)
        | Kind::Table(_)
        | Kind::Map(_)
        | Kind::Tables(_)
        | Kind::NamedTables(_)
        | Kind::Either(_) => Ok(()),
    }
}

fn accept<T: FromValue>(value: &Value) -> Result<(), Complaint> {
    T::from_value(value).map(drop)
}

fn bounded(value: &Value, min: i64, max: i64) -> Result<(), Complaint> {
    let number = i64::from_value(value)?;
    if (min..=max).contains(&number) {
        return Ok(());
    }
    Err(Complaint::new(match (min, max) {
        (_, i64::MAX) => format!("`{number}` is less than {min}"),
        _ => format!("`{number}` is not between {min} and {max}"),
    }))
}

fn choice(value: &Value, words: &[&'static str], kind: &Kind) -> Result<(), Complaint> {
    let text = text_of(value, &kind.describe())?;
    if words.contains(&text) {
        return Ok(());
    }
    let complaint = value.expected(&kind.describe());
    Err(match nearest(text, words.iter().copied()) {
        Some(word) => complaint.hint(format!("did you mean `{word}`?")),
        None => complaint,
    })
}
