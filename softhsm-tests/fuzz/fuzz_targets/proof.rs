//! Proofs and receipts: what a gateway keeps of a record.
#![no_main]

use std::sync::OnceLock;

use countersign_fuzz::{genuine, other_spellings, seed, text, texts, unhex, vectors};
use countersign_trail::checkpoint::{Checkpoint, SignedCheckpoint};
use countersign_trail::hash::Hash;
use countersign_trail::keys::PublicKey;
use countersign_trail::multiproof::BatchTree;
use countersign_trail::note::VerifierKey;
use countersign_trail::receipt::{Receipt, ReceiptProof};
use countersign_trail::tlog_proof::TlogProof;
use countersign_trail::tree::{CompactRange, leaf_hash};
use libfuzzer_sys::fuzz_target;

/// A proof of the vectors: the leaf's hash, the key, the proof.
struct Genuine {
    leaf: Hash,
    key: VerifierKey,
    proof: TlogProof,
}

fn proofs() -> &'static [Genuine] {
    static PROOFS: OnceLock<Vec<Genuine>> = OnceLock::new();
    PROOFS.get_or_init(|| {
        let vectors = vectors("tlog_proof");
        let proofs = vectors["proofs"].as_array().unwrap().iter().map(|proof| Genuine {
            leaf: text(&proof["leaf_hash"]).parse().unwrap(),
            key: text(&proof["vkey"]).parse().unwrap(),
            proof: TlogProof::parse(text(&proof["proof"]).as_bytes()).unwrap(),
        });
        proofs.collect()
    })
}

/// Receipts of the records in the vectors: by their signatures, and by their places in a tree.
fn receipts() -> Vec<Vec<u8>> {
    let vectors = vectors("record");
    let key = PublicKey::from_spki_der(&unhex(&vectors["key"]["spki"])).unwrap();
    let records: Vec<Vec<u8>> = texts(&vectors, "records", "record").into_iter().map(String::into_bytes).collect();
    let leaves: Vec<Hash> = records.iter().map(|record| leaf_hash(record)).collect();
    let tree = BatchTree::new(&CompactRange::empty(), &leaves).unwrap();
    let (origin, size) = (text(&vectors["trail"]).parse().unwrap(), tree.size());
    let checkpoint = Checkpoint { origin, size, root: tree.root() };
    // Parsing verifies nothing.
    let checkpoint = SignedCheckpoint::assemble(&checkpoint, &key, &[7; 64]).unwrap();
    let mut receipts = Vec::new();
    for (at, record) in records.into_iter().enumerate() {
        let signature = unhex(&vectors["records"][at]["signature"]);
        let path = tree.inclusion_path(at as u64).unwrap();
        let proof = TlogProof::new(None, at as u64, path, checkpoint.clone()).unwrap();
        for proof in [ReceiptProof::Signature(signature), ReceiptProof::Inclusion(Box::new(proof))] {
            receipts.push(Receipt::new(record.clone(), key.kid(), proof).unwrap().to_bytes().unwrap());
        }
    }
    receipts
}

fn seeds() {
    let vectors = vectors("tlog_proof");
    genuine(texts(&vectors, "proofs", "proof"), |bytes| TlogProof::parse(bytes).is_ok());
    seed(texts(&vectors, "refused", "proof"));
    genuine(receipts(), |bytes| Receipt::parse(bytes).is_ok());
    genuine([receipts().join(&b'\n')], |bytes| Receipt::parse_lines(bytes).is_ok());
}

fuzz_target!(init: seeds(), |bytes: &[u8]| {
    if let Ok(proof) = TlogProof::parse(bytes) {
        assert_eq!(proof.to_bytes(), bytes);
        for genuine in proofs() {
            if proof.verify(genuine.leaf, genuine.key.key()).is_ok() {
                // Extra data and other people's signatures are not the proof's.
                assert_eq!((proof.index(), proof.path()), (genuine.proof.index(), genuine.proof.path()));
            }
        }
    }
    if let Ok(receipt) = Receipt::parse(bytes) {
        assert_eq!(receipt.to_bytes().unwrap(), bytes);
        assert_eq!(receipt.leaf(), leaf_hash(&receipt.bytes));
        for other in other_spellings(bytes) {
            assert!(Receipt::parse(&other).is_err(), "{}", String::from_utf8_lossy(&other));
        }
    }
    if let Ok(receipts) = Receipt::parse_lines(bytes) {
        let lines: Vec<Vec<u8>> = receipts.iter().map(|receipt| receipt.to_bytes().unwrap()).collect();
        assert_eq!(lines.join(&b'\n'), bytes.strip_suffix(b"\n").unwrap_or(bytes));
    }
});
