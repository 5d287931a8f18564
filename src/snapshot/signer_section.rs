//! `[signers.NAME]` as the file may write it.

use crate::config::{Key, Kind, Section};

/// `[signers.NAME]`
pub(super) static SIGNER: Section = Section {
    name: "signers",
    doc: "who signs requests",
    keys: &[
        Key::new(
            "scheme",
            Kind::Choice(&["sigv4"]),
            "how requests are signed",
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
    ],
};
