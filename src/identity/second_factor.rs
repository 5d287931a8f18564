//! The gate's own second factor (`[mfa]`): whether somebody whom the gate has identified also holds what is enrolled.
//!
//! A try waits for its turn, reads the account, looks, and writes the account before the factor counts: what cannot be
//! written has not been used and proves nothing. All of it blocks, so it is not for a thread that serves. Whom the factor
//! is asked of, and what is shown, is decided elsewhere.

mod passkey;

use std::{net::IpAddr, sync::Arc, time::Duration};

pub use passkey::{Enrolled, Enrolment, PASSKEY_METHODS, Right, adds};

use super::{
    account::{Account, AccountError, Accounts, name_of},
    session::SessionCookie,
    totp::{self, Code},
    webauthn::{RelyingParty, WebauthnError},
};
use crate::{
    crypto::digest::{Sha256, sha256_of},
    state::{
        clock,
        limiter::{KeyHasher, KeyKind},
        replay::Seen,
        sessions::{Factor, Id, Owner},
        tries::{Outcome, Tries, Turn},
    },
};

/// What the gate can prove of somebody (`amr`, RFC 8176): a one-time code.
pub const METHODS: &[&str] = &["otp"];

/// The compiled sections `[session]` and `[mfa]`.
#[derive(Debug)]
pub struct SecondFactor {
    /// The cookie of the gate.
    pub session: SessionCookie,
    /// What was enrolled.
    pub accounts: Accounts,
    /// What authenticator apps show beside the account.
    pub service: Box<str>,
    class: Arc<str>,
    /// Whose passkeys count; none do without it.
    party: Option<RelyingParty>,
    tries: Arc<Tries>,
    hasher: KeyHasher,
}

/// Who tries.
#[derive(Clone, Debug)]
pub struct Caller {
    /// The account.
    pub owner: Owner,
    /// The address.
    pub client: IpAddr,
    /// The session in which it is tried.
    pub session: Id,
}

/// What a look at a try has found.
#[derive(Debug)]
pub enum Found {
    /// It is right, proven in this way; the account is to be written.
    Right(Box<Account>, &'static [&'static str]),
    /// Something was enrolled; the account is to be written. Where that proves somebody, in this way.
    Enrolled(Box<Account>, Option<&'static [&'static str]>),
    /// It is wrong; the word for the log says why.
    Wrong(&'static str),
    /// It was right once.
    Again,
    /// The code of an invitation is right.
    Invited,
    /// It was right just now, in this very session.
    Repeated,
    /// The account has no such factor.
    Nothing,
}

/// What comes of a try.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The factor is proven.
    Right(Factor),
    /// It is not; the word for the log says why.
    Wrong(&'static str),
    /// One more factor is enrolled, which proves nothing.
    Enrolled,
    /// The code of an invitation is right, so that something may be enrolled.
    Invited,
    /// It was proven by the same a moment ago: the form came twice. The session has its new name.
    Repeated,
    /// Nothing is enrolled that could be.
    Unenrolled,
    /// Too many were wrong: how long it is until the next look.
    Limited(Duration),
    /// The account cannot be read or written.
    Unavailable,
}

impl SecondFactor {
    /// The factor that counts as `class`; `tries` and `hasher` are those of the running gate.
    pub fn new(
        session: SessionCookie,
        accounts: Accounts,
        (class, service): (&str, &str),
        (tries, hasher): (Arc<Tries>, KeyHasher),
    ) -> Self {
        Self {
            session,
            accounts,
            service: service.into(),
            class: class.into(),
            party: None,
            tries,
            hasher,
        }
    }

    /// What it counts as (`acr`).
    pub fn class(&self) -> &str {
        &self.class
    }

    /// Whether the account has anything enrolled. It reads a file.
    ///
    /// # Errors
    /// See [`AccountError`].
    pub fn is_enrolled(&self, owner: &Owner) -> Result<bool, AccountError> {
        let account = self.accounts.load(owner)?;
        Ok(account.is_some_and(|account| account.is_enrolled()))
    }

