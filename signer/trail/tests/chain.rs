//! One trail, record by record: every reason for which a record does not continue it.
#![cfg(test)]

mod common;

use common::ceremony::{DECISIONS, METRICS, control_bytes};
use common::{SoftKey, origin, time};
use countersign_trail::chain::{Chain, ChainError};
use countersign_trail::control::{Body, HeartbeatBody};
use countersign_trail::hash::Hash;
use countersign_trail::keys::Algorithm;
use countersign_trail::record::{Header, MAX_RECORD_LEN, RecordError};
use countersign_trail::tree::{CompactRange, leaf_hash};

fn record(trail: &str, seq: u64, prev: Hash, seconds: i64) -> Vec<u8> {
    let header = Header {
        trail: origin(trail),
        seq,
        time: time(seconds),
        prev,
        kids: vec![SoftKey::new(Algorithm::Ed25519, 1).kid()],
    };
    control_bytes(header, &Body::Heartbeat(HeartbeatBody { since: time(0) }))
}

/// A trail of two records, the second at second 10.
fn two() -> Chain {
    let mut chain = Chain::new(origin(DECISIONS), Hash::of(b"first prev"));
    for seconds in [5, 10] {
        let bytes = record(DECISIONS, chain.size(), chain.last_leaf(), seconds);
        chain.append(&bytes).unwrap();
    }
    chain
}

/// Appends, expects an error, and checks that the trail is as it was.
fn refused(chain: &mut Chain, bytes: &[u8]) -> ChainError {
    let before = (chain.size(), chain.root(), chain.last_leaf(), chain.last_time());
    let error = chain.append(bytes).unwrap_err();
    let after = (chain.size(), chain.root(), chain.last_leaf(), chain.last_time());
    assert_eq!(before, after);
    error
}

#[test]
fn chain_and_tree_share_their_hashes() {
    let mut chain = Chain::new(origin(DECISIONS), Hash::of(b"first prev"));
    assert_eq!((chain.size(), chain.last_time()), (0, None));
    assert_eq!(chain.root(), Hash::of(b""));
    let mut tree = CompactRange::empty();
    for seconds in [5, 5, 6] {
        let bytes = record(DECISIONS, chain.size(), chain.last_leaf(), seconds);
        let (parsed, leaf) = chain.append(&bytes).unwrap();
        assert_eq!(parsed.to_bytes().unwrap(), bytes);
        assert_eq!(leaf, leaf_hash(&bytes));
        assert_eq!(chain.last_leaf(), leaf);
        tree.push(leaf).unwrap();
        assert_eq!(chain.root(), tree.root());
        assert_eq!(chain.last_time(), Some(time(seconds)));
    }
    assert_eq!(chain.size(), 3);
    assert_eq!(chain.origin(), &origin(DECISIONS));
}

#[test]
fn bytes_that_are_no_record() {
    let mut chain = two();
    let mut bytes = record(DECISIONS, 2, chain.last_leaf(), 10);
    bytes.push(b'\n');
    assert!(matches!(refused(&mut chain, &bytes), ChainError::Record { at: 2, source: RecordError::NotCanonical }));
    let long = vec![b' '; MAX_RECORD_LEN + 1];
    assert_eq!(
        refused(&mut chain, &long),
        ChainError::Record { at: 2, source: RecordError::TooLong(MAX_RECORD_LEN + 1) }
    );
}

#[test]
fn a_record_of_another_place() {
    let mut chain = two();
    for (trail, seq) in [(DECISIONS, 1), (DECISIONS, 3), (METRICS, 2), (DECISIONS, u64::MAX)] {
        let bytes = record(trail, seq, chain.last_leaf(), 10);
        assert_eq!(refused(&mut chain, &bytes), ChainError::Place { at: 2, found: seq, trail: origin(trail) });
    }
}

#[test]
fn a_record_that_follows_another() {
    let mut chain = two();
    let expected = chain.last_leaf();
    let found = Hash::of(b"a record that was replaced");
    let error = refused(&mut chain, &record(DECISIONS, 2, found, 10));
    assert_eq!(error, ChainError::Prev { at: 2, expected, found });
    let text = error.to_string();
    assert!(text.contains(&expected.to_string()) && text.contains(&found.to_string()));

    let mut empty = Chain::new(origin(DECISIONS), Hash::of(b"first prev"));
    assert!(matches!(refused(&mut empty, &record(DECISIONS, 0, found, 10)), ChainError::Prev { at: 0, .. }));
}

#[test]
fn time_never_goes_back() {
    let mut chain = two();
    let back = record(DECISIONS, 2, chain.last_leaf(), 9);
    assert_eq!(refused(&mut chain, &back), ChainError::Time { at: 2, last: time(10), found: time(9) });
    let same = record(DECISIONS, 2, chain.last_leaf(), 10);
    chain.append(&same).unwrap();
}
