//! Invitations: a code that lets an account enrol a factor in its browser, its first one or one more, once and for a day.
//!
//! Only its hash is kept, sealed until it ends: whoever may write the folder cannot invite.

use std::time::Duration;

use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use super::{Account, AccountError, Accounts, purpose};
use crate::{
    crypto::{
        digest::{Sha256, sha256},
        rng,
        seal::Unopened,
    },
    identity::totp::base32,
};

/// How long an invitation counts.
pub const INVITATION: Duration = Duration::from_hours(24);

/// Random bytes of a code.
const CODE_BYTES: usize = 16;
/// More than any code has, spaces included.
const LONGEST: usize = 128;

/// What is kept of an invitation.
pub struct Invitation {
    /// The hash of its code.
    pub hash: Sha256,
    /// The Unix second from which on it does not count.
    pub until: u64,
    /// Whether the account had a factor when it was invited to one more.
    adds: bool,
}

impl Invitation {
    fn read(content: &[u8]) -> Option<Self> {
        let (hash, rest) = content.split_first_chunk::<32>()?;
        let (until, adds) = rest.split_first_chunk::<8>()?;
        Some(Self {
            hash: *hash,
            until: u64::from_be_bytes(*until),
            adds: *adds == [1],
        })
    }

    /// An account that was to get its first factor may have got one since, by another way.
    fn fits(&self, account: &Account) -> bool {
        self.adds || !account.is_enrolled()
    }
}

impl Accounts {
    /// Invites the account at `now` (Unix seconds), in place of any invitation of before: to a first factor, or to one more
    /// where it has one. Gives the code, which is told nowhere else: 26 letters and digits in groups.
    pub fn invite(&self, account: &mut Account, now: u64) -> Zeroizing<String> {
        let mut bytes = Zeroizing::new([0; CODE_BYTES]);
        rng::fill(&mut *bytes);
        let code = base32(&*bytes);
        let invitation = Invitation {
            hash: sha256(code.as_bytes()),
            until: now.saturating_add(INVITATION.as_secs()),
            adds: account.is_enrolled(),
        };
        account.invitation = Some(self.sealed(account, &invitation));
        grouped(&code)
    }

    /// The account's invitation, where this is its code and it still counts: the day is not over, and the account has no factor
    /// or had one when it was invited. Capitals, spaces and hyphens do not matter.
    ///
    /// # Errors
    /// [`AccountError::Sealed`].
    pub fn invited(
        &self,
        account: &Account,
        code: &str,
        now: u64,
    ) -> Result<Option<Invitation>, AccountError> {
        let invitation = self.invitation(account, now)?;
        Ok(invitation.filter(|invitation| {
            let hash = sha256(plain(code).as_bytes());
            invitation.fits(account)
                && code.len() <= LONGEST
                && bool::from(invitation.hash.ct_eq(&hash))
        }))
    }

    /// Whether an invitation would add something to what the account has. One that does not open adds nothing.
    pub fn may_be_added_to(&self, account: &Account, now: u64) -> bool {
        let invitation = self.invitation(account, now).ok().flatten();
        invitation.is_some_and(|invitation| invitation.adds)
    }

    /// Seals the invitation with the newest key; one that is over goes. What does not open stays as it is.
    pub(super) fn renew_invitation(&self, account: &mut Account, now: u64) {
        if let Ok(invitation) = self.invitation(account, now) {
            account.invitation = invitation.map(|invitation| self.sealed(account, &invitation));
        }
    }

    /// What was sealed; `None` where nothing was, or the time is over.
    fn invitation(&self, account: &Account, now: u64) -> Result<Option<Invitation>, AccountError> {
        let Some(sealed) = &account.invitation else {
            return Ok(None);
        };
        match self.seal.open(&purpose("invitation", account), sealed, now) {
            Ok(opened) => Ok(Invitation::read(&opened)),
            Err(Unopened::Expired) => Ok(None),
            Err(why) => Err(why.into()),
        }
    }

    fn sealed(&self, account: &Account, invitation: &Invitation) -> String {
        let Invitation { hash, until, adds } = invitation;
        let content = [&hash[..], &until.to_be_bytes(), &[u8::from(*adds)]].concat();
        self.seal
            .seal(&purpose("invitation", account), *until, &content)
    }

    /// States that the invitation was used.
    pub fn end_invitation(account: &mut Account) {
        account.invitation = None;
    }
}

fn plain(code: &str) -> Zeroizing<String> {
    let signs = code.chars().filter(|sign| !matches!(sign, '-' | ' '));
    Zeroizing::new(signs.map(|sign| sign.to_ascii_uppercase()).collect())
}

