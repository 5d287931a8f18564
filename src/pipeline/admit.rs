//! From a normal request to an [`Admitted`] one: the redirect to https, the route, the policies.

use std::time::Instant;

use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode, Version, header, header::HeaderValue};

use super::{normalise::Arrival, own_pages, proof, record::Recording, worker::Worker};
use crate::{
    exchange::{
        Exchange, Scheme,
        client_certificate::{ClientCertificate, Distrust},
    },
    policy::{self, conditions, cors, step_up},
    portal::Portal,
    snapshot::{Route, Snapshot, router::Found, server::Clear, trie::RouteId},
    state::{clock, load::Pressure},
    wire::{
        halt::{Halt, Reason, Refusal, Reply, Stage},
        own_space,
    },
};

/// A request that every policy let in. Only this module can make one, and forwarding takes nothing else, so
/// skipping a guard does not compile.
///
/// It borrows the route from the snapshot: a count on a route would be written by every worker with every request.
#[derive(Debug)]
pub struct Admitted<'a> {
    route: &'a Route,
}

impl<'a> Admitted<'a> {
    /// The route that let it in.
    pub fn route(&self) -> &'a Route {
        self.route
    }
}

/// Judges a request.
///
/// # Errors
/// The halt of the first stage that does not let it pass.
pub async fn admit<'a>(
    snapshot: &'a Snapshot,
    recording: &mut Recording,
    arrival: &mut Arrival,
    room: Room,
) -> Result<Admitted<'a>, Halt> {
    let record = &mut **recording;
    match room {
        Room::Client => return Err(overloaded("requests-of-client")),
        Room::Under(Pressure::All) => return Err(overloaded("requests")),
        Room::Under(_) => {}
    }
    let route = match identify(snapshot, &mut record.exchange, &mut record.met).await? {
        Asked::Route(route) => route,
        // Rare, and its future is large.
        Asked::Own(portal) => {
            return Err(Box::pin(own_pages::answer(portal, record, arrival)).await);
        }
    };
    let unproven = record.exchange.unproven.as_ref();
    // Nobody has rights or uses up those of somebody before it is known that it is he. Rare, and its future is large.
    if unproven.is_some_and(|unproven| unproven.caller.is_some()) {
        Box::pin(proof::prove(route, record, arrival)).await?;
    }
    if let Some(step_up) = &route.policies.step_up
        && let Some(due) = step_up::due(step_up, &record.exchange)
    {
        due.settle().await;
    }
    policy::admit_known(&route.policies, &mut record.exchange)?;
    // Only now is it known who asks, and nothing dear was done for those who are nobody.
    if room == Room::Under(Pressure::Anonymous) && record.exchange.principal.is_none() {
        return Err(overloaded("requests"));
    }
    if record.exchange.unproven.is_some() {
        Box::pin(proof::prove(route, record, arrival)).await?;
    }
    // Last: what is refused above is good once more.
    if record.exchange.unspent.is_some() {
        proof::spend(&mut record.exchange)?;
    }
    Ok(Admitted { route })
}

/// What room there is for a further request, looked at before it is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Room {
    /// Its client has as many under way as one may have.
    Client,
    /// Whatever this leaves.
    Under(Pressure),
}

impl Room {
    /// For a request of the client with this key.
    pub fn for_one_of(client: u64, worker: &Worker, snapshot: &Snapshot) -> Self {
        if worker.is_full_of(client, snapshot) {
            return Self::Client;
        }
        Self::Under(worker.pressure(snapshot))
    }
}

/// A request that the gate has no room for.
fn overloaded(detail: &'static str) -> Halt {
    Refusal::new(Stage::Forward, Reason::Overloaded)
        .detail(detail)
        .with(header::RETRY_AFTER, HeaderValue::from_static("1"))
        .into()
}

