//! Certificates by the name that a client asks for (RFC 6066 §3), and what they cover.
//!
//! One whose files hold what they held before is not parsed again at a reload, see [`Files`].

use std::{
    collections::HashMap,
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use rustls::{
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};
use zeroize::Zeroizing;

use crate::{
    crypto::{
        digest::{Sha256, sha256},
        trust,
    },
    wire::host::HostPattern,
};

/// One certificate, ready to be served.
#[derive(Debug)]
pub struct Certificate {
    /// Chain and key.
    pub key: Arc<CertifiedKey>,
    /// Names that it covers.
    pub names: Arc<[HostPattern]>,
    /// End of its validity, Unix seconds.
    pub not_after: i64,
    /// What it is called in logs and metrics: its file, or its first name.
    pub label: String,
}

/// All certificates; the first is served to clients that ask for no name, or for one that none covers.
#[derive(Debug)]
pub struct Certificates {
    all: Vec<Arc<Certificate>>,
    exact: HashMap<Box<str>, Arc<Certificate>>,
    wildcard: HashMap<Box<str>, Arc<Certificate>>,
}

impl Certificates {
    /// `None` when there is no certificate. Of two that cover one name the earlier is served.
    pub fn new(all: Vec<Arc<Certificate>>) -> Option<Self> {
        if all.is_empty() {
            return None;
        }
        let mut book = Self {
            all,
            exact: HashMap::new(),
            wildcard: HashMap::new(),
        };
        for certificate in &book.all {
            for name in certificate.names.iter() {
                let slot = match name.suffix() {
                    Some(suffix) => book.wildcard.entry(suffix.into()),
                    None => book.exact.entry(name.as_str().into()),
                };
                slot.or_insert_with(|| Arc::clone(certificate));
            }
        }
        Some(book)
    }

    /// The certificate for a name.
    pub fn pick(&self, name: Option<&str>) -> &Arc<Certificate> {
        let found =
            name.and_then(|name| self.covering(&name.trim_end_matches('.').to_ascii_lowercase()));
        found.unwrap_or(&self.all[0])
    }

    /// The certificate that covers a host in lower case.
    fn covering(&self, host: &str) -> Option<&Arc<Certificate>> {
        let wildcard = || {
            host.split_once('.')
                .and_then(|(_, rest)| self.wildcard.get(rest))
        };
        self.exact.get(host).or_else(wildcard)
    }

    /// Every certificate.
    pub fn all(&self) -> &[Arc<Certificate>] {
        &self.all
    }

    /// True when some certificate covers everything that the pattern stands for.
    pub fn cover(&self, host: &HostPattern) -> bool {
        match host.suffix() {
            Some(suffix) => self.wildcard.contains_key(suffix),
            None => self.covering(host.as_str()).is_some(),
        }
    }
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.pick(hello.server_name()).key))
    }
}

/// A chain and its key as their PEM files hold them, read but not parsed.
pub struct Files {
    cert: PathBuf,
    key: PathBuf,
    chain_pem: Vec<u8>,
    key_pem: Zeroizing<Vec<u8>>,
}

impl Files {
    /// Reads both.
    ///
    /// # Errors
    /// Which file cannot be read, and why, in words.
    pub fn read(cert: &Path, key: &Path) -> Result<Self, String> {
        let failed = |what: &str, path: &Path, error: &io::Error| {
            format!("cannot read {what}`{}`: {error}", path.display())
        };
        Ok(Self {
            chain_pem: fs::read(cert).map_err(|error| failed("", cert, &error))?,
            key_pem: fs::read(key)
                .map_err(|error| failed("the key ", key, &error))?
                .into(),
            cert: cert.to_owned(),
            key: key.to_owned(),
        })
    }

    /// What tells these contents from others.
    pub fn digest(&self) -> Sha256 {
        // Of two digests, so that nothing can move from the one file to the other.
        sha256(&[sha256(&self.chain_pem), sha256(&self.key_pem)].concat())
    }

    /// Parses them.
    ///
    /// # Errors
    /// Which file is bad, and what is wrong with it, in words.
    pub fn parse(&self) -> Result<Certificate, String> {
        let (cert, key) = (self.cert.display(), self.key.display());
        let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(&self.chain_pem)
            .collect::<Result<_, _>>()
            .map_err(|error| format!("cannot read `{cert}`: {error}"))?;
        if chain.is_empty() {
            return Err(format!("`{cert}` holds no certificate"));
        }
        let key_der = PrivateKeyDer::from_pem_slice(&self.key_pem)
            .map_err(|error| format!("cannot read the key `{key}`: {error}"))?;
        assemble(chain, key_der, cert.to_string())
    }
}

/// Checks that chain and key belong together and reads what the leaf covers.
///
/// # Errors
/// What does not fit, in words.
pub fn assemble(
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    label: String,
) -> Result<Certificate, String> {
    let leaf = chain.first().ok_or("no certificate")?;
    let (names, not_after) = read_leaf(leaf)?;
    let key = CertifiedKey::from_der(chain, key, &trust::provider())
        .map_err(|error| format!("certificate and key do not fit: {error}"))?;
    Ok(Certificate {
        key: Arc::new(key),
        names: names.into(),
        not_after,
        label,
    })
}

/// DNS names, IP addresses and end of validity of a certificate.
fn read_leaf(leaf: &CertificateDer<'_>) -> Result<(Vec<HostPattern>, i64), String> {
    let (_, parsed) =
        X509Certificate::from_der(leaf).map_err(|error| format!("not a certificate: {error}"))?;
    let mut names = Vec::new();
    if let Ok(Some(extension)) = parsed.subject_alternative_name() {
        for name in &extension.value.general_names {
            match name {
                GeneralName::DNSName(name) => names.extend(name.parse::<HostPattern>().ok()),
                GeneralName::IPAddress(bytes) => names.extend(address(bytes)),
                _ => {}
            }
        }
    }
    Ok((names, parsed.validity().not_after.timestamp()))
}

fn address(bytes: &[u8]) -> Option<HostPattern> {
    let text = if let Ok(v4) = <[u8; 4]>::try_from(bytes) {
        std::net::Ipv4Addr::from(v4).to_string()
    } else {
        let v6 = <[u8; 16]>::try_from(bytes).ok()?;
        format!("[{}]", std::net::Ipv6Addr::from(v6))
    };
    text.parse().ok()
}

/// A certificate signed by itself, for trials on this machine.
///
/// # Errors
/// The key generator failed, or a name cannot stand in a certificate.
pub fn self_signed(names: &[String]) -> Result<Certificate, String> {
    let made =
        rcgen::generate_simple_self_signed(names.to_vec()).map_err(|error| error.to_string())?;
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).map_err(str::to_owned)?;
    assemble(vec![made.cert.der().clone()], key, "self-signed".to_owned())
}
