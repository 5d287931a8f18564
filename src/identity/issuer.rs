//! An issuer: whose tokens are accepted, under which rules, with which keys. Outlives a reload while its part of the file
//! stays the same; a changed part makes a fresh issuer with an empty token table. Used by `bearer`.
//!
//! Keys come from a file, a URL, a discovery document (`OpenID` Connect Discovery §4) or a shared secret, or there are none and
//! the issuer is asked; fetches run on the runtime of the worker that noticed the need and never hold up tokens whose key is
//! known. A start while the issuer is down may go on with the key set that was kept on disk.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;
use serde_json::Value;
use thiserror::Error;

use super::bearer::TokenError;
use super::claims::{Claims, parse_object};
pub use super::counts::{Counts, TOKEN_OUTCOMES};
use super::fetch::{Authorities, FetchError, Location, LocationError};
use super::introspection::Introspector;
pub use super::issuers::Issuers;
use super::jwks::{KeySet, KeySetError};
use super::jws::{Algorithm, KeyKind};
use super::kept::{self, KeptError, Origin};
pub use super::revocations::LOOKED_UP;
use super::revocations::{RevocationError, Revocations};
pub use super::rules::{
    Asked, ClientAuth, DpopRules, Fetching, Introspection, IssuerConfig, IssuerRules, KeySource,
    MAX_TOKEN_BYTES, TokenType,
};
use crate::crypto::rng;
use crate::exchange::principal::Principal;
use crate::state::tokens::VerifiedTokens;
use crate::state::{
    clock::unix_seconds,
    keys::{Pace, Refresh, Refreshed, Versioned},
};

