//! What is known of the connection that a request came on.

use std::net::SocketAddr;
use std::sync::Arc;

use crate::wire::host::HostPattern;

/// Facts that hold for every request of a connection.
#[derive(Debug)]
pub struct Connection {
    /// Address of the other end: the client, or the proxy before us.
    pub peer: SocketAddr,
    /// TLS facts, when TLS ends here.
    pub tls: Option<Tls>,
}

/// Facts of a TLS connection.
#[derive(Debug)]
pub struct Tls {
    /// `1.2` or `1.3`.
    pub version: &'static str,
    /// Names of the certificate that was served.
    pub names: Arc<[HostPattern]>,
}

impl Connection {
    /// True when the certificate served on this connection covers the host; always true in clear.
    pub fn covers(&self, host: &str) -> bool {
        self.tls
            .as_ref()
            .is_none_or(|tls| tls.names.iter().any(|name| name.matches(host)))
    }
}
