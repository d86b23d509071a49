//! Opening a trail: what the store says is checked before anything is signed, and an open intent
//! enters the normal path.

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use countersign_hsm::{HsmError, RecoveryProof};
use countersign_trail::admin::{AdminState, TrailEntry};
use countersign_trail::checkpoint::{Checkpoint, SignedCheckpoint};
use countersign_trail::document::Mode;
use countersign_trail::dsse;
use countersign_trail::hash::Hash;
use countersign_trail::id::InstanceId;
use countersign_trail::keys::PublicKey;
use countersign_trail::record::{Record, RecordError};
use countersign_trail::signing::RECORD_PAYLOAD_TYPE;
use countersign_trail::time::Timestamp;
use countersign_trail::tree::{self, CompactRange};
use tokio::sync::{mpsc, watch};

use super::batch::{Batch, BatchError, intent_digest};
use super::flight::Flight;
use super::gather::Gathering;
use super::mark;
use super::recent::Recent;
use super::task::{Fatal, Task, first_signature_time};
use super::{Bounds, Published, QUEUE_GROUPS, TrailFacts, TrailHandle};
use crate::metrics::Metrics;
use crate::reason::{Reason, Refusal};
use crate::signer::TokenSigner;
use crate::store::files::{HeadFile, SecondHead};
use crate::store::sqlite::SqliteStore;
use crate::store::sqlite::reader::Snapshot;
use crate::store::tree::{StoredTree, TreeReadError};
use crate::store::{NewRecord, OpenIntent, ReadError, StoredRecord, TrailRow};
use crate::timekeeper::Timekeeper;

/// Why a trail is not opened. Nothing was signed.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A second head is missing.
    #[error("{trail}: the second head cannot be opened: {error}; check head_dir")]
    SecondHead {
        /// The trail.
        trail: String,
        /// Why.
        error: std::io::Error,
    },
    /// A second head says nothing. `init` wrote it, and a torn write spoils one of its two slots.
    #[error(
        "{trail}: the second head is damaged: neither of its slots has a checksum that holds; put the newest head_dir back"
    )]
    SecondHeadDamaged {
        /// The trail.
        trail: String,
    },
    /// The store was restored from an older copy.
    #[error(
        "{trail}: the store ends at size {store}, the second head is at size {second}: the store was moved back. Nothing is signed in a trail that lost its end; restore the newest copy"
    )]
    MovedBack {
        /// The trail.
        trail: String,
        /// Size in the store.
        store: u64,
        /// Size of the second head.
        second: u64,
    },
    /// The admin trail's store was restored from an older copy, and its second head as well.
    #[error(
        "{trail}: the store ends at size {store}, the HSM worker's mark is at size {mark}: the store was moved back. Nothing is signed in a trail that lost its end; restore the newest copy"
    )]
    BehindMark {
        /// The trail.
        trail: String,
        /// Size in the store.
        store: u64,
        /// Size of the newest checkpoint whose signing was begun.
        mark: u64,
    },
    /// As before, and then something else was written.
    #[error(
        "{trail}: at size {size} the store has {store}, the HSM worker's mark has the checkpoint with SHA-256 {mark}: the store was moved back, and went on otherwise. Nothing is signed in a trail that lost its end; restore the newest copy"
    )]
    OffMark {
        /// The trail.
        trail: String,
        /// The mark's size.
        size: u64,
        /// What the store has there.
        store: String,
        /// SHA-256 of the checkpoint whose signing was begun.
        mark: Hash,
    },
    /// The mark was restored from an older copy.
    #[error(
        "{trail}: the store's newest checkpoint is at size {store}, the HSM worker's mark at size {mark}: state_dir was moved back. Put the newest one back; where it is lost, see that the store is the newest copy, then run `countersignd mark-confirm`"
    )]
    MarkBehind {
        /// The trail.
        trail: String,
        /// Size of the newest checkpoint in the store.
        store: u64,
        /// Size of the mark; 0 when the trail has none.
        mark: u64,
    },
    /// The mark is missing or not the worker's.
    #[error(
        "{trail}: without the HSM worker's mark nothing is signed: {error}; put the newest state_dir back; where it is lost, see that the store is the newest copy, then run `countersignd mark-confirm`"
    )]
    Mark {
        /// The trail.
        trail: String,
        /// What the worker said.
        error: HsmError,
    },
    /// Store and second head disagree about a record.
    #[error(
        "{trail}: record {seq} has leaf hash {store} in the store, the second head has {second}: one of the two was changed"
    )]
    HeadsDiffer {
        /// The trail.
        trail: String,
        /// The record.
        seq: u64,
        /// Leaf hash in the store.
        store: Hash,
        /// Leaf hash of the second head.
        second: Hash,
    },
    /// The store is not what this daemon wrote.
    #[error("{trail}: {problem}; the store was changed or is damaged: run `countersignd fsck`")]
    Store {
        /// The trail.
        trail: String,
        /// Which check failed, with what was expected and found.
        problem: String,
    },
    /// The open intent was not made by this appliance.
    #[error(
        "{trail}: the open intent at record {seq} does not carry the worker's MAC: it was planted or changed, and is not signed"
    )]
    IntentForged {
        /// The trail.
        trail: String,
        /// Its first record.
        seq: u64,
    },
    /// The HSM must answer to check an open intent, or the mark.
    #[error("{trail}: the open intent or the mark cannot be checked: {refusal}")]
    Hsm {
        /// The trail.
        trail: String,
        /// What the HSM said.
        refusal: Refusal,
    },
    /// The store cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
}

