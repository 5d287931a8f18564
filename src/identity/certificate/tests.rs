//! Which certificates a rule takes, and whom it says they mean.

use std::sync::Arc;

use proptest::prelude::*;
use rustls::pki_types::{CertificateDer, pem::PemObject};

use super::{CertificateRule, Field, Pattern, Test, Unclear};
use crate::crypto::certificate::Certificate;
use crate::exchange::client_certificate::ClientCertificate;

/// A certificate that says this; its signature is another's, which is not looked at here.
fn saying(change: impl FnOnce(&mut Certificate)) -> ClientCertificate {
    let pem = include_bytes!("../../../tests/vectors/rfc8705/certificate.pem");
    let der = CertificateDer::from_pem_slice(pem).expect("a certificate");
    let mut certificate = ClientCertificate::new(vec![der]).expect("readable");
    change(&mut certificate.facts);
    certificate
}

fn names(names: &[&str]) -> Vec<Box<str>> {
    names.iter().map(|name| Box::from(*name)).collect()
}

fn test(field: Field, texts: &[&str]) -> Test {
    let parse = |text: &&str| Pattern::parse(field, text).expect("a pattern");
    Test {
        field,
        any_of: texts.iter().map(parse).collect(),
    }
}

fn rule(tests: Vec<Test>, subject_from: Option<Field>) -> CertificateRule {
    let granted = (names(&["reader"]), names(&["api.read"]));
    CertificateRule::new("rule", tests, subject_from, granted)
}

fn subject(rule: &CertificateRule, certificate: &ClientCertificate) -> Option<String> {
    let found = rule.recognise(certificate)?;
    Some(found.map_or_else(
        |Unclear| "(unclear)".to_owned(),
        |principal| principal.subject.to_string(),
    ))
}

fn takes(field: Field, pattern: &str, value: &str) -> bool {
    Pattern::parse(field, pattern)
        .expect("a pattern")
        .takes(field, value)
}

#[test]
fn patterns_take_one_label_one_mailbox_one_segment() {
    for (field, pattern, value, expected) in [
        (Field::Dns, "api.example", "api.example", true),
        (Field::Dns, "API.example", "api.example", true),
        (Field::Dns, "api.example", "api.example.evil", false),
        (Field::Dns, "api.example", "xapi.example", false),
        (Field::Dns, "*.example", "api.example", true),
        (Field::Dns, "*.example", "a.b.example", false),
        (Field::Dns, "*.example", ".example", false),
        (Field::Dns, "*.example", "example", false),
        (Field::Dns, "*.example", "*.example", false),
        (Field::Email, "ops@Example.org", "ops@example.org", true),
        (Field::Email, "ops@example.org", "ops@EXAMPLE.org", true),
        (Field::Email, "ops@example.org", "Ops@example.org", false),
        (Field::Email, "*@example.org", "ops@example.org", true),
        (Field::Email, "*@example.org", "@example.org", false),
        (Field::Email, "*@example.org", "a@b@example.org", false),
        (Field::Email, "*@example.org", "ops@sub.example.org", false),
        (Field::Uri, "spiffe://e/ns/web", "spiffe://e/ns/web", true),
        (Field::Uri, "spiffe://e/ns/web", "spiffe://e/ns/WEB", false),
        (Field::Uri, "spiffe://e/ns/*", "spiffe://e/ns/web", true),
        (Field::Uri, "spiffe://e/ns/*", "spiffe://e/ns/", false),
        (Field::Uri, "spiffe://e/ns/*", "spiffe://e/ns/a/b", false),
        (Field::Uri, "spiffe://e/ns/*", "spiffe://e/ns/a%2fb", false),
        (Field::Uri, "spiffe://e/ns/*", "spiffe://e/ns/a?b", false),
        (Field::CommonName, "billing", "billing", true),
        (Field::CommonName, "billing", "Billing", false),
        (Field::CommonName, "*", "billing", false),
        (Field::Subject, "cn=a, o=b", "CN=a,O=b", true),
        (Field::Subject, "CN=a", "CN=a,O=b", false),
    ] {
        assert_eq!(
            takes(field, pattern, value),
            expected,
            "{pattern} on {value}"
        );
    }
    let digits = "ab".repeat(32);
    let colons = vec!["AB"; 32].join(":");
    assert!(takes(Field::Fingerprint, &digits, &digits));
    assert!(takes(Field::Fingerprint, &colons, &digits));
}

#[test]
fn patterns_that_would_take_too_much_are_refused() {
    for (field, pattern) in [
        (Field::Dns, ""),
        (Field::Dns, "*"),
        (Field::Dns, "*."),
        (Field::Dns, "*.*.example"),
        (Field::Dns, "a*.example"),
        (Field::Dns, "api.*"),
        (Field::Dns, "api.example."),
        (Field::Dns, "spiffe://e"),
        (Field::Email, "*"),
        (Field::Email, "*@*"),
        (Field::Email, "a*@example.org"),
        (Field::Email, "ops@"),
        (Field::Email, "@example.org"),
        (Field::Email, "a@b@example.org"),
        (Field::Uri, "*"),
        (Field::Uri, "spiffe://*"),
        (Field::Uri, "spiffe:/*"),
        (Field::Uri, "spiffe:///*"),
        (Field::Uri, "spiffe://*/web"),
        (Field::Uri, "spiffe://e/*/*"),
        (Field::Uri, "spiffe://e/a*"),
        (Field::Uri, "spiffe://e/a b"),
        (Field::Uri, "web"),
        (Field::CommonName, ""),
        (Field::Subject, ""),
        (Field::Subject, "billing"),
        (Field::Fingerprint, "ab"),
        (Field::Fingerprint, "sha256"),
    ] {
        let parsed = Pattern::parse(field, pattern);
        assert!(parsed.is_err(), "{field:?} {pattern}: {parsed:?}");
    }
    let uneven = format!("{}:b", "a".repeat(63));
    assert!(Pattern::parse(Field::Fingerprint, &uneven).is_err());
}

