//! Sends one request to one endpoint of a cluster and waits for the head of the answer.
//!
//! A try is repeated only where it cannot repeat an effect: when no connection could be made, when a kept connection
//! turned out to be closed before the request was written on it, or when an HTTP/2 server says that it did not look at
//! the request (RFC 9113 §8.7). A safe method without a body is sent once more, on a fresh connection, when a kept one
//! broke under it before an answer (RFC 9110 §9.2.2). All of these are paid for out of the retry budget, and all tries
//! together end within one deadline.

use std::{
    future::poll_fn,
    net::IpAddr,
    pin::pin,
    sync::Arc,
    task::{Poll, ready},
    time::{Duration, Instant},
};

use http::{Method, Request, Response, StatusCode, header};
use hyper::{body::Incoming, client::conn::TrySendError};

use super::{
    balance::{Balance, Pick, mix},
    body::{After, Carrier, Lease},
    breaker::Probe,
    cluster::Cluster,
    connect::connect,
    endpoint::{Endpoint, InFlight, Protocol},
    error::{Fault, UpstreamError},
    link::{Link, Patience},
    outlier,
    pool::Pool,
    trail::Trail,
    two,
    upload::Upload,
};
use crate::{
    exchange::hints::Turn,
    observe::metrics::EjectionCause,
    state::{clock, limiter::KeyHasher},
    wire::body::{BodyProgress, ClientBody},
};

/// A kept connection that sat longer than this may have been closed by the backend meanwhile.
const TRUSTED_IDLE: Duration = Duration::from_millis(200);

/// The pause before a second try on the same server; it doubles with each further one.
const FIRST_PAUSE: Duration = Duration::from_millis(25);
/// The longest such pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// One request on its way.
#[derive(Debug)]
pub struct Outbound<'a> {
    /// The upstream that the route names.
    pub cluster: &'a Cluster,
    /// The worker that sends; its pool is used.
    pub worker: usize,
    /// Random bits.
    pub seed: u64,
    /// Who asks.
    pub client: IpAddr,
    /// Makes a number of who asks.
    pub hasher: &'a KeyHasher,
    /// What became of the request body.
    pub progress: Option<Arc<BodyProgress>>,
    /// When sending began.
    pub sending: Instant,
    /// Where the interim answers are counted, when they are passed on.
    pub hints: Option<&'a Turn>,
}

impl Outbound<'_> {
    fn client_key(&self) -> u64 {
        self.hasher.client(self.client)
    }

    fn pick(&self) -> Pick {
        let client = match self.cluster.balance {
            Balance::HashClient => self.client_key(),
            Balance::PowerOfTwo | Balance::RoundRobin(_) => 0,
        };
        Pick {
            seed: self.seed,
            client,
        }
    }

    /// What is left of the time for all tries.
    fn left(&self, now: Instant) -> Duration {
        let spent = now.saturating_duration_since(self.sending);
        self.cluster.request_timeout.saturating_sub(spent)
    }
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
    let mut passed_over: Vec<usize> = Vec::new();
    let mut tries = 0;
    loop {
        let (place, endpoint) = choose(outbound, &passed_over)?;
        let probe = match admit(outbound, endpoint) {
            Ok(probe) => probe,
            Err(resting) => {
                let all = passed_over.len() + 1 >= cluster.endpoints.len();
                if all || passed_over.contains(&place) {
                    return Err(resting);
                }
                passed_over.push(place);
                continue;
            }
        };
        trail.endpoint = Some(place);
        trail.attempts = trail.attempts.saturating_add(1);
        let outcome = match cluster.protocol {
            Protocol::Http1 => attempt(outbound, endpoint, request).await,
            Protocol::Http2 => Box::pin(attempt_two(outbound, endpoint, request)).await,
        };
        judge(outbound, endpoint, &outcome);
        drop(probe);
        match outcome {
            Ok(sent) => return Ok(sent),
            Err((error, Some(unsent)))
                if error.had_no_effect()
                    && tries < cluster.retries
                    && !outbound.left(Instant::now()).is_zero()
                    && cluster.budget.spend() =>
            {
                tries += 1;
                request = *unsent;
                if passed_over.len() + 1 >= cluster.endpoints.len() {
                    // Every other one was asked or rests: this server needs a moment rather than more requests.
                    tokio::time::sleep(pause(tries, outbound.seed)).await;
                    if endpoint.breaker.is_open(clock::now_ms()) {
                        return Err(error);
                    }
                } else {
                    passed_over.push(place);
                }
            }
            Err((error, _)) => return Err(error),
        }
    }
}

