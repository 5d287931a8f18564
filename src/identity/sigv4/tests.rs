//! The published test suite of AWS, and whatever it does not try: `tests/vectors/sigv4`.

use std::{fs, path::PathBuf, time::Duration};

use http::{HeaderMap, HeaderName, HeaderValue, Method, uri::PathAndQuery};
use serde_json::Value;

use super::{
    Rules, SigV4, SigV4Error, Unclear, Verified,
    canonical::{SignedHeaders, Style, canonical},
    credential::presented,
    stamp::Stamp,
};
use crate::{
    crypto::secret::Secret,
    exchange::{
        Scheme,
        body_check::{BodyCheck, BodyError},
    },
    identity::message::Message,
    wire::path::Target,
};

/// 2015-08-30T12:36:00Z, when the suite was signed.
const NOW: u64 = 1_440_938_160;

/// A request as the gate has it: its target in judged form.
struct Request {
    method: Method,
    target: Target,
    headers: HeaderMap,
    body: Vec<u8>,
}

impl Request {
    /// Reads a request of the suite; `None` if its target may not stand in HTTP.
    fn read(text: &str) -> Option<Self> {
        let (head, body) = text.split_once("\n\n").unwrap_or((text, ""));
        // Lines that go on belong to the one before; HTTP has no such lines any more.
        let mut lines: Vec<String> = Vec::new();
        for line in head.lines() {
            match lines.last_mut().filter(|_| line.starts_with(' ')) {
                Some(before) => before.push_str(line),
                None => lines.push(line.to_owned()),
            }
        }
        let (first, fields) = lines.split_first().expect("a request line");
        let (method, rest) = first.split_once(' ').expect("a method");
        let target = rest.strip_suffix(" HTTP/1.1").expect("a version");
        let target = target.parse::<PathAndQuery>().ok()?;
        let mut headers = HeaderMap::new();
        for field in fields {
            let (name, value) = field.split_once(':').expect("a field");
            headers.append(
                HeaderName::from_bytes(name.as_bytes()).expect("a name"),
                HeaderValue::from_str(value.trim()).expect("a value"),
            );
        }
        Some(Self {
            method: method.parse().expect("a method"),
            target: Target::parse(&target).ok()?,
            headers,
            body: body.as_bytes().to_vec(),
        })
    }

    fn message(&self) -> Message<'_> {
        Message {
            method: &self.method,
            scheme: Scheme::Https,
            host: self.headers["host"].to_str().expect("a host"),
            path: self.target.path(),
            query: self.target.query(),
            headers: &self.headers,
            upgrade: None,
            now: NOW,
        }
    }

    fn judged_by(&self, key: &SigV4) -> Result<(), SigV4Error> {
        self.judged_at(key, NOW)
    }

    fn judged_at(&self, key: &SigV4, now: u64) -> Result<(), SigV4Error> {
        let message = Message {
            now,
            ..self.message()
        };
        let claim = presented(&message)?.expect("a signature");
        let judge = |check: &dyn BodyCheck| {
            check.judge(&self.body).map_err(|error| match error {
                BodyError::Invalid("body") => SigV4Error::Body,
                BodyError::Invalid("signature") => SigV4Error::Signature,
                other => panic!("{other:?}"),
            })
        };
        match key.verify(&claim, &message)? {
            Verified::Whole => Ok(()),
            Verified::Body(digest) => judge(&digest),
            Verified::Caller(pending) => judge(&pending),
        }
    }
}

fn suite() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/vectors/sigv4")
}

fn cases() -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(suite())
        .expect("the suite")
        .map(|entry| entry.expect("an entry"))
        .filter(|entry| entry.path().is_dir())
        .map(|entry| entry.file_name().into_string().expect("a name"))
        .collect();
    names.sort();
    assert_eq!(names.len(), 38);
    names
}

fn text(case: &str, file: &str) -> String {
    fs::read_to_string(suite().join(case).join(file)).expect("a file of the suite")
}

fn rules(context: &Value) -> Rules {
    let word = |value: &Value| value.as_str().expect("a word").to_owned();
    let credentials = &context["credentials"];
    Rules {
        key_id: word(&credentials["access_key_id"]).into(),
        region: word(&context["region"]).into(),
        service: word(&context["service"]).into(),
        secrets: vec![Secret::new(
            word(&credentials["secret_access_key"]).into_bytes(),
        )],
        session_token: credentials["token"]
            .as_str()
            .map(|token| Secret::new(token.as_bytes().to_vec())),
        max_skew: Duration::from_mins(15),
        presigned: Some(Duration::from_hours(1)),
        unsigned_payload: false,
        double_encode: false,
    }
}

