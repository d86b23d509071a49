//! The command: exit codes, the line for people, JSON, and one record's proof alone.
#![cfg(test)]

mod common;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use common::{Appliance, DECISIONS, Export, METRICS, origin};
use countersign_trail::keys::Algorithm;
use countersign_trail::receipt::ReceiptProof;

struct Folder {
    dir: tempfile::TempDir,
    appliance: Appliance,
}

impl Folder {
    /// `evidence.zip` with 6 records a trail, `older.zip` with 3 of METRICS.
    fn new() -> Folder {
        let folder =
            Folder { dir: tempfile::tempdir().unwrap(), appliance: Appliance::with_records(Algorithm::Ed25519, 6) };
        folder.write("evidence.zip", &folder.appliance.bundle());
        let sizes = BTreeMap::from([(origin(METRICS), 3)]);
        folder.write("older.zip", &folder.appliance.export(&Export { sizes, ..Export::default() }));
        folder
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn write(&self, name: &str, content: &[u8]) {
        std::fs::write(self.path(name), content).unwrap();
    }

    fn run(&self, args: &[&str]) -> (i32, String, String) {
        let output = verify(self.dir.path(), args);
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
    }

    fn pinned(&self, evidence: &str, more: &[&str]) -> (i32, String, String) {
        let genesis = self.appliance.fingerprint().to_string();
        let args: Vec<&str> = [evidence, "--genesis", &genesis].into_iter().chain(more.iter().copied()).collect();
        self.run(&args)
    }
}

fn verify(dir: &Path, args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_countersign-verify")).current_dir(dir).args(args).output().unwrap()
}

#[test]
fn exit_codes_and_first_lines() {
    let folder = Folder::new();
    let (code, out, err) = folder.pinned("evidence.zip", &[]);
    assert_eq!((code, err.as_str()), (0, ""));
    assert!(out.starts_with("VALID: 12 records in 2 trails"), "{out}");
    let (code, out, _) = folder.run(&["evidence.zip"]);
    assert_eq!(code, 10);
    assert!(out.starts_with("CONSISTENT, NOT ANCHORED"), "{out}");
    let mut bytes = std::fs::read(folder.path("evidence.zip")).unwrap();
    let record = bytes.windows(10).position(|window| window == b"\"event-3\",").unwrap();
    bytes[record + 7] ^= 1;
    folder.write("tampered.zip", &bytes);
    let (code, out, _) = folder.pinned("tampered.zip", &[]);
    assert_eq!(code, 40);
    assert!(out.starts_with(&format!("TAMPERED: first broken is record 3 of {DECISIONS}")), "{out}");
    folder.write("cut.zip", &bytes[..bytes.len() - 1]);
    folder.write("text.zip", b"a text, and longer than any header of an archive would be\n");
    let (code, out, _) = folder.pinned("text.zip", &[]);
    assert_eq!((code, out.lines().next()), (50, Some("MALFORMED: archive: not a zip archive")));
    let (code, out, _) = folder.pinned("cut.zip", &[]);
    assert_eq!(code, 50);
    assert!(out.starts_with("MALFORMED: archive"), "{out}");
}

#[test]
fn anchors_from_files() {
    let folder = Folder::new();
    folder.write("head", &folder.appliance.checkpoint(METRICS, 5).to_bytes());
    let mut receipts = folder.appliance.receipt(METRICS, 4).to_bytes().unwrap();
    receipts.push(b'\n');
    folder.write("receipts", &receipts);
    let as_of = folder.appliance.last_time(METRICS).to_string();
    assert_eq!(folder.pinned("older.zip", &[]).0, 0);
    for anchor in [["--head", "head"], ["--receipt", "receipts"], ["--as-of", &as_of], ["--as-of", "2027-01-01"]] {
        let (code, out, _) = folder.pinned("older.zip", &anchor);
        assert_eq!(code, 20, "{out}");
        assert!(out.starts_with("INCOMPLETE"), "{out}");
    }
    let all = ["--head", "head", "--receipt", "receipts", "--as-of", "2026-01-01T00:00:00Z"];
    assert_eq!(folder.pinned("evidence.zip", &all).0, 0);
}

#[test]
fn json_is_the_whole_report() {
    let folder = Folder::new();
    let (code, out, _) = folder.pinned("evidence.zip", &["--json", "--threads", "2"]);
    let report: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!(code, 0);
    assert_eq!(report["exit_code"], 0);
    assert_eq!(report["genesis"], folder.appliance.fingerprint().to_string());
    assert_eq!(report["trails"][2]["origin"], METRICS);
    assert!(report["checks"].as_array().unwrap().len() > 30);
    let keys: Vec<&String> = report.as_object().unwrap().keys().collect();
    let documented =
        ["checks", "exit_code", "first_broken", "genesis", "instance", "outcome", "pinned", "summary", "trails", "v"];
    assert_eq!(keys, documented);
}

#[test]
fn usage_errors() {
    let folder = Folder::new();
    folder.write("nonsense", b"nonsense");
    for args in [
        &["none.zip"] as &[&str],
        &[],
        &["evidence.zip", "--genesis", "abc"],
        &["evidence.zip", "--unknown"],
        &["evidence.zip", "--as-of", "yesterday"],
        &["evidence.zip", "--head", "nonsense"],
        &["evidence.zip", "--receipt", "nonsense"],
        &["evidence.zip", "--head", "none"],
    ] {
        let (code, out, err) = folder.run(args);
        assert_eq!((code, out.as_str()), (64, ""), "{args:?}");
        assert!(!err.is_empty());
    }
    assert_eq!(folder.run(&["--help"]).0, 0);
    assert_eq!(folder.run(&["--version"]).0, 0);
}

#[test]
fn one_record_alone() {
    let folder = Folder::new();
    let receipt = folder.appliance.receipt(METRICS, 4);
    let ReceiptProof::Inclusion(proof) = receipt.proof else { panic!("batch mode") };
    folder.write("4.tlog-proof", &proof.to_bytes());
    folder.write("4.json", &receipt.bytes);
    folder.write("3.json", &folder.appliance.records(METRICS)[3].bytes);
    folder.write("other.json", &String::from_utf8(receipt.bytes).unwrap().replace("allow", "block").into_bytes());
    let files = folder.appliance.files();
    let vkeys = String::from_utf8(files.get("vkeys.txt").to_vec()).unwrap();
    let vkey = |trail: &str| vkeys.lines().find(|line| line.starts_with(trail)).unwrap().to_owned();
    let run = |record: &str, vkey: &str| {
        folder.run(&["record", "--proof", "4.tlog-proof", "--record", record, "--vkey", vkey])
    };
    let (code, out, _) = run("4.json", &vkey(METRICS));
    assert_eq!(code, 0);
    assert!(out.starts_with(&format!("VALID under the key given: record 4 of {METRICS}")), "{out}");
    assert_eq!(run("3.json", &vkey(METRICS)).0, 40);
    assert_eq!(run("other.json", &vkey(METRICS)).0, 40);
    assert_eq!(run("4.json", &vkey(DECISIONS)).0, 40);
    assert_eq!(run("4.tlog-proof", &vkey(METRICS)).0, 50);
    assert_eq!(run("4.json", "no vkey").0, 64);
    let json = |record: &str| {
        let key = vkey(METRICS);
        let args = ["record", "--proof", "4.tlog-proof", "--record", record, "--vkey", &key, "--json"];
        let (code, out, _) = folder.run(&args);
        (code, serde_json::from_str::<serde_json::Value>(&out).unwrap())
    };
    let (code, report) = json("4.json");
    assert_eq!((code, &report["exit_code"], &report["outcome"]), (0, &0.into(), &"valid".into()));
    assert_eq!((&report["proven"]["trail"], &report["proven"]["seq"]), (&METRICS.into(), &"4".into()));
    let (code, report) = json("3.json");
    assert_eq!((code, &report["exit_code"], &report["proven"]), (40, &40.into(), &serde_json::Value::Null));
    assert!(report["summary"].as_str().unwrap().starts_with("TAMPERED: the record is 3 of"), "{report}");
}

#[test]
fn the_fingerprint_may_stand_in_a_file() {
    let folder = Folder::new();
    let fingerprint = folder.appliance.fingerprint().to_string();
    folder.write("genesis.fingerprint", format!("{fingerprint}\n").as_bytes());
    assert_eq!(folder.run(&["evidence.zip", "--genesis", "genesis.fingerprint"]).0, 0);
    folder.write("other", b"no fingerprint");
    let refused = |genesis: &str| {
        let (code, out, err) = folder.run(&["evidence.zip", "--genesis", genesis]);
        assert_eq!((code, out.as_str()), (64, ""), "{genesis}");
        err
    };
    assert!(refused("other").contains("nor a file that holds one"), "{}", refused("other"));
    assert!(refused("none").contains("cannot read none"), "{}", refused("none"));
    let upper = fingerprint.to_uppercase();
    assert!(refused(&upper).contains("in lower case"), "{}", refused(&upper));
}

#[test]
fn a_failure_is_json_where_json_is_asked_for() {
    let folder = Folder::new();
    let (code, out, err) = folder.run(&["none.zip", "--json"]);
    let failure: serde_json::Value = serde_json::from_str(&err).unwrap();
    assert_eq!((code, out.as_str(), &failure["exit_code"]), (64, "", &64.into()));
    assert!(failure["error"].as_str().unwrap().starts_with("cannot read none.zip: "), "{failure}");
}

#[test]
fn completions_of_every_shell() {
    let folder = Folder::new();
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        let (code, script, _) = folder.run(&["completions", shell]);
        assert_eq!(code, 0, "{shell}");
        assert!(script.contains("genesis") && script.contains("vkey"), "{shell} lacks options");
    }
    folder.write("completions", folder.run(&["completions", "bash"]).1.as_bytes());
    let parses = Command::new("bash").arg("-n").arg(folder.path("completions")).status().unwrap();
    assert!(parses.success(), "bash does not parse its completions");
}

#[test]
fn a_man_page_for_every_command() {
    let folder = Folder::new();
    let (code, out, _) = folder.run(&["man", "man1"]);
    assert_eq!((code, out.as_str()), (0, "man1/countersign-verify.1\nman1/countersign-verify-record.1\n"));
    for (command, codes) in [(&[] as &[&str], 8), (&["record"], 4)] {
        let name = [&["countersign-verify"], command].concat().join("-");
        let page = std::fs::read_to_string(folder.path(&format!("man1/{name}.1"))).unwrap();
        let (_, status) = page.split_once("\n.SH \"EXIT STATUS\"\n.nf\n").unwrap_or_else(|| panic!("{page}"));
        assert_eq!(status.lines().take_while(|line| *line != ".fi").count(), codes, "{page}");
        assert!(page.contains(".TH") && page.contains("\n.SH EXAMPLES\n.nf\n"), "{page}");
        // The help text has the same.
        let help = folder.run(&[command, &["--help"]].concat()).1;
        assert!(help.contains("\nExamples:\n") && help.contains("\nExit codes:\n   0  valid"), "{help}");
    }
}
