//! Signatures of requests as a means of identification, with the signers that count on a route.
//!
//! Where only the body can show who signed, or that it is what was signed, the exchange is given that to prove. Bodies of
//! refusals never say which check failed; the access line does.

use std::{collections::BTreeMap, sync::Arc};

use http::{HeaderName, HeaderValue, header};

use super::{Books, Identified, refusal};
use crate::{
    config::{OneOrMany, Reader},
    exchange::{Exchange, body_check::Unproven},
    identity::signer::{self, Family, Open, SignatureError, Signer},
    wire::halt::{Reason, Refusal},
};

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
    let mut signers = Vec::new();
    for name in &names {
        match books.signers.get(name) {
            Some(signer) => signers.extend(signer.clone()),
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

/// Fields that carry such credentials, which the backend does not see.
pub(super) fn credentials() -> impl Iterator<Item = HeaderName> {
    let fields = Family::ALL.into_iter().map(Family::credentials);
    fields.flatten().cloned()
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

    /// Verifies the signature, if one came, as far as the head can show.
    ///
    /// # Errors
    /// 400 `invalid-request`, 403 `signature-invalid`.
    pub(super) fn identify(&self, exchange: &mut Exchange) -> Identified {
        let message = signer::message(exchange);
        let counts = !signer::may_be_linked(&message);
        let found = signer::verify(&self.signers, &message);
        let Some(proven) = found.map_err(|error| refused(error, counts))? else {
            return Ok(None);
        };
        let (check, caller) = match proven.body {
            Open::Nothing => return Ok(Some(proven.principal)),
            Open::Body(check) => (check, None),
            Open::Caller(check) => (check, Some(Arc::clone(&proven.principal))),
        };
        exchange.unproven = Some(Box::new(Unproven {
            check,
            refusal: Refusal {
                forged: counts,
                ..invalid(proven.family)
            },
            caller,
            watched: false,
        }));
        Ok(Some(proven.principal))
    }

    /// What a caller who brought nothing is told to bring: the name of the scheme, as RFC 9110 §11.6.1 wants it.
    pub(super) fn challenge(&self, refusal: Refusal, exchange: &Exchange) -> Refusal {
        let mut refusal = refusal;
        for family in Family::ALL {
            if self.signers.iter().any(|signer| signer.family() == family) {
                refusal = challenged(refusal, family, exchange);
            }
        }
        refusal
    }
}

fn challenged(refusal: Refusal, family: Family, exchange: &Exchange) -> Refusal {
    let scheme = match family {
        Family::SigV4 => "AWS4-HMAC-SHA256",
    };
    let value = [scheme, " realm=\"", exchange.authority().host(), "\""].concat();
    match HeaderValue::from_maybe_shared(bytes::Bytes::from(value)) {
        Ok(value) => refusal.with(header::WWW_AUTHENTICATE, value),
        Err(_) => refusal,
    }
}

/// The refusal of a signature; what is forged `counts` against the client unless a link may have brought it.
fn refused(error: SignatureError, counts: bool) -> Refusal {
    let mut refusal = match error {
        SignatureError::Unclear(code) => refusal(Reason::InvalidRequest).detail(code),
        SignatureError::Refused(family, code) => invalid(family).detail(code),
    };
    refusal.forged = counts && error.is_forgery();
    refusal
}

/// The one answer to a signature of this kind that does not count.
fn invalid(family: Family) -> Refusal {
    match family {
        Family::SigV4 => refusal(Reason::SignatureInvalid),
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
