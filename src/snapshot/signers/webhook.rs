//! `scheme = "github"`, `"stripe"`, `"slack"` and `"hmac"`: codes over the body.

use std::sync::Arc;

use http::HeaderName;

use super::{Making, arrives, once, require};
use crate::{
    config::Reader,
    crypto::mac::MacKey,
    identity::{
        signer::Scheme,
        webhook::{Encoding, Form, Webhook},
    },
};

/// A shorter secret can be guessed from one delivery.
const SHORT: usize = 16;

/// Compiles a sender of webhooks.
pub(super) fn compile(
    making: &mut Making<'_>,
    reader: &Reader<'_>,
    scheme: &str,
) -> Option<Scheme> {
    let (name, at) = (making.name, making.at);
    let hint = "the secret that both sides have: `{ file = \"…\" }` or `{ env = \"…\" }`";
    require(name, at, reader, ("secret", hint));
    let form = match scheme {
        "github" => Form::GitHub,
        "stripe" => Form::Stripe,
        "slack" => Form::Slack,
        _ => {
            require(name, at, reader, ("header", "the field of the code"));
            let field = reader.get::<HeaderName>("header")?;
            arrives(reader, ("header", &field));
            Form::Plain {
                field,
                prefix: reader.get::<String>("prefix").unwrap_or_default().into(),
                encoding: match reader.get::<String>("encoding").as_deref() {
                    Some("base64") => Encoding::Base64,
                    _ => Encoding::Hex,
                },
            }
        }
    };
    let counted: &[&str] = match form {
        Form::GitHub | Form::Plain { .. } => &["signature", "delivery"],
        Form::Stripe | Form::Slack => &["signature"],
    };
    let (max_age, once) = once::compile(making, reader, counted);
    let secrets = secrets(reader);
    let webhook = Webhook {
        form,
        secrets,
        max_age,
        once,
    };
    (!webhook.secrets.is_empty()).then(|| Scheme::Webhook(Arc::new(webhook)))
}

fn secrets(reader: &Reader<'_>) -> Vec<MacKey> {
    let secrets = reader.secrets("secret");
    if secrets.iter().any(|secret| secret.expose().len() < SHORT) {
        reader.warn(
            "secret",
            "a secret of fewer than 16 bytes can be guessed from one delivery",
            Some("make a longer one, such as by `openssl rand -hex 32`".into()),
        );
    }
    secrets
        .iter()
        .map(|secret| MacKey::new(secret.expose()))
        .collect()
}
