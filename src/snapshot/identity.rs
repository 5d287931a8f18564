//! `[identity]`: what the gate signs for backends, and the upstreams that get it.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use super::{server::positive, survivors::Survivors};
use crate::{
    config::{FilePath, Key, Kind, OneOrMany, Reader, Section, readable_by_others},
    identity::statement::{StatementKey, Statements, Told, Voucher},
};

/// `[identity]`
pub static IDENTITY: Section = Section {
    name: "identity",
    doc: "signed statements of who asks, for upstreams with `identity`",
    keys: &[
        Key::new(
            "issuer",
            Kind::String,
            "the claim iss of every statement, such as the address of the gate",
            "",
        ),
        Key::new(
            "key",
            Kind::OneOrMany(&Kind::Path),
            "private key on P-256, PEM, readable by its owner alone; of several the first signs and all are published; made at start where nothing is said",
            "",
        ),
        Key::new(
            "lifetime",
            Kind::Duration,
            "how long a statement is good for, 60s at most",
            "\"30s\"",
        ),
    ],
};

/// A statement is for one request, which is on its way at once.
const LONGEST: Duration = Duration::from_mins(1);

/// The compiled section.
#[derive(Debug, Default)]
pub struct Identity {
    /// `None` where nothing is signed.
    pub statements: Option<Arc<Statements>>,
    /// Files to watch.
    pub files: Vec<PathBuf>,
    /// Whether the file has the section, good or bad.
    stated: bool,
}

/// Compiles `[identity]`.
pub fn compile(root: &Reader<'_>, survivors: &Survivors) -> Identity {
    let reader = root.section("identity");
    let mut identity = Identity {
        stated: reader.present(),
        ..Identity::default()
    };
    if !identity.stated {
        return identity;
    }
    if !reader.has("issuer") {
        reader.error(
            "issuer",
            "a statement needs to say whose it is",
            Some("such as `issuer = \"https://gate.example\"`".into()),
        );
    }
    let lifetime = positive(&reader, "lifetime", Duration::from_secs(30));
    if lifetime > LONGEST {
        reader.error(
            "lifetime",
            "a statement is good for one minute at most",
            Some("such as `\"30s\"`".into()),
        );
    }
    let keys = if reader.has("key") {
        keys_of_files(&reader, &mut identity.files)
    } else {
        vec![survivors.statement_keys.made()]
    };
    if let Some(issuer) = reader.get::<String>("issuer")
        && !keys.is_empty()
    {
        identity.statements = Some(Arc::new(Statements {
            issuer: issuer.into(),
            // Less than a second would be none.
            lifetime: lifetime.as_secs().max(1),
            keys,
        }));
    }
    identity
}

fn keys_of_files(reader: &Reader<'_>, files: &mut Vec<PathBuf>) -> Vec<Arc<StatementKey>> {
    let paths = reader
        .get::<OneOrMany<FilePath>>("key")
        .map(|paths| paths.0)
        .unwrap_or_default();
    if paths.is_empty()
        && reader
            .value("key")
            .is_some_and(|key| key.as_array().is_some())
    {
        reader.error(
            "key",
            "the list of keys is empty",
            Some("name a file, or leave `key` out".into()),
        );
    }
    let mut keys = Vec::new();
    for path in paths {
        let path = path.resolve(reader.sources());
        keys.extend(key_of_file(reader, &path));
        files.push(path);
    }
    keys
}

fn key_of_file(reader: &Reader<'_>, path: &Path) -> Option<Arc<StatementKey>> {
    if readable_by_others(path) {
        reader.warn(
            "key",
            format!("the key file `{}` is readable by others", path.display()),
            Some("chmod 600".into()),
        );
    }
    let read = fs::read(path).map_err(|error| error.to_string());
    let key = read.and_then(|pem| {
        let pem = zeroize::Zeroizing::new(pem);
        StatementKey::from_pem(&pem).map_err(|error| error.to_string())
    });
    match key {
        Ok(key) => Some(Arc::new(key)),
        Err(why) => {
            reader.error(
                "key",
                format!("cannot use the key `{}`: {why}", path.display()),
                Some("`openssl ecparam -name prime256v1 -genkey -noout` makes one".into()),
            );
            None
        }
    }
}

impl Identity {
    /// What the upstream of this name is told.
    pub fn voucher(&self, name: &str, upstream: &Reader<'_>) -> Option<Box<Voucher>> {
        let told = match upstream.get::<String>("identity").as_deref() {
            Some("authenticated") => Told::Authenticated,
            Some("always") => Told::Always,
            _ => return None,
        };
        if !self.stated {
            upstream.error(
                "identity",
                "there is nothing to sign with",
                Some("add a section `[identity]` with `issuer`".into()),
            );
        }
        Some(Box::new(Voucher {
            statements: Arc::clone(self.statements.as_ref()?),
            audience: name.into(),
            told,
        }))
    }
}
