//! Proofs of possession, those that RFC 9449 publishes and those that must not pass. Names begin with the number of the case
//! in the project's list of behaviours (`b`).

use http::Method;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::identity::jws::Algorithm;
use crate::identity::minting::{Minter, encode};
use crate::state::nonces::PERIOD;
use crate::wire::{forwarded::Scheme, host::Authority, path::Target};

const NOW: u64 = 1_700_000_000;
const TOKEN: &[u8] = b"a.token.of-ours";

fn rules() -> DpopRules {
    DpopRules::default()
}

/// A client with a key of its own, and the gate that it proves it to.
struct Scene {
    minter: Minter,
    proofs: Proofs,
    rules: DpopRules,
    authority: Authority,
    target: Target,
}

impl Scene {
    fn new(algorithm: Algorithm) -> Self {
        Self {
            minter: Minter::new(algorithm),
            proofs: Proofs::default(),
            rules: rules(),
            authority: Authority::parse(b"app.example").unwrap(),
            target: Target::parse(&"/api?x=1".parse().unwrap()).unwrap(),
        }
    }

    fn jwk(&self) -> Value {
        let mut jwk = self.minter.jwk("k");
        jwk.as_object_mut().unwrap().remove("kid");
        jwk
    }

    fn key(&self) -> Sha256 {
        thumbprint(self.jwk().as_object().unwrap()).unwrap()
    }

    fn proof(&self, edit: impl FnOnce(&mut Value, &mut Value)) -> String {
        let mut header = json!({
            "typ": "dpop+jwt", "alg": self.minter.algorithm().name(), "jwk": self.jwk(),
        });
        let mut claims = json!({
            "jti": "1", "htm": "GET", "htu": "https://app.example/api", "iat": NOW,
            "ath": encode(sha256(TOKEN)),
        });
        edit(&mut header, &mut claims);
        self.minter.raw(&header.to_string(), &claims.to_string())
    }

    fn check_at(&self, proof: &str, now: u64) -> Result<(), ProofError> {
        let demand = Demand {
            request: Request {
                method: &Method::GET,
                scheme: Scheme::Https,
                authority: &self.authority,
                target: &self.target,
            },
            token: TOKEN,
            key: &self.key(),
            now,
        };
        self.proofs.check(proof.as_bytes(), &demand, &self.rules)
    }

    fn check(&self, proof: &str) -> Result<(), ProofError> {
        self.check_at(proof, NOW)
    }
}

fn published() -> Value {
    serde_json::from_str(include_str!("../../../tests/vectors/rfc9449/proofs.json")).unwrap()
}

fn text<'a>(vector: &'a Value, name: &str) -> &'a str {
    vector[name].as_str().unwrap()
}

/// Checks a published proof as if it had come with `token` at the second at which it was made.
fn check_published(vector: &Value, token: &str, key: &Sha256) -> Result<(), ProofError> {
    let (_, address) = text(vector, "htu").split_once("://").unwrap();
    let (host, path) = address.split_once('/').unwrap();
    let demand = Demand {
        request: Request {
            method: &text(vector, "htm").parse().unwrap(),
            scheme: Scheme::Https,
            authority: &Authority::parse(host.as_bytes()).unwrap(),
            target: &Target::parse(&format!("/{path}").parse().unwrap()).unwrap(),
        },
        token: token.as_bytes(),
        key,
        now: vector["iat"].as_u64().unwrap(),
    };
    Proofs::default().check(text(vector, "proof").as_bytes(), &demand, &rules())
}

#[test]
fn rfc_9449_7_1_the_published_proof_passes() {
    let all = published();
    let vector = &all["resource"];
    let key = proof::read(text(vector, "proof").as_bytes()).unwrap().key;
    let key = thumbprint(&key).unwrap();
    assert_eq!(encode(key), text(&all, "jkt"));
    assert_eq!(check_published(vector, text(vector, "token"), &key), Ok(()));
    assert_eq!(
        check_published(vector, "another", &key),
        Err(ProofError::Token)
    );
    assert_eq!(
        check_published(vector, text(vector, "token"), &[0; 32]),
        Err(ProofError::OtherKey)
    );
}

#[test]
fn rfc_9449_4_1_a_proof_for_the_token_endpoint_is_none_for_us() {
    let all = published();
    let vector = &all["token_endpoint"];
    let proof = proof::read(text(vector, "proof").as_bytes()).unwrap();
    let key = Key::of(&proof.key, proof.algorithm).unwrap();
    assert!(key.verify(proof.message, &proof.signature));
    let print = thumbprint(&proof.key).unwrap();
    assert_eq!(
        check_published(vector, "any", &print),
        Err(ProofError::Token)
    );
}

