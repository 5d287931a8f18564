//! Tokens and subjects that no longer count before their time: a list in a file, kept by the operator. For `issuer`.
//!
//! A line is `jti:VALUE` (RFC 7519 §4.1.7), `sub:VALUE`, or `sub:VALUE before:SECONDS` for the tokens of a subject that
//! were issued before that Unix second; `#` begins a line that says nothing. A file with any other line is refused whole:
//! a slip that is taken for part of a name revokes nobody. A name that is more than one word of ASCII stands in quotes.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwap;
use thiserror::Error;

use super::claims::{self, BadClaim, Claims};

/// The largest file, in bytes.
const MAX_BYTES: u64 = 16 << 20;
/// The most lines that name something.
pub const MAX_ENTRIES: usize = 200_000;

/// The claims by which tokens are looked up.
pub const LOOKED_UP: [&str; 3] = ["jti", "sub", "iat"];

/// Why a list cannot be used. For the operator.
#[derive(Debug, Error)]
pub enum RevocationError {
    /// The file cannot be read.
    #[error("cannot read `{path}`: {cause}")]
    File {
        /// The file as it was named.
        path: PathBuf,
        /// What the system said.
        cause: std::io::Error,
    },
    /// The file is larger than 16 MiB.
    #[error("`{0}` is larger than 16 MiB")]
    TooLarge(PathBuf),
    /// More entries than are held.
    #[error("`{0}` names more than {MAX_ENTRIES} tokens and subjects")]
    TooMany(PathBuf),
    /// A line that is none of the known ones.
    #[error(
        "line {line} of `{path}` is not understood: `jti:VALUE`, `sub:VALUE` or `sub:VALUE before:SECONDS` is expected, with a value in quotes (as in JSON) that has blanks, `#` or other than ASCII signs"
    )]
    Line {
        /// The file as it was named.
        path: PathBuf,
        /// The number of the line, from 1.
        line: usize,
    },
}

/// What the file says.
#[derive(Debug, Default, PartialEq, Eq)]
struct List {
    tokens: HashSet<Box<str>>,
    /// By subject: tokens issued before this second are refused.
    subjects: HashMap<Box<str>, u64>,
}

/// The list in force, with the last good content of its file.
#[derive(Debug)]
pub struct Revocations {
    path: PathBuf,
    list: ArcSwap<List>,
    /// Rises with every change, after the list has changed.
    version: AtomicU64,
}

impl Revocations {
    /// Reads the file.
    ///
    /// # Errors
    /// See [`RevocationError`].
    pub fn open(path: &Path) -> Result<Self, RevocationError> {
        Ok(Self {
            path: path.to_owned(),
            list: ArcSwap::from_pointee(read(path)?),
            version: AtomicU64::new(0),
        })
    }

    /// Reads the file again; true when it says something else now.
    ///
    /// # Errors
    /// See [`RevocationError`]; the list stays as it was.
    pub fn reload(&self) -> Result<bool, RevocationError> {
        let list = read(&self.path)?;
        if **self.list.load() == list {
            return Ok(false);
        }
        self.list.store(list.into());
        self.version.fetch_add(1, Ordering::Release);
        Ok(true)
    }

    /// Rises with every change. Whoever remembers a token reads it before he asks [`Revocations::covers`]: a list that
    /// changes in between then ends what is remembered.
    pub fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    /// How many tokens and subjects are named.
    pub fn entries(&self) -> usize {
        let list = self.list.load();
        list.tokens.len().saturating_add(list.subjects.len())
    }

    /// Whether a token with these claims is revoked. One that does not say when it was issued counts as issued before
    /// any time.
    ///
    /// # Errors
    /// A claim by which tokens are looked up has the wrong type: nobody could name such a token.
    pub fn covers(&self, claims: &Claims) -> Result<bool, BadClaim> {
        let list = self.list.load();
        let id = claims::string(claims, "jti")?;
        let subject = claims::string(claims, "sub")?;
        let issued = claims::seconds(claims, "iat")?;
        let before = subject.and_then(|subject| list.subjects.get(subject));
        Ok(id.is_some_and(|id| list.tokens.contains(id))
            || before.is_some_and(|before| issued.is_none_or(|issued| issued < *before)))
    }
}

