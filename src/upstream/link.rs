//! A connection to a backend with the timer of its requests.
//!
//! A deadline a request would be set and taken away again a hundred thousand times a second and hardly ever pass. So a
//! connection has one timer for all its requests: it is set anew only when it goes off before the deadline of the
//! request that is under way then.

use std::{
    net::SocketAddr,
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use hyper::client::conn::http1::SendRequest;
use tokio::{
    task::unconstrained,
    time::{Instant, Sleep, sleep_until},
};

use super::prelude::Prelude;
use crate::wire::body::ClientBody;

/// A connection to a backend.
#[derive(Debug)]
pub struct Link {
    /// hyper's handle.
    pub sender: SendRequest<ClientBody>,
    /// How long the request under way may still wait.
    pub patience: Patience,
    /// What comes before the head of the answer.
    pub prelude: Arc<Prelude>,
    /// Where it leads.
    pub way: Way,
}

/// Where a connection leads.
#[derive(Clone, Copy, Debug, Default)]
pub struct Way {
    /// The address, where the server has a name.
    pub peer: Option<SocketAddr>,
    /// The generation of the name in which the address was known to be its own.
    pub generation: u32,
}

impl Link {
    /// A fresh connection.
    pub fn new(sender: SendRequest<ClientBody>, way: Way, prelude: Arc<Prelude>) -> Self {
        Self {
            sender,
            patience: Patience::new(),
            prelude,
            way,
        }
    }
}

/// The deadline of the request under way.
#[derive(Debug)]
pub struct Patience {
    timer: Pin<Box<Sleep>>,
    until: Instant,
    /// The timer knows whom to wake.
    registered: bool,
}

impl Patience {
    /// No deadline yet.
    pub(super) fn new() -> Self {
        let now = Instant::now();
        Self {
            timer: Box::pin(sleep_until(now)),
            until: now,
            registered: false,
        }
    }

    /// Begins to wait, for another request or once more for the same.
    pub fn begin(&mut self, now: Instant, limit: Duration) {
        self.until = now + limit;
        self.registered = false;
        if self.timer.deadline() > self.until || self.timer.deadline() <= now {
            self.timer.as_mut().reset(self.until);
        }
    }

    /// Ready when the deadline has passed. Between [`Patience::begin`] and its end it is polled by one task.
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        while !self.registered || self.timer.is_elapsed() {
            self.registered = true;
            // Unconstrained, for a turn without budget would leave it unregistered.
            ready!(pin!(unconstrained(self.timer.as_mut())).poll(cx));
            if Instant::now() >= self.until {
                return Poll::Ready(());
            }
            self.timer.as_mut().reset(self.until);
            self.registered = false;
        }
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;

    const LIMIT: Duration = Duration::from_millis(40);
    /// A machine under load wakes late; what is asked here is that nobody is woken early or never.
    const LATE: Duration = Duration::from_secs(5);

    async fn pass(patience: &mut Patience) -> Instant {
        poll_fn(|cx| patience.poll(cx)).await;
        Instant::now()
    }

    async fn is_patient(patience: &mut Patience) -> bool {
        poll_fn(|cx| Poll::Ready(patience.poll(cx)))
            .await
            .is_pending()
    }

    #[tokio::test]
    async fn a_request_is_given_its_whole_time_whatever_the_timer_was_set_for() {
        let mut patience = Patience::new();
        for pause_ms in [0, 10, 39, 40, 41, 90] {
            patience.begin(Instant::now(), LIMIT);
            assert!(is_patient(&mut patience).await);
            // Answered at once: the timer stays set for a request that is over.
            tokio::time::sleep(Duration::from_millis(pause_ms)).await;
            let began = Instant::now();
            patience.begin(began, LIMIT);
            let waited = pass(&mut patience).await - began;
            assert!(waited >= LIMIT, "{waited:?} after a pause of {pause_ms} ms");
            assert!(waited < LIMIT + LATE);
        }
    }

    #[tokio::test]
    async fn a_shorter_time_than_the_last_one_counts() {
        let mut patience = Patience::new();
        patience.begin(Instant::now(), Duration::from_hours(1));
        assert!(is_patient(&mut patience).await);
        let began = Instant::now();
        patience.begin(began, LIMIT);
        let waited = pass(&mut patience).await - began;
        assert!(waited >= LIMIT && waited < LIMIT + LATE);
    }
}
