//! `[session]` and `[mfa]`: the gate's own second factor.
//!
//! The two stand together: the factor is remembered in a session, and what is enrolled is sealed with the session's keys.

use std::{os::unix::fs::MetadataExt, path::Path, sync::Arc, time::Duration};

use super::{passkeys, server::positive, survivors::Survivors};
use crate::{
    config::{Key, Kind, Reader, Section},
    crypto::seal::{Seal, key_of},
    identity::{
        account::{self, Accounts},
        second_factor::SecondFactor,
        session::SessionCookie,
    },
    state::sessions::Rules,
};

/// `[session]`
pub static SESSION: Section = Section {
    name: "session",
    doc: "sessions of people at browsers, in the memory of this process",
    keys: &[
        Key::new(
            "keys",
            Kind::OneOrMany(&Kind::Secret),
            "keys that seal the cookie and what is enrolled, newest first, 32 bytes each in hex or base64url; older ones still open",
            "",
        ),
        Key::new(
            "cookie",
            Kind::String,
            "name of the cookie, which no backend sees or sets",
            "\"__Host-portcullis\"",
        ),
        Key::new(
            "idle",
            Kind::Duration,
            "a session ends after this time without a request in it",
            "\"15m\"",
        ),
        Key::new(
            "lifetime",
            Kind::Duration,
            "a session ends after this time in any case",
            "\"8h\"",
        ),
        Key::new(
            "entries",
            Kind::Integer {
                min: 1,
                max: 10_000_000,
            },
            "most sessions at the same time, of one account 16; one more is answered 503",
            "50000",
        ),
    ],
};

/// `[mfa]`
pub static MFA: Section = Section {
    name: "mfa",
    doc: "the gate's own second factor, for routes whose `step_up` it satisfies; none without this section",
    keys: &[
        Key::new(
            "accounts",
            Kind::Path,
            "folder of what is enrolled, a file an account, for the gate's user alone",
            "",
        ),
        Key::new(
            "acr",
            Kind::String,
            "class that the factor counts as, for `step_up.acr`",
            "\"mfa\"",
        ),
        Key::new(
            "service",
            Kind::String,
            "what authenticator apps show beside the account",
            "\"Portcullis\"",
        ),
        passkeys::RP_ID,
        passkeys::ORIGINS,
        passkeys::USER_VERIFICATION,
    ],
};

/// Longer than this without a request is told.
const LONG_IDLE: Duration = Duration::from_hours(1);
/// Longer than this in all is told.
const LONG_LIFE: Duration = Duration::from_hours(24);

/// Compiles both sections; `None` where the file has no `[mfa]`, or has errors there.
pub fn compile(root: &Reader<'_>, survivors: &Survivors) -> Option<Arc<SecondFactor>> {
    let (session, mfa) = (root.section("session"), root.section("mfa"));
    if !mfa.present() {
        if session.present() {
            let hint = "add `[mfa]`, or leave `[session]` out";
            session.warn("keys", "nothing uses these sessions", Some(hint.into()));
        }
        return None;
    }
    let accounts = accounts(&mfa);
    let class = class(&mfa);
    let service: String = mfa
        .get("service")
        .unwrap_or_else(|| "Portcullis".to_owned());
    if !session.has("keys") {
        mfa.error(
            "accounts",
            "`[mfa]` needs keys to seal sessions and what is enrolled",
            Some("add `[session]` with `keys = [{ file = \"…\" }]`; `openssl rand -hex 32` makes one".into()),
        );
    }
    let party = passkeys::compile(&mfa);
    let (name, rules) = (name(&session), rules(&session));
    let seal = Arc::new(seal(&session)?);
    let sessions = (rules, Arc::clone(&survivors.sessions));
    let cookie = SessionCookie::new(&name?, Arc::clone(&seal), sessions);
    let accounts = Accounts::new(accounts?, seal);
    let running = (Arc::clone(&survivors.tries), survivors.hasher.clone());
    let words = (class.as_str(), service.as_str());
    let factor = SecondFactor::new(cookie, accounts, words, running);
    Some(Arc::new(factor.with_passkeys(party)))
}

/// The name of the cookie, which is kept from backends wherever the file has `[session]`: browsers may still send one.
pub fn cookie_name(root: &Reader<'_>) -> Option<String> {
    let session = root.section("session");
    session.present().then(|| stated_name(&session))
}

fn stated_name(session: &Reader<'_>) -> String {
    let stated = session.get("cookie");
    stated.unwrap_or_else(|| "__Host-portcullis".to_owned())
}

fn accounts(mfa: &Reader<'_>) -> Option<std::path::PathBuf> {
    if !mfa.has("accounts") {
        mfa.error(
            "accounts",
            "there is no folder for what is enrolled",
            Some("such as `accounts = \"/var/lib/portcullis/mfa\"`".into()),
        );
    }
    let folder = mfa.path("accounts")?;
    if let Some(why) = unfit(&folder) {
        let message = format!("`{}` {why}", folder.display());
        mfa.error("accounts", message, Some("chmod 700".into()));
    } else if let Some((why, hint)) = account::trouble_with(&folder) {
        let message = format!("`{}` {why}", folder.display());
        mfa.warn("accounts", message, Some(hint.into()));
    }
    Some(folder)
}

