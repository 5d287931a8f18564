//! From paths to one merged tree: the file, its includes, the overrides of the command line.
//!
//! Nothing is judged here but syntax and conflicts; see `validate`.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use super::document::parse;
use super::include;
use super::overrides;
use super::place::{At, FileId, Sources};
use super::problem::{Problem, Problems};
use super::secret::because;
use super::value::{Table, quoted};

/// Larger files are refused: places are 32-bit, and no honest file comes near.
const LARGEST: u64 = 16 << 20;

/// For those who have no file yet.
const START: &str =
    "name one with `-c FILE`; `portcullis init --upstream URL` prints one to start from";

/// What was read. When `problems` has errors, `root` is incomplete and only good for showing them.
#[derive(Debug)]
pub struct Loaded {
    /// The merged tree.
    pub root: Table,
    /// False when the main file could not be read: what it lacks is then nobody's mistake.
    pub readable: bool,
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
    let (file, root) = loading.read(path, None);
    let readable = root.is_some();
    let mut loaded = loading.finish(
        (
            file,
            root.unwrap_or_else(|| Table::empty(At::new(file, &(0..0)))),
        ),
        overrides,
    );
    loaded.readable = readable;
    loaded
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
            readable: true,
            sources,
            files,
            folders,
            problems,
        }
    }

    /// Reads and parses one file; one that cannot be read is no table, and a problem where it was named.
    pub(crate) fn read(&mut self, path: &Path, named_at: Option<At>) -> (FileId, Option<Table>) {
        self.files.push(path.to_owned());
        let folder = path.parent().unwrap_or(Path::new(""));
        let read = read_text(path).map_err(|message| {
            let problem = Problem::error(message).at(named_at);
            self.problems.push(match named_at {
                Some(_) => problem,
                None => problem.hint(START),
            });
        });
        let readable = read.is_ok();
        let text = read.unwrap_or_default();
        let file = self.sources.add(path.to_string_lossy(), text, folder);
        let table = readable.then(|| parse(file, &self.sources, &self.problems));
        (file, table)
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

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::{Loaded, load, load_str};
    use crate::config::{Color, Reader, render};

    fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().expect("a folder");
        for (name, text) in files {
            let path = folder.path().join(name);
            std::fs::create_dir_all(path.parent().expect("inside")).expect("made");
            std::fs::write(path, text).expect("written");
        }
        folder
    }

    fn messages(loaded: Loaded, root: &Path) -> Vec<String> {
        let root = format!("{}/", root.display());
        loaded
            .problems
            .into_sorted()
            .iter()
            .map(|problem| {
                let place = problem
                    .at
                    .map(|at| loaded.sources.line_of(at).to_string())
                    .unwrap_or_default();
                format!("{place} {}", problem.message).replace(&root, "")
            })
            .collect()
    }

    #[test]
    fn includes_append_and_add_sorted_by_name() {
        let files = [
            (
                "gate.toml",
                "include = [\"b/*.toml\", \"b/2.toml\"]\n[[blueprints]]\nname = \"0\"\n[upstreams.a]\nx = 1\n",
            ),
            ("b/2.toml", "[[blueprints]]\nname = \"2\"\ncert = \"c\"\n"),
            (
                "b/1.toml",
                "[[blueprints]]\nname = \"1\"\n[upstreams.b]\nx = 1\n[upstreams.a]\ny = 2\n",
            ),
            ("b/.hidden.toml", "[[blueprints]]\nname = \"hidden\"\n"),
            ("b/notes.txt", "not toml"),
        ];
        let folder = folder(&files);
        let loaded = load(&folder.path().join("gate.toml"), &[]);
        assert!(loaded.problems.is_empty(), "{:?}", loaded.problems);
        let root = Reader::new(&loaded.root, &loaded.problems, &loaded.sources, "");
        let blueprints = root.tables("blueprints");
        let names: Vec<_> = blueprints
            .iter()
            .filter_map(|reader| reader.get::<String>("name"))
            .collect();
        assert_eq!(names, ["0", "1", "2"]);
        assert_eq!(
            blueprints.last().and_then(|reader| reader.path("cert")),
            Some(folder.path().join("b/c"))
        );
        assert_eq!(root.named("upstreams").len(), 2);
        assert_eq!(
            root.section("upstreams").section("a").get::<u16>("y"),
            Some(2)
        );
        assert_eq!(loaded.files.len(), 3);
        assert_eq!(loaded.folders, [folder.path().join("b")]);
    }

    #[test]
    fn conflicts_nesting_and_missing_files_are_told_together() {
        let folder = folder(&[
            (
                "gate.toml",
                "include = [\"a.toml\", \"no.toml\", \"x*.toml\", \"*/y.toml\"]\n[server]\nworkers = 1\nnets = [\"a\"]\n",
            ),
            (
                "a.toml",
                "include = \"b.toml\"\n[server]\nworkers = 1\nnets = [\"b\"]\n[server.limits]\n",
            ),
            ("b.toml", "broken"),
        ]);
        let loaded = load(&folder.path().join("gate.toml"), &[]);
        insta::assert_snapshot!(messages(loaded, folder.path()).join("\n"), @r#"
        gate.toml:1 there is no file `no.toml`
        gate.toml:1 `x*.toml` matches no file
        gate.toml:1 `*/y.toml` has `*` in a folder name
        a.toml:1 an included file cannot include others
        a.toml:3 `server.workers` is set in two files, here and in gate.toml:3
        a.toml:4 `server.nets` is set in two files, here and in gate.toml:4
        "#);
    }

    #[test]
    fn the_main_file_may_be_matched_by_its_own_include() {
        let folder = folder(&[
            ("gate.toml", "include = \"*.toml\"\nx = 1\n"),
            ("z.toml", "y = 1\n"),
        ]);
        let loaded = load(&folder.path().join("gate.toml"), &[]);
        assert!(loaded.problems.is_empty(), "{:?}", loaded.problems);
        assert_eq!(loaded.files.len(), 2);
    }

    #[test]
    fn files_that_cannot_be_read() {
        let folder = folder(&[]);
        let path = folder.path().join("no.toml");
        assert_eq!(
            messages(load(&path, &[]), folder.path()),
            [" cannot read `no.toml`: no such file or directory"]
        );
        std::fs::write(&path, b"a = 1\nb = \"\xff\"\n").expect("written");
        assert_eq!(
            messages(load(&path, &[]), folder.path()),
            [" `no.toml` is not UTF-8 text: bad byte in line 2"]
        );
        std::fs::write(&path, vec![b'#'; (16 << 20) + 1]).expect("written");
        assert_eq!(
            messages(load(&path, &[]), folder.path()),
            [" `no.toml` is larger than 16 MiB"]
        );
    }

    #[test]
    fn several_syntax_errors_have_places() {
        let loaded = load_str("t.toml", "a =\nb = 1\nb = 2\n[c\nd = 01\n", &[]);
        let shown = render(
            &loaded.problems.into_sorted(),
            &loaded.sources,
            Color::Never,
        );
        insta::assert_snapshot!(shown, @r#"
        error: string values must be quoted, expected literal string
         --> t.toml:1:4
          |
        1 | a =
          |    ^ not TOML from here

        error: duplicate key
         --> t.toml:3:1
          |
        3 | b = 2
          | ^

        error: unclosed table, expected `]`
         --> t.toml:4:3
          |
        4 | [c
          |   ^ not TOML from here
        "#);
    }

    #[test]
    fn depth_is_bounded() {
        for text in [
            "[".repeat(100_000),
            format!("a = {}", "[".repeat(100_000)),
            vec!["a"; 100_000].join(".") + " = 1",
            "a = {b = ".repeat(50_000),
        ] {
            let loaded = load_str(
                "t.toml",
                &text,
                &[format!("{}=1", vec!["a"; 100_000].join("."))],
            );
            assert!(loaded.problems.has_errors());
        }
    }

    #[test]
    fn overrides_set_any_key() {
        let text = "[server]\nhttps = [\"[::]:8443\"]\n[[blueprints]]\nname = \"a\"\n";
        let set = |overrides: &[&str]| {
            let overrides: Vec<String> = overrides.iter().map(ToString::to_string).collect();
            load_str("t.toml", text, &overrides)
        };
        let loaded = set(&[
            "server.https=127.0.0.1:9443",
            "server.limits.header_count = 7",
            "blueprints.0.name='b=c'",
            "upstreams.\"x=y\".servers=[\"http://a\"]",
            "log.level=info",
            "empty=",
        ]);
        assert!(!loaded.problems.has_errors(), "{:?}", loaded.problems);
        let root = Reader::new(&loaded.root, &loaded.problems, &loaded.sources, "");
        let server = root.section("server");
        assert_eq!(
            server.get::<String>("https").as_deref(),
            Some("127.0.0.1:9443")
        );
        assert_eq!(server.section("limits").get::<u16>("header_count"), Some(7));
        assert_eq!(
            root.tables("blueprints")
                .first()
                .and_then(|reader| reader.get::<String>("name"))
                .as_deref(),
            Some("b=c")
        );
        assert_eq!(
            root.named("upstreams").first().map(|(name, ..)| *name),
            Some("x=y")
        );
        assert_eq!(root.get::<String>("empty").as_deref(), Some(""));
        let at = server.at("https").expect("set");
        assert_eq!(
            (
                loaded.sources.line_of(at).to_string().as_str(),
                loaded.sources.slice(at)
            ),
            ("--set:1", "127.0.0.1:9443")
        );
    }

    #[test]
    fn overrides_that_cannot_be_set() {
        for bad in [
            "",
            "server.https",
            "=1",
            "a b=1",
            "a..b=1",
            "blueprints.1.name=x",
            "blueprints.name=x",
            "a\n=1",
            "[a]\nb=1",
            "\"a=1",
        ] {
            let loaded = load_str(
                "t.toml",
                "[[blueprints]]\nname = \"a\"\n",
                &[bad.to_owned()],
            );
            assert!(loaded.problems.has_errors(), "{bad:?}");
            render(
                &loaded.problems.into_sorted(),
                &loaded.sources,
                Color::Never,
            );
        }
    }
}
