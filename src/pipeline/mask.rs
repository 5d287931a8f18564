//! The rest of a backend's answer that its client does not get: shown in the log at level `debug`, and read off so that
//! the connection can be used again.
//!
//! It is done beside the request, which is answered at once. Bounded in bytes and time; a body beyond that costs its
//! connection.

use std::time::Duration;

use http::{HeaderValue, StatusCode};
use http_body_util::BodyExt;
use tokio::time::{Instant, timeout_at};

use crate::upstream::body::UpstreamBody;

/// Bytes of the body that the log shows.
const SHOWN: usize = 4 * 1024;
/// Bytes that are read at most.
const READ: usize = 64 * 1024;
/// How long that may take.
const TIME: Duration = Duration::from_secs(2);

/// Reads the body off and shows its beginning in the log, where that is so fine. It may hold secrets of the backend,
/// which is why nothing less than `debug` shows it.
pub fn read_off(mut body: UpstreamBody, status: StatusCode, request_id: HeaderValue) {
    tokio::spawn(async move {
        let until = Instant::now() + TIME;
        let is_shown = tracing::enabled!(tracing::Level::DEBUG);
        let (mut shown, mut read) = (Vec::new(), 0_usize);
        while read <= READ {
            let Ok(Some(Ok(frame))) = timeout_at(until, body.frame()).await else {
                break;
            };
            let data = frame.into_data().unwrap_or_default();
            read = read.saturating_add(data.len());
            if is_shown {
                let room = SHOWN.saturating_sub(shown.len()).min(data.len());
                shown.extend_from_slice(data.get(..room).unwrap_or_default());
            }
        }
        if is_shown {
            let (status, request_id) = (status.as_u16(), request_id.to_str().unwrap_or_default());
            // As a debug text, in which control characters are escaped.
            let body = String::from_utf8_lossy(&shown);
            tracing::debug!(
                status,
                request_id,
                ?body,
                "answer of a backend that was masked"
            );
        }
    });
}
