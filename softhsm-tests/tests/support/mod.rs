//! What the end-to-end tests share: a stage of their own, commands with their verdicts, and the
//! sample events.
#![allow(dead_code, reason = "each test file uses its own part")]

pub(crate) mod bundle;
pub(crate) mod grpc;
pub(crate) mod http;
pub(crate) mod tls;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use countersign_stage::{Binaries, Options, Stage, Trail};
use serde_json::Value;
use tempfile::TempDir;

/// The sample: every event of a real gateway.
pub(crate) const SAMPLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/testdata/gateway-events.jsonl");

/// Set by whoever cannot be root, and wants the tests left out that must be.
pub(crate) const ENV_NO_ROOT: &str = "COUNTERSIGN_NO_ROOT";

/// Whether a test that needs root is left out; without root, and without being told so, it fails.
pub(crate) fn left_out() -> bool {
    if std::env::var_os(ENV_NO_ROOT).is_some() {
        eprintln!("left out: {ENV_NO_ROOT} is set");
        return true;
    }
    assert!(
        rustix::process::geteuid().is_root(),
        "this test needs root. Where that cannot be, {ENV_NO_ROOT}=1 leaves it out."
    );
    false
}

/// One trail for each mode and algorithm.
pub(crate) fn every_trail() -> Vec<Trail> {
    let kinds = [("batch", "ed25519"), ("batch", "ecdsa-p256"), ("record", "ed25519"), ("record", "ecdsa-p256")];
    kinds.map(|(mode, algorithm)| Trail::new(mode, algorithm)).to_vec()
}

/// A sealed appliance in a folder of its own.
pub(crate) fn sealed(options: Options) -> (TempDir, Stage) {
    let folder = tempfile::tempdir().unwrap();
    let stage = Stage::set(&folder.path().join("stage"), Binaries::beside_this().unwrap(), options, &mut |_| ());
    (folder, stage.unwrap())
}

/// An appliance before its first ceremony: only the plan is written.
pub(crate) fn planned(options: Options) -> (TempDir, Stage) {
    let folder = tempfile::tempdir().unwrap();
    let stage = Stage::prepare(&folder.path().join("stage"), Binaries::beside_this().unwrap(), options, &mut |_| ());
    (folder, stage.unwrap())
}

/// Everything that a command printed.
pub(crate) fn printed(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// Runs a command that must succeed; what it wrote to standard output.
pub(crate) fn done(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?} ended with {}: {}", output.status, printed(&output));
    String::from_utf8(output.stdout).unwrap()
}

/// Runs a command that must end with exit code 1 and say all of `said`.
pub(crate) fn refused(command: &mut Command, said: &[&str]) {
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{command:?}: {}", printed(&output));
    says(&printed(&output), said);
}

/// Asserts that a text holds each of `said`.
pub(crate) fn says(text: &str, said: &[&str]) {
    for part in said {
        assert!(text.contains(part), "wanted {part:?} in:\n{text}");
    }
}

/// A file of the sample's events from `from` to before `to`.
pub(crate) fn events(stage: &Stage, from: usize, to: usize) -> PathBuf {
    let sample = std::fs::read_to_string(SAMPLE).unwrap();
    let lines: Vec<&str> = sample.lines().skip(from).take(to - from).collect();
    assert_eq!(lines.len(), to - from);
    let path = stage.folder.join(format!("events-{from}-{to}.jsonl"));
    std::fs::write(&path, lines.join("\n") + "\n").unwrap();
    path
}

/// Signs a file of events as gateway-1 and gives the receipts' file.
pub(crate) fn sign(stage: &Stage, trail: &str, events: &Path, receipts: &str) -> PathBuf {
    let receipts = stage.folder.join(receipts);
    let mut command = stage.countersign("gateway-1", &["--json", "sign", "--force", "--trail", trail]);
    let figures: Value = serde_json::from_str(&done(command.arg("--receipts").arg(&receipts).arg(events))).unwrap();
    let lines = std::fs::read_to_string(events).unwrap().lines().count();
    assert_eq!(figures["signed"], lines, "{figures}");
    receipts
}

/// The size of every trail, as an auditor reads it.
pub(crate) fn sizes(stage: &Stage) -> BTreeMap<String, u64> {
    let listed: Value =
        serde_json::from_str(&done(&mut stage.countersign("auditor-1", &["--json", "trails"]))).unwrap();
    let rows = listed.as_array().unwrap().iter();
    rows.map(|row| (row["origin"].as_str().unwrap().to_owned(), row["size"].as_u64().unwrap())).collect()
}

/// Exports everything as auditor-1.
pub(crate) fn export(stage: &Stage, name: &str) -> PathBuf {
    let path = stage.folder.join(name);
    done(stage.countersign("auditor-1", &["export", "--out"]).arg(&path));
    path
}

/// Runs `countersign-verify` with the pinned fingerprint: exit code, first line, whole report.
pub(crate) fn verify(stage: &Stage, evidence: &Path, more: &[&str]) -> (i32, String, Value) {
    let run = |json: &[&str]| {
        let mut command = stage.binaries.command("countersign-verify");
        command.arg(evidence).args(["--genesis", &stage.fingerprint]).args(more).args(json).output().unwrap()
    };
    let (people, machine) = (run(&[]), run(&["--json"]));
    assert_eq!(people.status.code(), machine.status.code());
    let text = String::from_utf8(people.stdout).unwrap();
    let report = serde_json::from_slice(&machine.stdout).unwrap();
    (people.status.code().unwrap(), text.lines().next().unwrap_or_default().to_owned(), report)
}

/// Copies a folder with all that is in it.
pub(crate) fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}