#[test]
fn every_kind_of_key_proves_itself() {
    for algorithm in [
        Algorithm::Es256,
        Algorithm::Es384,
        Algorithm::EdDsa,
        Algorithm::Ps256,
        Algorithm::Rs256,
    ] {
        let scene = Scene::new(algorithm);
        assert_eq!(scene.check(&scene.proof(|_, _| {})), Ok(()), "{algorithm}");
    }
}

#[test]
fn b26_a_proof_counts_once() {
    let scene = Scene::new(Algorithm::Es256);
    let proof = scene.proof(|_, _| {});
    assert_eq!(scene.check(&proof), Ok(()));
    assert_eq!(scene.check(&proof), Err(ProofError::Replayed));
    // Signed anew, under the name of the old one.
    let again = scene.proof(|_, claims| claims["iat"] = (NOW + 1).into());
    assert_eq!(scene.check(&again), Err(ProofError::Replayed));
    let next = scene.proof(|_, claims| claims["jti"] = "2".into());
    assert_eq!(scene.check(&next), Ok(()));
    // The very last second at which it would be young enough, and the first at which it is not.
    let last = NOW + rules().max_age.as_secs() + rules().leeway.as_secs() - 1;
    assert_eq!(scene.check_at(&proof, last), Err(ProofError::Replayed));
    assert_eq!(scene.check_at(&proof, last + 1), Err(ProofError::Age));
    assert_eq!(scene.proofs.remembered(), 2);
}

#[test]
fn b26_a_later_clock_beside_it_forgets_no_proof_that_would_still_pass() {
    let scene = Scene::new(Algorithm::Es256);
    let proof = scene.proof(|_, _| {});
    let last = NOW + rules().max_age.as_secs() + rules().leeway.as_secs() - 1;
    assert_eq!(scene.check_at(&proof, last), Ok(()));
    // Another request read the clock a little later, and what has ended by then is forgotten.
    for later in [1, GRACE] {
        let other = scene.proof(|_, claims| {
            claims["jti"] = format!("later {later}").into();
            claims["iat"] = (last + later).into();
        });
        assert_eq!(scene.check_at(&other, last + later), Ok(()));
        assert_eq!(
            scene.check_at(&proof, last),
            Err(ProofError::Replayed),
            "{later}"
        );
    }
}

#[test]
fn another_client_may_use_the_same_name() {
    let (one, mut two) = (Scene::new(Algorithm::Es256), Scene::new(Algorithm::Es256));
    assert_eq!(one.check(&one.proof(|_, _| {})), Ok(()));
    two.proofs = one.proofs;
    assert_eq!(two.check(&two.proof(|_, _| {})), Ok(()));
}

#[test]
fn b26_what_a_proof_must_say() {
    let scene = Scene::new(Algorithm::Es256);
    let leeway = rules().leeway.as_secs();
    let oldest = NOW - rules().max_age.as_secs() - leeway;
    for (name, member, error) in [
        ("htm", json!("POST"), ProofError::Method),
        ("htm", json!("get"), ProofError::Method),
        ("htu", json!("https://app.example/"), ProofError::Target),
        ("htu", json!("http://app.example/api"), ProofError::Target),
        (
            "htu",
            json!("https://other.example/api"),
            ProofError::Target,
        ),
        ("iat", json!(oldest), ProofError::Age),
        ("iat", json!(NOW + leeway + 1), ProofError::Age),
        ("ath", json!(encode(sha256(b"other"))), ProofError::Token),
        ("ath", json!(""), ProofError::Token),
    ] {
        let proof = scene.proof(|_, claims| claims[name] = member);
        assert_eq!(scene.check(&proof), Err(error), "{name}");
    }
    let without = scene.proof(|_, claims| {
        claims.as_object_mut().unwrap().remove("ath");
    });
    assert_eq!(scene.check(&without), Err(ProofError::Token));
    assert_eq!(
        scene.proofs.remembered(),
        0,
        "what is refused takes no room"
    );
    for (at, iat) in [oldest + 1, NOW + leeway].into_iter().enumerate() {
        let proof = scene.proof(|_, claims| {
            claims["iat"] = iat.into();
            claims["jti"] = at.to_string().into();
        });
        assert_eq!(scene.check(&proof), Ok(()), "{iat}");
    }
}

