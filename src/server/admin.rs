//! The admin listener: `/livez`, `/readyz`, `/metrics`, and the keys that check what backends are told. On a thread of its own, so that it answers under load.

use std::{net::SocketAddr, pin::pin, sync::Arc};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header, header::HeaderValue};
use http_body_util::Full;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use subtle::ConstantTimeEq;

use super::{
    shutdown::Shutdown,
    worker::{ACCEPT_REST, Entrance, Stream},
};
use crate::{
    crypto::secret::Secret, observe::metrics::CONTENT_TYPE, snapshot::survivors::Survivors,
};

const HEAD_TIME: std::time::Duration = std::time::Duration::from_secs(5);
/// Scrapers and probes need few connections.
const CONNECTIONS: usize = 64;

/// What the admin listener answers from.
#[derive(Debug)]
pub struct Admin {
    /// Counters and key sets.
    pub survivors: Arc<Survivors>,
    /// What opens it, when set.
    pub token: Option<Secret>,
    /// Says when the proxy is stopping: it is alive then, and not ready.
    pub shutdown: Shutdown,
}

/// Serves until the runtime ends, or until another process answers on the same socket.
pub async fn run(entrance: Entrance, admin: Arc<Admin>) {
    let room = Arc::new(tokio::sync::Semaphore::new(CONNECTIONS));
    let mut stopping = admin.shutdown.clone();
    let mut handed_over = pin!(stopping.handed_over());
    loop {
        tokio::select! {
            biased;
            () = &mut handed_over => return,
            () = admit(&entrance, &room, &admin) => {}
        }
    }
}

/// Lets one connection in, once there is room for it.
async fn admit(entrance: &Entrance, room: &Arc<tokio::sync::Semaphore>, admin: &Arc<Admin>) {
    let Ok(permit) = Arc::clone(room).acquire_owned().await else {
        return;
    };
    let admin = Arc::clone(admin);
    match entrance.accept().await {
        Ok((Stream::Tcp(stream), peer)) => {
            tokio::spawn(async move {
                serve(stream, admin, Some(peer)).await;
                drop(permit);
            });
        }
        Ok((Stream::Unix(stream), _)) => {
            tokio::spawn(async move {
                serve(stream, admin, None).await;
                drop(permit);
            });
        }
        Err(error) => {
            tracing::warn!(%error, "accept failed on the admin listener");
            tokio::time::sleep(ACCEPT_REST).await;
        }
    }
}

async fn serve<S>(stream: S, admin: Arc<Admin>, peer: Option<SocketAddr>)
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    let service = service_fn(move |request: Request<Incoming>| {
        let mut answer = answer(&admin, &request);
        if admin.shutdown.is_handed_over() {
            // The next question is for the process that serves.
            let close = HeaderValue::from_static("close");
            answer.headers_mut().insert(header::CONNECTION, close);
        }
        async move { Ok::<_, std::convert::Infallible>(answer) }
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIME)
        .serve_connection(TokioIo::new(stream), service)
        .await;
    if let Err(error) = served {
        tracing::debug!(?peer, %error, "admin connection ended");
    }
}

fn answer(admin: &Admin, request: &Request<Incoming>) -> Response<Full<Bytes>> {
    if !is_allowed(admin, request) {
        let mut refused = words(StatusCode::UNAUTHORIZED, "unauthorised\n");
        refused.headers_mut().insert(
            header::WWW_AUTHENTICATE,
            HeaderValue::from_static("Bearer realm=\"admin\""),
        );
        return refused;
    }
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        return words(StatusCode::METHOD_NOT_ALLOWED, "only GET\n");
    }
    match request.uri().path() {
        "/livez" => words(StatusCode::OK, "ok\n"),
        "/readyz" => readiness(admin),
        "/metrics" => {
            let mut metrics = Response::new(Full::from(admin.survivors.metrics.render()));
            metrics
                .headers_mut()
                .insert(header::CONTENT_TYPE, HeaderValue::from_static(CONTENT_TYPE));
            metrics
        }
        "/.well-known/jwks.json" => published_keys(admin),
        _ => words(
            StatusCode::NOT_FOUND,
            "there is /livez, /readyz and /metrics\n",
        ),
    }
}

/// RFC 7517 §8.5. Fresh for a minute: a key that is not in it yet is a reason to ask again.
fn published_keys(admin: &Admin) -> Response<Full<Bytes>> {
    let Some(keys) = admin.survivors.statement_keys.published() else {
        return words(StatusCode::NOT_FOUND, "nothing is signed: no [identity]\n");
    };
    let mut answer = Response::new(Full::from(keys));
    for (name, value) in [
        (header::CONTENT_TYPE, "application/jwk-set+json"),
        (header::CACHE_CONTROL, "max-age=60"),
    ] {
        answer
            .headers_mut()
            .insert(name, HeaderValue::from_static(value));
    }
    answer
}

fn readiness(admin: &Admin) -> Response<Full<Bytes>> {
    if admin.shutdown.has_begun() {
        words(StatusCode::SERVICE_UNAVAILABLE, "draining\n")
    } else if !admin.survivors.issuers.are_ready() {
        words(
            StatusCode::SERVICE_UNAVAILABLE,
            "no keys of an issuer yet\n",
        )
    } else {
        words(StatusCode::OK, "ready\n")
    }
}

/// Compared in constant time: the answer must not say how much of a guess was right.
fn is_allowed(admin: &Admin, request: &Request<Incoming>) -> bool {
    let Some(token) = &admin.token else {
        return true;
    };
    request
        .headers()
        .get(header::AUTHORIZATION)
        .and_then(|value| value.as_bytes().strip_prefix(b"Bearer "))
        .is_some_and(|given| bool::from(given.ct_eq(token.expose())))
}

fn words(status: StatusCode, text: &'static str) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(text));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response.headers_mut().insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("text/plain; charset=utf-8"),
    );
    response
}
