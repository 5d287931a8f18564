//! An authority for client certificates that OpenSSL runs, so that certificates and revocations are made by others.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::ca::Leaf;

/// The authority: its key, certificate and index lie in the test's directory under its name.
pub struct Authority {
    directory: PathBuf,
    name: String,
}

/// When a list of revocations is to be renewed.
#[derive(Clone, Copy)]
pub enum NextUpdate {
    Tomorrow,
    LongAgo,
}

impl Authority {
    /// Makes an authority `O=Example,CN=NAME` whose certificate is `NAME.pem`.
    pub fn new(directory: &Path, name: &str) -> Self {
        let authority = Self::empty(directory, name);
        authority.openssl(&[
            "req",
            "-x509",
            "-config",
            &authority.file("cnf"),
            "-extensions",
            "authority",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-nodes",
            "-keyout",
            &authority.file("key"),
            "-out",
            &authority.file("pem"),
            "-days",
            "30",
            "-subj",
            &format!("/O=Example/CN={name}"),
        ]);
        authority
    }

    /// Makes an authority below this one, of whatever subject; its certificate is `NAME.pem`.
    pub fn below(&self, name: &str, subject: &str) -> Self {
        let authority = Self::empty(&self.directory, name);
        authority.openssl(&[
            "req",
            "-new",
            "-config",
            &authority.file("cnf"),
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-nodes",
            "-keyout",
            &authority.file("key"),
            "-out",
            &authority.file("csr"),
            "-subj",
            subject,
        ]);
        self.openssl(&[
            "ca",
            "-batch",
            "-notext",
            "-config",
            &self.file("cnf"),
            "-extensions",
            "authority",
            "-in",
            &authority.file("csr"),
            "-out",
            &authority.file("pem"),
        ]);
        authority
    }

    fn empty(directory: &Path, name: &str) -> Self {
        let authority = Self {
            directory: directory.to_owned(),
            name: name.to_owned(),
        };
        authority.write("index", "");
        authority.write("crlnumber", "1000\n");
        authority.write("cnf", &authority.settings());
        authority
    }

    /// The file with its certificate.
    pub fn pem(&self) -> PathBuf {
        self.file("pem").into()
    }

    /// Issues a client certificate, `FILE.crt` and `FILE.key`, such as for `/O=Example/CN=a` and `DNS:a.example`.
    pub fn client(&self, file: &str, subject: &str, names: &str) -> Leaf {
        self.client_until(file, subject, names, None)
    }

    /// The same with the moment at which it ends.
    pub fn client_until(
        &self,
        file: &str,
        subject: &str,
        names: &str,
        end: Option<time::OffsetDateTime>,
    ) -> Leaf {
        let path = |kind: &str| self.directory.join(format!("{file}.{kind}"));
        let text = |kind: &str| path(kind).display().to_string();
        self.openssl(&[
            "req",
            "-new",
            "-config",
            &self.file("cnf"),
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-nodes",
            "-keyout",
            &text("key"),
            "-out",
            &text("csr"),
            "-subj",
            subject,
        ]);
        let names = if names.is_empty() {
            String::new()
        } else {
            format!("subjectAltName={names}\n")
        };
        std::fs::write(path("ext"), format!("extendedKeyUsage=clientAuth\n{names}"))
            .expect("the test's directory takes files");
        let end = end.unwrap_or_else(|| time::OffsetDateTime::now_utc() + time::Duration::days(5));
        self.openssl(&[
            "ca",
            "-batch",
            "-notext",
            "-config",
            &self.file("cnf"),
            "-in",
            &text("csr"),
            "-out",
            &text("crt"),
            "-extfile",
            &text("ext"),
            "-enddate",
            &stamp(end),
        ]);
        Leaf::read(path("crt"), path("key"))
    }

    /// Revokes a certificate; the next list will say so.
    pub fn revoke(&self, leaf: &Leaf) {
        let cert = leaf.cert.display().to_string();
        self.openssl(&["ca", "-config", &self.file("cnf"), "-revoke", &cert]);
    }

    /// Writes the list of what is revoked now to a file of this name, as one made at `made` (`YYYYMMDDHHMMSSZ`) that
    /// holds for long.
    pub fn list_made_at(&self, file: &str, made: &str) -> PathBuf {
        self.list_with(file, made, "list")
    }

