use std::collections::HashMap;
use std::convert::Infallible;

use proptest::prelude::*;

use super::*;

/// The largest tree of the exhaustive tests.
const SIZES: u64 = 70;

pub(crate) fn leaves(count: u64) -> Vec<Hash> {
    (0..count).map(|i| leaf_hash(&i.to_be_bytes())).collect()
}

/// MTH of RFC 6962, 2.1, straight from its definition.
pub(crate) fn mth(leaves: &[Hash]) -> Hash {
    match leaves.len() {
        0 => Hash::of(b""),
        1 => leaves[0],
        n => {
            let mut k = 1;
            while 2 * k < n {
                k *= 2;
            }
            node_hash(mth(&leaves[..k]), mth(&leaves[k..]))
        }
    }
}

/// A store of complete nodes that panics when it is asked beyond its leaves.
pub(crate) struct Store<'a>(pub(crate) &'a [Hash]);

impl HashReader for Store<'_> {
    type Error = Infallible;

    fn node(&self, level: u8, index: u64) -> Result<Hash, Infallible> {
        let lo = (index << level) as usize;
        Ok(mth(&self.0[lo..lo + (1 << level)]))
    }
}

fn flipped(hash: Hash) -> Hash {
    let mut bytes = hash.to_bytes();
    bytes[17] ^= 4;
    Hash::from_bytes(bytes)
}

/// Every way in which a list of hashes differs by one hash: changed, dropped, doubled, swapped.
fn mutations(path: &[Hash]) -> Vec<Vec<Hash>> {
    let mut all = Vec::new();
    for i in 0..path.len() {
        let mut changed = path.to_vec();
        changed[i] = flipped(changed[i]);
        all.push(changed);
        let mut dropped = path.to_vec();
        dropped.remove(i);
        all.push(dropped);
        let mut doubled = path.to_vec();
        doubled.insert(i, path[i]);
        all.push(doubled);
        if i > 0 {
            let mut swapped = path.to_vec();
            swapped.swap(i - 1, i);
            all.push(swapped);
        }
    }
    let mut longer = path.to_vec();
    longer.push(Hash::OF_EMPTY);
    all.push(longer);
    all
}

#[test]
fn inclusion_holds_for_every_leaf_of_every_size_and_no_mutation_of_it_does() {
    let all = leaves(SIZES);
    for size in 1..=SIZES {
        let tree = &all[..size as usize];
        let root = mth(tree);
        assert_eq!(root_at(&Store(tree), size).unwrap(), root);
        for index in 0..size {
            let leaf = all[index as usize];
            let path = inclusion_path(&Store(tree), index, size).unwrap();
            assert_eq!(path.len(), inclusion_path_len(index, size).unwrap());
            verify_inclusion(leaf, index, size, &path, root).unwrap();
            for wrong in mutations(&path) {
                verify_inclusion(leaf, index, size, &wrong, root).unwrap_err();
            }
            verify_inclusion(flipped(leaf), index, size, &path, root).unwrap_err();
            verify_inclusion(leaf, index, size, &path, flipped(root)).unwrap_err();
            for other in 0..=size {
                if other != index {
                    verify_inclusion(leaf, other, size, &path, root).unwrap_err();
                }
            }
        }
    }
}

#[test]
fn consistency_holds_for_every_pair_of_sizes_and_no_mutation_of_it_does() {
    let all = leaves(SIZES);
    let roots: Vec<Hash> = (0..=SIZES).map(|n| mth(&all[..n as usize])).collect();
    for new in 0..=SIZES {
        let store = Store(&all[..new as usize]);
        for old in 0..=new {
            let path = consistency_path(&store, old, new).unwrap();
            let (old_root, new_root) = (roots[old as usize], roots[new as usize]);
            verify_consistency(old, new, &path, old_root, new_root).unwrap();
            for wrong in mutations(&path) {
                verify_consistency(old, new, &wrong, old_root, new_root).unwrap_err();
            }
            verify_consistency(old, new, &path, flipped(old_root), new_root).unwrap_err();
            if old != 0 {
                verify_consistency(old, new, &path, old_root, flipped(new_root)).unwrap_err();
            }
            if old != new {
                verify_consistency(new, old, &path, new_root, old_root).unwrap_err();
            }
        }
        consistency_path(&store, new + 1, new).unwrap_err();
    }
}

#[test]
fn a_compact_range_grows_as_the_tree_does() {
    let all = leaves(SIZES);
    let mut range = CompactRange::empty();
    assert_eq!(range.root(), Hash::OF_EMPTY);
    for (size, leaf) in (1..).zip(&all) {
        range.push(*leaf).unwrap();
        assert_eq!(range.size(), size);
        assert_eq!(range.root(), mth(&all[..size as usize]));
        let again = CompactRange::from_nodes(size, range.nodes().to_vec()).unwrap();
        assert_eq!(again, range);
    }
}

