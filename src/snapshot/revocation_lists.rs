//! The files of `client_crl`: lists of revoked certificates (RFC 5280 §5), newest first. For `client_trust`.
//!
//! Whoever asks takes the first list that speaks of a certificate, and looks no further. So of two that speak of the same
//! certificates only the newer is kept: the older one, in front of it, would hide what was revoked since.

use std::{cmp::Ordering, path::PathBuf};

use rustls::pki_types::{CertificateRevocationListDer, pem::PemObject};
use x509_parser::{
    num_bigint::BigUint, prelude::FromDer, revocation_list::CertificateRevocationList,
};

use crate::{
    config::{FilePath, OneOrMany, Reader},
    crypto::distinguished_name::DistinguishedName,
};

/// The part of its certificates that a list speaks of (RFC 5280 §5.2.5).
const ISSUING_DISTRIBUTION_POINT: &str = "2.5.29.28";

/// One list.
pub(super) struct List {
    /// As it stands in the file.
    pub(super) der: CertificateRevocationListDer<'static>,
    /// The authority that it is of.
    pub(super) issuer: DistinguishedName,
    /// The same to the byte, as it is looked for.
    issuer_der: Vec<u8>,
    /// First Unix second at which it is out of date; `u64::MAX` where it does not say.
    pub(super) ends: u64,
    /// Unix second at which it was made.
    made: i64,
    /// Its number among those of its authority (RFC 5280 §5.2.3).
    number: Option<BigUint>,
    /// Of which of the authority's certificates it speaks; `None` for all.
    scope: Option<Vec<u8>>,
}

/// The lists of all files, each file checked by itself, newest first; `None` when one has errors.
pub(super) fn read_all(reader: &Reader<'_>, files: &mut Vec<PathBuf>) -> Option<Vec<List>> {
    let Some(paths) = reader.get::<OneOrMany<FilePath>>("client_crl") else {
        return (!reader.has("client_crl")).then(Vec::new);
    };
    if paths.0.is_empty() {
        let message = "an empty list would let revoked certificates pass";
        let hint = "name a file, or leave `client_crl` out where nothing is ever revoked";
        reader.error("client_crl", message, Some(hint.into()));
        return None;
    }
    let mut all = Vec::new();
    let mut whole = true;
    for path in paths.0 {
        let path = path.resolve(reader.sources());
        let read = std::fs::read(&path).map_err(|error| error.to_string());
        match read.and_then(|pem| List::read_all(&pem)) {
            Ok(lists) => all.extend(lists),
            Err(why) => {
                let message = format!("cannot read revocations from `{}`: {why}", path.display());
                reader.error("client_crl", message, None);
                whole = false;
            }
        }
        files.push(path);
    }
    whole.then(|| newest(reader, all))
}

/// Without those that a newer one takes the place of.
fn newest(reader: &Reader<'_>, mut all: Vec<List>) -> Vec<List> {
    all.sort_by(|one, other| other.age_order(one));
    let mut kept: Vec<List> = Vec::with_capacity(all.len());
    for list in all {
        if kept.iter().any(|newer| newer.speaks_of_the_same(&list)) {
            let message = format!("more than one list is of the authority `{}`", list.issuer);
            let hint = "the newest counts, by its date and then by its number; take the others out";
            reader.warn("client_crl", message, Some(hint.into()));
        } else {
            kept.push(list);
        }
    }
    kept
}

impl List {
    fn read_all(pem: &[u8]) -> Result<Vec<Self>, String> {
        let mut lists = Vec::new();
        for der in CertificateRevocationListDer::pem_slice_iter(pem) {
            lists.push(Self::new(der.map_err(|error| error.to_string())?)?);
        }
        if lists.is_empty() {
            return Err("no list in it".to_owned());
        }
        Ok(lists)
    }

    fn new(der: CertificateRevocationListDer<'static>) -> Result<Self, String> {
        let (_, parsed) = CertificateRevocationList::from_der(&der)
            .map_err(|_| "not a list of revocations".to_owned())?;
        let ends = parsed.next_update().map_or(u64::MAX, |next| {
            u64::try_from(next.timestamp()).unwrap_or(0)
        });
        let mut extensions = parsed.extensions().iter();
        let scope =
            extensions.find(|extension| extension.oid.to_id_string() == ISSUING_DISTRIBUTION_POINT);
        Ok(Self {
            issuer: DistinguishedName::of(parsed.issuer()),
            issuer_der: parsed.issuer().as_raw().to_vec(),
            ends,
            made: parsed.last_update().timestamp(),
            number: parsed.crl_number().cloned(),
            scope: scope.map(|extension| extension.value.to_vec()),
            der,
        })
    }

    /// The newer is the greater.
    fn age_order(&self, other: &Self) -> Ordering {
        let by_number = || self.number.cmp(&other.number);
        self.made.cmp(&other.made).then_with(by_number)
    }

    fn speaks_of_the_same(&self, other: &Self) -> bool {
        self.issuer_der == other.issuer_der && self.scope == other.scope
    }
}
