//! What the auditor knows from elsewhere: older genuine evidence, forks, made-up heads.
#![cfg(test)]

mod common;

use std::collections::BTreeMap;

use common::{ADMIN_TRAIL, Appliance, DECISIONS, Export, METRICS, SoftKey, check, failed, origin, with_verdict};
use countersign_trail::checkpoint::{Checkpoint, SignedCheckpoint};
use countersign_trail::hash::Hash;
use countersign_trail::keys::Algorithm;
use countersign_trail::receipt::{Receipt, ReceiptProof};
use countersign_verify::{KnownHead, KnownReceipt, Options, Outcome, Report, Verdict, text, verify};

/// An appliance with 10 records a trail, and genuine evidence from when METRICS had 4.
fn cut_back() -> (Appliance, Vec<u8>) {
    let appliance = Appliance::with_records(Algorithm::Ed25519, 10);
    let sizes = BTreeMap::from([(origin(METRICS), 4)]);
    let older = appliance.export(&Export { sizes, ..Export::default() });
    (appliance, older)
}

fn run(appliance: &Appliance, bundle: &[u8], options: Options<'_>) -> Report {
    verify(bundle, Some(appliance.fingerprint()), &options)
}

fn head(checkpoint: SignedCheckpoint) -> Options<'static> {
    let heads = KnownHead::parse_file("held.checkpoint", &checkpoint.to_bytes()).unwrap();
    Options { heads, ..Options::default() }
}

fn receipt(receipt: &Receipt) -> Options<'static> {
    let mut file = receipt.to_bytes().unwrap();
    file.push(b'\n');
    let receipts = KnownReceipt::parse_file("receipts.jsonl", &file).unwrap();
    Options { receipts, ..Options::default() }
}

#[test]
fn older_genuine_evidence_is_valid_and_says_what_it_proves() {
    let (appliance, older) = cut_back();
    let report = run(&appliance, &older, Options::default());
    assert_eq!(report.outcome, Outcome::Valid, "{}", text::render(&report));
    let time = countersign_trail::record::Record::parse(&appliance.records(METRICS)[3].bytes).unwrap().header.time;
    assert_eq!(report.trails[2].verdict, format!("proven to size 4, last time {time}, nothing known after"));
}

#[test]
fn a_held_head_catches_evidence_that_was_cut_back() {
    let (appliance, older) = cut_back();
    let report = run(&appliance, &older, head(appliance.checkpoint(METRICS, 7)));
    assert_eq!((report.outcome, report.exit_code), (Outcome::Incomplete, 20));
    let found = check(&report, "head", Some(METRICS));
    assert_eq!(found.verdict, Verdict::NotChecked);
    assert!(found.detail.contains("the evidence ends at size 4"), "{}", found.detail);
    assert!(report.trails[2].verdict.ends_with("known to go on to size 7 at least"), "{}", report.trails[2].verdict);
    for size in [1, 3, 4] {
        let report = run(&appliance, &older, head(appliance.checkpoint(METRICS, size)));
        assert_eq!(report.outcome, Outcome::Valid, "{}", text::render(&report));
    }
}

#[test]
fn as_of_catches_evidence_that_was_cut_back() {
    let (appliance, older) = cut_back();
    let last = appliance.last_time(METRICS);
    let report = run(&appliance, &older, Options { as_of: Some(last), ..Options::default() });
    assert_eq!(report.exit_code, 20);
    assert_eq!(check(&report, "as-of", Some(METRICS)).verdict, Verdict::Failed);
    // What is proven stays proven.
    assert!(report.trails[2].proven.is_some());
    let as_of = Some(appliance.last_time(DECISIONS));
    let report = run(&appliance, &appliance.bundle(), Options { as_of, ..Options::default() });
    assert_eq!(report.outcome, Outcome::Valid, "{}", text::render(&report));
}

#[test]
fn a_receipt_catches_evidence_that_was_cut_back() {
    let appliance = Appliance::with_records(Algorithm::EcdsaP256, 10);
    let sizes = BTreeMap::from([(origin(METRICS), 4), (origin(DECISIONS), 4)]);
    let older = appliance.export(&Export { sizes, ..Export::default() });
    for trail in [DECISIONS, METRICS] {
        let report = run(&appliance, &older, receipt(&appliance.receipt(trail, 6)));
        assert_eq!(report.exit_code, 20, "{}", text::render(&report));
        let found = check(&report, "receipt", Some(trail));
        assert!(found.detail.contains("the evidence ends at size 4"), "{}", found.detail);
        let whole = run(&appliance, &appliance.bundle(), receipt(&appliance.receipt(trail, 6)));
        assert_eq!(whole.outcome, Outcome::Valid, "{}", text::render(&whole));
        assert_eq!(check(&whole, "receipt", Some(trail)).verdict, Verdict::Passed);
    }
    // The record is there, the checkpoint that proved it is of a later size.
    let report = run(&appliance, &older, receipt(&appliance.receipt(METRICS, 2)));
    assert_eq!(report.exit_code, 20, "{}", text::render(&report));
}

