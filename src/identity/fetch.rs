//! One small request to an issuer, for key sets, discovery documents and questions about tokens: HTTP/1.1 over rustls, a
//! fresh connection each time.
//!
//! Made for an issuer that the operator named: no pool, no redirects, no cookies, no compression, a cap on time and size.
//! URLs never come from a token.

use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::uri::{Authority, PathAndQuery};
use http::{HeaderValue, Method, Request, StatusCode, Uri, header};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::crypto::digest::{Sha256, sha256};
use crate::crypto::trust;

/// The most a document may weigh.
pub const MAX_BODY: usize = 1024 * 1024;
/// The most a whole exchange may take: name look-up, connect, TLS, answer.
pub const DEADLINE: Duration = Duration::from_secs(5);

/// Why a URL or its extra certificates cannot be used. For the operator, at load.
#[derive(Debug, Error)]
pub enum LocationError {
    /// Not an absolute URL, or one with a user name in it.
    #[error("`{0}` is not an absolute URL without user name, such as `https://idp.example/keys`")]
    Url(String),
    /// Neither https nor plain http to this machine.
    #[error("`{0}` must be https; plain http is accepted for a loopback address only")]
    Plain(String),
    /// The file with extra certificates cannot be used.
    #[error("cannot read certificates from `{path}`: {cause}")]
    Certificates {
        /// The file as it was named.
        path: String,
        /// What went wrong.
        cause: String,
    },
}

