//! One worker slot: keeps a process running, feeds it, and fails what it took along when it ends.
//!
//! A slot task owns its process and its backlog. Jobs that were not sent yet survive the process;
//! they wait for the next one until their deadline.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use countersign_trail::id::InstanceId;
use countersign_trail::keys::{Kid, PublicKey};
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot, watch};
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::process::{Process, Spawner, start_lock};
use super::state::{Board, Order, SlotState};
use crate::config::{KeyBinding, MAX_MESSAGE_BYTES, TokenConfig, TokenInfo};
use crate::error::{Halt, HsmError, Reason};
use crate::probe;
use crate::protocol::{Answer, Blob, Call, Reply, Request, Start, WireItem};
use crate::sync::lock;

/// Messages that a worker holds without having answered. 1024 keep 256 sessions busy.
const WINDOW_ITEMS: usize = 1024;
/// Message bytes in one frame beyond which the next chunk waits for the next frame: a frame then
/// holds at most this or one message, and 1024 × 120 bytes of its own, below 16 MiB.
const FRAME_MESSAGE_BYTES: usize = MAX_MESSAGE_BYTES;
/// Pause before the first restart; it doubles with each failure.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// Longest pause before a restart.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// A worker that lived so long starts the pauses anew.
const STABLE: Duration = Duration::from_secs(10);
/// What the pool grants on top of a limit that the worker's own watchdog watches, so that the
/// worker can say why it ends.
const GRACE: Duration = Duration::from_secs(1);

pub(super) type SignResult = Result<Vec<Result<Vec<u8>, HsmError>>, HsmError>;

/// Something for one worker to do. Its permits bound the backlog while it lives.
pub(super) struct Job {
    pub(super) task: Task,
    pub(super) queued: Instant,
    pub(super) permits: Vec<OwnedSemaphorePermit>,
}

pub(super) enum Task {
    Sign {
        items: Vec<WireItem>,
        bytes: usize,
        reply: oneshot::Sender<SignResult>,
    },
    Call {
        call: Call,
        slow: bool,
        reply: oneshot::Sender<Result<Answer, HsmError>>,
    },
}

impl Task {
    fn fail(self, error: HsmError) {
        // Whoever stopped waiting needs no answer.
        match self {
            Task::Sign { reply, .. } => drop(reply.send(Err(error))),
            Task::Call { reply, .. } => drop(reply.send(Err(error))),
        }
    }
}

/// What all slots of a pool share.
pub(super) struct Context {
    pub(super) board: Board,
    pub(super) config: TokenConfig,
    pub(super) instance: InstanceId,
    pub(super) spawner: Spawner,
    /// The bound keys and how often they were changed.
    pub(super) keys: Mutex<(u64, BTreeMap<Kid, KeyBinding>)>,
    /// Set by the first worker that came up.
    pub(super) info: Mutex<Option<TokenInfo>>,
}

/// Why a worker is not served any more.
enum End {
    /// The pool is gone.
    Closed,
    Halted(Halt),
}

/// Jobs that no worker has yet.
pub(super) struct Backlog {
    jobs: mpsc::UnboundedReceiver<Job>,
    waiting: VecDeque<Job>,
}

impl Backlog {
    /// Takes jobs in, and fails those that wait too long or for nothing. Returns when the pool is
    /// gone.
    async fn tend(&mut self, context: &Context) {
        let mut state = context.board.state();
        let limit = context.config.call_deadline;
        loop {
            if let Some(refusal) = context.board.refusal() {
                self.waiting
                    .drain(..)
                    .for_each(|job| job.task.fail(refusal.clone()));
            }
            let now = Instant::now();
            while self
                .waiting
                .front()
                .is_some_and(|job| job.queued + limit <= now)
            {
                if let Some(job) = self.waiting.pop_front() {
                    let text = "no worker came up for this call in time";
                    job.task.fail(HsmError::new(Reason::HsmUnavailable, text));
                }
            }
            let next = self.waiting.front().map_or(now, |job| job.queued + limit);
            tokio::select! {
                job = self.jobs.recv() => match job {
                    Some(job) => self.waiting.push_back(job),
                    None => return,
                },
                () = sleep_until(next), if !self.waiting.is_empty() => {}
                _ = state.changed() => {}
            }
        }
    }
}

