//! The tree as a batch leaves it, with every node that the batch touched, in memory.

use crate::hash::Hash;
use crate::tree::{
    CompactRange, HashReader, MAX_SIZE, TreeError, check_index, consistency_ranges, height, inclusion_ranges,
    is_subtree, node_hash,
};

use super::{MultiproofError, prove};

/// The tree of a trail just after a batch: it answers for the batch's leaves without the store.
///
/// Building costs n + 63 node hashes at most for n leaves, and one buffer of 2n + 130 hashes of 32
/// bytes; afterwards nothing is hashed again.
#[derive(Debug, Clone)]
pub struct BatchTree {
    before: u64,
    size: u64,
    /// The nodes of all levels, the lowest level first.
    nodes: Vec<Hash>,
    /// Where each level begins in `nodes`, and what stands there.
    levels: Vec<Level>,
    /// For each level, the hash of [size - size % 2^level, size), the incomplete right edge;
    /// none if it is empty.
    edges: Vec<Option<Hash>>,
    root: Hash,
}

/// One level's part of the buffer: its complete nodes from `first` to the right edge. `first` is
/// even, so that the nodes pair up: where the batch begins at an odd node, its left neighbour, a
/// node of the frontier before the batch, is included.
#[derive(Debug, Clone, Copy)]
struct Level {
    first: u64,
    start: usize,
}

impl BatchTree {
    /// Appends `leaves` (leaf hashes) to the tree with the frontier `before`.
    ///
    /// # Errors
    /// [`TreeError::TooLarge`].
    pub fn new(before: &CompactRange, leaves: &[Hash]) -> Result<BatchTree, TreeError> {
        let size = before.size().saturating_add(leaves.len() as u64);
        if size > MAX_SIZE {
            return Err(TreeError::TooLarge(size));
        }
        // The levels halve, each with at most one node of the frontier before.
        let mut nodes = Vec::with_capacity(2 * leaves.len() + 2 * u64::BITS as usize);
        let mut levels = Vec::with_capacity(u64::BITS as usize);
        let mut frontier = before.nodes().iter().rev();
        let mut below = 0..0;
        for level in 0..u64::BITS {
            let start = nodes.len();
            let first = before.size() >> level;
            if first & 1 == 1 {
                nodes.extend(frontier.next());
            }
            if level == 0 {
                nodes.extend_from_slice(leaves);
            }
            for left in below.step_by(2) {
                nodes.push(node_hash(nodes[left], nodes[left + 1]));
            }
            levels.push(Level { first: first & !1, start });
            if size >> level <= 1 {
                break;
            }
            // An odd node at the end has no partner yet.
            let end = nodes.len() - ((nodes.len() - start) & 1);
            below = start..end;
        }
        let mut tree =
            BatchTree { before: before.size(), size, nodes, levels, edges: Vec::new(), root: Hash::OF_EMPTY };
        tree.fold_edges();
        Ok(tree)
    }

    /// Computes the incomplete right edges and the root from the frontier after the batch.
    fn fold_edges(&mut self) {
        self.edges.reserve_exact(self.levels.len());
        let mut edge: Option<Hash> = None;
        for level in 0..self.levels.len() {
            self.edges.push(edge);
            if (self.size >> level) & 1 == 1
                && let Some(left) = self.complete(level as u32, (self.size >> level) - 1)
            {
                edge = Some(edge.map_or(left, |right| node_hash(left, right)));
            }
        }
        self.root = edge.unwrap_or(Hash::OF_EMPTY);
    }

    /// The complete node `index` of `level`, if the batch knows it.
    fn complete(&self, level: u32, index: u64) -> Option<Hash> {
        let here = self.levels.get(level as usize)?;
        let end = match self.levels.get(level as usize + 1) {
            Some(above) => above.start,
            None => self.nodes.len(),
        };
        let place = usize::try_from(index.checked_sub(here.first)?).ok()?;
        self.nodes.get(here.start..end)?.get(place).copied()
    }

    /// The number of leaves before the batch, which is the index of its first leaf.
    pub fn before(&self) -> u64 {
        self.before
    }

    /// The number of leaves with the batch.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The root with the batch.
    pub fn root(&self) -> Hash {
        self.root
    }

