//! The word that the proxy is stopping, for listeners and connections.

use tokio::sync::watch;

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
    pub async fn begun(&mut self) {
        let _ = self.0.wait_for(|begun| *begun).await;
    }

    /// True once stopping has begun.
    pub fn has_begun(&self) -> bool {
        *self.0.borrow()
    }
}
