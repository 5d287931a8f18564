//! The one normal form of a request target: what is judged is what is forwarded.
//!
//! For routing, for every policy and for the forwarding itself (RFC 3986 §6.2.2, RFC 9110 §4.2.3). A target that two
//! readers could understand in two ways is refused, never guessed. It does not know absolute or asterisk form (the
//! caller takes those apart), and it cannot see a fragment: [`PathAndQuery`] has already cut it off when it is built,
//! so a strict 400 for `#` needs a look at the request line before that.
//!
//! Two texts come out of it. [`Target::path`] is sent to the backend: unreserved characters decoded, other escapes in
//! upper case, no empty and no dot segments. [`Target::judged`] is what routes are compared with: besides, path
//! parameters are cut, `\` is read as `/`, escaped sub-delimiters are decoded (every backend decodes them, so `/%40x`
//! must meet the rules of `/@x`) and one trailing slash is dropped.

use bytes::Bytes;
use http::uri::PathAndQuery;
use percent_encoding::percent_decode;

pub use super::profile::{Oddities, Profile, UnknownProfile};

/// Why a target is refused. All of them are answered with 400.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TargetError {
    /// The path does not start with `/`.
    #[error("the path does not start with a slash")]
    NotAbsolute,
    /// A `%` that two hexadecimal digits do not follow.
    #[error("a percent sign without two hexadecimal digits")]
    BadEscape,
    /// A raw byte that may not stand in a target: control, space or 0x80 and above.
    #[error("a raw byte that must be escaped")]
    RawByte,
    /// An escaped control character, NUL included.
    #[error("an escaped control character")]
    Control,
    /// An escaped `#` or `?`, which some backends read as the end of the path.
    #[error("an escaped number sign or question mark")]
    EscapedDelimiter,
    /// An escaped `%` before two hexadecimal digits: a backend that decodes twice would read another path.
    #[error("a path escaped twice")]
    DoubleEscape,
    /// The path is not UTF-8 once its escapes are decoded.
    #[error("a path that is not UTF-8")]
    NotUtf8,
    /// `..` that leads above the root.
    #[error("a path that leads above the root")]
    AboveRoot,
    /// A dot segment that hides behind `;`, `\` or an escaped slash.
    #[error("a hidden dot segment")]
    HiddenDots,
    /// Something that this backend's profile does not take, by its name.
    #[error("the profile of this backend refuses {0}")]
    Refused(&'static str),
}

impl TargetError {
    /// The stable code for logs.
    pub const fn code(self) -> &'static str {
        match self {
            Self::NotAbsolute => "not-absolute",
            Self::BadEscape => "bad-escape",
            Self::RawByte => "raw-byte",
            Self::Control => "escaped-control",
            Self::EscapedDelimiter => "escaped-delimiter",
            Self::DoubleEscape => "double-escape",
            Self::NotUtf8 => "not-utf-8",
            Self::AboveRoot => "above-root",
            Self::HiddenDots => "hidden-dots",
            Self::Refused(_) => "profile",
        }
    }
}

/// A path and query in normal form; only [`Target::parse`] makes one.
#[derive(Debug, Clone)]
pub struct Target {
    whole: PathAndQuery,
    judged: Judged,
    oddities: Oddities,
}

#[derive(Debug, Clone)]
enum Judged {
    /// That many leading bytes of the path.
    Prefix(usize),
    Own(Box<str>),
}

impl Target {
    /// Brings a path and query into normal form. A path that is already in it costs one scan and no allocation.
    ///
    /// The query is kept as it came, but for raw bytes of 0x80 and above, which are refused.
    ///
    /// # Errors
    /// [`TargetError`] for everything that two readers could read differently, whatever the profile.
    pub fn parse(source: &PathAndQuery) -> Result<Self, TargetError> {
        if source.query().is_some_and(|query| !query.is_ascii()) {
            return Err(TargetError::RawByte);
        }
        let text = source.as_str();
        if !text.starts_with('/') {
            return Err(TargetError::NotAbsolute);
        }
        if let Some(oddities) = scan(source.path().as_bytes()) {
            let judged = Judged::Prefix(without_trailing_slash(source.path()).len());
            let whole = source.clone();
            return Ok(Self {
                whole,
                judged,
                oddities,
            });
        }
        rewrite(source)
    }

