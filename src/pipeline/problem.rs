//! The answers that the proxy makes itself: problem details (RFC 9457), or a small page for people.
//!
//! For every refusal and failure. The text is fixed for each reason: no value of the request comes back in a body, and
//! nothing tells which check failed inside of a token. Security headers are added by the response halves later, but
//! for [`raw`], whose answer meets none.

use std::sync::Arc;

use bytes::Bytes;
use http::{
    HeaderName, Response, StatusCode,
    header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue},
};

use crate::{
    exchange::{Exchange, Scheme},
    policy::security_headers::{STRICT, STRICT_HSTS},
    wire::halt::{Reason, Refusal, Stage},
};

const JSON: HeaderValue = HeaderValue::from_static("application/problem+json");
const HTML: HeaderValue = HeaderValue::from_static("text/html; charset=utf-8");
const NO_STORE: HeaderValue = HeaderValue::from_static("no-store");

/// The registered type of an exceeded limit (draft-ietf-httpapi-ratelimit-headers).
const QUOTA_EXCEEDED: &str = "https://iana.org/assignments/http-problem-types#quota-exceeded";

/// The answer to a refused request.
pub fn render(refusal: &Refusal, exchange: &Exchange) -> Response<Bytes> {
    respond(refusal, &exchange.request_id, exchange.accept.as_ref())
}

fn respond(
    refusal: &Refusal,
    request_id: &HeaderValue,
    accept: Option<&HeaderValue>,
) -> Response<Bytes> {
    let (reason, status) = (refusal.reason, refusal.status_code());
    let (kind, body) = if accept.is_some_and(|accept| prefers_html(accept.as_bytes())) {
        let page = refusal.page.clone();
        let usual = || Bytes::from(page_of((reason, status), request_id.as_bytes()));
        (HTML, page.unwrap_or_else(usual))
    } else {
        let violated = &refusal.violated;
        (
            JSON,
            Bytes::from(json((reason, status), request_id.as_bytes(), violated)),
        )
    };
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let headers = response.headers_mut();
    // Room for what the response halves add, so that the map grows once.
    headers.reserve(16);
    headers.insert(CONTENT_TYPE, kind);
    headers.insert(CACHE_CONTROL, NO_STORE);
    for (name, value) in &refusal.headers {
        headers.append(name, value.clone());
    }
    response
}

/// The answer of the connection itself, when the exchange of the request is lost. It carries the headers of the
/// `strict` preset, as [`raw`] does.
pub fn lost(reason: Reason, request_id: &HeaderValue, scheme: Scheme) -> Response<Bytes> {
    let refusal = Refusal::new(Stage::Wire, reason);
    let mut response = respond(&refusal, request_id, None);
    let headers = response.headers_mut();
    let hsts = (scheme == Scheme::Https).then_some(("strict-transport-security", STRICT_HSTS));
    for (name, value) in STRICT
        .iter()
        .map(|(name, _, value)| (*name, *value))
        .chain(hsts)
    {
        headers.insert(
            HeaderName::from_static(name),
            HeaderValue::from_static(value),
        );
    }
    response
}

/// The same answer as the bytes of HTTP/1.1, for refusals made before HTTP is parsed: the connection closes after it.
/// It carries the headers of the `strict` preset, since no route is known.
pub fn raw(reason: Reason, request_id: &str, scheme: Scheme) -> Vec<u8> {
    let status = reason.status();
    let body = json((reason, status), request_id.as_bytes(), &[]);
    let length = itoa::Buffer::new().format(body.len()).to_owned();
    let mut out = Vec::with_capacity(1024 + body.len());
    push(
        &mut out,
        &[
            "HTTP/1.1 ",
            status.as_str(),
            " ",
            status.canonical_reason().unwrap_or_default(),
            "\r\n",
        ],
    );
    push(&mut out, &["date: ", &date(), "\r\n"]);
    push(
        &mut out,
        &[
            "content-type: application/problem+json\r\ncontent-length: ",
            &length,
            "\r\n",
        ],
    );
    push(
        &mut out,
        &["cache-control: no-store\r\nconnection: close\r\n"],
    );
    for (name, _, value) in STRICT {
        push(&mut out, &[name, ": ", value, "\r\n"]);
    }
    if scheme == Scheme::Https {
        push(
            &mut out,
            &["strict-transport-security: ", STRICT_HSTS, "\r\n"],
        );
    }
    out.extend_from_slice(b"\r\n");
    out.extend_from_slice(&body);
    out
}

