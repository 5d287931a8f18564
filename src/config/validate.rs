//! Holds a file against its declaration: unknown keys, wrong types and bad values, all at once.
//!
//! It looks at one value at a time; what needs two (credentials with `*`, a missing upstream) is found by whoever
//! compiles the section.

use std::time::Duration;

use super::address::{ListenAddr, ServerUrl};
use super::document::parse_value;
use super::network::{Cidr, OriginPattern};
use super::place::{At, Sources};
use super::problem::{Problem, Problems, Show};
use super::secret::{FilePath, SecretRef};
use super::section::{Kind, Section, walk_keys};
use super::units::Bytes;
use super::url::HttpsUrl;
use super::value::{Complaint, FromValue, Node, Table, Value, quoted, text_of};

/// Reports everything in `root` that `spec` does not declare or accept.
pub fn validate(root: &Table, spec: &'static Section, problems: &Problems) {
    section(root, spec, "", problems);
}

/// Reports every default of the declaration that its own key would refuse; for tests of the declaration.
pub fn validate_defaults(spec: &'static Section) -> Vec<Problem> {
    let problems = Problems::new();
    walk_keys(spec, &mut |path, key| {
        if key.default.is_empty() {
            return;
        }
        let mut sources = Sources::new();
        let file = sources.add(path, key.default, "");
        match parse_value(key.default, file, 0) {
            Ok(value) => check(&value, &key.kind, path, &problems),
            Err(message) => problems.push(Problem::error(message).key(path)),
        }
    });
    // Each default was a text of its own: their places say nothing side by side.
    problems
        .into_list()
        .into_iter()
        .map(|problem| problem.at(None))
        .collect()
}

/// `a.b`, with quotes where TOML needs them.
pub(crate) fn join(path: &str, key: &str) -> String {
    let bare = !key.is_empty()
        && key
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'));
    let dot = if path.is_empty() { "" } else { "." };
    if bare {
        format!("{path}{dot}{key}")
    } else {
        format!("{path}{dot}{key:?}")
    }
}

fn section(table: &Table, spec: &'static Section, path: &str, problems: &Problems) {
    for entry in &table.entries {
        let inner = join(path, &entry.key);
        match spec.key(&entry.key) {
            Some(key) => check(&entry.value, &key.kind, &inner, problems),
            None => problems.push(unknown_key(&entry.key, entry.key_at, spec, path)),
        }
    }
}

fn unknown_key(key: &str, at: At, spec: &'static Section, path: &str) -> Problem {
    let names = || spec.keys.iter().map(|key| key.name);
    let inside = if path.is_empty() {
        "not a key of the file".to_owned()
    } else {
        format!("not a key of `{path}`")
    };
    let problem = Problem::error(format!("unknown key {}", quoted(key)))
        .at(at)
        .label(inside)
        .key(join(path, key));
    let meant = nearest(key, names());
    let secret = meant
        .and_then(|name| spec.key(name))
        .is_some_and(|key| holds_secret(&key.kind, 0));
    // Where the file has hashes alone, any other key may be followed by what was hashed.
    let hashes = spec.keys.iter().any(|key| matches!(key.kind, Kind::Hash));
    let show = if secret || hashes || sounds_secret(key) {
        Show::PlaceOnly
    } else {
        Show::Source
    };
    let hint = match meant {
        Some(name) => format!("did you mean `{name}`?"),
        None => format!("known here: {}", names().collect::<Vec<_>>().join(", ")),
    };
    Problem {
        show,
        ..problem.hint(hint)
    }
}

/// A mistyped or misplaced key may be followed by what must not be shown.
fn sounds_secret(key: &str) -> bool {
    let key = key.to_ascii_lowercase();
    ["secret", "password", "passwd", "token", "private"]
        .iter()
        .any(|word| key.contains(word))
}

/// Whether the value of such a key may be a secret that was typed into the file.
fn holds_secret(kind: &Kind, depth: usize) -> bool {
    match kind {
        Kind::Secret | Kind::Hash => true,
        Kind::List(kind) | Kind::OneOrMany(kind) | Kind::Map(kind) => {
            depth < 8 && holds_secret(kind, depth + 1)
        }
        Kind::Either(kinds) => depth < 8 && kinds.iter().any(|kind| holds_secret(kind, depth + 1)),
        _ => false,
    }
}

/// "expected …, found …" that shows nothing where a secret may stand.
fn unexpected(value: &Value, kind: &Kind, what: &str) -> Complaint {
    if holds_secret(kind, 0) {
        return Complaint::new(format!("expected {what}, found {}", value.type_name())).concealed();
    }
    value.expected(what)
}

