//! The page on which somebody enrols a second factor: by an invitation, or after a passkey was shown for it.
//!
//! First the invitation, then the choice: a passkey, or an authenticator app, which counts once it has shown a code. What is
//! enrolled by an invitation has been shown by that, so it is answered as a factor that was proven; one more beside a passkey
//! proves nothing. An invitation is looked at in both steps and used up by the last.

use std::sync::Arc;

use super::{
    Portal, Visitor,
    answers::{back, invalid, shown, wrong_with},
    blocking, fields, page,
};
use crate::{
    crypto::secret::Secret,
    exchange::Exchange,
    identity::{
        account::MOST_PASSKEYS,
        second_factor::{Enrolled, Enrolment, Right, Verdict},
        totp::{self, Code},
        webauthn::{Challenge, Registration},
    },
    state::clock,
    wire::{
        halt::{Halt, Reason, Refusal, Stage},
        own_space,
    },
};

/// What a form brings to be enrolled.
enum New {
    App(Secret, Option<Code>),
    Passkey(Option<Challenge>, fields::Made),
}

/// What the page offers, and what is said beside it.
struct Step<'a> {
    invitation: Option<&'a str>,
    /// The secret that is on the page already.
    secret: Option<&'a Secret>,
    /// What was wrong, for the log and for the person.
    wrong: Option<(&'static str, &'static str)>,
}

impl Portal {
    /// What whoever comes may do here.
    pub(super) async fn enrol_page(&self, visitor: &Visitor) -> Result<Halt, Halt> {
        let enrolled = self.enrolled(visitor).await?;
        if visitor.fresh.is_some() {
            let step = Step {
                invitation: None,
                secret: None,
                wrong: None,
            };
            return self.offer(visitor, &enrolled, &step);
        }
        // A code enrols nothing, so that only an invitation is left to an account without a passkey.
        if !enrolled.passkeys.is_empty() && !enrolled.invited {
            return Ok(self.ask_first(visitor));
        }
        let why = if enrolled.any() {
            page::ONE_MORE
        } else {
            page::NONE_YET
        };
        Ok(shown(page::invitation(&visitor.asked(), (why, None))))
    }

    /// The way to the page of the factor, and from there back here.
    fn ask_first(&self, visitor: &Visitor) -> Halt {
        let now = clock::unix_seconds();
        let session = &self.factor.session;
        let sealed = session.seal_target(&visitor.id, own_space::ENROL, now);
        let words = [own_space::MFA, "?rt=", &sealed, own_space::WANTS_PASSKEY];
        back(&words.concat())
    }

    /// What a form brings: an invitation, or something to be enrolled.
    pub(super) async fn judge_enrolment(
        &self,
        visitor: &Visitor,
        form: &str,
        exchange: &mut Exchange,
    ) -> Result<Halt, Halt> {
        let invitation = fields::optional(form, "invitation")?;
        let Some(new) = self.new_of(visitor, form)? else {
            let code = invitation.ok_or_else(|| invalid("invitation"))?;
            return self.judge_invitation(visitor, &code, exchange).await;
        };
        if invitation.is_none() && visitor.fresh.is_none() {
            return Err(stale());
        }
        let kept = match &new {
            New::App(secret, _) => Some(secret.clone()),
            New::Passkey(..) => None,
        };
        let message = if kept.is_some() {
            page::WRONG
        } else {
            page::WRONG_PASSKEY
        };
        let (factor, caller) = (Arc::clone(&self.factor), visitor.caller.clone());
        let (code, shown) = (invitation.clone(), visitor.fresh.clone());
        let verdict = blocking(move || {
            let right = match (code.as_deref(), &shown) {
                (Some(code), _) => Right::Invitation(code),
                (None, Some(shown)) => Right::Factor(shown),
                (None, None) => return Verdict::Unenrolled,
            };
            let new = match &new {
                New::App(secret, code) => Enrolment::App(secret, *code),
                New::Passkey(challenge, made) => {
                    let made = Registration {
                        client_data: &made.client,
                        attestation: &made.attestation,
                    };
                    Enrolment::Passkey(*challenge, made)
                }
            };
            factor.enrol(&caller, &right, &new)
        });
        match verdict.await? {
            Verdict::Wrong("invitation") | Verdict::Unenrolled => Ok(uninvited(visitor)),
            Verdict::Wrong(detail) => {
                let enrolled = self.enrolled(visitor).await?;
                let step = Step {
                    invitation: invitation.as_deref(),
                    secret: kept.as_ref(),
                    wrong: Some((detail, message)),
                };
                self.offer(visitor, &enrolled, &step)
            }
            verdict => Ok(self.answer(verdict, visitor, exchange)),
        }
    }