fn json(
    (reason, status): (Reason, StatusCode),
    request_id: &[u8],
    violated: &[Arc<str>],
) -> Vec<u8> {
    let mut out = Vec::with_capacity(384);
    match reason {
        Reason::RateLimited => push(&mut out, &["{\"type\":\"", QUOTA_EXCEEDED]),
        _ => push(
            &mut out,
            &["{\"type\":\"urn:portcullis:problem:", reason.code()],
        ),
    }
    push(
        &mut out,
        &[
            "\",\"title\":\"",
            reason.title(),
            "\",\"status\":",
            status.as_str(),
        ],
    );
    push(
        &mut out,
        &[",\"detail\":\"", advice(reason), "\",\"instance\":\""],
    );
    push_json(&mut out, request_id);
    out.push(b'"');
    if !violated.is_empty() {
        let mut before = ",\"violated-policies\":[\"";
        for name in violated {
            out.extend_from_slice(before.as_bytes());
            push_json(&mut out, name.as_bytes());
            out.push(b'"');
            before = ",\"";
        }
        out.push(b']');
    }
    out.push(b'}');
    out
}

const PAGE_HEAD: &str = "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<title>";
const PAGE_STYLE: &str = "</title>\n<style>\n\
:root{color-scheme:light dark}\n\
body{font:1rem/1.5 system-ui,sans-serif;max-width:38rem;margin:12vh auto;padding:0 1.5rem}\n\
h1{font-size:1.5rem;line-height:1.25}\n\
dt{font-weight:600;margin-top:.75rem}\n\
dd{margin:0;overflow-wrap:anywhere}\n\
</style>\n</head>\n<body>\n<main>\n<h1>";

/// Without script, and with a style that the `strict` policy allows; readable where even that is blocked.
fn page_of((reason, status): (Reason, StatusCode), request_id: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(1024);
    push(
        &mut out,
        &[
            PAGE_HEAD,
            reason.title(),
            PAGE_STYLE,
            reason.title(),
            "</h1>\n<p>",
            advice(reason),
            "</p>\n",
        ],
    );
    push(
        &mut out,
        &["<dl>\n<dt>Status</dt><dd>", status.as_str(), "</dd>\n"],
    );
    push(
        &mut out,
        &[
            "<dt>Reason</dt><dd><code>",
            reason.code(),
            "</code></dd>\n<dt>Request</dt><dd><code>",
        ],
    );
    push_html(&mut out, request_id);
    push(
        &mut out,
        &["</code></dd>\n</dl>\n</main>\n</body>\n</html>\n"],
    );
    out
}

fn push(out: &mut Vec<u8>, parts: &[&str]) {
    for part in parts {
        out.extend_from_slice(part.as_bytes());
    }
}

/// The inside of a JSON string; what is not printable ASCII becomes `?`.
fn push_json(out: &mut Vec<u8>, text: &[u8]) {
    for byte in text {
        match byte {
            b'"' | b'\\' => out.extend_from_slice(&[b'\\', *byte]),
            b' '..=b'~' => out.push(*byte),
            _ => out.push(b'?'),
        }
    }
}

fn push_html(out: &mut Vec<u8>, text: &[u8]) {
    for byte in text {
        match byte {
            b'<' => out.extend_from_slice(b"&lt;"),
            b'&' => out.extend_from_slice(b"&amp;"),
            b' '..=b'~' => out.push(*byte),
            _ => out.push(b'?'),
        }
    }
}

