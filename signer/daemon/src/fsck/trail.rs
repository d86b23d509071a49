//! One trail, record by record.

use std::path::Path;

use countersign_trail::admin::{AdminState, TrailEntry};
use countersign_trail::checkpoint::Checkpoint;
use countersign_trail::document::Mode;
use countersign_trail::dsse;
use countersign_trail::hash::Hash;
use countersign_trail::keys::PublicKey;
use countersign_trail::origin::Origin;
use countersign_trail::record::Record;
use countersign_trail::signing::RECORD_PAYLOAD_TYPE;
use countersign_trail::time::Timestamp;
use countersign_trail::tree::leaf_hash;
use rusqlite::{Connection, OptionalExtension, Row};

use super::content::Contents;
use super::heads::Heads;
use super::tree::Tree;
use super::{Findings, Rows};
use crate::store::TrailNo;
use crate::store::sqlite::schema::{record_id, seq_of};

/// Records that are read, and whose signatures are verified, at once.
const CHUNK: usize = 256;

/// A row of the trails, as stored.
pub(super) struct TrailLine {
    pub(super) no: TrailNo,
    pub(super) origin: Origin,
    size: u64,
    leaf: Option<Hash>,
    time: i64,
    signed: u64,
}

impl TrailLine {
    /// Reads columns 2 to 6 of a row.
    pub(super) fn read(
        no: TrailNo,
        origin: Origin,
        row: &Row<'_>,
        place: &str,
        findings: &mut Findings<'_>,
    ) -> rusqlite::Result<TrailLine> {
        let (size, leaf, time): (i64, Vec<u8>, i64) = (row.get(2)?, row.get(3)?, row.get(4)?);
        let (signed, latched): (i64, Option<String>) = (row.get(5)?, row.get(6)?);
        let leaf = Hash::try_from(&leaf[..]).ok();
        if leaf.is_none() {
            findings.differs(place, "leaf", "32 bytes", "another length");
        }
        if size < 1 || !(0..=size).contains(&signed) {
            findings.differs(
                place,
                "size and signed",
                "1 or more, and at most as many signed",
                format_args!("{size} and {signed}"),
            );
        }
        if let Some(reason) = latched {
            findings.note(&origin, format_args!("latched: {}", reason.escape_debug()));
        }
        Ok(TrailLine { no, origin, size: size.max(0) as u64, leaf, time, signed: signed.max(0) as u64 })
    }
}

/// A row of the records, with its signature.
struct RecordRow {
    seq: u64,
    leaf: Vec<u8>,
    time: i64,
    bytes: Vec<u8>,
    signature: Option<Vec<u8>>,
}

/// The last record read, whose leaf hash the next one's `prev` confirms.
struct Pending {
    seq: u64,
    computed: Hash,
    column: Hash,
}

/// Checks one trail. Gives the number of rows that its records gave reason for.
pub(super) fn check(
    connection: &Connection,
    head_dir: &Path,
    state: &AdminState,
    line: &TrailLine,
    findings: &mut Findings<'_>,
) -> rusqlite::Result<Rows> {
    // Read from the genesis: a trail without an entry is not checked.
    let Some(entry) = state.trail(&line.origin) else { return Ok(Rows::default()) };
    let heads = Heads::new(connection, state, (line.no, &line.origin), head_dir, findings)?;
    let contents = Contents { connection, state, origin: &line.origin, no: line.no, rows: Rows::default() };
    let mut walk = Walk {
        connection,
        line,
        entry,
        record_key: entry.record_key.and_then(|kid| state.keys.get(&kid)).map(|entry| &entry.key),
        contents,
        heads,
        tree: Tree::new(connection, line.no),
        whole: true,
        pending: None,
        next: 0,
        last_leaf: entry.first_prev,
        last_time: None,
        signed_end: None,
    };
    walk.records(findings)?;
    walk.finish(findings)
}

