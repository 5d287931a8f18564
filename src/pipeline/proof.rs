//! Bodies that have to prove something: held in bounded memory until they are whole, judged, and only then let go on.
//!
//! Before any byte of the request reaches the backend, and after whatever can be judged without the body. What goes on are
//! the very bytes that were judged. The bounds on size, pauses and rate of all bodies hold here too, and closer ones on
//! what is held. In monitor mode a body that cannot be held goes on unjudged. Strangers, of whom only the whole body would show
//! who they are, have half of the memory, and who of them lets the gate wait until time is up is counted as a guesser.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, header, header::HeaderValue};

use super::{forward, normalise::Arrival, record::Record};
use crate::{
    exchange::body_check::{BodyError, Unproven},
    identity::signer::is_forged,
    policy::{authn, body_limit::Holding},
    snapshot::Route,
    state::spool::{Full, Room, Sender},
    wire::{
        body::{BodyProgress, ClientBody, Metered},
        halt::{Halt, Reason, Refusal, Stage},
        held::Held,
        hop::Upgrade,
        trailers::Trailers,
    },
};

/// The first piece of memory that a body takes.
const LEAST: usize = 4096;

/// A body that was looked at, and what becomes of it on its way to the backend.
pub type Looked = (ClientBody, Option<Arc<BodyProgress>>);

/// Why a body has proven nothing.
enum Failure {
    /// It ended before its end: there is nothing that could go on.
    Cut(Box<Refusal>),
    /// It is another one, or it cannot be held.
    Unproven(Box<Refusal>),
}

impl Failure {
    /// What comes of it for a stranger: memory was held until time was up, in the name of nobody.
    fn of_stranger(self) -> Self {
        let counted = |mut refusal: Box<Refusal>| {
            refusal.forged = refusal.reason == Reason::BodyTimeout;
            refusal
        };
        match self {
            Self::Cut(refusal) => Self::Cut(counted(refusal)),
            Self::Unproven(refusal) => Self::Unproven(counted(refusal)),
        }
    }
}

/// Has the body prove what it has to, if it has to. It waits in the arrival then, and who asks is known.
///
/// # Errors
/// The refusal of whoever stated the check; 503 for what counts once and cannot be remembered; 400, 408, 413 and 503 for a
/// body that cannot be held.
pub async fn prove(route: &Route, record: &mut Record, arrival: &mut Arrival) -> Result<(), Halt> {
    let Some(unproven) = record.exchange.unproven.take() else {
        return Ok(());
    };
    let Unproven {
        check,
        refusal,
        caller,
        watched,
    } = *unproven;
    let sender = match caller {
        Some(_) => Sender::Stranger,
        None => Sender::Known,
    };
    let judged = match hold(route, record, (arrival, watched, sender)).await {
        Ok(held) => check
            .judge(&held)
            .map_err(|error| Failure::Unproven(Box::new(unfit(error, refusal)))),
        // What only watches bans nobody, and a link is no fault of who followed it.
        Err(failure) if sender == Sender::Stranger && refusal.forged && !watched => {
            Err(failure.of_stranger())
        }
        Err(failure) => Err(failure),
    };
    let Err(failure) = judged else {
        // Until now nobody was believed to ask.
        record.exchange.principal = caller.or_else(|| record.exchange.principal.take());
        return Ok(());
    };
    record.exchange.principal = None;
    match failure {
        Failure::Unproven(refusal) if watched => {
            let note = (refusal.stage, refusal.reason);
            record.exchange.would_refuse.push(note);
            Ok(())
        }
        Failure::Unproven(refusal) | Failure::Cut(refusal) => Err(refusal.into()),
    }
}

/// The answer to a whole body that does not prove what it has to.
fn unfit(error: BodyError, refusal: Refusal) -> Refusal {
    match error {
        BodyError::Invalid(code) => Refusal {
            forged: refusal.forged && is_forged(code),
            ..refusal.detail(code)
        },
        BodyError::NoRoom => authn::no_room(),
    }
}

