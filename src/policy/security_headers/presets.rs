//! The presets of `[headers]` as tables, and what is known of single headers.
//!
//! For [`super`] and its compilation. HSTS stands apart, since it depends on the scheme.

use http::{
    HeaderName,
    header::{CONTENT_SECURITY_POLICY, CONTENT_SECURITY_POLICY_REPORT_ONLY},
};

use crate::{
    config::{Complaint, FromValue, Value, quoted},
    policy::csp,
};

/// The policy of the `strict` preset.
pub const STRICT_CSP: &str = "default-src 'self'; script-src 'self'; style-src 'self' 'unsafe-inline'; \
    img-src 'self' data:; object-src 'none'; base-uri 'self'; form-action 'self'; frame-ancestors 'none'; \
    upgrade-insecure-requests";
/// The policy of the `api` preset.
pub const API_CSP: &str = "default-src 'none'; frame-ancestors 'none'";
/// The enforced policy of the `compatible` preset.
pub const COMPATIBLE_CSP: &str = "object-src 'none'; base-uri 'self'; frame-ancestors 'self'";
/// HSTS as sent unless the file says otherwise.
pub const STRICT_HSTS: &str = "max-age=31536000; includeSubDomains";

const NO_DEVICES: &str = "camera=(), microphone=(), geolocation=(), payment=(), usb=()";

/// How ours and the backend's word on a header meet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// Ours, whatever the backend says.
    Set,
    /// Ours only where the backend says nothing.
    Default,
    /// Ours beside the backend's: for policies that intersect.
    Append,
}

impl Rule {
    /// The word of the file.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Set => "set",
            Self::Default => "default",
            Self::Append => "append",
        }
    }
}

/// Header, rule and value of each row of a preset; HSTS stands apart since it depends on the scheme.
pub(super) type Rows = &'static [(&'static str, Rule, &'static str)];

/// The rows of the `strict` preset, in the order in which they are sent.
pub const STRICT: &[(&str, Rule, &str)] = &[
    ("content-security-policy", Rule::Append, STRICT_CSP),
    ("x-content-type-options", Rule::Set, "nosniff"),
    ("x-frame-options", Rule::Set, "DENY"),
    (
        "referrer-policy",
        Rule::Set,
        "strict-origin-when-cross-origin",
    ),
    ("permissions-policy", Rule::Set, NO_DEVICES),
    ("cross-origin-opener-policy", Rule::Set, "same-origin"),
    ("cross-origin-resource-policy", Rule::Set, "same-origin"),
];

const API: Rows = &[
    ("content-security-policy", Rule::Append, API_CSP),
    ("x-content-type-options", Rule::Set, "nosniff"),
    ("x-frame-options", Rule::Set, "DENY"),
    (
        "referrer-policy",
        Rule::Set,
        "strict-origin-when-cross-origin",
    ),
    ("permissions-policy", Rule::Set, NO_DEVICES),
    ("cross-origin-opener-policy", Rule::Set, "same-origin"),
    ("cross-origin-resource-policy", Rule::Set, "same-origin"),
    ("cache-control", Rule::Default, "no-store"),
];

/// The backend of this preset knows best what it embeds and opens, so its word on that counts.
const COMPATIBLE: Rows = &[
    ("content-security-policy", Rule::Append, COMPATIBLE_CSP),
    (
        "content-security-policy-report-only",
        Rule::Append,
        STRICT_CSP,
    ),
    ("x-content-type-options", Rule::Set, "nosniff"),
    ("x-frame-options", Rule::Set, "SAMEORIGIN"),
    (
        "referrer-policy",
        Rule::Default,
        "strict-origin-when-cross-origin",
    ),
    ("permissions-policy", Rule::Default, NO_DEVICES),
    ("cross-origin-opener-policy", Rule::Default, "same-origin"),
    ("cross-origin-resource-policy", Rule::Default, "same-origin"),
];

