//! For the unit tests of this room only: keys, tokens and a key-set server made on the spot.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use arc_swap::ArcSwap;
use aws_lc_rs::hmac;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{self, EcdsaKeyPair, Ed25519KeyPair, KeyPair, RsaKeyPair};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::jws::Algorithm;

/// A private key and the algorithm it signs with.
pub(super) enum Minter {
    Rsa(&'static RsaKeyPair, Algorithm),
    Ec(EcdsaKeyPair, Algorithm),
    Ed(Ed25519KeyPair),
    Secret(Vec<u8>, Algorithm),
}

pub(super) fn encode(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

impl Minter {
    pub(super) fn new(algorithm: Algorithm) -> Self {
        static RSA: OnceLock<RsaKeyPair> = OnceLock::new();
        match algorithm {
            Algorithm::Es256 => Self::Ec(
                EcdsaKeyPair::generate(&signature::ECDSA_P256_SHA256_FIXED_SIGNING).unwrap(),
                algorithm,
            ),
            Algorithm::Es384 => Self::Ec(
                EcdsaKeyPair::generate(&signature::ECDSA_P384_SHA384_FIXED_SIGNING).unwrap(),
                algorithm,
            ),
            Algorithm::EdDsa => Self::Ed(Ed25519KeyPair::generate().unwrap()),
            Algorithm::Hs256 | Algorithm::Hs384 | Algorithm::Hs512 => {
                let mut secret = vec![0; 64];
                crate::crypto::rng::fill(&mut secret);
                Self::Secret(secret, algorithm)
            }
            _ => Self::Rsa(
                RSA.get_or_init(|| RsaKeyPair::generate(KeySize::Rsa2048).unwrap()),
                algorithm,
            ),
        }
    }

    pub(super) fn algorithm(&self) -> Algorithm {
        match self {
            Self::Rsa(_, algorithm) | Self::Ec(_, algorithm) | Self::Secret(_, algorithm) => {
                *algorithm
            }
            Self::Ed(_) => Algorithm::EdDsa,
        }
    }

    /// The public key with this id.
    pub(super) fn jwk(&self, id: &str) -> Value {
        match self {
            Self::Rsa(key, _) => {
                // PKCS #1: SEQUENCE { INTEGER n with a sign byte, INTEGER 65537 }.
                let der = key.public_key().as_ref();
                json!({"kty": "RSA", "kid": id, "n": encode(&der[9..265]), "e": "AQAB"})
            }
            Self::Ec(key, algorithm) => {
                let point = &key.public_key().as_ref()[1..];
                let (x, y) = point.split_at(point.len() / 2);
                let curve = if *algorithm == Algorithm::Es256 {
                    "P-256"
                } else {
                    "P-384"
                };
                json!({"kty": "EC", "kid": id, "crv": curve, "x": encode(x), "y": encode(y)})
            }
            Self::Ed(key) => {
                json!({"kty": "OKP", "kid": id, "crv": "Ed25519", "x": encode(key.public_key().as_ref())})
            }
            Self::Secret(secret, _) => json!({"kty": "oct", "kid": id, "k": encode(secret)}),
        }
    }

    pub(super) fn sign(&self, message: &[u8]) -> Vec<u8> {
        let random = SystemRandom::new();
        match self {
            Self::Rsa(key, algorithm) => {
                let padding: &dyn signature::RsaEncoding = match algorithm {
                    Algorithm::Rs384 => &signature::RSA_PKCS1_SHA384,
                    Algorithm::Rs512 => &signature::RSA_PKCS1_SHA512,
                    Algorithm::Ps256 => &signature::RSA_PSS_SHA256,
                    Algorithm::Ps384 => &signature::RSA_PSS_SHA384,
                    Algorithm::Ps512 => &signature::RSA_PSS_SHA512,
                    _ => &signature::RSA_PKCS1_SHA256,
                };
                let mut out = vec![0; key.public_modulus_len()];
                key.sign(padding, &random, message, &mut out).unwrap();
                out
            }
            Self::Ec(key, _) => key.sign(&random, message).unwrap().as_ref().to_vec(),
            Self::Ed(key) => key.sign(message).as_ref().to_vec(),
            Self::Secret(secret, algorithm) => {
                let hash = match algorithm {
                    Algorithm::Hs384 => hmac::HMAC_SHA384,
                    Algorithm::Hs512 => hmac::HMAC_SHA512,
                    _ => hmac::HMAC_SHA256,
                };
                hmac::sign(&hmac::Key::new(hash, secret), message)
                    .as_ref()
                    .to_vec()
            }
        }
    }

    /// A token with this header and these claims, as text, so that they may be malformed.
    pub(super) fn raw(&self, header: &str, claims: &str) -> String {
        let message = format!("{}.{}", encode(header), encode(claims));
        let signature = encode(self.sign(message.as_bytes()));
        format!("{message}.{signature}")
    }

    /// A token with the usual header.
    pub(super) fn mint(&self, id: &str, claims: &Value) -> String {
        let header = json!({"alg": self.algorithm().name(), "typ": "JWT", "kid": id});
        self.raw(&header.to_string(), &claims.to_string())
    }
}

/// A server of key sets or of answers about tokens, on a free port of this machine; it dies with the runtime of the test.
pub(super) struct KeyServer {
    pub(super) url: String,
    shared: Arc<Shared>,
}

struct Shared {
    answer: ArcSwap<String>,
    /// Each request as it came, head and body.
    requests: Mutex<Vec<String>>,
    pause: ArcSwap<Duration>,
    at_once: AtomicU32,
    most_at_once: AtomicU32,
}

impl KeyServer {
    pub(super) async fn start(answer: String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/keys?x=1", listener.local_addr().unwrap());
        let shared = Arc::new(Shared {
            answer: ArcSwap::from_pointee(answer),
            requests: Mutex::default(),
            pause: ArcSwap::from_pointee(Duration::ZERO),
            at_once: AtomicU32::new(0),
            most_at_once: AtomicU32::new(0),
        });
        let serving = Arc::clone(&shared);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(Arc::clone(&serving).serve(stream));
            }
        });
        Self { url, shared }
    }

    /// One that serves these keys.
    pub(super) async fn with_keys(keys: &[Value]) -> Self {
        Self::start(ok(&json!({ "keys": keys }))).await
    }

    pub(super) fn answer_with(&self, answer: String) {
        self.shared.answer.store(Arc::new(answer));
    }

    /// Lets this time pass before each answer.
    pub(super) fn pause(&self, time: Duration) {
        self.shared.pause.store(Arc::new(time));
    }

    pub(super) fn requests(&self) -> u32 {
        u32::try_from(self.seen().len()).unwrap()
    }

    /// Each request as it came, head and body.
    pub(super) fn seen(&self) -> Vec<String> {
        self.shared.requests.lock().unwrap().clone()
    }

    pub(super) fn most_at_once(&self) -> u32 {
        self.shared.most_at_once.load(Ordering::SeqCst)
    }
}

