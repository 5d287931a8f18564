//! Which client certificates hold: `client_ca`, `client_auth`, `client_crl` and `client_crl_expired` of `[tls]`.
//!
//! The same verifier judges in the handshake and again for requests on connections that are open already: a certificate
//! ends, is revoked, or loses its authority while its connection goes on (RFC 5280 §6.1, §6.3). A list of revocations
//! must be there for every authority of a chain and in date, otherwise nothing is known and the certificate is refused.

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use rustls::{
    CertificateError, Error, RootCertStore,
    pki_types::UnixTime,
    server::{WebPkiClientVerifier, danger::ClientCertVerifier},
};

use super::{client_verifier::ClientVerifier, revocation_lists, survivors::Survivors};
use crate::{
    config::Reader,
    crypto::{
        certificate::{Authority, end_of_der},
        digest::{Sha256, sha256},
        distinguished_name::DistinguishedName,
        revocation_list::RevocationList,
        trust,
    },
    exchange::client_certificate::{ClientCertificate, Distrust, Standing},
    state::{clock, registry::Named},
};

/// Lists that end within this many seconds are worth a word.
const SOON: u64 = 24 * 60 * 60;

/// Who judges client certificates. Taken over by the next snapshot while the files stay as they are, so that a reload for
/// the sake of something else makes no connection be judged anew.
#[derive(Debug)]
pub struct ClientTrust {
    verifier: Arc<dyn ClientCertVerifier>,
    /// The lists that say when they are out of date: a name, and the first Unix second of it.
    lists: Vec<(String, u64)>,
    /// Whether they go on to count then.
    late: bool,
    serial: u64,
}

/// The serial number of the next trust.
static NEXT: AtomicU64 = AtomicU64::new(1);

impl ClientTrust {
    fn new(verifier: Arc<dyn ClientCertVerifier>, setting: &Setting) -> Self {
        let dated = setting.lists.iter().filter(|list| list.ends != u64::MAX);
        Self {
            verifier,
            late: setting.late,
            lists: dated
                .map(|list| (format!("revocations of {}", list.issuer), list.ends))
                .collect(),
            serial: NEXT.fetch_add(1, Ordering::Relaxed),
        }
    }

    /// What rustls asks in the handshake.
    pub fn verifier(&self) -> Arc<dyn ClientCertVerifier> {
        Arc::clone(&self.verifier)
    }

    /// The lists of revocations, for metrics: a name, and the Unix second at which each is out of date.
    pub fn lists(&self) -> &[(String, u64)] {
        &self.lists
    }

    /// Takes note of a certificate that this very trust let in, at this handshake or at that of the session which it
    /// resumes: tickets are given under one trust, so only time can have ended it since. What has ended is judged with
    /// the first request.
    pub fn let_in(&self, certificate: &ClientCertificate) {
        certificate.stands(Standing {
            trust: self.serial,
            until: self.until(certificate, 0),
            verdict: Ok(()),
        });
    }

    /// Whether the certificate holds now, in Unix seconds.
    ///
    /// # Errors
    /// Why it does not.
    pub fn judge(&self, certificate: &ClientCertificate, now: u64) -> Result<(), Distrust> {
        certificate.standing(self.serial, now, || {
            let verdict = self.verify(certificate, now);
            Standing {
                trust: self.serial,
                until: match verdict {
                    Ok(()) => self.until(certificate, now),
                    Err(_) => now.saturating_add(1),
                },
                verdict,
            }
        })
    }

    fn verify(&self, certificate: &ClientCertificate, now: u64) -> Result<(), Distrust> {
        if now >= certificate.facts.ends {
            return Err(Distrust::Expired);
        }
        let time = UnixTime::since_unix_epoch(Duration::from_secs(now));
        self.verifier
            .verify_client_cert(certificate.leaf(), certificate.intermediates(), time)
            .map(drop)
            .map_err(|error| distrust(&error))
    }

    /// The first second after `since` at which something that the verdict may rest on ends.
    fn until(&self, certificate: &ClientCertificate, since: u64) -> u64 {
        let chain = certificate.intermediates().iter();
        let chain = chain.map(|der| end_of_der(der));
        let lists = self.lists.iter().map(|(_, end)| *end);
        let lists = lists.filter(|_| !self.late);
        let ends = chain.chain(lists).filter(|end| *end > since);
        ends.fold(certificate.facts.ends, u64::min)
    }
}

fn distrust(error: &Error) -> Distrust {
    let Error::InvalidCertificate(error) = error else {
        return match error {
            Error::InvalidCertRevocationList(_) => Distrust::RevocationUnknown,
            _ => Distrust::Untrusted,
        };
    };
    match error {
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => Distrust::Expired,
        CertificateError::Revoked => Distrust::Revoked,
        CertificateError::UnknownRevocationStatus
        | CertificateError::ExpiredRevocationList
        | CertificateError::ExpiredRevocationListContext { .. } => Distrust::RevocationUnknown,
        _ => Distrust::Untrusted,
    }
}

/// The compiled keys: [`ClientTrust`] with the digest of its files.
pub type NamedTrust = Named<Sha256, ClientTrust>;