/// Doubles with each try, up to a bound; between half of that and the whole, so that tries do not come in step.
fn pause(tries: u32, seed: u64) -> Duration {
    let whole = FIRST_PAUSE
        .saturating_mul(1 << tries.saturating_sub(1).min(10))
        .min(LONGEST_PAUSE);
    let part = u32::try_from(mix(seed ^ u64::from(tries)) % 512).unwrap_or(0);
    whole * (512 + part) / 1024
}

/// The best of the servers that this request has not met yet, else the best of all.
fn choose<'a>(
    outbound: &Outbound<'a>,
    passed_over: &[usize],
) -> Result<(usize, &'a Arc<Endpoint>), UpstreamError> {
    let cluster = outbound.cluster;
    let place = match cluster.endpoints.as_slice() {
        [_] => Some(0),
        all => {
            let (pick, now_ms) = (outbound.pick(), clock::now_ms());
            cluster.balance.choose(all, pick, |place, endpoint| {
                let draw = pick.draw(&cluster.balance, endpoint);
                let rank = endpoint.rank(now_ms, cluster.slow_start, draw);
                rank + if passed_over.contains(&place) { 8 } else { 0 }
            })
        }
    };
    place
        .and_then(|place| Some((place, cluster.endpoints.get(place)?)))
        .ok_or(UpstreamError::Unacceptable("no-endpoint"))
}

fn admit<'e>(
    outbound: &Outbound<'_>,
    endpoint: &'e Endpoint,
) -> Result<Option<Probe<'e>>, UpstreamError> {
    // A body comes as slowly as its client likes: such a probe must not keep the others out for long.
    let claim = match outbound.progress {
        None => outbound.cluster.request_timeout,
        Some(_) => Duration::from_secs(1),
    };
    endpoint
        .breaker
        .admit(clock::now_ms, || outbound.client_key(), claim)
        .map_err(|retry_after| UpstreamError::BreakerOpen { retry_after })
}

