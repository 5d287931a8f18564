//! Path patterns as a tree of segments: `{name}` stands for one segment, `{*rest}` for whatever is left, if anything.
//!
//! `/admin/{*rest}` takes `/admin` too: paths are judged without their last slash, so `/admin/`, which is a path below
//! `/admin` to every backend, would otherwise be judged by a broader pattern than `/admin/x`. At each place a literal comes before `{name}`, and that before `{*rest}`; where the better choice leads nowhere
//! the next one is tried, so the most specific pattern that matches the whole path is found. That must not depend
//! on which other patterns there are: a path below a guarded prefix never falls through to a broader pattern.

use std::{
    borrow::Borrow,
    collections::HashMap,
    hash::{Hash, Hasher},
};

use foldhash::fast::RandomState;

/// Number of a route in its snapshot.
pub type RouteId = u32;

/// A tree of patterns. Small, so that a step down reads one line of the processor's cache.
#[derive(Debug, Default)]
pub struct Trie {
    here: Option<RouteId>,
    rest: Option<RouteId>,
    literals: Option<Box<Literals>>,
    one: Option<Box<Trie>>,
}

type Literals = HashMap<Word, Trie, RandomState>;

/// A literal segment; a short one stands where it is found, so that comparing it reads no other place.
#[derive(Debug)]
enum Word {
    Short { length: u8, bytes: [u8; SHORT] },
    Long(Box<[u8]>),
}

const SHORT: usize = 22;

impl Word {
    fn new(text: &str) -> Self {
        let mut bytes = [0; SHORT];
        match (bytes.get_mut(..text.len()), u8::try_from(text.len())) {
            (Some(room), Ok(length)) => {
                room.copy_from_slice(text.as_bytes());
                Self::Short { length, bytes }
            }
            _ => Self::Long(text.as_bytes().into()),
        }
    }
}

impl Borrow<[u8]> for Word {
    fn borrow(&self) -> &[u8] {
        match self {
            Self::Short { length, bytes } => bytes.get(..usize::from(*length)).unwrap_or_default(),
            Self::Long(bytes) => bytes,
        }
    }
}

impl PartialEq for Word {
    fn eq(&self, other: &Self) -> bool {
        let (ours, theirs): (&[u8], &[u8]) = (self.borrow(), other.borrow());
        ours == theirs
    }
}

impl Eq for Word {}

impl Hash for Word {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let bytes: &[u8] = self.borrow();
        bytes.hash(state);
    }
}

/// Why a pattern was not entered.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotEntered {
    /// The same pattern is there already, names of parameters apart.
    #[error("the pattern is there already")]
    Taken(RouteId),
    /// The pattern is not well-formed.
    #[error("{0}")]
    Malformed(&'static str),
}

enum Segment<'a> {
    Literal(&'a str),
    One,
    Rest,
}

impl Trie {
    /// Enters a pattern.
    ///
    /// # Errors
    /// The pattern is there already, or is not well-formed.
    pub fn insert(&mut self, pattern: &str, route: RouteId) -> Result<(), NotEntered> {
        let mut node = self;
        let mut segments = split(pattern).peekable();
        while let Some(text) = segments.next() {
            match read(text)? {
                Segment::Literal(text) => {
                    let literals = node.literals.get_or_insert_default();
                    node = literals.entry(Word::new(text)).or_default();
                }
                Segment::One => node = node.one.get_or_insert_default(),
                Segment::Rest if segments.peek().is_some() => {
                    return Err(NotEntered::Malformed("`{*rest}` must stand at the end"));
                }
                Segment::Rest => return occupy(&mut node.rest, route),
            }
        }
        occupy(&mut node.here, route)
    }

    /// The route of the most specific pattern that matches the whole path.
    pub fn find(&self, path: &str) -> Option<RouteId> {
        self.walk(path.strip_prefix('/').unwrap_or(path))
    }

