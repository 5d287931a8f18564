//! Small files that the gate writes for itself: whole or not at all, and read only where nobody else could have written.
//!
//! For `kept` and `account`. What a file says is for them to judge. Symbolic links are followed: whoever may make one in
//! the folder may as well replace the file.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use thiserror::Error;

/// Nobody but the owner may write it.
pub(super) const OTHERS_READ: u32 = 0o022;
/// Nobody but the owner may even read it.
pub(super) const OWNER_ALONE: u32 = 0o077;

/// Why a file is not read.
#[derive(Debug, Error)]
pub(super) enum ReadError {
    /// There is none.
    #[error("there is no file")]
    Missing,
    /// The system does not let us.
    #[error("it cannot be read: {0}")]
    File(#[from] io::Error),
    /// Somebody else owns it or has rights that nobody else may have.
    #[error("others have rights to it")]
    Unsafe,
    /// Larger than anything that was written.
    #[error("it is too large")]
    TooLarge,
}

/// Puts these bytes in the place of the file of before, readable by the owner alone.
///
/// # Errors
/// What the system says; the file of before stays.
pub(super) fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let fresh = beside(path);
    // Left behind by a process of the same number that was killed in between.
    let _ = std::fs::remove_file(&fresh);
    let written = create(&fresh, bytes).and_then(|()| std::fs::rename(&fresh, path));
    if written.is_err() {
        let _ = std::fs::remove_file(&fresh);
    }
    written
}

fn create(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

/// A name in the same folder that nobody else writes to, in this process or another one.
fn beside(path: &Path) -> PathBuf {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let count = COUNT.fetch_add(1, Relaxed);
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.{count}.new", std::process::id()));
    path.with_file_name(name)
}

/// What a file of at most `most` bytes holds, of our own or of root, to which nobody else has a right of `denied`.
///
/// # Errors
/// See [`ReadError`].
pub(super) fn read(path: &Path, most: usize, denied: u32) -> Result<Vec<u8>, ReadError> {
    let file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(ReadError::Missing),
        opened => opened?,
    };
    // Of the file that was opened, which nobody can exchange any more.
    let about = file.metadata()?;
    let owner = [0, rustix::process::geteuid().as_raw()];
    if !about.is_file() || !owner.contains(&about.uid()) || about.mode() & denied != 0 {
        return Err(ReadError::Unsafe);
    }
    let limit = u64::try_from(most).unwrap_or(u64::MAX).saturating_add(1);
    let mut bytes = Vec::new();
    file.take(limit).read_to_end(&mut bytes)?;
    if bytes.len() > most {
        return Err(ReadError::TooLarge);
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn what_is_written_is_the_owner_s_alone_and_nothing_is_left_beside_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.json");
        assert!(matches!(
            read(&path, 9, OWNER_ALONE),
            Err(ReadError::Missing)
        ));
        for text in [b"one", b"two"] {
            write(&path, text).unwrap();
            assert_eq!(read(&path, 3, OWNER_ALONE).unwrap(), text);
        }
        assert!(matches!(
            read(&path, 2, OWNER_ALONE),
            Err(ReadError::TooLarge)
        ));
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
        assert!(write(&folder.path().join("none/a.json"), b"x").is_err());
    }

    #[test]
    fn a_file_to_which_others_have_rights_is_not_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.json");
        write(&path, b"x").unwrap();
        for (mode, others_read, owner_alone) in [
            (0o600, true, true),
            (0o640, true, false),
            (0o604, true, false),
            (0o620, false, false),
            (0o602, false, false),
        ] {
            std::fs::set_permissions(&path, PermissionsExt::from_mode(mode)).unwrap();
            assert_eq!(read(&path, 9, OTHERS_READ).is_ok(), others_read, "{mode:o}");
            assert_eq!(read(&path, 9, OWNER_ALONE).is_ok(), owner_alone, "{mode:o}");
        }
        assert!(read(folder.path(), 9, OWNER_ALONE).is_err());
    }
}
