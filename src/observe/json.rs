//! JSON objects written by hand, one line each, in plain ASCII.
//!
//! For [`super::access`]. Everything outside printable ASCII is escaped, so neither a newline, nor a terminal code in
//! any of its forms (ESC, DEL, the C1 range of Unicode), nor a change of writing direction ever reaches the reader of a
//! log raw (RFC 8259 §7). Bytes that are not UTF-8 are written as the code point of the same number, so that they can
//! still be recognised.

use std::io::Write;
use std::net::IpAddr;

/// One object under construction at the end of a buffer.
#[derive(Debug)]
pub(super) struct Object<'a> {
    out: &'a mut Vec<u8>,
    separator: u8,
}

impl<'a> Object<'a> {
    /// Opens an object.
    pub(super) fn open(out: &'a mut Vec<u8>) -> Self {
        Self {
            out,
            separator: b'{',
        }
    }

    /// Closes the object and the line.
    pub(super) fn close(self) {
        if self.separator == b'{' {
            self.out.push(b'{');
        }
        self.out.extend_from_slice(b"}\n");
    }

    /// A value of text, escaped.
    pub(super) fn text(&mut self, key: &'static str, value: &[u8]) {
        self.quoted(key, |out| escape(value, out));
    }

    /// A value of text, left out when there is none.
    pub(super) fn text_if(&mut self, key: &'static str, value: Option<&str>) {
        if let Some(value) = value {
            self.text(key, value.as_bytes());
        }
    }

    /// A value that `write` appends between the quotes; it must append escaped text.
    pub(super) fn quoted(&mut self, key: &'static str, write: impl FnOnce(&mut Vec<u8>)) {
        self.key(key);
        self.out.push(b'"');
        write(self.out);
        self.out.push(b'"');
    }

    /// A whole number.
    pub(super) fn number(&mut self, key: &'static str, value: u64) {
        self.key(key);
        self.out
            .extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
    }

    /// Milliseconds with three places.
    pub(super) fn millis(&mut self, key: &'static str, value: std::time::Duration) {
        let micros = u64::try_from(value.as_micros()).unwrap_or(u64::MAX);
        self.number(key, micros / 1000);
        self.out.push(b'.');
        digits(self.out, micros % 1000);
    }

    /// An IP address.
    pub(super) fn address(&mut self, key: &'static str, value: IpAddr) {
        self.quoted(key, |out| match value {
            IpAddr::V4(v4) => {
                for (index, octet) in v4.octets().into_iter().enumerate() {
                    if index > 0 {
                        out.push(b'.');
                    }
                    out.extend_from_slice(itoa::Buffer::new().format(octet).as_bytes());
                }
            }
            // Writing to a vector does not fail.
            IpAddr::V6(v6) => drop(write!(out, "{v6}")),
        });
    }

    /// A list of words of the program, left out when empty.
    pub(super) fn words(
        &mut self,
        key: &'static str,
        values: impl ExactSizeIterator<Item = &'static str>,
    ) {
        if values.len() == 0 {
            return;
        }
        self.key(key);
        let mut separator = b'[';
        for value in values {
            self.out.extend_from_slice(&[separator, b'"']);
            escape(value.as_bytes(), self.out);
            self.out.push(b'"');
            separator = b',';
        }
        self.out.push(b']');
    }

    fn key(&mut self, key: &'static str) {
        self.out.extend_from_slice(&[self.separator, b'"']);
        self.separator = b',';
        self.out.extend_from_slice(key.as_bytes());
        self.out.extend_from_slice(b"\":");
    }
}

/// Three decimal digits of a number below a thousand.
pub(super) fn digits(out: &mut Vec<u8>, value: u64) {
    if value < 100 {
        out.push(b'0');
    }
    if value < 10 {
        out.push(b'0');
    }
    out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
}

/// Appends `bytes` as the inside of a JSON string.
pub(super) fn escape(bytes: &[u8], out: &mut Vec<u8>) {
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

    proptest! {
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
