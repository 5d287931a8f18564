//! `mode = "enforce" | "monitor" | "off"`, the switch that every policy has.

use crate::{
    config::{Complaint, FromValue, Value},
    exchange::Exchange,
    wire::halt::Halt,
};

/// What a policy does with its verdict.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// Refuses.
    #[default]
    Enforce,
    /// Lets pass, and records the reason that would have refused.
    Monitor,
    /// Is not asked.
    Off,
}

impl Mode {
    /// The words of the file.
    pub const WORDS: &'static [&'static str] = &["enforce", "monitor", "off"];

    /// Applies the mode to a verdict: in monitor mode a refusal becomes a note on the exchange.
    ///
    /// # Errors
    /// The verdict itself when enforcing; a ready reply passes through in every mode.
    pub fn apply(self, verdict: Result<(), Halt>, exchange: &mut Exchange) -> Result<(), Halt> {
        match verdict {
            Err(Halt::Refuse(refusal)) if self == Self::Monitor => {
                exchange.note(refusal.stage, || {
                    format!("would refuse: {}", refusal.reason.code())
                });
                exchange.would_refuse.push((refusal.stage, refusal.reason));
                Ok(())
            }
            other => other,
        }
    }

    /// Of two modes in which one thing is judged, the one that refuses less.
    #[must_use]
    pub fn weaker_of(self, other: Self) -> Self {
        match (self, other) {
            (Self::Off, _) | (_, Self::Off) => Self::Off,
            (Self::Monitor, _) | (_, Self::Monitor) => Self::Monitor,
            (Self::Enforce, Self::Enforce) => Self::Enforce,
        }
    }

    /// The word of the file.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Enforce => "enforce",
            Self::Monitor => "monitor",
            Self::Off => "off",
        }
    }
}

impl FromValue for Mode {
    fn from_value(value: &Value) -> Result<Self, Complaint> {
        match String::from_value(value)?.as_str() {
            "enforce" => Ok(Self::Enforce),
            "monitor" => Ok(Self::Monitor),
            "off" => Ok(Self::Off),
            other => Err(Complaint::new(format!("`{other}` is not a mode"))
                .hint("use `enforce`, `monitor` or `off`")),
        }
    }
}
