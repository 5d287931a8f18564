//! `portcullis run`: the gate itself, from a file or, without one, before a single backend.

use std::process::ExitCode;

use clap::Args;

use super::{BAD_FILE, FileArgs};
use crate::{
    config::Color,
    server::{
        gate::{self, GateError, Ready},
        handover::Program,
        reload::Source,
    },
};

/// `run`
#[derive(Clone, Debug, Args)]
pub struct RunArgs {
    #[command(flatten)]
    file: FileArgs,
    /// No file: put the hardened preset before this backend, with a certificate for localhost made on the spot
    #[arg(long, value_name = "URL", conflicts_with = "config")]
    upstream: Option<String>,
}

/// Runs the gate until it is told to stop.
pub fn run(args: &RunArgs) -> ExitCode {
    let source = match &args.upstream {
        None => Source::File(args.file.path(), args.file.set.clone()),
        Some(upstream) => {
            eprintln!(
                "portcullis init --upstream {upstream} > portcullis.toml writes this as a file"
            );
            Source::Text(
                "built-in".to_owned(),
                preset(upstream),
                args.file.set.clone(),
            )
        }
    };
    end(gate::run(source, Program::own(), color(), Ready::announce))
}

/// What the gate's end means for the shell.
pub fn end(outcome: Result<(), GateError>) -> ExitCode {
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(GateError::Configuration(problems)) => {
            eprint!("{problems}");
            ExitCode::from(BAD_FILE)
        }
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Colour for a terminal, unless the user said no.
pub fn color() -> Color {
    use std::io::IsTerminal;
    let unwanted = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    if !unwanted && std::io::stderr().is_terminal() {
        Color::Always
    } else {
        Color::Never
    }
}

/// Public routes before one backend, everything else as hardened as it is by default.
fn preset(upstream: &str) -> String {
    let upstream = toml::Value::String(upstream.to_owned());
    format!(
        "[server]\nhttps = [\"127.0.0.1:8443\"]\n\n[tls]\nself_signed = [\"localhost\", \"127.0.0.1\"]\n\n\
         [upstreams.app]\nservers = [{upstream}]\n\n\
         [[blueprints]]\nname = \"app\"\nupstream = \"app\"\nauth = \"public\"\n"
    )
}