/// Why a fetch gave nothing. For the log.
#[derive(Debug, Error)]
pub enum FetchError {
    /// Longer than this.
    #[error("no complete answer within {} ms", .0.as_millis())]
    Deadline(Duration),
    /// The name has no (permitted) address, or nobody answers there, or TLS failed.
    #[error("cannot connect: {0}")]
    Connect(#[from] std::io::Error),
    /// The answer is not HTTP, or ended early.
    #[error("broken exchange: {0}")]
    Http(#[from] hyper::Error),
    /// An answer other than 200; redirects are not followed.
    #[error("answered with status {0}")]
    Status(StatusCode),
    /// A body over [`MAX_BODY`].
    #[error("the body is larger than {MAX_BODY} bytes")]
    TooLarge,
    /// A compressed body, which was not asked for.
    #[error("the body is compressed")]
    Encoded,
    /// The body ended early.
    #[error("the body could not be read")]
    Body,
}

/// Certificates to trust beside those of the system: a PEM file with what it held when it was read. Another content makes
/// another value, so that nothing which was fetched under the one counts under the other.
#[derive(Clone, PartialEq, Eq)]
pub struct Authorities {
    path: PathBuf,
    pem: Arc<[u8]>,
}

impl Authorities {
    /// Reads the file; what it holds is looked at by [`Location::new`].
    ///
    /// # Errors
    /// [`LocationError::Certificates`]: it cannot be read.
    pub fn read(path: &Path) -> Result<Self, LocationError> {
        let pem = std::fs::read(path).map_err(|cause| LocationError::Certificates {
            path: path.display().to_string(),
            cause: cause.to_string(),
        })?;
        Ok(Self {
            path: path.to_owned(),
            pem: pem.into(),
        })
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The SHA-256 of what it held.
    pub fn digest(&self) -> Sha256 {
        sha256(&self.pem)
    }
}

impl fmt::Debug for Authorities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authorities")
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}

/// Where a document is fetched from, checked and ready.
#[derive(Clone)]
pub struct Location {
    authority: Authority,
    path: PathAndQuery,
    host: String,
    port: u16,
    /// `None` for plain http to a loopback address.
    tls: Option<(TlsConnector, ServerName<'static>)>,
}

impl Location {
    /// Checks a URL; `ca` are certificates to trust beside those of the system.
    ///
    /// # Errors
    /// Anything but https, save http to `localhost` or a loopback address; unreadable certificates.
    pub fn new(url: &str, ca: Option<&Authorities>) -> Result<Self, LocationError> {
        let bad = || LocationError::Url(url.to_owned());
        let uri: Uri = url.parse().map_err(|_| bad())?;
        let authority = uri
            .authority()
            .filter(|authority| !authority.as_str().contains('@'))
            .ok_or_else(bad)?;
        let host = authority
            .host()
            .trim_start_matches('[')
            .trim_end_matches(']')
            .to_owned();
        let tls = match uri.scheme_str() {
            Some("https") => {
                let name = ServerName::try_from(host.clone()).map_err(|_| bad())?;
                Some((connector(ca)?, name))
            }
            Some("http") if is_loopback(&host) => None,
            Some("http") => return Err(LocationError::Plain(url.to_owned())),
            _ => return Err(bad()),
        };
        let port = authority
            .port_u16()
            .unwrap_or(if tls.is_some() { 443 } else { 80 });
        let path = uri
            .path_and_query()
            .cloned()
            .unwrap_or_else(|| PathAndQuery::from_static("/"));
        Ok(Self {
            authority: authority.clone(),
            path,
            host,
            port,
            tls,
        })
    }

    /// Fetches the document.
    ///
    /// # Errors
    /// See [`FetchError`]; never more than [`MAX_BODY`] bytes nor later than [`DEADLINE`].
    pub async fn get(&self) -> Result<Bytes, FetchError> {
        self.get_within(DEADLINE).await
    }

    async fn get_within(&self, deadline: Duration) -> Result<Bytes, FetchError> {
        let mut request = self.request(Method::GET, Bytes::new());
        let accept = "application/jwk-set+json, application/json";
        let headers = request.headers_mut();
        headers.insert(header::ACCEPT, HeaderValue::from_static(accept));
        self.send(request, deadline).await
    }

    /// Sends a form (`application/x-www-form-urlencoded`) and gives the JSON that comes back.
    ///
    /// # Errors
    /// See [`FetchError`]; never more than [`MAX_BODY`] bytes nor later than `deadline`.
    pub async fn post(
        &self,
        form: String,
        authorization: Option<&HeaderValue>,
        deadline: Duration,
    ) -> Result<Bytes, FetchError> {
        let mut request = self.request(Method::POST, Bytes::from(form));
        let headers = request.headers_mut();
        let json = HeaderValue::from_static("application/json");
        headers.insert(header::ACCEPT, json);
        let form = HeaderValue::from_static("application/x-www-form-urlencoded");
        headers.insert(header::CONTENT_TYPE, form);
        if let Some(authorization) = authorization {
            headers.insert(header::AUTHORIZATION, authorization.clone());
        }
        self.send(request, deadline).await
    }

    async fn send(
        &self,
        request: Request<Full<Bytes>>,
        deadline: Duration,
    ) -> Result<Bytes, FetchError> {
        tokio::time::timeout(deadline, self.connect(request))
            .await
            .map_err(|_| FetchError::Deadline(deadline))?
    }

    async fn connect(&self, request: Request<Full<Bytes>>) -> Result<Bytes, FetchError> {
        let addresses: Vec<SocketAddr> = tokio::net::lookup_host((self.host.as_str(), self.port))
            .await?
            // A name such as `localhost` is only as local as the resolver says.
            .filter(|address| self.tls.is_some() || address.ip().is_loopback())
            .collect();
        let stream = TcpStream::connect(addresses.as_slice()).await?;
        match &self.tls {
            Some((tls, name)) => {
                let stream = tls.connect(name.clone(), stream).await?;
                exchange(stream, request).await
            }
            None => exchange(stream, request).await,
        }
    }

    fn request(&self, method: Method, body: Bytes) -> Request<Full<Bytes>> {
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = method;
        *request.uri_mut() = Uri::from(self.path.clone());
        let headers = request.headers_mut();
        if let Ok(host) = HeaderValue::from_str(self.authority.as_str()) {
            headers.insert(header::HOST, host);
        }
        headers.insert(header::USER_AGENT, HeaderValue::from_static("portcullis"));
        headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        request
    }
}

async fn exchange<S>(stream: S, request: Request<Full<Bytes>>) -> Result<Bytes, FetchError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) = http1::Builder::new()
        .max_buf_size(64 * 1024)
        .handshake(TokioIo::new(stream))
        .await?;
    let mut answer = pin!(async {
        let response = sender.send_request(request).await?;
        if response.status() != StatusCode::OK {
            return Err(FetchError::Status(response.status()));
        }
        if response
            .headers()
            .get(header::CONTENT_ENCODING)
            .is_some_and(|coding| coding != "identity")
        {
            return Err(FetchError::Encoded);
        }
        read(response.into_body()).await
    });
    tokio::select! {
        answer = &mut answer => answer,
        // The connection may end well before the body was taken out; if it ended badly, the answer says so.
        _ = connection => answer.await,
    }
}

impl fmt::Debug for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Location")
            .field("authority", &self.authority)
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}

