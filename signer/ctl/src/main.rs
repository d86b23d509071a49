//! `countersign`: one command line for gateways, administrators, auditors and operators.
//!
//! It speaks gRPC to the daemon and signs documents with the person's own SSH key. It touches no
//! store and no HSM. What the daemon answers is checked, down from the pinned genesis, before it is
//! shown as true.
//!
//! - [`cli`]: the commands and their options. [`exit`]: exit codes and failures.
//! - [`ceremony`]: plan and genesis. [`sign`]: events in, receipts out. [`audit`]: everything that
//!   reads. [`generate`], [`manual`]: completions and man pages.
//! - [`profile`], [`remote`]: the daemon at the other end and the keys that are believed.
//! - [`output`], [`progress`], [`files`], [`state`]: tables and JSON, progress, durable writes, and
//!   what is remembered between runs.

mod audit;
mod ceremony;
mod cli;
mod exit;
mod files;
mod generate;
#[path = "../../verify/src/manual.rs"]
mod manual;
mod output;
mod profile;
mod progress;
mod remote;
mod sign;
mod state;

use std::process::ExitCode;

use clap::Parser as _;
use clap::error::ErrorKind;

use crate::cli::{Cli, Command};
use crate::exit::{Exit, Outcome, failed};
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
            if cli.json {
                eprintln!("{}", failure.json());
            } else {
                eprintln!("countersign: {}", output::plain_lines(&failure.to_string()));
            }
            failure.exit.into()
        }
    }
}

fn run(cli: &Cli) -> Outcome {
    let output = Output { json: cli.json };
    match &cli.command {
        Command::Ceremony { command } => ceremony::run(command, output),
        Command::Completions { shell } => generate::completions(*shell, output),
        Command::Man { folder } => generate::man(folder, output),
        remote => {
            let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
            let runtime = runtime.map_err(|error| failed(format!("cannot start: {error}")))?;
            runtime.block_on(call(remote, output))
        }
    }
}

/// The commands that talk to a daemon.
async fn call(command: &Command, output: Output) -> Outcome {
    match command {
        Command::Sign(args) => sign::run(args, output).await,
        Command::Trails(args) => audit::overview::trails(args, output).await,
        Command::Head(args) => audit::head::run(args, output).await,
        Command::Record(args) => audit::record::run(args, output).await,
        Command::Proof(args) => audit::proof::run(args, output).await,
        Command::Keys(args) => audit::keys::run(args, output).await,
        Command::Export(args) => audit::export::run(args, output).await,
        Command::Status(args) => audit::overview::status(args, output).await,
        Command::Ceremony { .. } | Command::Completions { .. } | Command::Man { .. } => Ok(()),
    }
}
