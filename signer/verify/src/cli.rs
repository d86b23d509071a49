//! The command line: files in, a report out, an exit code.

use std::io::{IsTerminal as _, Read as _, Write as _};
use std::path::{Path, PathBuf};

use clap::{Args, Parser, Subcommand};
use countersign_trail::archive::ARCHIVE_MAX;
use countersign_trail::hash::Hash;
use countersign_trail::note::VerifierKey;
use countersign_trail::record::{MAX_RECORD_LEN, Record};
use countersign_trail::time::Timestamp;
use countersign_trail::tlog_proof::{MAX_PROOF_LEN, TlogProof};
use countersign_trail::tree::leaf_hash;
use countersign_verify::{KnownHead, KnownReceipt, Options, Outcome, USAGE, text, verify};
use indicatif::{ProgressBar, ProgressStyle};

/// Work on fewer records than this is over before a progress bar is read.
const LONG_WORK: u64 = 20_000;
/// The longest file of heads: 1,024 notes of 64 KiB.
const HEADS_MAX: u64 = 64 << 20;
/// The longest file of receipts: 1 GiB, some hundred thousand of the usual size.
const RECEIPTS_MAX: u64 = 1 << 30;

/// Verifies evidence of a Countersign appliance, offline.
///
/// Exit codes: 0 valid and pinned; 10 consistent but not anchored (nothing pinned); 15 valid with
/// reservations (a gap in service); 20 incomplete or older than asked; 30 a fork; 40 tampered or a
/// bad signature; 50 malformed; 64 usage, or an input beside the evidence that cannot be read.
#[derive(Parser)]
#[command(name = "countersign-verify", version, args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
#[command(after_help = "Examples:
  countersign-verify evidence.zip --genesis \"$(cat genesis.fingerprint)\"
  countersign-verify evidence.zip --genesis 5f0c… --head seen-last-month.checkpoint --as-of 2026-06-30
  countersign-verify evidence.zip --genesis 5f0c… --receipt gateway-receipts.jsonl --json
  countersign-verify record --proof 17.tlog-proof --record 17.json --vkey \"$(grep decisions vkeys.txt)\"")]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    evidence: EvidenceArgs,
}

#[derive(Args)]
struct EvidenceArgs {
    /// The evidence: a zip as `countersign export` writes it.
    #[arg(required = true)]
    evidence: Option<PathBuf>,
    /// The genesis fingerprint that you trust: 64 hexadecimal digits, got from the ceremony and not
    /// from the evidence.
    #[arg(long, value_name = "FINGERPRINT")]
    genesis: Option<Hash>,
    /// A signed checkpoint that you hold (or several in one file): the evidence must contain it.
    #[arg(long, value_name = "FILE")]
    head: Vec<PathBuf>,
    /// A time that every trail must reach, the admin trail excepted: 2026-06-30,
    /// 2026-06-30T12:00:00Z, or with microseconds.
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    as_of: Option<Timestamp>,
    /// Receipts from a gateway, one a line, as `countersign sign` writes them: each record must
    /// stand where it was promised.
    #[arg(long, value_name = "FILE")]
    receipt: Vec<PathBuf>,
    /// Print the whole report as JSON.
    #[arg(long)]
    json: bool,
    /// Threads to use; 0: one for each core.
    #[arg(long, value_name = "N", default_value_t = 0)]
    threads: usize,
}

#[derive(Subcommand)]
enum Command {
    /// Checks one record's C2SP tlog-proof alone.
    Record {
        /// The proof, a `.tlog-proof` file.
        #[arg(long, value_name = "FILE")]
        proof: PathBuf,
        /// The record's exact bytes.
        #[arg(long, value_name = "FILE")]
        record: PathBuf,
        /// The C2SP verifier key line of the trail's checkpoint key: name+id+key.
        #[arg(long, value_name = "LINE")]
        vkey: VerifierKey,
    },
}

/// A failure before anything was verified.
#[derive(Debug, thiserror::Error)]
enum UsageError {
    #[error("cannot read {path}: {error}")]
    Read { path: PathBuf, error: std::io::Error },
    #[error("{path} has more than {max} bytes, the bound")]
    TooLong { path: PathBuf, max: u64 },
    #[error("{path} is not a signed checkpoint: {error}")]
    Head { path: PathBuf, error: countersign_trail::checkpoint::CheckpointError },
    #[error("{path}, line {line}: {error}")]
    Receipt { path: PathBuf, line: usize, error: countersign_trail::receipt::ReceiptError },
    #[error("cannot write the report: {0}")]
    Write(std::io::Error),
    #[error("cannot write the report: {0}")]
    Json(serde_json::Error),
}

/// Runs the command line and gives the exit code.
pub(crate) fn run() -> u8 {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Nothing to do where even that cannot be printed.
            let _ = error.print();
            return if error.use_stderr() { USAGE } else { 0 };
        }
    };
    let result = match &cli.command {
        Some(Command::Record { proof, record, vkey }) => check_record(proof, record, vkey),
        None => check_evidence(&cli.evidence),
    };
    result.unwrap_or_else(|error| {
        eprintln!("countersign-verify: {error}");
        USAGE
    })
}

