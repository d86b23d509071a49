//! The Merkle tree of a trail: RFC 6962 section 2.1 hashing, RFC 9162 section 2.1 proofs.
//!
//! A leaf's hash is SHA-256(0x00 || leaf bytes), an inner node's SHA-256(0x01 || left || right); a
//! tree of n leaves splits at the largest power of two below n; the empty tree's root is
//! SHA-256 of nothing.
//!
//! - [`CompactRange`]: what an appender keeps of a tree, one hash for each set bit of its size.
//! - [`verify_inclusion`], [`verify_consistency`]: the algorithms of RFC 9162, to the letter.
//! - [`HashReader`]: proofs out of any store of complete nodes, O(log n) reads each.
//! - `BatchTree` and proofs for many leaves at once are in [`crate::multiproof`].

mod compact;
mod reader;
mod verify;

use sha2::{Digest, Sha256};

use crate::hash::{HASH_LEN, Hash};

pub use compact::CompactRange;
pub use reader::{HashReader, ReadError, consistency_path, inclusion_path, root_at, subtree_hash};
pub use verify::{root_from_inclusion, verify_consistency, verify_inclusion};

/// The largest size of a tree, in leaves: 2^63 - 1, so that sizes and indexes fit a signed 64-bit
/// integer wherever they are stored.
pub const MAX_SIZE: u64 = (1 << 63) - 1;

/// The most hashes in an inclusion path: the depth of a tree of [`MAX_SIZE`] leaves,
/// ceil(log2(2^63 - 1)).
pub const MAX_INCLUSION_PATH: usize = 63;

/// The most hashes in a consistency path: one for the old tree's last complete subtree, and an
/// inclusion path above it.
pub const MAX_CONSISTENCY_PATH: usize = MAX_INCLUSION_PATH + 1;

/// What is wrong with a size, an index or a proof.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TreeError {
    /// A size above [`MAX_SIZE`].
    #[error("a tree of {0} leaves is beyond the largest size, {MAX_SIZE}")]
    TooLarge(u64),
    /// An index at or beyond the size.
    #[error("leaf {index} is not in a tree of {size} leaves")]
    OutsideTree {
        /// The leaf's index, from 0.
        index: u64,
        /// The tree's size in leaves.
        size: u64,
    },
    /// Consistency asked from a larger tree to a smaller one.
    #[error("a tree of {new} leaves cannot extend one of {old}")]
    Shrinks {
        /// The size of the older tree.
        old: u64,
        /// The size of the newer tree.
        new: u64,
    },
    /// A frontier needs one hash for each set bit of the size.
    #[error("a tree of {size} leaves has {expected} frontier hashes, not {actual}")]
    Frontier {
        /// The tree's size in leaves.
        size: u64,
        /// The number of set bits in it.
        expected: usize,
        /// The number of hashes given.
        actual: usize,
    },
    /// A range that is no subtree: its start must be a multiple of the smallest power of two that
    /// is not below its width.
    #[error("the leaves {lo} to {hi} (exclusive) are no subtree")]
    NotASubtree {
        /// The first leaf.
        lo: u64,
        /// The leaf after the last.
        hi: u64,
    },
    /// The proof ends before the root is reached.
    #[error("the proof has {0} hashes, too few for this tree")]
    PathTooShort(usize),
    /// The proof goes on beyond the root.
    #[error("the proof has {0} hashes, too many for this tree")]
    PathTooLong(usize),
    /// The proof leads to another root.
    #[error("the proof leads to the root {actual}, not to {expected}")]
    RootMismatch {
        /// The root that the caller holds.
        expected: Hash,
        /// The root that the proof leads to.
        actual: Hash,
    },
    /// The consistency proof leads to another root for the older tree.
    #[error("the proof leads to the older root {actual}, not to {expected}")]
    OldRootMismatch {
        /// The older root that the caller holds.
        expected: Hash,
        /// The root that the proof leads to.
        actual: Hash,
    },
}

