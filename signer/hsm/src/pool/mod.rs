//! The pool: supervises the worker processes of one token and spreads calls over them.
//!
//! A position always goes to the same worker slot (its number modulo the number of slots), so the
//! slot's guard sees every input for it. When only that slot is down its calls wait for it or fail
//! at their deadline; they never go to another one. When no worker is up, calls fail at once.

mod flight;
mod keys;
mod marks;
mod plan;
mod process;
mod slot;
mod state;

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use countersign_trail::id::InstanceId;
use countersign_trail::keys::Kid;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;

pub use state::{PoolCounters, PoolState};

use crate::config::{
    KeyBinding, MAX_BATCH_BYTES, MAX_BATCH_ITEMS, MAX_WORKERS, RecoveryProof, SignItem, TokenConfig, TokenInfo,
    WorkerCommand,
};
use crate::error::{HsmError, Reason};
use crate::probe;
use crate::protocol::{Answer, Blob, Call, WireItem};
use crate::sync::lock;
use flight::{Job, SignResult, Task};
use keys::{insert_keys, public_key};
use plan::{Chunk, plan};
use process::Spawner;
use slot::Context;
use state::Board;

/// Most messages and calls that wait for, or are with, one worker.
const BACKLOG_ITEMS: usize = 16_384;
/// Most bytes of messages that wait for, or are with, one worker: as much as two batches.
const BACKLOG_BYTES: usize = 2 * MAX_BATCH_BYTES;
/// Byte permits are counted in KiB.
const KIB: usize = 1024;

/// What a pool is made of.
#[derive(Debug, Clone)]
pub struct PoolSpec {
    /// The token's role, `record` or `admin`: names the pool in logs and errors.
    pub role: String,
    /// The instance, for probes.
    pub instance: InstanceId,
    /// The command that runs a worker.
    pub command: WorkerCommand,
    /// The token.
    pub token: TokenConfig,
    /// The keys, at most [`crate::MAX_KEYS`].
    pub keys: Vec<KeyBinding>,
}

/// The supervised workers of one token. Clones share them; the last one to go ends them.
#[derive(Clone)]
pub struct Pool {
    inner: Arc<Inner>,
}

struct Inner {
    context: Arc<Context>,
    slots: Vec<Slot>,
    /// For calls that any worker can answer.
    turn: AtomicUsize,
    tasks: Mutex<Vec<JoinHandle<()>>>,
    /// Held while keys are bound or unbound.
    binding: tokio::sync::Mutex<()>,
    /// Held while the token's objects are changed or listed.
    administration: tokio::sync::Mutex<()>,
}

struct Slot {
    jobs: mpsc::UnboundedSender<Job>,
    items: Arc<Semaphore>,
    kib: Arc<Semaphore>,
}

/// A batch that the workers have.
pub struct Signing {
    waiting: VecDeque<Promise>,
}

impl Signing {
    /// The signatures of the next chunk, in wire form, each with its item's place in the batch; none
    /// after the last. Chunks come in an order of their own.
    ///
    /// # Errors
    /// Of the first item of the chunk that failed; others may have been signed, and signing the same
    /// bytes again is always allowed. [`Reason::HsmUnavailable`] also when the worker ended.
    pub async fn next(&mut self) -> Option<Result<Vec<(usize, Bytes)>, HsmError>> {
        let (places, answer) = self.waiting.pop_front()?;
        let results = answer.await.map_err(|_| closed()).and_then(|results| results);
        let placed = |results: Vec<Result<Bytes, HsmError>>| {
            places.into_iter().zip(results).map(|(place, result)| Ok((place, result?))).collect()
        };
        Some(results.and_then(placed))
    }
}

/// Of a chunk: the places of its items in the batch, and what will come.
type Promise = (Vec<usize>, oneshot::Receiver<SignResult>);

impl Pool {
    /// Starts the workers in the background, one after another; [`Pool::state`] tells how it goes.
    ///
    /// Must be called within a tokio runtime.
    ///
    /// # Errors
    /// [`Reason::TooLarge`] or [`Reason::KeyMismatch`] for a specification outside the bounds;
    /// [`Reason::Io`] when no thread can be started. A token that is not there is no error here.
    pub fn start(spec: PoolSpec) -> Result<Pool, HsmError> {
        let workers = spec.token.workers;
        if workers == 0 || workers > MAX_WORKERS {
            let text = format!("{workers} workers, 1 to {MAX_WORKERS} are allowed");
            return Err(HsmError::new(Reason::TooLarge, text));
        }
        let mut keys = BTreeMap::new();
        insert_keys(&mut keys, spec.keys)?;
        let spawner = Spawner::start(spec.command, spec.token.user)
            .map_err(|error| HsmError::new(Reason::Io, format!("the spawner: {error}")))?;
        let context = Arc::new(Context {
            board: Board::new(spec.role, workers),
            config: spec.token,
            instance: spec.instance,
            spawner,
            keys: Mutex::new((0, Arc::new(keys))),
            info: Mutex::new(None),
        });
        let (mut slots, mut tasks) = (Vec::new(), Vec::new());
        for index in 0..usize::from(workers) {
            let (jobs, queue) = mpsc::unbounded_channel();
            tasks.push(tokio::spawn(slot::run(Arc::clone(&context), index, queue)));
            slots.push(Slot {
                jobs,
                items: Arc::new(Semaphore::new(BACKLOG_ITEMS)),
                kib: Arc::new(Semaphore::new(BACKLOG_BYTES / KIB)),
            });
        }
        let tasks = Mutex::new(tasks);
        let (binding, administration) = Default::default();
        let turn = AtomicUsize::new(0);
        let inner = Inner { context, slots, turn, tasks, binding, administration };
        Ok(Pool { inner: Arc::new(inner) })
    }

