//! Parsers take any bytes without a panic, and what they accept has one spelling.
#![cfg(test)]

mod common;

use std::sync::OnceLock;

use common::{Appliance, DECISIONS, Files, METRICS};
use countersign_trail::dsse::Envelope;
use countersign_trail::evidence::{FileName, MANIFEST_FILE, Statement, parse_parts, parse_signatures, write_parts};
use countersign_trail::hash::Hash;
use countersign_trail::keys::Algorithm;
use countersign_trail::receipt::Receipt;
use countersign_verify::{KnownHead, KnownReceipt, Options, Outcome, verify};
use proptest::prelude::*;

/// Made once: genuine inputs of every parser.
struct Samples {
    fingerprint: Hash,
    files: Files,
    receipts: Vec<Vec<u8>>,
    head: Vec<u8>,
}

fn samples() -> &'static Samples {
    static SAMPLES: OnceLock<Samples> = OnceLock::new();
    SAMPLES.get_or_init(|| {
        let appliance = Appliance::with_records(Algorithm::Ed25519, 4);
        Samples {
            fingerprint: appliance.fingerprint(),
            files: appliance.files(),
            receipts: [DECISIONS, METRICS].map(|trail| appliance.receipt(trail, 2).to_bytes().unwrap()).into(),
            head: appliance.checkpoint(METRICS, 3).to_bytes(),
        }
    })
}

fn file(part: &str) -> &'static [u8] {
    let found = samples().files.0.iter().find(|(name, _)| name.contains(part));
    &found.unwrap().1
}

/// Replaces, removes and inserts bytes.
fn mutated(sample: &[u8], changes: &[(usize, u8, u8)]) -> Vec<u8> {
    let mut bytes = sample.to_vec();
    for (at, value, kind) in changes {
        let at = at % bytes.len().max(1);
        match kind % 3 {
            0 if !bytes.is_empty() => bytes[at] = *value,
            1 if !bytes.is_empty() => drop(bytes.remove(at)),
            _ => bytes.insert(at, *value),
        }
    }
    bytes
}

fn changes() -> impl Strategy<Value = Vec<(usize, u8, u8)>> {
    proptest::collection::vec((0_usize..20_000, any::<u8>(), any::<u8>()), 0..4)
}

/// Every parser over these bytes; what is accepted is written again as it was.
fn parse_all(bytes: &[u8]) {
    if let Ok(parts) = parse_parts(bytes) {
        assert_eq!(write_parts(&parts), bytes);
    }
    if let Ok(receipt) = Receipt::parse(bytes) {
        assert_eq!(receipt.to_bytes().unwrap(), bytes);
    }
    if let Ok(statement) = Statement::parse(bytes) {
        assert_eq!(statement.to_bytes().unwrap(), bytes);
    }
    let text = String::from_utf8_lossy(bytes);
    if let Ok(name) = text.parse::<FileName>() {
        assert_eq!(name.to_string(), text);
    }
    for count in [0, 1, 4] {
        let _ = parse_signatures(bytes, count);
    }
    let _ = KnownHead::parse_file("head", bytes);
    let _ = KnownReceipt::parse_file("receipt", bytes);
}