#[test]
fn everything_that_is_stated_must_hold() {
    let rule = rule(
        vec![
            test(Field::Dns, &["web.example", "api.example"]),
            test(Field::Issuer, &["CN=test authority"]),
        ],
        None,
    );
    let shown = |dns: &[&str], issuer: &str| {
        let issuer = issuer.parse().expect("a name");
        saying(|facts| {
            facts.dns = names(dns);
            facts.issuer = issuer;
        })
    };
    let good = shown(&["api.example"], "CN=test authority");
    assert_eq!(subject(&rule, &good).as_deref(), Some("api.example"));
    let other_name = shown(&["api.evil"], "CN=test authority");
    assert_eq!(subject(&rule, &other_name), None);
    let other_authority = shown(&["api.example"], "CN=other");
    assert_eq!(subject(&rule, &other_authority), None);
    let no_name = shown(&[], "CN=test authority");
    assert_eq!(subject(&rule, &no_name), None);
}

#[test]
fn whom_it_means_is_never_guessed() {
    let two = saying(|facts| facts.dns = names(&["a.example", "b.example"]));
    let any = rule(vec![test(Field::Dns, &["*.example"])], None);
    assert_eq!(subject(&any, &two).as_deref(), Some("(unclear)"));
    let one = rule(vec![test(Field::Dns, &["b.example"])], None);
    assert_eq!(subject(&one, &two).as_deref(), Some("b.example"));
    let by_cn = rule(
        vec![test(Field::Dns, &["*.example"])],
        Some(Field::CommonName),
    );
    assert_eq!(subject(&by_cn, &two).as_deref(), Some("mtls"));
    let nameless = saying(|facts| {
        facts.dns = names(&["a.example"]);
        facts.common_name = None;
    });
    assert_eq!(subject(&by_cn, &nameless).as_deref(), Some("(unclear)"));
    let empty = saying(|facts| {
        facts.dns = names(&["a.example"]);
        facts.subject = crate::crypto::distinguished_name::DistinguishedName::default();
    });
    let by_subject = rule(vec![test(Field::Dns, &["*.example"])], Some(Field::Subject));
    assert_eq!(subject(&by_subject, &empty).as_deref(), Some("(unclear)"));
}

#[test]
fn the_subject_is_what_is_stated_unless_said_otherwise() {
    let certificate = saying(|facts| {
        facts.dns = names(&["a.example"]);
        facts.uris = names(&["spiffe://example.org/a"]);
    });
    let authority = vec![test(Field::Issuer, &["CN=mtls"])];
    for (tests, from, expected) in [
        (authority.clone(), None, "CN=mtls"),
        (authority.clone(), Some(Field::Dns), "a.example"),
        (authority, Some(Field::Uri), "spiffe://example.org/a"),
        (
            vec![
                test(Field::CommonName, &["mtls"]),
                test(Field::Uri, &["spiffe://example.org/*"]),
            ],
            None,
            "spiffe://example.org/a",
        ),
        (vec![test(Field::CommonName, &["mtls"])], None, "mtls"),
    ] {
        let rule = rule(tests, from);
        assert_eq!(subject(&rule, &certificate).as_deref(), Some(expected));
    }
}

#[test]
fn the_principal_has_what_the_rule_grants_and_ends_with_the_certificate() {
    let certificate = saying(|_| {});
    let rule = rule(vec![test(Field::CommonName, &["mtls"])], None);
    let principal = rule.recognise(&certificate).expect("taken").expect("clear");
    assert_eq!(&*principal.issuer, "[client_certificates]");
    assert_eq!(principal.roles, names(&["reader"]));
    assert_eq!(principal.scopes, names(&["api.read"]));
    assert_eq!(principal.expires, certificate.facts.ends);
    assert_eq!(
        principal.headers.roles.as_ref().expect("roles"),
        "reader",
        "the backend is told"
    );
    let again = rule.recognise(&certificate).expect("taken").expect("clear");
    assert!(Arc::ptr_eq(&principal, &again), "made once a connection");
}

#[test]
fn words_stand_for_their_fields() {
    for (word, field) in [
        ("uri", Field::Uri),
        ("dns", Field::Dns),
        ("email", Field::Email),
        ("cn", Field::CommonName),
        ("subject", Field::Subject),
        ("fingerprint", Field::Fingerprint),
    ] {
        assert_eq!(Field::from_word(word), Some(field));
    }
    assert_eq!(Field::from_word("issuer"), None);
}

proptest! {
    #[test]
    fn no_pattern_panics_and_an_exact_one_takes_itself_alone(text in "\\PC{0,40}", value in "\\PC{0,40}") {
        for field in Field::ALL {
            if let Ok(pattern) = Pattern::parse(field, &text)
                && pattern.stops.is_none()
                && pattern.takes(field, &value)
            {
                prop_assert!(value.to_lowercase() == pattern.before.to_lowercase());
            }
        }
    }
}
