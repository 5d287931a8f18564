//! From paths to one merged tree: the file, its includes, the overrides of the command line.
//!
//! Nothing is judged here but syntax and conflicts; see `validate`.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use super::include;
use super::overrides;
use super::place::{FileId, Sources};
use super::problem::{Problem, Problems};
use super::secret::because;
use super::value::{Table, parse, quoted};

/// Larger files are refused: places are 32-bit, and no honest file comes near.
const LARGEST: u64 = 16 << 20;

/// What was read. When `problems` has errors, `root` is incomplete and only good for showing them.
#[derive(Debug)]
pub struct Loaded {
    /// The merged tree.
    pub root: Table,
    /// The texts, for messages.
    pub sources: Sources,
    /// Every file that was read, the main one first, for the file watcher.
    pub files: Vec<PathBuf>,
    /// Folders in which a new file could match an `include`.
    pub folders: Vec<PathBuf>,
    /// Syntax errors, conflicts, files that are missing.
    pub problems: Problems,
}

/// Reads a file with its includes and sets `--set` overrides (`a.b.c=VALUE`) over it.
pub fn load(path: &Path, overrides: &[String]) -> Loaded {
    let mut loading = Loading::default();
    let root = loading.read(path);
    loading.finish(root, overrides)
}

/// Reads a text as if it were a file of that name in the current folder.
pub fn load_str(name: &str, text: &str, overrides: &[String]) -> Loaded {
    let mut loading = Loading::default();
    let file = loading.sources.add(name, text, "");
    let root = parse(file, &loading.sources, &loading.problems);
    loading.finish((file, root), overrides)
}

/// What has been gathered so far.
#[derive(Debug, Default)]
pub(crate) struct Loading {
    pub(crate) sources: Sources,
    pub(crate) files: Vec<PathBuf>,
    pub(crate) folders: Vec<PathBuf>,
    pub(crate) problems: Problems,
}

impl Loading {
    fn finish(mut self, (file, mut root): (FileId, Table), overrides: &[String]) -> Loaded {
        include::merge_includes(&mut self, &mut root, file);
        for text in overrides {
            overrides::apply(&mut self, &mut root, text);
        }
        let Self {
            sources,
            files,
            folders,
            problems,
        } = self;
        Loaded {
            root,
            sources,
            files,
            folders,
            problems,
        }
    }

    /// Reads and parses one file; a file that cannot be read is an empty table and a problem.
    pub(crate) fn read(&mut self, path: &Path) -> (FileId, Table) {
        self.files.push(path.to_owned());
        let folder = path.parent().unwrap_or(Path::new(""));
        let text = read_text(path).unwrap_or_else(|message| {
            self.problems.push(Problem::error(message));
            String::new()
        });
        let file = self.sources.add(path.to_string_lossy(), text, folder);
        (file, parse(file, &self.sources, &self.problems))
    }
}

fn read_text(path: &Path) -> Result<String, String> {
    let name = quoted(&path.to_string_lossy());
    let failed = |error: std::io::Error| format!("cannot read {name}: {}", because(&error));
    let file = File::open(path).map_err(failed)?;
    let mut bytes = Vec::new();
    file.take(LARGEST + 1)
        .read_to_end(&mut bytes)
        .map_err(failed)?;
    if u64::try_from(bytes.len()).unwrap_or(u64::MAX) > LARGEST {
        return Err(format!("{name} is larger than 16 MiB"));
    }
    String::from_utf8(bytes).map_err(|error| {
        let good = error.utf8_error().valid_up_to();
        let line = error
            .as_bytes()
            .iter()
            .take(good)
            .filter(|byte| **byte == b'\n')
            .count()
            + 1;
        format!("{name} is not UTF-8 text: bad byte in line {line}")
    })
}
