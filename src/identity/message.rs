//! What signatures of requests are verified over.

use http::{HeaderMap, HeaderName, Method, header};

use crate::wire::{forwarded::Scheme, hop::Upgrade};

/// Fields of a WebSocket handshake (RFC 6455 §4.1) that go from end to end, so that they can be signed.
static OF_HANDSHAKES: [HeaderName; 2] = [header::SEC_WEBSOCKET_VERSION, header::SEC_WEBSOCKET_KEY];

/// The judged form of a request, which is the one that is forwarded.
#[derive(Clone, Copy, Debug)]
pub struct Message<'a> {
    /// The method.
    pub method: &'a Method,
    /// The scheme that the client used.
    pub scheme: Scheme,
    /// Host and port.
    pub host: &'a str,
    /// The path, as it is forwarded.
    pub path: &'a str,
    /// The query, as it is forwarded.
    pub query: Option<&'a str>,
    /// The fields, without those that no client may send.
    pub headers: &'a HeaderMap,
    /// The protocol that it asks to switch to. What says so is of one hop, and no signature covers it.
    pub upgrade: Option<Upgrade>,
    /// Seconds since 1970 at which the head was complete.
    pub now: u64,
}

impl Message<'_> {
    /// Whether a request for a tunnel was signed as one: else a plain GET that was signed could be sent again as one.
    pub fn tunnel_is_signed(&self, is_signed: impl Fn(&HeaderName) -> bool) -> bool {
        self.upgrade.is_none() || OF_HANDSHAKES.iter().any(is_signed)
    }
}
