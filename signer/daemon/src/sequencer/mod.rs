//! The sequencer: one task owns a trail's head and turns what arrives into signed batches.
//!
//! ```text
//! groups -> gather -> build batch -> MAC -> intent durable -> HSM signs -> software verifies
//!                                             \-> second head      -> outcome durable -> release
//! ```
//!
//! While one batch is being signed, the next gathers; the outcome of one and the intent of the next
//! share a transaction. Recovery after a crash enters the same path at "HSM signs".
//!
//! - `gather`: the next batch, and who waits for it.
//! - [`batch`]: from gathered items to bytes to sign: pure.
//! - `recent`: event ids that a reader may not have seen yet.
//! - `flight`: what the HSM is working on.
//! - `launch`: to the HSM with a durable intent, to the callers with a durable outcome.
//! - `task`: the loop.
//! - [`start`]: opening a trail: checks, recovery.
//! - `mark`: the admin trail against the HSM worker's mark.
//!
//! Invariants: no two inputs for one position reach the HSM; nothing is released before its outcome
//! is durable; a refused item costs no sequence number.

pub mod batch;
mod flight;
mod gather;
mod launch;
pub(crate) mod mark;
mod recent;
pub mod start;
mod task;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::{Duration, Instant};

use countersign_trail::control::Body;
use countersign_trail::document::Mode;
use countersign_trail::hash::Hash;
use countersign_trail::keys::Kid;
use countersign_trail::origin::Origin;
use countersign_trail::record::Event;
use tokio::sync::{mpsc, oneshot, watch};

use crate::reason::{Reason, Refusal};
use crate::store::{Head, StoredPart, TrailNo};
pub use batch::SealedBatch;
pub use task::Fatal;

/// Groups that wait for a trail's sequencer; beyond that a group is refused as OVERLOADED.
pub const QUEUE_GROUPS: usize = 4096;

/// Events of one group in record mode: some 20 ms of signatures.
const RECORD_MODE_GROUP: usize = 128;

/// An event that was checked and whose parts are committed to.
#[derive(Clone, Debug)]
pub struct Prepared {
    /// The record's content.
    pub event: Event,
    /// Its parts, sorted by name.
    pub parts: Vec<StoredPart>,
    /// What auditors may search for.
    pub request_id: Option<String>,
    /// An upper bound of what it takes in a batch, in bytes.
    pub weight: usize,
}

/// Events of one request that are sequenced together: at most one batch.
pub struct Group {
    /// The events, in the request's order.
    pub events: Vec<Prepared>,
    /// The trail's signed size before the store was asked for repeats of these events.
    pub checked_at: u64,
    /// After this nobody waits any more: it is dropped unsigned if it was not sequenced yet.
    pub deadline: Option<Instant>,
    /// When it was offered.
    pub offered: Instant,
    /// Where the answer goes.
    pub reply: oneshot::Sender<Result<GroupAnswer, Refusal>>,
    /// The in-flight budget that it holds until it is answered.
    pub permit: Arc<dyn Send + Sync>,
}

/// The answer to a group whose records are durable and signed.
#[derive(Debug)]
pub struct GroupAnswer {
    /// One per event.
    pub places: Vec<Place>,
    /// The batch that the new ones are in.
    pub batch: Option<Arc<SealedBatch>>,
}

/// Where an event ended up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// A new record, at this index of the batch.
    New(usize),
    /// The same client used the same event id at this sequence number, which may not be signed yet.
    Repeat(u64),
}

/// What reaches the sequencer.
pub(crate) enum Work {
    Group(Group),
    /// A control record; answered with its sequence number and leaf hash when it is signed.
    Control(Body, oneshot::Sender<Result<(u64, Hash), Refusal>>),
    /// A checkpoint over everything that is signed; answered with its size when it is durable.
    Checkpoint(oneshot::Sender<Result<u64, Refusal>>),
    /// Nothing is ever signed in this trail again.
    Latch(Reason, oneshot::Sender<()>),
    /// Refuse what comes, finish what is in flight, close with a checkpoint.
    Drain(oneshot::Sender<()>),
}

/// What everybody may know of a trail.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Published {
    /// The newest durable intent's head.
    pub head: Head,
    /// RFC 6962 root at `head.size`.
    pub root: Hash,
    /// Records that are signed and durable.
    pub signed: u64,
    /// Size of the newest durable checkpoint.
    pub checkpoint: u64,
    /// Why nothing is signed at present; none when the trail is open.
    pub stopped: Option<Reason>,
    /// Why the store took no intent when it was last asked; none once it takes one.
    pub store: Option<Reason>,
}

