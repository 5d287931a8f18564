//! An authenticator and its browser in software: makes passkeys and proves them (Web Authentication Level 3 §6.3), and lies where told.
//!
//! It shares no code with the gate but the arithmetic of its keys. The unit tests of the gate's reader use it too.

use aws_lc_rs::{
    digest::{SHA256, digest},
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair},
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};

/// Somebody was there, and was made sure of.
pub const VERIFIED: u8 = 0x05;
/// The bit that says that a credential is told.
const ATTESTED: u8 = 0x40;

/// One credential, and what is said of it.
pub struct Authenticator {
    pair: EcdsaKeyPair,
    /// The id of the credential.
    pub id: Vec<u8>,
    /// The name that it says it is bound to.
    pub rp_id: String,
    /// The origin that the browser names.
    pub origin: String,
    /// The ceremony that the browser names instead of the real one.
    pub kind: Option<&'static str>,
    /// More members of the client data, each with a comma in front.
    pub more: String,
    /// The flags, but for that of a new credential.
    pub flags: u8,
    /// The signature counter of the next answer.
    pub counter: u32,
}

/// The answer that makes a passkey.
pub struct Made {
    /// `clientDataJSON`.
    pub client_data: Vec<u8>,
    /// `attestationObject`.
    pub attestation: Vec<u8>,
}

/// The answer that proves one.
pub struct Shown {
    /// `clientDataJSON`.
    pub client_data: Vec<u8>,
    /// `authenticatorData`.
    pub authenticator_data: Vec<u8>,
    /// The signature over both.
    pub signature: Vec<u8>,
}

impl Authenticator {
    /// An honest one, with a new key.
    pub fn new(rp_id: &str, origin: &str) -> Self {
        let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).expect("a key");
        let id = sha256(pair.public_key().as_ref())[..16].to_vec();
        Self {
            pair,
            id,
            rp_id: rp_id.to_owned(),
            origin: origin.to_owned(),
            kind: None,
            more: String::new(),
            flags: VERIFIED,
            counter: 0,
        }
    }

    /// Makes the credential known.
    pub fn register(&self, challenge: &[u8]) -> Made {
        let credential = [
            &[0; 16][..],
            &u16::try_from(self.id.len())
                .expect("a short id")
                .to_be_bytes(),
            &self.id,
            &self.key(),
        ]
        .concat();
        let data = self.data(self.flags | ATTESTED, &credential);
        let length = u16::try_from(data.len()).expect("short data").to_be_bytes();
        let head = b"\xa3\x63fmt\x64none\x67attStmt\xa0\x68authData\x59";
        Made {
            client_data: self.client_data("webauthn.create", challenge),
            attestation: [&head[..], &length, &data].concat(),
        }
    }

    /// Proves the credential.
    pub fn show(&self, challenge: &[u8]) -> Shown {
        let client_data = self.client_data("webauthn.get", challenge);
        let authenticator_data = self.data(self.flags, b"");
        let message = [&authenticator_data[..], &sha256(&client_data)].concat();
        let signature = self.pair.sign(&SystemRandom::new(), &message);
        Shown {
            client_data,
            authenticator_data,
            signature: signature.expect("a signature").as_ref().to_vec(),
        }
    }

    fn client_data(&self, kind: &str, challenge: &[u8]) -> Vec<u8> {
        let (kind, challenge) = (self.kind.unwrap_or(kind), URL_SAFE_NO_PAD.encode(challenge));
        let (origin, more) = (&self.origin, &self.more);
        format!(r#"{{"type":"{kind}","challenge":"{challenge}","origin":"{origin}"{more}}}"#).into()
    }

    fn data(&self, flags: u8, rest: &[u8]) -> Vec<u8> {
        let hash = sha256(self.rp_id.as_bytes());
        [&hash[..], &[flags], &self.counter.to_be_bytes(), rest].concat()
    }

    /// The public key as a `COSE_Key`.
    fn key(&self) -> Vec<u8> {
        let point = self.pair.public_key().as_ref();
        let (x, y) = (&point[1..33], &point[33..]);
        [
            b"\xa5\x01\x02\x03\x26\x20\x01\x21\x58\x20",
            x,
            b"\x22\x58\x20",
            y,
        ]
        .concat()
    }
}

fn sha256(bytes: &[u8]) -> Vec<u8> {
    digest(&SHA256, bytes).as_ref().to_vec()
}
