//! `scheme = "http"`: message signatures (RFC 9421).

use std::{fs, path::Path};

use super::{Making, once, require};
use crate::{
    config::{FilePath, OneOrMany, Reader},
    identity::{
        http_signature::{
            HttpRules, HttpSigner,
            input::{Component, Part, fit_one, written_component},
            key::Key,
        },
        signer::Scheme,
    },
    wire::{hop, names},
};

/// Compiles a signer by message signatures.
pub(super) fn compile(making: &mut Making<'_>, reader: &Reader<'_>) -> Option<Scheme> {
    require(
        making.name,
        making.at,
        reader,
        ("key_id", "the `keyid` of its signatures"),
    );
    let keys = keys(making, reader);
    let key_id: Option<Box<str>> = reader.get::<String>("key_id").map(Box::from);
    let (max_age, once) = once::compile(making, reader, &["nonce", "signature"]);
    let rules = HttpRules {
        key_id: key_id?,
        tag: reader.get::<String>("tag").map(Box::from),
        components: components(reader),
        digest: digest(reader),
        max_age,
    };
    let signer = HttpSigner { rules, keys, once };
    if !signer.rules.name_the_request() {
        reader.relax(
            "components",
            "this weakens the gate: a signature may be moved to another request, \
             since it need not cover the method and the whole target",
        );
    }
    (!signer.keys.is_empty()).then(|| Scheme::Http(Box::new(signer)))
}

fn components(reader: &Reader<'_>) -> Option<Vec<Component>> {
    let texts = reader.get::<Vec<String>>("components")?;
    // What cannot be read was reported when the file was checked.
    let read = texts.iter().filter_map(|text| written_component(text).ok());
    let read: Vec<Component> = read.collect();
    for component in &read {
        if let Part::Field(name, _) = &component.part
            && (names::reserved(name) || hop::is_of_one_hop(name))
        {
            reader.error(
                "components",
                format!("`{name}` is taken out of every request before anything is judged"),
                Some("name fields that reach the backend".into()),
            );
        }
    }
    if !fit_one(&read) {
        reader.error(
            "components",
            "more components than a signature may have, so none could pass",
            Some("64 at most, and 16 of them with `;key` or `@query-param`".into()),
        );
    }
    Some(read)
}

fn digest(reader: &Reader<'_>) -> bool {
    let digest = reader.get("digest").unwrap_or(true);
    if !digest {
        reader.relax(
            "digest",
            "this weakens the gate: bodies of signed requests may be anything",
        );
    }
    digest
}

/// Public keys, or secrets; not both, since whoever has one kind should not be taken for who has the other.
fn keys(making: &Making<'_>, reader: &Reader<'_>) -> Vec<Key> {
    match (reader.has("public_key"), reader.has("secret")) {
        (true, true) => {
            let hint = "keep `public_key`, or `secret`".to_owned();
            reader.error("secret", "a signer has one kind of keys", Some(hint));
            Vec::new()
        }
        (true, false) => public_keys(reader),
        (false, true) => secrets(reader),
        (false, false) => {
            reader.error_at(
                making.at,
                format!("signer `{}` has no keys", making.name),
                Some("add `public_key`, or `secret` for `hmac-sha256`".into()),
            );
            Vec::new()
        }
    }
}

fn public_keys(reader: &Reader<'_>) -> Vec<Key> {
    let files = reader.get::<OneOrMany<FilePath>>("public_key");
    let files = files.map(|files| files.0).unwrap_or_default();
    let mut keys = Vec::new();
    for file in &files {
        let path = file.resolve(reader.sources());
        match public_keys_of(&path) {
            Ok(found) => keys.extend(found),
            Err(why) => reader.error_at(file.at, format!("`{}`: {why}", path.display()), None),
        }
    }
    keys
}

fn public_keys_of(path: &Path) -> Result<Vec<Key>, String> {
    let pem = fs::read(path).map_err(|error| error.to_string())?;
    Key::public(&pem).map_err(|error| error.to_string())
}

fn secrets(reader: &Reader<'_>) -> Vec<Key> {
    let mut keys = Vec::new();
    for secret in reader.secrets("secret") {
        match Key::secret(&secret) {
            Ok(key) => keys.push(key),
            Err(why) => reader.error("secret", why.to_string(), None),
        }
    }
    keys
}
