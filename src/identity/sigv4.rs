//! AWS Signature Version 4, verified: requests signed by the SDKs of AWS and by all that sign as they do.
//!
//! For `signer`. After "Signature Version 4 signing process" of the AWS General Reference and, for S3 and presigned
//! requests, "Authenticating Requests" of the S3 API Reference. The signature covers the judged form of a request, so a
//! path that was sent in another form passes only if that form was signed. Payloads signed piece by piece
//! (`STREAMING-…`) and version 4A are refused.

pub mod canonical;
pub mod credential;
mod days;
mod error;
mod stamp;
#[cfg(test)]
mod tests;

use std::time::Duration;

use subtle::ConstantTimeEq;

pub use self::error::{SigV4Error, Unclear};
use self::{
    canonical::{SignedHeaders, Style, canonical},
    credential::{Claim, Presigned, Scope},
    days::{Days, Keys, signing_key},
    stamp::Stamp,
};
use super::message::Message;
use crate::{
    crypto::{
        digest::{Sha256, sha256},
        hex,
        secret::Secret,
    },
    exchange::body_check::{BodyCheck, BodyError},
};

const UNSIGNED: &str = "UNSIGNED-PAYLOAD";

/// What is accepted of the holder of a key.
#[derive(Debug)]
pub struct Rules {
    /// The id of the key.
    pub key_id: Box<str>,
    /// Such as `eu-central-1`.
    pub region: Box<str>,
    /// Such as `execute-api`.
    pub service: Box<str>,
    /// The secrets of the key; several while they are changed.
    pub secrets: Vec<Secret>,
    /// The session token that has to come with it; without one no request may bring any.
    pub session_token: Option<Secret>,
    /// How far the date of a request may be from now.
    pub max_skew: Duration,
    /// The longest life of a presigned request; `None` refuses all of them.
    pub presigned: Option<Duration>,
    /// Whether a body may go unsigned.
    pub unsigned_payload: bool,
    /// Whether the escapes of a path are escaped once more.
    pub double_encode: bool,
}

/// A key and what is accepted of its holder.
#[derive(Debug)]
pub struct SigV4 {
    rules: Rules,
    days: Days,
}

/// What is left to prove once the head was looked at.
#[derive(Debug)]
pub enum Verified {
    /// Nothing: the body may be any.
    Whole,
    /// The caller is known, and the body has this hash.
    Body(Digest),
    /// The hash of the body is part of what is signed and stands nowhere in the head: not even the caller is known.
    Caller(Pending),
}

/// The hash that a body was signed with.
#[derive(Debug)]
pub struct Digest(Sha256);

impl BodyCheck for Digest {
    fn could_have(&self, bytes: usize) -> Result<(), BodyError> {
        if bytes > 0 && self.0 == sha256(b"") {
            return Err(BodyError::Invalid(SigV4Error::Body.code()));
        }
        Ok(())
    }

    fn judge(&self, body: &[u8]) -> Result<(), BodyError> {
        if sha256(body).ct_eq(&self.0).into() {
            Ok(())
        } else {
            Err(BodyError::Invalid(SigV4Error::Body.code()))
        }
    }
}

/// A signature over a body that has not come yet.
#[derive(Debug)]
pub struct Pending {
    sealed: Sealed,
    head: Vec<u8>,
}

impl BodyCheck for Pending {
    fn judge(&self, body: &[u8]) -> Result<(), BodyError> {
        let hash = hex::encode(&sha256(body));
        let checked = self.sealed.check(&self.head, &hash);
        checked.map_err(|error| BodyError::Invalid(error.code()))
    }
}

/// A signature with all that it takes to check it but the text.
#[derive(Debug)]
struct Sealed {
    keys: Keys,
    /// `AWS4-HMAC-SHA256`, date and scope, each a line.
    prefix: String,
    signature: [u8; 32],
}

impl Sealed {
    /// Whether one of the keys has signed this canonical request.
    fn check(&self, head: &[u8], payload: &str) -> Result<(), SigV4Error> {
        let text = [head, payload.as_bytes()].concat();
        let signed = [self.prefix.as_str(), &hex::encode(&sha256(&text))].concat();
        let verifies =
            |key: &crate::crypto::mac::MacKey| key.verifies(signed.as_bytes(), &self.signature);
        if self.keys.iter().any(verifies) {
            Ok(())
        } else {
            Err(SigV4Error::Signature)
        }
    }
}

/// What the head says of the body.
enum Payload<'a> {
    /// As the text has it, and what the body must be.
    Stated(&'a str, Option<Sha256>),
    /// Nothing.
    Unstated,
}

impl SigV4 {
    /// A key with its rules.
    pub fn new(rules: Rules) -> Self {
        Self {
            rules,
            days: Days::default(),
        }
    }

    /// The id of the key.
    pub fn key_id(&self) -> &str {
        &self.rules.key_id
    }

    /// Whether its signature may stand in the query.
    pub fn takes_presigned(&self) -> bool {
        self.rules.presigned.is_some()
    }

    /// Whether one signature could be of either.
    pub fn is_alike(&self, other: &Self) -> bool {
        let of = |key: &Self| {
            let rules = &key.rules;
            [&rules.key_id, &rules.region, &rules.service].map(Box::clone)
        };
        of(self) == of(other)
    }

    /// Whether the claim names the region and the service of this key.
    pub fn is_meant_by(&self, scope: &Scope) -> bool {
        *self.rules.region == *scope.region && *self.rules.service == *scope.service
    }

