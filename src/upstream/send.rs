//! Sends one request to one endpoint of a cluster and waits for the head of the answer.
//!
//! A try is repeated only where it cannot repeat an effect: when no connection could be made, when a kept connection
//! turned out to be closed before the request was written on it (RFC 9110 §9.2.2), or when an HTTP/2 server says that it
//! did not look at the request (RFC 9113 §8.7).

use std::{
    future::poll_fn,
    pin::pin,
    sync::Arc,
    task::{Poll, ready},
    time::{Duration, Instant},
};

use http::{Method, Request, Response, StatusCode, header};
use hyper::{body::Incoming, client::conn::TrySendError};

use super::{
    balance::Pick,
    body::{After, Carrier, Lease},
    cluster::Cluster,
    connect::connect,
    endpoint::{Endpoint, InFlight, Protocol},
    error::{Fault, UpstreamError},
    link::{Link, Patience},
    pool::Pool,
    trail::Trail,
    two,
};
use crate::{
    state::clock,
    wire::body::{BodyProgress, ClientBody},
};

/// A kept connection that sat longer than this may have been closed by the backend meanwhile.
const TRUSTED_IDLE: Duration = Duration::from_millis(200);

/// One request on its way.
#[derive(Debug)]
pub struct Outbound<'a> {
    /// The upstream that the route names.
    pub cluster: &'a Cluster,
    /// The worker that sends; its pool is used.
    pub worker: usize,
    /// Random bits and the client's key for the balancer.
    pub pick: Pick,
    /// What became of the request body.
    pub progress: Option<Arc<BodyProgress>>,
    /// When sending began.
    pub sending: Instant,
}

/// The head of an answer and the connection that it came on.
#[derive(Debug)]
pub struct Sent {
    /// Head and body.
    pub response: Response<Incoming>,
    /// The connection.
    pub lease: Lease,
}

/// Sends the request. The single caller is `pipeline::forward`.
///
/// # Errors
/// [`UpstreamError`]: whose fault, and whether anything was sent.
pub async fn send(
    outbound: &Outbound<'_>,
    request: Request<ClientBody>,
    trail: &mut Trail,
) -> Result<Sent, UpstreamError> {
    let cluster = outbound.cluster;
    cluster.budget.earn();
    let mut request = request;
    let mut tries = 0;
    loop {
        let (place, endpoint) = choose(outbound, trail.endpoint)?;
        trail.endpoint = Some(place);
        trail.attempts = trail.attempts.saturating_add(1);
        let outcome = match cluster.protocol {
            Protocol::Http1 => attempt(outbound, endpoint, request).await,
            Protocol::Http2 => Box::pin(attempt_two(outbound, endpoint, request)).await,
        };
        judge(endpoint, outcome.as_ref().err().map(|(error, _)| error));
        match outcome {
            Ok(sent) => return Ok(sent),
            Err((error, Some(unsent)))
                if error.had_no_effect() && tries < cluster.retries && cluster.budget.spend() =>
            {
                tries += 1;
                request = *unsent;
            }
            Err((error, _)) => return Err(error),
        }
    }
}

/// An endpoint that is well, and another one than the last that was tried, where there is one.
fn choose<'a>(
    outbound: &Outbound<'a>,
    tried: Option<usize>,
) -> Result<(usize, &'a Arc<Endpoint>), UpstreamError> {
    let cluster = outbound.cluster;
    let tried = tried.and_then(|place| cluster.endpoints.get(place));
    let usable = |endpoint: &Endpoint| {
        endpoint.is_healthy()
            && !endpoint.breaker.is_open(clock::now_ms)
            && tried.is_none_or(|tried| !std::ptr::eq(Arc::as_ptr(tried), endpoint))
    };
    let place = cluster
        .balance
        .choose(&cluster.endpoints, outbound.pick, usable);
    let (place, endpoint) = place
        .and_then(|place| Some((place, cluster.endpoints.get(place)?)))
        .ok_or(UpstreamError::Unacceptable("no-endpoint"))?;
    endpoint
        .breaker
        .admit(clock::now_ms)
        .map_err(|retry_after| UpstreamError::BreakerOpen { retry_after })?;
    Ok((place, endpoint))
}