/// What the client can do about it. It says nothing that the status does not say already.
#[expect(
    clippy::too_many_lines,
    reason = "a table: a line or two for each reason"
)]
const fn advice(reason: Reason) -> &'static str {
    match reason {
        Reason::MalformedHead
        | Reason::FramingConflict
        | Reason::BadChunk
        | Reason::EarlyTunnelBytes
        | Reason::BodyBroken
        | Reason::FrameFlood
        | Reason::ProtectedConnectionOption
        | Reason::VersionUnsupported => {
            "The client sent what no two servers need read the same way. Repair the client."
        }
        Reason::BadTarget => {
            "Send the path in its plain form, without encoded slashes, dots or control characters."
        }
        Reason::BadHost => "Send one Host field that names the site.",
        Reason::ForwardingConflict => "Forwarded and X-Forwarded-For must name the same client.",
        Reason::InvalidRequest => "Send one credential, in one place.",
        Reason::CredentialsMissing => "Send credentials with the request.",
        Reason::TokenInvalid | Reason::ApiKeyInvalid => {
            "Get new credentials and send the request again."
        }
        Reason::StepUpNeeded => "Sign in again as the WWW-Authenticate field says.",
        Reason::ProofInvalid => "Make a new proof for this very request.",
        Reason::ProofNonceMissing => "Make a new proof with the nonce of the DPoP-Nonce field.",
        Reason::SessionMissing => "Open the page that you came for once more.",
        Reason::SecondFactorNeeded => {
            "Open a page of this site first and show the second factor there; what was sent was not kept."
        }
        Reason::SecondFactorWrong => "Wait for the next code and type it in.",
        Reason::SecondFactorUnknown => "Ask the operator to enrol one.",
        Reason::FormInvalid => "Send the form as the page has it.",
        Reason::SignatureInvalid => {
            "Sign the request anew, as it is sent, with the right key and clock."
        }
        Reason::NetworkDenied => "Ask from a network that may use it.",
        Reason::OriginDenied | Reason::MethodDeniedForOrigin | Reason::HeaderDeniedForOrigin => {
            "The operator lists what other origins may do."
        }
        Reason::Csrf => "Open the page of this site and send it from there.",
        Reason::CertificateMissing => "Connect with a client certificate.",
        Reason::CertificateExpired | Reason::CertificateRevoked => {
            "Get a new certificate and connect with it."
        }
        Reason::CertificateUnknown
        | Reason::RoleMissing
        | Reason::PermissionMissing
        | Reason::ScopeMissing
        | Reason::ConditionFailed => "Ask the operator for access.",
        Reason::RouteUnknown => "Check the address.",
        Reason::MethodNotAllowed => "The Allow field lists the methods that are.",
        Reason::MethodUnknown => "Use a method of HTTP that servers support.",
        Reason::HeadTimeout | Reason::BodyTimeout => "Send the request again, without long pauses.",
        Reason::TunnelIdle | Reason::TunnelAge | Reason::TunnelBytes => "Open another one.",
        Reason::ProtocolUnknown => "Use a protocol that servers support.",
        Reason::BodyTooLarge => "Send less in one request.",
        Reason::TargetTooLong => "Send a shorter address.",
        Reason::HeadTooLarge => "Send fewer or shorter header fields, cookies included.",
        Reason::Misdirected => "Open a new connection for that host.",
        Reason::RateLimited | Reason::Banned | Reason::SecondFactorLimited => {
            "Wait as long as the Retry-After field says."
        }
        Reason::Internal => "Tell the operator the request identity below.",
        Reason::UpstreamUnreachable
        | Reason::UpstreamBroken
        | Reason::UpstreamTimeout
        | Reason::UpstreamError => "Try again later. If it lasts, tell the operator.",
        Reason::BreakerOpen
        | Reason::KeysUnavailable
        | Reason::IntrospectionUnavailable
        | Reason::SecondFactorUnavailable
        | Reason::Overloaded => "Try again in a moment.",
    }
}

/// Whether the client would rather have a page: its quality for HTML is above that for JSON (RFC 9110 §12.5.1).
fn prefers_html(accept: &[u8]) -> bool {
    let mut html = Weight::default();
    let mut json = Weight::default();
    for item in accept.split(|byte| *byte == b',') {
        let mut parts = item.split(|byte| *byte == b';').map(<[u8]>::trim_ascii);
        let range = parts.next().unwrap_or_default();
        let quality = parts.find_map(quality).unwrap_or(1000);
        let is = |name: &str| range.eq_ignore_ascii_case(name.as_bytes());
        if is("text/html") {
            html.offer(3, quality);
        } else if is("application/json") || is("application/problem+json") {
            json.offer(3, quality);
        } else if is("text/*") {
            html.offer(2, quality);
        } else if is("application/*") {
            json.offer(2, quality);
        } else if is("*/*") {
            html.offer(1, quality);
            json.offer(1, quality);
        }
    }
    html.quality > json.quality
}

