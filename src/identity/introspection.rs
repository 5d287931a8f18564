//! Questions to an issuer about a token that cannot be judged here, or not by its signature alone (RFC 7662). For `bearer`.
//!
//! Any number of requests with one token cause one question. Questions under way are bounded, and so are those of one
//! client: a flood of made-up tokens is no flood at the issuer. What was answered is held for a short time, never beyond the
//! token's expiry, and for as long as the list of revoked tokens that it was judged by is in force; no answer means no
//! entry. Signed answers (RFC 9701) are not asked for.

use std::collections::HashMap;
use std::fmt::Write;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderValue, StatusCode};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use quick_cache::sync::Cache;
use serde_json::Value;
use thiserror::Error;
use tokio::sync::{Semaphore, watch};

use super::agreement::Said;
use super::bearer::{self, TokenError};
use super::claims::{self, Claims, parse_object};
use super::fetch::{FetchError, Location, LocationError};
use super::issuer::Issuer;
use super::rules::{Asked, ClientAuth, Introspection, IssuerRules};
use super::shares::Shares;
use crate::crypto::digest::Sha256;
use crate::exchange::principal::Principal;
use crate::state::clock;
use crate::state::limiter::client_key;

/// The most answers that are held.
const MOST_ANSWERS: usize = 20_000;
/// How many questions may wait for each that can be under way.
const QUEUE: usize = 8;
/// What stays as it is in a form (RFC 3986 §2.3).
const FORM: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

/// What is asked about, and for whom.
#[derive(Clone, Copy)]
pub(super) struct Question<'a> {
    /// The token.
    pub(super) token: &'a str,
    /// Its digest.
    pub(super) digest: &'a Sha256,
    /// Who showed it.
    pub(super) client: IpAddr,
    /// When, in Unix seconds.
    pub(super) now: u64,
    /// What is known of it already.
    pub(super) signed: Option<Signed>,
}

/// A token whose signature held.
#[derive(Clone, Copy)]
pub(super) struct Signed {
    /// When it says that it was issued, in Unix seconds.
    pub(super) issued: Option<u64>,
}

/// What an issuer said of a token that counts.
#[derive(Clone)]
pub(super) struct Told {
    /// Who holds it, by these words alone.
    pub(super) principal: Arc<Principal>,
    /// What these words narrow; nothing where signed tokens are not asked about.
    pub(super) said: Arc<Said>,
}

/// What came of a question.
#[derive(Clone)]
pub(super) struct Answer {
    /// The issuer's words, judged.
    pub(super) verdict: Result<Told, TokenError>,
    /// Version of the list of revoked tokens that they were judged by: whoever remembers the verdict remembers it under
    /// this one.
    pub(super) list: u64,
    /// Unix second from which on it is asked again.
    until: u64,
}

impl Answer {
    /// None from the issuer, under whatever list.
    const fn none(error: TokenError) -> Self {
        Self {
            verdict: Err(error),
            list: u64::MAX,
            until: 0,
        }
    }
}

/// The desk at which an issuer is asked.
pub(super) struct Introspector {
    rules: Introspection,
    /// `None` where nothing is ever asked.
    location: Option<Location>,
    authorization: Option<HeaderValue>,
    under_way: Mutex<UnderWay>,
    turns: Semaphore,
    answers: Cache<Sha256, Answer>,
    shares: Shares,
    /// Unix second of the last word in the log: a broken issuer is told once a second.
    warned: AtomicU64,
}

/// Questions under way, each with the clients that it counts for.
#[derive(Default)]
struct UnderWay {
    flights: HashMap<Sha256, watch::Receiver<Option<Answer>>>,
    clients: HashMap<IpAddr, usize>,
}

