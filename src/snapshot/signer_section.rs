//! `[signers.NAME]` as the file may write it.

use crate::{
    config::{Complaint, FromValue, Key, Kind, Reader, Section, Value},
    identity::http_signature::input::written_component,
};

/// `[signers.NAME]`
pub(super) static SIGNER: Section = Section {
    name: "signers",
    doc: "who signs requests",
    keys: &[
        Key::new(
            "scheme",
            Kind::Choice(&["sigv4", "http", "github", "stripe", "slack", "hmac"]),
            "how requests are signed: `http` by RFC 9421, `hmac` by a code over the body in a field of its own",
            "",
        ),
        Key::new("key_id", Kind::String, "id of the key, as it is sent", ""),
        Key::new(
            "secret",
            Kind::OneOrMany(&Kind::Secret),
            "secret of the key; several while it is changed",
            "",
        ),
        Key::new(
            "subject",
            Kind::String,
            "who the signer is; its name in this file where nothing is said",
            "",
        ),
        Key::new(
            "roles",
            Kind::OneOrMany(&Kind::String),
            "roles of the signer",
            "[]",
        ),
        Key::new(
            "scopes",
            Kind::OneOrMany(&Kind::String),
            "scopes of the signer",
            "[]",
        ),
        Key::new(
            "max_skew",
            Kind::Duration,
            "how far the date of a request may be from now; 15 minutes for sigv4",
            "",
        ),
        Key::new("region", Kind::String, "sigv4: region of the key", ""),
        Key::new("service", Kind::String, "sigv4: service of the key", ""),
        Key::new(
            "session_token",
            Kind::Secret,
            "sigv4: session token that comes with the key; without one no request may bring any",
            "",
        ),
        Key::new(
            "presigned",
            Kind::Bool,
            "sigv4: the signature may stand in the query",
            "false",
        ),
        Key::new(
            "presigned_max",
            Kind::Duration,
            "sigv4: longest life of a presigned request; 7 days at most",
            "\"1h\"",
        ),
        Key::new(
            "unsigned_payload",
            Kind::Bool,
            "sigv4: bodies may go unsigned",
            "false",
        ),
        Key::new(
            "double_encode",
            Kind::Bool,
            "sigv4: escapes of the path are escaped once more; false for the service `s3` alone",
            "",
        ),
        Key::new(
            "public_key",
            Kind::OneOrMany(&Kind::Path),
            "http: PEM file of an Ed25519, P-256 or RSA key, in place of a secret; several while it is changed",
            "",
        ),
        Key::new(
            "tag",
            Kind::String,
            "http: `tag` that signatures must have",
            "",
        ),
        Key::new(
            "components",
            Kind::List(&Kind::Checked(component)),
            "http: what signatures must cover; the method and the whole target where nothing is said",
            "",
        ),
        Key::new(
            "digest",
            Kind::Bool,
            "http: a body must be covered, by its Content-Digest",
            "true",
        ),
        Key::new(
            "max_age",
            Kind::Duration,
            "http, stripe, slack: how old a signature may be, 5 minutes; github, hmac: how long `once` remembers, 24 hours",
            "",
        ),
        Key::new(
            "once",
            Kind::Choice(&["nonce", "signature", "delivery"]),
            "what may be used once: for http the nonce; what was signed; or the name of the delivery, which nothing signs",
            "",
        ),
        Key::new(
            "once_entries",
            Kind::Integer {
                min: 1,
                max: 10_000_000,
            },
            "how much of it is remembered; when that is full, what is new is refused",
            "100000",
        ),
        Key::new("header", Kind::HeaderName, "hmac: field of the code", ""),
        Key::new(
            "prefix",
            Kind::String,
            "hmac: what stands before the code",
            "\"\"",
        ),
        Key::new(
            "encoding",
            Kind::Choice(&["hex", "base64"]),
            "hmac: how the code is written",
            "\"hex\"",
        ),
        Key::new(
            "delivery",
            Kind::HeaderName,
            "hmac: field of the name of the delivery; X-GitHub-Delivery for github",
            "",
        ),
    ],
};

/// The keys that are not for every scheme, and the schemes that they are for.
const OF_SCHEMES: &[(&str, &[&str])] = &[
    ("key_id", &["sigv4", "http"]),
    ("max_skew", &["sigv4"]),
    ("region", &["sigv4"]),
    ("service", &["sigv4"]),
    ("session_token", &["sigv4"]),
    ("presigned", &["sigv4"]),
    ("presigned_max", &["sigv4"]),
    ("unsigned_payload", &["sigv4"]),
    ("double_encode", &["sigv4"]),
    ("public_key", &["http"]),
    ("tag", &["http"]),
    ("components", &["http"]),
    ("digest", &["http"]),
    ("max_age", &["http", "github", "stripe", "slack", "hmac"]),
    ("once", &["http", "github", "stripe", "slack", "hmac"]),
    (
        "once_entries",
        &["http", "github", "stripe", "slack", "hmac"],
    ),
    ("header", &["hmac"]),
    ("prefix", &["hmac"]),
    ("encoding", &["hmac"]),
    ("delivery", &["hmac"]),
];

/// Reports keys that say nothing to this scheme: whoever wrote them believes that they do.
pub(super) fn only_keys_of(scheme: &str, reader: &Reader<'_>) {
    for (key, schemes) in OF_SCHEMES {
        if reader.has(key) && !schemes.contains(&scheme) {
            let of: Vec<String> = schemes.iter().map(|scheme| format!("`{scheme}`")).collect();
            reader.error(
                key,
                format!("the scheme `{scheme}` takes no `{key}`"),
                Some(format!("it is for {}", of.join(", "))),
            );
        }
    }
}

fn component(value: &Value) -> Result<(), Complaint> {
    let text = String::from_value(value)?;
    written_component(&text).map(drop).map_err(|_| {
        Complaint::new(format!("`{text}` is no component of a request"))
            .hint("such as `@method`, `@target-uri`, `content-type`, `@query-param;name=\"id\"`")
    })
}
