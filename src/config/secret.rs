//! Secrets by reference and paths relative to the file that names them.
//!
//! A secret is never written in the file itself, and no message shows one, not even its length.

use std::ffi::OsString;
use std::fs::File;
use std::io::Read;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::place::{At, Sources};
use super::value::{Complaint, FromValue, Node, Value, quoted, text_of};
use crate::crypto::secret::Secret;

const LARGEST: usize = 1 << 20;
const SECRET: &str = "a secret as `{ env = \"NAME\" }` or `{ file = \"path\" }`";

/// A path as written; relative ones start at the folder of the file that names them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FilePath {
    /// As written.
    pub raw: PathBuf,
    /// Where it was written.
    pub at: At,
}

impl FilePath {
    /// The path to open.
    pub fn resolve(&self, sources: &Sources) -> PathBuf {
        sources.folder(self.at.file).join(&self.raw)
    }
}

impl FromValue for FilePath {
    fn from_value(value: &Value) -> Result<Self, Complaint> {
        let text = text_of(value, "a path")?;
        if text.is_empty() || text.contains('\0') {
            return Err(Complaint::new(format!("{} is not a path", quoted(text))));
        }
        Ok(Self {
            raw: PathBuf::from(text),
            at: value.at,
        })
    }
}

/// Where a secret is to be found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SecretRef {
    /// An environment variable.
    Env(String, At),
    /// A file.
    File(FilePath),
}

impl FromValue for SecretRef {
    fn from_value(value: &Value) -> Result<Self, Complaint> {
        let refused = || Complaint::new("a secret must not stand in the file").concealed();
        let table = match &value.node {
            Node::Table(table) => table,
            Node::String(_) => {
                return Err(refused()
                    .hint("name its source: `{ env = \"NAME\" }` or `{ file = \"path\" }`"));
            }
            _ => {
                return Err(Complaint::new(format!(
                    "expected {SECRET}, found {}",
                    value.type_name()
                ))
                .concealed());
            }
        };
        let [entry] = table.entries.as_slice() else {
            return Err(
                Complaint::new(format!("expected {SECRET} with exactly one key")).concealed(),
            );
        };
        match entry.key.as_str() {
            "env" => variable(&entry.value).map(|name| Self::Env(name, entry.value.at)),
            "file" => FilePath::from_value(&entry.value).map(Self::File),
            key => Err(
                Complaint::new(format!("unknown key {} in a secret", quoted(key)))
                    .hint("expected `env` or `file`")
                    .at(entry.key_at)
                    .concealed(),
            ),
        }
    }
}

/// The name is echoed only when it has the form of one: a secret typed here by mistake must not be shown.
fn variable(value: &Value) -> Result<String, Complaint> {
    let well_formed = |name: &&str| {
        !name.is_empty()
            && name
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
    };
    value
        .as_str()
        .filter(well_formed)
        .map(ToOwned::to_owned)
        .ok_or_else(|| {
            Complaint::new("this is not the name of an environment variable")
                .hint("letters, digits and `_`")
                .at(value.at)
                .concealed()
        })
}

impl SecretRef {
    /// Reads the secret, without one trailing line end.
    ///
    /// # Errors
    /// When it is not set, missing, unreadable, empty or over 1 MiB.
    pub fn resolve(&self, sources: &Sources) -> Result<Secret, Complaint> {
        let (mut bytes, at) = match self {
            Self::Env(name, at) => (from_environment(name, *at)?, *at),
            Self::File(path) => (from_file(&path.resolve(sources), path.at)?, path.at),
        };
        let kept = bytes.strip_suffix(b"\n").map_or(bytes.len(), |rest| {
            rest.strip_suffix(b"\r").unwrap_or(rest).len()
        });
        bytes.truncate(kept);
        if bytes.is_empty() {
            return Err(Complaint::new("this secret is empty").at(at));
        }
        Ok(Secret::new(bytes))
    }

    /// The file that the secret is in, for the file watcher.
    pub fn file(&self, sources: &Sources) -> Option<PathBuf> {
        if let Self::File(path) = self {
            Some(path.resolve(sources))
        } else {
            None
        }
    }
}

