//! Verification of inclusion and consistency, by the algorithms of RFC 9162.

use crate::hash::Hash;

use super::{TreeError, check_index, check_size, node_hash};

/// The root that an inclusion path leads to (RFC 9162, 2.1.3.2, without the final comparison):
/// `leaf` is the leaf's hash, `index` its index from 0, `size` the tree's size in leaves.
///
/// # Errors
/// [`TreeError::TooLarge`], [`TreeError::OutsideTree`], [`TreeError::PathTooShort`],
/// [`TreeError::PathTooLong`].
pub fn root_from_inclusion(leaf: Hash, index: u64, size: u64, path: &[Hash]) -> Result<Hash, TreeError> {
    check_index(index, size)?;
    let (mut node, mut last) = (index, size - 1);
    let mut root = leaf;
    for &sibling in path {
        if last == 0 {
            return Err(TreeError::PathTooLong(path.len()));
        }
        if node & 1 == 1 || node == last {
            root = node_hash(sibling, root);
            shift_to_odd(&mut node, &mut last);
        } else {
            root = node_hash(root, sibling);
        }
        node >>= 1;
        last >>= 1;
    }
    if last != 0 {
        return Err(TreeError::PathTooShort(path.len()));
    }
    Ok(root)
}

/// Verifies that the leaf with hash `leaf` stands at `index` in the tree of `size` leaves with
/// this `root` (RFC 9162, 2.1.3.2).
///
/// # Errors
/// Those of [`root_from_inclusion`], and [`TreeError::RootMismatch`].
pub fn verify_inclusion(leaf: Hash, index: u64, size: u64, path: &[Hash], root: Hash) -> Result<(), TreeError> {
    let actual = root_from_inclusion(leaf, index, size, path)?;
    if actual != root {
        return Err(TreeError::RootMismatch { expected: root, actual });
    }
    Ok(())
}

/// Verifies that the tree of `old_size` leaves with `old_root` is a prefix of the tree of
/// `new_size` leaves with `new_root` (RFC 9162, 2.1.4.2).
///
/// The RFC leaves two cases open. Equal sizes: the path is empty and the roots are equal. An old
/// size of 0: the path is empty and the old root is that of the empty tree; every tree extends it.
///
/// # Errors
/// [`TreeError::TooLarge`], [`TreeError::Shrinks`], [`TreeError::PathTooShort`],
/// [`TreeError::PathTooLong`], [`TreeError::OldRootMismatch`], [`TreeError::RootMismatch`].
pub fn verify_consistency(
    old_size: u64,
    new_size: u64,
    path: &[Hash],
    old_root: Hash,
    new_root: Hash,
) -> Result<(), TreeError> {
    check_size(new_size)?;
    if old_size > new_size {
        return Err(TreeError::Shrinks { old: old_size, new: new_size });
    }
    if old_size == 0 || old_size == new_size {
        return verify_trivial(old_size, new_size, path, old_root, new_root);
    }
    let Some((&head, tail)) = path.split_first() else {
        return Err(TreeError::PathTooShort(0));
    };
    // The root of a complete old tree is the first hash of the path and is not repeated in it.
    let (first, rest) = if old_size.is_power_of_two() { (old_root, path) } else { (head, tail) };
    let (mut node, mut last) = (old_size - 1, new_size - 1);
    let complete = node.trailing_ones();
    node >>= complete;
    last >>= complete;
    let (mut old, mut new) = (first, first);
    for &hash in rest {
        if last == 0 {
            return Err(TreeError::PathTooLong(path.len()));
        }
        if node & 1 == 1 || node == last {
            old = node_hash(hash, old);
            new = node_hash(hash, new);
            shift_to_odd(&mut node, &mut last);
        } else {
            new = node_hash(new, hash);
        }
        node >>= 1;
        last >>= 1;
    }
    if last != 0 {
        return Err(TreeError::PathTooShort(path.len()));
    }
    same_roots(old, new, old_root, new_root)
}

/// The two cases without a path: an empty old tree, and the same tree twice.
fn verify_trivial(
    old_size: u64,
    new_size: u64,
    path: &[Hash],
    old_root: Hash,
    new_root: Hash,
) -> Result<(), TreeError> {
    if !path.is_empty() {
        return Err(TreeError::PathTooLong(path.len()));
    }
    let old = if old_size == 0 { Hash::OF_EMPTY } else { old_root };
    let new = if old_size == new_size { old } else { new_root };
    same_roots(old, new, old_root, new_root)
}

/// Compares the roots that a proof leads to with those that the caller holds.
fn same_roots(old: Hash, new: Hash, old_root: Hash, new_root: Hash) -> Result<(), TreeError> {
    if old != old_root {
        return Err(TreeError::OldRootMismatch { expected: old_root, actual: old });
    }
    if new != new_root {
        return Err(TreeError::RootMismatch { expected: new_root, actual: new });
    }
    Ok(())
}

/// "If LSB(fn) is not set, then right-shift both fn and sn equally until either LSB(fn) is set or
/// fn is 0."
fn shift_to_odd(node: &mut u64, last: &mut u64) {
    while *node & 1 == 0 && *node != 0 {
        *node >>= 1;
        *last >>= 1;
    }
}
