//! Tampering is caught by the link that it breaks, with the right exit code and the right record
//! named, also where the manifest was made anew.
#![cfg(test)]

mod common;

use common::files::folder;
use common::tampering::{refused, tampered};
use common::{ADMIN_TRAIL, Appliance, DECISIONS, METRICS, SoftKey, check, failed, origin};
use countersign_trail::evidence::{PartLine, parse_parts, write_parts};
use countersign_trail::keys::Algorithm;
use countersign_trail::record::Record;
use countersign_trail::tree::leaf_hash;
use countersign_verify::{Outcome, text};

/// Changes a record so that it still parses: another result of the same length.
fn altered(record: &[u8]) -> Vec<u8> {
    let text = String::from_utf8(record.to_vec()).unwrap();
    let other = text.replace("\"decision\":\"allow\"", "\"decision\":\"block\"");
    assert_ne!(other, text);
    other.into_bytes()
}

/// Rewrites sequence numbers and hash chain from record 1 on: what whoever holds no key can do.
fn rechained(records: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let mut out: Vec<Vec<u8>> = vec![records[0].clone()];
    for (seq, bytes) in (1..).zip(&records[1..]) {
        let mut record = Record::parse(bytes).unwrap();
        let before = Record::parse(&out[out.len() - 1]).unwrap();
        record.header.seq = seq;
        record.header.prev = leaf_hash(&out[out.len() - 1]);
        record.header.time = record.header.time.max(before.header.time);
        out.push(record.to_bytes().unwrap());
    }
    out
}

#[test]
fn an_altered_record_is_named() {
    for trail in [DECISIONS, METRICS] {
        for seq in [1, 5, 9] {
            let appliance = Appliance::with_records(Algorithm::Ed25519, 10);
            let mut files = appliance.files();
            let mut records = files.records(trail);
            let expected = leaf_hash(&records[seq]);
            records[seq] = altered(&records[seq]);
            files.set_records(trail, &records);
            let report = tampered(&appliance, &files, &["tiles", "checkpoint"]);
            let broken = report.first_broken.unwrap();
            assert_eq!((broken.trail, broken.seq), (origin(trail), seq as u64));
            assert_eq!(broken.expected, Some(expected));
            assert_eq!(broken.actual, Some(leaf_hash(&records[seq])));
        }
    }
}

#[test]
fn an_altered_record_is_named_though_the_tiles_are_made_anew() {
    let appliance = Appliance::with_records(Algorithm::EcdsaP256, 10);
    for (trail, name) in [(DECISIONS, "signatures"), (METRICS, "chain")] {
        let mut files = appliance.files();
        let mut records = files.records(trail);
        records[4] = altered(&records[4]);
        files.set_records(trail, &records);
        files.remake_hashes(trail);
        let report = tampered(&appliance, &files, &["chain", "checkpoint", name]);
        // In batch mode nothing tells record 4 from the prev in record 5.
        let seq = if trail == DECISIONS { 4 } else { 5 };
        assert_eq!(report.first_broken.unwrap().seq, seq);
    }
}

#[test]
fn a_whole_trail_made_anew_is_refused_by_its_checkpoint_and_signatures() {
    let appliance = Appliance::with_records(Algorithm::Ed25519, 10);
    for trail in [DECISIONS, METRICS] {
        let mut files = appliance.files();
        let mut records = files.records(trail);
        records[4] = altered(&records[4]);
        files.set_records(trail, &rechained(&records));
        files.remake_hashes(trail);
        let report = tampered(&appliance, &files, &["checkpoint"]);
        assert!(!failed(&report).contains(&"chain"), "{}", text::render(&report));
        if trail == DECISIONS {
            assert_eq!(report.first_broken.unwrap().seq, 4);
        }
        // With a checkpoint of a key of their own.
        let mut range = countersign_trail::tree::CompactRange::empty();
        for record in files.records(trail) {
            range.push(leaf_hash(&record)).unwrap();
        }
        let rogue = SoftKey::new(Algorithm::Ed25519, 98);
        let checkpoint =
            countersign_trail::checkpoint::Checkpoint { origin: origin(trail), size: 10, root: range.root() };
        let signature = rogue.sign(checkpoint.text().as_bytes());
        let signed =
            countersign_trail::checkpoint::SignedCheckpoint::assemble(&checkpoint, &rogue.public(), &signature)
                .unwrap();
        *files.get_mut(&format!("{}checkpoint", folder(trail))) = signed.to_bytes();
        tampered(&appliance, &files, &["checkpoint"]);
    }
}