fn read(path: &Path) -> Result<List, RevocationError> {
    let file = |cause| RevocationError::File {
        path: path.to_owned(),
        cause,
    };
    if std::fs::metadata(path).map_err(file)?.len() > MAX_BYTES {
        return Err(RevocationError::TooLarge(path.to_owned()));
    }
    let text = std::fs::read_to_string(path).map_err(file)?;
    let mut list = List::default();
    for (at, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        list.take(line).ok_or_else(|| RevocationError::Line {
            path: path.to_owned(),
            line: at.saturating_add(1),
        })?;
        if list.tokens.len().saturating_add(list.subjects.len()) > MAX_ENTRIES {
            return Err(RevocationError::TooMany(path.to_owned()));
        }
    }
    Ok(list)
}

impl List {
    /// Takes a line in; `None` when it is not understood.
    fn take(&mut self, line: &str) -> Option<()> {
        let (kind, rest) = line.split_once(':')?;
        let (value, rest) = value(rest.trim_start_matches(' '))?;
        let rest = rest.trim_start_matches(' ');
        match (kind, rest) {
            ("jti", "") => {
                self.tokens.insert(value.into());
            }
            ("sub", _) => {
                let before = if rest.is_empty() {
                    u64::MAX
                } else {
                    seconds(rest.strip_prefix("before:")?)?
                };
                let known = self.subjects.entry(value.into()).or_default();
                *known = before.max(*known);
            }
            _ => return None,
        }
        Some(())
    }
}

/// The value that a text begins with, and what follows it: nothing, or a blank and more.
fn value(text: &str) -> Option<(String, &str)> {
    let (value, rest) = if text.starts_with('"') {
        let mut quoted = serde_json::Deserializer::from_str(text).into_iter::<String>();
        let value = quoted.next()?.ok()?;
        (value, text.get(quoted.byte_offset()..)?)
    } else {
        let (word, rest) = text.split_at(text.find(' ').unwrap_or(text.len()));
        let plain = |sign: u8| sign.is_ascii_graphic() && !b"#\"".contains(&sign);
        (word.bytes().all(plain).then(|| word.to_owned())?, rest)
    };
    let ends = rest.is_empty() || rest.starts_with(' ');
    (ends && !value.is_empty()).then_some((value, rest))
}