/// Takes the body in. Where that fails, what is still to come is left in the arrival to be read off; or, if the failure is
/// only watched, to go on.
async fn hold(
    route: &Route,
    record: &mut Record,
    (arrival, watched, sender): (&mut Arrival, bool, Sender),
) -> Result<Bytes, Failure> {
    let holding = route.policies.body_limit.holding();
    if declared(record.exchange.headers()).is_some_and(|length| length > holding.bytes) {
        return Err(Failure::Unproven(too_large()));
    }
    // What follows on such a stream is no content (RFC 8441 §5).
    let tunnel = record.exchange.upgrade() == Some(Upgrade::WebSocketStream);
    let Some(incoming) = arrival.body.take_if(|_| !tunnel) else {
        return Ok(Bytes::new());
    };
    let bounds = forward::bounds(route, record.snapshot().server.limits.body, Trailers::Drop);
    let (body, progress) = ClientBody::new(incoming, bounds);
    record.progress = progress;
    let ClientBody::Stream(metered) = body else {
        arrival.looked_at = Some((body, None));
        return Ok(Bytes::new());
    };
    let mut heap = Heap {
        metered,
        bytes: Vec::new(),
        room: room(record, sender),
        holding,
    };
    match heap.fill().await {
        Ok(()) => {
            let (bytes, looked_at) = heap.whole();
            arrival.looked_at = Some(looked_at);
            Ok(bytes)
        }
        Err(failure) => {
            if watched && matches!(failure, Failure::Unproven(_)) {
                arrival.looked_at = Some(heap.begun());
            } else {
                arrival.body = Some(heap.metered.into_inner());
            }
            Err(failure)
        }
    }
}

fn declared(headers: &HeaderMap) -> Option<u64> {
    let value = headers.get(header::CONTENT_LENGTH)?;
    value.to_str().ok()?.parse().ok()
}

fn room(record: &Record, sender: Sender) -> Room {
    let most = record.snapshot().server.limits.spool_bytes;
    let spool = &record.worker().survivors.spool;
    spool.room((record.client(), sender), most)
}

/// What has come of a body.
struct Heap {
    metered: Box<Metered>,
    bytes: Vec<u8>,
    room: Room,
    holding: Holding,
}

impl Heap {
    /// All of the body, in its time.
    async fn fill(&mut self) -> Result<(), Failure> {
        let taken = tokio::time::timeout(self.holding.time, self.take()).await;
        let late = |_| refusal(Reason::BodyTimeout, "spool-time");
        taken.map_err(late).map_err(Failure::Unproven)?
    }

    async fn take(&mut self) -> Result<(), Failure> {
        while let Some(piece) = self.metered.piece().await {
            let piece = piece.map_err(|cut| Failure::Cut(refusal(cut.0, "spool")))?;
            self.push(&piece).map_err(Failure::Unproven)?;
        }
        Ok(())
    }

    /// Pieces are copied together: each may be a small part of a large buffer. What does not fit any more is kept all the
    /// same, since it has to go on if the failure is only watched.
    fn push(&mut self, piece: &[u8]) -> Result<(), Box<Refusal>> {
        let needed = self.bytes.len().saturating_add(piece.len());
        let most = usize::try_from(self.holding.bytes).unwrap_or(usize::MAX);
        let fits = if needed > most {
            Err(too_large())
        } else {
            self.make_room(needed, most)
        };
        self.bytes.extend_from_slice(piece);
        fits
    }

    fn make_room(&mut self, needed: usize, most: usize) -> Result<(), Box<Refusal>> {
        let capacity = self.bytes.capacity();
        if needed <= capacity {
            return Ok(());
        }
        let twice = capacity.saturating_mul(2).max(LEAST).min(most);
        let more = needed.max(twice).saturating_sub(capacity);
        self.room
            .grow(u64::try_from(more).unwrap_or(u64::MAX))
            .map_err(full)?;
        let length = self.bytes.len();
        self.bytes
            .reserve_exact(capacity.saturating_add(more).saturating_sub(length));
        Ok(())
    }

    /// The whole body: to be judged, and to go on.
    fn whole(self) -> (Bytes, Looked) {
        let bytes = Bytes::from(self.bytes);
        if bytes.is_empty() {
            return (bytes, (ClientBody::Empty, None));
        }
        let held = Held::whole(bytes.clone(), Box::new(self.room));
        (bytes, looked(held))
    }

    /// What came so far, and the rest as it comes.
    fn begun(self) -> Looked {
        looked(Held::begun(
            Bytes::from(self.bytes),
            self.metered,
            Box::new(self.room),
        ))
    }
}

fn looked(held: Held) -> Looked {
    let progress = Arc::clone(held.progress());
    (ClientBody::Held(Box::new(held)), Some(progress))
}

fn too_large() -> Box<Refusal> {
    refusal(Reason::BodyTooLarge, "spool")
}

/// Other bodies take all the room that there is, or that this client or all strangers may have.
fn full(full: Full) -> Box<Refusal> {
    let detail = match full {
        Full::All | Full::Client => "spool",
        Full::Strangers => "spool-strangers",
    };
    let mut refusal = refusal(Reason::Overloaded, detail);
    let soon = HeaderValue::from_static("1");
    refusal.headers.insert(header::RETRY_AFTER, soon);
    refusal
}

fn refusal(reason: Reason, detail: &'static str) -> Box<Refusal> {
    Box::new(Refusal::new(Stage::BodyLimit, reason).detail(detail))
}