/// What a try says of the server.
fn judge<T>(
    outbound: &Outbound<'_>,
    endpoint: &Endpoint,
    outcome: &Result<Sent, (UpstreamError, T)>,
) {
    let cluster = outbound.cluster;
    let has_peers = cluster.endpoints.len() > 1;
    let (upstream, server) = (&*cluster.name, &*endpoint.name);
    match outcome {
        Ok(sent) => {
            if endpoint.breaker.success() {
                tracing::info!(upstream, server, "breaker is closed");
                endpoint.standing.come_back(clock::now_ms());
            }
            match has_peers {
                true if sent.response.status().is_server_error() => {
                    endpoint.standing.failed(outbound.client_key());
                }
                true => endpoint.standing.answered(),
                false => {}
            }
        }
        // A client that spoils its own body says nothing of the backend; else it could hold a breaker closed at will.
        Err((error, _)) if error.fault() != Fault::Upstream => {}
        Err((error, _)) => {
            let client = outbound.client_key();
            let now_ms = clock::now_ms();
            let provoked = error.was_sent().then_some(client);
            if endpoint.breaker.failure(now_ms, provoked) {
                tracing::warn!(upstream, server, "breaker is open");
                outlier::eject(cluster, endpoint, EjectionCause::Failures, now_ms);
            }
            if has_peers {
                endpoint.standing.failed(client);
            }
        }
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

/// Whether a connection that did not come about within `limit` says something of the server: not where earlier tries had
/// left less than half of the time that it may need.
fn tells(outbound: &Outbound<'_>, endpoint: &Endpoint, limit: Duration) -> bool {
    let whole = outbound.cluster.request_timeout;
    limit.saturating_mul(2) >= endpoint.rules.connect_timeout.min(whole)
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
    while let Some(mut idle) = endpoint.take_idle(&seat.pool, outbound.sending) {
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
                Some(again)
                    if matches!(&error, UpstreamError::Broken(_))
                        && outbound.cluster.budget.spend() =>
                {
                    request = again;
                    break;
                }
                _ => return Err((error, None)),
            },
        }
    }
    let left = outbound.left(Instant::now());
    let limit = endpoint.rules.connect_timeout.min(left);
    // Rare beside kept connections, and its future is large: it holds a TLS handshake.
    let mut link = match Box::pin(connect(endpoint, limit)).await {
        Ok(link) => link,
        Err(UpstreamError::ConnectTimeout) if !tells(outbound, endpoint, limit) => {
            return Err((UpstreamError::OutOfTime, None));
        }
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
        let left = outbound.left(Instant::now());
        let slot = tokio::time::timeout(left, shared.slot(endpoint)).await;
        let slot = match slot.unwrap_or(Err(UpstreamError::ConnectTimeout)) {
            Ok(slot) => slot,
            Err(UpstreamError::ConnectTimeout) if shared.is_full() => {
                return Err((UpstreamError::Full, None));
            }
            Err(UpstreamError::ConnectTimeout) if !tells(outbound, endpoint, left) => {
                return Err((UpstreamError::OutOfTime, None));
            }
            Err(error) => return Err((error, Some(Box::new(request)))),
        };
        let may_return = outbound.cluster.retries > 0;
        let spare = may_return.then(|| copy(&request)).flatten().map(Box::new);
        let mut sender = slot.sender();
        let request_with_room = request.map(|body| Upload::keeping(slot.room(), body));
        let answer = sender.try_send_request(request_with_room);
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
    *copy.extensions_mut() = request.extensions().clone();
    Some(copy)
}

type Outcome = Result<Response<Incoming>, (UpstreamError, Unsent)>;

/// An exchange that has its connection to itself.
async fn alone(
    sending: (&Outbound<'_>, Instant),
    link: &mut Link,
    request: Request<ClientBody>,
) -> Outcome {
    let Link {
        sender,
        patience,
        prelude,
        ..
    } = link;
    prelude.begin();
    let outcome = exchange(sending, patience, sender.try_send_request(request)).await;
    prelude.end();
    match outcome {
        Err((UpstreamError::Broken(_), _)) if prelude.is_over() => {
            Err((UpstreamError::Unacceptable("interim-flood"), None))
        }
        outcome => outcome,
    }
}

/// Writes the request and waits for the head, as long as the client's body moves.
async fn exchange<B: Into<ClientBody>>(
    (outbound, began): (&Outbound<'_>, Instant),
    patience: &mut Patience,
    answer: impl Future<Output = Result<Response<Incoming>, TrySendError<Request<B>>>>,
) -> Outcome {
    let limit = outbound.cluster.response_timeout;
    let mut answer = pin!(answer);
    let taken = || outbound.progress.as_ref().map_or(0, |p| p.bytes());
    let mut before = taken();
    patience.begin(began.into(), limit.min(outbound.left(began)));
    let answered = poll_fn(|cx| {
        if outbound
            .hints
            .is_some_and(|turn| turn.is_flooded(cx.waker()))
        {
            return Poll::Ready(Err(UpstreamError::Unacceptable("interim-flood")));
        }
        loop {
            if let Poll::Ready(answered) = answer.as_mut().poll(cx) {
                return Poll::Ready(Ok(answered));
            }
            ready!(patience.poll(cx));
            // The clock of the backend runs while it has all that there is of the request, or takes nothing of it.
            if taken() == before && outbound.progress.as_ref().is_none_or(|p| !p.is_awaited()) {
                return Poll::Ready(Err(UpstreamError::ResponseTimeout));
            }
            before = taken();
            patience.begin(Instant::now().into(), limit);
        }
    })
    .await;
    match answered {
        Ok(Ok(response)) => Ok(response),
        Ok(Err(mut error)) => {
            let unsent = error.take_message();
            let unsent = unsent.map(|request| Box::new(request.map(Into::into)));
            Err((blame(outbound, error.into_error()), unsent))
        }
        Err(error) => Err((error, None)),
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
            answer_idle: outbound.cluster.answer_idle,
        },
    })
}
