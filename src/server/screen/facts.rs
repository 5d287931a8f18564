//! What a head says about its own framing: length, coding, host, upgrade (RFC 9112 §6, RFC 9110 §7.2 and §7.8).
//!
//! Only the five fields that decide where a message ends, or whether one may follow, are read at all.

use super::octets::{lists, trimmed};
use super::{Fault, Violation};

/// The digits of a length that is certain to fit.
const LENGTH_DIGITS: usize = 19;

/// A field line, as far as framing cares.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) enum Field {
    #[default]
    Plain,
    Host,
    ContentLength,
    TransferEncoding,
    Connection,
    Upgrade,
}

impl Field {
    /// Knows a field by its name.
    pub(super) fn named(name: &[u8]) -> Self {
        let (field, known): (Self, &[u8]) = match name.len() {
            4 => (Self::Host, b"host"),
            7 => (Self::Upgrade, b"upgrade"),
            10 => (Self::Connection, b"connection"),
            14 => (Self::ContentLength, b"content-length"),
            17 => (Self::TransferEncoding, b"transfer-encoding"),
            _ => return Self::Plain,
        };
        if name.eq_ignore_ascii_case(known) {
            field
        } else {
            Self::Plain
        }
    }

    /// Whether the value has to be kept until its line ends.
    pub(super) fn is_read(self) -> bool {
        !matches!(self, Self::Plain | Self::Host)
    }
}

/// What follows a head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Framing {
    None,
    Length(u64),
    Chunked,
    Tunnel,
}

/// The facts of one head.
#[derive(Debug, Default)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "five independent findings, each seen or not"
)]
pub(super) struct Facts {
    /// The request speaks HTTP/1.0.
    pub(super) old: bool,
    host: bool,
    length: Option<u64>,
    chunked: bool,
    wants_upgrade: bool,
    websocket: bool,
}

impl Facts {
    /// Takes note of a field's presence.
    pub(super) fn note_name(&mut self, field: Field) -> Result<(), Fault> {
        if field == Field::Host {
            if self.host {
                return Err(Fault::new(
                    Violation::MalformedHead,
                    "more than one host field",
                ));
            }
            self.host = true;
        }
        Ok(())
    }

    /// Takes note of a whole field value.
    pub(super) fn note_value(&mut self, field: Field, value: &[u8]) -> Result<(), Fault> {
        match field {
            Field::Plain | Field::Host => Ok(()),
            Field::ContentLength => self.note_length(trimmed(value)).map_err(conflict),
            Field::TransferEncoding => self.note_coding(trimmed(value)).map_err(conflict),
            Field::Connection => {
                self.wants_upgrade |= lists(value, b"upgrade");
                Ok(())
            }
            Field::Upgrade => {
                self.websocket |= lists(value, b"websocket");
                Ok(())
            }
        }
    }

    /// The last word on a whole head.
    pub(super) fn settle(&self) -> Result<(), Fault> {
        if !self.old && !self.host {
            return Err(Fault::new(Violation::MalformedHead, "no host field"));
        }
        if self.is_tunnel() && (self.chunked || self.length.is_some_and(|length| length > 0)) {
            return Err(conflict("a body in a request for a tunnel"));
        }
        Ok(())
    }

    /// What follows the head.
    pub(super) fn framing(&self) -> Framing {
        match self.length {
            _ if self.chunked => Framing::Chunked,
            Some(length) if length > 0 => Framing::Length(length),
            _ if self.is_tunnel() => Framing::Tunnel,
            _ => Framing::None,
        }
    }

    fn is_tunnel(&self) -> bool {
        !self.old && self.wants_upgrade && self.websocket
    }

    fn note_length(&mut self, value: &[u8]) -> Result<(), &'static str> {
        if self.chunked {
            return Err("content-length beside transfer-encoding");
        }
        if self.length.is_some() {
            return Err("more than one content-length");
        }
        if value.is_empty() || value.len() > LENGTH_DIGITS || !value.iter().all(u8::is_ascii_digit)
        {
            return Err("content-length is not one to nineteen digits");
        }
        let add = |length: u64, digit: &u8| length * 10 + u64::from(digit - b'0');
        self.length = Some(value.iter().fold(0, add));
        Ok(())
    }

    fn note_coding(&mut self, value: &[u8]) -> Result<(), &'static str> {
        if self.length.is_some() {
            return Err("transfer-encoding beside content-length");
        }
        if self.chunked {
            return Err("more than one transfer-encoding");
        }
        if self.old {
            return Err("transfer-encoding in HTTP/1.0");
        }
        if !value.eq_ignore_ascii_case(b"chunked") {
            return Err("transfer-encoding other than chunked alone");
        }
        self.chunked = true;
        Ok(())
    }
}

const fn conflict(detail: &'static str) -> Fault {
    Fault::new(Violation::FramingConflict, detail)
}
