//! The TOML tree with the place of every key and value, in the order of the file (TOML 1.0), and how typed values
//! come out of it.
//!
//! The tree is owned, so that a file can be merged with its includes and with overrides.

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::place::{At, FileId, Sources};
use super::problem::{Problem, Problems, Show};

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
            shown.extend(character.escape_unicode())
        } else {
            shown.push(character)
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

/// One value or a list of them, always a list here.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OneOrMany<T>(pub Vec<T>);

impl<T: FromValue> FromValue for OneOrMany<T> {
    fn from_value(value: &Value) -> Result<Self, Complaint> {
        match &value.node {
            Node::Array(_) => Vec::from_value(value).map(Self),
            _ => Ok(Self(vec![T::from_value(value)?])),
        }
    }
}

impl<T: FromValue> FromValue for Vec<T> {
    fn from_value(value: &Value) -> Result<Self, Complaint> {
        let values = value
            .as_array()
            .ok_or_else(|| value.expected("a list").hint("write it in brackets, `[…]`"))?;
        values
            .iter()
            .map(|value| T::from_value(value).map_err(|complaint| within(value.at, complaint)))
            .collect()
    }
}

fn within(at: At, complaint: Complaint) -> Complaint {
    Complaint {
        at: complaint.at.or(Some(at)),
        ..complaint
    }
}

impl FromValue for bool {
    fn from_value(value: &Value) -> Result<Self, Complaint> {
        match &value.node {
            Node::Bool(flag) => Ok(*flag),
            Node::String(text) if text == "true" || text == "false" => Err(value
                .expected("`true` or `false`")
                .hint("write it without quotes")),
            _ => Err(value.expected("`true` or `false`")),
        }
    }
}

impl FromValue for i64 {
    fn from_value(value: &Value) -> Result<Self, Complaint> {
        match value.node {
            Node::Integer(number) => Ok(number),
            _ => Err(value.expected("an integer")),
        }
    }
}

macro_rules! unsigned {
    ($($kind:ty),*) => {$(
        impl FromValue for $kind {
            fn from_value(value: &Value) -> Result<Self, Complaint> {
                let number = i64::from_value(value)?;
                Self::try_from(number).map_err(|_| {
                    let most = Self::try_from(i64::MAX).unwrap_or(Self::MAX);
                    Complaint::new(format!("`{number}` is not between 0 and {most}"))
                })
            }
        }
    )*};
}
unsigned!(u16, u32, u64, usize);

impl FromValue for f64 {
    fn from_value(value: &Value) -> Result<Self, Complaint> {
        let number = match value.node {
            Node::Float(number) => number,
            // Through the text: `as` is banned, and whole numbers of this size come out exact.
            Node::Integer(number) => number.to_string().parse().unwrap_or(Self::NAN),
            _ => return Err(value.expected("a number")),
        };
        if number.is_finite() {
            Ok(number)
        } else {
            Err(Complaint::new(format!("`{number}` is not a finite number")))
        }
    }
}

impl FromValue for String {
    fn from_value(value: &Value) -> Result<Self, Complaint> {
        value
            .as_str()
            .map(ToOwned::to_owned)
            .ok_or_else(|| value.expected("a string"))
    }
}

impl FromValue for http::HeaderName {
    fn from_value(value: &Value) -> Result<Self, Complaint> {
        let text = text_of(value, "a header name")?;
        Self::from_bytes(text.as_bytes()).map_err(|_| {
            Complaint::new(format!("{} is not a header name", quoted(text)))
                .hint("letters, digits and `-`, without a colon")
        })
    }
}

impl FromValue for http::HeaderValue {
    fn from_value(value: &Value) -> Result<Self, Complaint> {
        let text = text_of(value, "a header value")?;
        if text.trim() != text {
            return Err(Complaint::new(
                "a header value must not begin or end with white space",
            ));
        }
        Self::from_str(text).map_err(|_| {
            let bad = text
                .char_indices()
                .find(|(_, character)| !matches!(character, ' '..='~' | '\t'));
            let (start, character) = bad.unwrap_or((0, '?'));
            Complaint::new(format!(
                "a header value cannot hold {}",
                quoted(&character.to_string())
            ))
            .hint("printable ASCII only, on one line")
            .at(value.inside(start..start + character.len_utf8()))
        })
    }
}

impl FromValue for http::Method {
    fn from_value(value: &Value) -> Result<Self, Complaint> {
        let text = text_of(value, "an HTTP method")?;
        let complaint = || Complaint::new(format!("{} is not an HTTP method", quoted(text)));
        let upper = text.to_ascii_uppercase();
        let method =
            Self::from_bytes(upper.as_bytes()).map_err(|_| complaint().hint("such as `GET`"))?;
        if upper == text {
            Ok(method)
        } else {
            Err(complaint().hint(format!("methods are upper-case: `{upper}`")))
        }
    }
}

pub(crate) fn text_of<'a>(value: &'a Value, what: &str) -> Result<&'a str, Complaint> {
    value.as_str().ok_or_else(|| value.expected(what))
}

