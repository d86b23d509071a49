use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;
use crate::tree::tests::{Store, leaves, mth};
use crate::tree::{
    CompactRange, HashReader, MAX_SIZE, consistency_path, inclusion_path, verify_consistency, verify_inclusion,
};

/// The largest tree of the exhaustive tests.
const SIZES: u64 = 70;

fn prove_in(all: &[Hash], wanted: &[u64]) -> Result<Vec<Hash>, MultiproofError> {
    prove(wanted, all.len() as u64, &mut |lo, hi| Ok(mth(&all[lo as usize..hi as usize])))
}

fn with_hashes(all: &[Hash], wanted: &[u64]) -> Vec<(u64, Hash)> {
    wanted.iter().map(|&i| (i, all[i as usize])).collect()
}

/// Checks one proof: its root, every path, and that no list that differs by one hash leads to it.
fn check(all: &[Hash], wanted: &[u64]) {
    let size = all.len() as u64;
    let expected = mth(all);
    let proof = prove_in(all, wanted).unwrap();
    let known = with_hashes(all, wanted);
    let (root_found, paths) = verify(&known, size, &proof).unwrap();
    assert_eq!(root_found, expected);
    assert_eq!(root(&known, size, &proof).unwrap(), expected);
    for (&index, path) in wanted.iter().zip(&paths) {
        assert_eq!(*path, inclusion_path(&Store(all), index, size).unwrap());
        verify_inclusion(all[index as usize], index, size, path, expected).unwrap();
    }
    let other = |hash: Hash| Hash::of(hash.as_bytes());
    for i in 0..proof.len() {
        let mut changed = proof.clone();
        changed[i] = other(changed[i]);
        assert_ne!(root(&known, size, &changed).unwrap(), expected);
        let mut dropped = proof.clone();
        dropped.remove(i);
        assert_eq!(root(&known, size, &dropped), Err(MultiproofError::TooShort(proof.len() - 1)));
    }
    for i in 0..known.len() {
        let mut changed = known.clone();
        changed[i].1 = other(changed[i].1);
        assert_ne!(root(&changed, size, &proof).unwrap(), expected);
    }
    let mut longer = proof.clone();
    longer.push(expected);
    assert_eq!(
        root(&known, size, &longer),
        Err(MultiproofError::TooLong { used: proof.len(), given: proof.len() + 1 })
    );
}

#[test]
fn every_set_of_leaves_of_small_trees() {
    let all = leaves(10);
    for size in 1..=10u64 {
        for set in 1u64..1 << size {
            let wanted: Vec<u64> = (0..size).filter(|i| set >> i & 1 == 1).collect();
            check(&all[..size as usize], &wanted);
        }
    }
}

#[test]
fn every_run_and_every_stride_of_leaves_up_to_70() {
    let all = leaves(SIZES);
    for size in 1..=SIZES {
        let tree = &all[..size as usize];
        for lo in (0..size).step_by(3) {
            check(tree, &(lo..size).collect::<Vec<_>>());
            check(tree, &(lo..size).step_by(5).collect::<Vec<_>>());
            check(tree, &[lo]);
        }
        assert!(prove_in(tree, &(0..size).collect::<Vec<_>>()).unwrap().is_empty());
    }
}

#[test]
fn a_proof_for_one_leaf_has_the_hashes_of_its_inclusion_path() {
    let all = leaves(SIZES);
    for index in 0..SIZES {
        let mut proof = prove_in(&all, &[index]).unwrap();
        let mut path = inclusion_path(&Store(&all), index, SIZES).unwrap();
        proof.sort();
        path.sort();
        assert_eq!(proof, path);
    }
}

