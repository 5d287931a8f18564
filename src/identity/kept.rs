//! The last good key set of an issuer on disk, for a start while the issuer is down. For `issuer`.
//!
//! It holds public keys only, but whoever could write it could add one: a file that others may write is refused, and so is
//! one that belongs to another issuer or place of keys, or was fetched under other certificates than those of now. Its age is
//! counted from the fetch, not from the start.

use std::path::Path;

use serde_json::{Value, json};
use thiserror::Error;

use super::claims::{self, parse_object};
use super::fetch::MAX_BODY;
use super::whole_file::{self, OTHERS_READ, ReadError};
use crate::crypto::digest::Sha256;
use crate::crypto::hex;

/// A clock that was set back by more than this makes a file that comes from the future.
const AHEAD: u64 = 300;

/// Why kept keys are not used. For the log.
#[derive(Debug, Error)]
pub(super) enum KeptError {
    /// There is no file, as before the first fetch.
    #[error("there is no kept key set")]
    Missing,
    /// The file cannot be read.
    #[error("the kept key set cannot be read: {0}")]
    File(#[from] std::io::Error),
    /// Somebody else owns the file or may write it.
    #[error("others may write the kept key set")]
    Unsafe,
    /// Not a file of this form.
    #[error("the kept key set is malformed")]
    Malformed,
    /// Keys of another issuer, or from another place, or fetched from whom other certificates vouched for.
    #[error("the kept key set is that of another issuer, or was fetched under other authorities")]
    OtherIssuer,
    /// Fetched longer ago than keys are used, or at a time that has not come.
    #[error("the kept key set is too old")]
    Stale,
}

/// Whose keys they are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Origin {
    /// The exact `iss`.
    pub(super) issuer: String,
    /// The URL of the key set, or `discovery`.
    pub(super) source: String,
    /// The SHA-256 of the certificates that were trusted beside those of the system when it was fetched.
    pub(super) authorities: Option<Sha256>,
}

impl Origin {
    fn authorities(&self) -> Option<String> {
        self.authorities.map(|digest| hex::encode(&digest))
    }
}

/// Puts a key set, fetched at `now` (Unix seconds), in the place of the one before: readable by the owner alone, whole or
/// not at all.
///
/// # Errors
/// What the system says; the file of before stays.
pub(super) fn save(path: &Path, origin: &Origin, keys: &[u8], now: u64) -> std::io::Result<()> {
    let document = json!({
        "issuer": origin.issuer,
        "source": origin.source,
        "authorities": origin.authorities(),
        "fetched": now,
        "keys": String::from_utf8_lossy(keys),
    });
    whole_file::write(path, document.to_string().as_bytes())
}

/// The kept key set and the Unix second at which it was fetched.
///
/// # Errors
/// See [`KeptError`]. `stale` is how many seconds after their fetch keys are used.
pub(super) fn load(
    path: &Path,
    origin: &Origin,
    (now, stale): (u64, u64),
) -> Result<(Vec<u8>, u64), KeptError> {
    let bytes = read(path)?;
    let document = parse_object(&bytes).map_err(|_| KeptError::Malformed)?;
    let text = |name| {
        claims::string(&document, name)
            .ok()
            .flatten()
            .ok_or(KeptError::Malformed)
    };
    let authorities = document.get("authorities").and_then(Value::as_str);
    if text("issuer")? != origin.issuer
        || text("source")? != origin.source
        || authorities != origin.authorities().as_deref()
    {
        return Err(KeptError::OtherIssuer);
    }
    let fetched = document
        .get("fetched")
        .and_then(Value::as_u64)
        .ok_or(KeptError::Malformed)?;
    if fetched > now.saturating_add(AHEAD) || now >= fetched.saturating_add(stale) {
        return Err(KeptError::Stale);
    }
    Ok((text("keys")?.as_bytes().to_vec(), fetched))
}

