//! The largest request body: a declared length is refused at once, an undeclared one is cut while it streams.

use std::time::Duration;

use http::header;

use super::mode::Mode;
use crate::{
    config::{Bytes, Key, Kind, Reader, Section},
    exchange::Exchange,
    wire::halt::{Halt, Reason, Stage},
};

/// Largest body that is held where nothing is said.
const SPOOL: u64 = 1 << 20;

/// `[….body]`
pub static SECTION: Section = Section {
    name: "body",
    doc: "bounds on request bodies",
    keys: &[
        Key::new(
            "bytes",
            Kind::Size,
            "largest body; server.limits.body_bytes where nothing is said",
            "",
        ),
        Key::new(
            "spool",
            Kind::Size,
            "largest body that is held until it is whole, where a signature covers it",
            "\"1MiB\"",
        ),
        Key::new(
            "spool_time",
            Kind::Duration,
            "time in which such a body must be whole",
            "\"30s\"",
        ),
        Key::new(
            "mode",
            Kind::Choice(Mode::WORDS),
            "enforce, monitor or off",
            "\"enforce\"",
        ),
    ],
};

/// The longest that a body may be held. What may be used once is remembered for as long beyond its own end, since a request
/// is judged by the clock of its arrival.
pub const LONGEST_HOLD: Duration = Duration::from_mins(5);

/// The bounds of the file that are not this policy's.
#[derive(Clone, Copy, Debug)]
pub struct Listener {
    /// `server.limits.body_bytes`
    pub body_bytes: u64,
    /// `server.limits.spool_bytes`
    pub spool_bytes: u64,
}

/// Bounds on a body that is held until it is whole.
#[derive(Clone, Copy, Debug)]
pub struct Holding {
    /// Largest body in bytes.
    pub bytes: u64,
    /// The time for all of it.
    pub time: Duration,
}

/// The compiled bound.
#[derive(Clone, Debug)]
pub struct BodyLimit {
    /// Largest body in bytes.
    pub bytes: u64,
    holding: Holding,
    mode: Mode,
    /// Where the bound stands, for `explain`.
    place: Box<str>,
}

impl BodyLimit {
    /// The bound, for `check -v`.
    pub fn describe(&self) -> Vec<(String, String)> {
        let bound = match self.mode {
            Mode::Off => "off".to_owned(),
            mode => format!("{} ({})", self.bytes, mode.as_str()),
        };
        vec![("bytes".to_owned(), bound)]
    }

    /// The bounds on a body that is held until it is whole.
    pub fn holding(&self) -> Holding {
        self.holding
    }

    /// The bounds to hold while the body streams: where it is cut, and where it is only noted.
    pub fn streaming_bytes(&self) -> (u64, u64) {
        match self.mode {
            Mode::Enforce => (self.bytes, u64::MAX),
            Mode::Monitor => (u64::MAX, self.bytes),
            Mode::Off => (u64::MAX, u64::MAX),
        }
    }
}

/// Compiles the section.
pub fn compile(reader: &Reader<'_>, listener: Listener) -> BodyLimit {
    let mode: Mode = reader.get("mode").unwrap_or_default();
    if mode != Mode::Enforce {
        reader.relax(
            "mode",
            format!(
                "this weakens the gate: request bodies are in mode `{}`",
                mode.as_str()
            ),
        );
    }
    let bytes = reader
        .get::<Bytes>("bytes")
        .map_or(listener.body_bytes, |bytes| bytes.0);
    BodyLimit {
        bytes,
        holding: holding(reader, listener),
        mode,
        place: reader.whence("bytes"),
    }
}

fn holding(reader: &Reader<'_>, listener: Listener) -> Holding {
    let half = listener.spool_bytes.div_ceil(2);
    let bytes = match reader.get::<Bytes>("spool") {
        Some(Bytes(bytes)) if bytes > half => {
            reader.error(
                "spool",
                "one client may hold half of `server.limits.spool_bytes`, which is less than this",
                Some("raise `server.limits.spool_bytes`, or lower this".into()),
            );
            half
        }
        Some(Bytes(bytes)) => bytes,
        None => SPOOL.min(half),
    };
    Holding {
        bytes,
        time: spool_time(reader),
    }
}

fn spool_time(reader: &Reader<'_>) -> Duration {
    let time = reader.get("spool_time").unwrap_or(Duration::from_secs(30));
    if time.is_zero() {
        reader.error(
            "spool_time",
            "no body is whole in no time",
            Some("such as `30s`".into()),
        );
    }
    if time > LONGEST_HOLD {
        reader.error(
            "spool_time",
            "a body is held for five minutes at most",
            Some("what a signature used once is remembered no longer than that".into()),
        );
    }
    time
}

/// Refuses a declared length over the bound, before anything is read.
///
/// # Errors
/// 413 `body-too-large`.
pub fn admit(policy: &BodyLimit, exchange: &mut Exchange) -> Result<(), Halt> {
    if policy.mode == Mode::Off {
        exchange.note(Stage::BodyLimit, || "off".to_owned());
        return Ok(());
    }
    let declared = exchange
        .headers()
        .get(header::CONTENT_LENGTH)
        .and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    let verdict = match declared {
        Some(length) if length > policy.bytes => {
            Err(Halt::refuse(Stage::BodyLimit, Reason::BodyTooLarge))
        }
        _ => Ok(()),
    };
    exchange.note(Stage::BodyLimit, || {
        let declared =
            declared.map_or_else(|| "none declared".to_owned(), |n| format!("{n} declared"));
        format!(
            "at most {} bytes ({}), {declared}",
            policy.bytes, policy.place
        )
    });
    policy.mode.apply(verdict, exchange)
}
