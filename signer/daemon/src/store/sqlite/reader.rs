//! Reads: each on a pooled read-only connection, in one short transaction, off the async threads.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use countersign_trail::hash::Hash;
use countersign_trail::id::{EventId, MemberId, PartName};
use countersign_trail::keys::Kid;
use countersign_trail::origin::Origin;
use countersign_trail::time::Timestamp;
use rusqlite::{Connection, OptionalExtension, Row, params};

use super::schema::{self, part_id, record_id, seq_of};
use crate::store::{Head, OpenIntent, ReadError, SignedNote, StoredPart, StoredRecord, TrailNo, TrailRow};

/// Idle connections that are kept.
const KEPT: usize = 8;

/// A pool of read-only connections.
#[derive(Clone, Debug)]
pub struct Reader {
    path: Arc<PathBuf>,
    idle: Arc<Mutex<Vec<Connection>>>,
}

/// One read transaction: every query in it sees the same state.
#[derive(Debug)]
pub struct Snapshot<'c> {
    connection: &'c Connection,
}

impl Reader {
    pub(super) fn new(path: PathBuf) -> Reader {
        Reader { path: Arc::new(path), idle: Arc::default() }
    }

    /// Runs `work` on a snapshot, on this thread.
    pub fn read<T>(&self, work: impl FnOnce(&Snapshot<'_>) -> Result<T, ReadError>) -> Result<T, ReadError> {
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let mut connection = match idle {
            Some(connection) => connection,
            None => schema::open_read_only(&self.path).map_err(|error| ReadError::Engine(error.to_string()))?,
        };
        let transaction = connection.transaction().map_err(engine)?;
        let value = work(&Snapshot { connection: &transaction })?;
        transaction.finish().map_err(engine)?;
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < KEPT {
            idle.push(connection);
        }
        Ok(value)
    }

    /// Runs `work` on a snapshot, on a thread where it may block.
    pub async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Snapshot<'_>) -> Result<T, ReadError> + Send + 'static,
    ) -> Result<T, ReadError> {
        let reader = self.clone();
        let joined = tokio::task::spawn_blocking(move || reader.read(work)).await;
        joined.unwrap_or_else(|error| Err(ReadError::Engine(error.to_string())))
    }
}

fn engine(error: rusqlite::Error) -> ReadError {
    ReadError::Engine(error.to_string())
}

fn damaged(what: impl Into<String>, problem: impl ToString) -> ReadError {
    ReadError::Damaged { what: what.into(), problem: problem.to_string() }
}

fn time(micros: i64) -> Result<Timestamp, ReadError> {
    Timestamp::from_micros(micros).map_err(|error| damaged("a time", error))
}

fn record(row: &Row<'_>) -> rusqlite::Result<StoredRecord> {
    Ok(StoredRecord {
        seq: seq_of(row.get(0)?),
        leaf: Hash::from(row.get::<_, [u8; 32]>(1)?),
        bytes: Bytes::from(row.get::<_, Vec<u8>>(2)?),
        signature: row.get::<_, Option<Vec<u8>>>(3)?.map(Bytes::from),
    })
}

const RECORDS: &str = "SELECT r.id, r.leaf, r.bytes, s.signature FROM records r
    LEFT JOIN signatures s ON s.id = r.id WHERE r.id >= ?1 AND r.id < ?2 ORDER BY r.id";