/// Two histories of one trail, both signed by its key: same genesis, other record 5.
fn forked() -> (Appliance, Appliance) {
    let mut one = Appliance::with_records(Algorithm::Ed25519, 5);
    let mut other = Appliance::with_records(Algorithm::Ed25519, 5);
    other.trails = one.trails.clone();
    other.ceremony.fingerprint = one.ceremony.fingerprint;
    other.ceremony.store = one.ceremony.store.clone();
    other.ceremony.genesis = one.ceremony.genesis.clone();
    for trail in [DECISIONS, METRICS] {
        one.event(trail, 100);
        other.event(trail, 200);
        other.event(trail, 201);
    }
    (one, other)
}

#[test]
fn a_head_of_another_history_is_a_fork() {
    let (one, other) = forked();
    assert_eq!(run(&one, &other.bundle(), Options::default()).outcome, Outcome::Valid);
    let report = run(&one, &other.bundle(), head(one.checkpoint(METRICS, 6)));
    assert_eq!((report.outcome, report.exit_code), (Outcome::Fork, 30), "{}", text::render(&report));
    assert_eq!(failed(&report), ["head"]);
    // A prefix of both says nothing against either.
    let report = run(&one, &other.bundle(), head(one.checkpoint(METRICS, 5)));
    assert_eq!(report.outcome, Outcome::Valid);
}

#[test]
fn a_receipt_of_another_history_is_a_fork() {
    let (one, other) = forked();
    for trail in [DECISIONS, METRICS] {
        let report = run(&one, &other.bundle(), receipt(&one.receipt(trail, 5)));
        assert_eq!((report.outcome, report.exit_code), (Outcome::Fork, 30), "{}", text::render(&report));
        assert_eq!(failed(&report), ["receipt"]);
    }
}

#[test]
fn a_head_in_an_admin_record_of_another_history_is_a_fork() {
    let (mut one, other) = forked();
    one.start();
    one.trails.insert(origin(METRICS), other.trails[&origin(METRICS)].clone());
    let report = run(&one, &one.bundle(), Options::default());
    assert_eq!(report.exit_code, 30, "{}", text::render(&report));
    assert_eq!(failed(&report), ["admin-heads"]);
}