proptest! {
    #[test]
    fn any_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        parse_all(&bytes);
        let report = verify(&bytes, None, &Options::default());
        prop_assert_eq!(report.outcome, Outcome::Malformed);
    }

    #[test]
    fn mutated_inputs_never_panic_and_have_one_spelling(changes in changes(), which in 0_usize..6) {
        let statement = Envelope::parse(file(MANIFEST_FILE)).unwrap();
        let sample = match which {
            0 => file("decisions/parts/"),
            1 => file("decisions/signatures/"),
            2 => statement.payload(),
            3 => &samples().receipts[0],
            4 => &samples().receipts[1],
            _ => &samples().head,
        };
        parse_all(&mutated(sample, &changes));
    }

    #[test]
    fn mutated_names_never_panic(changes in changes(), which in any::<prop::sample::Index>()) {
        let names = &samples().files.0;
        parse_all(&mutated(names[which.index(names.len())].0.as_bytes(), &changes));
    }

    /// Whatever becomes of one file, with right checksums: never a panic, never valid.
    #[test]
    fn a_bundle_with_one_mutated_file_is_never_valid(changes in changes(), which in any::<prop::sample::Index>()) {
        let mut files = samples().files.clone();
        let at = which.index(files.0.len());
        let other = mutated(&files.0[at].1, &changes);
        let same = other == files.0[at].1;
        files.0[at].1 = other;
        let report = verify(&files.pack(), Some(samples().fingerprint), &Options::default());
        prop_assert_eq!(report.outcome == Outcome::Valid, same);
        if !same {
            prop_assert!(matches!(report.exit_code, 40 | 50), "{}", report.exit_code);
        }
    }

    /// Whatever is left out, doubled or moved: never a panic, never valid.
    #[test]
    fn a_bundle_with_files_moved_is_never_valid(moves in proptest::collection::vec((any::<u16>(), any::<u16>()), 1..4)) {
        let mut files = samples().files.clone();
        for (from, to) in moves {
            let from = usize::from(from) % files.0.len();
            let taken = files.0.remove(from);
            let to = usize::from(to) % (files.0.len() + 8);
            if to < files.0.len() {
                files.0.insert(to, taken);
            }
        }
        let same = files.0 == samples().files.0;
        let report = verify(&files.pack(), Some(samples().fingerprint), &Options::default());
        prop_assert_eq!(report.outcome == Outcome::Valid, same);
    }
}

#[test]
fn every_name_of_a_bundle_has_one_spelling() {
    for (name, _) in &samples().files.0 {
        assert_eq!(name.parse::<FileName>().unwrap().to_string(), *name);
    }
    for other in [
        "documents/00",
        "keys/x.pem",
        "Keys.json",
        "trails/acme.example~x/parts/000.p/256",
        "trails/acme.example~x/parts/000.p/0",
        "trails/acme.example~x/tile/0/x000/001",
        "trails/acme.example/x/checkpoint",
        "trails/acme.example~x/tile/entries/",
        "trails/acme.example~x/signatures/tile/entries/000",
        "",
    ] {
        assert!(other.parse::<FileName>().is_err(), "{other}");
    }
}

#[test]
fn a_statement_has_objects_and_no_lists() {
    let envelope = Envelope::parse(file(MANIFEST_FILE)).unwrap();
    let genuine = String::from_utf8(envelope.payload().to_vec()).unwrap();
    let digest = Statement::parse(genuine.as_bytes()).unwrap().subject[0].digest.sha256;
    let other = genuine.replace(&format!("{{\"sha256\":\"{digest}\"}}"), &format!("[\"{digest}\"]"));
    assert_ne!(other, genuine);
    assert!(Statement::parse(other.as_bytes()).is_err());
}

#[test]
fn a_receipt_of_other_shape_is_refused() {
    let genuine = String::from_utf8(samples().receipts[0].clone()).unwrap();
    let other = Receipt::parse(&samples().receipts[1]).unwrap();
    let others = [
        genuine.replace("\"v\":1", "\"v\":2"),
        genuine.replace("countersign.receipt", "countersign.genesis"),
        genuine.replace("acme.example/decisions", "acme.example/metrics"),
        genuine.replace("\"signature\"", "\"signaturf\""),
        format!("{genuine} "),
        genuine.replace("}", ",\"w\":1}"),
        // Another spelling of the same.
        genuine.replace(",\"trail\"", ",\"tlog_proof\":null,\"trail\""),
    ];
    assert!(Receipt::parse(genuine.as_bytes()).is_ok());
    for text in others {
        assert!(Receipt::parse(text.as_bytes()).is_err(), "{text}");
    }
    // A proof does not go with another record than the one at its index.
    let moved = Receipt::parse(&samples().receipts[0]).unwrap();
    assert!(Receipt::new(moved.bytes, other.kid, other.proof).is_err());
}
