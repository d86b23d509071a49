//! Tables, settings, and the check that a file is a store of this version.

use std::path::Path;

use countersign_trail::document::MAX_TRAILS;
use rusqlite::{Connection, OpenFlags, OptionalExtension};

use crate::store::{SCHEMA_VERSION, TrailNo};

/// Marks the file as ours ("CSGN").
const APPLICATION_ID: i64 = 0x4353_474e;
/// Earlier versions can corrupt a file on a WAL reset with two connections.
const MIN_SQLITE: i32 = 3_051_003;
/// Bits of a sequence number in a row id: 2^40 records a trail.
const SEQ_BITS: u32 = 40;
/// Bits of a part's ordinal in a row id: [`countersign_trail::part::MAX_PARTS`].
const PART_BITS: u32 = 4;
/// Bits of a node's level in a row id.
const LEVEL_BITS: u32 = 3;

const _: () = assert!(MAX_TRAILS < (1 << (63 - SEQ_BITS - PART_BITS)));
const _: () = assert!(countersign_trail::part::MAX_PARTS <= 1 << PART_BITS);

/// Sequence numbers that fit a row id.
pub const MAX_SEQ: u64 = (1 << SEQ_BITS) - 1;

const TABLES: &str = "
CREATE TABLE meta(key TEXT PRIMARY KEY, value BLOB NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE trails(
    no INTEGER PRIMARY KEY, origin TEXT NOT NULL UNIQUE,
    size INTEGER NOT NULL, leaf BLOB NOT NULL, time INTEGER NOT NULL,
    signed INTEGER NOT NULL, latched TEXT) STRICT;
CREATE TABLE clients(no INTEGER PRIMARY KEY, member TEXT NOT NULL UNIQUE) STRICT;
-- id: trail and seq. Rows are appended, never changed.
CREATE TABLE records(id INTEGER PRIMARY KEY, leaf BLOB NOT NULL, time INTEGER NOT NULL, bytes BLOB NOT NULL) STRICT;
CREATE TABLE signatures(id INTEGER PRIMARY KEY, signature BLOB NOT NULL) STRICT;
-- id: trail, seq and ordinal. salt and data are null when the client kept them.
CREATE TABLE parts(
    id INTEGER PRIMARY KEY, name TEXT NOT NULL, media_type TEXT NOT NULL, salt BLOB, data BLOB) STRICT;
CREATE TABLE events(
    trail INTEGER NOT NULL, client INTEGER NOT NULL, event_id TEXT NOT NULL, seq INTEGER NOT NULL,
    PRIMARY KEY(trail, client, event_id)) STRICT, WITHOUT ROWID;
CREATE TABLE requests(
    trail INTEGER NOT NULL, request_id TEXT NOT NULL, seq INTEGER NOT NULL,
    PRIMARY KEY(trail, request_id, seq)) STRICT, WITHOUT ROWID;
-- id: trail, level n and index: the complete subtree of 256^n leaves.
CREATE TABLE nodes(id INTEGER PRIMARY KEY, hash BLOB NOT NULL) STRICT;
CREATE TABLE checkpoints(
    trail INTEGER NOT NULL, size INTEGER NOT NULL, note BLOB NOT NULL, PRIMARY KEY(trail, size)) STRICT, WITHOUT ROWID;
CREATE TABLE intents(
    trail INTEGER PRIMARY KEY, first INTEGER NOT NULL, count INTEGER NOT NULL,
    prev_leaf BLOB NOT NULL, prev_time INTEGER NOT NULL, text TEXT, mac BLOB NOT NULL) STRICT;
CREATE TABLE documents(hash BLOB PRIMARY KEY, bytes BLOB NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE statements(
    kid TEXT NOT NULL, number INTEGER NOT NULL, payload BLOB NOT NULL, PRIMARY KEY(kid, number)) STRICT, WITHOUT ROWID;
";

/// Why a file is not a store that this daemon can use.
#[derive(Debug, thiserror::Error)]
pub enum SchemaError {
    /// `init` has not made it, or the path is wrong.
    #[error("{0} does not exist: run `countersignd init` first, or check data_dir")]
    Missing(String),
    /// `init` must not overwrite it.
    #[error("{0} exists: a second genesis on a used folder is refused")]
    Exists(String),
    /// Another program's file.
    #[error("{0} is not a Countersign store (application id {1:#x})")]
    Foreign(String, i64),
    /// Another version's file.
    #[error(
        "{path} has schema version {found}, this daemon writes {SCHEMA_VERSION}: use the daemon that wrote it, or upgrade it"
    )]
    Version {
        /// The file.
        path: String,
        /// Its version.
        found: i64,
    },
    /// The library is too old, or a setting did not take.
    #[error("SQLite: {0}")]
    Setting(String),
    /// No room can be set aside for what is in flight when the disk is full.
    #[error("{0} cannot be made: {1}")]
    Reserve(String, std::io::Error),
    /// The engine failed.
    #[error("SQLite: {0}")]
    Engine(#[from] rusqlite::Error),
}

/// Makes a new store.
pub fn create(path: &Path) -> Result<Connection, SchemaError> {
    if path.exists() {
        return Err(SchemaError::Exists(path.display().to_string()));
    }
    let connection = Connection::open(path)?;
    connection.pragma_update(None, "page_size", 16_384)?;
    connection.pragma_update(None, "application_id", APPLICATION_ID)?;
    settings(&connection)?;
    connection.execute_batch(TABLES)?;
    connection.pragma_update(None, "user_version", SCHEMA_VERSION)?;
    Ok(connection)
}

/// Opens an existing store for writing.
pub fn open(path: &Path) -> Result<Connection, SchemaError> {
    let connection = open_with(path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    settings(&connection)?;
    Ok(connection)
}

/// Opens an existing store for reading.
pub fn open_read_only(path: &Path) -> Result<Connection, SchemaError> {
    let connection = open_with(path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    connection.pragma_update(None, "query_only", true)?;
    connection.pragma_update(None, "mmap_size", 1_i64 << 30)?;
    Ok(connection)
}

fn open_with(path: &Path, access: OpenFlags) -> Result<Connection, SchemaError> {
    let name = path.display().to_string();
    if !path.exists() {
        return Err(SchemaError::Missing(name));
    }
    let connection = Connection::open_with_flags(path, access | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    let pragma = |key: &str| connection.pragma_query_value(None, key, |row| row.get::<_, i64>(0));
    let application = pragma("application_id")?;
    if application != APPLICATION_ID {
        return Err(SchemaError::Foreign(name, application));
    }
    let found = pragma("user_version")?;
    if found != SCHEMA_VERSION {
        return Err(SchemaError::Version { path: name, found });
    }
    connection.busy_timeout(std::time::Duration::from_secs(10))?;
    connection.set_prepared_statement_cache_capacity(64);
    Ok(connection)
}

/// Sets what durability rests on, and reads it back.
fn settings(connection: &Connection) -> Result<(), SchemaError> {
    if rusqlite::version_number() < MIN_SQLITE {
        return Err(SchemaError::Setting(format!("version {} is older than 3.51.3", rusqlite::version())));
    }
    let mode: String = connection.query_row("PRAGMA journal_mode = WAL", [], |row| row.get(0))?;
    if mode != "wal" {
        return Err(SchemaError::Setting(format!("journal_mode is {mode}, not wal")));
    }
    connection.pragma_update(None, "synchronous", "FULL")?;
    // Erased parts must not linger in free pages.
    connection.query_row("PRAGMA secure_delete = ON", [], |_| Ok(()))?;
    // A thread of its own moves the log into the file.
    connection.query_row("PRAGMA wal_autocheckpoint = 0", [], |_| Ok(()))?;
    connection.pragma_update(None, "cache_size", -65_536)?;
    connection.set_prepared_statement_cache_capacity(64);
    for (key, want) in [("synchronous", 2), ("secure_delete", 1), ("page_size", 16_384)] {
        let found: i64 = connection.pragma_query_value(None, key, |row| row.get(0))?;
        if found != want {
            return Err(SchemaError::Setting(format!("{key} is {found}, not {want}")));
        }
    }
    Ok(())
}

/// Reads a meta value.
pub fn meta(connection: &Connection, key: &str) -> rusqlite::Result<Option<Vec<u8>>> {
    connection.query_row("SELECT value FROM meta WHERE key = ?1", [key], |row| row.get(0)).optional()
}

/// Row id of a record.
pub fn record_id(trail: TrailNo, seq: u64) -> i64 {
    (i64::from(trail) << SEQ_BITS) | seq as i64
}

/// Sequence number of a record's row id.
pub fn seq_of(id: i64) -> u64 {
    id as u64 & MAX_SEQ
}

/// Row id of a record's part.
pub fn part_id(trail: TrailNo, seq: u64, ordinal: usize) -> i64 {
    (record_id(trail, seq) << PART_BITS) | ordinal as i64
}

/// Row id of a node.
pub fn node_id(trail: TrailNo, level: u8, index: u64) -> i64 {
    (((i64::from(trail) << LEVEL_BITS) | i64::from(level)) << SEQ_BITS) | index as i64
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a power cut and an erased part rest on.
    #[test]
    fn a_new_store_has_the_settings_of_a_durable_one() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("store.db");
        let created = create(&path).unwrap();
        let opened = open(&path).unwrap();
        for connection in [&created, &opened] {
            let mode: String = connection.pragma_query_value(None, "journal_mode", |row| row.get(0)).unwrap();
            assert_eq!(mode, "wal");
            const FULL: i64 = 2;
            let settings = [("synchronous", FULL), ("secure_delete", 1), ("page_size", 16_384)];
            for (key, want) in settings.into_iter().chain([("wal_autocheckpoint", 0)]) {
                let found: i64 = connection.pragma_query_value(None, key, |row| row.get(0)).unwrap();
                assert_eq!(found, want, "{key}");
            }
        }
        let mut tables = opened.prepare("SELECT name, strict FROM pragma_table_list WHERE schema = 'main'").unwrap();
        let tables = tables.query_map([], |row| Ok((row.get::<_, String>(0)?, row.get::<_, bool>(1)?))).unwrap();
        let tables: Vec<(String, bool)> = tables.map(Result::unwrap).collect();
        let ours: Vec<_> = tables.iter().filter(|(name, _)| !name.starts_with("sqlite_")).collect();
        assert_eq!(ours.len(), TABLES.matches("CREATE TABLE").count(), "{tables:?}");
        assert!(ours.iter().all(|(_, strict)| *strict), "{tables:?}");
    }
}