    /// The path as it is forwarded.
    pub fn path(&self) -> &str {
        self.whole.path()
    }

    /// The path as routes and policies see it.
    pub fn judged(&self) -> &str {
        match &self.judged {
            Judged::Prefix(length) => self.path().get(..*length).unwrap_or(self.path()),
            Judged::Own(text) => text,
        }
    }

    /// The query without its `?`, if there is one.
    pub fn query(&self) -> Option<&str> {
        self.whole.query()
    }

    /// Path and query as they are forwarded.
    pub fn path_and_query(&self) -> &PathAndQuery {
        &self.whole
    }

    /// What is unusual in it.
    pub fn oddities(&self) -> Oddities {
        self.oddities
    }

    /// The same target, judged in lower case, for a backend that does not tell cases apart. What is forwarded stays.
    #[must_use]
    pub fn fold_case(&self) -> Self {
        if !self.oddities.has(Oddities::UPPER_CASE) {
            return self.clone();
        }
        Self {
            whole: self.whole.clone(),
            judged: Judged::Own(lower_case(self.judged())),
            oddities: self.oddities,
        }
    }
}

/// Lower case for everything but the digits of escapes, which stay in their one form.
fn lower_case(text: &str) -> Box<str> {
    let mut digits = 0u8;
    text.chars()
        .map(|character| {
            if digits > 0 {
                digits -= 1;
                return character;
            }
            if character == '%' {
                digits = 2;
            }
            character.to_ascii_lowercase()
        })
        .collect::<String>()
        .into_boxed_str()
}

fn without_trailing_slash(path: &str) -> &str {
    match path.strip_suffix('/') {
        Some("") | None => path,
        Some(shorter) => shorter,
    }
}

/// What each byte of a path means to [`scan`]: the bits of [`Oddities`], and [`SLOW`] for all that needs rewriting.
const CLASS: [u8; 256] = classes();
const SLOW: u8 = 1 << 7;

const fn classes() -> [u8; 256] {
    let mut table = [SLOW; 256];
    let mut byte = 0u8;
    while byte < 0x80 {
        let class = match byte {
            b'A'..=b'Z' => Oddities::UPPER_CASE.bits(),
            b':' => Oddities::COLON.bits(),
            _ if unreserved(byte) || sub_delimiter(byte) || byte == b'/' => 0,
            _ => SLOW,
        };
        table[byte as usize] = class;
        byte += 1;
    }
    table
}

const fn unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')
}

/// The sub-delimiters of RFC 3986 §2.2 and `:`, `@`; `;` is left out since it starts path parameters.
const fn sub_delimiter(byte: u8) -> bool {
    matches!(
        byte,
        b'!' | b'$' | b'&' | b'\'' | b'(' | b')' | b'*' | b'+' | b',' | b'=' | b':' | b'@'
    )
}

/// One look at a path: its oddities if it is in normal form already, `None` if it has to be rewritten.
fn scan(path: &[u8]) -> Option<Oddities> {
    let mut seen = 0u8;
    let mut previous = 0u8;
    for &byte in path {
        let class = CLASS[usize::from(byte)];
        // A segment that starts with a dot may be `.` or `..`; an empty one has to go.
        if class & SLOW != 0 || (previous == b'/' && matches!(byte, b'/' | b'.')) {
            return None;
        }
        if previous == b'.' && byte == b'/' {
            seen |= Oddities::DOTTED.bits();
        }
        seen |= class;
        previous = byte;
    }
    if previous == b'.' {
        seen |= Oddities::DOTTED.bits();
    }
    Some(Oddities::from_bits(seen))
}

