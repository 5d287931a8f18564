//! One connection to the system under test: TLS 1.3 with AES-128-GCM and X25519, as all load clients of the bench.

use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::ring::default_provider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{
    CipherSuite, ClientConfig, ClientConnection, DigitallySignedStruct, HandshakeKind, NamedGroup,
    SignatureScheme,
};
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(10);
const LONGEST_HEAD: usize = 64 << 10;

/// Whether a connection may resume the one before it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Resume {
    Never,
    Always,
}

/// What the bench's clients offer.
pub(crate) fn client_config(resume: Resume) -> Result<Arc<ClientConfig>, rustls::Error> {
    let mut provider = default_provider();
    provider
        .cipher_suites
        .retain(|suite| suite.suite() == CipherSuite::TLS13_AES_128_GCM_SHA256);
    provider
        .kx_groups
        .retain(|group| group.name() == NamedGroup::X25519);
    let mut config = ClientConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Trusting))
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    config.resumption = match resume {
        Resume::Always => Resumption::in_memory_sessions(16),
        Resume::Never => Resumption::disabled(),
    };
    Ok(Arc::new(config))
}

/// A handshaken connection, blocking.
pub(crate) struct Link {
    pub(crate) tls: ClientConnection,
    pub(crate) tcp: TcpStream,
}

impl Link {
    pub(crate) fn open(address: SocketAddr, config: &Arc<ClientConfig>) -> io::Result<Self> {
        let mut tcp = dial(address)?;
        let name = ServerName::try_from("localhost").map_err(io::Error::other)?;
        let mut tls = ClientConnection::new(config.clone(), name).map_err(io::Error::other)?;
        while tls.is_handshaking() {
            tls.complete_io(&mut tcp)?;
        }
        Ok(Self { tls, tcp })
    }

    pub(crate) fn resumed(&self) -> bool {
        self.tls.handshake_kind() == Some(HandshakeKind::Resumed)
    }

    /// One request: the status and the bytes of the body, cut short at the deadline.
    pub(crate) fn get(
        &mut self,
        request: &[u8],
        buffer: &mut [u8],
        deadline: Instant,
    ) -> io::Result<(u16, usize)> {
        let mut stream = rustls::Stream::new(&mut self.tls, &mut self.tcp);
        stream.write_all(request)?;
        stream.flush()?;
        let mut head = Vec::with_capacity(2048);
        let answer = loop {
            let got = stream.read(buffer)?;
            if got == 0 || head.len() > LONGEST_HEAD {
                return Err(io::Error::other("the head of the answer is not whole"));
            }
            head.extend_from_slice(&buffer[..got]);
            if let Some(answer) = Head::parse(&head)? {
                break answer;
            }
        };
        let mut body = head.len() - answer.bytes;
        while body < answer.body && Instant::now() < deadline {
            match stream.read(buffer)? {
                0 => return Err(io::Error::other("the body of the answer is not whole")),
                got => body += got,
            }
        }
        Ok((answer.status, body))
    }

    /// Ends with a reset: no TIME_WAIT, so long runs do not use up the ports.
    pub(crate) fn reset(self) {
        let _ = rustix::net::sockopt::set_socket_linger(&self.tcp, Some(Duration::ZERO));
    }
}

/// A TCP connection with the bench's patience.
pub(crate) fn dial(address: SocketAddr) -> io::Result<TcpStream> {
    let tcp = TcpStream::connect_timeout(&address, PATIENCE)?;
    tcp.set_nodelay(true)?;
    tcp.set_read_timeout(Some(PATIENCE))?;
    tcp.set_write_timeout(Some(PATIENCE))?;
    Ok(tcp)
}

/// What the load reads in the head of an answer.
pub(crate) struct Head {
    pub(crate) status: u16,
    pub(crate) bytes: usize,
    pub(crate) body: usize,
}

impl Head {
    /// The head at the start of `read`, once it is whole.
    pub(crate) fn parse(read: &[u8]) -> io::Result<Option<Self>> {
        let Some(end) = read.windows(4).position(|four| four == b"\r\n\r\n") else {
            return Ok(None);
        };
        let mut lines = read[..end].split(|byte| *byte == b'\n');
        let status = lines
            .next()
            .and_then(|line| std::str::from_utf8(line.get(9..12)?).ok()?.parse().ok());
        let body = lines.find_map(|line| {
            let (name, value) = line.split_at_checked(15)?;
            if !name.eq_ignore_ascii_case(b"content-length:") {
                return None;
            }
            std::str::from_utf8(value).ok()?.trim().parse().ok()
        });
        match (status, body) {
            (Some(status), Some(body)) => Ok(Some(Self {
                status,
                bytes: end + 4,
                body,
            })),
            _ => Err(io::Error::other("no status or no content-length")),
        }
    }
}

/// Takes any certificate: the client's own work is not what is measured, and the far end is loopback.
#[derive(Debug)]
struct Trusting;

impl ServerCertVerifier for Trusting {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![
            SignatureScheme::ECDSA_NISTP256_SHA256,
            SignatureScheme::RSA_PSS_SHA256,
        ]
    }
}