async fn read(body: hyper::body::Incoming) -> Result<Bytes, FetchError> {
    match Limited::new(body, MAX_BODY).collect().await {
        Ok(body) => Ok(body.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => Err(FetchError::TooLarge),
        Err(error) => Err(error
            .downcast::<hyper::Error>()
            .map_or(FetchError::Body, |error| FetchError::Http(*error))),
    }
}

fn is_loopback(host: &str) -> bool {
    host.eq_ignore_ascii_case("localhost")
        || host
            .parse::<std::net::IpAddr>()
            .is_ok_and(|address| address.is_loopback())
}

fn connector(ca: Option<&Authorities>) -> Result<TlsConnector, LocationError> {
    let mut roots = trust::system_roots().clone();
    if let Some(ca) = ca {
        trust::add_pem(&mut roots, &ca.pem).map_err(|cause| LocationError::Certificates {
            path: ca.path.display().to_string(),
            cause,
        })?;
    }
    Ok(TlsConnector::from(trust::client_config(roots, "http/1.1")))
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Arc;
    use std::time::Duration;

    use rcgen::{CertificateParams, KeyPair};
    use rustls::ServerConfig;
    use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
    use serde_json::json;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;
    use tokio_rustls::TlsAcceptor;

    use super::{Authorities, FetchError, Location, LocationError, MAX_BODY};
    use crate::identity::minting::{KeyServer, ok};

    #[test]
    fn only_https_or_this_machine() {
        for good in [
            "https://idp.example/keys",
            "https://idp.example:8443",
            "https://[::1]:8443/keys",
            "http://127.0.0.1:1/keys",
            "http://[::1]/keys",
            "http://localhost:80/",
        ] {
            assert!(Location::new(good, None).is_ok(), "{good}");
        }
        for plain in [
            "http://idp.example/",
            "http://10.0.0.1/",
            "http://127.0.0.1.evil.example/",
            "http://localhost.evil/",
        ] {
            assert!(
                matches!(Location::new(plain, None), Err(LocationError::Plain(_))),
                "{plain}"
            );
        }
        for bad in [
            "",
            "/keys",
            "idp.example",
            "file:///etc/passwd",
            "ftp://127.0.0.1/",
            "http://a@127.0.0.1/",
            "https://a:b@idp.example/",
        ] {
            assert!(
                matches!(Location::new(bad, None), Err(LocationError::Url(_))),
                "{bad}"
            );
        }
        let missing = Authorities::read(Path::new("/nonexistent.pem"));
        assert!(matches!(missing, Err(LocationError::Certificates { .. })));
        let empty = tempfile::NamedTempFile::new().unwrap();
        let empty = Authorities::read(empty.path()).unwrap();
        let none = Location::new("https://idp.example/", Some(&empty));
        assert!(matches!(none, Err(LocationError::Certificates { .. })));
    }

    async fn get(answer: String) -> Result<bytes::Bytes, FetchError> {
        let server = KeyServer::start(answer).await;
        Location::new(&server.url, None).unwrap().get().await
    }

    #[tokio::test]
    async fn a_plain_answer_is_read_with_and_without_a_length() {
        assert_eq!(get(ok(&json!({"a": 1}))).await.unwrap(), r#"{"a":1}"#);
        assert_eq!(
            get("HTTP/1.0 200 OK\r\n\r\nabc".to_owned()).await.unwrap(),
            "abc"
        );
    }

    #[tokio::test]
    async fn answers_of_no_use() {
        let redirect =
            "HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 0\r\n\r\n";
        assert!(
            matches!(get(redirect.to_owned()).await, Err(FetchError::Status(status)) if status == 302)
        );
        let gzip = "HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: 1\r\n\r\nx";
        assert!(matches!(
            get(gzip.to_owned()).await,
            Err(FetchError::Encoded)
        ));
        let large = format!("HTTP/1.1 200 OK\r\n\r\n{}", "x".repeat(MAX_BODY + 1));
        assert!(matches!(get(large).await, Err(FetchError::TooLarge)));
        let cut = "HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nabc";
        assert!(matches!(
            get(cut.to_owned()).await,
            Err(FetchError::Http(_))
        ));
        assert!(matches!(
            get("nonsense\r\n\r\n".to_owned()).await,
            Err(FetchError::Http(_))
        ));
    }

    #[tokio::test]
    async fn a_server_that_says_nothing_is_given_up() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        let silent = Location::new(&url, None)
            .unwrap()
            .get_within(Duration::from_millis(20))
            .await;
        assert!(matches!(silent, Err(FetchError::Deadline(_))));
        drop(listener);
        assert!(matches!(
            Location::new(&url, None).unwrap().get().await,
            Err(FetchError::Connect(_))
        ));
    }

    #[tokio::test]
    async fn https_needs_a_trusted_certificate_for_the_name() {
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new(vec!["localhost".to_owned()])
            .unwrap()
            .self_signed(&key)
            .unwrap();
        let ca = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(ca.path(), certificate.pem()).unwrap();
        let port = serve(certificate.der().clone(), key.serialize_der()).await;

        let ca = Authorities::read(ca.path()).unwrap();
        let good = Location::new(&format!("https://localhost:{port}/keys"), Some(&ca)).unwrap();
        assert_eq!(good.get().await.unwrap(), "{}");
        let untrusted = Location::new(&format!("https://localhost:{port}/keys"), None).unwrap();
        assert!(matches!(untrusted.get().await, Err(FetchError::Connect(_))));
        let other_name =
            Location::new(&format!("https://127.0.0.1:{port}/keys"), Some(&ca)).unwrap();
        assert!(matches!(
            other_name.get().await,
            Err(FetchError::Connect(_))
        ));
    }

    async fn serve(certificate: rustls::pki_types::CertificateDer<'static>, key: Vec<u8>) -> u16 {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(
                vec![certificate],
                PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key)),
            )
            .unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                if let Ok(mut stream) = acceptor.accept(stream).await {
                    let _ = stream.read(&mut [0; 1024]).await;
                    let _ = stream.write_all(ok(&json!({})).as_bytes()).await;
                }
            }
        });
        port
    }
}
