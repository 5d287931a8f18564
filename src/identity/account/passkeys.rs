//! The passkeys of an account, each sealed whole: whoever may write the folder cannot put one in.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::{Deserialize, Serialize};

use super::{Account, AccountError, Accounts, purpose};
use crate::{crypto::seal::FOREVER, identity::webauthn::Passkey};

/// The most passkeys of one account.
pub const MOST_PASSKEYS: usize = 10;

/// A passkey as text.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Kept {
    id: String,
    key: String,
    counter: u32,
    eligible: bool,
}

impl Accounts {
    /// The passkeys of an account.
    ///
    /// # Errors
    /// [`AccountError::Sealed`], [`AccountError::Malformed`].
    pub fn passkeys(&self, account: &Account) -> Result<Vec<Passkey>, AccountError> {
        let purpose = purpose("passkey", account);
        let sealed = account.passkeys.iter();
        sealed
            .map(|sealed| {
                let opened = self.seal.open(&purpose, sealed, 0)?;
                read(&opened).ok_or(AccountError::Malformed)
            })
            .collect()
    }

    /// Puts these passkeys in place of those that the account has.
    pub fn put_passkeys(&self, account: &mut Account, passkeys: &[Passkey]) {
        let purpose = purpose("passkey", account);
        let seal = |passkey| self.seal.seal(&purpose, FOREVER, &written(passkey));
        account.passkeys = passkeys.iter().map(seal).collect();
    }
}

fn written(passkey: &Passkey) -> Vec<u8> {
    let kept = Kept {
        id: URL_SAFE_NO_PAD.encode(&passkey.id),
        key: URL_SAFE_NO_PAD.encode(&passkey.key),
        counter: passkey.counter,
        eligible: passkey.eligible,
    };
    serde_json::to_vec(&kept).expect("a passkey is text and numbers")
}

fn read(json: &[u8]) -> Option<Passkey> {
    let kept: Kept = serde_json::from_slice(json).ok()?;
    Some(Passkey {
        id: URL_SAFE_NO_PAD.decode(kept.id).ok()?.into(),
        key: URL_SAFE_NO_PAD.decode(kept.key).ok()?.into(),
        counter: kept.counter,
        eligible: kept.eligible,
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{
        crypto::seal::{Seal, Unopened},
        state::sessions::Owner,
    };

    fn account(subject: &str) -> Account {
        Account::new(&Owner {
            issuer: "corp".into(),
            subject: subject.into(),
        })
    }

    fn passkey(counter: u32) -> Passkey {
        Passkey {
            id: [1, 2, 3].into(),
            key: [0xa0].into(),
            counter,
            eligible: true,
        }
    }

    #[test]
    fn passkeys_come_back_and_are_not_in_the_file() {
        let accounts = Accounts::new("none".into(), Arc::new(Seal::new([&[7; 32]])));
        let mut alice = account("alice");
        assert!(accounts.passkeys(&alice).unwrap().is_empty());
        assert!(!alice.is_enrolled());
        let kept = [passkey(0), passkey(u32::MAX)];
        accounts.put_passkeys(&mut alice, &kept);
        assert_eq!(accounts.passkeys(&alice).unwrap(), kept);
        assert!(alice.is_enrolled());
        let text = serde_json::to_string(&alice).unwrap();
        assert!(!text.contains("AQID"), "{text}");
        let read: Account = serde_json::from_str(&text).unwrap();
        assert_eq!(read, alice);
    }

    #[test]
    fn a_passkey_counts_in_its_own_account_and_place_alone() {
        let accounts = Accounts::new("none".into(), Arc::new(Seal::new([&[7; 32]])));
        let mut alice = account("alice");
        accounts.put_passkeys(&mut alice, &[passkey(0)]);
        let mut bob = account("bob");
        bob.passkeys.clone_from(&alice.passkeys);
        let forged = |account| {
            let read = accounts.passkeys(account);
            matches!(read, Err(AccountError::Sealed(Unopened::Forged)))
        };
        assert!(forged(&bob));
        let invited = accounts.invite(&mut alice, 0);
        assert_eq!(invited.len(), 32);
        alice.passkeys = alice.invitation.clone().into_iter().collect();
        assert!(forged(&alice), "sealed for something else");
    }
}