/// The quality of a media type in thousandths, by the most precise range that takes it.
#[derive(Default)]
struct Weight {
    precision: u8,
    quality: u16,
}

impl Weight {
    fn offer(&mut self, precision: u8, quality: u16) {
        if precision > self.precision {
            *self = Self { precision, quality };
        } else if precision == self.precision {
            self.quality = self.quality.max(quality);
        }
    }
}

/// `q=0.8` as 800; anything else that starts with `q=` as 0.
fn quality(parameter: &[u8]) -> Option<u16> {
    let value = parameter
        .strip_prefix(b"q=")
        .or_else(|| parameter.strip_prefix(b"Q="))?;
    let (whole, fraction) = match value {
        [whole] => (*whole, [].as_slice()),
        [whole, b'.', fraction @ ..] if fraction.len() <= 3 => (*whole, fraction),
        _ => return Some(0),
    };
    let digit = |byte: u8| u16::from(byte.wrapping_sub(b'0'));
    if !matches!(whole, b'0' | b'1') || !fraction.iter().all(u8::is_ascii_digit) {
        return Some(0);
    }
    let scales = [100, 10, 1];
    let thousandths: u16 = fraction
        .iter()
        .zip(scales)
        .map(|(byte, scale)| digit(*byte) * scale)
        .sum();
    Some((digit(whole) * 1000 + thousandths).min(1000))
}

/// `Sun, 06 Nov 1994 08:49:37 GMT` (RFC 9110 §5.6.7).
fn date() -> String {
    let now = time::OffsetDateTime::now_utc();
    format!(
        "{:.3}, {:02} {:.3} {:04} {:02}:{:02}:{:02} GMT",
        now.weekday().to_string(),
        now.day(),
        now.month().to_string(),
        now.year(),
        now.hour(),
        now.minute(),
        now.second()
    )
}

#[cfg(test)]
mod tests {
    use http::{HeaderValue, header};

    use super::{prefers_html, raw, respond};
    use crate::{
        exchange::Scheme,
        wire::halt::{Reason, Refusal, Stage},
    };

    const ID: HeaderValue = HeaderValue::from_static("7f00\"<&1");

    fn body(response: &http::Response<bytes::Bytes>) -> &str {
        std::str::from_utf8(response.body()).unwrap()
    }

    #[test]
    fn an_answer_without_an_exchange_carries_reason_and_headers_all_the_same() {
        let id = HeaderValue::from_static("0123");
        for (scheme, hsts) in [(Scheme::Https, 1), (Scheme::Http, 0)] {
            let answer = super::lost(Reason::Internal, &id, scheme);
            assert_eq!(answer.status(), 500);
            assert_eq!(answer.headers()["content-type"], "application/problem+json");
            assert_eq!(answer.headers()["cache-control"], "no-store");
            assert_eq!(answer.headers()["x-content-type-options"], "nosniff");
            assert!(answer.headers().contains_key("content-security-policy"));
            let stated = answer.headers().get_all("strict-transport-security").iter();
            assert_eq!(stated.count(), hsts);
            let words = std::str::from_utf8(answer.body()).unwrap();
            assert!(words.contains("urn:portcullis:problem:internal") && words.contains("0123"));
        }
    }

    #[test]
    fn every_reason_is_a_problem() {
        for reason in Reason::ALL {
            let response = respond(&Refusal::new(Stage::Wire, *reason), &ID, None);
            assert_eq!(response.status(), reason.status());
            assert_eq!(
                response.headers()[header::CONTENT_TYPE],
                "application/problem+json"
            );
            assert_eq!(response.headers()[header::CACHE_CONTROL], "no-store");
            let problem: serde_json::Value = serde_json::from_str(body(&response)).unwrap();
            assert_eq!(problem["status"], reason.status().as_u16());
            assert_eq!(problem["title"], reason.title());
            assert_eq!(problem["instance"], "7f00\"<&1");
            assert!(problem["detail"].as_str().unwrap().ends_with('.'));
            if *reason != Reason::RateLimited {
                assert_eq!(
                    problem["type"],
                    format!("urn:portcullis:problem:{}", reason.code())
                );
            }
        }
    }

