//! The verbs of the command line, a file each. The declaration below drives parser, help, completions and man page.

pub mod run;

use std::{path::PathBuf, process::ExitCode};

use clap::{Args, Parser, Subcommand};

/// A security-hardening reverse proxy: TLS, headers, CORS, limits, tokens, roles and logs before any backend
#[derive(Debug, Parser)]
#[command(name = "portcullis", version, max_term_width = 100)]
pub struct Cli {
    /// What to do
    #[command(subcommand)]
    pub verb: Verb,
}

/// The verbs.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Run the gate
    Run(run::RunArgs),
}

/// Where the configuration is.
#[derive(Clone, Debug, Args)]
pub struct FileArgs {
    /// Configuration file
    #[arg(short, long, value_name = "FILE", default_value = "portcullis.toml")]
    pub config: PathBuf,
    /// Override a key, such as `server.https=127.0.0.1:9443`; may be repeated
    #[arg(long, value_name = "KEY=VALUE")]
    pub set: Vec<String>,
}

/// Runs the command line. 0 is fine, 1 a failure at run time, 2 bad usage or a bad file.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    match cli.verb {
        Verb::Run(args) => run::run(&args),
    }
}

/// Exit code of a bad file or bad usage.
pub(crate) const BAD_FILE: u8 = 2;
