//! `countersignd fsck`: derives everything again from the store, and says what is wrong.
//!
//! The genesis fingerprint of the configuration is believed, and nothing else: the admin trail is
//! replayed from it, and every other row must follow from the keys and trails that it names. What
//! is derived:
//! - `trail`: each trail record by record: bytes, chain, times, leaf hashes, signatures;
//! - `content`: what a record says: roster, links, parts and their commitments, the two indexes;
//! - `tree`: the tree and its stored nodes;
//! - `heads`: checkpoints, the heads that admin records carry, the open intent, the second head;
//! - `statements`: numbers and payloads of the evidence key.
//!
//! Nothing is changed. Memory is bounded: 256 records, one record's parts, and the heads that the
//! admin trail carries. A finding is one line: where, what, what was expected, what was found.
//!
//! Not checked, because it cannot be without the HSM: the MAC of an open intent. The daemon has it
//! checked by a worker at every start.

mod content;
mod heads;
mod statements;
mod trail;
mod tree;

use std::fmt::Display;
use std::io::{self, Write};
use std::path::Path;

use countersign_trail::admin::{AdminState, Documents};
use countersign_trail::document::{Genesis, MAX_DOCUMENT_LEN};
use countersign_trail::hash::Hash;
use countersign_trail::origin::Origin;
use rusqlite::{Connection, OptionalExtension};

use self::trail::TrailLine;
use crate::store::TrailNo;
use crate::store::files::{FolderLock, LockError};
use crate::store::sqlite::FILE_NAME;
use crate::store::sqlite::reserve::{RESERVE_NAME, RESERVE_PER_TRAIL};
use crate::store::sqlite::schema::{self, SchemaError};

/// Findings that are printed; further ones are counted.
pub const MAX_LINES: u64 = 10_000;
/// Lines of SQLite's own integrity check.
const INTEGRITY_LINES: u32 = 100;

/// Why the store could not be checked at all.
#[derive(Debug, thiserror::Error)]
pub enum FsckError {
    /// The daemon runs, or the folder cannot be used.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// No store, or not one of this version.
    #[error(transparent)]
    Schema(#[from] SchemaError),
    /// The findings cannot be written.
    #[error("cannot write the findings: {0}")]
    Output(#[from] io::Error),
}

/// What is said of one place.
#[derive(Clone, Copy, Debug)]
pub enum Line<'l> {
    /// Something is wrong.
    Finding {
        /// Where.
        place: &'l str,
        /// What, what was expected and what was found.
        problem: &'l str,
    },
    /// Something to know.
    Note {
        /// Where.
        place: &'l str,
        /// What.
        note: &'l str,
    },
}

impl Display for Line<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Line::Finding { place, problem } => write!(f, "{place}: {problem}"),
            Line::Note { place, note } => write!(f, "note: {place}: {note}"),
        }
    }
}

/// Where findings go.
struct Findings<'o> {
    say: &'o mut dyn FnMut(Line<'_>) -> io::Result<()>,
    count: u64,
    failed: Option<io::Error>,
}

impl Findings<'_> {
    fn line(&mut self, line: Line<'_>) {
        if self.failed.is_none() {
            self.failed = (self.say)(line).err();
        }
    }

    /// Something is not what it must be.
    fn differs(&mut self, place: impl Display, what: impl Display, expected: impl Display, found: impl Display) {
        self.problem(place, format_args!("{what}: expected {expected}, found {found}"));
    }

    /// Something is wrong.
    fn problem(&mut self, place: impl Display, problem: impl Display) {
        self.count += 1;
        if self.count <= MAX_LINES {
            self.line(Line::Finding { place: &place.to_string(), problem: &problem.to_string() });
        }
    }

    /// Something to know; not a finding.
    fn note(&mut self, place: impl Display, note: impl Display) {
        self.line(Line::Note { place: &place.to_string(), note: &note.to_string() });
    }

    /// Runs a stage; what the engine cannot read is a finding, and the next stage goes on.
    fn stage(&mut self, name: impl Display, work: impl FnOnce(&mut Self) -> rusqlite::Result<()>) {
        if let Err(error) = work(self) {
            self.problem(name, format_args!("cannot be read on: {error}"));
        }
    }
}

