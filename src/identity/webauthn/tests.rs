//! Whole ceremonies: those that the standard gives as examples, and those of an authenticator that lies.

use serde::Deserialize;

use self::authenticator::{Authenticator, VERIFIED};
use super::*;

#[expect(unreachable_pub, reason = "the tests over sockets use it too")]
#[path = "../../../tests/it/harness/authenticator.rs"]
mod authenticator;

const ID: &str = "app.example";
const ORIGIN: &str = "https://app.example";
const CHALLENGE: Challenge = [3; 32];

#[derive(Deserialize)]
struct Example {
    name: String,
    registration: Given,
    authentication: Given,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Given {
    challenge: String,
    #[serde(rename = "clientDataJSON")]
    client_data: String,
    #[serde(default)]
    attestation_object: String,
    #[serde(default)]
    authenticator_data: String,
    #[serde(default)]
    signature: String,
}

fn examples() -> Vec<Example> {
    let text = include_str!("../../../tests/vectors/webauthn/level3.json");
    serde_json::from_str(text).expect("the examples")
}

fn bytes(digits: &str) -> Vec<u8> {
    let pairs = digits.as_bytes().chunks(2);
    let pair = |pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
    pairs.map(pair).collect()
}

fn party(verification: Verification) -> RelyingParty {
    RelyingParty::new(ID, Box::new([ORIGIN.into()]), verification)
}

/// Both ceremonies of an example, by a party that asks so much.
fn both(example: &Example, verification: Verification) -> [Result<(), WebauthnError>; 2] {
    let origins = Box::new(["https://example.org".into()]);
    let party = RelyingParty::new("example.org", origins, verification);
    let (made, shown) = (&example.registration, &example.authentication);
    let challenge = |given: &Given| Challenge::try_from(bytes(&given.challenge)).unwrap();
    let registered = party.register(
        &challenge(made),
        &Registration {
            client_data: &bytes(&made.client_data),
            attestation: &bytes(&made.attestation_object),
        },
    );
    // The key is needed for the second one, even where the first is refused.
    let object = bytes(&made.attestation_object);
    let data = AuthenticatorData::read(authenticator_data_of(&object).unwrap()).unwrap();
    let attested = data.attested.unwrap();
    let passkey = Passkey {
        id: attested.id.into(),
        key: attested.key.into(),
        counter: data.counter,
        eligible: data.flags.backup_eligible(),
    };
    let proven = party.verify(
        &challenge(shown),
        &Assertion {
            credential: &passkey.id,
            client_data: &bytes(&shown.client_data),
            authenticator_data: &bytes(&shown.authenticator_data),
            signature: &bytes(&shown.signature),
        },
        &passkey,
    );
    [
        registered.map(|made| assert_eq!(made, passkey)),
        proven.map(|_| ()),
    ]
}

#[test]
fn the_examples_of_the_standard_hold_where_the_party_allows_them() {
    use Verification::{Preferred, Required};
    use WebauthnError::{CrossOrigin, Verification as Unverified};
    let framed = [Err(CrossOrigin); 2];
    let examples = examples();
    let expected = [
        ("none.ES256", [Err(Unverified); 2], [Ok(()); 2]),
        ("packed-self.ES256", [Ok(()), Err(Unverified)], [Ok(()); 2]),
        ("none.ES256.crossOrigin", framed, framed),
        ("none.ES256.topOrigin", framed, framed),
        (
            "none.ES256.long-credential-id",
            [Err(Unverified), Ok(())],
            [Ok(()); 2],
        ),
        ("packed.ES256", [Ok(()); 2], [Ok(()); 2]),
        ("packed.RS256", [Ok(()), Err(Unverified)], [Ok(()); 2]),
        ("packed.EdDSA", [Err(Unverified); 2], [Ok(()); 2]),
    ];
    assert_eq!(examples.len(), expected.len());
    for (example, (name, required, preferred)) in examples.iter().zip(expected) {
        assert_eq!(example.name, name);
        assert_eq!(both(example, Required), required, "{name}, required");
        assert_eq!(both(example, Preferred), preferred, "{name}, preferred");
    }
}

#[test]
fn no_bit_of_an_example_may_be_another() {
    for example in examples()
        .iter()
        .filter(|example| !example.name.contains("Origin"))
    {
        for at in [0, 9, 31, 33, 36] {
            let mut given = bytes(&example.authentication.authenticator_data);
            given[at] ^= 0x20;
            let authenticator_data = crate::crypto::hex::encode(&given);
            let authentication = Given {
                challenge: example.authentication.challenge.clone(),
                client_data: example.authentication.client_data.clone(),
                attestation_object: String::new(),
                authenticator_data,
                signature: example.authentication.signature.clone(),
            };
            let changed = Example {
                name: example.name.clone(),
                registration: Given {
                    challenge: example.registration.challenge.clone(),
                    client_data: example.registration.client_data.clone(),
                    attestation_object: example.registration.attestation_object.clone(),
                    authenticator_data: String::new(),
                    signature: String::new(),
                },
                authentication,
            };
            let [made, shown] = both(&changed, Verification::Preferred);
            assert_eq!(made, Ok(()));
            assert!(shown.is_err(), "{} with another byte {at}", example.name);
        }
    }
}

fn registered(by: &Authenticator) -> Result<Passkey, WebauthnError> {
    let made = by.register(&CHALLENGE);
    let answer = Registration {
        client_data: &made.client_data,
        attestation: &made.attestation,
    };
    party(Verification::Required).register(&CHALLENGE, &answer)
}

fn proven(by: &Authenticator, passkey: &Passkey) -> Result<Proven, WebauthnError> {
    let shown = by.show(&CHALLENGE);
    let answer = Assertion {
        credential: &by.id,
        client_data: &shown.client_data,
        authenticator_data: &shown.authenticator_data,
        signature: &shown.signature,
    };
    party(Verification::Required).verify(&CHALLENGE, &answer, passkey)
}

fn honest() -> Authenticator {
    Authenticator::new(ID, ORIGIN)
}

/// What is told wrong.
type Lie = fn(&mut Authenticator);

/// Both ceremonies refuse each lie with its reason, and hold without it.
fn refuse(lies: &[(&str, Lie, WebauthnError)]) {
    for (what, lie, error) in lies {
        let mut by = honest();
        let passkey = registered(&by).unwrap();
        assert!(proven(&by, &passkey).is_ok());
        lie(&mut by);
        assert_eq!(registered(&by), Err(*error), "{what}");
        assert_eq!(proven(&by, &passkey), Err(*error), "{what}");
    }
}

#[test]
fn b34_the_page_that_asked_is_one_of_the_configured_origins() {
    use WebauthnError::{CrossOrigin, Origin};
    refuse(&[
        (
            "another",
            |by| by.origin = "https://evil.example".into(),
            Origin,
        ),
        ("longer", |by| by.origin.push_str(".evil.example"), Origin),
        ("a port", |by| by.origin.push_str(":443"), Origin),
        ("a slash", |by| by.origin.push('/'), Origin),
        ("in capitals", |by| by.origin.make_ascii_uppercase(), Origin),
        (
            "in clear",
            |by| by.origin = "http://app.example".into(),
            Origin,
        ),
        (
            "a frame",
            |by| by.more = ",\"crossOrigin\":true".into(),
            CrossOrigin,
        ),
        (
            "a page above",
            |by| by.more = ",\"topOrigin\":\"https://app.example\"".into(),
            CrossOrigin,
        ),
        (
            "said twice",
            |by| by.more = ",\"origin\":\"https://app.example\"".into(),
            WebauthnError::ClientData,
        ),
        (
            "another ceremony",
            |by| by.kind = Some("payment.get"),
            WebauthnError::Type,
        ),
    ]);
}

#[test]
fn b34_the_authenticator_says_who_it_is_for_and_that_its_owner_was_there() {
    refuse(&[
        (
            "another name",
            |by| by.rp_id = "evil.example".into(),
            WebauthnError::RelyingParty,
        ),
        (
            "a name above",
            |by| by.rp_id = "example".into(),
            WebauthnError::RelyingParty,
        ),
        (
            "nobody there",
            |by| by.flags = 0x04,
            WebauthnError::Presence,
        ),
        (
            "nobody verified",
            |by| by.flags = 0x01,
            WebauthnError::Verification,
        ),
        (
            "a copy of what has none",
            |by| by.flags = VERIFIED | 0x10,
            WebauthnError::Backup,
        ),
        (
            "extensions that do not come",
            |by| by.flags = VERIFIED | 0x80,
            WebauthnError::AuthenticatorData,
        ),
    ]);
}

#[test]
fn b34_an_answer_counts_for_its_own_challenge_and_ceremony() {
    let by = honest();
    let passkey = registered(&by).unwrap();
    let party = party(Verification::Required);
    let (made, shown) = (by.register(&CHALLENGE), by.show(&CHALLENGE));
    let other = [4; 32];
    let registration = Registration {
        client_data: &made.client_data,
        attestation: &made.attestation,
    };
    assert_eq!(
        party.register(&other, &registration),
        Err(WebauthnError::Challenge)
    );
    let assertion = Assertion {
        credential: &by.id,
        client_data: &shown.client_data,
        authenticator_data: &shown.authenticator_data,
        signature: &shown.signature,
    };
    assert_eq!(
        party.verify(&other, &assertion, &passkey),
        Err(WebauthnError::Challenge)
    );
    let turned = Registration {
        client_data: &shown.client_data,
        ..registration
    };
    assert_eq!(
        party.register(&CHALLENGE, &turned),
        Err(WebauthnError::Type)
    );
    let turned = Assertion {
        client_data: &made.client_data,
        ..assertion
    };
    assert_eq!(
        party.verify(&CHALLENGE, &turned, &passkey),
        Err(WebauthnError::Type)
    );
}

#[test]
fn b34_only_the_holder_of_the_key_proves_a_passkey() {
    let (by, other) = (honest(), honest());
    let passkey = registered(&by).unwrap();
    assert_eq!(proven(&other, &passkey), Err(WebauthnError::Credential));
    let mut thief = other;
    thief.id.clone_from(&by.id);
    assert_eq!(proven(&thief, &passkey), Err(WebauthnError::Signature));
    let mut copied = by;
    copied.flags = VERIFIED | 0x08;
    assert_eq!(proven(&copied, &passkey), Err(WebauthnError::Backup));
}

#[test]
fn b34_a_counter_only_goes_on() {
    let mut by = honest();
    let mut passkey = registered(&by).unwrap();
    let mut next = |counter, kept| {
        by.counter = counter;
        passkey.counter = kept;
        proven(&by, &passkey).map(|proven| proven.counter)
    };
    assert_eq!(next(0, 0), Ok(0));
    assert_eq!(next(1, 0), Ok(1));
    assert_eq!(next(u32::MAX, 1), Ok(u32::MAX));
    for (counter, kept) in [(7, 7), (6, 7), (0, 7), (0, u32::MAX)] {
        assert_eq!(
            next(counter, kept),
            Err(WebauthnError::Counter),
            "{counter} after {kept}"
        );
    }
}

#[test]
fn what_is_too_long_is_not_read() {
    let by = honest();
    let passkey = registered(&by).unwrap();
    let party = party(Verification::Required);
    let long = |limit: usize| vec![b' '; limit + 1];
    let (made, shown) = (by.register(&CHALLENGE), by.show(&CHALLENGE));
    for (client_data, attestation) in [
        (long(MAX_CLIENT_DATA), made.attestation.clone()),
        (made.client_data.clone(), long(MAX_ATTESTATION)),
    ] {
        let answer = Registration {
            client_data: &client_data,
            attestation: &attestation,
        };
        assert_eq!(
            party.register(&CHALLENGE, &answer),
            Err(WebauthnError::TooLong)
        );
    }
    let (data, signature) = (long(MAX_AUTHENTICATOR_DATA), long(MAX_SIGNATURE));
    let good = Assertion {
        credential: &by.id,
        client_data: &shown.client_data,
        authenticator_data: &shown.authenticator_data,
        signature: &shown.signature,
    };
    let client_data = long(MAX_CLIENT_DATA);
    for answer in [
        Assertion {
            client_data: &client_data,
            ..good
        },
        Assertion {
            authenticator_data: &data,
            ..good
        },
        Assertion {
            signature: &signature,
            ..good
        },
    ] {
        assert_eq!(
            party.verify(&CHALLENGE, &answer, &passkey),
            Err(WebauthnError::TooLong)
        );
    }
}

#[test]
fn a_point_beside_its_curve_is_no_key() {
    let by = honest();
    let mut made = by.register(&CHALLENGE);
    *made.attestation.last_mut().unwrap() ^= 1;
    let answer = Registration {
        client_data: &made.client_data,
        attestation: &made.attestation,
    };
    let refused = party(Verification::Required).register(&CHALLENGE, &answer);
    assert_eq!(refused, Err(WebauthnError::Key));
}

#[test]
fn a_passkey_is_not_told_by_debug() {
    let passkey = registered(&honest()).unwrap();
    let text = format!("{passkey:?}");
    assert_eq!(text, "Passkey { counter: 0, eligible: false, .. }");
}
