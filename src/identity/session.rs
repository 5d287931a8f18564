//! The session cookie of the gate (`[session]`): a sealed name, and nothing else that a browser could read or change.
//!
//! Where the session of a request is found, begun and renamed; [`crate::state::sessions`] remembers them. A cookie that
//! does not open, that stands twice or whose session is over is as good as none, is counted, and is to be cleared. The
//! same keys seal where a browser is sent back to, for one session.

use std::sync::Arc;

use http::{HeaderMap, HeaderValue};

use super::webauthn::{Challenge, MAX_CLIENT_DATA, client_data::ClientData};
use crate::{
    crypto::{
        rng,
        seal::{Seal, Unopened},
        secret::Secret,
    },
    state::sessions::{Factor, Full, Id, Owner, Refused, Rules, Session, Sessions},
    wire::{cookie, own_space},
};

/// A sealed name is shorter.
const LONGEST: usize = 256;
/// How long a browser may take before it is sent back, in seconds.
const RETURN: u64 = 600;
/// How long an authenticator may take to answer, in seconds (Web Authentication Level 3 §15.1).
const ANSWER: u64 = 300;
/// The longest path and query that a browser is sent back to.
/// Sealed it stands in the address of the page and once more in its `Referer`, and 16 KiB of header hold both and a token.
pub const LONGEST_TARGET: usize = 2048;

/// The cookie, and the sessions that it names.
#[derive(Debug)]
pub struct SessionCookie {
    name: Box<str>,
    seal: Arc<Seal>,
    rules: Rules,
    sessions: Arc<Sessions>,
}

/// What a request shows of a session.
#[derive(Debug)]
pub enum Shown {
    /// No cookie.
    Nothing,
    /// One that counts for nothing and is to be cleared.
    Bad,
    /// One of a session that got a new name a moment ago. It counts for nothing, and is not to be cleared: that would take away
    /// the new one, which the browser may have meanwhile.
    Renamed,
    /// A session that lives.
    Live(Id, Session),
}