/// The slot task. Ends with the pool.
pub(super) async fn run(context: Arc<Context>, index: usize, jobs: mpsc::UnboundedReceiver<Job>) {
    let mut backlog = Backlog {
        jobs,
        waiting: VecDeque::new(),
    };
    let mut order = context.board.order();
    let mut failures = 0;
    loop {
        let current = order.borrow_and_update().clone();
        match current {
            Order::Run => {}
            Order::Latched(_) => {
                tokio::select! {
                    () = backlog.tend(&context) => return,
                    _ = order.changed() => continue,
                }
            }
            Order::Close => return,
        }
        let started = tokio::select! {
            started = start(&context, index) => started,
            () = backlog.tend(&context) => return,
        };
        let end = match started {
            Ok((process, version)) => {
                let up = Instant::now();
                let end = serve(&context, index, process, version, &mut backlog, &mut order).await;
                if up.elapsed() >= STABLE {
                    failures = 0;
                }
                end
            }
            Err(halt) => End::Halted(halt),
        };
        let End::Halted(halt) = end else { return };
        context
            .board
            .set(index, SlotState::Down(halt.error.clone()));
        if halt.latched {
            context.board.latch(halt.error);
            continue;
        }
        let pause = FIRST_PAUSE
            .saturating_mul(1 << failures.min(10))
            .min(LONGEST_PAUSE);
        failures += 1;
        tokio::select! {
            () = sleep(pause) => {}
            _ = order.changed() => {}
            () = backlog.tend(&context) => return,
        }
    }
}

/// Starts a worker, one at a time per module, and lets it sign a probe. Returns it with the
/// version of the keys that it knows.
async fn start(context: &Context, index: usize) -> Result<(Process, u64), Halt> {
    let turn = start_lock(&context.config.module);
    let _turn = turn.lock().await;
    if let Order::Latched(error) = &*context.board.order().borrow() {
        return Err(Halt::latch(error.clone()));
    }
    let spawned = context
        .spawner
        .spawn(context.board.name(), index, context.config.call_deadline)
        .await;
    let mut process = spawned.map_err(Halt::replace)?;
    context
        .board
        .workers_started
        .fetch_add(1, Ordering::Relaxed);
    context.board.set_pid(index, process.pid);
    match introduce(context, &mut process).await {
        Ok((version, refused)) => {
            context.board.workers_up.fetch_add(1, Ordering::Relaxed);
            context.board.set(index, SlotState::Up(refused));
            Ok((process, version))
        }
        Err(mut halt) => {
            let status = bury(context, index, process).await;
            if halt.error.reason() == Reason::WorkerDied {
                let text = format!("{}, {status}", halt.error.detail());
                halt.error = HsmError::new(Reason::WorkerDied, text);
            }
            Err(halt)
        }
    }
}

async fn bury(context: &Context, index: usize, process: Process) -> String {
    let status = process.kill().await;
    context.board.set_pid(index, None);
    context.board.workers_ended.fetch_add(1, Ordering::Relaxed);
    status
}

type Refused = Vec<(Kid, HsmError)>;

/// `Start` and its answer, then the probe: the worker is ready only when a signature of the first
/// usable key verifies in software. A pool without keys is ready when it is logged in.
async fn introduce(context: &Context, process: &mut Process) -> Result<(u64, Refused), Halt> {
    let (version, keys) = lock(&context.keys).clone();
    let mut token = context.config.clone();
    if let Some(info) = &*lock(&context.info) {
        token.token_serial = Some(info.serial.clone());
    }
    let start = Start {
        token,
        keys: keys.values().cloned().collect(),
    };
    let slow = context.config.slow_deadline() + GRACE;
    let answer = ask(process, 1, Call::Start(Box::new(start)), slow).await?;
    let Answer::Started { info, refused } = answer else {
        return Err(Halt::replace(HsmError::new(
            Reason::Protocol,
            "Start was not answered by Started",
        )));
    };
    lock(&context.info).get_or_insert(info);
    let usable = keys
        .values()
        .find(|key| !refused.iter().any(|(kid, _)| *kid == key.kid));
    if let Some(key) = usable {
        let public = PublicKey::from_spki_der(&key.public_key)
            .map_err(|error| Halt::replace(HsmError::new(Reason::KeyMismatch, error)))?;
        let message = probe::message(&context.instance, &key.kid).map_err(Halt::replace)?;
        let item = WireItem {
            kid: key.kid,
            message: Blob(message.clone()),
            recovery: None,
        };
        let answer = ask(
            process,
            2,
            Call::Sign(vec![item]),
            context.config.call_deadline + GRACE,
        )
        .await?;
        probe::check(&public, &message, answer).map_err(Halt::replace)?;
    }
    Ok((version, refused))
}

