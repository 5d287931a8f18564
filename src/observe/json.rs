//! JSON objects written by hand, one line each, in plain ASCII.
//!
//! For [`super::access`]. Everything outside printable ASCII is escaped, so neither a newline, nor a terminal code in
//! any of its forms (ESC, DEL, the C1 range of Unicode), nor a change of writing direction ever reaches the reader of a
//! log raw (RFC 8259 §7). Bytes that are not UTF-8 are written as the code point of the same number, so that they can
//! still be recognised.

use std::io::Write;
use std::net::IpAddr;
use std::ops::Range;

/// One object under construction at the end of a buffer.
///
/// A key is handed over as it is written, with what stands before and behind it, such as `,"status":`: its length is
/// known to the compiler then, and copying it is a few moves.
#[derive(Debug)]
pub(super) struct Object<'a> {
    out: &'a mut Vec<u8>,
}

impl<'a> Object<'a> {
    /// Opens an object; the first key brings the brace along.
    pub(super) fn open(out: &'a mut Vec<u8>) -> Self {
        Self { out }
    }

    /// Closes the object and the line.
    pub(super) fn close(self) {
        self.out.extend_from_slice(b"}\n");
    }

    /// A value of text, escaped. The key ends with the opening quote.
    #[inline]
    pub(super) fn text<const N: usize>(&mut self, key: &[u8; N], value: &[u8]) {
        self.out.extend_from_slice(key);
        escape(value, self.out);
        self.out.push(b'"');
    }

    /// A value of text, left out when there is none.
    #[inline]
    pub(super) fn text_if<const N: usize>(&mut self, key: &[u8; N], value: Option<&str>) {
        if let Some(value) = value {
            self.text(key, value.as_bytes());
        }
    }

    /// A word of the program or of a grammar without quotes and escapes: it is not looked at.
    #[inline]
    pub(super) fn word<const N: usize>(&mut self, key: &[u8; N], value: &str) {
        self.quoted(key, |out| out.extend_from_slice(value.as_bytes()));
    }

    /// A value that `write` appends before the closing quote; it must append escaped text.
    #[inline]
    pub(super) fn quoted<const N: usize>(
        &mut self,
        key: &[u8; N],
        write: impl FnOnce(&mut Vec<u8>),
    ) {
        self.out.extend_from_slice(key);
        write(self.out);
        self.out.push(b'"');
    }

    /// A whole number.
    #[inline]
    pub(super) fn number<const N: usize>(&mut self, key: &[u8; N], value: u64) {
        self.out.extend_from_slice(key);
        self.out
            .extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
    }

    /// Milliseconds with three places.
    #[inline]
    pub(super) fn millis<const N: usize>(&mut self, key: &[u8; N], value: std::time::Duration) {
        let micros = u64::try_from(value.as_micros()).unwrap_or(u64::MAX);
        self.number(key, micros / 1000);
        let [hundreds, tens, ones] = digits(micros % 1000);
        self.out.extend_from_slice(&[b'.', hundreds, tens, ones]);
    }

    /// An IP address; returns where it stands, for [`Self::again`].
    #[inline]
    pub(super) fn address<const N: usize>(&mut self, key: &[u8; N], value: IpAddr) -> Range<usize> {
        let start = self.out.len() + N;
        self.quoted(key, |out| write_address(value, out));
        start..self.out.len() - 1
    }

    /// What stands in this line already, as another value.
    #[inline]
    pub(super) fn again<const N: usize>(&mut self, key: &[u8; N], written: Range<usize>) {
        self.quoted(key, |out| out.extend_from_within(written));
    }

    /// A list of words of the program, left out when empty. The key ends before the bracket.
    #[inline]
    pub(super) fn words<const N: usize>(
        &mut self,
        key: &[u8; N],
        values: impl ExactSizeIterator<Item = &'static str>,
    ) {
        if values.len() == 0 {
            return;
        }
        self.out.extend_from_slice(key);
        let mut separator = b'[';
        for value in values {
            self.out.extend_from_slice(&[separator, b'"']);
            self.out.extend_from_slice(value.as_bytes());
            self.out.push(b'"');
            separator = b',';
        }
        self.out.push(b']');
    }
}