fn from_environment(name: &str, at: At) -> Result<Vec<u8>, Complaint> {
    std::env::var_os(name)
        .map(OsString::into_vec)
        .ok_or_else(|| {
            Complaint::new(format!(
                "the environment variable {} is not set",
                quoted(name)
            ))
            .at(at)
        })
}

fn from_file(path: &Path, at: At) -> Result<Vec<u8>, Complaint> {
    let complaint = |error: std::io::Error| {
        Complaint::new(format!(
            "cannot read {}: {}",
            quoted(&path.to_string_lossy()),
            because(&error)
        ))
        .at(at)
    };
    let file = File::open(path).map_err(complaint)?;
    // Room from the start, so that growing leaves no copies behind in freed memory.
    let expected = file.metadata().map_err(complaint)?.len();
    let mut bytes =
        Vec::with_capacity(usize::try_from(expected).unwrap_or(LARGEST).min(LARGEST) + 2);
    let limit = u64::try_from(LARGEST).unwrap_or(u64::MAX) + 1;
    file.take(limit)
        .read_to_end(&mut bytes)
        .map_err(complaint)?;
    if bytes.len() > LARGEST {
        drop(Secret::new(bytes));
        return Err(Complaint::new(format!(
            "{} is larger than 1 MiB",
            quoted(&path.to_string_lossy())
        ))
        .at(at));
    }
    Ok(bytes)
}

/// Whether anybody on the machine may read the file; `false` when it cannot be told.
pub fn readable_by_others(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|metadata| metadata.permissions().mode() & 0o004 != 0)
}

/// An error of the operating system in the house style: lower-case, without its number.
pub(crate) fn because(error: &std::io::Error) -> String {
    let text = error.to_string();
    text.split(" (os error")
        .next()
        .unwrap_or(&text)
        .to_lowercase()
}

#[cfg(test)]
mod tests {
    use super::SecretRef;
    use crate::config::value::read;
    use crate::config::{FromValue, Show, load_str};

    #[test]
    fn a_bare_string_is_refused_and_not_repeated() {
        for bad in [
            "\"hunter2\"",
            "{ file = \"a\", env = \"B\" }",
            "{ value = \"hunter2\" }",
            "{}",
            "7",
            "{ env = \"hun-ter2\" }",
        ] {
            let complaint = read::<SecretRef>(bad).expect_err(bad);
            assert_eq!(complaint.show, Show::PlaceOnly, "{bad}");
            assert!(!complaint.message.contains("hun"), "{bad}");
        }
    }

    #[test]
    fn a_file_loses_one_line_end_and_keeps_the_rest() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("secret");
        let resolve = |content: &[u8]| {
            std::fs::write(&path, content).expect("written");
            let text = format!("v = {{ file = {:?} }}", path.display().to_string());
            let loaded = load_str("t.toml", &text, &[]);
            let reference =
                SecretRef::from_value(loaded.root.get("v").expect("set")).expect("valid");
            reference
                .resolve(&loaded.sources)
                .map(|secret| secret.expose().to_vec())
        };
        assert_eq!(resolve(b"s3cret\n").as_deref(), Ok(&b"s3cret"[..]));
        assert_eq!(resolve(b" s\n\n").as_deref(), Ok(&b" s\n"[..]));
        assert_eq!(resolve(b"s\r\n").as_deref(), Ok(&b"s"[..]));
        assert_eq!(resolve(b"\xff\x00").as_deref(), Ok(&b"\xff\x00"[..]));
        assert_eq!(resolve(b"\n").unwrap_err().message, "this secret is empty");
        assert!(
            resolve(&vec![b'x'; (1 << 20) + 1])
                .unwrap_err()
                .message
                .ends_with("is larger than 1 MiB")
        );
    }

    #[test]
    fn what_is_not_there_is_named() {
        let loaded = load_str(
            "t.toml",
            "e = { env = \"PORTCULLIS_UNSET\" }\nf = { file = \"/nonexistent/key\" }\n",
            &[],
        );
        let message = |key| {
            let reference =
                SecretRef::from_value(loaded.root.get(key).expect("set")).expect("valid");
            reference.resolve(&loaded.sources).unwrap_err().message
        };
        assert_eq!(
            message("e"),
            "the environment variable `PORTCULLIS_UNSET` is not set"
        );
        assert_eq!(
            message("f"),
            "cannot read `/nonexistent/key`: no such file or directory"
        );
    }
}