/// What every trail is opened with.
#[derive(Clone)]
pub struct Context {
    /// The replayed admin trail.
    pub admin: Arc<AdminState>,
    /// The store.
    pub store: SqliteStore,
    /// The clock.
    pub clock: Arc<Timekeeper>,
    /// The metrics.
    pub metrics: Arc<Metrics>,
    /// How batches are formed.
    pub bounds: Bounds,
}

/// A trail as the store has it, checked against its second head and its last signature.
pub(crate) struct Inspected {
    pub(crate) checked: Checked,
    facts: Arc<TrailFacts>,
    checkpoint_key: PublicKey,
    second: HeadFile,
}

/// What the store says of a trail, checked.
pub(crate) struct Checked {
    frontier: CompactRange,
    /// The newest signed one.
    pub(crate) checkpoint: Checkpoint,
    pub(super) open: Option<(OpenIntent, Vec<StoredRecord>)>,
}

/// Checks what can be checked of a trail without the HSM.
pub(crate) fn inspect(
    admin: &AdminState,
    store: &SqliteStore,
    row: &TrailRow,
    head_dir: &Path,
) -> Result<Inspected, StartError> {
    let broken = |problem: &str| StartError::Store { trail: row.origin.to_string(), problem: problem.to_owned() };
    let entry = admin.trail(&row.origin).ok_or_else(|| broken("the genesis does not know this trail"))?;
    let key = |kid| admin.keys.get(&kid).map(|entry| entry.key.clone());
    let checkpoint_key = key(entry.checkpoint_key).ok_or_else(|| broken("its checkpoint key is not in the genesis"))?;
    let record_key = entry.record_key.and_then(key);
    let second = open_second(row, head_dir, store)?;
    let keys = Keys { checkpoint: &checkpoint_key, record: record_key.as_ref() };
    let checked = store.reader().read(|snapshot| Ok(check(snapshot, row, entry, &keys)))??;
    let facts = Arc::new(TrailFacts {
        no: row.no,
        origin: row.origin.clone(),
        mode: entry.mode,
        checkpoint_key: entry.checkpoint_key,
        record_key: entry.record_key,
    });
    Ok(Inspected { checked, facts, checkpoint_key, second })
}

/// Checks a trail against its second head, its last signature and its intent's MAC, the admin trail
/// also against the HSM worker's mark, and starts its sequencer. The returned task ends with an error
/// when the daemon must stop.
pub async fn open(
    context: &Context,
    row: TrailRow,
    signer: Arc<TokenSigner>,
    head_dir: &Path,
) -> Result<(TrailHandle, impl Future<Output = Result<(), Fatal>> + Send + use<>), StartError> {
    let Inspected { checked, facts, checkpoint_key, second } = inspect(&context.admin, &context.store, &row, head_dir)?;
    if row.origin == context.admin.plan.admin_trail {
        mark::check(&checked, &row, &signer).await?;
    }
    let recovery = match &checked.open {
        None => None,
        Some((intent, records)) => Some(
            recover(&context.admin.genesis.instance, &facts, &row, &checked.frontier, intent, records, &signer).await?,
        ),
    };
    let (frontier, root) = match &recovery {
        Some((batch, _)) => (batch.frontier.clone(), batch.tree.root()),
        None => (checked.frontier.clone(), checked.frontier.root()),
    };
    let stopped = (row.latched.is_some() || second.latched()).then_some(Reason::TrailLatched);
    let (signed, checkpoint) = (row.signed, checked.checkpoint.size);
    let now = Published { head: row.head, root, signed, checkpoint, stopped, store: None };
    let (published, watching) = watch::channel(now);
    let (sender, queue) = mpsc::channel(QUEUE_GROUPS);
    let mut task = Task {
        facts: facts.clone(),
        bounds: context.bounds,
        instance: context.admin.genesis.instance.clone(),
        store: context.store.clone(),
        signer,
        checkpoint_key,
        clock: context.clock.clone(),
        metrics: context.metrics.clone(),
        second: Arc::new(Mutex::new(second)),
        queue,
        published,
        head: row.head,
        frontier,
        signed: row.signed,
        checkpoint: checked.checkpoint.size,
        latched: stopped,
        flight: None,
        gathering: Gathering::default(),
        held: None,
        recent: Recent::new(row.head.size),
        checkpoint_waiters: Vec::new(),
        last_checkpoint: Instant::now(),
        draining: None,
        signature_time: first_signature_time(),
        heartbeat_at: Instant::now(),
        said_at: None,
    };
    if let Some((batch, proof)) = recovery.filter(|_| stopped.is_none()) {
        tracing::info!(trail = %facts.origin, first = batch.prev.size, records = batch.records.len(), "an open intent is signed again");
        task.resume(batch, proof);
    }
    let handle = TrailHandle { facts, bounds: context.bounds, queue: sender, published: watching };
    Ok((handle, task.run()))
}

