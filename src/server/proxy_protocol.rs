//! The PROXY protocol, versions 1 and 2: who the client is, told by a trusted load balancer before the first byte.
//!
//! Only with `server.proxy_protocol`, and only from `server.trusted_proxies`; there it must be present, since a
//! header that may or may not come could be written by the client. Nothing beyond the header is read.

use std::{io, net::SocketAddr};

use ppp::{HeaderResult, PartialResult, v1, v2};
use tokio::io::{AsyncRead, AsyncReadExt};

/// Longest header of version 1.
const V1_BYTES: usize = 107;
/// Addresses and extensions of version 2 that are accepted.
const V2_BYTES: usize = 2048;

/// Reads the header. `None` is a connection of the load balancer itself, such as a probe.
///
/// # Errors
/// The header is absent, malformed or too long; or the connection broke.
pub async fn read<S: AsyncRead + Unpin>(stream: &mut S) -> io::Result<Option<SocketAddr>> {
    let mut bytes = vec![0; v2::PROTOCOL_PREFIX.len()];
    stream.read_exact(&mut bytes).await?;
    if bytes == v2::PROTOCOL_PREFIX {
        read_two(stream, &mut bytes).await?;
    } else {
        read_one(stream, &mut bytes).await?;
    }
    source(&bytes)
}

/// The rest of a text header, byte by byte: what follows its line belongs to the client.
async fn read_one<S: AsyncRead + Unpin>(stream: &mut S, bytes: &mut Vec<u8>) -> io::Result<()> {
    while !bytes.ends_with(b"\r\n") {
        if bytes.len() >= V1_BYTES || !bytes.starts_with(b"PROXY ") {
            return Err(malformed());
        }
        bytes.push(stream.read_u8().await?);
    }
    Ok(())
}

/// The rest of a binary header, whose length it states.
async fn read_two<S: AsyncRead + Unpin>(stream: &mut S, bytes: &mut Vec<u8>) -> io::Result<()> {
    let mut fixed = [0; 4];
    stream.read_exact(&mut fixed).await?;
    bytes.extend_from_slice(&fixed);
    let length = usize::from(u16::from_be_bytes([fixed[2], fixed[3]]));
    if length > V2_BYTES {
        return Err(malformed());
    }
    let start = bytes.len();
    bytes.resize(start + length, 0);
    stream
        .read_exact(bytes.get_mut(start..).unwrap_or_default())
        .await?;
    Ok(())
}

fn source(bytes: &[u8]) -> io::Result<Option<SocketAddr>> {
    let header = HeaderResult::parse(bytes);
    if header.is_incomplete() {
        return Err(malformed());
    }
    match header {
        HeaderResult::V1(Ok(header)) => Ok(match header.addresses {
            v1::Addresses::Tcp4(ip) => Some((ip.source_address, ip.source_port).into()),
            v1::Addresses::Tcp6(ip) => Some((ip.source_address, ip.source_port).into()),
            v1::Addresses::Unknown => None,
        }),
        HeaderResult::V2(Ok(header)) if header.command == v2::Command::Local => Ok(None),
        HeaderResult::V2(Ok(header)) => match header.addresses {
            v2::Addresses::IPv4(ip) => Ok(Some((ip.source_address, ip.source_port).into())),
            v2::Addresses::IPv6(ip) => Ok(Some((ip.source_address, ip.source_port).into())),
            // A proxied connection whose client is not told must not count as the load balancer's own.
            v2::Addresses::Unix(_) | v2::Addresses::Unspecified => Err(malformed()),
        },
        HeaderResult::V1(Err(_)) | HeaderResult::V2(Err(_)) => Err(malformed()),
    }
}

fn malformed() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "no acceptable PROXY header")
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn of(bytes: &[u8]) -> (io::Result<Option<SocketAddr>>, Vec<u8>) {
        let mut stream = bytes;
        let found = read(&mut stream).await;
        (found, stream.to_vec())
    }

    #[tokio::test]
    async fn version_1_gives_the_client_and_leaves_the_rest() {
        let (found, rest) = of(b"PROXY TCP4 192.0.2.7 198.51.100.1 4711 443\r\nGET /").await;
        assert_eq!(
            found.expect("a header"),
            Some("192.0.2.7:4711".parse().expect("an address"))
        );
        assert_eq!(rest, b"GET /");
        let (found, _) = of(b"PROXY UNKNOWN\r\n").await;
        assert_eq!(found.expect("a header"), None);
    }

    #[tokio::test]
    async fn version_2_gives_the_client_and_leaves_the_rest() {
        let mut bytes = v2::PROTOCOL_PREFIX.to_vec();
        bytes.extend([
            0x21, 0x11, 0, 12, 192, 0, 2, 7, 198, 51, 100, 1, 0x12, 0x67, 1, 187,
        ]);
        bytes.extend(b"\x16\x03");
        let (found, rest) = of(&bytes).await;
        assert_eq!(
            found.expect("a header"),
            Some("192.0.2.7:4711".parse().expect("an address"))
        );
        assert_eq!(rest, b"\x16\x03");
    }

    #[tokio::test]
    async fn what_is_no_header_is_an_error() {
        let long = [b"PROXY TCP4 ".as_slice(), &[b'1'; 200], b"\r\n"].concat();
        let mut unspecified = v2::PROTOCOL_PREFIX.to_vec();
        unspecified.extend([0x21, 0x00, 0, 0]);
        let mut huge = v2::PROTOCOL_PREFIX.to_vec();
        huge.extend([0x21, 0x11, 0xff, 0xff]);
        for bad in [
            b"GET / HTTP/1.1\r\nHost: a\r\n\r\n".as_slice(),
            b"PROXY TCP4 nonsense here 1 2\r\n",
            b"PROXY",
            &long,
            &unspecified,
            &huge,
        ] {
            assert!(of(bad).await.0.is_err(), "{bad:?}");
        }
    }
}