/// One request to a worker that has nothing else to do.
async fn ask(process: &mut Process, id: u64, call: Call, limit: Duration) -> Result<Answer, Halt> {
    process
        .send(&[Request { id, call }], limit)
        .await
        .map_err(Halt::replace)?;
    match timeout(limit, process.replies.recv()).await {
        Err(_) => Err(Halt::replace(HsmError::new(
            Reason::HsmTimeout,
            "no answer at the start",
        ))),
        Ok(None) => Err(Halt::replace(HsmError::new(
            Reason::WorkerDied,
            "ended at the start",
        ))),
        Ok(Some(replies)) => match replies.into_iter().next().map(|reply| reply.answer) {
            Some(Answer::Exiting { error, latched }) => Err(Halt { error, latched }),
            Some(Answer::Failed(error)) => Err(Halt::replace(error)),
            Some(answer) => Ok(answer),
            None => Err(Halt::replace(HsmError::new(
                Reason::Protocol,
                "an empty frame",
            ))),
        },
    }
}

/// A request that the worker has not answered in full.
enum Sent {
    Sign {
        results: Vec<Option<Result<Vec<u8>, HsmError>>>,
        left: usize,
        reply: oneshot::Sender<SignResult>,
    },
    Call {
        slow: bool,
        reply: oneshot::Sender<Result<Answer, HsmError>>,
    },
}

/// What one worker is working on.
struct Flight {
    sent: HashMap<u64, (Sent, Vec<OwnedSemaphorePermit>)>,
    items: usize,
    slow: usize,
    next_id: u64,
    /// The last answer, or the first request after a time of rest.
    progress: Instant,
}

impl Flight {
    fn new() -> Flight {
        Flight {
            sent: HashMap::new(),
            items: 0,
            slow: 0,
            next_id: 3,
            progress: Instant::now(),
        }
    }

    /// Moves jobs from the backlog into requests, as far as window and frame allow.
    fn fill(&mut self, waiting: &mut VecDeque<Job>) -> Vec<Request> {
        let (mut requests, mut bytes) = (Vec::new(), 0);
        while let Some(job) = waiting.front() {
            if let Task::Sign {
                items,
                bytes: more,
                reply,
            } = &job.task
            {
                if reply.is_closed() {
                    waiting.pop_front();
                    continue;
                }
                let room = self.items + items.len() <= WINDOW_ITEMS || self.items == 0;
                if !room || (bytes > 0 && bytes + more > FRAME_MESSAGE_BYTES) {
                    break;
                }
                bytes += more;
            }
            let Some(job) = waiting.pop_front() else {
                break;
            };
            requests.push(self.take(job));
        }
        requests
    }

    fn take(&mut self, job: Job) -> Request {
        if self.sent.is_empty() {
            self.progress = Instant::now();
        }
        let id = self.next_id;
        self.next_id += 1;
        let (call, sent) = match job.task {
            Task::Sign { items, reply, .. } => {
                let left = items.len();
                self.items += left;
                (
                    Call::Sign(items),
                    Sent::Sign {
                        results: vec![None; left],
                        left,
                        reply,
                    },
                )
            }
            Task::Call { call, slow, reply } => {
                self.slow += usize::from(slow);
                (call, Sent::Call { slow, reply })
            }
        };
        self.sent.insert(id, (sent, job.permits));
        Request { id, call }
    }

    /// Hands an answer to whoever waits for it.
    fn answer(&mut self, reply: Reply) -> Result<(), Halt> {
        self.progress = Instant::now();
        let nonsense = || Halt::replace(HsmError::new(Reason::Protocol, "an answer to no request"));
        match reply.answer {
            Answer::Exiting { error, latched } => return Err(Halt { error, latched }),
            Answer::Signed { index, result } => {
                let Some((Sent::Sign { results, left, .. }, _)) = self.sent.get_mut(&reply.id)
                else {
                    return Err(nonsense());
                };
                let entry = usize::try_from(index)
                    .ok()
                    .and_then(|index| results.get_mut(index));
                match entry {
                    Some(entry @ None) => *entry = Some(result.map(|blob| blob.0)),
                    _ => return Err(nonsense()),
                }
                *left -= 1;
                self.items -= 1;
                if *left == 0
                    && let Some((Sent::Sign { results, reply, .. }, _)) =
                        self.sent.remove(&reply.id)
                {
                    let _ = reply.send(Ok(results.into_iter().flatten().collect()));
                }
            }
            answer => {
                let Some((Sent::Call { slow, reply }, _)) = self.sent.remove(&reply.id) else {
                    return Err(nonsense());
                };
                self.slow -= usize::from(slow);
                let _ = reply.send(match answer {
                    Answer::Failed(error) => Err(error),
                    answer => Ok(answer),
                });
            }
        }
        Ok(())
    }

