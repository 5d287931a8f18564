//! The demo's issuer: one ES256 key made on the spot (RFC 7518 §3.4), its key set over loopback, and ready tokens.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::anyhow;
use aws_lc_rs::{
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair},
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use bytes::Bytes;
use http::{Response, header, header::HeaderValue};
use http_body_util::Full;
use hyper::{server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpListener;

/// The claim `iss` of the demo's tokens.
pub(super) const NAME: &str = "https://issuer.demo.example";
/// The claim `aud` that means the demo's gate.
pub(super) const AUDIENCE: &str = "portcullis-demo";
const KEY_ID: &str = "demo-1";
const LIFE: Duration = Duration::from_hours(12);

/// A signer of tokens.
pub(super) struct Issuer {
    key: EcdsaKeyPair,
}

/// What a token says about its holder.
pub(super) struct Holder {
    pub(super) name: &'static str,
    pub(super) roles: &'static [&'static str],
    pub(super) scope: &'static str,
}

impl Issuer {
    /// Makes the key.
    pub(super) fn new() -> anyhow::Result<Self> {
        let key = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING)
            .map_err(|_| anyhow!("no key could be made"))?;
        Ok(Self { key })
    }

    /// The public key as a key set (RFC 7517 §5).
    pub(super) fn key_set(&self) -> String {
        // SEC 1 §2.3.3: 0x04, then both coordinates.
        let (x, y) = self
            .key
            .public_key()
            .as_ref()
            .get(1..)
            .and_then(|point| point.split_at_checked(32))
            .unwrap_or_default();
        json!({"keys": [{
            "kty": "EC", "crv": "P-256", "alg": "ES256", "use": "sig", "kid": KEY_ID,
            "x": encode(x), "y": encode(y),
        }]})
        .to_string()
    }

    /// A token that the gate takes.
    pub(super) fn token(&self, holder: &Holder) -> String {
        self.sign(&claims(holder))
    }

    /// A token that ended an hour ago.
    pub(super) fn expired(&self, holder: &Holder) -> String {
        let mut claims = claims(holder);
        let hour = Duration::from_hours(1);
        claims["iat"] = json!(now().saturating_sub(2 * hour).as_secs());
        claims["exp"] = json!(now().saturating_sub(hour).as_secs());
        self.sign(&claims)
    }

    /// A token for somebody else's service.
    pub(super) fn foreign(&self, holder: &Holder) -> String {
        let mut claims = claims(holder);
        claims["aud"] = json!("another-service");
        self.sign(&claims)
    }

    fn sign(&self, claims: &Value) -> String {
        let header = json!({"alg": "ES256", "typ": "JWT", "kid": KEY_ID}).to_string();
        let message = format!("{}.{}", encode(header), encode(claims.to_string()));
        let signature = self
            .key
            .sign(&SystemRandom::new(), message.as_bytes())
            .expect("a key that was just made signs");
        format!("{message}.{}", encode(signature))
    }
}

fn claims(holder: &Holder) -> Value {
    json!({
        "iss": NAME,
        "aud": AUDIENCE,
        "sub": holder.name,
        "iat": now().as_secs(),
        "exp": now().saturating_add(LIFE).as_secs(),
        "realm_access": {"roles": holder.roles},
        "scope": holder.scope,
    })
}

fn now() -> Duration {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
}

fn encode(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// Serves the key set, whatever the path, until the runtime ends.
pub(super) async fn serve(listener: TcpListener, key_set: Bytes) {
    while let Ok((stream, _)) = listener.accept().await {
        let key_set = key_set.clone();
        tokio::spawn(async move {
            let service = service_fn(move |_| {
                let mut answer = Response::new(Full::new(key_set.clone()));
                answer.headers_mut().insert(
                    header::CONTENT_TYPE,
                    HeaderValue::from_static("application/jwk-set+json"),
                );
                async move { Ok::<_, std::convert::Infallible>(answer) }
            });
            let io = TokioIo::new(stream);
            // A client that goes away is no news here.
            let _ = http1::Builder::new().serve_connection(io, service).await;
        });
    }
}