impl<S: crate::store::Store> Task<S> {
    /// Puts an open intent where a crash interrupted it: at the HSM.
    pub(super) fn resume(&mut self, batch: Batch, proof: RecoveryProof) {
        let messages = batch.messages(&self.facts);
        let second = self.write_second(SecondHead::at(batch.next.size, batch.next.leaf));
        let checkpoint = batch.checkpoint.clone();
        let mut flight = Flight::new(Some(batch), checkpoint, Vec::new(), messages, Some(proof));
        flight.second = Some(second);
        flight.launch(&self.signer);
        self.flight = Some(flight);
    }
}

fn open_second(row: &TrailRow, head_dir: &Path, store: &SqliteStore) -> Result<HeadFile, StartError> {
    let trail = row.origin.to_string();
    let opened = HeadFile::open(head_dir, &row.origin.path_segment(), false);
    let (file, second) = opened.map_err(|error| StartError::SecondHead { trail: trail.clone(), error })?;
    let second = second.ok_or_else(|| StartError::SecondHeadDamaged { trail: trail.clone() })?;
    if second.size > row.head.size {
        return Err(StartError::MovedBack { trail, store: row.head.size, second: second.size });
    }
    if let Some(seq) = second.size.checked_sub(1) {
        let leaves = store.reader().read(|snapshot| snapshot.leaves(row.no, seq, seq + 1))?;
        if leaves.first() != Some(&second.leaf) {
            let store = leaves.first().copied().unwrap_or(Hash::of(b""));
            return Err(StartError::HeadsDiffer { trail, seq, store, second: second.leaf });
        }
    }
    Ok(file)
}

struct Keys<'k> {
    checkpoint: &'k PublicKey,
    record: Option<&'k PublicKey>,
}

/// Head, last record, tree and last signature must agree.
fn check(snapshot: &Snapshot<'_>, row: &TrailRow, entry: &TrailEntry, keys: &Keys<'_>) -> Result<Checked, StartError> {
    let broken = |problem: String| StartError::Store { trail: row.origin.to_string(), problem };
    let tree_error = |error: TreeReadError| broken(error.to_string());
    let intent = snapshot.open_intent(row.no)?;
    let ends = intent.as_ref().map_or(row.signed, |intent| intent.first_seq + intent.count);
    if ends != row.head.size || intent.as_ref().is_some_and(|intent| intent.first_seq != row.signed) {
        return Err(broken(format!(
            "its head is at {}, its signatures at {}, its intent at {ends}",
            row.head.size, row.signed
        )));
    }
    if row.head.size == 0 {
        return Err(broken("it has no record 0".to_owned()));
    }
    let last =
        snapshot.record(row.no, row.head.size - 1)?.ok_or_else(|| broken("its last record is missing".to_owned()))?;
    let time = check_record(&last, row.head.size - 1).map_err(&broken)?;
    if time != row.head.time {
        return Err(broken(format!("its head says {}, its last record {time}", row.head.time)));
    }
    if last.leaf != row.head.leaf {
        return Err(broken(format!("its head names leaf {}, its last record has {}", row.head.leaf, last.leaf)));
    }
    let first = snapshot.leaves(row.no, 0, 1)?;
    if first.first() != Some(&entry.first_leaf) {
        return Err(broken(format!("its record 0 is not {}, which the genesis names", entry.first_leaf)));
    }
    let tree = StoredTree::new(snapshot, row.no);
    let frontier = tree.frontier(row.signed).map_err(tree_error)?;
    let note = snapshot.newest_checkpoint(row.no)?.ok_or_else(|| broken("it has no checkpoint".to_owned()))?;
    let signed =
        SignedCheckpoint::parse(&note.note).map_err(|error| broken(format!("its newest checkpoint: {error}")))?;
    let newest = signed.verify(keys.checkpoint).map_err(|error| broken(format!("its newest checkpoint: {error}")))?;
    let root = tree.frontier(newest.size.min(row.signed)).map_err(tree_error)?.root();
    if newest.origin != row.origin || newest.size != note.size || newest.size > row.signed || newest.root != root {
        return Err(broken(format!(
            "its newest checkpoint is over size {} root {}, the records give {root}",
            newest.size, newest.root
        )));
    }
    match entry.mode {
        Mode::Batch if newest.size != row.signed => {
            return Err(broken(format!("its newest checkpoint is at {}, its head at {}", newest.size, row.signed)));
        }
        Mode::Record => check_last_signature(snapshot, row, keys).map_err(&broken)?,
        Mode::Batch => {}
    }
    let open = match intent {
        None => None,
        Some(intent) => {
            check_time_before(snapshot, row, &intent).map_err(&broken)?;
            let records = snapshot.records(row.no, intent.first_seq, ends)?;
            for (seq, record) in (intent.first_seq..ends).zip(&records) {
                check_record(record, seq).map_err(&broken)?;
            }
            Some((intent, records))
        }
    };
    Ok(Checked { frontier, checkpoint: newest.clone(), open })
}

