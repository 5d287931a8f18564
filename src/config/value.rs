//! The TOML tree with the place of every key and value, in the order of the file, and the trait by which typed values
//! come out of it.
//!
//! The tree is owned, so that a file can be merged with its includes and with overrides.

use super::place::At;
use super::problem::{Problem, Show};

/// A value and where it stands.
#[derive(Clone, Debug)]
pub struct Value {
    /// What it is.
    pub node: Node,
    /// The bytes of the value, quotes included; for a table its header.
    pub at: At,
}

/// The TOML types.
#[derive(Clone, Debug)]
pub enum Node {
    /// `true`, `false`.
    Bool(bool),
    /// A whole number.
    Integer(i64),
    /// A number with a point, `inf` and `nan` included.
    Float(f64),
    /// Text.
    String(String),
    /// A date or time, as it was written.
    Datetime(String),
    /// A list, or an array of tables.
    Array(Vec<Value>),
    /// A table, inline or with a header.
    Table(Table),
}

/// A table in the order of the file.
#[derive(Clone, Debug)]
pub struct Table {
    /// Its keys and values.
    pub entries: Vec<Entry>,
    /// Its header, its inline text, or the start of the file.
    pub at: At,
}

/// One line of a table.
#[derive(Clone, Debug)]
pub struct Entry {
    /// The key, unquoted.
    pub key: String,
    /// Where the key stands.
    pub key_at: At,
    /// What it is set to.
    pub value: Value,
}

impl Table {
    /// A table without entries.
    pub fn empty(at: At) -> Self {
        Self {
            entries: Vec::new(),
            at,
        }
    }

    /// The value of a key.
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.entry(key).map(|entry| &entry.value)
    }

    /// The entry of a key, for the place of the key itself.
    pub fn entry(&self, key: &str) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.key == key)
    }

    pub(crate) fn entry_mut(&mut self, key: &str) -> Option<&mut Entry> {
        self.entries.iter_mut().find(|entry| entry.key == key)
    }
}

impl Value {
    /// The text of a string.
    pub fn as_str(&self) -> Option<&str> {
        if let Node::String(text) = &self.node {
            Some(text)
        } else {
            None
        }
    }

    /// The table, when it is one.
    pub fn as_table(&self) -> Option<&Table> {
        if let Node::Table(table) = &self.node {
            Some(table)
        } else {
            None
        }
    }

    /// The elements of an array.
    pub fn as_array(&self) -> Option<&[Value]> {
        if let Node::Array(values) = &self.node {
            Some(values)
        } else {
            None
        }
    }

    /// The type as operators call it, with its article.
    pub fn type_name(&self) -> &'static str {
        match self.node {
            Node::Bool(_) => "a boolean",
            Node::Integer(_) => "an integer",
            Node::Float(_) => "a float",
            Node::String(_) => "a string",
            Node::Datetime(_) => "a date",
            Node::Array(_) => "a list",
            Node::Table(_) => "a table",
        }
    }

    /// The place of a byte range of the string's content, for a caret under one word of it.
    ///
    /// A string with escapes or in triple quotes answers its whole place, since offsets do not map there.
    pub fn inside(&self, range: std::ops::Range<usize>) -> At {
        let length = self.as_str().map_or(0, str::len);
        let written = usize::try_from(self.at.end.saturating_sub(self.at.start)).unwrap_or(0);
        let (true, quote @ (0 | 2)) = (range.end <= length, written.saturating_sub(length)) else {
            return self.at;
        };
        let (Ok(start), Ok(end)) = (
            u32::try_from(range.start + quote / 2),
            u32::try_from(range.end + quote / 2),
        ) else {
            return self.at;
        };
        At {
            start: self.at.start + start,
            end: self.at.start + end,
            ..self.at
        }
    }

    /// The complaint that this has the wrong type; strings are quoted, other content is named by its type.
    pub fn expected(&self, what: &str) -> Complaint {
        let found = match &self.node {
            Node::String(text) => format!("the string {}", quoted(text)),
            Node::Integer(number) => format!("the integer `{number}`"),
            Node::Float(number) => format!("the float `{number}`"),
            Node::Bool(flag) => format!("the boolean `{flag}`"),
            Node::Datetime(text) => format!("the date {}", quoted(text)),
            Node::Array(_) | Node::Table(_) => self.type_name().to_owned(),
        };
        Complaint::new(format!("expected {what}, found {found}")).at(self.at)
    }
}

/// A value in backticks for a message: control characters escaped, cut after 80 characters.
pub fn quoted(text: &str) -> String {
    let mut shown = String::from("`");
    for character in text.chars().take(80) {
        if character.is_control() {
            shown.extend(character.escape_unicode());
        } else {
            shown.push(character);
        }
    }
    if text.chars().nth(80).is_some() {
        shown.push('…');
    }
    shown.push('`');
    shown
}

