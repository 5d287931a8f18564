//! The request head, and the trailers, octet by octet (RFC 9112 §2.2, §3 and §5).
//!
//! Lines may be cut anywhere: what is needed of a cut name or value is carried over to the next piece. In the usual case
//! of a whole head in one piece nothing is copied.

use super::facts::{Facts, Field};
use super::octets::{METHOD, OTHER_TARGET, PATH, QUERY, TOKEN, field_line, value_run};
use super::{Fault, ScreenLimits, Step, Violation};

pub(super) use super::facts::Framing;

const METHOD_BYTES: usize = 32;
const NAME_BYTES: usize = 256;
/// For the few values that are read here at all.
const READ_VALUE_BYTES: usize = 256;
/// How much of a refused request line is kept for the log.
const KEPT_LINE_BYTES: usize = 1024 + METHOD_BYTES;
const KEPT_CAPACITY: usize = 1024;

/// The state within one head.
#[derive(Debug, Default)]
pub(super) struct Head {
    part: Part,
    form: Form,
    field: Field,
    facts: Facts,
    /// An empty line came before the request line.
    blank: bool,
    /// The lines are trailers: only their form counts.
    trailing: bool,
    /// The request is an `OPTIONS`, which alone may ask for `*`.
    options: bool,
    used: usize,
    fields: usize,
    target: usize,
    /// The beginning of a name or value that goes on in the next piece.
    carry: Vec<u8>,
    /// The request line of a head that did not end in its first piece.
    line: Vec<u8>,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Part {
    #[default]
    Start,
    StartLf,
    Method,
    Target,
    Version(u8),
    LineLf,
    NameStart,
    Name,
    Value,
    ValueLf,
    EndLf,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Form {
    #[default]
    Unknown,
    Path,
    Query,
    Other,
}

/// A piece and the place in it.
struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
    line_from: Option<usize>,
    line_to: Option<usize>,
}

impl<'a> Cursor<'a> {
    #[inline]
    fn rest(&self) -> &'a [u8] {
        self.bytes.get(self.at..).unwrap_or_default()
    }

    #[inline]
    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    /// Moves on and gives what was passed.
    #[inline]
    fn advance(&mut self, count: usize) -> &'a [u8] {
        let passed = self.rest().get(..count).unwrap_or_default();
        self.at += count;
        passed
    }
}

impl Head {
    /// Whether no byte of this head was seen yet.
    pub(super) fn is_untouched(&self) -> bool {
        self.part == Part::Start && !self.blank
    }

    /// What follows the head; meaningful once it is done.
    pub(super) fn framing(&self) -> Framing {
        self.facts.framing()
    }

    /// The method and target as far as they were seen.
    pub(super) fn request_line(&self) -> (Vec<u8>, Vec<u8>) {
        let mut words = self
            .line
            .splitn(3, |&octet| octet == b' ')
            .map(<[u8]>::to_vec);
        (
            words.next().unwrap_or_default(),
            words.next().unwrap_or_default(),
        )
    }

    /// Makes ready for the next head.
    pub(super) fn reset(&mut self) {
        let mut carry = std::mem::take(&mut self.carry);
        let mut line = std::mem::take(&mut self.line);
        carry.clear();
        line.clear();
        carry.shrink_to(KEPT_CAPACITY);
        line.shrink_to(KEPT_CAPACITY);
        *self = Self {
            carry,
            line,
            ..Self::default()
        };
    }

    /// Makes ready for the trailers of a chunked body.
    pub(super) fn begin_trailers(&mut self) {
        self.reset();
        self.part = Part::NameStart;
        self.trailing = true;
    }

