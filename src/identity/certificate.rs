//! Client certificates as identity: `[client_certificates.NAME]` says which certificates count and whom they mean.
//!
//! Everything that a rule states must hold. What would have to be guessed is refused: a pattern stands for one label, one
//! segment or one mailbox, and a certificate in which two names could be the subject means nobody. That the certificate
//! itself holds was settled in the handshake and is settled again with each request, see `snapshot::client_trust`.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::crypto::certificate::Certificate;
use crate::crypto::distinguished_name::DistinguishedName;
use crate::exchange::client_certificate::ClientCertificate;
use crate::exchange::principal::{IdentityHeaders, Principal};

/// The issuer of principals that a certificate names; no `[issuers.NAME]` can be called so.
const ISSUER: &str = "[client_certificates]";

/// A part of a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Field {
    /// A URI among the alternative names, such as a SPIFFE id.
    Uri,
    /// A DNS name among the alternative names.
    Dns,
    /// A mail address among the alternative names.
    Email,
    /// The common name of the subject.
    CommonName,
    /// The whole subject (RFC 4514).
    Subject,
    /// SHA-256 of the DER form, in hexadecimal.
    Fingerprint,
    /// The name of the authority that signed it (RFC 4514).
    Issuer,
}

impl Field {
    /// Every field, those before that rather name somebody.
    pub const ALL: [Self; 7] = [
        Self::Uri,
        Self::Dns,
        Self::Email,
        Self::CommonName,
        Self::Subject,
        Self::Fingerprint,
        Self::Issuer,
    ];

    /// The words of `subject_from`.
    pub const WORDS: &'static [&'static str] =
        &["uri", "dns", "email", "cn", "subject", "fingerprint"];

    /// The field that a word of `subject_from` stands for.
    pub fn from_word(word: &str) -> Option<Self> {
        let at = Self::WORDS.iter().position(|known| *known == word)?;
        Self::ALL.get(at).copied()
    }

    /// The key of a rule that states it.
    pub const fn key(self) -> &'static str {
        match self {
            Self::Uri => "san_uri",
            Self::Dns => "san_dns",
            Self::Email => "san_email",
            Self::CommonName => "cn",
            Self::Subject => "subject",
            Self::Fingerprint => "fingerprint",
            Self::Issuer => "issuer",
        }
    }

    /// What a pattern for it looks like.
    const fn hint(self) -> &'static str {
        match self {
            Self::Uri => {
                "such as `spiffe://example.org/billing`, with `/*` at the end for one segment"
            }
            Self::Dns => "such as `api.example`, or `*.example` for one label",
            Self::Email => "such as `ops@example.org`, or `*@example.org` for any mailbox",
            Self::CommonName => "the name as it stands in the certificate",
            Self::Subject | Self::Issuer => {
                "such as `CN=billing,O=Example`, as `openssl x509 -noout -subject -issuer -nameopt RFC2253` prints it"
            }
            Self::Fingerprint => {
                "64 hexadecimal digits, as `openssl x509 -noout -fingerprint -sha256` prints them"
            }
        }
    }

    /// What the certificate has there.
    fn values(self, certificate: &Certificate) -> Vec<&str> {
        fn all(names: &[Box<str>]) -> Vec<&str> {
            names.iter().map(|name| &**name).collect()
        }
        match self {
            Self::Uri => all(&certificate.uris),
            Self::Dns => all(&certificate.dns),
            Self::Email => all(&certificate.emails),
            Self::CommonName => certificate.common_name.as_deref().into_iter().collect(),
            Self::Subject => vec![certificate.subject.as_str()],
            Self::Fingerprint => vec![&certificate.fingerprint_hex],
            Self::Issuer => vec![certificate.issuer.as_str()],
        }
    }
}

/// A value, or all that have one part of their own in place of a `*`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern {
    before: Box<str>,
    /// What may not stand in place of the `*`; `None` where there is none.
    stops: Option<&'static str>,
    after: Box<str>,
}

impl Pattern {
    /// Reads a pattern for a field.
    ///
    /// # Errors
    /// What is wrong with it, and what would be right, in words.
    pub fn parse(field: Field, text: &str) -> Result<Self, (String, &'static str)> {
        let parsed = match field {
            Field::Uri => Self::uri(text).ok_or("URI"),
            Field::Dns => Self::dns(text).ok_or("DNS name"),
            Field::Email => Self::email(text).ok_or("mail address"),
            Field::CommonName => (!text.is_empty())
                .then(|| Self::exact(text))
                .ok_or("common name"),
            Field::Subject | Field::Issuer => text
                .parse::<DistinguishedName>()
                .map(|name| Self::exact(name.as_str()))
                .map_err(|_| "distinguished name"),
            Field::Fingerprint => fingerprint(text)
                .map(|digits| Self::exact(&digits))
                .ok_or("SHA-256 fingerprint"),
        };
        parsed.map_err(|what| (format!("`{text}` is no {what}"), field.hint()))
    }

    fn exact(text: &str) -> Self {
        Self {
            before: text.into(),
            stops: None,
            after: "".into(),
        }
    }

    fn dns(text: &str) -> Option<Self> {
        let name = text.to_ascii_lowercase();
        let labels = name.strip_prefix("*.").unwrap_or(&name);
        let is_label = |label: &str| {
            !label.is_empty()
                && label
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
        };
        if !labels.split('.').all(is_label) {
            return None;
        }
        Some(match name.strip_prefix('*') {
            Some(after) => Self {
                before: "".into(),
                stops: Some(".*"),
                after: after.into(),
            },
            None => Self::exact(&name),
        })
    }

