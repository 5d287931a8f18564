//! Passkeys as second factor, and what somebody enrols in the browser: a passkey, or an authenticator app.
//!
//! It takes an invitation, which proves with what is enrolled by it; or a passkey of the account that was shown just now for that
//! very purpose, and then the session stays as it is. A code of an app enrols nothing: people type it into forged pages too, and
//! it must not become something that asks for more than a code.

use super::{Caller, Found, METHODS, SecondFactor, Verdict};
use crate::{
    crypto::{digest::sha256_of, secret::Secret},
    identity::{
        account::{Account, AccountError, Accounts, Invitation, MOST_PASSKEYS, name_of},
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

/// How lately a passkey must have been shown for one more factor to be enrolled, in seconds.
const LATELY: u64 = 300;

/// What the account of somebody has, as far as a page shows it.
#[derive(Clone, Debug, Default)]
pub struct Enrolled {
    /// Whether it has an authenticator app.
    pub app: bool,
    /// The ids of its passkeys.
    pub passkeys: Vec<Box<[u8]>>,
    /// What authenticators call it.
    pub handle: Box<str>,
    /// Whether it is invited to enrol one more beside what it has.
    pub invited: bool,
}

impl Enrolled {
    /// Whether it has a factor.
    pub fn any(&self) -> bool {
        self.app || !self.passkeys.is_empty()
    }
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

impl Enrolment<'_> {
    /// The word for the log.
    fn kind(&self) -> &'static str {
        match self {
            Self::App(..) => "app",
            Self::Passkey(..) => "passkey",
        }
    }
}

impl Right<'_> {
    /// The word for the log.
    fn word(&self) -> &'static str {
        match self {
            Self::Invitation(_) => "invitation",
            Self::Factor(_) => "factor",
        }
    }
}

/// What lets somebody enrol.
enum Grant {
    /// An invitation, which is used up by it.
    Invited(Invitation),
    /// What was shown.
    Shown,
}

/// Whether somebody who has shown this may enrol one more at `now` (Unix seconds): a passkey, just now, for that very purpose.
pub fn adds(shown: &Factor, now: u64) -> bool {
    shown.enrols && shown.methods.contains(&"pop") && now.saturating_sub(shown.at) <= LATELY
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
            handle: account.handle().into(),
            invited: self
                .accounts
                .may_be_added_to(&account, clock::unix_seconds()),
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
                    let Owner { issuer, subject } = &caller.owner;
                    tracing::warn!(
                        %issuer, %subject,
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
        self.attempt(caller, |account, turn| {
            let now = clock::unix_seconds();
            let invited = self.accounts.invited(&account, code, now)?;
            let counts = invited.is_some_and(|invited| !turn.is_spent(&invited.hash, now));
            Ok(if counts {
                Found::Invited
            } else {
                Found::Wrong("invitation")
            })
        })
    }

    /// Enrols something. Whoever does so by an invitation has shown it by that.
    pub fn enrol(&self, caller: &Caller, right: &Right<'_>, new: &Enrolment<'_>) -> Verdict {
        let verdict = self.attempt(caller, |mut account, turn| {
            let Some(grant) = self.grant(&account, right)? else {
                return Ok(Found::Wrong("invitation"));
            };
            let put = match new {
                Enrolment::App(secret, code) => {
                    self.put_app(&mut account, (secret, *code), (caller, turn))
                }
                Enrolment::Passkey(challenge, made) => {
                    self.add_passkey(&mut account, *challenge, made)?
                }
            };
            Ok(match put {
                Ok(methods) => spend(&grant, turn, (account, methods)),
                Err(why) => Found::Wrong(why),
            })
        });
        if matches!(verdict, Verdict::Right(_) | Verdict::Enrolled) {
            let Owner { issuer, subject } = &caller.owner;
            let (kind, right) = (new.kind(), right.word());
            tracing::info!(%issuer, %subject, kind, right, "a second factor was enrolled");
        }
        verdict
    }

    fn grant(&self, account: &Account, right: &Right<'_>) -> Result<Option<Grant>, AccountError> {
        Ok(match right {
            Right::Invitation(code) => {
                let now = clock::unix_seconds();
                let invited = self.accounts.invited(account, code, now)?;
                invited.map(Grant::Invited)
            }
            Right::Factor(shown) => {
                let stands = account.is_enrolled() && *account.mark() == *shown.mark;
                (stands && adds(shown, clock::unix_seconds())).then_some(Grant::Shown)
            }
        })
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

/// Uses up what let somebody enrol. The memory counts beside the file, which somebody may have put back to what it was.
fn spend(
    grant: &Grant,
    turn: &Turn<'_>,
    (mut account, methods): (Account, &'static [&'static str]),
) -> Found {
    let Grant::Invited(invitation) = grant else {
        return Found::Enrolled(Box::new(account), None);
    };
    let now = clock::unix_seconds();
    if turn.spend(&invitation.hash, invitation.until, now) != Seen::Fresh {
        return Found::Wrong("invitation");
    }
    Accounts::end_invitation(&mut account);
    Found::Enrolled(Box::new(account), Some(methods))
}