fn context(case: &str) -> Value {
    serde_json::from_str(&text(case, "context.json")).expect("JSON")
}

fn key_of(case: &str) -> SigV4 {
    SigV4::new(rules(&context(case)))
}

/// What the suite accepts and the gate does not: none of these is a false alarm of its own.
fn refused_on_purpose(case: &str) -> Option<SigV4Error> {
    match case {
        // The token came after the signature, so nothing says that it is the signer's.
        "post-sts-header-after" => Some(SigV4Error::Unsigned),
        // Signed as sent, in a form that is not the judged one.
        "get-relative-relative-unnormalized"
        | "get-relative-unnormalized"
        | "get-slash-dot-slash-unnormalized"
        | "get-slash-pointless-dot-unnormalized"
        | "get-slash-unnormalized"
        | "get-slashes-unnormalized" => Some(SigV4Error::Signature),
        _ => None,
    }
}

/// Raw bytes that may not stand in a target of HTTP: refused long before, as 400.
const NO_HTTP: [&str; 4] = [
    "get-space-normalized",
    "get-space-unnormalized",
    "get-utf8",
    "get-vanilla-utf8-query",
];

fn the_suite_passes(form: &str) {
    for case in cases() {
        let signed = text(&case, &format!("{form}-signed-request.txt"));
        let Some(request) = Request::read(&signed) else {
            assert!(NO_HTTP.contains(&case.as_str()), "{case}");
            continue;
        };
        let key = key_of(&case);
        let verdict = request.judged_by(&key);
        let Some(purpose) = refused_on_purpose(&case) else {
            let claim = presented(&request.message()).unwrap().expect("a claim");
            let style = Style {
                double_encode: false,
                presigned: form == "query",
            };
            let fields = SignedHeaders::parse(&claim.signed_headers).unwrap();
            let made = canonical(&request.message(), &fields, style).unwrap();
            let wanted = text(&case, &format!("{form}-canonical-request.txt"));
            let (head, _) = wanted.rsplit_once('\n').expect("lines");
            assert_eq!(
                String::from_utf8(made).unwrap(),
                format!("{head}\n"),
                "{case}"
            );
            assert_eq!(verdict, Ok(()), "{case}");
            continue;
        };
        let purpose = match (form, purpose) {
            ("query", SigV4Error::Unsigned) => SigV4Error::Signature,
            (_, purpose) => purpose,
        };
        assert_eq!(verdict, Err(purpose), "{case}");
    }
}

#[test]
fn b42_the_published_suite_passes_with_signatures_in_the_header() {
    the_suite_passes("header");
}

#[test]
fn b42_the_published_suite_passes_with_signatures_in_the_query() {
    the_suite_passes("query");
}

/// A case of the suite with something changed.
fn changed(form: &str, case: &str, change: impl FnOnce(String) -> String) -> Request {
    let text = text(case, &format!("{form}-signed-request.txt"));
    let changed = change(text.clone());
    assert_ne!(changed, text);
    Request::read(&changed).expect("a request")
}

fn after(change: impl FnOnce(String) -> String) -> Result<(), SigV4Error> {
    let case = "post-x-www-form-urlencoded";
    changed("header", case, change).judged_by(&key_of(case))
}

#[test]
fn b42_whatever_is_changed_the_signature_fails() {
    let with = |from: &'static str, to: &'static str| after(move |text| text.replacen(from, to, 1));
    assert_eq!(with("POST", "PUT"), Err(SigV4Error::Signature));
    assert_eq!(with("POST / ", "POST /a "), Err(SigV4Error::Signature));
    assert_eq!(with("POST / ", "POST /?a=1 "), Err(SigV4Error::Signature));
    assert_eq!(
        with("example.amazonaws.com", "other.example"),
        Err(SigV4Error::Signature)
    );
    assert_eq!(
        with("Content-Length:13", "Content-Length:14"),
        Err(SigV4Error::Signature)
    );
    assert_eq!(with("=value1", "=value2"), Err(SigV4Error::Body));
    assert_eq!(
        with("9095672b", "0095672b"),
        Err(SigV4Error::Signature),
        "another hash"
    );
    assert_eq!(with("d3875051", "0d387505"), Err(SigV4Error::Signature));
    let unsigned = |text: String| text.replacen("Host:", "X-Amz-Meta-A:1\nHost:", 1);
    assert_eq!(after(unsigned), Err(SigV4Error::Unsigned));
    assert_eq!(
        with("content-type;", ""),
        Err(SigV4Error::Unsigned),
        "the type"
    );
    assert_eq!(with("host;", "host;x-a;"), Err(SigV4Error::Absent));
    assert_eq!(with("host;", "host;host;"), Err(SigV4Error::SignedHeaders));
}

