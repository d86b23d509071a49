//! The sequencer's loop.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use countersign_hsm::{MAX_BATCH_ITEMS, RecoveryProof};
use countersign_trail::checkpoint::SignedCheckpoint;
use countersign_trail::control::Body;
use countersign_trail::document::Mode;
use countersign_trail::id::InstanceId;
use countersign_trail::keys::PublicKey;
use countersign_trail::tree::CompactRange;
use tokio::sync::{mpsc, oneshot, watch};

use super::batch::{Batch, intent_digest};
use super::flight::{Flight, Landed, Next, Verified, landed};
use super::gather::Gathering;
use super::recent::Recent;
use super::{Bounds, Group, Published, TrailFacts, Work};
use crate::fail;
use crate::metrics::{Metrics, Stage};
use crate::reason::{Reason, Refusal};
use crate::signer::TokenSigner;
use crate::store::files::{HeadFile, SecondHead};
use crate::store::{Append, AppendError, Head, Outcome, SignedNote, Store};
use crate::timekeeper::Timekeeper;

/// Time between attempts while the HSM does not sign: doubled from the first to the last.
const RETRY: std::ops::RangeInclusive<Duration> = Duration::from_millis(50)..=Duration::from_secs(2);
/// A store that takes nothing is named in the log this often.
const SAY_EVERY: Duration = Duration::from_secs(10);
/// Batches at least this long are built off the async threads' fairness.
const BLOCKING_ITEMS: usize = 64;
/// What one signature is expected to take before any was measured.
const FIRST_SIGNATURE: Duration = Duration::from_micros(200);

/// The daemon must stop: the store's state is unknown, or somebody else writes to it.
#[derive(Clone, Debug, thiserror::Error)]
#[error("trail {trail}: {problem}; the daemon stops and recovers at its next start")]
pub struct Fatal {
    /// Which trail met it.
    pub trail: String,
    /// What happened.
    pub problem: String,
}

/// What a sequencer works with. Everything here is owned by its task alone.
pub(super) struct Task<S> {
    pub(super) facts: Arc<TrailFacts>,
    pub(super) bounds: Bounds,
    pub(super) instance: InstanceId,
    pub(super) store: S,
    pub(super) signer: Arc<TokenSigner>,
    pub(super) checkpoint_key: PublicKey,
    pub(super) clock: Arc<Timekeeper>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) second: Arc<Mutex<HeadFile>>,
    pub(super) queue: mpsc::Receiver<Work>,
    pub(super) published: watch::Sender<Published>,
    /// The newest durable intent's head and tree.
    pub(super) head: Head,
    pub(super) frontier: CompactRange,
    pub(super) signed: u64,
    pub(super) checkpoint: u64,
    pub(super) latched: Option<Reason>,
    pub(super) flight: Option<Flight>,
    pub(super) gathering: Gathering,
    /// A group that did not fit the batch that gathers.
    pub(super) held: Option<Group>,
    pub(super) recent: Recent,
    pub(super) checkpoint_waiters: Vec<oneshot::Sender<Result<u64, Refusal>>>,
    pub(super) last_checkpoint: Instant,
    pub(super) draining: Option<oneshot::Sender<()>>,
    pub(super) signature_time: Duration,
    /// No heartbeat is tried before.
    pub(super) heartbeat_at: Instant,
    /// When the log last said that the store takes nothing.
    pub(super) said_at: Option<Instant>,
}

impl<S: Store> Task<S> {
    /// Runs until drained or gone, or until the daemon must stop.
    pub(super) async fn run(mut self) -> Result<(), Fatal> {
        loop {
            let wake = tokio::time::Instant::from_std(self.wake_at());
            let room = self.held.is_none() && !self.gathering.is_full(self.batch_records(), self.bounds.max_bytes);
            tokio::select! {
                biased;
                result = landed(&mut self.flight) => self.finish(result).await?,
                work = self.queue.recv(), if room => match work {
                    Some(work) => self.take(work).await?,
                    None => return Ok(()),
                },
                () = tokio::time::sleep_until(wake) => self.tick(),
            }
            self.take_waiting().await?;
            if self.flight.is_none() {
                self.step(None).await?;
            }
            if self.flight.is_none() && self.gathering.is_empty() {
                // Whoever waited for what was then refused has nothing to wait for.
                self.answer_checkpoints();
                if let Some(reply) = self.draining.take() {
                    let _ = reply.send(());
                    return Ok(());
                }
            }
        }
    }