    /// Whether what was proven is still enrolled. It reads a file; one that cannot be read enrols nobody.
    pub fn still_stands(&self, owner: &Owner, proven: &Factor) -> bool {
        match self.accounts.load(owner) {
            Ok(account) => account.is_some_and(|account| *account.mark() == *proven.mark),
            Err(error) => {
                tracing::error!(%error, "an account of the second factor cannot be used");
                false
            }
        }
    }

    /// Looks at a code; `None` is one that is no code at all.
    pub fn check_code(&self, caller: &Caller, code: Option<Code>) -> Verdict {
        self.attempt(caller, |mut account, turn| {
            let Some(secret) = self.accounts.totp_secret(&account)? else {
                return Ok(Found::Nothing);
            };
            let now = clock::unix_seconds();
            let Some(step) = code.and_then(|code| totp::step_of(&secret, code, now)) else {
                return Ok(Found::Wrong("wrong"));
            };
            let used = account.totp.as_ref().map_or(0, |totp| totp.last_step);
            let (name, here) = names_of(caller, step);
            // The memory counts beside the file, which somebody may have put back to what it was.
            if step <= used || turn.spend(&name, totp::end_of(step), now) != Seen::Fresh {
                let repeated = turn.is_spent(&here, now);
                return Ok(if repeated {
                    Found::Repeated
                } else {
                    Found::Again
                });
            }
            // Where there is no room for it, a doubled form counts as a wrong one.
            turn.spend(&here, totp::end_of(step), now);
            self.accounts.put_totp(&mut account, &secret, (now, step));
            Ok(Found::Right(Box::new(account), &["otp"]))
        })
    }

