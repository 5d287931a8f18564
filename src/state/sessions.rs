//! Sessions of people at browsers: who began one, and the second factor that was proven in it.
//!
//! In memory, across reloads, and in this process alone. A session begins *pending*, when somebody whose credential is
//! known is asked for more, and becomes *proven* under a new name, while the old name dies (session fixation). It ends
//! with `idle` or `lifetime`. Nothing here knows of cookies.
//!
//! Bounded twice: of one owner at most [`PENDING`] and [`PROVEN`], the oldest of the kind goes; and of all at most
//! `entries`, beyond which none begins. So whoever has no second factor can push out nobody who has proven one.

use std::{
    collections::HashMap,
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use crate::{crypto::rng, exchange::principal::Principal};

/// Pending sessions of one owner, at most.
pub const PENDING: usize = 4;
/// Proven ones.
pub const PROVEN: usize = 12;
/// What authenticators may be asked at the same time in one session.
const ASKED: usize = 4;

/// How often the time of the last use is moved at the most, in seconds.
const MOVE: u64 = 60;
/// For how long it is known that a session got a new name, in seconds: whatever was under way has come by then.
const RENAMED: u64 = 30;
/// Old names that are known at the same time.
const OLD_NAMES: usize = 1000;
/// How often it is looked whether a proven factor is still enrolled, in seconds.
const LOOK: u64 = 60;
/// How often those that ended are looked for, in seconds.
const SWEEP: u64 = 60;

/// Whose session it is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Owner {
    /// The configured name of the issuer.
    pub issuer: Arc<str>,
    /// The subject, never empty.
    pub subject: Arc<str>,
}

impl Owner {
    /// The owner that a principal is; `None` for one without a name.
    pub fn of(principal: &Principal) -> Option<Self> {
        (!principal.subject.is_empty()).then(|| Self {
            issuer: Arc::clone(&principal.issuer),
            subject: (&*principal.subject).into(),
        })
    }

    /// Whether this very principal is the owner.
    pub fn is(&self, principal: &Principal) -> bool {
        *self.issuer == *principal.issuer && *self.subject == *principal.subject
    }
}

/// The name of a session: 256 random bits, a secret.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Id([u8; 32]);

impl Id {
    fn fresh() -> Self {
        let mut bytes = [0; 32];
        rng::fill(&mut bytes);
        Self(bytes)
    }

    /// The name of these bytes, if they are as many.
    pub fn of(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }

    /// The bytes, to be sealed.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Id(…)")
    }
}

/// A factor that was proven.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Factor {
    /// What it counts as (`acr`).
    pub class: Arc<str>,
    /// How it was proven (`amr`, RFC 8176).
    pub methods: &'static [&'static str],
    /// The Unix second of it (`auth_time`).
    pub at: u64,
    /// The mark of the account in which it was enrolled: with another one it counts no more.
    pub mark: Arc<str>,
    /// Whether it was shown for the very purpose of enrolling one more.
    pub enrols: bool,
}

/// What is known of a session.
#[derive(Clone, Debug)]
pub struct Session {
    /// Whose it is.
    pub owner: Owner,
    /// The Unix second at which it began under its name of today.
    pub made: u64,
    /// That of its last use, moved at most once a minute, and more often where less than four minutes of rest end it.
    pub used: u64,
    /// The factor that was proven in it; none yet in a pending one.
    pub factor: Option<Factor>,
    /// What authenticators were asked in it, oldest first, each with the Unix second from which on an answer is too late.
    asked: Vec<([u8; 32], u64)>,
    /// When it was looked whether that is still enrolled.
    looked: u64,
}

/// How long sessions last and how many there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules {
    /// Seconds without a use after which one ends.
    pub idle: u64,
    /// Seconds after which it ends in any case.
    pub lifetime: u64,
    /// How many there may be.
    pub entries: usize,
}

