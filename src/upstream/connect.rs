//! Opens an HTTP/1.1 connection to an endpoint.

use std::{sync::Arc, time::Duration};

use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;

use super::{
    endpoint::Endpoint, error::UpstreamError, heard::Heard, link::Link, prelude::Prelude, stream,
};

/// Largest response head that is read, in bytes; more is a broken answer.
pub const RESPONSE_HEAD_BYTES: u32 = 64 * 1024;

/// Connects within `limit` and starts the HTTP client on the connection.
///
/// # Errors
/// [`UpstreamError::Connect`] or [`UpstreamError::ConnectTimeout`]; nothing was sent in either case.
pub async fn connect(endpoint: &Endpoint, limit: Duration) -> Result<Link, UpstreamError> {
    let (stream, way) = stream::open(endpoint, limit).await?;
    let prelude = Arc::<Prelude>::default();
    let stream = Heard::new(stream, &prelude);
    let head = usize::try_from(RESPONSE_HEAD_BYTES).unwrap_or(usize::MAX);
    // hyper's own bound of 100 fields is kept: another one costs an allocation a response.
    let (sender, connection) = http1::Builder::new()
        .max_header_size(head)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(UpstreamError::Broken)?;
    tokio::spawn(async move {
        // Errors reach the request that waits on the sender; an idle connection that breaks is nobody's loss.
        let _ = connection.with_upgrades().await;
    });
    Ok(Link::new(sender, way, prelude))
}
