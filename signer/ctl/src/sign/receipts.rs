//! Files of receipts and salts.

use std::fs::{File, OpenOptions};
use std::io::{BufWriter, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use countersign_client::{Alarm, Receipt};
use countersign_proto::v1;
use countersign_trail::base64;
use serde_json::{Value, json};

use crate::cli::SignArgs;
use crate::exit::{Outcome, failed};
use crate::files;

/// For the owner alone: a salt opens the commitment to a content that can be guessed.
const PRIVATE: u32 = 0o600;

/// The receipts and the salts, one line of JSON each; and alarms, in a file that is made when the
/// first one is raised.
pub(super) struct Receipts {
    receipts: Option<Lines>,
    salts: Option<Lines>,
    alarms: PathBuf,
    raised: Option<Lines>,
}

struct Lines {
    path: PathBuf,
    file: BufWriter<File>,
}

impl Lines {
    /// A new file, or an emptied one; `mode` is that of a new one.
    fn create(path: &Path, replace: bool, mode: u32) -> Outcome<Lines> {
        files::must_be_free(path, replace)?;
        let file = OpenOptions::new().write(true).create(true).truncate(true).mode(mode).open(path);
        let file = file.map_err(|error| files::io("write", path, &error))?;
        Ok(Lines { path: path.to_owned(), file: BufWriter::with_capacity(1 << 18, file) })
    }

    fn line(&mut self, line: &[u8]) -> Outcome {
        let written = self.file.write_all(line).and_then(|()| self.file.write_all(b"\n"));
        written.map_err(|error| files::io("write", &self.path, &error))
    }

    fn flush(&mut self) -> Outcome {
        self.file.flush().map_err(|error| files::io("write", &self.path, &error))
    }
}

impl Receipts {
    /// Makes the files that are asked for.
    pub(super) fn create(args: &SignArgs) -> Outcome<Receipts> {
        let create = |path: &Option<PathBuf>, mode| {
            path.as_deref().map(|path| Lines::create(path, args.force, mode)).transpose()
        };
        let mut alarms = args.receipts.clone().unwrap_or_else(|| PathBuf::from("countersign")).into_os_string();
        alarms.push(".alarms");
        Ok(Receipts {
            receipts: create(&args.receipts, 0o666)?,
            salts: create(&args.salts, PRIVATE)?,
            alarms: alarms.into(),
            raised: None,
        })
    }

    /// Writes a receipt, and its salts.
    pub(super) fn write(&mut self, receipt: &Receipt) -> Outcome {
        if let Some(file) = &mut self.receipts {
            file.line(&receipt.to_json().map_err(|error| failed(error.to_string()))?)?;
        }
        if let Some(file) = &mut self.salts {
            let salts: serde_json::Map<String, Value> = receipt
                .salts
                .iter()
                .map(|(part, salt)| (part.to_string(), Value::from(base64::url_encode(salt))))
                .collect();
            let line = json!({ "trail": receipt.trail.as_str(), "seq": receipt.seq.to_string(), "salts": salts });
            file.line(line.to_string().as_bytes())?;
        }
        Ok(())
    }

    /// Keeps both sides of an alarm.
    pub(super) fn alarm(&mut self, alarm: &Alarm) -> Outcome {
        let file = match &mut self.raised {
            Some(file) => file,
            None => self.raised.insert(Lines::create(&self.alarms, true, PRIVATE)?),
        };
        let encode = |bytes: &[u8]| base64::std_encode(bytes);
        let signed = |answer: &v1::Answer| match &answer.outcome {
            Some(v1::answer::Outcome::Signed(signed)) => {
                json!({ "record": encode(&signed.record), "seq": signed.seq.to_string(), "leaf_hash": hex::encode(&signed.leaf_hash), "signature": encode(&signed.signature) })
            }
            _ => Value::Null,
        };
        let signed: Vec<Value> = alarm.answer.answers.iter().map(signed).collect();
        let event_ids: Vec<&str> = alarm.sent.iter().map(|event| event.event_id.as_str()).collect();
        let proofs: Vec<Value> = alarm.answer.proofs.iter().map(|proof| {
            let hashes: Vec<String> = proof.hashes.iter().map(hex::encode).collect();
            json!({ "checkpoint": String::from_utf8_lossy(&proof.checkpoint), "hashes": hashes, "seqs": proof.seqs.iter().map(ToString::to_string).collect::<Vec<_>>() })
        }).collect();
        let line = json!({
            "reason": alarm.reason.code(), "trail": alarm.trail.as_str(), "expected": alarm.expected, "found": alarm.found,
            "event_ids": event_ids, "signed": signed, "proofs": proofs,
        });
        file.line(line.to_string().as_bytes())?;
        file.flush()
    }

    /// Hands what was written to the system.
    pub(super) fn flush(&mut self) -> Outcome {
        self.receipts.iter_mut().chain(&mut self.salts).try_for_each(Lines::flush)
    }

    /// Makes the files durable.
    pub(super) fn finish(mut self) -> Outcome {
        self.flush()?;
        for lines in self.receipts.iter().chain(&self.salts).chain(&self.raised) {
            // Not a file (a pipe, /dev/stdout): nothing to make durable.
            if lines.path.is_file() {
                lines.file.get_ref().sync_all().map_err(|error| files::io("write", &lines.path, &error))?;
            }
        }
        Ok(())
    }
}
