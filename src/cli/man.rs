//! `portcullis man`: the manual page, from the declaration that the parser works by. A section a verb follows the first.

use std::process::ExitCode;

use clap::{Command, CommandFactory};
use clap_mangen::Man;

use super::{Cli, print};

/// Prints the page in roff.
pub fn run() -> ExitCode {
    let mut command = Cli::command();
    command.build();
    let mut page = Vec::new();
    if Man::new(command.clone()).render(&mut page).is_err() {
        return super::misused("the manual page cannot be made");
    }
    for verb in command
        .get_subcommands()
        .filter(|verb| verb.get_name() != "help")
    {
        if options_of(verb, &mut page).is_err() {
            return super::misused("the manual page cannot be made");
        }
    }
    print(&page)
}

/// What one verb takes, as a section of the page.
fn options_of(verb: &Command, page: &mut Vec<u8>) -> std::io::Result<()> {
    let section = format!(".SH \"{}\"\n", verb.get_name().to_uppercase());
    page.extend_from_slice(section.as_bytes());
    let man = Man::new(verb.clone());
    man.render_synopsis_section(page)?;
    man.render_description_section(page)?;
    man.render_options_section(page)
}
