//! Message signatures: the published requests, and what must not pass (case b41).

use std::sync::Arc;

use base64::{Engine, engine::general_purpose::STANDARD};
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use serde_json::Value;

use super::{
    BodyRule, HttpRules, HttpSigner, SignatureError, base,
    input::{self, SIGNATURE, SIGNATURE_INPUT, written_component},
    key::Key,
};
use crate::{
    crypto::{mac::MacKey, secret::Secret},
    exchange::body_check::{BodyError, Single},
    identity::{
        message::Message,
        once::{Once, OnceRules, Used, What},
    },
    wire::{forwarded::Scheme, hop::Upgrade},
};

const CREATED: u64 = 1_618_884_473;
const PUBLISHED: &str = include_str!("../../../tests/vectors/rfc9421/requests.json");
const RSA: &str = include_str!("../../../tests/vectors/rfc9421/test-key-rsa-pss.pem");
const P256: &str = include_str!("../../../tests/vectors/rfc9421/test-key-ecc-p256.pem");
const ED25519: &str = include_str!("../../../tests/vectors/rfc9421/test-key-ed25519.pem");
const SHARED: &str = include_str!("../../../tests/vectors/rfc9421/test-shared-secret.base64");

fn shared_secret() -> Secret {
    Secret::new(STANDARD.decode(SHARED.trim()).unwrap())
}

fn published_key(name: &str) -> Key {
    let pem = match name {
        "test-key-rsa-pss" => RSA,
        "test-key-ecc-p256" => P256,
        "test-key-ed25519" => ED25519,
        "test-shared-secret" => return Key::secret(&shared_secret()).unwrap(),
        other => panic!("no key {other}"),
    };
    Key::public(pem.as_bytes()).unwrap().remove(0)
}

fn signer(key_id: &str) -> HttpSigner {
    HttpSigner {
        rules: HttpRules {
            key_id: key_id.into(),
            tag: None,
            components: Some(Vec::new()),
            digest: false,
            max_age: 300,
        },
        keys: vec![published_key(key_id)],
        once: None,
    }
}

fn verify(
    signers: &[HttpSigner],
    message: &Message<'_>,
    now: u64,
) -> Result<BodyRule, SignatureError> {
    let signers = signers.iter().map(|signer| ((), signer));
    let ((), signed) = super::verify(&signers, &Message { now, ..*message })?;
    let spent = signed.ticket.map_or(Ok(()), |ticket| ticket.spend());
    spent.map_err(|error| match error {
        BodyError::Invalid(code) => SignatureError::Invalid(code),
        BodyError::NoRoom => SignatureError::Invalid("no-room"),
    })?;
    Ok(signed.body)
}

/// A request of the published ones.
struct Published {
    row: Value,
    headers: HeaderMap,
}

impl Published {
    fn all() -> Vec<Self> {
        let rows: Vec<Value> = serde_json::from_str(PUBLISHED).unwrap();
        let read = |row: Value| {
            let mut headers = HeaderMap::new();
            for field in row["fields"].as_array().unwrap() {
                let name = HeaderName::try_from(field[0].as_str().unwrap()).unwrap();
                headers.append(
                    name,
                    HeaderValue::from_str(field[1].as_str().unwrap()).unwrap(),
                );
            }
            Self { row, headers }
        };
        rows.into_iter().map(read).collect()
    }

    fn named(name: &str) -> Self {
        let mut all = Self::all().into_iter();
        all.find(|published| published.row["name"] == name)
            .expect(name)
    }

    fn request(&self) -> Message<'_> {
        let text = |key: &str| self.row[key].as_str().unwrap();
        Message {
            method: match text("method") {
                "POST" => &Method::POST,
                _ => &Method::GET,
            },
            scheme: match text("scheme") {
                "https" => Scheme::Https,
                _ => Scheme::Http,
            },
            host: text("authority"),
            path: text("path"),
            query: self.row["query"].as_str(),
            headers: &self.headers,
            upgrade: None,
            now: CREATED,
        }
    }

    fn key(&self) -> &str {
        self.row["key"].as_str().unwrap()
    }
}

