//! The writer thread: the only one that changes the database.

use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;

use bytes::Bytes;
use countersign_trail::hash::Hash;
use rusqlite::{Connection, ErrorCode};
use tokio::sync::oneshot;

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
    Statement(String, MakePayload, Reply<(u64, Bytes)>),
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
        let (stop, stopped) = sync_channel::<()>(0);
        let path = path.to_owned();
        spawn("store-wal", Box::new(move || move_log(&path, &stopped)))?;
        spawn(
            "store-writer",
            Box::new(move || {
                run(connection, &commands);
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
fn move_log(path: &Path, stopped: &Receiver<()>) {
    let log = PathBuf::from(format!("{}-wal", path.display()));
    let connection = match schema::open(path) {
        Ok(connection) => connection,
        Err(error) => return tracing::error!(%error, "the write-ahead log will not be moved"),
    };
    while stopped.recv_timeout(WAL_EVERY) == Err(std::sync::mpsc::RecvTimeoutError::Timeout) {
        if std::fs::metadata(&log).is_ok_and(|file| file.len() > WAL_BYTES) {
            // A passive move never makes the writer wait; the writer starts the log anew when all is moved.
            if let Err(error) = connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(())) {
                tracing::warn!(%error, "moving the write-ahead log failed; it is tried again");
            }
        }
    }
}

/// The thread's life: ends when every handle is gone, or when a commit's outcome is unknown.
fn run(mut connection: Connection, commands: &Receiver<Command>) {
    let mut clients = Clients::default();
    while let Ok(first) = commands.recv() {
        let mut steps = Vec::new();
        let mut next = Some(first);
        while let Some(command) = next.take() {
            match command {
                Command::Append(step, reply) => steps.push((step, reply)),
                Command::Alone(alone) => {
                    if !flush(&mut connection, &mut clients, &mut steps) || !single(&mut connection, alone) {
                        return;
                    }
                }
            }
            if steps.len() < MAX_STEPS {
                next = commands.try_recv().ok();
            }
        }
        if !flush(&mut connection, &mut clients, &mut steps) {
            return;
        }
    }
}

type Step = (Box<Append>, Reply<()>);

/// Commits the gathered steps in one transaction. False: the outcome is unknown, stop.
fn flush(connection: &mut Connection, clients: &mut Clients, steps: &mut Vec<Step>) -> bool {
    if steps.is_empty() {
        return true;
    }
    let mut results = Vec::with_capacity(steps.len());
    let committed = transaction(connection, |connection| {
        results.clear();
        for (step, _) in steps.iter() {
            let result = match statements::check(connection, step) {
                Ok(()) => statements::apply(connection, clients, step).map(Ok)?,
                Err(StepError::Refused(error)) => Err(error),
                Err(StepError::Engine(error)) => return Err(error),
            };
            results.push(result);
        }
        Ok(())
    });
    match committed {
        Ok(()) => {
            for ((_, reply), result) in steps.drain(..).zip(results) {
                let _ = reply.send(result);
            }
            true
        }
        // One step too large for the room left must not take the others with it.
        Err(AppendError::Full(_) | AppendError::NotStored(_)) if steps.len() > 1 => {
            clients.forget();
            let alone: Vec<Step> = std::mem::take(steps);
            alone.into_iter().all(|step| flush(connection, clients, &mut vec![step]))
        }
        Err(error) => {
            clients.forget();
            let unknown = matches!(error, AppendError::Unknown(_));
            for (_, reply) in steps.drain(..) {
                let _ = reply.send(Err(error.clone()));
            }
            !unknown
        }
    }
}

fn single(connection: &mut Connection, command: Alone) -> bool {
    fn answer<T>(reply: Reply<T>, result: Result<T, AppendError>) -> bool {
        let known = !matches!(result, Err(AppendError::Unknown(_)));
        let _ = reply.send(result);
        known
    }
    match command {
        Alone::Latch(trail, reason, reply) => {
            answer(reply, transaction(connection, |c| statements::latch(c, trail, &reason)))
        }
        Alone::Document(bytes, reply) => {
            answer(reply, transaction(connection, |c| statements::put_document(c, &bytes)))
        }
        Alone::Statement(kid, make, reply) => {
            let mut make = Some(make);
            let result = transaction(connection, |c| {
                let number = statements::next_number(c, &kid)?;
                let payload = make.take().map(|make| make(number)).unwrap_or_default();
                statements::put_statement(c, &kid, number, &payload)?;
                Ok((number, payload))
            });
            answer(reply, result)
        }
        Alone::AddTrail(row, reply) => answer(reply, transaction(connection, |c| statements::add_trail(c, &row))),
    }
}

/// Runs `work` in one transaction and commits it; durable on `Ok`.
fn transaction<T>(
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
