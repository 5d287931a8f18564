//! `[signers.NAME]` to signers at work.

mod http;
mod once;
mod webhook;

use std::{sync::Arc, time::Duration};

use ::http::HeaderName;

use super::{signer_section::only_keys_of, survivors::Survivors};
use crate::{
    config::{At, OneOrMany, Reader},
    exchange::principal::{IdentityHeaders, Principal},
    identity::{
        once::Used,
        signer::{Scheme, Signer},
        sigv4::{Rules, SigV4},
    },
    policy::authn::{SignerBook, why_no_credential},
    state::registry::Named,
};

/// The longest life of a presigned request that its own rules allow.
const WEEK: Duration = Duration::from_hours(7 * 24);

/// The signers of a file.
#[derive(Debug)]
pub struct Signers {
    /// By their names.
    pub book: SignerBook,
    /// What of their signatures was used up, to be kept.
    pub replays: Vec<Named<(), Used>>,
}

/// A signer in the making.
struct Making<'a> {
    name: &'a str,
    /// The place of the name.
    at: At,
    survivors: &'a Survivors,
    replays: &'a mut Vec<Named<(), Used>>,
}

/// Compiles every signer.
pub fn compile(root: &Reader<'_>, survivors: &Survivors) -> Signers {
    let mut book = SignerBook::new();
    let mut replays = Vec::new();
    for (name, at, reader) in root.named("signers") {
        let making = Making {
            name,
            at,
            survivors,
            replays: &mut replays,
        };
        let place = reader.stated_at();
        let signer = scheme(making, &reader).map(|scheme| {
            let principal = principal(name, &reader);
            Arc::new(Signer::new((name, place), principal, scheme))
        });
        book.insert(name.to_owned(), signer);
    }
    Signers { book, replays }
}

fn scheme(mut making: Making<'_>, reader: &Reader<'_>) -> Option<Scheme> {
    let (name, at) = (making.name, making.at);
    let Some(scheme) = reader.get::<String>("scheme") else {
        require(name, at, reader, ("scheme", "such as `http` or `sigv4`"));
        return None;
    };
    only_keys_of(&scheme, reader);
    match scheme.as_str() {
        "sigv4" => sigv4(name, at, reader).map(|key| Scheme::SigV4(Box::new(key))),
        "http" => http::compile(&mut making, reader),
        "github" | "stripe" | "slack" | "hmac" => webhook::compile(&mut making, reader, &scheme),
        _ => None,
    }
}

/// Whom a signature stands for.
fn principal(name: &str, reader: &Reader<'_>) -> Principal {
    let list = |key: &str| -> Vec<Box<str>> {
        let texts = reader.get::<OneOrMany<String>>(key);
        let texts = texts.map(|texts| texts.0).unwrap_or_default();
        texts.into_iter().map(String::into_boxed_str).collect()
    };
    let subject = reader.get::<String>("subject");
    let subject = subject.as_deref().unwrap_or(name);
    let (roles, scopes) = (list("roles"), list("scopes"));
    Principal {
        headers: IdentityHeaders::new(subject, &roles, &scopes),
        roles,
        scopes,
        ..Principal::named(subject, "[signers]".into())
    }
}

fn require(name: &str, at: At, reader: &Reader<'_>, (key, hint): (&str, &str)) {
    if !reader.has(key) {
        let message = format!("signer `{name}` needs `{key}`");
        reader.error_at(at, message, Some(hint.to_owned()));
    }
}

/// Whether a signer's field can arrive; one that cannot is told.
fn arrives(reader: &Reader<'_>, (key, field): (&str, &HeaderName)) -> bool {
    let Some(why) = why_no_credential(field) else {
        return true;
    };
    let hint = "name a field of the signer's own".to_owned();
    reader.error(key, format!("`{field}` {why}"), Some(hint));
    false
}

fn sigv4(name: &str, at: At, reader: &Reader<'_>) -> Option<SigV4> {
    for needed in [
        ("key_id", "the id that requests name as `Credential`"),
        ("secret", "`secret = { file = \"…\" }` or `{ env = \"…\" }`"),
        ("region", "the region that requests are signed for"),
        ("service", "the service that requests are signed for"),
    ] {
        require(name, at, reader, needed);
    }
    let part = |key: &str| -> Option<Box<str>> {
        let text = reader.get::<String>(key)?;
        if text.is_empty() || text.contains('/') || text.chars().any(char::is_whitespace) {
            let hint = "it is one part of a credential scope";
            reader.error(key, format!("`{text}` is no `{key}`"), Some(hint.into()));
            return None;
        }
        Some(text.into())
    };
    let (key_id, region, service) = (part("key_id"), part("region"), part("service"));
    let secrets = reader.secrets("secret");
    let (key_id, region, service) = (key_id?, region?, service?);
    if secrets.is_empty() {
        return None;
    }
    Some(SigV4::new(Rules {
        session_token: reader.secret("session_token"),
        max_skew: max_skew(reader),
        presigned: presigned(reader),
        unsigned_payload: unsigned_payload(reader),
        double_encode: reader.get("double_encode").unwrap_or(*service != *"s3"),
        secrets,
        key_id,
        region,
        service,
    }))
}

