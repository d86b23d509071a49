//! Proofs out of a store of complete nodes.

use crate::hash::Hash;

use super::{TreeError, check_index, check_size, consistency_ranges, inclusion_ranges, is_subtree, node_hash};

/// A store that can answer for the complete subtrees of one tree.
///
/// A proof for a tree of n leaves asks only for nodes that lie wholly inside its first n leaves.
/// The hashes need not be trusted: a proof made of wrong ones does not verify.
pub trait HashReader {
    /// Why a node cannot be read.
    type Error: std::error::Error + 'static;

    /// The hash of the complete subtree of 2^`level` leaves (`level` at most 62) that starts at
    /// leaf `index` * 2^`level`. Level 0 holds the leaf hashes.
    ///
    /// # Errors
    /// The store's own.
    fn node(&self, level: u8, index: u64) -> Result<Hash, Self::Error>;
}

/// Why a proof cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum ReadError<E: std::error::Error + 'static> {
    /// The question makes no sense for a tree of this size.
    #[error(transparent)]
    Tree(#[from] TreeError),
    /// The store did not answer.
    #[error("the tree's node {index} at level {level} cannot be read")]
    Node {
        /// The level, 0 for leaves.
        level: u8,
        /// The node's index within the level.
        index: u64,
        /// The store's error.
        #[source]
        source: E,
    },
}

/// The hash of the subtree over the leaves [lo, hi): MTH(D\[lo:hi\]) of RFC 6962. It is a node of
/// every tree of at least `hi` leaves if it is complete, and otherwise of those of exactly `hi`.
///
/// At most 63 reads, one for each set bit of `hi - lo`.
///
/// # Errors
/// [`TreeError::NotASubtree`] unless `lo` is a multiple of the smallest power of two that is not
/// below `hi - lo`; [`ReadError::Node`].
pub fn subtree_hash<R: HashReader + ?Sized>(reader: &R, lo: u64, hi: u64) -> Result<Hash, ReadError<R::Error>> {
    if !is_subtree(lo, hi) {
        return Err(TreeError::NotASubtree { lo, hi }.into());
    }
    // Complete subtrees from the right edge leftwards: their sizes are the set bits of the width.
    let mut rest = hi - lo;
    let mut hash = None;
    while rest != 0 {
        let level = rest.trailing_zeros();
        rest &= rest - 1;
        let (level, index) = (level as u8, (lo + rest) >> level);
        let left = reader.node(level, index).map_err(|source| ReadError::Node { level, index, source })?;
        hash = Some(match hash {
            None => left,
            Some(right) => node_hash(left, right),
        });
    }
    Ok(hash.unwrap_or(Hash::OF_EMPTY))
}

/// The root of the tree of the first `size` leaves.
///
/// # Errors
/// [`TreeError::TooLarge`], [`ReadError::Node`].
pub fn root_at<R: HashReader + ?Sized>(reader: &R, size: u64) -> Result<Hash, ReadError<R::Error>> {
    check_size(size)?;
    if size == 0 {
        return Ok(Hash::OF_EMPTY);
    }
    subtree_hash(reader, 0, size)
}

/// The inclusion path of leaf `index` in the tree of the first `size` leaves, from the leaf's
/// sibling up (RFC 6962, 2.1.1). At most 63 hashes, at most 125 reads.
///
/// # Errors
/// [`TreeError::TooLarge`], [`TreeError::OutsideTree`], [`ReadError::Node`].
pub fn inclusion_path<R: HashReader + ?Sized>(
    reader: &R,
    index: u64,
    size: u64,
) -> Result<Vec<Hash>, ReadError<R::Error>> {
    check_index(index, size)?;
    inclusion_ranges(index, size).map(|(lo, hi)| subtree_hash(reader, lo, hi)).collect()
}

/// The consistency path between the trees of the first `old` and the first `new` leaves (RFC 6962,
/// 2.1.2). Empty if `old` is 0 or equal to `new`; otherwise at most 64 hashes.
///
/// # Errors
/// [`TreeError::TooLarge`], [`TreeError::Shrinks`], [`ReadError::Node`].
pub fn consistency_path<R: HashReader + ?Sized>(
    reader: &R,
    old: u64,
    new: u64,
) -> Result<Vec<Hash>, ReadError<R::Error>> {
    check_size(new)?;
    if old > new {
        return Err(TreeError::Shrinks { old, new }.into());
    }
    if old == 0 || old == new {
        return Ok(Vec::new());
    }
    consistency_ranges(old, new).into_iter().map(|(lo, hi)| subtree_hash(reader, lo, hi)).collect()
}
