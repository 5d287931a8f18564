//! The root of the TOML file: every section and key that there is, beside the sections that policies declare.

use super::{
    api_keys::API_KEY,
    client_certificates::CLIENT_CERTIFICATE,
    identity::IDENTITY,
    second_factor::{MFA, SESSION},
    sections::{ADMIN, ISSUER, LOG, SERVER, TLS},
    signer_section::SIGNER,
    upstream_section::UPSTREAM,
};
use crate::{
    config::{Key, Kind, Section},
    policy::{
        authn, ban, body_limit, cookies, cors, csrf, mask_errors, network, rate_limit, roles,
        security_headers,
    },
};

/// The whole file.
pub static ROOT: Section = Section {
    name: "",
    doc: "the configuration of one gate",
    keys: &[
        Key::new(
            "include",
            Kind::OneOrMany(&Kind::String),
            "further files, relative to this one; `*` may stand in the last part",
            "[]",
        ),
        Key::new("server", Kind::Table(&SERVER), "listeners and limits", ""),
        Key::new(
            "tls",
            Kind::Table(&TLS),
            "certificates and client authentication",
            "",
        ),
        Key::new("admin", Kind::Table(&ADMIN), "health and metrics", ""),
        Key::new("log", Kind::Table(&LOG), "access line and own log", ""),
        Key::new(
            "upstreams",
            Kind::NamedTables(&UPSTREAM),
            "the backends",
            "",
        ),
        Key::new("identity", Kind::Table(&IDENTITY), IDENTITY.doc, ""),
        Key::new(
            "issuers",
            Kind::NamedTables(&ISSUER),
            "who signs tokens",
            "",
        ),
        Key::new(
            "api_keys",
            Kind::NamedTables(&API_KEY),
            "keys that callers show",
            "",
        ),
        Key::new(
            "roles",
            Kind::Map(&Kind::Table(&roles::SECTION)),
            "what roles bring with them: other roles, and permissions",
            "",
        ),
        Key::new(
            "signers",
            Kind::NamedTables(&SIGNER),
            "who signs requests",
            "",
        ),
        Key::new(
            "client_certificates",
            Kind::NamedTables(&CLIENT_CERTIFICATE),
            "client certificates that count, and whom they mean",
            "",
        ),
        Key::new("session", Kind::Table(&SESSION), SESSION.doc, ""),
        Key::new("mfa", Kind::Table(&MFA), MFA.doc, ""),
        Key::new(
            "defaults",
            Kind::Table(&DEFAULTS),
            "policy of every route that says nothing else",
            "",
        ),
        Key::new(
            "blueprints",
            Kind::Tables(&BLUEPRINT),
            "groups of routes",
            "",
        ),
    ],
};

macro_rules! policies {
    ($($more:expr),* $(,)?) => {
        &[
            $($more,)*
            Key::new("auth", authn::KIND, authn::SECTION.doc, ""),
            Key::new("headers", Kind::Table(&security_headers::SECTION), security_headers::SECTION.doc, ""),
            Key::new("cookies", Kind::Table(&cookies::SECTION), cookies::SECTION.doc, ""),
            Key::new("cors", Kind::Table(&cors::SECTION), cors::SECTION.doc, ""),
            Key::new("csrf", Kind::Table(&csrf::SECTION), csrf::SECTION.doc, ""),
            Key::new("rate_limits", Kind::Tables(&rate_limit::SECTION), rate_limit::SECTION.doc, ""),
            Key::new("network", Kind::Table(&network::SECTION), network::SECTION.doc, ""),
            Key::new("ban", Kind::Table(&ban::SECTION), ban::SECTION.doc, ""),
            Key::new("body", Kind::Table(&body_limit::SECTION), body_limit::SECTION.doc, ""),
            Key::new("mask_errors", Kind::Table(&mask_errors::SECTION), mask_errors::SECTION.doc, ""),
        ]
    };
}

/// The keys that state policies, and nothing else.
pub(super) static DEFAULTS: Section = Section {
    name: "defaults",
    doc: "policy of every route that says nothing else",
    keys: policies![],
};

static BLUEPRINT: Section = Section {
    name: "blueprints",
    doc: "a group of routes with one policy",
    keys: policies![
        Key::new("name", Kind::String, "name in logs and metrics", ""),
        Key::new(
            "hosts",
            Kind::OneOrMany(&Kind::String),
            "hosts it is for, `*.example.org` for one label; any where nothing is said",
            ""
        ),
        Key::new(
            "prefix",
            Kind::String,
            "path under which it stands",
            "\"/\""
        ),
        Key::new("upstream", Kind::String, "name of [upstreams.NAME]", ""),
        Key::new(
            "unmatched",
            Kind::Choice(&["forward", "refuse"]),
            "what happens below the prefix where no route matches",
            "\"forward\""
        ),
        Key::new(
            "routes",
            Kind::Tables(&ROUTE),
            "routes below the prefix",
            ""
        ),
    ],
};

static ROUTE: Section = Section {
    name: "routes",
    doc: "one path below the prefix of its blueprint",
    keys: policies![
        Key::new(
            "name",
            Kind::String,
            "name in logs and metrics; the path where nothing is said",
            ""
        ),
        Key::new(
            "path",
            Kind::String,
            "pattern with `{name}` for one segment and `{*rest}` for the rest",
            ""
        ),
        Key::new(
            "methods",
            Kind::List(&Kind::Method),
            "methods it is for; all where nothing is said",
            ""
        ),
        Key::new(
            "upstream",
            Kind::String,
            "name of [upstreams.NAME]; that of the blueprint where nothing is said",
            ""
        ),
    ],
};