/// The documents of the store under check.
struct StoredDocuments<'c>(&'c Connection);

impl Documents for StoredDocuments<'_> {
    fn document(&self, hash: &Hash) -> Option<Vec<u8>> {
        let sql = "SELECT bytes FROM documents WHERE hash = ?1";
        self.0.query_row(sql, [hash.as_bytes()], |row| row.get(0)).optional().ok().flatten()
    }
}

/// Checks the store in `data_dir` and the second heads in `head_dir` against `genesis`, the pinned
/// fingerprint, and writes findings and notes to `out`, a line each. Gives the number of findings.
///
/// The daemon must be stopped; the folder stays locked meanwhile.
///
/// # Errors
/// [`FsckError`], when there is nothing to check or nowhere to write.
pub fn fsck(data_dir: &Path, head_dir: &Path, genesis: Hash, out: &mut dyn Write) -> Result<u64, FsckError> {
    let count = examine(data_dir, head_dir, genesis, &mut |line| writeln!(out, "{line}"))?;
    if count > MAX_LINES {
        writeln!(out, "note: {} further findings are not listed", count - MAX_LINES)?;
    }
    match count {
        0 => writeln!(out, "fsck: no findings")?,
        count => writeln!(out, "fsck: {count} findings")?,
    }
    Ok(count)
}

