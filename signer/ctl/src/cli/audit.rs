//! Options of the commands that read.

use std::path::PathBuf;

use clap::builder::{PossibleValuesParser, TypedValueParser as _};
use clap::{ArgGroup, Args};
use countersign_trail::id::{MemberId, PartName};
use countersign_trail::keys::Kid;
use countersign_trail::origin::Origin;
use countersign_trail::time::Timestamp;

use crate::profile::ConnectArgs;
use crate::remote::origin;

pub(super) const HEAD_HELP: &str = "\
Heads that were seen are kept under $XDG_STATE_HOME/countersign/<genesis>/heads (~/.local/state by \
default). Each new one must be consistent with the last one seen, in whichever direction.

Examples:
  countersign head acme.example/gateway/decisions
  countersign head acme.example/gateway/decisions --out decisions.checkpoint
";

pub(super) const RECORD_HELP: &str = "\
With --json, SEQ and --event-id give the record; the other queries give {\"records\": […], \"more\": …}, \
where more says whether --limit left records out.

--signed-bytes writes exactly what the HSM signed: in record mode the DSSE pre-authentication encoding of \
the record, in batch mode the text of the checkpoint that covers it. With --signature and the PEM of \
`countersign keys`, stock tools verify it, ECDSA P-256 with dgst and Ed25519 with pkeyutl:
  countersign record TRAIL 17 --signed-bytes signed --signature signature
  countersign keys --trail TRAIL --out keys
  openssl dgst -sha256 -verify keys/KID.pem -signature signature signed
  openssl pkeyutl -verify -pubin -inkey keys/KID.pem -rawin -in signed -sigfile signature

Examples:
  countersign record acme.example/gateway/decisions 17
  countersign record acme.example/gateway/decisions --event-id 0198c0de-… --client gateway-eu
  countersign record acme.example/gateway/decisions \\
      --from 2026-01-31 --to 2026-01-31T09:00:00Z
";

pub(super) const PROOF_HELP: &str = "\
The proof is a C2SP tlog-proof; with the record's bytes and the trail's vkey line it is checked alone.

Examples:
  countersign proof acme.example/gateway/decisions 17 > 17.tlog-proof
  countersign proof acme.example/gateway/decisions 17 --out 17.tlog-proof --record 17.json
";

pub(super) const KEYS_HELP: &str = "\
Examples:
  countersign keys
  countersign keys --trail acme.example/gateway/decisions --at-seq 17
  countersign keys --jwks > jwks.json
  countersign keys --out keys        # KID.pem of each, jwks.json, vkeys.txt
";

pub(super) const EXPORT_HELP: &str = "\
The bundle holds the admin trail always, and is verified offline by countersign-verify.

The CSV table is for reading, not for proving: every record in it was checked under the trail's signed \
head, but the table carries no signatures. A cell that begins with = + - @ tab, carriage return or ' has \
a ' in front, so that no spreadsheet takes it for a formula. Columns: seq, time, kind, type, category, \
decision, result, client, event_id, leaf_hash, prev, kids, links, parts, body, then the facts from \
occurred_at to attributes, the subject from actor_id to subject_attributes, reviewers. Contents of \
request and response are never in it.

Examples:
  countersign export --out evidence.zip
  countersign export --out evidence.zip --trail acme.example/gateway/decisions \\
      --withhold request --withhold response
  countersign export --csv decisions.csv --trail acme.example/gateway/decisions
";

/// The parts that a record may have: another name would withhold nothing.
const PARTS: [&str; 5] = ["facts", "subject", "review", "request", "response"];

/// Options of `trails` and `status`.
#[derive(Debug, Args)]
pub(crate) struct OverviewArgs {
    #[command(flatten)]
    pub(crate) connect: ConnectArgs,
}