#[test]
fn bad_lists_are_refused() {
    let all = leaves(8);
    let cases: [(&[u64], MultiproofError); 4] = [
        (&[], MultiproofError::NoLeaves),
        (&[1, 1], MultiproofError::NotAscending(1)),
        (&[0, 3, 2], MultiproofError::NotAscending(2)),
        (&[7, 8], TreeError::OutsideTree { index: 8, size: 8 }.into()),
    ];
    for (wanted, error) in cases {
        assert_eq!(prove_in(&all, wanted), Err(error.clone()));
        let known: Vec<_> = wanted.iter().map(|&i| (i, Hash::OF_EMPTY)).collect();
        assert_eq!(root(&known, 8, &[]), Err(error.clone()));
        assert_eq!(verify(&known, 8, &[]), Err(error));
    }
    let many: Vec<_> = (0..=MAX_LEAVES as u64).map(|i| (i, Hash::OF_EMPTY)).collect();
    assert_eq!(root(&many, MAX_SIZE, &[]), Err(MultiproofError::TooManyLeaves(MAX_LEAVES + 1)));
    assert_eq!(root(&[(0, Hash::OF_EMPTY)], MAX_SIZE + 1, &[]), Err(TreeError::TooLarge(MAX_SIZE + 1).into()));
}

fn frontier(leaves: &[Hash]) -> CompactRange {
    let mut range = CompactRange::empty();
    for leaf in leaves {
        range.push(*leaf).unwrap();
    }
    range
}

/// Compares everything that a batch's tree answers with plain recomputation.
fn check_batch(all: &[Hash], before: u64) {
    let size = all.len() as u64;
    let old = &all[..before as usize];
    let tree = BatchTree::new(&frontier(old), &all[before as usize..]).unwrap();
    assert_eq!((tree.before(), tree.size()), (before, size));
    assert_eq!(tree.root(), mth(all));
    assert_eq!(tree.after(), frontier(all));
    let path = tree.consistency_path().unwrap();
    assert_eq!(path, consistency_path(&Store(all), before, size).unwrap());
    verify_consistency(before, size, &path, mth(old), mth(all)).unwrap();
    for index in before..size {
        let expected = inclusion_path(&Store(all), index, size).unwrap();
        assert_eq!(tree.inclusion_path(index).unwrap(), expected);
        assert_eq!(inclusion_path(&tree, index, size).unwrap(), expected);
    }
    // Every range that it answers is answered rightly, and those with a leaf of the batch are.
    for lo in 0..=size {
        for hi in lo..=size + 1 {
            let subtree = hi <= size && hi > lo && lo % (hi - lo).next_power_of_two() == 0;
            match tree.node(lo, hi) {
                Some(hash) => assert_eq!(hash, mth(&all[lo as usize..hi as usize])),
                None => assert!(
                    !subtree || hi <= before || !((hi - lo).is_power_of_two() || hi == size),
                    "[{lo}, {hi}) of {before}..{size}"
                ),
            }
        }
    }
    let wanted: Vec<u64> = (before..size).step_by(3).collect();
    if !wanted.is_empty() {
        assert_eq!(tree.multiproof(&wanted), prove_in(all, &wanted));
    }
    let mut new = 0;
    for (level, index, hash) in tree.new_nodes() {
        let (lo, hi) = ((index << level) as usize, ((index + 1) << level) as usize);
        assert_eq!(hash, mth(&all[lo..hi]));
        assert!(hi as u64 > before);
        new += 1;
    }
    // The complete nodes of a tree of n leaves number 2n - (set bits of n).
    let nodes = |n: u64| 2 * n - u64::from(n.count_ones());
    assert_eq!(new, nodes(size) - nodes(before));
}

#[test]
fn batches_at_every_place_of_small_trees() {
    let all = leaves(SIZES);
    for size in 0..=SIZES {
        for before in 0..=size {
            if size <= 20 || before % 5 == 0 || size - before <= 2 {
                check_batch(&all[..size as usize], before);
            }
        }
    }
}

