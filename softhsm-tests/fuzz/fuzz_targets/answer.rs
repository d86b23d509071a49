//! A daemon's answers, as the client checks them: whatever it believes, the formats' own code proves.
//!
//! The check is private to its crate; this program compiles its sources. An input chooses a mode and
//! an algorithm, and changes an honest answer.
#![no_main]

#[path = "../../../signer/client/src"]
#[allow(dead_code, unused_imports, reason = "the library's")]
mod client {
    pub mod check;
    pub mod codec;
    pub mod config;
    pub mod connect;
    pub mod error;
    pub mod held;
    pub mod keys;
    pub mod receipt;
    pub mod retry;
    pub mod sign;
    pub mod stream;
    pub mod trust;
}
#[path = "../../../signer/trail/tests/common/keys.rs"]
mod soft_keys;

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use countersign_fuzz::Change;
use countersign_proto::event::{PartBody, decode, record_event};
use countersign_proto::v1;
use countersign_trail::checkpoint::{Checkpoint, SignedCheckpoint};
use countersign_trail::document::Mode;
use countersign_trail::dsse::pae;
use countersign_trail::hash::Hash;
use countersign_trail::id::PartName;
use countersign_trail::keys::Algorithm;
use countersign_trail::multiproof::BatchTree;
use countersign_trail::origin::Origin;
use countersign_trail::part::{SALT_LEN, commitment};
use countersign_trail::receipt::Receipt as KeptReceipt;
use countersign_trail::record::{Content, Header, write_event};
use countersign_trail::signing::RECORD_PAYLOAD_TYPE;
use countersign_trail::time::Timestamp;
use countersign_trail::tree::{CompactRange, leaf_hash};
use libfuzzer_sys::fuzz_target;
use prost::Message as _;

#[allow(unused_imports, reason = "as the library has them at its root")]
use client::{check, codec, config, connect, error, held, keys, receipt, retry, sign, stream, trust};

use check::{Checker, Outcome, Sent};
use held::Held;
use keys::TrustedKey;
use soft_keys::SoftKey;
use trust::TrailTrust;

const TRAIL: &str = "acme.example/gateway/decisions";
const MEMBER: &str = "gw-1";

/// One trail with the honest answer to both events.
struct Notary {
    mode: Mode,
    key: SoftKey,
    answer: v1::SignBatchResponse,
}

impl Notary {
    fn new(mode: Mode, algorithm: Algorithm) -> Notary {
        let key = SoftKey::new(algorithm, 11);
        let mut leaves = vec![Hash::of(b"record 0")];
        let mut signed: Vec<v1::Signed> = Vec::new();
        for event in events() {
            let (record, salts) = record(&event, &key, leaves.len() as u64, leaves[leaves.len() - 1]);
            let leaf = leaf_hash(&record);
            let signature = match mode {
                Mode::Record => key.sign(&pae(RECORD_PAYLOAD_TYPE, &record)),
                Mode::Batch => Vec::new(),
            };
            signed.push(v1::Signed {
                record: record.into(),
                seq: leaves.len() as u64,
                leaf_hash: leaf.as_bytes().to_vec().into(),
                salts,
                signature: signature.into(),
            });
            leaves.push(leaf);
        }
        let proofs = if mode == Mode::Batch { vec![proof(&key, &leaves)] } else { Vec::new() };
        let answers = signed.into_iter().map(v1::answer::Outcome::Signed);
        let answers = answers.map(|outcome| v1::Answer { outcome: Some(outcome) }).collect();
        Notary { mode, key, answer: v1::SignBatchResponse { answers, proofs } }
    }

    fn trust(&self) -> TrailTrust {
        let keys = vec![TrustedKey::new(self.key.public()).unwrap()];
        TrailTrust { origin: Arc::new(origin()), mode: self.mode, keys }
    }
}