    /// The same for a part of the certificates (RFC 5280 §5.2.5): those that name this place of theirs.
    pub fn partial_list_made_at(&self, file: &str, made: &str) -> PathBuf {
        self.list_with(file, made, "part")
    }

    fn list_with(&self, file: &str, made: &str, extensions: &str) -> PathBuf {
        let path = self.directory.join(file);
        let (config, out) = (self.file("cnf"), path.display().to_string());
        self.openssl(&[
            "ca",
            "-config",
            &config,
            "-gencrl",
            "-out",
            &out,
            "-crl_lastupdate",
            made,
            "-crl_nextupdate",
            "20490101000000Z",
            "-crlexts",
            extensions,
        ]);
        path
    }

    /// Writes the list of what is revoked now to `NAME.crl`, by renaming into place.
    pub fn list(&self, next: NextUpdate) -> PathBuf {
        let fresh = self.file("fresh");
        let config = self.file("cnf");
        let mut arguments = vec!["ca", "-config", &config, "-gencrl", "-out", &fresh];
        arguments.extend(match next {
            NextUpdate::Tomorrow => ["-crldays", "1"].as_slice(),
            NextUpdate::LongAgo => &[
                "-crl_lastupdate",
                "20200101000000Z",
                "-crl_nextupdate",
                "20200201000000Z",
            ],
        });
        self.openssl(&arguments);
        std::fs::rename(&fresh, self.file("crl")).expect("a rename in one directory");
        self.file("crl").into()
    }

    fn file(&self, kind: &str) -> String {
        let file = self.directory.join(format!("{}.{kind}", self.name));
        file.display().to_string()
    }

    fn write(&self, kind: &str, text: &str) {
        std::fs::write(self.file(kind), text).expect("the test's directory takes files");
    }

    fn settings(&self) -> String {
        format!(
            "[ca]\ndefault_ca = here\n\
             [here]\ndatabase = {}\ncrlnumber = {}\nnew_certs_dir = {}\ncertificate = {}\nprivate_key = {}\n\
             rand_serial = yes\ndefault_md = sha256\npolicy = any\npreserve = yes\nunique_subject = no\n\
             default_days = 5\ncrl_extensions = list\n\
             [any]\norganizationName = optional\ncommonName = optional\n\
             [req]\ndistinguished_name = asked\nstring_mask = utf8only\n[asked]\n\
             [authority]\nbasicConstraints = critical,CA:true\nkeyUsage = critical,keyCertSign,cRLSign\n\
             subjectKeyIdentifier = hash\n\
             [list]\nauthorityKeyIdentifier = keyid:always\n\
             [part]\nauthorityKeyIdentifier = keyid:always\nissuingDistributionPoint = critical,@place\n\
             [place]\nfullname = URI:http://crl.example/part.crl\n",
            self.file("index"),
            self.file("crlnumber"),
            self.directory.display(),
            self.file("pem"),
            self.file("key"),
        )
    }

    fn openssl(&self, arguments: &[&str]) {
        run(Command::new("openssl")
            .args(arguments)
            .current_dir(&self.directory));
    }
}

/// SHA-256 of a certificate as OpenSSL prints it: pairs of digits between colons.
pub fn fingerprint(leaf: &Leaf) -> String {
    let text = run(Command::new("openssl")
        .args(["x509", "-noout", "-fingerprint", "-sha256", "-in"])
        .arg(&leaf.cert));
    let (_, digits) = text.trim().split_once('=').expect("NAME=DIGITS");
    digits.to_owned()
}

/// The same as `x5t#S256`: base64url without padding.
pub fn thumbprint(leaf: &Leaf) -> String {
    use base64::Engine;

    let digits = fingerprint(leaf);
    let bytes: Vec<u8> = digits
        .split(':')
        .map(|pair| u8::from_str_radix(pair, 16).expect("hexadecimal"))
        .collect();
    base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(bytes)
}

fn run(command: &mut Command) -> String {
    let output = command
        .output()
        .unwrap_or_else(|error| panic!("openssl (apt install openssl): {error}"));
    assert!(
        output.status.success(),
        "openssl: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// `YYYYMMDDHHMMSSZ`
fn stamp(moment: time::OffsetDateTime) -> String {
    format!(
        "{:04}{:02}{:02}{:02}{:02}{:02}Z",
        moment.year(),
        u8::from(moment.month()),
        moment.day(),
        moment.hour(),
        moment.minute(),
        moment.second()
    )
}