impl Rules {
    fn lets_live(&self, session: &Session, now: u64) -> bool {
        now.saturating_sub(session.used) <= self.idle
            && now.saturating_sub(session.made) <= self.lifetime
    }

    /// How often the time of the last use is moved: often enough that no session in use ends by rest.
    fn step(&self) -> u64 {
        MOVE.min(self.idle / 4)
    }
}

/// There is no room for a further session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full;

/// Why a session cookie is taken for none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// It does not open: tampered with, of an unknown key, or made for something else.
    Forged,
    /// It opens, and its time is over.
    Expired,
    /// Its session ended, or the process that knew it did.
    Ended,
    /// The cookie stands twice, so that either could be meant.
    Repeated,
    /// The session is that of another principal than the credential.
    OtherOwner,
    /// The session got a new name a moment ago, which the browser may already have.
    Renamed,
}

impl Refused {
    /// All of them, in order.
    pub const ALL: [Self; 6] = [
        Self::Forged,
        Self::Expired,
        Self::Ended,
        Self::Repeated,
        Self::OtherOwner,
        Self::Renamed,
    ];

    /// The word for logs and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Forged => "forged",
            Self::Expired => "expired",
            Self::Ended => "ended",
            Self::Repeated => "repeated",
            Self::OtherOwner => "other-owner",
            Self::Renamed => "renamed",
        }
    }
}

/// All sessions of the process. Times are Unix seconds.
#[derive(Debug, Default)]
pub struct Sessions {
    memory: Mutex<Memory>,
    refused: [AtomicU64; Refused::ALL.len()],
}

#[derive(Debug, Default)]
struct Memory {
    sessions: HashMap<Id, Session>,
    owners: HashMap<Owner, Vec<Id>>,
    /// Old names of sessions, each with the second from which on it is forgotten.
    renamed: HashMap<Id, u64>,
    swept: u64,
}

impl Sessions {
    /// Begins a pending session.
    ///
    /// # Errors
    /// [`Full`] when as many as may be are under way.
    pub fn begin(&self, owner: &Owner, now: u64, rules: &Rules) -> Result<Id, Full> {
        let mut memory = self.lock();
        memory.sweep(now, rules);
        memory.make_room(owner, PENDING, |session| session.factor.is_none());
        if memory.sessions.len() >= rules.entries {
            return Err(Full);
        }
        let session = Session {
            owner: owner.clone(),
            made: now,
            used: now,
            factor: None,
            asked: Vec::new(),
            looked: 0,
        };
        Ok(memory.enter(session))
    }

    /// What is known of a session that lives.
    pub fn find(&self, id: &Id, now: u64, rules: &Rules) -> Option<Session> {
        let mut memory = self.lock();
        let session = memory.sessions.get(id)?;
        if rules.lets_live(session, now) {
            return Some(session.clone());
        }
        memory.remove(id);
        None
    }

    /// Whether this was the name of a session until a moment ago.
    pub fn was_renamed(&self, id: &Id, now: u64) -> bool {
        let memory = self.lock();
        memory.renamed.get(id).is_some_and(|until| now < *until)
    }

    /// States that a session is used by its owner.
    pub fn touch(&self, id: &Id, now: u64, rules: &Rules) {
        if let Some(session) = self.lock().sessions.get_mut(id)
            && now.saturating_sub(session.used) >= rules.step().max(1)
        {
            session.used = now;
        }
    }

    /// Whether it is to be looked now if the factor that was proven in a session is still enrolled: at its first use and then
    /// once a minute. Whoever asks has to look.
    pub fn is_due(&self, id: &Id, now: u64) -> bool {
        let mut memory = self.lock();
        let session = memory.sessions.get_mut(id);
        let proven = session.filter(|session| session.factor.is_some());
        let Some(session) = proven.filter(|session| now.abs_diff(session.looked) >= LOOK) else {
            return false;
        };
        session.looked = now;
        true
    }

