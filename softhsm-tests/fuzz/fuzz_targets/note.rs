//! Signed notes, verifier keys and checkpoints.
#![no_main]

use std::sync::OnceLock;

use countersign_fuzz::{genuine, seed, texts, vectors};
use countersign_trail::checkpoint::{Checkpoint, SignedCheckpoint};
use countersign_trail::note::{KeyId, MAX_SIGNATURES, SignedNote, VerifierKey};
use countersign_verify::KnownHead;
use libfuzzer_sys::fuzz_target;

/// The keys of the vectors, and every text that they signed.
fn signed() -> &'static (Vec<VerifierKey>, Vec<String>) {
    static SIGNED: OnceLock<(Vec<VerifierKey>, Vec<String>)> = OnceLock::new();
    SIGNED.get_or_init(|| {
        let (notes, checkpoints) = (vectors("note"), vectors("checkpoint"));
        let keys = texts(&notes, "keys", "vkey").iter().map(|vkey| vkey.parse().unwrap()).collect();
        let all = [texts(&notes, "notes", "note"), texts(&checkpoints, "signed", "checkpoint")].concat();
        let text = |note: &String| SignedNote::parse(note.as_bytes()).unwrap().text().to_owned();
        (keys, all.iter().map(text).collect())
    })
}

fn seeds() {
    let (notes, checkpoints) = (vectors("note"), vectors("checkpoint"));
    genuine(texts(&notes, "notes", "note"), |bytes| SignedNote::parse(bytes).is_ok());
    genuine(texts(&checkpoints, "signed", "checkpoint"), |bytes| SignedCheckpoint::parse(bytes).is_ok());
    genuine(texts(&checkpoints, "checkpoints", "text"), |bytes| Checkpoint::parse_text(bytes).is_ok());
    seed([texts(&checkpoints, "signed", "checkpoint").concat()]);
    seed(texts(&notes, "keys", "vkey"));
    seed(texts(&notes, "refused", "note"));
    seed(texts(&checkpoints, "refused", "text"));
}

fuzz_target!(init: seeds(), |bytes: &[u8]| {
    if let Ok(note) = SignedNote::parse(bytes) {
        assert_eq!(note.to_bytes(), bytes);
        assert!((1..=MAX_SIGNATURES).contains(&note.signatures().len()) && note.text().ends_with('\n'));
        let again = SignedNote::assemble(note.text().to_owned(), note.signatures().to_vec());
        assert_eq!(again.as_ref(), Ok(&note));
        let (keys, signed) = signed();
        for key in keys {
            if note.verify(key.name(), key.key()).is_ok() {
                assert!(signed.iter().any(|text| text == note.text()), "a forged note: {:?}", note.text());
            }
        }
    }
    if let Ok(checkpoint) = Checkpoint::parse_text(bytes) {
        assert_eq!(checkpoint.text().as_bytes(), bytes);
    }
    if let Ok(signed) = SignedCheckpoint::parse(bytes) {
        assert_eq!(signed.to_bytes(), bytes);
        assert_eq!(signed.checkpoint().text(), signed.note().text());
    }
    if let Ok(heads) = KnownHead::parse_file("file", bytes) {
        let again: Vec<Vec<u8>> = heads.iter().map(|head| head.checkpoint.to_bytes()).collect();
        assert_eq!(again.concat(), bytes);
    }
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Ok(vkey) = text.parse::<VerifierKey>() {
        assert_eq!(vkey.to_string(), text);
        assert_eq!(vkey.id(), KeyId::of(vkey.name(), vkey.key()));
    }
});