/// Why an issuer cannot be set up. For the operator.
#[derive(Debug, Error)]
pub enum IssuerError {
    /// No algorithm is allowed.
    #[error("no algorithm is allowed")]
    NoAlgorithm,
    /// No audience is stated, so no token could pass.
    #[error("no audience is stated")]
    NoAudience,
    /// HMAC with public keys, or public-key algorithms with a secret.
    #[error("`{0}` does not fit the kind of key")]
    KeyKind(Algorithm),
    /// The URL or its certificates.
    #[error(transparent)]
    Location(#[from] LocationError),
    /// The file cannot be read.
    #[error("cannot read `{path}`: {cause}")]
    File {
        /// The file as it was named.
        path: PathBuf,
        /// What the system said.
        cause: std::io::Error,
    },
    /// The file or the secret holds no usable keys.
    #[error(transparent)]
    KeySet(#[from] KeySetError),
    /// The file holds no key for the allowed algorithms.
    #[error("`{0}` holds no key for the allowed algorithms")]
    NoKey(PathBuf),
    /// The list of revoked tokens.
    #[error(transparent)]
    Revoked(#[from] RevocationError),
}

static NEXT_SERIAL: AtomicU64 = AtomicU64::new(0);

/// An issuer at work.
pub struct Issuer {
    /// Tells it from every issuer of the process that was or will be, of the same name too.
    pub(super) serial: u64,
    config: IssuerConfig,
    location: Option<Location>,
    pub(super) keys: Arc<Refreshed<KeySet>>,
    pub(super) tokens: VerifiedTokens,
    introspector: Option<Introspector>,
    revoked: Option<Revocations>,
    counts: Counts,
}

impl Issuer {
    /// Sets an issuer up. Files and secrets are read now; URLs are checked, and fetched by [`Issuer::keep_fresh`] or by the
    /// first token.
    ///
    /// # Errors
    /// See [`IssuerError`].
    pub fn new(config: IssuerConfig) -> Result<Arc<Self>, IssuerError> {
        Self::with_keys(config, None)
    }

    /// The same, its fetched keys shared with the issuer that it takes the place of.
    pub(super) fn with_keys(
        config: IssuerConfig,
        inherited: Option<Arc<Refreshed<KeySet>>>,
    ) -> Result<Arc<Self>, IssuerError> {
        check(&config)?;
        let (location, pace) = match &config.keys {
            KeySource::Url { url, fetching } => (
                Some(Location::new(url, fetching.ca.as_ref())?),
                pace(fetching),
            ),
            KeySource::Discovery(fetching) => {
                let url = format!(
                    "{}/.well-known/openid-configuration",
                    config.rules.issuer.trim_end_matches('/')
                );
                (
                    Some(Location::new(&url, fetching.ca.as_ref())?),
                    pace(fetching),
                )
            }
            KeySource::File(_) | KeySource::Secret(_) | KeySource::Unsigned => (None, NEVER_STALE),
        };
        let keys = inherited.unwrap_or_else(|| Refreshed::new(pace));
        match &config.keys {
            KeySource::File(path) => {
                keys.put(read_file(path, &config.rules.algorithms)?, 0);
            }
            KeySource::Secret(secret) => {
                keys.put(KeySet::from_secret(secret, &config.rules.algorithms)?, 0);
            }
            KeySource::Unsigned => {
                keys.put(KeySet::none(), 0);
            }
            KeySource::Url { .. } | KeySource::Discovery(_) => {}
        }
        let asked = config.introspection.as_ref();
        let revoked = config.revoked.as_deref();
        let tokens = VerifiedTokens::new(config.token_entries);
        Ok(Arc::new(Self {
            serial: NEXT_SERIAL.fetch_add(1, Ordering::Relaxed),
            introspector: asked.map(Introspector::new).transpose()?,
            revoked: revoked.map(Revocations::open).transpose()?,
            config,
            location,
            keys,
            tokens,
            counts: Counts::default(),
        }))
    }

    /// The same issuer with what is on disk alone: its URL is checked, and never asked.
    ///
    /// # Errors
    /// See [`IssuerError`].
    pub fn offline(config: IssuerConfig) -> Result<Arc<Self>, IssuerError> {
        let mut issuer = Self::new(config)?;
        if let Some(issuer) = Arc::get_mut(&mut issuer) {
            issuer.location = None;
            issuer
                .introspector
                .iter_mut()
                .for_each(Introspector::go_offline);
        }
        Ok(issuer)
    }

    /// The rules.
    pub fn rules(&self) -> &IssuerRules {
        &self.config.rules
    }

    /// The part of the file it was made from.
    pub fn config(&self) -> &IssuerConfig {
        &self.config
    }

    /// Outcome counters, for the metrics.
    pub fn counts(&self) -> &Counts {
        &self.counts
    }

    /// Whether there are keys that may be used at `now` (Unix seconds).
    pub fn has_keys(&self, now: u64) -> bool {
        self.keys.version(now).is_some()
    }

    /// Whom to ask about tokens, where that is done.
    pub(super) fn introspector(&self) -> Option<&Introspector> {
        self.introspector.as_ref()
    }

    /// Whether the issuer is asked about tokens that are not signed.
    pub fn answers_questions(&self) -> bool {
        self.introspector.is_some()
    }

    /// Whether no token is judged by a signature.
    pub(super) fn is_unsigned(&self) -> bool {
        self.config.keys == KeySource::Unsigned
    }

    /// The version of the list of revoked tokens, for those who remember a verdict.
    pub(super) fn list_version(&self) -> u64 {
        self.revoked.as_ref().map_or(0, Revocations::version)
    }

    /// The version of what tokens are judged by at `now`, keys and revoked tokens; `None` without usable keys. Either part
    /// only ever rises, so their sum tells any change.
    pub(super) fn version(&self, now: u64) -> Option<u64> {
        Some(self.keys.version(now)?.wrapping_add(self.list_version()))
    }

    /// Refuses a token that is named in the list of revoked ones.
    pub(super) fn check_revoked(&self, claims: &Claims) -> Result<(), TokenError> {
        match &self.revoked {
            Some(list) if list.covers(claims)? => Err(TokenError::Revoked),
            _ => Ok(()),
        }
    }

    /// Whether the list of revoked tokens names one that was accepted before; by what its principal keeps of it, see
    /// [`LOOKED_UP`].
    pub fn has_revoked(&self, principal: &Principal) -> bool {
        let Some(list) = &self.revoked else {
            return false;
        };
        let said = [&principal.claims, &principal.answered];
        let mut said = said.into_iter().flatten();
        said.any(|claims| !matches!(list.covers(claims), Ok(false)))
    }

    /// How many entries each bounded table has: verified tokens, held answers, revoked tokens and subjects.
    pub fn entries(&self) -> [(&'static str, usize); 3] {
        let answers = self.introspector.as_ref().map_or(0, Introspector::answers);
        let revoked = self.revoked.as_ref().map_or(0, Revocations::entries);
        [
            ("verified", self.tokens.len()),
            ("answers", answers),
            ("revoked", revoked),
        ]
    }

    /// Files whose change is to be noticed.
    pub fn files(&self) -> Vec<PathBuf> {
        let (keys, fetched) = match &self.config.keys {
            KeySource::File(path) => (Some(path.as_path()), None),
            KeySource::Url { fetching, .. } | KeySource::Discovery(fetching) => {
                (None, fetching.ca.as_ref())
            }
            KeySource::Secret(_) | KeySource::Unsigned => (None, None),
        };
        let asked = self.config.introspection.as_ref();
        let asked = asked.and_then(|asked| asked.ca.as_ref());
        let authorities = fetched.or(asked).map(Authorities::path);
        let files = keys.into_iter().chain(authorities);
        let files = files.chain(self.config.revoked.as_deref());
        files.map(Path::to_owned).collect()
    }

    /// Reads the key file and the list of revoked tokens again; true when one of them changed.
    ///
    /// # Errors
    /// Each that is unreadable, or holds no usable key; its last good content stays, and the other one is read.
    pub fn reload_files(&self) -> Result<bool, Vec<IssuerError>> {
        let listed = self.revoked.as_ref().map(Revocations::reload);
        let listed = listed.unwrap_or(Ok(false)).map_err(IssuerError::from);
        let keys = match &self.config.keys {
            KeySource::File(path) => {
                read_file(path, &self.config.rules.algorithms).map(|keys| self.keys.put(keys, 0))
            }
            _ => Ok(false),
        };
        match (listed, keys) {
            (Ok(listed), Ok(keys)) => Ok(listed || keys),
            (listed, keys) => Err([listed.err(), keys.err()].into_iter().flatten().collect()),
        }
    }

    /// Fetches the keys now and then for as long as somebody else holds the issuer. Spawn it once, on any runtime; it
    /// returns at once for an issuer that has nothing to fetch.
    pub async fn keep_fresh(issuer: Weak<Self>) {
        while let Some(held) = issuer.upgrade() {
            let (KeySource::Url { fetching, .. } | KeySource::Discovery(fetching)) =
                &held.config.keys
            else {
                return;
            };
            let pause = match held.refresh(held.keys.latest()).await {
                Refresh::Newer | Refresh::Unchanged => jittered(fetching.refresh),
                Refresh::Failed => held.keys.floor(),
                Refresh::TooSoon(wait) => wait,
            };
            drop(held);
            tokio::time::sleep(pause).await;
        }
    }

    /// The keys that may be used at `now`, fetched first when there are none.
    ///
    /// # Errors
    /// None to be had; the time is how long to wait before asking again.
    pub(super) async fn usable_keys(
        self: &Arc<Self>,
        now: u64,
    ) -> Result<Arc<Versioned<KeySet>>, Duration> {
        if let Some(keys) = self.keys.current(now) {
            return Ok(keys);
        }
        let wait = match self.refresh(self.keys.latest()).await {
            Refresh::TooSoon(wait) => wait,
            _ => self.keys.floor(),
        };
        self.keys.current(now).ok_or(wait)
    }

    /// Asks for keys newer than version `seen`: one fetch for all who ask, and not more often than the floor allows.
    pub(super) async fn refresh(self: &Arc<Self>, seen: Option<u64>) -> Refresh {
        let Some(location) = self.location.clone() else {
            return Refresh::Unchanged;
        };
        let issuer = Arc::clone(self);
        self.keys
            .refresh(seen, || async move { issuer.fetch(&location).await })
            .await
    }

    async fn fetch(&self, location: &Location) -> Option<KeySet> {
        let fetched = match &self.config.keys {
            KeySource::Discovery(fetching) => self.discover(location, fetching).await,
            _ => self.fetch_keys(location).await,
        };
        self.counts.fetched(fetched.is_ok());
        match fetched {
            Ok((keys, json)) => {
                self.keep(json).await;
                Some(keys)
            }
            Err(error) => {
                tracing::warn!(issuer = %self.config.rules.name, %error, "key set could not be fetched");
                self.restore().await;
                None
            }
        }
    }

    async fn fetch_keys(&self, location: &Location) -> Result<(KeySet, Bytes), DocumentError> {
        let json = location.get().await?;
        Ok((KeySet::parse(&json, &self.config.rules.algorithms)?, json))
    }

    /// `OpenID` Connect Discovery §4.3: the document must name the very issuer it was asked about.
    async fn discover(
        &self,
        location: &Location,
        fetching: &Fetching,
    ) -> Result<(KeySet, Bytes), DocumentError> {
        let document =
            parse_object(&location.get().await?).map_err(|_| DocumentError::Discovery)?;
        let text = |name| {
            document
                .get(name)
                .and_then(Value::as_str)
                .ok_or(DocumentError::Discovery)
        };
        if text("issuer")? != self.config.rules.issuer {
            return Err(DocumentError::OtherIssuer);
        }
        let keys = Location::new(text("jwks_uri")?, fetching.ca.as_ref())?;
        self.fetch_keys(&keys).await
    }

    /// The file that keeps the key set over a restart, whose keys it is for, and for how many seconds they are used.
    fn kept(&self) -> Option<(PathBuf, Origin, u64)> {
        let (source, fetching) = match &self.config.keys {
            KeySource::Url { url, fetching } => (url.as_str(), fetching),
            KeySource::Discovery(fetching) => ("discovery", fetching),
            _ => return None,
        };
        let origin = Origin {
            issuer: self.config.rules.issuer.clone(),
            source: source.to_owned(),
            authorities: fetching.ca.as_ref().map(Authorities::digest),
        };
        Some((fetching.keep.clone()?, origin, fetching.stale.as_secs()))
    }

    /// Keeps a fetched key set for the next start.
    async fn keep(&self, json: Bytes) {
        let Some((path, origin, _)) = self.kept() else {
            return;
        };
        let saved =
            tokio::task::spawn_blocking(move || kept::save(&path, &origin, &json, unix_seconds()))
                .await;
        if let Ok(Err(error)) = saved {
            tracing::warn!(issuer = %self.config.rules.name, %error, "key set could not be kept on disk");
        }
    }

    /// Takes the kept key set where there is none yet. Called within a fetch, which is the one writer of keys.
    async fn restore(&self) {
        let Some((path, origin, stale)) = self.kept().filter(|_| self.keys.latest().is_none())
        else {
            return;
        };
        let issuer = &self.config.rules.name;
        let algorithms = self.config.rules.algorithms.clone();
        let read = tokio::task::spawn_blocking(move || {
            let (json, at) = kept::load(&path, &origin, (unix_seconds(), stale))?;
            let keys = KeySet::parse(&json, &algorithms).map_err(|_| KeptError::Malformed)?;
            Ok((keys, at))
        });
        match read.await {
            Ok(Ok((keys, fetched))) => {
                self.keys.put(keys, fetched);
                tracing::warn!(%issuer, "the key set kept on disk is used until the issuer answers");
            }
            Ok(Err(KeptError::Missing)) => {}
            Ok(Err(error)) => tracing::warn!(%issuer, %error, "no kept key set"),
            Err(error) => tracing::warn!(%issuer, %error, "the kept key set was not read"),
        }
    }
}

impl fmt::Debug for Issuer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Issuer")
            .field("name", &self.config.rules.name)
            .field("tokens", &self.tokens)
            .finish_non_exhaustive()
    }
}

/// Why a fetched document is of no use. For the log.
#[derive(Debug, Error)]
enum DocumentError {
    #[error(transparent)]
    Fetch(#[from] FetchError),
    #[error(transparent)]
    KeySet(#[from] KeySetError),
    #[error("not a discovery document: `issuer` and `jwks_uri` are expected")]
    Discovery,
    #[error("the discovery document is that of another issuer")]
    OtherIssuer,
    #[error(transparent)]
    Location(#[from] LocationError),
}

const NEVER_STALE: Pace = Pace {
    floor: Duration::ZERO,
    first_floor: Duration::ZERO,
    stale: Duration::MAX,
};

fn pace(fetching: &Fetching) -> Pace {
    Pace {
        floor: fetching.floor,
        first_floor: Duration::from_secs(5),
        stale: fetching.stale,
    }
}

fn jittered(period: Duration) -> Duration {
    let tenth = period / 10;
    let spread = u64::try_from(tenth.as_millis())
        .unwrap_or(u64::MAX)
        .saturating_mul(2);
    period
        .saturating_sub(tenth)
        .saturating_add(Duration::from_millis(rng::below(spread)))
}

fn check(config: &IssuerConfig) -> Result<(), IssuerError> {
    let rules = &config.rules;
    if rules.algorithms.is_empty() {
        return Err(IssuerError::NoAlgorithm);
    }
    if rules.audience.is_empty() {
        return Err(IssuerError::NoAudience);
    }
    let secret = matches!(config.keys, KeySource::Secret(_));
    match rules
        .algorithms
        .iter()
        .find(|algorithm| (algorithm.key_kind() == KeyKind::Secret) != secret)
    {
        Some(unfit) => Err(IssuerError::KeyKind(*unfit)),
        None => Ok(()),
    }
}

fn read_file(path: &Path, algorithms: &[Algorithm]) -> Result<KeySet, IssuerError> {
    let json = std::fs::read(path).map_err(|cause| IssuerError::File {
        path: path.to_owned(),
        cause,
    })?;
    let keys = KeySet::parse(&json, algorithms)?;
    if keys.is_empty() {
        Err(IssuerError::NoKey(path.to_owned()))
    } else {
        Ok(keys)
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::{Fetching, Issuer, IssuerConfig, IssuerError, IssuerRules, KeySource, jittered};
    use crate::crypto::secret::Secret;
    use crate::identity::jws::Algorithm;

    fn error(algorithms: &[Algorithm], keys: KeySource) -> IssuerError {
        let mut rules = IssuerRules::new("corp", "https://idp.example", &["portcullis"]);
        rules.algorithms = algorithms.to_vec();
        Issuer::new(IssuerConfig::new(rules, keys)).unwrap_err()
    }

    #[test]
    fn settings_that_cannot_work_are_refused() {
        let url = |url: &str| KeySource::Url {
            url: url.to_owned(),
            fetching: Fetching::default(),
        };
        let secret = || KeySource::Secret(Secret::new(vec![7; 64]));
        let reachable = "https://idp.example/keys";
        assert!(matches!(
            error(&[], url(reachable)),
            IssuerError::NoAlgorithm
        ));
        assert!(matches!(
            error(&[Algorithm::Rs256, Algorithm::Hs256], url(reachable)),
            IssuerError::KeyKind(Algorithm::Hs256)
        ));
        assert!(matches!(
            error(&[Algorithm::Hs256, Algorithm::Rs256], secret()),
            IssuerError::KeyKind(Algorithm::Rs256)
        ));
        assert!(matches!(
            error(&[Algorithm::Rs256], url("http://idp.example/keys")),
            IssuerError::Location(_)
        ));
        assert!(matches!(
            error(
                &[Algorithm::Rs256],
                KeySource::File(PathBuf::from("/nonexistent"))
            ),
            IssuerError::File { .. }
        ));
        let empty = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(empty.path(), r#"{"keys":[]}"#).unwrap();
        assert!(matches!(
            error(
                &[Algorithm::Rs256],
                KeySource::File(empty.path().to_owned())
            ),
            IssuerError::NoKey(_)
        ));
    }

    #[test]
    fn jitter_stays_within_a_tenth() {
        let period = Fetching::default().refresh;
        for _ in 0..100 {
            let pause = jittered(period);
            assert!(pause >= period * 9 / 10 && pause <= period * 11 / 10);
        }
    }
}