/// Reads the text of `file` as a TOML document; what cannot be read is reported and left out.
pub fn parse(file: FileId, sources: &Sources, problems: &Problems) -> Table {
    let (table, errors) = DeTable::parse_recoverable(sources.text(file));
    report(&errors, At::new(file, &(0..0)), problems);
    Conversion {
        file,
        base: 0,
        problems,
    }
    .table(table.into_inner(), 0..0)
}

/// Reads `text`, which stands at byte `base` of `file`, as one TOML value.
///
/// # Errors
/// The parser's message when it is not a TOML value.
pub fn parse_value(text: &str, file: FileId, base: usize) -> Result<Value, String> {
    let value = DeValue::parse(text).map_err(|error| error.message().to_owned())?;
    let problems = Problems::new();
    let value = Conversion {
        file,
        base,
        problems: &problems,
    }
    .value(value);
    match problems.into_sorted().pop() {
        Some(problem) => Err(problem.message),
        None => Ok(value),
    }
}

fn report(errors: &[toml::de::Error], start: At, problems: &Problems) {
    for error in errors {
        let at = error
            .span()
            .map_or(start, |span| At::new(start.file, &span));
        problems.push(
            Problem::error(error.message())
                .at(at)
                .label("not TOML from here"),
        );
    }
}

struct Conversion<'a> {
    file: FileId,
    base: usize,
    problems: &'a Problems,
}

impl Conversion<'_> {
    fn at(&self, span: &std::ops::Range<usize>) -> At {
        At::new(self.file, &(self.base + span.start..self.base + span.end))
    }

    /// The parser sorts by name; the places of the keys bring back the order of the file.
    fn table(&self, table: DeTable<'_>, span: std::ops::Range<usize>) -> Table {
        let mut entries: Vec<Entry> = table
            .into_iter()
            .map(|(key, value)| Entry {
                key_at: self.at(&key.span()),
                key: key.into_inner().into_owned(),
                value: self.value(value),
            })
            .collect();
        entries.sort_by_key(|entry| entry.key_at.start);
        Table {
            entries,
            at: self.at(&span),
        }
    }

    fn value(&self, value: Spanned<DeValue<'_>>) -> Value {
        let span = value.span();
        let at = self.at(&span);
        let node = match value.into_inner() {
            DeValue::String(text) => Node::String(text.into_owned()),
            DeValue::Integer(number) => Node::Integer(self.integer(&number, at)),
            DeValue::Float(number) => Node::Float(number.as_str().parse().unwrap_or(f64::NAN)),
            DeValue::Boolean(flag) => Node::Bool(flag),
            DeValue::Datetime(date) => Node::Datetime(date.to_string()),
            DeValue::Array(values) => {
                Node::Array(values.into_iter().map(|value| self.value(value)).collect())
            }
            DeValue::Table(table) => Node::Table(self.table(table, span)),
        };
        Value { node, at }
    }

    fn integer(&self, number: &toml::de::DeInteger<'_>, at: At) -> i64 {
        i64::from_str_radix(number.as_str(), number.radix()).unwrap_or_else(|_| {
            self.problems.push(
                Problem::error(format!(
                    "{} does not fit 64 bits",
                    quoted(&number.to_string())
                ))
                .at(at),
            );
            0
        })
    }
}
