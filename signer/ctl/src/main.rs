//! `countersign`: one command line for gateways, administrators, auditors and operators.
//!
//! It speaks gRPC to the daemon and signs documents with the person's own SSH key. It touches no
//! store and no HSM. What the daemon answers is checked before it is shown as true.
//!
//! - [`cli`]: the commands and their options.
//! - [`ceremony`]: plan and genesis.
//! - [`exit`]: exit codes and failures; [`output`]: tables and JSON; [`files`]: durable writes.

mod ceremony;
mod cli;
mod exit;
mod files;
mod output;

use std::process::ExitCode;

use clap::Parser as _;
use clap::error::ErrorKind;

use crate::cli::{Cli, Command};
use crate::exit::{Exit, Outcome};
use crate::output::Output;

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let asked = matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion);
            let _ = error.print();
            return if asked { ExitCode::SUCCESS } else { Exit::Usage.into() };
        }
    };
    match run(&cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("countersign: {}", output::plain_lines(&failure.to_string()));
            failure.exit.into()
        }
    }
}

fn run(cli: &Cli) -> Outcome {
    let output = Output { json: cli.json };
    match &cli.command {
        Command::Ceremony { command } => ceremony::run(command, output),
    }
}