/// The same without a record and without a body, for `explain`; `met` is the route, once found, whatever its policies say.
/// A body that would have to prove something is taken for the right one.
///
/// # Errors
/// The halt of the first stage that does not let it pass.
pub async fn judge<'a>(
    snapshot: &'a Snapshot,
    exchange: &mut Exchange,
    met: &mut Option<RouteId>,
) -> Result<Admitted<'a>, Halt> {
    let route = match identify(snapshot, exchange, met).await? {
        Asked::Route(route) => route,
        Asked::Own(portal) => return Err(own_pages::foretell(portal, exchange)),
    };
    if let Some(unproven) = exchange.unproven.take() {
        let said = "if the body is the one that was signed";
        exchange.note(Stage::Authn, || said.to_owned());
        exchange.principal = unproven.caller.or_else(|| exchange.principal.take());
    }
    policy::admit_known(&route.policies, exchange)?;
    Ok(Admitted { route })
}

/// What a request is for.
enum Asked<'a> {
    Route(&'a Route),
    /// A page of the gate's own.
    Own(&'a Portal),
}

/// The route of a request, and who asks as far as its head shows.
async fn identify<'a>(
    snapshot: &'a Snapshot,
    exchange: &mut Exchange,
    met: &mut Option<RouteId>,
) -> Result<Asked<'a>, Halt> {
    if let Some(certificate) = exchange.connection.client_certificate()
        && let Err(why) = still_holds(snapshot, certificate, exchange.started)
    {
        policy::admit_unrouted(&snapshot.unrouted, exchange)?;
        return Err(distrusted(why, exchange.version()));
    }
    if let Some(reply) = redirect(snapshot, exchange) {
        policy::admit_unrouted(&snapshot.unrouted, exchange)?;
        exchange.note(Stage::Route, || "in clear: sent to https".to_owned());
        return Err(reply);
    }
    if let Some(portal) = &snapshot.portal
        && own_space::holds(exchange.target().judged())
    {
        policy::admit_unrouted(&snapshot.unrouted, exchange)?;
        let host = exchange.authority().host();
        return if exchange.scheme() == Scheme::Https && snapshot.router.serves(host) {
            Ok(Asked::Own(portal))
        } else {
            Err(Halt::refuse(Stage::Route, Reason::RouteUnknown))
        };
    }
    if let Some(book) = &snapshot.metadata
        && let Some(answer) = book.answer(exchange)
    {
        policy::admit_unrouted(&snapshot.unrouted, exchange)?;
        return Err(answer);
    }
    let (id, route) = match find(snapshot, exchange) {
        Ok(found) => found,
        Err(halt) => {
            // Scans must cost something: unknown paths are judged by the defaults before they are called unknown.
            policy::admit_unrouted(&snapshot.unrouted, exchange)?;
            return Err(halt);
        }
    };
    exchange.note(Stage::Route, || {
        format!(
            "route `{}` of blueprint `{}` ({})",
            route.facts.route, route.facts.blueprint, route.told.place
        )
    });
    exchange.route_bucket = Some(route.facts.bucket);
    if let Some(conditions) = &route.policies.conditions
        && conditions.reads_path()
    {
        let judged = exchange.target().judged();
        exchange.parameters = conditions::parameters(&route.facts.pattern, judged);
    }
    *met = Some(id);
    policy::admit(&route.policies, exchange).await?;
    Ok(Asked::Route(route))
}

/// Connections outlive reloads and the certificates of their clients: whatever is asked on one whose certificate holds no
/// more is refused, as its handshake would be.
pub(super) fn still_holds(
    snapshot: &Snapshot,
    certificate: &ClientCertificate,
    started: Instant,
) -> Result<(), Distrust> {
    let Some(clients) = snapshot.tls.as_ref().and_then(|tls| tls.clients.as_ref()) else {
        // No client is asked any more, so no route asks for one.
        return Ok(());
    };
    let now = clock::unix_seconds_at(started);
    clients.thing.judge(certificate, now)
}

/// The reason, and the finer word for the log.
pub(super) const fn reason_of(why: Distrust) -> (Reason, &'static str) {
    match why {
        Distrust::Expired => (Reason::CertificateExpired, "expired"),
        Distrust::Revoked => (Reason::CertificateRevoked, "revoked"),
        Distrust::RevocationUnknown => (Reason::CertificateUnknown, "revocation-unknown"),
        Distrust::Untrusted => (Reason::CertificateUnknown, "authority"),
    }
}

