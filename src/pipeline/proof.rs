//! Bodies that have to prove something: held in bounded memory until they are whole, judged, and only then let go on.
//!
//! Before any byte of the request reaches the backend, and after whatever can be judged without the body. What goes on are
//! the very bytes that were judged. The bounds on size, pauses and rate of all bodies hold here too, and closer ones on
//! what is held. In monitor mode a body that cannot be held goes on unjudged. Strangers, of whom only the whole body would show
//! who they are, have half of the memory, and who of them lets the gate wait until time is up, or for long and then leaves,
//! is counted as a guesser.
//!
//! What counts once is used up here too, last of all: what the gate itself turns away can be sent again.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::{HeaderMap, header, header::HeaderValue};

use super::{forward, normalise::Arrival, record::Record};
use crate::{
    exchange::{
        Exchange,
        body_check::{BodyCheck, BodyError, Unproven, Unspent},
    },
    identity::signer::is_forged,
    policy::{authn, body_limit::Holding},
    snapshot::Route,
    state::spool::{Bounds, Full, Room, Sender},
    upstream::error::UpstreamError,
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
/// How long a stranger may hold memory and leave without a word, where there is three times as much for the whole body.
const PATIENCE: Duration = Duration::from_secs(10);

/// A body that was looked at, and what becomes of it on its way to the backend.
pub type Looked = (ClientBody, Option<Arc<BodyProgress>>);

/// Why a body has proven nothing.
enum Failure {
    /// It ended before its end: there is nothing that could go on.
    Cut(Box<Refusal>),
    /// It cannot be held.
    Unproven(Box<Refusal>),
    /// It is another one.
    Unfit(BodyError),
}

impl Failure {
    /// What comes of it for a stranger: memory was held in the name of nobody, until time was up or longer than needed.
    fn of_stranger(self, stayed: bool) -> Self {
        let counted = |mut refusal: Box<Refusal>, stayed: bool| {
            refusal.forged = stayed || refusal.reason == Reason::BodyTimeout;
            refusal
        };
        match self {
            Self::Cut(refusal) => Self::Cut(counted(refusal, stayed)),
            Self::Unproven(refusal) => Self::Unproven(counted(refusal, false)),
            unfit @ Self::Unfit(_) => unfit,
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
    let sender = match unproven.caller {
        Some(_) => Sender::Stranger,
        None => Sender::Known,
    };
    let held = hold(route, record, (arrival, sender), &unproven).await;
    let judged = held.and_then(|held| {
        unproven.check.judge(&held).map_err(Failure::Unfit)?;
        Ok(unproven.check.single(&held))
    });
    let Unproven {
        refusal,
        caller,
        watched,
        ..
    } = *unproven;
    let exchange = &mut record.exchange;
    let failure = match judged {
        Ok(single) => {
            // Until now nobody was believed to ask.
            exchange.principal = caller.or_else(|| exchange.principal.take());
            if let Some(single) = single {
                exchange.unspent = Some(Box::new(Unspent {
                    single,
                    refusal,
                    watched,
                }));
            }
            return Ok(());
        }
        Err(failure) => failure,
    };
    (exchange.principal, exchange.unspent) = (None, None);
    match failure {
        Failure::Cut(refusal) => Err((*refusal).into()),
        Failure::Unproven(refusal) => fails(exchange, watched, *refusal),
        Failure::Unfit(error) => fails(exchange, watched, unfit(error, refusal)),
    }
}

/// Refuses, or takes a note of it where the policy only watches.
fn fails(exchange: &mut Exchange, watched: bool, refusal: Refusal) -> Result<(), Halt> {
    if !watched {
        return Err(refusal.into());
    }
    let note = (refusal.stage, refusal.reason);
    exchange.would_refuse.push(note);
    Ok(())
}

/// Uses up what counts once. Nothing but the sending may come after it.
///
/// # Errors
/// The refusal of whoever said that it counts once; 503 where that cannot be remembered.
pub fn spend(exchange: &mut Exchange) -> Result<(), Halt> {
    let Some(unspent) = exchange.unspent.take() else {
        return Ok(());
    };
    let Err(error) = unspent.single.spend() else {
        exchange.unspent = Some(unspent);
        return Ok(());
    };
    let Unspent {
        refusal, watched, ..
    } = *unspent;
    exchange.principal = None;
    fails(exchange, watched, unfit(error, refusal))
}

/// Takes back what was used up for a request that no server has looked at. Requests that the gate may send twice are not
/// known to be such.
pub fn give_back(exchange: &Exchange, error: &UpstreamError) {
    if let Some(unspent) = &exchange.unspent
        && error.reached_nobody()
        && !exchange.method().is_safe()
    {
        unspent.single.give_back();
    }
}

/// The answer to what does not prove what it has to, or was used before.
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
    (arrival, sender): (&mut Arrival, Sender),
    unproven: &Unproven,
) -> Result<Bytes, Failure> {
    let holding = route.policies.body_limit.holding();
    if let Some(length) = declared(record.exchange.headers()) {
        let begun = usize::try_from(length).unwrap_or(usize::MAX);
        unproven.check.could_have(begun).map_err(Failure::Unfit)?;
        if length > holding.bytes {
            return Err(Failure::Unproven(too_large()));
        }
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
        room: room(record, sender, holding),
        holding,
        check: &*unproven.check,
    };
    let since = Instant::now();
    let Err(failure) = heap.fill().await else {
        let (bytes, looked_at) = heap.whole();
        arrival.looked_at = Some(looked_at);
        return Ok(bytes);
    };
    if unproven.watched && !matches!(failure, Failure::Cut(_)) {
        arrival.looked_at = Some(heap.begun());
    } else {
        arrival.body = Some(heap.metered.into_inner());
    }
    // What only watches bans nobody. A link that brought the signature excuses none of it: no link lets a body wait.
    if sender == Sender::Stranger && !unproven.watched {
        let stayed = since.elapsed() > PATIENCE.min(holding.time / 3);
        return Err(failure.of_stranger(stayed));
    }
    Err(failure)
}

fn declared(headers: &HeaderMap) -> Option<u64> {
    let value = headers.get(header::CONTENT_LENGTH)?;
    value.to_str().ok()?.parse().ok()
}

fn room(record: &Record, sender: Sender, holding: Holding) -> Room {
    let bounds = Bounds {
        all: record.snapshot().server.limits.spool_bytes,
        body: holding.bytes,
    };
    let spool = &record.worker().survivors.spool;
    spool.room((record.client(), sender), bounds)
}

/// What has come of a body.
struct Heap<'a> {
    metered: Box<Metered>,
    bytes: Vec<u8>,
    room: Room,
    holding: Holding,
    check: &'a dyn BodyCheck,
}

/// Bytes with their room, which is given back when the last of those who send them lets them go.
struct Kept {
    bytes: Vec<u8>,
    _room: Room,
}

impl AsRef<[u8]> for Kept {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Heap<'_> {
    /// All of the body, in its time.
    async fn fill(&mut self) -> Result<(), Failure> {
        let taken = tokio::time::timeout(self.holding.time, self.take()).await;
        let late = |_| refusal(Reason::BodyTimeout, "spool-time");
        taken.map_err(late).map_err(Failure::Unproven)?
    }

    async fn take(&mut self) -> Result<(), Failure> {
        while let Some(piece) = self.metered.piece().await {
            let piece = piece.map_err(|cut| Failure::Cut(refusal(cut.0, "spool")))?;
            let first = self.bytes.is_empty();
            let fits = self.push(&piece).map_err(Failure::Unproven);
            if first {
                let could = self.check.could_have(piece.len());
                could.map_err(Failure::Unfit)?;
            }
            fits?;
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
        if self.bytes.is_empty() {
            return (Bytes::new(), (ClientBody::Empty, None));
        }
        let bytes = kept(self.bytes, self.room);
        (bytes.clone(), looked(Held::whole(bytes)))
    }

    /// What came so far, and the rest as it comes.
    fn begun(self) -> Looked {
        looked(Held::begun(kept(self.bytes, self.room), self.metered))
    }
}

fn kept(bytes: Vec<u8>, room: Room) -> Bytes {
    Bytes::from_owner(Kept { bytes, _room: room })
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