impl Shared {
    async fn serve(self: Arc<Self>, mut stream: TcpStream) {
        let request = read_request(&mut stream).await;
        assert!(request.starts_with("GET /") || request.starts_with("POST /"));
        self.requests.lock().unwrap().push(request);
        let now = self.at_once.fetch_add(1, Ordering::SeqCst) + 1;
        self.most_at_once.fetch_max(now, Ordering::SeqCst);
        let pause = **self.pause.load();
        tokio::time::sleep(pause).await;
        let answer = self.answer.load_full();
        self.at_once.fetch_sub(1, Ordering::SeqCst);
        let _ = stream.write_all(answer.as_bytes()).await;
    }
}

/// The head, and as much of a body as it announces.
async fn read_request(stream: &mut TcpStream) -> String {
    let (mut request, mut piece) = (Vec::new(), [0; 4096]);
    loop {
        let read = stream.read(&mut piece).await.unwrap_or(0);
        request.extend_from_slice(&piece[..read]);
        let text = String::from_utf8_lossy(&request).into_owned();
        let Some((head, body)) = text.split_once("\r\n\r\n") else {
            assert!(read > 0, "half a request: {text}");
            continue;
        };
        let length = head
            .lines()
            .find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
        if body.len() >= length.unwrap_or(0) {
            return text;
        }
    }
}

/// A whole answer with this document.
pub(super) fn ok(document: &Value) -> String {
    let body = document.to_string();
    format!(
        "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
}
