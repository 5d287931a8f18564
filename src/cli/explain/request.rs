//! The request that `explain` is asked about: from the command line to the bytes and the head that a client would send.

use std::{
    io::Read,
    net::{IpAddr, SocketAddr},
    path::Path,
    sync::Arc,
};

use http::{HeaderName, Method, Request, Uri, Version, header::HeaderValue, request::Parts};

use rustls::pki_types::{CertificateDer, pem::PemObject};

use super::ExplainArgs;
use crate::{
    exchange::{
        client_certificate::ClientCertificate,
        connection::{Connection, Tls},
    },
    server::{
        refusal::{self, Refused},
        screen::{Screen, ScreenLimits},
    },
    snapshot::{Snapshot, server::Limits},
    wire::halt::Reason,
};

/// The longest token file that is read.
const TOKEN_BYTES: u64 = 64 * 1024;

/// The request in parts, as it was asked.
pub(super) struct Asked {
    pub(super) method: Method,
    pub(super) url: String,
    scheme: Scheme,
    authority: String,
    target: String,
    fields: Vec<(HeaderName, HeaderValue)>,
    pub(super) token: Option<String>,
    pub(super) from: IpAddr,
    /// Client certificate, leaf first.
    chain: Vec<CertificateDer<'static>>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Scheme {
    Http,
    Https,
}

impl Asked {
    /// Reads the command line.
    pub(super) fn new(args: &ExplainArgs) -> Result<Self, String> {
        let (name, url) = (
            args.method.as_deref().unwrap_or_default(),
            args.url.as_deref().unwrap_or_default(),
        );
        let method =
            Method::from_bytes(name.as_bytes()).map_err(|_| format!("`{name}` is no method"))?;
        let (scheme, rest) = match url.split_once("://") {
            Some(("https", rest)) => (Scheme::Https, rest),
            Some(("http", rest)) => (Scheme::Http, rest),
            _ => return Err(no_url(url)),
        };
        // A fragment stays with the client.
        let rest = rest.split('#').next().unwrap_or_default();
        let end = rest.find(['/', '?']).unwrap_or(rest.len());
        let (authority, target) = rest.split_at(end);
        if authority.is_empty() {
            return Err(no_url(url));
        }
        let mut fields = Vec::new();
        for line in &args.headers {
            fields.push(field(line)?);
        }
        let token = args.token.as_deref().map(read_token).transpose()?;
        if let Some(token) = &token {
            let value = HeaderValue::try_from(format!("Bearer {token}"))
                .map_err(|_| "the token has characters that no header may have".to_owned())?;
            fields.push((http::header::AUTHORIZATION, value));
        }
        let slash = if target.starts_with('/') { "" } else { "/" };
        Ok(Self {
            method,
            url: url.to_owned(),
            scheme,
            authority: authority.to_owned(),
            target: format!("{slash}{target}"),
            fields,
            token,
            from: args.from,
            chain: args
                .certificate
                .as_deref()
                .map_or(Ok(Vec::new()), read_chain)?,
        })
    }

    /// The token of an `Authorization` field given by hand.
    pub(super) fn bearer(&self) -> Option<&str> {
        let mut fields = self.fields.iter();
        let (_, value) = fields.find(|(name, _)| name == http::header::AUTHORIZATION)?;
        value.to_str().ok()?.strip_prefix("Bearer ")
    }

    /// The host as it is named to the server in the TLS handshake.
    fn host(&self) -> &str {
        match self.authority.rsplit_once(':') {
            Some((host, port)) if !port.contains(']') => host,
            _ => &self.authority,
        }
    }

    /// What the screen says of the bytes of the head.
    pub(super) fn screen(&self, limits: &Limits) -> Result<(), Refused> {
        let mut bytes = format!("{} {} HTTP/1.1\r\n", self.method, self.target).into_bytes();
        let host = (http::header::HOST, self.authority.as_bytes());
        let host = (!self.names_host()).then_some(host);
        let fields = self
            .fields
            .iter()
            .map(|(name, value)| (name.clone(), value.as_bytes()));
        for (name, value) in host.into_iter().chain(fields) {
            bytes.extend_from_slice(name.as_str().as_bytes());
            bytes.extend_from_slice(b": ");
            bytes.extend_from_slice(value);
            bytes.extend_from_slice(b"\r\n");
        }
        bytes.extend_from_slice(b"\r\n");
        let mut screen = Screen::new(ScreenLimits {
            head_bytes: limits.header_bytes,
            header_count: limits.header_count,
            uri_bytes: limits.uri_bytes,
        });
        screen.feed(&bytes);
        refusal::of_violation(screen.refusal()).map_or(Ok(()), Err)
    }

