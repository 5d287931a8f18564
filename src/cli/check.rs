//! `portcullis check`: everything that is wrong with a file at once, everything that it relaxes, and with `-v` every
//! value in force. It opens no connection and leaves a running gate alone.

use std::{fmt::Write, process::ExitCode};

use clap::Args;

use super::{BAD_FILE, FileArgs, in_force, print, run::color};
use crate::{
    config::{Loaded, Problem, Severity, load, render},
    snapshot::{Snapshot, compile::compile, survivors::Survivors},
};

/// `check`
#[derive(Clone, Debug, Args)]
pub struct CheckArgs {
    #[command(flatten)]
    file: FileArgs,
    /// Also print every limit and default in force, and what each route adds, sets and removes
    #[arg(short, long)]
    verbose: bool,
}

/// Checks. 0: no error, whatever else there is to say; 2: errors.
pub fn run(args: &CheckArgs) -> ExitCode {
    let path = args.file.path();
    let loaded = load(&path, &args.file.set);
    let compiled = compile(&loaded, &loaded.problems, &Survivors::new(1));
    let problems = loaded.problems.sorted();
    eprint!("{}", render(&problems, &loaded.sources, color()));
    let name = path.display().to_string();
    let Some(compiled) = compiled else {
        eprintln!("{name} is not good: {}", tally(&problems).join(", "));
        return ExitCode::from(BAD_FILE);
    };
    let mut data = verdict(&name, &loaded, &compiled.snapshot, &problems);
    if args.verbose {
        data.push('\n');
        in_force::write(&mut data, &loaded, &compiled.snapshot);
    }
    print(data.as_bytes())
}

/// `gate.toml is good: 2 blueprints, 14 routes, 1 upstream; 3 relaxations`
fn verdict(name: &str, loaded: &Loaded, snapshot: &Snapshot, problems: &[Problem]) -> String {
    let blueprints = loaded
        .root
        .get("blueprints")
        .and_then(|value| value.as_array())
        .map_or(0, <[_]>::len);
    let found = [
        count(blueprints, "blueprint"),
        count(snapshot.routes.len(), "route"),
        count(snapshot.clusters.len(), "upstream"),
    ];
    let mut line = format!("{name} is good: {}", found.join(", "));
    let tally = tally(problems);
    if !tally.is_empty() {
        let _ = write!(line, "; {}", tally.join(", "));
    }
    line.push('\n');
    line
}

fn tally(problems: &[Problem]) -> Vec<String> {
    let of = |severity| {
        problems
            .iter()
            .filter(|problem| problem.severity == severity)
            .count()
    };
    [
        (Severity::Error, "error"),
        (Severity::Warning, "warning"),
        (Severity::Relaxation, "relaxation"),
    ]
    .into_iter()
    .filter(|(severity, _)| of(*severity) > 0)
    .map(|(severity, word)| count(of(severity), word))
    .collect()
}

fn count(number: usize, word: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{number} {word}{plural}")
}