#[test]
fn records_inserted_removed_reordered_exchanged_are_named() {
    type Attack = (&'static str, u64, fn(&mut Vec<Vec<u8>>));
    let attacks: [Attack; 6] = [
        ("insert a copy", 4, |records| records.insert(4, records[6].clone())),
        ("insert at the end", 10, |records| records.push(records[9].clone())),
        ("remove", 4, |records| drop(records.remove(4))),
        ("reorder", 3, |records| records.swap(3, 7)),
        ("exchange neighbours", 6, |records| records.swap(6, 7)),
        ("exchange for a copy", 2, |records| records[2] = records[3].clone()),
    ];
    let appliance = Appliance::with_records(Algorithm::Ed25519, 10);
    for trail in [DECISIONS, METRICS] {
        for (what, seq, attack) in &attacks {
            let mut records = appliance.files().records(trail);
            attack(&mut records);
            let mut files = appliance.files();
            files.set_records(trail, &records);
            let report = tampered(&appliance, &files, &["chain"]);
            assert_eq!(report.first_broken.unwrap().seq, *seq, "{what} in {trail}");
            // The hash tile made anew: the chain still names it.
            files.remake_hashes(trail);
            let report = tampered(&appliance, &files, &["chain"]);
            assert_eq!(report.first_broken.unwrap().seq, *seq, "{what} in {trail}, tiles made anew");
            // The chain made anew: without the trail's key its checkpoint refuses it.
            files.set_records(trail, &rechained(&records));
            files.remake_hashes(trail);
            tampered(&appliance, &files, &["checkpoint"]);
        }
    }
}

#[test]
fn the_last_record_removed_is_incomplete_under_a_genuine_manifest() {
    let appliance = Appliance::with_records(Algorithm::Ed25519, 10);
    let mut files = appliance.files();
    let mut records = files.records(METRICS);
    records.pop();
    files.set_records(METRICS, &records);
    files.remake_hashes(METRICS);
    let parts = format!("{}parts/000.p/10", folder(METRICS));
    let kept: Vec<PartLine> =
        parse_parts(files.get(&parts)).unwrap().into_iter().filter(|part| part.seq() < 9).collect();
    *files.get_mut(&parts) = write_parts(&kept);
    files.rename(&parts, &format!("{}parts/000.p/9", folder(METRICS)));
    let report = refused(&appliance, &files, Outcome::Incomplete, &["checkpoint"]);
    assert!(check(&report, "checkpoint", Some(METRICS)).detail.contains("the evidence holds 9 records"));
}

#[test]
fn a_trail_cut_back_to_an_older_checkpoint_needs_the_evidence_key() {
    let appliance = Appliance::with_records(Algorithm::Ed25519, 10);
    let mut files = appliance.files();
    // Only the checkpoint is exchanged: the evidence holds more than it covers.
    *files.get_mut(&format!("{}checkpoint", folder(METRICS))) = appliance.checkpoint(METRICS, 7).to_bytes();
    tampered(&appliance, &files, &["checkpoint"]);
}

#[test]
fn a_checkpoint_of_another_trail_or_the_admin_key_is_refused() {
    let appliance = Appliance::with_records(Algorithm::Ed25519, 4);
    let name = format!("{}checkpoint", folder(METRICS));
    let mut files = appliance.files();
    *files.get_mut(&name) = appliance.checkpoint(DECISIONS, 4).to_bytes();
    tampered(&appliance, &files, &["checkpoint"]);
    let checkpoint = appliance.checkpoint(METRICS, 4).checkpoint().clone();
    let admin = appliance.key(appliance.checkpoint_kid(ADMIN_TRAIL));
    let signature = admin.sign(checkpoint.text().as_bytes());
    let signed =
        countersign_trail::checkpoint::SignedCheckpoint::assemble(&checkpoint, &admin.public(), &signature).unwrap();
    *files.get_mut(&name) = signed.to_bytes();
    tampered(&appliance, &files, &["checkpoint"]);
}

#[test]
fn record_signatures_exchanged_or_by_another_key_are_refused() {
    let appliance = Appliance::with_records(Algorithm::EcdsaP256, 6);
    let name = format!("{}signatures/000.p/6", folder(DECISIONS));
    let mut files = appliance.files();
    let mut lines: Vec<Vec<u8>> = files.get(&name).split_inclusive(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect();
    lines.swap(2, 4);
    *files.get_mut(&name) = lines.concat();
    let report = tampered(&appliance, &files, &["signatures"]);
    assert_eq!(report.first_broken.unwrap().seq, 2);
    lines.swap(2, 4);
    lines.pop();
    *files.get_mut(&name) = lines.concat();
    refused(&appliance, &files, Outcome::Malformed, &["signatures"]);
    files.remove(&name);
    refused(&appliance, &files, Outcome::Incomplete, &["files", "signatures"]);
}

#[test]
fn hash_tiles_are_held_against_the_records() {
    let appliance = Appliance::with_records(Algorithm::Ed25519, 6);
    let name = format!("{}tile/0/000.p/6", folder(METRICS));
    let mut files = appliance.files();
    files.get_mut(&name)[3 * 32] ^= 1;
    let report = tampered(&appliance, &files, &["tiles"]);
    assert!(check(&report, "tiles", Some(METRICS)).detail.contains("for record 3"));
    // The records themselves hold.
    assert_eq!(report.first_broken, None);
    files.remove(&name);
    refused(&appliance, &files, Outcome::Incomplete, &["files"]);
}
