//! What the HSM is working on, and what becomes of it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use countersign_hsm::RecoveryProof;
use countersign_trail::checkpoint::Checkpoint;
use tokio::task::JoinHandle;

use super::batch::{Batch, SealedBatch, SealedRecord};
use super::gather::Waiter;
use crate::reason::{Reason, Refusal};
use crate::signer::{Messages, TokenSigner};
use crate::store::{Outcome, SignedNote};

/// Signatures, and how long they were verified after the last had come.
pub(super) type Verified = (Vec<Bytes>, Duration);
type Signing = JoinHandle<Result<Verified, Refusal>>;

/// What the HSM is working on: a durable intent, or a checkpoint alone.
pub(super) struct Flight {
    pub(super) batch: Option<Batch>,
    pub(super) checkpoint: Option<Checkpoint>,
    pub(super) waiters: Vec<Waiter>,
    pub(super) messages: Messages,
    pub(super) recovery: Option<RecoveryProof>,
    pub(super) signing: Option<Signing>,
    pub(super) second: Option<JoinHandle<std::io::Result<()>>>,
    pub(super) started: Instant,
    pub(super) attempts: u32,
    pub(super) retry_at: Instant,
}

/// A flight that landed.
pub(super) struct Landed {
    pub(super) batch: Option<Batch>,
    pub(super) waiters: Vec<Waiter>,
    pub(super) outcome: Option<Outcome>,
    pub(super) checkpoint: Option<SignedNote>,
}

/// What goes up next.
pub(super) struct Next {
    pub(super) batch: Batch,
    pub(super) waiters: Vec<Waiter>,
    pub(super) messages: Messages,
    pub(super) proof: RecoveryProof,
}

impl Flight {
    pub(super) fn new(
        batch: Option<Batch>,
        checkpoint: Option<Checkpoint>,
        waiters: Vec<Waiter>,
        messages: Messages,
        recovery: Option<RecoveryProof>,
    ) -> Flight {
        let now = Instant::now();
        Flight {
            batch,
            checkpoint,
            waiters,
            messages,
            recovery,
            signing: None,
            second: None,
            started: now,
            attempts: 0,
            retry_at: now,
        }
    }

    /// Hands the messages to the HSM: the same bytes at every attempt.
    pub(super) fn launch(&mut self, signer: &Arc<TokenSigner>) {
        let (signer, messages, recovery) = (signer.clone(), self.messages.clone(), self.recovery);
        self.started = Instant::now();
        self.signing = Some(tokio::spawn(async move { signer.sign_timed(messages, recovery).await }));
    }
}

/// Waits for the flight's signatures; for ever when there is no flight, or it waits for its retry.
pub(super) async fn landed(flight: &mut Option<Flight>) -> Result<Verified, Refusal> {
    match flight.as_mut().and_then(|flight| flight.signing.as_mut()) {
        None => std::future::pending().await,
        Some(signing) => {
            let joined = signing.await;
            joined.unwrap_or_else(|error| Err(Refusal::new(Reason::Internal, format!("signing ended: {error}"))))
        }
    }
}

pub(super) fn seal(batch: Batch, outcome: Outcome) -> SealedBatch {
    let mut signatures = outcome.signatures.into_iter();
    let records = batch.records.into_iter().map(|record| SealedRecord {
        bytes: record.bytes,
        leaf: record.leaf,
        parts: record.parts,
        signature: signatures.next(),
    });
    SealedBatch {
        first_seq: batch.prev.size,
        records: records.collect(),
        tree: batch.tree,
        checkpoint: outcome.checkpoint.map(|note| note.note),
    }
}
