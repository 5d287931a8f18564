//! The byte stream to a backend: TCP, TLS over TCP, or a Unix socket.
//!
//! For [`super::connect`] and [`super::two`]. It speaks no HTTP; where HTTP/2 is wanted of TLS, it sees that the server
//! agreed to it (RFC 7301).

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpStream, UnixStream},
};
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::{
    endpoint::{Address, Endpoint, Protocol},
    error::UpstreamError,
};
use crate::wire::{slices::Sliced, socket::Socket};

/// Connects within the endpoint's timeout.
///
/// # Errors
/// [`UpstreamError::Connect`], [`UpstreamError::ConnectTimeout`] or [`UpstreamError::NoRoom`].
pub async fn open(endpoint: &Endpoint) -> Result<Stream, UpstreamError> {
    let limit = endpoint.rules.connect_timeout;
    match tokio::time::timeout(limit, reach(endpoint)).await {
        Err(_) => Err(UpstreamError::ConnectTimeout),
        Ok(Err(error)) if is_exhausted(&error) => Err(UpstreamError::NoRoom(error)),
        Ok(opened) => opened.map_err(UpstreamError::Connect),
    }
}

/// No descriptors left: no fault of the backend, whose breaker must not open for it.
fn is_exhausted(error: &io::Error) -> bool {
    use rustix::io::Errno;
    [Errno::MFILE, Errno::NFILE, Errno::NOBUFS]
        .into_iter()
        .any(|errno| error.raw_os_error() == Some(errno.raw_os_error()))
}

async fn reach(endpoint: &Endpoint) -> io::Result<Stream> {
    match &endpoint.address {
        Address::Tcp { host, port } => tcp(host, *port).await.map(Stream::Tcp),
        Address::Tls {
            host,
            port,
            name,
            config,
        } => {
            let stream = tcp(host, *port).await?;
            let connector = TlsConnector::from(std::sync::Arc::clone(config));
            let stream = connector.connect(name.clone(), stream).await?;
            let agreed = stream.get_ref().1.alpn_protocol();
            if endpoint.rules.protocol == Protocol::Http2 && agreed != Some(b"h2") {
                return Err(io::Error::other("the server does not agree to HTTP/2"));
            }
            Ok(Stream::Tls(Box::new(Sliced::new(stream))))
        }
        Address::Unix(path) => UnixStream::connect(path).await.map(Stream::Unix),
    }
}

async fn tcp(host: &str, port: u16) -> io::Result<Socket<TcpStream>> {
    let stream = TcpStream::connect((host, port)).await?;
    stream.set_nodelay(true)?;
    Ok(Socket::new(stream))
}

/// A connected byte stream to a backend.
#[derive(Debug)]
pub enum Stream {
    /// In clear.
    Tcp(Socket<TcpStream>),
    /// Within TLS.
    Tls(Box<Sliced<TlsStream<Socket<TcpStream>>>>),
    /// On this machine.
    Unix(UnixStream),
}

macro_rules! each {
    ($self:expr, $stream:ident => $body:expr) => {
        match $self.get_mut() {
            Stream::Tcp(stream) => {
                let $stream = Pin::new(stream);
                $body
            }
            Stream::Tls(stream) => {
                let $stream = Pin::new(stream.as_mut());
                $body
            }
            Stream::Unix(stream) => {
                let $stream = Pin::new(stream);
                $body
            }
        }
    };
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        each!(self, stream => stream.poll_read(cx, buf))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        each!(self, stream => stream.poll_write(cx, buf))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self, stream => stream.poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self, stream => stream.poll_shutdown(cx))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        each!(self, stream => stream.poll_write_vectored(cx, bufs))
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Tcp(stream) => stream.is_write_vectored(),
            Self::Tls(stream) => stream.is_write_vectored(),
            Self::Unix(stream) => stream.is_write_vectored(),
        }
    }
}