/// Options of `head`.
#[derive(Debug, Args)]
pub(crate) struct HeadArgs {
    /// The trail.
    #[arg(value_name = "TRAIL", value_parser = origin)]
    pub(crate) trail: Origin,
    /// Write the signed checkpoint here, for countersign-verify --head.
    #[arg(long, short, value_name = "FILE")]
    pub(crate) out: Option<PathBuf>,
    /// Replace existing files.
    #[arg(long)]
    pub(crate) force: bool,
    #[command(flatten)]
    pub(crate) connect: ConnectArgs,
}

/// The most records that one query shows.
pub(crate) const MAX_LIMIT: u32 = 10_000;

/// Options of `record`.
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("which").required(true).multiple(true).args(["seq", "event_id", "request_id", "from", "to"]))]
pub(crate) struct RecordArgs {
    /// The trail.
    #[arg(value_name = "TRAIL", value_parser = origin)]
    pub(crate) trail: Origin,
    /// The record's sequence number.
    #[arg(value_name = "SEQ", conflicts_with_all = ["event_id", "request_id", "from", "to"])]
    pub(crate) seq: Option<u64>,
    /// The record of this event_id; of --client, or of our own.
    #[arg(long, value_name = "ID", conflicts_with_all = ["request_id", "from", "to"])]
    pub(crate) event_id: Option<String>,
    /// Whose event_id it is.
    #[arg(long, value_name = "MEMBER", requires = "event_id")]
    pub(crate) client: Option<MemberId>,
    /// Records with this request_id.
    #[arg(long, value_name = "ID", conflicts_with_all = ["from", "to"])]
    pub(crate) request_id: Option<String>,
    /// Records at or after this time: a day, or YYYY-MM-DDThh:mm:ss[.ffffff]Z.
    #[arg(long, value_name = "TIME", value_parser = time)]
    pub(crate) from: Option<Timestamp>,
    /// Records before this time.
    #[arg(long, value_name = "TIME", value_parser = time)]
    pub(crate) to: Option<Timestamp>,
    /// The most records to show, 1 to 10,000.
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=i64::from(MAX_LIMIT)))]
    pub(crate) limit: u32,
    /// Write exactly what the HSM signed here; of one record.
    #[arg(long, value_name = "FILE")]
    pub(crate) signed_bytes: Option<PathBuf>,
    /// Write the signature over that here: 64 bytes (Ed25519) or DER (ECDSA); of one record.
    #[arg(long, value_name = "FILE")]
    pub(crate) signature: Option<PathBuf>,
    /// Write the record's exact bytes here; of one record.
    #[arg(long, value_name = "FILE")]
    pub(crate) bytes: Option<PathBuf>,
    /// Replace existing files.
    #[arg(long)]
    pub(crate) force: bool,
    #[command(flatten)]
    pub(crate) connect: ConnectArgs,
}

/// Options of `proof`.
#[derive(Debug, Args)]
pub(crate) struct ProofArgs {
    /// The trail.
    #[arg(value_name = "TRAIL", value_parser = origin)]
    pub(crate) trail: Origin,
    /// The record's sequence number.
    #[arg(value_name = "SEQ")]
    pub(crate) seq: u64,
    /// Write the proof here instead of to standard output.
    #[arg(long, short, value_name = "FILE")]
    pub(crate) out: Option<PathBuf>,
    /// Write the record's exact bytes here.
    #[arg(long, value_name = "FILE")]
    pub(crate) record: Option<PathBuf>,
    /// Replace existing files.
    #[arg(long)]
    pub(crate) force: bool,
    #[command(flatten)]
    pub(crate) connect: ConnectArgs,
}