    /// `left` has no leading slash; empty is the end.
    fn walk(&self, left: &str) -> Option<RouteId> {
        if left.is_empty() {
            return self.here.or(self.rest);
        }
        let (segment, below) = left.split_once('/').unwrap_or((left, ""));
        let literals = self.literals.as_ref();
        literals
            .and_then(|nodes| nodes.get(segment.as_bytes()))
            .and_then(|node| node.walk(below))
            .or_else(|| self.one.as_ref().and_then(|node| node.walk(below)))
            .or(self.rest)
    }
}

fn occupy(slot: &mut Option<RouteId>, route: RouteId) -> Result<(), NotEntered> {
    if let Some(by) = slot {
        Err(NotEntered::Taken(*by))
    } else {
        *slot = Some(route);
        Ok(())
    }
}

fn split(pattern: &str) -> impl Iterator<Item = &str> {
    pattern.split('/').filter(|segment| !segment.is_empty())
}

fn read(text: &str) -> Result<Segment<'_>, NotEntered> {
    let inner = text
        .strip_prefix('{')
        .and_then(|text| text.strip_suffix('}'));
    let is_name = |name: &str| {
        !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
    };
    match inner {
        Some(name) if is_name(name) => Ok(Segment::One),
        Some(name) if name.strip_prefix('*').is_some_and(is_name) => Ok(Segment::Rest),
        None if !text.contains(['{', '}']) => Ok(Segment::Literal(text)),
        _ => Err(NotEntered::Malformed(
            "a segment is a word, `{name}` or `{*rest}`",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trie(patterns: &[&str]) -> Trie {
        let mut trie = Trie::default();
        for (route, pattern) in (0..).zip(patterns) {
            trie.insert(pattern, route).expect("a pattern of its own");
        }
        trie
    }

    #[test]
    fn the_most_specific_pattern_wins_wherever_the_others_lead() {
        let trie = trie(&[
            "/{*rest}",
            "/users/{*rest}",
            "/users/{id}",
            "/users/{id}/files/{*rest}",
            "/users/me",
            "/",
        ]);
        for (path, route) in [
            ("/", 5),
            ("/x", 0),
            ("/x/y", 0),
            ("/users", 1),
            ("/users/me", 4),
            ("/users/7", 2),
            ("/users/7/files/a/b", 3),
            ("/users/7/files", 3),
            ("/users/7/other", 1),
            ("/users/me/files/a", 3),
            ("/users/me/x", 1),
        ] {
            assert_eq!(trie.find(path), Some(route), "{path}");
        }
    }

    #[test]
    fn a_place_with_its_word_is_within_a_line_of_the_cache() {
        assert!(size_of::<(Word, Trie)>() <= 56);
    }

    #[test]
    fn words_of_every_length_are_found() {
        let words: Vec<String> = (1..60).map(|length| "x".repeat(length)).collect();
        let patterns: Vec<String> = words.iter().map(|word| format!("/{word}/é")).collect();
        let trie = trie(&patterns.iter().map(String::as_str).collect::<Vec<_>>());
        for (route, pattern) in (0..).zip(&patterns) {
            assert_eq!(trie.find(pattern), Some(route), "{pattern}");
            assert_eq!(trie.find(&format!("{pattern}x")), None, "{pattern}x");
        }
    }

    #[test]
    fn names_of_parameters_do_not_make_a_pattern_another_one() {
        let mut trie = trie(&["/a/{x}"]);
        assert_eq!(trie.insert("/a/{y}", 7), Err(NotEntered::Taken(0)));
    }

    #[test]
    fn malformed_patterns_are_refused() {
        let mut trie = Trie::default();
        for bad in [
            "/{*rest}/x",
            "/{}",
            "/{*}",
            "/a{b}",
            "/{a}b",
            "/{a-b}",
            "/{a",
        ] {
            assert!(
                matches!(trie.insert(bad, 0), Err(NotEntered::Malformed(_))),
                "{bad}"
            );
        }
    }

    #[test]
    fn nothing_matches_what_no_pattern_covers() {
        let trie = trie(&["/a/{x}/b"]);
        for path in ["/", "/a", "/a/1", "/a/1/c", "/a/1/b/c"] {
            assert_eq!(trie.find(path), None, "{path}");
        }
    }
}