/// As [`fsck`], to `say`: the first [`MAX_LINES`] findings, and every note.
///
/// # Errors
/// As [`fsck`].
pub fn examine(
    data_dir: &Path,
    head_dir: &Path,
    genesis: Hash,
    say: &mut dyn FnMut(Line<'_>) -> io::Result<()>,
) -> Result<u64, FsckError> {
    let path = data_dir.join(FILE_NAME);
    if !path.exists() {
        return Err(SchemaError::Missing(path.display().to_string()).into());
    }
    let _lock = FolderLock::take(data_dir)?;
    let connection = schema::open_read_only(&path)?;
    let mut findings = Findings { say, count: 0, failed: None };
    reserve(data_dir, &connection, &mut findings);
    findings.stage("database", |findings| integrity(&connection, findings));
    findings.stage("documents", |findings| documents(&connection, findings));
    match AdminState::begin(genesis, &StoredDocuments(&connection)) {
        Ok(state) => check(&connection, head_dir, state, &mut findings),
        Err(error) => {
            findings.problem("genesis", format_args!("{}: {error}", error.check()));
            findings.note("genesis", "without it no key and no trail is known: nothing else was checked");
        }
    }
    let Findings { count, failed, .. } = findings;
    failed.map_or(Ok(count), |error| Err(error.into()))
}

/// Everything that needs the genesis.
fn check(connection: &Connection, head_dir: &Path, mut state: AdminState, findings: &mut Findings<'_>) {
    let mut lines = Vec::new();
    findings.stage("table trails", |findings| {
        lines = trails(connection, &state, findings)?;
        Ok(())
    });
    let admin = state.plan.admin_trail.clone();
    if let Some(line) = lines.iter().find(|line| line.origin == admin) {
        findings.stage(&admin, |findings| replay(connection, line.no, &mut state, findings));
    }
    findings.stage("documents", |findings| unnamed(connection, &state, findings));
    findings.stage("table clients", |findings| clients(connection, &state, findings));
    let mut seen = Rows::default();
    for line in &lines {
        findings.stage(&line.origin, |findings| {
            seen.add(&trail::check(connection, head_dir, &state, line, findings)?);
            Ok(())
        });
    }
    findings.stage("tables", |findings| strays(connection, &lines, &seen, findings));
    findings.stage("table statements", |findings| statements::check(connection, &state, findings));
}

/// Says where the reserve is not whole. A backup has none.
fn reserve(data_dir: &Path, connection: &Connection, findings: &mut Findings<'_>) {
    let held = std::fs::metadata(data_dir.join(RESERVE_NAME)).map(|file| file.len());
    let trails = connection.query_row("SELECT count(*) FROM trails", [], |row| row.get::<_, i64>(0));
    let (Ok(held), Ok(trails)) = (held, trails) else { return };
    let wanted = trails.unsigned_abs().saturating_mul(RESERVE_PER_TRAIL);
    if held < wanted {
        let note = format_args!("{held} of {wanted} bytes are set aside: new work is refused until there is room");
        findings.note(RESERVE_NAME, note);
    }
}

/// SQLite's own check of pages, indexes and types.
fn integrity(connection: &Connection, findings: &mut Findings<'_>) -> rusqlite::Result<()> {
    let mut query = connection.prepare(&format!("PRAGMA integrity_check({INTEGRITY_LINES})"))?;
    let lines = query.query_map([], |row| row.get::<_, String>(0))?;
    for line in lines {
        let line = line?;
        if line != "ok" {
            findings.problem("database", line.replace('\n', " "));
        }
    }
    Ok(())
}

/// Every document has the name that its bytes give it.
fn documents(connection: &Connection, findings: &mut Findings<'_>) -> rusqlite::Result<()> {
    let mut query = connection.prepare("SELECT hash, bytes FROM documents ORDER BY hash")?;
    let mut rows = query.query([])?;
    while let Some(row) = rows.next()? {
        let (name, bytes): (Vec<u8>, Vec<u8>) = (row.get(0)?, row.get(1)?);
        let (name, found) = (hex::encode(name), Hash::of(&bytes));
        if name != found.to_string() {
            findings.differs(format_args!("document {name}"), "SHA-256", &name, found);
        }
        if bytes.len() > MAX_DOCUMENT_LEN {
            findings.differs(
                format_args!("document {name}"),
                "length",
                format_args!("at most {MAX_DOCUMENT_LEN}"),
                bytes.len(),
            );
        }
    }
    Ok(())
}

/// Documents that the admin trail does not name: left over from a seal that was interrupted, or put
/// there by somebody. They are never shown to anyone.
fn unnamed(connection: &Connection, state: &AdminState, findings: &mut Findings<'_>) -> rusqlite::Result<()> {
    let mut query = connection.prepare("SELECT hash FROM documents ORDER BY hash")?;
    let mut rows = query.query([])?;
    while let Some(row) = rows.next()? {
        let name: Vec<u8> = row.get(0)?;
        if !Hash::try_from(&name[..]).is_ok_and(|hash| state.documents.contains(&hash)) {
            findings.note(format_args!("document {}", hex::encode(name)), "the admin trail does not name it");
        }
    }
    Ok(())
}

/// The rows of the trails, each held against the genesis.
fn trails(
    connection: &Connection,
    state: &AdminState,
    findings: &mut Findings<'_>,
) -> rusqlite::Result<Vec<TrailLine>> {
    let mut query =
        connection.prepare("SELECT no, origin, size, leaf, time, signed, latched FROM trails ORDER BY no")?;
    let mut rows = query.query([])?;
    let mut lines: Vec<TrailLine> = Vec::new();
    while let Some(row) = rows.next()? {
        let (no, name): (i64, String) = (row.get(0)?, row.get(1)?);
        let place = format!("trail {no} ({})", name.escape_debug());
        let origin = Origin::parse(&name).ok().filter(|origin| state.trail(origin).is_some());
        let (Some(origin), Ok(no)) = (origin, TrailNo::try_from(no)) else {
            findings.problem(&place, "the genesis knows no such trail; its rows were not checked");
            continue;
        };
        lines.push(TrailLine::read(no, origin, row, &place, findings)?);
    }
    for origin in state.trails.keys().chain([&state.plan.admin_trail]) {
        if !lines.iter().any(|line| line.origin == *origin) {
            findings.problem(origin, "the genesis names this trail, and the store has no row for it");
        }
    }
    Ok(lines)
}

/// Replays the admin trail as the daemon and the verifier do.
fn replay(
    connection: &Connection,
    no: TrailNo,
    state: &mut AdminState,
    findings: &mut Findings<'_>,
) -> rusqlite::Result<()> {
    let documents = StoredDocuments(connection);
    let mut query = connection.prepare("SELECT bytes FROM records WHERE id >= ?1 AND id < ?2 ORDER BY id")?;
    let mut rows = query.query([schema::record_id(no, 0), schema::record_id(no + 1, 0)])?;
    let place = state.plan.admin_trail.clone();
    while let Some(row) = rows.next()? {
        let bytes: Vec<u8> = row.get(0)?;
        if let Err(error) = state.apply(&bytes, &documents) {
            findings.problem(&place, format_args!("{}: {error}", error.check()));
            let size = state.chain().size();
            findings.note(&place, format_args!("what its records from {size} on say of heads was not checked"));
            break;
        }
    }
    if let Err(error) = state.require_sealed() {
        findings.problem(&place, format_args!("{}: {error}", error.check()));
    }
    let made: &Genesis = &state.genesis;
    findings.note(&place, format_args!("genesis of instance {}, created {}", made.instance, made.created));
    Ok(())
}

/// Every client is a member of the roster.
fn clients(connection: &Connection, state: &AdminState, findings: &mut Findings<'_>) -> rusqlite::Result<()> {
    let mut query = connection.prepare("SELECT no, member FROM clients ORDER BY no")?;
    let mut rows = query.query([])?;
    while let Some(row) = rows.next()? {
        let (no, member): (i64, String) = (row.get(0)?, row.get(1)?);
        if !state.plan.members.iter().any(|known| known.id.as_str() == member) {
            findings.differs(format_args!("client {no}"), "member", "an id of the roster", member.escape_debug());
        }
    }
    Ok(())
}

/// Rows by table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Rows {
    records: u64,
    signatures: u64,
    parts: u64,
    events: u64,
    requests: u64,
    nodes: u64,
    checkpoints: u64,
    intents: u64,
    /// Records that are missing or cannot be read: what belongs to them was not counted.
    unread: u64,
}

