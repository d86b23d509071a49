//! From gathered items to a batch: record bytes, leaves, tree, and what the HSM is to sign.

use bytes::Bytes;
use countersign_trail::checkpoint::Checkpoint;
use countersign_trail::control::Body;
use countersign_trail::document::Mode;
use countersign_trail::dsse;
use countersign_trail::hash::Hash;
use countersign_trail::id::InstanceId;
use countersign_trail::multiproof::BatchTree;
use countersign_trail::record::{self, Header, MAX_RECORD_LEN};
use countersign_trail::signing::RECORD_PAYLOAD_TYPE;
use countersign_trail::time::Timestamp;
use countersign_trail::tree::{self, CompactRange};
use sha2::{Digest, Sha256};

use super::{Prepared, TrailFacts};
use crate::signer::Messages;
use crate::store::{Head, Intent, NewRecord, StoredPart};

/// Complete subtrees that are stored: of 256^n leaves.
const STORED_LEVELS: u8 = 8;

/// One thing to be recorded.
#[derive(Clone, Debug)]
pub enum Item {
    /// A gateway's event.
    Event(Box<Prepared>),
    /// A control record.
    Control(Body),
}

/// A batch that is ready to be made durable.
#[derive(Debug)]
pub struct Batch {
    /// The head before it.
    pub prev: Head,
    /// The head with it.
    pub next: Head,
    /// The frontier with it.
    pub frontier: CompactRange,
    /// Its records.
    pub records: Vec<NewRecord>,
    /// Its tree.
    pub tree: BatchTree,
    /// The checkpoint that closes it, where one does.
    pub checkpoint: Option<Checkpoint>,
}

/// Why a batch cannot be built. Bounds on events make this impossible for what clients send.
#[derive(Debug, thiserror::Error)]
pub enum BatchError {
    /// A record would be too long.
    #[error("a record of {0} bytes, the bound is {MAX_RECORD_LEN}")]
    RecordTooLong(usize),
    /// A control body has no canonical form.
    #[error("control record: {0}")]
    Control(String),
    /// The tree is full.
    #[error(transparent)]
    Tree(#[from] tree::TreeError),
}

impl Batch {
    /// Builds the records that follow `prev`, and their tree on top of `frontier`.
    pub fn build(
        facts: &TrailFacts,
        prev: Head,
        frontier: &CompactRange,
        items: Vec<(Item, Timestamp)>,
        with_checkpoint: bool,
    ) -> Result<Batch, BatchError> {
        let mut header = Header {
            trail: facts.origin.clone(),
            seq: prev.size,
            time: prev.time,
            prev: prev.leaf,
            kids: vec![facts.record_key.unwrap_or(facts.checkpoint_key)],
        };
        let mut records = Vec::with_capacity(items.len());
        for (item, time) in items {
            header.time = header.time.max(time);
            let record = build_record(&header, item)?;
            header.seq += 1;
            header.prev = record.leaf;
            records.push(record);
        }
        let next = Head { size: header.seq, leaf: header.prev, time: header.time };
        let leaves: Vec<Hash> = records.iter().map(|record| record.leaf).collect();
        Self::over(facts, prev, next, frontier, records, &leaves, with_checkpoint)
    }

    /// A batch over records that exist already: after a crash.
    pub fn over(
        facts: &TrailFacts,
        prev: Head,
        next: Head,
        frontier: &CompactRange,
        records: Vec<NewRecord>,
        leaves: &[Hash],
        with_checkpoint: bool,
    ) -> Result<Batch, BatchError> {
        let tree = BatchTree::new(frontier, leaves)?;
        let checkpoint = (with_checkpoint || facts.mode == Mode::Batch).then(|| Checkpoint {
            origin: facts.origin.clone(),
            size: next.size,
            root: tree.root(),
        });
        Ok(Batch { prev, next, frontier: tree.after(), records, tree, checkpoint })
    }

