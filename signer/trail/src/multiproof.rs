//! One proof for many leaves of one tree.
//!
//! The proof is a list of hashes whose places follow from the tree's size and the wanted indexes
//! alone. It is made and read by the same recursion over RFC 6962's split (2.1), starting with
//! [0, size): a range without a wanted leaf contributes its hash as the next of the list; a single
//! wanted leaf contributes nothing, for the verifier has its hash; any other range is split at the
//! largest power of two below its width, and the left half comes first.
//!
//! For one leaf these are the hashes of its inclusion path, in the order of that recursion; for
//! all leaves of a tree the list is empty. Every wanted leaf's own inclusion path follows from a
//! valid proof, so a batch's answer carries each hash once.

mod batch;

use crate::hash::Hash;
use crate::tree::{TreeError, check_index, inclusion_path_len, node_hash, split};

pub use batch::BatchTree;

/// The most leaves of one proof: eight batches of 8,192.
pub const MAX_LEAVES: usize = 8 * 8_192;

/// Why a proof for many leaves cannot be made, or does not hold.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MultiproofError {
    /// A size or an index is out of bounds.
    #[error(transparent)]
    Tree(#[from] TreeError),
    /// No leaf is wanted: there is nothing to prove.
    #[error("a proof needs at least one leaf")]
    NoLeaves,
    /// More leaves than [`MAX_LEAVES`].
    #[error("a proof for {0} leaves is beyond the bound of {MAX_LEAVES}")]
    TooManyLeaves(usize),
    /// The wanted indexes are not strictly ascending, at this place of the list.
    #[error("the wanted leaves are not in strictly ascending order at place {0}")]
    NotAscending(usize),
    /// The list of hashes ends too early.
    #[error("the proof has {0} hashes, too few for these leaves")]
    TooShort(usize),
    /// Hashes are left over.
    #[error("the proof has {given} hashes, but these leaves need {used}")]
    TooLong {
        /// The number of hashes that the leaves need.
        used: usize,
        /// The number of hashes given.
        given: usize,
    },
    /// A node before the batch was asked of a [`BatchTree`], which does not hold it.
    #[error("the leaves {lo} to {hi} (exclusive) are no subtree that this batch knows")]
    NotInBatch {
        /// The first leaf of the range.
        lo: u64,
        /// The leaf after the last.
        hi: u64,
    },
}

/// Checks the list of wanted leaves: not empty, bounded, strictly ascending, inside the tree.
fn check_wanted(indexes: impl ExactSizeIterator<Item = u64>, size: u64) -> Result<(), MultiproofError> {
    if indexes.len() == 0 {
        return Err(MultiproofError::NoLeaves);
    }
    if indexes.len() > MAX_LEAVES {
        return Err(MultiproofError::TooManyLeaves(indexes.len()));
    }
    let mut before = None;
    for (place, index) in indexes.enumerate() {
        check_index(index, size)?;
        if before.is_some_and(|before| before >= index) {
            return Err(MultiproofError::NotAscending(place));
        }
        before = Some(index);
    }
    Ok(())
}

/// Makes the proof for the leaves `wanted` (indexes, strictly ascending, 1 to [`MAX_LEAVES`]) of
/// the tree of `size` leaves. `node(lo, hi)` answers MTH(D\[lo:hi\]); it is asked once for each
/// hash of the proof, at most 63 for each wanted leaf.
///
/// # Errors
/// [`MultiproofError::Tree`], [`MultiproofError::NoLeaves`], [`MultiproofError::TooManyLeaves`],
/// [`MultiproofError::NotAscending`], converted to the closure's error type; the closure's own.
pub fn prove<E: From<MultiproofError>>(
    wanted: &[u64],
    size: u64,
    node: &mut impl FnMut(u64, u64) -> Result<Hash, E>,
) -> Result<Vec<Hash>, E> {
    check_wanted(wanted.iter().copied(), size)?;
    let mut proof = Vec::new();
    prove_range(wanted, 0, size, node, &mut proof)?;
    Ok(proof)
}

