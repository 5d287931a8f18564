//! Which octets may stand where in a request head (RFC 9110 §5.5 and §5.6.2, RFC 9112 §3), and fast runs over them.
//!
//! For the screen only. The target sets are those of the `http` crate without `#` and without anything above 0x7E, so
//! that a target that passes here is never refused later by the parser with an answer of its own.

/// A set of octets; one bit of the table below.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Class(u8);

/// `token` of RFC 9110 §5.6.2: field names.
pub(super) const TOKEN: Class = Class(1);
/// What a method that this proxy knows may be made of: upper-case letters, digits, `-` and `_`.
pub(super) const METHOD: Class = Class(2);
/// A target up to its `?`.
pub(super) const PATH: Class = Class(4);
/// A target behind its `?`.
pub(super) const QUERY: Class = Class(8);
/// Printable ASCII without the space.
pub(super) const VISIBLE: Class = Class(16);
/// A target that is not a path: printable ASCII without `#`.
pub(super) const OTHER_TARGET: Class = Class(32);

static TABLE: [u8; 256] = table();

impl Class {
    /// Whether the octet belongs to the set.
    #[inline]
    pub(super) fn has(self, octet: u8) -> bool {
        TABLE
            .get(usize::from(octet))
            .is_some_and(|sets| sets & self.0 != 0)
    }

    /// Whether all octets belong to the set; without a branch an octet.
    #[inline]
    fn has_all(self, octets: &[u8]) -> bool {
        let sets = |octet: u8| TABLE.get(usize::from(octet)).copied().unwrap_or_default();
        octets
            .iter()
            .fold(self.0, |kept, &octet| kept & sets(octet))
            != 0
    }

    /// How many octets at the start belong to the set.
    #[inline]
    pub(super) fn run(self, octets: &[u8]) -> usize {
        octets
            .iter()
            .position(|&octet| !self.has(octet))
            .unwrap_or(octets.len())
    }
}

const fn table() -> [u8; 256] {
    let mut table = [0; 256];
    let mut octet: u8 = 0x21;
    while octet < 0x7F {
        let mut sets = VISIBLE.0;
        if octet.is_ascii_alphanumeric() || is_token_mark(octet) {
            sets |= TOKEN.0;
        }
        if octet.is_ascii_uppercase() || octet.is_ascii_digit() || octet == b'-' || octet == b'_' {
            sets |= METHOD.0;
        }
        if !matches!(octet, b'#' | b'<' | b'>' | b'?' | b'`') {
            sets |= PATH.0;
        }
        if !matches!(octet, b'"' | b'#' | b'<' | b'>') {
            sets |= QUERY.0;
        }
        if octet != b'#' {
            sets |= OTHER_TARGET.0;
        }
        table[octet as usize] = sets;
        octet += 1;
    }
    table
}

const fn is_token_mark(octet: u8) -> bool {
    matches!(
        octet,
        b'!' | b'#'
            | b'$'
            | b'%'
            | b'&'
            | b'\''
            | b'*'
            | b'+'
            | b'-'
            | b'.'
            | b'^'
            | b'_'
            | b'`'
            | b'|'
            | b'~'
    )
}

const ONES: u64 = 0x0101_0101_0101_0101;
const HIGHS: u64 = 0x8080_8080_8080_8080;

/// A whole field line at the start: its name, and how long the line is with its CR LF.
///
/// `None` if it is cut short, or if anything in it may not stand there.
#[inline]
pub(super) fn field_line(octets: &[u8]) -> Option<(&[u8], usize)> {
    let (name, behind) = octets.split_at_checked(colon(octets)?)?;
    let value = behind.strip_prefix(b":")?;
    let is_name = TOKEN.has_all(name);
    let run = value_run(value);
    let ends = value.get(run..)?.starts_with(b"\r\n");
    (ends && is_name && !name.is_empty()).then_some((name, name.len() + 1 + run + 2))
}

/// Where the first colon stands, eight octets a step; the lowest flag is exact.
#[inline]
fn colon(octets: &[u8]) -> Option<usize> {
    let mut rest = octets;
    while let Some((eight, behind)) = rest.split_first_chunk::<8>() {
        let no_colon = u64::from_le_bytes(*eight) ^ (ONES * 0x3A);
        let flags = no_colon.wrapping_sub(ONES) & !no_colon & HIGHS;
        if flags != 0 {
            let place = usize::try_from(flags.trailing_zeros() / 8).ok()?;
            return Some(octets.len() - rest.len() + place);
        }
        rest = behind;
    }
    let place = rest.iter().position(|&octet| octet == b':')?;
    Some(octets.len() - rest.len() + place)
}

/// Octets that are looked at together; compilers make vector instructions of it.
const BLOCK: usize = 16;

