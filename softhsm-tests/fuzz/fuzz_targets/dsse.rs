//! DSSE envelopes, alone and as the lines of a tile's signatures.
#![no_main]

use std::sync::OnceLock;

use countersign_fuzz::{genuine, other_spellings, seed, texts, unhex, vectors};
use countersign_trail::dsse::{Envelope, PROBE, RECORD, STATEMENT};
use countersign_trail::evidence::parse_signatures;
use countersign_trail::keys::PublicKey;
use libfuzzer_sys::fuzz_target;
use serde_json::Value;

/// The keys of the vectors, and every envelope that they signed.
fn signed() -> &'static (Vec<PublicKey>, Vec<Envelope>) {
    static SIGNED: OnceLock<(Vec<PublicKey>, Vec<Envelope>)> = OnceLock::new();
    SIGNED.get_or_init(|| {
        let vectors = vectors("dsse");
        let spki = vectors["keys"].as_array().unwrap().iter().map(|key| unhex(&key["spki"]));
        let envelopes = texts(&vectors, "envelopes", "envelope");
        let parse = |text: &String| Envelope::parse(text.as_bytes()).unwrap();
        (spki.map(|der| PublicKey::from_spki_der(&der).unwrap()).collect(), envelopes.iter().map(parse).collect())
    })
}

fn seeds() {
    let vectors = vectors("dsse");
    genuine(texts(&vectors, "envelopes", "envelope"), |bytes| Envelope::parse(bytes).is_ok());
    genuine(texts(&vectors, "not_verified", "envelope"), |bytes| Envelope::parse(bytes).is_ok());
    seed(texts(&vectors, "refused", "envelope"));
    seed([texts(&vectors, "envelopes", "envelope").join("\n") + "\n"]);
}

fuzz_target!(init: seeds(), |bytes: &[u8]| {
    if let Ok(envelope) = Envelope::parse(bytes) {
        check(&envelope, bytes);
    }
    let count = bytes.iter().filter(|byte| **byte == b'\n').count();
    if let Ok(lines) = parse_signatures(bytes, count) {
        assert_eq!(lines.len(), count);
        for (line, text) in lines.iter().zip(bytes.split(|byte| *byte == b'\n')) {
            if let Ok(envelope) = line {
                assert_eq!(envelope.to_json(), text);
            }
        }
    }
});

fn check(envelope: &Envelope, bytes: &[u8]) {
    assert_eq!(envelope.to_json(), bytes);
    let (payload_type, payload) = (envelope.payload_type(), envelope.payload());
    let again = Envelope::new(payload_type, payload.to_vec(), envelope.signatures().to_vec());
    assert_eq!(again.as_ref(), Ok(envelope));
    let value: Value = serde_json::from_slice(bytes).unwrap();
    assert_eq!(value["payloadType"], payload_type);
    for other in other_spellings(bytes) {
        assert!(Envelope::parse(&other).is_err(), "{}", String::from_utf8_lossy(&other));
    }
    let (keys, signed) = signed();
    for payload_type in [RECORD, STATEMENT, PROBE] {
        if keys.iter().any(|key| envelope.verify(payload_type, key).is_ok()) {
            let same = |other: &Envelope| (other.payload_type(), other.payload()) == (payload_type, payload);
            assert!(signed.iter().any(same), "a forged envelope: {envelope:?}");
        }
    }
}
