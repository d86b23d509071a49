//! The frontier of a tree: what an appender needs, and all it needs.

use crate::hash::Hash;

use super::{MAX_SIZE, TreeError, check_size, node_hash};

/// The frontier of the tree of leaves [0, size): the roots of its complete subtrees, the largest
/// first, one for each set bit of the size (at most 63).
///
/// Equal frontiers mean equal trees, and a frontier is as short as a proof, so this is what a
/// store keeps as a trail's head.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CompactRange {
    size: u64,
    nodes: Vec<Hash>,
}

impl CompactRange {
    /// The empty tree.
    pub fn empty() -> CompactRange {
        CompactRange { size: 0, nodes: Vec::new() }
    }

    /// The tree of `size` leaves with this frontier, the largest subtree first.
    ///
    /// The hashes are taken as they are: compare [`CompactRange::root`] with a signed root.
    ///
    /// # Errors
    /// [`TreeError::TooLarge`]; [`TreeError::Frontier`] for a wrong number of hashes.
    pub fn from_nodes(size: u64, nodes: Vec<Hash>) -> Result<CompactRange, TreeError> {
        check_size(size)?;
        let expected = size.count_ones() as usize;
        if nodes.len() != expected {
            return Err(TreeError::Frontier { size, expected, actual: nodes.len() });
        }
        Ok(CompactRange { size, nodes })
    }

    /// The number of leaves.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The roots of the complete subtrees, the largest first.
    pub fn nodes(&self) -> &[Hash] {
        &self.nodes
    }

    /// Appends the leaf with this hash: 1 node hash on average, at most 62.
    ///
    /// # Errors
    /// [`TreeError::TooLarge`] at [`MAX_SIZE`]; the tree is then unchanged.
    pub fn push(&mut self, leaf: Hash) -> Result<(), TreeError> {
        if self.size >= MAX_SIZE {
            return Err(TreeError::TooLarge(self.size.saturating_add(1)));
        }
        // Each complete subtree at the right edge of the same height merges with the new one.
        let merges = self.size.trailing_ones() as usize;
        let keep = self.nodes.len().saturating_sub(merges);
        let merged = self.nodes.drain(keep..).rev().fold(leaf, |right, left| node_hash(left, right));
        self.nodes.push(merged);
        self.size += 1;
        Ok(())
    }

    /// The tree's root: O(log size) node hashes; for the empty tree SHA-256 of nothing.
    pub fn root(&self) -> Hash {
        let folded = self.nodes.iter().rev().copied().reduce(|right, left| node_hash(left, right));
        folded.unwrap_or(Hash::OF_EMPTY)
    }
}

impl Default for CompactRange {
    fn default() -> CompactRange {
        CompactRange::empty()
    }
}
