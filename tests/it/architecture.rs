//! Holds the shape of the house: the order of the rooms, file sizes, the one door to the backend.
//!
//! It reads the sources as text: comments and strings are blanked, everything from `#[cfg(test)]` on and every `tests.rs`
//! is left aside, and every path that starts at the crate root counts as an edge, in a `use` tree as well as inline.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The rooms: each may use those of the lines above. Rooms of one line never import one another.
const ROOMS: &[&[&str]] = &[
    &["wire"],
    &["crypto"],
    &["config"],
    &["observe"],
    &["exchange"],
    &["state"],
    &["identity"],
    &["policy", "html", "upstream", "portal"],
    &["snapshot"],
    &["pipeline"],
    &["server"],
    &["cli"],
];

/// The one file that may name `upstream::send`.
const DOOR: &str = "pipeline/forward.rs";

/// Code lines of a file, tests apart: more is reported.
const SOFT: usize = 350;

/// Code lines of a file, tests apart: more fails. A file of tests alone may have as many.
const HARD: usize = 500;

#[test]
fn rooms_use_only_what_stands_before_them() {
    let mut wrong = String::new();
    for source in sources() {
        let Some(room) = source.room() else { continue };
        let own =
            rank(room).unwrap_or_else(|| panic!("`{room}` has no place in the order of the rooms"));
        for path in source.paths() {
            let Some(target) = path.first() else { continue };
            let allowed = target == room
                || rank(target).is_none_or(|theirs| theirs < own)
                || source.is_exported_macro(target);
            if !allowed {
                let _ = writeln!(
                    wrong,
                    "src/{}: `{room}` may not use `{}`",
                    source.name,
                    path.join("::")
                );
            }
        }
    }
    assert!(
        wrong.is_empty(),
        "edges against the order of the rooms:\n{wrong}"
    );
}

#[test]
fn the_map_lists_the_rooms_in_their_order() {
    let source = sources()
        .into_iter()
        .find(|source| source.name == "lib.rs")
        .expect("src/lib.rs");
    let listed: Vec<&str> = source
        .code
        .lines()
        .filter_map(|line| line.trim().strip_prefix("pub mod ")?.strip_suffix(';'))
        .collect();
    let expected: Vec<&str> = ROOMS
        .iter()
        .copied()
        .flatten()
        .copied()
        .filter(|room| listed.contains(room))
        .collect();
    assert_eq!(
        listed, expected,
        "src/lib.rs lists the rooms in the order in which they may use one another"
    );
}

#[test]
fn only_the_forwarding_stage_names_the_door_to_the_backend() {
    let callers: BTreeSet<String> = sources()
        .into_iter()
        .filter(|source| !source.name.starts_with("upstream/") && source.names_the_door())
        .map(|source| source.name)
        .collect();
    assert_eq!(
        callers,
        BTreeSet::from([DOOR.to_owned()]),
        "`upstream::send` has one caller, which only takes what the pipeline admitted"
    );
}

#[test]
fn files_stay_short_enough_to_read() {
    let mut over = String::new();
    for source in sources() {
        let lines = source.code_lines().max(source.test_lines());
        if lines > HARD {
            let _ = writeln!(
                over,
                "src/{}: {lines} code lines, at most {HARD}",
                source.name
            );
        } else if lines > SOFT {
            eprintln!("src/{}: {lines} code lines, aim at {SOFT}", source.name);
        }
    }
    assert!(over.is_empty(), "files to split:\n{over}");
}

#[test]
fn every_file_opens_with_what_it_is() {
    let silent: Vec<String> = sources()
        .into_iter()
        .filter(|source| !source.text.starts_with("//! "))
        .map(|source| source.name)
        .collect();
    assert!(
        silent.is_empty(),
        "these begin without a `//!` head: {silent:?}"
    );
}

#[test]
fn nothing_is_unsafe_and_no_future_is_boxed_by_a_macro() {
    for source in sources() {
        for word in ["unsafe", "async_trait"] {
            assert!(!source.has_word(word), "src/{}: `{word}`", source.name);
        }
    }
    let manifest = read(&root().join("Cargo.toml"));
    assert!(
        manifest.contains("unsafe_code = \"forbid\""),
        "Cargo.toml forbids unsafe code"
    );
}

