//! A WebSocket tunnel: bytes both ways after the backend's own 101, until one side ends or both are silent.

use std::time::Duration;

use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf},
    sync::watch,
    time::timeout,
};

/// Bytes held for one direction of a tunnel.
const BUFFER_BYTES: usize = 8 * 1024;

/// Runs the tunnel once both sides have switched. Returns bytes (client to backend, backend to client).
pub async fn run(client: OnUpgrade, backend: OnUpgrade, idle: Duration) -> (u64, u64) {
    let Ok((client, backend)) = tokio::try_join!(client, backend) else {
        return (0, 0);
    };
    let (client_read, client_write) = tokio::io::split(TokioIo::new(client));
    let (backend_read, backend_write) = tokio::io::split(TokioIo::new(backend));
    let (stir, _) = watch::channel(());
    tokio::join!(
        copy(client_read, backend_write, idle, &stir),
        copy(backend_read, client_write, idle, &stir),
    )
}

type Side = TokioIo<Upgraded>;

/// Copies one direction. A read that waits longer than `idle` ends it, unless the other direction moved meanwhile.
async fn copy(
    mut from: ReadHalf<Side>,
    mut to: WriteHalf<Side>,
    idle: Duration,
    stir: &watch::Sender<()>,
) -> u64 {
    let mut buffer = vec![0; BUFFER_BYTES];
    let mut moved = stir.subscribe();
    let mut total = 0_u64;
    loop {
        let read = match timeout(idle, from.read(&mut buffer)).await {
            Ok(Ok(read)) if read > 0 => read,
            Err(_) if moved.has_changed().unwrap_or(false) => {
                moved.mark_unchanged();
                continue;
            }
            _ => break,
        };
        let Some(piece) = buffer.get(..read) else {
            break;
        };
        if !matches!(timeout(idle, to.write_all(piece)).await, Ok(Ok(()))) {
            break;
        }
        total = total.saturating_add(u64::try_from(read).unwrap_or(u64::MAX));
        stir.send_replace(());
    }
    // Either side that ends must end the other, else a half-open tunnel would stay for ever.
    let _ = to.shutdown().await;
    total
}