    async fn judge_invitation(
        &self,
        visitor: &Visitor,
        code: &str,
        exchange: &mut Exchange,
    ) -> Result<Halt, Halt> {
        let (factor, caller) = (Arc::clone(&self.factor), visitor.caller.clone());
        let tried = code.to_owned();
        match blocking(move || factor.check_invitation(&caller, &tried)).await? {
            Verdict::Invited => {
                let enrolled = self.enrolled(visitor).await?;
                let step = Step {
                    invitation: Some(code),
                    secret: None,
                    wrong: None,
                };
                self.offer(visitor, &enrolled, &step)
            }
            Verdict::Wrong(_) | Verdict::Unenrolled => Ok(uninvited(visitor)),
            verdict => Ok(self.answer(verdict, visitor, exchange)),
        }
    }

    /// What is to be enrolled; `None` in the form of an invitation.
    fn new_of(&self, visitor: &Visitor, form: &str) -> Result<Option<New>, Halt> {
        let now = clock::unix_seconds();
        let session = &self.factor.session;
        if let Some(made) = fields::Made::read(form)? {
            // Whatever comes of it: a challenge counts once.
            let challenge = session.take_asked(&visitor.id, &made.client, now);
            return Ok(Some(New::Passkey(challenge, made)));
        }
        let Some(sealed) = fields::optional(form, "secret")? else {
            return Ok(None);
        };
        let secret = session.open_secret(&visitor.id, &sealed, now);
        let secret = secret.ok_or_else(|| invalid("secret"))?;
        let code = Code::parse(&fields::needed(form, "code")?);
        Ok(Some(New::App(secret, code)))
    }

    /// The page with what the account may have more.
    fn offer(&self, visitor: &Visitor, enrolled: &Enrolled, step: &Step<'_>) -> Result<Halt, Halt> {
        let has_room = enrolled.passkeys.len() < MOST_PASSKEYS;
        let ceremony = if has_room {
            self.ceremony(visitor, enrolled)?
        } else {
            None
        };
        let passkey = ceremony.map(|ceremony| page::Ceremony {
            new: Some((&enrolled.handle, &self.factor.service)),
            ..ceremony
        });
        let app = (!enrolled.app).then(|| {
            let secret = step.secret.cloned().unwrap_or_else(totp::fresh_secret);
            let subject = &visitor.caller.owner.subject;
            let (session, now) = (&self.factor.session, clock::unix_seconds());
            (
                totp::base32(secret.expose()),
                totp::enrolment(&self.factor.service, subject, &secret),
                session.seal_secret(&visitor.id, &secret, now),
            )
        });
        let offer = page::Offer {
            invitation: step.invitation,
            passkey,
            app: app
                .as_ref()
                .map(|(text, address, sealed)| (text.as_str(), address.as_str(), sealed.as_str())),
            passkeys: enrolled.passkeys.len(),
        };
        let message = step.wrong.map(|(_, message)| message);
        let page = page::offer(&visitor.asked(), message, &offer);
        Ok(match step.wrong {
            None => shown(page),
            Some((detail, _)) => wrong_with(detail, page),
        })
    }
}

/// The account has a factor, and it was not shown just now.
fn stale() -> Halt {
    let refusal = Refusal::new(Stage::Mfa, Reason::SecondFactorNeeded);
    refusal.detail("not-lately").into()
}

fn uninvited(visitor: &Visitor) -> Halt {
    let why = (page::ONE_MORE, Some(page::WRONG_INVITATION));
    let page = page::invitation(&visitor.asked(), why);
    wrong_with("invitation", page)
}
