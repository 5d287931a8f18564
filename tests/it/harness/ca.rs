//! A certificate authority for one test: server leaves for any names, client leaves, PEM files in a directory.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, KeyUsagePurpose,
};
use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// The authority, and the directory its files are written to.
pub struct Ca {
    issuer: CertifiedIssuer<'static, KeyPair>,
    directory: PathBuf,
}

/// One leaf: its PEM files and its DER forms.
pub struct Leaf {
    pub cert: PathBuf,
    pub key: PathBuf,
    pub cert_der: CertificateDer<'static>,
    /// What its holder sends along with it.
    pub chain: Vec<CertificateDer<'static>>,
    key_pair: KeyPair,
}

impl Leaf {
    /// Reads a leaf that another program issued into these PEM files.
    pub fn read(cert: PathBuf, key: PathBuf) -> Self {
        let key_pem = std::fs::read_to_string(&key).expect("a key file");
        Self {
            cert_der: CertificateDer::from_pem_file(&cert).expect("a certificate file"),
            chain: Vec::new(),
            key_pair: KeyPair::from_pem(&key_pem).expect("a PKCS#8 key"),
            cert,
            key,
        }
    }

    /// The same, sent with the certificate in this PEM file after it.
    pub fn followed_by(mut self, pem: &Path) -> Self {
        let next = CertificateDer::from_pem_file(pem).expect("a certificate file");
        self.chain.push(next);
        self
    }

    /// The section that has the proxy serve it.
    pub fn section(&self) -> String {
        format!(
            "[[tls.certificates]]\ncert = '{}'\nkey = '{}'\n",
            self.cert.display(),
            self.key.display()
        )
    }

    /// The private key in the form that a rustls client takes.
    pub fn key_der(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::try_from(self.key_pair.serialize_der()).expect("rcgen makes PKCS#8 keys")
    }
}

impl Ca {
    /// Makes an authority whose own certificate is written to `directory/ca.pem`.
    pub fn new(directory: &Path) -> Self {
        Self::named(directory, "ca")
    }

    /// Makes an authority whose own certificate is written to `directory/NAME.pem`.
    pub fn named(directory: &Path, name: &str) -> Self {
        let mut params = CertificateParams::new(Vec::new()).expect("no names");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params
            .distinguished_name
            .push(DnType::CommonName, format!("test authority {name}"));
        let key = KeyPair::generate().expect("a key pair");
        let issuer = CertifiedIssuer::self_signed(params, key).expect("a self-signed authority");
        write_private(&directory.join(format!("{name}.pem")), &issuer.pem());
        Self {
            issuer,
            directory: directory.to_owned(),
        }
    }

    /// Issues a server certificate for `names` into `FILE.crt` and `FILE.key`.
    pub fn server(&self, file: &str, names: &[&str]) -> Leaf {
        self.server_for_days(file, names, 90)
    }

    /// Issues a server certificate that is valid for so many days from now.
    pub fn server_for_days(&self, file: &str, names: &[&str], days: i64) -> Leaf {
        let end = time::OffsetDateTime::now_utc() + time::Duration::days(days);
        self.issue(file, names, ExtendedKeyUsagePurpose::ServerAuth, end)
    }

    /// Issues a client certificate with `name` as its common name into `FILE.crt` and `FILE.key`.
    pub fn client(&self, file: &str, name: &str) -> Leaf {
        let end = time::OffsetDateTime::now_utc() + time::Duration::days(90);
        self.issue(file, &[name], ExtendedKeyUsagePurpose::ClientAuth, end)
    }

    /// A trust store that holds this authority alone.
    pub fn roots(&self) -> Arc<RootCertStore> {
        let mut roots = RootCertStore::empty();
        roots
            .add(self.issuer.der().clone())
            .expect("our authority parses");
        Arc::new(roots)
    }

    fn issue(
        &self,
        file: &str,
        names: &[&str],
        usage: ExtendedKeyUsagePurpose,
        end: time::OffsetDateTime,
    ) -> Leaf {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names.clone()).expect("valid names");
        params
            .distinguished_name
            .push(DnType::CommonName, names.first().map_or("", String::as_str));
        params.extended_key_usages = vec![usage];
        params.not_before = time::OffsetDateTime::now_utc() - time::Duration::days(1);
        params.not_after = end;
        let key_pair = KeyPair::generate().expect("a key pair");
        let certificate = params
            .signed_by(&key_pair, &self.issuer)
            .expect("our authority signs");
        let cert = self.directory.join(format!("{file}.crt"));
        let key = self.directory.join(format!("{file}.key"));
        write_private(&cert, &certificate.pem());
        write_private(&key, &key_pair.serialize_pem());
        Leaf {
            cert,
            key,
            cert_der: certificate.der().clone(),
            chain: Vec::new(),
            key_pair,
        }
    }
}

/// Writes a file that only its owner reads, by renaming into place as a certificate tool would.
fn write_private(path: &Path, text: &str) {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;

    let fresh = path.with_extension("fresh");
    let mut file = std::fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&fresh)
        .expect("the test's directory takes files");
    file.write_all(text.as_bytes()).expect("the disk has room");
    std::fs::rename(&fresh, path).expect("a rename in one directory");
}
