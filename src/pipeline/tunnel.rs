//! A WebSocket from the backend's 101 to its end, with the record of its request: one access line, when it is over.

use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use tokio::io::AsyncWriteExt;

use super::{
    record::{Cause, Ending, Recording},
    standing,
};
use crate::{
    observe::access::Decision,
    upstream::{
        body::Lease,
        tunnel::{self, Bounds, End},
    },
    wire::halt::{Reason, Stage},
};

/// The client's side once nothing more will pass.
pub type ClientSide = TokioIo<Upgraded>;

/// What a tunnel is made of: both sides, as soon as they have switched.
#[derive(Debug)]
pub struct Switch {
    /// The client's side.
    pub client: OnUpgrade,
    /// The backend's side.
    pub backend: OnUpgrade,
    /// How long and how much.
    pub bounds: Bounds,
    /// The connection to the backend, which counts there for as long as the tunnel lives.
    pub lease: Lease,
}

/// A tunnel that is granted and not yet open.
#[derive(Debug)]
pub struct Tunnel {
    switch: Box<Switch>,
    recording: Recording,
}

impl Tunnel {
    /// A tunnel whose request has this record.
    pub(super) fn new(switch: Box<Switch>, recording: Recording) -> Self {
        Self { switch, recording }
    }

    /// Records that it was refused on its last step; both sides are closed.
    pub fn refused(self, reason: Reason) {
        let mut recording = self.recording;
        let cause = Cause {
            stage: Stage::Wire,
            reason: Some(reason),
            detail: None,
        };
        recording.decide(Decision::Refused, reason.status(), Some(cause));
        recording.end(Ending::Whole);
    }

    /// Passes bytes to the end and writes the line. Gives the client's side where it is still to be closed.
    pub async fn run(self) -> Option<ClientSide> {
        let Self {
            switch,
            mut recording,
        } = self;
        let Switch {
            client,
            backend,
            bounds,
            lease,
        } = *switch;
        // A client that leaves before it has its 101 leaves no tunnel behind.
        let (client, backend) = tokio::try_join!(client, backend).ok()?;
        let (mut client, mut backend) = (TokioIo::new(client), TokioIo::new(backend));
        let mut withdrawn = None;
        let stop = async { withdrawn = Some(standing::withdrawn(&recording).await) };
        let passed = tunnel::run(&mut client, &mut backend, bounds, stop).await;
        recording.passed(passed.up, passed.down);
        let withdrawn = withdrawn.map(|cause| (Decision::Refused, cause));
        match withdrawn.or_else(|| cause_of(passed.end)) {
            Some((decision, cause)) => recording.cut(decision, cause),
            None if passed.end == End::Whole => recording.end(Ending::Whole),
            None => {}
        }
        drop((recording, lease));
        if passed.end != End::BackendBroke {
            let _ = tokio::time::timeout(tunnel::CLOSE_TIME, backend.shutdown()).await;
        }
        (passed.end != End::ClientLeft).then_some(client)
    }
}

/// What the line says of a tunnel that was cut; one whose client left is aborted, as any request is.
fn cause_of(end: End) -> Option<(Decision, Cause)> {
    let (decision, reason, detail) = match end {
        End::Whole | End::ClientLeft | End::Stopped => return None,
        End::BackendBroke => (Decision::Failed, Reason::UpstreamBroken, Some("tunnel-cut")),
        End::Idle => (Decision::Refused, Reason::TunnelIdle, None),
        End::Age => (Decision::Refused, Reason::TunnelAge, None),
        End::Bytes => (Decision::Refused, Reason::TunnelBytes, None),
    };
    let cause = Cause {
        stage: Stage::Forward,
        reason: Some(reason),
        detail,
    };
    Some((decision, cause))
}