    /// Takes what waits, as far as it fits.
    async fn take_waiting(&mut self) -> Result<(), Fatal> {
        if let Some(group) = self.held.take() {
            self.take_group(group);
        }
        while self.held.is_none() && !self.gathering.is_full(self.batch_records(), self.bounds.max_bytes) {
            match self.queue.try_recv() {
                Ok(work) => self.take(work).await?,
                Err(_) => break,
            }
        }
        Ok(())
    }

    async fn take(&mut self, work: Work) -> Result<(), Fatal> {
        match work {
            Work::Group(group) => self.take_group(group),
            // What a step of the clock is recorded with.
            Work::Control(body, reply) => match self.refusing(matches!(body, Body::Clock(_) | Body::Start(_))) {
                Some(reason) => drop(reply.send(Err(self.refusal(reason)))),
                None => {
                    let heartbeat = self.bounds.heartbeat_every;
                    self.gathering.add_control(body, reply, self.clock.now(), &self.head, heartbeat);
                }
            },
            Work::Checkpoint(reply)
                if self.checkpoint == self.signed && self.flight.is_none() && self.gathering.is_empty() =>
            {
                drop(reply.send(Ok(self.checkpoint)));
            }
            Work::Checkpoint(reply) => match self.refusing(false) {
                Some(reason) => drop(reply.send(Err(self.refusal(reason)))),
                None => self.checkpoint_waiters.push(reply),
            },
            Work::Latch(reason, reply) => {
                self.latch(reason).await?;
                let _ = reply.send(());
            }
            Work::Drain(reply) => self.draining = Some(reply),
        }
        Ok(())
    }

    fn take_group(&mut self, group: Group) {
        let refusal = match self.refusing(false) {
            Some(reason) => Some(self.refusal(reason)),
            None if group.deadline.is_some_and(|at| at <= Instant::now()) => Some(Refusal::new(
                Reason::DeadlineExceeded,
                "the deadline passed before the events were sequenced; nothing was signed",
            )),
            None if !self.recent.covers(group.checked_at) => Some(Refusal::new(
                Reason::Overloaded,
                "the events waited too long before they were sequenced; try again",
            )),
            None => None,
        };
        if let Some(refusal) = refusal {
            let _ = group.reply.send(Err(refusal));
            return;
        }
        if !self.gathering.is_empty() && self.gathering.len() + group.events.len() > self.batch_records() {
            self.held = Some(group);
            return;
        }
        self.metrics.stage(Stage::Queue, group.offered.elapsed());
        self.gathering.add_group(group, self.clock.now(), &self.head, &mut self.recent, self.bounds.heartbeat_every);
    }

    /// Why nothing new is taken at present; `whatever_the_clock`: not for a step of it.
    fn refusing(&self, whatever_the_clock: bool) -> Option<Reason> {
        // Without a flight it is the store that keeps an outcome waiting.
        let stalled = self.flight.as_ref().is_none_or(|flight| flight.signing.is_none());
        let draining = self.draining.is_some().then_some(Reason::Draining);
        self.latched
            .map(|_| Reason::TrailLatched)
            .or(draining)
            .or_else(|| self.clock.stopped().filter(|_| !whatever_the_clock))
            .or_else(|| self.published.borrow().stopped.filter(|_| stalled))
    }

    fn refusal(&self, reason: Reason) -> Refusal {
        Refusal::new(reason, format!("nothing is signed in {} at present", self.facts.origin))
    }

    /// Records that a batch may have: by count, and by the time that the HSM would take.
    fn batch_records(&self) -> usize {
        match self.facts.mode {
            Mode::Batch => self.bounds.max_records,
            Mode::Record => {
                // One more signature is the checkpoint's.
                let most = self.bounds.max_records.min(MAX_BATCH_ITEMS - 1);
                let fit = self.bounds.signing.as_nanos() / self.signature_time.as_nanos().max(1);
                usize::try_from(fit).unwrap_or(usize::MAX).clamp(1, most)
            }
        }
    }

