//! Client certificates as a means of identification: the one of the connection, and the `[client_certificates.NAME]` that
//! count on a route.
//!
//! Only what TLS itself proved counts, never a header. There is no challenge for it: RFC 9110 §11.6.1 wants a scheme, and
//! none is registered for a certificate of the handshake, so where nothing else would identify the caller its absence is
//! 403. A connection brings its certificate with every request, so it is asked last and is no second credential beside
//! one that the request brings.

use std::{collections::BTreeMap, sync::Arc};

use super::{Books, Identified, refusal};
use crate::{
    config::{OneOrMany, Reader},
    exchange::Exchange,
    identity::certificate::CertificateRule,
    wire::halt::Reason,
};

/// The rules of the file; `None` marks one whose own section has errors.
pub type CertificateBook = BTreeMap<String, Option<Arc<CertificateRule>>>;

/// Certificates that these rules take.
#[derive(Debug)]
pub struct Mtls {
    /// In the order of the route's list: the first that takes the certificate has the word.
    rules: Vec<Arc<CertificateRule>>,
    /// Whether nothing else would identify the caller.
    alone: bool,
}

/// Compiles `certificates`; `alone` where `require` names nothing else.
pub(super) fn compile(reader: &Reader<'_>, books: &Books, alone: bool) -> Mtls {
    if !books.asks_for_certificates {
        reader.error(
            "require",
            "`mtls` needs client certificates, and the file asks no client for one",
            Some("add `client_ca` to `[tls]`, with `client_auth = \"optional\"` where others come without".into()),
        );
    }
    Mtls {
        rules: named_rules(reader, &books.certificates),
        alone,
    }
}

fn named_rules(reader: &Reader<'_>, book: &CertificateBook) -> Vec<Arc<CertificateRule>> {
    let names = reader
        .get::<OneOrMany<String>>("certificates")
        .map(|names| names.0)
        .unwrap_or_default();
    if names.is_empty() {
        reader.error(
            "certificates",
            "no rule for certificates is named, so no certificate could pass",
            Some("add `certificates = [\"NAME\"]`".into()),
        );
    }
    let mut found = Vec::new();
    for name in &names {
        match book.get(name) {
            Some(rule) => found.extend(rule.clone()),
            None => reader.error(
                "certificates",
                format!("there is no `[client_certificates.{name}]`"),
                Some(known(book)),
            ),
        }
    }
    found
}

fn known(book: &CertificateBook) -> String {
    let names: Vec<String> = book.keys().map(|name| format!("`{name}`")).collect();
    if names.is_empty() {
        "add a section `[client_certificates.NAME]`".to_owned()
    } else {
        format!("the file has {}", names.join(", "))
    }
}

impl Mtls {
    /// Whose certificates count, for `check -v` and `explain`.
    pub(super) fn explain(&self) -> String {
        let names: Vec<String> = self
            .rules
            .iter()
            .map(|rule| format!("`{}`", rule.name))
            .collect();
        format!("client certificate by {}", names.join(" or "))
    }

    /// Finds whom the connection's certificate means.
    ///
    /// # Errors
    /// 403 `certificate-missing` and `certificate-unknown`, where no other means could identify the caller.
    pub(super) fn identify(&self, exchange: &Exchange) -> Identified {
        let Some(certificate) = exchange.connection.client_certificate() else {
            return self.otherwise(Reason::CertificateMissing, None);
        };
        let mut rules = self.rules.iter();
        match rules.find_map(|rule| rule.recognise(certificate)) {
            Some(Ok(principal)) => Ok(Some(principal)),
            Some(Err(_)) => self.otherwise(Reason::CertificateUnknown, Some("subject-unclear")),
            None => self.otherwise(Reason::CertificateUnknown, Some("no-rule")),
        }
    }

    /// Whoever may identify himself otherwise is told how.
    fn otherwise(&self, reason: Reason, detail: Option<&'static str>) -> Identified {
        if !self.alone {
            return Ok(None);
        }
        let refusal = refusal(reason);
        Err(match detail {
            Some(detail) => refusal.detail(detail).into(),
            None => refusal.into(),
        })
    }
}
