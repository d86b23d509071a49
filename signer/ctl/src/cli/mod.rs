//! The commands and their options. Help texts are the reference.

mod audit;
mod ceremony;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use countersign_trail::origin::Origin;

pub(crate) use self::audit::{ExportArgs, HeadArgs, KeysArgs, MAX_LIMIT, OverviewArgs, ProofArgs, RecordArgs};
pub(crate) use self::ceremony::{CeremonyCommand, CeremonySignArgs, FingerprintArgs, PlanArgs, ShowArgs};
use crate::exit::{Exit, WITH_CHECKS, WITH_DAEMON, WITH_FILES, WITH_HEADS, WITH_SIGNATURES, table, whole_table};
use crate::profile::ConnectArgs;
use crate::remote::origin;

const ABOUT: &str = "\
Connection options may stand in a profile (--profile FILE or COUNTERSIGN_PROFILE):
  endpoint = \"https://countersign.acme.example:9463\"
  ca = \"server-ca.pem\"             # authorities of the daemon's certificate
  certificate = \"gateway.pem\"      # ours
  key = \"gateway.key\"
  genesis = \"genesis.fingerprint\"  # the fingerprint, or a file that holds it

Examples:
  countersign ceremony plan --file ceremony.toml --out plan.json
  countersign sign --trail acme.example/gateway/decisions events.jsonl
  countersign head acme.example/gateway/decisions
  countersign export --out evidence.zip
";

/// Signs AI decisions into a trail that anyone can verify, and reads what was signed.
#[derive(Debug, Parser)]
#[command(name = "countersign", version, propagate_version = true, arg_required_else_help = true)]
#[command(after_help = format!("{ABOUT}\n{}", whole_table()))]
pub(crate) struct Cli {
    /// Print JSON instead of text for people; a failure is JSON on standard error.
    #[arg(long, global = true)]
    pub(crate) json: bool,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// A help text with the table of the command's exit codes below it.
fn with_codes(text: &str, exits: &[Exit]) -> String {
    format!("{text}\n{}", table(exits))
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// The first ceremony: write, review and sign its documents.
    #[command(after_help = table(WITH_SIGNATURES))]
    Ceremony {
        #[command(subcommand)]
        command: CeremonyCommand,
    },
    /// Sign events, one line of JSON each, into a trail, and keep the receipts.
    #[command(after_help = SIGN_HELP)]
    Sign(SignArgs),
    /// List the trails, as the daemon tells it.
    #[command(after_help = with_codes("Examples:\n  countersign trails\n  countersign trails --json\n", WITH_DAEMON))]
    Trails(OverviewArgs),
    /// Fetch a trail's newest signed checkpoint and check it against the last one seen.
    #[command(after_help = with_codes(audit::HEAD_HELP, WITH_HEADS))]
    Head(HeadArgs),
    /// Show records, decoded and checked.
    #[command(after_help = with_codes(audit::RECORD_HELP, WITH_CHECKS))]
    Record(RecordArgs),
    /// Fetch the proof of one record, verified, to be checked alone and offline.
    #[command(after_help = with_codes(audit::PROOF_HELP, WITH_CHECKS))]
    Proof(ProofArgs),
    /// List every public key that ever was, or write them for other tools.
    #[command(after_help = with_codes(audit::KEYS_HELP, WITH_CHECKS))]
    Keys(KeysArgs),
    /// Export the evidence bundle, or one trail as CSV.
    #[command(after_help = with_codes(audit::EXPORT_HELP, WITH_CHECKS))]
    Export(ExportArgs),
    /// Show what the daemon is doing.
    #[command(after_help = with_codes("Examples:\n  countersign status\n  countersign status --json\n", WITH_DAEMON))]
    Status(OverviewArgs),
    /// Print the completions of a shell.
    #[command(after_help = with_codes(COMPLETIONS_HELP, WITH_FILES))]
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
    /// Write the man pages, one for each command.
    #[command(after_help = with_codes("Examples:\n  countersign man /usr/local/share/man/man1\n", WITH_FILES))]
    Man {
        /// The folder to write them to.
        folder: PathBuf,
    },
}

const COMPLETIONS_HELP: &str = "\
Examples:
  countersign completions bash > /etc/bash_completion.d/countersign
";

const SIGN_HELP: &str = "\
Each line is one event in JSON: event_id, type, category, decision, result, facts, subject, review, \
request, response, links, with the names of the API's fields. Lines go over one stream in batches; every \
answer is checked against what was sent (commitments, identity, time, signature or proof) before its \
receipt is written. A line without event_id gets one. To send a file again after a failure is safe if \
its lines have event_ids: what was signed already gives the identical answer. The newest receipt of each \
trail is kept under $XDG_STATE_HOME/countersign/<genesis>/receipts (~/.local/state by default) and goes \
out with the next run: a daemon that lost records meanwhile is found out (HEAD_MISMATCH).

Examples:
  countersign sign --trail acme.example/gateway/decisions events.jsonl --receipts r.jsonl
  tail -f events.jsonl | countersign sign --trail acme.example/gateway/decisions --batch 1 -

Exit codes:
   0  every event is signed, and every answer is what was sent
   1  failed: a file, a line that is no event, or an answer of the daemon
   3  at least one event was refused, listed with its line; the others are signed
   4  denied: the daemon does not let this identity write there
   5  the daemon or its HSM is not available; send the file again
  20  HEAD_MISMATCH: the daemon lost records that we hold receipts of
  30  fork: two histories of one trail that do not fit together
  40  a signature, proof or commitment of an answer does not hold
  64  wrong usage: command line or profile";

/// Options of `sign`.
#[derive(Debug, Args)]
pub(crate) struct SignArgs {
    /// Events, one line of JSON each; - is standard input.
    #[arg(default_value = "-", value_name = "FILE")]
    pub(crate) file: PathBuf,
    /// The trail.
    #[arg(long, short, value_name = "ORIGIN", value_parser = origin)]
    pub(crate) trail: Origin,
    /// Write the receipts here, one line of JSON each, in the order of the events: what proves each
    /// record, for countersign-verify --receipt.
    #[arg(long, value_name = "FILE")]
    pub(crate) receipts: Option<PathBuf>,
    /// Write the parts' salts here, one line of JSON for each event. They open the commitments: keep
    /// them with the content.
    #[arg(long, value_name = "FILE")]
    pub(crate) salts: Option<PathBuf>,
    /// Events in one message, 1 to 4,096.
    #[arg(long, value_name = "N", default_value_t = 32, value_parser = clap::value_parser!(u16).range(1..=4096))]
    pub(crate) batch: u16,
    /// Messages that may wait for their answers, 1 to 64. More of both give a higher rate, and longer
    /// latencies.
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=64))]
    pub(crate) window: u16,
    /// Show progress also where there is no terminal.
    #[arg(long)]
    pub(crate) progress: bool,
    /// Replace existing files of receipts and salts.
    #[arg(long)]
    pub(crate) force: bool,
    #[command(flatten)]
    pub(crate) connect: ConnectArgs,
}