    fn checkpoint_due(&self) -> bool {
        let behind = self.facts.mode == Mode::Record && self.checkpoint < self.head.size;
        let asked = !self.checkpoint_waiters.is_empty() || self.draining.is_some();
        behind && (asked || self.last_checkpoint.elapsed() >= self.bounds.checkpoint_every)
    }

    /// When the loop must look again although nothing arrives.
    fn wake_at(&self) -> Instant {
        let now = Instant::now();
        if let Some(flight) = &self.flight {
            return if flight.signing.is_none() { flight.retry_at } else { now + self.bounds.heartbeat_every };
        }
        if self.facts.mode == Mode::Record && self.checkpoint < self.signed && self.latched.is_none() {
            return self.last_checkpoint + self.bounds.checkpoint_every;
        }
        (now + self.silence_left()).max(self.heartbeat_at)
    }

    /// How long until the trail has been silent for a heartbeat's time.
    fn silence_left(&self) -> Duration {
        let silent = self.clock.now().as_micros().saturating_sub(self.head.time.as_micros());
        let silent = Duration::from_micros(silent.max(0).unsigned_abs());
        self.bounds.heartbeat_every.saturating_sub(silent).max(Duration::from_millis(10))
    }

    fn tick(&mut self) {
        if let Some(flight) = &mut self.flight {
            if flight.signing.is_none() && flight.retry_at <= Instant::now() {
                flight.launch(&self.signer);
            }
            return;
        }
        let silent = self.clock.now().as_micros().saturating_sub(self.head.time.as_micros());
        if u128::from(silent.max(0).unsigned_abs()) < self.bounds.heartbeat_every.as_micros() {
            return;
        }
        // One that is refused, or cannot be now, is not tried again at once.
        self.heartbeat_at = Instant::now() + self.bounds.heartbeat_every.min(*RETRY.end());
        if self.gathering.is_empty() && self.refusing(false).is_none() && self.signer.trouble().is_none() {
            self.gathering.add_heartbeat(self.clock.now(), &self.head, self.bounds.heartbeat_every);
        }
    }

    /// The HSM answered for the flight.
    async fn finish(&mut self, result: Result<Verified, Refusal>) -> Result<(), Fatal> {
        let Some(mut flight) = self.flight.take() else { return Ok(()) };
        flight.signing = None;
        let took = flight.started.elapsed();
        match result.and_then(|(signatures, verifying)| Ok((self.land(&flight, signatures)?, verifying))) {
            Ok(((outcome, checkpoint), verifying)) => {
                fail::point("verify");
                self.metrics.stage(Stage::Hsm, took.saturating_sub(verifying));
                self.metrics.stage(Stage::Verify, verifying);
                let per_signature = took / u32::try_from(flight.messages.len().max(1)).unwrap_or(u32::MAX);
                self.signature_time = (self.signature_time * 7 + per_signature) / 8;
                if let Some(second) = flight.second.take() {
                    let written = second.await.map_err(std::io::Error::other).and_then(|written| written);
                    written.map_err(|error| self.fatal(format!("the second head was not written: {error}")))?;
                }
                let landed = Landed { batch: flight.batch, waiters: flight.waiters, outcome, checkpoint };
                self.step(Some(landed)).await
            }
            Err(refusal) => {
                self.stall(flight, refusal);
                Ok(())
            }
        }
    }

    /// Turns verified signatures into what becomes durable.
    fn land(
        &self,
        flight: &Flight,
        mut signatures: Vec<Bytes>,
    ) -> Result<(Option<Outcome>, Option<SignedNote>), Refusal> {
        let note = match &flight.checkpoint {
            None => None,
            Some(checkpoint) => {
                let signature = signatures.pop().unwrap_or_default();
                let signed = SignedCheckpoint::assemble(checkpoint, &self.checkpoint_key, &signature);
                let signed = signed.map_err(|error| Refusal::new(Reason::Internal, error))?;
                Some(SignedNote { size: checkpoint.size, note: signed.to_bytes().into() })
            }
        };
        let Some(batch) = &flight.batch else { return Ok((None, note)) };
        let count = batch.records.len() as u64;
        Ok((Some(Outcome { first_seq: batch.prev.size, count, signatures, checkpoint: note }), None))
    }

