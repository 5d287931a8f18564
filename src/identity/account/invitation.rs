//! Invitations: a code that lets an account without a factor enrol one in its browser, once and for a day.
//!
//! Only its hash is kept, sealed until it ends: whoever may write the folder cannot invite.

use std::time::Duration;

use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use super::{Account, AccountError, Accounts, purpose};
use crate::{
    crypto::{digest::sha256, rng, seal::Unopened},
    identity::totp::base32,
};

/// How long an invitation counts.
pub const INVITATION: Duration = Duration::from_hours(24);

/// Random bytes of a code.
const CODE_BYTES: usize = 16;
/// More than any code has, spaces included.
const LONGEST: usize = 128;

impl Accounts {
    /// Invites the account at `now` (Unix seconds), in place of any invitation of before. Gives the code, which is told
    /// nowhere else: 26 letters and digits in groups.
    pub fn invite(&self, account: &mut Account, now: u64) -> Zeroizing<String> {
        let mut bytes = Zeroizing::new([0; CODE_BYTES]);
        rng::fill(&mut *bytes);
        let code = base32(&*bytes);
        let until = now.saturating_add(INVITATION.as_secs());
        let hash = sha256(code.as_bytes());
        account.invitation = Some(
            self.seal
                .seal(&purpose("invitation", account), until, &hash),
        );
        grouped(&code)
    }

    /// Whether this is the code of the account's invitation, and it still counts: the account has no factor, and the day is
    /// not over. Capitals, spaces and hyphens do not matter.
    ///
    /// # Errors
    /// [`AccountError::Sealed`].
    pub fn is_invited(
        &self,
        account: &Account,
        code: &str,
        now: u64,
    ) -> Result<bool, AccountError> {
        let Some(sealed) = account
            .invitation
            .as_ref()
            .filter(|_| !account.is_enrolled())
        else {
            return Ok(false);
        };
        match self.seal.open(&purpose("invitation", account), sealed, now) {
            Ok(hash) => Ok(
                code.len() <= LONGEST && bool::from(hash.ct_eq(&sha256(plain(code).as_bytes())))
            ),
            Err(Unopened::Expired) => Ok(false),
            Err(why) => Err(why.into()),
        }
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
        let counts =
            |account: &Account, code: &str, now| accounts.is_invited(account, code, now).unwrap();
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
        assert!(!accounts.is_invited(&alice, &old, NOW).unwrap());
        assert!(accounts.is_invited(&alice, &new, NOW).unwrap());
    }

    #[test]
    fn nobody_is_invited_by_what_was_pasted_into_the_file() {
        let (accounts, mut alice) = desk();
        let code = accounts.invite(&mut alice, NOW);
        let mut bob = account("bob");
        bob.invitation = alice.invitation;
        let refused = accounts.is_invited(&bob, &code, NOW);
        assert!(matches!(
            refused,
            Err(AccountError::Sealed(Unopened::Forged))
        ));
    }
}
