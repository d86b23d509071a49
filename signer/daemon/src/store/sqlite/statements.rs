//! The SQL of one step, inside the writer's transaction.

use std::collections::HashMap;

use countersign_trail::hash::Hash;
use countersign_trail::id::MemberId;
use rusqlite::{Connection, OptionalExtension, params};

use super::schema::{MAX_SEQ, node_id, part_id, record_id};
use crate::store::{Append, AppendError, Intent, NewRecord, Outcome, SignedNote, TrailNo, TrailRow};

/// Numbers of clients, as in table `clients`.
#[derive(Debug, Default)]
pub(super) struct Clients {
    numbers: HashMap<MemberId, i64>,
}

impl Clients {
    fn number(&mut self, connection: &Connection, member: &MemberId) -> rusqlite::Result<i64> {
        if let Some(number) = self.numbers.get(member) {
            return Ok(*number);
        }
        connection
            .prepare_cached("INSERT INTO clients(member) VALUES (?1) ON CONFLICT DO NOTHING")?
            .execute([member.as_str()])?;
        let number = connection
            .prepare_cached("SELECT no FROM clients WHERE member = ?1")?
            .query_row([member.as_str()], |row| row.get(0))?;
        self.numbers.insert(member.clone(), number);
        Ok(number)
    }

    /// After a rollback a number may be gone.
    pub(super) fn forget(&mut self) {
        self.numbers.clear();
    }
}

/// Why a step was not applied: a broken expectation, or the engine.
#[derive(Debug)]
pub(super) enum StepError {
    Refused(AppendError),
    Engine(rusqlite::Error),
}

impl From<rusqlite::Error> for StepError {
    fn from(error: rusqlite::Error) -> Self {
        StepError::Engine(error)
    }
}

/// Checks a step's expectations without writing anything.
pub(super) fn check(connection: &Connection, step: &Append) -> Result<(), StepError> {
    let row = connection
        .prepare_cached("SELECT size, leaf, signed FROM trails WHERE no = ?1")?
        .query_row([step.trail], |row| Ok((row.get::<_, i64>(0)?, row.get::<_, [u8; 32]>(1)?, row.get::<_, i64>(2)?)))
        .optional()?;
    let lost = |expected: u64, found: i64| {
        StepError::Refused(AppendError::LostRace { trail: step.trail, expected, found: found as u64 })
    };
    let Some((size, leaf, signed)) = row else { return Err(lost(0, -1)) };
    if let Some(outcome) = &step.outcome {
        let ends = outcome.first_seq + outcome.count;
        if signed as u64 != outcome.first_seq || size as u64 != ends {
            return Err(lost(ends, size));
        }
    }
    if let Some(intent) = &step.intent {
        if size as u64 != intent.prev.size || leaf != *intent.prev.leaf.as_bytes() {
            return Err(lost(intent.prev.size, size));
        }
        if intent.next.size > MAX_SEQ {
            return Err(StepError::Refused(AppendError::NotStored("the trail has 2^40 records".to_owned())));
        }
    }
    Ok(())
}

/// Writes a step whose expectations hold.
pub(super) fn apply(connection: &Connection, clients: &mut Clients, step: &Append) -> rusqlite::Result<()> {
    if let Some(outcome) = &step.outcome {
        write_outcome(connection, step.trail, outcome)?;
    }
    if let Some(note) = &step.checkpoint {
        write_checkpoint(connection, step.trail, note)?;
    }
    if let Some(intent) = &step.intent {
        write_intent(connection, clients, step.trail, intent)?;
    }
    Ok(())
}

fn write_outcome(connection: &Connection, trail: TrailNo, outcome: &Outcome) -> rusqlite::Result<()> {
    let mut insert = connection.prepare_cached("INSERT INTO signatures(id, signature) VALUES (?1, ?2)")?;
    for (at, signature) in (outcome.first_seq..).zip(&outcome.signatures) {
        insert.execute(params![record_id(trail, at), &signature[..]])?;
    }
    if let Some(note) = &outcome.checkpoint {
        write_checkpoint(connection, trail, note)?;
    }
    connection.prepare_cached("DELETE FROM intents WHERE trail = ?1")?.execute([trail])?;
    connection
        .prepare_cached("UPDATE trails SET signed = ?2 WHERE no = ?1")?
        .execute(params![trail, (outcome.first_seq + outcome.count) as i64])?;
    Ok(())
}

fn write_checkpoint(connection: &Connection, trail: TrailNo, note: &SignedNote) -> rusqlite::Result<()> {
    // A checkpoint of a size is signed once; after a crash the same text may be signed again.
    connection
        .prepare_cached("INSERT INTO checkpoints(trail, size, note) VALUES (?1, ?2, ?3) ON CONFLICT DO NOTHING")?
        .execute(params![trail, note.size as i64, &note.note[..]])?;
    Ok(())
}