    /// Takes bytes up to the end of the head.
    pub(super) fn scan(&mut self, bytes: &[u8], limits: &ScreenLimits) -> Step {
        let budget = limits.head_bytes.saturating_sub(self.used);
        let window = bytes.get(..budget).unwrap_or(bytes);
        let in_line = matches!(self.part, Part::Method | Part::Target);
        let mut cursor = Cursor {
            bytes: window,
            at: 0,
            line_from: in_line.then_some(0),
            line_to: None,
        };
        let outcome = self.run(&mut cursor, limits);
        self.used += cursor.at;
        match outcome {
            Ok(true) => Step::Done(cursor.at),
            Ok(false) if window.len() == bytes.len() => {
                let end = cursor.at;
                self.keep_line(&cursor, end);
                Step::More
            }
            Ok(false) => self.broken(
                &cursor,
                Fault::new(Violation::HeadTooLarge, "head too long"),
            ),
            Err(fault) => self.broken(&cursor, fault),
        }
    }

    fn broken(&mut self, cursor: &Cursor<'_>, fault: Fault) -> Step {
        let ends_line = |octet: &u8| matches!(octet, b'\r' | b'\n');
        let end = cursor
            .rest()
            .iter()
            .position(ends_line)
            .map_or(cursor.bytes.len(), |more| cursor.at + more);
        self.keep_line(cursor, end);
        Step::Broken(cursor.at, fault)
    }

    fn keep_line(&mut self, cursor: &Cursor<'_>, end: usize) {
        let Some(from) = cursor.line_from else { return };
        let part = cursor
            .bytes
            .get(from..cursor.line_to.unwrap_or(end))
            .unwrap_or_default();
        let room = KEPT_LINE_BYTES.saturating_sub(self.line.len());
        self.line
            .extend_from_slice(part.get(..room).unwrap_or(part));
    }