    /// When the worker counts as hung, if it has something to do.
    fn deadline(&self, config: &TokenConfig) -> Option<Instant> {
        let limit = if self.slow > 0 {
            config.slow_deadline()
        } else {
            config.call_deadline
        };
        (!self.sent.is_empty()).then(|| self.progress + limit + GRACE)
    }

    fn fail(self, error: &HsmError) {
        let text = format!("the worker ended during the call: {error}");
        let error = HsmError::new(Reason::HsmUnavailable, text);
        for (sent, _) in self.sent.into_values() {
            match sent {
                Sent::Sign { reply, .. } => drop(reply.send(Err(error.clone()))),
                Sent::Call { reply, .. } => drop(reply.send(Err(error.clone()))),
            }
        }
    }
}

/// Feeds a worker until it ends, hangs, or the pool changes its order.
async fn serve(
    context: &Context,
    index: usize,
    mut process: Process,
    version: u64,
    backlog: &mut Backlog,
    order: &mut watch::Receiver<Order>,
) -> End {
    let mut flight = Flight::new();
    catch_up(context, version, &mut backlog.waiting);
    let end = loop {
        let requests = flight.fill(&mut backlog.waiting);
        if !requests.is_empty()
            && let Err(error) = process.send(&requests, context.config.call_deadline).await
        {
            // Its last frame may say more.
            break End::Halted(last_words(&mut process).unwrap_or_else(|| Halt::replace(error)));
        }
        let deadline = flight.deadline(&context.config);
        tokio::select! {
            job = backlog.jobs.recv() => match job {
                Some(job) => backlog.waiting.push_back(job),
                None => break End::Closed,
            },
            replies = process.replies.recv() => {
                let Some(replies) = replies else {
                    let error = HsmError::new(Reason::WorkerDied, "the worker ended without a word");
                    break End::Halted(Halt::replace(error));
                };
                if let Err(halt) = replies.into_iter().try_for_each(|reply| flight.answer(reply)) {
                    break End::Halted(halt);
                }
            }
            () = sleep_until(deadline.unwrap_or_else(Instant::now)), if deadline.is_some() => {
                let error = HsmError::new(Reason::HsmTimeout, "the worker did not answer in time");
                break End::Halted(Halt::replace(error));
            }
            _ = order.changed() => match order.borrow().clone() {
                Order::Run => {}
                Order::Latched(error) => break End::Halted(Halt::latch(error)),
                Order::Close => break End::Closed,
            },
        }
    };
    let error = match &end {
        End::Closed => HsmError::new(Reason::HsmUnavailable, "the pool is closed"),
        End::Halted(halt) => halt.error.clone(),
    };
    // Down before anybody is told, so that a caller who repeats sees it.
    context.board.set(index, SlotState::Down(error.clone()));
    let status = bury(context, index, process).await;
    tracing::warn!(pool = context.board.name(), slot = index, %error, status, "HSM worker ended");
    flight.fail(&error);
    end
}

/// Keys that were bound or unbound while the worker started.
fn catch_up(context: &Context, version: u64, waiting: &mut VecDeque<Job>) {
    let keys = lock(&context.keys);
    if keys.0 != version {
        let (reply, _) = oneshot::channel();
        let call = Call::Bind(keys.1.values().cloned().collect());
        let task = Task::Call {
            call,
            slow: true,
            reply,
        };
        waiting.push_front(Job {
            task,
            queued: Instant::now(),
            permits: Vec::new(),
        });
    }
}

/// An `Exiting` that is already here.
fn last_words(process: &mut Process) -> Option<Halt> {
    while let Ok(replies) = process.replies.try_recv() {
        for reply in replies {
            if let Answer::Exiting { error, latched } = reply.answer {
                return Some(Halt { error, latched });
            }
        }
    }
    None
}
