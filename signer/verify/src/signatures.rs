//! Record signatures: in record mode every record has its own, by the record key.

use countersign_trail::dsse::Envelope;
use countersign_trail::evidence::parse_signatures;
use countersign_trail::keys::PublicKey;
use countersign_trail::record::Record;
use countersign_trail::signing::RECORD_PAYLOAD_TYPE;
use countersign_trail::tree::leaf_hash;

use crate::exit::Outcome;
use crate::records::{Rules, TileInput};
use crate::tally::{Failure, Tally};

/// Checks the signature of every record of a tile.
pub(crate) fn check(rules: &Rules<'_>, key: &PublicKey, tile: &TileInput<'_>, tally: &mut Tally) {
    let Some(file) = tile.signatures else {
        tally.fail_file(Outcome::Incomplete, tile.first, "the file of signatures is missing");
        return;
    };
    let lines = match parse_signatures(file, tile.records.len()) {
        Ok(lines) => lines,
        Err(error) => {
            tally.fail_file(Outcome::Malformed, tile.first, error);
            return;
        }
    };
    for ((seq, record), line) in (tile.first..).zip(tile.records).zip(lines) {
        let result = match line {
            Ok(envelope) => check_one(rules, key, seq, *record, &envelope),
            Err(error) => Err((Outcome::Malformed, Failure::new(seq, format!("its tile's signatures: {error}")))),
        };
        match result {
            Ok(()) => tally.pass(),
            Err((outcome, failure)) => tally.fail(outcome, failure),
        }
    }
}

fn check_one(
    rules: &Rules<'_>,
    key: &PublicKey,
    seq: u64,
    record: Option<&[u8]>,
    envelope: &Envelope,
) -> Result<(), (Outcome, Failure)> {
    let tampered = |reason: String| (Outcome::Tampered, Failure::new(seq, reason));
    let [signature] = envelope.signatures() else {
        return Err((
            Outcome::Malformed,
            Failure::new(seq, format!("{} signatures, wants one", envelope.signatures().len())),
        ));
    };
    if signature.keyid != key.kid() {
        return Err(tampered(format!("is signed by key {}, in force is {}", signature.keyid, key.kid())));
    }
    let signed = envelope.verify(RECORD_PAYLOAD_TYPE, key).map_err(|error| tampered(error.to_string()))?;
    let Some(record) = record else { return Ok(()) };
    if signed == record {
        return Ok(());
    }
    let (expected, actual) = (leaf_hash(signed), leaf_hash(record));
    let same_place =
        Record::parse(signed).is_ok_and(|signed| signed.header.seq == seq && signed.header.trail == *rules.origin);
    // Two records for one place: the key promised the one, the tree holds the other.
    let outcome = if same_place { Outcome::Fork } else { Outcome::Tampered };
    Err((outcome, Failure::hashes(seq, expected, actual, "the record key signed another record for this place")))
}
