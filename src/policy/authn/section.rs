//! `[….auth]` as the file may write it.

use super::super::{conditions, mode::Mode, rbac, step_up};
use crate::config::{Key, Kind, Section};

/// `[….auth]`
pub static SECTION: Section = Section {
    name: "auth",
    doc: "who may ask; must be stated for every route, as a table or as \"public\"",
    keys: &[
        Key::new(
            "require",
            Kind::List(&Kind::Choice(&["signature", "bearer", "api_key", "mtls"])),
            "any of these identifies the caller",
            "",
        ),
        Key::new(
            "issuers",
            Kind::OneOrMany(&Kind::String),
            "names of [issuers.NAME] whose tokens count",
            "",
        ),
        Key::new(
            "signers",
            Kind::OneOrMany(&Kind::String),
            "names of [signers.NAME] whose signatures count",
            "",
        ),
        Key::new(
            "api_keys",
            Kind::OneOrMany(&Kind::String),
            "names of [api_keys.NAME] that count; all where nothing is said",
            "",
        ),
        Key::new(
            "api_key_header",
            Kind::HeaderName,
            "header that carries the key",
            "\"X-API-Key\"",
        ),
        Key::new(
            "certificates",
            Kind::OneOrMany(&Kind::String),
            "names of [client_certificates.NAME] that count",
            "",
        ),
        Key::new(
            "forward_certificate",
            Kind::Bool,
            "tell the backend the client's certificate in Client-Cert (RFC 9440)",
            "false",
        ),
        Key::new(
            "forward_token",
            Kind::Bool,
            "pass the credentials on to the backend: the Authorization header, that of the API key, fields and query parameters of signatures",
            "false",
        ),
        Key::new(
            "roles",
            Kind::Table(&rbac::RULES),
            "roles that the caller needs",
            "",
        ),
        Key::new(
            "scopes",
            Kind::Table(&rbac::RULES),
            "scopes that the token needs",
            "",
        ),
        Key::new(
            "permissions",
            Kind::Table(&rbac::RULES),
            "permissions that the caller's roles must grant, by [roles.NAME]",
            "",
        ),
        Key::new(
            "claims",
            conditions::CLAIMS,
            "claims by path, and the values of which each must have one",
            "",
        ),
        Key::new(
            "condition",
            Kind::String,
            "an expression (CEL) over the principal and the request that must be true",
            "",
        ),
        Key::new(
            "step_up",
            Kind::Table(&step_up::SECTION),
            step_up::SECTION.doc,
            "",
        ),
        Key::new(
            "resource",
            Kind::Url,
            "identifier of the protected resource, whose metadata the gate then serves (RFC 9728)",
            "",
        ),
        Key::new(
            "mode",
            Kind::Choice(Mode::WORDS),
            "enforce, monitor or off",
            "\"enforce\"",
        ),
    ],
};

/// What the key `auth` takes.
pub const KIND: Kind = Kind::Either(&[Kind::Choice(&["public"]), Kind::Table(&SECTION)]);