/// What `cargo deny` would say of `[bans]`, for machines that do not have it.
#[test]
fn no_denied_crate_is_built() {
    let rules = read(&root().join("deny.toml"));
    let denied: Vec<&str> = rules
        .lines()
        .filter_map(|line| line.trim().strip_prefix("{ crate = \"")?.split('"').next())
        .collect();
    assert!(denied.contains(&"openssl"), "deny.toml lists crates");
    let tree = Command::new(env!("CARGO"))
        .args([
            "tree",
            "--offline",
            "--locked",
            "--prefix=none",
            "--format={p}",
        ])
        .current_dir(root())
        .output()
        .expect("cargo");
    assert!(
        tree.status.success(),
        "{}",
        String::from_utf8_lossy(&tree.stderr)
    );
    let tree = String::from_utf8_lossy(&tree.stdout);
    for name in denied {
        assert!(
            tree.lines()
                .all(|line| line.split(' ').next() != Some(name)),
            "`{name}` is among the dependencies; deny.toml says why it may not be"
        );
    }
}

#[test]
fn files_are_named_after_what_they_hold() {
    const VAGUE: &[&str] = &[
        "util", "utils", "common", "helper", "helpers", "manager", "misc",
    ];
    for source in sources() {
        for part in source.name.trim_end_matches(".rs").split(['/', '_']) {
            assert!(
                !VAGUE.contains(&part),
                "src/{}: `{part}` says nothing",
                source.name
            );
        }
    }
}

#[test]
fn the_reader_sees_edges_in_trees_inline_and_through_super() {
    let source = Source::new(
        "policy/cors.rs",
        "//! Head with crate::cli in it.\nuse crate::{wire::{halt::Halt, path}, config};\n\
         fn f<'a>(x: &'a str) -> char { let _ = \"crate::server\"; let _ = ('\\n', '\\'', '\"', r#\"crate::cli\"#); crate::state::clock(); super::super::snapshot::x(); 'c' }\n\
         use super::rbac;\n#[cfg(test)]\nmod tests { use crate::cli; }\n",
    );
    let edges: BTreeSet<String> = source.paths().iter().map(|path| path.join("::")).collect();
    let expected = [
        "wire::halt::Halt",
        "wire::path",
        "config",
        "state::clock",
        "snapshot::x",
        "policy::rbac",
    ];
    assert_eq!(edges, expected.into_iter().map(str::to_owned).collect());
    assert_eq!(source.code_lines(), 3);
    let door = Source::new(
        "server/x.rs",
        "//! x\nuse crate::upstream::{self, send as s};\n",
    );
    assert!(door.names_the_door());
    let inline = Source::new(
        "server/x.rs",
        "//! x\nuse crate::upstream;\nfn f() { upstream::send(1) }\n",
    );
    assert!(inline.names_the_door());
    let glob = Source::new("server/x.rs", "//! x\nuse crate::upstream::*;\n");
    assert!(glob.names_the_door());
    let innocent = Source::new("server/x.rs", "//! x\nuse crate::upstream::Cluster;\n");
    assert!(!innocent.names_the_door());
}

/// One file of `src/`.
struct Source {
    /// Below `src/`, with slashes.
    name: String,
    text: String,
    /// The text up to the tests, with comments and the insides of strings blanked.
    code: String,
}

impl Source {
    fn new(name: &str, text: &str) -> Self {
        let blanked = if name.ends_with("/tests.rs") {
            String::new()
        } else {
            blank(text)
        };
        let code = match blanked.find("\n#[cfg(test)]\nmod ") {
            Some(end) => blanked[..end].to_owned(),
            None => blanked,
        };
        Self {
            name: name.to_owned(),
            text: text.to_owned(),
            code,
        }
    }

    /// The room that the file stands in; `lib.rs` and `main.rs` stand in none.
    fn room(&self) -> Option<&str> {
        self.name.split_once('/').map(|(room, _)| room)
    }

    fn code_lines(&self) -> usize {
        self.code
            .lines()
            .filter(|line| !line.trim().is_empty())
            .count()
    }