    /// Signs a batch: what [`Pool::begin`] gives, in the order of the items.
    ///
    /// # Errors
    /// Those of [`Pool::begin`] and [`Signing::next`].
    pub async fn sign(&self, items: Vec<SignItem>) -> Result<Vec<Bytes>, HsmError> {
        let mut signatures = vec![None; items.len()];
        let mut signing = self.begin(items)?;
        while let Some(chunk) = signing.next().await {
            for (place, signature) in chunk? {
                signatures[place] = Some(signature);
            }
        }
        let complete: Option<Vec<_>> = signatures.into_iter().collect();
        complete.ok_or_else(|| HsmError::new(Reason::Protocol, "too few signatures"))
    }

    /// Hands a batch to the workers: each signs an item after it found its purpose, trail and
    /// position in order. The signatures come chunk by chunk, and are not verified here.
    ///
    /// # Errors
    /// Nothing is signed then. [`Reason::HsmUnavailable`] while the pool is down;
    /// [`Reason::Overloaded`] when the backlog is full; [`Reason::TooLarge`],
    /// [`Reason::KeyUnknown`], and [`Reason::PurposeMismatch`] where that shows before a worker
    /// reads the message.
    pub fn begin(&self, items: Vec<SignItem>) -> Result<Signing, HsmError> {
        self.refuse_if_down()?;
        let bytes: usize = items.iter().map(|item| item.message.len()).sum();
        if items.len() > MAX_BATCH_ITEMS || bytes > MAX_BATCH_BYTES {
            let text =
                format!("{} messages of {bytes} bytes, at most {MAX_BATCH_ITEMS} of {MAX_BATCH_BYTES}", items.len());
            return Err(HsmError::new(Reason::TooLarge, text));
        }
        let keys = Arc::clone(&lock(&self.inner.context.keys).1);
        let chunks = plan(&keys, self.inner.slots.len(), items)?;
        Ok(Signing { waiting: self.submit(chunks)?.into() })
    }

    /// Reserves room for all chunks, then sends them.
    fn submit(&self, chunks: Vec<Chunk>) -> Result<Vec<Promise>, HsmError> {
        let permits: Vec<_> = chunks
            .iter()
            .map(|chunk| self.inner.reserve(chunk.slot, chunk.items.len(), chunk.bytes))
            .collect::<Result<_, _>>()?;
        let mut waiting = Vec::with_capacity(chunks.len());
        for (chunk, permits) in chunks.into_iter().zip(permits) {
            let (reply, answer) = oneshot::channel();
            let task = Task::Sign { items: chunk.items, bytes: chunk.bytes, reply };
            self.inner.send(chunk.slot, task, permits)?;
            waiting.push((chunk.places, answer));
        }
        Ok(waiting)
    }

    /// The MAC over an intent's digest, under the token's key.
    ///
    /// # Errors
    /// [`Reason::HsmUnavailable`] when no worker is up, [`Reason::Overloaded`].
    pub async fn mac(&self, digest: [u8; 32]) -> Result<[u8; 32], HsmError> {
        match self.call(self.any_slot(), Call::Mac(digest), false).await? {
            Answer::Mac(mac) => Ok(mac),
            _ => Err(unexpected()),
        }
    }

    /// Whether `mac` was made over `digest` under this token's key.
    ///
    /// # Errors
    /// [`Reason::HsmUnavailable`] when no worker is up, [`Reason::Overloaded`].
    pub async fn check_mac(&self, digest: [u8; 32], mac: [u8; 32]) -> Result<bool, HsmError> {
        let call = Call::CheckMac(RecoveryProof { digest, mac });
        match self.call(self.any_slot(), call, false).await? {
            Answer::Checked(holds) => Ok(holds),
            _ => Err(unexpected()),
        }
    }

    /// The state, and a way to wait for its changes.
    pub fn state(&self) -> watch::Receiver<PoolState> {
        self.inner.context.board.state()
    }

