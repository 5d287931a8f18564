//! The byte stream to a backend: TCP, TLS over TCP, or a Unix socket.
//!
//! For [`super::connect`] and [`super::two`]. It speaks no HTTP; where HTTP/2 is wanted of TLS, it sees that the server
//! agreed to it (RFC 7301).

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpStream, UnixStream},
    time::{Instant, timeout},
};
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::{
    endpoint::{Address, Endpoint, Protocol},
    error::UpstreamError,
    link::Way,
    resolve::Names,
};
use crate::{
    state::clock,
    wire::{slices::Sliced, socket::Socket},
};

/// Connects within `limit`.
///
/// # Errors
/// [`UpstreamError::Connect`], [`UpstreamError::ConnectTimeout`] or [`UpstreamError::NoRoom`].
pub async fn open(endpoint: &Endpoint, limit: Duration) -> Result<(Stream, Way), UpstreamError> {
    match timeout(limit, reach(endpoint, Instant::now() + limit)).await {
        Err(_) => Err(UpstreamError::ConnectTimeout),
        Ok(Err(error)) if error.kind() == io::ErrorKind::TimedOut => {
            Err(UpstreamError::ConnectTimeout)
        }
        Ok(Err(error)) if is_exhausted(&error) => Err(UpstreamError::NoRoom(error)),
        Ok(opened) => opened.map_err(UpstreamError::Connect),
    }
}

/// No descriptors, ports or memory left: no fault of the backend, whose breaker must not open for it.
fn is_exhausted(error: &io::Error) -> bool {
    use rustix::io::Errno;
    let ours = [
        Errno::MFILE,
        Errno::NFILE,
        Errno::NOBUFS,
        Errno::NOMEM,
        Errno::ADDRNOTAVAIL,
    ];
    ours.into_iter()
        .any(|errno| error.raw_os_error() == Some(errno.raw_os_error()))
}

async fn reach(endpoint: &Endpoint, deadline: Instant) -> io::Result<(Stream, Way)> {
    if let Address::Unix(path) = &endpoint.address {
        let stream = UnixStream::connect(path).await?;
        return Ok((Stream::Unix(stream), Way::default()));
    }
    let names = endpoint.names.as_ref().ok_or(io::ErrorKind::NotFound)?;
    let (stream, way) = tcp(names, deadline).await?;
    let Address::Tls { name, config, .. } = &endpoint.address else {
        return Ok((Stream::Tcp(stream), way));
    };
    let connector = TlsConnector::from(std::sync::Arc::clone(config));
    let stream = connector.connect(name.clone(), stream).await?;
    let agreed = stream.get_ref().1.alpn_protocol();
    if endpoint.rules.protocol == Protocol::Http2 && agreed != Some(b"h2") {
        return Err(io::Error::other("the server does not agree to HTTP/2"));
    }
    Ok((Stream::Tls(Box::new(Sliced::new(stream))), way))
}

/// Tries the addresses of a name one after the other; each has its part of the time that is left.
async fn tcp(names: &Names, deadline: Instant) -> io::Result<(Socket<TcpStream>, Way)> {
    let generation = names.generation();
    let addresses = names.addresses().await?;
    let mut last = io::Error::from(io::ErrorKind::NotFound);
    for (left, address) in (1..=u32::try_from(addresses.len()).unwrap_or(1))
        .rev()
        .zip(&addresses)
    {
        let part = deadline.saturating_duration_since(Instant::now()) / left;
        match timeout(part, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => {
                stream.set_nodelay(true)?;
                let way = Way {
                    peer: Some(*address),
                    generation,
                };
                return Ok((Socket::new(stream), way));
            }
            Ok(Err(error)) if is_exhausted(&error) => return Err(error),
            Ok(Err(error)) => last = error,
            Err(_) => last = io::ErrorKind::TimedOut.into(),
        }
        names.failed(*address, clock::now_ms());
    }
    Err(last)
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
