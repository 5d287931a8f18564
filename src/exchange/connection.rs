//! What is known of the connection that a request came on.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
};

use http::HeaderMap;

use super::{client_certificate::ClientCertificate, hints::Hints, last_token::LastToken};
use crate::wire::{
    forwarded::{Client, Introduction, Scheme},
    host::{Authority, HostError, HostPattern},
};

/// Facts that hold for every request of a connection.
#[derive(Debug)]
pub struct Connection {
    /// Address of the other end: the client, or the proxy before us.
    pub peer: SocketAddr,
    /// TLS facts, when TLS ends here.
    pub tls: Option<Tls>,
    /// Early hints for the request that is being answered: HTTP/1.1.
    pub hints: Hints,
    /// The bearer token that came last, with what it proved.
    pub last_token: LastToken,
    /// The host that was last asked for, in normal form; most requests of a connection are for the same one.
    asked: Mutex<Option<Authority>>,
    /// What was last told to a backend about the client; most requests of a connection say the same.
    told: Mutex<Option<Told>>,
}

#[derive(Debug)]
struct Told {
    client: Client,
    host: Box<str>,
    scheme: Scheme,
    introduction: Introduction,
}

/// Facts of a TLS connection.
#[derive(Debug)]
pub struct Tls {
    /// `1.2` or `1.3`.
    pub version: &'static str,
    /// Names of the certificate that was served.
    pub names: Arc<[HostPattern]>,
    /// What the client proved to hold, where it was asked for a certificate and has one.
    pub client: Option<Box<ClientCertificate>>,
}

impl Connection {
    /// A connection from this peer.
    pub fn new(peer: SocketAddr, tls: Option<Tls>) -> Self {
        Self {
            peer,
            tls,
            hints: Hints::default(),
            last_token: LastToken::default(),
            asked: Mutex::new(None),
            told: Mutex::new(None),
        }
    }

    /// The certificate of the client, if TLS ends here and it has one.
    pub fn client_certificate(&self) -> Option<&ClientCertificate> {
        self.tls.as_ref()?.client.as_deref()
    }

    /// Reads a `Host` or `:authority`; one that was sent before in its normal form is not read again.
    ///
    /// # Errors
    /// See [`Authority::parse`].
    pub fn authority(&self, sent: &[u8]) -> Result<Authority, HostError> {
        let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(asked) = asked
            .as_ref()
            .filter(|asked| asked.as_str().as_bytes() == sent)
        {
            return Ok(asked.clone());
        }
        let authority = Authority::parse(sent)?;
        *asked = Some(authority.clone());
        Ok(authority)
    }

    /// Writes the forwarding fields for the backend.
    pub fn introduce(
        &self,
        client: &Client,
        (host, scheme): (&str, Scheme),
        headers: &mut HeaderMap,
    ) {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        let same = told.as_ref().is_some_and(|told| {
            told.scheme == scheme && *told.host == *host && told.client == *client
        });
        if !same {
            *told = Introduction::new(client, host, scheme).map(|introduction| Told {
                client: client.clone(),
                host: host.into(),
                scheme,
                introduction,
            });
        }
        if let Some(told) = &*told {
            told.introduction.write(headers);
        }
    }

    /// True when the certificate served on this connection covers the host; always true in clear.
    pub fn covers(&self, host: &str) -> bool {
        self.tls
            .as_ref()
            .is_none_or(|tls| tls.names.iter().any(|name| name.matches(host)))
    }
}
