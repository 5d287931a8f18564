//! Problems as text for a terminal: message, file, line, caret, `hint:`.
//!
//! A line that may hold a secret is named but not shown, whichever problem points at it.

use std::collections::HashSet;

use annotate_snippets::normalize_untrusted_str;
use annotate_snippets::{
    Annotation, AnnotationKind, Element, Group, Level, Origin, Renderer, Snippet,
};

use super::place::{At, FileId, Sources};
use super::problem::{Problem, Severity, Show};

/// Whether escape sequences may be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Color {
    /// Plain text: not a terminal, or `NO_COLOR` is set.
    Never,
    /// ANSI colours.
    Always,
}

/// All problems, in the order given, with a blank line between two.
pub fn render(problems: &[Problem], sources: &Sources, color: Color) -> String {
    let renderer = match color {
        Color::Never => Renderer::plain(),
        Color::Always => Renderer::styled(),
    };
    let concealed = concealed_lines(problems, sources);
    let mut text = String::new();
    for problem in problems {
        text.push_str(&renderer.render(&[group(problem, sources, &concealed)]));
        text.push_str("\n\n");
    }
    text
}

fn concealed_lines(problems: &[Problem], sources: &Sources) -> HashSet<(FileId, usize)> {
    let secret = problems
        .iter()
        .filter(|problem| problem.show == Show::PlaceOnly);
    secret
        .filter_map(|problem| problem.at)
        .flat_map(|at| lines(at, sources).map(move |line| (at.file, line)))
        .collect()
}

fn lines(at: At, sources: &Sources) -> std::ops::RangeInclusive<usize> {
    let last = at.end.saturating_sub(1).max(at.start);
    sources.line_start(at.file, at.start).0..=sources.line_start(at.file, last).0
}

fn group<'a>(
    problem: &'a Problem,
    sources: &'a Sources,
    concealed: &HashSet<(FileId, usize)>,
) -> Group<'a> {
    let level = match problem.severity {
        Severity::Error => Level::ERROR,
        Severity::Warning => Level::WARNING,
        Severity::Relaxation => Level::NOTE.with_name("relaxation"),
    };
    let title = level.primary_title(problem.message.as_str());
    let mut group = Group::with_title(title);
    let mut key_shown = false;
    if let Some(at) = problem.at {
        let hidden = lines(at, sources).any(|line| concealed.contains(&(at.file, line)));
        group = group.element(if hidden {
            origin(at, sources)
        } else {
            snippet(problem, at, sources)
        });
        key_shown = !hidden;
    }
    if !key_shown && !problem.key.is_empty() {
        group = group.element(note(Level::NOTE.with_name("key"), &problem.key));
    }
    if let Some(hint) = &problem.hint {
        group = group.element(note(Level::HELP.with_name("hint"), hint));
    }
    group
}

fn note<'a>(level: Level<'a>, text: &str) -> Element<'a> {
    level.message(normalize_untrusted_str(text)).into()
}

fn label(problem: &Problem) -> &str {
    if problem.label.is_empty() {
        &problem.key
    } else {
        &problem.label
    }
}

fn origin<'a>(at: At, sources: &Sources) -> Element<'a> {
    let place = sources.line_of(at);
    Origin::path(normalize_untrusted_str(&place.file))
        .line(place.line)
        .char_column(place.column)
        .into()
}

/// Only the lines of the place are handed over: the renderer would otherwise scan the whole file for each problem.
fn snippet<'a>(problem: &'a Problem, at: At, sources: &'a Sources) -> Element<'a> {
    let text = sources.text(at.file);
    let (number, start) = sources.line_start(at.file, at.start);
    let offset = |position: u32| {
        usize::try_from(position)
            .unwrap_or(usize::MAX)
            .min(text.len())
    };
    let (first, from, to) = (offset(start), offset(at.start), offset(at.end));
    let last = text
        .get(to..)
        .and_then(|rest| rest.find('\n'))
        .map_or(text.len(), |end| to + end);
    let whole = text.is_char_boundary(from) && text.is_char_boundary(to);
    let Some(lines) = text.get(first..last).filter(|_| whole) else {
        return origin(at, sources);
    };
    let lines = lines.strip_suffix('\r').unwrap_or(lines);
    let (from, to) = (from - first, (to - first).min(lines.len()));
    let annotation: Annotation<'a> = AnnotationKind::Primary
        .span(from.min(to)..to)
        .label(normalize_untrusted_str(label(problem)));
    Snippet::source(lines)
        .path(normalize_untrusted_str(sources.name(at.file)))
        .line_start(number)
        .annotation(annotation)
        .into()
}

#[cfg(test)]
mod tests {
    use super::{Color, render};
    use crate::config::{At, Problem, Sources};

    #[test]
    fn message_place_caret_and_hint() {
        let mut sources = Sources::new();
        let file = sources.add("gate.toml", "[server]\ndrian = \"30s\"\nß = \"ü\"\n", "");
        let at = |start, end| At { file, start, end };
        let problems = [
            Problem::error("the file has no blueprint").key("blueprints"),
            Problem::error("unknown key `drian`")
                .at(at(9, 14))
                .label("not a key of `server`")
                .hint("did you mean `drain`?"),
            Problem::warning("odd").at(at(29, 33)).key("server.ß"),
            Problem::new(
                crate::config::Severity::Relaxation,
                "this weakens transport",
            )
            .at(at(0, 8)),
            Problem::error("at the end").at(at(34, 34)),
            Problem::error("beyond the end").at(at(900, 905)),
        ];
        insta::assert_snapshot!(render(&problems, &sources, Color::Never), @r#"
        error: the file has no blueprint
         |
         = key: blueprints

        error: unknown key `drian`
         --> gate.toml:2:1
          |
        2 | drian = "30s"
          | ^^^^^ not a key of `server`
          |
          = hint: did you mean `drain`?

        warning: odd
         --> gate.toml:3:6
          |
        3 | ß = "ü"
          |      ^^ server.ß

        relaxation: this weakens transport
         --> gate.toml:1:1
          |
        1 | [server]
          | ^^^^^^^^

        error: at the end
         --> gate.toml:4:1
          |
        4 |
          | ^

        error: beyond the end
         --> gate.toml:4:1
          |
        4 |
          | ^
        "#);
        assert!(render(&problems, &sources, Color::Always).contains("\u{1b}["));
    }

    #[test]
    fn control_characters_do_not_reach_the_terminal() {
        let mut sources = Sources::new();
        let file = sources.add("a\u{1b}[2J.toml", "k = \"\u{1b}[31m\"\r\n", "");
        let problem = Problem::error("bad \u{1b}[31m")
            .at(At {
                file,
                start: 4,
                end: 11,
            })
            .key("k\u{1b}")
            .hint("\u{1b}[5m");
        let shown = render(&[problem], &sources, Color::Never);
        assert!(!shown.contains('\u{1b}'), "{shown:?}");
    }
}
