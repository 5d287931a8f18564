//! A backend's 5xx answers, which may show stack traces, queries and addresses: replaced by a problem of the same
//! status. Off unless stated.
//!
//! Nothing of the backend's answer is left but its status and a `Retry-After` in seconds (RFC 9110 §10.2.3). The
//! replacement is made in `pipeline::forward`, which holds the body; here is the rule. It does not judge 4xx answers.

use http::{HeaderMap, HeaderValue, StatusCode, header::RETRY_AFTER};

use super::mode::Mode;
use crate::{
    config::{Key, Kind, Reader, Section},
    exchange::Exchange,
    wire::halt::{Reason, Refusal, Stage},
};

/// `[….mask_errors]`
pub static SECTION: Section = Section {
    name: "mask_errors",
    doc: "what clients see of a backend's 5xx answers",
    keys: &[Key::new(
        "mode",
        Kind::Choice(Mode::WORDS),
        "enforce replaces them by a problem of the same status, monitor notes them, off passes them on",
        "\"off\"",
    )],
};

/// The compiled rule.
#[derive(Clone, Debug)]
pub struct MaskErrors {
    mode: Mode,
    /// Where the mode stands, for `explain`.
    place: Box<str>,
}

impl MaskErrors {
    /// The rule, for `check -v`.
    pub fn describe(&self) -> Vec<(String, String)> {
        vec![(
            "5xx of the backend".to_owned(),
            self.mode.as_str().to_owned(),
        )]
    }

    /// Notes for `explain` what becomes of a 5xx answer.
    pub fn explain(&self, exchange: &mut Exchange) {
        if self.mode != Mode::Off {
            exchange.note(Stage::Forward, || {
                format!(
                    "forwarded; a 5xx answer becomes the problem `{}` ({}, {})",
                    Reason::UpstreamError.code(),
                    self.mode.as_str(),
                    self.place
                )
            });
        }
    }
}

/// Compiles the section.
pub fn compile(reader: &Reader<'_>) -> MaskErrors {
    MaskErrors {
        mode: reader.get("mode").unwrap_or(Mode::Off),
        place: reader.whence("mode"),
    }
}

/// What the client gets in place of a backend's answer with this head; `None` lets it pass.
pub fn replacement(
    policy: &MaskErrors,
    exchange: &mut Exchange,
    (status, headers): (StatusCode, &HeaderMap),
) -> Option<Refusal> {
    if policy.mode == Mode::Off || !status.is_server_error() {
        return None;
    }
    if policy.mode == Mode::Monitor {
        let note = (Stage::Forward, Reason::UpstreamError);
        exchange.would_refuse.push(note);
        return None;
    }
    let refusal = Refusal::new(Stage::Forward, Reason::UpstreamError).status(status);
    Some(match headers.get(RETRY_AFTER).filter(|v| is_seconds(v)) {
        Some(seconds) => refusal.with(RETRY_AFTER, seconds.clone()),
        None => refusal,
    })
}

/// Up to five digits: a day and a bit.
fn is_seconds(value: &HeaderValue) -> bool {
    let digits = value.as_bytes();
    (1..=5).contains(&digits.len()) && digits.iter().all(u8::is_ascii_digit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_seconds_are_kept() {
        for (value, kept) in [
            ("0", true),
            ("86400", true),
            ("", false),
            ("864000", false),
            ("Fri, 31 Dec 1999 23:59:59 GMT", false),
            ("1;db=10.0.0.7", false),
        ] {
            assert_eq!(
                is_seconds(&HeaderValue::from_static(value)),
                kept,
                "{value}"
            );
        }
    }
}
