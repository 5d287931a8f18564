//! The words of Content-Security-Policy Level 3, with those of its neighbours (Trusted Types, mixed content).
//!
//! For [`super`]. Lower-case, as browsers compare them.

/// What the words of a directive are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Takes {
    /// Hosts, schemes, keywords, nonces and hashes.
    Sources,
    /// Hosts, schemes, `'self'` and `'none'`.
    Ancestors,
    /// These words.
    Words(&'static [&'static str]),
    /// Nothing.
    Nothing,
    /// Anything: addresses, group and policy names.
    Names,
}

const SANDBOX: &[&str] = &[
    "allow-downloads",
    "allow-forms",
    "allow-modals",
    "allow-orientation-lock",
    "allow-pointer-lock",
    "allow-popups",
    "allow-popups-to-escape-sandbox",
    "allow-presentation",
    "allow-same-origin",
    "allow-scripts",
    "allow-storage-access-by-user-activation",
    "allow-top-navigation",
    "allow-top-navigation-by-user-activation",
    "allow-top-navigation-to-custom-protocols",
];

/// Every directive that browsers know.
pub(super) const DIRECTIVES: &[(&str, Takes)] = &[
    ("base-uri", Takes::Sources),
    ("block-all-mixed-content", Takes::Nothing),
    ("child-src", Takes::Sources),
    ("connect-src", Takes::Sources),
    ("default-src", Takes::Sources),
    ("fenced-frame-src", Takes::Sources),
    ("font-src", Takes::Sources),
    ("form-action", Takes::Sources),
    ("frame-ancestors", Takes::Ancestors),
    ("frame-src", Takes::Sources),
    ("img-src", Takes::Sources),
    ("manifest-src", Takes::Sources),
    ("media-src", Takes::Sources),
    ("object-src", Takes::Sources),
    ("prefetch-src", Takes::Sources),
    ("report-to", Takes::Names),
    ("report-uri", Takes::Names),
    ("require-trusted-types-for", Takes::Words(&["'script'"])),
    ("sandbox", Takes::Words(SANDBOX)),
    ("script-src", Takes::Sources),
    ("script-src-attr", Takes::Sources),
    ("script-src-elem", Takes::Sources),
    ("style-src", Takes::Sources),
    ("style-src-attr", Takes::Sources),
    ("style-src-elem", Takes::Sources),
    ("trusted-types", Takes::Names),
    ("upgrade-insecure-requests", Takes::Nothing),
    ("worker-src", Takes::Sources),
];

/// Directives that browsers have dropped, with what to write instead.
pub(super) const DROPPED: &[(&str, &str)] = &[
    ("plugin-types", "`object-src 'none'`"),
    ("reflected-xss", "nothing: it was never shipped"),
    ("referrer", "the header `Referrer-Policy`"),
    ("require-sri-for", "the attribute `integrity`"),
];

/// Words that stand in single quotes.
pub(super) const KEYWORDS: &[&str] = &[
    "inline-speculation-rules",
    "none",
    "report-sample",
    "report-sha256",
    "report-sha384",
    "report-sha512",
    "self",
    "strict-dynamic",
    "trusted-types-eval",
    "unsafe-allow-redirects",
    "unsafe-eval",
    "unsafe-hashes",
    "unsafe-inline",
    "unsafe-webtransport-hashes",
    "wasm-unsafe-eval",
];

/// Beginnings of quoted words whose rest is base64.
pub(super) const PREFIXES: &[&str] = &["nonce-", "sha256-", "sha384-", "sha512-"];
