//! What a proof of possession and a condition cost a request whose token is remembered. For `pipeline --signatures`.
//!
//! The proof (RFC 9449) is new for each request, as it must be; the condition is of the kind that files have. Both are run
//! by the policies themselves, and beside them the bare check of the proof's signature.

use std::hint::black_box;

use aws_lc_rs::{
    digest, hmac,
    rand::SystemRandom,
    signature::{
        ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair,
        UnparsedPublicKey,
    },
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use portcullis::{
    policy::{authn, conditions},
    state::clock,
};

use super::signatures::{exchange, snapshot, tell, tell_of};

const GATE: &str = r#"
[server]
http = ["127.0.0.1:0"]
plaintext = true
workers = 1

[upstreams.origin]
servers = ["http://127.0.0.1:9"]

[issuers.corp]
issuer = "https://idp.example"
audience = ["portcullis"]
secret = { file = "FOLDER/secret" }
algorithms = ["HS256"]
roles = ["groups"]
[issuers.corp.dpop]

[[blueprints]]
name = "all"
hosts = ["app.example"]
upstream = "origin"
[blueprints.auth]
require = ["bearer"]
issuers = ["corp"]
claims = { tenant = "acme" }
condition = "method == 'GET' && (claims.clearance >= 3 || subject == 'root')"
"#;

const SECRET: &str = "a secret that issuer and gate share, of 32 bytes or more";

/// Prints the nanoseconds of each, the best of many.
pub(crate) fn report() {
    let snapshot = snapshot(GATE, &[("secret", SECRET)]);
    let runtime = tokio::runtime::Builder::new_current_thread().build();
    let runtime = runtime.expect("a runtime");
    let policies = &snapshot.routes.first().expect("a route").policies;
    let holder = Holder::new();
    let mut asked = 0_u32;
    let mut proven = || {
        asked += 1;
        exchange(&snapshot, &holder.fields(asked))
    };
    let mut met = proven();
    tell_of("DPoP, ES256, its token remembered", proven, |exchange| {
        let verdict = runtime.block_on(authn::admit(&policies.authn, black_box(exchange)));
        assert!(verdict.is_ok(), "a good proof: {verdict:?}");
    });
    let proof = holder.proof(0);
    let (message, signature) = proof.rsplit_once('.').expect("three parts");
    let signature = URL_SAFE_NO_PAD.decode(signature).expect("a signature");
    let public = UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, holder.key.public_key());
    tell("ES256 of the proof", || {
        let same = public.verify(black_box(message.as_bytes()), &signature);
        same.expect("the same octets");
    });
    let verdict = runtime.block_on(authn::admit(&policies.authn, &mut met));
    assert!(verdict.is_ok(), "a good proof");
    let stated = policies.conditions.as_ref().expect("a condition");
    tell("a claim and a condition (CEL)", || {
        let verdict = conditions::admit(stated, black_box(&mut met));
        assert!(verdict.is_ok(), "the condition holds");
    });
}

/// A client with a key, and with a token that is bound to it.
struct Holder {
    key: EcdsaKeyPair,
    jwk: String,
    token: String,
}

impl Holder {
    fn new() -> Self {
        let key = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).expect("a key");
        // SEC 1 §2.3.3: a byte for the form, then both coordinates.
        let (x, y) = key.public_key().as_ref()[1..].split_at(32);
        let (x, y) = (URL_SAFE_NO_PAD.encode(x), URL_SAFE_NO_PAD.encode(y));
        let jwk = format!(r#"{{"crv":"P-256","kty":"EC","x":"{x}","y":"{y}"}}"#);
        let token = token(&hash(jwk.as_bytes()));
        Self { key, jwk, token }
    }

    /// The fields of one request.
    fn fields(&self, number: u32) -> Vec<(&'static str, String)> {
        let authorization = format!("DPoP {}", self.token);
        vec![
            ("authorization", authorization),
            ("dpop", self.proof(number)),
        ]
    }

    fn proof(&self, number: u32) -> String {
        let header = format!(r#"{{"typ":"dpop+jwt","alg":"ES256","jwk":{}}}"#, self.jwk);
        let claims = format!(
            r#"{{"jti":"{number}","htm":"GET","htu":"https://app.example/items/42","iat":{},"ath":"{}"}}"#,
            clock::unix_seconds(),
            hash(self.token.as_bytes())
        );
        let message = message(&header, &claims);
        let signature = self.key.sign(&SystemRandom::new(), message.as_bytes());
        let signature = signature.expect("a signature");
        [message, URL_SAFE_NO_PAD.encode(signature)].join(".")
    }
}

/// A token of the issuer of [`GATE`], good for an hour, for the holder of the key with this thumbprint.
fn token(thumbprint: &str) -> String {
    let now = clock::unix_seconds();
    let claims = format!(
        r#"{{"iss":"https://idp.example","aud":"portcullis","sub":"user-1","iat":{now},"exp":{},"groups":["reader"],"tenant":"acme","clearance":4,"cnf":{{"jkt":"{thumbprint}"}}}}"#,
        now + 3600
    );
    let message = message(r#"{"alg":"HS256","typ":"JWT"}"#, &claims);
    let key = hmac::Key::new(hmac::HMAC_SHA256, SECRET.as_bytes());
    let signature = hmac::sign(&key, message.as_bytes());
    [message, URL_SAFE_NO_PAD.encode(signature)].join(".")
}

fn message(header: &str, claims: &str) -> String {
    [header, claims]
        .map(|part| URL_SAFE_NO_PAD.encode(part))
        .join(".")
}

fn hash(octets: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(digest::digest(&digest::SHA256, octets))
}
