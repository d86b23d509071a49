//! The store: what is durable.
//!
//! [`Store`] is the contract, small enough that another engine can stand behind it; [`sqlite`] is
//! the engine of one machine. The store is not trusted: the daemon replays and checks what it reads
//! at start, and signs an open intent only if its MAC holds.
//!
//! The life of a batch: [`Append`] with an [`Intent`] makes its records durable and moves the head
//! by compare-and-swap; a later [`Append`] with an [`Outcome`] makes its signatures durable and
//! closes the intent. Only records with an outcome are ever shown to anyone.

pub mod files;
pub mod sqlite;
pub mod tree;

use bytes::Bytes;
use countersign_trail::hash::Hash;
use countersign_trail::id::{EventId, MemberId, PartName};
use countersign_trail::origin::Origin;
use countersign_trail::part::SALT_LEN;
use countersign_trail::time::Timestamp;

/// The version of the stored schema. A store of another version is refused: a daemon that changes the
/// schema says in its release how a store is taken over.
pub const SCHEMA_VERSION: i64 = 1;

/// A trail's number in this store, from 1 (the admin trail); at most 65 (see
/// [`countersign_trail::document::MAX_TRAILS`]).
pub type TrailNo = u16;

/// Where a trail ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// Number of records.
    pub size: u64,
    /// Leaf hash of the last record; for an empty trail, what record 0 has as `prev`.
    pub leaf: Hash,
    /// Time of the last record.
    pub time: Timestamp,
}

/// A part as stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredPart {
    /// Its name.
    pub name: PartName,
    /// Its media type; empty when the client kept the content.
    pub media_type: String,
    /// Content and salt; none when the client kept them.
    pub content: Option<([u8; SALT_LEN], Bytes)>,
}

/// A record on its way into the store.
#[derive(Clone, Debug)]
pub struct NewRecord {
    /// Its exact bytes.
    pub bytes: Bytes,
    /// RFC 6962 leaf hash of `bytes`.
    pub leaf: Hash,
    /// Its time.
    pub time: Timestamp,
    /// Whose event it is, and how the client calls it; none for control records.
    pub event: Option<(MemberId, EventId)>,
    /// What auditors may search for.
    pub request_id: Option<String>,
    /// Its parts, sorted by name.
    pub parts: Vec<StoredPart>,
}

/// The promise to sign a batch, made durable before anything reaches the HSM.
#[derive(Clone, Debug)]
pub struct Intent {
    /// Sequence number of the first record.
    pub first_seq: u64,
    /// The head that the batch follows: the compare-and-swap's expectation.
    pub prev: Head,
    /// The head with the batch.
    pub next: Head,
    /// The records.
    pub records: Vec<NewRecord>,
    /// Complete subtrees of 256^n leaves that the batch completes: (n, index, hash), n from 1.
    pub nodes: Vec<(u8, u64, Hash)>,
    /// The checkpoint text to be signed, where the batch closes with one.
    pub checkpoint_text: Option<String>,
    /// The worker's MAC over everything that will be signed.
    pub mac: [u8; 32],
}

/// The signatures of the open intent, made durable before anything is released.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Sequence number of the first record.
    pub first_seq: u64,
    /// Number of records.
    pub count: u64,
    /// Record mode: a signature for each record.
    pub signatures: Vec<Bytes>,
    /// The signed checkpoint, where the batch closes with one.
    pub checkpoint: Option<SignedNote>,
}

/// A signed checkpoint as stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedNote {
    /// The size that it signs.
    pub size: u64,
    /// The note's bytes.
    pub note: Bytes,
}

/// One atomic step of one trail. Everything in it becomes durable together, or nothing does.
#[derive(Clone, Debug)]
pub struct Append {
    /// The trail.
    pub trail: TrailNo,
    /// Closes the open intent.
    pub outcome: Option<Outcome>,
    /// Opens the next one.
    pub intent: Option<Intent>,
    /// Record mode: a checkpoint over what is already signed.
    pub checkpoint: Option<SignedNote>,
}

