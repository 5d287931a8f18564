//! Reading on after an HTTP/2 request was answered before its body had come, within tight bounds.
//!
//! Dropping the body resets the stream (RFC 9113 §8.1), and clients that are still sending, curl 7 among them, then lose
//! the answer and report a broken stream instead. For HTTP/1 the server room does the same as the connection closes.

use std::time::Duration;

use http::Version;
use http_body::Body;
use http_body_util::BodyExt;
use hyper::body::Incoming;

use super::normalise::Arrival;

/// Most that is read and thrown away.
const BYTES: usize = 256 * 1024;
/// Longest wait; the stream counts against the client's streams for as long.
const TIME: Duration = Duration::from_secs(2);

/// Lets a body that nobody will read come in for a while.
pub fn linger(arrival: &mut Arrival) {
    let Some(body) = arrival.body.take() else {
        return;
    };
    if arrival.version == Version::HTTP_2 && !body.is_end_stream() {
        tokio::spawn(tokio::time::timeout(TIME, read_on(body)));
    }
}

async fn read_on(mut body: Incoming) {
    let mut left = BYTES;
    while let Some(Ok(frame)) = body.frame().await {
        let length = frame.data_ref().map_or(0, bytes::Bytes::len);
        let Some(rest) = left.checked_sub(length) else {
            return;
        };
        left = rest;
    }
}
