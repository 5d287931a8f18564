//! The chunked framing, trailers included, as the screen and the parser behind it see it.
//!
//! An input is what follows a head that announces chunks, with the sizes of the pieces behind it as for
//! [`super::head`].

use super::head;

const HEAD: &[u8] = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";

/// Holds an input against the properties.
pub fn hold(data: &[u8]) {
    let (body, sizes) = head::sizes_behind(data);
    head::hold_stream(&[HEAD, body].concat(), sizes);
}
