//! Why a request does not go on: the one table of reason codes.
//!
//! A [`Halt`] is the only way back out of the pipeline: a refusal with its stable reason, or a reply that is ready
//! (a preflight answer, a redirect). The code of a [`Reason`] is the same word in the problem body (RFC 9457), the
//! access line, the metric and `explain`; the table below is the whole list. Nothing here knows a policy.

use bytes::Bytes;
use http::{HeaderMap, StatusCode, header::HeaderValue};

/// A stage of the pipeline, in the order in which a request meets them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Stage {
    /// Bytes and framing, before HTTP is parsed.
    Wire,
    /// Host, path and method in their one normal form.
    Normalise,
    /// Host, path and method to a route.
    Route,
    /// Allowed and denied networks.
    Network,
    /// Clients that failed to authenticate too often.
    Ban,
    /// Limits by address, route or header.
    RateLimit,
    /// Declared body length.
    BodyLimit,
    /// Cross-origin rules.
    Cors,
    /// Who is asking.
    Authn,
    /// Limits by principal.
    Quota,
    /// Requests that another site's page makes.
    Csrf,
    /// How and how lately the caller signed in.
    Mfa,
    /// Roles, permissions, scopes and conditions.
    Rbac,
    /// The way to the backend.
    Forward,
    /// Response headers.
    Headers,
    /// Cookies that the backend sets.
    Cookies,
}

impl Stage {
    /// Every stage, in order.
    pub const ALL: [Self; 16] = [
        Self::Wire,
        Self::Normalise,
        Self::Route,
        Self::Network,
        Self::Ban,
        Self::RateLimit,
        Self::BodyLimit,
        Self::Cors,
        Self::Authn,
        Self::Quota,
        Self::Csrf,
        Self::Mfa,
        Self::Rbac,
        Self::Forward,
        Self::Headers,
        Self::Cookies,
    ];

    /// The stable kebab-case name for logs, metrics and `explain`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Wire => "wire",
            Self::Normalise => "normalise",
            Self::Route => "route",
            Self::Network => "network",
            Self::Ban => "ban",
            Self::RateLimit => "rate-limit",
            Self::BodyLimit => "body-limit",
            Self::Cors => "cors",
            Self::Authn => "authn",
            Self::Quota => "quota",
            Self::Csrf => "csrf",
            Self::Mfa => "mfa",
            Self::Rbac => "rbac",
            Self::Forward => "forward",
            Self::Headers => "headers",
            Self::Cookies => "cookies",
        }
    }
}

macro_rules! reasons {
    ($( $name:ident = $code:literal, $status:literal, $title:literal; )*) => {
        /// Why a request was refused or failed. The code is a promise to users.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Reason { $(
            #[doc = concat!("`", $code, "`, status ", stringify!($status), ": ", $title, ".")]
            $name,
        )* }

        impl Reason {
            /// The whole table, in the order of the documentation.
            pub const ALL: &'static [Self] = &[ $( Self::$name, )* ];

            /// The stable kebab-case code.
            pub const fn code(self) -> &'static str {
                match self { $( Self::$name => $code, )* }
            }

            /// The status of the answer.
            ///
            /// # Panics
            /// Never: the table holds valid codes only, and a test walks it.
            pub fn status(self) -> StatusCode {
                let code: u16 = match self { $( Self::$name => $status, )* };
                StatusCode::from_u16(code).expect("the table holds valid status codes")
            }

            /// One sentence for the client: no path, no value, no hint about the inside of a token.
            pub const fn title(self) -> &'static str {
                match self { $( Self::$name => $title, )* }
            }
        }
    };
}