/// Digits alone.
fn seconds(text: &str) -> Option<u64> {
    let digits = text.bytes().all(|sign| sign.is_ascii_digit());
    digits.then(|| text.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn opened(text: &str) -> Result<Revocations, RevocationError> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        Revocations::open(file.path())
    }

    fn covers(text: &str, claims: &Value) -> bool {
        let list = opened(text).unwrap();
        list.covers(claims.as_object().unwrap()).unwrap()
    }

    #[test]
    fn tokens_and_subjects_are_named_whole() {
        let text = "# since Monday\n\njti:a1\r\n  sub: auth0|7  \nsub:bob  before:100\nsub:\"with blank\"\nsub:\"j\\u00f6rg #1\" before:100\n";
        for (claims, revoked) in [
            (json!({"jti": "a1", "sub": "x"}), true),
            (json!({"jti": "a"}), false),
            (json!({"jti": "A1"}), false),
            (json!({"jti": "auth0|7"}), false),
            (json!({"sub": "auth0|7", "iat": 5_000_000_000_u64}), true),
            (json!({"sub": "auth0|77"}), false),
            (json!({"sub": "with blank"}), true),
            (json!({"sub": "bob", "iat": 99}), true),
            (json!({"sub": "bob", "iat": 100}), false),
            (json!({"sub": "bob"}), true),
            (json!({"sub": "jörg #1", "iat": 99}), true),
            (json!({"sub": "jörg #1", "iat": 100}), false),
            (json!({}), false),
        ] {
            assert_eq!(covers(text, &claims), revoked, "{claims}");
        }
    }

    #[test]
    fn of_two_lines_about_a_subject_the_stricter_holds() {
        let bob = json!({"sub": "bob", "iat": 150});
        assert!(covers("sub:bob before:100\nsub:bob before:200\n", &bob));
        assert!(covers("sub:bob before:200\nsub:bob before:100\n", &bob));
        assert!(covers("sub:bob\nsub:bob before:100", &bob));
    }

    #[test]
    fn a_line_that_is_not_understood_refuses_the_file() {
        for bad in [
            "a1",
            "jti:",
            "sub: ",
            "JTI:a",
            "exp:5",
            "sub:bob before:",
            "sub:bob before:-1",
            "sub:bob before:soon",
            "sub:bob before:1e3",
            "sub:bob before:+5",
            "sub:bob # left",
            "sub:bob #left",
            "sub:bob#left",
            "sub:bob and others",
            "sub:bob Before:5",
            "sub:bob before: 5",
            "sub:bob before:5 # for now",
            "sub:bob before:5 before:6",
            "sub:bob\tbefore:5",
            "sub:bob\u{a0}before:5",
            "sub:bo\u{200b}b",
            "sub:b\u{f6}b",
            "sub:bob jti:a",
            "sub :bob",
            "sub:\"bob",
            "sub:\"bob\"s",
            "sub:\"bob\" s",
            "sub:\"\"",
            "sub:bob\"",
            "sub:'bob' \"x\"",
            "jti:a before:1",
            "jti:a b",
        ] {
            let error = opened(&format!("jti:a\n{bad}\n")).unwrap_err();
            assert!(
                matches!(error, RevocationError::Line { line: 2, .. }),
                "{bad}: {error}"
            );
            assert!(!error.to_string().contains("bob"), "{error}");
        }
        assert!(opened("\u{feff}jti:a").is_err());
        assert!(Revocations::open(Path::new("/nonexistent")).is_err());
        assert_eq!(opened("").unwrap().entries(), 0);
    }

    #[test]
    fn what_cannot_be_looked_up_is_told() {
        let list = opened("jti:7").unwrap();
        for (name, value) in [
            ("jti", json!(7)),
            ("jti", json!(null)),
            ("sub", json!(["bob"])),
            ("iat", json!("5")),
        ] {
            let claims = json!({ name: value });
            let covers = list.covers(claims.as_object().unwrap());
            assert_eq!(covers, Err(BadClaim(name)), "{claims}");
        }
    }

    #[test]
    fn the_list_is_bounded() {
        use std::fmt::Write;
        let mut text = String::new();
        for number in 0..MAX_ENTRIES {
            let _ = writeln!(text, "jti:{number}");
        }
        assert_eq!(opened(&text).unwrap().entries(), MAX_ENTRIES);
        text.push_str("sub:one-more\n");
        assert!(matches!(opened(&text), Err(RevocationError::TooMany(_))));
    }

    #[test]
    fn a_bad_file_leaves_the_last_good_list() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let write = |text: &str| std::fs::write(file.path(), text).unwrap();
        write("jti:a");
        let list = Revocations::open(file.path()).unwrap();
        assert!(!list.reload().unwrap());
        assert_eq!(list.version(), 0);
        write("nonsense");
        assert!(list.reload().is_err());
        let a = json!({"jti": "a"});
        assert_eq!(list.covers(a.as_object().unwrap()), Ok(true));
        assert_eq!(list.version(), 0);
        write("");
        assert!(list.reload().unwrap());
        assert_eq!(list.covers(a.as_object().unwrap()), Ok(false));
        assert_eq!(list.version(), 1);
    }
}
