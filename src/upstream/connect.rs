//! Opens a connection to an endpoint: TCP, TLS over TCP, or a Unix socket, then hyper's HTTP/1.1 client.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};

use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpStream, UnixStream},
};
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::{
    endpoint::{Address, Endpoint},
    error::UpstreamError,
};
use crate::wire::{body::ClientBody, slices::Sliced, socket::Socket};

/// Largest response head that is read, in bytes; more is a broken answer.
const RESPONSE_HEAD_BYTES: usize = 64 * 1024;

/// Connects within the endpoint's timeout and starts the HTTP client on it.
///
/// # Errors
/// [`UpstreamError::Connect`] or [`UpstreamError::ConnectTimeout`]; nothing was sent in either case.
pub async fn connect(endpoint: &Endpoint) -> Result<SendRequest<ClientBody>, UpstreamError> {
    let opened =
        tokio::time::timeout(endpoint.rules.connect_timeout, open(&endpoint.address)).await;
    let link = match opened {
        Err(_) => return Err(UpstreamError::ConnectTimeout),
        Ok(Err(error)) if is_exhausted(&error) => return Err(UpstreamError::NoRoom(error)),
        Ok(Err(error)) => return Err(UpstreamError::Connect(error)),
        Ok(Ok(link)) => link,
    };
    // hyper's own bound of 100 fields is kept: another one costs an allocation a response.
    let (sender, connection) = http1::Builder::new()
        .max_header_size(RESPONSE_HEAD_BYTES)
        .handshake(TokioIo::new(link))
        .await
        .map_err(UpstreamError::Broken)?;
    tokio::spawn(async move {
        // Errors reach the request that waits on the sender; an idle connection that breaks is nobody's loss.
        let _ = connection.with_upgrades().await;
    });
    Ok(sender)
}

/// No descriptors left: no fault of the backend, whose breaker must not open for it.
fn is_exhausted(error: &io::Error) -> bool {
    use rustix::io::Errno;
    [Errno::MFILE, Errno::NFILE, Errno::NOBUFS]
        .into_iter()
        .any(|errno| error.raw_os_error() == Some(errno.raw_os_error()))
}

async fn open(address: &Address) -> io::Result<Stream> {
    match address {
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
enum Stream {
    Tcp(Socket<TcpStream>),
    Tls(Box<Sliced<TlsStream<Socket<TcpStream>>>>),
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
