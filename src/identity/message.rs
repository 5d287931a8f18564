//! What signatures of requests are verified over.

use http::{HeaderMap, Method};

use crate::wire::forwarded::Scheme;

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
    /// Seconds since 1970 at which the head was complete.
    pub now: u64,
}
