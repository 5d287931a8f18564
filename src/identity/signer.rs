//! Signers: those who sign their requests with a key of theirs. The frame that all schemes of signing share.
//!
//! A scheme reads what a request claims, verifies it over the judged form and says what is left for the body to prove.
//! What is done with that is not known here: the body is held and judged by the pipeline, the answer is the policy's.

use std::sync::Arc;

use http::{HeaderName, header::AUTHORIZATION};

use super::{
    http_signature::{
        self, BodyRule, HttpSigner, NoBody, Signed,
        input::{self, SIGNATURE, SIGNATURE_INPUT},
    },
    message::Message,
    once::Ticket,
    sigv4::{self, SigV4, SigV4Error, Verified},
    webhook::{Webhook, WebhookError},
};
use crate::{
    exchange::{Exchange, body_check::BodyCheck, principal::Principal},
    state::clock,
};

/// Somebody who signs requests.
#[derive(Debug)]
pub struct Signer {
    name: Box<str>,
    place: Box<str>,
    principal: Arc<Principal>,
    scheme: Scheme,
}

/// How somebody signs, with the key.
#[derive(Debug)]
pub enum Scheme {
    /// AWS Signature Version 4.
    SigV4(Box<SigV4>),
    /// HTTP message signatures (RFC 9421).
    Http(Box<HttpSigner>),
    /// A code over the body.
    Webhook(Arc<Webhook>),
}

/// The kinds of signatures that can be told apart in a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// AWS Signature Version 4.
    SigV4,
    /// HTTP message signatures (RFC 9421).
    Http,
    /// A code over the body.
    Webhook,
}

/// A caller whose signature holds as far as the head can show.
#[derive(Debug)]
pub struct Proven {
    /// The kind of the signature.
    pub family: Family,
    /// Who it is.
    pub principal: Arc<Principal>,
    /// What is left for the body to prove.
    pub body: Open,
    /// What counts once, where the head shows it.
    pub ticket: Option<Ticket>,
}

/// What is left for the body to prove.
#[derive(Debug)]
pub enum Open {
    /// Nothing.
    Nothing,
    /// That it is what was signed.
    Body(Box<dyn BodyCheck>),
    /// That the caller is who signed it: nobody is known before that.
    Caller(Box<dyn BodyCheck>),
}

/// Why a signature does not count, with the finer code for the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SignatureError {
    /// The credentials cannot be read without guessing.
    Unclear(&'static str),
    /// The signature is refused.
    Refused(Family, &'static str),
}

impl SignatureError {
    /// Whether nobody who has the key made this, as opposed to what came too late or was meant for elsewhere.
    pub fn is_forgery(self) -> bool {
        match self {
            Self::Unclear(code) | Self::Refused(_, code) => is_forged(code),
        }
    }
}

/// Whether a code for the log says that nobody who has the key made what came, body included.
pub fn is_forged(code: &str) -> bool {
    matches!(
        code,
        "credential-malformed"
            | "signature-malformed"
            | "unknown-key"
            | "signer-unknown"
            | "signature"
            | "body"
            | "digest"
    )
}

impl Signer {
    /// A signer by its name in the file and its place there, with whom it stands for.
    pub fn new((name, place): (&str, Box<str>), principal: Principal, scheme: Scheme) -> Self {
        Self {
            name: name.into(),
            place,
            principal: Arc::new(principal),
            scheme,
        }
    }

    /// Its name in the file.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its place in the file, such as `gate.toml:12`.
    pub fn place(&self) -> &str {
        &self.place
    }

    /// The kind of its signatures.
    pub fn family(&self) -> Family {
        match self.scheme {
            Scheme::SigV4(_) => Family::SigV4,
            Scheme::Http(_) => Family::Http,
            Scheme::Webhook(_) => Family::Webhook,
        }
    }

    /// How it signs.
    pub fn scheme(&self) -> &Scheme {
        &self.scheme
    }

    /// Fields that hold its credentials, beside `Authorization`.
    pub fn credentials(&self) -> Vec<HeaderName> {
        match &self.scheme {
            Scheme::SigV4(_) => vec![HeaderName::from_static("x-amz-security-token")],
            Scheme::Http(_) => vec![SIGNATURE_INPUT, SIGNATURE],
            Scheme::Webhook(webhook) => webhook.credentials(),
        }
    }

    fn is_brought(&self, message: &Message<'_>) -> bool {
        match &self.scheme {
            Scheme::SigV4(_) => sigv4::credential::is_brought(message),
            Scheme::Http(_) => input::is_brought(message.headers),
            Scheme::Webhook(webhook) => message.headers.contains_key(webhook.field()),
        }
    }
}

impl Family {
    /// Every kind.
    pub const ALL: [Self; 3] = [Self::SigV4, Self::Http, Self::Webhook];

    fn is_brought(self, signers: &[Arc<Signer>], message: &Message<'_>) -> bool {
        let mut own = signers.iter().filter(|signer| signer.family() == self);
        own.any(|signer| signer.is_brought(message))
    }
}

/// What the signature of a request is verified over.
pub fn message(exchange: &Exchange) -> Message<'_> {
    let target = exchange.target();
    Message {
        method: exchange.method(),
        scheme: exchange.scheme(),
        host: exchange.authority().as_str(),
        path: target.path(),
        query: target.query(),
        headers: exchange.headers(),
        upgrade: exchange.upgrade(),
        now: clock::unix_seconds_at(exchange.started),
    }
}