    /// Has a try looked at when it is its turn. An account that cannot be written proves nothing.
    pub fn attempt(
        &self,
        caller: &Caller,
        look: impl FnOnce(Account, &Turn<'_>) -> Result<Found, AccountError>,
    ) -> Verdict {
        let client = self.hasher.client(caller.client);
        let account = self.hasher.value(KeyKind::Subject, &name_of(&caller.owner));
        let now = clock::now_ns();
        let turn = match self.tries.turn(client, account, now) {
            Ok(turn) => turn,
            Err(left) => {
                self.tries.count(Outcome::Limited);
                return Verdict::Limited(left);
            }
        };
        let (outcome, verdict) = match self.look_in_turn(caller, &turn, look) {
            Ok(found) => found,
            Err(error) => {
                tracing::error!(%error, "an account of the second factor cannot be used");
                (Outcome::Unavailable, Verdict::Unavailable)
            }
        };
        if is_guess(outcome, &verdict)
            && let Some(rest) = turn.fail(now)
        {
            let (seconds, Owner { issuer, subject }) = (rest.as_secs(), &caller.owner);
            tracing::warn!(
                %issuer, %subject, seconds,
                "somebody guesses at the second factor of an account, which now rests"
            );
        }
        self.tries.count(outcome);
        verdict
    }

    fn look_in_turn(
        &self,
        caller: &Caller,
        turn: &Turn<'_>,
        look: impl FnOnce(Account, &Turn<'_>) -> Result<Found, AccountError>,
    ) -> Result<(Outcome, Verdict), AccountError> {
        let Some(_held) = self.accounts.hold()? else {
            return Ok((Outcome::Unenrolled, Verdict::Unenrolled));
        };
        let account = self.accounts.load(&caller.owner)?;
        let account = account.unwrap_or_else(|| Account::new(&caller.owner));
        Ok(match look(account, turn)? {
            Found::Right(account, methods) => {
                (Outcome::Right, Verdict::Right(self.keep(account, methods)?))
            }
            Found::Enrolled(account, Some(methods)) => {
                let proven = self.keep(account, methods)?;
                (Outcome::Enrolled, Verdict::Right(proven))
            }
            Found::Enrolled(account, None) => {
                self.keep(account, &[])?;
                (Outcome::Enrolled, Verdict::Enrolled)
            }
            Found::Wrong(why) => (Outcome::Wrong, Verdict::Wrong(why)),
            Found::Invited => (Outcome::Right, Verdict::Invited),
            Found::Again => (Outcome::Again, Verdict::Wrong("again")),
            Found::Repeated => (Outcome::Again, Verdict::Repeated),
            Found::Nothing => (Outcome::Unenrolled, Verdict::Unenrolled),
        })
    }

    /// Writes the account, of which a factor was shown in this way.
    fn keep(
        &self,
        mut account: Box<Account>,
        methods: &'static [&'static str],
    ) -> Result<Factor, AccountError> {
        // So that a key is not needed once each account has shown some factor.
        self.accounts.renew(&mut account);
        self.accounts.save(&account)?;
        Ok(Factor {
            class: Arc::clone(&self.class),
            methods,
            at: clock::unix_seconds(),
            mark: account.mark().into(),
            enrols: false,
        })
    }
}

/// Nobody guesses by sending a form twice, nor by an answer to what is asked no more: the page was open for long.
fn is_guess(outcome: Outcome, verdict: &Verdict) -> bool {
    let late = Verdict::Wrong(WebauthnError::Challenge.code());
    matches!(outcome, Outcome::Wrong | Outcome::Again)
        && ![Verdict::Repeated, late].contains(verdict)
}

/// What stands for a step of an account that was used; and for one that was used under the caller's cookie.
fn names_of(caller: &Caller, step: u64) -> (Sha256, Sha256) {
    let (account, step) = (name_of(&caller.owner), step.to_be_bytes());
    let here = sha256_of(&[b"session ", &account, &step, caller.session.expose()]);
    (sha256_of(&[&account, &step]), here)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::{
        crypto::{seal::Seal, secret::Secret},
        state::sessions::Rules,
    };

    const SECRET: &[u8] = b"12345678901234567890";

    fn factor(folder: &Path) -> SecondFactor {
        let seal = Arc::new(Seal::new([&[7; 32]]));
        let rules = Rules {
            idle: 900,
            lifetime: 28_800,
            entries: 10,
        };
        let session = SessionCookie::new("c", Arc::clone(&seal), (rules, Arc::default()));
        let accounts = Accounts::new(folder.to_owned(), seal);
        let running = (Arc::default(), KeyHasher::new());
        SecondFactor::new(session, accounts, ("mfa", "app.example"), running)
    }

    fn enrolled(factor: &SecondFactor) -> Caller {
        let owner = Owner {
            issuer: "corp".into(),
            subject: "alice".into(),
        };
        let mut account = Account::new(&owner);
        let secret = Secret::new(SECRET.to_vec());
        factor.accounts.put_totp(&mut account, &secret, (0, 0));
        factor.accounts.save(&account).unwrap();
        Caller {
            owner,
            client: [192, 0, 2, 1].into(),
            session: session(1),
        }
    }

    fn session(number: u8) -> Id {
        Id::of(&[number; 32]).unwrap()
    }

    fn code() -> Code {
        let step = clock::unix_seconds() / totp::STEP;
        totp::code_of(&Secret::new(SECRET.to_vec()), step)
    }

    #[test]
    fn b33_what_cannot_be_written_proves_nothing_and_is_used_up() {
        let folder = tempfile::tempdir().unwrap();
        let factor = factor(folder.path());
        let caller = enrolled(&factor);
        let code = code();
        let kept = |account: Account, turn: &Turn<'_>| {
            let spent = turn.spend(&[1; 32], u64::MAX, 0);
            assert_eq!(spent, Seen::Fresh);
            std::fs::rename(folder.path(), folder.path().with_extension("gone")).unwrap();
            Ok(Found::Right(Box::new(account), METHODS))
        };
        assert_eq!(factor.attempt(&caller, kept), Verdict::Unavailable);
        std::fs::rename(folder.path().with_extension("gone"), folder.path()).unwrap();
        let again = |_: Account, turn: &Turn<'_>| {
            assert_eq!(turn.spend(&[1; 32], u64::MAX, 0), Seen::Again);
            Ok(Found::Again)
        };
        assert_eq!(factor.attempt(&caller, again), Verdict::Wrong("again"));
        assert!(matches!(
            factor.check_code(&caller, Some(code)),
            Verdict::Right(_)
        ));
    }

    #[test]
    fn b33_a_file_that_was_put_back_gives_no_code_back() {
        let folder = tempfile::tempdir().unwrap();
        let factor = factor(folder.path());
        let caller = enrolled(&factor);
        let code = Some(code());
        assert!(matches!(
            factor.check_code(&caller, code),
            Verdict::Right(_)
        ));
        let caller = Caller {
            session: session(2),
            ..caller
        };
        assert_eq!(factor.check_code(&caller, code), Verdict::Wrong("again"));
        enrolled(&factor);
        assert_eq!(factor.check_code(&caller, code), Verdict::Wrong("again"));
    }

    #[test]
    fn b33_a_form_that_comes_twice_proves_once_and_is_no_guess() {
        let folder = tempfile::tempdir().unwrap();
        let factor = factor(folder.path());
        let caller = enrolled(&factor);
        let code = Some(code());
        let first = factor.check_code(&caller, code);
        assert!(matches!(first, Verdict::Right(_)));
        for _ in 0..9 {
            assert_eq!(factor.check_code(&caller, code), Verdict::Repeated);
        }
        let other = Caller {
            session: session(2),
            ..caller
        };
        for _ in 0..5 {
            assert_eq!(factor.check_code(&other, code), Verdict::Wrong("again"));
        }
        let limited = factor.check_code(&other, code);
        assert!(matches!(limited, Verdict::Limited(_)));
    }

    #[test]
    fn b34_a_factor_that_was_replaced_stands_no_more_and_enrols_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let factor = factor(folder.path());
        let caller = enrolled(&factor);
        let Verdict::Right(shown) = factor.check_code(&caller, Some(code())) else {
            panic!("the right code");
        };
        let secret = Secret::new(SECRET.to_vec());
        let by = |shown: &Factor| {
            let new = Enrolment::App(&secret, None);
            factor.enrol(&caller, &Right::Factor(shown), &new)
        };
        let passkey = Factor {
            methods: PASSKEY_METHODS,
            enrols: true,
            ..shown.clone()
        };
        let enrol = || by(&passkey);
        assert!(factor.still_stands(&caller.owner, &shown));
        assert_eq!(enrol(), Verdict::Wrong("app-known"), "one is enough");
        for (what, enrols, methods, age) in [
            ("an app", true, METHODS, 0),
            ("what was shown for a page", false, PASSKEY_METHODS, 0),
            ("what was shown long ago", true, PASSKEY_METHODS, 301),
        ] {
            let other = Factor {
                methods,
                enrols,
                at: shown.at - age,
                ..shown.clone()
            };
            assert_eq!(by(&other), Verdict::Wrong("invitation"), "{what}");
        }
        let mut account = factor.accounts.load(&caller.owner).unwrap().unwrap();
        account.renew_mark();
        factor.accounts.save(&account).unwrap();
        assert!(!factor.still_stands(&caller.owner, &shown));
        assert_eq!(enrol(), Verdict::Wrong("invitation"));
        std::fs::remove_dir_all(folder.path()).unwrap();
        assert!(!factor.still_stands(&caller.owner, &shown));
    }

    #[test]
    fn nobody_is_proven_who_has_enrolled_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let factor = factor(folder.path());
        let caller = Caller {
            owner: Owner {
                issuer: "corp".into(),
                subject: "bob".into(),
            },
            client: [192, 0, 2, 1].into(),
            session: session(1),
        };
        assert!(!factor.is_enrolled(&caller.owner).unwrap());
        let code = Code::parse("000000");
        assert_eq!(factor.check_code(&caller, code), Verdict::Unenrolled);
        factor.accounts.save(&Account::new(&caller.owner)).unwrap();
        assert!(!factor.is_enrolled(&caller.owner).unwrap());
        assert_eq!(factor.check_code(&caller, code), Verdict::Unenrolled);
    }
}