/// The record of an event, with the salts that a daemon would draw.
fn record(event: &v1::Event, key: &SoftKey, seq: u64, prev: Hash) -> (Vec<u8>, Vec<v1::Salt>) {
    let decoded = decode(event).unwrap();
    let (mut salts, mut commitments) = (Vec::new(), BTreeMap::new());
    for part in &decoded.parts {
        let drawn = Hash::of(part.name.as_str().as_bytes()).to_bytes();
        let salt = match &part.body {
            PartBody::Data { salt, .. } => salt.unwrap_or(drawn),
            PartBody::Commitment(_) => drawn,
        };
        if matches!(part.body, PartBody::Data { .. }) {
            salts.push(v1::Salt { part: part.name.to_string(), salt: salt.to_vec().into() });
        }
        commitments.insert(part.name.clone(), part.commitment(&salt));
    }
    let time = Timestamp::from_micros(check::now_micros()).unwrap();
    let header = Header { trail: origin(), seq, time, prev, kids: vec![key.kid()] };
    let mut record = Vec::new();
    write_event(&mut record, &header, &record_event(&decoded, MEMBER.parse().unwrap(), commitments));
    (record, salts)
}

/// One proof of every record but the first.
fn proof(key: &SoftKey, leaves: &[Hash]) -> v1::Proof {
    let tree = BatchTree::new(&CompactRange::empty(), leaves).unwrap();
    let checkpoint = Checkpoint { origin: origin(), size: tree.size(), root: tree.root() };
    let signature = key.sign(checkpoint.text().as_bytes());
    let checkpoint = SignedCheckpoint::assemble(&checkpoint, &key.public(), &signature).unwrap();
    let seqs: Vec<u64> = (1..tree.size()).collect();
    let hashes = tree.multiproof(&seqs).unwrap();
    let hashes = hashes.iter().map(|hash| Bytes::copy_from_slice(hash.as_bytes())).collect();
    v1::Proof { checkpoint: checkpoint.to_bytes().into(), hashes, seqs }
}

fn origin() -> Origin {
    TRAIL.parse().unwrap()
}

/// An event with every kind of part, and one with facts alone.
fn events() -> [v1::Event; 2] {
    let content = |body, salt: &[u8]| v1::Content {
        media_type: "text/plain".to_owned(),
        salt: salt.to_vec().into(),
        body: Some(body),
    };
    let kept = commitment(&"response".parse::<PartName>().unwrap(), "text/plain", &[4; SALT_LEN], b"kept");
    let plain = v1::Event {
        event_id: "event-2".to_owned(),
        r#type: "llm.completion".to_owned(),
        category: v1::Category::Redaction.into(),
        decision: v1::Decision::Redact.into(),
        result: v1::Result::Redacted.into(),
        facts: Some(v1::Facts { request_id: "req-1".to_owned(), ..v1::Facts::default() }),
        ..v1::Event::default()
    };
    let full = v1::Event {
        event_id: "event-1".to_owned(),
        request: Some(content(v1::content::Body::Data(Bytes::from_static(b"hello")), &[7; SALT_LEN])),
        response: Some(content(v1::content::Body::Commitment(kept.as_bytes().to_vec().into()), &[])),
        ..plain.clone()
    };
    [full, plain]
}

fn notaries() -> &'static [Notary] {
    static NOTARIES: OnceLock<Vec<Notary>> = OnceLock::new();
    NOTARIES.get_or_init(|| {
        let modes = [Mode::Record, Mode::Batch].into_iter();
        let both = modes.flat_map(|mode| [Algorithm::Ed25519, Algorithm::EcdsaP256].map(|algorithm| (mode, algorithm)));
        both.map(|(mode, algorithm)| Notary::new(mode, algorithm)).collect()
    })
}

fn seeds() {
    let notaries = 0..notaries().len() as u8;
    let mut seeds: Vec<Vec<u8>> = Vec::new();
    for notary in notaries {
        seeds.push(vec![0, notary]);
        // A flipped bit of each field, and the answer itself to change as Protobuf.
        seeds.extend((0..14).map(|field| vec![0, notary, 2, 0, field, 0, 20, 1]));
        seeds.push([&[1, notary][..], &self::notaries()[usize::from(notary)].answer.encode_to_vec()].concat());
    }
    countersign_fuzz::seed(seeds);
}

