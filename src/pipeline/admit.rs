//! From a normal request to an [`Admitted`] one: the redirect to https, the route, the policies.

use std::sync::Arc;

use http::{HeaderMap, Method, StatusCode, header, header::HeaderValue};

use super::record::Recording;
use crate::{
    exchange::{Exchange, Scheme},
    policy::{self, cors},
    snapshot::{Route, Snapshot, router::Found, server::Clear},
    wire::halt::{Halt, Reason, Refusal, Reply, Stage},
};

/// A request that every policy let in. Only this module can make one, and forwarding takes nothing else, so
/// skipping a guard does not compile.
#[derive(Debug)]
pub struct Admitted {
    route: Arc<Route>,
}

impl Admitted {
    /// The route that let it in.
    pub fn route(&self) -> &Arc<Route> {
        &self.route
    }

    /// The route, for the one who forwards.
    pub fn into_route(self) -> Arc<Route> {
        self.route
    }
}

/// Judges a request.
///
/// # Errors
/// The halt of the first stage that does not let it pass.
pub async fn admit(snapshot: &Snapshot, recording: &mut Recording) -> Result<Admitted, Halt> {
    let record = &mut **recording;
    judge(snapshot, &mut record.exchange, &mut record.route).await
}

/// The same without a record, for `explain`; `met` is the route, once found, whatever its policies say.
///
/// # Errors
/// The halt of the first stage that does not let it pass.
pub async fn judge(
    snapshot: &Snapshot,
    exchange: &mut Exchange,
    met: &mut Option<Arc<Route>>,
) -> Result<Admitted, Halt> {
    if let Some(reply) = redirect(snapshot, exchange) {
        policy::admit_unrouted(&snapshot.unrouted, exchange)?;
        exchange.note(Stage::Route, || "in clear: sent to https".to_owned());
        return Err(reply);
    }
    let route = match find(snapshot, exchange) {
        Ok(route) => Arc::clone(route),
        Err(halt) => {
            // Scans must cost something: unknown paths are judged by the defaults before they are called unknown.
            policy::admit_unrouted(&snapshot.unrouted, exchange)?;
            return Err(halt);
        }
    };
    exchange.route = Some(Arc::clone(&route.facts));
    exchange.note(Stage::Route, || {
        format!(
            "route `{}` of blueprint `{}` ({})",
            route.facts.route, route.facts.blueprint, route.told.place
        )
    });
    *met = Some(Arc::clone(&route));
    policy::admit(&route.policies, exchange).await?;
    Ok(Admitted { route })
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
    })))
}

/// The route of a request. A preflight is routed by the method that it asks for.
fn find<'a>(snapshot: &'a Snapshot, exchange: &mut Exchange) -> Result<&'a Arc<Route>, Halt> {
    if cors::is_preflight(exchange)
        && let Some(asked) = exchange
            .headers()
            .get(header::ACCESS_CONTROL_REQUEST_METHOD)
            .and_then(|value| Method::from_bytes(value.as_bytes()).ok())
        && let Ok(route) = look_up_folded(snapshot, exchange, &asked)
        && route.policies.cors.answers_preflights()
    {
        return fitting(route, exchange);
    }
    let method = exchange.method().clone();
    let route = look_up_folded(snapshot, exchange, &method)?;
    fitting(route, exchange)
}

/// The route by the path as its backend reads it.
fn look_up_folded<'a>(
    snapshot: &'a Snapshot,
    exchange: &mut Exchange,
    method: &Method,
) -> Result<&'a Arc<Route>, Halt> {
    let route = look_up(snapshot, exchange, method)?;
    if snapshot.folds_case && route.cluster.profile.case_insensitive() {
        // This backend reads `/ADMIN` as `/admin`, so it is judged as that.
        exchange.fold_case();
        return look_up(snapshot, exchange, method);
    }
    Ok(route)
}

fn look_up<'a>(
    snapshot: &'a Snapshot,
    exchange: &Exchange,
    method: &Method,
) -> Result<&'a Arc<Route>, Halt> {
    let unknown = || Halt::refuse(Stage::Route, Reason::RouteUnknown);
    match snapshot.router.find(
        exchange.authority().host(),
        exchange.target().judged(),
        method,
    ) {
        Found::Route(id) => snapshot.route(id).ok_or_else(unknown),
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
fn fitting<'a>(route: &'a Arc<Route>, exchange: &Exchange) -> Result<&'a Arc<Route>, Halt> {
    route
        .cluster
        .profile
        .accepts(exchange.target().oddities())
        .map_err(|error| Refusal::new(Stage::Normalise, Reason::BadTarget).detail(error.code()))?;
    Ok(route)
}