    /// Ends a session.
    pub fn end(&self, id: &Id) {
        self.lock().remove(id);
    }

    /// Ends all of them.
    pub fn clear(&self) {
        *self.lock() = Memory::default();
    }

    /// States that a factor was proven in a session that lives: it goes on under a new name, and the old one dies.
    pub fn prove(&self, id: &Id, factor: Factor, (now, rules): (u64, &Rules)) -> Option<Id> {
        let mut memory = self.lock();
        let session = memory.remove(id)?;
        if !rules.lets_live(&session, now) {
            return None;
        }
        memory.rename(id, now);
        memory.make_room(&session.owner, PROVEN, |session| session.factor.is_some());
        Some(memory.enter(Session {
            made: now,
            used: now,
            factor: Some(factor),
            asked: Vec::new(),
            looked: 0,
            ..session
        }))
    }

    /// Keeps what an authenticator is asked in a session until the Unix second `until`, beside the last few that it was asked
    /// before: pages that are open side by side. `None` when the session is over.
    pub fn ask(&self, id: &Id, challenge: [u8; 32], until: u64) -> Option<()> {
        let mut memory = self.lock();
        let asked = &mut memory.sessions.get_mut(id)?.asked;
        if asked.len() >= ASKED {
            asked.remove(0);
        }
        asked.push((challenge, until));
        Some(())
    }

    /// The one that an answer is about, of what authenticators were asked, where it is not too late; it is forgotten by this.
    pub fn take_asked(
        &self,
        id: &Id,
        is_about: impl Fn(&[u8; 32]) -> bool,
        now: u64,
    ) -> Option<[u8; 32]> {
        let mut memory = self.lock();
        let asked = &mut memory.sessions.get_mut(id)?.asked;
        let at = asked.iter().position(|(asked, _)| is_about(asked))?;
        let (challenge, until) = asked.remove(at);
        (now < until).then_some(challenge)
    }

    /// Counts a cookie that is taken for none.
    pub fn refuse(&self, why: Refused) {
        let counts = Refused::ALL.iter().zip(&self.refused);
        for (_, count) in counts.filter(|(known, _)| **known == why) {
            count.fetch_add(1, Relaxed);
        }
    }

    /// Cookies that were taken for none, by why.
    pub fn refused(&self) -> Vec<(&'static str, u64)> {
        let counts = Refused::ALL.iter().zip(&self.refused);
        counts
            .map(|(why, count)| (why.as_str(), count.load(Relaxed)))
            .collect()
    }

    /// How many are pending and how many proven; some of them may have ended since the last look.
    pub fn count(&self) -> (usize, usize) {
        let memory = self.lock();
        let sessions = memory.sessions.values();
        let proven = sessions.filter(|session| session.factor.is_some()).count();
        (memory.sessions.len().saturating_sub(proven), proven)
    }

