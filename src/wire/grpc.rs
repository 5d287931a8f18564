//! What a status of HTTP is to a gRPC call: its own status code and message (gRPC over HTTP/2, "Responses").
//!
//! For refusals, which a gRPC client reads out of `grpc-status` alone. A client that finds none derives one from the
//! status of HTTP, and takes a rate limit for a server that is down. It frames no messages.

use std::fmt::Write;

use http::{
    HeaderMap, HeaderName, StatusCode,
    header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderValue},
};

const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
const GRPC_MESSAGE: HeaderName = HeaderName::from_static("grpc-message");

/// Makes a head say that the call has ended, in the form that has no body and no further trailers; the fields that it
/// has already stay as metadata. The status of such an answer is 200.
pub fn end_call(headers: &mut HeaderMap, refused: StatusCode, message: &str) {
    headers.remove(CONTENT_LENGTH);
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    headers.insert(GRPC_STATUS, HeaderValue::from(code_of(refused)));
    if let Ok(message) = HeaderValue::from_str(&escaped(message)) {
        headers.insert(GRPC_MESSAGE, message);
    }
}

/// The code for an error of HTTP. It follows the mapping that clients use by themselves ("HTTP to gRPC Status Code
/// Mapping"), but where gRPC has a code that says more.
fn code_of(status: StatusCode) -> u16 {
    match status {
        // INTERNAL: client and gate do not agree on the protocol, or the gate failed.
        StatusCode::BAD_REQUEST
        | StatusCode::UNSUPPORTED_MEDIA_TYPE
        | StatusCode::INTERNAL_SERVER_ERROR
        | StatusCode::HTTP_VERSION_NOT_SUPPORTED => 13,
        // UNAUTHENTICATED, PERMISSION_DENIED.
        StatusCode::UNAUTHORIZED => 16,
        StatusCode::FORBIDDEN => 7,
        // UNIMPLEMENTED.
        StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED | StatusCode::NOT_IMPLEMENTED => 12,
        // DEADLINE_EXCEEDED.
        StatusCode::REQUEST_TIMEOUT | StatusCode::GATEWAY_TIMEOUT => 4,
        // RESOURCE_EXHAUSTED: a limit of rate or size.
        StatusCode::TOO_MANY_REQUESTS
        | StatusCode::PAYLOAD_TOO_LARGE
        | StatusCode::URI_TOO_LONG
        | StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE => 8,
        // UNAVAILABLE.
        StatusCode::MISDIRECTED_REQUEST
        | StatusCode::BAD_GATEWAY
        | StatusCode::SERVICE_UNAVAILABLE => 14,
        // INVALID_ARGUMENT, FAILED_PRECONDITION, ABORTED.
        StatusCode::UNPROCESSABLE_ENTITY => 3,
        StatusCode::PRECONDITION_FAILED | StatusCode::PRECONDITION_REQUIRED => 9,
        StatusCode::CONFLICT => 10,
        // UNKNOWN.
        _ => 2,
    }
}

/// Printable ASCII as it is, anything else and `%` as `%XX`.
fn escaped(message: &str) -> String {
    let mut text = String::with_capacity(message.len());
    for byte in message.bytes() {
        match byte {
            b' '..=b'$' | b'&'..=b'~' => text.push(char::from(byte)),
            _ => {
                let _ = write!(text, "%{byte:02X}");
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::halt::Reason;

    #[test]
    fn every_reason_has_a_code_that_is_no_success() {
        for reason in Reason::ALL {
            let mut headers = HeaderMap::new();
            headers.insert(
                CONTENT_TYPE,
                HeaderValue::from_static("application/problem+json"),
            );
            headers.insert(CONTENT_LENGTH, HeaderValue::from_static("12"));
            end_call(&mut headers, reason.status(), reason.title());
            let code: u16 = headers[GRPC_STATUS].to_str().unwrap().parse().unwrap();
            assert!((1..=16).contains(&code), "{}", reason.code());
            // UNKNOWN tells nobody anything: a new status wants a code.
            assert_ne!(code, 2, "{}", reason.code());
            assert_eq!(headers[CONTENT_TYPE], "application/grpc");
            assert!(!headers.contains_key(CONTENT_LENGTH));
        }
        let code = |reason: Reason| code_of(reason.status());
        assert_eq!(code(Reason::TokenInvalid), 16);
        assert_eq!(code(Reason::RoleMissing), 7);
        assert_eq!(code(Reason::RateLimited), 8);
        assert_eq!(code(Reason::RouteUnknown), 12);
        assert_eq!(code(Reason::Overloaded), 14);
        assert_eq!(code(Reason::UpstreamTimeout), 4);
    }

    #[test]
    fn a_message_cannot_break_its_line() {
        assert_eq!(escaped("a b~!"), "a b~!");
        assert_eq!(escaped("100 % \u{e4}\r\n"), "100 %25 %C3%A4%0D%0A");
    }
}