#[test]
fn rfc_9421_the_published_requests_have_the_published_bases_and_verify() {
    let all = Published::all();
    assert_eq!(all.len(), 8);
    for published in &all {
        let name = &published.row["name"];
        let request = published.request();
        let signature = &input::signatures(request.headers).unwrap()[0];
        let base = base::signature_base(&request, signature).unwrap();
        assert_eq!(base, published.row["base"].as_str().unwrap(), "{name}");
        let signer = [signer(published.key())];
        for now in [CREATED - 60, CREATED, CREATED + 300] {
            assert!(verify(&signer, &request, now).is_ok(), "{name} at {now}");
        }
    }
}

#[test]
fn b41_a_published_request_that_was_touched_does_not_verify() {
    for published in &mut Published::all() {
        let signer = [signer(published.key())];
        let refused = |request: &Message<'_>| verify(&signer, request, CREATED).err();
        let wrong = Some(SignatureError::Invalid("signature"));
        let name = published.row["name"].clone();
        if name != "minimal" {
            let request = Message {
                host: "example.net",
                ..published.request()
            };
            assert_eq!(refused(&request), wrong, "{name}: another host");
        }
        let input = published.headers[SIGNATURE_INPUT]
            .to_str()
            .unwrap()
            .to_owned();
        let later = input.replace("1618884473", "1618884474");
        published
            .headers
            .insert(SIGNATURE_INPUT, HeaderValue::from_str(&later).unwrap());
        assert_eq!(refused(&published.request()), wrong, "{name}: another time");
        published
            .headers
            .insert(SIGNATURE_INPUT, HeaderValue::from_str(&input).unwrap());
        let bytes = published.headers[SIGNATURE].to_str().unwrap().to_owned();
        let (label, _) = bytes.split_once('=').unwrap();
        for other in [
            "",
            "AA==",
            &STANDARD.encode([0; 32]),
            &STANDARD.encode([7; 64]),
        ] {
            let other = HeaderValue::from_str(&format!("{label}=:{other}:")).unwrap();
            published.headers.insert(SIGNATURE, other);
            assert_eq!(refused(&published.request()), wrong, "{name}: other bytes");
        }
    }
}

#[test]
fn rfc_9421_b_4_what_a_signature_survives() {
    let mut published = Published::named("transformed");
    let signer = [signer("test-key-ed25519")];
    published.headers.insert(
        "accept-language",
        HeaderValue::from_static("en-US,en;q=0.5"),
    );
    let more = Message {
        query: Some("name1=Value1&Name2=value2&param=added"),
        ..published.request()
    };
    assert!(verify(&signer, &more, CREATED).is_ok());
    published.headers.remove("date");
    published
        .headers
        .insert("accept", HeaderValue::from_static("application/json, */*"));
    assert!(verify(&signer, &published.request(), CREATED).is_ok());
    published
        .headers
        .insert("accept", HeaderValue::from_static("*/*, application/json"));
    assert!(verify(&signer, &published.request(), CREATED).is_err());
}

/// A request that is signed with the published secret, over these components and parameters.
fn signed(components: &str, parameters: &str, fields: &[(&'static str, &str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in fields {
        headers.append(*name, HeaderValue::from_str(value).unwrap());
    }
    let input = format!("a=({components}){parameters}");
    headers.insert(SIGNATURE_INPUT, HeaderValue::from_str(&input).unwrap());
    headers.insert(SIGNATURE, HeaderValue::from_static("a=:AA==:"));
    let signature = &input::signatures(&headers).unwrap()[0];
    let base = base::signature_base(&request(&headers), signature).unwrap_or_default();
    let tag = MacKey::new(shared_secret().expose()).sign(base.as_bytes());
    let value = format!("a=:{}:", STANDARD.encode(tag));
    headers.insert(SIGNATURE, HeaderValue::from_str(&value).unwrap());
    headers
}

fn request(headers: &HeaderMap) -> Message<'_> {
    Message {
        method: &Method::POST,
        scheme: Scheme::Https,
        host: "app.example",
        path: "/pay",
        query: Some("n=1"),
        headers,
        upgrade: None,
        now: CREATED,
    }
}