impl SessionCookie {
    /// The cookie of this name; `sessions` are those of the running gate.
    pub fn new(name: &str, seal: Arc<Seal>, (rules, sessions): (Rules, Arc<Sessions>)) -> Self {
        Self {
            name: name.into(),
            seal,
            rules,
            sessions,
        }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The session of a request at `now` (Unix seconds). Nothing is moved by looking.
    pub fn read(&self, headers: &HeaderMap, now: u64) -> Shown {
        let mut values = cookie::pairs(headers).filter(|(name, _)| *name == &*self.name);
        let Some((_, value)) = values.next() else {
            return Shown::Nothing;
        };
        let found = if values.next().is_some() {
            Err(Refused::Repeated)
        } else {
            self.find(value, now)
        };
        match found {
            Ok((id, session)) => Shown::Live(id, session),
            Err(why) => {
                self.sessions.refuse(why);
                match why {
                    Refused::Renamed => Shown::Renamed,
                    _ => Shown::Bad,
                }
            }
        }
    }

    fn find(&self, value: &str, now: u64) -> Result<(Id, Session), Refused> {
        if value.len() > LONGEST {
            return Err(Refused::Forged);
        }
        let opened = self.seal.open(&self.purpose(), value, now);
        let name = opened.map_err(|why| match why {
            Unopened::Expired => Refused::Expired,
            Unopened::Malformed | Unopened::UnknownKey | Unopened::Forged => Refused::Forged,
        })?;
        let id = Id::of(&name).ok_or(Refused::Forged)?;
        match self.sessions.find(&id, now, &self.rules) {
            Some(session) => Ok((id, session)),
            None if self.sessions.was_renamed(&id, now) => Err(Refused::Renamed),
            None => Err(Refused::Ended),
        }
    }

    /// The session of a request, where one lives; nothing is counted.
    pub fn live(&self, headers: &HeaderMap, now: u64) -> Option<(Id, Session)> {
        let mut values = cookie::pairs(headers).filter(|(name, _)| *name == &*self.name);
        let (_, value) = values.next()?;
        self.find(value, now).ok()
    }

    /// Whether it is to be looked if the factor of a session is still enrolled; see [`Sessions::is_due`].
    pub fn is_due(&self, id: &Id, now: u64) -> bool {
        self.sessions.is_due(id, now)
    }

    /// Ends a session.
    pub fn end(&self, id: &Id) {
        self.sessions.end(id);
    }

    /// States that its owner uses a session.
    pub fn touch(&self, id: &Id, now: u64) {
        self.sessions.touch(id, now, &self.rules);
    }

    /// Counts a session that is that of somebody else than who asks.
    pub fn note_foreign(&self) {
        self.sessions.refuse(Refused::OtherOwner);
    }

    /// Begins a pending session, with the field that gives it to the browser.
    ///
    /// # Errors
    /// [`Full`] when there is no room for one more.
    pub fn begin(&self, owner: &Owner, now: u64) -> Result<(Id, HeaderValue), Full> {
        let id = self.sessions.begin(owner, now, &self.rules)?;
        Ok((id, self.field(&id, now)))
    }

    /// States that a factor was proven in a session: the field that gives its new name to the browser. `None` when it is
    /// over.
    pub fn prove(&self, id: &Id, factor: Factor, now: u64) -> Option<HeaderValue> {
        let id = self.sessions.prove(id, factor, (now, &self.rules))?;
        Some(self.field(&id, now))
    }

    /// The field that takes the cookie away from a browser.
    pub fn clearing(&self) -> HeaderValue {
        field(&[&self.name, "=", ATTRIBUTES, "; Max-Age=0"])
    }

    fn field(&self, id: &Id, now: u64) -> HeaderValue {
        let until = now.saturating_add(self.rules.lifetime).saturating_add(1);
        let sealed = self.seal.seal(&self.purpose(), until, id.expose());
        field(&[&self.name, "=", &sealed, ATTRIBUTES])
    }

    /// Where a browser is to be sent back to, sealed for its session for ten minutes.
    pub fn seal_target(&self, id: &Id, target: &str, now: u64) -> String {
        let until = now.saturating_add(RETURN);
        self.seal
            .seal(&purpose_of_return(id), until, target.as_bytes())
    }

    /// Where a browser is sent back to; `None` for whatever was not sealed for the cookie's own id, or leads elsewhere.
    pub fn open_target(&self, id: &Id, sealed: &str, now: u64) -> Option<String> {
        let opened = self.seal.open(&purpose_of_return(id), sealed, now).ok()?;
        let target = String::from_utf8(opened.to_vec()).ok()?;
        own_space::stays_here(&target).then_some(target)
    }

    /// A new challenge for an authenticator, which counts once and for five minutes; `None` when the session is over.
    pub fn ask(&self, id: &Id, now: u64) -> Option<Challenge> {
        let mut challenge = Challenge::default();
        rng::fill(&mut challenge);
        let until = now.saturating_add(ANSWER);
        self.sessions.ask(id, challenge, until)?;
        Some(challenge)
    }

    /// The challenge that this client data is about, if it was given out in the session and still counts; it does not from now
    /// on.
    pub fn take_asked(&self, id: &Id, client_data: &[u8], now: u64) -> Option<Challenge> {
        if client_data.len() > MAX_CLIENT_DATA {
            return None;
        }
        let said = ClientData::read(client_data).ok()?;
        self.sessions
            .take_asked(id, |challenge| said.is_about(challenge), now)
    }

    /// A secret that a page gives to its browser to bring back in the same session, sealed for ten minutes.
    pub fn seal_secret(&self, id: &Id, secret: &Secret, now: u64) -> String {
        let until = now.saturating_add(RETURN);
        self.seal
            .seal(&purpose_of_secret(id), until, secret.expose())
    }

    /// The secret; `None` for whatever was not sealed for the cookie's own id.
    pub fn open_secret(&self, id: &Id, sealed: &str, now: u64) -> Option<Secret> {
        let opened = self.seal.open(&purpose_of_secret(id), sealed, now).ok()?;
        Some(Secret::new(opened.to_vec()))
    }

    fn purpose(&self) -> Vec<u8> {
        [b"cookie ", self.name.as_bytes()].concat()
    }
}

const ATTRIBUTES: &str = "; Path=/; Secure; HttpOnly; SameSite=Lax";

fn purpose_of_return(id: &Id) -> Vec<u8> {
    [b"return ".as_slice(), id.expose()].concat()
}

fn purpose_of_secret(id: &Id) -> Vec<u8> {
    [b"secret ".as_slice(), id.expose()].concat()
}

fn field(parts: &[&str]) -> HeaderValue {
    let mut value = HeaderValue::try_from(parts.concat())
        .expect("the name was checked with the file, and the rest is visible ASCII");
    value.set_sensitive(true);
    value
}

#[cfg(test)]
mod tests {
    use http::header::COOKIE;

