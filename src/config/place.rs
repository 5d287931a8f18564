//! Where in which file a key or value stands, and the texts of all files read, for messages with a caret.
//!
//! It does not read files; see `load`.

use std::fmt;
use std::path::{Path, PathBuf};

/// Names one text of a [`Sources`]; meaningless for another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FileId(u32);

/// A byte range in one file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct At {
    /// The file, or an override of the command line.
    pub file: FileId,
    /// First byte.
    pub start: u32,
    /// One past the last byte.
    pub end: u32,
}

impl At {
    /// The place of a byte range as the TOML parser gives it; saturates beyond 4 GiB, which loading refuses.
    pub fn new(file: FileId, range: &std::ops::Range<usize>) -> Self {
        Self {
            file,
            start: narrow(range.start),
            end: narrow(range.end.max(range.start)),
        }
    }

    /// Whether `other` lies inside this place.
    pub fn contains(self, other: Self) -> bool {
        self.file == other.file && self.start <= other.start && other.end <= self.end
    }
}

fn narrow(offset: usize) -> u32 {
    u32::try_from(offset).unwrap_or(u32::MAX)
}

/// A place in words: `gate.toml:12`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The file as the operator named it.
    pub file: String,
    /// From 1.
    pub line: usize,
    /// In characters, from 1.
    pub column: usize,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file, self.line)
    }
}

#[derive(Clone, Debug)]
struct Source {
    name: String,
    text: String,
    folder: PathBuf,
    line_starts: Vec<u32>,
}

/// The name, text and folder of every file that was read, found by [`FileId`].
#[derive(Clone, Debug, Default)]
pub struct Sources {
    files: Vec<Source>,
}

impl Sources {
    /// No files yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Keeps a text; `folder` is where its relative paths start.
    pub fn add(
        &mut self,
        name: impl Into<String>,
        text: impl Into<String>,
        folder: impl Into<PathBuf>,
    ) -> FileId {
        let text = text.into();
        let line_starts = std::iter::once(0)
            .chain(
                text.bytes()
                    .enumerate()
                    .filter(|(_, byte)| *byte == b'\n')
                    .map(|(at, _)| narrow(at + 1)),
            )
            .collect();
        self.files.push(Source {
            name: name.into(),
            text,
            folder: folder.into(),
            line_starts,
        });
        FileId(narrow(self.files.len() - 1))
    }

    fn source(&self, file: FileId) -> Option<&Source> {
        self.files.get(usize::try_from(file.0).ok()?)
    }

    /// The file's name as the operator gave it.
    pub fn name(&self, file: FileId) -> &str {
        self.source(file).map_or("", |source| &source.name)
    }

    /// The whole text of a file.
    pub fn text(&self, file: FileId) -> &str {
        self.source(file).map_or("", |source| &source.text)
    }

    /// The folder against which the file's relative paths are resolved.
    pub fn folder(&self, file: FileId) -> &Path {
        self.source(file)
            .map_or(Path::new(""), |source| &source.folder)
    }

    /// The text between the two ends of a place; empty when it does not fall on character borders.
    pub fn slice(&self, at: At) -> &str {
        range(at)
            .and_then(|range| self.text(at.file).get(range))
            .unwrap_or("")
    }

    /// File, line and column where the place begins.
    pub fn line_of(&self, at: At) -> Place {
        let (number, start) = self.line_start(at.file, at.start);
        let before = At {
            start,
            end: at.start,
            ..at
        };
        Place {
            file: self.name(at.file).to_owned(),
            line: number,
            column: self.slice(before).chars().count() + 1,
        }
    }

    /// Number (from 1) and first byte of the line that holds `offset`.
    pub(crate) fn line_start(&self, file: FileId, offset: u32) -> (usize, u32) {
        let Some(source) = self.source(file) else {
            return (1, 0);
        };
        let number = source
            .line_starts
            .partition_point(|start| *start <= offset)
            .max(1);
        (
            number,
            source.line_starts.get(number - 1).copied().unwrap_or(0),
        )
    }
}

pub(crate) fn range(at: At) -> Option<std::ops::Range<usize>> {
    Some(usize::try_from(at.start).ok()?..usize::try_from(at.end).ok()?)
}

#[cfg(test)]
mod tests {
    use super::{At, Sources};

    #[test]
    fn lines_and_columns_count_from_one_and_in_characters() {
        let mut sources = Sources::new();
        let file = sources.add("gate.toml", "a = 1\nßß = 2\n", "");
        let second = sources.line_of(At {
            file,
            start: 10,
            end: 11,
        });
        assert_eq!(
            (second.to_string().as_str(), second.column),
            ("gate.toml:2", 3)
        );
        let end = sources.line_of(At {
            file,
            start: 9999,
            end: 9999,
        });
        assert_eq!(end.line, 3);
        assert_eq!(
            sources.slice(At {
                file,
                start: 7,
                end: 8
            }),
            "",
            "inside a character"
        );
    }
}