/// Compiles the keys: `None` in `Some` where no client is asked. Files to watch are added to `files`.
#[expect(
    clippy::option_option,
    reason = "the outer one is an error that was reported, the inner one is the setting"
)]
pub(super) fn compile(
    reader: &Reader<'_>,
    files: &mut Vec<PathBuf>,
    survivors: &Survivors,
) -> Option<Option<NamedTrust>> {
    let Some(path) = reader.path("client_ca") else {
        for key in ["client_auth", "client_crl", "client_crl_expired"] {
            if reader.has(key) {
                reader.error(
                    key,
                    "client certificates need `client_ca`",
                    Some("a PEM file with the authorities to accept".into()),
                );
            }
        }
        return Some(None);
    };
    let authorities = Authorities::read(&path).map_err(|why| {
        let message = format!("cannot read certificates from `{}`: {why}", path.display());
        reader.error("client_ca", message, None);
    });
    files.push(path);
    let lists = revocation_lists::read_all(reader, files);
    let (authorities, lists) = (authorities.ok()?, lists?);
    let lists = revocation_lists::that_count(reader, lists, &authorities.known)?;
    let optional = reader.get::<String>("client_auth").as_deref() == Some("optional");
    let setting = Setting {
        authorities,
        lists,
        optional,
        late: late(reader),
    };
    let digest = setting.digest();
    let named = survivors
        .client_trust
        .try_prepare("client_ca", digest, |_| setting.trust(reader));
    named.ok().map(Some)
}

/// Whether lists that are out of date go on to count.
fn late(reader: &Reader<'_>) -> bool {
    let late = reader.get::<String>("client_crl_expired").as_deref() == Some("accept");
    if late {
        reader.relax(
            "client_crl_expired",
            "this weakens the gate: what was revoked since a list ended is not known",
        );
    }
    if reader.has("client_crl_expired") && !reader.has("client_crl") {
        reader.error(
            "client_crl_expired",
            "there is no list that could expire",
            Some("add `client_crl`".into()),
        );
    }
    late
}

/// The file `client_ca`.
struct Authorities {
    pem: Vec<u8>,
    roots: Arc<RootCertStore>,
    known: Vec<Authority>,
}

impl Authorities {
    fn read(path: &Path) -> Result<Self, String> {
        let pem = std::fs::read(path).map_err(|why| why.to_string())?;
        let mut roots = RootCertStore::empty();
        trust::add_pem(&mut roots, &pem)?;
        Ok(Self {
            known: trust::authorities(&pem)?,
            roots: Arc::new(roots),
            pem,
        })
    }
}

/// What the file says.
struct Setting {
    authorities: Authorities,
    lists: Vec<RevocationList>,
    optional: bool,
    late: bool,
}

impl Setting {
    fn digest(&self) -> Sha256 {
        let mut whole = vec![u8::from(self.optional), u8::from(self.late)];
        // Of digests, so that nothing can move from one file to another.
        whole.extend(sha256(&self.authorities.pem));
        for list in &self.lists {
            whole.extend(sha256(&list.der));
        }
        sha256(&whole)
    }

    /// Reports what does not fit.
    fn trust(&self, reader: &Reader<'_>) -> Result<ClientTrust, ()> {
        self.warn(reader, &self.authorities.known);
        let roots = Arc::clone(&self.authorities.roots);
        let mut builder = WebPkiClientVerifier::builder_with_provider(roots, trust::provider());
        if self.optional {
            builder = builder.allow_unauthenticated();
        }
        builder = builder.with_crls(self.lists.iter().map(|list| list.der.clone()));
        if !self.late {
            builder = builder.enforce_revocation_expiration();
        }
        let chains = builder.build().map_err(|error| {
            reader.error("client_crl", error.to_string(), None);
        })?;
        let revoked = revocation_lists::of_several(&self.lists);
        let verifier = ClientVerifier::new(chains, self.authorities.known.clone(), revoked);
        Ok(ClientTrust::new(Arc::new(verifier), self))
    }

    fn warn(&self, reader: &Reader<'_>, authorities: &[Authority]) {
        let (now, consequence) = if self.late {
            (clock::unix_seconds(), "it goes on to count")
        } else {
            (clock::unix_seconds(), "its certificates are refused then")
        };
        for list in &self.lists {
            let left = list.ends.saturating_sub(now);
            if left == 0 {
                let message = format!("the revocations of `{}` are out of date", list.issuer);
                reader.warn(
                    "client_crl",
                    message,
                    Some(format!("renew the list; {consequence}")),
                );
            } else if left < SOON {
                let message = format!(
                    "the revocations of `{}` are out of date in {} hours",
                    list.issuer,
                    left / 3600
                );
                reader.warn(
                    "client_crl",
                    message,
                    Some(format!("renew the list; {consequence}")),
                );
            }
        }
        let listed = |name: &DistinguishedName| self.lists.iter().any(|list| list.issuer == *name);
        for Authority { name, .. } in authorities.iter().filter(|_| !self.lists.is_empty()) {
            if !listed(name) {
                reader.warn(
                    "client_crl",
                    format!("no list is of the authority `{name}`"),
                    Some("certificates that it signed are refused".into()),
                );
            }
        }
    }
}
