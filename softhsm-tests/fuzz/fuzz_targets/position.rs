//! What a key signs, and the position of the signed bytes.
#![no_main]

use std::sync::OnceLock;

use countersign_fuzz::{text, unhex, vectors};
use countersign_trail::checkpoint::Checkpoint;
use countersign_trail::dsse::pae;
use countersign_trail::keys::Kid;
use countersign_trail::origin::Origin;
use countersign_trail::signing::{
    PROBE_PAYLOAD_TYPE, Position, Purpose, RECORD_PAYLOAD_TYPE, STATEMENT_PAYLOAD_TYPE, position_of,
};
use libfuzzer_sys::fuzz_target;
use serde_json::Value;

/// A key: its purpose, its trail, its kid.
type Key = (Purpose, Option<Origin>, Kid);

/// Every key of the vectors. The first byte of an input chooses one, the others are what it signs.
fn keys() -> &'static [Key] {
    static KEYS: OnceLock<Vec<Key>> = OnceLock::new();
    KEYS.get_or_init(|| {
        let mut keys: Vec<Key> = Vec::new();
        for case in cases() {
            let key = key_of(&case);
            if !keys.contains(&key) {
                keys.push(key);
            }
        }
        keys
    })
}

fn cases() -> Vec<Value> {
    let vectors = vectors("signing");
    let lists = ["positions", "refused"].map(|list| vectors[list].as_array().unwrap().clone());
    lists.concat()
}

fn key_of(case: &Value) -> Key {
    let trail = case["trail"].as_str().map(|trail| trail.parse().unwrap());
    (Purpose::from_word(text(&case["purpose"])).unwrap(), trail, text(&case["kid"]).parse().unwrap())
}

fn seeds() {
    let seed = |case: &Value| {
        let at = keys().iter().position(|key| *key == key_of(case)).unwrap();
        [&[at as u8][..], &unhex(&case["message"])].concat()
    };
    countersign_fuzz::seed(cases().iter().map(seed));
}

fuzz_target!(init: seeds(), |bytes: &[u8]| {
    let Some((at, message)) = bytes.split_first() else { return };
    let (purpose, trail, kid) = &keys()[usize::from(*at) % keys().len()];
    let Ok(position) = position_of(*purpose, trail.as_ref(), kid, message) else { return };
    // What is accepted is the one encoding of something that is of this key.
    match &position {
        Position::Record { trail: found, .. } => {
            assert_eq!((*purpose, trail.as_ref()), (Purpose::Record, Some(found)));
            assert_is_pae(RECORD_PAYLOAD_TYPE, message);
        }
        Position::Checkpoint { origin, size } => {
            assert_eq!(trail.as_ref(), Some(origin));
            let checkpoint = Checkpoint::parse_text(message).unwrap();
            assert_eq!((checkpoint.text().as_bytes(), checkpoint.size), (message, *size));
        }
        Position::Statement { kid: found, .. } => {
            assert_eq!((*purpose, found), (Purpose::Evidence, kid));
            assert_is_pae(STATEMENT_PAYLOAD_TYPE, message);
        }
        Position::Probe { .. } => assert_is_pae(PROBE_PAYLOAD_TYPE, message),
    }
    // No two purposes sign the same bytes, but that every key signs its probe.
    let checkpoints = [Purpose::Checkpoint, Purpose::AdminCheckpoint];
    for other in Purpose::ALL.into_iter().filter(|other| other != purpose) {
        let both = position_of(other, trail.as_ref(), kid, message).is_ok();
        let may = matches!(position, Position::Probe { .. })
            || (checkpoints.contains(&other) && checkpoints.contains(purpose));
        assert_eq!(both, may, "{purpose} and {other}");
    }
});

/// The payloads are objects, and nothing before them has a brace.
fn assert_is_pae(payload_type: &str, message: &[u8]) {
    let payload = message.iter().position(|byte| *byte == b'{').unwrap();
    assert_eq!(pae(payload_type, &message[payload..]), message);
}