/// The known word that was probably meant, if one is near enough.
pub fn nearest<'a>(word: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    // The distance is quadratic in the length, and nobody means a short word by a very long one.
    if word.len() > 64 {
        return None;
    }
    let folded = word.to_ascii_lowercase().replace('-', "_");
    known
        .map(|name| {
            (
                strsim::damerau_levenshtein(&folded, &name.to_ascii_lowercase().replace('-', "_")),
                name,
            )
        })
        .filter(|(distance, name)| {
            *distance <= (name.len().max(word.len()) / 3).max(1) && *distance < name.len()
        })
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, name)| name)
}

fn check(value: &Value, kind: &'static Kind, path: &str, problems: &Problems) {
    match kind {
        Kind::Table(_) | Kind::Map(_) | Kind::NamedTables(_) => match &value.node {
            Node::Table(inner) => table(inner, kind, path, problems),
            _ => problems.push(unexpected(value, kind, "a table").into_problem(value.at, path)),
        },
        Kind::Tables(_) | Kind::List(_) => match &value.node {
            Node::Array(values) => elements(values, kind, path, problems),
            _ => problems.push(not_a_list(value, kind).into_problem(value.at, path)),
        },
        Kind::OneOrMany(one) => match &value.node {
            Node::Array(values) => elements(values, kind, path, problems),
            _ => check(value, one, path, problems),
        },
        Kind::Either(kinds) => either(value, kinds, path, problems),
        _ => {
            if let Err(complaint) = scalar(value, kind) {
                problems.push(complaint.into_problem(value.at, path));
            }
        }
    }
}

fn table(table: &Table, kind: &'static Kind, path: &str, problems: &Problems) {
    match kind {
        Kind::Table(spec) => section(table, spec, path, problems),
        Kind::NamedTables(spec) => named(table, spec, path, problems),
        Kind::Map(kind) => {
            for entry in &table.entries {
                check(&entry.value, kind, &join(path, &entry.key), problems);
            }
        }
        _ => {}
    }
}

fn elements(values: &[Value], kind: &'static Kind, path: &str, problems: &Problems) {
    for (index, value) in values.iter().enumerate() {
        let path = format!("{path}[{index}]");
        match (kind, &value.node) {
            (Kind::Tables(spec), Node::Table(table)) => section(table, spec, &path, problems),
            (Kind::Tables(_), _) => {
                problems.push(value.expected("a table").into_problem(value.at, &path));
            }
            (Kind::List(kind) | Kind::OneOrMany(kind), _) => check(value, kind, &path, problems),
            _ => {}
        }
    }
}

fn not_a_list(value: &Value, kind: &Kind) -> Complaint {
    let complaint = unexpected(value, kind, "a list");
    match (kind, &value.node) {
        (Kind::Tables(_), Node::Table(_)) => {
            complaint.hint("a table of a list is written with two brackets: `[[…]]`")
        }
        _ => complaint.hint("write it in brackets, `[…]`"),
    }
}

/// Names end up in metric labels, log lines and file names of state, so they are kept plain.
fn named(table: &Table, spec: &'static Section, path: &str, problems: &Problems) {
    for entry in &table.entries {
        let inner = join(path, &entry.key);
        let plain = (1..=64).contains(&entry.key.len())
            && entry
                .key
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'));
        if !plain {
            let complaint = Complaint::new(format!("{} cannot be a name", quoted(&entry.key)))
                .hint("1 to 64 letters, digits, `-`, `_` or `.`");
            problems.push(complaint.into_problem(entry.key_at, &inner));
        }
        match &entry.value.node {
            Node::Table(table) => section(table, spec, &inner, problems),
            _ => problems.push(no_table(&entry.value, spec).into_problem(entry.value.at, &inner)),
        }
    }
}

/// A value where a section should stand; it may be the very secret that a key of the section is for.
fn no_table(value: &Value, spec: &Section) -> Complaint {
    if spec.keys.iter().any(|key| holds_secret(&key.kind, 0)) {
        return Complaint::new(format!("expected a table, found {}", value.type_name()))
            .concealed();
    }
    value.expected("a table")
}

