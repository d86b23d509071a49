//! A daemon's answers, made by test code: honest ones, and lies that are signed.
//!
//! - [`server`]: the same behind real TLS, failing as a script says.

pub(crate) mod server;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use bytes::Bytes;
use countersign_proto::event::{self, PartBody};
use countersign_proto::v1;
use countersign_trail::checkpoint::{Checkpoint, SignedCheckpoint};
use countersign_trail::document::Mode;
use countersign_trail::dsse::pae;
use countersign_trail::hash::Hash;
use countersign_trail::id::MemberId;
use countersign_trail::keys::{Algorithm, Kid};
use countersign_trail::multiproof::{self, MultiproofError};
use countersign_trail::origin::Origin;
use countersign_trail::part;
use countersign_trail::record::{Event, Header, write_event};
use countersign_trail::signing::RECORD_PAYLOAD_TYPE;
use countersign_trail::time::Timestamp;
use countersign_trail::tree::{leaf_hash, node_hash};

use crate::check::now_micros;
use crate::common::SoftKey;
use crate::keys::TrustedKey;
use crate::trust::TrailTrust;

pub(crate) const TRAIL: &str = "acme.example/gateway/decisions";
pub(crate) const MEMBER: &str = "gw-1";

/// A record before it is signed, for a liar to change.
pub(crate) struct Draft {
    pub(crate) header: Header,
    pub(crate) event: Event,
}

/// Changes a draft.
pub(crate) type Lie<'a> = &'a dyn Fn(&mut Draft);

/// One trail with its key.
pub(crate) struct Notary {
    pub(crate) origin: Origin,
    pub(crate) mode: Mode,
    pub(crate) key: SoftKey,
    leaves: Vec<Hash>,
    prev: Hash,
    /// Answers by event_id: a repeat has the same.
    pub(crate) stored: HashMap<String, (v1::Signed, Option<v1::Proof>)>,
}

impl Notary {
    pub(crate) fn new(mode: Mode, algorithm: Algorithm) -> Notary {
        Notary::of(Origin::parse(TRAIL).unwrap(), mode, SoftKey::new(algorithm, 11))
    }

    pub(crate) fn of(origin: Origin, mode: Mode, key: SoftKey) -> Notary {
        // Record 0 is the trail's own.
        let first = Hash::of(b"record 0");
        Notary { origin, mode, key, leaves: vec![first], prev: first, stored: HashMap::new() }
    }

    pub(crate) fn kid(&self) -> Kid {
        self.key.public().kid()
    }

    pub(crate) fn size(&self) -> u64 {
        self.leaves.len() as u64
    }

    pub(crate) fn trust(&self) -> TrailTrust {
        let key = TrustedKey::new(self.key.public()).unwrap();
        TrailTrust { origin: Arc::new(self.origin.clone()), mode: self.mode, keys: vec![key] }
    }

    /// A copy of the trail as it is now: what a backup would be.
    pub(crate) fn backup(&self) -> (Vec<Hash>, Hash) {
        (self.leaves.clone(), self.prev)
    }

    pub(crate) fn restore(&mut self, (leaves, prev): (Vec<Hash>, Hash)) {
        (self.leaves, self.prev) = (leaves, prev);
        self.stored.clear();
    }

    /// Answers a message honestly.
    pub(crate) fn answer(&mut self, events: &[v1::Event]) -> v1::SignBatchResponse {
        self.answer_with(events, &|_| {})
    }

    /// Answers a message; `lie` changes each new record before it is hashed and signed.
    pub(crate) fn answer_with(&mut self, events: &[v1::Event], lie: Lie<'_>) -> v1::SignBatchResponse {
        let mut answers = Vec::new();
        let mut new = Vec::new();
        for event in events {
            if !self.stored.contains_key(&event.event_id) {
                let signed = self.record(event, lie);
                self.stored.insert(event.event_id.clone(), (signed, None));
                new.push(event.event_id.clone());
            }
        }
        for id in new.iter().filter(|_| self.mode == Mode::Batch) {
            let proof = self.prove(&[self.stored[id].0.seq]);
            self.stored.get_mut(id).unwrap().1 = Some(proof);
        }
        let mut proofs = Vec::new();
        for event in events {
            let (signed, proof) = self.stored[&event.event_id].clone();
            if !new.contains(&event.event_id) {
                proofs.extend(proof);
            }
            answers.push(v1::Answer { outcome: Some(v1::answer::Outcome::Signed(signed)) });
        }
        if self.mode == Mode::Batch && !new.is_empty() {
            let mut seqs: Vec<u64> = new.iter().map(|id| self.stored[id].0.seq).collect();
            seqs.dedup();
            proofs.push(self.prove(&seqs));
        }
        v1::SignBatchResponse { answers, proofs }
    }