#[test]
fn a22_forged_proofs() {
    let scene = Scene::new(Algorithm::Es256);
    let other = Scene::new(Algorithm::Es256);
    // The right key stands in the header, and another one signed.
    let proof = other.proof(|header, _| header["jwk"] = scene.jwk());
    assert_eq!(scene.check(&proof), Err(ProofError::Signature));
    // A key of one's own, soundly signed.
    assert_eq!(
        scene.check(&other.proof(|_, _| {})),
        Err(ProofError::OtherKey)
    );
    // Another curve under the name of the algorithm.
    let proof = scene.proof(|header, _| header["alg"] = "ES384".into());
    assert_eq!(scene.check(&proof), Err(ProofError::Key));
    for alg in ["HS256", "RS384"] {
        let proof = scene.proof(|header, _| header["alg"] = alg.into());
        assert_eq!(scene.check(&proof), Err(ProofError::Algorithm), "{alg}");
    }
    let proof = scene.proof(|header, _| header["jwk"]["use"] = "enc".into());
    assert_eq!(scene.check(&proof), Err(ProofError::Key));
    let mut proof = scene.proof(|_, _| {}).into_bytes();
    let last = proof.len() - 5;
    proof[last] = if proof[last] == b'A' { b'B' } else { b'A' };
    let proof = String::from_utf8(proof).unwrap();
    assert_eq!(scene.check(&proof), Err(ProofError::Signature));
    // What a client may do that holds the key and errs is none.
    for (error, forged) in [
        (ProofError::Signature, true),
        (ProofError::OtherKey, true),
        (ProofError::Replayed, false),
        (ProofError::Age, false),
        (ProofError::Missing, false),
    ] {
        assert_eq!(error.is_forgery(), forged, "{error}");
    }
    assert_eq!(scene.proofs.remembered(), 0);
}

#[test]
fn a_full_memory_refuses_and_says_that_it_is_full() {
    let mut scene = Scene::new(Algorithm::EdDsa);
    scene.rules.entries = 3;
    let numbered = |n: u64| scene.proof(|_, claims| claims["jti"] = n.to_string().into());
    for n in 0..3 {
        assert_eq!(scene.check(&numbered(n)), Ok(()));
    }
    assert_eq!(scene.check(&numbered(3)), Err(ProofError::NoRoom));
    assert_eq!(scene.check(&numbered(0)), Err(ProofError::Replayed));
    // Two minutes later there is room again.
    let later = NOW + rules().max_age.as_secs() + rules().leeway.as_secs() + GRACE;
    let fresh = scene.proof(|_, claims| claims["iat"] = later.into());
    assert_eq!(scene.check_at(&fresh, later), Ok(()));
    assert_eq!(scene.proofs.remembered(), 1);
}

#[test]
fn one_key_does_not_fill_the_memory() {
    let (mut one, mut two) = (Scene::new(Algorithm::EdDsa), Scene::new(Algorithm::EdDsa));
    one.rules.entries = 1500;
    two.rules.entries = 1500;
    let numbered =
        |scene: &Scene, n: usize| scene.proof(|_, claims| claims["jti"] = n.to_string().into());
    for n in 0..1000 {
        assert_eq!(one.check(&numbered(&one, n)), Ok(()));
    }
    assert_eq!(one.check(&numbered(&one, 1000)), Err(ProofError::NoRoom));
    assert_eq!(one.check(&numbered(&one, 0)), Err(ProofError::Replayed));
    two.proofs = one.proofs;
    assert_eq!(two.check(&numbered(&two, 0)), Ok(()));
    assert_eq!(share(rules().entries), 31_250);
}

#[test]
fn a_nonce_is_asked_for_where_the_file_says_so() {
    let mut scene = Scene::new(Algorithm::Es256);
    scene.rules.nonce = true;
    assert_eq!(scene.check(&scene.proof(|_, _| {})), Err(ProofError::Nonce));
    let with = |nonce: &str| scene.proof(|_, claims| claims["nonce"] = nonce.into());
    assert_eq!(scene.check(&with("x")), Err(ProofError::Nonce));
    let old = scene.proofs.nonce(NOW - 2 * PERIOD);
    assert_eq!(scene.check(&with(&old)), Err(ProofError::Nonce));
    let fresh = scene.proofs.nonce(NOW);
    assert_eq!(scene.check(&with(&fresh)), Ok(()));
    assert_eq!(scene.check(&with(&fresh)), Err(ProofError::Replayed));
}

proptest! {
    /// No proof passes but the one that was made, whatever one octet of it is changed to.
    #[test]
    fn no_octet_of_a_proof_can_be_changed(at in 0_usize..900, to in any::<u8>()) {
        let scene = Scene::new(Algorithm::EdDsa);
        let mut proof = scene.proof(|_, _| {}).into_bytes();
        let at = at % proof.len();
        prop_assume!(proof[at] != to);
        proof[at] = to;
        let demand = Demand {
            request: Request {
                method: &Method::GET,
                scheme: Scheme::Https,
                authority: &scene.authority,
                target: &scene.target,
            },
            token: TOKEN,
            key: &scene.key(),
            now: NOW,
        };
        prop_assert!(scene.proofs.check(&proof, &demand, &scene.rules).is_err());
    }
}