#[test]
fn b42_bodies_that_are_not_signed_need_a_word() {
    let payload = |word: &'static str| {
        after(move |text| {
            let hash = "9095672bbd1f56dfc5b65f3e153adc8731a4a654192329106275f4c7b24d0b6e";
            text.replacen(hash, word, 1)
        })
    };
    assert_eq!(
        payload("UNSIGNED-PAYLOAD"),
        Err(SigV4Error::UnsignedPayload)
    );
    assert_eq!(
        payload("STREAMING-AWS4-HMAC-SHA256-PAYLOAD"),
        Err(SigV4Error::Streaming)
    );
    assert_eq!(
        payload("STREAMING-UNSIGNED-PAYLOAD-TRAILER"),
        Err(SigV4Error::Streaming)
    );
    assert_eq!(payload("unsigned-payload"), Err(SigV4Error::PayloadHash));
}

#[test]
fn b42_another_scope_does_not_count() {
    let scope = |from: &'static str, to: &'static str| after(|text| text.replacen(from, to, 1));
    for (from, to) in [
        ("/us-east-1/", "/us-east-2/"),
        ("/service/", "/other/"),
        ("/20150830/", "/20150829/"),
    ] {
        assert_eq!(scope(from, to), Err(SigV4Error::Scope), "{to}");
    }
    assert_eq!(
        scope("/aws4_request", "/aws5_request"),
        Err(SigV4Error::Unclear(Unclear::Malformed))
    );
    assert_eq!(
        scope("AWS4-HMAC-SHA256 ", "AWS4-ECDSA-P256-SHA256 "),
        Err(SigV4Error::Algorithm)
    );
}

#[test]
fn b42_dates_count_for_a_quarter_of_an_hour() {
    let case = "post-vanilla";
    let request = Request::read(&text(case, "header-signed-request.txt")).unwrap();
    let at = |now: u64| request.judged_at(&key_of(case), now);
    assert_eq!(at(NOW + 900), Ok(()));
    assert_eq!(at(NOW - 900), Ok(()));
    assert_eq!(at(NOW + 901), Err(SigV4Error::Date));
    assert_eq!(at(NOW - 901), Err(SigV4Error::Date));
    let undated = changed("header", case, |text| {
        text.replacen("X-Amz-Date:20150830T123600Z\n", "", 1)
    });
    assert_eq!(undated.judged_by(&key_of(case)), Err(SigV4Error::Date));
    let twice = changed("header", case, |text| {
        text.replacen("X-Amz-Date:", "X-Amz-Date:20150830T123600Z\nX-Amz-Date:", 1)
    });
    assert_eq!(twice.judged_by(&key_of(case)), Err(SigV4Error::Date));
}

