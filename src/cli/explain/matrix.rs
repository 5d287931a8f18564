//! `explain --matrix`: which role may do what on which route, as CSV (RFC 4180), and what differs from an expected one.
//!
//! It is computed from the compiled rules alone, so it can stand in a repository and be compared by a pipeline.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    process::ExitCode,
};

use super::super::{misused, print};
use crate::snapshot::{Route, compile::Compiled};

/// The columns before the roles.
const COLUMNS: [&str; 4] = ["blueprint", "route", "methods", "path"];
/// The column of callers without credentials.
const ANONYMOUS: &str = "anonymous";
/// The largest file that is compared with.
const MOST_BYTES: u64 = 16 * 1024 * 1024;

/// Prints the matrix, or what differs from the expected one: 0 nothing, 1 something, 2 a file that is none.
pub(super) fn run(compiled: &Compiled, expected: Option<&Path>) -> ExitCode {
    let table = Table::of(compiled);
    let Some(path) = expected else {
        return print(table.to_csv().as_bytes());
    };
    let expected = match read(path) {
        Ok(expected) => expected,
        Err(message) => return misused(&message),
    };
    let differences = table.differences(&expected);
    if differences.is_empty() {
        return ExitCode::SUCCESS;
    }
    let printed = print(format!("{}\n", differences.join("\n")).as_bytes());
    eprintln!(
        "error: {} in the matrix of `{}`",
        count(differences.len()),
        path.display()
    );
    if printed == ExitCode::SUCCESS {
        ExitCode::FAILURE
    } else {
        printed
    }
}

fn count(differences: usize) -> String {
    match differences {
        1 => "1 difference".to_owned(),
        more => format!("{more} differences"),
    }
}

/// Rows of one width, the names of the columns apart.
#[derive(Debug, PartialEq, Eq)]
struct Table {
    columns: Vec<String>,
    rows: Vec<Vec<String>>,
}

/// Whose cells stand in a column: those of callers without credentials, or of a role, which may have any name.
type Caller<'a> = Option<&'a str>;

/// A row by what it is of: the first columns, and which one of those that are alike there.
type Key = (Vec<String>, usize);

impl Table {
    fn of(compiled: &Compiled) -> Self {
        let routes = &compiled.snapshot.routes;
        let mut roles: BTreeSet<String> = compiled.roles().map(ToOwned::to_owned).collect();
        for route in routes {
            route.policies.name_roles(&mut roles);
        }
        let fixed = COLUMNS.iter().chain([&ANONYMOUS]);
        let columns = fixed.map(|name| (*name).to_owned());
        Self {
            columns: columns.chain(roles.iter().cloned()).collect(),
            rows: routes.iter().map(|route| row(route, &roles)).collect(),
        }
    }

    fn to_csv(&self) -> String {
        let mut out = String::new();
        for fields in std::iter::once(&self.columns).chain(&self.rows) {
            let fields: Vec<String> = fields.iter().map(|field| quoted(field)).collect();
            out.push_str(&fields.join(","));
            out.push('\n');
        }
        out
    }

    /// Reads CSV with the columns of a matrix.
    fn parse(text: &str) -> Result<Self, String> {
        let mut records = records(text)?.into_iter();
        let columns = records.next().unwrap_or_default();
        let fixed = COLUMNS.iter().chain([&ANONYMOUS]);
        if !fixed.eq(columns.iter().take(fixed_width())) {
            let names = COLUMNS.join(",");
            return Err(format!(
                "the first line does not begin with `{names},{ANONYMOUS}`"
            ));
        }
        let mut roles = BTreeSet::new();
        if let Some(twice) = columns
            .iter()
            .skip(fixed_width())
            .find(|role| !roles.insert(*role))
        {
            return Err(format!("the role `{twice}` has two columns"));
        }
        let rows: Vec<_> = records.collect();
        if let Some(at) = rows.iter().position(|row| row.len() != columns.len()) {
            return Err(format!(
                "record {} has {} fields, not {}",
                at + 2,
                rows.get(at).map_or(0, Vec::len),
                columns.len()
            ));
        }
        Ok(Self { columns, rows })
    }

    /// The names of the columns that are roles.
    fn roles(&self) -> impl Iterator<Item = &str> {
        let roles = self.columns.iter().skip(fixed_width());
        roles.map(String::as_str)
    }