/// Checks a record's leaf and place; its time.
fn check_record(record: &StoredRecord, seq: u64) -> Result<Timestamp, String> {
    let leaf = tree::leaf_hash(&record.bytes);
    if leaf != record.leaf {
        return Err(format!("record {seq} hashes to {leaf}, its row says {}", record.leaf));
    }
    let parsed = Record::parse(&record.bytes).map_err(|error: RecordError| format!("record {seq}: {error}"))?;
    if parsed.header.seq != seq {
        return Err(format!("record {} stands at {seq}", parsed.header.seq));
    }
    Ok(parsed.header.time)
}

/// The time that an open intent goes on from is that of the record before it.
fn check_time_before(snapshot: &Snapshot<'_>, row: &TrailRow, intent: &OpenIntent) -> Result<(), String> {
    let Some(seq) = intent.first_seq.checked_sub(1) else { return Ok(()) };
    let record = snapshot.record(row.no, seq).map_err(|error| error.to_string())?;
    let time = check_record(&record.ok_or_else(|| format!("record {seq} is missing"))?, seq)?;
    if time == intent.prev.time {
        return Ok(());
    }
    Err(format!("its open intent goes on from {}, record {seq} is of {time}", intent.prev.time))
}

fn check_last_signature(snapshot: &Snapshot<'_>, row: &TrailRow, keys: &Keys<'_>) -> Result<(), String> {
    let seq = row.signed.saturating_sub(1);
    let record = snapshot.record(row.no, seq).map_err(|error| error.to_string())?;
    let record = record.ok_or_else(|| format!("record {seq} is missing"))?;
    let (Some(key), Some(signature)) = (keys.record, &record.signature) else {
        return Err(format!("record {seq} has no signature"));
    };
    let message = dsse::pae(RECORD_PAYLOAD_TYPE, &record.bytes);
    key.verify(&message, signature).map_err(|error| format!("signature of record {seq}: {error}"))
}

/// Builds the open intent's batch again and has the worker check its MAC.
pub(super) async fn recover(
    instance: &InstanceId,
    facts: &TrailFacts,
    row: &TrailRow,
    frontier: &CompactRange,
    intent: &OpenIntent,
    records: &[StoredRecord],
    signer: &TokenSigner,
) -> Result<(Batch, RecoveryProof), StartError> {
    let trail = row.origin.to_string();
    let broken = |error: BatchError| StartError::Store { trail: trail.clone(), problem: error.to_string() };
    let leaves: Vec<Hash> = records.iter().map(|record| record.leaf).collect();
    let again = records.iter().map(|record| NewRecord {
        bytes: record.bytes.clone(),
        leaf: record.leaf,
        time: row.head.time,
        event: None,
        request_id: None,
        parts: Vec::new(),
    });
    let with_checkpoint = intent.checkpoint_text.is_some();
    let batch = Batch::over(facts, intent.prev, row.head, frontier, again.collect(), &leaves, with_checkpoint)
        .map_err(broken)?;
    let text = batch.checkpoint.as_ref().map(|checkpoint| checkpoint.text());
    let messages = batch.messages(facts);
    let digest = intent_digest(instance, facts, &batch.prev, leaves.iter().copied(), &messages);
    let holds = signer.check_mac(digest, intent.mac).await;
    let holds = holds.map_err(|refusal| StartError::Hsm { trail: trail.clone(), refusal })?;
    if !holds || text != intent.checkpoint_text {
        return Err(StartError::IntentForged { trail, seq: intent.first_seq });
    }
    Ok((batch, RecoveryProof { digest, mac: intent.mac }))
}
