//! What the file may say of signers by message signatures and of webhooks.

use crate::{
    config::{Reader, Severity, load, validate},
    exchange::body_check::{BodyError, Single},
    identity::signer::Scheme,
    policy::body_limit::LONGEST_HOLD,
    snapshot::{document, survivors::Survivors},
};

const PEM: &str = include_str!("../../../tests/vectors/rfc9421/test-key-ed25519.pem");

/// The messages of this severity that `[signers.one]` of this text gets, and whether there is a signer.
fn told(text: &str, severity: Severity) -> (Vec<String>, bool) {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("key.pem"), PEM).expect("written");
    std::fs::write(folder.path().join("no.pem"), "no key").expect("written");
    std::fs::write(folder.path().join("long"), "x".repeat(32)).expect("written");
    std::fs::write(folder.path().join("short"), "x".repeat(15)).expect("written");
    let file = folder.path().join("gate.toml");
    std::fs::write(&file, format!("[signers.one]\n{text}")).expect("written");
    let loaded = load(&file, &[]);
    validate(&loaded.root, &document::ROOT, &loaded.problems);
    let root = Reader::new(&loaded.root, &loaded.problems, &loaded.sources, "");
    let signers = super::compile(&root, &Survivors::offline());
    let there = signers.book.get("one").is_some_and(Option::is_some);
    let problems = loaded.problems.into_sorted();
    let wanted = problems
        .iter()
        .filter(|problem| problem.severity == severity);
    (
        wanted.map(|problem| problem.message.clone()).collect(),
        there,
    )
}

const HTTP: &str = "scheme = \"http\"\nkey_id = \"k\"\npublic_key = \"key.pem\"\n";
const GITHUB: &str = "scheme = \"github\"\nsecret = { file = \"long\" }\n";

#[test]
fn what_is_whole_is_a_signer() {
    for text in [
        HTTP,
        "scheme = \"http\"\nkey_id = \"k\"\nsecret = { file = \"long\" }",
        "scheme = \"http\"\nkey_id = \"k\"\npublic_key = [\"key.pem\", \"key.pem\"]",
        &format!("{HTTP}once = \"nonce\"\nonce_entries = 5\ntag = \"t\"\nmax_age = \"15m\""),
        &format!(
            "{HTTP}components = [\"@method\", \"@authority\", \"@request-target\", \"date;bs\"]"
        ),
        GITHUB,
        &format!("{GITHUB}once = \"delivery\""),
        &format!("{GITHUB}once = \"signature\"\nmax_age = \"7d\""),
        "scheme = \"stripe\"\nsecret = [{ file = \"long\" }, { file = \"long\" }]",
        "scheme = \"slack\"\nsecret = { file = \"long\" }\nonce = \"signature\"",
        "scheme = \"hmac\"\nsecret = { file = \"long\" }\nheader = \"X-A\"\nprefix = \"a=\"\nencoding = \"base64\"\n\
         once = \"delivery\"\ndelivery = \"X-B\"",
    ] {
        let (errors, there) = told(text, Severity::Error);
        assert_eq!((errors, there), (Vec::new(), true), "{text}");
        assert_eq!(told(text, Severity::Relaxation).0, [""; 0], "{text}");
    }
}

/// So many members of a field.
fn pieces(count: usize) -> String {
    let texts = (0..count).map(|n| format!("'x;key=\"k{n}\"'"));
    texts.collect::<Vec<String>>().join(", ")
}

#[test]
fn what_is_not_is_told() {
    for (text, error) in [
        ("key_id = \"k\"", "signer `one` needs `scheme`"),
        (
            "scheme = \"http\"\npublic_key = \"key.pem\"",
            "signer `one` needs `key_id`",
        ),
        (
            "scheme = \"http\"\nkey_id = \"k\"",
            "signer `one` has no keys",
        ),
        (
            &format!("{HTTP}secret = {{ file = \"long\" }}"),
            "a signer has one kind of keys",
        ),
        (
            "scheme = \"http\"\nkey_id = \"k\"\nsecret = { file = \"short\" }",
            "a secret of fewer than 32 bytes",
        ),
        (
            &format!("{HTTP}region = \"r\""),
            "the scheme `http` takes no `region`",
        ),
        (
            &format!("{GITHUB}digest = false"),
            "the scheme `github` takes no `digest`",
        ),
        (
            &format!("{HTTP}once = \"delivery\""),
            "such signatures have no delivery",
        ),
        (
            &format!("{GITHUB}once = \"nonce\""),
            "such signatures have no nonce",
        ),
        (
            &format!("{HTTP}components = [\"Date\"]"),
            "`Date` is no component of a request",
        ),
        (
            &format!("{HTTP}components = [{}]", pieces(17)),
            "more components than a signature may have, so none could pass",
        ),
        ("scheme = \"github\"", "signer `one` needs `secret`"),
        (
            "scheme = \"hmac\"\nsecret = { file = \"long\" }",
            "signer `one` needs `header`",
        ),
        (
            "scheme = \"hmac\"\nsecret = { file = \"long\" }\nheader = \"X-A\"\nonce = \"delivery\"",
            "nothing says which field names a delivery",
        ),
    ] {
        let (errors, _) = told(text, Severity::Error);
        assert_eq!(errors, [error], "{text}");
    }
}

