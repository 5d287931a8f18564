//! What a certificate says of its holder (RFC 5280), read once and kept as plain data.
//!
//! Nothing is verified here: that is rustls' work, see `snapshot::client_trust`. Names that cannot be read are left out,
//! so that no rule can match them.

use thiserror::Error;
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};
use x509_parser::x509::X509Name;

use super::digest::{Sha256, sha256};
use super::distinguished_name::{DistinguishedName, hex};

/// The facts of one certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    /// SHA-256 of its DER form, as certificate-bound tokens state it (RFC 8705 §3.1).
    pub fingerprint: Sha256,
    /// The same in lower-case hexadecimal.
    pub fingerprint_hex: Box<str>,
    /// Whom it is for; empty where only the alternative names say that.
    pub subject: DistinguishedName,
    /// Who signed it.
    pub issuer: DistinguishedName,
    /// The common name of the subject; `None` where it has none, or several.
    pub common_name: Option<Box<str>>,
    /// DNS names, in lower case.
    pub dns: Vec<Box<str>>,
    /// URIs, such as SPIFFE ids.
    pub uris: Vec<Box<str>>,
    /// Mail addresses.
    pub emails: Vec<Box<str>>,
    /// First Unix second at which it is no longer valid.
    pub ends: u64,
}

/// The bytes are no certificate, or one that cannot be read in one way only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("not a readable certificate")]
pub struct Unreadable;

impl Certificate {
    /// Reads the DER form.
    ///
    /// # Errors
    /// Anything but exactly one certificate with at most one list of alternative names.
    pub fn parse(der: &[u8]) -> Result<Self, Unreadable> {
        let (rest, parsed) = X509Certificate::from_der(der).map_err(|_| Unreadable)?;
        if !rest.is_empty() {
            return Err(Unreadable);
        }
        let fingerprint = sha256(der);
        let mut certificate = Self {
            fingerprint,
            fingerprint_hex: hex(&fingerprint).into(),
            subject: DistinguishedName::of(parsed.subject()),
            issuer: DistinguishedName::of(parsed.issuer()),
            common_name: common_name(parsed.subject()),
            dns: Vec::new(),
            uris: Vec::new(),
            emails: Vec::new(),
            ends: end_of(&parsed),
        };
        let names = parsed.subject_alternative_name().map_err(|_| Unreadable)?;
        for name in names.iter().flat_map(|names| &names.value.general_names) {
            match name {
                GeneralName::DNSName(name) => {
                    certificate.dns.push(name.to_ascii_lowercase().into());
                }
                GeneralName::URI(uri) => certificate.uris.push((*uri).into()),
                GeneralName::RFC822Name(mail) => certificate.emails.push((*mail).into()),
                _ => {}
            }
        }
        Ok(certificate)
    }
}

/// An authority: what it is called, and its key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Authority {
    /// The subject of its certificate.
    pub name: DistinguishedName,
    /// SHA-256 of its public key with the algorithm (`SubjectPublicKeyInfo`, RFC 5280 §4.1.2.7).
    pub key: Sha256,
    /// That key itself.
    pub public_key: Box<[u8]>,
}

impl Authority {
    /// Reads them from its certificate.
    ///
    /// # Errors
    /// Anything but exactly one certificate.
    pub fn of_der(der: &[u8]) -> Result<Self, Unreadable> {
        match X509Certificate::from_der(der) {
            Ok(([], parsed)) => Ok(Self {
                name: DistinguishedName::of(parsed.subject()),
                key: sha256(parsed.public_key().raw),
                public_key: parsed.public_key().raw.into(),
            }),
            _ => Err(Unreadable),
        }
    }
}

/// What a list of revocations calls a certificate, byte for byte as it stands there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Issued {
    /// Who issued it.
    pub issuer: Box<[u8]>,
    /// Its number among those that he issued (RFC 5280 §4.1.2.2).
    pub serial: Box<[u8]>,
}

