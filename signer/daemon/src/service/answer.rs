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
