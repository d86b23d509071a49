//! What the keys themselves may not sign: records that break a trail's rules are refused though
//! every signature, the tree and the manifest hold.
#![cfg(test)]

mod common;

use common::{ADMIN_TRAIL, Appliance, DECISIONS, METRICS, check, failed, origin, time, verify_pinned};
use countersign_trail::control::{Body, HeartbeatBody, TrailBody};
use countersign_trail::document::Mode;
use countersign_trail::evidence::PartLine;
use countersign_trail::hash::Hash;
use countersign_trail::id::MemberId;
use countersign_trail::keys::Algorithm;
use countersign_trail::record::{Content, Record};
use countersign_trail::tree::leaf_hash;
use countersign_verify::{Outcome, Report, Verdict, text};

/// Appends a copy of the last record of a trail, changed, with everything signed.
fn with_last(trail: &str, change: impl Fn(&mut Record)) -> (Appliance, Report) {
    let mut appliance = Appliance::with_records(Algorithm::Ed25519, 3);
    appliance.event(trail, 50);
    let stored = appliance.trails.get_mut(&origin(trail)).unwrap().pop().unwrap();
    let mut record = Record::parse(&stored.bytes).unwrap();
    change(&mut record);
    appliance.push(trail, &record, stored.parts);
    let report = verify_pinned(&appliance, &appliance.bundle());
    (appliance, report)
}

fn refused(report: &Report, checks: &[&str], seq: u64) {
    assert_eq!(report.outcome, Outcome::Tampered, "{}", text::render(report));
    assert_eq!(failed(report), checks, "{}", text::render(report));
    assert_eq!(report.first_broken.as_ref().map(|broken| broken.seq), Some(seq));
}

#[test]
fn a_record_that_names_another_key_is_refused() {
    let other = Appliance::with_records(Algorithm::Ed25519, 2).evidence_key().kid();
    for trail in [DECISIONS, METRICS] {
        let (_, report) = with_last(trail, |record| record.header.kids = vec![other]);
        refused(&report, &["kids"], 3);
        let (_, report) = with_last(trail, |record| record.header.kids.push(other));
        refused(&report, &["kids"], 3);
    }
}

#[test]
fn time_that_goes_back_a_foreign_place_and_a_foreign_prev_are_refused() {
    let (_, report) = with_last(METRICS, |record| record.header.time = time(61));
    refused(&report, &["chain"], 3);
    let (_, report) = with_last(METRICS, |record| record.header.seq = 4);
    refused(&report, &["chain"], 3);
    let (_, report) = with_last(METRICS, |record| record.header.trail = origin(DECISIONS));
    refused(&report, &["chain"], 3);
    let (_, report) = with_last(METRICS, |record| record.header.prev = Hash::of(b"another"));
    refused(&report, &["chain"], 3);
    let broken = report.first_broken.unwrap();
    assert_eq!(broken.actual, Some(Hash::of(b"another")));
    assert!(broken.expected.is_some());
}

#[test]
fn control_records_where_they_may_not_stand_are_refused() {
    let begins = |mode| {
        let (admin_seq, admin_trail) = (0, origin(ADMIN_TRAIL));
        Body::Trail(TrailBody { admin_seq, admin_trail, mode })
    };
    let mut appliance = Appliance::with_records(Algorithm::Ed25519, 3);
    appliance.control(METRICS, &begins(Mode::Batch));
    refused(&verify_pinned(&appliance, &appliance.bundle()), &["control"], 3);
    let mut appliance = Appliance::with_records(Algorithm::Ed25519, 3);
    let plan = Body::Plan(countersign_trail::control::PlanBody { plan: Hash::of(b"plan") });
    appliance.control(DECISIONS, &plan);
    refused(&verify_pinned(&appliance, &appliance.bundle()), &["control"], 3);
    // In the admin trail the replay refuses it; the writer would not export it.
    let (_, report) = with_last(METRICS, |record| {
        let mut control = begins(Mode::Batch).to_control().unwrap();
        control.type_name = countersign_trail::id::TypeName::parse("countersign.unknown").unwrap();
        record.content = Content::Control(control);
    });
    assert_eq!(failed(&report), ["control", "parts"], "{}", text::render(&report));
}

#[test]
fn another_record_0_than_the_genesis_names_is_refused() {
    let mut appliance = Appliance::with_records(Algorithm::Ed25519, 1);
    let first = &mut appliance.trails.get_mut(&origin(METRICS)).unwrap()[0];
    let mut record = Record::parse(&first.bytes).unwrap();
    record.header.time = time(61);
    first.bytes = record.to_bytes().unwrap();
    let report = verify_pinned(&appliance, &appliance.bundle());
    // The admin record that seals the genesis carries the head of the genuine one.
    assert_eq!(failed(&report), ["first-record", "admin-heads"], "{}", text::render(&report));
    assert_eq!(report.exit_code, 40);
    assert_eq!(check(&report, "first-record", Some(METRICS)).verdict, Verdict::Failed);
}

#[test]
fn a_client_without_a_grant_a_repeated_event_and_a_false_silence_are_found() {
    let mut appliance = Appliance::with_records(Algorithm::Ed25519, 3);
    let mut record = Record::parse(&appliance.records(METRICS)[2].bytes).unwrap();
    let Content::Event(event) = &mut record.content else { panic!("an event") };
    event.client = MemberId::parse("olga").unwrap();
    let mut again = record.clone();
    for (seq, record) in [(3, &mut record), (4, &mut again)] {
        record.header.seq = seq;
        record.header.prev = leaf_hash(&appliance.records(METRICS)[seq as usize - 1].bytes);
        appliance.push(METRICS, record, appliance.records(METRICS)[2].parts.iter().map(|part| at(part, seq)).collect());
    }
    let since = time(7);
    appliance.clock += 100;
    appliance.control(METRICS, &Body::Heartbeat(HeartbeatBody { since }));
    let report = verify_pinned(&appliance, &appliance.bundle());
    assert_eq!(report.outcome, Outcome::Tampered, "{}", text::render(&report));
    assert_eq!(failed(&report), ["clients", "event-ids", "gaps"], "{}", text::render(&report));
    assert_eq!(check(&report, "event-ids", Some(METRICS)).verdict, Verdict::Failed);
    assert_eq!(report.first_broken.unwrap().seq, 3);
}

fn at(part: &PartLine, at: u64) -> PartLine {
    let mut part = part.clone();
    match &mut part {
        PartLine::Given { seq, .. } | PartLine::Withheld { seq, .. } => *seq = at,
    }
    part
}