    fn record(&mut self, event: &v1::Event, lie: Lie<'_>) -> v1::Signed {
        let decoded = event::decode(event).unwrap();
        let mut commitments = BTreeMap::new();
        let mut salts = Vec::new();
        for part in &decoded.parts {
            let fresh = Hash::of_parts(&[event.event_id.as_bytes(), part.name.as_str().as_bytes()]).to_bytes();
            let salt = match &part.body {
                PartBody::Data { salt, .. } => salt.unwrap_or(fresh),
                PartBody::Commitment(_) => fresh,
            };
            if matches!(part.body, PartBody::Data { .. }) {
                salts.push(v1::Salt { part: part.name.to_string(), salt: salt.to_vec().into() });
            }
            commitments.insert(part.name.clone(), part.commitment(&salt));
        }
        let header = Header {
            trail: self.origin.clone(),
            seq: self.size(),
            time: Timestamp::from_micros(now_micros()).unwrap(),
            prev: self.prev,
            kids: vec![self.kid()],
        };
        let event = event::record_event(&decoded, MemberId::parse(MEMBER).unwrap(), commitments);
        let mut draft = Draft { header, event };
        lie(&mut draft);
        let mut bytes = Vec::new();
        write_event(&mut bytes, &draft.header, &draft.event);
        self.append(bytes, salts)
    }

    /// Appends any bytes as the next record.
    pub(crate) fn append(&mut self, bytes: Vec<u8>, salts: Vec<v1::Salt>) -> v1::Signed {
        let leaf = leaf_hash(&bytes);
        let signature = match self.mode {
            Mode::Record => self.key.sign(&pae(RECORD_PAYLOAD_TYPE, &bytes)),
            Mode::Batch => Vec::new(),
        };
        let seq = self.size();
        self.leaves.push(leaf);
        self.prev = leaf;
        v1::Signed {
            record: bytes.into(),
            seq,
            leaf_hash: Bytes::copy_from_slice(leaf.as_bytes()),
            salts,
            signature: signature.into(),
        }
    }

    /// The signed checkpoint over the whole trail.
    pub(crate) fn checkpoint(&self, origin: &Origin, key: &SoftKey) -> Bytes {
        let root = self.hash(0, self.size());
        let checkpoint = Checkpoint { origin: origin.clone(), size: self.size(), root };
        let signature = key.sign(checkpoint.text().as_bytes());
        SignedCheckpoint::assemble(&checkpoint, &key.public(), &signature).unwrap().to_bytes().into()
    }

    pub(crate) fn prove(&self, seqs: &[u64]) -> v1::Proof {
        let mut node = |lo, hi| Ok::<Hash, MultiproofError>(self.hash(lo, hi));
        let hashes = multiproof::prove(seqs, self.size(), &mut node).unwrap();
        let hashes = hashes.iter().map(|hash| Bytes::copy_from_slice(hash.as_bytes())).collect();
        v1::Proof { checkpoint: self.checkpoint(&self.origin, &self.key), hashes, seqs: seqs.to_vec() }
    }

    /// MTH(D[lo:hi]) of RFC 6962, 2.1.
    fn hash(&self, lo: u64, hi: u64) -> Hash {
        if hi - lo == 1 {
            return self.leaves[lo as usize];
        }
        let middle = lo + ((hi - lo).div_ceil(2)).next_power_of_two();
        node_hash(self.hash(lo, middle), self.hash(middle, hi))
    }
}

/// An event with every kind of part: written by the daemon, with the client's salt, kept by the
/// client.
pub(crate) fn full_event(id: &str) -> v1::Event {
    let content = |body, salt: &[u8]| v1::Content {
        media_type: "text/plain".to_owned(),
        salt: salt.to_vec().into(),
        body: Some(body),
    };
    let kept = part::commitment(
        &countersign_trail::id::PartName::parse("response").unwrap(),
        "text/plain",
        &[4; 32],
        b"secret",
    );
    v1::Event {
        event_id: id.to_owned(),
        r#type: "llm.completion".to_owned(),
        category: v1::Category::Redaction.into(),
        decision: v1::Decision::Redact.into(),
        result: v1::Result::Redacted.into(),
        facts: Some(v1::Facts { request_id: "req-1".to_owned(), team: "blue".to_owned(), ..v1::Facts::default() }),
        subject: Some(v1::Subject::default()),
        review: None,
        request: Some(content(v1::content::Body::Data(Bytes::from_static(b"hello")), &[7; 32])),
        response: Some(content(v1::content::Body::Commitment(kept.as_bytes().to_vec().into()), &[])),
        links: vec![v1::Link {
            rel: "retry".to_owned(),
            trail: TRAIL.to_owned(),
            seq: 0,
            leaf_hash: vec![1; 32].into(),
        }],
    }
}

/// An event with facts alone.
pub(crate) fn plain_event(id: &str) -> v1::Event {
    v1::Event { links: Vec::new(), request: None, response: None, subject: None, ..full_event(id) }
}
