//! A store that fails as it is told.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use countersign_trail::hash::Hash;
use tokio::sync::{Semaphore, watch};

use super::bench::in_time;
use crate::store::sqlite::SqliteStore;
use crate::store::{Append, AppendError, Store, TrailNo};

/// How often a step fails that fails.
pub(super) const FAILURES: usize = 2;

/// What happens to a step before it may succeed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Fault {
    /// Nothing.
    None,
    /// Not persisted, and known not to be.
    NotStored,
    /// Not persisted: there is no room.
    Full,
    /// There is no room for an outcome with an intent, and there is for either alone.
    FullTogether,
    /// There is no room for an outcome.
    FullAtTheEnd,
    /// Not persisted, and nobody knows.
    Lost,
    /// Persisted, and nobody knows.
    Persisted,
}

/// A step as the store saw it: first sequence number of outcome and intent, size of the checkpoint.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Seen {
    pub(super) outcome: Option<u64>,
    pub(super) intent: Option<u64>,
    pub(super) checkpoint: Option<u64>,
}

/// A store that fails each step [`FAILURES`] times, in one way; a step that was persisted does not
/// come again.
#[derive(Clone)]
pub(super) struct Told {
    pub(super) store: SqliteStore,
    pub(super) fault: Fault,
    /// Every step that came, and whether it was failed.
    pub(super) seen: watch::Sender<Vec<(Seen, bool)>>,
    held: Arc<AtomicBool>,
    gate: Arc<Semaphore>,
}

impl Told {
    pub(super) fn new(store: SqliteStore, fault: Fault) -> Told {
        Told { store, fault, seen: watch::Sender::default(), held: Arc::default(), gate: Arc::new(Semaphore::new(0)) }
    }

    /// From now on a step waits for [`Told::let_go`].
    pub(super) fn hold(&self) {
        self.held.store(true, Ordering::SeqCst);
    }

    pub(super) fn let_go(&self) {
        self.held.store(false, Ordering::SeqCst);
        self.let_one_go();
    }

    /// Lets one step go and holds the next ones.
    pub(super) fn let_one_go(&self) {
        self.gate.add_permits(1);
    }

    /// Waits until more than `count` steps have come.
    pub(super) async fn more_than(&self, count: usize) {
        let mut seen = self.seen.subscribe();
        drop(in_time("a step", seen.wait_for(|seen| seen.len() > count)).await.unwrap());
    }

    /// How many steps were failed.
    pub(super) fn failures(&self) -> usize {
        self.seen.borrow().iter().filter(|(_, failed)| *failed).count()
    }
}

impl Store for Told {
    async fn append(&self, step: Append) -> Result<(), AppendError> {
        let seen = Seen {
            outcome: step.outcome.as_ref().map(|outcome| outcome.first_seq),
            intent: step.intent.as_ref().map(|intent| intent.first_seq),
            checkpoint: step.checkpoint.as_ref().map(|note| note.size),
        };
        let text = format!("{seen:?}");
        let mut fails = match self.fault {
            Fault::None => false,
            Fault::FullTogether => seen.outcome.is_some() && seen.intent.is_some(),
            Fault::FullAtTheEnd => seen.outcome.is_some(),
            Fault::NotStored | Fault::Full | Fault::Lost | Fault::Persisted => true,
        };
        self.seen.send_modify(|all| {
            fails = fails && all.iter().filter(|(before, _)| *before == seen).count() < FAILURES;
            all.push((seen, fails));
        });
        if self.held.load(Ordering::SeqCst) {
            self.gate.acquire().await.unwrap().forget();
        }
        match self.fault {
            _ if !fails => self.store.append(step).await,
            Fault::None => self.store.append(step).await,
            Fault::NotStored => Err(AppendError::NotStored(text)),
            Fault::Full | Fault::FullTogether | Fault::FullAtTheEnd => Err(AppendError::Full(text)),
            Fault::Lost => Err(AppendError::Unknown(text)),
            Fault::Persisted => {
                self.store.append(step).await?;
                Err(AppendError::Unknown(text))
            }
        }
    }

    async fn latch(&self, trail: TrailNo, reason: String) -> Result<(), AppendError> {
        self.store.latch(trail, reason).await
    }

    async fn put_document(&self, document: Bytes) -> Result<Hash, AppendError> {
        self.store.put_document(document).await
    }

    async fn next_statement<F>(&self, kid: String, above: u64, payload: F) -> Result<(u64, Bytes), AppendError>
    where
        F: FnOnce(u64) -> Bytes + Send + 'static,
    {
        self.store.next_statement(kid, above, payload).await
    }
}