/// Why a step is not durable, or not known to be.
#[derive(Clone, Debug, thiserror::Error)]
pub enum AppendError {
    /// The head was not the expected one: somebody else writes to this trail. Nothing was stored.
    #[error("the head of trail {trail} is at size {found}, not {expected}: another writer")]
    LostRace {
        /// The trail.
        trail: TrailNo,
        /// The size expected.
        expected: u64,
        /// The size found.
        found: u64,
    },
    /// There is no room, or none for new work at present. Nothing was stored; it may be tried again.
    #[error("the store is full: {0}")]
    Full(String),
    /// Nothing was stored; the same step may be tried again.
    #[error("not stored: {0}")]
    NotStored(String),
    /// Whether it was stored cannot be known: the daemon must stop and recover.
    #[error("the commit's outcome is unknown: {0}")]
    Unknown(String),
}

/// Why a read failed.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ReadError {
    /// The engine failed.
    #[error("store: {0}")]
    Engine(String),
    /// What is stored is not what this daemon writes.
    #[error("store: {what} is damaged: {problem}; run `countersignd fsck`")]
    Damaged {
        /// Which item.
        what: String,
        /// What is wrong with it.
        problem: String,
    },
}

/// A record as read back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredRecord {
    /// Its place.
    pub seq: u64,
    /// Its exact bytes.
    pub bytes: Bytes,
    /// Its leaf hash, as stored.
    pub leaf: Hash,
    /// Record mode: its signature, in wire form.
    pub signature: Option<Bytes>,
}

/// A trail's row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrailRow {
    /// Its number here.
    pub no: TrailNo,
    /// Its name.
    pub origin: Origin,
    /// Where it ends, open intent included.
    pub head: Head,
    /// Records whose outcome is durable.
    pub signed: u64,
    /// Stable reason why nothing may be signed in it any more.
    pub latched: Option<String>,
}

/// An intent without its outcome.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenIntent {
    /// Sequence number of the first record.
    pub first_seq: u64,
    /// Number of records.
    pub count: u64,
    /// The head before it.
    pub prev: Head,
    /// The checkpoint text to be signed, where the batch closes with one.
    pub checkpoint_text: Option<String>,
    /// The worker's MAC.
    pub mac: [u8; 32],
}

/// What an engine must do.
///
/// Durability: when [`Store::append`] returns `Ok`, the step survives a power cut. Concurrency: one
/// sequencer writes a trail; steps of different trails may be committed together; steps of one
/// trail are applied in the order of the calls. Reads see only whole steps, and every step whose
/// `append` has returned.
///
/// Room: what ends something (a step without an intent, a latch) has room set aside for it, enough
/// for one outcome, one checkpoint and one latch of every trail, whatever else fills the disk. From
/// the moment that some of it is used, everything else fails with [`AppendError::Full`], until all of
/// it is set aside again, which the engine sees to by itself. So a full store takes no new intent and
/// finishes those that it took; and it takes new ones again when there is room, without being asked.
pub trait Store: Send + Sync + 'static {
    /// Applies one step; see the contract above.
    fn append(&self, step: Append) -> impl Future<Output = Result<(), AppendError>> + Send;
    /// Latches a trail for good: durable on return.
    fn latch(&self, trail: TrailNo, reason: String) -> impl Future<Output = Result<(), AppendError>> + Send;
    /// Adds a document: durable on return; adding it again changes nothing.
    fn put_document(&self, document: Bytes) -> impl Future<Output = Result<Hash, AppendError>> + Send;
    /// Reserves the next statement number of a key above `above` with the payload made from it: durable
    /// before the payload is signed, so that no number is ever used twice.
    fn next_statement<F>(
        &self,
        kid: String,
        above: u64,
        payload: F,
    ) -> impl Future<Output = Result<(u64, Bytes), AppendError>> + Send
    where
        F: FnOnce(u64) -> Bytes + Send + 'static;
}