/// Why there is no answer. For the log.
#[derive(Debug, Error)]
enum AskError {
    #[error(transparent)]
    Fetch(#[from] FetchError),
    #[error("not an answer: a JSON object with a boolean `active` is expected")]
    Malformed,
    #[error("no turn within {} ms: too many questions are under way", .0.as_millis())]
    Crowded(Duration),
    #[error("nobody is asked from here")]
    Offline,
}

impl AskError {
    /// Whether the issuer finds fault with the token, and neither with us nor with how much it is asked.
    fn blames_the_token(&self) -> bool {
        let Self::Fetch(FetchError::Status(status)) = self else {
            return false;
        };
        let ours = [StatusCode::UNAUTHORIZED, StatusCode::TOO_MANY_REQUESTS];
        status.is_client_error() && !ours.contains(status)
    }

    /// Whether the question held its turn for half of `timeout` at least, to no end.
    fn is_silence(&self, timeout: Duration) -> bool {
        matches!(self, Self::Fetch(FetchError::Deadline(waited)) if *waited >= timeout / 2)
    }
}

impl Introspector {
    /// Checks the URL and makes the credentials ready.
    pub(super) fn new(rules: &Introspection) -> Result<Self, LocationError> {
        let location = Location::new(&rules.url, rules.ca.as_ref())?;
        Ok(Self {
            authorization: basic(rules),
            location: Some(location),
            under_way: Mutex::default(),
            turns: Semaphore::new(rules.concurrency),
            answers: Cache::new(MOST_ANSWERS),
            shares: Shares::new(),
            warned: AtomicU64::new(0),
            rules: rules.clone(),
        })
    }

    /// Never asks anybody from now on.
    pub(super) fn go_offline(&mut self) {
        self.location = None;
    }

    /// Whether signed tokens are asked about too.
    pub(super) fn asks_always(&self) -> bool {
        self.rules.when == Asked::Always
    }

    /// How many answers are held.
    pub(super) fn answers(&self) -> usize {
        self.answers.len()
    }

    fn under_way(&self) -> MutexGuard<'_, UnderWay> {
        self.under_way
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// What is held about a token.
    fn held(&self, question: &Question<'_>, list: u64) -> Option<Answer> {
        let answer = self.answers.get(question.digest)?;
        (question.now < answer.until && answer.list == list).then_some(answer)
    }

    /// Whether one more question may be under way: not beyond the share of its client, and not when all too many wait.
    fn has_room(&self, under_way: &UnderWay, question: &Question<'_>) -> bool {
        if under_way.flights.len() >= self.rules.concurrency.saturating_mul(QUEUE) {
            return false;
        }
        let client = question.client;
        if self.shares.are_refused(client) && !self.is_known(question) {
            return false;
        }
        let asked = under_way.clients.get(&client_key(client)).copied();
        asked.unwrap_or_default() < self.shares.of(client, self.rules.concurrency)
    }

    /// Whether the token is none that its bearer made up: its signature held, or it was good when it was last asked about.
    fn is_known(&self, question: &Question<'_>) -> bool {
        let was_good = || {
            let last = self.answers.get(question.digest);
            last.is_some_and(|answer| answer.verdict.is_ok())
        };
        question.signed.is_some() || was_good()
    }

