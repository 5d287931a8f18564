//! The verbs of the command line, a file each. The declaration below drives parser, help, completions and man page.

pub mod check;
pub mod completions;
pub mod demo;
pub mod enrol;
pub mod explain;
pub mod hash_key;
mod in_force;
pub mod healthcheck;
pub mod init;
pub mod man;
pub mod run;
pub mod schema;

use std::{
    io::Write,
    path::{Path, PathBuf},
    process::ExitCode,
};

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
    /// Show every guard: a weak application inside, the gate before it, tokens and curl lines to try
    Demo(demo::DemoArgs),
    /// Tell everything that is wrong with a file, and everything that it relaxes
    Check(check::CheckArgs),
    /// Tell, offline, what would happen to a request, stage by stage
    Explain(explain::ExplainArgs),
    /// Print a commented starting file
    Init(init::InitArgs),
    /// Make an API key, or hash one that exists, for the file
    HashKey(hash_key::HashKeyArgs),
    /// Give somebody an authenticator app as second factor at the gate
    Enrol(enrol::EnrolArgs),
    /// Print the JSON Schema of the file
    Schema,
    /// Ask the admin listener of a running gate whether it lives
    Healthcheck(healthcheck::HealthcheckArgs),
    /// Print completions for a shell
    Completions(completions::CompletionsArgs),
    /// Print the manual page
    Man,
}

/// Where the configuration is.
#[derive(Clone, Debug, Args)]
pub struct FileArgs {
    /// Configuration file [default: `$PORTCULLIS_CONFIG`, else `portcullis.toml`]
    #[arg(short, long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Override a key, such as `server.https=127.0.0.1:9443`; may be repeated
    #[arg(long, value_name = "KEY=VALUE")]
    pub set: Vec<String>,
}

impl FileArgs {
    /// The file: that of the command line, that of the environment, or the one in this folder.
    pub fn path(&self) -> PathBuf {
        named_file(self.config.as_deref()).unwrap_or_else(|| PathBuf::from("portcullis.toml"))
    }
}

/// The file of the command line, else that of `PORTCULLIS_CONFIG`.
fn named_file(given: Option<&Path>) -> Option<PathBuf> {
    let from_environment = || std::env::var_os("PORTCULLIS_CONFIG").filter(|name| !name.is_empty());
    given
        .map(Path::to_owned)
        .or_else(|| from_environment().map(PathBuf::from))
}

/// Runs the command line. 0 is fine, 1 a failure at run time, 2 bad usage or a bad file.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    match cli.verb {
        Verb::Run(args) => run::run(&args),
        Verb::Demo(args) => demo::run(&args),
        Verb::Check(args) => check::run(&args),
        Verb::Explain(args) => explain::run(&args),
        Verb::Init(args) => init::run(&args),
        Verb::HashKey(args) => hash_key::run(&args),
        Verb::Enrol(args) => enrol::run(&args),
        Verb::Schema => schema::run(),
        Verb::Healthcheck(args) => healthcheck::run(&args),
        Verb::Completions(args) => completions::run(&args),
        Verb::Man => man::run(),
    }
}

/// Exit code of a bad file or bad usage.
pub(crate) const BAD_FILE: u8 = 2;

/// Writes a verb's data. A reader that has seen enough (`| head`) is no failure.
pub(crate) fn print(data: &[u8]) -> ExitCode {
    let mut out = std::io::stdout().lock();
    match out.write_all(data).and_then(|()| out.flush()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: cannot write to standard output: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Says what was wrong with the usage.
pub(crate) fn misused(message: &str) -> ExitCode {
    eprintln!("error: {message}");
    ExitCode::from(BAD_FILE)
}
