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
    if let Some(at) = problem.at {
        let hidden = lines(at, sources).any(|line| concealed.contains(&(at.file, line)));
        group = group.element(if hidden {
            origin(at, sources)
        } else {
            snippet(problem, at, sources)
        });
        if hidden && !label(problem).is_empty() {
            group = group.element(
                Level::NOTE
                    .with_name("key")
                    .message(normalize_untrusted_str(label(problem))),
            );
        }
    } else if !label(problem).is_empty() {
        group = group.element(
            Level::NOTE
                .with_name("key")
                .message(normalize_untrusted_str(label(problem))),
        );
    }
    if let Some(hint) = &problem.hint {
        group = group.element(
            Level::HELP
                .with_name("hint")
                .message(normalize_untrusted_str(hint)),
        );
    }
    group
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
    Origin::path(place.file)
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
    let (Some(lines), true) = (text.get(first..last), text.is_char_boundary(from)) else {
        return origin(at, sources);
    };
    let annotation: Annotation<'a> = AnnotationKind::Primary
        .span(from - first..to - first)
        .label(label(problem));
    Snippet::source(lines)
        .path(sources.name(at.file))
        .line_start(number)
        .annotation(annotation)
        .into()
}
