//! Reads structured fields (RFC 9651 §4.2).
//!
//! For message signatures (RFC 9421) and digests (RFC 9530), where the strict form of what was read is what was signed.
//! Stricter than the standard in three places: a key that stands twice is refused, since two readers could take either of
//! its values; base64 has one spelling; and there are fewer members and parameters than the standard wants a reader to
//! take (§3.1, §3.1.2, §3.2), since strangers send these fields and each key is compared with all before it. It knows the
//! type of no field; the caller does.

use base64::{Engine, engine::general_purpose::STANDARD};

pub use super::value::{Bare, Dictionary, InnerList, Item, Member, Parameters, written};

/// The most members of a dictionary or a list, inner ones too.
const MOST_MEMBERS: usize = 128;
/// The most parameters of one thing.
const MOST_PARAMETERS: usize = 32;

/// A field that is not of the type that was asked for, or too large a one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a well-formed structured field")]
pub struct Malformed;

/// Reads a dictionary; nothing at all is one without members.
///
/// # Errors
/// [`Malformed`], also for a key that stands twice and for more than 128 members.
pub fn dictionary(text: &[u8]) -> Result<Dictionary, Malformed> {
    let mut cursor = Cursor::new(text);
    let mut members = Vec::new();
    while cursor.is_at_member(members.is_empty())? {
        let key = cursor.key()?;
        let member = if cursor.eats(b'=') {
            cursor.member()?
        } else {
            Member::Item(cursor.with_parameters(Bare::Boolean(true))?)
        };
        add(&mut members, (key, member), MOST_MEMBERS)?;
    }
    Ok(Dictionary(members))
}

/// Reads a list; nothing at all is one without members.
///
/// # Errors
/// [`Malformed`], also for more than 128 members.
pub fn list(text: &[u8]) -> Result<Vec<Member>, Malformed> {
    let mut cursor = Cursor::new(text);
    let mut members = Vec::new();
    while cursor.is_at_member(members.is_empty())? {
        one_more(&members, MOST_MEMBERS)?;
        members.push(cursor.member()?);
    }
    Ok(members)
}

/// Reads one item.
///
/// # Errors
/// [`Malformed`].
pub fn item(text: &[u8]) -> Result<Item, Malformed> {
    let mut cursor = Cursor::new(text);
    let item = cursor.item()?;
    cursor.skip(b" ");
    if cursor.rest.is_empty() {
        Ok(item)
    } else {
        Err(Malformed)
    }
}

fn add<T>(
    members: &mut Vec<(Box<str>, T)>,
    (key, value): (Box<str>, T),
    most: usize,
) -> Result<(), Malformed> {
    one_more(members, most)?;
    #[cfg(test)]
    counted::note(members.len());
    if members.iter().any(|(own, _)| *own == key) {
        return Err(Malformed);
    }
    members.push((key, value));
    Ok(())
}

/// Whether there is room for one more.
fn one_more<T>(members: &[T], most: usize) -> Result<(), Malformed> {
    if members.len() < most {
        Ok(())
    } else {
        Err(Malformed)
    }
}

/// What is left to read.
struct Cursor<'a> {
    rest: &'a [u8],
}

impl<'a> Cursor<'a> {
    fn new(text: &'a [u8]) -> Self {
        #[cfg(test)]
        counted::note(text.len());
        let mut cursor = Self { rest: text };
        cursor.skip(b" ");
        cursor
    }

    fn skip(&mut self, any: &[u8]) {
        while let Some((first, rest)) = self.rest.split_first()
            && any.contains(first)
        {
            self.rest = rest;
        }
    }

    fn eats(&mut self, wanted: u8) -> bool {
        match self.rest.split_first() {
            Some((first, rest)) if *first == wanted => {
                self.rest = rest;
                true
            }
            _ => false,
        }
    }

    fn next(&mut self) -> Result<u8, Malformed> {
        let (first, rest) = self.rest.split_first().ok_or(Malformed)?;
        self.rest = rest;
        Ok(*first)
    }

