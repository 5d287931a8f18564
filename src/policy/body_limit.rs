//! The largest request body: a declared length is refused at once, an undeclared one is cut while it streams.

use http::header;

use super::mode::Mode;
use crate::{
    config::{Bytes, Key, Kind, Reader, Section},
    exchange::Exchange,
    wire::halt::{Halt, Reason, Stage},
};

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
            "mode",
            Kind::Choice(Mode::WORDS),
            "enforce, monitor or off",
            "\"enforce\"",
        ),
    ],
};

/// The compiled bound.
#[derive(Clone, Copy, Debug)]
pub struct BodyLimit {
    /// Largest body in bytes.
    pub bytes: u64,
    mode: Mode,
}

impl BodyLimit {
    /// The bound to hold while the body streams; none unless the policy enforces.
    pub fn streaming_bytes(&self) -> u64 {
        match self.mode {
            Mode::Enforce => self.bytes,
            Mode::Monitor | Mode::Off => u64::MAX,
        }
    }
}

/// Compiles the section; `listener` is `server.limits.body_bytes`.
pub fn compile(reader: &Reader<'_>, listener: u64) -> BodyLimit {
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
        .map_or(listener, |bytes| bytes.0);
    BodyLimit { bytes, mode }
}

/// Refuses a declared length over the bound, before anything is read.
///
/// # Errors
/// 413 `body-too-large`.
pub fn admit(policy: &BodyLimit, exchange: &mut Exchange) -> Result<(), Halt> {
    if policy.mode == Mode::Off {
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
        format!("at most {} bytes", policy.bytes)
    });
    policy.mode.apply(verdict, exchange)
}
