//! Whole evidence is valid, in both modes and both algorithms, and the report says what it proves.
#![cfg(test)]

mod common;

use std::sync::Mutex;

use common::{
    ADMIN_TRAIL, Appliance, DECISIONS, Export, METRICS, check, failed, origin, time, verify_pinned, with_verdict,
};
use countersign_trail::id::PartName;
use countersign_trail::keys::Algorithm;
use countersign_trail::record::Link;
use countersign_trail::tree::leaf_hash;
use countersign_verify::{Options, Outcome, Verdict, text, verify};

#[test]
fn both_modes_and_algorithms_are_valid() {
    for algorithm in [Algorithm::Ed25519, Algorithm::EcdsaP256] {
        let mut appliance = Appliance::with_records(algorithm, 10);
        appliance.heartbeat(METRICS);
        appliance.start();
        let report = verify_pinned(&appliance, &appliance.bundle());
        assert_eq!((report.outcome, report.exit_code), (Outcome::Valid, 0), "{}", text::render(&report));
        assert_eq!(with_verdict(&report, Verdict::NotChecked), Vec::<&str>::new());
        assert_eq!(report.genesis, Some(appliance.fingerprint()));
        assert_eq!(report.first_broken, None);
        let last = appliance.last_time(METRICS);
        assert_eq!(report.trails[2].verdict, format!("proven to size 11, last time {last}, nothing known after"));
        assert_eq!((report.trails[1].parts_given, report.trails[1].parts_withheld), (18, 9));
        assert!(check(&report, "signatures", Some(DECISIONS)).detail.starts_with("10 record signatures"));
        assert_eq!(check(&report, "admin-heads", Some(DECISIONS)).verdict, Verdict::Passed);
    }
}

#[test]
fn several_tiles_and_levels_are_valid() {
    let mut appliance = Appliance::new();
    for n in 1..=600 {
        appliance.event(METRICS, n);
    }
    for n in 1..=256 {
        appliance.event(DECISIONS, n);
    }
    let seen = Mutex::new((0, 0));
    let progress = |done: u64, total: u64| {
        let mut seen = seen.lock().unwrap();
        *seen = (seen.0.max(done), total);
    };
    let options = Options { progress: Some(&progress), threads: 3, ..Options::default() };
    let bundle = appliance.bundle();
    let report = verify(&bundle, Some(appliance.fingerprint()), &options);
    assert_eq!(report.outcome, Outcome::Valid, "{}", text::render(&report));
    assert_eq!(*seen.lock().unwrap(), (601 + 257 + 2, 601 + 257 + 2));
    assert_eq!(verify_pinned(&appliance, &bundle), report);
}

#[test]
fn one_of_anything_is_counted_as_one() {
    let mut appliance = Appliance::new();
    appliance.event(DECISIONS, 1);
    appliance.event(METRICS, 1);
    appliance.start();
    let without = vec![origin(METRICS)];
    let report = verify_pinned(&appliance, &appliance.export(&Export { without, ..Export::default() }));
    let detail = |name: &str| check(&report, name, Some(DECISIONS)).detail.clone();
    assert!(report.summary.starts_with("INCOMPLETE: 2 records in 1 trail; "), "{}", report.summary);
    assert_eq!(detail("tiles"), "1 tile holds the hashes that follow from the records");
    assert_eq!(detail("control"), "1 control record of known form");
    assert_eq!(detail("clients"), "1 event, each by a gateway with a grant");
    assert_eq!(detail("signatures"), "2 record signatures by the record key");
}

#[test]
fn nothing_pinned_is_consistent_and_not_anchored() {
    let appliance = Appliance::with_records(Algorithm::Ed25519, 3);
    let report = verify(&appliance.bundle(), None, &Options::default());
    assert_eq!((report.outcome, report.exit_code), (Outcome::NotAnchored, 10));
    assert_eq!(failed(&report), Vec::<&str>::new());
    assert_eq!(report.genesis, Some(appliance.fingerprint()));
    assert!(report.trails[1].verdict.starts_with("consistent, not anchored"), "{}", report.trails[1].verdict);
}

#[test]
fn another_pinned_fingerprint_proves_nothing() {
    let appliance = Appliance::with_records(Algorithm::Ed25519, 3);
    let other = Appliance::with_records(Algorithm::Ed25519, 3);
    assert_ne!(appliance.fingerprint(), other.fingerprint());
    let report = verify_pinned(&other, &appliance.bundle());
    assert_eq!(report.exit_code, 40);
    assert_eq!(failed(&report), ["genesis"]);
    assert!(check(&report, "genesis", None).detail.contains(&appliance.fingerprint().to_string()));
    assert!(report.trails.is_empty());
}

