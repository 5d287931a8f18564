//! Whom we trust when we are the TLS client: the system's authorities, or those of a PEM file.

use std::path::Path;
use std::sync::{Arc, OnceLock};

use rustls::crypto::CryptoProvider;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};

use super::certificate::Authority;

/// The one provider of TLS cryptography, shared by every configuration.
pub fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: OnceLock<Arc<CryptoProvider>> = OnceLock::new();
    Arc::clone(PROVIDER.get_or_init(|| Arc::new(rustls::crypto::aws_lc_rs::default_provider())))
}

/// The certificates of the system, read once; those of Mozilla where the system has none, as in an empty container.
pub fn system_roots() -> &'static RootCertStore {
    static ROOTS: OnceLock<RootCertStore> = OnceLock::new();
    ROOTS.get_or_init(|| {
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        if roots.is_empty() {
            roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
        }
        roots
    })
}

/// Adds the certificates of a PEM file.
///
/// # Errors
/// The file is unreadable, malformed or holds no certificate; in words.
pub fn add(roots: &mut RootCertStore, path: &Path) -> Result<(), String> {
    let pem = std::fs::read(path).map_err(|error| error.to_string())?;
    add_pem(roots, &pem)
}

/// Adds the certificates of a PEM text.
///
/// # Errors
/// It is malformed or holds no certificate; in words.
pub fn add_pem(roots: &mut RootCertStore, pem: &[u8]) -> Result<(), String> {
    let mut found = false;
    for certificate in CertificateDer::pem_slice_iter(pem) {
        let der = certificate.map_err(|error| error.to_string())?;
        roots.add(der).map_err(|error| error.to_string())?;
        found = true;
    }
    found.then_some(()).ok_or("no certificate in it".to_owned())
}

/// Who the certificates of a PEM text are of.
///
/// # Errors
/// It is malformed, or one of them cannot be read; in words.
pub fn authorities(pem: &[u8]) -> Result<Vec<Authority>, String> {
    CertificateDer::pem_slice_iter(pem)
        .map(|der| {
            let der = der.map_err(|error| error.to_string())?;
            Authority::of_der(&der).map_err(|error| error.to_string())
        })
        .collect()
}

/// A client that trusts these authorities and offers one protocol, such as `http/1.1` (RFC 7301).
pub fn client_config(roots: RootCertStore, protocol: &str) -> Arc<ClientConfig> {
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .expect("the provider's own defaults fit each other")
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![protocol.as_bytes().to_vec()];
    Arc::new(config)
}