    /// Runs over the piece; `true` when the head has ended.
    fn run(&mut self, cursor: &mut Cursor<'_>, limits: &ScreenLimits) -> Result<bool, Fault> {
        while let Some(octet) = cursor.peek() {
            match self.part {
                Part::Start => self.start(octet, cursor)?,
                Part::StartLf => self.line_feed(octet, cursor, Part::Start)?,
                Part::Method => self.method(cursor)?,
                Part::Target => self.target(cursor, limits)?,
                Part::Version(place) => self.version(place, octet, cursor)?,
                Part::LineLf | Part::ValueLf => self.line_feed(octet, cursor, Part::NameStart)?,
                Part::NameStart => {
                    if !self.plain_line(cursor, limits) {
                        self.name_start(octet, cursor, limits)?;
                    }
                }
                Part::Name => self.name(cursor)?,
                Part::Value => self.value(cursor)?,
                Part::EndLf => {
                    self.line_feed(octet, cursor, Part::Start)?;
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }

    fn start(&mut self, octet: u8, cursor: &mut Cursor<'_>) -> Result<(), Fault> {
        if octet != b'\r' {
            self.part = Part::Method;
            cursor.line_from = Some(cursor.at);
            return Ok(());
        }
        if self.blank {
            return Err(malformed("more than one empty line before the request"));
        }
        self.blank = true;
        self.part = Part::StartLf;
        cursor.at += 1;
        Ok(())
    }

    #[inline]
    fn line_feed(&mut self, octet: u8, cursor: &mut Cursor<'_>, next: Part) -> Result<(), Fault> {
        if octet != b'\n' {
            return Err(malformed("bare CR"));
        }
        self.part = next;
        cursor.at += 1;
        Ok(())
    }

    fn method(&mut self, cursor: &mut Cursor<'_>) -> Result<(), Fault> {
        let run = METHOD.run(cursor.rest());
        let room = METHOD_BYTES.saturating_sub(self.carry.len());
        if run > room {
            cursor.at += room;
            return Err(Fault::new(Violation::UnsupportedMethod, "method too long"));
        }
        let passed = cursor.advance(run);
        match cursor.peek() {
            None => self.carry.extend_from_slice(passed),
            Some(b' ') => {
                self.options = judge_method(whole(&mut self.carry, passed))?;
                self.carry.clear();
                self.part = Part::Target;
                cursor.at += 1;
            }
            Some(octet) if TOKEN.has(octet) => {
                return Err(Fault::new(
                    Violation::UnsupportedMethod,
                    "method is not in upper case",
                ));
            }
            Some(_) => return Err(malformed("octet not allowed in a method")),
        }
        Ok(())
    }

    fn target(&mut self, cursor: &mut Cursor<'_>, limits: &ScreenLimits) -> Result<(), Fault> {
        if self.form == Form::Unknown {
            self.form = if cursor.peek() == Some(b'/') {
                Form::Path
            } else {
                Form::Other
            };
        }
        let set = match self.form {
            Form::Path => PATH,
            Form::Query => QUERY,
            Form::Other | Form::Unknown => OTHER_TARGET,
        };
        let run = set.run(cursor.rest());
        let passed = self.advance_target(run, cursor, limits)?;
        match cursor.peek() {
            None if self.form == Form::Other => self.carry.extend_from_slice(passed),
            None => {}
            Some(b'?') if self.form == Form::Path => {
                self.advance_target(1, cursor, limits)?;
                self.form = Form::Query;
            }
            Some(b' ') => {
                if self.form == Form::Other {
                    judge_other_target(whole(&mut self.carry, passed), self.options)?;
                    self.carry.clear();
                }
                cursor.line_to = Some(cursor.at);
                cursor.at += 1;
                self.part = Part::Version(0);
            }
            Some(b'#') => return Err(malformed("fragment in the target")),
            Some(_) => return Err(malformed("octet not allowed in the target")),
        }
        Ok(())
    }

    fn advance_target<'a>(
        &mut self,
        count: usize,
        cursor: &mut Cursor<'a>,
        limits: &ScreenLimits,
    ) -> Result<&'a [u8], Fault> {
        let room = limits.uri_bytes.saturating_sub(self.target);
        if count > room {
            cursor.at += room;
            return Err(Fault::new(Violation::UriTooLong, "target too long"));
        }
        self.target += count;
        Ok(cursor.advance(count))
    }

    fn version(&mut self, place: u8, octet: u8, cursor: &mut Cursor<'_>) -> Result<(), Fault> {
        if place == 0 && cursor.rest().starts_with(b"HTTP/1.1\r\n") {
            cursor.at += 10;
            self.part = Part::NameStart;
            return Ok(());
        }
        match (place, octet) {
            (0, b'H') | (1 | 2, b'T') | (3, b'P') | (4, b'/') | (5 | 7, b'1') | (6, b'.') => {}
            (7, b'0') => self.facts.old = true,
            (5 | 7, b'0'..=b'9') => {
                return Err(Fault::new(
                    Violation::UnsupportedVersion,
                    "version is not HTTP/1.0 or HTTP/1.1",
                ));
            }
            (8, b'\r') => {
                self.part = Part::LineLf;
                cursor.at += 1;
                return Ok(());
            }
            _ => return Err(malformed("no version at the end of the request line")),
        }
        self.part = Part::Version(place + 1);
        cursor.at += 1;
        Ok(())
    }

    /// Passes a whole line at once if framing cares for nothing in it, which is most of them. All else, lines cut
    /// short and those to be refused among it, takes the long way.
    #[inline]
    fn plain_line(&mut self, cursor: &mut Cursor<'_>, limits: &ScreenLimits) -> bool {
        let Some((name, length)) = field_line(cursor.rest()) else {
            return false;
        };
        let plain = self.trailing || Field::named(name) == Field::Plain;
        if !plain || name.len() > NAME_BYTES || self.fields >= limits.header_count {
            return false;
        }
        self.fields += 1;
        cursor.at += length;
        true
    }

    fn name_start(
        &mut self,
        octet: u8,
        cursor: &mut Cursor<'_>,
        limits: &ScreenLimits,
    ) -> Result<(), Fault> {
        match octet {
            b'\r' => {
                if !self.trailing {
                    self.facts.settle()?;
                }
                self.part = Part::EndLf;
                cursor.at += 1;
            }
            b' ' | b'\t' => return Err(malformed("folded line, or blank before a field name")),
            b'\n' => return Err(malformed("bare LF")),
            _ if self.fields >= limits.header_count => {
                return Err(Fault::new(Violation::HeadTooLarge, "too many fields"));
            }
            _ => {
                self.fields += 1;
                self.part = Part::Name;
            }
        }
        Ok(())
    }

    fn name(&mut self, cursor: &mut Cursor<'_>) -> Result<(), Fault> {
        let run = TOKEN.run(cursor.rest());
        let room = NAME_BYTES.saturating_sub(self.carry.len());
        if run > room {
            cursor.at += room;
            return Err(Fault::new(Violation::HeadTooLarge, "field name too long"));
        }
        let passed = cursor.advance(run);
        match cursor.peek() {
            None => self.carry.extend_from_slice(passed),
            Some(b':') => {
                let name = whole(&mut self.carry, passed);
                if name.is_empty() {
                    return Err(malformed("empty field name"));
                }
                self.field = if self.trailing {
                    Field::Plain
                } else {
                    Field::named(name)
                };
                self.facts.note_name(self.field)?;
                self.carry.clear();
                self.part = Part::Value;
                cursor.at += 1;
            }
            Some(b' ' | b'\t') => return Err(malformed("blank within or behind a field name")),
            Some(_) => return Err(malformed("octet not allowed in a field name")),
        }
        Ok(())
    }

    fn value(&mut self, cursor: &mut Cursor<'_>) -> Result<(), Fault> {
        let run = value_run(cursor.rest());
        if self.field.is_read() {
            let room = READ_VALUE_BYTES.saturating_sub(self.carry.len());
            if run > room {
                cursor.at += room;
                return Err(Fault::new(
                    Violation::HeadTooLarge,
                    "value of a framing field too long",
                ));
            }
        }
        let passed = cursor.advance(run);
        match cursor.peek() {
            None if self.field.is_read() => self.carry.extend_from_slice(passed),
            None => {}
            Some(b'\r') => {
                if self.field.is_read() {
                    self.facts
                        .note_value(self.field, whole(&mut self.carry, passed))?;
                    self.carry.clear();
                }
                self.part = Part::ValueLf;
                cursor.at += 1;
            }
            Some(b'\n') => return Err(malformed("bare LF")),
            Some(_) => return Err(malformed("control octet in a field value")),
        }
        Ok(())
    }
}

/// A name or value with what was carried over of it.
fn whole<'a>(carry: &'a mut Vec<u8>, passed: &'a [u8]) -> &'a [u8] {
    if carry.is_empty() {
        return passed;
    }
    carry.extend_from_slice(passed);
    carry
}

/// Refuses what is no request; tells whether it is an `OPTIONS`.
fn judge_method(method: &[u8]) -> Result<bool, Fault> {
    match method {
        b"" => Err(malformed("no method")),
        b"PRI" => Err(malformed("HTTP/2 preface on an HTTP/1 connection")),
        b"CONNECT" => Err(Fault::new(Violation::UnsupportedMethod, "connect")),
        _ => Ok(method == b"OPTIONS"),
    }
}

/// Judges a target that does not start with a slash: `*` for `OPTIONS`, else an absolute URL.
fn judge_other_target(target: &[u8], options: bool) -> Result<(), Fault> {
    if target == b"*" && options {
        return Ok(());
    }
    match http::Uri::try_from(target) {
        Ok(uri) if uri.scheme().is_some() && uri.authority().is_some() => Ok(()),
        _ if target.is_empty() => Err(malformed("no target")),
        _ => Err(malformed("target is neither a path nor an absolute URL")),
    }
}

fn malformed(detail: &'static str) -> Fault {
    Fault::new(Violation::MalformedHead, detail)
}
