//! A real `OpenID` provider: `tests/apps/oidc.mjs`, whose tokens, keys and answers are those of `oidc-provider`.

use std::process::Command;

use serde_json::json;

use super::instructed::Instructed;
use super::python::{app, node};

/// What a token looks like.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    /// Signed (RFC 9068).
    Jwt,
    /// A word that only the provider understands.
    Opaque,
}

/// The running provider. Its clients are `app`, for whom tokens are made, and `gate`.
pub struct Oidc(Instructed);

impl Oidc {
    /// Starts it with one key.
    pub fn start() -> Self {
        let mut command = Command::new(node());
        command.arg(app("oidc.mjs"));
        Self(Instructed::start("the provider", &mut command))
    }

    /// The value of `iss`, where its discovery document is found.
    pub fn issuer(&self) -> &str {
        &self.0.url
    }

    /// The `[issuers.corp]` section that trusts it through discovery and asks it about opaque tokens, with further lines.
    pub fn section(&self, lines: &str) -> String {
        let issuer = self.issuer();
        format!(
            "[issuers.corp]\nissuer = \"{issuer}\"\naudience = [\"portcullis\"]\ndiscovery = true\n\
             token_type = \"at+jwt\"\nroles = [\"roles\"]\n{lines}\n\
             [issuers.corp.introspection]\nurl = \"{issuer}/token/introspection\"\nclient_id = \"gate\"\n\
             client_secret = {{ env = \"GATE_SECRET\" }}\n"
        )
    }

    /// The secret of the client `gate`.
    pub const SECRET: &str = "gate-secret:%";

    /// A fresh token from the token endpoint, by client credentials.
    pub fn token(&self, kind: Kind) -> String {
        let kind = match kind {
            Kind::Jwt => "jwt",
            Kind::Opaque => "opaque",
        };
        let answer = self.0.ask(&json!({"do": "token", "kind": kind}));
        answer["token"].as_str().expect("a token").to_owned()
    }

    /// Withdraws an opaque token at the revocation endpoint (RFC 7009).
    pub fn revoke(&self, token: &str) {
        self.0.ask(&json!({"do": "revoke", "token": token}));
    }

    /// Signs with a new key from now on; the old ones stay published.
    pub fn rotate(&self) {
        self.0.ask(&json!({"do": "rotate"}));
    }

    /// Publishes the newest key alone from now on.
    pub fn retire(&self) {
        self.0.ask(&json!({"do": "retire"}));
    }

    /// Closes the port and all connections.
    pub fn go_down(&self) {
        self.0.ask(&json!({"do": "down"}));
    }

    /// Opens the port again.
    pub fn come_up(&self) {
        self.0.ask(&json!({"do": "up"}));
    }

    /// How often a path was asked for.
    pub fn fetches(&self, path: &str) -> u64 {
        let answer = self.0.ask(&json!({"do": "fetches", "path": path}));
        answer["fetches"].as_u64().expect("a count")
    }
}
