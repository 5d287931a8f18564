//! What `tests/bench/compare` needs and no packaged tool gives: a lean origin, TLS loads whose handshakes are counted by
//! kind, idle connections that are held, a load at a fixed rate, and a signer of many tokens.
//!
//! ```text
//! bench-tools origin                          prints its port, then answers until it is ended
//! bench-tools sign alg=ES256 key=key.der      header.payload lines in, tokens out
//! bench-tools full     address=… seconds=…    a new connection and a full handshake for each request
//! bench-tools resume   …                      the same, each connection resumes the one before it
//! bench-tools bulk     …                      kept connections, large bodies
//! bench-tools idle     …                      opens connections with one request each, holds them until stdin ends
//! bench-tools paced    … rate=… [tls=no]      requests at their scheduled time, whether earlier ones are answered or not
//! ```
//!
//! Further words: `path=/items connections=16 field="Name: value"` (repeatable). Results are one line of JSON. Loads go to
//! loopback only and end by time.

mod arguments;
mod closed;
mod idle;
mod link;
mod origin;
mod paced;
mod sign;

use std::process::ExitCode;

fn main() -> ExitCode {
    let mut words = std::env::args().skip(1);
    let verb = words.next().unwrap_or_default();
    let run = || match verb.as_str() {
        "origin" => origin::serve(),
        "sign" => sign::sign_lines(&arguments::Arguments::read(words)?),
        "full" | "resume" | "bulk" => closed::load(
            closed::Kind::named(&verb),
            &arguments::Arguments::read(words)?,
        ),
        "idle" => idle::hold(&arguments::Arguments::read(words)?),
        "paced" => paced::load(&arguments::Arguments::read(words)?),
        other => Err(format!("unknown verb `{other}`").into()),
    };
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}
