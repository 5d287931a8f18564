//! A client that sends exactly the bytes it is told to, plain or within TLS, and has a deadline on all it waits for.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, HandshakeKind, ProtocolVersion, StreamOwned};

use super::ca::{Ca, Leaf};
use super::message::{Buffered, Response};

/// How long a read or write may take.
const DEADLINE: Duration = Duration::from_secs(20);

/// The two kinds of stream a client speaks over.
enum Stream {
    Plain(TcpStream),
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(stream) => stream.read(buffer),
            Self::Tls(stream) => stream.read(buffer),
        }
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(stream) => stream.write(bytes),
            Self::Tls(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(stream) => stream.flush(),
            Self::Tls(stream) => stream.flush(),
        }
    }
}

/// How a TLS client presents itself.
#[derive(Clone)]
pub struct TlsOptions {
    pub config: Arc<ClientConfig>,
    pub sni: String,
}

impl TlsOptions {
    /// Trusts `ca`, asks for `sni`, speaks TLS 1.2 and 1.3 and offers `http/1.1`.
    pub fn new(ca: &Ca, sni: &str) -> Self {
        Self::with(ca, sni, rustls::DEFAULT_VERSIONS, None)
    }

    /// Speaks only the given protocol versions.
    pub fn versions(
        ca: &Ca,
        sni: &str,
        versions: &[&'static rustls::SupportedProtocolVersion],
    ) -> Self {
        Self::with(ca, sni, versions, None)
    }

    /// Presents a client certificate.
    pub fn presenting(ca: &Ca, sni: &str, leaf: &Leaf) -> Self {
        Self::with(ca, sni, rustls::DEFAULT_VERSIONS, Some(leaf))
    }

    /// Presents a client certificate over one version.
    pub fn presenting_over(
        ca: &Ca,
        leaf: &Leaf,
        version: &'static rustls::SupportedProtocolVersion,
    ) -> Self {
        Self::with(ca, "app.example", &[version], Some(leaf))
    }

    /// The same configuration (and its resumption store) with another server name.
    pub fn asking_for(&self, sni: &str) -> Self {
        Self {
            config: Arc::clone(&self.config),
            sni: sni.to_owned(),
        }
    }

    fn with(
        ca: &Ca,
        sni: &str,
        versions: &[&'static rustls::SupportedProtocolVersion],
        leaf: Option<&Leaf>,
    ) -> Self {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(versions)
            .expect("the provider speaks these versions")
            .with_root_certificates(ca.roots());
        let mut config = match leaf {
            None => builder.with_no_client_auth(),
            Some(leaf) => {
                let chain = std::iter::once(&leaf.cert_der).chain(&leaf.chain);
                builder
                    .with_client_auth_cert(chain.cloned().collect(), leaf.key_der())
                    .expect("the leaf and its key fit")
            }
        };
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Self {
            config: Arc::new(config),
            sni: sni.to_owned(),
        }
    }
}

/// One connection.
pub struct Client {
    buffered: Buffered<Stream>,
}

impl Client {
    /// Connects without TLS.
    pub fn plain(address: SocketAddr) -> Self {
        Self {
            buffered: Buffered::new(Stream::Plain(connect(address))),
        }
    }

    /// Connects and completes the TLS handshake; panics when it fails.
    pub fn tls(address: SocketAddr, options: &TlsOptions) -> Self {
        Self::try_tls(address, options)
            .unwrap_or_else(|error| panic!("TLS to {}: {error}", options.sni))
    }

    /// Connects and completes the TLS handshake.
    ///
    /// # Errors
    /// What either side refused.
    pub fn try_tls(address: SocketAddr, options: &TlsOptions) -> io::Result<Self> {
        let name = ServerName::try_from(options.sni.clone()).map_err(io::Error::other)?;
        let connection =
            ClientConnection::new(Arc::clone(&options.config), name).map_err(io::Error::other)?;
        let mut stream = StreamOwned::new(connection, connect(address));
        while stream.conn.is_handshaking() {
            stream.conn.complete_io(&mut stream.sock)?;
        }
        Ok(Self {
            buffered: Buffered::new(Stream::Tls(Box::new(stream))),
        })
    }

    /// Sends exactly these bytes. A peer that has closed already is not an error here: the answer tells.
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) -> &mut Self {
        let stream = &mut self.buffered.stream;
        if let Err(error) = stream
            .write_all(bytes.as_ref())
            .and_then(|()| stream.flush())
        {
            assert!(is_close(&error), "sending: {error}");
        }
        self
    }

    /// Sends these bytes, while what comes meanwhile is left for later.
    ///
    /// # Errors
    /// The peer has closed.
    pub fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        let stream = &mut self.buffered.stream;
        stream
            .write_all(bytes.as_ref())
            .and_then(|()| stream.flush())
    }

