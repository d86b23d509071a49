//! The writer thread: the only one that changes the database.

use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::Duration;

use bytes::Bytes;
use countersign_trail::hash::Hash;
use rusqlite::{Connection, ErrorCode};
use tokio::sync::oneshot;

use super::reserve::{LogMoves, RESERVE_NAME, Reserve};
use super::schema::{self, SchemaError};
use super::statements::{self, Clients, StepError};
use crate::store::{Append, AppendError, TrailNo, TrailRow};

/// The answer to one command.
pub(super) type Reply<T> = oneshot::Sender<Result<T, AppendError>>;
/// Makes a statement's payload from its number.
pub(super) type MakePayload = Box<dyn FnOnce(u64) -> Bytes + Send>;

/// What the writer is asked to do.
pub(super) enum Command {
    /// Shares a transaction with others of its kind.
    Append(Box<Append>, Reply<()>),
    /// Has a transaction of its own.
    Alone(Alone),
}

/// What has a transaction of its own.
pub(super) enum Alone {
    Latch(TrailNo, String, Reply<()>),
    Document(Bytes, Reply<Hash>),
    Statement(String, u64, MakePayload, Reply<(u64, Bytes)>),
    AddTrail(TrailRow, Reply<()>),
}

/// Commands that wait for the writer: one from each of 65 trails, and room for the others.
const QUEUE: usize = 256;
/// Steps that share one transaction, and so one fsync.
const MAX_STEPS: usize = 128;
/// The write-ahead log is moved into the file when it is longer, in bytes.
const WAL_BYTES: u64 = 64 << 20;
/// How often the log's length is looked at.
const WAL_EVERY: Duration = Duration::from_millis(250);
/// The pause after a move that failed.
const WAL_AGAIN: Duration = Duration::from_secs(5);

/// The writer thread's handle.
#[derive(Debug)]
pub(super) struct Writer {
    queue: SyncSender<Command>,
}

impl Writer {
    pub(super) fn start(connection: Connection, path: &Path) -> Result<Writer, SchemaError> {
        let (queue, commands) = sync_channel(QUEUE);
        let spawn = |name: &str, work: Box<dyn FnOnce() + Send>| {
            let spawned = std::thread::Builder::new().name(name.to_owned()).spawn(work);
            spawned.map_err(|error| SchemaError::Setting(format!("cannot start thread {name}: {error}")))
        };
        let trails: i64 = connection.query_row("SELECT count(*) FROM trails", [], |row| row.get(0))?;
        let data_dir = path.parent().unwrap_or(Path::new("."));
        let reserve = Reserve::open(data_dir, trails.unsigned_abs());
        let reserve = reserve.map_err(|error| SchemaError::Reserve(RESERVE_NAME.to_owned(), error))?;
        let moves = reserve.log_moves();
        let (stop, stopped) = sync_channel::<()>(0);
        let path = path.to_owned();
        spawn("store-wal", Box::new(move || move_log(&path, &moves, &stopped)))?;
        spawn(
            "store-writer",
            Box::new(move || {
                Engine { connection, clients: Clients::default(), reserve }.run(&commands);
                drop(stop);
            }),
        )?;
        Ok(Writer { queue })
    }

    pub(super) fn send(&self, command: Command) -> Result<(), AppendError> {
        self.queue
            .try_send(command)
            .map_err(|error| AppendError::NotStored(format!("the writer takes no more: {error}")))
    }
}

/// Moves the write-ahead log into the file, on a connection of its own, so that commits do not wait.
fn move_log(path: &Path, moves: &LogMoves, stopped: &Receiver<()>) {
    let log = PathBuf::from(format!("{}-wal", path.display()));
    let connection = match schema::open(path) {
        Ok(connection) => connection,
        Err(error) => return tracing::error!(%error, "the write-ahead log will not be moved"),
    };
    let mut pause = WAL_EVERY;
    while stopped.recv_timeout(pause) == Err(RecvTimeoutError::Timeout) {
        pause = WAL_EVERY;
        let allowed = moves.allowed();
        if *allowed && std::fs::metadata(&log).is_ok_and(|file| file.len() > WAL_BYTES) {
            // A passive move never makes the writer wait; the writer starts the log anew when all is moved.
            if let Err(error) = connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(())) {
                tracing::warn!(%error, "moving the write-ahead log failed; it is tried again");
                pause = WAL_AGAIN;
            }
        }
    }
}

type Step = (Box<Append>, Reply<()>);

/// What the thread owns.
struct Engine {
    connection: Connection,
    clients: Clients,
    reserve: Reserve,
}

impl Engine {
    /// The thread's life: ends when every handle is gone, or when a commit's outcome is unknown.
    fn run(mut self, commands: &Receiver<Command>) {
        loop {
            let first = match self.reserve.patience() {
                None => commands.recv().map_err(|_| RecvTimeoutError::Disconnected),
                Some(patience) => commands.recv_timeout(patience),
            };
            self.reserve.tend();
            let mut next = match first {
                Ok(first) => Some(first),
                Err(RecvTimeoutError::Timeout) => continue,
                Err(RecvTimeoutError::Disconnected) => return,
            };
            let mut steps = Vec::new();
            while let Some(command) = next.take() {
                match command {
                    Command::Append(step, reply) => steps.push((step, reply)),
                    Command::Alone(alone) => {
                        if !self.flush(&mut steps) || !self.single(alone) {
                            return;
                        }
                    }
                }
                if steps.len() < MAX_STEPS {
                    next = commands.try_recv().ok();
                }
            }
            if !self.flush(&mut steps) {
                return;
            }
        }
    }

