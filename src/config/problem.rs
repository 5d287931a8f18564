//! What is wrong with a file, collected so that the operator sees all of it at once.
//!
//! It does not print; see `render`.

use std::cell::RefCell;

use super::place::At;

/// How bad a problem is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// The file cannot be used.
    Error,
    /// The file works, but probably not as meant.
    Warning,
    /// The file asks for less protection than the preset gives.
    Relaxation,
}

/// What a message may show of the file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Show {
    /// The line with a caret.
    #[default]
    Source,
    /// File and line number only: the text may hold a secret.
    PlaceOnly,
}

/// One finding with its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// How bad it is.
    pub severity: Severity,
    /// Lower-case sentence without a full stop, bad value in backticks.
    pub message: String,
    /// Where, when it stands in a file at all.
    pub at: Option<At>,
    /// Words beside the caret; the key path when empty.
    pub label: String,
    /// Key path such as `blueprints[0].cors.origins`.
    pub key: String,
    /// What to write instead.
    pub hint: Option<String>,
    /// Whether the line may be shown.
    pub show: Show,
}

impl Problem {
    /// A problem without place, key or hint yet.
    pub fn new(severity: Severity, message: impl Into<String>) -> Self {
        Self {
            severity,
            message: message.into(),
            at: None,
            label: String::new(),
            key: String::new(),
            hint: None,
            show: Show::Source,
        }
    }

    /// Shorthand for [`Severity::Error`].
    pub fn error(message: impl Into<String>) -> Self {
        Self::new(Severity::Error, message)
    }

    /// Shorthand for [`Severity::Warning`].
    pub fn warning(message: impl Into<String>) -> Self {
        Self::new(Severity::Warning, message)
    }

    /// The same problem at a place.
    #[must_use]
    pub fn at(self, at: impl Into<Option<At>>) -> Self {
        Self {
            at: at.into(),
            ..self
        }
    }

    /// The same problem with its key path.
    #[must_use]
    pub fn key(self, key: impl Into<String>) -> Self {
        Self {
            key: key.into(),
            ..self
        }
    }

    /// The same problem with words beside the caret.
    #[must_use]
    pub fn label(self, label: impl Into<String>) -> Self {
        Self {
            label: label.into(),
            ..self
        }
    }

    /// The same problem with a hint.
    #[must_use]
    pub fn hint(self, hint: impl Into<String>) -> Self {
        Self {
            hint: Some(hint.into()),
            ..self
        }
    }
}

/// Collects problems through a shared reference, so that readers can report while they borrow the tree.
#[derive(Clone, Debug, Default)]
pub struct Problems {
    list: RefCell<Vec<Problem>>,
}

impl Problems {
    /// Nothing wrong yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Keeps one more.
    pub fn push(&self, problem: Problem) {
        self.list.borrow_mut().push(problem);
    }

    /// Takes over all problems of another collection.
    pub fn append(&self, other: Self) {
        self.list.borrow_mut().extend(other.list.into_inner());
    }

    /// Whether the file cannot be used.
    pub fn has_errors(&self) -> bool {
        self.list
            .borrow()
            .iter()
            .any(|problem| problem.severity == Severity::Error)
    }

    /// Whether there is nothing to tell at all.
    pub fn is_empty(&self) -> bool {
        self.list.borrow().is_empty()
    }

    /// Whether an error inside `at` is known already, so that it is not told twice.
    pub fn has_error_within(&self, at: At) -> bool {
        self.list.borrow().iter().any(|problem| {
            problem.severity == Severity::Error
                && problem.at.is_some_and(|inner| at.contains(inner))
        })
    }

    /// All problems as they came.
    pub fn into_list(self) -> Vec<Problem> {
        self.list.into_inner()
    }

    /// A sorted copy of what was collected so far.
    pub fn sorted(&self) -> Vec<Problem> {
        self.clone().into_sorted()
    }

    /// All problems by file and position, each once; those without a place come first.
    ///
    /// A value under `defaults` is read for every route, so the same finding may have been pushed many times.
    pub fn into_sorted(self) -> Vec<Problem> {
        let mut list = self.list.into_inner();
        list.sort_by(|a, b| {
            (a.at, a.severity, &a.message, &a.key).cmp(&(b.at, b.severity, &b.message, &b.key))
        });
        list.dedup_by(|a, b| {
            a.at.is_some() && (a.at, a.severity, &a.message) == (b.at, b.severity, &b.message)
        });
        list
    }
}

#[cfg(test)]
mod tests {
    use super::{Problem, Problems};
    use crate::config::{At, Sources};

    #[test]
    fn sorted_by_place_and_told_once() {
        let mut sources = Sources::new();
        let file = sources.add("a", "xxxxxxxx", "");
        let place = |start| At {
            file,
            start,
            end: start + 1,
        };
        let problems = Problems::new();
        problems.push(Problem::warning("late").at(place(5)));
        problems.push(Problem::error("early").at(place(1)));
        problems.push(Problem::error("early").at(place(1)));
        problems.push(Problem::error("no place"));
        assert!(
            problems.has_errors()
                && problems.has_error_within(place(1))
                && !problems.has_error_within(place(5))
        );
        let messages: Vec<_> = problems
            .into_sorted()
            .into_iter()
            .map(|problem| problem.message)
            .collect();
        assert_eq!(messages, ["no place", "early", "late"]);
    }
}