    /// The HSM does not sign: whoever waits is told, the intent stays open and is tried again.
    fn stall(&mut self, mut flight: Flight, refusal: Refusal) {
        tracing::warn!(trail = %self.facts.origin, reason = refusal.reason().code(), "the HSM does not sign; the open batch is tried again");
        for waiter in flight.waiters.drain(..) {
            waiter.refuse(&refusal);
        }
        self.refuse_gathering(&refusal);
        self.refuse_checkpoints(&refusal);
        self.publish(|now| now.stopped = Some(refusal.reason()));
        let wait = RETRY.start().saturating_mul(1 << flight.attempts.min(16)).min(*RETRY.end());
        flight.attempts += 1;
        flight.retry_at = Instant::now() + wait;
        if flight.batch.is_some() {
            self.flight = Some(flight);
        } else {
            // A checkpoint alone has no intent: it is simply due again.
            self.last_checkpoint = Instant::now();
            self.publish(|now| now.stopped = None);
        }
    }

    fn refuse_gathering(&mut self, refusal: &Refusal) {
        self.recent.forget_from(self.head.size);
        self.gathering.refuse(refusal);
        if let Some(group) = self.held.take() {
            let _ = group.reply.send(Err(refusal.clone()));
        }
    }

    fn refuse_checkpoints(&mut self, refusal: &Refusal) {
        for waiter in self.checkpoint_waiters.drain(..) {
            let _ = waiter.send(Err(refusal.clone()));
        }
    }

    /// One durable step: the outcome of what landed, together with the intent of what goes up next.
    async fn step(&mut self, landed: Option<Landed>) -> Result<(), Fatal> {
        let next = if self.latched.is_none() { self.build_next().await } else { None };
        let checkpoint_alone = next.is_none() && self.latched.is_none() && self.checkpoint_due();
        if landed.is_none() && next.is_none() {
            if checkpoint_alone && self.head.size == self.signed {
                self.launch_checkpoint();
            }
            return Ok(());
        }
        let begun = Instant::now();
        let append = Append {
            trail: self.facts.no,
            outcome: landed.as_ref().and_then(|landed| landed.outcome.clone()),
            checkpoint: landed.as_ref().and_then(|landed| landed.checkpoint.clone()),
            intent: next.as_ref().map(|next| next.batch.intent(next.proof.mac)),
        };
        let stored = self.store.append(append).await;
        self.metrics.stage(Stage::Commit, begun.elapsed());
        match stored {
            Ok(()) => {
                fail::point("commit");
                if let Some(landed) = landed {
                    self.release(landed);
                }
                if let Some(next) = next {
                    self.launch(next);
                }
                Ok(())
            }
            Err(error @ (AppendError::Full(_) | AppendError::NotStored(_))) => {
                self.not_stored(landed, next, error).await
            }
            Err(error @ (AppendError::LostRace { .. } | AppendError::Unknown(_))) => Err(self.fatal(error.to_string())),
        }
    }