/// The connection ends with the answer, so that the client is told by the next handshake.
fn distrusted(why: Distrust, version: Version) -> Halt {
    let (reason, detail) = reason_of(why);
    let refusal = Refusal::new(Stage::Authn, reason).detail(detail);
    if version <= Version::HTTP_11 {
        let close = HeaderValue::from_static("close");
        return refusal.with(header::CONNECTION, close).into();
    }
    refusal.into()
}

/// A listener in clear sends everybody to https.
fn redirect(snapshot: &Snapshot, exchange: &Exchange) -> Option<Halt> {
    let Clear::Redirect { status, port } = snapshot.server.clear else {
        return None;
    };
    if exchange.connection.tls.is_some() || exchange.scheme() == Scheme::Https {
        return None;
    }
    let safe = matches!(*exchange.method(), Method::GET | Method::HEAD);
    let status = if status == 301 && safe {
        StatusCode::MOVED_PERMANENTLY
    } else {
        StatusCode::PERMANENT_REDIRECT
    };
    let mut location = ["https://", exchange.authority().host()].concat();
    if port != 443 {
        location.push(':');
        location.push_str(itoa::Buffer::new().format(port));
    }
    location.push_str(exchange.target().path_and_query().as_str());
    let mut headers = HeaderMap::new();
    headers.insert(header::LOCATION, HeaderValue::from_str(&location).ok()?);
    Some(Halt::Reply(Box::new(Reply {
        stage: Stage::Route,
        status,
        headers,
        body: Bytes::new(),
    })))
}

/// A route and its number.
type Numbered<'a> = (RouteId, &'a Route);

/// The route of a request. A preflight is routed by the method that it asks for.
fn find<'a>(snapshot: &'a Snapshot, exchange: &mut Exchange) -> Result<Numbered<'a>, Halt> {
    if cors::is_preflight(exchange)
        && let Some(asked) = exchange
            .headers()
            .get(header::ACCESS_CONTROL_REQUEST_METHOD)
            .and_then(|value| Method::from_bytes(value.as_bytes()).ok())
        && let Ok(found) = look_up_folded(snapshot, exchange, &asked)
        && found.1.policies.cors.answers_preflights()
    {
        return fitting(found, exchange);
    }
    let method = exchange.method().clone();
    let found = look_up_folded(snapshot, exchange, &method)?;
    fitting(found, exchange)
}

/// The route by the path as its backend reads it.
fn look_up_folded<'a>(
    snapshot: &'a Snapshot,
    exchange: &mut Exchange,
    method: &Method,
) -> Result<Numbered<'a>, Halt> {
    let found = look_up(snapshot, exchange, method)?;
    if snapshot.folds_case && found.1.cluster.profile.case_insensitive() {
        // This backend reads `/ADMIN` as `/admin`, so it is judged as that.
        exchange.fold_case();
        return look_up(snapshot, exchange, method);
    }
    Ok(found)
}

fn look_up<'a>(
    snapshot: &'a Snapshot,
    exchange: &Exchange,
    method: &Method,
) -> Result<Numbered<'a>, Halt> {
    let unknown = || Halt::refuse(Stage::Route, Reason::RouteUnknown);
    match snapshot.router.find(
        exchange.authority().host(),
        exchange.target().judged(),
        method,
    ) {
        Found::Route(id) => {
            let route = snapshot.route(id).ok_or_else(unknown)?;
            Ok((id, route))
        }
        Found::OtherMethods(methods) => {
            let list: Vec<&str> = methods.iter().map(Method::as_str).collect();
            let refusal = Refusal::new(Stage::Route, Reason::MethodNotAllowed);
            Err(match HeaderValue::from_str(&list.join(", ")) {
                Ok(allow) => refusal.with(header::ALLOW, allow).into(),
                Err(_) => refusal.into(),
            })
        }
        Found::UnknownMethod => Err(Halt::refuse(Stage::Route, Reason::MethodUnknown)),
        Found::Nothing => Err(unknown()),
    }
}

/// Refuses a path that this route's backend would read in another way than it was judged.
fn fitting<'a>(found: Numbered<'a>, exchange: &Exchange) -> Result<Numbered<'a>, Halt> {
    found
        .1
        .cluster
        .profile
        .accepts(exchange.target().oddities())
        .map_err(|error| Refusal::new(Stage::Normalise, Reason::BadTarget).detail(error.code()))?;
    Ok(found)
}