fn max_skew(reader: &Reader<'_>) -> Duration {
    let usual = Duration::from_mins(15);
    let skew = reader.get("max_skew").unwrap_or(usual);
    if skew > usual {
        reader.relax(
            "max_skew",
            "this weakens the gate: old signed requests count for long",
        );
    }
    skew.min(WEEK)
}

fn presigned(reader: &Reader<'_>) -> Option<Duration> {
    let longest = reader
        .get("presigned_max")
        .unwrap_or(Duration::from_hours(1));
    if longest > WEEK {
        reader.error(
            "presigned_max",
            "a presigned request lives for 7 days at most",
            Some("use `7d` or less".into()),
        );
    }
    if reader.get("presigned") != Some(true) {
        return None;
    }
    reader.relax(
        "presigned",
        "this weakens the gate: whoever has a presigned address is the signer until it expires",
    );
    Some(longest)
}

fn unsigned_payload(reader: &Reader<'_>) -> bool {
    let unsigned = reader.get("unsigned_payload").unwrap_or(false);
    if unsigned {
        reader.relax(
            "unsigned_payload",
            "this weakens the gate: bodies of signed requests may be anything",
        );
    }
    unsigned
}

#[cfg(test)]
mod schemes;

#[cfg(test)]
mod tests {
    use crate::{
        config::{Problem, Reader, Severity, load},
        policy::authn::SignerBook,
        snapshot::survivors::Survivors,
    };

    const WHOLE: &str = "scheme = \"sigv4\"\nkey_id = \"AKID\"\nsecret = { file = \"key\" }\n\
                         region = \"r\"\nservice = \"s\"\n";

    /// Compiles `[signers.robot]` of this text.
    fn judged(text: &str) -> (SignerBook, Vec<Problem>) {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::write(folder.path().join("key"), "s3cret").expect("written");
        let file = folder.path().join("gate.toml");
        std::fs::write(&file, format!("[signers.robot]\n{text}")).expect("written");
        let loaded = load(&file, &[]);
        let root = Reader::new(&loaded.root, &loaded.problems, &loaded.sources, "");
        let book = super::compile(&root, &Survivors::offline()).book;
        let mut problems = loaded.problems.into_sorted();
        // The file of the test is nobody's secret.
        problems.retain(|problem| problem.severity != Severity::Warning);
        (book, problems)
    }

    fn messages(text: &str) -> Vec<String> {
        let problems = judged(text).1.into_iter();
        problems.map(|problem| problem.message).collect()
    }

    #[test]
    fn a_whole_section_is_a_signer() {
        let (book, problems) = judged(WHOLE);
        assert!(problems.is_empty(), "{problems:?}");
        let signer = book.get("robot").cloned().flatten().expect("a signer");
        assert_eq!(signer.name(), "robot");
        assert!(!format!("{signer:?}").contains("s3cret"));
        let (book, problems) = judged(&WHOLE.replace("{ file", "[{ file").replace(" }", " }]"));
        assert!(problems.is_empty() && book.values().flatten().count() == 1);
    }

    #[test]
    fn all_that_is_missing_is_told_at_once() {
        assert_eq!(messages(""), ["signer `robot` needs `scheme`"]);
        let needs = messages("scheme = \"sigv4\"");
        for key in ["key_id", "secret", "region", "service"] {
            let wanted = format!("signer `robot` needs `{key}`");
            assert!(needs.contains(&wanted), "{needs:?}");
        }
        let slash = messages(&WHOLE.replace("\"r\"", "\"r/s\""));
        assert_eq!(slash, ["`r/s` is no `region`"]);
        let long = messages(&format!("{WHOLE}presigned_max = \"8d\""));
        assert_eq!(long, ["a presigned request lives for 7 days at most"]);
    }

    #[test]
    fn what_weakens_is_told() {
        for line in [
            "max_skew = \"16m\"",
            "presigned = true",
            "unsigned_payload = true",
        ] {
            let told = messages(&format!("{WHOLE}{line}"));
            let [relaxation] = told.as_slice() else {
                panic!("{told:?}")
            };
            assert!(relaxation.starts_with("this weakens the gate: "), "{line}");
        }
        assert!(messages(&format!("{WHOLE}max_skew = \"15m\"")).is_empty());
    }
}