    fn warn(&self, issuer: &str, error: &AskError) {
        let now = clock::unix_seconds();
        if self.warned.swap(now, Ordering::Relaxed) != now {
            tracing::warn!(%issuer, %error, "the issuer could not be asked about a token");
        }
    }
}

/// Asks `issuer` about a token, once for all who bring it. The verdict may be [`TokenError::Inactive`], whatever is wrong with
/// the answer's members, and [`TokenError::IntrospectionUnavailable`] when there is no answer.
pub(super) async fn ask(issuer: &Arc<Issuer>, question: Question<'_>) -> Answer {
    let list = issuer.list_version();
    let answer = answer_to(issuer, &question).await;
    if answer.list >= list {
        return answer;
    }
    // It joined a question that was judged before the list changed; the next one is put after that.
    answer_to(issuer, &question).await
}

async fn answer_to(issuer: &Arc<Issuer>, question: &Question<'_>) -> Answer {
    let Some(introspector) = issuer.introspector() else {
        return Answer::none(TokenError::Malformed);
    };
    if let Some(answer) = introspector.held(question, issuer.list_version()) {
        return answer;
    }
    let Some(mut answer) = board(issuer, introspector, question) else {
        issuer.counts().asked("held-back");
        return Answer::none(TokenError::IntrospectionUnavailable);
    };
    // An error means that the task was dropped with its runtime.
    let answered = answer.wait_for(Option::is_some).await;
    let answered = answered.ok().and_then(|answer| answer.clone());
    answered.unwrap_or(Answer::none(TokenError::IntrospectionUnavailable))
}

/// Joins the question about this token, or puts it. `None`: this client has put too many.
fn board(
    issuer: &Arc<Issuer>,
    introspector: &Introspector,
    question: &Question<'_>,
) -> Option<watch::Receiver<Option<Answer>>> {
    let mut under_way = introspector.under_way();
    if let Some(flight) = under_way.flights.get(question.digest) {
        return Some(flight.clone());
    }
    if !introspector.has_room(&under_way, question) {
        return None;
    }
    let (sender, receiver) = watch::channel(None);
    let flight = Flight {
        issuer: Arc::clone(issuer),
        digest: *question.digest,
        client: question.client,
        signed: question.signed,
    };
    under_way.flights.insert(flight.digest, receiver.clone());
    *under_way
        .clients
        .entry(client_key(flight.client))
        .or_default() += 1;
    drop(under_way);
    let (token, now) = (question.token.to_owned(), question.now);
    // On its own, so that a client that goes away gives its turn back only when the issuer has answered.
    tokio::spawn(async move {
        let answer = flight.fly(&token, now).await;
        drop(flight);
        sender.send_replace(Some(answer));
    });
    Some(receiver)
}

/// A question under way; its entries go when it does.
struct Flight {
    issuer: Arc<Issuer>,
    digest: Sha256,
    client: IpAddr,
    signed: Option<Signed>,
}

impl Flight {
    async fn fly(&self, token: &str, now: u64) -> Answer {
        let Some(introspector) = self.issuer.introspector() else {
            return Answer::none(TokenError::IntrospectionUnavailable);
        };
        // Before the list is asked: one that changes meanwhile ends what is held.
        let list = self.issuer.list_version();
        let verdict = match introspector.fetch(token).await {
            Ok(Some(members)) => judge((&*self.issuer, introspector), members, self.signed, now),
            Ok(None) => Err(TokenError::Inactive),
            Err(error) => {
                self.failed(introspector, &error);
                return Answer::none(TokenError::IntrospectionUnavailable);
            }
        };
        self.issuer.counts().asked("ok");
        let until = if let Ok(told) = &verdict {
            told.principal.expires
        } else {
            self.refused(introspector);
            now.saturating_add(introspector.rules.negative_cache.as_secs())
        };
        let answer = Answer {
            verdict,
            list,
            until,
        };
        if now < until {
            introspector.answers.insert(self.digest, answer.clone());
        } else {
            introspector.answers.remove(&self.digest);
        }
        answer
    }

    /// Counts a token that the issuer refused against its client, who may have made it up.
    fn refused(&self, introspector: &Introspector) {
        if self.signed.is_none() {
            introspector.shares.refused(self.client);
        }
    }

