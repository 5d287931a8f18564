//! The words that the proxy may serve and that it is stopping, for listeners and connections.

use std::{
    future::{pending, poll_fn},
    pin::pin,
    task::Poll,
};

use tokio::{sync::watch, task::unconstrained};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Course {
    Serving,
    Stopping,
    HandedOver,
}

/// The end that says it.
#[derive(Debug)]
pub struct Announcer(watch::Sender<Course>);

/// The end that hears it.
#[derive(Clone, Debug)]
pub struct Shutdown(watch::Receiver<Course>);

/// A pair of ends.
pub fn channel() -> (Announcer, Shutdown) {
    let (sender, receiver) = watch::channel(Course::Serving);
    (Announcer(sender), Shutdown(receiver))
}

impl Announcer {
    /// Says that the proxy is stopping. Saying it twice is saying it once.
    pub fn begin(&self) {
        self.0.send_replace(Course::Stopping);
    }

    /// Says that the proxy is stopping and that another process accepts on the same sockets: who waits in them is for that
    /// one.
    pub fn hand_over(&self) {
        self.0.send_replace(Course::HandedOver);
    }
}

/// The end that lets the workers accept.
#[derive(Debug)]
pub struct Opener(watch::Sender<bool>);

/// The end that waits for it.
#[derive(Clone, Debug)]
pub struct Opening(watch::Receiver<bool>);

/// A pair of ends, closed.
pub fn opening() -> (Opener, Opening) {
    let (sender, receiver) = watch::channel(false);
    (Opener(sender), Opening(receiver))
}

impl Opener {
    /// Lets them.
    pub fn open(&self) {
        self.0.send_replace(true);
    }
}

impl Opening {
    /// Resolves once it may be accepted; `false` when nobody is left to say so.
    pub async fn opened(mut self) -> bool {
        self.0.wait_for(|open| *open).await.is_ok()
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
        let mut word = pin!(unconstrained(
            self.0.wait_for(|course| *course != Course::Serving)
        ));
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
        *self.0.borrow() != Course::Serving
    }

    /// Resolves once another process accepts on the same sockets; never when the proxy just stops.
    pub async fn handed_over(&mut self) {
        self.begun().await;
        if !self.is_handed_over() {
            pending::<()>().await;
        }
    }

    /// True once another process accepts on the same sockets.
    pub fn is_handed_over(&self) -> bool {
        *self.0.borrow() == Course::HandedOver
    }
}
