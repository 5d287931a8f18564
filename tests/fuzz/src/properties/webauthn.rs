//! What an authenticator answers has one reading: what is read here is what a plain reader of CBOR and JSON finds, each name
//! once, and every byte is part of it.
//!
//! An input's first octet says what the rest is: an attestation object, authenticator data, a public key or client data.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use portcullis::identity::webauthn::{
    authenticator_data::{AuthenticatorData, MAX_ID},
    authenticator_data_of,
    client_data::ClientData,
    cose::PublicKey,
};
use serde_json::Value;

/// Holds an input against the properties.
pub fn hold(input: &[u8]) {
    let Some((&choice, rest)) = input.split_first() else {
        return;
    };
    match choice & 3 {
        0 => is_an_attestation(rest),
        1 => is_authenticator_data(rest),
        2 => is_a_key(rest),
        _ => is_client_data(rest),
    }
}

fn is_an_attestation(object: &[u8]) {
    let Ok(data) = authenticator_data_of(object) else {
        return;
    };
    let pairs = whole_map(object);
    let named = |name: &str| {
        let mut all = pairs
            .iter()
            .filter(|(label, _)| *label == Plain::Text(name.into()));
        let found = all.next().map(|(_, value)| value).expect("a member");
        assert!(all.next().is_none(), "{name} twice");
        found
    };
    assert_eq!(pairs.len(), 3);
    assert!(matches!(named("fmt"), Plain::Text(_)));
    assert!(matches!(named("attStmt"), Plain::Map(_)));
    assert_eq!(*named("authData"), Plain::Bytes(data.to_vec()));
    is_authenticator_data(data);
}

fn is_authenticator_data(data: &[u8]) {
    let Ok(read) = AuthenticatorData::read(data) else {
        return;
    };
    assert_eq!(*read.rp_id_hash, data[..32]);
    let bits = data[32];
    let flags = read.flags;
    assert_eq!(flags.user_present(), bits & 0x01 != 0);
    assert_eq!(flags.user_verified(), bits & 0x04 != 0);
    assert_eq!(flags.backup_eligible(), bits & 0x08 != 0);
    assert_eq!(flags.backed_up(), bits & 0x10 != 0);
    assert_eq!(read.counter.to_be_bytes(), data[33..37]);
    assert_eq!(read.attested.is_some(), bits & 0x40 != 0);
    let mut rest = &data[37..];
    if let Some(made) = read.attested {
        let length = usize::from(rest[16]) * 256 + usize::from(rest[17]);
        assert!((1..=MAX_ID).contains(&length));
        assert_eq!(*made.id, rest[18..18 + length]);
        let (key, after) = plain(&rest[18 + length..]).expect("a key");
        assert!(matches!(key, Plain::Map(_)));
        assert_eq!(*made.key, rest[18 + length..rest.len() - after.len()]);
        is_a_key(made.key);
        rest = after;
    }
    if bits & 0x80 != 0 {
        whole_map(rest);
    } else {
        assert!(rest.is_empty(), "bytes that nobody read");
    }
}

fn is_a_key(bytes: &[u8]) {
    let Ok(key) = PublicKey::read(bytes) else {
        return;
    };
    let number = |number: i128| Plain::Integer(number);
    let octets = |octets: &[u8]| Plain::Bytes(octets.to_vec());
    let expected = match key {
        PublicKey::Es256 { x, y } => vec![
            (number(1), number(2)),
            (number(3), number(-7)),
            (number(-1), number(1)),
            (number(-2), octets(x)),
            (number(-3), octets(y)),
        ],
        PublicKey::Ed25519 { x } => vec![
            (number(1), number(1)),
            (number(3), number(-8)),
            (number(-1), number(6)),
            (number(-2), octets(x)),
        ],
        PublicKey::Rs256 { n, e } => {
            assert!((256..=1024).contains(&n.len()) && n[0] != 0 && n[n.len() - 1] & 1 == 1);
            assert!(e[0] != 0 && e[e.len() - 1] & 1 == 1 && *e != [1]);
            vec![
                (number(1), number(3)),
                (number(3), number(-257)),
                (number(-1), octets(n)),
                (number(-2), octets(e)),
            ]
        }
    };
    let found = whole_map(bytes);
    assert_eq!(found.len(), expected.len());
    assert!(
        expected.iter().all(|pair| found.contains(pair)),
        "{found:?}"
    );
}

fn is_client_data(json: &[u8]) {
    let Ok(said) = ClientData::read(json) else {
        return;
    };
    let value: Value = serde_json::from_slice(json).expect("JSON");
    assert_eq!(value["type"].as_str(), Some(&*said.kind));
    assert_eq!(value["origin"].as_str(), Some(&*said.origin));
    let framed = value["crossOrigin"] == true || value.get("topOrigin").is_some();
    assert_eq!(said.is_framed, framed);
    let challenge = value["challenge"].as_str().expect("a challenge");
    match URL_SAFE_NO_PAD.decode(challenge) {
        Ok(bytes) => assert!(said.is_about(&bytes)),
        Err(_) => assert!(!said.is_about(b"")),
    }
}

/// CBOR as a tree. Tags and floating-point numbers have no place in it.
#[derive(Debug, PartialEq)]
enum Plain {
    Integer(i128),
    Bytes(Vec<u8>),
    Text(String),
    Array(Vec<Plain>),
    Map(Vec<(Plain, Plain)>),
    Simple(u8),
}

fn whole_map(bytes: &[u8]) -> Vec<(Plain, Plain)> {
    match plain(bytes).expect("CBOR") {
        (Plain::Map(pairs), b"") => pairs,
        other => panic!("one map alone: {other:?}"),
    }
}

/// The value that stands first, and what follows it (RFC 8949 §3).
fn plain(bytes: &[u8]) -> Option<(Plain, &[u8])> {
    let (&head, rest) = bytes.split_first()?;
    let (number, mut rest) = match head & 31 {
        small @ 0..=23 => (u64::from(small), rest),
        wide @ 24..=27 => {
            let (digits, rest) = rest.split_at_checked(1 << (wide - 24))?;
            let number = digits
                .iter()
                .fold(0, |number, digit| number << 8 | u64::from(*digit));
            (number, rest)
        }
        _ => return None,
    };
    let value = match head >> 5 {
        0 => Plain::Integer(number.into()),
        1 => Plain::Integer(-1 - i128::from(number)),
        kind @ (2 | 3) => {
            let (octets, after) = rest.split_at_checked(usize::try_from(number).ok()?)?;
            rest = after;
            if kind == 2 {
                Plain::Bytes(octets.to_vec())
            } else {
                Plain::Text(String::from_utf8(octets.to_vec()).ok()?)
            }
        }
        4 => {
            let mut values = Vec::new();
            for _ in 0..number {
                let (value, after) = plain(rest)?;
                values.push(value);
                rest = after;
            }
            Plain::Array(values)
        }
        5 => {
            let mut pairs = Vec::new();
            for _ in 0..number {
                let (label, after) = plain(rest)?;
                let (value, after) = plain(after)?;
                pairs.push((label, value));
                rest = after;
            }
            Plain::Map(pairs)
        }
        7 if head & 31 < 24 => Plain::Simple(head & 31),
        _ => return None,
    };
    Some((value, rest))
}