    /// Code lines of a file that holds nothing but tests; none in any other.
    fn test_lines(&self) -> usize {
        let is_code = |line: &&str| !line.is_empty() && !line.starts_with("//");
        let counted = self.text.lines().map(str::trim).filter(is_code).count();
        if self.name.ends_with("/tests.rs") || self.name.contains("/tests/") {
            counted
        } else {
            0
        }
    }

    fn has_word(&self, word: &str) -> bool {
        tokens(&self.code).iter().any(|token| token == word)
    }

    /// A `macro_rules!` with `#[macro_export]` lives at the crate root whatever its room is.
    fn is_exported_macro(&self, name: &str) -> bool {
        self.code.contains(&format!("macro_rules! {name}"))
    }

    /// Module path of the file: `policy/cors.rs` and `policy/cors/mod.rs` are `[policy, cors]`.
    fn module(&self) -> Vec<String> {
        self.name
            .trim_end_matches(".rs")
            .split('/')
            .filter(|part| !matches!(*part, "mod" | "lib" | "main"))
            .map(str::to_owned)
            .collect()
    }

    /// Every path that the file names, from the crate root.
    fn paths(&self) -> Vec<Vec<String>> {
        let tokens = tokens(&self.code);
        let mut found = Vec::new();
        let mut at = 0;
        while at < tokens.len() {
            let starts = matches!(tokens[at].as_str(), "crate" | "super")
                && (at == 0 || tokens[at - 1] != "::")
                && tokens.get(at + 1).is_some_and(|next| next == "::");
            if starts {
                let mut base = if tokens[at] == "crate" {
                    Vec::new()
                } else {
                    self.module()
                };
                if tokens[at] == "super" {
                    base.pop();
                }
                at += 2;
                while tokens.get(at).is_some_and(|token| token == "super") {
                    base.pop();
                    at += 2;
                }
                at = expand(&tokens, at, &base, &mut found);
            } else {
                at += 1;
            }
        }
        found
    }

    fn names_the_door(&self) -> bool {
        let by_path = self.paths().iter().any(|path| {
            path.first().is_some_and(|room| room == "upstream")
                && path
                    .get(1)
                    .is_some_and(|name| name == "send" || name == "*")
        });
        let tokens = tokens(&self.code);
        by_path
            || tokens
                .windows(3)
                .any(|three| three[0] == "upstream" && three[1] == "::" && three[2] == "send")
    }
}

/// Reads one use tree or inline path that continues at `at`; gives the place after it.
fn expand(
    tokens: &[String],
    mut at: usize,
    base: &[String],
    found: &mut Vec<Vec<String>>,
) -> usize {
    let mut path = base.to_vec();
    loop {
        match tokens.get(at).map(String::as_str) {
            Some("{") => {
                at += 1;
                while tokens.get(at).is_some_and(|token| token != "}") {
                    at = if tokens[at] == "," {
                        at + 1
                    } else {
                        expand(tokens, at, &path, found)
                    };
                }
                return at + 1;
            }
            Some("self") => {
                found.push(path);
                return skip_rename(tokens, at + 1);
            }
            Some(word) if word == "*" || is_word(word) => {
                path.push(word.to_owned());
                at += 1;
            }
            _ => {
                found.push(path);
                return at + 1;
            }
        }
        let goes_on = tokens.get(at).is_some_and(|token| token == "::")
            && tokens
                .get(at + 1)
                .is_some_and(|next| next == "{" || next == "*" || is_word(next));
        if !goes_on {
            found.push(path);
            return skip_rename(tokens, at);
        }
        at += 1;
    }
}

fn skip_rename(tokens: &[String], at: usize) -> usize {
    if tokens.get(at).is_some_and(|token| token == "as") {
        at + 2
    } else {
        at
    }
}

fn is_word(token: &str) -> bool {
    token.starts_with(|first: char| first.is_alphabetic() || first == '_')
}