#[test]
fn a_frontier_has_one_hash_for_each_set_bit() {
    let hash = Hash::OF_EMPTY;
    assert!(CompactRange::from_nodes(0, vec![]).is_ok());
    assert!(CompactRange::from_nodes(0, vec![hash]).is_err());
    assert!(CompactRange::from_nodes(5, vec![hash; 2]).is_ok());
    assert_eq!(
        CompactRange::from_nodes(5, vec![hash; 3]),
        Err(TreeError::Frontier { size: 5, expected: 2, actual: 3 })
    );
    assert_eq!(CompactRange::from_nodes(1 << 63, vec![hash]), Err(TreeError::TooLarge(1 << 63)));
}

#[test]
fn the_largest_tree_is_full() {
    let mut range = CompactRange::from_nodes(MAX_SIZE, vec![Hash::OF_EMPTY; 63]).unwrap();
    let before = range.clone();
    assert_eq!(range.push(Hash::OF_EMPTY), Err(TreeError::TooLarge(1 << 63)));
    assert_eq!(range, before);
}

/// A tree of 2^63 - 1 leaves whose complete nodes of one level are all the same.
struct Uniform(Vec<Hash>);

impl Uniform {
    fn new() -> Uniform {
        let mut levels = vec![leaf_hash(b"")];
        for level in 0..62 {
            levels.push(node_hash(levels[level], levels[level]));
        }
        Uniform(levels)
    }
}

impl HashReader for Uniform {
    type Error = Infallible;

    fn node(&self, level: u8, index: u64) -> Result<Hash, Infallible> {
        assert!((index + 1) << level <= MAX_SIZE, "{level} {index}");
        Ok(self.0[usize::from(level)])
    }
}

#[test]
fn proofs_reach_the_largest_size_and_their_documented_lengths() {
    let tree = Uniform::new();
    let root = root_at(&tree, MAX_SIZE).unwrap();
    let path = inclusion_path(&tree, 0, MAX_SIZE).unwrap();
    assert_eq!(path.len(), MAX_INCLUSION_PATH);
    verify_inclusion(leaf_hash(b""), 0, MAX_SIZE, &path, root).unwrap();
    let last = inclusion_path(&tree, MAX_SIZE - 1, MAX_SIZE).unwrap();
    verify_inclusion(leaf_hash(b""), MAX_SIZE - 1, MAX_SIZE, &last, root).unwrap();
    // The old tree's last subtree is a leaf at the greatest depth.
    let path = consistency_path(&tree, 3, MAX_SIZE).unwrap();
    assert_eq!(path.len(), MAX_CONSISTENCY_PATH);
    let old = root_at(&tree, 3).unwrap();
    verify_consistency(3, MAX_SIZE, &path, old, root).unwrap();
}

#[test]
fn sizes_and_indexes_out_of_bounds_are_refused() {
    let (hash, beyond) = (Hash::OF_EMPTY, MAX_SIZE + 1);
    assert_eq!(root_from_inclusion(hash, 0, beyond, &[]), Err(TreeError::TooLarge(beyond)));
    assert_eq!(root_from_inclusion(hash, 0, 0, &[]), Err(TreeError::OutsideTree { index: 0, size: 0 }));
    assert_eq!(verify_consistency(0, beyond, &[], hash, hash), Err(TreeError::TooLarge(beyond)));
    assert_eq!(verify_consistency(u64::MAX, u64::MAX, &[], hash, hash), Err(TreeError::TooLarge(u64::MAX)));
    assert_eq!(verify_consistency(1, 2, &[], hash, hash), Err(TreeError::PathTooShort(0)));
    assert!(root_at(&Store(&[]), beyond).is_err());
    assert!(inclusion_path(&Store(&[]), 0, 0).is_err());
    for (lo, hi) in [(0, 0), (1, 3), (4, 4), (6, 5), (0, beyond), (2, 6)] {
        assert!(subtree_hash(&Store(&[]), lo, hi).is_err(), "{lo} {hi}");
    }
}

#[test]
fn the_empty_tree_is_extended_by_any_and_by_its_own_root_only() {
    let (empty, other) = (Hash::OF_EMPTY, leaf_hash(b""));
    verify_consistency(0, 1, &[], empty, other).unwrap();
    verify_consistency(0, 0, &[], empty, empty).unwrap();
    verify_consistency(0, 1, &[], other, other).unwrap_err();
    verify_consistency(0, 0, &[], other, other).unwrap_err();
    verify_consistency(0, 0, &[], empty, other).unwrap_err();
    verify_consistency(0, 1, &[other], empty, other).unwrap_err();
    verify_consistency(1, 1, &[other], other, other).unwrap_err();
}

/// The eight leaves and their published roots and proofs of the Certificate Transparency project
/// (its C++ and Go Merkle tree tests; today transparency-dev/merkle, proof/verify_test.go).
mod certificate_transparency {
    use super::*;

    fn hash(text: &str) -> Hash {
        text.parse().unwrap()
    }

