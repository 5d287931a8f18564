//! What it costs to verify a signed request, beside the bare check of the same octets. For `pipeline --signatures`.
//!
//! A request is judged by the policy itself, from the head in normal form to the principal, again and again: with the
//! signing key of AWS Signature Version 4 derived before, as for all but the first request of a day. Times, not counts:
//! the ciphers pick their path by the processor.

use std::{fs, hint::black_box, time::Instant};

use aws_lc_rs::{
    digest, hmac,
    signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey},
};
use base64::{Engine, engine::general_purpose::STANDARD};
use http::{HeaderName, HeaderValue, Request};
use portcullis::{
    config,
    crypto::rng::RequestIds,
    exchange::Exchange,
    pipeline::normalise,
    policy::authn,
    snapshot::{Snapshot, compile, survivors::Survivors},
    state::clock,
};

use super::Asked;

const GATE: &str = r#"
[server]
http = ["127.0.0.1:0"]
plaintext = true
workers = 1

[upstreams.origin]
servers = ["http://127.0.0.1:9"]

[signers.aws]
scheme = "sigv4"
key_id = "AKIDEXAMPLE"
secret = { file = "FOLDER/secret" }
region = "eu-west-1"
service = "api"

[signers.partner]
scheme = "http"
key_id = "partner"
public_key = "FOLDER/partner.pem"

[[blueprints]]
name = "all"
hosts = ["app.example"]
upstream = "origin"
auth = { require = ["signature"], signers = ["aws", "partner"] }
"#;

const SECRET: &str = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY";
pub(super) const TARGET: &str = "/items/42?view=full";
/// How often a thing is timed, and how often it is done each time.
const BATCHES: usize = 50;
const RUNS: u32 = 200;

/// Prints the nanoseconds of each, the best of many.
pub(crate) fn report() {
    let key = Ed25519KeyPair::generate().expect("a key");
    let snapshot = snapshot(GATE, &[("secret", SECRET), ("partner.pem", &pem(&key))]);
    let runtime = tokio::runtime::Builder::new_current_thread().build();
    let runtime = runtime.expect("a runtime");
    let now = clock::unix_seconds();
    let (aws, partner) = (by_aws(now), by_partner(&key, now));
    for (name, signed) in [("SigV4", &aws), ("RFC 9421, Ed25519", &partner)] {
        let mut exchange = exchange(&snapshot, &signed.fields);
        let route = snapshot.routes.first().expect("a route");
        let policy = &route.policies.authn;
        tell(name, || {
            exchange.principal = None;
            exchange.unproven = None;
            let verdict = runtime.block_on(authn::admit(policy, black_box(&mut exchange)));
            assert!(verdict.is_ok(), "a good signature");
        });
    }
    let mac = hmac::Key::new(hmac::HMAC_SHA256, SECRET.as_bytes());
    let tag = hmac::sign(&mac, &aws.octets);
    tell("HMAC-SHA-256 of what SigV4 signs", || {
        hmac::verify(&mac, black_box(&aws.octets), tag.as_ref()).expect("the same octets");
    });
    let public = UnparsedPublicKey::new(&ED25519, key.public_key());
    let signature = key.sign(&partner.octets);
    tell("Ed25519 of the signature base", || {
        let same = public.verify(black_box(&partner.octets), signature.as_ref());
        same.expect("the same octets");
    });
}

pub(super) fn tell(name: &str, mut step: impl FnMut()) {
    tell_of(name, || (), |()| step());
}

/// The same for a step that uses something up, which is made before.
pub(super) fn tell_of<T>(name: &str, mut make: impl FnMut() -> T, mut step: impl FnMut(&mut T)) {
    let spent = (0..BATCHES).map(|_| {
        let mut things: Vec<T> = (0..RUNS).map(|_| make()).collect();
        let start = Instant::now();
        things.iter_mut().for_each(&mut step);
        start.elapsed()
    });
    let best = spent.min().expect("several batches") / RUNS;
    println!("{name}: {} ns", best.as_nanos());
}