/// The recursion of [`prove`]; its depth is at most 63, the height of the largest tree.
fn prove_range<E>(
    wanted: &[u64],
    lo: u64,
    hi: u64,
    node: &mut impl FnMut(u64, u64) -> Result<Hash, E>,
    proof: &mut Vec<Hash>,
) -> Result<(), E> {
    if wanted.is_empty() {
        proof.push(node(lo, hi)?);
        return Ok(());
    }
    // Every leaf of the range is wanted: no hash comes from below.
    if wanted.len() as u64 == hi - lo {
        return Ok(());
    }
    let middle = lo + split(hi - lo);
    let (left, right) = wanted.split_at(wanted.partition_point(|&index| index < middle));
    prove_range(left, lo, middle, node, proof)?;
    prove_range(right, middle, hi, node, proof)
}

/// The root that a proof leads to. `wanted` holds (index, leaf hash), strictly ascending by index.
///
/// The caller compares the root with a signed one; until then nothing is proven.
///
/// # Errors
/// [`MultiproofError`], every variant but `NotInBatch`.
pub fn root(wanted: &[(u64, Hash)], size: u64, proof: &[Hash]) -> Result<Hash, MultiproofError> {
    check_wanted(wanted.iter().map(|leaf| leaf.0), size)?;
    Reading::new(proof).all(wanted, size, &mut [])
}

/// The root that a proof leads to, and each wanted leaf's RFC 9162 inclusion path to that root, in
/// the order of `wanted`: at most 63 hashes each.
///
/// The caller compares the root with a signed one; until then nothing is proven.
///
/// # Errors
/// [`MultiproofError`], every variant but `NotInBatch`.
pub fn verify(wanted: &[(u64, Hash)], size: u64, proof: &[Hash]) -> Result<(Hash, Vec<Vec<Hash>>), MultiproofError> {
    check_wanted(wanted.iter().map(|leaf| leaf.0), size)?;
    let mut paths = Vec::with_capacity(wanted.len());
    for (index, _) in wanted {
        paths.push(Vec::with_capacity(inclusion_path_len(*index, size)?));
    }
    let root = Reading::new(proof).all(wanted, size, &mut paths)?;
    Ok((root, paths))
}

/// A proof being read from its front.
struct Reading<'a> {
    proof: &'a [Hash],
    used: usize,
}

impl<'a> Reading<'a> {
    fn new(proof: &'a [Hash]) -> Reading<'a> {
        Reading { proof, used: 0 }
    }

    /// Reads the proof for the whole tree, to its very end.
    fn all(mut self, wanted: &[(u64, Hash)], size: u64, paths: &mut [Vec<Hash>]) -> Result<Hash, MultiproofError> {
        let root = self.range(wanted, paths, 0, size)?;
        if self.used != self.proof.len() {
            return Err(MultiproofError::TooLong { used: self.used, given: self.proof.len() });
        }
        Ok(root)
    }

    /// The hash of [lo, hi). `paths` is parallel to `wanted`, or empty if no paths are asked for.
    fn range(
        &mut self,
        wanted: &[(u64, Hash)],
        paths: &mut [Vec<Hash>],
        lo: u64,
        hi: u64,
    ) -> Result<Hash, MultiproofError> {
        let Some((_, leaf)) = wanted.first() else {
            let next = self.proof.get(self.used).copied();
            self.used += 1;
            return next.ok_or(MultiproofError::TooShort(self.proof.len()));
        };
        if hi - lo == 1 {
            return Ok(*leaf);
        }
        let middle = lo + split(hi - lo);
        let place = wanted.partition_point(|(index, _)| *index < middle);
        let (left, right) = wanted.split_at(place);
        let (left_paths, right_paths) = paths.split_at_mut(place.min(paths.len()));
        let left = self.range(left, left_paths, lo, middle)?;
        let right = self.range(right, right_paths, middle, hi)?;
        left_paths.iter_mut().for_each(|path| path.push(right));
        right_paths.iter_mut().for_each(|path| path.push(left));
        Ok(node_hash(left, right))
    }
}

#[cfg(test)]
mod tests;