#[test]
fn a_signature_over_another_record_at_the_same_place_is_a_fork() {
    let (one, other) = forked();
    let mut files = one.files();
    let line = |appliance: &Appliance| {
        let files = appliance.files();
        let (_, content) = files.0.into_iter().find(|(name, _)| name.contains("/signatures/")).unwrap();
        content.split_inclusive(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect::<Vec<_>>()
    };
    let mut lines = line(&one);
    lines[5] = line(&other)[5].clone();
    let name = files.0.iter().find(|(name, _)| name.contains("/signatures/")).unwrap().0.clone();
    *files.get_mut(&name) = lines.concat();
    let key = one.evidence_key();
    let report = run(&one, &files.pack_signed(key, key.kid()), Options::default());
    assert_eq!(report.exit_code, 30, "{}", text::render(&report));
    assert_eq!(failed(&report), ["signatures"]);
    assert_eq!(report.first_broken.unwrap().seq, 5);
}

#[test]
fn a_made_up_head_or_receipt_proves_nothing() {
    let (appliance, older) = cut_back();
    let rogue = SoftKey::new(Algorithm::Ed25519, 99);
    let checkpoint = Checkpoint { origin: origin(METRICS), size: 9, root: Hash::of(b"made up") };
    let signature = rogue.sign(checkpoint.text().as_bytes());
    let made_up = SignedCheckpoint::assemble(&checkpoint, &rogue.public(), &signature).unwrap();
    let report = run(&appliance, &older, head(made_up));
    assert_eq!(report.exit_code, 40);
    assert_eq!(failed(&report), ["head"]);
    assert!(report.trails[2].verdict.ends_with("nothing known after"));

    let genuine = appliance.receipt(DECISIONS, 6);
    let ReceiptProof::Signature(mut signature) = genuine.proof else { panic!("record mode") };
    signature[7] ^= 1;
    let forged = Receipt::new(genuine.bytes, genuine.kid, ReceiptProof::Signature(signature)).unwrap();
    let report = run(&appliance, &older, receipt(&forged));
    assert_eq!(report.exit_code, 40);
    assert_eq!(failed(&report), ["receipt"]);
}

#[test]
fn many_receipts_are_summed_up() {
    let (appliance, older) = cut_back();
    let mut file = Vec::new();
    for _ in 0..10 {
        for seq in 1..10 {
            file.extend(appliance.receipt(DECISIONS, seq).to_bytes().unwrap());
            file.push(b'\n');
            file.extend(appliance.receipt(METRICS, seq).to_bytes().unwrap());
            file.push(b'\n');
        }
    }
    let receipts = KnownReceipt::parse_file("receipts.jsonl", &file).unwrap();
    let report = run(&appliance, &older, Options { receipts: receipts.clone(), ..Options::default() });
    assert_eq!(report.exit_code, 20, "{}", text::render(&report));
    let found = receipts_of(&report);
    assert_eq!(found.len(), 22, "{found:#?}");
    assert_eq!(found[0], (Verdict::Passed, "90 receipts: each record stands where it was promised"));
    assert!(found[1..21].iter().all(|(verdict, _)| *verdict == Verdict::NotChecked), "{found:#?}");
    // Of METRICS, 10 times 9: its checkpoint is of a later size than the evidence.
    assert_eq!(found[21], (Verdict::NotChecked, "70 more receipts lie beyond the evidence"));

    // A trail that is left out has one line, whatever the number of its receipts.
    let without = appliance.export(&Export { without: vec![origin(METRICS)], ..Export::default() });
    let report = run(&appliance, &without, Options { receipts: receipts.clone(), ..Options::default() });
    assert_eq!(report.exit_code, 20, "{}", text::render(&report));
    let left_out = (Verdict::NotChecked, "90 receipts: the trail is not in this evidence");
    assert_eq!(receipts_of(&report)[1..], [left_out]);

    // What contradicts the evidence is counted apart from what lies beyond it.
    let (one, other) = forked();
    let forked = |appliance: &Appliance| appliance.receipt(DECISIONS, 5);
    let mut lines = Vec::new();
    for _ in 0..30 {
        lines.extend([forked(&one).to_bytes().unwrap(), b"\n".to_vec()]);
        lines.extend([other.receipt(DECISIONS, 6).to_bytes().unwrap(), b"\n".to_vec()]);
    }
    let receipts = KnownReceipt::parse_file("receipts.jsonl", &lines.concat()).unwrap();
    let sizes = BTreeMap::from([(origin(DECISIONS), 6)]);
    let evidence = other.export(&Export { sizes, ..Export::default() });
    let report = run(&one, &evidence, Options { receipts, ..Options::default() });
    assert_eq!(report.exit_code, 30, "{}", text::render(&report));
    let found = receipts_of(&report);
    assert_eq!(found[20], (Verdict::NotChecked, "20 more receipts lie beyond the evidence"));
    assert_eq!(found[21], (Verdict::Failed, "20 more receipts do not fit"));
}

fn receipts_of(report: &Report) -> Vec<(Verdict, &str)> {
    let found = report.checks.iter().filter(|check| check.name == "receipt");
    found.map(|check| (check.verdict, check.detail.as_str())).collect()
}

/// Where the evidence cannot be held against what was given, the report says so.
#[test]
fn what_was_given_is_listed_where_nothing_could_be_compared() {
    let (appliance, older) = cut_back();
    let options = Options { as_of: Some(appliance.last_time(METRICS)), ..receipt(&appliance.receipt(METRICS, 2)) };
    let options = Options { heads: head(appliance.checkpoint(METRICS, 2)).heads, ..options };
    let other = Appliance::with_records(Algorithm::Ed25519, 2);
    let no_genesis = verify(&older, Some(other.fingerprint()), &options);
    assert_eq!(failed(&no_genesis), ["genesis"]);
    let mut flipped = older.clone();
    let end = flipped.len() - 1;
    flipped[end] ^= 1;
    let cut = run(&appliance, &older[..end], options.clone());
    for (report, why) in [
        (no_genesis, "the genesis does not hold: no key is known"),
        (cut, "the archive cannot be read: nothing in it was looked at"),
        (run(&appliance, &flipped, options.clone()), "the archive cannot be read: nothing in it was looked at"),
    ] {
        for name in ["head", "receipt", "as-of"] {
            let found = check(&report, name, None);
            assert_eq!((found.verdict, found.detail.as_str()), (Verdict::NotChecked, why));
        }
        assert!(!text::render(&report).contains("not checked: nothing"));
    }
    // Nothing is listed that was not given.
    let report = run(&appliance, &flipped, Options::default());
    assert_eq!(with_verdict(&report, Verdict::NotChecked), ["genesis"]);
    assert!(text::render(&report).ends_with("\nnot checked: 1 of 2 checks, see the table\n"));
}

#[test]
fn several_heads_stand_in_one_file() {
    let (appliance, _) = cut_back();
    let notes =
        [appliance.checkpoint(METRICS, 3), appliance.checkpoint(DECISIONS, 8), appliance.checkpoint(ADMIN_TRAIL, 2)];
    let file = notes.iter().flat_map(SignedCheckpoint::to_bytes).collect::<Vec<u8>>();
    let heads = KnownHead::parse_file("heads", &file).unwrap();
    assert_eq!(heads.iter().map(|head| head.checkpoint.clone()).collect::<Vec<_>>(), notes);
    let report = run(&appliance, &appliance.bundle(), Options { heads, ..Options::default() });
    assert_eq!(report.outcome, Outcome::Valid, "{}", text::render(&report));
    assert!(KnownHead::parse_file("heads", &file[..file.len() - 1]).is_err());
    assert!(KnownHead::parse_file("heads", b"").is_err());
}