impl Snapshot<'_> {
    /// Every trail.
    pub fn trails(&self) -> Result<Vec<TrailRow>, ReadError> {
        let sql = "SELECT no, origin, size, leaf, time, signed, latched FROM trails ORDER BY no";
        let mut query = self.connection.prepare_cached(sql).map_err(engine)?;
        let rows = query.query_map([], |row| {
            let head = (row.get::<_, i64>(2)?, row.get::<_, [u8; 32]>(3)?, row.get::<_, i64>(4)?);
            Ok((row.get(0)?, row.get::<_, String>(1)?, head, row.get::<_, i64>(5)?, row.get(6)?))
        });
        let mut trails = Vec::new();
        for row in rows.map_err(engine)? {
            let (no, origin, (size, leaf, micros), signed, latched) = row.map_err(engine)?;
            let origin = Origin::parse(&origin).map_err(|error| damaged("a trail's name", error))?;
            let head = Head { size: size as u64, leaf: Hash::from(leaf), time: time(micros)? };
            trails.push(TrailRow { no, origin, head, signed: signed as u64, latched });
        }
        Ok(trails)
    }

    /// Records with from <= seq < to, in order.
    pub fn records(&self, trail: TrailNo, from: u64, to: u64) -> Result<Vec<StoredRecord>, ReadError> {
        let mut query = self.connection.prepare_cached(RECORDS).map_err(engine)?;
        let rows = query.query_map([record_id(trail, from), record_id(trail, to)], record).map_err(engine)?;
        rows.collect::<Result<_, _>>().map_err(engine)
    }

    /// One record.
    pub fn record(&self, trail: TrailNo, seq: u64) -> Result<Option<StoredRecord>, ReadError> {
        Ok(self.records(trail, seq, seq + 1)?.pop())
    }

    /// Leaf hashes with from <= seq < to, in order.
    pub fn leaves(&self, trail: TrailNo, from: u64, to: u64) -> Result<Vec<Hash>, ReadError> {
        let sql = "SELECT leaf FROM records WHERE id >= ?1 AND id < ?2 ORDER BY id";
        let mut query = self.connection.prepare_cached(sql).map_err(engine)?;
        let rows = query.query_map([record_id(trail, from), record_id(trail, to)], |row| row.get::<_, [u8; 32]>(0));
        rows.map_err(engine)?.map(|row| row.map(Hash::from)).collect::<Result<_, _>>().map_err(engine)
    }

    /// Every document, in the order of its hash. For a store that holds the first ceremony's few.
    pub fn documents(&self) -> Result<Vec<Vec<u8>>, ReadError> {
        let mut query = self.connection.prepare_cached("SELECT bytes FROM documents ORDER BY hash").map_err(engine)?;
        let rows = query.query_map([], |row| row.get(0)).map_err(engine)?;
        rows.collect::<Result<_, _>>().map_err(engine)
    }

    /// The hash of a complete subtree of 256^level leaves, level from 1.
    pub fn node(&self, trail: TrailNo, level: u8, index: u64) -> Result<Option<Hash>, ReadError> {
        let mut query = self.connection.prepare_cached("SELECT hash FROM nodes WHERE id = ?1").map_err(engine)?;
        let hash = query.query_row([schema::node_id(trail, level, index)], |row| row.get::<_, [u8; 32]>(0)).optional();
        Ok(hash.map_err(engine)?.map(Hash::from))
    }

    /// The parts of one record, sorted by name.
    pub fn parts(&self, trail: TrailNo, seq: u64) -> Result<Vec<StoredPart>, ReadError> {
        let sql = "SELECT name, media_type, salt, data FROM parts WHERE id >= ?1 AND id < ?2 ORDER BY id";
        let mut query = self.connection.prepare_cached(sql).map_err(engine)?;
        let rows = query.query_map([part_id(trail, seq, 0), part_id(trail, seq + 1, 0)], |row| {
            let (salt, data): (Option<[u8; 32]>, Option<Vec<u8>>) = (row.get(2)?, row.get(3)?);
            Ok((row.get::<_, String>(0)?, row.get(1)?, salt.zip(data)))
        });
        let mut parts = Vec::new();
        for row in rows.map_err(engine)? {
            let (name, media_type, content) = row.map_err(engine)?;
            let name = PartName::parse(&name).map_err(|error| damaged(format!("a part of record {seq}"), error))?;
            parts.push(StoredPart { name, media_type, content: content.map(|(salt, data)| (salt, data.into())) });
        }
        Ok(parts)
    }

    /// The sequence number of a client's event.
    pub fn event(&self, trail: TrailNo, client: &MemberId, event_id: &EventId) -> Result<Option<u64>, ReadError> {
        let sql = "SELECT seq FROM events WHERE trail = ?1 AND client = (SELECT no FROM clients WHERE member = ?2) AND event_id = ?3";
        let mut query = self.connection.prepare_cached(sql).map_err(engine)?;
        let found = query.query_row(params![trail, client.as_str(), event_id.as_str()], |row| row.get::<_, i64>(0));
        Ok(found.optional().map_err(engine)?.map(|seq| seq as u64))
    }

    /// Sequence numbers of records with this request id, from `from` on, at most `limit`.
    pub fn request(&self, trail: TrailNo, request_id: &str, from: u64, limit: usize) -> Result<Vec<u64>, ReadError> {
        let sql = "SELECT seq FROM requests WHERE trail = ?1 AND request_id = ?2 AND seq >= ?3 ORDER BY seq LIMIT ?4";
        let mut query = self.connection.prepare_cached(sql).map_err(engine)?;
        let rows = query.query_map(params![trail, request_id, from as i64, limit as i64], |row| row.get::<_, i64>(0));
        rows.map_err(engine)?.map(|row| row.map(|seq| seq as u64)).collect::<Result<_, _>>().map_err(engine)
    }

    /// The first record below `size` whose time is not before `at`; `size` where there is none.
    /// Times never go back in a trail, so this is a binary search.
    pub fn first_at(&self, trail: TrailNo, size: u64, at: Timestamp) -> Result<u64, ReadError> {
        let mut query = self.connection.prepare_cached("SELECT time FROM records WHERE id = ?1").map_err(engine)?;
        let (mut low, mut high) = (0, size);
        while low < high {
            let middle = low + (high - low) / 2;
            let micros: i64 = query.query_row([record_id(trail, middle)], |row| row.get(0)).map_err(engine)?;
            if micros < at.as_micros() { low = middle + 1 } else { high = middle }
        }
        Ok(low)
    }

    /// The newest statement of a key: its number and payload.
    pub fn newest_statement(&self, kid: &Kid) -> Result<Option<(u64, Vec<u8>)>, ReadError> {
        let sql = "SELECT number, payload FROM statements WHERE kid = ?1 ORDER BY number DESC LIMIT 1";
        let row = |row: &rusqlite::Row<'_>| Ok((row.get::<_, i64>(0)? as u64, row.get(1)?));
        self.connection.query_row(sql, [kid.to_string()], row).optional().map_err(engine)
    }

    /// The newest stored checkpoint of a trail.
    pub fn newest_checkpoint(&self, trail: TrailNo) -> Result<Option<SignedNote>, ReadError> {
        self.checkpoint_where(
            trail,
            "SELECT size, note FROM checkpoints WHERE trail = ?1 AND size >= ?2 ORDER BY size DESC LIMIT 1",
            0,
        )
    }

    /// The smallest stored checkpoint of at least `size`.
    pub fn checkpoint_covering(&self, trail: TrailNo, size: u64) -> Result<Option<SignedNote>, ReadError> {
        self.checkpoint_where(
            trail,
            "SELECT size, note FROM checkpoints WHERE trail = ?1 AND size >= ?2 ORDER BY size LIMIT 1",
            size,
        )
    }

    fn checkpoint_where(&self, trail: TrailNo, sql: &str, size: u64) -> Result<Option<SignedNote>, ReadError> {
        let mut query = self.connection.prepare_cached(sql).map_err(engine)?;
        let note = query.query_row(params![trail, size as i64], |row| {
            Ok(SignedNote { size: row.get::<_, i64>(0)? as u64, note: row.get::<_, Vec<u8>>(1)?.into() })
        });
        note.optional().map_err(engine)
    }

    /// The open intent of a trail.
    pub fn open_intent(&self, trail: TrailNo) -> Result<Option<OpenIntent>, ReadError> {
        let sql = "SELECT first, count, prev_leaf, prev_time, text, mac FROM intents WHERE trail = ?1";
        let found = self.connection.query_row(sql, [trail], |row| {
            let prev = (row.get::<_, [u8; 32]>(2)?, row.get::<_, i64>(3)?);
            Ok((row.get::<_, i64>(0)? as u64, row.get::<_, i64>(1)? as u64, prev, row.get(4)?, row.get(5)?))
        });
        let Some((first_seq, count, (leaf, micros), checkpoint_text, mac)) = found.optional().map_err(engine)? else {
            return Ok(None);
        };
        let prev = Head { size: first_seq, leaf: Hash::from(leaf), time: time(micros)? };
        Ok(Some(OpenIntent { first_seq, count, prev, checkpoint_text, mac }))
    }

    /// A document's bytes.
    pub fn document(&self, hash: &Hash) -> Result<Option<Vec<u8>>, ReadError> {
        let sql = "SELECT bytes FROM documents WHERE hash = ?1";
        self.connection.query_row(sql, [hash.as_bytes()], |row| row.get(0)).optional().map_err(engine)
    }
}