    /// The frontier with the batch, to build the next one on.
    pub fn after(&self) -> CompactRange {
        let set = (0..self.levels.len() as u32).rev().filter(|level| (self.size >> level) & 1 == 1);
        let nodes = set.filter_map(|level| self.complete(level, (self.size >> level) - 1)).collect();
        // One node for each set bit of a checked size: this is always a frontier.
        CompactRange::from_nodes(self.size, nodes).unwrap_or_default()
    }

    /// MTH(D\[lo:hi\]) with the batch, for every range that a proof about the batch's leaves at
    /// this size asks for, and for every complete subtree that holds one of them. O(1), no hashing.
    /// None for anything else.
    pub fn node(&self, lo: u64, hi: u64) -> Option<Hash> {
        if !is_subtree(lo, hi) || hi > self.size {
            return None;
        }
        let width = hi - lo;
        if width.is_power_of_two() {
            let level = width.trailing_zeros();
            return self.complete(level, lo >> level);
        }
        if hi != self.size {
            return None;
        }
        // The level above all complete parts of the range; the whole tree's is above the last.
        match self.edges.get(height(width) as usize) {
            Some(edge) => *edge,
            None => Some(self.root),
        }
    }

    /// The node, or the error that names it.
    fn known(&self, lo: u64, hi: u64) -> Result<Hash, MultiproofError> {
        self.node(lo, hi).ok_or(MultiproofError::NotInBatch { lo, hi })
    }

    /// The inclusion path of the leaf `index` (in the trail, not in the batch) at this size, for a
    /// leaf of the batch. At most 63 hashes, no hashing.
    ///
    /// # Errors
    /// [`TreeError::OutsideTree`] at or beyond the size; [`MultiproofError::NotInBatch`] before
    /// the batch (some of those leaves can be answered, but none is promised).
    pub fn inclusion_path(&self, index: u64) -> Result<Vec<Hash>, MultiproofError> {
        check_index(index, self.size)?;
        let mut path = Vec::with_capacity(height(self.size) as usize);
        for (lo, hi) in inclusion_ranges(index, self.size) {
            path.push(self.known(lo, hi)?);
        }
        Ok(path)
    }

    /// One proof for several leaves of the batch (indexes in the trail, strictly ascending) at this
    /// size. No hashing.
    ///
    /// # Errors
    /// Those of [`prove`]; [`MultiproofError::NotInBatch`] for leaves before the batch.
    pub fn multiproof(&self, wanted: &[u64]) -> Result<Vec<Hash>, MultiproofError> {
        prove(wanted, self.size, &mut |lo, hi| self.known(lo, hi))
    }

    /// The consistency path from the tree before the batch to the tree with it. Empty if there was
    /// no leaf before, or none in the batch.
    ///
    /// # Errors
    /// None that can be met: every node of this path is known to the batch.
    pub fn consistency_path(&self) -> Result<Vec<Hash>, MultiproofError> {
        if self.before == 0 || self.before == self.size {
            return Ok(Vec::new());
        }
        consistency_ranges(self.before, self.size).into_iter().map(|(lo, hi)| self.known(lo, hi)).collect()
    }

    /// The complete nodes that this batch added, leaves included, as (level, index, hash), the
    /// lowest level first: what a store of nodes has to add. Fewer than 2n + 63 for n leaves.
    pub fn new_nodes(&self) -> impl Iterator<Item = (u8, u64, Hash)> + '_ {
        (0u8..).zip(&self.levels).flat_map(move |(level, _)| {
            // Nodes below this one were complete before the batch.
            let new = (self.before >> level)..(self.size >> level);
            new.filter_map(move |index| {
                let hash = self.complete(u32::from(level), index)?;
                Some((level, index, hash))
            })
        })
    }
}

/// The complete nodes that the batch knows, as a store.
impl HashReader for BatchTree {
    type Error = MultiproofError;

    fn node(&self, level: u8, index: u64) -> Result<Hash, MultiproofError> {
        self.complete(u32::from(level), index).ok_or_else(|| {
            let first = index.checked_shl(u32::from(level)).unwrap_or(u64::MAX);
            let width = 1u64.checked_shl(u32::from(level)).unwrap_or(u64::MAX);
            MultiproofError::NotInBatch { lo: first, hi: first.saturating_add(width) }
        })
    }
}
