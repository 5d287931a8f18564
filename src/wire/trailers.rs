//! Trailer fields: which may follow a body (RFC 9110 §6.5.1), and for whom they are passed on.
//!
//! For the bodies of both directions. A trailer comes after every decision was made, and some receivers fold it into the
//! head; so a name that a guard, a cache, a browser or the framing goes by must not stand there. Trailers are passed on
//! for gRPC alone, which tells the outcome of a call in them; those of any other message are dropped.

use http::{HeaderMap, HeaderName, HeaderValue, header::CONTENT_TYPE};

use super::{hop, names::reserved};

/// What becomes of the trailers of a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trailers {
    /// They are dropped.
    Drop,
    /// They are passed on, but for names that may not stand there.
    Pass,
}

/// The trailers of a request have too many bytes or fields; the cause of the error that ends its body.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("the trailers are too large")]
pub struct Overlong;

/// Takes out whatever may not stand in trailers; a pseudo field cannot even be held.
pub fn purge(trailers: &mut HeaderMap) {
    if !trailers.keys().any(is_forbidden) {
        return;
    }
    let doomed: Vec<HeaderName> = trailers
        .keys()
        .filter(|name| is_forbidden(name))
        .cloned()
        .collect();
    for name in &doomed {
        trailers.remove(name);
    }
}

/// Whether a message is of gRPC: `application/grpc`, alone or with a format (`+proto`) or a parameter.
pub fn is_grpc(headers: &HeaderMap) -> bool {
    let kind = headers.get(CONTENT_TYPE).map(HeaderValue::as_bytes);
    let rest = kind.and_then(|kind| {
        let (start, rest) = kind.split_at_checked(b"application/grpc".len())?;
        start
            .eq_ignore_ascii_case(b"application/grpc")
            .then_some(rest)
    });
    rest.is_some_and(|rest| matches!(rest.first(), None | Some(b'+' | b';' | b' ')))
}

/// Starts of names that decide over framing, credentials, content, caching or a browser's guards.
static STARTS: [&str; 17] = [
    "access-control-",
    "authorization",
    "cache-",
    "content-",
    "cookie",
    "cross-origin-",
    "forwarded",
    "if-",
    "proxy-",
    "sec-",
    "set-cookie",
    "signature",
    "transfer-",
    "www-authenticate",
    "x-aspnet",
    "x-forwarded-",
    "x-frame-",
];

/// Whole names of the same kind.
static NAMES: [&str; 36] = [
    "age",
    "alt-svc",
    "authentication-info",
    "clear-site-data",
    "date",
    "dpop",
    "expect",
    "expires",
    "host",
    "http2-settings",
    "link",
    "location",
    "max-forwards",
    "nel",
    "origin",
    "permissions-policy",
    "pragma",
    "priority",
    "range",
    "referrer-policy",
    "refresh",
    "report-to",
    "reporting-endpoints",
    "retry-after",
    "server",
    "strict-transport-security",
    "traceparent",
    "tracestate",
    "vary",
    "via",
    "x-api-key",
    "x-content-type-options",
    "x-generator",
    "x-powered-by",
    "x-runtime",
    "x-xss-protection",
];

/// Names that decide over framing, routing, identity, credentials, caching, content or a browser's guards, with `-` in
/// place of every sign, since gateways read `x_user` as `x-user`.
fn is_forbidden(name: &HeaderName) -> bool {
    if reserved(name) || hop::is_of_one_hop(name) {
        return true;
    }
    let folded: String = name
        .as_str()
        .chars()
        .map(|sign| {
            if sign.is_ascii_alphanumeric() {
                sign
            } else {
                '-'
            }
        })
        .collect();
    NAMES.contains(&folded.as_str()) || STARTS.iter().any(|start| folded.starts_with(start))
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, HeaderName, HeaderValue, header::CONTENT_TYPE};

    use super::{is_grpc, purge};

    #[test]
    fn a34_names_that_decide_are_taken_out() {
        for name in [
            "X-User",
            "x_user",
            "DPoP",
            "Signature-Input",
            "tracestate",
            "X-Api-Key",
            "X-Powered-By",
            "X-AspNetMvc-Version",
            "x-auth-subject",
            "X-Forwarded-For",
            "Authorization",
            "Cookie",
            "Set-Cookie",
            "set_cookie",
            "Content-Length",
            "Content-Type",
            "Transfer-Encoding",
            "Trailer",
            "TE",
            "Connection",
            "Upgrade",
            "Host",
            "Proxy-Authenticate",
            "WWW-Authenticate",
            "Location",
            "Cache-Control",
            "Strict-Transport-Security",
            "Content-Security-Policy",
            "Access-Control-Allow-Origin",
            "Sec-Fetch-Site",
            "Expect",
        ] {
            let mut trailers = HeaderMap::new();
            let hostile = HeaderName::from_bytes(name.as_bytes()).expect("a header name");
            trailers.append(&hostile, HeaderValue::from_static("a"));
            trailers.append(&hostile, HeaderValue::from_static("b"));
            trailers.insert("grpc-status", HeaderValue::from_static("0"));
            purge(&mut trailers);
            assert_eq!(trailers.len(), 1, "{name} stays");
        }
    }

    #[test]
    fn the_outcome_of_a_call_and_its_metadata_stay() {
        let mut trailers = HeaderMap::new();
        for name in [
            "grpc-status",
            "grpc-message",
            "grpc-status-details-bin",
            "x-checksum",
            "my-data-bin",
        ] {
            trailers.insert(name, HeaderValue::from_static("1"));
        }
        purge(&mut trailers);
        assert_eq!(trailers.len(), 5);
    }

    #[test]
    fn grpc_is_told_by_its_media_type() {
        for (kind, expected) in [
            ("application/grpc", true),
            ("Application/gRPC+proto", true),
            ("application/grpc; charset=utf-8", true),
            ("application/grpc-web", false),
            ("application/grpcx", false),
            ("text/plain", false),
            ("", false),
        ] {
            let mut headers = HeaderMap::new();
            assert!(!is_grpc(&headers));
            headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
            assert_eq!(is_grpc(&headers), expected, "{kind}");
        }
    }
}