/// What is wrong with a folder. One that is not there yet is made by `portcullis enrol`.
fn unfit(folder: &Path) -> Option<&'static str> {
    let about = std::fs::metadata(folder).ok()?;
    if !about.is_dir() {
        return Some("is no folder");
    }
    (about.mode() & 0o022 != 0).then_some("may be written by others, who could enrol themselves")
}

/// It stands in challenges beside others, so it is one word of theirs.
fn class(mfa: &Reader<'_>) -> String {
    let class: String = mfa.get("acr").unwrap_or_else(|| "mfa".to_owned());
    if class.is_empty()
        || !class
            .bytes()
            .all(|b| b.is_ascii_graphic() && b != b'"' && b != b'\\')
    {
        let hint = "visible ASCII without quote, backslash and space";
        mfa.error("acr", format!("`{class}` is no class"), Some(hint.into()));
    }
    class
}

fn name(session: &Reader<'_>) -> Option<String> {
    let name = stated_name(session);
    let is_token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    if name.is_empty() || !name.bytes().all(is_token) {
        let hint = "letters, digits and `_-.`, such as `__Host-portcullis`";
        session.error(
            "cookie",
            format!("`{name}` is no cookie name"),
            Some(hint.into()),
        );
        return None;
    }
    if !name.starts_with("__Host-") {
        session.relax(
            "cookie",
            "this weakens sessions: without `__Host-` other hosts of the site can set the cookie",
        );
    }
    Some(name)
}

fn rules(session: &Reader<'_>) -> Rules {
    let idle = positive(session, "idle", Duration::from_mins(15));
    let lifetime = positive(session, "lifetime", Duration::from_hours(8));
    if idle > lifetime {
        let hint = "`idle` is the shorter of the two";
        session.error(
            "idle",
            "a session ends before it is idle",
            Some(hint.into()),
        );
    }
    for (key, time, long) in [("idle", idle, LONG_IDLE), ("lifetime", lifetime, LONG_LIFE)] {
        if time > long {
            session.relax(
                key,
                "this weakens sessions: a stolen or forgotten one counts for long",
            );
        }
    }
    let entries: u32 = session.get("entries").unwrap_or(50_000);
    Rules {
        idle: idle.as_secs().max(1),
        lifetime: lifetime.as_secs().max(1),
        entries: usize::try_from(entries).unwrap_or(usize::MAX),
    }
}

