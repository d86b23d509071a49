//! `countersignd`: the daemon, and what is done on its host while it is stopped.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::{Parser, Subcommand};
use countersign_trail::document::MAX_DOCUMENT_LEN;
use countersign_trail::id::MemberId;
use countersignd::config::Config;
use countersignd::genesis::init::{self, Way};
use countersignd::genesis::seal::{self, HandedIn};
use countersignd::store::files::FolderLock;
use countersignd::{logging, run};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Signs the decisions of AI gateways with keys that cannot leave an HSM.
///
/// Without a command, runs the daemon. Exit codes: 0 done, 1 refused or failed (the message says
/// what to do), 2 usage.
#[derive(Parser)]
#[command(name = "countersignd", version)]
struct Cli {
    /// The configuration file.
    #[arg(long, global = true, default_value = "/etc/countersign/countersignd.toml")]
    config: PathBuf,
    /// Check the configuration file and exit.
    #[arg(long)]
    check_config: bool,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// Make the keys that a reviewed plan asks for, and print the genesis document to be signed.
    Init {
        /// The plan, from `countersign ceremony plan`.
        #[arg(long)]
        plan: PathBuf,
        /// Where to write the genesis document.
        #[arg(long)]
        out: Option<PathBuf>,
        /// Go on with an init that was interrupted.
        #[arg(long, conflicts_with = "abandon")]
        resume: bool,
        /// Undo an init that is not sealed: its keys are destroyed.
        #[arg(long)]
        abandon: bool,
    },
    /// Open the appliance with every administrator's signature over the genesis document.
    Seal {
        /// The genesis document, from `init`.
        #[arg(long)]
        genesis: PathBuf,
        /// An administrator's signature, as MEMBER=FILE; once for each administrator.
        #[arg(long = "signature", value_name = "MEMBER=FILE", required = true)]
        signatures: Vec<String>,
    },
    /// Derive everything again from the store, with the daemon stopped, and say what is wrong: a line
    /// each, exit code 1 with any.
    Fsck {
        /// Check this backup in place of the store.
        #[arg(long, value_name = "FOLDER")]
        backup: Option<PathBuf>,
    },
    /// Copy the store, also while the daemon runs.
    Backup {
        /// A new folder for the copy.
        #[arg(long, value_name = "FOLDER")]
        to: PathBuf,
    },
    /// Allow a PIN to be tried again after it was refused. Put the right PIN in place first.
    PinClear {
        /// Whose PIN: `record` or `admin`.
        #[arg(long)]
        token: String,
    },
    /// Confirm, after a CLOCK_STEP, that the host's clock is right as it is now. The next start
    /// records it and goes on.
    ClockConfirm,
    /// Confirm, where the HSM worker's mark of the admin trail was lost, that this store is the newest
    /// copy there is: its end becomes the mark. Never moves a mark back.
    MarkConfirm,
    /// The worker process; the daemon starts it.
    #[command(hide = true)]
    HsmWorker,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    // Before any thread and any runtime: the worker is a process of its own.
    if matches!(cli.command, Some(Command::HsmWorker)) {
        return countersign_hsm::worker_main();
    }
    match act(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("countersignd: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn act(cli: Cli) -> anyhow::Result<()> {
    let (config, _) = Config::load(&cli.config)?;
    if cli.check_config {
        println!("{}: ok", cli.config.display());
        return Ok(());
    }
    logging::init(&config.log)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        match cli.command {
            None => Ok(run::run(&cli.config).await?),
            Some(Command::Init { plan, out, resume, abandon }) => {
                let plan = read(&plan)?;
                if abandon {
                    init::abandon(&config, &plan).await?.iter().for_each(|line| println!("{line}"));
                    return Ok(());
                }
                let way = if resume { Way::Resume } else { Way::Fresh };
                let genesis = init::init(&config, &plan, way).await?;
                write_out(out.as_deref(), &genesis)?;
                Ok(init::finish(&config)?)
            }
            Some(Command::Seal { genesis, signatures }) => {
                let handed_in = signatures.iter().map(|text| handed_in(text)).collect::<anyhow::Result<_>>()?;
                let fingerprint = seal::seal(&config, &read(&genesis)?, handed_in).await?;
                println!("{fingerprint}");
                Ok(())
            }
            Some(Command::Fsck { backup }) => check_store(&config, backup.as_deref()),
            Some(Command::Backup { to }) => {
                Ok(countersignd::backup::backup(&config, &cli.config, &to, &mut std::io::stdout().lock())?)
            }
            Some(Command::PinClear { token }) => countersignd::pin::clear(&config, &token),
            Some(Command::ClockConfirm) => {
                let _lock = FolderLock::take(&config.data_dir)?;
                Ok(run::clockwatch::confirm(&config.data_dir)?)
            }
            Some(Command::MarkConfirm) => {
                run::mark::confirm(&config).await?.iter().for_each(|line| println!("{line}"));
                Ok(())
            }
            Some(Command::HsmWorker) => Ok(()),
        }
    })
}

/// Checks the store, or a backup of it, against the configured genesis.
fn check_store(config: &Config, copy: Option<&std::path::Path>) -> anyhow::Result<()> {
    let genesis =
        config.genesis.context("the configuration has no `genesis`: set it to the fingerprint to check against")?;
    let (data, heads) = match copy {
        None => (config.data_dir.clone(), config.head_dir.clone()),
        Some(copy) => (copy.to_owned(), copy.join(countersignd::backup::HEADS)),
    };
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    let findings = countersignd::fsck::fsck(&data, &heads, genesis, &mut out)?;
    std::io::Write::flush(&mut out)?;
    anyhow::ensure!(findings == 0, "the store has {findings} findings");
    Ok(())
}

fn read(path: &std::path::Path) -> anyhow::Result<Vec<u8>> {
    let length = std::fs::metadata(path).with_context(|| path.display().to_string())?.len();
    anyhow::ensure!(length <= MAX_DOCUMENT_LEN as u64, "{}: longer than a document may be", path.display());
    std::fs::read(path).with_context(|| path.display().to_string())
}

fn write_out(out: Option<&std::path::Path>, bytes: &[u8]) -> anyhow::Result<()> {
    use std::io::Write;
    match out {
        Some(path) => std::fs::write(path, bytes).with_context(|| path.display().to_string()),
        None => Ok(std::io::stdout().write_all(bytes)?),
    }
}

fn handed_in(text: &str) -> anyhow::Result<HandedIn> {
    let (member, file) = text.split_once('=').context("a signature is given as MEMBER=FILE")?;
    Ok(HandedIn { member: MemberId::parse(member)?, armor: read(std::path::Path::new(file))? })
}
