//! Record 0 of every trail.

use std::sync::Arc;

use countersign_trail::checkpoint::SignedCheckpoint;
use countersign_trail::control::{Body, PlanBody, TrailBody};
use countersign_trail::document::{GenesisKey, Mode, Plan};
use countersign_trail::hash::Hash;
use countersign_trail::id::InstanceId;
use countersign_trail::keys::{Kid, PublicKey};
use countersign_trail::origin::Origin;
use countersign_trail::signing::Purpose;
use countersign_trail::time::Timestamp;
use countersign_trail::tree::CompactRange;

use super::{CeremonyError, file_error};
use crate::config::Config;
use crate::sequencer::TrailFacts;
use crate::sequencer::batch::{Batch, Item, intent_digest};
use crate::signer::TokenSigner;
use crate::store::files::{HeadFile, SecondHead};
use crate::store::sqlite::SqliteStore;
use crate::store::{Append, Head, Outcome, SignedNote, Store, TrailNo, TrailRow};

/// The admin trail's number in a store.
pub const ADMIN_TRAIL_NO: TrailNo = 1;

/// A trail's first batch: its record 0.
pub(super) struct FirstBatch {
    pub(super) facts: TrailFacts,
    pub(super) prev: Hash,
    batch: Batch,
    admin: bool,
}

impl FirstBatch {
    /// Leaf hash of record 0.
    pub(super) fn leaf(&self) -> Hash {
        self.batch.next.leaf
    }
}

/// Builds record 0 of the admin trail, and of every trail on top of its leaf.
pub(super) fn first_batches(
    plan: &Plan,
    created: Timestamp,
    keys: &[GenesisKey],
) -> Result<Vec<FirstBatch>, CeremonyError> {
    let plan_hash = Hash::of(&plan.to_bytes()?);
    let facts = facts(ADMIN_TRAIL_NO, &plan.admin_trail, Mode::Batch, keys)?;
    let admin = first(facts, plan_hash, Body::Plan(PlanBody { plan: plan_hash }), created, true)?;
    let admin_leaf = admin.leaf();
    let mut batches = vec![admin];
    for (no, trail) in (ADMIN_TRAIL_NO + 1..).zip(&plan.trails) {
        let facts = facts_of(no, trail, keys)?;
        let body = TrailBody { admin_seq: 0, admin_trail: plan.admin_trail.clone(), mode: trail.mode };
        batches.push(first(facts, admin_leaf, Body::Trail(body), created, false)?);
    }
    Ok(batches)
}

fn facts_of(
    no: TrailNo,
    trail: &countersign_trail::document::TrailPlan,
    keys: &[GenesisKey],
) -> Result<TrailFacts, CeremonyError> {
    facts(no, &trail.origin, trail.mode, keys)
}

fn facts(no: TrailNo, origin: &Origin, mode: Mode, keys: &[GenesisKey]) -> Result<TrailFacts, CeremonyError> {
    let kid = |wanted: &[Purpose]| -> Option<Kid> {
        keys.iter().find(|key| key.trail.as_ref() == Some(origin) && wanted.contains(&key.purpose)).map(|key| key.kid)
    };
    let missing = || CeremonyError::Mismatch(format!("{origin} has no checkpoint key"));
    Ok(TrailFacts {
        no,
        origin: origin.clone(),
        mode,
        checkpoint_key: kid(&[Purpose::Checkpoint, Purpose::AdminCheckpoint]).ok_or_else(missing)?,
        record_key: kid(&[Purpose::Record]),
    })
}

fn first(
    facts: TrailFacts,
    prev: Hash,
    body: Body,
    created: Timestamp,
    admin: bool,
) -> Result<FirstBatch, CeremonyError> {
    let head = Head { size: 0, leaf: prev, time: created };
    let built = Batch::build(&facts, head, &CompactRange::empty(), vec![(Item::Control(body), created)], true);
    let batch = built.map_err(|error| CeremonyError::Mismatch(format!("record 0 of {}: {error}", facts.origin)))?;
    Ok(FirstBatch { facts, prev, batch, admin })
}

/// Signs the first batches and makes them durable, the way of every later one: intent, signature,
/// second head, outcome.
pub(super) async fn write(
    store: &SqliteStore,
    config: &Config,
    plan: &Plan,
    batches: &[FirstBatch],
    [admin, record]: &[Arc<TokenSigner>; 2],
    keys: &[PublicKey],
) -> Result<(), CeremonyError> {
    for first in batches {
        let signer = if first.admin { admin } else { record };
        write_one(store, config, &plan.instance, first, signer, keys).await?;
    }
    Ok(())
}

async fn write_one(
    store: &SqliteStore,
    config: &Config,
    instance: &InstanceId,
    first: &FirstBatch,
    signer: &TokenSigner,
    keys: &[PublicKey],
) -> Result<(), CeremonyError> {
    let FirstBatch { facts, prev, batch, .. } = first;
    let head = Head { size: 0, leaf: *prev, time: batch.next.time };
    store.add_trail(TrailRow { no: facts.no, origin: facts.origin.clone(), head, signed: 0, latched: None }).await?;
    let messages = batch.messages(facts);
    let leaves = batch.records.iter().map(|record| record.leaf);
    let mac = signer.mac(intent_digest(instance, facts, &batch.prev, leaves, &messages)).await?;
    let intent = Some(batch.intent(mac));
    store.append(Append { trail: facts.no, outcome: None, intent, checkpoint: None }).await?;
    let mut signatures = signer.sign(messages, None).await?;
    let missing = || CeremonyError::Mismatch(format!("record 0 of {} has no checkpoint", facts.origin));
    let checkpoint = batch.checkpoint.as_ref().ok_or_else(missing)?;
    let signature = signatures.pop().ok_or_else(missing)?;
    let key = keys.iter().find(|key| key.kid() == facts.checkpoint_key).ok_or_else(missing)?;
    let note = SignedCheckpoint::assemble(checkpoint, key, &signature).map_err(|_| missing())?;
    let (mut second, _) =
        HeadFile::open(&config.head_dir, &facts.origin.path_segment(), true).map_err(file_error(&config.head_dir))?;
    second.write(SecondHead::at(1, batch.next.leaf)).map_err(file_error(&config.head_dir))?;
    let note = SignedNote { size: 1, note: note.to_bytes().into() };
    let outcome = Outcome { first_seq: 0, count: 1, signatures, checkpoint: Some(note) };
    store.append(Append { trail: facts.no, outcome: Some(outcome), intent: None, checkpoint: None }).await?;
    Ok(())
}
