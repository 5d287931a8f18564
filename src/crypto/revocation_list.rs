//! What a list of revoked certificates says (RFC 5280 §5), and who signed it.
//!
//! Whether a certificate holds is rustls' work, see `snapshot::client_trust`; which lists it is given is chosen by what is
//! read here, see `snapshot::revocation_lists`.

use std::cmp::Ordering;

use rustls::pki_types::CertificateRevocationListDer;
use x509_parser::{
    asn1_rs::Any, extensions::ParsedExtension, num_bigint::BigUint, prelude::FromDer,
    revocation_list::CertificateRevocationList,
};

use super::{
    certificate::{Authority, Unreadable},
    distinguished_name::DistinguishedName,
    trust,
};

/// The part of its certificates that a list speaks of (RFC 5280 §5.2.5).
const ISSUING_DISTRIBUTION_POINT: &str = "2.5.29.28";

/// One list.
pub struct RevocationList {
    /// As it stands in the file.
    pub der: CertificateRevocationListDer<'static>,
    /// The authority that it says it is of.
    pub issuer: DistinguishedName,
    /// The same to the byte, as it is looked for.
    pub issuer_der: Box<[u8]>,
    /// Unix second at which it was made, or will be.
    pub made: i64,
    /// First Unix second at which it is out of date; `u64::MAX` where it does not say.
    pub ends: u64,
    /// Of which of the authority's certificates it speaks; `None` for all.
    pub scope: Option<Box<[u8]>>,
    /// What it calls the key that signed it (RFC 5280 §5.2.1).
    pub key_id: Option<Box<[u8]>>,
    /// Its number among those of its authority (RFC 5280 §5.2.3).
    number: Option<BigUint>,
}

impl RevocationList {
    /// Reads the DER form.
    ///
    /// # Errors
    /// Anything that does not begin with a list.
    pub fn new(der: CertificateRevocationListDer<'static>) -> Result<Self, Unreadable> {
        let (_, parsed) = CertificateRevocationList::from_der(&der).map_err(|_| Unreadable)?;
        let ends = parsed.next_update().map_or(u64::MAX, |next| {
            u64::try_from(next.timestamp()).unwrap_or(0)
        });
        let mut extensions = parsed.extensions().iter();
        let scope =
            extensions.find(|extension| extension.oid.to_id_string() == ISSUING_DISTRIBUTION_POINT);
        Ok(Self {
            issuer: DistinguishedName::of(parsed.issuer()),
            issuer_der: parsed.issuer().as_raw().into(),
            made: parsed.last_update().timestamp(),
            ends,
            scope: scope.map(|extension| extension.value.into()),
            key_id: key_id(&parsed),
            number: parsed.crl_number().cloned(),
            der,
        })
    }

    /// The newer is the greater: by its date, and then by its number.
    pub fn age_order(&self, other: &Self) -> Ordering {
        let by_number = || self.number.cmp(&other.number);
        self.made.cmp(&other.made).then_with(by_number)
    }

    /// The serial numbers that it names, as they stand in it.
    pub fn serials(&self) -> Vec<Box<[u8]>> {
        let Ok((_, parsed)) = CertificateRevocationList::from_der(&self.der) else {
            return Vec::new();
        };
        let named = parsed.iter_revoked_certificates();
        named.map(|entry| entry.raw_serial().into()).collect()
    }

    /// Whether the key of this authority signed it, in a way that rustls would accept too.
    pub fn is_signed_by(&self, authority: &Authority) -> bool {
        self.verify(authority).is_some()
    }

    fn verify(&self, authority: &Authority) -> Option<()> {
        let (_, parsed) = CertificateRevocationList::from_der(&self.der).ok()?;
        let message = parsed.tbs_cert_list.as_ref();
        let (_, whole) = Any::from_der(&self.der).ok()?;
        let (_, algorithm) = Any::from_der(whole.data.strip_prefix(message)?).ok()?;
        let (_, key) = Any::from_der(&authority.public_key).ok()?;
        let (bits, kind) = Any::from_der(key.data).ok()?;
        let (_, bits) = Any::from_der(bits).ok()?;
        // The first byte counts the bits of the last one that are not used: none are.
        let bits = bits.data.strip_prefix(&[0])?;
        let mut known = trust::provider()
            .signature_verification_algorithms
            .all
            .iter();
        let verified = known.any(|known| {
            *known.signature_alg_id() == *algorithm.data
                && *known.public_key_alg_id() == *kind.data
                && known
                    .verify_signature(bits, message, &parsed.signature_value.data)
                    .is_ok()
        });
        verified.then_some(())
    }
}

fn key_id(parsed: &CertificateRevocationList<'_>) -> Option<Box<[u8]>> {
    let mut extensions = parsed.extensions().iter();
    extensions.find_map(|extension| match extension.parsed_extension() {
        ParsedExtension::AuthorityKeyIdentifier(named) => {
            named.key_identifier.as_ref().map(|id| id.0.into())
        }
        _ => None,
    })
}
