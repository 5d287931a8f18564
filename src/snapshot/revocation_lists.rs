//! The files of `client_crl`: lists of revoked certificates (RFC 5280 §5), and which of them count. For `client_trust`.
//!
//! Whoever asks takes the first list that speaks of a certificate, and looks no further. So of two that speak of the same
//! certificates only the newer is kept: the older one, in front of it, would hide what was revoked since. A list that is
//! not yet made, or that its authority did not sign, takes the place of none.

use std::{collections::HashMap, path::PathBuf};

use rustls::pki_types::{CertificateRevocationListDer, pem::PemObject};

use super::client_verifier::Revoked;
use crate::{
    config::{FilePath, OneOrMany, Reader},
    crypto::{certificate::Authority, digest::Sha256, revocation_list::RevocationList},
    state::clock,
};

/// How many seconds ahead of ours the clock of an authority may be.
const AHEAD: i64 = 5 * 60;

/// The lists of all files, each file checked by itself; `None` when one has errors.
pub(super) fn read_all(
    reader: &Reader<'_>,
    files: &mut Vec<PathBuf>,
) -> Option<Vec<RevocationList>> {
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
        match read.and_then(|pem| of_pem(&pem)) {
            Ok(lists) => all.extend(lists),
            Err(why) => {
                let message = format!("cannot read revocations from `{}`: {why}", path.display());
                reader.error("client_crl", message, None);
                whole = false;
            }
        }
        files.push(path);
    }
    whole.then_some(all)
}

fn of_pem(pem: &[u8]) -> Result<Vec<RevocationList>, String> {
    let mut lists = Vec::new();
    for der in CertificateRevocationListDer::pem_slice_iter(pem) {
        let der = der.map_err(|error| error.to_string())?;
        let list = RevocationList::new(der);
        lists.push(list.map_err(|_| "not a list of revocations".to_owned())?);
    }
    if lists.is_empty() {
        return Err("no list in it".to_owned());
    }
    Ok(lists)
}

/// The lists that count beside these authorities, in the order in which they are asked: those of all certificates of an
/// authority first, and the newer before the older. `None` where that cannot be.
pub(super) fn that_count(
    reader: &Reader<'_>,
    mut all: Vec<RevocationList>,
    authorities: &[Authority],
) -> Option<Vec<RevocationList>> {
    if all.is_empty() {
        return Some(all);
    }
    let now = i64::try_from(clock::unix_seconds()).unwrap_or(i64::MAX);
    all.retain(|list| is_made(reader, list, now));
    let mut all: Vec<Candidate> = all
        .into_iter()
        .filter_map(|list| signed(reader, list, authorities))
        .collect();
    all.sort_by(|one, other| {
        let partial = |candidate: &Candidate| candidate.list.scope.is_some();
        let by_age = || other.list.age_order(&one.list);
        partial(one).cmp(&partial(other)).then_with(by_age)
    });
    let kept = newest(reader, all);
    if kept.is_empty() {
        let hint = "with none of them revoked certificates would pass";
        reader.error(
            "client_crl",
            "no list of revocations counts",
            Some(hint.into()),
        );
        return None;
    }
    let fit = kept.iter().all(|one| one.has_one_key(reader, &kept));
    fit.then(|| kept.into_iter().map(|candidate| candidate.list).collect())
}

/// A list, and the key of which authority of the file signed it; `None` for those of other authorities.
struct Candidate {
    list: RevocationList,
    signer: Option<Sha256>,
}

/// Whether the date of a list has come.
fn is_made(reader: &Reader<'_>, list: &RevocationList, now: i64) -> bool {
    let made = list.made <= now.saturating_add(AHEAD);
    if !made {
        let message = format!(
            "the date of a list of the authority `{}` lies in the future",
            list.issuer
        );
        let hint = "it is left out: put it in its place when its time has come, or set the clock";
        reader.warn("client_crl", message, Some(hint.into()));
    }
    made
}

/// Leaves a list out that has the name of an authority of the file and is not signed by it.
fn signed(
    reader: &Reader<'_>,
    list: RevocationList,
    authorities: &[Authority],
) -> Option<Candidate> {
    let mut namesakes = authorities
        .iter()
        .filter(|authority| authority.name == list.issuer)
        .peekable();
    if namesakes.peek().is_none() {
        return Some(Candidate { list, signer: None });
    }
    if let Some(signer) = namesakes.find(|authority| list.is_signed_by(authority)) {
        let signer = Some(signer.key);
        return Some(Candidate { list, signer });
    }
    let message = format!(
        "a list has the name of the authority `{}`, which did not sign it",
        list.issuer
    );
    let hint =
        "it is left out: it is forged, or of a key of that authority that is not in `client_ca`";
    reader.warn("client_crl", message, Some(hint.into()));
    None
}

/// Without those that a newer one takes the place of.
fn newest(reader: &Reader<'_>, all: Vec<Candidate>) -> Vec<Candidate> {
    let mut kept: Vec<Candidate> = Vec::with_capacity(all.len());
    for one in all {
        if kept.iter().any(|newer| newer.speaks_of_the_same(&one)) {
            let message = format!(
                "more than one list is of the authority `{}`",
                one.list.issuer
            );
            let hint = "the newest counts, by its date and then by its number; take the others out";
            reader.warn("client_crl", message, Some(hint.into()));
        } else {
            kept.push(one);
        }
    }
    kept
}

impl Candidate {
    fn speaks_of_the_same(&self, other: &Self) -> bool {
        self.list.issuer_der == other.list.issuer_der
            && self.list.scope == other.list.scope
            && !self.is_of_another_key(other)
    }

    /// Whether the two are certainly not of one key.
    fn is_of_another_key(&self, other: &Self) -> bool {
        if let (Some(one), Some(other)) = (self.signer, other.signer) {
            return one != other;
        }
        let (one, other) = (&self.list.key_id, &other.list.key_id);
        one.is_some() && other.is_some() && one != other
    }

    /// Whether no list is of another key of its authority. Lists are looked for by name: the certificates of one of the
    /// keys would be held against the list of the other, and refused.
    fn has_one_key(&self, reader: &Reader<'_>, kept: &[Self]) -> bool {
        let other = kept.iter().find(|other| {
            self.list.issuer_der == other.list.issuer_der && self.is_of_another_key(other)
        });
        if other.is_some() {
            let message = format!(
                "lists are of two keys of the authority `{}`, and only those of one can be asked",
                self.list.issuer
            );
            let hint = "take the lists of the older key out, and its authority out of `client_ca`: its certificates are renewed, or refused";
            reader.error("client_crl", message, Some(hint.into()));
        }
        other.is_none()
    }
}

/// What is revoked by the authorities that have more than one list: only the first of them that speaks of a certificate
/// is asked about it.
pub(super) fn of_several(lists: &[RevocationList]) -> Revoked {
    let mut count: HashMap<&[u8], usize> = HashMap::new();
    for list in lists {
        *count.entry(&list.issuer_der).or_default() += 1;
    }
    let mut revoked = Revoked::default();
    let of_several = |list: &&RevocationList| count.get(&*list.issuer_der) > Some(&1);
    for list in lists.iter().filter(of_several) {
        revoked.add(&list.issuer_der, list.serials());
    }
    revoked
}