    fn data() -> Vec<Hash> {
        ["", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f"]
            .iter()
            .map(|text| leaf_hash(&hex::decode(text).unwrap()))
            .collect()
    }

    const ROOTS: [&str; 8] = [
        "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
        "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
        "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
        "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
        "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
        "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
        "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
    ];

    const N1: &str = "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7";
    const N23: &str = "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e";
    const N47: &str = "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4";
    const N4: &str = "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b";
    const N67: &str = "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0";
    const N45: &str = "0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a";
    const N6: &str = "b08693ec2e721597130641e8211e7eedccb4c26413963eee6c1e2ed16ffb1a5f";

    #[test]
    fn roots() {
        let (data, mut range) = (data(), CompactRange::empty());
        for (size, root) in (1..).zip(ROOTS) {
            range.push(data[size - 1]).unwrap();
            assert_eq!(range.root(), hash(root));
            assert_eq!(root_at(&Store(&data), size as u64).unwrap(), hash(root));
        }
    }

    #[test]
    fn inclusion_paths() {
        let data = data();
        // Indexes from 0; the published ones count from 1.
        let known: [(u64, u64, &[&str]); 5] = [
            (0, 1, &[]),
            (0, 8, &[N1, N23, N47]),
            (5, 8, &[N4, N67, ROOTS[3]]),
            (2, 3, &[ROOTS[1]]),
            (1, 5, &[ROOTS[0], N23, N4]),
        ];
        for (index, size, path) in known {
            let path: Vec<Hash> = path.iter().map(|text| hash(text)).collect();
            let root = hash(ROOTS[size as usize - 1]);
            assert_eq!(inclusion_path(&Store(&data), index, size).unwrap(), path);
            verify_inclusion(data[index as usize], index, size, &path, root).unwrap();
        }
    }

    #[test]
    fn consistency_paths() {
        let data = data();
        let known: [(u64, u64, &[&str]); 5] = [
            (1, 1, &[]),
            (1, 8, &[N1, N23, N47]),
            (6, 8, &[N45, N67, ROOTS[3]]),
            (2, 5, &[N23, N4]),
            (6, 7, &[N45, N6, ROOTS[3]]),
        ];
        for (old, new, path) in known {
            let path: Vec<Hash> = path.iter().map(|text| hash(text)).collect();
            let roots = (hash(ROOTS[old as usize - 1]), hash(ROOTS[new as usize - 1]));
            assert_eq!(consistency_path(&Store(&data), old, new).unwrap(), path);
            verify_consistency(old, new, &path, roots.0, roots.1).unwrap();
        }
    }
}

/// A store that fails for one node.
struct Failing<'a>(Store<'a>, (u8, u64));

#[derive(Debug, thiserror::Error)]
#[error("gone")]
struct Gone;

impl HashReader for Failing<'_> {
    type Error = Gone;

    fn node(&self, level: u8, index: u64) -> Result<Hash, Gone> {
        if (level, index) == self.1 {
            return Err(Gone);
        }
        let Ok(hash) = self.0.node(level, index);
        Ok(hash)
    }
}

#[test]
fn a_store_that_fails_is_named_in_the_error() {
    let all = leaves(7);
    let error = inclusion_path(&Failing(Store(&all), (1, 2)), 0, 7).unwrap_err();
    assert!(matches!(error, ReadError::Node { level: 1, index: 2, source: Gone }));
    inclusion_path(&Failing(Store(&all), (1, 2)), 0, 4).unwrap();
}

proptest! {
    #[test]
    fn nothing_panics_and_nothing_wrong_verifies(
        index: u64, size: u64, old: u64, count in 0usize..70, seed: u64,
    ) {
        let path: Vec<Hash> = (0..count as u64)
            .map(|i| leaf_hash(&(seed ^ i).to_be_bytes()))
            .collect();
        let root = leaf_hash(b"root");
        prop_assert!(verify_inclusion(leaf_hash(b"leaf"), index, size, &path, root).is_err());
        prop_assert!(verify_consistency(old, size, &path, leaf_hash(b"old"), root).is_err());
    }

    #[test]
    fn leaves_of_larger_trees(size in 71u64..2_000, at in any::<prop::sample::Index>(), cut in any::<prop::sample::Index>()) {
        let all = leaves(size);
        let index = at.index(size as usize) as u64;
        let old = 1 + cut.index(size as usize) as u64;
        let store = Store(&all);
        let root = mth(&all);
        let path = inclusion_path(&store, index, size).unwrap();
        prop_assert!(verify_inclusion(all[index as usize], index, size, &path, root).is_ok());
        let path = consistency_path(&store, old, size).unwrap();
        let old_root = mth(&all[..old as usize]);
        prop_assert!(verify_consistency(old, size, &path, old_root, root).is_ok());
    }
}

#[test]
fn roots_of_all_sizes_differ() {
    let all = leaves(SIZES);
    let roots: HashMap<Hash, usize> = (0..=SIZES as usize).map(|n| (mth(&all[..n]), n)).collect();
    assert_eq!(roots.len() as u64, SIZES + 1);
}