/// Appends an IP address.
fn write_address(address: IpAddr, out: &mut Vec<u8>) {
    let v4 = match address {
        IpAddr::V4(v4) => v4,
        // Writing to a vector does not fail.
        IpAddr::V6(v6) => return drop(write!(out, "{v6}")),
    };
    for (index, octet) in v4.octets().into_iter().enumerate() {
        if index > 0 {
            out.push(b'.');
        }
        let [hundreds, tens, ones] = digits(u64::from(octet));
        match octet {
            0..=9 => out.push(ones),
            10..=99 => out.extend_from_slice(&[tens, ones]),
            100..=255 => out.extend_from_slice(&[hundreds, tens, ones]),
        }
    }
}

/// The last three decimal digits of a number.
pub(super) fn digits(value: u64) -> [u8; 3] {
    let digit = |value: u64| u8::try_from(value % 10).unwrap_or(0) + b'0';
    [digit(value / 100), digit(value / 10), digit(value)]
}

/// Appends `bytes` as the inside of a JSON string.
pub(super) fn escape(bytes: &[u8], out: &mut Vec<u8>) {
    if all_clean(bytes) {
        out.extend_from_slice(bytes);
    } else {
        escape_runs(bytes, out);
    }
}

/// Whether nothing has to be escaped: looked at in pieces of 16, since nearly always it is so.
fn all_clean(bytes: &[u8]) -> bool {
    let (pieces, rest) = bytes.as_chunks::<16>();
    // The last piece may overlap the one before it.
    let last = match (rest, bytes.last_chunk::<16>()) {
        ([], _) => true,
        (_, Some(last)) => is_clean_piece(*last),
        (rest, None) => is_clean_rest(rest),
    };
    last && pieces.iter().all(|piece| is_clean_piece(*piece))
}

/// Fewer than 16 bytes, as two halves that overlap where they are long enough for that.
fn is_clean_rest(bytes: &[u8]) -> bool {
    if let (Some(first), Some(last)) = (bytes.first_chunk(), bytes.last_chunk()) {
        return is_clean_word(u64::from_ne_bytes(*first))
            && is_clean_word(u64::from_ne_bytes(*last));
    }
    if let (Some(first), Some(last)) = (bytes.first_chunk(), bytes.last_chunk()) {
        let [first, last] = [*first, *last].map(u32::from_ne_bytes).map(u64::from);
        return is_clean_word(first << 32 | last);
    }
    bytes.iter().all(|byte| is_clean(*byte))
}

/// [`is_clean`] for each byte of a piece, without a branch between them: so the processor compares them all at once.
fn is_clean_piece(piece: [u8; 16]) -> bool {
    let bad = |byte: &u8| u8::from(!is_clean(*byte));
    piece.iter().fold(0, |found, byte| found | bad(byte)) == 0
}

/// [`is_clean`] for each of eight bytes at once, by the borrow that a byte smaller than it should be takes from its
/// neighbour; a byte above a bad one may look bad as well, never the other way.
fn is_clean_word(word: u64) -> bool {
    const ONES: u64 = u64::from_ne_bytes([1; 8]);
    const HIGH: u64 = ONES << 7;
    let below = |word: u64, bound: u8| word.wrapping_sub(ONES * u64::from(bound)) & !word;
    let is = |byte: u8| below(word ^ (ONES * u64::from(byte)), 1);
    (word | below(word, b' ') | is(b'"') | is(b'\\') | is(0x7f)) & HIGH == 0
}

/// The runs that need no escape, and between them what does.
fn escape_runs(bytes: &[u8], out: &mut Vec<u8>) {
    let mut rest = bytes;
    loop {
        let clean = rest
            .iter()
            .position(|byte| !is_clean(*byte))
            .unwrap_or(rest.len());
        let (run, tail) = rest.split_at(clean);
        out.extend_from_slice(run);
        let Some((&first, after)) = tail.split_first() else {
            return;
        };
        if first.is_ascii() {
            escape_ascii(first, out);
            rest = after;
        } else {
            rest = escape_unicode(tail, out);
        }
    }
}

