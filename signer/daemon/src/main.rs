//! `countersignd`: the daemon, and what is done on its host while it is stopped.
//!
//! - [`cli`]: the commands and their options. [`host`]: what each does and says.
//! - [`generate`]: completions and man pages. [`output`]: text for people, or JSON.

mod cli;
mod generate;
mod host;
mod output;

use std::process::ExitCode;

use clap::Parser as _;
use countersignd::config::Config;
use countersignd::{logging, run};

use crate::cli::{Cli, Command};
use crate::output::{Output, with_causes};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let done = match &cli.command {
        Some(Command::Completions { shell }) => generate::completions(*shell),
        Some(Command::Man { folder }) => generate::man(folder, Output { json: cli.json }),
        command => {
            // Whoever reads the store, the second heads or a backup reads content: the daemon's user alone.
            rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
            // Before any thread and any runtime: the worker is a process of its own.
            if matches!(command, Some(Command::HsmWorker)) {
                return countersign_hsm::worker_main();
            }
            act(&cli)
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let said = with_causes(&error);
            if cli.json {
                eprintln!("{}", serde_json::json!({ "exit_code": 1, "error": said }));
            } else {
                eprintln!("countersignd: {said}");
            }
            ExitCode::FAILURE
        }
    }
}

fn act(cli: &Cli) -> anyhow::Result<()> {
    let (config, _) = Config::load(&cli.config)?;
    if cli.check_config {
        return host::check_config(&config, cli);
    }
    logging::init(&config.log)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        match &cli.command {
            None => Ok(run::run(&cli.config).await?),
            Some(command) => host::run(&config, cli, command).await,
        }
    })
}