reasons! {
    MalformedHead = "malformed-head", 400, "The request head is not well-formed HTTP";
    FramingConflict = "framing-conflict", 400, "The request says in more than one way where its body ends";
    BadChunk = "bad-chunk", 400, "The chunked body is not well-formed";
    EarlyTunnelBytes = "early-tunnel-bytes", 400, "Bytes arrived before the tunnel was open";
    FrameFlood = "frame-flood", 400, "The connection carries frames to no purpose";
    BodyBroken = "body-broken", 400, "The request body ended early or could not be read";
    BadTarget = "bad-target", 400, "The request target is ambiguous or not well-formed";
    BadHost = "bad-host", 400, "The request needs exactly one well-formed host";
    ProtectedConnectionOption = "protected-connection-option", 400, "The Connection header names a header that must not be dropped";
    ForwardingConflict = "forwarding-conflict", 400, "The forwarding headers name different clients";
    InvalidRequest = "invalid-request", 400, "The request carries its credentials in more than one way";
    FormInvalid = "form-invalid", 400, "The form is not one that this page sends";
    CredentialsMissing = "credentials-missing", 401, "This resource needs credentials";
    TokenInvalid = "token-invalid", 401, "The credentials are not valid";
    ApiKeyInvalid = "api-key-invalid", 401, "The API key is not valid";
    StepUpNeeded = "step-up-needed", 401, "This resource needs a stronger or fresher sign-in";
    ProofInvalid = "proof-invalid", 401, "The proof that the token is the caller's own is not valid";
    ProofNonceMissing = "proof-nonce-missing", 401, "The proof that the token is the caller's own needs a fresh nonce";
    SessionMissing = "session-missing", 403, "This page needs a session that was begun here for it";
    SecondFactorNeeded = "second-factor-needed", 403, "This resource needs a second factor";
    SecondFactorWrong = "second-factor-wrong", 403, "The second factor is not right";
    SecondFactorUnknown = "second-factor-unknown", 403, "No second factor is enrolled for this account";
    SignatureInvalid = "signature-invalid", 403, "The signature is not valid";
    CertificateMissing = "certificate-missing", 403, "This resource needs a client certificate";
    CertificateUnknown = "certificate-unknown", 403, "The client certificate is not one that may use this resource";
    CertificateExpired = "certificate-expired", 403, "The client certificate has expired";
    CertificateRevoked = "certificate-revoked", 403, "The client certificate has been revoked";
    NetworkDenied = "network-denied", 403, "This address may not use this resource";
    OriginDenied = "origin-denied", 403, "This origin may not use this resource";
    MethodDeniedForOrigin = "cors-method-denied", 403, "This method is not allowed across origins";
    HeaderDeniedForOrigin = "cors-header-denied", 403, "This header is not allowed across origins";
    Csrf = "csrf", 403, "The request does not come from a page that may make it";
    RoleMissing = "role-missing", 403, "The caller lacks a role that this resource needs";
    PermissionMissing = "permission-missing", 403, "The caller lacks a permission that this resource needs";
    ScopeMissing = "scope-missing", 403, "The token lacks a scope that this resource needs";
    ConditionFailed = "condition-failed", 403, "The caller does not meet the conditions of this resource";
    RouteUnknown = "route-unknown", 404, "Nothing is served here";
    MethodNotAllowed = "method-not-allowed", 405, "This method is not allowed here";
    HeadTimeout = "head-timeout", 408, "The request head took too long";
    BodyTimeout = "body-timeout", 408, "The request body took too long";
    TunnelIdle = "tunnel-idle", 408, "The tunnel was silent for too long";
    TunnelAge = "tunnel-age", 408, "The tunnel was open for too long";
    BodyTooLarge = "body-too-large", 413, "The request body is too large";
    TunnelBytes = "tunnel-bytes", 413, "The tunnel carried too many bytes";
    TargetTooLong = "target-too-long", 414, "The request target is too long";
    Misdirected = "misdirected", 421, "This connection is not for that host";
    RateLimited = "rate-limited", 429, "Too many requests";
    Banned = "banned", 429, "Too many failed attempts to authenticate";
    SecondFactorLimited = "second-factor-limited", 429, "Too many wrong codes";
    HeadTooLarge = "head-too-large", 431, "The request head is too large";
    Internal = "internal", 500, "The gate met an error of its own";
    UpstreamError = "upstream-error", 500, "The backend met an error";
    MethodUnknown = "method-unknown", 501, "This method is not supported";
    ProtocolUnknown = "protocol-unknown", 501, "This protocol is not supported";
    UpstreamUnreachable = "upstream-unreachable", 502, "The backend cannot be reached";
    UpstreamBroken = "upstream-broken", 502, "The backend gave an answer that cannot be passed on";
    BreakerOpen = "breaker-open", 503, "The backend is resting after failures";
    KeysUnavailable = "keys-unavailable", 503, "The keys that check this token are not available";
    IntrospectionUnavailable = "introspection-unavailable", 503, "The issuer of this token cannot be asked about it";
    SecondFactorUnavailable = "second-factor-unavailable", 503, "The second factor cannot be checked";
    Overloaded = "overloaded", 503, "The gate is at its limit";
    UpstreamTimeout = "upstream-timeout", 504, "The backend took too long";
    VersionUnsupported = "version-unsupported", 505, "This version of HTTP is not supported";
}

