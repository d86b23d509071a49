//! `countersign head`: every head is held against the last one seen, in both directions.

use crate::common::ceremony::{DECISIONS, METRICS};
use crate::listener::Pki;
use crate::stage::{Stage, names_ending};

#[test]
fn a_trail_that_grows_continues() {
    let stage = Stage::new(3);
    stage.countersign(&["head", METRICS]).shows(&["Size", "4", "first head of this trail seen here"]);
    stage.countersign(&["head", METRICS]).shows(&["the same as the last one seen"]);
    stage.daemon.change(METRICS, |trail| {
        trail.leaves.push(trail.leaves[1]);
    });
    stage.countersign(&["head", METRICS]).shows(&["5", "continues the last one seen (consistency proven)"]);
    stage.countersign(&["head", DECISIONS]).shows(&["first head"]);
}

#[test]
fn a_second_history_is_a_fork_and_both_sides_are_kept() {
    for events in [3, 5] {
        let stage = Stage::new(3);
        stage.countersign(&["head", METRICS]).shows(&["first head"]);
        let before = std::fs::read(stage.heads().join("acme.example~metrics")).unwrap();
        let other = stage.daemon.other_history(METRICS, events);
        stage.daemon.change(METRICS, |trail| *trail = other);
        let run = stage.countersign(&["head", METRICS, "--out", "head"]);
        run.refused(
            30,
            &["ALARM: fork of acme.example/metrics", "seen before: size 4", "now given:", "Keep both checkpoints"],
        );
        assert!(!stage.path("head").exists(), "a forked head was written");
        assert_eq!(std::fs::read(stage.heads().join("acme.example~metrics")).unwrap(), before);
        let kept = names_ending(&stage.heads(), ".fork");
        assert_eq!(kept.len(), 1, "{kept:?}");
        // It stays an alarm.
        stage.countersign(&["head", METRICS]).refused(30, &["ALARM"]);
    }
}

#[test]
fn an_older_head_is_told_apart_from_a_fork() {
    let stage = Stage::new(6);
    stage.countersign(&["head", METRICS]).shows(&["first head"]);
    stage.daemon.change(METRICS, |trail| trail.head_size = Some(4));
    stage.countersign(&["head", METRICS]).shows(&["4", "OLDER than the last one seen, which continues it"]);
    // The newer one stays remembered.
    stage.daemon.change(METRICS, |trail| trail.head_size = None);
    stage.countersign(&["head", METRICS]).shows(&["the same as the last one seen"]);
}

#[test]
fn a_trail_that_lost_its_end_is_older_and_unproven() {
    let stage = Stage::new(6);
    stage.countersign(&["head", METRICS]).shows(&["7"]);
    stage.daemon.change(METRICS, |trail| trail.leaves.truncate(4));
    stage
        .countersign(&["head", METRICS])
        .refused(20, &["does not prove that size 7 continues size 4", "restored backup"]);
}

#[test]
fn only_the_key_of_the_genesis_signs_heads() {
    let stage = Stage::new(3);
    let foreign = stage.daemon.state().trails[DECISIONS].head_kid;
    stage.daemon.change(METRICS, |trail| trail.head_kid = foreign);
    stage.countersign(&["head", METRICS]).refused(40, &["the checkpoint of acme.example/metrics is not believed"]);
    assert!(!stage.heads().exists());
}

/// No later try helps against a wrong set-up: it is not what is called unavailable.
#[test]
fn a_daemon_with_a_foreign_certificate_is_a_wrong_set_up() {
    let stage = Stage::new(1);
    stage
        .countersign(&["head", METRICS, "--server-name", "other"])
        .refused(64, &["https://localhost:", "--server-name"]);
    std::fs::write(stage.path("ca.pem"), Pki::new().ca()).unwrap();
    stage.countersign(&["head", METRICS]).refused(64, &["https://localhost:", "invalid peer certificate", "--ca"]);
}

#[test]
fn documents_must_have_the_pinned_hashes() {
    let stage = Stage::new(1);
    let fingerprint = stage.daemon.state().ceremony.fingerprint;
    let plan = stage.daemon.state().ceremony.genesis.plan;
    stage.daemon.state().ceremony.store.0.get_mut(&plan).unwrap().push(b' ');
    stage.countersign(&["head", METRICS]).refused(40, &["the ceremony plan", "wanted"]);
    stage.daemon.state().ceremony.store.0.remove(&fingerprint);
    stage.countersign(&["head", METRICS]).refused(1, &["the genesis document", "no such document"]);
    stage.countersign(&["head", METRICS, "--genesis", &"0".repeat(64)]).refused(1, &["the genesis document", "0000"]);
}

#[test]
fn a_trail_that_the_genesis_does_not_name() {
    let stage = Stage::new(1);
    let trail = stage.daemon.state().trails[METRICS].clone();
    stage.daemon.state().trails.insert("acme.example/other".to_owned(), trail);
    stage
        .countersign(&["head", "acme.example/other"])
        .refused(1, &["the genesis has no trail acme.example/other", "acme.example/metrics"]);
}