    use super::*;

    const NOW: u64 = 1_800_000_000;

    fn cookie_named(name: &str) -> SessionCookie {
        let rules = Rules {
            idle: 900,
            lifetime: 28_800,
            entries: 10,
        };
        let seal = Arc::new(Seal::new([&[7; 32]]));
        SessionCookie::new(name, seal, (rules, Arc::default()))
    }

    fn alice() -> Owner {
        Owner {
            issuer: "corp".into(),
            subject: "alice".into(),
        }
    }

    fn sent(values: &[&str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(COOKIE, values.join("; ").parse().unwrap());
        headers
    }

    /// `name=value` of a field.
    fn pair(field: &HeaderValue) -> String {
        let text = field.to_str().unwrap();
        text.split(';').next().unwrap().to_owned()
    }

    #[test]
    fn b35_the_cookie_is_sealed_and_has_all_its_attributes() {
        let cookie = cookie_named("__Host-portcullis");
        let (id, field) = cookie.begin(&alice(), NOW).unwrap();
        let text = field.to_str().unwrap();
        assert!(text.starts_with("__Host-portcullis="), "{text}");
        assert!(
            text.ends_with("; Path=/; Secure; HttpOnly; SameSite=Lax"),
            "{text}"
        );
        let Shown::Live(found, session) = cookie.read(&sent(&["a=1", &pair(&field)]), NOW) else {
            panic!("a session that lives");
        };
        assert_eq!((found, session.owner), (id, alice()));
        assert!(matches!(cookie.read(&sent(&["a=1"]), NOW), Shown::Nothing));
        assert_eq!(
            cookie.clearing(),
            "__Host-portcullis=; Path=/; Secure; HttpOnly; SameSite=Lax; Max-Age=0"
        );
    }

    #[test]
    fn b37_whatever_is_not_the_very_cookie_is_as_good_as_none_and_counted() {
        let cookie = cookie_named("__Host-portcullis");
        let (id, field) = cookie.begin(&alice(), NOW).unwrap();
        let own = pair(&field);
        let bad = |values: &[&str], now: u64| matches!(cookie.read(&sent(values), now), Shown::Bad);
        assert!(bad(&[&format!("{own}A")], NOW));
        assert!(bad(&["__Host-portcullis="], NOW));
        assert!(bad(&[&own, &own], NOW));
        assert!(bad(&[&own], NOW + 28_801), "the envelope says so too");
        // A value that was sealed with the same key for something else.
        let target = cookie.seal_target(&id, "/pay", NOW);
        assert!(bad(&[&format!("__Host-portcullis={target}")], NOW));
        let other = cookie_named("__Host-other");
        let pasted = own.replace("portcullis=", "other=");
        assert!(matches!(other.read(&sent(&[&pasted]), NOW), Shown::Bad));
        assert_eq!(
            cookie.sessions.refused(),
            [
                ("forged", 3),
                ("expired", 1),
                ("ended", 0),
                ("repeated", 1),
                ("other-owner", 0),
                ("renamed", 0)
            ]
        );
    }

    #[test]
    fn b32_a_way_back_is_for_its_session_its_time_and_this_origin() {
        let cookie = cookie_named("__Host-portcullis");
        let (id, _) = cookie.begin(&alice(), NOW).unwrap();
        let (other, _) = cookie.begin(&alice(), NOW).unwrap();
        let sealed = cookie.seal_target(&id, "/pay?to=bob", NOW);
        let opened = |id, now| cookie.open_target(id, &sealed, now);
        assert_eq!(opened(&id, NOW + 599).as_deref(), Some("/pay?to=bob"));
        assert_eq!(opened(&id, NOW + 600), None);
        assert_eq!(opened(&other, NOW), None);
        for evil in ["//evil.example/", "/\\evil.example", "https://evil.example"] {
            let sealed = cookie.seal_target(&id, evil, NOW);
            assert_eq!(cookie.open_target(&id, &sealed, NOW), None, "{evil}");
        }
    }
}