#[test]
fn withheld_parts_are_reported_and_no_reservation() {
    let appliance = Appliance::with_records(Algorithm::Ed25519, 4);
    let withheld = vec![PartName::parse("request").unwrap()];
    let report = verify_pinned(&appliance, &appliance.export(&Export { withheld, ..Export::default() }));
    assert_eq!(report.outcome, Outcome::Valid, "{}", text::render(&report));
    assert_eq!((report.trails[1].parts_given, report.trails[1].parts_withheld), (3, 6));
}

#[test]
fn a_gap_is_a_reservation() {
    let mut appliance = Appliance::with_records(Algorithm::Ed25519, 3);
    appliance.gap(DECISIONS);
    let report = verify_pinned(&appliance, &appliance.bundle());
    assert_eq!((report.outcome, report.exit_code), (Outcome::Reservations, 15));
    let gaps = check(&report, "gaps", Some(DECISIONS));
    assert_eq!(gaps.verdict, Verdict::Noted);
    assert!(gaps.detail.contains("record 3: "), "{}", gaps.detail);
    // Whoever makes an appliance of their own makes its gaps too: they anchor nothing.
    let report = verify(&appliance.bundle(), None, &Options::default());
    assert_eq!((report.outcome, report.exit_code), (Outcome::NotAnchored, 10));
    assert!(report.summary.contains("hold together, with reservations"), "{}", report.summary);
}

#[test]
fn a_silence_that_no_record_speaks_of_is_a_reservation() {
    for (seconds, outcome) in [(7_400, Outcome::Valid), (7_600, Outcome::Reservations)] {
        let mut appliance = Appliance::with_records(Algorithm::Ed25519, 3);
        appliance.clock += seconds;
        appliance.event(DECISIONS, 3);
        let report = verify_pinned(&appliance, &appliance.bundle());
        assert_eq!(report.outcome, outcome, "{seconds} s: {}", text::render(&report));
        let gaps = check(&report, "gaps", Some(DECISIONS));
        assert_eq!(gaps.detail.contains("record 3: "), outcome == Outcome::Reservations, "{}", gaps.detail);
    }
}

#[test]
fn a_trail_that_is_left_out_is_not_checked_and_its_noted_heads_make_it_incomplete() {
    let appliance = Appliance::with_records(Algorithm::Ed25519, 3);
    let without = vec![origin(METRICS)];
    let report = verify_pinned(&appliance, &appliance.export(&Export { without, ..Export::default() }));
    assert_eq!((report.outcome, report.exit_code), (Outcome::Incomplete, 20));
    assert_eq!(failed(&report), Vec::<&str>::new());
    assert_eq!(check(&report, "files", Some(METRICS)).verdict, Verdict::NotChecked);
    assert_eq!(check(&report, "admin-heads", Some(METRICS)).verdict, Verdict::NotChecked);
}

#[test]
fn links_lead_to_the_records_that_they_name() {
    let mut appliance = Appliance::with_records(Algorithm::Ed25519, 3);
    let link = |appliance: &Appliance, trail: &str, seq: u64| Link {
        leaf_hash: leaf_hash(&appliance.records(trail)[seq as usize].bytes),
        rel: PartName::parse("follows").unwrap(),
        seq,
        trail: origin(trail),
    };
    let links = vec![link(&appliance, METRICS, 1), link(&appliance, DECISIONS, 2)];
    appliance.event_with(DECISIONS, 100, links);
    let report = verify_pinned(&appliance, &appliance.bundle());
    assert_eq!(report.outcome, Outcome::Valid, "{}", text::render(&report));
    assert!(check(&report, "links", Some(DECISIONS)).detail.starts_with("2 links"));
    let mut wrong = link(&appliance, METRICS, 2);
    wrong.leaf_hash = leaf_hash(b"another");
    appliance.event_with(DECISIONS, 101, vec![wrong]);
    let report = verify_pinned(&appliance, &appliance.bundle());
    assert_eq!(failed(&report), ["links"]);
    assert_eq!(report.exit_code, 40);
}

#[test]
fn the_report_reads_well_and_serialises() {
    let appliance = Appliance::with_records(Algorithm::EcdsaP256, 3);
    let report = verify_pinned(&appliance, &appliance.bundle());
    let text = text::render(&report);
    assert!(text.starts_with("VALID: 6 records in 2 trails, proven from the pinned genesis on\n"), "{text}");
    assert!(text.contains(&format!("{ADMIN_TRAIL} (admin): proven to size 2, last time {}", time(201))), "{text}");
    assert!(text.ends_with("not checked: nothing\n"), "{text}");
    let json = serde_json::to_value(&report).unwrap();
    assert_eq!(json["outcome"], "valid");
    assert_eq!(json["trails"][1]["proven"]["size"], "3");
    assert_eq!(json["checks"][0]["verdict"], "passed");
}