    /// Counts a question without answer, against its client where its token may be the cause.
    fn failed(&self, introspector: &Introspector, error: &AskError) {
        self.issuer.counts().asked("failed");
        introspector.warn(&self.issuer.rules().name, error);
        if error.blames_the_token() {
            // One that was good before is known no longer.
            introspector.answers.remove(&self.digest);
            self.refused(introspector);
        } else if error.is_silence(introspector.rules.timeout) {
            introspector.shares.unanswered(self.client);
        }
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        let Some(introspector) = self.issuer.introspector() else {
            return;
        };
        let mut under_way = introspector.under_way();
        under_way.flights.remove(&self.digest);
        let client = client_key(self.client);
        if let Some(asked) = under_way.clients.get_mut(&client) {
            *asked = asked.saturating_sub(1);
            if *asked == 0 {
                under_way.clients.remove(&client);
            }
        }
    }
}

impl Introspector {
    /// The members of an answer; `None` when it says that the token is not active.
    async fn fetch(&self, token: &str) -> Result<Option<Claims>, AskError> {
        let Some(location) = &self.location else {
            return Err(AskError::Offline);
        };
        let (timeout, began) = (self.rules.timeout, Instant::now());
        let _turn = tokio::time::timeout(timeout, self.turns.acquire())
            .await
            .map_err(|_| AskError::Crowded(timeout))?;
        let form = form(&self.rules, token);
        let left = timeout.saturating_sub(began.elapsed());
        let answer = location
            .post(form, self.authorization.as_ref(), left)
            .await?;
        let members = parse_object(&answer).map_err(|_| AskError::Malformed)?;
        match members.get("active") {
            Some(Value::Bool(true)) => Ok(Some(members)),
            Some(Value::Bool(false)) => Ok(None),
            _ => Err(AskError::Malformed),
        }
    }
}

/// RFC 7662 §2.1, with the credentials where RFC 6749 §2.3.1 wants them.
fn form(rules: &Introspection, token: &str) -> String {
    let mut form = format!(
        "token={}&token_type_hint=access_token",
        utf8_percent_encode(token, FORM)
    );
    if rules.auth == ClientAuth::Post {
        let secret = percent_encoding::percent_encode(rules.client_secret.expose(), FORM);
        let name = utf8_percent_encode(&rules.client_id, FORM);
        let _ = write!(form, "&client_id={name}&client_secret={secret}");
    }
    form
}

fn basic(rules: &Introspection) -> Option<HeaderValue> {
    if rules.auth != ClientAuth::Basic {
        return None;
    }
    let secret = percent_encoding::percent_encode(rules.client_secret.expose(), FORM);
    let name = utf8_percent_encode(&rules.client_id, FORM);
    let value = format!("Basic {}", STANDARD.encode(format!("{name}:{secret}")));
    let mut value = HeaderValue::try_from(value).ok()?;
    value.set_sensitive(true);
    Some(value)
}

/// Judges the members of an active token as the claims of a signed one. What RFC 7662 §2.2 lets the issuer leave out is
/// filled in, `aud` unless it is demanded, and when the token was issued from a signed one: the answer is the issuer's own, and
/// is believed for no longer than it is held.
fn judge(
    (issuer, introspector): (&Issuer, &Introspector),
    mut members: Claims,
    signed: Option<Signed>,
    now: u64,
) -> Result<Told, TokenError> {
    let rules = issuer.rules();
    check_members(rules, &members)?;
    let said = if introspector.asks_always() {
        Said::of(rules, &members)?
    } else {
        Said::default()
    };
    // What a signature vouches for need not be said again.
    let demands_audience = introspector.rules.require_audience && signed.is_none();
    let held = now.saturating_add(introspector.rules.cache.as_secs());
    let absent = held.max(now.saturating_add(1));
    members.entry("exp").or_insert_with(|| absent.into());
    if let (false, Some(audience)) = (demands_audience, rules.audience.first()) {
        members
            .entry("aud")
            .or_insert_with(|| audience.as_str().into());
    }
    bearer::check_use(None, &members)?;
    let principal = bearer::judge(rules, &members, now)?;
    if let Some(issued) = signed.and_then(|signed| signed.issued) {
        members.entry("iat").or_insert_with(|| issued.into());
    }
    issuer.check_revoked(&members)?;
    Ok(Told {
        principal: Arc::new(Principal {
            expires: principal.expires.min(held),
            ..principal
        }),
        said: Arc::new(said),
    })
}

fn check_members(rules: &IssuerRules, members: &Claims) -> Result<(), TokenError> {
    if claims::string(members, "iss")?.is_some_and(|issuer| issuer != rules.issuer) {
        return Err(TokenError::Issuer);
    }
    claims::string(members, "client_id")?;
    // A refresh token may be active too.
    for member in ["token_type", "token_use"] {
        let kind = claims::string(members, member)?;
        let is_access = |kind: &str| {
            ACCESS
                .iter()
                .any(|access| kind.eq_ignore_ascii_case(access))
        };
        if kind.is_some_and(|kind| !is_access(kind)) {
            return Err(TokenError::Type);
        }
    }
    Ok(())
}

/// What issuers call an access token: its type (RFC 6749 §7.1), its kind (RFC 8693 §3), or its use.
const ACCESS: [&str; 5] = [
    "bearer",
    "dpop",
    "access",
    "access_token",
    "urn:ietf:params:oauth:token-type:access_token",
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::digest::sha256;
    use crate::crypto::secret::Secret;
    use crate::identity::bearer;
    use crate::identity::minting::{KeyServer, ok};
    use crate::identity::rules::{IssuerConfig, KeySource};

    const NOW: u64 = 1_800_000_000;
    const TOKEN: &str = "opaque";

    /// An issuer that is asked about all of its tokens, with this list of revoked ones.
    fn issuer(url: &str, list: &std::path::Path) -> Arc<Issuer> {
        let rules = IssuerRules::new("corp", "https://idp.example", &["portcullis"]);
        let mut config = IssuerConfig::new(rules, KeySource::Unsigned);
        config.revoked = Some(list.to_owned());
        config.introspection = Some(Introspection {
            url: url.to_owned(),
            ca: None,
            client_id: "gate".to_owned(),
            client_secret: Secret::new(b"secret".to_vec()),
            auth: ClientAuth::Basic,
            when: Asked::Opaque,
            cache: Duration::from_secs(30),
            negative_cache: Duration::from_secs(5),
            timeout: Duration::from_secs(5),
            concurrency: 8,
            require_audience: false,
        });
        Issuer::new(config).unwrap()
    }

    #[tokio::test]
    async fn who_joins_a_question_of_before_the_list_changed_is_judged_by_the_list_of_now() {
        let said = serde_json::json!({"active": true, "sub": "alice", "jti": "t1"});
        let server = KeyServer::start(ok(&said)).await;
        let list = tempfile::NamedTempFile::new().unwrap();
        let issuer = issuer(&server.url, list.path());
        // A question that was answered and judged, and is not yet off the books.
        let introspector = issuer.introspector().unwrap();
        let (sender, receiver) = watch::channel(None);
        let digest = sha256(TOKEN.as_bytes());
        introspector.under_way().flights.insert(digest, receiver);
        let old = Answer {
            verdict: Ok(Told {
                principal: Arc::new(Principal {
                    expires: NOW + 30,
                    ..Principal::named("alice", "corp".into())
                }),
                said: Arc::default(),
            }),
            list: issuer.list_version(),
            until: NOW + 30,
        };
        std::fs::write(list.path(), "jti:t1\n").unwrap();
        assert!(issuer.reload_files().unwrap());
        let joining = {
            let issuers = [Arc::clone(&issuer)];
            tokio::spawn(async move {
                bearer::verify(TOKEN, &issuers, [192, 0, 2, 7].into(), NOW).await
            })
        };
        while sender.receiver_count() < 2 {
            tokio::task::yield_now().await;
        }
        introspector.under_way().flights.remove(&digest);
        sender.send_replace(Some(old));
        assert_eq!(joining.await.unwrap(), Err(TokenError::Revoked));
        assert_eq!(server.requests(), 1, "asked anew, once");
        assert!(issuer.tokens.is_empty());
    }
}
