//! A change of any byte of a bundle is refused, with the right exit code; a change within a record
//! names that record.
#![cfg(test)]

mod common;

use std::sync::atomic::{AtomicUsize, Ordering};

use common::{Appliance, verify_pinned};
use countersign_trail::evidence::{FileName, TrailFile};
use countersign_trail::keys::Algorithm;
use countersign_trail::origin::Origin;
use countersign_trail::tiles::parse_bundle;
use countersign_verify::{Options, Outcome, text, verify};

/// Bytes of a local header without the name (APPNOTE 4.3.7).
const LOCAL_LEN: usize = 30;

/// What a byte of a bundle is part of.
#[derive(Clone, Debug, PartialEq)]
enum Place {
    /// Of the archive's own structure.
    Archive,
    /// Of a record, its length included.
    Record(Origin, u64),
    /// Of any other file's content.
    File(String),
}

/// The place of every byte.
fn places(bundle: &[u8]) -> Vec<Place> {
    let mut places = Vec::with_capacity(bundle.len());
    while bundle[places.len()..].starts_with(b"PK\x03\x04") {
        let header = &bundle[places.len()..];
        let size = u32::from_le_bytes(header[18..22].try_into().unwrap()) as usize;
        let content_at = LOCAL_LEN + usize::from(u16::from_le_bytes(header[26..28].try_into().unwrap()));
        let name = std::str::from_utf8(&header[LOCAL_LEN..content_at]).unwrap();
        places.resize(places.len() + content_at, Place::Archive);
        let content = &header[content_at..content_at + size];
        match name.parse::<FileName>().unwrap() {
            FileName::Trail(origin, TrailFile::Entries(path)) => {
                for (seq, record) in (path.first()..).zip(parse_bundle(content, path.width()).unwrap()) {
                    places.resize(places.len() + 2 + record.len(), Place::Record(origin.clone(), seq));
                }
            }
            _ => places.resize(places.len() + size, Place::File(name.to_owned())),
        }
    }
    places.resize(bundle.len(), Place::Archive);
    places
}

/// Changes the byte at `at` to another value and checks the report.
fn check_byte(appliance: &Appliance, bundle: &mut [u8], places: &[Place], at: usize) {
    let mask = (at % 255) as u8 + 1;
    bundle[at] ^= mask;
    let options = Options { threads: 1, ..Options::default() };
    let report = verify(bundle, Some(appliance.fingerprint()), &options);
    bundle[at] ^= mask;
    let place = &places[at];
    let shown = || format!("byte {at}, {place:?}\n{}", text::render(&report));
    match place {
        Place::Archive => assert_eq!(report.outcome, Outcome::Malformed, "{}", shown()),
        Place::File(_) => {
            assert!(matches!(report.outcome, Outcome::Tampered | Outcome::Malformed), "{}", shown());
        }
        Place::Record(origin, seq) => {
            assert_eq!(report.outcome, Outcome::Tampered, "{}", shown());
            let broken = report.first_broken.as_ref().map(|broken| (&broken.trail, broken.seq));
            assert_eq!(broken, Some((origin, *seq)), "{}", shown());
        }
    }
}

/// Checks the bytes at these places, on all cores.
fn check_bytes(appliance: &Appliance, bundle: &[u8], wanted: &[usize]) {
    let places = places(bundle);
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                let mut bundle = bundle.to_vec();
                while let Some(at) = wanted.get(next.fetch_add(1, Ordering::Relaxed)) {
                    check_byte(appliance, &mut bundle, &places, *at);
                }
            });
        }
    });
}

/// An appliance with `count` records a trail and its valid bundle.
fn appliance(algorithm: Algorithm, count: u64) -> (Appliance, Vec<u8>) {
    let appliance = Appliance::with_records(algorithm, count);
    let bundle = appliance.bundle();
    assert_eq!(verify_pinned(&appliance, &bundle).outcome, Outcome::Valid);
    (appliance, bundle)
}

/// Every byte where the build is optimised (`cargo test --release`); otherwise that takes minutes,
/// and every byte of the archive's structure, every third of a record and every 15th of the other
/// files is taken.
#[test]
fn every_byte_of_a_bundle_of_20_records() {
    let (appliance, bundle) = appliance(Algorithm::Ed25519, 10);
    let places = places(&bundle);
    let taken = |at: &usize| match places[*at] {
        _ if !cfg!(debug_assertions) => true,
        Place::Archive => true,
        Place::Record(..) => at.is_multiple_of(3),
        Place::File(_) => at.is_multiple_of(15),
    };
    let wanted: Vec<usize> = (0..bundle.len()).filter(taken).collect();
    check_bytes(&appliance, &bundle, &wanted);
}

#[test]
fn some_bytes_of_a_bundle_with_p256_keys() {
    let (appliance, bundle) = appliance(Algorithm::EcdsaP256, 10);
    let wanted: Vec<usize> = (3..bundle.len()).step_by(601).collect();
    check_bytes(&appliance, &bundle, &wanted);
}

#[test]
fn some_bytes_of_a_bundle_of_several_tiles() {
    let (appliance, bundle) = appliance(Algorithm::Ed25519, 300);
    let wanted: Vec<usize> = (0..bundle.len()).step_by(bundle.len() / 40).collect();
    check_bytes(&appliance, &bundle, &wanted);
}