#[test]
fn b42_presigned_requests_end() {
    let case = "get-vanilla";
    let request = Request::read(&text(case, "query-signed-request.txt")).unwrap();
    let at = |now: u64| request.judged_at(&key_of(case), now);
    assert_eq!(at(NOW + 3600), Ok(()));
    assert_eq!(at(NOW + 3601), Err(SigV4Error::Expired));
    assert_eq!(at(NOW - 900), Ok(()));
    assert_eq!(at(NOW - 901), Err(SigV4Error::Date));
    let under = |presigned: Option<Duration>| {
        let key = SigV4::new(Rules {
            presigned,
            ..rules(&context(case))
        });
        request.judged_by(&key)
    };
    assert_eq!(under(None), Err(SigV4Error::Presigned));
    assert_eq!(
        under(Some(Duration::from_secs(3599))),
        Err(SigV4Error::Presigned)
    );
    for (bad, error) in [
        ("X-Amz-Expires=3600&", Unclear::Malformed),
        ("X-Amz-Date=20150830T123600Z&", Unclear::Malformed),
        ("X-Amz-SignedHeaders=host&", Unclear::Malformed),
    ] {
        let without = changed("query", case, |text| text.replacen(bad, "", 1));
        assert_eq!(without.judged_by(&key_of(case)), Err(error.into()), "{bad}");
        let twice = changed("query", case, |text| {
            text.replacen(bad, &format!("{bad}{bad}"), 1)
        });
        let error = Unclear::Repeated.into();
        assert_eq!(twice.judged_by(&key_of(case)), Err(error), "{bad} twice");
    }
    for expires in ["0", "-1", "+3600", "", "99999999999999999999", "604801"] {
        let other = changed("query", case, |text| {
            text.replacen("Expires=3600", &format!("Expires={expires}"), 1)
        });
        assert!(other.judged_by(&key_of(case)).is_err(), "{expires}");
    }
}

#[test]
fn b42_credentials_in_two_places_are_unclear() {
    let case = "get-vanilla";
    let both = changed("query", case, |text| {
        text.replacen("Host:", "Authorization:Bearer a.b.c\nHost:", 1)
    });
    let error = Err(SigV4Error::Unclear(Unclear::TwoPlaces));
    assert_eq!(both.judged_by(&key_of(case)), error);
    let twice = changed("header", case, |text| {
        text.replacen(
            "Authorization:",
            "Authorization:Basic eA==\nAuthorization:",
            1,
        )
    });
    let error = Err(SigV4Error::Unclear(Unclear::Repeated));
    assert_eq!(twice.judged_by(&key_of(case)), error);
}

#[test]
fn b42_malformed_credentials_are_unclear() {
    let case = "get-vanilla";
    let signature = "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31";
    for (from, to) in [
        (", Signature=", ", signature="),
        (", Signature=", ", Signature"),
        (", Signature=", " Signature="),
        ("Credential=AKIDEXAMPLE/", "Credential=AKID/EXAMPLE/"),
        ("SignedHeaders=", "SignedHeaders=host, SignedHeaders="),
        (signature, "5FA00fa3"),
        (signature, ""),
    ] {
        let bad = changed("header", case, |text| text.replacen(from, to, 1));
        let error = Err(SigV4Error::Unclear(Unclear::Malformed));
        assert_eq!(bad.judged_by(&key_of(case)), error, "{to}");
    }
    let capitals = changed("header", case, |text| {
        text.replacen(signature, &signature.to_uppercase(), 1)
    });
    assert!(capitals.judged_by(&key_of(case)).is_err());
}

#[test]
fn b42_session_tokens_are_the_configured_one_or_none() {
    let case = "get-vanilla-with-session-token";
    for form in ["header", "query"] {
        let request = Request::read(&text(case, &format!("{form}-signed-request.txt"))).unwrap();
        for token in [None, Some(&b"another"[..])] {
            let key = SigV4::new(Rules {
                session_token: token.map(|token| Secret::new(token.to_vec())),
                ..rules(&context(case))
            });
            assert_eq!(request.judged_by(&key), Err(SigV4Error::SessionToken));
        }
    }
    let bare = Request::read(&text("get-vanilla", "header-signed-request.txt")).unwrap();
    assert_eq!(
        bare.judged_by(&key_of(case)),
        Err(SigV4Error::SessionToken),
        "none where one belongs"
    );
}

#[test]
fn an_old_secret_counts_while_it_is_listed() {
    let case = "post-vanilla";
    let request = Request::read(&text(case, "header-signed-request.txt")).unwrap();
    let mut rules = rules(&context(case));
    rules.secrets.insert(0, Secret::new(b"new".to_vec()));
    assert_eq!(request.judged_by(&SigV4::new(rules)), Ok(()));
    let mut rules = self::rules(&context(case));
    rules.secrets = vec![Secret::new(b"new".to_vec())];
    assert_eq!(
        request.judged_by(&SigV4::new(rules)),
        Err(SigV4Error::Signature)
    );
}

#[test]
fn the_clock_of_the_tests_is_that_of_the_suite() {
    assert_eq!(Stamp::parse("20150830T123600Z").unwrap().seconds, NOW);
}
