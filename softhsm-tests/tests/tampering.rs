//! Real evidence, changed: every change is caught with the right exit code and the right record
//! named, and an older export says what it proves.
//!
//! Where the build is optimised (`cargo test --release`) every byte of the small bundle and 1,000
//! random bytes of the large one are changed; otherwise that would take an hour, and every 97th byte
//! and 24 random ones are.
#![cfg(test)]

mod support;

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use countersign_stage::{Options, Stage};
use countersign_trail::hash::Hash;
use countersign_verify::{Options as VerifyOptions, Outcome, Report, text};
use support::bundle::{Files, Place, places};
use support::{SAMPLE, done, events, export, sealed, sign, verify};
use tempfile::TempDir;

/// Events in each of the two trails of the small bundle: with record 0, 20 records together.
const FEW: usize = 9;

fn report(bundle: &[u8], pinned: &str) -> Report {
    let options = VerifyOptions { threads: 1, ..VerifyOptions::default() };
    countersign_verify::verify(bundle, Some(pinned.parse::<Hash>().unwrap()), &options)
}

/// Changes the byte at `at` to another value and checks the report.
fn check_byte(pinned: &str, bundle: &mut [u8], places: &[Place], at: usize) {
    let mask = (at % 255) as u8 + 1;
    bundle[at] ^= mask;
    let report = report(bundle, pinned);
    bundle[at] ^= mask;
    let place = &places[at];
    let shown = || format!("byte {at}, {place:?}\n{}", text::render(&report));
    match place {
        Place::Archive => assert_eq!(report.outcome, Outcome::Malformed, "{}", shown()),
        Place::File => assert!(matches!(report.outcome, Outcome::Tampered | Outcome::Malformed), "{}", shown()),
        Place::Record(origin, seq) => {
            assert_eq!(report.outcome, Outcome::Tampered, "{}", shown());
            let broken = report.first_broken.as_ref().map(|broken| (&broken.trail, broken.seq));
            assert_eq!(broken, Some((origin, *seq)), "{}", shown());
        }
    }
}

/// Checks the bytes at these places, on all cores.
fn check_bytes(pinned: &str, bundle: &[u8], wanted: &[usize]) {
    let places = places(bundle);
    assert_eq!(places.len(), bundle.len());
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                let mut bundle = bundle.to_vec();
                while let Some(at) = wanted.get(next.fetch_add(1, Ordering::Relaxed)) {
                    check_byte(pinned, &mut bundle, &places, *at);
                }
            });
        }
    });
}

/// An appliance (batch mode with Ed25519, record mode with P-256) that signed `file` into both trails,
/// and its evidence, which is valid.
fn evidence(file: impl Fn(&Stage) -> std::path::PathBuf) -> (TempDir, Stage, Vec<u8>) {
    let (folder, stage) = sealed(Options { workers: 1, ..Options::default() });
    let daemon = stage.start().unwrap();
    for trail in &stage.options.trails {
        sign(&stage, &trail.origin, &file(&stage), "receipts.jsonl");
    }
    let path = export(&stage, "evidence.zip");
    daemon.stop().unwrap();
    let bundle = fs::read(path).unwrap();
    assert_eq!(report(&bundle, &stage.fingerprint).outcome, Outcome::Valid);
    (folder, stage, bundle)
}

#[test]
fn every_byte_of_a_bundle_of_20_records() {
    let (_folder, stage, bundle) = evidence(|stage| events(stage, 0, FEW));
    let step = if cfg!(debug_assertions) { 97 } else { 1 };
    let wanted: Vec<usize> = (0..bundle.len()).step_by(step).collect();
    check_bytes(&stage.fingerprint, &bundle, &wanted);
}

#[test]
fn random_bytes_of_a_large_bundle() {
    let (_folder, stage, bundle) = evidence(|_| SAMPLE.into());
    let mut seed = 20_261_120_u64;
    let mut below = |bound: usize| {
        // xorshift64: the same places in every run over a bundle of the same length.
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        (seed % bound as u64) as usize
    };
    let count = if cfg!(debug_assertions) { 24 } else { 1_000 };
    let wanted: Vec<usize> = (0..count).map(|_| below(bundle.len())).collect();
    check_bytes(&stage.fingerprint, &bundle, &wanted);
}