/// Options of `keys`.
#[derive(Debug, Args)]
pub(crate) struct KeysArgs {
    /// Only this key.
    #[arg(long, value_name = "KID")]
    pub(crate) kid: Option<Kid>,
    /// Only keys of this trail.
    #[arg(long, value_name = "ORIGIN", value_parser = origin)]
    pub(crate) trail: Option<Origin>,
    /// Only keys in force at this sequence number of --trail.
    #[arg(long, value_name = "SEQ", requires = "trail")]
    pub(crate) at_seq: Option<u64>,
    /// Only keys in force at this time: a day, or YYYY-MM-DDThh:mm:ss[.ffffff]Z.
    #[arg(long, value_name = "TIME", value_parser = time)]
    pub(crate) at_time: Option<Timestamp>,
    /// Print them as PEM (SubjectPublicKeyInfo).
    #[arg(long, group = "form")]
    pub(crate) pem: bool,
    /// Print them as a JSON Web Key Set (RFC 7517).
    #[arg(long, group = "form")]
    pub(crate) jwks: bool,
    /// Print the C2SP vkey lines of the checkpoint keys.
    #[arg(long, group = "form")]
    pub(crate) vkey: bool,
    /// Write all three forms into this folder.
    #[arg(long, short, value_name = "DIR")]
    pub(crate) out: Option<PathBuf>,
    /// Replace existing files.
    #[arg(long)]
    pub(crate) force: bool,
    #[command(flatten)]
    pub(crate) connect: ConnectArgs,
}

/// Options of `export`.
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("what").required(true).args(["out", "csv"]))]
pub(crate) struct ExportArgs {
    /// Write the evidence bundle (zip) here.
    #[arg(long, short, value_name = "FILE")]
    pub(crate) out: Option<PathBuf>,
    /// Write one trail as a flat table here.
    #[arg(long, value_name = "FILE", requires = "trail")]
    pub(crate) csv: Option<PathBuf>,
    /// Only this trail, and the admin trail; may be repeated. Without it, every trail.
    #[arg(long, short, value_name = "ORIGIN", value_parser = origin)]
    pub(crate) trail: Vec<Origin>,
    /// Leave out the contents of this part; may be repeated. Its commitment stays.
    #[arg(long, value_name = "PART", value_parser = PossibleValuesParser::new(PARTS).try_map(|name| PartName::parse(&name)))]
    pub(crate) withhold: Vec<PartName>,
    /// Show progress also where there is no terminal.
    #[arg(long)]
    pub(crate) progress: bool,
    /// Replace an existing file.
    #[arg(long)]
    pub(crate) force: bool,
    #[command(flatten)]
    pub(crate) connect: ConnectArgs,
}

/// A time in UTC, its fraction of a second filled up to microseconds; or a day, its first moment.
fn time(text: &str) -> Result<Timestamp, String> {
    let wrong = || {
        format!("{text:?} is not a time: want YYYY-MM-DD or YYYY-MM-DDThh:mm:ssZ, with up to six digits of fraction")
    };
    if text.len() == 10 {
        return format!("{text}T00:00:00.000000Z").parse().map_err(|_| wrong());
    }
    let body = text.strip_suffix('Z').ok_or_else(wrong)?;
    let (seconds, fraction) = body.split_once('.').unwrap_or((body, "0"));
    if fraction.is_empty() || fraction.len() > 6 {
        return Err(wrong());
    }
    format!("{seconds}.{fraction:0<6}Z").parse().map_err(|_| wrong())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_may_leave_out_digits_of_the_fraction() {
        let full = "2026-01-31T08:00:00.500000Z".parse::<Timestamp>().unwrap();
        for text in ["2026-01-31T08:00:00.5Z", "2026-01-31T08:00:00.50Z", "2026-01-31T08:00:00.500000Z"] {
            assert_eq!(time(text).unwrap(), full);
        }
        assert_eq!(time("2026-01-31T08:00:00Z").unwrap().to_string(), "2026-01-31T08:00:00.000000Z");
        assert_eq!(time("2026-01-31").unwrap().to_string(), "2026-01-31T00:00:00.000000Z");
        for text in [
            "2026-02-30",
            "2026-01-3Z",
            "2026-01-31T08:00:00",
            "2026-01-31T08:00:00.Z",
            "2026-01-31T08:00:00.1234567Z",
            "2026-02-30T08:00:00Z",
        ] {
            assert!(time(text).is_err(), "{text}");
        }
    }
}