    /// Verifies a claim that names this key.
    ///
    /// # Errors
    /// Why it does not count.
    pub fn verify(&self, claim: &Claim, message: &Message<'_>) -> Result<Verified, SigV4Error> {
        let stamp = self.stamp(claim, message)?;
        if !self.is_meant_by(&claim.scope) || stamp.day() != claim.scope.day {
            return Err(SigV4Error::Scope);
        }
        let signed = SignedHeaders::parse(&claim.signed_headers)?;
        signed.cover(message)?;
        self.session_token(claim, message)?;
        let payload = self.payload(claim, message)?;
        let style = Style {
            double_encode: self.rules.double_encode,
            presigned: claim.presigned.is_some(),
        };
        let head = canonical(message, &signed, style)?;
        let sealed = self.seal(claim, &stamp);
        let Payload::Stated(text, body) = payload else {
            return Ok(Verified::Caller(Pending { sealed, head }));
        };
        sealed.check(&head, text)?;
        Ok(body.map_or(Verified::Whole, |body| Verified::Body(Digest(body))))
    }

    fn seal(&self, claim: &Claim, stamp: &Stamp) -> Sealed {
        let (day, region, service) = (stamp.day(), &*self.rules.region, &*self.rules.service);
        let make = || {
            let secrets = self.rules.secrets.iter();
            secrets
                .map(|secret| signing_key(secret, [day, region, service]))
                .collect()
        };
        Sealed {
            keys: self.days.keys(day, make),
            prefix: format!(
                "AWS4-HMAC-SHA256\n{}\n{day}/{region}/{service}/aws4_request\n",
                stamp.text
            ),
            signature: claim.signature,
        }
    }

    /// The date of the request, which must be near now or, presigned, not be over.
    fn stamp(&self, claim: &Claim, message: &Message<'_>) -> Result<Stamp, SigV4Error> {
        let skew = self.rules.max_skew.as_secs();
        let Some(presigned) = &claim.presigned else {
            let stamp = stated(message).ok_or(SigV4Error::Date)?;
            return if stamp.seconds.abs_diff(message.now) <= skew {
                Ok(stamp)
            } else {
                Err(SigV4Error::Date)
            };
        };
        let longest = self.rules.presigned.ok_or(SigV4Error::Presigned)?;
        let stamp = Stamp::parse(&presigned.date).ok_or(SigV4Error::Date)?;
        if stamp.seconds > message.now.saturating_add(skew) {
            return Err(SigV4Error::Date);
        }
        if message.now > stamp.seconds.saturating_add(presigned.expires) {
            return Err(SigV4Error::Expired);
        }
        if presigned.expires == 0 || presigned.expires > longest.as_secs() {
            return Err(SigV4Error::Presigned);
        }
        Ok(stamp)
    }

    fn session_token(&self, claim: &Claim, message: &Message<'_>) -> Result<(), SigV4Error> {
        let field = once(message, "x-amz-security-token").map_err(|_| SigV4Error::SessionToken)?;
        let stated = match (&claim.presigned, field) {
            (None, field) => field.map(str::as_bytes),
            (Some(Presigned { token, .. }), None) => token.as_deref().map(str::as_bytes),
            (Some(_), Some(_)) => return Err(SigV4Error::SessionToken),
        };
        let right = match (&self.rules.session_token, stated) {
            (None, None) => true,
            (Some(token), Some(stated)) => token.is(stated),
            _ => false,
        };
        if right {
            Ok(())
        } else {
            Err(SigV4Error::SessionToken)
        }
    }

    fn payload<'a>(&self, claim: &Claim, message: &Message<'a>) -> Result<Payload<'a>, SigV4Error> {
        let stated = once(message, "x-amz-content-sha256").map_err(|_| SigV4Error::PayloadHash)?;
        let unsigned = match (stated, &claim.presigned) {
            (Some(UNSIGNED), _) => true,
            (Some(text), _) if text.starts_with("STREAMING-") => {
                return Err(SigV4Error::Streaming);
            }
            (Some(text), _) => {
                let hash = hex::decode(text.as_bytes()).ok_or(SigV4Error::PayloadHash)?;
                return Ok(Payload::Stated(text, Some(hash)));
            }
            // Presigned requests to S3 leave the body open, as the address is made before there is one.
            (None, presigned) => presigned.is_some() && *self.rules.service == *"s3",
        };
        match (unsigned, self.rules.unsigned_payload) {
            (false, _) => Ok(Payload::Unstated),
            (true, true) => Ok(Payload::Stated(UNSIGNED, None)),
            // Without a body there is nothing that could be another one.
            (true, false) if claim.presigned.is_some() => {
                Ok(Payload::Stated(UNSIGNED, Some(sha256(b""))))
            }
            (true, false) => Err(SigV4Error::UnsignedPayload),
        }
    }
}

/// The date of a request whose signature stands in the header.
fn stated(message: &Message<'_>) -> Option<Stamp> {
    match once(message, "x-amz-date").ok()? {
        Some(text) => Stamp::parse(text),
        None => Stamp::of_http(once(message, "date").ok()??),
    }
}

/// A field that stands several times, or is no text.
struct Odd;

/// The one value of a field, if it is there.
fn once<'a>(message: &Message<'a>, name: &'static str) -> Result<Option<&'a str>, Odd> {
    let mut values = message.headers.get_all(name).iter();
    let Some(value) = values.next() else {
        return Ok(None);
    };
    if values.next().is_some() {
        return Err(Odd);
    }
    value.to_str().map(Some).map_err(|_| Odd)
}
