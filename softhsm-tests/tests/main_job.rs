//! The main job: every sample event signed in both modes and both algorithms, each record's proof
//! verified alone, the whole verified, and nothing signed twice, also not after a restart.
#![cfg(test)]

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use countersign_stage::{Options, Stage};
use countersign_trail::document::Genesis;
use countersign_trail::hash::Hash;
use countersign_trail::keys::{Kid, PublicKey};
use countersign_trail::receipt::{Receipt, ReceiptProof};
use countersign_trail::signing::Purpose;
use support::{SAMPLE, done, every_trail, export, sealed, sign, sizes, verify};

/// How many events the sample has.
const EVENTS: usize = 2_120;

/// The keys of the genesis document, which has the pinned fingerprint: by kid, with their trail.
fn genesis_keys(stage: &Stage) -> BTreeMap<Kid, (PublicKey, Purpose, String)> {
    let bytes = fs::read(stage.folder.join("genesis.json")).unwrap();
    assert_eq!(Hash::of(&bytes).to_string(), stage.fingerprint);
    let genesis = Genesis::parse(&bytes).unwrap();
    let instance = genesis.instance.clone();
    let with_trail = genesis.keys.into_iter().filter(|key| key.trail.is_some());
    with_trail
        .map(|key| {
            (key.kid, (key.check(&instance).unwrap(), key.purpose, key.trail.map(|trail| trail.to_string()).unwrap()))
        })
        .collect()
}

/// Signs the whole sample into every trail; the receipts' bytes by trail.
fn sign_all(stage: &Stage, run: &str) -> BTreeMap<String, (PathBuf, Vec<u8>)> {
    let trails = stage.options.trails.iter();
    trails
        .map(|trail| {
            let name = format!("{run}-{}-{}.jsonl", trail.mode, trail.algorithm);
            let path = sign(stage, &trail.origin, SAMPLE.as_ref(), &name);
            let bytes = fs::read(&path).unwrap();
            (trail.origin.clone(), (path, bytes))
        })
        .collect()
}

/// Each receipt stands for its event, in order, and verifies alone under its trail's own key.
fn check_receipts(stage: &Stage, trail: &str, mode: &str, bytes: &[u8]) {
    let keys = genesis_keys(stage);
    let receipts = Receipt::parse_lines(bytes).unwrap();
    assert_eq!(receipts.len(), EVENTS);
    let purpose = if mode == "record" { Purpose::Record } else { Purpose::Checkpoint };
    let sample = fs::read_to_string(SAMPLE).unwrap();
    for ((seq, receipt), line) in (1..).zip(&receipts).zip(sample.lines()) {
        let (key, its_purpose, its_trail) = &keys[&receipt.kid];
        assert_eq!((its_trail.as_str(), *its_purpose), (trail, purpose));
        receipt.verify(key).unwrap();
        assert_eq!(matches!(receipt.proof, ReceiptProof::Signature(_)), mode == "record");
        // Record 0 is the genesis's: the events follow it.
        assert_eq!((receipt.record.header.trail.as_str(), receipt.record.header.seq), (trail, seq));
        let event: serde_json::Value = serde_json::from_str(line).unwrap();
        let record: serde_json::Value = serde_json::from_slice(&receipt.bytes).unwrap();
        for field in ["event_id", "type", "category", "decision", "result"] {
            assert_eq!(record[field], event[field], "{field} of record {seq}");
        }
        assert_eq!(record["client"], "gateway-1");
    }
    // A receipt proves its own bytes and no others.
    let mut changed = receipts[7].clone();
    changed.bytes[40] ^= 1;
    assert!(changed.verify(&keys[&changed.kid].0).is_err());
}

/// The C2SP proof of single records, checked by the verifier's own command with nothing but the
/// record and the vkey line.
fn check_proofs(stage: &Stage, trail: &str) {
    let vkeys = done(&mut stage.countersign("auditor-1", &["keys", "--vkey", "--trail", trail]));
    let vkey = vkeys.lines().find(|line| line.starts_with(&format!("{trail}+"))).unwrap();
    let at = |name: &str| stage.folder.join(name);
    for seq in [0, 1, 255, 256, 1_024, EVENTS as u64] {
        let mut proof = stage.countersign("auditor-1", &["proof", trail, &seq.to_string(), "--force", "--out"]);
        done(proof.arg(at("proof")).arg("--record").arg(at("record")));
        let mut check = stage.binaries.command("countersign-verify");
        check.args(["record", "--vkey", vkey, "--proof"]).arg(at("proof")).arg("--record").arg(at("record"));
        let line = done(&mut check);
        support::says(&line, &["VALID", &format!("record {seq} of {trail}")]);
        let mut bytes = fs::read(at("record")).unwrap();
        let last = bytes.len() - 10;
        bytes[last] ^= 1;
        fs::write(at("record"), bytes).unwrap();
        assert!([40, 50].contains(&check.output().unwrap().status.code().unwrap()));
    }
}

#[test]
fn every_event_in_both_modes_and_both_algorithms() {
    let (_folder, stage) = sealed(Options { trails: every_trail(), ..Options::default() });
    let daemon = stage.start().unwrap();
    let first = sign_all(&stage, "first");
    let after = sizes(&stage);
    for trail in &stage.options.trails {
        assert_eq!(after[&trail.origin], EVENTS as u64 + 1, "{after:?}");
        check_receipts(&stage, &trail.origin, trail.mode, &first[&trail.origin].1);
        check_proofs(&stage, &trail.origin);
    }

    // The same file again: the identical answers, and not one record more.
    let answers = |run: &BTreeMap<String, (PathBuf, Vec<u8>)>| -> Vec<Vec<u8>> {
        run.values().map(|(_, bytes)| bytes.clone()).collect()
    };
    assert!(answers(&sign_all(&stage, "again")) == answers(&first));
    assert_eq!(sizes(&stage), after);

    // And after a restart, of which only the admin trail tells.
    daemon.stop().unwrap();
    let daemon = stage.start().unwrap();
    assert!(answers(&sign_all(&stage, "restarted")) == answers(&first));
    let restarted = sizes(&stage);
    for trail in &stage.options.trails {
        assert_eq!(restarted[&trail.origin], after[&trail.origin]);
    }

    let evidence = export(&stage, "evidence.zip");
    daemon.stop().unwrap();
    let mut known = Vec::new();
    for (path, _) in first.values() {
        known.extend(["--receipt", path.to_str().unwrap()]);
    }
    let (code, line, report) = verify(&stage, &evidence, &known);
    assert_eq!(code, 0, "{line}\n{report:#}");
    for trail in &stage.options.trails {
        let rows = report["trails"].as_array().unwrap();
        let row = rows.iter().find(|row| row["origin"] == trail.origin.as_str()).unwrap();
        assert_eq!(row["proven"]["size"], (EVENTS + 1).to_string(), "{row}");
        assert_eq!(row["mode"], trail.mode);
    }
}
