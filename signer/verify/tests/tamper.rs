//! Tampering is caught by the link that it breaks, with the right exit code and the right record
//! named, also where the manifest was made anew.

mod common;

use common::files::folder;
use common::{
    ADMIN_TRAIL, Appliance, DECISIONS, Files, METRICS, SoftKey, check, failed, origin, time,
    verify_pinned,
};
use countersign_trail::control::Body;
use countersign_trail::evidence::{MANIFEST_FILE, PartLine, parse_parts, write_parts};
use countersign_trail::hash::Hash;
use countersign_trail::keys::Algorithm;
use countersign_trail::record::{Content, Record};
use countersign_trail::tree::leaf_hash;
use countersign_verify::{Outcome, Report, Verdict, text};

/// Who signs the manifest of tampered evidence.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Manifest {
    /// Nobody: it is as it was.
    Left,
    /// Someone with a key of their own, under its own kid or under the genuine one.
    Rogue { genuine_kid: bool },
    /// The genuine evidence key, in the hands of whoever runs the daemon.
    Genuine,
}

const MANIFESTS: [Manifest; 4] = [
    Manifest::Left,
    Manifest::Rogue { genuine_kid: false },
    Manifest::Rogue { genuine_kid: true },
    Manifest::Genuine,
];

fn pack(appliance: &Appliance, files: &Files, manifest: Manifest) -> Vec<u8> {
    let genuine = appliance.evidence_key();
    let rogue = SoftKey::new(Algorithm::Ed25519, 99);
    match manifest {
        Manifest::Left => files.pack(),
        Manifest::Rogue { genuine_kid: false } => files.pack_signed(&rogue, rogue.kid()),
        Manifest::Rogue { genuine_kid: true } => files.pack_signed(&rogue, genuine.kid()),
        Manifest::Genuine => files.pack_signed(genuine, genuine.kid()),
    }
}

/// Checks that evidence is refused with this outcome under every manifest, and that under a genuine
/// one it is these checks that refuse it.
fn refused(appliance: &Appliance, files: &Files, outcome: Outcome, checks: &[&str]) -> Report {
    let mut last = None;
    for manifest in MANIFESTS {
        let report = verify_pinned(appliance, &pack(appliance, files, manifest));
        let expected = if manifest == Manifest::Genuine {
            outcome
        } else {
            Outcome::Tampered
        };
        assert_eq!(
            report.outcome,
            expected,
            "{manifest:?}\n{}",
            text::render(&report)
        );
        let by_manifest = failed(&report)
            .into_iter()
            .any(|name| name.starts_with("manifest"));
        assert_eq!(
            by_manifest,
            manifest != Manifest::Genuine,
            "{}",
            text::render(&report)
        );
        last = Some(report);
    }
    let report = last.unwrap();
    for name in checks {
        assert!(
            failed(&report).contains(name),
            "{name}:\n{}",
            text::render(&report)
        );
    }
    report
}

fn tampered(appliance: &Appliance, files: &Files, checks: &[&str]) -> Report {
    refused(appliance, files, Outcome::Tampered, checks)
}

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
        assert!(
            !failed(&report).contains(&"chain"),
            "{}",
            text::render(&report)
        );
        if trail == DECISIONS {
            assert_eq!(report.first_broken.unwrap().seq, 4);
        }
        // With a checkpoint of a key of their own.
        let mut range = countersign_trail::tree::CompactRange::empty();
        for record in files.records(trail) {
            range.push(leaf_hash(&record)).unwrap();
        }
        let rogue = SoftKey::new(Algorithm::Ed25519, 98);
        let checkpoint = countersign_trail::checkpoint::Checkpoint {
            origin: origin(trail),
            size: 10,
            root: range.root(),
        };
        let signature = rogue.sign(checkpoint.text().as_bytes());
        let signed = countersign_trail::checkpoint::SignedCheckpoint::assemble(
            &checkpoint,
            &rogue.public(),
            &signature,
        )
        .unwrap();
        *files.get_mut(&format!("{}checkpoint", folder(trail))) = signed.to_bytes();
        tampered(&appliance, &files, &["checkpoint"]);
    }
}

