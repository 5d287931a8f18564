//! The certificate that a client proved to hold in the TLS handshake, with what was found of it since.
//!
//! A connection outlives reloads, and its certificate may end or be revoked meanwhile. Who judges that is
//! `snapshot::client_trust`; its verdict is kept here with the second until which it counts, so that a request pays a
//! comparison. Sessions that are resumed have the certificate of the one before them.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::HeaderValue;
use rustls::pki_types::CertificateDer;

use super::principal::Principal;
use crate::crypto::certificate::{Certificate, Unreadable};

/// A verified client certificate.
pub struct ClientCertificate {
    /// What it says.
    pub facts: Certificate,
    leaf: CertificateDer<'static>,
    intermediates: Vec<CertificateDer<'static>>,
    standing: Mutex<Option<Standing>>,
    /// Whom it was last found to mean, and the serial number of the rule that says so.
    meant: Mutex<Option<(u64, Arc<Principal>)>>,
}

/// Why a certificate that held in the handshake holds no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Distrust {
    /// Its time is over.
    Expired,
    /// It, or one of its authorities, is on a revocation list.
    Revoked,
    /// No revocation list that is in date speaks of it.
    RevocationUnknown,
    /// No authority that is accepted now has signed it.
    Untrusted,
}

/// A verdict, and how long it counts.
#[derive(Clone, Copy, Debug)]
pub struct Standing {
    /// Serial number of the trust that judged.
    pub trust: u64,
    /// First Unix second at which it must be judged anew.
    pub until: u64,
    /// The verdict.
    pub verdict: Result<(), Distrust>,
}

impl ClientCertificate {
    /// The chain as the client sent it, leaf first.
    ///
    /// # Errors
    /// There is no leaf, or it cannot be read.
    pub fn new(chain: Vec<CertificateDer<'static>>) -> Result<Self, Unreadable> {
        let mut chain = chain.into_iter();
        let leaf = chain.next().ok_or(Unreadable)?;
        Ok(Self {
            facts: Certificate::parse(&leaf)?,
            leaf,
            intermediates: chain.collect(),
            standing: Mutex::new(None),
            meant: Mutex::new(None),
        })
    }

    /// Its DER form.
    pub fn leaf(&self) -> &CertificateDer<'static> {
        &self.leaf
    }

    /// What came with it.
    pub fn intermediates(&self) -> &[CertificateDer<'static>] {
        &self.intermediates
    }

    /// The verdict of the trust with this serial number, from `judge` unless it is known. `now` in Unix seconds.
    ///
    /// # Errors
    /// The verdict.
    pub fn standing(
        &self,
        trust: u64,
        now: u64,
        judge: impl FnOnce() -> Standing,
    ) -> Result<(), Distrust> {
        let mut standing = self.standing.lock().unwrap_or_else(PoisonError::into_inner);
        let known = standing.filter(|known| known.trust == trust && now < known.until);
        known.unwrap_or_else(|| *standing.insert(judge())).verdict
    }

    /// Takes note of a verdict.
    pub fn stands(&self, standing: Standing) {
        *self.standing.lock().unwrap_or_else(PoisonError::into_inner) = Some(standing);
    }

    /// Whom the rule with this serial number says that it means, from `make` unless it is known.
    pub fn meant_by(&self, rule: u64, make: impl FnOnce() -> Principal) -> Arc<Principal> {
        let mut meant = self.meant.lock().unwrap_or_else(PoisonError::into_inner);
        match &*meant {
            Some((known, principal)) if *known == rule => Arc::clone(principal),
            _ => {
                let principal = Arc::new(make());
                *meant = Some((rule, Arc::clone(&principal)));
                principal
            }
        }
    }

    /// The value of `Client-Cert` (RFC 9440 §2.2): a byte sequence of structured fields.
    pub fn header(&self) -> Option<HeaderValue> {
        let text = [":", &STANDARD.encode(&self.leaf), ":"].concat();
        HeaderValue::from_maybe_shared(bytes::Bytes::from(text)).ok()
    }
}

impl fmt::Debug for ClientCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientCertificate")
            .field("fingerprint", &self.facts.fingerprint_hex)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use rustls::pki_types::{CertificateDer, pem::PemObject};

    use super::*;

    fn certificate() -> ClientCertificate {
        let pem = include_bytes!("../../tests/vectors/rfc8705/certificate.pem");
        let der = CertificateDer::from_pem_slice(pem).expect("a certificate");
        ClientCertificate::new(vec![der]).expect("readable")
    }

    #[test]
    fn a_verdict_counts_for_its_trust_and_its_time() {
        let certificate = certificate();
        let ask = |trust, now, verdict| {
            let mut asked = false;
            let judge = || {
                asked = true;
                Standing {
                    trust,
                    until: 100,
                    verdict,
                }
            };
            (certificate.standing(trust, now, judge), asked)
        };
        let revoked = Err(Distrust::Revoked);
        assert_eq!(ask(1, 10, Ok(())), (Ok(()), true));
        assert_eq!(ask(1, 99, revoked), (Ok(()), false), "still counts");
        assert_eq!(ask(1, 100, revoked), (revoked, true), "its time is over");
        assert_eq!(ask(2, 10, Ok(())), (Ok(()), true), "another trust");
        assert_eq!(ask(1, 10, revoked), (revoked, true), "one verdict is kept");
    }

    #[test]
    fn whom_it_means_is_kept_for_one_rule() {
        let certificate = certificate();
        let named = |name: &'static str| move || Principal::named(name, "i".into());
        let first = certificate.meant_by(1, named("a"));
        assert!(Arc::ptr_eq(&first, &certificate.meant_by(1, named("b"))));
        assert_eq!(&*certificate.meant_by(2, named("b")).subject, "b");
    }

    #[test]
    fn no_chain_is_no_certificate() {
        assert!(ClientCertificate::new(Vec::new()).is_err());
        let bad = CertificateDer::from(vec![0x30, 0]);
        assert!(ClientCertificate::new(vec![bad]).is_err());
    }
}
