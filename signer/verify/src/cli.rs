//! The command line: files in, a report out, an exit code.

use std::io::{IsTerminal as _, Read as _, Write as _};
use std::path::{Path, PathBuf};

use clap::{Args, CommandFactory as _, Parser, Subcommand};
use clap_complete::Shell;
use countersign_trail::archive::ARCHIVE_MAX;
use countersign_trail::hash::Hash;
use countersign_trail::note::VerifierKey;
use countersign_trail::record::{MAX_RECORD_LEN, Record};
use countersign_trail::time::Timestamp;
use countersign_trail::tlog_proof::{MAX_PROOF_LEN, TlogProof};
use countersign_trail::tree::leaf_hash;
use countersign_verify::{KnownHead, KnownReceipt, Options, Outcome, USAGE, text, verify};
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;
use serde_json::json;

use crate::manual;

/// Work on fewer records than this is over before a progress bar is read.
const LONG_WORK: u64 = 20_000;
/// The longest file of heads: 1,024 notes of 64 KiB.
const HEADS_MAX: u64 = 64 << 20;
/// The longest file of receipts: 1 GiB, some hundred thousand of the usual size.
const RECEIPTS_MAX: u64 = 1 << 30;

/// The longest file of a fingerprint.
const FINGERPRINT_FILE_MAX: u64 = 256;

const HELP: &str = "\
Examples:
  countersign-verify evidence.zip --genesis genesis.fingerprint
  countersign-verify evidence.zip --genesis 5f0c… --head seen-last-month.checkpoint --as-of 2026-06-30
  countersign-verify evidence.zip --genesis 5f0c… --receipt gateway-receipts.jsonl --json
  countersign-verify record --proof 17.tlog-proof --record 17.json \\
      --vkey \"$(grep decisions vkeys.txt)\"
  countersign-verify completions bash > /etc/bash_completion.d/countersign-verify
  countersign-verify man /usr/local/share/man/man1

Exit codes:
   0  valid, proven from the pinned genesis on
  10  consistent, but not anchored: no --genesis says whose it is
  15  valid with reservations: a stretch of time without service
  20  incomplete, or older than asked
  30  a fork: two histories that do not fit together
  40  tampered, or a signature that does not hold
  50  malformed: not a bundle of the strict profile
  64  wrong usage, or an input beside the evidence that cannot be read";

const RECORD_HELP: &str = "\
Examples:
  countersign-verify record --proof 17.tlog-proof --record 17.json \\
      --vkey \"$(grep decisions vkeys.txt)\"

Exit codes:
   0  valid under the key given
  40  the record, the proof or its signature does not hold
  50  the record or the proof is not in its format
  64  wrong usage, or a file that cannot be read";

const GENERATE_HELP: &str = "\
Exit codes:
   0  succeeded
  64  wrong usage, or a file that cannot be written";

/// Verifies evidence of a Countersign appliance, offline.
#[derive(Parser)]
#[command(name = "countersign-verify", version, args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
#[command(propagate_version = true, after_help = HELP)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    evidence: EvidenceArgs,
    /// Print the whole report as JSON; a failure is JSON on standard error.
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Args)]
struct EvidenceArgs {
    /// The evidence: a zip as `countersign export` writes it.
    #[arg(required = true)]
    evidence: Option<PathBuf>,
    /// The genesis fingerprint that you trust, or a file that holds it: 64 hexadecimal digits, got from
    /// the ceremony and not from the evidence.
    #[arg(long, value_name = "FINGERPRINT")]
    genesis: Option<String>,
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
    /// Threads to use; 0: one for each core.
    #[arg(long, value_name = "N", default_value_t = 0)]
    threads: usize,
}

#[derive(Subcommand)]
#[expect(clippy::large_enum_variant, reason = "there is one of it")]
enum Command {
    /// Checks one record's C2SP tlog-proof alone.
    #[command(after_help = RECORD_HELP)]
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
    /// Prints the completions of a shell.
    #[command(hide = true, after_help = GENERATE_HELP)]
    Completions {
        /// The shell.
        shell: Shell,
    },
    /// Writes the man pages.
    #[command(hide = true, after_help = GENERATE_HELP)]
    Man {
        /// The folder to write them to.
        folder: PathBuf,
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
    #[error("--genesis {text:?}: write the 64 digits of a fingerprint in lower case")]
    UpperCase { text: String },
    #[error(
        "--genesis {text:?} is neither a fingerprint of 64 lower-case hexadecimal digits nor a file that holds one: {problem}"
    )]
    Genesis { text: String, problem: String },
    #[error("cannot write {path}: {error}")]
    WriteFile { path: PathBuf, error: std::io::Error },
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
        Some(Command::Record { proof, record, vkey }) => check_record(proof, record, vkey, cli.json),
        Some(Command::Completions { shell }) => write_stdout(&manual::completions(Cli::command(), *shell)).map(|()| 0),
        Some(Command::Man { folder }) => write_pages(folder),
        None => check_evidence(&cli.evidence, cli.json),
    };
    result.unwrap_or_else(|error| {
        if cli.json {
            eprintln!("{}", json!({ "exit_code": USAGE, "error": error.to_string() }));
        } else {
            eprintln!("countersign-verify: {error}");
        }
        USAGE
    })
}