/// Headers with a short list of values; browsers skip any other, so a mistyped one protects nothing.
const WORDS: &[(&str, &[&str])] = &[
    ("x-content-type-options", &["nosniff"]),
    ("x-frame-options", &["DENY", "SAMEORIGIN"]),
    (
        "referrer-policy",
        &[
            "no-referrer",
            "no-referrer-when-downgrade",
            "origin",
            "origin-when-cross-origin",
            "same-origin",
            "strict-origin",
            "strict-origin-when-cross-origin",
            "unsafe-url",
        ],
    ),
    (
        "cross-origin-opener-policy",
        &[
            "same-origin",
            "same-origin-allow-popups",
            "noopener-allow-popups",
            "unsafe-none",
        ],
    ),
    (
        "cross-origin-resource-policy",
        &["same-origin", "same-site", "cross-origin"],
    ),
];

/// Fields that are not this section's to write, with the place that is.
const FOREIGN: &[(&str, &str)] = &[
    ("connection", "the proxy writes it for each connection"),
    ("content-length", "the proxy writes it from the body"),
    ("keep-alive", "the proxy writes it for each connection"),
    ("proxy-connection", "no answer carries it"),
    ("set-cookie", "see the section `cookies`"),
    (
        "strict-transport-security",
        "use `hsts = { max_age = \"365d\", subdomains = true }`",
    ),
    ("te", "the proxy writes it for each connection"),
    ("trailer", "the proxy writes it for each connection"),
    ("transfer-encoding", "the proxy writes it from the body"),
    ("upgrade", "the proxy writes it for each connection"),
];

/// The starting set of headers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Preset {
    #[default]
    Strict,
    Api,
    Compatible,
    None,
}

impl Preset {
    pub(super) const fn rows(self) -> Rows {
        match self {
            Self::Strict => STRICT,
            Self::Api => API,
            Self::Compatible => COMPATIBLE,
            Self::None => &[],
        }
    }
}

impl FromValue for Preset {
    fn from_value(value: &Value) -> Result<Self, Complaint> {
        match value.as_str() {
            Some("strict") => Ok(Self::Strict),
            Some("api") => Ok(Self::Api),
            Some("compatible") => Ok(Self::Compatible),
            Some("none") => Ok(Self::None),
            _ => Err(value.expected("`strict`, `api`, `compatible` or `none`")),
        }
    }
}

/// Why this section may not write the header, if it may not.
pub(super) fn foreign(name: &HeaderName) -> Option<Complaint> {
    let complaint = || Complaint::new(format!("`{name}` is not set here"));
    if name.as_str().starts_with("access-control-") {
        return Some(complaint().hint("see the section `cors`"));
    }
    let (_, whose) = FOREIGN.iter().find(|(known, _)| name == known)?;
    Some(complaint().hint(*whose))
}

/// Checks values whose grammar is known.
pub(super) fn content(name: &HeaderName, value: &Value) -> Result<(), Complaint> {
    if *name == CONTENT_SECURITY_POLICY || *name == CONTENT_SECURITY_POLICY_REPORT_ONLY {
        return csp::check(value);
    }
    let (Some(words), Some(text)) = (words_of(name.as_str()), value.as_str()) else {
        return Ok(());
    };
    // Referrer-Policy is a list of fallbacks, and an opener policy may name its reports: `same-origin; report-to="…"`.
    let one = |word: &str| {
        let word = word.split(';').next().unwrap_or(word).trim();
        words.iter().any(|known| known.eq_ignore_ascii_case(word))
    };
    if text.split(',').all(one) {
        return Ok(());
    }
    Err(
        Complaint::new(format!("{} is no value of `{name}`", quoted(text)))
            .hint(format!("known here: {}", words.join(", "))),
    )
}

pub(super) fn words_of(name: &str) -> Option<&'static [&'static str]> {
    WORDS
        .iter()
        .find(|(known, _)| *known == name)
        .map(|(_, words)| *words)
}

#[cfg(test)]
mod tests {
    use http::{HeaderName, HeaderValue};

    use super::{API, COMPATIBLE, STRICT, words_of};

    #[test]
    fn rows_are_valid_headers_and_stand_once() {
        for rows in [STRICT, API, COMPATIBLE] {
            for (at, (name, _, value)) in rows.iter().enumerate() {
                assert!(HeaderName::from_lowercase(name.as_bytes()).is_ok());
                assert!(HeaderValue::from_str(value).is_ok());
                assert!(
                    rows.iter().skip(at + 1).all(|(other, ..)| other != name),
                    "{name} stands twice"
                );
                assert!(
                    words_of(name).is_none_or(|words| words.contains(value)),
                    "{name}: {value}"
                );
            }
        }
    }
}
