//! Header names that a client may never hand to a backend.
//!
//! Identity, forwarding, override and original-URL headers are believed by many backends, so every client copy is
//! removed before ours are set, on public routes too. Gateways that hand headers on as environment variables (CGI,
//! WSGI, PHP, ASP) turn every sign into `_`, so `X_User`, `X.User` and `X-User` are one name to them; names are
//! therefore compared with all signs folded to `-`. It does not know which names a file adds.

use http::HeaderMap;
use http::header::HeaderName;

/// One rule about names, written with `-` for every sign.
#[derive(Clone, Copy)]
enum Rule {
    /// This very name.
    Is(&'static str),
    /// Every name that starts so.
    Starts(&'static str),
    /// This name with another sign than `-`: the name itself decides over framing or trust and is not the client's to
    /// double.
    TwinOf(&'static str),
    /// Every name that starts so and has another sign than `-` somewhere.
    TwinsOf(&'static str),
}

use Rule::{Is, Starts, TwinOf, TwinsOf};

/// Whether a client's header of this name must not reach a backend.
///
/// Most names are dismissed by their first two letters; none costs an allocation.
pub fn reserved(name: &HeaderName) -> bool {
    let name = name.as_str().as_bytes();
    let rules = match name {
        [b'x', _, third, ..] => rules_of_x(*third),
        [first, second, ..] => rules_of([*first, *second]),
        _ => return false,
    };
    rules.iter().any(|rule| rule.holds(name))
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

/// Removes a field and every one that gateways would read as it: `x_api_key` is `x-api-key` to them.
pub fn strip_alike(headers: &mut HeaderMap, name: &HeaderName) {
    headers.remove(name);
    strip_twins(headers, name);
}

/// The same, but for the field of that very name: only what was judged goes on.
pub fn strip_twins(headers: &mut HeaderMap, name: &HeaderName) {
    let is_twin = |held: &HeaderName| {
        let (held, folded_name) = (held.as_str().bytes(), name.as_str().bytes());
        held.map(folded).eq(folded_name.map(folded))
    };
    let twins = |held: &&HeaderName| *held != name && is_twin(held);
    while let Some(held) = headers.keys().find(twins).cloned() {
        headers.remove(held);
    }
}

/// Every sign as `-`.
fn folded(byte: u8) -> u8 {
    if byte.is_ascii_alphanumeric() {
        byte
    } else {
        b'-'
    }
}

impl Rule {
    fn holds(self, name: &[u8]) -> bool {
        match self {
            Is(rule) => name.len() == rule.len() && starts_as(name, rule),
            Starts(prefix) => starts_as(name, prefix),
            TwinOf(rule) => Is(rule).holds(name) && name != rule.as_bytes(),
            TwinsOf(prefix) => starts_as(name, prefix) && name.iter().any(|byte| is_odd(*byte)),
        }
    }
}

/// Whether a name starts with these letters, digits and signs, whatever the signs are.
fn starts_as(name: &[u8], prefix: &str) -> bool {
    name.len() >= prefix.len()
        && name.iter().zip(prefix.bytes()).all(|(byte, wanted)| {
            *byte == wanted || (wanted == b'-' && !byte.is_ascii_alphanumeric())
        })
}

/// A sign that gateways turn into `_` as they do with `-`.
fn is_odd(byte: u8) -> bool {
    static ODD: [bool; 256] = {
        let mut table = [false; 256];
        let mut byte = 0_u8;
        loop {
            table[byte as usize] = !byte.is_ascii_alphanumeric() && byte != b'-';
            if byte == u8::MAX {
                break table;
            }
            byte += 1;
        }
    };
    ODD[usize::from(byte)]
}

/// Rules for names that do not start with `x-`, by their first two letters.
fn rules_of(start: [u8; 2]) -> &'static [Rule] {
    match &start {
        b"au" => &[Is("auth-user")],
        b"cf" => &[
            Starts("cf-connecting-ip"),
            Starts("cf-access-"),
            Is("cf-visitor"),
        ],
        b"cl" => &[Starts("client-ip"), Starts("client-cert")],
        b"co" => &[
            TwinOf("content-length"),
            TwinOf("content-type"),
            TwinOf("content-encoding"),
            TwinOf("content-digest"),
        ],
        b"fa" => &[Is("fastly-client-ip")],
        b"fo" => &[Starts("forwarded")],
        b"fr" => &[Starts("front-end-https")],
        b"ht" => &[Is("https")],
        b"in" => &[Is("incap-client-ip")],
        b"oi" => &[Starts("oidc-")],
        b"pr" => &[
            Is("proxy"),
            Is("proxy-user"),
            Is("proxy-client-ip"),
            Is("proxy-host"),
            TwinOf("proxy-authorization"),
            TwinOf("proxy-connection"),
        ],
        b"re" => &[Starts("remote-")],
        b"sc" => &[Is("script-name")],
        b"se" => &[TwinsOf("sec-")],
        b"sh" => &[Starts("shib-")],
        b"si" => &[TwinOf("signature-input")],
        b"sm" => &[Starts("sm-")],
        b"ss" => &[Starts("ssl-")],
        b"ta" => &[Starts("tailscale-")],
        b"tr" => &[Is("true-client-ip"), TwinOf("transfer-encoding")],
        b"we" => &[Starts("webauth-")],
        b"wl" => &[Starts("wl-proxy-")],
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
            Starts("x-portcullis-"),
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

    use super::{
        Is, Rule, Starts, TwinOf, TwinsOf, reserved, rules_of, rules_of_x, strip_alike,
        strip_reserved,
    };

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
            "X-Portcullis-Identity",
            "x_portcullis_identity",
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
    fn what_says_who_showed_a_certificate() {
        for name in [
            "Client-Cert",
            "Client-Cert-Chain",
            "client_cert",
            "X-Client-Cert",
            "X-Client-Certificate",
            "X-Client-DN",
            "X-Client-Verify",
            "X-SSL-Client-Cert",
            "X-SSL-Client-S-DN",
            "X-SSL-Client-Verify",
            "X_SSL_CLIENT_VERIFY",
            "SSL-Client-Cert",
            "Ssl_Client_Verify",
            "X-Forwarded-Client-Cert",
            "X-Forwarded-Tls-Client-Cert",
            "X-Forwarded-Tls-Client-Cert-Info",
            "X-ARR-ClientCert",
            "X-Amzn-Mtls-Clientcert",
            "X-Amzn-Mtls-Clientcert-Leaf",
            "X-TLS-Client-Cert",
            "X-SPIFFE-ID",
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
    fn what_reads_as_one_name_goes_with_it() {
        let mut headers = HeaderMap::new();
        for name in [
            "x-api-key",
            "x_api_key",
            "x.api-key",
            "x-api-key-id",
            "x-apikey",
        ] {
            headers.append(name, HeaderValue::from_static("k"));
        }
        headers.append("x-api-key", HeaderValue::from_static("another"));
        strip_alike(&mut headers, &HeaderName::from_static("x-api-key"));
        let mut left: Vec<_> = headers.keys().map(HeaderName::as_str).collect();
        left.sort_unstable();
        assert_eq!(left, ["x-api-key-id", "x-apikey"]);
    }

    #[test]
    fn every_rule_holds_whatever_the_signs_are() {
        for name in every_rule().map(text) {
            for sign in ["_", ".", "~", "!"] {
                let twin = name.replace('-', sign);
                assert!(is_reserved(&twin) || twin == name, "{twin}");
            }
        }
    }

    #[test]
    fn rules_stand_where_they_are_looked_for() {
        for first in 0..=u8::MAX {
            for second in 0..=u8::MAX {
                for rule in rules_of([first, second]) {
                    assert!(text(rule).as_bytes().starts_with(&[first, second]));
                    assert_ne!((first, second), (b'x', b'-'));
                }
            }
            for rule in rules_of_x(first) {
                assert!(text(rule).starts_with("x-"));
                assert_eq!(text(rule).as_bytes().get(2), Some(&first));
            }
        }
    }

    fn every_rule() -> impl Iterator<Item = &'static Rule> {
        let bytes = || 0..=u8::MAX;
        let others = bytes().flat_map(move |first| bytes().map(move |second| [first, second]));
        let of_x = bytes().flat_map(rules_of_x);
        others.flat_map(rules_of).chain(of_x)
    }

    fn text(rule: &'static Rule) -> &'static str {
        let (Is(name) | Starts(name) | TwinOf(name) | TwinsOf(name)) = rule;
        name
    }
}