    /// What has happened since the start.
    pub fn counters(&self) -> PoolCounters {
        self.inner.context.board.counters()
    }

    /// The process ids of the workers, by slot.
    pub fn worker_pids(&self) -> Vec<Option<u32>> {
        self.inner.context.board.pids()
    }

    /// The bound keys that some worker cannot use, and why.
    pub fn refused_keys(&self) -> Vec<(Kid, HsmError)> {
        self.inner.context.board.refused()
    }

    /// Has every worker that is up sign a probe with every bound key and verifies it: the only
    /// health that counts. Keys that fail, or work again, show in [`Pool::state`].
    ///
    /// # Errors
    /// The first failure; [`Reason::HsmUnavailable`] when no worker is up.
    pub async fn probe(&self) -> Result<(), HsmError> {
        self.refuse_if_down()?;
        let keys = Arc::clone(&lock(&self.inner.context.keys).1);
        let mut outcome = Ok(());
        for slot in self.inner.context.board.up() {
            let mut found = Vec::with_capacity(keys.len());
            for key in keys.values() {
                let error = self.probe_one(slot, key).await.err();
                if let (Ok(()), Some(error)) = (&outcome, &error) {
                    outcome = Err(error.clone());
                }
                found.push((key.kid, error));
            }
            self.inner.context.board.note_keys(slot, &found);
        }
        outcome
    }

    async fn probe_one(&self, slot: usize, key: &KeyBinding) -> Result<(), HsmError> {
        let public = public_key(key)?;
        let message = probe::message(&self.inner.context.instance, &key.kid)?;
        let item = WireItem { kid: key.kid, message: Blob(message.clone().into()), recovery: None };
        let (bytes, items) = (message.len(), vec![item]);
        let chunk = Chunk { slot, items, bytes, places: vec![0] };
        let mut result = Err(unexpected());
        for (_, answer) in self.submit(vec![chunk])? {
            result = answer.await.map_err(|_| closed())??.into_iter().next().unwrap_or_else(|| Err(unexpected()));
        }
        probe::check(&public, &message, Answer::Signed { first: 0, results: vec![result.map(Blob)] })
    }

    /// The token, as the first worker that came up found it; None before.
    pub fn token_info(&self) -> Option<TokenInfo> {
        lock(&self.inner.context.info).clone()
    }

    /// Ends every worker and waits for that. Calls in flight fail.
    pub async fn shutdown(&self) {
        self.inner.context.board.close();
        let tasks = std::mem::take(&mut *lock(&self.inner.tasks));
        if tasks.is_empty() {
            return;
        }
        for task in tasks {
            // It may have ended before.
            let _ = task.await;
        }
        tracing::info!(pool = self.inner.context.board.name(), "HSM workers stopped");
    }

    fn refuse_if_down(&self) -> Result<(), HsmError> {
        self.inner.context.board.refusal().map_or(Ok(()), Err)
    }

    /// A slot that is up, in turn; slot 0 when none is.
    fn any_slot(&self) -> usize {
        let up = self.inner.context.board.up();
        let turn = self.inner.turn.fetch_add(1, Ordering::Relaxed);
        up.get(turn % up.len().max(1)).copied().unwrap_or(0)
    }

    async fn call(&self, slot: usize, call: Call, slow: bool) -> Result<Answer, HsmError> {
        self.refuse_if_down()?;
        let permits = self.inner.reserve(slot, 1, KIB)?;
        let (reply, answer) = oneshot::channel();
        self.inner.send(slot, Task::Call { call, slow, reply }, permits)?;
        answer.await.map_err(|_| closed())?
    }
}

impl Inner {
    fn reserve(&self, slot: usize, items: usize, bytes: usize) -> Result<Vec<OwnedSemaphorePermit>, HsmError> {
        let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        let Slot { items: item_room, kib, .. } = &self.slots[slot];
        let items = Arc::clone(item_room).try_acquire_many_owned(count(items));
        let bytes = Arc::clone(kib).try_acquire_many_owned(count(bytes.div_ceil(KIB)));
        match (items, bytes) {
            (Ok(items), Ok(bytes)) => Ok(vec![items, bytes]),
            _ => {
                self.context.board.overloaded.fetch_add(1, Ordering::Relaxed);
                let text = format!("{} HSM: the backlog of worker {slot} is full", self.context.board.name());
                Err(HsmError::new(Reason::Overloaded, text))
            }
        }
    }

    fn send(&self, slot: usize, task: Task, permits: Vec<OwnedSemaphorePermit>) -> Result<(), HsmError> {
        let job = Job { task, queued: Instant::now(), permits };
        self.slots[slot].jobs.send(job).map_err(|_| closed())
    }
}

fn closed() -> HsmError {
    HsmError::new(Reason::HsmUnavailable, "the pool is closed")
}

fn unexpected() -> HsmError {
    HsmError::new(Reason::Protocol, "an answer to another question")
}
