//! `countersign-verify`: verifies evidence offline. See the library for what is checked.

mod cli;
mod manual;

use std::process::ExitCode;

fn main() -> ExitCode {
    ExitCode::from(cli::run())
}