impl Rows {
    fn add(&mut self, other: &Rows) {
        self.records += other.records;
        self.signatures += other.signatures;
        self.parts += other.parts;
        self.events += other.events;
        self.requests += other.requests;
        self.nodes += other.nodes;
        self.checkpoints += other.checkpoints;
        self.intents += other.intents;
        self.unread += other.unread;
    }

    fn tables(&self) -> [(&'static str, u64); 8] {
        [
            ("records", self.records),
            ("signatures", self.signatures),
            ("parts", self.parts),
            ("events", self.events),
            ("requests", self.requests),
            ("nodes", self.nodes),
            ("checkpoints", self.checkpoints),
            ("intents", self.intents),
        ]
    }
}

/// No row belongs to nothing: every table has as many rows as the records gave reason for.
fn strays(
    connection: &Connection,
    lines: &[TrailLine],
    seen: &Rows,
    findings: &mut Findings<'_>,
) -> rusqlite::Result<()> {
    if seen.unread > 0 {
        findings.note(
            "tables",
            format_args!("{} records cannot be read: whether rows belong to nothing was not checked", seen.unread),
        );
        return Ok(());
    }
    for (table, expected) in seen.tables() {
        let found: i64 = connection.query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get(0))?;
        if found as u64 != expected {
            let what = format!("rows that follow from the records of {} trails", lines.len());
            findings.differs(format_args!("table {table}"), what, expected, found);
        }
    }
    Ok(())
}