fn check_evidence(args: &EvidenceArgs) -> Result<u8, UsageError> {
    let mut options = Options { as_of: args.as_of, threads: args.threads, ..Options::default() };
    for path in &args.head {
        let heads = KnownHead::parse_file(&path.display().to_string(), &read(path, HEADS_MAX)?);
        options.heads.extend(heads.map_err(|error| UsageError::Head { path: path.clone(), error })?);
    }
    for path in &args.receipt {
        let receipts = KnownReceipt::parse_file(&path.display().to_string(), &read(path, RECEIPTS_MAX)?);
        let failed = |(line, error)| UsageError::Receipt { path: path.clone(), line, error };
        options.receipts.extend(receipts.map_err(failed)?);
    }
    let evidence = args.evidence.as_deref().unwrap_or(Path::new(""));
    let bytes = read(evidence, ARCHIVE_MAX)?;
    let bar = progress_bar();
    let advance = |done: u64, total: u64| {
        if total >= LONG_WORK {
            bar.set_length(total);
            bar.set_position(done);
        }
    };
    options.progress = Some(&advance);
    let report = verify(&bytes, args.genesis, &options);
    bar.finish_and_clear();
    let mut stdout = std::io::stdout().lock();
    if args.json {
        serde_json::to_writer_pretty(&mut stdout, &report).map_err(UsageError::Json)?;
        writeln!(stdout).map_err(UsageError::Write)?;
    } else {
        stdout.write_all(text::render(&report).as_bytes()).map_err(UsageError::Write)?;
    }
    Ok(report.exit_code)
}

fn progress_bar() -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new(0);
    if let Ok(style) = ProgressStyle::with_template("verifying {bar:40} {pos}/{len} records, {eta} left") {
        bar.set_style(style);
    }
    bar
}

fn check_record(proof: &Path, record: &Path, vkey: &VerifierKey) -> Result<u8, UsageError> {
    let proof_bytes = read(proof, MAX_PROOF_LEN as u64)?;
    let record_bytes = read(record, MAX_RECORD_LEN as u64)?;
    let (outcome, line) = judge_record(&proof_bytes, &record_bytes, vkey);
    println!("{line}");
    Ok(outcome.exit_code())
}

fn judge_record(proof: &[u8], record_bytes: &[u8], vkey: &VerifierKey) -> (Outcome, String) {
    let malformed = |problem: &dyn ToString| (Outcome::Malformed, format!("MALFORMED: {}", problem.to_string()));
    let tampered = |problem: &dyn ToString| (Outcome::Tampered, format!("TAMPERED: {}", problem.to_string()));
    let record = match Record::parse(record_bytes) {
        Ok(record) => record,
        Err(error) => return malformed(&error),
    };
    let proof = match TlogProof::parse(proof) {
        Ok(proof) => proof,
        Err(error) => return malformed(&error),
    };
    let header = &record.header;
    let origin = &proof.checkpoint().checkpoint().origin;
    if header.seq != proof.index() || header.trail != *origin {
        return tampered(&format!(
            "the record is {} of {}, the proof is of {} of {origin}",
            header.seq,
            header.trail,
            proof.index()
        ));
    }
    if vkey.name() != origin.as_str() {
        return tampered(&format!("the key is of {}, the proof of {origin}", vkey.name()));
    }
    let leaf = leaf_hash(record_bytes);
    match proof.verify(leaf, vkey.key()) {
        Ok(head) => {
            let (seq, trail, time, size) = (header.seq, &header.trail, header.time, head.size);
            let line = format!(
                "VALID under the key given: record {seq} of {trail}, {time}, leaf {leaf}, in the tree of size {size}"
            );
            (Outcome::Valid, line)
        }
        Err(error) => tampered(&error),
    }
}

fn read(path: &Path, max: u64) -> Result<Vec<u8>, UsageError> {
    let failed = |error| UsageError::Read { path: path.to_owned(), error };
    let file = std::fs::File::open(path).map_err(failed)?;
    // Of a pipe it says 0: only reading bounds it.
    let len = file.metadata().map_err(failed)?.len().min(max);
    let mut bytes = Vec::with_capacity(usize::try_from(len).unwrap_or(0));
    file.take(max + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > max {
        return Err(UsageError::TooLong { path: path.to_owned(), max });
    }
    Ok(bytes)
}

/// A time in the formats' own spelling, or without microseconds, or a day alone (its first moment).
fn parse_time(text: &str) -> Result<Timestamp, String> {
    let full = match text.len() {
        10 => format!("{text}T00:00:00.000000Z"),
        20 => format!("{}.000000Z", text.trim_end_matches('Z')),
        _ => text.to_owned(),
    };
    full.parse().map_err(|error: countersign_trail::time::TimeError| error.to_string())
}