fn grouped(code: &str) -> Zeroizing<String> {
    let mut out = Zeroizing::new(String::with_capacity(code.len().saturating_mul(2)));
    for (at, sign) in code.chars().enumerate() {
        if at > 0 && at % 4 == 0 {
            out.push('-');
        }
        out.push(sign);
    }
    out
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{crypto::seal::Seal, state::sessions::Owner};

    const NOW: u64 = 1_800_000_000;

    fn desk() -> (Accounts, Account) {
        let accounts = Accounts::new("none".into(), Arc::new(Seal::new([&[7; 32]])));
        (accounts, account("alice"))
    }

    fn account(subject: &str) -> Account {
        Account::new(&Owner {
            issuer: "corp".into(),
            subject: subject.into(),
        })
    }

    #[test]
    fn a_code_counts_for_its_account_and_a_day() {
        let (accounts, mut alice) = desk();
        let code = accounts.invite(&mut alice, NOW);
        assert_eq!(code.len(), 26 + 6);
        let counts = |account: &Account, code: &str, now| {
            accounts.invited(account, code, now).unwrap().is_some()
        };
        for good in [
            code.to_string(),
            code.to_lowercase(),
            code.replace('-', " "),
            code.replace('-', ""),
        ] {
            assert!(counts(&alice, &good, NOW), "{good}");
        }
        assert!(counts(&alice, &code, NOW + 86_399));
        assert!(!counts(&alice, &code, NOW + 86_400));
        for bad in [
            "",
            "-",
            &code[1..],
            &format!("{}A", *code),
            &"A".repeat(10_000),
        ] {
            assert!(!counts(&alice, bad, NOW), "{bad}");
        }
        assert!(!counts(&account("alice"), &code, NOW), "not invited");
        let text = serde_json::to_string(&alice).unwrap();
        assert!(!text.contains(&code[..4]), "{text}");
        Accounts::end_invitation(&mut alice);
        assert!(!counts(&alice, &code, NOW), "used");
    }

    #[test]
    fn a_newer_invitation_ends_the_one_before() {
        let (accounts, mut alice) = desk();
        let old = accounts.invite(&mut alice, NOW);
        let new = accounts.invite(&mut alice, NOW);
        assert_ne!(old, new);
        assert!(accounts.invited(&alice, &old, NOW).unwrap().is_none());
        assert!(accounts.invited(&alice, &new, NOW).unwrap().is_some());
    }

    #[test]
    fn nobody_is_invited_by_what_was_pasted_into_the_file() {
        let (accounts, mut alice) = desk();
        let code = accounts.invite(&mut alice, NOW);
        let mut bob = account("bob");
        bob.invitation = alice.invitation;
        let refused = accounts.invited(&bob, &code, NOW);
        assert!(matches!(
            refused,
            Err(AccountError::Sealed(Unopened::Forged))
        ));
    }

    #[test]
    fn b34_an_invitation_counts_for_what_it_was_given_for() {
        let (accounts, mut alice) = desk();
        let counts = |account: &Account, code: &str| {
            let invited = accounts.invited(account, code, NOW).unwrap();
            invited.is_some()
        };
        let first = accounts.invite(&mut alice, NOW);
        let secret = crate::crypto::secret::Secret::new(b"12345678901234567890".to_vec());
        accounts.put_totp(&mut alice, &secret, (0, 0));
        assert!(!counts(&alice, &first), "it has got a factor since");
        assert!(!accounts.may_be_added_to(&alice, NOW));
        let more = accounts.invite(&mut alice, NOW);
        assert!(counts(&alice, &more));
        assert!(accounts.may_be_added_to(&alice, NOW));
    }

    #[test]
    fn b37_an_invitation_is_sealed_anew_and_ends_when_it_did() {
        let (old, new) = (&[7; 32], &[8; 32]);
        let rotated = Accounts::new("none".into(), Arc::new(Seal::new([new, old])));
        let later = Accounts::new("none".into(), Arc::new(Seal::new([new])));
        let (accounts, mut alice) = desk();
        let code = accounts.invite(&mut alice, NOW);
        assert!(later.invited(&alice, &code, NOW).is_err());
        rotated.renew_invitation(&mut alice, NOW);
        let counts = |now| later.invited(&alice, &code, now).unwrap().is_some();
        assert!(counts(NOW + 86_399));
        assert!(!counts(NOW + 86_400));
        later.renew_invitation(&mut alice, NOW + 86_400);
        assert_eq!(alice.invitation, None);
    }
}
