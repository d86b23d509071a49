//! Options of `countersign ceremony`.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use countersign_trail::id::MemberId;

use super::with_codes;
use crate::exit::{WITH_DOCUMENTS, WITH_FILES, WITH_SIGNATURES};

#[derive(Debug, Subcommand)]
pub(crate) enum CeremonyCommand {
    /// Write the plan, from a ceremony file, for people to review.
    #[command(after_help = with_codes(PLAN_HELP, WITH_FILES))]
    Plan(PlanArgs),
    /// Show a plan or a genesis document, decoded.
    #[command(after_help = with_codes(SHOW_HELP, WITH_DOCUMENTS))]
    Show(ShowArgs),
    /// Show the genesis document and sign it with a person's SSH key.
    #[command(after_help = with_codes(SIGN_HELP, WITH_SIGNATURES))]
    Sign(CeremonySignArgs),
    /// Print the genesis fingerprint, the one thing that an auditor pins.
    #[command(after_help = with_codes(FINGERPRINT_HELP, WITH_DOCUMENTS))]
    Fingerprint(FingerprintArgs),
}

const PLAN_HELP: &str = "\
Draws 32 random bytes and takes the present time, so no two plans are alike.

Examples:
  countersign ceremony plan --file ceremony.toml --out plan.json
  countersign ceremony plan --file ceremony.toml --out plan.json \\
      --admin-serial 3f1c --record-serial 9b07
";

const SHOW_HELP: &str = "\
Examples:
  countersign ceremony show plan.json
  countersign ceremony show genesis.json --plan plan.json
";

const SIGN_HELP: &str = "\
The document is parsed strictly, its keys' proofs are checked, and it is held against the plan; what was \
decoded is what is signed, through `ssh-keygen -Y sign`: so a key file with or without a passphrase, a \
key in ssh-agent (give its .pub file) and a FIDO security key all work. The signature is verified before \
the command says that it is done. It is the same as
  ssh-keygen -Y sign -f KEY -n genesis@countersign genesis.json

Examples:
  countersign ceremony sign genesis.json --plan plan.json --key ~/.ssh/id_ed25519
  countersign ceremony sign genesis.json --plan plan.json --key ~/.ssh/id_ed25519_sk.pub
  countersign ceremony sign genesis.json --member alice --key alice.key --yes
";

const FINGERPRINT_HELP: &str = "\
Examples:
  countersign ceremony fingerprint genesis.json
  countersign ceremony fingerprint genesis.json --plan plan.json
";

/// Options of `ceremony plan`.
#[derive(Debug, Args)]
pub(crate) struct PlanArgs {
    /// The ceremony file (TOML; hsm-config/ceremony.example.toml is a commented example).
    #[arg(long, short, value_name = "FILE")]
    pub(crate) file: PathBuf,
    /// Where to write the plan.
    #[arg(long, short, value_name = "FILE", default_value = "plan.json")]
    pub(crate) out: PathBuf,
    /// Serial number of the admin token, instead of the file's.
    #[arg(long, value_name = "SERIAL")]
    pub(crate) admin_serial: Option<String>,
    /// Serial number of the record token, instead of the file's.
    #[arg(long, value_name = "SERIAL")]
    pub(crate) record_serial: Option<String>,
    /// Replace an existing plan.
    #[arg(long)]
    pub(crate) force: bool,
}

/// Options of `ceremony show`.
#[derive(Debug, Args)]
pub(crate) struct ShowArgs {
    /// A plan or a genesis document.
    pub(crate) file: PathBuf,
    /// Hold a genesis document against this plan.
    #[arg(long, value_name = "FILE")]
    pub(crate) plan: Option<PathBuf>,
}

/// Options of `ceremony sign`.
#[derive(Debug, Args)]
pub(crate) struct CeremonySignArgs {
    /// The genesis document.
    #[arg(value_name = "GENESIS")]
    pub(crate) file: PathBuf,
    /// The SSH key: a private key file, or the .pub file of a key in ssh-agent or a security key.
    #[arg(long, short, value_name = "FILE")]
    pub(crate) key: PathBuf,
    /// Check the genesis against this plan, and find the person by the key.
    #[arg(long, value_name = "FILE")]
    pub(crate) plan: Option<PathBuf>,
    /// Who signs; with --plan it is found by the key.
    #[arg(long, value_name = "ID")]
    pub(crate) member: Option<MemberId>,
    /// Where to write the signature [default: GENESIS.MEMBER.sig].
    #[arg(long, short, value_name = "FILE")]
    pub(crate) out: Option<PathBuf>,
    /// Do not ask: the document has been reviewed.
    #[arg(long)]
    pub(crate) yes: bool,
    /// Replace an existing signature.
    #[arg(long)]
    pub(crate) force: bool,
}

/// Options of `ceremony fingerprint`.
#[derive(Debug, Args)]
pub(crate) struct FingerprintArgs {
    /// The genesis document.
    #[arg(value_name = "GENESIS")]
    pub(crate) file: PathBuf,
    /// Also check the genesis against this plan.
    #[arg(long, value_name = "FILE")]
    pub(crate) plan: Option<PathBuf>,
}