/// The hash of a leaf: SHA-256(0x00 || leaf). RFC 6962, 2.1.
pub fn leaf_hash(leaf: &[u8]) -> Hash {
    Hash::of_parts(&[&[0x00], leaf])
}

/// The hash of an inner node: SHA-256(0x01 || left || right). RFC 6962, 2.1.
#[inline]
pub fn node_hash(left: Hash, right: Hash) -> Hash {
    let mut bytes = [0x01; 1 + 2 * HASH_LEN];
    bytes[1..=HASH_LEN].copy_from_slice(left.as_bytes());
    bytes[1 + HASH_LEN..].copy_from_slice(right.as_bytes());
    Hash::from_bytes(Sha256::digest(bytes).into())
}

/// Refuses sizes above [`MAX_SIZE`].
pub(crate) fn check_size(size: u64) -> Result<(), TreeError> {
    if size > MAX_SIZE {
        return Err(TreeError::TooLarge(size));
    }
    Ok(())
}

/// Refuses sizes above [`MAX_SIZE`] and indexes outside the tree.
pub(crate) fn check_index(index: u64, size: u64) -> Result<(), TreeError> {
    check_size(size)?;
    if index >= size {
        return Err(TreeError::OutsideTree { index, size });
    }
    Ok(())
}

/// The largest power of two below `width` (RFC 6962's k). `width` is at least 2.
pub(crate) fn split(width: u64) -> u64 {
    1 << (width.saturating_sub(1) | 1).ilog2()
}

/// The height of the smallest complete tree with room for `width` leaves: ceil(log2(width)), 0 for
/// 0 and 1.
pub(crate) fn height(width: u64) -> u32 {
    u64::BITS - width.saturating_sub(1).leading_zeros()
}

/// Whether [lo, hi) is a subtree: non-empty, and `lo` a multiple of 2^height(hi - lo).
pub(crate) fn is_subtree(lo: u64, hi: u64) -> bool {
    hi <= MAX_SIZE && lo < hi && lo.trailing_zeros() >= height(hi - lo)
}

/// The subtrees [lo, hi) whose hashes are the inclusion path of leaf `index` in a tree of `size`
/// leaves, from the leaf's sibling up (RFC 6962, 2.1.1). The caller has checked `index < size`.
pub(crate) fn inclusion_ranges(index: u64, size: u64) -> impl Iterator<Item = (u64, u64)> {
    (0..height(size)).filter_map(move |level| {
        let lo = ((index >> level) ^ 1) << level;
        // A sibling beyond the right edge does not exist: the node is carried up unchanged.
        (lo < size).then(|| (lo, size.min(lo + (1 << level))))
    })
}

/// The number of hashes in the inclusion path of leaf `index` in a tree of `size` leaves.
///
/// # Errors
/// [`TreeError::TooLarge`], [`TreeError::OutsideTree`].
pub fn inclusion_path_len(index: u64, size: u64) -> Result<usize, TreeError> {
    check_index(index, size)?;
    Ok(inclusion_ranges(index, size).count())
}

/// The subtrees whose hashes are the consistency path from `old` to `new` leaves (RFC 6962, 2.1.2,
/// SUBPROOF), in the order of the path. The caller has checked `0 < old <= new`.
pub(crate) fn consistency_ranges(old: u64, new: u64) -> Vec<(u64, u64)> {
    let mut ranges = Vec::with_capacity(MAX_CONSISTENCY_PATH);
    let (mut lo, mut hi) = (0, new);
    // While nothing on the left was cut off, the old tree's root is known to the verifier.
    let mut known = true;
    while old != hi {
        let middle = lo + split(hi - lo);
        if old <= middle {
            ranges.push((middle, hi));
            hi = middle;
        } else {
            ranges.push((lo, middle));
            lo = middle;
            known = false;
        }
    }
    if !known {
        ranges.push((lo, hi));
    }
    ranges.reverse();
    ranges
}

#[cfg(test)]
pub(crate) mod tests;
