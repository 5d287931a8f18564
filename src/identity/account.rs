//! Accounts: what somebody whom the gate has identified has enrolled as a second factor. A folder, a file for each.
//!
//! A file is named by a hash of issuer and subject and says both inside, so that no file stands for another account. It is
//! JSON of a known version; what it says more is refused, since a newer gate wrote it. Secrets in it are sealed with the
//! keys of `[session]`, bound to the account, and sealed anew with the newest key whenever the file is written. Files are
//! read when one of the gate's pages is asked, and once a minute for a proven session in use, and not by a thread that serves.
//! Whoever reads an account to write it holds the lock of the folder meanwhile, since another process may do the same: a gate
//! that is handing over, or `enrol`.

mod invitation;
mod passkeys;

use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use rustix::fs::{Access, AtFlags, CWD};
use serde::{Deserialize, Serialize};
use thiserror::Error;
use zeroize::Zeroizing;

pub use invitation::{INVITATION, Invitation};
pub use passkeys::MOST_PASSKEYS;

use super::whole_file::{self, OWNER_ALONE, ReadError};
use crate::{
    crypto::{
        digest::{Sha256, sha256_of},
        hex, rng,
        seal::{FOREVER, Seal, Unopened},
        secret::Secret,
    },
    state::{clock, sessions::Owner},
};

/// The form that is written.
const VERSION: u32 = 1;
/// More than any account needs.
const LARGEST: usize = 256 << 10;

/// Why an account cannot be used. For the log.
#[derive(Debug, Error)]
pub enum AccountError {
    /// The file cannot be read.
    #[error("its file cannot be read: {0}")]
    Unread(std::io::Error),
    /// The file cannot be written.
    #[error("its file cannot be written: {0}")]
    Unwritten(std::io::Error),
    /// Somebody else owns the file, or has rights to it.
    #[error("its file is another's or others have rights to it")]
    Unsafe,
    /// Not a file of this form.
    #[error("its file is malformed")]
    Malformed,
    /// A version that this gate does not know.
    #[error("its file has a version that is not known")]
    Version,
    /// The account of somebody else.
    #[error("its file is that of another account")]
    OtherAccount,
    /// A secret that no key of `[session]` opens.
    #[error("its secret does not open: {0}")]
    Sealed(#[from] Unopened),
}

/// The folder of all accounts.
#[derive(Debug)]
pub struct Accounts {
    folder: PathBuf,
    seal: Arc<Seal>,
}

/// The lock of a folder; it ends when this is dropped.
#[derive(Debug)]
pub struct Held(#[expect(dead_code, reason = "the lock is that of the open file")] File);

/// What one account has enrolled.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Account {
    version: u32,
    issuer: String,
    subject: String,
    /// Another one after each replacement, by which sessions in which the old factor was proven are known.
    #[serde(default)]
    mark: String,
    /// What authenticators call the account: random, so that it tells nobody whose it is (Web Authentication Level 3 §14.6.1).
    #[serde(default = "fresh_handle")]
    handle: String,
    /// The authenticator app.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub totp: Option<TotpKey>,
    /// The passkeys, sealed one by one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    passkeys: Vec<String>,
    /// The hash of an invitation, sealed until it ends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    invitation: Option<String>,
}

/// An authenticator app.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TotpKey {
    /// Its secret, sealed.
    secret: String,
    /// The Unix second at which it was enrolled.
    pub enrolled: u64,
    /// The last step whose code was used: it and all before are used up.
    pub last_step: u64,
}

impl Account {
    /// An account that has enrolled nothing.
    pub fn new(owner: &Owner) -> Self {
        Self {
            version: VERSION,
            issuer: (*owner.issuer).to_owned(),
            subject: (*owner.subject).to_owned(),
            mark: fresh_mark(),
            handle: fresh_handle(),
            totp: None,
            passkeys: Vec::new(),
            invitation: None,
        }
    }

    /// Whether it has a factor.
    pub fn is_enrolled(&self) -> bool {
        self.totp.is_some() || !self.passkeys.is_empty()
    }

    /// What authenticators call it: 64 random bytes in base64url, the same for all of its passkeys.
    pub fn handle(&self) -> &str {
        &self.handle
    }
}

impl Account {
    /// What stands for all that is enrolled: it changes when something is taken away.
    pub fn mark(&self) -> &str {
        &self.mark
    }

    /// States that something was taken away: whoever has proven it has proven nothing any more.
    pub fn renew_mark(&mut self) {
        self.mark = fresh_mark();
    }
}

fn fresh_handle() -> String {
    let mut bytes = [0; 64];
    rng::fill(&mut bytes);
    URL_SAFE_NO_PAD.encode(bytes)
}

fn fresh_mark() -> String {
    let mut bytes = [0; 16];
    rng::fill(&mut bytes);
    hex::encode(&bytes)
}

/// All that is read of a form that may be newer.
#[derive(Deserialize)]
struct Form {
    version: u32,
}

