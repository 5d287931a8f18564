//! Path patterns as a tree of segments: `{name}` stands for one segment, `{*rest}` for whatever is left, if anything.
//!
//! `/admin/{*rest}` takes `/admin` too: paths are judged without their last slash, so `/admin/`, which is a path below
//! `/admin` to every backend, would otherwise be judged by a broader pattern than `/admin/x`. At each place a literal comes before `{name}`, and that before `{*rest}`; where the better choice leads nowhere
//! the next one is tried, so the most specific pattern that matches the whole path is found. That must not depend
//! on which other patterns there are: a path below a guarded prefix never falls through to a broader pattern.

use std::collections::HashMap;

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

type Literals = HashMap<Box<str>, Trie, RandomState>;

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
                    node = literals.entry(text.into()).or_default();
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
            .and_then(|nodes| nodes.get(segment))
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
    fn a_place_is_half_a_line_of_the_cache() {
        assert!(size_of::<Trie>() <= 32);
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
