//! Header names that a client may never hand to a backend.
//!
//! Identity, forwarding, override and original-URL headers are believed by many backends, so every client copy is
//! removed before ours are set, on public routes too. Gateways that hand headers on as environment variables (CGI,
//! WSGI, PHP, ASP) turn every sign into `_`, so `X_User`, `X.User` and `X-User` are one name to them; names are
//! therefore compared with all signs folded to `-`. It does not know which names a file adds.

use http::HeaderMap;
use http::header::HeaderName;

/// Longer than any listed name: what stands behind it can no longer decide.
const WINDOW: usize = 40;

/// One rule about names, written with `-` for every sign.
#[derive(Clone, Copy)]
enum Rule {
    /// This very name.
    Is(&'static str),
    /// Every name that starts so.
    Starts(&'static str),
}

use Rule::{Is, Starts};

/// Whether a client's header of this name must not reach a backend.
///
/// Most names are dismissed by their first letter; none costs an allocation.
pub fn reserved(name: &HeaderName) -> bool {
    let name = name.as_str().as_bytes();
    let rules = match name {
        [b'x', _, third, ..] => rules_of_x(*third),
        [first, ..] => rules_of(*first),
        [] => return false,
    };
    if rules.is_empty() {
        return false;
    }
    let mut buffer = [0u8; WINDOW];
    let mut signs = false;
    for (to, &from) in buffer.iter_mut().zip(name) {
        *to = if from.is_ascii_alphanumeric() {
            from
        } else {
            signs |= from != b'-';
            b'-'
        };
    }
    let folded = buffer.get(..name.len()).unwrap_or(&buffer);
    rules.iter().any(|rule| rule.holds(folded)) || (signs && twin(folded))
}

/// Removes every [`reserved`] name from a client's headers; says how many names were there.
///
/// One pass and no allocation when there is none.
pub fn strip_reserved(headers: &mut HeaderMap) -> usize {
    if !headers.keys().any(reserved) {
        return 0;
    }
    let doomed: Vec<HeaderName> = headers
        .keys()
        .filter(|name| reserved(name))
        .cloned()
        .collect();
    for name in &doomed {
        headers.remove(name);
    }
    doomed.len()
}

impl Rule {
    fn holds(self, folded: &[u8]) -> bool {
        match self {
            Is(name) => folded == name.as_bytes(),
            Starts(prefix) => folded.starts_with(prefix.as_bytes()),
        }
    }
}

/// Whether a name with other signs than `-` would pass for a field that decides over framing or trust.
fn twin(folded: &[u8]) -> bool {
    folded.starts_with(b"sec-")
        || [
            "content-length",
            "content-type",
            "content-encoding",
            "content-digest",
            "transfer-encoding",
            "proxy-authorization",
            "proxy-connection",
            "signature-input",
        ]
        .iter()
        .any(|name| folded == name.as_bytes())
}

/// Rules for names that do not start with `x-`.
fn rules_of(first: u8) -> &'static [Rule] {
    match first {
        b'a' => &[Is("auth-user")],
        b'c' => &[
            Starts("cf-connecting-ip"),
            Starts("cf-access-"),
            Is("cf-visitor"),
            Starts("client-ip"),
            Starts("client-cert"),
        ],
        b'f' => &[
            Starts("forwarded"),
            Is("fastly-client-ip"),
            Starts("front-end-https"),
        ],
        b'h' => &[Is("https")],
        b'i' => &[Is("incap-client-ip")],
        b'o' => &[Starts("oidc-")],
        b'p' => &[
            Is("proxy"),
            Is("proxy-user"),
            Is("proxy-client-ip"),
            Is("proxy-host"),
        ],
        b'r' => &[Starts("remote-")],
        b's' => &[
            Starts("ssl-"),
            Starts("sm-"),
            Starts("shib-"),
            Is("script-name"),
        ],
        b't' => &[Is("true-client-ip"), Starts("tailscale-")],
        b'w' => &[Starts("wl-proxy-"), Starts("webauth-")],
        _ => &[],
    }
}

/// Rules for names whose first letter is `x`, by their third byte.
#[expect(
    clippy::too_many_lines,
    reason = "a table, and every line of it is one rule"
)]
fn rules_of_x(third: u8) -> &'static [Rule] {
    match third {
        b'a' => &[
            Starts("x-auth"),
            Starts("x-amzn-oidc-"),
            Starts("x-amzn-mtls-"),
            Starts("x-arr-"),
            Starts("x-appengine-"),
            Is("x-anonymous-consumer"),
        ],
        b'c' => &[
            Starts("x-client-ip"),
            Starts("x-client-cert"),
            Starts("x-client-dn"),
            Starts("x-client-verify"),
            Starts("x-clientip"),
            Starts("x-cluster-client-ip"),
            Starts("x-consumer-"),
            Starts("x-credential-"),
        ],
        b'e' => &[Starts("x-envoy-"), Starts("x-email"), Starts("x-end-user")],
        b'f' => &[Starts("x-forward")],
        b'g' => &[
            Starts("x-goog-authenticated-user-"),
            Starts("x-goog-iap-"),
            Starts("x-group"),
        ],
        b'h' => &[
            Starts("x-http-method"),
            Is("x-host"),
            Is("x-https"),
            Is("x-http-host-override"),
        ],
        b'i' => &[Starts("x-identity"), Is("x-ip")],
        b'j' => &[Starts("x-jwt-")],
        b'm' => &[
            Starts("x-method-override"),
            Starts("x-ms-client-principal"),
            Is("x-middleware-subrequest"),
        ],
        b'o' => &[
            Starts("x-original-"),
            Starts("x-originating-"),
            Starts("x-orig-"),
            Starts("x-override-"),
        ],
        b'p' => &[
            Starts("x-proxy"),
            Starts("x-principal"),
            Starts("x-pomerium-"),
            Is("x-proto"),
        ],
        b'r' => &[
            Starts("x-role"),
            Starts("x-remote-"),
            Starts("x-real-"),
            Starts("x-rewrite-"),
            Is("x-request-id"),
            Is("x-request-uri"),
        ],
        b's' => &[
            Starts("x-ssl-"),
            Is("x-scope"),
            Is("x-scopes"),
            Is("x-scheme"),
            Starts("x-subject"),
            Is("x-script-name"),
            Starts("x-spiffe"),
        ],
        b't' => &[Starts("x-true-"), Starts("x-tls-"), Starts("x-trusted-")],
        b'u' => &[Starts("x-user"), Is("x-url-scheme"), Is("x-uri")],
        b'v' => &[Starts("x-vouch-"), Starts("x-verified-")],
        b'w' => &[Starts("x-webauth-"), Starts("x-waws-")],
        _ => &[],
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderMap;
    use http::header::{HeaderName, HeaderValue};

    use super::{WINDOW, reserved, rules_of, rules_of_x, strip_reserved};

    fn is_reserved(name: &str) -> bool {
        reserved(&HeaderName::from_bytes(name.as_bytes()).expect("a header name"))
    }

    #[test]
    fn b28_identity_headers_and_their_twins() {
        for name in [
            "X-Auth-User",
            "x_auth_user",
            "X-AUTH-ROLES",
            "x.auth.subject",
            "X-User",
            "X_User",
            "X.User",
            "x-user-id",
            "X-Role",
            "X-Roles",
            "X-Remote-User",
            "Remote-User",
            "remote_user",
            "SSL-Client-Verify",
            "SSL_CLIENT_S_DN",
            "X-SSL-Client-Cert",
            "X-Client-Cert",
            "X-Amzn-Oidc-Data",
            "X-Goog-Authenticated-User-Email",
            "X-WebAuth-User",
            "x!user",
            "x-user*",
        ] {
            assert!(is_reserved(name), "{name}");
        }
    }

    #[test]
    fn b30_a17_forwarding_and_override_headers() {
        for name in [
            "X-Forwarded-For",
            "X-Forwarded-Proto",
            "X-Forwarded-Host",
            "X-Forwarded-Port",
            "X-Forwarded-Prefix",
            "X-Forwarded-Uri",
            "X-Real-IP",
            "Forwarded",
            "True-Client-IP",
            "CF-Connecting-IP",
            "X-Client-IP",
            "X-Cluster-Client-IP",
            "Fastly-Client-IP",
            "X-Original-URL",
            "X-Original-URI",
            "X-Original-Host",
            "X-Rewrite-URL",
            "X-HTTP-Method",
            "X-HTTP-Method-Override",
            "X-Method-Override",
            "X-Host",
            "X-Request-Id",
            "x_forwarded_for",
            "X.Original.Url",
        ] {
            assert!(is_reserved(name), "{name}");
        }
    }

    #[test]
    fn a35_the_proxy_header_is_reserved() {
        assert!(is_reserved("Proxy"));
    }

    #[test]
    fn twins_of_framing_fields_are_reserved_but_not_the_fields() {
        for name in [
            "content_length",
            "Content.Length",
            "transfer_encoding",
            "content_type",
            "sec_fetch_site",
        ] {
            assert!(is_reserved(name), "{name}");
        }
    }

    #[test]
    fn ordinary_headers_pass() {
        for name in [
            "accept",
            "accept-language",
            "authorization",
            "cache-control",
            "connection",
            "content-length",
            "content-type",
            "cookie",
            "host",
            "if-none-match",
            "origin",
            "range",
            "referer",
            "sec-fetch-site",
            "te",
            "traceparent",
            "transfer-encoding",
            "upgrade-insecure-requests",
            "user-agent",
            "x-requested-with",
            "x-csrf-token",
            "x-xsrf-token",
            "x-api-key",
            "x-amz-date",
            "x-correlation-id",
            "x",
            "x-",
            "_",
            "some_app_header",
        ] {
            assert!(!is_reserved(name), "{name}");
        }
        assert!(!is_reserved(&"x".repeat(200)));
        assert!(is_reserved(&format!("x-user-{}", "a".repeat(200))));
    }

    #[test]
    fn a14_a15_every_copy_goes() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("host", "a"),
            ("x_user", "root"),
            ("x.user", "root"),
            ("x-user", "root"),
            ("x-role", "user"),
            ("x-role", "admin"),
            ("accept", "*/*"),
        ] {
            headers.append(name, HeaderValue::from_static(value));
        }
        assert_eq!(strip_reserved(&mut headers), 4);
        let mut left: Vec<_> = headers.keys().map(HeaderName::as_str).collect();
        left.sort_unstable();
        assert_eq!(left, ["accept", "host"]);
        assert_eq!(strip_reserved(&mut headers), 0);
    }

    #[test]
    fn rules_stand_where_they_are_looked_for() {
        for byte in 0..=u8::MAX {
            for rule in rules_of(byte) {
                let (super::Is(name) | super::Starts(name)) = rule;
                assert_eq!(name.as_bytes().first(), Some(&byte), "{name}");
                assert!(name.len() < WINDOW);
            }
            for rule in rules_of_x(byte) {
                let (super::Is(name) | super::Starts(name)) = rule;
                assert!(name.starts_with("x-"), "{name}");
                assert_eq!(name.as_bytes().get(2), Some(&byte), "{name}");
                assert!(name.len() < WINDOW);
            }
        }
    }
}
