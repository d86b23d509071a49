//! The writer of bundles refuses every step out of order, and what does not belong.
#![cfg(test)]

mod common;

use common::{ADMIN_TRAIL, Appliance, DECISIONS, METRICS, SoftKey, time};
use countersign_trail::dsse;
use countersign_trail::evidence::{BundleWriter, EvidenceError, PartLine, RecordSignature};
use countersign_trail::hash::Hash;
use countersign_trail::id::PartName;
use countersign_trail::keys::Algorithm;
use countersign_trail::tree::leaf_hash;

fn is_order<T: std::fmt::Debug>(result: Result<T, EvidenceError>) {
    assert!(matches!(result, Err(EvidenceError::Order { .. })), "{result:?}");
}

/// A writer that wants the admin trail next.
fn with_keys(appliance: &Appliance) -> BundleWriter {
    let mut writer = BundleWriter::new(&appliance.state()).unwrap();
    let documents: Vec<Hash> = writer.documents().copied().collect();
    for hash in documents {
        writer.document(&appliance.ceremony.store.0[&hash]).unwrap();
    }
    writer.keys().unwrap();
    writer
}

fn entries_and_hashes(writer: &mut BundleWriter, appliance: &Appliance, trail: &str) {
    let records: Vec<&[u8]> = appliance.records(trail).iter().map(|record| record.bytes.as_slice()).collect();
    writer.entries_tile(0, &records).unwrap();
    let leaves: Vec<Hash> = records.iter().map(|record| leaf_hash(record)).collect();
    writer.hash_tile(0, 0, &leaves).unwrap();
}

/// A writer whose admin trail is done.
fn with_admin(appliance: &Appliance) -> BundleWriter {
    let mut writer = with_keys(appliance);
    writer.begin_trail(&appliance.checkpoint(ADMIN_TRAIL, 2)).unwrap();
    entries_and_hashes(&mut writer, appliance, ADMIN_TRAIL);
    writer
}

#[test]
fn documents_then_keys_then_the_admin_trail() {
    let appliance = Appliance::with_records(Algorithm::Ed25519, 3);
    let mut writer = BundleWriter::new(&appliance.state()).unwrap();
    is_order(writer.keys());
    is_order(writer.document(b"another"));
    is_order(writer.begin_trail(&appliance.checkpoint(ADMIN_TRAIL, 2)));
    is_order(writer.entries_tile(0, &[b"record"]));
    is_order(writer.manifest_statement(time(0), 1, Vec::new()));
    let last = *writer.documents().last().unwrap();
    is_order(writer.document(&appliance.ceremony.store.0[&last]));
    let mut writer = with_keys(&appliance);
    is_order(writer.keys());
    is_order(writer.document(&appliance.ceremony.store.0[&last]));
    is_order(writer.begin_trail(&appliance.checkpoint(DECISIONS, 3)));
    is_order(writer.manifest_statement(time(0), 1, Vec::new()));
    let older = appliance.checkpoint(ADMIN_TRAIL, 1);
    let refused = writer.begin_trail(&older);
    assert!(matches!(refused, Err(EvidenceError::AdminHead { expected: 2, found: 1 })), "{refused:?}");
}