#[test]
fn a_batch_answers_nothing_that_it_does_not_know() {
    let all = leaves(9);
    let tree = BatchTree::new(&frontier(&all[..8]), &all[8..]).unwrap();
    assert_eq!(tree.inclusion_path(9), Err(TreeError::OutsideTree { index: 9, size: 9 }.into()));
    assert_eq!(tree.inclusion_path(3), Err(MultiproofError::NotInBatch { lo: 2, hi: 3 }));
    assert_eq!(tree.multiproof(&[3, 8]), Err(MultiproofError::NotInBatch { lo: 0, hi: 2 }));
    assert_eq!(HashReader::node(&tree, 1, 2), Err(MultiproofError::NotInBatch { lo: 4, hi: 6 }));
    assert!(HashReader::node(&tree, 63, 1).is_err());
    assert!(HashReader::node(&tree, 255, u64::MAX).is_err());
    assert_eq!(tree.node(0, u64::MAX), None);
    assert_eq!(tree.node(0, 0), None);
}

#[test]
fn a_batch_at_the_largest_size() {
    let before = CompactRange::from_nodes(MAX_SIZE - 1, vec![Hash::OF_EMPTY; 62]).unwrap();
    let leaf = leaves(1);
    let tree = BatchTree::new(&before, &leaf).unwrap();
    let mut plain = before.clone();
    plain.push(leaf[0]).unwrap();
    assert_eq!(tree.root(), plain.root());
    assert_eq!(tree.after(), plain);
    let path = tree.inclusion_path(MAX_SIZE - 1).unwrap();
    verify_inclusion(leaf[0], MAX_SIZE - 1, MAX_SIZE, &path, tree.root()).unwrap();
    assert_eq!(BatchTree::new(&before, &leaves(2)).unwrap_err(), TreeError::TooLarge(MAX_SIZE + 1));
}

proptest! {
    #[test]
    fn batches_on_random_trees(before in 0u64..5_000, count in 0u64..600, picks in prop::collection::vec(any::<prop::sample::Index>(), 1..20)) {
        let all = leaves(before + count);
        let size = before + count;
        let tree = BatchTree::new(&frontier(&all[..before as usize]), &all[before as usize..]).unwrap();
        let root_expected = mth(&all);
        prop_assert_eq!(tree.root(), root_expected);
        prop_assert_eq!(tree.after(), frontier(&all));
        if count > 0 {
            let mut wanted: Vec<u64> = picks.iter().map(|pick| before + pick.index(count as usize) as u64).collect();
            wanted.sort();
            wanted.dedup();
            let proof = tree.multiproof(&wanted).unwrap();
            let (root_found, paths) = verify(&with_hashes(&all, &wanted), size, &proof).unwrap();
            prop_assert_eq!(root_found, root_expected);
            for (index, path) in wanted.into_iter().zip(paths) {
                prop_assert_eq!(&tree.inclusion_path(index).unwrap(), &path);
                prop_assert!(verify_inclusion(all[index as usize], index, size, &path, root_expected).is_ok());
            }
        }
    }

    #[test]
    fn no_list_of_hashes_makes_it_panic(
        size: u64, wanted in prop::collection::btree_set(any::<u64>(), 0..10), count in 0usize..200, narrow: bool,
    ) {
        let bound = if narrow { 1 + size % 1_000 } else { size & MAX_SIZE | 1 };
        let indexes: BTreeSet<u64> = wanted.into_iter().map(|index| index % bound).collect();
        let known: Vec<_> = indexes.into_iter().map(|index| (index, Hash::OF_EMPTY)).collect();
        let given = vec![Hash::OF_EMPTY; count];
        // Whatever is accepted was read to its end, and derives paths that lead to the same root.
        if let Ok((root_found, paths)) = verify(&known, bound, &given) {
            for ((index, leaf), path) in known.iter().zip(&paths) {
                prop_assert!(verify_inclusion(*leaf, *index, bound, path, root_found).is_ok());
            }
        }
    }
}