/// The first kind that takes the value; otherwise the words of the only kind of that shape, or what all would take.
fn either(value: &Value, kinds: &'static [Kind], path: &str, problems: &Problems) {
    let mut fitting = Vec::new();
    for kind in kinds.iter().filter(|kind| fits(value, kind)) {
        let attempt = Problems::new();
        check(value, kind, path, &attempt);
        if !attempt.has_errors() {
            return;
        }
        fitting.push(attempt);
    }
    if fitting.len() == 1 {
        for only in fitting {
            problems.append(only);
        }
        return;
    }
    let kind = Kind::Either(kinds);
    problems.push(unexpected(value, &kind, &kind.describe()).into_problem(value.at, path));
}

fn fits(value: &Value, kind: &'static Kind) -> bool {
    match kind {
        Kind::Either(kinds) => kinds.iter().any(|kind| fits(value, kind)),
        Kind::OneOrMany(kind) => matches!(value.node, Node::Array(_)) || fits(value, kind),
        Kind::Checked(_) => true,
        // A bare string is what people write for a secret first; the refusal explains the form.
        Kind::Secret => matches!(value.node, Node::Table(_) | Node::String(_)),
        Kind::Table(_) | Kind::Map(_) | Kind::NamedTables(_) => {
            matches!(value.node, Node::Table(_))
        }
        Kind::List(_) | Kind::Tables(_) => matches!(value.node, Node::Array(_)),
        Kind::Bool => matches!(value.node, Node::Bool(_)),
        Kind::Integer { .. } => matches!(value.node, Node::Integer(_)),
        Kind::Number => matches!(value.node, Node::Integer(_) | Node::Float(_)),
        _ => matches!(value.node, Node::String(_)),
    }
}

fn scalar(value: &Value, kind: &'static Kind) -> Result<(), Complaint> {
    match kind {
        Kind::Bool => accept::<bool>(value),
        Kind::Integer { min, max } => bounded(value, *min, *max),
        Kind::Number => accept::<f64>(value),
        Kind::String => accept::<String>(value),
        Kind::Hash => accept::<String>(value).map_err(Complaint::concealed),
        Kind::Duration => accept::<Duration>(value),
        Kind::Size => accept::<Bytes>(value),
        Kind::Network => accept::<Cidr>(value),
        Kind::Listen => accept::<ListenAddr>(value),
        Kind::Server => accept::<ServerUrl>(value),
        Kind::Url => accept::<HttpsUrl>(value),
        Kind::Origin => accept::<OriginPattern>(value),
        Kind::HeaderName => accept::<http::HeaderName>(value),
        Kind::HeaderValue => accept::<http::HeaderValue>(value),
        Kind::Method => accept::<http::Method>(value),
        Kind::Path => accept::<FilePath>(value),
        Kind::Secret => accept::<SecretRef>(value),
        Kind::Choice(words) => choice(value, words, kind),
        Kind::Checked(check) => check(value),
        Kind::List(_)
        | Kind::OneOrMany(_)
        | Kind::Table(_)
        | Kind::Map(_)
        | Kind::Tables(_)
        | Kind::NamedTables(_)
        | Kind::Either(_) => Ok(()),
    }
}

fn accept<T: FromValue>(value: &Value) -> Result<(), Complaint> {
    T::from_value(value).map(drop)
}

fn bounded(value: &Value, min: i64, max: i64) -> Result<(), Complaint> {
    let number = i64::from_value(value)?;
    if (min..=max).contains(&number) {
        return Ok(());
    }
    Err(Complaint::new(match (min, max) {
        (_, i64::MAX) => format!("`{number}` is less than {min}"),
        _ => format!("`{number}` is not between {min} and {max}"),
    }))
}