    fn names_host(&self) -> bool {
        self.fields
            .iter()
            .any(|(name, _)| name == http::header::HOST)
    }

    /// The head as the parser would hand it on.
    pub(super) fn head(&self) -> Result<Parts, Reason> {
        let target = Uri::try_from(self.target.as_str()).map_err(|_| Reason::BadTarget)?;
        let mut request = Request::new(());
        *request.method_mut() = self.method.clone();
        *request.uri_mut() = target;
        *request.version_mut() = Version::HTTP_11;
        let headers = request.headers_mut();
        if !self.names_host() {
            let host = HeaderValue::from_str(&self.authority).map_err(|_| Reason::BadHost)?;
            headers.insert(http::header::HOST, host);
        }
        for (name, value) in &self.fields {
            headers.append(name, value.clone());
        }
        Ok(request.into_parts().0)
    }

    /// What the client would show, if the file asks for it.
    fn client_certificate(&self, snapshot: &Snapshot) -> Option<Box<ClientCertificate>> {
        let asks = snapshot
            .tls
            .as_ref()
            .is_some_and(|tls| tls.clients.is_some());
        if !asks || self.chain.is_empty() {
            return None;
        }
        ClientCertificate::new(self.chain.clone())
            .ok()
            .map(Box::new)
    }

    /// The connection it would come on, and the certificate that is served on it.
    pub(super) fn connection(&self, snapshot: &Snapshot) -> (Arc<Connection>, Option<String>) {
        let tls = snapshot
            .tls
            .as_ref()
            .filter(|_| self.scheme == Scheme::Https);
        let certificate = tls.map(|tls| tls.certificates.pick(Some(self.host())));
        let facts = certificate.map(|certificate| Tls {
            version: "1.3",
            names: Arc::clone(&certificate.names),
            client: self.client_certificate(snapshot),
        });
        let connection = Connection::new(SocketAddr::new(self.from, 0), facts);
        let label = match (self.scheme, certificate) {
            (Scheme::Http, _) => None,
            (Scheme::Https, Some(certificate)) => Some(certificate.label.clone()),
            (Scheme::Https, None) => {
                Some("none: this file has no TLS, so the request is taken as one in clear".into())
            }
        };
        (Arc::new(connection), label)
    }
}

/// The chain of a PEM file; whether it holds is asked of the stages.
fn read_chain(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let bad = |why: String| format!("cannot read a certificate from `{}`: {why}", path.display());
    let pem = std::fs::read(path).map_err(|error| bad(error.to_string()))?;
    let chain = CertificateDer::pem_slice_iter(&pem).collect::<Result<Vec<_>, _>>();
    let chain = chain.map_err(|error| bad(error.to_string()))?;
    let read = ClientCertificate::new(chain.clone());
    read.map(|_| chain).map_err(|error| bad(error.to_string()))
}

fn no_url(text: &str) -> String {
    format!("`{text}` is no URL of a request\nhint: such as `https://app.example/api/users/7`")
}

fn field(line: &str) -> Result<(HeaderName, HeaderValue), String> {
    let refused =
        || format!("`{line}` is no header\nhint: such as `-H 'Origin: https://app.example'`");
    let (name, value) = line.split_once(':').ok_or_else(refused)?;
    let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| refused())?;
    let value = HeaderValue::from_str(value.trim()).map_err(|_| refused())?;
    Ok((name, value))
}

fn read_token(path: &Path) -> Result<String, String> {
    let mut text = String::new();
    let read = if path == Path::new("-") {
        std::io::stdin()
            .lock()
            .take(TOKEN_BYTES)
            .read_to_string(&mut text)
    } else {
        std::fs::File::open(path).and_then(|file| file.take(TOKEN_BYTES).read_to_string(&mut text))
    };
    read.map_err(|error| format!("cannot read the token from `{}`: {error}", path.display()))?;
    Ok(text.trim().to_owned())
}