    fn while_some(&mut self, fits: impl Fn(u8) -> bool) -> &'a [u8] {
        let length = self.rest.iter().position(|byte| !fits(*byte));
        let (taken, rest) = self.rest.split_at(length.unwrap_or(self.rest.len()));
        self.rest = rest;
        taken
    }

    /// Whether a member follows: behind the first one a comma has to stand before it.
    fn is_at_member(&mut self, first: bool) -> Result<bool, Malformed> {
        if first {
            return Ok(!self.rest.is_empty());
        }
        self.skip(b" \t");
        if self.rest.is_empty() {
            return Ok(false);
        }
        let comma = self.eats(b',');
        self.skip(b" \t");
        if comma && !self.rest.is_empty() {
            Ok(true)
        } else {
            Err(Malformed)
        }
    }

    fn member(&mut self) -> Result<Member, Malformed> {
        if self.eats(b'(') {
            self.inner_list().map(Member::Inner)
        } else {
            self.item().map(Member::Item)
        }
    }

    fn inner_list(&mut self) -> Result<InnerList, Malformed> {
        let mut items = Vec::new();
        loop {
            let before = self.rest.len();
            self.skip(b" ");
            if self.eats(b')') {
                let parameters = self.parameters()?;
                return Ok(InnerList { items, parameters });
            }
            if !items.is_empty() && self.rest.len() == before {
                return Err(Malformed);
            }
            one_more(&items, MOST_MEMBERS)?;
            items.push(self.item()?);
        }
    }

    fn item(&mut self) -> Result<Item, Malformed> {
        let bare = self.bare()?;
        self.with_parameters(bare)
    }

    fn with_parameters(&mut self, bare: Bare) -> Result<Item, Malformed> {
        let parameters = self.parameters()?;
        Ok(Item { bare, parameters })
    }

    fn parameters(&mut self) -> Result<Parameters, Malformed> {
        let mut parameters = Vec::new();
        while self.eats(b';') {
            self.skip(b" ");
            let key = self.key()?;
            let value = if self.eats(b'=') {
                self.bare()?
            } else {
                Bare::Boolean(true)
            };
            add(&mut parameters, (key, value), MOST_PARAMETERS)?;
        }
        Ok(Parameters(parameters))
    }

    fn key(&mut self) -> Result<Box<str>, Malformed> {
        let key = self.while_some(
            |byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-' | b'.' | b'*'),
        );
        let key = ascii(key)?;
        if super::is_key(&key) {
            Ok(key)
        } else {
            Err(Malformed)
        }
    }

    fn bare(&mut self) -> Result<Bare, Malformed> {
        match self.rest.first().ok_or(Malformed)? {
            b'-' | b'0'..=b'9' => self.number(),
            b'"' => self.string(),
            b'*' | b'A'..=b'Z' | b'a'..=b'z' => {
                let token = self.while_some(|byte| is_token(byte) || matches!(byte, b':' | b'/'));
                ascii(token).map(Bare::Token)
            }
            b':' => self.bytes(),
            b'?' => {
                self.next()?;
                match self.next()? {
                    b'1' => Ok(Bare::Boolean(true)),
                    b'0' => Ok(Bare::Boolean(false)),
                    _ => Err(Malformed),
                }
            }
            b'@' => {
                self.next()?;
                match self.number()? {
                    Bare::Integer(seconds) => Ok(Bare::Date(seconds)),
                    _ => Err(Malformed),
                }
            }
            b'%' => self.display(),
            _ => Err(Malformed),
        }
    }

    fn number(&mut self) -> Result<Bare, Malformed> {
        let sign = if self.eats(b'-') { -1 } else { 1 };
        let whole = self.while_some(|byte| byte.is_ascii_digit());
        if !self.eats(b'.') {
            let number = digits(whole, 15)?;
            return Ok(Bare::Integer(sign * number));
        }
        let fraction = self.while_some(|byte| byte.is_ascii_digit());
        let scale = match fraction.len() {
            1 => 100,
            2 => 10,
            3 => 1,
            _ => return Err(Malformed),
        };
        let thousandths = digits(whole, 12)? * 1000 + digits(fraction, 3)? * scale;
        Ok(Bare::Decimal(sign * thousandths))
    }

    fn string(&mut self) -> Result<Bare, Malformed> {
        self.next()?;
        let mut text = String::new();
        loop {
            match self.next()? {
                b'"' => return Ok(Bare::String(text.into())),
                b'\\' => match self.next()? {
                    escaped @ (b'"' | b'\\') => text.push(char::from(escaped)),
                    _ => return Err(Malformed),
                },
                byte @ b' '..=b'~' => text.push(char::from(byte)),
                _ => return Err(Malformed),
            }
        }
    }

    fn bytes(&mut self) -> Result<Bare, Malformed> {
        self.next()?;
        let encoded = self.while_some(|byte| byte != b':');
        if !self.eats(b':') {
            return Err(Malformed);
        }
        let bytes = STANDARD.decode(encoded).map_err(|_| Malformed)?;
        Ok(Bare::Bytes(bytes.into()))
    }

    fn display(&mut self) -> Result<Bare, Malformed> {
        self.next()?;
        if !self.eats(b'"') {
            return Err(Malformed);
        }
        let mut bytes = Vec::new();
        loop {
            match self.next()? {
                b'"' => break,
                b'%' => bytes.push((lower_hex(self.next()?)? << 4) | lower_hex(self.next()?)?),
                byte @ b' '..=b'~' => bytes.push(byte),
                _ => return Err(Malformed),
            }
        }
        let text = String::from_utf8(bytes).map_err(|_| Malformed)?;
        Ok(Bare::Display(text.into()))
    }
}

