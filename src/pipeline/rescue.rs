//! One panic must not end the proxy, nor the connection: the request gets a 500 and is counted.

use std::{
    panic::AssertUnwindSafe,
    pin::Pin,
    task::{Context, Poll},
};

/// Runs a future and turns a panic into `None`; the future is never polled again then. It is taken by reference: a
/// future that is handed on by value stands in memory twice for as long as the connection lives.
pub async fn rescue<F: Future>(mut future: Pin<&mut F>) -> Option<F::Output> {
    std::future::poll_fn(move |cx| poll_once(future.as_mut(), cx)).await
}

fn poll_once<F: Future>(future: Pin<&mut F>, cx: &mut Context<'_>) -> Poll<Option<F::Output>> {
    match std::panic::catch_unwind(AssertUnwindSafe(|| future.poll(cx))) {
        Ok(Poll::Pending) => Poll::Pending,
        Ok(Poll::Ready(output)) => Poll::Ready(Some(output)),
        Err(_) => Poll::Ready(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_panic_becomes_nothing_and_the_task_lives() {
        let lost: Option<()> = rescue(std::pin::pin!(async { panic!("on purpose") })).await;
        assert!(lost.is_none());
        assert_eq!(rescue(std::pin::pin!(async { 7 })).await, Some(7));
    }
}