/// A request with its signature, and the octets that were signed.
struct Signed {
    fields: Vec<(&'static str, String)>,
    octets: Vec<u8>,
}

/// The signing of AWS, as its documents have it.
fn by_aws(now: u64) -> Signed {
    let moment = i64::try_from(now).expect("a time");
    let date = time::OffsetDateTime::from_unix_timestamp(moment).expect("a date");
    let (year, month, day) = date.to_calendar_date();
    let day = format!("{year:04}{:02}{day:02}", u8::from(month));
    let (hour, minute, second) = date.to_hms();
    let stamp = format!("{day}T{hour:02}{minute:02}{second:02}Z");
    let scope = format!("{day}/eu-west-1/api/aws4_request");
    let empty = hex(digest::digest(&digest::SHA256, b"").as_ref());
    let canonical = format!(
        "GET\n/items/42\nview=full\nhost:app.example\nx-amz-date:{stamp}\n\nhost;x-amz-date\n{empty}"
    );
    let canonical = hex(digest::digest(&digest::SHA256, canonical.as_bytes()).as_ref());
    let octets = format!("AWS4-HMAC-SHA256\n{stamp}\n{scope}\n{canonical}").into_bytes();
    let mac = |key: &[u8], text: &[u8]| {
        hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), text)
            .as_ref()
            .to_vec()
    };
    let secret = format!("AWS4{SECRET}").into_bytes();
    let key = scope
        .split('/')
        .fold(secret, |key, part| mac(&key, part.as_bytes()));
    let signature = hex(&mac(&key, &octets));
    let authorization = format!(
        "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/{scope}, SignedHeaders=host;x-amz-date, Signature={signature}"
    );
    Signed {
        fields: vec![("x-amz-date", stamp), ("authorization", authorization)],
        octets,
    }
}

/// RFC 9421 §2.5, written out.
fn by_partner(key: &Ed25519KeyPair, now: u64) -> Signed {
    let parameters = format!("(\"@method\" \"@target-uri\");created={now};keyid=\"partner\"");
    let base = format!(
        "\"@method\": GET\n\"@target-uri\": https://app.example{TARGET}\n\"@signature-params\": {parameters}"
    );
    let signature = STANDARD.encode(key.sign(base.as_bytes()));
    Signed {
        fields: vec![
            ("signature-input", format!("sig={parameters}")),
            ("signature", format!("sig=:{signature}:")),
        ],
        octets: base.into_bytes(),
    }
}

fn hex(octets: &[u8]) -> String {
    let text: Vec<String> = octets.iter().map(|octet| format!("{octet:02x}")).collect();
    text.concat()
}

/// A public key as PEM (RFC 8410 §4).
fn pem(key: &Ed25519KeyPair) -> String {
    let head = [
        0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0,
    ];
    let info = [&head[..], key.public_key().as_ref()].concat();
    let text = STANDARD.encode(info);
    format!("-----BEGIN PUBLIC KEY-----\n{text}\n-----END PUBLIC KEY-----\n")
}

/// The file compiled, beside files of these names and texts in the folder that it calls `FOLDER`.
pub(super) fn snapshot(gate: &str, files: &[(&str, &str)]) -> Snapshot {
    let folder = tempfile::tempdir().expect("a folder");
    for (name, text) in files {
        fs::write(folder.path().join(name), text).expect("a file");
    }
    let text = gate.replace("FOLDER", folder.path().to_str().expect("a path in UTF-8"));
    let loaded = config::load_str("bench.toml", &text, &[]);
    let compiled = compile::compile(&loaded, &loaded.problems, &Survivors::new(1));
    let Some(compiled) = compiled else {
        let problems = loaded.problems.sorted();
        let told = config::render(&problems, &loaded.sources, config::Color::Never);
        panic!("the bench's own file is bad\n{told}");
    };
    compiled.snapshot
}

/// `GET` of [`TARGET`] at `app.example` with these fields, in normal form.
pub(super) fn exchange(snapshot: &Snapshot, fields: &[(&'static str, String)]) -> Box<Exchange> {
    let asked = Asked::new("app.example".into(), TARGET.into());
    let mut request = Request::new(());
    *request.uri_mut() = TARGET.parse().expect("a target");
    let host = [("host", "app.example".to_owned())];
    for (name, value) in host.iter().chain(fields) {
        let value = HeaderValue::try_from(value).expect("a value");
        request
            .headers_mut()
            .append(HeaderName::from_static(name), value);
    }
    let mut ids = RequestIds::new();
    let fresh = (ids.next_id(), ids.next_u64());
    let head = request.into_parts().0;
    let (exchange, verdict) = normalise::shape(head, &asked.connection, &snapshot.server, fresh);
    verdict.expect("the request has a normal form");
    exchange
}
