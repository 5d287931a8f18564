//! HTTP message signatures (RFC 9421): who signed a request, and that what was signed is what came.
//!
//! `input` reads the fields, `base` writes what was signed, `key` checks it, `digest` binds the body (RFC 9530). A
//! signature must cover what says which request it is: by default the method, the whole target and, where there is a
//! body, its digest; of a WebSocket handshake a field that only such requests have; and it must say when it was made. The key decides the algorithm. Responses are not signed here, and
//! the signatures of several parties over one request are looked at one at a time: exactly one must be of a signer that
//! counts.

pub mod base;
pub mod digest;
pub mod input;
pub mod key;

use http::{HeaderName, header};

use self::{
    base::{BaseError, signature_base},
    digest::{CONTENT_DIGEST, ContentDigest, DigestError, content_digest},
    input::{Component, Form, InputError, Part, Signature, signatures},
    key::Key,
};
use super::{
    message::Message,
    once::{Once, Ticket, What},
};
use crate::{
    exchange::body_check::{BodyCheck, BodyError},
    wire::{hop::Upgrade, sfv::read::Bare},
};

/// Seconds by which a signature may be from the future: clocks differ.
pub const SKEW: u64 = 60;

/// What a signer's signatures must be like.
#[derive(Debug)]
pub struct HttpRules {
    /// The `keyid` of its signatures.
    pub key_id: Box<str>,
    /// The `tag` that they must have, if any.
    pub tag: Option<Box<str>>,
    /// What they must cover; `None` for the method and the whole target, in one form or another.
    pub components: Option<Vec<Component>>,
    /// Whether a body must be covered by its digest.
    pub digest: bool,
    /// Seconds for which they count after `created`.
    pub max_age: u64,
}

/// One who signs, with the keys that show it.
#[derive(Debug)]
pub struct HttpSigner {
    /// What is asked of its signatures.
    pub rules: HttpRules,
    /// Any of them may have signed; several during a rotation.
    pub keys: Vec<Key>,
    /// What of a signature may be used once.
    pub once: Option<Once>,
}

/// What a verified signature says of the body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BodyRule {
    /// It has these hashes.
    Digest(ContentDigest),
    /// It is empty, since nothing covers it.
    Empty,
    /// Anything: the signer need not cover it.
    Any,
}

/// What a signature has shown, and what is left.
#[derive(Debug)]
pub struct Signed {
    /// What the body must be.
    pub body: BodyRule,
    /// What counts once of it, unused so far.
    pub ticket: Option<Ticket>,
}

impl BodyCheck for ContentDigest {
    fn could_have(&self, bytes: usize) -> Result<(), BodyError> {
        if bytes > 0 && self.fits(b"") {
            return Err(BodyError::Invalid("digest"));
        }
        Ok(())
    }

    fn judge(&self, body: &[u8]) -> Result<(), BodyError> {
        if self.fits(body) {
            Ok(())
        } else {
            Err(BodyError::Invalid("digest"))
        }
    }
}

/// There must be no body, since nothing covers it.
#[derive(Debug)]
pub struct NoBody;

impl BodyCheck for NoBody {
    fn could_have(&self, bytes: usize) -> Result<(), BodyError> {
        if bytes == 0 {
            Ok(())
        } else {
            Err(BodyError::Invalid("body-not-covered"))
        }
    }

    fn judge(&self, body: &[u8]) -> Result<(), BodyError> {
        self.could_have(body.len())
    }
}