/// Why a value was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Complaint {
    /// Lower-case sentence without a full stop, bad value in backticks.
    pub message: String,
    /// What to write instead.
    pub hint: Option<String>,
    /// The exact place, when it is narrower than the value.
    pub at: Option<At>,
    /// Whether the line may be shown.
    pub show: Show,
}

impl Complaint {
    /// A complaint about the whole value.
    pub fn new(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            hint: None,
            at: None,
            show: Show::Source,
        }
    }

    /// The same complaint with a hint.
    #[must_use]
    pub fn hint(self, hint: impl Into<String>) -> Self {
        Self {
            hint: Some(hint.into()),
            ..self
        }
    }

    /// The same complaint at a narrower place.
    #[must_use]
    pub fn at(self, at: At) -> Self {
        Self {
            at: Some(at),
            ..self
        }
    }

    /// The same complaint, without showing the line, which may hold a secret.
    #[must_use]
    pub fn concealed(self) -> Self {
        Self {
            show: Show::PlaceOnly,
            ..self
        }
    }

    /// The problem it is at a value with a key path.
    pub fn into_problem(self, value_at: At, key: &str) -> Problem {
        Problem {
            hint: self.hint,
            show: self.show,
            ..Problem::error(self.message)
                .at(self.at.unwrap_or(value_at))
                .key(key)
        }
    }
}

/// A type that a TOML value can be read as.
pub trait FromValue: Sized {
    /// Reads the value.
    ///
    /// # Errors
    /// The complaint says what is accepted; it never holds a secret.
    fn from_value(value: &Value) -> Result<Self, Complaint>;
}

pub(crate) fn text_of<'a>(value: &'a Value, what: &str) -> Result<&'a str, Complaint> {
    value.as_str().ok_or_else(|| value.expected(what))
}

/// Reads a TOML value as `T`, for the tests of the grammars.
#[cfg(test)]
pub(crate) fn read<T: FromValue>(toml: &str) -> Result<T, Complaint> {
    let loaded = super::load::load_str("t.toml", &format!("v = {toml}"), &[]);
    assert!(!loaded.problems.has_errors(), "not TOML: {toml}");
    T::from_value(loaded.root.get("v").expect("the key was just written"))
}

#[cfg(test)]
mod tests {
    use super::{Node, quoted};
    use crate::config::load_str;

    #[test]
    fn the_tree_keeps_the_order_and_the_places() {
        let text = "z = 1\na = \"x\"\n[t.sub]\nk = [1, 2]\n";
        let loaded = load_str("t.toml", text, &[]);
        let keys: Vec<_> = loaded
            .root
            .entries
            .iter()
            .map(|entry| entry.key.as_str())
            .collect();
        assert_eq!(keys, ["z", "a", "t"]);
        let value = loaded.root.get("a").expect("set");
        assert_eq!(loaded.sources.slice(value.at), "\"x\"");
        let sub = loaded
            .root
            .get("t")
            .and_then(|t| t.as_table()?.get("sub"))
            .expect("set");
        assert_eq!(loaded.sources.line_of(sub.at).to_string(), "t.toml:3");
        let list = sub
            .as_table()
            .and_then(|table| table.get("k"))
            .expect("set");
        assert_eq!(loaded.sources.slice(list.at), "[1, 2]");
    }

    #[test]
    fn a_place_inside_a_string_is_exact_or_the_whole() {
        let loaded = load_str(
            "t.toml",
            "a = \"script-src self\"\nb = \"\\u0041 self\"\n",
            &[],
        );
        let exact = loaded.root.get("a").expect("set").inside(11..15);
        assert_eq!(loaded.sources.slice(exact), "self");
        let escaped = loaded.root.get("b").expect("set");
        assert_eq!(escaped.inside(2..6), escaped.at);
        assert_eq!(escaped.inside(2..600), escaped.at);
    }

    #[test]
    fn integers_of_any_radix_and_none_too_large() {
        let loaded = load_str("t.toml", "a = 0xff\nb = 1_000\nc = -0\n", &[]);
        let number = |key| match loaded.root.get(key).map(|value| &value.node) {
            Some(Node::Integer(number)) => *number,
            other => panic!("{other:?}"),
        };
        assert_eq!((number("a"), number("b"), number("c")), (255, 1000, 0));
        let loaded = load_str("t.toml", "a = 99999999999999999999\n", &[]);
        assert!(loaded.problems.has_errors());
    }

    #[test]
    fn quoting_escapes_and_cuts() {
        assert_eq!(quoted("a\u{1b}[31m"), "`a\\u{1b}[31m`");
        assert_eq!(quoted(&"x".repeat(1000)).chars().count(), 83);
    }
}
