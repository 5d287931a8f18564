//! Signatures of requests as a means of identification, with the signers that count on a route.
//!
//! Where only the body can show who signed, or that it is what was signed, the exchange is given that to prove. Bodies of
//! refusals never say which check failed; the access line does.

use std::{collections::BTreeMap, sync::Arc};

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, StatusCode, header, uri::PathAndQuery};

use super::{Books, Identified, refusal};
use crate::{
    config::{OneOrMany, Reader},
    exchange::{
        Exchange,
        body_check::{Unproven, Unspent},
    },
    identity::{
        signer::{self, Family, Open, Scheme, SignatureError, Signer},
        sigv4::credential,
    },
    wire::{
        halt::{Reason, Refusal},
        path::Target,
    },
};

const ACCEPT_SIGNATURE: HeaderName = HeaderName::from_static("accept-signature");

/// The signers of the file; `None` marks one whose own section has errors.
pub type SignerBook = BTreeMap<String, Option<Arc<Signer>>>;

/// Signatures of these signers.
#[derive(Debug)]
pub struct Signature {
    /// In the order of the file.
    signers: Vec<Arc<Signer>>,
}

/// Compiles `signers`.
pub(super) fn compile(reader: &Reader<'_>, books: &Books) -> Signature {
    let names = reader
        .get::<OneOrMany<String>>("signers")
        .map(|names| names.0)
        .unwrap_or_default();
    if names.is_empty() {
        reader.error(
            "signers",
            "no signer is named, so no signature could pass",
            Some("add `signers = [\"NAME\"]`".into()),
        );
    }
    let mut signers: Vec<Arc<Signer>> = Vec::new();
    for name in &names {
        match books.signers.get(name) {
            Some(Some(signer)) => {
                told_apart(&signers, signer, reader);
                signers.push(Arc::clone(signer));
            }
            Some(None) => {}
            None => reader.error(
                "signers",
                format!("there is no signer `{name}`"),
                Some(known(&books.signers)),
            ),
        }
    }
    Signature { signers }
}

fn known(signers: &SignerBook) -> String {
    let names: Vec<String> = signers.keys().map(|name| format!("`{name}`")).collect();
    if names.is_empty() {
        "add a section `[signers.NAME]`".to_owned()
    } else {
        format!("the file has {}", names.join(", "))
    }
}

/// A signature that two of the signers could have made is of neither.
fn told_apart(others: &[Arc<Signer>], signer: &Signer, reader: &Reader<'_>) {
    let twin = others.iter().find_map(|other| {
        let shared = match (other.scheme(), signer.scheme()) {
            (Scheme::SigV4(a), Scheme::SigV4(b)) if a.is_alike(b) => "key id, region and service",
            (Scheme::Http(a), Scheme::Http(b)) if a.is_alike(b) => "key id",
            (Scheme::Webhook(a), Scheme::Webhook(b)) if a.field() == b.field() => "field",
            _ => return None,
        };
        Some((other, shared))
    });
    if let Some((twin, shared)) = twin {
        let named = |signer: &Signer| format!("`{}` ({})", signer.name(), signer.place());
        let (one, other) = (named(twin), named(signer));
        reader.error(
            "signers",
            format!("signatures of {one} and {other} cannot be told apart: they have one {shared}"),
            Some("name one of them, which may have several keys".into()),
        );
    }
}

/// Fields that carry such credentials, which the backend does not see.
pub(super) fn credentials(reader: &Reader<'_>, books: &Books) -> Vec<HeaderName> {
    let signers = named(reader, books).into_iter();
    signers.flat_map(Signer::credentials).collect()
}

/// Whether such credentials may stand in the query, too.
pub(super) fn may_be_in_query(reader: &Reader<'_>, books: &Books) -> bool {
    let mut signers = named(reader, books).into_iter();
    signers.any(|signer| signer.family() == Family::SigV4)
}

fn named<'a>(reader: &Reader<'_>, books: &'a Books) -> Vec<&'a Signer> {
    let names = reader.get::<OneOrMany<String>>("signers");
    let names = names.map(|names| names.0).unwrap_or_default();
    let signers = names.iter().filter_map(|name| books.signers.get(name));
    signers.flatten().map(|signer| &**signer).collect()
}

/// A target without the credentials in its query; `None` where there are none. Whatever else stands there is as it came.
pub(super) fn concealed(target: &Target) -> Option<PathAndQuery> {
    let others = credential::concealed(target.query()?)?;
    let text = match others.as_str() {
        "" => target.path().to_owned(),
        others => [target.path(), "?", others].concat(),
    };
    let left = PathAndQuery::from_maybe_shared(Bytes::from(text));
    Some(left.expect("whole parts of a target make a target"))
}

impl Signature {
    /// Whose signatures count, for `check -v` and `explain`.
    pub(super) fn explain(&self) -> String {
        let names: Vec<String> = self
            .signers
            .iter()
            .map(|signer| format!("`{}`", signer.name()))
            .collect();
        format!("signature of {}", names.join(" or "))
    }

    /// Whether the request brings a signature, well-formed or not.
    pub(super) fn is_brought(&self, exchange: &Exchange) -> bool {
        signer::is_brought(&self.signers, &signer::message(exchange))
    }

    /// Whether a link could have brought the signature.
    pub(super) fn may_be_linked(&self, exchange: &Exchange) -> bool {
        signer::may_be_linked(&self.signers, &signer::message(exchange))
    }