/// Why signatures do not count. The codes are for the log alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SignatureError {
    /// They cannot be read, or not without guessing which is meant.
    Unclear(&'static str),
    /// None of them is good.
    Invalid(&'static str),
}

impl From<InputError> for SignatureError {
    fn from(error: InputError) -> Self {
        match error {
            InputError::Malformed => Self::Unclear("signature-malformed"),
            InputError::TooMany => Self::Unclear("signature-too-large"),
            InputError::Unpaired => Self::Unclear("signature-unpaired"),
            InputError::Component => Self::Invalid("component-unknown"),
        }
    }
}

impl From<BaseError> for SignatureError {
    fn from(error: BaseError) -> Self {
        Self::Invalid(match error {
            BaseError::Absent => "component-absent",
            BaseError::Unspoken => "component-unknown",
            BaseError::Repeated => "component-repeated",
            BaseError::NotAscii => "component-not-ascii",
            BaseError::Structure => "component-structure",
        })
    }
}

impl From<DigestError> for SignatureError {
    fn from(error: DigestError) -> Self {
        Self::Invalid(match error {
            DigestError::Malformed => "digest-malformed",
            DigestError::Unknown => "digest-unknown",
        })
    }
}

/// Verifies the signature of the one signer by whom the request is signed; gives what stands beside that signer.
///
/// # Errors
/// [`SignatureError`]
pub fn verify<'s, T>(
    signers: &(impl Iterator<Item = (T, &'s HttpSigner)> + Clone),
    message: &Message<'_>,
) -> Result<(T, Signed), SignatureError> {
    let brought = signatures(message.headers)?;
    let mut meant = brought.iter().flat_map(|signature| {
        let named = signers.clone();
        named.filter_map(move |(beside, signer)| {
            let named = signer.is_named_by(signature);
            named.then_some((beside, signer, signature))
        })
    });
    let Some((beside, signer, signature)) = meant.next() else {
        return Err(SignatureError::Invalid("signer-unknown"));
    };
    if meant.next().is_some() {
        return Err(SignatureError::Unclear("several-signatures"));
    }
    let shown = signer.verify(signature, message)?;
    Ok((beside, shown))
}

impl HttpSigner {
    /// Whether a signature says that it is this signer's.
    fn is_named_by(&self, signature: &Signature) -> bool {
        signature.key_id.as_deref() == Some(&self.rules.key_id)
            && (self.rules.tag.is_none() || signature.tag == self.rules.tag)
    }

    /// Whether one signature could be of either.
    pub fn is_alike(&self, other: &Self) -> bool {
        let tags = (&self.rules.tag, &other.rules.tag);
        let tagged_apart = matches!(tags, (Some(one), Some(other)) if one != other);
        self.rules.key_id == other.rules.key_id && !tagged_apart
    }

    fn verify(
        &self,
        signature: &Signature,
        message: &Message<'_>,
    ) -> Result<Signed, SignatureError> {
        self.is_timely(signature, message.now)?;
        let components = signature.components.as_deref().map_err(|error| *error)?;
        let covered = |name: &HeaderName| covers_field(components, name);
        if !self.rules.are_met_by(components) || !message.tunnel_is_signed(covered) {
            return Err(SignatureError::Invalid("component-not-covered"));
        }
        let base = signature_base(message, signature)?;
        let spent = match self.once.as_ref().map(|once| &once.what) {
            Some(What::Nonce) => signature.nonce.as_deref().ok_or("nonce-missing"),
            // The bytes of an ECDSA signature can be changed by anybody without spoiling it; what it signs cannot.
            _ => Ok(&*base),
        };
        let spent = spent.map_err(SignatureError::Invalid)?;
        self.has_signed(signature, base.as_bytes())?;
        let body = self.body_rule(components, message)?;
        let ticket = match &self.once {
            Some(once) => {
                let ticket = once.ticket(spent.as_bytes(), message.now).if_unused();
                Some(ticket.ok_or(SignatureError::Invalid("replayed"))?)
            }
            None => None,
        };
        Ok(Signed { body, ticket })
    }

    fn is_timely(&self, signature: &Signature, now: u64) -> Result<(), SignatureError> {
        let second = |stated: i64| u64::try_from(stated).unwrap_or(0);
        let created = signature.created.map(second);
        let code = match created {
            None => "created-missing",
            Some(created) if created > now.saturating_add(SKEW) => "created-in-future",
            Some(created) if created.saturating_add(self.rules.max_age) < now => "too-old",
            Some(_) if signature.expires.is_some_and(|end| second(end) <= now) => "expired",
            Some(_) => return Ok(()),
        };
        Err(SignatureError::Invalid(code))
    }

    fn has_signed(&self, signature: &Signature, base: &[u8]) -> Result<(), SignatureError> {
        let named = signature.algorithm.as_deref();
        let fits = |key: &&Key| named.is_none_or(|named| named == key.algorithm());
        let mut keys = self.keys.iter().filter(fits).peekable();
        if keys.peek().is_none() {
            return Err(SignatureError::Invalid("algorithm"));
        }
        if keys.any(|key| key.verifies(base, &signature.bytes)) {
            Ok(())
        } else {
            Err(SignatureError::Invalid("signature"))
        }
    }

    fn body_rule(
        &self,
        components: &[Component],
        message: &Message<'_>,
    ) -> Result<BodyRule, SignatureError> {
        if components.iter().any(covers_digest) {
            Ok(BodyRule::Digest(content_digest(message.headers)?))
        } else if self.rules.digest {
            Ok(BodyRule::Empty)
        } else {
            Ok(BodyRule::Any)
        }
    }

    /// What its signatures must be like, as a member of `Accept-Signature` (RFC 9421 §5.1). `body`: there is one.
    pub fn wish(&self, body: bool, upgrade: Option<Upgrade>) -> String {
        let listed = self.rules.components.as_deref().unwrap_or_default();
        let mut wished = self.rules.components_text();
        if body && self.rules.digest && !listed.iter().any(covers_digest) {
            wished.push("\"content-digest\"");
        }
        let tunnel = header::SEC_WEBSOCKET_VERSION;
        if upgrade.is_some() && !covers_field(listed, &tunnel) {
            wished.push("\"sec-websocket-version\"");
        }
        let mut wish = ["(", &wished.join(" "), ");created"].concat();
        let mut algorithms = self.keys.iter().map(Key::algorithm);
        if let Some(first) = algorithms.next()
            && algorithms.all(|other| other == first)
        {
            wish.extend([";alg=\"", first, "\""]);
        }
        if let Some(tag) = &self.rules.tag {
            wish.push_str(";tag=");
            Bare::String(tag.clone()).write(&mut wish);
        }
        wish
    }
}

impl HttpRules {
    /// Whether what must be covered says which request it is.
    pub fn name_the_request(&self) -> bool {
        self.components.as_deref().is_none_or(names_the_request)
    }

    fn are_met_by(&self, covered: &[Component]) -> bool {
        match &self.components {
            Some(required) => required
                .iter()
                .all(|component| covers(covered, &component.part)),
            None => names_the_request(covered),
        }
    }

    fn components_text(&self) -> Vec<&str> {
        match &self.components {
            None => vec!["\"@method\"", "\"@target-uri\""],
            Some(required) => {
                let required = required.iter();
                required.map(|component| &*component.identifier).collect()
            }
        }
    }
}

fn covers(covered: &[Component], part: &Part) -> bool {
    covered.iter().any(|component| component.part == *part)
}

/// The method, and the whole target in one form or another.
fn names_the_request(covered: &[Component]) -> bool {
    let covers = |part| covers(covered, &part);
    let target = covers(Part::RequestTarget) || (covers(Part::Path) && covers(Part::Query));
    let whole = covers(Part::TargetUri) || (covers(Part::Authority) && target);
    covers(Part::Method) && whole
}

/// Whether the whole value of a field is covered, as it came.
fn covers_field(covered: &[Component], name: &HeaderName) -> bool {
    let is = |form: &Form| matches!(form, Form::Plain | Form::Bytes);
    let mut parts = covered.iter().map(|component| &component.part);
    parts.any(|part| matches!(part, Part::Field(field, form) if field == name && is(form)))
}

/// A digest of a kind that is known binds the body; a single member of the field is as good as all of it.
fn covers_digest(component: &Component) -> bool {
    match &component.part {
        Part::Field(name, form) if *name == CONTENT_DIGEST => match form {
            Form::Plain | Form::Strict | Form::Bytes => true,
            Form::Member(key) => matches!(&**key, "sha-256" | "sha-512"),
        },
        _ => false,
    }
}

#[cfg(test)]
mod tests;