    /// The cells of each row by whose they are.
    fn by_row(&self) -> BTreeMap<Key, BTreeMap<Caller<'_>, &str>> {
        let mut seen: BTreeMap<&[String], usize> = BTreeMap::new();
        let mut rows = BTreeMap::new();
        for row in &self.rows {
            let (what, cells) = row.split_at(COLUMNS.len().min(row.len()));
            let twin = seen.entry(what).or_default();
            let callers = std::iter::once(None).chain(self.roles().map(Some));
            let cells = callers.zip(cells.iter().map(String::as_str));
            rows.insert((what.to_vec(), *twin), cells.collect());
            *twin += 1;
        }
        rows
    }

    /// What is other than expected, a line each.
    fn differences(&self, expected: &Self) -> Vec<String> {
        let mut lines = Vec::new();
        let missing = |from: &Self, other: &Self| -> Vec<String> {
            let known: BTreeSet<&str> = other.roles().collect();
            let names = from.roles().filter(|name| !known.contains(name));
            names.map(ToOwned::to_owned).collect()
        };
        for role in missing(self, expected) {
            lines.push(format!("the role `{role}` is not in the expected matrix"));
        }
        for role in missing(expected, self) {
            lines.push(format!(
                "the role `{role}` is expected, and no rule knows it"
            ));
        }
        let (ours, theirs) = (self.by_row(), expected.by_row());
        for (key, cells) in &ours {
            let Some(wanted) = theirs.get(key) else {
                lines.push(format!("{}: is not in the expected matrix", shown(key)));
                continue;
            };
            for (caller, cell) in cells {
                if let Some(wanted) = wanted.get(caller).filter(|wanted| *wanted != cell) {
                    let (what, caller) = (shown(key), named(*caller));
                    lines.push(format!("{what}: {caller} is `{cell}`, expected `{wanted}`"));
                }
            }
        }
        let gone = theirs.keys().filter(|key| !ours.contains_key(*key));
        lines.extend(
            gone.map(|key| format!("{}: is expected, and there is no such route", shown(key))),
        );
        lines
    }
}

/// How many columns stand before those of the roles.
const fn fixed_width() -> usize {
    COLUMNS.len() + 1
}

/// A role of the name that callers without credentials go by is told from them.
fn named(caller: Caller<'_>) -> String {
    match caller {
        None => ANONYMOUS.to_owned(),
        Some(ANONYMOUS) => format!("the role `{ANONYMOUS}`"),
        Some(role) => role.to_owned(),
    }
}

fn row(route: &Route, roles: &BTreeSet<String>) -> Vec<String> {
    let outlook = |role| route.policies.outlook(role).to_string();
    let what = [
        &*route.facts.blueprint,
        &**route.facts.route,
        &*route.told.methods,
        &*route.facts.pattern,
    ];
    what.into_iter()
        .map(ToOwned::to_owned)
        .chain([outlook(None)])
        .chain(roles.iter().map(|role| outlook(Some(role))))
        .collect()
}

/// `api/user (GET PUT /users/{id})`
fn shown((what, _): &Key) -> String {
    match what.as_slice() {
        [blueprint, route, methods, path] => format!("{blueprint}/{route} ({methods} {path})"),
        other => other.join(","),
    }
}

fn read(path: &Path) -> Result<Table, String> {
    let failed = |error: &dyn std::fmt::Display| {
        format!("cannot use `{}` as a matrix: {error}", path.display())
    };
    let size = std::fs::metadata(path)
        .map_err(|error| failed(&error))?
        .len();
    if size > MOST_BYTES {
        return Err(failed(&format!("it has more than {MOST_BYTES} bytes")));
    }
    let text = std::fs::read_to_string(path).map_err(|error| failed(&error))?;
    Table::parse(&text).map_err(|error| failed(&error))
}

/// A field of CSV, in quotes where it needs them (RFC 4180 §2).
fn quoted(field: &str) -> String {
    if field.contains([',', '"', '\r', '\n']) {
        format!("\"{}\"", field.replace('"', "\"\""))
    } else {
        field.to_owned()
    }
}