fn judge(endpoint: &Endpoint, error: Option<&UpstreamError>) {
    match error.map(UpstreamError::fault) {
        None => endpoint.breaker.success(),
        Some(Fault::Upstream) => endpoint.breaker.failure(clock::now_ms()),
        // A client that spoils its own body says nothing of the backend; else it could hold a breaker closed at will.
        Some(Fault::Client | Fault::Resting | Fault::Gate) => {}
    }
}

/// What an attempt holds of its endpoint.
struct Seat {
    in_flight: Option<InFlight>,
    pool: Arc<Pool>,
}

impl Seat {
    fn with(self, link: Link) -> (Carrier, Option<InFlight>) {
        (Carrier::Alone(link, self.pool), self.in_flight)
    }
}

/// Counts the exchange where the balance compares endpoints.
fn counted(cluster: &Cluster, endpoint: &Arc<Endpoint>) -> Option<InFlight> {
    let compared = cluster.balance.compares(&cluster.endpoints);
    compared.then(|| InFlight::on(endpoint))
}

type Unsent = Option<Box<Request<ClientBody>>>;

/// One try on one endpoint: a kept connection first, else a new one.
async fn attempt(
    outbound: &Outbound<'_>,
    endpoint: &Arc<Endpoint>,
    request: Request<ClientBody>,
) -> Result<Sent, (UpstreamError, Unsent)> {
    let seat = Seat {
        in_flight: counted(outbound.cluster, endpoint),
        pool: Arc::clone(endpoint.pool(outbound.worker)),
    };
    let mut request = request;
    while let Some(mut idle) = seat.pool.take(outbound.sending) {
        if idle.link.sender.ready().await.is_err() {
            continue;
        }
        let spare = spare(
            &request,
            outbound.sending.saturating_duration_since(idle.since),
        );
        match alone((outbound, outbound.sending), &mut idle.link, request).await {
            Ok(response) => return accept(outbound, response, seat.with(idle.link)),
            Err((_, Some(unsent))) => request = *unsent,
            Err((error, None)) => match spare {
                Some(again) if matches!(&error, UpstreamError::Broken(_)) => request = again,
                _ => return Err((error, None)),
            },
        }
    }
    // Rare beside kept connections, and its future is large: it holds a TLS handshake.
    let mut link = match Box::pin(connect(endpoint)).await {
        Ok(sender) => Link::new(sender),
        Err(error) => return Err((error, Some(Box::new(request)))),
    };
    match alone((outbound, Instant::now()), &mut link, request).await {
        Ok(response) => accept(outbound, response, seat.with(link)),
        Err((error, _)) => Err((error, None)),
    }
}

/// One try on one endpoint that speaks HTTP/2. A connection that went away before the request was written gives the
/// request back; there are no more such connections than may be open.
async fn attempt_two(
    outbound: &Outbound<'_>,
    endpoint: &Arc<Endpoint>,
    mut request: Request<ClientBody>,
) -> Result<Sent, (UpstreamError, Unsent)> {
    let in_flight = counted(outbound.cluster, endpoint);
    if let Err(error) = two::address(&mut request, endpoint) {
        return Err((error, None));
    }
    let shared = endpoint.shared(outbound.worker);
    for _ in 0..=endpoint.rules.shared_limit {
        let slot = match shared.slot(endpoint).await {
            Ok(slot) => slot,
            Err(error) => return Err((error, Some(Box::new(request)))),
        };
        let may_return = outbound.cluster.retries > 0;
        let spare = may_return.then(|| copy(&request)).flatten().map(Box::new);
        let mut sender = slot.sender();
        let answer = sender.try_send_request(request);
        let mut patience = Patience::new();
        match exchange((outbound, Instant::now()), &mut patience, answer).await {
            Ok(response) => return accept(outbound, response, (Carrier::Shared(slot), in_flight)),
            Err((_, Some(unsent))) => request = *unsent,
            Err((error @ UpstreamError::Refused(_), None)) => return Err((error, spare)),
            Err((error, None)) => return Err((error, None)),
        }
    }
    Err((UpstreamError::Full, None))
}

/// A copy of a request that may be sent again when a kept connection breaks: safe methods without a body, and only
/// where the connection sat long enough for the backend to have closed it.
fn spare(request: &Request<ClientBody>, idle: Duration) -> Option<Request<ClientBody>> {
    let safe = matches!(
        *request.method(),
        Method::GET | Method::HEAD | Method::OPTIONS
    );
    if idle < TRUSTED_IDLE || !safe {
        return None;
    }
    copy(request)
}

