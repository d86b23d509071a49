//! The hashes that a trail's tiles hold, out of its leaves.

use crate::hash::Hash;
use crate::tiles::TILE_WIDTH;
use crate::tree::node_hash;

/// The hashes of every tile level: row 0 are the leaves, row `n` the complete subtrees of 256^n
/// leaves. The tile `index` of level `n` holds up to 256 hashes of row `n` from `index` * 256 on.
/// No row is empty; 33 bytes of memory a leaf.
pub fn tile_rows(leaves: Vec<Hash>) -> Vec<Vec<Hash>> {
    let mut rows = Vec::new();
    let mut row = leaves;
    while !row.is_empty() {
        let above = row.chunks_exact(usize::from(TILE_WIDTH)).map(complete_root).collect();
        rows.push(std::mem::replace(&mut row, above));
    }
    rows
}

/// The root over a number of hashes that is a power of two.
fn complete_root(hashes: &[Hash]) -> Hash {
    let mut row = hashes.to_vec();
    while row.len() > 1 {
        row = row.chunks_exact(2).map(|pair| node_hash(pair[0], pair[1])).collect();
    }
    row.first().copied().unwrap_or(Hash::OF_EMPTY)
}
