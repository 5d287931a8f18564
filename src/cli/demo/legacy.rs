//! The demo's backend: everything that an old application does wrong, on purpose. It listens on loopback only.
//!
//! No security header, an inline script, cookies without attributes, `Access-Control-Allow-Origin: *`, its version in
//! `Server` and `X-Powered-By`, a stack trace on /crash, and no question about who is asking, even on /admin.

use std::{convert::Infallible, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, StatusCode, header, header::HeaderValue};
use http_body_util::{BodyExt, Full};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use serde_json::json;
use tokio::net::TcpListener;

const PAGE: &str = include_str!("page.html");
const SCRIPT: &str = include_str!("app.js");
const TRACE: &str = "Traceback (most recent call last):\n  File \"/srv/legacy/app.py\", line 42, in crash\n    \
    connect(user=\"root\", host=\"db.internal\")\nOperationalError: could not connect\n";
const HTML: &str = "text/html; charset=utf-8";
const JSON: &str = "application/json";
const TEXT: &str = "text/plain; charset=utf-8";
const LONG: Duration = Duration::from_secs(5);

/// Serves until the runtime ends.
pub(super) async fn serve(listener: TcpListener) {
    while let Ok((stream, _)) = listener.accept().await {
        tokio::spawn(async move {
            let service =
                service_fn(|request| async { Ok::<_, Infallible>(answer(request).await) });
            // A client that goes away is no news here.
            let _ = http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service)
                .await;
        });
    }
}

async fn answer(request: Request<Incoming>) -> Response<Full<Bytes>> {
    let (head, body) = request.into_parts();
    let mut answer = match head.uri.path() {
        "/" => page(),
        "/app.js" => content(StatusCode::OK, "text/javascript", SCRIPT),
        "/status.json" => content(StatusCode::OK, JSON, r#"{"status":"fine"}"#),
        "/search" => content(StatusCode::OK, JSON, r#"{"found":[]}"#),
        "/crash" => content(StatusCode::INTERNAL_SERVER_ERROR, TEXT, TRACE),
        "/slow" => {
            tokio::time::sleep(LONG).await;
            content(StatusCode::OK, TEXT, "done at last\n")
        }
        "/upload" => {
            let size = body.collect().await.map_or(0, |body| body.to_bytes().len());
            content(StatusCode::OK, JSON, json!({ "size": size }).to_string())
        }
        "/admin" => content(StatusCode::OK, HTML, "<h1>Administration</h1>\n"),
        path if path.starts_with("/api/") => api(&head.method, path, &head.headers),
        _ => content(StatusCode::NOT_FOUND, TEXT, "not found\n"),
    };
    weaken(answer.headers_mut());
    answer
}

fn page() -> Response<Full<Bytes>> {
    let mut page = content(StatusCode::OK, HTML, PAGE);
    for cookie in ["session=c2VjcmV0; Path=/", "XSRF-TOKEN=for-scripts; Path=/"] {
        page.headers_mut()
            .append(header::SET_COOKIE, HeaderValue::from_static(cookie));
    }
    page
}

/// It believes what the headers say about the caller, as backends behind a gateway do.
fn api(method: &Method, path: &str, headers: &HeaderMap) -> Response<Full<Bytes>> {
    let said = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let account = json!({
        "did": format!("{method} {path}"),
        "for": said("x-auth-subject"),
        "roles": said("x-auth-roles"),
    });
    content(StatusCode::OK, JSON, account.to_string())
}

fn content(
    status: StatusCode,
    kind: &'static str,
    body: impl Into<Bytes>,
) -> Response<Full<Bytes>> {
    let mut answer = Response::new(Full::new(body.into()));
    *answer.status_mut() = status;
    answer
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    answer
}

fn weaken(headers: &mut HeaderMap) {
    for (name, value) in [
        ("server", "LegacyServer/1.4.2"),
        ("x-powered-by", "Legacy/7.1"),
        ("access-control-allow-origin", "*"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
}
