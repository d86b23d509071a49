//! Proofs about trees: made for small trees and changed, and made up altogether.
#![no_main]

use countersign_trail::hash::Hash;
use countersign_trail::multiproof::{self, BatchTree};
use countersign_trail::tree::{
    CompactRange, inclusion_path_len, leaf_hash, root_from_inclusion, verify_consistency, verify_inclusion,
};
use libfuzzer_sys::fuzz_target;

/// Leaves of the largest tree that is made.
const LEAVES: usize = 70;

fn seeds() {
    let genuine = (1..64).map(|size| vec![0, size, size / 2, size / 3, 0xff, 0x0f, 0, 0, 0, 0, 0, 0, 0, 0]);
    let mut made_up = vec![1];
    for (size, wanted) in [(1_u64, 1_u64), (3, 0b101), (1 << 62, 0b11)] {
        made_up.extend(size.to_be_bytes().into_iter().chain(wanted.to_be_bytes()));
        made_up.extend([7; 96]);
        countersign_fuzz::seed([&made_up]);
        made_up.truncate(1);
    }
    countersign_fuzz::seed(genuine);
}

fuzz_target!(init: seeds(), |bytes: &[u8]| match bytes.split_first() {
    Some((0, rest)) => genuine(rest),
    Some((1, rest)) => made_up(rest),
    _ => {}
});

fn leaf(at: usize) -> Hash {
    leaf_hash(&(at as u64).to_be_bytes())
}

/// A tree, of which every proof holds, and none does once it is changed.
fn genuine(bytes: &[u8]) {
    let Some(([size, old, index, wanted @ ..], rest)) = bytes.split_first_chunk::<11>() else { return };
    let size = usize::from(*size) % LEAVES + 1;
    let (old, index) = (usize::from(*old) % (size + 1), usize::from(*index) % size);
    let leaves: Vec<Hash> = (0..size).map(leaf).collect();
    let tree = BatchTree::new(&CompactRange::empty(), &leaves).unwrap();
    let mut compact = CompactRange::empty();
    leaves[..old].iter().for_each(|leaf| compact.push(*leaf).unwrap());
    let after = BatchTree::new(&compact, &leaves[old..]).unwrap();
    assert_eq!(after.root(), tree.root());
    let (size, old, at) = (size as u64, old as u64, index as u64);

    let path = tree.inclusion_path(at).unwrap();
    assert_eq!(path.len(), inclusion_path_len(at, size).unwrap());
    verify_inclusion(leaf(index), at, size, &path, tree.root()).unwrap();
    if let Some(other) = changed(&path, rest) {
        assert!(verify_inclusion(leaf(index), at, size, &other, tree.root()).is_err());
    }

    let path = after.consistency_path().unwrap();
    verify_consistency(old, size, &path, compact.root(), tree.root()).unwrap();
    if let Some(other) = changed(&path, rest) {
        assert!(verify_consistency(old, size, &other, compact.root(), tree.root()).is_err());
    }

    let chosen = u64::from_be_bytes(*wanted);
    let wanted: Vec<u64> = (0..size).filter(|at| chosen >> (at % 64) & 1 == 1).collect();
    let Ok(proof) = tree.multiproof(&wanted) else {
        assert!(wanted.is_empty());
        return;
    };
    let leaves: Vec<(u64, Hash)> = wanted.iter().map(|at| (*at, leaf(*at as usize))).collect();
    assert_eq!(multiproof::root(&leaves, size, &proof), Ok(tree.root()));
    assert_agree(&leaves, size, &proof);
    if let Some(other) = changed(&proof, rest) {
        assert_ne!(multiproof::root(&leaves, size, &other), Ok(tree.root()));
    }
}

/// The proof with one hash changed, removed or added; none where there is no change.
fn changed(proof: &[Hash], change: &[u8]) -> Option<Vec<Hash>> {
    let [kind, at, value, ..] = *change else { return None };
    let mut other = proof.to_vec();
    // A new one may stand behind the last.
    let (new, at) = (usize::from(at) % (proof.len() + 1), usize::from(at) % proof.len().max(1));
    match kind % 3 {
        0 if !other.is_empty() => {
            let mut bytes = other[at].to_bytes();
            bytes[usize::from(value) % 32] ^= 1 << (value >> 5);
            other[at] = Hash::from_bytes(bytes);
        }
        1 if !other.is_empty() => drop(other.remove(at)),
        _ => other.insert(new, Hash::from_bytes([value; 32])),
    }
    Some(other)
}

/// Any size, indexes and hashes.
fn made_up(bytes: &[u8]) {
    let Some(([size, wanted], rest)) = bytes.split_first_chunk::<16>().map(|(head, rest)| {
        let (numbers, _) = head.as_chunks::<8>();
        ([u64::from_be_bytes(numbers[0]), u64::from_be_bytes(numbers[1])], rest)
    }) else {
        return;
    };
    let (hashes, _) = rest.as_chunks::<32>();
    let proof: Vec<Hash> = hashes.iter().copied().map(Hash::from_bytes).collect();
    // The bits of the number: places spread over the whole tree.
    let step = size / 64 + 1;
    let leaves: Vec<(u64, Hash)> =
        (0..64).filter(|bit| wanted >> bit & 1 == 1).map(|bit| (bit * step, leaf(bit as usize))).collect();
    assert_agree(&leaves, size, &proof);
    if let Ok(range) = CompactRange::from_nodes(size, proof.clone()) {
        assert_eq!((range.size(), range.nodes()), (size, proof.as_slice()));
    }
    for (at, leaf) in leaves {
        if root_from_inclusion(leaf, at, size, &proof).is_ok() {
            assert_eq!(inclusion_path_len(at, size), Ok(proof.len()));
        }
        // Two trees whose roots are made up are not one the prefix of the other.
        let (one, two) = (Hash::of(b"one"), Hash::of(b"two"));
        assert!(verify_consistency(at, size, &proof, one, two).is_err());
    }
}

/// Both readers of a proof agree, and each path that the second gives proves its leaf by itself.
fn assert_agree(leaves: &[(u64, Hash)], size: u64, proof: &[Hash]) {
    let root = multiproof::root(leaves, size, proof);
    let verified = multiproof::verify(leaves, size, proof);
    assert_eq!(root, verified.as_ref().map(|(root, _)| *root).map_err(Clone::clone));
    let Ok((root, paths)) = verified else { return };
    assert_eq!(paths.len(), leaves.len());
    for ((at, leaf), path) in leaves.iter().zip(paths) {
        assert_eq!(root_from_inclusion(*leaf, *at, size, &path), Ok(root));
    }
}
