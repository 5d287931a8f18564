//! `portcullis hash-key`: a fresh API key and the line that names it in the file, or the line for a key that exists.
//!
//! A key never comes as an argument: those are read by other programs of the machine and stay in histories.

use std::{io::Read, process::ExitCode};

use clap::Args;
use zeroize::Zeroizing;

use super::{misused, print};
use crate::identity::api_key::{Fingerprint, MAX_KEY_BYTES, check_key, fresh_key};

/// `hash-key`
#[derive(Clone, Debug, Args)]
pub struct HashKeyArgs {
    /// `-`: hash the key on standard input, in place of a fresh one
    #[arg(value_name = "-")]
    existing: Option<String>,
}

/// Prints. 0; 2: bad usage, or a key that is not fit.
pub fn run(args: &HashKeyArgs) -> ExitCode {
    match args.existing.as_deref() {
        None => {
            let key = fresh_key();
            let hash = Fingerprint::of(key.as_bytes());
            eprintln!(
                "note: the first line is the key, which is shown this once; the second is for `[api_keys.NAME]`"
            );
            let lines = Zeroizing::new(format!("{}\nhash = \"{hash}\"\n", *key));
            print(lines.as_bytes())
        }
        Some("-") => existing(),
        Some(_) => misused(
            "a key on the command line can be read by others\nhint: write `-` and give it on standard input",
        ),
    }
}

fn existing() -> ExitCode {
    // A line end after the longest key, and one byte that shows that there is more.
    let most = u64::try_from(MAX_KEY_BYTES + 3).unwrap_or(u64::MAX);
    let mut text = Zeroizing::new(Vec::with_capacity(MAX_KEY_BYTES + 3));
    if let Err(error) = std::io::stdin().lock().take(most).read_to_end(&mut text) {
        eprintln!("error: cannot read standard input: {error}");
        return ExitCode::FAILURE;
    }
    let key = text.strip_suffix(b"\n").unwrap_or(&text);
    let key = key.strip_suffix(b"\r").unwrap_or(key);
    if let Err(error) = check_key(key) {
        return misused(&format!(
            "{error}\nhint: `portcullis hash-key` without an argument makes a good one"
        ));
    }
    print(format!("hash = \"{}\"\n", Fingerprint::of(key)).as_bytes())
}