    /// Reads one answer to a GET.
    #[track_caller]
    pub fn response(&mut self) -> Response {
        self.response_to("GET")
    }

    /// Reads one answer to a request with `method`.
    #[track_caller]
    pub fn response_to(&mut self, method: &str) -> Response {
        match self.buffered.response(method) {
            Ok(response) => response,
            Err(error) => panic!(
                "no whole answer ({error}); came: `{}`",
                String::from_utf8_lossy(&self.buffered.seen).escape_debug()
            ),
        }
    }

    /// Reads one answer, or says how the connection ended.
    ///
    /// # Errors
    /// What the stream reports, or an end before the answer's.
    pub fn try_response(&mut self) -> io::Result<Response> {
        self.buffered.response("GET")
    }

    /// Reads the head of an answer only.
    #[track_caller]
    pub fn response_head(&mut self) -> super::message::Head {
        self.buffered
            .head()
            .expect("a head in time")
            .expect("a head before the end")
    }

    /// Reads one chunk of a chunked body.
    ///
    /// # Errors
    /// What the stream reports, or an end before the chunk's.
    pub fn chunk(&mut self) -> io::Result<Vec<u8>> {
        self.buffered.chunk()
    }

    /// Reads exactly `length` bytes.
    #[track_caller]
    pub fn exactly(&mut self, length: usize) -> Vec<u8> {
        self.buffered.exactly(length).expect("that many bytes")
    }

    /// Reads exactly `length` bytes, or says how the connection ended.
    ///
    /// # Errors
    /// What the stream reports, or an end before that many.
    pub fn try_exactly(&mut self, length: usize) -> io::Result<Vec<u8>> {
        self.buffered.exactly(length)
    }

    /// Reads until the peer closes, cleanly or by reset, and gives what came; panics when it does not close in time.
    #[track_caller]
    pub fn until_close(&mut self) -> Vec<u8> {
        match self.buffered.rest() {
            Ok(bytes) => bytes,
            Err(error) if is_close(&error) => self.buffered.some().unwrap_or_default(),
            Err(error) => panic!("not closed: {error}"),
        }
    }

    /// Panics unless the peer closes with not one further byte.
    #[track_caller]
    pub fn expect_close(&mut self) {
        let rest = self.until_close();
        assert!(
            rest.is_empty(),
            "more came before the close: `{}`",
            String::from_utf8_lossy(&rest).escape_debug()
        );
    }

    /// Closes the sending half.
    pub fn finish_sending(&mut self) {
        match &mut self.buffered.stream {
            Stream::Plain(stream) => {
                let _ = stream.shutdown(std::net::Shutdown::Write);
            }
            Stream::Tls(stream) => {
                stream.conn.send_close_notify();
                let _ = stream.flush();
            }
        }
    }

    /// The protocol version, on TLS.
    pub fn tls_version(&self) -> Option<ProtocolVersion> {
        self.connection()?.protocol_version()
    }

    /// Whether the handshake was whole or resumed, on TLS.
    pub fn handshake(&self) -> Option<HandshakeKind> {
        self.connection()?.handshake_kind()
    }

    /// The name of the key exchange group, on TLS.
    pub fn key_exchange(&self) -> Option<rustls::NamedGroup> {
        self.connection()?
            .negotiated_key_exchange_group()
            .map(rustls::crypto::SupportedKxGroup::name)
    }

    /// The leaf certificate that the server showed, on TLS.
    pub fn peer_certificate(&self) -> Option<Vec<u8>> {
        let chain = self.connection()?.peer_certificates()?;
        chain.first().map(|leaf| leaf.to_vec())
    }

    fn connection(&self) -> Option<&ClientConnection> {
        match &self.buffered.stream {
            Stream::Plain(_) => None,
            Stream::Tls(stream) => Some(&stream.conn),
        }
    }
}

/// Whether an I/O error only says that the peer has gone.
pub fn is_close(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::BrokenPipe
            | io::ErrorKind::NotConnected
            | io::ErrorKind::UnexpectedEof
    )
}

fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect_timeout(&address, DEADLINE)
        .unwrap_or_else(|error| panic!("connecting to {address}: {error}"));
    stream.set_read_timeout(Some(DEADLINE)).expect("a deadline");
    stream
        .set_write_timeout(Some(DEADLINE))
        .expect("a deadline");
    stream.set_nodelay(true).expect("nodelay");
    stream
}