    /// What is new is refused; what the HSM has signed is tried again alone until it is stored.
    async fn not_stored(
        &mut self,
        landed: Option<Landed>,
        next: Option<Next>,
        error: AppendError,
    ) -> Result<(), Fatal> {
        let full = matches!(error, AppendError::Full(_));
        if self.said_at.is_none_or(|at| at.elapsed() >= SAY_EVERY) {
            self.said_at = Some(Instant::now());
            tracing::error!(trail = %self.facts.origin, %error, "nothing new is taken");
        }
        let reason = if full { Reason::StoreFull } else { Reason::StoreUnavailable };
        let refusal = Refusal::new(reason, "the store took no more; nothing was signed");
        if let Some(next) = next {
            next.waiters.into_iter().for_each(|waiter| waiter.refuse(&refusal));
        }
        self.refuse_gathering(&refusal);
        self.publish(|now| now.store = Some(reason));
        let Some(landed) = landed else { return Ok(()) };
        self.publish(|now| now.stopped = Some(reason));
        let mut wait = *RETRY.start();
        loop {
            let append = Append {
                trail: self.facts.no,
                outcome: landed.outcome.clone(),
                checkpoint: landed.checkpoint.clone(),
                intent: None,
            };
            match self.store.append(append).await {
                Ok(()) => {
                    self.release(landed);
                    return Ok(());
                }
                Err(AppendError::Full(_) | AppendError::NotStored(_)) => {
                    // Nobody waits in the queue for what cannot be taken.
                    while let Ok(work) = self.queue.try_recv() {
                        self.take(work).await?;
                    }
                    tokio::time::sleep(wait).await;
                    wait = (wait * 2).min(*RETRY.end());
                }
                Err(error) => return Err(self.fatal(error.to_string())),
            }
        }
    }

    /// Builds what gathered into a batch and has its intent MAC'd; none when there is nothing, or
    /// when it had to be refused.
    async fn build_next(&mut self) -> Option<Next> {
        if self.gathering.is_empty() {
            return None;
        }
        let begun = Instant::now();
        let (items, waiters) = self.gathering.take();
        let with_checkpoint = self.checkpoint_due();
        let built = maybe_blocking(items.len(), || {
            let batch = Batch::build(&self.facts, self.head, &self.frontier, items, with_checkpoint)?;
            let messages = batch.messages(&self.facts);
            let leaves = batch.records.iter().map(|record| record.leaf);
            let digest = intent_digest(&self.instance, &self.facts, &batch.prev, leaves, &messages);
            Ok::<_, super::batch::BatchError>((batch, messages, digest))
        });
        let refused = match built {
            Err(error) => Refusal::new(Reason::Internal, error),
            Ok((batch, messages, digest)) => match self.signer.mac(digest).await {
                Err(refusal) => refusal,
                Ok(mac) => {
                    self.metrics.stage(Stage::Intent, begun.elapsed());
                    return Some(Next { batch, waiters, messages, proof: RecoveryProof { digest, mac } });
                }
            },
        };
        self.recent.forget_from(self.head.size);
        waiters.into_iter().for_each(|waiter| waiter.refuse(&refused));
        self.refuse_gathering(&refused);
        None
    }

    async fn latch(&mut self, reason: Reason) -> Result<(), Fatal> {
        self.latched = Some(reason);
        tracing::error!(trail = %self.facts.origin, reason = reason.code(), "the trail is latched: nothing is signed in it any more");
        let refusal = self.refusal(Reason::TrailLatched);
        self.refuse_gathering(&refusal);
        self.refuse_checkpoints(&refusal);
        self.publish(|now| now.stopped = Some(Reason::TrailLatched));
        let latched = self.store.latch(self.facts.no, reason.code().to_owned()).await;
        latched.map_err(|error| self.fatal(error.to_string()))?;
        // The store is not trusted to keep it alone.
        let second = SecondHead { latched: true, ..SecondHead::at(self.head.size, self.head.leaf) };
        let written = self.write_second(second).await.map_err(std::io::Error::other).and_then(|written| written);
        written.map_err(|error| self.fatal(format!("the second head was not written: {error}")))
    }

    pub(super) fn publish(&self, change: impl FnOnce(&mut Published)) {
        let latched = self.latched.is_some();
        self.published.send_modify(|now| {
            change(now);
            if latched {
                now.stopped = Some(Reason::TrailLatched);
            }
        });
    }

    fn fatal(&self, problem: String) -> Fatal {
        Fatal { trail: self.facts.origin.to_string(), problem }
    }
}

fn maybe_blocking<T>(items: usize, work: impl FnOnce() -> T) -> T {
    if items >= BLOCKING_ITEMS { tokio::task::block_in_place(work) } else { work() }
}

/// The expected time of a signature before any was measured.
pub(super) fn first_signature_time() -> Duration {
    FIRST_SIGNATURE
}
