//! The program's own log: what happens to the gate itself, on stderr.
//!
//! JSON, one object a line, when stderr is not a terminal; lines for people otherwise, without colour when `NO_COLOR` is
//! set (<https://no-color.org>). What clients do is not said here but in the access line ([`super::access`]).

use std::io::{self, IsTerminal};
use std::str::FromStr;
use std::sync::OnceLock;

use serde::Deserialize;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, Registry, fmt, reload};

/// How much the log says: each level includes the ones before it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// Someone must act.
    Error,
    /// Degraded but serving.
    Warn,
    /// The life cycle of the program.
    #[default]
    Info,
    /// Decisions on the way.
    Debug,
    /// Everything the program says, and what its libraries say at `info`.
    Trace,
}

/// A word that is no level.
#[derive(Debug, thiserror::Error)]
#[error("unknown log level `{0}`, accepted are error, warn, info, debug, trace")]
pub struct UnknownLevel(String);

static FILTER: OnceLock<reload::Handle<Targets, Registry>> = OnceLock::new();

/// Starts the log; called again, it only sets the level.
pub fn init(level: Level) {
    let (filter, handle) = reload::Layer::new(targets(level));
    if FILTER.set(handle).is_err() {
        set_level(level);
        return;
    }
    let lines = if io::stderr().is_terminal() {
        let colour = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        fmt::layer()
            .with_writer(io::stderr)
            .with_ansi(colour)
            .with_target(false)
            .boxed()
    } else {
        fmt::layer()
            .with_writer(io::stderr)
            .json()
            .flatten_event(true)
            .boxed()
    };
    // Another subscriber may stand already in a test; its author wants it there.
    let _ = tracing_subscriber::registry()
        .with(lines.with_filter(filter))
        .try_init();
}

/// Changes the level of the running log; nothing before [`init`].
pub fn set_level(level: Level) {
    if let Some(filter) = FILTER.get() {
        // Fails only when the subscriber is gone, and then there is nobody to tell.
        let _ = filter.reload(targets(level));
    }
}

/// The libraries stay quieter than the program whatever is asked for: their finest lines show headers, tokens included.
fn targets(level: Level) -> Targets {
    let own = level.filter();
    let others = if level == Level::Trace {
        LevelFilter::INFO
    } else {
        own.min(LevelFilter::WARN)
    };
    Targets::new()
        .with_target("portcullis", own)
        .with_default(others)
}

impl Level {
    /// The word for it in the file.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
            Self::Trace => "trace",
        }
    }

    const fn filter(self) -> LevelFilter {
        match self {
            Self::Error => LevelFilter::ERROR,
            Self::Warn => LevelFilter::WARN,
            Self::Info => LevelFilter::INFO,
            Self::Debug => LevelFilter::DEBUG,
            Self::Trace => LevelFilter::TRACE,
        }
    }
}

impl FromStr for Level {
    type Err = UnknownLevel;

    fn from_str(word: &str) -> Result<Self, UnknownLevel> {
        [
            Self::Error,
            Self::Warn,
            Self::Info,
            Self::Debug,
            Self::Trace,
        ]
        .into_iter()
        .find(|level| level.as_str() == word)
        .ok_or_else(|| UnknownLevel(word.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn starting_twice_sets_the_level() {
        init(Level::Error);
        init(Level::Debug);
        assert!(tracing::enabled!(target: "portcullis::server", tracing::Level::DEBUG));
        assert!(!tracing::enabled!(target: "h2::codec", tracing::Level::INFO));
        set_level(Level::Warn);
        assert!(!tracing::enabled!(target: "portcullis::server", tracing::Level::INFO));
        assert!(tracing::enabled!(target: "h2::codec", tracing::Level::WARN));
    }

    #[test]
    fn levels_read_as_the_file_writes_them() {
        assert_eq!("warn".parse::<Level>().unwrap(), Level::Warn);
        let error = "loud".parse::<Level>().unwrap_err();
        assert!(error.to_string().starts_with("unknown log level `loud`"));
    }
}
