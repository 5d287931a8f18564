//! The declaration of the file: which sections it has, which keys they hold, what each key takes.
//!
//! One declaration drives the errors for unknown keys, `portcullis schema`, the defaults of `check -v` and the test that
//! the full example is complete. Everything is `const`, so that a policy declares its section beside its code.

use super::value::{Complaint, Value};

/// A table of the file.
#[derive(Debug)]
pub struct Section {
    /// The key under which it usually stands.
    pub name: &'static str,
    /// One sentence for people who write the file.
    pub doc: &'static str,
    /// What may stand in it.
    pub keys: &'static [Key],
}

impl Section {
    /// The declaration of one key.
    pub fn key(&self, name: &str) -> Option<&'static Key> {
        self.keys.iter().find(|key| key.name == name)
    }
}

/// A key of a section.
#[derive(Debug)]
pub struct Key {
    /// As it is written.
    pub name: &'static str,
    /// What it takes.
    pub kind: Kind,
    /// One sentence for people who write the file.
    pub doc: &'static str,
    /// TOML text of the default; empty when there is none.
    pub default: &'static str,
}

impl Key {
    /// A key with its name, what it takes, one sentence and the TOML text of its default.
    pub const fn new(
        name: &'static str,
        kind: Kind,
        doc: &'static str,
        default: &'static str,
    ) -> Self {
        Self {
            name,
            kind,
            doc,
            default,
        }
    }
}

/// What a key takes.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    /// `true` or `false`.
    Bool,
    /// A whole number within bounds, both included.
    Integer {
        /// Least accepted.
        min: i64,
        /// Greatest accepted.
        max: i64,
    },
    /// Any finite number.
    Number,
    /// Any text.
    String,
    /// `"30s"`
    Duration,
    /// `"64KiB"`
    Size,
    /// `"10.0.0.0/8"`
    Network,
    /// `"[::]:8443"` or `"unix:/path"`
    Listen,
    /// `"http://127.0.0.1:8000"`
    Server,
    /// `"https://idp.example/keys"`
    Url,
    /// `"https://app.example"`, `"https://*.app.example"` or `"*"`; read as `OriginPattern`.
    Origin,
    /// A field name of HTTP.
    HeaderName,
    /// A field value of HTTP.
    HeaderValue,
    /// `"GET"`
    Method,
    /// A path, relative to the folder of the file.
    Path,
    /// `{ env = "NAME" }` or `{ file = "path" }`
    Secret,
    /// The hash of a secret as text; the secret itself may have been typed in its place, so no message shows it.
    Hash,
    /// One of these words.
    Choice(&'static [&'static str]),
    /// A list, in brackets.
    List(&'static Kind),
    /// One value, or a list of them; read as `OneOrMany`.
    OneOrMany(&'static Kind),
    /// A table with declared keys.
    Table(&'static Section),
    /// A table with free keys.
    Map(&'static Kind),
    /// An array of tables, `[[blueprints]]`.
    Tables(&'static Section),
    /// Tables by name, `[upstreams.NAME]`.
    NamedTables(&'static Section),
    /// The first of these that takes the value.
    Either(&'static [Kind]),
    /// A value with a grammar of its own.
    Checked(fn(&Value) -> Result<(), Complaint>),
}

impl Kind {
    /// What is accepted, for "expected …".
    pub fn describe(&self) -> String {
        match self {
            Self::Bool => "`true` or `false`".into(),
            Self::Integer { .. } => "an integer".into(),
            Self::Number => "a number".into(),
            Self::String | Self::Hash | Self::Checked(_) => "a string".into(),
            Self::Duration => "a duration such as `30s`".into(),
            Self::Size => "a size such as `64KiB`".into(),
            Self::Network => "a network such as `10.0.0.0/8`".into(),
            Self::Listen => "an address to listen on".into(),
            Self::Server => "a server address such as `http://127.0.0.1:8000`".into(),
            Self::Url => "an https address".into(),
            Self::Origin => "an origin such as `https://app.example`".into(),
            Self::HeaderName => "a header name".into(),
            Self::HeaderValue => "a header value".into(),
            Self::Method => "an HTTP method".into(),
            Self::Path => "a path".into(),
            Self::Secret => "a secret as `{ env = \"NAME\" }` or `{ file = \"path\" }`".into(),
            Self::Choice(words) => one_of(words.iter().map(|word| format!("`{word}`"))),
            Self::List(_) => "a list".into(),
            Self::OneOrMany(kind) => format!("{} or a list", kind.describe()),
            Self::Table(_) | Self::Map(_) | Self::NamedTables(_) => "a table".into(),
            Self::Tables(_) => "an array of tables".into(),
            Self::Either(kinds) => one_of(kinds.iter().map(Self::describe)),
        }
    }
}

/// `a, b or c`
fn one_of(words: impl Iterator<Item = String>) -> String {
    let words: Vec<String> = words.collect();
    match words.split_last() {
        Some((last, rest)) if !rest.is_empty() => format!("{} or {last}", rest.join(", ")),
        _ => words.concat(),
    }
}

/// Calls `visit` with the path and declaration of every key, sections before what stands in them.
///
/// Array elements are written `[]`, names of named tables and maps `NAME`: `blueprints[].cors.origins`.
pub fn walk_keys(spec: &'static Section, visit: &mut dyn FnMut(&str, &'static Key)) {
    walk_section("", spec, 0, visit);
}

/// A section that contains itself ends here.
const DEEPEST: usize = 16;

fn walk_section(
    path: &str,
    spec: &'static Section,
    depth: usize,
    visit: &mut dyn FnMut(&str, &'static Key),
) {
    if depth > DEEPEST {
        return;
    }
    for key in spec.keys {
        let path = if path.is_empty() {
            key.name.to_owned()
        } else {
            format!("{path}.{}", key.name)
        };
        visit(&path, key);
        walk_kind(&path, &key.kind, depth, visit);
    }
}

fn walk_kind(
    path: &str,
    kind: &'static Kind,
    depth: usize,
    visit: &mut dyn FnMut(&str, &'static Key),
) {
    match kind {
        Kind::Table(section) => walk_section(path, section, depth + 1, visit),
        Kind::Tables(section) => walk_section(&format!("{path}[]"), section, depth + 1, visit),
        Kind::NamedTables(section) => {
            walk_section(&format!("{path}.NAME"), section, depth + 1, visit);
        }
        Kind::Map(kind) => walk_kind(&format!("{path}.NAME"), kind, depth + 1, visit),
        Kind::List(kind) => walk_kind(&format!("{path}[]"), kind, depth + 1, visit),
        Kind::OneOrMany(kind) => walk_kind(path, kind, depth + 1, visit),
        Kind::Either(kinds) => kinds
            .iter()
            .for_each(|kind| walk_kind(path, kind, depth + 1, visit)),
        _ => {}
    }
}