#[test]
fn records_inserted_removed_reordered_exchanged_are_named() {
    type Attack = (&'static str, u64, fn(&mut Vec<Vec<u8>>));
    let attacks: [Attack; 6] = [
        ("insert a copy", 4, |records| {
            records.insert(4, records[6].clone())
        }),
        ("insert at the end", 10, |records| {
            records.push(records[9].clone())
        }),
        ("remove", 4, |records| drop(records.remove(4))),
        ("reorder", 3, |records| records.swap(3, 7)),
        ("exchange neighbours", 6, |records| records.swap(6, 7)),
        ("exchange for a copy", 2, |records| {
            records[2] = records[3].clone()
        }),
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
            assert_eq!(
                report.first_broken.unwrap().seq,
                *seq,
                "{what} in {trail}, tiles made anew"
            );
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
    let kept: Vec<PartLine> = parse_parts(files.get(&parts))
        .unwrap()
        .into_iter()
        .filter(|part| part.seq() < 9)
        .collect();
    *files.get_mut(&parts) = write_parts(&kept);
    files.rename(&parts, &format!("{}parts/000.p/9", folder(METRICS)));
    let report = refused(&appliance, &files, Outcome::Incomplete, &["checkpoint"]);
    assert!(
        check(&report, "checkpoint", Some(METRICS))
            .detail
            .contains("the evidence holds 9 records")
    );
}

#[test]
fn a_trail_cut_back_to_an_older_checkpoint_needs_the_evidence_key() {
    let appliance = Appliance::with_records(Algorithm::Ed25519, 10);
    let mut files = appliance.files();
    // Only the checkpoint is exchanged: the evidence holds more than it covers.
    *files.get_mut(&format!("{}checkpoint", folder(METRICS))) =
        appliance.checkpoint(METRICS, 7).to_bytes();
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
    let signed = countersign_trail::checkpoint::SignedCheckpoint::assemble(
        &checkpoint,
        &admin.public(),
        &signature,
    )
    .unwrap();
    *files.get_mut(&name) = signed.to_bytes();
    tampered(&appliance, &files, &["checkpoint"]);
}

#[test]
fn record_signatures_exchanged_or_by_another_key_are_refused() {
    let appliance = Appliance::with_records(Algorithm::EcdsaP256, 6);
    let name = format!("{}signatures/000.p/6", folder(DECISIONS));
    let mut files = appliance.files();
    let mut lines: Vec<Vec<u8>> = files
        .get(&name)
        .split_inclusive(|byte| *byte == b'\n')
        .map(<[u8]>::to_vec)
        .collect();
    lines.swap(2, 4);
    *files.get_mut(&name) = lines.concat();
    let report = tampered(&appliance, &files, &["signatures"]);
    assert_eq!(report.first_broken.unwrap().seq, 2);
    lines.swap(2, 4);
    lines.pop();
    *files.get_mut(&name) = lines.concat();
    refused(&appliance, &files, Outcome::Malformed, &["signatures"]);
    files.remove(&name);
    refused(
        &appliance,
        &files,
        Outcome::Incomplete,
        &["files", "signatures"],
    );
}

#[test]
fn hash_tiles_are_held_against_the_records() {
    let appliance = Appliance::with_records(Algorithm::Ed25519, 6);
    let name = format!("{}tile/0/000.p/6", folder(METRICS));
    let mut files = appliance.files();
    files.get_mut(&name)[3 * 32] ^= 1;
    let report = tampered(&appliance, &files, &["tiles"]);
    assert!(
        check(&report, "tiles", Some(METRICS))
            .detail
            .contains("for record 3")
    );
    // The records themselves hold.
    assert_eq!(report.first_broken, None);
    files.remove(&name);
    refused(&appliance, &files, Outcome::Incomplete, &["files"]);
}

#[test]
fn parts_are_held_against_the_commitments() {
    let appliance = Appliance::with_records(Algorithm::Ed25519, 6);
    let name = format!("{}parts/000.p/6", folder(DECISIONS));
    let change = |change: &dyn Fn(&mut Vec<PartLine>)| {
        let mut files = appliance.files();
        let mut parts = parse_parts(files.get(&name)).unwrap();
        change(&mut parts);
        *files.get_mut(&name) = write_parts(&parts);
        files
    };
    let altered = change(&|parts| {
        let PartLine::Given { data, .. } = &mut parts[3] else {
            panic!("facts of record 2")
        };
        data.push(b' ');
    });
    let report = tampered(&appliance, &altered, &["parts"]);
    let broken = report.first_broken.unwrap();
    assert_eq!((broken.seq, broken.check), (2, "parts"));
    assert!(
        broken.expected.is_some() && broken.actual.is_some() && broken.expected != broken.actual
    );
    let renamed = change(&|parts| {
        if let PartLine::Given { name, .. } = &mut parts[3] {
            *name = countersign_trail::id::PartName::parse("extra").unwrap();
        }
    });
    let report = tampered(&appliance, &renamed, &["parts"]);
    assert_eq!(report.first_broken.unwrap().seq, 2);
    let missing = change(&|parts| drop(parts.remove(3)));
    let report = refused(&appliance, &missing, Outcome::Incomplete, &["parts"]);
    assert!(
        check(&report, "parts", Some(DECISIONS))
            .detail
            .contains("record 2: part facts is neither")
    );
    let mut disordered = appliance.files();
    let mut parts = parse_parts(disordered.get(&name)).unwrap();
    parts.swap(0, 1);
    *disordered.get_mut(&name) = write_parts(&parts);
    refused(&appliance, &disordered, Outcome::Malformed, &["parts"]);
}

#[test]
fn key_files_are_held_against_the_admin_trail() {
    let appliance = Appliance::with_records(Algorithm::Ed25519, 2);
    for (file, name) in [
        ("keys.json", "keys-file"),
        ("jwks.json", "jwks"),
        ("vkeys.txt", "vkeys"),
    ] {
        let mut files = appliance.files();
        files.get_mut(file)[20] ^= 1;
        tampered(&appliance, &files, &[name]);
    }
    let mut files = appliance.files();
    let pem = files
        .0
        .iter()
        .find(|(name, _)| name.ends_with(".pem"))
        .unwrap()
        .0
        .clone();
    files.get_mut(&pem)[40] ^= 1;
    tampered(&appliance, &files, &["pem"]);
    files.remove(&pem);
    refused(&appliance, &files, Outcome::Malformed, &["pem"]);
}

#[test]
fn documents_are_held_against_their_names_and_the_admin_trail() {
    let appliance = Appliance::with_records(Algorithm::Ed25519, 2);
    let files = appliance.files();
    let documents: Vec<String> = files
        .0
        .iter()
        .map(|(name, _)| name.clone())
        .filter(|name| name.starts_with("documents/"))
        .collect();
    assert_eq!(documents.len(), 6);
    for name in &documents {
        let mut changed = files.clone();
        changed.get_mut(name)[10] ^= 1;
        let mut removed = files.clone();
        removed.remove(name);
        for manifest in MANIFESTS {
            let report = verify_pinned(&appliance, &pack(&appliance, &changed, manifest));
            assert_eq!(report.exit_code, 40, "{}", text::render(&report));
            assert!(
                failed(&report).contains(&"documents"),
                "{}",
                text::render(&report)
            );
            let report = verify_pinned(&appliance, &pack(&appliance, &removed, manifest));
            assert_eq!(report.exit_code, 40, "{}", text::render(&report));
        }
    }
    let mut added = files.clone();
    let content = b"not named".to_vec();
    let name = format!("documents/{}", Hash::of(&content));
    added.0.push((name, content));
    added
        .0
        .sort_by_key(|(name, _)| !name.starts_with("documents/"));
    added.0[..7].sort();
    tampered(&appliance, &added, &["documents-named"]);
}

#[test]
fn a_missing_administrator_is_found() {
    let mut ceremony = common::trail::Ceremony::new();
    let mut signatures = ceremony.signatures();
    signatures.remove(1);
    let seal = ceremony.seal(signatures);
    let appliance = Appliance::sealed_by(ceremony, &seal);
    // The writer replays the admin trail itself, and refuses: the evidence is made of another's.
    let whole = Appliance::new();
    let mut files = whole.files();
    assert!(std::panic::catch_unwind(|| appliance.state()).is_err());
    let record = appliance.records(ADMIN_TRAIL)[1].bytes.clone();
    files.set_records(
        ADMIN_TRAIL,
        &[appliance.records(ADMIN_TRAIL)[0].bytes.clone(), record],
    );
    files.remake_hashes(ADMIN_TRAIL);
    *files.get_mut(&format!("{}checkpoint", folder(ADMIN_TRAIL))) =
        appliance.checkpoint(ADMIN_TRAIL, 2).to_bytes();
    files.0.retain(|(name, _)| !name.starts_with("documents/"));
    let store = appliance.ceremony.store.0.iter();
    let documents = store.map(|(hash, bytes)| (format!("documents/{hash}"), bytes.clone()));
    files.0.splice(0..0, documents);
    let key = appliance.evidence_key();
    let report = verify_pinned(&appliance, &files.pack_signed(key, key.kid()));
    assert_eq!(report.exit_code, 40);
    assert!(
        failed(&report).contains(&"genesis-signatures"),
        "{}",
        text::render(&report)
    );
    assert!(
        check(&report, "genesis-signatures", None)
            .detail
            .contains("signature of bob")
    );
    assert!(failed(&report).contains(&"genesis-sealed"));
    assert!(
        report.trails.iter().all(|trail| trail.proven.is_none()),
        "{}",
        text::render(&report)
    );
}

#[test]
fn a_client_without_a_grant_a_repeated_event_and_a_false_silence_are_found() {
    let mut appliance = Appliance::with_records(Algorithm::Ed25519, 3);
    let mut record = Record::parse(&appliance.records(METRICS)[2].bytes).unwrap();
    let Content::Event(event) = &mut record.content else {
        panic!("an event")
    };
    event.client = countersign_trail::id::MemberId::parse("olga").unwrap();
    let mut again = record.clone();
    for (seq, record) in [(3, &mut record), (4, &mut again)] {
        record.header.seq = seq;
        record.header.prev = leaf_hash(&appliance.records(METRICS)[seq as usize - 1].bytes);
        appliance.push(
            METRICS,
            record,
            appliance.records(METRICS)[2]
                .parts
                .iter()
                .map(|part| at(part, seq))
                .collect(),
        );
    }
    let since = time(7);
    appliance.clock += 100;
    appliance.control(
        METRICS,
        &Body::Heartbeat(countersign_trail::control::HeartbeatBody { since }),
    );
    let report = verify_pinned(&appliance, &appliance.bundle());
    assert_eq!(
        report.outcome,
        Outcome::Tampered,
        "{}",
        text::render(&report)
    );
    assert_eq!(
        failed(&report),
        ["clients", "event-ids", "gaps"],
        "{}",
        text::render(&report)
    );
    assert_eq!(
        check(&report, "event-ids", Some(METRICS)).verdict,
        Verdict::Failed
    );
    assert_eq!(report.first_broken.unwrap().seq, 3);
}

fn at(part: &PartLine, at: u64) -> PartLine {
    let mut part = part.clone();
    match &mut part {
        PartLine::Given { seq, .. } | PartLine::Withheld { seq, .. } => *seq = at,
    }
    part
}

#[test]
fn a_missing_or_foreign_manifest_is_malformed() {
    let appliance = Appliance::with_records(Algorithm::Ed25519, 2);
    let mut files = appliance.files();
    files.remove(MANIFEST_FILE);
    let report = verify_pinned(&appliance, &files.pack());
    assert_eq!((report.exit_code, failed(&report)), (50, vec!["manifest"]));
    let mut foreign = appliance.files();
    foreign
        .0
        .insert(0, ("readme.txt".to_owned(), b"hello".to_vec()));
    refused(&appliance, &foreign, Outcome::Malformed, &["layout"]);
    let mut moved = appliance.files();
    moved.0.swap(0, 1);
    refused(&appliance, &moved, Outcome::Malformed, &["layout"]);
    let mut doubled = appliance.files();
    let mut tile = doubled
        .0
        .iter()
        .find(|(name, _)| name.contains("metrics/tile/0"))
        .unwrap()
        .clone();
    tile.0 = tile.0.replace("000.p/2", "001.p/2");
    let at = doubled
        .0
        .iter()
        .position(|(name, _)| name.contains("metrics/parts"))
        .unwrap();
    doubled.0.insert(at, tile);
    tampered(&appliance, &doubled, &["files", "tiles"]);
}