const WHOLE: &str = "\"@method\" \"@target-uri\"";

/// The holder of the published secret, of whom everything usual is asked.
fn strict() -> HttpSigner {
    let mut strict = signer("test-shared-secret");
    strict.rules.components = None;
    strict.rules.digest = true;
    strict
}

fn parameters(more: &str) -> String {
    format!(";created={CREATED};keyid=\"test-shared-secret\"{more}")
}

#[track_caller]
fn code(signer: HttpSigner, headers: &HeaderMap, now: u64) -> &'static str {
    match verify(&[signer], &request(headers), now) {
        Ok(_) => "ok",
        Err(SignatureError::Invalid(code) | SignatureError::Unclear(code)) => code,
    }
}

#[test]
fn b41_a_signature_counts_for_a_while() {
    let headers = signed(WHOLE, &parameters(""), &[]);
    for (now, expected) in [
        (CREATED, "ok"),
        (CREATED + 300, "ok"),
        (CREATED + 301, "too-old"),
        (CREATED - 60, "ok"),
        (CREATED - 61, "created-in-future"),
        (0, "created-in-future"),
        (u64::MAX, "too-old"),
    ] {
        assert_eq!(code(strict(), &headers, now), expected, "{now}");
    }
    let undated = signed(WHOLE, ";keyid=\"test-shared-secret\"", &[]);
    assert_eq!(code(strict(), &undated, CREATED), "created-missing");
    let old = signed(WHOLE, ";created=-1;keyid=\"test-shared-secret\"", &[]);
    assert_eq!(code(strict(), &old, CREATED), "too-old");
    let ends = signed(
        WHOLE,
        &parameters(&format!(";expires={}", CREATED + 10)),
        &[],
    );
    assert_eq!(code(strict(), &ends, CREATED + 9), "ok");
    assert_eq!(code(strict(), &ends, CREATED + 10), "expired");
}

#[test]
fn b41_what_says_which_request_it_is_must_be_covered() {
    for (components, expected) in [
        (WHOLE, "ok"),
        ("\"@authority\" \"@method\" \"@path\" \"@query\"", "ok"),
        ("\"@authority\" \"@method\" \"@request-target\"", "ok"),
        ("\"@target-uri\"", "component-not-covered"),
        ("\"@method\"", "component-not-covered"),
        ("\"@method\" \"@path\" \"@query\"", "component-not-covered"),
        (
            "\"@method\" \"@authority\" \"@path\"",
            "component-not-covered",
        ),
        (
            "\"@method\" \"@authority\" \"@query\"",
            "component-not-covered",
        ),
        ("", "component-not-covered"),
        (
            "\"@method\" \"@target-uri\" \"content-digest\"",
            "component-absent",
        ),
        (
            "\"@method\" \"@target-uri\" \"@status\"",
            "component-unknown",
        ),
        (
            "\"@method\" \"@target-uri\" \"date\";req",
            "component-unknown",
        ),
    ] {
        let headers = signed(components, &parameters(""), &[]);
        assert_eq!(code(strict(), &headers, CREATED), expected, "{components}");
    }
}

#[test]
fn what_an_operator_asks_for_must_be_covered() {
    let asking = |components: &[&str]| {
        let mut signer = strict();
        let read = components
            .iter()
            .map(|text| written_component(text).unwrap());
        signer.rules.components = Some(read.collect());
        signer
    };
    let fields = [("x-tenant", "a"), ("content-type", "text/plain")];
    let headers = signed("\"x-tenant\" \"@method\"", &parameters(""), &fields);
    assert_eq!(
        code(asking(&["@method", "x-tenant"]), &headers, CREATED),
        "ok"
    );
    let more = asking(&["@method", "x-tenant", "content-type"]);
    assert_eq!(
        more.wish(false, None),
        "(\"@method\" \"x-tenant\" \"content-type\");created;alg=\"hmac-sha256\""
    );
    assert_eq!(code(more, &headers, CREATED), "component-not-covered");
    let form = asking(&["x-tenant;bs"]);
    assert_eq!(code(form, &headers, CREATED), "component-not-covered");
}