    /// Commits the gathered steps in one transaction. False: the outcome is unknown, stop.
    fn flush(&mut self, steps: &mut Vec<Step>) -> bool {
        if steps.is_empty() {
            return true;
        }
        let mut results = Vec::with_capacity(steps.len());
        let (clients, lacking) = (&mut self.clients, self.reserve.refusal());
        let work = |connection: &Connection| {
            results.clear();
            for (step, _) in steps.iter() {
                let result = match (&lacking, statements::check(connection, step)) {
                    (_, Err(StepError::Refused(error))) => Err(error),
                    (_, Err(StepError::Engine(error))) => return Err(error),
                    (Some(full), Ok(())) if step.intent.is_some() => Err(full.clone()),
                    (_, Ok(())) => statements::apply(connection, clients, step).map(Ok)?,
                };
                results.push(result);
            }
            Ok(())
        };
        let ends = matches!(&steps[..], [(step, _)] if step.intent.is_none());
        let reserve = ends.then_some(&mut self.reserve);
        match transaction(&mut self.connection, reserve, work) {
            Ok(()) => {
                for ((_, reply), result) in steps.drain(..).zip(results) {
                    let _ = reply.send(result);
                }
                true
            }
            // One step too large for the room left must not take the others with it.
            Err(AppendError::Full(_) | AppendError::NotStored(_)) if steps.len() > 1 => {
                self.clients.forget();
                let alone: Vec<Step> = std::mem::take(steps);
                alone.into_iter().all(|step| self.flush(&mut vec![step]))
            }
            Err(error) => {
                self.clients.forget();
                let unknown = matches!(error, AppendError::Unknown(_));
                for (_, reply) in steps.drain(..) {
                    let _ = reply.send(Err(error.clone()));
                }
                !unknown
            }
        }
    }

    /// Does what has a transaction of its own. False: the outcome is unknown, stop.
    fn single(&mut self, command: Alone) -> bool {
        let (connection, reserve) = (&mut self.connection, &mut self.reserve);
        match (command, reserve.refusal()) {
            (Alone::Latch(trail, reason, reply), _) => {
                answer(reply, transaction(connection, Some(reserve), |c| statements::latch(c, trail, &reason)))
            }
            (Alone::Document(_, reply), Some(full)) => answer(reply, Err(full)),
            (Alone::Statement(_, _, _, reply), Some(full)) => answer(reply, Err(full)),
            (Alone::AddTrail(_, reply), Some(full)) => answer(reply, Err(full)),
            (Alone::Document(bytes, reply), None) => {
                answer(reply, transaction(connection, None, |c| statements::put_document(c, &bytes)))
            }
            (Alone::Statement(kid, above, make, reply), None) => {
                let mut make = Some(make);
                let result = transaction(connection, None, |c| {
                    let number = statements::next_number(c, &kid, above)?;
                    let payload = make.take().map(|make| make(number)).unwrap_or_default();
                    statements::put_statement(c, &kid, number, &payload)?;
                    Ok((number, payload))
                });
                answer(reply, result)
            }
            (Alone::AddTrail(row, reply), None) => {
                let added = transaction(connection, None, |c| statements::add_trail(c, &row));
                if added.is_ok() {
                    reserve.add_trail();
                }
                answer(reply, added)
            }
        }
    }
}

/// Sends an answer. False: the outcome is unknown, stop.
fn answer<T>(reply: Reply<T>, result: Result<T, AppendError>) -> bool {
    let known = !matches!(result, Err(AppendError::Unknown(_)));
    let _ = reply.send(result);
    known
}

/// Runs `work` in one transaction and commits it; durable on `Ok`. Where that lacks room, it is tried
/// again with room from `reserve`, for as long as that has any.
fn transaction<T>(
    connection: &mut Connection,
    mut reserve: Option<&mut Reserve>,
    mut work: impl FnMut(&Connection) -> rusqlite::Result<T>,
) -> Result<T, AppendError> {
    loop {
        match attempt(connection, &mut work) {
            Err(AppendError::Full(_)) if reserve.as_mut().is_some_and(|reserve| reserve.give_up()) => {}
            result => return result,
        }
    }
}

fn attempt<T>(
    connection: &mut Connection,
    work: impl FnOnce(&Connection) -> rusqlite::Result<T>,
) -> Result<T, AppendError> {
    let opened = connection.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate);
    let transaction = opened.map_err(|error| not_stored(&error))?;
    // Dropped without a commit, the transaction is rolled back.
    let value = work(&transaction).map_err(|error| not_stored(&error))?;
    transaction.commit().map_err(|error| match error.sqlite_error_code() {
        // Room is asked for before the log is synced: nothing was made durable.
        Some(ErrorCode::DiskFull) => AppendError::Full(error.to_string()),
        // After a failed write or fsync nobody knows what the disk holds.
        _ => AppendError::Unknown(error.to_string()),
    })?;
    Ok(value)
}

fn not_stored(error: &rusqlite::Error) -> AppendError {
    match error.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => AppendError::Full(error.to_string()),
        _ => AppendError::NotStored(error.to_string()),
    }
}