/// Whether a request brings a signature of a kind that one of these makes, good or bad.
pub fn is_brought(signers: &[Arc<Signer>], message: &Message<'_>) -> bool {
    signers.iter().any(|signer| signer.is_brought(message))
}

/// Whether a link could have brought the signature of a request, which is then no fault of who followed it. Where no
/// signature counts that stands in the query, what stands there excuses nothing.
pub fn may_be_linked(signers: &[Arc<Signer>], message: &Message<'_>) -> bool {
    takes_links(signers) && sigv4::credential::in_query(message)
}

fn takes_links(signers: &[Arc<Signer>]) -> bool {
    let takes = |signer: &Arc<Signer>| match &signer.scheme {
        Scheme::SigV4(key) => key.takes_presigned(),
        Scheme::Http(_) | Scheme::Webhook(_) => false,
    };
    signers.iter().any(takes)
}

/// Who signed a request, if it brings a signature.
///
/// # Errors
/// Why that does not count.
pub fn verify(
    signers: &[Arc<Signer>],
    message: &Message<'_>,
) -> Result<Option<Proven>, SignatureError> {
    let brought = |family: &Family| family.is_brought(signers, message);
    let mut brought = Family::ALL.into_iter().filter(brought);
    let Some(family) = brought.next() else {
        return Ok(None);
    };
    if brought.next().is_some() {
        return Err(SignatureError::Unclear("credential-in-two-places"));
    }
    match family {
        Family::SigV4 => by_sigv4(signers, message).map_err(|error| match error {
            SigV4Error::Unclear(_) => SignatureError::Unclear(error.code()),
            _ => SignatureError::Refused(family, error.code()),
        }),
        Family::Http => by_http(signers, message).map(Some),
        Family::Webhook => by_webhook(signers, message),
    }
}

fn by_sigv4(signers: &[Arc<Signer>], message: &Message<'_>) -> Result<Option<Proven>, SigV4Error> {
    // It could not pass, whatever it is: nothing is guessed by it, and whoever follows a link is no guesser.
    let in_query = sigv4::credential::in_query(message);
    if in_query && !takes_links(signers) && !message.headers.contains_key(AUTHORIZATION) {
        return Err(SigV4Error::Presigned);
    }
    let Some(claim) = sigv4::credential::presented(message)? else {
        return Ok(None);
    };
    let mut holders = signers.iter().filter_map(|signer| match &signer.scheme {
        Scheme::SigV4(key) if key.key_id() == claim.key_id => Some((signer, key)),
        _ => None,
    });
    let first = holders.next().ok_or(SigV4Error::UnknownKey)?;
    // One key may be known for several regions and services.
    let meant = holders.find(|(_, key)| key.is_meant_by(&claim.scope));
    let (signer, key) = if first.1.is_meant_by(&claim.scope) {
        first
    } else {
        meant.unwrap_or(first)
    };
    let body = match key.verify(&claim, message)? {
        Verified::Whole => Open::Nothing,
        Verified::Body(digest) => Open::Body(Box::new(digest)),
        Verified::Caller(pending) => Open::Caller(Box::new(pending)),
    };
    Ok(Some(Proven {
        family: Family::SigV4,
        principal: Arc::clone(&signer.principal),
        body,
        ticket: None,
    }))
}

fn by_http(signers: &[Arc<Signer>], message: &Message<'_>) -> Result<Proven, SignatureError> {
    let named = signers.iter().filter_map(|signer| match &signer.scheme {
        Scheme::Http(http) => Some((&signer.principal, &**http)),
        _ => None,
    });
    let (principal, Signed { body, ticket }) =
        http_signature::verify(&named, message).map_err(|error| match error {
            http_signature::SignatureError::Unclear(code) => SignatureError::Unclear(code),
            http_signature::SignatureError::Invalid(code) => {
                SignatureError::Refused(Family::Http, code)
            }
        })?;
    Ok(Proven {
        principal: Arc::clone(principal),
        family: Family::Http,
        body: match body {
            BodyRule::Digest(digest) => Open::Body(Box::new(digest)),
            BodyRule::Empty => Open::Body(Box::new(NoBody)),
            BodyRule::Any => Open::Nothing,
        },
        ticket,
    })
}

fn by_webhook(
    signers: &[Arc<Signer>],
    message: &Message<'_>,
) -> Result<Option<Proven>, SignatureError> {
    let mut found = None;
    for signer in signers {
        let Scheme::Webhook(webhook) = &signer.scheme else {
            continue;
        };
        let claim = webhook.claimed(message.headers, message.now);
        let claim = claim.map_err(|error| match error {
            WebhookError::Unclear(code) => SignatureError::Unclear(code),
            WebhookError::Invalid(code) => SignatureError::Refused(Family::Webhook, code),
        })?;
        let Some(claim) = claim else {
            continue;
        };
        let proven = Proven {
            principal: Arc::clone(&signer.principal),
            family: Family::Webhook,
            body: Open::Caller(Box::new(claim)),
            ticket: None,
        };
        if found.replace(proven).is_some() {
            return Err(SignatureError::Unclear("credential-in-two-places"));
        }
    }
    // Whatever the code covers, it does not cover that.
    if found.is_some() && message.upgrade.is_some() {
        return Err(SignatureError::Refused(Family::Webhook, "upgrade"));
    }
    Ok(found)
}