/// Why nobody could show a factor with what is in this folder, and what to do about it. It is no fault of the file: whoever looks
/// may be another user than the gate's.
pub fn trouble_with(folder: &Path) -> Option<(&'static str, &'static str)> {
    let Ok(about) = std::fs::metadata(folder) else {
        let hint = "`portcullis enrol` makes it, run as the user that the gate runs as";
        return Some(("is not there: nobody can show a second factor", hint));
    };
    if about.uid() != rustix::process::geteuid().as_raw() {
        let hint = "the gate must run as its owner, or cannot read what is enrolled";
        return Some(("is another user's", hint));
    }
    let access = Access::READ_OK | Access::WRITE_OK | Access::EXEC_OK;
    let denied = rustix::fs::accessat(CWD, folder, access, AtFlags::EACCESS).is_err();
    denied.then_some((
        "cannot be written: a factor counts only once its use is written",
        "chmod 700; in a unit of systemd, `StateDirectory=`",
    ))
}

/// What stands for an account: the name of its file, and what its secrets are sealed for.
pub fn name_of(owner: &Owner) -> Sha256 {
    let length = u64::try_from(owner.issuer.len()).unwrap_or(u64::MAX);
    let (issuer, subject) = (owner.issuer.as_bytes(), owner.subject.as_bytes());
    sha256_of(&[&length.to_be_bytes(), issuer, subject])
}

impl Accounts {
    /// The accounts in a folder, their secrets under this seal.
    pub fn new(folder: PathBuf, seal: Arc<Seal>) -> Self {
        Self { folder, seal }
    }

    /// The folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Waits until nobody else, in this process or another one, is about to write an account; `None` where there is no folder.
    /// The folder itself is locked: a file for that could be made by a user whose files the gate cannot open.
    ///
    /// # Errors
    /// [`AccountError::Unwritten`]
    pub fn hold(&self) -> Result<Option<Held>, AccountError> {
        let folder = match File::open(&self.folder) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            opened => opened.map_err(AccountError::Unwritten)?,
        };
        folder.lock().map_err(AccountError::Unwritten)?;
        Ok(Some(Held(folder)))
    }

    /// The account of an owner; `None` where nobody made one. It reads a file.
    ///
    /// # Errors
    /// See [`AccountError`].
    pub fn load(&self, owner: &Owner) -> Result<Option<Account>, AccountError> {
        let bytes = match whole_file::read(&self.path(owner), LARGEST, OWNER_ALONE) {
            Ok(bytes) => bytes,
            Err(ReadError::Missing) => return Ok(None),
            Err(ReadError::File(error)) => return Err(AccountError::Unread(error)),
            Err(ReadError::Unsafe) => return Err(AccountError::Unsafe),
            Err(ReadError::TooLarge) => return Err(AccountError::Malformed),
        };
        let form: Form = serde_json::from_slice(&bytes).map_err(|_| AccountError::Malformed)?;
        if form.version != VERSION {
            return Err(AccountError::Version);
        }
        let account: Account =
            serde_json::from_slice(&bytes).map_err(|_| AccountError::Malformed)?;
        if *account.issuer != *owner.issuer || *account.subject != *owner.subject {
            return Err(AccountError::OtherAccount);
        }
        Ok(Some(account))
    }

    /// Writes an account, whole or not at all.
    ///
    /// # Errors
    /// [`AccountError::Unwritten`]; the file of before stays.
    pub fn save(&self, account: &Account) -> Result<(), AccountError> {
        let owner = Owner {
            issuer: account.issuer.as_str().into(),
            subject: account.subject.as_str().into(),
        };
        let text = serde_json::to_vec(account).expect("an account is text and numbers");
        whole_file::write(&self.path(&owner), &text).map_err(AccountError::Unwritten)
    }

    /// Puts an authenticator app with this secret into the account, of which the codes up to `last_step` are used up.
    pub fn put_totp(&self, account: &mut Account, secret: &Secret, (now, last_step): (u64, u64)) {
        let sealed = self
            .seal
            .seal(&purpose("totp", account), FOREVER, secret.expose());
        account.totp = Some(TotpKey {
            secret: sealed,
            enrolled: account.totp.as_ref().map_or(now, |totp| totp.enrolled),
            last_step,
        });
    }

    /// Seals all that the account has with the newest key. What does not open stays as it is.
    pub fn renew(&self, account: &mut Account) {
        let last = account.totp.as_ref().map_or(0, |totp| totp.last_step);
        if let Ok(Some(secret)) = self.totp_secret(account) {
            self.put_totp(account, &secret, (0, last));
        }
        if let Ok(passkeys) = self.passkeys(account) {
            self.put_passkeys(account, &passkeys);
        }
        self.renew_invitation(account, clock::unix_seconds());
    }

    /// The secret of the account's authenticator app; `None` where it has none.
    ///
    /// # Errors
    /// [`AccountError::Sealed`].
    pub fn totp_secret(&self, account: &Account) -> Result<Option<Secret>, AccountError> {
        let Some(totp) = &account.totp else {
            return Ok(None);
        };
        let opened = self.seal.open(&purpose("totp", account), &totp.secret, 0)?;
        Ok(Some(Secret::new(opened.to_vec())))
    }

    fn path(&self, owner: &Owner) -> PathBuf {
        let name = Zeroizing::new(hex::encode(&name_of(owner)));
        self.folder.join(format!("{}.json", *name))
    }
}

