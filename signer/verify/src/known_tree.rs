//! The tree over the records of a trail that is wholly in memory.

use countersign_trail::evidence::tile_rows;
use countersign_trail::hash::Hash;
use countersign_trail::tiles::{TILE_WIDTH, TileError, TilePath, TileReader};
use countersign_trail::tree::root_at;

/// Every complete subtree of 256^n leaves, 33 bytes of memory a leaf.
pub(crate) struct KnownTree {
    rows: Vec<Vec<Hash>>,
}

impl KnownTree {
    /// The tree over these leaf hashes.
    pub(crate) fn new(leaves: Vec<Hash>) -> KnownTree {
        KnownTree { rows: tile_rows(leaves) }
    }

    /// Number of leaves.
    pub(crate) fn size(&self) -> u64 {
        self.rows.first().map_or(0, |leaves| leaves.len() as u64)
    }

    /// The leaf hash at an index; none beyond the size.
    pub(crate) fn leaf(&self, index: u64) -> Option<Hash> {
        self.rows.first()?.get(usize::try_from(index).ok()?).copied()
    }

    /// The hashes of a tile of this level, by its place; none beyond the tree.
    pub(crate) fn tile(&self, path: &TilePath) -> Option<&[Hash]> {
        let row = self.rows.get(usize::from(path.level()))?;
        let first = usize::try_from(path.first()).ok()?;
        row.get(first..first.checked_add(usize::from(path.width().min(TILE_WIDTH)))?)
    }

    /// RFC 6962 root over the first `size` leaves; none beyond the tree.
    pub(crate) fn root_at(&self, size: u64) -> Option<Hash> {
        if size > self.size() {
            return None;
        }
        let fetch = |path: &TilePath| self.tile(path).map(<[Hash]>::to_vec).ok_or(TileError::Path);
        root_at(&TileReader::new(self.size(), fetch).ok()?, size).ok()
    }

    /// RFC 6962 root over all leaves.
    pub(crate) fn root(&self) -> Hash {
        self.root_at(self.size()).unwrap_or(Hash::OF_EMPTY)
    }
}
