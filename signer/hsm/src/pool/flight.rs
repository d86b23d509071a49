//! Jobs: those that wait for a worker, and those that one is working on.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, oneshot};
use tokio::time::Instant;

use crate::config::{MAX_MESSAGE_BYTES, TokenConfig};
use crate::error::{Halt, HsmError, Reason};
use crate::protocol::{Answer, Call, Reply, Request, WireItem};

/// Messages that a worker holds without having answered. 1024 keep 256 sessions busy.
const WINDOW_ITEMS: usize = 1024;
/// Message bytes in one frame beyond which the next chunk waits for the next frame: a frame then
/// holds at most this or one message, and 1024 × 120 bytes of its own, below 16 MiB.
const FRAME_MESSAGE_BYTES: usize = MAX_MESSAGE_BYTES;
/// What the pool grants on top of a limit that the worker's own watchdog watches, so that the
/// worker can say why it ends.
pub(super) const GRACE: Duration = Duration::from_secs(1);

pub(super) type SignResult = Result<Vec<Result<Bytes, HsmError>>, HsmError>;

/// Something for one worker to do. Its permits bound the backlog while it lives.
pub(super) struct Job {
    pub(super) task: Task,
    pub(super) queued: Instant,
    pub(super) permits: Vec<OwnedSemaphorePermit>,
}

pub(super) enum Task {
    Sign { items: Vec<WireItem>, bytes: usize, reply: oneshot::Sender<SignResult> },
    Call { call: Call, slow: bool, reply: oneshot::Sender<Result<Answer, HsmError>> },
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

/// Jobs that no worker has yet. Calls go before messages to sign: they are short, and batches wait
/// for their MACs.
#[derive(Default)]
pub(super) struct Waiting {
    calls: VecDeque<Job>,
    signs: VecDeque<Job>,
}

impl Waiting {
    pub(super) fn push(&mut self, job: Job) {
        match job.task {
            Task::Sign { .. } => self.signs.push_back(job),
            Task::Call { .. } => self.calls.push_back(job),
        }
    }

    /// When the job that waits longest began to.
    pub(super) fn oldest(&self) -> Option<Instant> {
        [self.calls.front(), self.signs.front()].into_iter().flatten().map(|job| job.queued).min()
    }

    /// Fails every job.
    pub(super) fn fail(&mut self, error: &HsmError) {
        for job in self.calls.drain(..).chain(self.signs.drain(..)) {
            job.task.fail(error.clone());
        }
    }

    /// Fails the jobs that have waited for `limit`.
    pub(super) fn expire(&mut self, limit: Duration) {
        let now = Instant::now();
        for queue in [&mut self.calls, &mut self.signs] {
            while queue.front().is_some_and(|job| job.queued + limit <= now) {
                if let Some(job) = queue.pop_front() {
                    let text = "no worker came up for this call in time";
                    job.task.fail(HsmError::new(Reason::HsmUnavailable, text));
                }
            }
        }
    }
}

/// A request that the worker has not answered in full.
enum Sent {
    Sign { results: Vec<Option<Result<Bytes, HsmError>>>, left: usize, reply: oneshot::Sender<SignResult> },
    Call { slow: bool, reply: oneshot::Sender<Result<Answer, HsmError>> },
}

/// What one worker is working on.
pub(super) struct Flight {
    sent: HashMap<u64, (Sent, Vec<OwnedSemaphorePermit>)>,
    items: usize,
    slow: usize,
    next_id: u64,
    /// The last answer, or the first request after a time of rest.
    progress: Instant,
}

impl Flight {
    pub(super) fn new() -> Flight {
        Flight { sent: HashMap::new(), items: 0, slow: 0, next_id: 3, progress: Instant::now() }
    }

    /// Moves jobs from the backlog into requests, as far as window and frame allow.
    pub(super) fn fill(&mut self, waiting: &mut Waiting) -> Vec<Request> {
        let calls = std::mem::take(&mut waiting.calls);
        let mut requests: Vec<Request> = calls.into_iter().map(|job| self.take(job)).collect();
        let mut bytes = 0;
        while let Some(job) = waiting.signs.front() {
            if let Task::Sign { items, bytes: more, reply } = &job.task {
                if reply.is_closed() {
                    // Nobody waits for it any more; nothing was signed.
                    waiting.signs.pop_front();
                    continue;
                }
                let room = self.items + items.len() <= WINDOW_ITEMS || self.items == 0;
                if !room || (bytes > 0 && bytes + more > FRAME_MESSAGE_BYTES) {
                    break;
                }
                bytes += more;
            }
            let Some(job) = waiting.signs.pop_front() else {
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
                (Call::Sign(items), Sent::Sign { results: vec![None; left], left, reply })
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
    pub(super) fn answer(&mut self, reply: Reply) -> Result<(), Halt> {
        self.progress = Instant::now();
        let nonsense = || Halt::replace(HsmError::new(Reason::Protocol, "an answer to no request"));
        match reply.answer {
            Answer::Exiting { error, latched } => return Err(Halt { error, latched }),
            Answer::Signed { first, results: signed } => {
                let Some((Sent::Sign { results, left, .. }, _)) = self.sent.get_mut(&reply.id) else {
                    return Err(nonsense());
                };
                let first = usize::try_from(first).unwrap_or(usize::MAX);
                for (index, result) in (first..).zip(signed) {
                    match results.get_mut(index) {
                        Some(entry @ None) => *entry = Some(result.map(|blob| blob.0)),
                        _ => return Err(nonsense()),
                    }
                    *left -= 1;
                    self.items -= 1;
                }
                if *left == 0
                    && let Some((Sent::Sign { results, reply, .. }, _)) = self.sent.remove(&reply.id)
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
    pub(super) fn deadline(&self, config: &TokenConfig) -> Option<Instant> {
        let limit = if self.slow > 0 { config.slow_deadline() } else { config.call_deadline };
        (!self.sent.is_empty()).then(|| self.progress + limit + GRACE)
    }

    pub(super) fn fail(self, error: &HsmError) {
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
