//! The plain data an issuer is set up from: what a token must look like, and where the keys come from. For `issuer`.
//!
//! Two equal values mean the same issuer, so a reload compares them. Nothing is checked here: that is `Issuer::new`.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::claims::ClaimPath;
use super::fetch::Authorities;
use super::jws::Algorithm;
use crate::crypto::secret::Secret;
use crate::state::tokens::DEFAULT_ENTRIES;

/// The most a token may weigh, whatever the file says.
pub const MAX_TOKEN_BYTES: usize = 8 * 1024;

/// Which media types of token are accepted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TokenType {
    /// `JWT`, `at+jwt` or none; ID, refresh, logout and proof tokens are still refused.
    #[default]
    Any,
    /// `at+jwt` only (RFC 9068 §4).
    AtJwt,
}

/// What a token must look like to be this issuer's and for us.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IssuerRules {
    /// The name in the file.
    pub name: Arc<str>,
    /// The exact `iss`.
    pub issuer: String,
    /// One of these must stand in `aud`.
    pub audience: Vec<String>,
    /// The algorithms that are accepted.
    pub algorithms: Vec<Algorithm>,
    /// The media types that are accepted.
    pub token_type: TokenType,
    /// Where the roles stand.
    pub roles: Vec<ClaimPath>,
    /// The claims that a principal keeps, since a condition, or the list of revoked tokens, reads them.
    pub kept: Vec<Box<str>>,
    /// How far clocks may differ.
    pub leeway: Duration,
    /// How long after `iat` a token is accepted at most, when it has one.
    pub max_age: Duration,
    /// The longest token, never over [`MAX_TOKEN_BYTES`].
    pub max_token_bytes: usize,
    /// How a caller proves that a token is its own; `None` where no proof is taken, nor a token that needs one.
    pub dpop: Option<DpopRules>,
}

/// What a proof of possession must look like (RFC 9449).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DpopRules {
    /// Whether every token must be bound to a key.
    pub required: bool,
    /// The algorithms that proofs may be signed with; none of them with a shared secret.
    pub algorithms: Vec<Algorithm>,
    /// How long after `iat` a proof is accepted at most.
    pub max_age: Duration,
    /// How far clocks may differ.
    pub leeway: Duration,
    /// Whether a proof must hold a nonce of ours.
    pub nonce: bool,
    /// How many proofs may be remembered, those of other issuers among them.
    pub entries: usize,
}

impl Default for DpopRules {
    /// Taken where a token asks for it; 60 s, 5 s, no nonce, 500,000 proofs.
    fn default() -> Self {
        Self {
            required: false,
            algorithms: vec![
                Algorithm::Es256,
                Algorithm::Es384,
                Algorithm::EdDsa,
                Algorithm::Ps256,
                Algorithm::Rs256,
            ],
            max_age: Duration::from_mins(1),
            leeway: Duration::from_secs(5),
            nonce: false,
            entries: 500_000,
        }
    }
}

impl IssuerRules {
    /// Rules with the documented defaults: RS256, PS256, ES256 and `EdDSA`, any type, no roles, 30 s, 24 h, 8 KiB.
    pub fn new(name: &str, issuer: &str, audience: &[&str]) -> Self {
        Self {
            name: Arc::from(name),
            issuer: issuer.to_owned(),
            audience: audience.iter().copied().map(str::to_owned).collect(),
            algorithms: vec![
                Algorithm::Rs256,
                Algorithm::Ps256,
                Algorithm::Es256,
                Algorithm::EdDsa,
            ],
            token_type: TokenType::Any,
            roles: Vec::new(),
            kept: Vec::new(),
            leeway: Duration::from_secs(30),
            max_age: Duration::from_hours(24),
            max_token_bytes: MAX_TOKEN_BYTES,
            dpop: None,
        }
    }
}

/// How keys are fetched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fetching {
    /// Certificates to trust beside those of the system.
    pub ca: Option<Authorities>,
    /// How often to fetch without need; a tenth more or less, so that many proxies do not come at once.
    pub refresh: Duration,
    /// The least time between two fetches.
    pub floor: Duration,
    /// How long keys are used while fetches fail.
    pub stale: Duration,
    /// A file that keeps the last good key set over a restart.
    pub keep: Option<PathBuf>,
}

impl Default for Fetching {
    /// Every 10 minutes, at least 30 seconds apart, stale after 24 hours.
    fn default() -> Self {
        Self {
            ca: None,
            refresh: Duration::from_mins(10),
            floor: Duration::from_secs(30),
            stale: Duration::from_hours(24),
            keep: None,
        }
    }
}

/// Where the keys come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeySource {
    /// A JSON Web Key Set on disk, read at start and by [`super::issuer::Issuer::reload_files`].
    File(PathBuf),
    /// A JSON Web Key Set at a URL.
    Url {
        /// https, or http to a loopback address.
        url: String,
        /// How to fetch.
        fetching: Fetching,
    },
    /// The set that `<issuer>/.well-known/openid-configuration` names.
    Discovery(Fetching),
    /// A secret shared with the issuer, for HMAC.
    Secret(Secret),
    /// None: the issuer is asked about every token.
    Unsigned,
}

/// How the issuer is asked about a token (RFC 7662).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Introspection {
    /// https, or http to a loopback address.
    pub url: String,
    /// Certificates to trust beside those of the system.
    pub ca: Option<Authorities>,
    /// The name under which this gate asks.
    pub client_id: String,
    /// The password of that name.
    pub client_secret: Secret,
    /// How name and password are shown (RFC 6749 §2.3.1).
    pub auth: ClientAuth,
    /// Which tokens are asked about.
    pub when: Asked,
    /// How long an active token is believed without asking again, never beyond its expiry.
    pub cache: Duration,
    /// How long a refused token is not asked about again.
    pub negative_cache: Duration,
    /// The longest wait for an answer, the wait for a turn included.
    pub timeout: Duration,
    /// The most questions under way at once; one client has at most a quarter of them.
    pub concurrency: usize,
    /// Whether an answer without `aud` refuses the token.
    pub require_audience: bool,
}

/// How a client shows its name and password to the issuer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ClientAuth {
    /// In `Authorization: Basic`.
    #[default]
    Basic,
    /// In the form.
    Post,
}

/// Which tokens an issuer is asked about.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Asked {
    /// Those that are no signed tokens.
    #[default]
    Opaque,
    /// All: signed ones too, after their signature held.
    Always,
}

/// The whole of an issuer's part of the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IssuerConfig {
    /// What a token must look like.
    pub rules: IssuerRules,
    /// Where the keys come from.
    pub keys: KeySource,
    /// How many verified tokens are remembered.
    pub token_entries: usize,
    /// How the issuer is asked about tokens, when it is.
    pub introspection: Option<Introspection>,
    /// A file of tokens and subjects that no longer count.
    pub revoked: Option<PathBuf>,
}

impl IssuerConfig {
    /// An issuer with the default number of remembered tokens.
    pub fn new(rules: IssuerRules, keys: KeySource) -> Self {
        Self {
            rules,
            keys,
            token_entries: DEFAULT_ENTRIES,
            introspection: None,
            revoked: None,
        }
    }

    /// Whether the other one's keys are fetched, and are the same: from one place, in one way, for one `iss` and the same
    /// algorithms. Keys of a file or a secret are read anew, since a bad file must not count.
    pub(super) fn fetches_as(&self, other: &Self) -> bool {
        matches!(self.keys, KeySource::Url { .. } | KeySource::Discovery(_))
            && self.keys == other.keys
            && self.rules.issuer == other.rules.issuer
            && self.rules.algorithms == other.rules.algorithms
    }
}