#[test]
fn trails_by_origin_with_every_file_in_order() {
    let appliance = Appliance::with_records(Algorithm::Ed25519, 3);
    let mut writer = with_admin(&appliance);
    is_order(writer.begin_trail(&appliance.checkpoint(ADMIN_TRAIL, 2)));
    writer.begin_trail(&appliance.checkpoint(DECISIONS, 3)).unwrap();
    let records: Vec<&[u8]> = appliance.records(DECISIONS).iter().map(|record| record.bytes.as_slice()).collect();
    let leaves: Vec<Hash> = records.iter().map(|record| leaf_hash(record)).collect();
    is_order(writer.hash_tile(0, 0, &leaves));
    is_order(writer.entries_tile(1, &records));
    is_order(writer.entries_tile(0, &records[..2]));
    is_order(writer.begin_trail(&appliance.checkpoint(METRICS, 3)));
    is_order(writer.manifest_statement(time(0), 1, Vec::new()));
    writer.entries_tile(0, &records).unwrap();
    is_order(writer.entries_tile(0, &records));
    is_order(writer.hash_tile(1, 0, &leaves));
    writer.hash_tile(0, 0, &leaves).unwrap();
    is_order(writer.parts_tile(0, &appliance.records(DECISIONS)[1].parts));
    let kid = appliance.record_kid(DECISIONS);
    let signed: Vec<RecordSignature<'_>> =
        records.iter().map(|record| RecordSignature { record, kid, signature: &[7; 64] }).collect();
    is_order(writer.signatures_tile(0, &signed[..2]));
    writer.signatures_tile(0, &signed).unwrap();
    let mut parts = appliance.records(DECISIONS)[1].parts.clone();
    is_order(writer.parts_tile(1, &parts).map_err(|error| match error {
        EvidenceError::Tile(_) => EvidenceError::Order { expected: String::new(), found: String::new() },
        other => other,
    }));
    parts.swap(0, 1);
    is_order(writer.parts_tile(0, &parts));
    let outside = PartLine::Withheld { seq: 3, name: PartName::parse("facts").unwrap(), media_type: None };
    is_order(writer.parts_tile(0, &[outside]));
    assert_eq!(writer.parts_tile(0, &[]).unwrap(), b"");
    parts.swap(0, 1);
    assert!(!writer.parts_tile(0, &parts).unwrap().is_empty());
    is_order(writer.parts_tile(0, &parts));
    writer.begin_trail(&appliance.checkpoint(METRICS, 3)).unwrap();
    entries_and_hashes(&mut writer, &appliance, METRICS);
    is_order(writer.signatures_tile(0, &signed));
    is_order(writer.begin_trail(&appliance.checkpoint(DECISIONS, 3)));
}

#[test]
fn only_signed_checkpoints_of_known_trails_and_a_manifest_that_verifies() {
    let appliance = Appliance::with_records(Algorithm::EcdsaP256, 3);
    let mut writer = with_admin(&appliance);
    let rogue = SoftKey::new(Algorithm::EcdsaP256, 77);
    let checkpoint = appliance.checkpoint(DECISIONS, 3).checkpoint().clone();
    let signature = rogue.sign(checkpoint.text().as_bytes());
    let assemble = countersign_trail::checkpoint::SignedCheckpoint::assemble;
    let forged = assemble(&checkpoint, &rogue.public(), &signature).unwrap();
    assert!(matches!(writer.begin_trail(&forged), Err(EvidenceError::Checkpoint(_))));
    let mut unknown = checkpoint;
    unknown.origin = common::origin("acme.example/unknown");
    let unknown = assemble(&unknown, &rogue.public(), &signature).unwrap();
    assert!(matches!(writer.begin_trail(&unknown), Err(EvidenceError::UnknownTrail(_))));
    let name = |text: &str| PartName::parse(text).unwrap();
    let unsorted = writer.manifest_statement(time(0), 1, vec![name("b"), name("a")]);
    assert!(matches!(unsorted, Err(EvidenceError::Manifest(_))));
    let payload = writer.manifest_statement(time(0), 1, vec![name("a"), name("b")]).unwrap();
    let message = dsse::pae(dsse::STATEMENT, &payload);
    assert!(matches!(writer.finish(&rogue.sign(&message)), Err(EvidenceError::Signature(_))));
    is_order(with_admin(&appliance).finish(&rogue.sign(&message)));
    // A statement that was followed by another file is no longer the bundle's.
    let mut writer = with_admin(&appliance);
    writer.manifest_statement(time(0), 1, Vec::new()).unwrap();
    writer.begin_trail(&appliance.checkpoint(METRICS, 3)).unwrap();
    is_order(writer.finish(&appliance.evidence_key().sign(&message)));
}