    /// What the HSM is to sign, each with its key: every record in record mode, then the checkpoint.
    pub fn messages(&self, facts: &TrailFacts) -> Messages {
        let mut messages = Vec::with_capacity(self.records.len() + 1);
        if let (Mode::Record, Some(kid)) = (facts.mode, facts.record_key) {
            let pae = |record: &NewRecord| dsse::pae(RECORD_PAYLOAD_TYPE, &record.bytes).into();
            messages.extend(self.records.iter().map(|record| (kid, pae(record))));
        }
        messages.extend(self.checkpoint.iter().map(|checkpoint| (facts.checkpoint_key, checkpoint.text().into())));
        messages.into()
    }

    /// What is made durable before anything is signed. `mac` is the worker's over the digest.
    pub fn intent(&self, mac: [u8; 32]) -> Intent {
        let stored = self.tree.new_nodes().filter(|(level, _, _)| *level > 0 && level % STORED_LEVELS == 0);
        Intent {
            first_seq: self.prev.size,
            prev: self.prev,
            next: self.next,
            records: self.records.clone(),
            nodes: stored.map(|(level, index, hash)| (level / STORED_LEVELS, index, hash)).collect(),
            checkpoint_text: self.checkpoint.as_ref().map(Checkpoint::text),
            mac,
        }
    }
}

fn build_record(header: &Header, item: Item) -> Result<NewRecord, BatchError> {
    let mut bytes = Vec::with_capacity(1024);
    let (event, request_id, parts) = match item {
        Item::Event(prepared) => {
            let Prepared { event, parts, request_id, .. } = *prepared;
            record::write_event(&mut bytes, header, &event);
            (Some((event.client, event.event_id)), request_id, parts)
        }
        Item::Control(body) => {
            let control = body.to_control().map_err(|error| BatchError::Control(error.to_string()))?;
            record::write_control(&mut bytes, header, &control)
                .map_err(|error| BatchError::Control(error.to_string()))?;
            (None, None, Vec::new())
        }
    };
    if bytes.len() > MAX_RECORD_LEN {
        return Err(BatchError::RecordTooLong(bytes.len()));
    }
    let leaf = tree::leaf_hash(&bytes);
    Ok(NewRecord { bytes: bytes.into(), leaf, time: header.time, event, request_id, parts })
}

/// What the worker's MAC covers: instance, trail, first seq, previous head, leaf hashes, and every
/// byte string to be signed. Lengths stand before what varies.
pub fn intent_digest(
    instance: &InstanceId,
    facts: &TrailFacts,
    prev: &Head,
    leaves: impl ExactSizeIterator<Item = Hash>,
    messages: &Messages,
) -> [u8; 32] {
    let mut digest = Sha256::new();
    digest.update(b"countersign/intent-digest/v1\0");
    for text in [instance.as_str(), facts.origin.as_str()] {
        digest.update((text.len() as u64).to_be_bytes());
        digest.update(text);
    }
    digest.update(prev.size.to_be_bytes());
    digest.update(prev.leaf.as_bytes());
    digest.update((leaves.len() as u64).to_be_bytes());
    for leaf in leaves {
        digest.update(leaf.as_bytes());
    }
    digest.update((messages.len() as u64).to_be_bytes());
    for (_, message) in messages.iter() {
        digest.update((message.len() as u64).to_be_bytes());
        digest.update(message);
    }
    digest.finalize().into()
}

/// A record whose signature is durable.
#[derive(Clone, Debug)]
pub struct SealedRecord {
    /// Its exact bytes.
    pub bytes: Bytes,
    /// Its leaf hash.
    pub leaf: Hash,
    /// Its parts, for their salts.
    pub parts: Vec<StoredPart>,
    /// Record mode: its signature.
    pub signature: Option<Bytes>,
}

/// A batch whose outcome is durable: what answers are made of.
#[derive(Debug)]
pub struct SealedBatch {
    /// Sequence number of the first record.
    pub first_seq: u64,
    /// Its records.
    pub records: Vec<SealedRecord>,
    /// Its tree, for proofs.
    pub tree: BatchTree,
    /// Batch mode: the signed checkpoint that closes it.
    pub checkpoint: Option<Bytes>,
}