#[test]
fn fields_that_never_arrive_are_told() {
    for (text, error) in [
        (
            "scheme = \"hmac\"\nsecret = { file = \"long\" }\nheader = \"X-Auth-Signature\"",
            "`x-auth-signature` is taken out of every request before anything is judged",
        ),
        (
            "scheme = \"hmac\"\nsecret = { file = \"long\" }\nheader = \"Content-Type\"",
            "`content-type` means something else already",
        ),
        (
            "scheme = \"hmac\"\nsecret = { file = \"long\" }\nheader = \"X-A\"\nonce = \"delivery\"\n\
             delivery = \"X-Request-Id\"",
            "`x-request-id` is taken out of every request before anything is judged",
        ),
        (
            &format!("{HTTP}components = [\"@method\", \"x-request-id\"]"),
            "`x-request-id` is taken out of every request before anything is judged",
        ),
        (
            &format!("{HTTP}components = [\"@method\", \"te\"]"),
            "`te` is taken out of every request before anything is judged",
        ),
    ] {
        let (errors, _) = told(text, Severity::Error);
        assert_eq!(errors, [error], "{text}");
    }
}

#[test]
fn a_file_without_a_key_and_a_short_secret_are_told() {
    let no_pem = "scheme = \"http\"\nkey_id = \"k\"\npublic_key = \"no.pem\"";
    let (errors, there) = told(no_pem, Severity::Error);
    assert!(
        errors[0].ends_with("`-----BEGIN PUBLIC KEY-----` is expected"),
        "{errors:?}"
    );
    assert!(!there);
    let (warnings, there) = told(
        "scheme = \"slack\"\nsecret = { file = \"short\" }",
        Severity::Warning,
    );
    assert!(
        warnings
            .iter()
            .any(|warning| warning.starts_with("a secret of fewer than 16 bytes")),
        "{warnings:?}"
    );
    assert!(there);
}

#[test]
fn what_weakens_the_gate_is_told() {
    for (text, told_of) in [
        (
            &format!("{HTTP}components = [\"@method\", \"@path\"]"),
            "moved to another request",
        ),
        (
            &format!("{HTTP}components = []"),
            "moved to another request",
        ),
        (
            &format!("{HTTP}digest = false"),
            "bodies of signed requests",
        ),
        (&format!("{HTTP}max_age = \"16m\""), "old signed requests"),
    ] {
        let (relaxations, there) = told(text, Severity::Relaxation);
        assert!(there, "{text}");
        let [relaxation] = relaxations.as_slice() else {
            panic!("{text}: {relaxations:?}")
        };
        assert!(relaxation.contains(told_of), "{relaxation}");
    }
}

#[test]
fn what_was_used_is_remembered_past_the_latest_body_of_a_copy() {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("long"), "x".repeat(32)).expect("written");
    let file = folder.path().join("gate.toml");
    let text = format!("[signers.one]\n{GITHUB}once = \"signature\"\n");
    std::fs::write(&file, text).expect("written");
    let loaded = load(&file, &[]);
    let root = Reader::new(&loaded.root, &loaded.problems, &loaded.sources, "");
    let signers = super::compile(&root, &Survivors::offline());
    let signer = signers.book["one"].as_ref().expect("a signer");
    let Scheme::Webhook(webhook) = signer.scheme() else {
        panic!("{signer:?}")
    };
    let once = webhook.once.as_ref().expect("it counts once");
    let noon = 1_800_000_000;
    assert_eq!(once.ticket(b"one", noon).spend(), Ok(()));
    // It was dated as far ahead as is accepted, and its copy comes in the last second of its life. The body of that is
    // held for as long as may be; in the second in which it is whole, another request has what is over forgotten.
    let last = noon + 24 * 3600 + 60;
    for late in 0..2 {
        let other = once.ticket(&[late], last + LONGEST_HOLD.as_secs() + u64::from(late));
        assert_eq!(other.spend(), Ok(()));
        let again = once.ticket(b"one", last).spend();
        assert_eq!(again, Err(BodyError::Invalid("replayed")), "{late}");
    }
}

#[test]
fn what_was_used_outlives_a_reload() {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("long"), "x".repeat(32)).expect("written");
    let file = folder.path().join("gate.toml");
    let survivors = Survivors::offline();
    let mut stores = Vec::new();
    for (entries, age) in [(5, "1h"), (6, "1h"), (6, "2h")] {
        let text = format!(
            "[signers.one]\n{GITHUB}once = \"signature\"\nonce_entries = {entries}\nmax_age = \"{age}\"\n"
        );
        std::fs::write(&file, text).expect("written");
        let loaded = load(&file, &[]);
        let root = Reader::new(&loaded.root, &loaded.problems, &loaded.sources, "");
        let signers = super::compile(&root, &survivors);
        survivors.replays.keep(&signers.replays);
        stores.push(std::sync::Arc::clone(&signers.replays[0].thing));
    }
    assert!(std::sync::Arc::ptr_eq(&stores[0], &stores[1]));
    assert!(std::sync::Arc::ptr_eq(&stores[1], &stores[2]));
}
