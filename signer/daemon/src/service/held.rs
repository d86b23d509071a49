//! What a client says it holds: the one thing that finds out a restored copy of the whole host.
//!
//! A claim that verifies under the trail's keys and differs from what the store has proves that
//! records were lost: HEAD_MISMATCH, and the trail is latched. Any other bad claim fails its own
//! call alone.

use bytes::Bytes;
use countersign_proto::v1::HeldHead;
use countersign_trail::checkpoint::SignedCheckpoint;
use countersign_trail::dsse;
use countersign_trail::hash::Hash;
use countersign_trail::keys::PublicKey;
use countersign_trail::record::Record;
use countersign_trail::signing::RECORD_PAYLOAD_TYPE;
use countersign_trail::tree::{self, MAX_INCLUSION_PATH, verify_inclusion};

use super::submit::read_refusal;
use crate::appliance::Appliance;
use crate::reason::{Reason, Refusal};
use crate::sequencer::TrailHandle;

/// Checks a client's claim against the store.
pub async fn check(appliance: &Appliance, trail: &TrailHandle, held: &HeldHead) -> Result<(), Refusal> {
    let claimed = hash("leaf_hash", &held.leaf_hash)?;
    let (no, seq) = (trail.facts().no, held.seq);
    let signed = trail.now().signed;
    if seq < signed {
        let leaf = appliance.store.reader().run(move |snapshot| snapshot.leaves(no, seq, seq + 1)).await;
        if leaf.map_err(|error| read_refusal(&error))?.first() == Some(&claimed) {
            return Ok(());
        }
    }
    verify(appliance, trail, held, claimed)?;
    // Between the look at the size and now the record may have been released.
    let now = trail.now().signed;
    if seq >= signed && seq < now {
        let leaf = appliance.store.reader().run(move |snapshot| snapshot.leaves(no, seq, seq + 1)).await;
        if leaf.map_err(|error| read_refusal(&error))?.first() == Some(&claimed) {
            return Ok(());
        }
    }
    let origin = &trail.facts().origin;
    tracing::error!(trail = %origin, seq, size = now, "a client holds a signed record that the store does not have");
    trail.latch(Reason::HeadMismatch).await?;
    let message = format!(
        "you hold record {seq} of {origin} with a valid proof, and the store of size {now} has another there or none: it lost records, and the trail is latched"
    );
    Err(Refusal::new(Reason::HeadMismatch, message))
}

fn invalid(problem: impl std::fmt::Display) -> Refusal {
    Refusal::new(Reason::InvalidHead, format_args!("the held head is no proof: {problem}"))
}

fn hash(field: impl std::fmt::Display, bytes: &[u8]) -> Result<Hash, Refusal> {
    let wrong = |_| Refusal::new(Reason::InvalidHead, format_args!("held.{field} has {} bytes, not 32", bytes.len()));
    Hash::try_from(bytes).map_err(wrong)
}

/// Whether the claim verifies under the trail's keys.
fn verify(appliance: &Appliance, trail: &TrailHandle, held: &HeldHead, claimed: Hash) -> Result<(), Refusal> {
    let facts = trail.facts();
    let key = |kid| appliance.admin.keys.get(&kid).map(|entry| &entry.key).ok_or_else(|| invalid("its key is unknown"));
    match facts.record_key {
        Some(kid) if held.checkpoint.is_empty() => verify_record(trail, held, claimed, key(kid)?),
        _ => {
            let signed = SignedCheckpoint::parse(&held.checkpoint).map_err(invalid)?;
            let checkpoint = signed.verify(key(facts.checkpoint_key)?).map_err(invalid)?;
            if checkpoint.origin != facts.origin {
                return Err(invalid("the checkpoint is of another trail"));
            }
            if held.path.len() > MAX_INCLUSION_PATH {
                return Err(invalid("the path is too long"));
            }
            let node = |(at, node): (usize, &Bytes)| hash(format_args!("path[{at}]"), node);
            let path = held.path.iter().enumerate().map(node).collect::<Result<Vec<_>, _>>()?;
            verify_inclusion(claimed, held.seq, checkpoint.size, &path, checkpoint.root).map_err(invalid)
        }
    }
}

fn verify_record(trail: &TrailHandle, held: &HeldHead, claimed: Hash, key: &PublicKey) -> Result<(), Refusal> {
    let record = Record::parse(&held.record).map_err(invalid)?;
    if record.header.trail != trail.facts().origin || record.header.seq != held.seq {
        return Err(invalid("the record is of another place"));
    }
    if tree::leaf_hash(&held.record) != claimed {
        return Err(invalid("the record has another leaf hash"));
    }
    key.verify(&dsse::pae(RECORD_PAYLOAD_TYPE, &held.record), &held.signature).map_err(invalid)
}