/// The same request once more, if it has no body.
fn copy(request: &Request<ClientBody>) -> Option<Request<ClientBody>> {
    if !matches!(request.body(), ClientBody::Empty) {
        return None;
    }
    let mut copy = Request::new(ClientBody::Empty);
    *copy.method_mut() = request.method().clone();
    *copy.uri_mut() = request.uri().clone();
    *copy.version_mut() = request.version();
    *copy.headers_mut() = request.headers().clone();
    Some(copy)
}

type Outcome = Result<Response<Incoming>, (UpstreamError, Unsent)>;

/// An exchange that has its connection to itself.
async fn alone(
    sending: (&Outbound<'_>, Instant),
    link: &mut Link,
    request: Request<ClientBody>,
) -> Outcome {
    let Link { sender, patience } = link;
    exchange(sending, patience, sender.try_send_request(request)).await
}

/// Writes the request and waits for the head, as long as the client's body moves.
async fn exchange(
    (outbound, began): (&Outbound<'_>, Instant),
    patience: &mut Patience,
    answer: impl Future<Output = Result<Response<Incoming>, TrySendError<Request<ClientBody>>>>,
) -> Outcome {
    let limit = outbound.cluster.response_timeout;
    let mut answer = pin!(answer);
    let taken = || outbound.progress.as_ref().map_or(0, |p| p.bytes());
    let mut before = taken();
    patience.begin(began.into(), limit);
    let answered = poll_fn(|cx| {
        loop {
            if let Poll::Ready(answered) = answer.as_mut().poll(cx) {
                return Poll::Ready(Some(answered));
            }
            ready!(patience.poll(cx));
            // The clock of the backend runs while it has all that there is of the request, or takes nothing of it.
            if taken() == before && outbound.progress.as_ref().is_none_or(|p| !p.is_awaited()) {
                return Poll::Ready(None);
            }
            before = taken();
            patience.begin(Instant::now().into(), limit);
        }
    })
    .await;
    match answered {
        Some(Ok(response)) => Ok(response),
        Some(Err(mut error)) => {
            let unsent = error.take_message().map(Box::new);
            Err((blame(outbound, error.into_error()), unsent))
        }
        None => Err((UpstreamError::ResponseTimeout, None)),
    }
}

fn blame(outbound: &Outbound<'_>, error: hyper::Error) -> UpstreamError {
    match outbound.progress.as_ref().and_then(|p| p.fault()) {
        Some(reason) => UpstreamError::ClientBody(reason),
        None if is_refusal(&error) => UpstreamError::Refused(error),
        None => UpstreamError::Broken(error),
    }
}

/// Whether an HTTP/2 server says that it did not look at the request: it refused the stream, or went away naming an
/// earlier one as its last. Of a stream up to that last one, h2 tells the broken connection instead.
fn is_refusal(error: &hyper::Error) -> bool {
    let cause =
        std::error::Error::source(error).and_then(|cause| cause.downcast_ref::<h2::Error>());
    cause.is_some_and(|cause| {
        let refused = cause.is_reset() && cause.reason() == Some(h2::Reason::REFUSED_STREAM);
        cause.is_remote() && (refused || cause.is_go_away())
    })
}

/// Refuses answers that could be read in two ways; their connection is closed.
fn accept(
    outbound: &Outbound<'_>,
    response: Response<Incoming>,
    (carrier, in_flight): (Carrier, Option<InFlight>),
) -> Result<Sent, (UpstreamError, Unsent)> {
    let headers = response.headers();
    let mut lengths = headers.get_all(header::CONTENT_LENGTH).iter();
    if lengths.next().is_some() {
        if lengths.next().is_some() {
            return Err((UpstreamError::Unacceptable("two-lengths"), None));
        }
        if headers.contains_key(header::TRANSFER_ENCODING) {
            return Err((UpstreamError::Unacceptable("length-and-chunked"), None));
        }
    }
    // A 101 that nobody asked for is met in `pipeline::forward`, which knows whether a tunnel was asked for.
    if response.status().is_informational() && response.status() != StatusCode::SWITCHING_PROTOCOLS
    {
        return Err((UpstreamError::Unacceptable("informational"), None));
    }
    Ok(Sent {
        response,
        lease: Lease {
            carrier,
            in_flight,
            progress: outbound.progress.clone(),
            after: After::Keep,
        },
    })
}
