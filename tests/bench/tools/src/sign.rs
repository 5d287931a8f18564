//! Signs many tokens at once; starting a program for each would take minutes.

use crate::arguments::Arguments;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::rand::SystemRandom;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, RSA_PKCS1_SHA256, RsaKeyPair,
};
use std::error::Error;
use std::io::{self, BufRead, Write};

enum Key {
    Ecdsa(EcdsaKeyPair),
    Rsa(RsaKeyPair),
}

/// Reads `header.payload` lines and prints each with its signature. The key is PKCS#8 in DER.
pub(crate) fn sign_lines(arguments: &Arguments) -> Result<(), Box<dyn Error>> {
    let random = SystemRandom::new();
    let file = std::fs::read(arguments.text("key").ok_or("key=… is missing")?)?;
    let key = match arguments.text("alg") {
        Some("ES256") => Key::Ecdsa(
            EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &file, &random)
                .map_err(rejected)?,
        ),
        Some("RS256") => Key::Rsa(RsaKeyPair::from_pkcs8(&file).map_err(rejected)?),
        _ => return Err("alg is ES256 or RS256".into()),
    };
    let mut out = io::BufWriter::new(io::stdout().lock());
    for line in io::stdin().lock().lines() {
        let line = line?;
        let signature = match &key {
            Key::Ecdsa(pair) => pair
                .sign(&random, line.as_bytes())
                .map_err(|_| "the key does not sign")?
                .as_ref()
                .to_vec(),
            Key::Rsa(pair) => {
                let mut bytes = vec![0; pair.public().modulus_len()];
                pair.sign(&RSA_PKCS1_SHA256, &random, line.as_bytes(), &mut bytes)
                    .map_err(|_| "the key does not sign")?;
                bytes
            }
        };
        writeln!(out, "{line}.{}", URL_SAFE_NO_PAD.encode(signature))?;
    }
    Ok(out.flush()?)
}

fn rejected(error: ring::error::KeyRejected) -> String {
    format!("the key is not PKCS#8 of this kind: {error}")
}
