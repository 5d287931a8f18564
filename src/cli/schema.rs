//! `portcullis schema`: the JSON Schema of the file, for completion and checks in editors.

use std::process::ExitCode;

use super::print;
use crate::{config::json_schema, snapshot::document};

/// Prints the schema.
pub fn run() -> ExitCode {
    print(format!("{:#}\n", json_schema(&document::ROOT)).as_bytes())
}
