//! The word that the proxy is stopping, for listeners and connections.

use std::{future::poll_fn, pin::pin, task::Poll};

use tokio::{sync::watch, task::unconstrained};

/// The end that says it.
#[derive(Debug)]
pub struct Announcer(watch::Sender<bool>);

/// The end that hears it.
#[derive(Clone, Debug)]
pub struct Shutdown(watch::Receiver<bool>);

/// A pair of ends.
pub fn channel() -> (Announcer, Shutdown) {
    let (sender, receiver) = watch::channel(false);
    (Announcer(sender), Shutdown(receiver))
}

impl Announcer {
    /// Says it. Saying it twice is saying it once.
    pub fn begin(&self) {
        self.0.send_replace(true);
    }
}

impl Shutdown {
    /// Resolves once stopping has begun; also when nobody is left to say so.
    ///
    /// To be polled by one task: it is registered once, and polled again it only glances at the word, since a connection
    /// does that twice a request.
    pub async fn begun(&mut self) {
        let glance = self.0.clone();
        // Unconstrained, for a turn without budget would leave it unregistered.
        let mut word = pin!(unconstrained(self.0.wait_for(|begun| *begun)));
        let mut registered = false;
        poll_fn(|cx| {
            if registered && matches!(glance.has_changed(), Ok(false)) {
                return Poll::Pending;
            }
            registered = true;
            word.as_mut().poll(cx).map(drop)
        })
        .await;
    }

    /// True once stopping has begun.
    pub fn has_begun(&self) -> bool {
        *self.0.borrow()
    }
}
