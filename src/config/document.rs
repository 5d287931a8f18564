//! TOML text to the tree of `value` (TOML 1.1), with the place of everything.
//!
//! The parser goes on after an error, so that several syntax errors are told at once.

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::place::{At, FileId, Sources};
use super::problem::{Problem, Problems};
use super::value::{Entry, Node, Table, Value, quoted};

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
        // A second value of a key is well-formed, so the caret alone says it.
        let label = if error.message() == "duplicate key" {
            ""
        } else {
            "not TOML from here"
        };
        problems.push(Problem::error(error.message()).at(at).label(label));
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