/// The long way, for whatever [`scan`] does not pass.
fn rewrite(source: &PathAndQuery) -> Result<Target, TargetError> {
    let decoded = decode(source.path().as_bytes())?;
    check_escapes(&decoded)?;
    let mut text = resolve(&decoded)?;
    let path_length = text.len();
    let oddities = look_at(&text)?;
    let own = judge(&text);
    if let Some(query) = source.query() {
        text.push('?');
        text.push_str(query);
    }
    let whole = if text == source.as_str() {
        source.clone()
    } else {
        PathAndQuery::from_maybe_shared(Bytes::from(text)).map_err(|_| TargetError::RawByte)?
    };
    let path = whole.path().get(..path_length).unwrap_or_default();
    let trimmed = without_trailing_slash(path);
    let judged = match own {
        Some(own) if own != trimmed => Judged::Own(own.into_boxed_str()),
        _ => Judged::Prefix(trimmed.len()),
    };
    Ok(Target {
        whole,
        judged,
        oddities,
    })
}

/// Decodes unreserved characters, puts other escapes in upper case and escapes what should not stand raw.
fn decode(path: &[u8]) -> Result<String, TargetError> {
    let mut out = String::with_capacity(path.len() + 8);
    let mut bytes = path.iter().copied();
    while let Some(byte) = bytes.next() {
        match byte {
            b'%' => {
                let value = hex_pair(bytes.next(), bytes.next()).ok_or(TargetError::BadEscape)?;
                match value {
                    0x00..=0x1f | 0x7f => return Err(TargetError::Control),
                    b'#' | b'?' => return Err(TargetError::EscapedDelimiter),
                    _ if unreserved(value) => out.push(char::from(value)),
                    _ => push_escape(&mut out, value),
                }
            }
            0x00..=0x20 | 0x7f.. => return Err(TargetError::RawByte),
            b'/' | b';' | b'\\' => out.push(char::from(byte)),
            _ if unreserved(byte) || sub_delimiter(byte) => out.push(char::from(byte)),
            _ => push_escape(&mut out, byte),
        }
    }
    Ok(out)
}

fn hex_pair(high: Option<u8>, low: Option<u8>) -> Option<u8> {
    let digit = |byte: u8| char::from(byte).to_digit(16);
    u8::try_from(digit(high?)? << 4 | digit(low?)?).ok()
}

fn push_escape(out: &mut String, byte: u8) {
    out.push('%');
    for digit in [byte >> 4, byte & 0x0f] {
        let digit = if digit < 10 {
            b'0' + digit
        } else {
            b'A' + digit - 10
        };
        out.push(char::from(digit));
    }
}

/// Refuses a second layer of escapes and paths that are not UTF-8.
///
/// It looks at the decoded text, since `%25%32%66` becomes `%252f` only there.
fn check_escapes(decoded: &str) -> Result<(), TargetError> {
    let mut rest = decoded;
    while let Some((_, after)) = rest.split_once("%25") {
        let mut following = after.bytes();
        if hex_pair(following.next(), following.next()).is_some() {
            return Err(TargetError::DoubleEscape);
        }
        rest = after;
    }
    percent_decode(decoded.as_bytes())
        .decode_utf8()
        .map(drop)
        .map_err(|_| TargetError::NotUtf8)
}

/// Merges empty segments and resolves dot segments (RFC 3986 §5.2.4).
fn resolve(path: &str) -> Result<String, TargetError> {
    let mut out = String::with_capacity(path.len() + 1);
    let mut trailing = false;
    for segment in path.split('/') {
        trailing = matches!(segment, "" | "." | "..");
        match segment {
            "" | "." => {}
            ".." => {
                let parent = out.rfind('/').ok_or(TargetError::AboveRoot)?;
                out.truncate(parent);
            }
            _ => {
                out.push('/');
                out.push_str(segment);
            }
        }
    }
    if trailing || out.is_empty() {
        out.push('/');
    }
    Ok(out)
}

/// Collects the oddities of a resolved path and refuses dot segments that hide behind other separators.
fn look_at(path: &str) -> Result<Oddities, TargetError> {
    let mut oddities = Oddities::NONE;
    for segment in path.split('/') {
        let mut start = 0;
        for (at, length, oddity) in separators(segment) {
            oddities.add(oddity);
            if segment.get(start..at).is_some_and(is_dots) {
                return Err(TargetError::HiddenDots);
            }
            start = at + length;
        }
        if start > 0 && segment.get(start..).is_some_and(is_dots) {
            return Err(TargetError::HiddenDots);
        }
        if segment.ends_with('.') || segment.ends_with("%20") {
            oddities.add(Oddities::DOTTED);
        }
        if segment.contains(':') || segment.contains("%3A") {
            oddities.add(Oddities::COLON);
        }
        if has_upper_case(segment) {
            oddities.add(Oddities::UPPER_CASE);
        }
    }
    Ok(oddities)
}

