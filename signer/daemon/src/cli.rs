//! The commands and their options. Help texts are the reference.

use std::path::PathBuf;

use clap::{Parser, Subcommand};
use countersign_trail::id::MemberId;

const ABOUT: &str = "\
Examples:
  countersignd --config /etc/countersign/countersignd.toml --check-config
  countersignd --config /etc/countersign/countersignd.toml
";
const EXIT_CODES: &str = "Exit codes: 0 done, 1 refused or failed (the message says what to do), 2 wrong usage.";

const INIT_HELP: &str = "\
Examples:
  countersignd init --plan plan.json --out genesis.json
  countersignd init --plan plan.json --resume --out genesis.json
  countersignd init --plan plan.json --abandon
";
const SEAL_HELP: &str = "\
Examples:
  countersignd seal --genesis genesis.json --signature alice=alice.sig --signature bob=bob.sig \\
    --signature carol=carol.sig --signature dave=dave.sig
";
const FSCK_HELP: &str = "\
With --json: {\"findings\": [{\"place\", \"text\"}], \"notes\": [{\"place\", \"text\"}], \"count\"}; `count` is of all
findings, of which at most 10,000 are listed.

Examples:
  countersignd fsck
  countersignd fsck --backup /backup/2026-01-31
";
const BACKUP_HELP: &str = "\
Examples:
  countersignd backup --to /backup/2026-01-31
";
const PIN_CLEAR_HELP: &str = "\
Examples:
  countersignd pin-clear --token record
";
const CLOCK_CONFIRM_HELP: &str = "\
Examples:
  countersignd clock-confirm
";
const MARK_CONFIRM_HELP: &str = "\
Examples:
  countersignd mark-confirm
";
const COMPLETIONS_HELP: &str = "\
Examples:
  countersignd completions bash > /etc/bash_completion.d/countersignd
";
const MAN_HELP: &str = "\
Examples:
  countersignd man /usr/local/share/man/man1
";

/// A help text with the exit codes below it.
fn with_codes(text: &str) -> String {
    format!("{text}\n{EXIT_CODES}")
}

/// Signs the decisions of AI gateways with keys that cannot leave an HSM.
///
/// Without a command, runs the daemon.
#[derive(Debug, Parser)]
#[command(name = "countersignd", version, after_help = with_codes(ABOUT))]
pub(crate) struct Cli {
    /// The configuration file.
    #[arg(long, global = true, default_value = "/etc/countersign/countersignd.toml")]
    pub(crate) config: PathBuf,
    /// Print JSON instead of text for people; a failure is JSON on standard error.
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// Check the configuration file and what it names, with every problem, and exit. No PIN is opened, and
    /// no token asked.
    #[arg(long)]
    pub(crate) check_config: bool,
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Make the keys that a reviewed plan asks for, and hand out the genesis document to be signed.
    #[command(after_help = with_codes(INIT_HELP))]
    Init(InitArgs),
    /// Open the appliance with every administrator's signature over the genesis document.
    #[command(after_help = with_codes(SEAL_HELP))]
    Seal {
        /// The genesis document, from `init`.
        #[arg(long)]
        genesis: PathBuf,
        /// An administrator's signature, as MEMBER=FILE; once for each administrator.
        #[arg(long = "signature", value_name = "MEMBER=FILE", required = true, value_parser = signature)]
        signatures: Vec<(MemberId, PathBuf)>,
    },
    /// Derive everything again from the store, with the daemon stopped, and say what is wrong: a line
    /// each, exit code 1 with any.
    #[command(after_help = with_codes(FSCK_HELP))]
    Fsck {
        /// Check this backup in place of the store.
        #[arg(long, value_name = "FOLDER")]
        backup: Option<PathBuf>,
    },
    /// Copy the store, also while the daemon runs.
    #[command(after_help = with_codes(BACKUP_HELP))]
    Backup {
        /// A new folder for the copy.
        #[arg(long, value_name = "FOLDER")]
        to: PathBuf,
    },
    /// Allow a PIN to be tried again after it was refused. Put the right PIN in place first.
    #[command(after_help = with_codes(PIN_CLEAR_HELP))]
    PinClear {
        /// Whose PIN.
        #[arg(long, value_parser = ["record", "admin"])]
        token: String,
    },
    /// Confirm, after a CLOCK_STEP, that the host's clock is right as it is now. The next start
    /// records it and goes on.
    #[command(after_help = with_codes(CLOCK_CONFIRM_HELP))]
    ClockConfirm,
    /// Confirm, where an HSM worker's mark of the admin trail or of statements was lost, that this store is
    /// the newest copy there is: its end becomes the mark. Never moves a mark back.
    #[command(after_help = with_codes(MARK_CONFIRM_HELP))]
    MarkConfirm,
    /// Print the completions of a shell.
    #[command(after_help = with_codes(COMPLETIONS_HELP))]
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
    /// Write the man pages, one for each command.
    #[command(after_help = with_codes(MAN_HELP))]
    Man {
        /// The folder to write them to.
        folder: PathBuf,
    },
    /// The worker process; the daemon starts it.
    #[command(hide = true)]
    HsmWorker,
}

#[derive(Debug, clap::Args)]
pub(crate) struct InitArgs {
    /// The plan, from `countersign ceremony plan`.
    #[arg(long)]
    pub(crate) plan: PathBuf,
    /// Where to write the genesis document. Default: standard output.
    #[arg(long)]
    pub(crate) out: Option<PathBuf>,
    /// Replace the file that stands there.
    #[arg(long, requires = "out")]
    pub(crate) force: bool,
    /// Go on with an init that was interrupted; after one that is done and not sealed, write its
    /// document again.
    #[arg(long, conflicts_with = "abandon")]
    pub(crate) resume: bool,
    /// Undo an init that is not sealed: its keys are destroyed.
    #[arg(long)]
    pub(crate) abandon: bool,
}

/// `MEMBER=FILE`.
fn signature(text: &str) -> Result<(MemberId, PathBuf), String> {
    let (member, file) = text.split_once('=').ok_or("a signature is given as MEMBER=FILE")?;
    Ok((MemberId::parse(member).map_err(|error| error.to_string())?, PathBuf::from(file)))
}