/// One to `most` digits as a number.
fn digits(text: &[u8], most: usize) -> Result<i64, Malformed> {
    if text.is_empty() || text.len() > most {
        return Err(Malformed);
    }
    let value = text.iter().fold(0_i64, |number, digit| {
        number * 10 + i64::from(digit.wrapping_sub(b'0'))
    });
    Ok(value)
}

fn lower_hex(digit: u8) -> Result<u8, Malformed> {
    match digit {
        b'0'..=b'9' => Ok(digit - b'0'),
        b'a'..=b'f' => Ok(digit - b'a' + 10),
        _ => Err(Malformed),
    }
}

/// RFC 9110 §5.6.2.
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

fn ascii(bytes: &[u8]) -> Result<Box<str>, Malformed> {
    std::str::from_utf8(bytes)
        .map(Box::from)
        .map_err(|_| Malformed)
}

/// What reading takes, in bytes looked at and keys compared.
#[cfg(test)]
pub(crate) mod counted {
    use std::cell::Cell;

    thread_local! {
        static STEPS: Cell<usize> = const { Cell::new(0) };
    }

    pub(super) fn note(steps: usize) {
        STEPS.set(STEPS.get() + steps);
    }

    /// The steps of all reading that is done meanwhile in this thread.
    pub(crate) fn steps_of<T>(work: impl FnOnce() -> T) -> (T, usize) {
        let before = STEPS.get();
        let done = work();
        (done, STEPS.get() - before)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{
        Bare, MOST_MEMBERS, MOST_PARAMETERS, Malformed, Member, counted::steps_of, dictionary,
        item, list, written,
    };

    #[track_caller]
    fn rewritten(text: &str) -> String {
        dictionary(text.as_bytes()).expect(text).written()
    }

    #[test]
    fn a_dictionary_has_one_strict_form() {
        for (text, strict) in [
            ("", ""),
            ("  ", ""),
            (
                "a=1,b;x,c=?1 , \t d=(1   \"x\" );q",
                "a=1, b;x, c, d=(1 \"x\");q",
            ),
            ("a=?0;  k=tok/en:1", "a=?0;k=tok/en:1"),
            ("a=1.50, b=-0.001, c=10.0", "a=1.5, b=-0.001, c=10.0"),
            ("a=:aGVsbG8=:, b=@1659578233", "a=:aGVsbG8=:, b=@1659578233"),
            (
                r#"a="x\"y\\z", b=%"f%c3%bc %25""#,
                r#"a="x\"y\\z", b=%"f%c3%bc %25""#,
            ),
            ("a=(), *b=(a b);c=1", "a=(), *b=(a b);c=1"),
        ] {
            assert_eq!(rewritten(text), strict, "{text}");
            assert_eq!(rewritten(strict), strict, "{text}");
        }
    }

    #[test]
    fn what_two_readers_could_read_differently_is_refused() {
        for text in [
            "a=1, a=2",
            "a;x=1;x=2",
            "a=1,",
            ",a=1",
            "a=1 b=2",
            "A=1",
            "a=",
            "a=(1",
            "a=(1)x",
            "a=(1\"x\")",
            "a=1.",
            "a=1.2345",
            "a=1234567890123.1",
            "a=1234567890123456",
            "a=-",
            "a=\"x",
            "a=\"\\x\"",
            "a=\"\u{e9}\"",
            "a=:aGVsbG8:",
            "a=:aGVsbG9=:",
            "a=:aGVs bG8=:",
            "a=?2",
            "a=@1.5",
            "a=%\"%C3%BC\"",
            "a=%\"%ff\"",
            "a=\t1",
            "\ta=1",
            "a =1",
            "a= 1",
            "a=((1))",
        ] {
            assert_eq!(dictionary(text.as_bytes()), Err(Malformed), "{text}");
        }
    }

    #[test]
    fn lists_and_items_are_told_apart() {
        let members = list(b"a, (b c);x, 1").expect("a list");
        assert_eq!(written(&members), "a, (b c);x, 1");
        assert!(matches!(members.get(1), Some(Member::Inner(inner)) if inner.items.len() == 2));
        assert_eq!(item(b" 5;q ").map(|item| item.bare), Ok(Bare::Integer(5)));
        for text in ["", "a, b", "(a)", "5 6"] {
            assert_eq!(item(text.as_bytes()), Err(Malformed), "{text}");
        }
    }

    #[test]
    fn what_is_read_is_bounded() {
        let named = |count: usize, between: &str| {
            let names: Vec<String> = (0..count).map(|n| format!("k{n}")).collect();
            names.join(between)
        };
        let members = |count| dictionary(named(count, ",").as_bytes()).map(|read| read.len());
        assert_eq!(members(MOST_MEMBERS), Ok(MOST_MEMBERS));
        assert_eq!(members(MOST_MEMBERS + 1), Err(Malformed));
        let listed = |count| list(named(count, ",").as_bytes()).map(|read| read.len());
        assert_eq!(listed(MOST_MEMBERS), Ok(MOST_MEMBERS));
        assert_eq!(listed(MOST_MEMBERS + 1), Err(Malformed));
        let inner = |count| list(format!("({})", named(count, " ")).as_bytes()).is_ok();
        assert!(inner(MOST_MEMBERS) && !inner(MOST_MEMBERS + 1));
        let parameters = |count| item(format!("1;{}", named(count, ";")).as_bytes()).is_ok();
        assert!(parameters(MOST_PARAMETERS) && !parameters(MOST_PARAMETERS + 1));
    }

    #[test]
    fn what_reading_takes_grows_with_the_length_alone() {
        let keys: Vec<String> = (0..5_000).map(|n| format!("k{n}")).collect();
        let many_of_many: Vec<String> = keys[..120]
            .iter()
            .map(|key| format!("{key};{}", keys[..30].join(";")))
            .collect();
        for text in [
            keys.join(","),
            format!("a=1;{}", keys.join(";")),
            format!("a=({})", keys.join(" ")),
            many_of_many.join(","),
        ] {
            let (_, steps) = steps_of(|| dictionary(text.as_bytes()));
            let length = text.len();
            assert!(steps <= 20 * length, "{steps} steps for {length} bytes");
        }
    }

    proptest! {
        #[test]
        fn what_was_written_is_read_again(text in "[a-c0-2=;,():?@%\"* .\\\\-]{0,40}") {
            if let Ok(read) = dictionary(text.as_bytes()) {
                let strict = read.written();
                prop_assert_eq!(dictionary(strict.as_bytes()), Ok(read));
            }
            if let Ok(read) = list(text.as_bytes()) {
                prop_assert_eq!(list(written(&read).as_bytes()), Ok(read));
            }
        }
    }
}
