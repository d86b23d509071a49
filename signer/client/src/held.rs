//! What the client holds of each trail: its newest head, and the last records' hashes.
//!
//! An answer that contradicts what is held is an alarm; what is held goes out with requests, so
//! that a daemon which was restored from an older copy finds that out.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use countersign_proto::v1;
use countersign_trail::checkpoint::SignedCheckpoint;
use countersign_trail::hash::Hash;
use countersign_trail::keys::Kid;

use crate::error::AlarmReason;
use crate::receipt::{Proof, Receipt};

/// Records of a trail whose hashes are held: those of the newest batch. 4,096 * 72 bytes = 288 KiB.
const WINDOW: u64 = 4_096;

/// A contradiction: reason, what is held, what came.
pub(crate) type Contradiction = (AlarmReason, String, String);

/// A checkpoint that verified under a trusted key.
#[derive(Clone)]
pub(crate) struct VerifiedCheckpoint {
    /// The bytes as they came.
    pub(crate) bytes: Bytes,
    pub(crate) signed: Arc<SignedCheckpoint>,
    pub(crate) kid: Kid,
}

/// What is held of all trails. One lock, taken once a message.
#[derive(Default)]
pub(crate) struct Held(Mutex<HashMap<Arc<str>, HeldTrail>>);

/// What is held of one trail.
#[derive(Default)]
struct HeldTrail {
    newest: Option<Receipt>,
    checkpoint: Option<VerifiedCheckpoint>,
    /// By seq modulo [`WINDOW`].
    window: Vec<Option<Slot>>,
}

#[derive(Clone, Copy)]
struct Slot {
    seq: u64,
    leaf: Hash,
    prev: Hash,
}

impl Held {
    fn lock(&self) -> MutexGuard<'_, HashMap<Arc<str>, HeldTrail>> {
        // Every change below is one assignment: after a panic elsewhere the state is still whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The first place that a record made from now on may have.
    pub(crate) fn floor(&self, trail: &str) -> u64 {
        self.lock().get(trail).map_or(0, HeldTrail::floor)
    }

    /// The newest record that is held.
    pub(crate) fn newest(&self, trail: &str) -> Option<Receipt> {
        self.lock().get(trail)?.newest.clone()
    }

    /// The newest checkpoint that verified.
    pub(crate) fn checkpoint(&self, trail: &str) -> Option<VerifiedCheckpoint> {
        self.lock().get(trail)?.checkpoint.clone()
    }

    /// Takes in checkpoints, of one message, that verified.
    pub(crate) fn admit_checkpoint(&self, trail: &str, new: &VerifiedCheckpoint) -> Result<(), Contradiction> {
        let mut trails = self.lock();
        let held = trails.entry(trail.into()).or_default();
        let (size, root) = (new.signed.checkpoint().size, new.signed.checkpoint().root);
        if let Some(old) = held.checkpoint.as_ref().map(|old| old.signed.checkpoint()) {
            if old.size == size && old.root != root {
                let text = |root: Hash| format!("root {root} at size {size}");
                return Err((AlarmReason::Fork, text(old.root), text(root)));
            }
            if old.size > size {
                return Ok(());
            }
        }
        held.checkpoint = Some(new.clone());
        Ok(())
    }

    /// Takes in records of one message that are proven by themselves: (receipt, its `prev`, and the
    /// first place that it may have). One result for each.
    pub(crate) fn admit(&self, trail: &str, records: &[(&Receipt, Hash, u64)]) -> Vec<Result<(), Contradiction>> {
        let mut trails = self.lock();
        let held = trails.entry(trail.into()).or_default();
        if held.window.is_empty() {
            held.window = vec![None; WINDOW as usize];
        }
        let results: Vec<_> = records.iter().map(|(receipt, prev, floor)| held.admit(receipt, *prev, *floor)).collect();
        let admitted = records.iter().zip(&results).filter(|(_, result)| result.is_ok());
        let newest = admitted.map(|((receipt, ..), _)| *receipt).max_by_key(|receipt| receipt.seq);
        if let Some(newest) = newest.filter(|new| held.newest.as_ref().is_none_or(|old| old.seq < new.seq)) {
            held.newest = Some(newest.clone());
        }
        results
    }
}

impl HeldTrail {
    fn floor(&self) -> u64 {
        let record = self.newest.as_ref().map_or(0, |newest| newest.seq.saturating_add(1));
        let checkpoint = self.checkpoint.as_ref().map_or(0, |held| held.signed.checkpoint().size);
        record.max(checkpoint)
    }

    fn slot(&self, seq: u64) -> Option<Slot> {
        self.window[(seq % WINDOW) as usize].filter(|slot| slot.seq == seq)
    }

    fn admit(&mut self, receipt: &Receipt, prev: Hash, floor: u64) -> Result<(), Contradiction> {
        let Receipt { seq, leaf_hash: leaf, .. } = *receipt;
        let record = |what: &str, seq: u64, hash: Hash| format!("{what} {hash} of record {seq}");
        if let Some(held) = self.slot(seq).filter(|held| held.leaf != leaf) {
            return Err((AlarmReason::Fork, record("leaf hash", seq, held.leaf), record("leaf hash", seq, leaf)));
        }
        if seq < floor {
            return Err((AlarmReason::Order, format!("a new record at {floor} or above"), format!("record {seq}")));
        }
        if let Some(before) = seq.checked_sub(1).and_then(|at| self.slot(at)).filter(|held| held.leaf != prev) {
            return Err((AlarmReason::Chain, record("prev", seq, before.leaf), record("prev", seq, prev)));
        }
        if let Some(after) = seq.checked_add(1).and_then(|at| self.slot(at)).filter(|held| held.prev != leaf) {
            return Err((AlarmReason::Chain, record("leaf hash", seq, after.prev), record("leaf hash", seq, leaf)));
        }
        let place = &mut self.window[(seq % WINDOW) as usize];
        if place.is_none_or(|held| held.seq < seq) {
            *place = Some(Slot { seq, leaf, prev });
        }
        Ok(())
    }
}

/// The head as it goes out with a request.
pub(crate) fn held_head(receipt: &Receipt) -> v1::HeldHead {
    let bytes = |hash: &Hash| Bytes::copy_from_slice(hash.as_bytes());
    let mut head = v1::HeldHead { seq: receipt.seq, leaf_hash: bytes(&receipt.leaf_hash), ..v1::HeldHead::default() };
    match &receipt.proof {
        Proof::Signature(signature) => {
            head.record = receipt.record.clone();
            head.signature = signature.clone();
        }
        Proof::Inclusion { checkpoint, path } => {
            head.checkpoint = checkpoint.to_bytes().into();
            head.path = path.iter().map(bytes).collect();
        }
    }
    head
}