    /// The domain in lower case: only the part before the `@` has a case (RFC 5321 §2.4).
    fn email(text: &str) -> Option<Self> {
        let (mailbox, domain) = text.rsplit_once('@')?;
        if mailbox.is_empty() || domain.is_empty() || domain.contains('*') {
            return None;
        }
        let after = format!("@{}", domain.to_ascii_lowercase());
        match mailbox {
            "*" => Some(Self {
                before: "".into(),
                stops: Some("@"),
                after: after.into(),
            }),
            _ if mailbox.contains(['*', '@']) => None,
            _ => Some(Self::exact(&format!("{mailbox}{after}"))),
        }
    }

    fn uri(text: &str) -> Option<Self> {
        let (scheme, rest) = text.split_once(':')?;
        if scheme.is_empty() || rest.is_empty() || !text.bytes().all(|byte| byte.is_ascii_graphic())
        {
            return None;
        }
        match text.strip_suffix("/*") {
            // What stands for the authority of the URI is never left open.
            Some(before) if before.contains('*') || before.ends_with('/') => None,
            Some(before) if before.ends_with(':') => None,
            Some(before) => Some(Self {
                before: format!("{before}/").into(),
                stops: Some("/?#%"),
                after: "".into(),
            }),
            None if text.contains('*') => None,
            None => Some(Self::exact(text)),
        }
    }

    fn takes(&self, field: Field, value: &str) -> bool {
        let folded;
        let value = match (field, value.rsplit_once('@')) {
            (Field::Email, Some((mailbox, domain))) => {
                folded = format!("{mailbox}@{}", domain.to_ascii_lowercase());
                folded.as_str()
            }
            _ => value,
        };
        let Some(stops) = self.stops else {
            return value == &*self.before;
        };
        value
            .strip_prefix(&*self.before)
            .and_then(|rest| rest.strip_suffix(&*self.after))
            .is_some_and(|open| !open.is_empty() && !open.contains(|sign| stops.contains(sign)))
    }
}

/// 64 digits, with or without colons between bytes.
fn fingerprint(text: &str) -> Option<String> {
    let bytes: Vec<&str> = if text.contains(':') {
        text.split(':').collect()
    } else {
        vec![text]
    };
    let even = bytes.len() == 1 || bytes.iter().all(|byte| byte.len() == 2);
    let digits = bytes.concat().to_ascii_lowercase();
    let hexadecimal = digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    (even && hexadecimal && digits.len() == 64).then_some(digits)
}

/// What a rule says of one field: one of these.
#[derive(Clone, Debug)]
pub struct Test {
    /// The field.
    pub field: Field,
    /// One of them must take a value of it.
    pub any_of: Vec<Pattern>,
}

impl Test {
    fn taken<'c>(&self, certificate: &'c Certificate) -> Vec<&'c str> {
        let mut values = self.field.values(certificate);
        values.retain(|value| {
            let mut patterns = self.any_of.iter();
            patterns.any(|pattern| pattern.takes(self.field, value))
        });
        values
    }
}

/// One `[client_certificates.NAME]`.
#[derive(Debug)]
pub struct CertificateRule {
    /// Its name in the file.
    pub name: Box<str>,
    tests: Vec<Test>,
    subject_from: Field,
    roles: Vec<Box<str>>,
    scopes: Vec<Box<str>>,
    serial: u64,
}

/// The certificate has no name, or more than one, where its rule looks for the subject.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unclear;

impl CertificateRule {
    /// A rule. Without `subject_from` the subject is what the rule states, of several fields the first of [`Field::ALL`];
    /// the whole subject where it states the authority alone.
    pub fn new(
        name: &str,
        tests: Vec<Test>,
        subject_from: Option<Field>,
        (roles, scopes): (Vec<Box<str>>, Vec<Box<str>>),
    ) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let stated = |field: &Field| tests.iter().any(|test| test.field == *field);
        let first = Field::ALL.into_iter().find(stated);
        let first = first.filter(|field| *field != Field::Issuer);
        Self {
            name: name.into(),
            subject_from: subject_from.or(first).unwrap_or(Field::Subject),
            tests,
            roles,
            scopes,
            serial: NEXT.fetch_add(1, Ordering::Relaxed),
        }
    }

    /// Who the holder is; `None` when the rule does not take the certificate.
    ///
    /// # Errors
    /// The rule takes it, and who is meant would have to be guessed.
    pub fn recognise(
        &self,
        certificate: &ClientCertificate,
    ) -> Option<Result<Arc<Principal>, Unclear>> {
        let facts = &certificate.facts;
        if self.tests.iter().any(|test| test.taken(facts).is_empty()) {
            return None;
        }
        Some(self.subject(facts).ok_or(Unclear).map(|subject| {
            certificate.meant_by(self.serial, || self.principal(subject, facts.ends))
        }))
    }

    /// The one value of the field; of those that the rule takes, where it states the field.
    fn subject<'c>(&self, facts: &'c Certificate) -> Option<&'c str> {
        let test = self
            .tests
            .iter()
            .find(|test| test.field == self.subject_from);
        let mut values =
            test.map_or_else(|| self.subject_from.values(facts), |test| test.taken(facts));
        values.dedup();
        match values.as_slice() {
            [only] if !only.is_empty() => Some(only),
            _ => None,
        }
    }

    fn principal(&self, subject: &str, ends: u64) -> Principal {
        Principal {
            headers: IdentityHeaders::new(subject, &self.roles, &self.scopes),
            roles: self.roles.clone(),
            scopes: self.scopes.clone(),
            expires: ends,
            ..Principal::named(subject, ISSUER.into())
        }
    }
}

#[cfg(test)]
mod tests;