impl Issued {
    /// Reads them from the certificate.
    ///
    /// # Errors
    /// Anything that does not begin with a certificate.
    pub fn of_der(der: &[u8]) -> Result<Self, Unreadable> {
        let (_, parsed) = X509Certificate::from_der(der).map_err(|_| Unreadable)?;
        Ok(Self {
            issuer: parsed.issuer().as_raw().into(),
            serial: parsed.raw_serial().into(),
        })
    }
}

/// First Unix second at which the certificate is no longer valid; 0 for bytes that are none.
pub fn end_of_der(der: &[u8]) -> u64 {
    X509Certificate::from_der(der).map_or(0, |(_, parsed)| end_of(&parsed))
}

fn end_of(parsed: &X509Certificate<'_>) -> u64 {
    // The last second that it names still counts (RFC 5280 §4.1.2.5).
    let last = parsed.validity().not_after.timestamp();
    u64::try_from(last).map_or(0, |last| last.saturating_add(1))
}

fn common_name(subject: &X509Name<'_>) -> Option<Box<str>> {
    let mut names = subject.iter_common_name();
    match (names.next(), names.next()) {
        (Some(only), None) => only.as_str().ok().map(Box::from),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use base64::Engine;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    use rustls::pki_types::{CertificateDer, pem::PemObject};

    use super::{Certificate, Unreadable};

    const PUBLISHED: &[u8] = include_bytes!("../../tests/vectors/rfc8705/certificate.pem");
    const THUMBPRINT: &str = include_str!("../../tests/vectors/rfc8705/thumbprint");

    #[test]
    fn the_published_certificate_has_the_published_thumbprint() {
        let der = CertificateDer::from_pem_slice(PUBLISHED).expect("a certificate");
        let certificate = Certificate::parse(&der).expect("readable");
        assert_eq!(
            URL_SAFE_NO_PAD.encode(certificate.fingerprint),
            THUMBPRINT.trim_end()
        );
        assert_eq!(certificate.subject.as_str(), "CN=mtls");
        assert_eq!(certificate.issuer, certificate.subject);
        assert_eq!(certificate.common_name.as_deref(), Some("mtls"));
        assert_eq!(certificate.ends, 1_651_495_030, "2022-05-02 12:37:10");
    }

    #[test]
    fn nothing_may_stand_behind_it() {
        let der = CertificateDer::from_pem_slice(PUBLISHED).expect("a certificate");
        let longer = [&der[..], &[0]].concat();
        assert_eq!(Certificate::parse(&longer), Err(Unreadable));
        assert_eq!(Certificate::parse(&der[..der.len() - 1]), Err(Unreadable));
        assert_eq!(Certificate::parse(b""), Err(Unreadable));
    }

    #[test]
    fn alternative_names_and_parts_of_the_subject() {
        use rcgen::{CertificateParams, DnType, KeyPair, SanType};

        let mut params = CertificateParams::new(vec!["API.example".to_owned()]).expect("a name");
        let uri = "spiffe://example.org/web".try_into().expect("ASCII");
        let mail = "ops@example.org".try_into().expect("ASCII");
        params
            .subject_alt_names
            .extend([SanType::URI(uri), SanType::Rfc822Name(mail)]);
        params.distinguished_name = rcgen::DistinguishedName::new();
        params
            .distinguished_name
            .push(DnType::OrganizationName, "Example, Inc.");
        params.distinguished_name.push(DnType::CommonName, "api");
        let key = KeyPair::generate().expect("a key");
        let made = params.self_signed(&key).expect("signed");
        let certificate = Certificate::parse(made.der()).expect("readable");
        assert_eq!(certificate.subject.as_str(), r"CN=api,O=Example\, Inc.");
        let texts = |names: &[Box<str>]| names.iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(texts(&certificate.dns), ["api.example"]);
        assert_eq!(texts(&certificate.uris), ["spiffe://example.org/web"]);
        assert_eq!(texts(&certificate.emails), ["ops@example.org"]);
    }
}