    fn lock(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Memory {
    /// Forgets those that ended: now and then, and when there is no room, but not more than once a second, since it is a walk
    /// over all of them for which everybody waits.
    fn sweep(&mut self, now: u64, rules: &Rules) {
        let often = if self.sessions.len() >= rules.entries {
            1
        } else {
            SWEEP
        };
        let due = now.abs_diff(self.swept) >= often;
        if !due {
            return;
        }
        self.swept = now;
        let ended = self.sessions.iter();
        let ended: Vec<Id> = ended
            .filter(|(_, session)| !rules.lets_live(session, now))
            .map(|(id, _)| *id)
            .collect();
        for id in ended {
            self.remove(&id);
        }
    }

    /// Forgets the oldest sessions of this kind of an owner until there are fewer than `most`.
    fn make_room(&mut self, owner: &Owner, most: usize, is_such: impl Fn(&Session) -> bool) {
        loop {
            let own = self.owners.get(owner).into_iter().flatten();
            let such: Vec<(u64, Id)> = own
                .filter_map(|id| Some((id, self.sessions.get(id)?)))
                .filter(|(_, session)| is_such(session))
                .map(|(id, session)| (session.used, *id))
                .collect();
            if such.len() < most {
                return;
            }
            let Some((_, oldest)) = such.iter().min_by_key(|(used, _)| *used) else {
                return;
            };
            self.remove(oldest);
        }
    }

    /// Keeps an old name for a while. Where too many are, this one is as good as never known.
    fn rename(&mut self, old: &Id, now: u64) {
        if self.renamed.len() >= OLD_NAMES {
            self.renamed.retain(|_, until| now < *until);
        }
        if self.renamed.len() < OLD_NAMES {
            self.renamed.insert(*old, now.saturating_add(RENAMED));
        }
    }

    fn enter(&mut self, session: Session) -> Id {
        let id = Id::fresh();
        let own = self.owners.entry(session.owner.clone()).or_default();
        own.push(id);
        self.sessions.insert(id, session);
        id
    }

    fn remove(&mut self, id: &Id) -> Option<Session> {
        let session = self.sessions.remove(id)?;
        if let Some(own) = self.owners.get_mut(&session.owner) {
            own.retain(|other| other != id);
            if own.is_empty() {
                self.owners.remove(&session.owner);
            }
        }
        Some(session)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_800_000_000;
    const RULES: Rules = Rules {
        idle: 900,
        lifetime: 28_800,
        entries: 100,
    };

    fn owner(subject: &str) -> Owner {
        Owner {
            issuer: "corp".into(),
            subject: subject.into(),
        }
    }

    fn otp(at: u64) -> Factor {
        Factor {
            class: "mfa".into(),
            methods: &["otp"],
            at,
            mark: "m".into(),
            enrols: false,
        }
    }

    #[test]
    fn b33_a_proven_session_has_a_new_name_and_the_old_one_is_dead() {
        let sessions = Sessions::default();
        let old = sessions.begin(&owner("alice"), NOW, &RULES).unwrap();
        assert!(sessions.find(&old, NOW, &RULES).unwrap().factor.is_none());
        let new = sessions.prove(&old, otp(NOW), (NOW, &RULES)).unwrap();
        assert_ne!(old, new);
        assert!(sessions.find(&old, NOW, &RULES).is_none());
        assert!(sessions.prove(&old, otp(NOW), (NOW, &RULES)).is_none());
        let session = sessions.find(&new, NOW, &RULES).unwrap();
        assert_eq!(session.factor, Some(otp(NOW)));
        assert_eq!(session.owner, owner("alice"));
        assert_eq!(sessions.count(), (0, 1));
        assert_eq!(format!("{new:?}"), "Id(…)");
    }

    #[test]
    fn b36_a_session_ends_by_rest_and_by_age() {
        let sessions = Sessions::default();
        let begin = || sessions.begin(&owner("alice"), NOW, &RULES).unwrap();
        let rests = begin();
        assert!(sessions.find(&rests, NOW + 900, &RULES).is_some());
        assert!(sessions.find(&rests, NOW + 901, &RULES).is_none());
        assert!(sessions.find(&rests, NOW, &RULES).is_none(), "for good");
        let works = begin();
        for minute in 1..=480 {
            sessions.touch(&works, NOW + minute * 60, &RULES);
        }
        assert!(sessions.find(&works, NOW + 28_800, &RULES).is_some());
        assert!(sessions.find(&works, NOW + 28_801, &RULES).is_none());
        let late = begin();
        assert!(
            sessions
                .prove(&late, otp(NOW), (NOW + 901, &RULES))
                .is_none()
        );
    }

    #[test]
    fn b36_the_last_use_moves_once_a_minute() {
        let sessions = Sessions::default();
        let id = sessions.begin(&owner("alice"), NOW, &RULES).unwrap();
        let used = || sessions.find(&id, NOW, &RULES).unwrap().used;
        sessions.touch(&id, NOW + 59, &RULES);
        assert_eq!(used(), NOW);
        sessions.touch(&id, NOW + 60, &RULES);
        assert_eq!(used(), NOW + 60);
        sessions.touch(&id, NOW - 500, &RULES);
        assert_eq!(used(), NOW + 60);
    }

    #[test]
    fn b36_no_session_in_use_ends_by_rest_however_short_that_is() {
        for idle in [1, 4, 30, 60, 240] {
            let sessions = Sessions::default();
            let rules = Rules { idle, ..RULES };
            let id = sessions.begin(&owner("alice"), NOW, &rules).unwrap();
            for second in 1..=600 {
                let found = sessions.find(&id, NOW + second, &rules);
                assert!(found.is_some(), "{idle}: {second}");
                sessions.touch(&id, NOW + second, &rules);
            }
        }
    }

    #[test]
    fn b33_an_old_name_is_known_for_a_while_and_counts_for_nothing() {
        let sessions = Sessions::default();
        let old = sessions.begin(&owner("alice"), NOW, &RULES).unwrap();
        assert!(!sessions.was_renamed(&old, NOW));
        let new = sessions.prove(&old, otp(NOW), (NOW, &RULES)).unwrap();
        assert!(sessions.was_renamed(&old, NOW + 29));
        assert!(!sessions.was_renamed(&old, NOW + 30));
        assert!(sessions.find(&old, NOW, &RULES).is_none());
        assert!(!sessions.was_renamed(&new, NOW));
        sessions.clear();
        assert_eq!(sessions.count(), (0, 0));
        assert!(sessions.find(&new, NOW, &RULES).is_none());
    }

    #[test]
    fn b33_a_proven_factor_is_looked_at_once_a_minute() {
        let sessions = Sessions::default();
        let pending = sessions.begin(&owner("alice"), NOW, &RULES).unwrap();
        assert!(!sessions.is_due(&pending, NOW));
        let proven = sessions.prove(&pending, otp(NOW), (NOW, &RULES)).unwrap();
        let due: Vec<u64> = (0..=120)
            .filter(|n| sessions.is_due(&proven, NOW + n))
            .collect();
        assert_eq!(due, [0, 60, 120]);
        sessions.end(&proven);
        assert!(sessions.find(&proven, NOW, &RULES).is_none());
        assert!(!sessions.is_due(&proven, NOW + 600));
    }

    #[test]
    fn old_names_are_bounded_and_those_of_before_make_room() {
        let sessions = Sessions::default();
        let prove = |now| {
            let old = sessions.begin(&owner("alice"), now, &RULES).unwrap();
            sessions.prove(&old, otp(now), (now, &RULES)).unwrap();
            sessions.was_renamed(&old, now)
        };
        assert!((0..OLD_NAMES).all(|_| prove(NOW)));
        assert!(!prove(NOW), "no room");
        assert_eq!(sessions.lock().renamed.len(), OLD_NAMES);
        assert!(prove(NOW + RENAMED));
        assert_eq!(sessions.lock().renamed.len(), 1);
    }

    #[test]
    fn of_one_owner_the_oldest_of_the_kind_goes_and_never_another_kind() {
        let sessions = Sessions::default();
        let alice = owner("alice");
        let bob = sessions.begin(&owner("bob"), NOW, &RULES).unwrap();
        let lives = |id: &Id| sessions.find(id, NOW, &RULES).is_some();
        let prove = |at: u64| {
            let id = sessions.begin(&alice, at, &RULES).unwrap();
            sessions.prove(&id, otp(at), (at, &RULES)).unwrap()
        };
        let proven: Vec<Id> = (0..12).map(|n| prove(NOW + n)).collect();
        let pending: Vec<Id> = (0..40)
            .map(|n| sessions.begin(&alice, NOW + n, &RULES).unwrap())
            .collect();
        assert!(proven.iter().all(lives), "pending ones push out no proven");
        assert_eq!(pending.iter().filter(|id| lives(id)).count(), PENDING);
        assert!(pending[36..].iter().all(lives), "the newest are left");
        let more = prove(NOW + 100);
        assert!(!lives(&proven[0]) && lives(&proven[1]) && lives(&more));
        assert!(lives(&bob));
        assert_eq!(sessions.count(), (4, 12));
    }

    #[test]
    fn a_full_memory_begins_none_and_loses_none_that_lives() {
        let sessions = Sessions::default();
        let rules = Rules {
            entries: 3,
            ..RULES
        };
        let begin = |name: &str, now| sessions.begin(&owner(name), now, &rules);
        let one = begin("a", NOW).unwrap();
        let proven = sessions.prove(&one, otp(NOW), (NOW, &rules)).unwrap();
        begin("b", NOW).unwrap();
        begin("c", NOW).unwrap();
        assert_eq!(begin("d", NOW + 10), Err(Full));
        assert!(sessions.find(&proven, NOW + 10, &rules).is_some());
        assert!(sessions.prove(&proven, otp(NOW), (NOW, &rules)).is_some());
        assert!(begin("d", NOW + 901).is_ok(), "those that ended make room");
        assert_eq!(sessions.count(), (1, 0));
        assert_eq!(sessions.lock().owners.len(), 1);
    }

    #[test]
    fn a_full_memory_is_looked_through_once_a_second() {
        let sessions = Sessions::default();
        let [full, ending] = [900, 5].map(|idle| Rules {
            idle,
            entries: 1,
            ..RULES
        });
        sessions.begin(&owner("a"), NOW - 10, &full).unwrap();
        assert_eq!(sessions.begin(&owner("b"), NOW, &full), Err(Full));
        assert_eq!(sessions.begin(&owner("b"), NOW, &ending), Err(Full));
        assert!(sessions.begin(&owner("b"), NOW + 1, &ending).is_ok());
    }

    #[test]
    fn refusals_are_counted_by_why() {
        let sessions = Sessions::default();
        sessions.refuse(Refused::Ended);
        sessions.refuse(Refused::Ended);
        let counted = sessions.refused();
        assert_eq!(counted[2], ("ended", 2));
        assert_eq!(counted.iter().map(|(_, count)| count).sum::<u64>(), 2);
    }

    #[test]
    fn b34_what_an_authenticator_is_asked_counts_once_and_for_a_while() {
        let sessions = Sessions::default();
        let id = sessions.begin(&owner("alice"), NOW, &RULES).unwrap();
        let ask = |number: u8| sessions.ask(&id, [number; 32], NOW + 300);
        let take =
            |id: &Id, number: u8, now| sessions.take_asked(id, |asked| *asked == [number; 32], now);
        assert_eq!(take(&id, 1, NOW), None);
        assert_eq!(ask(1), Some(()));
        assert_eq!(take(&id, 1, NOW + 299), Some([1; 32]));
        assert_eq!(take(&id, 1, NOW), None, "once");
        ask(2);
        assert_eq!(take(&id, 2, NOW + 300), None, "too late");
        for number in 3..=7 {
            ask(number);
        }
        assert_eq!(take(&id, 3, NOW), None, "four others came after it");
        assert_eq!(take(&id, 4, NOW), Some([4; 32]), "the oldest of four");
        assert_eq!(take(&id, 7, NOW), Some([7; 32]));
        let other = sessions.begin(&owner("alice"), NOW, &RULES).unwrap();
        assert_eq!(take(&other, 5, NOW), None, "of another session");
        let new = sessions.prove(&id, otp(NOW), (NOW, &RULES)).unwrap();
        assert_eq!(take(&new, 5, NOW), None, "of before");
        assert_eq!(sessions.ask(&id, [6; 32], NOW + 300), None, "over");
    }
}