/// What something of this kind in the account is sealed for.
fn purpose(kind: &str, account: &Account) -> Vec<u8> {
    let owner = Owner {
        issuer: account.issuer.as_str().into(),
        subject: account.subject.as_str().into(),
    };
    [kind.as_bytes(), b" ", &name_of(&owner)].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owner(issuer: &str, subject: &str) -> Owner {
        Owner {
            issuer: issuer.into(),
            subject: subject.into(),
        }
    }

    fn desk() -> (tempfile::TempDir, Accounts) {
        let folder = tempfile::tempdir().unwrap();
        let accounts = Accounts::new(folder.path().to_owned(), Arc::new(Seal::new([&[7; 32]])));
        (folder, accounts)
    }

    fn alice(accounts: &Accounts) -> (Owner, Account, Secret) {
        let owner = owner("corp", "alice");
        let secret = Secret::new(b"12345678901234567890".to_vec());
        let mut account = Account::new(&owner);
        accounts.put_totp(&mut account, &secret, (5, 9));
        accounts.save(&account).unwrap();
        (owner, account, secret)
    }

    #[test]
    fn what_was_enrolled_comes_back_and_its_secret_is_not_in_the_file() {
        let (folder, accounts) = desk();
        let (owner, account, secret) = alice(&accounts);
        let read = accounts.load(&owner).unwrap().unwrap();
        assert_eq!(read, account);
        assert_eq!(accounts.totp_secret(&read).unwrap(), Some(secret));
        let file = std::fs::read_dir(folder.path()).unwrap().next().unwrap();
        let path = file.unwrap().path();
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(!text.contains("1234567890"), "{text}");
        assert!(!path.to_string_lossy().contains("alice"));
        let nobody = super::tests::owner("corp", "bob");
        assert!(accounts.load(&nobody).unwrap().is_none());
    }

    #[test]
    fn b37_a_secret_opens_in_its_own_account_alone() {
        let (_folder, accounts) = desk();
        let (_, stolen, _) = alice(&accounts);
        let mut bob = Account::new(&owner("corp", "bob"));
        bob.totp = stolen.totp;
        let error = accounts.totp_secret(&bob).unwrap_err();
        assert!(matches!(error, AccountError::Sealed(Unopened::Forged)));
    }

    #[test]
    fn the_file_of_one_account_is_not_that_of_another() {
        let (_folder, accounts) = desk();
        let (alice, _, _) = alice(&accounts);
        let bob = owner("corp", "bob");
        std::fs::copy(accounts.path(&alice), accounts.path(&bob)).unwrap();
        let error = accounts.load(&bob).unwrap_err();
        assert!(matches!(error, AccountError::OtherAccount));
        assert_ne!(name_of(&owner("ab", "c")), name_of(&owner("a", "bc")));
    }

    #[test]
    fn two_who_write_an_account_take_turns() {
        let (folder, accounts) = desk();
        let (owner, _, _) = alice(&accounts);
        let steps = std::sync::atomic::AtomicU64::new(0);
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    let _held = accounts.hold().unwrap().unwrap();
                    let mut account = accounts.load(&owner).unwrap().unwrap();
                    let totp = account.totp.as_mut().unwrap();
                    totp.last_step += 1;
                    accounts.save(&account).unwrap();
                    steps.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                });
            }
        });
        let account = accounts.load(&owner).unwrap().unwrap();
        assert_eq!(account.totp.unwrap().last_step, 9 + steps.into_inner());
        drop(folder);
        assert!(accounts.hold().unwrap().is_none());
    }

    #[test]
    fn what_is_no_such_file_is_refused() {
        let (_folder, accounts) = desk();
        let (owner, _, _) = alice(&accounts);
        let path = accounts.path(&owner);
        let good = std::fs::read_to_string(&path).unwrap();
        for (text, malformed) in [
            (String::new(), true),
            ("{".to_owned(), true),
            ("[]".to_owned(), true),
            (good.replace("\"version\":1", "\"version\":2"), false),
            (good.replace("\"version\":1,", ""), true),
            (
                good.replace("\"version\":1", "\"version\":1,\"more\":1"),
                true,
            ),
            (
                good.replace("\"version\":1", "\"version\":1,\"version\":1"),
                true,
            ),
            (good.replace("\"last_step\":9", "\"last_step\":-9"), true),
        ] {
            whole_file::write(&path, text.as_bytes()).unwrap();
            let error = accounts.load(&owner).unwrap_err();
            let is_malformed = matches!(error, AccountError::Malformed);
            assert_eq!(is_malformed, malformed, "{text}: {error}");
        }
        std::fs::write(&path, &good).unwrap();
        let open = std::os::unix::fs::PermissionsExt::from_mode(0o640);
        std::fs::set_permissions(&path, open).unwrap();
        assert!(matches!(accounts.load(&owner), Err(AccountError::Unsafe)));
    }
}
