//! `[mfa] rp_id`, `origins`, `user_verification`: the name that passkeys are bound to, and the pages that may ask for them.
//!
//! Whether the name is one under which the public registers names is for the browser to say, which knows the list of them.

use super::routes::Routes;
use crate::{
    config::{Key, Kind, Origin, Reader},
    identity::{
        second_factor::SecondFactor,
        webauthn::{RelyingParty, Verification},
    },
};

/// The words of `user_verification`.
const VERIFICATIONS: &[&str] = &["required", "preferred"];

/// The keys of `[mfa]` that are about passkeys.
pub(super) const RP_ID: Key = Key::new(
    "rp_id",
    Kind::String,
    "host name that passkeys are bound to: that of all `origins`, or one above it. Passkeys are off without it",
    "",
);
/// See [`RP_ID`].
pub(super) const ORIGINS: Key = Key::new(
    "origins",
    Kind::List(&Kind::String),
    "origins whose pages may ask for a passkey, each in full",
    "",
);
/// See [`RP_ID`].
pub(super) const USER_VERIFICATION: Key = Key::new(
    "user_verification",
    Kind::Choice(VERIFICATIONS),
    "whether the authenticator must make sure who uses it, by a PIN or a finger",
    "\"required\"",
);

/// The party; `None` where there is none, or not a good one.
pub(super) fn compile(mfa: &Reader<'_>) -> Option<RelyingParty> {
    if !mfa.has("rp_id") {
        for key in ["origins", "user_verification"] {
            if mfa.has(key) {
                let hint =
                    "add the name that passkeys are bound to, such as `rp_id = \"app.example\"`";
                mfa.error(
                    key,
                    format!("`{key}` is for passkeys, which need `rp_id`"),
                    Some(hint.into()),
                );
            }
        }
        return None;
    }
    let id: String = mfa.get("rp_id")?;
    if !is_name(&id) {
        let hint = "a host name in lower case, such as `app.example`, without scheme and port";
        mfa.error(
            "rp_id",
            format!("`{id}` is no name that a passkey can be bound to"),
            Some(hint.into()),
        );
        return None;
    }
    let origins = origins(mfa, &id);
    let verification = verification(mfa);
    Some(RelyingParty::new(&id, origins?, verification))
}

/// A name below a registered one, or that of this machine.
fn is_name(id: &str) -> bool {
    let is_label = |label: &str| {
        !label.is_empty()
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label
                .bytes()
                .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
    };
    let last = id.rsplit('.').next().unwrap_or(id);
    let is_number = last.bytes().all(|byte| byte.is_ascii_digit());
    id.len() <= 253
        && id.split('.').all(is_label)
        && !is_number
        && (id.contains('.') || id == "localhost")
}

fn origins(mfa: &Reader<'_>, id: &str) -> Option<Box<[Box<str>]>> {
    if !mfa.has("origins") {
        let hint = format!("such as `origins = [\"https://{id}\"]`");
        mfa.error("rp_id", "no origin may ask for passkeys", Some(hint));
        return None;
    }
    let origins: Vec<Origin> = mfa.get("origins")?;
    if origins.is_empty() {
        let hint = format!("such as `[\"https://{id}\"]`");
        mfa.error("origins", "no origin may ask for passkeys", Some(hint));
    }
    for origin in &origins {
        let origin = origin.as_str();
        if !is_below(origin, id) {
            let hint =
                "browsers give a passkey to https pages of its name, and of names below it, alone";
            mfa.error(
                "origins",
                format!("`{origin}` is not an https origin of `{id}` or below it"),
                Some(hint.into()),
            );
        }
    }
    Some(
        origins
            .iter()
            .map(|origin| origin.as_str().into())
            .collect(),
    )
}

/// Tells of origins whose host no route is for: nobody could ask for a passkey there.
pub(super) fn warn_of_strangers(root: &Reader<'_>, factor: Option<&SecondFactor>, routes: &Routes) {
    let has_passkeys = factor.is_some_and(|factor| factor.party().is_some());
    if !has_passkeys || routes.any_host {
        return;
    }
    let (mfa, hosts) = (root.section("mfa"), &routes.hosts);
    let origins: Vec<Origin> = mfa.get("origins").unwrap_or_default();
    for origin in &origins {
        let authority = origin.as_str().split("://").nth(1).unwrap_or_default();
        let host = authority.split(':').next().unwrap_or(authority);
        if !hosts.iter().any(|(served, _)| served.matches(host)) {
            mfa.warn(
                "origins",
                format!("no route is for the host of `{origin}`"),
                Some("add it to `hosts` of a blueprint, or take it out".into()),
            );
        }
    }
}

/// Whether it is https, and its host is the name or below it. Browsers take http of this machine as well, but the gate's
/// pages are served over https alone.
fn is_below(origin: &str, id: &str) -> bool {
    let Some(authority) = origin.strip_prefix("https://") else {
        return false;
    };
    let host = authority.split(':').next().unwrap_or(authority);
    host.strip_suffix(id)
        .is_some_and(|above| above.is_empty() || above.ends_with('.'))
}

fn verification(mfa: &Reader<'_>) -> Verification {
    let word: Option<String> = mfa.get("user_verification");
    if word.as_deref() != Some("preferred") {
        return Verification::Required;
    }
    mfa.relax(
        "user_verification",
        "this weakens passkeys: whoever finds an authenticator can use it",
    );
    Verification::Preferred
}

#[cfg(test)]
mod tests {
    use super::{is_below, is_name};

    #[test]
    fn a_passkey_is_bound_to_a_name() {
        for good in [
            "app.example",
            "a-b.app.example",
            "localhost",
            "xn--bcher-kva.example",
        ] {
            assert!(is_name(good), "{good}");
        }
        for bad in [
            "",
            "example",
            "App.example",
            "https://app.example",
            "app.example:443",
            "app.example.",
            ".app.example",
            "*.example",
            "-a.example",
            "192.0.2.1",
            "[::1]",
            "bücher.example",
        ] {
            assert!(!is_name(bad), "{bad}");
        }
    }

    #[test]
    fn an_origin_is_of_the_name_or_below_it() {
        for good in [
            "https://app.example",
            "https://a.app.example",
            "https://app.example:8443",
        ] {
            assert!(is_below(good, "app.example"), "{good}");
        }
        for bad in [
            "http://app.example",
            "https://evilapp.example",
            "https://example",
            "https://app.example.evil",
            "https://other.example",
        ] {
            assert!(!is_below(bad, "app.example"), "{bad}");
        }
    }
}
