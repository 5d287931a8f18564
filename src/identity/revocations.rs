//! Tokens and subjects that no longer count before their time: a list in a file, kept by the operator. For `issuer`.
//!
//! A line is `jti:VALUE` (RFC 7519 §4.1.7), `sub:VALUE`, or `sub:VALUE before:SECONDS` for the tokens of a subject that
//! were issued before that Unix second; `#` begins a line that says nothing. A file with any other line is refused whole.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwap;
use thiserror::Error;

use super::claims::{self, Claims};

/// The largest file, in bytes.
const MAX_BYTES: u64 = 16 << 20;
/// The most lines that name something.
pub const MAX_ENTRIES: usize = 200_000;

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
        "line {line} of `{path}` is not understood: `jti:VALUE`, `sub:VALUE` or `sub:VALUE before:SECONDS` is expected"
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
    pub fn covers(&self, claims: &Claims) -> bool {
        let list = self.list.load();
        let named = |name| claims::string(claims, name).ok().flatten();
        let by_id = named("jti").is_some_and(|id| list.tokens.contains(id));
        let issued = claims::seconds(claims, "iat").ok().flatten();
        by_id
            || named("sub")
                .and_then(|subject| list.subjects.get(subject))
                .is_some_and(|before| issued.is_none_or(|issued| issued < *before))
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
        let (kind, value) = line.split_once(':')?;
        let value = value.trim();
        if value.is_empty() {
            return None;
        }
        match kind {
            "jti" => {
                self.tokens.insert(value.into());
            }
            "sub" => {
                let (subject, before) = match value.rsplit_once(" before:") {
                    Some((subject, before)) => (subject.trim_end(), before.parse().ok()?),
                    None => (value, u64::MAX),
                };
                let known = self.subjects.entry(subject.into()).or_default();
                *known = before.max(*known);
            }
            _ => return None,
        }
        Some(())
    }
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
        opened(text).unwrap().covers(claims.as_object().unwrap())
    }

    #[test]
    fn tokens_and_subjects_are_named_whole() {
        let text =
            "# since Monday\n\njti:a1\r\n  sub:auth0|7  \nsub:bob before:100\nsub:with blank\n";
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
    fn the_list_is_bounded() {
        use std::fmt::Write;
        let mut text = String::new();
        for number in 0..MAX_ENTRIES {
            let _ = writeln!(text, "jti:{number}");
        }
        assert_eq!(opened(&text).unwrap().entries(), MAX_ENTRIES);
        text.push_str("sub:one more\n");
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
        assert!(list.covers(a.as_object().unwrap()));
        assert_eq!(list.version(), 0);
        write("");
        assert!(list.reload().unwrap());
        assert!(!list.covers(a.as_object().unwrap()));
        assert_eq!(list.version(), 1);
    }
}