#[test]
fn b41_the_digest_binds_the_body() {
    let digest = "sha-256=:RK/0qy18MlBSVnWgjwz6lZEWjP/lF5HF9bvEF8FabDg=:";
    let rule = |components: &str, digest: &str, signer: HttpSigner| {
        let fields = [("content-digest", digest)];
        let headers = signed(components, &parameters(""), &fields);
        verify(&[signer], &request(&headers), CREATED)
    };
    let covered = format!("{WHOLE} \"content-digest\"");
    let bound = rule(&covered, digest, strict()).unwrap();
    let BodyRule::Digest(bound) = bound else {
        panic!("{bound:?}")
    };
    assert!(bound.fits(b"{\"hello\": \"world\"}\n"));
    assert!(!bound.fits(b"{\"hello\": \"world\"}"));
    let one = format!("{WHOLE} \"content-digest\";key=\"sha-256\"");
    assert!(matches!(
        rule(&one, digest, strict()),
        Ok(BodyRule::Digest(_))
    ));
    let old = format!("{WHOLE} \"content-digest\";key=\"md5\"");
    let both = format!("md5=:AAAA:, {digest}");
    assert_eq!(
        rule(&old, &both, strict()),
        Ok(BodyRule::Empty),
        "md5 binds nothing"
    );
    assert_eq!(
        rule(WHOLE, digest, strict()),
        Ok(BodyRule::Empty),
        "not covered"
    );
    let mut lax = strict();
    lax.rules.digest = false;
    assert_eq!(rule(WHOLE, digest, lax), Ok(BodyRule::Any));
    assert_eq!(
        rule(&covered, "md5=:AAAA:", strict()),
        Err(SignatureError::Invalid("digest-unknown"))
    );
    assert_eq!(
        rule(&covered, "sha-256=:AAAA:", strict()),
        Err(SignatureError::Invalid("digest-malformed"))
    );
}

#[test]
fn the_key_decides_the_algorithm() {
    let named = |name: &str| signed(WHOLE, &parameters(&format!(";alg=\"{name}\"")), &[]);
    assert_eq!(code(strict(), &named("hmac-sha256"), CREATED), "ok");
    for other in ["ed25519", "rsa-v1_5-sha256", "none", "", "HMAC-SHA256"] {
        assert_eq!(
            code(strict(), &named(other), CREATED),
            "algorithm",
            "{other}"
        );
    }
    // The published public key as an HMAC secret: the old confusion.
    let headers = signed(WHOLE, &parameters(""), &[]);
    let mut public = strict();
    public.keys = vec![published_key("test-key-ed25519")];
    assert_eq!(code(public, &headers, CREATED), "signature");
    let mut rotated = strict();
    rotated.keys.insert(0, published_key("test-key-ecc-p256"));
    assert_eq!(code(rotated, &headers, CREATED), "ok");
}