fuzz_target!(init: seeds(), |bytes: &[u8]| {
    let [how, which, rest @ ..] = bytes else { return };
    let notary = &notaries()[usize::from(*which) % notaries().len()];
    let answer = match how {
        0 => Change::script(rest, 3).iter().fold(notary.answer.clone(), changed),
        _ => match v1::SignBatchResponse::decode(rest) {
            Ok(answer) => answer,
            Err(_) => return,
        },
    };
    let honest = answer == notary.answer;
    let (trust, held) = (notary.trust(), Held::default());
    let checker = Checker { trust: &trust, held: &held, skew: Duration::from_secs(1 << 20) };
    let mut sent = events().map(|event| Sent::prepare(event, &MEMBER.parse().unwrap(), 0).unwrap());
    let Ok(outcomes) = checker.message(&mut sent, answer.answers, answer.proofs) else {
        assert!(!honest);
        return;
    };
    assert_eq!(outcomes.len(), sent.len());
    for (outcome, event) in outcomes.into_iter().zip(events()) {
        match outcome {
            Outcome::Signed(receipt) => assert_proven(notary, &receipt, &event),
            Outcome::Refused(_) | Outcome::Alarm(_) => assert!(!honest),
        }
    }
});

/// Changes one field of the answer.
fn changed(mut answer: v1::SignBatchResponse, change: &Change) -> v1::SignBatchResponse {
    let edit = |bytes: &mut Bytes| {
        let mut changed = bytes.to_vec();
        change.apply(&mut changed);
        *bytes = changed.into();
    };
    let (field, place) = (change.which % 14, change.which / 14);
    let count = answer.answers.len().max(1);
    let signed = answer.answers.get_mut(place % count).and_then(|answer| match &mut answer.outcome {
        Some(v1::answer::Outcome::Signed(signed)) => Some(signed),
        _ => None,
    });
    match (field, signed, answer.proofs.first_mut()) {
        (0, Some(signed), _) => edit(&mut signed.record),
        (1, Some(signed), _) => signed.seq ^= 1 << (change.value % 64),
        (2, Some(signed), _) => edit(&mut signed.leaf_hash),
        (3, Some(signed), _) => edit(&mut signed.signature),
        (4, Some(signed), _) => drop(signed.salts.pop()),
        (5, Some(signed), _) => signed.salts.first_mut().into_iter().for_each(|salt| edit(&mut salt.salt)),
        (6, Some(signed), _) => signed.salts.first_mut().into_iter().for_each(|salt| salt.part.push('x')),
        (7, _, Some(proof)) => edit(&mut proof.checkpoint),
        (8, _, Some(proof)) => proof.hashes.first_mut().into_iter().for_each(edit),
        (9, _, Some(proof)) => proof.hashes.push(vec![change.value; 32].into()),
        (10, _, Some(proof)) => proof.seqs.push(u64::from(change.value)),
        (11, _, Some(proof)) => proof.seqs.reverse(),
        (12, _, Some(proof)) => {
            let proof = proof.clone();
            answer.proofs.push(proof);
        }
        (13, ..) => answer.answers.rotate_left(1.min(count - 1)),
        _ => {}
    }
    answer
}

/// A receipt that the client gave: the record says what was sent, and the key of the trail says so.
fn assert_proven(notary: &Notary, receipt: &receipt::Receipt, event: &v1::Event) {
    let kept = KeptReceipt::parse(&receipt.to_json().unwrap()).unwrap();
    kept.verify(&notary.key.public()).expect("the formats' own code agrees");
    assert_eq!((kept.leaf(), kept.record.header.seq), (receipt.leaf_hash, receipt.seq));
    assert_eq!((kept.record.header.time, &kept.record.header.trail), (receipt.time, &origin()));
    let Content::Event(found) = &kept.record.content else { panic!("{kept:?}") };
    let decoded = decode(event).unwrap();
    let expected: BTreeMap<PartName, Hash> = decoded
        .parts
        .iter()
        .map(|part| {
            let salt = receipt.salt(part.name.as_str()).copied().unwrap_or_default();
            (part.name.clone(), part.commitment(&salt))
        })
        .collect();
    assert_eq!(*found, record_event(&decoded, MEMBER.parse().unwrap(), expected));
}