/// What never changes about a trail.
#[derive(Clone, Debug)]
pub struct TrailFacts {
    /// Its number in the store.
    pub no: TrailNo,
    /// Its name.
    pub origin: Origin,
    /// How its records are signed.
    pub mode: Mode,
    /// The checkpoint key in force.
    pub checkpoint_key: Kid,
    /// The record key in force, in record mode.
    pub record_key: Option<Kid>,
}

/// How batches are formed.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Most records of a batch.
    pub max_records: usize,
    /// Most bytes of a batch.
    pub max_bytes: usize,
    /// A batch should take the HSM no longer than this.
    pub signing: Duration,
    /// Record mode: a checkpoint follows at the latest after this.
    pub checkpoint_every: Duration,
    /// An idle trail appends a heartbeat after this.
    pub heartbeat_every: Duration,
}

/// The way to a trail's sequencer. Clones are cheap.
#[derive(Clone, Debug)]
pub struct TrailHandle {
    facts: Arc<TrailFacts>,
    bounds: Bounds,
    queue: mpsc::Sender<Work>,
    published: watch::Receiver<Published>,
}

impl TrailHandle {
    /// What never changes about the trail.
    pub fn facts(&self) -> &TrailFacts {
        &self.facts
    }

    /// The largest group that the sequencer takes. In record mode a signature each is made, so that
    /// large groups would keep small ones waiting.
    pub fn max_group(&self) -> usize {
        match self.facts.mode {
            Mode::Batch => self.bounds.max_records,
            Mode::Record => self.bounds.max_records.min(RECORD_MODE_GROUP),
        }
    }

    /// What is known of the trail now.
    pub fn now(&self) -> Published {
        self.published.borrow().clone()
    }

    /// Offers a group without waiting for room.
    pub fn offer(&self, group: Group) -> Result<(), Refusal> {
        if let Some(reason) = self.published.borrow().stopped {
            return Err(stopped(&self.facts.origin, reason));
        }
        self.queue.try_send(Work::Group(group)).map_err(|_| {
            Refusal::new(
                Reason::Overloaded,
                format!("{} has {QUEUE_GROUPS} groups waiting; try again", self.facts.origin),
            )
        })
    }

    /// Appends a control record and waits until it is signed.
    pub async fn control(&self, body: Body) -> Result<(u64, Hash), Refusal> {
        self.ask(|reply| Work::Control(body, reply)).await?
    }

    /// Makes sure that a checkpoint covers everything that is signed now, and gives its size.
    pub async fn checkpoint(&self) -> Result<u64, Refusal> {
        self.ask(Work::Checkpoint).await?
    }

    /// Latches the trail: durable on return.
    pub async fn latch(&self, reason: Reason) -> Result<(), Refusal> {
        self.ask(|reply| Work::Latch(reason, reply)).await
    }

    /// Finishes what is in flight; nothing is taken afterwards.
    pub async fn drain(&self) -> Result<(), Refusal> {
        self.ask(Work::Drain).await
    }

    /// Waits until record `seq` is signed.
    pub async fn wait_signed(&self, seq: u64) -> Result<(), Refusal> {
        let mut published = self.published.clone();
        let reached = published.wait_for(|now| now.signed > seq || now.stopped.is_some()).await;
        match reached.map(|now| (now.signed > seq, now.stopped)) {
            Ok((true, _)) => Ok(()),
            Ok((false, Some(reason))) => Err(stopped(&self.facts.origin, reason)),
            Ok((false, None)) | Err(_) => Err(gone(&self.facts.origin)),
        }
    }

    async fn ask<T>(&self, work: impl FnOnce(oneshot::Sender<T>) -> Work) -> Result<T, Refusal> {
        let (reply, answer) = oneshot::channel();
        let sent = self.queue.send(work(reply)).await;
        sent.map_err(|_| gone(&self.facts.origin))?;
        answer.await.map_err(|_| gone(&self.facts.origin))
    }
}

fn gone(origin: &Origin) -> Refusal {
    Refusal::new(Reason::Draining, format!("{origin} is closing; try again after the restart"))
}

fn stopped(origin: &Origin, reason: Reason) -> Refusal {
    Refusal::new(reason, format!("nothing is signed in {origin} at present"))
}
