//! `[client_certificates.NAME]` to rules for client certificates.

use std::sync::Arc;

use crate::{
    config::{At, Key, Kind, OneOrMany, Reader, Section},
    identity::certificate::{CertificateRule, Field, Pattern, Test},
    policy::authn::CertificateBook,
};

/// `[client_certificates.NAME]`
pub static CLIENT_CERTIFICATE: Section = Section {
    name: "client_certificates",
    doc: "client certificates that count, and whom they mean; everything stated must hold",
    keys: &[
        Key::new(
            "subject",
            Kind::OneOrMany(&Kind::String),
            "the whole subject as RFC 4514 writes it, most specific part first",
            "",
        ),
        Key::new(
            "cn",
            Kind::OneOrMany(&Kind::String),
            "the common name, where the subject has one and no more",
            "",
        ),
        Key::new(
            "san_dns",
            Kind::OneOrMany(&Kind::String),
            "a DNS name among the alternative names; `*.example` for one label",
            "",
        ),
        Key::new(
            "san_uri",
            Kind::OneOrMany(&Kind::String),
            "a URI among them, such as a SPIFFE id; `/*` at its end for one segment",
            "",
        ),
        Key::new(
            "san_email",
            Kind::OneOrMany(&Kind::String),
            "a mail address among them; `*@example.org` for any mailbox",
            "",
        ),
        Key::new(
            "fingerprint",
            Kind::OneOrMany(&Kind::String),
            "SHA-256 of the certificate, 64 hexadecimal digits, colons allowed",
            "",
        ),
        Key::new(
            "issuer",
            Kind::OneOrMany(&Kind::String),
            "name of the authority that signed it, as RFC 4514 writes it",
            "",
        ),
        Key::new(
            "subject_from",
            Kind::Choice(Field::WORDS),
            "what the caller is called by; what the rule states unless said",
            "",
        ),
        Key::new(
            "roles",
            Kind::OneOrMany(&Kind::String),
            "roles of the caller",
            "",
        ),
        Key::new(
            "scopes",
            Kind::OneOrMany(&Kind::String),
            "scopes of the caller",
            "",
        ),
    ],
};

/// Compiles every rule.
pub fn compile(root: &Reader<'_>) -> CertificateBook {
    root.named("client_certificates")
        .into_iter()
        .map(|(name, at, reader)| (name.to_owned(), rule(name, at, &reader).map(Arc::new)))
        .collect()
}

fn rule(name: &str, at: At, reader: &Reader<'_>) -> Option<CertificateRule> {
    let stated: Vec<Field> = Field::ALL
        .into_iter()
        .filter(|field| reader.has(field.key()))
        .collect();
    if stated.is_empty() {
        reader.error_at(
            at,
            format!("client certificate `{name}` says nothing about the certificate"),
            Some("state what must hold, such as `san_dns`; `issuer` alone takes all of one authority".into()),
        );
        return None;
    }
    let tests: Vec<Option<Test>> = stated.iter().map(|field| test(*field, reader)).collect();
    let words = |key| {
        let words = reader.get::<OneOrMany<String>>(key).map(|words| words.0);
        words.into_iter().flatten().map(String::into).collect()
    };
    let granted = (words("roles"), words("scopes"));
    let from = reader.get::<String>("subject_from");
    let from = from.and_then(|word| Field::from_word(&word));
    let tests = tests.into_iter().collect::<Option<_>>()?;
    Some(CertificateRule::new(name, tests, from, granted))
}

/// What the rule says of one field; `None` when that has errors.
fn test(field: Field, reader: &Reader<'_>) -> Option<Test> {
    let key = field.key();
    let texts = reader.get::<OneOrMany<String>>(key)?.0;
    if texts.is_empty() {
        reader.error(key, "an empty list takes no certificate", None);
        return None;
    }
    let mut any_of = Vec::with_capacity(texts.len());
    for text in &texts {
        match Pattern::parse(field, text) {
            Ok(pattern) => any_of.push(pattern),
            Err((message, hint)) => reader.error(key, message, Some(hint.into())),
        }
    }
    (any_of.len() == texts.len()).then_some(Test { field, any_of })
}

#[cfg(test)]
mod tests {
    use super::compile;
    use crate::{
        config::{Reader, Severity, load_str},
        identity::certificate::Field,
        policy::authn::CertificateBook,
    };

    fn compiled(text: &str) -> (CertificateBook, Vec<String>) {
        let loaded = load_str("t.toml", text, &[]);
        let root = Reader::new(&loaded.root, &loaded.problems, &loaded.sources, "");
        let book = compile(&root);
        let problems = loaded.problems.sorted();
        let errors = problems
            .iter()
            .filter(|problem| problem.severity == Severity::Error);
        let messages = errors.map(|problem| problem.message.clone()).collect();
        (book, messages)
    }

    #[test]
    fn every_key_of_a_field_is_declared() {
        for field in Field::ALL {
            let declared = super::CLIENT_CERTIFICATE.key(field.key());
            assert!(declared.is_some(), "{}", field.key());
        }
    }

    #[test]
    fn a_rule_that_says_nothing_takes_nothing() {
        let (book, errors) = compiled("[client_certificates.a]\nroles = [\"admin\"]\n");
        assert!(book["a"].is_none());
        assert_eq!(
            errors,
            ["client certificate `a` says nothing about the certificate"]
        );
        let (book, errors) = compiled("[client_certificates.a]\ncn = []\n");
        assert!(book["a"].is_none());
        assert_eq!(errors, ["an empty list takes no certificate"]);
    }

    #[test]
    fn all_problems_at_once() {
        let (book, errors) = compiled(
            "[client_certificates.a]\nsan_dns = [\"*\", \"ok.example\"]\nissuer = \"x\"\n\
             [client_certificates.b]\nfingerprint = \"ab\"\n\
             [client_certificates.c]\ncn = \"good\"\nroles = \"reader\"\n",
        );
        assert_eq!(errors.len(), 3, "{errors:?}");
        assert!(book["a"].is_none() && book["b"].is_none() && book["c"].is_some());
    }
}