fn read(path: &Path) -> Result<Vec<u8>, KeptError> {
    // A string in JSON takes up to six times the room of what it says.
    let most = MAX_BODY.saturating_mul(6).saturating_add(4096);
    whole_file::read(path, most, OTHERS_READ).map_err(|error| match error {
        ReadError::Missing => KeptError::Missing,
        ReadError::File(error) => KeptError::File(error),
        ReadError::Unsafe => KeptError::Unsafe,
        ReadError::TooLarge => KeptError::Malformed,
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    const NOW: u64 = 1_800_000_000;

    fn origin() -> Origin {
        Origin {
            issuer: "https://idp.example".to_owned(),
            source: "https://idp.example/keys".to_owned(),
            authorities: None,
        }
    }

    fn mode(path: &Path) -> u32 {
        std::fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn what_was_kept_comes_back_to_the_byte_and_is_the_owner_s_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keys.json");
        assert!(matches!(
            load(&path, &origin(), (NOW, 60)),
            Err(KeptError::Missing)
        ));
        for keys in [&b" {\"keys\" : [] }\n"[..], b"{\"keys\":[1]}"] {
            save(&path, &origin(), keys, NOW).unwrap();
            let (kept, fetched) = load(&path, &origin(), (NOW, 60)).unwrap();
            assert_eq!((kept.as_slice(), fetched), (keys, NOW));
            assert_eq!(mode(&path), 0o600);
        }
        let names = std::fs::read_dir(folder.path()).unwrap().count();
        assert_eq!(names, 1, "nothing is left beside it");
    }

    #[test]
    fn keys_are_used_for_their_time_from_the_fetch_on() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keys.json");
        save(&path, &origin(), b"{}", NOW).unwrap();
        assert!(load(&path, &origin(), (NOW + 59, 60)).is_ok());
        for now in [NOW + 60, NOW + 9999, NOW - 301] {
            let old = load(&path, &origin(), (now, 60));
            assert!(matches!(old, Err(KeptError::Stale)), "{now}");
        }
        assert!(load(&path, &origin(), (NOW - 300, 60)).is_ok());
    }

    #[test]
    fn a_file_that_others_may_write_or_of_another_issuer_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keys.json");
        save(&path, &origin(), b"{}", NOW).unwrap();
        for open in [0o620, 0o602, 0o666] {
            std::fs::set_permissions(&path, PermissionsExt::from_mode(open)).unwrap();
            let error = load(&path, &origin(), (NOW, 60));
            assert!(matches!(error, Err(KeptError::Unsafe)), "{open:o}");
        }
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o644)).unwrap();
        assert!(load(&path, &origin(), (NOW, 60)).is_ok());
        let mut other = origin();
        other.issuer = "https://evil.example".to_owned();
        let error = load(&path, &other, (NOW, 60));
        assert!(matches!(error, Err(KeptError::OtherIssuer)));
        other = origin();
        other.source = "discovery".to_owned();
        let error = load(&path, &other, (NOW, 60));
        assert!(matches!(error, Err(KeptError::OtherIssuer)));
        let under = |authorities| Origin {
            authorities,
            ..origin()
        };
        let before = [None, Some([7; 32]), Some([8; 32])];
        for (saved, asked) in before
            .iter()
            .flat_map(|one| before.map(|other| (*one, other)))
        {
            save(&path, &under(saved), b"{}", NOW).unwrap();
            let loaded = load(&path, &under(asked), (NOW, 60));
            match loaded {
                Ok(_) => assert_eq!(saved, asked),
                Err(error) => {
                    assert!(matches!(error, KeptError::OtherIssuer), "{error}");
                    assert_ne!(saved, asked);
                }
            }
        }
        let error = load(folder.path(), &origin(), (NOW, 60));
        assert!(error.is_err());
    }

    #[test]
    fn what_is_no_such_file_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keys.json");
        for text in [
            "",
            "{",
            "[]",
            "{}",
            r#"{"issuer":"https://idp.example","source":"https://idp.example/keys","fetched":"x","keys":"{}"}"#,
            r#"{"issuer":"https://idp.example","source":"https://idp.example/keys","fetched":1800000000,"keys":{}}"#,
            r#"{"issuer":"a","issuer":"https://idp.example","source":"https://idp.example/keys","fetched":1800000000,"keys":"{}"}"#,
        ] {
            write_anew(&path, text);
            let error = load(&path, &origin(), (NOW, 60));
            assert!(matches!(error, Err(KeptError::Malformed)), "{text}");
        }
    }

    fn write_anew(path: &Path, text: &str) {
        whole_file::write(path, text.as_bytes()).unwrap();
    }

    #[test]
    fn a_folder_that_is_not_there_is_told_and_nothing_else_happens() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("none/keys.json");
        assert!(save(&path, &origin(), b"{}", NOW).is_err());
    }
}
