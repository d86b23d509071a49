//! Tree hashes out of the store: for proofs, and for the frontier at start.

use countersign_trail::hash::Hash;
use countersign_trail::tree::{CompactRange, HashReader, TreeError, node_hash};

use super::sqlite::reader::Snapshot;
use super::{ReadError, TrailNo};

/// Levels of a tile: stored nodes are roots of 256^n leaves.
const TILE_LEVELS: u8 = 8;

/// Why a tree hash cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum TreeReadError {
    /// The read failed.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The question is out of bounds.
    #[error(transparent)]
    Tree(#[from] TreeError),
}

/// A trail's tree in one snapshot.
#[derive(Debug)]
pub struct StoredTree<'s, 'c> {
    snapshot: &'s Snapshot<'c>,
    trail: TrailNo,
}

impl<'s, 'c> StoredTree<'s, 'c> {
    /// The tree of `trail`.
    pub fn new(snapshot: &'s Snapshot<'c>, trail: TrailNo) -> Self {
        StoredTree { snapshot, trail }
    }

    /// The frontier of the first `size` records.
    pub fn frontier(&self, size: u64) -> Result<CompactRange, TreeReadError> {
        let mut nodes = Vec::new();
        let mut start = 0;
        for level in (0..64u8).rev().filter(|level| size >> level & 1 == 1) {
            nodes.push(self.complete(level, start >> level)?);
            start += 1 << level;
        }
        Ok(CompactRange::from_nodes(size, nodes)?)
    }

    /// The hash of the complete subtree of 2^level leaves at `index`.
    fn complete(&self, level: u8, index: u64) -> Result<Hash, ReadError> {
        let stored = level / TILE_LEVELS;
        let above = level % TILE_LEVELS;
        let (first, count) = (index << above, 1u64 << above);
        let mut hashes = if stored == 0 {
            self.snapshot.leaves(self.trail, first, first + count)?
        } else {
            let node = |at| self.snapshot.node(self.trail, stored, at);
            (first..first + count)
                .map(|at| node(at).and_then(|hash| hash.ok_or_else(|| self.missing(level, index))))
                .collect::<Result<_, _>>()?
        };
        if hashes.len() as u64 != count {
            return Err(self.missing(level, index));
        }
        while hashes.len() > 1 {
            hashes = hashes.chunks_exact(2).map(|pair| node_hash(pair[0], pair[1])).collect();
        }
        hashes.pop().ok_or_else(|| self.missing(level, index))
    }

    fn missing(&self, level: u8, index: u64) -> ReadError {
        ReadError::Damaged {
            what: format!("the tree of trail {}", self.trail),
            problem: format!("the hash of 2^{level} leaves at {index} is missing"),
        }
    }
}

impl HashReader for StoredTree<'_, '_> {
    type Error = TreeReadError;

    fn node(&self, level: u8, index: u64) -> Result<Hash, TreeReadError> {
        Ok(self.complete(level, index)?)
    }
}