/// A refusal: where, why, what to add to the answer, and a word for the log alone.
#[derive(Clone, Debug)]
pub struct Refusal {
    /// The stage that refused.
    pub stage: Stage,
    /// The stable reason.
    pub reason: Reason,
    /// Headers that belong to this answer (`WWW-Authenticate`, `Allow`, `Retry-After`).
    pub headers: HeaderMap,
    /// A finer code for the access line, never sent to the client.
    pub detail: Option<&'static str>,
    /// The names of the violated limits, for the `violated-policies` member of a 429 body.
    pub violated: Vec<std::sync::Arc<str>>,
    /// The status of the answer where it is not that of the reason: a backend's own error.
    pub own_status: Option<StatusCode>,
    /// Whether the credentials were forged or guessed, see [`Refusal::forged`].
    pub forged: bool,
    /// The page for people in place of the usual one, where the refusal is part of a page of the gate's own.
    pub page: Option<Bytes>,
}

impl Refusal {
    /// A refusal without extra headers.
    pub fn new(stage: Stage, reason: Reason) -> Self {
        Self {
            stage,
            reason,
            headers: HeaderMap::new(),
            detail: None,
            violated: Vec::new(),
            own_status: None,
            forged: false,
            page: None,
        }
    }

    /// Shows people this page.
    #[must_use]
    pub fn page(mut self, page: Bytes) -> Self {
        self.page = Some(page);
        self
    }

    /// The status of the answer.
    pub fn status_code(&self) -> StatusCode {
        self.own_status.unwrap_or_else(|| self.reason.status())
    }

    /// Answers with this status in place of the reason's.
    #[must_use]
    pub fn status(mut self, status: StatusCode) -> Self {
        self.own_status = Some(status);
        self
    }

    /// States that the credentials are such as nobody was ever given: a wrong signature, an unknown key, no token at all.
    ///
    /// This counts against the client: many of them and it is banned, see `[….ban]`. It is not for credentials that were
    /// good once (expired, revoked), that are good elsewhere, or that are missing. Nor is it for what a link can carry, such
    /// as a signature in the query: any page could have its visitors banned.
    #[must_use]
    pub fn forged(mut self) -> Self {
        self.forged = true;
        self
    }

    /// Adds a header to the answer.
    #[must_use]
    pub fn with(mut self, name: http::HeaderName, value: HeaderValue) -> Self {
        self.headers.append(name, value);
        self
    }

    /// Adds the finer code for the log.
    #[must_use]
    pub fn detail(mut self, detail: &'static str) -> Self {
        self.detail = Some(detail);
        self
    }
}

/// Why the pipeline stops before the backend.
#[derive(Debug)]
pub enum Halt {
    /// The request is refused.
    Refuse(Box<Refusal>),
    /// The answer is ready and is no refusal: a preflight, a redirect.
    Reply(Box<Reply>),
}

/// A ready answer.
#[derive(Debug)]
pub struct Reply {
    /// The stage that answered.
    pub stage: Stage,
    /// Status of the answer.
    pub status: StatusCode,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body, mostly empty.
    pub body: Bytes,
}

impl Halt {
    /// Whether it refuses credentials that were forged or guessed.
    pub fn is_forgery(&self) -> bool {
        matches!(self, Self::Refuse(refusal) if refusal.forged)
    }

    /// Shorthand for a bare refusal.
    pub fn refuse(stage: Stage, reason: Reason) -> Self {
        Refusal::new(stage, reason).into()
    }
}

impl From<Box<Refusal>> for Halt {
    fn from(refusal: Box<Refusal>) -> Self {
        Self::Refuse(refusal)
    }
}

impl From<Refusal> for Halt {
    fn from(refusal: Refusal) -> Self {
        Self::Refuse(Box::new(refusal))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_unique_kebab_words_with_error_statuses() {
        let mut seen = std::collections::HashSet::new();
        for reason in Reason::ALL {
            let code = reason.code();
            assert!(seen.insert(code), "{code} stands twice");
            assert!(
                code.bytes().all(|b| b.is_ascii_lowercase() || b == b'-'),
                "{code}"
            );
            assert!(reason.status().is_client_error() || reason.status().is_server_error());
        }
    }
}
