//! The store of one machine: SQLite, one writer thread, readers of their own.
//!
//! - [`schema`]: tables, settings, versions.
//! - `writer`: the writer thread; steps of several trails share a transaction and its fsync.
//! - [`reader`]: reads, each in a short transaction.
//! - `statements`: the SQL of one step.
//! - [`reserve`]: room for what is in flight when the disk is full.

pub mod reader;
pub mod reserve;
pub mod schema;
mod statements;
mod writer;

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use countersign_trail::hash::Hash;
use tokio::sync::oneshot;

use super::{Append, AppendError, Store, TrailNo};
use reader::Reader;
use schema::SchemaError;
use writer::{Alone, Command, Writer};

/// The database's file name in the data folder.
pub const FILE_NAME: &str = "store.db";

/// A handle on the store; clones share the writer thread and the readers.
#[derive(Clone, Debug)]
pub struct SqliteStore {
    writer: Arc<Writer>,
    reader: Reader,
}

impl SqliteStore {
    /// Makes a new store in `data_dir`.
    pub fn create(data_dir: &Path) -> Result<SqliteStore, SchemaError> {
        let path = data_dir.join(FILE_NAME);
        Self::over(&path, schema::create(&path)?)
    }

    /// Opens the store in `data_dir`.
    pub fn open(data_dir: &Path) -> Result<SqliteStore, SchemaError> {
        let path = data_dir.join(FILE_NAME);
        Self::over(&path, schema::open(&path)?)
    }

    fn over(path: &Path, connection: rusqlite::Connection) -> Result<SqliteStore, SchemaError> {
        let reader = Reader::new(path.to_owned());
        Ok(SqliteStore { writer: Arc::new(Writer::start(connection, path)?), reader })
    }

    /// The reading side.
    pub fn reader(&self) -> &Reader {
        &self.reader
    }

    /// Adds a trail's row; used by `init` alone.
    pub async fn add_trail(&self, row: super::TrailRow) -> Result<(), AppendError> {
        self.call(|reply| Command::Alone(Alone::AddTrail(row, reply))).await
    }

    async fn call<T>(&self, command: impl FnOnce(writer::Reply<T>) -> Command) -> Result<T, AppendError> {
        let (reply, answer) = oneshot::channel();
        self.writer.send(command(reply))?;
        // The writer drops a reply only when it stops, after a failure that makes the outcome unknown.
        answer.await.unwrap_or_else(|_| Err(AppendError::Unknown("the writer stopped".to_owned())))
    }
}

impl Store for SqliteStore {
    async fn append(&self, step: Append) -> Result<(), AppendError> {
        self.call(|reply| Command::Append(Box::new(step), reply)).await
    }

    async fn latch(&self, trail: TrailNo, reason: String) -> Result<(), AppendError> {
        self.call(|reply| Command::Alone(Alone::Latch(trail, reason, reply))).await
    }

    async fn put_document(&self, document: Bytes) -> Result<Hash, AppendError> {
        self.call(|reply| Command::Alone(Alone::Document(document, reply))).await
    }

    async fn next_statement<F>(&self, kid: String, above: u64, payload: F) -> Result<(u64, Bytes), AppendError>
    where
        F: FnOnce(u64) -> Bytes + Send + 'static,
    {
        self.call(|reply| Command::Alone(Alone::Statement(kid, above, Box::new(payload), reply))).await
    }
}

/// Copies the database into `to` while it is in use (SQLite's online backup), and gives what `look` reads
/// of the copied moment. The copy is one file.
pub fn backup<T>(
    data_dir: &Path,
    to: &Path,
    look: impl FnOnce(&rusqlite::Connection) -> Result<T, SchemaError>,
) -> Result<T, SchemaError> {
    let target = to.join(FILE_NAME);
    if target.exists() {
        return Err(SchemaError::Exists(target.display().to_string()));
    }
    let from = schema::open_read_only(&data_dir.join(FILE_NAME))?;
    // One read transaction over the whole copy: without it every commit of the daemon would begin
    // the copy anew, and on a busy store it would never end. Writers are not held up.
    let moment = from.unchecked_transaction()?;
    let seen = look(&moment)?;
    let mut copy = rusqlite::Connection::open(&target)?;
    rusqlite::backup::Backup::new(&from, &mut copy)?.run_to_completion(256, std::time::Duration::ZERO, None)?;
    drop(copy);
    drop(moment);
    let synced =
        std::fs::File::open(&target).and_then(|file| file.sync_all()).and_then(|()| super::files::sync_dir(to));
    synced.map_err(|error| SchemaError::Setting(format!("cannot sync {}: {error}", target.display())))?;
    Ok(seen)
}
