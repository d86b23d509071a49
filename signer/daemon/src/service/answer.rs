//! Answers and their proofs.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use countersign_proto::v1;
use countersign_trail::hash::Hash;
use countersign_trail::multiproof::{self, MultiproofError};
use countersign_trail::tree::subtree_hash;

use super::submit::{Answered, read_refusal};
use crate::reason::{Reason, Refusal};
use crate::sequencer::{SealedBatch, TrailHandle};
use crate::store::ReadError;
use crate::store::sqlite::SqliteStore;
use crate::store::sqlite::reader::Snapshot;
use crate::store::tree::StoredTree;

/// A record as its client receives it.
pub fn signed(answered: &Answered) -> v1::Signed {
    let salt = |part: &crate::store::StoredPart| {
        let (salt, _) = part.content.as_ref()?;
        Some(v1::Salt { part: part.name.to_string(), salt: Bytes::copy_from_slice(salt) })
    };
    v1::Signed {
        record: answered.record(),
        seq: answered.seq(),
        leaf_hash: Bytes::copy_from_slice(answered.leaf().as_bytes()),
        salts: answered.parts().iter().filter_map(salt).collect(),
        signature: answered.signature().unwrap_or_default(),
    }
}

/// Where a checkpoint's tree can be read.
enum Tree<'a> {
    Batch(&'a Arc<SealedBatch>),
    Store(u64),
}

/// Batch mode: one proof for each checkpoint, over the records that it covers. None in record mode,
/// where every record has a signature of its own.
pub async fn proofs(
    store: &SqliteStore,
    trail: &TrailHandle,
    answers: impl Iterator<Item = &Answered>,
) -> Result<Vec<v1::Proof>, Refusal> {
    let mut by_checkpoint: BTreeMap<u64, (Bytes, Tree<'_>, Vec<u64>)> = BTreeMap::new();
    for answered in answers {
        let (size, note, tree) = match answered {
            Answered::New(batch, _) => match &batch.checkpoint {
                Some(note) if trail.facts().record_key.is_none() => {
                    (batch.tree.size(), note.clone(), Tree::Batch(batch))
                }
                _ => continue,
            },
            Answered::Stored(stored) => match &stored.checkpoint {
                Some(note) => (note.size, note.note.clone(), Tree::Store(note.size)),
                None => continue,
            },
        };
        by_checkpoint.entry(size).or_insert_with(|| (note, tree, Vec::new())).2.push(answered.seq());
    }
    let mut proofs = Vec::with_capacity(by_checkpoint.len());
    for (checkpoint, tree, mut seqs) in by_checkpoint.into_values() {
        seqs.sort_unstable();
        seqs.dedup();
        let hashes = match tree {
            Tree::Batch(batch) => {
                batch.tree.multiproof(&seqs).map_err(|error| Refusal::new(Reason::Internal, error))?
            }
            Tree::Store(size) => from_store(store, trail, size, seqs.clone()).await?,
        };
        let hashes = hashes.iter().map(|hash| Bytes::copy_from_slice(hash.as_bytes())).collect();
        proofs.push(v1::Proof { checkpoint, hashes, seqs });
    }
    Ok(proofs)
}

async fn from_store(store: &SqliteStore, trail: &TrailHandle, size: u64, seqs: Vec<u64>) -> Result<Vec<Hash>, Refusal> {
    let no = trail.facts().no;
    let damaged = |problem: String| ReadError::Damaged { what: "the tree".to_owned(), problem };
    let read = move |snapshot: &Snapshot<'_>| {
        let tree = StoredTree::new(snapshot, no);
        let mut node = |low, high| subtree_hash(&tree, low, high).map_err(|error| ProofError(error.to_string()));
        multiproof::prove(&seqs, size, &mut node).map_err(|ProofError(problem)| damaged(problem))
    };
    store.reader().run(read).await.map_err(|error| read_refusal(&error))
}

struct ProofError(String);

impl From<MultiproofError> for ProofError {
    fn from(error: MultiproofError) -> Self {
        ProofError(error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use countersign_proto::MAX_ANSWER_LEN;
    use countersign_proto::event::{PARTS, decode, record_event};
    use countersign_trail::id::{EventId, MemberId, PartName};
    use countersign_trail::keys::Kid;
    use countersign_trail::origin::{MAX_ORIGIN_LEN, Origin};
    use countersign_trail::record::{Header, MAX_LINKS, write_event};
    use countersign_trail::time::Timestamp;
    use countersign_trail::tree::MAX_INCLUSION_PATH;
    use prost::Message;
    use v1::answer::Outcome;

    use super::*;

    /// Most events of one message.
    const EVENTS: usize = 4_096;

    /// The largest record that an event makes.
    fn largest_record() -> Vec<u8> {
        let origin = format!("a.b/{}", "c".repeat(MAX_ORIGIN_LEN - 4));
        let leaf = Hash::of(b"leaf");
        let link = v1::Link {
            rel: "r".repeat(32),
            trail: origin.clone(),
            seq: u64::MAX,
            leaf_hash: Bytes::copy_from_slice(leaf.as_bytes()),
        };
        let event = v1::Event {
            // Each byte is two in JSON.
            event_id: "\"".repeat(64),
            r#type: "t".repeat(64),
            category: v1::Category::Escalation.into(),
            decision: v1::Decision::Escalate.into(),
            result: v1::Result::Escalated.into(),
            links: vec![link; MAX_LINKS],
            ..v1::Event::default()
        };
        let decoded = decode(&event).unwrap();
        assert_eq!(decoded.event_id, EventId::parse(&event.event_id).unwrap());
        let parts = PARTS.map(|name| (PartName::parse(name).unwrap(), leaf));
        let event = record_event(&decoded, MemberId::parse(&"m".repeat(64)).unwrap(), parts.into());
        let header = Header {
            trail: Origin::parse(&origin).unwrap(),
            seq: u64::MAX,
            time: Timestamp::EPOCH,
            prev: leaf,
            kids: vec!["A".repeat(43).parse::<Kid>().unwrap()],
        };
        let mut bytes = Vec::new();
        write_event(&mut bytes, &header, &event);
        bytes
    }

    #[test]
    fn the_largest_answer_is_one_that_clients_take() {
        let hash = Bytes::from_static(&[7; 32]);
        let salt = |part: &&str| v1::Salt { part: (*part).to_owned(), salt: hash.clone() };
        let signed = v1::Signed {
            record: largest_record().into(),
            seq: u64::MAX,
            leaf_hash: hash.clone(),
            salts: PARTS.iter().map(salt).collect(),
            signature: Bytes::from_static(&[7; 72]),
        };
        // Each a repeat of a record in a batch of its own: a checkpoint each, which names the trail twice.
        let proof = v1::Proof {
            checkpoint: vec![b'c'; 2 * MAX_ORIGIN_LEN + 400].into(),
            hashes: vec![hash; MAX_INCLUSION_PATH],
            seqs: vec![u64::MAX],
        };
        let answers = vec![v1::Answer { outcome: Some(Outcome::Signed(signed)) }; EVENTS];
        let answer = v1::SignBatchResponse { answers, proofs: vec![proof; EVENTS] };
        let len = answer.encoded_len();
        assert!(len < MAX_ANSWER_LEN, "{len} bytes");
        // The bound is no wild guess.
        assert!(len > MAX_ANSWER_LEN / 2, "{len} bytes");
    }
}
