//! The tree, built again leaf by leaf, and the stored nodes that it must have.

use countersign_trail::hash::Hash;
use countersign_trail::tiles::TILE_WIDTH;
use countersign_trail::tree::{CompactRange, TreeError, node_hash};
use rusqlite::{Connection, OptionalExtension};

use super::Findings;
use crate::store::TrailNo;
use crate::store::sqlite::schema::node_id;

/// A trail's tree up to some record.
pub(super) struct Tree<'c> {
    connection: &'c Connection,
    no: TrailNo,
    range: CompactRange,
    /// For each stored level, the hashes of the tile that is not complete yet: level 0 are leaves.
    tiles: Vec<Vec<Hash>>,
    /// Nodes that the table must have so far.
    pub(super) nodes: u64,
}

impl<'c> Tree<'c> {
    pub(super) fn new(connection: &'c Connection, no: TrailNo) -> Tree<'c> {
        Tree { connection, no, range: CompactRange::empty(), tiles: Vec::new(), nodes: 0 }
    }

    pub(super) fn size(&self) -> u64 {
        self.range.size()
    }

    pub(super) fn root(&self) -> Hash {
        self.range.root()
    }

    /// Appends a leaf, and compares every node that it completes with the stored one.
    pub(super) fn push(&mut self, leaf: Hash, place: &str, findings: &mut Findings<'_>) -> rusqlite::Result<()> {
        let pushed: Result<(), TreeError> = self.range.push(leaf);
        if let Err(error) = pushed {
            findings.problem(place, error);
            return Ok(());
        }
        let (mut hash, mut level) = (leaf, 0);
        loop {
            if self.tiles.len() == level {
                self.tiles.push(Vec::new());
            }
            self.tiles[level].push(hash);
            if self.tiles[level].len() < usize::from(TILE_WIDTH) {
                return Ok(());
            }
            hash = root_of(std::mem::take(&mut self.tiles[level]));
            level += 1;
            self.compare(level, hash, place, findings)?;
        }
    }

    fn compare(&mut self, level: usize, hash: Hash, place: &str, findings: &mut Findings<'_>) -> rusqlite::Result<()> {
        let index = (self.size() >> (8 * level)) - 1;
        let id = node_id(self.no, level as u8, index);
        let sql = "SELECT hash FROM nodes WHERE id = ?1";
        let stored: Option<Vec<u8>> =
            self.connection.prepare_cached(sql)?.query_row([id], |row| row.get(0)).optional()?;
        let stored = stored.map(hex::encode);
        self.nodes += 1;
        if stored.as_deref() != Some(&hash.to_string()) {
            let what = format!("node {index} of level {level}");
            findings.differs(place, what, hash, stored.as_deref().unwrap_or("none"));
        }
        Ok(())
    }
}

/// The root over a number of hashes that is a power of two.
fn root_of(mut row: Vec<Hash>) -> Hash {
    while row.len() > 1 {
        row = row.chunks_exact(2).map(|pair| node_hash(pair[0], pair[1])).collect();
    }
    row.pop().unwrap_or(Hash::OF_EMPTY)
}
