//! Passkeys as second factor, and what somebody enrols in the browser: a passkey, or an authenticator app.
//!
//! An account without a factor needs an invitation for it, one with a factor must have shown it just now.

use super::{Caller, Found, METHODS, SecondFactor, Verdict};
use crate::{
    crypto::{
        digest::{Sha256, sha256_of},
        secret::Secret,
    },
    identity::{
        account::{Account, AccountError, Accounts, MOST_PASSKEYS, name_of},
        totp::{self, Code},
        webauthn::{Assertion, Challenge, Passkey, Registration, RelyingParty, WebauthnError},
    },
    state::{
        clock,
        replay::Seen,
        sessions::{Factor, Owner},
        tries::Turn,
    },
};

/// How a passkey proves somebody (RFC 8176): that he holds the key, and was there. Whether the key is in hardware (`hwk`)
/// only attestation could tell, which is not asked for.
pub const PASSKEY_METHODS: &[&str] = &["pop", "user"];

/// What the account of somebody has, as far as a page shows it.
#[derive(Clone, Debug, Default)]
pub struct Enrolled {
    /// Whether it has an authenticator app.
    pub app: bool,
    /// The ids of its passkeys.
    pub passkeys: Vec<Box<[u8]>>,
}

/// What somebody enrols.
#[derive(Debug)]
pub enum Enrolment<'a> {
    /// An authenticator app with this secret, and a code of it.
    App(&'a Secret, Option<Code>),
    /// A passkey that was made for this challenge.
    Passkey(Option<Challenge>, Registration<'a>),
}

/// By what right somebody enrols.
#[derive(Debug)]
pub enum Right<'a> {
    /// The code of an invitation.
    Invitation(&'a str),
    /// A factor of the account that was shown just now, and not replaced since.
    Factor(&'a Factor),
}

/// What an authenticator calls the account: not its name, and not that of its file.
pub fn handle_of(owner: &Owner) -> Sha256 {
    sha256_of(&[b"passkey user ", &name_of(owner)])
}

impl SecondFactor {
    /// The same factor, for which passkeys of this party count too.
    #[must_use]
    pub fn with_passkeys(mut self, party: Option<RelyingParty>) -> Self {
        self.party = party;
        self
    }

    /// The party whose passkeys count.
    pub fn party(&self) -> Option<&RelyingParty> {
        self.party.as_ref()
    }

    /// What the account has. It reads a file.
    ///
    /// # Errors
    /// See [`AccountError`].
    pub fn enrolled(&self, owner: &Owner) -> Result<Enrolled, AccountError> {
        let Some(account) = self.accounts.load(owner)? else {
            return Ok(Enrolled::default());
        };
        let passkeys = self.accounts.passkeys(&account)?.into_iter();
        Ok(Enrolled {
            app: account.totp.is_some(),
            passkeys: passkeys.map(|passkey| passkey.id).collect(),
        })
    }

    /// Looks at what an authenticator shows; `challenge` is what it was asked, if that still counts.
    pub fn check_passkey(
        &self,
        caller: &Caller,
        challenge: Option<Challenge>,
        shown: &Assertion<'_>,
    ) -> Verdict {
        self.attempt(caller, |mut account, _| {
            if !account.is_enrolled() {
                return Ok(Found::Nothing);
            }
            let mut passkeys = self.accounts.passkeys(&account)?;
            if let Err(why) = self.shows_one_of(&mut passkeys, challenge, shown) {
                if why == WebauthnError::Counter {
                    let subject = &*caller.owner.subject;
                    tracing::warn!(
                        subject,
                        "a passkey may have been copied: its counter went back"
                    );
                }
                return Ok(Found::Wrong(why.code()));
            }
            self.accounts.put_passkeys(&mut account, &passkeys);
            Ok(Found::Right(Box::new(account), PASSKEY_METHODS))
        })
    }

    /// Moves on the counter of the passkey that is shown.
    fn shows_one_of(
        &self,
        passkeys: &mut [Passkey],
        challenge: Option<Challenge>,
        shown: &Assertion<'_>,
    ) -> Result<(), WebauthnError> {
        let mut own = passkeys.iter_mut();
        let passkey = own.find(|passkey| *passkey.id == *shown.credential);
        let (Some(party), Some(passkey)) = (&self.party, passkey) else {
            return Err(WebauthnError::Credential);
        };
        let challenge = challenge.ok_or(WebauthnError::Challenge)?;
        passkey.counter = party.verify(&challenge, shown, passkey)?.counter;
        Ok(())
    }

    /// Looks at the code of an invitation; it still counts afterwards.
    pub fn check_invitation(&self, caller: &Caller, code: &str) -> Verdict {
        self.attempt(caller, |account, _| {
            let invited = self
                .accounts
                .is_invited(&account, code, clock::unix_seconds())?;
            Ok(if invited {
                Found::Invited
            } else {
                Found::Wrong("invitation")
            })
        })
    }

    /// Enrols something, which has been shown by that.
    pub fn enrol(&self, caller: &Caller, right: &Right<'_>, new: &Enrolment<'_>) -> Verdict {
        self.attempt(caller, |mut account, turn| {
            if !self.may_enrol(&account, right)? {
                return Ok(Found::Wrong("invitation"));
            }
            let put = match new {
                Enrolment::App(secret, code) => {
                    self.put_app(&mut account, (secret, *code), (caller, turn))
                }
                Enrolment::Passkey(challenge, made) => {
                    self.add_passkey(&mut account, *challenge, made)?
                }
            };
            Ok(match put {
                Ok(methods) => {
                    Accounts::end_invitation(&mut account);
                    Found::Right(Box::new(account), methods)
                }
                Err(why) => Found::Wrong(why),
            })
        })
    }

    fn may_enrol(&self, account: &Account, right: &Right<'_>) -> Result<bool, AccountError> {
        match right {
            Right::Invitation(code) => {
                let now = clock::unix_seconds();
                self.accounts.is_invited(account, code, now)
            }
            Right::Factor(shown) => Ok(account.is_enrolled() && *account.mark() == *shown.mark),
        }
    }

    fn put_app(
        &self,
        account: &mut Account,
        (secret, code): (&Secret, Option<Code>),
        (caller, turn): (&Caller, &Turn<'_>),
    ) -> Result<&'static [&'static str], &'static str> {
        if account.totp.is_some() {
            return Err("app-known");
        }
        let now = clock::unix_seconds();
        let step = code.and_then(|code| totp::step_of(secret, code, now));
        let step = step.ok_or("wrong")?;
        let name = sha256_of(&[&name_of(&caller.owner), &step.to_be_bytes()]);
        if turn.spend(&name, totp::end_of(step), now) != Seen::Fresh {
            return Err("again");
        }
        self.accounts.put_totp(account, secret, (now, step));
        Ok(METHODS)
    }

    /// That another account has a passkey of this id does no harm: one is only ever looked for in the caller's own account.
    fn add_passkey(
        &self,
        account: &mut Account,
        challenge: Option<Challenge>,
        made: &Registration<'_>,
    ) -> Result<Result<&'static [&'static str], &'static str>, AccountError> {
        let mut passkeys = self.accounts.passkeys(account)?;
        if passkeys.len() >= MOST_PASSKEYS {
            return Ok(Err("passkeys-full"));
        }
        let Some(party) = &self.party else {
            return Ok(Err("passkeys-off"));
        };
        let new = challenge
            .ok_or(WebauthnError::Challenge)
            .and_then(|challenge| party.register(&challenge, made));
        let new = match new {
            Ok(new) => new,
            Err(why) => return Ok(Err(why.code())),
        };
        if passkeys.iter().any(|passkey| passkey.id == new.id) {
            return Ok(Err("passkey-known"));
        }
        passkeys.push(new);
        self.accounts.put_passkeys(account, &passkeys);
        Ok(Ok(PASSKEY_METHODS))
    }
}
