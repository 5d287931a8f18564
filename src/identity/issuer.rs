//! An issuer: whose tokens are accepted, under which rules, with which keys. Outlives a reload while its part of the file
//! stays the same; a changed part makes a fresh issuer with an empty token table. Used by `bearer`.
//!
//! Keys come from a file, a URL, a discovery document (`OpenID` Connect Discovery §4) or a shared secret; fetches run on the
//! runtime of the worker that noticed the need and never hold up tokens whose key is known.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use serde_json::Value;
use thiserror::Error;

use super::claims::parse_object;
pub use super::counts::{Counts, TOKEN_OUTCOMES};
use super::fetch::{FetchError, Location, LocationError};
use super::jwks::{KeySet, KeySetError};
use super::jws::{Algorithm, KeyKind};
pub use super::rules::{
    DpopRules, Fetching, IssuerConfig, IssuerRules, KeySource, MAX_TOKEN_BYTES, TokenType,
};
use crate::crypto::rng;
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
    fn with_keys(
        config: IssuerConfig,
        inherited: Option<Arc<Refreshed<KeySet>>>,
    ) -> Result<Arc<Self>, IssuerError> {
        check(&config)?;
        let (location, pace) = match &config.keys {
            KeySource::Url { url, fetching } => (
                Some(Location::new(url, fetching.ca.as_deref())?),
                pace(fetching),
            ),
            KeySource::Discovery(fetching) => {
                let url = format!(
                    "{}/.well-known/openid-configuration",
                    config.rules.issuer.trim_end_matches('/')
                );
                (
                    Some(Location::new(&url, fetching.ca.as_deref())?),
                    pace(fetching),
                )
            }
            KeySource::File(_) | KeySource::Secret(_) => (None, NEVER_STALE),
        };
        let keys = inherited.unwrap_or_else(|| Refreshed::new(pace));
        match &config.keys {
            KeySource::File(path) => {
                keys.put(read_file(path, &config.rules.algorithms)?, 0);
            }
            KeySource::Secret(secret) => {
                keys.put(KeySet::from_secret(secret, &config.rules.algorithms)?, 0);
            }
            KeySource::Url { .. } | KeySource::Discovery(_) => {}
        }
        let tokens = VerifiedTokens::new(config.token_entries);
        Ok(Arc::new(Self {
            serial: NEXT_SERIAL.fetch_add(1, Ordering::Relaxed),
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

    /// The file that its keys stand in, where they do.
    pub fn key_file(&self) -> Option<PathBuf> {
        match &self.config.keys {
            KeySource::File(path) => Some(path.clone()),
            _ => None,
        }
    }

    /// Reads the key file again; true when it changed. Without a file: false.
    ///
    /// # Errors
    /// The file is unreadable or holds no usable key; the last good keys stay.
    pub fn reload_file(&self) -> Result<bool, IssuerError> {
        match &self.config.keys {
            KeySource::File(path) => Ok(self
                .keys
                .put(read_file(path, &self.config.rules.algorithms)?, 0)),
            _ => Ok(false),
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
        fetched
            .inspect_err(|error| tracing::warn!(issuer = %self.config.rules.name, %error, "key set could not be fetched"))
            .ok()
    }

    async fn fetch_keys(&self, location: &Location) -> Result<KeySet, DocumentError> {
        Ok(KeySet::parse(
            &location.get().await?,
            &self.config.rules.algorithms,
        )?)
    }

    /// `OpenID` Connect Discovery §4.3: the document must name the very issuer it was asked about.
    async fn discover(
        &self,
        location: &Location,
        fetching: &Fetching,
    ) -> Result<KeySet, DocumentError> {
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
        let keys = Location::new(text("jwks_uri")?, fetching.ca.as_deref())?;
        self.fetch_keys(&keys).await
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

/// The issuers in use, by name; outside the snapshot, so that a reload keeps keys and verified tokens.
#[derive(Debug, Default)]
pub struct Issuers {
    held: Mutex<Vec<Arc<Issuer>>>,
    reach: Reach,
}

/// Whether key sets may be fetched.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Reach {
    #[default]
    Network,
    Disk,
}

impl Issuers {
    /// No issuer yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// No issuer yet, and none that fetches: for verbs that work without a network.
    pub fn offline() -> Self {
        Self {
            reach: Reach::Disk,
            ..Self::default()
        }
    }

    /// The issuer for this part of the file: the one in use where nothing about it changed, else a fresh one, which has
    /// the keys of one in use if they would be fetched in the same way. Nothing is put to use before [`Issuers::keep`],
    /// so a reload that fails later leaves no trace.
    ///
    /// # Errors
    /// See [`Issuer::new`].
    pub fn prepare(&self, config: IssuerConfig) -> Result<Arc<Issuer>, IssuerError> {
        let held = self.list();
        if let Some(same) = held.iter().find(|issuer| issuer.config == config) {
            return Ok(Arc::clone(same));
        }
        if self.reach == Reach::Disk {
            return Issuer::offline(config);
        }
        let keys = held
            .iter()
            .find(|issuer| issuer.config.fetches_as(&config))
            .map(|issuer| Arc::clone(&issuer.keys));
        Issuer::with_keys(config, keys)
    }

    /// Puts exactly these issuers to use and gives back those that are new, for which [`Issuer::keep_fresh`] is to be
    /// spawned.
    pub fn keep(&self, issuers: Vec<Arc<Issuer>>) -> Vec<Arc<Issuer>> {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let fresh = issuers
            .iter()
            .filter(|new| !held.iter().any(|old| Arc::ptr_eq(old, new)))
            .cloned()
            .collect();
        *held = issuers;
        fresh
    }

    /// The issuers in use.
    pub fn list(&self) -> Vec<Arc<Issuer>> {
        self.held
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Whether each of them has keys to work with now.
    pub fn are_ready(&self) -> bool {
        let now = unix_seconds();
        self.list().iter().all(|issuer| issuer.has_keys(now))
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