    /// Verifies the signature, if one came, as far as the head can show.
    ///
    /// # Errors
    /// 400 `invalid-request`, 401 or 403 `signature-invalid`, 503 `overloaded`.
    pub(super) fn identify(&self, exchange: &mut Exchange) -> Identified {
        let message = signer::message(exchange);
        let counts = !signer::may_be_linked(&self.signers, &message);
        let found = signer::verify(&self.signers, &message);
        let Some(proven) = found.map_err(|error| self.refused((error, counts), exchange))? else {
            return Ok(None);
        };
        exchange.unspent = proven.ticket.map(|ticket| {
            Box::new(Unspent {
                single: Box::new(ticket),
                refusal: self.invalid(proven.family, exchange),
                watched: false,
            })
        });
        let (check, caller) = match proven.body {
            Open::Nothing => return Ok(Some(proven.principal)),
            Open::Body(check) => (check, None),
            Open::Caller(check) => (check, Some(Arc::clone(&proven.principal))),
        };
        exchange.unproven = Some(Box::new(Unproven {
            check,
            refusal: Refusal {
                forged: counts,
                ..self.invalid(proven.family, exchange)
            },
            caller,
            watched: false,
        }));
        Ok(Some(proven.principal))
    }

    /// The refusal of a signature; what is forged `counts` against the client unless a link may have brought it.
    fn refused(&self, (error, counts): (SignatureError, bool), exchange: &Exchange) -> Refusal {
        let refusal = match error {
            SignatureError::Unclear(code) => refusal(Reason::InvalidRequest).detail(code),
            SignatureError::Refused(family, code) => self.invalid(family, exchange).detail(code),
        };
        Refusal {
            forged: counts && error.is_forgery(),
            ..refusal
        }
    }

    /// The one answer to a signature of this kind that does not count. AWS answers 403, which its SDKs know; elsewhere
    /// credentials that are not valid are 401, with what would be (RFC 9110 §15.5.2, RFC 9421 §5).
    fn invalid(&self, family: Family, exchange: &Exchange) -> Refusal {
        let refusal = refusal(Reason::SignatureInvalid);
        match family {
            Family::SigV4 => refusal,
            Family::Http | Family::Webhook => {
                let refusal = refusal.status(StatusCode::UNAUTHORIZED);
                self.challenge(refusal, exchange)
            }
        }
    }

    /// What a caller is told to bring: a scheme, as RFC 9110 §11.6.1 wants it with each 401, and what a message signature
    /// must be like. For the latter no scheme is registered, since it does not travel in `Authorization`; `Signature`
    /// names the field that it does travel in.
    pub(super) fn challenge(&self, refusal: Refusal, exchange: &Exchange) -> Refusal {
        let made = |family| self.signers.iter().any(|signer| signer.family() == family);
        let mut refusal = refusal;
        if made(Family::SigV4) {
            refusal = challenged(refusal, "AWS4-HMAC-SHA256", exchange);
        }
        if made(Family::Http) || made(Family::Webhook) {
            refusal = challenged(refusal, "Signature", exchange);
        }
        match self.wishes(exchange) {
            Some(wishes) => refusal.with(ACCEPT_SIGNATURE, wishes),
            None => refusal,
        }
    }

    /// `Accept-Signature` (RFC 9421 §5.1): what each signer's signatures must be like, each wish once.
    fn wishes(&self, exchange: &Exchange) -> Option<HeaderValue> {
        let body = may_have_body(exchange);
        let mut wishes: Vec<String> = Vec::new();
        for signer in &self.signers {
            if let Scheme::Http(http) = signer.scheme() {
                let wish = http.wish(body, exchange.upgrade());
                if !wishes.contains(&wish) {
                    wishes.push(wish);
                }
            }
        }
        let numbered = wishes.iter().zip(1_usize..);
        let members: Vec<String> = numbered.map(|(wish, n)| format!("sig{n}={wish}")).collect();
        if members.is_empty() {
            return None;
        }
        HeaderValue::from_str(&members.join(", ")).ok()
    }
}

/// What counts once cannot be remembered: it must not count at all.
pub fn no_room() -> Refusal {
    refusal(Reason::Overloaded)
        .detail("replay-store-full")
        .with(header::RETRY_AFTER, HeaderValue::from_static("60"))
}

fn may_have_body(exchange: &Exchange) -> bool {
    let method = exchange.method();
    let length = exchange.headers().get(header::CONTENT_LENGTH);
    match length {
        Some(length) => length != "0",
        None => *method != Method::GET && *method != Method::HEAD,
    }
}

fn challenged(refusal: Refusal, scheme: &str, exchange: &Exchange) -> Refusal {
    let value = [scheme, " realm=\"", exchange.authority().host(), "\""].concat();
    match HeaderValue::from_maybe_shared(bytes::Bytes::from(value)) {
        Ok(value) => refusal.with(header::WWW_AUTHENTICATE, value),
        Err(_) => refusal,
    }
}

#[cfg(test)]
mod tests {
    use super::{super::Books, compile};
    use crate::policy::trial::errors;

    #[test]
    fn a_route_names_signers_that_there_are() {
        let mut books = Books::default();
        let told = |text: &str, books: &Books| errors(text, |reader| compile(reader, books));
        assert_eq!(
            told("require = [\"signature\"]", &books)[0].1,
            "no signer is named, so no signature could pass"
        );
        let unknown = [(
            "\"robot\"".to_owned(),
            "there is no signer `robot`".to_owned(),
        )];
        assert_eq!(told("signers = \"robot\"", &books), unknown);
        // One whose own section has errors is known, and those are told there.
        books.signers.insert("robot".to_owned(), None);
        assert!(told("signers = [\"robot\"]", &books).is_empty());
    }
}