/// Words, `::`, and every other sign by itself.
fn tokens(code: &str) -> Vec<String> {
    let mut tokens = Vec::new();
    let mut signs = code.chars().peekable();
    while let Some(sign) = signs.next() {
        if sign.is_alphanumeric() || sign == '_' {
            let mut word = String::from(sign);
            while let Some(next) = signs.next_if(|next| next.is_alphanumeric() || *next == '_') {
                word.push(next);
            }
            tokens.push(word);
        } else if sign == ':' && signs.next_if_eq(&':').is_some() {
            tokens.push("::".to_owned());
        } else if !sign.is_whitespace() {
            tokens.push(sign.to_string());
        }
    }
    tokens
}

/// The text with comments gone and strings empty; line breaks stay.
fn blank(text: &str) -> String {
    let signs: Vec<char> = text.chars().collect();
    let mut out = String::with_capacity(text.len());
    let mut at = 0;
    while at < signs.len() {
        let rest = &signs[at..];
        let length = match rest {
            ['/', '/', ..] => rest
                .iter()
                .position(|sign| *sign == '\n')
                .unwrap_or(rest.len()),
            ['/', '*', ..] => block_comment(rest),
            ['r', '"' | '#', ..] if !follows_word(&signs, at) => raw_string(rest),
            ['"', ..] => quoted(rest),
            ['\'', '\\', ..] => {
                4 + rest
                    .iter()
                    .skip(3)
                    .position(|sign| *sign == '\'')
                    .unwrap_or(0)
            }
            ['\'', _, '\'', ..] => 3,
            _ => 0,
        };
        if length == 0 {
            out.push(rest[0]);
            at += 1;
            continue;
        }
        let gone = &rest[..length.min(rest.len())];
        if matches!(rest[0], '"' | 'r' | '\'') {
            out.push_str("\"\"");
        }
        out.extend(gone.iter().filter(|sign| **sign == '\n'));
        at += gone.len();
    }
    out
}

/// Whether the sign before `at` belongs to a word; `b` and `c` before a raw string do not count.
fn follows_word(signs: &[char], at: usize) -> bool {
    at > 0
        && (signs[at - 1].is_alphanumeric() || signs[at - 1] == '_')
        && !matches!(signs[at - 1], 'b' | 'c')
}

fn block_comment(rest: &[char]) -> usize {
    let mut depth = 0_usize;
    let mut at = 0;
    while at + 1 < rest.len() {
        match (rest[at], rest[at + 1]) {
            ('/', '*') => depth += 1,
            ('*', '/') => depth -= 1,
            _ => {
                at += 1;
                continue;
            }
        }
        at += 2;
        if depth == 0 {
            return at;
        }
    }
    rest.len()
}

/// Length of `r"…"` or `r#"…"#`; 0 for a raw identifier.
fn raw_string(rest: &[char]) -> usize {
    let hashes = rest[1..].iter().take_while(|sign| **sign == '#').count();
    if rest.get(1 + hashes) != Some(&'"') {
        return 0;
    }
    let close: Vec<char> = std::iter::once('"')
        .chain(std::iter::repeat_n('#', hashes))
        .collect();
    let from = 2 + hashes;
    rest[from..]
        .windows(close.len())
        .position(|window| window == close)
        .map_or(rest.len(), |end| from + end + close.len())
}

fn quoted(rest: &[char]) -> usize {
    let mut at = 1;
    while at < rest.len() {
        match rest[at] {
            '\\' => at += 2,
            '"' => return at + 1,
            _ => at += 1,
        }
    }
    rest.len()
}

fn rank(room: &str) -> Option<usize> {
    ROOMS.iter().position(|rooms| rooms.contains(&room))
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn sources() -> Vec<Source> {
    let src = root().join("src");
    let mut files = Vec::new();
    collect(&src, &mut files);
    assert!(!files.is_empty(), "src/ holds Rust files");
    files.sort();
    files
        .iter()
        .map(|file| {
            let name = file
                .strip_prefix(&src)
                .expect("below src/")
                .to_string_lossy()
                .replace('\\', "/");
            Source::new(&name, &read(file))
        })
        .collect()
}

fn collect(directory: &Path, files: &mut Vec<PathBuf>) {
    let entries = std::fs::read_dir(directory)
        .unwrap_or_else(|error| panic!("{}: {error}", directory.display()));
    for entry in entries {
        let path = entry.expect("a readable directory entry").path();
        if path.is_dir() {
            collect(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
}