const fn is_clean(byte: u8) -> bool {
    matches!(byte, 0x20..=0x7e) && byte != b'"' && byte != b'\\'
}

fn escape_ascii(byte: u8, out: &mut Vec<u8>) {
    match byte {
        b'"' => out.extend_from_slice(b"\\\""),
        b'\\' => out.extend_from_slice(b"\\\\"),
        b'\n' => out.extend_from_slice(b"\\n"),
        b'\r' => out.extend_from_slice(b"\\r"),
        b'\t' => out.extend_from_slice(b"\\t"),
        _ => unit(u16::from(byte), out),
    }
}

/// Escapes the run of other bytes at the head of `bytes`, and returns what follows it.
fn escape_unicode<'a>(bytes: &'a [u8], out: &mut Vec<u8>) -> &'a [u8] {
    let end = bytes.iter().position(u8::is_ascii).unwrap_or(bytes.len());
    let (run, after) = bytes.split_at(end);
    for chunk in run.utf8_chunks() {
        for point in chunk.valid().chars() {
            for code in point.encode_utf16(&mut [0; 2]) {
                unit(*code, out);
            }
        }
        for byte in chunk.invalid() {
            unit(u16::from(*byte), out);
        }
    }
    after
}

fn unit(code: u16, out: &mut Vec<u8>) {
    out.extend_from_slice(b"\\u");
    for shift in [12, 8, 4, 0] {
        let digit = u32::from((code >> shift) & 0xf);
        out.push(
            char::from_digit(digit, 16).map_or(b'0', |digit| u8::try_from(digit).unwrap_or(b'0')),
        );
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn escaped(bytes: &[u8]) -> String {
        let mut out = Vec::new();
        escape(bytes, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn what_could_steer_a_terminal_is_escaped() {
        assert_eq!(
            escaped(b"\x1b[2J\x7f\0\n\""),
            "\\u001b[2J\\u007f\\u0000\\n\\\""
        );
        assert_eq!(escaped("\u{9b}2J\u{202e}".as_bytes()), "\\u009b2J\\u202e");
        assert_eq!(escaped("é😀".as_bytes()), "\\u00e9\\ud83d\\ude00");
        assert_eq!(escaped(b"a\xffb"), "a\\u00ffb");
    }

    #[test]
    fn addresses_are_written_as_everybody_writes_them() {
        for text in [
            "0.9.10.99",
            "100.199.200.255",
            "2001:db8::1",
            "::ffff:1.2.3.4",
        ] {
            let mut out = Vec::new();
            write_address(text.parse().unwrap(), &mut out);
            assert_eq!(String::from_utf8(out).unwrap(), text);
        }
    }

    proptest! {
        /// Wherever it stands in a piece, and in whatever piece.
        #[test]
        fn a_byte_to_escape_is_found_at_every_place(
            before in "[ -!#-\\[\\]-~]{0,40}",
            after in "[ -!#-\\[\\]-~]{0,40}",
            byte in any::<u8>(),
        ) {
            let bytes = [before.as_bytes(), &[byte], after.as_bytes()].concat();
            prop_assert_eq!(all_clean(&bytes), is_clean(byte));
            let mut runs = Vec::new();
            escape_runs(&bytes, &mut runs);
            prop_assert_eq!(escaped(&bytes).into_bytes(), runs);
        }

        #[test]
        fn text_reads_back_and_the_line_is_printable(text in any::<String>()) {
            let escaped = escaped(text.as_bytes());
            prop_assert!(escaped.bytes().all(|byte| matches!(byte, 0x20..=0x7e)));
            let read: String = serde_json::from_str(&format!("\"{escaped}\"")).unwrap();
            prop_assert_eq!(read, text);
        }

        #[test]
        fn any_bytes_give_a_json_string(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            let escaped = escaped(&bytes);
            prop_assert!(escaped.bytes().all(|byte| matches!(byte, 0x20..=0x7e)));
            let read = serde_json::from_str::<String>(&format!("\"{escaped}\""));
            prop_assert!(read.is_ok());
        }
    }
}