fn check_evidence(args: &EvidenceArgs, json: bool) -> Result<u8, UsageError> {
    let genesis = args.genesis.as_deref().map(fingerprint).transpose()?;
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
    let report = verify(&bytes, genesis, &options);
    bar.finish_and_clear();
    show(&report, json, || text::render(&report))?;
    Ok(report.exit_code)
}

/// A fingerprint, or the one in the file of that name.
fn fingerprint(text: &str) -> Result<Hash, UsageError> {
    let problem = match text.parse() {
        Ok(hash) => return Ok(hash),
        Err(_) if text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit()) => {
            return Err(UsageError::UpperCase { text: text.to_owned() });
        }
        Err(_) => match read(Path::new(text), FINGERPRINT_FILE_MAX) {
            Ok(bytes) => match String::from_utf8_lossy(&bytes).trim().parse::<Hash>() {
                Ok(hash) => return Ok(hash),
                Err(error) => error.to_string(),
            },
            Err(error) => error.to_string(),
        },
    };
    Err(UsageError::Genesis { text: text.to_owned(), problem })
}

/// Prints `value` as JSON, or as `text`.
fn show<T: Serialize>(value: &T, json: bool, text: impl FnOnce() -> String) -> Result<(), UsageError> {
    if json {
        let mut json = serde_json::to_string_pretty(value).map_err(UsageError::Json)?;
        json.push('\n');
        write_stdout(json.as_bytes())
    } else {
        write_stdout(text().as_bytes())
    }
}

fn write_stdout(bytes: &[u8]) -> Result<(), UsageError> {
    let mut stdout = std::io::stdout().lock();
    stdout.write_all(bytes).and_then(|()| stdout.flush()).map_err(UsageError::Write)
}

/// Writes `countersign-verify.1` and the page of each command.
fn write_pages(folder: &Path) -> Result<u8, UsageError> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        |error| UsageError::WriteFile { path, error }
    };
    std::fs::create_dir_all(folder).map_err(failed(folder))?;
    for (name, page) in manual::pages(Cli::command()).map_err(failed(folder))? {
        let path = folder.join(name);
        std::fs::write(&path, page).map_err(failed(&path))?;
        write_stdout(format!("{}\n", path.display()).as_bytes())?;
    }
    Ok(0)
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

/// What the proof of one record alone comes to. 64-bit numbers are decimal strings.
#[derive(Serialize)]
struct RecordReport {
    v: u64,
    outcome: Outcome,
    exit_code: u8,
    /// One line for people.
    summary: String,
    /// What is proven; none where something does not hold.
    proven: Option<ProvenRecord>,
}

#[derive(Serialize)]
struct ProvenRecord {
    trail: String,
    seq: String,
    time: Timestamp,
    leaf_hash: Hash,
    size: String,
    root: Hash,
}

fn check_record(proof: &Path, record: &Path, vkey: &VerifierKey, json: bool) -> Result<u8, UsageError> {
    let proof_bytes = read(proof, MAX_PROOF_LEN as u64)?;
    let record_bytes = read(record, MAX_RECORD_LEN as u64)?;
    let (outcome, summary, proven) = match judge_record(&proof_bytes, &record_bytes, vkey) {
        Ok(proven) => {
            let ProvenRecord { trail, seq, time, leaf_hash, size, .. } = &proven;
            let line = format!(
                "VALID under the key given: record {seq} of {trail}, {time}, leaf {leaf_hash}, in the tree of size {size}"
            );
            (Outcome::Valid, line, Some(proven))
        }
        Err((outcome, problem)) => (outcome, format!("{}: {problem}", outcome.word().to_uppercase()), None),
    };
    let report = RecordReport { v: 1, outcome, exit_code: outcome.exit_code(), summary, proven };
    show(&report, json, || format!("{}\n", report.summary))?;
    Ok(report.exit_code)
}

fn judge_record(proof: &[u8], record_bytes: &[u8], vkey: &VerifierKey) -> Result<ProvenRecord, (Outcome, String)> {
    let malformed = |problem: &dyn ToString| (Outcome::Malformed, problem.to_string());
    let tampered = |problem: &dyn ToString| (Outcome::Tampered, problem.to_string());
    let record = Record::parse(record_bytes).map_err(|error| malformed(&error))?;
    let proof = TlogProof::parse(proof).map_err(|error| malformed(&error))?;
    let header = &record.header;
    let origin = &proof.checkpoint().checkpoint().origin;
    if header.seq != proof.index() || header.trail != *origin {
        return Err(tampered(&format!(
            "the record is {} of {}, the proof is of {} of {origin}",
            header.seq,
            header.trail,
            proof.index()
        )));
    }
    if vkey.name() != origin.as_str() {
        return Err(tampered(&format!("the key is of {}, the proof of {origin}", vkey.name())));
    }
    let leaf_hash = leaf_hash(record_bytes);
    let head = proof.verify(leaf_hash, vkey.key()).map_err(|error| tampered(&error))?;
    Ok(ProvenRecord {
        trail: header.trail.to_string(),
        seq: header.seq.to_string(),
        time: header.time,
        leaf_hash,
        size: head.size.to_string(),
        root: head.root,
    })
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
