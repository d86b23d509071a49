//! A batch whose intent is durable goes to the HSM; one whose outcome is durable is released.

use std::sync::{Arc, PoisonError};
use std::time::Instant;

use countersign_trail::checkpoint::Checkpoint;
use tokio::task::JoinHandle;

use super::flight::{Flight, Landed, Next, seal};
use super::task::Task;
use crate::fail;
use crate::metrics::Stage;
use crate::store::Store;
use crate::store::files::SecondHead;

impl<S: Store> Task<S> {
    pub(super) fn launch(&mut self, next: Next) {
        fail::point("intent");
        let Next { batch, waiters, messages, proof } = next;
        self.head = batch.next;
        self.frontier = batch.frontier.clone();
        self.metrics.batch(batch.records.len());
        let (head, root) = (self.head, batch.tree.root());
        self.publish(|now| {
            now.head = head;
            now.root = root;
            now.store = None;
        });
        let second = self.write_second(SecondHead::at(head.size, head.leaf));
        let checkpoint = batch.checkpoint.clone();
        let mut flight = Flight::new(Some(batch), checkpoint, waiters, messages, None);
        flight.second = Some(second);
        flight.launch(&self.signer);
        // Only a retry is recovery: the first attempt must be new to the worker.
        flight.recovery = Some(proof);
        self.flight = Some(flight);
    }

    pub(super) fn launch_checkpoint(&mut self) {
        let checkpoint =
            Checkpoint { origin: self.facts.origin.clone(), size: self.head.size, root: self.frontier.root() };
        let messages = [(self.facts.checkpoint_key, checkpoint.text().into())].into();
        let mut flight = Flight::new(None, Some(checkpoint), Vec::new(), messages, None);
        flight.launch(&self.signer);
        self.flight = Some(flight);
    }

    /// Writes the second head beside the HSM's signing.
    pub(super) fn write_second(&self, head: SecondHead) -> JoinHandle<std::io::Result<()>> {
        let second = self.second.clone();
        tokio::task::spawn_blocking(move || second.lock().unwrap_or_else(PoisonError::into_inner).write(head))
    }

    /// Answers those who asked for a checkpoint over everything, once there is one.
    pub(super) fn answer_checkpoints(&mut self) {
        if self.checkpoint == self.signed {
            for waiter in self.checkpoint_waiters.drain(..) {
                let _ = waiter.send(Ok(self.checkpoint));
            }
        }
    }

    /// The outcome is durable: everybody may know.
    pub(super) fn release(&mut self, landed: Landed) {
        let begun = Instant::now();
        if let Some(note) = landed.outcome.as_ref().and_then(|o| o.checkpoint.as_ref()).or(landed.checkpoint.as_ref()) {
            self.checkpoint = note.size;
            self.last_checkpoint = Instant::now();
        }
        if let Some(outcome) = &landed.outcome {
            self.signed = outcome.first_seq + outcome.count;
        }
        let (signed, checkpoint) = (self.signed, self.checkpoint);
        self.publish(|now| {
            now.signed = signed;
            now.checkpoint = checkpoint;
            now.stopped = None;
        });
        self.answer_checkpoints();
        if let (Some(batch), Some(outcome)) = (landed.batch, landed.outcome) {
            let sealed = Arc::new(seal(batch, outcome));
            for waiter in landed.waiters {
                waiter.answer(&sealed);
            }
            self.metrics.stage(Stage::Release, begun.elapsed());
        }
        fail::point("release");
    }
}