#[test]
fn records_inserted_removed_reordered_exchanged() {
    type Attack = (&'static str, u64, fn(&mut Vec<Vec<u8>>));
    let attacks: [Attack; 6] = [
        ("insert a copy", 4, |records| records.insert(4, records[6].clone())),
        ("insert at the end", 10, |records| records.push(records[9].clone())),
        ("remove", 4, |records| drop(records.remove(4))),
        ("reorder", 3, |records| records.swap(3, 7)),
        ("exchange neighbours", 6, |records| records.swap(6, 7)),
        ("exchange for a copy", 2, |records| records[2] = records[3].clone()),
    ];
    let (_folder, stage, bundle) = evidence(|stage| events(stage, 0, FEW));
    let path = stage.folder.join("changed.zip");
    let check = |files: &Files, what: &str, trail: &str, seq: u64| {
        fs::write(&path, files.pack()).unwrap();
        let (code, line, report) = verify(&stage, &path, &[]);
        assert_eq!(code, 40, "{what} in {trail}: {line}");
        let broken = &report["first_broken"];
        assert_eq!(
            (broken["trail"].as_str(), broken["seq"].as_str()),
            (Some(trail), Some(&*seq.to_string())),
            "{what}"
        );
    };
    let origins: Vec<&str> = stage.options.trails.iter().map(|trail| trail.origin.as_str()).collect();
    for trail in &origins {
        for (what, seq, attack) in &attacks {
            let mut files = Files::of(&bundle);
            let mut records = files.records(trail);
            assert_eq!(records.len(), FEW + 1);
            attack(&mut records);
            files.set_records(trail, &records);
            check(&files, what, trail, *seq);
        }
    }
    // A record of the other trail in the place of this one's.
    let mut files = Files::of(&bundle);
    let (mut here, there) = (files.records(origins[0]), files.records(origins[1]));
    here[5] = there[5].clone();
    files.set_records(origins[0], &here);
    check(&files, "exchange between trails", origins[0], 5);
}

#[test]
fn an_older_export_says_what_it_proves() {
    let (_folder, stage) = sealed(Options { workers: 1, ..Options::default() });
    let daemon = stage.start().unwrap();
    let (first, then) = (events(&stage, 0, 12), events(&stage, 12, 24));
    for trail in &stage.options.trails {
        sign(&stage, &trail.origin, &first, "older.jsonl");
    }
    let older = export(&stage, "older.zip");
    let (code, _, report) = verify(&stage, &older, &[]);
    assert_eq!(code, 0);
    let trails = report["trails"].as_array().unwrap().clone();
    for trail in &stage.options.trails {
        let origin = trail.origin.as_str();
        let row = trails.iter().find(|row| row["origin"] == origin).unwrap();
        let (size, time) = (row["proven"]["size"].as_str().unwrap(), row["proven"]["last_time"].as_str().unwrap());
        assert_eq!(size, "13");
        let verdict = row["verdict"].as_str().unwrap();
        support::says(verdict, &["proven to size 13", time, "nothing known after"]);

        let receipts = sign(&stage, origin, &then, "newer.jsonl");
        let head = stage.folder.join("head");
        done(stage.countersign("auditor-1", &["head", origin, "--out"]).arg(&head));
        let newest = newest_time(&receipts);
        check_older(&stage, &older, origin, &["--head", path(&head)]);
        check_older(&stage, &older, origin, &["--receipt", path(&receipts)]);
        let (code, line, _) = verify(&stage, &older, &["--as-of", &newest]);
        assert_eq!(code, 20, "{line}");
        // What it does reach is no reservation.
        let (code, line, _) = verify(&stage, &older, &["--as-of", "2020-01-01"]);
        assert_eq!(code, 0, "{line}");
        fs::remove_file(head).unwrap();
    }
    let newer = export(&stage, "newer.zip");
    daemon.stop().unwrap();
    assert_eq!(verify(&stage, &newer, &["--receipt", path(&stage.folder.join("newer.jsonl"))]).0, 0);
}

fn path(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// The time of the last record of a file of receipts.
fn newest_time(receipts: &Path) -> String {
    let receipts = countersign_trail::receipt::Receipt::parse_lines(&fs::read(receipts).unwrap()).unwrap();
    receipts.last().unwrap().record.header.time.to_string()
}

/// With what is known of later, the older export is incomplete: it names what it proves, and what is
/// known beyond that.
fn check_older(stage: &Stage, older: &Path, origin: &str, known: &[&str]) {
    let (code, line, report) = verify(stage, older, known);
    assert_eq!(code, 20, "{known:?}: {line}");
    assert_eq!(report["outcome"], "incomplete");
    let row = report["trails"].as_array().unwrap().iter().find(|row| row["origin"] == origin).unwrap();
    assert_eq!(row["proven"]["size"], "13");
    let verdict = row["verdict"].as_str().unwrap();
    support::says(verdict, &["proven to size 13", row["proven"]["last_time"].as_str().unwrap(), "25"]);
    assert!(!verdict.contains("nothing known after"), "{verdict}");
}