fn is_dots(piece: &str) -> bool {
    matches!(piece, "." | "..")
}

fn has_upper_case(segment: &str) -> bool {
    let mut bytes = segment.bytes();
    while let Some(byte) = bytes.next() {
        if byte == b'%' {
            bytes.next();
            bytes.next();
        } else if byte.is_ascii_uppercase() {
            return true;
        }
    }
    false
}

/// Whatever some backend reads as the end of a segment: where, how long, and what it is.
fn separators(segment: &str) -> impl Iterator<Item = (usize, usize, Oddities)> + '_ {
    let bytes = segment.as_bytes();
    bytes.iter().enumerate().filter_map(move |(at, byte)| {
        let (length, oddity) = match byte {
            b';' => (1, Oddities::PARAMETERS),
            b'\\' => (1, Oddities::BACKSLASH),
            b'%' => match bytes.get(at + 1..at + 3)? {
                b"3B" => (3, Oddities::PARAMETERS.with(Oddities::ENCODED_SEMICOLON)),
                b"5C" => (3, Oddities::BACKSLASH),
                b"2F" => (3, Oddities::ENCODED_SLASH),
                _ => return None,
            },
            _ => return None,
        };
        Some((at, length, oddity))
    })
}

/// The judged form of a resolved path where it may differ from it by more than a trailing slash.
fn judge(path: &str) -> Option<String> {
    if !path.contains(['%', ';', '\\']) {
        return None;
    }
    let mut out = String::with_capacity(path.len());
    let mut in_parameters = false;
    let mut rest = path;
    while let Some(character) = rest.chars().next() {
        let (length, byte) =
            escaped(rest).map_or((character.len_utf8(), None), |value| (3, Some(value)));
        match (character, byte) {
            ('/' | '\\', _) | (_, Some(b'\\')) => {
                in_parameters = false;
                if !out.ends_with('/') {
                    out.push('/');
                }
            }
            (';', _) | (_, Some(b';')) => in_parameters = true,
            _ if in_parameters => {}
            (_, Some(value)) if sub_delimiter(value) => out.push(char::from(value)),
            _ => out.push_str(rest.get(..length).unwrap_or_default()),
        }
        rest = rest.get(length..).unwrap_or_default();
    }
    if out.len() > 1 && out.ends_with('/') {
        out.pop();
    }
    Some(out)
}

/// The byte that an escape at the start of the text stands for.
fn escaped(text: &str) -> Option<u8> {
    let mut bytes = text.strip_prefix('%')?.bytes();
    hex_pair(bytes.next(), bytes.next())
}

#[cfg(test)]
mod tests {
    use http::uri::PathAndQuery;
    use proptest::prelude::*;

    use super::{Oddities, Profile, Target, TargetError};

    fn parse(text: &str) -> Result<Target, TargetError> {
        Target::parse(&text.parse::<PathAndQuery>().expect("http takes it"))
    }

    fn path(text: &str) -> String {
        parse(text).expect("a good path").path().to_owned()
    }

    fn judged(text: &str) -> String {
        parse(text).expect("a good path").judged().to_owned()
    }

    fn strict(text: &str) -> Result<String, TargetError> {
        let target = parse(text)?;
        Profile::Strict.accepts(target.oddities())?;
        Ok(target.judged().to_owned())
    }

    #[test]
    fn literal_paths_are_left_alone() {
        for text in [
            "/",
            "/a",
            "/a/b.c/d-e_f~g",
            "/@scope/x",
            "/a?b=%zz&c=/../d",
            "/.well-known/x",
            "/a/...b",
        ] {
            let target = parse(text).expect("a good path");
            assert_eq!(target.path_and_query().as_str(), text);
            assert_eq!(target.judged(), target.path());
        }
    }