#[test]
fn exactly_one_signature_must_be_of_a_signer_that_counts() {
    let mut headers = signed(WHOLE, &parameters(""), &[]);
    let unknown = signed(WHOLE, &format!(";created={CREATED};keyid=\"other\""), &[]);
    assert_eq!(code(strict(), &unknown, CREATED), "signer-unknown");
    let unnamed = signed(WHOLE, &format!(";created={CREATED}"), &[]);
    assert_eq!(code(strict(), &unnamed, CREATED), "signer-unknown");
    headers.append(
        SIGNATURE_INPUT,
        HeaderValue::from_static("b=(\"@status\");keyid=\"other\""),
    );
    headers.append(SIGNATURE, HeaderValue::from_static("b=:AA==:"));
    assert_eq!(
        code(strict(), &headers, CREATED),
        "ok",
        "the other is for somebody else"
    );
    headers.append(
        SIGNATURE_INPUT,
        HeaderValue::from_static("c=();keyid=\"test-shared-secret\""),
    );
    headers.append(SIGNATURE, HeaderValue::from_static("c=:AA==:"));
    assert_eq!(code(strict(), &headers, CREATED), "several-signatures");
    let tagged = || {
        let mut tagged = strict();
        tagged.rules.tag = Some("pay".into());
        tagged
    };
    assert_eq!(code(tagged(), &headers, CREATED), "signer-unknown");
    let headers = signed(WHOLE, &parameters(";tag=\"pay\""), &[]);
    assert_eq!(code(tagged(), &headers, CREATED), "ok");
    assert_eq!(
        code(strict(), &headers, CREATED),
        "ok",
        "a tag nobody asked for"
    );
    assert_eq!(
        tagged().wish(true, None),
        "(\"@method\" \"@target-uri\" \"content-digest\");created;alg=\"hmac-sha256\";tag=\"pay\""
    );
}

#[test]
fn b41_a_nonce_is_used_once_and_only_by_a_good_signature() {
    let used = Arc::new(Used::default());
    let rules = OnceRules {
        entries: 2,
        seconds: 360,
    };
    let once = |what| {
        let mut signer = strict();
        let used = Arc::clone(&used);
        signer.once = Some(Once { what, rules, used });
        signer
    };
    let with = |nonce: &str| signed(WHOLE, &parameters(&format!(";nonce=\"{nonce}\"")), &[]);
    let bare = signed(WHOLE, &parameters(""), &[]);
    assert_eq!(code(once(What::Nonce), &bare, CREATED), "nonce-missing");
    let mut forged = with("one");
    forged.insert(SIGNATURE, HeaderValue::from_static("a=:AA==:"));
    assert_eq!(code(once(What::Nonce), &forged, CREATED), "signature");
    assert_eq!(code(once(What::Nonce), &with("one"), CREATED), "ok");
    assert_eq!(
        code(once(What::Nonce), &with("one"), CREATED + 300),
        "replayed"
    );
    assert_eq!(code(once(What::Signature), &bare, CREATED), "ok");
    assert_eq!(code(once(What::Signature), &bare, CREATED), "replayed");
    assert_eq!(code(once(What::Nonce), &with("two"), CREATED), "no-room");
}

#[test]
fn a_handshake_must_be_signed_as_one() {
    let version = [("sec-websocket-version", "13")];
    let plain = signed(WHOLE, &parameters(""), &version);
    let covering = |component: &str| {
        let components = format!("{WHOLE} {component}");
        signed(&components, &parameters(""), &version)
    };
    for upgrade in [Upgrade::WebSocket, Upgrade::WebSocketStream] {
        let verdict = |headers: &HeaderMap| {
            let tunnel = Message {
                upgrade: Some(upgrade),
                ..request(headers)
            };
            verify(&[strict()], &tunnel, CREATED)
        };
        let uncovered = Err(SignatureError::Invalid("component-not-covered"));
        assert_eq!(verdict(&plain), uncovered);
        assert_eq!(
            verdict(&covering("\"sec-websocket-version\"")),
            Ok(BodyRule::Empty)
        );
        assert_eq!(
            verdict(&covering("\"sec-websocket-version\";bs")),
            Ok(BodyRule::Empty)
        );
        assert_eq!(
            verdict(&covering("\"sec-websocket-key\"")),
            Err(SignatureError::Invalid("component-absent"))
        );
    }
    assert_eq!(code(strict(), &plain, CREATED), "ok");
    assert_eq!(
        strict().wish(false, Some(Upgrade::WebSocket)),
        "(\"@method\" \"@target-uri\" \"sec-websocket-version\");created;alg=\"hmac-sha256\""
    );
}