struct Walk<'c> {
    connection: &'c Connection,
    line: &'c TrailLine,
    entry: &'c TrailEntry,
    record_key: Option<&'c PublicKey>,
    contents: Contents<'c>,
    heads: Heads<'c>,
    tree: Tree<'c>,
    /// No record is missing so far, so the tree is the trail's.
    whole: bool,
    pending: Option<Pending>,
    /// The sequence number that must come next.
    next: u64,
    last_leaf: Hash,
    last_time: Option<Timestamp>,
    /// Leaf and time of the last signed record.
    signed_end: Option<(Hash, Option<Timestamp>)>,
}

impl Walk<'_> {
    fn records(&mut self, findings: &mut Findings<'_>) -> rusqlite::Result<()> {
        let end = record_id(self.line.no + 1, 0);
        let mut from = record_id(self.line.no, 0);
        loop {
            let rows = self.chunk(from, end)?;
            let Some(last) = rows.last() else { break };
            from = record_id(self.line.no, last.seq) + 1;
            for (seq, problem) in verify(self.record_key, &rows) {
                findings
                    .problem(format_args!("{} record {seq}", self.line.origin), format_args!("signature: {problem}"));
            }
            for row in rows {
                self.record(row, findings)?;
            }
        }
        self.settle(self.line.leaf, findings)
    }

    fn chunk(&self, from: i64, end: i64) -> rusqlite::Result<Vec<RecordRow>> {
        let sql = "SELECT r.id, r.leaf, r.time, r.bytes, s.signature FROM records r
            LEFT JOIN signatures s ON s.id = r.id WHERE r.id >= ?1 AND r.id < ?2 ORDER BY r.id LIMIT ?3";
        let mut query = self.connection.prepare_cached(sql)?;
        let rows = query.query_map([from, end, CHUNK as i64], |row| {
            Ok(RecordRow {
                seq: seq_of(row.get(0)?),
                leaf: row.get(1)?,
                time: row.get(2)?,
                bytes: row.get(3)?,
                signature: row.get(4)?,
            })
        })?;
        rows.collect()
    }

    fn record(&mut self, row: RecordRow, findings: &mut Findings<'_>) -> rusqlite::Result<()> {
        let place = format!("{} record {}", self.line.origin, row.seq);
        let computed = leaf_hash(&row.bytes);
        let column = Hash::try_from(&row.leaf[..]).unwrap_or(Hash::OF_EMPTY);
        let parsed = Record::parse(&row.bytes);
        let prev = parsed.as_ref().ok().map(|record| record.header.prev);
        if row.seq != self.next {
            self.missing(row.seq, prev, findings)?;
        } else {
            self.settle(prev, findings)?;
        }
        if self.whole && self.tree.size() == 0 && computed != self.entry.first_leaf {
            findings.differs(&place, "leaf hash, which the genesis names", self.entry.first_leaf, computed);
        }
        self.contents.rows.records += 1;
        self.signature(&row, &place, findings);
        match parsed {
            Ok(record) => {
                self.header(&row, &record, &place, findings);
                self.contents.check(row.seq, &record.content, findings)?;
            }
            Err(error) => {
                self.contents.rows.unread += 1;
                findings.problem(&place, error);
            }
        }
        self.pending = Some(Pending { seq: row.seq, computed, column });
        self.next = row.seq + 1;
        Ok(())
    }

    /// Rows are missing before `seq`.
    fn missing(&mut self, seq: u64, prev: Option<Hash>, findings: &mut Findings<'_>) -> rusqlite::Result<()> {
        self.settle(None, findings)?;
        findings.differs(
            format_args!("{} record {}", self.line.origin, self.next),
            "rows up to the next that is there",
            seq - self.next,
            0,
        );
        self.whole = false;
        self.contents.rows.unread += seq.saturating_sub(self.next);
        self.last_leaf = prev.unwrap_or(self.last_leaf);
        Ok(())
    }

    /// Decides the leaf hash of the pending record: its own or the stored one, whichever `confirmed`
    /// (what follows it) says; then compares everything that states the trail up to it.
    fn settle(&mut self, confirmed: Option<Hash>, findings: &mut Findings<'_>) -> rusqlite::Result<()> {
        let Some(Pending { seq, computed, column }) = self.pending.take() else { return Ok(()) };
        let place = format!("{} record {seq}", self.line.origin);
        let leaf = if computed == column || confirmed == Some(computed) { computed } else { column };
        if computed != column && leaf == column {
            findings.differs(&place, "hash of its bytes", column, computed);
        } else if computed != column {
            findings.differs(&place, "stored leaf hash", computed, column);
        }
        self.last_leaf = leaf;
        if seq + 1 == self.line.signed {
            self.signed_end = Some((leaf, self.last_time));
        }
        if self.whole {
            self.tree.push(leaf, &place, findings)?;
            let tree = &self.tree;
            self.heads.reached(seq + 1, leaf, || tree.root(), findings)?;
        }
        Ok(())
    }

    /// Place, chain, time and keys.
    fn header(&mut self, row: &RecordRow, record: &Record, place: &str, findings: &mut Findings<'_>) {
        let header = &record.header;
        if header.seq != row.seq || header.trail != self.line.origin {
            findings.differs(place, "place", place, format_args!("{} record {}", header.trail, header.seq));
        }
        if header.prev != self.last_leaf {
            findings.differs(place, "prev", self.last_leaf, header.prev);
        }
        if let Some(last) = self.last_time.filter(|last| header.time < *last) {
            findings.differs(place, "time", format_args!("not before {last}"), header.time);
        }
        if header.time.as_micros() != row.time {
            findings.differs(place, "stored time", header.time.as_micros(), row.time);
        }
        let kids = self.entry.record_kids();
        if header.kids != kids {
            let text = |kids: &[countersign_trail::keys::Kid]| {
                kids.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
            };
            findings.differs(place, "kids", text(&kids), text(&header.kids));
        }
        self.last_time = Some(self.last_time.map_or(header.time, |last| last.max(header.time)));
    }

    /// Whether there is a signature where one must be. Whether it holds was verified before.
    fn signature(&mut self, row: &RecordRow, place: &str, findings: &mut Findings<'_>) {
        let wanted = self.entry.mode == Mode::Record && row.seq < self.line.signed;
        self.contents.rows.signatures += u64::from(wanted && row.signature.is_some());
        match (wanted, &row.signature) {
            (true, None) => findings.differs(place, "signature", "one", "none"),
            (false, Some(_)) => findings.differs(place, "signature", "none", "one"),
            _ => {}
        }
    }

    /// The end: head, intent, and what is left of the heads.
    fn finish(mut self, findings: &mut Findings<'_>) -> rusqlite::Result<Rows> {
        let origin = &self.line.origin;
        if self.next != self.line.size {
            self.contents.rows.unread += self.line.size.saturating_sub(self.next);
            findings.differs(origin, "records, by its head", self.line.size, self.next);
        }
        if self.line.leaf.is_some_and(|leaf| leaf != self.last_leaf) {
            let head = self.line.leaf.unwrap_or(Hash::OF_EMPTY);
            findings.differs(origin, "leaf hash of its head", self.last_leaf, head);
        }
        let last_time = self.last_time.map_or(0, Timestamp::as_micros);
        if last_time != self.line.time {
            findings.differs(origin, "time of its head", last_time, self.line.time);
        }
        self.intent(findings)?;
        let covered = self.heads.last;
        if self.whole && self.entry.mode == Mode::Batch && covered != self.line.signed {
            findings.differs(origin, "size of its newest checkpoint", self.line.signed, covered);
        }
        if self.whole && covered > self.line.signed {
            findings.differs(
                origin,
                "size of its newest checkpoint",
                format_args!("at most {}", self.line.signed),
                covered,
            );
        }
        let mut rows = self.contents.rows;
        rows.nodes = self.tree.nodes;
        let (records, signed) = (self.next, self.line.signed);
        rows.checkpoints = self.heads.finish(self.tree.size(), self.whole, findings)?;
        findings.note(origin, format_args!("{records} records, {signed} signed, {} checkpoints", rows.checkpoints));
        Ok(rows)
    }

    /// An intent is open exactly when records are not signed yet, and it fits them.
    fn intent(&mut self, findings: &mut Findings<'_>) -> rusqlite::Result<()> {
        let sql = "SELECT first, count, prev_leaf, prev_time, text, mac FROM intents WHERE trail = ?1";
        let found = self.connection.query_row(sql, [self.line.no], |row| {
            let place: (i64, i64) = (row.get(0)?, row.get(1)?);
            let prev: (Vec<u8>, i64) = (row.get(2)?, row.get(3)?);
            let rest: (Option<String>, Vec<u8>) = (row.get(4)?, row.get(5)?);
            Ok((place, prev, rest))
        });
        let (size, signed) = (self.line.size, self.line.signed);
        let place = format!("{} open intent", self.line.origin);
        let Some(((first, count), (prev_leaf, prev_time), (text, mac))) = found.optional()? else {
            if signed < size {
                findings.differs(place, format_args!("intent over records {signed} to {}", size - 1), "one", "none");
            }
            return Ok(());
        };
        self.contents.rows.intents += 1;
        let wanted = (signed as i64, size.saturating_sub(signed) as i64);
        if (first, count) != wanted || count == 0 {
            findings.differs(
                &place,
                "first record and count",
                format_args!("{wanted:?}"),
                format_args!("{:?}", (first, count)),
            );
        }
        let (leaf, time) = self.signed_end.unwrap_or((self.entry.first_prev, None));
        if prev_leaf != leaf.as_bytes() {
            findings.differs(&place, "previous leaf hash", leaf, hex::encode(prev_leaf));
        }
        if let Some(time) = time.filter(|time| time.as_micros() != prev_time) {
            findings.differs(&place, "previous time", time.as_micros(), prev_time);
        }
        let checkpoint = Checkpoint { origin: self.line.origin.clone(), size, root: self.tree.root() };
        let fits = match &text {
            None => self.entry.mode == Mode::Record,
            Some(text) => !self.whole || *text == checkpoint.text(),
        };
        if !fits {
            let lines = |text: &str| text.trim_end().replace('\n', " ");
            findings.differs(
                &place,
                "checkpoint text",
                lines(&checkpoint.text()),
                text.map_or("none".to_owned(), |text| lines(&text)),
            );
        }
        if mac.len() != 32 {
            findings.differs(&place, "length of its MAC", 32, mac.len());
        }
        findings.note(&place, "its MAC was not checked: only an HSM worker can, and does at the daemon's start");
        Ok(())
    }
}

/// Verifies the signatures of `rows` on all cores; what does not hold, by record.
fn verify(key: Option<&PublicKey>, rows: &[RecordRow]) -> Vec<(u64, String)> {
    let Some(key) = key else { return Vec::new() };
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let share = rows.len().div_ceil(cores).max(1);
    let one = |row: &RecordRow| {
        let signature = row.signature.as_ref()?;
        let holds = key.verify(&dsse::pae(RECORD_PAYLOAD_TYPE, &row.bytes), signature);
        holds.err().map(|error| (row.seq, error.to_string()))
    };
    std::thread::scope(|scope| {
        let parts: Vec<_> = rows
            .chunks(share)
            .map(|part| scope.spawn(move || part.iter().filter_map(one).collect::<Vec<_>>()))
            .collect();
        let failed = || vec![(rows.first().map_or(0, |row| row.seq), "the check itself failed".to_owned())];
        parts.into_iter().flat_map(|part| part.join().unwrap_or_else(|_| failed())).collect()
    })
}