    #[test]
    fn b29_every_spelling_is_judged_as_the_route_or_refused() {
        for text in [
            "/api/%61dmin",
            "/api//admin",
            "/api/./admin",
            "/api/x/../admin",
            "/api/admin/",
        ] {
            assert_eq!(strict(text).as_deref(), Ok("/api/admin"), "{text}");
        }
        for text in [
            "/api/admin;x",
            "/api/admin%23",
            "/api/admin%3Fx",
            "/api%2fadmin",
            "/api/admin%00",
            "/api\\admin",
            "/api%5Cadmin",
        ] {
            assert!(strict(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a09_dot_segments_are_resolved_before_anything_is_judged() {
        assert_eq!(path("/public/%2e%2e/admin"), "/admin");
        assert_eq!(path("/public/.%2E/admin"), "/admin");
        assert_eq!(path("/a/b/.."), "/a/");
        assert_eq!(path("/a/b/."), "/a/b/");
        assert_eq!(
            parse("/public/..%2fadmin").unwrap_err(),
            TargetError::HiddenDots
        );
        assert_eq!(
            parse("/public/..%5cadmin").unwrap_err(),
            TargetError::HiddenDots
        );
        assert_eq!(
            parse("/public%2f../admin").unwrap_err(),
            TargetError::HiddenDots
        );
        assert!(strict("/public%2fadmin").is_err());
        assert_eq!(parse("/a/../../b").unwrap_err(), TargetError::AboveRoot);
        assert_eq!(parse("/..").unwrap_err(), TargetError::AboveRoot);
    }

    #[test]
    fn a10_path_parameters_are_refused_or_stripped() {
        assert_eq!(
            parse("/public/..;/admin").unwrap_err(),
            TargetError::HiddenDots
        );
        assert_eq!(
            parse("/public/%2e%2e;a/admin").unwrap_err(),
            TargetError::HiddenDots
        );
        assert_eq!(
            parse("/public/..%3b/admin").unwrap_err(),
            TargetError::HiddenDots
        );
        for (text, wanted) in [
            ("/admin;x=y/users", "/admin/users"),
            ("/;/admin", "/admin"),
            ("/admin;", "/admin"),
            ("/admin/;a", "/admin"),
        ] {
            assert!(strict(text).is_err(), "{text}");
            let target = parse(text).expect("the servlet profile decides");
            assert_eq!(Profile::Servlet.accepts(target.oddities()), Ok(()));
            assert_eq!(target.judged(), wanted);
            assert_eq!(target.path(), text, "forwarded as it came");
        }
        let escaped = parse("/admin%3bx").expect("the profile decides");
        assert_eq!(escaped.judged(), "/admin");
        for profile in Profile::ALL {
            assert!(profile.accepts(escaped.oddities()).is_err());
        }
    }

    #[test]
    fn a11_spellings_of_one_path_are_judged_alike() {
        for text in ["//admin", "/./admin", "/admin/", "/%61dmin", "///admin//"] {
            assert_eq!(strict(text).as_deref(), Ok("/admin"), "{text}");
        }
        let shouted = parse("/ADMIN/%C3%89").expect("a good path");
        assert_eq!(shouted.judged(), "/ADMIN/%C3%89");
        assert!(shouted.oddities().has(Oddities::UPPER_CASE));
        assert_eq!(shouted.fold_case().judged(), "/admin/%C3%89");
        assert_eq!(shouted.fold_case().path(), "/ADMIN/%C3%89");
    }

    #[test]
    fn a12_nothing_is_decoded_twice() {
        for (text, wanted) in [
            ("/admin%00.png", TargetError::Control),
            ("/admin%7f", TargetError::Control),
            ("/a%0d%0ab", TargetError::Control),
            ("/%252e%252e/admin", TargetError::DoubleEscape),
            ("/%25%32%65/admin", TargetError::DoubleEscape),
            ("/adm%zz", TargetError::BadEscape),
            ("/adm%2", TargetError::BadEscape),
            ("/adm%", TargetError::BadEscape),
            ("/adm%u0041", TargetError::BadEscape),
            ("/adm\u{e9}", TargetError::RawByte),
            ("/a?\u{e9}", TargetError::RawByte),
            ("/adm%c0%af", TargetError::NotUtf8),
            ("/adm%ff", TargetError::NotUtf8),
        ] {
            assert_eq!(parse(text).unwrap_err(), wanted, "{text}");
        }
        assert!("/\u{80}".parse::<PathAndQuery>().is_err() || parse("/\u{80}").is_err());
        assert_eq!(path("/100%25"), "/100%25");
        assert_eq!(path("/100%25/x"), "/100%25/x");
    }

    #[test]
    fn escapes_take_one_form() {
        assert_eq!(path("/a%c3%a9%7e%20"), "/a%C3%A9~%20");
        assert_eq!(path("/a[0]|{b}\""), "/a%5B0%5D%7C%7Bb%7D%22");
        assert_eq!(judged("/%40scope%2Bx%3a"), "/@scope+x:");
        assert_eq!(path("/%40scope%2bx"), "/%40scope%2Bx");
    }

    #[test]
    fn queries_are_kept() {
        let target = parse("//a/../b?x=%61;/../..&y=%252e").expect("a good path");
        assert_eq!(target.path_and_query().as_str(), "/b?x=%61;/../..&y=%252e");
        assert_eq!(target.query(), Some("x=%61;/../..&y=%252e"));
        assert_eq!(parse("/a?").expect("a good path").query(), Some(""));
        assert!(parse("?a=b").is_err());
        assert_eq!(parse("*").unwrap_err(), TargetError::NotAbsolute);
    }

    #[test]
    fn windows_names_are_refused_for_windows_only() {
        for text in ["/admin.", "/admin./x", "/admin%20/x", "/admin::$DATA"] {
            let oddities = parse(text).expect("a good path").oddities();
            assert_eq!(Profile::Strict.accepts(oddities), Ok(()), "{text}");
            assert!(Profile::Iis.accepts(oddities).is_err(), "{text}");
        }
        let target = parse("/a\\b").expect("the profile decides");
        assert_eq!(target.judged(), "/a/b");
        assert_eq!(Profile::Iis.accepts(target.oddities()), Ok(()));
        assert!(Profile::Php.accepts(target.oddities()).is_err());
        assert_eq!(judged("/\\admin%5c"), "/admin");
    }

    fn pieces() -> impl Strategy<Value = String> {
        let piece = prop_oneof![
            Just("/".to_owned()),
            Just(".".to_owned()),
            Just("..".to_owned()),
            Just(";".to_owned()),
            Just("\\".to_owned()),
            Just("%25".to_owned()),
            Just("%2e".to_owned()),
            Just("%2F".to_owned()),
            Just("%c3%a9".to_owned()),
            Just("?".to_owned()),
            "[!-~]{1,3}",
            "%[0-9a-fA-F]{2}",
        ];
        prop::collection::vec(piece, 0..12).prop_map(|pieces| format!("/{}", pieces.concat()))
    }

    proptest! {
        #[test]
        fn normal_form_is_stable(text in pieces()) {
            let Ok(source) = text.parse::<PathAndQuery>() else { return Ok(()) };
            let Ok(target) = Target::parse(&source) else { return Ok(()) };
            let whole = target.path_and_query().as_str();
            let again = whole.parse::<PathAndQuery>().expect("it parses again");
            prop_assert_eq!(again.as_str(), whole);
            let second = Target::parse(&again).expect("a normal form is accepted");
            prop_assert_eq!(second.path_and_query().as_str(), whole);
            prop_assert_eq!(second.judged(), target.judged());
            prop_assert_eq!(second.oddities(), target.oddities());
        }

        #[test]
        fn judged_is_plain(text in pieces()) {
            let Ok(source) = text.parse::<PathAndQuery>() else { return Ok(()) };
            let Ok(target) = Target::parse(&source) else { return Ok(()) };
            for judged in [target.judged(), target.fold_case().judged()] {
                prop_assert!(judged.starts_with('/'));
                prop_assert!(judged == "/" || !judged.ends_with('/'));
                prop_assert!(!judged.contains("//") && !judged.contains(['\\', ';']));
                prop_assert!(!judged.split('/').any(|segment| matches!(segment, "." | "..")));
            }
            for forwarded in target.path().split('/') {
                prop_assert!(!matches!(forwarded, "." | ".."));
            }
        }
    }
}