/// The records of a CSV text. Lines may end in CRLF; empty ones at the end are none.
fn records(text: &str) -> Result<Vec<Vec<String>>, String> {
    let mut records = Vec::new();
    let mut record: Vec<String> = Vec::new();
    let mut letters = text
        .strip_prefix('\u{feff}')
        .unwrap_or(text)
        .chars()
        .peekable();
    while letters.peek().is_some() {
        let mut field = String::new();
        if letters.next_if_eq(&'"').is_some() {
            loop {
                match letters.next() {
                    None => return Err("a quotation mark is not closed".to_owned()),
                    Some('"') if letters.next_if_eq(&'"').is_none() => break,
                    Some(letter) => field.push(letter),
                }
            }
        }
        while let Some(letter) = letters.next_if(|letter| !matches!(letter, ',' | '\n')) {
            field.push(letter);
        }
        let ended = letters.next() != Some(',');
        if ended && field.ends_with('\r') {
            field.pop();
        }
        record.push(field);
        if ended {
            records.push(std::mem::take(&mut record));
        } else if letters.peek().is_none() {
            record.push(String::new());
            records.push(std::mem::take(&mut record));
        }
    }
    records.retain(|record| record.as_slice() != [""]);
    Ok(records)
}

#[cfg(test)]
mod tests {
    use super::{COLUMNS, Table, quoted, records};

    fn table(text: &str) -> Table {
        Table::parse(text).expect("a matrix")
    }

    const MATRIX: &str = "\
blueprint,route,methods,path,anonymous,admin,\"a,\"\"b\"\"\"
api,user,GET,/users/{id},deny,allow,deny
api,user,GET,/users/{id},deny,allow,deny
api,rest,*,/{*rest},allow,allow,allow
";

    #[test]
    fn what_is_written_is_read() {
        let read = table(MATRIX);
        assert_eq!(read.to_csv(), MATRIX);
        assert_eq!(read.columns.last().map(String::as_str), Some("a,\"b\""));
        assert_eq!(table(&MATRIX.replace('\n', "\r\n")), read);
        assert_eq!(table(MATRIX.trim_end()), read);
        for field in ["", "a", "a,b", "\"", "a\nb", " a "] {
            let line = format!("{},x\n", quoted(field));
            assert_eq!(
                records(&line),
                Ok(vec![vec![field.to_owned(), "x".to_owned()]])
            );
        }
    }

    #[test]
    fn what_is_no_matrix_is_refused() {
        for bad in [
            "",
            "a,b\n",
            "blueprint,route,methods,path\n",
            &format!("{MATRIX}x\n"),
            "\"a",
            &MATRIX.replace(",admin,", ",\"a,\"\"b\"\"\","),
        ] {
            assert!(Table::parse(bad).is_err(), "{bad}");
        }
        assert_eq!(COLUMNS.len(), 4);
    }

    #[test]
    fn a_role_of_any_name_is_no_other_column() {
        let named = |name: &str| MATRIX.replace(",admin,", &format!(",{name},"));
        for name in ["anonymous", "path"] {
            let ours = table(&named(name));
            assert!(ours.differences(&table(&named(name))).is_empty());
            let missing = format!("the role `{name}` is not in the expected matrix");
            assert!(ours.differences(&table(MATRIX)).contains(&missing));
        }
        let ours = named("anonymous");
        let of = |expected: &str| table(&ours).differences(&table(expected));
        assert_eq!(
            of(&ours.replacen("deny,allow,deny", "allow,allow,deny", 1)),
            ["api/user (GET /users/{id}): anonymous is `deny`, expected `allow`"]
        );
        assert_eq!(
            of(&ours.replacen("deny,allow,deny", "deny,deny,deny", 1)),
            ["api/user (GET /users/{id}): the role `anonymous` is `allow`, expected `deny`"]
        );
    }

    #[test]
    fn each_difference_is_one_line() {
        let ours = table(MATRIX);
        assert!(ours.differences(&table(MATRIX)).is_empty());
        let of = |expected: &str| ours.differences(&table(expected));
        assert_eq!(
            of(&MATRIX.replacen("deny,allow,deny", "deny,deny,deny", 1)),
            ["api/user (GET /users/{id}): admin is `allow`, expected `deny`"]
        );
        assert_eq!(
            of(&MATRIX.replace("api,rest,*,", "api,rest,PUT,")),
            [
                "api/rest (* /{*rest}): is not in the expected matrix",
                "api/rest (PUT /{*rest}): is expected, and there is no such route"
            ]
        );
        assert_eq!(
            of(&MATRIX.replace(",admin,", ",root,")),
            [
                "the role `admin` is not in the expected matrix",
                "the role `root` is expected, and no rule knows it"
            ]
        );
    }
}