fn write_intent(
    connection: &Connection,
    clients: &mut Clients,
    trail: TrailNo,
    intent: &Intent,
) -> rusqlite::Result<()> {
    for (seq, record) in (intent.first_seq..).zip(&intent.records) {
        write_record(connection, clients, trail, seq, record)?;
    }
    let mut node = connection.prepare_cached("INSERT INTO nodes(id, hash) VALUES (?1, ?2)")?;
    for (level, index, hash) in &intent.nodes {
        node.execute(params![node_id(trail, *level, *index), hash.as_bytes()])?;
    }
    connection
        .prepare_cached(
            "INSERT INTO intents(trail, first, count, prev_leaf, prev_time, text, mac) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
        )?
        .execute(params![
            trail,
            intent.first_seq as i64,
            intent.records.len() as i64,
            intent.prev.leaf.as_bytes(),
            intent.prev.time.as_micros(),
            intent.checkpoint_text,
            intent.mac,
        ])?;
    connection.prepare_cached("UPDATE trails SET size = ?2, leaf = ?3, time = ?4 WHERE no = ?1")?.execute(params![
        trail,
        intent.next.size as i64,
        intent.next.leaf.as_bytes(),
        intent.next.time.as_micros()
    ])?;
    Ok(())
}

fn write_record(
    connection: &Connection,
    clients: &mut Clients,
    trail: TrailNo,
    seq: u64,
    record: &NewRecord,
) -> rusqlite::Result<()> {
    connection
        .prepare_cached("INSERT INTO records(id, leaf, time, bytes) VALUES (?1, ?2, ?3, ?4)")?
        .execute(params![record_id(trail, seq), record.leaf.as_bytes(), record.time.as_micros(), &record.bytes[..]])?;
    if let Some((client, event_id)) = &record.event {
        let client = clients.number(connection, client)?;
        connection
            .prepare_cached("INSERT INTO events(trail, client, event_id, seq) VALUES (?1, ?2, ?3, ?4)")?
            .execute(params![trail, client, event_id.as_str(), seq as i64])?;
    }
    if let Some(request_id) = &record.request_id {
        connection
            .prepare_cached("INSERT INTO requests(trail, request_id, seq) VALUES (?1, ?2, ?3)")?
            .execute(params![trail, request_id, seq as i64])?;
    }
    let mut part =
        connection.prepare_cached("INSERT INTO parts(id, name, media_type, salt, data) VALUES (?1, ?2, ?3, ?4, ?5)")?;
    for (ordinal, stored) in record.parts.iter().enumerate() {
        let (salt, data) = stored.content.as_ref().map(|(salt, data)| (&salt[..], &data[..])).unzip();
        part.execute(params![part_id(trail, seq, ordinal), stored.name.as_str(), stored.media_type, salt, data])?;
    }
    Ok(())
}

/// Adds a trail's row.
pub(super) fn add_trail(connection: &Connection, row: &TrailRow) -> rusqlite::Result<()> {
    connection.execute(
        "INSERT INTO trails(no, origin, size, leaf, time, signed) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
        params![
            row.no,
            row.origin.as_str(),
            row.head.size as i64,
            row.head.leaf.as_bytes(),
            row.head.time.as_micros(),
            row.signed as i64
        ],
    )?;
    Ok(())
}

/// Latches a trail; the first reason stays.
pub(super) fn latch(connection: &Connection, trail: TrailNo, reason: &str) -> rusqlite::Result<()> {
    connection.execute("UPDATE trails SET latched = coalesce(latched, ?2) WHERE no = ?1", params![trail, reason])?;
    Ok(())
}

/// Adds a document.
pub(super) fn put_document(connection: &Connection, bytes: &[u8]) -> rusqlite::Result<Hash> {
    let hash = Hash::of(bytes);
    connection.execute(
        "INSERT INTO documents(hash, bytes) VALUES (?1, ?2) ON CONFLICT DO NOTHING",
        params![hash.as_bytes(), bytes],
    )?;
    Ok(hash)
}

/// The next statement number of a key above `above`.
pub(super) fn next_number(connection: &Connection, kid: &str, above: u64) -> rusqlite::Result<u64> {
    let next: i64 =
        connection
            .query_row("SELECT coalesce(max(number), 0) + 1 FROM statements WHERE kid = ?1", [kid], |row| row.get(0))?;
    Ok((next as u64).max(above.saturating_add(1)))
}

/// Takes a statement number.
pub(super) fn put_statement(connection: &Connection, kid: &str, number: u64, payload: &[u8]) -> rusqlite::Result<()> {
    connection.execute(
        "INSERT INTO statements(kid, number, payload) VALUES (?1, ?2, ?3)",
        params![kid, number as i64, payload],
    )?;
    Ok(())
}