    #[test]
    fn b45_an_exceeded_limit_has_its_registered_type_and_names_the_limits() {
        let mut refusal = Refusal::new(Stage::RateLimit, Reason::RateLimited)
            .with(header::RETRY_AFTER, HeaderValue::from_static("3"));
        refusal.violated = vec!["default".into(), "b\"d".into()];
        let response = respond(&refusal, &ID, None);
        assert_eq!(response.headers()[header::RETRY_AFTER], "3");
        let problem: serde_json::Value = serde_json::from_str(body(&response)).unwrap();
        assert_eq!(problem["type"], super::QUOTA_EXCEEDED);
        assert_eq!(
            problem["violated-policies"],
            serde_json::json!(["default", "b\"d"])
        );
    }

    #[test]
    fn people_get_a_page_without_script() {
        let accept = HeaderValue::from_static(
            "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",
        );
        let response = respond(
            &Refusal::new(Stage::Route, Reason::RouteUnknown),
            &ID,
            Some(&accept),
        );
        assert_eq!(
            response.headers()[header::CONTENT_TYPE],
            "text/html; charset=utf-8"
        );
        let page = body(&response);
        assert!(
            page.contains("<code>route-unknown</code>")
                && page.contains("<code>7f00\"&lt;&amp;1</code>")
        );
        assert!(!page.contains("<script") && !page.contains(" on") && !page.contains(" style="));
    }

    #[test]
    fn accept_is_read_by_quality_and_precision() {
        for (accept, html) in [
            ("text/html", true),
            ("*/*", false),
            ("", false),
            ("text/html, application/json", false),
            ("text/html;q=0.5, application/json;q=0.4", true),
            ("text/html;q=0.5, application/json", false),
            ("application/problem+json, text/html;q=0.9", false),
            ("text/*, application/*;q=0.1", true),
            ("*/*, text/html;q=0", false),
            ("text/html;level=1;q=1.000", true),
            ("text/html;q=x", false),
            ("text/html;q=0.1234", false),
            ("TEXT/HTML ; Q=0.3 , */*;q=0.2", true),
        ] {
            assert_eq!(prefers_html(accept.as_bytes()), html, "{accept}");
        }
    }

    #[test]
    fn raw_bytes_are_the_same_answer_with_the_strict_headers() {
        let bytes = raw(Reason::FramingConflict, "id", Scheme::Https);
        let mut fields = [httparse::EMPTY_HEADER; 32];
        let mut parsed = httparse::Response::new(&mut fields);
        let head = parsed.parse(&bytes).unwrap().unwrap();
        assert_eq!(
            (parsed.code, parsed.reason),
            (Some(400), Some("Bad Request"))
        );
        let field = |name: &str| {
            let found: Vec<_> = parsed
                .headers
                .iter()
                .filter(|field| field.name == name)
                .collect();
            assert_eq!(found.len(), 1, "{name}");
            std::str::from_utf8(found[0].value).unwrap().to_owned()
        };
        assert_eq!(field("content-length"), (bytes.len() - head).to_string());
        assert_eq!(field("connection"), "close");
        assert_eq!(field("x-frame-options"), "DENY");
        assert_eq!(field("strict-transport-security"), super::STRICT_HSTS);
        assert!(field("date").ends_with(" GMT") && field("date").len() == 29);
        let response = respond(
            &Refusal::new(Stage::Wire, Reason::FramingConflict),
            &HeaderValue::from_static("id"),
            None,
        );
        assert_eq!(response.body(), &bytes[head..]);
        let clear = raw(Reason::FramingConflict, "id", Scheme::Http);
        assert!(
            !String::from_utf8(clear)
                .unwrap()
                .contains("strict-transport")
        );
    }
}