/// How many octets at the start may stand in a field value: HTAB, printable ASCII, the space and `obs-text`.
///
/// Whole blocks while they are plain, then eight octets a step. Both tests below may flag an octet above one that is
/// truly flagged, never below, so the lowest flag is exact.
#[inline]
pub(super) fn value_run(octets: &[u8]) -> usize {
    let mut rest = octets;
    while let Some((block, behind)) = rest.split_first_chunk::<BLOCK>() {
        let odd = block.iter().fold(0, |odd, &octet| {
            odd | u8::from(octet < 0x20) | u8::from(octet == 0x7F)
        });
        if odd != 0 {
            break;
        }
        rest = behind;
    }
    loop {
        let Some((eight, behind)) = rest.split_first_chunk::<8>() else {
            return octets.len() - rest.len() + value_run_slow(rest);
        };
        let word = u64::from_le_bytes(*eight);
        let below_space = word.wrapping_sub(ONES * 0x20) & !word;
        let no_delete = word ^ (ONES * 0x7F);
        let delete = no_delete.wrapping_sub(ONES) & !no_delete;
        let flags = (below_space | delete) & HIGHS;
        if flags == 0 {
            rest = behind;
            continue;
        }
        let place = usize::try_from(flags.trailing_zeros() / 8).unwrap_or_default();
        if eight.get(place) != Some(&b'\t') {
            return octets.len() - rest.len() + place;
        }
        rest = rest.get(place + 1..).unwrap_or_default();
    }
}

#[inline]
fn value_run_slow(octets: &[u8]) -> usize {
    octets
        .iter()
        .position(|&octet| !in_value(octet))
        .unwrap_or(octets.len())
}

#[inline]
fn in_value(octet: u8) -> bool {
    octet == b'\t' || (octet >= 0x20 && octet != 0x7F)
}

/// The value without the spaces and tabs around it.
pub(super) fn trimmed(value: &[u8]) -> &[u8] {
    let blank = |octet: &u8| matches!(octet, b' ' | b'\t');
    let start = value
        .iter()
        .position(|octet| !blank(octet))
        .unwrap_or(value.len());
    let end = value
        .iter()
        .rposition(|octet| !blank(octet))
        .map_or(start, |last| last + 1);
    value.get(start..end).unwrap_or_default()
}

/// Whether a comma-separated list holds the word, in any case.
pub(super) fn lists(value: &[u8], word: &[u8]) -> bool {
    value
        .split(|&octet| octet == b',')
        .any(|item| trimmed(item).eq_ignore_ascii_case(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_run_stops_at_each_control_octet_and_nowhere_else() {
        for octet in 0..=u8::MAX {
            for place in 0..40 {
                let mut value = vec![b'v'; 40];
                value[place] = octet;
                let expected = if in_value(octet) { 40 } else { place };
                assert_eq!(value_run(&value), expected, "octet {octet:#04x} at {place}");
            }
        }
        assert_eq!(value_run(b"\t\t\t\t\t\t\t\t\ra"), 8);
        assert_eq!(value_run(b""), 0);
    }

    #[test]
    fn a_field_line_is_whole_and_sound_or_none() {
        for (line, wanted) in [
            (&b"Host: a\r\nX"[..], Some((&b"Host"[..], 9))),
            (
                b"X-Longer-Than-Eight:\r\n",
                Some((b"X-Longer-Than-Eight", 22)),
            ),
            (b"X:\ta\tb\xff \r\n\r\n", Some((b"X", 10))),
            (b"X: a:b\r\n", Some((b"X", 8))),
        ] {
            assert_eq!(field_line(line), wanted, "{}", line.escape_ascii());
        }
        for line in [
            &b""[..],
            b"X",
            b"X:",
            b"X: a",
            b"X: a\r",
            b"X: a\n",
            b"X: a\rb\n",
            b": a\r\n",
            b"X : a\r\n",
            b" X: a\r\n",
            b"\r\nX: a\r\n",
            b"X\r\nY: a\r\n",
            b"X: \x00\r\n",
            b"X: a long value and a \x7f in it, then some more\r\n",
            b"X\xff: a\r\n",
        ] {
            assert_eq!(field_line(line), None, "{}", line.escape_ascii());
        }
    }

    #[test]
    fn target_sets_hold_exactly_what_the_uri_parser_takes() {
        for octet in 0..=u8::MAX {
            let ascii = octet.is_ascii() && octet != b'#';
            let path = http::Uri::try_from([b'/', octet].as_slice()).is_ok() && ascii;
            assert_eq!(PATH.has(octet) || octet == b'?', path, "path {octet:#04x}");
            let query = http::Uri::try_from([b'/', b'?', octet].as_slice()).is_ok() && ascii;
            assert_eq!(QUERY.has(octet), query, "query {octet:#04x}");
            let name = http::HeaderName::from_bytes(&[octet]).is_ok();
            assert_eq!(TOKEN.has(octet), name, "name {octet:#04x}");
        }
    }

    #[test]
    fn lists_are_read_item_by_item() {
        assert!(lists(b"keep-alive, Upgrade", b"upgrade"));
        assert!(!lists(b"upgraded, x-upgrade", b"upgrade"));
        assert_eq!(trimmed(b" \t a b \t"), b"a b");
        assert_eq!(trimmed(b" \t "), b"");
    }
}
