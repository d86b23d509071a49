//! One worker slot: keeps a process running, feeds it, and fails what it took along when it ends.
//!
//! A slot task owns its process and its backlog. Jobs that were not sent yet survive the process;
//! they wait for the next one until their deadline.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use countersign_trail::id::InstanceId;
use countersign_trail::keys::{Kid, PublicKey};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::flight::{Flight, GRACE, Job, Task, Waiting};
use super::process::{Process, Spawner, start_lock};
use super::state::{Board, Order, SlotState};
use crate::config::{KeyBinding, TokenConfig, TokenInfo};
use crate::error::{Halt, HsmError, Reason};
use crate::probe;
use crate::protocol::{Answer, Blob, Call, Request, Start, WireItem};
use crate::sync::lock;

/// Pause before the first restart; it doubles with each failure.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// Longest pause before a restart.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// A worker that lived so long starts the pauses anew.
const STABLE: Duration = Duration::from_secs(10);
/// What all slots of a pool share.
pub(super) struct Context {
    pub(super) board: Board,
    pub(super) config: TokenConfig,
    pub(super) instance: InstanceId,
    pub(super) spawner: Spawner,
    /// The bound keys and how often they were changed.
    pub(super) keys: Mutex<(u64, Arc<BTreeMap<Kid, KeyBinding>>)>,
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
struct Backlog {
    jobs: mpsc::UnboundedReceiver<Job>,
    waiting: Waiting,
}

impl Backlog {
    /// Takes jobs in, and fails those that wait too long or for nothing. Returns when the pool is
    /// gone.
    async fn tend(&mut self, context: &Context) {
        let mut state = context.board.state();
        let limit = context.config.call_deadline;
        loop {
            if let Some(refusal) = context.board.refusal() {
                self.waiting.fail(&refusal);
            }
            self.waiting.expire(limit);
            let next = self.waiting.oldest().map(|oldest| oldest + limit);
            tokio::select! {
                job = self.jobs.recv() => match job {
                    Some(job) => self.waiting.push(job),
                    None => return,
                },
                () = sleep_until(next.unwrap_or_else(Instant::now)), if next.is_some() => {}
                _ = state.changed() => {}
            }
        }
    }
}

/// The slot task. Ends with the pool.
pub(super) async fn run(context: Arc<Context>, index: usize, jobs: mpsc::UnboundedReceiver<Job>) {
    let mut backlog = Backlog { jobs, waiting: Waiting::default() };
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
        fall(&context, index, &halt);
        if halt.latched {
            continue;
        }
        let pause = FIRST_PAUSE.saturating_mul(1 << failures.min(10)).min(LONGEST_PAUSE);
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
    let spawned = context.spawner.spawn(context.board.name(), index, context.config.call_deadline).await;
    let mut process = spawned.map_err(Halt::replace)?;
    context.board.workers_started.fetch_add(1, Ordering::Relaxed);
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
    let start = Start { token, keys: keys.values().cloned().collect() };
    let slow = context.config.slow_deadline() + GRACE;
    let answer = ask(process, 1, Call::Start(Box::new(start)), slow).await?;
    let Answer::Started { info, refused } = answer else {
        return Err(Halt::replace(HsmError::new(Reason::Protocol, "Start was not answered by Started")));
    };
    lock(&context.info).get_or_insert(info);
    let usable = keys.values().find(|key| !refused.iter().any(|(kid, _)| *kid == key.kid));
    if let Some(key) = usable {
        let public = PublicKey::from_spki_der(&key.public_key)
            .map_err(|error| Halt::replace(HsmError::new(Reason::KeyMismatch, error)))?;
        let message = probe::message(&context.instance, &key.kid).map_err(Halt::replace)?;
        let item = WireItem { kid: key.kid, message: Blob(message.clone().into()), recovery: None };
        let answer = ask(process, 2, Call::Sign(vec![item]), context.config.call_deadline + GRACE).await?;
        probe::check(&public, &message, answer).map_err(Halt::replace)?;
    }
    Ok((version, refused))
}

/// One request to a worker that has nothing else to do.
async fn ask(process: &mut Process, id: u64, call: Call, limit: Duration) -> Result<Answer, Halt> {
    process.send(&[Request { id, call }], limit).await.map_err(Halt::replace)?;
    match timeout(limit, process.replies.recv()).await {
        Err(_) => Err(Halt::replace(HsmError::new(Reason::HsmTimeout, "no answer at the start"))),
        Ok(None) => Err(Halt::replace(HsmError::new(Reason::WorkerDied, "ended at the start"))),
        Ok(Some(replies)) => match replies.into_iter().next().map(|reply| reply.answer) {
            Some(Answer::Exiting { error, latched }) => Err(Halt { error, latched }),
            Some(Answer::Failed(error)) => Err(Halt::replace(error)),
            Some(answer) => Ok(answer),
            None => Err(Halt::replace(HsmError::new(Reason::Protocol, "an empty frame"))),
        },
    }
}

/// Feeds a worker until it ends, hangs, or the pool changes its order.
async fn serve(
    context: &Arc<Context>,
    index: usize,
    mut process: Process,
    version: u64,
    backlog: &mut Backlog,
    order: &mut watch::Receiver<Order>,
) -> End {
    let mut flight = Flight::new();
    catch_up(context, index, version, &mut backlog.waiting);
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
                Some(job) => backlog.waiting.push(job),
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
    // Down before anybody is told, so that a caller who repeats sees it; and latched before down, so
    // that a latched pool never looks as if it tried again.
    if let End::Halted(halt) = &end
        && halt.latched
    {
        context.board.latch(halt.error.clone());
    }
    context.board.set(index, SlotState::Down(error.clone()));
    let status = bury(context, index, process).await;
    let pool = context.board.name();
    match end {
        End::Closed => tracing::debug!(pool, slot = index, status, "HSM worker was stopped"),
        End::Halted(_) => tracing::info!(pool, slot = index, status, "HSM worker ended"),
    }
    flight.fail(&error);
    end
}

/// Shows the end of a worker. The latch comes first, so that a latched pool never looks as if it
/// tried again.
fn fall(context: &Context, index: usize, halt: &Halt) {
    if halt.latched {
        context.board.latch(halt.error.clone());
    }
    let new = context.board.set(index, SlotState::Down(halt.error.clone()));
    // The same failure again and again is one line.
    if new {
        let (pool, latched) = (context.board.name(), halt.latched);
        tracing::warn!(pool, slot = index, error = %halt.error, latched, "HSM worker is down");
    }
}

/// Keys that were bound while the worker started. (Those that were unbound stay unused: the pool
/// signs with bound keys only.)
fn catch_up(context: &Arc<Context>, index: usize, version: u64, waiting: &mut Waiting) {
    let keys = lock(&context.keys).clone();
    if keys.0 == version {
        return;
    }
    let (reply, answer) = oneshot::channel();
    let call = Call::Bind(keys.1.values().cloned().collect());
    let slow = true;
    waiting.push(Job { task: Task::Call { call, slow, reply }, queued: Instant::now(), permits: Vec::new() });
    let context = Arc::clone(context);
    tokio::spawn(async move {
        if let Ok(Ok(Answer::Bound { refused })) = answer.await {
            let refused: Vec<_> = refused.into_iter().map(|(kid, error)| (kid, Some(error))).collect();
            context.board.note_keys(index, &refused);
        }
    });
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