fn seal(session: &Reader<'_>) -> Option<Seal> {
    let secrets = session.secrets("keys");
    let mut keys = Vec::new();
    for secret in &secrets {
        match key_of(secret) {
            Some(key) if keys.contains(&key) => session.error(
                "keys",
                "a key stands twice",
                Some("put the new key first and leave the one before behind it".into()),
            ),
            Some(key) => keys.push(key),
            None => session.error(
                "keys",
                "a key is not 32 bytes in hex or base64url",
                Some("`openssl rand -hex 32` makes one".into()),
            ),
        }
    }
    if secrets.is_empty()
        && session
            .value("keys")
            .is_some_and(|keys| keys.as_array().is_some())
    {
        let hint = "name one, such as `[{ file = \"session.key\" }]`";
        session.error("keys", "the list of keys is empty", Some(hint.into()));
    }
    (!keys.is_empty()).then(|| Seal::new(keys.iter().map(|key| &**key)))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::config::{Problem, Severity, load_str};

    /// What is said of a file with these sections; `KEY` and `OTHER` stand for files with a good key.
    fn said(text: &str, severity: Severity) -> Vec<String> {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: String| {
            let path = folder.path().join(name);
            std::fs::write(&path, text).unwrap();
            std::fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).unwrap();
            format!("{{ file = '{}' }}", path.display())
        };
        let key = write("key", "0f".repeat(32));
        let other = write(
            "other",
            "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8".to_owned(),
        );
        let bad = write("bad", "0f".repeat(31));
        let open = folder.path().join("open");
        std::fs::create_dir(&open).unwrap();
        std::fs::set_permissions(&open, PermissionsExt::from_mode(0o777)).unwrap();
        let text = text
            .replace("KEY", &key)
            .replace("OTHER", &other)
            .replace("BAD", &bad)
            .replace("OPEN", &format!("'{}'", open.display()))
            .replace("FOLDER", &format!("'{}'", folder.path().display()));
        let loaded = load_str("t.toml", &text, &[]);
        let root = Reader::new(&loaded.root, &loaded.problems, &loaded.sources, "");
        let factor = compile(&root, &Survivors::offline());
        let problems = loaded.problems.sorted();
        let errors = problems
            .iter()
            .any(|problem| problem.severity == Severity::Error);
        assert!(errors || factor.is_some() || !root.has("mfa"), "{text}");
        let wanted = |problem: &&Problem| problem.severity == severity;
        let found = problems.iter().filter(wanted);
        found
            .map(|problem| format!("{}: {}", problem.key, problem.message))
            .collect()
    }

    #[test]
    fn a_good_pair_of_sections_has_nothing_to_be_told() {
        for good in [
            "",
            "[session]\nkeys = KEY\n[mfa]\naccounts = FOLDER",
            "[session]\nkeys = KEY\n[mfa]\naccounts = FOLDER\nrp_id = 'example.org'\norigins = ['https://example.org', 'https://a.example.org:8443']",
            "[session]\nkeys = [KEY, OTHER]\nidle = '1h'\nlifetime = '24h'\n[mfa]\naccounts = FOLDER\nacr = 'gold'",
        ] {
            for severity in [Severity::Error, Severity::Warning, Severity::Relaxation] {
                assert_eq!(said(good, severity), Vec::<String>::new(), "{good}");
            }
        }
    }

    #[test]
    fn what_is_missing_or_cannot_be_is_an_error() {
        for (text, wanted) in [
            (
                "[mfa]\naccounts = 'none'",
                "mfa.accounts: `[mfa]` needs keys",
            ),
            (
                "[session]\nkeys = KEY\n[mfa]",
                "mfa.accounts: there is no folder",
            ),
            (
                "[session]\nkeys = []\n[mfa]\naccounts = 'none'",
                "session.keys: the list of keys is empty",
            ),
            (
                "[session]\nkeys = BAD\n[mfa]\naccounts = 'none'",
                "session.keys: a key is not 32 bytes",
            ),
            (
                "[session]\nkeys = [KEY, KEY]\n[mfa]\naccounts = 'none'",
                "session.keys: a key stands twice",
            ),
            (
                "[session]\nkeys = KEY\ncookie = 'a b'\n[mfa]\naccounts = 'none'",
                "session.cookie: `a b` is no cookie name",
            ),
            (
                "[session]\nkeys = KEY\nidle = '9h'\n[mfa]\naccounts = 'none'",
                "session.idle: a session ends before",
            ),
            (
                "[session]\nkeys = KEY\n[mfa]\naccounts = OPEN",
                "mfa.accounts: `",
            ),
            (
                "[session]\nkeys = KEY\n[mfa]\naccounts = 'none'\nacr = 'a b'",
                "mfa.acr: `a b` is no class",
            ),
        ] {
            let found = said(text, Severity::Error);
            assert_eq!(found.len(), 1, "{text}: {found:?}");
            assert!(found[0].starts_with(wanted), "{text}: {found:?}");
        }
    }

    #[test]
    fn passkeys_have_a_name_and_origins_of_it() {
        for (keys, wanted) in [
            ("rp_id = 'app.example'", "mfa.rp_id: no origin may ask"),
            (
                "rp_id = 'app.example'\norigins = []",
                "mfa.origins: no origin may ask",
            ),
            (
                "origins = ['https://app.example']",
                "mfa.origins: `origins` is for passkeys",
            ),
            (
                "rp_id = 'example'\norigins = ['https://app.example']",
                "mfa.rp_id: `example` is no name",
            ),
            (
                "rp_id = 'app.example'\norigins = ['https://evilapp.example']",
                "mfa.origins: `https://evilapp.example` is not an https origin",
            ),
            (
                "rp_id = 'app.example'\norigins = ['http://app.example']",
                "mfa.origins: `http://app.example` is not an https origin",
            ),
        ] {
            let text = format!("[session]\nkeys = KEY\n[mfa]\naccounts = 'none'\n{keys}");
            let found = said(&text, Severity::Error);
            assert_eq!(found.len(), 1, "{text}: {found:?}");
            assert!(found[0].starts_with(wanted), "{text}: {found:?}");
        }
    }

    #[test]
    fn what_weakens_sessions_is_told() {
        let text = "[session]\nkeys = KEY\ncookie = 'sid'\nidle = '2h'\nlifetime = '48h'\n[mfa]\naccounts = 'none'";
        assert_eq!(said(text, Severity::Relaxation).len(), 3);
        let text = "[session]\nkeys = KEY\n[mfa]\naccounts = 'none'\nrp_id = 'app.example'\norigins = ['https://app.example']\nuser_verification = 'preferred'";
        assert_eq!(said(text, Severity::Relaxation).len(), 1);
        let none = said(
            "[session]\nkeys = KEY\n[mfa]\naccounts = 'none'",
            Severity::Warning,
        );
        assert!(none[0].ends_with("is not there: nobody can show a second factor"));
        let unused = said("[session]\nkeys = KEY", Severity::Warning);
        assert_eq!(unused, ["session.keys: nothing uses these sessions"]);
    }
}