fn choice(value: &Value, words: &[&'static str], kind: &Kind) -> Result<(), Complaint> {
    let text = text_of(value, &kind.describe())?;
    if words.contains(&text) {
        return Ok(());
    }
    let complaint = value.expected(&kind.describe());
    Err(match nearest(text, words.iter().copied()) {
        Some(word) => complaint.hint(format!("did you mean `{word}`?")),
        None => complaint,
    })
}

#[cfg(test)]
mod tests {
    use super::{nearest, validate, validate_defaults};
    use crate::config::section::{Key, Kind, Section};
    use crate::config::{Color, Complaint, Value, json_schema, load_str, render, walk_keys};

    const fn key(name: &'static str, kind: Kind, default: &'static str) -> Key {
        Key {
            name,
            kind,
            doc: "For the test.",
            default,
        }
    }

    fn no_self(value: &Value) -> Result<(), Complaint> {
        let text = value.as_str().unwrap_or("");
        let Some(start) = text.find(" self") else {
            return Ok(());
        };
        Err(Complaint::new("unquoted keyword `self`")
            .hint("`'self'`")
            .at(value.inside(start + 1..start + 5)))
    }

    static CORS: Section = Section {
        name: "cors",
        doc: "Cross-origin requests.",
        keys: &[
            key("origins", Kind::List(&Kind::Origin), "[]"),
            key("max_age", Kind::Duration, "\"10m\""),
            key("credentials", Kind::Bool, "false"),
        ],
    };
    static AUTH: Section = Section {
        name: "auth",
        doc: "Who may come in.",
        keys: &[key(
            "require",
            Kind::List(&Kind::Choice(&["bearer", "mtls"])),
            "",
        )],
    };
    static UPSTREAM: Section = Section {
        name: "upstream",
        doc: "Servers.",
        keys: &[
            key("servers", Kind::OneOrMany(&Kind::Server), ""),
            key("weight", Kind::Integer { min: 1, max: 100 }, "1"),
        ],
    };
    static BLUEPRINT: Section = Section {
        name: "blueprint",
        doc: "An app.",
        keys: &[
            key("name", Kind::String, ""),
            key("cors", Kind::Table(&CORS), ""),
            key(
                "auth",
                Kind::Either(&[Kind::Choice(&["public"]), Kind::Table(&AUTH)]),
                "",
            ),
            key("csp", Kind::Checked(no_self), ""),
        ],
    };
    static ROOT: Section = Section {
        name: "",
        doc: "The file.",
        keys: &[
            key("blueprints", Kind::Tables(&BLUEPRINT), ""),
            key("upstreams", Kind::NamedTables(&UPSTREAM), ""),
            key("set", Kind::Map(&Kind::HeaderValue), "{}"),
            key("trusted", Kind::List(&Kind::Network), "[]"),
            key("secret", Kind::Secret, ""),
            key(
                "secrets",
                Kind::Either(&[Kind::Secret, Kind::List(&Kind::Secret)]),
                "",
            ),
            key("defaults", Kind::Table(&CORS), ""),
        ],
    };

    static BAD: Section = Section {
        name: "",
        doc: "",
        keys: &[key("a", Kind::Duration, "30"), key("b", Kind::Bool, "[")],
    };

    fn messages(text: &str) -> Vec<String> {
        let loaded = load_str("gate.toml", text, &[]);
        validate(&loaded.root, &ROOT, &loaded.problems);
        let describe = |problem: crate::config::Problem| {
            let place = problem.at.map(|at| loaded.sources.line_of(at));
            let (line, column) = place.map_or((0, 0), |place| (place.line, place.column));
            let hint = problem
                .hint
                .map(|hint| format!(" ({hint})"))
                .unwrap_or_default();
            format!("{line}:{column} {}: {}{hint}", problem.key, problem.message)
        };
        loaded
            .problems
            .into_sorted()
            .into_iter()
            .map(describe)
            .collect()
    }

    #[test]
    fn a_good_file_has_no_problems() {
        let text = "trusted = [\"10.0.0.0/8\"]\nset = { X-A = \"b\" }\nsecret = { env = \"A\" }\n\
            secrets = [{ env = \"A\" }]\n[[blueprints]]\nauth = \"public\"\n[[blueprints]]\n\
            auth = { require = [\"bearer\"] }\n[upstreams.a]\nservers = \"http://a\"\n";
        assert_eq!(messages(text), Vec::<String>::new());
    }

    #[test]
    fn everything_wrong_is_told_at_once_and_in_order() {
        let text = "trusted = [\"10.0.0.0/8\", \"10.1.0.0/8\"]\n\
            [[blueprints]]\n\
            nmae = \"api\"\n\
            auth = \"publik\"\n\
            csp = \"script-src self\"\n\
            [blueprints.cors]\n\
            orgins = []\n\
            max_age = 600\n\
            credentials = \"true\"\n\
            [upstreams.\"a b\"]\n\
            servers = [\"http://a\", \"a:80\"]\n\
            weight = 0\n";
        insta::assert_snapshot!(messages(text).join("\n"), @r#"
        1:26 trusted[1]: `10.1.0.0/8` has bits set behind its mask (`10.0.0.0/8`)
        3:1 blueprints[0].nmae: unknown key `nmae` (did you mean `name`?)
        4:8 blueprints[0].auth: expected `public`, found the string `publik` (did you mean `public`?)
        5:19 blueprints[0].csp: unquoted keyword `self` (`'self'`)
        7:1 blueprints[0].cors.orgins: unknown key `orgins` (did you mean `origins`?)
        8:11 blueprints[0].cors.max_age: expected a duration such as `30s`, found the integer `600` (with its unit: `"600s"`)
        9:15 blueprints[0].cors.credentials: expected `true` or `false`, found the string `true` (write it without quotes)
        10:12 upstreams."a b": `a b` cannot be a name (1 to 64 letters, digits, `-`, `_` or `.`)
        11:24 upstreams."a b".servers[1]: `a:80` is not a server address (with its scheme: `http://a:80`)
        12:10 upstreams."a b".weight: `0` is not between 1 and 100
        "#);
    }

    #[test]
    fn wrong_shapes() {
        let text = "trusted = \"10.0.0.0/8\"\nset = 1\nupstreams = []\n[blueprints]\nname = \"a\"\n[defaults]\nzzz = 1\n";
        insta::assert_snapshot!(messages(text).join("\n"), @r#"
        1:11 trusted: expected a list, found the string `10.0.0.0/8` (write it in brackets, `[…]`)
        2:7 set: expected a table, found the integer `1`
        3:13 upstreams: expected a table, found a list
        4:1 blueprints: expected a list, found a table (a table of a list is written with two brackets: `[[…]]`)
        7:1 defaults.zzz: unknown key `zzz` (known here: origins, max_age, credentials)
        "#);
        let either = "[[blueprints]]\nauth = true\n[[blueprints]]\nauth = { requier = [] }\n";
        insta::assert_snapshot!(messages(either).join("\n"), @r#"
        2:8 blueprints[0].auth: expected `public` or a table, found the boolean `true`
        4:10 blueprints[1].auth.requier: unknown key `requier` (did you mean `require`?)
        "#);
    }

    #[test]
    fn what_may_be_a_secret_is_never_shown() {
        for text in [
            "secret = \"hunter2\"",
            "secrt = \"hunter2\"",
            "secrets = \"hunter2\"",
            "secrets = [\"hunter2\"]",
            "secrets = [[\"hunter2\"]]",
            "secret = [\"hunter2\"]",
            "client_password = \"hunter2\"",
            "set = { a = 1 , b = 2 }\nsecret = { env = \"hunter 2\" }",
        ] {
            let loaded = load_str("gate.toml", text, &[]);
            validate(&loaded.root, &ROOT, &loaded.problems);
            assert!(loaded.problems.has_errors(), "{text}");
            let shown = render(
                &loaded.problems.into_sorted(),
                &loaded.sources,
                Color::Never,
            );
            assert!(!shown.contains("hunter"), "{shown}");
            assert!(shown.contains("gate.toml:"), "{shown}");
        }
    }

    #[test]
    fn near_words() {
        let known = ["max_age", "max_age_ms", "origins", "a"];
        let near = |word| nearest(word, known.into_iter());
        assert_eq!(near("orgins"), Some("origins"));
        assert_eq!(near("Max-Age"), Some("max_age"));
        assert_eq!(near("b"), None, "a word of one letter resembles nothing");
        assert_eq!(near("methods"), None);
        assert_eq!(near(&"origins".repeat(100_000)), None);
    }

    #[test]
    fn the_declaration_can_be_walked_and_has_good_defaults() {
        let mut paths = Vec::new();
        walk_keys(&ROOT, &mut |path, _| paths.push(path.to_owned()));
        assert!(paths.contains(&"blueprints[].cors.origins".to_owned()));
        assert!(paths.contains(&"upstreams.NAME.servers".to_owned()));
        assert!(paths.contains(&"blueprints[].auth.require".to_owned()));
        assert_eq!(validate_defaults(&ROOT), Vec::new());
        assert_eq!(validate_defaults(&BAD).len(), 2);
    }

    #[test]
    fn the_schema_names_each_section_once() {
        let schema = json_schema(&ROOT);
        assert_eq!(schema.pointer("/$ref"), Some(&"#/$defs/file".into()));
        assert_eq!(
            schema.pointer("/$defs/blueprint/properties/cors/$ref"),
            Some(&"#/$defs/cors".into())
        );
        assert_eq!(
            schema.pointer("/$defs/cors/properties/max_age/default"),
            Some(&"10m".into())
        );
        assert_eq!(
            schema.pointer("/$defs/cors/additionalProperties"),
            Some(&false.into())
        );
        assert_eq!(
            schema.pointer("/$defs/upstream/properties/weight/maximum"),
            Some(&100.into())
        );
    }
}
